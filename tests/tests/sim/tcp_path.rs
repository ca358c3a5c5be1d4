//! Two hosts with two routers between them.

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::ShardConfig;
use wirestack_tests::sim::tcp::{Dial, Serve, TcpApp, stuck};
use wirestack_tests::sim::{LinkId, LinkSpec, NicConfig, NodeId, Router, RouterPort, Sim};

use crate::support::*;
use crate::tcp_support::assert_nothing_is_left;

/// See the [module](self).
pub(crate) struct Path {
    pub(crate) sim: Sim,
    pub(crate) hosts: [NodeId; 2],
    pub(crate) routers: [NodeId; 2],
    /// From the first host to its router.
    pub(crate) first: LinkId,
    /// Between the routers.
    pub(crate) middle: LinkId,
    pub(crate) is_v4: bool,
}

impl Path {
    /// With these devices, and a wire between the routers that does this.
    pub(crate) fn new(
        name: &str,
        seed: u64,
        is_v4: bool,
        nics: [NicConfig; 2],
        middle: [LinkSpec; 2],
    ) -> Self {
        let mut sim = Sim::new(name, seed);
        let hosts = [1_u8, 2].map(|side| {
            let mut config = ShardConfig::new(EthernetAddress(mac(side)));
            config.neighbor.probes = AddressProbes::None;
            for (address, gateway) in [
                (format!("10.0.{side}.5/24"), format!("10.0.{side}.1")),
                (format!("fd00:{side}::5/64"), format!("fd00:{side}::1")),
            ] {
                config = config.address(parse_cidr(&address).expect("an address")).gateway(ip(&gateway));
            }
            sim.add_host(&format!("h{side}"), config, nics[usize::from(side) - 1], 1)
        });
        let cidr = |text: String| parse_cidr(&text).expect("an address");
        let routers = [1_u8, 2].map(|side| {
            let other = 3 - side;
            let port = |number: u8, v4: String, v6: String| RouterPort {
                mac: mac(number + side),
                addresses: vec![cidr(v4), cidr(v6)],
                mtu: 1500,
            };
            let mut router = Router::new(vec![
                port(0x10, format!("10.0.{side}.1/24"), format!("fd00:{side}::1/64")),
                port(0x20, format!("10.9.9.{side}/24"), format!("fd00:9::{side}/64")),
            ]);
            router.route(cidr(format!("10.0.{other}.0/24")), 1, ip(&format!("10.9.9.{other}")));
            router.route(cidr(format!("fd00:{other}::/64")), 1, ip(&format!("fd00:9::{other}")));
            sim.add_router(&format!("r{side}"), router)
        });
        let near = LinkSpec { delay: Duration::from_micros(200), ..LinkSpec::default() };
        let first = sim.connect(hosts[0], routers[0], near);
        sim.connect(hosts[1], routers[1], near);
        let middle = sim.connect_ways(routers[0], routers[1], middle);
        Self { sim, hosts, routers, first, middle, is_v4 }
    }

    /// Those of the hosts.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [1, 2].map(|side| ip(&if self.is_v4 { format!("10.0.{side}.5") } else { format!("fd00:{side}::5") }))
    }

    /// The first host does `dials`, the second one serves, until all is over. Returns when that was.
    pub(crate) fn run(&mut self, dials: &[Dial], serve: Serve, limit: Duration) -> Instant {
        let (app, served) = TcpApp::new().serve(serve).start();
        self.sim.set_app(self.hosts[1], 0, app);
        let app = dials.iter().fold(TcpApp::new(), |app, dial| app.dial(*dial));
        let (app, dialed) = app.start();
        self.sim.set_app(self.hosts[0], 0, app);
        let watched = dialed.clone();
        let is_done =
            self.sim.run_while(limit, |sim| watched.borrow().is_done() && sim.ledger.tcp.are_over());
        if !is_done {
            let told = [(0, &dialed), (1, &served)]
                .map(|(end, report)| stuck(self.sim.shard(self.hosts[end]), report));
            panic!("not done in {limit}:\nfirst host: {}\nsecond host: {}", told[0], told[1]);
        }
        if let Err(wrong) = self.sim.ledger.tcp.check_end() {
            panic!("{wrong}");
        }
        let done = self.sim.now();
        assert_nothing_is_left(&mut self.sim, self.hosts);
        done
    }
}
