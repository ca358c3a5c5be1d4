//! Paths across routers: their MTU, their hop limits, and what nobody should believe of them.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Duration;
use wirestack::config::parse_cidr;
use wirestack::icmp::ErrorKind;
use wirestack::observe::DropReason;
use wirestack::shard::{PingBind, PingOptions, ShardConfig, SocketId, UdpBind};
use wirestack::udp::{Fragmenting, SendError};
use wirestack_tests::sim::{LinkSpec, NicConfig, NodeId, Router, RouterPort, Sim, packets};

use crate::support::*;

/// Two hosts with two routers between them, whose common link has an MTU of its own.
struct Path {
    sim: Sim,
    hosts: [NodeId; 2],
    routers: [NodeId; 2],
}

impl Path {
    fn new(name: &str, seed: u64, middle_mtu: usize) -> Self {
        let mut sim = Sim::new(name, seed);
        let hosts = [1_u8, 2].map(|side| {
            let mut config = ShardConfig::new(wirestack::EthernetAddress(mac(side)));
            config.neighbor.probes = wirestack::neighbor::AddressProbes::None;
            for (address, gateway) in [
                (format!("10.0.{side}.5/24"), format!("10.0.{side}.1")),
                (format!("fd00:{side}::5/64"), format!("fd00:{side}::1")),
            ] {
                config = config.address(parse_cidr(&address).expect("an address")).gateway(ip(&gateway));
            }
            sim.add_host(&format!("h{side}"), config, NicConfig::default(), 1)
        });
        let cidr = |text: String| parse_cidr(&text).expect("an address");
        let routers = [1_u8, 2].map(|side| {
            let other = 3 - side;
            let mut router = Router::new(vec![
                RouterPort {
                    mac: mac(0x10 + side),
                    addresses: vec![cidr(format!("10.0.{side}.1/24")), cidr(format!("fd00:{side}::1/64"))],
                    mtu: 1500,
                },
                RouterPort {
                    mac: mac(0x20 + side),
                    addresses: vec![cidr(format!("10.9.9.{side}/24")), cidr(format!("fd00:9::{side}/64"))],
                    mtu: middle_mtu,
                },
            ]);
            router.route(cidr(format!("10.0.{other}.0/24")), 1, ip(&format!("10.9.9.{other}")));
            router.route(cidr(format!("fd00:{other}::/64")), 1, ip(&format!("fd00:9::{other}")));
            sim.add_router(&format!("r{side}"), router)
        });
        let spec = LinkSpec { delay: Duration::from_millis(1), ..LinkSpec::default() };
        sim.connect(hosts[0], routers[0], spec);
        sim.connect(hosts[1], routers[1], spec);
        sim.connect(routers[0], routers[1], spec);
        Self { sim, hosts, routers }
    }

    fn far(&self, is_v4: bool) -> SocketAddr {
        SocketAddr::new(if is_v4 { ip("10.0.2.5") } else { ip("fd00:2::5") }, 7)
    }

    fn near(&self, is_v4: bool) -> IpAddr {
        if is_v4 { ip("10.0.1.5") } else { ip("fd00:1::5") }
    }

    /// A connected socket that must not fragment.
    fn connected(&mut self, is_v4: bool) -> SocketId {
        let far = self.far(is_v4);
        self.sim.with_shard(self.hosts[0], 0, |shard| {
            let mut bind = UdpBind::new(any(is_v4));
            bind.options.dont_fragment = Fragmenting::Forbid;
            let socket = shard.udp_bind(bind).expect("a port");
            shard.udp_connect(socket, Some(far)).expect("connected");
            socket
        })
    }

    fn send(&mut self, socket: SocketId, len: usize) -> Result<(), SendError> {
        let data = payload(self.sim.random(), len);
        let result = self.sim.with_shard(self.hosts[0], 0, |shard| shard.udp_send(socket, &data));
        self.sim.run_for(Duration::from_millis(200));
        result
    }
}

#[test]
fn a_path_tells_its_mtu_and_what_fits_passes() {
    for (is_v4, middle) in [(true, 1000), (false, 1300), (true, 1499), (false, 1280)] {
        let mut path = Path::new("a_path_tells_its_mtu_and_what_fits_passes", middle as u64, middle);
        let headers = if is_v4 { 28 } else { 48 };
        let (far, host) = (path.far(is_v4), path.hosts[1]);
        let server = path.sim.with_shard(host, 0, |shard| shard.udp_bind(UdpBind::new(far)).expect("port 7"));
        let socket = path.connected(is_v4);
        assert_eq!(path.send(socket, 100), Ok(()));
        assert_eq!(path.send(socket, 1500 - headers), Ok(()), "nobody knows yet");
        let error = path.sim.with_shard(path.hosts[0], 0, |shard| shard.udp_take_error(socket));
        assert_eq!(error.map(|error| error.kind), Some(ErrorKind::TooBig { mtu: middle as u32 }));
        let max = middle - headers;
        assert_eq!(path.send(socket, max + 1), Err(SendError::TooLong { max }));
        assert_eq!(path.send(socket, max), Ok(()));
        let got = path.sim.with_shard(host, 0, |shard| {
            let mut lens = Vec::new();
            while let Some(len) = shard.udp_recv_with(server, |_, payload| payload.len()) {
                lens.push(len);
            }
            lens
        });
        assert_eq!(got, [100, max]);
        assert_eq!(path.sim.router(path.routers[0]).counters().too_big, 1);
        // After ten minutes it is tried again.
        path.sim.router(path.routers[0]).set_mtu(1, 1500);
        path.sim.run_for(Duration::from_secs(601));
        assert_eq!(path.send(socket, 1500 - headers), Ok(()));
        assert_eq!(path.sim.shard(host).counters().udp_received, 3);
    }
}

/// What may be fragmented is: IPv4 on the way, IPv6 at its sender once it knows.
#[test]
fn long_datagrams_cross_a_narrow_link_in_fragments() {
    for is_v4 in [true, false] {
        let mut path = Path::new("long_datagrams_cross_a_narrow_link_in_fragments", 1, 1280);
        echo_server(&mut path.sim, path.hosts[1], 0, 7);
        let far = path.far(is_v4);
        let answers = client(&mut path.sim, path.hosts[0], far, 10, 1400..9000);
        let is_done = path.sim.run_while(Duration::from_secs(60), |_| answers.borrow().answered == 10);
        assert!(is_done, "{answers:?}");
    }
}

/// A report that quotes nothing that we have sent changes nothing; nor does one of an absurd MTU.
#[test]
fn a_spoofed_report_is_ignored() {
    for is_v4 in [true, false] {
        let mut path = Path::new("a_spoofed_report_is_ignored", 1, 1500);
        let socket = path.connected(is_v4);
        assert_eq!(path.send(socket, 100), Ok(()));
        let (near, far) = (path.near(is_v4), path.far(is_v4));
        let port = path.sim.with_shard(path.hosts[0], 0, |shard| {
            shard.udp_socket(socket).expect("it is open").local().port()
        });
        let report = |mtu: u32, from: SocketAddr, to: SocketAddr| {
            let quoted = packets::udp_packet(from, to, &[0; 100]);
            let (kind, code) = if is_v4 { (3, 4) } else { (2, 0) };
            packets::icmp_packet(far.ip(), near, kind, code, mtu, &quoted)
        };
        let ours = SocketAddr::new(near, port);
        let wrong = [
            report(1300, SocketAddr::new(near, port ^ 1), far),
            report(1300, ours, SocketAddr::new(far.ip(), 8)),
            report(1300, far, ours),
        ];
        for packet in &wrong {
            path.sim.send(path.routers[0], packets::framed(mac(1), mac(0x11), packet));
        }
        path.sim.run_for(Duration::from_millis(100));
        assert_eq!(path.sim.shard(path.hosts[0]).drops().get(DropReason::IcmpSpoofed), wrong.len() as u64);
        let absurd = [0, 1, 67, 68, 1279, 1501, 100_000, u32::MAX];
        for mtu in absurd {
            let packet = report(mtu, ours, far);
            path.sim.send(path.routers[0], packets::framed(mac(1), mac(0x11), &packet));
            path.sim.run_for(Duration::from_millis(10));
            path.sim.with_shard(path.hosts[0], 0, |shard| while shard.udp_take_error(socket).is_some() {});
        }
        // IPv4 believes a router that 552 is all, and then lets others fragment; IPv6 has 1280 at least.
        let max = if is_v4 { 552 - 28 } else { 1500 - 48 };
        assert_eq!(path.send(socket, max), Ok(()));
    }
}

#[test]
fn every_hop_tells_that_the_hop_limit_is_over() {
    for is_v4 in [true, false] {
        let mut path = Path::new("every_hop_tells_that_the_hop_limit_is_over", 1, 1500);
        let (node, far) = (path.hosts[0], path.far(is_v4).ip());
        let any = any(is_v4).ip();
        let socket =
            path.sim.with_shard(node, 0, |shard| shard.ping_bind(PingBind::new(any)).expect("a socket"));
        let mut hops = Vec::new();
        for hop_limit in 1..=3_u8 {
            let options =
                PingOptions { hop_limit: Some(hop_limit), ..PingOptions::new(far, hop_limit.into()) };
            path.sim.with_shard(node, 0, |shard| shard.ping_send(socket, &options, b"trace").expect("sent"));
            path.sim.run_for(Duration::from_millis(100));
            let hop = path.sim.with_shard(node, 0, |shard| {
                shard.ping_recv_with(socket, |meta, _| (meta.src, None)).or_else(|| {
                    shard.ping_take_error(socket).map(|error| (error.error.from, Some(error.error.kind)))
                })
            });
            hops.push(hop.expect("an answer"));
        }
        let [first, second] = if is_v4 { ["10.0.1.1", "10.9.9.2"] } else { ["fd00:1::1", "fd00:9::2"] };
        let expired = Some(ErrorKind::TimeExceeded);
        assert_eq!(hops, [(ip(first), expired), (ip(second), expired), (far, None)]);
    }
}
