//! What can be seen from outside: counters, events, snapshots, times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use smoltcp::time::Duration;

use super::super::*;
use super::lone::*;
use crate::config::parse_cidr;
use crate::demux::Steering;
use crate::dhcp::v4::{Lease, LostReason};
use crate::ip::route::{Route, RouteOrigin};
use crate::observe::event::Event;

/// What the hook of a shard is told, as text; of frames, their length.
fn listen(shard: &mut Shard) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    shard.set_hook(Some(Box::new(move |_, event| {
        let text = match event {
            Event::Dropped { reason, frame } => format!("dropped {reason} {}", frame.len()),
            Event::LeaseObtained(lease) => format!("lease {}", lease.address),
            other => format!("{other:?}"),
        };
        ear.lock().expect("not poisoned").push(text);
    })));
    heard
}

fn heard(heard: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *heard.lock().expect("not poisoned"))
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &PEER.0, &sender, &[0; 6], &target].concat();
    ether(OURS, PEER, 0x0806, &body)
}

pub(super) fn lease(address: &str) -> Lease {
    let smoltcp::wire::IpCidr::Ipv4(address) = parse_cidr(address).expect("an address") else {
        panic!("IPv4")
    };
    Lease {
        address,
        broadcast: None,
        routers: vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()],
        dns: vec![[10, 0, 0, 53].into()],
        domain: None,
        search: Vec::new(),
        mtu: Some(1400),
        server: [10, 0, 0, 2].into(),
        routes: Vec::new(),
        obtained: Instant::ZERO,
        t1: None,
        t2: None,
        expires: None,
    }
}

/// For all that comes in, whatever it is, one verdict is counted; and drops are the sum of their reasons.
#[test]
fn counters_balance() {
    let mut lone = Lone::quiet(|config| {
        config.steering = Steering { seed: 1, shards: 2 };
        config.dhcp = Some(crate::dhcp::v4::Config::default());
    });
    let echo = |dst: &str| icmp("10.0.0.2", dst, 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let mut first_of_two = udp(("10.0.0.2", 9), ("10.0.0.1", 7), &[0; 24]);
    first_of_two[6] |= 0x20;
    first_of_two[10..12].fill(0);
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut first_of_two[..]).fill_checksum();
    let socket = lone.shard.udp_bind(UdpBind::new("0.0.0.0:7".parse().expect("an address"))).expect("a port");
    let raw = lone.shard.raw_open(RawBind::new(crate::raw::Version::V4, 17)).expect("a socket");
    let frames = [
        vec![0; 9],
        arp(1, [10, 0, 0, 2], [10, 0, 0, 1]),
        arp(2, [10, 0, 0, 99], [10, 0, 0, 1]),
        framed(&echo("10.0.0.1")),
        framed(&echo("10.0.0.77")),
        framed(&first_of_two),
        framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")),
        framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 8), b"nobody")),
        ether(EthernetAddress::BROADCAST, PEER, 0x0800, &udp(("10.0.0.2", 9), ("10.0.0.255", 7), b"x")),
    ];
    for (number, frame) in frames.iter().enumerate() {
        lone.put(frame);
        lone.shard.push_command(Command::Mail(Mail::Control(frame.clone()))).expect("room");
        lone.shard
            .push_command(Command::Mail(Mail::Packet(frame[14.min(frame.len())..].to_vec())))
            .expect("room");
        let to = if number % 2 == 0 { "127.0.0.1:7" } else { "127.0.0.1:9" };
        lone.shard.udp_send_to(socket, b"me", to.parse().expect("an address")).expect("sent");
        lone.settle();
        let c = lone.shard.counters();
        let verdicts = c.delivered + c.replied + c.held + c.forwarded + c.rx_dropped;
        assert_eq!(c.rx_frames + c.looped + c.mail_received, verdicts, "{number}: {c:?}");
        assert_eq!(c.dropped, lone.shard.drops().named().map(|(_, count)| count).sum::<u64>(), "{number}");
        assert!(c.rx_dropped <= c.dropped);
    }
    let counters = lone.shard.counters();
    assert_eq!(counters.rx_frames, frames.len() as u64);
    assert!(counters.replied > 0 && counters.held > 0 && counters.delivered > 0 && counters.looped > 0);
    lone.shard.close(raw);
}

/// What the device takes is counted, and an echo that is answered is one reply.
#[test]
fn frames_out_are_counted() {
    let mut lone = Lone::quiet(|_| {});
    let before = lone.shard.counters();
    let frames = lone.put(&framed(&icmp("10.0.0.2", "10.0.0.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1])));
    let counters = lone.shard.counters();
    assert_eq!((frames.len(), counters.tx_frames - before.tx_frames), (1, 1));
    assert_eq!((counters.replied, counters.delivered - before.delivered), (1, 0));
    assert_eq!(counters.icmp_errors_sent, 0);
    lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 8), b"nobody")));
    assert_eq!(lone.shard.counters().icmp_errors_sent, 1);
    // An error that must not be sent is not counted as one.
    lone.put(&framed(&packet("10.0.0.2", "10.0.0.1", 99, 64, b"")));
    lone.put(&ether(
        EthernetAddress::BROADCAST,
        PEER,
        0x0800,
        &udp(("10.0.0.2", 9), ("10.0.0.255", 8), b"x"),
    ));
    assert_eq!(lone.shard.counters().icmp_errors_sent, 2);
}

#[test]
fn a_hook_hears_of_addresses() {
    let mut lone = Lone::quiet(|config| config.neighbor.probes = crate::neighbor::AddressProbes::Full);
    let ears = listen(&mut lone.shard);
    let cidr = parse_cidr("10.0.0.5/24").expect("an address");
    lone.shard.push_command(Command::AddAddress(cidr)).expect("room");
    lone.settle();
    assert_eq!(heard(&ears), Vec::<String>::new(), "it is not ours yet");
    lone.advance(Duration::from_secs(10));
    assert_eq!(heard(&ears), ["AddressAdded(Ipv4(Cidr { address: 10.0.0.5, prefix_len: 24 }))".to_owned()]);
    lone.shard.add_address(Address {
        preferred_until: Some(lone.now + Duration::from_secs(1)),
        valid_until: Some(lone.now + Duration::from_secs(2)),
        ..Address::preferred(cidr, Origin::Static)
    });
    lone.advance(Duration::from_secs(3));
    assert_eq!(heard(&ears), ["AddressDeprecated(10.0.0.5)", "AddressRemoved(10.0.0.5)"]);
    lone.shard.push_command(Command::AddAddress(cidr)).expect("room");
    lone.settle();
    lone.put(&arp(1, [10, 0, 0, 5], [10, 0, 0, 5]));
    let conflict = heard(&ears);
    assert!(conflict[0].starts_with("AddressConflict { address: 10.0.0.5, mac"), "{conflict:?}");
    assert_eq!(conflict[1..], ["dropped arp_conflict 42"]);
}

#[test]
fn a_hook_hears_of_leases_and_name_servers() {
    let mut lone = Lone::quiet(|config| config.dhcp = Some(crate::dhcp::v4::Config::default()));
    let ears = listen(&mut lone.shard);
    lone.shard.apply_lease(&lease("10.0.0.50/24"));
    let events = heard(&ears);
    assert_eq!(events[1..], ["DnsServers([10.0.0.53])", "lease 10.0.0.50/24"], "{events:?}");
    let gateways: Vec<_> = lone.shard.routes.candidates(ip("192.0.2.1")).iter().map(|r| r.gateway).collect();
    assert_eq!(gateways, [Some(ip("10.0.0.2")), Some(ip("10.0.0.3"))], "in the order of the server");
    let path = lone.shard.path(&crate::egress::PacketSpec::new(ip("10.0.0.2"), 17)).expect("a way");
    assert_eq!(path.mtu, 1400, "the MTU of the lease is for its prefix as well");
    lone.shard.lose_lease([10, 0, 0, 50].into(), LostReason::Expired);
    assert_eq!(
        heard(&ears),
        ["AddressRemoved(10.0.0.50)", "DnsServers([])", "LeaseLost { address: 10.0.0.50, reason: Expired }"]
    );
    assert_eq!(lone.shard.routes.candidates(ip("192.0.2.1")), []);
}

#[test]
fn a_hook_hears_of_drops_queues_and_neighbours() {
    let mut lone = Lone::quiet(|config| *config = config.clone().gateway(ip("10.0.0.9")));
    let ears = listen(&mut lone.shard);
    let mut bind = UdpBind::new("10.0.0.1:7".parse().expect("an address"));
    bind.options.recv_datagrams_max = 0;
    let socket = lone.shard.udp_bind(bind).expect("a port");
    lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")));
    assert_eq!(
        heard(&ears),
        [
            format!("{:?}", Event::SocketQueueFull { socket, reason: DropReason::UdpQueueFull }),
            "dropped udp_queue_full 43".to_owned()
        ]
    );
    lone.shard.udp_send_to(socket, b"x", "192.0.2.1:9".parse().expect("an address")).expect("it waits");
    lone.advance(Duration::from_secs(4));
    assert_eq!(
        heard(&ears),
        ["NeighborUnreachable(10.0.0.9)", "GatewayDead(10.0.0.9)", "dropped neighbor_unreachable 0"]
    );
    lone.shard.set_hook(None);
    lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")));
    assert_eq!(heard(&ears), Vec::<String>::new());
}

/// The clock of the caller is read once as each stage begins: here it moves by one each time.
#[test]
fn each_stage_of_a_turn_takes_its_time() {
    let mut lone = Lone::quiet(|_| {});
    let ticks = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&ticks);
    lone.shard.set_stage_clock(Some(Box::new(move || clock.fetch_add(1, Ordering::Relaxed))));
    let turns = lone.shard.counters().turns;
    lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")));
    let turns = lone.shard.counters().turns - turns;
    assert_eq!(ticks.load(Ordering::Relaxed), turns * Stage::ALL.len() as u64);
    for stage in Stage::ALL {
        let idle_now = u64::from(stage == Stage::Idle);
        assert_eq!(lone.shard.stage_times().spent(stage), turns - idle_now, "{}", stage.name());
    }
    assert_eq!(lone.shard.snapshot(0).stages.get("egress"), Some(turns));
}

/// One of each.
fn full() -> Lone {
    let mut lone = Lone::quiet(|config| {
        *config = config.clone().gateway(ip("10.0.0.2"));
        config.dns.servers = vec!["10.0.0.2:53".parse().expect("an address")];
        config.dhcp6 = Some(crate::dhcp::v6::Config::default());
        config.dhcp = Some(crate::dhcp::v4::Config::default());
        config.slaac =
            Some(crate::ip::slaac::SlaacConfig::new(crate::ip::stable_address::InterfaceIdentifier::Eui64));
    });
    let shard = &mut lone.shard;
    let prefix = parse_cidr("192.0.2.0/24").expect("a prefix");
    let route = Route::new(prefix, Some(ip("10.0.0.2")), RouteOrigin::RouterAdvertisement);
    shard.insert_route(Route { mtu: Some(1400), expires: Some(lone.now + Duration::from_secs(60)), ..route });
    let udp_socket = shard.udp_bind(UdpBind::new("0.0.0.0:7".parse().expect("an address"))).expect("a port");
    shard.udp_join(udp_socket, ip("239.1.2.3")).expect("joined");
    shard.ping_bind(PingBind { identifier: 77, ..PingBind::new(ip("::")) }).expect("a socket");
    shard.raw_open(RawBind::new(crate::raw::Version::V4, 89)).expect("a socket");
    shard.path_mtu.handle_too_big(lone.now, ip("192.0.2.1"), 1000, 1500).expect("believed");
    shard.resolve("example.org.", crate::dns::Kind::Addresses).expect("a name");
    let mut fragment = udp(("10.0.0.2", 9), ("10.0.0.1", 7), &[0; 24]);
    fragment[6] |= 0x20;
    fragment[10..12].fill(0);
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut fragment[..]).fill_checksum();
    lone.put(&framed(&fragment));
    lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"hello")));
    lone
}

#[test]
fn a_snapshot_prints_all_tables() {
    let text = full().shard.snapshot(100).to_string();
    let has = |words: &str| {
        let is_line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(words);
        assert!(text.lines().any(is_line), "no line {words:?} in\n{text}");
    };
    for words in [
        "shard 0 at 16s",
        "link 02:00:00:00:00:01 mtu 1500 mtu6 1500 hoplimit 64",
        "ADDRESS STATE ORIGIN PREFERRED VALID",
        "10.0.0.1/24 preferred static forever forever",
        "fe80::ff:fe00:1/64 preferred link-local forever forever",
        "PREFIX VIA METRIC PROTO SRC MTU EXPIRES FLAGS",
        "default 10.0.0.2 0 static - - forever -",
        "192.0.2.0/24 10.0.0.2 0 ra - 1400 60s -",
        "10.0.0.0/24 - 0 connected - - forever -",
        "10.0.0.2 02:00:00:00:00:02 PERMANENT",
        "192.0.2.1 1000 600s -",
        "10.0.0.2 10.0.0.1 7 17 1 32/? 1 30s -",
        "239.1.2.3 exclude - 1",
        "IGMPv3 forever 2 125s 10s",
        "0 udp 0.0.0.0:7 * 5 1 1 0 0",
        "1 icmp6 [::]:77 * 0 0 - 0 0",
        "2 raw4:89 * * 0 0 0 0 0",
        "0.0.0.0:7 * socket 0 -",
        "0.0.0.0:68 * dhcp -",
        "[::]:546 * dhcpv6 -",
        "fe80::/64 fe80::ff:fe00:1 0 forever forever",
        "dhcp SELECTING attempts",
        "dhcpv6 requesting attempts",
        "dns lookups 1 cache 0",
        "10.0.0.2:53 0 0 0 -",
        "example.org AAAA 10.0.0.2:53",
        "outbox 0 4096 0 4194304",
        "mailbox 0 1024 - -",
        "parked 0 - 0 8388608",
        "counters",
        "held 1",
        "udp_received 1",
    ] {
        has(words);
    }
}

/// In a table each column begins below its heading.
#[test]
fn columns_of_a_snapshot_are_aligned() {
    let text = full().shard.snapshot(100).to_string();
    let heading = text.lines().position(|line| line.contains("LLADDR")).expect("neighbours");
    let lines: Vec<_> = text.lines().collect();
    let at = lines[heading].find("STATE").expect("a column");
    assert!(lines[heading + 1][at..].starts_with("PERMANENT"), "{text}");
}

#[test]
fn a_snapshot_is_json() {
    let snapshot = full().shard.snapshot(100);
    let json = serde_json::to_value(&snapshot).expect("it has no keys but text");
    for (pointer, expected) in [
        ("/addresses/entries/0/address", serde_json::json!("10.0.0.1/24")),
        ("/addresses/entries/0/valid_ms", serde_json::Value::Null),
        ("/neighbors/total", serde_json::json!(2)),
        ("/neighbors/entries/0/mac", serde_json::json!("02:00:00:00:00:02")),
        ("/sockets/entries/0/queued_bytes", serde_json::json!(5)),
        ("/path_mtu/entries/0/mtu_bytes", serde_json::json!(1000)),
        ("/dns/servers/entries/0/address", serde_json::json!("10.0.0.2:53")),
        ("/counters/udp_received", serde_json::json!(1)),
        ("/drops/udp_no_socket", serde_json::json!(0)),
        ("/stages/ingress", serde_json::json!(0)),
    ] {
        assert_eq!(json.pointer(pointer), Some(&expected), "{pointer}");
    }
}

/// However long a table is, a snapshot has as much of it as was asked for, and tells how long it is.
#[test]
fn a_snapshot_is_bounded() {
    let mut lone = Lone::quiet(|_| {});
    for port in 1..=500 {
        let local = std::net::SocketAddr::new(ip("10.0.0.1"), port);
        lone.shard.udp_bind(UdpBind::new(local)).expect("a port");
    }
    let snapshot = lone.shard.snapshot(3);
    assert_eq!((snapshot.sockets.entries.len(), snapshot.sockets.total), (3, 500));
    assert_eq!((snapshot.ports.entries.len(), snapshot.ports.total), (3, 500));
    let text = snapshot.to_string();
    assert!(text.contains("  and 497 more; 500 in all\n"), "{text}");
    let none = lone.shard.snapshot(0);
    assert_eq!((none.sockets.entries.len(), none.sockets.total), (0, 500));
}
