//! Headers by hand.

use super::*;

/// Frames a first segment and then each of `next`, and tells what the last is on the wire.
fn last_of(first: &Segment, next: &[Segment]) -> Vec<u8> {
    let (mut ours, mut theirs) = (Cslip::new(CONFIG, 16), Cslip::new(CONFIG, 16));
    let mut last = Vec::new();
    for segment in [first].into_iter().chain(next) {
        let wire = encode(&mut ours, &segment.bytes());
        assert_eq!(decode(&mut theirs, &wire), Ok(segment.bytes()));
        last = inside(&wire);
    }
    last
}

const C: u8 = TYPE_COMPRESSED;

#[test]
fn compressed_headers() {
    let first = Segment::new(1000);
    let typed = first.next(b"x");
    let long = first.next(&[7; 100]);
    let longer = first.next(&[7; 300]);
    let cases: &[(&str, Segment, Segment, u8, &[u8])] = &[
        ("an acknowledgment", first.clone(), first.next(b"").with(|s| s.ack += 5), NEW_A, &[5]),
        ("of 255 bytes", first.clone(), first.next(b"").with(|s| s.ack += 255), NEW_A, &[255]),
        ("of 256 bytes", first.clone(), first.next(b"").with(|s| s.ack += 256), NEW_A, &[0, 1, 0]),
        ("of 65535 bytes", first.clone(), first.next(b"").with(|s| s.ack += 65535), NEW_A, &[0, 255, 255]),
        ("data in one direction", longer.clone(), longer.next(b"more"), SPECIAL_D, &[]),
        (
            "data behind a wrap",
            longer.clone(),
            longer.next(b"more").with(|s| s.flags |= 8),
            SPECIAL_D | PUSH,
            &[],
        ),
        ("echo", typed.clone(), typed.next(b"y").with(|s| s.ack += 1), SPECIAL_I, &[]),
        ("another echo", typed.clone(), typed.next(b"y").with(|s| s.ack += 2), NEW_S | NEW_A, &[2, 1]),
        ("a gap", typed.clone(), typed.next(b"y").with(|s| s.seq = s.seq.wrapping_add(8)), NEW_S, &[9]),
        ("data behind an acknowledgment", first.clone(), first.next(b"x"), 0, &[]),
        ("a window", first.clone(), first.next(b"").with(|s| s.window -= 1), NEW_W, &[0, 255, 255]),
        ("more window", first.clone(), first.next(b"").with(|s| s.window += 9), NEW_W, &[9]),
        (
            "all of it",
            first.clone(),
            first.next(b"").with(|s| (s.window, s.ack, s.seq) = (s.window + 2, s.ack + 3, s.seq + 4)).with(
                |s| {
                    s.identification += 4;
                },
            ),
            NEW_W | NEW_A | NEW_S | NEW_I,
            &[],
        ),
        (
            "urgent",
            long.clone(),
            long.next(b"!").with(|s| (s.flags, s.urgent) = (0x30, 1)),
            NEW_U | NEW_S,
            &[1, 100],
        ),
        (
            "urgent at 0",
            long.clone(),
            long.next(b"!").with(|s| s.flags = 0x30),
            NEW_U | NEW_S,
            &[0, 0, 0, 100],
        ),
        ("no more urgent", long.clone().with(|s| s.flags = 0x30), long.next(b"!"), NEW_S, &[100]),
        (
            "the same identification",
            first.clone(),
            first.next(b"x").with(|s| s.identification -= 1),
            NEW_I,
            &[0, 0, 0],
        ),
        ("a step of it", first.clone(), first.next(b"x").with(|s| s.identification += 1), NEW_I, &[2]),
        (
            "a step back",
            first.clone(),
            first.next(b"x").with(|s| s.identification -= 2),
            NEW_I,
            &[0, 255, 255],
        ),
    ];
    cases.iter().for_each(check);
}

fn check((what, first, next, mask, values): &(&str, Segment, Segment, u8, &[u8])) {
    let values = if *what == "all of it" { &[2, 3, 4, 5] } else { *values };
    let expected = [&[C | mask], &next.checksum()[..], values, &next.payload].concat();
    assert_eq!(last_of(first, std::slice::from_ref(next)), expected, "{what}");
}

#[test]
fn uncompressed_headers() {
    let first = Segment::new(1000);
    let data = first.next(b"data");
    let option = |kind: u8| vec![1, kind, 1, 1];
    for (what, first, next) in [
        ("a retransmission", data.clone(), data.clone().with(|s| s.identification += 1)),
        ("data before the last", data.next(b"more"), data.clone()),
        ("an acknowledgment again", first.clone(), first.next(b"")),
        ("an older acknowledgment", first.clone(), first.next(b"").with(|s| s.ack -= 1)),
        ("a far one", first.clone(), first.next(b"").with(|s| s.ack += 65536)),
        ("a large gap", first.clone(), first.next(b"x").with(|s| s.seq = s.seq.wrapping_add(65536))),
        ("type of service", first.clone(), first.next(b"x").with(|s| s.tos = 2)),
        ("time to live", first.clone(), first.next(b"x").with(|s| s.ttl -= 1)),
        ("fragments allowed", first.clone(), first.next(b"x").with(|s| s.fragment = 0)),
        ("ECN-Echo", first.clone(), first.next(b"x").with(|s| s.flags |= 0x40)),
        ("CWR", first.clone(), first.next(b"x").with(|s| s.flags |= 0x80)),
        ("new options", first.clone(), first.next(b"x").with(|s| s.tcp_options = option(1))),
        (
            "other options",
            first.clone().with(|s| s.tcp_options = option(1)),
            first.next(b"x").with(|s| s.tcp_options = option(0)),
        ),
        (
            "other options of IP",
            first.clone().with(|s| s.ip_options = option(1)),
            first.next(b"x").with(|s| s.ip_options = option(0)),
        ),
        ("an urgent pointer without URG", first.clone(), first.next(b"x").with(|s| s.urgent = 9)),
        (
            "an urgent pointer that counts no more",
            first.clone().with(|s| (s.flags, s.urgent) = (0x30, 7)),
            first.next(b"x").with(|s| s.urgent = 7),
        ),
        (
            "what looks like an echo",
            first.clone(),
            first.next(b"x").with(|s| {
                (s.seq, s.window, s.flags, s.urgent) = (s.seq + 1, s.window + 1, 0x30, 1);
            }),
        ),
        (
            "what looks like data",
            first.clone(),
            first.next(b"x").with(|s| {
                (s.seq, s.window, s.ack, s.flags, s.urgent) = (s.seq + 1, s.window + 1, s.ack + 1, 0x30, 1);
            }),
        ),
    ] {
        let mut expected = next.bytes();
        expected[0] |= 0x70;
        expected[9] = 0;
        assert_eq!(last_of(&first, &[next]), expected, "{what}");
    }
}

#[test]
fn the_same_options_are_compressed() {
    let first = Segment::new(1).with(|s| (s.ip_options, s.tcp_options) = (vec![1; 40], vec![1; 40]));
    let next = first.next(b"x");
    assert_eq!(last_of(&first, std::slice::from_ref(&next)), [&[C], &next.checksum()[..], b"x"].concat());
}

#[test]
fn packets_as_they_are() {
    let first = Segment::new(1000);
    let bytes = |change: fn(&mut Segment)| first.next(b"x").with(change).bytes();
    let change = |at: usize| {
        let mut packet = first.bytes();
        packet[at] ^= 1;
        packet
    };
    for (what, packet) in [
        ("SYN", bytes(|s| s.flags |= 2)),
        ("FIN", bytes(|s| s.flags |= 1)),
        ("RST", bytes(|s| s.flags |= 4)),
        ("no ACK", bytes(|s| s.flags = 8)),
        ("a first fragment", bytes(|s| s.fragment = 0x2000)),
        ("a later fragment", bytes(|s| s.fragment = 1)),
        ("a datagram", datagram()),
        ("IPv6", [&[0x60, 0, 0, 0, 0, 4, 59, 64], &[0; 36][..]].concat()),
        ("a wrong checksum of TCP", change(36)),
    ] {
        let (mut ours, mut theirs) = (Cslip::new(CONFIG, 16), Cslip::new(CONFIG, 16));
        for packet in [&first.bytes(), &packet] {
            let wire = encode(&mut ours, packet);
            assert_eq!(decode(&mut theirs, &wire).as_ref(), Ok(packet), "{what}");
        }
        assert_eq!(inside(&encode(&mut ours, &packet)), packet, "{what}");
        let next = first.next(b"y");
        let wire = encode(&mut ours, &next.bytes());
        assert_eq!(inside(&wire)[0] & 0x80, 0x80, "{what} changes nothing");
        assert_eq!(decode(&mut theirs, &wire), Ok(next.bytes()));
    }
    // A wrong checksum of IP stays wrong.
    let mut ours = Cslip::new(CONFIG, 16);
    assert_eq!(inside(&encode(&mut ours, &change(10))), change(10));
}

#[test]
fn connections_have_numbers() {
    let (mut ours, mut theirs) = (Cslip::new(CONFIG, 3), Cslip::new(CONFIG, 3));
    let mut segments: Vec<_> = (0..4).map(|port| Segment::new(1000 + port)).collect();
    let mut send = |connection: usize| {
        let segment = segments[connection].next(b"x");
        segments[connection] = segment.clone();
        let wire = encode(&mut ours, &segment.bytes());
        assert_eq!(decode(&mut theirs, &wire), Ok(segment.bytes()));
        match inside(&wire)[..] {
            [first, _, _, _, _, _, _, _, _, number, ..] if first >> 4 == 7 => (0x70, Some(number)),
            [mask, number, ..] if mask & NEW_C != 0 => (mask, Some(number)),
            [mask, ..] => (mask, None),
            [] => panic!("an empty frame"),
        }
    };
    let (full, data, other) = (0x70, C | SPECIAL_D, C | NEW_C | SPECIAL_D);
    for (connection, expected) in [
        (0, (full, Some(0))),
        (1, (full, Some(1))),
        (2, (full, Some(2))),
        (0, (other, Some(0))),
        (0, (data, None)),
        // The one that was silent for longest is forgotten.
        (3, (full, Some(1))),
        (2, (other, Some(2))),
        (1, (full, Some(0))),
        (3, (other, Some(1))),
    ] {
        assert_eq!(send(connection), expected);
    }
}

#[test]
fn the_number_is_said_from_time_to_time() {
    let mut ours = Cslip::new(CONFIG, 16);
    let mut segment = Segment::new(1);
    let mut is_explicit = |len: usize| {
        segment = segment.next(&vec![0; len]);
        let body = inside(&encode(&mut ours, &segment.bytes()));
        (body[0] & TYPE_COMPRESSED != 0).then_some(body[0] & NEW_C != 0)
    };
    let seen = [1, 1, 1, 1, 1, 1, 1, 1, 1, 99, 100, 100, 1].map(&mut is_explicit);
    let (no, yes) = (Some(false), Some(true));
    assert_eq!(seen, [None, no, no, no, yes, no, no, no, yes, no, yes, yes, no]);
}

#[test]
fn a_new_field_is_said_three_times() {
    let (mut ours, mut theirs) = (Cslip::new(CONFIG, 16), Cslip::new(CONFIG, 16));
    let mut segment = Segment::new(1);
    let seen = [64, 64, 63, 63, 63, 63, 63].map(|ttl| {
        segment = segment.next(b"x").with(|s| s.ttl = ttl);
        let wire = encode(&mut ours, &segment.bytes());
        assert_eq!(decode(&mut theirs, &wire), Ok(segment.bytes()));
        inside(&wire)[0] >> 4
    });
    assert_eq!(seen, [7, 8, 7, 7, 7, 8, 8]);
}

#[test]
fn headers_are_refreshed() {
    for (len, every) in [(0, 17), (1, 17), (256, 15), (966, 5)] {
        let mut ours = Cslip::new(CONFIG, 16);
        let mut segment = Segment::new(1);
        let mut full = Vec::new();
        for at in 0..100 {
            segment = segment.next(&vec![0; len]).with(|s| s.ack += 7);
            if inside(&encode(&mut ours, &segment.bytes()))[0] & TYPE_COMPRESSED == 0 {
                full.push(at);
            }
        }
        assert_eq!(full, (0..100).step_by(every).take(full.len()).collect::<Vec<_>>(), "{len}");
        assert!(full.len() > 2);
        // A percent of the line, for segments of data.
        assert!(len < 256 || 36.0 / (every as f64 * (len + 8) as f64) < 0.01);
    }
}

#[test]
fn nonsense() {
    let known = Segment::new(1);
    let full = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = known.bytes();
        bytes[0] |= 0x70;
        bytes[9] = 3;
        change(&mut bytes);
        frame(&bytes)
    };
    let short = known.clone().with(|s| s.payload = vec![0; 9]);
    let syn = known.clone().with(|s| s.flags = 2).bytes();
    for (what, wire, expected) in [
        ("no number yet", frame(&[C, 0, 0]), FrameError::Tossed),
        ("unknown number", frame(&[C | NEW_C, 9, 0, 0]), FrameError::BadHeader),
        ("no number", frame(&[C | NEW_C]), FrameError::BadHeader),
        ("no type", frame(&[0x50, 0, 0]), FrameError::NotIp),
        ("a type of garbage", frame(b"garbage"), FrameError::NotIp),
        ("cut short", full(&|bytes| bytes.truncate(39)), FrameError::NotIp),
        ("very short", frame(&[0x75, 0, 0]), FrameError::NotIp),
        ("IP checksum", full(&|bytes| bytes[8] = 9), FrameError::NotIp),
        ("TCP checksum", full(&|bytes| bytes[24] ^= 1), FrameError::BadSegment),
        ("TCP header", full(&|bytes| bytes[32] = 0x60), FrameError::BadHeader),
        ("small TCP header", full(&|bytes| bytes[32] = 0x40), FrameError::BadHeader),
        (
            "SYN",
            full(&|bytes| bytes.splice(20.., syn[20..].iter().copied()).for_each(drop)),
            FrameError::BadHeader,
        ),
        ("too long", frame(&short.bytes()[..45]), FrameError::NotIp),
    ] {
        let mut theirs = Cslip::new(CONFIG, 16);
        assert_eq!(decode(&mut theirs, &wire), Err(expected), "{what}");
        // What follows a good one is good.
        assert_eq!(decode(&mut theirs, &full(&|_| {})), Ok(known.bytes()), "{what}");
        let next = known.next(b"x");
        let wire = frame(&[&[C], &next.checksum()[..], b"x"].concat());
        assert_eq!(decode(&mut theirs, &wire), Ok(next.bytes()), "{what}");
    }
    for (what, body, expected) in [
        ("no checksum", &[C | NEW_C, 3, 0][..], FrameError::BadHeader),
        ("no change", &[C | NEW_C | NEW_A, 3, 0, 0], FrameError::BadHeader),
        ("half a change", &[C | NEW_C | NEW_W, 3, 0, 0, 0, 1], FrameError::BadHeader),
        ("no identification", &[C | NEW_C | NEW_I | SPECIAL_D, 3, 0, 0], FrameError::BadHeader),
        ("checksum", &[C | NEW_C, 3, 0, 0, b'x'], FrameError::BadSegment),
        ("more than a packet", &[&[C | NEW_C, 3][..], &[0; 1463]].concat(), FrameError::TooLong),
    ] {
        let mut theirs = Cslip::new(CONFIG, 16);
        assert_eq!(decode(&mut theirs, &full(&|_| {})), Ok(known.bytes()));
        assert_eq!(decode(&mut theirs, &frame(body)), Err(expected), "{what}");
        let next = known.next(&[0; 1460]);
        let wire = frame(&[&[C | NEW_C, 3], &next.checksum()[..], &next.payload].concat());
        assert_eq!(decode(&mut theirs, &wire), Err(FrameError::Tossed), "{what}");
        assert_eq!(decode(&mut theirs, &full(&|_| {})), Ok(known.bytes()), "{what}");
        assert_eq!(decode(&mut theirs, &wire), Ok(next.bytes()), "{what}");
    }
}

#[test]
fn a_line_begins_anew() {
    let (mut ours, mut theirs) = (Cslip::new(CONFIG, 16), Cslip::new(CONFIG, 16));
    let first = Segment::new(1);
    decode(&mut theirs, &encode(&mut ours, &first.bytes())).expect("a whole one");
    let next = first.next(b"x");
    let wire = encode(&mut ours, &next.bytes());
    theirs.reset();
    assert_eq!(decode(&mut theirs, &wire), Err(FrameError::Tossed));
    let explicit = frame(&[&[C | NEW_C, 0], &wire[2..wire.len() - 1]].concat());
    assert_eq!(decode(&mut theirs, &explicit), Err(FrameError::BadHeader));
    ours.reset();
    let again = next.next(b"y");
    let wire = encode(&mut ours, &again.bytes());
    assert_eq!(inside(&wire)[0] >> 4, 7);
    assert_eq!(decode(&mut theirs, &wire), Ok(again.bytes()));
}
