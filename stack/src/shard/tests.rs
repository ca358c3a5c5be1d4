//! Two shards on one wire in memory.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};

use super::*;
use crate::config::parse_cidr;
use crate::icmp::ErrorKind;
use crate::udp::{BindError, SendError};

mod addresses;
mod egress;
mod ingress;
mod lone;
mod observe;
mod policy;
mod seams;
mod services;
mod tcp;

struct Pair {
    now: Instant,
    shards: [Shard; 2],
    nics: [Loopback<'static>; 2],
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut ShardConfig)) -> Self {
        let now = Instant::from_millis(1_000);
        let (left, right) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
        let shard = |number: u8| {
            let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, number]));
            config.seed = number.into();
            config = config.address(parse_cidr(&format!("10.0.0.{number}/24")).expect("an address"));
            config = config.address(parse_cidr(&format!("fd00::{number}/64")).expect("an address"));
            config.neighbor.probes = crate::neighbor::AddressProbes::None;
            change(&mut config);
            Shard::new(config, now).expect("a shard")
        };
        Self { now, shards: [shard(1), shard(2)], nics: [left, right] }
    }

    /// Turns both until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let before = self.moved();
            for (shard, nic) in self.shards.iter_mut().zip(&mut self.nics) {
                shard.turn(self.now, nic, |_| {});
            }
            if self.moved() == before {
                return;
            }
        }
        panic!("still moving after 100 rounds");
    }

    fn moved(&self) -> u64 {
        self.shards.iter().map(|shard| shard.counters.rx_frames + shard.counters.tx_frames).sum()
    }

    fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) =
            self.shards.iter().filter_map(Shard::next_deadline).min().filter(|at| *at <= end)
        {
            self.now = self.now.max(deadline);
            self.settle();
        }
        self.now = end;
        self.settle();
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_datagram_goes_there_and_back() {
    for (to, any) in [("10.0.0.2:7", "0.0.0.0:0"), ("[fd00::2]:7", "[::]:0")] {
        let mut pair = Pair::new();
        let client = pair.shards[0].udp_bind(UdpBind::new(at(any))).expect("a port");
        let server = pair.shards[1].udp_bind(UdpBind::new(at(to))).expect("port 7");
        pair.shards[0].udp_send_to(client, b"hello", at(to)).expect("sent");
        pair.settle();
        assert_eq!(pair.shards[1].next_event(), Some(SocketEvent { socket: server }));
        let (from, payload) = pair.shards[1]
            .udp_recv_with(server, |meta, payload| (meta.src, payload.to_vec()))
            .expect("it came");
        assert_eq!(payload, b"hello");
        pair.shards[1].udp_send_to(server, b"you too", from).expect("sent");
        pair.settle();
        let answer = pair.shards[0].udp_recv_with(client, |meta, payload| (meta.src, payload.to_vec()));
        assert_eq!(answer, Some((at(to), b"you too".to_vec())));
    }
}

#[test]
fn a_long_datagram_goes_in_fragments() {
    for to in ["10.0.0.2:7", "[fd00::2]:7"] {
        let mut pair = Pair::new();
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let client = pair.shards[0].udp_bind(UdpBind::new(at(any))).expect("a port");
        let server = pair.shards[1].udp_bind(UdpBind::new(at(to))).expect("port 7");
        // The first one would find fewer places to wait for the neighbour than it has fragments.
        pair.shards[0].udp_send_to(client, b"warm", at(to)).expect("sent");
        pair.settle();
        let payload: Vec<u8> = (0..60_000_u32).map(|byte| byte as u8).collect();
        pair.shards[0].udp_send_to(client, &payload, at(to)).expect("sent");
        pair.settle();
        pair.shards[1].udp_recv_with(server, |_, _| {}).expect("the first");
        let got = pair.shards[1].udp_recv_with(server, |_, got| got.to_vec());
        assert!(
            got.as_deref() == Some(&payload[..]),
            "{:?} {:?}",
            pair.shards[1].counters,
            got.map(|got| got.len())
        );
        assert!(pair.shards[1].counters.held > 30);
    }
}

#[test]
fn a_closed_port_is_told_to_a_connected_socket() {
    for (to, any) in [("10.0.0.2:9", "0.0.0.0:0"), ("[fd00::2]:9", "[::]:0")] {
        let mut pair = Pair::new();
        let client = pair.shards[0].udp_bind(UdpBind::new(at(any))).expect("a port");
        pair.shards[0].udp_connect(client, Some(at(to))).expect("connected");
        pair.shards[0].udp_send(client, b"anybody?").expect("sent");
        pair.settle();
        let error = pair.shards[0].udp_take_error(client).expect("an error");
        assert_eq!((error.kind, error.dst), (ErrorKind::PortUnreachable, at(to)));
        assert_eq!(pair.shards[1].drops.get(DropReason::UdpNoSocket), 1);
    }
}

#[test]
fn a_ping_is_answered() {
    for to in ["10.0.0.2", "fd00::2"] {
        let mut pair = Pair::new();
        let any = if to.contains(':') { "::" } else { "0.0.0.0" };
        let socket = pair.shards[0].ping_bind(PingBind::new(ip(any))).expect("a socket");
        for len in [0, 56, 4_000] {
            let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            pair.shards[0].ping_send(socket, &PingOptions::new(ip(to), 7), &data).expect("sent");
            pair.settle();
            let reply =
                pair.shards[0].ping_recv_with(socket, |meta, data| (meta.src, meta.sequence, data.to_vec()));
            assert_eq!(reply, Some((ip(to), 7, data)), "{to} {len}");
        }
    }
}

#[test]
fn packets_to_ourselves_never_see_the_wire() {
    for to in ["127.0.0.1:7", "10.0.0.1:7", "[::1]:7", "[fd00::1]:7"] {
        let mut pair = Pair::new();
        let any = if to.starts_with('[') { "[::]" } else { "0.0.0.0" };
        let server = pair.shards[0].udp_bind(UdpBind::new(at(&format!("{any}:7")))).expect("port 7");
        let client = pair.shards[0].udp_bind(UdpBind::new(at(&format!("{any}:0")))).expect("a port");
        pair.settle();
        let before = pair.shards[0].counters.tx_frames;
        pair.shards[0].udp_send_to(client, b"me", at(to)).expect("sent");
        pair.settle();
        let from = pair.shards[0].udp_recv_with(server, |meta, _| meta.src).expect("it came");
        pair.shards[0].udp_send_to(server, b"you", from).expect("sent");
        pair.settle();
        assert_eq!(pair.shards[0].udp_recv_with(client, |meta, _| meta.src), Some(at(to)));
        assert_eq!(pair.shards[0].counters.tx_frames, before, "{to}");
    }
}

#[test]
fn who_does_not_answer_is_unreachable() {
    for to in ["10.0.0.99:7", "[fd00::99]:7"] {
        let mut pair = Pair::new();
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let mut bind = UdpBind::new(at(any));
        bind.options.recv_errors = true;
        let client = pair.shards[0].udp_bind(bind).expect("a port");
        pair.shards[0].udp_connect(client, Some(at(to))).expect("connected");
        pair.shards[0].udp_send(client, b"anybody?").expect("sent");
        pair.advance(Duration::from_secs(5));
        let error = pair.shards[0].udp_take_error(client).expect("an error");
        assert_eq!(error.kind, ErrorKind::HostUnreachable);
        assert_eq!(pair.shards[0].udp_send(client, b"still?"), Err(SendError::HostUnreachable));
    }
}

#[test]
fn a_group_reaches_its_members_on_both_ends() {
    for (group, any) in [("239.1.2.3:5000", "0.0.0.0"), ("[ff05::5]:5000", "[::]")] {
        let mut pair = Pair::new();
        let bind = UdpBind { reuse: true, ..UdpBind::new(at(&format!("{any}:5000"))) };
        let members: Vec<_> = (0..2).map(|end| pair.shards[end].udp_bind(bind).expect("the port")).collect();
        let sender = pair.shards[0].udp_bind(UdpBind::new(at(&format!("{any}:0")))).expect("a port");
        let other = pair.shards[1].udp_bind(bind).expect("the port, shared");
        for (end, &member) in members.iter().enumerate() {
            pair.shards[end].udp_join(member, at(group).ip()).expect("joined");
        }
        pair.settle();
        pair.shards[0].udp_send_to(sender, b"all", at(group)).expect("sent");
        pair.settle();
        for (end, &member) in members.iter().enumerate() {
            let got = pair.shards[end].udp_recv_with(member, |meta, payload| (meta.dst, payload.to_vec()));
            assert_eq!(got, Some((at(group), b"all".to_vec())), "{end}");
        }
        assert!(pair.shards[1].udp_recv_with(other, |_, _| {}).is_none(), "it has not joined");
    }
}

#[test]
fn a_port_belongs_to_one_socket() {
    let mut pair = Pair::new();
    let shard = &mut pair.shards[0];
    let first = shard.udp_bind(UdpBind::new(at("0.0.0.0:7"))).expect("port 7");
    assert!(matches!(shard.udp_bind(UdpBind::new(at("10.0.0.1:7"))), Err(BindError::InUse { .. })));
    assert!(matches!(shard.udp_bind(UdpBind::new(at("10.0.0.9:8"))), Err(BindError::AddressNotOurs { .. })));
    shard.close(first);
    let second = shard.udp_bind(UdpBind::new(at("10.0.0.1:7"))).expect("it is free again");
    assert_ne!(first, second);
    assert!(shard.udp_socket(first).is_none());
}

#[test]
fn of_several_shards_a_port_is_chosen_whose_answers_come_here() {
    let steering = crate::demux::Steering { seed: 5, shards: 4 };
    for shard in 0..4 {
        let mut pair = Pair::with(|config| {
            config.steering = steering;
            config.shard = shard;
        });
        for to in ["10.0.0.2:53", "[fd00::2]:53"] {
            let id = pair.shards[0].udp_dial(at(to), crate::udp::SocketOptions::default()).expect("a port");
            let local = pair.shards[0].udp_socket(id).expect("it is there").local();
            assert_eq!(steering.shard_of_flow(local, at(to), 17), shard);
        }
    }
}

/// A redirect of either version that `from` sends: packets for `destination` are to go by `target`.
fn redirect(from: &str, destination: &str, target: &str) -> Vec<u8> {
    let (src, dst) = (ip(from), if from.contains(':') { ip("fd00::1") } else { ip("10.0.0.1") });
    let mut message = match (ip(target), ip(destination)) {
        (IpAddr::V4(target), IpAddr::V4(destination)) => {
            let quoted =
                [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1][..], &destination.octets()];
            [&[5, 1, 0, 0][..], &target.octets(), &quoted.concat(), &[0, 7, 0, 9, 0, 8, 0, 0]].concat()
        }
        (IpAddr::V6(target), IpAddr::V6(destination)) => {
            let option = [2, 1, 2, 0, 0, 0, 0, 9];
            [&[137, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &destination.octets(), &option].concat()
        }
        _ => panic!("of one family"),
    };
    crate::icmp::error::fill_checksum(&mut message, Some(src), dst);
    let protocol = crate::icmp::protocol_for(dst);
    let spec =
        crate::egress::PacketSpec { hop_limit: Some(255), ..crate::egress::PacketSpec::new(dst, protocol) };
    let mut packet = vec![0; crate::ip::header::header_len(&spec)];
    crate::ip::header::write(&spec, src, 255, message.len(), 0, &mut packet).expect("a header");
    let ethertype = if dst.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7][..], &ethertype, &packet, &message].concat()
}

#[test]
fn redirects_are_followed_only_if_wanted_and_only_from_the_router_in_use() {
    for (router, destination, target, stranger) in
        [("10.0.0.7", "192.0.2.5", "10.0.0.9", "10.0.0.8"), ("fe80::7", "2001:db8::5", "fe80::9", "fe80::8")]
    {
        for (follows, from, expected) in
            [(false, router, router), (true, stranger, router), (true, router, target)]
        {
            let mut pair = Pair::with(|config| {
                config.follows_redirects = follows;
                *config = config.clone().gateway(ip(router));
            });
            let shard = &mut pair.shards[0];
            shard.handle_frame(&redirect(from, destination, target), &FrameMeta::default());
            assert_eq!(shard.routes.next_hop(ip(destination)), Some(ip(expected)), "{follows} {from}");
            let is_ignored = shard.drops.get(DropReason::RedirectIgnored) == 1;
            assert_eq!(is_ignored, expected == router, "{follows} {from} {:?}", shard.drops);
        }
    }
}

#[test]
fn a_redirect_to_what_is_not_on_the_link_is_ignored() {
    for target in ["198.51.100.9", "192.0.2.5"] {
        let mut pair = Pair::with(|config| {
            config.follows_redirects = true;
            *config = config.clone().gateway(ip("10.0.0.7"));
        });
        let shard = &mut pair.shards[0];
        shard.handle_frame(&redirect("10.0.0.7", "192.0.2.5", target), &FrameMeta::default());
        assert_eq!(shard.routes.next_hop(ip("192.0.2.5")), Some(ip("10.0.0.7")), "{target}");
        assert_eq!(shard.drops.get(DropReason::RedirectIgnored), 1, "{target} {:?}", shard.drops);
    }
}

#[test]
fn addresses_of_a_name_come_in_the_order_of_trying() {
    let pair = Pair::new();
    let answer = crate::dns::Answer {
        name: "host".into(),
        addresses: ["2001:db8::1", "fd00::2", "10.0.0.2", "10.0.0.3"].map(ip).to_vec(),
        names: Vec::new(),
        is_truncated: false,
        missing: None,
        source: crate::dns::Source::Dns,
        expires: None,
    };
    // IPv4 has precedence over unique local addresses; to the first one there is no way: it is the last.
    assert_eq!(pair.shards[0].in_order(&answer), ["10.0.0.2", "fd00::2", "10.0.0.3", "2001:db8::1"].map(ip));
}
