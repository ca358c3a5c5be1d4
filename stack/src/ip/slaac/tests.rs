//! Advertisements written byte by byte, and what becomes of them in virtual time.

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, NdiscRepr};

use super::super::stable_address::Secret;
use super::*;

const MAC: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0x01]);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xaa);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbb);
const START: Instant = Instant::from_micros_const(1_000_000_000);
const FOREVER: u32 = u32::MAX;

fn config() -> SlaacConfig {
    SlaacConfig { interface: "eth0".into(), ..SlaacConfig::new(InterfaceIdentifier::Eui64) }
}

fn stable() -> SlaacConfig {
    let identifier = InterfaceIdentifier::Stable { secret: Secret([9; 16]) };
    SlaacConfig { identifier, ..config() }
}

/// A node whose first event, its link-local address, is taken.
fn node(config: SlaacConfig) -> Slaac {
    let mut slaac = Slaac::new(config, MAC, Random::new(3), START);
    assert!(matches!(slaac.poll_event(), Some(SlaacEvent::AddAddress { valid_until: None, .. })));
    slaac
}

/// Type 134, code 0, no checksum; hop limit 64; flags; lifetime; times 0; options.
fn advertisement(flags: u8, lifetime_secs: u16, options: &[Vec<u8>]) -> Vec<u8> {
    let [high, low] = lifetime_secs.to_be_bytes();
    let mut message = vec![134, 0, 0, 0, 64, flags, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    options.iter().for_each(|option| message.extend(option));
    message
}

/// Prefix information: type 3, 4 units; L and A are 0xc0.
fn prefix(text: &str, len: u8, flags: u8, valid: u32, preferred: u32) -> Vec<u8> {
    let mut option = vec![3, 4, len, flags];
    option.extend(valid.to_be_bytes());
    option.extend(preferred.to_be_bytes());
    option.extend([0; 4]);
    option.extend(text.parse::<Ipv6Addr>().unwrap().octets());
    option
}

fn route(text: &str, len: u8, flags: u8, lifetime: u32) -> Vec<u8> {
    let mut option = vec![24, 3, len, flags];
    option.extend(lifetime.to_be_bytes());
    option.extend(text.parse::<Ipv6Addr>().unwrap().octets());
    option
}

fn rdnss(lifetime: u32, servers: &[&str]) -> Vec<u8> {
    let mut option = vec![25, 1 + 2 * servers.len() as u8, 0, 0];
    option.extend(lifetime.to_be_bytes());
    servers.iter().for_each(|server| option.extend(server.parse::<Ipv6Addr>().unwrap().octets()));
    option
}

fn dnssl(lifetime: u32, names: &[u8]) -> Vec<u8> {
    let mut option = vec![31, (1 + names.len().div_ceil(8)) as u8, 0, 0];
    option.extend(lifetime.to_be_bytes());
    option.extend(names);
    option.resize(option.len().next_multiple_of(8), 0);
    option
}

fn events(slaac: &mut Slaac) -> Vec<String> {
    let at = |at: Option<Instant>| at.map_or("ever".into(), |at| (at - START).secs().to_string());
    std::iter::from_fn(|| slaac.poll_event())
        .map(|event| match event {
            SlaacEvent::AddAddress { cidr, preferred_until, valid_until } => {
                format!("add {cidr} {} {}", at(preferred_until), at(valid_until))
            }
            SlaacEvent::UpdateAddress { cidr, preferred_until, valid_until } => {
                format!("update {cidr} {} {}", at(preferred_until), at(valid_until))
            }
            SlaacEvent::RemoveAddress(address) => format!("remove {address}"),
            SlaacEvent::AddRoute { prefix, gateway: Some(gateway), metric, expires } => {
                format!("route {prefix} via {gateway} metric {metric} {}", at(expires))
            }
            SlaacEvent::AddRoute { prefix, expires, .. } => format!("on-link {prefix} {}", at(expires)),
            SlaacEvent::RemoveRoute { prefix, gateway } => {
                format!("no route {prefix}{}", gateway.map(|ip| format!(" via {ip}")).unwrap_or_default())
            }
            SlaacEvent::Dns { servers, search } => format!("dns {servers:?} {search:?}"),
            SlaacEvent::RouterMac { router, mac } => format!("{router} is {mac}"),
            other => format!("{other:?}"),
        })
        .collect()
}

/// What an advertisement of `ROUTER` at the start brings, beside hop limit and flags.
fn brings(lifetime_secs: u16, options: &[Vec<u8>]) -> Vec<String> {
    let mut slaac = node(config());
    let message = advertisement(0, lifetime_secs, options);
    slaac.handle_advertisement(START, ROUTER, 255, &message).unwrap();
    let all = events(&mut slaac);
    assert_eq!(all[..2], ["HopLimit(64)", "Managed { addresses: false, other: false }"]);
    all[2..].to_vec()
}

fn receive(slaac: &mut Slaac, secs: i64, message: &[u8]) -> Vec<String> {
    let now = START + Duration::from_secs(secs as u64);
    slaac.handle_timeout(now);
    slaac.handle_advertisement(now, ROUTER, 255, message).unwrap();
    events(slaac)
}

#[test]
fn what_each_part_of_an_advertisement_brings() {
    let ours = "2001:db8::ff:fe00:1/64";
    let none = Vec::<String>::new();
    for (name, options, expected) in [
        ("L", prefix("2001:db8::", 64, 0x80, 600, 300), vec!["on-link 2001:db8::/64 600".to_string()]),
        ("A", prefix("2001:db8::", 64, 0x40, 600, 300), vec![format!("add {ours} 300 600")]),
        (
            "for ever",
            prefix("2001:db8::9", 64, 0xc0, FOREVER, FOREVER),
            vec!["on-link 2001:db8::/64 ever".into(), format!("add {ours} ever ever")],
        ),
        ("no flag", prefix("2001:db8::", 64, 0, 600, 300), none.clone()),
        ("link-local", prefix("fe80::", 64, 0xc0, 600, 300), none.clone()),
        ("a group", prefix("ff02::", 64, 0xc0, 600, 300), none.clone()),
        ("no 64 bits", prefix("2001:db8::", 63, 0x40, 600, 300), none.clone()),
        ("too many bits", prefix("2001:db8::", 129, 0xc0, 600, 300), none.clone()),
        (
            "one host",
            route("2001:db8::7", 128, 0, 600),
            vec!["route 2001:db8::7/128 via fe80::aa metric 1024 600".into()],
        ),
        ("no hardware address", vec![1, 1, 0, 0, 0, 0, 0, 0], none.clone()),
        ("no server", rdnss(600, &["::1", "::", "ff02::1"]), none.clone()),
        (
            "a name of 255",
            dnssl(600, &[[&[63][..], &[b'a'; 63]].concat().repeat(4), vec![0]].concat()),
            none.clone(),
        ),
        ("preferred longer than valid", prefix("2001:db8::", 64, 0x40, 300, 600), none.clone()),
        ("over already", prefix("2001:db8::", 64, 0xc0, 0, 0), none.clone()),
        ("MTU", vec![5, 1, 0, 0, 0, 0, 0x05, 0x00], vec!["Mtu(1280)".into()]),
        ("MTU below 1280", vec![5, 1, 0, 0, 0, 0, 0x04, 0xff], none.clone()),
        ("MTU beyond the link's", vec![5, 1, 0, 0, 0, 0, 0x05, 0xdd], none.clone()),
        ("MTU of 32 bits", vec![5, 1, 0, 0, 0, 1, 0x05, 0x00], none.clone()),
        ("MAC", vec![1, 1, 2, 0, 0, 0, 0, 9], vec!["fe80::aa is 02-00-00-00-00-09".into()]),
        ("MAC of a group", vec![1, 1, 3, 0, 0, 0, 0, 9], none.clone()),
        (
            "route",
            route("2001:db8:1::", 48, 0x08, 60),
            vec!["route 2001:db8:1::/48 via fe80::aa metric 512 60".into()],
        ),
        ("route of a reserved preference", route("2001:db8:1::", 48, 0x10, 60), none.clone()),
        (
            "default route of low preference",
            vec![24, 1, 0, 0x18, 0, 0, 0, 60],
            vec!["route ::/0 via fe80::aa metric 2048 60".into()],
        ),
        ("route without its prefix", vec![24, 1, 48, 0, 0, 0, 0, 60], none.clone()),
        (
            "RDNSS",
            rdnss(60, &["2001:db8::53", "fe80::53", "ff02::53", "::"]),
            vec!["dns [2001:db8::53, fe80::53] []".into()],
        ),
        ("RDNSS of half an address", vec![25, 2, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 1], none.clone()),
        (
            "DNSSL",
            dnssl(60, b"\x03Lan\x00\x07example\x03org\x00"),
            vec!["dns [] [\"lan\", \"example.org\"]".into()],
        ),
        ("DNSSL that ends in a label", dnssl(60, b"\x09lan"), none.clone()),
        ("DNSSL with a strange label", dnssl(60, b"\x03a.b\x00"), none.clone()),
        ("DNSSL with a pointer", dnssl(60, b"\xc0\x00"), none.clone()),
        ("unknown", vec![200, 1, 0, 0, 0, 0, 0, 0], none.clone()),
    ] {
        assert_eq!(brings(0, &[options]), expected, "{name}");
    }
    assert_eq!(brings(1800, &[]), ["route ::/0 via fe80::aa metric 1024 1800"]);
}

#[test]
fn the_header_is_told_when_it_changes() {
    let mut slaac = node(config());
    // Hop limit 64; M and low preference; reachable 30 s, retransmission 1 s.
    let mut message = advertisement(0x80 | 0x18, 60, &[]);
    message[8..16].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x03, 0xe8]);
    let expected = [
        "HopLimit(64)",
        "Managed { addresses: true, other: false }",
        "ReachableTime(Duration { micros: 30000000 })",
        "RetransTimer(Duration { micros: 1000000 })",
        "route ::/0 via fe80::aa metric 2048 60",
    ];
    let first = receive(&mut slaac, 0, &message);
    assert_eq!(first.len(), 5);
    assert_eq!((&first[..2], &first[4][..]), (&expected.map(String::from)[..2], expected[4]));
    assert!(first[2].starts_with("ReachableTime") && first[3].starts_with("RetransTimer"), "{first:?}");
    assert_eq!(receive(&mut slaac, 1, &message), ["route ::/0 via fe80::aa metric 2048 61"]);
    // A hop limit that ends at the next router, absurd times: not believed. O instead of M.
    message[4] = 1;
    message[5] = 0x40;
    message[8..16].fill(0xff);
    let expected = ["Managed { addresses: false, other: true }", "route ::/0 via fe80::aa metric 1024 62"];
    assert_eq!(receive(&mut slaac, 2, &message), expected);
}

#[test]
fn the_rule_of_two_hours() {
    // (left in seconds, advertised valid lifetime, what is left then)
    for (left, valid, expected) in [
        (10_000, 20_000, 20_000),
        (10_000, 8_000, 8_000),
        (10_000, 60, 7_200),
        (10_000, 0, 7_200),
        (7_000, 7_100, 7_100),
        (7_000, 60, 7_000),
        (7_200, 7_199, 7_200),
        (100, 0, 100),
        (100, 101, 101),
        (100, 7_201, 7_201),
    ] {
        let mut slaac = node(config());
        receive(&mut slaac, 0, &advertisement(0, 0, &[prefix("2001:db8::", 64, 0x40, left, left)]));
        let update =
            receive(&mut slaac, 0, &advertisement(0, 0, &[prefix("2001:db8::", 64, 0x40, valid, 0)]));
        assert_eq!(update, [format!("update 2001:db8::ff:fe00:1/64 0 {expected}")], "{left} {valid}");
    }
    let mut slaac = node(config());
    receive(&mut slaac, 0, &advertisement(0, 0, &[prefix("2001:db8::", 64, 0x40, FOREVER, FOREVER)]));
    let update = receive(&mut slaac, 0, &advertisement(0, 0, &[prefix("2001:db8::", 64, 0x40, 60, 60)]));
    assert_eq!(update, ["update 2001:db8::ff:fe00:1/64 60 7200"]);
}

#[test]
fn messages_that_are_to_be_discarded() {
    let mut slaac = node(config());
    let good = advertisement(0, 60, &[prefix("2001:db8::", 64, 0xc0, 60, 60)]);
    let changed = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        message
    };
    let mut check = |name: &str, src: &str, hop_limit, message: &[u8]| {
        let result = slaac.handle_advertisement(START, src.parse().unwrap(), hop_limit, message);
        assert_eq!(result, Err(DropReason::RouterAdvertisementMalformed), "{name}");
        assert_eq!(events(&mut slaac), [""; 0], "{name}");
    };
    check("source", "2001:db8::1", 255, &good);
    check("no source", "::", 255, &good);
    check("hop limit", "fe80::1", 254, &good);
    check("code", "fe80::1", 255, &changed(1, 1));
    check("type", "fe80::1", 255, &changed(0, 133));
    check("15 octets", "fe80::1", 255, &good[..15]);
    check("an option of length 0", "fe80::1", 255, &changed(17, 0));
    check("an option that is too long", "fe80::1", 255, &changed(17, 5));
    check("half an option", "fe80::1", 255, &good[..17]);
}

#[test]
fn things_end() {
    let mut slaac = node(config());
    let options = [
        prefix("2001:db8::", 64, 0xc0, 100, 50),
        rdnss(70, &["2001:db8::53", "2001:db8::54"]),
        dnssl(80, b"\x03lan\x00"),
    ];
    receive(&mut slaac, 0, &advertisement(0, 60, &options));
    let mut ended = Vec::new();
    let mut run = |slaac: &mut Slaac, until: u64| {
        while let Some(at) = slaac.next_deadline().filter(|&at| at <= START + Duration::from_secs(until)) {
            slaac.handle_timeout(at);
            slaac.poll_output();
            ended.extend(events(slaac).into_iter().map(|event| format!("{}: {event}", (at - START).secs())));
        }
    };
    run(&mut slaac, 65);
    // The other server is renewed by another router, the first is taken back.
    let renewed = advertisement(0, 0, &[rdnss(100, &["2001:db8::54"]), rdnss(0, &["2001:db8::53"])]);
    slaac.handle_advertisement(START + Duration::from_secs(65), OTHER, 255, &renewed).unwrap();
    assert_eq!(events(&mut slaac), ["dns [2001:db8::54] [\"lan\"]"]);
    run(&mut slaac, 200);
    let expected = [
        "60: no route ::/0 via fe80::aa",
        "80: dns [2001:db8::54] []",
        "100: remove 2001:db8::ff:fe00:1",
        "100: no route 2001:db8::/64",
        "165: dns [] []",
    ];
    assert_eq!(ended, expected);
    assert_eq!((slaac.snapshot().count(), slaac.routes().count()), (1, 0), "the link-local one stays");
}

#[test]
fn routers_come_and_go() {
    let mut slaac = node(SlaacConfig { routers_max: 2, ..config() });
    let mut from = |last: u16, lifetime_secs| {
        let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
        let result = slaac.handle_advertisement(START, router, 255, &advertisement(0, lifetime_secs, &[]));
        (result, events(&mut slaac).pop())
    };
    let no_room = Err(DropReason::RouterAdvertisementNoRoom);
    assert_eq!(from(1, 60).1.unwrap(), "route ::/0 via fe80::1 metric 1024 60");
    assert_eq!(from(2, 60).1.unwrap(), "route ::/0 via fe80::2 metric 1024 60");
    assert_eq!(from(3, 60), (no_room, None));
    assert_eq!(from(3, 0), (Ok(()), None), "it was no router, and is none");
    assert_eq!(from(1, 0).1.unwrap(), "no route ::/0 via fe80::1");
    assert_eq!(from(3, 60).1.unwrap(), "route ::/0 via fe80::3 metric 1024 60");
    assert_eq!(from(2, 0).1.unwrap(), "no route ::/0 via fe80::2");
    assert_eq!(from(3, 0).1.unwrap(), "no route ::/0 via fe80::3");
    let solicits_until = START + SOLICITATION_DELAY_MAX;
    assert!(slaac.next_deadline().is_some_and(|at| at <= solicits_until), "the last one is missed");
}

#[test]
fn routers_are_asked_less_and_less_often() {
    let mut slaac = node(config());
    let mut sent = Vec::new();
    let mut now = START;
    while let Some(at) = slaac.next_deadline().filter(|_| sent.len() < 14) {
        now = at;
        slaac.handle_timeout(now);
        assert!(slaac.poll_output().is_some() && slaac.poll_output().is_none());
        sent.push(now);
    }
    assert!(sent[0] - START <= SOLICITATION_DELAY_MAX);
    let waits: Vec<_> = sent.windows(2).map(|pair| (pair[1] - pair[0]).total_millis()).collect();
    assert!((3600..=4400).contains(&waits[0]), "{waits:?}");
    for pair in waits.windows(2) {
        let ratio = pair[1] as f64 / pair[0] as f64;
        assert!((1.6..2.5).contains(&ratio) || (3_240_000..=3_960_000).contains(&pair[1]), "{waits:?}");
    }
    assert!((3_240_000..=3_960_000).contains(waits.last().unwrap()), "{waits:?}");
    slaac.handle_advertisement(now, ROUTER, 255, &advertisement(0, 60, &[])).unwrap();
    assert_eq!(slaac.next_deadline(), Some(now + Duration::from_secs(60)), "there is a router");
    slaac.link_up(now);
    assert!(slaac.next_deadline().is_some_and(|at| at <= now + SOLICITATION_DELAY_MAX));
}

#[test]
fn solicitations_are_what_smoltcp_reads() {
    let mut slaac = node(config());
    for (confirmed, src, lladdr) in [(false, "::", None), (true, "fe80::ff:fe00:1", Some(MAC))] {
        if confirmed {
            slaac.address_confirmed("fe80::ff:fe00:1".parse().unwrap());
        }
        let at = slaac.next_deadline().unwrap();
        slaac.handle_timeout(at);
        let Outgoing { spec, payload } = slaac.poll_output().unwrap();
        let src: Ipv6Addr = src.parse().unwrap();
        assert_eq!((spec.src, spec.dst, spec.hop_limit), (Some(src.into()), ALL_ROUTERS.into(), Some(255)));
        assert_eq!((spec.protocol, spec.router_alert), (58, false));
        let packet = Icmpv6Packet::new_checked(&payload[..]).unwrap();
        let repr = Icmpv6Repr::parse(&src, &ALL_ROUTERS, &packet, &ChecksumCapabilities::default());
        let expected = NdiscRepr::RouterSolicit { lladdr: lladdr.map(Into::into) };
        assert_eq!(repr, Ok(Icmpv6Repr::Ndisc(expected)));
    }
}

#[test]
fn an_address_that_is_taken_is_followed_by_three_others() {
    let mut slaac = node(stable());
    let message = advertisement(0, 0, &[prefix("2001:db8::", 64, 0x40, FOREVER, FOREVER)]);
    slaac.handle_advertisement(START, ROUTER, 255, &message).unwrap();
    events(&mut slaac);
    let mut tried = Vec::new();
    let mut now = START;
    let current = |slaac: &Slaac| slaac.snapshot().nth(1).and_then(|entry| entry.address);
    while let Some(address) = current(&slaac) {
        assert!(!tried.contains(&address));
        tried.push(address);
        slaac.address_duplicate(now, address);
        assert_eq!(events(&mut slaac), [format!("remove {address}")]);
        let until = now + IDGEN_DELAY;
        while let Some(at) = slaac.next_deadline().filter(|&at| at <= until) {
            slaac.handle_timeout(at);
            slaac.poll_output();
        }
        now = until;
        let added = events(&mut slaac);
        assert_eq!(added.len(), usize::from(tried.len() < 4), "{added:?}");
    }
    assert_eq!(tried.len(), 4);
    // The prefix is known, so the next advertisement does not begin anew.
    slaac.handle_advertisement(now, ROUTER, 255, &message).unwrap();
    assert_eq!(events(&mut slaac), [""; 0]);

    let mut slaac = node(config());
    let link_local = slaac.snapshot().next().unwrap().address.unwrap();
    slaac.address_duplicate(START, link_local);
    slaac.handle_timeout(START + IDGEN_DELAY);
    assert_eq!(events(&mut slaac), [format!("remove {link_local}")], "there is one hardware address");
}

#[test]
fn lists_are_bounded_and_who_does_not_fetch_hears_less() {
    let mut slaac = node(SlaacConfig { addresses_max: 2, servers_max: 2, events_max: 5, ..config() });
    let no_room = Err(DropReason::RouterAdvertisementNoRoom);
    let prefixes: Vec<_> =
        (1..=3).map(|index| prefix(&format!("2001:db8:0:{index}::"), 64, 0x40, 60, 60)).collect();
    let message = advertisement(0, 0, &prefixes);
    assert_eq!(slaac.handle_advertisement(START, ROUTER, 255, &message), no_room);
    assert_eq!(slaac.snapshot().count(), 3);
    events(&mut slaac);
    // What lives longer takes the place of what ends first.
    let servers = [rdnss(60, &["2001:db8::1"]), rdnss(90, &["2001:db8::2"]), rdnss(80, &["2001:db8::3"])];
    assert_eq!(slaac.handle_advertisement(START, ROUTER, 255, &advertisement(0, 0, &servers)), no_room);
    assert_eq!(events(&mut slaac).pop().unwrap(), "dns [2001:db8::2, 2001:db8::3] []");
    let short = advertisement(0, 0, &[rdnss(70, &["2001:db8::4"])]);
    assert_eq!(slaac.handle_advertisement(START, ROUTER, 255, &short), no_room);
    assert_eq!(events(&mut slaac), [""; 0]);
    let many = advertisement(0, 0, &vec![vec![1, 1, 2, 0, 0, 0, 0, 9]; 1000]);
    assert_eq!(slaac.handle_advertisement(START, ROUTER, 255, &many), Ok(()));
    assert_eq!(slaac.events.len(), OPTIONS_MAX);
    assert_eq!(slaac.handle_advertisement(START, ROUTER, 255, &many), no_room);
    assert_eq!(slaac.events.len(), OPTIONS_MAX);
}

proptest! {
    /// Whatever options come in whatever order, the lists keep their limits, events tell what there is, and
    /// all ends but what is for ever.
    #[test]
    fn events_tell_the_state(messages in prop::collection::vec((0..3_u16, 0..200_u16, 0..100_u64,
        prop::collection::vec((0..3_u8, 0..6_u16, 0..300_u32), 0..8)), 1..20)) {
        let limits = SlaacConfig { routers_max: 2, addresses_max: 3, routes_max: 3, servers_max: 2, ..stable() };
        let mut slaac = node(limits);
        let mut now = START;
        let (mut addresses, mut routes) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::new());
        let mut apply = |slaac: &mut Slaac| {
            for event in std::iter::from_fn(|| slaac.poll_event()) {
                match event {
                    SlaacEvent::AddAddress { cidr, .. } => assert!(addresses.insert(cidr.address())),
                    SlaacEvent::UpdateAddress { cidr, .. } => assert!(addresses.contains(&cidr.address())),
                    SlaacEvent::RemoveAddress(address) => assert!(addresses.remove(&address)),
                    SlaacEvent::AddRoute { prefix, gateway, expires, .. } => {
                        routes.insert((prefix, gateway), expires);
                    }
                    SlaacEvent::RemoveRoute { prefix, gateway } => {
                        assert!(routes.remove(&(prefix, gateway)).is_some());
                    }
                    _ => {}
                }
            }
            let of_slaac: std::collections::BTreeMap<_, _> =
                slaac.routes().map(|route| ((route.prefix, route.gateway), route.expires)).collect();
            assert_eq!(routes, of_slaac);
            let known = slaac.snapshot().skip(1).filter_map(|entry| entry.address).collect();
            assert_eq!(addresses, known);
        };
        for (router, lifetime, wait, list) in messages {
            now += Duration::from_secs(wait);
            while let Some(at) = slaac.next_deadline().filter(|&at| at <= now) {
                slaac.handle_timeout(at);
                prop_assert!(slaac.next_deadline() > Some(at) || slaac.next_deadline().is_none());
            }
            let options: Vec<_> = list
                .into_iter()
                .map(|(kind, index, lifetime)| match kind {
                    0 => prefix(&format!("2001:db8:0:{index}::"), 64, 0xc0, lifetime, lifetime),
                    1 => route(&format!("2001:db8:{index}::"), 48, 0, lifetime),
                    _ => rdnss(lifetime, &[&format!("2001:db8::{}", index + 1)]),
                })
                .collect();
            let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1 + router);
            let _ = slaac.handle_advertisement(now, router, 255, &advertisement(0, lifetime, &options));
            apply(&mut slaac);
            prop_assert!(slaac.snapshot().count() <= 4 && slaac.routes().count() <= 5);
            prop_assert!(slaac.servers.len() <= 2);
        }
        now += Duration::from_secs(8000);
        while let Some(at) = slaac.next_deadline().filter(|&at| at <= now) {
            slaac.handle_timeout(at);
        }
        apply(&mut slaac);
        prop_assert_eq!((slaac.snapshot().count(), slaac.routes().count(), slaac.servers.len()), (1, 0, 0));
    }
}

#[test]
fn a_router_ends_the_search_and_its_end_begins_it() {
    let mut slaac = node(config());
    // One is to be sent already when the router speaks.
    let due = slaac.next_deadline().unwrap();
    slaac.handle_timeout(due);
    slaac.handle_advertisement(due, ROUTER, 255, &advertisement(0, 100, &[])).unwrap();
    assert_eq!(slaac.poll_output(), None);
    assert_eq!(slaac.next_deadline(), Some(due + Duration::from_secs(100)), "nothing but its end");
    let end = due + Duration::from_secs(100);
    slaac.handle_timeout(end);
    let again = slaac.next_deadline().unwrap();
    assert!(again <= end + Duration::from_secs(1));
    slaac.handle_timeout(again);
    assert!(slaac.poll_output().is_some());
}

#[test]
fn nothing_is_sent_from_an_address_that_is_taken() {
    let mut slaac = node(config());
    let address = slaac.snapshot().next().unwrap().address.unwrap();
    for is_taken in [false, true] {
        slaac.address_confirmed(address);
        if is_taken {
            slaac.address_duplicate(START, address);
        }
        slaac.link_up(START);
        slaac.handle_timeout(slaac.next_deadline().unwrap());
        let expected = if is_taken { Ipv6Addr::UNSPECIFIED } else { address };
        assert_eq!(slaac.poll_output().unwrap().spec.src, Some(expected.into()));
    }
}

#[test]
fn hosts_of_one_link_do_not_ask_together() {
    let gap = |seed| {
        let mut slaac = Slaac::new(config(), MAC, Random::new(seed), START);
        let first = slaac.next_deadline().unwrap();
        slaac.handle_timeout(first);
        slaac.next_deadline().unwrap() - first
    };
    let gaps: std::collections::BTreeSet<_> = (0..20).map(gap).collect();
    assert!(gaps.len() > 15, "{gaps:?}");
    // RAND is within a tenth (RFC 7559).
    assert!(gaps.iter().all(|gap| (3600..=4400).contains(&gap.total_millis())), "{gaps:?}");
}
