//! The ICMP error that is due for a packet, if it is: RFC 1122 section 3.2.2 and RFC 4443 section 2.4(e)
//! say when there must be none, and that comes before all reasons to send one.

use std::net::IpAddr;

use wirestack_nic::offload::sum;

use super::chain::{self, Chain};
use crate::egress::{Outgoing, PacketSpec};
use crate::ingress::IpPacket;
use crate::udp::header::pseudo_header_sum;

/// What a sender is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorToSend {
    /// Nobody is at the port.
    PortUnreachable,
    /// Nobody here speaks the protocol. For IPv6 this is a parameter problem, and the pointer is found.
    ProtocolUnreachable,
    /// A host does not answer.
    HostUnreachable,
    /// There is no route.
    NetUnreachable,
    /// It is not allowed.
    Prohibited,
    /// The fragments did not all come in time; the packet is the first of them.
    ReassemblyTimeExceeded,
    /// The hop limit came to 0.
    HopLimitExceeded,
    /// Longer than the link takes.
    TooBig {
        /// Bytes of the longest packet that it takes.
        mtu: u32,
    },
    /// A field of the header is wrong.
    ParameterProblem {
        /// 0: the field; of ICMPv6 also 1: an unknown next header, 2: an unknown option.
        code: u8,
        /// Where it is, in bytes from the start of the packet.
        pointer: u32,
    },
}

impl ErrorToSend {
    /// Type, code, and the last four bytes of the header.
    fn header(self, chain: &Chain) -> (u8, u8, u32) {
        if chain.src.is_ipv4() {
            return match self {
                Self::NetUnreachable => (3, 0, 0),
                Self::HostUnreachable => (3, 1, 0),
                Self::ProtocolUnreachable => (3, 2, 0),
                Self::PortUnreachable => (3, 3, 0),
                Self::TooBig { mtu } => (3, 4, mtu.min(0xffff)),
                Self::Prohibited => (3, 13, 0),
                Self::HopLimitExceeded => (11, 0, 0),
                Self::ReassemblyTimeExceeded => (11, 1, 0),
                // One byte of pointer is enough for a header of 60.
                Self::ParameterProblem { pointer, .. } => (12, 0, pointer << 24),
            };
        }
        match self {
            Self::NetUnreachable => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            Self::TooBig { mtu } => (2, 0, mtu),
            Self::HopLimitExceeded => (3, 0, 0),
            Self::ReassemblyTimeExceeded => (3, 1, 0),
            Self::ParameterProblem { code, pointer } => (4, code, pointer),
            Self::ProtocolUnreachable => (4, 1, chain.protocol_at as u32),
        }
    }

    /// Whether it is due for packets to many as well (RFC 4443 section 2.4(e.3)).
    fn answers_groups(self, chain: &Chain) -> bool {
        let is_exception = matches!(self, Self::TooBig { .. } | Self::ParameterProblem { code: 2, .. });
        is_exception && chain.src.is_ipv6()
    }
}

/// The error that tells the sender of a packet what is wrong with it. `None`: none may be sent.
///
/// `was_broadcast` says whether the frame was for a group or for everybody on the link, or the packet
/// for a broadcast address of a prefix of ours, which cannot be seen here. `packet_bytes_max` is the
/// length of the whole error at most, if that is less than 576 (IPv4) or 1280 (IPv6).
///
/// Whether there have been too many already, a [`Limiter`](super::Limiter) knows: ask it before.
pub fn error_for(
    frame: &[u8],
    ip: &IpPacket,
    was_broadcast: bool,
    kind: ErrorToSend,
    packet_bytes_max: usize,
) -> Option<Outgoing> {
    let packet = frame.get(ip.start..ip.end)?;
    let chain = chain::read(packet)?;
    if !may_answer(packet, &chain, was_broadcast, kind) {
        return None;
    }
    let is_v4 = chain.src.is_ipv4();
    let (ip_header_bytes, bytes_max) =
        if is_v4 { (20, ERROR_V4_BYTES_MAX) } else { (40, ERROR_V6_BYTES_MAX) };
    let quote_bytes_max = bytes_max.min(packet_bytes_max).saturating_sub(ip_header_bytes + 8);
    //= rfc1812#4.3.2.3
    //# the ICMP datagram SHOULD contain as much of the original datagram as
    //# possible without the length of the ICMP datagram exceeding 576 bytes.
    //= rfc4443#2.4
    //# (c) Every ICMPv6 error message (type < 128) MUST include as much of
    //# the IPv6 offending (invoking) packet (the packet that caused the
    //# error) as possible without making the error message packet exceed
    //# the minimum IPv6 MTU
    let quote = packet.get(..quote_bytes_max).unwrap_or(packet);
    let (icmp_type, code, rest) = kind.header(&chain);
    let mut payload = Vec::with_capacity(8 + quote.len());
    payload.extend([icmp_type, code, 0, 0]);
    payload.extend(rest.to_be_bytes());
    payload.extend(quote);
    // From the address it came to, if that is one that can be a source.
    let src = Some(chain.dst).filter(|dst| !dst.is_multicast() && !was_broadcast);
    fill_checksum(&mut payload, src, chain.src);
    let spec = PacketSpec {
        src,
        //= rfc1122#3.2.2
        //# An ICMP error message SHOULD be sent with normal (i.e., zero)
        //# TOS bits.
        traffic_class: 0,
        ..PacketSpec::new(chain.src, super::protocol_for(chain.src))
    };
    Some(Outgoing { spec, payload })
}

/// Whether an error may be sent in answer to a packet.
fn may_answer(packet: &[u8], chain: &Chain, was_broadcast: bool, kind: ErrorToSend) -> bool {
    //= rfc1122#3.2.2
    //# An ICMP error message MUST NOT be sent as the result of
    //# receiving:
    //# *    an ICMP error message, or
    //# *    a datagram destined to an IP broadcast or IP multicast
    //# address, or
    //# *    a datagram sent as a link-layer broadcast, or
    //# *    a non-initial fragment, or
    //# *    a datagram whose source address does not define a single
    //# host -- e.g., a zero address, a loopback address, a
    //# broadcast address, a multicast address, or a Class E
    //# address.
    // RFC 4443 section 2.4 does not except later fragments, and RFC 8200 section 4.5 wants their sender told what
    // is wrong with them.
    let is_about_fragment =
        chain.src.is_ipv6() && matches!(kind, ErrorToSend::ParameterProblem { code: 0, .. });
    let is_to_many = was_broadcast || is_group_or_broadcast(chain.dst);
    (!is_to_many || kind.answers_groups(chain))
        && (chain.fragment_offset == 0 || is_about_fragment)
        && is_one_host(chain.src, chain.dst)
        && !is_icmp_error(packet, chain, kind)
}

fn is_group_or_broadcast(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// Whether `src` can be told something. A loopback address can if it speaks to one: that packet has not
/// been on a wire, and its sender is here.
fn is_one_host(src: IpAddr, dst: IpAddr) -> bool {
    let is_single = match src {
        IpAddr::V4(ip) => !matches!(ip.octets(), [0, ..] | [224..=255, ..]),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    is_single && (!src.is_loopback() || dst.is_loopback())
}

/// Whether a packet carries an ICMP error, or a redirect, or something that cannot be told from one.
fn is_icmp_error(packet: &[u8], chain: &Chain, kind: ErrorToSend) -> bool {
    let icmp_type = packet.get(chain.transport).copied();
    match (chain.src.is_ipv4(), chain.protocol) {
        // Queries and their answers. What is unknown may be an error.
        (true, super::PROTOCOL_V4) => !matches!(icmp_type, Some(0 | 8..=10 | 13..=18)),
        (false, super::PROTOCOL_V6) => !matches!(icmp_type, Some(128..=136 | 138..)),
        // A chain that is cut short or too long may hide an error. That of a header itself is told (RFC
        // 7112 section 5): whoever sends an error makes no such chain.
        (false, protocol) if chain::is_extension(protocol) => {
            !matches!(kind, ErrorToSend::ParameterProblem { .. })
        }
        _ => false,
    }
}

/// Writes the checksum of a whole message, whatever was in its place. That of ICMPv6 covers the source: without
/// one it is 0, and whoever chooses the source calls this again.
pub fn fill_checksum(message: &mut [u8], src: Option<IpAddr>, dst: IpAddr) {
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
    }
    let pseudo = match (src, dst) {
        (_, IpAddr::V4(_)) => 0,
        (Some(src), dst) => pseudo_header_sum(src, dst, super::PROTOCOL_V6, message.len()),
        (None, _) => return,
    };
    let checksum = !sum::combine(&[pseudo, sum::data(message)]);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Bytes of an error over IPv4 at most (RFC 1812 section 4.3.2.3).
pub const ERROR_V4_BYTES_MAX: usize = 576;
/// The same over IPv6: its least MTU (RFC 4443 section 2.4(c)).
pub const ERROR_V6_BYTES_MAX: usize = 1280;

#[cfg(test)]
pub(crate) mod tests;
