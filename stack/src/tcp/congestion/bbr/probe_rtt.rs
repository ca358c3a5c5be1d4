//! ProbeRtt: how long is the path, without queues?

use smoltcp::time::{Duration, Instant};

use super::{Bbr, Context, PROBE_RTT_CWND_GAIN, Phase};

/// A round-trip time that is older than this says nothing (BBR.MinRTTFilterLen, BBR.ProbeRTTInterval).
const MIN_RTT_FILTER: Duration = Duration::from_secs(10);
/// How long little is in flight.
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);

/// The search for a shorter round trip.
#[derive(Debug, Clone, Copy)]
pub(super) struct RttProbe {
    /// The least round-trip time is too old.
    is_expired: bool,
    /// The window of the probe, in bytes; of what was known before a sample with a queue in it took its place.
    pub(super) cwnd: u32,
    /// When it is over at the earliest. `None`: too much is in flight still.
    done_stamp: Option<Instant>,
    is_round_done: bool,
    /// Rates of what was sent before so much was delivered tell of the probe, not of the path.
    pub(super) limited_until: u64,
}

impl RttProbe {
    pub(super) fn new(initial_window: u32) -> Self {
        Self {
            is_expired: false,
            cwnd: initial_window,
            done_stamp: None,
            is_round_done: false,
            limited_until: 0,
        }
    }
}

impl Bbr {
    /// UpdateMinRTT.
    pub(super) fn update_min_rtt(&mut self, context: &Context<'_>) {
        let now = context.sample.now;
        self.rtt_probe.is_expired = now > self.model.min_rtt_stamp + MIN_RTT_FILTER;
        if self.rtt_probe.is_expired && self.phase != Phase::ProbeRtt {
            // SaveProbeRTTCwnd.
            self.rtt_probe.cwnd = self.bdp_multiple(PROBE_RTT_CWND_GAIN).max(self.min_pipe_cwnd());
        }
        if let Some(rtt) = context.sample.rtt
            && (self.model.min_rtt.is_none_or(|min_rtt| rtt < min_rtt) || self.rtt_probe.is_expired)
        {
            self.model.min_rtt = Some(rtt.max(Duration::from_micros(1)));
            self.model.min_rtt_stamp = now;
        }
    }

    /// CheckProbeRTT.
    pub(super) fn check_probe_rtt(&mut self, context: &Context<'_>) {
        if self.phase != Phase::ProbeRtt && self.rtt_probe.is_expired && !self.idle_restart {
            self.save_cwnd();
            self.phase = Phase::ProbeRtt;
            self.rtt_probe.done_stamp = None;
            self.probing.stop();
            self.rounds.restart(self.delivered_total);
        }
        if self.phase == Phase::ProbeRtt {
            self.handle_probe_rtt(context);
        }
        if context.sample.delivered > 0 {
            self.idle_restart = false;
        }
    }

    /// HandleProbeRTT.
    fn handle_probe_rtt(&mut self, context: &Context<'_>) {
        let sample = context.sample;
        // MarkConnectionAppLimited.
        self.rtt_probe.limited_until = sample.delivered_total + u64::from(sample.in_flight);
        if self.rtt_probe.done_stamp.is_some() {
            self.rtt_probe.is_round_done |= self.rounds.is_start;
            if self.rtt_probe.is_round_done {
                self.check_probe_rtt_done(sample.now);
            }
        } else if sample.in_flight <= self.rtt_probe.cwnd {
            self.rtt_probe.done_stamp = Some(sample.now + PROBE_RTT_DURATION);
            self.rtt_probe.is_round_done = false;
            self.rounds.restart(self.delivered_total);
        }
    }

    /// CheckProbeRTTDone.
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.rtt_probe.done_stamp.is_some_and(|done| now > done) {
            self.model.min_rtt_stamp = now;
            self.restore_cwnd();
            self.exit_probe_rtt(now);
        }
    }

    /// ExitProbeRTT.
    fn exit_probe_rtt(&mut self, now: Instant) {
        self.model.reset_shortterm();
        if self.full_pipe.is_reached {
            self.start_down(now);
            self.start_cruise();
        } else {
            self.phase = Phase::Startup;
        }
    }
}
