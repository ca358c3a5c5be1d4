//! TCP of smoltcp's, over a shard.

use smoltcp::time::Instant;
use wirestack::backend::smoltcp::{Host, Over};
use wirestack::nic::{LinkError, Nic, wait};
use wirestack::shard::Shard;

use super::Engine;
use crate::cli::TcpArgs;
use crate::error::AppError;
use crate::net::Net;
use crate::serve::{Figures, Service};
use crate::stream::OnSmoltcp;

/// Makes the host of a checked configuration, with a service on it.
///
/// # Errors
/// A port that cannot be had, a flag that this engine does not know. One line.
pub(super) fn open<'a, N: Nic>(
    nic: N,
    mut net: Net<'a>,
    service: &impl Service,
    tcp: &TcpArgs,
) -> Result<Host<'a, Over<'a, N>>, AppError> {
    tcp.check()?;
    net.host.sockets_max = tcp.connections_max.unwrap_or(net.host.sockets_max);
    // `setup` has checked it before it opened the device; these are the same checks.
    let mut shard = Shard::new(net.shard, wait::now()).map_err(AppError::usage)?;
    net.wanted.conflicts.watch(&mut shard);
    let in_turn = service.in_turn(&mut shard)?;
    let mut host = Host::over(Over::new(nic, shard, in_turn), net.host).map_err(AppError::usage)?;
    for mut listening in service.listeners() {
        let port = listening.port;
        host.listen(port, move |peer| OnSmoltcp((listening.accept)(peer)))
            .map_err(|error| AppError::flag("--port", port, error))?;
    }
    Ok(host)
}

impl<N: Nic> Engine for Host<'_, Over<'_, N>> {
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        Host::turn(self, now)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), LinkError> {
        self.nic().wait(deadline).map(drop)
    }

    fn shard(&mut self) -> &mut Shard {
        self.nic().shard()
    }

    fn follow_addresses(&mut self) -> bool {
        Host::follow_addresses(self)
    }

    fn close(&mut self) {
        Host::close(self);
    }

    fn is_quiet(&mut self) -> bool {
        Host::is_quiet(self)
    }

    fn abort(&mut self) {
        Host::abort(self);
    }

    fn figures(&mut self) -> Figures {
        let (program, connections) = (self.stats().named().collect(), self.connections_len());
        let counters = self.nic().counters();
        let shard = self.nic().shard();
        let (drops, shard) = (shard.drops().clone(), shard.counters());
        Figures { program, tcp: None, shard, drops, counters, connections }
    }
}
