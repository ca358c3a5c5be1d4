//! More frames than a host can take: it still answers, fires its timers, and stays within its bounds.

use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};
use wirestack::shard::{PingBind, PingOptions, UdpBind};
use wirestack_tests::sim::{LinkSpec, NicConfig, Sim, Switch, packets};

use crate::support::*;

/// A turn takes a millisecond and 256 frames; a thousand come in that time. So three of four are lost, of pings as
/// of the flood. Some are answered all the same, and an application that wants a turn has it after two.
#[test]
fn a_flooded_host_answers_and_keeps_time() {
    for kind in ["to a closed port", "to an open port", "echo", "broadcast"] {
        let mut sim = Sim::new("a_flooded_host_answers_and_keeps_time", 1);
        let switch = sim.add_switch("switch", Switch::new(false));
        let nic = NicConfig { rx_frames_max: 512, ..NicConfig::default() };
        let [victim, pinger] = [(1, nic), (2, NicConfig::default())]
            .map(|(number, nic)| sim.add_host(&format!("h{number}"), host(number), nic, 1));
        let attacker = sim.add_puppet("attacker");
        for node in [victim, pinger, attacker] {
            sim.connect(node, switch, LinkSpec::default());
        }
        sim.set_turn_cost(victim, Duration::from_millis(1));
        let late = lateness(&mut sim, victim);

        let socket = sim
            .with_shard(pinger, 0, |shard| shard.ping_bind(PingBind::new(any(true).ip())).expect("a socket"));
        let ping = |sim: &mut Sim, sequence: u16| {
            let options = PingOptions::new(host_ip(1, true), sequence);
            sim.with_shard(pinger, 0, |shard| shard.ping_send(socket, &options, b"there?")).expect("sent");
        };
        // They know each other before it begins.
        ping(&mut sim, 0);
        sim.run_for(Duration::from_secs(1));

        let frame = flood_frame(kind);
        let start = sim.now();
        for millis in 0..400_u64 {
            let at = start + Duration::from_millis(millis);
            for step in 0..100_u64 {
                let frame = frame.clone();
                sim.at(at + Duration::from_micros(step * 10), move |sim| {
                    (0..10).for_each(|_| sim.send(attacker, frame.clone()));
                });
            }
        }
        for sequence in 1..=100_u16 {
            let at = start + Duration::from_millis(u64::from(sequence) * 4);
            let options = PingOptions::new(host_ip(1, true), sequence);
            sim.at(at, move |sim| {
                let _ = sim.with_shard(pinger, 0, |shard| shard.ping_send(socket, &options, b"there?"));
            });
        }
        sim.run_for(Duration::from_millis(500));
        let replies = sim.with_shard(pinger, 0, |shard| {
            std::iter::from_fn(|| shard.ping_recv_with(socket, |meta, _| meta.sequence)).count()
        });
        assert!(replies > 10, "{kind}: {replies} of 101 pings were answered");
        assert!(sim.nic(victim, 0).config().rx_frames_max == 512);
        let late = *late.borrow();
        assert!(late <= Duration::from_millis(2), "{kind}: a timer was {late} late");
        // A millisecond each, and no more: there is no turn without end.
        let turns = sim.turns(victim);
        assert!((400..=1600).contains(&turns), "{kind}: {turns}");
    }
}

/// By how much an application comes late that wants a turn every 5 ms.
fn lateness(sim: &mut Sim, node: wirestack_tests::sim::NodeId) -> Shared<Duration> {
    let late = shared(Duration::ZERO);
    let told = late.clone();
    let mut wanted: Option<Instant> = None;
    let mut socket = None;
    sim.set_app(
        node,
        0,
        Box::new(move |shard, context| {
            let id =
                *socket.get_or_insert_with(|| shard.udp_bind(UdpBind::new(at("0.0.0.0:7"))).expect("port 7"));
            while shard.udp_recv_with(id, |_, _| {}).is_some() {}
            if let Some(due) = wanted.filter(|due| *due <= context.now) {
                let mut told = told.borrow_mut();
                *told = (*told).max(context.now - due);
                wanted = None;
            }
            Some(*wanted.get_or_insert(context.now + Duration::from_millis(5)))
        }),
    );
    late
}

fn flood_frame(kind: &str) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(ip("10.0.0.66"), 6), |port| SocketAddr::new(host_ip(1, true), port));
    let attacker = mac(66);
    match kind {
        "to a closed port" => packets::framed(mac(1), attacker, &packets::udp_packet(from, to(9), b"x")),
        "to an open port" => packets::framed(mac(1), attacker, &packets::udp_packet(from, to(7), b"x")),
        "echo" => {
            packets::framed(mac(1), attacker, &packets::echo_request(from.ip(), host_ip(1, true), 1, 1, b"x"))
        }
        _ => {
            let all = at("255.255.255.255:7");
            packets::framed(packets::BROADCAST, attacker, &packets::udp_packet(from, all, b"x"))
        }
    }
}
