//! What has been counted, and how long answers took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Counts and times of a run.
#[derive(Debug)]
pub(super) struct Statistics {
    pub(super) transmitted: u64,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) errors: u64,
    pub(super) corrupted: u64,
    /// Nanoseconds.
    times: Histogram<u64>,
    sum: f64,
    sum_of_squares: f64,
    min: Duration,
    max: Duration,
}

/// How long answers took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Times {
    pub(super) min: f64,
    pub(super) avg: f64,
    pub(super) max: f64,
    /// Standard deviation.
    pub(super) mdev: f64,
    p50: f64,
    p99: f64,
}

impl Statistics {
    pub(super) fn new() -> Self {
        Self {
            transmitted: 0,
            received: 0,
            duplicates: 0,
            errors: 0,
            corrupted: 0,
            // 1 ns to an hour; beyond, it is an hour.
            times: Histogram::new_with_bounds(1, TIME_MAX_NANOS, 3).expect("bounds of a histogram"),
            sum: 0.0,
            sum_of_squares: 0.0,
            min: Duration::MAX,
            max: Duration::ZERO,
        }
    }

    /// An answer took so long.
    pub(super) fn note(&mut self, time: Duration) {
        self.times.saturating_record((time.as_nanos() as u64).max(1));
        let micros = micros(time);
        self.sum += micros;
        self.sum_of_squares += micros * micros;
        self.min = self.min.min(time);
        self.max = self.max.max(time);
    }

    /// The longest time until now. `None`: nothing was answered.
    pub(super) fn longest(&self) -> Option<Duration> {
        (!self.times.is_empty()).then_some(self.max)
    }

    /// `None`: nothing was answered.
    pub(super) fn times(&self) -> Option<Times> {
        if self.times.is_empty() {
            return None;
        }
        let count = self.times.len() as f64;
        let avg = self.sum / count;
        let quantile = |share| self.times.value_at_quantile(share) as f64 / 1000.0;
        Some(Times {
            min: micros(self.min),
            avg,
            max: micros(self.max),
            mdev: (self.sum_of_squares / count - avg * avg).max(0.0).sqrt(),
            p50: quantile(0.5),
            p99: quantile(0.99),
        })
    }

    /// Of the requests, in percent.
    pub(super) fn loss(&self) -> f64 {
        match self.transmitted {
            0 => 0.0,
            sent => sent.saturating_sub(self.received) as f64 * 100.0 / sent as f64,
        }
    }

    /// The line that people know.
    pub(super) fn line(&self, elapsed: Duration) -> String {
        let mut line = format!("{} packets transmitted, {} received", self.transmitted, self.received);
        for (count, name) in
            [(self.duplicates, "duplicates"), (self.corrupted, "corrupted"), (self.errors, "errors")]
        {
            if count > 0 {
                line += &format!(", +{count} {name}");
            }
        }
        // As C's %g prints it: up to six digits, no zeros at the end.
        let loss = format!("{:.4}", self.loss());
        let loss = loss.trim_end_matches('0').trim_end_matches('.');
        line + &format!(", {loss}% packet loss, time {}ms", elapsed.as_millis())
    }
}

impl Times {
    /// The line that people know.
    pub(super) fn line(&self) -> String {
        let Self { min, avg, max, mdev, .. } = *self;
        // Whole microseconds, as behind each answer: no maximum is above what was printed there.
        let [min, avg, max, mdev] = [min, avg, max, mdev].map(|micros| micros.floor() / 1000.0);
        format!("rtt min/avg/max/mdev = {min:.3}/{avg:.3}/{max:.3}/{mdev:.3} ms")
    }
}

/// A time as it is printed behind an answer: in milliseconds, with as many digits as matter.
pub(super) fn time_text(time: Duration) -> String {
    let millis = time.as_micros() as f64 / 1000.0;
    match time.as_micros() {
        100_000.. => format!("{millis:.0}"),
        10_000.. => format!("{millis:.1}"),
        1_000.. => format!("{millis:.2}"),
        _ => format!("{millis:.3}"),
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

const TIME_MAX_NANOS: u64 = 3_600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_iputils() {
        let mut statistics = Statistics::new();
        statistics.transmitted = 3;
        assert_eq!(statistics.times(), None);
        let line = statistics.line(Duration::from_millis(2003));
        assert_eq!(line, "3 packets transmitted, 0 received, 100% packet loss, time 2003ms");
        statistics.received = 2;
        (statistics.duplicates, statistics.errors) = (1, 1);
        for nanos in [100_100, 300_700] {
            statistics.note(Duration::from_nanos(nanos));
        }
        let line = statistics.line(Duration::from_millis(2003));
        let expected =
            "3 packets transmitted, 2 received, +1 duplicates, +1 errors, 33.3333% packet loss, time 2003ms";
        assert_eq!(line, expected);
        let times = statistics.times().expect("two answers");
        assert_eq!(times.line(), "rtt min/avg/max/mdev = 0.100/0.200/0.300/0.100 ms");
        assert!((99.0..101.0).contains(&times.p50) && (299.0..302.0).contains(&times.p99), "{times:?}");
    }

    #[test]
    fn times_have_the_digits_that_matter() {
        for (micros, text) in [(123, "0.123"), (1_234, "1.23"), (12_340, "12.3"), (123_400, "123")] {
            assert_eq!(time_text(Duration::from_micros(micros)), text);
        }
    }
}
