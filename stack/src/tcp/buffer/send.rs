//! What a connection has to send, from the first byte that is not acknowledged on.

use super::Pool;

/// Bytes from `snd_una` on, in chunks of the pool and in pieces that the application has given away.
#[derive(Debug, Default)]
pub struct SendBuffer {}

impl SendBuffer {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        todo!("helper buffers")
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies as much of `data` as there is room for, up to `bytes_max` bytes in the buffer, and returns how
    /// much that was. Less also if the pool is used up.
    pub fn write(&mut self, _pool: &mut Pool, _data: &[u8], _bytes_max: usize) -> usize {
        todo!("helper buffers")
    }

    /// Lends a piece of room, at least one byte, at most a chunk, in which `f` writes; it returns how much it has
    /// written. 0: there is no room, or nothing was written.
    pub fn write_with(
        &mut self,
        _pool: &mut Pool,
        _bytes_max: usize,
        _f: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        todo!("helper buffers")
    }

    /// Takes a piece as it is, without copying; it counts in the pool like others.
    ///
    /// # Errors
    /// It does not fit; here it is again.
    pub fn push_owned(&mut self, _pool: &mut Pool, _data: Vec<u8>, _bytes_max: usize) -> Result<(), Vec<u8>> {
        todo!("helper buffers")
    }

    /// Copies the bytes from `offset` on into `room`, all of which it fills: the caller asks for what there is.
    pub fn copy_out(&self, _offset: usize, _room: &mut [u8]) {
        todo!("helper buffers")
    }

    /// The first `len` bytes have been acknowledged.
    pub fn consume(&mut self, _pool: &mut Pool, _len: usize) {
        todo!("helper buffers")
    }

    /// Gives everything back.
    pub fn clear(&mut self, _pool: &mut Pool) {
        todo!("helper buffers")
    }
}
