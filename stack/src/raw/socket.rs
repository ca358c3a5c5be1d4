//! One raw socket: what it wants to see, and what has come.

use std::net::IpAddr;

use smoltcp::time::Instant;
use wirestack_nic::meta::Timestamp;

use super::type_filter::TypeFilter;
use crate::egress::PacketSpec;
use crate::icmp;
use crate::ingress::IpPacket;
use crate::observe::DropReason;
use crate::udp::SocketError;
use crate::udp::error::ErrorQueue;
use crate::udp::queue::{Queue, QueueLimits};

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// That of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What is known of a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMeta {
    /// Who sent it.
    pub src: IpAddr,
    /// The address it came to.
    pub dst: IpAddr,
    /// Its upper-layer protocol.
    pub protocol: u8,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// DSCP, and ECN in the two low bits.
    pub traffic_class: u8,
    /// When the device or the kernel received it, if they say so.
    pub timestamp: Option<Timestamp>,
    /// When the shard received it.
    pub received: Instant,
}

/// A raw socket.
#[derive(Debug, Clone)]
pub struct Socket {
    version: Version,
    protocol: u8,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
    type_filter: TypeFilter,
    header_included: bool,
    hop_limit: Option<u8>,
    traffic_class: u8,
    queue: Queue<PacketMeta>,
    errors: ErrorQueue<SocketError>,
    received_packets: u64,
    dropped_packets: u64,
}

impl Socket {
    /// A socket for packets of one protocol. 255 (IPPROTO_RAW) is for sending only, IPv4 with the header
    /// included: nothing is received.
    pub fn new(version: Version, protocol: u8, limits: QueueLimits) -> Self {
        Self {
            version,
            protocol,
            local: None,
            remote: None,
            type_filter: TypeFilter::default(),
            header_included: protocol == SEND_ONLY && version == Version::V4,
            hop_limit: None,
            traffic_class: 0,
            queue: Queue::new(limits),
            errors: ErrorQueue::default(),
            received_packets: 0,
            dropped_packets: 0,
        }
    }

    /// Only packets to this address are seen, and what is sent comes from it (bind).
    pub fn set_local(&mut self, local: Option<IpAddr>) {
        self.local = local;
    }

    /// Only packets from this address are seen (connect).
    pub fn set_remote(&mut self, remote: Option<IpAddr>) {
        self.remote = remote;
    }

    /// Which types of ICMP or ICMPv6 are seen, if that is the protocol.
    pub fn set_type_filter(&mut self, type_filter: TypeFilter) {
        self.type_filter = type_filter;
    }

    /// Whether the application writes the IPv4 header of what it sends
    /// ([`HeaderIncluded`](super::HeaderIncluded)). Over IPv6 this says nothing.
    pub fn set_header_included(&mut self, header_included: bool) {
        self.header_included = header_included && self.version == Version::V4;
    }

    /// Sets the TTL or hop limit of what is sent; `None`: the interface's.
    pub fn set_hop_limit(&mut self, hop_limit: Option<u8>) {
        self.hop_limit = hop_limit;
    }

    /// Sets DSCP and ECN of what is sent.
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        self.traffic_class = traffic_class;
    }

    /// Whether a whole packet is for this socket: version, protocol and addresses match, and its type
    /// of ICMP is wanted.
    pub fn wants(&self, frame: &[u8], ip: &IpPacket) -> bool {
        let is_same = self.version == Version::of(ip.dst)
            && self.protocol == ip.protocol
            && self.protocol != SEND_ONLY
            && self.local.is_none_or(|local| local == ip.dst)
            && self.remote.is_none_or(|remote| remote == ip.src);
        let passes = || {
            let icmp_type = frame.get(ip.transport..ip.end).and_then(|message| message.first());
            icmp_type.is_some_and(|&icmp_type| self.type_filter.passes(icmp_type))
        };
        is_same && (ip.protocol != icmp::protocol_for(ip.dst) || passes())
    }

    /// Takes a whole packet: over IPv4 with its header, over IPv6 what follows all headers of IP.
    ///
    /// # Errors
    /// [`DropReason::RawQueueFull`]: it would be more than the limits allow. [`DropReason::IpTruncated`]:
    /// `ip` is not of this frame.
    pub fn push(
        &mut self,
        frame: &[u8],
        ip: &IpPacket,
        received: Instant,
        timestamp: Option<Timestamp>,
    ) -> Result<(), DropReason> {
        let start = if self.version == Version::V4 { ip.start } else { ip.transport };
        let bytes = frame.get(start..ip.end).ok_or(DropReason::IpTruncated)?;
        let meta = PacketMeta {
            src: ip.src,
            dst: ip.dst,
            protocol: ip.protocol,
            hop_limit: ip.hop_limit,
            traffic_class: ip.traffic_class,
            timestamp,
            received,
        };
        if self.queue.push(meta, bytes, None).is_err() {
            self.dropped_packets += 1;
            return Err(DropReason::RawQueueFull);
        }
        self.received_packets += 1;
        Ok(())
    }

    /// Lends the first packet to `f` and takes it out. `None`: there is none.
    pub fn recv_with<R>(&mut self, f: impl FnOnce(&PacketMeta, &[u8]) -> R) -> Option<R> {
        self.queue.pop_with(f)
    }

    /// Lends the first packet to `f`, and leaves it where it is.
    pub fn peek_with<R>(&self, f: impl FnOnce(&PacketMeta, &[u8]) -> R) -> Option<R> {
        self.queue.peek_with(f)
    }

    /// Takes an ICMP error about a packet of this protocol. It is kept if the socket is connected to
    /// where the packet went and there is no hope; `false`: it is not.
    pub fn push_error(&mut self, error: SocketError) -> bool {
        let is_wanted = error.kind.is_hard() && self.remote == Some(error.dst.ip());
        if is_wanted {
            self.errors.push(error);
        }
        is_wanted
    }

    /// The oldest error that was not taken yet.
    pub fn take_error(&mut self) -> Option<SocketError> {
        self.errors.take()
    }

    /// What a packet to `dst` looks like whose header the stack writes.
    pub fn spec(&self, dst: IpAddr) -> PacketSpec {
        PacketSpec {
            src: self.local,
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class,
            discovers_path_mtu: true,
            ..PacketSpec::new(dst, self.protocol)
        }
    }

    /// Does to a payload what is left to the stack once its source is known: the checksum of ICMPv6 (RFC
    /// 3542 section 3.1). Others stay as they are.
    pub fn complete_payload(&self, payload: &mut [u8], src: IpAddr, dst: IpAddr) {
        if self.protocol == icmp::PROTOCOL_V6 && self.version == Version::V6 {
            icmp::error::fill_checksum(payload, Some(src), dst);
        }
    }

    /// Which version of IP it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The protocol of its packets.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// To whom it is connected.
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    /// Whether the application writes the IPv4 header of what it sends.
    pub fn is_header_included(&self) -> bool {
        self.header_included
    }

    /// Whether there is a packet or an error to be taken.
    pub fn readable(&self) -> bool {
        !self.queue.is_empty() || self.errors.len() > 0
    }

    /// Errors that found no room.
    pub fn dropped_errors(&self) -> u64 {
        self.errors.dropped()
    }

    /// What people want to see of it.
    pub fn snapshot(&self) -> SocketSnapshot {
        SocketSnapshot {
            version: self.version,
            protocol: self.protocol,
            local: self.local,
            remote: self.remote,
            queued_bytes: self.queue.queued_bytes(),
            queued_packets: self.queue.queued_datagrams(),
            received_packets: self.received_packets,
            dropped_packets: self.dropped_packets,
        }
    }
}

/// One socket as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSnapshot {
    /// Which version of IP it speaks.
    pub version: Version,
    /// The protocol of its packets.
    pub protocol: u8,
    /// The address it is bound to.
    pub local: Option<IpAddr>,
    /// To whom it is connected.
    pub remote: Option<IpAddr>,
    /// Bytes that wait.
    pub queued_bytes: usize,
    /// Packets that wait.
    pub queued_packets: usize,
    /// Packets that were queued since it was opened.
    pub received_packets: u64,
    /// Packets that found the queue full.
    pub dropped_packets: u64,
}

/// IPPROTO_RAW.
const SEND_ONLY: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::error::tests::{echo_request, packet};

    fn socket(is_v6: bool) -> Socket {
        let (version, protocol) = if is_v6 { (Version::V6, 58) } else { (Version::V4, 1) };
        Socket::new(version, protocol, QueueLimits { bytes_max: 100, datagrams_max: 9 })
    }

    #[test]
    fn over_ipv4_the_header_comes_too() {
        for is_v6 in [false, true] {
            let (frame, ip) = packet(is_v6, &echo_request(is_v6, b"data"));
            let mut socket = socket(is_v6);
            assert!(socket.wants(&frame, &ip));
            assert_eq!(socket.push(&frame, &ip, Instant::ZERO, None), Ok(()));
            let start = if is_v6 { ip.transport } else { ip.start };
            socket
                .recv_with(|meta, bytes| {
                    assert_eq!(bytes, &frame[start..ip.end]);
                    assert_eq!((meta.src, meta.dst, meta.protocol), (ip.src, ip.dst, ip.protocol));
                })
                .expect("a packet");
            let pushes = (0..20).filter(|_| socket.push(&frame, &ip, Instant::ZERO, None).is_ok()).count();
            assert_eq!(pushes, 100 / (ip.end - start));
            assert_eq!(socket.snapshot().dropped_packets, 20 - pushes as u64);
        }
    }

    #[test]
    fn what_does_not_match_is_not_wanted() {
        let (frame, ip) = packet(true, &echo_request(true, b"data"));
        let other: IpAddr = "fd00::99".parse().expect("an address");
        let changed = |change: &dyn Fn(&mut Socket)| {
            let mut socket = socket(true);
            change(&mut socket);
            socket.wants(&frame, &ip)
        };
        assert!(changed(&|socket| socket.set_local(Some(ip.dst))));
        assert!(!changed(&|socket| socket.set_local(Some(other))));
        assert!(changed(&|socket| socket.set_remote(Some(ip.src))));
        assert!(!changed(&|socket| socket.set_remote(Some(other))));
        assert!(!changed(&|socket| socket.set_type_filter(TypeFilter::block_all())));
        assert!(changed(&|socket| socket.set_type_filter(TypeFilter::block_all().pass(128))));
        assert!(!socket(false).wants(&frame, &ip));
        let cut = IpPacket { end: ip.transport, ..ip };
        assert!(!socket(true).wants(&frame, &cut), "no type, nothing to pass");
    }

    #[test]
    fn the_checksum_of_icmpv6_is_ours_to_fill_in() {
        let (frame, ip) = packet(true, &echo_request(true, b"data"));
        let expected = &frame[ip.transport..ip.end];
        let mut message = expected.to_vec();
        message[2..4].fill(9);
        socket(true).complete_payload(&mut message, ip.src, ip.dst);
        assert_eq!(message, expected);
    }

    #[test]
    fn a_header_can_be_included_over_ipv4_only() {
        for (version, protocol, at_first) in [
            (Version::V4, 17, false),
            (Version::V4, 255, true),
            (Version::V6, 17, false),
            (Version::V6, 255, false),
        ] {
            let mut socket = Socket::new(version, protocol, QueueLimits::default());
            assert_eq!(socket.is_header_included(), at_first, "{version:?} {protocol}");
            socket.set_header_included(true);
            assert_eq!(socket.is_header_included(), version == Version::V4, "{version:?} {protocol}");
        }
    }

    #[test]
    fn a_socket_has_its_protocol_and_version() {
        // The same number is another protocol in the other version, and 255 is for sending only.
        for (is_v6, protocol, version, socket_protocol, is_wanted) in [
            (false, 17, Version::V4, 17, true),
            (false, 17, Version::V4, 6, false),
            (false, 17, Version::V6, 17, false),
            (true, 17, Version::V6, 17, true),
            (true, 17, Version::V4, 17, false),
            (false, 255, Version::V4, 255, false),
            (true, 255, Version::V6, 255, false),
        ] {
            let (frame, ip) = packet(is_v6, b"anything");
            let ip = IpPacket { protocol, ..ip };
            let socket = Socket::new(version, socket_protocol, QueueLimits::default());
            assert_eq!(
                socket.wants(&frame, &ip),
                is_wanted,
                "{is_v6} {protocol} {version:?} {socket_protocol}"
            );
        }
    }

    #[test]
    fn hard_errors_of_its_peer_are_reported() {
        use crate::icmp::ErrorKind;
        let peer: IpAddr = "fd00::2".parse().expect("an address");
        let other: IpAddr = "fd00::3".parse().expect("an address");
        for (remote, kind, is_wanted) in [
            (Some(peer), ErrorKind::PortUnreachable, true),
            (Some(peer), ErrorKind::HostUnreachable, false),
            (Some(other), ErrorKind::PortUnreachable, false),
            (None, ErrorKind::PortUnreachable, false),
        ] {
            let mut socket = socket(true);
            socket.set_remote(remote);
            let error = SocketError { kind, from: other, dst: (peer, 0).into() };
            assert_eq!(socket.push_error(error), is_wanted, "{remote:?} {kind}");
            assert_eq!(socket.readable(), is_wanted);
            assert_eq!(socket.take_error(), is_wanted.then_some(error));
        }
    }

    #[test]
    fn what_it_sends_is_as_it_was_told() {
        let local: IpAddr = "fd00::1".parse().expect("an address");
        let dst: IpAddr = "fd00::2".parse().expect("an address");
        let mut socket = socket(true);
        let plain = PacketSpec { discovers_path_mtu: true, ..PacketSpec::new(dst, 58) };
        assert_eq!(socket.spec(dst), plain);
        socket.set_local(Some(local));
        socket.set_hop_limit(Some(3));
        socket.set_traffic_class(0xb8);
        let expected = PacketSpec { src: Some(local), hop_limit: Some(3), traffic_class: 0xb8, ..plain };
        assert_eq!(socket.spec(dst), expected);
    }

    #[test]
    fn other_payloads_are_left_alone() {
        let (src, dst) = ("fd00::1".parse().expect("an address"), "fd00::2".parse().expect("an address"));
        for (version, protocol) in [(Version::V6, 17), (Version::V4, 58), (Version::V4, 1)] {
            let mut payload = *b"payload!";
            Socket::new(version, protocol, QueueLimits::default()).complete_payload(&mut payload, src, dst);
            assert_eq!(&payload, b"payload!", "{version:?} {protocol}");
        }
    }
}
