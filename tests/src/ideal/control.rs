//! The controllers of the model, in segments.

/// Which controller the model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The window of the peer alone.
    Window,
    /// RFC 5681 and RFC 3465.
    Reno,
    /// RFC 9438.
    Cubic,
}

/// Multiplicative decrease of CUBIC (RFC 9438 section 4.6).
const BETA: f64 = 0.7;
/// Its aggressiveness, in segments per second cubed (section 5).
const C: f64 = 0.4;

/// A congestion window.
#[derive(Debug, Clone)]
pub(super) struct Window {
    control: Control,
    cwnd: f64,
    ssthresh: f64,
    /// Up to where losses belong to the reduction that was made.
    recovery: Option<u64>,
    w_max: f64,
    cwnd_prior: f64,
    /// When congestion avoidance began, in seconds.
    epoch: Option<f64>,
    cwnd_epoch: f64,
    w_est: f64,
}

impl Window {
    pub(super) fn new(control: Control) -> Self {
        Self {
            control,
            cwnd: 10.0,
            ssthresh: f64::INFINITY,
            recovery: None,
            w_max: 0.0,
            cwnd_prior: 0.0,
            epoch: None,
            cwnd_epoch: 0.0,
            w_est: 0.0,
        }
    }

    /// Segments that may be in flight.
    pub(super) fn segments(&self) -> u64 {
        match self.control {
            Control::Window => u64::MAX,
            Control::Reno | Control::Cubic => (self.cwnd as u64).max(1),
        }
    }

    /// One segment was acknowledged; `una` is the oldest one that is missing, `srtt` in seconds.
    pub(super) fn acknowledged(&mut self, now: f64, srtt: f64, una: u64, is_limited: bool) {
        if self.recovery.is_some_and(|recovery| una >= recovery) {
            self.recovery = None;
        }
        // A window that is not used does not grow (RFC 7661).
        if !is_limited {
            return;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd += 1.0;
        } else if self.control == Control::Reno {
            self.cwnd += 1.0 / self.cwnd;
        } else {
            self.cubic(now, srtt);
        }
    }

    fn cubic(&mut self, now: f64, srtt: f64) {
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => {
                self.cwnd_epoch = self.cwnd;
                self.w_est = self.cwnd;
                // After slow start that nothing has ended but itself there is no w_max (section 4.10).
                self.w_max = self.w_max.max(self.cwnd);
                *self.epoch.insert(now)
            }
        };
        let k = ((self.w_max - self.cwnd_epoch) / C).cbrt();
        let w_cubic = |t: f64| C * (t - k).powi(3) + self.w_max;
        let t = now - epoch;
        // Section 4.3: one segment was acknowledged.
        let alpha = if self.w_est >= self.cwnd_prior { 1.0 } else { 3.0 * (1.0 - BETA) / (1.0 + BETA) };
        self.w_est += alpha / self.cwnd;
        if w_cubic(t) < self.w_est {
            self.cwnd = self.w_est;
            return;
        }
        let target = w_cubic(t + srtt).clamp(self.cwnd, 1.5 * self.cwnd);
        self.cwnd += (target - self.cwnd) / self.cwnd;
    }

    /// A segment was lost; `nxt` is the one that comes next.
    pub(super) fn lost(&mut self, segment: u64, nxt: u64) {
        if self.recovery.is_some_and(|recovery| segment < recovery) {
            return;
        }
        self.recovery = Some(nxt);
        match self.control {
            Control::Window => return,
            Control::Reno => self.ssthresh = (self.cwnd / 2.0).max(2.0),
            Control::Cubic => {
                self.cwnd_prior = self.cwnd;
                // Fast convergence (section 4.7).
                self.w_max = if self.cwnd < self.w_max { self.cwnd * (1.0 + BETA) / 2.0 } else { self.cwnd };
                self.ssthresh = (self.cwnd * BETA).max(2.0);
                self.epoch = None;
            }
        }
        self.cwnd = self.ssthresh;
    }
}
