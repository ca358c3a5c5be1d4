//! What is done with sockets for datagrams.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::event::{Token, UdpId};
use super::registry::{Kind, Sockets};
use crate::shard::{SendOptions, UdpBind};
use crate::udp::{DatagramMeta, SendError, SocketOptions};

impl Sockets<'_> {
    /// A socket at this address. An unspecified address is all of them, and `[::]` those of IPv4 too; port 0 is one that is
    /// chosen ([`local_addr`](Self::local_addr)).
    ///
    /// # Errors
    /// As std's `UdpSocket::bind`.
    pub fn udp_bind(&mut self, local: SocketAddr, token: Token) -> io::Result<UdpId> {
        self.udp_bind_with(UdpBind::new(local), token)
    }

    /// The same, with everything that can be said.
    ///
    /// # Errors
    /// As std's `UdpSocket::bind`.
    pub fn udp_bind_with(&mut self, bind: UdpBind, token: Token) -> io::Result<UdpId> {
        self.check()?;
        let id = self.shard.udp_bind(bind)?;
        self.put(id, Kind::Udp, token);
        Ok(UdpId(id))
    }

    /// Fixes whom it talks to; `None`: undoes it.
    ///
    /// # Errors
    /// There is no way to the address.
    pub fn udp_connect(&mut self, udp: UdpId, remote: Option<SocketAddr>) -> io::Result<()> {
        self.check()?;
        Ok(self.shard.udp_connect(udp.0, remote)?)
    }

    /// Lends the next datagram, where it lies, with what is known of it.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): there is none, and an event comes when there is. What ICMP says of what was sent, once;
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface has gone.
    pub fn udp_recv_with<R>(
        &mut self,
        udp: UdpId,
        f: impl FnOnce(&DatagramMeta, &[u8]) -> R,
    ) -> io::Result<R> {
        self.take_udp_error(udp)?;
        self.shard.udp_recv_with(udp.0, f).ok_or_else(|| self.nothing())
    }

    /// Lends a run of datagrams that came merged, or the next one: `segment_bytes` of the metadata says how long each of them is.
    ///
    /// # Errors
    /// As [`udp_recv_with`](Self::udp_recv_with).
    pub fn udp_recv_batch_with<R>(
        &mut self,
        udp: UdpId,
        f: impl FnOnce(&DatagramMeta, &[u8]) -> R,
    ) -> io::Result<R> {
        self.take_udp_error(udp)?;
        self.shard.udp_recv_batch_with(udp.0, f).ok_or_else(|| self.nothing())
    }

    /// Copies the next datagram; what finds no room is lost, which `truncated` tells.
    ///
    /// # Errors
    /// As [`udp_recv_with`](Self::udp_recv_with).
    pub fn udp_recv(&mut self, udp: UdpId, room: &mut [u8]) -> io::Result<(usize, DatagramMeta)> {
        self.take_udp_error(udp)?;
        self.shard.udp_recv(udp.0, room).ok_or_else(|| self.nothing())
    }

    /// Sends a datagram to whom the socket is connected.
    ///
    /// # Errors
    /// As [`udp_send_with`](Self::udp_send_with).
    pub fn udp_send(&mut self, udp: UdpId, payload: &[u8]) -> io::Result<()> {
        self.udp_send_with(udp, &SendOptions::default(), payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// As [`udp_send_with`](Self::udp_send_with).
    pub fn udp_send_to(&mut self, udp: UdpId, payload: &[u8], to: SocketAddr) -> io::Result<()> {
        let options = SendOptions { to: Some(to), ..SendOptions::default() };
        self.udp_send_with(udp, &options, payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Lets `write` write a datagram of `len` bytes where it leaves from, or several at once (`segment_bytes`), and sends it.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): there is no room now, and an event comes when there is. Others as of std's
    /// `UdpSocket::send_to`.
    pub fn udp_send_with(
        &mut self,
        udp: UdpId,
        options: &SendOptions,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        self.check()?;
        match self.shard.udp_send_with(udp.0, options, len, write) {
            Err(SendError::WouldBlock) => {
                self.want_room(udp.0);
                Err(io::ErrorKind::WouldBlock.into())
            }
            sent => Ok(sent?),
        }
    }

    fn take_udp_error(&mut self, udp: UdpId) -> io::Result<()> {
        self.shard.udp_take_error(udp.0).map_or(Ok(()), |error| Err(error.into()))
    }

    /// What a read says that has found nothing.
    fn nothing(&self) -> io::Error {
        self.registry.fault.unwrap_or(io::ErrorKind::WouldBlock).into()
    }

    /// The manners of a socket.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): there is no such socket.
    pub fn udp_options(&self, udp: UdpId) -> io::Result<SocketOptions> {
        let options = self.shard.udp_socket(udp.0).map(|socket| *socket.options());
        options.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Changes them.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): there is no such socket.
    pub fn change_udp_options(
        &mut self,
        udp: UdpId,
        change: impl FnOnce(&mut SocketOptions),
    ) -> io::Result<()> {
        let mut options = self.udp_options(udp)?;
        change(&mut options);
        self.shard.udp_set_options(udp.0, options);
        Ok(())
    }

    /// Joins a group.
    ///
    /// # Errors
    /// It is no group, the socket is in it already, or there is no room.
    pub fn join_multicast(&mut self, udp: UdpId, group: IpAddr) -> io::Result<()> {
        Ok(self.shard.udp_join(udp.0, group)?)
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// The socket is not in it.
    pub fn leave_multicast(&mut self, udp: UdpId, group: IpAddr) -> io::Result<()> {
        Ok(self.shard.udp_leave(udp.0, group)?)
    }
}
