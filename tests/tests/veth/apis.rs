//! The programs on every interface of the stack, with clients that others wrote.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use wirestack_apps::testbed::{OURS_IPV4, PEER_IPV4, Wire};
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, noise, serve, url_host};
use crate::talk::{echo_udp, host_args};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let curl = |cases| require_program("curl", cases);
    vec![
        veth_test("apis::echo_on_each", echo_on_each),
        curl(veth_test("apis::http_on_each", http_on_each)),
        veth_test("apis::what_comes_late_is_not_reset", late_bytes),
        curl(veth_test("apis::files_in_ranges", files_in_ranges)),
        curl(require_program("openssl", veth_test("apis::tls", tls))),
        veth_test("apis::broken_tls_files_are_one_line", broken_tls_files),
        require_program("h2load", veth_test("apis::http2_under_load", http2_under_load)),
        require_program("nghttp", veth_test("apis::http2_with_nghttp", http2_with_nghttp)),
        require_program("python3", veth_test("apis::python_requests", python_requests)),
        require_program("chromium", veth_test("apis::a_browser_shows_the_status_page", status_page)),
        require_program("wrk", veth_test("apis::two_shards_share_the_work", two_shards)),
        curl(veth_test("apis::forward_both_ways", forward_both_ways)),
        curl(veth_test("apis::forward_hands_on_how_it_ends", forward_ends)),
        veth_test("apis::forward_bad_input", forward_bad_input),
    ]
}

/// Sends all, finishes, and reads to the end.
fn round_trip(wire: &Wire, address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = wire.at_peer(|| TcpStream::connect_timeout(&address, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    let mut writer = stream.try_clone()?;
    let mut back = Vec::new();
    thread::scope(|scope| {
        let written = scope.spawn(move || {
            writer.write_all(bytes)?;
            writer.shutdown(Shutdown::Write)
        });
        stream.read_to_end(&mut back)?;
        written.join().expect("the writer does not panic")
    })?;
    Ok(back)
}

fn echo_on_each(wire: &Wire) -> Outcome {
    let bytes = noise(7, 3 << 20);
    for api in ["poll", "blocking", "async", "local"] {
        note(format!("--api {api}"));
        let server = serve(wire, &["echo", "--api", api, "--json"])?;
        for address in ADDRESSES {
            let back = round_trip(wire, SocketAddr::new(address, 7), &bytes)?;
            assert!(back == bytes, "{api}, {address}: what came back is not what was sent");
            echo_udp(wire.peer().namespace(), SocketAddr::new(address, 7), &noise(8, 1200))?;
        }
        // Many that come and go, some of them without a word.
        for _ in 0..20 {
            drop(wire.at_peer(|| TcpStream::connect_timeout(&SocketAddr::new(ADDRESSES[0], 7), LONG))?);
        }
        // They are accepted in their order, and who still waits at the end is not.
        assert_eq!(round_trip(wire, SocketAddr::new(ADDRESSES[0], 7), b"the last")?, b"the last");
        assert_eq!(counter(&end(server)?, "accepted"), 23, "{api}");
    }
    Ok(())
}

fn curl(wire: &Wire, args: &[&str]) -> std::io::Result<Ended> {
    let mut command = Command::new("curl");
    command.args(["-gsS", "--max-time", "60"]).args(args);
    wire.at_peer(|| output(&mut command, LONG))
}

fn http_on_each(wire: &Wire) -> Outcome {
    for api in ["poll", "async", "local"] {
        note(format!("--api {api}"));
        let server = serve(wire, &["http", "--api", api, "--json"])?;
        for address in ADDRESSES {
            let base = format!("http://{}", url_host(address));
            assert_eq!(curl(wire, &["--fail", &format!("{base}/plain")])?.stdout, "Hello, world\n");
            let got =
                curl(wire, &["-o", "/dev/null", "-w", "%{size_download}", &format!("{base}/bytes/5000000")])?;
            assert_eq!(got.stdout.trim(), "5000000", "{api}");
            let missing = curl(wire, &["-o", "/dev/null", "-w", "%{http_code}", &format!("{base}/none")])?;
            assert_eq!(missing.stdout.trim(), "404", "{api}");
        }
        assert_eq!(counter(&end(server)?, "accepted"), 6, "{api}");
    }
    Ok(())
}

/// A peer that goes on sending when it has its answer gets the end of that, and no reset that could overtake it.
fn late_bytes(wire: &Wire) -> Outcome {
    let late = noise(12, 200_000);
    for api in ["async", "local"] {
        let server = serve(wire, &["http", "--api", api, "--json"])?;
        let request = [&b"GET /plain HTTP/1.0\r\n\r\n"[..], &late].concat();
        let answer = round_trip(wire, SocketAddr::new(ADDRESSES[0], 80), &request)?;
        assert!(answer.ends_with(b"Hello, world\n"), "{api}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(counter(&end(server)?, "tcp_resets_sent"), 0, "{api}");
    }
    Ok(())
}

fn files_in_ranges(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let bytes = noise(9, 3_000_000);
    fs::write(dir.path().join("a file.bin"), &bytes)?;
    for api in ["async", "local"] {
        let server =
            serve(wire, &["http", "--api", api, "--dir", dir.path().to_str().expect("a plain path")])?;
        let url = format!("http://{OURS_IPV4}/a%20file.bin");
        let fetched = dir.path().join("fetched");
        let to = fetched.to_str().expect("a plain path");
        curl(wire, &["--fail", "-r", "1000-1999", "-o", to, &url])?;
        assert!(fs::read(&fetched)? == bytes[1000..2000], "{api}: a range");
        // A download that was broken off goes on where it stopped.
        fs::write(&fetched, &bytes[..1_000_000])?;
        curl(wire, &["--fail", "-C", "-", "-o", to, &url])?;
        assert!(fs::read(&fetched)? == bytes, "{api}: resumed");
        fs::remove_file(&fetched)?;
        let index = curl(wire, &["--fail", &format!("http://{OURS_IPV4}/")])?.stdout;
        assert!(index.contains("a%20file.bin") && index.contains("a file.bin"), "{index}");
        end(server)?;
    }
    Ok(())
}

fn tls(wire: &Wire) -> Outcome {
    for api in ["async", "local"] {
        let server = serve(wire, &["http", "--api", api, "--tls"])?;
        let url = format!("https://{OURS_IPV4}/plain");
        for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let got = curl(wire, &["-k", version, "-w", "%{http_version}", &url])?;
            assert_eq!(got.stdout.trim(), format!("Hello, world\n{shown}"), "{api}");
        }
        // Nobody is to trust us without being told.
        let mut strict = Command::new("curl");
        strict.args(["-sS", "--max-time", "60", &url]);
        let refused = wire.at_peer(|| Child::start(&mut strict))?.wait(LONG)?;
        assert_eq!(refused.status.code(), Some(60), "{refused}");
        let script = format!(
            "printf 'GET /plain HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect {OURS_IPV4}:443 2>/dev/null; \
             openssl s_client -connect {OURS_IPV4}:443 -alpn h2 </dev/null 2>/dev/null | \
             openssl x509 -noout -fingerprint -sha256"
        );
        let said = wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?.stdout;
        assert!(said.contains("200 OK") && said.contains("Hello, world"), "{said}");
        let fingerprint = said.lines().last().and_then(|line| line.split_once('=')).expect("a fingerprint").1;
        let ended = end(server)?;
        assert!(ended.stderr.contains(fingerprint), "{fingerprint}: {ended}");
    }
    Ok(())
}

fn refused(wire: &Wire, args: &[&str], words: &[&str]) -> Outcome {
    let (program, more) = args.split_first().expect("a program's name");
    let mut command = wirestack(host_args(wire, program, more));
    let ended = wire.at_ours(|| Child::start(&mut command))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{args:?}: {ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{args:?}: {ended}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
    }
    Ok(())
}

fn broken_tls_files(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
    fs::write(path("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    let (broken, missing) = (path("broken.pem"), path("missing.pem"));
    refused(
        wire,
        &["http", "--cert", &missing, "--key", &broken],
        &["--cert", "missing.pem", "No such file"],
    )?;
    refused(wire, &["http", "--cert", &broken, "--key", &broken], &["broken.pem"])?;
    refused(wire, &["http", "--cert", &broken], &["--key"])?;
    refused(wire, &["http", "--api", "poll", "--tls"], &["--tls", "--api poll"])?;
    refused(wire, &["http", "--dir", &missing], &["--dir", "missing.pem"])?;
    refused(wire, &["http", "--api", "local", "--shards", "2"], &["--shards", "2", "--api local"])?;
    refused(wire, &["http", "--shards", "0"], &["--shards", "0", "1..=64"])?;
    refused(wire, &["http", "--cpus", "4000"], &["--cpus", "4000"])?;
    let smoltcp = |more: &[&'static str]| [&["echo", "--backend", "smoltcp"], more].concat();
    refused(wire, &smoltcp(&["--shards", "2"]), &["--shards 2", "one thread"])?;
    refused(wire, &smoltcp(&["--cpus", "0"]), &["--cpus 0", "one thread"])?;
    refused(wire, &smoltcp(&["--busy-poll"]), &["--busy-poll", "leave it out"])
}

fn http2_under_load(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--tls", "--json"])?;
    for (scheme, more) in [("https", &["-m", "20"][..]), ("https", &["--h1"])] {
        let url = format!("{scheme}://{OURS_IPV4}/plain");
        let mut load = Command::new("h2load");
        load.args(["-n", "2000", "-c", "8", "-t", "1"]).args(more).arg(&url);
        let said = wire.at_peer(|| output(&mut load, LONG))?.stdout;
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored"), "{said}");
    }
    end(server)?;
    let server = serve(wire, &["http", "--api", "local"])?;
    let mut load = Command::new("h2load");
    load.args(["-n", "2000", "-c", "8", "-m", "20", "-t", "1", &format!("http://{OURS_IPV4}/plain")]);
    let said = wire.at_peer(|| output(&mut load, LONG))?.stdout;
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored"), "{said}");
    end(server)?;
    Ok(())
}

fn http2_with_nghttp(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http"])?;
    let mut nghttp = Command::new("nghttp");
    nghttp.args([format!("http://{OURS_IPV4}/plain"), format!("http://{OURS_IPV4}/bytes/300000")]);
    let mut child = nghttp;
    let said = wire.at_peer(|| child.output())?;
    assert!(said.status.success(), "{said:?}");
    assert!(said.stdout.len() >= 300_013, "{} bytes", said.stdout.len());
    end(server)?;
    Ok(())
}

fn python_requests(wire: &Wire) -> Outcome {
    ["async", "local"].into_iter().try_for_each(|api| python_requests_of(wire, api))
}

fn python_requests_of(wire: &Wire, api: &str) -> Outcome {
    let server = serve(wire, &["http", "--api", api])?;
    let script = format!(
        "import requests\n\
         session = requests.Session()\n\
         session.trust_env = False\n\
         for _ in range(20):\n\
         \x20   answer = session.get('http://{OURS_IPV4}/bytes/100000', timeout=30)\n\
         \x20   assert answer.status_code == 200 and len(answer.content) == 100000\n\
         assert session.get('http://{OURS_IPV4}/none', timeout=30).status_code == 404\n\
         print(session.get('http://{OURS_IPV4}/status.json', timeout=30).json()['program'])\n"
    );
    let said = wire.at_peer(|| output(Command::new("python3").args(["-c", &script]), LONG))?;
    assert_eq!(said.stdout.trim(), "http", "{said}");
    end(server)?;
    Ok(())
}

fn status_page(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http"])?;
    // Somebody for the table of connections.
    let stays = wire.at_peer(|| TcpStream::connect_timeout(&SocketAddr::new(ADDRESSES[0], 80), LONG))?;
    let dir = tempfile::tempdir()?;
    let mut browser = Command::new("chromium");
    browser.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--dump-dom",
    ]);
    browser.args(["--virtual-time-budget=4000", "--no-first-run", "--disable-background-networking"]);
    browser.arg(format!("--user-data-dir={}", dir.path().display()));
    browser.arg(format!("http://{OURS_IPV4}/status")).env("HOME", dir.path());
    let page = wire.at_peer(|| output(&mut browser, LONG))?.stdout;
    let peer = stays.local_addr()?.to_string();
    assert!(page.contains(&peer), "{peer} is not among the connections: {page}");
    assert!(page.contains("tcp_segments_in"), "the counters are missing: {page}");
    drop(stays);
    end(server)?;
    Ok(())
}

fn two_shards(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("control.sock");
    let socket = socket.to_str().expect("a plain path");
    for api in ["poll", "async"] {
        let args = ["http", "--api", api, "--shards", "2", "--json", "--control", socket];
        let server = serve(wire, &args)?;
        // Which shard a connection comes to is drawn: that all of them come to one is out of the question.
        let stay: Vec<_> = (0..64)
            .map(|_| wire.at_peer(|| TcpStream::connect_timeout(&SocketAddr::new(ADDRESSES[0], 80), LONG)))
            .collect::<Result<_, _>>()?;
        let mut top = wirestack(["top", socket, "--once", "--json", "--interval", "0.1"]);
        let said: serde_json::Value = serde_json::from_str(&output(&mut top, LONG)?.stdout)?;
        let connections = said["connections"].as_array().expect("a list");
        let shards = connections.iter().filter_map(|connection| connection["shard"].as_u64());
        let shards: BTreeSet<_> = shards.collect();
        assert_eq!((connections.len(), shards), (stay.len(), [0, 1].into()), "{api}: {said}");
        drop(stay);
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c64", "-d1s", "--timeout", "30s", &format!("http://{OURS_IPV4}/plain")]);
        let said = wire.at_peer(|| output(&mut wrk, LONG))?.stdout;
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{api}: {said}");
        let ended = end(server)?;
        assert_eq!(
            counter(&ended, "tcp_resets_sent") + counter(&ended, "tcp_bad_acks"),
            0,
            "{}",
            ended.stdout
        );
        assert!(counter(&ended, "accepted") >= 64, "{}", ended.stdout);
    }
    Ok(())
}

/// A program at our end that forwards, with what the kernel has there on loopback.
fn forward(wire: &Wire, args: &[&str]) -> std::io::Result<Child> {
    serve(wire, &[&["forward"], args].concat())
}

fn forward_both_ways(wire: &Wire) -> Outcome {
    let bytes = noise(11, 4 << 20);
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("file"), &bytes)?;
    // A web server of the kernel's on either side: Python's.
    let web = |port: &str| {
        let mut python = Command::new("python3");
        python.args(["-u", "-m", "http.server", port, "--directory"]).arg(dir.path());
        python
    };
    let mut at_peer = wire.at_peer(|| Child::start(&mut web("8001")))?;
    let mut at_ours = wire.at_ours(|| Child::start(&mut web("8002")))?;
    at_peer.wait_for_line("Serving HTTP", LONG)?;
    at_ours.wait_for_line("Serving HTTP", LONG)?;
    let out = format!("9001:{PEER_IPV4}:8001");
    let fetched = dir.path().join("fetched");
    let (from_ours, from_peer) =
        ("http://127.0.0.1:9001/file".to_owned(), format!("http://{OURS_IPV4}/file"));
    // Connections of the kernel's are taken, and none are made.
    let server = forward(wire, &["-L", &out, "--seccomp"])?;
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "60", "-o"]).arg(&fetched).arg(&from_ours);
    wire.at_ours(|| output(&mut curl, LONG))?;
    assert!(fs::read(&fetched)? == bytes, "{from_ours}");
    end(server)?;
    let server = forward(wire, &["-L", &out, "-R", "80:127.0.0.1:8002", "--json"])?;
    for (is_ours, url) in [(true, from_ours), (false, from_peer)] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "60", "-o"]).arg(&fetched).arg(&url);
        if is_ours {
            wire.at_ours(|| output(&mut curl, LONG))?
        } else {
            wire.at_peer(|| output(&mut curl, LONG))?
        };
        assert!(fs::read(&fetched)? == bytes, "{url}");
    }
    let ended = end(server)?;
    assert_eq!(counter(&ended, "tcp_active_opens"), 1);
    assert_eq!(counter(&ended, "tcp_passive_opens"), 1);
    drop((at_peer.kill_hard()?, at_ours.kill_hard()?));
    Ok(())
}

/// Who is refused there is refused here; who resets there resets here; and a half-closed connection stays half open.
fn forward_ends(wire: &Wire) -> Outcome {
    let out = format!("9003:{PEER_IPV4}:9");
    let server = forward(wire, &["-L", &out, "-R", "80:127.0.0.1:9", "-R", "81:127.0.0.1:8003"])?;
    // The reset may come before the connection is told of, or when it is read.
    let is_reset = |connected: std::io::Result<TcpStream>| {
        let read = connected.and_then(|mut stream| {
            stream.set_read_timeout(Some(LONG))?;
            stream.read(&mut [0; 8])
        });
        read.expect_err("nobody listens there").kind() == std::io::ErrorKind::ConnectionReset
    };
    assert!(is_reset(wire.at_ours(|| TcpStream::connect(("127.0.0.1", 9003)))));
    assert!(is_reset(wire.at_peer(|| TcpStream::connect((OURS_IPV4, 80)))));
    let listener = wire.at_ours(|| std::net::TcpListener::bind(("127.0.0.1", 8003)))?;
    let mut client = wire.at_peer(|| TcpStream::connect((OURS_IPV4, 81)))?;
    client.set_read_timeout(Some(LONG))?;
    client.write_all(b"question")?;
    client.shutdown(Shutdown::Write)?;
    let (mut answerer, _) = listener.accept()?;
    let mut question = String::new();
    answerer.read_to_string(&mut question)?;
    assert_eq!(question, "question");
    answerer.write_all(b"answer")?;
    drop(answerer);
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    assert_eq!(answer, "answer");
    end(server)?;
    Ok(())
}

fn forward_bad_input(wire: &Wire) -> Outcome {
    refused(wire, &["forward"], &["-L"])?;
    refused(wire, &["forward", "-L", "80"], &["-L", "80", "[BIND:]PORT:HOST:PORT"])?;
    refused(wire, &["forward", "-L", "8080:h:1", "--backend", "smoltcp"], &["--backend", "smoltcp"])?;
    refused(wire, &["forward", "-R", "80:127.0.0.1:80", "--seccomp"], &["--seccomp", "-R"])?;
    let _taken = wire.at_ours(|| std::net::TcpListener::bind(("127.0.0.1", 9004)))?;
    refused(wire, &["forward", "-L", "9004:10.77.0.1:80"], &["-L", "9004", "in use"])
}
