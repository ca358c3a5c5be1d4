//! Child processes: the program under test, which is this very binary, and programs of others.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{self, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// First argument of a test binary that is to be the program under test.
const PROGRAM_MARK: &str = "__wirestack";

/// How often a child that writes nothing is looked at, to see whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the output of a child that has ended may take to arrive.
const GRACE: Duration = Duration::from_secs(1);

/// The program under test with these arguments, not started yet: this binary, as another process.
///
/// A child belongs to the network namespace of the thread that starts it, so start it in
/// `wire.at_ours(..)` or `wire.at_peer(..)`.
///
/// # Panics
/// If the path of this binary is not known: `/proc` is not mounted.
pub fn wirestack<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    // A path that the shell found would do as well; this one is right after `cd`, too.
    let mut command = Command::new(env::current_exe().expect("the path of this binary"));
    command.arg(PROGRAM_MARK).args(args);
    command
}

/// Runs the program under test if that is what [`wirestack()`] started this process for; the first
/// thing that `main` of a test binary calls.
pub fn dispatch_program() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    (args.next()? == *PROGRAM_MARK).then(|| wirestack_apps::run(args.collect::<Vec<OsString>>()))
}

/// Where a program of another project is installed, if it is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Ordinary users often lack the last two, and programs for networks often are there.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A child process; dropping it kills it.
///
/// What it writes is read at once, so that it never waits for us, and kept for failure messages.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    name: String,
    stdout: Receiver<String>,
    seen: Vec<String>,
    stderr: Arc<Mutex<String>>,
    /// Disconnected when standard error has ended.
    stderr_end: Receiver<()>,
}

/// How a [`Child`] ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All lines of its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Child {
    /// Starts a program in the network namespace of the calling thread, without standard input.
    ///
    /// # Errors
    /// The program cannot be started; the message says which.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let name = describe(command);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start {name}: {error}")))?;
        let (lines, stdout) = mpsc::channel();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (end, stderr_end) = mpsc::channel::<()>();
        if let Some(pipe) = process.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    // The receiver is gone when the test is not interested any more: read on, so that
                    // the child does not stop at a full pipe.
                    let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        if let Some(pipe) = process.stderr.take() {
            let stderr = Arc::clone(&stderr);
            thread::spawn(move || {
                let _end = end;
                collect(pipe, &stderr);
            });
        }
        Ok(Self { process, name, stdout, seen: Vec::new(), stderr, stderr_end })
    }

    /// Sleeps until a line of standard output, or of standard error, starts with `prefix`, and returns
    /// that line.
    ///
    /// # Errors
    /// No such line within `timeout`, or the program has ended; the message has all of its output.
    pub fn wait_for_line(&mut self, prefix: &str, timeout: Duration) -> io::Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(line) = self.line_of_stderr(prefix) {
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left.min(PAUSE)) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(prefix) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    let what = format!("printed no line {prefix:?} within {timeout:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, self.tell(&what)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // Its last words may be read later than the end of the other pipe is.
                    let _ = self.stderr_end.recv_timeout(GRACE);
                    if let Some(line) = self.line_of_stderr(prefix) {
                        return Ok(line);
                    }
                    let what = format!("ended before it printed a line {prefix:?}");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, self.tell(&what)));
                }
            }
        }
    }

    /// The first whole line of standard error with this beginning: the last one may still be on its way.
    fn line_of_stderr(&self, prefix: &str) -> Option<String> {
        let stderr = self.stderr();
        let mut complete = stderr.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        complete.find(|line| line.starts_with(prefix)).map(str::to_owned)
    }

    /// Sleeps until the line that every serving program prints once it serves: `ready ...`.
    ///
    /// # Errors
    /// As for [`wait_for_line`](Child::wait_for_line).
    pub fn wait_ready(&mut self, timeout: Duration) -> io::Result<String> {
        self.wait_for_line("ready ", timeout)
    }

    /// Sleeps until the program ends by itself.
    ///
    /// # Errors
    /// It has not after `timeout`. It is killed then, and the message has all of its output.
    pub fn wait(mut self, timeout: Duration) -> io::Result<Ended> {
        let deadline = Instant::now() + timeout;
        while self.process.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                let what = format!("still runs after {timeout:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, self.tell(&what)));
            }
            // Standard output ends with the program, so this wakes up at once in most cases.
            match self.stdout.recv_timeout(PAUSE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
            }
        }
        self.finish()
    }

    /// Asks the program to end (SIGTERM).
    ///
    /// # Errors
    /// It has ended and was waited for.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Ends the program without a chance to clean up (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// It was waited for already.
    pub fn kill_hard(mut self) -> io::Result<Ended> {
        self.process.kill()?;
        self.finish()
    }

    /// Sends any signal.
    ///
    /// # Errors
    /// The program has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.process.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(id), signal)?)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) -> io::Result<Ended> {
        let status = self.process.wait()?;
        // The pipes end now, unless the program left children of its own behind that write to them.
        let deadline = Instant::now() + GRACE;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.stdout.recv_timeout(left()) {
            self.seen.push(line);
        }
        // Nothing is ever sent: this is a wait for the end.
        let _ = self.stderr_end.recv_timeout(left());
        let mut stdout = self.seen.join("\n");
        if !stdout.is_empty() {
            stdout.push('\n');
        }
        Ok(Ended { status, stdout, stderr: self.stderr() })
    }

    /// A failure message with everything that is known.
    fn tell(&mut self, what: &str) -> String {
        let name = self.name.clone();
        // Else the last lines might be missing.
        let _ = self.process.kill();
        match self.finish() {
            Ok(ended) => format!("{name} {what}\n{ended}"),
            Err(error) => format!("{name} {what}, and cannot be waited for: {error}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for, as it should be then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "  {}", self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            for line in text.lines() {
                writeln!(f, "  {name}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Runs a program of another project to its end, in the network namespace of the calling thread.
///
/// # Errors
/// It cannot be started, takes longer than `timeout`, or ends with another status than 0.
pub fn output(command: &mut Command, timeout: Duration) -> io::Result<Ended> {
    let name = describe(command);
    let ended = Child::start(command)?.wait(timeout)?;
    if ended.status.success() { Ok(ended) } else { Err(io::Error::other(format!("{name} failed\n{ended}"))) }
}

fn describe(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}

fn collect(mut pipe: impl Read, text: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        let more = String::from_utf8_lossy(&buffer[..len]);
        text.lock().unwrap_or_else(PoisonError::into_inner).push_str(&more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Child {
        Child::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_line_is_waited_for() {
        let mut child = shell("echo one; echo ready x 1; sleep 100");
        assert_eq!(child.wait_ready(LONG).unwrap(), "ready x 1");
    }

    #[test]
    fn the_end_before_the_line_shows_what_was_written() {
        let error = shell("echo one; echo trouble >&2; exit 3").wait_ready(LONG).unwrap_err().to_string();
        for part in ["ended before", "stdout: one", "stderr: trouble", "exit status: 3"] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }

    #[test]
    fn a_deadline_passes() {
        // The shell has a child, which holds the pipes open after the shell was killed.
        let error = shell("sleep 5; true").wait(Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn output_is_complete() {
        let ended = output(Command::new("sh").args(["-c", "echo a; echo b; echo c >&2"]), LONG).unwrap();
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("a\nb\n", "c\n"));
        assert!(output(&mut Command::new("false"), LONG).is_err());
    }

    #[test]
    fn signals_arrive() {
        let child = shell("exec sleep 100");
        child.terminate().unwrap();
        assert_eq!(child.wait(LONG).unwrap().status.to_string(), "signal: 15 (SIGTERM)");
        assert_eq!(shell("exec sleep 100").kill_hard().unwrap().status.to_string(), "signal: 9 (SIGKILL)");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program").is_none());
    }
}
