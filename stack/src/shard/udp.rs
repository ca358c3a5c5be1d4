//! UDP: what comes for sockets, and what an application does with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use super::Shard;
use super::sockets::{AnySocket, Owner, SocketId};
use crate::demux::UdpBinding;
use crate::egress::PacketSpec;
use crate::egress::output::{Hop, Path, Transport};
use crate::icmp::error::ErrorToSend;
use crate::ingress::Verdict;
use crate::ingress::input::{Destination, Received, UDP};
use crate::ip::header;
use crate::observe::DropReason;
use crate::udp::header::{Checksum, Ends};
use crate::udp::{
    self, BindError, ConnectError, DatagramMeta, SendError, Socket, SocketError, SocketOptions,
};

/// Where a socket is to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBind {
    /// Address and port. An unspecified address is all of the family; port 0 is one that is chosen.
    pub local: SocketAddr,
    /// With `[::]`: IPv4 as well, whose addresses are seen as they are, not mapped.
    pub dual: bool,
    /// Several sockets may have the port, each of which gets every datagram for a group or broadcast; of
    /// others, the last one gets all (SO_REUSEADDR of Linux).
    pub reuse: bool,
    /// Manners of the socket.
    pub options: SocketOptions,
}

impl UdpBind {
    /// A socket at this address, its options left to the stack.
    pub fn new(local: SocketAddr) -> Self {
        Self { local, dual: false, reuse: false, options: SocketOptions::default() }
    }
}

/// What is said of one datagram, in place of what its socket says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// To whom. `None`: to whom the socket is connected.
    pub to: Option<SocketAddr>,
    /// From which address of ours. `None`: that of the socket, or one that is chosen.
    pub src: Option<IpAddr>,
    /// TTL or hop limit.
    pub hop_limit: Option<u8>,
    /// DSCP and ECN.
    pub traffic_class: Option<u8>,
    /// The payload is several datagrams of this size, the last one maybe shorter (UDP_SEGMENT of udp(7)).
    pub segment_bytes: Option<NonZeroU16>,
}

impl Shard {
    /// Makes a socket.
    ///
    /// # Errors
    /// The address is not ours, the port is in use, or there is no room.
    pub fn udp_bind(&mut self, bind: UdpBind) -> Result<SocketId, BindError> {
        if !self.sockets.has_room() {
            return Err(BindError::TooManySockets { max: self.config.sockets_max });
        }
        self.check_local(bind.local.ip())?;
        let mut local = bind.local;
        if local.port() == 0 {
            local.set_port(self.choose_udp_port(local, bind)?);
        }
        let id = self.sockets.next_id();
        let binding = UdpBinding { local, dual: bind.dual, reuse: bind.reuse };
        self.udp.bind(binding, Owner::Socket(id)).map_err(BindError::from)?;
        self.sockets.insert(AnySocket::Udp(Box::new(Socket::new(local, bind.options))));
        Ok(id)
    }

    fn check_local(&self, ip: IpAddr) -> Result<(), BindError> {
        let is_ours = ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || self.addresses.is_broadcast(ip)
            || self.addresses.is_local(ip);
        if is_ours { Ok(()) } else { Err(BindError::AddressNotOurs { address: ip }) }
    }

    fn choose_udp_port(&mut self, local: SocketAddr, bind: UdpBind) -> Result<u16, BindError> {
        let udp = &self.udp;
        let is_free = |port| {
            let mut local = local;
            local.set_port(port);
            udp.is_free(UdpBinding { local, dual: bind.dual, reuse: false })
        };
        self.ports.random(&mut self.random, is_free).ok_or(BindError::NoPort)
    }

    /// Closes a socket of any kind. What it has sent still goes.
    pub fn close(&mut self, id: SocketId) {
        match self.sockets.remove(id) {
            Some(AnySocket::Udp(_)) => {
                self.udp.unbind(Owner::Socket(id));
                self.membership.leave_all(self.now, id.index());
            }
            Some(AnySocket::Icmp(_)) => self.unbind_ping(id),
            Some(AnySocket::Raw(_)) => self.close_raw(id),
            None => {}
        }
    }

    /// Fixes whom a socket talks to: it receives from nobody else, and ICMP errors reach it. `None` undoes it.
    ///
    /// # Errors
    /// There is no way to the address, or no source address for it.
    pub fn udp_connect(&mut self, id: SocketId, remote: Option<SocketAddr>) -> Result<(), ConnectError> {
        let socket = self.sockets.udp(id).ok_or(ConnectError::Closed)?;
        let local = socket.local();
        let Some(remote) = remote else {
            let local = self.udp.disconnect(Owner::Socket(id)).unwrap_or(local);
            if let Some(socket) = self.sockets.udp_mut(id) {
                socket.disconnect(local);
            }
            return Ok(());
        };
        let src = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let path = self
            .path(&PacketSpec { src, ..PacketSpec::new(remote.ip(), UDP) })
            .map_err(|reason| connect_error(reason, remote))?;
        let local = SocketAddr::new(path.src, local.port());
        let mut socket = self.sockets.udp(id).cloned().ok_or(ConnectError::Closed)?;
        socket.connect(local, remote)?;
        self.udp
            .connect(Owner::Socket(id), local, remote)
            .map_err(|_| ConnectError::Bind(BindError::InUse { local }))?;
        if let Some(known) = self.sockets.udp_mut(id) {
            known.connect(local, remote)?;
        }
        Ok(())
    }

    /// Sends a datagram to whom the socket is connected.
    ///
    /// # Errors
    /// As [`udp_send_with`](Self::udp_send_with).
    pub fn udp_send(&mut self, id: SocketId, payload: &[u8]) -> Result<(), SendError> {
        self.udp_send_with(id, &SendOptions::default(), payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// As [`udp_send_with`](Self::udp_send_with).
    pub fn udp_send_to(&mut self, id: SocketId, payload: &[u8], to: SocketAddr) -> Result<(), SendError> {
        let options = SendOptions { to: Some(to), ..SendOptions::default() };
        self.udp_send_with(id, &options, payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Lets `write` write a datagram of `len` bytes where it leaves from, and sends it.
    ///
    /// # Errors
    /// There is no way, it is too long, or there is no room now: then it may be tried again in a later turn.
    pub fn udp_send_with(
        &mut self,
        id: SocketId,
        options: &SendOptions,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), SendError> {
        let socket = self.sockets.udp(id).ok_or(SendError::Closed)?;
        let (local_port, loops) = (socket.local().port(), socket.options().multicast_loop);
        let addresses = &self.addresses;
        let datagram_len = options.segment_bytes.map_or(len, |size| len.min(size.get().into()));
        let prepared = socket.prepare(options.to, datagram_len, |ip| addresses.is_broadcast(ip))?;
        let spec = PacketSpec {
            src: options.src.or(prepared.spec.src),
            hop_limit: options.hop_limit.or(prepared.spec.hop_limit),
            traffic_class: options.traffic_class.unwrap_or(prepared.spec.traffic_class),
            ..prepared.spec
        };
        if spec.src.is_some_and(|src| !self.is_source(src)) {
            return Err(SendError::AddressNotOurs);
        }
        let mut path = self.path(&spec).map_err(|reason| send_error(reason, 0))?;
        if !prepared.heeds_path_mtu && path.hop != Hop::Looped {
            path.mtu = self.mtu;
        }
        let room = path.mtu.saturating_sub(header::header_len(&spec) + udp::header::HEADER_LEN);
        let ports = (local_port, prepared.dst.port());
        let is_group = spec.dst.is_multicast();
        if is_group && loops && self.membership.is_member(spec.dst) {
            return self.send_to_group(&path, &spec, ports, (len, options.segment_bytes), write);
        }
        self.emit_udp(&path, &spec, ports, (len, options.segment_bytes), write)
            .map_err(|reason| send_error(reason, room))?;
        self.counters.udp_sent += 1;
        Ok(())
    }

    /// To the link, and to the members on this host.
    fn send_to_group(
        &mut self,
        path: &Path,
        spec: &PacketSpec,
        ports: (u16, u16),
        (len, segment_bytes): (usize, Option<NonZeroU16>),
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), SendError> {
        let mut payload = vec![0; len];
        write(&mut payload);
        let copy = |room: &mut [u8]| room.copy_from_slice(&payload);
        // A hop limit of 0 stays on this host (RFC 1112 section 6.1).
        if spec.hop_limit != Some(0) {
            self.emit_udp(path, spec, ports, (len, segment_bytes), copy).map_err(|reason| send_error(reason, 0))?;
        }
        let looped = Path { hop: Hop::Looped, mtu: usize::from(u16::MAX), ..*path };
        self.emit_udp(&looped, spec, ports, (len, segment_bytes), copy).map_err(|reason| send_error(reason, 0))?;
        self.counters.udp_sent += 1;
        Ok(())
    }

    fn is_source(&self, src: IpAddr) -> bool {
        self.addresses.is_local(src) || src.is_loopback()
    }

    pub(crate) fn emit_udp(
        &mut self,
        path: &Path,
        spec: &PacketSpec,
        (src_port, dst_port): (u16, u16),
        (len, segment_bytes): (usize, Option<NonZeroU16>),
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let ends = Ends { src: path.src, dst: path.dst, src_port, dst_port };
        let segment_bytes = segment_bytes.filter(|size| usize::from(size.get()) < len);
        let transport = Transport {
            len: udp::header::HEADER_LEN + len,
            checksum_at: Some(udp::header::CHECKSUM_OFFSET),
            segment_bytes,
        };
        self.emit(path, spec, transport, |room| {
            let Some((header, payload)) = room.split_first_chunk_mut() else { return };
            udp::header::write(ends, len, Checksum::Partial, header);
            write(payload);
        })
    }

    /// Lends the next datagram of a socket. `None`: there is none.
    pub fn udp_recv_with<R>(&mut self, id: SocketId, f: impl FnOnce(&DatagramMeta, &[u8]) -> R) -> Option<R> {
        self.sockets.udp_mut(id)?.recv_with(f)
    }

    /// Copies the next datagram of a socket; what finds no room is lost, which `truncated` tells.
    pub fn udp_recv(&mut self, id: SocketId, room: &mut [u8]) -> Option<(usize, DatagramMeta)> {
        self.sockets.udp_mut(id)?.recv(room)
    }

    /// The next error of a socket.
    pub fn udp_take_error(&mut self, id: SocketId) -> Option<SocketError> {
        self.sockets.udp_mut(id)?.take_error()
    }

    /// The state of a socket.
    pub fn udp_socket(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.udp(id)
    }

    /// Changes the options of a socket. `false`: there is no such socket.
    pub fn udp_set_options(&mut self, id: SocketId, options: SocketOptions) -> bool {
        let socket = self.sockets.udp_mut(id);
        socket.map(|socket| socket.set_options(options)).is_some()
    }

    /// Takes a datagram.
    pub(crate) fn handle_udp(&mut self, received: &Received<'_>) -> Verdict {
        let (src, dst) = (received.ip.src, received.ip.dst);
        // The checksum was verified with that of all transports.
        let datagram = match udp::header::read(src, dst, received.transport(), false) {
            Ok(datagram) => datagram,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let payload = datagram.payload;
        let meta = DatagramMeta {
            hop_limit: received.ip.hop_limit,
            traffic_class: received.ip.traffic_class,
            timestamp: received.meta.timestamp,
            segment_bytes: received.meta.gso.map(|gso| gso.size),
            ..DatagramMeta::new(
                SocketAddr::new(src, datagram.src_port),
                SocketAddr::new(dst, datagram.dst_port),
                self.now,
            )
        };
        match received.destination {
            Destination::Group | Destination::Broadcast => self.deliver_to_all(received, &meta, payload),
            Destination::Local | Destination::Other => match self.udp.lookup(meta.dst, meta.src) {
                Some(owner) => self.deliver(owner, &meta, payload).into(),
                None => {
                    self.send_error(received, ErrorToSend::PortUnreachable);
                    Verdict::Dropped(DropReason::UdpNoSocket)
                }
            },
        }
    }

    fn deliver(&mut self, owner: Owner, meta: &DatagramMeta, payload: &[u8]) -> Result<(), DropReason> {
        match owner {
            Owner::Socket(id) => {
                let socket = self.sockets.udp_mut(id).ok_or(DropReason::UdpNoSocket)?;
                socket.push(meta, payload)?;
                self.counters.udp_received += 1;
                self.sockets.mark_ready(id);
                Ok(())
            }
            Owner::Dhcp => self.handle_dhcp(meta, payload),
            Owner::Dhcp6 => self.handle_dhcp6(meta, payload),
            Owner::Dns => self.handle_dns(meta, payload),
        }
    }

    /// To every socket of the port that wants what comes for this group or for everybody.
    fn deliver_to_all(&mut self, received: &Received<'_>, meta: &DatagramMeta, payload: &[u8]) -> Verdict {
        let mut verdict = Verdict::Dropped(DropReason::UdpNoSocket);
        let mut next = 0;
        // The table lends its list entry by entry, since each delivery changes the shard.
        while let Some(owner) = self.udp.nth_match(meta.dst, meta.src, next) {
            next += 1;
            if let Owner::Socket(id) = owner
                && received.destination == Destination::Group
                && !self.sockets.udp(id).is_some_and(|socket| socket.accepts(meta.src, meta.dst))
            {
                continue;
            }
            match self.deliver(owner, meta, payload) {
                Ok(()) => verdict = Verdict::Delivered,
                Err(reason) if verdict == Verdict::Delivered => self.count_drop(reason),
                Err(reason) => verdict = Verdict::Dropped(reason),
            }
        }
        verdict
    }

    /// An ICMP error about a datagram of ours. `false`: nobody here can have sent it.
    pub(crate) fn handle_udp_error(&mut self, local: SocketAddr, error: SocketError) -> bool {
        match self.udp.lookup(local, error.dst) {
            Some(Owner::Socket(id)) => {
                let Some(socket) = self.sockets.udp_mut(id) else { return false };
                socket.push_error(error);
                self.sockets.mark_ready(id);
                true
            }
            Some(Owner::Dns) => {
                self.dns.handle_unreachable(self.now, local.port());
                true
            }
            Some(Owner::Dhcp | Owner::Dhcp6) => true,
            None => false,
        }
    }
}

/// What a sender is told. `max`: bytes of payload that would go.
pub(super) fn send_error(reason: DropReason, max: usize) -> SendError {
    match reason {
        DropReason::NoSource => SendError::NoSource,
        DropReason::TooLong => SendError::TooLong { max },
        DropReason::OutboxFull => SendError::WouldBlock,
        DropReason::NeighborUnreachable => SendError::HostUnreachable,
        _ => SendError::NoRoute,
    }
}

fn connect_error(reason: DropReason, remote: SocketAddr) -> ConnectError {
    match reason {
        DropReason::NoSource => ConnectError::NoSource { remote },
        _ => ConnectError::NoRoute { remote },
    }
}

/// Any address of a family.
pub(crate) const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The same of IPv6.
pub(crate) const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
