//! Frames written by hand, for those who are not a shard: routers, attackers, tests.
//!
//! It shares no code with the stack, checksums included.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A hardware address.
pub type Mac = [u8; 6];

/// The broadcast address of the link.
pub const BROADCAST: Mac = [0xff; 6];
/// Numbers of protocols.
pub const ICMP: u8 = 1;
/// As above.
pub const UDP: u8 = 17;
/// As above.
pub const ICMPV6: u8 = 58;
/// As above.
pub const TCP: u8 = 6;
/// The fragment header of IPv6.
pub const FRAGMENT: u8 = 44;

/// The internet checksum of several pieces, each but the last of even length (RFC 1071).
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for piece in pieces {
        // Four bytes at a time give the same after folding: 2^16 is 1 modulo 2^16 - 1.
        let (words, rest) = piece.as_chunks::<4>();
        sum += words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum::<u64>();
        for pair in rest.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame.
pub fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// An Ethernet frame with an IP packet, whose version says the EtherType.
pub fn framed(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    ethernet(dst, src, if is_v6 { 0x86dd } else { 0x0800 }, packet)
}

/// The fields of an IPv4 header that matter here.
#[derive(Debug, Clone, Copy)]
pub struct V4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Number of the protocol.
    pub protocol: u8,
    /// TTL.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, as they are in the header.
    pub fragment: u16,
}

impl V4 {
    /// A header with TTL 64 that is no fragment.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Self {
        Self { src, dst, protocol, ttl: 64, id: 1, fragment: 0 }
    }

    /// The packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend((20 + payload.len() as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.src.octets());
        header.extend(self.dst.octets());
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(payload);
        header
    }
}

/// An IPv6 packet.
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, hop_limit]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// The fragment header of IPv6 with what follows it; `offset` in bytes.
pub fn fragment_v6(next_header: u8, id: u32, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next_header, 0];
    header.extend((offset & !7 | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(payload);
    header
}

/// An IP packet of either version, hop limit 64.
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => V4::new(src, dst, protocol).packet(payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, protocol, 64, payload),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ip in [src, dst] {
        match ip {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Whether the checksum of a transport with its pseudo header is right.
pub fn is_sum_right(src: IpAddr, dst: IpAddr, protocol: u8, bytes: &[u8]) -> bool {
    checksum(&[&pseudo_header(src, dst, protocol, bytes.len()), bytes]) == 0
}

/// The sum of a pseudo header, folded and not inverted: what stands in for an absent checksum.
pub fn pseudo_sum(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u16 {
    !checksum(&[&pseudo_header(src, dst, protocol, len)])
}

/// A TCP segment without options and with the largest window, checksum included.
pub fn tcp(src: SocketAddr, dst: SocketAddr, seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    let pseudo = pseudo_header(src.ip(), dst.ip(), TCP, bytes.len());
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A UDP header with its payload, checksum included.
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let mut bytes =
        [src.port().to_be_bytes(), dst.port().to_be_bytes(), (len as u16).to_be_bytes(), [0; 2]].concat();
    bytes.extend(payload);
    let pseudo = pseudo_header(src.ip(), dst.ip(), UDP, len);
    let sum = match checksum(&[&pseudo, &bytes]) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A UDP datagram in its packet.
pub fn udp_packet(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    packet(src.ip(), dst.ip(), UDP, &udp(src, dst, payload))
}

/// An ICMP message: `rest` is the second word.
pub fn icmp_v4(kind: u8, code: u8, rest: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(payload);
    let sum = checksum(&[&bytes]);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMPv6 message between two addresses, which its checksum covers.
pub fn icmp_v6(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, code: u8, rest: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(payload);
    let pseudo = pseudo_header(src.into(), dst.into(), ICMPV6, bytes.len());
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMP message of either version in its packet, from `src` to `dst`.
pub fn icmp_packet(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: u32, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ipv6(from, to, ICMPV6, 64, &icmp_v6(from, to, kind, code, rest, payload))
        }
        _ => packet(src, dst, ICMP, &icmp_v4(kind, code, rest, payload)),
    }
}

/// An echo request of either version in its packet.
pub fn echo_request(src: IpAddr, dst: IpAddr, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let kind = if src.is_ipv4() { 8 } else { 128 };
    icmp_packet(src, dst, kind, 0, u32::from(identifier) << 16 | u32::from(sequence), data)
}

/// An ARP message for Ethernet and IPv4: operation 1 asks, 2 answers.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        bytes.extend(mac);
        bytes.extend(ip.octets());
    }
    bytes
}

/// A neighbour solicitation in its packet, from `src` with its hardware address.
pub fn solicitation(src: Ipv6Addr, mac: Mac, dst: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut body = target.octets().to_vec();
    if !src.is_unspecified() {
        body.extend([1, 1]);
        body.extend(mac);
    }
    ipv6(src, dst, ICMPV6, 255, &icmp_v6(src, dst, 135, 0, 0, &body))
}

/// A neighbour advertisement in its packet. `flags`: the first octet, router, solicited, override.
pub fn advertisement(src: Ipv6Addr, dst: Ipv6Addr, flags: u8, target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut body = target.octets().to_vec();
    body.extend([2, 1]);
    body.extend(mac);
    ipv6(src, dst, ICMPV6, 255, &icmp_v6(src, dst, 136, 0, u32::from(flags) << 24, &body))
}

/// The group in which an address is asked for.
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The hardware address of a group.
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// A TCP segment whose header is whole.
#[derive(Debug, Clone, Copy)]
pub struct TcpView<'a>(&'a [u8]);

impl<'a> TcpView<'a> {
    /// `None`: the header is cut, or its length is none.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let len = usize::from(bytes.get(12)? >> 4) * 4;
        (len >= 20 && bytes.len() >= len).then_some(Self(bytes))
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn word(&self, at: usize) -> u32 {
        u32::from(self.half(at)) << 16 | u32::from(self.half(at + 2))
    }

    /// Port of the sender.
    pub fn src_port(&self) -> u16 {
        self.half(0)
    }

    /// Port of the receiver.
    pub fn dst_port(&self) -> u16 {
        self.half(2)
    }

    /// Sequence number.
    pub fn seq(&self) -> u32 {
        self.word(4)
    }

    /// Acknowledgment number.
    pub fn ack(&self) -> u32 {
        self.word(8)
    }

    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// Reserved bits, which are 0 (the lowest is AE of RFC 9768).
    pub fn reserved(&self) -> u8 {
        self.0[12] & 15
    }

    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
    pub fn flags(&self) -> u8 {
        self.0[13]
    }

    /// The window as it is in the header.
    pub fn window(&self) -> u16 {
        self.half(14)
    }

    /// The urgent pointer.
    pub fn urgent(&self) -> u16 {
        self.half(18)
    }

    /// Options.
    pub fn options(&self) -> &'a [u8] {
        &self.0[20..self.header_len()]
    }

    /// Data.
    pub fn payload(&self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }

    /// Kind and content of each option, up to the end; `None` in place of one that is cut.
    pub fn each_option(&self) -> impl Iterator<Item = Option<(u8, &'a [u8])>> + use<'a> {
        let mut rest = self.options();
        std::iter::from_fn(move || {
            while let [1, tail @ ..] = rest {
                rest = tail;
            }
            match rest {
                [] | [0, ..] => None,
                [kind, len, ..] if *len >= 2 && rest.len() >= usize::from(*len) => {
                    let content = &rest[2..usize::from(*len)];
                    rest = &rest[usize::from(*len)..];
                    Some(Some((*kind, content)))
                }
                _ => {
                    rest = &[];
                    Some(None)
                }
            }
        })
    }
}

impl fmt::Display for TcpView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set = names.iter().enumerate().filter(|(bit, _)| self.flags() >> bit & 1 == 1);
        let flags: Vec<&str> = set.map(|(_, name)| *name).collect();
        write!(f, "[{}] seq {} len {}", flags.join(" "), self.seq(), self.payload().len())?;
        write!(f, " ack {} win {}", self.ack(), self.window())?;
        let word = |bytes: &[u8]| bytes.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        for option in self.each_option() {
            match option {
                Some((2, mss)) => write!(f, " mss {}", word(mss))?,
                Some((3, shift)) => write!(f, " wscale {}", word(shift))?,
                Some((4, _)) => write!(f, " sackOK")?,
                Some((5, blocks)) => {
                    for block in blocks.chunks(8) {
                        let (from, to) = block.split_at(block.len() / 2);
                        write!(f, " sack {}-{}", word(from), word(to))?;
                    }
                }
                Some((8, times)) => {
                    let (val, ecr) = times.split_at(times.len() / 2);
                    write!(f, " ts {} {}", word(val), word(ecr))?;
                }
                Some((kind, content)) => write!(f, " option {kind} of {} bytes", content.len())?,
                None => write!(f, " an option that is cut")?,
            }
        }
        Ok(())
    }
}
