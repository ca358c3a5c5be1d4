//! A ring of equal slots, each handed to and fro between the kernel and us by its status word.
//!
//! | word | written by | we | pairs with |
//! |---|---|---|---|
//! | `tp_status`, RX | both, in turn | load Acquire, store Release | `__packet_set_status` (store, smp_wmb, flush) and `__packet_get_status` (smp_rmb, load) in net/packet/af_packet.c |
//! | `tp_status`, TX | both, in turn | load Acquire, store Release | the same |
//! | the rest of a slot | whoever the status names | only between the two | — |
//!
//! The contract on which the unsafe code here stands, upheld by the kernel for a packet socket:
//! 1. it writes to a slot only while the status word says that the slot is the kernel's
//!    ([`Side`] says which values do);
//! 2. on TX it takes a slot (SEND_REQUEST to SENDING) only within `send` on that socket, and `TxRing`
//!    calls that with the ring borrowed exclusively and no [`Slot`] alive.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::af_packet::abi::{self, HeaderLayout};
use crate::config::TpacketVersion;
use crate::geometry::RingGeometry;

use super::{HAND_OVER, LOOK, Region};

/// Which direction a ring has, and with it which values of the status word make a slot ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Ours while TP_STATUS_USER is set.
    Rx,
    /// Ours unless TP_STATUS_SENDING is set: empty, refused, or not yet handed over by `send`.
    Tx,
}

impl Side {
    fn is_ours(self, status: u32) -> bool {
        match self {
            Self::Rx => status & libc::TP_STATUS_USER != 0,
            Self::Tx => status & libc::TP_STATUS_SENDING == 0,
        }
    }
}

/// One ring: an area of a [`Region`] cut into slots.
#[derive(Debug)]
pub(crate) struct SlotRing {
    region: Arc<Region>,
    /// Bytes from the start of the region to the ring.
    start: usize,
    geometry: RingGeometry,
    side: Side,
    layout: &'static HeaderLayout,
}

impl SlotRing {
    /// The ring of this geometry that begins `start` bytes into the region.
    ///
    /// # Panics
    /// If the ring does not lie within the region or is not aligned: a mistake of this crate, since
    /// the geometry was checked before the kernel made the rings.
    pub(crate) fn new(
        region: Arc<Region>,
        start: usize,
        geometry: RingGeometry,
        side: Side,
        version: TpacketVersion,
    ) -> Self {
        let layout = version.layout();
        assert!(start + geometry.memory() <= region.len(), "the ring lies within the region");
        assert!(start.is_multiple_of(4096) && geometry.slot_size.is_multiple_of(abi::ALIGNMENT));
        assert!(geometry.slot_count > 0 && geometry.slot_size > layout.len);
        let last = geometry.slot_offset(geometry.slot_count - 1);
        assert!(last + geometry.slot_size <= geometry.memory(), "the last slot lies within the ring");
        Self { region, start, geometry, side, layout }
    }

    /// Number of slots; at least 1.
    pub(crate) fn len(&self) -> usize {
        self.geometry.slot_count
    }

    /// Bytes of a slot, header included.
    pub(crate) fn slot_size(&self) -> usize {
        self.geometry.slot_size
    }

    /// The status word of a slot as it is now. What the kernel wrote before it set this value is
    /// visible afterwards.
    pub(crate) fn status(&self, index: usize) -> u32 {
        // Pairs with the store of the kernel's `__packet_set_status`.
        self.status_word(index).load(LOOK)
    }

    /// The slot, if it is ours now.
    pub(crate) fn claim(&mut self, index: usize) -> Option<Slot<'_>> {
        let status = self.status(index);
        self.side.is_ours(status).then_some(Slot { ring: self, index, status })
    }

    /// The slot, if it is the kernel's on an RX ring: for kernels that are a test or a fuzzer. This is the
    /// other half of contract 1, on plain memory.
    pub(crate) fn claim_as_kernel(&mut self, index: usize) -> Option<Slot<'_>> {
        let status = self.status(index);
        (status & libc::TP_STATUS_USER == 0).then_some(Slot { ring: self, index, status })
    }

    /// Sets a status word as the kernel does at any time: for the kernels of tests.
    #[cfg(test)]
    pub(crate) fn force_status(&self, index: usize, status: u32) {
        self.status_word(index).store(status, HAND_OVER);
    }

    fn slot_start(&self, index: usize) -> usize {
        assert!(index < self.geometry.slot_count, "a slot's index comes from this crate");
        self.start + self.geometry.slot_offset(index)
    }

    fn status_word(&self, index: usize) -> &AtomicU32 {
        let offset = self.slot_start(index) + self.layout.status;
        // SAFETY: in bounds: `new` checked that the last slot lies within the region and is longer than its
        // header, `slot_start` that there is a slot of this index.
        let word = unsafe { self.region.start().add(offset) };
        // SAFETY: aligned: regions are page-aligned, blocks and slots multiples of 16, and the word lies at a
        // multiple of 4 in the header (`abi`). Alive: the
        // region is, as long as `self` holds its Arc. Never accessed but atomically: a Slot's slices
        // do not touch this word.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }
}

/// A slot that is ours. Dropped without [`release`](Slot::release), it stays ours.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    ring: &'a mut SlotRing,
    index: usize,
    status: u32,
}

impl Slot<'_> {
    /// The status with which it became ours.
    pub(crate) fn status(&self) -> u32 {
        self.status
    }

    /// Bytes of the slot, counted from its start; `None` if the range touches the status word or
    /// leaves the slot. The range may come from the kernel.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let len = self.checked_len(&range)?;
        let offset = self.ring.slot_start(self.index) + range.start;
        // SAFETY: in bounds: `checked_len` checked the range against the slot, `slot_start` the slot
        // against the region.
        let start = unsafe { self.ring.region.start().add(offset) };
        // SAFETY: `len` initialised bytes (mapped pages, or zeroed memory) in bounds as above; alive
        // and not written: the slot is ours by contract 1 while this Slot borrows the ring, and the
        // slice borrows the Slot.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// As [`get`](Slot::get), to write.
    pub(crate) fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        let len = self.checked_len(&range)?;
        let offset = self.ring.slot_start(self.index) + range.start;
        // SAFETY: in bounds, as in `get`.
        let start = unsafe { self.ring.region.start().add(offset) };
        // SAFETY: as in `get`; exclusive: the slice borrows the Slot mutably, the Slot borrows the
        // ring mutably, and no other ring has this area of the region.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    /// Ends our ownership: what was written is visible to the kernel before it sees `status`.
    pub(crate) fn release(self, status: u32) {
        // Pairs with the load of the kernel's `__packet_get_status`.
        self.ring.status_word(self.index).store(status, HAND_OVER);
    }

    fn checked_len(&self, range: &Range<usize>) -> Option<usize> {
        let status = self.ring.layout.status_bytes();
        let beside_status = range.start >= status.end || range.end <= status.start;
        let within = beside_status && range.end <= self.ring.geometry.slot_size;
        range.end.checked_sub(range.start).filter(|_| within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: RingGeometry =
        RingGeometry { block_size: 4096, block_count: 2, slot_size: 1008, slot_count: 8 };

    fn ring(side: Side) -> SlotRing {
        ring_of(side, TpacketVersion::V2)
    }

    fn ring_of(side: Side, version: TpacketVersion) -> SlotRing {
        SlotRing::new(Arc::new(Region::heap(GEOMETRY.memory())), 0, GEOMETRY, side, version)
    }

    #[test]
    fn rx_slots_are_the_kernels_until_it_says_user() {
        let mut ring = ring(Side::Rx);
        assert!(ring.claim(0).is_none());
        ring.force_status(0, libc::TP_STATUS_USER | libc::TP_STATUS_COPY);
        assert_eq!(ring.claim(0).expect("ours").status(), libc::TP_STATUS_USER | libc::TP_STATUS_COPY);
        ring.claim(0).expect("still ours").release(libc::TP_STATUS_KERNEL);
        assert!(ring.claim(0).is_none());
    }

    #[test]
    fn tx_slots_are_ours_until_the_kernel_sends() {
        let mut ring = ring(Side::Tx);
        ring.claim(7).expect("ours").release(libc::TP_STATUS_SEND_REQUEST);
        assert!(ring.claim(7).is_some());
        ring.force_status(7, libc::TP_STATUS_SENDING);
        assert!(ring.claim(7).is_none());
    }

    #[test]
    fn ranges_outside_the_slot_or_on_the_status_word_give_nothing() {
        let mut ring = ring(Side::Tx);
        let mut slot = ring.claim(3).expect("ours");
        assert_eq!(slot.get(4..1008).map(<[u8]>::len), Some(1004));
        assert!(slot.get(0..8).is_none());
        assert!(slot.get(3..8).is_none());
        assert!(slot.get(4..1009).is_none());
        let (start, end) = (40, 20);
        assert!(slot.get_mut(start..end).is_none());
    }

    #[test]
    fn the_status_word_is_out_of_reach_in_every_version() {
        for (version, inside, beside) in [
            (TpacketVersion::V1, [0..4, 4..8, 7..9], [8..12, 8..1008]),
            (TpacketVersion::V2, [0..4, 0..8, 3..5], [4..8, 4..1008]),
            (TpacketVersion::V3, [20..24, 0..48, 23..30], [0..20, 24..1008]),
        ] {
            let mut ring = ring_of(Side::Tx, version);
            let slot = ring.claim(3).expect("ours");
            assert!(inside.into_iter().all(|range| slot.get(range).is_none()), "{version}");
            assert!(beside.into_iter().all(|range| slot.get(range).is_some()), "{version}");
            slot.release(libc::TP_STATUS_SENDING);
            assert!(ring.claim(3).is_none() && ring.claim(2).is_some());
        }
    }

    #[test]
    fn slots_do_not_overlap() {
        let mut ring = ring(Side::Tx);
        for index in 0..ring.len() {
            let mut slot = ring.claim(index).expect("ours");
            slot.get_mut(4..1008).expect("in bounds").fill(index as u8 + 1);
        }
        for index in 0..ring.len() {
            let slot = ring.claim(index).expect("ours");
            assert!(slot.get(4..1008).expect("in bounds").iter().all(|&byte| byte == index as u8 + 1));
            assert_eq!(slot.status(), 0, "no slot wrote into the next one's status");
        }
    }
}
