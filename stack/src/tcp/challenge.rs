//! How often we answer what looks like an attack: challenge ACKs and resets (RFC 5961 section 7).

use smoltcp::time::{Duration, Instant};

use super::config::TcpConfig;
use crate::random::Random;

/// Throttles of all connections of a shard. Their rates vary at random, so that nobody can count by them what others
/// do (CVE-2016-5696).
#[derive(Debug)]
pub struct Throttles {
    challenges: Throttle,
    resets: Throttle,
    random: Random,
}

impl Throttles {
    /// As configured.
    pub fn new(config: &TcpConfig, random: &mut Random) -> Self {
        Self {
            challenges: Throttle::new(config.challenge_acks_per_second),
            resets: Throttle::new(config.resets_per_second),
            random: random.fork(),
        }
    }

    /// Whether a challenge ACK may be sent now; it is counted.
    pub fn allow_challenge(&mut self, now: Instant) -> bool {
        self.challenges.allow(now, &mut self.random)
    }

    /// Whether a reset may be sent now for a segment that nobody wants; it is counted.
    pub fn allow_reset(&mut self, now: Instant) -> bool {
        self.resets.allow(now, &mut self.random)
    }
}

/// Tokens of a second. Each second has a number of them of its own, drawn between a half and three halves of what is
/// configured: who uses them up, and counts how many he got, does not learn how many others got.
#[derive(Debug)]
struct Throttle {
    per_second: Option<u32>,
    /// When the second is over; in the past at first.
    ends_at: Instant,
    left: u32,
}

impl Throttle {
    fn new(per_second: Option<u32>) -> Self {
        Self { per_second, ends_at: Instant::from_micros_const(i64::MIN), left: 0 }
    }

    fn allow(&mut self, now: Instant, random: &mut Random) -> bool {
        let Some(per_second) = self.per_second else { return true };
        if now >= self.ends_at {
            self.ends_at = Instant::from_micros(now.total_micros().saturating_add(SECOND));
            self.left = per_second.div_ceil(2).saturating_add(random.below(per_second));
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }
}

const SECOND: i64 = Duration::from_secs(1).total_micros() as i64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn throttles(per_second: Option<u32>, seed: u64) -> Throttles {
        let config = TcpConfig {
            challenge_acks_per_second: per_second,
            resets_per_second: per_second,
            ..TcpConfig::default()
        };
        Throttles::new(&config, &mut Random::new(seed))
    }

    #[test]
    fn a_second_has_half_to_three_halves_of_the_rate_and_nobody_knows_how_many() {
        let mut counts = HashSet::new();
        let (mut total, seconds) = (0, 200);
        for seed in 0..2 {
            let mut throttles = throttles(Some(100), seed);
            for second in 0..seconds {
                let now = Instant::from_secs(second);
                let count = (0..1_000).filter(|_| throttles.allow_challenge(now)).count();
                let later = now + Duration::from_micros(999_999);
                assert!((50..150).contains(&count) && !throttles.allow_challenge(later), "{count}");
                counts.insert((seed, count));
                total += count;
            }
        }
        let mean = total as f64 / f64::from(2 * seconds);
        assert!((90.0..110.0).contains(&mean), "{mean} in a second");
        assert!(counts.len() > 50, "{counts:?}");
    }

    #[test]
    fn challenges_and_resets_do_not_share() {
        let mut throttles = throttles(Some(1), 1);
        assert!(throttles.allow_challenge(Instant::ZERO) && !throttles.allow_challenge(Instant::ZERO));
        assert!(throttles.allow_reset(Instant::ZERO) && !throttles.allow_reset(Instant::ZERO));
    }

    #[test]
    fn bounds_of_the_configuration_and_of_the_clock() {
        let mut unbounded = throttles(None, 1);
        assert!((0..10_000).all(|_| unbounded.allow_reset(Instant::ZERO)));
        for (per_second, least) in [(0, 0), (u32::MAX, 1)] {
            let mut throttles = throttles(Some(per_second), 1);
            for micros in [i64::MIN, -1, 0, i64::MAX, 0, i64::MIN] {
                let allowed = throttles.allow_reset(Instant::from_micros(micros));
                assert!(u32::from(allowed) >= least && (allowed || per_second == 0));
            }
        }
    }
}
