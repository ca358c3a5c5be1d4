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
//! Shards share the addresses of the stack and nothing else. A flow is the shard's to which the kernel steers its frames
//! ([`Steering`](crate::demux::Steering)): listeners and UDP sockets are in all shards, and what begins here takes a port
//! with which the answers come to the shard that asks. What concerns all goes as mail: frames about the link (ARP, NDP and
//! router advertisements, IGMP, MLD), and what the DHCP clients of the first shard have learned. Each shard probes the
//! addresses itself, which takes no longer; none hears the probes of another as those of a stranger, for they have our
//! hardware address. A datagram to a group comes to one shard, where the socket is that every shard has.
//!
//! | file | what it owns |
//! |---|---|
//! | `launch` | from a configuration and devices to a running stack |
//! | `group` | a device for each shard |
//! | `handle` | what its owner does with it, and others |
//! | `thread` | the loop of one shard |
//! | `pace` | whether it spins or sleeps |
//! | `parker` | sleeping without missing a wake-up |
//! | `cell`, `mailbox` | what the thread shares with others; what shards tell each other, bounded |
//! | `shutdown` | an orderly end |

mod cell;
mod group;
mod handle;
mod launch;
mod mailbox;
mod pace;
mod parker;
mod shutdown;
mod thread;

pub use cell::Cell;
pub use group::open_group;
pub use handle::{Driver, ShardFigures, Stopper, Watcher};
pub use launch::{InTurn, Launch, LaunchError, MakeInTurn};
pub(crate) use pace::Pace;
pub use pace::Patience;
pub(crate) use parker::Parker;

#[cfg(test)]
mod tests;
