//! What a connection has received: bytes to be read, and ranges that came before their time.
//!
//! Data is copied once, to the place where it is read. A place is counted from the first byte of the first chunk;
//! chunks in which nothing has come are not there.
//!
//! ```text
//!        head   readable        hole      early     hole    early
//!      ├──────┼────────────┼───────────┼─────────┼─────────┼─────┤
//!      │ read │ to be read │           │ [s, e)  │         │[s,e)│
//!      └──────┴────────────┴───────────┴─────────┴─────────┴─────┘
//!                          rcv_nxt
//!      ├── chunk ──┼── chunk ──┼─ absent ─┼── chunk ──┼── chunk ──┤
//! ```

use std::collections::VecDeque;
use std::ops;

use super::pool::{CHUNK_BYTES, Chunk};
use super::ranges::EarlyRanges;
use super::{Pool, Pressure};
use crate::tcp::options::SackBlocks;
use crate::tcp::seq::Seq;

#[cfg(test)]
mod tests;

/// Ranges of early data that a buffer keeps, unless it is told otherwise.
const RANGES_MAX: u16 = 256;
/// Bytes from the first that can be read to the last that came early, whatever the window says.
const BYTES_MAX: usize = 1 << 30;
/// Entries of a list that is kept for the next buffer.
const SMALL_LIST_LEN: usize = 64;

/// What became of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inserted {
    /// By how much `rcv_nxt` moves on.
    pub advanced: u32,
    /// It filled a hole, or part of one: something that came early is behind it.
    pub fills_hole: bool,
    /// Something of it waits behind a hole now.
    pub is_early: bool,
    /// What of it had come before: the range to be told as a DSACK (RFC 2883), the first one if there are two.
    pub duplicate: Option<(Seq, Seq)>,
    /// Bytes that were thrown away for want of room: of this data, or of what came early and is farther from
    /// `rcv_nxt`, which makes room first.
    pub refused: u32,
}

/// Bytes to be read, and ranges beyond `rcv_nxt`. An empty one has no memory but itself.
#[derive(Debug)]
pub struct RecvBuffer {
    list: Option<List>,
    ranges_max: u16,
}

impl Default for RecvBuffer {
    fn default() -> Self {
        Self { list: None, ranges_max: RANGES_MAX }
    }
}

impl RecvBuffer {
    /// Keeps at most so many ranges of early data from now on, up to 65 535; 256 to begin with.
    pub fn set_ranges_max(&mut self, ranges_max: usize) {
        self.ranges_max = u16::try_from(ranges_max).unwrap_or(u16::MAX);
    }

    /// Bytes that can be read.
    #[inline]
    pub fn readable(&self) -> usize {
        self.list.as_ref().map_or(0, |list| list.0.readable)
    }

    /// Bytes that came early, and wait behind a hole.
    #[inline]
    pub fn early(&self) -> usize {
        self.list.as_ref().map_or(0, |list| list.0.early.bytes() as usize)
    }

    /// Takes data that begins at `seq` where `rcv_nxt` is expected. The caller has cut it to the window: no byte of
    /// it is `window` or more behind `rcv_nxt`; part or all of it may be before `rcv_nxt` (a repetition).
    ///
    /// What comes in order is refused only if the pool is used up and nothing that came early could make room. What
    /// comes early is refused if it needs a new chunk under [`Pressure::Severe`], or a new range and there are as
    /// many as there may be: of those, the ones next to `rcv_nxt` are kept.
    pub fn insert(&mut self, pool: &mut Pool, rcv_nxt: Seq, seq: Seq, data: &[u8]) -> Inserted {
        let mut inserted = Inserted::default();
        let (mut seq, mut data) = (seq, data);
        if seq.is_before(rcv_nxt) && !data.is_empty() {
            let repeated = data.len().min(rcv_nxt.since(seq) as usize);
            //= rfc2883#4
            //# (3) The left edge of the D-SACK block specifies the first sequence
            //# number of the duplicate contiguous sequence, and the right edge of
            //# the D-SACK block specifies the sequence number immediately following
            //# the last sequence in the duplicate contiguous sequence.
            inserted.duplicate = Some((seq, seq + repeated as u32));
            seq += repeated as u32;
            data = &data[repeated..];
        }
        if data.is_empty() {
            return inserted;
        }
        let received = &mut *self.list.get_or_insert_with(|| pool.take_recv()).0;
        let last_place = received.place(rcv_nxt, seq).saturating_add(data.len());
        if last_place > BYTES_MAX {
            inserted.refused = u32::try_from(data.len()).unwrap_or(u32::MAX);
        } else if seq == rcv_nxt && received.early.is_empty() {
            let stored = received.store(pool, received.head + received.readable, data, true);
            received.readable += stored;
            inserted.advanced = stored as u32;
            inserted.refused = (data.len() - stored) as u32;
        } else {
            let ranges_max = usize::from(self.ranges_max);
            Insertion { received, pool, rcv_nxt, ranges_max, inserted: &mut inserted }.run(seq, data);
        }
        self.release_if_empty(pool);
        inserted
    }

    /// What to tell of early ranges (RFC 2018 section 4): the one that changed last comes first, then those that
    /// were told last. Up to four.
    pub fn sack_blocks(&self) -> SackBlocks {
        self.list.as_ref().map(|list| list.0.early.sack_blocks()).unwrap_or_default()
    }

    /// How many ranges have changed since [`mark_told`](Self::mark_told): as many blocks the next ACK needs.
    #[inline]
    pub fn untold(&self) -> usize {
        self.list.as_ref().map_or(0, |list| list.0.early.untold().into())
    }

    /// An ACK with these blocks leaves.
    #[inline]
    pub fn mark_told(&mut self) {
        if let Some(list) = &mut self.list {
            list.0.early.mark_told();
        }
    }

    /// Copies what is there into `room`, and returns how much.
    pub fn read(&mut self, pool: &mut Pool, room: &mut [u8]) -> usize {
        let Some(list) = &mut self.list else { return 0 };
        let mut len = 0;
        while len < room.len() {
            let piece = list.0.first_piece();
            if piece.is_empty() {
                break;
            }
            let now = piece.len().min(room.len() - len);
            room[len..len + now].copy_from_slice(&piece[..now]);
            list.0.advance(pool, now);
            len += now;
        }
        self.release_if_empty(pool);
        len
    }

    /// As [`read`](Self::read), and everything stays.
    pub fn peek(&self, room: &mut [u8]) -> usize {
        let Some(list) = &self.list else { return 0 };
        let received = &*list.0;
        let len = room.len().min(received.readable);
        let (mut rest, mut from) = (&mut room[..len], received.head);
        for chunk in &received.chunks {
            let Some(chunk) = chunk else { break };
            let bytes = &chunk.bytes()[from..];
            from = 0;
            let (now, later) = rest.split_at_mut(rest.len().min(bytes.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        len
    }

    /// Lends the first piece of what is there; `f` says how much of it is done with. Empty if nothing is there.
    pub fn read_with<R>(&mut self, pool: &mut Pool, f: impl FnOnce(&[u8]) -> (usize, R)) -> R {
        let Some(list) = &mut self.list else { return f(&[]).1 };
        let piece = list.0.first_piece();
        let piece_len = piece.len();
        let (len, result) = f(piece);
        list.0.advance(pool, len.min(piece_len));
        self.release_if_empty(pool);
        result
    }

    /// Throws away what came early, and tells how many bytes that were: memory is short, and SACK allows it (RFC 2018
    /// section 8); or a FIN has come, and what is behind it is nothing.
    pub fn drop_early(&mut self, pool: &mut Pool) -> usize {
        let Some(list) = &mut self.list else { return 0 };
        let received = &mut *list.0;
        let dropped = received.early.bytes() as usize;
        received.early.clear();
        received.truncate(pool, received.head + received.readable);
        self.release_if_empty(pool);
        dropped
    }

    /// Gives everything back.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(mut list) = self.list.take() {
            list.0.clear(pool);
            pool.give_recv(list);
        }
    }

    fn release_if_empty(&mut self, pool: &mut Pool) {
        if self.list.as_ref().is_some_and(|list| list.0.is_empty()) {
            self.clear(pool);
        }
    }
}

/// What a buffer has while something is in it. The pool keeps some that are empty.
#[derive(Debug, Default)]
pub(super) struct List(Box<Received>);

impl List {
    /// Whether it is worth keeping.
    #[inline]
    pub(super) fn is_small(&self) -> bool {
        self.0.chunks.capacity() <= SMALL_LIST_LEN && self.0.early.capacity() <= SMALL_LIST_LEN
    }
}

#[derive(Debug, Default)]
struct Received {
    chunks: VecDeque<Option<Chunk>>,
    /// Bytes of the first chunk that have been read: less than a chunk.
    head: usize,
    /// Bytes from there on that are in order.
    readable: usize,
    early: EarlyRanges,
}

impl Received {
    #[inline]
    fn is_empty(&self) -> bool {
        self.readable == 0 && self.early.is_empty()
    }

    /// Bytes that can be read, and bytes that came early.
    fn bytes(&self) -> usize {
        self.readable + self.early.bytes() as usize
    }

    /// The place of a number that is `rcv_nxt` or behind it.
    #[inline]
    fn place(&self, rcv_nxt: Seq, seq: Seq) -> usize {
        self.head + self.readable + seq.since(rcv_nxt) as usize
    }

    /// What can be read in one piece.
    #[inline]
    fn first_piece(&self) -> &[u8] {
        match self.chunks.front() {
            Some(Some(chunk)) => &chunk.bytes()[self.head..CHUNK_BYTES.min(self.head + self.readable)],
            _ => &[],
        }
    }

    /// So much of the first piece has been read.
    #[inline]
    fn advance(&mut self, pool: &mut Pool, len: usize) {
        self.head += len;
        self.readable -= len;
        if self.head == CHUNK_BYTES {
            self.head = 0;
            if let Some(Some(chunk)) = self.chunks.pop_front() {
                pool.give(chunk);
            }
        }
    }

    /// Copies `data` to its place, and tells how much of it: less if a chunk is not to be had.
    #[inline]
    fn store(&mut self, pool: &mut Pool, place: usize, data: &[u8], is_in_order: bool) -> usize {
        let (mut place, mut rest) = (place, data);
        while !rest.is_empty() {
            let Some(chunk) = self.chunk(pool, place / CHUNK_BYTES, is_in_order) else { break };
            let room = &mut chunk.bytes_mut()[place % CHUNK_BYTES..];
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            place += now.len();
            rest = later;
        }
        data.len() - rest.len()
    }

    /// The chunk at `index`, a new one if it is not there.
    #[inline]
    fn chunk(&mut self, pool: &mut Pool, index: usize, is_in_order: bool) -> Option<&mut Chunk> {
        if !matches!(self.chunks.get(index), Some(Some(_))) {
            if !is_in_order && pool.pressure() == Pressure::Severe {
                return None;
            }
            let chunk = pool.take()?;
            if self.chunks.len() <= index {
                self.chunks.resize_with(index + 1, || None);
            }
            self.chunks[index] = Some(chunk);
        }
        self.chunks.get_mut(index)?.as_mut()
    }

    /// Gives back the chunks that begin at `place` or behind it.
    fn truncate(&mut self, pool: &mut Pool, place: usize) {
        let len = place.div_ceil(CHUNK_BYTES).min(self.chunks.len());
        for chunk in self.chunks.drain(len..).flatten() {
            pool.give(chunk);
        }
    }

    fn clear(&mut self, pool: &mut Pool) {
        self.truncate(pool, 0);
        (self.head, self.readable) = (0, 0);
        self.early.clear();
    }
}

/// Data that does not simply come behind what is there.
struct Insertion<'a> {
    received: &'a mut Received,
    pool: &'a mut Pool,
    rcv_nxt: Seq,
    ranges_max: usize,
    inserted: &'a mut Inserted,
}

impl Insertion<'_> {
    /// `seq` is `rcv_nxt` or behind it, `data` is not empty.
    fn run(&mut self, seq: Seq, data: &[u8]) {
        let end = seq + data.len() as u32;
        let early = &self.received.early;
        let touched = early.touching(seq, end);
        let ranges_len = early.len();
        let due = self.received.bytes() + self.missing(seq, end, &touched) as usize;
        let would_be_farthest = touched.is_empty() && touched.start == ranges_len;
        if seq == self.rcv_nxt {
            let there_up_to = self.fill(seq, data, touched);
            let rcv_nxt = self.received.early.absorb(there_up_to);
            self.inserted.advanced = rcv_nxt.since(seq);
            self.received.readable += self.inserted.advanced as usize;
        } else if !would_be_farthest || ranges_len < self.ranges_max {
            let there_up_to = self.fill(seq, data, touched);
            if there_up_to != seq {
                self.received.early.add(seq, there_up_to);
                self.inserted.is_early = true;
            }
            let len = self.received.early.len();
            if len > ranges_len && len > self.ranges_max {
                self.drop_last(there_up_to);
            }
            self.received.early.mark_recent(seq);
        }
        self.inserted.refused = (due - self.received.bytes()) as u32;
    }

    /// Copies what is new to its place, and tells up to where everything from `seq` on is there. `touched` are the
    /// ranges that the data meets.
    fn fill(&mut self, seq: Seq, data: &[u8], touched: ops::Range<usize>) -> Seq {
        let end = seq + data.len() as u32;
        let is_in_order = seq == self.rcv_nxt;
        let (mut cursor, mut index) = (seq, touched.start);
        while cursor.is_before(end) {
            let next = if index < touched.end { self.received.early.get(index) } else { None };
            let gap_end = next.map_or(end, |range| range.start.min(end)).max(cursor);
            let gap = &data[cursor.since(seq) as usize..gap_end.since(seq) as usize];
            let place = self.received.place(self.rcv_nxt, cursor);
            let stored = self.received.store(self.pool, place, gap, is_in_order);
            if stored > 0 {
                let last = self.received.early.last();
                self.inserted.fills_hole |= last.is_some_and(|last| last.start.is_after(cursor));
                cursor += stored as u32;
            }
            if stored < gap.len() {
                // What is in order must not wait for room that something has which is not.
                if is_in_order && index < self.received.early.len() {
                    self.drop_last(cursor);
                    continue;
                }
                break;
            }
            if let Some(range) = next {
                let overlap_end = range.end.min(end);
                if overlap_end.is_after(cursor) {
                    //= rfc2883#4.2
                    //# If the data packet being
                    //# acknowledged contains multiple partial duplicate sub-segments, then
                    //# only the first such duplicate sub-segment is reported in the SACK
                    //# option.
                    self.inserted.duplicate.get_or_insert((cursor, overlap_end));
                    cursor = overlap_end;
                }
                index += 1;
            }
        }
        cursor
    }

    /// Bytes of `[start, end)` that are in none of the ranges, which are the ones that it meets.
    fn missing(&self, start: Seq, end: Seq, touched: &ops::Range<usize>) -> u32 {
        let there: u32 = touched
            .clone()
            .filter_map(|index| self.received.early.get(index))
            .map(|range| range.end.min(end).since(range.start.max(start)))
            .sum();
        end.since(start) - there
    }

    /// Throws away the range that is farthest from `rcv_nxt`, and gives back the chunks that are of no use without
    /// it. Everything up to `kept` stays.
    fn drop_last(&mut self, kept: Seq) {
        self.received.early.pop_last();
        let kept = self.received.early.last().map_or(kept, |last| last.end.max(kept));
        let place = self.received.place(self.rcv_nxt, kept);
        self.received.truncate(self.pool, place);
    }
}
