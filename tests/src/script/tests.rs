//! Scripts that cannot be read, packets that are read, built and printed, and runs that fail as they ought.

use std::collections::VecDeque;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::build::{self, End};
use super::call::{Call, CallResult};
use super::compare::differences;
use super::packet::{Layer, Packet, generated};
use super::subject::{Subject, SubjectKind};
use super::token::{Cursor, tokens};
use super::{Script, decode, print, run, syntax};

fn ends() -> [End; 2] {
    let end = |last: u8| End {
        mac: EthernetAddress([2, 0, 0, 0, 0, last]),
        ipv4: Some(([10, 0, 0, last].into(), 24)),
        ipv6: Some((std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()), 64)),
    };
    [end(1), end(2)]
}

fn read(text: &str) -> Result<Packet, String> {
    let tokens = tokens(text)?;
    let mut cursor = Cursor::new(&tokens);
    let packet = syntax::packet(&mut cursor)?;
    cursor.end()?;
    Ok(packet)
}

fn layers(text: &str) -> Vec<Layer> {
    match read(text).unwrap_or_else(|error| panic!("{text}: {error}")) {
        Packet::Layers(layers, _) => layers,
        Packet::Raw(frame) => decode::frame(&frame),
    }
}

fn frame(text: &str) -> Vec<u8> {
    let [peer, host] = ends();
    let packet = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    build::frame(&packet, &peer, &host).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What is written is in the frame, and the frame as it is printed is the frame.
const PACKETS: [&str; 34] = [
    "arp who-has 10.0.0.2 tell 10.0.0.1",
    "arp reply 10.0.0.1 is-at 02:00:00:00:00:07 target=10.0.0.9 target-mac=02:00:00:00:00:09",
    "arp op=9 sender=10.0.0.7",
    "eth from=02:00:00:00:00:09 to=ff:ff:ff:ff:ff:ff type=0x88b5 data=20",
    "udp 1000 > 7",
    "udp 1000 > 7 \"hello\"",
    "ip 192.0.2.1 > 10.0.0.2 ttl=3 tos=0x10 id=77 df udp 1 > 65535 data=300",
    "ip options=0x94040000 udp 1000 > 7 \"x\"",
    "ip version=5 bad-checksum udp 1000 > 7 bad-checksum \"x\"",
    "ip frag(id=7, 0..24) udp 1000 > 7 data=56",
    "ip proto=253 data=20",
    "ip6 fd00::1 > ff02::1 hop=255 class=3 udp 1000 > 7 data=16*0x58",
    "ip6 frag(id=123456789, 0..24) udp 1000 > 7 data=56",
    "ip6 frag(id=7, 0..) udp 1000 > 7 data=56",
    "ip6 hop-by-hop option=0x05 destination option=0x1e option=0xde udp 1000 > 7",
    "ip6 routing type=0 left=1 address=fd00::9 icmp6 echo-request id=1 seq=2 data=8",
    "ip6 next=59 data=20",
    "icmp echo-request id=1 seq=2 data=56",
    "icmp echo-reply id=65535 seq=65535",
    "icmp unreachable port quoting(ip 10.0.0.2 > 10.0.0.1 udp 7 > 1000 \"hello\")",
    "icmp unreachable too-big mtu=1400 quoting(udp 7 > 1000 data=100)",
    "icmp redirect host gateway=10.0.0.66 quoting(ip to=192.0.2.1 udp 7 > 9)",
    "icmp parameter-problem pointer=20 quoting(ip options=0x9f040000 udp 7 > 9)",
    "icmp type=99 code=3 data=8",
    "icmp6 unreachable port quoting(udp 7 > 1000 \"hello\")",
    "icmp6 packet-too-big mtu=1300 quoting(ip6 frag(id=1, 0..16) udp 7 > 1000 data=60)",
    "ip6 hop=255 icmp6 neighbor-solicitation fd00::2 source-mac=02:00:00:00:00:01",
    "ip6 hop=255 icmp6 neighbor-advertisement fd00::1 solicited override target-mac=02:00:00:00:00:01",
    "ip6 hop=255 icmp6 router-advertisement hop-limit=64 managed lifetime=1800 mtu=1400 prefix=fd01::/64 on-link autonomous valid=600",
    "ip6 hop=255 icmp6 redirect fe80::66 destination=2001:db8::1 target-mac=02:00:00:00:00:66",
    "igmp type=0x16 group=239.1.2.3",
    "tcp 40000 > 80 S seq=4294967295 win=65535 <mss 1460,sackOK,TS 1 0,wscale 7>",
    "tcp 40000 > 80 PA seq=1 ack=1 win=100 data=1000",
    "tcp 40000 > 80 A seq=1 ack=1 <sack 10:20 30:40>",
];

#[test]
fn what_is_written_is_built_and_read_back() {
    let [peer, host] = ends();
    for text in PACKETS {
        let built = frame(text);
        let decoded = decode::frame(&built);
        assert_eq!(differences(&layers(text), &decoded), [""; 0], "{text}");
        let printed = print::packet(&decoded);
        // The printed text leaves the lengths and protocols out that are as usual.
        let again = layers(&printed);
        assert_eq!(differences(&again, &decoded), [""; 0], "{text}\n{printed}");
        let is_whole = !text.contains("frag") && !text.contains("proto=") && !text.contains("next=");
        let is_plain = is_whole && !text.starts_with("eth") && !text.contains("bad-");
        if is_plain {
            let rebuilt = build::frame(&Packet::Layers(again, Default::default()), &peer, &host);
            assert_eq!(rebuilt, Ok(built), "{text}\n{printed}");
        }
    }
}

#[test]
fn frames_are_those_of_the_rfcs() {
    // RFC 826, and an echo with a checksum that was added up by hand.
    assert_eq!(
        frame("arp who-has 10.0.0.2 tell 10.0.0.1"),
        [
            &[0xff; 6][..],
            &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &[2, 0, 0, 0, 0, 1, 10, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
        ]
        .concat()
    );
    let echo = frame("ip id=1 icmp echo-request id=1 seq=2");
    assert_eq!(echo[14..34], [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xde, 10, 0, 0, 1, 10, 0, 0, 2]);
    assert_eq!(echo[34..], [8, 0, 0xf7, 0xfc, 0, 1, 0, 2]);
    // The length of a fragment, its offset and that more come.
    let fragment = frame("ip frag(id=7, 8..24) udp 1 > 2 data=56");
    assert_eq!(fragment[16..22], [0, 36, 0, 7, 0x20, 1]);
    assert_eq!(fragment[34..], generated(56)[..16]);
    let fragment = frame("ip6 frag(id=7, 8..24) udp 1 > 2 data=56");
    assert_eq!(fragment[54..62], [17, 0, 0, 9, 0, 0, 0, 7]);
    // Groups have hardware addresses of their own (RFC 1112, 2464).
    assert_eq!(frame("ip 10.0.0.1 > 239.129.2.3 udp 1 > 2")[..6], [1, 0, 0x5e, 1, 2, 3]);
    assert_eq!(frame("ip 10.0.0.1 > 10.0.0.255 udp 1 > 2")[..6], [0xff; 6]);
    assert_eq!(frame("ip6 fd00::1 > ff02::1:ff00:2 udp 1 > 2")[..6], [0x33, 0x33, 0xff, 0, 0, 2]);
    // Broken on purpose.
    assert_eq!(frame("udp 1 > 2 \"hello\" truncate=40").len(), 40);
    assert_eq!(frame("udp 1 > 2 pad=4").len(), 14 + 28 + 4);
    assert_eq!(frame("udp 1 > 2 checksum=0")[40..42], [0, 0]);
}

#[test]
fn what_is_left_out_is_not_compared() {
    let came = decode::frame(&frame("ip ttl=9 id=3 df udp 1000 > 7 \"hello\""));
    for fits in [
        "udp 1000 > 7",
        "udp from=1000",
        "ip df udp",
        "ip ttl=9 !bad-checksum udp to=7 \"hello\"",
        "eth ip udp",
    ] {
        assert_eq!(differences(&layers(fits), &came), [""; 0], "{fits}");
    }
    for (other, difference) in [
        ("udp 1000 > 8", "udp to: expected 8, came 7"),
        ("ip !df udp", "ip df: expected 0, came 1"),
        ("ip6 udp", "ip6: expected, ip came"),
        ("ip", "udp: came, and is not expected"),
        ("ip frag(id=3) udp", "frag: expected, udp came"),
        ("udp \"help\"", "data: expected 4 bytes, came 5 bytes, different from byte 3 on"),
        ("ip icmp", "icmp: expected, udp came"),
        ("arp", "arp: expected, ip came"),
    ] {
        assert_eq!(differences(&layers(other), &came), [difference], "{other}");
    }
    let came = decode::frame(&frame("icmp unreachable port quoting(udp 7 > 1000)"));
    assert_eq!(
        differences(&layers("icmp unreachable host quoting(udp 7 > 1001)"), &came),
        ["icmp code: expected 1, came 3", "icmp quoting: udp to: expected 1001, came 1000"]
    );
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (line, words) in [
        ("< udp 1000 > x", "`x` is no destination of udp"),
        (
            "< udp 1000 > 7 ttl=3",
            "`ttl` is no field of udp: from, to, len, checksum, bad-checksum is accepted",
        ),
        ("< udp 1000 > 7 hello", "the end of the line is expected here, not `hello`"),
        ("< udp 1000 > 7 \"hello", "a text has no closing quote"),
        ("< udp 1000 > 7 data=x", "a length, LENGTH*BYTE, or 0x and pairs of digits is accepted"),
        ("< quic", "a packet (eth, arp, ip, ip6, udp, tcp, icmp, icmp6, igmp or frame 0x...) is expected"),
        ("< icmp unreachable nobody", "`unreachable nobody` is no message: echo-reply"),
        ("< icmp unreachable port quoting(udp 7 > 9", "`)` is expected at the end of the line"),
        ("< icmp unreachable port quoting(ip6 udp 7 > 9)", "icmp quotes packets of ip"),
        ("< ip frag(id=7, 4..8) udp 1 > 2", "a multiple of 8"),
        ("< arp reply 10.0.0.1 is-at 02:00", "a hardware address is accepted"),
        ("< tcp 1 > 2 S <mss>", "TCP option `mss`"),
        ("< frame 0x012", "0x and pairs of digits are accepted"),
        ("+1x < udp 1 > 2", "`+1x`: a time is accepted"),
        ("+2s..1s > udp", "`+2s..1s`: a time is accepted"),
        ("+0..1s < udp 1 > 2", "what is injected has one time"),
        ("> none for long", "`long`: a time is accepted"),
        ("> any-order { > udp }", "the end of the line"),
        ("kernel: > udp", "needs `differs \"why\"` before it"),
        ("differs because", "the reason, with the section of the RFC, between quotes"),
        ("frobnicate", "`<`, `>`, `wait`, `differs`, `use`, a socket call or (at the top) a header line"),
        ("s = socket sctp", "`sctp` is no socket"),
        ("write(s)", "`,` is expected here"),
        ("info(s, weight)", "`weight` is not told: state, cwnd"),
        ("use tea", "`tea`: ports, listening, established or connected is accepted behind `use`"),
        ("use established sugar=2", "`sugar` is no option"),
        ("< tcp 1 > 2 A seq=1..5", "what is injected has numbers, not ranges"),
        ("> tcp 1 > 2 A data=5", "where in the stream it is, seq=N before it says"),
        ("> 0 x tcp 1 > 2 A seq=1 data=5", "0 x: 1 to 1000 are accepted"),
        ("> any until", "`for` is expected here"),
        ("jump(s)", "`jump` is no call"),
        ("bind(s, 10.0.0)", "an address is accepted (10.0.0.1:7, [fd00::1]:7)"),
        ("recv(s) = error Nope", "`Nope` is no error: one of AddrInUse"),
        ("set(s, speed, 3)", "`speed` is no option"),
    ] {
        let text = format!("host 10.0.0.2/24\n# a comment\n\nwait 1s\n{line}\n");
        let error = Script::parse("x.script", &text).expect_err(line).to_string();
        assert!(error.starts_with("x.script:5: ") && error.ends_with(line), "{error}");
        assert!(error.contains(words), "{error}\nhas not: {words}");
    }
    for (header, words) in [
        ("host 10.0.0.2", "ADDRESS/LENGTH or mac ADDRESS is accepted"),
        ("host 10.0.0.2/33", "ADDRESS/LENGTH"),
        ("peer 10.0.0.1/24", "an address or mac ADDRESS"),
        ("mtu many", "a number of bytes"),
        ("sysctl net.ipv4.ipfrag_time 1", "`=` is expected"),
        ("option moon: skip \"why\"", "kernel: or shard: is accepted"),
        ("option kernel: skip", "the reason between quotes"),
        ("> any-order {", "the group of line 1 has no `}`"),
    ] {
        let error = Script::parse("x.script", header).expect_err(header).to_string();
        assert!(error.starts_with("x.script:1: ") && error.contains(words), "{error}");
    }
    // Behind the first event there is no header any more.
    assert!(Script::parse("x", "wait 1s\nmtu 1500").is_err());
}

/// A subject in virtual time that sends these frames, and takes anything.
#[derive(Debug)]
struct Canned {
    now: Instant,
    frames: VecDeque<(u64, Vec<u8>)>,
    results: VecDeque<CallResult>,
    injected: Vec<Vec<u8>>,
}

impl Canned {
    fn new(frames: VecDeque<(u64, Vec<u8>)>, results: VecDeque<CallResult>) -> Self {
        Self { now: Instant::ZERO, frames, results, injected: Vec::new() }
    }
}

impl Subject for Canned {
    fn kind(&self) -> SubjectKind {
        SubjectKind::Shard
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn inject(&mut self, frame: &[u8]) -> Result<(), String> {
        self.injected.push(frame.to_vec());
        Ok(())
    }

    fn poll_frame(&mut self, deadline: Instant) -> Result<Option<(Instant, Vec<u8>)>, String> {
        let is_due = |(millis, _): &&(u64, Vec<u8>)| Instant::from_millis(*millis as i64) <= deadline;
        if self.frames.front().filter(is_due).is_none() {
            self.now = self.now.max(deadline);
            return Ok(None);
        }
        let Some((millis, frame)) = self.frames.pop_front() else {
            return Ok(None);
        };
        self.now = Instant::from_millis(millis as i64);
        Ok(Some((self.now, frame)))
    }

    fn call(&mut self, _: &Call, _: &CallResult) -> Result<CallResult, String> {
        self.results.pop_front().ok_or("no result".to_owned())
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn tolerance(&self) -> Duration {
        Duration::ZERO
    }

    fn quiet(&self) -> Duration {
        Duration::ZERO
    }
}

/// A frame of the host.
fn from_host(text: &str) -> Vec<u8> {
    let [peer, host] = ends();
    let packet = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    build::frame(&packet, &host, &peer).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Runs lines against a subject that sends these frames at these milliseconds.
fn run_canned(lines: &str, frames: &[(u64, &str)]) -> (Result<(), String>, Canned) {
    let head =
        "host 10.0.0.2/24 fd00::2/64 mac 02:00:00:00:00:02\npeer 10.0.0.1 fd00::1 mac 02:00:00:00:00:01\n";
    let script = Script::parse("x.script", &format!("{head}{lines}")).expect("the script is right");
    let frames = frames.iter().map(|(millis, text)| (*millis, from_host(text))).collect();
    let mut subject = Canned::new(frames, VecDeque::new());
    let result = run(&script, &mut subject);
    (result, subject)
}

#[test]
fn runs_succeed_and_fail_as_they_ought() {
    let pong = "icmp echo-reply id=1 seq=1";
    for (lines, frames, failure) in [
        ("< icmp echo-request id=1 seq=1\n> icmp echo-reply id=1", &[(0, pong)][..], None),
        ("> icmp echo-reply id=2", &[(0, pong)], Some("x.script:3: another packet came")),
        ("> icmp echo-reply", &[], Some("x.script:3: this did not come until 0.000s")),
        ("> none for 1s", &[(999, pong)], Some("nothing is expected, and this came")),
        ("> none for 1s\n+0 > icmp", &[(1000, pong)], Some("nothing is expected")),
        ("> none for 1s\n+1ms > icmp", &[(1001, pong)], None),
        ("+10ms > icmp", &[(10, pong)], None),
        ("+10ms > icmp", &[(9, pong)], Some("it came at 0.009s, expected from 0.010s to 0.010s")),
        ("+10ms > icmp", &[(11, pong)], Some("this did not come until 0.010s")),
        ("+10ms..1s > icmp\n+5ms > udp", &[(500, pong), (505, "udp 7 > 9")], None),
        ("@20ms > icmp\n@30ms > udp", &[(20, pong), (30, "udp 7 > 9")], None),
        ("wait 10ms", &[(5, pong)], Some("at the end: nothing more is expected, and this came")),
        ("> any-order {\n> udp\n> icmp\n}", &[(0, pong), (0, "udp 7 > 9")], None),
        ("> any-order {\n> udp\n> icmp\n}", &[(0, pong), (0, pong)], Some("udp: expected, icmp came")),
        ("> any-order {\n> udp\n> icmp\n}", &[(0, pong)], Some("4: > udp")),
        // Noise is noise unless the script speaks of it.
        ("> icmp", &[(0, "arp who-has 10.0.0.9 tell 10.0.0.2"), (0, pong)], None),
        (
            "> arp reply 10.0.0.2\n> icmp",
            &[(0, "arp who-has 10.0.0.9 tell 10.0.0.2"), (0, pong)],
            Some("arp op: expected 2, came 1"),
        ),
        // Lines for another subject.
        ("differs \"why\"\nkernel: > udp\nshard: > icmp", &[(0, pong)], None),
        (
            "differs \"why\"\nkernel: > icmp\nshard: > udp",
            &[(0, pong)],
            Some("x.script:5: another packet came"),
        ),
        // Relative numbers: of the host from its SYN, of the peer from ours.
        (
            "> tcp 80 > 9 SA seq=0\n< tcp 9 > 80 A seq=1 ack=1\n> tcp A seq=7",
            &[(0, "tcp 80 > 9 SA seq=1000"), (0, "tcp 80 > 9 A seq=1007")],
            None,
        ),
    ] {
        check_canned(lines, frames, failure);
    }
}

/// A run that succeeds, or fails with these words.
fn check_canned(lines: &str, frames: &[(u64, &str)], failure: Option<&str>) {
    let (result, _) = run_canned(lines, frames);
    match (result, failure) {
        (Ok(()), None) => {}
        (Err(text), Some(words)) => assert!(text.contains(words), "{lines}\n{text}\nhas not: {words}"),
        (result, _) => panic!("{lines}\n{result:?}, not {failure:?}"),
    }
}

#[test]
fn segments_are_expected_in_many_ways() {
    let pong = "icmp echo-reply id=1 seq=1";
    for (lines, frames, failure) in [
        ("use ports\n> tcp A seq=5..9 ack=0", &[(0, "tcp 80 > 40000 PA seq=7 ack=4294966272")][..], None),
        (
            "use ports\n> tcp A seq=5..6",
            &[(0, "tcp 80 > 40000 A seq=7")],
            Some("tcp seq: expected 5..6, came 7"),
        ),
        (
            "use ports\n> tcp PA seq=7",
            &[(0, "tcp 80 > 40000 A seq=7")],
            Some("tcp flags: expected PA, came A"),
        ),
        ("use ports\n> tcp A", &[(0, "tcp 81 > 40000 A")], Some("tcp from: expected 80, came 81")),
        ("use ports\n> tcp A seq=1", &[(0, "tcp 80 > 40000 A seq=1 data=5")], Some("data: came, and is not")),
        ("use ports\n> tcp A seq=1 data=any", &[(0, "tcp 80 > 40000 A seq=1 data=5")], None),
        ("use ports\n> tcp F or tcp R", &[(0, "tcp 80 > 40000 R")], None),
        ("use ports\n> tcp F or tcp R", &[(0, "tcp 80 > 40000 S")], Some("another packet came")),
        ("use ports\n> ? tcp F\n> tcp R", &[(0, "tcp 80 > 40000 R")], None),
        ("use ports\n> ? tcp R\n> tcp F", &[(0, "tcp 80 > 40000 R"), (0, "tcp 80 > 40000 F")], None),
        ("use ports\n> until tcp F", &[(0, "tcp 80 > 40000 R"), (0, "tcp 80 > 40000 F")], None),
        ("use ports\n> until tcp F", &[(0, "tcp 80 > 40000 R")], Some("this did not come")),
        ("> any for 1s\n+1ms > udp", &[(0, pong), (1001, pong)], Some("udp: expected, icmp came")),
        ("> any for 1s\n+1ms > udp", &[(0, pong), (1000, pong), (1001, "udp 7 > 9")], None),
        (
            "use ports\n> 2 x tcp A seq=1 data=5",
            &[(0, "tcp 80 > 40000 A seq=1 data=5"), (0, "tcp 80 > 40000 A seq=6 data=5")],
            None,
        ),
        (
            "use ports\n> 2 x tcp A seq=1 data=5",
            &[(0, "tcp 80 > 40000 A seq=1 data=5"), (0, "tcp 80 > 40000 A seq=1 data=5")],
            Some("tcp seq: expected 6, came 1"),
        ),
    ] {
        check_canned(lines, frames, failure);
    }
}

#[test]
fn a_failure_tells_what_happened() {
    let lines = "+5ms < udp 1000 > 7 \"hello\"\n> icmp unreachable host";
    let (result, _) = run_canned(lines, &[(5, "icmp unreachable port quoting(udp 1000 > 7 \"hello\")")]);
    let text = result.expect_err("another code");
    for words in [
        "x.script:4: another packet came",
        "icmp code: expected 1, came 3",
        "0.005000s < ip 10.0.0.1 > 10.0.0.2 id=0 udp 1000 > 7 \"hello\"",
        "0.005000s > ip 10.0.0.2 > 10.0.0.1 id=0 icmp unreachable port quoting(",
        "> icmp unreachable host",
    ] {
        assert!(text.contains(words), "{text}\nhas not: {words}");
    }
}

#[test]
fn who_asks_for_the_peer_is_answered() {
    let asked = "arp who-has 10.0.0.1 tell 10.0.0.2";
    let (result, subject) = run_canned("> none", &[(0, asked), (0, "arp who-has 10.0.0.9 tell 10.0.0.2")]);
    assert_eq!(result, Ok(()));
    assert_eq!(subject.injected, [frame("arp reply 10.0.0.1 is-at 02:00:00:00:00:01 target=10.0.0.2")]);
    let asked = "ip6 fd00::2 > ff02::1:ff00:1 hop=255 icmp6 neighbor-solicitation fd00::1";
    let (result, subject) = run_canned("> none", &[(0, asked)]);
    assert_eq!(result, Ok(()));
    let answer = "ip6 fd00::1 > fd00::2 hop=255 icmp6 neighbor-advertisement fd00::1 solicited override target-mac=02:00:00:00:00:01";
    assert_eq!(subject.injected, [frame(answer)]);
    // A script that speaks of ARP answers itself.
    let (result, subject) =
        run_canned("> arp who-has 10.0.0.1", &[(0, "arp who-has 10.0.0.1 tell 10.0.0.2")]);
    assert_eq!((result, subject.injected.len()), (Ok(()), 0));
}

#[test]
fn results_of_calls_are_compared() {
    let lines = "s = socket udp\nsend(s, \"abc\")\nrecv(s) = \"x\" from 10.0.0.1:7\nrecv(s) = \"x\"";
    let head = "host 10.0.0.2/24\n";
    let script = Script::parse("x.script", &format!("{head}{lines}")).expect("the script is right");
    let received = || CallResult::Received(b"x".to_vec(), Some(([10, 0, 0, 1], 7).into()));
    let right = [CallResult::Ok, CallResult::Number(3), received(), received()];
    for wrong in 0..=right.len() {
        let mut results: VecDeque<CallResult> = right.clone().into();
        if let Some(result) = results.get_mut(wrong) {
            *result = CallResult::Error("WouldBlock".to_owned());
        }
        let outcome = run(&script, &mut Canned::new(VecDeque::new(), results));
        match outcome {
            Ok(()) => assert_eq!(wrong, right.len()),
            Err(text) => {
                let place =
                    format!("x.script:{}: expected {}, came error WouldBlock", wrong + 2, right[wrong]);
                assert!(text.starts_with(&place) || wrong == 3, "{text}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is on the wire has a text, and that text is read again.
    #[test]
    fn any_frame_is_read(start in 0usize..PACKETS.len(), changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6), len in any::<u16>()) {
        let mut bytes = frame(PACKETS[start]);
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(1 + usize::from(len) % (2 * bytes.len()));
        let decoded = decode::frame(&bytes);
        prop_assert!(!print::packet(&decoded).is_empty());
        prop_assert!(differences(&decoded, &decoded).is_empty());
    }

    /// Any line gives a packet, or a complaint; a packet gives a frame, or a complaint.
    #[test]
    fn any_line_is_read_or_refused(words in proptest::collection::vec(0usize..WORDS.len(), 1..14)) {
        let line = words.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ");
        let _ = Script::parse("x.script", &line);
        if let Ok(packet) = read(&line) {
            let [peer, host] = ends();
            if let Ok(frame) = build::frame(&packet, &peer, &host) {
                prop_assert!(!print::packet(&decode::frame(&frame)).is_empty() || frame.is_empty());
            }
        }
    }
}

/// Words of the language, and of none.
const WORDS: [&str; 60] = [
    "<",
    ">",
    "{",
    "}",
    "(",
    ")",
    "=",
    ",",
    "\"x\"",
    "\"",
    "#",
    "+1ms",
    "@1s..2s",
    "+",
    "arp",
    "who-has",
    "tell",
    "reply",
    "is-at",
    "eth",
    "ip",
    "ip6",
    "udp",
    "tcp",
    "icmp",
    "icmp6",
    "igmp",
    "hop-by-hop",
    "destination",
    "routing",
    "frag",
    "quoting",
    "unreachable",
    "port",
    "echo-request",
    "packet-too-big",
    "data",
    "10.0.0.1",
    "fd00::2",
    "7",
    "0x9e",
    "0..24",
    "8..",
    "99999999999999999999",
    "S",
    "mss",
    "sack",
    "from",
    "to",
    "ttl",
    "option",
    "options",
    "more",
    "!df",
    "bad-checksum",
    "truncate",
    "pad",
    "len",
    "none for",
    "any-order",
];
