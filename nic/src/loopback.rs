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
//! **Wake-ups.** Frames can be received as soon as they were sent. An end that sleeps is woken when the
//! other one flushes or waits, once for all that happened. Before it sleeps, an end says so under the
//! lock under which it finds nothing to do, so whatever happens later wakes it.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use managed::ManagedSlice;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::storage::RingBuffer;
use smoltcp::time::Instant;

use crate::slot::{FRAME_LEN_MAX, Slot, owned_slots};
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker, wait};

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
    /// segmentation offload: super-frames arrive whole, with their metadata, as from a card that merges.
    pub frame_len_max: usize,
    /// Frames queued in each direction, from 1 to [`QUEUE_LEN_MAX`]. Slots that were given by the user
    /// count instead, if there are any.
    pub queue_len: usize,
    /// Which checksums the stack makes and verifies. Memory does not flip bits, so a benchmark may want
    /// [`ChecksumCapabilities::ignored`].
    pub checksum: ChecksumCapabilities,
}

/// Ethernet with an IP MTU of 1500 bytes, 256 frames, checksums as on a real wire.
impl Default for LoopbackConfig {
    fn default() -> Self {
        Self {
            medium: Medium::Ethernet,
            mtu: 1514,
            frame_len_max: 1514,
            queue_len: 256,
            checksum: ChecksumCapabilities::default(),
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
                counters: Counters::default(),
            },
            tx: TxEnd {
                pipe: tx.clone(),
                peer_bell: peer_bell.clone(),
                filling: Slot::default(),
                frame_len_max: config.frame_len_max,
                refused: false,
                counters: Counters::default(),
            },
            waker: Waker::new()?,
            medium: config.medium,
            mtu: config.mtu,
            checksum: config.checksum.clone(),
        })
    }

    /// Whether `receive` would lend a frame: there is one, and room for an answer or no hope for any.
    /// If not, the other end rings when it has made room; `asleep` asks it to ring for frames as well.
    fn readiness(&mut self, asleep: bool) -> Readiness {
        let has_room = self.tx.has_room();
        let mut queue = self.rx.pipe.lock();
        let is_full = queue.frames.is_full();
        match queue.first().map(|slot| slot.meta) {
            Some(meta) if has_room || is_full => Readiness::Frame(meta),
            None if queue.sender_gone => Readiness::Gone,
            _ => {
                queue.receiver_asleep = asleep;
                if has_room && self.tx.refused { Readiness::Room } else { Readiness::Nothing }
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
        let Readiness::Frame(meta) = self.readiness(false) else { return None };
        Some((
            RxToken { end: &mut self.rx, meta },
            TxToken { end: &mut self.tx, meta: PacketMeta::default() },
        ))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Self::TxToken<'_>> {
        if self.tx.pipe.lock().receiver_gone {
            return None;
        }
        self.tx.refused = !self.tx.has_room();
        if self.tx.refused {
            self.tx.counters.tx_ring_full += 1;
            return None;
        }
        Some(TxToken { end: &mut self.tx, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = self.checksum.clone();
        if self.tx.frame_len_max > self.mtu {
            let frame_len_max = std::num::NonZeroUsize::new(self.tx.frame_len_max);
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
            self.tx.refused = false;
        }
        match (wake, readiness) {
            (Wake::Deadline, Readiness::Frame(_) | Readiness::Room) => Ok(Wake::Ready),
            (wake, _) => Ok(wake),
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.ring_peer();
        let queue = self.rx.pipe.lock();
        if queue.sender_gone && queue.frames.is_empty() { Err(LinkError::Gone) } else { Ok(()) }
    }

    fn link_state(&mut self) -> LinkState {
        if self.tx.pipe.lock().receiver_gone { LinkState::Gone } else { LinkState::Up }
    }

    fn counters(&mut self) -> Counters {
        let Counters { rx_frames, rx_bytes, .. } = self.rx.counters;
        Counters { rx_frames, rx_bytes, ..self.tx.counters }
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
            let ring = queue.sender_lacks_room && !queue.frames.is_full();
            queue.sender_lacks_room &= !ring;
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
        let RxEnd { pipe, lent, counters, .. } = self.end;
        // `receive` has seen the frame, and only this end takes frames away.
        if let Ok(slot) = pipe.lock().frames.dequeue_one() {
            slot.swap_frame(lent);
        }
        counters.rx_frames += 1;
        counters.rx_bytes += lent.frame().len() as u64;
        f(lent.frame())
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
        let TxEnd { pipe, filling, frame_len_max, counters, .. } = self.end;
        let room = if len <= *frame_len_max { filling.fill(len) } else { None };
        let Some(room) = room else {
            counters.tx_oversize += 1;
            return f(&mut vec![0; len]);
        };
        let result = f(room);
        filling.meta = self.meta;
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
    counters: Counters,
}

/// What an end needs to send.
#[derive(Debug)]
struct TxEnd<'a> {
    pipe: Arc<Pipe<'a>>,
    peer_bell: Bell,
    /// The frame that is being written.
    filling: Slot<'a>,
    frame_len_max: usize,
    /// `transmit` gave no token the last time, and nobody was told of room since.
    refused: bool,
    counters: Counters,
}

impl TxEnd<'_> {
    /// Whether a frame can be sent, or need not be since nobody receives it. If not, the other end rings
    /// when it can. Only this end fills the pipe, so room that was seen stays.
    fn has_room(&self) -> bool {
        let mut queue = self.pipe.lock();
        let has_room = queue.receiver_gone || !queue.frames.is_full();
        queue.sender_lacks_room = !has_room;
        has_room
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
    /// The sender was refused, and wants to know of room.
    sender_lacks_room: bool,
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
            sender_lacks_room: false,
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

fn check_queue_len(queue_len: usize) -> Result<(), LoopbackError> {
    if (1..=QUEUE_LEN_MAX).contains(&queue_len) { Ok(()) } else { Err(LoopbackError::QueueLen { queue_len }) }
}

/// The smallest MTU: the least that IPv4 asks of a link (RFC 791), and an Ethernet header.
pub const MTU_MIN: usize = 68 + 14;
/// The longest queue, in frames.
pub const QUEUE_LEN_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
