//! The TX ring, TPACKET_V2: frames written in place, all handed over by one `send`.
//!
//! ```text
//!       … SENDING │ SEND_REQUEST │ SEND_REQUEST │ AVAILABLE …
//!                 ▲ the kernel looks here       ▲ head
//!                 └───────── queued ────────────┘
//! ```
//!
//! `send` walks the slots in order: SEND_REQUEST becomes SENDING while the device has the frame, and
//! AVAILABLE when it is done. At a frame that the kernel refuses (longer than the MTU allows, shorter
//! than a header) it sets TP_STATUS_WRONG_FORMAT, stops, and will look at the same slot next time: such
//! a frame is taken out by moving the ones behind it forward, so that the ring does not stall and
//! nothing that nobody wrote goes out.
//! Source: `tpacket_snd` in net/packet/af_packet.c.

use std::io;

use crate::Counters;
use crate::shm::{Slot, SlotRing};

use super::abi;

/// The TX ring of one socket.
#[derive(Debug)]
pub(crate) struct TxRing {
    ring: SlotRing,
    /// The slot for the next frame.
    head: usize,
    /// Frames before `head` that the kernel has not taken.
    queued: usize,
    /// Bytes of those frames, by slot: once the kernel has taken one, its slot is not ours to read.
    lens: Vec<usize>,
}

impl TxRing {
    pub(crate) fn new(ring: SlotRing) -> Self {
        let lens = vec![0; ring.len()];
        Self { ring, head: 0, queued: 0, lens }
    }

    /// Whether a frame can be written now.
    pub(crate) fn has_room(&self) -> bool {
        self.ring.status(self.head) & BUSY == 0
    }

    /// Frames that the kernel has not taken.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Lets `f` write a frame of `len` bytes straight into the next slot, and queues it.
    ///
    /// A frame that no slot can hold, or for which there is no room, is written to memory of its own,
    /// counted, and goes nowhere: the caller checked [`has_room`](Self::has_room), and a stack that
    /// keeps the MTU never asks for a longer one.
    pub(crate) fn write<R>(
        &mut self,
        counters: &mut Counters,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let has_room = self.has_room();
        let slot = self.ring.claim(self.head).filter(|_| has_room);
        if let Some(mut slot) = slot
            && let Some(frame) = slot.get_mut(abi::TX_FRAME_OFFSET..abi::TX_FRAME_OFFSET + len)
        {
            let result = f(frame);
            set_len(&mut slot, len);
            slot.release(libc::TP_STATUS_SEND_REQUEST);
            self.lens[self.head] = len;
            self.head = (self.head + 1) % self.ring.len();
            self.queued += 1;
            return result;
        }
        counters.tx_oversize += 1;
        f(&mut vec![0; len])
    }

    /// Hands all queued frames over. `kick` is one `send`.
    ///
    /// # Errors
    /// The error of `send` that left frames queued (no memory, interface down …): they are offered
    /// again by the next call. A refused frame is no error; it is counted.
    pub(crate) fn flush(
        &mut self,
        counters: &mut Counters,
        mut kick: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<()> {
        // Each round takes at least one frame out of the queue, or is the last.
        while self.queued > 0 {
            let before = self.queued;
            counters.tx_kicks += 1;
            let result = kick();
            let refused = self.settle(counters);
            if refused {
                continue;
            }
            match result {
                Err(error) if self.queued > 0 => return Err(error),
                _ if self.queued == before => return Err(io::ErrorKind::WouldBlock.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks what the kernel took of the queue. True: it stopped at a frame that it refuses, which is
    /// out of the queue now.
    fn settle(&mut self, counters: &mut Counters) -> bool {
        while self.queued > 0 {
            let oldest = self.queued_slot(0);
            match self.ring.status(oldest) & BUSY {
                libc::TP_STATUS_SEND_REQUEST => return false,
                libc::TP_STATUS_WRONG_FORMAT => {
                    counters.tx_rejected += 1;
                    self.take_out_oldest();
                    return true;
                }
                _ => {
                    self.queued -= 1;
                    counters.tx_frames += 1;
                    counters.tx_bytes += self.lens[oldest] as u64;
                }
            }
        }
        false
    }

    /// Moves every queued frame one slot forward, over the oldest.
    fn take_out_oldest(&mut self) {
        let mut frame = Vec::with_capacity(self.ring.slot_size());
        for position in 1..self.queued {
            let (from, to) = (self.queued_slot(position), self.queued_slot(position - 1));
            frame.clear();
            if let Some(slot) = self.ring.claim(from) {
                let len = len(&slot);
                let bytes = slot.get(abi::TX_FRAME_OFFSET..abi::TX_FRAME_OFFSET + len);
                frame.extend_from_slice(bytes.unwrap_or_default());
            }
            self.lens[to] = frame.len();
            if let Some(mut slot) = self.ring.claim(to) {
                let range = abi::TX_FRAME_OFFSET..abi::TX_FRAME_OFFSET + frame.len();
                if let Some(target) = slot.get_mut(range) {
                    target.copy_from_slice(&frame);
                }
                set_len(&mut slot, frame.len());
                slot.release(libc::TP_STATUS_SEND_REQUEST);
            }
        }
        let last = self.queued_slot(self.queued - 1);
        if let Some(slot) = self.ring.claim(last) {
            slot.release(libc::TP_STATUS_AVAILABLE);
        }
        self.head = last;
        self.queued -= 1;
    }

    /// Index of the slot at a position of the queue; 0 is the oldest.
    fn queued_slot(&self, position: usize) -> usize {
        (self.head + self.ring.len() - self.queued + position) % self.ring.len()
    }
}

/// The bits that keep a slot from being free. Some kernels before 5.13 leave others in it, which tell of
/// a timestamp that nobody has asked for.
const BUSY: u32 = libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING | libc::TP_STATUS_WRONG_FORMAT;

fn set_len(slot: &mut Slot<'_>, len: usize) {
    // A slot is smaller than 4 GiB, so the length fits.
    let len = (len as u32).to_ne_bytes();
    if let Some(field) = slot.get_mut(abi::LEN..abi::LEN + 4) {
        field.copy_from_slice(&len);
    }
}

fn len(slot: &Slot<'_>) -> usize {
    let field = slot.get(abi::LEN..abi::LEN + 4).unwrap_or_default();
    field.try_into().map_or(0, u32::from_ne_bytes) as usize
}

#[cfg(test)]
mod tests;
