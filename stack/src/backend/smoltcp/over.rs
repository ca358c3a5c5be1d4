//! A device that carries TCP only: everything below and beside TCP is done by a [`Shard`].
//!
//! smoltcp sees a device of IP packets. What it gets are the segments for addresses of ours, of whole packets
//! with right checksums; what it sends is routed by the shard and leaves with the shard's other frames.
//!
//! ```text
//!   device ─▶ Shard: ARP, NDP, IP, ICMP, UDP, fragments ─▶ segments ─▶ smoltcp
//!   device ◀─ Shard: route, neighbour, link header     ◀── segments ◀─ smoltcp
//! ```
//!
//! smoltcp reads segments where the device has them. What it writes is copied once, into the device.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;

use smoltcp::iface::Interface;
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{IpCidr, Ipv4Address, Ipv6Address};
use wirestack_nic::offload::Layout;
use wirestack_nic::offload::checksum;
use wirestack_nic::{Counters, FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker, wait};

use super::Host;
use crate::config::HostConfig;
use crate::egress::Outbox;
use crate::error::ConfigError;
use crate::ip::Address;
use crate::shard::{Command, Shard};

#[cfg(test)]
mod tests;

/// What an application does in each turn of the shard.
pub type InTurn<'a> = Box<dyn FnMut(&mut Shard) + 'a>;

/// A shard and its device, as a device of IP packets with TCP.
pub struct Over<'a, N> {
    /// For a segment that is read and its answer both want it, one after the other.
    shard: RefCell<Shard>,
    nic: N,
    app: InTurn<'a>,
    /// When the shard wants to be turned again.
    deadline: Option<Instant>,
    /// Segments that came in fragments, or from ourselves, until smoltcp has seen them.
    segments: Outbox,
    /// A turn of the shard has begun; a flush ends it.
    has_begun: bool,
    /// The device has nothing more in this turn.
    is_drained: bool,
    /// The shard wants to be turned again at once.
    is_behind: bool,
    /// What the shard was told of the link.
    is_up: bool,
}

impl<'a, N: Nic> Over<'a, N> {
    /// Puts a shard over a device. `app` is called once in each of its turns.
    pub fn new(nic: N, mut shard: Shard, app: InTurn<'a>) -> Self {
        shard.take_tcp(SEGMENTS_BYTES_MAX);
        Self {
            shard: RefCell::new(shard),
            nic,
            app,
            deadline: Some(Instant::ZERO),
            segments: Outbox::new(SEGMENTS_BYTES_MAX, SEGMENTS_MAX),
            has_begun: false,
            is_drained: false,
            is_behind: false,
            is_up: true,
        }
    }

    /// The shard.
    pub fn shard(&mut self) -> &mut Shard {
        self.shard.get_mut()
    }

    /// The device.
    pub fn inner_mut(&mut self) -> &mut N {
        &mut self.nic
    }

    /// Turns the shard once, without smoltcp: segments that come wait for it.
    pub fn turn(&mut self, now: Instant) {
        self.deadline = self.shard.get_mut().turn(now, &mut self.nic, &mut self.app);
        self.note_turn();
    }

    /// A turn of the shard is over.
    fn note_turn(&mut self) {
        let shard = self.shard.get_mut();
        self.is_behind = self.deadline.is_some_and(|due| due <= shard.now());
        self.has_begun = false;
        // What smoltcp has not seen yet stays before what came now.
        if self.segments.is_empty() {
            shard.swap_tcp(&mut self.segments);
        }
    }

    /// The link came up or went down, if that is new to the shard.
    fn tell_link(&mut self, is_up: bool) {
        if self.is_up != is_up && self.shard.get_mut().push_command(Command::LinkChanged(is_up)).is_ok() {
            self.is_up = is_up;
            self.deadline = Some(Instant::ZERO);
        }
    }
}

impl<'a, 'b, N: Nic> Host<'a, Over<'b, N>> {
    /// Makes a host for TCP over a shard. Its addresses are those of the shard, and change with them
    /// ([`follow_addresses`](Self::follow_addresses)); those of `config`, and its gateways, do not count.
    ///
    /// # Errors
    /// The first limit of the configuration that is out of its bounds.
    pub fn over(over: Over<'b, N>, mut config: HostConfig<'a>) -> Result<Self, ConfigError> {
        config.check_limits()?;
        config.addresses.clear();
        config.gateways.clear();
        let mut host = Self::with_checked(over, config);
        // The shard routes. smoltcp only wants to hear that there is a way; the next stop means nothing on a
        // device of IP packets. The table is empty, so both find room.
        let routes = host.iface.routes_mut();
        let _ = routes.add_default_ipv4_route(Ipv4Address::new(192, 0, 0, 8));
        let _ = routes.add_default_ipv6_route(Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
        host.follow_addresses();
        Ok(host)
    }

    /// Takes over the addresses that the shard has now: to be called once in a turn. Connections from an
    /// address that is gone end. True: something has changed.
    pub fn follow_addresses(&mut self) -> bool {
        let usable = |address: &&Address| address.is_usable();
        let shard = self.nic.shard.get_mut();
        let addresses = shard.addresses().filter(usable).map(|address| address.cidr);
        if addresses.take(ADDRESSES_MAX).eq(self.iface.ip_addrs().iter().copied()) {
            return false;
        }
        let addresses: Vec<_> = shard.addresses().filter(usable).map(|address| address.cidr).collect();
        set_addresses(&mut self.iface, &addresses);
        for connection in &self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
            let is_gone = |address| !addresses.iter().any(|cidr| cidr.address() == address);
            if socket.local_endpoint().is_some_and(|local| is_gone(local.addr)) {
                socket.abort();
            }
        }
        true
    }
}

fn set_addresses(iface: &mut Interface, addresses: &[IpCidr]) {
    if addresses.len() > ADDRESSES_MAX {
        log::warn!("TCP is served on the first {ADDRESSES_MAX} of {} addresses", addresses.len());
    }
    iface.update_ip_addrs(|known| {
        known.clear();
        for &address in addresses.iter().take(ADDRESSES_MAX) {
            let _ = known.push(address);
        }
    });
}

impl<N: Nic> Device for Over<'_, N> {
    type RxToken<'t>
        = Segment<'t, N>
    where
        Self: 't;
    type TxToken<'t>
        = Room<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(Segment<'_, N>, Room<'_>)> {
        if !self.has_begun {
            self.is_behind = self.shard.get_mut().begin_turn(now, &self.nic);
            (self.has_begun, self.is_drained) = (true, false);
        }
        if self.segments.is_empty() {
            self.shard.get_mut().swap_tcp(&mut self.segments);
        }
        if self.segments.is_empty() && self.is_drained {
            return None;
        }
        let (shard, meta) = (&self.shard, PacketMeta::default());
        let (nic, segments, is_drained) = (&mut self.nic, &mut self.segments, &mut self.is_drained);
        Some((Segment { nic, segments, is_drained, shard, now }, Room { shard, meta }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        let has_room = self.shard.get_mut().has_room_for(SEGMENT_BYTES_MAX.get());
        has_room.then_some(Room { shard: &self.shard, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let inner = self.nic.capabilities();
        let link_header_len = if inner.medium == Medium::Ethernet { ETHERNET_HEADER_LEN } else { 0 };
        let mut capabilities = inner.clone();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = inner.max_transmission_unit.saturating_sub(link_header_len);
        // The shard has verified what comes, and has the device sum what goes, which all of them can.
        capabilities.checksum.tcp = Checksum::None;
        // What a device cannot hand on it splits itself, if it says that this is a gain.
        let without_header = |max: NonZeroUsize| NonZeroUsize::new(max.get().saturating_sub(link_header_len));
        let max = inner.segmentation.tcpv4.and_then(without_header);
        capabilities.segmentation.tcpv4 = max.map(|max| max.min(SEGMENT_BYTES_MAX));
        capabilities
    }
}

/// The next segment, in its packet, or nothing: what the device has next may be for the shard alone.
pub struct Segment<'t, N> {
    nic: &'t mut N,
    segments: &'t mut Outbox,
    is_drained: &'t mut bool,
    shard: &'t RefCell<Shard>,
    now: Instant,
}

impl<N: Nic> RxToken for Segment<'_, N> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        if let Some((packet, _)) = self.segments.front() {
            let result = f(packet);
            self.segments.pop();
            return result;
        }
        let shard = self.shard;
        let (mut reader, mut result) = (Some(f), None);
        self.nic.receive_with(self.now, |frame, meta| {
            let place = shard.borrow_mut().handle_frame_but_tcp(frame, meta);
            let packet = place.and_then(|place| frame.get(place)).unwrap_or_default();
            // smoltcp answers in here, so nobody has the shard meanwhile.
            result = reader.take().map(|read| read(packet));
        });
        match (result, reader) {
            (Some(result), _) => result,
            (None, Some(read)) => {
                *self.is_drained = true;
                read(&[])
            }
            (None, None) => unreachable!("who has read has said something"),
        }
    }
}

/// Room for a segment to be sent.
#[derive(Debug)]
pub struct Room<'t> {
    shard: &'t RefCell<Shard>,
    meta: PacketMeta,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { shard, meta } = self;
        shard.borrow_mut().send_packet_with(len, |packet| {
            let result = f(packet);
            let mut meta = FrameMeta::from_smoltcp(meta, Medium::Ip, packet);
            if let Some(layout) = Layout::of_packet(packet)
                && let Some(state) = checksum::leave_out(packet, &layout)
            {
                meta.checksum = state;
            }
            (result, meta)
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl<N: Nic> Nic for Over<'_, N> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        let is_behind = self.is_behind || !self.segments.is_empty();
        let sooner = match is_behind {
            true => Some(Instant::ZERO),
            false => [deadline, self.deadline].into_iter().flatten().min(),
        };
        let wake = self.nic.wait(sooner);
        match wake {
            Ok(_) => self.tell_link(true),
            Err(LinkError::Down) => self.tell_link(false),
            Err(_) => {}
        }
        let is_shards = is_behind || self.deadline.is_some_and(|due| wait::now() >= due);
        wake.map(|wake| if is_shards && wake == Wake::Deadline { Wake::Ready } else { wake })
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        let shard = self.shard.get_mut();
        // Either flushes the device as well.
        if self.has_begun {
            self.deadline = shard.end_turn(&mut self.nic, &mut self.app, self.is_behind);
            self.note_turn();
        } else {
            self.deadline = shard.send(&mut self.nic);
        }
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        self.nic.link_state()
    }

    fn counters(&mut self) -> Counters {
        self.nic.counters()
    }

    fn offloads(&self) -> OffloadCapabilities {
        OffloadCapabilities { checksum_rx: true, ..self.nic.offloads() }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.nic.descriptor()
    }

    fn waker(&self) -> Waker {
        self.nic.waker()
    }
}

impl<N: std::fmt::Debug> std::fmt::Debug for Over<'_, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Over")
            .field("nic", &self.nic)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Bytes of segments that wait for smoltcp: some windows.
const SEGMENTS_BYTES_MAX: usize = 8 << 20;
/// The same, in segments.
const SEGMENTS_MAX: usize = 4_096;
/// Bytes of a segment at most, with its IP header.
const SEGMENT_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(65_535).expect("not 0");
const ETHERNET_HEADER_LEN: usize = 14;
/// Addresses that smoltcp's interface has room for.
const ADDRESSES_MAX: usize = 8;
