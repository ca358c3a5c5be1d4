//! Datagrams, on all shards at once.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::error::io_error_of_send;
use super::listener::hop_limit_of;
use super::{Access, Hub, Interest, Stack};
use crate::demux::Steering;
use crate::shard::{SendOptions, SocketId, UdpBind};
use crate::udp::{BindError, DatagramMeta, SendError, SocketOptions};

/// A socket for datagrams. All methods take `&self`; waiting is cancel-safe.
///
/// With several shards it is one socket in each: what is sent to it comes to the shard of its flow, and is told from there.
pub struct UdpSocket<A: Access> {
    places: Vec<(A, SocketId)>,
    steering: Steering,
    /// Who is asked first next time.
    next: AtomicUsize,
}

impl<A: Access> UdpSocket<A> {
    /// Binds on all shards of a stack.
    ///
    /// # Errors
    /// The address is not ours ([`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable)), the port is in use
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)), or there is no room.
    pub fn open(stack: &Stack<A>, local: SocketAddr) -> io::Result<Self> {
        for attempt in 1.. {
            match Self::try_open(stack, local) {
                Err(error)
                    if local.port() == 0
                        && attempt < ATTEMPTS_MAX
                        && error.kind() == io::ErrorKind::AddrInUse => {}
                opened => return opened,
            }
        }
        Err(BindError::NoPort.into())
    }

    fn try_open(stack: &Stack<A>, mut local: SocketAddr) -> io::Result<Self> {
        let mut socket = Self { places: Vec::new(), steering: stack.steering(), next: AtomicUsize::new(0) };
        for shard in stack.shards() {
            let (id, bound) = shard.with(|hub| {
                if let Some(fault) = hub.fault() {
                    return Err(io::Error::from(fault));
                }
                let id = hub.shard().udp_bind(UdpBind::new(local))?;
                let bound = hub.shard_ref().udp_socket(id).map_or(local, |socket| socket.local());
                Ok((id, bound))
            })?;
            socket.places.push((shard.clone(), id));
            local = bound;
        }
        Ok(socket)
    }

    /// The place where what is exchanged with this peer comes and goes.
    fn home(&self, peer: Option<SocketAddr>) -> &(A, SocketId) {
        if self.places.len() == 1 {
            return &self.places[0];
        }
        let ends = self.local_addr().ok().zip(peer);
        // Without an address of ours it is not known which way the answer will come; any place will do.
        let ends = ends.filter(|(local, _)| !local.ip().is_unspecified());
        let home = ends.map_or(0, |(local, peer)| self.steering.shard_of_flow(local, peer, UDP));
        &self.places[home % self.places.len()]
    }

    fn with_first<R>(&self, f: impl FnOnce(&mut Hub, SocketId) -> R) -> R {
        let (shard, id) = &self.places[0];
        shard.with(|hub| f(hub, *id))
    }

    /// Our end.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the socket was closed by the stack.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.with_first(|hub, id| hub.shard_ref().udp_socket(id).map(|socket| socket.local()));
        local.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Whom it is connected to.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): to nobody.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let remote = self.with_first(|hub, id| hub.shard_ref().udp_socket(id)?.remote());
        remote.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Fixes whom it talks to.
    ///
    /// # Errors
    /// There is no way to the address.
    pub fn connect_now(&self, remote: SocketAddr) -> io::Result<()> {
        for (shard, id) in &self.places {
            shard.with(|hub| hub.shard().udp_connect(*id, Some(remote)))?;
        }
        Ok(())
    }

    /// Sends a datagram to this peer. `Pending`: there is no room now.
    ///
    /// # Errors
    /// As std's `UdpSocket::send_to`.
    pub fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        payload: &[u8],
        to: Option<SocketAddr>,
    ) -> Poll<io::Result<usize>> {
        let peer = to.or_else(|| (self.places.len() > 1).then(|| self.peer_addr().ok()).flatten());
        let (shard, id) = self.home(peer);
        shard.with(|hub| {
            if let Some(fault) = hub.fault() {
                return Poll::Ready(Err(fault.into()));
            }
            // As Linux, whose next call of either kind tells of it.
            if let Some(error) = hub.shard().udp_take_error(*id) {
                return Poll::Ready(Err(error.into()));
            }
            let options = SendOptions { to, ..SendOptions::default() };
            match hub
                .shard()
                .udp_send_with(*id, &options, payload.len(), |room| room.copy_from_slice(payload))
            {
                Ok(()) => Poll::Ready(Ok(payload.len())),
                Err(SendError::WouldBlock) => {
                    hub.wait_for_room(context.waker());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(io_error_of_send(error))),
            }
        })
    }

    /// Sends a datagram to this peer, waiting for room.
    ///
    /// # Errors
    /// As std's `UdpSocket::send_to`.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        poll_fn(|context| self.poll_send_to(context, payload, Some(to))).await
    }

    /// Sends a datagram to whom it is connected to, waiting for room.
    ///
    /// # Errors
    /// As std's `UdpSocket::send`.
    pub async fn send(&self, payload: &[u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_send_to(context, payload, None)).await
    }

    /// Lends the next datagram to `f`. `Pending`: there is none.
    ///
    /// # Errors
    /// What ICMP says of what was sent.
    pub fn poll_recv_with<R>(
        &self,
        context: &mut Context<'_>,
        f: &mut impl FnMut(&DatagramMeta, &[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for position in 0..self.places.len() {
            let (shard, id) = &self.places[(first + position) % self.places.len()];
            let received = shard.with(|hub| {
                if let Some(error) = hub.shard().udp_take_error(*id) {
                    return Some(Err(error.into()));
                }
                if let Some(received) = hub.shard().udp_recv_with(*id, &mut *f) {
                    return Some(Ok(received));
                }
                if let Some(fault) = hub.fault() {
                    return Some(Err(fault.into()));
                }
                hub.wait_for(*id, Interest::Read, context.waker());
                None
            });
            if let Some(received) = received {
                return Poll::Ready(received);
            }
        }
        Poll::Pending
    }

    /// Copies the next datagram; what finds no room is lost. `Pending`: there is none.
    ///
    /// # Errors
    /// What ICMP says of what was sent.
    pub fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<(usize, DatagramMeta)>> {
        self.poll_recv_with(context, &mut |meta, payload| {
            let len = payload.len().min(room.len());
            room[..len].copy_from_slice(&payload[..len]);
            (len, DatagramMeta { truncated: len < payload.len(), ..*meta })
        })
    }

    /// Copies the next datagram, and tells who sent it.
    ///
    /// # Errors
    /// What ICMP says of what was sent.
    pub async fn recv_from(&self, room: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, meta) = poll_fn(|context| self.poll_recv_from(context, room)).await?;
        Ok((len, meta.src))
    }

    /// Copies the next datagram.
    ///
    /// # Errors
    /// What ICMP says of what was sent.
    pub async fn recv(&self, room: &mut [u8]) -> io::Result<usize> {
        Ok(self.recv_from(room).await?.0)
    }

    /// Copies the next datagram and leaves it there.
    ///
    /// # Errors
    /// What ICMP says of what was sent.
    pub fn poll_peek_from(
        &self,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        for (shard, id) in &self.places {
            let peeked = shard.with(|hub| {
                if let Some(error) = hub.shard().udp_take_error(*id) {
                    return Some(Err(error.into()));
                }
                let socket = hub.shard_ref().udp_socket(*id);
                let peeked = socket.and_then(|socket| {
                    socket.peek_with(|meta, payload| {
                        let len = payload.len().min(room.len());
                        room[..len].copy_from_slice(&payload[..len]);
                        (len, meta.src)
                    })
                });
                if peeked.is_some() {
                    return peeked.map(Ok);
                }
                if let Some(fault) = hub.fault() {
                    return Some(Err(fault.into()));
                }
                hub.wait_for(*id, Interest::Read, context.waker());
                None
            });
            if let Some(peeked) = peeked {
                return Poll::Ready(peeked);
            }
        }
        Poll::Pending
    }

    /// Copies the next datagram, leaves it there, and tells who sent it.
    ///
    /// # Errors
    /// What ICMP says of what was sent.
    pub async fn peek_from(&self, room: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|context| self.poll_peek_from(context, room)).await
    }

    /// Its manners.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the socket was closed by the stack.
    pub fn options(&self) -> io::Result<SocketOptions> {
        let options =
            self.with_first(|hub, id| hub.shard_ref().udp_socket(id).map(|socket| *socket.options()));
        options.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Changes them, in all shards.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the socket was closed by the stack.
    pub fn change_options(&self, change: impl FnOnce(&mut SocketOptions)) -> io::Result<()> {
        let mut options = self.options()?;
        change(&mut options);
        for (shard, id) in &self.places {
            shard.with(|hub| hub.shard().udp_set_options(*id, options));
        }
        Ok(())
    }

    /// TTL or hop limit to one host, 1 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value; [`NotConnected`](io::ErrorKind::NotConnected).
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let hop_limit = hop_limit_of(ttl)?;
        self.change_options(|options| options.hop_limit = Some(hop_limit))
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the socket was closed by the stack.
    pub fn ttl(&self) -> io::Result<u32> {
        let default = self.with_first(|hub, _| hub.shard_ref().hop_limit());
        Ok(self.options()?.hop_limit.unwrap_or(default).into())
    }

    /// An error that waits, told once (SO_ERROR).
    pub fn take_error(&self) -> Option<io::Error> {
        let mut places = self.places.iter();
        places.find_map(|(shard, id)| shard.with(|hub| hub.shard().udp_take_error(*id)).map(Into::into))
    }

    /// Joins a group.
    ///
    /// # Errors
    /// It is no group, the socket is in it already, or there is no room.
    pub fn join_multicast(&self, group: IpAddr) -> io::Result<()> {
        self.places.iter().try_for_each(|(shard, id)| shard.with(|hub| hub.shard().udp_join(*id, group)))?;
        Ok(())
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// The socket is not in it.
    pub fn leave_multicast(&self, group: IpAddr) -> io::Result<()> {
        self.places.iter().try_for_each(|(shard, id)| shard.with(|hub| hub.shard().udp_leave(*id, group)))?;
        Ok(())
    }
}

impl<A: Access> Drop for UdpSocket<A> {
    fn drop(&mut self) {
        for (shard, id) in &self.places {
            shard.with(|hub| hub.close(*id));
        }
    }
}

impl<A: Access> fmt::Debug for UdpSocket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("shards", &self.places.len()).finish_non_exhaustive()
    }
}

/// Ports that are tried.
const ATTEMPTS_MAX: usize = 16;
const UDP: u8 = 17;
