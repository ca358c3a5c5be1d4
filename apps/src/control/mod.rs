//! The socket on which a running program tells about itself.
//!
//! A Unix socket for one's own eyes (mode 0600). A reader sends a line and gets a line, as often as he likes:
//!
//! ```text
//! report connections=200 sort=rate      ▸  {"program":"http","pid":4711,…}
//! anything else                         ▸  {"error":"…"}, and the end
//! ```
//!
//! It has threads of its own, one for each reader, a bounded number; readers that write garbage or nothing, or do not
//! read, are given up after a while. The loop of the program is asked through a [`Desk`], and answers in its turns.
//!
//! | file | what it is |
//! |---|---|
//! | `place` | where the socket is, and sockets that dead processes have left |
//! | `desk` | a question for the loop, and its answer |
//! | `client` | the other end |

mod client;
mod desk;
mod place;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::shutdown;

use crate::error::AppError;
use crate::report::{CONNECTIONS_MAX, Report, Request};

pub use client::{AskError, ask};
pub use desk::{Asker, Desk, Step, ask_all};
pub use place::{Running, running};

/// Where answers come from. `None`: the program has not answered in time.
pub type Source = dyn Fn(Request) -> Option<Report> + Send + Sync;

/// A socket that is there, and on which nobody answers yet. It is removed when this is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// Whose it is: a child of `fork` leaves it where it is.
    pid: u32,
}

impl Control {
    /// Makes the socket of `--control`: a path, `none`, or else one where `top` finds it. `None`: there is none, because
    /// none was wanted or, with a line in the log, because the usual place cannot be had.
    ///
    /// # Errors
    /// A path that was given cannot be had. One line.
    pub fn open(wanted: Option<&Path>) -> Result<Option<Self>, AppError> {
        match wanted {
            Some(path) if path == Path::new("none") => Ok(None),
            Some(path) => {
                let failed = |error| AppError::flag("--control", path.display(), error);
                Self::at(path).map(Some).map_err(failed)
            }
            None => Ok(Self::in_usual_place()),
        }
    }

    fn in_usual_place() -> Option<Self> {
        let opened = |dir: PathBuf| {
            let path = dir.join(format!("{}.sock", std::process::id()));
            let opened = place::make_directory(&dir).and_then(|()| Self::at(&path));
            opened.map_err(|error| log::info!("no control socket {}: {error}", path.display())).ok()
        };
        let found = place::directories().into_iter().find_map(opened);
        if found.is_none() {
            log::info!("no control socket for `top`; --control PATH makes one");
        }
        found
    }

    fn at(path: &Path) -> io::Result<Self> {
        let listener = place::bind(path)?;
        Ok(Self { listener, path: path.to_owned(), pid: std::process::id() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers from now on, in threads, until what is returned is dropped.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn serve(
        self,
        source: impl Fn(Request) -> Option<Report> + Send + Sync + 'static,
    ) -> io::Result<Serving> {
        let listener = self.listener.try_clone()?;
        let source: Arc<Source> = Arc::new(source);
        let accept = move || accept(&listener, &source);
        let thread = thread::Builder::new().name("control".into()).spawn(accept)?;
        Ok(Serving { control: self, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Whatever is the matter, the next one who looks removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket on which threads answer. Dropped, it is gone.
#[derive(Debug)]
pub struct Serving {
    control: Control,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // On Linux this ends an `accept` that waits.
        let _ = shutdown(self.control.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts readers until the socket is shut down. Readers end by themselves, soon.
fn accept(listener: &UnixListener, source: &Arc<Source>) {
    let readers = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => {
                // No descriptors or no memory: he waits in the queue meanwhile.
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if readers.fetch_add(1, Ordering::Relaxed) >= READERS_MAX {
            readers.fetch_sub(1, Ordering::Relaxed);
            let refusal = format!("{READERS_MAX} readers are served already");
            // What is written to a new socket finds room.
            let _ = Timed::new(&stream, Duration::ZERO).write_all(refuse(&refusal).as_bytes());
            continue;
        }
        let (mine, source) = (Counted(readers.clone()), source.clone());
        let reader = move || {
            let _mine = mine;
            // He has gone, or is too slow: nothing that anybody could be told.
            let _ = answer(&stream, &*source);
            let _ = stream.shutdown(Shutdown::Both);
        };
        // Without a thread he is dropped with what was to be its own.
        let _ = thread::Builder::new().name("control reader".into()).spawn(reader);
    }
}

/// Counts down when a reader has gone, however his thread ended.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers the lines of a reader, until he ends or says something wrong.
fn answer(stream: &UnixStream, source: &Source) -> io::Result<()> {
    while let Some(line) = read_line(&mut Timed::new(stream, READ_TIMEOUT))? {
        let (text, is_over) = match parse(&line) {
            Ok(request) => match source(request) {
                Some(report) => (serde_json::to_string(&report)? + "\n", false),
                None => (refuse("the program does not answer; it is busy or ends"), false),
            },
            Err(problem) => (refuse(&problem), true),
        };
        Timed::new(stream, WRITE_TIMEOUT).write_all(text.as_bytes())?;
        if is_over {
            return Ok(());
        }
    }
    Ok(())
}

fn refuse(problem: &str) -> String {
    serde_json::json!({ "error": problem }).to_string() + "\n"
}

/// A line without its end; `None`: there is none any more. A line that is too long is cut, and said to be wrong by
/// whoever reads it.
fn read_line(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < REQUEST_BYTES_MAX {
        match stream.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => return Ok(Some(line)),
            Ok(_) if byte == *b"\n" => return Ok(Some(line)),
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(line))
}

/// Reads a request: `report`, with `connections=N` and `sort=KEY` if wanted.
///
/// # Errors
/// What is wrong with it, and what is accepted.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    let accepted = "report is accepted, with connections=N and sort=KEY if wanted";
    let line = std::str::from_utf8(line).map_err(|_| format!("not UTF-8; {accepted}"))?;
    if line.len() >= REQUEST_BYTES_MAX {
        return Err(format!("more than {REQUEST_BYTES_MAX} bytes; {accepted}"));
    }
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        Some("report") => {}
        word => return Err(format!("{:?}: {accepted}", word.unwrap_or_default())),
    }
    let mut request = Request::default();
    for word in words {
        match word.split_once('=') {
            Some(("connections", value)) => {
                let number = value.parse().ok().filter(|number| *number <= CONNECTIONS_MAX);
                let problem = || format!("{word:?}: a number in 0..={CONNECTIONS_MAX} is accepted");
                request.connections = number.ok_or_else(problem)?;
            }
            Some(("sort", value)) => {
                request.sort = value.parse().map_err(|problem| format!("{word:?}: {problem}"))?;
            }
            _ => return Err(format!("{word:?}: {accepted}")),
        }
    }
    Ok(request)
}

/// A stream on which everything is to be done within a time, however small the pieces are in which the other end takes
/// or gives it.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    fn new(stream: &'a UnixStream, time: Duration) -> Self {
        Self { stream, until: Instant::now() + time }
    }

    /// What is left, but never nothing: that would be for ever.
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    fn check(&self) -> io::Result<()> {
        if Instant::now() <= self.until + ACCEPT_PAUSE { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.set_read_timeout(Some(self.left()))?;
        self.stream.read(room)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.set_write_timeout(Some(self.left()))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor as a stream.
fn stream(fd: OwnedFd) -> UnixStream {
    fd.into()
}

/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 1_024;
/// Readers at a time.
const READERS_MAX: usize = 16;
/// How long a reader may take for a request, silence before it included.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a reader may take for an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nobody is accepted when there is no memory; and how much later than its deadline something may end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
