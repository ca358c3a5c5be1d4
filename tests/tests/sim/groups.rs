//! Groups behind a switch that listens: frames go to members only, and to all of them.

use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack::shard::UdpBind;
use wirestack_tests::sim::{LinkSpec, Sim, seeds};

use crate::support::*;

#[test]
fn a_group_reaches_its_members_and_no_other_port() {
    for seed in seeds(20) {
        for group in ["239.1.2.3", "ff05::1234"] {
            let mut sim = Sim::new("a_group_reaches_its_members_and_no_other_port", seed);
            let (switch, hosts) = star(&mut sim, 6, LinkSpec::default());
            let group = ip(group);
            let to = SocketAddr::new(group, 5000);
            let any = SocketAddr::new(any(group.is_ipv4()).ip(), 5000);
            sim.run_for(Duration::from_secs(5));
            let sockets: Vec<_> = hosts
                .iter()
                .map(|&node| {
                    sim.with_shard(node, 0, |shard| shard.udp_bind(UdpBind::new(any)).expect("the port"))
                })
                .collect();
            // Who is a member changes from round to round; the switch hears of it by IGMP and MLD alone.
            let mut members = [false; 6];
            for round in 0..8_u8 {
                for index in 1..6 {
                    let joins = sim.random().below(2) == 0;
                    if joins != members[index] {
                        sim.with_shard(hosts[index], 0, |shard| {
                            let socket = sockets[index];
                            if joins { shard.udp_join(socket, group) } else { shard.udp_leave(socket, group) }
                        })
                        .expect("joined or left");
                        members[index] = joins;
                    }
                }
                sim.run_for(Duration::from_secs(3));
                let ports: Vec<_> = (0..6).filter(|&port| members[port]).collect();
                assert_eq!(sim.switch(switch).members(group), ports, "{group} in round {round}");
                let before: Vec<_> = hosts.iter().map(|&node| sim.shard(node).counters().rx_frames).collect();
                sim.with_shard(hosts[0], 0, |shard| shard.udp_send_to(sockets[0], &[round], to))
                    .expect("sent");
                sim.run_for(Duration::from_millis(50));
                for index in 1..6 {
                    let frames = sim.shard(hosts[index]).counters().rx_frames - before[index];
                    assert_eq!(frames, u64::from(members[index]), "{group}: host {index}, round {round}");
                    let got = sim.with_shard(hosts[index], 0, |shard| {
                        shard.udp_recv_with(sockets[index], |_, payload| payload.to_vec())
                    });
                    assert_eq!(got, members[index].then(|| vec![round]));
                }
            }
        }
    }
}
