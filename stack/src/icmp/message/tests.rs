use proptest::prelude::*;

use super::*;

fn ends(is_v6: bool) -> (IpAddr, IpAddr) {
    let (src, dst) = if is_v6 { ("fd00::9", "fd00::1") } else { ("10.0.0.9", "10.0.0.1") };
    (src.parse().expect("an address"), dst.parse().expect("an address"))
}

fn parse_for(is_v6: bool, message: &[u8]) -> Result<Message<'_>, DropReason> {
    let (src, dst) = ends(is_v6);
    parse(src, dst, message)
}

fn message(icmp_type: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
    [&[icmp_type, code, 0, 0][..], &rest.to_be_bytes(), body].concat()
}

fn quote_v4(options: &[u8], protocol: u8, fragment: u16, transport: &[u8]) -> Vec<u8> {
    let first = 0x45 + (options.len() / 4) as u8;
    let [high, low] = fragment.to_be_bytes();
    let header = [first, 0, 5, 220, 0, 1, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], options, transport].concat()
}

fn quote_v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 5, 0, next, 64];
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(rest);
    packet
}

fn quoted_of(is_v6: bool, quote: &[u8]) -> Option<Quoted> {
    let icmp_type = if is_v6 { 1 } else { 3 };
    match parse_for(is_v6, &message(icmp_type, 0, 0, quote)) {
        Ok(Message::Error(error)) => Some(error.quoted),
        Err(DropReason::IcmpMalformed) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_error_has_its_kind() {
    use ErrorKind as Kind;
    let (v4, v6) = (quote_v4(b"", 17, 0, &[0; 8]), quote_v6(17, &[0; 8]));
    for (is_v6, icmp_type, code, rest, expected) in [
        (false, 3, 0, 0, Kind::NetUnreachable),
        (false, 3, 1, 0, Kind::HostUnreachable),
        (false, 3, 2, 0, Kind::ProtocolUnreachable),
        (false, 3, 3, 0, Kind::PortUnreachable),
        (false, 3, 4, 0x1234_0578, Kind::TooBig { mtu: 1400 }),
        (false, 3, 4, 0, Kind::TooBig { mtu: 0 }),
        (false, 3, 5, 0, Kind::SourceRouteFailed),
        (false, 3, 6, 0, Kind::NetUnknown),
        (false, 3, 7, 0, Kind::HostUnknown),
        (false, 3, 13, 0, Kind::Prohibited),
        (false, 3, 99, 0, Kind::Unreachable { code: 99 }),
        (false, 11, 0, 0, Kind::TimeExceeded),
        (false, 11, 1, 0, Kind::ReassemblyTimeExceeded),
        (false, 12, 1, 0x1400_0000, Kind::ParameterProblem { code: 1, pointer: 20 }),
        (true, 1, 0, 0, Kind::NetUnreachable),
        (true, 1, 1, 0, Kind::Prohibited),
        (true, 1, 2, 0, Kind::HostUnreachable),
        (true, 1, 3, 0, Kind::HostUnreachable),
        (true, 1, 4, 0, Kind::PortUnreachable),
        (true, 1, 5, 0, Kind::Prohibited),
        (true, 1, 6, 0, Kind::Prohibited),
        (true, 2, 0, 1280, Kind::TooBig { mtu: 1280 }),
        (true, 2, 0, u32::MAX, Kind::TooBig { mtu: u32::MAX }),
        (true, 3, 0, 0, Kind::TimeExceeded),
        (true, 3, 1, 0, Kind::ReassemblyTimeExceeded),
        (true, 4, 2, 300, Kind::ParameterProblem { code: 2, pointer: 300 }),
        (true, 100, 3, 0, Kind::Unreachable { code: 3 }),
    ] {
        let bytes = message(icmp_type, code, rest, if is_v6 { &v6 } else { &v4 });
        let Ok(Message::Error(error)) = parse_for(is_v6, &bytes) else { panic!("{icmp_type}/{code}") };
        assert_eq!(error.kind, expected, "{icmp_type}/{code}");
    }
}

#[test]
fn other_messages_are_told_apart() {
    let echo = Echo { identifier: 0x0102, sequence: 0x0304, data: &b"data"[..] };
    for (is_v6, icmp_type, expected) in [
        (false, 0, Message::EchoReply(echo)),
        (false, 8, Message::EchoRequest(echo)),
        (false, 4, Message::Ignored(4)),
        (false, 5, Message::Redirect),
        (false, 13, Message::Ignored(13)),
        (false, 14, Message::Ignored(14)),
        (false, 128, Message::Unknown(128)),
        (true, 128, Message::EchoRequest(echo)),
        (true, 129, Message::EchoReply(echo)),
        (true, 130, Message::Mld(130)),
        (true, 143, Message::Mld(143)),
        (true, 133, Message::Ndp(133)),
        (true, 134, Message::Ndp(134)),
        (true, 137, Message::Ndp(137)),
        (true, 200, Message::Unknown(200)),
    ] {
        let bytes = message(icmp_type, 0, 0x0102_0304, b"data");
        assert_eq!(parse_for(is_v6, &bytes), Ok(expected), "{icmp_type}");
        for len in 0..HEADER_LEN {
            assert_eq!(parse_for(is_v6, &bytes[..len]), Err(DropReason::IcmpMalformed));
        }
    }
}

#[test]
fn a_quote_says_which_packet_it_was() {
    let tcp = [0x04, 0x00, 0x00, 0x50, 1, 2, 3, 4];
    let request = [8, 0, 0, 0, 0, 5, 0, 6];
    let request_v6 = [128, 0, 0, 0, 0, 5, 0, 6];
    let reply = [0, 0, 0, 0, 0, 5, 0, 6];
    let (hop, fragment, later) =
        ([6, 0, 1, 4, 0, 0, 0, 0], [6, 0, 0, 1, 0, 0, 0, 9], [6, 0, 0, 9, 0, 0, 0, 9]);
    let with = |header: &[u8], rest: &[u8]| [header, rest].concat();
    // The quote; protocol, ports, echo, sequence number of TCP, offset, and where the transport begins.
    type Expected = (u8, Option<(u16, u16)>, Option<(u16, u16)>, Option<u32>, usize, usize);
    let ports = Some((1024, 80));
    let table: [(bool, Vec<u8>, Option<Expected>); 18] = [
        (false, quote_v4(b"", 6, 0, &tcp), Some((6, ports, None, Some(0x0102_0304), 0, 28))),
        (false, quote_v4(b"", 17, 0, &tcp), Some((17, ports, None, None, 0, 28))),
        (false, quote_v4(&[1; 8], 17, 0x2000, &tcp), Some((17, ports, None, None, 0, 36))),
        (false, quote_v4(b"", 17, 0x2001, &tcp), Some((17, None, None, None, 8, 28))),
        (false, quote_v4(b"", 6, 0, &tcp[..7]), Some((6, ports, None, None, 0, 28))),
        (false, quote_v4(b"", 6, 0, &tcp[..3]), Some((6, None, None, None, 0, 28))),
        (false, quote_v4(b"", 6, 0, b""), Some((6, None, None, None, 0, 28))),
        (false, quote_v4(b"", 1, 0, &request), Some((1, None, Some((5, 6)), None, 0, 28))),
        (false, quote_v4(b"", 1, 0, &reply), Some((1, None, None, None, 0, 28))),
        (false, quote_v4(b"", 6, 0, b"")[..19].to_vec(), None),
        (false, quote_v6(6, &tcp), None),
        (true, quote_v6(6, &tcp), Some((6, ports, None, Some(0x0102_0304), 0, 48))),
        (true, quote_v6(58, &request_v6), Some((58, None, Some((5, 6)), None, 0, 48))),
        (true, quote_v6(0, &with(&hop, &tcp)), Some((6, ports, None, Some(0x0102_0304), 0, 56))),
        (true, quote_v6(44, &with(&fragment, &tcp)), Some((6, ports, None, Some(0x0102_0304), 0, 56))),
        (true, quote_v6(44, &with(&later, &tcp)), Some((6, None, None, None, 8, 56))),
        (true, quote_v6(44, &with(&[60, 0, 0, 9, 0, 0, 0, 9], &hop)), Some((60, None, None, None, 8, 56))),
        (true, quote_v6(0, &hop[..3]), Some((0, None, None, None, 0, 48))),
    ];
    for (is_v6, quote, expected) in table {
        let quoted = quoted_of(is_v6, &quote);
        let found = quoted.map(|quoted| {
            let Quoted { protocol, ports, echo, tcp_seq, fragment_offset, transport, .. } = quoted;
            (protocol, ports, echo, tcp_seq, fragment_offset, transport)
        });
        assert_eq!(found, expected, "{quote:02x?}");
        if let Some(quoted) = quoted {
            let (src, dst) = if is_v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
            assert_eq!((quoted.src.to_string(), quoted.dst.to_string()), (src.to_owned(), dst.to_owned()));
            assert_eq!(quoted.packet_bytes, if is_v6 { 1320 } else { 1500 });
        }
    }
}

#[test]
fn a_chain_without_end_is_left() {
    let long: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(100);
    let quoted = quoted_of(true, &quote_v6(60, &long)).expect("an error");
    assert_eq!((quoted.protocol, quoted.transport), (60, HEADER_LEN + 40 + 8 * chain::EXTENSION_HEADERS_MAX));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        is_v6 in any::<bool>(),
        icmp_type in prop_oneof![0..20u8, 125..145u8, any::<u8>()],
        first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        mut bytes in proptest::collection::vec(any::<u8>(), 0..150),
    ) {
        for (at, value) in [(0, icmp_type), (8, first)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(Message::Error(error)) = parse_for(is_v6, &bytes) {
            prop_assert!(error.quoted.transport >= HEADER_LEN + 20);
            prop_assert_eq!(error.quoted.src.is_ipv6(), is_v6);
        }
    }
}
