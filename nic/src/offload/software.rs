//! The work of a device that cannot hand it on: splitting and checksums before the frame leaves.

use smoltcp::phy::{Device, TxToken as _};
use smoltcp::time::Instant;

use super::segment::Segments;
use crate::meta::FrameMeta;

/// Lets `f` write a frame of `len` bytes beside the device, does what `meta` leaves to be done, and sends
/// the result through `device`, one token a segment. `None`: no room for the first of them, and `f` was
/// not called. Segments for which there is no room behind the first are lost, as in a full queue.
pub fn transmit<D: Device + ?Sized, R>(
    device: &mut D,
    now: Instant,
    len: usize,
    meta: &FrameMeta,
    f: impl FnOnce(&mut [u8]) -> R,
) -> Option<R> {
    let first = device.transmit(now)?;
    let mut frame = vec![0; len];
    let result = f(&mut frame);
    let segments = Segments::new(&frame, meta);
    first.consume(segments.frame_len(0), |room| segments.write(0, room));
    for index in 1..segments.count() {
        let Some(token) = device.transmit(now) else { break };
        token.consume(segments.frame_len(index), |room| segments.write(index, room));
    }
    Some(result)
}
