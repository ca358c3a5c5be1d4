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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use smoltcp::wire::{Ipv4Packet, UdpPacket};

    use super::*;
    use crate::meta::Gso;

    /// 250 bytes of payload that are three datagrams of 100, 100 and 50.
    fn merged() -> (Vec<u8>, FrameMeta) {
        let header = [0x45, 0, 1, 22, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let udp = [4, 1, 4, 2, 1, 2, 0, 0];
        let mut packet = [&header[..], &udp, &(0..250).collect::<Vec<u8>>()].concat();
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
        let layout = Layout::on(Medium::Ip, &packet).expect("UDP");
        let checksum = checksum::leave_out(&mut packet, &layout).expect("UDP");
        let gso = Some(Gso { kind: GsoKind::Udp, size: NonZeroU16::new(100).expect("not 0"), ecn: false });
        (packet, FrameMeta { checksum, gso, ..FrameMeta::default() })
    }

    /// What is lent, each with whether it was said to be the last.
    fn lent(frame: &mut [u8], meta: FrameMeta, counters: &mut Counters) -> Vec<(Vec<u8>, bool)> {
        let (mut arrived, mut scratch, mut all) = (Arrived::new(meta), Vec::new(), Vec::new());
        while all.last().is_none_or(|(_, is_last)| !is_last) && all.len() < 10 {
            let lend = arrived.lend(Medium::Ip, frame, &mut scratch, counters, <[u8]>::to_vec);
            all.push(lend);
        }
        all
    }

    fn payload(packet: &[u8]) -> Vec<u8> {
        let ip = Ipv4Packet::new_checked(packet).expect("IPv4");
        let udp = UdpPacket::new_checked(ip.payload()).expect("UDP");
        assert!(ip.verify_checksum() && udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        udp.payload().to_vec()
    }

    #[test]
    fn merged_datagrams_are_lent_one_by_one() {
        let (mut frame, meta) = merged();
        let mut counters = Counters::default();
        let all = lent(&mut frame, meta, &mut counters);
        assert_eq!(all.iter().map(|(_, is_last)| *is_last).collect::<Vec<_>>(), [false, false, true]);
        let payloads: Vec<_> = all.iter().map(|(packet, _)| payload(packet)).collect();
        assert_eq!(payloads.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(payloads.concat(), (0..250).collect::<Vec<u8>>());
        assert_eq!((counters.rx_super_frames, counters.rx_frames, counters.rx_bytes), (1, 3, 250 + 3 * 28));
    }

    #[test]
    fn an_absent_checksum_is_filled_in() {
        let (mut frame, meta) = merged();
        let mut counters = Counters::default();
        let all = lent(&mut frame, FrameMeta { gso: None, ..meta }, &mut counters);
        assert_eq!((all.len(), counters.rx_checksum_filled, counters.rx_super_frames), (1, 1, 0));
        assert_eq!(payload(&all[0].0).len(), 250);
    }

    #[test]
    fn a_wrong_checksum_is_counted_and_not_lent() {
        let (mut frame, meta) = merged();
        let mut counters = Counters::default();
        let filled = lent(&mut frame, FrameMeta { gso: None, ..meta }, &mut counters).remove(0).0;
        for (flipped, is_right) in [(0, true), (1, false)] {
            let mut frame = filled.clone();
            frame[200] ^= flipped;
            let mut meta = FrameMeta::default();
            assert_eq!(verify(Medium::Ip, &frame, &mut meta, &mut counters), is_right);
            assert_eq!(meta.checksum == ChecksumState::Verified, is_right);
        }
        assert_eq!(counters.rx_bad_checksum, 1);
    }
}
