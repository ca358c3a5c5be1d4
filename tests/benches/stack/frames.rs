//! Frames between two hosts that are only thought of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::ShardConfig;
use wirestack_nic::offload::fill_checksum;

/// The stack that is measured.
pub(crate) const OUR_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// Whoever talks to it.
pub(crate) const PEER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
/// Of every datagram.
pub(crate) const PAYLOAD_BYTES: usize = 64;

/// Addresses of the stack and of its peer.
pub(crate) fn hosts(is_v6: bool) -> (IpAddr, IpAddr) {
    (host(is_v6, 1), host(is_v6, 2))
}

/// A host of the link: `10.0.0.0/12` or `fd00::/64`.
pub(crate) fn host(is_v6: bool, number: u32) -> IpAddr {
    if is_v6 {
        Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number)).into()
    } else {
        Ipv4Addr::from_bits(10 << 24 | number).into()
    }
}

/// A stack on that link.
pub(crate) fn config() -> ShardConfig {
    let mut config = ShardConfig::new(OUR_MAC);
    for cidr in ["10.0.0.1/12", "fd00::1/64"] {
        config = config.address(parse_cidr(cidr).expect("an address"));
    }
    config.neighbor.probes = AddressProbes::None;
    config.seed = 1;
    config
}

/// An Ethernet header to the stack.
fn link(src: EthernetAddress, ethertype: u16) -> Vec<u8> {
    [&OUR_MAC.0[..], &src.0, &ethertype.to_be_bytes()].concat()
}

/// An IP packet to the stack in a frame, checksums filled in.
fn packet(src: IpAddr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let (ours, _) = hosts(src.is_ipv6());
    let len = payload.len() as u16;
    let mut frame = link(PEER_MAC, if src.is_ipv4() { 0x0800 } else { 0x86dd });
    match (src, ours) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 7]);
            header.extend(fragment.to_be_bytes());
            header.extend([64, protocol, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = !sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => {}
    }
    frame.extend(payload);
    frame
}

/// A datagram to a port of the stack.
pub(crate) fn udp(src: SocketAddr, port: u16, payload_bytes: usize) -> Vec<u8> {
    let mut frame = packet(src.ip(), 17, 0, &datagram(src.port(), port, payload_bytes));
    fill_checksum(&mut frame);
    frame
}

fn datagram(src_port: u16, dst_port: u16, payload_bytes: usize) -> Vec<u8> {
    let len = (8 + payload_bytes) as u16;
    let words = [src_port, dst_port, len, 0].map(u16::to_be_bytes);
    [words.as_flattened(), &vec![0x55; payload_bytes]].concat()
}

/// The same in fragments of IPv4, without a checksum.
pub(crate) fn fragments(src: SocketAddr, port: u16, payload_bytes: usize) -> Vec<Vec<u8>> {
    let datagram = datagram(src.port(), port, payload_bytes);
    let count = datagram.len().div_ceil(FRAGMENT_BYTES);
    let fragment = |(index, bytes): (usize, &[u8])| {
        let more = if index + 1 < count { 0x2000 } else { 0 };
        packet(src.ip(), 17, more | (index * FRAGMENT_BYTES / 8) as u16, bytes)
    };
    datagram.chunks(FRAGMENT_BYTES).enumerate().map(fragment).collect()
}

/// An echo request.
pub(crate) fn echo_request(src: IpAddr) -> Vec<u8> {
    let mut message = vec![0x55; 8 + PAYLOAD_BYTES];
    message[..8].copy_from_slice(&[8, 0, 0, 0, 0, 1, 0, 1]);
    let sum = !sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(src, 1, 0, &message)
}

/// An ARP message to the stack: 1 asks for it, 2 answers it.
pub(crate) fn arp(operation: u8, mac: EthernetAddress, ip: Ipv4Addr) -> Vec<u8> {
    let (IpAddr::V4(ours), _) = hosts(false) else { return Vec::new() };
    let mut frame = link(mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac.0);
    frame.extend(ip.octets());
    frame.extend(OUR_MAC.0);
    frame.extend(ours.octets());
    frame
}

/// A neighbour advertisement that answers (RFC 4861 section 4.4).
pub(crate) fn neighbor_advertisement(mac: EthernetAddress, ip: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(ip.octets());
    message.extend([2, 1]);
    message.extend(mac.0);
    let mut frame = packet(ip.into(), 58, 0, &message);
    // Hop limit 255: from this link.
    frame[21] = 255;
    let pseudo = [&frame[22..54], &[0, 0, 0, message.len() as u8, 0, 0, 0, 58][..], &message].concat();
    let sum = !sum(&pseudo);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The sum of RFC 1071 of an even number of bytes, folded and not inverted.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|half| u32::from(half[0]) << 8 | u32::from(half[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Bytes of a fragment's share.
const FRAGMENT_BYTES: usize = 1480;
