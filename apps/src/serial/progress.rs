//! What the line does, while a program runs: a line on stderr now and then, and one at the end.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wirestack::nic::serial::{LineFigures, LineSnapshot};

use crate::control::ask;
use crate::privileges::{self, Keep};
use crate::report::{Request, Sort};
use crate::serve::print_error;

/// A thread that tells about a line until this is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Tells every second on a terminal, and every ten elsewhere; with `is_wanted` false, at the end only. What TCP knows
    /// comes from the program's own socket, as for `top`.
    pub(super) fn begin(
        figures: Arc<LineFigures>,
        is_wanted: bool,
        control: Option<PathBuf>,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let interval = match (is_wanted, io::stderr().is_terminal()) {
            (false, _) => Duration::MAX,
            (true, true) => Duration::from_secs(1),
            (true, false) => Duration::from_secs(10),
        };
        let body = move || {
            // It has to be here before others give theirs up, and needs none.
            let _ = privileges::drop(Keep::Nothing);
            let begun = Instant::now();
            let mut last = (begun, figures.snapshot());
            // A second at least: what is asked for is a rate.
            let mut next = begun.checked_add(interval);
            loop {
                let wait = next.map_or(Duration::from_secs(3_600), |next| {
                    next.saturating_duration_since(Instant::now())
                });
                match stopped.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) if next.is_some() => {}
                    Err(RecvTimeoutError::Timeout) => continue,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
                let now = (Instant::now(), figures.snapshot());
                let rates = Rates { seconds: (now.0 - last.0).as_secs_f64(), last: last.1, now: now.1 };
                print_error(format_args!("wirestack: line: {rates}{}", connections(control.as_ref())));
                last = now;
                next = now.0.checked_add(interval);
            }
            print_error(format_args!("wirestack: line: {}", figures.snapshot()));
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(body)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many connections there are, and the longest of their round-trip times.
fn connections(control: Option<&PathBuf>) -> String {
    let request = Request { connections: 1, sort: Sort::Rtt };
    let Some(report) = control.and_then(|path| ask(path, request).ok()) else { return String::new() };
    let rtt = report.connections.first().and_then(|connection| connection.srtt_us);
    let rtt = rtt.map(|micros| format!(", rtt {} ms", micros.div_ceil(1_000))).unwrap_or_default();
    let word = if report.connections_len == 1 { "connection" } else { "connections" };
    format!(", {} {word}{rtt}", report.connections_len)
}

/// What the line did since the last look.
struct Rates {
    seconds: f64,
    last: LineSnapshot,
    now: LineSnapshot,
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, last, now } = self;
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds.max(0.001);
        write!(
            f,
            "in {:.0} B/s, out {:.0} B/s, {} errors, {} bytes wait",
            rate(now.rx_bytes, last.rx_bytes),
            rate(now.tx_bytes, last.tx_bytes),
            now.rx_errors,
            now.queue_bytes
        )?;
        f.write_str(if now.is_up { "" } else { ", the port is not there" })
    }
}
