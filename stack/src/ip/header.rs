//! IP headers of what we send: bytes from a [`PacketSpec`] and what was chosen for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::demux::KeyedHash;
use crate::egress::packet::PacketSpec;
use crate::observe::DropReason;
use crate::random::Random;

#[cfg(test)]
mod tests;

/// Bytes of the header that [`write()`] makes, with options and extension headers.
pub fn header_len(spec: &PacketSpec) -> usize {
    match (spec.dst, spec.router_alert) {
        (IpAddr::V4(_), false) => IPV4_HEADER_LEN,
        (IpAddr::V4(_), true) => IPV4_HEADER_LEN + IPV4_ROUTER_ALERT.len(),
        (IpAddr::V6(_), false) => IPV6_HEADER_LEN,
        (IpAddr::V6(_), true) => IPV6_HEADER_LEN + HOP_BY_HOP_LEN,
    }
}

/// The TTL or hop limit of a packet: what its sender says, or 1 to a group (RFC 1112 section 6.1), or that
/// of the interface.
pub fn hop_limit(spec: &PacketSpec, of_interface: u8) -> u8 {
    spec.hop_limit.unwrap_or(if spec.dst.is_multicast() { 1 } else { of_interface })
}

/// Writes the header of a packet with `payload_len` bytes behind it to the start of `room`, and returns its
/// length. `hop_limit` counts if the sender left it open ([`hop_limit()`]); `identification` is for IPv4
/// ([`IdGenerator::ipv4`]). The flow label of IPv6 is 0, which says that there is none (RFC 6437 section 2).
///
/// # Errors
/// [`DropReason::NoSource`]: source and destination are of different families. [`DropReason::TooLong`]: no
/// IP packet is as long, or `room` is shorter than [`header_len`].
pub fn write(
    spec: &PacketSpec,
    src: IpAddr,
    hop_limit: u8,
    payload_len: usize,
    identification: u16,
    room: &mut [u8],
) -> Result<usize, DropReason> {
    let hop_limit = self::hop_limit(spec, hop_limit);
    match (src, spec.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            write_ipv4(spec, [src, dst], hop_limit, payload_len, identification, room)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => write_ipv6(spec, [src, dst], hop_limit, payload_len, room),
        _ => Err(DropReason::NoSource),
    }
}

fn write_ipv4(
    spec: &PacketSpec,
    [src, dst]: [Ipv4Addr; 2],
    hop_limit: u8,
    payload_len: usize,
    identification: u16,
    room: &mut [u8],
) -> Result<usize, DropReason> {
    let len = header_len(spec);
    let total = len.checked_add(payload_len).and_then(|total| u16::try_from(total).ok());
    let total = total.ok_or(DropReason::TooLong)?.to_be_bytes();
    let id = identification.to_be_bytes();
    let version_and_len = if spec.router_alert { 0x46 } else { 0x45 };
    let flags = if spec.dont_fragment { 0x40 } else { 0 };
    let (s, d) = (src.octets(), dst.octets());
    #[rustfmt::skip]
    let mut header = [
        version_and_len, spec.traffic_class, total[0], total[1],
        id[0], id[1], flags, 0,
        hop_limit, spec.protocol, 0, 0,
        s[0], s[1], s[2], s[3],
        d[0], d[1], d[2], d[3],
    ];
    let options: &[u8] = if spec.router_alert { &IPV4_ROUTER_ALERT } else { &[] };
    let checksum = !fold(sum(&header) + sum(options));
    [header[10], header[11]] = checksum.to_be_bytes();
    let (start, rest) = room.split_first_chunk_mut().ok_or(DropReason::TooLong)?;
    *start = header;
    rest.get_mut(..options.len()).ok_or(DropReason::TooLong)?.copy_from_slice(options);
    Ok(len)
}

fn write_ipv6(
    spec: &PacketSpec,
    [src, dst]: [Ipv6Addr; 2],
    hop_limit: u8,
    payload_len: usize,
    room: &mut [u8],
) -> Result<usize, DropReason> {
    let len = header_len(spec);
    let behind = payload_len.checked_add(len - IPV6_HEADER_LEN).and_then(|len| u16::try_from(len).ok());
    let behind = behind.ok_or(DropReason::TooLong)?;
    let room = room.get_mut(..len).ok_or(DropReason::TooLong)?;
    let (header, extension) = room.split_first_chunk_mut::<IPV6_HEADER_LEN>().ok_or(DropReason::TooLong)?;
    let next_header = if spec.router_alert { HOP_BY_HOP } else { spec.protocol };
    // Version, traffic class and flow label.
    header[..4].copy_from_slice(&(6 << 28 | u32::from(spec.traffic_class) << 20).to_be_bytes());
    header[4..6].copy_from_slice(&behind.to_be_bytes());
    header[6] = next_header;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&src.octets());
    header[24..].copy_from_slice(&dst.octets());
    if spec.router_alert {
        // Router Alert of MLD (RFC 2711 section 2.1), and PadN of two bytes.
        extension.copy_from_slice(&[spec.protocol, 0, 5, 2, 0, 0, 1, 0]);
    }
    Ok(len)
}

/// A copy of an IPv4 packet with DF cleared; of another packet, just a copy.
pub(crate) fn without_df(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let Some(&version_and_len) = packet.first().filter(|first| *first >> 4 == 4) else { return packet };
    if let Some(header) = packet.get_mut(..usize::from(version_and_len & 0xf) * 4)
        && let Some(flags) = header.get_mut(6)
    {
        *flags &= !0x40;
        fill_ipv4_checksum(header);
    }
    packet
}

/// Writes the checksum of an IPv4 header, options included, into it. What is too short stays as it is.
pub(super) fn fill_ipv4_checksum(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let checksum = !fold(sum(header));
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The sum of half-words (RFC 1071), with carries in the high half. Headers are of an even length.
fn sum(bytes: &[u8]) -> u32 {
    let (halves, _) = bytes.as_chunks::<2>();
    halves.iter().map(|half| u32::from(u16::from_be_bytes(*half))).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    // No more than 2^16: what carries over now is one.
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Where identifications come from: a counter for each pair of addresses that begins at a secret place, so
/// that none repeats soon and a stranger cannot tell how much we send to others (RFC 7739 section 5.3).
///
/// Pairs share counters by a keyed hash; a shared counter only makes the steps larger.
#[derive(Debug, Clone)]
pub struct IdGenerator {
    hash: KeyedHash,
    counters: Box<[u32; ID_COUNTERS]>,
}

impl IdGenerator {
    /// A generator with secrets of its own.
    pub fn new(random: &mut Random) -> Self {
        let hash = KeyedHash::new(random);
        let mut counters = Box::new([0; ID_COUNTERS]);
        counters.fill_with(|| random.u32());
        Self { hash, counters }
    }

    /// The identification of an IPv4 packet: 0 where nobody needs one, as it is not to be fragmented.
    pub fn ipv4(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, dont_fragment: bool) -> u16 {
        //= rfc6864#4.1
        //# Originating sources MAY set the IPv4 ID field of atomic datagrams
        //# to any value.
        if dont_fragment {
            return 0;
        }
        // The low half: a counter that goes up by one repeats after 65536.
        let addresses = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
        self.next([addresses, protocol.into()]) as u16
    }

    /// The identification of an IPv6 packet that is going to be fragmented.
    pub fn ipv6(&mut self, src: Ipv6Addr, dst: Ipv6Addr) -> u32 {
        let halves = |ip: Ipv6Addr| [(ip.to_bits() >> 64) as u64, ip.to_bits() as u64];
        let ([a, b], [c, d]) = (halves(src), halves(dst));
        self.next([a, b, c, d])
    }

    fn next<const N: usize>(&mut self, flow: [u64; N]) -> u32 {
        // Two independent functions of the flow: two halves of one.
        let hash = self.hash.words(flow);
        let start = hash as u32;
        // The remainder is below the length.
        let index = (hash >> 32) as usize % ID_COUNTERS;
        let counter = &mut self.counters[index];
        *counter = counter.wrapping_add(1);
        start.wrapping_add(*counter)
    }
}

pub(super) const IPV4_HEADER_LEN: usize = 20;
pub(super) const IPV6_HEADER_LEN: usize = 40;
/// Next Header of the hop-by-hop options header.
pub(super) const HOP_BY_HOP: u8 = 0;
const HOP_BY_HOP_LEN: usize = 8;
/// Type with the copied flag, length, value 0: routers look at the packet (RFC 2113 section 2.1).
const IPV4_ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// Counters of identifications: 2 KB.
const ID_COUNTERS: usize = 512;
