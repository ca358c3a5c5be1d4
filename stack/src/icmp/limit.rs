//! How many ICMP messages are sent: token buckets, one for all errors and one for each destination
//! (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4(f)), and one for echo replies.
//!
//! The destinations share a table of fixed size: a destination's bucket is found by a keyed hash, so
//! nobody can choose whom to share one with, nothing is ever evicted, and the cost does not depend on how
//! many there are. Two destinations in one bucket have less between them, never more.
//!
//! A bucket for all is a side channel: a spoofer who fills it, and then asks for one error himself, learns
//! whether his spoofed packets have drawn errors ("DNS Cache Poisoning Attack Reloaded", CCS 2020). So an
//! error takes 0, 1 or 2 tokens of it, drawn each time: 1 on average, as Linux does it.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;
use smoltcp::time::{Duration, Instant};

use crate::random::Random;

/// How many ICMP messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterConfig {
    /// Errors of one second in the long run, 1 to 1 000 000 (icmp_msgs_per_sec of Linux). `None`: no bound.
    pub errors_per_second: Option<u32>,
    /// Errors in one go at most, 1 to 1 000 000 (icmp_msgs_burst).
    pub errors_burst: u32,
    /// After how long one destination gets another error, up to an hour (icmp_ratelimit). Zero: no bound.
    pub destination_interval: Duration,
    /// Errors to one destination in one go at most, 1 to 1000.
    pub destination_burst: u32,
    /// Buckets of destinations, 1 to 65536; 16 bytes each, from the first error on.
    pub destinations: usize,
    /// Echo replies of one second, 1 to 100 000 000. `None`: no bound.
    pub echoes_per_second: Option<u32>,
}

impl Default for LimiterConfig {
    /// As Linux: 1000 errors a second in bursts of 50; one per second for a destination, in bursts of 6.
    /// Echo replies have no bound: they are no larger than what was asked, and who pings a host wants to
    /// know of every loss.
    fn default() -> Self {
        Self {
            errors_per_second: Some(1000),
            errors_burst: 50,
            destination_interval: Duration::from_secs(1),
            destination_burst: 6,
            destinations: 1024,
            echoes_per_second: None,
        }
    }
}

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An error.
    Error,
    /// An echo reply.
    Echo,
}

/// What was sent and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimiterCounters {
    /// Allowed.
    pub allowed: u64,
    /// Not allowed: too many to this destination.
    pub refused_destination: u64,
    /// Not allowed: too many in total.
    pub refused_total: u64,
}

/// Says whether an ICMP message may be sent.
#[derive(Debug)]
pub struct Limiter {
    config: LimiterConfig,
    random: Random,
    key: (u64, u64),
    errors: Bucket,
    echoes: Bucket,
    destinations: Vec<Bucket>,
    counters: LimiterCounters,
}

/// Tokens, counted in the time that it takes to fill them in: when the bucket would be full again if
/// nothing more were taken. In the past it is full.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    const FULL: Self = Self { full_at: Instant::from_micros_const(i64::MIN) };

    /// Whether a token is there, of a bucket with `burst` of them that gets one each `interval`.
    fn has_token(&self, now: Instant, interval_micros: i64, burst: u32) -> bool {
        let missing = self.full_at.total_micros().saturating_sub(now.total_micros()).max(0);
        missing <= interval_micros.saturating_mul(i64::from(burst.max(1)) - 1)
    }

    fn take(&mut self, now: Instant, interval_micros: i64, tokens: u32) {
        let from = self.full_at.max(now).total_micros();
        let taken = interval_micros.saturating_mul(tokens.into());
        self.full_at = Instant::from_micros(from.saturating_add(taken));
    }
}

impl Limiter {
    /// All buckets are full. What is out of its bounds is taken as the nearest bound.
    pub fn new(config: LimiterConfig, mut random: Random) -> Self {
        let config = LimiterConfig {
            errors_per_second: config.errors_per_second.map(|rate| rate.clamp(1, 1_000_000)),
            errors_burst: config.errors_burst.clamp(1, 1_000_000),
            destination_interval: config.destination_interval.min(Duration::from_secs(3600)),
            destination_burst: config.destination_burst.clamp(1, 1000),
            destinations: config.destinations.clamp(1, 65_536),
            echoes_per_second: config.echoes_per_second.map(|rate| rate.clamp(1, 100_000_000)),
        };
        let key = (random.u64(), random.u64());
        let (errors, echoes) = (Bucket::FULL, Bucket::FULL);
        Self { config, random, key, errors, echoes, destinations: Vec::new(), counters: Default::default() }
    }

    /// Whether a message may be sent to `dst` now. If so, it is counted as sent.
    pub fn allow(&mut self, answer: Answer, dst: IpAddr, now: Instant) -> bool {
        match answer {
            Answer::Error => self.allow_error(dst, now),
            Answer::Echo => self.allow_echo(now),
        }
    }

    /// What was sent and what was not.
    pub fn counters(&self) -> LimiterCounters {
        self.counters
    }

    /// Its settings, within their bounds.
    pub fn config(&self) -> &LimiterConfig {
        &self.config
    }

    fn allow_error(&mut self, dst: IpAddr, now: Instant) -> bool {
        let slot = self.slot(dst);
        if self.destinations.is_empty() {
            self.destinations = vec![Bucket::FULL; self.config.destinations];
        }
        let destination_interval = micros(self.config.destination_interval);
        let errors_interval = self.config.errors_per_second.map(interval_micros);
        let Some(destination) = self.destinations.get_mut(slot) else { return false };
        // First the destination: what is refused there takes nothing from the others.
        if !destination.has_token(now, destination_interval, self.config.destination_burst) {
            self.counters.refused_destination += 1;
            return false;
        }
        if let Some(interval) = errors_interval {
            if !self.errors.has_token(now, interval, self.config.errors_burst) {
                self.counters.refused_total += 1;
                return false;
            }
            self.errors.take(now, interval, self.random.below(3));
        }
        destination.take(now, destination_interval, 1);
        self.counters.allowed += 1;
        true
    }

    fn allow_echo(&mut self, now: Instant) -> bool {
        if let Some(rate) = self.config.echoes_per_second {
            // Bursts of a tenth of a second.
            let interval = interval_micros(rate);
            if !self.echoes.has_token(now, interval, (rate / 10).max(1)) {
                self.counters.refused_total += 1;
                return false;
            }
            self.echoes.take(now, interval, 1);
        }
        self.counters.allowed += 1;
        true
    }

    /// Where the bucket of a destination is. Of IPv6, all addresses of a /64 have one: whoever has one of
    /// them mostly has them all.
    fn slot(&self, dst: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        match dst {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()[..8]),
        }
        // The high half of a product: a number below the length.
        ((u128::from(hasher.finish()) * self.config.destinations as u128) >> 64) as usize
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.total_micros()).unwrap_or(i64::MAX)
}

/// Time per token. More than a million a second come to one per microsecond.
fn interval_micros(per_second: u32) -> i64 {
    (1_000_000 / i64::from(per_second.max(1))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn sent(limiter: &mut Limiter, dst: IpAddr, at_millis: i64, count: usize) -> usize {
        let now = Instant::from_millis(at_millis);
        (0..count).filter(|_| limiter.allow(Answer::Error, dst, now)).count()
    }

    #[test]
    fn a_destination_gets_a_burst_and_then_one_a_second() {
        let mut limiter = Limiter::new(LimiterConfig::default(), Random::new(1));
        let (a, same_64) = (ip("fd00::1"), ip("fd00::2"));
        assert_eq!(sent(&mut limiter, a, 0, 20), 6);
        assert_eq!(sent(&mut limiter, same_64, 999, 20), 0);
        assert_eq!(sent(&mut limiter, same_64, 1000, 20), 1);
        assert_eq!(sent(&mut limiter, a, 3500, 20), 2);
        assert_eq!(sent(&mut limiter, a, 60_000, 20), 6, "never more than the burst");
        assert_eq!(limiter.counters().refused_total, 0);
    }

    #[test]
    fn all_together_get_the_rate_on_average_and_nobody_can_count_on_it() {
        let mut bursts = Vec::new();
        for seed in 0..12 {
            let config = LimiterConfig { destination_interval: Duration::ZERO, ..LimiterConfig::default() };
            let mut limiter = Limiter::new(config, Random::new(seed));
            let burst = sent(&mut limiter, ip("10.0.0.1"), 0, 1000);
            let LimiterCounters { allowed, refused_destination, refused_total } = limiter.counters();
            assert_eq!((allowed, refused_destination, refused_total), (burst as u64, 0, 1000 - burst as u64));
            bursts.push(burst);
            // For ten seconds, much more than allowed.
            let total: usize =
                (1..=10_000).map(|millis| sent(&mut limiter, ip("10.0.0.1"), millis, 10)).sum();
            assert!((9_500..=10_500).contains(&total), "{total} errors in 10 s");
        }
        let (least, most) = (bursts.iter().min(), bursts.iter().max());
        assert!(least < most, "a burst is not always the same: {bursts:?}");
        assert!(bursts.iter().all(|burst| (30..=100).contains(burst)), "{bursts:?}");
    }

    #[test]
    fn refused_by_destination_takes_nothing_from_others() {
        let mut limiter = Limiter::new(LimiterConfig::default(), Random::new(2));
        assert_eq!(sent(&mut limiter, ip("10.0.0.1"), 0, 100_000), 6);
        assert_eq!(sent(&mut limiter, ip("10.0.0.2"), 0, 1), 1);
        let LimiterCounters { allowed, refused_destination, refused_total } = limiter.counters();
        assert_eq!((allowed, refused_destination, refused_total), (7, 99_994, 0));
    }

    #[test]
    fn echoes_have_a_bucket_of_their_own() {
        let config = LimiterConfig { echoes_per_second: Some(100), ..LimiterConfig::default() };
        let mut limiter = Limiter::new(config, Random::new(3));
        let echoes = |limiter: &mut Limiter, millis: i64| {
            let now = Instant::from_millis(millis);
            (0..1000).filter(|_| limiter.allow(Answer::Echo, ip("10.0.0.1"), now)).count()
        };
        assert_eq!(sent(&mut limiter, ip("10.0.0.1"), 0, 100), 6);
        assert_eq!((echoes(&mut limiter, 0), echoes(&mut limiter, 55)), (10, 5));
        let LimiterCounters { allowed, refused_destination, refused_total } = limiter.counters();
        assert_eq!((allowed, refused_destination, refused_total), (6 + 15, 94, 1985));
        let mut unbounded = Limiter::new(LimiterConfig::default(), Random::new(3));
        assert_eq!(echoes(&mut unbounded, 0), 1000);
    }

    #[test]
    fn a_clock_at_its_ends_is_survived() {
        let mut limiter = Limiter::new(LimiterConfig::default(), Random::new(4));
        for micros in [i64::MIN, -1, 0, i64::MAX, 0, i64::MIN] {
            limiter.allow(Answer::Error, ip("10.0.0.1"), Instant::from_micros(micros));
        }
    }
}
