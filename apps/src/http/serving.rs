//! What the servers on hyper have in common, on whichever threads they are: how they begin, and how a connection is
//! served.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use futures_util::future::select;
use tokio::sync::watch;
use wirestack::api::{Access, ListenOptions, Stack, TcpListener, TcpStream};

use super::linger::linger;
use super::server::{Ended, Timer};
use super::service::{self, SiteConfig, SiteService};
use super::status::StatusSource;
use super::tls::{self, Tls, TlsAcceptor};
use crate::accept::{Place, Places, accept};
use crate::cli::{HttpArgs, TcpArgs};
use crate::error::AppError;
use crate::host::RunArgs;
use crate::report::Report;
use crate::serve::print_error;

/// The server, before it has a device. `R` reports about the stack, for the page of the status.
pub(super) struct Server<R> {
    pub(super) port: u16,
    pub(super) service: SiteService,
    pub(super) tls: Option<Tls>,
    pub(super) tcp: TcpArgs,
    pub(super) run: RunArgs,
    /// Filled in when the stack runs.
    pub(super) reporter: Arc<OnceLock<R>>,
}

impl<R: Send + Sync + 'static> Server<R> {
    /// Checks everything that a person can have got wrong.
    ///
    /// # Errors
    /// The directory, a file of TLS, flags that do not go together. One line.
    pub(super) fn new(args: &HttpArgs, report: fn(&R) -> Report) -> Result<Self, AppError> {
        args.tcp.check()?;
        let reporter = Arc::<OnceLock<R>>::default();
        let asked = Arc::clone(&reporter);
        let status: StatusSource = Arc::new(move || {
            asked.get().and_then(|reporter| serde_json::to_value(report(reporter)).ok()).unwrap_or_default()
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

    /// Listens on the port, on all addresses of both IP versions.
    ///
    /// # Errors
    /// The port cannot be had. One line.
    pub(super) fn listen<A: Access>(&self, stack: &Stack<A>) -> Result<TcpListener<A>, AppError> {
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port);
        let options = ListenOptions { backlog: Some(self.tcp.backlog().into()), ..ListenOptions::default() };
        stack.listen_with(local, options).map_err(|error| AppError::flag("--port", self.port, error))
    }

    /// What connections are served with, now that our addresses are known: a client sees them in the certificate.
    ///
    /// # Errors
    /// TLS does not take the key. One line.
    pub(super) fn serving<T>(
        &mut self,
        addresses: &[IpAddr],
        stopping: watch::Receiver<()>,
        timer: T,
    ) -> Result<Serving<T>, AppError> {
        let acceptor = self.tls.take().map(|tls| tls.acceptor(addresses)).transpose()?;
        if let Some(TlsAcceptor { fingerprint, is_self_signed, .. }) = &acceptor {
            let kind = if *is_self_signed { "self-signed certificate" } else { "certificate" };
            print_error(format_args!("wirestack: {kind}, SHA-256 {fingerprint}"));
        }
        Ok(Serving { service: self.service.clone(), tls: acceptor.map(Arc::new), stopping, timer })
    }

    /// Places for connections.
    pub(super) fn places(&self) -> Places {
        Places::new(self.tcp.connections_max())
    }
}

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Serving<T> {
    service: SiteService,
    tls: Option<Arc<TlsAcceptor>>,
    stopping: watch::Receiver<()>,
    timer: T,
}

impl<T: Timer> Serving<T> {
    /// Takes connections until it is told to stop; the listener goes with it.
    pub(super) async fn accept<A: Access>(
        &self,
        listener: TcpListener<A>,
        places: Places,
        spawn: impl Fn(TcpStream<A>, SocketAddr, Place),
    ) {
        let mut stopping = self.stopping.clone();
        let accepting = std::pin::pin!(accept(listener, places, spawn));
        select(accepting, std::pin::pin!(stopping.changed())).await;
    }

    /// Serves a connection to its end.
    pub(super) async fn serve<A: Access>(self, stream: TcpStream<A>, peer: SocketAddr, _place: Place) {
        let Self { service, tls, mut stopping, timer } = self;
        // What is written is a whole answer.
        let _ = stream.set_nodelay(true);
        let stop = async move {
            let _ = stopping.changed().await;
        };
        // hyper drops its handle when it is done.
        let kept = stream.share();
        let ended = tls::serve(tls.as_deref(), stream, peer, service, timer.clone(), stop).await;
        if ended == Ended::Closed {
            linger(kept, &timer).await;
        }
        log::debug!("{peer}: {ended:?}");
    }
}
