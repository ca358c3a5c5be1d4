//! A packet socket without rings: one system call a frame.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, send};

use crate::filter::{self, Program};
use crate::link::Interface;
use crate::sys::packet_socket::PacketSocket;

/// A packet socket that is read and written frame by frame, for tools and for comparison. An event loop
/// wants [`AfPacket`](crate::AfPacket).
///
/// It does not wait. A VLAN tag that the kernel has stripped is not put back.
#[derive(Debug)]
pub struct FrameSocket(PacketSocket);

impl FrameSocket {
    /// Opens a socket that receives nothing until [`bind`](Self::bind) is called.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub fn unbound() -> io::Result<Self> {
        PacketSocket::open().map(Self)
    }

    /// Opens a socket on an interface of the calling thread's network namespace. It receives what passes the
    /// filter, from its first frame on.
    ///
    /// # Errors
    /// As for [`unbound`](Self::unbound), [`filter::attach`] and [`bind`](Self::bind).
    pub fn open(interface: &str, filter: Option<&Program>) -> io::Result<Self> {
        let socket = Self::unbound()?;
        if let Some(program) = filter {
            filter::attach(&socket, program)?;
        }
        socket.bind(interface)?;
        Ok(socket)
    }

    /// Begins to receive the frames of an interface, of all protocols and in both directions.
    ///
    /// # Errors
    /// ENODEV: there is no such interface. ENETDOWN: it is down.
    pub fn bind(&self, interface: &str) -> io::Result<()> {
        let interface = Interface::ask(self.0.as_fd(), interface)?;
        self.0.bind(interface.index, libc::ETH_P_ALL)?;
        self.0.take_error()?.map_or(Ok(()), Err)
    }

    /// Takes the next frame. Returns its whole length, which may exceed the buffer.
    ///
    /// # Errors
    /// EAGAIN: there is none. ENETDOWN: the interface went down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buffer)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// EAGAIN, ENOBUFS: there is no room. EMSGSIZE: it exceeds the MTU. EINVAL: it is shorter than an
    /// Ethernet header.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_fd().as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
