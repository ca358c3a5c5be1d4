//! What becomes of data that was sent: acknowledged, lost, to be repeated; and how much more may go.
//!
//! The one place where the scoreboard ([`sack`](super::sack)), the detector of losses ([`rack`](super::rack)), the
//! repair ([`recovery`](super::recovery)), the clock of the path ([`rtt`](super::rtt)) and the controller
//! ([`congestion`](super::congestion)) meet. It knows no header, no window of the peer and no buffer: the
//! connection tells it what was sent and what an ACK said, and asks it what to repeat and how much may go.
//!
//! Everything counts bytes, once each: an ACK may stand for 64 KB or be one of many that a peer has split it into, and
//! makes the window grow by what it delivers. An ACK of what was never sent does not come here: the connection refuses
//! it (RFC 9293 section 3.10.7.4), and a SACK block of that kind is counted and passed over.
//!
//! A FIN takes a sequence number and is recorded like a byte of data. A SYN is not of its business: the handshake
//! is over when this begins.

use smoltcp::time::{Duration, Instant};

mod ack;
mod info;
mod rate;
mod timers;

use super::congestion::validation::Used;
use super::congestion::{Algorithm, Congestion, Controller, Pacer, Validation};
use super::rack::{Probe, Rack, Surroundings};
use super::recovery::{NewReno, Phase, Recovery};
use super::rtt::{RtoBounds, Rtt};
use super::sack::{Position, Record, Scoreboard};
use super::seq::Seq;
use info::Told;
use rate::Rate;
use timers::Timers;

/// What a sender begins with.
#[derive(Debug, Clone, Copy)]
pub struct SenderConfig {
    /// The number of the first byte: ISS + 1.
    pub start: Seq,
    /// Bytes of payload of a full segment.
    pub mss: u32,
    /// Bounds of the RTO.
    pub rto: RtoBounds,
    /// The controller.
    pub algorithm: Algorithm,
    /// Bytes of the initial window. `None`: as RFC 6928 says, ten segments.
    pub initial_window: Option<u32>,
    /// Both ends have SACK (RFC 2018). If not, duplicate ACKs are counted (RFC 5681, RFC 6582).
    pub sack: bool,
    /// Both ends have timestamps.
    pub timestamps: bool,
    /// The round-trip time of the handshake, unless a SYN was repeated.
    pub handshake_rtt: Option<Duration>,
    /// A SYN or SYN-ACK was lost, as far as we know (RFC 5681 section 3.1: one segment to begin with).
    pub handshake_lost: bool,
    /// Whether what is sent is spread over a round trip of a millisecond or more (pacing); a controller with a model
    /// always does.
    pub pacing: bool,
}

/// Something that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The first number.
    pub seq: Seq,
    /// Numbers: bytes of data, and one for a FIN. Up to 64 KB: several segments that left in one frame.
    pub len: u32,
    /// TSval of its option, if it had one.
    pub ts_val: Option<u32>,
    /// The application had nothing more to send behind it (and the window had room).
    pub is_app_limited: bool,
}

/// An ACK. It is acceptable: `snd_una <= ack <= snd_nxt`.
#[derive(Debug, Clone, Copy)]
pub struct Ack<'a> {
    /// SEG.ACK.
    pub ack: Seq,
    /// Blocks of SACK as they came; nothing is known of them yet, not even that their ends are in order.
    pub sack: &'a [(Seq, Seq)],
    /// Whether it may count as a duplicate ACK by RFC 5681 section 2 as far as the segment tells: no data, no SYN, no
    /// FIN, the window is the same as before. (That something is outstanding and nothing new is acknowledged is for
    /// the sender to see.)
    pub may_be_duplicate: bool,
    /// How many ACKs of the peer this stands for, if the device has merged some: 1 or more.
    pub count: u32,
    /// TSecr, if the segment has timestamps.
    pub ts_ecr: Option<u32>,
    /// The round-trip time that TSecr tells.
    pub ts_rtt: Option<Duration>,
    /// ECE is set, and ECN was agreed on.
    pub ece: bool,
}

/// What an ACK has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckOutcome {
    /// Bytes by which `snd_una` has moved: what the send buffer gives up (a FIN counts as one).
    pub acked: u32,
    /// Bytes acknowledged for the first time, by number or SACK.
    pub delivered: u32,
    /// Bytes found lost.
    pub lost: u32,
    /// The newest sample.
    pub rtt: Option<Duration>,
    /// The blocks had one that the peer had received before (RFC 2883).
    pub dsack: bool,
    /// Blocks that no honest peer sends: of what was never sent.
    pub bad_blocks: u32,
}

/// What an expired timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing was due after all.
    Nothing,
    /// Segments were found lost by their age (RACK): [`next_lost`](Sender::next_lost) has them.
    Lost,
    /// A loss probe (TLP) is to be sent: new data if there is some and the peer's window takes it, or else the last
    /// segment that was sent, which begins at this number and has so many.
    Probe(Seq, u32),
    /// The RTO has expired: everything counts as lost, the window is one segment.
    Retransmit,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Sender {
    board: Scoreboard,
    rtt: Rtt,
    rack: Rack,
    probe: Probe,
    timers: Timers,
    congestion: Congestion,
    pacer: Pacer,
    validation: Validation,
    rate: Rate,
    usage: Usage,
    mss: u32,
    initial_window: u32,
    /// When data left last.
    last_sent_at: Instant,
    /// ECE says nothing new before this is acknowledged.
    ecn_recover: Position,
    limited_by: LimitedBy,
    has_sack: bool,
    is_paced: bool,
    owes_cwr: bool,
    /// RACK waits for something that may still come.
    is_waiting: bool,
    /// Something was sent; before that there was no idle time.
    has_sent: bool,
    /// While a loss is being repaired, and for a round trip after that.
    recovery: Option<Box<Recovery>>,
    /// Only without SACK.
    newreno: Option<Box<NewReno>>,
    /// What is only told to people.
    told: Option<Box<Told>>,
}

/// How much of the window was used in the last round trip.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// The most that was in flight.
    in_flight_max: u32,
    /// The round trip ends when this is acknowledged.
    until: Seq,
    /// The window was what held the sender back.
    is_limited: bool,
}

/// A window that goes out in less time is not spread, in microseconds: a queue that holds it is short then, and timers
/// would cost more than they save.
const PACED_RTT_MIN: u64 = 1_000;
/// The largest frame there is.
const QUANTUM_MAX: u32 = 65_536;

impl Sender {
    /// Nothing was sent yet.
    pub fn new(config: &SenderConfig, now: Instant) -> Self {
        let mss = config.mss.max(1);
        let mut bounds = config.rto;
        if config.handshake_lost && config.handshake_rtt.is_none() {
            //= rfc6298#5
            //# If the timer expires awaiting the ACK of a SYN segment and the
            //# TCP implementation is using an RTO less than 3 seconds, the RTO
            //# MUST be re-initialized to 3 seconds when data transmission
            //# begins (i.e., after the three-way handshake completes).
            bounds.initial = bounds.initial.max(Duration::from_secs(3));
        }
        let mut rtt = Rtt::new(bounds);
        if let Some(sample) = config.handshake_rtt {
            rtt.sample(now, sample, 1);
        }
        let board = Scoreboard::new(config.start);
        let start = board.una();
        let initial_window = initial_window(config, mss);
        Self {
            rtt,
            rack: Rack::new(),
            probe: Probe::new(config.handshake_rtt.is_some()),
            timers: Timers::new(),
            congestion: Congestion::new(config.algorithm, mss, initial_window, now),
            pacer: Pacer::new(),
            validation: Validation::new(now),
            rate: Rate::new(now),
            usage: Usage { in_flight_max: 0, until: config.start, is_limited: false },
            mss,
            initial_window,
            last_sent_at: now,
            ecn_recover: start,
            limited_by: LimitedBy::Application,
            has_sack: config.sack,
            is_paced: config.pacing,
            owes_cwr: false,
            is_waiting: false,
            has_sent: false,
            recovery: None,
            newreno: (!config.sack).then(|| Box::new(NewReno::new(start))),
            told: None,
            board,
        }
    }

    /// SND.UNA: the oldest number that is not acknowledged.
    #[inline]
    pub fn snd_una(&self) -> Seq {
        Seq(self.board.una() as u32)
    }

    /// SND.NXT: the number that comes next. It never goes back: what is lost is repeated, not sent anew.
    #[inline]
    pub fn snd_nxt(&self) -> Seq {
        Seq(self.board.nxt() as u32)
    }

    /// Bytes of a full segment.
    #[inline]
    pub fn mss(&self) -> u32 {
        self.mss
    }

    /// Full segments are of another size from now on. What was sent and was longer may be marked as lost, for it did
    /// not get through (`marks_lost`: RFC 1191 section 6.1 wants it repeated, not taken for congestion).
    pub fn set_mss(&mut self, now: Instant, mss: u32, marks_lost: bool) {
        self.mss = mss.max(1);
        self.congestion.set_mss(self.mss);
        if marks_lost {
            let mss = self.mss;
            self.board.mark_lost_if(|_, record| record.len > mss);
            self.timers.cancel_early();
            self.restart_rto(now);
        }
    }

    /// Data was sent for the first time, from `snd_nxt` on.
    pub fn on_sent(&mut self, now: Instant, sent: &Sent) {
        if sent.len == 0 {
            return;
        }
        if self.board.outstanding() == 0 {
            self.rate.restart(now);
            self.restart_window(now);
        }
        let advice = self.validation.on_sent(now, &self.used());
        self.follow(advice);
        let record = self.record(now, sent, self.in_flight().saturating_add(sent.len));
        self.board.push(record);
        self.rate.on_sent(sent.is_app_limited, self.in_flight());
        let nxt = self.board.nxt();
        if let Some(recovery) = &mut self.recovery {
            recovery.frto.on_sent(nxt);
        }
        self.note_usage();
        self.probe.on_sent(nxt);
        self.note_departure(now, sent.len);
        self.schedule_probe(now);
    }

    /// Data was sent again: what [`next_lost`](Self::next_lost) has told, or its first part; or the probe.
    pub fn on_resent(&mut self, now: Instant, sent: &Sent, is_probe: bool) {
        let start = self.board.position(sent.seq);
        let end = start + u64::from(sent.len);
        let is_head = start <= self.board.una();
        let record = self.record(now, sent, self.in_flight().saturating_add(sent.len));
        let bytes = self.board.resend(start, end, &record, self.has_sack);
        self.told().on_resent(bytes);
        if is_probe {
            self.probe.on_resent(self.board.nxt());
        } else if let Some(recovery) = &mut self.recovery {
            recovery.undo.on_resent(start, bytes, sent.ts_val);
        }
        self.note_departure(now, sent.len);
        // The timer counts from the last time that the oldest data left (RFC 6675 section 6).
        if is_head || is_probe {
            self.restart_rto(now);
        }
    }

    /// What to repeat first: a number, and how many from there, of which a first part may be sent.
    pub fn next_lost(&self) -> Option<(Seq, u32)> {
        if !self.has_lost() {
            return None;
        }
        self.board.first_lost_run(QUANTUM_MAX).map(|(start, len)| (Seq(start as u32), len))
    }

    /// Whether there is something to repeat.
    #[inline]
    pub fn has_lost(&self) -> bool {
        let is_held_back = || self.recovery.as_ref().is_some_and(|recovery| recovery.frto.holds_back());
        self.board.first_lost().is_some() && !is_held_back()
    }

    /// How many bytes may go now as far as congestion is concerned: window or PRR, less what is in flight. Not 0 when
    /// the first segment of a recovery or of an RTO is to be repeated. Limited transmit (RFC 3042) is in it: what a
    /// duplicate ACK or SACK reports is not in flight any more.
    ///
    /// In a recovery it may be less than a segment; that is not lost but adds up, so a segment goes when there is
    /// room for all of it.
    pub fn allowance(&self) -> u32 {
        let in_flight = self.in_flight();
        let room = self.window().saturating_sub(in_flight);
        // After a timeout the window is one segment, and what is too young to be lost may fill it: the oldest one is
        // repeated all the same (RFC 6298 section 5, rule 5.4). So it is at a partial ACK without SACK (RFC 6582
        // section 3.2 step 3).
        let is_held_back = self.recovery.as_ref().is_some_and(|recovery| recovery.frto.holds_back());
        let is_head_due = !is_held_back
            && (self.phase() == Phase::Timeout || self.newreno.is_some())
            && self.board.first_lost().is_some_and(|(start, _)| start == self.board.una());
        if in_flight == 0 || is_head_due { room.max(self.mss) } else { room }
    }

    /// When pacing lets the next piece go. `None`: now.
    pub fn next_send_at(&self, now: Instant) -> Option<Instant> {
        self.pacing_rate()?;
        self.pacer.next_send_at(now)
    }

    /// How many bytes one frame should have at most, so that pacing is not in vain: at least one segment.
    pub fn quantum(&self) -> u32 {
        if let Some(quantum) = self.congestion.send_quantum() {
            return quantum.max(self.mss);
        }
        let Some(rate) = self.pacing_rate() else { return QUANTUM_MAX.max(self.mss) };
        Pacer::quantum(rate, self.mss, self.rtt.min()).max(self.mss)
    }

    /// Bytes in flight, as far as is known (pipe of RFC 6675).
    pub fn in_flight(&self) -> u32 {
        let arrived = self.newreno.as_ref().map_or(0, |newreno| newreno.arrived());
        self.board
            .outstanding()
            .saturating_sub(self.board.sacked() + self.board.lost())
            .saturating_sub(arrived)
    }

    /// The peer's window is what holds us back, or the application has nothing: for `limited-by` and the rate. To be
    /// told after each time that data was sent or could not be: F-RTO, which wants to send new data before it
    /// repeats any, learns from this that there is none.
    pub fn set_limited_by(&mut self, now: Instant, by: LimitedBy) {
        if by == LimitedBy::Congestion {
            self.usage.is_limited = true;
        } else {
            if let Some(recovery) = &mut self.recovery {
                recovery.frto.on_no_new_data();
            }
            if by == LimitedBy::Application {
                self.rate.set_app_limited(self.in_flight());
            }
        }
        self.note_limited(now, by);
    }

    /// Whether the next new data is to have CWR set (RFC 3168 section 6.1.2), asked once. It is so after each
    /// reduction of the window, whether ECN was agreed on or not: the connection knows.
    pub fn take_cwr(&mut self) -> bool {
        std::mem::take(&mut self.owes_cwr)
    }

    /// Estimates of the path.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Another controller from now on. It begins with the window that there is.
    pub fn set_algorithm(&mut self, now: Instant, algorithm: Algorithm) {
        let (cwnd, ssthresh) = (self.congestion.cwnd(), self.congestion.ssthresh());
        self.congestion = Congestion::new(algorithm, self.mss, cwnd, now);
        if let Some(ssthresh) = ssthresh {
            self.congestion.reduce_to(cwnd, ssthresh);
        }
        // The new one knows nothing of the reduction that the old one could take back.
        if self.phase() == Phase::Open {
            self.recovery = None;
        }
    }

    fn phase(&self) -> Phase {
        self.recovery.as_ref().map_or(Phase::Open, |recovery| recovery.phase)
    }

    /// What may be in flight.
    fn window(&self) -> u32 {
        match &self.recovery {
            Some(recovery) if recovery.phase == Phase::Fast && self.congestion.uses_prr() => {
                recovery.prr.window()
            }
            _ => self.congestion.cwnd(),
        }
    }

    fn pacing_rate(&self) -> Option<u64> {
        if let Some(rate) = self.congestion.pacing_rate() {
            return Some(rate);
        }
        if !self.is_paced {
            return None;
        }
        let srtt = self.rtt.srtt()?.total_micros();
        if srtt < PACED_RTT_MIN {
            return None;
        }
        let window = u64::from(self.window().max(self.mss));
        // As Linux: twice the window in a round trip while it doubles in one, and a fifth more than the window after
        // that, so that pacing does not hold it back.
        let fifths = if self.is_in_slow_start() { 10 } else { 6 };
        Some((window * fifths * 1_000_000 / (5 * srtt)).max(1))
    }

    fn is_in_slow_start(&self) -> bool {
        self.congestion.ssthresh().is_none_or(|ssthresh| self.congestion.cwnd() < ssthresh)
    }

    fn used(&self) -> Used {
        Used {
            cwnd: self.congestion.cwnd(),
            ssthresh: self.congestion.ssthresh(),
            initial_window: self.initial_window,
            srtt: self.rtt.srtt(),
        }
    }

    /// The window was not used, and is to be smaller. A controller with a model does not need to be told.
    fn follow(&mut self, advice: Option<(u32, u32)>) {
        if let Some((cwnd, ssthresh)) = advice
            && self.congestion.uses_prr()
        {
            self.congestion.reduce_to(cwnd, ssthresh);
        }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            is_recovering: self.phase() != Phase::Open,
            sacked_segments: self.board.sacked_segments(),
            min_rtt: self.rtt.min(),
            srtt: self.rtt.srtt(),
        }
    }

    fn record(&self, now: Instant, sent: &Sent, tx_in_flight: u32) -> Record {
        let rate = self.rate.snapshot(now);
        Record {
            sent_at: now,
            ts_val: sent.ts_val,
            len: sent.len,
            tx_in_flight,
            delivered: rate.delivered,
            lost: rate.lost,
            since_delivered: rate.since_delivered,
            since_first_sent: rate.since_first_sent,
            is_app_limited: rate.is_app_limited,
            is_sacked: false,
            is_lost: false,
            is_resent: false,
        }
    }

    /// Data left, new or old.
    fn note_departure(&mut self, now: Instant, bytes: u32) {
        self.last_sent_at = now;
        self.has_sent = true;
        if let Some(recovery) = &mut self.recovery {
            recovery.prr.on_sent(bytes);
        }
        if let Some(rate) = self.pacing_rate() {
            self.pacer.on_sent(now, bytes, rate);
        }
        self.start_rto(now);
    }

    /// Data is about to leave while nothing is outstanding.
    fn restart_window(&mut self, now: Instant) {
        let idle = now - self.last_sent_at;
        if self.has_sent && idle > self.rtt.rto() {
            self.congestion.on_restart(now, idle);
        }
    }

    /// A window that is not used must not grow, and in slow start it may as long as half of it is used, for it doubles
    /// in a round trip (as Linux: tcp_is_cwnd_limited).
    fn is_cwnd_limited(&self) -> bool {
        let half = self.is_in_slow_start() && self.congestion.cwnd() / 2 < self.usage.in_flight_max;
        self.usage.is_limited || half
    }

    fn note_usage(&mut self) {
        let in_flight = self.in_flight();
        let is_limited = self.allowance() < self.mss;
        let is_new_round = self.snd_una().is_at_least(self.usage.until);
        if is_new_round || is_limited || (!self.usage.is_limited && in_flight > self.usage.in_flight_max) {
            self.usage = Usage { in_flight_max: in_flight, until: self.snd_nxt(), is_limited };
        }
    }
}

/// RFC 6928, or what the configuration says; one segment after a lost SYN.
fn initial_window(config: &SenderConfig, mss: u32) -> u32 {
    if config.handshake_lost {
        //= rfc5681#3.1
        //# if the SYN or SYN/ACK is lost,
        //# the initial window used by a sender after a correctly transmitted SYN
        //# MUST be one segment consisting of at most SMSS bytes.
        return mss;
    }
    //= rfc6928#2
    //# min (10*MSS, max (2*MSS, 14600))
    config
        .initial_window
        .unwrap_or_else(|| mss.saturating_mul(10).min(mss.saturating_mul(2).max(14_600)))
        .max(mss)
}

/// What keeps a connection from sending more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitedBy {
    /// The application has written no more.
    #[default]
    Application,
    /// The window of the peer.
    Receiver,
    /// Congestion control.
    Congestion,
}

#[cfg(test)]
mod tests;
