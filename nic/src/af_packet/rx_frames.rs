//! The RX ring of TPACKET_V1 and V2: one frame a slot, lent to a closure while the slot is ours.
//!
//! The kernel fills slots in order and sets TP_STATUS_USER; we look at the slot at `next`, lend its
//! frame, and give the slot back. A frame that does not fit into a slot is in the socket's queue as
//! well (PACKET_COPY_THRESH, status TP_STATUS_COPY): the kernel puts it there in the order of the
//! slots, so each such slot is answered by exactly one `recv`.

use std::io;
use std::ops::Range;

use managed::ManagedSlice;

use crate::Counters;
use crate::config::TpacketVersion;
use crate::meta::FrameMeta;
use crate::shm::{Slot, SlotRing};

use super::abi;
use super::rx_frame::{Header, RxOptions};

/// The RX ring of one socket.
#[derive(Debug)]
pub(crate) struct RxFrames<'a> {
    ring: SlotRing,
    version: TpacketVersion,
    options: RxOptions,
    /// The slot that the kernel fills next, or has filled.
    next: usize,
    /// What the slot at `next` holds, once it was looked at.
    current: Option<Frame>,
    /// Room for one frame that is larger than a slot, and for its virtio_net_hdr and VLAN tag before it.
    oversize: ManagedSlice<'a, u8>,
    /// The kernel said that it drops frames, since this was asked for last.
    losing: bool,
}

/// A frame that can be lent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    place: Place,
    meta: FrameMeta,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Slot(Range<usize>),
    Oversize(Range<usize>),
}

impl<'a> RxFrames<'a> {
    pub(crate) fn new(
        ring: SlotRing,
        version: TpacketVersion,
        options: RxOptions,
        oversize: ManagedSlice<'a, u8>,
    ) -> Self {
        Self { ring, version, options, next: 0, current: None, oversize, losing: false }
    }

    /// Whether the kernel has filled a slot that was not looked at yet.
    pub(crate) fn has_frame(&self) -> bool {
        self.current.is_some() || self.ring.status(self.next) & libc::TP_STATUS_USER != 0
    }

    /// Whether the kernel dropped frames since the last call (TP_STATUS_LOSING).
    pub(crate) fn take_losing(&mut self) -> bool {
        std::mem::take(&mut self.losing)
    }

    /// Goes on to a frame that can be lent, past those that cannot, which it counts: one round through
    /// the ring at most. Says whether there is one. `recv` takes one frame from the socket's queue, with
    /// its virtio_net_hdr if there is one, and returns the whole length of both.
    pub(crate) fn find(
        &mut self,
        counters: &mut Counters,
        mut recv: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> bool {
        for _ in 0..self.ring.len() {
            if self.current.is_some() {
                return true;
            }
            let slot_size = self.ring.slot_size();
            let Some(mut slot) = self.ring.claim(self.next) else { return false };
            let header = read_header(&slot, self.version);
            self.losing |= header.status & libc::TP_STATUS_LOSING != 0;
            // Whatever the slot says, its copy leaves the queue now, or the next slot would get it.
            let is_copied = header.status & libc::TP_STATUS_COPY != 0
                && fetch(&mut self.oversize, &self.options, header.len, &mut recv);
            let layout = self.version.layout();
            if !header.is_within(layout, self.options.vnet_hdr, slot_size) {
                counters.rx_malformed += 1;
            } else if !self.options.wants(&header) {
                // Not counted: it is our own.
            } else if header.snaplen < header.len {
                let end = oversize_start(&self.options) + header.len;
                match self.oversize.get_mut(..end).filter(|_| is_copied) {
                    Some(area) => {
                        let start = oversize_start(&self.options);
                        let ready = self.options.prepare(counters, &header, area, start);
                        self.current =
                            ready.map(|(start, meta)| Frame { place: Place::Oversize(start..end), meta });
                        counters.rx_oversize += u64::from(self.current.is_some());
                    }
                    None => counters.rx_truncated += 1,
                }
            } else {
                // What lies before the frame was read already, and makes room for a tag.
                let first = layout.len;
                let end = header.mac + header.snaplen;
                let area = slot.get_mut(first..end).unwrap_or_default();
                let ready = self.options.prepare(counters, &header, area, header.mac - first);
                self.current =
                    ready.map(|(start, meta)| Frame { place: Place::Slot(first + start..end), meta });
            }
            if self.current.is_some() {
                return true;
            }
            slot.release(libc::TP_STATUS_KERNEL);
            self.step();
        }
        self.current.is_some()
    }

    /// What is known of the frame that [`find`](Self::find) found.
    pub(crate) fn meta(&self) -> Option<&FrameMeta> {
        self.current.as_ref().map(|frame| &frame.meta)
    }

    /// Lends the frame that [`find`](Self::find) found, then gives its slot back to the kernel.
    ///
    /// Without such a frame it lends an empty one; a token exists only when there is one.
    pub(crate) fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> R {
        let (Some(slot), Some(frame)) = (self.ring.claim(self.next), self.current.take()) else {
            return f(&[], &FrameMeta::default());
        };
        let bytes = match frame.place {
            Place::Slot(range) => slot.get(range),
            Place::Oversize(range) => self.oversize.get(range),
        };
        let bytes = bytes.unwrap_or_default();
        counters.rx_frames += 1;
        counters.rx_bytes += bytes.len() as u64;
        let result = f(bytes, &frame.meta);
        slot.release(libc::TP_STATUS_KERNEL);
        self.step();
        result
    }

    fn step(&mut self) {
        self.next += 1;
        if self.next == self.ring.len() {
            self.next = 0;
        }
    }
}

fn read_header(slot: &Slot<'_>, version: TpacketVersion) -> Header {
    let layout = version.layout();
    let skipped = layout.status_bytes().end;
    let bytes = slot.get(skipped..layout.len + abi::ADDRESS_LEN).unwrap_or_default();
    Header::read(layout, slot.status(), bytes, skipped)
}

/// Where a frame begins in the buffer for frames larger than a slot: there is room for a tag before it.
fn oversize_start(options: &RxOptions) -> usize {
    if options.vnet_hdr { abi::VNET_HDR_LEN } else { crate::offload::VLAN_TAG_LEN }
}

/// Takes the copy of a frame of this length out of the socket's queue. False: there is none, or no room
/// for it.
///
/// An error that waits on the socket (the interface went down) is told instead of a frame once, and
/// leaves the frame where it is. Frames of another length belong to slots that are gone: they are thrown
/// away until the queue and the ring go together again.
fn fetch(
    room: &mut [u8],
    options: &RxOptions,
    frame_len: usize,
    recv: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> bool {
    let (skipped, virtio_len) =
        if options.vnet_hdr { (0, abi::VNET_HDR_LEN) } else { (oversize_start(options), 0) };
    // Without room the copy leaves the queue all the same: while it is there, the socket is readable.
    let room = room.get_mut(skipped..).unwrap_or_default();
    for _ in 0..STRAY_COPIES_MAX {
        match recv(room) {
            Ok(len) if len == frame_len + virtio_len => return len <= room.len(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => {}
        }
    }
    false
}

/// Bound of the search for a copy: more than a queue of 16 MB holds of large frames.
const STRAY_COPIES_MAX: usize = 4096;

#[cfg(test)]
mod tests;
