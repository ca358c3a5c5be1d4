//! `struct virtio_net_hdr`: how the kernel and a user of PACKET_VNET_HDR or IFF_VNET_HDR tell each other
//! of absent checksums and frames to be split.
//!
//! ```text
//!   0 flags   1 gso_type   2 hdr_len   4 gso_size   6 csum_start   8 csum_offset   10 the frame
//! ```
//!
//! Numbers are in the machine's own order (virtio 1.2 section 5.1.6, legacy interface). The kernel's side
//! is include/linux/virtio_net.h.

use std::num::NonZeroU16;

use super::Layout;
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind};

/// Bytes of the header.
pub const VIRTIO_NET_HDR_LEN: usize = 10;

/// What is wrong with a header that somebody else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VirtioError {
    /// The header itself is not whole.
    #[error("the virtio_net_hdr is cut short")]
    Short,
    /// The checksum would lie outside of the frame.
    #[error("the checksum at {start} + {offset} lies outside of the frame of {frame_len} bytes")]
    Checksum {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Bytes of the frame.
        frame_len: usize,
    },
    /// A kind of splitting that nobody asked for.
    #[error("unknown gso_type {0:#x}")]
    Kind(u8),
    /// Segments of no size.
    #[error("a frame to be split into segments of 0 bytes")]
    Size,
}

/// The header for a frame that is about to be sent, whose headers lie as `layout` says.
///
/// `None` as layout: no TCP or UDP, so there is nothing to leave to the device.
pub fn encode(meta: &FrameMeta, layout: Option<&Layout>) -> [u8; VIRTIO_NET_HDR_LEN] {
    let mut header = [0; VIRTIO_NET_HDR_LEN];
    let mut put = |offset: usize, value: u16| {
        header[offset..offset + 2].copy_from_slice(&value.to_ne_bytes());
    };
    if let ChecksumState::Partial { start, offset } = meta.checksum {
        put(CSUM_START, start);
        put(CSUM_OFFSET, offset);
    }
    if let Some(gso) = meta.gso {
        // The kernel copies this much into the linear part of its buffer: all headers.
        put(HDR_LEN, layout.map_or(0, |layout| u16::try_from(layout.payload).unwrap_or(0)));
        put(GSO_SIZE, gso.size.get());
        let kind = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        header[GSO_TYPE] = if gso.ecn { kind | GSO_ECN } else { kind };
    }
    if matches!(meta.checksum, ChecksumState::Partial { .. }) {
        header[FLAGS] = NEEDS_CSUM;
    }
    header
}

/// What the header of a received frame of `frame_len` bytes says, as a [`FrameMeta`] without the rest.
///
/// # Errors
/// The header cannot be true of this frame.
pub fn decode(header: &[u8], frame_len: usize) -> Result<FrameMeta, VirtioError> {
    let header: &[u8; VIRTIO_NET_HDR_LEN] = header
        .get(..VIRTIO_NET_HDR_LEN)
        .and_then(|header| header.try_into().ok())
        .ok_or(VirtioError::Short)?;
    let half = |offset: usize| u16::from_ne_bytes([header[offset], header[offset + 1]]);
    let checksum = if header[FLAGS] & NEEDS_CSUM != 0 {
        let (start, offset) = (half(CSUM_START), half(CSUM_OFFSET));
        if usize::from(start) + usize::from(offset) + 2 > frame_len {
            return Err(VirtioError::Checksum { start, offset, frame_len });
        }
        ChecksumState::Partial { start, offset }
    } else if header[FLAGS] & DATA_VALID != 0 {
        ChecksumState::Verified
    } else {
        ChecksumState::Complete
    };
    let kind = match header[GSO_TYPE] & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 => Some(GsoKind::TcpV4),
        GSO_TCPV6 => Some(GsoKind::TcpV6),
        GSO_UDP_L4 => Some(GsoKind::Udp),
        other => return Err(VirtioError::Kind(other)),
    };
    let gso = match kind {
        None => None,
        Some(kind) => {
            let size = NonZeroU16::new(half(GSO_SIZE)).ok_or(VirtioError::Size)?;
            Some(Gso { kind, size, ecn: header[GSO_TYPE] & GSO_ECN != 0 })
        }
    };
    Ok(FrameMeta { checksum, gso, ..FrameMeta::default() })
}

const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const HDR_LEN: usize = 2;
const GSO_SIZE: usize = 4;
const CSUM_START: usize = 6;
const CSUM_OFFSET: usize = 8;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> impl Strategy<Value = FrameMeta> {
        let kind = prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::Udp)];
        let gso = (kind, 1..u16::MAX, any::<bool>()).prop_map(|(kind, size, ecn)| Gso {
            kind,
            size: NonZeroU16::new(size).expect("from 1"),
            ecn,
        });
        let checksum = prop_oneof![
            Just(ChecksumState::Complete),
            (0..200u16, 0..20u16).prop_map(|(start, offset)| ChecksumState::Partial { start, offset }),
        ];
        (checksum, proptest::option::of(gso)).prop_map(|(checksum, gso)| FrameMeta {
            checksum,
            gso,
            ..FrameMeta::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(meta in meta()) {
            prop_assert_eq!(decode(&encode(&meta, None), 1514), Ok(meta));
        }

        #[test]
        fn any_header_is_survived(header in proptest::collection::vec(any::<u8>(), 0..12), len in 0..3000usize) {
            if let Ok(FrameMeta { checksum: ChecksumState::Partial { start, offset }, .. }) = decode(&header, len) {
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            }
        }
    }

    #[test]
    fn lies_are_named() {
        let mut header = [0; VIRTIO_NET_HDR_LEN];
        assert_eq!(decode(&header[..9], 60), Err(VirtioError::Short));
        header[GSO_TYPE] = GSO_TCPV4;
        assert_eq!(decode(&header, 60), Err(VirtioError::Size));
        header[GSO_TYPE] = 3;
        assert_eq!(decode(&header, 60), Err(VirtioError::Kind(3)));
        header = [0; VIRTIO_NET_HDR_LEN];
        header[FLAGS] = NEEDS_CSUM;
        header[CSUM_START..][..2].copy_from_slice(&50u16.to_ne_bytes());
        header[CSUM_OFFSET..][..2].copy_from_slice(&16u16.to_ne_bytes());
        assert!(decode(&header, 67).is_err() && decode(&header, 68).is_ok());
    }
}
