//! The few header fields that say whose a packet is. Every read is bounded by the slice it reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the IP headers of a packet say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// The transport protocol; for a later fragment of IPv6 the protocol that its fragment header
    /// names, which may be another extension header.
    pub(super) protocol: u8,
    /// A fragment that is not the first: `payload` does not begin with the transport header.
    pub(super) later_fragment: bool,
    /// What follows the IP headers, without the padding of the link.
    payload: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Reads the headers of an IPv4 or IPv6 packet, which may be cut short anywhere behind the
    /// fields that are needed (ICMP quotes packets so). `None`: not IP, or too short.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    /// RFC 791 section 3.1.
    fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(packet.first()? & 0x0f) * 4;
        if header_len < V4_HEADER_LEN_MIN {
            return None;
        }
        // A total length of 0 is that of a super-frame above 64 KB (BIG TCP): the frame's length
        // counts. So does it for a length that cannot be; the stack will judge that packet.
        let total_len = usize::from(u16_at(packet, 2)?);
        let end = if total_len < header_len { packet.len() } else { total_len.min(packet.len()) };
        let src: [u8; 4] = array_at(packet, 12)?;
        let dst: [u8; 4] = array_at(packet, 16)?;
        Some(Self {
            src: IpAddr::V4(Ipv4Addr::from(src)),
            dst: IpAddr::V4(Ipv4Addr::from(dst)),
            protocol: *packet.get(9)?,
            later_fragment: u16_at(packet, 6)? & V4_FRAGMENT_OFFSET != 0,
            payload: packet.get(header_len..end)?,
        })
    }

    /// RFC 8200 sections 3 and 4. Extension headers are walked, at most [`EXTENSION_HEADERS_MAX`].
    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let payload_len = usize::from(u16_at(packet, 4)?);
        // As for IPv4: 0 is a jumbogram or a super-frame above 64 KB.
        let end = if payload_len == 0 { packet.len() } else { packet.len().min(V6_HEADER_LEN + payload_len) };
        let src: [u8; 16] = array_at(packet, 8)?;
        let dst: [u8; 16] = array_at(packet, 24)?;
        let (src, dst) = (IpAddr::V6(Ipv6Addr::from(src)), IpAddr::V6(Ipv6Addr::from(dst)));
        let mut protocol = *packet.get(6)?;
        let mut payload = packet.get(V6_HEADER_LEN..end)?;
        for walked in 0.. {
            let header_len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(*payload.get(1)?) + 1) * 8,
                AUTHENTICATION => (usize::from(*payload.get(1)?) + 2) * 4,
                FRAGMENT => 8,
                _ => return Some(Self { src, dst, protocol, later_fragment: false, payload }),
            };
            if walked == EXTENSION_HEADERS_MAX {
                break;
            }
            let later_fragment = protocol == FRAGMENT && u16_at(payload, 2)? & V6_FRAGMENT_OFFSET != 0;
            protocol = *payload.first()?;
            payload = payload.get(header_len..)?;
            if later_fragment {
                return Some(Self { src, dst, protocol, later_fragment, payload });
            }
        }
        None
    }

    /// Source port of TCP or UDP.
    pub(super) fn src_port(&self) -> Option<u16> {
        if self.later_fragment { None } else { u16_at(self.payload, 0) }
    }

    /// Destination port of TCP or UDP.
    pub(super) fn dst_port(&self) -> Option<u16> {
        if self.later_fragment { None } else { u16_at(self.payload, 2) }
    }

    /// Whether it carries ICMP of the packet's own family, or a part of it.
    pub(super) fn is_icmp(&self) -> bool {
        self.protocol == if self.dst.is_ipv6() { ICMPV6 } else { ICMP }
    }

    /// The ICMP message of the packet's own family, if it carries one.
    pub(super) fn icmp(&self) -> Option<Icmp<'a>> {
        if !self.is_icmp() || self.later_fragment {
            return None;
        }
        Some(Icmp { v6: self.dst.is_ipv6(), kind: *self.payload.first()?, message: self.payload })
    }
}

/// An ICMP (RFC 792) or ICMPv6 (RFC 4443) message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Icmp<'a> {
    v6: bool,
    kind: u8,
    message: &'a [u8],
}

impl<'a> Icmp<'a> {
    pub(super) fn is_echo_request(self) -> bool {
        self.kind == if self.v6 { 128 } else { 8 }
    }

    pub(super) fn is_echo_reply(self) -> bool {
        self.kind == if self.v6 { 129 } else { 0 }
    }

    /// RFC 4861: router solicitation to redirect.
    pub(super) fn is_neighbor_discovery(self) -> bool {
        self.v6 && (133..=137).contains(&self.kind)
    }

    /// The beginning of the packet that an error is about.
    pub(super) fn quoted(self) -> Option<&'a [u8]> {
        let is_error = if self.v6 {
            // RFC 4443 section 2.1: errors have a zero in the high-order bit of the type.
            self.kind < 128
        } else {
            // Unreachable, source quench, redirect, time exceeded, parameter problem.
            matches!(self.kind, 3 | 4 | 5 | 11 | 12)
        };
        if is_error { self.message.get(ICMP_HEADER_LEN..) } else { None }
    }
}

/// EtherType and payload of a frame, behind at most two VLAN tags.
pub(super) fn ethernet(frame: &[u8]) -> Option<(u16, &[u8])> {
    let mut ethertype_at = 12;
    for _ in 0..VLAN_TAGS_MAX {
        match u16_at(frame, ethertype_at)? {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => ethertype_at += 4,
            _ => break,
        }
    }
    Some((u16_at(frame, ethertype_at)?, frame.get(ethertype_at + 2..)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(super) const ETHERTYPE_QINQ: u16 = 0x88a8;

// IANA protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const AUTHENTICATION: u8 = 51;
pub(super) const DESTINATION_OPTIONS: u8 = 60;

/// RFC 8200 section 4.1 lists six headers, one of which may come twice; real packets have one or two.
pub(super) const EXTENSION_HEADERS_MAX: usize = 8;
const VLAN_TAGS_MAX: usize = 2;

const V4_HEADER_LEN_MIN: usize = 20;
const V6_HEADER_LEN: usize = 40;
const ICMP_HEADER_LEN: usize = 8;
const V4_FRAGMENT_OFFSET: u16 = 0x1fff;
const V6_FRAGMENT_OFFSET: u16 = 0xfff8;
