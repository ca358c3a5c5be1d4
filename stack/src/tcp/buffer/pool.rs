//! The memory of all connections of a shard, in chunks of one size, with a bound.

/// Bytes of a chunk.
pub const CHUNK_BYTES: usize = 4_096;

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
#[derive(Debug)]
pub struct Pool {
    free: Vec<Box<[u8; CHUNK_BYTES]>>,
    in_use_bytes: usize,
    bytes_max: usize,
}

impl Pool {
    /// A pool of `bytes_max` bytes. None are taken before they are needed.
    pub fn new(bytes_max: usize) -> Self {
        Self { free: Vec::new(), in_use_bytes: 0, bytes_max }
    }

    /// Bytes that are lent.
    pub fn in_use_bytes(&self) -> usize {
        self.in_use_bytes
    }

    /// The bound.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// How full it is.
    pub fn pressure(&self) -> Pressure {
        todo!("helper buffers")
    }
}
