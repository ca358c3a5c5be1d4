//! Several shards of one host that share its addresses: whichever gets a frame, the right socket gets its payload.

use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack_tests::sim::{LinkSpec, Loss, NicConfig, Sim, Switch, seeds};

use crate::support::*;

/// Each shard of the server has the port. Fragments arrive where all fragments of a datagram do, and go on by
/// mail to the shard of their flow; ARP and NDP are answered by one shard, and heard by all.
#[test]
fn shards_of_one_host_answer_as_one() {
    for seed in seeds(60) {
        let mut sim = Sim::new("shards_of_one_host_answer_as_one", seed);
        let shards = 1 + sim.random().below(4) as usize;
        let loss = if sim.random().below(2) == 0 { Loss::None } else { Loss::Random(0.1) };
        let spec = LinkSpec { loss, ..LinkSpec::default() };
        let switch = sim.add_switch("switch", Switch::new(true));
        let server = sim.add_host("server", host(1), NicConfig::default(), shards);
        sim.connect(server, switch, spec);
        let served: Vec<_> = (0..shards).map(|seat| echo_server(&mut sim, server, seat, 7)).collect();
        let clients: Vec<_> = (2..8)
            .map(|number| {
                let node = sim.add_host(&format!("h{number}"), host(number), NicConfig::default(), 1);
                sim.connect(node, switch, spec);
                let to = SocketAddr::new(host_ip(1, number % 2 == 0), 7);
                client(&mut sim, node, to, 6, 0..5000)
            })
            .collect();
        let is_done =
            sim.run_while(Duration::from_secs(300), |_| clients.iter().all(|one| one.borrow().answered == 6));
        assert!(is_done, "{shards} shards: {clients:?}");
        assert!(served.iter().map(|count| *count.borrow()).sum::<u64>() >= 36);
        let mailed: u64 = sim.shards(server).map(|shard| shard.counters().mail_received).sum();
        assert!((mailed > 0) == (shards > 1), "{mailed} messages between {shards} shards");
        // Mail is told once, not on and on.
        assert!(mailed < 2_000, "{mailed} messages");
    }
}
