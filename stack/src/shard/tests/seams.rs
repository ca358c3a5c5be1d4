//! Where parts meet: who wakes whom, and whose word counts.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Duration;

use super::super::*;
use super::lone::*;
use crate::demux::Steering;
use crate::dns;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn bound(lone: &mut Lone, local: &str) -> SocketId {
    lone.shard.udp_bind(UdpBind::new(at(local))).expect("the port")
}

/// What the wire has, after no more than this turn.
fn turned(lone: &mut Lone, app: impl FnMut(&mut Shard)) -> (Option<Instant>, Vec<Vec<u8>>) {
    let due = lone.shard.turn(lone.now, &mut lone.nic, app);
    let next = || lone.wire.receive_with(lone.now, |frame, _| frame.to_vec());
    (due, std::iter::from_fn(next).collect())
}

/// A query of IGMPv2 about all groups: Max Resp Time 10 s, with the Router Alert option.
fn igmpv2_query() -> Vec<u8> {
    let mut packet = packet("10.0.0.2", "224.0.0.1", 2, 1, &[0x11, 100, 0xee, 0x9b, 0, 0, 0, 0]);
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet[0] = 0x46;
    packet[2..4].copy_from_slice(&32_u16.to_be_bytes());
    packet[10..12].fill(0);
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
    ether(crate::igmp_mld::group_mac(ip("224.0.0.1")), PEER, 0x0800, &packet)
}

/// A device that takes nothing, or a link that is down, is no reason for packets to ourselves to wait.
#[test]
fn a_full_device_holds_up_nothing_that_stays_here() {
    let mut lone = Lone::quiet(|_| {});
    let socket = bound(&mut lone, "0.0.0.0:7");
    for _ in 0..300 {
        lone.shard.udp_send_to(socket, b"x", at("10.0.0.2:9")).expect("room");
    }
    for _ in 0..2 {
        lone.shard.turn(lone.now, &mut lone.nic, |_| {});
    }
    assert!(!lone.shard.outbox.is_empty(), "the device is full");
    let due = lone.shard.turn(lone.now, &mut lone.nic, |shard| {
        shard.udp_send_to(socket, b"x", at("127.0.0.1:7")).expect("room");
    });
    assert_eq!(due, Some(lone.now));
}

/// What one shard asks is not lost because another one has told it something meanwhile.
#[test]
fn a_question_that_waits_for_room_outlives_mail() {
    let mut lone = Lone::quiet(|config| {
        config.outbox_frames_max = 1;
        config.steering = Steering { seed: 0, shards: 2 };
    });
    let socket = bound(&mut lone, "0.0.0.0:7");
    lone.shard.udp_send_to(socket, b"x", at("10.0.0.2:9")).expect("room");
    lone.shard.udp_send_to(socket, b"x", at("10.0.0.50:9")).expect("it waits");
    let (due, frames) = turned(&mut lone, |_| {});
    assert_eq!((due, destinations(&frames)), (Some(lone.now), vec![(ip("10.0.0.2"), 17)]));
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &PEER.0, &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
    let frame = ether(OURS, PEER, 0x0806, &body);
    lone.shard.push_command(Command::Mail(Mail::Control(frame))).expect("room");
    let frames = turned(&mut lone, |_| {}).1;
    assert_eq!(frames.len(), 1, "the request for 10.0.0.50");
    assert!(frames[0].ends_with(&[10, 0, 0, 50]), "{frames:02x?}");
}

/// Mail that finds no room is counted, whatever it is about.
#[test]
fn queries_about_groups_without_room_are_counted() {
    let mut lone = Lone::quiet(|config| {
        config.mail_len_max = 0;
        config.steering = Steering { seed: 0, shards: 3 };
    });
    lone.put(&igmpv2_query());
    assert_eq!(lone.drops(DropReason::MailboxFull), 2);
}

/// Answers that are there at once would otherwise wait for the next frame.
#[test]
fn an_answer_made_by_the_application_is_a_reason_to_come_again() {
    let mut lone = Lone::quiet(|_| {});
    let (due, _) = turned(&mut lone, |shard| {
        shard.resolve("localhost", dns::Kind::A).expect("a name");
    });
    assert_eq!(due, Some(lone.now));
    let (due, _) = turned(&mut lone, |shard| while shard.next_answer().is_some() {});
    assert_ne!(due, Some(lone.now), "it was fetched");
    // An application that does not look is not asked for ever.
    turned(&mut lone, |shard| {
        shard.resolve("localhost", dns::Kind::A).expect("a name");
    });
    for _ in 0..2 {
        lone.now += Duration::from_millis(1);
        let (due, _) = turned(&mut lone, |_| {});
        assert_ne!(due, Some(lone.now));
    }
}

/// That a group was left is told in the turn in which it was, also to routers that speak IGMPv2.
#[test]
fn a_group_is_left_at_once() {
    for closes in [false, true] {
        let mut lone = Lone::quiet(|_| {});
        lone.put(&igmpv2_query());
        lone.advance(Duration::from_secs(20));
        let socket = bound(&mut lone, "0.0.0.0:5000");
        lone.shard.udp_join(socket, ip("239.1.2.3")).expect("joined");
        lone.advance(Duration::from_secs(30));
        let (_, frames) = turned(&mut lone, |shard| match closes {
            true => shard.close(socket),
            false => shard.udp_leave(socket, ip("239.1.2.3")).expect("it is in it"),
        });
        assert_eq!(destinations(&frames), [(ip("224.0.0.2"), 2)], "{closes}");
    }
}

/// Everybody knows the ports of DHCP: an error about them says nothing of paths (RFC 5927 section 7).
#[test]
fn the_ports_of_dhcp_are_no_way_to_lower_an_mtu() {
    for (src, dst, port, too_big) in [
        ("10.0.0.1", "192.0.2.1", 68, [3, 4, 0, 0, 0, 0, 2, 88]),
        ("fd00::1", "2001:db8::1", 546, [2, 0, 0, 0, 0, 0, 5, 0]),
    ] {
        let mut lone = Lone::quiet(|config| {
            config.dhcp = Some(crate::dhcp::v4::Config::default());
            config.dhcp6 = Some(crate::dhcp::v6::Config::default());
        });
        let quoted = udp((src, port), (dst, 443), b"x");
        let peer = if src.contains(':') { "fd00::2" } else { "10.0.0.2" };
        lone.put(&framed(&icmp(peer, src, 64, &[&too_big[..], &quoted].concat())));
        assert_eq!((lone.shard.path_mtu.len(), lone.drops(DropReason::IcmpSpoofed)), (0, 1), "{src}");
    }
}

/// RFC 6980 section 5: wherever the fragment header is.
#[test]
fn neighbour_discovery_behind_options_and_a_fragment_header_is_ignored() {
    let IpAddr::V6(target) = ip("fd00::1") else { panic!("IPv6") };
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    let whole = icmp("fd00::9", "fd00::1", 255, &message);
    let (header, payload) = whole.split_at(40);
    for (fragment, answers) in [(&[][..], 1), (&[58, 0, 0, 0, 0, 0, 0, 9][..], 0)] {
        let mut lone = Lone::quiet(|_| {});
        // Destination options: a PadN of six bytes.
        let next = if fragment.is_empty() { 58 } else { 44 };
        let options = [next, 0, 1, 4, 0, 0, 0, 0];
        let mut packet = [header, &options, fragment, payload].concat();
        packet[6] = 60;
        let len = packet.len() as u16 - 40;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        assert_eq!(lone.put(&framed(&packet)).len(), answers);
    }
}

/// A person's mistake is not an address.
#[test]
fn an_address_that_no_host_can_have_is_not_taken() {
    for cidr in ["224.0.0.5/24", "0.0.0.0/0", "127.0.0.1/8", "ff02::5/64", "10.0.0.255/24"] {
        let mut lone = Lone::quiet(|_| {});
        let (before, routes) = (lone.shard.addresses().count(), lone.shard.routes.len());
        let Ok(cidr) = crate::config::parse_cidr(cidr) else { panic!("{cidr} is none") };
        lone.shard.push_command(Command::AddAddress(cidr)).expect("room");
        lone.settle();
        assert_eq!((lone.shard.addresses().count(), lone.shard.routes.len()), (before, routes), "{cidr}");
    }
}

/// The prefix of a lease is one route, with its MTU, and none if it is one address.
#[test]
fn the_prefix_of_a_lease_is_one_route() {
    for (address, expected) in [("192.0.2.9/24", vec![Some(1400)]), ("192.0.2.9/32", vec![])] {
        let mut lone = Lone::quiet(|_| {});
        lone.shard.apply_lease(&super::observe::lease(address));
        let leads_there = |route: &&crate::ip::route::Route| {
            route.gateway.is_none() && route.prefix.contains_addr(&ip("192.0.2.9").into())
        };
        let mtus: Vec<_> = lone.shard.routes.iter().filter(leads_there).map(|route| route.mtu).collect();
        assert_eq!(mtus, expected, "{address}");
    }
}

/// A source for which there is no room does not take the others with it, and a source can be blocked.
#[test]
fn a_change_of_a_group_that_fails_changes_nothing() {
    let mut lone = Lone::quiet(|config| config.membership.sources_max = 1);
    let (group, sources) = (ip("232.1.2.3"), [ip("10.0.0.2"), ip("10.0.0.3")]);
    let socket = bound(&mut lone, "0.0.0.0:5000");
    lone.shard.udp_join_source(socket, group, sources[0]).expect("room");
    assert!(matches!(lone.shard.udp_join_source(socket, group, sources[1]), Err(GroupError::Join(_))));
    let to_group = |payload: &[u8]| {
        let frame = udp(("10.0.0.2", 9), ("232.1.2.3", 5000), payload);
        ether(crate::igmp_mld::group_mac(group), PEER, 0x0800, &frame)
    };
    lone.put(&to_group(b"first"));
    assert_eq!(lone.shard.udp_recv_with(socket, |_, payload| payload.to_vec()), Some(b"first".to_vec()));
    lone.shard.udp_leave(socket, group).expect("it is in it");
    assert!(!lone.shard.membership.is_member(group));
    lone.shard.udp_join(socket, group).expect("room");
    lone.shard.udp_block_source(socket, group, sources[0]).expect("room");
    lone.put(&to_group(b"second"));
    assert_eq!(lone.shard.udp_recv_with(socket, |_, payload| payload.to_vec()), None);
    lone.shard.udp_unblock_source(socket, group, sources[0]).expect("it is blocked");
    lone.put(&to_group(b"third"));
    assert_eq!(lone.shard.udp_recv_with(socket, |_, payload| payload.to_vec()), Some(b"third".to_vec()));
}

/// Who answers does not know which shard has asked: the answer is for all of them.
#[test]
fn an_answer_to_another_shard_is_mailed() {
    let IpAddr::V6(target) = ip("fd00::60") else { panic!("IPv6") };
    let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &PEER.0, &[10, 0, 0, 60], &OURS.0, &[10, 0, 0, 1]].concat();
    let reply = ether(OURS, PEER, 0x0806, &body);
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets(), &[2, 1], &PEER.0].concat();
    let advertisement = framed(&icmp("fd00::60", "fd00::1", 255, &message));
    for (frame, to, any) in [(reply, "10.0.0.60:9", "0.0.0.0:7"), (advertisement, "[fd00::60]:9", "[::]:7")] {
        let steering = Steering { seed: 0, shards: 2 };
        let mut hears = Lone::quiet(|config| config.steering = steering);
        let mut asks = Lone::quiet(|config| (config.steering, config.shard) = (steering, 1));
        let socket = bound(&mut asks, any);
        asks.shard.udp_send_to(socket, b"x", at(to)).expect("it waits");
        assert_eq!(asks.settle().len(), 1, "the question");
        assert_eq!(hears.put(&frame), Vec::<Vec<u8>>::new());
        let (number, mail) = hears.shard.next_mail().expect("mail");
        assert_eq!(number, 1);
        asks.shard.push_command(Command::Mail(mail)).expect("room");
        assert_eq!(destinations(&asks.settle()), [(at(to).ip(), 17)], "what waited");
        // What nobody can have asked for is not mailed.
        let mut nonsense = frame.clone();
        nonsense.truncate(30);
        hears.put(&nonsense);
        assert_eq!(hears.shard.next_mail(), None);
    }
}

/// Each shard probes the addresses, and one of them hears that somebody else has them.
#[test]
fn a_conflict_is_one_of_all_shards() {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &PEER.0, &[10, 0, 0, 1], &OURS.0, &[0; 4]].concat();
    let reply = ether(OURS, PEER, 0x0806, &body);
    let shard = |number| {
        Lone::with(|config| {
            config.steering = Steering { seed: 0, shards: 2 };
            config.shard = number;
            config.neighbor.probes = crate::neighbor::AddressProbes::Quick;
        })
    };
    let (mut hears, mut other) = (shard(0), shard(1));
    hears.put(&reply);
    let mail = std::iter::from_fn(|| hears.shard.next_mail()).last().expect("mail").1;
    other.shard.push_command(Command::Mail(mail)).expect("room");
    for mut lone in [hears, other] {
        lone.advance(Duration::from_secs(5));
        assert!(!lone.shard.is_local(ip("10.0.0.1")), "shard {}", lone.shard.config.shard);
    }
}

/// DHCP is a matter of the first shard: what comes for it elsewhere is handed on, with a checksum that a device had left out,
/// and what it has learned comes to all.
#[test]
fn dhcp_is_a_matter_of_the_first_shard() {
    let with_dhcp = |number| {
        Lone::quiet(|config| {
            config.addresses.clear();
            config.dhcp = Some(crate::dhcp::v4::Config::default());
            config.dhcp6 = Some(crate::dhcp::v6::Config::default());
            (config.steering, config.shard) = (Steering { seed: 0, shards: 3 }, number);
        })
    };
    let (mut first, mut other) = (with_dhcp(0), with_dhcp(1));
    assert!(first.shard.dhcp.is_some() && other.shard.dhcp.is_none() && other.shard.dhcp6.is_none());
    assert!(other.shard.next_mail().is_none());
    let offer = udp(("10.0.0.2", 67), ("255.255.255.255", 68), b"an offer");
    let reply = udp(("fe80::2", 547), ("fe80::ff:fe00:1", 546), b"a reply");
    let early = udp(("10.0.0.2", 67), ("10.0.0.77", 68), b"to an address that is not ours yet");
    for (packet, ethertype, dst) in
        [(&offer, 0x0800, EthernetAddress([0xff; 6])), (&early, 0x0800, OURS), (&reply, 0x86dd, OURS)]
    {
        // As from a host beside us, which leaves the checksum to its device; and short frames are padded.
        let mut frame = ether(dst, PEER, ethertype, packet);
        let start = if ethertype == 0x0800 { 34 } else { 54 };
        let udp_len = u32::from(u16::from_be_bytes([frame[start + 4], frame[start + 5]]));
        let of = |ip: &[u8]| {
            ip.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>()
        };
        let addresses = if ethertype == 0x0800 { &frame[26..34] } else { &frame[22..54] };
        let sum = of(addresses) + 17 + udp_len;
        let folded = (sum & 0xffff) + (sum >> 16);
        frame[start + 6..start + 8].copy_from_slice(&(folded as u16).to_be_bytes());
        frame.resize(frame.len().max(60), 0);
        let checksum = wirestack_nic::meta::ChecksumState::Partial { start: start as u16, offset: 6 };
        other.shard.handle_frame(&frame, &FrameMeta { checksum, ..FrameMeta::default() });
        assert_eq!(other.shard.next_mail(), Some((0, Mail::Packet(packet.clone()))));
    }
    let strange = ether(EthernetAddress([2, 0, 0, 0, 0, 9]), PEER, 0x0800, &early);
    other.shard.handle_frame(&strange, &FrameMeta::default());
    assert_eq!(other.shard.next_mail(), None, "for another host");
    // The first one takes them, whatever it makes of them.
    first.shard.push_command(Command::Mail(Mail::Packet(offer))).expect("room");
    first.settle();
    assert_eq!(first.drops(DropReason::UdpNoSocket) + first.drops(DropReason::UdpChecksum), 0);
    first.shard.apply_lease(&lease());
    let learned = Learned::Lease(lease());
    other.shard.push_command(Command::Mail(Mail::Learned(Box::new(learned)))).expect("room");
    other.settle();
    assert!(other.shard.is_local(ip("10.9.0.5")));
    assert_eq!(other.shard.dns_told, first.shard.dns_told);
    let (address, reason) = (lease().address.address(), crate::dhcp::v4::LostReason::Expired);
    let learned = Learned::LeaseLost { address, reason };
    other.shard.push_command(Command::Mail(Mail::Learned(Box::new(learned)))).expect("room");
    other.settle();
    assert!(!other.shard.is_local(ip("10.9.0.5")));
    // Giving it back is told to both of the others.
    first.shard.mail.tell_others(&Learned::LeaseLost { address, reason });
    assert_eq!(
        [first.shard.next_mail(), first.shard.next_mail()].map(|mail| mail.map(|(to, _)| to)),
        [Some(1), Some(2)]
    );
}

fn lease() -> crate::dhcp::v4::Lease {
    crate::dhcp::v4::Lease {
        address: "10.9.0.5/24".parse().expect("an address"),
        broadcast: None,
        routers: vec!["10.9.0.1".parse().expect("an address")],
        dns: vec!["10.9.0.1".parse().expect("an address")],
        domain: None,
        search: Vec::new(),
        mtu: None,
        server: "10.9.0.1".parse().expect("an address"),
        routes: Vec::new(),
        obtained: Instant::ZERO,
        t1: None,
        t2: None,
        expires: None,
    }
}
