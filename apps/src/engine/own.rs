//! TCP of the stack's own: a shard, its device, and the connections of a program.

use smoltcp::time::Instant;
use wirestack::IpCidr;
use wirestack::ip::Address;
use wirestack::nic::{LinkError, Nic, wait};
use wirestack::shard::{Command, Shard};

use super::connections::Connections;
use super::{Engine, InTurn};
use crate::cli::TcpArgs;
use crate::error::AppError;
use crate::net::Net;
use crate::policy;
use crate::serve::{Figures, Service};

/// A shard and its device, with a service on it.
pub(super) struct Own<N> {
    shard: Shard,
    nic: N,
    in_turn: InTurn,
    connections: Connections,
    /// Those that could be used when this was asked last.
    addresses: Vec<IpCidr>,
    /// What the shard was told of the link.
    is_up: bool,
}

impl<N: Nic> Own<N> {
    /// Makes the shard of a checked configuration, with a service on it.
    ///
    /// # Errors
    /// A port that cannot be had. One line.
    pub(super) fn new(nic: N, net: Net<'_>, service: &impl Service, tcp: &TcpArgs) -> Result<Self, AppError> {
        let mut config = net.shard;
        let connections_max = tcp.connections_max.unwrap_or(CONNECTIONS_MAX);
        let listeners = service.listeners();
        let spare = SOCKETS_SPARE + listeners.len() * (usize::from(tcp.backlog()) + 1);
        // What waits to be accepted is a connection too, and what has ended here may not have ended there.
        config.tcp.connections_max = config.tcp.connections_max.max(2 * connections_max + spare);
        config.sockets_max = config.sockets_max.max(connections_max + spare);
        config.tcp.options = super::options(tcp.congestion());
        // `setup` has checked it before it opened the device; these are the same checks.
        let mut shard = Shard::new(config, wait::now()).map_err(AppError::usage)?;
        net.wanted.conflicts.watch(&mut shard);
        policy::install(&mut shard, tcp);
        let in_turn = service.in_turn(&mut shard)?;
        let mut connections = Connections::new(connections_max, wait::now());
        for listening in listeners {
            let port = listening.port;
            connections
                .listen(&mut shard, listening, tcp)
                .map_err(|error| AppError::flag("--port", port, error))?;
        }
        Ok(Self { shard, nic, in_turn, connections, addresses: Vec::new(), is_up: true })
    }
}

impl<N: Nic> Engine for Own<N> {
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        let Self { shard, nic, in_turn, connections, .. } = self;
        let due = shard.turn(now, nic, |shard| {
            in_turn(shard);
            connections.serve(shard);
        });
        [due, connections.next_deadline(shard.now())].into_iter().flatten().min()
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), LinkError> {
        let waited = self.nic.wait(deadline);
        let is_up = match waited {
            Ok(_) => true,
            Err(LinkError::Down) => false,
            Err(error) => return Err(error),
        };
        if is_up != self.is_up && self.shard.push_command(Command::LinkChanged(is_up)).is_ok() {
            self.is_up = is_up;
        }
        waited.map(drop)
    }

    fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    fn follow_addresses(&mut self) -> bool {
        let is_usable = |address: &&Address| address.is_usable();
        let usable = || self.shard.addresses().filter(is_usable).map(|address| address.cidr);
        if usable().eq(self.addresses.iter().copied()) {
            return false;
        }
        let addresses = usable().collect();
        self.addresses = addresses;
        true
    }

    fn close(&mut self) {
        self.connections.close(&mut self.shard);
    }

    fn is_quiet(&mut self) -> bool {
        self.connections.is_quiet(&self.shard)
    }

    fn abort(&mut self) {
        self.connections.abort(&mut self.shard);
    }

    fn figures(&mut self) -> Figures {
        Figures {
            program: self.connections.named().to_vec(),
            tcp: Some(self.shard.tcp_counters()),
            shard: self.shard.counters(),
            drops: self.shard.drops().clone(),
            counters: self.nic.counters(),
            connections: self.connections.len(),
        }
    }
}

/// Connections that a program serves at a time, unless a flag says otherwise.
const CONNECTIONS_MAX: usize = 10_000;
/// Sockets beside the connections: datagrams, listeners.
const SOCKETS_SPARE: usize = 64;
