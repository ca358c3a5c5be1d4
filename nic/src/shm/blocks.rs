//! An RX ring of TPACKET_V3: blocks, each handed to and fro between the kernel and us by its status word.
//!
//! | word | written by | we | pairs with |
//! |---|---|---|---|
//! | `block_status` | both, in turn | load Acquire, store Release | `prb_flush_block`/`prb_close_block` (smp_wmb, store) and `prb_curr_blk_in_use` (smp_rmb, load) in net/packet/af_packet.c |
//! | the rest of a block | whoever the status names | only between the two | — |
//!
//! The contract on which the unsafe code here stands, upheld by the kernel for a packet socket: it writes
//! to a block only while TP_STATUS_USER is not set in its status word.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::af_packet::abi;
use crate::geometry::RingGeometry;

use super::{HAND_OVER, LOOK, Region};

/// One ring: an area of a [`Region`] cut into blocks.
#[derive(Debug)]
pub(crate) struct BlockRing {
    region: Arc<Region>,
    /// Bytes from the start of the region to the ring.
    start: usize,
    block_size: usize,
    block_count: usize,
}

impl BlockRing {
    /// The ring of this geometry that begins `start` bytes into the region.
    ///
    /// # Panics
    /// If the ring does not lie within the region or is not aligned: a mistake of this crate, since
    /// the geometry was checked before the kernel made the rings.
    pub(crate) fn new(region: Arc<Region>, start: usize, geometry: RingGeometry) -> Self {
        let RingGeometry { block_size, block_count, .. } = geometry;
        assert!(start + block_size * block_count <= region.len(), "the ring lies within the region");
        assert!(start.is_multiple_of(4096) && block_size.is_multiple_of(4096));
        assert!(block_count > 0 && block_size > abi::BLOCK_HEADER_LEN);
        Self { region, start, block_size, block_count }
    }

    /// Number of blocks; at least 1.
    pub(crate) fn len(&self) -> usize {
        self.block_count
    }

    /// Bytes of a block, its header included.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    /// The status word of a block as it is now. What the kernel wrote before it set this value is visible
    /// afterwards.
    pub(crate) fn status(&self, index: usize) -> u32 {
        // Pairs with the kernel's smp_wmb before it stores the status.
        self.status_word(index).load(LOOK)
    }

    /// The block, if it is ours now.
    pub(crate) fn claim(&mut self, index: usize) -> Option<Block<'_>> {
        let status = self.status(index);
        let is_ours = status & libc::TP_STATUS_USER != 0;
        is_ours.then_some(Block { ring: self, index, status })
    }

    /// The block, if it is the kernel's: for kernels that are a test or a fuzzer. This is the other half of
    /// the contract, on plain memory.
    pub(crate) fn claim_as_kernel(&mut self, index: usize) -> Option<Block<'_>> {
        let status = self.status(index);
        (status & libc::TP_STATUS_USER == 0).then_some(Block { ring: self, index, status })
    }

    /// Sets a status word as the kernel does at any time: for the kernels of tests.
    #[cfg(test)]
    pub(crate) fn force_status(&self, index: usize, status: u32) {
        self.status_word(index).store(status, HAND_OVER);
    }

    fn block_start(&self, index: usize) -> usize {
        assert!(index < self.block_count, "a block's index comes from this crate");
        self.start + index * self.block_size
    }

    fn status_word(&self, index: usize) -> &AtomicU32 {
        let offset = self.block_start(index) + abi::BLOCK_STATUS;
        // SAFETY: in bounds: `new` checked that all blocks lie within the region and are longer than their
        // header, `block_start` that there is a block of this index.
        let word = unsafe { self.region.start().add(offset) };
        // SAFETY: aligned: regions and blocks are page-aligned and the word is 8 bytes into its block.
        // Alive: the region is, as long as `self` holds its Arc. Never accessed but atomically: a Block's
        // slices begin behind this word.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }
}

/// A block that is ours. Dropped without [`release`](Block::release), it stays ours.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    ring: &'a mut BlockRing,
    index: usize,
    status: u32,
}

impl Block<'_> {
    /// The status with which it became ours.
    pub(crate) fn status(&self) -> u32 {
        self.status
    }

    /// Bytes of the block, counted from its start; `None` if the range touches the status word or leaves
    /// the block. The range may come from the kernel.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let len = self.checked_len(&range)?;
        let offset = self.ring.block_start(self.index) + range.start;
        // SAFETY: in bounds: `checked_len` checked the range against the block, `block_start` the block
        // against the region.
        let start = unsafe { self.ring.region.start().add(offset) };
        // SAFETY: `len` initialised bytes (mapped pages, or zeroed memory) in bounds as above; alive and
        // not written: the block is ours by the contract while this Block borrows the ring, and the slice
        // borrows the Block.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// As [`get`](Block::get), to write.
    pub(crate) fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        let len = self.checked_len(&range)?;
        let offset = self.ring.block_start(self.index) + range.start;
        // SAFETY: in bounds, as in `get`.
        let start = unsafe { self.ring.region.start().add(offset) };
        // SAFETY: as in `get`; exclusive: the slice borrows the Block mutably, the Block borrows the ring
        // mutably, and no other ring has this area of the region.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    /// Ends our ownership: what was written is visible to the kernel before it sees the status.
    pub(crate) fn release(self, status: u32) {
        // Pairs with the kernel's smp_rmb behind its load of the status.
        self.ring.status_word(self.index).store(status, HAND_OVER);
    }

    fn checked_len(&self, range: &Range<usize>) -> Option<usize> {
        let status_end = abi::BLOCK_STATUS + size_of::<u32>();
        let within = range.start >= status_end && range.end <= self.ring.block_size;
        range.end.checked_sub(range.start).filter(|_| within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: RingGeometry =
        RingGeometry { block_size: 4096, block_count: 3, slot_size: 1024, slot_count: 12 };

    fn ring() -> BlockRing {
        BlockRing::new(Arc::new(Region::heap(GEOMETRY.memory())), 0, GEOMETRY)
    }

    #[test]
    fn blocks_are_the_kernels_until_it_says_user() {
        let mut ring = ring();
        assert!(ring.claim(2).is_none());
        ring.force_status(2, libc::TP_STATUS_USER | libc::TP_STATUS_BLK_TMO);
        ring.claim(2).expect("ours").release(libc::TP_STATUS_KERNEL);
        assert!(ring.claim(2).is_none());
    }

    #[test]
    fn ranges_outside_the_block_or_on_the_status_word_give_nothing() {
        let mut ring = ring();
        ring.force_status(1, libc::TP_STATUS_USER);
        let mut block = ring.claim(1).expect("ours");
        assert_eq!(block.get(12..4096).map(<[u8]>::len), Some(4084));
        assert!(block.get(0..8).is_none() && block.get(8..12).is_none() && block.get(11..20).is_none());
        assert!(block.get(12..4097).is_none() && block.get(usize::MAX - 1..usize::MAX).is_none());
        let (start, end) = (40, 20);
        assert!(block.get_mut(start..end).is_none());
    }

    #[test]
    fn blocks_do_not_overlap() {
        let mut ring = ring();
        for index in 0..ring.len() {
            ring.force_status(index, libc::TP_STATUS_USER);
            let mut block = ring.claim(index).expect("ours");
            block.get_mut(12..4096).expect("in bounds").fill(index as u8 + 1);
        }
        for index in 0..ring.len() {
            let block = ring.claim(index).expect("ours");
            assert!(block.get(12..4096).expect("in bounds").iter().all(|&byte| byte == index as u8 + 1));
            assert_eq!(ring.status(index), libc::TP_STATUS_USER, "no block wrote into the next one's status");
        }
    }
}
