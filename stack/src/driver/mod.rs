//! Threads that turn shards, one each, for applications on other threads.
//!
//! ```text
//!   application ──▶ Access::with ──▶ lock ▸ hub ──┐ something is due earlier than planned
//!                                                 ▼
//!   thread of shard 0   receive ▸ wake ▸ send ▸ [spin] ▸ asleep? ◀── Parker::notify (eventfd)
//!          ▲    │ mail
//!          │    ▼
//!   thread of shard 1   …
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | `launch` | from a configuration and devices to a running stack |
//! | `thread` | the loop of one shard |
//! | `parker` | sleeping without missing a wake-up |
//! | `mailbox` | what shards tell each other, bounded |
//! | `shutdown` | an orderly end |
//! | `group` | a device for each shard |
//! | `figures` | what was counted |

mod cell;
mod figures;
mod group;
mod launch;
mod mailbox;
mod parker;
mod shutdown;
mod thread;

pub use cell::Cell;
pub use figures::{ShardFigures, Watcher};
pub use group::open_group;
pub use launch::{Driver, InTurn, Launch, LaunchError, MakeInTurn, Patience};
