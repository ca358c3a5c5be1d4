//! `wirestack ping` with the kernel as the one who answers, and the other way round.

use std::io;
use std::process::Command;

use nix::sys::signal::Signal;
use wirestack_apps::testbed::{OURS_IPV4, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::bad_input::assert_refused;
use crate::support::{ADDRESSES, LONG, end, serve};
use crate::talk::{host_args, rules};
use crate::testbed::address_ours;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("ping::the_kernel_answers", the_kernel_answers),
        veth_test("ping::all_sizes_are_answered", all_sizes_are_answered),
        veth_test("ping::a_flood_is_answered", a_flood_is_answered),
        veth_test("ping::what_is_too_long_is_told", too_long),
        veth_test("ping::nobody_is_unreachable", nobody),
        require_program("ip", veth_test("ping::routers_tell_errors", routers_tell_errors)),
        veth_test("ping::duplicates_are_called_so", duplicates),
        veth_test("ping::statistics_come_at_a_signal", at_a_signal),
        veth_test("ping::beside_the_kernel_on_its_address", beside_the_kernel),
        require_program("ping", veth_test("ping::the_kernel_pings", the_kernel_pings)),
        require_program("nft", veth_test("ping::bad_input", bad_input)),
    ]
}

/// Runs `ping` at our end until it ends.
fn ping(wire: &Wire, more: &[&str]) -> io::Result<Ended> {
    let mut command = wirestack(host_args(wire, "ping", more));
    wire.at_ours(|| Child::start(&mut command))?.wait(LONG)
}

fn the_kernel_answers(wire: &Wire) -> Outcome {
    for (to, head) in
        [(PEER_IPV4.to_string(), "56(84) bytes of data."), (PEER_IPV6.to_string(), "56 data bytes")]
    {
        let ended = ping(wire, &[&to, "-c", "3", "-i", "0.01"])?;
        assert_eq!(ended.status.code(), Some(0), "{ended}");
        let lines: Vec<_> = ended.stdout.lines().collect();
        assert_eq!(lines.len(), 8, "{ended}");
        assert_eq!(lines[0], format!("PING {to} ({to}) {head}"));
        for (number, line) in lines[1..4].iter().enumerate() {
            let begin = format!("64 bytes from {to}: icmp_seq={} ttl=64 time=", number + 1);
            assert!(line.starts_with(&begin) && line.ends_with(" ms"), "{ended}");
        }
        assert_eq!(lines[5], format!("--- {to} ping statistics ---"));
        assert!(lines[6].starts_with("3 packets transmitted, 3 received, 0% packet loss, time "), "{ended}");
        assert!(lines[7].starts_with("rtt min/avg/max/mdev = "), "{ended}");
    }
    let ended =
        ping(wire, &[&PEER_IPV4.to_string(), "-c", "2", "-i", "0", "--json", "-t", "9", "-Q", "0xb8"])?;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!((report["transmitted"].as_u64(), report["received"].as_u64()), (Some(2), Some(2)), "{ended}");
    for name in ["min", "avg", "max", "mdev", "p50", "p99"] {
        assert!(report["rtt_us"][name].as_f64().is_some(), "{name}: {ended}");
    }
    assert!(report["counters"]["stack_rx_frames"].as_u64() >= Some(2), "{ended}");
    // A name that is known without a server.
    let ended = ping(wire, &["localhost", "-4", "-c", "1", "-n"])?;
    assert!(ended.stdout.contains("64 bytes from 127.0.0.1: icmp_seq=1"), "{ended}");
    Ok(())
}

fn all_sizes_are_answered(wire: &Wire) -> Outcome {
    for to in [PEER_IPV4.to_string(), PEER_IPV6.to_string()] {
        // With and without fragments, and the longest there is.
        for sweep in ["0:64", "1400:1500:4", "0:9000:450", "65507:65507"] {
            note(format!("{to} {sweep}"));
            let ended = ping(wire, &[&to, "--sweep", sweep, "-i", "0", "-q"])?;
            assert_eq!(ended.status.code(), Some(0), "{ended}");
            assert!(ended.stdout.contains(" 0% packet loss"), "{ended}");
            assert!(!ended.stdout.contains("corrupted"), "{ended}");
        }
    }
    Ok(())
}

fn a_flood_is_answered(wire: &Wire) -> Outcome {
    for more in [&["-f"][..], &["-f", "--busy-poll"]] {
        let to = PEER_IPV4.to_string();
        let args = [&[to.as_str(), "-c", "500"][..], more].concat();
        let ended = ping(wire, &args)?;
        assert_eq!(ended.status.code(), Some(0), "{ended}");
        assert!(ended.stdout.contains("500 packets transmitted, 500 received"), "{ended}");
    }
    Ok(())
}

fn too_long(wire: &Wire) -> Outcome {
    for (to, flag) in [(PEER_IPV4.to_string(), "-Mdo"), (PEER_IPV6.to_string(), "-Mdo")] {
        let ended = ping(wire, &[&to, flag, "-s", "1473", "-c", "1", "-W", "0.1"])?;
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        assert!(ended.stderr.contains("ping: local error: message too long, mtu: 1500"), "{ended}");
        assert!(
            ended.stdout.contains("1 packets transmitted, 0 received, +1 errors, 100% packet loss"),
            "{ended}"
        );
    }
    Ok(())
}

fn nobody(wire: &Wire) -> Outcome {
    for (to, words) in [
        ("10.77.0.99", "From 10.77.0.2 icmp_seq=1 Destination Host Unreachable"),
        ("fd77::99", "From fd77::2 icmp_seq=1 Destination unreachable: Address unreachable"),
    ] {
        let ended = ping(wire, &[to, "-c", "1"])?;
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        // From the first request to the last one: the wait is not in it.
        assert!(ended.stdout.contains("100% packet loss, time 0ms"), "{ended}");
        assert!(ended.stdout.contains(words), "{ended}");
        assert!(ended.stdout.contains("1 packets transmitted, 0 received, +1 errors"), "{ended}");
    }
    Ok(())
}

/// The peer's kernel as a router, to somewhere that it knows and somewhere that it does not.
fn routers_tell_errors(wire: &Wire) -> Outcome {
    let line = format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; ip route add 192.0.2.0/24 via 10.77.0.9 dev {0}; \
         ip route add unreachable 198.51.100.0/24",
        wire.peer().name()
    );
    wire.at_peer(|| output(Command::new("sh").args(["-c", &line]), LONG))?;
    let gateway = PEER_IPV4.to_string();
    for (to, words) in [
        ("192.0.2.1", "From 10.77.0.1 icmp_seq=1 Time to live exceeded"),
        ("198.51.100.1", "From 10.77.0.1 icmp_seq=1 Destination Host Unreachable"),
    ] {
        // The second one gets as far as to the route.
        let hops = if to == "192.0.2.1" { "1" } else { "2" };
        let ended = ping(wire, &[to, "-c", "1", "-t", hops, "--gateway", &gateway])?;
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        assert!(ended.stdout.contains(words), "{ended}");
    }
    // Without a router there is no way.
    let ended = ping(wire, &["192.0.2.1", "-c", "1"])?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("192.0.2.1: no route to the destination"), "{ended}");
    Ok(())
}

fn duplicates(wire: &Wire) -> Outcome {
    let ended = ping(wire, &[&PEER_IPV4.to_string(), "-c", "3", "-i", "0.2", "--impair", "duplicate=100%"])?;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
    assert!(ended.stdout.contains("icmp_seq=1 ttl=64") && ended.stdout.contains(" ms (DUP!)"), "{ended}");
    assert!(ended.stdout.contains("3 packets transmitted, 3 received, +"), "{ended}");
    assert!(ended.stdout.contains(" duplicates, 0% packet loss"), "{ended}");
    Ok(())
}

fn at_a_signal(wire: &Wire) -> Outcome {
    let mut command = wirestack(host_args(wire, "ping", &[&PEER_IPV4.to_string()]));
    let mut child = wire.at_ours(|| Child::start(&mut command))?;
    child.wait_for_line("64 bytes from ", LONG)?;
    child.signal(Signal::SIGINT)?;
    let ended = child.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
    assert!(ended.stdout.contains("--- 10.77.0.1 ping statistics ---"), "{ended}");
    // So does the end of whoever reads, and no answer is waited for any longer.
    let program = wirestack(host_args(wire, "ping", &[&PEER_IPV4.to_string(), "-i", "0.01", "-D"]));
    let mut reader = wire.at_ours(|| Child::start(&mut piped(&program)))?;
    reader.wait_for_line("PING ", LONG)?;
    let ended = reader.wait(LONG)?;
    let line = ended.stdout.lines().find(|line| line.contains("64 bytes from ")).unwrap_or_default();
    assert!(ended.status.success() && line.starts_with('['), "{ended}");
    // A deadline ends it as well.
    let ended = ping(wire, &[&PEER_IPV4.to_string(), "-w", "1", "-i", "0.4", "-q"])?;
    assert!(ended.status.success() && ended.stdout.contains(" 0% packet loss"), "{ended}");
    Ok(())
}

/// A program whose reader goes after some lines.
fn piped(program: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" | head -n 3", "sh"]).arg(program.get_program()).args(program.get_args());
    command
}

/// The kernel is silent on echo replies, and so both can ping from one address. Killed, nothing is left.
fn beside_the_kernel(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let before = rules(wire)?;
    for to in [PEER_IPV4.to_string(), PEER_IPV6.to_string()] {
        for size in ["56", "9000"] {
            let ended = ping(wire, &[&to, "-c", "2", "-i", "0.01", "-s", size])?;
            assert!(ended.status.success() && ended.stdout.contains("2 received, 0% packet loss"), "{ended}");
        }
    }
    let mut command = wirestack(host_args(wire, "ping", &[&PEER_IPV4.to_string()]));
    let mut child = wire.at_ours(|| Child::start(&mut command))?;
    child.wait_for_line("64 bytes from ", LONG)?;
    assert_ne!(rules(wire)?, before);
    child.kill_hard()?;
    assert_eq!(rules(wire)?, before);
    Ok(())
}

fn the_kernel_pings(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    for address in ADDRESSES {
        for size in ["0", "56", "1472", "1473", "9000", "65507"] {
            let line = format!("ping -n -c 1 -W 20 -s {size} {address}");
            let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &line]), LONG))?;
            assert!(ended.stdout.contains("1 received, 0% packet loss"), "{ended}");
        }
    }
    let ended = end(server)?;
    assert!(!ended.stderr.contains("drop_ip_malformed"), "{ended}");
    Ok(())
}

fn bad_input(wire: &Wire) -> Outcome {
    let refused = |more: &[&str], words: &[&str]| {
        assert_refused(wire, &mut wirestack(host_args(wire, "ping", more)), words)
    };
    refused(&[], &["HOST"])?;
    refused(&["10.77.0.1", "-c", "0"], &["-c", "0", "1..="])?;
    refused(&["10.77.0.1", "-i", "-1"], &["-i", "-1", "0 to 86400"])?;
    refused(&["10.77.0.1", "-s", "65528"], &["-s", "65528", "0..=65527"])?;
    refused(&["10.77.0.1", "-s", "65508"], &["-s", "65508", "0..=65507", "IPv4"])?;
    refused(&["10.77.0.1", "-t", "0"], &["-t", "0", "1..=255"])?;
    refused(&["10.77.0.1", "-Q", "300"], &["-Q", "300", "0 to 255"])?;
    refused(&["10.77.0.1", "-M", "maybe"], &["-M", "maybe", "dont"])?;
    refused(&["10.77.0.1", "--sweep", "5:1"], &["--sweep", "5:1", "MIN:MAX:STEP"])?;
    refused(&["10.77.0.1", "-W", "0"], &["-W", "0", "is accepted"])?;
    refused(&["10.77.0.1", "-6"], &["-6", "10.77.0.1", "other IP version"])?;
    refused(&["10.77.0.1", "-f", "-i", "1"], &["-f", "-i"])?;
    refused(&["10.77.0.1", "--dns", "one"], &["--dns", "one", "an address is accepted"])?;
    refused(&["a..b"], &["HOST", "a..b"])?;
    refused(&["no.such.name", "--probe", "slow"], &["--probe", "slow", "full, quick or none"])?;
    let nfqueue = ["ping", "10.77.0.1", "--nic", "nfqueue:7", "--address", "10.77.0.2/24"];
    assert_refused(wire, &mut wirestack(nfqueue), &["--nic", "nfqueue:7", "packet:"])?;
    // It is our own address: the stack answers itself.
    let ended = ping(wire, &[&OURS_IPV4.to_string(), "-c", "1"])?;
    assert!(ended.status.success(), "{ended}");
    Ok(())
}
