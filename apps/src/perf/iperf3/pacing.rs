//! A rate, and when the next write is due.

use smoltcp::time::{Duration, Instant};

/// Bits a second on average; after a pause, no more than a tenth of a second is made up for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacer {
    /// 0: no limit.
    bits_per_second: u64,
    /// When the next write is due.
    next: Instant,
    /// What a microsecond is too long for, in bits times a million.
    rest: u128,
}

impl Pacer {
    /// From `now` on.
    pub(super) fn new(bits_per_second: u64, now: Instant) -> Self {
        Self { bits_per_second, next: now, rest: 0 }
    }

    /// `None`: write. Otherwise, come again then: a little after the next write is due, so that the timer is not for
    /// each one.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        (self.bits_per_second > 0 && self.next > now).then(|| self.next.max(now + GRAIN))
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: usize, now: Instant) {
        if self.bits_per_second == 0 {
            return;
        }
        let cost = bytes as u128 * 8 * 1_000_000 + self.rest;
        let rate = u128::from(self.bits_per_second);
        self.rest = cost % rate;
        // A write at one bit a second takes a day at most.
        let micros = u64::try_from(cost / rate).unwrap_or(u64::MAX).min(86_400_000_000);
        let behind = if now > Instant::ZERO + BEHIND_MAX { now - BEHIND_MAX } else { Instant::ZERO };
        self.next = self.next.max(behind) + Duration::from_micros(micros);
    }
}

/// Of the timer.
const GRAIN: Duration = Duration::from_millis(1);
/// What is made up for.
const BEHIND_MAX: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in a second, with a timer that is late by so much.
    fn bytes_in_a_second(rate: u64, len: usize, late_micros: u64) -> usize {
        let mut now = Instant::from_secs(1);
        let end = Instant::from_secs(2);
        let mut pacer = Pacer::new(rate, now);
        let mut bytes = 0;
        while now < end {
            match pacer.wait(now) {
                None => {
                    bytes += len;
                    pacer.wrote(len, now);
                }
                Some(next) => now = next + Duration::from_micros(late_micros),
            }
        }
        bytes
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        for (rate, len, late) in [(1_000_000, 1_448, 0), (1_000_000, 1_448, 900), (10_000_000_000, 9_000, 50)]
        {
            let expected = rate as f64 / 8.0;
            let bytes = bytes_in_a_second(rate, len, late) as f64;
            assert!((bytes - expected).abs() <= expected * 0.02 + len as f64, "{rate}: {bytes}");
        }
    }

    #[test]
    fn without_a_rate_every_write_is_due() {
        let now = Instant::from_secs(5);
        let mut pacer = Pacer::new(0, now);
        pacer.wrote(1 << 20, now);
        assert_eq!(pacer.wait(now), None);
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pacer = Pacer::new(8_000, Instant::from_secs(1));
        let late = Instant::from_secs(100);
        let mut writes = 0;
        while pacer.wait(late).is_none() {
            // A tenth of a second each.
            pacer.wrote(100, late);
            writes += 1;
        }
        assert!(writes <= 2, "{writes} at once");
    }
}
