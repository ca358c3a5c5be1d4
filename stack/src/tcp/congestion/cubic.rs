//! CUBIC (RFC 9438), with HyStart++ in its first slow start.
//!
//! ```text
//!   W_cubic(t) = C * (t - K)^3 + W_max        K = cubic root of (W_max - cwnd_epoch) / C
//!
//!   W_max ─────────────────────────────────╭───────╯─  convex: what lies beyond W_max is searched
//!                             ╭────────────╯ K
//!                      ╭──────╯     concave: back to where loss was, slower and slower
//!   β * W_max ────────╯
//! ```
//!
//! In segments and seconds, in floating point: it is one addition and a few multiplications for an ACK, and the cubic
//! root is taken once in an epoch. Time in which the window was not used is not counted (section 5.8).

use smoltcp::time::{Duration, Instant};

use super::hystart::{HyStart, Pace};
use super::window::Window;
use super::{AckSample, CongestionEvent, Controller, Signal};

/// Segments per second cubed: how steep the curve is.
const C: f64 = 0.4;
/// What is left of the window after a loss.
const BETA: f64 = 0.7;
/// By which a window that loses the share β grows to be as large, on average, as that of Reno:
/// 3 * (1 - β) / (1 + β).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// CUBIC.
#[derive(Debug, Clone)]
pub struct Cubic {
    window: Window,
    hystart: HyStart,
    epoch: Epoch,
    /// The epoch before the last reduction, to be restored if that was wrong.
    prior: Epoch,
    /// When the last ACK of the epoch came.
    last_ack: Instant,
    /// `cwnd` when `ssthresh` was set last: from there on, the emulated Reno grows like Reno.
    cwnd_prior: u32,
    /// Part of a byte that the window has grown by, and that it cannot show.
    fraction: f32,
    /// As the last ACK told.
    was_cwnd_limited: bool,
}

/// A stage of congestion avoidance: the curve, and where we are on it.
#[derive(Debug, Clone, Copy, Default)]
struct Epoch {
    /// In bytes; 0: no loss has set one.
    w_max: u32,
    /// In seconds.
    k: f32,
    /// The window that Reno would have, in bytes. 0: the epoch has not begun.
    w_est: f64,
    /// Since it has begun, without the time in which the window was not used; in microseconds. An hour is long
    /// enough: any window is at its limit then.
    elapsed: u32,
}

impl Cubic {
    /// In slow start, with `initial_window` bytes.
    pub fn new(mss: u32, initial_window: u32) -> Self {
        Self {
            window: Window::new(mss, initial_window),
            hystart: HyStart::new(),
            epoch: Epoch::default(),
            prior: Epoch::default(),
            last_ack: Instant::ZERO,
            cwnd_prior: 0,
            fraction: 0.0,
            was_cwnd_limited: false,
        }
    }

    /// Slow start. Returns what it has not used of the delivered bytes.
    fn slow_start(&mut self, sample: &AckSample) -> u32 {
        if !self.window.is_in_first_slow_start() {
            return self.window.slow_start(sample.delivered, 1);
        }
        match self.hystart.on_ack(sample) {
            Pace::Divided(divisor) => self.window.slow_start(sample.delivered, divisor),
            Pace::Over => {
                self.window.leave_slow_start();
                self.cwnd_prior = self.window.cwnd;
                sample.delivered
            }
        }
    }

    /// Congestion avoidance begins.
    fn start_epoch(&mut self, now: Instant) {
        let cwnd = self.window.cwnd;
        // After a timeout, or slow start that has ended without a loss, there is no W_max (sections 4.8 and 4.10): the
        // curve begins at its turning point.
        self.epoch.w_max = self.epoch.w_max.max(cwnd);
        let missing = f64::from(self.epoch.w_max - cwnd) / f64::from(self.window.mss);
        self.epoch.k = (missing / C).cbrt() as f32;
        self.epoch.w_est = f64::from(cwnd);
        self.epoch.elapsed = 0;
        self.last_ack = now;
        self.fraction = 0.0;
    }

    fn avoid_congestion(&mut self, sample: &AckSample, delivered: u32) {
        if self.epoch.w_est == 0.0 {
            self.start_epoch(sample.now);
        }
        let cwnd = f64::from(self.window.cwnd) + f64::from(self.fraction);
        let acked_share = f64::from(delivered) / cwnd;

        //= rfc9438#4.3
        //# Once W_est has grown to reach the cwnd at the time of most recently
        //# setting ssthresh -- that is, W_est >= cwnd_prior -- the sender SHOULD
        //# set alpha_cubic to 1 to ensure that it can achieve the same
        //# congestion window increment rate as Reno
        let alpha = if self.epoch.w_est >= f64::from(self.cwnd_prior) { 1.0 } else { ALPHA };
        self.epoch.w_est += alpha * f64::from(self.window.mss) * acked_share;

        let elapsed = f64::from(self.epoch.elapsed) / 1e6;
        let rtt = sample.srtt.map_or(0.0, |srtt| srtt.total_micros() as f64 / 1e6);
        let grown = if self.w_cubic(elapsed) < self.epoch.w_est {
            cwnd.max(self.epoch.w_est)
        } else {
            // No more than half as much again in a round trip, so that a long silence makes no burst.
            let target = self.w_cubic(elapsed + rtt).clamp(cwnd, 1.5 * cwnd);
            // An ACK for more than a window (there is none from an honest peer) reaches the target and no more.
            cwnd + (target - cwnd) * acked_share.min(1.0)
        };
        self.window.set_cwnd(grown as u32);
        self.fraction = grown.fract() as f32;
    }

    /// The curve, in bytes, at a time in seconds.
    fn w_cubic(&self, t: f64) -> f64 {
        let from_k = t - f64::from(self.epoch.k);
        f64::from(self.epoch.w_max) + C * from_k * from_k * from_k * f64::from(self.window.mss)
    }

    /// Time passes on the curve only while the window is used.
    fn count_time(&mut self, sample: &AckSample, is_used: bool) {
        let since = sample.now.total_micros().saturating_sub(self.last_ack.total_micros());
        self.last_ack = sample.now;
        if is_used {
            let since = u32::try_from(since).unwrap_or(if since < 0 { 0 } else { u32::MAX });
            self.epoch.elapsed = self.epoch.elapsed.saturating_add(since);
        }
    }
}

impl Controller for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    #[inline]
    fn cwnd(&self) -> u32 {
        self.window.whole_segments()
    }

    fn ssthresh(&self) -> Option<u32> {
        self.window.ssthresh()
    }

    fn on_ack(&mut self, sample: &AckSample) {
        self.was_cwnd_limited = sample.is_cwnd_limited;
        let may_grow = self.window.may_grow(sample);
        self.count_time(sample, may_grow);
        if !may_grow {
            return;
        }
        let mut delivered = sample.delivered;
        if self.window.is_in_slow_start() {
            delivered = self.slow_start(sample);
        }
        if delivered > 0 {
            self.avoid_congestion(sample, delivered);
        }
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        let cwnd = self.window.cwnd;
        self.prior = self.epoch;
        // A flow that has less than at its last loss gives way to others, which may be why (section 4.7).
        let share = if cwnd < self.epoch.w_max { (1.0 + BETA) / 2.0 } else { 1.0 };
        let w_max = if event.signal == Signal::Timeout { 0 } else { (f64::from(cwnd) * share) as u32 };
        self.epoch = Epoch { w_max, ..Epoch::default() };
        self.cwnd_prior = cwnd;
        // Of what was in flight (section 4.6). If the window was what limited that, of the window: what is missing in
        // flight is a part of a segment, or what this ACK has just taken, and a share of it would be lost each time.
        let flight_size = if self.was_cwnd_limited { cwnd } else { self.window.flight_size(event) };
        let ssthresh = (f64::from(flight_size) * BETA) as u32;
        self.window.reduce(event, ssthresh);
    }

    fn on_recovery_end(&mut self, _now: Instant, _in_flight: u32) {
        self.window.end_recovery();
    }

    fn on_undo(&mut self, now: Instant) {
        if self.window.undo() {
            self.epoch = self.prior;
            self.last_ack = now;
        }
    }

    fn on_restart(&mut self, now: Instant, _idle: Duration) {
        self.last_ack = now;
    }

    fn reduce_to(&mut self, cwnd: u32, ssthresh: u32) {
        if cwnd < self.window.cwnd {
            // The curve leads to a window that is gone.
            self.epoch = Epoch::default();
        }
        self.window.reduce_to(cwnd, ssthresh);
    }

    fn set_mss(&mut self, mss: u32) {
        self.window.set_mss(mss);
    }
}
