//! The RX ring of TPACKET_V3: blocks of frames of any length, lent one by one while their block is ours.
//!
//! ```text
//!   block:  header ▸ frame ─ tp_next_offset ─▶ frame ─ tp_next_offset ─▶ frame │ room that was left
//! ```
//!
//! The kernel hands a block over when the next frame does not fit, or some time after the first one came
//! (TP_STATUS_BLK_TMO). It goes back when its last frame was lent. A chain that leaves the block ends it:
//! what is behind the break is lost and counted.

use crate::Counters;
use crate::config::TpacketVersion;
use crate::meta::FrameMeta;
use crate::shm::{Block, BlockRing};

use super::abi;
use super::rx_frame::{Header, RxOptions};

/// The RX ring of one socket.
#[derive(Debug)]
pub(crate) struct RxBlocks {
    ring: BlockRing,
    options: RxOptions,
    /// The block that the kernel hands over next, or has handed over.
    next: usize,
    /// Where we are in that block, once it was looked at.
    cursor: Option<Cursor>,
    /// The frame that can be lent.
    current: Option<Frame>,
    losing: bool,
}

/// The rest of a block.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Start of the next frame's header, from the start of the block.
    offset: usize,
    /// Frames from there on.
    left: usize,
}

#[derive(Debug)]
struct Frame {
    start: usize,
    end: usize,
    meta: FrameMeta,
}

impl RxBlocks {
    pub(crate) fn new(ring: BlockRing, options: RxOptions) -> Self {
        Self { ring, options, next: 0, cursor: None, current: None, losing: false }
    }

    /// Whether a frame may be there that was not looked at yet.
    pub(crate) fn has_frame(&self) -> bool {
        self.current.is_some() || self.ring.status(self.next) & libc::TP_STATUS_USER != 0
    }

    /// Whether the kernel dropped frames since the last call (TP_STATUS_LOSING).
    pub(crate) fn take_losing(&mut self) -> bool {
        std::mem::take(&mut self.losing)
    }

    /// Goes on to a frame that can be lent, past those that cannot, which it counts: one round through
    /// the ring at most. Says whether there is one.
    pub(crate) fn find(&mut self, counters: &mut Counters) -> bool {
        for _ in 0..self.ring.len() {
            if self.current.is_some() {
                return true;
            }
            let block_size = self.ring.block_size();
            let Some(mut block) = self.ring.claim(self.next) else { return false };
            if self.cursor.is_none() {
                // The kernel says it of a block, and not of the frames in it (`prb_close_block`).
                self.losing |= block.status() & libc::TP_STATUS_LOSING != 0;
            }
            let mut cursor = self.cursor.take().unwrap_or_else(|| first_frame(&block, block_size));
            while cursor.left > 0 {
                let found = self.options.take_from(&mut block, block_size, &mut cursor, counters);
                let Some(frame) = found else {
                    counters.rx_malformed += cursor.left as u64;
                    break;
                };
                if frame.is_some() {
                    self.current = frame;
                    self.cursor = Some(cursor);
                    return true;
                }
            }
            block.release(libc::TP_STATUS_KERNEL);
            self.step();
        }
        self.current.is_some()
    }

    /// What is known of the frame that [`find`](Self::find) found.
    pub(crate) fn meta(&self) -> Option<&FrameMeta> {
        self.current.as_ref().map(|frame| &frame.meta)
    }

    /// Lends the frame that [`find`](Self::find) found; behind the last one of a block it gives the block
    /// back to the kernel.
    ///
    /// Without such a frame it lends an empty one; a token exists only when there is one.
    pub(crate) fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> R {
        let (Some(block), Some(frame)) = (self.ring.claim(self.next), self.current.take()) else {
            return f(&[], &FrameMeta::default());
        };
        let bytes = block.get(frame.start..frame.end).unwrap_or_default();
        counters.rx_frames += 1;
        counters.rx_bytes += bytes.len() as u64;
        let result = f(bytes, &frame.meta);
        if self.cursor.is_none_or(|cursor| cursor.left == 0) {
            block.release(libc::TP_STATUS_KERNEL);
            self.step();
        }
        result
    }

    fn step(&mut self) {
        self.cursor = None;
        self.next += 1;
        if self.next == self.ring.len() {
            self.next = 0;
        }
    }
}

impl RxOptions {
    /// Takes the frame at `cursor` and moves on: the frame, unless it was dropped and counted. `None`: what is
    /// there is no frame.
    fn take_from(
        &self,
        block: &mut Block<'_>,
        block_size: usize,
        cursor: &mut Cursor,
        counters: &mut Counters,
    ) -> Option<Option<Frame>> {
        let layout = TpacketVersion::V3.layout();
        let (base, header_len) = (cursor.offset, layout.len + abi::ADDRESS_LEN);
        let bytes = block.get(base..base.checked_add(header_len)?)?;
        let word = |offset: usize| -> Option<u32> {
            bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
        };
        let header = Header::read(layout, word(layout.status)?, bytes, 0);
        let next_offset = word(abi::NEXT_OFFSET)? as usize;
        let room = block_size - base;
        let is_last = cursor.left == 1;
        // A step forward, to a header that is aligned and lies in the block.
        let is_step = next_offset >= header_len && next_offset < room && next_offset.is_multiple_of(8);
        if !header.is_within(layout, self.vnet_hdr, room) || !(is_last || is_step) {
            return None;
        }
        cursor.left -= 1;
        if !is_last {
            cursor.offset = base + next_offset;
        }
        if !self.wants(&header) {
            return Some(None);
        }
        if header.snaplen < header.len {
            // Longer than a block, or cut by a filter.
            counters.rx_truncated += 1;
            return Some(None);
        }
        let end = base + header.mac + header.snaplen;
        // What lies before the frame was read already, and makes room for a tag.
        let first = layout.len;
        let area = block.get_mut(base + first..end)?;
        let ready = self.prepare(counters, &header, area, header.mac - first);
        let frame = ready.map(|(start, meta)| Frame { start: base + first + start, end, meta });
        Some(frame)
    }
}

/// Where the first frame of a block is, as the kernel says.
fn first_frame(block: &Block<'_>, block_size: usize) -> Cursor {
    let word = |offset: usize| -> usize {
        let field = block.get(offset..offset + 4).unwrap_or_default();
        field.try_into().map_or(0, u32::from_ne_bytes) as usize
    };
    let offset = word(abi::BLOCK_FIRST);
    // Each frame takes at least its header: more frames than fit cannot be there.
    let frames_max = block_size / TpacketVersion::V3.layout().len;
    Cursor { offset, left: word(abi::BLOCK_FRAMES).min(frames_max) }
}

#[cfg(test)]
mod tests;
