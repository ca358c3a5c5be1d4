//! ICMP messages and packets that might be answered with one.

use std::net::IpAddr;

use smoltcp::time::Instant;
use wirestack::icmp::{Answer, ErrorToSend, Limiter, LimiterConfig, Message, echo, error, error_for, parse};
use wirestack::ingress::IpPacket;
use wirestack::random::Random;

/// A byte of flags, one for what an error is to say, and an IP packet of either version: what is in it as
/// a message, the answer to it as an echo request, the error about it, and that error as a message.
///
/// No error is answered with an error, and what is sent is read back as what it is.
pub fn icmp(bytes: &[u8]) {
    let Some(([flags, kind], packet)) = bytes.split_first_chunk::<2>() else { return };
    let Some(ip) = packet_of(packet) else { return };
    let was_broadcast = flags & 1 != 0;
    let message = packet.get(ip.transport..ip.end).unwrap_or_default();
    if let Ok(Message::EchoRequest(request)) = parse(ip.src, ip.dst, message)
        && let Ok(reply) = echo::reply(packet, &ip, was_broadcast, flags & 2 != 0)
    {
        let mut room = vec![0; reply.message_bytes()];
        reply.write(ip.dst, &mut room);
        assert_eq!(parse(ip.dst, ip.src, &room), Ok(Message::EchoReply(request)));
    }
    let kind = kind_of(*kind);
    let mut limiter = Limiter::new(LimiterConfig::default(), Random::new((*flags).into()));
    limiter.allow(Answer::Error, ip.src, Instant::ZERO);
    let Some(sent) = error_for(packet, &ip, was_broadcast, kind, 1500) else { return };
    assert!(!is_error(&ip, message), "an error is answered with an error");
    assert!(sent.payload.len() <= error::ERROR_V6_BYTES_MAX - 40, "as long as the RFCs allow");
    match parse(ip.dst, ip.src, &sent.payload) {
        Ok(Message::Error(read)) => assert_eq!((read.quoted.src, read.quoted.dst), (ip.src, ip.dst)),
        other => panic!("{other:?} was sent as an error"),
    }
}

fn kind_of(byte: u8) -> ErrorToSend {
    let number = u32::from(byte / 9);
    match byte % 9 {
        0 => ErrorToSend::PortUnreachable,
        1 => ErrorToSend::ProtocolUnreachable,
        2 => ErrorToSend::HostUnreachable,
        3 => ErrorToSend::NetUnreachable,
        4 => ErrorToSend::Prohibited,
        5 => ErrorToSend::ReassemblyTimeExceeded,
        6 => ErrorToSend::HopLimitExceeded,
        7 => ErrorToSend::TooBig { mtu: number * 5000 },
        _ => ErrorToSend::ParameterProblem { code: byte % 3, pointer: number },
    }
}

/// What classifying says of a packet without options and extension headers, or nearly.
fn packet_of(packet: &[u8]) -> Option<IpPacket> {
    let octets = |at: usize, len: usize| packet.get(at..at + len);
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(octets(at, 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(octets(at, 16)?).ok()?));
    let (src, dst, transport, protocol) = match packet.first()? >> 4 {
        4 => (v4(12)?, v4(16)?, 4 * usize::from(packet.first()? & 0xf), *packet.get(9)?),
        6 => (v6(8)?, v6(24)?, 40, *packet.get(6)?),
        _ => return None,
    };
    Some(IpPacket {
        src,
        dst,
        start: 0,
        transport,
        end: packet.len(),
        protocol,
        hop_limit: 64,
        traffic_class: *packet.get(1)?,
        fragment: None,
        ports: None,
        dont_fragment: src.is_ipv6(),
        router_alert: false,
        problem: None,
    })
}

/// Whether a packet without extension headers carries an ICMP error or a redirect.
fn is_error(ip: &IpPacket, message: &[u8]) -> bool {
    match (ip.protocol, message.first(), ip.src.is_ipv4()) {
        (1, Some(icmp_type), true) => matches!(icmp_type, 3..=5 | 11 | 12),
        (58, Some(icmp_type), false) => *icmp_type < 128 || *icmp_type == 137,
        _ => false,
    }
}

/// An echo request, a datagram, and errors, of both versions.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let datagram = [0, 5, 0, 7, 0, 8, 0, 0];
    let (request, request_v6) = ([8, 0, 0, 0, 0, 1, 0, 2], [128, 0, 0, 0, 0, 1, 0, 2]);
    let v4 = |protocol: u8, payload: &[u8]| {
        let header = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&[0, 0], &header[..], payload].concat()
    };
    let v6 = |next: u8, payload: &[u8]| {
        let addresses = [[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
        [&[0, 0, 0x60, 0, 0, 0, 0, 8, next, 64], &addresses[..], payload].concat()
    };
    let error = |icmp_type: u8, quote: &[u8]| [&[icmp_type, 1, 0, 0, 0, 0, 5, 0], &quote[2..]].concat();
    vec![
        v4(1, &request),
        v4(17, &datagram),
        v4(1, &error(3, &v4(17, &datagram))),
        v6(58, &request_v6),
        v6(17, &datagram),
        v6(58, &error(1, &v6(17, &datagram))),
        v6(
            0,
            &[&[60, 0, 1, 4, 0, 0, 0, 0], &[58, 0, 1, 4, 0, 0, 0, 0], &error(2, &v6(17, &datagram))[..]]
                .concat(),
        ),
    ]
}
