//! `wirestack serial`: with a SLIP implementation that others wrote, and with itself over every kind of line.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use serde_json::Value;
use wirestack_apps::testbed::Namespace;
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, require_program, root_test, test};

use crate::demo::as_nobody;
use crate::support::{LONG, counter, end, noise};
use crate::talk::{echo_tcp, wait_until};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let slirp = |cases| require_program("slirp-fullbolt", cases);
    let socat = |cases| require_program("socat", cases);
    let tshark = |cases| require_program("tshark", cases);
    vec![
        slirp(test("serial::slirp", with_slirp)),
        slirp(test("serial::slirp_over_a_worse_line", with_slirp_worse)),
        slirp(socat(test("serial::slirp_on_a_terminal", with_slirp_on_a_terminal))),
        socat(test("serial::lines_of_all_kinds", lines_of_all_kinds)),
        require_program("curl", test("serial::http_and_reverse", http_and_reverse)),
        test("serial::ping_and_perf_know_the_other_end", ping_and_perf),
        test("serial::ipv6", ipv6),
        tshark(test("serial::tshark_finds_nothing", tshark_finds_nothing)),
        require_program("setpriv", root_test("serial::anybody_can", anybody_can)),
    ]
}

/// A host without any network, and a folder.
pub(crate) struct Desk {
    pub(crate) host: Namespace,
    dir: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new() -> Result<Self, libtest_mimic::Failed> {
        Ok(Self { host: Namespace::new()?, dir: tempfile::tempdir()? })
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text, `@` in a line being the folder: `pty:@/line`.
    pub(crate) fn line(&self, text: &str) -> String {
        text.replacen("@/", &format!("{}/", self.dir.path().display()), 1)
    }

    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Child> {
        self.host.run(|| Child::start(command))
    }

    /// `wirestack serial` at a line.
    pub(crate) fn serial(&self, line: &str, words: &[&str]) -> io::Result<Child> {
        self.start(&mut self.command(line, words))
    }

    pub(crate) fn command(&self, line: &str, words: &[&str]) -> Command {
        wirestack([&["serial", "--nic", &self.line(line)], words].concat())
    }

    /// As [`serial`](Self::serial), of a program that serves.
    pub(crate) fn serve(&self, line: &str, words: &[&str]) -> io::Result<Child> {
        let mut child = self.serial(line, words)?;
        child.wait_ready(LONG)?;
        Ok(child)
    }

    /// The same at the other end of the line.
    pub(crate) fn serve_there(&self, line: &str, words: &[&str]) -> io::Result<Child> {
        self.serve(line, &[&THERE, words].concat())
    }

    /// Two terminals that are each other's line, as `@/a` and `@/b`.
    pub(crate) fn terminals(&self) -> Result<Child, libtest_mimic::Failed> {
        let [a, b] = ["a", "b"].map(|name| self.path(name));
        let mut socat = Command::new("socat");
        for path in [&a, &b] {
            socat.arg(format!("PTY,link={},raw,echo=0", path.display()));
        }
        let child = self.start(&mut socat)?;
        wait_until("terminals", || Ok(a.exists() && b.exists()))?;
        Ok(child)
    }

    /// Bytes to a port of this host's, and back.
    pub(crate) fn echo(&self, port: u16, bytes: &[u8]) -> Outcome {
        let back = echo_tcp(&self.host, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), bytes)?;
        if back == bytes {
            Ok(())
        } else {
            Err(format!("{} of {} bytes came back", back.len(), bytes.len()).into())
        }
    }
}

/// Addresses of the end that the defaults call the other one.
pub(crate) const THERE: [&str; 4] = ["--address", "10.0.2.2", "--peer", "10.0.2.15"];

/// A server of the kernel's on loopback that sends back what comes.
fn kernel_echo(host: &Namespace) -> io::Result<u16> {
    let listener = host.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    Ok(port)
}

/// What `slirp` is told, and what we are.
const SLIRP: [(&str, &str); 2] = [("slirp-fullbolt", ""), ("slirp-fullbolt compress", ",framing=cslip")];

fn with_slirp() -> Outcome {
    let desk = Desk::new()?;
    let port = kernel_echo(&desk.host)?;
    let forward = format!("9000:10.0.2.2:{port}");
    let bytes = noise(21, 200_000);
    for (command, options) in SLIRP {
        note(command);
        let line = format!("exec:{command}{options}");
        let child = desk.serve(&line, &["forward", &forward, "--", "--json"])?;
        desk.echo(9_000, &bytes)?;
        // Several at a time, so that compression has several states.
        thread::scope(|scope| {
            let four = [1, 2, 3, 4].map(|seed| scope.spawn(move || noise(seed, 20_000)));
            let four = four.map(|bytes| scope.spawn(|| desk.echo(9_000, &bytes.join().expect("noise"))));
            four.into_iter().try_for_each(|echoed| echoed.join().expect("no panic"))
        })?;
        let ended = end(child)?;
        assert_eq!(counter(&ended, "line_losses") + counter(&ended, "line_errors"), 0, "{ended}");
        assert_eq!(counter(&ended, "tcp_active_opens"), 5, "{ended}");
        assert!(counter(&ended, "line_rx_bytes") > 280_000, "{ended}");
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("wirestack: line: in ") && last.contains(" 0 errors; out "), "{ended}");
        if options.is_empty() {
            continue;
        }
        // Forty bytes of headers are three or so.
        let saved = counter(&ended, "rx_bytes").checked_sub(counter(&ended, "line_rx_bytes"));
        assert!(saved > Some(10_000), "{ended}");
    }
    Ok(())
}

/// What is lost and broken is sent again, by either TCP.
fn with_slirp_worse() -> Outcome {
    let desk = Desk::new()?;
    let port = kernel_echo(&desk.host)?;
    let forward = format!("9000:10.0.2.2:{port}");
    for (command, options) in SLIRP {
        note(command);
        let line = format!("exec:{command}{options}");
        let worse = ["--", "--json", "--seed", "7", "--impair", "loss=1%,corrupt=1%"];
        let child = desk.serve(&line, &[&["forward", &*forward], &worse[..]].concat())?;
        desk.echo(9_000, &noise(22, 60_000))?;
        let ended = end(child)?;
        assert!(counter(&ended, "impaired_dropped") > 0, "{ended}");
    }
    Ok(())
}

fn with_slirp_on_a_terminal() -> Outcome {
    let desk = Desk::new()?;
    let port = kernel_echo(&desk.host)?;
    let terminal = desk.path("a");
    for (command, options) in SLIRP {
        note(command);
        let mut socat = Command::new("socat");
        socat.arg(format!("PTY,link={},raw,echo=0", terminal.display()));
        let socat = desk.start(socat.arg(format!("EXEC:{command},pty,raw,echo=0")))?;
        wait_until("a terminal", || Ok(terminal.exists()))?;
        let forward = format!("9000:10.0.2.2:{port}");
        let line = format!("@/a@1000000{options}");
        let child = desk.serve(&line, &["forward", &forward, "--", "--json"])?;
        desk.echo(9_000, &noise(23, 60_000))?;
        let ended = end(child)?;
        assert_eq!(counter(&ended, "line_losses"), 0, "{ended}");
        socat.terminate()?;
        socat.wait(LONG)?;
    }
    Ok(())
}

/// A way to join two ends: what is started between them, and the line at either.
const LINES: [(&str, &str, &str); 8] = [
    ("", "pty:@/line", "@/line@1000000"),
    ("", "pty:@/line,framing=cslip,crc=on", "@/line@1000000,framing=cslip,crc=on"),
    ("", "unix:@/socket,listen=on,mtu=296", "unix:@/socket,mtu=296"),
    ("", "tcp:127.0.0.1:7000,listen=on,mtu=1500,framing=cslip", "tcp:localhost:7000,mtu=1500,framing=cslip"),
    ("terminals", "@/a@1000000,flow=xonxoff", "@/b@1000000,flow=xonxoff"),
    ("terminals", "@/a@1000000,crc=on,mtu=1500", "@/b@1000000,crc=on,mtu=1500"),
    ("stdin", "-,crc=on", "tcp:127.0.0.1:7001,crc=on"),
    ("pipes", "-,framing=cslip", "unix:@/socket,framing=cslip"),
];

fn lines_of_all_kinds() -> Outcome {
    for (between, there, here) in LINES {
        note(format!("{there} and {here}"));
        let desk = Desk::new()?;
        let terminals = (between == "terminals").then(|| desk.terminals()).transpose()?;
        let mut server = serve_echo(&desk, between, there)?;
        let child = desk.serve(here, &["forward", "9000:10.0.2.2:7", "--", "--json"])?;
        if between == "stdin" || between == "pipes" {
            // The ready line comes when socat has somebody for it: not before.
            server.wait_ready(LONG)?;
        }
        desk.echo(9_000, &noise(24, 40_000))?;
        let ended = end(child)?;
        assert_eq!(counter(&ended, "line_losses") + counter(&ended, "line_errors"), 0, "{ended}");
        assert!(counter(&ended, "line_tx_bytes") > 40_000, "{ended}");
        if between == "stdin" || between == "pipes" {
            // Whoever had the other end is gone, and so is the program.
            server.wait(LONG)?;
            continue;
        }
        // Somebody else takes the place of the first, and finds the same line.
        let ping = desk.serial(here, &["ping", "-c", "2", "-i", "0.01", "-s", "700"])?.wait(LONG)?;
        assert!(ping.status.success() && ping.stdout.contains("2 received"), "{ping}");
        end(server)?;
        assert!(!desk.path("line").exists() && !desk.path("socket").exists(), "nothing is left");
        if let Some(terminals) = terminals {
            terminals.kill_hard()?;
        }
    }
    Ok(())
}

/// The echo server at the other end.
fn serve_echo(desk: &Desk, between: &str, line: &str) -> Result<Child, libtest_mimic::Failed> {
    let (address, script) = match between {
        "stdin" => ("TCP-LISTEN:7001,bind=127.0.0.1,reuseaddr".to_owned(), "SYSTEM:$COMMAND"),
        "pipes" => (format!("UNIX-LISTEN:{}", desk.path("socket").display()), "SYSTEM:$COMMAND,pipes"),
        _ => return Ok(desk.serve_there(line, &["echo"])?),
    };
    let command = desk.command(line, &[&THERE[..], &["echo"]].concat());
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    // A comma and a colon would be socat's; a file says the same.
    let file = desk.path("serve.sh");
    fs::write(&file, format!("exec {}\n", words.join(" ")))?;
    let run = script.replace("$COMMAND", &format!("sh {}", file.display()));
    // It says so when it listens: whoever asks before that is refused.
    let child = desk.start(Command::new("socat").args(["-d", "-d", &address, &run]))?;
    wait_until("socat listens", || Ok(child.stderr().contains(" listening on ")))?;
    Ok(child)
}

fn http_and_reverse() -> Outcome {
    let desk = Desk::new()?;
    let dir = desk.path("site");
    fs::create_dir(&dir)?;
    let bytes = noise(25, 100_000);
    fs::write(dir.join("file"), &bytes)?;
    let curl = |url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "60", "-o"]).arg(desk.path("fetched")).arg(url);
        desk.host.run(|| output(&mut curl, LONG)).and_then(|_| fs::read(desk.path("fetched")))
    };
    let (there, here) = ("unix:@/socket,listen=on,framing=cslip", "unix:@/socket,framing=cslip");
    let server = desk.serve_there(there, &["http", "--dir", dir.to_str().expect("a plain path")])?;
    let forward = desk.serve(here, &["forward", "9000:10.0.2.2:80", "9001:10.0.2.2:81"])?;
    assert!(curl("http://127.0.0.1:9000/file")? == bytes);
    end(forward)?;
    end(server)?;
    // A server of the kernel's on this side, for the other one.
    let port = kernel_echo(&desk.host)?;
    let reverse = desk.serve_there(there, &["reverse", &format!("80:127.0.0.1:{port}")])?;
    let forward = desk.serve(here, &["forward", "9000:10.0.2.2:80"])?;
    desk.echo(9_000, &bytes)?;
    end(reverse)?;
    end(forward)?;
    Ok(())
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
}

fn ping_and_perf() -> Outcome {
    let desk = Desk::new()?;
    let (there, here) = ("unix:@/socket,listen=on", "unix:@/socket");
    let server = desk.serve_there(there, &["perf", "server"])?;
    for (mode, found) in [("stream", "bits_per_second"), ("rr", "requests_per_second")] {
        let client = ["perf", "client", "--mode", mode, "--time", "1", "--json"];
        let ended = desk.serial(here, &client)?.wait(LONG)?;
        assert!(json(&ended)[found].as_f64() > Some(0.0), "{ended}");
    }
    let ended = desk.serial(here, &["--quiet", "ping", "-c", "1"])?.wait(LONG)?;
    assert!(ended.status.success() && ended.stdout.starts_with("PING 10.0.2.2 "), "{ended}");
    // Somebody who is named is asked, and not the other end; nobody has that address.
    let ended = desk.serial(here, &["ping", "-c", "1", "-W", "0.2", "10.0.2.3"])?.wait(LONG)?;
    assert!(ended.status.code() == Some(1) && ended.stdout.starts_with("PING 10.0.2.3 "), "{ended}");
    end(server)?;
    let server = desk.serve_there(there, &["perf", "iperf3-server"])?;
    let ended = desk.serial(here, &["perf", "iperf3-client", "-t", "1", "-J"])?.wait(LONG)?;
    assert!(json(&ended)["end"]["sum_received"]["bytes"].as_u64() > Some(0), "{ended}");
    end(server)?;
    Ok(())
}

fn ipv6() -> Outcome {
    let desk = Desk::new()?;
    let [there, here] = ["pty:@/line,mtu=1500", "@/line@1000000,mtu=1500"];
    let server = desk.serve(there, &["--address", "fd00::2", "--peer", "fd00::1", "echo"])?;
    let ours = ["--address", "fd00::1", "--peer", "fd00::2"];
    let ping = desk.serial(here, &[&ours[..], &["ping", "-c", "1", "-s", "1400"]].concat())?.wait(LONG)?;
    assert!(ping.status.success(), "{ping}");
    let child = desk.serve(here, &[&ours[..], &["forward", "9000:[fd00::2]:7"]].concat())?;
    desk.echo(9_000, &noise(26, 30_000))?;
    end(child)?;
    end(server)?;
    Ok(())
}

fn tshark_finds_nothing() -> Outcome {
    let desk = Desk::new()?;
    let file = desk.path("line.pcapng");
    let server = desk.serve_there("unix:@/socket,listen=on,framing=cslip", &["echo"])?;
    let pcap = ["forward", "9000:10.0.2.2:7", "--", "--pcap", file.to_str().expect("a plain path")];
    let child = desk.serve("unix:@/socket,framing=cslip", &pcap)?;
    desk.echo(9_000, &noise(27, 100_000))?;
    end(child)?;
    end(server)?;
    let tshark = |filter: &str| -> io::Result<String> {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r"]).arg(&file).args([
            "-o",
            "tcp.check_checksum:TRUE",
            "-o",
            "ip.check_checksum:TRUE",
            "-d",
            "tcp.port==0-65535,data",
        ]);
        tshark.args(["-Y", filter, "-T", "fields", "-e", "frame.number", "-e", "_ws.col.Info"]);
        Ok(output(&mut tshark, LONG)?.stdout)
    };
    // What is sent again is not among them: on a machine that is busy with other tests, an ACK may come later than a probe.
    let bad = "tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed || _ws.expert.severity == 8388608 || \
               tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment || tcp.flags.reset == 1";
    let bad = tshark(bad)?;
    assert!(bad.is_empty(), "{bad}");
    let once =
        "!tcp.analysis.retransmission && !tcp.analysis.spurious_retransmission && !tcp.analysis.out_of_order";
    let fins = tshark(&format!("tcp.flags.fin == 1 && {once}"))?;
    assert_eq!(fins.lines().count(), 2, "one of either side: {fins}");
    Ok(())
}

fn anybody_can() -> Outcome {
    let desk = Desk::new()?;
    let copy = tempfile::tempdir()?;
    // A folder in which somebody else may make a link.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(desk.dir.path(), open)?;
    let words = [&THERE[..], &["echo", "--control", "none"]].concat();
    let mut server = desk.start(&mut as_nobody(copy.path(), &desk.command("pty:@/line", &words))?)?;
    server.wait_ready(LONG)?;
    let capabilities = wirestack_apps::privileges::status(&format!("/proc/{}/status", server.id()))?;
    assert!(capabilities.contains("CapEff: 0000000000000000"), "{capabilities}");
    let forward = desk.command("@/line@1000000", &["forward", "9000:10.0.2.2:7"]);
    let mut as_user = Command::new("setpriv");
    as_user.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    as_user.arg(copy.path().join("wirestack")).args(forward.get_args());
    let mut child = desk.start(&mut as_user)?;
    child.wait_ready(LONG)?;
    desk.echo(9_000, &noise(28, 30_000))?;
    end(child)?;
    end(server)?;
    Ok(())
}
