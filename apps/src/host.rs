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
use wirestack::driver::{Driver, InTurn, Launch, LaunchError, MakeInTurn, Patience};
use wirestack::nic::affinity::CpuSet;
use wirestack::nic::{LinkError, Nic, wait};
use wirestack::shard::Shard;
use wirestack::tokio::Stack;

use crate::addresses::{Waiting, Wanted};
use crate::cli::{TcpArgs, parse_cpus, whole};
use crate::engine::connections::Connections;
use crate::engine::{self, Backend};
use crate::error::AppError;
use crate::serve::{self, Figures, Service, Stop, print_error};
use crate::setup::{Prepared, STEERING_SEED};

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
        let problem = "--backend smoltcp runs on one thread; leave it out";
        match (tcp.backend, self.shards.filter(|shards| *shards > 1)) {
            (Backend::Smoltcp, Some(shards)) => Err(AppError::flag("--shards", shards, problem)),
            _ => Ok(()),
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
    driver: Driver,
    stop: Stop,
    wanted: Wanted,
    counted: Arc<[Counted]>,
    /// Figures of a program whose connections the stack does not know, or has not counted.
    about: Option<String>,
}

/// What the handlers of a shard have counted.
#[derive(Debug, Default)]
struct Counted {
    accepted: AtomicU64,
    held_back: AtomicU64,
    connections: AtomicU64,
    is_used: AtomicU64,
}

impl Host {
    /// Starts a stack for programs that have handles of it.
    ///
    /// # Errors
    /// A limit that is out of its bounds, no thread. One line.
    pub fn launch<N: Nic + Send + 'static>(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        tcp: &TcpArgs,
        run: &RunArgs,
    ) -> Result<Self, AppError> {
        Self::start(nics, prepared, tcp, run, None, 0)
    }

    /// Starts a stack that calls a service in its turns.
    ///
    /// # Errors
    /// A port that cannot be had; as [`launch`](Self::launch). One line.
    pub fn serve<N: Nic + Send + 'static>(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        service: &Arc<impl Service>,
        tcp: &TcpArgs,
        run: &RunArgs,
    ) -> Result<Self, AppError> {
        let counted: Arc<[Counted]> = nics.iter().map(|_| Counted::default()).collect();
        let len_max = tcp.connections_max.unwrap_or(CONNECTIONS_MAX).div_ceil(nics.len().max(1));
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
        let listeners = service.listeners().len();
        let started = Self::start(nics, prepared, tcp, run, Some(make), listeners);
        match (started, failed.lock().unwrap_or_else(PoisonError::into_inner).take()) {
            (Ok(host), _) => Ok(Self { counted, ..host }),
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => Err(error),
        }
    }

    fn start<N: Nic + Send + 'static>(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        tcp: &TcpArgs,
        run: &RunArgs,
        in_turn: Option<MakeInTurn>,
        listeners: usize,
    ) -> Result<Self, AppError> {
        let Prepared { net, stop, about, .. } = prepared;
        let mut config = net.shard;
        let connections_max = tcp.connections_max.unwrap_or(CONNECTIONS_MAX);
        let spare = SOCKETS_SPARE + listeners * (usize::from(tcp.backlog()) + 1);
        // What waits to be accepted is a connection too, and what has ended here may not have ended there.
        config.tcp.connections_max = config.tcp.connections_max.max(2 * connections_max + spare);
        config.sockets_max = config.sockets_max.max(connections_max + spare);
        config.tcp.options = engine::options(tcp.congestion());
        let cpus = run.cpus.iter().flat_map(|cpus| cpus.iter().collect::<Vec<_>>()).collect();
        let mut launch = Launch::new(config).steering_seed(STEERING_SEED).patience(run.patience()).cpus(cpus);
        if let Some(in_turn) = in_turn {
            launch = launch.in_turn(in_turn);
        }
        let driver = launch.start(nics).map_err(|error| match error {
            // `setup` has checked the rest before it opened the device.
            LaunchError::Config(error) => AppError::usage(error),
            LaunchError::Application(error) => AppError::running(error),
            error => AppError::running(error),
        })?;
        for shard in driver.stack().shards() {
            shard.with(|hub| net.wanted.conflicts.watch(hub.shard()));
        }
        Ok(Self { driver, stop, wanted: net.wanted, counted: Arc::default(), about })
    }

    /// The handle with which sockets are made.
    pub fn stack(&self) -> &Stack {
        self.driver.stack()
    }

    /// The threads.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Tells the program to end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Waits until all addresses can be used. `None`: the program is to end.
    ///
    /// # Errors
    /// Somebody else has one, nobody gives one, the interface has gone. One line.
    pub fn wait_for_addresses(&self) -> Result<Option<Vec<IpAddr>>, AppError> {
        if let Some(about) = &self.about {
            print_error(format_args!("wirestack: {about}"));
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
        let has_ended = self.stack().shards().iter().any(|shard| shard.with(|hub| hub.fault().is_some()));
        if has_ended { Err(AppError::running(LinkError::Gone)) } else { Ok(()) }
    }

    /// What was counted, all shards together.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for shard in self.driver.figures() {
            figures.add(&shard);
        }
        if self.counted.iter().any(|counted| counted.is_used.load(Ordering::Relaxed) > 0) {
            let sum = |of: fn(&Counted) -> &AtomicU64| {
                self.counted.iter().map(|counted| of(counted).load(Ordering::Relaxed)).sum::<u64>()
            };
            figures.program = vec![
                ("accepted", sum(|counted| &counted.accepted)),
                ("held_back", sum(|counted| &counted.held_back)),
            ];
            figures.connections = sum(|counted| &counted.connections) as usize;
        } else {
            figures.program = vec![("accepted", figures.tcp.map_or(0, |tcp| tcp.accepted))];
        }
        figures
    }

    /// Lets connections end in an orderly way for a moment. Returns what was counted.
    pub fn shutdown(self) -> Figures {
        self.driver.end(CLOSE_TIMEOUT);
        self.figures()
    }
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
    if let Some(counted) = counted.get(number) {
        counted.is_used.store(1, Ordering::Relaxed);
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

/// Connections that a program serves at a time, unless a flag says otherwise.
const CONNECTIONS_MAX: usize = 10_000;
/// Sockets beside the connections: datagrams, listeners.
const SOCKETS_SPARE: usize = 64;
/// How often it is looked whether addresses can be used.
const ADDRESS_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How often a service is told the figures.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long connections get to end in an orderly way.
const CLOSE_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);
