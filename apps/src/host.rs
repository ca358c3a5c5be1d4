//! A stack on threads, for a program: from its devices to the ready line, until a signal, and an orderly end.
//!
//! ```text
//!   main thread   launch ▸ wait for addresses ▸ "ready" ▸ wait for a signal ▸ shutdown ▸ figures
//!   shard threads the stack; with the poll API, the program's handlers in its turns
//! ```

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use wirestack::api::Access;
use wirestack::driver::{Driver, InTurn, Launch, LaunchError, MakeInTurn, Patience, ShardFigures, Watcher};
use wirestack::nic::affinity::CpuSet;
use wirestack::nic::{LinkError, Nic, wait};
use wirestack::shard::{Shard, ShardConfig};
use wirestack::tokio::Stack;

use crate::addresses::{Waiting, Wanted};
use crate::cli::{PrivilegeArgs, TcpArgs, parse_cpus, whole};
use crate::control::Serving;
use crate::engine::connections::Connections;
use crate::engine::{self, Backend};
use crate::error::AppError;
use crate::policy;
use crate::privileges::{self, Threads};
use crate::report::{About, Gather, Report, Request};
use crate::serve::{self, Figures, Service, Stop, print_error};
use crate::setup::{self, Prepared};

/// Flags of every program whose stack runs on threads.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Threads that serve, each with its part of the flows [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=64))]
    pub shards: Option<usize>,
    /// Never sleep: the shortest way for a frame, at the price of a core for each shard
    #[arg(long)]
    pub busy_poll: bool,
    /// CPUs on which the shards run, one after the other, as in 0-3,7 [default: any]
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuSet>,
}

impl RunArgs {
    /// Checks what does not go together.
    ///
    /// # Errors
    /// A flag that smoltcp's engine does not know. One line.
    pub fn check(&self, tcp: &TcpArgs) -> Result<(), AppError> {
        if tcp.backend == Backend::Wirestack {
            return Ok(());
        }
        let problem = "--backend smoltcp runs on one thread; leave it out";
        match (self.shards(), &self.cpus, self.busy_poll) {
            (2.., ..) => Err(AppError::flag("--shards", self.shards(), problem)),
            (_, Some(cpus), _) => Err(AppError::flag("--cpus", cpus, problem)),
            (_, None, true) => Err(AppError::usage(
                "--busy-poll: --backend smoltcp sleeps when there is nothing to do; leave it out",
            )),
            (_, None, false) => Ok(()),
        }
    }

    /// The same for a program on one thread.
    ///
    /// # Errors
    /// More shards, or CPUs, are asked for. One line.
    pub fn check_local(&self) -> Result<(), AppError> {
        let problem = "--api local is on one thread; leave it out, or --api async is accepted";
        match (self.shards(), &self.cpus) {
            (1, None) => Ok(()),
            (1, Some(cpus)) => Err(AppError::flag("--cpus", cpus, problem)),
            (shards, _) => Err(AppError::flag("--shards", shards, problem)),
        }
    }

    /// How many shards.
    pub fn shards(&self) -> usize {
        self.shards.unwrap_or(1)
    }

    /// What threads do while there is nothing to do.
    pub fn patience(&self) -> Patience {
        if self.busy_poll { Patience::Spin } else { Patience::default() }
    }
}

/// A stack that runs for a program.
#[derive(Debug)]
pub struct Host {
    reporter: Reporter,
    driver: Driver,
    stop: Stop,
    wanted: Wanted,
    /// What the device is and how much memory it takes, for people.
    shape: Option<String>,
    privileges: PrivilegeArgs,
    /// Tells whoever asks about the program.
    _control: Option<Serving>,
}

/// Tells about a stack that runs, from any thread.
#[derive(Debug, Clone)]
pub struct Reporter {
    about: About,
    stack: Stack,
    watcher: Watcher,
    counted: Arc<[Counted]>,
}

/// What the handlers of a shard have counted.
#[derive(Debug, Default)]
struct Counted {
    accepted: AtomicU64,
    held_back: AtomicU64,
    connections: AtomicU64,
}

impl Host {
    /// Starts a stack for programs that have handles of it.
    ///
    /// # Errors
    /// A limit that is out of its bounds, no thread. One line.
    pub fn launch<N: Nic + Send + 'static>(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        program: &str,
        tcp: &TcpArgs,
        run: &RunArgs,
    ) -> Result<Self, AppError> {
        Self::start(nics, prepared, program, (tcp, run), InTurns::default())
    }

    /// Starts a stack that calls a service in its turns.
    ///
    /// # Errors
    /// A port that cannot be had; as [`launch`](Self::launch). One line.
    pub fn serve<N: Nic + Send + 'static>(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        program: &str,
        service: &Arc<impl Service>,
        tcp: &TcpArgs,
        run: &RunArgs,
    ) -> Result<Self, AppError> {
        let counted: Arc<[Counted]> = nics.iter().map(|_| Counted::default()).collect();
        let len_max = tcp.connections_max().div_ceil(nics.len().max(1));
        let failed = Arc::new(Mutex::new(None));
        let make: MakeInTurn = {
            let (service, tcp) = (Arc::clone(service), tcp.clone());
            let (counted, failed) = (Arc::clone(&counted), Arc::clone(&failed));
            Arc::new(move |number, shard: &mut Shard| {
                let result = in_turn(&*service, shard, &tcp, len_max, number, Arc::clone(&counted));
                result.map_err(|error| {
                    let text = error.message.clone();
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    io::Error::other(text)
                })
            })
        };
        let in_turns = InTurns { make: Some(make), listeners: service.listeners().len(), counted };
        Self::start(nics, prepared, program, (tcp, run), in_turns).map_err(|error| {
            // What the service has said names a flag.
            failed.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error)
        })
    }

    fn start<N: Nic + Send + 'static>(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        program: &str,
        (tcp, run): (&TcpArgs, &RunArgs),
        in_turns: InTurns,
    ) -> Result<Self, AppError> {
        let Prepared { net, stop, about: shape, control, name, keep, .. } = prepared;
        // Before there are threads, each of which would have them.
        privileges::leave(&tcp.privileges, keep)?;
        let steering_seed = setup::steering_seed(net.shard.seed);
        let config = limits(net.shard, tcp, in_turns.listeners);
        let cpus = run.cpus.iter().flat_map(|cpus| cpus.iter().collect::<Vec<_>>()).collect();
        let launch = Launch::new(config).steering_seed(steering_seed).patience(run.patience()).cpus(cpus);
        // All of it before the first turn: an address may be probed, and found to be another host's, in that.
        let (conflicts, tcp) = (net.wanted.conflicts.clone(), tcp.clone());
        let privileges = tcp.privileges;
        let launch = launch.in_turn(Arc::new(move |number, shard: &mut Shard| {
            conflicts.watch(shard);
            policy::install(shard, &tcp);
            match &in_turns.make {
                Some(make) => make(number, shard),
                None => Ok(Box::new(|_: &mut Shard| None)),
            }
        }));
        let driver = launch.start(nics).map_err(|error| match error {
            // `setup` has checked the rest before it opened the device.
            LaunchError::Config(error) => AppError::usage(error),
            LaunchError::Cpu { cpu, .. } => AppError::flag("--cpus", cpu, error),
            error => AppError::running(error),
        })?;
        let (about, counted) = (About::new(program, name), in_turns.counted);
        let reporter = Reporter { about, stack: driver.stack().clone(), watcher: driver.watcher(), counted };
        let asked = reporter.clone();
        let control = control.map(|control| control.serve(move |request| Some(asked.report(request))));
        let control = control.transpose().map_err(AppError::running)?;
        Ok(Self { reporter, driver, stop, wanted: net.wanted, shape, privileges, _control: control })
    }

    /// The handle with which sockets are made.
    pub fn stack(&self) -> &Stack {
        self.driver.stack()
    }

    /// Tells the program to end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Waits until all addresses can be used, and gives up system calls then if that was asked for. `None`: the program is to
    /// end.
    ///
    /// # Errors
    /// Somebody else has one, nobody gives one, the interface has gone. One line.
    pub fn wait_for_addresses(&self) -> Result<Option<Vec<IpAddr>>, AppError> {
        if let Some(shape) = &self.shape {
            print_error(format_args!("wirestack: {shape}"));
        }
        let waiting = Waiting::begin(&self.wanted, wait::now());
        while !self.stop.wait(ADDRESS_LOOK_INTERVAL) {
            self.check_link()?;
            let found = self
                .stack()
                .shards()
                .iter()
                .map(|shard| shard.with(|hub| waiting.look(hub.shard_ref(), wait::now())));
            // All shards have them, or they are not there.
            if let Some(addresses) = found.collect::<Result<Option<Vec<_>>, _>>()? {
                privileges::confine_if_asked(&self.privileges, Threads::All)?;
                return Ok(addresses.into_iter().next());
            }
        }
        Ok(None)
    }

    /// Waits for the end, and tells the figures to `observe` now and then.
    ///
    /// # Errors
    /// The interface has gone.
    pub fn wait(&self, mut observe: impl FnMut(&Figures)) -> Result<(), AppError> {
        let mut addresses = self.stack().addresses();
        observe(&self.figures());
        while !self.stop.wait(OBSERVE_INTERVAL) {
            self.check_link()?;
            let now = self.stack().addresses();
            if now != addresses {
                addresses = now;
                self.stack().shards()[0].with(|hub| serve::tell_addresses(hub.shard_ref()));
            }
            observe(&self.figures());
        }
        Ok(())
    }

    fn check_link(&self) -> Result<(), AppError> {
        if !self.driver.is_running() { Err(AppError::running(LinkError::Gone)) } else { Ok(()) }
    }

    /// Tells about it, from any thread.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// What was counted, all shards together.
    pub fn figures(&self) -> Figures {
        self.reporter.figures()
    }

    /// Lets connections end in an orderly way for a moment. Returns what was counted.
    pub fn shutdown(self) -> Figures {
        let Self { reporter, driver, .. } = self;
        driver.shutdown(CLOSE_TIMEOUT);
        reporter.figures()
    }
}

impl Reporter {
    /// What was counted, all shards together.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (number, shard) in self.watcher.figures().iter().enumerate() {
            figures.add(&self.figures_of(number, shard));
        }
        figures
    }

    /// The same of one shard: its handlers know better than TCP which connections are theirs.
    fn figures_of(&self, number: usize, shard: &ShardFigures) -> Figures {
        let mut figures = Figures::of(shard);
        match self.counted.get(number) {
            Some(counted) => {
                let [accepted, held_back, connections] =
                    [&counted.accepted, &counted.held_back, &counted.connections]
                        .map(|count| count.load(Ordering::Relaxed));
                figures.program = vec![("accepted", accepted), ("held_back", held_back)];
                figures.connections = connections as usize;
            }
            None => figures.program = vec![("accepted", shard.tcp.accepted)],
        }
        figures
    }

    /// The report of the moment. Each shard is stopped for a short time only, however many connections it has.
    pub fn report(&self, request: Request) -> Report {
        let mut report: Option<Report> = None;
        for (number, (shard, figures)) in self.stack.shards().iter().zip(self.watcher.figures()).enumerate() {
            let mut gather = Gather::new(number as u32, request);
            while !shard.with(|hub| gather.step(hub.shard_ref())) {}
            let figures = self.figures_of(number, &figures);
            let one = shard.with(|hub| gather.finish(&self.about, hub.shard_ref(), &figures));
            match &mut report {
                Some(report) => report.merge(one, request),
                None => report = Some(one),
            }
        }
        // There is one shard at least.
        report.unwrap_or_default()
    }
}

/// The configuration with as many sockets as the flags need.
pub(crate) fn limits(mut config: ShardConfig, tcp: &TcpArgs, listeners: usize) -> ShardConfig {
    let connections_max = tcp.connections_max();
    let spare = SOCKETS_SPARE + listeners * (usize::from(tcp.backlog()) + 1);
    // What waits to be accepted is a connection too, and what has ended here may not have ended there.
    config.tcp.connections_max = config.tcp.connections_max.max(2 * connections_max + spare);
    config.sockets_max = config.sockets_max.max(connections_max + spare);
    config.tcp.options = engine::options(&config.tcp.options, tcp.congestion);
    config
}

/// What lives in the turns of shards.
#[derive(Default)]
struct InTurns {
    make: Option<MakeInTurn>,
    listeners: usize,
    counted: Arc<[Counted]>,
}

/// The handlers of a service, in the turns of a shard.
fn in_turn(
    service: &impl Service,
    shard: &mut Shard,
    tcp: &TcpArgs,
    len_max: usize,
    number: usize,
    counted: Arc<[Counted]>,
) -> Result<InTurn, AppError> {
    let mut datagrams = service.in_turn(shard)?;
    let mut connections = Connections::new(len_max, shard.now());
    for listening in service.listeners() {
        let port = listening.port;
        connections.listen(shard, listening, tcp).map_err(|error| AppError::flag("--port", port, error))?;
    }
    Ok(Box::new(move |shard| {
        datagrams(shard);
        connections.serve(shard);
        if let Some(counted) = counted.get(number) {
            let [(_, accepted), (_, held_back)] = connections.named();
            counted.accepted.store(accepted, Ordering::Relaxed);
            counted.held_back.store(held_back, Ordering::Relaxed);
            counted.connections.store(connections.len() as u64, Ordering::Relaxed);
        }
        connections.next_deadline(shard.now())
    }))
}

/// Sockets beside the connections: datagrams, listeners.
const SOCKETS_SPARE: usize = 64;
/// How often it is looked whether addresses can be used.
pub(crate) const ADDRESS_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How often a service is told the figures.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long connections get to end in an orderly way.
pub(crate) const CLOSE_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_threads_is_not_ignored() {
        let run = |shards, busy_poll, cpus: Option<&str>| RunArgs {
            shards,
            busy_poll,
            cpus: cpus.map(|cpus| cpus.parse().expect("CPUs")),
        };
        let (wirestack, smoltcp) =
            (TcpArgs::default(), TcpArgs { backend: Backend::Smoltcp, ..TcpArgs::default() });
        for (flag, value, run) in [
            ("--shards", "2", run(Some(2), false, None)),
            ("--cpus", "0-1", run(None, false, Some("0-1"))),
            ("--busy-poll", "", run(Some(1), true, None)),
        ] {
            assert_eq!(run.check(&wirestack), Ok(()));
            let error = run.check(&smoltcp).expect_err("one thread, which sleeps");
            assert!(error.message.starts_with(flag) && error.message.contains(value), "{}", error.message);
            assert_eq!((error.status, error.message.lines().count()), (2, 1));
            assert!(error.message.contains("--backend smoltcp"), "{}", error.message);
            let local = run.check_local();
            assert_eq!(local.is_ok(), flag == "--busy-poll", "{local:?}");
        }
        assert_eq!(run(Some(1), false, None).check(&smoltcp), Ok(()));
    }
}
