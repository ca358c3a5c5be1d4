//! What can be seen from outside: reasons, counters, snapshots, events.

pub mod reason;

pub use reason::DropReason;
