//! Packets to be sent whose IPv4 header the application writes (IP_HDRINCL of raw(7)).
//!
//! | field | what the stack does |
//! |---|---|
//! | version, header length | checks them |
//! | total length, checksum | fills them in, always |
//! | source | fills it in if it is 0.0.0.0 |
//! | identification | fills it in if it is 0 |
//! | all others, options too | sends them as they are |
//!
//! Such a packet is not fragmented: one that is longer than the MTU is refused. Over IPv6 nobody writes
//! the header: there a socket sets what its packets look like (RFC 3542 section 3).

use std::net::Ipv4Addr;

use wirestack_nic::offload::sum;

/// What the header says that an application wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderIncluded {
    /// The source; `None`: to be chosen.
    pub src: Option<Ipv4Addr>,
    /// Where it goes, and by which the route is found.
    pub dst: Ipv4Addr,
    /// Bytes of the header with its options.
    pub header_bytes: usize,
}

/// Why a packet with its header is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IncludedError {
    /// Shorter than 20 bytes, or than the header that it tells of.
    #[error("{bytes} bytes are shorter than an IPv4 header")]
    TooShort {
        /// Of the packet.
        bytes: usize,
    },
    /// Longer than a packet can be.
    #[error("{bytes} bytes are longer than a packet; at most 65535 are accepted")]
    TooLong {
        /// Of the packet.
        bytes: usize,
    },
    /// The version or the header length cannot be.
    #[error("first byte {first:#04x} does not begin an IPv4 header; 0x45 to 0x4f are accepted")]
    NotIpv4 {
        /// As written.
        first: u8,
    },
    /// The destination is 0.0.0.0.
    #[error("the destination is 0.0.0.0")]
    NoDestination,
}

impl From<IncludedError> for std::io::Error {
    fn from(error: IncludedError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

impl HeaderIncluded {
    /// Reads the header at the start of a packet.
    ///
    /// # Errors
    /// There is none that could be sent.
    pub fn read(packet: &[u8]) -> Result<Self, IncludedError> {
        let bytes = packet.len();
        let header: &[u8; 20] = packet.first_chunk().ok_or(IncludedError::TooShort { bytes })?;
        if bytes > 65_535 {
            return Err(IncludedError::TooLong { bytes });
        }
        let first = header[0];
        if !(0x45..=0x4f).contains(&first) {
            return Err(IncludedError::NotIpv4 { first });
        }
        let header_bytes = 4 * usize::from(first & 0xf);
        if bytes < header_bytes {
            return Err(IncludedError::TooShort { bytes });
        }
        let src = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        let dst = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        if dst.is_unspecified() {
            return Err(IncludedError::NoDestination);
        }
        Ok(Self { src: Some(src).filter(|src| !src.is_unspecified()), dst, header_bytes })
    }

    /// Fills in what the application left out, in the copy that is sent: `src` and `identification` only
    /// where it wrote none.
    pub fn complete(&self, packet: &mut [u8], src: Ipv4Addr, identification: u16) {
        let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        let Some(header) = packet.get_mut(..self.header_bytes) else { return };
        if header.len() < 20 {
            return;
        }
        header[2..4].copy_from_slice(&len.to_be_bytes());
        if header[4..6] == [0, 0] {
            header[4..6].copy_from_slice(&identification.to_be_bytes());
        }
        if self.src.is_none() {
            header[12..16].copy_from_slice(&src.octets());
        }
        header[10..12].fill(0);
        let checksum = !sum::data(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_filled_in_and_the_rest_stays() {
        let ours = Ipv4Addr::new(10, 0, 0, 9);
        let written = Ipv4Addr::new(10, 0, 0, 7);
        for (src, id) in [(None, 0u16), (Some(written), 0), (None, 77), (Some(written), 77)] {
            let mut packet =
                [&[0x46, 3, 9, 9, 0, 0, 0x40, 0, 5, 99, 9, 9][..], &[0; 4], &[10, 0, 0, 1]].concat();
            packet.extend([1, 1, 1, 0]);
            packet.extend(b"payload");
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[12..16].copy_from_slice(&src.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
            let before = packet.clone();
            let header = HeaderIncluded::read(&packet).expect("a header");
            assert_eq!(header, HeaderIncluded { src, dst: Ipv4Addr::new(10, 0, 0, 1), header_bytes: 24 });
            header.complete(&mut packet, ours, 1234);
            assert_eq!(packet[2..4], [0, 31]);
            assert_eq!(packet[4..6], if id == 0 { 1234 } else { id }.to_be_bytes());
            assert_eq!(packet[12..16], src.unwrap_or(ours).octets());
            assert_eq!(sum::data(&packet[..24]), 0xffff);
            assert_eq!((packet[1], packet[8], &packet[16..]), (3, 5, &before[16..]));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let with = |first: u8, len: usize| {
            let mut packet = vec![0; len];
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            HeaderIncluded::read(&packet).err()
        };
        assert_eq!(with(0x45, 19), Some(IncludedError::TooShort { bytes: 19 }));
        assert_eq!(with(0x46, 23), Some(IncludedError::TooShort { bytes: 23 }));
        assert_eq!(with(0x44, 40), Some(IncludedError::NotIpv4 { first: 0x44 }));
        assert_eq!(with(0x65, 40), Some(IncludedError::NotIpv4 { first: 0x65 }));
        assert_eq!(with(0x45, 65_536), Some(IncludedError::TooLong { bytes: 65_536 }));
        assert_eq!(with(0x45, 20), Some(IncludedError::NoDestination));
        assert_eq!(with(0x45, 65_535), Some(IncludedError::NoDestination), "the longest");
    }
}
