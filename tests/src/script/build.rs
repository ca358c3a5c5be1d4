//! Frames from packets: what is not written gets its usual value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

use super::names::tcp_options as tcp_option_bytes;
use super::packet::{Kind, Layer, Mutation, Packet, Value};
use super::tcp_options;

/// One end of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its hardware address.
    pub mac: EthernetAddress,
    /// Its IPv4 address, with the length of the prefix.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 address, with the length of the prefix.
    pub ipv6: Option<(Ipv6Addr, u8)>,
}

/// A frame from one end to the other.
pub(super) fn frame(packet: &Packet, from: &End, to: &End) -> Result<Vec<u8>, String> {
    let (layers, mutation) = match packet {
        Packet::Raw(bytes) => return Ok(bytes.clone()),
        Packet::Layers(layers, mutation) => (layers, mutation),
    };
    let (ethernet, rest) = match layers.split_first() {
        Some((first, rest)) if first.kind == Kind::Ethernet => (first.clone(), rest),
        _ => (Layer::new(Kind::Ethernet), &layers[..]),
    };
    let ends = Ends { from, to };
    let (ether_type, body, usual_destination) = match rest.first().map(|layer| layer.kind) {
        Some(Kind::Arp) => arp(&rest[0], &ends)?,
        Some(Kind::Ipv4) => ipv4(rest, &ends)?,
        Some(Kind::Ipv6) => ipv6(rest, &ends)?,
        Some(Kind::Data) => (0, rest[0].bytes("bytes").to_vec(), to.mac),
        Some(kind) => return Err(format!("{} needs ip or ip6 before it", kind.word())),
        None => (0, Vec::new(), to.mac),
    };
    let mut frame = Vec::with_capacity(14 + body.len());
    frame.extend(ethernet.mac("to").unwrap_or(usual_destination).0);
    frame.extend(ethernet.mac("from").unwrap_or(from.mac).0);
    frame.extend((ethernet.number("type").unwrap_or(ether_type) as u16).to_be_bytes());
    frame.extend(body);
    Ok(mutated(frame, *mutation))
}

fn mutated(mut frame: Vec<u8>, mutation: Mutation) -> Vec<u8> {
    if let Some(len) = mutation.truncate {
        frame.truncate(len);
    }
    frame.resize(frame.len() + mutation.pad, 0);
    frame
}

/// Where usual addresses come from.
struct Ends<'a> {
    from: &'a End,
    to: &'a End,
}

impl Ends<'_> {
    /// The same, in the other direction: of what an error quotes.
    fn reversed(&self) -> Ends<'_> {
        Ends { from: self.to, to: self.from }
    }

    fn ipv4(&self, layer: &Layer) -> Result<[Ipv4Addr; 2], String> {
        let pick = |name, end: &End| match layer.ip(name) {
            Some(IpAddr::V4(address)) => Ok(address),
            Some(address) => Err(format!("{address} is not of IPv4")),
            None => end.ipv4.map(|(address, _)| address).ok_or("host or peer has no IPv4 address".to_owned()),
        };
        Ok([pick("from", self.from)?, pick("to", self.to)?])
    }

    fn ipv6(&self, layer: &Layer) -> Result<[Ipv6Addr; 2], String> {
        let pick = |name, end: &End| match layer.ip(name) {
            Some(IpAddr::V6(address)) => Ok(address),
            Some(address) => Err(format!("{address} is not of IPv6")),
            None => end.ipv6.map(|(address, _)| address).ok_or("host or peer has no IPv6 address".to_owned()),
        };
        Ok([pick("from", self.from)?, pick("to", self.to)?])
    }
}

type Body = (u64, Vec<u8>, EthernetAddress);

fn arp(layer: &Layer, ends: &Ends<'_>) -> Result<Body, String> {
    let address = |name, end: &End| match layer.ip(name) {
        Some(IpAddr::V4(address)) => Ok(address),
        Some(address) => Err(format!("{address}: ARP is for IPv4")),
        None => end.ipv4.map(|(address, _)| address).ok_or("host or peer has no IPv4 address".to_owned()),
    };
    let op = layer.number("op").unwrap_or(1) as u16;
    let is_request = op == 1;
    let usual_target = if is_request { EthernetAddress([0; 6]) } else { ends.to.mac };
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(op.to_be_bytes());
    bytes.extend(layer.mac("sender-mac").unwrap_or(ends.from.mac).0);
    bytes.extend(address("sender", ends.from)?.octets());
    bytes.extend(layer.mac("target-mac").unwrap_or(usual_target).0);
    bytes.extend(address("target", ends.to)?.octets());
    let destination = if is_request { EthernetAddress::BROADCAST } else { ends.to.mac };
    Ok((0x0806, bytes, destination))
}

fn ipv4(layers: &[Layer], ends: &Ends<'_>) -> Result<Body, String> {
    let ip = &layers[0];
    let [from, to] = ends.ipv4(ip)?;
    let (protocol, mut payload) =
        payload(&layers[1..], &Addresses { from: from.into(), to: to.into() }, ends)?;
    let (mut id, mut position) = (ip.number("id").unwrap_or(0), 0);
    if let Some(fragment) = layers.get(1).filter(|layer| layer.kind == Kind::Fragment) {
        let (start, more, piece) = cut(fragment, &payload)?;
        id = fragment.number("id").unwrap_or(id);
        position = (start / 8) as u16 | if more { 0x2000 } else { 0 };
        payload = piece;
    }
    let mut options = ip.bytes("options").to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let header_len = 20 + options.len();
    if ip.is_set("df") {
        position |= 0x4000;
    }
    let mut bytes = vec![(ip.number_or_usual("version") as u8) << 4 | (header_len / 4) as u8];
    bytes.push(ip.number_or_usual("tos") as u8);
    let len = ip.number("len").unwrap_or((header_len + payload.len()) as u64) as u16;
    bytes.extend([len, id as u16, position].map(u16::to_be_bytes).as_flattened());
    bytes.push(ip.number_or_usual("ttl") as u8);
    bytes.push(ip.number("proto").unwrap_or(protocol) as u8);
    bytes.extend([0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(options);
    put_checksum(&mut bytes, 10, 0, ip);
    bytes.extend(payload);
    let destination = if to.is_multicast() {
        let [_, b, c, d] = to.octets();
        EthernetAddress([1, 0, 0x5e, b & 0x7f, c, d])
    } else if is_broadcast(to, ends) {
        EthernetAddress::BROADCAST
    } else {
        ends.to.mac
    };
    Ok((0x0800, bytes, destination))
}

/// Whether an address is the broadcast address of the prefix of one of the ends.
fn is_broadcast(address: Ipv4Addr, ends: &Ends<'_>) -> bool {
    let of_end = |end: &End| {
        end.ipv4.is_some_and(|(own, len)| {
            let host_bits = u32::MAX.checked_shr(len.into()).unwrap_or(0);
            host_bits > 1 && u32::from(own) | host_bits == u32::from(address)
        })
    };
    address.is_broadcast() || of_end(ends.from) || of_end(ends.to)
}

fn ipv6(layers: &[Layer], ends: &Ends<'_>) -> Result<Body, String> {
    let ip = &layers[0];
    let [from, to] = ends.ipv6(ip)?;
    let (next, payload) = payload(&layers[1..], &Addresses { from: from.into(), to: to.into() }, ends)?;
    let word = (ip.number_or_usual("version") as u32) << 28
        | (ip.number_or_usual("class") as u32 & 0xff) << 20
        | (ip.number_or_usual("flow") as u32 & 0xf_ffff);
    let mut bytes = word.to_be_bytes().to_vec();
    bytes.extend((ip.number("len").unwrap_or(payload.len() as u64) as u16).to_be_bytes());
    bytes.push(ip.number("next").unwrap_or(next) as u8);
    bytes.push(ip.number_or_usual("hop") as u8);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(payload);
    let destination = if to.is_multicast() {
        let [.., a, b, c, d] = to.octets();
        EthernetAddress([0x33, 0x33, a, b, c, d])
    } else {
        ends.to.mac
    };
    Ok((0x86dd, bytes, destination))
}

/// For the pseudo-header.
struct Addresses {
    from: IpAddr,
    to: IpAddr,
}

impl Addresses {
    /// The sum over the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
    fn sum(&self, protocol: u8, len: usize) -> u64 {
        let octets = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        sum(&octets(&self.from)) + sum(&octets(&self.to)) + u64::from(protocol) + len as u64
    }
}

/// What an IP header carries, and its protocol number.
fn payload(layers: &[Layer], addresses: &Addresses, ends: &Ends<'_>) -> Result<(u64, Vec<u8>), String> {
    let Some((layer, rest)) = layers.split_first() else {
        return Ok((59, Vec::new()));
    };
    if let Kind::Udp | Kind::Tcp | Kind::Icmpv4 | Kind::Icmpv6 | Kind::Igmp = layer.kind {
        let data = match rest {
            [] => &[],
            [data] if data.kind == Kind::Data => data.bytes("bytes"),
            [other, ..] => {
                return Err(format!("{} cannot be behind {}", other.kind.word(), layer.kind.word()));
            }
        };
        return transport(layer, data, addresses, ends);
    }
    match layer.kind {
        Kind::Data => Ok((59, layer.bytes("bytes").to_vec())),
        Kind::HopByHop | Kind::Destination | Kind::Routing => {
            let (next, inner) = payload(rest, addresses, ends)?;
            let (number, body) = extension(layer);
            let mut bytes =
                vec![layer.number("next").unwrap_or(next) as u8, ((body.len() + 2) / 8 - 1) as u8];
            bytes.extend(body);
            bytes.extend(inner);
            Ok((number, bytes))
        }
        Kind::Fragment => {
            let (next, inner) = payload(rest, addresses, ends)?;
            // In IPv4 this is a part of the header before it.
            if addresses.from.is_ipv4() {
                return Ok((layer.number("next").unwrap_or(next), inner));
            }
            let (start, more, piece) = cut(layer, &inner)?;
            let mut bytes = vec![layer.number("next").unwrap_or(next) as u8, 0];
            bytes.extend((start as u16 | u16::from(more)).to_be_bytes());
            bytes.extend((layer.number_or_usual("id") as u32).to_be_bytes());
            bytes.extend(piece);
            Ok((44, bytes))
        }
        _ => Err(format!("{} cannot be here", layer.kind.word())),
    }
}

/// Start, more to come, and content of a fragment.
fn cut(fragment: &Layer, whole: &[u8]) -> Result<(usize, bool, Vec<u8>), String> {
    let start = fragment.number_or_usual("start") as usize;
    let end = fragment.number("end").map_or(whole.len(), |end| end as usize);
    let piece = whole.get(start..end);
    let piece =
        piece.ok_or_else(|| format!("the fragment {start}..{end} is not within {} bytes", whole.len()))?;
    let more = fragment.number("more").map_or(end < whole.len(), |more| more != 0);
    let start = fragment.number("offset").map_or(start, |offset| offset as usize & 0xfff8);
    Ok((start, more, piece.to_vec()))
}

/// The number of an extension header, and what is behind its first two bytes.
fn extension(layer: &Layer) -> (u64, Vec<u8>) {
    if layer.kind == Kind::Routing {
        let kind = layer.number_or_usual("type");
        let mut body = vec![kind as u8, layer.number_or_usual("left") as u8, 0, 0, 0, 0];
        if let Some(IpAddr::V6(address)) = layer.ip("address") {
            body.extend(address.octets());
        }
        return (43, body);
    }
    let mut body = Vec::new();
    for option in layer.all("option") {
        if let Value::Number(code) = option {
            // Two bytes of content, as a router alert has them (RFC 2711).
            body.extend([*code as u8, 2, 0, 0]);
        }
    }
    // PadN up to a multiple of 8 with the two bytes before.
    let missing = (body.len() + 2).next_multiple_of(8) - 2 - body.len();
    if missing > 1 {
        body.extend([1, missing as u8 - 2]);
        body.resize(body.len() + missing - 2, 0);
    }
    (if layer.kind == Kind::HopByHop { 0 } else { 60 }, body)
}

/// A transport header with its data, and its protocol number.
fn transport(
    layer: &Layer,
    data: &[u8],
    addresses: &Addresses,
    ends: &Ends<'_>,
) -> Result<(u64, Vec<u8>), String> {
    let mut bytes = Vec::new();
    let (protocol, checksum_at, has_pseudo_header) = match layer.kind {
        Kind::Udp => {
            let len = layer.number("len").unwrap_or(8 + data.len() as u64);
            let words = [layer.number_or_usual("from"), layer.number_or_usual("to"), len, 0];
            bytes.extend(words.map(|word| (word as u16).to_be_bytes()).as_flattened());
            (17, 6, true)
        }
        Kind::Tcp => {
            tcp(layer, &mut bytes)?;
            (6, 16, true)
        }
        Kind::Icmpv4 => {
            icmpv4(layer, ends, &mut bytes)?;
            (1, 2, false)
        }
        Kind::Icmpv6 => {
            icmpv6(layer, ends, &mut bytes)?;
            (58, 2, true)
        }
        _ => {
            let group = match layer.ip("group") {
                Some(IpAddr::V4(group)) => group,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            bytes.extend([layer.number_or_usual("type") as u8, 0, 0, 0]);
            bytes.extend(group.octets());
            (2, 2, false)
        }
    };
    bytes.extend(data);
    let pseudo_header = if has_pseudo_header { addresses.sum(protocol, bytes.len()) } else { 0 };
    put_checksum(&mut bytes, checksum_at, pseudo_header, layer);
    Ok((protocol.into(), bytes))
}

fn tcp(layer: &Layer, bytes: &mut Vec<u8>) -> Result<(), String> {
    let options = tcp_option_bytes(&tcp_options::plain(layer.text("options")))?;
    let flags = layer.text("flags").chars().filter_map(|letter| "FSRPAUEW".find(letter));
    let flags = flags.fold(0u16, |sum, bit| sum | 1 << bit);
    let ports = [layer.number_or_usual("from"), layer.number_or_usual("to")];
    bytes.extend(ports.map(|port| (port as u16).to_be_bytes()).as_flattened());
    bytes.extend((layer.number_or_usual("seq") as u32).to_be_bytes());
    bytes.extend((layer.number_or_usual("ack") as u32).to_be_bytes());
    bytes.extend((((5 + options.len() / 4) as u16) << 12 | flags).to_be_bytes());
    bytes.extend((layer.number("win").unwrap_or(65_535) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend((layer.number_or_usual("urgent") as u16).to_be_bytes());
    bytes.extend(options);
    Ok(())
}

fn icmpv4(layer: &Layer, ends: &Ends<'_>, bytes: &mut Vec<u8>) -> Result<(), String> {
    bytes.extend([layer.number_or_usual("type") as u8, layer.number_or_usual("code") as u8, 0, 0]);
    let word = |high: u64, low: u64| ((high as u32) << 16 | (low as u32 & 0xffff)).to_be_bytes();
    bytes.extend(match layer.number_or_usual("type") {
        3 => word(0, layer.number_or_usual("mtu")),
        12 => word(layer.number_or_usual("pointer") << 8, 0),
        5 => match layer.ip("gateway") {
            Some(IpAddr::V4(gateway)) => gateway.octets(),
            _ => [0; 4],
        },
        _ => word(layer.number_or_usual("id"), layer.number_or_usual("seq")),
    });
    if let Some(Value::Packet(quoted)) = layer.get("quoting") {
        bytes.extend(ipv4(quoted, &ends.reversed())?.1);
    }
    Ok(())
}

fn icmpv6(layer: &Layer, ends: &Ends<'_>, bytes: &mut Vec<u8>) -> Result<(), String> {
    let kind = layer.number_or_usual("type");
    let word = |number: u64| (number as u32).to_be_bytes();
    let flag = |name: &str, bit: u32| u64::from(layer.is_set(name)) << bit;
    let address = |name: &str| match layer.ip(name) {
        Some(IpAddr::V6(address)) => address.octets(),
        _ => [0; 16],
    };
    bytes.extend([kind as u8, layer.number_or_usual("code") as u8, 0, 0]);
    bytes.extend(match kind {
        2 => word(layer.number_or_usual("mtu")),
        4 => word(layer.number_or_usual("pointer")),
        128 | 129 => word(layer.number_or_usual("id") << 16 | layer.number_or_usual("seq") & 0xffff),
        134 => word(
            layer.number_or_usual("hop-limit") << 24
                | flag("managed", 23)
                | flag("other", 22)
                | layer.number_or_usual("lifetime") & 0xffff,
        ),
        136 => word(flag("router", 31) | flag("solicited", 30) | flag("override", 29)),
        _ => word(0),
    });
    match kind {
        134 => bytes.extend([0; 8]),
        // An MLD message has its group where the target would be.
        130..=132 | 135 | 136 => bytes.extend(address("target")),
        137 => bytes.extend([address("target"), address("destination")].as_flattened()),
        _ => {}
    }
    for (name, code) in [("source-mac", 1), ("target-mac", 2)] {
        if let Some(mac) = layer.mac(name) {
            bytes.extend([code, 1]);
            bytes.extend(mac.0);
        }
    }
    if let Some(Value::Prefix(prefix, len)) = layer.get("prefix") {
        let flags = flag("on-link", 7) | flag("autonomous", 6);
        let valid = word(layer.number("valid").unwrap_or(3600));
        bytes.extend([3, 4, *len, flags as u8]);
        bytes.extend([valid, valid, [0; 4]].as_flattened());
        bytes.extend(prefix.octets());
    }
    if kind == 134 && layer.number("mtu").is_some() {
        bytes.extend([5, 1, 0, 0]);
        bytes.extend(word(layer.number_or_usual("mtu")));
    }
    if let Some(Value::Packet(quoted)) = layer.get("quoting") {
        bytes.extend(ipv6(quoted, &ends.reversed())?.1);
    }
    Ok(())
}

/// Fills a checksum in, or a wrong one, or the one that is written.
fn put_checksum(bytes: &mut [u8], at: usize, pseudo_header: u64, layer: &Layer) {
    let right = folded(sum(bytes) + pseudo_header);
    // 0 would say that there is none (RFC 768).
    let right = if layer.kind == Kind::Udp && right == 0 { 0xffff } else { right };
    let wrong = right ^ 0x5555;
    let checksum = if layer.is_set("bad-checksum") { wrong } else { right };
    let checksum = layer.number("checksum").map_or(checksum, |written| written as u16);
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The sum of 16-bit words (RFC 1071), not folded.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

/// The checksum of a sum.
pub(super) fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
