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
//! Source: Documentation/networking/packet_mmap.rst, "Ring buffer setting constraints", and
//! `packet_set_ring` in net/packet/af_packet.c.

use managed::ManagedSlice;

use crate::af_packet::abi;

/// Shape of one ring of equal slots (TPACKET_V2), in the kernel's four numbers (`struct tpacket_req`).
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
        let needed = abi::RX_HEADROOM + frame_len;
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
        let needed = (abi::RX_HEADROOM + abi::ETHERNET_HEADER_LEN).next_multiple_of(abi::ALIGNMENT);
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

/// How to open an `AfPacket`. The default suits a server on any interface.
///
/// Tables may be borrowed or owned ([`ManagedSlice`]).
#[derive(Debug)]
pub struct AfPacketConfig<'a> {
    /// Geometries of the RX ring, in the order in which they are tried: the first that the kernel has
    /// memory for is taken. Empty: [`RX_SLOTS`] slots for frames of the interface's MTU.
    ///
    /// A frame that is larger than a slot (a super-frame of up to 64 KB, from a peer on the same host
    /// with TSO on, or after GRO) is fetched whole by a system call of its own; slots of 64 KB save
    /// this call and cost memory.
    pub rx_rings: ManagedSlice<'a, RingGeometry>,
    /// The same for the TX ring. Empty: [`TX_SLOTS`] slots for frames of the interface's MTU.
    pub tx_rings: ManagedSlice<'a, RingGeometry>,
    /// Where a frame that is larger than an RX slot is put; longer frames are lost and counted as
    /// `rx_truncated`. Default: 64 KiB and the Ethernet header. An MTU-sized buffer is too small for
    /// peers on the same host.
    pub oversize: ManagedSlice<'a, u8>,
    /// Bytes of frames larger than a slot that the kernel may hold for us (SO_RCVBUF).
    pub oversize_queue_bytes: usize,
}

impl Default for AfPacketConfig<'_> {
    fn default() -> Self {
        Self {
            rx_rings: ManagedSlice::Owned(Vec::new()),
            tx_rings: ManagedSlice::Owned(Vec::new()),
            oversize: ManagedSlice::Owned(vec![0; OVERSIZE_LEN]),
            oversize_queue_bytes: 16 << 20,
        }
    }
}

/// Slots of the default RX ring: a burst of 4 000 small frames finds room.
pub const RX_SLOTS: usize = 4096;
/// Slots of the default TX ring: more than a TCP window of 64 KB in frames of 1 500 bytes, for many flows.
pub const TX_SLOTS: usize = 1024;
/// Bytes of a block in [`RingGeometry::for_frames`]; the kernel finds 16 contiguous pages easily.
const BLOCK_SIZE: usize = 64 << 10;
/// A GSO frame of 64 KiB (GSO_LEGACY_MAX_SIZE) and its Ethernet header with two VLAN tags.
const OVERSIZE_LEN: usize = (64 << 10) + abi::ETHERNET_HEADER_LEN + 8;
/// KMALLOC_MAX_SIZE (4 MiB) divided by the size of a pointer: the kernel's table of blocks.
const BLOCK_TABLE_LEN_MAX: usize = (4 << 20) / 8;

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
            (RingGeometry { slot_size: 32, ..good() }, "at least 96 bytes"),
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
                assert!(geometry.slot_size >= abi::RX_HEADROOM + frame_len);
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
}
