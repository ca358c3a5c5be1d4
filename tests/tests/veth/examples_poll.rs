//! The examples of the poll API, as processes of their own, with the kernel as the peer.

#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/poll/echo.rs"]
mod echo;
#[allow(dead_code, unreachable_pub, reason = "it is a program, too")]
#[path = "../../../stack/examples/poll/http.rs"]
mod http;

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, ExitCode};

use wirestack_apps::testbed::{IPV4_PREFIX_LEN, OURS_IPV4, Wire};
use wirestack_tests::programs::Child;
use wirestack_tests::runner::{Case, Outcome, veth_test};

use crate::support::{LONG, noise};
use crate::talk::{echo_tcp, echo_udp};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("examples_poll::echo_sends_back_what_comes", echo_sends_back_what_comes),
        veth_test("examples_poll::http_answers_requests_in_order", http_answers_requests_in_order),
    ]
}

/// First argument of a test binary that is to be one of the examples.
const MARK: &str = "__poll_example";

/// Runs an example if that is what this process was started for.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let mut args = env::args().skip(1);
    (args.next()? == MARK).then(|| {
        let name = args.next().unwrap_or_default();
        let args: Vec<_> = args.collect();
        let ended = match name.as_str() {
            "echo" => echo::run(&args),
            _ => http::run(&args),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    })
}

/// Starts an example at our end, and waits until it serves.
fn start(wire: &Wire, name: &str) -> std::io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args([MARK, name, wire.ours().name(), &format!("{OURS_IPV4}/{IPV4_PREFIX_LEN}")]);
    let mut child = wire.at_ours(|| Child::start(&mut command))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

fn echo_sends_back_what_comes(wire: &Wire) -> Outcome {
    let _child = start(wire, "echo")?;
    let server = SocketAddr::new(OURS_IPV4.into(), 7);
    let namespace = wire.peer().namespace();
    let datagram = noise(1, 1_000);
    assert_eq!(echo_udp(namespace, server, &datagram)?, datagram);
    // Few enough that the kernel's buffers and ours hold them before any is read back.
    let bytes = noise(2, 50_000);
    for _ in 0..3 {
        assert!(echo_tcp(namespace, server, &bytes)? == bytes, "other bytes come back");
    }
    Ok(())
}

fn http_answers_requests_in_order(wire: &Wire) -> Outcome {
    let _child = start(wire, "http")?;
    let server = SocketAddr::new(OURS_IPV4.into(), 80);
    let mut stream = wire.peer().namespace().run(|| TcpStream::connect_timeout(&server, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    let request = "GET / HTTP/1.1\r\nHost: example\r\n\r\n";
    // One whole, two at once, and one in two pieces.
    stream.write_all(request.as_bytes())?;
    stream.write_all(request.repeat(2).as_bytes())?;
    let (first, second) = request.split_at(20);
    stream.write_all(first.as_bytes())?;
    stream.write_all(second.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 4, "{answers}");
    assert_eq!(answers.matches("\r\n\r\nHello, world!\n").count(), 4, "{answers}");
    // What is no head of a request is not waited for for ever.
    let mut stream = wire.peer().namespace().run(|| TcpStream::connect_timeout(&server, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(&noise(3, 5_000))?;
    let mut answer = Vec::new();
    // It is told, or only reset: what it has sent was not read.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
    Ok(())
}
