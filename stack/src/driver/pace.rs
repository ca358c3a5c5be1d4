//! How a thread waits: whether spinning is worth it, by how soon there was something the last times.

use smoltcp::time::{Duration, Instant};

/// What a thread does while there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It sleeps at once.
    Sleep,
    /// It looks again and again for so long after there was something, and sleeps then; but only as long as there is
    /// mostly something again within that time. Otherwise it sleeps at once: spinning would take the time of others on the
    /// same cores, and win nothing.
    SpinThenSleep(Duration),
    /// It never sleeps: the shortest way for a frame, at the price of a core.
    Spin,
}

impl Default for Patience {
    /// 20 µs: about what it takes to fall asleep and to be woken.
    fn default() -> Self {
        Self::SpinThenSleep(Duration::from_micros(20))
    }
}

/// What a thread knows of the gaps between one piece of work and the next.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: Patience,
    /// Since when there is nothing.
    idle_since: Option<Instant>,
    /// Average of the gaps in 1/256 µs, each counted as [`GAP_MAX_TIMES`] times the time of spinning at most.
    gap: u64,
}

impl Pace {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, idle_since: None, gap: 0 }
    }

    /// There was something to do.
    pub(crate) fn busy(&mut self, now: Instant) {
        let Some(since) = self.idle_since.take() else { return };
        let Patience::SpinThenSleep(time) = self.patience else { return };
        let most = time.total_micros().saturating_mul(GAP_MAX_TIMES);
        let gap = (now - since).total_micros().min(most) * UNIT;
        self.gap = self.gap - self.gap / WEIGHT + gap / WEIGHT;
    }

    /// There is nothing to do, and the next thing comes at `due`, as far as is known. True: look again at once; false: sleep.
    pub(crate) fn spins(&mut self, now: Instant, due: Option<Instant>) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        match self.patience {
            Patience::Sleep => false,
            Patience::Spin => true,
            Patience::SpinThenSleep(time) => {
                // To fall asleep and to wake takes longer.
                let is_due_soon = due.is_some_and(|due| due > now && due - now < time);
                let is_likely = self.gap <= time.total_micros() * UNIT;
                is_due_soon || is_likely && now - since < time
            }
        }
    }
}

/// Of what the average is counted in.
const UNIT: u64 = 256;
/// The last eight gaps make most of the average.
const WEIGHT: u64 = 8;
/// One long gap does not outweigh many short ones for long: a fast peer is believed again after some ten of them.
const GAP_MAX_TIMES: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Instant {
        Instant::from_micros(micros)
    }

    /// Work at each of these gaps; how many of the last hundred gaps were waited for without sleeping.
    fn awake(patience: Patience, gaps: impl Iterator<Item = i64>) -> usize {
        let (mut pace, mut now) = (Pace::new(patience), 0);
        let mut kept = Vec::new();
        for gap in gaps {
            pace.busy(at(now));
            let spins = (0..gap).all(|wait| pace.spins(at(now + wait), None));
            now += gap;
            kept.push(spins);
        }
        kept.iter().rev().take(100).filter(|spun| **spun).count()
    }

    #[test]
    fn it_spins_only_where_that_pays() {
        let default = Patience::default();
        let same = |gap: i64| std::iter::repeat_n(gap, 200);
        assert_eq!(awake(default, same(5)), 100);
        assert_eq!(awake(default, same(1000)), 0);
        assert_eq!(awake(Patience::Sleep, same(5)), 0);
        assert_eq!(awake(Patience::Spin, same(1000)), 100);
        // A pause now and then: the gap itself is slept through, and spinning goes on soon after it.
        let mixed = (0..400).map(|number| if number % 40 == 0 { 5000 } else { 5 });
        assert!(awake(default, mixed) > 60);
        // Slow ones with a fast one now and then: nothing is spun away but those.
        let slow = (0..400).map(|number| if number % 10 == 0 { 5 } else { 500 });
        assert!(awake(default, slow) < 5);
    }

    #[test]
    fn a_long_gap_costs_one_time_of_spinning_at_most() {
        let mut pace = Pace::new(Patience::default());
        (0..100).for_each(|step| {
            pace.busy(at(10 * step));
            assert!(pace.spins(at(10 * step), None));
        });
        let spun = (0..1_000).take_while(|wait| pace.spins(at(990 + wait), None)).count();
        assert_eq!(spun, 20);
    }

    #[test]
    fn what_is_due_soon_is_not_slept_for() {
        let mut pace = Pace::new(Patience::default());
        (0..100).for_each(|step| {
            pace.busy(at(1000 * step));
            pace.spins(at(1000 * step), None);
        });
        assert!(!pace.spins(at(100_000), None) && !pace.spins(at(100_000), Some(at(100_500))));
        assert!(pace.spins(at(100_000), Some(at(100_010))));
        assert!(!Pace::new(Patience::Sleep).spins(at(0), Some(at(10))));
    }
}
