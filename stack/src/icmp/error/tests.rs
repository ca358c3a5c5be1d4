use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::icmp::{ErrorKind, Message, parse};

/// An echo request from `packet`'s source to its destination.
pub(crate) fn echo_request(is_v6: bool, data: &[u8]) -> Vec<u8> {
    let mut message = vec![if is_v6 { 128 } else { 8 }, 0, 0, 0, 1, 2, 3, 4];
    message.extend(data);
    let (src, dst) = ends(is_v6);
    fill_checksum(&mut message, Some(src), dst);
    message
}

fn ends(is_v6: bool) -> (IpAddr, IpAddr) {
    if is_v6 {
        let address = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        (address(1).into(), address(2).into())
    } else {
        (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into())
    }
}

/// An Ethernet frame with an ICMP message, and what classifying it says.
pub(crate) fn packet(is_v6: bool, message: &[u8]) -> (Vec<u8>, IpPacket) {
    let (src, dst) = ends(is_v6);
    carrying(src, dst, crate::icmp::protocol_for(src), message)
}

pub(crate) fn carrying(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> (Vec<u8>, IpPacket) {
    let mut frame = vec![0; 14];
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = (20 + payload.len() as u16).to_be_bytes();
            frame.extend([0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0]);
            frame.extend(src.octets().into_iter().chain(dst.octets()));
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let [high, low] = (payload.len() as u16).to_be_bytes();
            frame.extend([0x60, 0, 0, 0, high, low, protocol, 64]);
            frame.extend(src.octets().into_iter().chain(dst.octets()));
        }
        _ => panic!("one version"),
    }
    let transport = frame.len();
    frame.extend(payload);
    let ip = IpPacket {
        src,
        dst,
        start: 14,
        transport,
        end: frame.len(),
        protocol,
        hop_limit: 64,
        traffic_class: 0,
        fragment: None,
        ports: None,
        dont_fragment: src.is_ipv6(),
        router_alert: false,
        problem: None,
    };
    // The link's padding is not part of the packet.
    frame.extend([0xee; 3]);
    (frame, ip)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A datagram from port 5 to port 7.
fn datagram(len: usize) -> Vec<u8> {
    [&[0, 5, 0, 7, 0, 8, 0, 0][..], &vec![0xaa; len]].concat()
}

#[test]
fn each_kind_is_read_back_as_what_it_is() {
    use ErrorToSend as Send;
    let both = [
        (Send::PortUnreachable, ErrorKind::PortUnreachable),
        (Send::HostUnreachable, ErrorKind::HostUnreachable),
        (Send::NetUnreachable, ErrorKind::NetUnreachable),
        (Send::Prohibited, ErrorKind::Prohibited),
        (Send::ReassemblyTimeExceeded, ErrorKind::ReassemblyTimeExceeded),
        (Send::HopLimitExceeded, ErrorKind::TimeExceeded),
        (Send::TooBig { mtu: 1300 }, ErrorKind::TooBig { mtu: 1300 }),
        (Send::ParameterProblem { code: 0, pointer: 6 }, ErrorKind::ParameterProblem { code: 0, pointer: 6 }),
    ];
    for is_v6 in [false, true] {
        let protocol = (
            Send::ProtocolUnreachable,
            match is_v6 {
                false => ErrorKind::ProtocolUnreachable,
                true => ErrorKind::ParameterProblem { code: 1, pointer: 6 },
            },
        );
        for (kind, expected) in both.into_iter().chain([protocol]) {
            let (src, dst) = ends(is_v6);
            let (frame, packet) = carrying(src, dst, 17, &datagram(30));
            let error = error_for(&frame, &packet, false, kind, 1500).expect("due");
            assert_eq!((error.spec.src, error.spec.dst), (Some(dst), src));
            let pseudo = if is_v6 { pseudo_header_sum(dst, src, 58, error.payload.len()) } else { 0 };
            assert_eq!(sum::combine(&[pseudo, sum::data(&error.payload)]), 0xffff, "{kind:?}");
            let Ok(Message::Error(found)) = parse(dst, src, &error.payload) else { panic!("an error") };
            assert_eq!(found.kind, expected);
            let quoted = found.quoted;
            assert_eq!((quoted.src, quoted.dst, quoted.ports), (src, dst, Some((5, 7))));
            assert_eq!(error.payload[8..], frame[packet.start..packet.end], "all of it, and no padding");
        }
    }
}

#[test]
fn a_quote_ends_where_the_rfcs_say() {
    for (is_v6, len, packet_bytes_max, expected) in [
        (false, 400, 1500, 400 + 28 + 28),
        (false, 2000, 1500, 576),
        (false, 2000, 100, 100),
        (false, 2000, 0, 28),
        (true, 400, 1500, 400 + 48 + 48),
        (true, 2000, 9000, 1280),
    ] {
        let (src, dst) = ends(is_v6);
        let (frame, packet) = carrying(src, dst, 17, &datagram(len));
        let error = error_for(&frame, &packet, false, ErrorToSend::PortUnreachable, packet_bytes_max);
        let header = if is_v6 { 40 } else { 20 };
        assert_eq!(error.map(|error| header + error.payload.len()), Some(expected));
    }
}

#[test]
fn there_are_packets_that_nothing_answers() {
    let port = ErrorToSend::PortUnreachable;
    let option = ErrorToSend::ParameterProblem { code: 2, pointer: 42 };
    let big = ErrorToSend::TooBig { mtu: 1280 };
    for (src, dst, was_broadcast, kind, expected) in [
        ("10.0.0.1", "10.0.0.2", false, port, true),
        ("10.0.0.1", "10.0.0.2", true, port, false),
        ("10.0.0.1", "224.0.0.1", false, port, false),
        ("10.0.0.1", "255.255.255.255", false, port, false),
        ("10.0.0.1", "224.0.0.1", false, big, false),
        ("0.0.0.0", "10.0.0.2", false, port, false),
        ("0.1.2.3", "10.0.0.2", false, port, false),
        ("127.0.0.1", "10.0.0.2", false, port, false),
        ("127.0.0.1", "127.0.0.1", false, port, true),
        ("224.0.0.1", "10.0.0.2", false, port, false),
        ("240.0.0.1", "10.0.0.2", false, port, false),
        ("255.255.255.255", "10.0.0.2", false, port, false),
        ("fd00::1", "fd00::2", false, port, true),
        ("fd00::1", "fd00::2", true, port, false),
        ("fd00::1", "fd00::2", true, big, true),
        ("fd00::1", "ff02::1", false, port, false),
        ("fd00::1", "ff02::1", true, option, true),
        ("fd00::1", "ff02::1", true, big, true),
        ("fd00::1", "ff02::1", true, ErrorToSend::ParameterProblem { code: 1, pointer: 6 }, false),
        ("::", "fd00::2", false, option, false),
        ("ff02::1", "fd00::2", false, port, false),
        ("::1", "fd00::2", false, port, false),
        ("::1", "::1", false, port, true),
    ] {
        let (frame, packet) = carrying(ip(src), ip(dst), 17, &datagram(4));
        let error = error_for(&frame, &packet, was_broadcast, kind, 1500);
        assert_eq!(error.is_some(), expected, "{src} to {dst}: {kind:?}");
        let from = error.and_then(|error| error.spec.src);
        assert!(from.is_none_or(|from| !from.is_multicast() && !was_broadcast));
    }
}

#[test]
fn only_the_first_fragment_is_answered() {
    let (src, dst) = ends(false);
    for (flags, expected) in [(0x2000u16, true), (0x2001, false), (0x0001, false), (0x4000, true)] {
        let (mut frame, packet) = carrying(src, dst, 17, &datagram(4));
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        let error = error_for(&frame, &packet, false, ErrorToSend::ReassemblyTimeExceeded, 1500);
        assert_eq!(error.is_some(), expected, "{flags:04x}");
    }
    let (src, dst) = ends(true);
    for (offset, expected) in [(1u16, true), (9, false), (8, false)] {
        let [high, low] = offset.to_be_bytes();
        let fragment = [&[17, 0, high, low, 0, 0, 0, 1][..], &datagram(4)].concat();
        let (frame, packet) = carrying(src, dst, 44, &fragment);
        let error = error_for(&frame, &packet, false, ErrorToSend::ReassemblyTimeExceeded, 1500);
        assert_eq!(error.is_some(), expected, "{offset}");
        let problem = ErrorToSend::ParameterProblem { code: 0, pointer: 42 };
        assert!(error_for(&frame, &packet, false, problem, 1500).is_some(), "{offset}");
    }
}

#[test]
fn an_error_behind_extension_headers_is_one() {
    let (src, dst) = ends(true);
    let error = [1, 4, 0, 0, 0, 0, 0, 0];
    let chain =
        [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[44, 0, 1, 4, 0, 0, 0, 0], &[58, 0, 0, 1, 0, 0, 0, 1], &error];
    let (frame, packet) = carrying(src, dst, 0, &chain.concat());
    assert_eq!(error_for(&frame, &packet, false, ErrorToSend::PortUnreachable, 1500), None);
    let request = echo_request(true, b"");
    let chain = [chain[0], chain[1], chain[2], &request];
    let (frame, packet) = carrying(src, dst, 0, &chain.concat());
    assert!(error_for(&frame, &packet, false, ErrorToSend::ReassemblyTimeExceeded, 1500).is_some());
}

proptest! {
    #[test]
    fn no_error_answers_an_error(
        is_v6 in any::<bool>(),
        icmp_type in any::<u8>(),
        rest in proptest::collection::vec(any::<u8>(), 0..60),
        kind in 0..4usize,
    ) {
        let message = [&[icmp_type][..], &rest].concat();
        let (frame, packet) = packet(is_v6, &message);
        let kind = [
            ErrorToSend::PortUnreachable,
            ErrorToSend::ProtocolUnreachable,
            ErrorToSend::TooBig { mtu: 1280 },
            ErrorToSend::ParameterProblem { code: 2, pointer: 40 },
        ][kind];
        let is_error = if is_v6 { icmp_type < 128 || icmp_type == 137 } else { matches!(icmp_type, 3..=5 | 11 | 12) };
        let error = error_for(&frame, &packet, false, kind, 1500);
        prop_assert!(!is_error || error.is_none());
        // What is sent is itself never answered.
        if let Some(error) = error {
            let (frame, packet) = carrying(packet.dst, packet.src, error.spec.protocol, &error.payload);
            prop_assert!(error_for(&frame, &packet, false, kind, 1500).is_none());
        }
    }

    #[test]
    fn any_bytes_are_survived(
        frame in proptest::collection::vec(any::<u8>(), 0..120),
        first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        offsets in any::<[u8; 3]>(),
    ) {
        let (_, model) = packet(first == 0x60, b"");
        let [start, transport, end] = offsets.map(usize::from);
        let packet = IpPacket { start, transport, end, ..model };
        let mut frame = frame;
        if let Some(byte) = frame.get_mut(start) {
            *byte = first;
        }
        let error = error_for(&frame, &packet, false, ErrorToSend::PortUnreachable, 1500);
        prop_assert!(error.is_none_or(|error| error.payload.len() <= 1240));
    }
}

#[test]
fn a_type_that_is_not_known_to_be_harmless_is_an_error() {
    let harmless = |is_v6, icmp_type| match is_v6 {
        true => matches!(icmp_type, 128..=136 | 138..),
        false => matches!(icmp_type, 0 | 8..=10 | 13..=18),
    };
    for is_v6 in [false, true] {
        for icmp_type in 0..=255 {
            let (frame, packet) = packet(is_v6, &[icmp_type, 0, 0, 0, 0, 0, 0, 0]);
            let error = error_for(&frame, &packet, false, ErrorToSend::HostUnreachable, 1500);
            assert_eq!(error.is_some(), harmless(is_v6, icmp_type), "{is_v6} {icmp_type}");
        }
        let (frame, packet) = packet(is_v6, &[]);
        assert_eq!(error_for(&frame, &packet, false, ErrorToSend::HostUnreachable, 1500), None, "{is_v6}");
    }
}

#[test]
fn the_unknown_protocol_is_pointed_at() {
    let (src, dst) = ends(true);
    let (frame, packet) = carrying(src, dst, 60, &[253, 0, 1, 4, 0, 0, 0, 0, 9, 9, 9, 9]);
    let error = error_for(&frame, &packet, false, ErrorToSend::ProtocolUnreachable, 1500).expect("due");
    assert_eq!(error.payload[..2], [4, 1]);
    assert_eq!(error.payload[4..8], [0, 0, 0, 40]);
}

#[test]
fn an_mtu_over_ipv4_has_two_bytes() {
    let (src, dst) = ends(false);
    let (frame, packet) = carrying(src, dst, 17, &datagram(4));
    let error = error_for(&frame, &packet, false, ErrorToSend::TooBig { mtu: 0x1_0005 }, 1500).expect("due");
    assert_eq!(error.payload[..2], [3, 4]);
    assert_eq!(error.payload[4..8], [0, 0, 0xff, 0xff]);
}
