//! In what there was no room for a datagram, and when there may be some again.

use super::Shard;
use crate::observe::DropReason;
use crate::udp::SendError;

/// In what there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// On the way out, where frames leave at the pace of the device.
    Outbox,
    /// Beside the frames that wait for neighbours, where it may take seconds.
    Neighbors {
        /// How often room had come free there.
        freed: u64,
    },
}

impl Shard {
    /// What the sender of a datagram is told, and what it may wait for. `max`: bytes of payload that would go.
    pub(super) fn refuse_datagram(&mut self, reason: DropReason, max: usize) -> SendError {
        self.shortage = match reason {
            DropReason::NeighborQueueFull | DropReason::NeighborNoRoom => {
                Shortage::Neighbors { freed: self.neighbors.room_freed() }
            }
            _ => Shortage::Outbox,
        };
        super::udp::send_error(reason, max)
    }

    /// In what there was no room for the datagram that was refused last, with [`SendError::WouldBlock`].
    pub(crate) fn shortage(&self) -> Shortage {
        self.shortage
    }

    /// Whether most datagrams find room on their way out.
    pub(crate) fn has_room_for_datagrams(&self) -> bool {
        self.has_room_for(DATAGRAM_BYTES_MAX.min(self.config.outbox_bytes_max / 2))
    }

    /// Whether a datagram that was refused for this is worth another try.
    pub(crate) fn may_be_over(&self, shortage: Shortage) -> bool {
        match shortage {
            // They may be smaller than the largest datagram; when they are empty, there will not be more room.
            Shortage::Outbox => {
                self.has_room_for(DATAGRAM_BYTES_MAX) || self.outbox.is_empty() && self.looped.is_empty()
            }
            Shortage::Neighbors { freed } => self.neighbors.room_freed() != freed,
        }
    }
}

/// The largest datagram with the headers of all its fragments.
const DATAGRAM_BYTES_MAX: usize = 80_000;
