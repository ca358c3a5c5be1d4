//! Which segments are lost, by time: RACK, and the probe for losses at the tail, TLP (RFC 8985).
//!
//! A segment is lost if one that was sent later has arrived and it is older than that one's round trip and the
//! reordering window. How old segments are is asked of the scoreboard in the order of sending.

use smoltcp::time::{Duration, Instant};

use super::sack::{Age, Position};

/// DupThresh of RFC 8985 section 6.2.1.
pub(super) const DUP_THRESH: u32 = 3;

/// So many recoveries without a DSACK bring the reordering window back to a quarter of a round trip.
const REO_WND_PERSIST: u8 = 16;

/// The detector: the variables of RFC 8985 section 5.2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rack {
    /// RACK.xmit_ts: when the segment was sent that was sent last of those that have arrived.
    sent_at: Instant,
    /// RACK.end_seq of that segment. 0: there is none yet.
    end: Position,
    /// RACK.fack: the highest number that has arrived.
    fack: Position,
    /// RACK.dsack_round. 0: none.
    dsack_round: Position,
    /// RACK.rtt in microseconds.
    rtt: u32,
    reo_wnd_mult: u8,
    reo_wnd_persist: u8,
    reordering_seen: bool,
}

/// What the reordering window depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    /// Recovering, or after an RTO.
    pub(super) is_recovering: bool,
    /// RACK.segs_sacked.
    pub(super) sacked_segments: u32,
    /// RACK.min_RTT.
    pub(super) min_rtt: Option<Duration>,
    /// SRTT.
    pub(super) srtt: Option<Duration>,
}

impl Rack {
    pub(super) fn new() -> Self {
        Self {
            sent_at: Instant::ZERO,
            end: 0,
            fack: 0,
            dsack_round: 0,
            rtt: 0,
            reo_wnd_mult: 1,
            reo_wnd_persist: 0,
            reordering_seen: false,
        }
    }

    /// Step 1 and 2: a segment has arrived, which was sent at `sent_at` and is not suspected to be an answer to an
    /// earlier sending of it.
    pub(super) fn update(&mut self, now: Instant, sent_at: Instant, end: Position) {
        // A round trip takes time, even if the clock has not seen it: or what is repeated at the same point in time would
        // be as old as what arrived, and be repeated again with every ACK.
        self.rtt = u32::try_from((now - sent_at).total_micros()).unwrap_or(u32::MAX).max(1);
        if self.end == 0 || sent_after(sent_at, end, self.sent_at, self.end) {
            self.sent_at = sent_at;
            self.end = end;
        }
    }

    /// Step 3: segments have arrived, up to this number, in the order of their numbers.
    //= rfc8985#6.2
    //# If a never-retransmitted
    //# segment that's below RACK.fack is (selectively or cumulatively)
    //# acknowledged, it has been delivered out of order.
    pub(super) fn detect_reordering(&mut self, end: Position, is_resent: bool) {
        if end > self.fack {
            self.fack = end;
        } else if end < self.fack && !is_resent {
            self.reordering_seen = true;
        }
    }

    /// A repair has turned out to be none: what was missing came late.
    pub(super) fn note_reordering(&mut self) {
        self.reordering_seen = true;
    }

    /// Step 4, where a DSACK came that tells of a needless repetition: the window grows, once in a round trip.
    pub(super) fn on_dsack(&mut self, una: Position, nxt: Position) {
        if self.dsack_round != 0 && una >= self.dsack_round {
            self.dsack_round = 0;
        }
        if self.dsack_round == 0 {
            self.dsack_round = nxt;
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = REO_WND_PERSIST;
        }
    }

    /// Step 4, at the end of a recovery.
    pub(super) fn on_recovery_end(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 1;
        }
    }

    /// The reordering window.
    pub(super) fn reo_wnd(&self, around: &Surroundings) -> Duration {
        if !self.reordering_seen && (around.is_recovering || around.sacked_segments >= DUP_THRESH) {
            return Duration::ZERO;
        }
        let window = around.min_rtt.unwrap_or(Duration::ZERO) / 4 * u32::from(self.reo_wnd_mult);
        window.min(around.srtt.unwrap_or(Duration::ZERO))
    }

    /// Step 5: how old something is.
    pub(super) fn age(&self, now: Instant, reo_wnd: Duration, sent_at: Instant, end: Position) -> Age {
        if self.end == 0 || !sent_after(self.sent_at, self.end, sent_at, end) {
            return Age::Young;
        }
        if self.is_expired(now, reo_wnd, sent_at) { Age::Expired } else { Age::Waiting }
    }

    /// Whether a segment that was sent then is too old to come any more, whatever has arrived since (RFC 8985 section
    /// 6.3, for the RTO).
    pub(super) fn is_expired(&self, now: Instant, reo_wnd: Duration, sent_at: Instant) -> bool {
        sent_at + Duration::from_micros(u64::from(self.rtt)) + reo_wnd <= now
    }

    /// When all that is [`Age::Waiting`] will have expired: none of it was sent after the segment that arrived.
    pub(super) fn expiry(&self, reo_wnd: Duration) -> Instant {
        self.sent_at + Duration::from_micros(u64::from(self.rtt)) + reo_wnd
    }
}

/// Whether the first was sent after the second (RACK_sent_after).
pub(super) fn sent_after(at: Instant, end: Position, other_at: Instant, other_end: Position) -> bool {
    (at, end) > (other_at, other_end)
}

/// The probe for losses at the tail (section 7).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Probe {
    /// TLP.end_seq. 0: no probe is under way.
    end: Position,
    /// TLP.is_retrans.
    is_resent: bool,
    /// The timer has asked for a probe; whether it will be new data is not known yet.
    is_asked: bool,
    /// There was a sample of the round-trip time since the last probe.
    has_sample: bool,
}

/// What an ACK tells of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    /// Nothing yet, or that all is well.
    Nothing,
    /// The probe has repaired a loss, of which the controller has to hear.
    Repaired,
}

impl Probe {
    /// `has_sample`: the handshake has told the round-trip time.
    pub(super) fn new(has_sample: bool) -> Self {
        Self { has_sample, ..Self::default() }
    }

    /// Whether one may be sent, as far as those before it are concerned.
    pub(super) fn may_be_sent(&self) -> bool {
        //= rfc8985#7.3
        //# First, there is no other previous loss probe still in flight.
        self.end == 0 && !self.is_asked && self.has_sample
    }

    /// Whether this is the end of a probe that repeats: a DSACK of it says nothing of reordering.
    pub(super) fn ends_at(&self, end: Position) -> bool {
        self.end != 0 && self.is_resent && self.end == end
    }

    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// There was a sample of the round-trip time.
    pub(super) fn on_sample(&mut self) {
        self.has_sample = true;
    }

    /// New data has left, up to `nxt`; a probe if one was asked for.
    pub(super) fn on_sent(&mut self, nxt: Position) {
        if self.is_asked {
            *self = Self { end: nxt, ..Self::default() };
        }
    }

    /// Old data has left as the probe.
    pub(super) fn on_resent(&mut self, nxt: Position) {
        *self = Self { end: nxt, is_resent: true, ..Self::default() };
    }

    /// A recovery has begun, which takes care of all.
    pub(super) fn cancel(&mut self) {
        *self = Self { has_sample: self.has_sample, ..Self::default() };
    }

    /// TLP_process_ack of section 7.4.2. `dsack_end`: the end of a block of DSACK in it; `is_bare_duplicate`: a
    /// duplicate ACK without any block.
    pub(super) fn on_ack(
        &mut self,
        ack: Position,
        dsack_end: Option<Position>,
        is_bare_duplicate: bool,
    ) -> ProbeOutcome {
        if self.end == 0 || ack < self.end {
            return ProbeOutcome::Nothing;
        }
        let is_done = !self.is_resent || dsack_end == Some(self.end) || ack > self.end || is_bare_duplicate;
        let is_repaired = self.is_resent && dsack_end != Some(self.end) && ack > self.end;
        if is_done {
            self.cancel();
        }
        if is_repaired { ProbeOutcome::Repaired } else { ProbeOutcome::Nothing }
    }
}
