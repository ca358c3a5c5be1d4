//! An AF_PACKET socket with mapped rings, TPACKET_V2 in both directions.
//!
//! ```text
//!        kernel                                  this process
//!   frame ──▶ RX slot, TP_STATUS_USER ─────────▶ RxToken::consume lends the slot's bytes
//!             RX slot, TP_STATUS_KERNEL ◀─────── … and gives it back
//!             TX slot, TP_STATUS_SEND_REQUEST ◀─ TxToken::consume writes into the slot
//!   wire ◀─── send(): all of them ◀───────────── flush(), once a turn
//! ```
//!
//! The socket sees every frame that the interface receives (ETH_P_ALL), before the kernel's own stack
//! does, and does not see what this host sends on it. It takes no frame away from the kernel: see
//! [`suppress`](crate::suppress). It does not switch the interface to promiscuous mode.

pub(crate) mod abi;
mod open;
mod rx_frames;
mod tx_ring;

use std::io;
use std::os::fd::AsFd;

use nix::poll::PollFlags;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::link::{self, Interface};
use crate::sys::interface;
use crate::sys::packet_socket::PacketSocket;
use crate::wait::{self, Wake, Waker};
use crate::{Counters, LinkError, LinkState, Nic};

use rx_frames::RxFrames;
use tx_ring::TxRing;

/// Rings on one Ethernet interface. Opened by [`AfPacket::open`]; `'a` is the life of borrowed tables
/// in its configuration.
///
/// Frames still queued when it is dropped are handed to the kernel first.
#[derive(Debug)]
pub struct AfPacket<'a> {
    rx: RxFrames<'a>,
    tx: TxRing,
    /// Kept apart, because a pair of tokens counts on both sides at once.
    rx_counters: Counters,
    tx_counters: Counters,
    link: Link,
    interface: Interface,
}

/// The socket, and what its last calls said.
#[derive(Debug)]
struct Link {
    socket: PacketSocket,
    waker: Waker,
    /// A token was refused because no TX slot was free. There is no event for one that becomes free
    /// (POLLOUT tells of the socket's memory, not of the ring), so `wait` sleeps a moment.
    starved: bool,
    /// The interface was down when it was last looked at. The kernel tells a socket once that it goes
    /// down, and neither that it is up again nor that it was removed afterwards: we look.
    down: bool,
}

impl AfPacket<'_> {
    /// The interface as it was when the device was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
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

    /// Whether a frame can be written; tries to make room first.
    fn make_room(&mut self) -> bool {
        if self.tx.has_room() {
            return true;
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

impl<'a> Device for AfPacket<'a> {
    type RxToken<'t>
        = FrameIn<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = FrameOut<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(FrameIn<'_, 'a>, FrameOut<'_>)> {
        let Link { socket, down, .. } = &mut self.link;
        let recv = |buffer: &mut [u8]| {
            let result = socket.receive(buffer);
            // The one notice that the interface goes down, which `wait` will not see any more.
            *down |= result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENETDOWN));
            result
        };
        if !self.rx.find(&mut self.rx_counters, recv) || !self.make_room() {
            return None;
        }
        let Self { rx, tx, rx_counters, tx_counters, .. } = self;
        Some((FrameIn { rx, counters: rx_counters }, FrameOut { tx, counters: tx_counters }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<FrameOut<'_>> {
        self.make_room().then_some(FrameOut { tx: &mut self.tx, counters: &mut self.tx_counters })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.interface.mtu + abi::ETHERNET_HEADER_LEN;
        capabilities
    }
}

/// One received frame, in its slot of the ring.
#[derive(Debug)]
pub struct FrameIn<'t, 'a> {
    rx: &'t mut RxFrames<'a>,
    counters: &'t mut Counters,
}

impl RxToken for FrameIn<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.rx.lend(self.counters, f)
    }
}

/// A free slot of the TX ring.
#[derive(Debug)]
pub struct FrameOut<'t> {
    tx: &'t mut TxRing,
    counters: &'t mut Counters,
}

impl TxToken for FrameOut<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.tx.write(self.counters, len, f)
    }
}

impl Nic for AfPacket<'_> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        match self.flush() {
            Ok(()) if !self.link.down => {}
            Ok(()) | Err(LinkError::Down) => self.wait_for_link()?,
            Err(LinkError::Gone) => return Err(LinkError::Gone),
        }
        if self.rx.has_filled_slot() && !self.link.starved {
            return Ok(Wake::Ready);
        }
        let (interest, until) = if self.link.starved {
            // What the loop wants to do now needs a free slot, and so does receiving: neither its
            // deadline nor a frame matters before there is one.
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
        let Self { tx, tx_counters, link, interface, .. } = self;
        for _ in 0..2 {
            let Err(error) = tx.flush(tx_counters, || link.socket.kick()) else { return Ok(()) };
            match error.raw_os_error() {
                // Said by `send` because it is down, or left on the socket from an earlier time: in
                // that case the interface is up, and the next `send` works.
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => link.check(interface)?,
                _ => {
                    log::trace!("{}: {} frames stay queued: {error}", interface.name, tx.queued());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        link::state(self.link.socket.as_fd(), self.interface.index)
    }

    fn counters(&mut self) -> Counters {
        if let Ok(statistics) = self.link.socket.take_statistics() {
            self.rx_counters.rx_ring_full += u64::from(statistics.tp_drops);
        }
        self.rx_counters + self.tx_counters
    }

    fn waker(&self) -> Waker {
        self.link.waker.clone()
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

/// How often an interface that is down is looked at.
const LINK_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How soon a full ring is looked at again: 1 024 frames of the MTU take a millisecond at 10 Gbit/s.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_micros(200);
/// How soon frames that the kernel did not take are offered again.
const KICK_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// How long closing waits for the kernel to take what is queued.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
