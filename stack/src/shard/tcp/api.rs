//! What an application does with connections.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::shard::sockets::AnySocket;
use crate::shard::{Shard, SocketId};
use crate::tcp::state::State;
use crate::tcp::tcb::{Cx, Tcb};
use crate::tcp::{Failure, RecvError, SendError, TcpCounters, TcpInfo, TcpOptions};

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
    fn connection_of(&self, id: SocketId) -> Option<u32> {
        match self.sockets.get(id)? {
            AnySocket::Tcp(index) => Some(*index),
            _ => None,
        }
    }

    fn tcb_of(&self, id: SocketId) -> Option<&Tcb> {
        let index = self.connection_of(id)?;
        self.tcp.connections.get(index as usize).map(|connection| &connection.tcb)
    }

    /// Sends as much of `data` as there is room for, and returns how much that was. 0: none now; an event comes when
    /// there is.
    ///
    /// # Errors
    /// This end is finished, or the connection is no more.
    pub fn tcp_send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, SendError> {
        self.write(id, |tcb, cx| {
            let written = tcb.send.write(cx.pool, data, tcb.send_limit as usize);
            ((written < data.len()).then_some(1), written)
        })
    }

    /// Lends room in the send buffer to `write`, which returns how much it has written. 0: there is no room now.
    ///
    /// # Errors
    /// As [`tcp_send`](Self::tcp_send).
    pub fn tcp_send_with(
        &mut self,
        id: SocketId,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize, SendError> {
        self.write(id, |tcb, cx| {
            let mut was_asked = false;
            let written = tcb.send.write_with(cx.pool, tcb.send_limit as usize, |room| {
                was_asked = true;
                write(room)
            });
            ((!was_asked).then_some(1), written)
        })
    }

    /// Sends a buffer as it is: it is copied once, into the device. `Some`: there is no room for it now, and here it is
    /// again.
    ///
    /// # Errors
    /// As [`tcp_send`](Self::tcp_send).
    pub fn tcp_send_owned(&mut self, id: SocketId, data: Vec<u8>) -> Result<Option<Vec<u8>>, SendError> {
        self.write(id, |tcb, cx| {
            let refused = tcb.send.push_owned(cx.pool, data, tcb.send_limit as usize).err();
            (refused.as_ref().map(Vec::len), refused)
        })
    }

    /// Lets `f` fill the send buffer; it tells how many bytes more it would have taken at least, if it found no room.
    fn write<R>(
        &mut self,
        id: SocketId,
        f: impl FnOnce(&mut Tcb, &mut Cx<'_>) -> (Option<usize>, R),
    ) -> Result<R, SendError> {
        let index = self.connection_of(id).ok_or(SendError::Closed)?;
        let (connection, mut cx) = self.tcp.with_cx(index, self.now).ok_or(SendError::Closed)?;
        let tcb = &mut connection.tcb;
        if let Some(failure) = tcb.failure {
            return Err(failure.into());
        }
        if !tcb.state.sends() || tcb.wants_finish {
            return Err(SendError::ShutDown);
        }
        let (wanted, result) = f(tcb, &mut cx);
        if let Some(wanted) = wanted
            && !tcb.wants_room
        {
            tcb.wants_room = true;
            if tcb.room() >= wanted {
                // Not its own limit is in the way, but that of all.
                self.tcp.starved_at = self.tcp.pool.in_use_bytes();
                self.tcp.starved.push_back(index);
            }
        }
        // Timers stay as they are until it is sent.
        self.tcp.queue(index);
        Ok(result)
    }

    /// Copies what has come. `Some(0)`: the peer has finished, and everything was read (or `room` is empty). `None`:
    /// nothing now.
    ///
    /// # Errors
    /// The connection is no more.
    pub fn tcp_recv(&mut self, id: SocketId, room: &mut [u8]) -> Result<Option<usize>, RecvError> {
        self.read(id, |tcb, cx| {
            let len = tcb.recv.read(cx.pool, room);
            (len, len)
        })
        .map(|read| read.map(Option::unwrap_or_default))
    }

    /// As [`tcp_recv`](Self::tcp_recv), and everything stays.
    ///
    /// # Errors
    /// The connection is no more.
    pub fn tcp_peek(&mut self, id: SocketId, room: &mut [u8]) -> Result<Option<usize>, RecvError> {
        self.read(id, |tcb, _| (0, tcb.recv.peek(room))).map(|read| read.map(Option::unwrap_or_default))
    }

    /// Lends a piece of what has come, in order; `read` says how much of it is done with. It is empty at the end of
    /// what the peer sends. `None`: nothing now.
    ///
    /// # Errors
    /// The connection is no more.
    pub fn tcp_recv_with<R>(
        &mut self,
        id: SocketId,
        read: impl FnOnce(&[u8]) -> (usize, R),
    ) -> Result<Option<R>, RecvError> {
        let mut reader = Some(read);
        let taken = self.read(id, |tcb, cx| {
            let mut taken = 0;
            let result = reader.take().map(|read| {
                tcb.recv.read_with(cx.pool, |piece| {
                    let (len, result) = read(piece);
                    taken = len.min(piece.len());
                    (taken, result)
                })
            });
            (taken, result)
        })?;
        // At the end of the stream the closure has not been called.
        Ok(taken.and_then(|result| result.flatten().or_else(|| reader.take().map(|read| read(&[]).1))))
    }

    /// `Some(None)`: the end of the stream. `None`: nothing now. `f` says how much was taken.
    fn read<R>(
        &mut self,
        id: SocketId,
        f: impl FnOnce(&mut Tcb, &mut Cx<'_>) -> (usize, R),
    ) -> Result<Option<Option<R>>, RecvError> {
        let index = self.connection_of(id).ok_or(RecvError::Closed)?;
        let (connection, mut cx) = self.tcp.with_cx(index, self.now).ok_or(RecvError::Closed)?;
        let tcb = &mut connection.tcb;
        if tcb.recv.readable() == 0 {
            return match tcb.failure {
                Some(failure) => Err(failure.into()),
                None if tcb.has_peer_finished() || tcb.state == State::Closed => Ok(Some(None)),
                None => Ok(None),
            };
        }
        let (taken, result) = f(tcb, &mut cx);
        if taken > 0 {
            tcb.on_read(&mut cx, taken);
            // All that reading can make due is an ACK that tells of the room.
            if tcb.ack.is_due {
                self.tcp.queue(index);
            }
        }
        Ok(Some(Some(result)))
    }

    /// What can be done with a socket.
    pub fn tcp_readiness(&self, id: SocketId) -> Readiness {
        if let Some(AnySocket::TcpListener(number)) = self.sockets.get(id) {
            let waits =
                self.tcp.listeners.get(number).is_some_and(|listening| listening.listener.waiting() > 0);
            return Readiness { readable: waits, ..Readiness::default() };
        }
        let Some(tcb) = self.tcb_of(id) else { return Readiness { closed: true, ..Readiness::default() } };
        let (has_failed, is_over) = (tcb.failure.is_some(), tcb.state == State::Closed);
        let peer_finished = tcb.has_peer_finished();
        Readiness {
            readable: tcb.recv.readable() > 0 || peer_finished || is_over,
            writable: has_failed || tcb.room() > 0,
            connected: !has_failed && !matches!(tcb.state, State::SynSent | State::SynReceived),
            peer_finished,
            closed: is_over,
        }
    }

    /// Bytes that can be read.
    pub fn tcp_readable(&self, id: SocketId) -> usize {
        self.tcb_of(id).map_or(0, |tcb| tcb.recv.readable())
    }

    /// Bytes that can be written.
    pub fn tcp_room(&self, id: SocketId) -> usize {
        self.tcb_of(id).map_or(0, Tcb::room)
    }

    /// Why a connection is no more.
    pub fn tcp_failure(&self, id: SocketId) -> Option<Failure> {
        self.tcb_of(id)?.failure
    }

    /// Something that the network has said and that did not end the connection (RFC 1122 section 4.2.3.9), told once.
    pub fn tcp_take_soft_error(&mut self, id: SocketId) -> Option<Failure> {
        let index = self.connection_of(id)?;
        self.tcp.connections.get_mut(index as usize)?.tcb.soft_error.take()
    }

    /// Our end, and that of the peer: `None` of a listener.
    pub fn tcp_ends(&self, id: SocketId) -> Option<(SocketAddr, Option<SocketAddr>)> {
        if let Some(AnySocket::TcpListener(number)) = self.sockets.get(id) {
            return self.tcp.listeners.get(number).map(|listening| (listening.listener.local, None));
        }
        self.tcb_of(id).map(|tcb| (tcb.local(), Some(tcb.remote())))
    }

    /// The options.
    pub fn tcp_options(&self, id: SocketId) -> Option<TcpOptions> {
        if let Some(AnySocket::TcpListener(number)) = self.sockets.get(id) {
            return self.tcp.listeners.get(number).map(|listening| *listening.options);
        }
        self.tcb_of(id).map(|tcb| *tcb.options)
    }

    /// The options of who says nothing else, as configured.
    pub fn tcp_default_options(&self) -> TcpOptions {
        self.tcp.config.options
    }

    /// Other manners from now on; what a handshake settles stays as it is.
    pub fn tcp_set_options(&mut self, id: SocketId, options: TcpOptions) {
        let (now, options) = (self.now, options.within_bounds());
        if let Some(&AnySocket::TcpListener(number)) = self.sockets.get(id) {
            if let Some(listening) = self.tcp.listeners.get_mut(&number) {
                listening.options = Arc::new(options);
                listening.listener.options = options;
            }
            return;
        }
        let Some(index) = self.connection_of(id) else { return };
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return };
        connection.tcb.set_options(now, options);
        self.touch_connection(index);
    }

    /// What the connection knows of itself and of its path.
    pub fn tcp_info(&self, id: SocketId) -> Option<TcpInfo> {
        self.tcb_of(id).map(|tcb| tcb.info(self.now))
    }

    /// What was counted, all connections together.
    pub fn tcp_counters(&self) -> TcpCounters {
        self.tcp.counters
    }
}
