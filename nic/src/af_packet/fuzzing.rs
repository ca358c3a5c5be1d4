//! A way into the rings for a fuzzer: its input is what the kernel writes. No part of the interface.

use std::io;
use std::sync::Arc;

use managed::ManagedSlice;

use super::abi;
use super::rx_blocks::RxBlocks;
use super::rx_frame::RxOptions;
use super::rx_frames::RxFrames;
use crate::config::{TpacketVersion, VlanTags};
use crate::shm::{BlockRing, Region, Side, SlotRing};
use crate::{Counters, RingGeometry};

/// Reads an RX ring into which a kernel writes `bytes`, a slot or block at a time: two bytes for a length, four
/// for the status word, and that many bytes from its start.
///
/// # Panics
/// What must not happen: a frame is lent that is longer than there is room, more frames than there are, or
/// the ring does not go on with a good frame afterwards.
pub fn rx_ring(version: TpacketVersion, vnet_hdr: bool, bytes: &[u8]) {
    let options = RxOptions {
        vnet_hdr,
        verify_checksums: true,
        vlan_tags: VlanTags::PutBackAll,
        outgoing: false,
        frame_len_max: 1514,
    };
    let mut ring = Ring::new(version, options);
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_at_checked(6) {
        let len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let status = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let (written, tail) = tail.split_at(len.min(tail.len()));
        rest = tail;
        ring.write(written, status);
        ring.read(written);
    }
    let (good, status) = good(version, vnet_hdr);
    ring.write(&good, status);
    assert_eq!(ring.read(&[]), Some(GOOD_LEN), "the ring goes on");
}

/// Both halves of a ring.
struct Ring {
    ours: Ours,
    kernel: Kernel,
    /// Bytes of a slot's status word, which is written last.
    skipped: usize,
    /// Where the kernel writes next.
    next: usize,
    counters: Counters,
}

enum Ours {
    Frames(RxFrames<'static>),
    Blocks(RxBlocks),
}

enum Kernel {
    Slots(SlotRing),
    Blocks(BlockRing),
}

impl Ring {
    fn new(version: TpacketVersion, options: RxOptions) -> Self {
        let region = Arc::new(Region::heap(GEOMETRY.memory()));
        let (ours, kernel) = if version == TpacketVersion::V3 {
            let ring = || BlockRing::new(region.clone(), 0, GEOMETRY);
            (Ours::Blocks(RxBlocks::new(ring(), options)), Kernel::Blocks(ring()))
        } else {
            let ring = || SlotRing::new(region.clone(), 0, GEOMETRY, Side::Rx, version);
            let oversize = ManagedSlice::Owned(vec![0; OVERSIZE_LEN]);
            (Ours::Frames(RxFrames::new(ring(), version, options, oversize)), Kernel::Slots(ring()))
        };
        let skipped = version.layout().status_bytes().end;
        Self { ours, kernel, skipped, next: 0, counters: Counters::default() }
    }

    /// Writes the next slot or block, as far as it goes, and sets its status.
    fn write(&mut self, bytes: &[u8], status: u32) {
        match &mut self.kernel {
            Kernel::Slots(ring) => {
                let Some(mut slot) = ring.claim_as_kernel(self.next) else { return };
                let (start, end) = (self.skipped, bytes.len().min(GEOMETRY.slot_size));
                if let (Some(room), Some(bytes)) = (slot.get_mut(start..end), bytes.get(start..end)) {
                    room.copy_from_slice(bytes);
                }
                slot.release(status);
            }
            Kernel::Blocks(ring) => {
                let Some(mut block) = ring.claim_as_kernel(self.next) else { return };
                let (start, end) = (abi::BLOCK_STATUS + 4, bytes.len().min(GEOMETRY.block_size));
                if let (Some(room), Some(bytes)) = (block.get_mut(start..end), bytes.get(start..end)) {
                    room.copy_from_slice(bytes);
                }
                block.release(status);
            }
        }
        if status & libc::TP_STATUS_USER != 0 {
            let count = match &self.kernel {
                Kernel::Slots(ring) => ring.len(),
                Kernel::Blocks(ring) => ring.len(),
            };
            self.next = (self.next + 1) % count;
        }
    }

    /// Reads all that is there; the length of the last frame. `copy` is what the socket has beside the ring.
    fn read(&mut self, copy: &[u8]) -> Option<usize> {
        let Self { ours, counters, .. } = self;
        let mut copies = [copy].into_iter();
        let mut recv = |buffer: &mut [u8]| {
            let copy = copies.next().ok_or(io::ErrorKind::WouldBlock)?;
            let fits = copy.len().min(buffer.len());
            buffer[..fits].copy_from_slice(&copy[..fits]);
            Ok(copy.len())
        };
        let mut last = None;
        for _ in 0..=GEOMETRY.memory() / abi::ALIGNMENT {
            let found = match ours {
                Ours::Frames(rx) => {
                    rx.find(counters, &mut recv).then(|| rx.lend(counters, |frame, _| frame.len()))
                }
                Ours::Blocks(rx) => rx.find(counters).then(|| rx.lend(counters, |frame, _| frame.len())),
            };
            let Some(len) = found else { return last };
            assert!(len <= GEOMETRY.block_size.max(OVERSIZE_LEN), "a frame of {len} bytes");
            last = Some(len);
        }
        panic!("more frames than there is room for");
    }
}

/// What the kernel writes for a frame of [`GOOD_LEN`] zeroes, and the status that goes with it.
fn good(version: TpacketVersion, vnet_hdr: bool) -> (Vec<u8>, u32) {
    let layout = version.layout();
    let is_block = version == TpacketVersion::V3;
    let start = if is_block { abi::BLOCK_HEADER_LEN } else { 0 };
    let mac = layout.len + abi::ADDRESS_LEN + if vnet_hdr { abi::VNET_HDR_LEN } else { 0 };
    let mut bytes = vec![0; start + mac + GOOD_LEN];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    if is_block {
        put(abi::BLOCK_FRAMES, &1u32.to_ne_bytes());
        put(abi::BLOCK_FIRST, &(start as u32).to_ne_bytes());
    }
    put(start + layout.frame_len, &(GOOD_LEN as u32).to_ne_bytes());
    put(start + layout.snaplen, &(GOOD_LEN as u32).to_ne_bytes());
    put(start + layout.mac, &(mac as u16).to_ne_bytes());
    (bytes, libc::TP_STATUS_USER)
}

/// A script for [`rx_ring`] of one good frame.
pub fn seed(version: TpacketVersion, vnet_hdr: bool) -> Vec<u8> {
    let (bytes, status) = good(version, vnet_hdr);
    [&(bytes.len() as u16).to_le_bytes()[..], &status.to_le_bytes(), &bytes].concat()
}

const GEOMETRY: RingGeometry =
    RingGeometry { block_size: 4096, block_count: 2, slot_size: 512, slot_count: 16 };
const OVERSIZE_LEN: usize = 9000;
const GOOD_LEN: usize = 60;
