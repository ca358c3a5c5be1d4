//! The flow hash: one number for both directions of a flow.
//!
//! It is made of operations that classic BPF has, so that [`program`](super::program) computes the same.
//! It spreads flows well; it is no secret: who can watch which flows meet can find the seed.

use std::net::{IpAddr, SocketAddr};

use crate::filter::packet::{
    AUTHENTICATION, DESTINATION_OPTIONS, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN,
    EXTENSION_HEADERS_MAX, FRAGMENT, Fragments, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, TCP, UDP, V4_FRAGMENT,
    V4_LATER_FRAGMENT, V6_HEADER_LEN, VLAN_TAGS_MAX,
};

/// The flow hash of an Ethernet frame, for a group whose members all know `seed`.
///
/// | frame | hash of |
/// |---|---|
/// | TCP, UDP | addresses, protocol, ports |
/// | a fragment, the first one too | addresses, protocol: later ones have no ports, and all must meet |
/// | an ICMP error about TCP or UDP | addresses, protocol and ports of the packet that it quotes |
/// | other IP | addresses, protocol |
/// | other frames, and what ends before a field that is needed | nothing: it is 0 |
///
/// Up to two VLAN tags are skipped and do not count. Up to four extension headers of IPv6 are skipped;
/// the protocol of a packet with more is the number of the fifth. The protocol of an IPv6 fragment is
/// that of its fragment header, because later fragments need not tell another. A packet in one piece
/// with a fragment header (RFC 6946) is no fragment. An error about a first fragment has its ports.
///
/// Total: any bytes get an answer.
pub fn flow_hash(seed: u32, frame: &[u8]) -> u32 {
    network(frame).and_then(|(ethertype, packet)| hash_packet(seed, ethertype, packet)).unwrap_or(0)
}

/// As [`flow_hash`], of an IP packet (a device of `Medium::Ip`): its first four bits say the version.
pub fn flow_hash_of_packet(seed: u32, packet: &[u8]) -> u32 {
    let ethertype = match packet.first().map(|first| first >> 4) {
        Some(4) => ETHERTYPE_IPV4,
        Some(6) => ETHERTYPE_IPV6,
        _ => return 0,
    };
    hash_packet(seed, ethertype, packet).unwrap_or(0)
}

/// The flow hash that the frames of a flow will have, in both directions: `protocol` is the number of TCP
/// (6) or UDP (17). Of another protocol, or of fragments, it is that of ports 0.
///
/// Both ends are of one family; which is local and which is remote makes no difference. A frame has no
/// IPv4-mapped addresses, so neither should these.
pub fn flow_hash_of(seed: u32, local: SocketAddr, remote: SocketAddr, protocol: u8) -> u32 {
    let end = |end: SocketAddr| {
        let address = match end.ip() {
            IpAddr::V4(address) => u32::from(address),
            IpAddr::V6(address) => fold_v6(&address.octets()),
        };
        (spread(seed, address), u32::from(end.port()))
    };
    combine(end(local), end(remote), protocol.into())
}

/// Which of `shards` a hash belongs to: what the kernel does with the result of a fanout program. Of no
/// shards, it is 0.
pub fn shard_of(hash: u32, shards: usize) -> usize {
    (hash as usize).checked_rem(shards).unwrap_or(0)
}

/// One word of an IPv6 address. The order of words matters, so that addresses with the same words in
/// another order differ.
pub(super) fn fold_v6(octets: &[u8; 16]) -> u32 {
    let (words, _) = octets.as_chunks::<4>();
    words.iter().fold(0, |folded: u32, word| folded.wrapping_mul(FOLD) ^ u32::from_be_bytes(*word))
}

/// The part of an end that is known with its address.
fn spread(seed: u32, address: u32) -> u32 {
    (address ^ seed).wrapping_mul(SPREAD)
}

/// The ends are added, so that their order does not matter; each is mixed before, so that a higher port
/// at one end does not make up for a lower one at the other.
fn combine(a: (u32, u32), b: (u32, u32), protocol: u32) -> u32 {
    let end = |(address, port): (u32, u32)| {
        let end = address.wrapping_add(port).wrapping_mul(END);
        end ^ (end >> END_SHIFT)
    };
    let flow = (end(a).wrapping_add(end(b)) ^ protocol).wrapping_mul(FLOW);
    flow ^ (flow >> FLOW_SHIFT)
}

/// EtherType and payload behind at most two VLAN tags.
fn network(frame: &[u8]) -> Option<(u32, &[u8])> {
    let mut at = 12;
    for _ in 0..VLAN_TAGS_MAX {
        match u16_at(frame, at)? {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => at += 4,
            _ => break,
        }
    }
    Some((u16_at(frame, at)?, frame.get(at + 2..)?))
}

/// `None`: not IP, or it ends before a field that is needed.
fn hash_packet(seed: u32, ethertype: u32, packet: &[u8]) -> Option<u32> {
    match ethertype {
        ETHERTYPE_IPV4 => hash_v4(seed, packet),
        ETHERTYPE_IPV6 => hash_v6(seed, packet),
        _ => None,
    }
}

fn hash_v4(seed: u32, packet: &[u8]) -> Option<u32> {
    let ends = ends_v4(seed, packet)?;
    let protocol = u8_at(packet, 9)?;
    if u16_at(packet, 6)? & V4_FRAGMENT != 0 {
        return Some(combine_addresses(ends, protocol));
    }
    let payload = packet.get(header_len_v4(packet)?..).unwrap_or_default();
    match protocol {
        TCP | UDP => combine_ports(ends, payload, protocol),
        // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
        ICMP if matches!(u8_at(payload, 0)?, 3 | 4 | 5 | 11 | 12) => {
            let quoted = payload.get(ICMP_HEADER_LEN..)?;
            let inner = u8_at(quoted, 9)?;
            if !matches!(inner, TCP | UDP) || u16_at(quoted, 6)? & V4_LATER_FRAGMENT != 0 {
                return Some(combine_addresses(ends, protocol));
            }
            combine_ports(ends_v4(seed, quoted)?, quoted.get(header_len_v4(quoted)?..)?, inner)
        }
        _ => Some(combine_addresses(ends, protocol)),
    }
}

fn hash_v6(seed: u32, packet: &[u8]) -> Option<u32> {
    let ends = ends_v6(seed, packet)?;
    let Walked::Payload(protocol, payload) = walk_v6(packet, Fragments::All)? else {
        return Some(combine_addresses(ends, FRAGMENT));
    };
    match protocol {
        TCP | UDP => combine_ports(ends, payload, protocol),
        // RFC 4443 section 2.1: errors have a zero in the high-order bit of the type.
        ICMPV6 if u8_at(payload, 0)? < 128 => {
            let quoted = payload.get(ICMP_HEADER_LEN..)?;
            match walk_v6(quoted, Fragments::Later)? {
                Walked::Payload(inner @ (TCP | UDP), ports) => {
                    combine_ports(ends_v6(seed, quoted)?, ports, inner)
                }
                _ => Some(combine_addresses(ends, protocol)),
            }
        }
        _ => Some(combine_addresses(ends, protocol)),
    }
}

enum Walked<'a> {
    Fragment,
    Payload(u32, &'a [u8]),
}

/// As [`crate::filter::packet::walk_v6`].
fn walk_v6(packet: &[u8], fragments: Fragments) -> Option<Walked<'_>> {
    let mut protocol = u8_at(packet, 6)?;
    let mut rest = packet.get(V6_HEADER_LEN as usize..).unwrap_or_default();
    for _ in 0..EXTENSION_HEADERS_MAX {
        let len = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (u8_at(rest, 1)? + 1) * 8,
            AUTHENTICATION => (u8_at(rest, 1)? + 2) * 4,
            FRAGMENT if u16_at(rest, 2)? & fragments.mask_v6() != 0 => return Some(Walked::Fragment),
            FRAGMENT => 8,
            _ => break,
        };
        // Found from behind the header, as the program does.
        protocol = u8_at(rest, 0)?;
        rest = rest.get(len as usize..).unwrap_or_default();
    }
    Some(Walked::Payload(protocol, rest))
}

type Ends = (u32, u32);

fn ends_v4(seed: u32, packet: &[u8]) -> Option<Ends> {
    Some((spread(seed, u32_at(packet, 12)?), spread(seed, u32_at(packet, 16)?)))
}

fn ends_v6(seed: u32, packet: &[u8]) -> Option<Ends> {
    let end = |at| -> Option<u32> { Some(spread(seed, fold_v6(&array_at(packet, at)?))) };
    Some((end(8)?, end(24)?))
}

fn combine_addresses((src, dst): Ends, protocol: u32) -> u32 {
    combine((src, 0), (dst, 0), protocol)
}

fn combine_ports((src, dst): Ends, payload: &[u8], protocol: u32) -> Option<u32> {
    Some(combine((src, u16_at(payload, 0)?), (dst, u16_at(payload, 2)?), protocol))
}

/// Of any four bits, also of those that no valid header has.
fn header_len_v4(packet: &[u8]) -> Option<usize> {
    Some((u8_at(packet, 0)? & 0xf) as usize * 4)
}

fn u8_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at).map(|byte| u32::from(*byte))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(|bytes| u32::from(u16::from_be_bytes(bytes)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_be_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) const ICMP_HEADER_LEN: usize = 8;

// Odd, so that multiplying loses nothing; their bits are irregular. Two are the golden ratio and the
// prime of xxHash32 that is next to it, two are the ones of MurmurHash3's finaliser.
pub(super) const SPREAD: u32 = 0x9e37_79b1;
pub(super) const FOLD: u32 = 0x85eb_ca77;
pub(super) const END: u32 = 0x85eb_ca6b;
pub(super) const FLOW: u32 = 0xc2b2_ae35;
pub(super) const END_SHIFT: u32 = 15;
pub(super) const FLOW_SHIFT: u32 = 16;
