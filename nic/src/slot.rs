//! A buffer for one frame: owned and growing, or borrowed from the user.
//!
//! The queues of the devices in memory ([`loopback`](crate::loopback), [`impair`](crate::impair)) are
//! made of slots. A frame moves between two slots by swapping their buffers, so it is written once and
//! read where it was written.

use std::fmt;

use managed::ManagedSlice;
use smoltcp::time::Instant;

use crate::meta::FrameMeta;

/// The longest frame that a slot holds, in bytes: a GSO frame of 64 KiB, its link header, and as much
/// again for kernels whose `gso_max_size` was raised.
pub const FRAME_LEN_MAX: usize = 128 * 1024;

/// Room for one frame.
///
/// An owned buffer grows to the longest frame that it has met (at most [`FRAME_LEN_MAX`]) and then
/// stays; a borrowed one has the length that its owner gave it.
pub struct Slot<'a> {
    buffer: ManagedSlice<'a, u8>,
    /// How much of `buffer` the frame fills; never more than its length.
    len: usize,
    pub(crate) meta: FrameMeta,
    /// When a [`Line`](crate::impair::Line) releases the frame.
    pub(crate) due: Instant,
    /// The slot after this one, in the list of a line that it is on.
    pub(crate) next: Option<usize>,
}

impl<'a> Slot<'a> {
    /// A slot on `buffer`: a `Vec<u8>` (which may be empty: it grows), or a `&mut [u8]`.
    pub fn new(buffer: impl Into<ManagedSlice<'a, u8>>) -> Self {
        Self { buffer: buffer.into(), len: 0, meta: FrameMeta::default(), due: Instant::ZERO, next: None }
    }

    /// The longest frame in bytes that fits.
    pub fn frame_len_max(&self) -> usize {
        match &self.buffer {
            ManagedSlice::Borrowed(buffer) => buffer.len().min(FRAME_LEN_MAX),
            ManagedSlice::Owned(_) => FRAME_LEN_MAX,
        }
    }

    /// Makes the slot hold a frame of `len` bytes, which the caller writes; until then they are those
    /// of an earlier frame. `None`: it does not fit.
    pub(crate) fn fill(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.frame_len_max() {
            return None;
        }
        if let ManagedSlice::Owned(buffer) = &mut self.buffer
            && buffer.len() < len
        {
            // Powers of two, so that a slot grows a few times in its life and not once a frame.
            buffer.resize(len.next_power_of_two().max(OWNED_LEN_MIN), 0);
        }
        let room = self.buffer.get_mut(..len)?;
        self.len = len;
        Some(room)
    }

    /// The frame.
    pub(crate) fn frame(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// The frame, to be changed in place.
    pub(crate) fn frame_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.len).unwrap_or_default()
    }

    /// Exchanges buffer, frame and metadata with `other`; the place in a line stays.
    pub(crate) fn swap_frame(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.buffer, &mut other.buffer);
        std::mem::swap(&mut self.len, &mut other.len);
        std::mem::swap(&mut self.meta, &mut other.meta);
    }
}

/// An owned slot that allocates when the first frame comes.
impl Default for Slot<'_> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// Lengths only: a queue of frames is not readable as bytes.
impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("frame_len_max", &self.frame_len_max())
            .field("len", &self.len)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// Owned slots that nobody gave a buffer.
pub(crate) fn owned_slots(count: usize) -> Vec<Slot<'static>> {
    std::iter::repeat_with(Slot::default).take(count).collect()
}

/// The first allocation of an owned slot, in bytes: an Ethernet frame of the usual size fits.
const OWNED_LEN_MIN: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owned_slot_grows_to_the_limit_and_keeps_its_buffer() {
        let mut slot = Slot::default();
        assert_eq!(slot.fill(1).map(|room| room.len()), Some(1));
        assert_eq!(slot.buffer.len(), OWNED_LEN_MIN);
        assert_eq!(slot.fill(FRAME_LEN_MAX).map(|room| room.len()), Some(FRAME_LEN_MAX));
        assert!(slot.fill(FRAME_LEN_MAX + 1).is_none());
        assert_eq!(slot.frame().len(), FRAME_LEN_MAX, "a refused frame leaves the old one");
        let _ = slot.fill(60);
        assert_eq!((slot.frame().len(), slot.buffer.len()), (60, FRAME_LEN_MAX));
    }

    #[test]
    fn a_borrowed_slot_keeps_to_its_buffer() {
        let mut buffer = [0; 100];
        let mut slot = Slot::new(&mut buffer[..]);
        assert_eq!(slot.frame_len_max(), 100);
        assert!(slot.fill(101).is_none());
        assert_eq!(slot.fill(100).map(|room| room.len()), Some(100));
    }
}
