//! `perf server`: every connection says what it is for in its first bytes.

use std::cell::Cell;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, join, select};
use serde_json::json;
use smoltcp::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::args::ServerArgs;
use super::figures::{Cpu, memory_bytes};
use super::io::{CHUNK_BYTES, Shared, Sink, Source, Turns, write_some};
use super::wire::{Hello, Purpose, Report, Trailer};
use crate::error::AppError;
use crate::serve::{print, print_error, say};
use crate::sockets::{Program, Sockets};

/// Serves until a signal.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) args: &'a ServerArgs,
}

impl Program for Server<'_> {
    type Output = Result<(), AppError>;

    async fn run<S: Sockets>(self, sockets: S) -> Self::Output {
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.args.port);
        let json = self.args.place.host.json;
        let options = self.args.tcp.options(true);
        let port_error = |error| AppError::flag("--port", self.args.port, error);
        let listener = sockets.listen(local, &options).await.map_err(port_error)?;
        let listening = sockets.listening(&listener).map_err(port_error)?;
        let listening: Vec<_> = listening.iter().map(ToString::to_string).collect();
        say(&format!("ready perf {}", listening.join(" ")), json);
        let state = State::new(self.args.connections_max);
        let serving = pin!(serve(sockets.clone(), &listener, &state));
        let result = match select(pin!(sockets.stopped()), serving).await {
            Either::Left((stopped, _)) => stopped.map_err(AppError::running),
            Either::Right((never, _)) => match never {},
        };
        state.print(sockets.name(), json);
        result
    }
}

/// What all connections share.
#[derive(Debug, Clone)]
pub(super) struct State {
    counters: Rc<Counters>,
    connections_max: usize,
    sink: Sink,
    source: Source,
}

#[derive(Debug, Default)]
struct Counters {
    connections: Cell<usize>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    lost: Cell<u64>,
    bytes: Cell<u64>,
    requests: Cell<u64>,
}

impl State {
    /// Nothing yet.
    pub(super) fn new(connections_max: usize) -> Self {
        let counters = Rc::default();
        Self { counters, connections_max, sink: Sink::new(), source: Source::new(CHUNK_BYTES) }
    }

    /// Connections that were closed because of what came on them, or for want of a place.
    pub(super) fn refused(&self) -> u64 {
        self.counters.refused.get()
    }

    /// Prints what was counted: a line for people on stderr, or a JSON object on stdout.
    fn print(&self, backend: &str, json: bool) {
        let Counters { accepted, lost, bytes, requests, .. } = &*self.counters;
        let refused = self.refused();
        let cpu = Cpu::now().total();
        if json {
            print(json!({
                "program": "perf server",
                "backend": backend,
                "connections_accepted": accepted.get(),
                "connections_refused": refused,
                "connections_lost": lost.get(),
                "bytes_received": bytes.get(),
                "requests": requests.get(),
                "memory_bytes": memory_bytes(),
                "cpu_seconds": cpu,
            }));
        } else {
            print_error(format_args!(
                "accepted={} refused={refused} lost={} bytes_received={} requests={} cpu_seconds={cpu:.2}",
                accepted.get(),
                lost.get(),
                bytes.get(),
                requests.get()
            ));
        }
    }
}

/// No value of it exists.
pub(super) enum Never {}

/// Accepts, and serves each connection in a task of its own.
pub(super) async fn serve<S: Sockets>(sockets: S, listener: &S::Listener, state: &State) -> Never {
    loop {
        match sockets.accept(listener).await {
            Ok((stream, peer)) => {
                let counters = &state.counters;
                if counters.connections.get() >= state.connections_max {
                    counters.refused.add(1);
                    sockets.abort(stream);
                    continue;
                }
                counters.accepted.add(1);
                let task = connection(sockets.clone(), stream, peer, Place::take(state));
                sockets.spawn(task);
            }
            Err(error) => {
                // No descriptors, say: some will be given back.
                log::warn!("accepting: {error}");
                sockets.sleep_until(sockets.now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection's place in the count.
struct Place(State);

impl Place {
    fn take(state: &State) -> Self {
        let connections = &state.counters.connections;
        connections.set(connections.get() + 1);
        Self(state.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.0.counters.connections;
        connections.set(connections.get() - 1);
    }
}

async fn connection<S: Sockets>(sockets: S, mut stream: S::Stream, peer: SocketAddr, place: Place) {
    let state = &place.0;
    let Some(hello) = hello(&sockets, &mut stream).await else {
        log::debug!("{peer} is no client of ours");
        state.counters.refused.add(1);
        return;
    };
    let result = match hello.purpose {
        Purpose::Stream => receive(&sockets, stream, hello, state).await,
        Purpose::Requests => respond(stream, hello, state, u64::MAX).await,
        Purpose::Once => respond(stream, hello, state, 1).await,
        Purpose::Report => report(stream, state).await,
    };
    if let Err(error) = result {
        log::debug!("{peer}: {error}");
        state.counters.lost.add(1);
    }
}

/// The first bytes, if they come in time and are ours.
async fn hello<S: Sockets>(sockets: &S, stream: &mut S::Stream) -> Option<Hello> {
    let mut bytes = [0; Hello::LEN];
    let reading = pin!(stream.read_exact(&mut bytes));
    let sleep = pin!(sockets.sleep_until(sockets.now() + HELLO_TIMEOUT));
    match select(reading, sleep).await {
        Either::Left((Ok(_), _)) => {}
        _ => return None,
    }
    Hello::parse(bytes)
}

/// A stream until the client's FIN, and what we say of it.
async fn receive<S: Sockets>(sockets: &S, stream: S::Stream, hello: Hello, state: &State) -> io::Result<()> {
    let begin = sockets.now();
    let mut reader = Shared::new(stream);
    let mut writer = reader.clone();
    let (is_over, over) = (Cell::new(false), Notify::new());
    let receiving = async {
        let mut bytes = 0_u64;
        let mut turns = Turns::default();
        let result = loop {
            turns.take().await;
            match state.sink.read(&mut reader, CHUNK_BYTES, |_| {}).await {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    bytes += count as u64;
                    state.counters.bytes.add(count as u64);
                }
                Err(error) => break Err(error),
            }
        };
        is_over.set(true);
        over.notify_one();
        result.map(|()| Trailer { bytes, micros: (sockets.now() - begin).total_micros() })
    };
    let sending = async {
        if !hello.server_sends {
            return Ok(());
        }
        // A request's size is also that of a write.
        let chunk = &state.source.bytes()[..(hello.request_bytes as usize).min(CHUNK_BYTES)];
        let mut turns = Turns::default();
        while !is_over.get() {
            turns.take().await;
            // A client that is gone says so to the other half only.
            match select(pin!(write_some(&mut writer, chunk)), pin!(over.notified())).await {
                Either::Left((result, _)) => drop(result?),
                Either::Right(_) => break,
            }
        }
        Ok(())
    };
    let (trailer, sent) = join(receiving, sending).await;
    let trailer: Trailer = trailer?;
    let sent: io::Result<()> = sent;
    sent?;
    writer.write_all(&trailer.to_bytes()).await?;
    writer.shutdown().await
}

/// Answers requests until the client's FIN, or so many.
async fn respond<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: T,
    hello: Hello,
    state: &State,
    requests_max: u64,
) -> io::Result<()> {
    let mut requests = 0;
    while requests < requests_max && state.sink.read_exact(&mut stream, hello.request_bytes as usize).await? {
        state.source.write_all(&mut stream, hello.response_bytes as usize).await?;
        state.counters.requests.add(1);
        requests += 1;
    }
    stream.shutdown().await
}

async fn report<T: tokio::io::AsyncWrite + Unpin>(mut stream: T, state: &State) -> io::Result<()> {
    let report = Report {
        memory_bytes: memory_bytes(),
        cpu_micros: (Cpu::now().total() * 1e6) as u64,
        connections: state.counters.connections.get() as u64,
        refused: state.refused(),
    };
    stream.write_all(&report.to_bytes()).await?;
    stream.shutdown().await
}

/// A counter in a cell.
pub(super) trait Count {
    /// Counts.
    fn add(&self, more: u64);
}

impl Count for Cell<u64> {
    fn add(&self, more: u64) {
        self.set(self.get() + more);
    }
}

/// How long a connection has to say what it is for.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// After accepting has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
