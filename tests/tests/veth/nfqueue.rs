//! Netfilter queues: one port of an address that the kernel owns is ours, over a veth pair whose other
//! end is the kernel's TCP and UDP.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use sha2::{Digest, Sha256};
use wirestack_apps::testbed::{IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, Wire};
use wirestack_nic::ethtool::Offload;
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, stay_on_one_core, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, noise, url_host};
use crate::talk::{echo_tcp, echo_udp, fetch, shell, through};
use crate::testbed::address_ours;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let iptables = |cases| require_program("iptables", require_program("ip6tables", cases));
    vec![
        iptables(require_program(
            "curl",
            veth_test("nfqueue::a_port_of_the_kernels_address", port_of_the_kernel),
        )),
        iptables(veth_test("nfqueue::echo_with_and_without_gso", echo_with_and_without_gso)),
        iptables(veth_test("nfqueue::several_datagrams_in_one_come_one_by_one", datagrams)),
        iptables(veth_test("nfqueue::killed_in_the_middle", killed)),
        iptables(require_program("setpriv", veth_test("nfqueue::bad_input", bad_input))),
        iptables(veth_test("nfqueue::what_is_sent_has_the_mark", marked)),
    ]
}

fn command(program: &str, nic: &str, more: &[&str]) -> Command {
    let mut args = vec![program.to_owned(), "--nic".to_owned(), nic.to_owned()];
    for address in ADDRESSES {
        let prefix_len = if address.is_ipv4() { IPV4_PREFIX_LEN } else { IPV6_PREFIX_LEN };
        args.extend(["--address".to_owned(), format!("{address}/{prefix_len}")]);
    }
    args.extend(more.iter().map(|&word| word.to_owned()));
    wirestack(args)
}

/// Puts the rules in that the program prints, and starts it.
fn serve(wire: &Wire, program: &str, nic: &str) -> io::Result<Child> {
    recipe(wire, program, nic)?;
    start(wire, program, nic)
}

fn start(wire: &Wire, program: &str, nic: &str) -> io::Result<Child> {
    let mut child = wire.at_ours(|| Child::start(&mut command(program, nic, &["--json"])))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

/// Runs the commands that put the rules in; returns those that take them out.
fn recipe(wire: &Wire, program: &str, nic: &str) -> io::Result<Vec<String>> {
    let printed = wire.at_ours(|| output(&mut command(program, nic, &["--show-recipe"]), LONG))?.stdout;
    let (before, after) = printed.split_once("# and afterwards:\n").expect("both halves");
    for line in before.lines() {
        shell(wire, line)?;
    }
    Ok(after.lines().map(str::to_owned).collect())
}

fn download(wire: &Wire, address: IpAddr, bytes: &[u8]) -> Outcome {
    let dir = tempfile::tempdir()?;
    let fetched = dir.path().join("fetched");
    let mut curl = Command::new("curl");
    let url = format!("http://{}/bytes/{}", url_host(address), bytes.len());
    curl.args(["-sS", "-g", "--fail", "--max-time", "60", &url, "-o"]).arg(&fetched);
    wire.at_peer(|| output(&mut curl, LONG))?;
    assert_eq!(std::fs::read(&fetched)?.len(), bytes.len(), "{url}");
    Ok(())
}

fn port_of_the_kernel(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let child = serve(wire, "http", "nfqueue:5")?;
    for address in ADDRESSES {
        download(wire, address, &vec![0; 20 << 20])?;
        // Another port of the same address is the kernel's, before as after.
        let listener = wire.at_ours(|| TcpListener::bind((address, 8080)))?;
        let server = thread::spawn(move || -> io::Result<()> { listener.accept()?.0.write_all(b"kernel") });
        let mut stream = wire.at_peer(|| TcpStream::connect_timeout(&(address, 8080).into(), LONG))?;
        let mut answer = String::new();
        io::Read::read_to_string(&mut stream, &mut answer)?;
        assert_eq!(answer, "kernel");
        server.join().expect("no panic")?;
        // And a program of this host reaches ours.
        let page = fetch(wire.ours().namespace(), SocketAddr::new(address, 80), "/")?;
        assert!(String::from_utf8_lossy(&page).contains("wirestack"));
        let error = wire.at_ours(|| TcpListener::bind((address, 80))).expect_err("the port is reserved");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
    let ended = end(child)?;
    check(&ended);
    Ok(())
}

fn check(ended: &Ended) {
    let harms =
        ["rx_malformed", "rx_truncated", "rx_bad_checksum", "rx_unsegmented", "tx_rejected", "tx_oversize"];
    for harm in harms {
        assert_eq!(counter(ended, harm), 0, "{harm}: {}", ended.stdout);
    }
}

fn echo_with_and_without_gso(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let offloads_on = wire.peer().offloads()?.has(Offload::Tso);
    let mut removal: Vec<String> = Vec::new();
    for (nic, gso) in [("nfqueue:7,gso=off", false), ("nfqueue:7", true)] {
        for line in &removal {
            shell(wire, line)?;
        }
        removal = recipe(wire, "echo", nic)?;
        let child = start(wire, "echo", nic)?;
        let bytes = noise(3, 1 << 20);
        for address in ADDRESSES {
            let server = SocketAddr::new(address, 7);
            let back = echo_tcp(wire.peer().namespace(), server, &bytes)?;
            assert_eq!(Sha256::digest(back), Sha256::digest(&bytes), "{nic} {address}");
            assert_eq!(echo_udp(wire.peer().namespace(), server, &bytes[..1400])?, bytes[..1400]);
        }
        let ended = end(child)?;
        check(&ended);
        assert_eq!(counter(&ended, "rx_super_frames") > 0, gso && offloads_on, "{nic}: {}", ended.stdout);
    }
    Ok(())
}

fn datagrams(wire: &Wire) -> Outcome {
    stay_on_one_core();
    address_ours(wire)?;
    let child = serve(wire, "echo", "nfqueue:8")?;
    for address in ADDRESSES {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = wire.at_peer(|| UdpSocket::bind(any))?;
        socket.connect((address, 7))?;
        socket.set_read_timeout(Some(LONG))?;
        if setsockopt(&socket, UdpGsoSegment, &1000).is_err() {
            return Err("the kernel has no UDP_SEGMENT".into());
        }
        for round in 0..20 {
            let sent = noise(round, 10_500);
            socket.send(&sent)?;
            let mut back = [0; 2000];
            for part in sent.chunks(1000) {
                let len = socket.recv(&mut back)?;
                assert!(back[..len] == *part, "{address}: {len} bytes in round {round}");
            }
        }
    }
    check(&end(child)?);
    Ok(())
}

/// What waits for a verdict is dropped, and so is what comes afterwards: TCP repeats it, and a new process
/// resets the connections that it does not know.
fn killed(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let server = SocketAddr::new(ADDRESSES[0], 7);
    let child = serve(wire, "echo", "nfqueue:9")?;
    let mut stream = wire.at_peer(|| TcpStream::connect_timeout(&server, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(b"before")?;
    io::Read::read_exact(&mut stream, &mut [0; 6])?;
    child.kill_hard()?;
    stream.write_all(b"to nobody")?;
    // The rule is there and the queue is not: nobody answers, and the kernel's TCP does not either.
    let error = wire.at_peer(|| TcpStream::connect_timeout(&server, Duration::from_millis(300)));
    assert_eq!(error.expect_err("dropped").kind(), io::ErrorKind::TimedOut);
    let child = start(wire, "echo", "nfqueue:9")?;
    let error = io::Read::read_exact(&mut stream, &mut [0; 9]).expect_err("of another process");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(echo_tcp(wire.peer().namespace(), server, b"after")?, b"after");
    end(child)?;
    Ok(())
}

fn bad_input(wire: &Wire) -> Outcome {
    let refused = |command: &mut Command, words: &[&str]| -> Outcome {
        let ended = wire.at_ours(|| Child::start(command))?.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(2), "{words:?}: {ended}");
        assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{words:?}: {ended}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
        }
        Ok(())
    };
    address_ours(wire)?;
    let first = start(wire, "http", "nfqueue:5")?;
    refused(
        &mut command("http", "nfqueue:5", &["--port", "81"]),
        &["--nic nfqueue:5", "another process has this queue"],
    )?;
    refused(&mut command("http", "nfqueue:6", &[]), &["--port 80", "in use"])?;
    end(first)?;
    for (capability, word) in [("net_admin", "CAP_NET_ADMIN"), ("net_raw", "CAP_NET_RAW")] {
        let dropped = format!("-{capability}");
        let prefix = ["setpriv", "--bounding-set", &dropped, "--inh-caps", &dropped];
        refused(&mut through(&prefix, &command("http", "nfqueue:5", &[])), &["--nic nfqueue:5", word])?;
    }
    refused(
        &mut command("http", "nfqueue:5", &["--device", "burst=64"]),
        &["--device burst=64", "no packet device"],
    )
}

fn marked(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    // Without the mark nothing goes out.
    shell(wire, "iptables -w 5 -t raw -A OUTPUT -p tcp --sport 80 -m mark ! --mark 7 -j DROP")?;
    let child = serve(wire, "http", "nfqueue:5,mark=7")?;
    let page = fetch(wire.peer().namespace(), SocketAddr::new(ADDRESSES[0], 80), "/")?;
    assert!(String::from_utf8_lossy(&page).contains("wirestack"));
    check(&end(child)?);
    Ok(())
}
