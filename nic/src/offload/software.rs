//! The work of a device that cannot hand it on: splitting and checksums before the frame leaves.

use smoltcp::phy::{Device, TxToken as _};
use smoltcp::time::Instant;

use super::segment::Segments;
use crate::meta::FrameMeta;

/// What [`transmit`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent<R> {
    /// What the closure returned.
    pub result: R,
    /// Frames that were handed to the device.
    pub frames: usize,
    /// Pieces of the frame for which the device had no room: the last ones. They are lost, as in a full
    /// queue.
    pub lost: usize,
}

/// Lets `f` write a frame of `len` bytes into `scratch`, does what `meta` leaves to be done, and sends
/// the result through `device`, one token a piece. `None`: no room for the first of them, and `f` was
/// not called.
///
/// `scratch` grows to the longest frame that it has met; a device that keeps it sends without allocating.
pub fn transmit<D: Device + ?Sized, R>(
    device: &mut D,
    now: Instant,
    len: usize,
    meta: &FrameMeta,
    scratch: &mut Vec<u8>,
    f: impl FnOnce(&mut [u8]) -> R,
) -> Option<Sent<R>> {
    let medium = device.capabilities().medium;
    let first = device.transmit(now)?;
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let frame = &mut scratch[..len];
    let result = f(frame);
    let segments = Segments::of(medium, frame, meta, None);
    first.consume(segments.frame_len(0), |room| segments.write(0, room));
    let mut frames = 1;
    while frames < segments.count() {
        let Some(token) = device.transmit(now) else { break };
        token.consume(segments.frame_len(frames), |room| segments.write(frames, room));
        frames += 1;
    }
    Some(Sent { result, frames, lost: segments.count() - frames })
}
