//! What is done with connections.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};

use super::event::{ListenerId, TcpId, Token};
use super::registry::{Kind, Sockets};
use crate::shard::{TcpConnect, TcpListen};
use crate::tcp::{RecvError, TcpInfo, TcpOptions};

impl Sockets<'_> {
    /// Listens at this address, with the options of the configuration. An unspecified address is all of them, and `[::]` those of
    /// IPv4 too; port 0 is one that is chosen ([`local_addr`](Self::local_addr)).
    ///
    /// # Errors
    /// As std's `TcpListener::bind`.
    pub fn tcp_listen(&mut self, local: SocketAddr, token: Token) -> io::Result<ListenerId> {
        let options = self.shard.tcp_default_options();
        self.tcp_listen_with(TcpListen { options, ..TcpListen::new(local) }, token)
    }

    /// The same, with everything that can be said.
    ///
    /// # Errors
    /// As std's `TcpListener::bind`.
    pub fn tcp_listen_with(&mut self, listen: TcpListen, token: Token) -> io::Result<ListenerId> {
        self.check()?;
        let id = self.shard.tcp_listen(listen)?;
        self.put(id, Kind::Listener, token);
        Ok(ListenerId(id))
    }

    /// Takes the connection that has waited longest, and tells whose it is. It has the token of the listener until
    /// [`set_token`](Self::set_token) or [`register`](Self::register) says another one. `None`: none waits.
    pub fn accept(&mut self, listener: ListenerId) -> Option<(TcpId, SocketAddr)> {
        loop {
            let id = self.shard.tcp_accept(listener.0)?;
            let Some((_, Some(peer))) = self.shard.tcp_ends(id) else {
                // It has ended before it was accepted.
                self.shard.close(id);
                continue;
            };
            let token = self.token(listener).unwrap_or_default();
            self.put(id, Kind::Tcp, token);
            self.remember_accepted(TcpId(id));
            return Some((TcpId(id), peer));
        }
    }

    /// Begins a connection, with the options of the configuration. An event comes when it is there (`connected`) or has failed; what
    /// is written before that waits.
    ///
    /// # Errors
    /// There is no way, no port or no room.
    pub fn tcp_connect(&mut self, remote: SocketAddr, token: Token) -> io::Result<TcpId> {
        let options = self.shard.tcp_default_options();
        self.tcp_connect_with(TcpConnect { options, ..TcpConnect::new(remote) }, token)
    }

    /// The same, with everything that can be said.
    ///
    /// # Errors
    /// There is no way, no port or no room.
    pub fn tcp_connect_with(&mut self, connect: TcpConnect, token: Token) -> io::Result<TcpId> {
        self.check()?;
        let id = self.shard.tcp_connect(connect)?;
        self.put(id, Kind::Tcp, token);
        Ok(TcpId(id))
    }

    /// Lends a piece of what has come, where it lies, to `f`, which says how much of it is done with. It is empty at the end of
    /// what the peer sends. Nothing is copied.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): nothing has come, and an event comes when it has. Why the connection
    /// is no more; [`NetworkDown`](io::ErrorKind::NetworkDown): the interface has gone.
    #[inline]
    pub fn recv_with<R>(&mut self, tcp: TcpId, f: impl FnOnce(&[u8]) -> (usize, R)) -> io::Result<R> {
        let mut f = Some(f);
        let read = self.shard.tcp_recv_with(tcp.0, |piece| {
            let (len, result) = f.take().map_or((0, None), |f| {
                let (len, result) = f(piece);
                (len, Some(result))
            });
            (len, result)
        });
        match self.read(tcp, read.map(Option::flatten))? {
            Some(result) => Ok(result),
            None => f.take().map(|f| f(&[]).1).ok_or_else(|| io::ErrorKind::NotConnected.into()),
        }
    }

    /// Copies what has come; 0: the peer has finished (or `room` is empty).
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub fn recv(&mut self, tcp: TcpId, room: &mut [u8]) -> io::Result<usize> {
        let read = self.shard.tcp_recv(tcp.0, room);
        Ok(self.read(tcp, read)?.unwrap_or(0))
    }

    /// Copies what has come, and leaves it there.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub fn peek(&mut self, tcp: TcpId, room: &mut [u8]) -> io::Result<usize> {
        let read = self.shard.tcp_peek(tcp.0, room);
        Ok(self.read(tcp, read)?.unwrap_or(0))
    }

    /// Copies what has come into several pieces, one after the other.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub fn recv_vectored(&mut self, tcp: TcpId, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut received = 0;
        for piece in pieces.iter_mut().filter(|piece| !piece.is_empty()) {
            match self.recv(tcp, piece) {
                Ok(len) => {
                    received += len;
                    if len < piece.len() {
                        break;
                    }
                }
                Err(error) if received == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(received)
    }

    /// What a read has come to: `None` is the end of the stream.
    #[inline]
    fn read<R>(&self, tcp: TcpId, read: Result<Option<R>, RecvError>) -> io::Result<Option<R>> {
        match read {
            Ok(Some(read)) => Ok(Some(read)),
            Ok(None) if self.has_stopped_reading(tcp.0) => Ok(None),
            Ok(None) => Err(self.registry.fault.unwrap_or(io::ErrorKind::WouldBlock).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lends room of the send buffer to `f`, which says how much of it is written; the rest of it is lent again. Nothing is copied.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): there is no room, `f` was not called, and an event comes when there is.
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe): this end has finished. Why the connection is no more;
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface has gone.
    #[inline]
    pub fn send_with(&mut self, tcp: TcpId, f: impl FnOnce(&mut [u8]) -> usize) -> io::Result<usize> {
        self.check()?;
        let mut was_called = false;
        let sent = self.shard.tcp_send_with(tcp.0, |room| {
            was_called = true;
            f(room)
        })?;
        if was_called { Ok(sent) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Writes as much of `data` as there is room for, and returns how much. If that is not all, an event comes when there is more room.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with).
    pub fn send(&mut self, tcp: TcpId, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        match self.shard.tcp_send(tcp.0, data)? {
            0 if !data.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            sent => Ok(sent),
        }
    }

    /// Writes several pieces, as far as there is room.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with).
    pub fn send_vectored(&mut self, tcp: TcpId, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut sent = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            match self.send(tcp, piece) {
                Ok(len) => {
                    sent += len;
                    if len < piece.len() {
                        break;
                    }
                }
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Gives a buffer away, which is copied once, into the device. `Some`: there is no room for it as a whole, here it is again, and
    /// an event comes when there is.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with).
    pub fn send_owned(&mut self, tcp: TcpId, data: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        self.check()?;
        Ok(self.shard.tcp_send_owned(tcp.0, data)?)
    }

    /// Ends one direction, or both, as std does.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn shutdown(&mut self, tcp: TcpId, how: Shutdown) -> io::Result<()> {
        if self.shard.tcp_info(tcp.0).is_none() || self.shard.tcp_failure(tcp.0).is_some() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if how != Shutdown::Read {
            self.shard.tcp_finish(tcp.0);
        }
        if how != Shutdown::Write {
            self.stop_reading(tcp.0);
            self.again(tcp);
        }
        Ok(())
    }

    /// Ends a connection at once, with a reset. The handle stays until [`close`](Self::close).
    pub fn abort(&mut self, tcp: TcpId) {
        self.shard.tcp_abort(tcp.0);
    }

    /// Bytes that can be written now.
    pub fn room(&self, tcp: TcpId) -> usize {
        self.shard.tcp_room(tcp.0)
    }

    /// Bytes that can be read now.
    pub fn readable(&self, tcp: TcpId) -> usize {
        self.shard.tcp_readable(tcp.0)
    }

    /// Our end of a connection, or where a listener listens.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): there is no such socket.
    pub fn local_addr(&self, socket: impl Into<crate::shard::SocketId>) -> io::Result<SocketAddr> {
        let id = socket.into();
        let local = self.shard.tcp_ends(id).map(|(local, _)| local);
        let local = local.or_else(|| self.shard.udp_socket(id).map(|socket| socket.local()));
        local.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The other end of a connection.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): there is no such connection.
    pub fn peer_addr(&self, tcp: TcpId) -> io::Result<SocketAddr> {
        let ends = self.shard.tcp_ends(tcp.0);
        ends.and_then(|(_, peer)| peer).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What the connection knows of itself and of its path. `None`: it is no more.
    pub fn info(&self, tcp: TcpId) -> Option<TcpInfo> {
        self.shard.tcp_info(tcp.0)
    }

    /// The manners of a connection, or of what a listener accepts.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): there is no such socket.
    pub fn options(&self, socket: impl Into<crate::shard::SocketId>) -> io::Result<TcpOptions> {
        self.shard.tcp_options(socket.into()).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Changes them.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): there is no such socket.
    pub fn change_options(
        &mut self,
        socket: impl Into<crate::shard::SocketId>,
        change: impl FnOnce(&mut TcpOptions),
    ) -> io::Result<()> {
        let id = socket.into();
        let mut options = self.options(id)?;
        change(&mut options);
        self.shard.tcp_set_options(id, options);
        Ok(())
    }
}
