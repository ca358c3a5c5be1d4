//! What Reno and CUBIC have in common: a window, a threshold, and what is needed to take a reduction back.

use super::{AckSample, CongestionEvent, Signal};

/// No window is larger: the largest that a peer can announce (RFC 7323 section 2.3).
pub(super) const CWND_MAX: u32 = 1 << 30;

/// Stands for a threshold that is not known yet.
const SSTHRESH_UNKNOWN: u32 = u32::MAX;

/// Whether a reduction is being worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Episode {
    /// None is.
    Open,
    /// Fast recovery: the sender follows PRR, and the window stands at the threshold until the end.
    Recovery,
    /// A retransmission timeout: slow start from one segment, while everything is repeated.
    Timeout,
}

/// A window in bytes. It does not shrink below one segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) cwnd: u32,
    /// `SSTHRESH_UNKNOWN` before the first loss.
    ssthresh: u32,
    pub(super) mss: u32,
    /// Bytes that were delivered in congestion avoidance and that the window has not grown for yet.
    credit: u32,
    /// What there was before the last reduction. `prior_cwnd` is 0 if there is nothing to take back.
    prior_cwnd: u32,
    prior_ssthresh: u32,
    episode: Episode,
}

impl Window {
    pub(super) fn new(mss: u32, initial_window: u32) -> Self {
        let mss = mss.max(1);
        Self {
            cwnd: initial_window.clamp(mss, CWND_MAX.max(mss)),
            ssthresh: SSTHRESH_UNKNOWN,
            mss,
            credit: 0,
            prior_cwnd: 0,
            prior_ssthresh: 0,
            episode: Episode::Open,
        }
    }

    /// The window, rounded up to whole segments: a segment goes if there is room for a part of it. A sender that waits
    /// for room for all of it has half a segment less in flight on average, a tenth of the window at 5 % loss.
    pub(super) fn whole_segments(&self) -> u32 {
        self.cwnd.div_ceil(self.mss).saturating_mul(self.mss)
    }

    pub(super) fn ssthresh(&self) -> Option<u32> {
        (self.ssthresh != SSTHRESH_UNKNOWN).then_some(self.ssthresh)
    }

    pub(super) fn is_in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Whether this is the slow start of the beginning: nothing was lost yet.
    pub(super) fn is_in_first_slow_start(&self) -> bool {
        self.ssthresh == SSTHRESH_UNKNOWN
    }

    /// Slow start is over, without a loss.
    pub(super) fn leave_slow_start(&mut self) {
        self.ssthresh = self.cwnd;
    }

    /// Whether what this ACK tells may make the window larger. Not while PRR decides what goes (after a timeout it
    /// does not), and not a window that was not used.
    pub(super) fn may_grow(&self, sample: &AckSample) -> bool {
        sample.is_cwnd_limited && !(sample.is_in_recovery && self.episode != Episode::Timeout)
    }

    /// Slow start: by what was delivered, over `divisor`, up to the threshold. Returns the delivered bytes that were
    /// not needed for it, which are for congestion avoidance.
    ///
    /// An ACK counts for all that it tells, be it for 64 KB (L of RFC 3465 is without limit): bytes are delivered
    /// once, so that no number of ACKs and no split of them makes more of them, and what a cumulative ACK after
    /// a repair covers was counted when it arrived. What a large ACK lets out at once is the pacer's to spread.
    pub(super) fn slow_start(&mut self, delivered: u32, divisor: u32) -> u32 {
        let room = self.ssthresh.saturating_sub(self.cwnd);
        let growth = delivered / divisor;
        if growth <= room {
            self.set_cwnd(self.cwnd.saturating_add(growth));
            return 0;
        }
        self.set_cwnd(self.cwnd.saturating_add(room));
        (growth - room).saturating_mul(divisor)
    }

    /// Congestion avoidance: a segment more for each `per_segment` bytes that were delivered (`cwnd` for the window of
    /// RFC 5681).
    pub(super) fn grow_one_segment_per(&mut self, per_segment: u32, delivered: u32) {
        let per_segment = per_segment.max(1);
        self.credit = self.credit.saturating_add(delivered);
        let segments = self.credit / per_segment;
        self.credit %= per_segment;
        self.set_cwnd(self.cwnd.saturating_add(segments.saturating_mul(self.mss)));
    }

    /// FlightSize as a base of a reduction: what limited transmit has sent beyond the window is not counted
    /// (RFC 5681 section 3.2 point 2). In fast recovery the window is smaller than what was sent before it.
    pub(super) fn flight_size(&self, event: &CongestionEvent) -> u32 {
        if self.episode == Episode::Recovery { event.in_flight } else { event.in_flight.min(self.cwnd) }
    }

    /// The window becomes smaller: the threshold is `ssthresh`, a part of what was in flight, or two segments if
    /// that is more.
    pub(super) fn reduce(&mut self, event: &CongestionEvent, ssthresh: u32) {
        self.prior_cwnd = self.cwnd;
        self.prior_ssthresh = self.ssthresh;
        let ssthresh = ssthresh.max(2 * self.mss);
        self.credit = 0;
        match event.signal {
            Signal::Loss => {
                self.ssthresh = ssthresh;
                self.set_cwnd(ssthresh);
                self.episode = Episode::Recovery;
            }
            Signal::Ecn => {
                // Nothing is to be repaired: no end of a recovery will be told.
                self.ssthresh = ssthresh;
                self.set_cwnd(ssthresh.min(self.cwnd));
            }
            Signal::Timeout => {
                // In fast recovery the threshold has paid for this flight already.
                let was_reduced = self.episode == Episode::Recovery;
                self.ssthresh = if was_reduced { self.ssthresh.min(ssthresh) } else { ssthresh };
                self.set_cwnd(self.mss);
                self.episode = Episode::Timeout;
            }
        }
    }

    /// The loss is repaired. Fast recovery ends at the threshold, slow start after a timeout where it is.
    pub(super) fn end_recovery(&mut self) {
        if self.episode == Episode::Recovery {
            self.set_cwnd(self.ssthresh);
        }
        self.episode = Episode::Open;
    }

    /// Takes the last reduction back. False: there was none.
    pub(super) fn undo(&mut self) -> bool {
        self.episode = Episode::Open;
        if self.prior_cwnd == 0 {
            return false;
        }
        self.set_cwnd(self.cwnd.max(self.prior_cwnd));
        self.ssthresh = self.ssthresh.max(self.prior_ssthresh);
        self.prior_cwnd = 0;
        true
    }

    pub(super) fn reduce_to(&mut self, cwnd: u32, ssthresh: u32) {
        self.set_cwnd(self.cwnd.min(cwnd));
        self.ssthresh = ssthresh.max(2 * self.mss);
    }

    /// The window stays as many bytes as it was.
    pub(super) fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
        self.set_cwnd(self.cwnd);
        self.ssthresh = self.ssthresh.max(2 * self.mss);
    }

    pub(super) fn set_cwnd(&mut self, cwnd: u32) {
        self.cwnd = cwnd.clamp(self.mss, CWND_MAX.max(self.mss));
    }
}
