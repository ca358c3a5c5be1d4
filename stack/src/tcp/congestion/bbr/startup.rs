//! Startup and Drain: how fast is the path?

use super::model::is_inflight_too_high;
use super::{Bbr, Context, Phase};

/// Rounds without growth before the pipe counts as full.
const FULL_BW_ROUNDS: u32 = 3;
/// ACKs of a round that tell of losses, before Startup ends for them.
const FULL_LOSS_COUNT: u32 = 6;
/// Rounds that Drain takes at most.
const DRAIN_ROUNDS_MAX: u32 = 3;

/// Looks for the rate that does not grow any more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FullPipe {
    /// It has been found once in the life of the connection.
    pub(super) is_reached: bool,
    /// It has been found since the search began.
    pub(super) is_now: bool,
    /// The rate that has to be exceeded, in bytes per second.
    bw: u64,
    rounds: u32,
    /// Of the model, when Drain began.
    drain_start_round: u32,
}

impl FullPipe {
    /// ResetFullBW: a search begins at this rate.
    pub(super) fn reset(&mut self, bw: u64) {
        self.is_now = false;
        self.bw = bw;
        self.rounds = 0;
    }
}

impl Bbr {
    /// CheckFullBWReached: growth of less than a quarter in three rounds is none.
    pub(super) fn check_full_bw_reached(&mut self, context: &Context<'_>) {
        let full = &mut self.full_pipe;
        if full.is_now || !self.rounds.is_start || context.is_app_limited {
            return;
        }
        if context.delivery_rate as f64 >= full.bw as f64 * 1.25 {
            full.reset(context.delivery_rate);
            return;
        }
        full.rounds += 1;
        full.is_now = full.rounds >= FULL_BW_ROUNDS;
        full.is_reached |= full.is_now;
    }

    /// CheckStartupDone.
    pub(super) fn check_startup_done(&mut self, context: &Context<'_>) {
        if self.phase != Phase::Startup {
            return;
        }
        self.check_startup_high_loss(context);
        if self.full_pipe.is_reached {
            self.phase = Phase::Drain;
            self.full_pipe.drain_start_round = self.rounds.count;
        }
    }

    /// CheckStartupHighLoss: a whole round of recovery, more than 2 % lost in it, and in many places.
    fn check_startup_high_loss(&mut self, context: &Context<'_>) {
        let Some(rate) = context.rate else { return };
        let is_high = self.model.is_loss_round_start
            && context.sample.is_in_recovery
            && self.model.loss_events >= FULL_LOSS_COUNT
            && is_inflight_too_high(&rate);
        if is_high && !self.full_pipe.is_reached {
            self.undo.phase = Some(Phase::Startup);
            self.full_pipe.is_reached = true;
            self.model.inflight_longterm = self.bdp_multiple(1.0).max(self.model.inflight_latest);
        }
    }

    /// CheckDrainDone.
    pub(super) fn check_drain_done(&mut self, context: &Context<'_>) {
        if self.phase != Phase::Drain {
            return;
        }
        let rounds = self.rounds.count.wrapping_sub(self.full_pipe.drain_start_round);
        if context.sample.in_flight <= self.inflight(1.0) || rounds > DRAIN_ROUNDS_MAX {
            self.start_down(context.sample.now);
        }
    }
}
