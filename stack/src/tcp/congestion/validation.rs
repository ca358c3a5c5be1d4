//! Congestion window validation (RFC 7661): a window that was not used for long says nothing of the path.
//!
//! An application that sends less than half of what the window allows keeps it, for five minutes; then it is halved. If
//! something is lost in that time, what was in flight counts, not the window. The measure is `pipeACK`: the most that
//! was acknowledged within a round trip, in the last second or three round trips.
//!
//! It is for windows that grow as they are used, Reno's and CUBIC's. BBR's is computed from what is delivered.
//!
//! | the sender | calls |
//! |---|---|
//! | has received an ACK, in recovery too | [`on_ack`](Validation::on_ack) |
//! | is about to send new data | [`on_sent`](Validation::on_sent) |
//! | has found a loss, before the controller hears of it | [`on_congestion`](Validation::on_congestion) |
//! | has repaired it, after the controller knows | [`on_recovery_end`](Validation::on_recovery_end) |
//! | takes the loss back | [`on_undo`](Validation::on_undo) |
//!
//! What they return, if anything, is a window and a threshold for
//! [`reduce_to`](super::Controller::reduce_to), in bytes; a threshold of `u32::MAX` is none.

use smoltcp::time::{Duration, Instant};

/// How long a window may be unused: section 4.4 calls it the non-validated period, section 5 says why five minutes.
const NVP: u32 = 5 * 60 * 1_000;
/// A sample of `pipeACK` counts for this long at least, in milliseconds.
const SAMPLING_PERIOD_MIN: u32 = 1_000;
/// No measurement is shorter, in microseconds: ACKs that come in one turn are one.
const MEASUREMENT_MIN: u32 = 100;

/// Stands for a `pipeACK` that is not known: at the start, and after a loss.
const UNDEFINED: u32 = u32::MAX;

/// Follows how much of the window is used.
///
/// Times are kept in 32 bits, and wrap: microseconds within a measurement (after a silence of 71 minutes one sample
/// is too large), milliseconds else.
#[derive(Debug, Clone, Copy)]
pub struct Validation {
    /// Since when bytes are counted for a sample, in microseconds.
    measured_since: u32,
    /// Bytes of this sample.
    measured: u32,
    /// Since when this half of the sampling period lasts, in milliseconds.
    period_since: u32,
    /// The largest sample of the half of the sampling period before this one, and of this one.
    samples: [u32; 2],
    /// When the window was used last, in milliseconds.
    validated_at: u32,
    /// FlightSize at the loss that is being repaired, if the window was not validated then; or 0.
    loss_flight_size: u32,
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
    /// Smoothed round-trip time, if there is one.
    pub srtt: Option<Duration>,
}

impl Validation {
    /// Nothing was sent yet.
    pub fn new(now: Instant) -> Self {
        Self {
            measured_since: micros(now),
            measured: 0,
            period_since: millis(now),
            samples: [UNDEFINED, 0],
            validated_at: millis(now),
            loss_flight_size: 0,
        }
    }

    /// `pipeACK` in bytes, or `None` if it is undefined.
    pub fn pipe_ack(&self) -> Option<u32> {
        let largest = self.samples[0].max(self.samples[1]);
        (largest != UNDEFINED).then_some(largest)
    }

    /// Whether the window is used: the validated phase of section 4.3. A window in slow start is twice what was
    /// acknowledged in the round trip before, and what is acknowledged now is of the one before that: a quarter is
    /// enough there.
    pub fn is_validated(&self, window: &Used) -> bool {
        let is_slow_start = window.ssthresh.is_none_or(|ssthresh| window.cwnd < ssthresh);
        let enough = if is_slow_start { window.cwnd / 4 } else { window.cwnd / 2 };
        self.pipe_ack().is_none_or(|pipe_ack| pipe_ack >= enough)
    }

    /// An ACK has told of so many bytes for the first time.
    pub fn on_ack(&mut self, now: Instant, delivered: u32, window: &Used) -> Option<(u32, u32)> {
        self.measured = self.measured.saturating_add(delivered);
        let rtt = window.srtt.map_or(0, rtt_micros);
        let elapsed = micros(now).wrapping_sub(self.measured_since);
        if elapsed >= rtt.max(MEASUREMENT_MIN) {
            self.take_sample(now, rtt, elapsed);
        }
        self.check(now, window)
    }

    /// New data goes.
    pub fn on_sent(&mut self, now: Instant, window: &Used) -> Option<(u32, u32)> {
        self.check(now, window)
    }

    /// A loss, with so many bytes in flight. Nothing is to be done now: the controllers reduce by what is in flight.
    pub fn on_congestion(&mut self, flight_size: u32, window: &Used) {
        self.loss_flight_size = if self.is_validated(window) { 0 } else { flight_size.max(1) };
    }

    /// The loss is repaired; `retransmitted` bytes were sent again for it.
    pub fn on_recovery_end(&mut self, now: Instant, retransmitted: u32, window: &Used) -> Option<(u32, u32)> {
        let flight_size = std::mem::take(&mut self.loss_flight_size);
        let pipe_ack = self.pipe_ack();
        // Section 4.3: undefined directly after a loss, which is the validated phase.
        self.samples = [UNDEFINED, 0];
        self.period_since = millis(now);
        self.validated_at = millis(now);
        if flight_size == 0 {
            return None;
        }
        // Section 4.4.1: cwnd = (Max(pipeACK, LossFlightSize) - R) / 2.
        let used = pipe_ack.unwrap_or(0).max(flight_size);
        let cwnd = used.saturating_sub(retransmitted) / 2;
        Some((cwnd, window.ssthresh.unwrap_or(u32::MAX)))
    }

    /// The loss was none.
    pub fn on_undo(&mut self) {
        self.loss_flight_size = 0;
    }

    /// A round trip is over: what was acknowledged in it, by the share that a round trip has of the time.
    fn take_sample(&mut self, now: Instant, rtt: u32, elapsed: u32) {
        let share = u64::from(self.measured) * u64::from(rtt.max(1)) / u64::from(elapsed.max(1));
        let sample = (share as u32).min(UNDEFINED - 1);
        self.measured_since = micros(now);
        self.measured = 0;
        let half_period = sampling_period(rtt) / 2;
        let elapsed = millis(now).wrapping_sub(self.period_since);
        if elapsed >= half_period {
            // What is older than the period goes; after a silence, both halves are.
            let before = if elapsed >= half_period.saturating_mul(3) { 0 } else { self.samples[1] };
            self.samples = [before, 0];
            self.period_since = millis(now);
        }
        self.samples[1] = self.samples[1].max(sample);
    }

    /// Whether five minutes are over.
    fn check(&mut self, now: Instant, window: &Used) -> Option<(u32, u32)> {
        // A silence is as little use as a trickle: what `pipeACK` says then is of before it.
        let since = millis(now).wrapping_sub(self.period_since);
        let is_silent = since >= sampling_period(window.srtt.map_or(0, rtt_micros));
        if self.is_validated(window) && !is_silent {
            self.validated_at = millis(now);
            return None;
        }
        if millis(now).wrapping_sub(self.validated_at) < NVP {
            return None;
        }
        self.validated_at = millis(now);
        if window.cwnd <= window.initial_window {
            return None;
        }
        // Section 4.4.3: cwnd = max(cwnd / 2, IW), ssthresh = max(ssthresh, 3 * cwnd / 4).
        let cwnd = (window.cwnd / 2).max(window.initial_window);
        let three_quarters = (u64::from(window.cwnd) * 3 / 4) as u32;
        Some((cwnd, window.ssthresh.map_or(u32::MAX, |ssthresh| ssthresh.max(three_quarters))))
    }
}

/// pipeACK Sampling Period, in milliseconds: max(3 * RTT, 1 s) (section 4.2).
fn sampling_period(rtt_micros: u32) -> u32 {
    (rtt_micros / 1_000).saturating_mul(3).max(SAMPLING_PERIOD_MIN)
}

fn rtt_micros(rtt: Duration) -> u32 {
    u32::try_from(rtt.total_micros()).unwrap_or(u32::MAX)
}

/// Wraps after 71 minutes.
fn micros(now: Instant) -> u32 {
    now.total_micros() as u32
}

/// Wraps after 49 days.
fn millis(now: Instant) -> u32 {
    now.total_millis() as u32
}
