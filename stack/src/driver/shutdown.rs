//! An orderly end: nobody is accepted any more, what was written is still sent, then a FIN; and what has not ended when
//! the time is over is reset. A leased address is given back when no shard needs it any more.
//!
//! ```text
//!   Runs ─ told to end ─▶ Drains ─ all was acknowledged ─▶ Lingers ─ peers have finished, too ─▶ Waits ─▶ Releases ─▶ end
//!                            └──────── the deadline ──────────┴────────────▶ resets ──────────────▶┘
//! ```

use std::io;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::cell::{Cell, Course};
use crate::api::Hub;
use crate::shard::Shard;

/// How far the end of a shard is.
#[derive(Debug, Default)]
pub(crate) enum Ending {
    /// It goes on.
    #[default]
    None,
    /// Connections that may have something left to say.
    Drains { left: Vec<u32>, deadline: Instant },
    /// All was said and has arrived. Peers that finish as well within a moment need not be reset.
    Lingers { left: Vec<u32>, until: Instant, deadline: Instant },
    /// Other shards may still need the leased address.
    Waits { deadline: Instant },
    /// What is left to be sent goes out.
    Releases { until: Instant },
}

impl Ending {
    /// What is to be done in a turn, before it sends.
    pub(crate) fn turn(&mut self, course: Course, cell: &Cell, all: &[Arc<Cell>], hub: &mut Hub) {
        let Course::Ends(told) = course else { return };
        let now = hub.shard_ref().now();
        // Each step may lead to the next one at once.
        loop {
            let next = match self {
                Self::None => Some(Self::Drains { left: hub.shard().tcp_finish_all(), deadline: told }),
                Self::Drains { left, deadline } => {
                    *deadline = told;
                    drain(left, |index| hub.shard_ref().is_connection_quiet(index));
                    let is_over = left.is_empty() || now >= told;
                    is_over.then(|| Self::Lingers {
                        left: hub.shard_ref().tcp_unfinished(),
                        until: told.min(now + LINGER),
                        deadline: told,
                    })
                }
                Self::Lingers { left, until, deadline } => {
                    (*until, *deadline) = (told.min(*until), told);
                    drain(left, |index| hub.shard_ref().is_connection_over(index));
                    (left.is_empty() || now >= *until).then(|| {
                        // Before the resets: what is over is the network, whatever becomes of each connection.
                        hub.fail(io::ErrorKind::NetworkDown);
                        hub.shard().tcp_abort_all();
                        tell_drained(cell, all);
                        Self::Waits { deadline: told }
                    })
                }
                Self::Waits { deadline } => {
                    *deadline = told;
                    let shard = hub.shard();
                    let has_lease = shard.dhcp_lease().is_some();
                    let is_over = !has_lease || now >= told || all.iter().all(|other| other.is_drained());
                    is_over.then(|| {
                        if has_lease {
                            shard.dhcp_release();
                        }
                        Self::Releases { until: now + RELEASE_TIMEOUT }
                    })
                }
                Self::Releases { .. } => None,
            };
            match next {
                Some(next) => *self = next,
                None => return,
            }
        }
    }

    /// Whether all is done. To be asked when a turn has sent.
    pub(crate) fn is_over(&self, shard: &Shard) -> bool {
        match self {
            Self::Releases { until } => shard.now() >= *until || shard.is_quiet(),
            _ => false,
        }
    }

    /// When it goes on even if nothing comes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match *self {
            Self::None => None,
            Self::Drains { deadline, .. } | Self::Waits { deadline } => Some(deadline),
            Self::Lingers { until, .. } | Self::Releases { until } => Some(until),
        }
    }
}

/// Takes those away from the end of which this holds; the others are asked again when it is their turn.
fn drain(left: &mut Vec<u32>, is_done: impl Fn(u32) -> bool) {
    while left.last().is_some_and(|&index| is_done(index)) {
        left.pop();
    }
}

/// Whoever waits for this shard looks again.
fn tell_drained(cell: &Cell, all: &[Arc<Cell>]) {
    cell.set_drained();
    all.iter().filter(|other| !std::ptr::eq(&***other, cell)).for_each(|other| other.parker.call());
}

/// How long a peer may take to finish after we have: a round trip, and a program that wakes up.
const LINGER: Duration = Duration::from_millis(250);
/// How long resets, and a lease that is given back, may take to leave: a neighbour may have to be found.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(250);
