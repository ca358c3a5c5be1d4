//! Packets for the tests of fragments and reassembly, and a plain reader of fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::header::fill_ipv4_checksum;
use crate::ingress::packet::{FragmentInfo, IpPacket};

/// An IPv4 packet of these options, a multiple of 4 bytes.
pub(super) fn ipv4_packet(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let [high, low] = ((header_len + payload.len()) as u16).to_be_bytes();
    let version = 0x40 | (header_len / 4) as u8;
    let fixed = [version, 0, high, low, 0x12, 0x34, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let mut packet = [&fixed[..], options, payload].concat();
    fill_ipv4_checksum(&mut packet[..header_len]);
    packet
}

/// An IPv6 packet with these extension headers, each with its number, the last naming 17.
pub(super) fn ipv6_packet(extensions: &[(u8, usize)], payload: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (index, &(_, len)) in extensions.iter().enumerate() {
        let next = extensions.get(index + 1).map_or(17, |(number, _)| *number);
        let mut header = vec![0; len];
        header[..2].copy_from_slice(&[next, (len / 8 - 1) as u8]);
        // One option that fills the header up, or a routing header without segments left.
        header[2..4].copy_from_slice(&[1, (len - 4) as u8]);
        chain.extend(header);
    }
    let [high, low] = ((chain.len() + payload.len()) as u16).to_be_bytes();
    let next = extensions.first().map_or(17, |(number, _)| *number);
    let (src, dst) = (Ipv6Addr::from_bits(0xfd00 << 112 | 1), Ipv6Addr::from_bits(0xfd00 << 112 | 2));
    let fixed = [0x60, 0, 0, 0, high, low, next, 64];
    [&fixed[..], &src.octets(), &dst.octets(), &chain, payload].concat()
}

/// Reads a fragment that begins at `start`.
pub(super) fn read(frame: &[u8], start: usize) -> IpPacket {
    let packet = &frame[start..];
    let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let mut ip = IpPacket {
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        start,
        transport: 0,
        end: 0,
        protocol: 0,
        hop_limit: 64,
        traffic_class: 0,
        fragment: None,
        ports: None,
        dont_fragment: false,
        router_alert: false,
        problem: None,
    };
    if packet[0] >> 4 == 4 {
        let field = half(6);
        let payload = start + usize::from(packet[0] & 0xf) * 4;
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four"));
        (ip.src, ip.dst, ip.protocol, ip.traffic_class) = (address(12), address(16), packet[9], packet[1]);
        ip.end = start + usize::from(half(2));
        ip.transport = payload;
        ip.fragment = Some(FragmentInfo {
            id: half(4).into(),
            offset: usize::from(field & 0x1fff) * 8,
            more: field & 0x2000 != 0,
            payload,
            next_header_at: start + 9,
            header_at: payload,
            next_header: packet[9],
        });
        return ip;
    }
    let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen"));
    (ip.src, ip.dst, ip.traffic_class) = (address(8), address(24), packet[0] << 4 | packet[1] >> 4);
    ip.end = start + 40 + usize::from(half(4));
    let (mut field, mut at) = (6, 40);
    while packet[field] != 44 {
        (field, at) = (at, at + 8 + 8 * usize::from(packet[at + 1]));
    }
    ip.protocol = packet[at];
    ip.transport = start + at + 8;
    ip.fragment = Some(FragmentInfo {
        id: u32::from(half(at + 4)) << 16 | u32::from(half(at + 6)),
        offset: usize::from(half(at + 2) & !7),
        more: half(at + 2) & 1 != 0,
        payload: ip.transport,
        next_header_at: start + field,
        header_at: start + at,
        next_header: packet[at],
    });
    ip
}
