//! What a person can get wrong: each mistake is told in one line that names the flag, the value and
//! what would be right, with exit status 2, and leaves the system as it was.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use wirestack_apps::testbed::{OURS_IPV4, Wire, WireOptions};
use wirestack_tests::closing::close;
use wirestack_tests::programs::{Child, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, veth_test, veth_test_with};

use crate::support::{ADDRESSES, LONG, serve};
use crate::talk::{fetch_all, host_args, rules, shell, through};
use crate::testbed::address_ours;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    // To look at the system before and after.
    let looked_at = |cases| {
        ["ip", "nft", "iptables", "ip6tables"]
            .into_iter()
            .fold(cases, |cases, program| require_program(program, cases))
    };
    let setpriv = |cases| looked_at(require_program("setpriv", cases));
    vec![
        looked_at(veth_test("bad_input::flags", flags)),
        looked_at(veth_test("bad_input::an_interface_that_is_down", interface_down)),
        looked_at(veth_test("bad_input::an_address_that_is_served", address_served)),
        looked_at(veth_test("bad_input::a_port_of_the_kernel", port_of_the_kernel)),
        looked_at(veth_test("bad_input::a_port_that_is_served", port_served)),
        looked_at(veth_test("bad_input::a_mac_beside_the_kernels", mac_beside_the_kernels)),
        setpriv(veth_test("bad_input::no_capability_for_packets", no_net_raw)),
        setpriv(veth_test("bad_input::no_capability_for_rules", no_net_admin)),
        looked_at(veth_test_with(
            "bad_input::rings_too_large",
            || WireOptions::with_mtu(9000),
            rings_too_large,
        )),
        looked_at(veth_test("bad_input::a_capture_that_cannot_begin", capture_cannot_begin)),
        veth_test("bad_input::a_capture_that_cannot_go_on", capture_cannot_go_on),
    ]
}

/// Interfaces, addresses and rules at our end, in words.
fn system(wire: &Wire) -> io::Result<String> {
    Ok(shell(wire, "ip -details address show")? + &rules(wire)?)
}

/// Runs a program that is to refuse its start with one line that has all `words`.
pub(crate) fn assert_refused(wire: &Wire, command: &mut Command, words: &[&str]) -> Outcome {
    let before = system(wire)?;
    let ended = wire.at_ours(|| Child::start(command))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{words:?}: {ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{words:?}: {ended}");
    assert_eq!(ended.stdout, "", "{words:?}: {ended}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
    }
    assert_eq!(system(wire)?, before, "{ended}");
    Ok(())
}

/// `http` on both addresses, with `more`.
fn http(wire: &Wire, more: &[&str]) -> Command {
    wirestack(host_args(wire, "http", more))
}

fn flags(wire: &Wire) -> Outcome {
    let refused = |more: &[&str], words: &[&str]| assert_refused(wire, &mut http(wire, more), words);
    let nic = format!("packet:{}", wire.ours().name());
    let on = |nic: &str, address: &str| wirestack(["http", "--nic", nic, "--address", address]);
    assert_refused(
        wire,
        &mut on("packet:nosuchnic0", "10.77.0.2/24"),
        &["--nic", "packet:nosuchnic0", "No such device", "`ip link` lists"],
    )?;
    assert_refused(
        wire,
        &mut on(&nic, "10.77.0.2"),
        &["--address", "10.77.0.2", "the prefix length is missing", "10.0.0.2/24"],
    )?;
    assert_refused(wire, &mut on(&nic, "10.77.0.255/24"), &["--address", "10.77.0.255/24", "host"])?;
    refused(&["--gateway", "192.0.2.1"], &["--gateway", "192.0.2.1", "no prefix"])?;
    refused(
        &["--gateway", "10.77.0.1", "--gateway", "10.77.0.9"],
        &["--gateway", "10.77.0.9", "second one of its IP version"],
    )?;
    refused(&["--dir", "/no/such/dir"], &["--dir", "/no/such/dir", "No such file or directory"])?;
    refused(&["--dir", "/proc/self/status"], &["--dir", "/proc/self/status", "Not a directory"])?;
    refused(
        &["--pcap", "/no/such/dir/x.pcapng"],
        &["--pcap", "/no/such/dir/x.pcapng", "No such file or directory"],
    )?;
    refused(&["--impair", "loss=lots"], &["--impair", "loss=lots"])?;
    refused(&["--impair", "lossy=1%"], &["--impair", "lossy=1%", "loss"])?;
    refused(&["--suppress", "pf"], &["--suppress", "pf", "nft, iptables or none"])?;
    refused(&["--port", "0"], &["--port", "0", "1..=65535"])?;
    refused(&["--device", "rx=fast"], &["--device", "rx=fast", "rx=ring|recv"])?;
    // As it is, the machine is fit to serve.
    serve(wire, &["http"])?;
    Ok(())
}

fn interface_down(wire: &Wire) -> Outcome {
    wire.ours().set_down()?;
    let name = format!("packet:{}", wire.ours().name());
    assert_refused(wire, &mut http(wire, &[]), &["--nic", &name, "is down", "ip link set dev"])?;
    wire.ours().set_up()?;
    serve(wire, &["http"])?;
    Ok(())
}

/// An address that the kernel does not know is for one process.
fn address_served(wire: &Wire) -> Outcome {
    let child = serve(wire, &["http"])?;
    let words = ["--address", "10.77.0.2/24", "another wirestack process", wire.ours().name()];
    assert_refused(wire, &mut http(wire, &["--port", "81"]), &words)?;
    fetch_all(wire, 80)?;
    child.kill_hard()?;
    serve(wire, &["http", "--port", "81"])?;
    Ok(())
}

/// On an address that the kernel has as well, a service of the kernel has the port.
fn port_of_the_kernel(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    for address in ADDRESSES {
        let at = SocketAddr::new(address, 700);
        let tcp = wire.at_ours(|| TcpListener::bind(at))?;
        let words = ["--port 700", &at.to_string(), "in use"];
        assert_refused(wire, &mut http(wire, &["--port", "700"]), &words)?;
        let echo = || wirestack(host_args(wire, "echo", &["--port", "700"]));
        assert_refused(wire, &mut echo(), &words)?;
        close(wire.ours().namespace(), tcp)?;
        let _udp = wire.at_ours(|| UdpSocket::bind(at))?;
        assert_refused(wire, &mut echo(), &words)?;
        // HTTP does not need it.
        serve(wire, &["http", "--port", "700"])?;
    }
    Ok(())
}

/// Two of our own share an address of the kernel as long as their ports differ.
fn port_served(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let _child = serve(wire, &["http"])?;
    let words = ["--port 80", "10.77.0.2:80", "in use"];
    assert_refused(wire, &mut http(wire, &[]), &words)?;
    // The other way round: the kernel's programs do not get it either.
    let error = wire.at_ours(|| TcpListener::bind((OURS_IPV4, 80))).expect_err("the port is reserved");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    fetch_all(wire, 80)?;
    Ok(())
}

fn mac_beside_the_kernels(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let mac = "02-00-00-00-00-07";
    let words = ["--mac", mac, "10.77.0.2", "leave --mac out"];
    assert_refused(wire, &mut http(wire, &["--mac", "02:00:00:00:00:07"]), &words)
}

/// The program without a capability, whether it is root's or that of a user namespace.
fn without(capability: &str, program: &Command) -> Command {
    let dropped = format!("-{capability}");
    through(&["setpriv", "--bounding-set", &dropped, "--inh-caps", &dropped], program)
}

fn no_net_raw(wire: &Wire) -> Outcome {
    let mut command = without("net_raw", &http(wire, &[]));
    let nic = format!("packet:{}", wire.ours().name());
    assert_refused(wire, &mut command, &["--nic", &nic, "Operation not permitted", "CAP_NET_RAW"])
}

fn no_net_admin(wire: &Wire) -> Outcome {
    // Without a need for rules there is no need for the capability.
    let mut child = wire.at_ours(|| Child::start(&mut without("net_admin", &http(wire, &[]))))?;
    child.wait_ready(LONG)?;
    fetch_all(wire, 80)?;
    child.kill_hard()?;
    address_ours(wire)?;
    for method in ["nft", "iptables"] {
        let mut command = without("net_admin", &http(wire, &["--suppress", method]));
        assert_refused(wire, &mut command, &["--suppress", method, "CAP_NET_ADMIN"])?;
    }
    Ok(())
}

/// Slots for frames of 9000 bytes: more than the 4 GiB that a ring can have.
fn rings_too_large(wire: &Wire) -> Outcome {
    for (device, word) in [
        ("burst=1000000", "4 GiB"),
        ("burst=4000,memory=16M", "at most"),
        ("burst=16000000,version=3", "4 GiB"),
    ] {
        let mut command = http(wire, &["--device", device]);
        assert_refused(wire, &mut command, &["--device", device, word])?;
    }
    Ok(())
}

/// A file that cannot be written from the start is told before anything is served.
fn capture_cannot_begin(wire: &Wire) -> Outcome {
    let mut command = http(wire, &["--pcap", "/dev/full"]);
    assert_refused(wire, &mut command, &["--pcap", "/dev/full", "No space left on device"])
}

/// A disk that fills up later is told, and harms nobody.
fn capture_cannot_go_on(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.pcapng").display().to_string();
    // 64 blocks of 512 bytes. Without the trap the kernel kills whoever writes more.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""];
    let mut command = through(&limited, &http(wire, &["--pcap", &file]));
    let mut child = wire.at_ours(|| Child::start(&mut command))?;
    child.wait_ready(LONG)?;
    fetch_all(wire, 80)?;
    child.terminate()?;
    let ended = child.wait(LONG)?;
    assert!(ended.status.success(), "{ended}");
    assert!(ended.stderr.contains("WARN") && ended.stderr.contains("File too large"), "{ended}");
    assert!(ended.stderr.contains("capture_lost="), "{ended}");
    Ok(())
}
