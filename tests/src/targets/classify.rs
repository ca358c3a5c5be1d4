//! `classify` against a slow parse of the same frames, and against the other walks over headers that this
//! workspace has.

pub mod reference;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use smoltcp::phy::Medium;
use wirestack::ingress::{self, Body, IpPacket};
use wirestack::nic::offload::checksum::{self, Verdict};
use wirestack::nic::offload::{Layout, sum};
use wirestack::nic::{FrameMeta, steer};
use wirestack::observe::DropReason;

/// A byte of options and a frame. Its lowest bit is the medium; with the next one, a wrong checksum of an
/// IPv4 header is mended first, without which hardly any change to a frame would get past it.
pub fn classify(bytes: &[u8]) {
    let Some((options, frame)) = bytes.split_first() else { return };
    let medium = if options & 1 == 0 { Medium::Ethernet } else { Medium::Ip };
    let mut frame = frame.to_vec();
    if options & 2 != 0 {
        mend_checksum(medium, &mut frame);
    }
    check(medium, &frame);
}

/// All that is promised of a frame.
fn check(medium: Medium, frame: &[u8]) {
    let found = ingress::classify(medium, frame);
    assert_eq!(found, reference::classify(medium, frame), "the slow parse says otherwise of {frame:02x?}");
    let Ok(packet) = found else { return };
    let link_len = packet.link.map_or(0, |link| usize::from(link.len));
    match packet.body {
        Body::Arp(at) => assert!(at == link_len && at + 28 <= frame.len()),
        Body::Ip(packet) => {
            assert_eq!(packet.start, link_len);
            assert!(packet.start < packet.transport && packet.transport <= packet.end);
            assert!(packet.end <= frame.len());
            assert_eq!(packet.src.is_ipv4(), packet.dst.is_ipv4());
            agrees_with_layout(medium, frame, &packet);
            agrees_with_steering(medium, frame, &packet);
            agrees_on_checksum(medium, frame, &packet);
        }
    }
}

/// The device's walk to the transport header, which checksums and splitting go by.
fn agrees_with_layout(medium: Medium, frame: &[u8], packet: &IpPacket) {
    // A length of 0 is an empty packet here, and a frame of more than 64 KB there.
    let is_empty_v6 = packet.src.is_ipv6() && packet.end == packet.start + 40;
    if packet.problem.is_some() || is_empty_v6 {
        return;
    }
    match Layout::on(medium, frame) {
        Some(layout) => {
            assert_eq!(packet.fragment, None);
            assert_eq!(
                (packet.start, packet.protocol, packet.transport, packet.end),
                (layout.network, layout.protocol.number(), layout.transport, layout.end)
            );
            assert!(packet.ports.is_some());
        }
        None => {
            let has_udp = packet.protocol == 17 && packet.end >= packet.transport + 8;
            let has_extensions = packet.src.is_ipv6() && packet.transport > packet.start + 40;
            assert!(!has_udp || has_extensions || packet.fragment.is_some(), "there is a datagram");
        }
    }
}

/// The device's verdict, where it has one.
fn agrees_on_checksum(medium: Medium, frame: &[u8], packet: &IpPacket) {
    let found = ingress::verify_transport(frame, packet, &FrameMeta::default());
    let Some(layout) = Layout::on(medium, frame).filter(|layout| layout.end == packet.end) else { return };
    let is_zero = frame.get(layout.transport + 6..layout.transport + 8) == Some(&[0, 0]);
    match (checksum::verify(frame, &layout), found) {
        // Datagrams without a length are for devices alone, and those without a checksum for IPv4.
        (Verdict::Unknown, _) | (_, Err(DropReason::UdpMalformed)) => {}
        _ if is_zero && packet.protocol == 17 && packet.src.is_ipv6() => assert!(found.is_err()),
        (verdict, found) if packet.problem.is_none() => {
            assert_eq!(verdict == Verdict::Right, found.is_ok(), "{found:?} of {frame:02x?}");
        }
        _ => assert_eq!(found, Ok(()), "what is not delivered is not verified"),
    }
}

/// The hash by which a frame goes to a shard.
fn agrees_with_steering(medium: Medium, frame: &[u8], packet: &IpPacket) {
    let has_many_headers = reference::extensions_len(frame, packet) > 4;
    // An error goes where the packet goes that it is about.
    let is_icmp = matches!(packet.protocol, 1 | 58);
    let is_cut = matches!(packet.protocol, 6 | 17) && packet.ports.is_none() && packet.fragment.is_none();
    if has_many_headers || is_icmp || is_cut || packet.problem.is_some() {
        return;
    }
    let (ports, protocol) = match packet.fragment {
        None => (packet.ports.unwrap_or_default(), packet.protocol),
        Some(_) if packet.src.is_ipv4() => ((0, 0), packet.protocol),
        Some(_) => ((0, 0), 44),
    };
    let [src, dst] = [(packet.src, ports.0), (packet.dst, ports.1)].map(SocketAddr::from);
    let hash = match medium {
        Medium::Ip => steer::flow_hash_of_packet(SEED, frame),
        _ => steer::flow_hash(SEED, frame),
    };
    assert_eq!(hash, steer::flow_hash_of(SEED, dst, src, protocol), "steered elsewhere: {packet:?}");
}

/// Makes the checksum of an IPv4 header right, if there is one to be found.
fn mend_checksum(medium: Medium, frame: &mut [u8]) {
    let mut start = 0;
    if medium == Medium::Ethernet {
        start = 14;
        while start < 22 && matches!(frame.get(start - 2..start), Some([0x81, 0] | [0x88, 0xa8])) {
            start += 4;
        }
    }
    let Some(first) = frame.get(start) else { return };
    let header_len = usize::from(first & 0xf) * 4;
    let Some(header) = frame.get_mut(start..start + header_len) else { return };
    if first_is_v4(header) && header_len >= 20 {
        header[10..12].fill(0);
        let right = !sum::data(header);
        header[10..12].copy_from_slice(&right.to_be_bytes());
    }
}

fn first_is_v4(header: &[u8]) -> bool {
    header.first().is_some_and(|first| first >> 4 == 4)
}

/// A frame of each kind, behind the byte of options.
pub(super) fn seeds(segment: &[u8]) -> Vec<Vec<u8>> {
    let v4 = &segment[14..];
    let ethernet = |kind: [u8; 2]| [&segment[..12], &kind].concat();
    let v6 = |next_header: u8, payload: &[u8]| {
        let head = [0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 64];
        [&head[..], &[0xfd], &[0; 14], &[1], &[0xfd], &[0; 14], &[2], payload].concat()
    };
    let udp = [4, 1, 0, 80, 0, 8, 0, 0];
    let alert = [58, 0, 5, 2, 0, 0, 1, 0];
    let chain = [&[60, 0, 5, 2, 0, 0, 1, 0][..], &[43, 0, 0x1e, 2, 0, 0, 1, 0], &[51, 0, 0, 0, 0, 0, 0, 0]];
    let chain = [&chain.concat()[..], &[44, 4], &[0; 22], &[17, 0, 0, 0, 0, 0, 0, 7], &udp].concat();
    let fragment = |flags: u8| [&[17, 0, 0, flags, 0, 0, 0, 7][..], &udp].concat();
    let mut options = v4.to_vec();
    options[0] = 0x46;
    options[3] += 4;
    options.splice(20..20, [148, 4, 0, 0]);
    let mut piece = v4.to_vec();
    piece[6] = 0x20;
    vec![
        [&[2], segment].concat(),
        [&[3], v4].concat(),
        [&[3], &options[..]].concat(),
        [&[3], &piece[..piece.len() - 4]].concat(),
        [&[2], &ethernet([0x88, 0xa8])[..], &[0, 5, 0x81, 0, 0, 6, 8, 0], v4].concat(),
        [&[0], &ethernet([8, 6])[..], &[0; 28]].concat(),
        [&[0], &ethernet([0x86, 0xdd])[..], &v6(17, &udp)].concat(),
        [&[1], &v6(0, &[&alert[..], &[143, 0, 0, 0]].concat())[..]].concat(),
        [&[1], &v6(0, &chain)[..]].concat(),
        [&[1], &v6(44, &fragment(1))[..]].concat(),
        [&[1], &v6(44, &fragment(8))[..]].concat(),
        // A hop-by-hop options header behind another, in a fragment.
        [&[1], &v6(44, &[&[60, 0, 0, 1, 0, 0, 0, 7, 0, 0, 1, 4, 0, 0, 0, 0], &udp[..]].concat())[..]]
            .concat(),
    ]
}

const SEED: u32 = 0x5eed;
