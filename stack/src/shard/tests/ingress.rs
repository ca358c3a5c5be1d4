//! What comes in: what must not be believed, answered or sent on.

use smoltcp::time::Duration;
use wirestack_nic::meta::{ChecksumState, Gso, GsoKind};

use super::super::*;
use super::lone::*;
use crate::demux::Steering;
use crate::icmp::ErrorKind;
use crate::udp::SocketOptions;

fn bound(lone: &mut Lone, local: &str) -> SocketId {
    lone.shard.udp_bind(UdpBind::new(local.parse().expect("an address"))).expect("the port")
}

fn received(lone: &mut Lone, socket: SocketId) -> Option<Vec<u8>> {
    lone.shard.udp_recv_with(socket, |_, payload| payload.to_vec())
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &PEER.0, &sender, &[0; 6], &target].concat();
    ether(OURS, PEER, 0x0806, &body)
}

/// A frame about the link goes once to each other shard, and not from there to all others again.
#[test]
fn mail_about_the_link_is_not_sent_on() {
    let frame = arp(1, [10, 0, 0, 2], [10, 0, 0, 1]);
    let mut lone = Lone::quiet(|config| config.steering = Steering { seed: 0, shards: 3 });
    let replies = lone.put(&frame);
    assert_eq!(replies.len(), 1, "it is answered");
    let mail: Vec<_> = std::iter::from_fn(|| lone.shard.next_mail()).collect();
    assert_eq!(mail, [(1, Mail::Control(frame.clone())), (2, Mail::Control(frame.clone()))]);
    lone.shard.push_command(Command::Mail(Mail::Control(frame))).expect("room");
    assert_eq!(lone.settle(), Vec::<Vec<u8>>::new(), "whoever had the frame has answered");
    assert_eq!(lone.shard.next_mail(), None);
}

/// A query about groups is for the members of every shard.
#[test]
fn queries_about_groups_are_mailed() {
    let mut lone = Lone::quiet(|config| config.steering = Steering { seed: 0, shards: 2 });
    // IGMPv2: Max Resp Time 10 s, all groups, checksum; with the Router Alert option.
    let query = [0x11, 100, 0xee, 0x9b, 0, 0, 0, 0];
    let mut packet = packet("10.0.0.2", "224.0.0.1", 2, 1, &query);
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet[0] = 0x46;
    packet[2..4].copy_from_slice(&32_u16.to_be_bytes());
    packet[10..12].fill(0);
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
    let frame = ether(crate::igmp_mld::group_mac(ip("224.0.0.1")), PEER, 0x0800, &packet);
    lone.put(&frame);
    assert_eq!(lone.shard.next_mail(), Some((1, Mail::Control(frame.clone()))));
    lone.shard.push_command(Command::Mail(Mail::Control(frame))).expect("room");
    lone.settle();
    assert_eq!(lone.shard.next_mail(), None);
}

/// RFC 6980 section 5: neighbour discovery in fragments is ignored.
#[test]
fn neighbour_discovery_in_fragments_is_ignored() {
    let solicitation = |target: &str| {
        let IpAddr::V6(target) = ip(target) else { panic!("IPv6") };
        let option = [1, 1, 2, 0, 0, 0, 0, 9];
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &option].concat();
        icmp("fd00::9", "fd00::1", 255, &message)
    };
    let mut lone = Lone::quiet(|_| {});
    let whole = solicitation("fd00::1");
    assert_eq!(lone.put(&framed(&whole)).len(), 1, "a whole one is answered");
    lone.shard.neighbors.remove(ip("fd00::9"));
    // The same behind a fragment header that says "all of it", and in two fragments.
    let (header, payload) = whole.split_at(40);
    let fragment = |offset: u16, more: u16, part: &[u8]| {
        let mut packet = [header, &[58, 0], &(offset | more).to_be_bytes(), &[0, 0, 0, 9], part].concat();
        packet[6] = 44;
        packet[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        framed(&packet)
    };
    let answers: Vec<_> =
        [fragment(0, 0, payload), fragment(0, 1, &payload[..24]), fragment(24, 0, &payload[24..])]
            .iter()
            .flat_map(|frame| lone.put(frame))
            .collect();
    assert_eq!(answers, Vec::<Vec<u8>>::new());
    assert_eq!(lone.shard.neighbors.get(ip("fd00::9")), None);
}

/// A flow within this host cannot have met a router.
#[test]
fn an_error_from_the_wire_is_not_about_loopback() {
    let mut lone = Lone::quiet(|_| {});
    let socket = lone
        .shard
        .udp_bind(UdpBind {
            options: SocketOptions { recv_errors: true, ..SocketOptions::default() },
            ..UdpBind::new("127.0.0.1:7".parse().expect("an address"))
        })
        .expect("the port");
    let quoted = udp(("127.0.0.1", 7), ("127.0.0.1", 9), b"x");
    let error = icmp("10.0.0.2", "10.0.0.1", 64, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
    lone.put(&framed(&error));
    assert_eq!(lone.shard.udp_take_error(socket), None);
    assert_eq!(lone.drops(DropReason::IcmpSpoofed), 1);
    // One that is true.
    lone.shard.udp_send_to(socket, b"x", "127.0.0.1:9".parse().expect("an address")).expect("sent");
    lone.settle();
    let error = lone.shard.udp_take_error(socket).expect("an error");
    assert_eq!(error.kind, ErrorKind::PortUnreachable);
}

/// RFC 1122 section 3.3.6: what comes as a broadcast of the link is for many by its IP address as well.
#[test]
fn a_broadcast_frame_to_one_host_is_dropped() {
    let mut lone = Lone::quiet(|_| {});
    let socket = bound(&mut lone, "0.0.0.0:7");
    let packet = udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"all");
    lone.put(&ether(EthernetAddress::BROADCAST, PEER, 0x0800, &packet));
    assert_eq!(received(&mut lone, socket), None);
    lone.put(&framed(&packet));
    assert_eq!(received(&mut lone, socket), Some(b"all".to_vec()));
    let broadcast = udp(("10.0.0.2", 9), ("10.0.0.255", 7), b"many");
    lone.put(&ether(EthernetAddress::BROADCAST, PEER, 0x0800, &broadcast));
    assert_eq!(received(&mut lone, socket), Some(b"many".to_vec()));
}

/// Who has no address yet speaks to many, and nobody could answer him.
#[test]
fn nobody_speaks_to_one_host_from_no_address() {
    for (src, dst, any) in [("0.0.0.0", "10.0.0.1", "0.0.0.0:7"), ("::", "fd00::1", "[::]:7")] {
        let mut lone = Lone::quiet(|_| {});
        let socket = bound(&mut lone, any);
        lone.put(&framed(&udp((src, 9), (dst, 7), b"who?")));
        assert_eq!(received(&mut lone, socket), None, "{src}");
        assert_eq!(lone.drops(DropReason::IpMartianSource), 1, "{src}");
    }
}

/// Of several receivers, some of which have no room, each refusal is counted, in whatever order they come.
#[test]
fn every_receiver_without_room_is_counted() {
    for full in 0..2 {
        let mut lone = Lone::quiet(|_| {});
        for number in 0..2 {
            let mut bind = UdpBind { reuse: true, ..UdpBind::new("0.0.0.0:7".parse().expect("an address")) };
            if number == full {
                bind.options.recv_datagrams_max = 0;
            }
            lone.shard.udp_bind(bind).expect("the port");
        }
        let broadcast = udp(("10.0.0.2", 9), ("10.0.0.255", 7), b"many");
        lone.put(&ether(EthernetAddress::BROADCAST, PEER, 0x0800, &broadcast));
        assert_eq!(lone.shard.counters.udp_received, 1);
        assert_eq!(lone.drops(DropReason::UdpQueueFull), 1, "{full}");
    }
}

/// An application that leaves something in a full queue is told when more comes, though it finds no room.
#[test]
fn a_full_queue_is_told_of_again() {
    let mut lone = Lone::quiet(|_| {});
    let mut bind = UdpBind::new("10.0.0.1:7".parse().expect("an address"));
    bind.options.recv_datagrams_max = 1;
    let socket = lone.shard.udp_bind(bind).expect("the port");
    for _ in 0..2 {
        lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")));
        assert_eq!(lone.shard.next_event(), Some(SocketEvent { socket }));
        assert_eq!(lone.shard.next_event(), None);
    }
}

/// An error that a socket does not want is no news for the application.
#[test]
fn an_error_that_nobody_wants_is_no_event() {
    let mut lone = Lone::quiet(|_| {});
    let socket = bound(&mut lone, "10.0.0.1:7");
    let quoted = udp(("10.0.0.1", 7), ("10.0.0.2", 9), b"x");
    let error = icmp("10.0.0.2", "10.0.0.1", 64, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
    lone.put(&framed(&error));
    assert_eq!((lone.shard.next_event(), lone.shard.udp_take_error(socket)), (None, None));
}

/// Whoever never asks for events does not pay for sockets that are gone.
#[test]
fn events_of_closed_sockets_do_not_pile_up() {
    let mut lone = Lone::quiet(|_| {});
    for _ in 0..1_000 {
        let socket = bound(&mut lone, "10.0.0.1:7");
        lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")));
        lone.shard.close(socket);
    }
    assert!(lone.shard.sockets.ready_len() < 100, "{}", lone.shard.sockets.ready_len());
    assert_eq!(lone.shard.next_event(), None);
}

/// What came in fragments from ourselves is from ourselves, and stays in this shard.
#[test]
fn the_longest_datagram_to_ourselves_arrives() {
    for (local, any) in [("[::1]:7", "[::]:0"), ("127.0.0.1:7", "0.0.0.0:0"), ("[fd00::1]:7", "[::]:0")] {
        let mut lone = Lone::quiet(|config| config.steering = Steering { seed: 3, shards: 4 });
        let mut bind = UdpBind::new(local.parse().expect("an address"));
        bind.options.recv_buffer_bytes = 1 << 17;
        let server = lone.shard.udp_bind(bind).expect("the port");
        let client = bound(&mut lone, any);
        let len = if local.starts_with('[') { 65_527 } else { 65_507 };
        lone.shard.udp_send_to(client, &vec![7; len], local.parse().expect("an address")).expect("sent");
        lone.settle();
        assert_eq!(received(&mut lone, server).map(|payload| payload.len()), Some(len), "{local}");
    }
}

/// Errors about what came in fragments from this host and never became whole are no reason to speak to the wire.
#[test]
fn a_shard_with_nothing_to_do_sleeps() {
    let mut lone = Lone::quiet(|_| {});
    lone.put(&framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"x")));
    let frames = lone.advance(Duration::from_secs(300));
    assert_eq!(frames, Vec::<Vec<u8>>::new());
}

/// Datagrams that came merged are lent as one run, or one by one.
#[test]
fn a_merged_run_is_lent_whole_or_in_pieces() {
    let size = std::num::NonZeroU16::new(4).expect("not 0");
    let gso = Gso { kind: GsoKind::Udp, size, ecn: false };
    let meta = FrameMeta { gso: Some(gso), checksum: ChecksumState::Verified, ..FrameMeta::default() };
    let mut lone = Lone::quiet(|_| {});
    let socket = lone.shard.udp_bind(UdpBind::new("0.0.0.0:7".parse().expect("an address"))).expect("port 7");
    let frame = framed(&udp(("10.0.0.2", 9), ("10.0.0.1", 7), b"aaaabbbbcc"));
    for _ in 0..2 {
        lone.shard.handle_frame(&frame, &meta);
    }
    let run = lone.shard.udp_recv_batch_with(socket, |meta, run| (meta.segment_bytes, run.to_vec()));
    assert_eq!(run, Some((Some(size), b"aaaabbbbcc".to_vec())));
    let pieces: Vec<_> =
        std::iter::from_fn(|| lone.shard.udp_recv_with(socket, |_, piece| piece.to_vec())).collect();
    assert_eq!(pieces, [&b"aaaa"[..], b"bbbb", b"cc"]);
}

/// Whoever sends packets of a protocol that nobody there speaks is told, if the socket is connected.
#[test]
fn a_raw_socket_hears_of_errors() {
    let mut lone = Lone::quiet(|_| {});
    let socket = lone.shard.raw_open(RawBind::new(crate::raw::Version::V4, 99)).expect("a socket");
    assert_eq!(lone.shard.sockets_len(), 1);
    lone.shard.raw_socket(socket).expect("it is there").set_remote(Some(ip("10.0.0.2")));
    let quoted = packet("10.0.0.1", "10.0.0.2", 99, 64, b"whatever");
    let message = [&[3, 2, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    lone.put(&framed(&icmp("10.0.0.2", "10.0.0.1", 64, &message)));
    let error = lone.shard.raw_take_error(socket).expect("an error");
    assert_eq!((error.kind, error.from), (crate::icmp::ErrorKind::ProtocolUnreachable, ip("10.0.0.2")));
    assert!(lone.shard.raw_take_error(socket).is_none());
    lone.shard.close(socket);
    assert_eq!(lone.shard.sockets_len(), 0);
}
