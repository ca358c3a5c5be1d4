//! Congestion window validation (RFC 7661): a window that was not used for long says nothing of the path.

use smoltcp::time::{Duration, Instant};

/// Follows how much of the window is used.
#[derive(Debug, Clone, Copy)]
pub struct Validation {}

impl Validation {
    /// Nothing was sent yet.
    pub fn new(_now: Instant) -> Self {
        Self {}
    }

    /// An ACK has come (outside recovery as well as in it): `delivered` bytes are new. `cwnd`, `ssthresh` and
    /// `initial_window` in bytes. Something: the window has been idle or hardly used for five minutes, and the
    /// controller is to be told [`reduce_to`](super::Controller::reduce_to) these.
    pub fn on_ack(
        &mut self,
        _now: Instant,
        _delivered: u32,
        _srtt: Option<Duration>,
        _window: &Used,
    ) -> Option<(u32, u32)> {
        None
    }

    /// Data is about to be sent: as [`on_ack`](Self::on_ack), for a connection that was idle.
    pub fn on_sent(&mut self, _now: Instant, _srtt: Option<Duration>, _window: &Used) -> Option<(u32, u32)> {
        None
    }

    /// A loss was found (fast recovery begins, or ECN told it), before the controller hears of it. Something: the
    /// window was not validated, and the window is to be this much before the controller's own reduction.
    pub fn on_congestion(&mut self, _now: Instant, _lost: u32, _window: &Used) -> Option<(u32, u32)> {
        None
    }
}

/// The window, for [`Validation`]. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The congestion window.
    pub cwnd: u32,
    /// The threshold of slow start; `None`: not known yet.
    pub ssthresh: Option<u32>,
    /// The initial window (RFC 6928).
    pub initial_window: u32,
    /// In flight before this.
    pub in_flight: u32,
}
