//! Fanout groups and socket filters: what the kernel does with our programs is what we say it does.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wirestack_apps::testbed::{VethEnd, Wire};
use wirestack_nic::claim::{Claim, ClaimSet, Protocol};
use wirestack_nic::filter::tcpdump::{self, CompileError, Target};
use wirestack_nic::filter::{self, Context, FilterSpec, ListSense, Origin, Program};
use wirestack_nic::steer::{
    Fanout, FanoutError, FanoutMode, FrameSocket, flow_hash, flow_hash_of, flow_program, shard_of,
};
use wirestack_tests::runner::{Case, Outcome, require_program, root_test, test, veth_test};

use crate::support::LONG;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("steer::flows_land_where_the_function_says", |wire| flows_land(wire, "flow=77")),
        veth_test("steer::outgoing_frames_land_with_their_flow", outgoing_frames_land),
        veth_test("steer::fragments_meet_their_flow_with_defrag", defragmented_flows_land),
        root_test("steer::ebpf_is_the_same", || flows_land(&Wire::new()?, "flow-ebpf=77")),
        root_test("steer::ebpf_takes_all_modes", || modes_are_joined(&Wire::new()?, true)),
        veth_test("steer::all_modes_are_joined", |wire| modes_are_joined(wire, false)),
        test("steer::errors_are_told_apart", errors_are_told_apart),
        veth_test("steer::filters_judge_as_the_interpreter", filters_judge),
        require_program(
            "tcpdump",
            veth_test("steer::expressions_judge_as_the_interpreter", expressions_judge),
        ),
        require_program("tcpdump", test("steer::bad_expressions_are_one_line", bad_expressions)),
        veth_test("steer::a_locked_filter_stays", a_locked_filter_stays),
    ]
}

fn open(end: &VethEnd, filter: Option<&Program>) -> io::Result<FrameSocket> {
    end.namespace().run(|| FrameSocket::open(end.name(), filter))
}

/// Members of one group, in their order.
fn members(
    end: &VethEnd,
    fanout: &Fanout,
    len: usize,
) -> Result<Vec<FrameSocket>, Box<dyn std::error::Error>> {
    let mut fanout = fanout.clone();
    let mut sockets = Vec::new();
    for _ in 0..len {
        let socket = open(end, None)?;
        fanout.id = Some(fanout.join(&socket)?);
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Reads frames from all sockets, and gives each with the number of its socket to `take`, until it returns
/// true or nothing more comes in time.
fn read(sockets: &[FrameSocket], mut take: impl FnMut(usize, &[u8]) -> bool) -> bool {
    let deadline = Instant::now() + LONG;
    let mut buffer = vec![0; 70_000];
    loop {
        for (number, socket) in sockets.iter().enumerate() {
            while let Ok(len) = socket.receive(&mut buffer) {
                if take(number, &buffer[..len.min(70_000)]) {
                    return true;
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut polled: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}

/// Sends frames in small bursts, and checks where each of them arrives.
fn check_members(
    from: &FrameSocket,
    to: &[FrameSocket],
    frames: &[Vec<u8>],
    expected: impl Fn(&[u8]) -> usize,
) {
    for burst in frames.chunks(32) {
        let mut missing: HashMap<Vec<u8>, usize> = HashMap::new();
        for frame in burst {
            from.send(frame).expect("the frame is sent");
            missing.insert(as_received(frame), expected(frame));
        }
        let all = read(to, |number, frame| {
            if let Some(expected) = missing.remove(frame) {
                assert_eq!(number, expected, "the member of {frame:02x?}");
            }
            missing.is_empty()
        });
        assert!(all, "these did not arrive: {missing:02x?}");
    }
}

/// Without the outermost VLAN tag, which the kernel strips.
fn as_received(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x81, 0] | [0x88, 0xa8]) => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    }
}

fn flows_land(wire: &Wire, mode: &str) -> Outcome {
    let fanout: Fanout = mode.parse()?;
    let members = members(wire.ours(), &fanout, 3).map_err(|error| error.to_string())?;
    let peer = open(wire.peer(), None)?;
    let mut seen = [false; 3];
    let frames = frames();
    frames.iter().for_each(|frame| seen[shard_of(flow_hash(77, frame), 3)] = true);
    assert_eq!(seen, [true; 3]);
    check_members(&peer, &members, &frames, |frame| shard_of(flow_hash(77, frame), 3));
    Ok(())
}

/// Both directions of the wire are seen at one end, and each flow by one member.
fn outgoing_frames_land(wire: &Wire) -> Outcome {
    let fanout: Fanout = "flow+outgoing".parse()?;
    let members = members(wire.ours(), &fanout, 3).map_err(|error| error.to_string())?;
    let (ours, peer) = (open(wire.ours(), Some(&Program::constant(0)))?, open(wire.peer(), None)?);
    for port in 1000..1050 {
        let (client, server) = (end([192, 0, 2, 1], port), end([198, 51, 100, 2], 80));
        let expected = shard_of(flow_hash_of(0, client, server, 6), 3);
        check_members(&peer, &members, &[packet(client, server, 6, 0)], |_| expected);
        check_members(&ours, &members, &[packet(server, client, 6, 0)], |_| expected);
    }
    Ok(())
}

/// The kernel puts IPv4 packets together before the program sees them, so that they have ports.
fn defragmented_flows_land(wire: &Wire) -> Outcome {
    let fanout: Fanout = "flow+defrag".parse()?;
    let members = members(wire.ours(), &fanout, 3).map_err(|error| error.to_string())?;
    let peer = open(wire.peer(), None)?;
    let mut elsewhere = false;
    for port in 1000..1020_u16 {
        let (client, server) = (end([192, 0, 2, 1], port), end([198, 51, 100, 2], 80));
        let whole = packet(client, server, 17, 0);
        let (head, body) = whole.split_at(34);
        // Eight bytes and the rest, as two fragments with one number.
        for (word, part) in [(0x2000_u16, &body[..8]), (0x0001, &body[8..])] {
            let mut fragment = [head, part].concat();
            fragment[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            fragment[18..20].copy_from_slice(&port.to_be_bytes());
            fragment[20..22].copy_from_slice(&word.to_be_bytes());
            let by_addresses = shard_of(flow_hash(0, &fragment), 3);
            elsewhere |= by_addresses != shard_of(flow_hash(0, &whole), 3);
            peer.send(&fragment)?;
        }
        let expected = shard_of(flow_hash_of(0, client, server, 17), 3);
        let arrived = read(&members, |number, frame| {
            let found = frame.get(34..) == Some(body);
            assert!(!found || number == expected, "port {port} at member {number}, not {expected}");
            found
        });
        assert!(arrived, "the packet of port {port} was not put together");
    }
    assert!(elsewhere, "without defrag they would have met elsewhere");
    Ok(())
}

fn modes_are_joined(wire: &Wire, ebpf: bool) -> Outcome {
    let modes: &[&str] =
        if ebpf { &["flow-ebpf"] } else { &["hash", "lb", "cpu", "rnd", "rollover", "qm", "flow"] };
    let flags = ["", "+rollover", "+defrag", "+outgoing", "+rollover+defrag+outgoing"];
    let mut ids = Vec::new();
    let mut kept = Vec::new();
    for mode in modes {
        for flags in flags.iter().filter(|flags| !(*mode == "rollover" && flags.contains("rollover"))) {
            for max_members in [None, Some(2), Some(1000)] {
                let fanout = Fanout { max_members, ..format!("{mode}{flags}").parse()? };
                let group = members(wire.ours(), &fanout, 2).map_err(|error| format!("{fanout}: {error}"))?;
                let other = open(wire.ours(), None)?;
                ids.push(fanout.join(&other)?);
                kept.push((group, other));
            }
        }
    }
    let groups = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), groups, "each group of its own has a number of its own");
    let custom = [
        FanoutMode::Cbpf(Program::constant(1)),
        FanoutMode::Ebpf(wirestack_nic::steer::ebpf::Extended::from_classic(&Program::constant(1))?),
    ];
    let custom = Fanout::new(custom[usize::from(ebpf)].clone());
    let group = members(wire.ours(), &custom, 2).map_err(|error| error.to_string())?;
    let peer = open(wire.peer(), None)?;
    check_members(&peer, &group, &frames()[..20], |_| 1);
    Ok(())
}

fn errors_are_told_apart() -> Outcome {
    let wire = Wire::new()?;
    let join = |text: &str, max_members, socket: &FrameSocket| {
        let fanout = Fanout { max_members, ..text.parse().expect("a fanout") };
        let result = fanout.join(socket);
        if let Err(error) = &result {
            assert_eq!(error.to_string().lines().count(), 1);
        }
        result
    };
    let socket = || open(wire.ours(), None);
    let unbound = wire.at_ours(FrameSocket::unbound)?;
    assert!(matches!(join("hash:7", None, &unbound), Err(FanoutError::NotBound)));
    assert!(matches!(join("hash", None, &unbound), Err(FanoutError::NotBound)));

    let (first, other) = (socket()?, socket()?);
    assert_eq!(join("hash:7", Some(2), &first)?, 7);
    assert!(matches!(join("hash:7", None, &first), Err(FanoutError::AlreadyMember(7))));
    assert!(matches!(join("lb:9", None, &first), Err(FanoutError::AlreadyMember(7))));
    for (text, max_members) in [("lb:7", None), ("hash+defrag:7", None), ("hash:7", Some(3))] {
        let error = join(text, max_members, &other).expect_err("another group");
        assert!(matches!(error, FanoutError::Mismatch { id: 7, .. }), "{error}");
        assert!(
            error.to_string().contains("group 7 is in use") && error.to_string().contains(text),
            "{error}"
        );
    }
    let elsewhere = wire.at_ours(|| FrameSocket::open("lo", None));
    if let Ok(elsewhere) = elsewhere {
        assert!(matches!(join("hash:7", None, &elsewhere), Err(FanoutError::Mismatch { id: 7, .. })));
    }
    assert_eq!(join("hash:7", None, &other)?, 7);
    assert!(matches!(join("hash:7", None, &socket()?), Err(FanoutError::Full(7))));
    assert!(matches!(join("hash", Some(0), &socket()?), Err(FanoutError::NoMembers)));
    let twice =
        Fanout { flags: "hash+rollover".parse::<Fanout>()?.flags, ..Fanout::new(FanoutMode::Rollover) };
    assert!(matches!(twice.join(socket()?), Err(FanoutError::RolloverTwice)));

    let locked = open(wire.ours(), Some(&Program::constant(u32::MAX)))?;
    filter::lock(&locked)?;
    assert!(matches!(join("flow", None, &locked), Err(FanoutError::FilterLocked)));
    let (late, _) = (socket()?, wire.ours().set_down()?);
    let result = join("hash", None, &late);
    // Newer kernels let it in: it will have frames when the interface is up.
    assert!(matches!(result, Ok(_) | Err(FanoutError::Down)), "{result:?}");
    Ok(())
}

/// Checks that a filter in the kernel passes what the interpreter says.
fn check_filter(wire: &Wire, name: &str, program: &Program) -> io::Result<()> {
    let filtered = [open(wire.ours(), Some(program))?];
    let all = [open(wire.ours(), None)?];
    let peer = open(wire.peer(), None)?;
    for burst in frames().chunks(32) {
        let mut sent: HashMap<Vec<u8>, bool> = HashMap::new();
        for frame in burst {
            peer.send(frame)?;
            // The filter sees what is received, with what the kernel knows of the tag.
            let received = as_received(frame);
            let mut context = Context::link(&received);
            context.extensions = Context::fanout(frame).extensions;
            let passes = program.run(&context) != 0;
            sent.insert(received, passes);
        }
        let mut left: usize = sent.len();
        let arrived = read(&all, |_, frame| {
            left -= usize::from(sent.contains_key(frame));
            left == 0
        });
        assert!(arrived, "{name}: {left} frames did not arrive");
        let mut expected: Vec<_> =
            sent.iter().filter(|(_, passes)| **passes).map(|(frame, _)| frame.clone()).collect();
        let mut take = |frame: &[u8]| {
            assert_ne!(sent.get(frame), Some(&false), "{name} passes {frame:02x?}");
            expected.retain(|other| other != frame);
            expected.is_empty()
        };
        let complete = take(&[]) || read(&filtered, |_, frame| take(frame));
        assert!(complete, "{name} drops {expected:02x?}");
    }
    // What should not have passed would be there by now.
    let mut rest = vec![0; 2000];
    while let Ok(len) = filtered[0].receive(&mut rest) {
        let context = Context::link(&rest[..len.min(2000)]);
        assert!(program.run(&context) != 0, "{name} passes {:02x?}", context.bytes);
    }
    Ok(())
}

fn filters_judge(wire: &Wire) -> Outcome {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
    let lists = [
        rules(&["tcp dst 198.51.100.0/24 port 80-89"])?,
        rules(&["udp", "src 2001:db8::/64 port 1000-1009", "icmp"])?,
        rules(&["port 1000-1004", "dst 192.0.2.1"])?,
        vec![],
    ];
    for rules in lists {
        for (sense, neighbors) in [(ListSense::Accept, true), (ListSense::Deny, false)] {
            let spec = FilterSpec { sense, rules: rules.clone(), neighbors };
            check_filter(wire, &format!("{spec:?}"), &spec.compile()?)?;
        }
    }
    let claims = ClaimSet::new(&[
        Claim::ports([198, 51, 100, 2].into(), Protocol::Tcp, 80..=89),
        Claim::ports(v6(2), Protocol::Udp, 80..=80),
    ]);
    check_filter(wire, "claims", &claims.socket_filter().expect("a program"))?;
    check_filter(wire, "the hash at the link header", &flow_program(Origin::Link, 5)?)?;
    check_filter(wire, "the hash at the known header", &flow_program(Origin::Known, 5)?)?;
    Ok(())
}

fn expressions_judge(wire: &Wire) -> Outcome {
    for expression in
        ["", "tcp port 80", "ip6 and udp", "icmp or icmp6", "net 192.0.2.0/24 and not tcp", "len < 80"]
    {
        let program = tcpdump::compile(expression, Target::Ethernet)?;
        check_filter(wire, expression, &program)?;
    }
    // What is about the tag needs to know the interface: the kernel has stripped it from the bytes.
    let name = wire.ours().name();
    for expression in ["vlan 7", "not vlan", "vlan and tcp port 80"] {
        let program = wire.at_ours(|| tcpdump::compile(expression, Target::Interface(name)))?;
        check_filter(wire, expression, &program)?;
    }
    Ok(())
}

fn bad_expressions() -> Outcome {
    for (expression, words) in
        [("tpc port 80", "tpc"), ("port", "syntax error"), ("-w /nowhere", "-w /nowhere")]
    {
        let error = tcpdump::compile(expression, Target::Ethernet).expect_err("no expression");
        assert!(matches!(error, CompileError::Expression { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && !text.contains('\n') && text.contains("pcap-filter(7)"), "{text}");
    }
    assert!(tcpdump::compile("tcp", Target::Ip)?.len() > 2);
    Ok(())
}

fn a_locked_filter_stays(wire: &Wire) -> Outcome {
    let socket = open(wire.ours(), Some(&Program::constant(u32::MAX)))?;
    filter::attach(&socket, &Program::constant(0))?;
    filter::detach(&socket)?;
    assert_eq!(filter::detach(&socket).unwrap_err().raw_os_error(), Some(2), "there is none any more");
    filter::attach(&socket, &Program::constant(0))?;
    filter::lock(&socket)?;
    assert!(filter::attach(&socket, &Program::constant(u32::MAX)).is_err());
    assert!(filter::detach(&socket).is_err());
    Ok(())
}

fn v6(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

fn end(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// Frames of all kinds, no two of them alike, both directions of each flow.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for n in 0..24_u16 {
        let v4 = (end([192, 0, 2, 1], 1000 + n), end([198, 51, 100, 2], 80 + n % 2));
        let v6 = (end(v6(1), 1000 + n), end(v6(2), 80 + n % 2));
        for (a, b) in [v4, v6] {
            for (protocol, kind) in [(6, 0), (17, 0), (6, 1), (17, 2), (6, 3), (132, 0), (1, 0)] {
                frames.push(packet(a, b, protocol, kind));
                frames.push(packet(b, a, protocol, kind));
            }
            let there = packet(a, b, 6, 0);
            frames.push(error(&there));
            frames.push(tagged(&there, &[[0x81, 0, 0, 7]]));
            frames.push(tagged(&there, &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 8]]));
            // Cut within its ports.
            frames.push(there[..there.len() - 10].to_vec());
        }
        frames.push([&[2; 12][..], &[0x88, 0xb5], &n.to_be_bytes(), &[0; 40]].concat());
    }
    frames.sort();
    frames.dedup();
    frames
}

/// Kind 0: plain. 1: with options or extension headers. 2: a first fragment. 3: a later one.
fn packet(src: SocketAddr, dst: SocketAddr, protocol: u8, kind: u8) -> Vec<u8> {
    let body = [&src.port().to_be_bytes()[..], &dst.port().to_be_bytes(), &[kind; 8]].concat();
    // Neither end's hardware address, so that the kernel does not answer.
    let macs = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let options = if kind == 1 { vec![1; 8] } else { vec![] };
            let word: u16 = [0x4000, 0x4000, 0x2000, 0x0010][usize::from(kind)];
            let len = (20 + options.len() + body.len()) as u16;
            let mut head = vec![0x45 + (options.len() / 4) as u8, 0];
            head.extend([len.to_be_bytes(), [0, 1], word.to_be_bytes()].concat());
            head.extend([64, protocol, 0, 0]);
            head.extend([src.octets(), dst.octets()].concat());
            [&macs[..], &[8, 0], &head, &options, &body].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (next, extension): (u8, Vec<u8>) = match kind {
                1 => {
                    (0, vec![60, 0, 1, 4, 0, 0, 0, 0, protocol, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                }
                2 => (44, vec![protocol, 0, 0, 1, 0, 0, 0, 9]),
                3 => (44, vec![protocol, 0, 0, 0x50, 0, 0, 0, 9]),
                _ => (protocol, vec![]),
            };
            let mut head = vec![0x60, 0, 0, 0];
            head.extend(((extension.len() + body.len()) as u16).to_be_bytes());
            head.extend([next, 64]);
            head.extend([src.octets(), dst.octets()].concat());
            [&macs[..], &[0x86, 0xdd], &head, &extension, &body].concat()
        }
        _ => panic!("one family"),
    }
}

/// The ICMP error of a router about a frame.
fn error(frame: &[u8]) -> Vec<u8> {
    let quoted = &frame[14..];
    let is_v4 = frame[12] == 8;
    let (router, back): (IpAddr, IpAddr) =
        if is_v4 { ([203, 0, 113, 1].into(), [192, 0, 2, 1].into()) } else { (v6(0xff), v6(1)) };
    let (protocol, kind) = if is_v4 { (1, 3) } else { (58, 1) };
    let outer = packet(end(router, 0), end(back, 0), protocol, 0);
    let mut outer = outer[..outer.len() - 12].to_vec();
    let body = [&[kind, 1, 0, 0, 0, 0, 0, 0][..], quoted].concat();
    let len = if is_v4 { 20 + body.len() } else { body.len() } as u16;
    let at = if is_v4 { 16 } else { 18 };
    outer[at..at + 2].copy_from_slice(&len.to_be_bytes());
    outer.extend(body);
    outer
}

fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}
