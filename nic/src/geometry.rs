//! Ring geometry: what a user may choose, and the kernel's rules, checked before the kernel does.
//!
//! A ring is a row of blocks, each contiguous in the kernel's memory; a block holds whole slots, and
//! a slot holds one frame behind its header. Slots do not straddle blocks:
//!
//! ```text
//!   │ block 0                         │ block 1                         │ …
//!   │ slot 0 │ slot 1 │ slot 2 │ rest │ slot 3 │ slot 4 │ slot 5 │ rest │
//! ```
//!
//! An RX ring of TPACKET_V3 has no slots: frames lie one behind the other in a block, each as long as it
//! is. The kernel wants slots in its numbers all the same.
//!
//! Source: Documentation/networking/packet_mmap.rst, "Ring buffer setting constraints", and
//! `packet_set_ring` in net/packet/af_packet.c.

use crate::af_packet::abi;
use crate::config::TpacketVersion;

/// Shape of one ring, in the kernel's four numbers (`struct tpacket_req`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingGeometry {
    /// Bytes of a block: a multiple of the page size.
    pub block_size: usize,
    /// Number of blocks.
    pub block_count: usize,
    /// Bytes of a slot, header included: a multiple of 16.
    pub slot_size: usize,
    /// Number of slots: exactly slots per block times `block_count`.
    pub slot_count: usize,
}

/// The rule of the kernel that a [`RingGeometry`] breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// A ring without blocks is no ring.
    #[error("block_count is 0; at least 1 is needed")]
    NoBlocks,
    /// tp_block_size must be a multiple of the page size, and not 0.
    #[error("block_size {block_size} is not a multiple of the page size {page_size}")]
    BlockNotPages {
        /// As configured.
        block_size: usize,
        /// Of this machine.
        page_size: usize,
    },
    /// tp_frame_size must be a multiple of TPACKET_ALIGNMENT.
    #[error("slot_size {slot_size} is not a multiple of 16")]
    SlotNotAligned {
        /// As configured.
        slot_size: usize,
    },
    /// tp_frame_size must hold the header and a frame.
    #[error("slot_size {slot_size} cannot hold its header and a frame; at least {needed} bytes are needed")]
    SlotTooSmall {
        /// As configured.
        slot_size: usize,
        /// Smallest legal value.
        needed: usize,
    },
    /// A block must hold at least one slot.
    #[error("slot_size {slot_size} is larger than block_size {block_size}; a slot must fit into a block")]
    SlotLargerThanBlock {
        /// As configured.
        slot_size: usize,
        /// As configured.
        block_size: usize,
    },
    /// tp_frame_nr must be exactly slots per block times tp_block_nr.
    #[error("slot_count {slot_count} is not block_count times slots per block, which is {expected}")]
    SlotCount {
        /// As configured.
        slot_count: usize,
        /// What the other three fields give.
        expected: usize,
    },
    /// The kernel keeps sizes in 32 bits and the table of blocks in one allocation.
    #[error("{blocks} blocks of {block_size} bytes exceed the kernel's limit of {limit}")]
    TooLarge {
        /// As configured.
        blocks: usize,
        /// As configured.
        block_size: usize,
        /// Which limit.
        limit: &'static str,
    },
}

impl RingGeometry {
    /// The geometry for at least `slots` slots that each hold a frame of `frame_len` bytes (Ethernet
    /// header included), in blocks of 64 KiB, or of one slot where a slot is larger.
    ///
    /// The result keeps the kernel's rules unless the ring is too large altogether.
    pub fn for_frames(frame_len: usize, slots: usize) -> Self {
        let needed = HEADROOM_MAX + frame_len;
        // Powers of two up to a page leave no rest in a block.
        let slot_size =
            if needed <= 4096 { needed.next_power_of_two().max(512) } else { needed.next_multiple_of(4096) };
        let block_size = slot_size.max(BLOCK_SIZE).next_multiple_of(4096);
        let slots_per_block = block_size / slot_size;
        let block_count = slots.div_ceil(slots_per_block).max(1);
        Self { block_size, block_count, slot_size, slot_count: block_count * slots_per_block }
    }

    /// Checks every condition that the kernel will check.
    ///
    /// # Errors
    /// The first rule that is broken, in words.
    pub fn check(&self, page_size: usize) -> Result<(), GeometryError> {
        let Self { block_size, block_count, slot_size, slot_count } = *self;
        if block_count == 0 {
            return Err(GeometryError::NoBlocks);
        }
        if block_size == 0 || !block_size.is_multiple_of(page_size) {
            return Err(GeometryError::BlockNotPages { block_size, page_size });
        }
        if !slot_size.is_multiple_of(abi::ALIGNMENT) {
            return Err(GeometryError::SlotNotAligned { slot_size });
        }
        let needed = (HEADROOM_MAX + abi::ETHERNET_HEADER_LEN).next_multiple_of(abi::ALIGNMENT);
        if slot_size < needed {
            return Err(GeometryError::SlotTooSmall { slot_size, needed });
        }
        if slot_size > block_size {
            return Err(GeometryError::SlotLargerThanBlock { slot_size, block_size });
        }
        let too_large = |limit| GeometryError::TooLarge { blocks: block_count, block_size, limit };
        if block_size > i32::MAX as usize {
            return Err(too_large("2 GiB for a block"));
        }
        if block_count > u32::MAX as usize / block_size {
            return Err(too_large("4 GiB for a ring"));
        }
        if block_count > BLOCK_TABLE_LEN_MAX {
            return Err(too_large("524288 blocks"));
        }
        let expected = (block_size / slot_size) * block_count;
        if slot_count != expected {
            return Err(GeometryError::SlotCount { slot_count, expected });
        }
        Ok(())
    }

    /// Bytes of kernel memory that the ring takes.
    pub fn memory(&self) -> usize {
        self.block_size * self.block_count
    }

    /// Where slot `index` begins, in bytes from the start of the ring.
    pub(crate) fn slot_offset(&self, index: usize) -> usize {
        let slots_per_block = self.block_size / self.slot_size;
        (index / slots_per_block) * self.block_size + (index % slots_per_block) * self.slot_size
    }
}

/// Why [`RingGeometry::plan`] found none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The budget is too small for the burst.
    #[error(
        "a burst of {burst} frames of {frame_len} bytes takes {needed} bytes of ring and the budget is \
         {budget}: give that much, or expect at most {burst_max} frames"
    )]
    Budget {
        /// Frames that are to find room.
        burst: usize,
        /// Bytes of each.
        frame_len: usize,
        /// Bytes of ring for them.
        needed: usize,
        /// Bytes that were allowed.
        budget: usize,
        /// Frames for which the budget is enough.
        burst_max: usize,
    },
    /// The result breaks a rule of the kernel.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

impl RingGeometry {
    /// The ring calculator: the smallest legal geometry in which `burst` frames of `frame_len` bytes (the
    /// MTU and the Ethernet header) find room before anybody looks at the ring, within `budget` bytes of
    /// memory.
    ///
    /// For [`TpacketVersion::V3`] a frame takes only its own length and header, and a block is
    /// [`V3_BLOCK_SIZE`] (less if the budget is), of which at least four are made: while one is read and
    /// one waits to be full, two take frames.
    ///
    /// # Errors
    /// The budget does not suffice, or a rule of the kernel; both say what would be right.
    pub fn plan(
        version: TpacketVersion,
        frame_len: usize,
        burst: usize,
        budget: usize,
    ) -> Result<Self, PlanError> {
        let geometry = match version {
            TpacketVersion::V1 | TpacketVersion::V2 => Self::for_frames(frame_len, burst),
            TpacketVersion::V3 => Self::for_burst(frame_len, burst, budget),
        };
        geometry.check(PAGE_SIZE_MIN)?;
        let needed = geometry.memory();
        if needed > budget {
            let burst_max = (budget / geometry.block_size) * (geometry.slot_count / geometry.block_count);
            return Err(PlanError::Budget { burst, frame_len, needed, budget, burst_max });
        }
        Ok(geometry)
    }

    /// The geometry of this many blocks of [`V3_BLOCK_SIZE`] bytes, for an RX ring of TPACKET_V3.
    pub fn for_blocks(block_count: usize) -> Self {
        // The kernel wants slots; frames of V3 do not keep to them.
        let slot_size = 2048;
        let slot_count = block_count * (V3_BLOCK_SIZE / slot_size);
        Self { block_size: V3_BLOCK_SIZE, block_count, slot_size, slot_count }
    }

    fn for_burst(frame_len: usize, burst: usize, budget: usize) -> Self {
        let slot_size = (HEADROOM_MAX + frame_len).next_multiple_of(abi::ALIGNMENT);
        let affordable = (budget / V3_BLOCK_COUNT_MIN) / PAGE_SIZE_MIN * PAGE_SIZE_MIN;
        let needed = (abi::BLOCK_HEADER_LEN + slot_size).next_multiple_of(PAGE_SIZE_MIN);
        let block_size = V3_BLOCK_SIZE.min(affordable).max(needed);
        let slots_per_block = block_size / slot_size;
        // A frame does not begin in one block and end in the next, and a block has a header.
        let frames_per_block = ((block_size - abi::BLOCK_HEADER_LEN) / slot_size).max(1);
        let block_count = (burst.div_ceil(frames_per_block) + 1).max(V3_BLOCK_COUNT_MIN);
        Self { block_size, block_count, slot_size, slot_count: block_count * slots_per_block }
    }
}

/// Bytes of a block in [`RingGeometry::for_frames`]; the kernel finds 16 contiguous pages easily.
const BLOCK_SIZE: usize = 64 << 10;
/// Bytes of a block of an RX ring of TPACKET_V3: fifteen super-frames of 64 KB, or thousands of small ones.
pub const V3_BLOCK_SIZE: usize = 1 << 20;
/// Blocks of an RX ring of TPACKET_V3, at least.
const V3_BLOCK_COUNT_MIN: usize = 4;
/// Every page size of Linux is a multiple of it, in bytes.
const PAGE_SIZE_MIN: usize = 4096;
/// KMALLOC_MAX_SIZE (4 MiB) divided by the size of a pointer: the kernel's table of blocks.
const BLOCK_TABLE_LEN_MAX: usize = (4 << 20) / 8;
/// Bytes before the frame in a slot of any version and direction, at most.
const HEADROOM_MAX: usize = TpacketVersion::V3.rx_headroom();

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn good() -> RingGeometry {
        RingGeometry { block_size: 16384, block_count: 4, slot_size: 2048, slot_count: 32 }
    }

    #[test]
    fn a_legal_geometry_passes() {
        assert_eq!(good().check(PAGE), Ok(()));
    }

    #[test]
    fn every_rule_of_the_kernel_is_named() {
        let cases = [
            (RingGeometry { block_count: 0, ..good() }, "block_count is 0"),
            (RingGeometry { block_size: 0, ..good() }, "not a multiple of the page size 4096"),
            (RingGeometry { block_size: 16384 + 512, ..good() }, "not a multiple of the page size 4096"),
            (RingGeometry { slot_size: 2040, ..good() }, "not a multiple of 16"),
            (RingGeometry { slot_size: 32, ..good() }, "at least 128 bytes"),
            (RingGeometry { slot_size: 32768, ..good() }, "must fit into a block"),
            (RingGeometry { slot_count: 31, ..good() }, "which is 32"),
            (RingGeometry { block_size: 1 << 32, ..good() }, "2 GiB for a block"),
            (RingGeometry { block_size: 1 << 30, block_count: 4, ..good() }, "4 GiB for a ring"),
            (RingGeometry { block_size: 4096, block_count: 524289, ..good() }, "524288 blocks"),
        ];
        for (geometry, words) in cases {
            let error = geometry.check(PAGE).expect_err(words).to_string();
            assert!(error.contains(words), "{geometry:?}: {error}");
        }
    }

    #[test]
    fn for_frames_is_legal_and_large_enough() {
        for frame_len in [14, 60, 590, 1514, 3000, 9014, 65550] {
            for slots in [1, 7, 256, 4096] {
                let geometry = RingGeometry::for_frames(frame_len, slots);
                assert_eq!(geometry.check(PAGE), Ok(()), "{frame_len} {slots}");
                assert!(geometry.slot_count >= slots);
                assert!(geometry.slot_size >= HEADROOM_MAX + frame_len);
            }
        }
    }

    #[test]
    fn slots_do_not_straddle_blocks() {
        let geometry = RingGeometry { block_size: 8192, block_count: 3, slot_size: 3008, slot_count: 6 };
        assert_eq!(geometry.check(PAGE), Ok(()));
        let offsets: Vec<_> = (0..6).map(|index| geometry.slot_offset(index)).collect();
        assert_eq!(offsets, [0, 3008, 8192, 8192 + 3008, 16384, 16384 + 3008]);
    }

    /// Frames that find room in a ring of V3 while one block is read, filled as `prb_open_block` and
    /// `__packet_lookup_frame_in_block` do it.
    fn frames_that_fit(geometry: &RingGeometry, frame_len: usize) -> usize {
        let taken = (TpacketVersion::V3.rx_headroom() + frame_len).next_multiple_of(abi::ALIGNMENT);
        let in_block = (geometry.block_size - abi::BLOCK_HEADER_LEN) / taken;
        in_block * (geometry.block_count - 1)
    }

    #[test]
    fn a_burst_fits_beside_the_headers_of_blocks_and_the_one_that_is_read() {
        // Of these lengths, frames alone would fill a block to the last byte.
        for slot_size in [1 << 11, 1 << 12, 1 << 16] {
            let frame_len = slot_size - HEADROOM_MAX;
            for blocks in [4, 5, 16] {
                let burst = blocks * (V3_BLOCK_SIZE / slot_size);
                let geometry = RingGeometry::plan(TpacketVersion::V3, frame_len, burst, 1 << 30)
                    .expect("1 GiB is enough");
                assert!(frames_that_fit(&geometry, frame_len) >= burst, "{slot_size} {burst} {geometry:?}");
            }
        }
    }

    #[test]
    fn the_calculator_keeps_to_burst_and_budget() {
        for version in [TpacketVersion::V1, TpacketVersion::V2, TpacketVersion::V3] {
            for (frame_len, burst) in [(60, 4000), (1514, 4096), (65_549, 200), (9014, 1)] {
                let geometry =
                    RingGeometry::plan(version, frame_len, burst, 1 << 30).expect("1 GiB is enough");
                assert_eq!(geometry.check(PAGE), Ok(()));
                assert!(geometry.slot_count >= burst, "{version:?} {geometry:?}");
            }
            let error =
                RingGeometry::plan(version, 65_549, 4000, 64 << 20).expect_err("64 MiB are not enough");
            let PlanError::Budget { burst_max, .. } = error else { panic!("{error}") };
            assert!((800..1000).contains(&burst_max), "{error}");
            let geometry = RingGeometry::plan(version, 65_549, burst_max - 30, 64 << 20).expect("as it said");
            assert!(geometry.memory() <= 64 << 20);
        }
    }
}
