//! Whole runs on the kernel's sockets, over loopback.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::args::{ClientArgs, PerfCommand};
use super::client::measure;
use super::group::Interrupt;
use super::server::{State, serve};
use super::wire::{Hello, Purpose};
use crate::cli::{self, Command};
use crate::error::AppError;
use crate::sockets::kernel::{self, Kernel};
use crate::sockets::{Options, Program, Sockets};

/// What a person would write behind `perf`, with the kernel's sockets.
pub(super) fn command(part: &str, port: u16, flags: &[&str]) -> PerfCommand {
    let port = port.to_string();
    let words =
        ["wirestack", "perf", part, "--backend", "kernel", "--json", "--interval", "60", "--port", &port];
    let words = words.iter().chain(flags).map(OsString::from);
    match cli::parse(words).expect("sound flags").command {
        Command::Perf(args) => args.command,
        other => panic!("{other:?}"),
    }
}

fn client_args(port: u16, flags: &[&str]) -> ClientArgs {
    let flags = [&["127.0.0.1"], flags].concat();
    match command("client", port, &flags) {
        PerfCommand::Client(args) => args,
        other => panic!("{other:?}"),
    }
}

/// A program that is a closure, for tests.
pub(super) struct OnKernel<F>(pub(super) F);

impl<T, F: AsyncFnOnce(Kernel) -> T> Program for OnKernel<F> {
    type Output = T;

    async fn run<S: Sockets>(self, _: S) -> T {
        (self.0)(Kernel).await
    }
}

pub(super) fn on_kernel<T>(test: impl AsyncFnOnce(Kernel) -> T) -> T {
    kernel::run(OnKernel(test)).expect("a runtime")
}

/// A server on a free port.
async fn server(sockets: Kernel, connections_max: usize) -> (u16, State) {
    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let listener = sockets.listen(local, &Options::default()).await.expect("a free port");
    let port = sockets.listening(&listener).expect("it listens")[0].port();
    let state = State::new(connections_max);
    let its = state.clone();
    sockets.spawn(async move {
        serve(sockets, &listener, &its).await;
    });
    (port, state)
}

fn run(flags: &[&str]) -> Result<Map<String, Value>, AppError> {
    on_kernel(async |sockets| {
        let (port, _) = server(sockets, 1_000).await;
        let args = client_args(port, &[&["--time", "0.2"], flags].concat());
        args.check()?;
        measure(&sockets, &args, &Interrupt::default()).await
    })
}

fn number(result: &Map<String, Value>, name: &str) -> f64 {
    let mut parts = name.split('.');
    let first = result.get(parts.next().expect("a name"));
    let value = parts.fold(first, |value, part| value.and_then(|value| value.get(part)));
    value.and_then(Value::as_f64).unwrap_or_else(|| panic!("{name} is missing in {result:?}"))
}

#[test]
fn all_modes_measure_something() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--mode", "stream"], &["bits_per_second", "sent_bits_per_second", "arrived_bytes", "srtt_us"]),
        (&["--mode", "stream", "--reverse", "-P", "2"], &["bits_per_second", "received_bytes"]),
        (
            &["--mode", "stream", "--bidir", "--size", "1K"],
            &["sent_bits_per_second", "received_bits_per_second", "arrived_bytes"],
        ),
        (&["--mode", "rr", "-P", "3"], &["requests_per_second", "requests", "rtt_us.p50", "rtt_us.p999"]),
        (&["--mode", "rr", "--size", "300K"], &["requests_per_second", "rtt_us.p99"]),
        (&["--mode", "crr", "--size", "64"], &["connects_per_second", "connects", "rtt_us.p50"]),
        (&["--mode", "idle", "-P", "200"], &["connects_per_second", "memory_bytes", "rtt_us.p50"]),
    ];
    for (flags, names) in cases {
        let result = run(flags).unwrap_or_else(|error| panic!("{flags:?}: {error:?}"));
        for name in names {
            assert!(number(&result, name) > 0.0, "{flags:?}: {name} is 0");
        }
        assert!(number(&result, "cpu_seconds") >= 0.0 && number(&result, "server_cpu_seconds") >= 0.0);
        assert!(number(&result, "seconds") >= 0.2, "{flags:?}");
    }
}

#[test]
fn what_the_server_says_of_a_stream_is_what_was_sent() {
    let result = run(&["--mode", "stream"]).expect("a run");
    assert_eq!(number(&result, "sent_bytes"), number(&result, "arrived_bytes"));
    let idle = run(&["--mode", "idle", "-P", "50"]).expect("a run");
    assert_eq!((number(&idle, "server_connections"), number(&idle, "pinged")), (50.0, 50.0));
}

#[test]
fn garbage_is_closed_and_counted_and_others_are_served() {
    on_kernel(async |sockets| {
        let (port, state) = server(sockets, 1_000).await;
        let remote = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let mut old =
            Hello { purpose: Purpose::Once, server_sends: false, request_bytes: 1, response_bytes: 1 }
                .to_bytes();
        old[4] = 0;
        let cases: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", b"", b"WSPF", &old];
        for garbage in cases {
            let mut stream = sockets.connect(remote, &Options::default()).await.expect("it listens");
            stream.write_all(garbage).await.expect("room");
            stream.shutdown().await.expect("a FIN");
            let mut rest = Vec::new();
            // It ends with a FIN, or with a RST if not all was read.
            let _ = stream.read_to_end(&mut rest).await;
            assert_eq!(rest, b"", "{garbage:?} is not answered");
        }
        assert_eq!(state.refused(), cases.len() as u64);
        let args = client_args(port, &["--mode", "rr", "--time", "0.05"]);
        let result = measure(&sockets, &args, &Interrupt::default()).await.expect("a run");
        assert!(number(&result, "requests") > 0.0);
    });
}

#[test]
fn a_full_server_is_one_line() {
    let error = on_kernel(async |sockets| {
        let (port, _) = server(sockets, 3).await;
        let args = client_args(port, &["--mode", "rr", "--time", "0.2", "-P", "8"]);
        measure(&sockets, &args, &Interrupt::default()).await.expect_err("no place")
    });
    assert_eq!((error.message.lines().count(), error.status), (1, 1), "{error:?}");
}

#[test]
fn a_server_that_is_none_is_one_line() {
    let answers: [&[u8]; 3] = [b"", b"SSH-2.0\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"];
    for answer in answers {
        let error = on_kernel(async |sockets| {
            let port = stranger(sockets, answer, 1).await;
            measure(&sockets, &client_args(port, &["--time", "0.2"]), &Interrupt::default())
                .await
                .expect_err("none of ours")
        });
        assert!(error.message.contains("perf server") && error.status == 1, "{error:?}");
    }
    let nobody = on_kernel(async |sockets| {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let listener = sockets.listen(local, &Options::default()).await.expect("a free port");
        let port = sockets.listening(&listener).expect("it listens")[0].port();
        drop(listener);
        measure(&sockets, &client_args(port, &[]), &Interrupt::default()).await.expect_err("nobody")
    });
    assert!(nobody.message.contains("refused"), "{nobody:?}");
}

/// Answers every read with the same, so many times on each connection, then ends it.
async fn stranger(sockets: Kernel, answer: &'static [u8], times: usize) -> u16 {
    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let listener = sockets.listen(local, &Options::default()).await.expect("a free port");
    let port = sockets.listening(&listener).expect("it listens")[0].port();
    sockets.spawn(async move {
        while let Ok((mut stream, _)) = sockets.accept(&listener).await {
            sockets.spawn(async move {
                let mut buffer = [0; 4096];
                for _ in 0..times {
                    match stream.read(&mut buffer).await {
                        Ok(1..) if stream.write_all(answer).await.is_ok() => {}
                        _ => return,
                    }
                }
            });
        }
    });
    port
}

#[test]
fn http_counts_answers_reconnects_and_errors() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const MISSING: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    const CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let http = |answer, times| {
        on_kernel(async |sockets| {
            let port = stranger(sockets, answer, times).await;
            let args = client_args(port, &["--mode", "http", "--time", "0.1", "-P", "4"]);
            measure(&sockets, &args, &Interrupt::default()).await
        })
    };
    let good = http(OK, usize::MAX).expect("a run");
    assert!(number(&good, "requests") > 4.0 && number(&good, "rtt_us.p99") > 0.0);
    assert_eq!((number(&good, "errors"), number(&good, "reconnects")), (0.0, 0.0));
    let missing = http(MISSING, usize::MAX).expect("a run");
    assert_eq!(number(&missing, "requests"), number(&missing, "status_errors"));
    for (answer, times) in [(OK, 3), (CLOSE, usize::MAX)] {
        let result = http(answer, times).expect("a run");
        assert!(number(&result, "requests") > 4.0 && number(&result, "reconnects") > 0.0, "{result:?}");
        assert_eq!(number(&result, "errors"), 0.0);
    }
    let error = http(b"220 mail.example ESMTP\r\n", 1).expect_err("no HTTP");
    assert!(error.message.contains("no HTTP/1.1"), "{error:?}");
}
