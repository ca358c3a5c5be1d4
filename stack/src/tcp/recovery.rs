//! Repairing losses: how fast (PRR), until when, and whether there were any (undo, F-RTO).

mod frto;
mod newreno;
mod prr;
mod undo;

pub(super) use frto::{Frto, FrtoVerdict};
pub(super) use newreno::NewReno;
pub(super) use prr::{Prr, PrrAck};
pub(super) use undo::{Evidence, Undo};

use super::sack::Position;

/// What is being repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    Open,
    /// A loss that was detected: fast recovery.
    Fast,
    /// A loss that the retransmission timer has found.
    Timeout,
}

/// A repair, or one that has ended and may turn out to have been needless.
#[derive(Debug)]
pub(super) struct Recovery {
    /// `Open`: it has ended.
    pub(super) phase: Phase,
    /// A timeout has begun it.
    pub(super) is_timeout: bool,
    /// RecoveryPoint of RFC 6675: `snd_nxt` when it began; when it ended, `snd_nxt` then.
    pub(super) high: Position,
    /// How much may be sent.
    pub(super) prr: Prr,
    /// Whether it was needless.
    pub(super) undo: Undo,
    /// Whether the timeout was spurious.
    pub(super) frto: Frto,
}
