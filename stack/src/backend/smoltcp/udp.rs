//! UDP ports.

use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{self, PacketMetadata, UdpMetadata};
use smoltcp::time::{Duration, Instant};
use wirestack_nic::Nic;

use crate::error::ListenError;

use super::Host;
use super::conn::socket_addr;

/// A UDP port that an application serves.
pub(super) struct UdpPort<'a> {
    port: u16,
    socket: SocketHandle,
    handler: Box<dyn FnMut(&mut Datagrams<'_, '_>) + 'a>,
    /// Bytes of answers that wait, and since when this number has not changed.
    waiting: (usize, Instant),
}

/// The datagrams of one UDP port, lent to its handler for a call.
#[derive(Debug)]
pub struct Datagrams<'t, 'a> {
    socket: &'t mut udp::Socket<'a>,
    ip_mtu: usize,
    /// Frames of a datagram beyond the MTU that was sent in this turn; there is room for one.
    fragments: &'t mut usize,
}

/// Where a datagram came from, and which of our addresses it came to: what an answer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    metadata: UdpMetadata,
}

impl Peer {
    /// Address and port of the sender.
    pub fn address(&self) -> SocketAddr {
        socket_addr(self.metadata.endpoint)
    }
}

impl Datagrams<'_, '_> {
    /// Takes the next datagram, if there is one and there is room for an answer. Returns its length and
    /// its sender. What does not fit into `buffer` is lost; 65 507 bytes hold any datagram.
    pub fn recv(&mut self, buffer: &mut [u8]) -> Option<(usize, Peer)> {
        if !self.socket.can_recv() || !self.socket.can_send() || *self.fragments > 0 {
            return None;
        }
        let (datagram, metadata) = self.socket.recv().ok()?;
        let len = datagram.len().min(buffer.len());
        buffer.get_mut(..len)?.copy_from_slice(datagram.get(..len)?);
        Some((len, Peer { metadata }))
    }

    /// Answers a peer, from the address that it wrote to. False: there is no room in the queue.
    ///
    /// One beyond the MTU goes out in fragments, before the next datagram is taken in.
    pub fn send(&mut self, peer: Peer, datagram: &[u8]) -> bool {
        if datagram.len() + HEADERS_LEN > self.ip_mtu {
            // RFC 791: fragments are multiples of 8 bytes, but for the last.
            *self.fragments += datagram.len() / (self.ip_mtu - HEADERS_LEN) + 2;
        }
        self.socket.send_slice(datagram, peer.metadata).is_ok()
    }
}

impl<'a, N: Nic> Host<'a, N> {
    /// Serves a UDP port on all addresses of the host: `handler` is called when there are datagrams.
    ///
    /// # Errors
    /// The port is 0 or in use, or there is no socket left.
    pub fn bind_udp(
        &mut self,
        port: u16,
        handler: impl FnMut(&mut Datagrams<'_, '_>) + 'a,
    ) -> Result<(), ListenError> {
        if port == 0 {
            return Err(ListenError::PortZero);
        }
        if self.udp_ports.iter().any(|udp| udp.port == port) {
            return Err(ListenError::InUse { port });
        }
        if self.sockets_made >= self.limits.sockets_max {
            return Err(ListenError::NoSocket { sockets_max: self.limits.sockets_max });
        }
        let queue = || {
            let metadata = vec![PacketMetadata::EMPTY; QUEUE_DATAGRAMS];
            udp::PacketBuffer::new(metadata, vec![0; QUEUE_BYTES])
        };
        let mut socket = udp::Socket::new(queue(), queue());
        // Cannot fail: the socket is new, and the port is not 0.
        if socket.bind(port).is_err() {
            return Err(ListenError::InUse { port });
        }
        self.sockets_made += 1;
        let socket = self.sockets.add(socket);
        let waiting = (0, Instant::ZERO);
        self.udp_ports.push(UdpPort { port, socket, handler: Box::new(handler), waiting });
        Ok(())
    }

    /// Lets the applications take and answer datagrams.
    pub(super) fn serve_udp(&mut self, now: Instant) {
        let ip_mtu = self.nic.capabilities().ip_mtu();
        for port in &mut self.udp_ports {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(port.socket);
            if socket.can_recv() {
                let fragments = &mut self.fragments;
                (port.handler)(&mut Datagrams { socket, ip_mtu, fragments });
            }
        }
        self.udp_interrupted = self.fragments > 0;
        self.unblock_udp(now);
    }

    /// smoltcp sends the datagrams of a port in their order, and waits for ever with one that it has no
    /// way for: no route, no hardware address. Anybody could send us one to answer. So a queue that has
    /// not moved for a while is emptied.
    fn unblock_udp(&mut self, now: Instant) {
        for port in &mut self.udp_ports {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(port.socket);
            let bytes = socket.send_queue();
            if bytes == 0 || bytes != port.waiting.0 {
                port.waiting = (bytes, now);
            } else if port.waiting.1 + SEND_TIMEOUT <= now {
                self.stats.datagrams_unsent += 1;
                log::debug!("UDP port {}: {bytes} bytes cannot be sent", port.port);
                socket.close();
                // Cannot fail: it was bound to this port before.
                let _ = socket.bind(port.port);
                port.waiting = (0, now);
            }
        }
    }

    /// When to come again: a large datagram has kept others from being taken in, or a queue will have
    /// waited too long.
    pub(super) fn next_udp_deadline(&self, now: Instant) -> Option<Instant> {
        let deadline = |port: &UdpPort<'_>| {
            let socket = self.sockets.get::<udp::Socket<'_>>(port.socket);
            match socket.send_queue() {
                0 => (self.udp_interrupted && socket.can_recv()).then_some(now),
                _ => Some(port.waiting.1 + SEND_TIMEOUT),
            }
        };
        self.udp_ports.iter().filter_map(deadline).min()
    }
}

/// How long a queue of answers may stand still: two ARP requests.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the headers of UDP (8) and IPv4 (20).
const HEADERS_LEN: usize = 28;
/// Datagrams that wait in each direction of a port.
const QUEUE_DATAGRAMS: usize = 256;
/// Bytes of them together: a few of the largest, or 256 of the MTU of Ethernet.
const QUEUE_BYTES: usize = 384 << 10;
