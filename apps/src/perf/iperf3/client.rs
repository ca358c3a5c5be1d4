//! `perf iperf3-client`: asks an iperf3 server for a test, and runs our side of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use serde_json::Value;
use smoltcp::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

use super::control::{self, Cookie, State, new_cookie, read_error, read_json, read_state, within};
use super::control::{write_json, write_state};
use super::flow::{Path, Test};
use super::params::Params;
use super::report::Meter;
use super::results::Results;
use super::udp;
use crate::error::AppError;
use crate::perf::args::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, Iperf3ClientArgs};
use crate::perf::client::{duration, reachable};
use crate::perf::group::{Interrupt, Leash};
use crate::perf::io::Shared;
use crate::serve::{print, say};
use crate::sockets::{Program, Sockets};

/// Runs one test.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) args: &'a Iperf3ClientArgs,
}

impl Program for Client<'_> {
    type Output = Result<(), AppError>;

    async fn run<S: Sockets>(self, sockets: S) -> Self::Output {
        let interrupt = Interrupt::watch(&sockets);
        let testing = pin!(test(&sockets, self.args, &interrupt));
        // Whoever is told to end says so to the server, if it gets to it.
        let patience = pin!(async {
            interrupt.wait().await;
            sockets.sleep_until(sockets.now() + INTERRUPT_PATIENCE).await;
        });
        match select(testing, patience).await {
            Either::Left((result, _)) => result.map(drop),
            Either::Right(_) => Err(ended_early()),
        }
    }
}

/// What both roles say when a person ends them.
pub(super) fn ended_early() -> AppError {
    AppError::running("ended before its time")
}

/// A test, from the first byte to the last. Returns what scripts want to know.
pub(super) async fn test<S: Sockets>(
    sockets: &S,
    args: &Iperf3ClientArgs,
    interrupt: &Interrupt,
) -> Result<Value, AppError> {
    let json = args.place.host.json;
    let remote = reachable(sockets, &args.server, args.port).await?;
    let options = args.tcp.options(true);
    let failed = |error: io::Error| AppError::running(format_args!("connecting to {remote}: {error}"));
    let control =
        within(sockets, CONNECT_TIMEOUT, sockets.connect(remote, &options)).await.map_err(failed)?;
    say(&format!("connecting to {remote} with {}", sockets.name()), json);
    let mss = sockets.tcp_info(&control).map(|info| info.mss_bytes);
    let params = params(args, mss, remote.is_ipv4());
    let mut talk = Talk { sockets: sockets.clone(), control, remote };
    let cookie = new_cookie();
    talk.write(async |control| control.write_all(&cookie).await).await?;
    talk.expect(State::ParamExchange).await?;
    let wanted = params.to_json();
    talk.write(async |control| write_json(control, &wanted).await).await?;
    talk.expect(State::CreateStreams).await?;
    let test = Test::new(sockets.clone(), params);
    let _leash = Leash(test.group.clone());
    if test.params.udp {
        open_udp(&test, remote).await?;
    } else {
        open_tcp(&test, args, remote, &cookie).await?;
    }
    talk.expect(State::TestStart).await?;
    talk.expect(State::TestRunning).await?;
    let (meter, seconds) = talk.run(&test, args, interrupt).await?;
    let mut result = talk.exchange(&test, meter, seconds).await?;
    if let Some(Value::Object(start)) = result.get_mut("start") {
        start.insert("cookie".into(), String::from_utf8_lossy(&cookie[..36]).into());
        start.insert("connecting_to".into(), serde_json::json!({"host": args.server, "port": args.port}));
    }
    let result = Value::Object(result);
    if json {
        print(&result);
    }
    Ok(result)
}

/// What the flags ask for.
fn params(args: &Iperf3ClientArgs, mss: Option<u32>, is_ipv4: bool) -> Params {
    // As iperf3 has it: what fits into a segment fits into a packet.
    let default_datagram = mss.filter(|mss| (DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(mss));
    let len = match (args.length, args.udp) {
        (Some(len), _) => len,
        (None, true) => default_datagram.unwrap_or(if is_ipv4 { 1_448 } else { 1_428 }),
        (None, false) => 128 << 10,
    };
    Params {
        udp: args.udp,
        omit: args.omit,
        time: if args.bytes.is_some() { 0 } else { args.time },
        bytes: args.bytes.unwrap_or(0),
        blocks: 0,
        parallel: args.parallel,
        reverse: args.reverse,
        bidirectional: args.bidir,
        len,
        bandwidth: args.bitrate.unwrap_or(if args.udp { UDP_BITS_PER_SECOND } else { 0 }),
        nodelay: args.no_delay,
        mss: args.tcp.mss,
        window: args.tcp.window,
        congestion: args.tcp.congestion.clone(),
        counters_64bit: args.udp,
    }
}

/// Whether the stream of that number is one that we send.
fn is_sender(params: &Params, index: usize) -> bool {
    let (sent, _) = params.directions();
    index < sent
}

async fn open_tcp<S: Sockets>(
    test: &Test<S>,
    args: &Iperf3ClientArgs,
    remote: SocketAddr,
    cookie: &Cookie,
) -> Result<(), AppError> {
    let options = args.tcp.options(args.no_delay);
    let (sent, received) = test.params.directions();
    for index in 0..sent + received {
        let opening = async {
            let mut stream = test.sockets.connect(remote, &options).await?;
            stream.write_all(cookie).await?;
            Ok((test.sockets.local_address(&stream)?, stream))
        };
        let (local, stream) = within(&test.sockets, CONNECT_TIMEOUT, opening).await.map_err(|error| {
            AppError::running(format_args!("opening stream {} to {remote}: {error}", index + 1))
        })?;
        test.add(Path::Tcp(Shared::new(stream)), is_sender(&test.params, index), (local, remote));
    }
    Ok(())
}

async fn open_udp<S: Sockets>(test: &Test<S>, remote: SocketAddr) -> Result<(), AppError> {
    let any = if remote.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    let (sent, received) = test.params.directions();
    for index in 0..sent + received {
        let opening = async {
            let options = crate::sockets::Options {
                send_buffer_bytes: test.params.window,
                recv_buffer_bytes: test.params.window,
                ..Default::default()
            };
            let socket = test.sockets.udp_bind(SocketAddr::new(any, 0), &options).await?;
            test.sockets.udp_connect(&socket, remote).await?;
            greet(&test.sockets, &socket).await?;
            Ok((test.sockets.udp_local_address(&socket)?, socket))
        };
        let (local, socket) = opening.await.map_err(|error: io::Error| {
            AppError::running(format_args!("opening UDP stream {} to {remote}: {error}", index + 1))
        })?;
        test.add(Path::Connected(Rc::new(socket)), is_sender(&test.params, index), (local, remote));
    }
    Ok(())
}

/// The greeting, until it is answered.
async fn greet<S: Sockets>(sockets: &S, socket: &S::Udp) -> io::Result<()> {
    let mut buffer = [0; 64];
    for _ in 0..GREETINGS_MAX {
        sockets.udp_send(socket, &udp::GREETING).await?;
        let answer = async {
            loop {
                let len = sockets.udp_recv(socket, &mut buffer).await?;
                if udp::is_answer(&buffer[..len]) {
                    return Ok(());
                }
            }
        };
        match within(sockets, GREETING_TIMEOUT, answer).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The control connection.
struct Talk<S: Sockets> {
    sockets: S,
    control: S::Stream,
    remote: SocketAddr,
}

impl<S: Sockets> Talk<S> {
    fn lost(&self) -> impl Fn(io::Error) -> AppError + use<S> {
        let remote = self.remote;
        move |error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                AppError::running(format_args!("{remote} has closed the control connection"))
            }
            io::ErrorKind::TimedOut => AppError::running(format_args!("{remote} does not answer")),
            _ => AppError::running(format_args!("the control connection to {remote}: {error}")),
        }
    }

    async fn write(
        &mut self,
        step: impl AsyncFnOnce(&mut S::Stream) -> io::Result<()>,
    ) -> Result<(), AppError> {
        let lost = self.lost();
        within(&self.sockets, TALK_TIMEOUT, step(&mut self.control)).await.map_err(lost)
    }

    /// Waits for what must come next.
    async fn expect(&mut self, expected: State) -> Result<(), AppError> {
        let state = within(&self.sockets, TALK_TIMEOUT, read_state(&mut self.control)).await;
        match state.map_err(self.lost())? {
            state if state == expected => Ok(()),
            state => Err(self.refusal(state).await),
        }
    }

    /// What a state means that is not the next one.
    async fn refusal(&mut self, state: State) -> AppError {
        let remote = self.remote;
        AppError::running(match state {
            State::AccessDenied => format!("{remote} is busy with another test"),
            State::ServerTerminate => format!("{remote} was told to end"),
            State::ServerError => {
                let numbers = within(&self.sockets, TALK_TIMEOUT, read_error(&mut self.control)).await;
                let (number, errno) = numbers.unwrap_or_default();
                format!("{remote} refuses the test: iperf3 error {number}, errno {errno}")
            }
            state => format!("{remote} says {state:?} where something else was to come"),
        })
    }

    /// The bytes flow, until the time is over.
    async fn run(
        &mut self,
        test: &Test<S>,
        args: &Iperf3ClientArgs,
        interrupt: &Interrupt,
    ) -> Result<(Meter<S>, f64), AppError> {
        let begin = self.sockets.now();
        let mut meter = Meter::new(test, begin, args.place.host.json);
        let mut clock = Clock::new(test, begin, duration(args.interval));
        test.start(true);
        let stopped = {
            let mut told = pin!(read_state(&mut self.control));
            loop {
                tokio::select! {
                    biased;
                    state = &mut told => break Told::State(state),
                    () = interrupt.wait() => break Told::Interrupted,
                    () = test.group.stopped() => break Told::Over,
                    () = test.group.join() => {
                        // Why the streams have ended may be told in a moment.
                        match within(&self.sockets, TELL_TIMEOUT, &mut told).await {
                            Err(error) if error.kind() == io::ErrorKind::TimedOut => break Told::Nothing,
                            state => break Told::State(state),
                        }
                    }
                    () = self.sockets.sleep_until(clock.next()) => {}
                }
                if clock.tick(&mut meter, self.sockets.now()) {
                    break Told::Over;
                }
            }
        };
        let now = self.sockets.now();
        test.group.stop();
        match stopped {
            Told::Over => {}
            Told::Interrupted => {
                self.write(async |control| write_state(control, State::ClientTerminate).await).await?;
                return Err(ended_early());
            }
            Told::State(state) => {
                let state = state.map_err(self.lost())?;
                return Err(self.refusal(state).await);
            }
            Told::Nothing => {
                test.group.failure()?;
                return Err(AppError::running(format_args!("{} has ended the streams", self.remote)));
            }
        }
        clock.end(&mut meter, now);
        let seconds = meter.seconds(now);
        Ok((meter, seconds))
    }

    /// The end: both tell what they have counted.
    async fn exchange(
        &mut self,
        test: &Test<S>,
        meter: Meter<S>,
        seconds: f64,
    ) -> Result<serde_json::Map<String, Value>, AppError> {
        let ours = test.results(seconds);
        self.write(async |control| write_state(control, State::TestEnd).await).await?;
        self.expect(State::ExchangeResults).await?;
        let told = ours.to_json();
        self.write(async |control| write_json(control, &told).await).await?;
        let theirs = within(&self.sockets, TALK_TIMEOUT, read_json(&mut self.control)).await;
        let theirs = theirs.and_then(|json| Results::parse(&json).map_err(control::invalid));
        let theirs = theirs.map_err(self.lost())?;
        self.expect(State::DisplayResults).await?;
        self.write(async |control| write_state(control, State::IperfDone).await).await?;
        Ok(meter.finish(&ours, &theirs))
    }
}

/// What ended the flow of bytes.
enum Told {
    /// Time, bytes or writes.
    Over,
    /// A person.
    Interrupted,
    /// The other end.
    State(io::Result<State>),
    /// The streams, and nobody says why.
    Nothing,
}

/// When lines are to be printed, and when the time is over.
pub(super) struct Clock<S: Sockets> {
    test: Test<S>,
    interval: Duration,
    next: Instant,
    /// `None`: it is over already, or there is none.
    omit_end: Option<Instant>,
    /// `None`: somebody else says when.
    end: Option<Instant>,
}

impl<S: Sockets> Clock<S> {
    /// From `begin` on.
    pub(super) fn new(test: &Test<S>, begin: Instant, interval: Duration) -> Self {
        let params = &test.params;
        let omit_end = test.omits_until(begin);
        Self {
            test: test.clone(),
            interval,
            next: begin + interval,
            omit_end: (params.omit > 0).then_some(omit_end),
            end: (params.time > 0 && params.bytes == 0 && params.blocks == 0)
                .then(|| omit_end + Duration::from_secs(params.time.into())),
        }
    }

    /// Somebody else says when it is over.
    pub(super) fn without_end(mut self) -> Self {
        self.end = None;
        self
    }

    /// When to come again.
    pub(super) fn next(&self) -> Instant {
        let ends = [self.omit_end, self.end].into_iter().flatten();
        ends.fold(self.next, Instant::min)
    }

    /// Does what is due, and says whether the time is over.
    pub(super) fn tick(&mut self, meter: &mut Meter<S>, now: Instant) -> bool {
        if self.end.is_some_and(|end| now >= end) {
            return true;
        }
        if self.omit_end.is_some_and(|end| now >= end) {
            meter.interval(now, true);
            self.omit_end = None;
            self.test.end_omitted();
            meter.restart(now);
            self.next = now + self.interval;
        } else if now >= self.next {
            meter.interval(now, self.omit_end.is_some());
            self.next = now.max(self.next + self.interval);
        }
        false
    }

    /// The rest of a test is worth a line, if it is more than next to nothing.
    pub(super) fn end(&self, meter: &mut Meter<S>, now: Instant) {
        if now + self.interval > self.next + self.interval / 10 {
            meter.interval(now, self.omit_end.is_some());
        }
    }
}

/// How long a server may take to answer a SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to say what comes next.
const TALK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to say why it has ended the streams.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
/// After a signal.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(1);
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
const GREETINGS_MAX: usize = 3;
/// As iperf3 has it.
const UDP_BITS_PER_SECOND: u64 = 1 << 20;
