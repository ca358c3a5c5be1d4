//! `perf client`: what all modes have in common. Connections first, then the clock, then the figures.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use serde_json::{Map, Value, json};
use smoltcp::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};

use super::args::{ClientArgs, Mode};
use super::figures::{Cpu, Latencies};
use super::group::{Group, Interrupt, Leash};
use super::io::{Sink, Source};
use super::wire::{Hello, Purpose, Report};
use super::{http, requests, stream};
use crate::error::AppError;
use crate::serve::{print, say};
use crate::sockets::{Options, Program, Sockets};

/// Runs one measurement.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) args: &'a ClientArgs,
}

impl Program for Client<'_> {
    type Output = Result<(), AppError>;

    async fn run<S: Sockets>(self, sockets: S) -> Self::Output {
        let interrupt = Interrupt::watch(&sockets);
        let measuring = pin!(measure(&sockets, self.args, &interrupt));
        // Whoever ends it early sees what was measured until then, if anything was.
        let patience = pin!(async {
            interrupt.wait().await;
            sockets.sleep_until(sockets.now() + INTERRUPT_PATIENCE).await;
        });
        let result = match select(measuring, patience).await {
            Either::Left((result, _)) => result?,
            Either::Right(_) => return Err(AppError::running("ended before its time")),
        };
        if self.args.place.host.json {
            print(Value::Object(result));
        }
        Ok(())
    }
}

/// Measures, tells people about it, and returns what scripts want to know.
pub(super) async fn measure<S: Sockets>(
    sockets: &S,
    args: &ClientArgs,
    interrupt: &Interrupt,
) -> Result<Map<String, Value>, AppError> {
    let run = Run::new(sockets.clone(), args, interrupt.clone()).await?;
    let _leash = Leash(run.group.clone());
    let cpu = Cpu::now();
    let before = run.ask_server(args).await?;
    let mut result = match args.mode {
        Mode::Stream => stream::run(&run, args).await?,
        Mode::Rr => requests::run_rr(&run, args).await?,
        Mode::Crr => requests::run_crr(&run, args).await?,
        Mode::Idle => requests::run_idle(&run, args).await?,
        Mode::Http => http::run(&run, args).await?,
    };
    result.insert("program".into(), "perf client".into());
    result.insert("mode".into(), args.mode_name().into());
    result.insert("backend".into(), sockets.name().into());
    result.insert("remote".into(), run.remote.to_string().into());
    result.insert("parallel".into(), args.parallel.into());
    if let (Some(before), Some(after)) = (before, run.ask_server(args).await?) {
        let seconds = after.cpu_micros.saturating_sub(before.cpu_micros) as f64 / 1e6;
        result.insert("server_cpu_seconds".into(), seconds.into());
    }
    let cpu = Cpu::now().since(cpu);
    result.insert("cpu_seconds".into(), cpu.total().into());
    result.insert("cpu_user_seconds".into(), cpu.user.into());
    result.insert("cpu_system_seconds".into(), cpu.system.into());
    say(&format!("cpu: {:.2} s in user space, {:.2} s in the kernel", cpu.user, cpu.system), run.json);
    Ok(result)
}

/// A measurement that is under way; what its tasks share. Clones are the same.
#[derive(Debug)]
pub(super) struct Run<S> {
    pub(super) sockets: S,
    pub(super) remote: SocketAddr,
    pub(super) options: Options,
    pub(super) group: Group,
    interrupt: Interrupt,
    pub(super) sink: Sink,
    pub(super) source: Source,
    pub(super) json: bool,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Of those that connect at the same time.
    connecting: Semaphore,
    connected: Cell<usize>,
    is_open: Cell<bool>,
    opened: Notify,
    everybody: Notify,
    wanted: usize,
    pub(super) latencies: RefCell<Latencies>,
}

impl<S: Sockets> Clone for Run<S> {
    fn clone(&self) -> Self {
        Self {
            sockets: self.sockets.clone(),
            options: self.options.clone(),
            group: self.group.clone(),
            interrupt: self.interrupt.clone(),
            sink: self.sink.clone(),
            source: self.source.clone(),
            shared: Rc::clone(&self.shared),
            ..*self
        }
    }
}

impl<S: Sockets> Run<S> {
    async fn new(sockets: S, args: &ClientArgs, interrupt: Interrupt) -> Result<Self, AppError> {
        let remote = reachable(&sockets, &args.server, args.port).await?;
        let default = if args.mode == Mode::Stream { super::io::CHUNK_BYTES } else { 1 };
        let size = args.size.map_or(default, |size| size as usize);
        let shared = Shared {
            connecting: Semaphore::new(CONNECTING_MAX),
            connected: Cell::new(0),
            is_open: Cell::new(false),
            opened: Notify::new(),
            everybody: Notify::new(),
            wanted: args.parallel,
            latencies: RefCell::new(Latencies::new()),
        };
        Ok(Self {
            sockets,
            remote,
            options: args.tcp.options(args.mode != Mode::Stream),
            group: Group::default(),
            interrupt,
            sink: Sink::new(),
            source: Source::new(size),
            json: args.place.host.json,
            shared: Rc::new(shared),
        })
    }

    /// Bytes written at once, or of a request.
    pub(super) fn size(&self) -> usize {
        self.source.bytes().len()
    }

    /// How long things took.
    pub(super) fn latencies(&self) -> &RefCell<Latencies> {
        &self.shared.latencies
    }

    /// An error of the connection to the server, with what was being done.
    pub(super) fn failed(&self, what: &str) -> impl Fn(io::Error) -> AppError {
        let remote = self.remote;
        let what = what.to_owned();
        move |error| AppError::running(format_args!("{what} {remote}: {error}"))
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<S::Stream, AppError> {
        let connecting = pin!(self.sockets.connect(self.remote, &self.options));
        let sleep = pin!(self.sockets.sleep_until(self.sockets.now() + CONNECT_TIMEOUT));
        let result = match select(connecting, sleep).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        result.map_err(self.failed("connecting to"))
    }

    /// Opens a connection, not too many at the same time, and waits until all others have theirs.
    pub(super) async fn connect_with_all(&self, hello: Option<Hello>) -> Result<S::Stream, AppError> {
        let mut stream = {
            let _permit = self.shared.connecting.acquire().await;
            let mut stream = self.connect().await?;
            if let Some(hello) = hello {
                stream.write_all(&hello.to_bytes()).await.map_err(self.failed("writing to"))?;
            }
            stream
        };
        stream.flush().await.map_err(self.failed("writing to"))?;
        self.wait_for_all().await;
        Ok(stream)
    }

    /// Waits until all tasks have come here.
    pub(super) async fn wait_for_all(&self) {
        let shared = &self.shared;
        shared.connected.set(shared.connected.get() + 1);
        if shared.connected.get() == shared.wanted {
            shared.everybody.notify_one();
        }
        while !shared.is_open.get() {
            shared.opened.notified().await;
        }
    }

    /// Waits until all tasks have their connections, and lets them begin.
    ///
    /// # Errors
    /// One of them has failed.
    pub(super) async fn begin(&self) -> Result<Instant, AppError> {
        let everybody = pin!(async {
            while self.shared.connected.get() < self.shared.wanted {
                self.shared.everybody.notified().await;
            }
        });
        let failed = pin!(self.group.join());
        select(everybody, failed).await;
        self.group.failure()?;
        let now = self.sockets.now();
        self.shared.is_open.set(true);
        self.shared.opened.notify_waiters();
        Ok(now)
    }

    /// Calls `line` after each interval with where it began and ended, in seconds, until the time is over. Returns the
    /// time that it took.
    ///
    /// # Errors
    /// A task has failed.
    pub(super) async fn watch(
        &self,
        args: &ClientArgs,
        begin: Instant,
        mut line: impl FnMut(f64, f64),
    ) -> Result<f64, AppError> {
        let end = begin + duration(args.time);
        let interval = duration(args.interval);
        let mut last = begin;
        let mut next = begin;
        loop {
            next = (next + interval).min(end);
            let joining = pin!(self.group.join_until(&self.sockets, next));
            let is_over = match select(pin!(self.interrupt.wait()), joining).await {
                Either::Left(_) => true,
                Either::Right((is_over, _)) => is_over,
            };
            let now = self.sockets.now();
            // The rest of a test is not worth a line of its own if it is next to nothing.
            if next < end || now - last > interval / 10 {
                line(seconds(last - begin), seconds(now - begin));
                last = now;
            }
            self.group.failure()?;
            if is_over || next >= end {
                return Ok(seconds(now - begin));
            }
        }
    }

    /// Lets the tasks come to their end, and says how many did not.
    ///
    /// # Errors
    /// A task has failed.
    pub(super) async fn finish(&self) -> Result<usize, AppError> {
        self.group.finish(&self.sockets, self.sockets.now() + FINISH_TIMEOUT).await
    }

    /// How the server does. `None`: it is none of ours, and need not be.
    async fn ask_server(&self, args: &ClientArgs) -> Result<Option<Report>, AppError> {
        if args.mode == Mode::Http {
            return Ok(None);
        }
        self.report().await.map(Some)
    }

    /// How the server does.
    ///
    /// # Errors
    /// It cannot be reached, or is none of ours.
    pub(super) async fn report(&self) -> Result<Report, AppError> {
        let hello =
            Hello { purpose: Purpose::Report, server_sends: false, request_bytes: 1, response_bytes: 1 };
        let mut stream = self.connect().await?;
        let mut bytes = [0; Report::LEN];
        let asking = pin!(async {
            stream.write_all(&hello.to_bytes()).await?;
            stream.read_exact(&mut bytes).await
        });
        let sleep = pin!(self.sockets.sleep_until(self.sockets.now() + FINISH_TIMEOUT));
        let result = match select(asking, sleep).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let remote = self.remote;
        let stranger = |error| {
            AppError::running(format_args!("{remote} does not answer as `perf server` does: {error}"))
        };
        result.map_err(stranger)?;
        Ok(Report::parse(bytes))
    }
}

/// An address of the server; if it has several, the first that can be connected to.
pub(super) async fn reachable<S: Sockets>(
    sockets: &S,
    host: &str,
    port: u16,
) -> Result<SocketAddr, AppError> {
    let addresses = sockets.resolve(host, port).await;
    let addresses = addresses.map_err(|error| AppError::usage(format_args!("HOST {host}: {error}")))?;
    if let [only] = addresses[..] {
        return Ok(only);
    }
    let mut refusal = AppError::usage(format_args!("HOST {host}: it has no address"));
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        let options = Options::default();
        let connecting = pin!(sockets.connect(address, &options));
        let sleep = pin!(sockets.sleep_until(sockets.now() + CONNECT_TIMEOUT));
        match select(connecting, sleep).await {
            Either::Left((Ok(_), _)) => return Ok(address),
            Either::Left((Err(error), _)) => {
                refusal = AppError::running(format_args!("connecting to {address}: {error}"));
            }
            Either::Right(_) => {
                refusal = AppError::running(format_args!("connecting to {address}: no answer"));
            }
        }
    }
    Err(refusal)
}

/// Seconds of a person, which are bounded, as a duration.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6) as u64)
}

/// A duration in seconds.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.total_micros() as f64 / 1e6
}

/// The beginning of every result.
pub(super) fn result(seconds: f64) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("seconds".into(), json!(seconds));
    map
}

/// Connections that are being opened at a time: less than what may wait to be accepted.
const CONNECTING_MAX: usize = 128;
/// How long a server may take to answer a SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a run may take: what is in the buffers is sent.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);
/// After a signal.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(5);
/// Of one name, tried one after the other.
const ADDRESSES_MAX: usize = 8;
