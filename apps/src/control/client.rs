//! Asking a running program about itself.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::os::fd::AsRawFd;

use super::{Timed, stream};
use crate::report::{Report, Request};

/// Why there is no report.
#[derive(Debug)]
pub enum AskError {
    /// Nobody is there, or not any more.
    Gone,
    /// It is not for this user, or there is another reason of the system.
    Refused(io::Error),
    /// It has not answered in time.
    Silent,
    /// It is somebody else who answers, or it answers with an error.
    Odd(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("nobody answers there: the program has ended"),
            Self::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{error}: it is another user's")
            }
            Self::Refused(error) => error.fmt(f),
            Self::Silent => f.write_str("no answer in time: the program is stopped, or very busy"),
            Self::Odd(problem) => f.write_str(problem),
        }
    }
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, TimedOut, WouldBlock};
        match error.kind() {
            NotFound | ConnectionRefused | ConnectionReset | BrokenPipe => Self::Gone,
            TimedOut | WouldBlock => Self::Silent,
            _ => Self::Refused(error),
        }
    }
}

/// Asks the program with this socket.
///
/// # Errors
/// As [`AskError`] has them.
pub fn ask(path: &Path, request: Request) -> Result<Report, AskError> {
    let until = Instant::now() + ASK_TIMEOUT;
    let system = |errno: Errno| AskError::from(io::Error::from(errno));
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(system)?;
    // The queue of a program that is stopped is full at some time.
    setsockopt(&fd, SendTimeout, &TimeVal::milliseconds(ASK_TIMEOUT.as_millis() as i64)).map_err(system)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path).map_err(system)?).map_err(system)?;
    let stream = stream(fd);
    let mut timed = Timed { stream: &stream, until };
    let Request { connections, sort } = request;
    timed.write_all(format!("report connections={connections} sort={sort}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut room = vec![0; 64 << 10];
    while answer.last() != Some(&b'\n') {
        match timed.read(&mut room) {
            Ok(0) if answer.is_empty() => return Err(AskError::Gone),
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&room[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(AskError::Odd("what answers there is no wirestack: it does not end".to_owned()));
        }
    }
    parse(&answer)
}

/// Reads an answer.
pub(super) fn parse(answer: &[u8]) -> Result<Report, AskError> {
    let odd = |problem: &dyn fmt::Display| {
        AskError::Odd(format!("what answers there is no wirestack, or another version: {problem}"))
    };
    let value: serde_json::Value = serde_json::from_slice(answer).map_err(|error| odd(&error))?;
    if let Some(error) = value.get("error").and_then(serde_json::Value::as_str) {
        return Err(AskError::Odd(error.chars().filter(|c| !c.is_control()).take(200).collect()));
    }
    let report: Report = serde_json::from_value(value).map_err(|error| odd(&error))?;
    if report.program.is_empty() { Err(odd(&"it does not say which program it is")) } else { Ok(report) }
}

/// How long an answer may take, all in all.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// More than a thousand connections and all counters are.
const ANSWER_BYTES_MAX: usize = 16 << 20;
