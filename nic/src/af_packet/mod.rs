//! An AF_PACKET socket: rings mapped into this process, or batches of system calls.
//!
//! ```text
//!        kernel                                  this process
//!   frame ──▶ RX ring: a slot, or a block ─────▶ a closure is lent the frame's bytes
//!             … the slot or block goes back ◀─── when it returns
//!             memory of ours, or the TX ring ◀── a closure writes a frame
//!   wire ◀─── sendmmsg() or send(): all ◀─────── flush(), once a turn
//! ```
//!
//! The socket sees every frame that the interface receives (ETH_P_ALL), before the kernel's own stack
//! does, and does not see what this host sends on it, unless asked to. It takes no frame away from the
//! kernel: see [`suppress`](crate::suppress).
//!
//! | file | what it owns |
//! |---|---|
//! | `open` | the steps from a name to a device |
//! | `rx_frames`, `rx_blocks`, `rx_recv` | receiving: rings of V1 and V2, of V3, and without a ring |
//! | `rx_frame` | one received frame: its metadata, VLAN tag and checksum |
//! | `tx` | one frame to be sent: what is left to be done to it |
//! | `tx_ring`, `tx_send` | sending: with a ring and without |
//! | `tokens` | all of it as smoltcp's `Device` |
//! | `abi` | the kernel's layout |

pub(crate) mod abi;
#[doc(hidden)]
pub mod fuzzing;
mod open;
mod rx_blocks;
mod rx_frame;
mod rx_frames;
mod rx_recv;
#[cfg(test)]
mod test_frames;
mod tokens;
mod tx;
mod tx_ring;
mod tx_send;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::PollFlags;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::config::{RxMode, TpacketVersion, TxMode};
use crate::link::{self, Interface};
use crate::meta::{FrameMeta, OffloadCapabilities};
use crate::sys::interface;
use crate::sys::packet_socket::PacketSocket;
use crate::wait::{self, Wake, Waker};
use crate::{Counters, LinkError, LinkState, Nic};

use rx_blocks::RxBlocks;
use rx_frames::RxFrames;
use rx_recv::RxRecv;
use tokens::Pieces;
pub use tokens::{FrameIn, FrameOut};
use tx::{Tx, Work};

/// A packet socket on one Ethernet interface. Opened by [`AfPacket::open`]; `'a` is the life of borrowed
/// tables in its configuration.
///
/// Frames still queued when it is dropped are handed to the kernel first.
#[derive(Debug)]
pub struct AfPacket<'a> {
    rx: Rx<'a>,
    tx: Tx,
    /// Of the frame that smoltcp is given next, if that is one that it cannot take as it is.
    pieces: Pieces,
    /// Kept apart, because a pair of tokens counts on both sides at once.
    rx_counters: Counters,
    tx_counters: Counters,
    link: Link,
    interface: Interface,
    shape: Shape,
    fanout: Option<u16>,
}

/// By which way frames come.
#[derive(Debug)]
enum Rx<'a> {
    None,
    Frames(RxFrames<'a>),
    Blocks(RxBlocks),
    Recv(RxRecv),
}

/// The socket, and what its last calls said.
#[derive(Debug)]
struct Link {
    socket: PacketSocket,
    waker: Waker,
    /// A token was refused because there was no room to send. There is no event for room (POLLOUT tells
    /// of the socket's memory, not of the ring), so `wait` sleeps a moment.
    starved: bool,
    /// The interface was down when it was last looked at. The kernel tells a socket once that it goes
    /// down, and neither that it is up again nor that it was removed afterwards: we look.
    down: bool,
    /// PACKET_QDISC_BYPASS is on.
    bypass: bool,
    /// Since when the kernel has had no memory, or no will, for the oldest frame.
    stuck_since: Option<Instant>,
}

/// What was opened, and how much memory it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// By which way frames are received.
    pub rx: RxMode,
    /// By which way frames are sent.
    pub tx: TxMode,
    /// Of the rings.
    pub version: TpacketVersion,
    /// Slots of the RX ring (blocks, for TPACKET_V3); 0 without one.
    pub rx_slots: usize,
    /// Slots of the TX ring; 0 without one.
    pub tx_slots: usize,
    /// Bytes of the RX ring, or of the buffers without one.
    pub rx_bytes: usize,
    /// Bytes of the TX ring, or of the queue without one.
    pub tx_bytes: usize,
    /// Super-frames and absent checksums are told and sent as such (PACKET_VNET_HDR).
    pub vnet_hdr: bool,
    /// Received checksums are verified before a frame is lent.
    pub verify_checksums: bool,
}

impl AfPacket<'_> {
    /// The interface as it was when the device was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// What was opened, and how much memory it takes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of the fanout group that this socket is in, for those that are to join it.
    pub fn fanout_id(&self) -> Option<u16> {
        self.fanout
    }

    /// Asks the interface to let frames to this address pass, until the device is dropped: one of our own
    /// beside the interface's, or a group (RFC 1112 section 6.4, RFC 2464 section 7). Without it a network
    /// card drops them; a veth pair does not.
    ///
    /// # Errors
    /// The interface was removed, or cannot filter (EINVAL).
    pub fn join(&self, address: EthernetAddress) -> io::Result<()> {
        self.link.socket.join(self.interface.index, address.0, address.is_multicast())
    }

    /// Takes back one [`join`](Self::join) of this address; the kernel counts them. Without one it does
    /// nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn leave(&self, address: EthernetAddress) -> io::Result<()> {
        self.link.socket.leave(self.interface.index, address.0, address.is_multicast())
    }

    /// Whether a frame can be written; tries to make room first.
    fn make_room(&mut self) -> bool {
        if self.tx.has_room() {
            return true;
        }
        if self.shape.tx == TxMode::None {
            return false;
        }
        // The slots may be full of frames that the kernel has not been told of yet. If the link is
        // down the frames stay, which is what a full ring says; `wait` tells the loop why.
        let _ = self.flush();
        let has_room = self.tx.has_room();
        if !has_room {
            self.tx_counters.tx_ring_full += 1;
            self.link.starved = true;
        }
        has_room
    }

    /// Looks whether the link is back, and if not, sleeps a while and looks again. No deadline ends that
    /// sleep: nothing could be sent, and a loop whose next segment is due would spin.
    fn wait_for_link(&mut self) -> Result<(), LinkError> {
        match self.link.check(&self.interface) {
            Err(LinkError::Down) => {
                wait::sleep(None, &self.link.waker, Some(wait::now() + LINK_CHECK_INTERVAL));
                self.link.check(&self.interface)
            }
            result => result,
        }
    }

    /// The kernel has no room for the oldest frame now, or will never take it: it says ENOBUFS for both, and
    /// what else it may say is treated alike.
    fn on_no_buffers(&mut self) {
        let Self { tx, tx_counters, link, interface, .. } = self;
        let now = wait::now();
        let since = *link.stuck_since.get_or_insert(now);
        if now < since + STUCK_TIMEOUT {
            return;
        }
        link.stuck_since = None;
        if link.bypass && link.socket.set_packet_option(libc::PACKET_QDISC_BYPASS, 0).is_ok() {
            // The device cannot split what it was given, and nobody on this way can.
            log::warn!("{}: it refuses frames that skip its queue; they do not any more", interface.name);
            link.bypass = false;
            return;
        }
        // A filter on the way out drops it, or the queue has not moved for as long as a slow link needs
        // for many frames.
        tx.drop_oldest(tx_counters);
    }
}

impl Rx<'_> {
    fn has_frame(&self) -> bool {
        match self {
            Rx::None => false,
            Rx::Frames(rx) => rx.has_frame(),
            Rx::Blocks(rx) => rx.has_frame(),
            Rx::Recv(rx) => rx.has_frame(),
        }
    }

    /// Goes on to a frame that can be lent. Says whether there is one.
    fn find(&mut self, counters: &mut Counters, link: &mut Link) -> bool {
        let Link { socket, down, .. } = link;
        // The one notice that the interface goes down, which `wait` will not see any more.
        let mut heard = |error: &io::Error| *down |= error.raw_os_error() == Some(libc::ENETDOWN);
        match self {
            Rx::None => false,
            Rx::Frames(rx) => rx.find(counters, |buffer| socket.receive(buffer).inspect_err(&mut heard)),
            Rx::Blocks(rx) => rx.find(counters),
            Rx::Recv(rx) => rx.find(counters, |buffers, facts| {
                socket.receive_batch(buffers, facts).inspect_err(&mut heard)
            }),
        }
    }

    fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> R {
        match self {
            Rx::None => f(&[], &FrameMeta::default()),
            Rx::Frames(rx) => rx.lend(counters, f),
            Rx::Blocks(rx) => rx.lend(counters, f),
            Rx::Recv(rx) => rx.lend(counters, f),
        }
    }

    /// What is known of the frame that was found.
    fn meta(&self) -> Option<&FrameMeta> {
        match self {
            Rx::None => None,
            Rx::Frames(rx) => rx.meta(),
            Rx::Blocks(rx) => rx.meta(),
            Rx::Recv(rx) => rx.meta(),
        }
    }

    fn take_losing(&mut self) -> bool {
        match self {
            Rx::Frames(rx) => rx.take_losing(),
            Rx::Blocks(rx) => rx.take_losing(),
            Rx::None | Rx::Recv(_) => false,
        }
    }
}

impl Link {
    /// Whether the interface exists and is not taken down. Carrier does not matter here: without it
    /// the kernel drops what is sent, and the socket works as ever.
    fn check(&mut self, interface: &Interface) -> Result<(), LinkError> {
        let result = match interface::flags(self.socket.as_fd(), interface.index) {
            Ok(flags) if flags & libc::IFF_UP != 0 => Ok(()),
            Ok(_) => Err(LinkError::Down),
            Err(_) => Err(LinkError::Gone),
        };
        self.down = result == Err(LinkError::Down);
        result
    }
}

impl Nic for AfPacket<'_> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        match self.flush() {
            Ok(()) if !self.link.down => {}
            Ok(()) | Err(LinkError::Down) => self.wait_for_link()?,
            Err(LinkError::Gone) => return Err(LinkError::Gone),
        }
        if self.rx.take_losing() {
            self.count_drops();
        }
        if (self.rx.has_frame() || !self.pieces.is_empty()) && !self.link.starved {
            return Ok(Wake::Ready);
        }
        let (interest, until) = if self.link.starved {
            // What the loop wants to do now needs room, and so does receiving: neither its deadline
            // nor a frame matters before there is some.
            (PollFlags::empty(), Some(wait::now() + ROOM_CHECK_INTERVAL))
        } else {
            // Frames that the kernel did not take (no memory, a full queue) are offered again soon;
            // there is no event for it.
            let retry = (self.tx.queued() > 0).then(|| wait::now() + KICK_RETRY_INTERVAL);
            (PollFlags::POLLIN, [deadline, retry].into_iter().flatten().min())
        };
        let (events, wake) = wait::sleep(Some((self.link.socket.as_fd(), interest)), &self.link.waker, until);
        self.link.starved = false;
        if events.contains(PollFlags::POLLERR) {
            let error = self.link.socket.take_error();
            log::debug!("{}: {error:?}", self.interface.name);
            self.link.check(&self.interface)?;
        }
        Ok(wake)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        for _ in 0..2 {
            let Self { tx, tx_counters, link, interface, .. } = self;
            let gone = tx_counters.tx_frames + tx_counters.tx_rejected;
            let Err(error) = tx.flush(tx_counters, &link.socket) else {
                link.stuck_since = None;
                return Ok(());
            };
            if tx_counters.tx_frames + tx_counters.tx_rejected > gone {
                // Another frame is the oldest now: its time begins anew.
                link.stuck_since = None;
            }
            match error.raw_os_error() {
                // Said by `send` because it is down, or left on the socket from an earlier time: in
                // that case the interface is up, and the next `send` works.
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => link.check(interface)?,
                Some(libc::EAGAIN | libc::EINTR) => {
                    log::trace!("{}: {} frames stay queued: {error}", interface.name, tx.queued());
                    return Ok(());
                }
                _ => {
                    self.on_no_buffers();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        link::state(self.link.socket.as_fd(), self.interface.index)
    }

    fn join_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        self.join(address)
    }

    fn leave_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        self.leave(address)
    }

    fn counters(&mut self) -> Counters {
        self.count_drops();
        self.rx_counters + self.tx_counters
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.link.socket.as_fd())
    }

    fn waker(&self) -> Waker {
        self.link.waker.clone()
    }

    fn offloads(&self) -> OffloadCapabilities {
        let gso = self.tx.gso_len_max().filter(|_| self.shape.vnet_hdr);
        OffloadCapabilities {
            checksum_tx: self.shape.vnet_hdr,
            checksum_rx: self.shape.verify_checksums,
            gso_tcpv4: gso,
            gso_tcpv6: gso,
            gso_udp: gso,
        }
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let Self { rx, rx_counters, link, pieces, .. } = self;
        if !pieces.is_empty() {
            return Some(pieces.lend(|frame| f(frame, &FrameMeta::default())));
        }
        rx.find(rx_counters, link).then(|| rx.lend(rx_counters, f))
    }

    fn transmit_with<R>(
        &mut self,
        _now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if !self.make_room() {
            return None;
        }
        Some(self.tx.write(&mut self.tx_counters, len, Work::Told(*meta), f))
    }
}

impl AfPacket<'_> {
    /// Adds what the kernel has dropped since it was last asked.
    fn count_drops(&mut self) {
        if let Ok(statistics) = self.link.socket.take_statistics() {
            self.rx_counters.rx_ring_full += u64::from(statistics.tp_drops);
            self.rx_counters.rx_freezes += u64::from(statistics.tp_freeze_q_cnt);
        }
    }
}

impl Drop for AfPacket<'_> {
    /// Closing the socket would throw away what the kernel has not taken yet.
    fn drop(&mut self) {
        let give_up = wait::now() + DRAIN_TIMEOUT;
        while self.flush().is_ok() && self.tx.queued() > 0 && wait::now() < give_up {
            wait::sleep(None, &self.link.waker, Some(wait::now() + KICK_RETRY_INTERVAL));
        }
        if self.tx.queued() > 0 {
            log::warn!("{}: {} queued frames were lost on close", self.interface.name, self.tx.queued());
        }
    }
}

/// For people: the ways, the version, the memory.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rx {
            RxMode::None => f.write_str("RX none")?,
            RxMode::Recv => write!(f, "RX recvmmsg, buffers of {} KiB", self.rx_bytes >> 10)?,
            RxMode::Ring => {
                let unit = if self.version == TpacketVersion::V3 { "blocks" } else { "slots" };
                write!(f, "RX ring {}, {} {unit}, {} KiB", self.version, self.rx_slots, self.rx_bytes >> 10)?;
            }
        }
        match self.tx {
            TxMode::None => f.write_str("; TX none")?,
            TxMode::Send => write!(f, "; TX sendmmsg, queue of {} KiB", self.tx_bytes >> 10)?,
            TxMode::Ring => {
                write!(
                    f,
                    "; TX ring {}, {} slots, {} KiB",
                    self.version,
                    self.tx_slots,
                    self.tx_bytes >> 10
                )?;
            }
        }
        f.write_str(if self.vnet_hdr { "; virtio_net_hdr" } else { "; plain frames" })
    }
}

/// How often an interface that is down is looked at.
const LINK_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How soon a full ring is looked at again: 1 024 frames of the MTU take a millisecond at 10 Gbit/s.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_micros(200);
/// How soon frames that the kernel did not take are offered again.
const KICK_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// How long a frame that the kernel has no buffer for is offered: a link of 10 Mbit/s sends sixteen frames of
/// 1 500 bytes in this time, so a full queue that moves has room by then.
const STUCK_TIMEOUT: Duration = Duration::from_millis(20);
/// How long closing waits for the kernel to take what is queued.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
