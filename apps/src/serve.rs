//! The loop of a program that serves: ready line, signals, an orderly end, counters.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use smoltcp::time::{Duration, Instant};
use wirestack::backend::smoltcp::{Host, HostStats, InTurn, Over};
use wirestack::nic::{Counters, LinkError, Nic, Waker, wait};
use wirestack::observe::{Drops, ShardCounters};
use wirestack::shard::Shard;

use crate::addresses::{Waiting, Wanted};
use crate::error::AppError;
use crate::net::Net;
use crate::setup::{NicProgram, Prepared};

/// Something that serves on a host.
pub trait Service {
    /// First word of the ready line.
    const KIND: &'static str;

    /// Puts its listeners on the host.
    ///
    /// # Errors
    /// One line: which port, and why not.
    fn attach<N: Nic>(&self, host: &mut Host<'_, Over<'_, N>>) -> Result<(), AppError>;

    /// Binds its sockets that are not TCP's, and gives what is done with them in each turn.
    ///
    /// # Errors
    /// One line: which port, and why not.
    fn in_turn(&self, _shard: &mut Shard) -> Result<InTurn<'static>, AppError> {
        Ok(Box::new(|_| {}))
    }

    /// The port of the ready line.
    fn port(&self) -> u16;

    /// Is told the figures of the host now and then, if it wants to show them.
    fn observe(&self, _figures: &Figures) {}
}

/// What a host, the stack below it and its device have counted.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Of the host.
    pub stats: HostStats,
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
    /// What is served.
    pub service: S,
}

impl<S: Service> NicProgram for Program<S> {
    fn run<N: Nic>(self, nic: N, prepared: Prepared<'_>) -> Result<(), AppError> {
        let Prepared { net, stop, json, about } = prepared;
        let wanted = net.wanted.clone();
        let mut host = new_host(nic, net, &self.service)?;
        if let Some(about) = about {
            print_error(format_args!("wirestack: {about}"));
        }
        if let Some(addresses) = wait_for_addresses(&mut host, &wanted, &stop)? {
            let ready: Vec<_> = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, self.service.port()).to_string())
                .collect();
            say(&format!("ready {} {}", S::KIND, ready.join(" ")), json);
        }
        let result = serve(&mut host, &self.service, &stop);
        report(&figures(&mut host), json);
        result
    }
}

/// Makes the host of a checked configuration, with a service on it.
pub(crate) fn new_host<'a, N: Nic>(
    nic: N,
    net: Net<'a>,
    service: &impl Service,
) -> Result<Host<'a, Over<'a, N>>, AppError> {
    // `setup` has checked it before it opened the device; these are the same checks.
    let mut shard = Shard::new(net.shard, wait::now()).map_err(AppError::usage)?;
    net.wanted.conflicts.watch(&mut shard);
    let in_turn = service.in_turn(&mut shard)?;
    let mut host = Host::over(Over::new(nic, shard, in_turn), net.host).map_err(AppError::usage)?;
    service.attach(&mut host)?;
    Ok(host)
}

/// Turns until all addresses can be used. `None`: the program is to end.
pub(crate) fn wait_for_addresses<N: Nic>(
    host: &mut Host<'_, Over<'_, N>>,
    wanted: &Wanted,
    stop: &Stop,
) -> Result<Option<Vec<IpAddr>>, AppError> {
    let waiting = Waiting::begin(wanted, wait::now());
    while !stop.is_set() {
        let now = wait::now();
        let deadline = host.turn(now).map_or(waiting.deadline(), |deadline| deadline.min(waiting.deadline()));
        host.follow_addresses();
        if let Some(addresses) = waiting.look(host.nic().shard(), now)? {
            return Ok(Some(addresses));
        }
        if let Err(LinkError::Gone) = host.nic().wait(Some(deadline)) {
            return Err(AppError::running(LinkError::Gone));
        }
    }
    Ok(None)
}

/// Serves until `stop`, then lets connections end in an orderly way for a moment.
pub(crate) fn serve<N: Nic>(
    host: &mut Host<'_, Over<'_, N>>,
    service: &impl Service,
    stop: &Stop,
) -> Result<(), AppError> {
    let mut observed = Instant::ZERO;
    host.run(|host| {
        if host.follow_addresses() {
            tell_addresses(host.nic().shard());
        }
        let now = wait::now();
        if now >= observed + OBSERVE_INTERVAL {
            observed = now;
            service.observe(&figures(host));
        }
        stop.is_set()
    })
    .map_err(AppError::running)?;
    host.close();
    let give_up = wait::now() + CLOSE_TIMEOUT;
    while !host.is_quiet() && wait::now() < give_up {
        let deadline = host.turn(wait::now()).map_or(give_up, |deadline| deadline.min(give_up));
        // The last word of the last peer may have come in this turn, and nothing would end the sleep.
        if host.is_quiet() {
            break;
        }
        // With the link down or gone, nothing can be said to the peers.
        if host.nic().wait(Some(deadline)).is_err() {
            break;
        }
    }
    host.abort();
    host.turn(wait::now());
    release_lease(host);
    Ok(())
}

/// Gives the address back that a server has leased; its hardware address may have to be asked for first.
fn release_lease<N: Nic>(host: &mut Host<'_, Over<'_, N>>) {
    let shard = host.nic().shard();
    if shard.dhcp_lease().is_none() {
        return;
    }
    shard.dhcp_release();
    let give_up = wait::now() + RELEASE_TIMEOUT;
    loop {
        host.nic().turn(wait::now());
        let _ = host.nic().flush();
        if host.nic().shard().is_quiet() || wait::now() >= give_up || host.nic().wait(Some(give_up)).is_err()
        {
            return;
        }
    }
}

/// Says which addresses there are now: a server or a router has given another one, or taken one away.
fn tell_addresses(shard: &Shard) {
    let usable = shard.addresses().filter(|address| address.is_usable());
    let list: Vec<_> = usable.map(|address| address.cidr.to_string()).collect();
    let list = if list.is_empty() { "none".to_owned() } else { list.join(" ") };
    print_error(format_args!("wirestack: addresses are now {list}"));
}

pub(crate) fn figures<N: Nic>(host: &mut Host<'_, Over<'_, N>>) -> Figures {
    let (stats, connections) = (host.stats(), host.connections_len());
    let counters = host.nic().counters();
    let shard = host.nic().shard();
    Figures { stats, shard: shard.counters(), drops: shard.drops().clone(), counters, connections }
}

/// Tells a loop to end.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    waker: Waker,
}

impl Stop {
    /// A stop for the loop that sleeps on the device of this waker.
    pub fn new(waker: Waker) -> Self {
        Self { flag: Arc::new(AtomicBool::new(false)), waker }
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
        let watch = move || {
            for (count, signal) in signals.forever().enumerate() {
                on_signal.set();
                if count == 2 {
                    std::process::exit(128 + signal);
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(AppError::running)?;
        Ok(stop)
    }

    /// Ends the loop at its next turn.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the loop is to end.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
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
fn report(figures: &Figures, json: bool) {
    if json {
        print(figures.to_json());
    } else {
        print_error(figures);
    }
}

impl Figures {
    /// All figures by name.
    pub fn to_json(&self) -> serde_json::Value {
        let named = self.stats.named().chain(self.counters.named());
        let named = named.map(|(name, value)| (name.to_owned(), value.into()));
        serde_json::Value::Object(named.chain(stack_figures(self.shard, &self.drops)).collect())
    }
}

/// `name=value` of everything that is not zero.
impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in self.stats.named().filter(|&(_, value)| value != 0) {
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
    let counters = shard.named().map(|(name, value)| (format!("stack_{name}"), value.into()));
    let drops = drops.named().filter(|&(_, value)| value != 0);
    counters.chain(drops.map(|(name, value)| (format!("drop_{name}"), value.into())))
}

/// How often a service is told the figures, at most.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long a lease may take to be given back: some round trips of a link.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long connections get to end in an orderly way.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
