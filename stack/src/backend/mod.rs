//! Other engines than this crate's own: what turns frames into byte streams.
//!
//! There is one, on smoltcp's `Interface` and sockets: complete enough to serve pages on a clean link to a friendly
//! peer, and kept as a yardstick.

pub mod smoltcp;
