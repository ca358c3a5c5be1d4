//! The timers of a sender: RTO (RFC 6298), and before it the probe or the age of a segment (RFC 8985 section 8: one
//! of these at a time).

use smoltcp::time::{Duration, Instant};

use super::{Sender, Timeout};
use crate::tcp::congestion::{CongestionEvent, Controller, Pacer, Signal};
use crate::tcp::recovery::{Frto, Phase, Prr, Recovery, Undo};
use crate::tcp::seq::Seq;

/// Of a timer that is not set.
const NEVER: Instant = Instant::from_micros_const(i64::MAX);

/// What comes before the RTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Early {
    Nothing,
    /// PTO.
    Probe,
    /// The reordering timer of RACK.
    Reorder,
}

/// When what is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timers {
    rto_at: Instant,
    /// How long before `rto_at` the early one is due, in microseconds.
    early_before: u32,
    early: Early,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { rto_at: NEVER, early_before: 0, early: Early::Nothing }
    }

    pub(super) fn cancel_early(&mut self) {
        self.early = Early::Nothing;
    }

    fn set_early(&mut self, early: Early, at: Instant) {
        self.early = early;
        // What would be due after the RTO is due with it.
        let before = if at < self.rto_at { self.rto_at - at } else { Duration::ZERO };
        self.early_before = u32::try_from(before.total_micros()).unwrap_or(u32::MAX);
    }

    /// The RTO is due at another time, the early one when it was.
    fn set_rto(&mut self, at: Instant) {
        let early_at = self.early_at();
        self.rto_at = at;
        if at == NEVER {
            self.cancel_early();
        } else if self.early != Early::Nothing {
            self.set_early(self.early, early_at);
        }
    }

    fn early_at(&self) -> Instant {
        if self.early == Early::Nothing {
            return NEVER;
        }
        self.rto_at - Duration::from_micros(u64::from(self.early_before))
    }
}

impl Sender {
    /// When a timer of the sender is due: RTO, probe, or the age of a segment. `None` if nothing is in flight.
    pub fn deadline(&self) -> Option<Instant> {
        let at = self.timers.rto_at.min(self.timers.early_at());
        (at != NEVER).then_some(at)
    }

    /// That time has come.
    pub fn on_timeout(&mut self, now: Instant) -> Timeout {
        if now >= self.timers.early_at() {
            let early = self.timers.early;
            self.timers.cancel_early();
            match early {
                Early::Reorder => {
                    if self.detect(now) > 0 {
                        return Timeout::Lost;
                    }
                }
                Early::Probe => {
                    if let Some((start, len)) = self.board.last_segment(self.mss) {
                        self.probe.ask();
                        self.told().probes += 1;
                        //= rfc8985#7.3
                        //# After attempting to send a loss probe, regardless of whether a loss
                        //# probe was sent, the sender MUST re-arm the RTO timer, not the PTO timer,
                        //# if the FlightSize is not zero.
                        self.restart_rto(now);
                        return Timeout::Probe(Seq(start as u32), len);
                    }
                }
                Early::Nothing => {}
            }
        }
        if now >= self.timers.rto_at {
            if self.board.outstanding() > 0 {
                self.on_rto(now);
                return Timeout::Retransmit;
            }
            self.timers.set_rto(NEVER);
        }
        Timeout::Nothing
    }

    /// The device has no room. If the RTO expires while what it has asked for the last time is still to be repeated, that
    /// says nothing of the path: it waits as long once more. False: that is not so.
    pub fn wait_for_device(&mut self, now: Instant) -> bool {
        let is_unsent = self.board.first_lost().is_some_and(|(start, _)| start == self.board.una());
        let waits = now >= self.timers.rto_at && self.phase() == Phase::Timeout && is_unsent;
        if waits {
            self.restart_rto(now);
        }
        waits
    }

    /// The link was down and is up: what is outstanding is repeated now, and as often as if it were for the first time.
    pub fn retry(&mut self, now: Instant) {
        if self.board.outstanding() > 0 {
            self.rtt.reset_back_off();
            self.timers.cancel_early();
            self.timers.set_rto(now);
        }
    }

    /// Starts the RTO timer if it does not run (RFC 6298 section 5, rule 5.1).
    pub(super) fn start_rto(&mut self, now: Instant) {
        if self.timers.rto_at == NEVER {
            self.restart_rto(now);
        }
    }

    /// Rules 5.2 and 5.3.
    pub(super) fn restart_rto(&mut self, now: Instant) {
        let at = if self.board.outstanding() > 0 { now + self.rtt.rto() } else { NEVER };
        self.timers.set_rto(at);
    }

    /// New data has left, or some was acknowledged: a probe goes if nothing is heard for two round trips.
    pub(super) fn schedule_probe(&mut self, now: Instant) {
        if self.timers.early == Early::Reorder || !self.may_probe() {
            return;
        }
        let pto = match self.rtt.srtt() {
            // One segment may be what the peer waits with its ACK for. It is allowed as much as it always is by the RTO
            // (as Linux: TCP_RTO_MIN).
            Some(srtt) if self.board.outstanding() <= self.mss => srtt * 2 + self.rtt.floor(),
            // Who shares a processor answers now and then by some milliseconds later than a short path lets expect.
            Some(srtt) => srtt * 2 + PROBE_SPARE,
            None => Duration::from_secs(1),
        };
        self.timers.set_early(Early::Probe, (now + pto).min(self.timers.rto_at));
    }

    /// The conditions of RFC 8985 section 7.2 and 7.3.
    fn may_probe(&self) -> bool {
        self.has_sack
            && self.phase() == Phase::Open
            && self.board.outstanding() > 0
            && self.board.sacked() == 0
            && self.board.lost() == 0
            && self.probe.may_be_sent()
    }

    /// An ACK has come and all that follows from it is done.
    pub(super) fn on_ack_timers(&mut self, now: Instant, acked: bool) {
        if acked {
            self.restart_rto(now);
        }
        if self.is_waiting {
            let at = self.rack.expiry(self.rack.reo_wnd(&self.surroundings()));
            self.timers.set_early(Early::Reorder, at);
        } else if acked || self.timers.early == Early::Reorder {
            self.timers.cancel_early();
            self.schedule_probe(now);
        } else if self.timers.early == Early::Probe && !self.may_probe() {
            self.timers.cancel_early();
        }
    }

    /// Looks for segments that are too old (RACK step 5), and begins a recovery if there are some. Returns the bytes
    /// that were found lost.
    fn detect(&mut self, now: Instant) -> u32 {
        let before = self.board.outstanding() - self.board.sacked();
        let lost = self.detect_losses(now);
        if self.is_waiting {
            let at = self.rack.expiry(self.rack.reo_wnd(&self.surroundings()));
            self.timers.set_early(Early::Reorder, at);
        }
        if lost > 0 {
            if self.phase() == Phase::Open {
                self.enter_recovery(now, before);
            }
            let (in_flight, mss) = (self.in_flight(), self.mss);
            if let Some(recovery) = &mut self.recovery {
                recovery.prr.on_timer(in_flight, mss);
            }
        }
        lost
    }

    /// RFC 6298 section 5, rules 5.4 to 5.6.
    fn on_rto(&mut self, now: Instant) {
        let (una, nxt) = (self.board.una(), self.board.nxt());
        let flight = self.board.outstanding();
        let resent = self.board.resent();
        let phase = self.phase();
        let has_progressed = self.rtt.backoffs() == 0;
        self.mark_lost_on_rto(now);
        self.told().timeouts += 1;
        if let Some(newreno) = &mut self.newreno {
            newreno.on_timeout(nxt);
        }
        self.probe.cancel();
        self.timers.cancel_early();
        if phase != Phase::Timeout || has_progressed {
            self.congestion.on_congestion(&CongestionEvent {
                now,
                signal: Signal::Timeout,
                in_flight: flight,
                snd_nxt: Seq(nxt as u32),
            });
            self.recovery = Some(Box::new(Recovery {
                phase: Phase::Timeout,
                is_timeout: true,
                high: nxt,
                prr: Prr::default(),
                undo: Undo::new(una, resent),
                frto: if phase == Phase::Timeout { Frto::Off } else { Frto::First },
            }));
        } else {
            // Nothing was heard since the last timeout; what SACK has let grow since starts again.
            if self.congestion.uses_prr() {
                let ssthresh = self.congestion.ssthresh().unwrap_or(self.mss);
                self.congestion.reduce_to(self.mss, ssthresh);
            }
            if let Some(recovery) = &mut self.recovery {
                recovery.high = nxt;
                recovery.frto = Frto::Off;
            }
        }
        self.owes_cwr = true;
        self.ecn_recover = nxt;
        self.rtt.back_off();
        // What is repeated now has waited long enough. The rate of before may be one of a path that took longer than the
        // RTO does, and the next timeout would come before the first one has had its repetition.
        self.pacer = Pacer::new();
        self.restart_rto(now);
    }

    fn mark_lost_on_rto(&mut self, now: Instant) {
        // A peer that has the oldest segment and does not acknowledge it has thrown it away. And if nothing is heard of
        // what was repeated either, it is not worth while to rely on what was reported before.
        let is_reneged = self.board.first().is_some_and(|record| record.is_sacked)
            || (self.rtt.backoffs() > 0 && self.board.sacked() > 0);
        //= rfc2018#8
        //= type=exception
        //= reason=only where there is a sign of it, as errata 1610 of RFC 2018 and RFC 6675 section 5.1 allow
        //# After a retransmit timeout the data sender SHOULD turn off all of the
        //# SACKed bits, since the timeout might indicate that the data receiver
        //# has reneged.
        if is_reneged {
            self.board.forget_sacks();
        }
        let lost = if self.has_sack && !is_reneged {
            // RACK_mark_losses_on_RTO of RFC 8985 section 6.3: the oldest one, and what is as old.
            let reo_wnd = self.rack.reo_wnd(&self.surroundings());
            let (una, rack) = (self.board.una(), self.rack);
            self.board
                .mark_lost_if(|start, record| start == una || rack.is_expired(now, reo_wnd, record.sent_at))
        } else {
            self.board.mark_lost_if(|_, _| true)
        };
        self.rate.lost += u64::from(lost);
    }
}

/// How much longer than two round trips a probe waits, as on Linux (TCP_TIMEOUT_MIN, two ticks of its clock).
const PROBE_SPARE: Duration = Duration::from_millis(2);
