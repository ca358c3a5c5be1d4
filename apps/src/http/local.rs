//! `wirestack http --api local`: hyper on the thread of the stack, without locks.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use wirestack::api::{Local, Sleep};
use wirestack::local::Stack;
use wirestack::nic::Nic;

use super::server::Timer;
use super::serving::Server;
use crate::cli::HttpArgs;
use crate::error::AppError;
use crate::local::{LocalHost, Published};
use crate::serve;
use crate::setup::{NicProgram, Prepared};

/// Checks everything that a person can have got wrong.
///
/// # Errors
/// The directory, a file of TLS, flags that do not go together. One line.
pub(super) fn new(args: &HttpArgs) -> Result<Server<Arc<Published>>, AppError> {
    args.run.check_local()?;
    Server::new(args, |published: &Arc<Published>| published.report())
}

impl NicProgram for Server<Arc<Published>> {
    fn run<N: Nic + Send + 'static>(mut self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let json = prepared.json;
        let mut host = LocalHost::open(nics, prepared, "http", &self.tcp, &self.run)?;
        let _ = self.reporter.set(host.published());
        // Files are read on its threads; nothing else needs it.
        let files = Builder::new_multi_thread().worker_threads(1).build().map_err(AppError::running)?;
        let _entered = files.enter();
        let listener = self.listen(host.stack())?;
        let (stop, stopping) = watch::channel(());
        let mut result = Ok(());
        if let Some(addresses) = host.wait_for_addresses()? {
            let serving = self.serving(&addresses, stopping, StackTimer(host.stack().clone()))?;
            let (places, spawner) = (self.places(), host.spawner().clone());
            host.spawner().spawn(async move {
                let spawn = |stream, peer, place| spawner.spawn(serving.clone().serve(stream, peer, place));
                serving.accept(listener, places, spawn).await;
            });
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

/// How long a file that is being read may take.
const END_TIMEOUT: Duration = Duration::from_millis(500);
