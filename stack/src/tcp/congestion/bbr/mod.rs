//! BBR, version 3 (draft-ietf-ccwg-bbr): a model of the path instead of a reaction to each loss.
//!
//! The model is a rate (the highest that was delivered in the last two cycles of probing) and a round-trip time (the
//! least of ten seconds). Their product is what fits into the path without a queue (BDP). So much is sent, at that
//! rate; from time to time more, to see whether there is more to be had, and less, to let queues go.
//!
//! ```text
//!   Startup ─▶ Drain ─▶ Down ─▶ Cruise ─▶ Refill ─▶ Up       any of them, after 10 s
//!                        ▲                          │        without a shorter round trip
//!                        └──────────────────────────┘           └─▶ ProbeRtt ─▶ Cruise
//! ```
//!
//! | phase | what it does | pacing gain |
//! |---|---|---|
//! | Startup | doubles the rate each round, until it is delivered no faster, or too much is lost | 2.77 |
//! | Drain | lets the queue of Startup go | 0.5 |
//! | Down, Cruise | sends less than, then as much as the path delivers; gives way when it loses | 0.9, 1 |
//! | Refill, Up | fills the path for a round, then sends more, until it is full or 2 % are lost | 1, 1.25 |
//! | ProbeRtt | half a BDP for 200 ms, so that queues of all flows are gone for a moment | 1 |
//!
//! Files: `model` has the estimates, `startup`, `probe_bw` and `probe_rtt` the phases; here is what they result in,
//! the window, the rate and the quantum. Names are those of the draft.
//!
//! Where we differ from the draft, or it leaves a choice:
//!
//! - The sender tells of losses with an ACK, not packet by packet. So `tx_in_flight` of a loss is that of the newest
//!   segment which the ACK has delivered, not that of the lost one; the floor of `Beta` bounds the error.
//! - A round trip's losses count as so many ranges as there were ACKs that told of some.
//! - ECN marks, which the draft leaves open but for "MUST treat any CE marks as congestion", count as a loss above the
//!   threshold.
//! - A part of the core draws no randomness: the times between probes come from a generator that is seeded with the
//!   time of creation and the segment size. Flows of one host that begin in the same microsecond probe together; what
//!   they measure drives them apart.

mod model;
mod probe_bw;
mod probe_rtt;
mod startup;
#[cfg(test)]
mod tests;

use smoltcp::time::{Duration, Instant};

use super::{AckSample, CongestionEvent, Controller, Pacer, RateSample, Signal};
use model::{Model, Rounds};
use probe_bw::Probing;
use probe_rtt::RttProbe;
use startup::FullPipe;

/// No bound, in bytes.
const INFINITY: u32 = u32::MAX;
/// In percent: of what is in flight, may be lost in a round trip.
const LOSS_THRESH_PERCENT: u64 = 2;
/// What remains, at least, when a round trip had losses.
const BETA: f64 = 0.7;
/// Part of what is known to be safe that is left to others.
const HEADROOM: f64 = 0.15;
/// Segments in flight, at least, so that a peer that delays ACKs does not stop us.
const MIN_PIPE_SEGMENTS: u32 = 4;
/// We stay below the rate of the path by so many percent.
const PACING_MARGIN_PERCENT: u64 = 1;
/// 4 * ln 2: the least gain that doubles the rate each round.
const STARTUP_PACING_GAIN: f64 = 2.77;
const DRAIN_PACING_GAIN: f64 = 0.5;
const DEFAULT_CWND_GAIN: f64 = 2.0;
const PROBE_UP_CWND_GAIN: f64 = 2.25;
const PROBE_RTT_CWND_GAIN: f64 = 0.5;
/// No window is larger.
const CWND_MAX: u32 = 1 << 30;

/// Where the state machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The search for the rate of the path.
    Startup,
    /// The queue of that search goes.
    Drain,
    /// ProbeBW_DOWN.
    Down,
    /// ProbeBW_CRUISE.
    Cruise,
    /// ProbeBW_REFILL.
    Refill,
    /// ProbeBW_UP.
    Up,
    /// The search for the round-trip time without queues.
    ProbeRtt,
}

impl Phase {
    fn is_probe_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// IsProbingBW: more than what is known to be safe is sent, so a loss says nothing new of the safe part.
    fn is_probing_bw(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }

    fn pacing_gain(self) -> f64 {
        match self {
            Self::Startup => STARTUP_PACING_GAIN,
            Self::Drain => DRAIN_PACING_GAIN,
            Self::Down => 0.9,
            Self::Cruise | Self::Refill | Self::ProbeRtt => 1.0,
            Self::Up => 1.25,
        }
    }

    fn cwnd_gain(self) -> f64 {
        match self {
            Self::Up => PROBE_UP_CWND_GAIN,
            Self::ProbeRtt => PROBE_RTT_CWND_GAIN,
            _ => DEFAULT_CWND_GAIN,
        }
    }
}

/// BBR.
#[derive(Debug, Clone)]
pub struct Bbr {
    phase: Phase,
    mss: u32,
    initial_window: u32,
    cwnd: u32,
    /// The last window that neither a loss nor ProbeRtt has made small.
    prior_cwnd: u32,
    /// Bytes per second.
    pacing_rate: u64,
    /// Bytes.
    send_quantum: u32,
    /// A rate follows from a round-trip time that was measured, not from a guess.
    has_seen_rtt: bool,
    is_in_recovery: bool,
    /// Nothing was in flight, and what comes now is new.
    idle_restart: bool,
    /// All that was ever delivered, in bytes.
    delivered_total: u64,
    rounds: Rounds,
    model: Model,
    full_pipe: FullPipe,
    probing: Probing,
    rtt_probe: RttProbe,
    undo: Undo,
}

/// What a loss has changed, to be restored if it was none.
#[derive(Debug, Clone, Copy)]
struct Undo {
    /// The phase that a loss has ended: Startup or Up.
    phase: Option<Phase>,
    bw_shortterm: u64,
    inflight_shortterm: u32,
    inflight_longterm: u32,
}

/// What happened, for all who have to know.
struct Context<'a> {
    sample: &'a AckSample,
    /// The rate, if it could be told.
    rate: Option<RateSample>,
    /// Bytes per second, or 0.
    delivery_rate: u64,
    /// The rate tells what the application wanted, not what the path can.
    is_app_limited: bool,
}

impl Bbr {
    /// In Startup, with `initial_window` bytes. `mss`: bytes of payload of a full segment.
    pub fn new(mss: u32, initial_window: u32, now: Instant) -> Self {
        let mss = mss.max(1);
        let initial_window = initial_window.clamp(mss, CWND_MAX.max(mss));
        let seed = (now.total_micros() as u64).rotate_left(16) ^ u64::from(mss);
        // No round trip is known: as if it were a millisecond.
        let pacing_rate = (f64::from(initial_window) * 1_000.0 * STARTUP_PACING_GAIN) as u64;
        Self {
            phase: Phase::Startup,
            mss,
            initial_window,
            cwnd: initial_window,
            prior_cwnd: 0,
            pacing_rate,
            send_quantum: Pacer::quantum(pacing_rate, mss, None),
            has_seen_rtt: false,
            is_in_recovery: false,
            idle_restart: false,
            delivered_total: 0,
            rounds: Rounds::default(),
            model: Model::new(now),
            full_pipe: FullPipe::default(),
            probing: Probing::new(now, seed),
            rtt_probe: RttProbe::new(initial_window),
            undo: Undo { phase: None, bw_shortterm: 0, inflight_shortterm: 0, inflight_longterm: 0 },
        }
    }

    /// Where the state machine is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes per second that the path delivers, as far as we know.
    pub fn bandwidth(&self) -> u64 {
        self.model.bw()
    }

    /// UpdateModelAndState.
    fn update_model_and_state(&mut self, context: &Context<'_>) {
        self.note_losses(context);
        self.update_latest_delivery_signals(context);
        self.update_congestion_signals(context);
        self.update_ack_aggregation(context);
        self.check_full_bw_reached(context);
        self.check_startup_done(context);
        self.check_drain_done(context);
        self.update_probe_bw_cycle_phase(context);
        self.update_min_rtt(context);
        self.check_probe_rtt(context);
        self.advance_latest_delivery_signals(context);
    }

    fn min_pipe_cwnd(&self) -> u32 {
        self.mss.saturating_mul(MIN_PIPE_SEGMENTS)
    }

    /// BDPMultiple.
    fn bdp_multiple(&self, gain: f64) -> u32 {
        match self.model.bdp() {
            Some(bdp) => (bdp as f64 * gain).min(f64::from(CWND_MAX)) as u32,
            None => self.initial_window,
        }
    }

    /// Inflight: what has to be in flight to send at a multiple of the rate, offloads included.
    fn inflight(&self, gain: f64) -> u32 {
        self.quantization_budget(self.bdp_multiple(gain))
    }

    /// QuantizationBudget: a frame in our device, one on its way into it, one in the peer's GRO.
    fn quantization_budget(&self, inflight: u32) -> u32 {
        let budget = inflight.max(self.send_quantum.saturating_mul(3)).max(self.min_pipe_cwnd());
        if self.phase == Phase::Up { budget.saturating_add(2 * self.mss) } else { budget }
    }

    /// TargetInflight.
    fn target_inflight(&self) -> u32 {
        self.bdp_multiple(1.0).min(self.cwnd)
    }

    /// InflightWithHeadroom.
    fn inflight_with_headroom(&self) -> u32 {
        let longterm = self.model.inflight_longterm;
        if longterm == INFINITY {
            return INFINITY;
        }
        let headroom = ((f64::from(longterm) * HEADROOM) as u32).max(self.mss);
        longterm.saturating_sub(headroom).max(self.min_pipe_cwnd())
    }

    /// SetPacingRateWithGain. While the pipe was never full the rate does not go down: few samples of an
    /// application that has little to say would make it small.
    fn set_pacing_rate(&mut self, gain: f64) {
        let rate = (self.model.bw() as f64 * gain) as u64 / 100 * (100 - PACING_MARGIN_PERCENT);
        if rate > 0 && (self.full_pipe.is_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    /// The first round-trip time makes a rate of the initial window, as long as nothing better is known.
    fn init_pacing_rate(&mut self, context: &Context<'_>) {
        let Some(rtt) = context.sample.srtt.or(context.sample.rtt) else { return };
        if !self.has_seen_rtt && rtt > Duration::ZERO {
            self.has_seen_rtt = true;
            let per_second = f64::from(self.initial_window) * 1e6 / rtt.total_micros() as f64;
            self.pacing_rate = (per_second * STARTUP_PACING_GAIN) as u64;
        }
    }

    /// SetCwnd.
    fn set_cwnd(&mut self, context: &Context<'_>) {
        let acked = context.sample.delivered;
        let inflight = self.bdp_multiple(self.phase.cwnd_gain()).saturating_add(self.model.extra_acked());
        let max_inflight = self.quantization_budget(inflight);
        if self.full_pipe.is_reached {
            self.cwnd = self.cwnd.saturating_add(acked).min(max_inflight);
        } else if self.cwnd < max_inflight || context.sample.delivered_total < u64::from(self.initial_window)
        {
            self.cwnd = self.cwnd.saturating_add(acked);
        }
        self.cwnd = self.cwnd.clamp(self.min_pipe_cwnd(), CWND_MAX.max(self.min_pipe_cwnd()));
        if self.phase == Phase::ProbeRtt {
            self.cwnd = self.cwnd.min(self.rtt_probe.cwnd);
        }
        self.bound_cwnd_for_model();
    }

    /// BoundCwndForModel.
    fn bound_cwnd_for_model(&mut self) {
        let cap = match self.phase {
            Phase::Down | Phase::Refill | Phase::Up => self.model.inflight_longterm,
            Phase::Cruise | Phase::ProbeRtt => self.inflight_with_headroom(),
            Phase::Startup | Phase::Drain => INFINITY,
        };
        let cap = cap.min(self.model.inflight_shortterm).max(self.min_pipe_cwnd());
        self.cwnd = self.cwnd.min(cap);
    }

    /// SaveCwnd.
    fn save_cwnd(&mut self) {
        let is_modulated = self.is_in_recovery || self.phase == Phase::ProbeRtt;
        self.prior_cwnd = if is_modulated { self.prior_cwnd.max(self.cwnd) } else { self.cwnd };
    }

    /// RestoreCwnd.
    fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// SaveStateUponLoss.
    fn save_state_upon_loss(&mut self) {
        self.save_cwnd();
        self.undo = Undo {
            phase: None,
            bw_shortterm: self.model.bw_shortterm,
            inflight_shortterm: self.model.inflight_shortterm,
            inflight_longterm: self.model.inflight_longterm,
        };
    }
}

impl Controller for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    #[inline]
    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    fn ssthresh(&self) -> Option<u32> {
        None
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate)
    }

    fn send_quantum(&self) -> Option<u32> {
        Some(self.send_quantum)
    }

    fn uses_prr(&self) -> bool {
        false
    }

    fn on_ack(&mut self, sample: &AckSample) {
        let context = Context {
            sample,
            rate: sample.rate,
            delivery_rate: sample.rate.map_or(0, |rate| rate.delivery_rate),
            is_app_limited: sample.rate.is_none_or(|rate| {
                rate.is_app_limited || rate.prior_delivered < self.rtt_probe.limited_until
            }),
        };
        self.delivered_total = sample.delivered_total;
        self.update_model_and_state(&context);
        self.init_pacing_rate(&context);
        self.set_pacing_rate(self.phase.pacing_gain());
        self.send_quantum = Pacer::quantum(self.pacing_rate, self.mss, None);
        self.set_cwnd(&context);
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        match event.signal {
            Signal::Loss => {
                self.save_state_upon_loss();
                self.is_in_recovery = true;
            }
            Signal::Timeout => {
                self.save_state_upon_loss();
                self.is_in_recovery = true;
                // All that was in flight counts as lost.
                self.cwnd = self.mss;
            }
            Signal::Ecn => self.handle_mark(event),
        }
    }

    fn on_recovery_end(&mut self, _now: Instant, _in_flight: u32) {
        self.is_in_recovery = false;
        self.restore_cwnd();
        self.bound_cwnd_for_model();
    }

    /// HandleSpuriousLossDetection.
    fn on_undo(&mut self, _now: Instant) {
        self.is_in_recovery = false;
        self.restore_cwnd();
        self.model.is_loss_in_round = false;
        self.full_pipe.reset(0);
        let (undo, model) = (self.undo, &mut self.model);
        model.bw_shortterm = model.bw_shortterm.max(undo.bw_shortterm);
        model.inflight_shortterm = model.inflight_shortterm.max(undo.inflight_shortterm);
        model.inflight_longterm = model.inflight_longterm.max(undo.inflight_longterm);
        match undo.phase {
            Some(Phase::Startup) if self.phase != Phase::Startup => {
                self.full_pipe.is_reached = false;
                if self.phase != Phase::ProbeRtt {
                    self.phase = Phase::Startup;
                }
            }
            Some(Phase::Up) if self.phase != Phase::Up && self.phase != Phase::ProbeRtt => {
                self.start_refill();
            }
            _ => {}
        }
        self.undo.phase = None;
    }

    /// HandleRestartFromIdle.
    fn on_restart(&mut self, now: Instant, _idle: Duration) {
        self.idle_restart = true;
        self.model.restart_aggregation(now);
        if self.phase.is_probe_bw() {
            self.set_pacing_rate(1.0);
        } else if self.phase == Phase::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    /// The threshold means nothing here, and the window is the model's: this lasts until the next ACKs.
    fn reduce_to(&mut self, cwnd: u32, _ssthresh: u32) {
        self.cwnd = self.cwnd.min(cwnd.max(self.mss));
    }

    fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
        self.cwnd = self.cwnd.max(self.mss);
        self.send_quantum = Pacer::quantum(self.pacing_rate, self.mss, None);
    }
}
