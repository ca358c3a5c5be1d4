//! Stacks of headers that are right, and what becomes of them when bytes change.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use wirestack::ingress::Problem;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..120), medium in media()) {
        check(medium, &bytes);
    }

    #[test]
    fn valid_headers((medium, frame) in frames(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), mends: bool) {
        let mut frame = frame;
        for (index, byte) in changes {
            // Most of what matters is in front.
            let len = frame.len().clamp(1, 120);
            if let Some(changed) = frame.get_mut(index.index(len)) {
                *changed = byte;
            }
        }
        if mends {
            mend_checksum(medium, &mut frame);
        }
        check(medium, &frame);
    }

    #[test]
    fn cut_headers((medium, frame) in frames()) {
        for len in 0..frame.len().min(200) {
            check(medium, &frame[..len]);
        }
    }
}

/// The strategies are worth something only if they come everywhere.
#[test]
fn every_outcome_is_reached() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..6000 {
        let (medium, frame) = frames().new_tree(&mut runner).expect("a frame").current();
        match ingress::classify(medium, &frame) {
            Ok(packet) => seen.extend(features(&packet.body)),
            Err(reason) => drop(seen.insert(reason.name())),
        }
    }
    let expected = [
        "arp",
        "arp_malformed",
        "code 0",
        "code 1",
        "discard",
        "discard, tell all",
        "discard, tell one",
        "first v4",
        "first v6",
        "fragment_headers",
        "fragment_malformed",
        "ip_checksum",
        "ip_malformed",
        "ip_options",
        "ip_source_route",
        "ip_truncated",
        "later v4",
        "later v6",
        "link_unknown_type",
        "link_vlan",
        "long",
        "ports",
        "router alert v4",
        "router alert v6",
        "whole v4",
        "whole v6",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

fn features(body: &Body) -> Vec<&'static str> {
    let Body::Ip(packet) = body else { return vec!["arp"] };
    let of_family = |v4, v6| if packet.src.is_ipv4() { v4 } else { v6 };
    let mut found = vec![match packet.fragment {
        None => of_family("whole v4", "whole v6"),
        Some(fragment) if fragment.offset == 0 => of_family("first v4", "first v6"),
        Some(_) => of_family("later v4", "later v6"),
    }];
    found.extend(packet.ports.map(|_| "ports"));
    found.extend(packet.router_alert.then(|| of_family("router alert v4", "router alert v6")));
    found.extend((packet.end - packet.start > 9000).then_some("long"));
    found.extend(packet.problem.map(|problem| match problem {
        Problem::NextHeader { code: 0, .. } => "code 0",
        Problem::NextHeader { .. } => "code 1",
        Problem::Option { answer: false, .. } => "discard",
        Problem::Option { even_multicast: true, .. } => "discard, tell all",
        Problem::Option { .. } => "discard, tell one",
    }));
    found
}

fn media() -> impl Strategy<Value = Medium> {
    prop_oneof![Just(Medium::Ethernet), Just(Medium::Ip)]
}

/// Frames whose lengths and checksums mostly are right.
fn frames() -> impl Strategy<Value = (Medium, Vec<u8>)> {
    let packet = prop_oneof![
        10 => ipv4().prop_map(|packet| (0x0800, packet)),
        14 => ipv6().prop_map(|packet| (0x86dd, packet)),
        1 => vec(any::<u8>(), 20..40).prop_map(|message| (0x0806, message)),
        1 => (any::<u16>(), vec(any::<u8>(), 0..40)),
    ];
    let padding = prop_oneof![3 => Just(0), 1 => 0..30usize];
    (media(), tags(), packet, padding).prop_map(|(medium, tags, (ethertype, packet), padding)| {
        let padding = vec![0xaa; padding];
        let frame = match medium {
            Medium::Ip => [packet, padding].concat(),
            _ => [vec![2; 12], tags, u16::to_be_bytes(ethertype).to_vec(), packet, padding].concat(),
        };
        (medium, frame)
    })
}

fn tags() -> impl Strategy<Value = Vec<u8>> {
    let tag = (prop::sample::select(vec![[0x81, 0], [0x81, 0], [0x88, 0xa8]]), any::<[u8; 2]>());
    let count = prop_oneof![6 => Just(0), 3 => Just(1), 3 => Just(2), 1 => Just(3)];
    count
        .prop_flat_map(move |count| vec(tag.clone(), count))
        .prop_map(|tags| tags.into_iter().flat_map(|(kind, tag)| [kind, tag].concat()).collect())
}

/// What is above IP: its number, and its first bytes.
fn upper() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let number = prop_oneof![
        4 => prop::sample::select(vec![6, 17]),
        2 => prop::sample::select(vec![1, 2, 50, 58, 59]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        // Whole units, so that a fragment can be of these.
        4 => (1..8usize).prop_flat_map(|units| vec(any::<u8>(), 8 * units)),
        2 => vec(any::<u8>(), 0..32),
        1 => Just(vec![0x55; 30_000]),
    ];
    (number, payload)
}

fn fragment_offsets() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 1..20u16, 8000..8192u16]
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        4 => Just(vec![1]),
        2 => Just(vec![148, 4, 0, 0]),
        2 => Just(vec![68, 4, 5, 0]),
        1 => Just(vec![0]),
        1 => prop::sample::select(vec![vec![131, 3, 4], vec![137, 3, 4], vec![148, 3, 0], vec![7]]),
        1 => vec(any::<u8>(), 1..5),
    ];
    let options = prop_oneof![3 => Just(vec![]), 2 => vec(option, 1..6)];
    let flags = prop_oneof![
        3 => Just(0x4000),
        2 => (fragment_offsets(), 0..4u16).prop_map(|(offset, flags)| offset | (flags << 13)),
    ];
    let length = prop_oneof![12 => Just(None), 1 => (0..80u16).prop_map(Some)];
    let is_mended = prop::bool::weighted(0.95);
    let fields = (any::<[u8; 3]>(), any::<[u8; 8]>());
    (options, flags, upper(), length, is_mended, fields).prop_map(
        |(options, flags, (protocol, payload), length, is_mended, (fields, addresses))| {
            let mut options = options.concat();
            options.truncate(40);
            options.resize(options.len().next_multiple_of(4), 0);
            let header_len = 20 + options.len();
            let total_len = length.unwrap_or((header_len + payload.len()) as u16);
            let [tos, id, ttl] = fields;
            let mut head = vec![0x40 | (header_len / 4) as u8, tos];
            head.extend(total_len.to_be_bytes());
            head.extend([0, id]);
            head.extend(u16::to_be_bytes(flags));
            head.extend([ttl, protocol, 0, 0]);
            let mut packet = [&head[..], &addresses, &options, &payload].concat();
            if is_mended {
                mend_checksum(Medium::Ip, &mut packet);
            }
            packet
        },
    )
}

/// An extension header without its first byte: its number, and the rest.
fn extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let routing = (any::<u8>(), prop_oneof![3 => Just(0), 1 => any::<u8>()])
        .prop_map(|(kind, segments)| (43, vec![0, kind, segments, 0, 0, 0, 0]));
    let fragment = (fragment_offsets(), 0..2u16, any::<[u8; 4]>()).prop_map(|(offset, more, id)| {
        let field = (offset * 8) | more;
        (44, [&[0][..], &field.to_be_bytes(), &id].concat())
    });
    let authentication =
        (0..5u8).prop_map(|len| (51, [vec![len], vec![7; 6 + 4 * usize::from(len)]].concat()));
    let raw = (prop::sample::select(vec![0, 43, 44, 51, 60]), any::<[u8; 7]>())
        .prop_map(|(kind, bytes)| (kind, bytes.to_vec()));
    prop_oneof![
        6 => options().prop_map(|options| (60, options)),
        2 => routing,
        3 => fragment,
        1 => authentication,
        1 => raw,
    ]
}

/// The options of a header with their length in front, filled up to whole units.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        3 => Just(vec![0]),
        3 => (0..6u8).prop_map(|len| [vec![1, len], vec![0; len.into()]].concat()),
        2 => Just(vec![5, 2, 0, 0]),
        6 => (2..64u8, 0..4u8).prop_map(|(kind, len)| [vec![kind, len], vec![9; len.into()]].concat()),
        1 => (any::<u8>(), 0..4u8).prop_map(|(kind, len)| [vec![kind, len], vec![9; len.into()]].concat()),
    ];
    vec(option, 0..9).prop_map(|options| {
        let mut options = options.concat();
        match (8 - (options.len() + 2) % 8) % 8 {
            0 => {}
            1 => options.push(0),
            len => options.extend([&[1, len as u8 - 2][..], &vec![0; len - 2]].concat()),
        }
        let units = (options.len() + 2) / 8 - 1;
        [&[units as u8], &options[..]].concat()
    })
}

fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    let count = prop_oneof![3 => Just(0), 6 => 1..4usize, 1 => 4..11usize];
    let chain = count.prop_flat_map(|count| vec(extension(), count));
    let hop_by_hop = prop_oneof![2 => Just(None), 1 => options().prop_map(Some)];
    let length = prop_oneof![12 => Just(None), 1 => (0..80u16).prop_map(Some)];
    (hop_by_hop, chain, upper(), length, any::<[u8; 2]>(), any::<[u8; 32]>()).prop_map(
        |(hop_by_hop, chain, (upper, payload), length, [class, hop_limit], addresses)| {
            let hop_by_hop = hop_by_hop.map(|options| (0, options));
            let chain: Vec<_> = hop_by_hop.into_iter().chain(chain).collect();
            let numbers = chain.iter().map(|(number, _)| *number).chain([upper]);
            let mut numbers: Vec<_> = numbers.collect();
            let first = numbers.remove(0);
            let headers =
                chain.iter().zip(&numbers).flat_map(|((_, rest), next)| [&[*next], &rest[..]].concat());
            let body = [headers.collect(), payload].concat();
            let length = length.unwrap_or(body.len() as u16);
            let head =
                [&[0x60 | (class >> 4), class << 4, 0, 0][..], &length.to_be_bytes(), &[first, hop_limit]];
            [head.concat(), addresses.to_vec(), body].concat()
        },
    )
}
