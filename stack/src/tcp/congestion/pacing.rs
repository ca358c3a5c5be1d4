//! When the next bytes may leave, so that a window goes out spread over a round trip and not at once.

use smoltcp::time::{Duration, Instant};

/// As long as a burst may be, in time of the path: what leaves late by no more than this is made up for.
const BURST: Duration = Duration::from_millis(1);

/// The largest frame that there is: a GSO frame carries 64 KB with its headers.
const QUANTUM_MAX: u32 = 65_536;

/// A leaky bucket in time: each piece that was sent moves the moment for the next one on.
///
/// It counts in nanoseconds: 64 KB at 10 Gbit/s take 52.4 µs, and a clock of microseconds would lose a part of that
/// each time.
#[derive(Debug, Clone, Copy)]
pub struct Pacer {
    /// When the next piece may go, in nanoseconds.
    next_nanos: i64,
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new()
    }
}

impl Pacer {
    /// Nothing was sent yet.
    pub fn new() -> Self {
        Self { next_nanos: i64::MIN }
    }

    /// When the next piece may go. `None`: now.
    #[inline]
    pub fn next_send_at(&self, now: Instant) -> Option<Instant> {
        // Rounded up, for a timer that fires before the time has come would be set again.
        let at = self
            .next_nanos
            .div_euclid(1_000)
            .saturating_add(i64::from(self.next_nanos.rem_euclid(1_000) > 0));
        (at > now.total_micros()).then(|| Instant::from_micros(at))
    }

    /// So many bytes were sent, at `rate` bytes per second. A pause gives credit for one burst, not more: a
    /// millisecond's worth, or a piece as long as this one. So a timer that fires late does not make a
    /// connection slower. A rate of 0 is none: nothing has to wait.
    pub fn on_sent(&mut self, now: Instant, bytes: u32, rate: u64) {
        if rate == 0 {
            return;
        }
        let nanos = i64::try_from(u64::from(bytes).saturating_mul(1_000_000_000) / rate).unwrap_or(i64::MAX);
        let now = now.total_micros().saturating_mul(1_000);
        let credit = nanos.max(BURST.total_micros() as i64 * 1_000);
        self.next_nanos = self.next_nanos.max(now.saturating_sub(credit)).saturating_add(nanos);
    }

    /// How many bytes are best sent at once at `rate` (bytes per second): about a millisecond's worth, two segments
    /// at least, 64 KB at most (as Linux sizes its TSO frames). A whole number of segments.
    ///
    /// On a short path frames may be larger than that: there are as many bytes in flight as a frame has, so
    /// small frames keep nobody's queue short and cost time. Linux adds 64 KB, halved for each 512 µs of the least
    /// round-trip time (tcp_tso_rtt_log); so do we.
    pub fn quantum(rate: u64, mss: u32, min_rtt: Option<Duration>) -> u32 {
        let mss = mss.max(1);
        let by_rate = rate / 1_000;
        let by_rtt = min_rtt.map_or(0, |rtt| {
            let halvings = (rtt.total_micros() >> 9).min(31);
            u64::from(QUANTUM_MAX) >> halvings
        });
        let bytes = by_rate.saturating_add(by_rtt).min(u64::from(QUANTUM_MAX)) as u32;
        (bytes / mss).max(2).saturating_mul(mss)
    }
}
