//! `perf iperf3-server`: one test at a time, for whoever comes.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use serde_json::{Map, Value};
use smoltcp::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::client::{Clock, ended_early};
use super::control::{self, Cookie, State, read_json, read_state, within, write_json};
use super::control::{write_params_error, write_state};
use super::flow::{Path, Test};
use super::params::Params;
use super::report::Meter;
use super::results::Results;
use super::udp;
use crate::error::AppError;
use crate::perf::args::Iperf3ServerArgs;
use crate::perf::client::duration;
use crate::perf::group::Interrupt;
use crate::perf::io::Shared;
use crate::serve::{print, print_error, say};
use crate::sockets::{Options, Program, Sockets};

/// Serves until a signal, or one test.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    pub(crate) args: &'a Iperf3ServerArgs,
}

impl Program for Server<'_> {
    type Output = Result<(), AppError>;

    async fn run<S: Sockets>(self, sockets: S) -> Self::Output {
        let args = self.args;
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), args.port);
        let port_error = |error| AppError::flag("--port", args.port, error);
        let listener = sockets.listen(local, &Options::default()).await.map_err(port_error)?;
        let listening = sockets.listening(&listener).map_err(port_error)?;
        let listening: Vec<_> = listening.iter().map(ToString::to_string).collect();
        say(&format!("ready iperf3 {}", listening.join(" ")), args.place.host.json);
        let interrupt = Interrupt::watch(&sockets);
        serve(&sockets, listener, args, &interrupt).await
    }
}

/// Accepts and tests, until the interrupt, or one test is over.
pub(super) async fn serve<S: Sockets>(
    sockets: &S,
    listener: S::Listener,
    args: &Iperf3ServerArgs,
    interrupt: &Interrupt,
) -> Result<(), AppError> {
    let (tests, mut next_test) = mpsc::channel(TESTS_WAITING_MAX);
    let (streams, mut next_stream) = mpsc::channel(STREAMS_WAITING_MAX);
    let desk = Rc::new(Desk {
        current: Cell::default(),
        is_busy: Cell::default(),
        greeting: Cell::default(),
        tests,
        streams,
    });
    let accepting = accept(sockets.clone(), listener, Rc::clone(&desk));
    // What is accepted ends with the program.
    sockets.spawn(accepting);
    loop {
        let (control, peer, cookie) = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(()),
            test = next_test.recv() => match test {
                Some(test) => test,
                None => return Ok(()),
            },
        };
        while next_stream.try_recv().is_ok() {}
        desk.current.set(Some(cookie));
        desk.is_busy.set(true);
        say(&format!("accepted a test of {peer}"), args.place.host.json);
        let talk = Talk { sockets: sockets.clone(), control, peer, args, interrupt, is_busy: &desk.is_busy };
        let result = talk.test(&mut next_stream).await;
        desk.current.set(None);
        desk.is_busy.set(!next_test.is_empty());
        match result {
            Ok(result) if args.place.host.json => print(Value::Object(result)),
            Ok(_) => {}
            Err(error) if args.one_off => return Err(error),
            Err(error) => print_error(format_args!("wirestack: test of {peer}: {}", error.message)),
        }
        if args.one_off {
            return Ok(());
        }
    }
}

/// Where connections are told apart.
struct Desk<S: Sockets> {
    /// The cookie of the test that runs.
    current: Cell<Option<Cookie>>,
    /// Whether whoever wants a test is sent away. Whoever comes while the last test says good-bye may wait.
    is_busy: Cell<bool>,
    /// Connections that have not said their cookie yet.
    greeting: Cell<usize>,
    tests: mpsc::Sender<(S::Stream, SocketAddr, Cookie)>,
    streams: mpsc::Sender<(S::Stream, SocketAddr)>,
}

async fn accept<S: Sockets>(sockets: S, listener: S::Listener, desk: Rc<Desk<S>>) {
    loop {
        match sockets.accept(&listener).await {
            Ok((stream, peer)) if desk.greeting.get() < GREETING_MAX => {
                desk.greeting.set(desk.greeting.get() + 1);
                let (its_sockets, its_desk) = (sockets.clone(), Rc::clone(&desk));
                sockets.spawn(async move {
                    greet(its_sockets, stream, peer, &its_desk).await;
                    its_desk.greeting.set(its_desk.greeting.get() - 1);
                });
            }
            Ok((stream, peer)) => {
                log::warn!("{peer}: too many connections that say nothing");
                sockets.abort(stream);
            }
            Err(error) => {
                log::warn!("accepting: {error}");
                sockets.sleep_until(sockets.now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A test, a stream of the one that runs, or nobody.
async fn greet<S: Sockets>(sockets: S, mut stream: S::Stream, peer: SocketAddr, desk: &Desk<S>) {
    let mut cookie: Cookie = [0; 37];
    if within(&sockets, GREETING_TIMEOUT, stream.read_exact(&mut cookie)).await.is_err() {
        log::debug!("{peer} is no iperf3");
        return;
    }
    match desk.current.get() {
        // More streams than were asked for have no place.
        Some(current) if current == cookie => drop(desk.streams.try_send((stream, peer))),
        _ if desk.is_busy.get() => {
            log::debug!("{peer} comes while a test runs");
            // A peer that does not want to know may not.
            let denied = write_state(&mut stream, State::AccessDenied);
            let _ = within(&sockets, GREETING_TIMEOUT, denied).await;
        }
        _ => {
            desk.is_busy.set(true);
            if desk.tests.try_send((stream, peer, cookie)).is_err() {
                log::debug!("{peer} finds too many waiting");
            }
        }
    }
}

/// A test that is under way.
struct Talk<'a, S: Sockets> {
    sockets: S,
    control: S::Stream,
    peer: SocketAddr,
    args: &'a Iperf3ServerArgs,
    interrupt: &'a Interrupt,
    is_busy: &'a Cell<bool>,
}

impl<S: Sockets> Talk<'_, S> {
    /// From the parameters to the results. Returns what scripts want to know.
    async fn test(
        mut self,
        streams: &mut mpsc::Receiver<(S::Stream, SocketAddr)>,
    ) -> Result<Map<String, Value>, AppError> {
        let params = self.params().await?;
        let test = Test::new(self.sockets.clone(), params);
        let result = self.run(&test, streams).await;
        // The sockets of this test are given back before the next.
        test.group.cancel();
        while test.group.alive() > 0 {
            if !test.group.join_until(&self.sockets, self.sockets.now() + ACCEPT_PAUSE).await {
                break;
            }
            self.sockets.sleep_until(self.sockets.now() + Duration::from_micros(1)).await;
        }
        result
    }

    async fn params(&mut self) -> Result<Params, AppError> {
        // One state may follow another at once.
        let at_once = Options { nodelay: true, ..Options::default() };
        self.sockets.set_options(&self.control, &at_once).map_err(lost)?;
        self.tell(State::ParamExchange).await?;
        let json = within(&self.sockets, TALK_TIMEOUT, read_json(&mut self.control)).await;
        let parsed = json.map_err(lost)?;
        let checked = Params::parse(&parsed).and_then(|params| {
            let options = Options { congestion: params.congestion.clone(), ..Options::default() };
            let known = self.sockets.set_options(&self.control, &options);
            known.map(|()| params).map_err(|error| error.to_string())
        });
        match checked {
            Ok(params) => Ok(params),
            Err(problem) => {
                let saying = write_params_error(&mut self.control);
                within(&self.sockets, TALK_TIMEOUT, saying).await.map_err(lost)?;
                Err(AppError::running(format_args!("it asks for what cannot be had: {problem}")))
            }
        }
    }

    async fn run(
        &mut self,
        test: &Test<S>,
        streams: &mut mpsc::Receiver<(S::Stream, SocketAddr)>,
    ) -> Result<Map<String, Value>, AppError> {
        if test.params.udp {
            self.open_udp(test).await?;
        } else {
            self.open_tcp(test, streams).await?;
        }
        self.tell(State::TestStart).await?;
        self.tell(State::TestRunning).await?;
        let begin = self.sockets.now();
        let mut meter = Meter::new(test, begin, self.args.place.host.json);
        test.start(false);
        self.flow(test, &mut meter).await?;
        let now = self.sockets.now();
        test.group.stop();
        let ours = test.results(meter.seconds(now));
        self.tell(State::ExchangeResults).await?;
        let theirs = within(&self.sockets, TALK_TIMEOUT, read_json(&mut self.control)).await;
        let theirs = theirs.and_then(|json| Results::parse(&json).map_err(control::invalid));
        let theirs = theirs.map_err(lost)?;
        let told = ours.to_json();
        within(&self.sockets, TALK_TIMEOUT, write_json(&mut self.control, &told)).await.map_err(lost)?;
        self.tell(State::DisplayResults).await?;
        self.is_busy.set(false);
        // It has everything; whether it says good-bye is its own affair.
        let _ = within(&self.sockets, GREETING_TIMEOUT, read_state(&mut self.control)).await;
        Ok(meter.finish(&ours, &theirs))
    }

    async fn tell(&mut self, state: State) -> Result<(), AppError> {
        within(&self.sockets, TALK_TIMEOUT, write_state(&mut self.control, state)).await.map_err(lost)
    }

    /// Waits for the client's streams; the first ones are those that we receive.
    async fn open_tcp(
        &mut self,
        test: &Test<S>,
        streams: &mut mpsc::Receiver<(S::Stream, SocketAddr)>,
    ) -> Result<(), AppError> {
        self.tell(State::CreateStreams).await?;
        let (received, sent) = test.params.directions();
        let params = &test.params;
        let options = Options {
            nodelay: params.nodelay,
            congestion: params.congestion.clone(),
            mss: params.mss,
            send_buffer_bytes: params.window,
            recv_buffer_bytes: params.window,
        };
        for index in 0..received + sent {
            let sockets = self.sockets.clone();
            let stream = tokio::select! {
                biased;
                state = read_state(&mut self.control) => return Err(unexpected(state)),
                stream = streams.recv() => stream,
                () = sockets.sleep_until(sockets.now() + TALK_TIMEOUT) => None,
            };
            let Some((stream, peer)) = stream else {
                return Err(AppError::running(format_args!("stream {} does not come", index + 1)));
            };
            sockets.set_options(&stream, &options).map_err(lost)?;
            let local = sockets.local_address(&stream).map_err(lost)?;
            test.add(Path::Tcp(Shared::new(stream)), index >= received, (local, peer));
        }
        Ok(())
    }

    /// Waits for the client's greetings, and answers each.
    async fn open_udp(&mut self, test: &Test<S>) -> Result<(), AppError> {
        let sockets = self.sockets.clone();
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.args.port);
        let options = Options {
            send_buffer_bytes: test.params.window,
            recv_buffer_bytes: test.params.window,
            ..Options::default()
        };
        let socket = sockets.udp_bind(local, &options).await.map_err(lost)?;
        let socket = Rc::new(socket);
        let local = sockets.local_address(&self.control).map_err(lost)?;
        self.tell(State::CreateStreams).await?;
        let (received, sent) = test.params.directions();
        let known = RefCell::new(Vec::new());
        let client = self.peer.ip();
        let greeting = async {
            let mut buffer = [0; 64];
            while known.borrow().len() < received + sent {
                let (len, peer) = sockets.udp_recv_from(&socket, &mut buffer).await?;
                // Anybody can send to this port; the test is of whoever has the control connection.
                if !is_same(peer.ip(), client) || !udp::is_greeting(&buffer[..len]) {
                    log::debug!("{len} bytes of {peer} are no greeting");
                    continue;
                }
                sockets.udp_send_to(&socket, &udp::ANSWER, peer).await?;
                if !known.borrow().contains(&peer) {
                    known.borrow_mut().push(peer);
                }
            }
            Ok(())
        };
        tokio::select! {
            biased;
            state = read_state(&mut self.control) => return Err(unexpected(state)),
            result = within(&sockets, TALK_TIMEOUT, greeting) => result.map_err(lost)?,
        }
        for (index, peer) in known.take().into_iter().enumerate() {
            test.add(Path::Common(Rc::clone(&socket)), index >= received, (local, peer));
        }
        Ok(())
    }

    /// The bytes flow, until the client says that it is over.
    async fn flow(&mut self, test: &Test<S>, meter: &mut Meter<S>) -> Result<(), AppError> {
        let sockets = self.sockets.clone();
        let mut clock = Clock::new(test, sockets.now(), duration(self.args.interval)).without_end();
        let mut silence = Silence { moved: 0, since: sockets.now() };
        let mut are_streams_there = true;
        let told = {
            let mut told = pin!(read_state(&mut self.control));
            loop {
                tokio::select! {
                    biased;
                    state = &mut told => break Some(state),
                    () = self.interrupt.wait() => break None,
                    () = test.group.join(), if are_streams_there => {
                        are_streams_there = false;
                        // Why a stream was lost may be told in a moment.
                        if let Err(failure) = test.group.failure() {
                            match within(&sockets, TELL_TIMEOUT, &mut told).await {
                                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(failure),
                                state => break Some(state),
                            }
                        }
                    }
                    () = sockets.sleep_until(clock.next()) => {}
                }
                let now = sockets.now();
                clock.tick(meter, now);
                let moved = test.flows().iter().map(|flow| test.figures(flow).bytes).sum();
                if silence.is_too_long(moved, now) {
                    return Err(AppError::running("nothing came for a minute"));
                }
            }
        };
        match told {
            None => {
                self.tell(State::ServerTerminate).await?;
                // The client is to read that before its streams are gone.
                let _ = within(&sockets, TELL_TIMEOUT, read_state(&mut self.control)).await;
                Err(ended_early())
            }
            Some(Ok(State::TestEnd)) => {
                clock.end(meter, sockets.now());
                Ok(())
            }
            Some(state) => Err(unexpected(state)),
        }
    }
}

/// A client that is gone without a word is not waited for.
struct Silence {
    moved: u64,
    since: smoltcp::time::Instant,
}

impl Silence {
    fn is_too_long(&mut self, moved: u64, now: smoltcp::time::Instant) -> bool {
        if moved != self.moved {
            *self = Self { moved, since: now };
        }
        now - self.since > SILENCE_MAX
    }
}

/// One address may be written in two ways.
fn is_same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

fn lost(error: io::Error) -> AppError {
    AppError::running(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the client has closed the control connection".to_owned(),
        io::ErrorKind::TimedOut => "the client does not answer".to_owned(),
        _ => format!("the control connection: {error}"),
    })
}

/// Something came on the control connection that does not end a test as it should end.
fn unexpected(state: io::Result<State>) -> AppError {
    match state {
        Err(error) => lost(error),
        Ok(State::ClientTerminate) => AppError::running("the client was told to end"),
        Ok(state) => {
            AppError::running(format_args!("the client says {state:?} where something else was to come"))
        }
    }
}

/// How long a connection has to say its cookie.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not.
const GREETING_MAX: usize = 512;
/// Who wants a test while the last one says good-bye.
const TESTS_WAITING_MAX: usize = 16;
/// Streams of one test.
const STREAMS_WAITING_MAX: usize = 256;
/// How long a client may take to say what comes next.
const TALK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to say why a stream was lost.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long nothing may move.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// After accepting has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
