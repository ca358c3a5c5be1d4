//! What `ingress::classify` promises, said once more: by recursion over what is left of a packet, with the
//! views of smoltcp, and slow. Where the two differ, one of them is wrong.

use std::net::IpAddr;

use smoltcp::phy::Medium;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet,
};
use wirestack::ingress::{Body, FragmentInfo, IpPacket, Link, Packet, Problem};
use wirestack::observe::DropReason;

/// As `ingress::classify`.
pub fn classify(medium: Medium, frame: &[u8]) -> Result<Packet, DropReason> {
    if medium == Medium::Ip {
        let version = frame.first().ok_or(DropReason::IpTruncated)?;
        let body = match version >> 4 {
            4 => ipv4(frame, 0)?,
            6 => ipv6(frame, 0)?,
            _ => return Err(DropReason::IpMalformed),
        };
        return Ok(Packet { link: None, body: Body::Ip(body) });
    }
    let view = EthernetFrame::new_checked(frame).map_err(|_| DropReason::LinkTruncated)?;
    let (src, dst) = (view.src_addr(), view.dst_addr());
    tagged(frame, src, dst, view.ethertype(), view.payload(), &[])
}

/// What follows an EtherType; `tags` are those before it, as (EtherType, identifier).
fn tagged(
    frame: &[u8],
    src: EthernetAddress,
    dst: EthernetAddress,
    ethertype: EthernetProtocol,
    payload: &[u8],
    tags: &[(u16, u16)],
) -> Result<Packet, DropReason> {
    let start = frame.len() - payload.len();
    let body = match (u16::from(ethertype), tags) {
        (0x8100, [] | [_]) | (0x88a8, []) => {
            let (tag, rest) = payload.split_at_checked(4).ok_or(DropReason::LinkTruncated)?;
            let identifier = u16::from_be_bytes([tag[0], tag[1]]) % 4096;
            let inner = EthernetProtocol::from(u16::from_be_bytes([tag[2], tag[3]]));
            let tags = [tags, &[(ethertype.into(), identifier)]].concat();
            return tagged(frame, src, dst, inner, rest, &tags);
        }
        (0x8100 | 0x88a8, _) => return Err(DropReason::LinkVlan),
        (0x0800, _) => Body::Ip(ipv4(frame, start)?),
        (0x86dd, _) => Body::Ip(ipv6(frame, start)?),
        (0x0806, _) if payload.len() < 28 => return Err(DropReason::ArpMalformed),
        (0x0806, _) => Body::Arp(start),
        _ => return Err(DropReason::LinkUnknownType),
    };
    let vlans = [tags.first(), tags.get(1)].map(|tag| tag.map(|(_, identifier)| *identifier));
    Ok(Packet { link: Some(Link { src, dst, vlans, len: start as u16 }), body })
}

fn ipv4(frame: &[u8], start: usize) -> Result<IpPacket, DropReason> {
    let packet = &frame[start..];
    if packet.len() < 20 {
        return Err(DropReason::IpTruncated);
    }
    let view = Ipv4Packet::new_unchecked(packet);
    let (header_len, total_len) = (usize::from(view.header_len()), usize::from(view.total_len()));
    if view.version() != 4 || header_len < 20 || total_len < header_len {
        return Err(DropReason::IpMalformed);
    }
    if total_len > packet.len() {
        return Err(DropReason::IpTruncated);
    }
    if !view.verify_checksum() {
        return Err(DropReason::IpChecksum);
    }
    let router_alert = ipv4_options(&packet[20..header_len])?.contains(&148);
    let protocol = u8::from(view.next_header());
    let payload = &packet[header_len..total_len];
    let transport = start + header_len;
    let offset = usize::from(view.frag_offset());
    let fragment = (view.more_frags() || offset > 0).then(|| FragmentInfo {
        id: view.ident().into(),
        offset,
        more: view.more_frags(),
        payload: transport,
        next_header_at: start + 9,
        header_at: transport,
        next_header: protocol,
    });
    if fragment.is_some() {
        let is_uneven = view.more_frags() && !payload.len().is_multiple_of(8);
        if is_uneven || offset + total_len > 65_535 {
            return Err(DropReason::FragmentMalformed);
        }
        match (payload, offset, protocol) {
            ([], 0, 6 | 17) => return Err(DropReason::FragmentHeaders),
            ([], _, _) => return Err(DropReason::FragmentMalformed),
            _ => {}
        }
    }
    Ok(IpPacket {
        src: IpAddr::V4(view.src_addr()),
        dst: IpAddr::V4(view.dst_addr()),
        start,
        transport,
        end: start + total_len,
        protocol,
        hop_limit: view.hop_limit(),
        traffic_class: view.dscp() * 4 + view.ecn(),
        fragment,
        ports: if offset == 0 { ports(protocol, payload) } else { None },
        dont_fragment: view.dont_frag(),
        router_alert,
        problem: None,
    })
}

/// The kinds of all options up to the end of the list.
fn ipv4_options(options: &[u8]) -> Result<Vec<u8>, DropReason> {
    let (kind, len) = match options {
        [] | [0, ..] => return Ok(Vec::new()),
        [1, ..] => (1, 1),
        [kind, len, ..] if *len >= 2 && usize::from(*len) <= options.len() => (*kind, usize::from(*len)),
        _ => return Err(DropReason::IpOptions),
    };
    match (kind, len) {
        (131 | 137, _) => return Err(DropReason::IpSourceRoute),
        (148, len) if len != 4 => return Err(DropReason::IpOptions),
        _ => {}
    }
    let rest = ipv4_options(&options[len..])?;
    Ok([vec![kind], rest].concat())
}

fn ipv6(frame: &[u8], start: usize) -> Result<IpPacket, DropReason> {
    let packet = &frame[start..];
    if packet.len() < 40 {
        return Err(DropReason::IpTruncated);
    }
    let view = Ipv6Packet::new_unchecked(packet);
    if view.version() != 6 {
        return Err(DropReason::IpMalformed);
    }
    if view.total_len() > packet.len() {
        return Err(DropReason::IpTruncated);
    }
    let packet = &packet[..view.total_len()];
    let next_header = u8::from(view.next_header());
    if next_header == 0 && packet.len() == 40 {
        return Err(DropReason::IpMalformed);
    }
    let whole = Found { at: 40, kind: next_header, named_at: 6, ..Found::default() };
    let found = descend(packet, whole, 0)?;
    Ok(IpPacket {
        src: IpAddr::V6(view.src_addr()),
        dst: IpAddr::V6(view.dst_addr()),
        start,
        transport: start + found.at,
        end: start + packet.len(),
        protocol: found.kind,
        hop_limit: view.hop_limit(),
        traffic_class: view.traffic_class(),
        fragment: found.fragment.map(|fragment| FragmentInfo {
            payload: start + fragment.payload,
            next_header_at: start + fragment.next_header_at,
            header_at: start + fragment.header_at,
            ..fragment
        }),
        ports: found.ports,
        dont_fragment: true,
        router_alert: found.router_alert,
        problem: found.problem,
    })
}

/// How far the descent has come, with offsets from the start of the packet.
#[derive(Default)]
struct Found {
    at: usize,
    kind: u8,
    named_at: usize,
    had_fragment_header: bool,
    fragment: Option<FragmentInfo>,
    ports: Option<(u16, u16)>,
    router_alert: bool,
    problem: Option<Problem>,
}

/// From the header at `found.at`, behind `depth` others, to the end of the chain.
fn descend(packet: &[u8], mut found: Found, depth: usize) -> Result<Found, DropReason> {
    let rest = &packet[found.at..];
    if !EXTENSIONS.contains(&found.kind) {
        found.ports = ports(found.kind, rest);
        return Ok(found);
    }
    if depth == 8 {
        return Err(DropReason::IpOptions);
    }
    if found.kind == 0 && found.at != 40 {
        found.problem = Some(Problem::NextHeader { at: found.named_at as u32, code: 1 });
        return Ok(found);
    }
    let len = extension_len(found.kind, rest).ok_or(DropReason::IpTruncated)?;
    let body = &rest[2..len];
    match found.kind {
        0 | 60 => {
            let options = ipv6_options(body)?;
            let offset = |rest_len: usize| (found.at + len - rest_len) as u32;
            for (kind, data_len, rest_len) in options {
                match (kind >> 6, kind) {
                    (_, 5) if found.kind == 0 && data_len != 2 => return Err(DropReason::IpOptions),
                    (_, 5) if found.kind == 0 => found.router_alert = true,
                    (0, _) => {}
                    (action, _) => {
                        found.problem = Some(Problem::Option {
                            at: offset(rest_len),
                            answer: action > 1,
                            even_multicast: action == 2,
                        });
                        return Ok(found);
                    }
                }
            }
        }
        43 if body[1] != 0 => {
            found.problem = Some(Problem::NextHeader { at: found.at as u32 + 2, code: 0 });
            return Ok(found);
        }
        44 if found.had_fragment_header => return Err(DropReason::IpOptions),
        44 => {
            found.had_fragment_header = true;
            let view = Ipv6FragmentHeader::new_checked(body).map_err(|_| DropReason::IpTruncated)?;
            if view.more_frags() || view.frag_offset() > 0 {
                return fragment(packet, found, view.ident(), view.frag_offset(), view.more_frags());
            }
        }
        51 if len < 12 => return Err(DropReason::IpOptions),
        _ => {}
    }
    let next = Found { at: found.at + len, kind: rest[0], named_at: found.at, ..found };
    descend(packet, next, depth + 1)
}

/// A fragment, whose header is at `found.at`.
fn fragment(packet: &[u8], mut found: Found, id: u32, units: u16, more: bool) -> Result<Found, DropReason> {
    let header_at = found.at;
    let payload = &packet[header_at + 8..];
    let offset = usize::from(units) * 8;
    let whole_payload_len = (header_at - 40) + offset + payload.len();
    if more && !payload.len().is_multiple_of(8) {
        found.problem = Some(Problem::NextHeader { at: 4, code: 0 });
        return Ok(found);
    }
    if whole_payload_len > 65_535 {
        found.problem = Some(Problem::NextHeader { at: header_at as u32 + 2, code: 0 });
        return Ok(found);
    }
    let next_header = packet[header_at];
    found.fragment = Some(FragmentInfo {
        id,
        offset,
        more,
        payload: header_at + 8,
        next_header_at: found.named_at,
        header_at,
        next_header,
    });
    (found.at, found.kind) = (header_at + 8, next_header);
    if offset > 0 {
        return if payload.is_empty() { Err(DropReason::FragmentMalformed) } else { Ok(found) };
    }
    match upper_layer(payload, next_header, payload.len() + 8, 0)? {
        Upper::Named { rest_len } => {
            found.problem = Some(Problem::NextHeader { at: (packet.len() - rest_len) as u32, code: 1 });
        }
        Upper::Header { kind, rest_len } => {
            found.ports = ports(kind, &packet[packet.len() - rest_len..]);
        }
    }
    Ok(found)
}

/// Where the chain of a first fragment ends.
enum Upper {
    /// At an upper-layer header, which is so far from the end.
    Header { kind: u8, rest_len: usize },
    /// At a hop-by-hop options header; the one that names it is so far from the end.
    Named { rest_len: usize },
}

/// `named_len` is how far from the end the header is that names this one.
fn upper_layer(rest: &[u8], kind: u8, named_len: usize, depth: usize) -> Result<Upper, DropReason> {
    match kind {
        0 => return Ok(Upper::Named { rest_len: named_len }),
        44 => return Err(DropReason::IpOptions),
        43 | 51 | 60 if depth == 8 => return Err(DropReason::IpOptions),
        43 | 51 | 60 => {
            let len = extension_len(kind, rest).ok_or(DropReason::FragmentHeaders)?;
            return upper_layer(&rest[len..], rest[0], rest.len(), depth + 1);
        }
        _ => {}
    }
    let needed = [(6, 20), (17, 8), (58, 4)].iter().find(|(known, _)| *known == kind);
    if rest.len() < needed.map_or(1, |(_, len)| *len) {
        return Err(DropReason::FragmentHeaders);
    }
    Ok(Upper::Header { kind, rest_len: rest.len() })
}

/// The options as (kind, bytes of data, bytes from its kind to the end), those of padding left out, up to
/// the first that is to be dropped for.
fn ipv6_options(options: &[u8]) -> Result<Vec<(u8, usize, usize)>, DropReason> {
    let mut found = Vec::new();
    let mut padding = 0;
    let mut rest = options;
    loop {
        let (kind, data_len, len) = match rest {
            [] => return Ok(found),
            [0, ..] => (0, 0, 1),
            [kind, data_len, tail @ ..] if usize::from(*data_len) <= tail.len() => {
                (*kind, usize::from(*data_len), 2 + usize::from(*data_len))
            }
            _ => return Err(DropReason::IpOptions),
        };
        if kind < 2 {
            padding += len;
        } else {
            padding = 0;
            found.push((kind, data_len, rest.len()));
        }
        if padding > 7 || found.len() > 8 {
            return Err(DropReason::IpOptions);
        }
        if kind >= 64 {
            return Ok(found);
        }
        rest = &rest[len..];
    }
}

/// Bytes of the extension header at the start of `rest`, if they are there.
fn extension_len(kind: u8, rest: &[u8]) -> Option<usize> {
    let len = usize::from(*rest.get(1)?);
    let len = match kind {
        44 => 8,
        51 => 8 + 4 * len,
        _ => 8 + 8 * len,
    };
    (len <= rest.len()).then_some(len)
}

fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    match (protocol, payload) {
        (6 | 17, [a, b, c, d, ..]) => Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
        _ => None,
    }
}

/// How many extension headers there are before `packet.transport`.
pub(super) fn extensions_len(frame: &[u8], packet: &IpPacket) -> usize {
    if packet.src.is_ipv4() {
        return 0;
    }
    let mut kind = frame[packet.start + 6];
    let mut at = packet.start + 40;
    let mut count = 0;
    while at < packet.transport {
        let rest = &frame[at..];
        at += extension_len(kind, rest).expect("it has been walked");
        kind = rest[0];
        count += 1;
    }
    count
}

const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];
