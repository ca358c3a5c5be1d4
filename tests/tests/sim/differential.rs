//! A shard against smoltcp's interface: the same frames, the same answers.

use std::net::SocketAddr;

use wirestack::random::Random;
use wirestack_tests::differential::{Both, Done, OURS_MAC};
use wirestack_tests::sim::packets::{self, BROADCAST, FRAGMENT, Mac, UDP, V4};
use wirestack_tests::sim::{describe, seeds};

use crate::support::*;

const PEER: Mac = [2, 0, 0, 0, 0, 2];

fn to_us(packet: &[u8]) -> Vec<u8> {
    packets::framed(OURS_MAC, PEER, packet)
}

/// Both know the peer: it has asked for them.
fn acquainted() -> Both {
    let mut both = Both::new();
    for frame in [arp_request(), solicitation()] {
        same(&mut both, &frame, 1);
    }
    both
}

fn arp_request() -> Vec<u8> {
    let (peer, ours) = ("10.0.0.2".parse().expect("an address"), "10.0.0.1".parse().expect("an address"));
    packets::ethernet(BROADCAST, PEER, 0x0806, &packets::arp(1, (PEER, peer), ([0; 6], ours)))
}

fn solicitation() -> Vec<u8> {
    let (peer, ours) = ("fd00::2".parse().expect("an address"), "fd00::1".parse().expect("an address"));
    let group = packets::solicited_node(ours);
    packets::framed(packets::group_mac(group.into()), PEER, &packets::solicitation(peer, PEER, group, ours))
}

/// Both do the same, and send so many frames.
#[track_caller]
fn same(both: &mut Both, frame: &[u8], frames: usize) -> Done {
    let [ours, theirs] = both.give(frame);
    let shown = |done: &Done| done.sent.iter().map(|frame| describe(frame)).collect::<Vec<_>>();
    assert!(
        ours == theirs,
        "{}\n ours {:?}\n theirs {:?}\n{ours:02x?}\n{theirs:02x?}",
        describe(frame),
        shown(&ours),
        shown(&theirs)
    );
    assert_eq!(ours.sent.len(), frames, "{}: {:?}", describe(frame), shown(&ours));
    ours
}

#[test]
fn questions_about_our_addresses_are_answered_alike() {
    acquainted();
}

#[test]
fn echo_is_answered_alike() {
    let mut both = acquainted();
    for len in [0, 1, 56, 1000, 1452] {
        for is_v4 in [true, false] {
            let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let packet = packets::echo_request(host_ip(2, is_v4), host_ip(1, is_v4), 5, 6, &data);
            same(&mut both, &to_us(&packet), 1);
        }
    }
}

#[test]
fn datagrams_are_delivered_alike() {
    let mut both = acquainted();
    let mut random = Random::new(1);
    for is_v4 in [true, false] {
        for len in [0, 1, 8, 1000, 1452] {
            let data = payload(&mut random, len);
            let (from, to) = (SocketAddr::new(host_ip(2, is_v4), 9), SocketAddr::new(host_ip(1, is_v4), 7));
            let done = same(&mut both, &to_us(&packets::udp_packet(from, to, &data)), 0);
            assert_eq!(done.received, [data]);
        }
    }
}

/// Type, code and quote.
#[test]
fn a_closed_port_and_an_unknown_protocol_are_told_alike() {
    let mut both = acquainted();
    for is_v4 in [true, false] {
        let (from, to) = (SocketAddr::new(host_ip(2, is_v4), 9), SocketAddr::new(host_ip(1, is_v4), 8));
        for len in [0, 20, 500] {
            same(&mut both, &to_us(&packets::udp_packet(from, to, &vec![7; len])), 1);
        }
        same(&mut both, &to_us(&packets::packet(from.ip(), to.ip(), 200, &[1; 30])), 1);
    }
}

#[test]
fn fragments_in_order_are_put_together_alike() {
    let mut both = acquainted();
    let (from, to) = (SocketAddr::new(host_ip(2, true), 9), SocketAddr::new(host_ip(1, true), 7));
    let data = payload(&mut Random::new(2), 1400);
    let whole = packets::udp(from, to, &data);
    let v4 = V4 {
        id: 77,
        ..V4::new("10.0.0.2".parse().expect("an address"), "10.0.0.1".parse().expect("an address"), UDP)
    };
    let (first, second) = whole.split_at(800);
    let frames = [V4 { fragment: 0x2000, ..v4 }.packet(first), V4 { fragment: 100, ..v4 }.packet(second)];
    assert!(same(&mut both, &to_us(&frames[0]), 0).received.is_empty());
    assert_eq!(same(&mut both, &to_us(&frames[1]), 0).received, [data]);
    // smoltcp puts nothing together over IPv6.
    let body = packets::fragment_v6(UDP, 1, 0, true, &[0; 800]);
    let packet = packets::ipv6(
        "fd00::2".parse().expect("an address"),
        "fd00::1".parse().expect("an address"),
        FRAGMENT,
        64,
        &body,
    );
    assert!(both.give(&to_us(&packet))[0].sent.is_empty());
}

/// Frames with one changed byte: what one delivers, so does the other.
#[test]
fn changed_frames_are_delivered_by_both_or_by_none() {
    for seed in seeds(20) {
        let mut both = acquainted();
        let mut random = Random::new(seed);
        for _ in 0..200 {
            let is_v4 = random.below(2) == 0;
            let (from, to) = (SocketAddr::new(host_ip(2, is_v4), 9), SocketAddr::new(host_ip(1, is_v4), 7));
            let mut frame = to_us(&packets::udp_packet(from, to, &payload(&mut random, 30)));
            // Lengths, checksums, addresses, ports and payload; what is left are fields that nothing covers.
            let at = 14 + random.below(frame.len() as u32 - 14) as usize;
            frame[at] ^= 1 << random.below(8);
            let is_free = !is_v4 && ((14..18).contains(&at) || at == 21);
            let [ours, theirs] = both.give(&frame);
            assert!(is_free || ours.received == theirs.received, "{seed}: byte {at} of {}", describe(&frame));
        }
    }
}
