//! Opening: sockets → bind the queue → its length and flags → packets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use managed::ManagedSlice;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Mark, RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send,
    setsockopt, socket,
};

use crate::Counters;
use crate::slot::{Slot, owned_slots};
use crate::wait::Waker;

use super::message::{Message, PAYLOAD_LEN_MAX, Requests, message};
use super::{Inbox, NfQueue, Outbox, Queue};

/// How to open an [`NfQueue`].
#[derive(Debug)]
pub struct NfQueueConfig<'a> {
    /// Whether TCP segments of up to 64 KB come in one piece (NFQA_CFG_F_GSO), without a checksum where
    /// the sender left it out. Datagrams come one by one in any case.
    pub gso: bool,
    /// Packets that may wait in the kernel until they are read; more are lost and counted as
    /// `rx_ring_full`.
    pub len_max: u32,
    /// Bytes of them that the kernel holds for us (SO_RCVBUF).
    pub recv_buffer_bytes: usize,
    /// Bytes of the longest packet that is sent: that of the interface through which the answers go.
    pub mtu: usize,
    /// A mark on what is sent (SO_MARK), by which rules can let it pass.
    pub mark: Option<u32>,
    /// Where packets are put that are read with one system call: one for each [`DATAGRAM_LEN`] bytes.
    pub rx_buffer: ManagedSlice<'a, u8>,
    /// Packets to be sent until the next flush.
    pub tx_slots: ManagedSlice<'a, Slot<'a>>,
}

impl Default for NfQueueConfig<'_> {
    fn default() -> Self {
        Self {
            gso: true,
            len_max: 4096,
            recv_buffer_bytes: 16 << 20,
            mtu: 1500,
            mark: None,
            rx_buffer: ManagedSlice::Owned(vec![0; 16 * DATAGRAM_LEN]),
            tx_slots: ManagedSlice::Owned(owned_slots(TX_SLOTS)),
        }
    }
}

/// The step of opening at which [`NfQueueError`] happened, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NfQueueStep {
    /// The configuration itself.
    Config,
    /// The netlink socket.
    Socket,
    /// The raw IP sockets through which packets are sent.
    RawSocket,
    /// NFQNL_CFG_CMD_BIND.
    Bind,
    /// Length, flags and copy mode of the queue.
    Configure,
}

impl fmt::Display for NfQueueStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "take the configuration of",
            Self::Socket => "open a netlink socket for",
            Self::RawSocket => "open raw IP sockets for",
            Self::Bind => "bind to",
            Self::Configure => "configure",
        })
    }
}

/// Why a queue could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct NfQueueError {
    /// The step that failed.
    pub step: NfQueueStep,
    /// Number of the queue.
    pub queue: u16,
    /// Whether the queue has an owner, who is not we.
    pub in_use: bool,
    /// What the kernel said.
    pub source: io::Error,
}

impl NfQueueError {
    /// What a person can do about it, for the causes that are known.
    pub fn hint(&self) -> Option<&'static str> {
        if self.in_use {
            return Some("another process has this queue; choose another number, and the same in the rule");
        }
        match (self.step, self.source.raw_os_error()?) {
            (NfQueueStep::RawSocket, libc::EPERM | libc::EACCES) => {
                Some("raw sockets need CAP_NET_RAW: run as root")
            }
            (NfQueueStep::RawSocket, _) if self.source.raw_os_error() == Some(libc::ENOENT) => None,
            (_, libc::EPERM | libc::EACCES) => Some("this needs CAP_NET_ADMIN: run as root"),
            (NfQueueStep::Socket, libc::EPROTONOSUPPORT)
            | (NfQueueStep::Bind, libc::EINVAL | libc::ENOENT) => {
                Some("the kernel has no nfnetlink_queue: `modprobe nfnetlink_queue`")
            }
            _ => None,
        }
    }
}

impl fmt::Display for NfQueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} netfilter queue {}: {}", self.step, self.queue, self.source)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NfQueueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl<'a> NfQueue<'a> {
    /// Takes a queue of the calling thread's network namespace. Packets come as soon as a rule sends them
    /// there, until the device is dropped.
    ///
    /// # Errors
    /// [`NfQueueError`] with the step that failed.
    pub fn open(number: u16, config: NfQueueConfig<'a>) -> Result<Self, NfQueueError> {
        let at = |step| {
            move |errno: Errno| NfQueueError { step, queue: number, in_use: false, source: errno.into() }
        };
        let NfQueueConfig { gso, len_max, recv_buffer_bytes, mtu, mark, rx_buffer, tx_slots } = config;
        if rx_buffer.len() < DATAGRAM_LEN || tx_slots.is_empty() {
            return Err(at(NfQueueStep::Config)(Errno::EINVAL));
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netlink = || -> Result<(OwnedFd, u32), Errno> {
            let socket =
                socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            let port = getsockname::<NetlinkAddr>(socket.as_raw_fd())?.pid();
            if setsockopt(&socket, RcvBufForce, &recv_buffer_bytes).is_err() {
                setsockopt(&socket, RcvBuf, &recv_buffer_bytes)?;
            }
            Ok((socket, port))
        };
        let (netlink, port) = netlink().map_err(at(NfQueueStep::Socket))?;
        let raw = |family| -> Result<OwnedFd, Errno> {
            // A socket of this protocol takes packets with their header, and receives none (raw(7)).
            let socket = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
            mark.map_or(Ok(()), |mark| setsockopt(&socket, Mark, &mark))?;
            Ok(socket)
        };
        let v4 = raw(AddressFamily::Inet).map_err(at(NfQueueStep::RawSocket))?;
        let v6 = match raw(AddressFamily::Inet6) {
            Ok(socket) => Some(socket),
            Err(Errno::EAFNOSUPPORT) => None,
            Err(errno) => return Err(at(NfQueueStep::RawSocket)(errno)),
        };
        let waker = Waker::new().map_err(|source| NfQueueError {
            step: NfQueueStep::Socket,
            queue: number,
            in_use: false,
            source,
        })?;

        let queue = Queue { netlink, number, port, gso };
        ask(&queue, Requests::new(number).bind()).map_err(|errno| NfQueueError {
            in_use: errno == Errno::EPERM && super::statistics(number).is_some(),
            ..at(NfQueueStep::Bind)(errno)
        })?;
        let configure = Requests::new(number).len_max(len_max).flag(libc::NFQA_CFG_F_GSO, gso).copy_packets();
        ask(&queue, configure).map_err(at(NfQueueStep::Configure))?;
        Ok(Self {
            inbox: Inbox::new(queue, rx_buffer),
            outbox: Outbox::new(v4, v6, tx_slots),
            waker,
            starved: false,
            rx_counters: Counters::default(),
            tx_counters: Counters::default(),
            mtu,
        })
    }
}

/// Sends requests and waits for the answer to the last of them, or the failure of one. A packet that comes
/// before is lost, as one that came before the queue was bound.
fn ask(queue: &Queue, requests: Requests) -> Result<(), Errno> {
    let requests = requests.answered();
    send(queue.netlink.as_raw_fd(), requests.bytes(), MsgFlags::empty())?;
    let mut datagram = vec![0; DATAGRAM_LEN];
    loop {
        // The kernel answers before `send` returns, so nobody has to wait.
        let len = recv(queue.netlink.as_fd().as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT)?;
        match message(datagram.get(..len).unwrap_or_default(), 0) {
            Some((Message::Answer(0), _)) => return Ok(()),
            Some((Message::Answer(code), _)) => return Err(Errno::from_raw(code)),
            Some((Message::Packet(_) | Message::Other, _)) | None => {}
        }
    }
}

/// Bytes of buffer for one packet of 64 KB and what comes with it.
pub const DATAGRAM_LEN: usize = (PAYLOAD_LEN_MAX as usize + 1024).next_multiple_of(64);
/// A TCP window of 64 KB for a few connections.
const TX_SLOTS: usize = 256;
