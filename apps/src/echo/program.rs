//! `wirestack echo --api blocking|async|local`: the same service on each of the interfaces of the stack.

use std::net::{Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use wirestack::api::ListenOptions;
use wirestack::blocking;
use wirestack::nic::Nic;

use super::{blocking as threads, tasks};
use crate::accept::{Places, accept};
use crate::api::Api;
use crate::cli::{EchoArgs, TcpArgs};
use crate::error::AppError;
use crate::host::{Host, RunArgs};
use crate::local::LocalHost;
use crate::serve;
use crate::setup::{NicProgram, Prepared};

/// The service, before it has a device.
#[derive(Debug)]
pub(super) struct OnApi {
    api: Api,
    port: u16,
    tcp: TcpArgs,
    run: RunArgs,
}

impl OnApi {
    /// Checks what a person can have got wrong.
    ///
    /// # Errors
    /// Flags that do not go together. One line.
    pub(super) fn new(api: Api, args: &EchoArgs) -> Result<Self, AppError> {
        args.tcp.check()?;
        args.run.check(&args.tcp)?;
        if api == Api::Local {
            args.run.check_local()?;
        }
        Ok(Self { api, port: args.port, tcp: args.tcp.clone(), run: args.run.clone() })
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port)
    }

    fn listening(&self) -> ListenOptions {
        ListenOptions { backlog: Some(self.tcp.backlog().into()), ..ListenOptions::default() }
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> AppError + use<> {
        let port = self.port;
        move |error| AppError::flag("--port", port, error)
    }
}

impl NicProgram for OnApi {
    fn shards(&self) -> usize {
        self.run.shards()
    }

    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        match self.api {
            Api::Local => self.run_local(nics, prepared),
            api => {
                let json = prepared.json;
                let host = Host::launch(nics, prepared, "echo", &self.tcp, &self.run)?;
                match api {
                    Api::Blocking => self.run_blocking(host, json),
                    _ => self.run_async(host, json),
                }
            }
        }
    }
}

impl OnApi {
    /// A thread for each connection, and one for datagrams. All of them end with the stack.
    fn run_blocking(self, host: Host, json: bool) -> Result<(), AppError> {
        let listener = blocking::TcpListener::bind_with(host.stack(), self.local(), self.listening());
        let listener = listener.map_err(self.failed())?;
        let socket = blocking::UdpSocket::bind_on(host.stack(), self.local()).map_err(self.failed())?;
        let (port, threads_max) = (self.port, self.tcp.connections_max.unwrap_or(THREADS_MAX));
        let spawn = |name: &str, body: Box<dyn FnOnce() -> std::io::Result<()> + Send>| {
            let told = move || {
                if let Err(error) = body() {
                    log::debug!("{error}");
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn(told).map_err(AppError::running)
        };
        let accept = move || listener.accept().map(|(stream, _)| stream);
        let _accepting = spawn("accept", Box::new(move || threads::streams(accept, threads_max)))?;
        let datagrams = move || {
            let recv = |room: &mut [u8]| socket.recv_from(room);
            threads::datagrams(recv, |payload, to| socket.send_to(payload, to), port)
        };
        let _answering = spawn("datagrams", Box::new(datagrams))?;
        self.until_signal(host, json)
    }

    /// A task of tokio for each connection.
    fn run_async(self, host: Host, json: bool) -> Result<(), AppError> {
        let listener = host.stack().listen_with(self.local(), self.listening()).map_err(self.failed())?;
        let socket = host.stack().udp_bind(self.local()).map_err(self.failed())?;
        let runtime = Builder::new_multi_thread().build().map_err(AppError::running)?;
        let spawn = |stream, _, place| drop(tokio::spawn(tasks::stream(stream, place)));
        runtime.spawn(accept(listener, Places::new(self.tcp.connections_max()), spawn));
        runtime.spawn(tasks::datagrams(socket, self.port));
        let result = self.until_signal(host, json);
        runtime.shutdown_timeout(END_TIMEOUT);
        result
    }

    fn until_signal(&self, host: Host, json: bool) -> Result<(), AppError> {
        if let Some(addresses) = host.wait_for_addresses()? {
            serve::say_ready("echo", &addresses, self.port, json);
        }
        let result = host.wait(|_| {});
        serve::report(&host.shutdown(), json);
        result
    }

    /// A task on the thread of the stack for each connection.
    fn run_local<N: Nic>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let json = prepared.json;
        let mut host = LocalHost::open(nics, prepared, "echo", &self.tcp, &self.run)?;
        let listener = host.stack().listen_with(self.local(), self.listening()).map_err(self.failed())?;
        let socket = host.stack().udp_bind(self.local()).map_err(self.failed())?;
        let spawner = host.spawner().clone();
        let spawn = move |stream, _, place| spawner.spawn(tasks::stream(stream, place));
        let (places, port) = (Places::new(self.tcp.connections_max()), self.port);
        host.spawner().spawn(async move {
            // It ends with the stack.
            let _ = accept(listener, places, spawn).await;
        });
        host.spawner().spawn(async move {
            let _ = tasks::datagrams(socket, port).await;
        });
        let mut result = Ok(());
        if let Some(addresses) = host.wait_for_addresses()? {
            serve::say_ready("echo", &addresses, self.port, json);
            result = host.run(std::future::pending::<()>()).map(drop);
        }
        serve::report(&host.shutdown(), json);
        result
    }
}

/// Threads for connections, unless a flag says otherwise.
const THREADS_MAX: usize = 1_000;
/// How long tasks get to see that their connections have ended.
const END_TIMEOUT: Duration = Duration::from_millis(500);
