//! Two devices in memory: what one sends, the other receives.
//!
//! ```text
//!   end 0  TxToken ──▶ pipe 0 ──▶ RxToken  end 1
//!          RxToken ◀── pipe 1 ◀── TxToken
//! ```
//!
//! The ends may live on two threads or on one. A pipe is a bounded queue of [`Slot`]s behind a mutex;
//! a frame is written into a slot of its sender and read from a slot of its receiver, and only buffers
//! are exchanged under the lock: no closure runs while a lock is held, and no frame is copied.
//!
//! **Full.** A full pipe is back pressure: `transmit` gives no token, and `receive` no frame, since the
//! answer to it would have no room. Should both pipes be full, each end would wait for the other; then
//! `receive` does lend a frame, and an answer that finds no room is dropped and counted in
//! `tx_rejected`. Nothing else is ever lost.
//!
//! **Offloads.** [`LoopbackConfig::offloads`] says which work [`Nic::transmit_with`] leaves undone: the
//! other end gets the frame with the metadata it was sent with, as over a veth pair. The rest is done when
//! a frame is sent, and all pieces of a split frame wait for room together. An end that receives by
//! tokens, which cannot tell it, gets absent checksums filled in, and several datagrams one by one.
//!
//! **Wake-ups.** Frames can be received as soon as they were sent. An end that sleeps is woken when the
//! other one flushes or waits, once for all that happened. Before it sleeps, an end says so under the
//! lock under which it finds nothing to do, so whatever happens later wakes it.
//!
//! [`Spread`] is one device opposite several, which share its frames.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use managed::ManagedSlice;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::storage::RingBuffer;
use smoltcp::time::Instant;

use crate::meta::{ChecksumState, FrameMeta, GsoKind, OffloadCapabilities};
use crate::offload::checksum::{self, Verdict};
use crate::offload::{Layout, software};
use crate::received::Arrived;
use crate::slot::{FRAME_LEN_MAX, Slot, owned_slots};
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker, wait};

mod spread;

pub use spread::Spread;

/// One end of a pair of devices in memory.
///
/// [`link_state`](Nic::link_state) is up as long as the other end exists. `wait` and `flush` report
/// [`LinkError::Gone`] when it does not and its last frame was received.
#[derive(Debug)]
pub struct Loopback<'a> {
    rx: RxEnd<'a>,
    tx: TxEnd<'a>,
    waker: Waker,
    medium: Medium,
    mtu: usize,
    checksum: ChecksumCapabilities,
    offloads: OffloadCapabilities,
}

/// What both ends of a [`Loopback`] are like.
#[derive(Debug, Clone)]
pub struct LoopbackConfig {
    /// Ethernet frames, or IP packets without a link header.
    pub medium: Medium,
    /// Largest frame in bytes that the stack should send unsplit, with the Ethernet header if there is
    /// one: smoltcp's `max_transmission_unit`. From [`MTU_MIN`] to `frame_len_max`.
    pub mtu: usize,
    /// Largest frame in bytes that can be sent, at most [`FRAME_LEN_MAX`]. More than `mtu` offers
    /// segmentation offload, if the stack leaves out the checksums of TCP that it sends: super-frames arrive
    /// whole, with their metadata, as from a card that merges.
    pub frame_len_max: usize,
    /// Frames queued in each direction, from 1 to [`QUEUE_LEN_MAX`]. Slots that were given by the user
    /// count instead, if there are any.
    pub queue_len: usize,
    /// Which checksums the stack makes and verifies. Memory does not flip bits, so a benchmark may want
    /// [`ChecksumCapabilities::ignored`].
    pub checksum: ChecksumCapabilities,
    /// What is left undone in a frame of [`Nic::transmit_with`], and whether [`Nic::receive_with`] verifies
    /// checksums. Frames to be split are left whole up to `frame_len_max`, if that is less.
    pub offloads: OffloadCapabilities,
}

/// Ethernet with an IP MTU of 1500 bytes, 256 frames, checksums as on a real wire, no offloads.
impl Default for LoopbackConfig {
    fn default() -> Self {
        Self {
            medium: Medium::Ethernet,
            mtu: 1514,
            frame_len_max: 1514,
            queue_len: 256,
            checksum: ChecksumCapabilities::default(),
            offloads: OffloadCapabilities::default(),
        }
    }
}

/// Why a [`Loopback`] could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoopbackError {
    /// The MTU is out of range.
    #[error("loopback MTU of {mtu} bytes: expected {MTU_MIN} to {frame_len_max}, the longest frame")]
    Mtu {
        /// The MTU of the configuration.
        mtu: usize,
        /// The longest frame of the configuration.
        frame_len_max: usize,
    },
    /// The longest frame is longer than a slot can be.
    #[error("loopback frames of {frame_len_max} bytes: expected at most {FRAME_LEN_MAX}")]
    FrameLen {
        /// The longest frame of the configuration.
        frame_len_max: usize,
    },
    /// The length of a queue is out of range.
    #[error("loopback queue of {queue_len} frames: expected 1 to {QUEUE_LEN_MAX}")]
    QueueLen {
        /// The length of the configuration, or the number of slots that were given.
        queue_len: usize,
    },
    /// A slot that was given is too short for the longest frame.
    #[error("loopback slot of {slot_len} bytes: expected {frame_len_max}, the longest frame")]
    SlotLen {
        /// The room in that slot.
        slot_len: usize,
        /// The longest frame of the configuration.
        frame_len_max: usize,
    },
    /// No event by which a sleeping end is woken.
    #[error("cannot make the events that wake a loopback: {0}")]
    Event(#[from] io::Error),
}

impl Loopback<'static> {
    /// Two devices that own their memory, which grows as frames come.
    ///
    /// # Errors
    /// A value of `config` is out of range, or there are no file descriptors left.
    pub fn pair(config: &LoopbackConfig) -> Result<(Self, Self), LoopbackError> {
        check_queue_len(config.queue_len)?;
        Self::pair_with_slots(config, owned_slots(config.queue_len), owned_slots(config.queue_len))
    }
}

impl<'a> Loopback<'a> {
    /// Two devices with the slots of the queue from the first to the second, and of that back: each a
    /// `Vec<Slot>` or a `&mut [Slot]`, whose slots have room for `config.frame_len_max` bytes.
    ///
    /// # Errors
    /// A value of `config`, the number of slots or the length of one is out of range, or there are no
    /// file descriptors left.
    pub fn pair_with_slots(
        config: &LoopbackConfig,
        slots_there: impl Into<ManagedSlice<'a, Slot<'a>>>,
        slots_back: impl Into<ManagedSlice<'a, Slot<'a>>>,
    ) -> Result<(Self, Self), LoopbackError> {
        let &LoopbackConfig { mtu, frame_len_max, .. } = config;
        if frame_len_max > FRAME_LEN_MAX {
            return Err(LoopbackError::FrameLen { frame_len_max });
        }
        if !(MTU_MIN..=frame_len_max).contains(&mtu) {
            return Err(LoopbackError::Mtu { mtu, frame_len_max });
        }
        let there = Pipe::new(slots_there.into(), frame_len_max)?;
        let back = Pipe::new(slots_back.into(), frame_len_max)?;
        let bells = [Bell::new()?, Bell::new()?];
        let [first_bell, second_bell] = &bells;
        let first = Self::end(config, [&back, &there], [first_bell, second_bell])?;
        let second = Self::end(config, [&there, &back], [second_bell, first_bell])?;
        Ok((first, second))
    }

    fn end(
        config: &LoopbackConfig,
        [rx, tx]: [&Arc<Pipe<'a>>; 2],
        [own_bell, peer_bell]: [&Bell; 2],
    ) -> Result<Self, LoopbackError> {
        Ok(Self {
            rx: RxEnd {
                pipe: rx.clone(),
                bell: own_bell.clone(),
                lent: Slot::default(),
                begun: None,
                scratch: Vec::new(),
                needs_room: true,
                medium: config.medium,
                counters: Counters::default(),
            },
            tx: TxEnd {
                pipe: tx.clone(),
                peer_bell: peer_bell.clone(),
                filling: Slot::default(),
                scratch: Vec::new(),
                medium: config.medium,
                frame_len_max: config.frame_len_max,
                refused: 0,
                counters: Counters::default(),
            },
            waker: Waker::new()?,
            medium: config.medium,
            mtu: config.mtu,
            checksum: config.checksum.clone(),
            offloads: offloads(config),
        })
    }

    /// Whether `receive` would lend a frame: there is one, and room for an answer or no hope for any.
    /// (Who receives by `receive_with` needs no such room.) If not, the other end rings when it has made
    /// room; `asleep` asks it to ring for frames as well.
    fn readiness(&mut self, asleep: bool) -> Readiness {
        let has_room = self.tx.has_room(1);
        let can_answer = has_room || !self.rx.needs_room;
        let refused_has_room = has_room && self.tx.refused > 0 && self.tx.has_room(self.tx.refused);
        let has_begun = self.rx.begun.is_some();
        let mut queue = self.rx.pipe.lock();
        let is_full = queue.frames.is_full();
        let first = queue.first().map(|slot| told_by_token(&slot.meta));
        match if has_begun { Some(PacketMeta::default()) } else { first } {
            Some(meta) if can_answer || is_full => Readiness::Frame(meta),
            None if queue.sender_gone => Readiness::Gone,
            _ => {
                queue.receiver_asleep = asleep;
                if refused_has_room { Readiness::Room } else { Readiness::Nothing }
            }
        }
    }
}

impl<'a> Device for Loopback<'a> {
    type RxToken<'t>
        = RxToken<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.rx.needs_room = true;
        let Readiness::Frame(meta) = self.readiness(false) else { return None };
        Some((
            RxToken { end: &mut self.rx, meta },
            TxToken { end: &mut self.tx, meta: PacketMeta::default() },
        ))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Self::TxToken<'_>> {
        if !self.tx.admits(1) {
            return None;
        }
        Some(TxToken { end: &mut self.tx, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = self.checksum.clone();
        // smoltcp panics on a device that splits what has a checksum already.
        if self.tx.frame_len_max > self.mtu && !self.checksum.tcp.tx() {
            let frame_len_max = NonZeroUsize::new(self.tx.frame_len_max);
            capabilities.segmentation.tcpv4 = frame_len_max;
            capabilities.segmentation.tcpv6 = frame_len_max;
        }
        capabilities
    }
}

impl Nic for Loopback<'_> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        self.ring_peer();
        let readiness = self.readiness(true);
        // A sleep that lasts no time still finds out whether the waker was called.
        let until = match readiness {
            Readiness::Gone => return Err(LinkError::Gone),
            Readiness::Frame(_) | Readiness::Room => Some(Instant::ZERO),
            Readiness::Nothing => deadline,
        };
        let bell = self.rx.bell.event.as_fd();
        let (_, wake) = wait::sleep(Some((bell, PollFlags::POLLIN)), &self.waker, until);
        self.rx.bell.silence();
        self.rx.pipe.lock().receiver_asleep = false;
        if readiness == Readiness::Room {
            self.tx.refused = 0;
        }
        match (wake, readiness) {
            (Wake::Deadline, Readiness::Frame(_) | Readiness::Room) => Ok(Wake::Ready),
            (wake, _) => Ok(wake),
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.ring_peer();
        let has_begun = self.rx.begun.is_some();
        let queue = self.rx.pipe.lock();
        if queue.sender_gone && queue.frames.is_empty() && !has_begun { Err(LinkError::Gone) } else { Ok(()) }
    }

    fn link_state(&mut self) -> LinkState {
        if self.tx.pipe.lock().receiver_gone { LinkState::Gone } else { LinkState::Up }
    }

    fn counters(&mut self) -> Counters {
        self.rx.counters + self.tx.counters
    }

    /// Those of the configuration.
    fn offloads(&self) -> OffloadCapabilities {
        self.offloads
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        self.rx.needs_room = false;
        if let Some(begun) = self.rx.begun.take() {
            return Some(self.rx.lend_piece(begun, |piece| f(piece, &FrameMeta::default())));
        }
        for _ in 0..WRONG_MAX {
            let meta = self.rx.take()?;
            let meta = if self.offloads.checksum_rx { self.rx.verified(meta) } else { Some(meta) };
            if let Some(meta) = meta {
                return Some(f(self.rx.lend(), &meta));
            }
        }
        None
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if self.offloads.takes(meta, len) {
            return self.tx.admits(1).then(|| self.tx.send(len, |_| *meta, f));
        }
        // No piece is lost, but for queues that are shorter than one frame.
        let pieces = meta.gso.map_or(1, |gso| len.div_ceil(gso.size.get().into()));
        if !self.tx.admits(pieces) {
            return None;
        }
        let mut scratch = std::mem::take(&mut self.tx.scratch);
        let sent = software::transmit(self, now, len, meta, &mut scratch, f);
        self.tx.scratch = scratch;
        let software::Sent { result, frames, lost } = sent?;
        self.tx.counters.tx_segmented += u64::from(frames + lost > 1);
        self.tx.counters.tx_segments_lost += lost as u64;
        Some(result)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Loopback<'_> {
    /// Wakes the other end if it sleeps and there is something for it: frames, or room that it lacked.
    fn ring_peer(&self) {
        let frames = {
            let mut queue = self.tx.pipe.lock();
            let ring = queue.receiver_asleep && !queue.frames.is_empty();
            queue.receiver_asleep &= !ring;
            ring
        };
        let room = {
            let mut queue = self.rx.pipe.lock();
            let ring = queue.sender_lacks > 0 && queue.frames.window() >= queue.sender_lacks;
            if ring {
                queue.sender_lacks = 0;
            }
            ring
        };
        if frames || room {
            self.tx.peer_bell.ring();
        }
    }
}

/// Frames that were sent stay for the other end to receive.
impl Drop for Loopback<'_> {
    fn drop(&mut self) {
        self.tx.pipe.lock().sender_gone = true;
        self.rx.pipe.lock().receiver_gone = true;
        self.tx.peer_bell.ring();
    }
}

/// A frame of the other end. Stays queued if the token is dropped.
#[derive(Debug)]
pub struct RxToken<'t, 'a> {
    end: &'t mut RxEnd<'a>,
    meta: PacketMeta,
}

impl smoltcp::phy::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let end = self.end;
        if let Some(begun) = end.begun.take() {
            return end.lend_piece(begun, f);
        }
        // `receive` has seen the frame, and only this end takes frames away.
        let meta = end.take().unwrap_or_default();
        if is_several_datagrams(&meta) {
            return end.lend_piece(Arrived::new(meta), f);
        }
        if let ChecksumState::Partial { start, offset } = meta.checksum
            && checksum::complete(end.lent.frame_mut(), start, offset)
        {
            end.counters.rx_checksum_filled += 1;
        }
        f(end.lend())
    }

    fn meta(&self) -> PacketMeta {
        self.meta
    }
}

/// Room for a frame to the other end.
#[derive(Debug)]
pub struct TxToken<'t, 'a> {
    end: &'t mut TxEnd<'a>,
    meta: PacketMeta,
}

impl smoltcp::phy::TxToken for TxToken<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { end, meta } = self;
        let medium = end.medium;
        end.send(len, |frame| FrameMeta::from_smoltcp(meta, medium, frame), f)
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// What an end needs to receive.
#[derive(Debug)]
struct RxEnd<'a> {
    pipe: Arc<Pipe<'a>>,
    bell: Bell,
    /// The frame that is lent to a closure, or the last one that was.
    lent: Slot<'a>,
    /// That frame has several datagrams, of which some were lent.
    begun: Option<Arrived>,
    /// Where such a datagram is written.
    scratch: Vec<u8>,
    /// The user receives by tokens, so a frame needs room for an answer.
    needs_room: bool,
    medium: Medium,
    counters: Counters,
}

impl RxEnd<'_> {
    /// Takes the next frame out of the pipe, to be lent; returns its metadata.
    fn take(&mut self) -> Option<FrameMeta> {
        self.pipe.lock().frames.dequeue_one().ok()?.swap_frame(&mut self.lent);
        Some(self.lent.meta)
    }

    /// Verifies the checksum of the frame that was taken. `None`: it is wrong, and was counted.
    fn verified(&mut self, meta: FrameMeta) -> Option<FrameMeta> {
        if meta.checksum != ChecksumState::Complete {
            return Some(meta);
        }
        let layout = Layout::on(self.medium, self.lent.frame());
        match layout.map(|layout| checksum::verify(self.lent.frame(), &layout)) {
            Some(Verdict::Right) => Some(FrameMeta { checksum: ChecksumState::Verified, ..meta }),
            Some(Verdict::Unknown) | None => Some(meta),
            Some(Verdict::Wrong) => {
                self.counters.rx_bad_checksum += 1;
                None
            }
        }
    }

    /// Lends the next datagram of the frame that was taken.
    fn lend_piece<R>(&mut self, mut arrived: Arrived, f: impl FnOnce(&[u8]) -> R) -> R {
        let Self { lent, begun, scratch, medium, counters, .. } = self;
        let (result, is_last) = arrived.lend(*medium, lent.frame_mut(), scratch, counters, f);
        *begun = Some(arrived).filter(|_| !is_last);
        result
    }

    /// The frame that was taken.
    fn lend(&mut self) -> &[u8] {
        let frame = self.lent.frame();
        self.counters.rx_frames += 1;
        self.counters.rx_bytes += frame.len() as u64;
        frame
    }
}

/// What an end needs to send.
#[derive(Debug)]
struct TxEnd<'a> {
    pipe: Arc<Pipe<'a>>,
    peer_bell: Bell,
    /// The frame that is being written.
    filling: Slot<'a>,
    /// Where a frame is written that is split here.
    scratch: Vec<u8>,
    medium: Medium,
    frame_len_max: usize,
    /// Slots that the last attempt to send needed and did not find, if nobody was told of room since.
    refused: usize,
    counters: Counters,
}

impl TxEnd<'_> {
    /// Whether a frame can be sent, or need not be since nobody receives it. If not, the other end rings
    /// when it can. Only this end fills the pipe, so room that was seen stays.
    fn has_room(&self, slots: usize) -> bool {
        let mut queue = self.pipe.lock();
        let slots = slots.min(queue.frames.capacity());
        let has_room = queue.receiver_gone || queue.frames.window() >= slots;
        queue.sender_lacks = if has_room { 0 } else { slots };
        has_room
    }

    /// Whether so many frames can be sent now. If not, for want of room, that is remembered for `wait`.
    fn admits(&mut self, slots: usize) -> bool {
        if self.pipe.lock().receiver_gone {
            return false;
        }
        let has_room = self.has_room(slots);
        self.refused = if has_room { 0 } else { slots };
        self.counters.tx_ring_full += u64::from(!has_room);
        has_room
    }

    /// Queues a frame that `f` writes; what is known of it may depend on what was written.
    fn send<R>(
        &mut self,
        len: usize,
        meta: impl FnOnce(&[u8]) -> FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let Self { pipe, filling, frame_len_max, counters, .. } = self;
        let room = if len <= *frame_len_max { filling.fill(len) } else { None };
        let Some(room) = room else {
            counters.tx_oversize += 1;
            return f(&mut vec![0; len]);
        };
        let result = f(room);
        filling.meta = meta(room);
        let mut queue = pipe.lock();
        // Only an answer to a received frame can find no room: `transmit` looked before.
        if !queue.receiver_gone
            && let Ok(slot) = queue.frames.enqueue_one()
        {
            slot.swap_frame(filling);
            counters.tx_frames += 1;
            counters.tx_bytes += len as u64;
        } else {
            counters.tx_rejected += 1;
        }
        result
    }
}

/// What there is to do for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// One to be received.
    Frame(PacketMeta),
    /// Room for a frame, for which there was none the last time.
    Room,
    Nothing,
    Gone,
}

/// One direction.
#[derive(Debug)]
struct Pipe<'a> {
    queue: Mutex<Queue<'a>>,
}

#[derive(Debug)]
struct Queue<'a> {
    frames: RingBuffer<'a, Slot<'a>>,
    /// The receiver sleeps, or is about to, and wants to know of frames.
    receiver_asleep: bool,
    /// The sender was refused, and wants to know of room for so many frames; 0: it was not.
    sender_lacks: usize,
    receiver_gone: bool,
    sender_gone: bool,
}

impl<'a> Queue<'a> {
    fn first(&self) -> Option<&Slot<'a>> {
        // Returns what is there, so an empty slice if the queue is.
        self.frames.get_allocated(0, 1).first()
    }
}

impl<'a> Pipe<'a> {
    fn new(slots: ManagedSlice<'a, Slot<'a>>, frame_len_max: usize) -> Result<Arc<Self>, LoopbackError> {
        check_queue_len(slots.len())?;
        if let Some(slot_len) =
            slots.iter().map(Slot::frame_len_max).find(|&slot_len| slot_len < frame_len_max)
        {
            return Err(LoopbackError::SlotLen { slot_len, frame_len_max });
        }
        let queue = Queue {
            frames: RingBuffer::new(slots),
            receiver_asleep: false,
            sender_lacks: 0,
            receiver_gone: false,
            sender_gone: false,
        };
        Ok(Arc::new(Self { queue: Mutex::new(queue) }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue<'a>> {
        // Nothing that runs under the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By which one end wakes the other.
#[derive(Debug, Clone)]
struct Bell {
    event: Arc<EventFd>,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { event: Arc::new(event) })
    }

    fn ring(&self) {
        // Fails only after 2^64 - 2 rings that nobody heard: it rings then as well.
        let _ = self.event.write(1);
    }

    fn silence(&self) {
        // Fails if it did not ring.
        let _ = self.event.read();
    }
}

/// Whether a frame is one that a token cannot lend whole, since nobody would tell where to split it.
fn is_several_datagrams(meta: &FrameMeta) -> bool {
    meta.gso.is_some_and(|gso| gso.kind == GsoKind::Udp)
}

/// What a token says of the frame that it lends.
fn told_by_token(meta: &FrameMeta) -> PacketMeta {
    if is_several_datagrams(meta) { PacketMeta::default() } else { meta.to_smoltcp() }
}

/// What `config` offers, with frames that the pipe can hold.
fn offloads(config: &LoopbackConfig) -> OffloadCapabilities {
    let max = |len: Option<NonZeroUsize>| {
        len.and_then(|len| NonZeroUsize::new(len.get().min(config.frame_len_max)))
    };
    let OffloadCapabilities { checksum_tx, checksum_rx, gso_tcpv4, gso_tcpv6, gso_udp } = config.offloads;
    OffloadCapabilities {
        checksum_tx,
        checksum_rx,
        gso_tcpv4: max(gso_tcpv4),
        gso_tcpv6: max(gso_tcpv6),
        gso_udp: max(gso_udp),
    }
}

fn check_queue_len(queue_len: usize) -> Result<(), LoopbackError> {
    if (1..=QUEUE_LEN_MAX).contains(&queue_len) { Ok(()) } else { Err(LoopbackError::QueueLen { queue_len }) }
}

/// The smallest MTU: the least that IPv4 asks of a link (RFC 791), and an Ethernet header.
pub const MTU_MIN: usize = 68 + 14;
/// Frames with a wrong checksum that one call drops, so that the other end cannot hold up a turn of the
/// loop. The next wait returns at once.
const WRONG_MAX: u32 = 64;
/// The longest queue, in frames.
pub const QUEUE_LEN_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
