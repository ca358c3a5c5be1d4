//! `wirestack http` on hyper: the stack on threads of its own, connections as tasks of tokio.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use wirestack::api::ListenOptions;
use wirestack::nic::Nic;
use wirestack::tokio::{TcpListener, TcpStream};

use super::linger::Kept;
use super::server::{Ended, TokioTimer};
use super::service::{self, SiteConfig, SiteService};
use super::status::StatusSource;
use super::tls::{self, Tls, TlsAcceptor};
use crate::cli::{HttpArgs, TcpArgs};
use crate::error::AppError;
use crate::host::{Host, Reporter, RunArgs};
use crate::report;
use crate::serve::{self, print_error};
use crate::setup::{NicProgram, Prepared};

/// The server, before it has a device.
pub(super) struct Hyper {
    port: u16,
    service: SiteService,
    tls: Option<Tls>,
    tcp: TcpArgs,
    run: RunArgs,
    /// Filled in when the stack runs.
    reporter: Arc<OnceLock<Reporter>>,
}

impl Hyper {
    /// Checks everything that a person can have got wrong.
    ///
    /// # Errors
    /// The directory, a file of TLS, flags that do not go together. One line.
    pub(super) fn new(args: &HttpArgs) -> Result<Self, AppError> {
        args.tcp.check()?;
        args.run.check(&args.tcp)?;
        let reporter = Arc::<OnceLock<Reporter>>::default();
        let asked = Arc::clone(&reporter);
        let status: StatusSource = Arc::new(move || {
            let report = asked.get().map(|reporter| reporter.report(report::Request::default()));
            report.and_then(|report| serde_json::to_value(report).ok()).unwrap_or_default()
        });
        Ok(Self {
            port: args.port,
            service: service::service(&SiteConfig { dir: args.dir.clone() }, Some(status))?,
            tls: Tls::from_args(&args.tls)?,
            tcp: args.tcp.clone(),
            run: args.run.clone(),
            reporter,
        })
    }
}

impl NicProgram for Hyper {
    fn shards(&self) -> usize {
        self.run.shards()
    }

    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let json = prepared.json;
        let host = Host::launch(nics, prepared, "http", &self.tcp, &self.run)?;
        let _ = self.reporter.set(host.reporter().clone());
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(AppError::running)?;
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port);
        let options = ListenOptions { backlog: Some(self.tcp.backlog().into()), ..ListenOptions::default() };
        let listener = host.stack().listen_with(local, options);
        let listener = listener.map_err(|error| AppError::flag("--port", self.port, error))?;
        let (stop, stopping) = watch::channel(());
        if let Some(addresses) = host.wait_for_addresses()? {
            let tls = acceptor(self.tls, &addresses)?;
            let room = Arc::new(Semaphore::new(self.tcp.connections_max()));
            let serving = Serving { service: self.service, tls, stopping };
            runtime.spawn(accept(listener, serving, room));
            serve::say_ready("http", &addresses, self.port, json);
        }
        let result = host.wait(|_| {});
        // Whoever has a request in work finishes it; nobody else is accepted, for the listener goes with its task.
        drop(stop);
        let figures = host.shutdown();
        runtime.shutdown_timeout(END_TIMEOUT);
        serve::report(&figures, json);
        result
    }
}

/// What a client sees of us, once our addresses are known.
pub(super) fn acceptor(tls: Option<Tls>, addresses: &[IpAddr]) -> Result<Option<Arc<TlsAcceptor>>, AppError> {
    let acceptor = tls.map(|tls| tls.acceptor(addresses)).transpose()?;
    if let Some(TlsAcceptor { fingerprint, is_self_signed, .. }) = &acceptor {
        let kind = if *is_self_signed { "self-signed certificate" } else { "certificate" };
        print_error(format_args!("wirestack: {kind}, SHA-256 {fingerprint}"));
    }
    Ok(acceptor.map(Arc::new))
}

/// What all connections have in common.
#[derive(Clone)]
struct Serving {
    service: SiteService,
    tls: Option<Arc<TlsAcceptor>>,
    stopping: watch::Receiver<()>,
}

/// Takes connections while there is room for them; others wait in the queue of the stack.
async fn accept(listener: TcpListener, serving: Serving, room: Arc<Semaphore>) {
    let mut stopping = serving.stopping.clone();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return,
        };
        // The one error of a listener is that there is no stack any more.
        let Ok((stream, peer)) = accepted else { return };
        let serving = serving.clone();
        tokio::spawn(async move {
            serving.serve(stream, peer).await;
            drop(place);
        });
    }
}

impl Serving {
    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let Self { service, tls, mut stopping } = self;
        // What is written is a whole answer.
        let _ = stream.set_nodelay(true);
        let stop = async move {
            let _ = stopping.changed().await;
        };
        let stream = Kept::new(stream);
        let kept = stream.share();
        let ended = tls::serve(tls.as_deref(), stream, peer, service, TokioTimer, stop).await;
        if ended == Ended::Closed {
            kept.linger(&TokioTimer).await;
        }
        log::debug!("{peer}: {ended:?}");
    }
}

/// How long tasks get to see that their connections have ended.
const END_TIMEOUT: Duration = Duration::from_millis(500);
