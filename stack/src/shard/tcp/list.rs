//! Connections and listeners for people, a bounded piece at a time: with a million connections, one look at all of them
//! would be a long pause for each of them.

use std::net::SocketAddr;

use serde::Serialize;

use crate::shard::{Shard, SocketId};
use crate::tcp::TcpInfo;

/// A connection, as people see it.
#[derive(Debug, Clone)]
pub struct TcpConnection {
    /// Whose it is. `None`: it waits to be accepted, or its application has closed it.
    pub socket: Option<SocketId>,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// It waits at a listener to be accepted.
    pub is_waiting: bool,
    /// What it knows of itself.
    pub info: TcpInfo,
}

/// A piece of the list of all connections.
#[derive(Debug, Clone, Default)]
pub struct TcpConnections {
    /// In no order that means something.
    pub connections: Vec<TcpConnection>,
    /// Where the next piece begins. `None`: this was the last.
    pub next: Option<u32>,
}

/// A listener, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TcpListener {
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections that wait to be accepted.
    pub waiting: usize,
    /// How many may, plus one as on Linux.
    pub backlog: usize,
    /// Connections to it whose handshake is not done.
    pub half_open: usize,
}

impl Shard {
    /// Connections, from a place in their table on: at first 0, then what the last call has returned as
    /// [`next`](TcpConnections::next). It looks at `places_max` places at most (at least one), be they free or taken, so
    /// a piece may be empty without being the last.
    ///
    /// A connection that exists during all calls is in exactly one piece; those that come and go meanwhile may be
    /// missing.
    pub fn tcp_connections(&self, first: u32, places_max: u32) -> TcpConnections {
        let table = &self.tcp.connections;
        let len = u32::try_from(table.capacity()).unwrap_or(u32::MAX);
        let end = first.saturating_add(places_max.max(1)).min(len);
        let listed = (first..end).filter_map(|index| {
            let connection = table.get(index as usize)?;
            Some(TcpConnection {
                socket: connection.socket,
                local: connection.tcb.local(),
                remote: connection.tcb.remote(),
                is_waiting: connection.listener.is_some(),
                info: connection.tcb.info(self.now),
            })
        });
        TcpConnections { connections: listed.collect(), next: (end < len).then_some(end) }
    }

    /// Connections that exist, those included that their application has closed and that are not done yet.
    pub fn tcp_connections_len(&self) -> usize {
        self.tcp.connections.len()
    }

    /// Listeners, at most so many, in the order of their addresses if that is all of them.
    pub fn tcp_listeners(&self, len_max: usize) -> Vec<TcpListener> {
        let listed = self.tcp.listeners.values().take(len_max).map(|listening| TcpListener {
            local: listening.listener.local,
            waiting: listening.listener.waiting(),
            backlog: listening.listener.backlog,
            half_open: listening.listener.half_open,
        });
        let mut listeners: Vec<_> = listed.collect();
        listeners.sort_unstable_by_key(|listener| listener.local);
        listeners
    }

    /// Bytes of send and receive buffers in use, and how many there may be.
    pub fn tcp_pool_bytes(&self) -> (usize, usize) {
        (self.tcp.pool.in_use_bytes(), self.tcp.pool.bytes_max())
    }
}
