//! Serial lines that are cut, whose other end is killed, or speaks something else; and what a person sees of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::thread;

use wirestack_tests::programs::{Child, Ended, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, patient, require_program, test};

use crate::serial::{Desk, THERE};
use crate::support::{LONG, counter, end, noise};
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let socat = |cases| require_program("socat", cases);
    vec![
        patient(socat(test("serial::a_cable_that_is_pulled_out_and_back", unplugged))),
        test("serial::an_end_that_is_killed_is_replaced", killed),
        test("serial::nobody_there_speaks_it", no_speaker),
        test("serial::a_program_that_ends_at_once", ends_at_once),
        patient(test("serial::ends_that_do_not_agree", disagreement)),
        test("serial::only_one_end_compresses", one_end_compresses),
        test("serial::top_shows_the_line", top),
    ]
}

/// Many bytes through a port of this host's and back, on threads; the number tells how many have come back so far.
struct Transfer {
    bytes: Vec<u8>,
    stream: TcpStream,
    writer: thread::JoinHandle<std::io::Result<()>>,
    back: Vec<u8>,
}

impl Transfer {
    fn begin(desk: &Desk, len: usize) -> std::io::Result<Self> {
        let stream = desk.host.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9_000)))?;
        stream.set_read_timeout(Some(LONG))?;
        let bytes = noise(31, len);
        let (mut writer, all) = (stream.try_clone()?, bytes.clone());
        let writer = thread::spawn(move || {
            writer.write_all(&all)?;
            writer.shutdown(Shutdown::Write)
        });
        Ok(Self { bytes, stream, writer, back: Vec::new() })
    }

    /// Until so many have come back.
    fn reach(&mut self, len: usize) -> std::io::Result<()> {
        let mut room = [0; 4_096];
        while self.back.len() < len {
            let len = self.stream.read(&mut room)?;
            assert!(len > 0, "it ended after {} bytes", self.back.len());
            self.back.extend_from_slice(&room[..len]);
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        self.stream.read_to_end(&mut self.back)?;
        self.writer.join().expect("no panic")?;
        assert!(self.back == self.bytes, "{} of {} bytes", self.back.len(), self.bytes.len());
        Ok(())
    }
}

fn unplugged() -> Outcome {
    for options in ["", ",framing=cslip"] {
        note(options);
        let desk = Desk::new()?;
        let cable = desk.terminals()?;
        let server = desk.serve_there(&format!("@/a@1000000{options}"), &["echo", "--json"])?;
        let forward = ["forward", "9000:10.0.2.2:7", "--", "--json"];
        let child = desk.serve(&format!("@/b@1000000{options}"), &forward)?;
        let mut transfer = Transfer::begin(&desk, 200_000)?;
        transfer.reach(20_000)?;
        cable.terminate()?;
        cable.wait(LONG)?;
        wait_until("told of", || {
            Ok(child.stderr().contains("is lost") && server.stderr().contains("is lost"))
        })?;
        let cable = desk.terminals()?;
        transfer.finish()?;
        for child in [child, server] {
            let ended = end(child)?;
            assert_eq!(counter(&ended, "line_losses"), 1, "{ended}");
            assert!(ended.stderr.contains("the port is there"), "{ended}");
        }
        cable.kill_hard()?;
    }
    Ok(())
}

/// A program that is killed leaves a link, or a socket: the next one takes its place, and connections that the killed one did
/// not have live on.
fn killed() -> Outcome {
    for (there, here) in [("pty:@/line", "@/line@1000000"), ("unix:@/line,listen=on", "unix:@/line")] {
        note(there);
        let desk = Desk::new()?;
        desk.serve_there(there, &["echo"])?.kill_hard()?;
        assert!(desk.path("line").symlink_metadata().is_ok(), "it is left");
        let server = desk.serve_there(there, &["echo"])?;
        let child = desk.serve(here, &["forward", "9000:10.0.2.2:7"])?;
        desk.echo(9_000, &noise(32, 20_000))?;
        server.kill_hard()?;
        wait_until("told of", || Ok(child.stderr().contains("the port is lost")))?;
        let server = desk.serve_there(there, &["echo"])?;
        // The line is found again, by itself.
        desk.echo(9_000, &noise(33, 20_000))?;
        end(child)?;
        end(server)?;
        assert!(desk.path("line").symlink_metadata().is_err(), "nothing is left");
    }
    Ok(())
}

/// Lines of a program's log that warn.
fn warnings(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains(" WARN ")).collect()
}

fn no_speaker() -> Outcome {
    let desk = Desk::new()?;
    let child = desk.serve("exec:yes", &["forward", "9000:10.0.2.2:7", "--", "--json"])?;
    wait_until("a warning", || Ok(!warnings(&child.stderr()).is_empty()))?;
    let at_first = child.stderr();
    let ended = end(child)?;
    let said = warnings(&ended.stderr);
    assert!(said.len() == 1, "{at_first}\n{ended}");
    assert!(
        said[0].contains("does the other end speak the same framing") && said[0].contains("no packet"),
        "{ended}"
    );
    assert!(counter(&ended, "line_garbage_bytes") >= 4_096 && counter(&ended, "line_errors") > 0, "{ended}");
    Ok(())
}

fn ends_at_once() -> Outcome {
    let desk = Desk::new()?;
    let child = desk.serve("exec:exit 3", &["echo"])?;
    wait_until("told of", || Ok(warnings(&child.stderr()).len() >= 2))?;
    let ended = end(child)?;
    assert!(ended.stderr.contains("the command has ended"), "{ended}");
    assert!(ended.stderr.contains("the port is not there") || ended.stderr.contains("lost"), "{ended}");
    Ok(())
}

/// What the end there has, what the one here, and what is said there or here.
const DISAGREEMENTS: [(&str, &str, Option<&str>, Option<&str>); 3] = [
    (",crc=on", "", Some("does the other end speak the same framing"), None),
    // A packet with two bytes behind it is one.
    ("", ",crc=on", None, Some("does the other end speak the same framing")),
    (",mtu=296", ",mtu=1006", Some("the other end has a larger one"), None),
];

fn disagreement() -> Outcome {
    for (there, here, said_there, said_here) in DISAGREEMENTS {
        note(format!("{there:?} there, {here:?} here"));
        let desk = Desk::new()?;
        let server = desk.serve_there(&format!("unix:@/socket,listen=on{there}"), &["echo"])?;
        let ping = ["ping", "-c", "7", "-i", "0.01", "-W", "2", "-s", "900"];
        let ping = desk.serial(&format!("unix:@/socket{here}"), &ping)?.wait(LONG)?;
        let ended = end(server)?;
        for (ended, said) in [(&ended, said_there), (&ping, said_here)] {
            let warnings = warnings(&ended.stderr);
            let count = |words: &str| warnings.iter().filter(|line| line.contains(words)).count();
            let others = count("the other end has a larger one") + count("the same framing");
            assert_eq!((said.map_or(0, count), others), (said.iter().len(), said.iter().len()), "{ended}");
        }
    }
    Ok(())
}

/// Compressed headers are garbage for an end that does not know them; what is not TCP passes.
fn one_end_compresses() -> Outcome {
    let desk = Desk::new()?;
    let line = "unix:@/socket,listen=on";
    let mut server = desk.command(line, &[&THERE[..], &["echo", "--json"]].concat());
    let mut server = desk.start(server.env("RUST_LOG", "wirestack_nic=debug"))?;
    server.wait_ready(LONG)?;
    let child = desk.serve("unix:@/socket,framing=cslip", &["forward", "9000:10.0.2.2:7"])?;
    let _transfer = Transfer::begin(&desk, 10_000)?;
    wait_until("told of", || Ok(server.stderr().contains("are no packet: not an IP packet")))?;
    end(child)?;
    let ping = desk.serial("unix:@/socket,framing=cslip", &["ping", "-c", "1"])?.wait(LONG)?;
    assert!(ping.status.success(), "{ping}");
    assert!(counter(&end(server)?, "line_errors") > 0);
    Ok(())
}

fn top() -> Outcome {
    let desk = Desk::new()?;
    let socket = desk.path("control.sock");
    let path = socket.to_str().expect("a plain path");
    let server = desk.serve_there("pty:@/line", &["echo", "--control", path])?;
    let child = desk.serve("@/line@1000000", &["forward", "9000:10.0.2.2:7"])?;
    desk.echo(9_000, &noise(34, 10_000))?;
    let top: Ended =
        Child::start(&mut wirestack(["top", path, "--once", "--json", "--interval", "0.1"]))?.wait(LONG)?;
    let object: serde_json::Value = serde_json::from_str(&top.stdout)?;
    for name in ["line_rx_bytes", "line_tx_bytes"] {
        assert!(object["counters"][name].as_u64() > Some(10_000), "{object:#}");
    }
    assert!(object["nic"].as_str().is_none_or(|nic| nic.starts_with("serial:pty:")), "{object:#}");
    end(child)?;
    end(server)?;
    Ok(())
}
