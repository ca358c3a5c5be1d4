//! Listening: accept many connections with sockets that each become one.
//!
//! In smoltcp a listening socket turns into its connection. So a port keeps one spare socket in LISTEN,
//! and after every frame that may have taken it the next one is put in its place. A SYN that finds no
//! spare, because `sockets_max` is reached, is answered with a RST by smoltcp.

use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Instant;
use wirestack_nic::Nic;

use crate::error::ListenError;

use super::conn::{Connection, Origin};
use super::{Handler, Host};

/// A TCP port that is listened on.
pub(super) struct Listener<'a> {
    pub(super) port: u16,
    /// In LISTEN, or just taken by a SYN. `None`: there was no socket to be had.
    spare: Option<SocketHandle>,
    /// Makes the handler of a connection whose handshake is complete.
    pub(super) accept: Box<dyn FnMut(SocketAddr) -> Box<dyn Handler + 'a> + 'a>,
}

impl Listener<'_> {
    pub(super) fn into_spare(self) -> Option<SocketHandle> {
        self.spare
    }
}

impl<'a, N: Nic> Host<'a, N> {
    /// Accepts connections to a port on all addresses of the host. `accept` is called with the peer's
    /// address when a handshake is complete, and makes the application's part of that connection.
    ///
    /// # Errors
    /// The port is 0 or in use, or there is no socket left to listen with.
    pub fn listen<H: Handler + 'a>(
        &mut self,
        port: u16,
        mut accept: impl FnMut(SocketAddr) -> H + 'a,
    ) -> Result<(), ListenError> {
        if port == 0 {
            return Err(ListenError::PortZero);
        }
        if self.listeners.iter().any(|listener| listener.port == port) {
            return Err(ListenError::InUse { port });
        }
        let spare = self.spare_socket(port);
        if spare.is_none() {
            return Err(ListenError::NoSocket { sockets_max: self.limits.sockets_max });
        }
        let accept = Box::new(move |peer| Box::new(accept(peer)) as Box<dyn Handler + 'a>);
        self.listeners.push(Listener { port, spare, accept });
        Ok(())
    }

    /// Moves spare sockets that a SYN has taken to the connections, and puts new ones in their place.
    pub(super) fn replenish(&mut self, now: Instant) {
        for position in 0..self.listeners.len() {
            let Listener { port, spare, .. } = self.listeners[position];
            if let Some(socket) = spare {
                if self.sockets.get::<tcp::Socket<'_>>(socket).state() == State::Listen {
                    continue;
                }
                self.connections.push(Connection::new(socket, now, Origin::Listener(port)));
            }
            self.listeners[position].spare = self.spare_socket(port);
        }
    }

    /// A socket in LISTEN on the port.
    fn spare_socket(&mut self, port: u16) -> Option<SocketHandle> {
        let handle = self.tcp_socket()?;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        // Cannot fail: the socket is closed, and the port is not 0.
        if let Err(error) = socket.listen(port) {
            log::error!("listening on port {port}: {error}");
            self.retire(handle);
            return None;
        }
        Some(handle)
    }

    /// A closed TCP socket with the settings of this host: one used before, a new one, or the one that
    /// can best be spared.
    pub(super) fn tcp_socket(&mut self) -> Option<SocketHandle> {
        if self.idle.is_empty() && self.sockets_made >= self.limits.sockets_max {
            self.recycle();
        }
        let handle = match self.idle.pop() {
            Some(handle) => handle,
            None if self.sockets_made < self.limits.sockets_max => {
                self.sockets_made += 1;
                self.sockets.add(self.limits.tcp_socket())
            }
            None => return None,
        };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        // No timer for ACKs: a turn sends one ACK for all the frames that it took in.
        socket.set_ack_delay(None);
        // Of a handshake, `reap` takes care; of an established connection, this and `serve`.
        socket.set_timeout(None);
        socket.set_keep_alive(Some(self.limits.user_timeout / 4));
        Some(handle)
    }

    /// Puts a socket aside to be used again.
    pub(super) fn retire(&mut self, handle: SocketHandle) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.close();
        self.idle.push(handle);
    }

    /// Throws a socket away without a word to its peer, and puts a new one aside to be used.
    pub(super) fn discard(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        let handle = self.sockets.add(self.limits.tcp_socket());
        self.idle.push(handle);
    }

    /// Frees one socket, if there is one whose loss hurts least: of those that have nothing more to say
    /// (in TIME-WAIT, or with a RST that cannot be sent), the one that began first.
    fn recycle(&mut self) {
        let sockets = &self.sockets;
        let is_over = |connection: &Connection<'_>| {
            let state = sockets.get::<tcp::Socket<'_>>(connection.socket).state();
            matches!(state, State::TimeWait | State::Closed) && connection.handler.is_none()
        };
        let connections = self.connections.iter().enumerate();
        let oldest = connections
            .filter(|(_, connection)| is_over(connection))
            .min_by_key(|(_, connection)| connection.begun);
        if let Some((position, _)) = oldest {
            let connection = self.connections.swap_remove(position);
            self.discard(connection.socket);
            self.stats.recycled += 1;
        }
    }
}
