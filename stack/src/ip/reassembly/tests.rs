//! Reassembly against a slow model, and its rules one by one.

use std::collections::{BTreeSet, HashMap as Map};
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::wire::Ipv4Packet;

use super::super::fragment::Fragments;
use super::super::testing::{ipv4_packet, ipv6_packet, read};
use super::*;
use crate::ingress::packet::FragmentInfo;

const NOW: Instant = Instant::from_micros_const(100_000_000);

fn reassembly(config: ReassemblyConfig) -> Reassembly {
    Reassembly::new(NOW, config, &mut Random::new(1))
}

fn v4(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))
}

/// A fragment of `src`, with its description. IPv6 if `src` is.
fn fragment(src: IpAddr, id: u32, offset: usize, more: bool, payload: &[u8]) -> (Vec<u8>, IpPacket) {
    let field = (offset as u16).to_be_bytes();
    let frame = match src {
        IpAddr::V4(src) => {
            let mut packet = ipv4_packet(&[], payload);
            packet[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            let field = (offset as u16 / 8) | (u16::from(more) << 13);
            packet[6..8].copy_from_slice(&field.to_be_bytes());
            packet[12..16].copy_from_slice(&src.octets());
            packet
        }
        IpAddr::V6(src) => {
            let header = [&[17, 0, field[0], field[1] | u8::from(more)][..], &id.to_be_bytes()].concat();
            let mut packet = ipv6_packet(&[], &[&header[..], payload].concat());
            packet[6] = 44;
            packet[8..24].copy_from_slice(&src.octets());
            packet
        }
    };
    // Behind an Ethernet header, with padding behind.
    let frame = [&[0; 14][..], &frame, &[0xee; 5]].concat();
    let ip = read(&frame, 14);
    (frame, ip)
}

fn push(
    table: &mut Reassembly,
    src: IpAddr,
    id: u32,
    offset: usize,
    more: bool,
    payload: &[u8],
) -> Result<Option<Whole>, DropReason> {
    let (frame, ip) = fragment(src, id, offset, more, payload);
    table.push(NOW, &frame, &ip)
}

const OVERLAP: Result<Option<Whole>, DropReason> = Err(DropReason::FragmentOverlap);
const MALFORMED: Result<Option<Whole>, DropReason> = Err(DropReason::FragmentMalformed);
const NO_ROOM: Result<Option<Whole>, DropReason> = Err(DropReason::FragmentNoRoom);

#[test]
fn the_headers_are_those_of_the_first_fragment() {
    for packet in [
        ipv4_packet(&[7, 7, 4, 0, 0, 0, 0, 0], &[9; 300]),
        ipv6_packet(&[(0, 8), (60, 8), (43, 16), (60, 8)], &[9; 300]),
    ] {
        let fragments = Fragments::new(&packet, 200, 0x1234).expect("fragments");
        let mut table = reassembly(ReassemblyConfig::default());
        let count = fragments.count();
        for index in (0..count).rev() {
            let mut room = vec![0; 200];
            let len = fragments.write(index, &mut room);
            let whole = table.push(NOW, &room[..len], &read(&room[..len], 0)).expect("kept");
            assert_eq!(whole.is_some(), index == 0);
            let Some(whole) = whole else { continue };
            assert_eq!(whole.bytes, packet);
            assert_eq!(whole.fragments, count);
            assert!((193..=200).contains(&whole.largest_fragment_bytes), "{whole:?}");
        }
        assert!(table.is_empty());
        assert_eq!(table.counters(), ReassemblyCounters { completed: 1, ..Default::default() });
    }
}

#[test]
fn overlaps_lose_the_datagram_and_what_still_comes_of_it() {
    for src in [v4(1), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        for (offset, more, payload) in [
            (8, true, &[1; 8][..]),
            (0, true, &[1; 16]),
            (0, true, &[0; 8]),
            (0, false, &[1; 16]),
            // The same bytes at the same place are no duplicate if one is the last and the other is not.
            (16, false, &[1; 8]),
            (40, true, &[1; 8]),
            (48, true, &[1; 8]),
            (48, false, &[1; 8]),
            (32, false, &[1; 8]),
        ] {
            let mut table = reassembly(ReassemblyConfig::default());
            for (offset, more) in [(0, true), (16, true), (40, false)] {
                let len = if offset == 0 { 16 } else { 8 };
                assert_eq!(push(&mut table, src, 7, offset, more, &[1; 16][..len]), Ok(None));
            }
            // An exact duplicate is nothing.
            assert_eq!(push(&mut table, src, 7, 40, false, &[1; 8]), Ok(None));
            assert_eq!(table.counters().duplicates, 1);
            if (offset, payload.len()) == (0, 16) && more {
                assert_eq!(push(&mut table, src, 7, offset, more, payload), Ok(None));
                continue;
            }
            let before = table.bytes();
            assert_eq!(push(&mut table, src, 7, offset, more, payload), OVERLAP, "{offset} {more}");
            assert!(table.bytes() < before);
            assert_eq!(table.bytes(), DATAGRAM_COST_BYTES);
            // What was missing does not bring it back, and what is in it does not begin a new one.
            assert_eq!(push(&mut table, src, 7, 24, true, &[1; 16]), OVERLAP);
            assert_eq!(table.len(), 1);
            assert_eq!(push(&mut table, src, 8, 24, true, &[1; 16]), Ok(None), "others are not touched");
            // Silently: nobody is told.
            let late = NOW + Duration::from_secs(60);
            let told: Vec<_> = std::iter::from_fn(|| table.poll_timeout(late)).collect();
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].first_fragment, None);
            assert!(table.is_empty() && table.bytes() == 0);
            assert_eq!(push(&mut table, src, 7, 24, true, &[1; 16]), Ok(None), "forgotten");
        }
    }
}

#[test]
fn what_cannot_be_touches_nothing() {
    let mut table = reassembly(ReassemblyConfig::default());
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for src in [v4(1), v6] {
        assert_eq!(push(&mut table, src, 7, 0, true, &[1; 9]), MALFORMED, "no multiple of 8");
        assert_eq!(push(&mut table, src, 7, 8, false, &[]), MALFORMED, "empty");
    }
    assert_eq!(push(&mut table, v4(1), 7, 65_512, false, &[1; 4]), MALFORMED, "20 + 65516");
    assert_eq!(push(&mut table, v6, 7, 65_528, false, &[1; 8]), MALFORMED, "65536");
    assert!(table.is_empty());
    assert_eq!(push(&mut table, v4(1), 7, 65_512, false, &[1; 3]), Ok(None));
    assert_eq!(push(&mut table, v6, 7, 65_528, false, &[1; 7]), Ok(None));
    // Whole packets do not come here.
    let (frame, ip) = fragment(v4(1), 7, 0, true, &[1; 8]);
    assert_eq!(table.push(NOW, &frame, &IpPacket { fragment: None, ..ip }), MALFORMED);
    // Nor do descriptions of another frame.
    for len in 0..14 + 28 {
        assert_eq!(table.push(NOW, &frame[..len], &ip), MALFORMED);
    }
    assert_eq!(table.len(), 2);
}

#[test]
fn the_first_fragment_is_handed_out_when_time_is_over() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for (src, timeout) in [(v4(1), Duration::from_secs(30)), (v6, Duration::from_secs(60))] {
        let mut table = reassembly(ReassemblyConfig::default());
        let (first, ip) = fragment(src, 7, 0, true, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(push(&mut table, src, 7, 8, true, &[9; 8]), Ok(None));
        // Later fragments do not give more time.
        let (later, end) = (NOW + Duration::from_secs(9), NOW + timeout);
        assert_eq!(table.push(later, &first, &ip), Ok(None));
        assert_eq!(push(&mut table, src, 8, 8, true, &[9; 8]), Ok(None));
        assert_eq!(table.next_deadline(), Some(end));
        assert_eq!(table.poll_timeout(end - Duration::from_micros(1)), None);
        let mut over: Vec<_> = std::iter::from_fn(|| table.poll_timeout(end)).collect();
        over.sort_by_key(|over| over.first_fragment.is_none());
        let quoted = first[14..first.len() - 5].to_vec();
        assert_eq!(
            over,
            [
                TimedOut { src, dst: ip.dst, first_fragment: Some(quoted) },
                TimedOut { src, dst: ip.dst, first_fragment: None },
            ]
        );
        assert!(table.is_empty() && table.bytes() == 0 && table.next_deadline().is_none());
        assert_eq!(table.counters().timed_out, 2);
    }
}

#[test]
fn congestion_is_not_lost() {
    for (classes, expected) in [
        ([0, 0, 0], Some(0)),
        ([1, 1, 1], Some(1)),
        ([2, 2, 2], Some(2)),
        ([3, 3, 3], Some(3)),
        ([2, 3, 2], Some(3)),
        ([1, 2, 3], Some(3)),
        ([1, 2, 1], Some(1)),
        ([2, 0, 2], Some(0)),
        ([0, 3, 0], None),
        ([3, 2, 0], None),
    ] {
        for src in [v4(1), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let mut table = reassembly(ReassemblyConfig::default());
            let mut result = Ok(None);
            for (index, ecn) in classes.into_iter().enumerate() {
                let (mut frame, _) = fragment(src, 7, index * 8, index < 2, &[1; 8]);
                let class = 0xb8 | ecn;
                if src.is_ipv4() {
                    frame[15] = class;
                } else {
                    (frame[14], frame[15]) = (0x60 | class >> 4, class << 4 | 0x7);
                }
                let ip = read(&frame, 14);
                assert_eq!(ip.traffic_class, class);
                result = table.push(NOW, &frame, &ip);
            }
            let class = result.map(|whole| whole.expect("whole").bytes).map(|bytes| {
                if src.is_ipv4() {
                    assert!(Ipv4Packet::new_checked(&bytes[..]).expect("well-formed").verify_checksum());
                    return bytes[1];
                }
                assert_eq!(bytes[1] & 0xf, 7, "the flow label stays");
                bytes[0] << 4 | bytes[1] >> 4
            });
            assert_eq!(class, expected.map(|ecn| 0xb8 | ecn).ok_or(DropReason::FragmentMalformed));
        }
    }
}

#[test]
fn a_flood_from_one_source_hurts_only_that_source() {
    let mut table = reassembly(ReassemblyConfig::default());
    assert_eq!(push(&mut table, v4(1), 1, 0, true, &[1; 8]), Ok(None));
    for id in 0..10_000 {
        assert_eq!(push(&mut table, v4(66), id, 8, true, &[6; 1024]), Ok(None));
    }
    assert_eq!(table.len(), 1 + 64);
    assert_eq!(table.counters().evicted, 10_000 - 64);
    // An attacker with a prefix of IPv6 is one source.
    for id in 0..10_000 {
        let src = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(id) << 20);
        assert_eq!(push(&mut table, src.into(), id, 8, true, &[6; 1024]), Ok(None));
    }
    assert_eq!(table.len(), 1 + 2 * 64);
    let whole = push(&mut table, v4(1), 1, 8, false, &[2; 8]).expect("still there").expect("whole");
    assert_eq!(whole.bytes[20..], [[1; 8], [2; 8]].concat());
}

#[test]
fn a_flood_from_many_sources_is_bounded_and_the_oldest_goes() {
    let config = ReassemblyConfig::default();
    let mut table = reassembly(config);
    for host in 0..20_000u32 {
        let src = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + host));
        assert_eq!(push(&mut table, src, 1, 0, true, &[6; 8192]), Ok(None));
        assert!(table.len() <= config.datagrams_max && table.bytes() <= config.bytes_max);
        // One that is quick gets through.
        assert_eq!(push(&mut table, v4(1), host + 1, 0, true, &[1; 8]), Ok(None));
        assert!(push(&mut table, v4(1), host + 1, 8, false, &[1; 8]).is_ok_and(|whole| whole.is_some()));
    }
    let oldest = table.snapshot().next().expect("many");
    assert!(oldest.src > IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + 19_000)), "{oldest:?}");
}

#[test]
fn one_datagram_is_bounded_too() {
    let config = ReassemblyConfig { fragments_max: 10, holes_max: 3, ..Default::default() };
    let mut table = reassembly(config);
    for index in 0..4 {
        assert_eq!(push(&mut table, v4(1), 1, index * 16, true, &[1; 8]), Ok(None));
    }
    let seen: Vec<_> = table.snapshot().map(|seen| (seen.fragments, seen.holes, seen.total_bytes)).collect();
    assert_eq!(seen, [(4, 4, None)], "three between, one behind");
    assert_eq!(push(&mut table, v4(1), 1, 8, true, &[1; 8]), Ok(None), "fills a hole");
    assert_eq!(push(&mut table, v4(1), 1, 64, true, &[1; 8]), Ok(None));
    assert_eq!(push(&mut table, v4(1), 1, 80, true, &[1; 8]), NO_ROOM);
    assert_eq!(push(&mut table, v4(1), 1, 24, true, &[1; 8]), NO_ROOM, "remembered");
    for index in 0..10 {
        assert_eq!(push(&mut table, v4(1), 2, index * 8, true, &[1; 8]), Ok(None));
    }
    assert_eq!(push(&mut table, v4(1), 2, 80, false, &[1; 8]), NO_ROOM);
    // Longer than its source may be at all.
    let config = ReassemblyConfig { source_bytes_max: 2000, ..Default::default() };
    let mut table = reassembly(config);
    assert_eq!(push(&mut table, v4(1), 1, 0, true, &[1; 1000]), Ok(None));
    assert_eq!(push(&mut table, v4(1), 1, 1000, true, &[1; 1000]), NO_ROOM);
    assert_eq!(table.bytes(), DATAGRAM_COST_BYTES);
}

/// The slow one: a byte at a time.
#[derive(Debug, Default)]
struct Slow {
    bytes: Map<usize, u8>,
    seen: BTreeSet<(usize, bool, Vec<u8>)>,
    is_dead: bool,
}

impl Slow {
    fn push(&mut self, offset: usize, more: bool, payload: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let places = offset..offset + payload.len();
        if self.is_dead {
            return Err(DropReason::FragmentOverlap);
        }
        if !self.seen.insert((offset, more, payload.to_vec())) {
            return Ok(None);
        }
        let mut ends =
            self.seen.iter().filter(|(_, more, _)| !more).map(|(offset, _, bytes)| offset + bytes.len());
        let total = ends.next();
        self.is_dead = ends.next().is_some()
            || places.clone().any(|place| self.bytes.contains_key(&place))
            || self.seen.iter().any(|(offset, more, bytes)| {
                total.is_some_and(|total| {
                    offset + bytes.len() > total || (*more && offset + bytes.len() == total)
                })
            });
        if self.is_dead {
            return Err(DropReason::FragmentOverlap);
        }
        self.bytes.extend(places.zip(payload.iter().copied()));
        let whole: Option<Vec<u8>> =
            total.and_then(|total| (0..total).map(|place| self.bytes.get(&place).copied()).collect());
        Ok(whole)
    }
}

proptest! {
    #[test]
    fn it_is_the_slow_one(
        fragments in prop::collection::vec(
            // Source, identification, unit, length in units, last, content.
            (0u8..4, 0u32..2, 0usize..6, 1usize..4, prop::bool::weighted(0.3), prop::bool::weighted(0.05)),
            1..120,
        ),
    ) {
        let mut table = reassembly(ReassemblyConfig::default());
        let mut slow: Map<(u8, u32), Slow> = Map::new();
        for (host, id, unit, len, is_last, is_other) in fragments {
            let src = if host < 2 { v4(host) } else { IpAddr::V6(Ipv6Addr::from_bits(u128::from(host) << 64)) };
            let payload: Vec<u8> =
                (unit * 8..(unit + len) * 8 - usize::from(is_last)).map(|at| at as u8 ^ u8::from(is_other)).collect();
            let expected = slow.entry((host, id)).or_default().push(unit * 8, !is_last, &payload);
            let result = push(&mut table, src, id, unit * 8, !is_last, &payload);
            if let Ok(Some(_)) = &expected {
                slow.remove(&(host, id));
            }
            let header_len = if host < 2 { 20 } else { 40 };
            let result = result.map(|whole| whole.map(|whole| whole.bytes[header_len..].to_vec()));
            prop_assert_eq!(result, expected);
            for seen in table.snapshot() {
                let missing = seen.total_bytes.map(|total| total - seen.received_bytes);
                prop_assert!(seen.abandoned.is_some() || missing != Some(0));
            }
        }
    }

    #[test]
    fn limits_hold_whatever_comes(
        fragments in prop::collection::vec(
            (0u8..6, 0u32..8, 0usize..40, 0usize..30, any::<bool>(), 0u64..3),
            1..200,
        ),
    ) {
        let config = ReassemblyConfig {
            datagrams_max: 6,
            bytes_max: 6000,
            source_datagrams_max: 3,
            source_bytes_max: 3000,
            fragments_max: 6,
            holes_max: 3,
            ..Default::default()
        };
        let mut table = reassembly(config);
        let mut now = NOW;
        for (host, id, unit, len, more, pause) in fragments {
            now += Duration::from_secs(pause);
            while table.poll_timeout(now).is_some() {}
            let (frame, ip) = fragment(v4(host), id, unit * 8, more, &vec![1; len * 8]);
            let _ = table.push(now, &frame, &ip);
            prop_assert!(table.len() <= 6 && table.bytes() <= 6000);
            let of_source = table.snapshot().filter(|seen| seen.src == v4(host)).count();
            prop_assert!(of_source <= 3);
            prop_assert!(table.snapshot().all(|seen| seen.fragments <= 6 && seen.holes <= 5));
            prop_assert_eq!(table.next_deadline(), table.snapshot().map(|seen| seen.expires).min());
            prop_assert!(table.next_deadline().is_none_or(|at| at > now));
        }
        while table.poll_timeout(now + Duration::from_secs(30)).is_some() {}
        prop_assert!(table.is_empty() && table.bytes() == 0 && table.sources.is_empty() && table.by_key.is_empty());
    }

    #[test]
    fn descriptions_that_lie_are_survived(
        offsets in prop::array::uniform6(0usize..100),
        is_v4 in any::<bool>(),
        more in any::<bool>(),
        far in any::<usize>(),
    ) {
        let [start, end, payload, next_header_at, header_at, offset] = offsets;
        let src = if is_v4 { v4(1) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        let (frame, ip) = fragment(src, 1, 0, true, &[1; 48]);
        let mut table = reassembly(ReassemblyConfig::default());
        for offset in [offset, far] {
            let info = FragmentInfo {
                id: 1, offset, more, payload, next_header_at, header_at, next_header: 17,
            };
            let _ = table.push(NOW, &frame, &IpPacket { start, end, fragment: Some(info), ..ip });
        }
    }
}

#[test]
fn bytes_are_bounded_to_the_byte() {
    let cost = DATAGRAM_COST_BYTES + FRAGMENT_COST_BYTES + 64;
    for (bytes_max, is_kept) in [(cost, true), (cost - 1, false)] {
        for is_of_source in [true, false] {
            let default = ReassemblyConfig::default();
            let mut table = reassembly(match is_of_source {
                true => ReassemblyConfig { source_bytes_max: bytes_max, ..default },
                false => ReassemblyConfig { bytes_max, ..default },
            });
            let result = push(&mut table, v4(1), 1, 64, true, &[1; 64]);
            assert_eq!(result, if is_kept { Ok(None) } else { NO_ROOM }, "{bytes_max} {is_of_source}");
        }
    }
}

#[test]
fn datagrams_are_told_apart() {
    // By protocol, over IPv4.
    let mut table = reassembly(ReassemblyConfig::default());
    for protocol in [17, 1] {
        let (mut frame, _) = fragment(v4(1), 7, 0, true, &[1; 8]);
        frame[14 + 9] = protocol;
        assert_eq!(table.push(NOW, &frame, &read(&frame, 14)), Ok(None));
    }
    assert_eq!((table.len(), table.counters().duplicates), (2, 0));
    // Neighbours are hosts of one prefix, and no one source: each has room of its own.
    for host in 0..3 {
        let src = IpAddr::V6(Ipv6Addr::from_bits(0xfe80 << 112 | host));
        (0..64).for_each(|id| assert_eq!(push(&mut table, src, id, 0, true, &[1; 8]), Ok(None)));
    }
    assert_eq!((table.len(), table.counters().evicted), (2 + 3 * 64, 0));
}
