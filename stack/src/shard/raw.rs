//! Raw sockets: packets of any protocol.

use std::net::{IpAddr, SocketAddr};

use super::Shard;
use super::sockets::{AnySocket, SocketId};
use super::udp::send_error;
use crate::egress::PacketSpec;
use crate::egress::output::Transport;
use crate::ingress::input::Received;
use crate::ip::header;
use crate::observe::Event;
use crate::raw::{HeaderIncluded, PacketMeta, Socket, Version};
use crate::udp::queue::QueueLimits;
use crate::udp::{BindError, SendError, SocketError};
use wirestack_nic::FrameMeta;

/// What a raw socket is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawBind {
    /// Version of IP.
    pub version: Version,
    /// Number of the protocol; 255 is for sending only.
    pub protocol: u8,
    /// Packets that wait at most.
    pub limits: QueueLimits,
}

impl RawBind {
    /// A socket for this protocol, all else left to the stack.
    pub fn new(version: Version, protocol: u8) -> Self {
        Self { version, protocol, limits: QueueLimits::default() }
    }
}

impl Shard {
    /// Makes a raw socket. It gets a copy of every whole packet of its protocol that is for us, beside whoever
    /// else it is for.
    ///
    /// # Errors
    /// There is no room.
    pub fn raw_open(&mut self, bind: RawBind) -> Result<SocketId, BindError> {
        if !self.sockets.has_room() || self.raw_sockets.len() >= RAW_SOCKETS_MAX {
            return Err(BindError::TooManySockets { max: self.config.sockets_max.min(RAW_SOCKETS_MAX) });
        }
        let socket = Socket::new(bind.version, bind.protocol, bind.limits);
        let id = self.sockets.insert(AnySocket::Raw(Box::new(socket)));
        self.raw_sockets.push(id);
        Ok(id)
    }

    pub(crate) fn close_raw(&mut self, id: SocketId) {
        self.raw_sockets.retain(|other| *other != id);
    }

    /// A raw socket, to be filtered or asked.
    pub fn raw_socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.raw_mut(id)
    }

    /// Sends a payload behind a header that the stack writes, or a packet with its IPv4 header if the socket
    /// says so ([`Socket::set_header_included`]); then `to` is not looked at.
    ///
    /// # Errors
    /// There is no way, it is too long, it is no packet, or there is no room now.
    pub fn raw_send(&mut self, id: SocketId, to: IpAddr, bytes: &[u8]) -> Result<(), SendError> {
        let socket = self.sockets.raw_mut(id).ok_or(SendError::Closed)?;
        if socket.is_header_included() {
            return self.send_included(bytes);
        }
        if socket.version() != Version::of(to) {
            return Err(SendError::AddressFamily);
        }
        let spec = socket.spec(to);
        if spec.src.is_some_and(|src| !self.is_source(src)) {
            return Err(SendError::AddressNotOurs);
        }
        let path = self.path(&spec).map_err(|reason| send_error(reason, 0))?;
        let mut payload = bytes.to_vec();
        if let Some(socket) = self.sockets.raw_mut(id) {
            socket.complete_payload(&mut payload, path.src, path.dst);
        }
        let max = path.mtu.saturating_sub(header::header_len(&spec));
        self.emit(&path, &spec, Transport::plain(payload.len()), |room| room.copy_from_slice(&payload))
            .map_err(|reason| send_error(reason, max))
    }

    fn send_included(&mut self, packet: &[u8]) -> Result<(), SendError> {
        let header = HeaderIncluded::read(packet).map_err(|_| SendError::BadDestination)?;
        let spec = PacketSpec { src: header.src.map(IpAddr::V4), ..PacketSpec::new(header.dst.into(), 0) };
        let path = self.path(&spec).map_err(|reason| send_error(reason, 0))?;
        let IpAddr::V4(src) = path.src else { return Err(SendError::NoSource) };
        let mut packet = packet.to_vec();
        let id = self.ids.ipv4(src, header.dst, 0, false);
        header.complete(&mut packet, src, id);
        self.try_send_packet(&packet, &FrameMeta::default()).map_err(|reason| send_error(reason, path.mtu))
    }

    /// Lends the next packet of a raw socket.
    pub fn raw_recv_with<R>(&mut self, id: SocketId, f: impl FnOnce(&PacketMeta, &[u8]) -> R) -> Option<R> {
        self.sockets.raw_mut(id)?.recv_with(f)
    }

    /// The next error of a raw socket.
    pub fn raw_take_error(&mut self, id: SocketId) -> Option<SocketError> {
        self.sockets.raw_mut(id)?.take_error()
    }

    /// Gives a packet to every raw socket that wants it. True: there was one.
    pub(crate) fn handle_raw(&mut self, received: &Received<'_>) -> bool {
        let mut is_wanted = false;
        for index in 0..self.raw_sockets.len() {
            let id = self.raw_sockets[index];
            let Some(socket) = self.sockets.raw_mut(id) else { continue };
            if !socket.wants(received.frame, received.ip) {
                continue;
            }
            is_wanted = true;
            let pushed = socket.push(received.frame, received.ip, self.now, received.meta.timestamp);
            match pushed {
                Ok(()) => {}
                Err(reason) => {
                    self.count_drop(reason);
                    self.hook.tell(self.now, &Event::SocketQueueFull { socket: id, reason });
                }
            }
            // Also if there was no room: whoever has left something there hears of it again.
            self.sockets.mark_ready(id);
        }
        is_wanted
    }

    /// An ICMP error about a packet of a protocol that raw sockets send. True: one of them can have.
    pub(crate) fn handle_raw_error(&mut self, protocol: u8, error: SocketError) -> bool {
        let version = Version::of(error.dst.ip());
        let mut is_known = false;
        for index in 0..self.raw_sockets.len() {
            let id = self.raw_sockets[index];
            let Some(socket) = self.sockets.raw_mut(id) else { continue };
            if socket.version() == version && socket.protocol() == protocol && socket.push_error(error) {
                is_known = true;
                self.sockets.mark_ready(id);
            }
        }
        is_known
    }
}

/// Raw sockets at most: each of them looks at every packet.
pub const RAW_SOCKETS_MAX: usize = 64;
/// The port of an error about a packet that has none.
pub(crate) fn without_port(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}
