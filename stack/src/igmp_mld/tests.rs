//! Messages of routers and of other hosts against what is sent, in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use smoltcp::wire::{IgmpPacket, IgmpRepr, IpAddress, checksum};

use super::*;

/// A node, and everything that was sent, with its time in milliseconds.
struct Node {
    membership: Membership,
    now: Instant,
}

const START: Instant = Instant::from_micros_const(1_000_000_000);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const G: &str = "239.1.2.3";
const G6: &str = "ff05::1:3";

impl Node {
    fn new() -> Self {
        Self::with(MembershipLimits::default(), 1500)
    }

    fn with(limits: MembershipLimits, mtu: u16) -> Self {
        Self { membership: Membership::new(limits, mtu, Random::new(7)), now: START }
    }

    fn join(&mut self, socket: u32, group: &str) {
        self.membership.join(self.now, socket, ip(group)).unwrap();
    }

    fn leave(&mut self, socket: u32, group: &str) {
        assert!(self.membership.leave(self.now, socket, ip(group)));
    }

    fn filter(&mut self, socket: u32, group: &str, mode: FilterMode, sources: &[&str]) {
        let sources: Vec<_> = sources.iter().map(|source| ip(source)).collect();
        self.membership.set_filter(self.now, socket, ip(group), mode, &sources).unwrap();
    }

    fn igmp(&mut self, message: &[u8]) -> Result<(), DropReason> {
        self.membership.handle_igmp(self.now, ROUTER, Ipv4Addr::new(224, 0, 0, 1), 1, true, &summed(message))
    }

    fn mld(&mut self, message: &[u8]) -> Result<(), DropReason> {
        self.membership.handle_mld(self.now, ROUTER6, ALL_NODES, 1, true, message)
    }

    /// Lets time pass, and returns what was sent and when.
    fn run(&mut self, millis: u64) -> Vec<(u64, String)> {
        let begin = self.now;
        let end = begin + Duration::from_millis(millis);
        let mut sent = Vec::new();
        for _ in 0..10_000 {
            while let Some(outgoing) = self.membership.poll_output() {
                sent.push(((self.now - begin).total_millis(), shown(&outgoing)));
            }
            match self.membership.next_deadline().filter(|&deadline| deadline <= end) {
                Some(deadline) => self.now = self.now.max(deadline),
                None => {
                    self.now = end;
                    return sent;
                }
            }
            self.membership.handle_timeout(self.now);
        }
        panic!("it does not come to rest");
    }

    fn texts(&mut self, millis: u64) -> Vec<String> {
        self.run(millis).into_iter().map(|(_, text)| text).collect()
    }

    fn links(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.membership.poll_link())
            .map(|change| match change {
                LinkChange::Join(mac) => format!("+{mac}"),
                LinkChange::Leave(mac) => format!("-{mac}"),
            })
            .collect()
    }

    fn version(&self, is_v4: bool) -> Version {
        self.membership.querier(is_v4).version
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// With the checksum filled in.
fn summed(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if message.len() >= 4 {
        message[2..4].fill(0);
        let sum = !checksum::data(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// A message as text, read here by its own rules: "v3 to-ex 239.1.2.3 {}; …", "v2 239.1.2.3", "leave …".
fn shown(outgoing: &Outgoing) -> String {
    let Outgoing { spec, payload } = outgoing;
    assert_eq!((spec.src, spec.hop_limit), (None, Some(1)));
    let is_v4 = spec.dst.is_ipv4();
    let len = if is_v4 { 4 } else { 16 };
    let address = |at: usize| match is_v4 {
        true => IpAddr::from(<[u8; 4]>::try_from(&payload[at..at + 4]).unwrap()),
        false => IpAddr::from(<[u8; 16]>::try_from(&payload[at..at + 16]).unwrap()),
    };
    if is_v4 {
        assert_eq!((spec.protocol, spec.traffic_class), (2, 0xc0));
        assert_eq!(checksum::data(payload), 0xffff);
    } else {
        assert_eq!((spec.protocol, payload[2], payload[3]), (58, 0, 0));
    }
    assert_eq!(spec.router_alert, payload[0] != 0x12);
    let (name, dst) = match payload[0] {
        0x22 | 143 => {
            assert_eq!(spec.dst, ip(if is_v4 { "224.0.0.22" } else { "ff02::16" }));
            let count = u16::from_be_bytes([payload[6], payload[7]]);
            let mut at = 8;
            let mut records = Vec::new();
            for _ in 0..count {
                let kind = ["is-in", "is-ex", "to-in", "to-ex", "allow", "block"][payload[at] as usize - 1];
                let sources = usize::from(u16::from_be_bytes([payload[at + 2], payload[at + 3]]));
                let list: Vec<_> =
                    (1..=sources).map(|index| address(at + 4 + index * len).to_string()).collect();
                records.push(format!("{kind} {} {{{}}}", address(at + 4), list.join(" ")));
                at += 4 + len * (1 + sources);
            }
            assert_eq!(at, payload.len());
            return format!("{} {}", if is_v4 { "v3" } else { "mld2" }, records.join("; "));
        }
        0x12 => ("v1", None),
        0x16 => ("v2", None),
        0x17 => ("leave", Some("224.0.0.2")),
        131 => ("mld1", None),
        132 => ("done", Some("ff02::2")),
        other => panic!("type {other}"),
    };
    let group = address(if is_v4 { 4 } else { 8 });
    assert_eq!(payload.len(), 4 + len + if is_v4 { 0 } else { 4 });
    assert_eq!(spec.dst, dst.map_or(group, ip));
    format!("{name} {group}")
}

/// A query of IGMPv3: Max Resp Code 100 (10 s), QRV 2, QQIC 125.
fn query_v3(group: &str, sources: &[&str]) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let mut message = vec![0x11, 100, 0, 0];
    message.extend(octets(group));
    message.extend([2, 125, 0, sources.len() as u8]);
    sources.iter().for_each(|source| message.extend(octets(source)));
    message
}

fn query_v2(group: &str) -> Vec<u8> {
    query_v3(group, &[])[..8].to_vec()
}

fn query_mld(group: &str, is_v2: bool) -> Vec<u8> {
    let mut message = vec![130, 0, 0, 0, 0x27, 0x10, 0, 0];
    message.extend(group.parse::<Ipv6Addr>().unwrap().octets());
    if is_v2 {
        message.extend([2, 125, 0, 0]);
    }
    message
}

#[test]
fn a_change_is_told_at_once_and_again_within_a_second() {
    for (group, version) in [(G, "v3"), (G6, "mld2")] {
        let mut node = Node::new();
        node.join(1, group);
        let sent = node.run(10_000);
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert!(sent[0].0 == 0 && sent[1].0 < 1000, "at a random time: {sent:?}");
        assert!(sent.iter().all(|(_, text)| *text == format!("{version} to-ex {group} {{}}")), "{sent:?}");
        node.join(2, group);
        node.leave(1, group);
        assert_eq!(node.texts(10_000), [""; 0], "nothing has changed for routers");
        node.leave(2, group);
        assert_eq!(node.texts(10_000), vec![format!("{version} to-in {group} {{}}"); 2]);
        assert!(!node.membership.is_member(ip(group)));
        assert_eq!(node.membership.next_deadline(), None);
    }
}

#[test]
fn filters_of_sockets_are_merged_and_differences_are_told() {
    use FilterMode::{Exclude, Include};
    let mut node = Node::new();
    node.filter(1, G, Include, &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(node.texts(5000), ["v3 allow 239.1.2.3 {10.0.0.1 10.0.0.2}"; 2]);
    node.filter(2, G, Include, &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(node.texts(5000), ["v3 allow 239.1.2.3 {10.0.0.3}"; 2]);
    node.filter(1, G, Include, &["10.0.0.4"]);
    let both = "v3 allow 239.1.2.3 {10.0.0.4}; block 239.1.2.3 {10.0.0.1}";
    assert_eq!(node.texts(5000), [both; 2]);
    // EXCLUDE of one, minus what others include.
    node.filter(3, G, Exclude, &["10.0.0.3", "10.0.0.9"]);
    assert_eq!(node.texts(5000), ["v3 to-ex 239.1.2.3 {10.0.0.9}"; 2]);
    node.filter(4, G, Exclude, &["10.0.0.9", "10.0.0.8"]);
    assert_eq!(node.texts(5000), [""; 0], "the intersection is the same");
    node.filter(3, G, Exclude, &["10.0.0.8"]);
    let both = "v3 allow 239.1.2.3 {10.0.0.9}; block 239.1.2.3 {10.0.0.8}";
    assert_eq!(node.texts(5000), [both; 2]);
    for (source, accepted) in [("10.0.0.8", false), ("10.0.0.9", true), ("10.0.0.77", true)] {
        assert_eq!(node.membership.accepts(ip(G), ip(source)), accepted, "{source}");
    }
    assert!(!node.membership.accepts_for(1, ip(G), ip("10.0.0.77")));
    assert!(node.membership.accepts_for(4, ip(G), ip("10.0.0.77")));
    node.membership.leave_all(node.now, 3);
    node.membership.leave_all(node.now, 4);
    assert_eq!(node.texts(5000).last().unwrap(), "v3 to-in 239.1.2.3 {10.0.0.2 10.0.0.3 10.0.0.4}");
}

#[test]
fn a_mode_is_told_as_often_as_the_robustness_says_and_then_sources() {
    let mut node = Node::new();
    let mut query = query_v3("0.0.0.0", &[]);
    query[8] = 3;
    node.igmp(&query).unwrap();
    node.join(1, G);
    node.membership.handle_timeout(node.now);
    assert_eq!(shown(&node.membership.poll_output().unwrap()), "v3 to-ex 239.1.2.3 {}");
    node.filter(1, G, FilterMode::Exclude, &["10.0.0.1"]);
    let texts = node.texts(9_000);
    let changes: Vec<_> = texts.iter().filter(|text| !text.contains("is-")).collect();
    let (mode, source) = ("v3 to-ex 239.1.2.3 {10.0.0.1}", "v3 block 239.1.2.3 {10.0.0.1}");
    assert_eq!(changes, [mode, mode, source, source, source]);
}

#[test]
fn queries_are_answered_within_the_time_granted() {
    let mut node = Node::new();
    node.join(1, G);
    node.filter(1, "232.1.1.1", FilterMode::Include, &["10.0.0.1", "10.0.0.2"]);
    node.join(9, "224.0.0.1");
    node.run(5000);
    for (query, expected) in [
        (query_v3("0.0.0.0", &[]), "v3 is-in 232.1.1.1 {10.0.0.1 10.0.0.2}; is-ex 239.1.2.3 {}"),
        (query_v3(G, &[]), "v3 is-ex 239.1.2.3 {}"),
        (query_v3(G, &["10.9.9.9"]), "v3 is-in 239.1.2.3 {10.9.9.9}"),
        (query_v3("232.1.1.1", &["10.0.0.2", "10.0.0.3"]), "v3 is-in 232.1.1.1 {10.0.0.2}"),
        (query_v3("232.1.1.1", &["10.0.0.3"]), ""),
        (query_v3("239.9.9.9", &[]), ""),
        (query_v3("224.0.0.1", &[]), ""),
        (query_v2(G), "v3 is-ex 239.1.2.3 {}"),
    ] {
        node.igmp(&query).unwrap();
        let sent = node.run(20_000);
        let expected: Vec<_> = [expected].into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(sent.iter().map(|(_, text)| text).collect::<Vec<_>>(), expected, "{query:?}");
        assert!(sent.iter().all(|&(at, _)| at <= 10_000), "{sent:?}");
        assert_eq!(node.version(true), Version::Igmpv3, "a query about one group tells no version");
    }
}

#[test]
fn queries_about_one_group_become_one_answer() {
    let mut node = Node::new();
    node.join(1, G);
    node.run(5000);
    node.igmp(&query_v3(G, &["10.0.0.1"])).unwrap();
    node.igmp(&query_v3(G, &["10.0.0.2"])).unwrap();
    assert_eq!(node.texts(20_000), ["v3 is-in 239.1.2.3 {10.0.0.1 10.0.0.2}"]);
    node.igmp(&query_v3(G, &["10.0.0.1"])).unwrap();
    node.igmp(&query_v3(G, &[])).unwrap();
    node.igmp(&query_v3(G, &["10.0.0.2"])).unwrap();
    assert_eq!(node.texts(20_000), ["v3 is-ex 239.1.2.3 {}"]);
    node.igmp(&query_v3("0.0.0.0", &[])).unwrap();
    node.igmp(&query_v3("0.0.0.0", &[])).unwrap();
    assert_eq!(node.texts(20_000), ["v3 is-ex 239.1.2.3 {}"]);
}

#[test]
fn a_router_of_version_2_is_spoken_to_in_its_version_while_it_is_there() {
    let mut node = Node::new();
    node.join(1, G);
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    assert_eq!(node.version(true), Version::Igmpv2);
    assert_eq!(node.version(false), Version::Mldv2);
    assert_eq!(node.texts(10_001), ["v2 239.1.2.3"], "what was pending is forgotten, the query is answered");
    node.join(1, "239.1.1.1");
    let sent = node.run(30_000);
    assert_eq!(sent.iter().map(|(_, text)| text).collect::<Vec<_>>(), ["v2 239.1.1.1"; 2]);
    node.leave(1, "239.1.1.1");
    assert_eq!(node.texts(100), ["leave 239.1.1.1"]);
    // 2 times 125 s and 10 s after its query.
    let until = START + Duration::from_secs(260);
    assert_eq!(node.membership.querier(true).version_until, Some(until));
    assert_eq!(node.membership.next_deadline(), Some(until));
    node.run(260_000);
    assert_eq!(node.version(true), Version::Igmpv3);
    node.leave(1, G);
    assert_eq!(node.texts(2000), ["v3 to-in 239.1.2.3 {}"; 2]);
}

#[test]
fn version_1_comes_before_version_2_and_has_no_leave() {
    let mut node = Node::new();
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    // No Router Alert: version 1 knows none.
    let query = summed(&[0x11, 0, 0, 0, 0, 0, 0, 0]);
    node.membership.handle_igmp(node.now, ROUTER, Ipv4Addr::new(224, 0, 0, 1), 1, false, &query).unwrap();
    assert_eq!(node.version(true), Version::Igmpv1);
    node.join(1, G);
    assert_eq!(node.texts(30_000), ["v1 239.1.2.3"; 2]);
    node.leave(1, G);
    assert_eq!(node.texts(30_000), [""; 0]);
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    node.run(205_000);
    assert_eq!(node.version(true), Version::Igmpv2, "version 1 has ended, version 2 was heard later");
    node.run(60_000);
    assert_eq!(node.version(true), Version::Igmpv3);
}

#[test]
fn another_hosts_report_is_enough() {
    let report = |group: [u8; 4]| summed(&[&[0x16, 0, 0, 0][..], &group].concat());
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let mut node = Node::new();
    node.join(1, G);
    node.run(3000);
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    let message = report(group.octets());
    node.membership.handle_igmp(node.now, Ipv4Addr::new(192, 0, 2, 9), group, 1, true, &message).unwrap();
    assert_eq!(node.texts(20_000), [""; 0]);
    node.leave(1, G);
    assert_eq!(node.texts(20_000), [""; 0], "the other one will say when it leaves");

    // With version 3, everybody speaks for himself.
    let mut node = Node::new();
    node.join(1, G);
    node.membership.handle_igmp(node.now, Ipv4Addr::new(192, 0, 2, 9), group, 1, true, &message).unwrap();
    assert_eq!(node.texts(3000).len(), 2);
}

#[test]
fn mld_version_1_is_spoken_and_left() {
    let mut node = Node::new();
    node.join(1, G6);
    node.join(1, "ff02::1:ff00:1");
    node.join(1, "ff02::1");
    node.join(1, "ff01::5");
    node.run(3000);
    node.mld(&query_mld("::", true)).unwrap();
    let all = "mld2 is-ex ff02::1:ff00:1 {}; is-ex ff05::1:3 {}";
    assert_eq!(node.texts(20_000), [all], "not those that everybody is in, or nobody else can be");
    node.mld(&query_mld("::", false)).unwrap();
    assert_eq!((node.version(false), node.version(true)), (Version::Mldv1, Version::Igmpv3));
    let mut texts = node.texts(10_001);
    texts.sort();
    assert_eq!(texts, ["mld1 ff02::1:ff00:1", "mld1 ff05::1:3"]);
    node.leave(1, G6);
    assert_eq!(node.texts(10), ["done ff05::1:3"]);
    node.run(261_000);
    assert_eq!(node.version(false), Version::Mldv2);
}

#[test]
fn messages_that_are_to_be_ignored() {
    use DropReason::{GroupIgnored, GroupMalformed};
    let mut node = Node::new();
    let mut wrong_sum = summed(&query_v2("0.0.0.0"));
    wrong_sum[3] ^= 1;
    let dst = Ipv4Addr::new(224, 0, 0, 1);
    let now = node.now;
    let mut igmp = |src, dst, ttl, alert, message: &[u8]| {
        node.membership.handle_igmp(now, src, dst, ttl, alert, message)
    };
    let good = summed(&query_v2("0.0.0.0"));
    assert_eq!(igmp(ROUTER, dst, 1, true, &good), Ok(()));
    assert_eq!(igmp(Ipv4Addr::UNSPECIFIED, dst, 1, true, &good), Ok(()), "a switch may ask without address");
    for (name, result) in [
        ("checksum", igmp(ROUTER, dst, 1, true, &wrong_sum)),
        ("TTL", igmp(ROUTER, dst, 2, true, &good)),
        ("no Router Alert", igmp(ROUTER, dst, 1, false, &good)),
        ("to another group", igmp(ROUTER, Ipv4Addr::new(224, 0, 0, 22), 1, true, &good)),
        ("source", igmp(Ipv4Addr::BROADCAST, dst, 1, true, &good)),
        ("10 octets", igmp(ROUTER, dst, 1, true, &summed(&query_v3("0.0.0.0", &[])[..10]))),
        ("7 octets", igmp(ROUTER, dst, 1, true, &good[..7])),
        ("empty", igmp(ROUTER, dst, 1, true, &[])),
        ("no group", igmp(ROUTER, dst, 1, true, &summed(&query_v2("10.0.0.1")))),
        ("sources of all groups", igmp(ROUTER, dst, 1, true, &summed(&query_v3("0.0.0.0", &["10.0.0.1"])))),
        ("a source is missing", {
            let mut query = query_v3(G, &["10.0.0.1"]);
            query[11] = 2;
            igmp(ROUTER, dst, 1, true, &summed(&query))
        }),
        ("a report to others", igmp(ROUTER, dst, 1, true, &summed(&[0x16, 0, 0, 0, 239, 1, 2, 3]))),
        ("a report of no group", igmp(ROUTER, dst, 1, true, &summed(&[0x16, 0, 0, 0, 224 - 1, 1, 2, 3]))),
    ] {
        assert_eq!(result, Err(GroupMalformed), "{name}");
    }
    for kind in [0x17, 0x22, 0x13, 0xff] {
        assert_eq!(igmp(ROUTER, dst, 1, true, &summed(&[kind, 0, 0, 0, 0, 0, 0, 0])), Err(GroupIgnored));
    }
    let mut mld = |src: &str, hop_limit, alert, message: &[u8]| {
        node.membership.handle_mld(now, src.parse().unwrap(), ALL_NODES, hop_limit, alert, message)
    };
    let good = query_mld("::", true);
    assert_eq!(mld("fe80::1", 1, true, &good), Ok(()));
    for (name, result) in [
        ("hop limit", mld("fe80::1", 255, true, &good)),
        ("no Router Alert", mld("fe80::1", 1, false, &good)),
        ("source", mld("2001:db8::1", 1, true, &good)),
        ("no source", mld("::", 1, true, &good)),
        ("23 octets", mld("fe80::1", 1, true, &good[..23])),
        ("26 octets", mld("fe80::1", 1, true, &good[..26])),
        ("no group", mld("fe80::1", 1, true, &query_mld("2001:db8::1", true))),
        ("a report to others", {
            let mut report = query_mld(G6, false);
            report[0] = 131;
            mld("fe80::1", 1, true, &report)
        }),
    ] {
        assert_eq!(result, Err(GroupMalformed), "{name}");
    }
    assert_eq!(mld("fe80::1", 1, true, &[143, 0, 0, 0, 0, 0, 0, 0]), Err(GroupIgnored));
}

#[test]
fn what_a_router_says_of_time_is_used() {
    let mut node = Node::new();
    // Max Resp Code 0x8a: (0x1a << 3) tenths; QRV 7; QQIC 0xff: 0x1f << 10 seconds.
    let query = [0x11, 0x8a, 0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0];
    node.igmp(&query).unwrap();
    let known = node.membership.querier(true);
    assert_eq!(known.robustness, 7);
    assert_eq!(known.query_interval, Duration::from_secs(31_744));
    assert_eq!(known.response_interval, Duration::from_millis(20_800));
    // The bit before QRV is another flag, and a query about one group tells nothing of those about all.
    node.igmp(&[0x11, 1, 0, 0, 239, 1, 2, 3, 0xfb, 0xff, 0, 0]).unwrap();
    let known = node.membership.querier(true);
    assert_eq!((known.robustness, known.response_interval), (3, Duration::from_millis(20_800)));
    // Zeroes are the defaults.
    node.igmp(&[0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let known = node.membership.querier(true);
    assert_eq!((known.robustness, known.query_interval), (2, Duration::from_secs(125)));
    // Maximum Response Code 0x9000 of MLDv2: 0x1000 << 4 ms; as it is in MLDv1.
    let mut query = query_mld("::", true);
    query[4..6].copy_from_slice(&[0x90, 0]);
    node.mld(&query).unwrap();
    assert_eq!(node.membership.querier(false).response_interval, Duration::from_millis(65_536));
    node.mld(&query[..24]).unwrap();
    assert_eq!(node.membership.querier(false).response_interval, Duration::from_millis(0x9000));
}

#[test]
fn hardware_addresses_are_shared_and_counted() {
    let mut node = Node::new();
    assert_eq!(node.links(), ["+01-00-5e-00-00-01", "+33-33-00-00-00-01"]);
    // The upper bit of the second octet and the first octet do not count.
    node.join(1, "239.1.2.3");
    node.join(2, "239.1.2.3");
    node.join(1, "224.129.2.3");
    assert_eq!(node.links(), ["+01-00-5e-01-02-03"]);
    node.leave(1, "239.1.2.3");
    node.leave(2, "239.1.2.3");
    assert_eq!(node.links(), [""; 0]);
    node.leave(1, "224.129.2.3");
    assert_eq!(node.links(), ["-01-00-5e-01-02-03"]);
    node.join(1, "ff02::1:ff12:3456");
    node.leave(1, "ff02::1:ff12:3456");
    node.join(3, "224.0.0.1");
    node.leave(3, "224.0.0.1");
    assert_eq!(node.links(), [""; 0], "nothing to be told");
    assert!(node.membership.is_member(ip("224.0.0.1")) && node.membership.accepts(ip("ff02::1"), ip("::1")));
}

#[test]
fn a_link_that_comes_back_hears_of_all_groups() {
    let mut node = Node::new();
    node.join(1, G);
    node.filter(1, "ff3e::1", FilterMode::Include, &["2001:db8::1"]);
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    node.run(15_000);
    node.mld(&query_mld("ff3e::1", true)).unwrap();
    node.membership.link_up(node.now);
    assert_eq!(node.version(true), Version::Igmpv3);
    let mut texts = node.texts(15_000);
    texts.sort();
    let (v6, v4) = ("mld2 to-in ff3e::1 {2001:db8::1}", "v3 to-ex 239.1.2.3 {}");
    assert_eq!(texts, [v6, v6, v4, v4], "and no answer to who asked before");
}

#[test]
fn reports_fit_into_the_mtu() {
    [576, 580].into_iter().for_each(check_reports_fit);
}

fn check_reports_fit(mtu: u16) {
    let mut node = Node::with(MembershipLimits { sources_max: 200, ..MembershipLimits::default() }, mtu);
    for group in 0..100_u8 {
        node.join(1, &format!("239.0.0.{group}"));
    }
    let sources: Vec<_> = (1..=200_u8).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    node.membership.set_filter(node.now, 1, ip("232.0.0.1"), FilterMode::Include, &sources).unwrap();
    node.membership.set_filter(node.now, 1, ip("239.0.0.0"), FilterMode::Exclude, &sources).unwrap();
    node.run(5000);
    node.igmp(&query_v3("0.0.0.0", &[])).unwrap();
    let until = node.now + Duration::from_secs(10);
    while let Some(deadline) = node.membership.next_deadline().filter(|&deadline| deadline <= until) {
        node.membership.handle_timeout(deadline);
    }
    let mut groups = BTreeMap::<String, usize>::new();
    while let Some(outgoing) = node.membership.poll_output() {
        assert!(outgoing.payload.len() <= usize::from(mtu) - 24);
        let text = shown(&outgoing);
        for record in text.strip_prefix("v3 ").unwrap().split("; ") {
            let (group, list) = record.split_once(" {").unwrap();
            *groups.entry(group.into()).or_default() += list.matches('.').count() / 3;
        }
    }
    assert_eq!(groups.len(), 101);
    assert_eq!(groups["is-in 232.0.0.1"], 200, "a list of INCLUDE is split");
    let cut = (usize::from(mtu) - 24 - 8 - 8) / 4;
    assert_eq!(groups["is-ex 239.0.0.0"], cut, "a list of EXCLUDE is cut");
}

#[test]
fn limits_are_values() {
    let limits = MembershipLimits { groups_max: 2, memberships_max: 3, sources_max: 2, outputs_max: 2 };
    let mut node = Node::with(limits, 1500);
    let now = node.now;
    let mut join = |socket, group: &str| node.membership.join(now, socket, ip(group));
    assert_eq!(join(1, "10.0.0.1"), Err(JoinError::NotMulticast(ip("10.0.0.1"))));
    assert_eq!(join(1, "239.0.0.1"), Ok(()));
    assert_eq!(join(1, "239.0.0.2"), Ok(()));
    assert_eq!(join(1, "239.0.0.2"), Ok(()), "again is no error");
    assert_eq!(join(1, "239.0.0.3"), Err(JoinError::TooManyGroups { max: 2 }));
    assert_eq!(join(2, "239.0.0.2"), Ok(()));
    assert_eq!(join(3, "239.0.0.2"), Err(JoinError::TooManyMemberships { max: 3 }));
    assert!(node.membership.leave(now, 1, ip("239.0.0.1")));
    assert!(!node.membership.leave(now, 1, ip("239.0.0.1")));
    assert_eq!(node.membership.join(now, 1, ip("239.0.0.3")), Ok(()), "a group that was left makes room");
    let mut include = |socket, sources: &[&str]| {
        let sources: Vec<_> = sources.iter().map(|source| ip(source)).collect();
        node.membership.set_filter(now, socket, ip("239.0.0.2"), FilterMode::Include, &sources)
    };
    let three = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    assert_eq!(include(1, &three), Err(JoinError::TooManySources { max: 2 }));
    assert_eq!(include(1, &three[..2]), Ok(()));
    assert_eq!(include(2, &three[2..]), Err(JoinError::TooManySources { max: 2 }), "of both together");
    assert_eq!(include(1, &three[1..]), Ok(()), "instead of those before");
    let error = JoinError::BadSource { group: ip("239.0.0.2"), source_address: ip("::1") };
    assert_eq!(include(2, &["::1"]), Err(error));
    node.join(7, G6);
    for _ in 0..5 {
        node.membership.link_up(node.now);
        node.membership.handle_timeout(node.now);
    }
    assert_eq!((node.membership.outbox.queue.len(), node.membership.outputs_dropped()), (2, 8));
}

#[test]
fn smoltcp_reads_reports_of_version_2() {
    let report = message::older_report(Version::Igmpv2, ip(G));
    let packet = IgmpPacket::new_checked(&report.payload[..]).unwrap();
    let expected = Ipv4Addr::new(239, 1, 2, 3);
    assert!(
        matches!(IgmpRepr::parse(&packet), Ok(IgmpRepr::MembershipReport { group_addr, .. }) if group_addr == expected)
    );
    let packet = message::leave(ip(G)).payload;
    let packet = IgmpPacket::new_checked(&packet[..]).unwrap();
    assert!(
        matches!(IgmpRepr::parse(&packet), Ok(IgmpRepr::LeaveGroup { group_addr }) if group_addr == expected)
    );
    let _ = IpAddress::from(expected);
}

#[derive(Debug, Clone)]
enum Step {
    Filter(u32, u8, bool, Vec<u8>),
    Leave(u32, u8),
    Query(u8, u8, Vec<u8>),
    Report(u8),
    Wait(u64),
    LinkUp,
}

fn step() -> impl Strategy<Value = Step> {
    let list = || prop::collection::vec(0..6_u8, 0..4);
    prop_oneof![
        4 => (0..4_u32, 0..6_u8, any::<bool>(), list())
            .prop_map(|(socket, group, mode, list)| Step::Filter(socket, group, mode, list)),
        2 => (0..4_u32, 0..6_u8).prop_map(|(socket, group)| Step::Leave(socket, group)),
        2 => (1..4_u8, 0..7_u8, list()).prop_map(|(version, group, list)| Step::Query(version, group, list)),
        1 => (0..6_u8).prop_map(Step::Report),
        4 => (0..300_000_u64).prop_map(Step::Wait),
        1 => Just(Step::LinkUp),
    ]
}

/// What a router of IGMPv3 knows from reports: the mode and the sources of each group.
fn apply(router: &mut BTreeMap<IpAddr, Filter>, text: &str) {
    let Some(records) = text.strip_prefix("v3 ") else { return };
    for record in records.split("; ") {
        let (head, list) = record.split_once(" {").unwrap();
        let (kind, group) = head.split_once(' ').unwrap();
        let sources: BTreeSet<_> = list.trim_end_matches('}').split_whitespace().map(ip).collect();
        let known = router.entry(ip(group)).or_insert_with(Filter::none);
        let is_include = known.mode == FilterMode::Include;
        match kind {
            "is-ex" | "to-ex" => *known = Filter { mode: FilterMode::Exclude, sources },
            "to-in" => *known = Filter { mode: FilterMode::Include, sources },
            "allow" if is_include => known.sources.extend(sources),
            "allow" => known.sources.retain(|source| !sources.contains(source)),
            "block" if is_include => known.sources.retain(|source| !sources.contains(source)),
            "block" => known.sources.extend(sources),
            _ => {}
        }
    }
}

proptest! {
    /// Whatever happens, the limits hold, and who hears all reports knows what sockets want.
    #[test]
    fn a_router_that_hears_everything_knows_everything(steps in prop::collection::vec(step(), 1..60)) {
        let limits = MembershipLimits { groups_max: 8, memberships_max: 12, sources_max: 4, outputs_max: 64 };
        let mut node = Node::with(limits, 1500);
        let mut router = BTreeMap::new();
        let mut sockets = BTreeMap::<(IpAddr, u32), Filter>::new();
        let group = |number: u8| IpAddr::from([239, 0, 0, number]);
        let source = |number: u8| IpAddr::from([10, 0, 0, number]);
        for step in steps {
            match step {
                Step::Filter(socket, number, is_include, list) => {
                    let mode = if is_include { FilterMode::Include } else { FilterMode::Exclude };
                    let sources: Vec<_> = list.into_iter().map(source).collect();
                    let group = group(number);
                    if node.membership.set_filter(node.now, socket, group, mode, &sources).is_ok() {
                        let filter = Filter { mode, sources: sources.into_iter().collect() };
                        sockets.insert((group, socket), filter);
                    }
                }
                Step::Leave(socket, number) => {
                    let known = sockets.remove(&(group(number), socket)).filter(|filter| !filter.is_none());
                    prop_assert_eq!(node.membership.leave(node.now, socket, group(number)), known.is_some());
                }
                Step::Query(version, number, list) => {
                    let name = if number == 6 { "0.0.0.0".into() } else { group(number).to_string() };
                    let list: Vec<_> = list.into_iter().map(|last| source(last).to_string()).collect();
                    let list: Vec<_> = list.iter().map(String::as_str).collect();
                    let query = match version {
                        1 => vec![0x11, 0, 0, 0, 0, 0, 0, 0],
                        2 => query_v2(&name),
                        _ => query_v3(&name, &list),
                    };
                    let _ = node.igmp(&query);
                }
                Step::Report(number) => {
                    let dst = Ipv4Addr::new(239, 0, 0, number);
                    let message = summed(&[&[0x16, 0, 0, 0][..], &dst.octets()].concat());
                    node.membership.handle_igmp(node.now, ROUTER, dst, 1, true, &message).unwrap();
                }
                Step::Wait(millis) => {
                    for text in node.texts(millis) {
                        apply(&mut router, &text);
                    }
                }
                Step::LinkUp => node.membership.link_up(node.now),
            }
            prop_assert!(node.membership.snapshot().count() <= 8);
        }
        // Until no older router is left; then a query about everything.
        for text in node.texts(400_000) {
            apply(&mut router, &text);
        }
        router.clear();
        node.igmp(&query_v3("0.0.0.0", &[])).unwrap();
        for text in node.texts(20_000) {
            for record in text.strip_prefix("v3 ").unwrap().split("; ") {
                apply(&mut router, &format!("v3 {}", record.replace("is-in", "to-in")));
            }
        }
        for number in 0..6 {
            let of_group = sockets.iter().filter(|((known, _), _)| *known == group(number));
            let wanted: Vec<_> = of_group.map(|(_, filter)| filter).collect();
            for last in 0..8 {
                let expected = wanted.iter().any(|filter| filter.passes(source(last)));
                prop_assert_eq!(node.membership.accepts(group(number), source(last)), expected);
                let known = router.get(&group(number)).is_some_and(|known| known.passes(source(last)));
                prop_assert_eq!(known, expected);
            }
        }
        prop_assert_eq!(node.membership.next_deadline(), None);
    }
}

proptest! {
    /// With a router of version 3 that hears all changes and never asks, likewise.
    #[test]
    fn changes_alone_are_enough(steps in prop::collection::vec((0..3_u32, any::<bool>(),
        prop::collection::vec(0..6_u8, 0..4), 0..700_u64), 1..40)) {
        let mut node = Node::with(MembershipLimits { sources_max: 6, ..MembershipLimits::default() }, 1500);
        let mut router = BTreeMap::new();
        for (socket, is_include, list, millis) in steps {
            let mode = if is_include { FilterMode::Include } else { FilterMode::Exclude };
            let sources: Vec<_> = list.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect();
            node.membership.set_filter(node.now, socket, ip(G), mode, &sources).unwrap();
            for text in node.texts(millis) {
                apply(&mut router, &text);
            }
        }
        for text in node.texts(20_000) {
            apply(&mut router, &text);
        }
        for last in 0..8 {
            let source = IpAddr::from([10, 0, 0, last]);
            let known = router.get(&ip(G)).is_some_and(|known| known.passes(source));
            prop_assert_eq!(known, node.membership.accepts(ip(G), source));
        }
        prop_assert_eq!(node.membership.next_deadline(), None);
    }
}

#[test]
fn a_later_query_does_not_put_off_the_answer() {
    // Max Resp Code 1: within 100 ms.
    let soon = |mut query: Vec<u8>| {
        query[1] = 1;
        query
    };
    for is_general in [true, false] {
        for is_v3 in [true, false] {
            for seed in 0..8 {
                let mut node = Node::new();
                node.membership.random = Random::new(seed);
                node.join(1, G);
                let group = if is_general { "0.0.0.0" } else { G };
                let query = if is_v3 { query_v3(group, &[]) } else { query_v2(group) };
                if !is_v3 {
                    node.igmp(&query_v2("0.0.0.0")).unwrap();
                }
                node.run(30_000);
                node.igmp(&soon(query.clone())).unwrap();
                node.igmp(&query).unwrap();
                let sent = node.run(30_000);
                let text = if is_v3 { "v3 is-ex 239.1.2.3 {}" } else { "v2 239.1.2.3" };
                assert!(matches!(&sent[..], [(..=100, sent)] if sent == text), "{is_general}: {sent:?}");
            }
        }
    }
}

#[test]
fn too_many_sources_are_all_of_them() {
    let limits = MembershipLimits { sources_max: 2, ..MembershipLimits::default() };
    let three = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    for (queries, expected) in [
        (vec![&three[..2]], "v3 is-in 239.1.2.3 {10.0.0.1 10.0.0.2}"),
        (vec![&three[..]], "v3 is-ex 239.1.2.3 {}"),
        (vec![&three[..2], &three[2..]], "v3 is-ex 239.1.2.3 {}"),
    ] {
        let mut node = Node::with(limits, 1500);
        node.join(1, G);
        node.run(5000);
        for sources in queries {
            node.igmp(&query_v3(G, sources)).unwrap();
        }
        assert_eq!(node.texts(20_000), [expected]);
    }
    // Changes that follow each other faster than they are told.
    let mut node = Node::with(limits, 1500);
    for sources in [["10.0.0.1", "10.0.0.2"], ["10.0.0.3", "10.0.0.4"], ["10.0.0.5", "10.0.0.6"]] {
        node.filter(1, G, FilterMode::Include, &sources);
    }
    assert_eq!(node.texts(5000), ["v3 to-in 239.1.2.3 {10.0.0.5 10.0.0.6}"; 2]);
}

#[test]
fn a_group_that_is_being_left_is_not_reported() {
    let mut node = Node::new();
    node.join(1, G);
    node.run(5000);
    let mut query = query_v3("0.0.0.0", &[]);
    query[1] = 1;
    // Leaving is told twice, and the query is answered in between.
    for _ in 0..20 {
        node.leave(1, G);
        node.igmp(&query).unwrap();
        assert_eq!(node.texts(5000), ["v3 to-in 239.1.2.3 {}"; 2]);
        node.join(1, G);
        node.run(5000);
    }
}

#[test]
fn a_report_when_nobody_asked_leaves_the_last_reporter() {
    let mut node = Node::new();
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    node.join(1, G);
    assert_eq!(node.texts(30_000), ["v2 239.1.2.3"; 2]);
    let (group, host) = (Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(192, 0, 2, 9));
    let report = summed(&[&[0x16, 0, 0, 0][..], &group.octets()].concat());
    node.membership.handle_igmp(node.now, host, group, 1, true, &report).unwrap();
    node.leave(1, G);
    assert_eq!(node.texts(10), ["leave 239.1.2.3"], "nothing was pending that the report could stand for");
}

#[test]
fn an_older_version_repeats_within_ten_seconds_and_forgets_at_its_end() {
    let mut node = Node::new();
    node.igmp(&query_v2("0.0.0.0")).unwrap();
    let mut pauses: Vec<_> = (0..10)
        .map(|group| {
            node.join(1, &format!("239.1.1.{group}"));
            let sent = node.run(10_000);
            assert_eq!(sent.len(), 2, "{sent:?}");
            sent[1].0
        })
        .collect();
    pauses.sort_unstable();
    assert!(pauses[0] < 3000 && pauses[9] > 6000 && pauses[9] <= 10_000, "{pauses:?}");
    // The version ends at 260 s, before the second report.
    node.run(159_990);
    node.join(1, G);
    assert_eq!(node.run(20_000), [(0, "v2 239.1.2.3".into())]);
    assert_eq!(node.version(true), Version::Igmpv3);
}
