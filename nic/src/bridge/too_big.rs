//! Frames that are longer than the other side carries: who is told, and how.
//!
//! | frame | what happens |
//! |---|---|
//! | IPv4 with DF | ICMP fragmentation needed, with the MTU (RFC 1191 section 4) |
//! | IPv4 without DF | fragmented, see [`fragment`](super::fragment) |
//! | IPv6 | ICMPv6 packet too big (RFC 4443 section 3.2) |
//! | anything else | dropped |
//!
//! A bump in the wire has no address. Its answers come from the address that the packet was sent to, and
//! from the hardware address that the frame was sent to: the sender trusts those, and nobody else is
//! disturbed. So packets to groups are never answered, although RFC 4443 section 2.4 (e.3) would allow it
//! for IPv6: a group cannot be a source. The other rules on whom not to answer are those of RFC 1122
//! section 3.2.2, RFC 1812 section 4.3.2.7 and RFC 4443 section 2.4 (e).

use smoltcp::wire::{
    EthernetAddress, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet,
    Ipv6Packet,
};

use crate::offload::layout::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, IPV4_HEADER_LEN, IPV6_HEADER_LEN, half,
};
use crate::offload::{ETHERNET_HEADER_LEN, VLAN_TAG_LEN};

/// Bytes of the longest frame like this one that a link with this MTU carries: a VLAN tag comes on top, a
/// second one does not (`packet_extra_vlan_len_allowed` of net/packet/af_packet.c).
pub(super) fn frame_len_max(frame: &[u8], mtu: usize) -> usize {
    let is_tagged = half(frame, ETHERNET_HEADER_LEN - 2) == Some(ETHERTYPE_VLAN);
    ETHERNET_HEADER_LEN + mtu + if is_tagged { VLAN_TAG_LEN } else { 0 }
}

/// What is to become of a frame that is too long. It is one that a wire carries: no super-frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The sender is told, if it may be.
    Answer(Packet),
    /// It is fragmented. The packet begins at this byte.
    Fragment(usize),
    /// Nobody can be told, and nothing can be done.
    Drop,
}

/// Where a packet is in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    V4 { network: usize },
    V6 { network: usize },
}

impl Fate {
    pub(super) fn of(frame: &[u8]) -> Self {
        match network(frame) {
            Some((network, ETHERTYPE_IPV4)) => match Ipv4Packet::new_checked(&frame[network..]) {
                Ok(packet) if packet.version() != 4 => Self::Drop,
                Ok(packet) if packet.dont_frag() => Self::Answer(Packet::V4 { network }),
                Ok(_) => Self::Fragment(network),
                Err(_) => Self::Drop,
            },
            Some((network, ETHERTYPE_IPV6)) => match Ipv6Packet::new_checked(&frame[network..]) {
                Ok(packet) if packet.version() == 6 => Self::Answer(Packet::V6 { network }),
                _ => Self::Drop,
            },
            _ => Self::Drop,
        }
    }
}

/// Where the packet begins, past two VLAN tags at most, and its EtherType.
fn network(frame: &[u8]) -> Option<(usize, u16)> {
    let mut network = ETHERNET_HEADER_LEN;
    let mut ethertype = half(frame, network - 2)?;
    for _ in 0..2 {
        let (ETHERTYPE_VLAN | ETHERTYPE_QINQ) = ethertype else { break };
        network += VLAN_TAG_LEN;
        ethertype = half(frame, network - 2)?;
    }
    (network <= frame.len()).then_some((network, ethertype))
}

impl Packet {
    /// Writes the frame that tells the sender of `frame` the longest packet that passes, in bytes, into
    /// `answer`. `false`: this sender may not be told; `answer` is empty.
    pub(super) fn answer(self, frame: &[u8], packet_len_max: usize, answer: &mut Vec<u8>) -> bool {
        answer.clear();
        let to_one = |offset: usize| {
            let address = frame.get(offset..offset + 6).map(EthernetAddress::from_bytes);
            address.is_some_and(|address| address.is_unicast())
        };
        if !to_one(0) || !to_one(6) {
            return false;
        }
        match self {
            Self::V4 { network } => answer_v4(frame, network, packet_len_max, answer),
            Self::V6 { network } => answer_v6(frame, network, packet_len_max, answer),
        }
        .is_some()
    }
}

fn answer_v4(frame: &[u8], network: usize, packet_len_max: usize, answer: &mut Vec<u8>) -> Option<()> {
    let packet = Ipv4Packet::new_checked(frame.get(network..)?).ok()?;
    let (src, dst) = (packet.src_addr(), packet.dst_addr());
    let is_host = !(src.is_unspecified() || src.is_multicast() || src.is_broadcast() || src.is_loopback());
    if !is_host || dst.is_multicast() || dst.is_broadcast() || packet.frag_offset() != 0 {
        return None;
    }
    let is_error = |kind: u8| matches!(kind, 3 | 4 | 5 | 11 | 12);
    if packet.next_header() == IpProtocol::Icmp && packet.payload().first().copied().is_none_or(is_error) {
        return None;
    }
    let quote_len = usize::from(packet.total_len()).min(ICMPV4_PACKET_LEN_MAX - IPV4_HEADER_LEN - ICMP_LEN);
    let packet_len = IPV4_HEADER_LEN + ICMP_LEN + quote_len;
    write_link(frame, network, packet_len, answer);

    let mut reply = Ipv4Packet::new_unchecked(&mut answer[network..]);
    reply.set_version(4);
    reply.set_header_len(IPV4_HEADER_LEN as u8);
    // Internetwork control: RFC 1812 section 4.3.2.5.
    reply.set_dscp(0xc0 >> 2);
    // At most 576.
    reply.set_total_len(packet_len as u16);
    // Never fragmented, so it needs no identification (RFC 6864 section 4.1).
    reply.set_dont_frag(true);
    reply.set_hop_limit(HOP_LIMIT);
    reply.set_next_header(IpProtocol::Icmp);
    reply.set_src_addr(dst);
    reply.set_dst_addr(src);
    reply.fill_checksum();
    let message = reply.payload_mut();
    message[6..8].copy_from_slice(&u16::try_from(packet_len_max).unwrap_or(u16::MAX).to_be_bytes());
    message[ICMP_LEN..].copy_from_slice(&frame[network..network + quote_len]);
    let mut message = Icmpv4Packet::new_unchecked(message);
    message.set_msg_type(Icmpv4Message::DstUnreachable);
    message.set_msg_code(FRAGMENTATION_NEEDED);
    message.fill_checksum();
    Some(())
}

fn answer_v6(frame: &[u8], network: usize, packet_len_max: usize, answer: &mut Vec<u8>) -> Option<()> {
    let packet = Ipv6Packet::new_checked(frame.get(network..)?).ok()?;
    let (src, dst) = (packet.src_addr(), packet.dst_addr());
    if src.is_unspecified() || src.is_multicast() || src.is_loopback() || dst.is_multicast() {
        return None;
    }
    if may_not_be_answered(packet.next_header(), packet.payload()) {
        return None;
    }
    let quote_len = packet.total_len().min(IPV6_MTU_MIN - IPV6_HEADER_LEN - ICMP_LEN);
    write_link(frame, network, IPV6_HEADER_LEN + ICMP_LEN + quote_len, answer);

    let mut reply = Ipv6Packet::new_unchecked(&mut answer[network..]);
    reply.set_version(6);
    // At most 1 240.
    reply.set_payload_len((ICMP_LEN + quote_len) as u16);
    reply.set_next_header(IpProtocol::Icmpv6);
    reply.set_hop_limit(HOP_LIMIT);
    reply.set_src_addr(dst);
    reply.set_dst_addr(src);
    let message = reply.payload_mut();
    message[ICMP_LEN..].copy_from_slice(&frame[network..network + quote_len]);
    let mut message = Icmpv6Packet::new_unchecked(message);
    message.set_msg_type(Icmpv6Message::PktTooBig);
    message.set_msg_code(0);
    message.set_pkt_too_big_mtu(u32::try_from(packet_len_max).unwrap_or(u32::MAX));
    message.fill_checksum(&dst, &src);
    Some(())
}

/// Whether an IPv6 packet carries an ICMPv6 error (types below 128) or redirect, behind any extension headers.
/// One whose headers cannot be followed might, and counts as one.
fn may_not_be_answered(first: IpProtocol, payload: &[u8]) -> bool {
    let (mut next, mut rest) = (first, payload);
    for _ in 0..EXTENSIONS_MAX {
        let len = match next {
            IpProtocol::Icmpv6 => {
                return rest.first().is_none_or(|kind| *kind < 128 || *kind == REDIRECT);
            }
            IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                8 * (1 + rest.get(1).copied().map_or(0, usize::from))
            }
            IpProtocol::Ipv6Frag => match half(rest, 2) {
                // Of a later fragment it cannot be known; it is no error message by itself.
                Some(offset) if offset & 0xfff8 == 0 => 8,
                _ => return false,
            },
            _ => return false,
        };
        let (Some(after), Some(&protocol)) = (rest.get(len..), rest.first()) else { return true };
        (next, rest) = (protocol.into(), after);
    }
    true
}

/// Makes `answer` a frame back to the sender, with the tags of `frame` and room for a packet.
fn write_link(frame: &[u8], network: usize, packet_len: usize, answer: &mut Vec<u8>) {
    answer.extend_from_slice(&frame[6..12]);
    answer.extend_from_slice(&frame[..6]);
    answer.extend_from_slice(&frame[12..network]);
    answer.resize(network + packet_len, 0);
}

/// Code 4 of destination unreachable.
const FRAGMENTATION_NEEDED: u8 = 4;
/// Bytes of both ICMP headers.
const ICMP_LEN: usize = 8;
/// RFC 1812 section 4.3.2.3: as much of the packet as fits into 576 bytes.
const ICMPV4_PACKET_LEN_MAX: usize = 576;
/// RFC 4443 section 3.2: as much of the packet as fits into the smallest MTU of IPv6.
const IPV6_MTU_MIN: usize = 1280;
/// Of ICMPv6: RFC 4443 section 2.4 (e.2).
const REDIRECT: u8 = 137;
const HOP_LIMIT: u8 = 64;
/// Bound of the walk through extension headers; real packets have one or two.
const EXTENSIONS_MAX: usize = 8;
