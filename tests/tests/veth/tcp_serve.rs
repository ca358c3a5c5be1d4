//! Many and large transfers between our TCP and the kernel's, with the programs of others.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{Case, Outcome, require_program, stay_on_one_core, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, noise, serve, url_host};
use crate::talk::{fetch, wait_until};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let curl = |cases| require_program("curl", cases);
    vec![
        curl(veth_test("tcp::files_come_whole", files_come_whole)),
        require_program("socat", veth_test("tcp::files_go_and_come_back", files_go_and_come_back)),
        curl(veth_test("tcp::two_hundred_at_once", two_hundred_at_once)),
        require_program("wrk", veth_test("tcp::wrk_has_no_errors", wrk_has_no_errors)),
        require_program("nc", veth_test("tcp::a_half_closed_peer_gets_the_rest", half_closed)),
        veth_test("tcp::a_peer_that_stays_open_gets_the_end", stays_open),
        veth_test("tcp::a_full_program_takes_the_next_when_one_has_gone", full_program),
        veth_test("tcp::a_crowd_of_idle_connections_is_held", idle_crowd),
        veth_test("tcp::counters_are_on_the_page", counters_on_the_page),
        veth_test("tcp::every_congestion_control_delivers", every_congestion_control),
    ]
}

/// Tens of megabytes by curl, and their hashes.
fn files_come_whole(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let bytes = noise(3, 48 << 20);
    fs::write(dir.path().join("large"), &bytes)?;
    let server = serve(wire, &["http", "--dir", &dir.path().to_string_lossy(), "--json"])?;
    for address in ADDRESSES {
        let url = format!("http://{}/large", url_host(address));
        let script = format!("curl -gsS --fail --max-time 60 {url} | sha256sum");
        let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
        assert!(ended.stdout.starts_with(&hex(&bytes)), "{address}: {ended}");
    }
    let ended = end(server)?;
    assert_eq!(counter(&ended, "tcp_passive_opens"), 2, "{}", ended.stdout);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same up and down at a time, by socat: it finishes its side when the file is sent.
fn files_go_and_come_back(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let (sent, back) = (dir.path().join("sent"), dir.path().join("back"));
    let bytes = noise(4, 32 << 20);
    fs::write(&sent, &bytes)?;
    let server = serve(wire, &["echo", "--json"])?;
    for address in ADDRESSES {
        let kind = if address.is_ipv4() { "TCP4" } else { "TCP6" };
        let script =
            format!("socat -t 60 - {kind}:{}:7 < {} > {}", url_host(address), sent.display(), back.display());
        wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
        assert!(fs::read(&back)? == bytes, "{address}: what came back is not what was sent");
    }
    end(server)?;
    Ok(())
}

fn two_hundred_at_once(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let bytes = noise(5, 300_000);
    fs::write(dir.path().join("file"), &bytes)?;
    let path = dir.path().display();
    let server = serve(wire, &["http", "--dir", &path.to_string(), "--json"])?;
    let script = format!(
        "for i in $(seq 200); do curl -sS --fail --max-time 50 http://{OURS_IPV4}/file -o {path}/$i.out & done; wait"
    );
    let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
    assert_eq!(ended.stderr, "", "curl has nothing to complain about");
    for number in 1..=200 {
        let fetched = fs::read(dir.path().join(format!("{number}.out")))?;
        assert!(fetched == bytes, "number {number}: {} bytes, or others", fetched.len());
    }
    assert_eq!(counter(&end(server)?, "accepted"), 200);
    Ok(())
}

fn wrk_has_no_errors(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--json"])?;
    for (path, connections) in [("bytes/100", "100"), ("bytes/100000", "20")] {
        let mut wrk = Command::new("wrk");
        wrk.args([
            "-t2",
            "-c",
            connections,
            "-d2s",
            "--timeout",
            "30s",
            &format!("http://{OURS_IPV4}/{path}"),
        ]);
        let ended = wire.at_peer(|| output(&mut wrk, LONG))?;
        assert!(!ended.stdout.contains("Socket errors"), "{ended}");
        assert!(!ended.stdout.contains("Non-2xx"), "{ended}");
        let requests = ended.stdout.split(" requests in ").next().and_then(|text| text.lines().last());
        let requests: u64 = requests.unwrap_or_default().trim().parse()?;
        assert!(requests > 20, "{ended}");
    }
    end(server)?;
    Ok(())
}

/// netcat sends everything, finishes its side, and only then reads.
fn half_closed(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    for len in [1, 100_000, 3_000_000] {
        let mut stream = connect(wire, ADDRESSES[0], 7)?;
        let bytes = noise(len as u64, len);
        let mut writer = stream.try_clone()?;
        let sender = std::thread::spawn({
            let bytes = bytes.clone();
            move || writer.write_all(&bytes).and_then(|()| writer.shutdown(Shutdown::Write))
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        sender.join().expect("the sender does not panic")?;
        assert!(back == bytes, "{len}: what came back is not what was sent");
    }
    let script = format!("printf abc | nc -N -w 30 {OURS_IPV4} 7");
    let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
    assert_eq!(ended.stdout.trim_end(), "abc", "{ended}");
    end(server)?;
    Ok(())
}

/// We finish first; the peer reads to the end, stays, and ends some time later.
fn stays_open(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--json"])?;
    let mut streams = Vec::new();
    let begun = Instant::now();
    for _ in 0..10 {
        let mut stream = connect(wire, ADDRESSES[1], 80)?;
        stream.write_all(b"GET /bytes/50000 HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        assert!(answer.len() > 50_000);
        streams.push(stream);
    }
    for mut stream in streams {
        // This way is open still.
        stream.write_all(b"thanks")?;
        stream.shutdown(Shutdown::Write)?;
    }
    // So long it listens to somebody whom it has nothing more to say to.
    let is_late = begun.elapsed() >= Duration::from_secs(2);
    wait_until("all have gone", || Ok(served(wire)? <= 1))?;
    let ended = end(server)?;
    assert!(is_late || counter(&ended, "tcp_resets_sent") == 0, "{}", ended.stdout);
    Ok(())
}

/// Connections that the program has, that of the question included if it was there at the last look.
pub(crate) fn served(wire: &Wire) -> std::io::Result<u64> {
    Ok(counters(wire)?["connections"].as_u64().unwrap_or(u64::MAX))
}

fn counters(wire: &Wire) -> std::io::Result<Value> {
    let page = fetch(wire.peer().namespace(), SocketAddr::new(ADDRESSES[0], 80), "/counters")?;
    Ok(serde_json::from_slice(&page)?)
}

pub(crate) fn connect(wire: &Wire, address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let stream = wire.at_peer(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    Ok(stream)
}

fn echoes(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"echo")?;
    let mut back = [0; 4];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"echo");
    Ok(())
}

fn full_program(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo", "--connections-max", "2", "--backlog", "5", "--json"])?;
    let mut first = connect(wire, ADDRESSES[0], 7)?;
    let mut second = connect(wire, ADDRESSES[0], 7)?;
    echoes(&mut first)?;
    echoes(&mut second)?;
    // The handshake is the stack's, so this one is there, and waits.
    let mut third = connect(wire, ADDRESSES[0], 7)?;
    third.set_read_timeout(Some(Duration::from_millis(300)))?;
    assert!(echoes(&mut third).is_err(), "there is no place for it");
    first.shutdown(Shutdown::Write)?;
    assert_eq!(first.read_to_end(&mut Vec::new())?, 0);
    third.set_read_timeout(Some(LONG))?;
    let mut back = [0; 4];
    third.read_exact(&mut back)?;
    assert_eq!(&back, b"echo", "what it has said meanwhile");
    echoes(&mut second)?;
    drop((second, third));
    let ended = end(server)?;
    assert_eq!(counter(&ended, "accepted"), 3, "{}", ended.stdout);
    assert_eq!(counter(&ended, "held_back"), 1, "{}", ended.stdout);
    Ok(())
}

/// Many that say nothing do not disturb the one that does.
fn idle_crowd(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo", "--json"])?;
    let crowd = (0..400).map(|_| connect(wire, ADDRESSES[0], 7)).collect::<Result<Vec<_>, _>>()?;
    let mut one = connect(wire, ADDRESSES[1], 7)?;
    for _ in 0..100 {
        echoes(&mut one)?;
    }
    for mut stream in crowd {
        echoes(&mut stream)?;
    }
    drop(one);
    assert_eq!(counter(&end(server)?, "accepted"), 401);
    Ok(())
}

fn counters_on_the_page(wire: &Wire) -> Outcome {
    stay_on_one_core();
    let server = serve(wire, &["http"])?;
    fetch(wire.peer().namespace(), SocketAddr::new(ADDRESSES[0], 80), "/bytes/1000000")?;
    wait_until("the page counts", || {
        let page = counters(wire)?;
        let at_least = |name: &str, least| page[name].as_u64().is_some_and(|value| value >= least);
        Ok(at_least("accepted", 1) && at_least("tcp_passive_opens", 1) && at_least("tcp_segments_in", 10))
    })?;
    let page = counters(wire)?;
    // What a late peer makes us repeat is no error; on a wire that loses nothing, only a timer does, and one that
    // expired repeats all that was under way.
    let counted = |name: &str| page[name].as_u64().unwrap_or_default();
    let is_late = counted("tcp_timeouts") > 0;
    assert!(is_late || counted("tcp_retransmits") <= counted("tcp_loss_probes"), "{page}");
    for name in ["tcp_resets_sent", "tcp_bad_acks", "tcp_challenge_acks"] {
        assert_eq!(page[name], 0, "{name}: {page}");
    }
    let ended = end(server)?;
    assert!(ended.stderr.contains(" tcp_segments_in="), "{ended}");
    Ok(())
}

fn every_congestion_control(wire: &Wire) -> Outcome {
    for name in ["reno", "cubic", "bbr"] {
        let server = serve(wire, &["http", "--congestion", name, "--json"])?;
        let at = SocketAddr::new(ADDRESSES[0], 80);
        let bytes = fetch(wire.peer().namespace(), at, "/bytes/20000000")?;
        assert!(bytes.iter().enumerate().all(|(position, byte)| *byte == (position % 251) as u8), "{name}");
        assert_eq!(bytes.len(), 20_000_000, "{name}");
        end(server)?;
    }
    Ok(())
}
