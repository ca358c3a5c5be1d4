//! Connections that have begun and are not accepted by both ends: SYN-RECEIVED of whoever listens.
//!
//! A record, not a connection: at most 128 bytes. What comes for it is a [`Segment`]; what is to be done is a value.

mod terms;

use smoltcp::time::{Duration, Instant};

use self::terms::{Terms, is_ecn_setup};
use super::config::{Cookies, TcpConfig, TcpOptions};
use super::handshake::{Clock, Negotiated, is_acceptable, is_older, later, milliseconds, window_scale_for};
use super::isn::Isn;
use super::options::Options;
use super::segment::{Flags, Header, Segment};
use super::seq::Seq;
use super::syn_cookie::{Kept, SynCookies};
use crate::demux::FlowKey;
use crate::observe::DropReason;
use crate::random::Random;

/// What becomes of a SYN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SynVerdict {
    /// There is a record of it: answer with this, and come again at the time.
    Recorded {
        /// Which record, for [`HalfOpens::on_segment`] and [`HalfOpens::on_timeout`].
        index: u32,
        /// The SYN-ACK.
        reply: Header,
        /// When to send it again.
        resend_at: Instant,
    },
    /// Answer with this, a cookie, and forget it.
    Cookie(Header),
    /// Nothing.
    Dropped(DropReason),
}

/// What becomes of a segment for a half-open connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HalfOpenVerdict {
    /// Both ends agree. If there is room at the listener, [`HalfOpens::remove`] it and make a connection of it, which
    /// then sees the segment (it may have data, or a FIN); if not, leave it (as Linux does: the ACK is dropped, the
    /// SYN-ACK is sent again).
    Established(Negotiated),
    /// Send this: the SYN-ACK again, or a challenge ACK.
    Reply(Header),
    /// Send this reset: the segment acknowledges something else (RFC 9293 section 3.10.7.4, fifth).
    Refuse(Header),
    /// The peer has given up: [`HalfOpens::remove`] it.
    Closed,
    /// Nothing.
    Dropped(DropReason),
}

/// What is to be done when a record's time has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HalfOpenTimeout {
    /// Send the SYN-ACK again, and come again at the time.
    Resend(Header, Instant),
    /// Nobody answers: it is removed.
    GaveUp,
}

/// What a listener says of connections.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Which listener, for [`HalfOpens::get`].
    pub listener: u32,
    /// Its options.
    pub options: &'a TcpOptions,
    /// MSS that we take on this path: the MTU of the link less the headers.
    pub local_mss: u16,
    /// Its accept queue is full: SYNs are dropped (backlog of Linux).
    pub is_full: bool,
    /// Its own bound of half-open connections is reached.
    pub is_half_open_full: bool,
}

/// A record, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfOpenInfo {
    /// Whose it is.
    pub flow: FlowKey,
    /// Of which listener.
    pub listener: u32,
    /// When the SYN came.
    pub began_at: Instant,
    /// How often the SYN-ACK was sent again because nobody answered.
    pub resends: u8,
    /// What the SYN and the SYN-ACK have settled.
    pub iss: Seq,
    /// The peer's.
    pub irs: Seq,
}

/// All half-open connections of a shard.
#[derive(Debug)]
pub struct HalfOpens {
    slots: Vec<Slot>,
    /// First of the list of free slots; [`NONE`]: there is none.
    free: u32,
    len: usize,
    len_max: usize,
    mode: Cookies,
    cookies: SynCookies,
    resends_max: u32,
    /// Between two answers to what is repeated or out of place, of one record.
    reply_interval: Duration,
}

#[derive(Debug)]
enum Slot {
    /// The next free one.
    Free(u32),
    Used(HalfOpen),
}

/// A connection in SYN-RECEIVED.
#[derive(Debug, Clone, Copy)]
struct HalfOpen {
    flow: FlowKey,
    terms: Terms,
    iss: Seq,
    irs: Seq,
    listener: u32,
    /// When the SYN came.
    began_at: Instant,
    /// Bounds of the RTO, in microseconds.
    rto_initial: u32,
    rto_max: u32,
    /// When something was answered that is limited, in milliseconds.
    replied_at: Option<u32>,
    /// How often the SYN-ACK was sent because its time had come.
    resends: u8,
    /// Whether the SYN came again.
    is_repeated: bool,
    /// Whether a policy has allowed it, and is to be told its end.
    is_policed: bool,
}

impl HalfOpens {
    /// None.
    pub fn new(config: &TcpConfig, random: &mut Random) -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            len_max: config.half_open_max.min(NONE as usize),
            mode: config.cookies,
            cookies: SynCookies::new(random),
            resends_max: config.syn_ack_retries.min(u8::MAX.into()),
            reply_interval: config.challenge_interval,
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

    /// A SYN (without ACK and RST) for a listener, of a flow of which nothing is known.
    pub fn on_syn(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        offer: &Offer<'_>,
        isn: &Isn,
        segment: &Segment<'_>,
    ) -> SynVerdict {
        self.begin(now, flow, offer, isn, segment, isn.choose(now, flow))
    }

    /// The same for one that opens anew what was in TIME-WAIT: our ISS is beyond `iss_min`
    /// ([`TimeWaitVerdict::Reopen`](super::time_wait::TimeWaitVerdict::Reopen)), unless it has to be a cookie.
    pub fn on_reopening_syn(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        offer: &Offer<'_>,
        isn: &Isn,
        segment: &Segment<'_>,
        iss_min: Seq,
    ) -> SynVerdict {
        self.begin(now, flow, offer, isn, segment, isn.choose_beyond(now, flow, iss_min))
    }

    fn begin(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        offer: &Offer<'_>,
        isn: &Isn,
        segment: &Segment<'_>,
        iss: Seq,
    ) -> SynVerdict {
        //= rfc9293#3.10.7.2
        //= type=exception
        //= reason=who begins and ends at once is a scanner; Linux drops it too
        //# Note that any other incoming control or data (combined with SYN) will be processed in the
        //# SYN-RECEIVED state
        if segment.flags.has_any(Flags::FIN | Flags::ACK | Flags::RST) || !segment.flags.has(Flags::SYN) {
            return SynVerdict::Dropped(DropReason::TcpBadFlags);
        }
        if offer.is_full {
            return SynVerdict::Dropped(DropReason::TcpListenOverflow);
        }
        let terms = Terms::of(flow, offer, isn, segment);
        let is_full = self.len >= self.len_max || offer.is_half_open_full;
        match self.mode {
            Cookies::Always => return SynVerdict::Cookie(self.bake(now, flow, &terms, segment.seq)),
            Cookies::WhenFull if is_full => {
                return SynVerdict::Cookie(self.bake(now, flow, &terms, segment.seq));
            }
            Cookies::Never if is_full => return SynVerdict::Dropped(DropReason::TcpSynQueueFull),
            Cookies::WhenFull | Cookies::Never => {}
        }
        let rto = offer.options.rto;
        let record = HalfOpen {
            flow: *flow,
            terms,
            iss,
            irs: segment.seq,
            listener: offer.listener,
            began_at: now,
            rto_initial: micros(rto.initial),
            rto_max: micros(rto.max),
            replied_at: None,
            resends: 0,
            is_repeated: false,
            is_policed: false,
        };
        let (reply, resend_at) = (record.syn_ack(now), later(now, record.interval()));
        SynVerdict::Recorded { index: self.insert(record), reply, resend_at }
    }

    /// A segment for a record.
    pub fn on_segment(&mut self, now: Instant, index: u32, segment: &Segment<'_>) -> HalfOpenVerdict {
        let interval = self.reply_interval;
        match self.slots.get_mut(index as usize) {
            Some(Slot::Used(record)) => record.on_segment(now, interval, segment),
            _ => HalfOpenVerdict::Dropped(DropReason::TcpNoSocket),
        }
    }

    /// An ACK for a listener, of a flow of which nothing is known: it may answer a cookie. `None`: it does not.
    ///
    /// Whether the listener has room is not asked: if not, the segment is dropped, and the peer sends another one.
    pub fn on_cookie(
        &mut self,
        now: Instant,
        flow: &FlowKey,
        offer: &Offer<'_>,
        isn: &Isn,
        segment: &Segment<'_>,
    ) -> Option<Negotiated> {
        let is_believed = match self.mode {
            Cookies::Always => true,
            Cookies::WhenFull => self.cookies.is_recent(now),
            Cookies::Never => false,
        };
        let flags = segment.flags;
        if !is_believed || !flags.has(Flags::ACK) || flags.has_any(Flags::SYN | Flags::RST) {
            return None;
        }
        let (irs, iss) = (segment.seq - 1, segment.ack - 1);
        let timestamps = segment.options.timestamps.filter(|_| offer.options.timestamps);
        let mut clock = None;
        let mut kept = None;
        if let Some(timestamps) = timestamps {
            let offset = isn.timestamp_offset(flow);
            clock = Some(Clock { offset, recent: timestamps.val });
            kept = Some(Kept::of(timestamps.ecr.wrapping_sub(offset), milliseconds(now))?);
        }
        let peer_mss = self.cookies.check(now, flow, irs, iss, kept)?;
        let mut terms = Terms::least(flow, offer);
        terms.peer_mss = peer_mss;
        terms.clock = clock;
        if let Some(kept) = kept {
            let ours = window_scale_for(offer.options.recv_buffer_max);
            terms.window_scale = kept.window_scale.map(|peers| (peers, ours));
            (terms.sack, terms.ecn) = (kept.sack, kept.ecn);
        }
        Some(terms.negotiated(iss, irs, segment))
    }

    /// The time has come that was told.
    pub fn on_timeout(&mut self, now: Instant, index: u32) -> HalfOpenTimeout {
        if let Some(Slot::Used(record)) = self.slots.get_mut(index as usize)
            && u32::from(record.resends) < self.resends_max
        {
            record.resends += 1;
            return HalfOpenTimeout::Resend(record.syn_ack(now), later(now, record.interval()));
        }
        self.remove(index);
        HalfOpenTimeout::GaveUp
    }

    /// Whose it is, and its listener.
    pub fn get(&self, index: u32) -> Option<(FlowKey, u32)> {
        match self.slots.get(index as usize) {
            Some(Slot::Used(record)) => Some((record.flow, record.listener)),
            _ => None,
        }
    }

    /// Whether a policy is to be told the end of a record; it is no more if that is taken.
    pub(crate) fn policed(&mut self, index: u32) -> Option<&mut bool> {
        match self.slots.get_mut(index as usize) {
            Some(Slot::Used(record)) => Some(&mut record.is_policed),
            _ => None,
        }
    }

    /// Those whose end a policy was to be told; it is not, any more.
    pub(crate) fn take_policed(&mut self) -> Vec<FlowKey> {
        let policed = self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Used(record) => std::mem::take(&mut record.is_policed).then_some(record.flow),
            Slot::Free(_) => None,
        });
        policed.collect()
    }

    /// Takes a record away.
    pub fn remove(&mut self, index: u32) {
        if let Some(slot @ Slot::Used(_)) = self.slots.get_mut(index as usize) {
            *slot = Slot::Free(self.free);
            self.free = index;
            self.len -= 1;
        }
    }

    /// All of them, for people.
    pub fn iter(&self) -> impl Iterator<Item = HalfOpenInfo> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Free(_) => None,
            Slot::Used(record) => Some(HalfOpenInfo {
                flow: record.flow,
                listener: record.listener,
                began_at: record.began_at,
                resends: record.resends,
                iss: record.iss,
                irs: record.irs,
            }),
        })
    }

    /// There is room: the caller has asked.
    fn insert(&mut self, record: HalfOpen) -> u32 {
        self.len += 1;
        let index = self.free;
        match self.slots.get_mut(index as usize) {
            Some(slot) => {
                if let Slot::Free(next) = *slot {
                    self.free = next;
                }
                *slot = Slot::Used(record);
                index
            }
            None => {
                self.slots.push(Slot::Used(record));
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// The SYN-ACK with a cookie.
    fn bake(&mut self, now: Instant, flow: &FlowKey, terms: &Terms, irs: Seq) -> Header {
        let mut terms = *terms;
        let kept = terms.clock.map(|_| Kept {
            window_scale: terms.window_scale.map(|(peers, _)| peers),
            sack: terms.sack,
            ecn: terms.ecn,
        });
        if kept.is_none() {
            (terms.window_scale, terms.sack, terms.ecn) = (None, false, false);
        }
        let iss = self.cookies.bake(now, flow, irs, terms.peer_mss, kept);
        let clock = milliseconds(now);
        terms.syn_ack(flow, iss, irs, kept.map_or(clock, |kept| kept.within(clock)))
    }
}

impl HalfOpen {
    fn on_segment(
        &mut self,
        now: Instant,
        reply_interval: Duration,
        segment: &Segment<'_>,
    ) -> HalfOpenVerdict {
        let flags = segment.flags;
        let rcv_nxt = self.irs + 1;
        if flags.has(Flags::RST) {
            return self.on_reset(now, reply_interval, segment);
        }
        if flags.has(Flags::SYN) {
            // The peer has not got the SYN-ACK: an ACK alone, as is due for what is out of the window, it could not
            // use.
            if segment.seq == self.irs && !flags.has_any(Flags::ACK | Flags::FIN) {
                return self.on_repeated_syn(now, reply_interval, segment);
            }
            //= rfc9293#3.10.7.4
            //= type=exception
            //= reason=anybody could take the connection away so; RFC 5961 section 4 for all states
            //# If the connection was initiated with a passive OPEN, then return this connection to the
            //# LISTEN state and return.
            return self.challenge(now, reply_interval);
        }
        if let Some(clock) = self.terms.clock {
            //= rfc7323#3.2
            //# If a non-<RST> segment is received without a TSopt, a TCP SHOULD silently drop the
            //# segment.
            let Some(timestamps) = segment.options.timestamps else {
                return HalfOpenVerdict::Dropped(DropReason::TcpNoTimestamp);
            };
            if is_older(timestamps.val, clock.recent) {
                return self.challenge(now, reply_interval);
            }
        }
        if !is_acceptable(segment.seq, segment.len(), rcv_nxt, self.terms.rcv_wnd.into()) {
            return self.challenge(now, reply_interval);
        }
        if !flags.has(Flags::ACK) {
            return HalfOpenVerdict::Dropped(DropReason::TcpNoAck);
        }
        // Nothing was sent behind the SYN.
        if segment.ack != self.iss + 1 {
            return HalfOpenVerdict::Refuse(self.refusal(segment));
        }
        self.update_recent(segment);
        HalfOpenVerdict::Established(self.negotiated(now, segment))
    }

    fn on_reset(&mut self, now: Instant, reply_interval: Duration, segment: &Segment<'_>) -> HalfOpenVerdict {
        let rcv_nxt = self.irs + 1;
        //= rfc9293#3.10.7.4
        //# If the RST bit is set and the sequence number exactly matches the next expected sequence
        //# number (RCV.NXT), then TCP endpoints MUST reset the connection in the manner prescribed
        //# below according to the connection state.
        if segment.seq == rcv_nxt {
            return HalfOpenVerdict::Closed;
        }
        if segment.seq.is_within(rcv_nxt, self.terms.rcv_wnd.into()) {
            return self.challenge(now, reply_interval);
        }
        HalfOpenVerdict::Dropped(DropReason::TcpOutOfWindow)
    }

    fn on_repeated_syn(
        &mut self,
        now: Instant,
        reply_interval: Duration,
        segment: &Segment<'_>,
    ) -> HalfOpenVerdict {
        self.is_repeated = true;
        //= rfc3168#6.1.1
        //# If a host has received at least one non-ECN-setup SYN or non-ECN-setup SYN-ACK packet, then
        //# it SHOULD NOT set ECT on data packets.
        self.terms.ecn &= is_ecn_setup(segment);
        self.update_recent(segment);
        if !self.may_reply(now, reply_interval) {
            return HalfOpenVerdict::Dropped(DropReason::TcpThrottled);
        }
        HalfOpenVerdict::Reply(self.syn_ack(now))
    }

    fn challenge(&mut self, now: Instant, reply_interval: Duration) -> HalfOpenVerdict {
        if !self.may_reply(now, reply_interval) {
            return HalfOpenVerdict::Dropped(DropReason::TcpThrottled);
        }
        HalfOpenVerdict::Reply(self.terms.ack(&self.flow, self.iss, self.irs, milliseconds(now)))
    }

    /// Whether the last answer is long enough ago; if so, this is the last one.
    fn may_reply(&mut self, now: Instant, reply_interval: Duration) -> bool {
        let now = milliseconds(now);
        let is_late = |at| u64::from(now.wrapping_sub(at)) >= reply_interval.total_millis();
        let may_reply = self.replied_at.is_none_or(is_late);
        if may_reply {
            self.replied_at = Some(now);
        }
        may_reply
    }

    /// `<SEQ=SEG.ACK><CTL=RST>`.
    fn refusal(&self, segment: &Segment<'_>) -> Header {
        Header {
            src_port: self.flow.local().port(),
            dst_port: self.flow.remote().port(),
            seq: segment.ack,
            ack: Seq(0),
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
        }
    }

    fn negotiated(&self, now: Instant, segment: &Segment<'_>) -> Negotiated {
        let is_lossy = self.resends > 0 || self.is_repeated;
        let age = micros_between(self.began_at, now);
        // Which of several SYN-ACKs is answered, only a timestamp tells (RFC 6298 section 3).
        let rtt = match (is_lossy, self.terms.clock, segment.options.timestamps) {
            (false, ..) => Some(age),
            (true, Some(clock), Some(timestamps)) => {
                let sent = timestamps.ecr.wrapping_sub(clock.offset);
                // Less than the clock can tell is not nothing.
                let rtt = Duration::from_millis(milliseconds(now).wrapping_sub(sent).max(1).into());
                (rtt <= age.max(Duration::from_millis(1))).then_some(rtt)
            }
            _ => None,
        };
        Negotiated { rtt, is_lossy, ..self.terms.negotiated(self.iss, self.irs, segment) }
    }

    fn update_recent(&mut self, segment: &Segment<'_>) {
        //= rfc7323#4.3
        //# SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent
        if let (Some(clock), Some(timestamps)) = (&mut self.terms.clock, segment.options.timestamps)
            && !is_older(timestamps.val, clock.recent)
            && segment.seq.is_at_most(self.irs + 1)
        {
            clock.recent = timestamps.val;
        }
    }

    fn syn_ack(&self, now: Instant) -> Header {
        self.terms.syn_ack(&self.flow, self.iss, self.irs, milliseconds(now))
    }

    /// Until the SYN-ACK is sent again: twice as long each time.
    fn interval(&self) -> Duration {
        let micros = u64::from(self.rto_initial) << self.resends.min(31);
        Duration::from_micros(micros.min(self.rto_max.max(self.rto_initial).into()))
    }
}

/// Microseconds, up to 71 minutes, at least one.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.total_micros()).unwrap_or(u32::MAX).max(1)
}

fn micros_between(from: Instant, to: Instant) -> Duration {
    let micros = to.total_micros().saturating_sub(from.total_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// No slot.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests;
