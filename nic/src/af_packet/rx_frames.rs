//! The RX ring, TPACKET_V2: one frame a slot, lent to a closure while the slot is ours.
//!
//! The kernel fills slots in order and sets TP_STATUS_USER; we look at the slot at `next`, lend its
//! frame, and give the slot back. A frame that does not fit into a slot is in the socket's queue as
//! well (PACKET_COPY_THRESH, status TP_STATUS_COPY): the kernel puts it there in the order of the
//! slots, so each such slot is answered by exactly one `recv`.

use std::io;
use std::ops::Range;

use managed::ManagedSlice;

use crate::Counters;
use crate::offload;
use crate::offload::layout::{Layout, Transport};
use crate::shm::{Slot, SlotRing};

use super::abi;

/// The RX ring of one socket.
#[derive(Debug)]
pub(crate) struct RxFrames<'a> {
    ring: SlotRing,
    /// The slot that the kernel fills next, or has filled.
    next: usize,
    /// What the slot at `next` holds, once it was looked at.
    current: Option<Frame>,
    /// Room for one frame that is larger than a slot.
    oversize: ManagedSlice<'a, u8>,
    /// Bytes of the longest frame that the wire carries: the MTU and the Ethernet header.
    frame_len_max: usize,
}

/// Where a frame that can be lent is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    place: Place,
    /// Whether the kernel left its TCP or UDP checksum to a device (TP_STATUS_CSUMNOTREADY).
    checksum_absent: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In the slot.
    Slot(Range<usize>),
    /// In `oversize`, from its start, this many bytes.
    Oversize(usize),
}

/// What the kernel says of a slot that it filled. The numbers may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// The whole frame is in the slot.
    Whole(Range<usize>),
    /// The frame is longer than the slot; so many bytes.
    Cut(usize),
    /// A frame that we sent ourselves, from a kernel without PACKET_IGNORE_OUTGOING.
    Outgoing,
    /// A frame of a VLAN. The kernel took the tag out; delivered as it is, it would look untagged.
    Tagged,
    /// Offsets or lengths that leave the slot.
    Malformed,
}

impl<'a> RxFrames<'a> {
    pub(crate) fn new(ring: SlotRing, oversize: ManagedSlice<'a, u8>, frame_len_max: usize) -> Self {
        Self { ring, next: 0, current: None, oversize, frame_len_max }
    }

    /// Whether the kernel has filled a slot that was not looked at yet.
    pub(crate) fn has_filled_slot(&self) -> bool {
        self.current.is_some() || self.ring.status(self.next) & libc::TP_STATUS_USER != 0
    }

    /// Goes on to a frame that can be lent, past those that cannot, which it counts: one round through
    /// the ring at most. Says whether there is one. `recv` takes one frame from the socket's queue and
    /// returns its whole length.
    pub(crate) fn find(
        &mut self,
        counters: &mut Counters,
        mut recv: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> bool {
        for _ in 0..self.ring.len() {
            if self.current.is_some() {
                return true;
            }
            let Some(slot) = self.ring.claim(self.next) else { return false };
            let status = slot.status();
            // Whatever the slot says, its copy leaves the queue now, or the next slot would get it.
            let is_copied =
                status & libc::TP_STATUS_COPY != 0 && fetch(&mut self.oversize, frame_len(&slot), &mut recv);
            let checksum_absent = status & libc::TP_STATUS_CSUMNOTREADY != 0;
            let (place, reason) = match inspect(&slot) {
                Found::Whole(range) => (Some(Place::Slot(range)), None),
                Found::Cut(len) if is_copied => (Some(Place::Oversize(len)), None),
                Found::Cut(_) => (None, Some(&mut counters.rx_truncated)),
                Found::Tagged => (None, Some(&mut counters.rx_tagged)),
                Found::Malformed => (None, Some(&mut counters.rx_malformed)),
                Found::Outgoing => (None, None),
            };
            let bytes = match &place {
                Some(Place::Slot(range)) => slot.get(range.clone()),
                Some(Place::Oversize(len)) => self.oversize.get(..*len),
                None => None,
            };
            let is_merged = checksum_absent
                && bytes.is_some_and(|bytes| {
                    bytes.len() > self.frame_len_max
                        && Layout::of_frame(bytes).is_some_and(|layout| layout.protocol == Transport::Udp)
                });
            if is_merged {
                counters.rx_unsegmented += 1;
            } else if let Some(place) = place {
                counters.rx_oversize += u64::from(matches!(place, Place::Oversize(_)));
                self.current = Some(Frame { place, checksum_absent });
                return true;
            } else if let Some(reason) = reason {
                *reason += 1;
            }
            slot.release(libc::TP_STATUS_KERNEL);
            self.step();
        }
        self.current.is_some()
    }

    /// Lends the frame that [`find`](Self::find) found, then gives its slot back to the kernel.
    ///
    /// Without such a frame it lends an empty one; a token exists only when there is one.
    pub(crate) fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8]) -> R) -> R {
        let (Some(mut slot), Some(frame)) = (self.ring.claim(self.next), self.current.take()) else {
            return f(&[]);
        };
        let bytes = match frame.place {
            Place::Slot(range) => slot.get_mut(range),
            Place::Oversize(len) => self.oversize.get_mut(..len),
        };
        let bytes = bytes.unwrap_or_default();
        counters.rx_frames += 1;
        counters.rx_bytes += bytes.len() as u64;
        if frame.checksum_absent && offload::fill_checksum(bytes) {
            counters.rx_checksum_filled += 1;
        }
        let result = f(bytes);
        slot.release(libc::TP_STATUS_KERNEL);
        self.step();
        result
    }

    fn step(&mut self) {
        self.next = (self.next + 1) % self.ring.len();
    }
}

/// Takes the copy of a frame of this length out of the socket's queue. False: there is none, or no room
/// for it.
///
/// An error that waits on the socket (the interface went down) is told instead of a frame once, and
/// leaves the frame where it is. Frames of another length belong to slots that are gone: they are thrown
/// away until the queue and the ring go together again.
fn fetch(room: &mut [u8], frame_len: usize, recv: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> bool {
    for _ in 0..STRAY_COPIES_MAX {
        match recv(room) {
            Ok(len) if len == frame_len => return len <= room.len(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => {}
        }
    }
    false
}

/// `tp_len` of a filled slot: bytes of the whole frame. It may be anything.
fn frame_len(slot: &Slot<'_>) -> usize {
    let field = slot.get(abi::LEN..abi::LEN + 4).unwrap_or_default();
    field.try_into().map_or(0, u32::from_ne_bytes) as usize
}

/// Bound of the search for a copy: more than a queue of 16 MB holds of large frames.
const STRAY_COPIES_MAX: usize = 4096;

/// Reads the header of a filled slot. Total: nothing that the kernel can have written makes it panic
/// or gives a range outside the slot.
fn inspect(slot: &Slot<'_>) -> Found {
    let header = |offset, len| slot.get(offset..offset + len).unwrap_or_default();
    let word = |offset| header(offset, 4).try_into().map_or(0, u32::from_ne_bytes) as usize;
    let half = |offset| header(offset, 2).try_into().map_or(0, u16::from_ne_bytes);

    if header(abi::PACKET_TYPE, 1) == [libc::PACKET_OUTGOING] {
        return Found::Outgoing;
    }
    // VLAN 0 is a priority without a VLAN (IEEE 802.1Q, 9.6): such a frame is untagged to us.
    let vlan = half(abi::VLAN_TCI) & 0x0fff;
    if slot.status() & libc::TP_STATUS_VLAN_VALID != 0 && vlan != 0 {
        return Found::Tagged;
    }
    let (len, snaplen, mac) = (frame_len(slot), word(abi::SNAPLEN), usize::from(half(abi::MAC)));
    let range = mac..mac + snaplen;
    let header_end = abi::HEADER_LEN + size_of::<libc::sockaddr_ll>();
    if mac < header_end || snaplen > len || slot.get(range.clone()).is_none() {
        return Found::Malformed;
    }
    if snaplen < len { Found::Cut(len) } else { Found::Whole(range) }
}

#[cfg(test)]
mod tests;
