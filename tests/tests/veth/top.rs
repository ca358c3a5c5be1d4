//! `wirestack top` on programs that serve: once, on a terminal, and with what can be wrong.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::programs::{Child, Ended, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, root_test, test};

use crate::support::{LONG, end, on_smoltcp, serve};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        require_program("curl", test("top::once_shows_a_connection_with_its_path", shows_a_connection)),
        test("top::on_a_terminal", on_a_terminal),
        test("top::what_can_be_wrong", what_can_be_wrong),
        test("top::of_smoltcp_there_are_counters", of_smoltcp),
        root_test("top::finds_programs_by_their_process", by_process),
    ]
}

/// A server whose control socket is in this directory.
fn server(wire: &Wire, dir: &Path, more: &[&str]) -> io::Result<(Child, PathBuf)> {
    let socket = dir.join("control.sock");
    let path = socket.to_str().expect("a plain path");
    let child = serve(wire, &[&["http", "--control", path], more].concat())?;
    Ok((child, socket))
}

/// Runs `top` to its end.
fn top(args: &[&str]) -> io::Result<Ended> {
    Child::start(&mut wirestack([&["top"], args].concat()))?.wait(LONG)
}

fn shows_a_connection() -> Outcome {
    let (wire, dir) = (Wire::new()?, tempfile::tempdir()?);
    let (server, socket) = server(&wire, dir.path(), &["--impair", "delay=5ms,rate=40mbit", "--seed", "1"])?;
    let path = socket.to_str().expect("a plain path");
    let url = format!("http://{OURS_IPV4}/bytes/1000000000");
    let curl = wire.at_peer(|| {
        Child::start(Command::new("curl").args(["-sS", "--max-time", "60", &url, "-o", "/dev/null"]))
    })?;
    // The first looks may come before the connection.
    let mut looks = (0..40).map(|_| top(&[path, "--once", "--json", "--interval", "0.2"]));
    let found = looks.find_map(|ended| {
        let ended = ended.ok().filter(|ended| ended.status.success())?;
        let object: serde_json::Value = serde_json::from_str(&ended.stdout).ok()?;
        let rate = object["connections"][0]["out_bits_per_second"].as_f64();
        let window = object["connections"][0]["cwnd_bytes"].as_u64();
        (rate > Some(1e6) && window >= Some(14_000)).then_some(object)
    });
    let object = found.expect("a connection with a rate and a window");
    let connection = &object["connections"][0];
    assert_eq!(connection["local"], format!("{OURS_IPV4}:80"));
    assert_eq!(
        (connection["state"].as_str(), connection["owner"].as_str()),
        (Some("ESTABLISHED"), Some("application"))
    );
    assert!(connection["srtt_us"].as_u64() >= Some(5_000), "there and back is 10 ms: {connection:#}");
    assert!(object["rates"]["bits_out_per_second"].as_f64() > Some(1e6), "{object:#}");
    assert_eq!(
        (object["program"].as_str(), object["pid"].as_u64()),
        (Some("http"), Some(server.id().into()))
    );
    assert_eq!(object["counters"]["accepted"], 1);
    assert!(object["listeners"][0]["local"].as_str().is_some_and(|local| local.ends_with(":80")));
    let text = top(&[path, "--once", "--interval", "0.2", "--sort", "rtt"])?.stdout;
    assert!(text.starts_with("http, process ") && text.contains("1 connection:\nESTABLISHED"), "{text}");
    assert!(text.contains(" cwnd:") && text.contains(" rtt:") && text.contains(" limited_by:"), "{text}");
    // With nothing to show of them, they are still counted.
    let none = top(&[path, "--once", "--interval", "0.1", "--count", "0"])?.stdout;
    assert!(none.contains("0 of 1 connections:"), "{none}");
    curl.kill_hard()?;
    end(server)?;
    assert!(!socket.exists(), "the socket goes with the program");
    Ok(())
}

fn of_smoltcp() -> Outcome {
    let (wire, dir) = (Wire::new()?, tempfile::tempdir()?);
    on_smoltcp(|| {
        let (server, socket) = server(&wire, dir.path(), &[])?;
        let path = socket.to_str().expect("a plain path");
        let ended = top(&[path, "--once", "--json", "--interval", "0.1"])?;
        let object: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        assert!(object["counters"]["stack_rx_frames"].is_u64(), "{object:#}");
        assert!(object["rates"].is_object(), "{object:#}");
        end(server)?;
        Ok(())
    })
}

fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!((ended.status.code(), ended.stderr.lines().count()), (Some(2), 1), "{ended}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is missing\n{ended}");
    }
}

fn what_can_be_wrong() -> Outcome {
    let (wire, dir) = (Wire::new()?, tempfile::tempdir()?);
    let (server, socket) = server(&wire, dir.path(), &[])?;
    let path = socket.to_str().expect("a plain path");
    // Neither stdin nor stdout is a terminal here.
    assert_refused(&top(&[path])?, &["no terminal", "--once"]);
    let file = dir.path().join("file");
    fs::write(&file, "mine")?;
    let nowhere = dir.path().join("nowhere");
    let plain = |path: &Path| path.to_str().expect("a plain path").to_owned();
    assert_refused(&top(&[&plain(&nowhere), "--once"])?, &["nowhere", "has ended"]);
    assert_refused(&top(&[&plain(&file), "--once"])?, &["file"]);
    assert_refused(&top(&["http", "--once"])?, &["PID http", "a process number"]);
    // A control socket that cannot be had, before anything else is done.
    let nic = format!("packet:{}", wire.ours().name());
    for (wanted, words) in
        [(path, "another process listens"), (&plain(&file), "no socket"), ("/nowhere/x.sock", "No such file")]
    {
        let args = ["echo", "--nic", &nic, "--address", "10.77.0.9/24", "--control", wanted];
        let ended = wire.at_ours(|| Child::start(&mut wirestack(args)))?.wait(LONG)?;
        assert_refused(&ended, &["--control", wanted, words]);
    }
    assert_eq!(fs::read_to_string(&file)?, "mine");
    // A program that is killed leaves its socket; the next one of that name takes its place.
    server.kill_hard()?;
    assert!(socket.exists());
    assert_refused(&top(&[path, "--once"])?, &["has ended"]);
    let (server, socket) = self::server(&wire, dir.path(), &[])?;
    assert!(top(&[path, "--once", "--interval", "0.1"])?.status.success());
    end(server)?;
    assert!(!socket.exists());
    Ok(())
}

fn by_process() -> Outcome {
    let wire = Wire::new()?;
    let server = serve(&wire, &["http"])?;
    let pid = server.id().to_string();
    let socket = PathBuf::from(format!("/run/wirestack/{pid}.sock"));
    assert!(socket.exists());
    let ended = top(&[&pid, "--once", "--interval", "0.1"])?;
    assert!(ended.status.success() && ended.stdout.contains(&format!("process {pid}")), "{ended}");
    let silent = serve(&wire, &["echo", "--control", "none", "--address", "10.77.0.9/24"]);
    // The other addresses are taken; a program that does not come up leaves nothing.
    assert!(silent.is_err());
    server.kill_hard()?;
    assert_refused(&top(&[&pid, "--once"])?, &["PID", &pid]);
    assert!(!socket.exists(), "whoever looks takes away what the dead have left");
    Ok(())
}

/// `top` with a terminal.
struct OnTerminal {
    process: std::process::Child,
    master: File,
    slave: OwnedFd,
    shown: Vec<u8>,
}

impl OnTerminal {
    fn start(args: &[&str]) -> io::Result<Self> {
        let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None)?;
        let end = || pty.slave.try_clone().map(Stdio::from);
        let mut command = wirestack([&["top"], args].concat());
        let process = command.stdin(end()?).stdout(end()?).stderr(end()?).spawn()?;
        Ok(Self { process, master: File::from(pty.master), slave: pty.slave, shown: Vec::new() })
    }

    /// Reads until this was written.
    fn wait_for(&mut self, text: &str) -> io::Result<()> {
        let until = Instant::now() + LONG;
        let mut room = [0; 4_096];
        while !String::from_utf8_lossy(&self.shown).contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
                let last = self.shown.len().saturating_sub(2_000);
                let shown = String::from_utf8_lossy(&self.shown[last..]);
                return Err(io::Error::other(format!("{text:?} was not shown in {shown:?}")));
            }
            let len = self.master.read(&mut room)?;
            self.shown.extend_from_slice(&room[..len]);
        }
        Ok(())
    }

    fn is_raw(&self) -> io::Result<bool> {
        Ok(!tcgetattr(&self.slave)?.local_flags.contains(LocalFlags::ICANON))
    }

    /// Waits for its end: the terminal is as it was.
    fn end(mut self) -> io::Result<(ExitStatus, String)> {
        // It leaves the other screen, and only then it ends.
        self.wait_for("\u{1b}[?1049l")?;
        let status = self.process.wait()?;
        assert!(!self.is_raw()?, "the terminal is given back");
        let flags = PollFlags::POLLIN;
        let mut room = [0; 4_096];
        // What it has said last is there: it has ended.
        while poll(&mut [PollFd::new(self.master.as_fd(), flags)], PollTimeout::ZERO)? > 0 {
            let len = self.master.read(&mut room)?;
            self.shown.extend_from_slice(&room[..len]);
        }
        Ok((status, String::from_utf8_lossy(&self.shown).into_owned()))
    }
}

fn on_a_terminal() -> Outcome {
    let (wire, dir) = (Wire::new()?, tempfile::tempdir()?);
    let (server, socket) = server(&wire, dir.path(), &[])?;
    let path = socket.to_str().expect("a plain path");
    let start = || -> io::Result<OnTerminal> {
        let mut shown = OnTerminal::start(&[path, "--interval", "0.1"])?;
        shown.wait_for("LIMITED BY")?;
        assert!(shown.is_raw()?);
        Ok(shown)
    };
    let mut by_key = start()?;
    // Only what has changed is written: a word where nothing was before.
    by_key.master.write_all(b"h")?;
    by_key.wait_for("Ctrl-C")?;
    by_key.master.write_all(b"q")?;
    assert!(by_key.end()?.0.success());
    let by_signal = start()?;
    kill(Pid::from_raw(by_signal.process.id() as i32), Signal::SIGTERM)?;
    assert!(by_signal.end()?.0.success());
    let to_the_end = start()?;
    let pid = server.id();
    end(server)?;
    let (status, shown) = to_the_end.end()?;
    assert!(status.success(), "{shown}");
    assert!(shown.contains(&format!("http (process {pid}) has ended")), "{shown}");
    Ok(())
}
