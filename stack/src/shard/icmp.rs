//! ICMP: echo, errors both ways, and sockets that ping.

use std::net::{IpAddr, SocketAddr};

use super::Shard;
use super::raw::without_port;
use super::sockets::{AnySocket, SocketId};
use crate::egress::PacketSpec;
use crate::egress::output::Transport;
use crate::icmp::socket::EchoError;
use crate::icmp::{self, Answer, Echo, EchoMeta, ErrorKind, ErrorMessage, ErrorToSend, Message, error_for};
use crate::ingress::input::{Destination, Received, TCP, UDP, Way};
use crate::ingress::{Body, Verdict, classify};
use crate::ip::header;
use crate::observe::{DropReason, Event};
use crate::udp::queue::QueueLimits;
use crate::udp::{BindError, SendError, SocketError};
use wirestack_nic::meta::ChecksumState;
use wirestack_nic::offload::checksum;

/// Where a socket is to ping from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingBind {
    /// Source address; unspecified: chosen for each request. It says which version is spoken.
    pub local: IpAddr,
    /// Identifier of the requests; 0: chosen.
    pub identifier: u16,
    /// Replies that wait at most.
    pub limits: QueueLimits,
}

impl PingBind {
    /// A socket for this version or address, all else left to the stack.
    pub fn new(local: IpAddr) -> Self {
        Self { local, identifier: 0, limits: QueueLimits::default() }
    }
}

/// What is said of one echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingOptions {
    /// To whom.
    pub to: IpAddr,
    /// Which of them.
    pub sequence: u16,
    /// TTL or hop limit.
    pub hop_limit: Option<u8>,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Fails instead of being fragmented.
    pub dont_fragment: bool,
}

impl PingOptions {
    /// A request to `to`, all else left to the stack.
    pub fn new(to: IpAddr, sequence: u16) -> Self {
        Self { to, sequence, hop_limit: None, traffic_class: 0, dont_fragment: false }
    }
}

impl Shard {
    /// Takes an ICMP or ICMPv6 message.
    pub(crate) fn handle_icmp(&mut self, received: &Received<'_>) -> Verdict {
        let (src, dst) = (received.ip.src, received.ip.dst);
        match icmp::parse(src, dst, received.transport()) {
            Ok(Message::EchoRequest(_)) => self.answer_echo(received),
            Ok(Message::EchoReply(echo)) => self.deliver_echo(received, &echo),
            Ok(Message::Error(error)) => self.handle_error(received, &error),
            Ok(Message::Redirect) => self.handle_redirect_v4(received).into(),
            Ok(Message::Ndp(kind)) => self.handle_ndp(received, kind),
            Ok(Message::Mld(_)) => self.handle_mld(received),
            Ok(Message::Ignored(_)) => Verdict::Dropped(DropReason::IcmpIgnored),
            Ok(Message::Unknown(_)) => Verdict::Dropped(DropReason::IcmpIgnored),
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    fn answer_echo(&mut self, received: &Received<'_>) -> Verdict {
        if !self.config.answers_echo {
            return Verdict::Dropped(DropReason::IcmpEchoIgnored);
        }
        let was_broadcast = received.is_link_group() || received.destination == Destination::Broadcast;
        let reply = match icmp::echo::reply(received.frame, received.ip, was_broadcast, false) {
            Ok(reply) => reply,
            Err(reason) => return Verdict::Dropped(reason),
        };
        if !self.limiter.allow(Answer::Echo, reply.spec.dst, self.now) {
            return Verdict::Dropped(DropReason::IcmpRateLimited);
        }
        let sent = self.path(&reply.spec).and_then(|path| {
            let transport = Transport::plain(reply.message_bytes());
            self.emit(&path, &reply.spec, transport, |room| reply.write(path.src, room))
        });
        match sent {
            Ok(()) => Verdict::Replied,
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    fn deliver_echo(&mut self, received: &Received<'_>, echo: &Echo<'_>) -> Verdict {
        let ip = received.ip;
        let Some(&id) = self.pings.get(&(ip.src.is_ipv4(), echo.identifier)) else {
            return Verdict::Dropped(DropReason::IcmpIgnored);
        };
        let Some(socket) = self.sockets.icmp_mut(id) else {
            return Verdict::Dropped(DropReason::IcmpIgnored);
        };
        let meta = EchoMeta {
            src: ip.src,
            dst: ip.dst,
            sequence: echo.sequence,
            hop_limit: ip.hop_limit,
            traffic_class: ip.traffic_class,
            timestamp: received.meta.timestamp,
            received: self.now,
        };
        if !socket.accepts(ip.dst, echo.identifier) {
            return Verdict::Dropped(DropReason::IcmpIgnored);
        }
        let result = socket.push(&meta, echo);
        if let Err(reason) = result {
            self.hook.tell(self.now, &Event::SocketQueueFull { socket: id, reason });
        }
        // Also if there was no room: whoever has left something there hears of it again.
        self.sockets.mark_ready(id);
        result.into()
    }

    /// An error about a packet that somebody here is to have sent. Who can see none of our packets should not
    /// be believed: addresses, ports and identifiers must be those of a socket (RFC 5927 section 4).
    fn handle_error(&mut self, received: &Received<'_>, error: &ErrorMessage) -> Verdict {
        let quoted = &error.quoted;
        // What goes from 127.0.0.1 meets no router.
        let is_within = received.way == Way::Looped && quoted.src.is_loopback();
        if received.destination != Destination::Local || !(self.is_local(quoted.src) || is_within) {
            return Verdict::Dropped(DropReason::IcmpSpoofed);
        }
        //= rfc8201#4
        //# If a node receives a Packet Too Big message reporting a next-hop MTU that is less than the IPv6
        //# minimum link MTU, it must discard it.
        if matches!(error.kind, ErrorKind::TooBig { mtu } if quoted.dst.is_ipv6() && mtu < IPV6_MTU_MIN) {
            return Verdict::Dropped(DropReason::IcmpIgnored);
        }
        let from = received.ip.src;
        let is_known = match (quoted.protocol, quoted.ports, quoted.echo) {
            (UDP, Some((src_port, dst_port)), _) => {
                let dst = SocketAddr::new(quoted.dst, dst_port);
                let error = SocketError { kind: error.kind, from, dst };
                self.handle_udp_error(SocketAddr::new(quoted.src, src_port), error)
            }
            (_, _, Some((identifier, sequence))) => {
                self.handle_ping_error(error, from, (identifier, sequence))
            }
            (TCP, Some((src_port, dst_port)), _) if self.tcp_queue.is_none() => {
                let dst = SocketAddr::new(quoted.dst, dst_port);
                let src = SocketAddr::new(quoted.src, src_port);
                self.handle_segment_error(src, dst, quoted.tcp_seq, error.kind)
            }
            // Whoever serves TCP beside this engine cannot be asked.
            (TCP, ..) => return Verdict::Dropped(DropReason::IcmpIgnored),
            (protocol, ..) => {
                let error = SocketError { kind: error.kind, from, dst: without_port(quoted.dst) };
                self.handle_raw_error(protocol, error)
            }
        };
        if !is_known {
            return Verdict::Dropped(DropReason::IcmpSpoofed);
        }
        self.counters.icmp_errors_received += 1;
        if let ErrorKind::TooBig { mtu } = error.kind {
            let (now, link) = (self.now, self.mtu_for(quoted.dst) as u16);
            if let Err(reason) = self.path_mtu.handle_too_big(now, quoted.dst, mtu, link) {
                return Verdict::Dropped(reason);
            }
        }
        Verdict::Delivered
    }

    fn handle_ping_error(
        &mut self,
        error: &ErrorMessage,
        from: IpAddr,
        (identifier, sequence): (u16, u16),
    ) -> bool {
        let dst = error.quoted.dst;
        let Some(&id) = self.pings.get(&(dst.is_ipv4(), identifier)) else { return false };
        let Some(socket) = self.sockets.icmp_mut(id) else { return false };
        if !socket.accepts(error.quoted.src, identifier) {
            return false;
        }
        let error = SocketError { kind: error.kind, from, dst: SocketAddr::new(dst, 0) };
        socket.push_error(EchoError { error, sequence });
        self.sockets.mark_ready(id);
        true
    }

    fn handle_ndp(&mut self, received: &Received<'_>, kind: u8) -> Verdict {
        let (now, message) = (self.now, received.transport());
        //= rfc6980#5
        //# Nodes MUST silently ignore the following Neighbor Discovery and
        //# SEcure Neighbor Discovery messages if the packets carrying them
        //# include an IPv6 Fragmentation Header:
        if received.way != Way::Wire || has_fragment_header(received) {
            return Verdict::Dropped(DropReason::NdpMalformed);
        }
        let result = match kind {
            ROUTER_ADVERTISEMENT => {
                let (Some(slaac), IpAddr::V6(src)) = (&mut self.slaac, received.ip.src) else {
                    return Verdict::Dropped(DropReason::IcmpIgnored);
                };
                let result = slaac.handle_advertisement(now, src, received.ip.hop_limit, message);
                self.drain_slaac();
                result
            }
            ROUTER_SOLICITATION => Err(DropReason::IcmpIgnored),
            REDIRECT => self.handle_redirect_v6(received),
            _ => self.neighbors.handle_ndp(now, received.link, received.ip, message, &self.addresses),
        };
        self.mail_if_of_use(received.frame, result);
        self.drain_neighbors();
        result.into()
    }

    fn handle_mld(&mut self, received: &Received<'_>) -> Verdict {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (received.ip.src, received.ip.dst) else {
            return Verdict::Dropped(DropReason::GroupMalformed);
        };
        let (hop_limit, alert) = (received.ip.hop_limit, received.ip.router_alert);
        let result = self.membership.handle_mld(self.now, src, dst, hop_limit, alert, received.transport());
        self.mail_if_used(received, result)
    }

    /// Tells the sender of a packet what is wrong with it, if it may be told and not too many were.
    pub(crate) fn send_error(&mut self, received: &Received<'_>, error: ErrorToSend) {
        let is_unwanted = !self.config.sends_unreachable
            && matches!(error, ErrorToSend::PortUnreachable | ErrorToSend::ProtocolUnreachable);
        if is_unwanted || self.is_mailed {
            return;
        }
        if !self.limiter.allow(Answer::Error, received.ip.src, self.now) {
            self.count_drop(DropReason::IcmpRateLimited);
            return;
        }
        let was_broadcast = received.is_link_group() || received.destination == Destination::Broadcast;
        // What is quoted is what was on the wire: a checksum that was left to the device belongs into it.
        let mut whole = Vec::new();
        let frame = match received.meta.checksum {
            ChecksumState::Partial { start, offset } => {
                whole.extend_from_slice(received.frame);
                checksum::complete(&mut whole, start, offset);
                &whole[..]
            }
            _ => received.frame,
        };
        let due = error_for(frame, received.ip, was_broadcast, error, self.mtu_for(received.ip.src));
        let Some(mut outgoing) = due else { return };
        if outgoing.spec.src.is_some_and(|src| !self.is_local(src) && !src.is_loopback()) {
            outgoing.spec.src = None;
        }
        if self.send_control(&mut outgoing) {
            self.counters.icmp_errors_sent += 1;
        }
    }

    /// A packet of ours waited in vain for its neighbour: its socket is told.
    pub(crate) fn unreachable_to_socket(&mut self, frame: &[u8]) {
        let Ok(packet) = classify(self.medium, frame) else { return };
        let Body::Ip(ip) = packet.body else { return };
        let kind = ErrorKind::HostUnreachable;
        match (ip.protocol, ip.ports) {
            (UDP, Some((src_port, dst_port))) => {
                let error = SocketError { kind, from: ip.src, dst: SocketAddr::new(ip.dst, dst_port) };
                self.handle_udp_error(SocketAddr::new(ip.src, src_port), error);
            }
            (TCP, Some((src_port, dst_port))) => {
                let (src, dst) = (SocketAddr::new(ip.src, src_port), SocketAddr::new(ip.dst, dst_port));
                let seq = frame.get(ip.transport + 4..).and_then(|rest| rest.first_chunk());
                self.handle_segment_error(src, dst, seq.map(|seq| u32::from_be_bytes(*seq)), kind);
            }
            _ => {
                let message = frame.get(ip.transport..ip.end).unwrap_or_default();
                if let Ok(Message::EchoRequest(echo)) = icmp::parse(ip.src, ip.dst, message) {
                    let known = self.pings.get(&(ip.dst.is_ipv4(), echo.identifier)).copied();
                    let error = SocketError { kind, from: ip.src, dst: SocketAddr::new(ip.dst, 0) };
                    if let Some((id, socket)) = known.and_then(|id| Some((id, self.sockets.icmp_mut(id)?))) {
                        socket.push_error(EchoError { error, sequence: echo.sequence });
                        self.sockets.mark_ready(id);
                    }
                }
            }
        }
    }

    /// Makes a socket that pings.
    ///
    /// # Errors
    /// The address is not ours, the identifier is in use, or there is no room.
    pub fn ping_bind(&mut self, bind: PingBind) -> Result<SocketId, BindError> {
        if !self.sockets.has_room() {
            return Err(BindError::TooManySockets { max: self.config.sockets_max });
        }
        self.check_local(bind.local)?;
        if bind.local.is_multicast() || self.addresses.is_broadcast(bind.local) {
            return Err(BindError::AddressNotOurs { address: bind.local });
        }
        let is_v4 = bind.local.is_ipv4();
        let mut identifier = bind.identifier;
        let mut tries = 0;
        while identifier == 0 || (bind.identifier == 0 && self.pings.contains_key(&(is_v4, identifier))) {
            identifier = self.random.u16();
            tries += 1;
            if tries > IDENTIFIER_TRIES_MAX {
                return Err(BindError::NoPort);
            }
        }
        if self.pings.contains_key(&(is_v4, identifier)) {
            return Err(BindError::InUse { local: SocketAddr::new(bind.local, identifier) });
        }
        let socket = icmp::Socket::new(bind.local, identifier, bind.limits);
        let id = self.sockets.insert(AnySocket::Icmp(Box::new(socket)));
        self.pings.insert((is_v4, identifier), id);
        Ok(id)
    }

    /// Sends an echo request with this payload. With several shards, the reply comes to that of the two
    /// addresses ([`Steering::shard_of_flow`](crate::demux::Steering::shard_of_flow) with ports 0 and the
    /// protocol of ICMP): to ping from another one is to hear nothing.
    ///
    /// # Errors
    /// There is no way, it is too long, or there is no room now.
    pub fn ping_send(&mut self, id: SocketId, options: &PingOptions, data: &[u8]) -> Result<(), SendError> {
        let socket = self.sockets.icmp_mut(id).ok_or(SendError::Closed)?;
        if socket.local().is_ipv4() != options.to.is_ipv4() {
            return Err(SendError::AddressFamily);
        }
        let spec = PacketSpec {
            hop_limit: options.hop_limit,
            traffic_class: options.traffic_class,
            dont_fragment: options.dont_fragment,
            ..socket.spec(options.to)
        };
        if spec.src.is_some_and(|src| !self.is_source(src)) {
            return Err(SendError::AddressNotOurs);
        }
        let len = icmp::message::HEADER_LEN + data.len();
        let mut message = vec![0; len];
        let path = self.path(&spec).map_err(|reason| super::udp::send_error(reason, 0))?;
        let max = path.mtu.saturating_sub(header::header_len(&spec) + icmp::message::HEADER_LEN);
        let socket = self.sockets.icmp_mut(id).ok_or(SendError::Closed)?;
        socket.write_echo(Some(path.src), path.dst, options.sequence, data, &mut message);
        self.emit(&path, &spec, Transport::plain(len), |room| room.copy_from_slice(&message))
            .map_err(|reason| super::udp::send_error(reason, max))
    }

    /// Lends the next reply to a socket's requests.
    pub fn ping_recv_with<R>(&mut self, id: SocketId, f: impl FnOnce(&EchoMeta, &[u8]) -> R) -> Option<R> {
        self.sockets.icmp_mut(id)?.recv_with(f)
    }

    /// The next error about one of a socket's requests.
    pub fn ping_take_error(&mut self, id: SocketId) -> Option<EchoError> {
        self.sockets.icmp_mut(id)?.take_error()
    }
}

/// Whether one of the extension headers is that of fragments: here, that of one fragment that is all of it.
fn has_fragment_header(received: &Received<'_>) -> bool {
    let byte = |at: usize| received.frame.get(at).copied();
    let (mut next, mut at) = (byte(received.ip.start + NEXT_HEADER_AT), received.ip.start + IPV6_HEADER_LEN);
    // `classify` has seen to the lengths and bounded how many there are.
    while at < received.ip.transport {
        if next == Some(FRAGMENT_HEADER) {
            return true;
        }
        let next_of_this = byte(at);
        let units = usize::from(byte(at + 1).unwrap_or_default());
        at += if next == Some(AUTHENTICATION_HEADER) { (units + 2) * 4 } else { (units + 1) * 8 };
        next = next_of_this;
    }
    false
}

/// Where the Next Header field of IPv6 is.
const NEXT_HEADER_AT: usize = 6;
const IPV6_HEADER_LEN: usize = 40;
const FRAGMENT_HEADER: u8 = 44;
const AUTHENTICATION_HEADER: u8 = 51;
/// Bytes of a packet that every link of IPv6 takes (RFC 8200 section 5).
const IPV6_MTU_MIN: u32 = 1_280;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
/// Random identifiers that are tried: with half of them in use, all fail once in 10^9.
const IDENTIFIER_TRIES_MAX: usize = 32;
