//! What the kernel left undone in a frame, done in software.
//!
//! A sender on the same host (a veth pair, a bridge, a container) leaves the TCP or UDP checksum to a
//! device that is not there: the frame arrives with the sum of its pseudo header only, and the ring
//! says TP_STATUS_CSUMNOTREADY. Such a checksum is absent, not wrong. Filled in here, the frame is as
//! it would be on a real wire, for every device around this one: a capture shows it right, and a stack
//! that verifies it finds damage that happened after this point.

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet, TcpPacket, UdpPacket,
    checksum,
};

/// Computes the checksum of a TCP segment or UDP datagram in an Ethernet frame, and writes it.
///
/// Says whether it did: other protocols, fragments, and frames that are cut short or malformed stay as
/// they are, for the stack to judge. Extension headers of IPv6 are followed, eight at most.
pub fn fill_checksum(frame: &mut [u8]) -> bool {
    let Ok(mut ethernet) = EthernetFrame::new_checked(frame) else { return false };
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => fill_ipv4(ethernet.payload_mut()).is_some(),
        EthernetProtocol::Ipv6 => fill_ipv6(ethernet.payload_mut()).is_some(),
        _ => false,
    }
}

/// Whether an Ethernet frame carries UDP right behind its IP header. (With extension headers nobody has a
/// device split it.)
pub(crate) fn is_udp(frame: &[u8]) -> bool {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return false };
    let protocol = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            Ipv4Packet::new_checked(ethernet.payload()).map(|packet| packet.next_header())
        }
        EthernetProtocol::Ipv6 => {
            Ipv6Packet::new_checked(ethernet.payload()).map(|packet| packet.next_header())
        }
        _ => return false,
    };
    protocol == Ok(IpProtocol::Udp)
}

fn fill_ipv4(packet: &mut [u8]) -> Option<()> {
    let mut packet = Ipv4Packet::new_checked(packet).ok()?;
    if packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let (src, dst, protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
    let payload = packet.payload_mut();
    let len = u32::try_from(payload.len()).ok()?;
    fill_transport(payload, protocol, checksum::pseudo_header_v4(&src, &dst, protocol, len))
}

fn fill_ipv6(packet: &mut [u8]) -> Option<()> {
    let mut packet = Ipv6Packet::new_checked(packet).ok()?;
    let (src, dst, mut protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
    let mut payload = packet.payload_mut();
    for _ in 0..IPV6_EXTENSIONS_MAX {
        let (IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts) = protocol else { break };
        let header = Ipv6ExtHeader::new_checked(&payload[..]).ok()?;
        protocol = header.next_header();
        // Units of 8 octets, not counting the first 8: RFC 8200 section 4.
        let len = 8 * (usize::from(header.header_len()) + 1);
        payload = payload.get_mut(len..)?;
    }
    let len = u32::try_from(payload.len()).ok()?;
    fill_transport(payload, protocol, checksum::pseudo_header_v6(&src, &dst, protocol, len))
}

fn fill_transport(payload: &mut [u8], protocol: IpProtocol, pseudo_header: u16) -> Option<()> {
    match protocol {
        IpProtocol::Tcp => {
            let mut segment = TcpPacket::new_checked(payload).ok()?;
            segment.set_checksum(0);
            let sum = checksum::combine(&[pseudo_header, checksum::data(segment.as_ref())]);
            segment.set_checksum(!sum);
        }
        IpProtocol::Udp => {
            let mut datagram = UdpPacket::new_checked(payload).ok()?;
            if usize::from(datagram.len()) != datagram.as_ref().len() {
                return None;
            }
            datagram.set_checksum(0);
            let sum = checksum::combine(&[pseudo_header, checksum::data(datagram.as_ref())]);
            // A sum of zero is sent as all ones, since zero says that there is none: RFC 768.
            datagram.set_checksum(if sum == 0xffff { 0xffff } else { !sum });
        }
        _ => return None,
    }
    Some(())
}

/// Bound of the walk through extension headers; real packets have one or two.
const IPV6_EXTENSIONS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        EthernetAddress, EthernetRepr, Ipv4Address, Ipv4Repr, Ipv6Address, Ipv6Repr, TcpControl, TcpRepr,
        TcpSeqNumber, UdpRepr,
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
    }
}
