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
//! | file | what it owns |
//! |---|---|
//! | [`pool`] | chunks of 4 KB, how many may be lent, and how short they are |
//! | [`send`] | what was written, in chunks that are full but for the last one, and pieces of the application's own |
//! | [`recv`] | what came, each byte in the place where it is read, whatever the order was |
//! | `ranges` | which bytes came early, and what SACK tells of them |
//! | [`tune`] | how large the receive buffer should be |
//!
//! A byte is copied once on its way in and once on its way out. A connection that has nothing to send and nothing
//! to be read holds no memory of the pool, and none of the heap.
//!
//! What it does not know: windows, FINs, segments, and when to refuse a connection. Who uses it cuts data to the window
//! before it comes here, looks at [`Pool::pressure`], and calls `clear` of a buffer before dropping it: a buffer that
//! is dropped as it is gives its memory back to the system, but its bytes stay counted in the pool.

pub mod pool;
mod ranges;
pub mod recv;
pub mod send;
pub mod tune;

pub use pool::{Pool, Pressure};
pub use recv::{Inserted, RecvBuffer};
pub use send::SendBuffer;
pub use tune::ReceiveTuning;
