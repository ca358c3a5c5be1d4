//! Which bytes beyond `rcv_nxt` have come: ranges that do not touch, and which of them changed last.

use std::ops;

use crate::tcp::options::SackBlocks;
use crate::tcp::seq::Seq;

#[cfg(test)]
mod tests;

/// Ranges whose order of change is remembered: more than an option has room for, for some of them will merge.
const RECENT_LEN: usize = 8;

/// From a number up to, not with, another; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Seq,
    pub(super) end: Seq,
}

impl Range {
    #[inline]
    pub(super) fn len(self) -> u32 {
        self.end.since(self.start)
    }

    #[inline]
    fn has(self, seq: Seq) -> bool {
        seq.is_within(self.start, self.len())
    }
}

/// Ranges in the order of their numbers. All of them are less than 2^31 apart, and between two of them is a hole.
#[derive(Debug, Default)]
pub(super) struct EarlyRanges {
    ranges: Vec<Range>,
    bytes: u32,
    /// A number in each of the ranges that changed last, the last one first. A range that is gone may have left its
    /// number behind: it is passed over.
    recent: [Seq; RECENT_LEN],
    recent_len: u8,
    /// How many of these no ACK has told yet, at most.
    untold: u8,
}

impl EarlyRanges {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Ranges that find room without more memory.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.ranges.capacity()
    }

    /// Bytes in all of them.
    #[inline]
    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Range> {
        self.ranges.get(index).copied()
    }

    /// The one that is farthest from `rcv_nxt`.
    #[inline]
    pub(super) fn last(&self) -> Option<Range> {
        self.ranges.last().copied()
    }

    /// The indices of those that overlap `[start, end)`, or begin or end where it does. If there are none: where such
    /// a range would have its place.
    pub(super) fn touching(&self, start: Seq, end: Seq) -> ops::Range<usize> {
        let first = self.ranges.partition_point(|range| range.end.is_before(start));
        let behind = first + self.ranges[first..].partition_point(|range| range.start.is_at_most(end));
        first..behind
    }

    /// `[start, end)` is there now. What it touches becomes one range with it.
    pub(super) fn add(&mut self, start: Seq, end: Seq) {
        let touched = self.touching(start, end);
        let mut merged = Range { start, end };
        for range in &self.ranges[touched.clone()] {
            merged = Range { start: merged.start.min(range.start), end: merged.end.max(range.end) };
            self.bytes -= range.len();
        }
        self.bytes += merged.len();
        match touched.len() {
            0 => self.ranges.insert(touched.start, merged),
            _ => {
                self.ranges[touched.start] = merged;
                self.ranges.drain(touched.start + 1..touched.end);
            }
        }
    }

    /// Everything up to `end` is in order now, and what touches that with it: removes it, and tells up to where.
    pub(super) fn absorb(&mut self, end: Seq) -> Seq {
        let count = self.ranges.partition_point(|range| range.start.is_at_most(end));
        let mut end = end;
        for range in self.ranges.drain(..count) {
            self.bytes -= range.len();
            end = end.max(range.end);
        }
        self.forget_if_empty();
        end
    }

    /// Removes the one that is farthest from `rcv_nxt`.
    pub(super) fn pop_last(&mut self) -> Option<Range> {
        let range = self.ranges.pop()?;
        self.bytes -= range.len();
        self.forget_if_empty();
        Some(range)
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
        self.bytes = 0;
        self.forget_if_empty();
    }

    /// A segment at `seq` is what the next ACK is about: its range is told first.
    pub(super) fn mark_recent(&mut self, seq: Seq) {
        let Some(range) = self.containing(seq) else { return };
        let is_told_anyway = self.untold > 0 && self.recent_len > 0 && range.has(self.recent[0]);
        self.untold = self.untold.saturating_add(u8::from(!is_told_anyway));
        let mut recent = [seq; RECENT_LEN];
        let mut len = 1;
        for &other in &self.recent[..usize::from(self.recent_len)] {
            // Those that are in the same range have become one with it.
            if len < RECENT_LEN && !range.has(other) {
                recent[len] = other;
                len += 1;
            }
        }
        self.recent = recent;
        self.recent_len = len as u8;
    }

    /// How many ranges have changed since they were last told.
    #[inline]
    pub(super) fn untold(&self) -> u8 {
        self.untold
    }

    /// An ACK tells them.
    #[inline]
    pub(super) fn mark_told(&mut self) {
        self.untold = 0;
    }

    /// What to tell of them.
    pub(super) fn sack_blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if self.is_empty() {
            return blocks;
        }
        let push_new = |blocks: &mut SackBlocks, range: Range| {
            if !blocks.as_slice().contains(&(range.start, range.end)) {
                blocks.push(range.start, range.end);
            }
        };
        //= rfc2018#4
        //# The first SACK block (i.e., the one immediately following the
        //# kind and length fields in the option) MUST specify the contiguous
        //# block of data containing the segment which triggered this ACK,
        //# unless that segment advanced the Acknowledgment Number field in
        //# the header.
        for &seq in &self.recent[..usize::from(self.recent_len)] {
            if let Some(range) = self.containing(seq) {
                push_new(&mut blocks, range);
            }
        }
        //= rfc2018#4
        //# The data receiver SHOULD include as many distinct SACK blocks as
        //# possible in the SACK option.
        for &range in self.ranges.iter().take(RECENT_LEN) {
            push_new(&mut blocks, range);
        }
        blocks
    }

    fn containing(&self, seq: Seq) -> Option<Range> {
        let index = self.ranges.partition_point(|range| range.end.is_at_most(seq));
        self.get(index).filter(|range| range.has(seq))
    }

    /// Numbers of long ago mean nothing to ranges of later.
    fn forget_if_empty(&mut self) {
        if self.ranges.is_empty() {
            (self.recent_len, self.untold) = (0, 0);
        }
    }
}
