//! One UDP socket: where it is, what it may do, what has come for it.
//!
//! Whoever owns the table of sockets finds the socket of a datagram and calls [`Socket::push`]; of an
//! ICMP error, [`Socket::push_error`]. Sending begins with [`Socket::prepare`], which says what the packet
//! is to look like; routing and writing are the caller's.

use std::net::{IpAddr, SocketAddr};

use super::error::{ConnectError, ErrorQueue, SendError, SocketError};
use super::header::{PAYLOAD_V4_MAX, PAYLOAD_V6_MAX};
use super::membership::Memberships;
use super::meta::{DatagramMeta, PackedMeta};
use super::queue::{Queue, QueueLimits};
use crate::egress::PacketSpec;
use crate::icmp::ErrorKind;
use crate::observe::DropReason;

/// What happens to a datagram that is longer than the path takes (IP_MTU_DISCOVER).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fragmenting {
    /// It is sent in fragments. DF is set on what is whole, so that the path tells its MTU
    /// (IP_PMTUDISC_WANT).
    #[default]
    Discover,
    /// It is sent in fragments; DF is not set (IP_PMTUDISC_DONT).
    Allow,
    /// It is not sent: [`SendError::TooLong`]. DF is set (IP_PMTUDISC_DO).
    Forbid,
    /// DF is set, and what ICMP says of the path is not believed: only the MTU of the interface bounds
    /// it (IP_PMTUDISC_PROBE). For those who find the path's MTU themselves (RFC 8899).
    Probe,
}

/// What a socket may do and how it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// TTL or hop limit to one host. `None`: the interface's.
    pub hop_limit: Option<u8>,
    /// The same to groups, 0 to 255; with 0 nothing leaves this host.
    pub multicast_hop_limit: u8,
    /// Whether what is sent to a group comes to members on this host as well.
    pub multicast_loop: bool,
    /// DSCP, and ECN in the two low bits.
    pub traffic_class: u8,
    /// Whether datagrams may be sent to broadcast addresses (SO_BROADCAST).
    pub broadcast: bool,
    /// What happens to what is too long for the path.
    pub dont_fragment: Fragmenting,
    /// Bytes of payload that wait at most, 0 to [`QUEUE_BYTES_MAX`](super::queue::QUEUE_BYTES_MAX). The
    /// memory for it grows as it is needed, to at most twice that.
    pub recv_buffer_bytes: usize,
    /// Datagrams that wait at most.
    pub recv_datagrams_max: usize,
    /// Whether all ICMP errors are reported (IP_RECVERR). Without it, a connected socket gets those for
    /// which there is no hope, and one that is not connected gets none.
    pub recv_errors: bool,
    /// Whether a socket of the unspecified IPv6 address takes IPv6 only (IPV6_V6ONLY).
    pub v6_only: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        let QueueLimits { bytes_max, datagrams_max } = QueueLimits::default();
        Self {
            hop_limit: None,
            multicast_hop_limit: 1,
            multicast_loop: true,
            traffic_class: 0,
            broadcast: false,
            dont_fragment: Fragmenting::default(),
            recv_buffer_bytes: bytes_max,
            recv_datagrams_max: datagrams_max,
            recv_errors: false,
            v6_only: false,
        }
    }
}

impl SocketOptions {
    fn limits(&self) -> QueueLimits {
        QueueLimits { bytes_max: self.recv_buffer_bytes, datagrams_max: self.recv_datagrams_max }
    }
}

/// What [`Socket::prepare`] says of a datagram to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Where it goes.
    pub dst: SocketAddr,
    /// What its packet looks like. `src` is the local address if the socket has one.
    pub spec: PacketSpec,
    /// Whether the MTU that ICMP told of the path counts ([`Fragmenting::Probe`]: it does not).
    pub heeds_path_mtu: bool,
}

/// One UDP socket.
#[derive(Debug, Clone)]
pub struct Socket {
    local: SocketAddr,
    remote: Option<SocketAddr>,
    options: SocketOptions,
    queue: Queue<PackedMeta>,
    errors: ErrorQueue<SocketError>,
    memberships: Memberships,
    dropped_datagrams: u64,
    received_datagrams: u64,
}

impl Socket {
    /// A socket that is bound to `local`, whose address may be unspecified. It holds no memory beside
    /// itself until something comes.
    pub fn new(local: SocketAddr, options: SocketOptions) -> Self {
        Self {
            local,
            remote: None,
            options,
            queue: Queue::new(options.limits()),
            errors: ErrorQueue::default(),
            memberships: Memberships::default(),
            dropped_datagrams: 0,
            received_datagrams: 0,
        }
    }

    /// Takes a datagram, or a merged run of them in one copy.
    ///
    /// # Errors
    /// [`DropReason::UdpQueueFull`]: it would be more than the options allow. All of a run is dropped then.
    pub fn push(&mut self, meta: &DatagramMeta, payload: &[u8]) -> Result<(), DropReason> {
        let before = self.queue.queued_datagrams();
        match self.queue.push(PackedMeta::pack(meta), payload, meta.segment_bytes) {
            Ok(()) => {
                self.received_datagrams += (self.queue.queued_datagrams() - before) as u64;
                Ok(())
            }
            Err(_) => {
                let bytes = meta.segment_bytes.map_or(usize::MAX, |bytes| bytes.get().into());
                self.dropped_datagrams += payload.len().div_ceil(bytes).max(1) as u64;
                Err(DropReason::UdpQueueFull)
            }
        }
    }

    /// Lends the first datagram to `f` and takes it out; of a merged run the first of those that are left.
    /// `None`: there is none.
    pub fn recv_with<R>(&mut self, f: impl FnOnce(&DatagramMeta, &[u8]) -> R) -> Option<R> {
        self.queue.pop_with(|packed, payload| f(&packed.unpack(None), payload))
    }

    /// The same for all that is left of a merged run: [`DatagramMeta::segment_bytes`] says how it splits.
    pub fn recv_batch_with<R>(&mut self, f: impl FnOnce(&DatagramMeta, &[u8]) -> R) -> Option<R> {
        self.queue.pop_run_with(|packed, payload, segment_bytes| f(&packed.unpack(segment_bytes), payload))
    }

    /// Copies the first datagram and takes it out: how many bytes of `room` were written. What does not fit
    /// is lost, and [`DatagramMeta::truncated`] says so.
    pub fn recv(&mut self, room: &mut [u8]) -> Option<(usize, DatagramMeta)> {
        self.recv_with(|meta, payload| {
            let len = payload.len().min(room.len());
            room[..len].copy_from_slice(&payload[..len]);
            (len, DatagramMeta { truncated: len < payload.len(), ..*meta })
        })
    }

    /// Lends the first datagram to `f`, and leaves it where it is.
    pub fn peek_with<R>(&self, f: impl FnOnce(&DatagramMeta, &[u8]) -> R) -> Option<R> {
        self.queue.peek_with(|packed, payload| f(&packed.unpack(None), payload))
    }

    /// Takes an ICMP error about a datagram that this socket has sent. `false`: the options do not want it
    /// reported.
    pub fn push_error(&mut self, error: SocketError) -> bool {
        let is_too_long = matches!(error.kind, ErrorKind::TooBig { .. });
        let is_hard =
            error.kind.is_hard() || (is_too_long && self.options.dont_fragment != Fragmenting::Allow);
        let is_wanted = self.options.recv_errors
            || (is_hard && self.remote.is_some_and(|remote| is_same(remote, error.dst)));
        if is_wanted {
            self.errors.push(error);
        }
        is_wanted
    }

    /// The oldest error that was not taken yet. Linux reports it by the next send or receive; so does who
    /// calls this first in both.
    pub fn take_error(&mut self) -> Option<SocketError> {
        self.errors.take()
    }

    /// From now on it hears of `remote` only, and sends there if nothing else is said. What has come
    /// before stays queued. The caller has chosen `local` if it was unspecified.
    ///
    /// # Errors
    /// `remote` is no destination, or of the other IP version.
    pub fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<(), ConnectError> {
        if remote.ip().is_unspecified() || remote.port() == 0 {
            return Err(ConnectError::BadDestination { remote });
        }
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(ConnectError::AddressFamily { remote });
        }
        self.local = local;
        self.remote = Some(remote);
        Ok(())
    }

    /// Hears of everybody again, at `local`: the address to which it was bound.
    pub fn disconnect(&mut self, local: SocketAddr) {
        self.local = local;
        self.remote = None;
    }

    /// What a datagram to `to`, or to the remote end, is to look like. `is_broadcast` says of an address
    /// whether it is a broadcast address.
    ///
    /// # Errors
    /// It cannot be sent: no destination, one that this socket cannot reach, or too long for a datagram. Of
    /// the path, the caller knows.
    pub fn prepare(
        &self,
        to: Option<SocketAddr>,
        payload_len: usize,
        is_broadcast: impl FnOnce(IpAddr) -> bool,
    ) -> Result<Prepared, SendError> {
        let dst = to.or(self.remote).ok_or(SendError::NotConnected)?;
        let (local, ip) = (self.local.ip(), dst.ip());
        if dst.port() == 0 || ip.is_unspecified() {
            return Err(SendError::BadDestination);
        }
        // A socket of [::] sends over IPv4 as well, unless told otherwise.
        let is_dual = local.is_ipv6() && local.is_unspecified() && !self.options.v6_only;
        if local.is_ipv4() != ip.is_ipv4() && !is_dual {
            return Err(SendError::AddressFamily);
        }
        let max = if ip.is_ipv4() { PAYLOAD_V4_MAX } else { PAYLOAD_V6_MAX };
        if payload_len > max {
            return Err(SendError::TooLong { max });
        }
        if !self.options.broadcast && is_broadcast(ip) {
            return Err(SendError::BroadcastNotAllowed);
        }
        let is_group = ip.is_multicast();
        let hop_limit =
            if is_group { Some(self.options.multicast_hop_limit) } else { self.options.hop_limit };
        let spec = PacketSpec {
            // A group is no source, though one can be bound to it to receive.
            src: Some(local).filter(|local| !local.is_unspecified() && !local.is_multicast()),
            hop_limit,
            traffic_class: self.options.traffic_class,
            dont_fragment: matches!(self.options.dont_fragment, Fragmenting::Forbid | Fragmenting::Probe),
            discovers_path_mtu: self.options.dont_fragment == Fragmenting::Discover,
            ..PacketSpec::new(ip, super::PROTOCOL)
        };
        let heeds_path_mtu = self.options.dont_fragment != Fragmenting::Probe;
        Ok(Prepared { dst, spec, heeds_path_mtu })
    }

    /// Whether a datagram from `src` to `dst` is for this socket: the two ends match what it is bound and
    /// connected to, and it has joined the group.
    pub fn accepts(&self, src: SocketAddr, dst: SocketAddr) -> bool {
        let local = self.local.ip();
        let is_any = local.is_unspecified()
            && (local.is_ipv4() == dst.is_ipv4() || (local.is_ipv6() && !self.options.v6_only));
        let is_local = self.local.port() == dst.port() && (is_any || local == dst.ip());
        let is_remote = self.remote.is_none_or(|remote| is_same(remote, src));
        let is_wanted = !dst.ip().is_multicast() || self.memberships.wants(dst.ip(), src.ip());
        is_local && is_remote && is_wanted
    }

    /// Changes the options.
    pub fn set_options(&mut self, options: SocketOptions) {
        self.options = options;
        self.queue.set_limits(options.limits());
    }

    /// How it sends and what it may do.
    pub fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// Which groups it has joined.
    pub fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    /// The same, to be changed; IGMP or MLD is to be told.
    pub fn memberships_mut(&mut self) -> &mut Memberships {
        &mut self.memberships
    }

    /// Where it is bound; the address may be unspecified.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// To whom it is connected.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Whether there is a datagram or an error to be taken.
    pub fn readable(&self) -> bool {
        !self.queue.is_empty() || self.errors.len() > 0
    }

    /// Bytes of payload that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    /// Datagrams that wait, each of a merged run counted.
    pub fn queued_datagrams(&self) -> usize {
        self.queue.queued_datagrams()
    }

    /// Datagrams that found the queue full.
    pub fn dropped_datagrams(&self) -> u64 {
        self.dropped_datagrams
    }

    /// What people want to see of it.
    pub fn snapshot(&self) -> SocketSnapshot {
        SocketSnapshot {
            local: self.local,
            remote: self.remote,
            queued_bytes: self.queue.queued_bytes(),
            queued_datagrams: self.queue.queued_datagrams(),
            received_datagrams: self.received_datagrams,
            dropped_datagrams: self.dropped_datagrams,
            queued_errors: self.errors.len(),
            dropped_errors: self.errors.dropped(),
            memory_bytes: self.queue.memory_bytes(),
        }
    }
}

/// Whether two addresses and ports are the same; scopes do not count, for a shard has one link.
fn is_same(ours: SocketAddr, theirs: SocketAddr) -> bool {
    (ours.ip(), ours.port()) == (theirs.ip(), theirs.port())
}

/// One socket as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSnapshot {
    /// Where it is bound.
    pub local: SocketAddr,
    /// To whom it is connected.
    pub remote: Option<SocketAddr>,
    /// Bytes of payload that wait.
    pub queued_bytes: usize,
    /// Datagrams that wait.
    pub queued_datagrams: usize,
    /// Datagrams that were queued since it was opened.
    pub received_datagrams: u64,
    /// Datagrams that found the queue full.
    pub dropped_datagrams: u64,
    /// Errors that wait.
    pub queued_errors: usize,
    /// Errors for which there was no room.
    pub dropped_errors: u64,
    /// Bytes of memory that its queue holds.
    pub memory_bytes: usize,
}

#[cfg(test)]
mod tests;
