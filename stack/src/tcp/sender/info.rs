//! What is told to people: counters, and what held the connection back for how long.

use smoltcp::time::{Duration, Instant};

use super::{LimitedBy, Sender};
use crate::tcp::congestion::Controller;
use crate::tcp::info::TcpInfo;
use crate::tcp::recovery::Phase;

/// Counters of what is rare. A connection that loses nothing has none.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) bytes_resent: u64,
    pub(super) dsack_bytes: u64,
    pub(super) resent: u32,
    pub(super) timeouts: u32,
    pub(super) probes: u32,
    pub(super) recoveries: u32,
    pub(super) undone: u32,
    pub(super) dsacks: u32,
    pub(super) ecn_reductions: u32,
    /// Microseconds: application, receiver, congestion.
    limited: [u64; 3],
    /// Since when it is as it is.
    limited_since: Option<Instant>,
}

impl Told {
    pub(super) fn on_resent(&mut self, bytes: u32) {
        self.bytes_resent += u64::from(bytes);
        self.resent = self.resent.saturating_add(1);
    }
}

impl Sender {
    /// Fills in what it knows.
    pub fn fill_info(&self, now: Instant, info: &mut TcpInfo) {
        info.mss = self.mss;
        info.cwnd = self.congestion.cwnd();
        info.ssthresh = self.congestion.ssthresh();
        info.congestion = self.congestion.name();
        info.in_flight = self.in_flight();
        info.srtt = self.rtt.srtt();
        info.rttvar = self.rtt.rttvar();
        info.min_rtt = self.rtt.min();
        info.rto = self.rtt.rto();
        info.backoffs = self.rtt.backoffs();
        info.pacing_rate = self.pacing_rate();
        let rate = self.rate.newest();
        info.delivery_rate = rate.map(|(rate, _)| rate);
        info.is_delivery_rate_app_limited = rate.is_some_and(|(_, is_app_limited)| is_app_limited);
        info.limited_by = self.limited_by;
        info.limited_time = self.limited_time(now);
        info.recovery = match self.phase() {
            Phase::Open => "none",
            Phase::Fast => "fast recovery",
            Phase::Timeout => "after a timeout",
        };
        info.sack = self.has_sack;
        info.reordering_window = self.rack.reo_wnd(&self.surroundings());
        if let Some(told) = &self.told {
            info.counters.bytes_retransmitted = told.bytes_resent;
            info.counters.retransmits = told.resent;
            info.counters.timeouts = told.timeouts;
            info.counters.probes = told.probes;
            info.counters.recoveries = told.recoveries;
            info.counters.undone = told.undone;
            info.counters.dsacks = told.dsacks;
            info.counters.ecn_reductions = told.ecn_reductions;
        }
    }

    pub(super) fn told(&mut self) -> &mut Told {
        self.told.get_or_insert_default()
    }

    pub(super) fn note_limited(&mut self, now: Instant, by: LimitedBy) {
        if self.limited_by == by {
            return;
        }
        let old = self.limited_by as usize;
        let told = self.told();
        // Before the first change it was the application; how long, does not tell anything.
        if let Some(since) = told.limited_since {
            told.limited[old] += (now - since).total_micros();
        }
        told.limited_since = Some(now);
        self.limited_by = by;
    }

    fn limited_time(&self, now: Instant) -> [Duration; 3] {
        let Some(told) = &self.told else { return [Duration::ZERO; 3] };
        let mut times = told.limited;
        if let Some(since) = told.limited_since {
            times[self.limited_by as usize] += (now - since).total_micros();
        }
        times.map(Duration::from_micros)
    }
}
