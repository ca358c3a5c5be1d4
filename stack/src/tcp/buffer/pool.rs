//! The memory of all connections of a shard, in chunks of one size, with a bound.

use std::fmt;

use super::{recv, send};

/// Bytes of a chunk.
pub const CHUNK_BYTES: usize = 4_096;
/// Chunks that are kept for the next who wants one: 8 MB.
const FREE_CHUNKS_MAX: usize = 2_048;
/// Lists of chunks that are kept: what a connection needs beside its chunks while it has something in its buffers.
const SPARE_LISTS_MAX: usize = 64;

/// How full the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Whoever wants gets.
    None,
    /// More than three quarters are in use: limits no longer grow, and windows shrink as they are used.
    Moderate,
    /// More than seven eighths are in use: what came early is dropped, and new connections are refused.
    Severe,
}

/// The pool. Chunks that are given back are kept for the next one, a bounded number of them.
///
/// What is lent and what is kept are at most [`bytes_max`](Self::bytes_max) bytes together. A buffer is to be cleared
/// before it is dropped: what it has is not counted back by itself.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Chunk>,
    in_use_bytes: usize,
    bytes_max: usize,
    spare_send: Vec<send::List>,
    spare_recv: Vec<recv::List>,
}

impl Pool {
    /// A pool of `bytes_max` bytes. None are taken before they are needed.
    pub fn new(bytes_max: usize) -> Self {
        Self { free: Vec::new(), in_use_bytes: 0, bytes_max, spare_send: Vec::new(), spare_recv: Vec::new() }
    }

    /// Bytes that are lent.
    #[inline]
    pub fn in_use_bytes(&self) -> usize {
        self.in_use_bytes
    }

    /// The bound.
    #[inline]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// How full it is.
    #[inline]
    pub fn pressure(&self) -> Pressure {
        let left = self.bytes_max.saturating_sub(self.in_use_bytes);
        if left < self.bytes_max / 8 {
            Pressure::Severe
        } else if left < self.bytes_max / 4 {
            Pressure::Moderate
        } else {
            Pressure::None
        }
    }

    /// A chunk, if the bound has room for one. Its bytes are what its last owner left there.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        if self.bytes_max - self.in_use_bytes < CHUNK_BYTES {
            return None;
        }
        self.in_use_bytes += CHUNK_BYTES;
        Some(self.free.pop().unwrap_or_else(Chunk::new))
    }

    /// Takes a chunk back.
    #[inline]
    pub(crate) fn give(&mut self, chunk: Chunk) {
        self.in_use_bytes -= CHUNK_BYTES;
        if self.free.len() < FREE_CHUNKS_MAX {
            self.free.push(chunk);
        }
    }

    /// Counts memory that the pool has not made, if the bound has room for it.
    pub(super) fn charge(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes_max - self.in_use_bytes {
            return false;
        }
        self.in_use_bytes += bytes;
        // What is kept for later makes room.
        let free_max = (self.bytes_max - self.in_use_bytes) / CHUNK_BYTES;
        self.free.truncate(free_max);
        true
    }

    /// That memory is no longer there.
    pub(super) fn discharge(&mut self, bytes: usize) {
        self.in_use_bytes -= bytes;
    }

    /// An empty list of what is to be sent.
    #[inline]
    pub(super) fn take_send(&mut self) -> send::List {
        self.spare_send.pop().unwrap_or_default()
    }

    /// Keeps a list that is empty again, unless it has grown large.
    #[inline]
    pub(super) fn give_send(&mut self, list: send::List) {
        if self.spare_send.len() < SPARE_LISTS_MAX && list.is_small() {
            self.spare_send.push(list);
        }
    }

    /// An empty list of what was received.
    #[inline]
    pub(super) fn take_recv(&mut self) -> recv::List {
        self.spare_recv.pop().unwrap_or_default()
    }

    /// Keeps a list that is empty again, unless it has grown large.
    #[inline]
    pub(super) fn give_recv(&mut self, list: recv::List) {
        if self.spare_recv.len() < SPARE_LISTS_MAX && list.is_small() {
            self.spare_recv.push(list);
        }
    }
}

/// Memory of the pool.
pub(crate) struct Chunk(Box<[u8; CHUNK_BYTES]>);

impl Chunk {
    fn new() -> Self {
        Self(Box::new([0; CHUNK_BYTES]))
    }

    /// Its bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8; CHUNK_BYTES] {
        &self.0
    }

    /// Its bytes, to be written.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; CHUNK_BYTES] {
        &mut self.0
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chunk")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_rises_past_three_quarters_and_seven_eighths() {
        let mut pool = Pool::new(16 * CHUNK_BYTES);
        let mut seen = Vec::new();
        let mut chunks = Vec::new();
        loop {
            seen.push(pool.pressure());
            let Some(chunk) = pool.take() else { break };
            chunks.push(chunk);
        }
        let expected: Vec<_> = (0..=16)
            .map(|used| match used {
                0..=12 => Pressure::None,
                13..=14 => Pressure::Moderate,
                _ => Pressure::Severe,
            })
            .collect();
        assert_eq!(seen, expected);
        for chunk in chunks {
            pool.give(chunk);
        }
        assert_eq!((pool.in_use_bytes(), pool.pressure()), (0, Pressure::None));
    }

    proptest! {
        #[test]
        fn what_is_lent_and_what_is_kept_stay_within_the_bound(
            bytes_max in 0_usize..100_000,
            steps in prop::collection::vec((0_u8..4, 0_usize..20_000), 0..200),
        ) {
            let mut pool = Pool::new(bytes_max);
            let (mut chunks, mut charges) = (Vec::new(), Vec::new());
            for (step, bytes) in steps {
                match step {
                    0 => chunks.extend(pool.take()),
                    1 => if let Some(chunk) = chunks.pop() { pool.give(chunk) },
                    2 => if pool.charge(bytes) { charges.push(bytes) },
                    _ => if let Some(bytes) = charges.pop() { pool.discharge(bytes) },
                }
                let lent = chunks.len() * CHUNK_BYTES + charges.iter().sum::<usize>();
                prop_assert_eq!(pool.in_use_bytes(), lent);
                prop_assert!(lent + pool.free.len() * CHUNK_BYTES <= bytes_max);
                prop_assert_eq!(pool.charge(bytes_max - lent + 1), false);
            }
        }
    }
}
