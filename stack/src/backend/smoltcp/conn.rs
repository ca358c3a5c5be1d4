//! A connection, and what an application sees of it.

use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;
use wirestack_nic::Nic;

use super::Host;

/// An application's part of one connection. Any `FnMut(&mut Conn)` is one.
pub trait Handler {
    /// Called when there may be something to do: bytes came, room to write was made, the peer closed
    /// its side or was lost. Reads and writes what it can, and returns; it is called again.
    ///
    /// The first call is made when the handshake is complete. After the last one, when the connection
    /// has ended in whatever way, the handler is dropped.
    fn ready(&mut self, conn: &mut Conn<'_, '_>);

    /// When the handler wants to be called even if nothing happened; asked after every call of
    /// [`ready`](Self::ready).
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl<F: FnMut(&mut Conn<'_, '_>)> Handler for F {
    fn ready(&mut self, conn: &mut Conn<'_, '_>) {
        self(conn);
    }
}

/// A connection in a host's list, from its first SYN on.
pub(super) struct Connection<'a> {
    pub(super) socket: SocketHandle,
    pub(super) begun: Instant,
    /// Present until the connection has ended; then the socket may still be in TIME-WAIT.
    pub(super) handler: Option<Box<dyn Handler + 'a>>,
    pub(super) established: bool,
    pub(super) origin: Origin,
    /// When it was first seen closed with its RST not sent yet.
    pub(super) aborted: Option<Instant>,
}

impl Connection<'_> {
    pub(super) fn new(socket: SocketHandle, begun: Instant, origin: Origin) -> Self {
        Self { socket, begun, handler: None, established: false, origin, aborted: None }
    }
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The peer, to this port of ours.
    Listener(u16),
    /// We.
    Connect,
}

/// A connection, lent to its [`Handler`] for a call.
#[derive(Debug)]
pub struct Conn<'t, 'a> {
    socket: &'t mut tcp::Socket<'a>,
    now: Instant,
}

impl Conn<'_, '_> {
    /// The peer's end. `None` once the connection has ended.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket.remote_endpoint().map(socket_addr)
    }

    /// Our end. `None` once the connection has ended.
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_endpoint().map(socket_addr)
    }

    /// Now, on the host's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Whether the connection is alive. False in the last call: it was closed on both sides, or lost.
    pub fn is_open(&self) -> bool {
        !matches!(self.socket.state(), State::Closed | State::TimeWait)
    }

    /// Bytes that can be read now.
    pub fn readable(&self) -> usize {
        self.socket.recv_queue()
    }

    /// Bytes that can be written now.
    pub fn room(&self) -> usize {
        if self.socket.may_send() { self.socket.send_capacity() - self.socket.send_queue() } else { 0 }
    }

    /// Bytes that were written and that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.socket.send_queue()
    }

    /// Reads in place: `f` sees what has come, up to where the buffer wraps, and returns how much of it
    /// is consumed, and a result. `None`: nothing has come.
    pub fn recv_with<R>(&mut self, f: impl FnOnce(&[u8]) -> (usize, R)) -> Option<R> {
        if !self.socket.can_recv() {
            return None;
        }
        self.socket
            .recv(|bytes| {
                let (consumed, result) = f(bytes);
                (consumed.min(bytes.len()), result)
            })
            .ok()
    }

    /// Reads into a buffer. Returns how much; 0 if nothing has come.
    pub fn recv(&mut self, buffer: &mut [u8]) -> usize {
        self.socket.recv_slice(buffer).unwrap_or(0)
    }

    /// Writes in place: `f` fills free room of the send buffer, up to where it wraps, and returns how
    /// much of it is filled, and a result. `None`: there is no room.
    pub fn send_with<R>(&mut self, f: impl FnOnce(&mut [u8]) -> (usize, R)) -> Option<R> {
        if !self.socket.can_send() {
            return None;
        }
        self.socket
            .send(|room| {
                let len = room.len();
                let (filled, result) = f(room);
                (filled.min(len), result)
            })
            .ok()
    }

    /// Writes from a buffer. Returns how much; 0 if there is no room.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        self.socket.send_slice(bytes).unwrap_or(0)
    }

    /// Whether the peer has closed its side and everything that it sent was read.
    pub fn peer_finished(&self) -> bool {
        !self.socket.may_recv()
    }

    /// Closes our side: what was written is still sent, then a FIN. Reading goes on.
    pub fn close(&mut self) {
        self.socket.close();
    }

    /// Ends the connection with a RST.
    pub fn abort(&mut self) {
        self.socket.abort();
    }
}

impl<N: Nic> Host<'_, N> {
    /// Lets the applications do what they can.
    pub(super) fn serve(&mut self, now: Instant) {
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
            if !connection.established && has_been_established(socket.state()) {
                connection.established = true;
                match connection.origin {
                    Origin::Connect => self.stats.connected += 1,
                    Origin::Listener(port) => {
                        self.stats.accepted += 1;
                        let listener = self.listeners.iter_mut().find(|listener| listener.port == port);
                        let peer = socket.remote_endpoint().map(socket_addr);
                        connection.handler =
                            listener.zip(peer).map(|(listener, peer)| (listener.accept)(peer));
                    }
                }
                socket.set_timeout(Some(self.limits.user_timeout));
            }
            let ended = matches!(socket.state(), State::Closed | State::TimeWait);
            // A connection that failed before it was established is told to its handler as well: it
            // may have been opened by us, and the application waits for it.
            if (connection.established || ended)
                && let Some(handler) = &mut connection.handler
            {
                handler.ready(&mut Conn { socket, now });
            }
            if ended {
                connection.handler = None;
            }
        }
        self.serve_udp(now);
    }

    /// Takes connections out of the list that have ended, and ends handshakes that take too long.
    pub(super) fn reap(&mut self, now: Instant) {
        let mut position = 0;
        while let Some(connection) = self.connections.get_mut(position) {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
            if !connection.established
                && socket.is_open()
                && connection.begun + self.limits.handshake_timeout <= now
            {
                self.stats.handshakes_timed_out += 1;
                log::debug!("handshake with {:?} timed out", socket.remote_endpoint());
                socket.abort();
            }
            // A half-open connection that the peer has reset listens again (RFC 9293 section 3.10.7.4);
            // its listener has a new socket by now.
            if socket.is_listening() {
                socket.close();
            }
            if socket.state() != State::Closed || connection.handler.is_some() {
                position += 1;
            } else if socket.remote_endpoint().is_none() {
                let connection = self.connections.swap_remove(position);
                self.retire(connection.socket);
            } else if *connection.aborted.get_or_insert(now) + RST_TIMEOUT <= now {
                // smoltcp keeps the peer until the RST is out. There may be no way to the peer any more.
                self.stats.resets_unsent += 1;
                let connection = self.connections.swap_remove(position);
                self.discard(connection.socket);
            } else {
                position += 1;
            }
        }
    }

    /// The next time that a handshake will have taken too long, a RST will be given up, or a handler
    /// wants to be called.
    pub(super) fn next_connection_deadline(&self) -> Option<Instant> {
        let timeout = self.limits.handshake_timeout;
        let deadline = |connection: &Connection<'_>| match (connection.aborted, &connection.handler) {
            (Some(aborted), _) => Some(aborted + RST_TIMEOUT),
            (None, Some(handler)) if connection.established => handler.deadline(),
            (None, _) => (!connection.established).then(|| connection.begun + timeout),
        };
        self.connections.iter().filter_map(deadline).min()
    }
}

/// How long a RST may wait for the peer's hardware address: one ARP request and its answer.
const RST_TIMEOUT: Duration = Duration::from_secs(1);

fn has_been_established(state: State) -> bool {
    !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived)
}

pub(super) fn socket_addr(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}
