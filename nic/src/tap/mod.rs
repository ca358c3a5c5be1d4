//! TAP and TUN interfaces: a wire whose other end is this host's kernel.
//!
//! ```text
//!   kernel: address, routes, TCP ── interface tap0 ── /dev/net/tun ── Tap: a stack of its own
//! ```
//!
//! What the kernel sends out of the interface we receive, and what we send the interface receives. No
//! rule against the kernel is needed: the address of our stack is one that it does not have. A TAP carries
//! Ethernet frames, and the hardware address of the interface is the *kernel's*; ours must be another one
//! ([`Tap::suggested_mac`]). A TUN carries IP packets.
//!
//! ```text
//! ip addr add 10.0.0.1/24 dev tap0        # the kernel's end, once the device is open
//! ```
//!
//! With IFF_VNET_HDR a `virtio_net_hdr` goes before each frame, so that a TCP segment of 64 KB goes through
//! in one piece and without a checksum. A frame is one system call in each direction: the driver has no
//! way to take several. The kernel's TCP runs within our `write`.

mod open;

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use managed::ManagedSlice;
use nix::errno::Errno;
use nix::poll::PollFlags;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::link::{self, Interface};
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind, OffloadCapabilities};
use crate::offload::layout::{IpVersion, Transport};
use crate::offload::segment::Segments;
use crate::offload::{ETHERNET_HEADER_LEN, Layout, checksum, virtio};
use crate::received::{self, Arrived};
use crate::sys::interface;
use crate::wait::{self, Wake, Waker};
use crate::{Counters, LinkError, LinkState, Nic};

pub use open::{TapConfig, TapError, TapStep};

/// Whether frames have an Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapKind {
    /// They have: the interface is an Ethernet.
    Tap,
    /// They are IP packets.
    Tun,
}

impl TapKind {
    /// As smoltcp has it.
    pub fn medium(self) -> Medium {
        match self {
            Self::Tap => Medium::Ethernet,
            Self::Tun => Medium::Ip,
        }
    }

    fn link_header_len(self) -> usize {
        match self {
            Self::Tap => ETHERNET_HEADER_LEN,
            Self::Tun => 0,
        }
    }
}

impl fmt::Display for TapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap => "tap",
            Self::Tun => "tun",
        })
    }
}

/// One queue of a TAP or TUN interface. Opened by [`Tap::open`]; `'a` is the life of borrowed buffers.
#[derive(Debug)]
pub struct Tap<'a> {
    inbox: Inbox<'a>,
    outbox: Outbox<'a>,
    link: Link,
    rx_counters: Counters,
    tx_counters: Counters,
    kind: TapKind,
    /// Whether the kernel knows datagrams that are to be split.
    splits_udp: bool,
    interface: Interface,
}

impl Tap<'_> {
    /// The interface as it was when the device was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The hardware address of the kernel's end. Of a TUN, zeroes.
    pub fn peer_mac(&self) -> EthernetAddress {
        self.interface.mac
    }

    /// A hardware address for our end: like the kernel's, but locally administered and not the same. It
    /// stays the same for an interface that stays.
    pub fn suggested_mac(&self) -> EthernetAddress {
        suggested_mac(self.interface.mac)
    }

    fn make_room(&mut self) -> bool {
        let _ = self.flush();
        let has_room = self.outbox.pending_len == 0;
        if !has_room {
            self.tx_counters.tx_ring_full += 1;
            self.link.starved = true;
        }
        has_room
    }
}

fn suggested_mac(peer: EthernetAddress) -> EthernetAddress {
    let mut mac = peer;
    mac.0[0] = mac.0[0] & !GROUP_BIT | LOCAL_BIT;
    mac.0[5] ^= 1;
    mac
}

/// The descriptors, and what their last calls said.
#[derive(Debug)]
struct Link {
    tun: File,
    /// A socket in the namespace of the interface, through which it is asked.
    control: OwnedFd,
    index: i32,
    waker: Waker,
    /// A token was refused because a frame waits; there is no event for the end of that.
    starved: bool,
    /// A frame was refused because the interface is down.
    down: bool,
    /// The descriptor is attached to nothing.
    gone: bool,
}

impl Link {
    fn check(&mut self) -> Result<(), LinkError> {
        let result = match interface::flags(self.control.as_fd(), self.index) {
            _ if self.gone => Err(LinkError::Gone),
            Ok(flags) if flags & libc::IFF_UP != 0 => Ok(()),
            Ok(_) => Err(LinkError::Down),
            Err(_) => Err(LinkError::Gone),
        };
        self.down = result == Err(LinkError::Down);
        result
    }

    /// Looks whether the interface is up again, and if not, sleeps a while and looks again.
    fn wait_until_up(&mut self) -> Result<(), LinkError> {
        match self.check() {
            Err(LinkError::Down) => {
                wait::sleep(None, &self.waker, Some(wait::now() + LINK_CHECK_INTERVAL));
                self.check()
            }
            result => result,
        }
    }
}

/// One received frame, behind its header.
#[derive(Debug)]
struct Inbox<'a> {
    buffer: ManagedSlice<'a, u8>,
    header_len: usize,
    kind: TapKind,
    /// Bytes of header and frame.
    len: usize,
    current: Option<Arrived>,
    /// For pieces of a frame that the stack does not take whole.
    scratch: Vec<u8>,
}

impl<'a> Inbox<'a> {
    fn new(buffer: ManagedSlice<'a, u8>, header_len: usize, kind: TapKind) -> Self {
        Self { buffer, header_len, kind, len: 0, current: None, scratch: Vec::new() }
    }

    /// Reads up to a frame that can be lent, past those that cannot, which it counts. Says whether there
    /// is one.
    fn find(&mut self, link: &mut Link, counters: &mut Counters) -> bool {
        for _ in 0..UNFIT_FRAMES_MAX {
            if self.current.is_some() {
                return true;
            }
            match nix::unistd::read(&link.tun, &mut self.buffer) {
                Ok(len) => self.take(len, counters),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                Err(errno) => {
                    // EBADFD: the interface was removed.
                    link.gone = errno == Errno::EBADFD;
                    link.down |= errno == Errno::EIO;
                    return false;
                }
            }
        }
        self.current.is_some()
    }

    /// Judges what was read.
    fn take(&mut self, len: usize, counters: &mut Counters) {
        self.len = len;
        if len == self.buffer.len() {
            counters.rx_truncated += 1;
            return;
        }
        let Some((header, frame)) =
            self.buffer.get(..len).and_then(|read| read.split_at_checked(self.header_len))
        else {
            counters.rx_malformed += 1;
            return;
        };
        if header.is_empty() {
            self.current = Some(Arrived::default());
            return;
        }
        match virtio::decode(header, frame.len()) {
            Ok(mut meta) => {
                if received::verify(self.kind.medium(), frame, &mut meta, counters) {
                    self.current = Some(Arrived::new(meta));
                }
            }
            Err(error) => {
                log::debug!("a frame of {} bytes: {error}", frame.len());
                counters.rx_malformed += 1;
            }
        }
    }

    fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8]) -> R) -> R {
        let frame = self.buffer.get_mut(self.header_len..self.len).unwrap_or_default();
        // A token exists only when there is a frame.
        let Some(arrived) = &mut self.current else { return f(&[]) };
        let (result, is_done) = arrived.lend(self.kind.medium(), frame, &mut self.scratch, counters, f);
        if is_done {
            self.current = None;
        }
        result
    }
}

/// One frame that is written, behind its header, until the kernel has taken it.
#[derive(Debug)]
struct Outbox<'a> {
    buffer: ManagedSlice<'a, u8>,
    header_len: usize,
    kind: TapKind,
    /// Bytes of header and frame; 0: there is none.
    pending_len: usize,
    is_super: bool,
}

impl<'a> Outbox<'a> {
    fn new(buffer: ManagedSlice<'a, u8>, header_len: usize, kind: TapKind) -> Self {
        Self { buffer, header_len, kind, pending_len: 0, is_super: false }
    }

    /// Lets `f` write a frame, and says in the header what is left to be done to it, which `describe`
    /// tells. The kernel has not seen it yet.
    fn write<R>(
        &mut self,
        counters: &mut Counters,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
        describe: impl FnOnce(&mut [u8]) -> FrameMeta,
    ) -> R {
        let Some(room) = self.buffer.get_mut(..self.header_len + len) else {
            counters.tx_oversize += 1;
            return f(&mut vec![0; len]);
        };
        let (header, frame) = room.split_at_mut(self.header_len);
        let result = f(frame);
        let meta = describe(frame);
        if !header.is_empty() {
            let layout = Layout::on(self.kind.medium(), frame);
            header.copy_from_slice(&virtio::encode(&meta, layout.as_ref()));
        }
        self.pending_len = self.header_len + len;
        self.is_super = meta.gso.is_some();
        result
    }

    /// Hands the frame to the kernel. What it has no room for stays.
    fn push(&mut self, link: &mut Link, counters: &mut Counters) {
        let Some(pending) = self.buffer.get(..self.pending_len) else { return };
        if pending.is_empty() {
            return;
        }
        counters.tx_kicks += 1;
        match nix::unistd::write(&link.tun, pending) {
            Ok(_) => {
                counters.tx_frames += 1;
                counters.tx_bytes += (self.pending_len - self.header_len) as u64;
                counters.tx_super_frames += u64::from(self.is_super);
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => return,
            Err(Errno::EIO) => {
                link.down = true;
                return;
            }
            Err(Errno::EBADFD) => {
                link.gone = true;
                return;
            }
            Err(errno) => {
                log::debug!("a frame of {} bytes: {errno}", self.pending_len - self.header_len);
                counters.tx_rejected += 1;
            }
        }
        self.pending_len = 0;
    }
}

/// What smoltcp leaves to the device in a frame: the checksum of TCP always, and the splitting where it
/// says so.
fn left_by_smoltcp(frame: &mut [u8], kind: TapKind, meta: PacketMeta) -> FrameMeta {
    let layout = Layout::on(kind.medium(), frame);
    let Some(layout) = layout.filter(|layout| layout.protocol == Transport::Tcp) else {
        return FrameMeta::default();
    };
    let Some(checksum) = checksum::leave_out(frame, &layout) else { return FrameMeta::default() };
    let gso_kind = match layout.version {
        IpVersion::V4 => GsoKind::TcpV4,
        IpVersion::V6 => GsoKind::TcpV6,
    };
    let gso = meta.segmentation_offload_size.map(|size| Gso { kind: gso_kind, size, ecn: false });
    FrameMeta { checksum, gso, ..FrameMeta::default() }
}

impl<'a> Device for Tap<'a> {
    type RxToken<'t>
        = FrameIn<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = FrameOut<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(FrameIn<'_, 'a>, FrameOut<'_, 'a>)> {
        if !self.inbox.find(&mut self.link, &mut self.rx_counters) || !self.make_room() {
            return None;
        }
        let Self { inbox, outbox, link, rx_counters, tx_counters, .. } = self;
        let frame_in = FrameIn { inbox, counters: rx_counters };
        Some((frame_in, FrameOut { outbox, link, counters: tx_counters, meta: PacketMeta::default() }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<FrameOut<'_, 'a>> {
        if !self.make_room() {
            return None;
        }
        let Self { outbox, link, tx_counters, .. } = self;
        Some(FrameOut { outbox, link, counters: tx_counters, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.kind.medium();
        capabilities.max_transmission_unit = self.interface.mtu + self.kind.link_header_len();
        if self.outbox.header_len > 0 {
            capabilities.checksum = received::checksums(true);
            // Not for IPv6: smoltcp 0.14 drops what is longer than the MTU there.
            capabilities.segmentation.tcpv4 = self.offloads().gso_tcpv4;
        }
        capabilities
    }
}

/// One received frame, or a piece of it.
#[derive(Debug)]
pub struct FrameIn<'t, 'a> {
    inbox: &'t mut Inbox<'a>,
    counters: &'t mut Counters,
}

impl RxToken for FrameIn<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.inbox.lend(self.counters, f)
    }
}

/// Room for one frame, which goes to the kernel when it is written.
#[derive(Debug)]
pub struct FrameOut<'t, 'a> {
    outbox: &'t mut Outbox<'a>,
    link: &'t mut Link,
    counters: &'t mut Counters,
    meta: PacketMeta,
}

impl TxToken for FrameOut<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { outbox, link, counters, meta } = self;
        let (kind, leaves_out) = (outbox.kind, outbox.header_len > 0);
        let describe = |frame: &mut [u8]| {
            if leaves_out { left_by_smoltcp(frame, kind, meta) } else { FrameMeta::default() }
        };
        let result = outbox.write(counters, len, f, describe);
        outbox.push(link, counters);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl Nic for Tap<'_> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        match self.flush() {
            Ok(()) if !self.link.down => {}
            Ok(()) | Err(LinkError::Down) => self.link.wait_until_up()?,
            Err(LinkError::Gone) => return Err(LinkError::Gone),
        }
        let Self { inbox, outbox, link, .. } = self;
        link.starved &= outbox.pending_len > 0;
        if inbox.current.is_some() && !link.starved {
            return Ok(Wake::Ready);
        }
        let retry = (outbox.pending_len > 0).then(|| wait::now() + RETRY_INTERVAL);
        // Without room for an answer, neither a frame nor the deadline matters.
        let (interest, until) = if link.starved {
            (PollFlags::empty(), retry)
        } else {
            (PollFlags::POLLIN, [deadline, retry].into_iter().flatten().min())
        };
        let (events, wake) = wait::sleep(Some((link.tun.as_fd(), interest)), &link.waker, until);
        link.starved = false;
        if events.contains(PollFlags::POLLERR) {
            link.check()?;
        }
        Ok(wake)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        let Self { outbox, link, tx_counters, .. } = self;
        if outbox.pending_len > 0 {
            outbox.push(link, tx_counters);
        }
        match (link.gone, link.down && outbox.pending_len > 0) {
            (true, _) => Err(LinkError::Gone),
            (false, true) => Err(LinkError::Down),
            (false, false) => Ok(()),
        }
    }

    fn link_state(&mut self) -> LinkState {
        if self.link.gone {
            return LinkState::Gone;
        }
        link::state(self.link.control.as_fd(), self.interface.index)
    }

    fn counters(&mut self) -> Counters {
        self.rx_counters + self.tx_counters
    }

    fn offloads(&self) -> OffloadCapabilities {
        if self.outbox.header_len == 0 {
            return OffloadCapabilities::default();
        }
        let frame_len_max = GSO_PACKET_LEN_MAX + self.kind.link_header_len();
        let len_max = std::num::NonZeroUsize::new(frame_len_max);
        OffloadCapabilities {
            checksum_tx: true,
            checksum_rx: true,
            gso_tcpv4: len_max,
            gso_tcpv6: len_max,
            gso_udp: len_max.filter(|_| self.splits_udp),
        }
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let Self { inbox, link, rx_counters, .. } = self;
        if !inbox.find(link, rx_counters) {
            return None;
        }
        if inbox.current.is_some_and(|arrived| arrived.is_begun()) {
            return Some(inbox.lend(rx_counters, |piece| f(piece, &FrameMeta::default())));
        }
        let arrived = inbox.current.take()?;
        let frame = inbox.buffer.get(inbox.header_len..inbox.len)?;
        Some(arrived.lend_whole(frame, rx_counters, f))
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
        let Self { outbox, link, tx_counters, splits_udp, .. } = self;
        let is_udp = meta.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
        if meta.is_plain() || (outbox.header_len > 0 && (!is_udp || *splits_udp)) {
            let result = outbox.write(tx_counters, len, f, |_| to_be_sent(meta));
            outbox.push(link, tx_counters);
            return Some(result);
        }
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        let segments = Segments::of(outbox.kind.medium(), &frame, meta, None);
        tx_counters.tx_segmented += u64::from(segments.count() > 1);
        for index in 0..segments.count() {
            // As in a full queue, what the kernel has no room for behind the first is lost.
            if outbox.pending_len > 0 {
                tx_counters.tx_segments_lost += (segments.count() - index) as u64;
                break;
            }
            let write = |room: &mut [u8]| segments.write(index, room);
            outbox.write(tx_counters, segments.frame_len(index), write, |_| FrameMeta::default());
            outbox.push(link, tx_counters);
        }
        Some(result)
    }

    fn waker(&self) -> Waker {
        self.link.waker.clone()
    }
}

/// What goes into the header of a frame that is sent: the checksum's state only if it is absent.
fn to_be_sent(meta: &FrameMeta) -> FrameMeta {
    let is_partial = matches!(meta.checksum, ChecksumState::Partial { .. });
    let checksum = if is_partial { meta.checksum } else { ChecksumState::Complete };
    FrameMeta { checksum, gso: meta.gso, ..FrameMeta::default() }
}

/// Frames that are thrown away in one search for one that can be lent.
const UNFIT_FRAMES_MAX: usize = 64;
/// Bytes of the longest IP packet that says its own length.
const GSO_PACKET_LEN_MAX: usize = 65_535;
/// How often an interface that is down is looked at.
const LINK_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How soon a frame that the kernel had no memory for is offered again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// The bit of a hardware address that says "a group" (IEEE 802).
const GROUP_BIT: u8 = 1;
/// The bit that says "locally administered".
const LOCAL_BIT: u8 = 2;

#[cfg(test)]
mod tests;
