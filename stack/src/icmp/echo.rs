//! The answer to an echo request (RFC 1122 section 3.2.2.6, RFC 4443 section 4.2): the same message with
//! another type, copied once, from the frame that came into the frame that goes.

use std::net::IpAddr;

use wirestack_nic::offload::sum;

use super::error::fill_checksum;
use crate::egress::PacketSpec;
use crate::ingress::IpPacket;
use crate::observe::DropReason;

/// An answer that is still to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What its packet looks like. `src` is `None` if the request was for a group: then an address is to
    /// be chosen, and no group.
    pub spec: PacketSpec,
    request: &'a [u8],
    request_dst: IpAddr,
}

/// The answer to an echo request in a frame.
///
/// A request to a group or broadcast address over IPv4 is answered only if `answer_broadcast` is set;
/// `was_broadcast` says whether the packet was for a broadcast address of a prefix of ours, or the frame
/// for more than this host. Over IPv6, requests to groups are answered.
///
/// The answer has the DSCP of the request, as that of Linux, so that both ways are treated alike. Its
/// ECN bits are 0: what is sent here heeds no marks (RFC 3168 section 5).
///
/// # Errors
/// [`DropReason::IcmpEchoIgnored`], [`DropReason::IcmpMalformed`]: there is none.
pub fn reply<'a>(
    frame: &'a [u8],
    ip: &IpPacket,
    was_broadcast: bool,
    answer_broadcast: bool,
) -> Result<Reply<'a>, DropReason> {
    let request = frame.get(ip.transport..ip.end).ok_or(DropReason::IcmpMalformed)?;
    if request.len() < super::message::HEADER_LEN || ip.src.is_ipv4() != ip.dst.is_ipv4() {
        return Err(DropReason::IcmpMalformed);
    }
    let is_v4 = ip.src.is_ipv4();
    let is_broadcast = ip.dst == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) || (is_v4 && was_broadcast);
    let is_to_many = ip.dst.is_multicast() || is_broadcast;
    //= rfc1122#3.2.2.6
    //# An ICMP Echo Request destined to an IP broadcast or IP
    //# multicast address MAY be silently discarded.
    if is_v4 && is_to_many && !answer_broadcast {
        return Err(DropReason::IcmpEchoIgnored);
    }
    if ip.src.is_unspecified() || ip.src.is_multicast() {
        return Err(DropReason::IcmpEchoIgnored);
    }
    //= rfc4443#4.2
    //# The source address of an Echo Reply sent in response to a unicast
    //# Echo Request message MUST be the same as the destination address of
    //# that Echo Request message.
    let src = (!is_to_many).then_some(ip.dst);
    let spec = PacketSpec {
        src,
        traffic_class: ip.traffic_class & !3,
        ..PacketSpec::new(ip.src, super::protocol_for(ip.src))
    };
    Ok(Reply { spec, request, request_dst: ip.dst })
}

impl Reply<'_> {
    /// Bytes of the message, its header included.
    pub fn message_bytes(&self) -> usize {
        self.request.len()
    }

    /// Writes the message, which goes out from `src`; the checksum is filled in. `room` has
    /// [`message_bytes`](Self::message_bytes); if it has not, nothing is written.
    pub fn write(&self, src: IpAddr, room: &mut [u8]) {
        if room.len() != self.request.len() {
            return;
        }
        room.copy_from_slice(self.request);
        let [icmp_type, code, high, low, ..] = room else { return };
        let before = u16::from_be_bytes([*icmp_type, *code]);
        let now: u16 = if src.is_ipv4() { 0 } else { 129 << 8 };
        [*icmp_type, *code] = now.to_be_bytes();
        if src == self.request_dst {
            // Only the type is another one, so is the checksum (RFC 1624 section 3): the pseudo header has
            // the same addresses the other way round. A wrong checksum stays wrong, and tells the asker.
            let checksum = !sum::combine(&[!u16::from_be_bytes([*high, *low]), !before, now]);
            [*high, *low] = checksum.to_be_bytes();
        } else {
            fill_checksum(room, Some(src), self.spec.dst);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::icmp::error::tests::{echo_request, packet};

    proptest! {
        #[test]
        fn it_is_the_request_with_another_type(
            is_v6 in any::<bool>(),
            other_source in any::<bool>(),
            data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (frame, ip) = packet(is_v6, &echo_request(is_v6, &data));
            let reply = reply(&frame, &ip, false, false).expect("due");
            let src = match (other_source, is_v6) {
                (false, _) => ip.dst,
                (true, false) => "10.9.9.9".parse().expect("an address"),
                (true, true) => "fd09::9".parse().expect("an address"),
            };
            let mut room = vec![0; reply.message_bytes()];
            reply.write(src, &mut room);
            let pseudo = if is_v6 { pseudo_sum(src, ip.src, room.len()) } else { 0 };
            prop_assert_eq!(sum::combine(&[pseudo, sum::data(&room)]), 0xffff);
            let expected = if is_v6 { 129 } else { 0 };
            prop_assert_eq!((room[0], room[1], &room[8..]), (expected, 0, &data[..]));
            prop_assert_eq!(&room[4..8], &frame[ip.transport + 4..ip.transport + 8]);
            prop_assert_eq!((reply.spec.src, reply.spec.dst), (Some(ip.dst), ip.src));
        }
    }

    fn pseudo_sum(src: IpAddr, dst: IpAddr, len: usize) -> u16 {
        crate::udp::header::pseudo_header_sum(src, dst, 58, len)
    }

    #[test]
    fn groups_are_answered_over_ipv6_only() {
        for (is_v6, dst, was_broadcast, answer_broadcast, expected) in [
            (false, "10.0.0.2", false, false, Ok(Some("10.0.0.2"))),
            (false, "224.0.0.1", false, false, Err(DropReason::IcmpEchoIgnored)),
            (false, "224.0.0.1", false, true, Ok(None)),
            (false, "255.255.255.255", false, false, Err(DropReason::IcmpEchoIgnored)),
            (false, "10.0.0.255", true, false, Err(DropReason::IcmpEchoIgnored)),
            (false, "10.0.0.255", true, true, Ok(None)),
            (true, "fd00::2", false, false, Ok(Some("fd00::2"))),
            (true, "ff02::1", true, false, Ok(None)),
        ] {
            let (frame, mut ip) = packet(is_v6, &echo_request(is_v6, b"x"));
            ip.dst = dst.parse().expect("an address");
            ip.traffic_class = 0xbb;
            let found = reply(&frame, &ip, was_broadcast, answer_broadcast).map(|reply| reply.spec);
            let expected = expected.map(|src: Option<&str>| src.map(|src| src.parse().expect("an address")));
            assert_eq!(found.map(|spec| spec.src), expected, "{dst}");
            assert!(found.map_or(true, |spec| spec.traffic_class == 0xb8));
        }
    }

    #[test]
    fn who_is_no_host_is_not_answered() {
        for (is_v6, src, is_answered) in [
            (false, "10.0.0.1", true),
            (false, "0.0.0.0", false),
            (false, "224.0.0.1", false),
            (true, "fd00::1", true),
            (true, "::", false),
            (true, "ff02::1", false),
        ] {
            let (frame, mut ip) = packet(is_v6, &echo_request(is_v6, b"x"));
            ip.src = src.parse().expect("an address");
            let found = reply(&frame, &ip, false, false);
            assert_eq!(found.err(), (!is_answered).then_some(DropReason::IcmpEchoIgnored), "{src}");
        }
    }
}
