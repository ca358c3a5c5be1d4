//! What a run costs and gives, in units: CPU time, memory, latencies, rates for people.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

/// CPU time of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cpu {
    /// In its own code, in seconds.
    pub(super) user: f64,
    /// In the kernel, in seconds.
    pub(super) system: f64,
}

impl Cpu {
    /// Of this process, so far.
    pub(super) fn now() -> Self {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        getrusage(UsageWho::RUSAGE_SELF).map_or_else(
            |_| Self::default(),
            |usage| Self { user: seconds(usage.user_time()), system: seconds(usage.system_time()) },
        )
    }

    /// What was used after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }

    /// Both, in seconds.
    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Resident memory of this process in bytes; 0 if it cannot be told.
pub(super) fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    let page_bytes =
        sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
    pages.unwrap_or(0) * page_bytes.unwrap_or(4_096)
}

/// How long things took. Recording one is no allocation.
#[derive(Debug)]
pub(super) struct Latencies {
    /// Nanoseconds.
    times: Histogram<u64>,
}

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Self {
        let times = Histogram::new_with_bounds(1, TIME_MAX_NANOS, 3);
        // The bounds are right, as every run of a test shows.
        Self { times: times.expect("bounds of a histogram") }
    }

    /// Something took so long.
    pub(super) fn record(&mut self, time: Duration) {
        self.times.saturating_record((time.as_nanos() as u64).max(1));
    }

    /// How many were recorded.
    pub(super) fn len(&self) -> u64 {
        self.times.len()
    }

    fn micros(&self, quantile: f64) -> f64 {
        if self.times.is_empty() { 0.0 } else { self.times.value_at_quantile(quantile) as f64 / 1e3 }
    }

    /// For scripts: microseconds.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "min": if self.times.is_empty() { 0.0 } else { self.times.min() as f64 / 1e3 },
            "mean": self.times.mean() / 1e3,
            "p50": self.micros(0.5),
            "p90": self.micros(0.9),
            "p99": self.micros(0.99),
            "p999": self.micros(0.999),
            "max": self.times.max() as f64 / 1e3,
        })
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| self.micros(quantile));
        write!(f, "p50 {p50:.1} us, p99 {p99:.1} us, p99.9 {p999:.1} us")
    }
}

/// A rate or an amount with three digits and a unit, in steps of 1000 or 1024.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaled {
    /// In the unit without a prefix.
    pub(super) value: f64,
    /// Between two prefixes.
    pub(super) step: f64,
    /// The unit.
    pub(super) unit: &'static str,
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.value;
        let mut prefixes = ["", "K", "M", "G"].into_iter();
        let mut prefix = prefixes.next().unwrap_or_default();
        for next in prefixes {
            if value < self.step {
                break;
            }
            value /= self.step;
            prefix = next;
        }
        let decimals = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        write!(f, "{value:.decimals$} {prefix}{}", self.unit)
    }
}

/// Bits a second.
pub(super) fn rate(bytes: u64, seconds: f64) -> Scaled {
    Scaled { value: per_second(bytes, seconds) * 8.0, step: 1000.0, unit: "bits/sec" }
}

/// Bytes.
pub(super) fn amount(bytes: u64) -> Scaled {
    Scaled { value: bytes as f64, step: 1024.0, unit: "Bytes" }
}

/// How much in a second; 0 in no time.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Beyond a minute, it is a minute.
const TIME_MAX_NANOS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        let cases = [
            (0, "0.00 bits/sec"),
            (125, "1.00 Kbits/sec"),
            (12_499, "100 Kbits/sec"),
            (1_250_000, "10.0 Mbits/sec"),
            (1_234_567_890, "9.88 Gbits/sec"),
            (123_456_789_000, "988 Gbits/sec"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(rate(bytes, 1.0).to_string(), expected);
        }
        assert_eq!(amount(1_536).to_string(), "1.50 KBytes");
        assert_eq!(rate(1, 0.0).to_string(), "0.00 bits/sec");
    }

    #[test]
    fn percentiles_are_microseconds() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.to_json()["p999"], 0.0);
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let close = |name: &str, expected: f64| {
            let value = latencies.to_json()[name].as_f64().expect("a number");
            assert!((value - expected).abs() < expected / 500.0, "{name} is {value}");
        };
        close("p50", 500.0);
        close("p99", 990.0);
        close("p999", 999.0);
        assert_eq!(latencies.len(), 1000);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory_bytes() > 1 << 16);
    }
}
