//! What a device counts.

use std::fmt;

/// Counts of one device since it was opened. All are monotonic.
///
/// A frame is in exactly one of the fields of its direction: what was delivered or sent is in
/// `*_frames`, each way of losing one has a field of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Frames lent to a closure.
    pub rx_frames: u64,
    /// Bytes of those frames.
    pub rx_bytes: u64,
    /// Frames for which the kernel had no room in the RX ring (PACKET_STATISTICS, `tp_drops`).
    pub rx_ring_full: u64,
    /// Times that the kernel stopped a ring of TPACKET_V3 because all blocks were full (`tp_freeze_q_cnt`).
    pub rx_freezes: u64,
    /// Of `rx_frames`, those larger than a ring slot, fetched whole by `recv`.
    pub rx_oversize: u64,
    /// Frames larger than a slot of which the kernel kept no whole copy (receive buffer full).
    pub rx_truncated: u64,
    /// Slots whose offsets or lengths, written by the kernel, pointed outside the slot.
    pub rx_malformed: u64,
    /// Of `rx_frames`, those whose VLAN tag the kernel had taken out, and that has been put back.
    pub rx_tagged: u64,
    /// Datagrams of UDP that the sender left to a device to be split; where, is not told, so they are lost.
    pub rx_unsegmented: u64,
    /// Of `rx_frames`, those whose checksum was absent and was filled in.
    pub rx_checksum_filled: u64,
    /// Frames whose TCP or UDP checksum was wrong.
    pub rx_bad_checksum: u64,
    /// Of `rx_frames`, those with several segments in one.
    pub rx_super_frames: u64,
    /// System calls that asked for frames, without a ring.
    pub rx_calls: u64,
    /// Frames that were not for us on an address shared with the kernel.
    pub rx_not_ours: u64,
    /// Frames handed to the kernel (or to the peer, or to the inner device's queue).
    pub tx_frames: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Of `tx_frames`, those that were handed on to be split by a later hand, or not at all.
    pub tx_super_frames: u64,
    /// Frames that the kernel refused (TP_STATUS_WRONG_FORMAT).
    pub tx_rejected: u64,
    /// Frames longer than a ring slot can hold; never handed to the kernel.
    pub tx_oversize: u64,
    /// Times that a token was refused because all slots were in flight: back pressure, not loss.
    pub tx_ring_full: u64,
    /// Pieces of a frame that the device split itself, for which it had no room.
    pub tx_segments_lost: u64,
    /// System calls that handed frames to the kernel.
    pub tx_kicks: u64,
    /// Frames that were split into segments here, because no later hand does it.
    pub tx_segmented: u64,
    /// Frames on a serial line that were no packets.
    pub line_errors: u64,
    /// Compressed headers on a serial line that came after a loss, and mean nothing (RFC 1144 section 4.1).
    pub line_tossed: u64,
    /// Times that the port of a serial line was lost.
    pub line_losses: u64,
    /// Frames that an impairment dropped, either direction.
    pub impaired_dropped: u64,
    /// Copies that an impairment added, either direction.
    pub impaired_duplicated: u64,
    /// Frames whose bytes an impairment changed, either direction.
    pub impaired_corrupted: u64,
    /// Frames that an impairment let others overtake, either direction.
    pub impaired_reordered: u64,
    /// Frames that an impairment split into several, either direction, since it acts on what a wire carries.
    pub impaired_segmented: u64,
    /// Frames that a capture could not write (disk full); they were delivered all the same.
    pub capture_lost: u64,
}

impl Counters {
    /// Adds those of another device.
    pub fn add(&mut self, other: &Self) {
        let Self {
            rx_frames,
            rx_bytes,
            rx_ring_full,
            rx_freezes,
            rx_oversize,
            rx_truncated,
            rx_malformed,
            rx_tagged,
            rx_unsegmented,
            rx_checksum_filled,
            rx_bad_checksum,
            rx_super_frames,
            rx_calls,
            rx_not_ours,
            tx_frames,
            tx_bytes,
            tx_super_frames,
            tx_rejected,
            tx_oversize,
            tx_ring_full,
            tx_segments_lost,
            tx_kicks,
            tx_segmented,
            line_errors,
            line_tossed,
            line_losses,
            impaired_dropped,
            impaired_duplicated,
            impaired_corrupted,
            impaired_reordered,
            impaired_segmented,
            capture_lost,
        } = *other;
        let sums = [
            (&mut self.rx_frames, rx_frames),
            (&mut self.rx_bytes, rx_bytes),
            (&mut self.rx_ring_full, rx_ring_full),
            (&mut self.rx_freezes, rx_freezes),
            (&mut self.rx_oversize, rx_oversize),
            (&mut self.rx_truncated, rx_truncated),
            (&mut self.rx_malformed, rx_malformed),
            (&mut self.rx_tagged, rx_tagged),
            (&mut self.rx_unsegmented, rx_unsegmented),
            (&mut self.rx_checksum_filled, rx_checksum_filled),
            (&mut self.rx_bad_checksum, rx_bad_checksum),
            (&mut self.rx_super_frames, rx_super_frames),
            (&mut self.rx_calls, rx_calls),
            (&mut self.rx_not_ours, rx_not_ours),
            (&mut self.tx_frames, tx_frames),
            (&mut self.tx_bytes, tx_bytes),
            (&mut self.tx_super_frames, tx_super_frames),
            (&mut self.tx_rejected, tx_rejected),
            (&mut self.tx_oversize, tx_oversize),
            (&mut self.tx_ring_full, tx_ring_full),
            (&mut self.tx_segments_lost, tx_segments_lost),
            (&mut self.tx_kicks, tx_kicks),
            (&mut self.tx_segmented, tx_segmented),
            (&mut self.line_errors, line_errors),
            (&mut self.line_tossed, line_tossed),
            (&mut self.line_losses, line_losses),
            (&mut self.impaired_dropped, impaired_dropped),
            (&mut self.impaired_duplicated, impaired_duplicated),
            (&mut self.impaired_corrupted, impaired_corrupted),
            (&mut self.impaired_reordered, impaired_reordered),
            (&mut self.impaired_segmented, impaired_segmented),
            (&mut self.capture_lost, capture_lost),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum += more);
    }

    /// Name and value of every counter, in the order of the fields.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Self {
            rx_frames,
            rx_bytes,
            rx_ring_full,
            rx_freezes,
            rx_oversize,
            rx_truncated,
            rx_malformed,
            rx_tagged,
            rx_unsegmented,
            rx_checksum_filled,
            rx_bad_checksum,
            rx_super_frames,
            rx_calls,
            rx_not_ours,
            tx_frames,
            tx_bytes,
            tx_super_frames,
            tx_rejected,
            tx_oversize,
            tx_ring_full,
            tx_segments_lost,
            tx_kicks,
            tx_segmented,
            line_errors,
            line_tossed,
            line_losses,
            impaired_dropped,
            impaired_duplicated,
            impaired_corrupted,
            impaired_reordered,
            impaired_segmented,
            capture_lost,
        } = *self;
        [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("rx_ring_full", rx_ring_full),
            ("rx_freezes", rx_freezes),
            ("rx_oversize", rx_oversize),
            ("rx_truncated", rx_truncated),
            ("rx_malformed", rx_malformed),
            ("rx_tagged", rx_tagged),
            ("rx_unsegmented", rx_unsegmented),
            ("rx_checksum_filled", rx_checksum_filled),
            ("rx_bad_checksum", rx_bad_checksum),
            ("rx_super_frames", rx_super_frames),
            ("rx_calls", rx_calls),
            ("rx_not_ours", rx_not_ours),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_super_frames", tx_super_frames),
            ("tx_rejected", tx_rejected),
            ("tx_oversize", tx_oversize),
            ("tx_ring_full", tx_ring_full),
            ("tx_segments_lost", tx_segments_lost),
            ("tx_kicks", tx_kicks),
            ("tx_segmented", tx_segmented),
            ("line_errors", line_errors),
            ("line_tossed", line_tossed),
            ("line_losses", line_losses),
            ("impaired_dropped", impaired_dropped),
            ("impaired_duplicated", impaired_duplicated),
            ("impaired_corrupted", impaired_corrupted),
            ("impaired_reordered", impaired_reordered),
            ("impaired_segmented", impaired_segmented),
            ("capture_lost", capture_lost),
        ]
        .into_iter()
    }
}

/// The sum, counter by counter: of two halves of a device, or of several devices.
impl std::ops::Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rx_frames: self.rx_frames + other.rx_frames,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_ring_full: self.rx_ring_full + other.rx_ring_full,
            rx_freezes: self.rx_freezes + other.rx_freezes,
            rx_oversize: self.rx_oversize + other.rx_oversize,
            rx_truncated: self.rx_truncated + other.rx_truncated,
            rx_malformed: self.rx_malformed + other.rx_malformed,
            rx_tagged: self.rx_tagged + other.rx_tagged,
            rx_unsegmented: self.rx_unsegmented + other.rx_unsegmented,
            rx_checksum_filled: self.rx_checksum_filled + other.rx_checksum_filled,
            rx_bad_checksum: self.rx_bad_checksum + other.rx_bad_checksum,
            rx_super_frames: self.rx_super_frames + other.rx_super_frames,
            rx_calls: self.rx_calls + other.rx_calls,
            rx_not_ours: self.rx_not_ours + other.rx_not_ours,
            tx_frames: self.tx_frames + other.tx_frames,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            tx_super_frames: self.tx_super_frames + other.tx_super_frames,
            tx_rejected: self.tx_rejected + other.tx_rejected,
            tx_oversize: self.tx_oversize + other.tx_oversize,
            tx_ring_full: self.tx_ring_full + other.tx_ring_full,
            tx_segments_lost: self.tx_segments_lost + other.tx_segments_lost,
            tx_kicks: self.tx_kicks + other.tx_kicks,
            tx_segmented: self.tx_segmented + other.tx_segmented,
            line_errors: self.line_errors + other.line_errors,
            line_tossed: self.line_tossed + other.line_tossed,
            line_losses: self.line_losses + other.line_losses,
            impaired_dropped: self.impaired_dropped + other.impaired_dropped,
            impaired_duplicated: self.impaired_duplicated + other.impaired_duplicated,
            impaired_corrupted: self.impaired_corrupted + other.impaired_corrupted,
            impaired_reordered: self.impaired_reordered + other.impaired_reordered,
            impaired_segmented: self.impaired_segmented + other.impaired_segmented,
            capture_lost: self.capture_lost + other.capture_lost,
        }
    }
}

/// `name=value` of every counter that is not zero, on one line.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in self.named().filter(|&(_, value)| value != 0) {
            write!(f, "{separator}{name}={value}")?;
            separator = " ";
        }
        Ok(())
    }
}
