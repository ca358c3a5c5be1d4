//! `wirestack http` with curl, ping and the kernel's TCP as peers.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use wirestack_apps::testbed::{OURS_IPV4, Wire, WireOptions};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{Case, Outcome, require_program, veth_test, veth_test_with};

use crate::support::{ADDRESSES, LONG, counter, end, noise, serve, url_host};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        require_program("curl", veth_test("http::files_arrive_whole", files_arrive_whole)),
        require_program("curl", veth_test("http::a_hundred_at_once", a_hundred_at_once)),
        require_program("curl", veth_test_with("http::jumbo_frames", jumbo, jumbo_frames)),
        require_program("ping", veth_test("http::ping_is_answered", ping_is_answered)),
        veth_test("http::connections_stay_open_and_requests_queue", requests_queue),
        veth_test("http::strangers_are_answered_or_closed", strangers),
        require_program("curl", veth_test("http::many_connections_one_after_the_other", one_after_the_other)),
    ]
}

fn jumbo() -> WireOptions {
    WireOptions::with_mtu(9000)
}

/// Name of a file, and SHA-256 of what is in it.
type Digested = (String, Vec<u8>);

/// Files of these sizes with contents of their own, and their digests.
fn files(lens: &[usize]) -> std::io::Result<(TempDir, Vec<Digested>)> {
    let dir = tempfile::tempdir()?;
    let mut digests = Vec::new();
    for &len in lens {
        let bytes = noise(len as u64, len);
        let name = format!("{len}.bin");
        fs::write(dir.path().join(&name), &bytes)?;
        digests.push((name, Sha256::digest(&bytes).to_vec()));
    }
    Ok((dir, digests))
}

fn fetch_all(wire: &Wire, lens: &[usize]) -> Outcome {
    let (dir, files) = files(lens)?;
    let path = dir.path().to_str().expect("a plain path");
    let server = serve(wire, &["http", "--dir", path, "--json"])?;
    for address in ADDRESSES {
        for (name, digest) in &files {
            let fetched = dir.path().join("fetched");
            let url = format!("http://{}/{name}", url_host(address));
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-g", "--fail", "--max-time", "60", &url, "-o"]).arg(&fetched);
            wire.at_peer(|| output(&mut curl, LONG))?;
            assert_eq!(Sha256::digest(fs::read(&fetched)?).to_vec(), *digest, "{url}");
        }
    }
    let ended = end(server)?;
    for harm in ["rx_malformed", "rx_truncated", "tx_rejected", "tx_oversize"] {
        assert_eq!(counter(&ended, harm), 0, "{harm}: {}", ended.stdout);
    }
    Ok(())
}

pub(crate) fn files_arrive_whole(wire: &Wire) -> Outcome {
    fetch_all(wire, &[0, 1, 1 << 10, 1460, 100 << 20])
}

fn jumbo_frames(wire: &Wire) -> Outcome {
    fetch_all(wire, &[1 << 10, 10 << 20])
}

pub(crate) fn a_hundred_at_once(wire: &Wire) -> Outcome {
    let (dir, files) = files(&[20_000])?;
    let server = serve(wire, &["http", "--dir", dir.path().to_str().expect("a plain path"), "--json"])?;
    let (name, digest) = &files[0];
    // A process each: a hundred connections that begin at the same time.
    let script = format!(
        "for i in $(seq 100); do curl -sS --fail --max-time 30 http://{OURS_IPV4}/{name} -o {}/$i.out & done; wait",
        dir.path().display()
    );
    let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
    assert_eq!(ended.stderr, "", "curl has nothing to complain about");
    for number in 1..=100 {
        let fetched = fs::read(dir.path().join(format!("{number}.out")))?;
        assert_eq!(Sha256::digest(fetched).to_vec(), *digest, "number {number}");
    }
    assert_eq!(counter(&end(server)?, "accepted"), 100);
    Ok(())
}

pub(crate) fn ping_is_answered(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http"])?;
    for address in ADDRESSES {
        for size in ["0", "56", "1400"] {
            // One at a time: for the last of several it waits as long as the one before took.
            for _ in 0..5 {
                let mut ping = Command::new("ping");
                ping.args(["-c", "1", "-W", "20", "-s", size, &address.to_string()]);
                let ended = wire.at_peer(|| output(&mut ping, LONG))?;
                assert!(ended.stdout.contains(" 1 received"), "{ended}");
                assert!(!ended.stdout.contains("DUP"), "{ended}");
            }
        }
    }
    end(server)?;
    Ok(())
}

fn open(wire: &Wire) -> std::io::Result<TcpStream> {
    let stream = wire.at_peer(|| TcpStream::connect_timeout(&SocketAddr::new(ADDRESSES[0], 80), LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

pub(crate) fn requests_queue(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--api", "poll"])?;
    let mut stream = open(wire)?;
    // Three requests in four pieces, the last one asking for the end.
    for piece in [
        "GET /bytes/3 HTTP/1.1\r\nHo",
        "st: h\r\n\r\nHEAD /bytes/5 HTTP/1.1\r\nHost: h\r\n\r\nGET ",
        "/bytes/2 HTTP/1.1\r\nHost: h\r\n",
        "Connection: close\r\n\r\n",
    ] {
        stream.write_all(piece.as_bytes())?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{text}");
    assert!(
        text.contains("Content-Length: 3\r\nConnection: keep-alive\r\n\r\n\u{0}\u{1}\u{2}HTTP"),
        "{text}"
    );
    assert!(text.contains("Content-Length: 5\r\nConnection: keep-alive\r\n\r\nHTTP"), "{text}");
    assert!(text.ends_with("Content-Length: 2\r\nConnection: close\r\n\r\n\u{0}\u{1}"), "{text}");
    // Many at once: they are read as they are answered, and no faster.
    let mut stream = open(wire)?;
    let mut writer = stream.try_clone()?;
    let request = "GET /bytes/1 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(PIPELINED - 1)
        + "GET /bytes/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let thread = std::thread::spawn(move || writer.write_all(request.as_bytes()));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    thread.join().expect("the writer does not panic")?;
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200 OK\r\n").count(), PIPELINED);
    end(server)?;
    Ok(())
}

const PIPELINED: usize = 20_000;

pub(crate) fn strangers(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--api", "poll"])?;
    for (request, answer) in [
        (&b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"[..], "HTTP/1.1 405 "),
        (b"GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1 400 "),
        (b"GET / HT", ""),
        (b"", ""),
    ] {
        let mut stream = open(wire)?;
        // Well before the server would give up a peer that does nothing.
        stream.set_read_timeout(Some(LONG / 3))?;
        stream.write_all(request)?;
        stream.shutdown(Shutdown::Write)?;
        let mut got = Vec::new();
        // Half a request is answered with a RST; all others end in good order.
        match stream.read_to_end(&mut got) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset && request == b"GET / HT" => {}
            Err(error) => return Err(format!("{request:?}: {error}").into()),
        }
        assert!(String::from_utf8_lossy(&got).starts_with(answer), "{request:?}: {got:?}");
        assert_eq!(got.is_empty(), answer.is_empty(), "{request:?}: {got:?}");
    }
    // And it still serves.
    let mut stream = open(wire)?;
    stream.write_all(b"GET /bytes/1 HTTP/1.0\r\n\r\n")?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    assert!(got.starts_with(b"HTTP/1.1 200 "));
    end(server)?;
    Ok(())
}

/// More connections than the host has sockets, each closed by the server first.
pub(crate) fn one_after_the_other(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--json"])?;
    let script = format!(
        "i=0; while [ $i -lt 8 ]; do \
         curl -sS --fail --max-time 30 -H 'Connection: close' 'http://{OURS_IPV4}/bytes/10?[1-100]' -o /dev/null || exit 1; \
         i=$((i + 1)); done"
    );
    wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
    assert_eq!(counter(&end(server)?, "accepted"), 800);
    Ok(())
}
