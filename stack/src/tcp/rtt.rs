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

/// Estimates.
#[derive(Debug, Clone, Copy)]
pub struct Rtt {}

impl Rtt {
    /// Nothing is known yet.
    pub fn new(_bounds: RtoBounds) -> Self {
        todo!("helper sender")
    }

    /// A sample. `per_window`: how many of them are expected in a window of data (RFC 7323 appendix G), 1 or more.
    pub fn sample(&mut self, _now: Instant, _rtt: Duration, _per_window: u32) {
        todo!("helper sender")
    }

    /// SRTT, if there is a sample.
    pub fn srtt(&self) -> Option<Duration> {
        todo!("helper sender")
    }

    /// RTTVAR.
    pub fn rttvar(&self) -> Duration {
        todo!("helper sender")
    }

    /// The newest sample.
    pub fn latest(&self) -> Option<Duration> {
        todo!("helper sender")
    }

    /// The least sample of the last minutes (a windowed minimum).
    pub fn min(&self) -> Option<Duration> {
        todo!("helper sender")
    }

    /// RTO, backed off as often as it has expired.
    pub fn rto(&self) -> Duration {
        todo!("helper sender")
    }

    /// The timer has expired: twice as long next time.
    pub fn back_off(&mut self) {
        todo!("helper sender")
    }

    /// Something new was acknowledged: not backed off any more.
    pub fn reset_back_off(&mut self) {
        todo!("helper sender")
    }

    /// How often it has expired without progress.
    pub fn backoffs(&self) -> u32 {
        todo!("helper sender")
    }
}
