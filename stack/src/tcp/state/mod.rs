//! The state machine of RFC 9293 section 3.10, a file for each step of it.
//!
//! | file | what it handles |
//! |---|---|
//! | [`crate::tcp::half_open`] | LISTEN, and SYN-RECEIVED of who listens (3.10.7.2) |
//! | `syn_sent` | SYN-SENT (3.10.7.3) |
//! | `syn_received` | SYN-RECEIVED of a simultaneous open |
//! | `synchronized` | 3.10.7.4: sequence number, RST, SYN, in the order of the RFC |
//! | `ack` | fifth: the acknowledgment, the window, what a FIN that is acknowledged changes |
//! | `text` | seventh and eighth: data, and FIN |
//! | [`crate::tcp::time_wait`] | TIME-WAIT, which is a record |
//!
//! A segment is judged: what becomes of it is a value, a [`Disposition`].

mod ack;
mod syn_received;
mod syn_sent;
mod synchronized;
#[cfg(test)]
mod tests;
mod text;

use super::error::Failure;
use super::segment::Header;
use crate::observe::DropReason;

/// States of a connection (RFC 9293 section 3.3.2) that has a control block: LISTEN has none, and TIME-WAIT is
/// only a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// Our SYN is on its way.
    SynSent,
    /// Both SYNs have met on the way, and we have acknowledged the peer's.
    SynReceived,
    /// Data goes both ways.
    Established,
    /// We have finished; the peer has not, and has not acknowledged it.
    FinWait1,
    /// It has acknowledged that.
    FinWait2,
    /// The peer has finished; we have not.
    CloseWait,
    /// Both have finished at the same time.
    Closing,
    /// The peer had finished, and now we have.
    LastAck,
    /// There is no connection any more; what had come can still be read.
    #[default]
    Closed,
}

impl State {
    /// The name of the RFC.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::Closed => "CLOSED",
        }
    }

    /// Whether the handshake is done and the connection is not over.
    pub(crate) fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed)
    }

    /// Whether the peer may still send data.
    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Whether the application may still send data (in the first two states it waits).
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Established | Self::CloseWait)
    }

    /// Whether our FIN is, or is to be, on its way and not acknowledged.
    pub(crate) fn is_finishing(self) -> bool {
        matches!(self, Self::FinWait1 | Self::Closing | Self::LastAck)
    }
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Disposition {
    /// It was used.
    Taken,
    /// It was not.
    Dropped(DropReason),
    /// It was not, and the peer is told where we are, unless it was told just now.
    Answered(DropReason),
    /// It looks like an attack, or a peer that has started anew: a challenge ACK, if the throttle lets it.
    Challenged(DropReason),
    /// A reset is sent, and our own state stays.
    Refused(DropReason, Header),
    /// The connection is over.
    Ended(Ending),
    /// The connection is over, and the peer is told by a reset.
    Reset(Failure, Header),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both have finished, the peer last: nothing is left.
    Closed,
    /// Both have finished, we first: a record stays.
    TimeWait,
    /// For a reason.
    Failed(Failure),
}
