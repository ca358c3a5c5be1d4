//! UDP: what comes for sockets, and what an application does with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use super::Shard;
use super::sockets::{AnySocket, Owner, SocketId};
use crate::demux::{self, BindAddress, Binding, UdpConnectError, UdpHandle};
use crate::egress::PacketSpec;
use crate::egress::output::{Hop, LOOPED_MTU, Path, Transport};
use crate::icmp::ErrorKind;
use crate::icmp::error::ErrorToSend;
use crate::igmp_mld::{self, JoinError};
use crate::ingress::Verdict;
use crate::ingress::input::{Destination, Received, UDP};
use crate::ip::header;
use crate::observe::{DropReason, Event};
use crate::policy::{Action, AttemptKind, Protocol};
use crate::udp::header::{Checksum, Ends};
use crate::udp::membership::Memberships;
use crate::udp::{
    self, BindError, ConnectError, DatagramMeta, MembershipError, SendError, Socket, SocketError,
    SocketOptions,
};

/// Where a socket is to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBind {
    /// Address and port. An unspecified address is all of the family; port 0 is one that is chosen.
    pub local: SocketAddr,
    /// Several sockets may have the port, each of which gets every datagram for a group or broadcast; of
    /// others, the last one gets all (SO_REUSEADDR of Linux).
    pub reuse: bool,
    /// Manners of the socket.
    pub options: SocketOptions,
}

impl UdpBind {
    /// A socket at this address, its options left to the stack.
    pub fn new(local: SocketAddr) -> Self {
        Self { local, reuse: false, options: SocketOptions::default() }
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

/// Why a socket is not in a group, or not out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The socket is closed.
    #[error("the socket is closed")]
    Closed,
    /// Of the socket's own list.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// Of the groups of the interface.
    #[error(transparent)]
    Join(#[from] JoinError),
}

impl Shard {
    /// Makes a socket.
    ///
    /// # Errors
    /// The address is not ours, the port is in use, there is no room, or the policy does not allow it.
    pub fn udp_bind(&mut self, bind: UdpBind) -> Result<SocketId, BindError> {
        let local = self.udp_local(&bind)?;
        let is_policed = self.admit(AttemptKind::Listen, Protocol::Udp, local, None);
        let is_policed = is_policed.map_err(|_: Action| BindError::Forbidden { local })?;
        let bound = self.bind_udp(local, &bind);
        match bound {
            Ok(id) if is_policed => self.note_udp(id, local, None),
            Err(_) if is_policed => self.tell_ended(AttemptKind::Listen, Protocol::Udp, local, None),
            _ => {}
        }
        bound
    }

    /// Where a socket is to be: its port is chosen, if that was left to us.
    fn udp_local(&mut self, bind: &UdpBind) -> Result<SocketAddr, BindError> {
        if !self.sockets.has_room() {
            return Err(BindError::TooManySockets { max: self.config.sockets_max });
        }
        let mut local = canonical(bind.local);
        self.check_local(local.ip())?;
        if local.port() == 0 {
            local.set_port(self.choose_udp_port(local, bind)?);
        }
        Ok(local)
    }

    fn bind_udp(&mut self, local: SocketAddr, bind: &UdpBind) -> Result<SocketId, BindError> {
        let id = self.sockets.next_id();
        let binding = Binding::new(local.ip(), local.port(), bind.options.v6_only);
        let handle = self.udp.bind(binding, bind.reuse, Owner::Socket(id)).map_err(|error| match error {
            demux::BindError::Full { len_max } => BindError::TooManySockets { max: len_max },
            _ => BindError::InUse { local },
        })?;
        self.sockets.insert(AnySocket::Udp(Box::new(Socket::new(local, bind.options)), handle));
        Ok(id)
    }

    pub(super) fn check_local(&self, ip: IpAddr) -> Result<(), BindError> {
        let is_ours = ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || self.addresses.is_broadcast(ip)
            || self.addresses.is_local(ip);
        if is_ours { Ok(()) } else { Err(BindError::AddressNotOurs { address: ip }) }
    }

    fn choose_udp_port(&mut self, local: SocketAddr, bind: &UdpBind) -> Result<u16, BindError> {
        let udp = &self.udp;
        let is_free = |port| udp.is_free(Binding::new(local.ip(), port, bind.options.v6_only), false);
        self.ports.at_random(&mut self.random, is_free).ok_or(BindError::NoPort)
    }

    /// Closes a socket of any kind. What it has sent still goes.
    pub fn close(&mut self, id: SocketId) {
        self.forget_udp(id);
        match self.sockets.remove(id) {
            Some(AnySocket::Udp(_, handle)) => {
                self.udp.unbind(handle);
                self.membership.leave_all(self.now, id.index());
                self.drain_membership();
            }
            Some(AnySocket::Icmp(socket)) => {
                self.pings.remove(&(socket.local().is_ipv4(), socket.identifier()));
            }
            Some(AnySocket::Raw(_)) => self.close_raw(id),
            Some(AnySocket::Tcp(index)) => self.close_connection(index),
            Some(AnySocket::TcpListener(number)) => self.close_listener(number),
            None => {}
        }
    }

    /// Fixes whom a socket talks to: it receives from nobody else, and ICMP errors reach it. `None` undoes it.
    ///
    /// # Errors
    /// There is no way to the address, or no source address for it, or the policy does not allow it.
    pub fn udp_connect(&mut self, id: SocketId, remote: Option<SocketAddr>) -> Result<(), ConnectError> {
        let remote = remote.map(canonical);
        let handle = self.sockets.udp_handle(id).ok_or(ConnectError::Closed)?;
        let socket = self.sockets.udp(id).ok_or(ConnectError::Closed)?;
        let (local, before, v6_only) = (socket.local(), socket.remote(), socket.options().v6_only);
        let bound = self.udp.get(handle).map_or(local, |known| bound_address(known.bound, local));
        let Some(remote) = remote else {
            self.forget_udp_connection(id);
            self.udp.disconnect(handle);
            if let Some(socket) = self.sockets.udp_mut(id) {
                socket.disconnect(bound);
            }
            return Ok(());
        };
        let is_dual = bound.ip() == ANY_V6 && !v6_only;
        if bound.is_ipv4() != remote.is_ipv4() && !is_dual {
            return Err(ConnectError::AddressFamily { remote });
        }
        let src = Some(bound.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        let path = self
            .path(&PacketSpec { src, ..PacketSpec::new(remote.ip(), UDP) })
            .map_err(|reason| connect_error(reason, remote))?;
        let chosen = SocketAddr::new(path.src, local.port());
        let is_policed = self.admit(AttemptKind::Connect, Protocol::Udp, chosen, Some(remote));
        let is_policed = is_policed.map_err(|_: Action| ConnectError::Forbidden { remote })?;
        let connected = self.connect_udp(id, handle, (local, before), (chosen, remote));
        match connected {
            Ok(()) => {
                self.forget_udp_connection(id);
                if is_policed {
                    self.note_udp(id, chosen, Some(remote));
                }
            }
            Err(_) if is_policed => {
                self.tell_ended(AttemptKind::Connect, Protocol::Udp, chosen, Some(remote));
            }
            Err(_) => {}
        }
        connected
    }

    fn connect_udp(
        &mut self,
        id: SocketId,
        handle: UdpHandle,
        (local, before): (SocketAddr, Option<SocketAddr>),
        (chosen, remote): (SocketAddr, SocketAddr),
    ) -> Result<(), ConnectError> {
        self.sockets.udp_mut(id).ok_or(ConnectError::Closed)?.connect(chosen, remote)?;
        self.udp.connect(handle, chosen.ip(), remote).map_err(|error| {
            // In the table it is as it was.
            if let Some(socket) = self.sockets.udp_mut(id) {
                socket.disconnect(local);
                let _ = before.map(|before| socket.connect(local, before));
            }
            match error {
                UdpConnectError::Closed => ConnectError::Closed,
                _ => ConnectError::Bind(BindError::InUse { local: chosen }),
            }
        })
    }

    /// Makes a socket that talks to `remote` only, from a port that is chosen for it (RFC 6056): one at which the
    /// answers come to this shard. With several shards this is the way for who asks first; a socket that is
    /// bound to port 0 and connected later may have a port whose answers go to another one.
    ///
    /// # Errors
    /// There is no way to the address, no port or no room, or the policy does not allow the connection; of the port, it
    /// is not asked.
    pub fn udp_dial(&mut self, remote: SocketAddr, options: SocketOptions) -> Result<SocketId, ConnectError> {
        let remote = canonical(remote);
        let path =
            self.path(&PacketSpec::new(remote.ip(), UDP)).map_err(|reason| connect_error(reason, remote))?;
        let (udp, steering, own) = (&self.udp, self.config.steering, self.config.shard);
        let end = |port| SocketAddr::new(path.src, port);
        let is_free = |port| udp.is_free(Binding::new(path.src, port, true), false);
        let lands_here = |port| steering.shard_of_flow(end(port), remote, UDP) == own;
        let port = self.ports.for_flow(path.src, remote, &mut self.random, is_free, lands_here);
        let local = end(port.ok_or(ConnectError::Bind(BindError::NoPort))?);
        let bind = UdpBind { local, reuse: false, options };
        let local = self.udp_local(&bind)?;
        let id = self.bind_udp(local, &bind)?;
        match self.udp_connect(id, Some(remote)) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.close(id);
                Err(error)
            }
        }
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
        let prepared =
            socket.prepare(options.to.map(canonical), datagram_len, |ip| addresses.is_broadcast(ip))?;
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
            path.mtu = self.mtu_for(path.dst);
        }
        let room = path.mtu.saturating_sub(header::header_len(&spec) + udp::header::HEADER_LEN);
        let ports = (local_port, prepared.dst.port());
        let is_group = spec.dst.is_multicast();
        if is_group && loops && self.membership.is_member(spec.dst) {
            return self.send_to_group(&path, &spec, ports, (len, options.segment_bytes), write);
        }
        if is_group && spec.hop_limit == Some(0) {
            // Nobody on this host wants it.
            return Ok(());
        }
        self.emit_udp(&path, &spec, ports, (len, options.segment_bytes), write)
            .map_err(|reason| self.refuse_datagram(reason, room))?;
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
            self.emit_udp(path, spec, ports, (len, segment_bytes), copy)
                .map_err(|reason| self.refuse_datagram(reason, 0))?;
        }
        let looped = Path { hop: Hop::Looped, mtu: LOOPED_MTU, ..*path };
        self.emit_udp(&looped, spec, ports, (len, segment_bytes), copy)
            .map_err(|reason| self.refuse_datagram(reason, 0))?;
        self.counters.udp_sent += 1;
        Ok(())
    }

    pub(super) fn is_source(&self, src: IpAddr) -> bool {
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
            checksum_at: Some(udp::header::CHECKSUM_OFFSET as u16),
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

    /// Lends a run of datagrams that came merged, or the next one: `segment_bytes` of the metadata says how long
    /// each of them is. `None`: there is none.
    pub fn udp_recv_batch_with<R>(
        &mut self,
        id: SocketId,
        f: impl FnOnce(&DatagramMeta, &[u8]) -> R,
    ) -> Option<R> {
        self.sockets.udp_mut(id)?.recv_batch_with(f)
    }

    /// Copies the next datagram of a socket; what finds no room is lost, which `truncated` tells.
    pub fn udp_recv(&mut self, id: SocketId, room: &mut [u8]) -> Option<(usize, DatagramMeta)> {
        self.sockets.udp_mut(id)?.recv(room)
    }

    /// The next error of a socket.
    pub fn udp_take_error(&mut self, id: SocketId) -> Option<SocketError> {
        self.sockets.udp_mut(id)?.take_error()
    }

    /// Joins a group: from now on datagrams for it come to the socket, if they have its port.
    ///
    /// # Errors
    /// It is no group, the socket is in it already, or there is no room.
    pub fn udp_join(&mut self, id: SocketId, group: IpAddr) -> Result<(), GroupError> {
        self.change_groups(id, group, |memberships| memberships.join(group))
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// The socket is not in it.
    pub fn udp_leave(&mut self, id: SocketId, group: IpAddr) -> Result<(), GroupError> {
        self.change_groups(id, group, |memberships| memberships.leave(group))
    }

    /// Joins a group for datagrams of one source (RFC 4607), or adds a source.
    ///
    /// # Errors
    /// As of [`udp_join`](Self::udp_join).
    pub fn udp_join_source(&mut self, id: SocketId, group: IpAddr, source: IpAddr) -> Result<(), GroupError> {
        self.change_groups(id, group, |memberships| memberships.join_source(group, source))
    }

    /// Leaves a source of a group, and with the last one the group.
    ///
    /// # Errors
    /// The socket has not joined it.
    pub fn udp_leave_source(
        &mut self,
        id: SocketId,
        group: IpAddr,
        source: IpAddr,
    ) -> Result<(), GroupError> {
        self.change_groups(id, group, |memberships| memberships.leave_source(group, source))
    }

    /// Wants nothing any more of one source of a group that is joined as a whole.
    ///
    /// # Errors
    /// The socket is not in it, or in it by source, or too many sources are blocked.
    pub fn udp_block_source(
        &mut self,
        id: SocketId,
        group: IpAddr,
        source: IpAddr,
    ) -> Result<(), GroupError> {
        self.change_groups(id, group, |memberships| memberships.block(group, source))
    }

    /// Wants it again.
    ///
    /// # Errors
    /// It was not blocked.
    pub fn udp_unblock_source(
        &mut self,
        id: SocketId,
        group: IpAddr,
        source: IpAddr,
    ) -> Result<(), GroupError> {
        self.change_groups(id, group, |memberships| memberships.unblock(group, source))
    }

    /// Changes what a socket wants of a group, of which IGMP and MLD hear. If it fails, all is as it was.
    fn change_groups(
        &mut self,
        id: SocketId,
        group: IpAddr,
        change: impl FnOnce(&mut Memberships) -> Result<(), MembershipError>,
    ) -> Result<(), GroupError> {
        let memberships = self.sockets.udp_mut(id).ok_or(GroupError::Closed)?.memberships_mut();
        let before = memberships.get(group).cloned();
        change(memberships)?;
        let wanted = memberships.get(group).cloned();
        let (now, member) = (self.now, id.index());
        let Some(wanted) = wanted else {
            self.membership.leave(now, member, group);
            self.drain_membership();
            return Ok(());
        };
        let mode = match wanted.mode {
            udp::FilterMode::Include => igmp_mld::FilterMode::Include,
            udp::FilterMode::Exclude => igmp_mld::FilterMode::Exclude,
        };
        let told = self.membership.set_filter(now, member, group, mode, &wanted.sources);
        told.map_err(|error| {
            // Otherwise the socket would wait for what never comes.
            if let Some(socket) = self.sockets.udp_mut(id) {
                socket.memberships_mut().restore(group, before);
            }
            GroupError::Join(error)
        })
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
                let pushed = socket.push(meta, payload);
                // Also if there was no room: whoever has left something there hears of it again.
                self.sockets.mark_ready(id);
                if let Err(reason) = pushed {
                    self.hook.tell(self.now, &Event::SocketQueueFull { socket: id, reason });
                    return Err(reason);
                }
                self.counters.udp_received += 1;
                Ok(())
            }
            Owner::Dhcp => self.handle_dhcp(meta, payload),
            Owner::Dhcp6 => self.handle_dhcp6(meta, payload),
            Owner::Dns => self.handle_dns(meta, payload),
        }
    }

    /// To every socket of the port that wants what comes for this group or for everybody.
    fn deliver_to_all(&mut self, received: &Received<'_>, meta: &DatagramMeta, payload: &[u8]) -> Verdict {
        let (mut is_delivered, mut refused) = (false, None);
        // Each delivery changes the shard, so the list is taken out of the table first.
        let mut receivers = std::mem::take(&mut self.receivers);
        receivers.extend(self.udp.lookup_all(meta.dst, meta.src));
        for owner in receivers.drain(..) {
            if let Owner::Socket(id) = owner
                && received.destination == Destination::Group
                && !self.sockets.udp(id).is_some_and(|socket| socket.accepts(meta.src, meta.dst))
            {
                continue;
            }
            match self.deliver(owner, meta, payload) {
                Ok(()) => is_delivered = true,
                // One of them may be the verdict; the others are counted here.
                Err(reason) => {
                    if let Some(other) = refused.replace(reason) {
                        self.count_drop(other);
                    }
                }
            }
        }
        self.receivers = receivers;
        match refused {
            Some(reason) if is_delivered => self.count_drop(reason),
            Some(reason) => return Verdict::Dropped(reason),
            None if is_delivered => {}
            None => return Verdict::Dropped(DropReason::UdpNoSocket),
        }
        Verdict::Delivered
    }

    /// An ICMP error about a datagram of ours. `false`: nobody here can have sent it.
    pub(crate) fn handle_udp_error(&mut self, local: SocketAddr, error: SocketError) -> bool {
        match self.udp.lookup(local, error.dst) {
            Some(Owner::Socket(id)) => {
                let Some(socket) = self.sockets.udp_mut(id) else { return false };
                if socket.push_error(error) {
                    self.sockets.mark_ready(id);
                }
                true
            }
            Some(Owner::Dns) => {
                // Who only guesses ports does not stop a query: the server must be the right one as well.
                let is_its = |query: crate::dns::QuerySnapshot| {
                    query.local_port == local.port()
                        && (query.server.ip(), query.server.port()) == (error.dst.ip(), error.dst.port())
                };
                let is_known = self.dns.queries().any(is_its);
                if is_known && !matches!(error.kind, ErrorKind::TooBig { .. }) {
                    self.dns.handle_unreachable(self.now, local.port());
                }
                is_known
            }
            // Everybody knows these ports, so an error about them proves nothing (RFC 5927 section 4), and the
            // clients need none: they ask until somebody answers.
            Some(Owner::Dhcp | Owner::Dhcp6) | None => false,
        }
    }
}

/// An address as the stack has it: an IPv4-mapped one is of IPv4.
pub(super) fn canonical(at: SocketAddr) -> SocketAddr {
    match at.ip() {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => SocketAddr::new(v6.to_canonical(), at.port()),
        _ => at,
    }
}

/// Where a socket was bound before it was connected.
fn bound_address(bound: Binding, local: SocketAddr) -> SocketAddr {
    let ip = match bound.address {
        BindAddress::Address(ip) => ip,
        BindAddress::AnyV4 => ANY_V4,
        BindAddress::AnyV6 | BindAddress::Any => ANY_V6,
    };
    SocketAddr::new(ip, local.port())
}

/// What a sender is told. `max`: bytes of payload that would go.
pub(super) fn send_error(reason: DropReason, max: usize) -> SendError {
    match reason {
        DropReason::NoSource => SendError::NoSource,
        DropReason::TooLong => SendError::TooLong { max },
        DropReason::OutboxFull | DropReason::NeighborQueueFull | DropReason::NeighborNoRoom => {
            SendError::WouldBlock
        }
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
