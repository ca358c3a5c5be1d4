//! Packets from frames, with all their fields. Nothing is refused: what cannot be read is data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

use super::build::{folded, sum};
use super::names::tcp_options_text;
use super::packet::{Kind, Layer, Value};

/// All layers of a frame.
pub(super) fn frame(bytes: &[u8]) -> Vec<Layer> {
    let Some((header, body)) = bytes.split_at_checked(14) else {
        return vec![Layer::data(bytes)];
    };
    let ether_type = word(header, 12);
    let ethernet = Layer::new(Kind::Ethernet)
        .with("from", Value::Mac(mac(header, 6)))
        .with("to", Value::Mac(mac(header, 0)))
        .with_number("type", ether_type);
    let mut layers = vec![ethernet];
    match ether_type {
        0x0806 if body.len() >= 28 => layers.push(arp(body)),
        0x0800 => ipv4(body, &mut layers),
        0x86dd => ipv6(body, &mut layers),
        _ => layers.push(Layer::data(body)),
    }
    layers
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

fn mac(bytes: &[u8], at: usize) -> EthernetAddress {
    let octets = bytes.get(at..at + 6).and_then(|octets| octets.try_into().ok());
    EthernetAddress(octets.unwrap_or([0; 6]))
}

fn address_v4(bytes: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from(long(bytes, at)).into()
}

fn address_v6(bytes: &[u8], at: usize) -> IpAddr {
    let octets: Option<[u8; 16]> = bytes.get(at..at + 16).and_then(|octets| octets.try_into().ok());
    Ipv6Addr::from(octets.unwrap_or([0; 16])).into()
}

fn arp(body: &[u8]) -> Layer {
    Layer::new(Kind::Arp)
        .with_number("op", word(body, 6))
        .with("sender-mac", Value::Mac(mac(body, 8)))
        .with("sender", Value::Ip(address_v4(body, 14)))
        .with("target-mac", Value::Mac(mac(body, 18)))
        .with("target", Value::Ip(address_v4(body, 24)))
}

/// What is known about what a header carries.
struct Around {
    from: IpAddr,
    to: IpAddr,
    /// A piece of a packet, or less of it: no checksum can be right.
    is_part: bool,
}

fn ipv4(bytes: &[u8], layers: &mut Vec<Layer>) {
    let header_len = usize::from(bytes.first().copied().unwrap_or(0) & 0xf) * 4;
    if header_len < 20 || bytes.len() < header_len {
        layers.push(Layer::data(bytes));
        return;
    }
    let total_len = usize::from(word(bytes, 2));
    let (header, rest) = bytes.split_at(header_len);
    let body = rest.get(..total_len.saturating_sub(header_len)).unwrap_or(rest);
    let (id, position) = (word(bytes, 4), word(bytes, 6));
    let (from, to) = (address_v4(header, 12), address_v4(header, 16));
    layers.push(
        Layer::new(Kind::Ipv4)
            .with("from", Value::Ip(from))
            .with("to", Value::Ip(to))
            .with_number("version", bytes[0] >> 4)
            .with_number("ttl", header[8])
            .with_number("tos", header[1])
            .with_number("id", id)
            .with_number("df", position >> 14 & 1)
            .with("options", Value::Bytes(header[20..].to_vec()))
            .with_number("proto", header[9])
            .with_number("len", word(bytes, 2))
            .with_number("bad-checksum", u8::from(folded(sum(header)) != 0)),
    );
    let start = u64::from(position & 0x1fff) * 8;
    let more = position >> 13 & 1;
    let around = Around { from, to, is_part: start > 0 || more > 0 || rest.len() + header_len < total_len };
    if start > 0 || more > 0 {
        layers.push(fragment(id.into(), start, body.len(), more, header[9]));
    }
    payload(header[9], body, start > 0, &around, layers);
}

fn fragment(id: u32, start: u64, len: usize, more: u16, next: u8) -> Layer {
    Layer::new(Kind::Fragment)
        .with_number("id", id)
        .with_number("start", start)
        .with_number("end", start + len as u64)
        .with_number("more", more)
        .with_number("next", next)
}

fn ipv6(bytes: &[u8], layers: &mut Vec<Layer>) {
    let Some((header, rest)) = bytes.split_at_checked(40) else {
        layers.push(Layer::data(bytes));
        return;
    };
    let len = usize::from(word(header, 4));
    let body = rest.get(..len).unwrap_or(rest);
    let (from, to) = (address_v6(header, 8), address_v6(header, 24));
    let first = long(header, 0);
    layers.push(
        Layer::new(Kind::Ipv6)
            .with("from", Value::Ip(from))
            .with("to", Value::Ip(to))
            .with_number("version", first >> 28)
            .with_number("hop", header[7])
            .with_number("class", first >> 20 & 0xff)
            .with_number("flow", first & 0xf_ffff)
            .with_number("next", header[6])
            .with_number("len", word(header, 4)),
    );
    let around = Around { from, to, is_part: rest.len() < len };
    extensions(header[6], body, around, layers);
}

fn extensions(mut next: u8, mut body: &[u8], mut around: Around, layers: &mut Vec<Layer>) {
    loop {
        let len = match next {
            44 => 8,
            0 | 43 | 60 => usize::from(body.get(1).copied().unwrap_or(0)) * 8 + 8,
            _ => return payload(next, body, false, &around, layers),
        };
        let Some((header, rest)) = body.split_at_checked(len) else {
            layers.push(Layer::data(body));
            return;
        };
        match next {
            44 => {
                let position = word(header, 2);
                let (start, more) = (u64::from(position & 0xfff8), position & 1);
                layers.push(fragment(long(header, 4), start, rest.len(), more, header[0]));
                around.is_part |= start > 0 || more > 0;
                if start > 0 {
                    return payload(header[0], rest, true, &around, layers);
                }
            }
            43 => layers.push(routing(header)),
            _ => layers.push(options(if next == 0 { Kind::HopByHop } else { Kind::Destination }, header)),
        }
        (next, body) = (header[0], rest);
    }
}

fn routing(header: &[u8]) -> Layer {
    let layer = Layer::new(Kind::Routing).with_number("type", header[2]).with_number("left", header[3]);
    let layer =
        if header.len() >= 24 { layer.with("address", Value::Ip(address_v6(header, 8))) } else { layer };
    layer.with_number("next", header[0])
}

fn options(kind: Kind, header: &[u8]) -> Layer {
    let mut layer = Layer::new(kind);
    let mut rest = &header[2..];
    while let [code, behind @ ..] = rest {
        if *code == 0 {
            rest = behind;
            continue;
        }
        let len = usize::from(behind.first().copied().unwrap_or(0));
        if *code != 1 {
            layer = layer.with_number("option", *code);
        }
        rest = rest.get(2 + len..).unwrap_or(&[]);
    }
    layer.with_number("next", header[0])
}

/// What is behind the IP headers.
fn payload(protocol: u8, body: &[u8], is_later_part: bool, around: &Around, layers: &mut Vec<Layer>) {
    let (layer, header_len) = match protocol {
        _ if is_later_part => (None, 0),
        17 if body.len() >= 8 => (Some(udp(body, around)), 8),
        6 if body.len() >= 20 => {
            let header_len = (usize::from(body[12] >> 4) * 4).clamp(20, body.len());
            (Some(tcp(body, header_len, around)), header_len)
        }
        1 if body.len() >= 8 => return icmpv4(body, around, layers),
        58 if body.len() >= 8 => return icmpv6(body, around, layers),
        2 if body.len() >= 8 => {
            // A report of version 3 has its first group behind the head of a record.
            let group = address_v4(body, if body[0] == 0x22 { 12 } else { 4 });
            let layer = Layer::new(Kind::Igmp).with_number("type", body[0]).with("group", Value::Ip(group));
            (Some(layer), body.len())
        }
        _ => (None, 0),
    };
    layers.extend(layer);
    push_data(&body[header_len..], layers);
}

fn push_data(bytes: &[u8], layers: &mut Vec<Layer>) {
    if !bytes.is_empty() {
        layers.push(Layer::data(bytes));
    }
}

/// Whether a checksum is wrong, as far as one can tell.
fn is_bad(protocol: Option<u8>, body: &[u8], around: &Around) -> u8 {
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    let pseudo_header = protocol.map_or(0, |protocol| {
        octets(&around.from) + octets(&around.to) + u64::from(protocol) + body.len() as u64
    });
    u8::from(!around.is_part && folded(sum(body) + pseudo_header) != 0)
}

fn udp(body: &[u8], around: &Around) -> Layer {
    let checksum = word(body, 6);
    let is_bad = if checksum == 0 { 0 } else { is_bad(Some(17), body, around) };
    Layer::new(Kind::Udp)
        .with_number("from", word(body, 0))
        .with_number("to", word(body, 2))
        .with_number("len", word(body, 4))
        .with_number("checksum", checksum)
        .with_number("bad-checksum", is_bad)
}

fn tcp(body: &[u8], header_len: usize, around: &Around) -> Layer {
    let bits = body[13];
    let flags = "FSRPAUEW".chars().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    Layer::new(Kind::Tcp)
        .with_number("from", word(body, 0))
        .with_number("to", word(body, 2))
        .with("flags", Value::Text(flags.map(|(_, letter)| letter).collect()))
        .with_number("seq", long(body, 4))
        .with_number("ack", long(body, 8))
        .with_number("win", word(body, 14))
        .with_number("urgent", word(body, 18))
        .with("options", Value::Text(tcp_options_text(&body[20..header_len])))
        .with_number("bad-checksum", is_bad(Some(6), body, around))
}

fn icmpv4(body: &[u8], around: &Around, layers: &mut Vec<Layer>) {
    let mut layer = Layer::new(Kind::Icmpv4).with_number("type", body[0]).with_number("code", body[1]);
    layer = match body[0] {
        3 if body[1] == 4 => layer.with_number("mtu", word(body, 6)),
        12 => layer.with_number("pointer", body[4]),
        5 => layer.with("gateway", Value::Ip(address_v4(body, 4))),
        0 | 8 | 13 | 14 => layer.with_number("id", word(body, 4)).with_number("seq", word(body, 6)),
        _ => layer,
    };
    layer = layer.with_number("bad-checksum", is_bad(None, body, around));
    if let 3 | 4 | 5 | 11 | 12 = body[0] {
        let mut quoted = Vec::new();
        ipv4(&body[8..], &mut quoted);
        layers.push(layer.with("quoting", Value::Packet(quoted)));
    } else {
        layers.push(layer);
        push_data(&body[8..], layers);
    }
}

fn icmpv6(body: &[u8], around: &Around, layers: &mut Vec<Layer>) {
    let mut layer = Layer::new(Kind::Icmpv6).with_number("type", body[0]).with_number("code", body[1]);
    let flag = |bit: u32| (long(body, 4) >> bit & 1) as u8;
    let mut options_at = None;
    layer = match body[0] {
        2 => layer.with_number("mtu", long(body, 4)),
        4 => layer.with_number("pointer", long(body, 4)),
        128 | 129 => layer.with_number("id", word(body, 4)).with_number("seq", word(body, 6)),
        130..=132 => layer.with("target", Value::Ip(address_v6(body, 8))),
        133 => {
            options_at = Some(8);
            layer
        }
        134 => {
            options_at = Some(16);
            layer
                .with_number("hop-limit", body[4])
                .with_number("managed", flag(23))
                .with_number("other", flag(22))
                .with_number("lifetime", word(body, 6))
        }
        135 => {
            options_at = Some(24);
            layer.with("target", Value::Ip(address_v6(body, 8)))
        }
        136 => {
            options_at = Some(24);
            layer
                .with("target", Value::Ip(address_v6(body, 8)))
                .with_number("router", flag(31))
                .with_number("solicited", flag(30))
                .with_number("override", flag(29))
        }
        137 => {
            options_at = Some(40);
            let target = Value::Ip(address_v6(body, 8));
            layer.with("target", target).with("destination", Value::Ip(address_v6(body, 24)))
        }
        _ => layer,
    };
    layer = layer.with_number("bad-checksum", is_bad(Some(58), body, around));
    if body[0] < 128 {
        let mut quoted = Vec::new();
        ipv6(&body[8..], &mut quoted);
        layers.push(layer.with("quoting", Value::Packet(quoted)));
    } else if let Some(at) = options_at {
        layers.push(neighbor_options(body.get(at..).unwrap_or(&[]), layer));
    } else {
        let data = if let 130..=132 = body[0] { body.get(24..).unwrap_or(&[]) } else { &body[8..] };
        layers.push(layer);
        push_data(data, layers);
    }
}

/// Options of neighbour discovery (RFC 4861 section 4.6).
fn neighbor_options(mut rest: &[u8], mut layer: Layer) -> Layer {
    while let [code, len, ..] = *rest {
        let len = usize::from(len) * 8;
        let Some(option) = rest.get(..len).filter(|option| !option.is_empty()) else {
            break;
        };
        layer = match (code, len) {
            (1, _) => layer.with("source-mac", Value::Mac(mac(option, 2))),
            (2, _) => layer.with("target-mac", Value::Mac(mac(option, 2))),
            (3, 32) => {
                let prefix = match address_v6(option, 16) {
                    IpAddr::V6(prefix) => prefix,
                    IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
                };
                layer
                    .with("prefix", Value::Prefix(prefix, option[2]))
                    .with_number("on-link", option[3] >> 7)
                    .with_number("autonomous", option[3] >> 6 & 1)
                    .with_number("valid", long(option, 4))
            }
            (5, 8) => layer.with_number("mtu", long(option, 4)),
            _ => layer,
        };
        rest = &rest[len..];
    }
    layer
}
