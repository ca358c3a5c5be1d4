//! The loop of a program that serves: ready line, signals, an orderly end, counters.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use smoltcp::time::{Duration, Instant};
use wirestack::backend::smoltcp::{Host, HostStats};
use wirestack::config::HostConfig;
use wirestack::nic::{Counters, Nic, Waker, wait};

use crate::error::AppError;
use crate::setup::{NicProgram, Prepared};

/// Something that serves on a host.
pub trait Service {
    /// First word of the ready line.
    const KIND: &'static str;

    /// Puts its listeners on the host.
    ///
    /// # Errors
    /// One line: which port, and why not.
    fn attach<N: Nic>(&self, host: &mut Host<'_, N>) -> Result<(), AppError>;

    /// The port of the ready line.
    fn port(&self) -> u16;

    /// Is told the figures of the host now and then, if it wants to show them.
    fn observe(&self, _figures: &Figures) {}
}

/// What a host and its device have counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Of the host.
    pub stats: HostStats,
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
        let Prepared { config, stop, json, about } = prepared;
        let addresses: Vec<_> = config.addresses.iter().map(|cidr| cidr.address()).collect();
        let mut host = new_host(nic, config)?;
        self.service.attach(&mut host)?;
        let ready: Vec<_> = addresses
            .iter()
            .map(|&address| SocketAddr::new(address.into(), self.service.port()).to_string())
            .collect();
        if let Some(about) = about {
            print_error(format_args!("wirestack: {about}"));
        }
        say(&format!("ready {} {}", S::KIND, ready.join(" ")), json);
        let result = serve(&mut host, &self.service, &stop);
        report(&figures(&mut host), json);
        result
    }
}

/// Makes the host of a checked configuration.
pub(crate) fn new_host<N: Nic>(nic: N, config: HostConfig<'_>) -> Result<Host<'_, N>, AppError> {
    // `setup` has checked it before it opened the device; this is the same check.
    Host::new(nic, config).map_err(AppError::usage)
}

/// Serves until `stop`, then lets connections end in an orderly way for a moment.
pub(crate) fn serve<N: Nic>(
    host: &mut Host<'_, N>,
    service: &impl Service,
    stop: &Stop,
) -> Result<(), AppError> {
    let mut observed = Instant::ZERO;
    host.run(|host| {
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
    Ok(())
}

pub(crate) fn figures<N: Nic>(host: &mut Host<'_, N>) -> Figures {
    Figures { stats: host.stats(), counters: host.nic().counters(), connections: host.connections_len() }
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
        let map = named.map(|(name, value)| (name.to_owned(), value.into()));
        serde_json::Value::Object(map.collect())
    }
}

/// `name=value` of everything that is not zero.
impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in self.stats.named().filter(|&(_, value)| value != 0) {
            write!(f, "{name}={value} ")?;
        }
        write!(f, "{}", self.counters)
    }
}

/// How often a service is told the figures, at most.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long connections get to end in an orderly way.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
