//! From a packet to a frame: route, source address, neighbour, fragments.

use std::net::IpAddr;
use std::num::NonZeroU16;

use smoltcp::phy::Medium;
use smoltcp::wire::EthernetAddress;
use wirestack_nic::FrameMeta;
use wirestack_nic::meta::{ChecksumState, Gso, GsoKind};
use wirestack_nic::offload::checksum;

use super::{Outgoing, PacketSpec};
use crate::icmp::{self, chain};
use crate::igmp_mld::group_mac;
use crate::ingress::input::TCP;
use crate::ip::fragment::Fragments;
use crate::ip::route::Route;
use crate::ip::{header, select};
use crate::neighbor::Lookup;
use crate::observe::DropReason;
use crate::shard::Shard;

/// Where a packet goes, found once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// Source address.
    pub(crate) src: IpAddr,
    /// Destination address.
    pub(crate) dst: IpAddr,
    /// The next stop.
    pub(crate) hop: Hop,
    /// Bytes of an IP packet at most, as far as is known.
    pub(crate) mtu: usize,
}

/// The next stop of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Ourselves.
    Looped,
    /// A group or everybody: the hardware address follows from the destination.
    Link(EthernetAddress),
    /// A host of the link, whose hardware address is asked for.
    Neighbor(IpAddr),
    /// The other end of a device without link headers.
    Bare,
}

/// What follows the IP header of a packet to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transport {
    /// Bytes.
    pub(crate) len: usize,
    /// Offset of the checksum field, if the sum is left to the device; the field holds that of the pseudo header.
    pub(crate) checksum_at: Option<u16>,
    /// Bytes of each datagram, if it is several in one.
    pub(crate) segment_bytes: Option<NonZeroU16>,
}

impl Transport {
    /// A payload that is as it is.
    pub(crate) fn plain(len: usize) -> Self {
        Self { len, checksum_at: None, segment_bytes: None }
    }
}

impl Shard {
    /// Finds the way of a packet: next stop, source address, MTU.
    pub(crate) fn path(&mut self, spec: &PacketSpec) -> Result<Path, DropReason> {
        let dst = spec.dst;
        let is_mapped = matches!(dst, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if dst.is_unspecified() || is_mapped {
            return Err(DropReason::NoRoute);
        }
        if dst.is_loopback() || (self.addresses.is_local(dst) && !self.config.shares_addresses) {
            let src = spec.src.unwrap_or(dst);
            return Ok(Path { src, dst, hop: Hop::Looped, mtu: LOOPED_MTU });
        }
        let (hop, route) = self.hop(dst)?;
        let (of_route, mtu_of_route) = route.map_or((None, None), |route| (route.source, route.mtu));
        let next_hop = if let Hop::Neighbor(neighbor) = hop { neighbor } else { dst };
        let src = spec.src.or(of_route.filter(|src| self.addresses.is_local(*src)));
        let src = src.or_else(|| select::select_source(&self.addresses, dst, next_hop));
        let src = src.ok_or(DropReason::NoSource)?;
        //= rfc1122#3.2.1.3
        //# Internal host loopback address.  Addresses of this form
        //# MUST NOT appear outside a host.
        if src.is_loopback() {
            return Err(DropReason::NoSource);
        }
        let mtu = mtu_of_route.map_or(usize::MAX, usize::from).min(self.mtu_for(dst));
        let mtu = usize::from(self.path_mtu.mtu(dst, mtu as u16));
        Ok(Path { src, dst, hop, mtu })
    }

    /// Bytes of an IP packet of this version on the link.
    pub(crate) fn mtu_for(&self, dst: IpAddr) -> usize {
        match self.link_mtu {
            // RFC 4861 section 6.3.4: what a router tells is for IPv6.
            Some(mtu) if dst.is_ipv6() => self.mtu.min(mtu),
            _ => self.mtu,
        }
    }

    fn hop(&self, dst: IpAddr) -> Result<(Hop, Option<&Route>), DropReason> {
        if self.medium == Medium::Ip {
            return Ok((Hop::Bare, self.routes.lookup(dst)));
        }
        if dst.is_multicast() {
            return Ok((Hop::Link(group_mac(dst)), None));
        }
        if self.addresses.is_broadcast(dst) {
            return Ok((Hop::Link(EthernetAddress::BROADCAST), None));
        }
        let route = self.route(dst).ok_or(DropReason::NoRoute)?;
        Ok((Hop::Neighbor(route.next_hop(dst)), Some(route)))
    }

    /// The best route whose gateway is not known to be dead; if all are, the best one.
    /// Who of the link gets packets to `dst`. `None`: nobody of the link, or many.
    pub(crate) fn next_hop(&self, dst: IpAddr) -> Option<IpAddr> {
        match self.hop(dst) {
            Ok((Hop::Neighbor(neighbor), _)) => Some(neighbor),
            _ => None,
        }
    }

    //= rfc1122#3.3.1.4
    //# The IP layer MUST be able to detect the failure of a "next-
    //# hop" gateway that is listed in its route cache and to choose an
    //# alternate gateway (see Section 3.3.1.5).
    fn route(&self, dst: IpAddr) -> Option<&Route> {
        let candidates = self.routes.candidates(dst);
        if self.dead_gateways.is_empty() || candidates.len() < 2 {
            return candidates.first();
        }
        let is_alive = |route: &&Route| route.gateway.is_none_or(|gateway| !self.is_dead(gateway));
        candidates.iter().find(is_alive).or(candidates.first())
    }

    /// A gateway that did not answer counts as dead until there is a sign of it.
    pub(crate) fn is_dead(&self, gateway: IpAddr) -> bool {
        self.dead_gateways.contains(&gateway)
            && self.neighbors.get(gateway).is_none_or(|neighbor| !neighbor.state.has_address())
    }

    /// Sends a packet of the control plane, with a source address chosen if it has none. What cannot be sent
    /// is counted. `true`: it was sent.
    pub(crate) fn send_control(&mut self, outgoing: &mut Outgoing) -> bool {
        let sent = self.try_send_control(outgoing);
        if let Err(reason) = sent {
            self.count_drop(reason);
        }
        sent.is_ok()
    }

    fn try_send_control(&mut self, outgoing: &mut Outgoing) -> Result<(), DropReason> {
        let path = self.path(&outgoing.spec)?;
        if outgoing.spec.src.is_none() {
            // Of ICMPv6 the sum covers the source. Nothing else is sent from a source that is chosen here.
            if outgoing.spec.protocol == icmp::PROTOCOL_V6 {
                icmp::error::fill_checksum(&mut outgoing.payload, Some(path.src), path.dst);
            }
        }
        let transport = Transport::plain(outgoing.payload.len());
        self.emit(&path, &outgoing.spec, transport, |room| room.copy_from_slice(&outgoing.payload))
    }

    /// Writes a packet, whole or in fragments, and queues it. `write` writes what follows the IP header.
    pub(crate) fn emit(
        &mut self,
        path: &Path,
        spec: &PacketSpec,
        transport: Transport,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        //= rfc1122#3.2.1.7
        //# A host MUST NOT send a datagram with a Time-to-Live (TTL)
        //# value of zero.
        if spec.hop_limit == Some(0) && path.hop != Hop::Looped {
            return Err(DropReason::NoRoute);
        }
        if path.src.is_ipv4() != spec.dst.is_ipv4() {
            return Err(DropReason::NoSource);
        }
        let header_len = header::header_len(spec);
        let len = header_len + transport.len;
        if len > usize::from(u16::MAX) && !spec.dst.is_ipv6() || transport.len > usize::from(u16::MAX) {
            return Err(DropReason::TooLong);
        }
        let segment =
            transport.segment_bytes.map_or(transport.len, |size| usize::from(size.get()) + UDP_HEADER_LEN);
        let is_split_later = transport.segment_bytes.is_some();
        if header_len + segment.min(transport.len) > path.mtu {
            if spec.dont_fragment || is_split_later {
                return Err(DropReason::TooLong);
            }
            return self.emit_fragments(path, spec, transport, write);
        }
        let meta = frame_meta(header_len, transport);
        let wants_df = spec.dont_fragment || spec.discovers_path_mtu;
        let dont_fragment = wants_df && !self.path_mtu.may_fragment(path.dst);
        let spec = &PacketSpec { dont_fragment, ..*spec };
        let (src, hop_limit, id) = (path.src, self.hop_limit, self.identification(path, spec));
        self.queue(path, len, &meta, |room| {
            let (ip, rest) = room.split_at_mut(header_len);
            // Families and lengths are right: nothing is left that could fail.
            let _ = header::write(spec, src, hop_limit, transport.len, id, ip);
            write(rest);
        })
    }

    pub(crate) fn identification(&mut self, path: &Path, spec: &PacketSpec) -> u16 {
        match (path.src, path.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ids.ipv4(src, dst, spec.protocol, spec.dont_fragment),
            _ => 0,
        }
    }

    fn emit_fragments(
        &mut self,
        path: &Path,
        spec: &PacketSpec,
        transport: Transport,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let header_len = header::header_len(spec);
        let id = match (path.src, path.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ids.ipv6(src, dst),
            _ => self.identification(path, spec).into(),
        };
        let mut packet = std::mem::take(&mut self.scratch);
        packet.clear();
        packet.resize(header_len + transport.len, 0);
        let (ip, rest) = packet.split_at_mut(header_len);
        // As in `emit`, nothing is left that could fail.
        let _ = header::write(spec, path.src, self.hop_limit, transport.len, id as u16, ip);
        write(rest);
        if let Some(offset) = transport.checksum_at {
            let (start, offset) = (header_len as u16, offset);
            checksum::complete(&mut packet, start, offset);
        }
        let result = self.queue_fragments(path, &packet, id);
        self.scratch = packet;
        result
    }

    fn queue_fragments(&mut self, path: &Path, packet: &[u8], id: u32) -> Result<(), DropReason> {
        let fragments = Fragments::new(packet, path.mtu, id)?;
        // All or none: a part of a datagram only costs its receiver memory.
        let count = fragments.count();
        if !self.outbox.has_room_for(count, packet.len() + count * FRAGMENT_OVERHEAD) {
            return Err(DropReason::OutboxFull);
        }
        let mut room = std::mem::take(&mut self.fragment_scratch);
        room.resize(fragments.len_max(), 0);
        let queued = (0..fragments.count()).try_for_each(|index| {
            let len = fragments.write(index, &mut room);
            let fragment = room.get(..len).unwrap_or_default();
            self.queue(path, len, &FrameMeta::default(), |room| room.copy_from_slice(fragment))?;
            self.counters.fragments_sent += 1;
            Ok(())
        });
        self.fragment_scratch = room;
        queued
    }

    /// Queues an IP packet behind its link header, or lets it wait for its neighbour.
    pub(crate) fn queue(
        &mut self,
        path: &Path,
        len: usize,
        meta: &FrameMeta,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let mac = match path.hop {
            Hop::Looped => {
                let queued = self.looped.push(len, &received_meta(meta), write);
                return queued.ok_or(DropReason::OutboxFull);
            }
            Hop::Bare => return self.outbox.push(len, meta, write).ok_or(DropReason::OutboxFull),
            Hop::Link(mac) => mac,
            Hop::Neighbor(neighbor) => match self.neighbors.lookup(self.now, neighbor) {
                Lookup::Known(mac) => mac,
                Lookup::Unreachable => return Err(DropReason::NeighborUnreachable),
                Lookup::Pending => return self.park(path.src, neighbor, len, meta, write),
            },
        };
        let (own, ethertype) = (self.config.mac, ethertype(path.dst));
        let meta = meta.in_front(LINK_HEADER_LEN as u16);
        let queued = self.outbox.push(LINK_HEADER_LEN + len, &meta, |room| {
            let (link, packet) = room.split_at_mut(LINK_HEADER_LEN);
            write_link(link, mac, own, ethertype);
            write(packet);
        });
        queued.ok_or(DropReason::OutboxFull)
    }

    /// Keeps a frame until its neighbour has answered.
    fn park(
        &mut self,
        src: IpAddr,
        neighbor: IpAddr,
        len: usize,
        meta: &FrameMeta,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let mut frame = vec![0; LINK_HEADER_LEN + len];
        let (link, packet) = frame.split_at_mut(LINK_HEADER_LEN);
        write_link(link, EthernetAddress([0; 6]), self.config.mac, ethertype(neighbor));
        write(packet);
        let meta = meta.in_front(LINK_HEADER_LEN as u16);
        let result = self.neighbors.park(self.now, neighbor, src, &frame, &meta);
        self.drain_neighbors();
        result
    }

    /// Sends a whole IP packet that somebody else has written: a segment, or what a raw socket sends with its
    /// header. `meta` says what is left to be done, with offsets from the IP header.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(crate) fn try_send_packet(&mut self, packet: &[u8], meta: &FrameMeta) -> Result<(), DropReason> {
        let chain = chain::read(packet).ok_or(DropReason::IpMalformed)?;
        let spec = PacketSpec { src: Some(chain.src), ..PacketSpec::new(chain.dst, chain.protocol) };
        let path = self.path(&spec)?;
        let cleared;
        let packet = if self.path_mtu.may_fragment(path.dst) {
            cleared = header::without_df(packet);
            &cleared
        } else {
            packet
        };
        let meta = &fit_segments(packet, &chain, meta, path.mtu);
        if packet.len() > path.mtu && meta.gso.is_none() && path.hop != Hop::Looped {
            let id = match (path.src, path.dst) {
                (IpAddr::V6(src), IpAddr::V6(dst)) => self.ids.ipv6(src, dst),
                _ => u32::from(self.identification(&path, &spec)),
            };
            let mut whole = packet.to_vec();
            if let ChecksumState::Partial { start, offset } = meta.checksum {
                checksum::complete(&mut whole, start, offset);
            }
            return self.queue_fragments(&path, &whole, id);
        }
        self.queue(&path, packet.len(), meta, |room| room.copy_from_slice(packet))
    }

    /// Lets `write` write a whole IP packet of `len` bytes where it leaves from, and sends it, if its source is
    /// an address of ours. `write` says what is left to be done, with offsets from the IP header. What cannot
    /// be sent is counted.
    pub(crate) fn send_packet_with<R>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> (R, FrameMeta),
    ) -> R {
        let link_len = if self.medium == Medium::Ip { 0 } else { LINK_HEADER_LEN };
        let room = self.outbox.push(link_len + len, &FrameMeta::default(), |_| ());
        let frame = room.and_then(|()| self.outbox.last_mut());
        let Some(packet) = frame.and_then(|(frame, _)| frame.get_mut(link_len..)) else {
            self.count_drop(DropReason::OutboxFull);
            return write(&mut vec![0; len]).0;
        };
        let (result, meta) = write(packet);
        if let Err(reason) = self.place_last(link_len, &meta) {
            self.count_drop(reason);
        }
        result
    }

    /// Gives the last frame of the outbox its link header. If it is not for the link as it is, it is taken
    /// back, and sent as any other packet.
    fn place_last(&mut self, link_len: usize, meta: &FrameMeta) -> Result<(), DropReason> {
        let mac = match self.hop_of_last(link_len, meta) {
            Ok(Some(mac)) => mac,
            Ok(None) => {
                let frame = self.outbox.last_mut().map(|(frame, _)| frame.to_vec());
                self.outbox.retract();
                let packet = frame.as_deref().and_then(|frame| frame.get(link_len..));
                return self.try_send_packet(packet.unwrap_or_default(), meta);
            }
            Err(reason) => {
                self.outbox.retract();
                return Err(reason);
            }
        };
        let own = self.config.mac;
        if let Some((frame, _)) = self.outbox.last_mut()
            && let Some((link, packet)) = frame.split_at_mut_checked(link_len)
            && !link.is_empty()
        {
            let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
            write_link(link, mac, own, if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 });
        }
        Ok(())
    }

    /// The hardware address for the last frame of the outbox, if it goes out at once and as it is; what is to
    /// be done to it on its way is noted. `None`: there is more to be done.
    fn hop_of_last(
        &mut self,
        link_len: usize,
        meta: &FrameMeta,
    ) -> Result<Option<EthernetAddress>, DropReason> {
        let packet = self.outbox.last_mut().and_then(|(frame, _)| frame.get(link_len..));
        let chain = packet.and_then(chain::read).ok_or(DropReason::IpMalformed)?;
        if !self.addresses.is_local(chain.src) {
            return Err(DropReason::NoSource);
        }
        let spec = PacketSpec { src: Some(chain.src), ..PacketSpec::new(chain.dst, chain.protocol) };
        let path = self.path(&spec)?;
        if self.path_mtu.may_fragment(path.dst) {
            return Ok(None);
        }
        let Some((frame, last)) = self.outbox.last_mut() else { return Ok(None) };
        let packet = frame.get(link_len..).unwrap_or_default();
        let fitting = fit_segments(packet, &chain, meta, path.mtu);
        if packet.len() > path.mtu && fitting.gso.is_none() {
            return Ok(None);
        }
        *last = fitting.in_front(link_len as u16);
        Ok(match path.hop {
            Hop::Looped => None,
            Hop::Bare => Some(EthernetAddress([0; 6])),
            Hop::Link(mac) => Some(mac),
            Hop::Neighbor(neighbor) => match self.neighbors.lookup(self.now, neighbor) {
                Lookup::Known(mac) => Some(mac),
                Lookup::Pending | Lookup::Unreachable => None,
            },
        })
    }

    /// Queues a frame that is complete.
    pub(crate) fn queue_frame(&mut self, frame: &[u8], meta: &FrameMeta) {
        let queued = self.outbox.push(frame.len(), meta, |room| room.copy_from_slice(frame));
        if queued.is_none() {
            self.count_drop(DropReason::OutboxFull);
        }
    }
}

/// How a segment of TCP that is longer than its path takes is split on its way out: whoever wrote it did not know
/// the MTU of the path, and has set DF. One whose checksum is complete is left alone.
fn fit_segments(packet: &[u8], chain: &chain::Chain, meta: &FrameMeta, mtu: usize) -> FrameMeta {
    let headers = packet.get(chain.transport + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let headers = chain.transport + headers;
    let size = mtu.checked_sub(headers).and_then(|size| NonZeroU16::new(size.try_into().unwrap_or(u16::MAX)));
    let is_partial = matches!(meta.checksum, ChecksumState::Partial { .. });
    let (Some(size), TCP, true) = (size, chain.protocol, is_partial) else { return *meta };
    match meta.gso {
        Some(gso) if gso.size > size => FrameMeta { gso: Some(Gso { size, ..gso }), ..*meta },
        None if packet.len() > mtu => {
            let kind = if chain.src.is_ipv4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
            FrameMeta { gso: Some(Gso { kind, size, ecn: false }), ..*meta }
        }
        _ => *meta,
    }
}

/// Writes an Ethernet header.
pub(crate) fn write_link(room: &mut [u8], dst: EthernetAddress, src: EthernetAddress, ethertype: u16) {
    room[..6].copy_from_slice(&dst.0);
    room[6..12].copy_from_slice(&src.0);
    room[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

pub(crate) fn ethertype(dst: IpAddr) -> u16 {
    if dst.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
}

/// What the device is told of a packet; offsets are from the IP header.
fn frame_meta(header_len: usize, transport: Transport) -> FrameMeta {
    let checksum = match transport.checksum_at {
        Some(offset) => ChecksumState::Partial { start: header_len as u16, offset },
        None => ChecksumState::Complete,
    };
    let gso = transport.segment_bytes.map(|size| Gso { kind: GsoKind::Udp, size, ecn: false });
    FrameMeta { checksum, gso, ..FrameMeta::default() }
}

/// What a packet to ourselves is when it arrives: nobody has damaged it on the way.
fn received_meta(meta: &FrameMeta) -> FrameMeta {
    let checksum = match meta.checksum {
        ChecksumState::Complete => ChecksumState::Verified,
        partial => partial,
    };
    FrameMeta { checksum, ..*meta }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Bytes of an Ethernet header without tags.
pub(crate) const LINK_HEADER_LEN: usize = 14;
const UDP_HEADER_LEN: usize = 8;
/// Bytes of headers that a fragment needs beside its share.
const FRAGMENT_OVERHEAD: usize = 80;
/// Bytes of a packet to ourselves at most: the longest of IPv6, whose length field does not count the header.
pub(crate) const LOOPED_MTU: usize = 65_535 + 40;
