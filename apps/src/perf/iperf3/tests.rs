//! Both roles against each other and against strangers, on the kernel's sockets, over loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::test;
use super::control::{State, new_cookie, read_state};
use super::server::serve;
use crate::error::AppError;
use crate::perf::args::{Iperf3ClientArgs, Iperf3ServerArgs, PerfCommand};
use crate::perf::group::Interrupt;
use crate::perf::tests::{command, on_kernel};
use crate::sockets::kernel::Kernel;
use crate::sockets::{Options, Sockets};

fn client_args(host: &str, port: u16, flags: &[&str]) -> Iperf3ClientArgs {
    match command("iperf3-client", port, &[&[host], flags].concat()) {
        PerfCommand::Iperf3Client(args) => args,
        other => panic!("{other:?}"),
    }
}

fn server_args(port: u16) -> Iperf3ServerArgs {
    match command("iperf3-server", port, &[]) {
        PerfCommand::Iperf3Server(args) => args,
        other => panic!("{other:?}"),
    }
}

/// A server on a free port.
async fn server(sockets: Kernel) -> u16 {
    let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let listener = sockets.listen(local, &Options::default()).await.expect("a free port");
    let port = sockets.listening(&listener).expect("it listens")[0].port();
    sockets.spawn(async move {
        let args = server_args(port);
        serve(&sockets, listener, &args, &Interrupt::default()).await.expect("it serves for ever");
    });
    port
}

fn run(host: &str, flags: &[&str]) -> Result<Value, AppError> {
    on_kernel(async |sockets| {
        let port = server(sockets).await;
        test(&sockets, &client_args(host, port, flags), &Interrupt::default()).await
    })
}

fn number(result: &Value, name: &str) -> f64 {
    let value = name.split('.').try_fold(result, |value, part| value.get(part));
    value.and_then(Value::as_f64).unwrap_or_else(|| panic!("{name} is missing in {result}"))
}

#[test]
fn both_roles_agree_on_what_was_moved() {
    let cases: [(&str, &[&str], &[&str]); 8] = [
        ("127.0.0.1", &["-n", "20M"], &["end.sum_sent", "end.sum_received"]),
        ("::1", &["-n", "20M", "-R"], &["end.sum_sent", "end.sum_received"]),
        ("127.0.0.1", &["-n", "20M", "-P", "8"], &["end.sum_sent", "end.sum_received"]),
        ("127.0.0.1", &["-n", "20M", "--bidir"], &["end.sum_sent", "end.sum_received_bidir_reverse"]),
        ("127.0.0.1", &["-n", "1M", "-b", "80M", "-N"], &["end.sum_sent", "end.sum_received"]),
        ("127.0.0.1", &["-u", "-b", "40M", "-n", "500K", "-l", "1400"], &["end.sum_sent", "end.sum"]),
        ("::1", &["-u", "-b", "40M", "-n", "500K", "-R"], &["end.sum_sent", "end.sum"]),
        (
            "127.0.0.1",
            &["-u", "-b", "20M", "-n", "500K", "--bidir", "-P", "2"],
            &["end.sum", "end.sum_bidir_reverse"],
        ),
    ];
    for (host, flags, sums) in cases {
        let result = run(host, flags).unwrap_or_else(|error| panic!("{flags:?}: {error:?}"));
        for sum in sums {
            assert!(number(&result, &format!("{sum}.bits_per_second")) > 0.0, "{flags:?}: {sum} of {result}");
        }
        assert!(number(&result, "bits_per_second") > 0.0);
        let (sent, received) =
            (number(&result, "end.sum_sent.bytes"), number(&result, "end.sum_received.bytes"));
        // What was on its way at the end counts for one only.
        assert!(sent >= received && received > 0.0 || flags.contains(&"-R"), "{flags:?}: {sent}, {received}");
    }
}

#[test]
fn datagrams_are_counted_and_paced() {
    let result = run("127.0.0.1", &["-u", "-b", "8M", "-n", "200K", "-l", "1000"]).expect("a test");
    assert_eq!(number(&result, "end.sum_sent.packets"), 205.0, "{result}");
    assert_eq!(number(&result, "end.sum.lost_packets"), 0.0);
    // 1.6 Mbit at 8 Mbit/s are a fifth of a second; not less, but for what is made up for.
    assert!(number(&result, "end.sum_sent.seconds") > 0.1);
}

#[test]
fn parameters_that_cannot_be_had_are_refused_by_the_server() {
    let error = run("127.0.0.1", &["-C", "reno", "-n", "1M"]).map(drop);
    // Not every kernel has it; then it is refused at our own end.
    assert!(error.is_ok() || error.is_err_and(|error| error.message.contains("congestion")));
    on_kernel(async |sockets| {
        let port = server(sockets).await;
        let remote = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let mut control = sockets.connect(remote, &Options::default()).await.expect("it listens");
        control.write_all(&new_cookie()).await.expect("room");
        assert_eq!(read_state(&mut control).await.expect("a state"), State::ParamExchange);
        control.write_all(b"\0\0\0\x1c{\"tcp\":true,\"parallel\":1000}").await.expect("room");
        assert_eq!(read_state(&mut control).await.expect("a state"), State::ServerError);
        let mut rest = Vec::new();
        control.read_to_end(&mut rest).await.expect("the end");
        assert_eq!(rest, [0, 0, 0, 114, 0, 0, 0, 0]);
    });
}

#[test]
fn the_server_goes_on_after_strangers_and_busy_is_said() {
    let cookie = new_cookie();
    let with = |more: &[u8]| [&cookie[..], more].concat();
    let garbage: [Vec<u8>; 6] = [
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        with(b""),
        with(b"\xff\xff\xff\xff"),
        with(b"\0\0\0\x02{]"),
        // Sound parameters, and no streams.
        with(b"\0\0\0\x0c{\"tcp\":true}"),
    ];
    on_kernel(async |sockets| {
        let port = server(sockets).await;
        let remote = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        for bytes in &garbage {
            let mut stream = sockets.connect(remote, &Options::default()).await.expect("it listens");
            stream.write_all(bytes).await.expect("room");
            stream.shutdown().await.expect("a FIN");
            let mut rest = Vec::new();
            // It ends with a FIN, or with a RST if not all was read.
            let _ = stream.read_to_end(&mut rest).await;
        }
        let args = client_args("127.0.0.1", port, &["-n", "1M"]);
        test(&sockets, &args, &Interrupt::default()).await.expect("a test after the strangers");
        // Somebody who holds the server.
        let mut holder = sockets.connect(remote, &Options::default()).await.expect("it listens");
        holder.write_all(&new_cookie()).await.expect("room");
        assert_eq!(read_state(&mut holder).await.expect("a state"), State::ParamExchange);
        let busy = test(&sockets, &args, &Interrupt::default()).await.expect_err("no place");
        assert!(busy.message.contains("busy"), "{busy:?}");
        drop(holder);
    });
}

#[test]
fn what_servers_say_wrong_is_one_line() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "closed the control connection"),
        (b"\xff", "busy with another test"),
        (b"\x4d", "77 is no state"),
        (b"\x0b", "told to end"),
        (b"\xfe\0\0\0\x07\0\0\0\x02", "iperf3 error 7, errno 2"),
        (b"\x02", "says TestRunning"),
        (b"\x09", "closed the control connection"),
        (b"\x09\x0a", "closed the control connection"),
    ];
    for (answer, expected) in cases {
        let error = on_kernel(async |sockets| {
            let local = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), 0);
            let listener = sockets.listen(local, &Options::default()).await.expect("a free port");
            let port = sockets.listening(&listener).expect("it listens")[0].port();
            sockets.spawn(async move {
                while let Ok((mut control, _)) = sockets.accept(&listener).await {
                    control.write_all(answer).await.expect("room");
                    control.shutdown().await.expect("a FIN");
                    sockets.spawn(async move {
                        let mut rest = Vec::new();
                        let _ = control.read_to_end(&mut rest).await;
                    });
                }
            });
            let args = client_args("127.0.0.1", port, &["-n", "1M"]);
            test(&sockets, &args, &Interrupt::default()).await.expect_err("no iperf3")
        });
        assert!(error.message.contains(expected), "{answer:?}: {error:?}");
        assert_eq!((error.message.lines().count(), error.status), (1, 1));
    }
}

#[test]
fn a_client_that_is_gone_in_the_middle_frees_the_server() {
    on_kernel(async |sockets| {
        let port = server(sockets).await;
        for flags in [&["-t", "60"][..], &["-t", "60", "-R"], &["-t", "60", "-u", "-R"]] {
            let args = client_args("127.0.0.1", port, flags);
            let interrupt = Interrupt::default();
            let testing = Box::pin(test(&sockets, &args, &interrupt));
            let sleep = std::pin::pin!(
                sockets.sleep_until(sockets.now() + smoltcp::time::Duration::from_millis(150))
            );
            // Dropped in the middle, as a process that was killed.
            drop(futures_util::future::select(testing, sleep).await);
            let short = client_args("127.0.0.1", port, &["-n", "1M"]);
            let mut result = test(&sockets, &short, &interrupt).await;
            // The server may not have seen the end yet.
            for _ in 0..200 {
                if result.is_ok() {
                    break;
                }
                sockets.sleep_until(sockets.now() + smoltcp::time::Duration::from_millis(10)).await;
                result = test(&sockets, &short, &interrupt).await;
            }
            assert!(result.is_ok(), "{flags:?}: {result:?}");
        }
    });
}
