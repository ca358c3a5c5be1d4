//! A segment: what its header says, and its payload.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{BitOr, BitOrAssign};

use super::options::Options;
use super::seq::Seq;
use crate::observe::DropReason;
use crate::udp::header::pseudo_header_sum;

#[cfg(test)]
mod tests;

/// Control bits (RFC 9293 section 3.1; ECE and CWR: RFC 3168).
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No bit.
    pub const NONE: Self = Self(0);
    /// No more data.
    pub const FIN: Self = Self(1);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(2);
    /// Reset the connection.
    pub const RST: Self = Self(4);
    /// Push.
    pub const PSH: Self = Self(8);
    /// The acknowledgment number means something.
    pub const ACK: Self = Self(16);
    /// The urgent pointer means something.
    pub const URG: Self = Self(32);
    /// ECN-Echo.
    pub const ECE: Self = Self(64);
    /// Congestion Window Reduced.
    pub const CWR: Self = Self(128);

    /// Whether all bits of `other` are set.
    #[inline]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Without the bits of `other`.
    #[inline]
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// With the bits of `other`, if `is_set`.
    #[inline]
    #[must_use]
    pub fn with_if(self, other: Self, is_set: bool) -> Self {
        if is_set { self | other } else { self }
    }
}

impl BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = ["F", "S", "R", "P", "A", "U", "E", "C"];
        let set = letters.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        set.map(|(_, letter)| *letter).try_for_each(|letter| f.write_str(letter))
    }
}

/// What the two ECN bits of an IP header say (RFC 3168 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Ecn {
    /// The sender cannot.
    #[default]
    NotCapable = 0,
    /// ECN-capable transport.
    Ect1 = 1,
    /// The same.
    Ect0 = 2,
    /// A router was about to drop it.
    CongestionExperienced = 3,
}

impl Ecn {
    /// Of a traffic class.
    #[inline]
    pub fn of(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::NotCapable,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::CongestionExperienced,
        }
    }
}

/// A segment that has come, or several that the device has merged into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Of the sender.
    pub src_port: u16,
    /// Ours.
    pub dst_port: u16,
    /// SEG.SEQ: the number of the first byte, or of the SYN.
    pub seq: Seq,
    /// SEG.ACK, if [`Flags::ACK`] is set.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as it is on the wire: not scaled.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// Data.
    pub payload: &'a [u8],
    /// If it is several segments in one: bytes of payload of each but the last.
    pub segment_bytes: Option<NonZeroU16>,
    /// What routers have said of the way.
    pub ecn: Ecn,
}

impl Segment<'_> {
    /// SEG.LEN: bytes of data, and one each for SYN and FIN.
    #[inline]
    pub fn len(&self) -> u32 {
        let controls = u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN));
        self.payload.len() as u32 + controls
    }

    /// Whether it takes no sequence number.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number behind its last one.
    #[inline]
    pub fn end(&self) -> Seq {
        self.seq + self.len()
    }
}

/// The header of a segment that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Ours.
    pub src_port: u16,
    /// Of the receiver.
    pub dst_port: u16,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK; 0 where [`Flags::ACK`] is not set.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as it is on the wire.
    pub window: u16,
    /// Options. SACK blocks that find no room beside the others are left out.
    pub options: Options,
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
pub const HEADER_LEN_MAX: usize = 60;
/// Bytes from the start of the header to the checksum.
pub const CHECKSUM_OFFSET: u16 = 16;
/// Number of the protocol.
pub const PROTOCOL: u8 = 6;

impl<'a> Segment<'a> {
    /// Reads a segment: what follows an IP header. The checksum is not looked at.
    ///
    /// Options that are malformed or unknown are passed over (RFC 9293 section 3.1, MUST-7); reading ends at one
    /// whose length leads nowhere.
    ///
    /// # Errors
    /// [`DropReason::TcpMalformed`]: it is shorter than it says.
    #[inline]
    pub fn parse(transport: &'a [u8]) -> Result<Self, DropReason> {
        let (fixed, _) = transport.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::TcpMalformed)?;
        // The checksum and the urgent pointer are not read, nor is the lower half of the byte with the offset:
        //= rfc9293#3.1
        //# Must be zero in generated segments and must be ignored in received segments if the
        //# corresponding future features are not implemented by the sending or receiving host.
        let [p, q, r, s, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *fixed;
        let header_len = usize::from(offset >> 4) * 4;
        let (header, payload) = transport.split_at_checked(header_len).ok_or(DropReason::TcpMalformed)?;
        // Nothing is there if the offset is less than the fixed part has.
        let options = header.get(HEADER_LEN..).ok_or(DropReason::TcpMalformed)?;
        let flags = Flags(flags);
        Ok(Self {
            src_port: u16::from_be_bytes([p, q]),
            dst_port: u16::from_be_bytes([r, s]),
            seq: Seq(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: Seq(u32::from_be_bytes([a0, a1, a2, a3])),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            options: Options::parse(options, flags.has(Flags::SYN)),
            payload,
            segment_bytes: None,
            ecn: Ecn::default(),
        })
    }
}

impl Header {
    /// Bytes of the header with its options: a multiple of 4, up to 60.
    #[inline]
    pub fn len(&self) -> usize {
        HEADER_LEN + self.options.bytes(self.flags.has(Flags::SYN))
    }

    /// Never: a header has 20 bytes at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the header into `room`, which has [`len`](Self::len) bytes. The checksum is partial
    /// ([`ChecksumState::Partial`](wirestack_nic::meta::ChecksumState::Partial)): that of the pseudo header, for
    /// `payload_len` bytes of data that follow. A frame that a device is to split is summed up as one.
    ///
    /// What goes beyond a shorter room is not written.
    pub fn write(&self, src: IpAddr, dst: IpAddr, payload_len: usize, room: &mut [u8]) {
        let len = self.len();
        let Some((fixed, options)) = room.split_first_chunk_mut::<HEADER_LEN>() else { return };
        let [p, q] = self.src_port.to_be_bytes();
        let [r, s] = self.dst_port.to_be_bytes();
        let [s0, s1, s2, s3] = self.seq.0.to_be_bytes();
        let [a0, a1, a2, a3] = self.ack.0.to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        let [c0, c1] = pseudo_header_sum(src, dst, PROTOCOL, len + payload_len).to_be_bytes();
        // In words of 32 bits, so in the upper half of the byte.
        let offset = (len as u8 / 4) << 4;
        *fixed = [p, q, r, s, s0, s1, s2, s3, a0, a1, a2, a3, offset, self.flags.0, w0, w1, c0, c1, 0, 0];
        self.options.write(self.flags.has(Flags::SYN), options);
    }
}
