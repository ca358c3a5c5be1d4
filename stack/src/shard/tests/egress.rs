//! What goes out: which packets must not, where they go, and how long they are.

use std::net::SocketAddr;

use smoltcp::time::Duration;

use super::super::*;
use super::lone::*;
use crate::ip::route::{Route, RouteOrigin};
use crate::udp::{Fragmenting, SendError};

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn bound(lone: &mut Lone, local: &str) -> SocketId {
    lone.shard.udp_bind(UdpBind::new(at(local))).expect("the port")
}

/// 127/8 and ::1 are never written to the wire (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
#[test]
fn loopback_addresses_stay_in_the_host() {
    for (local, to) in [("127.0.0.1:7", "10.0.0.2:9"), ("[::1]:7", "[fd00::2]:9")] {
        let mut lone = Lone::quiet(|_| {});
        let socket = bound(&mut lone, local);
        assert_eq!(lone.shard.udp_send_to(socket, b"x", at(to)), Err(SendError::NoSource), "{local}");
        lone.shard.send_packet(
            &udp((&at(local).ip().to_string(), 7), (&at(to).ip().to_string(), 9), b"x"),
            &FrameMeta::default(),
        );
        assert_eq!(lone.settle(), Vec::<Vec<u8>>::new(), "{local}");
    }
}

/// A hop limit of 0 stays on this host, whether anybody here is a member or not.
#[test]
fn a_hop_limit_of_zero_leaves_nothing_on_the_wire() {
    for (joins, loops) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut lone = Lone::quiet(|_| {});
        let mut bind = UdpBind::new(at("0.0.0.0:5000"));
        bind.options.multicast_hop_limit = 0;
        bind.options.multicast_loop = loops;
        let socket = lone.shard.udp_bind(bind).expect("the port");
        if joins {
            lone.shard.udp_join(socket, ip("239.1.2.3")).expect("joined");
            lone.advance(Duration::from_secs(15));
        }
        lone.shard.udp_send_to(socket, b"x", at("239.1.2.3:5000")).expect("sent");
        assert_eq!(lone.settle(), Vec::<Vec<u8>>::new(), "{joins} {loops}");
        let got = lone.shard.udp_recv_with(socket, |_, payload| payload.to_vec());
        assert_eq!(got.is_some(), joins && loops, "{joins} {loops}");
    }
}

/// What routes and routers say of the MTU counts, of the latter for IPv6 alone (RFC 4861 section 6.3.4).
#[test]
fn the_mtu_is_that_of_the_route() {
    let mut lone = Lone::quiet(|_| {});
    lone.shard.link_mtu = Some(1280);
    let prefix = crate::config::parse_cidr("192.0.2.0/24").expect("a prefix");
    let route = Route::new(prefix, Some(ip("10.0.0.2")), RouteOrigin::Static);
    lone.shard.insert_route(Route { mtu: Some(600), source: None, ..route });
    for (to, any, mtu) in [
        ("10.0.0.2:9", "0.0.0.0:0", 1500),
        ("[fd00::2]:9", "[::]:0", 1280),
        ("192.0.2.1:9", "0.0.0.0:0", 600),
    ] {
        let mut bind = UdpBind::new(at(any));
        bind.options.dont_fragment = Fragmenting::Forbid;
        let socket = lone.shard.udp_bind(bind).expect("a port");
        let max = mtu - 8 - if to.starts_with('[') { 40 } else { 20 };
        assert_eq!(
            lone.shard.udp_send_to(socket, &vec![0; max + 1], at(to)),
            Err(SendError::TooLong { max })
        );
        lone.shard.udp_send_to(socket, &vec![0; max], at(to)).expect("it fits");
        assert_eq!(lone.settle().len(), 1, "{to}");
    }
}

/// A route may say from where, if that address can be used.
#[test]
fn the_source_is_that_of_the_route() {
    let mut lone = Lone::quiet(|config| {
        *config = config.clone().address(crate::config::parse_cidr("10.0.0.5/24").expect("an address"));
    });
    let prefix = crate::config::parse_cidr("192.0.2.0/24").expect("a prefix");
    for (source, expected) in [("10.0.0.5", "10.0.0.5"), ("10.0.0.77", "10.0.0.1")] {
        let route = Route::new(prefix, Some(ip("10.0.0.2")), RouteOrigin::Static);
        lone.shard.insert_route(Route { source: Some(ip(source)), ..route });
        let path = lone.shard.path(&crate::egress::PacketSpec::new(ip("192.0.2.1"), 17)).expect("a way");
        assert_eq!(path.src, ip(expected));
    }
}

/// A path that takes less than we are willing to believe gets packets without DF.
#[test]
fn df_is_cleared_where_the_path_takes_less_than_is_believed() {
    let mut lone = Lone::quiet(|_| {});
    let mut bind = UdpBind::new(at("10.0.0.1:7"));
    bind.options.dont_fragment = Fragmenting::Forbid;
    let socket = lone.shard.udp_bind(bind).expect("the port");
    let df = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame[20] & 0x40 != 0).collect::<Vec<_>>();
    let segment = udp(("10.0.0.1", 7), ("10.0.0.2", 9), b"from elsewhere");
    let segment = {
        let mut segment = segment;
        segment[6] |= 0x40;
        segment[10..12].fill(0);
        smoltcp::wire::Ipv4Packet::new_unchecked(&mut segment[..]).fill_checksum();
        segment
    };
    for expected in [true, false] {
        lone.shard.udp_send_to(socket, &[0; 100], at("10.0.0.2:9")).expect("sent");
        lone.shard.send_packet(&segment, &FrameMeta::default());
        let frames = lone.settle();
        assert_eq!(df(&frames), [expected; 2]);
        for frame in &frames {
            assert!(crate::ingress::classify(Medium::Ethernet, frame).is_ok(), "the header sum is right");
        }
        let quoted = udp(("10.0.0.1", 7), ("10.0.0.2", 9), b"x");
        let message = [&[3, 4, 0, 0, 0, 0, 0, 100][..], &quoted].concat();
        lone.put(&framed(&icmp("10.0.0.2", "10.0.0.1", 64, &message)));
    }
}

/// An IPv4-mapped destination is one of IPv4 (RFC 4038 section 4.2), and is never written to the wire.
#[test]
fn a_mapped_destination_is_of_ipv4() {
    let mut lone = Lone::quiet(|config| *config = config.clone().gateway(ip("fd00::2")));
    let socket = bound(&mut lone, "[::]:7");
    lone.shard.udp_send_to(socket, b"x", at("[::ffff:10.0.0.2]:9")).expect("sent");
    assert_eq!(destinations(&lone.settle()), [(ip("10.0.0.2"), 17)]);
    lone.shard.udp_connect(socket, Some(at("[::ffff:10.0.0.2]:9"))).expect("connected");
    lone.shard.udp_send(socket, b"x").expect("sent");
    assert_eq!(destinations(&lone.settle()), [(ip("10.0.0.2"), 17)]);
    bound(&mut lone, "[::ffff:10.0.0.1]:8");
    let path = lone.shard.path(&crate::egress::PacketSpec::new(ip("::ffff:10.0.0.2"), 17));
    assert_eq!(path, Err(DropReason::NoRoute));
}

/// The scope of an address does not matter: a shard has one link.
#[test]
fn a_connection_with_a_scope_hears_its_peer() {
    let mut lone = Lone::quiet(|_| {});
    let ours = lone
        .shard
        .addresses()
        .map(Address::ip)
        .find(|ip| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    let ours = ours.expect("a link-local address").to_string();
    let socket = bound(&mut lone, "[::]:7");
    let mut to = at("[fe80::2]:9");
    if let SocketAddr::V6(to) = &mut to {
        to.set_scope_id(3);
    }
    lone.shard.udp_connect(socket, Some(to)).expect("connected");
    lone.put(&framed(&udp(("fe80::2", 9), (&ours, 7), b"x")));
    assert!(lone.shard.udp_recv_with(socket, |_, _| {}).is_some());
}

/// A gateway that does not answer is left for the next one (RFC 1122 section 3.3.1.4, RFC 4861 section 6.3.6), and
/// is used again when there is a sign of it.
#[test]
fn a_dead_gateway_is_left_for_the_next_one() {
    let mut lone = Lone::quiet(|config| {
        *config = config.clone().gateway(ip("10.0.0.9")).gateway(ip("10.0.0.2"));
    });
    let socket = bound(&mut lone, "10.0.0.1:7");
    let to = at("192.0.2.1:9");
    lone.shard.udp_send_to(socket, b"lost", to).expect("it waits");
    let frames = lone.advance(Duration::from_secs(4));
    assert_eq!(destinations(&frames), [], "nobody answers");
    for _ in 0..5 {
        lone.shard.udp_send_to(socket, b"x", to).expect("by the second one");
        let frames = lone.advance(Duration::from_secs(4));
        assert_eq!(destinations(&frames), [(ip("192.0.2.1"), 17)]);
        assert_eq!(frames[0][..6], PEER.0);
    }
    // The first one is there again, and says so by asking for us.
    let sender = EthernetAddress([2, 0, 0, 0, 0, 9]);
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender.0, &[10, 0, 0, 9], &[0; 6], &[10, 0, 0, 1]].concat();
    lone.put(&ether(OURS, sender, 0x0806, &body));
    lone.shard.udp_send_to(socket, b"x", to).expect("sent");
    assert_eq!(lone.settle()[0][..6], sender.0);
}

/// A socket whose address is gone does not speak from it.
#[test]
fn nothing_is_sent_from_an_address_that_is_gone() {
    let mut lone = Lone::quiet(|config| {
        *config = config.clone().address(crate::config::parse_cidr("10.0.0.5/24").expect("an address"));
    });
    let udp = bound(&mut lone, "10.0.0.5:7");
    let ping = lone.shard.ping_bind(PingBind::new(ip("10.0.0.5"))).expect("a socket");
    let raw = lone.shard.raw_open(RawBind::new(crate::raw::Version::V4, 99)).expect("a socket");
    lone.shard.raw_socket(raw).expect("it is there").set_local(Some(ip("10.0.0.5")));
    lone.shard.remove_address(ip("10.0.0.5"));
    assert_eq!(lone.shard.raw_send(raw, ip("10.0.0.2"), b"x"), Err(SendError::AddressNotOurs));
    assert_eq!(lone.shard.udp_send_to(udp, b"x", at("10.0.0.2:9")), Err(SendError::AddressNotOurs));
    let sent = lone.shard.ping_send(ping, &PingOptions::new(ip("10.0.0.2"), 1), b"x");
    assert_eq!(sent, Err(SendError::AddressNotOurs));
    assert_eq!(lone.settle(), Vec::<Vec<u8>>::new());
}

/// No echo request comes from a group or a broadcast address.
#[test]
fn nobody_pings_from_a_group() {
    let mut lone = Lone::quiet(|_| {});
    for local in ["224.0.0.1", "10.0.0.255", "ff02::1"] {
        assert!(lone.shard.ping_bind(PingBind::new(ip(local))).is_err(), "{local}");
    }
}

/// A connection that fails leaves the one before as it was.
#[test]
fn a_connect_that_fails_changes_nothing() {
    let mut lone = Lone::quiet(|_| {});
    let mut bind = UdpBind { reuse: true, ..UdpBind::new(at("10.0.0.1:7")) };
    bind.options.recv_errors = true;
    let first = lone.shard.udp_bind(bind).expect("the port");
    let second = lone.shard.udp_bind(bind).expect("the port, shared");
    lone.shard.udp_connect(first, Some(at("10.0.0.2:1"))).expect("connected");
    lone.shard.udp_connect(second, Some(at("10.0.0.2:2"))).expect("connected");
    lone.shard.udp_connect(second, Some(at("10.0.0.2:1"))).expect_err("it is the first one's");
    let socket = lone.shard.udp_socket(second).expect("it is there");
    assert_eq!((socket.local(), socket.remote()), (at("10.0.0.1:7"), Some(at("10.0.0.2:2"))));
}

/// TCP that is served elsewhere does not know the MTU of a path: its segments become shorter ones, for it sets DF.
#[test]
fn segments_fit_the_path() {
    let mut lone = Lone::quiet(|_| {});
    let prefix = crate::config::parse_cidr("192.0.2.0/24").expect("a prefix");
    let route = Route::new(prefix, Some(ip("10.0.0.2")), RouteOrigin::Static);
    lone.shard.insert_route(Route { mtu: Some(600), ..route });
    let mut header = [0; 20];
    header[12] = 0x50;
    let mut segment = packet("10.0.0.1", "192.0.2.1", 6, 64, &[&header[..], &[7; 1460]].concat());
    segment[6] |= 0x40;
    segment[10..12].fill(0);
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut segment[..]).fill_checksum();
    let layout = wirestack_nic::offload::Layout::of_packet(&segment).expect("a segment");
    let checksum = wirestack_nic::offload::checksum::leave_out(&mut segment, &layout).expect("its checksum");
    for gso in [None, std::num::NonZeroU16::new(1000)] {
        let kind = wirestack_nic::meta::GsoKind::TcpV4;
        let gso = gso.map(|size| wirestack_nic::meta::Gso { kind, size, ecn: false });
        lone.shard.send_packet(&segment, &FrameMeta { checksum, gso, ..FrameMeta::default() });
        let frames = lone.settle();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [614, 614, 394], "{gso:?}");
        for frame in &frames {
            let Ok(crate::ingress::Packet { body: crate::ingress::Body::Ip(ip), .. }) =
                crate::ingress::classify(Medium::Ethernet, frame)
            else {
                panic!("no packet")
            };
            let verified = crate::ingress::checksum::verify_transport(frame, &ip, &FrameMeta::default());
            assert_eq!((verified, ip.dont_fragment), (Ok(()), true));
        }
    }
}

/// The fragments of the first datagram to a neighbour wait for it, all of them.
#[test]
fn a_long_datagram_waits_for_its_neighbour() {
    let mut lone = Lone::quiet(|_| {});
    let socket = bound(&mut lone, "10.0.0.1:7");
    lone.shard.udp_send_to(socket, &[7; 60_000], at("10.0.0.9:9")).expect("it waits");
    lone.settle();
    let sender = EthernetAddress([2, 0, 0, 0, 0, 9]);
    let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender.0, &[10, 0, 0, 9], &OURS.0, &[10, 0, 0, 1]].concat();
    assert_eq!(lone.put(&ether(OURS, sender, 0x0806, &body)).len(), 41);
    assert_eq!(lone.drops(DropReason::NeighborQueueFull), 0);
}

/// What was left behind between turns is a reason to come again.
#[test]
fn a_command_that_waits_is_due() {
    let mut lone = Lone::quiet(|_| {});
    let (mut nic, _wire) = wirestack_nic::loopback::Loopback::pair(&Default::default()).expect("a wire");
    assert_ne!(lone.shard.send(&mut nic), Some(lone.shard.now()));
    lone.shard.push_command(Command::LinkChanged(true)).expect("room");
    assert_eq!(lone.shard.send(&mut nic), Some(lone.shard.now()));
}

/// Routes come and go while the shard runs.
#[test]
fn routes_come_and_go() {
    let mut lone = Lone::quiet(|_| {});
    let socket = bound(&mut lone, "0.0.0.0:7");
    let to = at("192.0.2.1:9");
    assert_eq!(lone.shard.udp_send_to(socket, b"x", to), Err(SendError::NoRoute));
    let prefix = crate::config::parse_cidr("192.0.2.1/24").expect("a prefix");
    let route = Route::new(prefix, Some(at("10.0.0.7:1").ip()), RouteOrigin::Static);
    lone.shard.push_command(Command::AddRoute(route)).expect("room");
    lone.settle();
    assert_eq!(lone.shard.udp_send_to(socket, b"x", to), Ok(()));
    lone.shard.push_command(Command::RemoveRoute(route.id())).expect("room");
    lone.settle();
    assert_eq!(lone.shard.udp_send_to(socket, b"x", to), Err(SendError::NoRoute));
}

/// What a router said of a link does not hold for another one.
#[test]
fn the_mtu_of_a_router_ends_with_its_link() {
    let mut lone = Lone::quiet(|_| {});
    lone.shard.link_mtu = Some(1_280);
    let dst = at("[fd00::2]:9").ip();
    assert_eq!(lone.shard.mtu_for(dst), 1_280);
    lone.shard.push_command(Command::LinkChanged(false)).expect("room");
    lone.settle();
    assert_eq!(lone.shard.mtu_for(dst), 1_500);
}
