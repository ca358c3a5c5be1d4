//! Frames that do not arrive.

use super::*;

/// A connection that sends, and its two ends.
struct Bed {
    ours: Cslip,
    theirs: Cslip,
    segment: Segment,
}

impl Bed {
    fn new(crc: bool, len: usize) -> Self {
        let config = FramingConfig { crc, ..CONFIG };
        let segment = Segment::new(1).with(|s| s.payload = vec![0x5a; len]);
        let mut bed = Self { ours: Cslip::new(config, 16), theirs: Cslip::new(config, 16), segment };
        let wire = encode(&mut bed.ours, &bed.segment.bytes());
        assert!(decode(&mut bed.theirs, &wire).is_ok());
        bed
    }

    fn wire(&mut self, len: usize, change: impl FnOnce(&mut Segment)) -> Vec<u8> {
        self.segment = self.segment.next(&vec![0x5a; len]).with(change);
        encode(&mut self.ours, &self.segment.bytes())
    }

    fn send(&mut self, len: usize, change: impl FnOnce(&mut Segment)) -> Result<(), FrameError> {
        let wire = self.wire(len, change);
        let packet = decode(&mut self.theirs, &wire)?;
        let mut expected = self.segment.clone();
        // Nobody says what it was in a frame that was lost.
        expected.identification = u16::from_be_bytes([packet[4], packet[5]]);
        assert_eq!(packet, expected.bytes());
        Ok(())
    }
}

fn still(_: &mut Segment) {}

#[test]
fn an_error_on_the_line_needs_a_number() {
    let mut bed = Bed::new(false, 1);
    assert_eq!(bed.send(1, still), Ok(()));
    bed.theirs.note_loss();
    // The fourth says its number, but its changes are to a header that was tossed.
    assert_eq!([bed.send(1, still), bed.send(1, still)], [Err(FrameError::Tossed); 2]);
    assert_eq!(bed.send(1, still), Err(FrameError::BadSegment));
    assert_eq!(bed.send(1, still), Err(FrameError::Tossed));
    // A retransmission brings a whole header.
    assert_eq!(bed.send(1, |s| s.seq -= 3), Ok(()));
    assert_eq!(bed.send(1, still), Ok(()));
    // With a number in it, a frame behind an error is as good as any.
    bed.theirs.note_loss();
    assert_eq!(bed.send(100, still), Ok(()));
    assert_eq!(bed.send(1, still), Ok(()));
}

#[test]
fn garbage_is_an_error_on_the_line() {
    for (garbage, error) in [
        (&[0xdb, b'x', END][..], FrameError::BadEscape),
        (&[b'x', END], FrameError::NotIp),
        (&[TYPE_COMPRESSED, END], FrameError::BadHeader),
    ] {
        let mut bed = Bed::new(false, 1);
        assert_eq!(bed.send(1, still), Ok(()));
        assert_eq!(decode(&mut bed.theirs, garbage), Err(error));
        assert_eq!(bed.send(1, still), Err(FrameError::Tossed));
    }
}

/// Whether the frame behind so many lost ones is understood.
fn understood(crc: bool, len: usize, before: usize, lost: usize) -> bool {
    let mut bed = Bed::new(crc, len);
    for _ in 0..before {
        assert_eq!(bed.send(len, still), Ok(()));
    }
    // As early behind a whole header as can be.
    while inside_type(&bed.wire_of_next(len)) != 0x70 && before > 0 {
        assert_eq!(bed.send(len, still), Ok(()));
    }
    assert_eq!(bed.send(len, still), Ok(()));
    for _ in 0..lost {
        bed.wire(len, still);
    }
    let result = bed.send(len, still);
    assert!(matches!(result, Ok(()) | Err(FrameError::BadSegment)));
    result.is_ok()
}

fn inside_type(wire: &[u8]) -> u8 {
    if wire[1] & 0x80 == 0 { wire[1] & 0xf0 } else { 0x80 }
}

impl Bed {
    /// What the next frame would be.
    fn wire_of_next(&self, len: usize) -> Vec<u8> {
        let mut ours = Cslip::new(CONFIG, 16);
        ours.compressor = self.ours.compressor.clone();
        encode(&mut ours, &self.segment.next(&vec![0x5a; len]).bytes())
    }
}

#[test]
fn lost_changes_are_made_up_for() {
    for (crc, len, before, lost, expected) in [
        (false, 966, 9, 1, true),
        (false, 966, 9, 2, true),
        (false, 966, 9, 3, false),
        (false, 966, 0, 1, false),
        (true, 256, 9, 1, true),
        (true, 256, 9, 2, true),
        // Too little to be believed.
        (true, 100, 9, 1, false),
        // One wrong bit looks like that.
        (false, 256, 9, 1, false),
        (false, 255, 9, 1, false),
        (false, 320, 9, 1, false),
        (false, 299, 9, 1, true),
    ] {
        assert_eq!(understood(crc, len, before, lost), expected, "{crc} {len} {before} {lost}");
    }
}

#[test]
fn lost_changes_are_not_guessed_where_two_fields_move() {
    // Without enough of a row before.
    let mut bed = Bed::new(true, 966);
    assert_eq!([bed.send(966, still), bed.send(966, still)], [Ok(()); 2]);
    bed.wire(966, still);
    assert_eq!(bed.send(966, still), Err(FrameError::BadSegment));
    // One that moves a second field for the first time, behind one that moved the first by as much as both.
    let mut bed = Bed::new(true, 200);
    for len in [200, 200, 200, 200, 200, 200, 200, 200, 200, 900] {
        assert_eq!(bed.send(len, still), Ok(()));
    }
    bed.wire(500, still);
    assert_eq!(bed.send(500, |s| s.ack += 400), Err(FrameError::BadSegment));
    // A frame that moved two fields by 966 each adds as much as two that moved one.
    let mut bed = Bed::new(true, 966);
    for _ in 0..3 {
        for _ in 0..6 {
            assert_eq!(bed.send(966, still), Ok(()));
        }
        assert_eq!(bed.send(966, |s| s.ack += 966), Ok(()));
    }
    assert_eq!(bed.send(966, still), Ok(()));
    let wire = bed.wire(966, |s| s.ack += 966);
    if inside_type(&wire) == 0x80 && inside_type(&bed.wire_of_next(966)) == 0x80 {
        assert_eq!(bed.send(966, still), Err(FrameError::BadSegment));
    } else {
        panic!("move the refresh");
    }
}

#[test]
fn lost_acknowledgments_are_made_up_for() {
    for (window, expected) in [(false, Ok(())), (true, Err(FrameError::BadSegment))] {
        let mut bed = Bed::new(false, 0);
        for at in 0..12 {
            let change = |s: &mut Segment| {
                s.ack += 1932;
                s.window += u16::from(window && at == 9);
            };
            assert_eq!(bed.send(0, change), Ok(()));
        }
        bed.wire(0, |s| s.ack += 1932);
        assert_eq!(bed.send(0, |s| s.ack += 1932), expected);
    }
}

#[test]
fn a_lost_end_of_urgent_data_is_seen() {
    let mut bed = Bed::new(true, 0);
    assert_eq!(bed.send(7, |s| (s.flags, s.urgent) = (0x30, 7)), Ok(()));
    // The pointer is less by as much as the sequence number is more.
    bed.wire(100, |s| (s.flags, s.urgent) = (0x10, 0));
    assert_eq!(bed.send(100, still), Err(FrameError::BadSegment));
}

#[test]
fn a_wrong_bit_does_no_harm() {
    for len in [255, 256, 257, 512, 966] {
        let mut bed = Bed::new(false, len);
        for _ in 0..9 {
            assert_eq!(bed.send(len, still), Ok(()));
        }
        let wire = bed.wire(len, still);
        let original = bed.segment.bytes();
        let mut accepted = 0;
        for bit in 8..(wire.len() - 1) * 8 {
            let mut theirs = Cslip::new(CONFIG, 16);
            theirs.expander = bed.theirs.expander.clone();
            let mut damaged = wire.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut rest = &damaged[..];
            while !rest.is_empty() {
                let (taken, decoded) = theirs.decode(rest);
                if let Decoded::Packet(packet) = decoded {
                    // The identification is in no checksum but that of IP, which is made anew.
                    assert_eq!(
                        (&packet[..4], &packet[12..]),
                        (&original[..4], &original[12..]),
                        "{len} {bit}"
                    );
                    accepted += 1;
                }
                rest = &rest[taken..];
            }
        }
        assert_eq!(accepted, 0, "{len}");
    }
}
