//! Two threads on one piece of memory, the kernel's half and ours, as fast as they can: each slot and block
//! holds what was written into it last, and nothing else, whenever it is looked at.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::config::TpacketVersion;
use crate::geometry::RingGeometry;

/// Frames, or blocks, of a run: many times round each ring, and quick on a busy machine.
const ROUNDS: u32 = 20_000;

/// Calls `step` until it has something; lets the other thread run meanwhile.
fn wait_for<R>(mut step: impl FnMut() -> Option<R>) -> R {
    loop {
        for _ in 0..100 {
            if let Some(result) = step() {
                return result;
            }
            std::hint::spin_loop();
        }
        thread::yield_now();
    }
}

fn fill(room: &mut [u8], number: u32) {
    for word in room.chunks_exact_mut(4) {
        word.copy_from_slice(&number.to_ne_bytes());
    }
}

fn check(bytes: &[u8], number: u32) {
    assert!(bytes.chunks_exact(4).all(|word| word == number.to_ne_bytes()), "{number}: {bytes:?}");
}

const SLOTS: RingGeometry = RingGeometry { block_size: 4096, block_count: 1, slot_size: 512, slot_count: 8 };

#[test]
fn rx_slots_go_to_and_fro() {
    for version in [TpacketVersion::V1, TpacketVersion::V2] {
        let region = Arc::new(Region::heap(SLOTS.memory()));
        let ring = |side| SlotRing::new(region.clone(), 0, SLOTS, side, version);
        let (mut kernel, mut ours) = (ring(Side::Rx), ring(Side::Rx));
        let thread = thread::spawn(move || {
            for number in 0..ROUNDS {
                let index = number as usize % SLOTS.slot_count;
                wait_for(|| {
                    let mut slot = kernel.claim_as_kernel(index)?;
                    fill(slot.get_mut(64..320)?, number);
                    slot.release(libc::TP_STATUS_USER);
                    Some(())
                });
            }
        });
        for number in 0..ROUNDS {
            let index = number as usize % SLOTS.slot_count;
            wait_for(|| {
                let mut slot = ours.claim(index)?;
                check(slot.get(64..320)?, number);
                fill(slot.get_mut(64..320)?, u32::MAX);
                slot.release(libc::TP_STATUS_KERNEL);
                Some(())
            });
        }
        thread.join().expect("the kernel does not panic");
    }
}

/// SEND_REQUEST is taken, SENDING lasts a moment, AVAILABLE comes back. What the kernel does within `send`
/// happens here on another thread, while this one waits; the device ends frames at any time.
#[test]
fn tx_slots_go_to_and_fro() {
    let version = TpacketVersion::V2;
    let region = Arc::new(Region::heap(SLOTS.memory()));
    let ring = || SlotRing::new(region.clone(), 0, SLOTS, Side::Tx, version);
    let (device, mut ours) = (ring(), ring());
    let thread = thread::spawn(move || {
        for number in 0..ROUNDS {
            let index = number as usize % SLOTS.slot_count;
            wait_for(|| (device.status(index) == libc::TP_STATUS_SENDING).then_some(()));
            device.force_status(index, libc::TP_STATUS_AVAILABLE);
        }
    });
    for number in 0..ROUNDS {
        let index = number as usize % SLOTS.slot_count;
        wait_for(|| {
            let mut slot = ours.claim(index)?;
            if number >= SLOTS.slot_count as u32 {
                check(slot.get(64..320)?, number - SLOTS.slot_count as u32);
            }
            fill(slot.get_mut(64..320)?, number);
            slot.release(libc::TP_STATUS_SENDING);
            Some(())
        });
    }
    thread.join().expect("the device does not panic");
}

#[test]
fn blocks_go_to_and_fro() {
    const BLOCKS: RingGeometry =
        RingGeometry { block_size: 4096, block_count: 3, slot_size: 2048, slot_count: 6 };
    let region = Arc::new(Region::heap(BLOCKS.memory()));
    let ring = || BlockRing::new(region.clone(), 0, BLOCKS);
    let (mut kernel, mut ours) = (ring(), ring());
    let thread = thread::spawn(move || {
        for number in 0..ROUNDS {
            let index = number as usize % BLOCKS.block_count;
            wait_for(|| {
                let mut block = kernel.claim_as_kernel(index)?;
                fill(block.get_mut(12..300)?, number);
                fill(block.get_mut(4000..4096)?, number);
                block.release(libc::TP_STATUS_USER);
                Some(())
            });
        }
    });
    for number in 0..ROUNDS {
        let index = number as usize % BLOCKS.block_count;
        wait_for(|| {
            let mut block = ours.claim(index)?;
            check(block.get(12..300)?, number);
            check(block.get(4000..4096)?, number);
            fill(block.get_mut(12..300)?, u32::MAX);
            block.release(libc::TP_STATUS_KERNEL);
            Some(())
        });
    }
    thread.join().expect("the kernel does not panic");
}
