//! An orderly end: nobody is accepted any more, what was written is still sent, then a FIN; and who has not ended when
//! the time is over is reset. A leased address is given back.

use smoltcp::time::{Duration, Instant};

use super::cell::{Cell, Course};
use crate::shard::Shard;

/// How far the end of a shard is.
#[derive(Debug, Default)]
pub(crate) enum Ending {
    /// It goes on.
    #[default]
    None,
    /// Connections that may have something left to say.
    Drains(Vec<u32>),
    /// All was said; until then a lease may be given back.
    Releases(Instant),
}

impl Ending {
    /// What is to be done in a turn. True: this is the last one.
    pub(crate) fn turn(&mut self, cell: &Cell, shard: &mut Shard) -> bool {
        let now = shard.now();
        let deadline = match (&self, cell.course()) {
            (_, Course::Runs) => return false,
            (_, Course::Ended) => return true,
            (_, Course::Ends(deadline)) => deadline,
        };
        if matches!(self, Self::None) {
            *self = Self::Drains(shard.tcp_finish_all());
        }
        if let Self::Drains(left) = self {
            while left.last().is_some_and(|&index| shard.is_connection_quiet(index)) {
                left.pop();
            }
            if !left.is_empty() && now < deadline {
                // The deadline is in no wheel of the shard; it is looked at again soon.
                return false;
            }
            shard.tcp_abort_all();
            let has_lease = shard.dhcp_lease().is_some();
            if has_lease {
                shard.dhcp_release();
            }
            *self = Self::Releases(if has_lease { now + RELEASE_TIMEOUT } else { now });
        }
        matches!(self, Self::Releases(until) if now >= *until || shard.is_quiet())
    }
}

/// How long a lease may take to be given back: some round trips of a link.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
