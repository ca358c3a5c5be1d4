//! A device that carries TCP only: everything below and beside TCP is done by a [`Shard`].
//!
//! smoltcp sees a device of IP packets. What it gets are the segments for addresses of ours, of whole packets
//! with right checksums; what it sends is routed by the shard and leaves with the shard's other frames.
//!
//! ```text
//!   device ─▶ Shard: ARP, NDP, IP, ICMP, UDP, fragments ─▶ segments ─▶ smoltcp
//!   device ◀─ Shard: route, neighbour, link header     ◀── segments ◀─ smoltcp
//! ```

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;
use wirestack_nic::offload::Layout;
use wirestack_nic::offload::checksum;
use wirestack_nic::{Counters, FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker, wait};

use crate::shard::Shard;

/// What an application does in each turn of the shard.
pub type InTurn<'a> = Box<dyn FnMut(&mut Shard) + 'a>;

/// A shard and its device, as a device of IP packets with TCP.
pub struct Over<'a, N> {
    shard: Shard,
    nic: N,
    app: InTurn<'a>,
    /// When the shard wants to be turned again.
    deadline: Option<Instant>,
    /// The segment that is lent, and the one that is written.
    scratch: [Vec<u8>; 2],
}

impl<'a, N: Nic> Over<'a, N> {
    /// Puts a shard over a device. `app` is called once in each of its turns.
    pub fn new(nic: N, mut shard: Shard, app: InTurn<'a>) -> Self {
        shard.take_tcp(TCP_QUEUE_BYTES_MAX);
        Self { shard, nic, app, deadline: Some(Instant::ZERO), scratch: Default::default() }
    }

    /// The shard.
    pub fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// The device.
    pub fn inner_mut(&mut self) -> &mut N {
        &mut self.nic
    }

    /// Turns the shard once.
    pub fn turn(&mut self, now: Instant) {
        self.deadline = self.shard.turn(now, &mut self.nic, &mut self.app);
    }
}

impl<N: Nic> Device for Over<'_, N> {
    type RxToken<'t>
        = Segment<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Room<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(Segment<'_>, Room<'_>)> {
        let [lent, written] = &mut self.scratch;
        let mut meta = take_segment(&mut self.shard, lent);
        if meta.is_none() {
            self.deadline = self.shard.turn(now, &mut self.nic, &mut self.app);
            meta = take_segment(&mut self.shard, lent);
        }
        let meta = meta?;
        let room = Room { shard: &mut self.shard, scratch: written, meta: PacketMeta::default() };
        Some((Segment { packet: lent, meta }, room))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        let [_, written] = &mut self.scratch;
        let has_room = self.shard.has_room_for(SEGMENT_BYTES_MAX.get());
        has_room.then_some(Room { shard: &mut self.shard, scratch: written, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let inner = self.nic.capabilities();
        let mut capabilities = inner.clone();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = match inner.medium {
            Medium::Ip => inner.max_transmission_unit,
            _ => inner.max_transmission_unit.saturating_sub(ETHERNET_HEADER_LEN),
        };
        // The shard has verified what comes, and has the device sum what goes, which all of them can.
        capabilities.checksum.tcp = Checksum::None;
        capabilities.segmentation.tcpv4 = self.nic.offloads().gso_tcpv4.map(|max| max.min(SEGMENT_BYTES_MAX));
        capabilities
    }
}

/// Copies the next segment out of the shard.
fn take_segment(shard: &mut Shard, room: &mut Vec<u8>) -> Option<FrameMeta> {
    shard.next_tcp(|packet, meta| {
        room.clear();
        room.extend_from_slice(packet);
        *meta
    })
}

/// A received segment.
#[derive(Debug)]
pub struct Segment<'t> {
    packet: &'t [u8],
    meta: FrameMeta,
}

impl RxToken for Segment<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.packet)
    }

    fn meta(&self) -> PacketMeta {
        self.meta.to_smoltcp()
    }
}

/// Room for a segment to be sent.
#[derive(Debug)]
pub struct Room<'t> {
    shard: &'t mut Shard,
    scratch: &'t mut Vec<u8>,
    meta: PacketMeta,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { shard, scratch, meta } = self;
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let packet = &mut scratch[..len];
        let result = f(packet);
        let mut meta = FrameMeta::from_smoltcp(meta, Medium::Ip, packet);
        if let Some(layout) = Layout::of_packet(packet)
            && let Some(state) = checksum::leave_out(packet, &layout)
        {
            meta.checksum = state;
        }
        shard.send_packet(packet, &meta);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl<N: Nic> Nic for Over<'_, N> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        if self.shard.has_tcp() {
            self.nic.wait(Some(Instant::ZERO))?;
            return Ok(Wake::Ready);
        }
        let sooner = [deadline, self.deadline].into_iter().flatten().min();
        let wake = self.nic.wait(sooner)?;
        let is_shards = self.deadline.is_some_and(|due| wait::now() >= due);
        Ok(if is_shards && wake == Wake::Deadline { Wake::Ready } else { wake })
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        // What smoltcp has sent since the turn of the shard waits in its outbox.
        self.deadline = self.shard.send(&mut self.nic).or(self.deadline);
        self.nic.flush()
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
const TCP_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes of a segment at most, with its IP header.
const SEGMENT_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(65_535).expect("not 0");
const ETHERNET_HEADER_LEN: usize = 14;
