//! Headers read back by smoltcp, and what identifications promise.

use std::collections::HashSet;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6HopByHopHeader, Ipv6Packet};

use super::*;

fn spec(dst: &str, router_alert: bool) -> PacketSpec {
    PacketSpec {
        traffic_class: 0xb9,
        dont_fragment: !router_alert,
        router_alert,
        ..PacketSpec::new(dst.parse().expect("an address"), 17)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn an_ipv4_header_reads_back() {
    for (router_alert, len) in [(false, 20), (true, 24)] {
        let spec = spec("192.0.2.9", router_alert);
        let mut room = [0xee; 64];
        assert_eq!(write(&spec, ip("192.0.2.1"), 61, 7, 0xabcd, &mut room), Ok(len));
        assert_eq!(header_len(&spec), len);
        assert!(room[len..].iter().all(|byte| *byte == 0xee), "no more than the header");
        let packet = Ipv4Packet::new_checked(&room[..len + 7]).expect("well-formed");
        assert!(packet.verify_checksum());
        assert_eq!(usize::from(packet.header_len()), len);
        assert_eq!(usize::from(packet.total_len()), len + 7);
        assert_eq!(
            (packet.src_addr().to_string(), packet.dst_addr().to_string()),
            ("192.0.2.1".into(), "192.0.2.9".into())
        );
        assert_eq!((packet.hop_limit(), packet.next_header()), (61, IpProtocol::Udp));
        assert_eq!((packet.ident(), packet.dont_frag(), packet.more_frags()), (0xabcd, !router_alert, false));
        assert_eq!((packet.dscp(), packet.ecn()), (0x2e, 1));
        if router_alert {
            assert_eq!(room[20..24], [0x94, 4, 0, 0]);
        }
        let before = room;
        fill_ipv4_checksum(&mut room[..len]);
        assert_eq!(room, before);
    }
}

#[test]
fn an_ipv6_header_reads_back() {
    for (router_alert, len) in [(false, 40), (true, 48)] {
        let spec = PacketSpec { hop_limit: Some(255), ..spec("ff02::16", router_alert) };
        let mut room = [0xee; 64];
        assert_eq!(write(&spec, ip("fe80::1"), 61, 7, 0, &mut room), Ok(len));
        assert_eq!(header_len(&spec), len);
        assert!(room[len..].iter().all(|byte| *byte == 0xee), "no more than the header");
        let packet = Ipv6Packet::new_checked(&room[..len + 7]).expect("well-formed");
        assert_eq!(packet.total_len(), len + 7);
        assert_eq!(
            (packet.src_addr().to_string(), packet.dst_addr().to_string()),
            ("fe80::1".into(), "ff02::16".into())
        );
        assert_eq!((packet.hop_limit(), packet.traffic_class(), packet.flow_label()), (255, 0xb9, 0));
        if router_alert {
            assert_eq!(packet.next_header(), IpProtocol::HopByHop);
            assert_eq!(room[40..48], [17, 0, 5, 2, 0, 0, 1, 0]);
            Ipv6HopByHopHeader::new_checked(&room[42..48]).expect("options");
        } else {
            assert_eq!(packet.next_header(), IpProtocol::Udp);
        }
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let mut room = [0; 64];
    for (spec, src, payload_len, expected) in [
        (spec("192.0.2.9", false), "::1", 0, Err(DropReason::NoSource)),
        (spec("ff02::1", false), "10.0.0.1", 0, Err(DropReason::NoSource)),
        (spec("192.0.2.9", false), "10.0.0.1", 65_515, Ok(20)),
        (spec("192.0.2.9", false), "10.0.0.1", 65_516, Err(DropReason::TooLong)),
        (spec("192.0.2.9", true), "10.0.0.1", 65_512, Err(DropReason::TooLong)),
        (spec("ff02::1", false), "::1", 65_535, Ok(40)),
        (spec("ff02::1", true), "::1", 65_528, Err(DropReason::TooLong)),
        (spec("ff02::1", true), "::1", usize::MAX, Err(DropReason::TooLong)),
    ] {
        assert_eq!(write(&spec, ip(src), 64, payload_len, 0, &mut room), expected);
    }
    for spec in [spec("192.0.2.9", true), spec("ff02::1", true)] {
        let src = if spec.dst.is_ipv4() { "10.0.0.1" } else { "::1" };
        for len in 0..header_len(&spec) {
            assert_eq!(write(&spec, ip(src), 64, 0, 0, &mut room[..len]), Err(DropReason::TooLong));
        }
    }
}

#[test]
fn the_hop_limit_is_the_senders_or_one_to_a_group() {
    for (dst, said, expected) in [
        ("192.0.2.1", None, 64),
        ("192.0.2.1", Some(3), 3),
        ("224.0.0.1", None, 1),
        ("ff0e::1", None, 1),
        ("ff0e::1", Some(9), 9),
        ("255.255.255.255", None, 64),
    ] {
        let spec = PacketSpec { hop_limit: said, ..spec(dst, false) };
        assert_eq!(hop_limit(&spec, 64), expected, "{dst}");
    }
}

#[test]
fn identifications_do_not_repeat_and_do_not_tell() {
    let (a, b, c) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3));
    let mut ids = IdGenerator::new(&mut Random::new(1));
    assert_eq!(ids.ipv4(a, b, 17, true), 0);
    let seen: HashSet<_> = (0..=u16::MAX).map(|_| ids.ipv4(a, b, 17, false)).collect();
    assert_eq!(seen.len(), 65_536);
    // The first one depends on the destination, the protocol and the seed.
    let firsts: HashSet<_> = (0..8)
        .flat_map(|seed| {
            let fresh = || IdGenerator::new(&mut Random::new(seed));
            [fresh().ipv4(a, b, 17, false), fresh().ipv4(a, c, 17, false), fresh().ipv4(a, b, 1, false)]
        })
        .collect();
    assert!(firsts.len() > 20, "{firsts:?}");
    let (x, y) = (Ipv6Addr::LOCALHOST, Ipv6Addr::from_bits(7));
    let seen: HashSet<_> = (0..1000).map(|_| ids.ipv6(x, y)).collect();
    assert_eq!(seen.len(), 1000);
    assert_ne!(ids.ipv6(x, y), ids.ipv6(y, x));
}

#[test]
fn flows_count_apart_and_begin_anywhere() {
    let src = Ipv6Addr::LOCALHOST;
    let mut ids = IdGenerator::new(&mut Random::new(1));
    let mut firsts: Vec<_> = (0..600).map(|n| ids.ipv6(src, Ipv6Addr::from_bits(n))).collect();
    firsts.sort_unstable();
    // More flows than counters: those that share one must not be told from their numbers.
    assert!(firsts.windows(2).all(|pair| pair[1] - pair[0] > 100), "{firsts:?}");
    let [a, b] = [1, 2].map(Ipv6Addr::from_bits);
    let before = ids.ipv6(src, a);
    let others: HashSet<_> = (0..10).map(|_| ids.ipv6(src, b)).collect();
    assert_eq!(others.len(), 10);
    assert_eq!(ids.ipv6(src, a), before.wrapping_add(1), "what others send does not show");
}
