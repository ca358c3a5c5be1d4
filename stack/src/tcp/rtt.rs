//! Round-trip time and RTO (RFC 6298, RFC 7323 section 4).

use smoltcp::time::{Duration, Instant};

/// Bounds of the RTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtoBounds {
    /// Before there is a sample.
    pub initial: Duration,
    /// At least.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// Estimates. Times are kept as microseconds, which is also the granularity G of RFC 6298.
#[derive(Debug, Clone, Copy)]
pub struct Rtt {
    initial: u32,
    floor: u32,
    cap: u32,
    /// With fractions: with many samples in a window, each of them moves it by less than a microsecond.
    srtt: f32,
    rttvar: f32,
    /// 0: there is none.
    latest: u32,
    min: WindowedMin,
    backoffs: u8,
}

impl Rtt {
    /// Nothing is known yet.
    pub fn new(bounds: RtoBounds) -> Self {
        let floor = micros(bounds.min).max(GRANULARITY);
        let cap = micros(bounds.max).max(floor);
        let initial = micros(bounds.initial).clamp(floor, cap);
        Self {
            initial,
            floor,
            cap,
            srtt: 0.0,
            rttvar: 0.0,
            latest: 0,
            min: WindowedMin::default(),
            backoffs: 0,
        }
    }

    /// A sample. `per_window`: how many of them are expected in a window of data (RFC 7323 appendix G), 1 or more.
    pub fn sample(&mut self, now: Instant, rtt: Duration, per_window: u32) {
        // A path on one machine may take less than a microsecond; 0 stands for no sample.
        let sample = micros(rtt).max(1);
        let is_first = self.latest == 0;
        self.latest = sample;
        self.min.update(now, sample);
        let sample = sample as f32;
        if is_first {
            //= rfc6298#2
            //# When the first RTT measurement R is made, the host MUST set
            //#            SRTT <- R
            //#            RTTVAR <- R/2
            (self.srtt, self.rttvar) = (sample, sample / 2.0);
            return;
        }
        // Appendix G of RFC 7323 divides both gains by the number of samples in a window, so that the memory of
        // the estimates is as long as with one sample in a round trip.
        let per_window = per_window.max(1) as f32;
        self.rttvar += ((self.srtt - sample).abs() - self.rttvar) / (4.0 * per_window);
        self.srtt += (sample - self.srtt) / (8.0 * per_window);
    }

    /// SRTT, if there is a sample.
    pub fn srtt(&self) -> Option<Duration> {
        (self.latest != 0).then(|| Duration::from_micros(self.srtt as u64))
    }

    /// RTTVAR.
    pub fn rttvar(&self) -> Duration {
        Duration::from_micros(self.rttvar as u64)
    }

    /// The newest sample.
    pub fn latest(&self) -> Option<Duration> {
        (self.latest != 0).then(|| Duration::from_micros(u64::from(self.latest)))
    }

    /// The least sample of the last minutes (a windowed minimum).
    pub fn min(&self) -> Option<Duration> {
        (self.latest != 0).then(|| Duration::from_micros(u64::from(self.min.value())))
    }

    /// RTO, backed off as often as it has expired.
    pub fn rto(&self) -> Duration {
        let base = if self.latest == 0 {
            u64::from(self.initial)
        } else {
            //= rfc6298#2
            //# RTO <- SRTT + max (G, K*RTTVAR)
            let spread = (4.0 * self.rttvar).max(GRANULARITY as f32);
            ((self.srtt + spread) as u64).max(u64::from(self.floor))
        };
        let backed_off = base.checked_shl(u32::from(self.backoffs)).unwrap_or(u64::MAX);
        Duration::from_micros(backed_off.min(u64::from(self.cap)))
    }

    /// The least RTO: how long an ACK of an honest peer may be delayed.
    pub(super) fn floor(&self) -> Duration {
        Duration::from_micros(u64::from(self.floor))
    }

    /// The timer has expired: twice as long next time.
    pub fn back_off(&mut self) {
        // More than 32 make no difference: the cap is below 2^32 µs.
        self.backoffs = self.backoffs.saturating_add(1).min(BACKOFFS_MAX);
    }

    /// Something new was acknowledged: not backed off any more.
    pub fn reset_back_off(&mut self) {
        self.backoffs = 0;
    }

    /// How often it has expired without progress.
    pub fn backoffs(&self) -> u32 {
        u32::from(self.backoffs)
    }

    /// A sample that only says how short the path can be: of the newest segment, whose ACK was not delayed for
    /// others.
    pub(super) fn observe_min(&mut self, now: Instant, rtt: Duration) {
        self.min.update(now, micros(rtt).max(1));
    }
}

/// Clock granularity G of RFC 6298, in microseconds.
const GRANULARITY: u32 = 1;

/// A base of one microsecond and so many doublings are beyond every cap (2^32 µs).
const BACKOFFS_MAX: u8 = 32;

/// How long a minimum counts, in milliseconds: five minutes, as on Linux (tcp_min_rtt_wlen).
const MIN_WINDOW: u32 = 300_000;

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.total_micros()).unwrap_or(u32::MAX)
}

/// The least value of a window of time, in constant space: the best value and the best ones after it (the filter of
/// Kathleen Nichols).
#[derive(Debug, Clone, Copy, Default)]
struct WindowedMin {
    /// Value, and when it was seen, in milliseconds modulo 2^32. The values do not fall, the times do not either.
    best: [(u32, u32); 3],
}

impl WindowedMin {
    fn value(&self) -> u32 {
        self.best[0].0
    }

    fn update(&mut self, now: Instant, value: u32) {
        let time = now.total_millis() as u32;
        let new = (value, time);
        let age = |(_, then): (u32, u32)| time.wrapping_sub(then);
        if self.best[0].0 == 0 || value <= self.best[0].0 || age(self.best[2]) > MIN_WINDOW {
            self.best = [new; 3];
            return;
        }
        if value <= self.best[1].0 {
            self.best[1] = new;
            self.best[2] = new;
        } else if value <= self.best[2].0 {
            self.best[2] = new;
        }
        if age(self.best[0]) > MIN_WINDOW {
            self.best = [self.best[1], self.best[2], new];
            if age(self.best[0]) > MIN_WINDOW {
                self.best = [self.best[1], self.best[2], new];
            }
        } else if self.best[1].1 == self.best[0].1 && age(self.best[0]) > MIN_WINDOW / 4 {
            // A quarter of the window has passed without a second best: what comes now is.
            self.best[1] = new;
            self.best[2] = new;
        } else if self.best[2].1 == self.best[1].1 && age(self.best[0]) > MIN_WINDOW / 2 {
            self.best[2] = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RtoBounds = RtoBounds {
        initial: Duration::from_secs(1),
        min: Duration::from_millis(200),
        max: Duration::from_secs(120),
    };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn rto_follows_the_estimates_within_its_bounds() {
        // Samples in milliseconds; SRTT, RTTVAR and RTO after them, in microseconds.
        let cases: [(&[u64], Option<u64>, u64, u64); 5] = [
            (&[], None, 0, 1_000_000),
            (&[100], Some(100_000), 50_000, 300_000),
            (&[10], Some(10_000), 5_000, 200_000),
            (&[100, 200], Some(112_500), 62_500, 362_500),
            (&[60_000], Some(60_000_000), 30_000_000, 120_000_000),
        ];
        for (samples, srtt, rttvar, rto) in cases {
            let mut rtt = Rtt::new(BOUNDS);
            for sample in samples {
                rtt.sample(Instant::ZERO, ms(*sample), 1);
            }
            assert_eq!(rtt.srtt().map(|srtt| srtt.total_micros()), srtt, "{samples:?}");
            assert_eq!(rtt.rttvar().total_micros(), rttvar, "{samples:?}");
            assert_eq!(rtt.rto().total_micros(), rto, "{samples:?}");
        }
    }

    #[test]
    fn each_expiry_doubles_the_rto_up_to_the_cap() {
        let mut rtt = Rtt::new(BOUNDS);
        rtt.sample(Instant::ZERO, ms(100), 1);
        for expected in [300, 600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 76_800, 120_000, 120_000] {
            assert_eq!(rtt.rto(), ms(expected));
            rtt.back_off();
        }
        for _ in 0..1_000 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), ms(120_000));
        rtt.reset_back_off();
        assert_eq!((rtt.rto(), rtt.backoffs()), (ms(300), 0));
    }

    #[test]
    fn many_samples_in_a_window_weigh_as_much_as_one() {
        let (mut one, mut many) = (Rtt::new(BOUNDS), Rtt::new(BOUNDS));
        for rtt in [&mut one, &mut many] {
            rtt.sample(Instant::ZERO, ms(100), 1);
        }
        one.sample(Instant::ZERO, ms(200), 1);
        for _ in 0..50 {
            many.sample(Instant::ZERO, ms(200), 50);
        }
        let (one, many) = (one.srtt().unwrap_or_default(), many.srtt().unwrap_or_default());
        assert!(one >= many && one - many < ms(1), "{one} {many}");
    }

    #[test]
    fn the_minimum_is_that_of_the_last_five_minutes() {
        let mut rtt = Rtt::new(BOUNDS);
        let at = |secs: i64| Instant::from_secs(secs);
        for (secs, sample, expected) in
            [(0, 10, 10), (10, 5, 5), (100, 20, 5), (200, 15, 5), (305, 30, 5), (320, 30, 15)]
        {
            rtt.sample(at(secs), ms(sample), 1);
            assert_eq!(rtt.min(), Some(ms(expected)), "after {secs} s");
        }
        rtt.observe_min(at(321), ms(2));
        assert_eq!((rtt.min(), rtt.latest()), (Some(ms(2)), Some(ms(30))));
    }
}
