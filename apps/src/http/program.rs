//! `wirestack http` on hyper: the stack on threads of its own, connections as tasks of tokio.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use wirestack::nic::Nic;

use super::server::TokioTimer;
use super::serving::Server;
use crate::cli::HttpArgs;
use crate::error::AppError;
use crate::host::{Host, Reporter};
use crate::report::Request;
use crate::serve;
use crate::setup::{NicProgram, Prepared};

/// Checks everything that a person can have got wrong.
///
/// # Errors
/// The directory, a file of TLS, flags that do not go together. One line.
pub(super) fn new(args: &HttpArgs) -> Result<Server<Reporter>, AppError> {
    args.run.check(&args.tcp)?;
    Server::new(args, |reporter: &Reporter| reporter.report(Request::default()))
}

impl NicProgram for Server<Reporter> {
    fn shards(&self) -> usize {
        self.run.shards()
    }

    fn run<N: Nic + Send + 'static>(mut self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let json = prepared.json;
        let host = Host::launch(nics, prepared, "http", &self.tcp, &self.run)?;
        let _ = self.reporter.set(host.reporter().clone());
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(AppError::running)?;
        let listener = self.listen(host.stack())?;
        let (stop, stopping) = watch::channel(());
        if let Some(addresses) = host.wait_for_addresses()? {
            let serving = self.serving(&addresses, stopping, TokioTimer)?;
            let places = self.places();
            runtime.spawn(async move {
                let spawn = |stream, peer, place| {
                    tokio::spawn(serving.clone().serve(stream, peer, place));
                };
                serving.accept(listener, places, spawn).await;
            });
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

/// How long tasks get to see that their connections have ended.
const END_TIMEOUT: Duration = Duration::from_millis(500);
