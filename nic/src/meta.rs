//! What is known of a frame beside its bytes: the state of its checksum, how it is to be split or was
//! merged, when it came.
//!
//! A sender that leaves work to a device, and a device that has done work for a receiver, both say so
//! here. smoltcp's [`PacketMeta`] has room for the size of segments only; the
//! rest goes through [`Nic::receive_with`](crate::Nic::receive_with) and
//! [`Nic::transmit_with`](crate::Nic::transmit_with).

use std::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{Medium, PacketMeta};

use crate::offload::layout::{IpVersion, Layout, Transport};

/// What is known of a frame. The default says nothing: the frame is as it is on a wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameMeta {
    /// State of the TCP or UDP checksum.
    pub checksum: ChecksumState,
    /// Set if the frame is longer than the wire carries: several segments in one, received merged or to
    /// be split when sent. Goes with [`ChecksumState::Partial`] when sent.
    pub gso: Option<Gso>,
    /// When it was received.
    pub timestamp: Option<Timestamp>,
    /// The flow hash of the kernel or the card, if the device was asked for it.
    pub rx_hash: Option<u32>,
    /// Whether it is one that this host sent on the interface; only of devices that were asked for these.
    pub outgoing: bool,
}

impl FrameMeta {
    /// Whether the bytes can go to a wire as they are.
    pub fn is_plain(&self) -> bool {
        self.gso.is_none() && !matches!(self.checksum, ChecksumState::Partial { .. })
    }

    /// The same of a frame with `len` bytes more in front: a link header was put before a packet.
    #[must_use]
    pub fn in_front(&self, len: u16) -> Self {
        self.shifted(|start| start.saturating_add(len))
    }

    /// The same of a frame with `len` bytes less in front: the link header was taken from a packet.
    #[must_use]
    pub fn behind(&self, len: u16) -> Self {
        self.shifted(|start| start.saturating_sub(len))
    }

    fn shifted(&self, shift: impl FnOnce(u16) -> u16) -> Self {
        let checksum = match self.checksum {
            ChecksumState::Partial { start, offset } => {
                ChecksumState::Partial { start: shift(start), offset }
            }
            other => other,
        };
        Self { checksum, ..*self }
    }

    /// What a user of smoltcp's tokens says of a frame. The kind of its segments is found in the frame.
    pub fn from_smoltcp(meta: PacketMeta, medium: Medium, frame: &[u8]) -> Self {
        let gso = meta.segmentation_offload_size.map(|size| {
            let layout = Layout::on(medium, frame).map(|layout| (layout.protocol, layout.version));
            let kind = match layout {
                Some((Transport::Udp, _)) => GsoKind::Udp,
                Some((Transport::Tcp, IpVersion::V6)) => GsoKind::TcpV6,
                // What is neither cannot be split, whatever it is called.
                Some((Transport::Tcp, IpVersion::V4)) | None => GsoKind::TcpV4,
            };
            Gso { kind, size, ecn: false }
        });
        Self { gso, ..Self::default() }
    }

    /// What of this a user of smoltcp's tokens is told: the size of segments.
    pub fn to_smoltcp(&self) -> PacketMeta {
        let mut meta = PacketMeta::default();
        meta.segmentation_offload_size = self.gso.map(|gso| gso.size);
        meta
    }
}

/// State of a TCP or UDP checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChecksumState {
    /// Received: nobody has verified it. To be sent: it is filled in.
    #[default]
    Complete,
    /// Received: somebody has verified it.
    Verified,
    /// Absent: the field holds the sum of the pseudo header, folded and not inverted. Whoever takes the
    /// frame off the host sums from `start` to the end of the frame and stores the result's complement at
    /// `start + offset`. Received, it needs no verification: the frame has not been on a wire.
    Partial {
        /// Bytes from the start of the frame to the transport header.
        start: u16,
        /// Bytes from there to the checksum field: 16 for TCP, 6 for UDP.
        offset: u16,
    },
}

/// How a frame is to be split, or was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// What its segments are.
    pub kind: GsoKind,
    /// Bytes of payload of each segment but the last, which may be shorter. Where a device tells only that a
    /// frame was merged, this is what fills a frame of the MTU.
    pub size: NonZeroU16,
    /// Of TCP: only the first segment has the CWR flag (RFC 3168 section 6.1.2).
    pub ecn: bool,
}

/// What a frame with several segments is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either: each segment is a datagram of its own (UDP_SEGMENT of udp(7)).
    Udp,
}

/// A time of reception on the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Nanoseconds since 1 January 1970, UTC; for [`TimestampSource::Hardware`] on the clock of the card.
    pub nanos: u64,
    /// Who took it.
    pub source: TimestampSource,
}

/// Who took a [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampSource {
    /// The card.
    Hardware,
    /// The kernel, when the driver handed it the frame.
    Software,
    /// The kernel, when it put the frame into the ring.
    Ring,
}

/// What a device takes over from whoever sends through it, and how long frames are that it receives.
///
/// All devices accept any [`FrameMeta`] in [`Nic::transmit_with`](crate::Nic::transmit_with): what they
/// cannot hand on they do in software, at the sender's cost. This tells which work is handed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffloadCapabilities {
    /// Whether absent checksums are left to what comes after the device.
    pub checksum_tx: bool,
    /// Whether received frames come with their checksum verified, or absent: a frame that fails was
    /// dropped and counted by the device.
    pub checksum_rx: bool,
    /// Bytes of the longest frame that is split later, link header included, for TCP over IPv4. `None`:
    /// frames up to the MTU only.
    pub gso_tcpv4: Option<NonZeroUsize>,
    /// The same for TCP over IPv6.
    pub gso_tcpv6: Option<NonZeroUsize>,
    /// The same for UDP.
    pub gso_udp: Option<NonZeroUsize>,
}

impl OffloadCapabilities {
    /// Whether all that `meta` leaves to be done to a frame of `len` bytes is handed on. If not, it is to
    /// be done in software.
    pub fn takes(&self, meta: &FrameMeta, len: usize) -> bool {
        let takes_checksum = self.checksum_tx || !matches!(meta.checksum, ChecksumState::Partial { .. });
        let takes_gso = meta.gso.is_none_or(|gso| self.gso(gso.kind).is_some_and(|max| len <= max.get()));
        takes_checksum && takes_gso
    }

    /// Bytes of the longest frame of this kind that is split later.
    pub fn gso(&self, kind: GsoKind) -> Option<NonZeroUsize> {
        match kind {
            GsoKind::TcpV4 => self.gso_tcpv4,
            GsoKind::TcpV6 => self.gso_tcpv6,
            GsoKind::Udp => self.gso_udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_offered_is_not_taken() {
        let partial = ChecksumState::Partial { start: 34, offset: 16 };
        let size = NonZeroU16::new(1448).expect("not 0");
        let gso = Some(Gso { kind: GsoKind::TcpV6, size, ecn: false });
        let [plain, checksum] =
            [ChecksumState::Complete, partial].map(|checksum| FrameMeta { checksum, ..FrameMeta::default() });
        let all = FrameMeta { checksum: partial, gso, ..plain };
        let none = OffloadCapabilities::default();
        assert_eq!([plain, checksum, all].map(|meta| none.takes(&meta, 60)), [true, false, false]);
        let some = OffloadCapabilities { checksum_tx: true, gso_tcpv4: NonZeroUsize::new(9999), ..none };
        assert_eq!([plain, checksum, all].map(|meta| some.takes(&meta, 60)), [true, true, false]);
        let more = OffloadCapabilities { gso_tcpv6: NonZeroUsize::new(9000), ..some };
        assert_eq!([9000, 9001].map(|len| more.takes(&all, len)), [true, false]);
        assert!(!OffloadCapabilities { checksum_tx: false, ..more }.takes(&all, 60));
    }
}
