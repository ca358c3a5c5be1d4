//! TIME-WAIT: what is left of a connection that this end has closed first. A record of 64 bytes.
//!
//! All records stay as long, so they are in the order of their ends as they were made: a list through the slab, to
//! whose tail a record goes whose time begins anew. Everything costs the same however many there are.
//!
//! | what comes | what becomes of it |
//! |---|---|
//! | RST | nothing (RFC 1337) |
//! | SYN that is newer: by its timestamp, else by its number | the connection is opened anew (RFC 6191) |
//! | another SYN | challenge ACK |
//! | no timestamp, though agreed on | nothing (RFC 7323 section 3.2) |
//! | an old timestamp | ACK (PAWS) |
//! | the FIN again | ACK, and the time begins anew |
//! | an ACK at RCV.NXT, without data | nothing |
//! | no ACK | nothing, in the window; else ACK |
//! | anything else | ACK |
//!
//! ACKs but that of a FIN are challenges: who sends them asks [`Throttles`](super::challenge::Throttles) before.

use smoltcp::time::{Duration, Instant};

use super::config::TcpConfig;
use super::handshake::{Clock, is_acceptable, is_older, later, milliseconds};
use super::options::{Options, Timestamps};
use super::segment::{Flags, Header, Segment};
use super::seq::Seq;
use crate::demux::FlowKey;
use crate::observe::DropReason;

/// What a connection leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// SND.NXT: behind our FIN.
    pub snd_nxt: Seq,
    /// RCV.NXT: behind the peer's.
    pub rcv_nxt: Seq,
    /// The window that we offer, as on the wire.
    pub window: u16,
    /// The window in bytes.
    pub rcv_wnd: u32,
    /// Offset and TS.Recent, if timestamps were agreed on.
    pub timestamps: Option<Clock>,
}

/// What becomes of a segment for a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TimeWaitVerdict {
    /// Send this ACK; the time has begun anew if `restarts_at` says until when. If not, it is a challenge.
    Reply {
        /// The ACK.
        header: Header,
        /// The end of the record, if it is later than before.
        restarts_at: Option<Instant>,
    },
    /// A SYN that opens the same flow anew, safely (RFC 6191, RFC 9293 section 3.10.7.4): [`TimeWaits::remove`] the
    /// record and treat the segment as one for the listener, if there is one. Our ISS is to be beyond this.
    Reopen {
        /// Behind all that the old connection has used.
        iss_min: Seq,
    },
    /// Nothing; a reset among others (RFC 1337).
    Dropped(DropReason),
}

/// All records of a shard.
#[derive(Debug)]
pub struct TimeWaits {
    records: Vec<Record>,
    /// First of the list of free records, by `next`.
    free: u32,
    /// The record that ends first.
    head: u32,
    /// The one that ends last.
    tail: u32,
    len: usize,
    len_max: usize,
    time_wait: Duration,
    /// The latest time that was told: ends of records are near it.
    latest: Instant,
}

/// A connection in TIME-WAIT. Every byte is in use.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// See [`FlowKey::to_packed`].
    flow: [u32; 9],
    snd_nxt: Seq,
    rcv_nxt: Seq,
    clock: Clock,
    /// Milliseconds, modulo 2^32, rounded up.
    end: u32,
    /// 16 bits of window, [`LINK_BITS`] each of the record before and the one behind, and flags.
    packed: u64,
}

impl TimeWaits {
    /// None. More than 2 097 151 records are not held, and none for longer than a day.
    pub fn new(config: &TcpConfig) -> Self {
        Self {
            records: Vec::new(),
            free: NONE,
            head: NONE,
            tail: NONE,
            len: 0,
            len_max: config.time_wait_max.clamp(1, NONE as usize),
            time_wait: config.time_wait.min(TIME_WAIT_MAX),
            latest: Instant::from_micros_const(i64::MIN),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a record. If there are too many, the oldest one goes: its flow is returned, for the table of flows. The
    /// end is `now` + `time_wait`, in whole milliseconds; records are in the order of their ends.
    pub fn insert(&mut self, now: Instant, flow: FlowKey, remains: Remains) -> (u32, Option<FlowKey>) {
        self.latest = self.latest.max(now);
        let evicted = if self.len >= self.len_max { self.pop_head() } else { None };
        let mut record = Record {
            flow: flow.to_packed(),
            snd_nxt: remains.snd_nxt,
            rcv_nxt: remains.rcv_nxt,
            clock: remains.timestamps.unwrap_or(Clock { offset: 0, recent: 0 }),
            end: 0,
            packed: u64::from(remains.window) << WINDOW_SHIFT | IS_USED,
        };
        record.set(IS_V4, matches!(flow, FlowKey::V4(_)));
        record.set(HAS_CLOCK, remains.timestamps.is_some());
        let index = self.free;
        let index = match self.records.get_mut(index as usize) {
            Some(free) => {
                self.free = free.next();
                *free = record;
                index
            }
            None => {
                self.records.push(record);
                (self.records.len() - 1) as u32
            }
        };
        self.len += 1;
        self.append(index);
        (index, evicted)
    }

    /// A segment for a record.
    pub fn on_segment(&mut self, now: Instant, index: u32, segment: &Segment<'_>) -> TimeWaitVerdict {
        self.latest = self.latest.max(now);
        let Some(record) = self.records.get_mut(index as usize).filter(|record| record.is(IS_USED)) else {
            return TimeWaitVerdict::Dropped(DropReason::TcpNoSocket);
        };
        match record.judge(segment) {
            Judgment::Drop(reason) => TimeWaitVerdict::Dropped(reason),
            Judgment::Reopen => TimeWaitVerdict::Reopen { iss_min: record.snd_nxt },
            Judgment::Challenge => TimeWaitVerdict::Reply { header: record.ack(now), restarts_at: None },
            Judgment::Restart => {
                let header = record.ack(now);
                self.unlink(index);
                self.append(index);
                let restarts_at = self.records.get(index as usize).map(|record| self.end(record));
                TimeWaitVerdict::Reply { header, restarts_at }
            }
        }
    }

    /// When the first record ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.records.get(self.head as usize).map(|record| self.end(record))
    }

    /// Takes a record away that has ended, and tells its flow.
    pub fn pop_expired(&mut self, now: Instant) -> Option<FlowKey> {
        self.latest = self.latest.max(now);
        if self.next_deadline()? > now {
            return None;
        }
        self.pop_head()
    }

    /// Takes a record away.
    pub fn remove(&mut self, index: u32) {
        let Some(record) = self.records.get_mut(index as usize).filter(|record| record.is(IS_USED)) else {
            return;
        };
        record.set(IS_USED, false);
        self.unlink(index);
        if let Some(record) = self.records.get_mut(index as usize) {
            record.set_next(self.free);
        }
        self.free = index;
        self.len -= 1;
    }

    /// All of them and their ends, for people: in the order of their ends.
    pub fn iter(&self) -> impl Iterator<Item = (FlowKey, Instant)> {
        let at = |index: u32| self.records.get(index as usize);
        std::iter::successors(at(self.head), move |record| at(record.next()))
            .map(|record| (record.flow(), self.end(record)))
    }

    fn pop_head(&mut self) -> Option<FlowKey> {
        let flow = self.records.get(self.head as usize)?.flow();
        self.remove(self.head);
        Some(flow)
    }

    /// Puts a record at the end of the list: its time begins.
    fn append(&mut self, index: u32) {
        let end = later(self.latest, self.time_wait);
        let tail = self.tail;
        if let Some(record) = self.records.get_mut(index as usize) {
            record.end = end.total_micros().saturating_add(999).div_euclid(1000) as u32;
            record.set_previous(tail);
            record.set_next(NONE);
        }
        match self.records.get_mut(tail as usize) {
            Some(record) => record.set_next(index),
            None => self.head = index,
        }
        self.tail = index;
    }

    /// Takes a record out of the list.
    fn unlink(&mut self, index: u32) {
        let Some(record) = self.records.get(index as usize) else { return };
        let (previous, next) = (record.previous(), record.next());
        match self.records.get_mut(previous as usize) {
            Some(record) => record.set_next(next),
            None => self.head = next,
        }
        match self.records.get_mut(next as usize) {
            Some(record) => record.set_previous(previous),
            None => self.tail = previous,
        }
    }

    fn end(&self, record: &Record) -> Instant {
        let latest = self.latest.total_micros().div_euclid(1000);
        let millis = latest.saturating_add(i64::from(record.end.wrapping_sub(latest as u32) as i32));
        Instant::from_micros(millis.saturating_mul(1000))
    }
}

/// What a segment is taken for.
enum Judgment {
    Drop(DropReason),
    Reopen,
    Challenge,
    Restart,
}

impl Record {
    fn judge(&mut self, segment: &Segment<'_>) -> Judgment {
        let flags = segment.flags;
        if flags.has(Flags::RST) {
            //= rfc1337#3
            //# Ignore RST segments in TIME-WAIT state.
            return Judgment::Drop(DropReason::TcpTimeWait);
        }
        if flags.has(Flags::SYN) {
            return if self.is_newer(segment) { Judgment::Reopen } else { Judgment::Challenge };
        }
        if let Some(clock) = self.clock() {
            //= rfc7323#3.2
            //# If a non-<RST> segment is received without a TSopt, a TCP SHOULD silently drop the
            //# segment.
            let Some(timestamps) = segment.options.timestamps else {
                return Judgment::Drop(DropReason::TcpNoTimestamp);
            };
            if is_older(timestamps.val, clock.recent) {
                return Judgment::Challenge;
            }
            if segment.seq.is_at_most(self.rcv_nxt) {
                self.clock.recent = timestamps.val;
            }
        }
        if flags.has(Flags::FIN | Flags::ACK) && segment.end() == self.rcv_nxt {
            //= rfc9293#3.10.7.4
            //# The only thing that can arrive in this state is a retransmission of the remote FIN.
            //# Acknowledge it, and restart the 2 MSL timeout.
            return Judgment::Restart;
        }
        // Behind a FIN there is nothing, so the window that was offered does not matter: of what is in it, only an
        // ACK that comes late is not wrong.
        if is_acceptable(segment.seq, segment.len(), self.rcv_nxt, 1) && segment.is_empty() {
            return Judgment::Drop(DropReason::TcpTimeWait);
        }
        if segment.seq.is_within(self.rcv_nxt, u32::from(self.window())) && !flags.has(Flags::ACK) {
            return Judgment::Drop(DropReason::TcpNoAck);
        }
        Judgment::Challenge
    }

    /// Whether a SYN cannot be an old one of this flow (RFC 6191 section 2).
    ///
    /// One with timestamps after a connection without is judged by its number: whether the new connection would have
    /// timestamps is not known here.
    fn is_newer(&self, segment: &Segment<'_>) -> bool {
        if segment.flags.has_any(Flags::ACK | Flags::FIN) {
            return false;
        }
        //= rfc9293#3.6.1
        //= type=exception
        //= reason=the record is gone; a SYN that passes here is no old one, unless numbers have come around
        //# returns to TIME-WAIT state if the SYN turns out to be an old duplicate.
        let is_beyond = segment.seq.is_after(self.rcv_nxt);
        //= rfc6191#2
        //# If TCP Timestamps would be enabled for the new incarnation of the connection, and the
        //# timestamp contained in the incoming SYN segment is greater than the last timestamp seen on
        //# the previous incarnation of the connection (for that direction of the data transfer), honor
        //# the connection request (creating a connection in the SYN-RECEIVED state).
        match (self.clock(), segment.options.timestamps) {
            (Some(clock), Some(timestamps)) if timestamps.val != clock.recent => {
                is_older(clock.recent, timestamps.val)
            }
            _ => is_beyond,
        }
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
    fn ack(&self, now: Instant) -> Header {
        let flow = self.flow();
        let timestamps = self
            .clock()
            .map(|clock| Timestamps { val: milliseconds(now).wrapping_add(clock.offset), ecr: clock.recent });
        Header {
            src_port: flow.local().port(),
            dst_port: flow.remote().port(),
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: self.window(),
            options: Options { timestamps, ..Options::default() },
        }
    }

    fn flow(&self) -> FlowKey {
        FlowKey::of_packed(self.flow, self.is(IS_V4))
    }

    fn clock(&self) -> Option<Clock> {
        self.is(HAS_CLOCK).then_some(self.clock)
    }

    fn window(&self) -> u16 {
        (self.packed >> WINDOW_SHIFT) as u16
    }

    fn previous(&self) -> u32 {
        (self.packed >> PREVIOUS_SHIFT) as u32 & NONE
    }

    fn set_previous(&mut self, index: u32) {
        self.packed &= !(u64::from(NONE) << PREVIOUS_SHIFT);
        self.packed |= u64::from(index & NONE) << PREVIOUS_SHIFT;
    }

    fn next(&self) -> u32 {
        (self.packed >> NEXT_SHIFT) as u32 & NONE
    }

    fn set_next(&mut self, index: u32) {
        self.packed &= !(u64::from(NONE) << NEXT_SHIFT);
        self.packed |= u64::from(index & NONE) << NEXT_SHIFT;
    }

    fn is(&self, flag: u64) -> bool {
        self.packed & flag != 0
    }

    fn set(&mut self, flag: u64, is_set: bool) {
        self.packed = if is_set { self.packed | flag } else { self.packed & !flag };
    }
}

const IS_USED: u64 = 1;
const IS_V4: u64 = 2;
const HAS_CLOCK: u64 = 4;
const LINK_BITS: u32 = 21;
const NEXT_SHIFT: u32 = 4;
const PREVIOUS_SHIFT: u32 = NEXT_SHIFT + LINK_BITS;
const WINDOW_SHIFT: u32 = 48;
/// No record.
const NONE: u32 = (1 << LINK_BITS) - 1;
/// Longer than that, the 32 bits of an end are not made for.
const TIME_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests;
