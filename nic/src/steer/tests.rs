use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::filter::tests::{Made, flows, frames, whole};
use crate::filter::{Context, Origin};

const SEED: u32 = 0x1234_5678;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The function and the programs are one, whatever the bytes.
    #[test]
    fn programs_compute_the_hash(frame in frames(), seed in any::<u32>()) {
        let expected = flow_hash(seed, &frame);
        let run = |origin, context: &Context<'_>| flow_program(origin, seed).unwrap().run(context);
        prop_assert_eq!(run(Origin::Link, &Context::link(&frame)), expected);
        prop_assert_eq!(run(Origin::Network, &Context::fanout(&frame)), expected);
        prop_assert_eq!(run(Origin::Known, &Context::fanout(&frame)), expected);
        // As for an outgoing frame: offset 0 is the link header.
        let outgoing = Context { zero_at: 0, ..Context::fanout(&frame) };
        prop_assert_eq!(run(Origin::Known, &outgoing), expected);
    }

    #[test]
    fn both_directions_meet(made in whole()) {
        prop_assert_eq!(flow_hash(SEED, &made.frame()), flow_hash(SEED, &made.reversed().frame()));
        prop_assert_eq!(flow_hash(SEED, &made.frame()), flow_hash_of_packet(SEED, &made.packet()));
    }

    #[test]
    fn the_hash_of_a_tuple_is_that_of_its_frames(made in flows()) {
        let (src, dst) = made.ports().unwrap();
        let tuple = flow_hash_of(SEED, (made.src, src).into(), (made.dst, dst).into(), made.protocol);
        prop_assert_eq!(flow_hash(SEED, &made.frame()), tuple);
    }

    /// An error about a packet of a flow comes from anywhere, and meets the flow.
    #[test]
    fn errors_meet_their_flow(quoted in flows(), last in any::<u8>(), kind in 0_usize..3) {
        let is_v4 = quoted.src.is_ipv4();
        let kinds = if is_v4 { [3, 11, 12] } else { [1, 2, 3] };
        let router: IpAddr = if is_v4 { [192, 0, 2, last].into() } else { [0x2001, 0, 0, 0, 0, 0, 0, last.into()].into() };
        let body = [&[kinds[kind], 0, 0, 0, 0, 0, 0, 0][..], &quoted.packet()].concat();
        let protocol = if is_v4 { 1 } else { 58 };
        let error = Made { src: router, dst: quoted.src, protocol, body, extensions: vec![], ..quoted.clone() };
        prop_assert_eq!(flow_hash(SEED, &error.frame()), flow_hash(SEED, &quoted.frame()));
    }

    #[test]
    fn all_fragments_meet(made in whole(), offset in 1_u16..0x1fff) {
        prop_assume!(made.extensions.len() < 4);
        let first = Made { fragment: Some((0, true)), ..made.clone() };
        let later = Made { fragment: Some((offset, false)), body: vec![7; 30], ..made };
        prop_assert_eq!(flow_hash(SEED, &first.frame()), flow_hash(SEED, &later.frame()));
    }
}

/// How far counts are from even: about the number of shards for a good hash, as chi-square has it.
fn unevenness(hashes: &[u32], shards: usize) -> f64 {
    let mut counts = vec![0_u32; shards];
    hashes.iter().for_each(|hash| counts[shard_of(*hash, shards)] += 1);
    let expected = hashes.len() as f64 / shards as f64;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

#[test]
fn flows_are_spread_evenly() {
    let v4 = |a: [u8; 4], port| SocketAddr::from((a, port));
    let server = v4([10, 0, 0, 2], 80);
    let v6 = |low: u16, port| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, low], port));
    type Flow = Box<dyn Fn(u16) -> (SocketAddr, SocketAddr)>;
    let sets: [(&str, Flow); 7] = [
        ("sequential ports of one client", Box::new(move |n| (v4([10, 0, 0, 1], 32768 + n), server))),
        ("every second port", Box::new(move |n| (v4([10, 0, 0, 1], 32768 + 2 * n), server))),
        (
            "sequential clients, one port",
            Box::new(move |n| (v4([10, 1, (n >> 8) as u8, n as u8], 40000), server)),
        ),
        ("networks of clients", Box::new(move |n| (v4([11, (n >> 8) as u8, n as u8, 1], 40000), server))),
        (
            "ports at both ends",
            Box::new(move |n| (v4([10, 0, 0, 1], 1000 + n % 64), v4([10, 0, 0, 2], 1000 + n / 64))),
        ),
        ("IPv6 ports", Box::new(move |n| (v6(1, 32768 + n), v6(2, 443)))),
        ("IPv6 clients", Box::new(move |n| (v6(n, 40000), v6(2, 443)))),
    ];
    for (name, flow) in sets {
        for seed in [0, 1, SEED, u32::MAX] {
            let hashes: Vec<u32> = (0..4096).map(&flow).map(|(a, b)| flow_hash_of(seed, a, b, 6)).collect();
            for shards in 1..=16 {
                // Beyond the 99.99th percentile of chi-square for up to 15 degrees of freedom.
                let found = unevenness(&hashes, shards);
                assert!(found < 45.0, "{name}, seed {seed}, {shards} shards: {found}");
            }
        }
    }
}

#[test]
fn seeds_change_the_shards() {
    let flow = |n| (SocketAddr::from((Ipv4Addr::LOCALHOST, n)), SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    let moved = (0..1000).filter(|n| {
        let (a, b) = flow(*n);
        shard_of(flow_hash_of(1, a, b, 6), 2) != shard_of(flow_hash_of(2, a, b, 6), 2)
    });
    assert!((400..600).contains(&moved.count()));
    assert_eq!(shard_of(77, 0), 0);
}

#[test]
fn programs_are_small() {
    let frame = Made {
        tags: 0,
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
        protocol: 6,
        fragment: None,
        options: 0,
        extensions: vec![],
        body: vec![0; 20],
        cut: 0,
    };
    for (origin, executed) in [(Origin::Network, 45), (Origin::Link, 45), (Origin::Known, 45)] {
        let program = flow_program(origin, SEED).unwrap();
        let context = if origin == Origin::Link { Context::link } else { Context::fanout };
        let run = program.run_counted(&context(&frame.frame()));
        assert!(run.instructions <= executed, "{origin:?}: {} of {}", run.instructions, program.len());
        // net.core.optmem_max of older kernels is 20 KB, of which eBPF takes 8 bytes an instruction.
        let extended = ebpf::Extended::from_classic(&program).unwrap();
        assert!(extended.instructions().len() < 2000, "{}", extended.instructions().len());
    }
}

#[test]
fn fanout_is_read_as_it_is_written() {
    for text in [
        "hash",
        "lb",
        "cpu:7",
        "rnd",
        "rollover",
        "qm+rollover",
        "flow",
        "flow=77+rollover+defrag:65535",
        "flow-ebpf+outgoing:0",
    ] {
        let fanout: Fanout = text.parse().unwrap();
        assert_eq!(fanout.to_string(), text);
    }
    for (text, words) in [
        ("", "flow=SEED"),
        ("hsah", "\"hsah\""),
        ("hash:x", "0 to 65535"),
        ("hash:65536", "0 to 65535"),
        ("hash+unique", "rollover, defrag or outgoing"),
        ("rollover+rollover", "leave it out"),
        ("flow=x", "flow=SEED"),
    ] {
        let error = text.parse::<Fanout>().unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn the_kernel_is_told_in_its_numbers() {
    let value = |text: &str| text.parse::<Fanout>().unwrap().kernel_value();
    assert_eq!(value("hash:7"), 0x4000_0007);
    assert_eq!(value("lb+outgoing:7"), 0x0001_0007);
    assert_eq!(value("flow"), 0x6006_0000);
    assert_eq!(value("flow-ebpf+rollover+defrag:9"), 0xd007_0009);
}
