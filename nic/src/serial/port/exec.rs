//! A line whose other end is a program's stdin and stdout.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use smoltcp::time::Duration;

use super::{Opening, Port};
use crate::wait::now;

/// A shell command, started again when it has ended.
#[derive(Debug)]
pub struct Exec {
    command: String,
    open: Option<(UnixStream, Child)>,
    /// Those that were told to end.
    ending: Vec<Child>,
}

impl Exec {
    /// A command that does not run yet.
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), open: None, ending: Vec::new() }
    }

    fn stream(&self) -> io::Result<&UnixStream> {
        self.open.as_ref().map(|(stream, _)| stream).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// How the command has ended, if that is known already: its descriptors are closed a moment before.
    fn ended(&mut self) -> io::Error {
        let status = self.open.as_mut().and_then(|(_, child)| child.try_wait().ok().flatten());
        io::Error::other(match status {
            Some(status) => format!("the command has ended: {status}"),
            None => "the command has ended".to_owned(),
        })
    }

    fn reap(&mut self) {
        self.ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Port for Exec {
    fn open(&mut self) -> io::Result<Opening> {
        self.reap();
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let input = OwnedFd::from(theirs.try_clone()?);
        let child = Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            // Ctrl-C is for us: the line is needed until connections have ended.
            .process_group(0)
            .spawn()?;
        self.open = Some((ours, child));
        Ok(Opening::Done)
    }

    fn close(&mut self) {
        let Some((stream, child)) = self.open.take() else { return };
        drop(stream);
        signal(&child, Signal::SIGTERM);
        self.ending.push(child);
        self.reap();
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match io::Read::read(&mut self.stream()?, room) {
            // With bytes of ours that it has not read, its end is a reset.
            Ok(0) => Err(self.ended()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(self.ended()),
            read => read,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.stream()?, bytes)
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let fd = || self.stream().ok().map(AsFd::as_fd);
        [fd(), fd()]
    }
}

impl Drop for Exec {
    /// Whoever does not end in time is ended.
    fn drop(&mut self) {
        self.close();
        let until = now() + END_TIMEOUT;
        while !self.ending.is_empty() && now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.reap();
        }
        for mut child in self.ending.drain(..) {
            signal(&child, Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

/// To the command and all that it has started. It is its own group's leader, and was not waited for: the number is its.
fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

/// How long a command gets to end.
const END_TIMEOUT: Duration = Duration::from_millis(500);
