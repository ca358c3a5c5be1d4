//! A resolver and scripted servers, in virtual time.

mod bounds;

use std::collections::BTreeSet;

use proptest::prelude::*;
use smoltcp::time::Duration;

use super::*;
use crate::observe::reason::DropReason;
use crate::random::Random;

const SERVERS: [&str; 2] = ["10.0.0.1:53", "10.0.0.2:53"];
const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// A resolver, what time it is, and the ports that a driver would have bound.
struct Bed {
    resolver: Resolver,
    now: Instant,
    bound: BTreeSet<u16>,
}

impl Bed {
    fn new(config: Config) -> Self {
        let servers = SERVERS.map(|server| server.parse().unwrap()).to_vec();
        let config = if config.servers.is_empty() { Config { servers, ..config } } else { config };
        let now = Instant::from_secs(1000);
        Self { resolver: Resolver::new(config, Random::new(5), now), now, bound: BTreeSet::new() }
    }

    fn plain() -> Self {
        Self::new(Config::default())
    }

    fn resolve(&mut self, name: &str, kind: Kind) -> QueryId {
        self.resolver.resolve(self.now, name, kind).unwrap()
    }

    /// All messages that are ready.
    fn transmits(&mut self) -> Vec<Transmit> {
        self.close();
        let list: Vec<_> = std::iter::from_fn(|| self.resolver.poll_transmit(self.now)).collect();
        for transmit in &list {
            assert!(self.bound.insert(transmit.local_port), "a port of its own");
        }
        list
    }

    fn transmit(&mut self) -> Transmit {
        let mut list = self.transmits();
        assert_eq!(list.len(), 1, "{list:?}");
        list.remove(0)
    }

    fn close(&mut self) {
        for port in self.resolver.closed_ports() {
            assert!(self.bound.remove(&port), "what was bound, once");
        }
    }

    fn answer(&mut self, to: &Transmit, payload: &[u8]) -> Result<(), DropReason> {
        self.resolver.handle_datagram(self.now, to.local_port, to.server, payload)
    }

    fn event(&mut self) -> Event {
        self.resolver.poll_event().expect("an end")
    }

    fn ok(&mut self) -> Answer {
        self.event().result.unwrap()
    }

    fn err(&mut self) -> DnsError {
        self.event().result.unwrap_err()
    }

    /// To the next deadline.
    fn timeout(&mut self) -> Duration {
        let deadline = self.resolver.next_deadline().expect("a deadline");
        let waited = deadline - self.now;
        self.now = deadline;
        self.resolver.handle_timeout(self.now);
        waited
    }

    fn assert_idle(&mut self) {
        self.close();
        assert_eq!((self.resolver.lookups_len(), self.resolver.queries().count()), (0, 0));
        assert_eq!((self.resolver.next_deadline(), self.bound.len()), (None, 0));
        assert_eq!(self.transmits(), []);
    }
}

fn wire(name: &str) -> Vec<u8> {
    Name::parse(name).unwrap().as_bytes().to_vec()
}

/// The end of the question in a message: its name, type and class.
fn question(message: &[u8]) -> &[u8] {
    let len = name::encoded_len(&message[12..]).unwrap() + 4;
    &message[12..12 + len]
}

fn asked(transmit: &Transmit) -> (String, u16) {
    let question = question(&transmit.payload);
    let packet = smoltcp::wire::DnsPacket::new_unchecked(&transmit.payload[..]);
    let name = Name::read(&packet, question).unwrap().to_string();
    (name, u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]))
}

/// A record of this owner, with a TTL of `ttl`.
fn record(owner: &[u8], record_type: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let [high, low] = (data.len() as u16).to_be_bytes();
    let kind = record_type.to_be_bytes();
    [owner, &kind, &[0, 1], &ttl.to_be_bytes(), &[high, low], data].concat()
}

fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
    let data = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
    record(&wire("example.org"), SOA, ttl, &data)
}

/// An answer to `transmit` with these flags in the low bytes.
fn reply(transmit: &Transmit, flags: u16, answers: &[Vec<u8>], authority: &[Vec<u8>]) -> Vec<u8> {
    let mut message = transmit.payload[..2].to_vec();
    message.extend((0x8180 | flags).to_be_bytes());
    message.extend([0, 1, 0, answers.len() as u8, 0, authority.len() as u8, 0, 0]);
    message.extend(question(&transmit.payload));
    message.extend(answers.concat());
    message.extend(authority.concat());
    message
}

/// The name of the question, by a pointer.
const SAME: [u8; 2] = [0xc0, 12];
const NXDOMAIN: u16 = 3;
const TC: u16 = 0x0200;

fn address(last: u8, ttl: u32) -> Vec<u8> {
    record(&SAME, A, ttl, &[192, 0, 2, last])
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn both_families_are_asked_for_at_once() {
    let mut bed = Bed::plain();
    let id = bed.resolve("www.Example.org", Kind::Addresses);
    let list = bed.transmits();
    assert_eq!(list.iter().map(asked).map(|(_, kind)| kind).collect::<Vec<_>>(), [AAAA, A]);
    assert_ne!(list[0].local_port, list[1].local_port);
    assert_ne!(list[0].payload[..2], list[1].payload[..2]);
    assert!(list.iter().all(|t| asked(t).0 == "www.example.org" && t.server.to_string() == SERVERS[0]));
    let end = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
    assert_eq!(list[0].payload[list[0].payload.len() - 11..], end, "EDNS with 1232 bytes");
    bed.answer(&list[1], &reply(&list[1], 0, &[address(7, 60), address(8, 30)], &[])).unwrap();
    assert_eq!(bed.resolver.poll_event(), None);
    let v6 = record(&SAME, AAAA, 90, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    bed.answer(&list[0], &reply(&list[0], 0, &[v6], &[])).unwrap();
    let event = bed.event();
    let answer = event.result.unwrap();
    assert_eq!(event.id, id);
    assert_eq!(answer.addresses, ips(&["fd00::9", "192.0.2.7", "192.0.2.8"]));
    assert_eq!(answer.expires, Some(bed.now + Duration::from_secs(30)));
    assert_eq!((answer.name.as_str(), answer.source), ("www.example.org", Source::Dns));
    bed.assert_idle();
    // From the cache, until the first is too old.
    bed.resolve("WWW.example.org.", Kind::Addresses);
    assert_eq!(bed.ok().addresses.len(), 3);
    bed.now += Duration::from_secs(30);
    bed.resolve("www.example.org", Kind::Addresses);
    assert_eq!(asked(&bed.transmit()).1, A);
}

#[test]
fn what_is_known_is_not_asked_for() {
    let text = "127.0.0.1 localhost\n192.0.2.9 Printer printer.lan # lp\nfd00::9%eth0 printer\nnonsense x\n\
                192.0.2.10 a..b\n";
    let hosts = Hosts::parse(text);
    assert_eq!(hosts.skipped(), 2);
    let mut bed = Bed::new(Config { hosts, ..Config::default() });
    for (name, kind, expected) in [
        ("192.0.2.1", Kind::A, Ok((vec!["192.0.2.1"], vec![], Source::Literal))),
        ("192.0.2.1", Kind::Aaaa, Err(DnsError::NoData)),
        ("fd00::1", Kind::Addresses, Ok((vec!["fd00::1"], vec![], Source::Literal))),
        ("PRINTER.", Kind::Addresses, Ok((vec!["192.0.2.9", "fd00::9"], vec![], Source::Hosts))),
        ("printer", Kind::Aaaa, Ok((vec!["fd00::9"], vec![], Source::Hosts))),
        ("192.0.2.9", Kind::Ptr, Ok((vec![], vec!["printer", "printer.lan"], Source::Hosts))),
        ("localhost", Kind::A, Ok((vec!["127.0.0.1"], vec![], Source::Hosts))),
        ("localhost", Kind::Aaaa, Ok((vec!["::1"], vec![], Source::Special))),
        ("a.localhost", Kind::Addresses, Ok((vec!["::1", "127.0.0.1"], vec![], Source::Special))),
        ("localhost", Kind::Ptr, Err(DnsError::NoData)),
        ("127.0.0.1", Kind::Ptr, Ok((vec![], vec!["localhost"], Source::Hosts))),
        ("::1", Kind::Ptr, Ok((vec![], vec!["localhost"], Source::Special))),
        ("x.invalid", Kind::A, Err(DnsError::NotFound)),
    ] {
        bed.resolve(name, kind);
        let result = bed.event().result;
        let told = result.map(|answer| (answer.addresses, answer.names, answer.source));
        let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(told, expected.map(|(a, n, source)| (ips(&a), names(n), source)), "{name} {kind:?}");
    }
    bed.assert_idle();
}

#[test]
fn names_are_checked() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    for (text, expected) in [
        ("", Err(NameError::EmptyLabel)),
        (".", Err(NameError::EmptyLabel)),
        ("a..b", Err(NameError::EmptyLabel)),
        (".a", Err(NameError::EmptyLabel)),
        (&"a".repeat(64), Err(NameError::LabelTooLong { len: 64 })),
        (&format!("{longest}a"), Err(NameError::TooLong)),
        ("bücher.example", Err(NameError::Character('ü'))),
        ("a b", Err(NameError::Character(' '))),
        ("a\\b", Err(NameError::Character('\\'))),
        (&longest, Ok(longest.clone())),
        ("_SIP._tcp.xn--bcher-kva.example.", Ok("_sip._tcp.xn--bcher-kva.example".to_owned())),
    ] {
        assert_eq!(Name::parse(text).map(|name| name.to_string()), expected, "{text}");
    }
    let error = Bed::plain().resolver.resolve(Instant::ZERO, "a..b", Kind::A).unwrap_err();
    assert_eq!(error.to_string(), "\"a..b\": a label is empty; write it as in www.example.com");
}

#[test]
fn reverse_names_are_those_of_the_rfcs() {
    for (ip, expected) in [
        ("192.0.2.130", "130.2.0.192.in-addr.arpa"),
        (
            "4321:0:1:2:3:4:567:89ab",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
        ),
    ] {
        assert_eq!(Name::reverse(ip.parse().unwrap()).to_string(), expected);
    }
    let mut bed = Bed::plain();
    bed.resolve("192.0.2.130", Kind::Ptr);
    let transmit = bed.transmit();
    assert_eq!(asked(&transmit), ("130.2.0.192.in-addr.arpa".to_owned(), PTR));
    let evil = record(&SAME, PTR, 60, b"\x04a\x1b.\xff\x03org\x00");
    bed.answer(&transmit, &reply(&transmit, 0, &[evil], &[])).unwrap();
    assert_eq!(bed.ok().names, ["a\\027\\.\\255.org"]);
}

#[test]
fn the_search_list_is_tried_in_order() {
    let search = ["lan", "example.org"].map(|domain| Name::parse(domain).unwrap()).to_vec();
    for (name, ndots, expected) in [
        ("host", 1, vec!["host.lan", "host.example.org", "host"]),
        ("host", 0, vec!["host", "host.lan", "host.example.org"]),
        ("host.", 1, vec!["host"]),
        ("a.b", 1, vec!["a.b", "a.b.lan", "a.b.example.org"]),
        ("a.b", 2, vec!["a.b.lan", "a.b.example.org", "a.b"]),
    ] {
        let mut bed = Bed::new(Config { search: search.clone(), ndots, ..Config::default() });
        bed.resolve(name, Kind::A);
        for (index, candidate) in expected.iter().enumerate() {
            let transmit = bed.transmit();
            assert_eq!(asked(&transmit).0, *candidate);
            let flags = if index == 0 { 0 } else { NXDOMAIN };
            bed.answer(&transmit, &reply(&transmit, flags, &[], &[soa(60, 60)])).unwrap();
        }
        assert_eq!(bed.err(), DnsError::NoData, "one of the names exists");
        bed.assert_idle();
    }
    let mut bed = Bed::new(Config { search, ..Config::default() });
    bed.resolve("host", Kind::A);
    let first = bed.transmit();
    bed.answer(&first, &reply(&first, NXDOMAIN, &[], &[])).unwrap();
    let second = bed.transmit();
    bed.answer(&second, &reply(&second, 0, &[address(1, 60)], &[])).unwrap();
    assert_eq!(bed.ok().name, "host.example.org");
}

#[test]
fn only_the_right_answer_from_the_right_place_counts() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    let good = reply(&transmit, 0, &[address(1, 60)], &[]);
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let end = 12 + question(&transmit.payload).len();
    // Identifier, the bit QR, count of questions, name, type, class.
    let mut query = good.clone();
    query[2] &= 0x7f;
    let mut two_questions = good.clone();
    two_questions[5] = 2;
    for payload in [
        changed(0),
        changed(1),
        query,
        changed(5),
        two_questions,
        changed(13),
        changed(end - 3),
        changed(end - 1),
    ] {
        assert_eq!(bed.answer(&transmit, &payload), Err(DropReason::DnsIgnored), "{payload:?}");
    }
    for len in 0..end {
        assert!(bed.answer(&transmit, &good[..len]).is_err());
        if bed.resolver.queries().next().unwrap().local_port != transmit.local_port {
            break;
        }
    }
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    assert_eq!(bed.transmit(), transmit);
    for (port, from) in [
        (transmit.local_port ^ 1, transmit.server),
        (transmit.local_port, "10.0.0.2:53".parse().unwrap()),
        (transmit.local_port, "10.0.0.1:54".parse().unwrap()),
    ] {
        let result = bed.resolver.handle_datagram(bed.now, port, from, &good);
        assert_eq!(result, Err(DropReason::DnsIgnored));
    }
    let mut upper = good.clone();
    upper[13] = b'A';
    bed.answer(&transmit, &upper).unwrap();
    assert_eq!(bed.ok().addresses, ips(&["192.0.2.1"]));
}

#[test]
fn random_case_must_be_repeated() {
    let mut bed = Bed::new(Config { random_case: true, ..Config::default() });
    bed.resolve("abcdefghijklmnopqrstuvwxyz.example", Kind::A);
    let transmit = bed.transmit();
    let name = question(&transmit.payload).to_vec();
    assert!(name.iter().any(u8::is_ascii_uppercase) && name.iter().any(u8::is_ascii_lowercase));
    let good = reply(&transmit, 0, &[address(1, 60)], &[]);
    let mut lower = good.clone();
    lower[12..12 + name.len() - 4].make_ascii_lowercase();
    assert!(bed.answer(&transmit, &lower).is_err());
    bed.answer(&transmit, &good).unwrap();
    assert_eq!(bed.ok().addresses.len(), 1);
}

#[test]
fn somebody_who_guesses_has_to_begin_anew() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    let deadline = bed.resolver.next_deadline();
    for _ in 0..32 {
        assert!(bed.answer(&transmit, b"guess").is_err());
    }
    let moved = bed.transmit();
    assert_ne!((moved.local_port, &moved.payload[..2]), (transmit.local_port, &transmit.payload[..2]));
    assert_eq!(moved.server, transmit.server);
    assert_eq!(bed.resolver.next_deadline(), deadline);
    assert!(bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).is_err());
}

#[test]
fn silent_servers_are_asked_in_turn_and_given_up() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let mut waits = Vec::new();
    let mut servers = Vec::new();
    let mut seen = BTreeSet::new();
    while bed.resolver.lookups_len() > 0 {
        let transmit = bed.transmit();
        servers.push(transmit.server.to_string());
        assert!(seen.insert((transmit.local_port, transmit.payload[..2].to_vec())), "never the same twice");
        waits.push(bed.timeout().secs());
    }
    assert_eq!(servers, [SERVERS[0], SERVERS[1], SERVERS[0], SERVERS[1]]);
    assert_eq!(waits, [2, 2, 4, 4]);
    assert_eq!(bed.err(), DnsError::TimedOut);
    bed.assert_idle();
    // An answer to an earlier try comes too late.
    bed.resolve("a.example", Kind::A);
    let first = bed.transmit();
    bed.timeout();
    assert!(bed.answer(&first, &reply(&first, 0, &[address(1, 60)], &[])).is_err());
    let second = bed.transmit();
    bed.answer(&second, &reply(&second, 0, &[address(1, 60)], &[])).unwrap();
    assert_eq!(bed.ok().addresses.len(), 1);
    // The first server was silent three times: the second is asked first now, for a while.
    for (name, pause, expected) in [("b.example", 0, 1), ("c.example", 31, 0)] {
        bed.now += Duration::from_secs(pause);
        bed.resolve(name, Kind::A);
        let transmit = bed.transmit();
        assert_eq!(transmit.server.to_string(), SERVERS[expected], "{name}");
        bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).unwrap();
    }
    let counts: Vec<_> = bed.resolver.servers().map(|s| (s.answers, s.timeouts, s.failures)).collect();
    assert_eq!(counts, [(1, 3, 0), (2, 2, 0)]);
}

#[test]
fn a_server_that_fails_or_is_not_there_is_left_at_once() {
    for rcode in [2, 5] {
        let mut bed = Bed::plain();
        bed.resolve("a.example", Kind::A);
        for _ in 0..4 {
            let transmit = bed.transmit();
            bed.answer(&transmit, &reply(&transmit, rcode, &[], &[])).unwrap();
        }
        assert_eq!(bed.err(), DnsError::ServerFailure { rcode: rcode as u8 });
        bed.assert_idle();
        let failures = |bed: &Bed| bed.resolver.servers().map(|server| server.failures).collect::<Vec<_>>();
        assert_eq!(failures(&bed), [2, 2]);
        // What is known of a server outlives a new list.
        bed.resolver.set_servers(&["10.0.0.9:53", SERVERS[0]].map(|server| server.parse().unwrap()));
        assert_eq!(failures(&bed), [0, 2]);
    }
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let first = bed.transmit();
    bed.resolver.handle_unreachable(bed.now, first.local_port);
    let second = bed.transmit();
    assert_eq!(second.server.to_string(), SERVERS[1]);
    assert_eq!(bed.resolver.servers().map(|server| server.failures).collect::<Vec<_>>(), [1, 0]);
    bed.answer(&second, &reply(&second, 0, &[address(1, 60)], &[])).unwrap();
    assert_eq!(bed.ok().addresses.len(), 1);
    bed.resolver.handle_unreachable(bed.now, first.local_port);
    bed.assert_idle();
}

#[test]
fn a_server_without_edns_is_asked_without_it() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let first = bed.transmit();
    bed.answer(&first, &reply(&first, 1, &[], &[])).unwrap();
    let second = bed.transmit();
    assert_eq!((second.server, second.payload[11]), (first.server, 0));
    assert_eq!(second.payload.len(), 12 + question(&second.payload).len());
    bed.answer(&second, &reply(&second, 0, &[address(1, 60)], &[])).unwrap();
    assert_eq!(bed.ok().addresses.len(), 1);
    bed.resolve("b.example", Kind::A);
    let third = bed.transmit();
    assert_eq!(third.payload[11], 0, "it is remembered");
    bed.answer(&third, &reply(&third, 1, &[], &[])).unwrap();
    assert_eq!(bed.transmit().server.to_string(), SERVERS[1], "FORMERR is a failure then");
}

#[test]
fn aliases_are_followed() {
    let alias = |from: &str, to: &str, ttl| record(&wire(from), CNAME, ttl, &wire(to));
    let host = |name: &str| record(&wire(name), A, 50, &[192, 0, 2, 1]);
    // In one answer, in any order, with records of others that do not count.
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    let list = [
        host("evil.example"),
        host("c.example"),
        alias("b.example", "C.example", 20),
        alias("a.example", "b.example", 30),
    ];
    bed.answer(&transmit, &reply(&transmit, 0, &list, &[])).unwrap();
    let answer = bed.ok();
    assert_eq!((answer.name.as_str(), answer.addresses.len()), ("c.example", 1));
    assert_eq!(answer.expires, Some(bed.now + Duration::from_secs(20)));
    // The server stops half way: the rest is asked for.
    bed.resolve("x.example", Kind::A);
    let transmit = bed.transmit();
    bed.answer(&transmit, &reply(&transmit, 0, &[alias("x.example", "y.example", 10)], &[])).unwrap();
    let transmit = bed.transmit();
    assert_eq!(asked(&transmit).0, "y.example");
    bed.answer(&transmit, &reply(&transmit, 0, &[host("y.example")], &[])).unwrap();
    let answer = bed.ok();
    assert_eq!(
        (answer.name.as_str(), answer.expires),
        ("y.example", Some(bed.now + Duration::from_secs(10)))
    );
    // Without an end: in one answer, in many, and to itself.
    for names in [["p.example", "q.example"], ["p.example", "p.example"]] {
        let mut bed = Bed::plain();
        bed.resolve("p.example", Kind::A);
        let mut sent = 0;
        while bed.resolver.lookups_len() > 0 {
            let transmit = bed.transmit();
            let from = asked(&transmit).0;
            let to = if from == names[0] { names[1] } else { names[0] };
            bed.answer(&transmit, &reply(&transmit, 0, &[alias(&from, to, 10)], &[])).unwrap();
            sent += 1;
        }
        assert_eq!((bed.err(), sent), (DnsError::AliasLoop, 9));
        bed.assert_idle();
    }
    let mut bed = Bed::plain();
    bed.resolve("n0", Kind::A);
    let transmit = bed.transmit();
    let chain: Vec<_> = (0..20).map(|n| alias(&format!("n{n}"), &format!("n{}", n + 1), 10)).collect();
    bed.answer(&transmit, &reply(&transmit, 0, &chain, &[])).unwrap();
    assert_eq!(bed.err(), DnsError::AliasLoop);
}

#[test]
fn pointers_that_loop_end() {
    let mut bed = Bed::plain();
    bed.resolve("a.example", Kind::A);
    let transmit = bed.transmit();
    let at = 12 + question(&transmit.payload).len() as u8;
    // A name that points to itself, one that points forwards, one that ends in the middle.
    for owner in [vec![0xc0, at], vec![0xc0, at + 2, 0xc0, at], vec![0xff, 0xff], vec![0x80, 0]] {
        let mut bed = Bed::plain();
        bed.resolve("a.example", Kind::A);
        let transmit = bed.transmit();
        let bad = record(&owner, A, 60, &[192, 0, 2, 1]);
        bed.answer(&transmit, &reply(&transmit, 0, &[bad], &[])).unwrap();
        assert_eq!(bed.transmit().server.to_string(), SERVERS[1], "the other server may do better");
    }
}

#[test]
fn what_is_not_there_is_remembered_as_long_as_the_server_says() {
    for (flags, authority, seconds, error) in [
        (NXDOMAIN, vec![soa(100, 40)], 40, DnsError::NotFound),
        (0, vec![soa(30, 400)], 30, DnsError::NoData),
        (NXDOMAIN, vec![soa(9999, 9999)], 900, DnsError::NotFound),
        (NXDOMAIN, vec![], 0, DnsError::NotFound),
        (0, vec![soa(0x8000_0000, 5)], 0, DnsError::NoData),
    ] {
        let mut bed = Bed::plain();
        bed.resolve("a.example", Kind::A);
        let transmit = bed.transmit();
        bed.answer(&transmit, &reply(&transmit, flags, &[], &authority)).unwrap();
        assert_eq!(bed.err(), error);
        if seconds > 0 {
            bed.now += Duration::from_secs(seconds - 1);
            bed.resolve("a.example", Kind::A);
            assert_eq!(bed.err(), error);
            bed.now += Duration::from_secs(1);
        }
        assert_eq!(bed.resolver.cache_len(), usize::from(seconds > 0));
        bed.resolve("a.example", Kind::A);
        bed.transmit();
    }
}

#[test]
fn answers_that_were_cut_off_are_flagged_and_not_remembered() {
    let mut bed = Bed::plain();
    for (answers, expected) in [(vec![address(1, 60)], Some(1)), (vec![], None)] {
        bed.resolve("a.example", Kind::A);
        let transmit = bed.transmit();
        let mut message = reply(&transmit, TC, &answers, &[]);
        // One more record is announced, and ends too early.
        message[7] += 1;
        message.extend(&address(2, 60)[..9]);
        bed.answer(&transmit, &message).unwrap();
        match expected {
            Some(count) => {
                let answer = bed.ok();
                assert_eq!((answer.addresses.len(), answer.is_truncated), (count, true));
            }
            None => assert_eq!(bed.err(), DnsError::Truncated),
        }
        assert_eq!(bed.resolver.cache_len(), 0);
    }
}

#[test]
fn one_family_may_be_missing() {
    let mut bed = Bed::new(Config { attempts: 1, ..Config::default() });
    bed.resolve("a.example", Kind::Addresses);
    let list = bed.transmits();
    bed.answer(&list[1], &reply(&list[1], 0, &[address(1, 60)], &[])).unwrap();
    bed.timeout();
    bed.transmit();
    bed.timeout();
    let answer = bed.ok();
    assert_eq!((answer.addresses.len(), answer.missing), (1, Some(DnsError::TimedOut)));
}

#[test]
fn the_same_question_is_sent_once_for_all_who_ask() {
    let mut bed = Bed::plain();
    let ids: Vec<_> = (0..3).map(|_| bed.resolve("a.example", Kind::A)).collect();
    let transmit = bed.transmit();
    bed.resolver.cancel(ids[1]);
    bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 60)], &[])).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| bed.resolver.poll_event()).map(|event| event.id).collect();
    assert_eq!(told, [ids[0], ids[2]]);
    bed.assert_idle();
    // The last who asked goes: so does the question.
    let id = bed.resolve("b.example", Kind::Addresses);
    bed.transmits();
    bed.resolver.cancel(id);
    bed.assert_idle();
    let id = bed.resolve("c.example", Kind::A);
    bed.resolver.cancel(id);
    bed.assert_idle();
}

#[test]
fn what_is_full_says_so() {
    let mut bed = Bed::new(Config { lookups_max: 2, cache_entries_max: 2, ..Config::default() });
    bed.resolve("a.example", Kind::A);
    bed.resolve("192.0.2.1", Kind::A);
    let error = bed.resolver.resolve(bed.now, "192.0.2.2", Kind::A).unwrap_err();
    assert_eq!(error, ResolveError::TooMany { lookups_max: 2 });
    bed.ok();
    let transmit = bed.transmit();
    bed.answer(&transmit, &reply(&transmit, 0, &[address(1, 10)], &[])).unwrap();
    bed.ok();
    for (name, ttl) in [("b.example", 60), ("c.example", 30)] {
        bed.resolve(name, Kind::A);
        let transmit = bed.transmit();
        bed.answer(&transmit, &reply(&transmit, 0, &[address(1, ttl)], &[])).unwrap();
        bed.ok();
    }
    assert_eq!(bed.resolver.cache_len(), 2);
    bed.resolve("b.example", Kind::A);
    assert_eq!(bed.ok().source, Source::Dns);
    bed.resolve("a.example", Kind::A);
    bed.transmit();
    let none = Config { servers: vec!["10.0.0.1:53".parse().unwrap()], ..Config::default() };
    let mut bed = Bed::new(none);
    bed.resolver.set_servers(&[]);
    assert_eq!(bed.resolver.resolve(bed.now, "a.example", Kind::A), Err(ResolveError::NoServer));
}

#[test]
fn ports_that_are_taken_are_replaced_until_none_is_left() {
    let mut bed = Bed::new(Config { ports: 5000..=5001, ..Config::default() });
    bed.resolve("a.example", Kind::A);
    let first = bed.resolver.poll_transmit(bed.now).unwrap();
    bed.resolver.handle_bind_failure(bed.now, first.local_port);
    assert_eq!(bed.resolver.closed_ports().count(), 0, "nothing was bound");
    let again = bed.transmit();
    assert_eq!(again.server, first.server);
    assert_ne!(again.query, first.query);
    bed.resolve("b.example", Kind::A);
    assert_ne!(bed.transmit().local_port, again.local_port);
    let id = bed.resolve("c.example", Kind::A);
    assert_eq!(bed.event(), Event { id, result: Err(DnsError::NoServer) });
}

#[test]
fn servers_rotate_if_asked() {
    let mut bed = Bed::new(Config { rotate: true, ..Config::default() });
    let mut order = Vec::new();
    for name in ["a.example", "b.example", "c.example"] {
        bed.resolve(name, Kind::A);
        order.push(bed.transmit().server.to_string());
    }
    assert_eq!(order, [SERVERS[1], SERVERS[0], SERVERS[1]]);
}

#[test]
fn resolv_conf_is_read() {
    let text = "# c\nnameserver 192.0.2.53\nnameserver fd00::53\nnameserver nonsense\nsearch a.example b.example .\n\
                options ndots:3 timeout:7 attempts:99 rotate edns0 ndots:x\nsortlist 1\n; c\n\n";
    let conf = ResolvConf::parse(text);
    assert_eq!(conf.servers, ["192.0.2.53:53", "[fd00::53]:53"].map(|s| s.parse().unwrap()));
    assert_eq!(conf.search.iter().map(Name::to_string).collect::<Vec<_>>(), ["a.example", "b.example"]);
    let config = conf.to_config();
    assert_eq!((config.ndots, config.attempts, config.rotate), (3, 5, true));
    assert_eq!(config.timeout, Duration::from_secs(7));
    assert_eq!(conf.skipped, 4);
    assert_eq!(ResolvConf::parse("").to_config().ndots, 1);
}

/// Bytes of two answers that another implementation (dnspython) wrote: an alias with other sections and the
/// record of EDNS, and a name that does not exist.
#[test]
fn answers_of_another_implementation_are_read() {
    let alias = "00008180000100030001000203777777076578616d706c65036f72670000010001c00c000500010000012c00\
                 110363646e076578616d706c65036e657400c02d000100010000003c0004c0000201c02d000100010000003c\
                 0004c0000202c031000200010000003c0005026e73c031c06a000100010000003c0004c000023500002904d0\
                 000000000000";
    let nothing = "00008183000100000001000103777777076578616d706c65036f72670000010001c0100006000100000e10\
                   0026026e73c0100a686f73746d6173746572c0100000000100001c2000000e10000151800000002d000029\
                   04d0000000000000";
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    for (hex, seconds) in [(alias, 60), (nothing, 45)] {
        let mut bed = Bed::plain();
        bed.resolve("www.example.org", Kind::A);
        let transmit = bed.transmit();
        let mut message = bytes(hex);
        message[..2].copy_from_slice(&transmit.payload[..2]);
        bed.answer(&transmit, &message).unwrap();
        let result = bed.event().result;
        match seconds {
            60 => {
                let answer = result.unwrap();
                assert_eq!(answer.addresses, ips(&["192.0.2.1", "192.0.2.2"]));
                assert_eq!(answer.name, "cdn.example.net");
                assert_eq!(answer.expires, Some(bed.now + Duration::from_secs(60)));
            }
            _ => assert_eq!(result, Err(DnsError::NotFound)),
        }
        bed.now += Duration::from_secs(seconds - 1);
        bed.resolve("www.example.org", Kind::A);
        bed.event();
        bed.now += Duration::from_secs(1);
        bed.resolve("www.example.org", Kind::A);
        bed.transmit();
    }
}

proptest! {
    /// Whatever comes, every lookup ends, within the time that all tries take, and leaves nothing behind.
    #[test]
    fn every_lookup_ends(seed: u64, steps in prop::collection::vec((0..8u8, any::<[u8; 6]>()), 1..60)) {
        let servers = SERVERS.map(|server| server.parse().unwrap()).to_vec();
        let search = vec![Name::parse("lan").unwrap()];
        let config = Config { servers, search, lookups_max: 8, cache_entries_max: 4, ..Config::default() };
        let mut now = Instant::from_secs(1);
        let mut resolver = Resolver::new(config, Random::new(seed), now);
        let (mut begun, mut ended) = (BTreeSet::new(), 0);
        let mut open: Vec<Transmit> = Vec::new();
        for (step, noise) in steps {
            match step {
                0 | 1 => {
                    let kind = [Kind::A, Kind::Aaaa, Kind::Addresses, Kind::Ptr][usize::from(noise[0]) % 4];
                    let name = ["a", "b.example", "10.1.2.3", "c"][usize::from(noise[1]) % 4];
                    begun.extend(resolver.resolve(now, name, kind));
                }
                2 => now += Duration::from_millis(u64::from(noise[0]) * 20),
                3 if !open.is_empty() => {
                    let port = open[usize::from(noise[0]) % open.len()].local_port;
                    resolver.handle_unreachable(now, port);
                }
                _ if !open.is_empty() => {
                    let to = &open[usize::from(noise[0]) % open.len()];
                    let kind = [A, AAAA, CNAME, PTR][usize::from(noise[1]) % 4];
                    let data = [vec![1, 2, 3, 4], vec![7; 16], wire("b.example"), SAME.to_vec()];
                    let data = &data[usize::from(noise[2]) % 4];
                    let flags = [0, 0, 0, NXDOMAIN, TC, 1, 2, 5][usize::from(noise[3]) % 8];
                    let answers = vec![record(&SAME, kind, noise[5].into(), data); usize::from(noise[4] % 3)];
                    let mut payload = reply(to, flags, &answers, &[soa(9, 9)][..usize::from(noise[4] / 3 % 2)]);
                    if step == 7 {
                        let at = usize::from(noise[5]) % payload.len();
                        payload[at] ^= noise[4];
                    }
                    let _ = resolver.handle_datagram(now, to.local_port, to.server, &payload);
                }
                _ => {}
            }
            resolver.handle_timeout(now);
            prop_assert!(resolver.next_deadline().is_none_or(|deadline| deadline > now));
            for port in resolver.closed_ports() {
                prop_assert!(open.iter().any(|transmit| transmit.local_port == port));
                open.retain(|transmit| transmit.local_port != port);
            }
            open.extend(std::iter::from_fn(|| resolver.poll_transmit(now)));
            prop_assert!(resolver.lookups_len() <= 8 && open.len() <= 16 && resolver.cache_len() <= 4);
            while let Some(event) = resolver.poll_event() {
                prop_assert!(begun.contains(&event.id));
                ended += 1;
            }
        }
        let begin = now;
        while let Some(deadline) = resolver.next_deadline() {
            now = deadline;
            resolver.handle_timeout(now);
            while resolver.poll_transmit(now).is_some() {}
            ended += std::iter::from_fn(|| resolver.poll_event()).count();
        }
        prop_assert_eq!(ended, begun.len());
        prop_assert_eq!((resolver.lookups_len(), resolver.queries().count()), (0, 0));
        prop_assert!(now - begin <= Duration::from_secs(2 * 12 + 30), "two names, two rounds each");
    }
}
