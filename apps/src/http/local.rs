//! `wirestack http --api local`: hyper on the thread of the stack, without locks.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use wirestack::api::{ListenOptions, Local, Sleep};
use wirestack::local::{Spawner, Stack, TcpListener, TcpStream};
use wirestack::nic::Nic;

use super::linger::Kept;
use super::program::acceptor;
use super::server::{Ended, Timer};
use super::service::{self, SiteConfig, SiteService};
use super::status::StatusSource;
use super::tls::{self, Tls, TlsAcceptor};
use crate::cli::{HttpArgs, TcpArgs};
use crate::error::AppError;
use crate::host::RunArgs;
use crate::local::{LocalHost, Published};
use crate::serve;
use crate::setup::{NicProgram, Prepared};

/// The server, before it has a device.
pub(super) struct HyperLocal {
    port: u16,
    service: SiteService,
    tls: Option<Tls>,
    tcp: TcpArgs,
    run: RunArgs,
    /// Filled in when the stack runs.
    published: Arc<OnceLock<Arc<Published>>>,
}

impl HyperLocal {
    /// Checks everything that a person can have got wrong.
    ///
    /// # Errors
    /// The directory, a file of TLS, flags that do not go together. One line.
    pub(super) fn new(args: &HttpArgs) -> Result<Self, AppError> {
        args.tcp.check()?;
        args.run.check_local()?;
        let published = Arc::<OnceLock<Arc<Published>>>::default();
        let asked = Arc::clone(&published);
        let status: StatusSource = Arc::new(move || {
            let report = asked.get().map(|published| published.report());
            report.and_then(|report| serde_json::to_value(report).ok()).unwrap_or_default()
        });
        Ok(Self {
            port: args.port,
            service: service::service(&SiteConfig { dir: args.dir.clone() }, Some(status))?,
            tls: Tls::from_args(&args.tls)?,
            tcp: args.tcp.clone(),
            run: args.run.clone(),
            published,
        })
    }
}

impl NicProgram for HyperLocal {
    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let json = prepared.json;
        let mut host = LocalHost::open(nics, prepared, "http", &self.tcp, &self.run)?;
        let _ = self.published.set(host.published());
        // Files are read on its threads; nothing else needs it.
        let files = Builder::new_multi_thread().worker_threads(1).build().map_err(AppError::running)?;
        let _entered = files.enter();
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port);
        let options = ListenOptions { backlog: Some(self.tcp.backlog().into()), ..ListenOptions::default() };
        let listener = host.stack().listen_with(local, options);
        let listener = listener.map_err(|error| AppError::flag("--port", self.port, error))?;
        let (stop, stopping) = watch::channel(());
        let mut result = Ok(());
        if let Some(addresses) = host.wait_for_addresses()? {
            let tls = acceptor(self.tls, &addresses)?;
            let timer = StackTimer(host.stack().clone());
            let spawner = host.spawner().clone();
            let serving = Serving { service: self.service, tls, stopping, timer, spawner };
            let accept = serving.accept(listener, self.tcp.connections_max());
            host.spawner().spawn(accept);
            serve::say_ready("http", &addresses, self.port, json);
            result = host.run(std::future::pending::<()>()).map(drop);
        }
        drop(stop);
        let figures = host.shutdown();
        files.shutdown_timeout(END_TIMEOUT);
        serve::report(&figures, json);
        result
    }
}

/// The clock of the stack.
#[derive(Clone)]
struct StackTimer(Stack);

impl Timer for StackTimer {
    type Sleep = Sleep<Local>;

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time.into())
    }
}

/// What all connections have in common.
#[derive(Clone)]
struct Serving {
    service: SiteService,
    tls: Option<Arc<TlsAcceptor>>,
    stopping: watch::Receiver<()>,
    timer: StackTimer,
    spawner: Spawner,
}

impl Serving {
    /// Takes connections while there is room for them; others wait in the queue of the stack.
    async fn accept(self, listener: TcpListener, connections_max: usize) {
        let room = Arc::new(Semaphore::new(connections_max));
        let mut stopping = self.stopping.clone();
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.changed() => return,
            };
            // The one error of a listener is that there is no stack any more.
            let Ok((stream, peer)) = accepted else { return };
            let serving = self.clone();
            self.spawner.spawn(async move {
                serving.serve(stream, peer).await;
                drop(place);
            });
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let Self { service, tls, mut stopping, timer, .. } = self;
        // What is written is a whole answer.
        let _ = stream.set_nodelay(true);
        let stop = async move {
            let _ = stopping.changed().await;
        };
        let stream = Kept::new(stream);
        let kept = stream.share();
        let ended = tls::serve(tls.as_deref(), stream, peer, service, timer.clone(), stop).await;
        if ended == Ended::Closed {
            kept.linger(&timer).await;
        }
        log::debug!("{peer}: {ended:?}");
    }
}

/// How long a file that is being read may take.
const END_TIMEOUT: Duration = Duration::from_millis(500);
