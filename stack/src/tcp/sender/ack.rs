//! What follows from an ACK.

use smoltcp::time::{Duration, Instant};

use super::{Ack, AckOutcome, Sender};
use crate::tcp::congestion::{AckSample, CongestionEvent, Controller, RateSample, Signal};
use crate::tcp::rack::{ProbeOutcome, Rack, sent_after};
use crate::tcp::recovery::{Evidence, Frto, FrtoVerdict, Phase, Prr, PrrAck, Recovery, Undo};
use crate::tcp::sack::{Delivered, Position, Record};
use crate::tcp::seq::Seq;

/// As many blocks of SACK find room in a header; what is beyond is not looked at.
const BLOCKS_MAX: usize = 4;

/// How it was before an ACK.
#[derive(Debug, Clone, Copy)]
struct Before {
    in_flight: u32,
    /// Outstanding and not sacked.
    pipe: u32,
    una: Position,
}

/// Blocks of SACK that are good, in order.
#[derive(Debug, Default)]
struct Blocks {
    blocks: [(Position, Position); BLOCKS_MAX],
    len: usize,
    /// RFC 2883.
    dsack: Option<(Position, Position)>,
    bad: u32,
}

/// What has arrived, as far as an ACK tells.
struct Arrivals<'a> {
    now: Instant,
    ts_ecr: Option<u32>,
    min_rtt: Option<Duration>,
    /// Where F-RTO looks for data that was sent once: before this.
    before: Position,
    rack: &'a mut Rack,
    delivered: u32,
    /// What was sent last of it.
    newest: Option<(Position, Record)>,
    /// The same, but what may be an answer to an earlier sending.
    newest_certain: Option<(Position, Instant)>,
    /// Round-trip times of what was sent once: of the oldest that was acknowledged by number, and of the newest.
    oldest_rtt: Option<Duration>,
    newest_rtt: Option<Duration>,
    /// Something that was sent again was acknowledged by number.
    has_closed_gap: bool,
    has_original: bool,
}

impl Sender {
    /// An ACK has come.
    pub fn on_ack(&mut self, now: Instant, ack: &Ack<'_>) -> AckOutcome {
        let una = self.board.una();
        let before =
            Before { in_flight: self.in_flight(), pipe: self.board.outstanding() - self.board.sacked(), una };
        // The connection sees to it that it is acceptable; what is not moves nothing.
        let position = self.board.position(ack.ack);
        let position = if position > self.board.nxt() { una } else { position.max(una) };
        let blocks = self.read_blocks(position, ack.sack);
        let arrivals = self.take_arrivals(now, ack, position, &blocks);
        let acked = (position - una) as u32;
        let delivered = self.count_delivered(ack, acked, arrivals.delivered);
        self.rate.on_ack(now, delivered);
        let rtt = self.sample_rtt(now, ack, &before, acked, delivered, &arrivals);
        if acked > 0 {
            self.rtt.reset_back_off();
        }
        let is_dsack = self.note_dsack(&blocks);
        self.judge_repair(now, ack, acked, arrivals.has_original);
        let probe = self.probe.on_ack(
            position,
            blocks.dsack.map(|(_, end)| end),
            ack.may_be_duplicate && acked == 0 && ack.sack.is_empty(),
        );
        self.end_recovery(now);
        let lost = self.detect_losses(now) + self.detect_without_sack(acked);
        self.respond(now, ack, &before, lost, delivered, probe);
        let rate = arrivals.newest.and_then(|newest| self.rate.sample(&newest, self.rtt.min()));
        self.tell_controller(now, &before, acked, delivered, lost, rtt, rate);
        self.on_ack_timers(now, acked > 0);
        AckOutcome { acked, delivered, lost, rtt, dsack: is_dsack, bad_blocks: blocks.bad }
    }

    /// Sorts the blocks out: RFC 2018 section 4, RFC 2883 section 4.
    fn read_blocks(&self, ack: Position, wire: &[(Seq, Seq)]) -> Blocks {
        let mut found = Blocks::default();
        if !self.has_sack {
            return found;
        }
        let nxt = self.board.nxt();
        let mut blocks = [(0, 0); BLOCKS_MAX];
        for (block, wire) in blocks.iter_mut().zip(wire) {
            *block = (self.board.position(wire.0), self.board.position(wire.1));
        }
        let len = wire.len().min(BLOCKS_MAX);
        for (index, &(start, end)) in blocks.iter().enumerate().take(len) {
            if start >= end || end > nxt {
                found.bad += 1;
                continue;
            }
            // The first block is a DSACK if the ACK or the second block covers it.
            let (second_start, second_end) = if len > 1 { blocks[1] } else { (0, 0) };
            let is_within_second = second_start <= start && end <= second_end;
            if index == 0 && (end <= ack || is_within_second) {
                found.dsack = Some((start, end));
            } else if end > ack {
                found.push(start.max(ack), end);
            }
        }
        let good = &mut found.blocks[..found.len];
        good.sort_unstable();
        found
    }

    fn take_arrivals(&mut self, now: Instant, ack: &Ack<'_>, position: Position, blocks: &Blocks) -> Taken {
        let before = match &self.recovery {
            Some(recovery) if recovery.phase == Phase::Timeout => recovery.high,
            _ => 0,
        };
        let mut arrivals = Arrivals {
            now,
            ts_ecr: ack.ts_ecr,
            min_rtt: self.rtt.min(),
            before,
            rack: &mut self.rack,
            delivered: 0,
            newest: None,
            newest_certain: None,
            oldest_rtt: None,
            newest_rtt: None,
            has_closed_gap: false,
            has_original: false,
        };
        if position > self.board.una() {
            self.board.acknowledge(position, self.mss, |delivered| arrivals.note(delivered, true));
        }
        if arrivals.has_closed_gap {
            // What lay behind the gap may have arrived long ago, if no SACK has told of it.
            (arrivals.oldest_rtt, arrivals.newest_rtt) = (None, None);
        }
        for &(start, end) in &blocks.blocks[..blocks.len] {
            self.board.sack(start, end, self.mss, |delivered| arrivals.note(delivered, false));
        }
        if let Some((end, sent_at)) = arrivals.newest_certain {
            arrivals.rack.update(now, sent_at, end);
        }
        Taken {
            delivered: arrivals.delivered,
            newest: arrivals.newest.map(|(_, record)| record),
            oldest_rtt: arrivals.oldest_rtt,
            newest_rtt: arrivals.newest_rtt,
            has_original: arrivals.has_original,
        }
    }

    /// Bytes that have arrived: without SACK duplicates tell of some before their numbers are acknowledged.
    fn count_delivered(&mut self, ack: &Ack<'_>, acked: u32, delivered: u32) -> u32 {
        let (outstanding, lost, mss) = (self.board.outstanding(), self.board.lost(), self.mss);
        let is_recovering = self.phase() != Phase::Open;
        let Some(newreno) = &mut self.newreno else { return delivered };
        if acked > 0 {
            return newreno.on_advance(acked, mss, is_recovering, outstanding);
        }
        if !ack.may_be_duplicate || outstanding == 0 {
            return 0;
        }
        // One segment is missing at least, or there would be no duplicate.
        newreno.on_duplicate(ack.count.max(1), mss, outstanding.saturating_sub(lost.max(mss)))
    }

    /// Round-trip time: of data that was sent once (Karn), or by timestamps. Returns that of the newest segment.
    fn sample_rtt(
        &mut self,
        now: Instant,
        ack: &Ack<'_>,
        before: &Before,
        acked: u32,
        delivered: u32,
        arrivals: &Taken,
    ) -> Option<Duration> {
        let by_timestamp = if acked > 0 { ack.ts_rtt } else { None };
        // The oldest one has waited for a delayed ACK, which the RTO has to know of.
        let sample = arrivals.oldest_rtt.or(arrivals.newest_rtt).or(by_timestamp)?;
        // As many ACKs like this one come in a round trip.
        let per_window = before.in_flight.div_ceil(delivered.max(2 * self.mss));
        if let Some(newest) = arrivals.newest_rtt {
            self.rtt.observe_min(now, newest);
        }
        self.rtt.sample(now, sample, per_window);
        self.probe.on_sample();
        arrivals.newest_rtt.or(Some(sample))
    }

    /// The peer has received something twice. Returns whether it told so.
    fn note_dsack(&mut self, blocks: &Blocks) -> bool {
        let Some((start, end)) = blocks.dsack else { return false };
        self.told().dsacks += 1;
        if self.probe.ends_at(end) {
            return true;
        }
        // More duplicates than there were repetitions are of the network's making, and say nothing.
        let told = self.told();
        told.dsack_bytes += end - start;
        if told.dsack_bytes > told.bytes_resent {
            told.dsack_bytes = told.bytes_resent;
            return true;
        }
        self.rack.on_dsack(self.board.una(), self.board.nxt());
        if let Some(recovery) = &mut self.recovery {
            recovery.undo.on_dsack(start, end);
        }
        true
    }

    /// Was the repair needless?
    fn judge_repair(&mut self, now: Instant, ack: &Ack<'_>, acked: u32, has_original: bool) {
        let (una, nxt, mss) = (self.board.una(), self.board.nxt(), self.mss);
        let Some(recovery) = &mut self.recovery else { return };
        let evidence = recovery.undo.evidence(una, ack.ts_ecr);
        let mut is_needless = evidence.is_some();
        if recovery.phase == Phase::Timeout && recovery.frto != Frto::Off {
            if recovery.undo.has_timestamp() && ack.ts_ecr.is_some() {
                recovery.frto = Frto::Off;
            }
            let verdict = recovery.frto.on_ack(acked > 0, una >= recovery.high, has_original, nxt, mss);
            is_needless |= verdict == FrtoVerdict::Spurious;
        }
        if !is_needless {
            return;
        }
        if !recovery.is_timeout || evidence == Some(Evidence::Duplicates) {
            self.rack.note_reordering();
        }
        if recovery.phase != Phase::Open {
            self.board.unmark_lost();
        }
        self.recovery = None;
        self.congestion.on_undo(now);
        self.validation.on_undo();
        self.owes_cwr = false;
        self.told().undone += 1;
    }

    /// A recovery ends when all is acknowledged that was outstanding when it began. What is known of its repetitions
    /// is kept for a round trip more, for DSACKs that come late.
    fn end_recovery(&mut self, now: Instant) {
        let (una, nxt, in_flight) = (self.board.una(), self.board.nxt(), self.in_flight());
        let Some(recovery) = &mut self.recovery else { return };
        if una < recovery.high {
            return;
        }
        if recovery.phase == Phase::Open {
            self.recovery = None;
            return;
        }
        recovery.phase = Phase::Open;
        recovery.high = nxt + 1;
        let resent = recovery.undo.resent();
        self.congestion.on_recovery_end(now, in_flight);
        let advice = self.validation.on_recovery_end(now, resent, &self.used());
        self.follow(advice);
        self.rack.on_recovery_end();
    }

    /// RACK step 5. Returns bytes that are lost.
    pub(super) fn detect_losses(&mut self, now: Instant) -> u32 {
        self.is_waiting = false;
        if !self.has_sack || self.board.outstanding() == 0 {
            return 0;
        }
        let reo_wnd = self.rack.reo_wnd(&self.surroundings());
        let rack = self.rack;
        let found = self.board.detect(|sent_at, end| rack.age(now, reo_wnd, sent_at, end));
        self.is_waiting = found.is_waiting;
        self.rate.lost += u64::from(found.lost);
        found.lost
    }

    /// Three duplicate ACKs, or a partial one in recovery: the oldest segment is lost (RFC 6582). Returns its bytes.
    fn detect_without_sack(&mut self, acked: u32) -> u32 {
        let (una, phase) = (self.board.una(), self.phase());
        let Some(newreno) = &self.newreno else { return 0 };
        let is_lost = match phase {
            Phase::Open => newreno.is_due(una),
            Phase::Fast => acked > 0 && self.board.outstanding() > 0,
            Phase::Timeout => false,
        };
        if !is_lost {
            return 0;
        }
        self.board.split(una + u64::from(self.mss));
        let lost = self.board.mark_lost(una);
        self.rate.lost += u64::from(lost);
        lost
    }

    /// Congestion: a recovery begins or goes on, a probe has repaired something, a router has marked.
    fn respond(
        &mut self,
        now: Instant,
        ack: &Ack<'_>,
        before: &Before,
        lost: u32,
        delivered: u32,
        probe: ProbeOutcome,
    ) {
        let (una, nxt) = (self.board.una(), self.board.nxt());
        if lost > 0 && self.phase() == Phase::Open {
            self.enter_recovery(now, before.pipe);
        } else if self.phase() == Phase::Open {
            if probe == ProbeOutcome::Repaired {
                self.reduce(now, Signal::Loss, before.in_flight);
                self.congestion.on_recovery_end(now, self.in_flight());
            } else if ack.ece && una > self.ecn_recover {
                //= rfc3168#6.1.2
                //# TCP should not react to congestion indications more than once every
                //# window of data
                self.reduce(now, Signal::Ecn, before.in_flight);
                self.told().ecn_reductions += 1;
            }
        }
        let ssthresh = self.congestion.ssthresh().unwrap_or(self.congestion.cwnd());
        let (in_flight, mss) = (self.in_flight(), self.mss);
        if let Some(recovery) = &mut self.recovery
            && recovery.phase == Phase::Fast
        {
            let is_safe = una > before.una && lost == 0;
            recovery.prr.on_ack(&PrrAck { delivered, in_flight, ssthresh, is_safe, mss });
        }
        self.ecn_recover = if self.phase() == Phase::Open { self.ecn_recover } else { nxt };
    }

    /// Fast recovery begins. `pipe`: bytes in flight before the ACK, what is lost included.
    pub(super) fn enter_recovery(&mut self, now: Instant, pipe: u32) {
        // FlightSize of RFC 5681: what SACK has reported is in it.
        let flight = self.board.outstanding();
        let (una, nxt) = (self.board.una(), self.board.nxt());
        self.validation.on_congestion(flight, &self.used());
        self.reduce(now, Signal::Loss, flight);
        self.recovery = Some(Box::new(Recovery {
            phase: Phase::Fast,
            is_timeout: false,
            high: nxt,
            prr: Prr::new(pipe),
            undo: Undo::new(una, self.board.resent()),
            frto: Frto::Off,
        }));
        self.probe.cancel();
        self.told().recoveries += 1;
        if let Some(newreno) = &mut self.newreno {
            newreno.on_recovery(nxt);
        }
    }

    fn reduce(&mut self, now: Instant, signal: Signal, in_flight: u32) {
        let nxt = self.board.nxt();
        self.congestion.on_congestion(&CongestionEvent { now, signal, in_flight, snd_nxt: Seq(nxt as u32) });
        self.owes_cwr = true;
        self.ecn_recover = nxt;
    }

    #[expect(clippy::too_many_arguments, reason = "what an ACK has told, each known by its name")]
    fn tell_controller(
        &mut self,
        now: Instant,
        before: &Before,
        acked: u32,
        delivered: u32,
        lost: u32,
        rtt: Option<Duration>,
        rate: Option<RateSample>,
    ) {
        if delivered == 0 && lost == 0 {
            return;
        }
        self.congestion.on_ack(&AckSample {
            now,
            delivered,
            acked,
            lost,
            delivered_total: self.rate.delivered,
            lost_total: self.rate.lost,
            prior_in_flight: before.in_flight,
            in_flight: self.in_flight(),
            snd_una: self.snd_una(),
            snd_nxt: self.snd_nxt(),
            rtt,
            srtt: self.rtt.srtt(),
            min_rtt: self.rtt.min(),
            rate,
            is_in_recovery: self.phase() != Phase::Open,
            is_cwnd_limited: self.is_cwnd_limited(),
        });
        let advice = self.validation.on_ack(now, delivered, &self.used());
        self.follow(advice);
    }
}

/// What is left of [`Arrivals`].
struct Taken {
    delivered: u32,
    newest: Option<Record>,
    oldest_rtt: Option<Duration>,
    newest_rtt: Option<Duration>,
    has_original: bool,
}

impl Blocks {
    fn push(&mut self, start: Position, end: Position) {
        if let Some(block) = self.blocks.get_mut(self.len) {
            *block = (start, end);
            self.len += 1;
        }
    }
}

impl Arrivals<'_> {
    fn note(&mut self, delivered: &Delivered, is_by_number: bool) {
        let (end, record) = (delivered.end, &delivered.record);
        self.delivered += record.len;
        self.rack.detect_reordering(end, record.is_resent);
        if self
            .newest
            .is_none_or(|(other_end, other)| sent_after(record.sent_at, end, other.sent_at, other_end))
        {
            self.newest = Some((end, *record));
        }
        let rtt = self.now - record.sent_at;
        self.has_closed_gap |= record.is_resent && is_by_number;
        if !record.is_resent {
            self.newest_rtt = Some(rtt);
            self.has_original |= end <= self.before;
            if is_by_number && self.oldest_rtt.is_none() {
                self.oldest_rtt = Some(rtt);
            }
        }
        // RFC 8985 section 6.2 step 2: the ACK may answer an earlier sending.
        let is_early = |echo: u32, val: u32| (echo.wrapping_sub(val) as i32) < 0;
        let is_uncertain = record.is_resent
            && (self.ts_ecr.zip(record.ts_val).is_some_and(|(echo, val)| is_early(echo, val))
                || self.min_rtt.is_some_and(|min_rtt| rtt < min_rtt));
        let is_newest = self
            .newest_certain
            .is_none_or(|(other_end, other_at)| sent_after(record.sent_at, end, other_at, other_end));
        if !is_uncertain && is_newest {
            self.newest_certain = Some((end, record.sent_at));
        }
    }
}
