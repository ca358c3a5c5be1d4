//! `wirestack bridge` between two kernels: what passes, what is too long, and how it ends.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use sha2::{Digest, Sha256};
use wirestack_apps::testbed::{Chain, LEFT_IPV4, LEFT_IPV6, RIGHT_IPV4, RIGHT_IPV6, VethEnd};
use wirestack_nic::config::VlanTags;
use wirestack_nic::ethtool::Offload;
use wirestack_nic::{AfPacket, AfPacketConfig, Nic, wait};
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, chain_test, note, require_program, stay_on_one_core};

use crate::support::{LONG, end, noise};
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let usual = [1500, 1500];
    vec![
        chain_test("bridge::tcp_passes", usual, tcp_passes),
        chain_test("bridge::jumbo_tcp_passes", [9000, 9000], tcp_passes),
        require_program("ping", chain_test("bridge::ping_passes", usual, ping_passes)),
        require_program("ping", chain_test("bridge::an_mtu_that_differs_is_told", [9000, 1500], mtu_is_told)),
        require_program(
            "ping",
            chain_test(
                "bridge::an_mtu_that_differs_is_told_to_the_right",
                [1500, 9000],
                mtu_is_told_to_the_right,
            ),
        ),
        require_program("ping", chain_test("bridge::tcp_finds_the_mtu", [9000, 9000], tcp_finds_the_mtu)),
        chain_test("bridge::datagrams_to_be_split_pass_whole", usual, udp_segments),
        require_program("trafgen", chain_test("bridge::tagged_frames_pass_unchanged", usual, tagged)),
        require_program(
            "tshark",
            require_program("tcpdump", chain_test("bridge::tshark_finds_nothing", usual, expert)),
        ),
        require_program("ip", chain_test("bridge::signals_end_in_good_order", usual, signals)),
        chain_test("bridge::the_first_interface_removed_ends_it", usual, first_removed),
        chain_test("bridge::the_second_interface_removed_ends_it", usual, second_removed),
        chain_test("bridge::it_survives_down_and_up", usual, down_and_up),
        require_program("ip", chain_test("bridge::a_kernel_in_the_middle_is_warned_of", usual, warned)),
        chain_test("bridge::bad_input_is_one_line", usual, bad_input),
    ]
}

/// Starts a bridge between the two ends in the middle, the left one as A, and waits until it forwards.
pub(crate) fn bridge(chain: &Chain, args: &[&str]) -> io::Result<Child> {
    let [a, b] = chain.middle().map(|end| format!("packet:{}", end.name()));
    let mut command = wirestack([&["bridge", "--nic", &a, "--nic", &b, "--json"], args].concat());
    let mut child = chain.at_middle(|| Child::start(&mut command))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

/// A counter of the object that `--json` prints: of a direction (`a_to_b`, `b_to_a`) or a device (`a`, `b`).
pub(crate) fn count(ended: &Ended, of: &str, name: &str) -> u64 {
    let object: Value =
        serde_json::from_str(ended.stdout.lines().last().unwrap_or_default()).expect("an object");
    object[of][name].as_u64().unwrap_or_else(|| panic!("no counter {of}.{name} in {object}"))
}

/// Sends bytes from the left kernel to the right one over TCP, and compares what arrives.
pub(crate) fn transfer(chain: &Chain, address: IpAddr, len: usize) -> io::Result<()> {
    let listener = chain.at_right(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
    let target = listener.local_addr()?;
    let reader = thread::spawn(move || -> io::Result<_> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LONG))?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        // The way back is used as well.
        stream.write_all(&bytes)?;
        Ok(Sha256::digest(&bytes))
    });
    let bytes = noise(len as u64, len);
    let mut stream = chain.at_left(|| TcpStream::connect_timeout(&target, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    stream.write_all(&bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    let there = reader.join().expect("the reader does not panic")?;
    assert_eq!(there, Sha256::digest(&bytes), "{address}: what arrived is not what was sent");
    assert!(back == bytes, "{address}: what came back is not what was sent");
    Ok(())
}

fn has_offloads(chain: &Chain) -> Result<bool, wirestack_apps::testbed::TestbedError> {
    Ok(chain.left().offloads()?.has(Offload::Tso))
}

/// Nothing that only happens if something is wrong has happened.
fn assert_clean(ended: &Ended) {
    for direction in ["a_to_b", "b_to_a"] {
        for name in ["too_big", "unsplittable", "egress_full"] {
            assert_eq!(count(ended, direction, name), 0, "{direction}.{name}: {}", ended.stdout);
        }
    }
    for device in ["a", "b"] {
        for name in ["rx_truncated", "rx_malformed", "rx_unsegmented", "tx_rejected", "tx_oversize"] {
            assert_eq!(count(ended, device, name), 0, "{device}.{name}: {}", ended.stdout);
        }
    }
}

fn tcp_passes(chain: &Chain) -> Outcome {
    for profile in ["latency", "bulk"] {
        let child = bridge(chain, &["--profile", profile])?;
        for address in [IpAddr::from(RIGHT_IPV4), RIGHT_IPV6.into()] {
            transfer(chain, address, 8 << 20)?;
        }
        let ended = end(child)?;
        note(format!("{profile}: {}", ended.stdout.trim()));
        assert_clean(&ended);
        for direction in ["a_to_b", "b_to_a"] {
            assert!(count(&ended, direction, "bytes") > 16 << 20);
            // Super-frames pass as such, or there are none.
            let super_frames = count(&ended, direction, "super_frames");
            assert_eq!(super_frames > 100, has_offloads(chain)?, "{}", ended.stdout);
        }
    }
    Ok(())
}

fn ping_passes(chain: &Chain) -> Outcome {
    let child = bridge(chain, &[])?;
    for (address, source) in
        [(RIGHT_IPV4.to_string(), LEFT_IPV4.to_string()), (RIGHT_IPV6.to_string(), LEFT_IPV6.to_string())]
    {
        let ping = |size: &str| ping(chain, &["-c", "1", "-I", &source, "-s", size, &address]);
        // One at a time: for the last of several it waits as long as the one before took.
        for size in ["0", "56", "1400", "6000"].repeat(5) {
            let ended = ping(size)?;
            assert!(ended.stdout.contains("1 received"), "{size} bytes: {ended}");
        }
    }
    assert_clean(&end(child)?);
    Ok(())
}

/// `ping` at the left kernel, whatever it ends with.
pub(crate) fn ping(chain: &Chain, args: &[&str]) -> io::Result<Ended> {
    let mut command = Command::new("ping");
    command.args(["-n", "-W", "20"]).args(args);
    chain.at_left(|| Child::start(&mut command))?.wait(LONG)
}

fn mtu_is_told(chain: &Chain) -> Outcome {
    let child = bridge(chain, &[])?;
    let address = RIGHT_IPV4.to_string();
    // First what may be fragmented: later the left kernel knows better than to send it whole.
    for _ in 0..3 {
        let ended = ping(chain, &["-c", "1", "-M", "dont", "-s", "8000", &address])?;
        assert!(ended.stdout.contains("1 received"), "{ended}");
    }
    let ended = ping(chain, &["-c", "1", "-M", "do", "-s", "4000", &address])?;
    let told = format!("{}{}", ended.stdout, ended.stderr);
    assert!(told.contains("Frag needed and DF set (mtu = 1500)"), "{ended}");
    assert!(told.contains(&format!("From {address}")), "the bridge has no address of its own: {ended}");
    let ended = ping(chain, &["-c", "1", "-M", "do", "-s", "4000", &address])?;
    assert!(ended.stderr.contains("message too long, mtu=1500"), "it is remembered: {ended}");
    let address = RIGHT_IPV6.to_string();
    let ended = ping(chain, &["-c", "1", "-M", "do", "-s", "4000", &address])?;
    let told = format!("{}{}", ended.stdout, ended.stderr);
    assert!(told.contains("Packet too big: mtu=1500"), "{ended}");
    let ended = end(child)?;
    assert_eq!(count(&ended, "a_to_b", "too_big_fragmented"), 3, "{}", ended.stdout);
    assert_eq!(count(&ended, "a_to_b", "too_big_answered"), 2, "{}", ended.stdout);
    Ok(())
}

/// The same against the other interface.
fn mtu_is_told_to_the_right(chain: &Chain) -> Outcome {
    let child = bridge(chain, &[])?;
    for (address, words) in [(LEFT_IPV4.to_string(), "(mtu = 1500)"), (LEFT_IPV6.to_string(), "mtu=1500")] {
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-W", "20", "-M", "do", "-s", "4000", &address]);
        let ended = chain.at_right(|| Child::start(&mut command))?.wait(LONG)?;
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains(words), "{ended}");
    }
    let ended = end(child)?;
    assert_eq!(count(&ended, "b_to_a", "too_big_answered"), 2, "{}", ended.stdout);
    Ok(())
}

/// Both ends believe in 9000, and only the interface that sends to the right has 1500.
fn tcp_finds_the_mtu(chain: &Chain) -> Outcome {
    chain.middle()[1].set_mtu(1500)?;
    let child = bridge(chain, &[])?;
    for address in [IpAddr::from(RIGHT_IPV4), RIGHT_IPV6.into()] {
        let listener = chain.at_right(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
        let target = listener.local_addr()?;
        let reader = thread::spawn(move || -> io::Result<_> {
            let mut bytes = Vec::new();
            listener.accept()?.0.read_to_end(&mut bytes)?;
            Ok(Sha256::digest(&bytes))
        });
        let bytes = noise(5, 4 << 20);
        let mut stream = chain.at_left(|| TcpStream::connect_timeout(&target, LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        stream.write_all(&bytes)?;
        drop(stream);
        assert_eq!(reader.join().expect("the reader does not panic")?, Sha256::digest(&bytes));
    }
    // What changes later is noticed: until then such packets are lost.
    chain.middle()[1].set_mtu(1400)?;
    let deadline = Instant::now() + LONG;
    let told = |ended: &Ended| format!("{}{}", ended.stdout, ended.stderr).contains("mtu=1400");
    let try_once =
        || ping(chain, &["-c", "1", "-W", "0.2", "-M", "do", "-s", "1450", &RIGHT_IPV4.to_string()]);
    while !told(&try_once()?) {
        assert!(Instant::now() < deadline, "the new MTU is never told");
    }
    let ended = end(child)?;
    assert!(count(&ended, "a_to_b", "too_big_answered") >= 3, "{}", ended.stdout);
    Ok(())
}

fn udp_segments(chain: &Chain) -> Outcome {
    stay_on_one_core();
    const SIZE: usize = 1000;
    let child = bridge(chain, &[])?;
    for (left, right) in
        [(IpAddr::from(LEFT_IPV4), IpAddr::from(RIGHT_IPV4)), (LEFT_IPV6.into(), RIGHT_IPV6.into())]
    {
        let receiver = chain.at_right(|| UdpSocket::bind((right, 0)))?;
        receiver.set_read_timeout(Some(LONG))?;
        let sender = chain.at_left(|| UdpSocket::bind((left, 0)))?;
        sender.connect(receiver.local_addr()?)?;
        // The left kernel finds its neighbour first; until then it keeps few packets.
        sender.send(b"first")?;
        assert_eq!(receiver.recv(&mut [0; 2000])?, 5);
        setsockopt(&sender, sockopt::UdpGsoSegment, &(SIZE as i32))?;
        let bytes = noise(9, 30 * SIZE + 7);
        sender.send(&bytes)?;
        for piece in bytes.chunks(SIZE) {
            let mut room = [0; 2000];
            let len = receiver.recv(&mut room)?;
            assert!(room[..len] == *piece, "{right}: {len} bytes");
        }
    }
    let ended = end(child)?;
    assert_clean(&ended);
    assert_eq!(count(&ended, "a_to_b", "super_frames") >= 2, has_offloads(chain)?, "{}", ended.stdout);
    Ok(())
}

fn tagged(chain: &Chain) -> Outcome {
    const COPIES: usize = 20;
    let child = bridge(chain, &[])?;
    let mut receiver = chain.at_right(|| listen(chain.right()))?;
    let stations = [2, 0, 0, 0, 0, 0xaa, 2, 0, 0, 0, 0, 0xbb];
    let slow_protocols = [1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 0xbb];
    let payload = noise(1, 1486);
    let frames = [
        [&stations[..], &[0x81, 0, 0x20, 5, 8, 0], &payload[..1486]].concat(),
        [&stations[..], &[0x81, 0, 0xe0, 0, 8, 0], &payload[..64]].concat(),
        [&stations[..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 8, 0], &payload[..100]].concat(),
        [&slow_protocols[..], &[0x88, 9], &payload[..110]].concat(),
    ];
    let dir = tempfile::tempdir()?;
    for (number, frame) in frames.iter().enumerate() {
        let bytes: Vec<_> = frame.iter().map(|byte| format!("{byte:#04x}")).collect();
        let file = dir.path().join(format!("{number}.cfg"));
        fs::write(&file, format!("{{ {} }}\n", bytes.join(", ")))?;
        let mut trafgen = Command::new("trafgen");
        trafgen.args([
            "--dev",
            chain.left().name(),
            "--num",
            &COPIES.to_string(),
            "--cpus",
            "1",
            "--no-sock-mem",
        ]);
        trafgen.arg("--conf").arg(&file);
        chain.at_left(|| output(&mut trafgen, LONG))?;
        let deadline = wait::now() + smoltcp::time::Duration::from_secs(LONG.as_secs());
        let mut same = 0;
        while same < COPIES {
            assert!(wait::now() < deadline, "{same} of {COPIES} frames {number} came: {}", child.stderr());
            let found = receiver.receive_with(wait::now(), |came, _| came == &frame[..]);
            match found {
                Some(is_same) => same += usize::from(is_same),
                None => drop(receiver.wait(Some(deadline))?),
            }
        }
    }
    assert_clean(&end(child)?);
    Ok(())
}

fn listen(end: &VethEnd) -> Result<AfPacket<'static>, wirestack_nic::OpenError> {
    let config = AfPacketConfig {
        verify_checksums: false,
        promiscuous: true,
        vlan_tags: VlanTags::PutBackAll,
        ..AfPacketConfig::default()
    };
    AfPacket::open(end.name(), config)
}

/// What an analyst sees at the right end of a clean bridge, and in the bridge's own record.
fn expert(chain: &Chain) -> Outcome {
    stay_on_one_core();
    let dir = tempfile::tempdir()?;
    let [file, own] = ["right.pcap", "own.pcapng"].map(|name| dir.path().join(name));
    let child = bridge(chain, &["--pcap", own.to_str().expect("a plain path")])?;
    let mut command = Command::new("tcpdump");
    command.args(["-i", chain.right().name(), "-n", "-U", "-B", "32768", "-Z", "root", "-w"]).arg(&file);
    command.arg("tcp or udp port 9");
    let mut tcpdump = chain.at_right(|| Child::start(&mut command))?;
    tcpdump.wait_for_line("tcpdump: listening", LONG)?;
    transfer(chain, RIGHT_IPV4.into(), 1 << 20)?;
    // What comes before it is in the file by then.
    let marker = b"the end of the capture";
    let sender = chain.at_right(|| UdpSocket::bind((RIGHT_IPV4, 0)))?;
    // To all: nobody says that nobody listens.
    sender.set_broadcast(true)?;
    sender.send_to(marker, "10.78.0.255:9")?;
    wait_until("the capture is complete", || {
        Ok(std::fs::read(&file)?.windows(marker.len()).any(|window| window == marker))
    })?;
    tcpdump.signal(Signal::SIGINT)?;
    let ended = tcpdump.wait(LONG)?;
    assert!(ended.stderr.contains("\n0 packets dropped by kernel"), "{ended}");
    end(child)?;
    for file in [file, own] {
        let tshark = |filter: &str| {
            let mut command = Command::new("tshark");
            command.env("HOME", dir.path()).env_remove("XDG_CONFIG_HOME").args(["-n", "-r"]).arg(&file);
            command.args(["-o", "ip.check_checksum:TRUE", "-d", "tcp.port==0-65535,data", "-Y", filter]);
            output(&mut command, LONG)
        };
        assert!(tshark("tcp")?.stdout.lines().count() > 40);
        // Windows may be full: that is what a receiver does, and no wire. And on a busy machine an answer
        // may take so long that a segment is sent twice, needlessly.
        let lines = tshark(
            "tcp.analysis.lost_segment || tcp.analysis.out_of_order || tcp.analysis.ack_lost_segment || \
             ip.checksum.status == Bad || _ws.malformed || icmp",
        )?;
        assert_eq!(lines.stdout, "", "{}", file.display());
    }
    Ok(())
}

/// How many ask an interface for the frames of other stations.
fn promiscuity(chain: &Chain) -> io::Result<Vec<u32>> {
    let read = |end: &VethEnd| {
        let mut command = Command::new("ip");
        command.args(["-d", "link", "show", "dev", end.name()]);
        let text = output(&mut command, LONG)?.stdout;
        let mut words = text.split_whitespace().skip_while(|word| *word != "promiscuity").skip(1);
        words.next().and_then(|word| word.parse().ok()).ok_or_else(|| io::Error::other(text.clone()))
    };
    chain.at_middle(|| chain.middle().into_iter().map(read).collect())
}

fn signals(chain: &Chain) -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let child = bridge(chain, &[])?;
        transfer(chain, RIGHT_IPV4.into(), 100_000)?;
        assert_eq!(promiscuity(chain)?, [1, 1]);
        child.signal(signal)?;
        let ended = child.wait(LONG)?;
        assert_eq!(promiscuity(chain)?, [0, 0], "after {signal}");
        if signal != Signal::SIGKILL {
            assert_eq!(ended.status.code(), Some(0), "{ended}");
            assert!(count(&ended, "a_to_b", "frames") > 0);
        }
    }
    Ok(())
}

fn first_removed(chain: &Chain) -> Outcome {
    removed(chain, chain.middle()[0])
}

fn second_removed(chain: &Chain) -> Outcome {
    removed(chain, chain.middle()[1])
}

fn removed(chain: &Chain, end: &VethEnd) -> Outcome {
    let child = bridge(chain, &[])?;
    transfer(chain, RIGHT_IPV4.into(), 100_000)?;
    end.delete()?;
    let ended = child.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    let line = format!("wirestack: {}: the interface is gone\n", end.name());
    assert!(ended.stderr.ends_with(&line), "{ended}");
    assert!(count(&ended, "a_to_b", "frames") > 0);
    Ok(())
}

fn down_and_up(chain: &Chain) -> Outcome {
    let child = bridge(chain, &[])?;
    transfer(chain, RIGHT_IPV4.into(), 100_000)?;
    for side in chain.middle() {
        side.set_down()?;
        // Nobody answers, and the bridge goes on.
        let ended = ping(chain, &["-c", "20", "-i", "0.002", "-W", "0.05", &RIGHT_IPV4.to_string()])?;
        assert!(ended.stdout.contains(" 0 received"), "{ended}");
        side.set_up()?;
        for end in [chain.left(), chain.middle()[0], chain.middle()[1], chain.right()] {
            end.wait_until_up(LONG)?;
        }
        transfer(chain, RIGHT_IPV4.into(), 100_000)?;
    }
    end(child)?;
    Ok(())
}

fn warned(chain: &Chain) -> Outcome {
    let [a, b] = chain.middle();
    b.add_address([10, 79, 0, 1].into(), 24)?;
    let child = bridge(chain, &[])?;
    let ended = end(child)?;
    assert!(ended.stderr.contains(&format!("{} has the address 10.79.0.1", b.name())), "{ended}");
    assert!(!ended.stderr.contains(&format!("{} has", a.name())), "{ended}");
    assert!(!ended.stderr.contains("belongs to"), "{ended}");
    let ip = |args: &[&str]| chain.at_middle(|| output(Command::new("ip").args(args), LONG));
    ip(&["link", "add", "kernel", "type", "bridge"])?;
    ip(&["link", "set", a.name(), "master", "kernel"])?;
    let ended = end(bridge(chain, &[])?)?;
    assert!(ended.stderr.contains(&format!("{} belongs to a bridge", a.name())), "{ended}");
    Ok(())
}

fn bad_input(chain: &Chain) -> Outcome {
    let [a, b] = chain.middle().map(|end| format!("packet:{}", end.name()));
    let cases: [(&[&str], &str); 5] = [
        (&["--nic", &a], "two interfaces are needed"),
        (&["--nic", &a, "--nic", &b, "--nic", &b], "two interfaces are needed"),
        (&["--nic", &a, "--nic", &a], "two different interfaces are needed"),
        (&["--nic", &a, "--nic", "packet:nosuch0"], "--nic packet:nosuch0: "),
        (&["--nic", &a, "--nic", &b, "--pcap", "/no/such/file"], "--pcap /no/such/file: "),
    ];
    for (args, words) in cases {
        let mut command = wirestack([&["bridge"], args].concat());
        let ended = chain.at_middle(|| Child::start(&mut command))?.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(2), "{ended}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
        assert!(ended.stderr.contains(words), "{words:?}: {ended}");
    }
    Ok(())
}
