//! The examples of the blocking and async sockets, as processes of their own, with the kernel and its programs as peers.

#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/blocking/client.rs"]
mod blocking_client;
#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/blocking/echo.rs"]
mod blocking_echo;
#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/blocking/serial.rs"]
mod blocking_serial;
#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/local/echo.rs"]
mod local_echo;
#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/tokio/echo.rs"]
mod tokio_echo;
#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/tokio/http.rs"]
mod tokio_http;

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, ExitCode};

use wirestack_apps::testbed::{IPV4_PREFIX_LEN, OURS_IPV4, PEER_IPV4, Wire};
use wirestack_tests::programs::{Child, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::support::{LONG, noise};
use crate::talk::{echo_tcp, echo_udp};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        require_program("nc", veth_test("examples_sockets::echo_sends_back_what_comes", echo)),
        require_program("curl", veth_test("examples_sockets::http_has_a_page", http)),
        veth_test("examples_sockets::a_client_asks", client),
        veth_test("examples_sockets::a_client_asks_over_a_line", serial),
        veth_test("examples_sockets::wrong_arguments_are_told", wrong_arguments),
    ]
}

/// First argument of a test binary that is to be one of the examples.
const MARK: &str = "__sockets_example";

type Example = fn(&[String]) -> Result<(), Box<dyn Error>>;

const EXAMPLES: [(&str, Example); 6] = [
    ("blocking_echo", blocking_echo::run),
    ("blocking_client", blocking_client::run),
    ("blocking_serial", blocking_serial::run),
    ("tokio_echo", tokio_echo::run),
    ("tokio_http", tokio_http::run),
    ("local_echo", local_echo::run),
];

/// Runs an example if that is what this process was started for.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let mut args = env::args().skip(1);
    if args.next()? != MARK {
        return None;
    }
    let name = args.next().unwrap_or_default();
    let (_, run) = EXAMPLES.into_iter().find(|(known, _)| *known == name)?;
    Some(match run(&args.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn example(wire: &Wire, name: &str, more: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args([MARK, name, wire.ours().name(), &format!("{OURS_IPV4}/{IPV4_PREFIX_LEN}")]).args(more);
    Ok(command)
}

/// Starts an example at our end, and waits until it serves.
fn start(wire: &Wire, name: &str) -> std::io::Result<Child> {
    let mut command = example(wire, name, &[])?;
    let mut child = wire.at_ours(|| Child::start(&mut command))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

fn echo(wire: &Wire) -> Outcome {
    let server = SocketAddr::new(OURS_IPV4.into(), 7);
    let namespace = wire.peer().namespace();
    for name in ["blocking_echo", "tokio_echo", "local_echo"] {
        note(name);
        let _child = start(wire, name)?;
        let datagram = noise(1, 1_000);
        assert_eq!(echo_udp(namespace, server, &datagram)?, datagram);
        let bytes = noise(2, 50_000);
        for _ in 0..3 {
            assert!(echo_tcp(namespace, server, &bytes)? == bytes, "other bytes come back");
        }
        let script = format!("echo over and out | nc -N {OURS_IPV4} 7");
        let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
        assert_eq!(ended.stdout.trim(), "over and out", "{ended}");
    }
    Ok(())
}

fn http(wire: &Wire) -> Outcome {
    let _child = start(wire, "tokio_http")?;
    let urls = ["/one", "/two"].map(|path| format!("http://{OURS_IPV4}{path}"));
    let mut curl = Command::new("curl");
    curl.args(["-gsS", "--fail", "--max-time", "60"]).args(urls);
    let ended = wire.at_peer(|| output(&mut curl, LONG))?;
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines, ["GET /one, over wirestack", "GET /two, over wirestack"], "{ended}");
    Ok(())
}

fn serial(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let line = format!("unix:{}", dir.path().join("line").display());
    let there = format!("{line},listen=on");
    let server =
        ["serial", "--quiet", "--nic", &there, "--address", "10.0.2.2", "--peer", "10.0.2.15", "echo"];
    let mut server = wire.at_peer(|| Child::start(&mut wirestack(server)))?;
    server.wait_ready(LONG)?;
    let mut asks = Command::new(env::current_exe()?);
    asks.args([MARK, "blocking_serial", &line, "10.0.2.15/32", "10.0.2.2:7", "over the wire"]);
    let ended = wire.at_ours(|| output(&mut asks, LONG))?;
    assert!(ended.status.success() && ended.stdout.trim() == "over the wire", "{ended}");
    Ok(())
}

fn client(wire: &Wire) -> Outcome {
    let listener = wire.at_peer(|| TcpListener::bind((PEER_IPV4, 7_007)))?;
    let mut command = example(wire, "blocking_client", &[&format!("{PEER_IPV4}:7007"), "a question"])?;
    let child = wire.at_ours(|| Child::start(&mut command))?;
    let (mut stream, peer) = listener.accept()?;
    assert_eq!(peer.ip(), OURS_IPV4);
    let mut question = String::new();
    stream.read_to_string(&mut question)?;
    assert_eq!(question, "a question");
    stream.write_all(b"an answer\n")?;
    drop(stream);
    let ended = child.wait(LONG)?;
    assert!(ended.status.success() && ended.stdout.trim() == "an answer", "{ended}");
    Ok(())
}

fn wrong_arguments(wire: &Wire) -> Outcome {
    for (name, _) in EXAMPLES {
        let mut command = Command::new(env::current_exe()?);
        let child = wire.at_ours(|| Child::start(command.args([MARK, name, "nothing"])))?;
        let ended = child.wait(LONG)?;
        assert!(!ended.status.success() && ended.stderr.contains("are accepted"), "{name}: {ended}");
    }
    Ok(())
}
