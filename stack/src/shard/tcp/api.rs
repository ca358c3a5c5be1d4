//! What an application does with connections.

use std::net::SocketAddr;

use super::super::{Shard, SocketId};
use crate::tcp::{ConnectError, Failure, ListenError, RecvError, SendError, TcpCounters, TcpInfo, TcpOptions};

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TcpListen {
    /// Address and port. An unspecified address is all of the family, and `[::]` those of IPv4 too unless `v6_only`;
    /// port 0 is one that is chosen.
    pub local: SocketAddr,
    /// `[::]` means IPv6 only.
    pub v6_only: bool,
    /// How many connections may wait to be accepted; one more than this, as on Linux.
    pub backlog: usize,
    /// What finds no room is reset, not left to be tried again.
    pub resets_on_overflow: bool,
    /// Manners of what is accepted.
    pub options: TcpOptions,
}

/// Where to connect to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TcpConnect {
    /// The peer.
    pub remote: SocketAddr,
    /// From where: an unspecified address or port 0 are chosen. `None`: both are.
    pub local: Option<SocketAddr>,
    /// Manners.
    pub options: TcpOptions,
}

/// What can be done with a socket now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// There is data, or the end of it; or a connection to accept; or a failure to be told.
    pub readable: bool,
    /// There is room for data; or the connection has failed, and writing would tell it.
    pub writable: bool,
    /// The handshake is done (and the connection has not failed).
    pub connected: bool,
    /// The peer has finished sending. What it has sent may still be there to be read.
    pub peer_finished: bool,
    /// The connection has failed, or everything is sent and received in both directions.
    pub closed: bool,
}

impl Shard {
    /// Listens.
    ///
    /// # Errors
    /// The address is not ours, the port is in use, or there is no room.
    pub fn tcp_listen(&mut self, _listen: TcpListen) -> Result<SocketId, ListenError> {
        todo!("core")
    }

    /// Takes the connection that has waited longest at a listener. `None`: none waits.
    pub fn tcp_accept(&mut self, _listener: SocketId) -> Option<SocketId> {
        todo!("core")
    }

    /// Begins a connection. An event comes when it is there or has failed; what is written before that waits.
    ///
    /// # Errors
    /// There is no way, no port or no room.
    pub fn tcp_connect(&mut self, _connect: TcpConnect) -> Result<SocketId, ConnectError> {
        todo!("core")
    }

    /// Sends as much of `data` as there is room for, and returns how much that was. 0: none now; an event comes when
    /// there is.
    ///
    /// # Errors
    /// This end is finished, or the connection is no more.
    pub fn tcp_send(&mut self, _id: SocketId, _data: &[u8]) -> Result<usize, SendError> {
        todo!("core")
    }

    /// Lends room in the send buffer to `write`, which returns how much it has written. 0: there is no room now.
    ///
    /// # Errors
    /// As [`tcp_send`](Self::tcp_send).
    pub fn tcp_send_with(
        &mut self,
        _id: SocketId,
        _write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize, SendError> {
        todo!("core")
    }

    /// Sends a buffer as it is: it is copied once, into the device.
    ///
    /// # Errors
    /// There is no room now (`Ok(Some(data))`), or as [`tcp_send`](Self::tcp_send).
    pub fn tcp_send_owned(&mut self, _id: SocketId, _data: Vec<u8>) -> Result<Option<Vec<u8>>, SendError> {
        todo!("core")
    }

    /// Copies what has come. `Some(0)`: the peer has finished, and everything was read. `None`: nothing now.
    ///
    /// # Errors
    /// The connection is no more.
    pub fn tcp_recv(&mut self, _id: SocketId, _room: &mut [u8]) -> Result<Option<usize>, RecvError> {
        todo!("core")
    }

    /// As [`tcp_recv`](Self::tcp_recv), and everything stays.
    ///
    /// # Errors
    /// The connection is no more.
    pub fn tcp_peek(&mut self, _id: SocketId, _room: &mut [u8]) -> Result<Option<usize>, RecvError> {
        todo!("core")
    }

    /// Lends a piece of what has come, in order; `read` says how much of it is done with. It is empty at the end of
    /// what the peer sends. `None`: nothing now.
    ///
    /// # Errors
    /// The connection is no more.
    pub fn tcp_recv_with<R>(
        &mut self,
        _id: SocketId,
        _read: impl FnOnce(&[u8]) -> (usize, R),
    ) -> Result<Option<R>, RecvError> {
        todo!("core")
    }

    /// Finishes sending: FIN, behind what was written. Receiving goes on.
    pub fn tcp_finish(&mut self, _id: SocketId) {
        todo!("core")
    }

    /// Ends a connection with a reset. The handle stays until [`close`](Self::close).
    pub fn tcp_abort(&mut self, _id: SocketId) {
        todo!("core")
    }

    /// What can be done with a socket.
    pub fn tcp_readiness(&self, _id: SocketId) -> Readiness {
        todo!("core")
    }

    /// Bytes that can be read.
    pub fn tcp_readable(&self, _id: SocketId) -> usize {
        todo!("core")
    }

    /// Bytes that can be written.
    pub fn tcp_room(&self, _id: SocketId) -> usize {
        todo!("core")
    }

    /// Why a connection is no more.
    pub fn tcp_failure(&self, _id: SocketId) -> Option<Failure> {
        todo!("core")
    }

    /// Something that the network has said and that did not end the connection (RFC 1122 section 4.2.3.9), told once.
    pub fn tcp_take_soft_error(&mut self, _id: SocketId) -> Option<Failure> {
        todo!("core")
    }

    /// Our end, and that of the peer: `None` of a listener.
    pub fn tcp_ends(&self, _id: SocketId) -> Option<(SocketAddr, Option<SocketAddr>)> {
        todo!("core")
    }

    /// The options.
    pub fn tcp_options(&self, _id: SocketId) -> Option<TcpOptions> {
        todo!("core")
    }

    /// Other manners from now on; what a handshake settles stays as it is.
    pub fn tcp_set_options(&mut self, _id: SocketId, _options: TcpOptions) {
        todo!("core")
    }

    /// What the connection knows of itself and of its path.
    pub fn tcp_info(&self, _id: SocketId) -> Option<TcpInfo> {
        todo!("core")
    }

    /// What was counted, all connections together.
    pub fn tcp_counters(&self) -> TcpCounters {
        todo!("core")
    }
}
