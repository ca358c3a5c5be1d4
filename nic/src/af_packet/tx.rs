//! Sending: what is left to be done to a frame is told to the kernel, or done here; then it goes into the
//! ring, or the queue for `sendmmsg`.

use std::io;
use std::num::{NonZeroU16, NonZeroUsize};

use crate::Counters;
use crate::config::SUPER_FRAME_LEN_MAX;
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind};
use crate::offload::layout::{IpVersion, Layout, Transport};
use crate::offload::segment::Segments;
use crate::offload::{VLAN_TAG_LEN, checksum, virtio};
use crate::sys::packet_socket::PacketSocket;

use super::abi::VNET_HDR_LEN;
use super::tx_ring::TxRing;
use super::tx_send::TxSend;

/// The sending half of one socket.
#[derive(Debug)]
pub(crate) struct Tx {
    queue: Queue,
    /// The kernel reads a virtio_net_hdr before each frame.
    vnet_hdr: bool,
    /// Bytes of the longest frame that the wire carries.
    frame_len_max: usize,
    /// Bytes of the longest frame that can be written, and is split later.
    super_frame_len_max: usize,
    /// A frame that is split here; reused.
    scratch: Vec<u8>,
    /// The pieces of it for which there was no room yet.
    rest: Option<Rest>,
}

/// What is left of a frame that is split here.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// Bytes of the frame in the scratch memory.
    len: usize,
    meta: FrameMeta,
    /// Pieces that were queued already.
    next: usize,
}

/// By which way entries go to the kernel.
#[derive(Debug)]
pub(crate) enum Queue {
    /// Not at all.
    None,
    Ring(TxRing),
    Send(TxSend),
}

/// What the sender of a frame leaves to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// By the rules that smoltcp was told: checksums of TCP are not filled in, and segments are of this size.
    Stack(Option<NonZeroU16>),
    /// As told.
    Told(FrameMeta),
}

impl Tx {
    pub(crate) fn new(queue: Queue, vnet_hdr: bool, frame_len_max: usize) -> Self {
        let entry_len_max = queue.entry_len_max();
        let super_frame_len_max = match &queue {
            Queue::None => 0,
            Queue::Ring(_) | Queue::Send(_) if vnet_hdr => {
                entry_len_max.saturating_sub(VNET_HDR_LEN).min(SUPER_FRAME_LEN_MAX)
            }
            // Split here; pieces for which there is no room yet wait in the scratch memory.
            Queue::Ring(_) | Queue::Send(_) => SUPER_FRAME_LEN_MAX,
        };
        Self { queue, vnet_hdr, frame_len_max, super_frame_len_max, scratch: Vec::new(), rest: None }
    }

    /// Bytes of the longest frame that is split later; `None` if that is no gain.
    pub(crate) fn gso_len_max(&self) -> Option<NonZeroUsize> {
        let len = self.super_frame_len_max;
        NonZeroUsize::new(len).filter(|_| len >= 2 * self.frame_len_max)
    }

    /// Whether a frame of any length up to the limits can be written now.
    pub(crate) fn has_room(&self) -> bool {
        let entry_len = if self.vnet_hdr {
            VNET_HDR_LEN + self.super_frame_len_max.max(self.frame_len_max)
        } else {
            // The wire carries a VLAN tag on top.
            self.frame_len_max + VLAN_TAG_LEN
        };
        self.rest.is_none() && self.queue.has_room(entry_len)
    }

    /// Frames that the kernel has not taken; what is left of one that is split here counts as one.
    pub(crate) fn queued(&self) -> usize {
        let queued = match &self.queue {
            Queue::None => 0,
            Queue::Ring(ring) => ring.queued(),
            Queue::Send(send) => send.queued(),
        };
        queued + usize::from(self.rest.is_some())
    }

    /// Lets `f` write a frame of `len` bytes, and queues it with what is left to be done.
    ///
    /// A frame that is too long, or for which there is no room, is written to memory of its own, counted,
    /// and goes nowhere: the caller checked [`has_room`](Self::has_room), and a stack that keeps the
    /// limits never asks for a longer one.
    pub(crate) fn write<R>(
        &mut self,
        counters: &mut Counters,
        len: usize,
        work: Work,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        if self.vnet_hdr {
            counters.tx_super_frames += u64::from(work.splits());
            let entry = |entry: &mut [u8]| {
                let (header, frame) = entry.split_at_mut(VNET_HDR_LEN);
                let result = f(frame);
                header.copy_from_slice(&work.tell(frame));
                result
            };
            return self.queue.write(counters, VNET_HDR_LEN + len, entry);
        }
        match work {
            Work::Told(meta) if meta.is_plain() => self.queue.write(counters, len, f),
            Work::Stack(None) => self.queue.write(counters, len, |frame| {
                let result = f(frame);
                if let Some(layout) = tcp(frame) {
                    checksum::fill(frame, &layout);
                }
                result
            }),
            Work::Stack(Some(_)) | Work::Told(_) => self.split(counters, len, work, f),
        }
    }

    /// Does here what `work` leaves to be done. The caller checked that nothing is left of an earlier frame;
    /// if something is, it is lost and counted.
    fn split<R>(
        &mut self,
        counters: &mut Counters,
        len: usize,
        work: Work,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        counters.tx_oversize += u64::from(self.rest.is_some());
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        let frame = self.scratch.get_mut(..len).unwrap_or_default();
        let result = f(frame);
        let meta = work.meta(frame);
        counters.tx_segmented += u64::from(Segments::new(frame, &meta).count() > 1);
        self.rest = Some(Rest { len, meta, next: 0 });
        self.queue_rest(counters);
        result
    }

    /// Queues the pieces that are left of a frame, as far as there is room. Says whether that was at least one.
    fn queue_rest(&mut self, counters: &mut Counters) -> bool {
        let Self { queue, scratch, rest, .. } = self;
        let Some(Rest { len: frame_len, meta, next: first }) = *rest else { return false };
        let segments = Segments::new(scratch.get(..frame_len).unwrap_or_default(), &meta);
        let mut next = first;
        while next < segments.count() {
            let len = segments.frame_len(next);
            // One that never finds room is counted as such, and not waited for.
            if len <= queue.entry_len_max() && !queue.has_room(len) {
                *rest = Some(Rest { len: frame_len, meta, next });
                return next > first;
            }
            queue.write(counters, len, |room| segments.write(next, room));
            next += 1;
        }
        *rest = None;
        true
    }

    /// Hands all queued frames over.
    ///
    /// # Errors
    /// What left frames queued: they are offered again by the next call.
    pub(crate) fn flush(&mut self, counters: &mut Counters, socket: &PacketSocket) -> io::Result<()> {
        let virtio_len = if self.vnet_hdr { VNET_HDR_LEN } else { 0 };
        // Each round queues at least one piece of one frame, or is the last.
        loop {
            match &mut self.queue {
                Queue::None => return Ok(()),
                Queue::Ring(ring) => ring.flush(counters, virtio_len, || socket.kick())?,
                Queue::Send(send) => {
                    send.flush(counters, virtio_len, |entries| socket.send_batch(entries))?;
                }
            }
            if !self.queue_rest(counters) {
                return Ok(());
            }
        }
    }

    /// Gives up on the frame that the kernel does not take.
    pub(crate) fn drop_oldest(&mut self, counters: &mut Counters) {
        match &mut self.queue {
            Queue::None => return,
            Queue::Ring(ring) => ring.drop_oldest(),
            Queue::Send(send) => send.drop_oldest(),
        }
        counters.tx_rejected += 1;
    }
}

impl Queue {
    fn has_room(&self, entry_len: usize) -> bool {
        match self {
            Self::None => false,
            Self::Ring(ring) => ring.has_room(),
            Self::Send(send) => send.has_room(entry_len),
        }
    }

    fn entry_len_max(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Ring(ring) => ring.entry_len_max(),
            Self::Send(send) => send.entry_len_max(),
        }
    }

    fn write<R>(&mut self, counters: &mut Counters, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let result = match self {
            Self::None => Err(f),
            Self::Ring(ring) => ring.write(len, f),
            Self::Send(send) => send.write(len, f),
        };
        result.unwrap_or_else(|f| {
            counters.tx_oversize += 1;
            f(&mut vec![0; len])
        })
    }
}

impl Work {
    /// Whether the frame is to be split.
    fn splits(&self) -> bool {
        match self {
            Self::Stack(size) => size.is_some(),
            Self::Told(meta) => meta.gso.is_some(),
        }
    }

    /// What is left to be done to a frame that was just written, as a virtio_net_hdr; writes the sum of the
    /// pseudo header where the checksum is left out.
    fn tell(self, frame: &mut [u8]) -> [u8; VNET_HDR_LEN] {
        match self {
            Self::Told(meta) if meta.gso.is_none() => virtio::encode(&meta, None),
            Self::Told(mut meta) => {
                let layout = Layout::of_frame(frame);
                // The kernel splits only what has no checksum yet.
                if let Some(layout) = &layout
                    && !matches!(meta.checksum, ChecksumState::Partial { .. })
                {
                    meta.checksum = checksum::leave_out(frame, layout).unwrap_or_default();
                }
                virtio::encode(&meta, layout.as_ref())
            }
            Self::Stack(size) => {
                let Some(layout) = tcp(frame) else { return [0; VNET_HDR_LEN] };
                let checksum = checksum::leave_out(frame, &layout).unwrap_or_default();
                let gso = size.map(|size| gso(size, &layout));
                virtio::encode(&FrameMeta { checksum, gso, ..FrameMeta::default() }, Some(&layout))
            }
        }
    }

    /// The same as metadata, for a frame that is split here.
    fn meta(self, frame: &mut [u8]) -> FrameMeta {
        match self {
            Self::Told(meta) => meta,
            Self::Stack(size) => {
                let Some(layout) = tcp(frame) else { return FrameMeta::default() };
                let gso = size.map(|size| gso(size, &layout));
                // It may fit into one piece, of which nothing but the checksum is filled in.
                let checksum = checksum::leave_out(frame, &layout).unwrap_or_default();
                FrameMeta { checksum, gso, ..FrameMeta::default() }
            }
        }
    }
}

fn tcp(frame: &[u8]) -> Option<Layout> {
    Layout::of_frame(frame).filter(|layout| layout.protocol == Transport::Tcp)
}

fn gso(size: NonZeroU16, layout: &Layout) -> Gso {
    let kind = match (layout.protocol, layout.version) {
        (Transport::Udp, _) => GsoKind::Udp,
        (Transport::Tcp, IpVersion::V4) => GsoKind::TcpV4,
        (Transport::Tcp, IpVersion::V6) => GsoKind::TcpV6,
    };
    Gso { kind, size, ecn: false }
}

#[cfg(test)]
mod tests;
