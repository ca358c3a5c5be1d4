//! What can be seen from outside: reasons, counters, snapshots, events.

pub mod counters;
pub mod event;
pub mod reason;
pub mod snapshot;
pub mod stage;
pub mod table;

pub use counters::ShardCounters;
pub use event::{Event, Hook};
pub use reason::{DropReason, Drops};
pub use snapshot::Snapshot;
pub use stage::{Stage, StageClock, StageTimes};
