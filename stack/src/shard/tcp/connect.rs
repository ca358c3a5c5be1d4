//! Listening, accepting, connecting.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Listening, Tcp};
use crate::demux::{self, Binding, FlowKey};
use crate::egress::PacketSpec;
use crate::ingress::input::TCP;
use crate::observe::DropReason;
use crate::policy::{Action, AttemptKind, Protocol};
use crate::shard::sockets::AnySocket;
use crate::shard::udp::canonical;
use crate::shard::{Shard, SocketId};
use crate::tcp::accept_queue::Listener;
use crate::tcp::tcb::Tcb;
use crate::tcp::{ConnectError, ListenError, TcpOptions};

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

impl TcpListen {
    /// A listener at this address with a backlog of 1024, the rest left to the stack.
    pub fn new(local: SocketAddr) -> Self {
        let options = TcpOptions::default();
        Self { local, v6_only: false, backlog: 1_024, resets_on_overflow: false, options }
    }
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

impl TcpConnect {
    /// A connection to this address, the rest left to the stack.
    pub fn new(remote: SocketAddr) -> Self {
        Self { remote, local: None, options: TcpOptions::default() }
    }
}

impl Shard {
    /// Listens.
    ///
    /// # Errors
    /// The address is not ours, the port is in use, there is no room, or the policy does not allow it.
    pub fn tcp_listen(&mut self, listen: TcpListen) -> Result<SocketId, ListenError> {
        if !self.sockets.has_room() {
            return Err(ListenError::TooMany { max: self.config.sockets_max });
        }
        let mut local = canonical(listen.local);
        let is_ours = local.ip().is_unspecified() || self.is_source(local.ip());
        if !is_ours {
            return Err(ListenError::AddressNotOurs { address: local.ip() });
        }
        if local.port() == 0 {
            let (table, v6_only) = (&self.tcp.listen, listen.v6_only);
            let is_free = |port| table.is_free(Binding::new(local.ip(), port, v6_only));
            local.set_port(self.ports.at_random(&mut self.random, is_free).ok_or(ListenError::NoPort)?);
        }
        let is_policed = self.admit(AttemptKind::Listen, Protocol::Tcp, local, None);
        let is_policed = is_policed.map_err(|_: Action| ListenError::Forbidden { local })?;
        let listened = self.listen_at(local, &listen, is_policed);
        if listened.is_err() && is_policed {
            self.tell_ended(AttemptKind::Listen, Protocol::Tcp, local, None);
        }
        listened
    }

    fn listen_at(
        &mut self,
        local: SocketAddr,
        listen: &TcpListen,
        is_policed: bool,
    ) -> Result<SocketId, ListenError> {
        let binding = Binding::new(local.ip(), local.port(), listen.v6_only);
        let number = self.tcp.next_listener;
        self.tcp.listen.bind(binding, number).map_err(|error| match error {
            demux::BindError::Full { len_max } => ListenError::TooMany { max: len_max },
            _ => ListenError::InUse { local },
        })?;
        self.tcp.next_listener = number.wrapping_add(1);
        let socket = self.sockets.insert(AnySocket::TcpListener(number));
        let options = listen.options.within_bounds();
        let listener = Listener::new(local, options, listen.backlog, listen.resets_on_overflow);
        let listening = Listening { listener, options: Arc::new(options), socket, binding, is_policed };
        self.tcp.listeners.insert(number, listening);
        Ok(socket)
    }

    /// Takes the connection that has waited longest at a listener. `None`: none waits, or there is no room for another
    /// socket (it waits on).
    pub fn tcp_accept(&mut self, listener: SocketId) -> Option<SocketId> {
        let Some(AnySocket::TcpListener(number)) = self.sockets.get(listener) else { return None };
        let number = *number;
        if !self.sockets.has_room() {
            return None;
        }
        let index = self.tcp.listeners.get_mut(&number)?.listener.pop()?;
        let id = self.sockets.insert(AnySocket::Tcp(index));
        let connection = self.tcp.connections.get_mut(index as usize)?;
        (connection.socket, connection.listener) = (Some(id), None);
        let tcb = &connection.tcb;
        let has_news = tcb.recv.readable() > 0 || tcb.has_peer_finished() || tcb.failure.is_some();
        self.tcp.counters.accepted += 1;
        if has_news {
            self.sockets.mark_ready(id);
        }
        Some(id)
    }

    /// Begins a connection. An event comes when it is there or has failed; what is written before that waits.
    ///
    /// # Errors
    /// There is no way, no port or no room, or the policy does not allow it.
    pub fn tcp_connect(&mut self, connect: TcpConnect) -> Result<SocketId, ConnectError> {
        if !self.sockets.has_room() {
            return Err(ConnectError::TooMany { max: self.config.sockets_max });
        }
        if !self.has_connection_room() {
            return Err(ConnectError::TooMany { max: self.tcp.config.connections_max });
        }
        let remote = canonical(connect.remote);
        self.check_remote(remote)?;
        let src = connect.local.map(|local| canonical(local).ip()).filter(|ip| !ip.is_unspecified());
        if let Some(address) = src.filter(|src| !self.is_source(*src)) {
            return Err(ConnectError::AddressNotOurs { address });
        }
        let path = self.path(&PacketSpec { src, ..PacketSpec::new(remote.ip(), TCP) });
        let path = path.map_err(|_: DropReason| ConnectError::NoRoute { remote })?;
        if path.src.is_ipv4() != remote.is_ipv4() {
            return Err(ConnectError::NoRoute { remote });
        }
        let port = connect.local.map_or(0, |local| local.port());
        let local = self.local_end(path.src, port, remote)?;
        let flow = FlowKey::new(local, remote).ok_or(ConnectError::BadAddress { remote })?;
        if self.tcp.flows.get(&flow).is_some() {
            return Err(ConnectError::InUse { local });
        }
        let is_policed = self.admit(AttemptKind::Connect, Protocol::Tcp, local, Some(remote));
        let is_policed = is_policed.map_err(|_: Action| ConnectError::Forbidden { remote })?;
        let (iss, offset) = (self.tcp.isn.choose(self.now, &flow), self.tcp.isn.timestamp_offset(&flow));
        let mtu = path.mtu.min(u16::MAX.into()) as u16;
        let tcb =
            Tcb::connecting(flow, iss, offset, Arc::new(connect.options.within_bounds()), mtu, self.now);
        let id = self.sockets.next_id();
        let index = self.tcp.add(tcb, Some(id), None);
        let policed = is_policed.then_some(AttemptKind::Connect);
        let Some(index) = index else {
            self.tell_flow_ended(policed, &flow);
            return Err(ConnectError::TooMany { max: self.tcp.config.connections_max });
        };
        if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
            connection.policed = policed;
        }
        self.sockets.insert(AnySocket::Tcp(index));
        self.tcp.counters.active_opens += 1;
        self.touch_connection(index);
        Ok(id)
    }

    fn check_remote(&self, remote: SocketAddr) -> Result<(), ConnectError> {
        let ip = remote.ip();
        let is_bad = remote.port() == 0
            || ip.is_unspecified()
            || ip.is_multicast()
            || ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
            || self.addresses.is_broadcast(ip);
        if is_bad { Err(ConnectError::BadAddress { remote }) } else { Ok(()) }
    }

    /// Our end: the port that was asked for, or one that nobody has for this peer and whose segments come here.
    fn local_end(&mut self, src: IpAddr, port: u16, remote: SocketAddr) -> Result<SocketAddr, ConnectError> {
        if port != 0 {
            return Ok(SocketAddr::new(src, port));
        }
        let (tcp, steering, own) = (&self.tcp, self.config.steering, self.config.shard);
        let end = |port| SocketAddr::new(src, port);
        let is_free = |port| is_flow_free(tcp, end(port), remote);
        let lands_here = |port| steering.shard_of_flow(end(port), remote, TCP) == own;
        let port = self.ports.for_flow(src, remote, &mut self.random, is_free, lands_here);
        port.map(end).ok_or(ConnectError::NoPort)
    }
}

/// A port that somebody listens at is left alone, and so is a flow that exists, be it in TIME-WAIT.
fn is_flow_free(tcp: &Tcp, local: SocketAddr, remote: SocketAddr) -> bool {
    let is_served = tcp.listen.lookup(local.ip(), local.port()).is_some();
    !is_served && FlowKey::new(local, remote).is_some_and(|flow| tcp.flows.get(&flow).is_none())
}
