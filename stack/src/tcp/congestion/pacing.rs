//! When the next bytes may leave, so that a window goes out spread over a round trip and not at once.

use smoltcp::time::{Duration, Instant};

/// A leaky bucket in time: each piece that was sent moves the moment for the next one on.
#[derive(Debug, Clone, Copy)]
pub struct Pacer {}

impl Pacer {
    /// Nothing was sent yet.
    pub fn new() -> Self {
        todo!("helper congestion")
    }

    /// When the next piece may go. `None`: now.
    pub fn next_send_at(&self, _now: Instant) -> Option<Instant> {
        todo!("helper congestion")
    }

    /// So many bytes were sent, at `rate` bytes per second. A pause gives credit for one burst, not more.
    pub fn on_sent(&mut self, _now: Instant, _bytes: u32, _rate: u64) {
        todo!("helper congestion")
    }

    /// How many bytes are best sent at once at `rate`: about a millisecond's worth, two segments at least, 64 KB at
    /// most (as Linux sizes its TSO frames).
    pub fn quantum(_rate: u64, _mss: u32, _min_rtt: Option<Duration>) -> u32 {
        todo!("helper congestion")
    }
}
