//! A segment that has come: to whom it goes.

use std::net::IpAddr;

use super::{Flow, Target};
use crate::demux::FlowKey;
use crate::ingress::Verdict;
use crate::ingress::input::{Destination, Received};
use crate::observe::DropReason;
use crate::policy::AttemptKind;
use crate::shard::Shard;
use crate::tcp::half_open::{HalfOpenVerdict, Offer, SynVerdict};
use crate::tcp::handshake::Negotiated;
use crate::tcp::options::Options;
use crate::tcp::segment::{Ecn, Flags, Header, Segment};
use crate::tcp::seq::Seq;
use crate::tcp::state::Disposition;
use crate::tcp::time_wait::TimeWaitVerdict;

impl Shard {
    /// Takes a segment whose checksum is right.
    pub(crate) fn handle_segment(&mut self, received: &Received<'_>) -> Verdict {
        if received.destination != Destination::Local {
            return Verdict::Dropped(DropReason::IpNotForUs);
        }
        let mut segment = match Segment::parse(received.transport()) {
            Ok(segment) => segment,
            Err(reason) => return Verdict::Dropped(reason),
        };
        segment.ecn = Ecn::of(received.ip.traffic_class);
        segment.segment_bytes = received.meta.gso.map(|gso| gso.size);
        self.tcp.counters.segments_in += 1;
        let (local, remote) = (received.ip.dst, received.ip.src);
        let Some(flow) = FlowKey::of_parts(local, segment.dst_port, remote, segment.src_port) else {
            return Verdict::Dropped(DropReason::TcpMalformed);
        };
        match self.tcp.flows.get(&flow).map(Flow::target) {
            Some(Target::Connection(index)) => self.segment_for_connection(index, &flow, &segment),
            Some(Target::HalfOpen(index)) => self.segment_for_half_open(index, &flow, &segment),
            Some(Target::TimeWait(index)) => self.segment_for_time_wait(index, &flow, &segment),
            None => self.segment_for_listener(&flow, &segment),
        }
    }

    pub(super) fn segment_for_connection(
        &mut self,
        index: u32,
        flow: &FlowKey,
        segment: &Segment<'_>,
    ) -> Verdict {
        let Some((connection, mut cx)) = self.tcp.with_cx(index, self.now) else {
            return Verdict::Dropped(DropReason::TcpNoSocket);
        };
        let una = connection.tcb.sender.snd_una();
        let disposition = connection.tcb.on_segment(&mut cx, segment);
        if connection.tcb.sender.snd_una() != una && cx.now >= connection.confirmed_at + CONFIRM_INTERVAL {
            // RFC 4861 section 7.3.1: the peer has got what we sent, so our next hop is there.
            connection.confirmed_at = cx.now;
            let remote = connection.tcb.remote().ip();
            self.confirm_neighbor(remote);
        }
        let verdict = match disposition {
            Disposition::Taken => Verdict::Delivered,
            Disposition::Dropped(reason) => Verdict::Dropped(reason),
            Disposition::Answered(reason) => {
                self.challenge(index, false);
                Verdict::Dropped(reason)
            }
            Disposition::Challenged(reason) => {
                self.challenge(index, true);
                Verdict::Dropped(reason)
            }
            Disposition::Refused(reason, header) => {
                self.refuse(flow, &header);
                Verdict::Dropped(reason)
            }
            Disposition::Ended(ending) => {
                self.end_connection(index, ending);
                return Verdict::Delivered;
            }
            Disposition::Reset(failure, header) => {
                self.send_reset(index, &header);
                self.fail_connection(index, failure);
                return Verdict::Delivered;
            }
        };
        self.tell_now(index);
        self.touch_connection(index);
        verdict
    }

    /// ACKs wait for the end of the turn, unless one is full of what it has to tell.
    #[inline]
    fn tell_now(&mut self, index: u32) {
        let now = self.now;
        let Some((connection, mut cx)) = self.tcp.with_cx(index, now) else { return };
        let tcb = &mut connection.tcb;
        if !tcb.has_to_tell_now() {
            return;
        }
        let plan = tcb.plan_bare_ack(now, cx.pool);
        tcb.on_sent(&mut cx, &plan);
        let flow = tcb.flow;
        self.send_header(&flow, &plan.header);
    }

    /// The hop that leads to somebody, if it is one hop only: what lies behind a gateway confirms the gateway.
    fn confirm_neighbor(&mut self, remote: IpAddr) {
        if let Some(neighbor) = self.next_hop(remote) {
            self.neighbors.confirm(self.now, neighbor);
        }
    }

    /// An ACK for a segment that is not acceptable, unless the peer had one just now. What may be an attack has a bound
    /// for all connections together; an answer to a probe has none, or a flood on one would silence the others.
    fn challenge(&mut self, index: u32, is_attack: bool) {
        let now = self.now;
        let (interval, throttles) = (self.tcp.config.challenge_interval, &mut self.tcp.throttles);
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return };
        let tcb = &mut connection.tcb;
        let is_soon = tcb.challenged_at.is_some_and(|at| now < at + interval);
        if is_soon || (is_attack && !throttles.allow_challenge(now)) {
            self.tcp.counters.throttled += 1;
            return;
        }
        tcb.challenged_at = Some(now);
        tcb.ack.force();
        self.tcp.counters.challenge_acks += u64::from(is_attack);
    }

    /// A reset from a connection.
    pub(super) fn send_reset(&mut self, index: u32, header: &Header) {
        let Some(connection) = self.tcp.connections.get(index as usize) else { return };
        let flow = connection.tcb.flow;
        self.tcp.counters.resets_sent += 1;
        self.send_header(&flow, header);
    }

    fn segment_for_half_open(&mut self, index: u32, flow: &FlowKey, segment: &Segment<'_>) -> Verdict {
        match self.tcp.half_opens.on_segment(self.now, index, segment) {
            HalfOpenVerdict::Established(agreed) => self.half_open_done(index, flow, segment, &agreed),
            HalfOpenVerdict::Reply(header) => {
                self.send_header(flow, &header);
                Verdict::Replied
            }
            HalfOpenVerdict::Refuse(header) => {
                self.refuse(flow, &header);
                Verdict::Dropped(DropReason::TcpBadAck)
            }
            HalfOpenVerdict::Closed => {
                self.forget_half_open(index);
                Verdict::Delivered
            }
            HalfOpenVerdict::Dropped(reason) => Verdict::Dropped(reason),
        }
    }

    fn half_open_done(
        &mut self,
        index: u32,
        flow: &FlowKey,
        segment: &Segment<'_>,
        agreed: &Negotiated,
    ) -> Verdict {
        let listener = self.tcp.half_opens.get(index).map(|(_, listener)| listener);
        let Some(listening) = listener.and_then(|listener| self.tcp.listeners.get(&listener)) else {
            // Nobody listens any more.
            self.forget_half_open(index);
            return self.refuse_segment(flow, segment);
        };
        let is_full = listening.listener.is_full() || !self.has_connection_room();
        if is_full {
            self.tcp.counters.listen_overflows += 1;
            if listening.listener.resets_on_overflow {
                self.forget_half_open(index);
                return self.refuse_segment(flow, segment);
            }
            return Verdict::Dropped(DropReason::TcpListenOverflow);
        }
        let is_policed = self.take_half_open(index);
        self.accept_connection(listener.unwrap_or_default(), flow, agreed, segment, is_policed)
    }

    fn segment_for_time_wait(&mut self, index: u32, flow: &FlowKey, segment: &Segment<'_>) -> Verdict {
        match self.tcp.time_waits.on_segment(self.now, index, segment) {
            TimeWaitVerdict::Reply { header, .. } => {
                // A FIN again: our ACK was lost. That is no attack.
                let is_due = segment.flags.has(Flags::FIN) && !segment.flags.has(Flags::SYN);
                if !is_due && !self.tcp.throttles.allow_challenge(self.now) {
                    self.tcp.counters.throttled += 1;
                    return Verdict::Dropped(DropReason::TcpOutOfWindow);
                }
                self.send_header(flow, &header);
                Verdict::Replied
            }
            TimeWaitVerdict::Reopen { iss_min } => {
                // Only if somebody listens and the peer may connect; if not, the record stays, and the SYN gets a
                // reset.
                let Some(listener) = self.listener_for(flow) else {
                    return self.refuse_segment(flow, segment);
                };
                let is_policed = match self.admit_peer(flow, segment) {
                    Ok(is_policed) => is_policed,
                    Err(verdict) => return verdict,
                };
                self.tcp.time_waits.remove(index);
                self.tcp.flows.remove(flow);
                self.tcp.counters.time_waits_reused += 1;
                self.handle_syn(listener, flow, segment, Some(iss_min), is_policed)
            }
            TimeWaitVerdict::Dropped(reason) => Verdict::Dropped(reason),
        }
    }

    fn listener_for(&self, flow: &FlowKey) -> Option<u32> {
        let local = flow.local();
        self.tcp.listen.lookup(local.ip(), local.port())
    }

    /// LISTEN (RFC 9293 section 3.10.7.2), or CLOSED (3.10.7.1).
    fn segment_for_listener(&mut self, flow: &FlowKey, segment: &Segment<'_>) -> Verdict {
        let flags = segment.flags;
        let Some(listener) = self.listener_for(flow) else {
            return self.refuse_segment(flow, segment);
        };
        if flags.has(Flags::RST) {
            return Verdict::Dropped(DropReason::TcpNoSocket);
        }
        if flags.has(Flags::SYN) && !flags.has(Flags::ACK) {
            return match self.admit_peer(flow, segment) {
                Ok(is_policed) => self.handle_syn(listener, flow, segment, None, is_policed),
                Err(verdict) => verdict,
            };
        }
        if flags.has(Flags::ACK) && !flags.has(Flags::SYN) {
            return self.handle_cookie(listener, flow, segment);
        }
        if flags.has(Flags::ACK) {
            return self.refuse_segment(flow, segment);
        }
        Verdict::Dropped(DropReason::TcpUnexpected)
    }

    /// A SYN that may come in. If a policy has said so, it is told when what comes of it ends.
    fn handle_syn(
        &mut self,
        listener: u32,
        flow: &FlowKey,
        segment: &Segment<'_>,
        iss_min: Option<Seq>,
        is_policed: bool,
    ) -> Verdict {
        let verdict = self.record_syn(listener, flow, segment, iss_min);
        let recorded = match self.tcp.flows.get(flow).map(Flow::target) {
            Some(Target::HalfOpen(index)) => self.tcp.half_opens.policed(index),
            _ => None,
        };
        match recorded {
            Some(recorded) => *recorded = is_policed,
            // It was answered with a cookie, or not at all.
            None => self.tell_flow_ended(is_policed.then_some(AttemptKind::Accept), flow),
        }
        verdict
    }

    fn record_syn(
        &mut self,
        listener: u32,
        flow: &FlowKey,
        segment: &Segment<'_>,
        iss_min: Option<Seq>,
    ) -> Verdict {
        let (now, local_mss) = (self.now, self.mss_for(flow));
        let Some(listening) = self.tcp.listeners.get(&listener) else {
            return Verdict::Dropped(DropReason::TcpNoSocket);
        };
        let offer = Offer {
            listener,
            options: &listening.options,
            local_mss,
            is_full: listening.listener.is_full(),
            is_half_open_full: listening.listener.is_half_open_full(),
        };
        if offer.is_full {
            self.tcp.counters.listen_overflows += 1;
        }
        let (half_opens, isn) = (&mut self.tcp.half_opens, &self.tcp.isn);
        let verdict = match iss_min {
            Some(iss_min) => half_opens.on_reopening_syn(now, flow, &offer, isn, segment, iss_min),
            None => half_opens.on_syn(now, flow, &offer, isn, segment),
        };
        match verdict {
            SynVerdict::Recorded { index, reply, resend_at } => {
                let target = Flow::new(Target::HalfOpen(index));
                if self.tcp.flows.insert(*flow, target).is_err() {
                    self.tcp.half_opens.remove(index);
                    return Verdict::Dropped(DropReason::TcpSynQueueFull);
                }
                if let Some(listening) = self.tcp.listeners.get_mut(&listener) {
                    listening.listener.half_open += 1;
                }
                self.tcp.arm_half_open(index, resend_at);
                self.send_header(flow, &reply);
                Verdict::Replied
            }
            SynVerdict::Cookie(header) => {
                self.tcp.counters.cookies_sent += 1;
                self.send_header(flow, &header);
                Verdict::Replied
            }
            SynVerdict::Dropped(reason) => Verdict::Dropped(reason),
        }
    }

    /// An ACK of a flow that nobody knows: of a connection that was answered with a cookie, or of none.
    fn handle_cookie(&mut self, listener: u32, flow: &FlowKey, segment: &Segment<'_>) -> Verdict {
        let (now, local_mss) = (self.now, self.mss_for(flow));
        let has_room = self.has_connection_room();
        let Some(listening) = self.tcp.listeners.get(&listener) else {
            return Verdict::Dropped(DropReason::TcpNoSocket);
        };
        let is_full = listening.listener.is_full() || !has_room;
        let offer = Offer {
            listener,
            options: &listening.options,
            local_mss,
            is_full,
            is_half_open_full: listening.listener.is_half_open_full(),
        };
        let agreed = self.tcp.half_opens.on_cookie(now, flow, &offer, &self.tcp.isn, segment);
        let Some(agreed) = agreed else {
            self.tcp.counters.cookies_failed += 1;
            return self.refuse_segment(flow, segment);
        };
        if is_full {
            self.tcp.counters.listen_overflows += 1;
            return Verdict::Dropped(DropReason::TcpListenOverflow);
        }
        // Of its SYN nothing was kept, not even that it was allowed.
        let is_policed = match self.admit_peer(flow, segment) {
            Ok(is_policed) => is_policed,
            Err(verdict) => return verdict,
        };
        self.tcp.counters.cookies_accepted += 1;
        self.accept_connection(listener, flow, &agreed, segment, is_policed)
    }

    /// A segment that nobody wants.
    //= rfc9293#3.10.7.1
    //# An incoming segment containing a RST is discarded.  An incoming segment not containing a RST causes a
    //# RST to be sent in response.
    pub(in crate::shard) fn refuse_segment(&mut self, flow: &FlowKey, segment: &Segment<'_>) -> Verdict {
        if segment.flags.has(Flags::RST) {
            return Verdict::Dropped(DropReason::TcpNoSocket);
        }
        let (local, remote) = (flow.local(), flow.remote());
        let has_ack = segment.flags.has(Flags::ACK);
        let header = Header {
            src_port: local.port(),
            dst_port: remote.port(),
            seq: if has_ack { segment.ack } else { Seq(0) },
            ack: if has_ack { Seq(0) } else { segment.end() },
            flags: if has_ack { Flags::RST } else { Flags::RST | Flags::ACK },
            window: 0,
            options: Options::default(),
        };
        self.refuse(flow, &header);
        Verdict::Dropped(DropReason::TcpNoSocket)
    }

    fn refuse(&mut self, flow: &FlowKey, header: &Header) {
        if !self.config.sends_unreachable || self.is_mailed {
            return;
        }
        if !self.tcp.throttles.allow_reset(self.now) {
            self.tcp.counters.throttled += 1;
            return;
        }
        self.tcp.counters.resets_sent += 1;
        self.send_header(flow, header);
    }
}

/// A neighbour that was confirmed is believed for much longer.
const CONFIRM_INTERVAL: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);
