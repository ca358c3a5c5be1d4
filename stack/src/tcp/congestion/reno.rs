//! NewReno: slow start and congestion avoidance (RFC 5681), counted in bytes (RFC 3465).
//!
//! How a loss is repaired (RFC 6582, RFC 6675, RFC 6937) is not here: the sender does that, and tells when it is done.

use smoltcp::time::Instant;

use super::window::Window;
use super::{AckSample, CongestionEvent, Controller};

/// NewReno.
#[derive(Debug, Clone)]
pub struct Reno {
    window: Window,
}

impl Reno {
    /// In slow start, with `initial_window` bytes.
    pub fn new(mss: u32, initial_window: u32) -> Self {
        Self { window: Window::new(mss, initial_window) }
    }
}

impl Controller for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    #[inline]
    fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    fn ssthresh(&self) -> Option<u32> {
        self.window.ssthresh()
    }

    fn on_ack(&mut self, sample: &AckSample) {
        if !self.window.may_grow(sample) {
            return;
        }
        let mut delivered = sample.delivered;
        if self.window.is_in_slow_start() {
            delivered = self.window.slow_start(delivered, 1);
        }
        if delivered > 0 {
            self.window.grow_one_segment_per(self.window.cwnd, delivered);
        }
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        //= rfc5681#3.1
        //# When a TCP sender detects segment loss using the retransmission timer
        //# and the given segment has not yet been resent by way of the
        //# retransmission timer, the value of ssthresh MUST be set to no more
        //# than the value given in equation (4):
        //# ssthresh = max (FlightSize / 2, 2*SMSS)            (4)
        let ssthresh = self.window.flight_size(event) / 2;
        self.window.reduce(event, ssthresh);
    }

    fn on_recovery_end(&mut self, _now: Instant, _in_flight: u32) {
        self.window.end_recovery();
    }

    fn on_undo(&mut self, _now: Instant) {
        self.window.undo();
    }

    fn reduce_to(&mut self, cwnd: u32, ssthresh: u32) {
        self.window.reduce_to(cwnd, ssthresh);
    }

    fn set_mss(&mut self, mss: u32) {
        self.window.set_mss(mss);
    }
}
