//! Long datagrams over wires that lose, repeat and reorder their fragments: only whole ones arrive, the right ones.

use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack_tests::sim::{LinkSpec, Loss, Sim, seeds};

use crate::support::*;

#[test]
fn only_whole_datagrams_arrive() {
    for seed in seeds(100) {
        let mut sim = Sim::new("only_whole_datagrams_arrive", seed);
        let random = sim.random();
        let spec = LinkSpec {
            jitter: Duration::from_micros(u64::from(random.below(3_000))),
            loss: Loss::Random(f64::from(random.below(4)) / 100.0),
            duplicate: f64::from(random.below(20)) / 100.0,
            reorder: f64::from(random.below(30)) / 100.0,
            ..LinkSpec::default()
        };
        let (_, hosts) = star(&mut sim, 3, spec);
        let served = echo_server(&mut sim, hosts[0], 0, 7);
        let clients = [(hosts[1], true), (hosts[2], false)].map(|(node, is_v4)| {
            client(&mut sim, node, SocketAddr::new(host_ip(1, is_v4), 7), 8, 1400..20_000)
        });
        let is_done =
            sim.run_while(Duration::from_secs(600), |_| clients.iter().all(|one| one.borrow().answered == 8));
        assert!(is_done, "{clients:?} {spec:?}");
        assert!(*served.borrow() >= 16);
        // Whatever was cut is forgotten in the end.
        sim.run_for(Duration::from_secs(70));
        for &node in &hosts {
            let occupancy = sim.shard(node).occupancy();
            assert_eq!((occupancy.reassembly_bytes, occupancy.reassembly_datagrams), (0, 0));
        }
    }
}
