//! How fast data is delivered (draft-ietf-ccwg-bbr section 4.1, draft-cheng-iccrg-delivery-rate-estimation).

use smoltcp::time::{Duration, Instant};

use crate::tcp::congestion::RateSample;
use crate::tcp::sack::Record;

/// Totals of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Bytes delivered (C.delivered).
    pub(super) delivered: u64,
    /// Bytes found lost.
    pub(super) lost: u64,
    /// When something was delivered last (C.delivered_time).
    delivered_at: Instant,
    /// When the segment was sent that was acknowledged last (C.first_sent_time).
    first_sent_at: Instant,
    /// Bytes that are to be delivered before a time ends in which the application had too little (C.app_limited). 0:
    /// there is none.
    app_limited_left: u32,
    /// The newest sample, in bytes per second. 0: none.
    newest: f32,
    is_newest_app_limited: bool,
}

/// What a record keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateSnapshot {
    pub(super) delivered: u32,
    pub(super) lost: u32,
    pub(super) since_delivered: u32,
    pub(super) since_first_sent: u32,
    pub(super) is_app_limited: bool,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            lost: 0,
            delivered_at: now,
            first_sent_at: now,
            app_limited_left: 0,
            newest: 0.0,
            is_newest_app_limited: false,
        }
    }

    /// Something is about to be sent while nothing is in flight: the pause does not count.
    pub(super) fn restart(&mut self, now: Instant) {
        self.delivered_at = now;
        self.first_sent_at = now;
    }

    /// What a segment that is sent now keeps.
    pub(super) fn snapshot(&self, now: Instant) -> RateSnapshot {
        RateSnapshot {
            delivered: self.delivered as u32,
            lost: self.lost as u32,
            since_delivered: micros(now - self.delivered_at),
            since_first_sent: micros(now - self.first_sent_at),
            is_app_limited: self.app_limited_left != 0,
        }
    }

    /// Something was sent; with it there are `in_flight` bytes in flight.
    pub(super) fn on_sent(&mut self, is_app_limited: bool, in_flight: u32) {
        if is_app_limited {
            self.set_app_limited(in_flight);
        }
    }

    /// The application has nothing more to send: samples of what is in flight do not tell how fast the path is.
    pub(super) fn set_app_limited(&mut self, in_flight: u32) {
        self.app_limited_left = in_flight.saturating_add(1);
    }

    /// `delivered` and `lost` bytes more.
    pub(super) fn on_ack(&mut self, now: Instant, delivered: u32) {
        if delivered == 0 {
            return;
        }
        self.delivered += u64::from(delivered);
        self.delivered_at = now;
        self.app_limited_left = self.app_limited_left.saturating_sub(delivered);
    }

    /// The sample of the newest segment that an ACK acknowledges, after [`on_ack`](Self::on_ack).
    pub(super) fn sample(&mut self, newest: &Record, min_rtt: Option<Duration>) -> Option<RateSample> {
        let behind = u64::from((self.delivered as u32).wrapping_sub(newest.delivered));
        let send_elapsed = u64::from(newest.since_first_sent);
        let delivered_before = newest.sent_at - Duration::from_micros(u64::from(newest.since_delivered));
        let ack_elapsed = (self.delivered_at - delivered_before).total_micros();
        self.first_sent_at = newest.sent_at;
        let interval = send_elapsed.max(ack_elapsed);
        // Shorter than any round trip: ACKs were merged or split on the way; it tells nothing.
        if interval == 0 || Duration::from_micros(interval) < min_rtt.unwrap_or(Duration::ZERO) {
            return None;
        }
        let rate = behind.saturating_mul(1_000_000) / interval;
        // As Linux: a time in which the application had too little shows only if it delivered more than before.
        if !newest.is_app_limited || rate as f32 >= self.newest || self.is_newest_app_limited {
            self.newest = rate as f32;
            self.is_newest_app_limited = newest.is_app_limited;
        }
        Some(RateSample {
            delivery_rate: rate,
            interval: Duration::from_micros(interval),
            delivered: behind,
            lost: u64::from((self.lost as u32).wrapping_sub(newest.lost)),
            prior_delivered: self.delivered - behind,
            tx_in_flight: newest.tx_in_flight,
            is_app_limited: newest.is_app_limited,
        })
    }

    /// The newest sample, in bytes per second, and whether the application had too little.
    pub(super) fn newest(&self) -> Option<(u64, bool)> {
        (self.newest > 0.0).then_some((self.newest as u64, self.is_newest_app_limited))
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.total_micros()).unwrap_or(u32::MAX)
}
