//! A device in memory whose other end is the simulator.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::NonZeroUsize;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::nic::Counters;
use wirestack::nic::meta::ChecksumState;
use wirestack::nic::offload::{Segments, checksum};
use wirestack::nic::{FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker};

use super::gro;

/// Bytes of an Ethernet header.
pub const LINK_HEADER_LEN: usize = 14;

/// Frames among which one of the same flow is searched for.
const GRO_FRAMES_MAX: usize = 64;

/// A frame with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The bytes, link header first.
    pub bytes: Vec<u8>,
    /// What is left to be done to it.
    pub meta: FrameMeta,
    /// A wire has changed a bit of it. No other wire does: two bits can make up for each other in the sum of
    /// RFC 1071, and then nobody can know.
    pub is_damaged: bool,
}

impl Frame {
    /// A frame as it is on a wire.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, meta: FrameMeta::default(), is_damaged: false }
    }

    /// The same frame as a wire carries it: split, every checksum filled in.
    pub fn on_wire(&self) -> Vec<Vec<u8>> {
        if self.meta.gso.is_some() {
            let segments = Segments::of(Medium::Ethernet, &self.bytes, &self.meta, None);
            return (0..segments.count())
                .map(|index| {
                    let mut piece = vec![0; segments.frame_len(index)];
                    segments.write(index, &mut piece);
                    piece
                })
                .collect();
        }
        let mut bytes = self.bytes.clone();
        if let ChecksumState::Partial { start, offset } = self.meta.checksum {
            checksum::complete(&mut bytes, start, offset);
        }
        vec![bytes]
    }
}

/// What a [`SimNic`] is.
#[derive(Debug, Clone, Copy)]
pub struct NicConfig {
    /// Bytes of an IP packet.
    pub mtu: usize,
    /// Which work it hands on.
    pub offloads: OffloadCapabilities,
    /// Whether it takes frames whose work was left to it: merged ones, and such without a checksum.
    pub takes_unfinished: bool,
    /// Whether it splits merged frames and fills in absent checksums before the wire, as a card does. Else they
    /// pass as they are, as on a veth pair.
    pub splits: bool,
    /// Whether it merges segments that came, as Linux does (GRO): those that wait when the shard looks.
    pub gro: bool,
    /// How long it waits for company before it tells that a frame has come.
    pub coalescing: Duration,
    /// Frames that wait to be received; more are lost, and counted.
    pub rx_frames_max: usize,
    /// Frames taken between two looks of the simulator; more are refused.
    pub tx_frames_max: usize,
}

impl NicConfig {
    /// An MTU of 1500, no offloads, queues of 4096 frames.
    pub const DEFAULT: Self = Self {
        mtu: 1500,
        offloads: OffloadCapabilities {
            checksum_tx: false,
            checksum_rx: false,
            gso_tcpv4: None,
            gso_tcpv6: None,
            gso_udp: None,
        },
        takes_unfinished: false,
        splits: false,
        gro: false,
        coalescing: Duration::ZERO,
        rx_frames_max: 4096,
        tx_frames_max: 4096,
    };
}

impl Default for NicConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A device in memory.
#[derive(Debug)]
pub struct SimNic {
    config: NicConfig,
    rx: VecDeque<Frame>,
    tx: Vec<Frame>,
    refused: bool,
    up: bool,
    groups: BTreeMap<[u8; 6], usize>,
    /// When it tells that frames have come.
    interrupt: Option<Instant>,
    counters: Counters,
    waker: Waker,
}

impl SimNic {
    /// A device without frames, whose link is up.
    pub fn new(config: NicConfig) -> Self {
        Self {
            config,
            rx: VecDeque::new(),
            tx: Vec::new(),
            refused: false,
            up: true,
            groups: BTreeMap::new(),
            interrupt: None,
            counters: Counters::default(),
            waker: Waker::new().expect("an eventfd"),
        }
    }

    /// What it is.
    pub fn config(&self) -> &NicConfig {
        &self.config
    }

    /// A frame comes from the wire. `false`: there was no room for (all of) it.
    pub fn push(&mut self, frame: Frame) -> bool {
        let frames = if self.config.takes_unfinished || frame.meta.is_plain() {
            vec![frame]
        } else {
            frame.on_wire().into_iter().map(Frame::plain).collect()
        };
        let mut is_whole = true;
        for frame in frames {
            if self.config.gro && self.merge(&frame) {
                continue;
            }
            if self.rx.len() >= self.config.rx_frames_max {
                self.counters.rx_ring_full += 1;
                is_whole = false;
                continue;
            }
            self.rx.push_back(frame);
        }
        is_whole
    }

    /// Appends a frame to the last one of its flow that waits. False: it is to wait by itself.
    fn merge(&mut self, frame: &Frame) -> bool {
        let mut waiting = self.rx.iter_mut().rev().take(GRO_FRAMES_MAX);
        waiting.find(|last| gro::is_same_flow(last, frame)).is_some_and(|last| gro::merge(last, frame))
    }

    /// When the shard is to look for what has come at `now`.
    pub fn interrupts_at(&mut self, now: Instant) -> Instant {
        // A turn that came earlier for another reason has found what there was.
        let pending = self.interrupt.filter(|at| *at >= now);
        *self.interrupt.insert(pending.unwrap_or(now + self.config.coalescing))
    }

    /// All frames that were sent since the last call, and whether one was refused.
    pub fn take_sent(&mut self) -> (Vec<Frame>, bool) {
        (std::mem::take(&mut self.tx), std::mem::take(&mut self.refused))
    }

    /// Whether a frame waits to be received.
    pub fn has_frames(&self) -> bool {
        !self.rx.is_empty()
    }

    /// The link goes up or down. What waits is lost with it.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
        if !up {
            self.rx.clear();
        }
    }

    /// A device of a host of today: checksums and splitting are left to it, and what comes is merged.
    pub fn offloading() -> NicConfig {
        NicConfig {
            offloads: OffloadCapabilities {
                checksum_tx: true,
                checksum_rx: true,
                gso_tcpv4: NonZeroUsize::new(65_535 + LINK_HEADER_LEN),
                gso_tcpv6: NonZeroUsize::new(65_535 + LINK_HEADER_LEN),
                gso_udp: None,
            },
            takes_unfinished: true,
            splits: true,
            gro: true,
            ..NicConfig::default()
        }
    }

    /// Whether it lets frames to this group of the link pass.
    pub fn is_member(&self, group: EthernetAddress) -> bool {
        self.groups.contains_key(&group.0)
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.tx.len() < self.config.tx_frames_max;
        self.refused |= !has_room;
        has_room
    }

    fn sent(&mut self, frame: Frame) {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.bytes.len() as u64;
        self.tx.push(frame);
    }
}

/// A frame that was received.
#[derive(Debug)]
pub struct RxToken(Frame);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0.bytes)
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct TxToken<'a>(&'a mut SimNic);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.sent(Frame::plain(bytes));
        result
    }
}

impl Device for SimNic {
    type RxToken<'t> = RxToken;
    type TxToken<'t> = TxToken<'t>;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken, TxToken<'_>)> {
        self.interrupt = None;
        let frame = self.rx.pop_front()?;
        self.counters.rx_frames += 1;
        Some((RxToken(frame), TxToken(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        self.has_room().then_some(TxToken(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.config.mtu + LINK_HEADER_LEN;
        capabilities
    }
}

impl Nic for SimNic {
    fn wait(&mut self, _deadline: Option<Instant>) -> Result<Wake, LinkError> {
        Ok(Wake::Ready)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if self.up { Ok(()) } else { Err(LinkError::Down) }
    }

    fn link_state(&mut self) -> LinkState {
        if self.up { LinkState::Up } else { LinkState::Down }
    }

    fn counters(&mut self) -> Counters {
        self.counters
    }

    fn offloads(&self) -> OffloadCapabilities {
        self.config.offloads
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        self.interrupt = None;
        let frame = self.rx.pop_front()?;
        self.counters.rx_frames += 1;
        Some(f(&frame.bytes, &frame.meta))
    }

    fn transmit_with<R>(
        &mut self,
        _now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if !self.has_room() {
            return None;
        }
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        let frame = Frame { bytes, meta: *meta, is_damaged: false };
        if self.config.offloads.takes(meta, len) {
            self.sent(frame);
        } else {
            frame.on_wire().into_iter().for_each(|piece| self.sent(Frame::plain(piece)));
        }
        Some(result)
    }

    fn join_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        *self.groups.entry(address.0).or_default() += 1;
        Ok(())
    }

    fn leave_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        if let Some(members) = self.groups.get_mut(&address.0) {
            *members -= 1;
            if *members == 0 {
                self.groups.remove(&address.0);
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
