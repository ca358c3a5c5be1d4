//! `wirestack perf`: with iperf3 as the peer in both roles, and with itself on other sockets.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wirestack_apps::testbed::{OURS_IPV4, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::support::{ADDRESSES, LONG, end, serve, url_host};
use crate::talk::host_args;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let iperf3 = |cases| require_program("iperf3", cases);
    vec![
        iperf3(veth_test("perf::iperf3_measures_us", iperf3_measures_us)),
        iperf3(veth_test("perf::we_measure_iperf3", we_measure_iperf3)),
        iperf3(veth_test("perf::a_killed_iperf3_is_got_over", a_killed_iperf3)),
        veth_test("perf::all_modes_with_a_client_of_the_kernels", modes_with_a_kernel_client),
        veth_test("perf::all_modes_with_a_server_of_the_kernels", modes_with_a_kernel_server),
        veth_test("perf::nobody_there_is_one_line", nobody_there),
    ]
}

/// What iperf3, or we as iperf3, can be asked for. Of datagrams no more than a kernel's buffer holds while a program
/// waits for a core.
const TESTS: [&[&str]; 6] =
    [&[], &["-R"], &["-P", "4"], &["--bidir"], &["-u", "-b", "5M"], &["-u", "-R", "-b", "5M"]];

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
}

/// What iperf3 prints with -J, whoever is iperf3.
fn judge(report: &Value, args: &[&str]) {
    assert_eq!(report["error"], Value::Null, "{args:?}: {report}");
    let sums: &[&str] = match args {
        ["-u", ..] => &["sum"],
        ["--bidir"] => &["sum_received", "sum_received_bidir_reverse"],
        _ => &["sum_received"],
    };
    for sum in sums {
        let rate = report["end"][sum]["bits_per_second"].as_f64().unwrap_or_default();
        assert!(rate > 1e6, "{args:?}, {sum}: {rate} bit/s: {}", report["end"]);
    }
    if args.contains(&"-u") {
        let lost = report["end"]["sum"]["lost_percent"].as_f64().unwrap_or(100.0);
        assert!(lost < 20.0, "{args:?}: {lost} % lost: {}", report["end"]);
    }
}

fn iperf3_measures_us(wire: &Wire) -> Outcome {
    let server = serve(wire, &["perf iperf3-server"])?;
    for (position, args) in TESTS.into_iter().enumerate() {
        // IPv4 and IPv6 in turn.
        let address = ADDRESSES[position % 2].to_string();
        let mut iperf3 = Command::new("iperf3");
        iperf3.args(["-c", &address, "-t", "1", "-J"]).args(args);
        note(format!("{args:?}"));
        judge(&json(&wire.at_peer(|| output(&mut iperf3, LONG))?), args);
    }
    end(server)?;
    Ok(())
}

fn we_measure_iperf3(wire: &Wire) -> Outcome {
    let mut iperf3 = Command::new("iperf3");
    iperf3.args(["-s", "--forceflush"]);
    let mut server = wire.at_peer(|| Child::start(&mut iperf3))?;
    for (position, args) in TESTS.into_iter().enumerate() {
        // Between two tests it does not.
        server.wait_for_line(&format!("Server listening on 5201 (test #{})", position + 1), LONG)?;
        let address = [PEER_IPV4.to_string(), PEER_IPV6.to_string()][position % 2].clone();
        let more = [&[&*address, "-t", "1", "-J"], args].concat();
        let mut client = wirestack(host_args(wire, "perf iperf3-client", &more));
        note(format!("{args:?}"));
        judge(&json(&wire.at_ours(|| output(&mut client, LONG))?), args);
    }
    server.kill_hard()?;
    Ok(())
}

/// A client that is killed in the middle is nothing to the next one; a server that is, is one line.
fn a_killed_iperf3(wire: &Wire) -> Outcome {
    let address = OURS_IPV4.to_string();
    let client = |time: &str| {
        let mut iperf3 = Command::new("iperf3");
        iperf3.args(["-c", &address, "-t", time, "--forceflush"]);
        iperf3
    };
    let server = serve(wire, &["perf iperf3-server"])?;
    let mut killed = wire.at_peer(|| Child::start(&mut client("30")))?;
    killed.wait_for_line("[", LONG)?;
    killed.kill_hard()?;
    wire.at_peer(|| output(&mut client("1"), LONG))?;
    end(server)?;

    let mut iperf3 = Command::new("iperf3");
    iperf3.args(["-s", "--forceflush"]);
    let mut other = wire.at_peer(|| Child::start(&mut iperf3))?;
    other.wait_for_line("Server listening", LONG)?;
    let peer = PEER_IPV4.to_string();
    let mut ours = wirestack(host_args(wire, "perf iperf3-client", &[&peer, "-t", "30"]));
    let ours = wire.at_ours(|| Child::start(&mut ours))?;
    other.wait_for_line("Accepted connection", LONG)?;
    std::thread::sleep(Duration::from_millis(300));
    other.kill_hard()?;
    let ended = ours.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    Ok(())
}

/// Modes of our own, and what each of them finds out.
const MODES: [(&str, &[&str], &str); 5] = [
    ("stream", &[], "bits_per_second"),
    ("stream", &["--reverse"], "bits_per_second"),
    ("rr", &["--size", "64"], "requests_per_second"),
    ("crr", &[], "connects_per_second"),
    ("idle", &["--parallel", "50"], "connections"),
];

/// Source ports that are each backend's own. The kernel's server closes first and keeps the ends of connections in TIME-WAIT.
/// smoltcp has no timestamps and draws its sequence numbers at random: every other SYN from such a port looks old, is
/// answered with an ACK, and goes again after a second, which is more than is measured.
fn source_ports(backend: &str) -> &'static str {
    if backend == "smoltcp" { "50000-54999" } else { "61000-65535" }
}

fn measure(
    mode: &str,
    more: &[&str],
    found: &str,
    run: impl Fn(&[&str]) -> std::io::Result<Ended>,
) -> Outcome {
    note(format!("--mode {mode} {more:?}"));
    let ended = run(&[&["--mode", mode, "--time", "1.5", "--json"], more].concat())?;
    let report = json(&ended);
    let value = report[found].as_f64().unwrap_or_default();
    assert!(value > 0.0, "--mode {mode}: {found}: {report}");
    if mode == "rr" {
        assert!(report["rtt_us"]["p50"].as_f64().is_some_and(|p50| p50 > 0.0), "{report}");
    }
    Ok(())
}

fn modes_with_a_kernel_client(wire: &Wire) -> Outcome {
    for backend in ["wirestack", "smoltcp"] {
        note(format!("server: {backend}"));
        let server = serve(wire, &["perf server", "--backend", backend])?;
        let address = OURS_IPV4.to_string();
        let at_peer = |args: &[&str]| {
            let mut client = wirestack([&["perf", "client", &address, "--backend", "kernel"], args].concat());
            wire.at_peer(|| output(&mut client, LONG))
        };
        for (mode, more, found) in MODES {
            measure(mode, more, found, at_peer)?;
        }
        end(server)?;
    }
    let server = serve(wire, &["http", "--api", "poll"])?;
    let address = OURS_IPV4.to_string();
    measure("http", &["--path", "/plain", "--parallel", "8"], "requests_per_second", |args| {
        let client = ["perf", "client", &address, "--port", "80", "--backend", "kernel"];
        wire.at_peer(|| output(&mut wirestack([&client, args].concat()), LONG))
    })?;
    end(server)?;
    Ok(())
}

fn modes_with_a_kernel_server(wire: &Wire) -> Outcome {
    let mut server = wirestack(["perf", "server", "--backend", "kernel"]);
    let mut server = wire.at_peer(|| Child::start(&mut server))?;
    server.wait_ready(LONG)?;
    let address = PEER_IPV4.to_string();
    for backend in ["wirestack", "smoltcp"] {
        note(format!("client: {backend}"));
        for (mode, more, found) in MODES {
            measure(mode, more, found, |args| {
                let ports = ["--source-ports", source_ports(backend)];
                let more = [&[&*address, "--backend", backend], &ports[..], args].concat();
                let mut client = wirestack(host_args(wire, "perf client", &more));
                wire.at_ours(|| output(&mut client, LONG))
            })?;
        }
    }
    end(server)?;
    Ok(())
}

fn nobody_there(wire: &Wire) -> Outcome {
    let address = url_host(PEER_IPV4.into());
    for program in ["perf client", "perf iperf3-client"] {
        let mut ours = wirestack(host_args(wire, program, &[&address]));
        let ended = wire.at_ours(|| Child::start(&mut ours))?.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(1), "{program}: {ended}");
        let said: Vec<_> = ended.stderr.lines().filter(|line| !line.contains("RX ring")).collect();
        assert!(said.len() == 1 && said[0].contains("refuse"), "{program}: {ended}");
    }
    let mut nothing = wirestack(["perf", "client", "10.0.0.1"]);
    let ended = Child::start(&mut nothing)?.wait(LONG)?;
    assert_eq!((ended.status.code(), ended.stderr.lines().count()), (Some(2), 1), "{ended}");
    Ok(())
}
