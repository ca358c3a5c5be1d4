//! What is known of a frame beside its bytes: the state of its checksum, how it is to be split or was
//! merged, when it came.
//!
//! A sender that leaves work to a device, and a device that has done work for a receiver, both say so
//! here. smoltcp's [`PacketMeta`](smoltcp::phy::PacketMeta) has room for the size of segments only; the
//! rest goes through [`Nic::receive_with`](crate::Nic::receive_with) and
//! [`Nic::transmit_with`](crate::Nic::transmit_with).

use std::num::{NonZeroU16, NonZeroUsize};

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
    /// Bytes of payload of each segment but the last, which may be shorter.
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
