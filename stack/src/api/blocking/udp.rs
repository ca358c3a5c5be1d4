//! Datagrams.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::park::{Manners, block_on_for_ever};
use crate::api::installed::first;
use crate::api::{self, Shared, Stack, ToEndpoint, installed};

/// As `std::net::UdpSocket`. It is closed when its last clone is dropped.
pub struct UdpSocket {
    shared: Arc<Socket>,
}

struct Socket {
    socket: api::UdpSocket<Shared>,
    manners: Manners,
    /// That of [`UdpSocket::send_to`] with a name, which is looked up there.
    stack: Stack<Shared>,
}

impl UdpSocket {
    /// Binds on the installed stack.
    ///
    /// # Errors
    /// The address is not ours ([`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable)), the port is in use
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)); no stack is installed
    /// ([`NotConnected`](io::ErrorKind::NotConnected)).
    pub fn bind(endpoint: impl ToEndpoint) -> io::Result<Self> {
        Self::bind_on(&installed()?, endpoint)
    }

    /// Binds on this stack.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_on(stack: &Stack<Shared>, endpoint: impl ToEndpoint) -> io::Result<Self> {
        let addresses = block_on_for_ever(stack.resolve(endpoint))?;
        let socket = first(addresses, |address| stack.udp_bind(address))?;
        Ok(Self { shared: Arc::new(Socket { socket, manners: Manners::default(), stack: stack.clone() }) })
    }

    /// Takes the next datagram, and tells who sent it. What finds no room is lost.
    ///
    /// # Errors
    /// What ICMP says of what was sent, if the socket is connected; [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn recv_from(&self, room: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let Socket { socket, manners, .. } = &*self.shared;
        let (len, meta) =
            manners.wait(manners.read_deadline(), |context| socket.poll_recv_from(context, room))?;
        Ok((len, meta.src))
    }

    /// Copies the next datagram and leaves it there.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn peek_from(&self, room: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let Socket { socket, manners, .. } = &*self.shared;
        manners.wait(manners.read_deadline(), |context| socket.poll_peek_from(context, room))
    }

    /// Sends a datagram, to the first of the addresses.
    ///
    /// # Errors
    /// There is no way, it is too long, or what ICMP says of what was sent before.
    pub fn send_to(&self, payload: &[u8], endpoint: impl ToEndpoint) -> io::Result<usize> {
        let addresses = block_on_for_ever(self.shared.stack.resolve(endpoint))?;
        let to = addresses.first().copied();
        let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no address"))?;
        self.send_with(payload, Some(to))
    }

    fn send_with(&self, payload: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        let Socket { socket, manners, .. } = &*self.shared;
        manners.wait(manners.write_deadline(), |context| socket.poll_send_to(context, payload, to))
    }

    /// Whom it is connected to.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): to nobody.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.shared.socket.peer_addr()
    }

    /// Our end.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.socket.local_addr()
    }

    /// Another handle of the same socket: each datagram is received by one of them.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: Arc::clone(&self.shared) })
    }

    /// How long receiving may wait. `None`: as long as it takes.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.manners.read_timeout().set(timeout)
    }

    /// How long sending may wait. `None`: as long as it takes.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.manners.write_timeout().set(timeout)
    }

    /// How long receiving may wait.
    ///
    /// # Errors
    /// None.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.manners.read_timeout().get())
    }

    /// How long sending may wait.
    ///
    /// # Errors
    /// None.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.manners.write_timeout().get())
    }

    /// Whether datagrams may be sent to broadcast addresses.
    ///
    /// # Errors
    /// None.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.shared.socket.change_options(|options| options.broadcast = broadcast)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// None.
    pub fn broadcast(&self) -> io::Result<bool> {
        Ok(self.shared.socket.options()?.broadcast)
    }

    /// Whether what is sent to a group comes to members on this host. One setting for both versions of IP.
    ///
    /// # Errors
    /// None.
    pub fn set_multicast_loop_v4(&self, multicast_loop: bool) -> io::Result<()> {
        self.shared.socket.change_options(|options| options.multicast_loop = multicast_loop)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// None.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        Ok(self.shared.socket.options()?.multicast_loop)
    }

    /// TTL or hop limit to groups, 0 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        let hop_limit = u8::try_from(ttl).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.shared.socket.change_options(|options| options.multicast_hop_limit = hop_limit)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// None.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        Ok(self.shared.socket.options()?.multicast_hop_limit.into())
    }

    /// As [`set_multicast_loop_v4`](Self::set_multicast_loop_v4).
    ///
    /// # Errors
    /// None.
    pub fn set_multicast_loop_v6(&self, multicast_loop: bool) -> io::Result<()> {
        self.set_multicast_loop_v4(multicast_loop)
    }

    /// As [`multicast_loop_v4`](Self::multicast_loop_v4).
    ///
    /// # Errors
    /// None.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.multicast_loop_v4()
    }

    /// TTL or hop limit to one host, 1 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.shared.socket.set_ttl(ttl)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// None.
    pub fn ttl(&self) -> io::Result<u32> {
        self.shared.socket.ttl()
    }

    /// Joins a group. A stack has one link: the address of the interface is unspecified, or one of ours.
    ///
    /// # Errors
    /// It is no group ([`InvalidInput`](io::ErrorKind::InvalidInput)), or was joined before
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)).
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.check_interface(interface)?;
        self.shared.socket.join_multicast((*group).into())
    }

    /// Joins a group. A stack has one link, whatever its number is.
    ///
    /// # Errors
    /// As [`join_multicast_v4`](Self::join_multicast_v4).
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, _interface: u32) -> io::Result<()> {
        self.shared.socket.join_multicast((*group).into())
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable): it was not joined.
    pub fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.check_interface(interface)?;
        self.shared.socket.leave_multicast((*group).into())
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable): it was not joined.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, _interface: u32) -> io::Result<()> {
        self.shared.socket.leave_multicast((*group).into())
    }

    fn check_interface(&self, interface: &Ipv4Addr) -> io::Result<()> {
        let is_ours =
            interface.is_unspecified() || self.shared.stack.addresses().contains(&(*interface).into());
        if is_ours {
            return Ok(());
        }
        let problem = format!("no interface has {interface}; 0.0.0.0 or an address of the stack is accepted");
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, problem))
    }

    /// An error that waits, told once.
    ///
    /// # Errors
    /// None.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.shared.socket.take_error())
    }

    /// Fixes whom it talks to: the first address to which there is a way. What others send is not received any more.
    ///
    /// # Errors
    /// There is no way to any of them.
    pub fn connect(&self, endpoint: impl ToEndpoint) -> io::Result<()> {
        let addresses = block_on_for_ever(self.shared.stack.resolve(endpoint))?;
        first(addresses, |address| self.shared.socket.connect_now(address))
    }

    /// Sends a datagram to whom it is connected to.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); the socket is not connected.
    pub fn send(&self, payload: &[u8]) -> io::Result<usize> {
        self.send_with(payload, None)
    }

    /// Takes the next datagram. What finds no room is lost.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn recv(&self, room: &mut [u8]) -> io::Result<usize> {
        self.recv_from(room).map(|(len, _)| len)
    }

    /// Copies the next datagram and leaves it there.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn peek(&self, room: &mut [u8]) -> io::Result<usize> {
        self.peek_from(room).map(|(len, _)| len)
    }

    /// Whether receiving and sending do not wait.
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.manners.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The same socket for tasks, with what std's has not.
    pub fn as_async(&self) -> &api::UdpSocket<Shared> {
        &self.shared.socket
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.socket.fmt(f)
    }
}
