use proptest::collection::vec;
use proptest::prelude::*;

use super::stuff::{END, ESC, ESC_END, ESC_ESC, ESC_XOFF, ESC_XON, XOFF, XON};
use super::*;

const PLAIN: FramingConfig = FramingConfig { packet_max: 1006, crc: false, escapes_flow_control: false };

/// All combinations of the options.
fn configs(packet_max: usize) -> impl Iterator<Item = FramingConfig> {
    (0..4).map(move |bits| FramingConfig {
        packet_max,
        crc: bits & 1 != 0,
        escapes_flow_control: bits & 2 != 0,
    })
}

/// An IPv4 packet of no protocol with this payload.
fn packet(payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 1, 0, 0, 64, 99, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let sum = !sum::data(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn packet_v6(payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, high, low, 59, 64], &[0xfd; 32][..], payload].concat()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Packet(Vec<u8>),
    Garbage(FrameError, usize),
}

/// What comes of bytes in pieces of these lengths, again and again.
fn decode(framing: &mut impl Framing, mut bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while !bytes.is_empty() {
        let cut = cuts.next().map_or(bytes.len(), |cut| (*cut).clamp(1, bytes.len()));
        let (mut piece, rest) = bytes.split_at(cut);
        bytes = rest;
        while !piece.is_empty() {
            let (taken, decoded) = framing.decode(piece);
            assert!(taken > 0 && taken <= piece.len());
            match decoded {
                Decoded::Nothing => {}
                Decoded::Packet(packet) => seen.push(Seen::Packet(packet.to_vec())),
                Decoded::Garbage(error, line_bytes) => seen.push(Seen::Garbage(error, line_bytes)),
            }
            piece = &piece[taken..];
        }
    }
    seen
}

fn encode(framing: &mut impl Framing, packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    framing.encode(packet, &mut out);
    out
}

fn is(packet: &[u8]) -> Seen {
    Seen::Packet(packet.to_vec())
}

#[test]
fn frames_byte_by_byte() {
    let head = packet(&[0; 4])[..20].to_vec();
    let wire = |body: &[u8]| [&[END], &head[..], body, &[END]].concat();
    for (payload, body) in [
        (*b"data", &b"data"[..]),
        // RFC 1055: END and ESC as two bytes; what stands for them is not special by itself.
        ([END, 1, 2, 3], &[ESC, ESC_END, 1, 2, 3]),
        ([1, ESC, 2, 3], &[1, ESC, ESC_ESC, 2, 3]),
        ([1, 2, 3, END], &[1, 2, 3, ESC, ESC_END]),
        ([END, END, ESC, ESC], &[ESC, ESC_END, ESC, ESC_END, ESC, ESC_ESC, ESC, ESC_ESC]),
        ([ESC, ESC_END, ESC, ESC_ESC], &[ESC, ESC_ESC, ESC_END, ESC, ESC_ESC, ESC_ESC]),
        ([XON, XOFF, ESC_XON, ESC_XOFF], &[XON, XOFF, ESC_XON, ESC_XOFF]),
    ] {
        let mut slip = Slip::new(PLAIN);
        let packet = packet(&payload);
        assert_eq!(encode(&mut slip, &packet), wire(body));
        assert_eq!(decode(&mut slip, &wire(body), &[]), [is(&packet)]);
        assert_eq!(decode(&mut slip, &wire(body), &[1]), [is(&packet)]);
    }
    assert_eq!([END, ESC, ESC_END, ESC_ESC], [0o300, 0o333, 0o334, 0o335]);
}

#[test]
fn the_line_may_take_xon_and_xoff() {
    let mut slip = Slip::new(FramingConfig { escapes_flow_control: true, ..PLAIN });
    let packet = packet(&[XON, 1, XOFF, END, ESC]);
    let wire = encode(&mut slip, &packet);
    let body = [ESC, ESC_XON, 1, ESC, ESC_XOFF, ESC, ESC_END, ESC, ESC_ESC];
    assert_eq!(wire[21..wire.len() - 1], body);
    assert!(!wire.contains(&XON) && !wire.contains(&XOFF));
    assert_eq!(decode(&mut slip, &wire, &[]), [is(&packet)]);
    // Equipment on the way says them too, anywhere.
    let with: Vec<_> = wire.iter().flat_map(|byte| [XOFF, *byte, XON]).collect();
    for cuts in [&[][..], &[1], &[2, 3]] {
        assert_eq!(decode(&mut slip, &with, cuts), [is(&packet)]);
    }
    // Without the option their codes are wrong.
    assert_eq!(
        decode(&mut Slip::new(PLAIN), &wire, &[]),
        [Seen::Garbage(FrameError::BadEscape, wire.len() - 2)]
    );
}

#[test]
fn a_crc_is_of_what_is_framed() {
    let mut slip = Slip::new(FramingConfig { crc: true, ..PLAIN });
    let packet = packet(&[END, 7]);
    let mut crc = crate::serial::crc::Fcs16::new();
    crc.update(&packet);
    let wire = encode(&mut slip, &packet);
    let mut end = Vec::new();
    for byte in crc.finish() {
        match byte {
            END => end.extend([ESC, ESC_END]),
            ESC => end.extend([ESC, ESC_ESC]),
            _ => end.push(byte),
        }
    }
    assert_eq!(wire[1..], [&packet[..20], &[ESC, ESC_END, 7], &end, &[END]].concat());
    assert_eq!(decode(&mut slip, &wire, &[]), [is(&packet)]);
    let mut damaged = wire.clone();
    damaged[22] = ESC_ESC;
    assert_eq!(decode(&mut slip, &damaged, &[]), [Seen::Garbage(FrameError::BadCrc, wire.len() - 2)]);
    assert_eq!(decode(&mut slip, &[END, 0x45, END], &[]), [Seen::Garbage(FrameError::BadCrc, 1)]);
    // Room for the longest packet and its CRC.
    let mut slip = Slip::new(FramingConfig { packet_max: packet.len(), crc: true, ..PLAIN });
    assert_eq!(decode(&mut slip, &wire, &[3]), [is(&packet)]);
}

#[test]
fn what_is_no_packet() {
    let good = packet(b"good");
    let change = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let v6 = packet_v6(b"six");
    let long = packet(&[1; 987]);
    let not_ip = |len| Seen::Garbage(FrameError::NotIp, len);
    for (frame, expected) in [
        (&b"x"[..], not_ip(1)),
        (b"Garbage, as of a console that is no SLIP", not_ip(40)),
        (&change(10, 0), not_ip(24)),
        (&change(0, 0x55), not_ip(24)),
        (&change(0, 0x44), not_ip(24)),
        (&good[..23], not_ip(23)),
        (&good[..19], not_ip(19)),
        (&v6[..42], not_ip(42)),
        (&[&v6[..], b"x"].concat(), not_ip(44)),
        (&[0x60; 20], not_ip(20)),
        (&long, Seen::Garbage(FrameError::TooLong, 1007)),
        (&[ESC, b'x'], Seen::Garbage(FrameError::BadEscape, 2)),
        (&[ESC], Seen::Garbage(FrameError::BadEscape, 1)),
        (&[ESC, ESC, ESC_END], Seen::Garbage(FrameError::BadEscape, 3)),
        (&v6, is(&v6)),
        (&long[..0], is(&good)),
        (&packet(&[1; 986]), is(&packet(&[1; 986]))),
        // Padded, or the END of the first of two was lost.
        (&[&good[..], b"pad"].concat(), is(&good)),
        (&[&good[..], &good].concat(), is(&good)),
    ] {
        let wire = [&[END], frame, &[END], &good, &[END, END, END]].concat();
        let mut expected = vec![expected, is(&good)];
        expected.dedup_by(|_, _| frame.is_empty());
        for cuts in [&[][..], &[1], &[7, 2]] {
            assert_eq!(decode(&mut Slip::new(PLAIN), &wire, cuts), expected, "{frame:?} {cuts:?}");
        }
    }
}

#[test]
fn what_is_no_packet_is_not_framed() {
    for packet in [&[][..], &[0x50; 30], &[0x00], &[0x85; 40], &[0x70; 40]] {
        assert!(encode(&mut Slip::new(PLAIN), packet).is_empty());
    }
}

#[test]
fn garbage_without_an_end_is_told_of() {
    let mut slip = Slip::new(FramingConfig { packet_max: 100, ..PLAIN });
    let garbage = vec![b'x'; 10_000];
    let seen = decode(&mut slip, &garbage, &[1]);
    assert_eq!(seen, vec![Seen::Garbage(FrameError::NoEnd, 1224); 8]);
    let good = packet(b"good");
    let wire = [&[END], &good[..], &[END]].concat();
    assert_eq!(
        decode(&mut slip, &wire, &[5]),
        [Seen::Garbage(FrameError::NoEnd, 10_000 - 8 * 1224), is(&good)]
    );
    // The longest that is told of by its end, and a whole piece at once.
    let garbage = [&vec![b'x'; 1223][..], &[END]].concat();
    assert_eq!(decode(&mut slip, &garbage, &[50]), [Seen::Garbage(FrameError::TooLong, 1223)]);
    assert_eq!(decode(&mut slip, &[b'x'; 1224], &[]), [Seen::Garbage(FrameError::NoEnd, 1224)]);
    assert_eq!(decode(&mut slip, &wire, &[]), [is(&good)]);
}

#[test]
fn after_a_loss_the_next_end_counts() {
    let good = packet(b"good");
    let wire = [&[END], &good[..], &[END]].concat();
    let mut slip = Slip::new(PLAIN);
    assert_eq!(decode(&mut slip, &wire[..10], &[]), []);
    slip.note_loss();
    // The rest of another frame, which looks like a packet.
    let expected = [Seen::Garbage(FrameError::Lost, 9 + good.len()), is(&good)];
    assert_eq!(decode(&mut slip, &[&good[..], &wire].concat(), &[]), expected);
    slip.note_loss();
    assert_eq!(decode(&mut slip, &wire, &[]), [is(&good)]);
    assert_eq!(decode(&mut slip, &wire[..10], &[]), []);
    slip.reset();
    assert_eq!(decode(&mut slip, &good, &[]), []);
    assert_eq!(decode(&mut slip, &[END], &[]), [is(&good)]);
}

#[test]
fn a_whole_frame_is_not_copied() {
    let good = packet(b"good");
    let wire = [&[END, END], &good[..], &[END], b"next"].concat();
    let mut slip = Slip::new(PLAIN);
    let (taken, decoded) = slip.decode(&wire);
    let Decoded::Packet(packet) = decoded else { panic!("{decoded:?}") };
    assert_eq!((taken, packet.as_ptr()), (wire.len() - 4, wire[2..].as_ptr()));
}

fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Many special bytes among few others.
    let byte = prop_oneof![
        any::<u8>(),
        (0..6u8).prop_map(|n| [END, ESC, ESC_END, ESC_ESC, XON, XOFF][usize::from(n)])
    ];
    let payload = vec(byte, 0..200);
    vec(
        (payload, any::<bool>())
            .prop_map(|(payload, v6)| if v6 { packet_v6(&payload) } else { packet(&payload) }),
        0..8,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_come_as_they_were(packets in packets(), cuts in vec(1..300usize, 1..20)) {
        for config in configs(240) {
            let mut slip = Slip::new(config);
            let wire: Vec<_> = packets.iter().flat_map(|packet| encode(&mut slip, packet)).collect();
            let expected: Vec<_> = packets.iter().map(|packet| is(packet)).collect();
            prop_assert_eq!(decode(&mut slip, &wire, &cuts), expected);
        }
    }

    #[test]
    fn pieces_do_not_matter(bytes in vec(prop_oneof![any::<u8>(), Just(END), Just(ESC)], 0..600), cuts in vec(1..99usize, 1..9)) {
        for config in configs(60) {
            let bytes_of = |seen: &[Seen]| -> usize {
                seen.iter().map(|seen| match seen { Seen::Packet(_) => 0, Seen::Garbage(_, len) => *len }).sum()
            };
            let whole = decode(&mut Slip::new(config), &bytes, &[]);
            prop_assert!(bytes_of(&whole) <= bytes.len());
            prop_assert_eq!(decode(&mut Slip::new(config), &bytes, &cuts), whole);
        }
    }

    #[test]
    fn garbage_costs_itself_alone(garbage in vec(any::<u8>(), 0..2000), cuts in vec(1..300usize, 1..9), lost in any::<bool>()) {
        for config in configs(100) {
            let mut slip = Slip::new(config);
            decode(&mut slip, &garbage, &cuts);
            if lost {
                slip.note_loss();
            }
            let wire = encode(&mut slip, &packet(b"good"));
            let seen = decode(&mut slip, &wire, &cuts);
            prop_assert_eq!(seen.last(), Some(&is(&packet(b"good"))));
        }
    }
}
