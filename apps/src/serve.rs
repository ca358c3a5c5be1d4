//! The loop of a program that serves: ready line, signals, an orderly end, counters.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use smoltcp::time::{Duration, Instant};
use wirestack::driver::ShardFigures;
use wirestack::nic::{Counters, LinkError, Nic, Waker, wait};
use wirestack::observe::{Drops, ShardCounters};
use wirestack::shard::Shard;
use wirestack::tcp::TcpCounters;

use crate::addresses::{self, Wanted};
use crate::cli::TcpArgs;
use crate::engine::{self, Backend, Engine, InTurn, Watched};
use crate::error::AppError;
use crate::host::{CLOSE_TIMEOUT, Host, RunArgs};
use crate::privileges::{self, Keep, Threads};
use crate::report::About;
use crate::setup::{NicProgram, Prepared};
use crate::stream::Listening;

/// Something that serves on a stack.
pub trait Service: Send + Sync + 'static {
    /// First word of the ready line.
    const KIND: &'static str;

    /// The ports of TCP that it serves.
    fn listeners(&self) -> Vec<Listening>;

    /// Binds its sockets that are not TCP's, and gives what is done with them in each turn.
    ///
    /// # Errors
    /// One line: which port, and why not.
    fn in_turn(&self, _shard: &mut Shard) -> Result<InTurn, AppError> {
        Ok(Box::new(|_| {}))
    }

    /// The port of the ready line.
    fn port(&self) -> u16;

    /// Is told the figures of the stack now and then, if it wants to show them.
    fn observe(&self, _figures: &Figures) {}
}

/// What a program, the stack below it and its device have counted.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Of the program, by name; `accepted` connections come first.
    pub program: Vec<(&'static str, u64)>,
    /// Of TCP, if it is the stack's own.
    pub tcp: Option<TcpCounters>,
    /// Of the stack.
    pub shard: ShardCounters,
    /// What the stack dropped, by reason.
    pub drops: Drops,
    /// Of the device.
    pub counters: Counters,
    /// Connections that exist now.
    pub connections: usize,
}

/// A service as the program of a device, until a signal.
#[derive(Debug, Clone)]
pub struct Program<S> {
    service: S,
    tcp: TcpArgs,
    run: RunArgs,
}

impl<S> Program<S> {
    /// A service, and how its connections are to be served.
    ///
    /// # Errors
    /// Flags that do not go together. One line.
    pub fn new(service: S, tcp: TcpArgs, run: RunArgs) -> Result<Self, AppError> {
        tcp.check()?;
        run.check(&tcp)?;
        Ok(Self { service, tcp, run })
    }
}

impl<S: Service> NicProgram for Program<S> {
    fn shards(&self) -> usize {
        self.run.shards()
    }

    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        match self.tcp.backend {
            Backend::Wirestack => self.run_on_threads(nics, prepared),
            Backend::Smoltcp => self.run_smoltcp(nics, prepared),
        }
    }
}

impl<S: Service> Program<S> {
    /// The shards call the service in their turns.
    fn run_on_threads<N: Nic + Send + 'static>(
        self,
        nics: Vec<N>,
        prepared: Prepared<'_>,
    ) -> Result<(), AppError> {
        let json = prepared.json;
        let service = Arc::new(self.service);
        let host = Host::serve(nics, prepared, S::KIND, &service, &self.tcp, &self.run)?;
        if let Some(ready) = host.wait_for_addresses()? {
            say_ready(S::KIND, &ready, service.port(), json);
        }
        let result = host.wait(|figures| service.observe(figures));
        report(&host.shutdown(), json);
        result
    }

    fn run_smoltcp<N: Nic>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let Prepared { net, stop, json, about, control, name, keep } = prepared;
        privileges::leave(&self.tcp.privileges, keep)?;
        let wanted = net.wanted.clone();
        let nic = one(nics)?;
        let waker = nic.waker();
        let mut engine = engine::over(nic, net, &self.service, &self.tcp)?;
        let (mut watched, asker) = Watched::new(engine.as_mut(), About::new(S::KIND, name), waker);
        let engine: &mut dyn Engine = &mut watched;
        let ask = move |request| asker.ask(request);
        let _serving = control.map(|control| control.serve(ask)).transpose().map_err(AppError::running)?;
        if let Some(about) = about {
            print_error(format_args!("wirestack: {about}"));
        }
        let addresses = wait_for_addresses(engine, &wanted, &stop)?;
        privileges::confine_if_asked(&self.tcp.privileges, Threads::All)?;
        if let Some(addresses) = addresses {
            say_ready(S::KIND, &addresses, self.service.port(), json);
        }
        let result = serve(engine, &self.service, &stop);
        report(&engine.figures(), json);
        result
    }
}

/// The device of a program that takes no more than one.
pub(crate) fn one<N>(nics: Vec<N>) -> Result<N, AppError> {
    nics.into_iter().next().ok_or_else(|| AppError::running("there is no device"))
}

/// Prints the ready line: what is served, and where.
pub(crate) fn say_ready(kind: &str, addresses: &[IpAddr], port: u16, json: bool) {
    let addresses = addresses.iter().map(|address| SocketAddr::new(*address, port).to_string());
    say(&format!("ready {kind} {}", addresses.collect::<Vec<_>>().join(" ")), json);
}

/// Turns until all addresses can be used. `None`: the program is to end.
pub(crate) fn wait_for_addresses(
    engine: &mut dyn Engine,
    wanted: &Wanted,
    stop: &Stop,
) -> Result<Option<Vec<IpAddr>>, AppError> {
    let waiting = addresses::Waiting::begin(wanted, wait::now());
    while !stop.is_set() {
        let now = wait::now();
        let deadline =
            engine.turn(now).map_or(waiting.deadline(), |deadline| deadline.min(waiting.deadline()));
        engine.follow_addresses();
        if let Some(addresses) = waiting.look(engine.shard(), now)? {
            return Ok(Some(addresses));
        }
        sleep(engine, Some(deadline))?;
    }
    Ok(None)
}

/// Serves until `stop`, then lets connections end in an orderly way for a moment.
pub(crate) fn serve(engine: &mut dyn Engine, service: &impl Service, stop: &Stop) -> Result<(), AppError> {
    let mut observed = Instant::ZERO;
    while !stop.is_set() {
        if engine.follow_addresses() {
            tell_addresses(engine.shard());
        }
        let now = wait::now();
        if now >= observed + OBSERVE_INTERVAL {
            observed = now;
            service.observe(&engine.figures());
        }
        let deadline = engine.turn(now);
        sleep(engine, deadline)?;
    }
    engine.close();
    let give_up = wait::now() + CLOSE_TIMEOUT;
    while !engine.is_quiet() && wait::now() < give_up {
        let deadline = engine.turn(wait::now()).map_or(give_up, |deadline| deadline.min(give_up));
        // The last word of the last peer may have come in this turn, and nothing would end the sleep.
        if engine.is_quiet() {
            break;
        }
        // With the link down or gone, nothing can be said to the peers.
        if engine.wait(Some(deadline)).is_err() {
            break;
        }
    }
    engine.abort();
    engine.turn(wait::now());
    release_lease(engine);
    Ok(())
}

/// An interface that is down is waited for; one that is gone is the end.
fn sleep(engine: &mut dyn Engine, deadline: Option<Instant>) -> Result<(), AppError> {
    match engine.wait(deadline) {
        Ok(()) | Err(LinkError::Down) => Ok(()),
        Err(LinkError::Gone) => Err(AppError::running(LinkError::Gone)),
    }
}

/// Gives the address back that a server has leased; its hardware address may have to be asked for first.
fn release_lease(engine: &mut dyn Engine) {
    if engine.shard().dhcp_lease().is_none() {
        return;
    }
    engine.shard().dhcp_release();
    let give_up = wait::now() + RELEASE_TIMEOUT;
    loop {
        engine.turn(wait::now());
        if engine.shard().is_quiet() || wait::now() >= give_up || engine.wait(Some(give_up)).is_err() {
            return;
        }
    }
}

/// Says which addresses there are now: a server or a router has given another one, or taken one away.
pub(crate) fn tell_addresses(shard: &Shard) {
    let usable = shard.addresses().filter(|address| address.is_usable());
    let list: Vec<_> = usable.map(|address| address.cidr.to_string()).collect();
    let list = if list.is_empty() { "none".to_owned() } else { list.join(" ") };
    print_error(format_args!("wirestack: addresses are now {list}"));
}

/// Tells a loop, or whoever waits for it, to end.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<(Mutex<Waiting>, Condvar)>,
    is_set: Arc<AtomicBool>,
    waker: Waker,
}

/// Who waits for a stop.
#[derive(Debug, Default)]
struct Waiting {
    is_set: bool,
    tasks: Vec<std::task::Waker>,
}

impl Stop {
    /// A stop for the loop that sleeps on the device of this waker.
    pub fn new(waker: Waker) -> Self {
        Self { flag: Arc::default(), is_set: Arc::default(), waker }
    }

    /// A stop that SIGINT or SIGTERM sets. Ending takes a second at most; whoever cannot wait sends a
    /// third signal, which ends the process at once.
    ///
    /// # Errors
    /// The signals cannot be watched: no thread or file descriptor left.
    pub fn on_signals(waker: Waker) -> Result<Self, AppError> {
        let stop = Self::new(waker);
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(AppError::running)?;
        let on_signal = stop.clone();
        // A thread, because a signal that comes right before the loop sleeps would not end the sleep:
        // the waker does.
        let (tell, told) = mpsc::channel();
        let watch = move || {
            // It has to be here before others give theirs up, and needs none.
            let _ = tell.send(privileges::drop(Keep::Nothing));
            for (count, signal) in signals.forever().enumerate() {
                on_signal.set();
                if count == 2 {
                    std::process::exit(128 + signal);
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(AppError::running)?;
        told.recv().map_err(AppError::running)??;
        Ok(stop)
    }

    /// Ends the loop at its next turn.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        let (flag, changed) = &*self.flag;
        let mut waiting = flag.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.is_set = true;
        waiting.tasks.drain(..).for_each(std::task::Waker::wake);
        drop(waiting);
        changed.notify_all();
        self.waker.wake();
    }

    /// Whether the loop is to end.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Waits for the end, but not longer than this. True: it has come.
    pub fn wait(&self, time: std::time::Duration) -> bool {
        let (flag, changed) = &*self.flag;
        let flag = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = changed.wait_timeout_while(flag, time, |waiting| !waiting.is_set);
        ended.unwrap_or_else(PoisonError::into_inner).0.is_set
    }

    /// The same for a task.
    pub async fn ended(&self) {
        std::future::poll_fn(|context| {
            let mut waiting = self.flag.0.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_set {
                return std::task::Poll::Ready(());
            }
            if !waiting.tasks.iter().any(|known| known.will_wake(context.waker())) {
                waiting.tasks.push(context.waker().clone());
            }
            std::task::Poll::Pending
        })
        .await;
    }
}

/// Prints a line that scripts wait for: on stdout, or on stderr where stdout has the JSON object.
pub(crate) fn say(line: &str, json: bool) {
    if json { print_error(line) } else { print(line) }
}

/// Prints a line on stdout. A reader that has gone (`| head`) is no reason to fail.
pub(crate) fn print(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// As [`print()`]; says whether there is still a reader.
pub(crate) fn print_if_read(line: impl std::fmt::Display) -> bool {
    let broken = |error: std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    !writeln!(std::io::stdout(), "{line}").is_err_and(broken)
}

/// Prints a line on stderr, likewise.
pub(crate) fn print_error(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints the final figures: a line for people on stderr, or a JSON object on stdout.
pub(crate) fn report(figures: &Figures, json: bool) {
    if json {
        print(figures.to_json());
    } else {
        print_error(figures);
    }
}

impl Figures {
    /// Those of a shard.
    pub(crate) fn of(shard: &ShardFigures) -> Self {
        Self {
            program: Vec::new(),
            tcp: Some(shard.tcp),
            shard: shard.shard,
            drops: shard.drops.clone(),
            counters: shard.nic,
            connections: shard.connections,
        }
    }

    /// The same of one that is at hand, with what its device has counted.
    pub(crate) fn of_shard(shard: &Shard, counters: Counters) -> Self {
        Self {
            program: Vec::new(),
            tcp: Some(shard.tcp_counters()),
            shard: shard.counters(),
            drops: shard.drops().clone(),
            counters,
            connections: shard.occupancy().tcp_connections,
        }
    }

    /// Adds those of another shard.
    pub(crate) fn add(&mut self, other: &Self) {
        for &(name, more) in &other.program {
            match self.program.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += more,
                None => self.program.push((name, more)),
            }
        }
        if let Some(tcp) = &other.tcp {
            self.tcp.get_or_insert_default().add(tcp);
        }
        self.shard.add(&other.shard);
        self.drops.add_all(&other.drops);
        self.counters.add(&other.counters);
        self.connections += other.connections;
    }

    /// All figures by name; those of TCP as `tcp_...`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Object(self.named().map(|(name, value)| (name, value.into())).collect())
    }

    /// All figures, the program's first; those of TCP as `tcp_...`, of the stack as `stack_...`, and reasons for drops
    /// that have occurred as `drop_...`.
    pub fn named(&self) -> impl Iterator<Item = (String, u64)> {
        let connections = [("connections", self.connections as u64)];
        let named = self.program.iter().copied().chain(connections).chain(self.counters.named());
        let named = named.map(|(name, value)| (name.to_owned(), value));
        named.chain(self.tcp_named()).chain(stack_named(self.shard, &self.drops))
    }

    fn tcp_named(&self) -> Vec<(String, u64)> {
        let Some(serde_json::Value::Object(counters)) =
            self.tcp.and_then(|counters| serde_json::to_value(counters).ok())
        else {
            return Vec::new();
        };
        let named = counters.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?)));
        named.map(|(name, value)| (format!("tcp_{name}"), value)).collect()
    }
}

/// `name=value` of everything that is not zero.
impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in self.program.iter().filter(|(_, value)| *value != 0) {
            write!(f, "{name}={value} ")?;
        }
        for (name, value) in self.tcp_named().iter().filter(|(_, value)| *value != 0) {
            write!(f, "{name}={value} ")?;
        }
        write!(f, "{}", self.counters)?;
        // What the stack did is in the figures of the device already, but for what it threw away.
        for (name, value) in self.drops.named().filter(|&(_, value)| value != 0) {
            write!(f, " drop_{name}={value}")?;
        }
        Ok(())
    }
}

/// The counters of the stack as `stack_...`, and the reasons for drops that have occurred as `drop_...`.
pub(crate) fn stack_figures(
    shard: ShardCounters,
    drops: &Drops,
) -> impl Iterator<Item = (String, serde_json::Value)> {
    stack_named(shard, drops).map(|(name, value)| (name, value.into()))
}

fn stack_named(shard: ShardCounters, drops: &Drops) -> impl Iterator<Item = (String, u64)> {
    let counters = shard.named().map(|(name, value)| (format!("stack_{name}"), value));
    let drops = drops.named().filter(|&(_, value)| value != 0);
    counters.chain(drops.map(|(name, value)| (format!("drop_{name}"), value)))
}

/// How often a service is told the figures, at most.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long a lease may take to be given back: some round trips of a link.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
