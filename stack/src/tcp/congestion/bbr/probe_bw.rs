//! ProbeBW: less, as much, and more than what is known, in turns.

use smoltcp::time::{Duration, Instant};

use super::model::is_inflight_too_high;
use super::{Bbr, Context, INFINITY, Phase};

/// Round trips between probes, at most, so that Reno and CUBIC at our side get their share.
const RENO_ROUNDS_MAX: u32 = 63;

/// What ACKs tell of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AckPhase {
    /// ACKS_INIT: of no probe.
    Init,
    /// ACKS_REFILLING.
    Refilling,
    /// ACKS_PROBE_STARTING: of what was sent before the probe.
    Starting,
    /// ACKS_PROBE_FEEDBACK: of what the probe has sent.
    Feedback,
    /// ACKS_PROBE_STOPPING: still of the probe, which is over.
    Stopping,
}

/// The cycle of probes.
#[derive(Debug, Clone)]
pub(super) struct Probing {
    ack_phase: AckPhase,
    /// When this cycle began, and how long it may take until the next probe.
    cycle_stamp: Instant,
    pub(super) wait: Duration,
    pub(super) rounds_since_up: u32,
    /// Samples are of what a probe has sent, and no loss of it was answered yet.
    pub(super) is_sample: bool,
    /// The last probe was too much.
    pub(super) was_too_high: bool,
    /// The last probe ended early, to be on the safe side.
    was_precautionary: bool,
    /// In Up: rounds, bytes, and bytes for which `inflight_longterm` grows by a segment.
    up_rounds: u32,
    up_acked: u64,
    up_acked_per_inc: u64,
    random: u64,
}

impl Probing {
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            ack_phase: AckPhase::Init,
            cycle_stamp: now,
            wait: Duration::ZERO,
            rounds_since_up: 0,
            is_sample: false,
            was_too_high: false,
            was_precautionary: false,
            up_rounds: 0,
            up_acked: 0,
            up_acked_per_inc: u64::MAX,
            random: seed,
        }
    }

    /// ACKs tell of a probe that is over (before ProbeRtt, too).
    pub(super) fn stop(&mut self) {
        self.ack_phase = AckPhase::Stopping;
    }

    /// PickProbeWait: two to three seconds, and none or one of the rounds has passed already.
    pub(super) fn pick_wait(&mut self) {
        // SplitMix64: any seed will do, and a seed gives one sequence.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        self.rounds_since_up = (bits & 1) as u32;
        self.wait = Duration::from_micros(2_000_000 + (bits >> 32) * 1_000_000 / (1 << 32));
    }
}

impl Bbr {
    /// StartProbeBW_DOWN.
    pub(super) fn start_down(&mut self, now: Instant) {
        self.model.reset_congestion_signals();
        self.probing.up_acked_per_inc = u64::MAX;
        self.probing.pick_wait();
        self.probing.cycle_stamp = now;
        self.probing.ack_phase = AckPhase::Stopping;
        self.rounds.restart(self.delivered_total);
        self.phase = Phase::Down;
    }

    /// StartProbeBW_CRUISE.
    pub(super) fn start_cruise(&mut self) {
        self.phase = Phase::Cruise;
    }

    /// StartProbeBW_REFILL.
    pub(super) fn start_refill(&mut self) {
        self.model.reset_shortterm();
        self.probing.up_rounds = 0;
        self.probing.up_acked = 0;
        self.probing.was_precautionary = false;
        self.probing.ack_phase = AckPhase::Refilling;
        self.rounds.restart(self.delivered_total);
        self.phase = Phase::Refill;
    }

    /// StartProbeBW_UP.
    fn start_up(&mut self, context: &Context<'_>) {
        self.probing.ack_phase = AckPhase::Starting;
        self.rounds.restart(self.delivered_total);
        self.full_pipe.reset(context.delivery_rate);
        self.phase = Phase::Up;
        self.raise_inflight_longterm_slope();
    }

    /// UpdateProbeBWCyclePhase.
    pub(super) fn update_probe_bw_cycle_phase(&mut self, context: &Context<'_>) {
        if !self.full_pipe.is_reached || self.adapt_long_term_model(context) {
            return;
        }
        let now = context.sample.now;
        match self.phase {
            Phase::Down | Phase::Cruise if self.is_time_to_probe_bw(now) => self.start_refill(),
            Phase::Down if self.is_time_to_cruise(context.sample.in_flight) => self.start_cruise(),
            Phase::Refill if self.rounds.is_start => {
                self.probing.is_sample = true;
                self.start_up(context);
            }
            Phase::Up => self.check_probe_up_done(context),
            _ => {}
        }
    }

    /// IsTimeToProbeBW.
    fn is_time_to_probe_bw(&self, now: Instant) -> bool {
        let reno_rounds = (self.target_inflight() / self.mss).min(RENO_ROUNDS_MAX);
        now > self.probing.cycle_stamp + self.probing.wait || self.probing.rounds_since_up >= reno_rounds
    }

    /// IsTimeToCruise: others have their headroom, and the queue is gone.
    fn is_time_to_cruise(&self, in_flight: u32) -> bool {
        in_flight <= self.inflight_with_headroom() && in_flight <= self.inflight(1.0)
    }

    fn check_probe_up_done(&mut self, context: &Context<'_>) {
        if self.is_time_to_go_down(context) {
            self.probing.was_too_high = false;
            self.start_down(context.sample.now);
        }
    }

    /// IsTimeToGoDown.
    fn is_time_to_go_down(&mut self, context: &Context<'_>) -> bool {
        let longterm = self.model.inflight_longterm;
        if self.probing.was_too_high && context.sample.in_flight >= longterm {
            self.probing.was_precautionary = true;
            return true;
        }
        if context.sample.is_cwnd_limited && self.cwnd >= longterm {
            // What was too much last time holds us back, not the path.
            self.full_pipe.reset(context.delivery_rate);
            return false;
        }
        self.full_pipe.is_now
    }

    /// RaiseInflightLongtermSlope: one segment in the first round, then twice as many in each.
    fn raise_inflight_longterm_slope(&mut self) {
        let growth = 1_u64 << self.probing.up_rounds;
        self.probing.up_rounds = (self.probing.up_rounds + 1).min(30);
        self.probing.up_acked_per_inc = (u64::from(self.cwnd) / growth).max(u64::from(self.mss));
    }

    /// ProbeInflightLongtermUpward.
    fn probe_inflight_longterm_upward(&mut self, context: &Context<'_>) {
        if !context.sample.is_cwnd_limited || self.cwnd < self.model.inflight_longterm {
            return;
        }
        let probing = &mut self.probing;
        probing.up_acked += u64::from(context.sample.delivered);
        let segments = probing.up_acked / probing.up_acked_per_inc;
        probing.up_acked %= probing.up_acked_per_inc;
        let growth = segments.saturating_mul(u64::from(self.mss)).min(u64::from(u32::MAX)) as u32;
        self.model.inflight_longterm = self.model.inflight_longterm.saturating_add(growth).min(INFINITY - 1);
        if self.rounds.is_start {
            self.raise_inflight_longterm_slope();
        }
    }

    /// AdaptLongTermModel. True: it has decided on the next phase.
    fn adapt_long_term_model(&mut self, context: &Context<'_>) -> bool {
        if self.probing.ack_phase == AckPhase::Starting && self.rounds.is_start {
            self.probing.ack_phase = AckPhase::Feedback;
        }
        if self.probing.ack_phase == AckPhase::Stopping && self.rounds.is_start {
            self.probing.is_sample = false;
            self.probing.ack_phase = AckPhase::Init;
            if self.phase.is_probe_bw() && !context.is_app_limited {
                self.model.advance_max_bw_filter();
            }
            if self.phase.is_probe_bw() && self.probing.was_precautionary && !self.probing.was_too_high {
                // As much as was too much once was not this time: try more at once.
                self.start_refill();
                return true;
            }
        }
        let longterm = self.model.inflight_longterm;
        if let Some(rate) = context.rate
            && !is_inflight_too_high(&rate)
            && longterm != INFINITY
        {
            self.model.inflight_longterm = longterm.max(rate.tx_in_flight.min(INFINITY - 1));
            if self.phase == Phase::Up {
                self.probe_inflight_longterm_upward(context);
            }
        }
        false
    }
}
