//! Requests and answers over wires that lose, repeat, reorder, damage and delay.

use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack::nic::OffloadCapabilities;
use wirestack_tests::sim::{LinkSpec, Loss, NicConfig, Sim, seeds};

use crate::support::*;

/// A wire with faults that the seed chooses.
fn bad_wire(sim: &mut Sim) -> LinkSpec {
    let random = sim.random();
    let loss = match random.below(4) {
        0 => Loss::None,
        1 => Loss::Random(0.2),
        2 => Loss::GilbertElliott { to_bad: 0.05, to_good: 0.3, in_good: 0.01, in_bad: 0.7 },
        _ => Loss::Periodic { period: 7, burst: 2 },
    };
    LinkSpec {
        delay: Duration::from_micros(u64::from(random.below(20_000))),
        jitter: Duration::from_micros(u64::from(random.below(5_000))),
        bits_per_second: (random.below(2) == 0).then_some(10_000_000),
        queue_frames_max: 20,
        loss,
        duplicate: f64::from(random.below(3)) / 10.0,
        reorder: f64::from(random.below(3)) / 10.0,
        corrupt: f64::from(random.below(3)) / 20.0,
        ..LinkSpec::default()
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut sim = Sim::new("every_request_is_answered", seed);
    let spec = bad_wire(&mut sim);
    let (_, hosts) = star(&mut sim, 3, spec);
    let served = echo_server(&mut sim, hosts[0], 0, 7);
    let clients = [(hosts[1], true), (hosts[2], false)]
        .map(|(node, is_v4)| client(&mut sim, node, SocketAddr::new(host_ip(1, is_v4), 7), 10, 0..1400));
    let is_done =
        sim.run_while(Duration::from_secs(600), |_| clients.iter().all(|one| one.borrow().answered == 10));
    assert!(is_done, "{clients:?} {spec:?}");
    // What is still under way comes, too; then all is accounted for.
    sim.run_for(Duration::from_secs(2));
    let received = sim.shard(hosts[0]).counters().udp_received;
    assert_eq!(*served.borrow(), received, "the server sees what its shard counts, once");
    for (one, node) in clients.iter().zip(&hosts[1..]) {
        let one = one.borrow();
        assert_eq!(sim.shard(*node).counters().udp_received, one.answered as u64 + one.again);
    }
    (sim.trace_hash(), sim.frames())
}

#[test]
fn every_request_is_answered() {
    for seed in seeds(200) {
        run(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in seeds(10) {
        assert_eq!(run(seed), run(seed), "{seed}");
    }
    assert_ne!(run(1), run(2));
}

/// Super-frames of several datagrams, split by the device of the sender, by the device of the receiver, or not
/// at all.
#[test]
fn several_datagrams_in_one_frame_arrive_as_several() {
    let all = OffloadCapabilities {
        checksum_tx: true,
        checksum_rx: true,
        gso_udp: std::num::NonZeroUsize::new(65_550),
        ..OffloadCapabilities::default()
    };
    for (offloads, takes_unfinished) in [(OffloadCapabilities::default(), false), (all, false), (all, true)] {
        for is_v4 in [true, false] {
            let mut sim = Sim::new("several_datagrams_in_one_frame_arrive_as_several", 1);
            let nic = NicConfig { offloads, takes_unfinished, ..NicConfig::default() };
            let [a, b] = [1, 2].map(|number| sim.add_host("h", host(number), nic, 1));
            sim.connect(a, b, LinkSpec::default());
            let size = std::num::NonZeroU16::new(1000).expect("not 0");
            let data = payload(sim.random(), 10_500);
            let to = SocketAddr::new(host_ip(2, is_v4), 7);
            let server = sim.with_shard(b, 0, |shard| {
                shard.udp_bind(wirestack::shard::UdpBind::new(to)).expect("the port is free")
            });
            sim.with_shard(a, 0, |shard| {
                let socket = shard.udp_bind(wirestack::shard::UdpBind::new(any(is_v4))).expect("a port");
                let options = wirestack::shard::SendOptions {
                    to: Some(to),
                    segment_bytes: Some(size),
                    ..Default::default()
                };
                shard
                    .udp_send_with(socket, &options, data.len(), |room| room.copy_from_slice(&data))
                    .expect("sent");
            });
            sim.run_for(Duration::from_secs(1));
            let got = sim.with_shard(b, 0, |shard| {
                let mut got = Vec::new();
                while let Some(piece) = shard.udp_recv_with(server, |_, payload| payload.to_vec()) {
                    got.push(piece);
                }
                got
            });
            assert_eq!(got.concat(), data);
            assert_eq!(got.len(), 11, "{offloads:?} {takes_unfinished}");
        }
    }
}
