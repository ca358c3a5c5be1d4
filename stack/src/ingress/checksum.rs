//! Whether the checksum of a packet's upper layer is right.

use std::net::IpAddr;

use wirestack_nic::meta::{ChecksumState, FrameMeta};
use wirestack_nic::offload::sum;

use super::packet::IpPacket;
use crate::observe::DropReason;

/// Verifies the checksum of TCP, UDP, ICMP and ICMPv6 in a packet that `classify` found in `frame`.
///
/// Of TCP and UDP it is not looked at where `meta` says that somebody has verified it (a device that does
/// so for all frames says so of each), or that it is absent. Of ICMP it is always looked at: a device that
/// says [`ChecksumState::Verified`] speaks of TCP and UDP.
///
/// Other protocols have none that is known here, nor has a fragment: that is for the whole.
///
/// # Errors
///
/// `TcpChecksum`, `UdpChecksum`, `IcmpChecksum` if it is wrong; `TcpMalformed`, `UdpMalformed`,
/// `IcmpMalformed` if the header has no room for it, or if the length of a UDP datagram cannot be.
pub fn verify_transport(frame: &[u8], packet: &IpPacket, meta: &FrameMeta) -> Result<(), DropReason> {
    if packet.fragment.is_some() || packet.problem.is_some() {
        return Ok(());
    }
    let payload = frame.get(packet.transport..packet.end).unwrap_or_default();
    match (packet.protocol, packet.src) {
        (TCP, _) => verify_tcp(payload, packet, meta),
        (UDP, _) => verify_udp(payload, packet, meta),
        (ICMP, IpAddr::V4(_)) => verify_icmp(payload, 0),
        (ICMPV6, IpAddr::V6(_)) => verify_icmp(payload, pseudo_header_sum(packet, payload.len())),
        _ => Ok(()),
    }
}

fn verify_tcp(segment: &[u8], packet: &IpPacket, meta: &FrameMeta) -> Result<(), DropReason> {
    if segment.len() < TCP_LEN_MIN {
        return Err(DropReason::TcpMalformed);
    }
    //= rfc9293#3.1
    //# The TCP checksum is never optional. The sender MUST generate it (MUST-2) and the receiver MUST check it
    //# (MUST-3).
    if meta.checksum != ChecksumState::Complete || is_right(segment, packet) {
        return Ok(());
    }
    Err(DropReason::TcpChecksum)
}

fn verify_udp(payload: &[u8], packet: &IpPacket, meta: &FrameMeta) -> Result<(), DropReason> {
    let [_, _, _, _, l0, l1, checksum @ ..] = payload.first_chunk::<8>().ok_or(DropReason::UdpMalformed)?;
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    // What follows the datagram in its packet is not covered.
    let datagram = payload.get(..len).filter(|datagram| datagram.len() >= UDP_LEN_MIN);
    let datagram = datagram.ok_or(DropReason::UdpMalformed)?;
    if matches!(meta.checksum, ChecksumState::Partial { .. }) {
        return Ok(());
    }
    if *checksum == [0, 0] {
        return match packet.src {
            // It has none (RFC 768).
            IpAddr::V4(_) => Ok(()),
            //= rfc8200#8.1
            //# IPv6 receivers must discard UDP packets containing a zero checksum and should log the error.
            IpAddr::V6(_) => Err(DropReason::UdpChecksum),
        };
    }
    //= rfc1122#4.1.3.4
    //# If a UDP datagram is received with a checksum that is non-zero and invalid, UDP MUST silently discard
    //# the datagram.
    if meta.checksum == ChecksumState::Verified || is_right(datagram, packet) {
        return Ok(());
    }
    Err(DropReason::UdpChecksum)
}

/// The sum of ICMP begins with 0, that of ICMPv6 with its pseudo header (RFC 4443 section 2.3).
fn verify_icmp(message: &[u8], pseudo_header: u16) -> Result<(), DropReason> {
    if message.len() < ICMP_LEN_MIN {
        return Err(DropReason::IcmpMalformed);
    }
    if sum::combine(&[pseudo_header, sum::data(message)]) != ALL_ONES {
        return Err(DropReason::IcmpChecksum);
    }
    Ok(())
}

fn is_right(covered: &[u8], packet: &IpPacket) -> bool {
    sum::combine(&[pseudo_header_sum(packet, covered.len()), sum::data(covered)]) == ALL_ONES
}

/// Of addresses, protocol and length (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo_header_sum(packet: &IpPacket, len: usize) -> u16 {
    let of = |ip: IpAddr| match ip {
        IpAddr::V4(address) => sum::data(&address.octets()),
        IpAddr::V6(address) => sum::data(&address.octets()),
    };
    // A packet has less than 64 KB.
    sum::combine(&[of(packet.src), of(packet.dst), packet.protocol.into(), len as u16])
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const TCP_LEN_MIN: usize = 20;
const UDP_LEN_MIN: usize = 8;
/// Type, code and checksum.
const ICMP_LEN_MIN: usize = 4;

/// The sum of what contains its own checksum.
const ALL_ONES: u16 = 0xffff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::phy::Medium;
    use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv4Packet, TcpPacket, UdpPacket};
    use wirestack_nic::offload::checksum::{self, Verdict};
    use wirestack_nic::offload::layout::Layout;

    use super::*;
    use crate::ingress::{Body, classify};

    /// A packet with this payload, without a right checksum in it.
    fn packet(is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u16;
        if is_v6 {
            let [l0, l1] = len.to_be_bytes();
            return [&[0x60, 0, 0, 0, l0, l1, protocol, 64][..], &[0xfd; 32], payload].concat();
        }
        let [l0, l1] = (len + 20).to_be_bytes();
        let head = [0x45, 0, l0, l1, 0, 7, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut packet = [&head[..], payload].concat();
        Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        packet
    }

    fn look(packet: &[u8]) -> IpPacket {
        match classify(Medium::Ip, packet).expect("a packet").body {
            Body::Ip(packet) => packet,
            Body::Arp(_) => panic!("no link"),
        }
    }

    /// The same with the checksum that smoltcp finds.
    fn filled(is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = packet(is_v6, protocol, payload);
        let IpPacket { src, dst, transport, .. } = look(&packet);
        let payload = &mut packet[transport..];
        match (protocol, src, dst) {
            (TCP, ..) => TcpPacket::new_unchecked(payload).fill_checksum(&src.into(), &dst.into()),
            (UDP, ..) => UdpPacket::new_unchecked(payload).fill_checksum(&src.into(), &dst.into()),
            (ICMPV6, IpAddr::V6(src), IpAddr::V6(dst)) => {
                Icmpv6Packet::new_unchecked(payload).fill_checksum(&src, &dst);
            }
            _ => Icmpv4Packet::new_unchecked(payload).fill_checksum(),
        }
        packet
    }

    fn verified(packet: &[u8], checksum: ChecksumState) -> Result<(), &'static str> {
        let meta = FrameMeta { checksum, ..FrameMeta::default() };
        verify_transport(packet, &look(packet), &meta).map_err(DropReason::name)
    }

    const PARTIAL: ChecksumState = ChecksumState::Partial { start: 20, offset: 16 };

    #[test]
    fn right_and_wrong_checksums() {
        let tcp = [&[4, 1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0][..], b"odd"].concat();
        let udp = [&[4, 1, 0, 80, 0, 11, 0, 0][..], b"odd"].concat();
        let echo = [&[8, 0, 0, 0, 0, 1, 0, 1][..], b"odd"].concat();
        let echo6 = [&[128, 0, 0, 0, 0, 1, 0, 1][..], b"odd"].concat();
        for (is_v6, protocol, payload, reason, is_skipped) in [
            (false, TCP, &tcp, "tcp_checksum", true),
            (true, TCP, &tcp, "tcp_checksum", true),
            (false, UDP, &udp, "udp_checksum", true),
            (true, UDP, &udp, "udp_checksum", true),
            (false, ICMP, &echo, "icmp_checksum", false),
            (true, ICMPV6, &echo6, "icmp_checksum", false),
        ] {
            let right = filled(is_v6, protocol, payload);
            let mut wrong = right.clone();
            *wrong.last_mut().expect("not empty") ^= 1;
            let padded = [&right[..], b"padding"].concat();
            assert_eq!(verified(&right, ChecksumState::Complete), Ok(()), "{protocol} {is_v6}");
            assert_eq!(verified(&padded, ChecksumState::Complete), Ok(()), "{protocol} {is_v6}");
            assert_eq!(verified(&wrong, ChecksumState::Complete), Err(reason), "{protocol} {is_v6}");
            let skipped = if is_skipped { Ok(()) } else { Err(reason) };
            for state in [ChecksumState::Verified, PARTIAL] {
                assert_eq!(verified(&wrong, state), skipped, "{protocol} {is_v6} {state:?}");
            }
        }
    }

    #[test]
    fn what_has_no_checksum() {
        let none = [4, 1, 0, 80, 0, 8, 0, 0];
        assert_eq!(verified(&packet(false, UDP, &none), ChecksumState::Complete), Ok(()));
        for state in [ChecksumState::Complete, ChecksumState::Verified] {
            assert_eq!(verified(&packet(true, UDP, &none), state), Err("udp_checksum"));
        }
        assert_eq!(verified(&packet(true, UDP, &none), PARTIAL), Ok(()));
        // Other protocols, and ICMP in the wrong family.
        for (is_v6, protocol) in [(false, 2), (false, ICMPV6), (true, ICMP), (true, 59), (false, 132)] {
            assert_eq!(verified(&packet(is_v6, protocol, &[1; 30]), ChecksumState::Complete), Ok(()));
        }
    }

    #[test]
    fn what_is_too_short() {
        let udp = |len: u8| vec![4, 1, 0, 80, 0, len, 0, 0, 0];
        for (protocol, payload, expected) in [
            (TCP, vec![0; 19], Err("tcp_malformed")),
            (UDP, vec![0; 7], Err("udp_malformed")),
            (UDP, udp(0), Err("udp_malformed")),
            (UDP, udp(7), Err("udp_malformed")),
            (UDP, udp(8), Ok(())),
            (UDP, udp(9), Ok(())),
            (UDP, udp(10), Err("udp_malformed")),
            (ICMP, vec![0; 3], Err("icmp_malformed")),
            (ICMP, vec![8, 0, 0xf7, 0xff], Ok(())),
        ] {
            for state in [ChecksumState::Complete, ChecksumState::Verified] {
                assert_eq!(verified(&packet(false, protocol, &payload), state), expected, "{payload:?}");
            }
        }
    }

    #[test]
    fn a_fragment_is_not_verified() {
        let mut fragment = packet(false, UDP, &[1; 16]);
        fragment[6] = 0x20;
        Ipv4Packet::new_unchecked(&mut fragment[..]).fill_checksum();
        assert_eq!(verified(&fragment, ChecksumState::Complete), Ok(()));
    }

    proptest! {
        /// The devices verify the same.
        #[test]
        fn it_is_the_verdict_of_a_device(
            is_v6: bool,
            is_tcp: bool,
            fills: bool,
            payload in proptest::collection::vec(any::<u8>(), 20..200),
        ) {
            let mut payload = payload;
            let protocol = if is_tcp { TCP } else { UDP };
            if is_tcp {
                payload[12] = 0x50;
            } else {
                payload[5] = payload.len() as u8;
                payload[4] = 0;
            }
            let packet = if fills { filled(is_v6, protocol, &payload) } else { packet(is_v6, protocol, &payload) };
            let layout = Layout::of_packet(&packet).expect("it is whole");
            let is_right = match checksum::verify(&packet, &layout) {
                Verdict::Right => true,
                Verdict::Wrong => false,
                Verdict::Unknown => panic!("the lengths are right"),
            };
            prop_assert_eq!(verified(&packet, ChecksumState::Complete).is_ok(), is_right);
            prop_assert!(is_right || !fills);
        }
    }

    /// The datagram is shorter than what its packet carries: only its own length counts.
    #[test]
    fn what_follows_a_datagram_is_not_covered() {
        let udp = [&[4, 1, 0, 80, 0, 11, 0, 0][..], b"odd"].concat();
        for is_v6 in [false, true] {
            let right = filled(is_v6, UDP, &udp);
            let datagram = &right[look(&right).transport..];
            let longer = packet(is_v6, UDP, &[datagram, b"behind"].concat());
            assert_eq!(verified(&longer, ChecksumState::Complete), Ok(()), "{is_v6}");
        }
    }
}
