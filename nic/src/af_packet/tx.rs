//! Sending: what is left to be done to a frame is told to the kernel, or done here; then it goes into the
//! ring, or the queue for `sendmmsg`.

use std::io;
use std::num::{NonZeroU16, NonZeroUsize};

use crate::Counters;
use crate::config::SUPER_FRAME_LEN_MAX;
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind};
use crate::offload::layout::{IpVersion, Layout, Transport};
use crate::offload::segment::Segments;
use crate::offload::{checksum, virtio};
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
    /// A frame that is to be split here; reused.
    scratch: Vec<u8>,
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
        let entry_len_max = match &queue {
            Queue::None => 0,
            Queue::Ring(ring) => ring.entry_len_max(),
            Queue::Send(send) => send.entry_len_max(),
        };
        let super_frame_len_max = if vnet_hdr {
            entry_len_max.saturating_sub(VNET_HDR_LEN).min(SUPER_FRAME_LEN_MAX)
        } else {
            // Split here: the pieces of one super-frame must find room at once, several times over.
            let slots = match &queue {
                Queue::None => 0,
                Queue::Ring(ring) => ring.slots(),
                Queue::Send(send) => send.entry_len_max() / frame_len_max.max(1),
            };
            (slots / 4 * frame_len_max.saturating_sub(HEADERS_LEN_MAX)).min(SUPER_FRAME_LEN_MAX)
        };
        Self { queue, vnet_hdr, frame_len_max, super_frame_len_max, scratch: Vec::new() }
    }

    /// Bytes of the longest frame that is split later; `None` if that is no gain.
    pub(crate) fn gso_len_max(&self) -> Option<NonZeroUsize> {
        let len = self.super_frame_len_max;
        NonZeroUsize::new(len).filter(|_| len >= 2 * self.frame_len_max)
    }

    /// Whether a frame of any length up to the limits can be written now.
    pub(crate) fn has_room(&self) -> bool {
        let (entry_len, count) = if self.vnet_hdr {
            (VNET_HDR_LEN + self.super_frame_len_max.max(self.frame_len_max), 1)
        } else {
            let payload_len = self.frame_len_max.saturating_sub(HEADERS_LEN_MAX).max(1);
            (self.frame_len_max, self.super_frame_len_max.div_ceil(payload_len).max(1))
        };
        match &self.queue {
            Queue::None => false,
            Queue::Ring(ring) => ring.has_room(count),
            Queue::Send(send) => send.has_room(count, entry_len),
        }
    }

    /// Frames that the kernel has not taken.
    pub(crate) fn queued(&self) -> usize {
        match &self.queue {
            Queue::None => 0,
            Queue::Ring(ring) => ring.queued(),
            Queue::Send(send) => send.queued(),
        }
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

    /// Does here what `work` leaves to be done.
    fn split<R>(
        &mut self,
        counters: &mut Counters,
        len: usize,
        work: Work,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let Self { queue, scratch, .. } = self;
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let frame = scratch.get_mut(..len).unwrap_or_default();
        let result = f(frame);
        let meta = work.meta(frame);
        let segments = Segments::new(frame, &meta);
        counters.tx_segmented += u64::from(segments.count() > 1);
        for index in 0..segments.count() {
            let len = segments.frame_len(index);
            queue.write(counters, len, |room| segments.write(index, room));
        }
        result
    }

    /// Hands all queued frames over.
    ///
    /// # Errors
    /// What left frames queued: they are offered again by the next call.
    pub(crate) fn flush(&mut self, counters: &mut Counters, socket: &PacketSocket) -> io::Result<()> {
        let virtio_len = if self.vnet_hdr { VNET_HDR_LEN } else { 0 };
        match &mut self.queue {
            Queue::None => Ok(()),
            Queue::Ring(ring) => ring.flush(counters, virtio_len, || socket.kick()),
            Queue::Send(send) => send.flush(counters, virtio_len, |entries| socket.send_batch(entries)),
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
    /// What is left to be done to a frame that was just written, as a virtio_net_hdr; writes the sum of the
    /// pseudo header where the checksum is left out.
    fn tell(self, frame: &mut [u8]) -> [u8; VNET_HDR_LEN] {
        match self {
            Self::Told(meta) if meta.gso.is_none() => virtio::encode(&meta, None),
            Self::Told(mut meta) => {
                let layout = Layout::of_frame(frame);
                // The kernel splits only what has no checksum yet.
                if let Some(layout) = &layout
                    && meta.checksum == ChecksumState::Complete
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
    fn meta(self, frame: &[u8]) -> FrameMeta {
        match self {
            Self::Told(meta) => meta,
            Self::Stack(size) => {
                let layout = Layout::of_frame(frame);
                let gso = size.zip(layout).map(|(size, layout)| gso(size, &layout));
                FrameMeta { gso, ..FrameMeta::default() }
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

/// Bytes of all headers of a segment, at most: Ethernet with two tags, IPv6, TCP with all its options.
const HEADERS_LEN_MAX: usize = 22 + 40 + 60;
