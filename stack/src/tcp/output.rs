//! What a connection sends next: a [`Plan`], which becomes a frame, and then a fact.
//!
//! [`Tcb::plan`] changes nothing, so that a plan for which the device has no room is simply made again later;
//! [`Tcb::on_sent`] says that it has left. The order: what is lost, probes, new data, and an ACK if none of these
//! has carried it.

use std::num::NonZeroU16;

use smoltcp::time::Instant;

use super::buffer::Pool;
use super::config::Nagle;
use super::options::{Options, Timestamps};
use super::segment::{Flags, Header};
use super::sender::{LimitedBy, Sent};
use super::seq::Seq;
use super::state::State;
use super::tcb::{Cx, Opening, Probe, Tcb};
use super::timers::Timer;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A SYN, with or without ACK.
    Syn,
    /// New data, or a FIN.
    New,
    /// What was lost.
    Again,
    /// A probe of the tail that repeats data.
    TailProbe,
    /// A probe of a larger path MTU.
    MtuProbe,
    /// A probe that carries nothing new: of a window, or of a silent peer.
    Probe,
    /// An ACK.
    Ack,
}

/// A segment, or several in one frame, that can be sent now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) header: Header,
    pub(crate) kind: Kind,
    /// Where the payload is in the send buffer.
    pub(crate) offset: usize,
    /// Bytes of it.
    pub(crate) len: usize,
    /// If it is several segments: bytes of each but the last.
    pub(crate) segment_bytes: Option<NonZeroU16>,
    /// Routers may mark it (ECT(0)).
    pub(crate) is_ect: bool,
    /// The right edge of the window that it offers.
    edge: Seq,
}

/// What limits a plan from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) now: Instant,
    /// Bytes of IP and TCP headers and payload that the device takes in one frame, to be split later; 0: it does not
    /// split.
    pub(crate) gso_bytes_max: u32,
    /// MTU of the link, for the MSS option.
    pub(crate) link_mtu: u16,
}

impl Tcb {
    /// What can be sent now. `None`: nothing, until something happens or a timer is due.
    pub(crate) fn plan(&self, limits: &Limits, pool: &Pool) -> Option<Plan> {
        if let Some(opening) = &self.opening {
            if opening.is_due {
                return Some(self.plan_syn(opening, limits));
            }
            // A challenge ACK: the peer's SYN has come, so there is something to acknowledge.
            let is_ack_due = self.ack.is_due && self.state == State::SynReceived;
            return is_ack_due.then(|| self.plan_bare_ack(limits.now, pool));
        }
        if self.state == State::Closed {
            return None;
        }
        if let Some((seq, len)) = self.sender.next_lost() {
            let is_paced = self.sender.next_send_at(limits.now).is_some();
            let allowance = self.sender.allowance();
            // Less than a segment adds up until it is one.
            if allowance >= len.min(self.mss()) && !is_paced {
                return Some(self.plan_data(Kind::Again, seq, len.min(allowance), limits, pool));
            }
        }
        if let Some(probe) = self.probe {
            return Some(self.plan_probe(probe, limits, pool));
        }
        if let Some(plan) = self.plan_new(limits, pool) {
            return Some(plan);
        }
        self.ack.is_due.then(|| self.plan_bare_ack(limits.now, pool))
    }

    /// Whether it is worth asking for a plan.
    pub(crate) fn may_send(&self) -> bool {
        match &self.opening {
            Some(opening) => opening.is_due || self.ack.is_due && self.state == State::SynReceived,
            None if self.state == State::Closed => false,
            None => {
                let has_data = self.unsent() > 0 || self.owes_fin() || self.sender.has_lost();
                self.ack.is_due || self.probe.is_some() || has_data
            }
        }
    }

    /// When pacing lets more go, if that is what holds it back.
    pub(crate) fn paced_until(&self, now: Instant) -> Option<Instant> {
        let has_more = self.unsent() > 0 || self.sender.has_lost();
        (self.state.is_synchronized() && has_more).then(|| self.sender.next_send_at(now)).flatten()
    }

    fn plan_syn(&self, opening: &Opening, limits: &Limits) -> Plan {
        let offered = opening.offered.as_ref();
        let is_answer = self.state != State::SynSent;
        let flags = Flags::SYN.with_if(Flags::ACK, is_answer);
        // RFC 3168 section 6.1.1: both bits ask, one agrees.
        let flags = match (is_answer, offered) {
            (false, _) => flags.with_if(Flags::ECE | Flags::CWR, opening.asks_ecn),
            (true, offered) => flags.with_if(Flags::ECE, offered.is_some_and(|offered| offered.ecn)),
        };
        let both = |ours: bool, theirs: fn(&super::handshake::Negotiated) -> bool| {
            ours && offered.is_none_or(theirs)
        };
        let options = Options {
            mss: Some(self.local_mss(limits.link_mtu)),
            window_scale: self
                .offered_scale()
                .filter(|_| both(true, |offered| offered.window_scale.is_some())),
            sack_permitted: both(self.options.sack, |offered| offered.sack),
            timestamps: self
                .ts_val(limits.now)
                .filter(|_| both(self.options.timestamps, |offered| offered.timestamps.is_some()))
                .map(|val| Timestamps { val, ecr: if is_answer { self.ts_recent() } else { 0 } }),
            ..Options::default()
        };
        //= rfc7323#2.2
        //# The window field in a segment where the SYN bit is set (i.e., a <SYN>
        //# or <SYN,ACK>) MUST NOT be scaled.
        let window = self.options.recv_buffer.min(u16::MAX.into());
        let header = Header {
            src_port: self.local().port(),
            dst_port: self.remote().port(),
            seq: self.iss,
            ack: if is_answer { self.rcv_nxt } else { Seq(0) },
            flags,
            window: window as u16,
            options,
        };
        let edge = self.rcv_nxt + window;
        Plan { header, kind: Kind::Syn, offset: 0, len: 0, segment_bytes: None, is_ect: false, edge }
    }

    fn ts_recent(&self) -> u32 {
        self.clock.map_or(0, |clock| clock.recent)
    }

    fn options_now(&self, now: Instant) -> Options {
        let timestamps = self.ts_val(now).map(|val| Timestamps { val, ecr: self.ts_recent() });
        let mut options = Options { timestamps, ..Options::default() };
        if self.has_sack && (self.dsack.is_some() || self.recv.early() > 0) {
            if let Some((start, end)) = self.dsack {
                //= rfc2883#4
                //# When D-SACK is used, the first block of the SACK option should be a D-SACK block specifying the
                //# sequence numbers for the duplicate segment that triggers the acknowledgement.
                options.sack.push(start, end);
            }
            for &(start, end) in self.recv.sack_blocks().as_slice() {
                options.sack.push(start, end);
            }
            options.sack.truncate(self.sack_room());
        }
        options
    }

    /// Blocks that an option has room for (RFC 2018 section 3).
    fn sack_room(&self) -> usize {
        if self.clock.is_some() { 3 } else { 4 }
    }

    /// Whether the next ACK is full of what it has to tell. Then it does not wait for the end of the turn: what comes
    /// until then would take the place of ranges that the peer has not been told of, and would take for lost.
    pub(crate) fn has_to_tell_now(&self) -> bool {
        self.has_sack
            && self.ack.is_due
            && self.state != State::Closed
            && (self.dsack.is_some() || self.recv.untold() >= self.sack_room())
    }

    /// An ACK without data.
    pub(crate) fn plan_bare_ack(&self, now: Instant, pool: &Pool) -> Plan {
        self.plan_ack(Kind::Ack, self.sender.snd_nxt(), now, pool)
    }

    /// A segment without payload.
    fn plan_ack(&self, kind: Kind, seq: Seq, now: Instant, pool: &Pool) -> Plan {
        let (edge, window) = self.window(pool);
        let header = Header {
            src_port: self.local().port(),
            dst_port: self.remote().port(),
            seq,
            ack: self.rcv_nxt,
            flags: Flags::ACK.with_if(Flags::ECE, self.echoes_ce),
            window,
            options: self.options_now(now),
        };
        Plan { header, kind, offset: 0, len: 0, segment_bytes: None, is_ect: false, edge }
    }

    /// Data from `seq` on, `len` numbers of which a FIN may be the last.
    fn plan_data(&self, kind: Kind, seq: Seq, len: u32, limits: &Limits, pool: &Pool) -> Plan {
        let mut plan = self.plan_ack(kind, seq, limits.now, pool);
        let data_end = self.data_end();
        let room = self.payload_room(&plan.header);
        let data = if data_end.is_after(seq) { data_end.since(seq).min(len) } else { 0 };
        let data = data.min(self.frame_payload_max(room, limits));
        // Options of today may take more than those for which the range was cut: no crumbs but at the end.
        let data = if data > room && seq + data != data_end { data / room * room } else { data };
        let end = seq + data;
        let is_end = end == data_end;
        let has_fin = match kind {
            Kind::New => is_end && self.owes_fin(),
            _ => self.fin_sent == Some(end) && len > data,
        };
        plan.offset = seq.since(self.sender.snd_una()) as usize;
        plan.len = data as usize;
        plan.segment_bytes = (data > room).then(|| NonZeroU16::new(room as u16)).flatten();
        plan.header.flags =
            plan.header.flags.with_if(Flags::PSH, is_end && data > 0).with_if(Flags::FIN, has_fin);
        // RFC 3168 section 6.1.5: what is repeated is not marked as capable.
        plan.is_ect = self.sends_ect && kind == Kind::New && data > 0;
        plan.header.flags = plan.header.flags.with_if(Flags::CWR, self.owes_cwr && plan.is_ect);
        plan
    }

    /// Bytes of payload of one segment with these options.
    fn payload_room(&self, header: &Header) -> u32 {
        let options = (header.len() - super::segment::HEADER_LEN) as u32;
        self.segment_room().saturating_sub(options).max(1)
    }

    /// Bytes of payload of one frame: whole segments, as many as the device splits and pacing wants.
    fn frame_payload_max(&self, room: u32, limits: &Limits) -> u32 {
        let headers = self.ip_header_len() as u32 + super::segment::HEADER_LEN_MAX as u32;
        let max =
            limits.gso_bytes_max.min(u16::MAX.into()).saturating_sub(headers).min(self.sender.quantum());
        (max / room * room).max(room)
    }

    fn plan_probe(&self, probe: Probe, limits: &Limits, pool: &Pool) -> Plan {
        match probe {
            //= rfc8985#7.3
            //# If an unsent segment exists AND
            //# the receive window allows new data to be sent:
            Probe::Tail(seq, len) => {
                let new = self.unsent().min(self.usable_window()).min(self.mss());
                if new > 0 {
                    return self.plan_data(Kind::New, self.sender.snd_nxt(), new, limits, pool);
                }
                let last = len.min(self.mss());
                self.plan_data(Kind::TailProbe, seq + (len - last), last, limits, pool)
            }
            // What the window takes is sent (RFC 9293 section 3.8.6.2.1, the override); nothing is asked then.
            Probe::Window if self.usable_window() > 0 && self.unsent() > 0 => {
                let len = self.unsent().min(self.usable_window()).min(self.mss());
                self.plan_data(Kind::New, self.sender.snd_nxt(), len, limits, pool)
            }
            //= rfc9293#3.8.6.1
            //= type=exception
            //= reason=An old number without data is answered in the same way, and nothing is in flight that a window of 0 forbids; Linux does the same.
            //# The sending TCP peer must regularly transmit at least one octet of new data (if available), or
            //# retransmit to the receiving TCP peer even if the send window is zero, in order to "probe" the window.
            Probe::Window | Probe::Alive => {
                self.plan_ack(Kind::Probe, self.sender.snd_nxt() - 1, limits.now, pool)
            }
        }
    }

    /// New data, as windows, pacing and the rules against small segments allow.
    fn plan_new(&self, limits: &Limits, pool: &Pool) -> Option<Plan> {
        let (unsent, usable) = (self.unsent(), self.usable_window());
        let nxt = self.sender.snd_nxt();
        if unsent == 0 {
            let is_due = self.owes_fin() && (usable > 0 || self.snd_wnd > 0);
            return is_due.then(|| self.plan_data(Kind::New, nxt, 1, limits, pool));
        }
        let len = unsent.min(usable).min(self.sender.allowance());
        if len == 0 || self.sender.next_send_at(limits.now).is_some() {
            return None;
        }
        if let Some(plan) = self.plan_mtu_probe(len, limits, pool) {
            return Some(plan);
        }
        let mss = self.mss();
        let len = match len {
            // Everything that there is: the last, smaller segment goes as well if it may.
            _ if len == unsent && self.may_send_small(len % mss) => len,
            _ if len >= mss => len - len % mss,
            _ if self.may_fill_window(len, usable) => len,
            _ => return None,
        };
        Some(self.plan_data(Kind::New, nxt, len, limits, pool))
    }

    /// A segment that is longer than what is known to get through (RFC 4821 section 7.2): while there is enough data
    /// behind it that its loss is found out at once.
    fn plan_mtu_probe(&self, len: u32, limits: &Limits, pool: &Pool) -> Option<Plan> {
        if !self.options.mtu_probing || self.sender.has_lost() {
            return None;
        }
        let size = self.plpmtud.probe(limits.now)?;
        let payload = self.segment_room_of(size).saturating_sub(self.fixed_options_len());
        let mss = self.mss();
        if payload <= mss
            || len < payload + PROBE_COMPANY * mss
            || self.recv.early() > 0
            || self.dsack.is_some()
        {
            return None;
        }
        let mut plan = self.plan_data(Kind::MtuProbe, self.sender.snd_nxt(), mss, limits, pool);
        plan.len = payload as usize;
        plan.segment_bytes = None;
        plan.header.flags = plan.header.flags.without(Flags::PSH | Flags::FIN);
        Some(plan)
    }

    /// Whether a segment that is less than full, and the last of what there is, may go now.
    //= rfc9293#3.7.4
    //# If there is unacknowledged data (i.e., SND.NXT > SND.UNA), then the sending TCP endpoint buffers all user
    //# data (regardless of the PSH bit) until the outstanding data has been acknowledged or until the TCP endpoint
    //# can send a full-sized segment (Eff.snd.MSS bytes).
    fn may_send_small(&self, tail: u32) -> bool {
        if tail == 0 || self.owes_fin() {
            return true;
        }
        match self.options.nagle {
            Nagle::Off => true,
            Nagle::Nagle => self.sender.snd_una() == self.sender.snd_nxt(),
            Nagle::Minshall => self.snd_sml.is_at_most(self.sender.snd_una()),
        }
    }

    /// Whether a window that is less than a segment is worth being filled (RFC 9293 section 3.8.6.2.1 (3)).
    fn may_fill_window(&self, len: u32, usable: u32) -> bool {
        len == usable && len >= self.max_snd_wnd / 2
    }

    /// A plan has left.
    pub(crate) fn on_sent(&mut self, cx: &mut Cx<'_>, plan: &Plan) {
        let now = cx.now;
        self.is_refused = false;
        if plan.edge.is_after(self.rcv_adv) {
            self.rcv_adv = plan.edge;
        }
        let segments = plan.segment_bytes.map_or(1, |size| (plan.len as u32).div_ceil(size.get().into()));
        self.counters.segments_out = self.counters.segments_out.wrapping_add(segments);
        self.counters.bytes_sent += plan.len as u64;
        if plan.kind == Kind::Syn {
            self.on_syn_sent(now);
            return;
        }
        self.last_ack_sent = self.rcv_nxt;
        self.dsack = None;
        self.recv.mark_told();
        self.ack.on_sent(plan.len > 0);
        let has_fin = plan.header.flags.has(Flags::FIN);
        let end = plan.header.seq + plan.len as u32;
        if self.probe.is_some() && plan.kind != Kind::Ack && plan.kind != Kind::Again {
            self.probe = None;
        }
        let sent = Sent {
            seq: plan.header.seq,
            len: plan.len as u32 + u32::from(has_fin),
            ts_val: plan.header.options.timestamps.map(|timestamps| timestamps.val),
            is_app_limited: end == self.data_end(),
        };
        match plan.kind {
            Kind::New | Kind::MtuProbe => {
                if self.sender.snd_una() == self.sender.snd_nxt() {
                    self.progress_at = now;
                }
                self.sender.on_sent(now, &sent);
                if plan.header.flags.has(Flags::CWR) {
                    self.owes_cwr = false;
                }
                if plan.kind == Kind::MtuProbe {
                    self.plpmtud.on_probe_sent(now, plan.header.seq, end);
                }
                if has_fin {
                    self.fin_sent = Some(end);
                }
                let is_small = !(plan.len as u32).is_multiple_of(self.mss());
                if is_small {
                    self.snd_sml = end;
                }
            }
            Kind::Again | Kind::TailProbe => {
                self.plpmtud.on_resent(now, sent.seq, sent.seq + sent.len);
                self.sender.on_resent(now, &sent, plan.kind == Kind::TailProbe);
                self.counters.bytes_retransmitted += plan.len as u64;
                self.counters.retransmits = self.counters.retransmits.wrapping_add(1);
                cx.counters.retransmits += 1;
            }
            Kind::Syn | Kind::Probe | Kind::Ack => {}
        }
        self.update_persist(now);
    }

    fn on_syn_sent(&mut self, now: Instant) {
        let Some(opening) = &mut self.opening else { return };
        opening.is_due = false;
        opening.sent += 1;
        opening.sent_at.get_or_insert(now);
        if self.state == State::SynSent {
            // A path that swallows SYNs with these bits gets none the second time (RFC 3168 section 6.1.1.1).
            opening.asks_ecn = false;
        }
        self.arm_handshake(now);
    }

    /// Nothing more can be planned: why, and when to come again for pacing.
    pub(crate) fn on_nothing_to_send(&mut self, now: Instant) {
        match self.paced_until(now) {
            Some(at) => self.timers.set(Timer::Pace, at),
            None => self.timers.clear(Timer::Pace),
        }
        if !self.state.is_synchronized() {
            return;
        }
        let by = if self.unsent() == 0 && !self.owes_fin() {
            LimitedBy::Application
        } else if self.usable_window() < self.mss().min(self.unsent()) {
            LimitedBy::Receiver
        } else {
            LimitedBy::Congestion
        };
        self.sender.set_limited_by(now, by);
        self.update_persist(now);
    }
}

/// Full segments that follow a probe of the path MTU at once.
const PROBE_COMPANY: u32 = 4;
