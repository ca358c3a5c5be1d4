//! What is known of the path: its rate, its round-trip time, what may be in flight, how ACKs come.

use smoltcp::time::{Duration, Instant};

use super::{BETA, Bbr, Context, INFINITY, LOSS_THRESH_PERCENT, Phase};
use crate::tcp::congestion::{CongestionEvent, RateSample};

/// Rounds that a slot of the filter of aggregation lasts: two of them are the ten rounds of the draft.
const EXTRA_ACKED_SLOT_ROUNDS: u32 = 5;

/// Counts round trips by what is delivered, not by time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rounds {
    /// A segment that was sent after so much had been delivered ends the round.
    next_delivered: u64,
    pub(super) count: u32,
    /// With this ACK a round has begun.
    pub(super) is_start: bool,
}

impl Rounds {
    /// StartRound: the round begins anew with what is sent from now on.
    pub(super) fn restart(&mut self, delivered_total: u64) {
        self.next_delivered = delivered_total;
    }

    /// UpdateRound.
    fn update(&mut self, rate: Option<RateSample>, delivered_total: u64) {
        self.is_start = rate.is_some_and(|rate| rate.prior_delivered >= self.next_delivered);
        if self.is_start {
            self.restart(delivered_total);
            self.count = self.count.wrapping_add(1);
        }
    }
}

/// The model of the path. Rates in bytes per second, volumes in bytes.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// The highest rates of the last cycle of probing and of this one.
    max_bw: [u64; 2],
    /// What the last losses suggest. `u64::MAX`: there were none since the last probe.
    pub(super) bw_shortterm: u64,
    pub(super) inflight_shortterm: u32,
    /// What probing has found to be too much. `INFINITY`: it has not.
    pub(super) inflight_longterm: u32,
    /// `None`: no sample yet.
    pub(super) min_rtt: Option<Duration>,
    pub(super) min_rtt_stamp: Instant,
    /// The best of this round.
    bw_latest: u64,
    pub(super) inflight_latest: u32,
    pub(super) is_loss_in_round: bool,
    /// ACKs of this round that told of losses.
    pub(super) loss_events: u32,
    pub(super) is_loss_round_start: bool,
    loss_round_delivered: u64,
    aggregation: Aggregation,
}

/// How much more ACKs tell at once than the rate would let expect.
#[derive(Debug, Clone, Copy)]
struct Aggregation {
    interval_start: Instant,
    delivered: u64,
    /// The most of the last rounds and of these.
    extra: [u32; 2],
    slot_begins: u32,
}

impl Model {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            max_bw: [0; 2],
            bw_shortterm: u64::MAX,
            inflight_shortterm: INFINITY,
            inflight_longterm: INFINITY,
            min_rtt: None,
            min_rtt_stamp: now,
            bw_latest: 0,
            inflight_latest: 0,
            is_loss_in_round: false,
            loss_events: 0,
            is_loss_round_start: false,
            loss_round_delivered: 0,
            aggregation: Aggregation { interval_start: now, delivered: 0, extra: [0; 2], slot_begins: 0 },
        }
    }

    pub(super) fn max_bw(&self) -> u64 {
        self.max_bw[0].max(self.max_bw[1])
    }

    /// BoundBWForModel.
    pub(super) fn bw(&self) -> u64 {
        self.max_bw().min(self.bw_shortterm)
    }

    /// `None` before there is a round-trip time.
    pub(super) fn bdp(&self) -> Option<u64> {
        self.min_rtt.map(|rtt| volume(self.bw(), rtt))
    }

    /// AdvanceMaxBwFilter. A cycle in which nothing was measured is none.
    pub(super) fn advance_max_bw_filter(&mut self) {
        if self.max_bw[1] > 0 {
            self.max_bw = [self.max_bw[1], 0];
        }
    }

    /// ResetShortTermModel.
    pub(super) fn reset_shortterm(&mut self) {
        self.bw_shortterm = u64::MAX;
        self.inflight_shortterm = INFINITY;
    }

    /// ResetCongestionSignals.
    pub(super) fn reset_congestion_signals(&mut self) {
        self.is_loss_in_round = false;
        self.loss_events = 0;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    pub(super) fn extra_acked(&self) -> u32 {
        self.aggregation.extra[0].max(self.aggregation.extra[1])
    }

    /// A silence is not a lull between merged ACKs.
    pub(super) fn restart_aggregation(&mut self, now: Instant) {
        self.aggregation.interval_start = now;
        self.aggregation.delivered = 0;
    }

    /// InitLowerBounds and LossLowerBounds: no less than what the last round has delivered.
    fn adapt_lower_bounds(&mut self, cwnd: u32) {
        let bw = if self.bw_shortterm == u64::MAX { self.max_bw() } else { self.bw_shortterm };
        let inflight = if self.inflight_shortterm == INFINITY { cwnd } else { self.inflight_shortterm };
        self.bw_shortterm = self.bw_latest.max((bw as f64 * BETA) as u64);
        self.inflight_shortterm = self.inflight_latest.max((f64::from(inflight) * BETA) as u32);
    }
}

/// IsInflightTooHigh.
pub(super) fn is_inflight_too_high(rate: &RateSample) -> bool {
    rate.lost.saturating_mul(100) > u64::from(rate.tx_in_flight) * LOSS_THRESH_PERCENT
}

/// Bytes at a rate, in a time.
fn volume(rate: u64, time: Duration) -> u64 {
    (u128::from(rate) * u128::from(time.total_micros()) / 1_000_000).min(u128::from(u64::MAX)) as u64
}

impl Bbr {
    /// NoteLoss and HandleLostPacket, for all that an ACK tells.
    pub(super) fn note_losses(&mut self, context: &Context<'_>) {
        if context.sample.lost == 0 {
            return;
        }
        self.model.loss_events = self.model.loss_events.saturating_add(1);
        self.note_loss(self.delivered_total);
        if let Some(rate) = context.rate
            && self.probing.is_sample
            && is_inflight_too_high(&rate)
        {
            let safe = rate.tx_in_flight;
            self.handle_inflight_too_high(context.sample.now, safe, context.is_app_limited);
        }
    }

    /// A router has marked: as if too much had been lost.
    pub(super) fn handle_mark(&mut self, event: &CongestionEvent) {
        self.note_loss(self.delivered_total);
        if self.probing.is_sample {
            self.handle_inflight_too_high(event.now, event.in_flight, false);
        }
    }

    fn note_loss(&mut self, delivered_total: u64) {
        if !self.model.is_loss_in_round {
            self.model.loss_round_delivered = delivered_total;
            if !self.is_in_recovery {
                self.save_state_upon_loss();
            }
        }
        self.model.is_loss_in_round = true;
    }

    /// UpdateLatestDeliverySignals.
    pub(super) fn update_latest_delivery_signals(&mut self, context: &Context<'_>) {
        let model = &mut self.model;
        model.is_loss_round_start = false;
        let Some(rate) = context.rate else { return };
        model.bw_latest = model.bw_latest.max(rate.delivery_rate);
        model.inflight_latest = model.inflight_latest.max(delivered(&rate));
        if rate.prior_delivered >= model.loss_round_delivered {
            model.loss_round_delivered = context.sample.delivered_total;
            model.is_loss_round_start = true;
        }
    }

    /// AdvanceLatestDeliverySignals.
    pub(super) fn advance_latest_delivery_signals(&mut self, context: &Context<'_>) {
        if let Some(rate) = context.rate
            && self.model.is_loss_round_start
        {
            self.model.bw_latest = rate.delivery_rate;
            self.model.inflight_latest = delivered(&rate);
            self.model.loss_events = 0;
        }
    }

    /// UpdateCongestionSignals.
    pub(super) fn update_congestion_signals(&mut self, context: &Context<'_>) {
        self.rounds.update(context.rate, context.sample.delivered_total);
        if self.rounds.is_start {
            self.probing.rounds_since_up = self.probing.rounds_since_up.saturating_add(1);
        }
        let rate = context.delivery_rate;
        if rate > 0 && (rate >= self.model.max_bw() || !context.is_app_limited) {
            self.model.max_bw[1] = self.model.max_bw[1].max(rate);
        }
        if !self.model.is_loss_round_start {
            return;
        }
        // Once in a round; and not while we try how much is too much.
        if self.model.is_loss_in_round && !self.phase.is_probing_bw() {
            self.model.adapt_lower_bounds(self.cwnd);
        }
        self.model.is_loss_in_round = false;
    }

    /// UpdateACKAggregation.
    pub(super) fn update_ack_aggregation(&mut self, context: &Context<'_>) {
        let now = context.sample.now;
        let bw = self.model.bw();
        let aggregation = &mut self.model.aggregation;
        let slot_rounds = if self.full_pipe.is_reached { EXTRA_ACKED_SLOT_ROUNDS } else { 1 };
        if self.rounds.is_start && self.rounds.count.wrapping_sub(aggregation.slot_begins) >= slot_rounds {
            aggregation.extra = [aggregation.extra[1], 0];
            aggregation.slot_begins = self.rounds.count;
        }
        let mut expected = volume(bw, now.max(aggregation.interval_start) - aggregation.interval_start);
        if aggregation.delivered <= expected {
            (aggregation.delivered, aggregation.interval_start, expected) = (0, now, 0);
        }
        aggregation.delivered += u64::from(context.sample.delivered);
        let extra = aggregation.delivered.saturating_sub(expected).min(u64::from(self.cwnd)) as u32;
        aggregation.extra[1] = aggregation.extra[1].max(extra);
    }

    /// HandleInflightTooHigh.
    fn handle_inflight_too_high(&mut self, now: Instant, safe: u32, is_app_limited: bool) {
        self.probing.was_too_high = true;
        self.probing.is_sample = false;
        if !is_app_limited {
            let floor = (f64::from(self.target_inflight()) * BETA) as u32;
            self.model.inflight_longterm = safe.max(floor);
        }
        if self.phase == Phase::Up {
            self.undo.phase = Some(Phase::Up);
            self.start_down(now);
        }
    }
}

fn delivered(rate: &RateSample) -> u32 {
    u32::try_from(rate.delivered).unwrap_or(u32::MAX - 1)
}
