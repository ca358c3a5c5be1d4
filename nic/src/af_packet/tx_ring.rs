//! The TX ring, of any version: frames written in place, all handed over by one `send`.
//!
//! What is written into a slot is an *entry*: a frame, behind its virtio_net_hdr if the socket has these.
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
use crate::config::TpacketVersion;
use crate::shm::{Slot, SlotRing};

use super::abi::HeaderLayout;

/// The TX ring of one socket.
#[derive(Debug)]
pub(crate) struct TxRing {
    ring: SlotRing,
    layout: &'static HeaderLayout,
    /// Where entries begin in a slot.
    offset: usize,
    /// The kernel reads that from each slot (PACKET_TX_HAS_OFF).
    tells_offset: bool,
    /// The slot for the next entry.
    head: usize,
    /// Entries before `head` that the kernel has not taken.
    queued: usize,
    /// Bytes of those entries, by slot: once the kernel has taken one, its slot is not ours to read.
    lens: Vec<usize>,
}

impl TxRing {
    /// `offset`: where entries begin, if the kernel is to read it from each slot.
    pub(crate) fn new(ring: SlotRing, version: TpacketVersion, offset: Option<u16>) -> Self {
        let lens = vec![0; ring.len()];
        let layout = version.layout();
        let tells_offset = offset.is_some();
        let offset = offset.map_or(version.tx_offset(), usize::from);
        Self { ring, layout, offset, tells_offset, head: 0, queued: 0, lens }
    }

    /// Whether an entry can be written now.
    pub(crate) fn has_room(&self) -> bool {
        self.queued < self.ring.len() && self.ring.status(self.head) & BUSY == 0
    }

    /// Bytes of the longest entry.
    pub(crate) fn entry_len_max(&self) -> usize {
        self.ring.slot_size().saturating_sub(self.offset)
    }

    /// Entries that the kernel has not taken.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Lets `f` write an entry of `len` bytes straight into the next slot, and queues it. An entry that no
    /// slot can hold, or for which there is no room, is not written: `f` comes back.
    pub(crate) fn write<R, F: FnOnce(&mut [u8]) -> R>(&mut self, len: usize, f: F) -> Result<R, F> {
        let Some(end) = self.offset.checked_add(len) else { return Err(f) };
        let has_room = self.has_room();
        let slot = self.ring.claim(self.head).filter(|_| has_room);
        let Some(mut slot) = slot else { return Err(f) };
        let Some(entry) = slot.get_mut(self.offset..end) else { return Err(f) };
        let result = f(entry);
        set_header(&mut slot, self.layout, len, self.tells_offset.then_some(self.offset));
        slot.release(libc::TP_STATUS_SEND_REQUEST);
        self.lens[self.head] = len;
        self.head = (self.head + 1) % self.ring.len();
        self.queued += 1;
        Ok(result)
    }

    /// Takes the oldest entry that the kernel has not taken out of the queue; what is behind it moves up.
    pub(crate) fn drop_oldest(&mut self) {
        if self.queued > 0 {
            self.take_out_oldest();
        }
    }

    /// Hands all queued entries over. `kick` is one `send`; `virtio_len` bytes of each entry are no frame.
    ///
    /// # Errors
    /// The error of `send` that left frames queued (no memory, interface down …): they are offered
    /// again by the next call. A refused frame is no error; it is counted.
    pub(crate) fn flush(
        &mut self,
        counters: &mut Counters,
        virtio_len: usize,
        mut kick: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<()> {
        // Each round takes at least one frame out of the queue, or is the last.
        while self.queued > 0 {
            let before = self.queued;
            counters.tx_kicks += 1;
            let result = kick();
            let refused = self.settle(counters, virtio_len);
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
    fn settle(&mut self, counters: &mut Counters, virtio_len: usize) -> bool {
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
                    counters.tx_bytes += self.lens[oldest].saturating_sub(virtio_len) as u64;
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
                let bytes = slot.get(self.offset..self.offset + self.lens[from]);
                frame.extend_from_slice(bytes.unwrap_or_default());
            }
            self.lens[to] = frame.len();
            if let Some(mut slot) = self.ring.claim(to) {
                let range = self.offset..self.offset + frame.len();
                if let Some(target) = slot.get_mut(range) {
                    target.copy_from_slice(&frame);
                }
                set_header(&mut slot, self.layout, frame.len(), self.tells_offset.then_some(self.offset));
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

fn set_header(slot: &mut Slot<'_>, layout: &HeaderLayout, len: usize, offset: Option<usize>) {
    // A slot is smaller than 4 GiB, so the length fits, and an offset came from 16 bits.
    if let Some(field) = slot.get_mut(layout.frame_len..layout.frame_len + 4) {
        field.copy_from_slice(&(len as u32).to_ne_bytes());
    }
    if let Some(offset) = offset
        && let Some(field) = slot.get_mut(layout.mac..layout.mac + 2)
    {
        field.copy_from_slice(&(offset as u16).to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
