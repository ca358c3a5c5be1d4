//! The header of a datagram (RFC 768): eight bytes, and the checksum over a pseudo header.

use std::net::IpAddr;

use wirestack_nic::offload::sum;

use crate::observe::DropReason;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Bytes from the start of the header to the checksum.
pub const CHECKSUM_OFFSET: usize = 6;
/// Bytes of payload that one datagram carries at most over IPv4, whose packets end at 65535.
pub const PAYLOAD_V4_MAX: usize = 65_535 - 20 - HEADER_LEN;
/// The same over IPv6, whose payloads end at 65535.
pub const PAYLOAD_V6_MAX: usize = 65_535 - HEADER_LEN;

/// What goes into the checksum field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The folded sum of the pseudo header, not inverted: whoever comes later sums the rest
    /// ([`ChecksumState::Partial`](wirestack_nic::meta::ChecksumState::Partial)).
    Partial,
    /// All of it; this is the sum of the payload, from [`sum::data`] or [`sum::copy`].
    Whole(u16),
}

/// Source and destination of a datagram: addresses of one family, and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// A datagram as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source port; 0 if no answer is expected.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Writes the header of a datagram with `payload_len` bytes of payload.
///
/// A run of datagrams to be split by a device is written as one. If it is longer than the length field
/// can say, that is 0, as for the longest packets of RFC 2675.
pub fn write(ends: Ends, payload_len: usize, checksum: Checksum, room: &mut [u8; HEADER_LEN]) {
    let len = HEADER_LEN + payload_len;
    let length_field = u16::try_from(len).unwrap_or(0);
    let [src, dst, length] = [ends.src_port, ends.dst_port, length_field].map(u16::to_be_bytes);
    room[..2].copy_from_slice(&src);
    room[2..4].copy_from_slice(&dst);
    room[4..6].copy_from_slice(&length);
    let pseudo = pseudo_header_sum(ends.src, ends.dst, super::PROTOCOL, len);
    let field = match checksum {
        Checksum::Partial => pseudo,
        Checksum::Whole(payload) => {
            stored(!sum::combine(&[pseudo, ends.src_port, ends.dst_port, length_field, payload]))
        }
    };
    room[CHECKSUM_OFFSET..].copy_from_slice(&field.to_be_bytes());
}

/// Writes a whole datagram, header, payload and checksum, in one pass over the payload. `room` has
/// [`HEADER_LEN`] bytes more than the payload; what goes beyond it is not written.
pub fn write_datagram(ends: Ends, payload: &[u8], room: &mut [u8]) {
    if let Some((header, body)) = room.split_first_chunk_mut() {
        let payload_sum = sum::copy(body, payload);
        write(ends, payload.len(), Checksum::Whole(payload_sum), header);
    }
}

/// Reads a datagram: from the first byte of its header to the end of the packet that carries it. The
/// checksum is looked at if `verify` is set, that is, if nobody else has.
///
/// # Errors
/// [`DropReason::UdpMalformed`]: shorter than a header, or than its length says. [`DropReason::UdpChecksum`]:
/// wrong, or absent over IPv6.
pub fn read(src: IpAddr, dst: IpAddr, bytes: &[u8], verify: bool) -> Result<Datagram<'_>, DropReason> {
    let (header, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::UdpMalformed)?;
    let [a, b, c, d, e, f, g, h] = *header;
    let length_field = usize::from(u16::from_be_bytes([e, f]));
    // 0: a merged run that is longer than the field can say.
    let len = if length_field == 0 && bytes.len() > 0xffff { bytes.len() } else { length_field };
    let payload = bytes.get(HEADER_LEN..len).ok_or(DropReason::UdpMalformed)?;
    let is_absent = [g, h] == [0, 0];
    //= rfc8200#8.1
    //# IPv6 receivers must discard UDP packets containing a zero checksum
    if verify && is_absent && src.is_ipv6() {
        return Err(DropReason::UdpChecksum);
    }
    if verify && !is_absent {
        let covered = bytes.get(..len).unwrap_or_default();
        let whole = [pseudo_header_sum(src, dst, super::PROTOCOL, len), sum::data(covered)];
        if sum::combine(&whole) != 0xffff {
            return Err(DropReason::UdpChecksum);
        }
    }
    let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ok(Datagram { src_port, dst_port, payload })
}

/// The sum of the pseudo header (RFC 768, RFC 8200 section 8.1), folded and not inverted. `len` is that
/// of header and payload. It serves ICMPv6 as well.
pub fn pseudo_header_sum(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u16 {
    // In words of 32 bits: carries return at the low end, so it is the same sum (RFC 1071 section 2).
    let words = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            (0..4).map(|word| u64::from((bits >> (32 * word)) as u32)).sum()
        }
    };
    let sum = words(src) + words(dst) + u64::from(protocol) + len as u64;
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// What the field holds for a checksum.
fn stored(checksum: u16) -> u16 {
    //= rfc1122#4.1.3.4
    //# If the transmitter really calculates a UDP checksum of zero, it must
    //# transmit the checksum as all 1's (65535).
    //= rfc8200#8.1
    //# if that computation yields a result of zero, it must be changed to hex
    //# FFFF for placement in the UDP header.
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{UdpPacket, UdpRepr};

    use super::*;

    fn ends(is_v6: bool, src_port: u16, dst_port: u16) -> Ends {
        let (src, dst) = if is_v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
        let [src, dst] = [src, dst].map(|text| text.parse().expect("an address"));
        Ends { src, dst, src_port, dst_port }
    }

    proptest! {
        #[test]
        fn it_is_the_datagram_of_smoltcp(
            is_v6 in any::<bool>(),
            ports in any::<(u16, u16)>(),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            // Its own reader takes no port 0.
            let ends = ends(is_v6, ports.0.max(1), ports.1.max(1));
            let mut ours = vec![0; HEADER_LEN + payload.len()];
            write_datagram(ends, &payload, &mut ours);
            let mut theirs = vec![0; ours.len()];
            UdpRepr { src_port: ends.src_port, dst_port: ends.dst_port }.emit(
                &mut UdpPacket::new_unchecked(&mut theirs[..]),
                &ends.src.into(),
                &ends.dst.into(),
                payload.len(),
                |room| room.copy_from_slice(&payload),
                &ChecksumCapabilities::default(),
            );
            prop_assert_eq!(&ours, &theirs);
            let read_back = read(ends.src, ends.dst, &ours, true).expect("right");
            prop_assert_eq!(read_back.payload, &payload[..]);
            prop_assert_eq!((read_back.src_port, read_back.dst_port), (ends.src_port, ends.dst_port));
        }

        #[test]
        fn a_partial_checksum_is_completed_to_the_whole(
            is_v6 in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let ends = ends(is_v6, 7, 9);
            let mut whole = vec![0; HEADER_LEN + payload.len()];
            write_datagram(ends, &payload, &mut whole);
            let mut partial = whole.clone();
            let (header, _) = partial.split_first_chunk_mut().expect("a header");
            write(ends, payload.len(), Checksum::Partial, header);
            prop_assert!(wirestack_nic::offload::checksum::complete(&mut partial, 0, CHECKSUM_OFFSET as u16));
            prop_assert_eq!(partial, whole);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40), verify in any::<bool>()) {
            let ends = ends(false, 0, 0);
            let _ = read(ends.src, ends.dst, &bytes, verify);
        }
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_ones() {
        let ends = ends(false, 1, 2);
        let mut room = [0; 10];
        write_datagram(ends, &[0, 0], &mut room);
        // A payload that is the checksum makes the sum all ones, and the checksum 0.
        let payload = [room[6], room[7]];
        write_datagram(ends, &payload, &mut room);
        assert_eq!(room[6..8], [0xff, 0xff]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut whole = [0; 12];
        write_datagram(ends(false, 1, 2), b"data", &mut whole);
        let with = |at: usize, value: u8| {
            let mut bytes = whole.to_vec();
            bytes[at] = value;
            bytes
        };
        let mut absent = whole.to_vec();
        absent[6..8].fill(0);
        for (is_v6, bytes, expected) in [
            (false, whole.to_vec(), Ok(4)),
            (false, [&whole[..], b"padding"].concat(), Ok(4)),
            (false, absent.clone(), Ok(4)),
            (true, absent, Err(DropReason::UdpChecksum)),
            (false, with(11, 0), Err(DropReason::UdpChecksum)),
            (false, with(5, 13), Err(DropReason::UdpMalformed)),
            (false, with(5, 7), Err(DropReason::UdpMalformed)),
            (false, with(5, 0), Err(DropReason::UdpMalformed)),
            (false, whole[..7].to_vec(), Err(DropReason::UdpMalformed)),
        ] {
            let ends = ends(is_v6, 1, 2);
            let found = read(ends.src, ends.dst, &bytes, true).map(|datagram| datagram.payload.len());
            assert_eq!(found, expected, "{bytes:?}");
        }
        let ends = ends(false, 1, 2);
        assert!(read(ends.src, ends.dst, &with(11, 0), false).is_ok(), "somebody else has verified it");
    }

    /// A super-datagram is longer than its length field can say (RFC 2675 section 4).
    #[test]
    fn a_length_that_does_not_fit_is_zero() {
        let mut header = [0xee; HEADER_LEN];
        for (payload_len, expected) in [(65_527, 65_535), (65_528, 0), (70_000, 0)] {
            write(ends(true, 7, 9), payload_len, Checksum::Partial, &mut header);
            assert_eq!(u16::from_be_bytes([header[4], header[5]]), expected, "{payload_len}");
        }
        let Ends { src, dst, .. } = ends(true, 7, 9);
        let of = |len| pseudo_header_sum(src, dst, super::super::PROTOCOL, len);
        // The length is 32 bits there: 65 536 is a one in the upper half.
        assert_eq!(of(0x1_0004), of(5));
        assert_ne!(of(0x1_0004), of(4));
    }
}
