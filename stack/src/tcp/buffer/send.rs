//! What a connection has to send, from the first byte that is not acknowledged on.

use std::collections::VecDeque;

use super::Pool;
use super::pool::{CHUNK_BYTES, Chunk};

#[cfg(test)]
mod tests;

/// Bytes that a buffer can hold, whatever its limit: half of what sequence numbers can tell apart.
const BYTES_MAX: usize = 1 << 30;
/// An owned piece that is not longer is copied: that costs less than to keep it.
const OWNED_COPIED_BYTES_MAX: usize = 512;
/// Entries of a list that is kept for the next buffer.
const SMALL_LIST_LEN: usize = 64;

/// Bytes from `snd_una` on, in chunks of the pool and in pieces that the application has given away.
///
/// An empty one has no memory but itself.
#[derive(Debug, Default)]
pub struct SendBuffer {
    list: Option<List>,
}

impl SendBuffer {
    /// Bytes in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.as_ref().map_or(0, |list| list.0.len as usize)
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies as much of `data` as there is room for, up to `bytes_max` bytes in the buffer, and returns how
    /// much that was. Less also if the pool is used up.
    pub fn write(&mut self, pool: &mut Pool, data: &[u8], bytes_max: usize) -> usize {
        let len = data.len().min(self.room(bytes_max));
        if len == 0 {
            return 0;
        }
        let pieces = &mut *self.list.get_or_insert_with(|| pool.take_send()).0;
        let mut rest = &data[..len];
        while !rest.is_empty() {
            let Some(room) = pieces.room(pool) else { break };
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            pieces.grow(now.len());
            rest = later;
        }
        self.release_if_empty(pool);
        len - rest.len()
    }

    /// Lends a piece of room, at least one byte, at most a chunk, in which `f` writes; it returns how much it has
    /// written. 0: there is no room, or nothing was written.
    pub fn write_with(
        &mut self,
        pool: &mut Pool,
        bytes_max: usize,
        f: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let len_max = self.room(bytes_max);
        if len_max == 0 {
            return 0;
        }
        let pieces = &mut *self.list.get_or_insert_with(|| pool.take_send()).0;
        let mut len = 0;
        if let Some(room) = pieces.room(pool) {
            let room_len = room.len().min(len_max);
            len = f(&mut room[..room_len]).min(room_len);
            pieces.grow(len);
            pieces.drop_unused(pool);
        }
        self.release_if_empty(pool);
        len
    }

    /// Takes a piece as it is, without copying (unless it is so short that copying costs less); it counts in the pool
    /// like others, with all its capacity.
    ///
    /// # Errors
    /// It does not fit; here it is again.
    pub fn push_owned(&mut self, pool: &mut Pool, data: Vec<u8>, bytes_max: usize) -> Result<(), Vec<u8>> {
        if data.is_empty() {
            return Ok(());
        }
        if data.len() > self.room(bytes_max) {
            return Err(data);
        }
        if data.len() <= OWNED_COPIED_BYTES_MAX {
            let last_room = self.list.as_ref().map_or(0, |list| list.0.last_room());
            if last_room < data.len() && pool.bytes_max() - pool.in_use_bytes() < CHUNK_BYTES {
                return Err(data);
            }
            self.write(pool, &data, bytes_max);
            return Ok(());
        }
        if !pool.charge(data.capacity()) {
            return Err(data);
        }
        self.list.get_or_insert_with(|| pool.take_send()).0.push_owned(data);
        Ok(())
    }

    /// Copies the bytes from `offset` on into `room`, all of which it fills: the caller asks for what there is.
    ///
    /// # Panics
    /// There is less: what is sent would not be what was written.
    pub fn copy_out(&self, offset: usize, room: &mut [u8]) {
        if room.is_empty() {
            return;
        }
        let end = offset.checked_add(room.len());
        assert!(end.is_some_and(|end| end <= self.len()), "what is to be sent is not in the buffer");
        if let Some(list) = &self.list {
            list.0.copy_out(offset as u32, room);
        }
    }

    /// The first `len` bytes have been acknowledged.
    pub fn consume(&mut self, pool: &mut Pool, len: usize) {
        debug_assert!(len <= self.len(), "more is acknowledged than there is");
        if len >= self.len() {
            self.clear(pool);
        } else if let Some(list) = &mut self.list {
            list.0.consume(pool, len as u32);
        }
    }

    /// Gives everything back.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(mut list) = self.list.take() {
            list.0.clear(pool);
            pool.give_send(list);
        }
    }

    fn room(&self, bytes_max: usize) -> usize {
        bytes_max.min(BYTES_MAX).saturating_sub(self.len())
    }

    fn release_if_empty(&mut self, pool: &mut Pool) {
        if self.is_empty() {
            self.clear(pool);
        }
    }
}

/// What a buffer has while something is in it. The pool keeps some that are empty.
#[derive(Debug, Default)]
pub(super) struct List(Box<Pieces>);

impl List {
    /// Whether it is worth keeping.
    #[inline]
    pub(super) fn is_small(&self) -> bool {
        self.0.pieces.capacity() <= SMALL_LIST_LEN
    }
}

/// Pieces in order. Positions count bytes of the stream, modulo 2^32.
#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Piece>,
    /// Position of the first byte: only the first piece can begin before it.
    start: u32,
    len: u32,
}

#[derive(Debug)]
struct Piece {
    /// Position of the first byte of the memory.
    at: u32,
    /// Bytes that are written.
    len: u32,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Chunk(Chunk),
    Owned(Vec<u8>),
}

impl Piece {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Chunk(chunk) => &chunk.bytes()[..self.len as usize],
            Memory::Owned(data) => data,
        }
    }

    fn give_back(self, pool: &mut Pool) {
        match self.memory {
            Memory::Chunk(chunk) => pool.give(chunk),
            Memory::Owned(data) => pool.discharge(data.capacity()),
        }
    }
}

impl Pieces {
    /// Bytes that the last chunk has room for.
    #[inline]
    fn last_room(&self) -> usize {
        match self.pieces.back() {
            Some(Piece { len, memory: Memory::Chunk(_), .. }) => CHUNK_BYTES - *len as usize,
            _ => 0,
        }
    }

    /// Room behind the last byte, in a new chunk if need be.
    #[inline]
    fn room(&mut self, pool: &mut Pool) -> Option<&mut [u8]> {
        if self.last_room() == 0 {
            let memory = Memory::Chunk(pool.take()?);
            let at = self.start.wrapping_add(self.len);
            self.pieces.push_back(Piece { at, len: 0, memory });
        }
        match self.pieces.back_mut() {
            Some(Piece { len, memory: Memory::Chunk(chunk), .. }) => {
                Some(&mut chunk.bytes_mut()[*len as usize..])
            }
            _ => None,
        }
    }

    /// So many bytes were written where [`room`](Self::room) was.
    #[inline]
    fn grow(&mut self, len: usize) {
        if let Some(last) = self.pieces.back_mut() {
            last.len += len as u32;
            self.len += len as u32;
        }
    }

    /// A chunk was taken, and nothing was written.
    fn drop_unused(&mut self, pool: &mut Pool) {
        if self.pieces.back().is_some_and(|last| last.len == 0)
            && let Some(unused) = self.pieces.pop_back()
        {
            unused.give_back(pool);
        }
    }

    fn push_owned(&mut self, data: Vec<u8>) {
        let (at, len) = (self.start.wrapping_add(self.len), data.len() as u32);
        self.pieces.push_back(Piece { at, len, memory: Memory::Owned(data) });
        self.len += len;
    }

    /// Which piece has the byte at `offset`, which exists, and where in it.
    #[inline]
    fn find(&self, offset: u32) -> (usize, usize) {
        let first = self.pieces.front().map_or(self.start, |first| first.at);
        let position = self.start.wrapping_add(offset);
        let in_pieces = position.wrapping_sub(first);
        // Where all pieces before it are full chunks, its index is known.
        let guess = in_pieces as usize / CHUNK_BYTES;
        if let Some(piece) = self.pieces.get(guess) {
            let in_piece = position.wrapping_sub(piece.at);
            if in_piece < piece.len {
                return (guess, in_piece as usize);
            }
        }
        let behind = self.pieces.partition_point(|piece| piece.at.wrapping_sub(first) <= in_pieces);
        let index = behind.saturating_sub(1);
        (index, self.pieces.get(index).map_or(0, |piece| position.wrapping_sub(piece.at) as usize))
    }

    fn copy_out(&self, offset: u32, mut room: &mut [u8]) {
        let (index, mut from) = self.find(offset);
        for piece in self.pieces.range(index..) {
            let bytes = &piece.bytes()[from..];
            from = 0;
            let (now, later) = room.split_at_mut(room.len().min(bytes.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            room = later;
            if room.is_empty() {
                break;
            }
        }
    }

    fn consume(&mut self, pool: &mut Pool, len: u32) {
        self.start = self.start.wrapping_add(len);
        self.len -= len;
        while let Some(first) = self.pieces.front()
            && self.start.wrapping_sub(first.at) >= first.len
        {
            if let Some(done) = self.pieces.pop_front() {
                done.give_back(pool);
            }
        }
    }

    fn clear(&mut self, pool: &mut Pool) {
        for piece in self.pieces.drain(..) {
            piece.give_back(pool);
        }
        self.len = 0;
    }
}
