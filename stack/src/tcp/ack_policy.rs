//! When to acknowledge: delayed and quick ACKs (RFC 9293 section 3.8.6.3, RFC 5681 section 4.2).
//!
//! ACKs are not sent where they become due but at the end of the turn, one for all segments of the turn: a burst of
//! frames costs one ACK.

use smoltcp::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub(crate) struct AckPolicy {
    /// An ACK waits for company until then.
    due: Option<Instant>,
    /// Bytes of data that are not acknowledged.
    unacked: u32,
    /// The largest segment that has come lately: what the peer takes for a full one.
    rcv_mss: u16,
    rcv_mss_min: u16,
    /// Segments that are acknowledged at once: a peer in slow start needs the ACKs.
    quick: u8,
    /// Further ACKs that a peer without SACK counts.
    pub(crate) repeats: u8,
    /// One is due now.
    pub(crate) is_due: bool,
    /// The application answers what it gets: ACKs find company.
    is_interactive: bool,
}

impl AckPolicy {
    /// A peer whose segments are not what it takes itself is rare.
    pub(crate) fn new(peer_mss: u16) -> Self {
        let rcv_mss_min = peer_mss.min(RCV_MSS_MIN);
        Self {
            rcv_mss_min,
            due: None,
            unacked: 0,
            rcv_mss: rcv_mss_min,
            quick: QUICK_ACKS,
            repeats: 0,
            is_due: false,
            is_interactive: false,
        }
    }

    /// What the peer takes for a full segment, as far as we have seen.
    pub(crate) fn rcv_mss(&self) -> u32 {
        self.rcv_mss.into()
    }

    /// Data came in order: `len` bytes, in segments of `segment` bytes; `is_full`: more follows, so that is as long as
    /// they get.
    //= rfc9293#3.8.6.3
    //# A TCP endpoint SHOULD implement a delayed ACK (SHLD-18), but an ACK should not be excessively delayed; in
    //# particular, the delay MUST be less than 0.5 seconds (MUST-40).  An ACK SHOULD be generated for at least every
    //# second full-sized segment or 2*RMSS bytes of new data
    pub(crate) fn on_data(&mut self, now: Instant, len: u32, segment: u16, is_full: bool, delay: Duration) {
        self.unacked = self.unacked.saturating_add(len);
        if segment > self.rcv_mss || is_full {
            self.rcv_mss = segment.max(self.rcv_mss_min);
        }
        let is_quick = self.quick > 0 && !self.is_interactive;
        if is_quick || delay == Duration::ZERO || self.unacked >= 2 * u32::from(self.rcv_mss) {
            self.is_due = true;
        } else if self.due.is_none() {
            self.due = Some(now + delay);
        }
    }

    /// One is due at once.
    pub(crate) fn force(&mut self) {
        self.is_due = true;
    }

    /// A segment came out of order, from a peer that counts ACKs.
    pub(crate) fn repeat(&mut self) {
        if self.is_due {
            self.repeats = self.repeats.saturating_add(1).min(REPEATS_MAX);
        }
        self.is_due = true;
    }

    /// The sender was silent for long, or has lost something: it needs ACKs at once again.
    pub(crate) fn quicken(&mut self) {
        self.quick = QUICK_ACKS;
        self.is_interactive = false;
    }

    /// A segment with an ACK was sent; with data, the ACK has found company.
    pub(crate) fn on_sent(&mut self, has_data: bool) {
        if has_data && self.due.is_some() {
            self.is_interactive = true;
        }
        if self.unacked > 0 {
            self.quick = self.quick.saturating_sub(1);
        }
        if !has_data && self.repeats > 0 {
            self.repeats -= 1;
        } else {
            self.is_due = false;
            self.repeats = 0;
        }
        self.unacked = 0;
        self.due = None;
    }

    /// Until when an ACK waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.is_due { None } else { self.due }
    }

    /// That time may have come. No company was found, so none is waited for at once again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_over = self.deadline().is_some_and(|due| due <= now);
        if is_over {
            self.is_due = true;
            self.is_interactive = false;
        }
        is_over
    }
}

/// As on Linux.
const QUICK_ACKS: u8 = 16;
/// A bound of what one turn may owe.
const REPEATS_MAX: u8 = 64;
/// What counts as full before anything has come, and at least: the MSS of who says none (RFC 9293 section 3.7.1).
const RCV_MSS_MIN: u16 = 536;
