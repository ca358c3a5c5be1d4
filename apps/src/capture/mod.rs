//! `wirestack capture`: what is on an interface, counted, written to files and analysed, at full speed.
//!
//! ```text
//!   interface ──▶ socket 0 ──▶ thread 0 ─┬─▶ meter 0 ──┐
//!            └──▶ socket 1 ──▶ thread 1 ─┼─▶ meter 1 ──┼──▶ main thread: a line a second, totals
//!                                        └─▶ one file ─┘
//! ```
//!
//! Frames are written as the kernel hands them over, as tcpdump does it: super-frames as they are, absent
//! checksums absent; VLAN tags are in the frame. Each thread gathers whole blocks in a buffer of its own
//! and hands it to the one file when it is full, so threads wait for each other once a megabyte.
//!
//! The capture is what came between the moment of the ready line and the end, by the kernel's timestamps:
//! what is in the rings at the end is still taken.
//!
//! | module | what it owns |
//! |---|---|
//! | [`args`] | the flags |
//! | `lists` | `--allow` and `--deny` |
//! | `setup` | from the flags to sockets and a file |
//! | `worker` | a thread that receives |
//! | `table` | what is printed |
//! | [`analyze`] | `--analyze` |

pub mod analyze;
pub mod args;
mod lists;
mod setup;
mod table;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use smoltcp::time::Instant;
use wirestack::nic::affinity;
use wirestack::nic::capture::pcapng::InterfaceStatistics;
use wirestack::nic::{LinkError, Nic, Waker, wait};

use crate::error::AppError;
use crate::serve::{print, print_error, print_if_read, say};

use args::CaptureArgs;
use setup::Prepared;
use table::{FileReport, Table, Totals};
use worker::{End, Event, Finished, Meter, Moment, Shared, Worker};

/// Captures until a signal, `--seconds`, `--count`, or a failure.
///
/// # Errors
/// Bad flags; an interface that is removed and a file that cannot be written any more end the capture, and
/// its figures are printed all the same.
pub fn run(args: &CaptureArgs) -> Result<(), AppError> {
    let Prepared { interface, mode, nics, file, lists } = setup::prepare(args)?;
    let (events, received) = mpsc::channel();
    watch_signals(events.clone())?;
    let shared = Arc::new(Shared {
        meters: nics.iter().map(|_| Meter::default()).collect(),
        file: file.map(std::sync::Mutex::new),
        count_max: args.count,
        count: 0.into(),
        lists,
        began: Moment::now(),
        end: End::default(),
    });
    let cpu_before = cpu_seconds();
    let wakers: Vec<_> = nics.iter().map(Nic::waker).collect();
    let threads = start(args, nics, &shared, &events)?;
    say(&format!("ready capture {interface}"), args.json);
    let mut table = Table::new(wakers.len());
    let outcome = supervise(args, &shared, &received, &mut table);
    let ended = Moment::now();
    shared.end.set(ended);
    wakers.iter().for_each(Waker::wake);
    let threads = join(threads)?;
    // What went wrong while the threads ended.
    let outcome = outcome.and_then(|()| received.try_iter().try_for_each(|event| event.into_result(args)));
    let mut totals = Totals {
        interface: &interface,
        mode: mode.name(),
        seconds: (ended.instant - shared.began.instant).total_micros() as f64 / 1e6,
        cpu_seconds: cpu_seconds() - cpu_before,
        threads,
        file: None,
    };
    let closed = close_file(args, shared, ended, &mut totals);
    report(args, &totals, &table);
    outcome.and(closed)
}

/// Prints a line each second until something ends the capture.
fn supervise(
    args: &CaptureArgs,
    shared: &Shared,
    events: &Receiver<Event>,
    table: &mut Table,
) -> Result<(), AppError> {
    let began = shared.began.instant;
    let micros = |seconds: f64| smoltcp::time::Duration::from_micros((seconds * 1e6) as u64);
    let end = args.seconds.map(|seconds| began + micros(seconds));
    let mut next = began + TICK;
    loop {
        let until = end.map_or(next, |end| end.min(next));
        match events.recv_timeout(until_then(until)) {
            Ok(event) => return event.into_result(args),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = wait::now();
        if let Some(mut file) = shared.lock_file() {
            file.rotate_if_due(now).map_err(|error| file_error(args, error))?;
        }
        if now >= next {
            let interval = table.tick(&shared.meters, (now - began).total_micros() as f64 / 1e6);
            if !say_interval(args, interval) {
                // As with `| head`: whoever wanted the figures has seen enough.
                return Ok(());
            }
            next = (next + TICK).max(now);
        }
        if end.is_some_and(|end| now >= end) {
            return Ok(());
        }
    }
}

fn until_then(until: Instant) -> Duration {
    let now = wait::now();
    if until > now { Duration::from_micros((until - now).total_micros()) } else { Duration::ZERO }
}

impl Event {
    fn into_result(self, args: &CaptureArgs) -> Result<(), AppError> {
        match self {
            Event::Stop => Ok(()),
            Event::Gone => Err(AppError::running(LinkError::Gone)),
            Event::FileFailed(error) => Err(file_error(args, error)),
        }
    }
}

/// A file that could be written to at first.
fn file_error(args: &CaptureArgs, error: std::io::Error) -> AppError {
    let path = args.write.as_deref().unwrap_or_else(|| "".as_ref());
    AppError::running(format_args!("--write {}: {error}; what was written is readable", path.display()))
}

/// Starts a thread for each device.
fn start<N: Nic + Send + 'static>(
    args: &CaptureArgs,
    nics: Vec<N>,
    shared: &Arc<Shared>,
    events: &Sender<Event>,
) -> Result<Vec<JoinHandle<Finished>>, AppError> {
    let cpus = args.pin.as_ref().map(|pin| affinity::spread(pin, nics.len())).unwrap_or_default();
    let workers = nics.into_iter().enumerate().map(|(index, nic)| {
        let analyzer = args.analyze.then(|| analyze::Analyzer::new(args.max_flows as usize));
        let worker = Worker::new(nic, index, Arc::clone(shared), events.clone(), analyzer);
        let cpu = cpus.get(index).cloned();
        let builder = thread::Builder::new().name(format!("capture {index}"));
        let run = move || {
            if let Some(cpu) = cpu {
                setup::pin(&cpu);
            }
            worker.run()
        };
        builder.spawn(run).map_err(AppError::running)
    });
    workers.collect()
}

fn join(threads: Vec<JoinHandle<Finished>>) -> Result<Vec<Finished>, AppError> {
    let finished = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| AppError::running("a thread has panicked; this is a bug")));
    finished.collect()
}

/// Writes the end of the file, and what is in it into the totals.
fn close_file(
    args: &CaptureArgs,
    shared: Arc<Shared>,
    ended: Moment,
    totals: &mut Totals<'_>,
) -> Result<(), AppError> {
    let began = shared.began;
    // The threads have ended, so nobody else has it.
    let Some(file) = Arc::into_inner(shared).and_then(|shared| shared.file) else { return Ok(()) };
    let file = file.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let paths = file.paths().map(|path| path.display().to_string()).collect();
    let all = totals.all();
    let statistics = InterfaceStatistics {
        start_nanos: began.nanos,
        end_nanos: ended.nanos,
        received: all.frames + totals.filtered() + all.dropped,
        dropped: all.dropped,
    };
    let before = file.totals();
    let result = file.finish(&statistics);
    let written = *result.as_ref().unwrap_or(&before);
    totals.file = Some(FileReport {
        frames: written.frames,
        frames_lost: written.frames_lost,
        bytes: written.bytes,
        files: written.files,
        paths,
    });
    result.map(drop).map_err(|error| file_error(args, error))
}

/// Lines for people go to stdout, and with `--json` nowhere: the object has them. False: nobody reads them.
fn say_interval(args: &CaptureArgs, interval: &table::Interval) -> bool {
    args.json || print_if_read(interval)
}

fn report(args: &CaptureArgs, totals: &Totals<'_>, table: &Table) {
    if args.json {
        return print(totals.to_json(table));
    }
    if args.analyze {
        print(totals.analysis().trim_end());
    }
    print_error(totals);
}

/// SIGINT and SIGTERM end the capture; a third one ends the process at once.
fn watch_signals(events: Sender<Event>) -> Result<(), AppError> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(AppError::running)?;
    let watch = move || {
        for (count, signal) in signals.forever().enumerate() {
            // The main thread may have gone on to its end.
            let _ = events.send(Event::Stop);
            if count == 2 {
                std::process::exit(128 + signal);
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map_err(AppError::running)?;
    Ok(())
}

/// CPU time of this process so far, of the kernel on its behalf too.
fn cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

const TICK: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);
