//! From a frame to whom it is for.

use std::net::IpAddr;

use wirestack_nic::FrameMeta;

use super::{Body, IpPacket, Link, Packet, Verdict, checksum, classify};
use crate::icmp::error::ErrorToSend;
use crate::ingress::Problem;
use crate::ip::address::is_martian_source;
use crate::observe::DropReason;
use crate::shard::{Mail, Shard};

/// A packet on its way to a socket, with all that is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// The frame, or the packet where there is no link header.
    pub(crate) frame: &'a [u8],
    /// What the device knows.
    pub(crate) meta: &'a FrameMeta,
    /// The link header.
    pub(crate) link: Option<&'a Link>,
    /// The headers.
    pub(crate) ip: &'a IpPacket,
    /// Where it comes from.
    pub(crate) way: Way,
    /// What its destination is to us.
    pub(crate) destination: Destination,
}

impl<'a> Received<'a> {
    /// What follows the IP header.
    pub(crate) fn transport(&self) -> &'a [u8] {
        // `classify` has seen to these bounds.
        self.frame.get(self.ip.transport..self.ip.end).unwrap_or_default()
    }

    /// Whether it came as a broadcast or multicast of the link: nobody is told what is wrong with it.
    pub(crate) fn is_link_group(&self) -> bool {
        self.link.is_some_and(|link| !link.dst.is_unicast())
    }
}

/// Where a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The device.
    Wire,
    /// Ourselves.
    Looped,
    /// Put together here or in another shard, from fragments of the wire.
    Reassembled,
}

/// What a destination address is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// An address of ours.
    Local,
    /// All hosts of the link.
    Broadcast,
    /// A group that somebody here is in.
    Group,
    /// Nobody here.
    Other,
}

impl Shard {
    /// Takes a frame from the device.
    pub(crate) fn handle_frame(&mut self, frame: &[u8], meta: &FrameMeta) {
        self.counters.rx_frames += 1;
        let verdict = self.judge(frame, meta);
        self.count(verdict, frame);
    }

    /// What becomes of a frame. It is not counted yet.
    pub(crate) fn judge(&mut self, frame: &[u8], meta: &FrameMeta) -> Verdict {
        match classify(self.medium, frame) {
            Ok(packet) => self.handle_packet(frame, meta, &packet),
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    fn handle_packet(&mut self, frame: &[u8], meta: &FrameMeta, packet: &Packet) -> Verdict {
        if let Some(link) = &packet.link
            && let Err(reason) = self.check_link(link)
        {
            return Verdict::Dropped(reason);
        }
        match &packet.body {
            Body::Arp(at) => self.handle_arp(frame, *at, packet.link.as_ref()),
            Body::Ip(ip) => self.handle_ip(frame, meta, packet.link.as_ref(), ip, Way::Wire),
        }
    }

    fn check_link(&self, link: &Link) -> Result<(), DropReason> {
        if link.dst != self.config.mac && link.dst.is_unicast() {
            return Err(DropReason::LinkNotForUs);
        }
        if link.src == self.config.mac {
            return Err(DropReason::LinkFromOurselves);
        }
        // A tag with identifier 0 only carries a priority (802.1Q): the frame is of no VLAN.
        match link.vlans {
            [None | Some(0), None | Some(0)] => Ok(()),
            _ => Err(DropReason::LinkVlan),
        }
    }

    fn handle_arp(&mut self, frame: &[u8], at: usize, link: Option<&Link>) -> Verdict {
        let (Some(link), Some(message)) = (link, frame.get(at..)) else {
            return Verdict::Dropped(DropReason::ArpMalformed);
        };
        let result = self.neighbors.handle_arp(self.now, link, message, &self.addresses);
        self.mail_if_of_use(frame, result);
        self.drain_neighbors();
        result.into()
    }

    /// Takes an IP packet, from wherever it comes.
    pub(crate) fn handle_ip(
        &mut self,
        frame: &[u8],
        meta: &FrameMeta,
        link: Option<&Link>,
        ip: &IpPacket,
        way: Way,
    ) -> Verdict {
        let destination = self.destination(ip);
        if let Err(reason) = self.check_addresses(ip, way, destination) {
            return Verdict::Dropped(reason);
        }
        let received = Received { frame, meta, link, ip, way, destination };
        //= rfc1122#3.3.6
        //# A host SHOULD silently discard a datagram that is received via
        //# a link-layer broadcast (see Section 2.4) but does not specify
        //# an IP multicast or broadcast destination address.
        if ip.dst.is_ipv4() && received.is_link_group() && destination == Destination::Local {
            return Verdict::Dropped(DropReason::LinkToMany);
        }
        if self.config.shard != 0 && self.is_for_first_shard(ip) {
            return self.send_to_first_shard(&received);
        }
        if destination == Destination::Other {
            return self.handle_for_nobody(&received);
        }
        if let Some(problem) = ip.problem {
            return self.handle_problem(&received, problem);
        }
        if ip.fragment.is_some() {
            return self.handle_fragment(&received);
        }
        self.handle_whole(&received)
    }

    /// What an address is to us. The order is that of likelihood.
    pub(crate) fn destination(&self, ip: &IpPacket) -> Destination {
        if self.addresses.is_local(ip.dst) || ip.dst.is_loopback() {
            Destination::Local
        } else if ip.dst.is_multicast() {
            if self.membership.is_member(ip.dst) { Destination::Group } else { Destination::Other }
        } else if self.addresses.is_broadcast(ip.dst) {
            Destination::Broadcast
        } else {
            Destination::Other
        }
    }

    //= rfc1122#3.2.1.3
    //# A host MUST silently discard an incoming datagram containing an IP source address that is invalid by
    //# the rules of this section.
    fn check_addresses(&self, ip: &IpPacket, way: Way, destination: Destination) -> Result<(), DropReason> {
        if is_martian_source(ip.src) || self.addresses.is_broadcast(ip.src) {
            return Err(DropReason::IpMartianSource);
        }
        if way == Way::Looped {
            return Ok(());
        }
        // Who has no address yet speaks to many: duplicate address detection, DHCP.
        let is_from_nobody = ip.src.is_unspecified() && destination == Destination::Local;
        if ip.src.is_loopback() || is_from_nobody {
            return Err(DropReason::IpMartianSource);
        }
        if ip.dst.is_loopback() || ip.dst.is_unspecified() {
            return Err(DropReason::IpMartianDestination);
        }
        if self.addresses.is_local(ip.src)
            && !self.config.shares_addresses
            && !self.is_own_probe(ip, destination)
        {
            return Err(DropReason::IpFromOurselves);
        }
        Ok(())
    }

    /// A neighbour solicitation or advertisement for an address of ours comes from whoever has it too; the
    /// conflict is for `neighbor` to see.
    fn is_own_probe(&self, ip: &IpPacket, destination: Destination) -> bool {
        ip.protocol == ICMPV6 && ip.hop_limit == 255 && destination == Destination::Group
    }

    /// The server of a DHCP client may send to the address that it is about to give us (RFC 2131 section
    /// 4.1). All else that is for nobody here is not ours to forward.
    fn handle_for_nobody(&mut self, received: &Received<'_>) -> Verdict {
        let is_dhcp = received.ip.protocol == UDP
            && received.ip.fragment.is_none()
            && !received.ip.dst.is_multicast()
            && received.ip.ports == Some((67, 68))
            && received.link.is_none_or(|link| link.dst == self.config.mac);
        if !is_dhcp || self.dhcp.as_ref().is_none_or(|dhcp| dhcp.lease().is_some()) {
            return Verdict::Dropped(DropReason::IpNotForUs);
        }
        match checksum::verify_transport(received.frame, received.ip, received.meta) {
            Ok(()) => self.handle_udp(received),
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Tells the sender of a packet which header of it we do not take (RFC 8200 section 4.2).
    fn handle_problem(&mut self, received: &Received<'_>, problem: Problem) -> Verdict {
        let (code, pointer, is_due) = match problem {
            Problem::Option { at, answer, even_multicast } => {
                (2, at, answer && (even_multicast || received.destination == Destination::Local))
            }
            Problem::NextHeader { at, code } => (code, at, true),
        };
        if is_due {
            self.send_error(received, ErrorToSend::ParameterProblem { code, pointer });
        }
        Verdict::Dropped(DropReason::IpProblem)
    }

    fn handle_fragment(&mut self, received: &Received<'_>) -> Verdict {
        let evicted = self.reassembly.counters().evicted;
        let pushed = self.reassembly.push(self.now, received.frame, received.ip);
        for _ in evicted..self.reassembly.counters().evicted {
            self.count_drop(DropReason::FragmentNoRoom);
        }
        match pushed {
            Ok(None) => Verdict::Held,
            Ok(Some(whole)) => {
                let packet = whole.bytes;
                self.counters.reassembled += 1;
                if received.way == Way::Looped {
                    // Nobody else's: both of its ends are here.
                    return self.handle_reassembled(&packet, Way::Looped);
                }
                match self.config.steering.shard_of_ip(&packet) {
                    shard if shard == self.config.shard => self.handle_reassembled(&packet, Way::Reassembled),
                    shard => self.mail.send(shard, Mail::Packet(packet)),
                }
            }
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Takes a packet that was put together from fragments. It is classified again: now it has ports.
    pub(crate) fn handle_reassembled(&mut self, packet: &[u8], way: Way) -> Verdict {
        match classify(smoltcp::phy::Medium::Ip, packet) {
            Ok(Packet { body: Body::Ip(ip), .. }) if ip.fragment.is_none() => {
                self.handle_ip(packet, &FrameMeta::default(), None, &ip, way)
            }
            Ok(_) => Verdict::Dropped(DropReason::FragmentMalformed),
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// Takes the next packet to ourselves. `false`: there is none.
    pub(crate) fn handle_looped(&mut self) -> bool {
        let Some((front, meta)) = self.looped.front() else { return false };
        let mut packet = std::mem::take(&mut self.looped_scratch);
        packet.clear();
        packet.extend_from_slice(front);
        let meta = *meta;
        self.looped.pop();
        self.counters.looped += 1;
        let verdict = match classify(smoltcp::phy::Medium::Ip, &packet) {
            Ok(Packet { body: Body::Ip(ip), .. }) => self.handle_ip(&packet, &meta, None, &ip, Way::Looped),
            Ok(_) => Verdict::Dropped(DropReason::IpMalformed),
            Err(reason) => Verdict::Dropped(reason),
        };
        self.count(verdict, &packet);
        self.looped_scratch = packet;
        true
    }

    /// A whole packet for us: to raw sockets, and to its protocol.
    fn handle_whole(&mut self, received: &Received<'_>) -> Verdict {
        if let Err(reason) = checksum::verify_transport(received.frame, received.ip, received.meta) {
            return Verdict::Dropped(reason);
        }
        let raw = !self.raw_sockets.is_empty() && self.handle_raw(received);
        match received.ip.protocol {
            UDP => self.handle_udp(received),
            TCP => self.handle_tcp(received),
            ICMP if received.ip.src.is_ipv4() => self.handle_icmp(received),
            ICMPV6 if received.ip.src.is_ipv6() => self.handle_icmp(received),
            IGMP if received.ip.src.is_ipv4() => self.handle_igmp(received),
            _ if raw => Verdict::Delivered,
            _ => self.handle_unknown_protocol(received),
        }
    }

    /// Segments, unless somebody serves TCP beside this engine; see [`Shard::take_tcp`].
    fn handle_tcp(&mut self, received: &Received<'_>) -> Verdict {
        let Some(queue) = &mut self.tcp_queue else { return self.handle_segment(received) };
        if received.destination != Destination::Local {
            return Verdict::Dropped(DropReason::IpNotForUs);
        }
        let Some(packet) = received.frame.get(received.ip.start..received.ip.end) else {
            return Verdict::Dropped(DropReason::TcpMalformed);
        };
        if self.lends_tcp && received.way == Way::Wire {
            self.lent_tcp = Some(received.ip.start..received.ip.end);
            return Verdict::Delivered;
        }
        let meta = received.meta.behind(received.ip.start as u16);
        match queue.push(packet.len(), &meta, |room| room.copy_from_slice(packet)) {
            Some(()) => Verdict::Delivered,
            None => Verdict::Dropped(DropReason::TcpQueueFull),
        }
    }

    fn handle_unknown_protocol(&mut self, received: &Received<'_>) -> Verdict {
        // "No next header" is no protocol that could be unknown.
        let is_due = received.ip.src.is_ipv4() || received.ip.protocol != NO_NEXT_HEADER;
        if is_due && received.destination == Destination::Local {
            self.send_error(received, ErrorToSend::ProtocolUnreachable);
        }
        Verdict::Dropped(DropReason::IpUnknownProtocol)
    }

    fn handle_igmp(&mut self, received: &Received<'_>) -> Verdict {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (received.ip.src, received.ip.dst) else {
            return Verdict::Dropped(DropReason::GroupMalformed);
        };
        let (ttl, alert) = (received.ip.hop_limit, received.ip.router_alert);
        let result = self.membership.handle_igmp(self.now, src, dst, ttl, alert, received.transport());
        self.mail_if_used(received, result)
    }

    /// What is said to all hosts of the link about groups is for all shards: each has members of its own.
    pub(crate) fn mail_if_used(
        &mut self,
        received: &Received<'_>,
        result: Result<(), DropReason>,
    ) -> Verdict {
        if received.way == Way::Wire {
            self.mail_if_of_use(received.frame, result);
        }
        result.into()
    }

    /// Counts what became of a frame, and tells the hook.
    pub(crate) fn count(&mut self, verdict: Verdict, frame: &[u8]) {
        match verdict {
            Verdict::Delivered => self.counters.delivered += 1,
            Verdict::Replied => self.counters.replied += 1,
            Verdict::Held => self.counters.held += 1,
            Verdict::Forwarded => self.counters.forwarded += 1,
            Verdict::Dropped(reason) => {
                self.counters.rx_dropped += 1;
                self.drop_frame(reason, frame);
            }
        }
    }
}

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const NO_NEXT_HEADER: u8 = 59;
