//! A received frame between a device and a stack: verified, and made into what smoltcp takes.
//!
//! smoltcp takes a TCP segment of any length, and one whose checksum is absent if the device says that it
//! has seen to it. What it does not take is several datagrams of UDP in one frame, and a datagram whose
//! checksum is absent: of reassembled datagrams it verifies the sum, which no device has seen.

use smoltcp::phy::{ChecksumCapabilities, Medium};

use crate::Counters;
use crate::meta::{ChecksumState, FrameMeta, GsoKind};
use crate::offload::checksum::{self, Verdict};
use crate::offload::layout::{Layout, Transport};
use crate::offload::segment::Segments;

/// What smoltcp is to do itself on a device whose received frames went through [`verify`].
pub(crate) fn checksums(leaves_out_tx: bool) -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.tcp = if leaves_out_tx { smoltcp::phy::Checksum::None } else { smoltcp::phy::Checksum::Tx };
    checksums
}

/// Verifies a checksum that nobody has verified, and says so in `meta`. False: it is wrong, and the frame
/// is not to be lent.
pub(crate) fn verify(medium: Medium, frame: &[u8], meta: &mut FrameMeta, counters: &mut Counters) -> bool {
    if meta.checksum != ChecksumState::Complete {
        return true;
    }
    match Layout::on(medium, frame).map(|layout| checksum::verify(frame, &layout)) {
        Some(Verdict::Right) => meta.checksum = ChecksumState::Verified,
        Some(Verdict::Wrong) => {
            counters.rx_bad_checksum += 1;
            return false;
        }
        // Fragments, ICMP and the like: the stack has its own look at them.
        Some(Verdict::Unknown) | None => {}
    }
    true
}

/// A frame that was received and not yet lent to the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrived {
    pub(crate) meta: FrameMeta,
    /// Pieces of it that smoltcp has had.
    pieces: usize,
}

impl Arrived {
    pub(crate) fn new(meta: FrameMeta) -> Self {
        Self { meta, pieces: 0 }
    }

    /// Whether pieces of it were lent, so that the whole would be received twice.
    pub(crate) fn is_begun(&self) -> bool {
        self.pieces > 0
    }

    /// Lends what smoltcp takes: the frame, or its next piece, for which `scratch` has room. Says whether
    /// that was the last of it.
    pub(crate) fn lend<R>(
        &mut self,
        medium: Medium,
        frame: &mut [u8],
        scratch: &mut Vec<u8>,
        counters: &mut Counters,
        f: impl FnOnce(&[u8]) -> R,
    ) -> (R, bool) {
        if self.meta.gso.is_some_and(|gso| gso.kind == GsoKind::Udp) {
            let segments = Segments::of(medium, frame, &self.meta, None);
            scratch.resize(segments.frame_len(self.pieces), 0);
            segments.write(self.pieces, scratch);
            self.pieces += 1;
            let is_last = self.pieces >= segments.count();
            counters.rx_super_frames += u64::from(is_last);
            count(counters, scratch);
            return (f(scratch), is_last);
        }
        if let ChecksumState::Partial { start, offset } = self.meta.checksum
            && Layout::on(medium, frame).is_none_or(|layout| layout.protocol == Transport::Udp)
            && checksum::complete(frame, start, offset)
        {
            counters.rx_checksum_filled += 1;
        }
        self.count(frame, counters);
        (f(frame), true)
    }

    /// Lends the frame as it came, and what is known of it.
    pub(crate) fn lend_whole<R>(
        &self,
        frame: &[u8],
        counters: &mut Counters,
        f: impl FnOnce(&[u8], &FrameMeta) -> R,
    ) -> R {
        self.count(frame, counters);
        f(frame, &self.meta)
    }

    fn count(&self, frame: &[u8], counters: &mut Counters) {
        counters.rx_super_frames += u64::from(self.meta.gso.is_some());
        count(counters, frame);
    }
}

fn count(counters: &mut Counters, frame: &[u8]) {
    counters.rx_frames += 1;
    counters.rx_bytes += frame.len() as u64;
}
