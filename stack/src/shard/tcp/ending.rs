//! The end of all connections at once.

use crate::shard::sockets::AnySocket;
use crate::shard::{Shard, SocketId};
use crate::tcp::state::State;

impl Shard {
    /// Accepts nobody any more and finishes sending on every connection: FIN, behind what was written. Returns the
    /// connections. It walks all of them.
    pub(crate) fn tcp_finish_all(&mut self) -> Vec<u32> {
        let is_listener =
            |(id, socket): (SocketId, &AnySocket)| matches!(socket, AnySocket::TcpListener(_)).then_some(id);
        let listeners: Vec<_> = self.sockets.iter().filter_map(is_listener).collect();
        listeners.into_iter().for_each(|id| self.close(id));
        let all = self.connections();
        for &index in &all {
            if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
                connection.tcb.finish();
                self.touch_connection(index);
            }
        }
        all
    }

    /// Whether a connection has nothing left to say.
    pub(crate) fn is_connection_quiet(&self, index: u32) -> bool {
        let connection = self.tcp.connections.get(index as usize);
        connection.is_none_or(|connection| matches!(connection.tcb.state, State::Closed | State::FinWait2))
    }

    /// Connections that are not over. It walks all of them.
    pub(crate) fn tcp_unfinished(&self) -> Vec<u32> {
        self.connections().into_iter().filter(|&index| !self.is_connection_over(index)).collect()
    }

    /// Whether a connection is over at both ends.
    pub(crate) fn is_connection_over(&self, index: u32) -> bool {
        let connection = self.tcp.connections.get(index as usize);
        connection.is_none_or(|connection| connection.tcb.state == State::Closed)
    }

    /// Whether the peer has acknowledged everything, our FIN included; or there is no connection any more.
    pub(crate) fn is_all_acked(&self, id: SocketId) -> bool {
        match self.sockets.get(id) {
            Some(&AnySocket::Tcp(index)) => self.is_connection_quiet(index),
            _ => true,
        }
    }

    /// Resets every connection that is left. It walks all of them.
    pub(crate) fn tcp_abort_all(&mut self) {
        self.connections().into_iter().for_each(|index| self.abort_connection(index));
    }

    fn connections(&self) -> Vec<u32> {
        self.tcp.connections.iter().map(|(index, _)| index as u32).collect()
    }
}
