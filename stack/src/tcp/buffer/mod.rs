//! Memory of connections: what they send, what they have received, and the pool that all of it comes from.
//!
//! ```text
//!            snd_una                 snd_nxt            end
//!   send        │ sent, not acknowledged │ to be sent    │   ← the application writes here
//!
//!            read up to here   rcv_nxt
//!   recv        │ to be read     │ hole │ came early │        ← the network writes here
//! ```
//!
//! A connection that has nothing to send and nothing to be read holds no memory of the pool.

pub mod pool;
mod ranges;
pub mod recv;
pub mod send;
pub mod tune;

pub use pool::{Pool, Pressure};
pub use recv::{Inserted, RecvBuffer};
pub use send::SendBuffer;
pub use tune::ReceiveTuning;
