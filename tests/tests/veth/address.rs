//! `--address dhcp` with dnsmasq, names by its DNS, and addresses that others have.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;
use wirestack_apps::testbed::{OURS_IPV4, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_nic::steer::FrameSocket;
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, veth_test};

use crate::bad_input::assert_refused;
use crate::support::{LONG, end};
use crate::talk::{fetch, wait_until};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let dnsmasq = |cases| require_program("dnsmasq", cases);
    vec![
        dnsmasq(veth_test("address::a_lease_is_taken_and_given_back", a_lease)),
        dnsmasq(veth_test("address::names_are_resolved", names)),
        veth_test("address::no_server_is_waited_for_in_vain", no_server),
        veth_test("address::an_address_of_another_host_is_not_taken", taken),
        veth_test("address::forged_claims_do_not_take_it_away", forged),
        require_program("nft", veth_test("address::bad_input", bad_input)),
    ]
}

/// dnsmasq at the peer: DHCP and DNS.
struct Dnsmasq {
    child: Child,
    dir: TempDir,
}

impl Dnsmasq {
    fn start(wire: &Wire) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let leases = dir.path().join("leases");
        let mut command = Command::new("dnsmasq");
        command
            .args([
                // Neither is another user to be found in a user namespace.
                "--no-daemon",
                "--conf-file=/dev/null",
                "--no-ping",
            ])
            .args(["--pid-file=", "--log-dhcp", "--log-facility=-", "--no-resolv", "--no-hosts"])
            .args(["--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,2m", "--dhcp-authoritative"])
            .args(["--dhcp-option=option:router,10.77.0.1", "--dhcp-option=option:dns-server,10.77.0.1"])
            .arg(format!("--host-record=www.example.test,{PEER_IPV4},{PEER_IPV6}"))
            .args(["--dhcp-option=option:domain-search,example.test", "--local=/test/"])
            .arg(format!("--interface={}", wire.peer().name()))
            .arg(format!("--dhcp-leasefile={}", leases.display()));
        let child = wire.at_peer(|| Child::start(&mut command))?;
        let server = Self { child, dir };
        // Both sockets are bound before it says so.
        let started = wait_until("dnsmasq", || Ok(server.child.stderr().contains("started, version")));
        match started {
            Ok(()) => Ok(server),
            Err(_) => Err(io::Error::other(server.child.stderr())),
        }
    }

    fn leases(&self) -> io::Result<String> {
        match fs::read_to_string(self.dir.path().join("leases")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text,
        }
    }
}

fn command(wire: &Wire, program: &str, more: &[&str]) -> Command {
    let nic = format!("packet:{}", wire.ours().name());
    wirestack([&[program, "--nic", &nic], more].concat())
}

fn run(wire: &Wire, program: &str, more: &[&str]) -> io::Result<Ended> {
    let mut command = command(wire, program, more);
    wire.at_ours(|| Child::start(&mut command))?.wait(LONG)
}

fn a_lease(wire: &Wire) -> Outcome {
    let server = Dnsmasq::start(wire)?;
    let mut program = command(wire, "http", &["--address", "dhcp", "--address", "fd77::2/64"]);
    let mut child = wire.at_ours(|| Child::start(&mut program))?;
    let ready = child.wait_ready(LONG)?;
    let words: Vec<_> = ready.split(' ').collect();
    let [_, "http", leased, "[fd77::2]:80"] = words[..] else { return Err(ready.into()) };
    let leased: SocketAddr = leased.parse()?;
    assert!(server.leases()?.contains(&leased.ip().to_string()), "{ready}: {}", server.leases()?);
    for at in [leased, "[fd77::2]:80".parse()?] {
        let page = fetch(wire.peer().namespace(), at, "/")?;
        assert!(String::from_utf8_lossy(&page).contains("wirestack"));
    }
    // A second program with the same hardware address would get the same lease.
    let words = ["--address", "dhcp", "another wirestack process", wire.ours().name()];
    assert_refused(wire, &mut command(wire, "http", &["--address", "dhcp"]), &words)?;
    let ended = end(child)?;
    assert!(ended.stderr.contains("waiting for a DHCP lease"), "{ended}");
    assert!(ended.stderr.contains(&format!("leased {}/24 from 10.77.0.1", leased.ip())), "{ended}");
    wait_until("the lease is given back", || Ok(server.leases()?.lines().count() == 0))?;
    wait_until("it is logged", || Ok(server.child.stderr().contains("DHCPRELEASE")))?;
    Ok(())
}

fn names(wire: &Wire) -> Outcome {
    let server = Dnsmasq::start(wire)?;
    // The servers and the search list of the lease.
    let args = ["--address", "dhcp", "--address", "fd77::2/64"];
    for (more, from) in [
        (&["www.example.test", "-c", "1"][..], "from www.example.test (fd77::1): icmp_seq=1"),
        (&["www", "-4", "-c", "1"], "from www (10.77.0.1): icmp_seq=1"),
        (&["www", "-4", "-c", "1", "-n"], "from 10.77.0.1: icmp_seq=1"),
    ] {
        let ended = run(wire, "ping", &[&args[..], more].concat())?;
        assert!(ended.status.success() && ended.stdout.contains(from), "{ended}");
    }
    // A server that was named.
    let own = format!("{OURS_IPV4}/24");
    let args = ["--address", &own, "--dns", "10.77.0.1", "-c", "1"];
    let ended = run(wire, "ping", &[&args[..], &["www.example.test"]].concat())?;
    assert!(ended.status.success() && ended.stdout.contains("from www.example.test (10.77.0.1)"), "{ended}");
    let ended = run(wire, "ping", &[&args[..], &["other.example.test"]].concat())?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("other.example.test: there is no such name"), "{ended}");
    drop(server);
    Ok(())
}

fn no_server(wire: &Wire) -> Outcome {
    let ended = run(wire, "echo", &["--address", "dhcp", "--address-timeout", "0.5"])?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("--address dhcp: no server has given a lease within 0.5 s"), "{ended}");
    assert_eq!(ended.stdout, "", "{ended}");
    let mac = ["--mac", "02:00:00:00:00:77"];
    let ended = run(wire, "echo", &[&["--address", "slaac", "--address-timeout", "0.5"][..], &mac].concat())?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("--address slaac: no router has advertised a prefix"), "{ended}");
    // Ctrl-C ends the wait.
    let mut program = command(wire, "echo", &["--address", "dhcp"]);
    let mut child = wire.at_ours(|| Child::start(&mut program))?;
    child.wait_for_line("wirestack: waiting for a DHCP lease", LONG)?;
    let ended = end(child)?;
    assert!(!ended.stdout.contains("ready"), "{ended}");
    Ok(())
}

/// The peer has the address already.
fn taken(wire: &Wire) -> Outcome {
    for (probe, address) in
        [("quick", PEER_IPV4.to_string()), ("full", PEER_IPV4.to_string()), ("quick", PEER_IPV6.to_string())]
    {
        let prefix_len = if address.contains(':') { 64 } else { 24 };
        let cidr = format!("{address}/{prefix_len}");
        let ended = run(wire, "echo", &["--address", &cidr, "--probe", probe])?;
        assert_eq!(ended.status.code(), Some(1), "{probe}: {ended}");
        let mac = wire.peer().mac();
        assert!(ended.stderr.contains(&format!("--address {cidr}: another host has it, {mac}")), "{ended}");
        assert_eq!(ended.stdout, "", "{ended}");
        // That is the one line about it.
        assert_eq!(ended.stderr.matches(&mac.to_string()).count(), 1, "{ended}");
    }
    let own = format!("{OURS_IPV4}/24");
    let mut program = command(wire, "echo", &["--address", &own, "--probe", "none"]);
    let mut child = wire.at_ours(|| Child::start(&mut program))?;
    child.wait_ready(LONG)?;
    end(child)?;
    Ok(())
}

/// Somebody claims our address again and again: the server keeps it, and says so by ARP.
fn forged(wire: &Wire) -> Outcome {
    let own = format!("{OURS_IPV4}/24");
    let mut program = command(wire, "echo", &["--address", &own]);
    let mut child = wire.at_ours(|| Child::start(&mut program))?;
    child.wait_ready(LONG)?;
    let stranger = [2, 0, 0, 0, 0, 0x99];
    let ends = [&stranger[..], &OURS_IPV4.octets(), &[0; 6], &OURS_IPV4.octets()].concat();
    let claim = [&[0xff; 6][..], &stranger, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &ends].concat();
    let socket = wire.peer().namespace().run(|| FrameSocket::open(wire.peer().name(), None))?;
    for _ in 0..20 {
        socket.send(&claim)?;
    }
    for _ in 0..3 {
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "-W", "20", &OURS_IPV4.to_string()]);
        let ended = wire.at_peer(|| output(&mut ping, LONG))?;
        assert!(ended.stdout.contains("1 received"), "{ended}");
    }
    end(child)?;
    Ok(())
}

fn bad_input(wire: &Wire) -> Outcome {
    let refused =
        |more: &[&str], words: &[&str]| assert_refused(wire, &mut command(wire, "echo", more), words);
    refused(&["--address", "auto"], &["--address", "auto", "dhcp or slaac"])?;
    refused(&["--address", "dhcp", "--address", "dhcp"], &["--address", "dhcp", "once is enough"])?;
    let twice = ["--address", "10.77.0.2/24", "--address", "10.77.0.2/16"];
    refused(&twice, &["--address", "10.77.0.2/16", "once is enough"])?;
    refused(&["--address", "dhcp", "--gateway", "10.77.0.1"], &["--gateway", "10.77.0.1", "leave it out"])?;
    refused(&["--address", "dhcp", "--address-timeout", "0"], &["--address-timeout", "0", "is accepted"])?;
    let nfqueue = ["echo", "--nic", "nfqueue:7", "--address", "dhcp"];
    assert_refused(wire, &mut wirestack(nfqueue), &["--address", "dhcp", "no hardware addresses"])
}
