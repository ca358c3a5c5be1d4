//! What a stranger on the link may send: each flood has a counter that names it, memory stays within its bounds,
//! and the host still serves. (The bounds are checked after every turn, by the simulator.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::time::Duration;
use wirestack::observe::DropReason;
use wirestack::random::Random;
use wirestack_tests::sim::packets::{self, BROADCAST, FRAGMENT, ICMPV6, Mac, UDP, V4};
use wirestack_tests::sim::{LinkSpec, NicConfig, NodeId, Sim, Switch};

use crate::support::*;

/// Frames of a flood.
const FLOOD: u32 = 3_000;
const STRANGER: Mac = [2, 0, 0, 0, 6, 66];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OURS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// A host under attack, one who talks to it, and what the attacker saw.
struct Siege {
    sim: Sim,
    victim: NodeId,
    answers: Shared<Answers>,
    stranger: NodeId,
}

/// Sends a flood while a client asks 10 questions, which are answered.
fn siege(name: &str, mut flood: impl FnMut(u32, &mut Random) -> Vec<u8>) -> Siege {
    let mut sim = Sim::new(name, 1);
    let switch = sim.add_switch("switch", Switch::new(false));
    let victim = sim.add_host("victim", host(1), NicConfig::default(), 1);
    let friend = sim.add_host("friend", host(2), NicConfig::default(), 1);
    let stranger = sim.add_puppet("stranger");
    for node in [victim, friend, stranger] {
        sim.connect(node, switch, LinkSpec::default());
    }
    echo_server(&mut sim, victim, 0, 7);
    let answers = client(&mut sim, friend, at("10.0.0.1:7"), 10, 10..3000);
    sim.run_for(Duration::from_millis(5));
    let mut random = sim.random().fork();
    for index in 0..FLOOD {
        sim.send(stranger, flood(index, &mut random));
        sim.run_for(Duration::from_micros(20));
    }
    sim.run_for(Duration::from_millis(10));
    assert!(sim.run_while(Duration::from_secs(30), |_| answers.borrow().answered == 10), "{answers:?}");
    Siege { sim, victim, answers, stranger }
}

impl Siege {
    #[track_caller]
    fn dropped(&self, reason: DropReason) -> u64 {
        let count = self.sim.shard(self.victim).drops().get(reason);
        let told: Vec<_> =
            self.sim.shard(self.victim).drops().named().filter(|(_, count)| *count > 0).collect();
        assert!(count >= u64::from(FLOOD) / 4, "{reason} counts {count} of {FLOOD}: {told:?}");
        count
    }

    /// Frames that came back to the stranger.
    fn answered(&mut self) -> usize {
        assert_eq!(self.answers.borrow().answered, 10);
        let to_it = |frame: &[u8]| frame[..6] == STRANGER;
        self.sim.received(self.stranger).iter().filter(|(_, frame)| to_it(frame)).count()
    }
}

fn to_us(packet: &[u8]) -> Vec<u8> {
    packets::framed(mac(1), STRANGER, packet)
}

fn random_v4(random: &mut Random) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 100 + random.below(100) as u8)
}

fn random_v6(random: &mut Random) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(OURS6) & !0xffff_ffff | u128::from(random.u32()))
}

#[test]
fn fragments_that_never_become_whole() {
    let of_many = siege("fragments_that_never_become_whole", |_, random| {
        let v4 = V4 { id: random.u16(), fragment: 0x2000, ..V4::new(random.u32().into(), OURS, UDP) };
        let v4 = V4 { src: Ipv4Addr::from(u32::from(v4.src) & 0x3fff_ffff | 0x2000_0000), ..v4 };
        to_us(&v4.packet(&[1; 1400]))
    });
    let _ = of_many.dropped(DropReason::FragmentNoRoom);
    let of_one = siege("fragments_that_never_become_whole", |index, _| {
        let body = packets::fragment_v6(UDP, index, 0, true, &[1; 1400]);
        to_us(&packets::ipv6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 66), OURS6, FRAGMENT, 64, &body))
    });
    let _ = of_one.dropped(DropReason::FragmentNoRoom);
}

#[test]
fn fragments_that_overlap() {
    let mut siege = siege("fragments_that_overlap", |index, _| {
        // The second of each pair begins within the first.
        let v4 = V4 {
            id: (index / 2) as u16,
            fragment: 0x2000 | (index as u16 % 2),
            ..V4::new(Ipv4Addr::new(10, 0, 0, 66), OURS, UDP)
        };
        to_us(&v4.packet(&[index as u8; 64]))
    });
    let _ = siege.dropped(DropReason::FragmentOverlap);
    assert_eq!(siege.answered(), 0);
}

#[test]
fn arp_about_everybody() {
    for operation in [1, 2] {
        let siege = siege("arp_about_everybody", |_, random| {
            let sender = (STRANGER, random_v4(random));
            // About somebody else, or about itself (gratuitous).
            let target = if random.below(2) == 0 { sender.1 } else { random_v4(random) };
            packets::ethernet(BROADCAST, STRANGER, 0x0806, &packets::arp(operation, sender, ([0; 6], target)))
        });
        let drops = siege.sim.shard(siege.victim).drops();
        let named = drops.get(DropReason::ArpNotForUs) + drops.get(DropReason::ArpUnsolicited);
        assert!(named >= u64::from(FLOOD) / 2, "{named} of {FLOOD}");
        assert!(siege.sim.shard(siege.victim).occupancy().neighbors < 10, "nobody of them is remembered");
    }
}

/// Requests for us make neighbours of whoever asks; there is an end to them.
#[test]
fn questions_for_us_from_everybody() {
    let siege = siege("questions_for_us_from_everybody", |_, random| {
        let sender = random_v6(random);
        let packet = packets::solicitation(sender, STRANGER, packets::solicited_node(OURS6), OURS6);
        packets::framed(packets::group_mac(packets::solicited_node(OURS6).into()), STRANGER, &packet)
    });
    assert!(siege.sim.shard(siege.victim).occupancy().neighbors <= 16_384);
    let unsolicited = self::siege("questions_for_us_from_everybody", |_, random| {
        let sender = random_v6(random);
        to_us(&packets::advertisement(sender, OURS6, 0x60, sender, STRANGER))
    });
    let _ = unsolicited.dropped(DropReason::NdpUnsolicited);
}

#[test]
fn reports_of_absurd_path_mtus() {
    let siege = siege("reports_of_absurd_path_mtus", |index, _| {
        let mtu = [0, 1, 67, 100_000][index as usize % 4];
        let is_v4 = index % 8 < 4;
        let (us, them): (IpAddr, IpAddr) =
            if is_v4 { (OURS.into(), ip("10.0.0.2")) } else { (OURS6.into(), ip("fd00::2")) };
        let quoted = packets::udp_packet(SocketAddr::new(us, 9), SocketAddr::new(them, 9), &[0; 64]);
        let (kind, code) = if is_v4 { (3, 4) } else { (2, 0) };
        to_us(&packets::icmp_packet(them, us, kind, code, mtu, &quoted))
    });
    let _ = siege.dropped(DropReason::IcmpSpoofed);
    assert_eq!(siege.sim.shard(siege.victim).occupancy().paths, 0);
}

#[test]
fn long_chains_of_headers() {
    let mut siege = siege("long_chains_of_headers", |index, _| {
        // Destination options of padding, up to all that a frame holds; the last one names another.
        let count = 1 + index as usize % 180;
        let mut body = Vec::new();
        for at in 0..count {
            let next = if at + 1 == count && index % 2 == 0 { 59 } else { 60 };
            body.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        to_us(&packets::ipv6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 66), OURS6, 60, 64, &body))
    });
    let _ = siege.dropped(DropReason::IpOptions);
    // Errors have a bound for each destination.
    assert!(siege.answered() <= 20);
}

#[test]
fn redirects() {
    let mut siege = siege("redirects", |index, random| {
        if index % 2 == 0 {
            let quoted = packets::udp_packet(at("10.0.0.1:7"), at("10.0.0.2:9"), &[0; 8]);
            let gateway = u32::from(random_v4(random));
            return to_us(&packets::icmp_packet(ip("10.0.0.2"), OURS.into(), 5, 1, gateway, &quoted));
        }
        let router = "fe80::2".parse().expect("an address");
        let body = [random_v6(random).octets(), OURS6.octets()].concat();
        to_us(&packets::ipv6(router, OURS6, ICMPV6, 255, &packets::icmp_v6(router, OURS6, 137, 0, 0, &body)))
    });
    let count = siege.dropped(DropReason::RedirectIgnored);
    assert_eq!(count, u64::from(FLOOD));
    assert_eq!(siege.answered(), 0);
}

#[test]
fn packets_from_ourselves_and_from_nobody() {
    let from_us = siege("packets_from_ourselves_and_from_nobody", |index, _| match index % 3 {
        0 => to_us(&packets::udp_packet(at("10.0.0.1:9"), at("10.0.0.1:7"), b"me")),
        1 => to_us(&packets::udp_packet(at("[fd00::1]:9"), at("[fd00::1]:7"), b"me")),
        _ => to_us(&packets::udp_packet(at("10.0.0.1:7"), at("10.0.0.1:7"), b"me")),
    });
    assert_eq!(from_us.dropped(DropReason::IpFromOurselves), u64::from(FLOOD));
    let own_mac = siege("packets_from_ourselves_and_from_nobody", |_, _| {
        packets::framed(
            BROADCAST,
            mac(1),
            &packets::udp_packet(at("10.0.0.66:9"), at("255.255.255.255:7"), b"x"),
        )
    });
    // The switch now thinks that we are where the stranger is, until we send again.
    let _ = own_mac.dropped(DropReason::LinkFromOurselves);
    let sources =
        ["127.0.0.1:1", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "10.0.0.255:1", "240.0.0.1:1"];
    let mut martians = siege("packets_from_ourselves_and_from_nobody", |index, _| {
        to_us(&packets::udp_packet(at(sources[index as usize % sources.len()]), at("10.0.0.1:9"), b"x"))
    });
    let _ = martians.dropped(DropReason::IpMartianSource);
    assert_eq!(martians.answered(), 0);
}

#[test]
fn datagrams_to_closed_ports() {
    let mut siege = siege("datagrams_to_closed_ports", |index, _| {
        let port = 1000 + (index % 5000) as u16;
        if index % 2 == 0 {
            to_us(&packets::udp_packet(at("10.0.0.66:9"), SocketAddr::new(OURS.into(), port), b"x"))
        } else {
            to_us(&packets::udp_packet(at("[fd00::66]:9"), SocketAddr::new(OURS6.into(), port), b"x"))
        }
    });
    assert_eq!(siege.dropped(DropReason::UdpNoSocket), u64::from(FLOOD));
    let _ = siege.dropped(DropReason::IcmpRateLimited);
    assert!(siege.sim.shard(siege.victim).counters().icmp_errors_sent <= 100);
    assert!(siege.answered() <= 100);
}

#[test]
fn pings_without_end() {
    let siege = siege("pings_without_end", |index, _| {
        to_us(&packets::echo_request(ip("10.0.0.2"), OURS.into(), 1, index as u16, &[0; 1000]))
    });
    let counters = siege.sim.shard(siege.victim).counters();
    assert!(counters.replied >= u64::from(FLOOD) - 500, "there is no limit but room: {counters:?}");
    let mut to_many = self::siege("pings_without_end", |index, _| {
        let to = if index % 2 == 0 { ip("255.255.255.255") } else { ip("10.0.0.255") };
        packets::framed(BROADCAST, STRANGER, &packets::echo_request(ip("10.0.0.66"), to, 1, 1, b"x"))
    });
    assert_eq!(to_many.dropped(DropReason::IcmpEchoIgnored), u64::from(FLOOD));
    assert_eq!(to_many.answered(), 0);
}

#[test]
fn groups_of_strangers() {
    let mut siege = siege("groups_of_strangers", |_, random| {
        let group = Ipv4Addr::new(239, random.u32() as u8, random.u32() as u8, random.u32() as u8);
        let packet = packets::udp_packet(at("10.0.0.66:9"), SocketAddr::new(group.into(), 7), b"x");
        packets::framed(packets::group_mac(group.into()), STRANGER, &packet)
    });
    assert!(siege.dropped(DropReason::IpNotForUs) >= u64::from(FLOOD));
    assert_eq!(siege.answered(), 0);
}
