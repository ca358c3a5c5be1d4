//! UDP ports.

use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{self, PacketMetadata, UdpMetadata};
use wirestack_nic::Nic;

use crate::error::ListenError;

use super::Host;
use super::conn::socket_addr;

/// A UDP port that an application serves.
pub(super) struct UdpPort<'a> {
    port: u16,
    socket: SocketHandle,
    handler: Box<dyn FnMut(&mut Datagrams<'_, '_>) + 'a>,
}

/// The datagrams of one UDP port, lent to its handler for a call.
#[derive(Debug)]
pub struct Datagrams<'t, 'a> {
    socket: &'t mut udp::Socket<'a>,
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
        if !self.socket.can_recv() || !self.socket.can_send() {
            return None;
        }
        let (datagram, metadata) = self.socket.recv().ok()?;
        let len = datagram.len().min(buffer.len());
        buffer.get_mut(..len)?.copy_from_slice(datagram.get(..len)?);
        Some((len, Peer { metadata }))
    }

    /// Answers a peer, from the address that it wrote to. False: there is no room in the queue.
    pub fn send(&mut self, peer: Peer, datagram: &[u8]) -> bool {
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
        self.udp_ports.push(UdpPort { port, socket, handler: Box::new(handler) });
        Ok(())
    }

    /// Lets the applications take and answer datagrams.
    pub(super) fn serve_udp(&mut self) {
        for port in &mut self.udp_ports {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(port.socket);
            if socket.can_recv() {
                (port.handler)(&mut Datagrams { socket });
            }
        }
    }
}

/// Datagrams that wait in each direction of a port.
const QUEUE_DATAGRAMS: usize = 256;
/// Bytes of them together: a few of the largest, or 256 of the MTU of Ethernet.
const QUEUE_BYTES: usize = 384 << 10;
