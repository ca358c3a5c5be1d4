//! Checksums of TCP and UDP: filled in, verified, or left out for a device to fill in.

use super::layout::{IpVersion, Layout, Transport};
use super::sum;
use crate::meta::ChecksumState;

/// What [`verify`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The checksum is right, or a datagram of UDP over IPv4 has none (RFC 768).
    Right,
    /// It is not.
    Wrong,
    /// There is none to be looked at here: other protocols, fragments, malformed headers.
    Unknown,
}

/// Computes the checksum of a TCP segment or UDP datagram in an Ethernet frame, and writes it.
///
/// Says whether it did: other protocols, fragments, and frames that are cut short or malformed stay as
/// they are, for the stack to judge. Extension headers of IPv6 are followed, eight at most.
pub fn fill_checksum(frame: &mut [u8]) -> bool {
    Layout::of_frame(frame).is_some_and(|layout| fill(frame, &layout))
}

/// The same for a frame of which the headers are known.
pub fn fill(frame: &mut [u8], layout: &Layout) -> bool {
    if !has_checksum(frame, layout) {
        return false;
    }
    let field = layout.transport + layout.protocol.checksum_offset();
    frame[field..field + 2].fill(0);
    let Some(sum) = transport_sum(frame, layout) else { return false };
    frame[field..field + 2].copy_from_slice(&stored(!sum, layout.protocol).to_be_bytes());
    true
}

/// Leaves the checksum to a device: writes the sum of the pseudo header in its place, and tells where it is.
/// `None`: nothing that a device could fill in; the frame stays as it is.
pub fn leave_out(frame: &mut [u8], layout: &Layout) -> Option<ChecksumState> {
    if !has_checksum(frame, layout) {
        return None;
    }
    // Padding would be summed as well.
    if layout.end != frame.len() {
        return None;
    }
    let start = u16::try_from(layout.transport).ok()?;
    let sum = pseudo_header_sum(frame, layout)?;
    let offset = layout.protocol.checksum_offset();
    let field = layout.transport + offset;
    frame.get_mut(field..field + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(ChecksumState::Partial { start, offset: offset as u16 })
}

/// Whether the checksum of a frame, of which nobody tells, looks as if it was left out: the field holds
/// the sum of the pseudo header, or 0 where that does not mean that there is none.
///
/// One right checksum in 2^16 looks the same. To [`fill`] that one in changes nothing.
pub fn seems_left_out(frame: &[u8], layout: &Layout) -> bool {
    let field = super::layout::half(frame, layout.transport + layout.protocol.checksum_offset());
    match field {
        Some(0) => layout.protocol == Transport::Tcp || layout.version == IpVersion::V6,
        field => field.is_some() && field == pseudo_header_sum(frame, layout),
    }
}

/// Fills in a checksum that was left out, as a device does: from `start` to the end of the frame, with
/// what is in the field. Says whether the field lies within the frame.
pub fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    if field + 2 > frame.len() {
        return false;
    }
    let sum = !sum::data(&frame[start..]);
    // Which protocol it is tells the place of its checksum.
    let is_udp = usize::from(offset) == Transport::Udp.checksum_offset();
    let sum = stored(sum, if is_udp { Transport::Udp } else { Transport::Tcp });
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Whether the checksum of a received frame is right.
pub fn verify(frame: &[u8], layout: &Layout) -> Verdict {
    if !has_checksum(frame, layout) {
        return Verdict::Unknown;
    }
    let field = layout.transport + layout.protocol.checksum_offset();
    let is_absent = frame.get(field..field + 2) == Some(&[0, 0]);
    if is_absent && layout.protocol == Transport::Udp && layout.version == IpVersion::V4 {
        return Verdict::Right;
    }
    match transport_sum(frame, layout) {
        Some(0xffff) => Verdict::Right,
        Some(_) => Verdict::Wrong,
        None => Verdict::Unknown,
    }
}

/// Whether the checksum covers exactly what the IP header says is there.
pub(super) fn has_checksum(frame: &[u8], layout: &Layout) -> bool {
    match layout.protocol {
        Transport::Tcp => true,
        Transport::Udp => {
            let len = super::layout::half(frame, layout.transport + 4).map_or(0, usize::from);
            // 0 stands for a length that does not fit (RFC 2675), in a frame that is still to be split.
            len == layout.end - layout.transport || len == 0
        }
    }
}

/// What a checksum field holds for a sum: 0 says of UDP that there is none (RFC 768).
pub(super) fn stored(sum: u16, protocol: Transport) -> u16 {
    if sum == 0 && protocol == Transport::Udp { 0xffff } else { sum }
}

/// Sum of pseudo header, header and payload, as it is; all ones if the field in it is right.
fn transport_sum(frame: &[u8], layout: &Layout) -> Option<u16> {
    let covered = frame.get(layout.transport..layout.end)?;
    Some(sum::combine(&[pseudo_header_sum(frame, layout)?, sum::data(covered)]))
}

fn pseudo_header_sum(frame: &[u8], layout: &Layout) -> Option<u16> {
    let len = u32::try_from(layout.end - layout.transport).ok()?;
    Some(sum::combine(&[addresses_sum(frame, layout)?, (len >> 16) as u16, len as u16]))
}

/// Sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) but the length.
pub(super) fn addresses_sum(frame: &[u8], layout: &Layout) -> Option<u16> {
    let (first, len) = match layout.version {
        IpVersion::V4 => (layout.network + 12, 8),
        IpVersion::V6 => (layout.network + 8, 32),
    };
    let addresses = frame.get(first..first + len)?;
    Some(sum::combine(&[sum::data(addresses), layout.protocol.number().into()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Address, Ipv4Packet,
        Ipv4Repr, Ipv6Address, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
        UdpRepr,
    };

    const V4: [Ipv4Address; 2] = [Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 2)];
    const V6: [Ipv6Address; 2] =
        [Ipv6Address::new(0xfd, 0, 0, 0, 0, 0, 0, 1), Ipv6Address::new(0xfd, 0, 0, 0, 0, 0, 0, 2)];

    fn ethernet(ethertype: EthernetProtocol, packet_len: usize) -> Vec<u8> {
        let repr = EthernetRepr {
            src_addr: EthernetAddress([2, 0, 0, 0, 0, 1]),
            dst_addr: EthernetAddress([2, 0, 0, 0, 0, 2]),
            ethertype,
        };
        let mut frame = vec![0; 14 + packet_len];
        repr.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
        frame
    }

    fn tcp(payload: &[u8]) -> TcpRepr<'_> {
        TcpRepr {
            src_port: 1025,
            dst_port: 80,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(0x1234_5678),
            ack_number: Some(TcpSeqNumber(77)),
            window_len: 512,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        }
    }

    /// A TCP segment over IPv4 whose checksum field holds what a kernel leaves there: not the checksum.
    fn tcp_over_ipv4(payload: &[u8]) -> Vec<u8> {
        let segment = tcp(payload);
        let ip = Ipv4Repr {
            src_addr: V4[0],
            dst_addr: V4[1],
            next_header: IpProtocol::Tcp,
            payload_len: segment.buffer_len(),
            hop_limit: 64,
        };
        let mut frame = ethernet(EthernetProtocol::Ipv4, ip.buffer_len() + segment.buffer_len());
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &ChecksumCapabilities::default());
        let mut packet = TcpPacket::new_unchecked(&mut frame[34..]);
        segment.emit(&mut packet, &V4[0].into(), &V4[1].into(), &ChecksumCapabilities::ignored());
        packet.set_checksum(0xbeef);
        frame
    }

    #[test]
    fn tcp_over_ipv4_verifies_afterwards() {
        for len in [0, 1, 2, 1447, 1448, 65_000] {
            let payload: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let mut frame = tcp_over_ipv4(&payload);
            let verify = |frame: &[u8]| {
                TcpPacket::new_unchecked(&frame[34..]).verify_checksum(&V4[0].into(), &V4[1].into())
            };
            assert!(!verify(&frame));
            assert!(fill_checksum(&mut frame));
            assert!(verify(&frame), "payload of {len} bytes");
        }
    }

    #[test]
    fn udp_over_ipv6_behind_extension_headers_verifies_afterwards() {
        let payload = b"datagram";
        let udp = UdpRepr { src_port: 7, dst_port: 9 };
        let udp_len = udp.header_len() + payload.len();
        let ip = Ipv6Repr {
            src_addr: V6[0],
            dst_addr: V6[1],
            next_header: IpProtocol::HopByHop,
            payload_len: 8 + 16 + udp_len,
            hop_limit: 64,
        };
        let mut frame = ethernet(EthernetProtocol::Ipv6, 40 + ip.payload_len);
        ip.emit(&mut Ipv6Packet::new_unchecked(&mut frame[14..]));
        frame[54..62].copy_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]); // hop-by-hop: PadN
        frame[62..78].copy_from_slice(&[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination
        let mut datagram = UdpPacket::new_unchecked(&mut frame[78..]);
        udp.emit(
            &mut datagram,
            &V6[0].into(),
            &V6[1].into(),
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::ignored(),
        );
        datagram.set_checksum(0x0bad);
        assert!(fill_checksum(&mut frame));
        let datagram = UdpPacket::new_unchecked(&frame[78..]);
        assert_ne!(datagram.checksum(), 0x0bad);
        assert!(datagram.verify_checksum(&V6[0].into(), &V6[1].into()));
    }

    #[test]
    fn fragments_and_cut_frames_stay_as_they_are() {
        let whole = tcp_over_ipv4(b"some payload");
        let mut fragment = whole.clone();
        fragment[20] = 0x20; // more fragments
        let mut short = whole[..whole.len() - 1].to_vec();
        let mut arp = whole.clone();
        arp[12..14].copy_from_slice(&[8, 6]);
        for frame in [&mut fragment, &mut short, &mut arp] {
            let before = frame.clone();
            assert!(!fill_checksum(frame));
            assert_eq!(*frame, before);
        }
    }

    #[test]
    fn padding_and_other_protocols_cannot_be_left_out() {
        let mut padded = tcp_over_ipv4(b"x");
        let layout = Layout::of_frame(&padded).expect("TCP");
        padded.push(0);
        let before = padded.clone();
        assert_eq!(leave_out(&mut padded, &layout), None);
        assert_eq!(padded, before);
        assert!(fill(&mut padded, &layout));
        assert_eq!(verify(&padded, &layout), Verdict::Right);
    }

    #[test]
    fn a_field_beyond_the_frame_is_refused() {
        let mut frame = tcp_over_ipv4(b"data");
        let before = frame.clone();
        let len = frame.len() as u16;
        for (start, offset) in [(len - 1, 0), (0, len - 1), (u16::MAX, u16::MAX), (len, 0)] {
            assert!(!complete(&mut frame, start, offset));
        }
        assert_eq!(frame, before);
        assert!(complete(&mut frame, len - 2, 0));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(
            mut frame in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            kind in 0..3usize,
        ) {
            if let Some(ethertype) = frame.get_mut(12..14) {
                ethertype.copy_from_slice(&[[8, 0], [0x86, 0xdd], [0, 0]][kind]);
            }
            let len = frame.len();
            fill_checksum(&mut frame);
            assert_eq!(frame.len(), len);
        }

        #[test]
        fn left_out_and_completed_is_filled_in(
            kind in 0..4usize,
            payload in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let mut frame = segment_or_datagram(kind, &payload);
            let layout = Layout::of_frame(&frame).expect("whole");
            let mut filled = frame.clone();
            prop_assert!(fill(&mut filled, &layout));
            prop_assert_eq!(verify(&filled, &layout), Verdict::Right);
            let Some(ChecksumState::Partial { start, offset }) = leave_out(&mut frame, &layout) else {
                panic!("left out")
            };
            prop_assert!(seems_left_out(&frame, &layout));
            prop_assert!(complete(&mut frame, start, offset));
            let field = usize::from(start + offset);
            if filled[field..field + 2] == [0, 0] {
                // Of TCP; the kernel and we write the other zero here.
                prop_assert_eq!(&frame[field..field + 2], &[0xff, 0xff]);
                frame[field..field + 2].fill(0);
            }
            prop_assert_eq!(frame, filled);
        }

        #[test]
        fn a_flipped_bit_is_found(
            kind in 0..4usize,
            payload in proptest::collection::vec(proptest::num::u8::ANY, 1..300),
            at in proptest::num::usize::ANY,
            bit in 0..8u32,
        ) {
            let mut frame = segment_or_datagram(kind, &payload);
            let layout = Layout::of_frame(&frame).expect("whole");
            fill(&mut frame, &layout);
            // In the payload: a flip in a header may make it no segment at all, or one without a checksum.
            let at = layout.payload + at % (layout.end - layout.payload);
            frame[at] ^= 1 << bit;
            prop_assert_eq!(verify(&frame, &layout), Verdict::Wrong);
        }
    }

    /// TCP or UDP over either version of IP.
    fn segment_or_datagram(kind: usize, payload: &[u8]) -> Vec<u8> {
        let (is_tcp, is_v6) = (kind.is_multiple_of(2), kind >= 2);
        let mut transport = if is_tcp {
            [&[4, 1, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 2, 0, 0xbe, 0xef, 0, 0][..], payload].concat()
        } else {
            [&[4, 1, 0, 53, 0, 0, 0xbe, 0xef][..], payload].concat()
        };
        if !is_tcp {
            transport[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        }
        let number = if is_tcp { 6 } else { 17 };
        let len = transport.len() as u16;
        let ip = if is_v6 {
            [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[number, 64], &V6[0].octets(), &V6[1].octets()]
                .concat()
        } else {
            let [high, low] = (20 + len).to_be_bytes();
            [&[0x45, 0, high, low, 0, 1, 0x40, 0, 64, number, 0, 0][..], &V4[0].octets(), &V4[1].octets()]
                .concat()
        };
        let ethertype = if is_v6 { EthernetProtocol::Ipv6 } else { EthernetProtocol::Ipv4 };
        let mut frame = ethernet(ethertype, 0);
        frame.extend(ip);
        frame.extend(transport);
        frame
    }
}
