//! A line for each case: a frame in hexadecimal, and what is said of it.

use super::*;
use crate::ingress::packet::{FragmentInfo, IpPacket, Problem};

/// Bytes of hexadecimal digits; spaces are for the reader, `NN*M` is `M` times the byte `NN`.
fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        if let Some((byte, times)) = word.split_once('*') {
            let byte = u8::from_str_radix(byte, 16).expect("a byte");
            bytes.resize(bytes.len() + times.parse::<usize>().expect("a number"), byte);
            continue;
        }
        for at in (0..word.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&word[at..at + 2], 16).expect("two digits"));
        }
    }
    bytes
}

/// An Ethernet frame: what follows the addresses in hexadecimal (tags, EtherType), and the rest.
fn ethernet(types: &str, rest: Vec<u8>) -> Vec<u8> {
    [hex("020000000001 020000000002"), hex(types), rest].concat()
}

/// An IPv4 packet, its lengths and checksum filled in: flags and fragment offset, protocol, options, payload.
fn v4(flags: u16, protocol: u8, options: &str, payload: &str) -> Vec<u8> {
    let options = hex(options);
    let mut packet = [hex("4500 0000 0007 0000 4000 0000 0a000001 0a000002"), options, hex(payload)].concat();
    let header_len = packet.len() - hex(payload).len();
    packet[0] = 0x40 | (header_len / 4) as u8;
    let total_len = packet.len() as u16;
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet[9] = protocol;
    fill_sum(&mut packet, header_len);
    packet
}

fn fill_sum(packet: &mut [u8], header_len: usize) {
    packet[10..12].fill(0);
    let sum = !smoltcp::wire::checksum::data(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The same with bytes of a packet without options changed, and the checksum right for that.
fn v4_with(at: usize, bytes: &str) -> Vec<u8> {
    let mut packet = v4(0, 17, "", UDP_HEX);
    let bytes = hex(bytes);
    packet[at..at + bytes.len()].copy_from_slice(&bytes);
    fill_sum(&mut packet, 20);
    packet
}

/// An IPv6 packet: the next header, and what follows.
fn v6(next_header: u8, payload: &str) -> Vec<u8> {
    let payload = hex(payload);
    let mut packet = [hex("6000 0000 0000 00 40 fd 00*14 01 fd 00*14 02"), payload.clone()].concat();
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = next_header;
    packet
}

const UDP_HEX: &str = "0401 0050 0008 0000";
const TCP_HEX: &str = "0401 0050 00000001 00000000 5002 2000 0000 0000";

/// What is said of a frame, in a line.
fn shown(result: Result<Packet, DropReason>) -> String {
    let packet = match result {
        Ok(packet) => packet,
        Err(reason) => return reason.name().to_owned(),
    };
    let tags = packet.link.map_or([None; 2], |link| link.vlans);
    let mut text: String = tags.iter().flatten().map(|vlan| format!("vlan {vlan} ")).collect();
    match packet.body {
        Body::Arp(at) => text += &format!("arp {at}"),
        Body::Ip(packet) => text += &shown_ip(&packet),
    }
    text
}

fn shown_ip(packet: &IpPacket) -> String {
    let IpPacket { start, transport, end, protocol, .. } = packet;
    let mut text = format!("{protocol} {start}/{transport}/{end}");
    if let Some((src, dst)) = packet.ports {
        text += &format!(" {src}>{dst}");
    }
    if packet.dont_fragment && packet.src.is_ipv4() {
        text += " df";
    }
    if packet.router_alert {
        text += " alert";
    }
    if let Some(fragment) = packet.fragment {
        let FragmentInfo { id, offset, more, payload, next_header_at, header_at, next_header } = fragment;
        let more = if more { "+" } else { "" };
        text += &format!(" frag {id}:{offset}{more} {payload} {next_header}@{next_header_at},{header_at}");
    }
    match packet.problem {
        Some(Problem::NextHeader { at, code }) => text += &format!(" problem {code}@{at}"),
        Some(Problem::Option { at, answer, even_multicast }) => {
            text += &format!(" option {at} {answer} {even_multicast}");
        }
        None => {}
    }
    text
}

fn check(medium: Medium, cases: Vec<(Vec<u8>, &str)>) {
    for (frame, expected) in cases {
        assert_eq!(shown(classify(medium, &frame)), expected, "{frame:02x?}");
    }
}

#[test]
fn links() {
    let udp = || v4(0, 17, "", UDP_HEX);
    check(
        Medium::Ethernet,
        vec![
            (hex(""), "link_truncated"),
            (hex("02 00*12"), "link_truncated"),
            (ethernet("0800", udp()), "17 14/34/42 1025>80"),
            (ethernet("86dd", v6(17, UDP_HEX)), "17 14/54/62 1025>80"),
            (ethernet("8100 2007 0800", udp()), "vlan 7 17 18/38/46 1025>80"),
            (ethernet("8100 e000 0800", udp()), "vlan 0 17 18/38/46 1025>80"),
            (ethernet("88a8 0fff 0800", udp()), "vlan 4095 17 18/38/46 1025>80"),
            (ethernet("88a8 0005 8100 0006 86dd", v6(59, "")), "vlan 5 vlan 6 59 22/62/62"),
            (ethernet("8100 0005 8100 0006 0800", udp()), "vlan 5 vlan 6 17 22/42/50 1025>80"),
            (ethernet("8100 0005 88a8 0006 0800", udp()), "link_vlan"),
            (ethernet("88a8 0005 88a8 0006 0800", udp()), "link_vlan"),
            (ethernet("88a8 0005 8100 0006 8100 0007 0800", udp()), "link_vlan"),
            (ethernet("8100 0005 08", vec![]), "link_truncated"),
            (ethernet("8100 0005 8100 0006", vec![]), "link_truncated"),
            (ethernet("88cc", udp()), "link_unknown_type"),
            (ethernet("0026", hex("424203")), "link_unknown_type"),
            (ethernet("8100 0005 88cc", udp()), "link_unknown_type"),
            (ethernet("0806", hex("00*28")), "arp 14"),
            (ethernet("0806", hex("00*46")), "arp 14"),
            (ethernet("8100 0005 0806", hex("00*28")), "vlan 5 arp 18"),
            (ethernet("0806", hex("00*27")), "arp_malformed"),
            (ethernet("0800", v6(17, UDP_HEX)), "ip_malformed"),
            (ethernet("0800", v4_with(0, "65")), "ip_malformed"),
            (ethernet("86dd", [udp(), udp()].concat()), "ip_malformed"),
        ],
    );
    check(
        Medium::Ip,
        vec![
            (hex(""), "ip_truncated"),
            (udp(), "17 0/20/28 1025>80"),
            (v6(6, TCP_HEX), "6 0/40/60 1025>80"),
            (hex("50 00*60"), "ip_malformed"),
        ],
    );
}

#[test]
fn every_field_is_read() {
    let frame = ethernet("88a8 1234 8100 0567 0800", v4(0x4000, 6, "", TCP_HEX));
    let packet = classify(Medium::Ethernet, &frame).expect("a segment");
    let link = Link {
        src: EthernetAddress([2, 0, 0, 0, 0, 2]),
        dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
        vlans: [Some(0x234), Some(0x567)],
        len: 22,
    };
    let expected = IpPacket {
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
        start: 22,
        transport: 42,
        end: 62,
        protocol: 6,
        hop_limit: 64,
        traffic_class: 0,
        fragment: None,
        ports: Some((1025, 80)),
        dont_fragment: true,
        router_alert: false,
        problem: None,
    };
    assert_eq!(packet, Packet { link: Some(link), body: Body::Ip(expected) });

    let mut frame = v6(58, "80");
    frame[..2].copy_from_slice(&[0x6a, 0xbc]);
    let packet = classify(Medium::Ip, &frame).expect("a packet");
    let expected = IpPacket {
        src: "fd00::1".parse().expect("an address"),
        dst: "fd00::2".parse().expect("an address"),
        start: 0,
        transport: 40,
        end: 41,
        protocol: 58,
        traffic_class: 0xab,
        ports: None,
        ..expected
    };
    assert_eq!(packet, Packet { link: None, body: Body::Ip(expected) });
    let Ok(Packet { body: Body::Ip(packet), .. }) = classify(Medium::Ip, &v4_with(1, "b8")) else { panic!() };
    assert_eq!(packet.traffic_class, 0xb8);
}

#[test]
fn headers_of_ipv4() {
    let padded = [v4(0, 17, "", UDP_HEX), vec![0; 18]].concat();
    let cut = |len: usize| v4(0, 17, "", UDP_HEX)[..len].to_vec();
    let mut wrong_sum = v4(0, 17, "", UDP_HEX);
    wrong_sum[10] ^= 1;
    let mut wrong_sum_of_options = v4(0, 17, "01 01 01 00", UDP_HEX);
    wrong_sum_of_options[21] ^= 1;
    let super_frame = v4(0, 6, "", &format!("{TCP_HEX} 55*65495"));
    check(
        Medium::Ip,
        vec![
            (padded, "17 0/20/28 1025>80"),
            (cut(27), "ip_truncated"),
            (cut(19), "ip_truncated"),
            (cut(1), "ip_truncated"),
            (super_frame, "6 0/20/65535 1025>80"),
            (v4_with(0, "44"), "ip_malformed"),
            (v4_with(0, "40"), "ip_malformed"),
            (v4_with(0, "4f"), "ip_malformed"), // 60 of 28 bytes
            (v4_with(2, "0000"), "ip_malformed"),
            (v4_with(2, "0013"), "ip_malformed"),
            (v4_with(2, "0014"), "17 0/20/20"),
            (v4_with(2, "0017"), "17 0/20/23"), // not all of the ports
            (v4_with(2, "0018"), "17 0/20/24 1025>80"),
            (v4_with(2, "001d"), "ip_truncated"),
            (v4_with(6, "8000"), "17 0/20/28 1025>80"), // the reserved bit
            (v4_with(6, "4000"), "17 0/20/28 1025>80 df"),
            (v4_with(9, "01"), "1 0/20/28"),
            (wrong_sum, "ip_checksum"),
            (wrong_sum_of_options, "ip_checksum"),
        ],
    );
}

#[test]
fn a_changed_bit_of_an_ipv4_header_is_seen() {
    for options in ["", "94 04 0000 01 01 01 00"] {
        let frame = ethernet("0800", v4(0x4000, 6, options, TCP_HEX));
        for bit in 14 * 8..(frame.len() - 20) * 8 {
            let mut frame = frame.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(classify(Medium::Ethernet, &frame).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn options_of_ipv4() {
    let case = |options, expected| (v4(0, 17, options, UDP_HEX), expected);
    check(
        Medium::Ip,
        vec![
            case("01010100", "17 0/24/32 1025>80"),
            case("00*40", "17 0/60/68 1025>80"),
            case("01*40", "17 0/60/68 1025>80"),
            case("94 04 0000", "17 0/24/32 1025>80 alert"),
            case("01010101 94 04 0000", "17 0/28/36 1025>80 alert"),
            case("00 ff ff ff", "17 0/24/32 1025>80"), // behind the end
            case("44 04 05 00", "17 0/24/32 1025>80"), // a timestamp
            case("07 07 04 00000000 00", "17 0/28/36 1025>80"), // record route
            case("94 03 00 00", "ip_options"),
            case("94 08 00*6", "ip_options"),
            case("83 03 04 00", "ip_source_route"),
            case("01 89 03 04", "ip_source_route"),
            case("44 00 00 00", "ip_options"),
            case("44 01 00 00", "ip_options"),
            case("44 05 00 00", "ip_options"),
            case("01 01 01 44", "ip_options"),
            case("83 ff 04 00", "ip_options"),
        ],
    );
}

#[test]
fn fragments_of_ipv4() {
    let case = |flags, protocol, payload, expected| (v4(flags, protocol, "", payload), expected);
    check(
        Medium::Ip,
        vec![
            case(0x2000, 17, UDP_HEX, "17 0/20/28 1025>80 frag 7:0+ 20 17@9,20"),
            case(0x6000, 17, UDP_HEX, "17 0/20/28 1025>80 df frag 7:0+ 20 17@9,20"),
            case(0x2001, 17, UDP_HEX, "17 0/20/28 frag 7:8+ 20 17@9,20"),
            case(0x0003, 17, "00", "17 0/20/21 frag 7:24 20 17@9,20"),
            case(0x2000, 17, "00*9", "fragment_malformed"),
            case(0x2001, 17, "00*15", "fragment_malformed"),
            case(0x2000, 17, "", "fragment_headers"),
            case(0x2000, 6, "", "fragment_headers"),
            case(0x2000, 1, "", "fragment_malformed"),
            case(0x0003, 17, "", "fragment_malformed"),
            // The header has 20 bytes: 65 512 are 3 short of the longest datagram.
            case(0x1ffd, 17, "00*3", "17 0/20/23 frag 7:65512 20 17@9,20"),
            case(0x1ffd, 17, "00*4", "fragment_malformed"),
            case(0x1fff, 17, "00*8", "fragment_malformed"),
        ],
    );
    let with_options = v4(0x2001, 6, "94 04 0000", "00*16");
    check(Medium::Ip, vec![(with_options, "6 0/24/40 alert frag 7:8+ 24 6@9,24")]);
}

/// Hop-by-hop, destination options, routing, fragment and authentication headers, one after the other.
#[test]
fn extension_headers() {
    let dst = "3c 00 01 04 00000000";
    let many = |count: usize| format!("{} 11 00 01 04 00000000 {UDP_HEX}", dst.repeat(count - 1));
    let case = |first, payload: &str, expected| (v6(first, &format!("{payload} {UDP_HEX}")), expected);
    check(
        Medium::Ip,
        vec![
            (v6(59, ""), "59 0/40/40"),
            (v6(17, ""), "17 0/40/40"),
            (v6(17, "040100"), "17 0/40/43"),
            (v6(50, UDP_HEX), "50 0/40/48"),
            case(0, "11 00 01 04 00000000", "17 0/48/56 1025>80"),
            case(60, "11 00 01 04 00000000", "17 0/48/56 1025>80"),
            case(60, "11 01 01 04 00000000 1e 06 00*6", "17 0/56/64 1025>80"),
            case(0, "3c 00 01 04 00*4 2b 00 01 04 00*4 33 00 00 00 00*4 11 04 00*22", "17 0/88/96 1025>80"),
            case(43, "11 00 00 00 00*4", "17 0/48/56 1025>80"),
            case(51, "11 04 0000 00*20", "17 0/64/72 1025>80"),
            case(51, "11 00 0000 00*4", "ip_options"),
            (v6(60, &many(8)), "17 0/104/112 1025>80"),
            (v6(60, &many(9)), "ip_options"),
            (v6(60, "11"), "ip_truncated"),
            (v6(60, "11 00 00*5"), "ip_truncated"),
            (v6(60, "11 01 01 04 00*4"), "ip_truncated"),
            (v6(44, "11 00 00*5"), "ip_truncated"),
            (v6(51, "11 05 00*20"), "ip_truncated"),
            (v6(60, "06 00 01 04 00*4"), "6 0/48/48"),
            case(60, "00 00 01 04 00*4", "0 0/48/56 problem 1@40"),
            case(60, "3c 00 01 04 00*4 00 00 01 04 00*4", "0 0/56/64 problem 1@48"),
            case(43, "11 00 00 01 00*4", "43 0/40/56 problem 0@42"),
            case(43, "11 00 04 ff 00*4", "43 0/40/56 problem 0@42"),
            case(60, "2b 00 01 04 00*4 11 00 02 01 00*4", "43 0/48/64 problem 0@50"),
        ],
    );
    let jumbo = hex("60 00*5 00 40 00*32 11 00 c2 04 00010000 00*100");
    check(Medium::Ip, vec![(jumbo, "ip_malformed")]);
}

#[test]
fn options_of_ipv6() {
    let case = |first, options: &str, expected| {
        let units = (hex(options).len() + 2) / 8 - 1;
        (v6(first, &format!("11 {units:02x} {options} {UDP_HEX}")), expected)
    };
    check(
        Medium::Ip,
        vec![
            case(0, "05 02 0000 01 00", "17 0/48/56 1025>80 alert"),
            case(0, "00 05 02 0000 00", "17 0/48/56 1025>80 alert"),
            case(60, "05 02 0000 01 00", "17 0/48/56 1025>80"),
            case(0, "05 01 00 01 01 00", "ip_options"),
            case(0, "05 04 00000000", "ip_options"),
            case(60, "05 04 00000000", "17 0/48/56 1025>80"),
            case(0, "00*6", "17 0/48/56 1025>80"),
            case(0, "00*8 1e 04 00*4", "ip_options"),
            case(0, "00*7 1e 05 00*5", "17 0/56/64 1025>80"),
            case(0, "00*5 1e 00 00*7", "17 0/56/64 1025>80"),
            case(0, "01 05 00*5 1e 05 00*5", "17 0/56/64 1025>80"),
            case(0, "01 06 00*6 1e 04 00*4", "ip_options"),
            case(0, "00*4 01 02 00*2 1e 04 00*4", "ip_options"),
            case(0, "1e 03 000000 1e", "ip_options"),
            case(0, "1e 05 00*4", "ip_options"),
            case(0, "01 05 00*4", "ip_options"),
            case(0, "3e 04 00*4", "17 0/48/56 1025>80"),
            case(0, "5e 04 00*4", "0 0/40/56 option 42 false false"),
            case(0, "9e 04 00*4", "0 0/40/56 option 42 true true"),
            case(60, "de 04 00*4", "60 0/40/56 option 42 true false"),
            case(60, "c2 04 00010000", "60 0/40/56 option 42 true false"),
            case(60, "00 1e 00 00 de 00", "60 0/40/56 option 46 true false"),
            case(60, "de 00 5e 00 9e ff", "60 0/40/56 option 42 true false"),
            case(60, "de 05 00*4", "ip_options"),
        ],
    );
    let many = |count: usize| "1e 00 ".repeat(count);
    check(
        Medium::Ip,
        vec![
            case(0, &format!("{} 01 04 00*4", many(8)), "17 0/64/72 1025>80"),
            case(0, &format!("{} 01 02 00*2", many(9)), "ip_options"),
        ],
    );
}

#[test]
fn fragments_of_ipv6() {
    let udp = |header: &str| format!("{header} {UDP_HEX}");
    let tcp = |header: &str| format!("{header} {TCP_HEX}");
    let dst = "3c 00 01 04 00000000";
    let case = |first, payload: String, expected| (v6(first, &payload), expected);
    check(
        Medium::Ip,
        vec![
            // Atomic.
            case(44, udp("11 ff 0006 00000007"), "17 0/48/56 1025>80"),
            case(44, tcp("06 00 0000 00000007"), "6 0/48/68 1025>80"),
            case(44, "06 00 0000 00000007".into(), "6 0/48/48"),
            case(60, udp("2c 00 01 04 00*4 3c 00 0000 00000007 11 00 05 04 00*4"), "17 0/64/72 1025>80"),
            case(44, udp("00 00 0000 00000007 11 00 01 04 00*4"), "0 0/48/64 problem 1@40"),
            case(44, udp("2c 00 0000 00000007 11 00 0000 00000008"), "ip_options"),
            case(44, udp("2c 00 0000 00000007 11 00 0001 00000008"), "ip_options"),
            // First.
            case(44, udp("11 00 0001 01020304"), "17 0/48/56 1025>80 frag 16909060:0+ 48 17@6,40"),
            case(44, udp("11 00 0001 00000007 00*8"), "17 0/48/64 0>0 frag 7:0+ 48 17@6,40"),
            case(60, udp("2c 00 01 04 00*4 11 00 0001 00000007"), "17 0/56/64 1025>80 frag 7:0+ 56 17@40,48"),
            case(
                0,
                udp("2c 00 05 02 00*4 3c 00 0001 00000007 11 00 01 04 00*4"),
                "60 0/56/72 1025>80 alert frag 7:0+ 56 60@40,48",
            ),
            case(44, tcp("06 00 0001 00000007 00*4"), "6 0/48/72 0>0 frag 7:0+ 48 6@6,40"),
            case(44, tcp("06 00 0001 00000007"), "44 0/40/68 problem 0@4"), // 20 bytes
            case(44, "06 00 0001 00000007 00*16".into(), "fragment_headers"),
            case(44, "11 00 0001 00000007".into(), "fragment_headers"),
            case(44, "3a 00 0001 00000007 80 00*7".into(), "58 0/48/56 frag 7:0+ 48 58@6,40"),
            case(44, "3c 00 0001 00000007 11 00 00*6".into(), "fragment_headers"),
            case(44, "3c 00 0001 00000007 11 01 00*6".into(), "fragment_headers"),
            case(44, "fd 00 0001 00000007".into(), "fragment_headers"),
            case(44, udp("2c 00 0001 00000007 11 00 0001 00000008"), "ip_options"),
            case(44, udp("00 00 0001 00000007 11 00 00*6"), "0 0/48/64 frag 7:0+ 48 0@6,40 problem 1@40"),
            case(44, udp("3c 00 0001 00000007 00 00 00*6"), "60 0/48/64 frag 7:0+ 48 60@6,40 problem 1@48"),
            // What is behind the fragment header is looked at when it is whole.
            case(44, udp("3c 00 0001 00000007 11 00 de 04 00*4"), "60 0/48/64 1025>80 frag 7:0+ 48 60@6,40"),
            case(60, udp("2c 00 de 04 00*4 11 00 0001 00000007"), "60 0/40/64 option 42 true false"),
            case(44, udp(&format!("3c 00 0001 00000007 {} 11 00 00*6", dst.repeat(8))), "ip_options"),
            // Later.
            case(44, udp("11 00 0008 00000007"), "17 0/48/56 frag 7:8 48 17@6,40"),
            case(44, "3c 00 000f 00000007 ff*16".into(), "60 0/48/64 frag 7:8+ 48 60@6,40"),
            case(44, "11 00 0008 00000007 00".into(), "17 0/48/49 frag 7:8 48 17@6,40"),
            case(44, "11 00 0009 00000007 00*9".into(), "44 0/40/57 problem 0@4"),
            case(44, "11 00 0009 00000007".into(), "fragment_malformed"),
            case(44, "11 00 0008 00000007".into(), "fragment_malformed"),
            case(44, "11 00 fff8 00000007 00*7".into(), "17 0/48/55 frag 7:65528 48 17@6,40"),
            case(44, "11 00 fff8 00000007 00*8".into(), "44 0/40/56 problem 0@42"),
            case(60, "2c 00 01 04 00*4 11 00 fff8 00000007 00".into(), "44 0/48/57 problem 0@50"),
        ],
    );
}

#[test]
fn a_cut_frame_is_no_packet() {
    let frames = [
        ethernet("88a8 0005 8100 0006 0800", v4(0, 6, "94 04 0000", TCP_HEX)),
        ethernet("0800", v4(0x2000, 17, "", UDP_HEX)),
        ethernet("86dd", v6(0, &format!("3c 00 05 02 00*4 2c 00 01 04 00*4 11 00 0001 00000007 {UDP_HEX}"))),
        ethernet("86dd", v6(43, &format!("33 00 00 00 00*4 06 04 00*22 {TCP_HEX}"))),
        ethernet("0806", vec![0; 28]),
    ];
    for frame in frames {
        assert!(classify(Medium::Ethernet, &frame).is_ok());
        for len in 0..frame.len() {
            assert!(classify(Medium::Ethernet, &frame[..len]).is_err(), "{len} bytes of {frame:02x?}");
        }
    }
}
