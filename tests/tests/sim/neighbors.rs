//! Who is behind an address, over wires that lose the question or the answer, and for very many.

use std::net::{Ipv4Addr, SocketAddr};

use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{ShardConfig, UdpBind};
use wirestack::udp::SendError;
use wirestack_tests::sim::{App, LinkSpec, Loss, NicConfig, Sim, packets, seeds};

use crate::support::*;

/// Three questions, a second apart: with half of all frames lost, most pairs find each other at once, and all
/// when they are asked again.
#[test]
fn neighbors_are_found_over_bad_wires() {
    for seed in seeds(100) {
        let mut sim = Sim::new("neighbors_are_found_over_bad_wires", seed);
        let spec = LinkSpec { loss: Loss::Random(0.3), ..LinkSpec::default() };
        let (_, hosts) = star(&mut sim, 4, spec);
        let clients: Vec<_> = (0..4)
            .map(|index| {
                let next = (index + 1) % 4;
                let to = SocketAddr::new(host_ip(next as u8 + 1, seed % 2 == 0), 7);
                echo_only(&mut sim, hosts[index], to)
            })
            .collect();
        let is_done =
            sim.run_while(Duration::from_secs(300), |_| clients.iter().all(|done| *done.borrow() >= 3));
        assert!(is_done, "{clients:?}");
    }
}

/// Serves echo on port 7, and asks another one until it has answered three times.
fn echo_only(sim: &mut Sim, node: wirestack_tests::sim::NodeId, to: SocketAddr) -> Shared<usize> {
    let done = shared(0);
    let told = done.clone();
    let mut random = sim.random().fork();
    let mut sockets = None;
    let mut due = sim.now();
    let app: App = Box::new(move |shard, context| {
        let (server, client) = *sockets.get_or_insert_with(|| {
            let server = shard.udp_bind(UdpBind::new(at("[::]:7"))).expect("port 7");
            (server, shard.udp_bind(UdpBind::new(any(to.is_ipv4()))).expect("a port"))
        });
        while let Some((meta, payload)) = context.recv(shard, server) {
            let _ = context.send_to(shard, server, &payload, meta.src);
        }
        while context.recv(shard, client).is_some() {
            *told.borrow_mut() += 1;
        }
        if *told.borrow() >= 3 {
            return None;
        }
        if due <= context.now {
            due = context.now + Duration::from_millis(300);
            let _ = context.send_to(shard, client, &payload(&mut random, 40), to);
        }
        Some(due)
    });
    sim.set_app(node, 0, app);
    done
}

/// Everybody of a /16 answers after a millisecond each way; one shard sends a datagram to 10 000 of them.
#[test]
fn ten_thousand_new_neighbors_are_resolved_within_a_second() {
    let mut sim = Sim::new("ten_thousand_new_neighbors_are_resolved_within_a_second", 1);
    let mut config =
        ShardConfig::new(EthernetAddress(mac(1))).address(parse_cidr("10.0.0.1/16").expect("an address"));
    config.neighbor.probes = AddressProbes::None;
    config.link_local = None;
    let node = sim.add_host("h1", config, NicConfig::default(), 1);
    let got = shared(0_usize);
    let counted = got.clone();
    let link = sim.add_responder(
        "link",
        Box::new(move |_, frame| {
            if frame[12..14] == [8, 0] {
                *counted.borrow_mut() += 1;
            }
            is_at(frame).into_iter().collect()
        }),
    );
    // With a rate: without one, all answers would come in one instant, and no ring holds them.
    let spec = LinkSpec {
        delay: Duration::from_millis(1),
        bits_per_second: Some(1_000_000_000),
        queue_frames_max: 10_000,
        ..LinkSpec::default()
    };
    sim.connect(node, link, spec);

    let start = sim.now();
    let mut next = 0_u32;
    let mut socket = None;
    sim.set_app(
        node,
        0,
        Box::new(move |shard, context| {
            let id = *socket.get_or_insert_with(|| shard.udp_bind(UdpBind::new(any(true))).expect("a port"));
            while next < NEIGHBORS {
                let host = next + 256;
                let to = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + host);
                match context.send_to(shard, id, &next.to_be_bytes(), SocketAddr::new(to.into(), 9)) {
                    Ok(()) => next += 1,
                    Err(SendError::WouldBlock) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            (next < NEIGHBORS).then_some(context.now + Duration::from_millis(1))
        }),
    );
    let is_done = sim.run_while(Duration::from_secs(5), |_| *got.borrow() == NEIGHBORS as usize);
    let took = sim.now() - start;
    assert!(is_done, "{} of {NEIGHBORS} in {took}; {:?}", got.borrow(), sim.shard(node).counters());
    println!("{NEIGHBORS} neighbours in {took} of simulated time");
    assert!(took <= Duration::from_secs(1), "{took}");
}

/// The answer to an ARP request, whoever is asked for.
fn is_at(frame: &[u8]) -> Option<Vec<u8>> {
    if frame.get(12..14)? != [8, 6] || frame[21] != 1 {
        return None;
    }
    let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    let (asker, target) = (ip(28)?, ip(38)?);
    let to: packets::Mac = frame.get(6..12)?.try_into().ok()?;
    let [.., a, b] = target.octets();
    let own = [2, 1, 0, 0, a, b];
    Some(packets::ethernet(to, own, 0x0806, &packets::arp(2, (own, target), (to, asker))))
}

const NEIGHBORS: u32 = 10_000;

/// The application of a host whose neighbour does not answer is told, and the neighbour is asked for thrice.
#[test]
fn who_never_answers_is_asked_for_three_times() {
    let mut sim = Sim::new("who_never_answers_is_asked_for_three_times", 1);
    let node = sim.add_host("h1", host(1), NicConfig::default(), 1);
    let wall = sim.add_puppet("wall");
    sim.connect(node, wall, LinkSpec::default());
    sim.run_for(Duration::from_secs(5));
    sim.received(wall);
    let start: Instant = sim.now();
    sim.with_shard(node, 0, |shard| {
        let socket = shard.udp_bind(UdpBind::new(any(true))).expect("a port");
        shard.udp_send_to(socket, b"anybody?", at("10.0.0.99:7")).expect("it waits for the neighbour");
    });
    sim.run_for(Duration::from_secs(10));
    let asked: Vec<_> = sim.received(wall).into_iter().filter(|(_, frame)| frame[12..14] == [8, 6]).collect();
    let times: Vec<_> = asked.iter().map(|(at, _)| (*at - start).total_millis() / 1000).collect();
    assert_eq!(times, [0, 1, 2]);
    assert_eq!(sim.shard(node).drops().get(wirestack::observe::DropReason::NeighborUnreachable), 1);
}
