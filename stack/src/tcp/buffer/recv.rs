//! What a connection has received: bytes to be read, and ranges that came before their time.

use super::Pool;
use crate::tcp::options::SackBlocks;
use crate::tcp::seq::Seq;

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
    /// Bytes that were thrown away for want of room.
    pub refused: u32,
}

/// Bytes to be read, and ranges beyond `rcv_nxt`.
#[derive(Debug, Default)]
pub struct RecvBuffer {}

impl RecvBuffer {
    /// Bytes that can be read.
    pub fn readable(&self) -> usize {
        todo!("helper buffers")
    }

    /// Bytes that came early, and wait behind a hole.
    pub fn early(&self) -> usize {
        todo!("helper buffers")
    }

    /// Takes data that begins at `seq` where `rcv_nxt` is expected. The caller has cut it to the window: no byte of
    /// it is `window` or more behind `rcv_nxt`; part or all of it may be before `rcv_nxt` (a repetition).
    pub fn insert(&mut self, _pool: &mut Pool, _rcv_nxt: Seq, _seq: Seq, _data: &[u8]) -> Inserted {
        todo!("helper buffers")
    }

    /// What to tell of early ranges (RFC 2018 section 4): the one that changed last comes first, then those that
    /// were told last. Up to four.
    pub fn sack_blocks(&self) -> SackBlocks {
        todo!("helper buffers")
    }

    /// Copies what is there into `room`, and returns how much.
    pub fn read(&mut self, _pool: &mut Pool, _room: &mut [u8]) -> usize {
        todo!("helper buffers")
    }

    /// As [`read`](Self::read), and everything stays.
    pub fn peek(&self, _room: &mut [u8]) -> usize {
        todo!("helper buffers")
    }

    /// Lends the first piece of what is there; `f` says how much of it is done with. Empty if nothing is there.
    pub fn read_with<R>(&mut self, _pool: &mut Pool, _f: impl FnOnce(&[u8]) -> (usize, R)) -> R {
        todo!("helper buffers")
    }

    /// Throws away what came early: memory is short. SACK allows it (RFC 2018 section 8).
    pub fn drop_early(&mut self, _pool: &mut Pool) -> usize {
        todo!("helper buffers")
    }

    /// Gives everything back.
    pub fn clear(&mut self, _pool: &mut Pool) {
        todo!("helper buffers")
    }
}
