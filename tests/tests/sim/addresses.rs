//! Two hosts with the same addresses, and wires that are unplugged.

use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack::neighbor::AddressProbes;
use wirestack_tests::sim::{LinkSpec, NicConfig, NodeId, Sim, Switch, seeds};

use crate::support::*;

fn has(sim: &Sim, node: NodeId, is_v4: bool) -> bool {
    sim.shard(node).is_local(host_ip(9, is_v4))
}

/// Whoever comes second, or both at once with other delays: one keeps the address.
#[test]
fn of_two_hosts_with_the_same_addresses_one_keeps_each() {
    for seed in seeds(50) {
        let mut sim = Sim::new("of_two_hosts_with_the_same_addresses_one_keeps_each", seed);
        let switch = sim.add_switch("switch", Switch::new(false));
        let spec = LinkSpec {
            delay: Duration::from_micros(u64::from(sim.random().below(2_000))),
            jitter: Duration::from_micros(300),
            ..LinkSpec::default()
        };
        let add = |sim: &mut Sim, number: u8| {
            let mut config = host(9);
            config.mac = wirestack::EthernetAddress(mac(number));
            config.neighbor.probes = AddressProbes::Full;
            let id = sim.add_host(&format!("h{number}"), config, NicConfig::default(), 1);
            sim.connect(id, switch, spec);
            id
        };
        let first = add(&mut sim, 1);
        let late = Duration::from_millis(u64::from(sim.random().below(15_000)));
        sim.run_for(late);
        let second = add(&mut sim, 2);
        sim.run_for(Duration::from_secs(30));
        for is_v4 in [true, false] {
            let owners = [first, second].map(|node| has(&sim, node, is_v4));
            // Who probes at the same time may lose it with the other one (RFC 4862 section 5.4: both must not
            // use it); who was there first keeps it.
            assert!(owners != [true, true], "{seed} {late} IPv4: {is_v4}");
            if late > Duration::from_secs(10) {
                assert_eq!(owners, [true, false], "{seed} {late} IPv4: {is_v4}");
            }
        }
    }
}

/// A wire is unplugged in the middle of a conversation, again and again.
#[test]
fn a_conversation_outlives_its_wire() {
    for seed in seeds(20) {
        let mut sim = Sim::new("a_conversation_outlives_its_wire", seed);
        let switch = sim.add_switch("switch", Switch::new(true));
        let hosts =
            [1, 2].map(|number| sim.add_host(&format!("h{number}"), host(number), NicConfig::default(), 1));
        let links = hosts.map(|node| sim.connect(node, switch, LinkSpec::default()));
        echo_server(&mut sim, hosts[0], 0, 7);
        let answers =
            client(&mut sim, hosts[1], SocketAddr::new(host_ip(1, seed % 2 == 0), 7), 200, 10..3000);
        for _ in 0..10 {
            let pause = Duration::from_millis(u64::from(sim.random().below(40)));
            sim.run_for(pause);
            let link = links[sim.random().below(2) as usize];
            sim.set_link_up(link, false);
            let pause = Duration::from_millis(u64::from(sim.random().below(1_500)));
            sim.run_for(pause);
            sim.set_link_up(link, true);
        }
        assert!(sim.run_while(Duration::from_secs(60), |_| answers.borrow().answered == 200), "{answers:?}");
    }
}
