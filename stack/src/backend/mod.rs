//! Engines: what turns frames into byte streams.
//!
//! Today there is one, on smoltcp's `Interface` and sockets: complete enough to serve pages on a clean
//! link to a friendly peer, and the yardstick for the engine of this crate's own.

pub mod smoltcp;
