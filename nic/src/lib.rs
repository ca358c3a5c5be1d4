//! Frames between the Linux kernel and a slice.
//!
//! Every device here implements [`smoltcp::phy::Device`], so any user of smoltcp can take it as it is,
//! and [`Nic`], which adds what an event loop needs: sleep until something happens, hand a batch of
//! frames to the kernel with one system call, and tell the state of the link.
//!
//! ```text
//!   kernel ── RX ring ──▶ RxToken: a frame, lent to a closure while the slot is ours
//!   kernel ◀── TX ring ── TxToken: written in place; one `flush` a turn kicks them all
//! ```
//!
//! The modules, in the order in which a frame meets them:
//!
//! | module | what it owns |
//! |---|---|
//! | [`af_packet`] | `AfPacket`: rings of TPACKET_V1 to V3 or system calls, opened in named steps |
//! | [`config`], [`geometry`] | three profiles and every knob; the ring calculator and the kernel's rules |
//! | [`filter`], [`steer`] | what the kernel delivers, and to which of several sockets |
//! | [`meta`] | what is known of a frame beside its bytes |
//! | [`offload`] | work left undone in a frame, said (`virtio_net_hdr`) or done: checksums, splitting |
//! | [`claim`] | which frames are ours on an address that the kernel owns too |
//! | [`tap`] | `Tap`: TAP and TUN interfaces, whose other end is the kernel |
//! | [`nfqueue`] | `NfQueue`: packets that netfilter hands over |
//! | [`serial`] | `Serial`: IP packets over a serial line: SLIP, CSLIP, a fair queue, ports that come back |
//! | [`replay`] | `Replay`: frames from pcap and pcapng files, in their time |
//! | [`suppress`] | the kernel kept silent for our tuples: nftables, iptables |
//! | [`loopback`], [`impair`], [`capture`] | devices in memory and devices around devices |
//! | [`bridge`] | two devices as one wire |
//! | [`slot`] | a buffer for one frame, owned or borrowed |
//! | [`ethtool`], [`link`] | what an interface is and which offloads it has on |
//! | [`affinity`] | which CPUs serve an interface: interrupts, RPS, RFS, XPS, pinned threads |
//! | [`restore`] | old values of what is changed on a system, to be put back after a crash |
//! | [`wait`], [`counters`], [`error`] | the loop's clock and wakers, what is counted, what can fail |
//!
//! With plain smoltcp:
//!
//! ```no_run
//! use smoltcp::iface::{Config, Interface, SocketSet};
//! use wirestack_nic::{AfPacket, AfPacketConfig, Nic, wait};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut nic = AfPacket::open("eth0", AfPacketConfig::default())?;
//! let mut iface = Interface::new(Config::new(nic.interface().mac.into()), &mut nic, wait::now());
//! let mut sockets = SocketSet::new(Vec::new());
//! loop {
//!     iface.poll(wait::now(), &mut nic, &mut sockets);
//!     nic.flush()?;
//!     nic.wait(iface.poll_at(wait::now(), &sockets))?;
//! }
//! # }
//! ```
//!
//! smoltcp knows nothing of what a frame brings beside its bytes, and of what a sender can leave to the
//! device, but the size of TCP segments. Whoever wants more uses [`Nic::receive_with`] and
//! [`Nic::transmit_with`]: frames of up to 64 KB, several segments in one, without a checksum.
//!
//! ```no_run
//! use wirestack_nic::{AfPacket, AfPacketConfig, Nic, Profile, wait};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Whatever comes on eth0 goes out on eth1, merged frames as such.
//! let config = || AfPacketConfig { promiscuous: true, ..AfPacketConfig::profile(Profile::Bulk) };
//! let (mut from, mut to) = (AfPacket::open("eth0", config())?, AfPacket::open("eth1", config())?);
//! loop {
//!     let now = wait::now();
//!     while from
//!         .receive_with(now, |frame, meta| {
//!             to.transmit_with(now, frame.len(), meta, |room| room.copy_from_slice(frame))
//!         })
//!         .is_some()
//!     {}
//!     to.flush()?;
//!     from.wait(None)?;
//! }
//! # }
//! ```
//!
//! What this crate does not know: addresses of its user, sockets, retransmission. It does not start
//! threads and keeps no global state. Unsafe code is in the private modules `shm` (mapped memory) and
//! `sys` (system calls), and nowhere else.
#![deny(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use smoltcp::phy::{Device, RxToken as _, TxToken as _};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

pub mod af_packet;
pub mod affinity;
pub mod bridge;
pub mod capture;
pub mod claim;
pub mod config;
pub mod counters;
pub mod error;
pub mod ethtool;
pub mod filter;
pub mod geometry;
pub mod impair;
pub mod link;
pub mod loopback;
pub mod meta;
pub mod nfqueue;
pub mod offload;
pub mod replay;
pub mod restore;
pub mod serial;
pub mod slot;
pub mod steer;
pub mod suppress;
pub mod tap;
pub mod wait;

mod received;
mod shm;
mod sys;

pub use af_packet::AfPacket;
pub use config::{AfPacketConfig, Profile, RxMode, TpacketVersion, TxMode};
pub use counters::Counters;
pub use error::{LinkError, OpenError};
pub use geometry::RingGeometry;
pub use link::Interface;
pub use meta::{FrameMeta, OffloadCapabilities};
pub use nfqueue::{NfQueue, NfQueueConfig};
pub use replay::Replay;
pub use serial::{Serial, SerialSpec};
pub use tap::{Tap, TapConfig};
pub use wait::{Wake, Waker};

/// A device that an event loop can drive: smoltcp's [`Device`], and how to sleep, flush and look.
///
/// A turn of a loop is: receive a burst through [`Device::receive`], let the stack answer through
/// [`Device::transmit`], [`flush`](Nic::flush) once, then [`wait`](Nic::wait) until the stack's next
/// deadline. Devices around devices (`Impair`, `Capture`) forward these calls.
pub trait Nic: Device {
    /// Sleeps until a frame may be there, a [`Waker`] was called, the link changed, or `deadline`
    /// (a point on the clock of [`wait::now`]; `None`: no deadline) has come.
    ///
    /// Frames that were written and not flushed are flushed first. May return early; a caller looks
    /// at the device again in any case. With a deadline that has passed it only looks and does not
    /// sleep, unless the device has just refused a frame for want of room: then it sleeps a moment, since
    /// what is due could not be sent.
    ///
    /// # Errors
    /// [`LinkError::Down`]: the interface is down. The call has slept a short while, whatever the
    /// deadline; frames stay queued and the caller goes on. [`LinkError::Gone`]: the interface does
    /// not exist any more; no frame will ever come.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError>;

    /// Hands all frames written since the last call to the kernel, with one system call if it takes
    /// them all. What it does not take now stays queued and is offered again by the next call.
    ///
    /// # Errors
    /// As for [`wait`](Nic::wait).
    fn flush(&mut self) -> Result<(), LinkError>;

    /// Whether the link carries frames now.
    fn link_state(&mut self) -> LinkState;

    /// What this device has counted since it was opened.
    fn counters(&mut self) -> Counters;

    /// Which work this device hands on. A device that says nothing hands on none.
    fn offloads(&self) -> OffloadCapabilities {
        OffloadCapabilities::default()
    }

    /// Lends the next received frame, and what is known of it, to `f`. `None`: there is none.
    ///
    /// Unlike [`Device::receive`] it does not ask for room to answer.
    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let (token, _) = self.receive(now)?;
        Some(token.consume(|frame| f(frame, &FrameMeta::default())))
    }

    /// Lets `f` write a frame of `len` bytes, and queues it. `None`: there is no room now, and `f` was not
    /// called; a later [`wait`](Nic::wait) ends when there may be.
    ///
    /// `meta` says what is left to be done to the frame: an absent checksum, and how it is to be split. A
    /// device that cannot hand that on does it here.
    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if meta.is_plain() {
            return Some(self.transmit(now)?.consume(len, f));
        }
        offload::software::transmit(self, now, len, meta, &mut Vec::new(), f).map(|sent| sent.result)
    }

    /// Bytes of a frame that may find room where the last one, which was longer, did not: on a line that is slow, small
    /// frames pass others. Zero: length makes no difference.
    fn express_len(&self) -> usize {
        0
    }

    /// Asks the device to let frames to a group of hardware addresses pass (RFC 1112 section 6.4, RFC 2464
    /// section 7). Who joins twice leaves twice. A device that filters nothing has nothing to do, and
    /// this is what is done if it does not say otherwise.
    ///
    /// # Errors
    /// The kernel refuses: the interface was removed, or cannot filter (EINVAL).
    fn join_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        let _ = address;
        Ok(())
    }

    /// Takes back one [`join_multicast`](Nic::join_multicast). A group that was not joined is none to leave,
    /// and no error. All groups end with the device.
    ///
    /// # Errors
    /// The kernel refuses.
    fn leave_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        let _ = address;
        Ok(())
    }

    /// What a loop with several devices polls for frames (POLLIN) and errors, instead of a
    /// [`wait`](Nic::wait); after an error, the device is to be asked by a wait. `None`: this device can be
    /// waited for only.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// A handle by which another thread, or a signal handler's thread, ends a [`wait`](Nic::wait).
    fn waker(&self) -> Waker;
}

/// What [`Nic::link_state`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Frames flow.
    Up,
    /// The interface is down or has no carrier; it may come back.
    Down,
    /// The interface was removed.
    Gone,
}
