//! Options of a segment: those that a peer has sent, and those that we send.

use super::seq::Seq;

/// Timestamps (RFC 7323 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// TSval: the sender's clock, in its own unit.
    pub val: u32,
    /// TSecr: the last TSval of the other side.
    pub ecr: u32,
}

/// Blocks of a SACK option (RFC 2018): from a sequence number up to, not with, another. Four find room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); 4],
    len: u8,
}

impl SackBlocks {
    /// Adds a block at the end. A fifth one is dropped.
    pub fn push(&mut self, start: Seq, end: Seq) {
        if let Some(block) = self.blocks.get_mut(usize::from(self.len)) {
            *block = (start, end);
            self.len += 1;
        }
    }

    /// The blocks, in the order of the option.
    #[inline]
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Keeps the first `len` blocks.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len as u8);
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// All options that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum Segment Size, in bytes of payload (RFC 9293 section 3.7.1). Only on a SYN.
    pub mss: Option<u16>,
    /// Window Scale, 0 to 14 (RFC 7323 section 2; more is read as 14). Only on a SYN.
    pub window_scale: Option<u8>,
    /// SACK-permitted (RFC 2018 section 2). Only on a SYN.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK.
    pub sack: SackBlocks,
}
