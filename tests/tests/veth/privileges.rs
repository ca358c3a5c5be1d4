//! What programs give up once they serve, and that they serve and clean up without it.

use std::fs;
use std::io;
use std::process::Command;

use wirestack_apps::privileges::status;
use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::programs::{Child, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, test, veth_test};

use crate::demo::{assert_prints_all, demo};
use crate::support::{ADDRESSES, LONG, end, noise, serve, url_host};
use crate::talk::{rules, shell};
use crate::testbed::address_ours;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let curl = |cases| require_program("curl", cases);
    let iptables = |cases| require_program("iptables", require_program("ip6tables", cases));
    vec![
        curl(veth_test("privileges::are_dropped_and_files_served", are_dropped)),
        curl(iptables(veth_test("privileges::are_kept_for_rules_that_have_to_go", for_rules))),
        curl(veth_test("privileges::stay_if_asked_for", stay)),
        curl(veth_test("privileges::a_confined_server_serves", confined)),
        test("privileges::a_confined_demo_is_the_same", confined_demo),
        iptables(veth_test("privileges::iptables_are_not_for_the_confined", not_confined)),
    ]
}

/// Name and status of each thread of a program.
fn threads(child: &Child) -> io::Result<Vec<(String, String)>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id()))?;
    let thread = |task: io::Result<fs::DirEntry>| {
        let path = task?.path();
        let name = fs::read_to_string(path.join("comm"))?.trim().to_owned();
        Ok((name, status(&path.join("status").to_string_lossy())?))
    };
    tasks.map(thread).collect()
}

/// All threads have these capabilities, those that can be had by starting a program included, and no others.
fn assert_capabilities(child: &Child, capabilities: u64, is_confined: bool) -> Outcome {
    let threads = threads(child)?;
    assert!(threads.len() > 1, "one waits for signals");
    for (name, status) in threads {
        // That one needs none in any case.
        let kept = if name == "signals" { 0 } else { capabilities };
        let seccomp = if is_confined { 2 } else { 0 };
        let expected = format!(
            "CapInh: {0:016x}\nCapPrm: {kept:016x}\nCapEff: {kept:016x}\nCapBnd: {kept:016x}\nCapAmb: {0:016x}\n\
             NoNewPrivs: 1\nSeccomp: {seccomp}",
            0
        );
        assert_eq!(status, expected, "{name}");
    }
    Ok(())
}

/// Fetches a file over both IP versions, and the list of many.
fn fetch(wire: &Wire, dir: &std::path::Path) -> Outcome {
    let bytes = noise(11, 3 << 20);
    fs::write(dir.join("file"), &bytes)?;
    let back = dir.join("back");
    for address in ADDRESSES {
        let url = format!("http://{}/file", url_host(address));
        let mut curl = Command::new("curl");
        curl.args(["-gsS", "--fail", "--max-time", "60", "-o"]).arg(&back).args([&url, &url]);
        wire.at_peer(|| output(&mut curl, LONG))?;
        assert!(fs::read(&back)? == bytes, "{address}: what came is not what was there");
    }
    let missing = format!("curl -s -o /dev/null -w '%{{http_code}}' http://{OURS_IPV4}/none");
    let ended = wire.at_peer(|| output(Command::new("sh").args(["-c", &missing]), LONG))?;
    assert_eq!(ended.stdout.trim(), "404");
    Ok(())
}

fn are_dropped(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let before = shell(wire, &format!("ip -o maddress show dev {}", wire.ours().name()))?;
    let server = serve(wire, &["http", "--dir", &dir.path().to_string_lossy()])?;
    assert_capabilities(&server, 0, false)?;
    fetch(wire, dir.path())?;
    // The groups of its IPv6 address were joined after that, by the stack.
    let joined = shell(wire, &format!("ip -o maddress show dev {}", wire.ours().name()))?;
    assert!(joined.lines().count() > before.lines().count(), "{before}\n{joined}");
    end(server)?;
    assert_eq!(shell(wire, &format!("ip -o maddress show dev {}", wire.ours().name()))?, before);
    Ok(())
}

fn for_rules(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    for program in ["iptables", "ip6tables"] {
        let touch =
            format!("{program} -t raw -I PREROUTING -j DROP && {program} -t raw -D PREROUTING -j DROP");
        shell(wire, &touch)?;
    }
    let before = rules(wire)?;
    // CAP_NET_ADMIN and CAP_NET_RAW.
    for (method, capabilities) in [("nft", 0), ("iptables", 1 << 12 | 1 << 13)] {
        let dir = tempfile::tempdir()?;
        let server = serve(wire, &["http", "--suppress", method, "--dir", &dir.path().to_string_lossy()])?;
        assert_ne!(rules(wire)?, before, "{method}");
        assert_capabilities(&server, capabilities, false)?;
        fetch(wire, dir.path())?;
        end(server)?;
        assert_eq!(rules(wire)?, before, "{method}");
    }
    Ok(())
}

fn stay(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = serve(wire, &["http", "--keep-privileges", "--dir", &dir.path().to_string_lossy()])?;
    let own = status("/proc/thread-self/status")?;
    assert_eq!(status(&format!("/proc/{}/status", server.id()))?, own);
    fetch(wire, dir.path())?;
    end(server)?;
    Ok(())
}

fn confined(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let pcap = dir.path().join("all.pcapng");
    let backends: &[&[&str]] = &[&[], &["--backend", "smoltcp"]];
    for backend in backends {
        let path = dir.path().to_string_lossy();
        let args = ["http", "--seccomp", "--dir", &path, "--pcap", &pcap.to_string_lossy(), "--json"];
        let server = serve(wire, &[&args, *backend].concat())?;
        assert_capabilities(&server, 0, true)?;
        fetch(wire, dir.path())?;
        let ended = end(server)?;
        assert!(ended.stdout.contains("accepted") && !ended.stderr.contains("rror"), "{ended}");
        assert!(fs::metadata(&pcap)?.len() > 3 << 20);
    }
    let apis = ["poll", "blocking", "async", "local"].map(|api| vec!["--api", api]);
    for more in apis.into_iter().chain([vec!["--backend", "smoltcp"]]) {
        let server = serve(wire, &[&["echo", "--seccomp"], &more[..]].concat())?;
        let mut stream = crate::tcp_serve::connect(wire, ADDRESSES[1], 7)?;
        io::Write::write_all(&mut stream, b"hello")?;
        io::Read::read_exact(&mut stream, &mut [0; 5])?;
        // Before that of this connection has gone.
        assert_capabilities(&server, 0, true)?;
        drop(stream);
        end(server)?;
    }
    Ok(())
}

fn confined_demo() -> Outcome {
    let ended = demo(&["--seccomp"])?;
    assert_prints_all(&ended);
    Ok(())
}

fn not_confined(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let before = rules(wire)?;
    let nic = format!("packet:{}", wire.ours().name());
    let address = format!("{OURS_IPV4}/24");
    let words = ["http", "--nic", &nic, "--address", &address, "--suppress", "iptables", "--seccomp"];
    let ended = wire.at_ours(|| Child::start(&mut wirestack(words)))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    assert!(ended.stderr.contains("--suppress iptables: its rules are removed by a program"), "{ended}");
    let without_tables = |text: String| text.lines().filter(|line| line.contains("wirestack")).count();
    assert_eq!(without_tables(rules(wire)?), without_tables(before));
    Ok(())
}
