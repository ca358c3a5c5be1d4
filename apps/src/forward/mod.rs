//! `wirestack forward`: TCP connections handed on between the kernel's side and the stack's, as `ssh -L` and `-R` do
//! it between two hosts.
//!
//! ```text
//!   -L  a program ──▶ kernel, listens ──▶ forward ──▶ stack, connects ──▶ HOST:PORT
//!   -R  a peer ──▶ stack, listens ──▶ forward ──▶ kernel, connects ──▶ HOST:PORT
//! ```

pub mod args;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net;
use tokio::runtime::Builder;
use wirestack::api::ListenOptions;
use wirestack::nic::Nic;
use wirestack::nic::claim::Protocol;
use wirestack::tokio::{Stack, TcpListener, TcpStream};

use crate::accept::{Place, Places, accept};
use crate::addresses::AddressArg;
use crate::error::AppError;
use crate::host::Host;
use crate::names;
use crate::serve;
use crate::setup::{self, NicProgram, Ports, Prepared};
use args::{Forward, ForwardArgs};

/// Runs until a signal.
///
/// # Errors
/// What is wrong with the flags or the machine, in one line.
pub fn run(args: &ForwardArgs) -> Result<(), AppError> {
    args.tcp.check()?;
    args.run.check(&args.tcp)?;
    if args.tcp.backend != crate::engine::Backend::Wirestack {
        return Err(AppError::flag("--backend", args.tcp.backend, "forward is for wirestack; leave it out"));
    }
    // What listens on the kernel's side is there before system calls are given up, and taking connections is allowed.
    if args.tcp.privileges.seccomp && !args.remote.is_empty() {
        let problem = "--seccomp: it lets no sockets be made, and -R makes one for each connection; -L alone is accepted";
        return Err(AppError::usage(problem));
    }
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(AppError::running)?;
    // Those of the kernel are had before anything is opened: somebody may have the port.
    let mut listeners = Vec::new();
    for forward in &args.local {
        let at = SocketAddr::new(forward.kernel_bind(), forward.port);
        let listener = runtime.block_on(net::TcpListener::bind(at));
        listeners.push((listener.map_err(|error| AppError::flag("-L", forward, error))?, forward.clone()));
    }
    let served = args.remote.iter().map(|forward| forward.port).collect();
    let protocols = &[Protocol::Tcp];
    let sources = &[Protocol::Tcp, Protocol::Udp];
    setup::start(&args.host, Ports { served, protocols, sources }, Program { args, runtime, listeners })
}

struct Program<'a> {
    args: &'a ForwardArgs,
    runtime: tokio::runtime::Runtime,
    listeners: Vec<(net::TcpListener, Forward)>,
}

impl NicProgram for Program<'_> {
    fn shards(&self) -> usize {
        self.args.run.shards()
    }

    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, mut prepared: Prepared<'_>) -> Result<(), AppError> {
        let Self { args, runtime, listeners } = self;
        let is_told = args.host.wants(AddressArg::Dhcp) || args.host.wants(AddressArg::Slaac);
        let ports = prepared.net.shard.source_ports.range.clone();
        prepared.net.shard.dns = names::config(&args.dns, is_told, ports);
        let json = prepared.json;
        let host = Host::launch(nics, prepared, "forward", &args.tcp, &args.run)?;
        let places = Places::new(args.tcp.connections_max());
        let mut ready = Vec::new();
        let Some(addresses) = host.wait_for_addresses()? else { return Ok(()) };
        for forward in &args.remote {
            let listener = listen(host.stack(), forward, args.tcp.backlog().into())?;
            let bound = forward.bind.as_ref().map_or(addresses.as_slice(), std::slice::from_ref);
            ready.extend(bound.iter().map(|ip| SocketAddr::new(*ip, forward.port).to_string()));
            let forward = forward.clone();
            let spawn = move |ours, peer, place| {
                tokio::spawn(to_kernel(ours, peer, forward.clone(), place));
            };
            runtime.spawn(accept(listener, places.clone(), spawn));
        }
        for (listener, forward) in listeners {
            ready.push(listener.local_addr().map_err(AppError::running)?.to_string());
            runtime.spawn(from_kernel(listener, host.stack().clone(), forward, places.clone()));
        }
        serve::say(&format!("ready forward {}", ready.join(" ")), json);
        let result = host.wait(|_| {});
        serve::report(&host.shutdown(), json);
        runtime.shutdown_timeout(END_TIMEOUT);
        result
    }
}

fn listen(stack: &Stack, forward: &Forward, backlog: usize) -> Result<TcpListener, AppError> {
    let at = SocketAddr::new(forward.bind.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), forward.port);
    let options = ListenOptions { backlog: Some(backlog), ..ListenOptions::default() };
    stack.listen_with(at, options).map_err(|error| AppError::flag("-R", forward, error))
}

/// -L: connections of programs on this host go out through the stack.
async fn from_kernel(listener: net::TcpListener, stack: Stack, forward: Forward, places: Places) {
    loop {
        let place = places.take().await;
        let (kernel, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptor is free, for example: there may be one when a connection has ended.
                log::warn!("-L {forward}: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (stack, forward) = (stack.clone(), forward.clone());
        tokio::spawn(async move {
            match stack.connect_to((forward.host.as_str(), forward.host_port)).await {
                Ok(ours) => exchange(kernel, ours, &peer).await,
                Err(error) => {
                    log::info!("{peer}: {}:{}: {error}", forward.host, forward.host_port);
                    // As a refusal: nobody was there.
                    let _ = kernel.set_zero_linger();
                }
            }
            drop(place);
        });
    }
}

/// -R: a connection to the stack goes to a program that the kernel reaches.
async fn to_kernel(ours: TcpStream, peer: SocketAddr, forward: Forward, _place: Place) {
    match net::TcpStream::connect((forward.host.as_str(), forward.host_port)).await {
        Ok(kernel) => exchange(kernel, ours, &peer).await,
        Err(error) => {
            log::info!("{peer}: {}:{}: {error}", forward.host, forward.host_port);
            ours.abort();
        }
    }
}

/// Hands bytes on in both directions, and the end of each. What ends badly on one side ends so on the other.
async fn exchange(mut kernel: net::TcpStream, mut ours: TcpStream, peer: &impl fmt::Display) {
    let set: io::Result<()> = kernel.set_nodelay(true).and_then(|()| ours.set_nodelay(true));
    let exchanged = match set {
        Ok(()) => copy_bidirectional(&mut kernel, &mut ours).await,
        Err(error) => Err(error),
    };
    match exchanged {
        Ok((to_peer, from_peer)) => log::debug!("{peer}: {to_peer} bytes to the stack, {from_peer} from it"),
        Err(error) => {
            log::debug!("{peer}: {error}");
            ours.abort();
            let _ = kernel.set_zero_linger();
        }
    }
}

/// How long nobody is accepted when that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long tasks get to see that their connections have ended.
const END_TIMEOUT: Duration = Duration::from_millis(500);
