//! What a device counts.

use std::fmt;

macro_rules! counters {
    ($(#[$of_all:meta])* pub struct $Counters:ident { $($(#[$doc:meta])* pub $name:ident: u64,)* }) => {
        $(#[$of_all])*
        pub struct $Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $Counters {
            /// Adds those of another device.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Name and value of every counter, in the order of the fields.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
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
        /// Bytes read from the port of a serial line.
        pub line_rx_bytes: u64,
        /// Bytes handed to it.
        pub line_tx_bytes: u64,
        /// Of `line_rx_bytes`, those in frames that were no packets.
        pub line_garbage_bytes: u64,
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
}

/// The sum, counter by counter: of two halves of a device, or of several devices.
impl std::ops::Add for Counters {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        Counters::add(&mut self, &other);
        self
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
