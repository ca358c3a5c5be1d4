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
fn an_error_on_the_line_needs_a_whole_header() {
    for len in [1, 100] {
        let mut bed = Bed::new(false, len);
        assert_eq!(bed.send(len, still), Ok(()));
        bed.theirs.note_loss();
        // That it says its number (from 100 bytes on) is not enough: the frame that was lost may be one of its own.
        assert_eq!([bed.send(len, still), bed.send(len, still)], [Err(FrameError::Tossed); 2]);
        // A retransmission brings a whole header, and two more behind it.
        assert_eq!(bed.send(len, |s| s.seq = s.seq.wrapping_sub(3 * len as u32)), Ok(()));
        assert_eq!([0; 4].map(|_| bed.send(len, still)), [Ok(()); 4]);
    }
}

#[test]
fn a_frame_that_was_lost_unseen_is_found_by_the_next_one() {
    for len in [1, 256, 966] {
        let mut bed = Bed::new(false, len);
        assert_eq!(bed.send(len, still), Ok(()));
        bed.wire(len, still);
        let mut errors = vec![bed.send(len, still)];
        // Until the connection is refreshed.
        while errors.last() != Some(&Ok(())) {
            assert!(errors.len() < 20, "{errors:?}");
            errors.push(bed.send(len, still));
        }
        assert_eq!(errors[0], Err(FrameError::BadSegment), "{len}");
        assert!(
            errors[1..errors.len() - 1].iter().all(|error| *error == Err(FrameError::Tossed)),
            "{errors:?}"
        );
        assert_eq!(bed.send(len, still), Ok(()));
    }
}

#[test]
fn another_connection_goes_on_meanwhile() {
    let mut bed = Bed::new(false, 100);
    let mut other = Segment::new(9).with(|s| s.payload = vec![1; 100]);
    let wire = encode(&mut bed.ours, &other.bytes());
    assert!(decode(&mut bed.theirs, &wire).is_ok());
    bed.wire(100, still);
    assert_eq!(bed.send(100, still), Err(FrameError::BadSegment));
    other = other.next(&[2; 100]);
    let wire = encode(&mut bed.ours, &other.bytes());
    assert_eq!(decode(&mut bed.theirs, &wire), Ok(other.bytes()));
}

/// What has gone back by as much as the window has opened: a sum does not see that it was lost.
#[test]
fn a_retransmission_that_was_lost_is_not_taken_for_nothing() {
    let mut bed = Bed::new(true, 256);
    for _ in 0..3 {
        assert_eq!(bed.send(256, still), Ok(()));
    }
    // Two of three are lost.
    let back = |s: &mut Segment| (s.seq, s.ack) = (s.seq.wrapping_sub(512), s.ack + 512);
    assert_eq!(inside_type(&bed.wire(256, back)), 0x70);
    assert_eq!(inside_type(&bed.wire(256, still)), 0x70);
    assert_eq!(bed.send(256, still), Ok(()));
    assert_eq!(bed.send(256, still), Ok(()));
    // Behind an error that was seen, all of them may have been lost.
    for _ in 0..3 {
        bed.wire(256, back);
    }
    bed.theirs.note_loss();
    assert_eq!(bed.send(256, still), Ok(()), "a whole header");
    assert_eq!(bed.send(256, still), Ok(()), "a whole header");
    bed.theirs.note_loss();
    assert_eq!(bed.send(256, still), Err(FrameError::Tossed));
}

/// A lost acknowledgment of as many bytes as a segment has: to apply the next changes twice would move the data.
#[test]
fn nothing_is_guessed() {
    let mut bed = Bed::new(true, 256);
    for _ in 0..10 {
        assert_eq!(bed.send(256, still), Ok(()));
    }
    while inside_type(&bed.wire_of_next(256)) != 0x80 {
        assert_eq!(bed.send(256, still), Ok(()));
    }
    // It moves the sequence number by 256 as all others, and acknowledges 256 bytes less than the next one sends.
    bed.wire(256, still);
    assert_eq!(bed.send(256, still), Err(FrameError::BadSegment));
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
fn a_lost_end_of_urgent_data_is_seen() {
    let mut bed = Bed::new(true, 0);
    assert_eq!(bed.send(7, |s| (s.flags, s.urgent) = (0x30, 7)), Ok(()));
    // The pointer is less by as much as the sequence number is more.
    bed.wire(100, |s| (s.flags, s.urgent) = (0x10, 0));
    assert_eq!([inside_type(&bed.wire(1, still)), inside_type(&bed.wire(1, still))], [0x70; 2]);
    assert_eq!(bed.send(100, still), Err(FrameError::BadSegment));
}

#[test]
fn a_wrong_bit_does_no_harm() {
    for len in [255, 256, 257, 512, 966] {
        let mut bed = Bed::new(false, len);
        for _ in 0..9 {
            assert_eq!(bed.send(len, still), Ok(()));
        }
        while inside_type(&bed.wire_of_next(len)) != 0x80 {
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
