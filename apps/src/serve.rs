//! The loop of a program that serves: ready line, signals, an orderly end, counters.

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use smoltcp::time::{Duration, Instant};
use wirestack::backend::smoltcp::{Host, HostStats};
use wirestack::config::HostConfig;
use wirestack::nic::{Counters, LinkError, Nic, Waker, wait};

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
        let Prepared { config, guard, json } = prepared;
        let addresses: Vec<_> = config.addresses.iter().map(|cidr| cidr.address()).collect();
        let mut host = new_host(nic, config)?;
        self.service.attach(&mut host)?;
        // The last step that can fail is the first that changes something on the system.
        let guard = guard.install()?;
        let stop = Stop::on_signals(host.nic().waker())?;

        let ready: Vec<_> = addresses
            .iter()
            .map(|&address| SocketAddr::new(address.into(), self.service.port()).to_string())
            .collect();
        say(&format!("ready {} {}", S::KIND, ready.join(" ")), json);
        let result = serve(&mut host, &self.service, &stop);
        drop(guard);
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
    let gone = |LinkError::Gone | LinkError::Down| AppError::running("the interface was removed");
    let mut observed = Instant::ZERO;
    host.run(|host| {
        let now = wait::now();
        if now >= observed + OBSERVE_INTERVAL {
            observed = now;
            service.observe(&figures(host));
        }
        stop.is_set()
    })
    .map_err(gone)?;
    host.close();
    let give_up = wait::now() + CLOSE_TIMEOUT;
    let nudge = host.nic().waker();
    host.run(|host| {
        // Sleeps end when a segment comes; with a silent peer this ends them.
        let done = host.is_quiet() || wait::now() >= give_up;
        if !done && wait::now() + CLOSE_TIMEOUT > give_up {
            nudge.wake();
        }
        done
    })
    .map_err(gone)?;
    host.abort();
    host.turn(wait::now());
    Ok(())
}

pub(crate) fn figures<N: Nic>(host: &mut Host<'_, N>) -> Figures {
    Figures { stats: host.stats(), counters: host.nic().counters(), connections: host.connections_len() }
}
