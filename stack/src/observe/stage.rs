//! How long each stage of a turn takes. The core reads no clock: whoever wants to know gives it one.

use std::fmt;

/// The stages of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Frames from the device, packets to ourselves, messages of other shards.
    Ingress,
    /// What is due.
    Timers,
    /// The application.
    Application,
    /// Frames to the device.
    Egress,
    /// Between turns.
    Idle,
}

impl Stage {
    /// All stages, in the order of a turn.
    pub const ALL: [Self; 5] = [Self::Ingress, Self::Timers, Self::Application, Self::Egress, Self::Idle];

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Timers => "timers",
            Self::Application => "application",
            Self::Egress => "egress",
            Self::Idle => "idle",
        }
    }
}

/// A clock of the caller's, in whatever unit; it does not go backwards.
pub type StageClock = Box<dyn FnMut() -> u64 + Send>;

/// What was spent in each stage, in the unit of the [`StageClock`].
#[derive(Default)]
pub struct StageTimes {
    clock: Option<StageClock>,
    current: Option<(Stage, u64)>,
    spent: [u64; Stage::ALL.len()],
}

impl StageTimes {
    /// Begins to measure with this clock, or ends it.
    pub fn set_clock(&mut self, clock: Option<StageClock>) {
        self.clock = clock;
        self.current = None;
    }

    /// Whether somebody wants to know.
    pub fn is_on(&self) -> bool {
        self.clock.is_some()
    }

    /// A stage begins, and with it the one before ends.
    pub fn enter(&mut self, stage: Stage) {
        let Some(clock) = &mut self.clock else { return };
        let now = clock();
        if let Some((before, since)) = self.current.replace((stage, now)) {
            self.spent[before as usize] += now.saturating_sub(since);
        }
    }

    /// Units of the clock spent in a stage.
    pub fn spent(&self, stage: Stage) -> u64 {
        self.spent[stage as usize]
    }
}

impl fmt::Debug for StageTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageTimes").field("spent", &self.spent).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_stage_that_it_was_spent_in() {
        let mut times = StageTimes::default();
        times.enter(Stage::Ingress);
        let mut now = 0;
        times.set_clock(Some(Box::new(move || {
            now += 10;
            now
        })));
        for stage in
            [Stage::Ingress, Stage::Timers, Stage::Application, Stage::Egress, Stage::Idle, Stage::Ingress]
        {
            times.enter(stage);
        }
        assert!(Stage::ALL.iter().all(|&stage| times.spent(stage) == 10));
    }
}
