//! How large a receive buffer should be: dynamic right-sizing, as Linux does it.

use smoltcp::time::{Duration, Instant};

use crate::tcp::seq::Seq;

/// Measures how much the application reads in a round trip, and how long a round trip is for who only receives.
#[derive(Debug, Clone)]
pub struct ReceiveTuning {}

impl ReceiveTuning {
    /// Nothing is measured yet. `initial`: bytes of the window that is offered first.
    pub fn new(_now: Instant, _initial: u32) -> Self {
        todo!("helper buffers")
    }

    /// Data has come: `rcv_nxt` and the window that was offered, for an estimate of the round-trip time of who sends
    /// nothing; `rtt` is a sample from timestamps, if the segment has one.
    pub fn on_received(&mut self, _now: Instant, _rcv_nxt: Seq, _window: u32, _rtt: Option<Duration>) {
        todo!("helper buffers")
    }

    /// The application has read up to `copied` in all, and the buffer may have `limit` bytes. Once a round trip it
    /// tells what it should have instead, if that is more, up to `limit_max`.
    pub fn on_read(&mut self, _now: Instant, _copied: Seq, _limit: u32, _limit_max: u32) -> Option<u32> {
        todo!("helper buffers")
    }

    /// The round-trip time of the receiver, if it is known.
    pub fn rtt(&self) -> Option<Duration> {
        todo!("helper buffers")
    }
}
