//! What can be seen from outside: reasons, counters, snapshots, events.

pub mod counters;
pub mod event;
pub mod reason;
pub mod stage;

pub use counters::ShardCounters;
pub use event::{Event, Hook};
pub use reason::{DropReason, Drops};
pub use stage::{Stage, StageClock, StageTimes};
