//! A writer of classic pcap files, with nanoseconds: the oldest format, which every reader knows.
//!
//! ```text
//!   file header     magic (byte order, unit of the timestamps), version 2.4, snap length, link type
//!   record …        seconds, nanoseconds, kept length, length on the wire, frame
//! ```
//!
//! The format is draft-ietf-opsawg-pcap. It has one interface and no place for directions, names or
//! statistics: [`pcapng`](super::pcapng) has. All numbers are little-endian.

use std::io;

use smoltcp::phy::Medium;

use super::pcapng::{effective_snap_len, link_type};

/// Writes frames as pcap.
///
/// A record is assembled in memory and handed to the writer with one `write_all`, as
/// [`PcapngWriter`](super::PcapngWriter) does it. The writer should buffer.
#[derive(Debug)]
pub struct PcapWriter<W> {
    writer: W,
    /// The record that is assembled; reused.
    record: Vec<u8>,
    snap_len: u32,
}

impl<W: io::Write> PcapWriter<W> {
    /// Starts a file. `snap_len`: bytes kept of each frame, from 1 to
    /// [`SNAP_LEN_MAX`](super::pcapng::SNAP_LEN_MAX); 0 means that limit.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(mut writer: W, medium: Medium, snap_len: u32) -> io::Result<Self> {
        let mut record = Vec::new();
        put_header(&mut record, medium, snap_len);
        writer.write_all(&record)?;
        Ok(Self { writer, record, snap_len: effective_snap_len(snap_len) })
    }

    /// Writes one frame, of which at most the snap length is kept; `nanos` after 1 January 1970, UTC.
    /// The format counts seconds in 32 bits: after 2106 they stand still.
    ///
    /// # Errors
    /// What the writer says. It may have taken a part of the record: more frames would not be readable.
    pub fn write_frame(&mut self, nanos: u64, frame: &[u8]) -> io::Result<()> {
        self.record.clear();
        put_frame(&mut self.record, nanos, self.snap_len, frame);
        self.writer.write_all(&self.record)
    }

    /// Hands what the writer buffers to the file.
    ///
    /// # Errors
    /// What the writer says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Ends the file. What the writer buffers is not flushed.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

/// Appends the header of a file.
pub(super) fn put_header(bytes: &mut Vec<u8>, medium: Medium, snap_len: u32) {
    // Version 2.4 as two halves, and two words that nobody uses: time zone and accuracy.
    let words = [MAGIC_NANOS, 2 | 4 << 16, 0, 0, effective_snap_len(snap_len), link_type(medium)];
    bytes.extend_from_slice(words.map(u32::to_le_bytes).as_flattened());
}

/// Appends a record with at most `snap_len` bytes of the frame.
#[inline]
pub(super) fn put_frame(bytes: &mut Vec<u8>, nanos: u64, snap_len: u32, frame: &[u8]) {
    let original_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let captured_len = original_len.min(snap_len);
    let captured = frame.get(..captured_len as usize).unwrap_or(frame);
    let seconds = u32::try_from(nanos / NANOS_PER_SECOND).unwrap_or(u32::MAX);
    let head = [seconds, (nanos % NANOS_PER_SECOND) as u32, captured_len, original_len];
    bytes.reserve(RECORD_HEAD_LEN + captured.len());
    bytes.extend_from_slice(head.map(u32::to_le_bytes).as_flattened());
    bytes.extend_from_slice(captured);
}

/// Bytes of a record in front of its frame.
pub(super) const RECORD_HEAD_LEN: usize = 16;
/// Tells a reader the byte order, and that times have nanoseconds.
const MAGIC_NANOS: u32 = 0xA1B2_3C4D;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pcapng::SNAP_LEN_MAX;
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn the_header_says_order_unit_and_link_type() {
        for (medium, link_type, snap_len, kept) in [
            (Medium::Ethernet, 1, 0, SNAP_LEN_MAX),
            (Medium::Ip, 101, 96, 96),
            (Medium::Ip, 101, u32::MAX, SNAP_LEN_MAX),
        ] {
            let file = PcapWriter::new(Vec::new(), medium, snap_len).expect("memory").into_inner();
            assert_eq!(file[..8], [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
            assert_eq!((file.len(), word(&file, 16), word(&file, 20)), (24, kept, link_type));
        }
    }

    #[test]
    fn seconds_are_bounded() {
        let mut writer = PcapWriter::new(Vec::new(), Medium::Ethernet, 0).expect("memory");
        writer.write_frame(u64::MAX, b"x").expect("memory");
        let file = writer.into_inner();
        assert_eq!((word(&file, 24), word(&file, 28)), (u32::MAX, (u64::MAX % 1_000_000_000) as u32));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            frames in proptest::collection::vec(
                (0u64..4_000_000_000_000_000_000, proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
            snap_len in 0u32..250,
        ) {
            let mut writer = PcapWriter::new(Vec::new(), Medium::Ethernet, snap_len).expect("memory");
            for (nanos, frame) in &frames {
                writer.write_frame(*nanos, frame).expect("memory");
            }
            let file = writer.into_inner();
            let mut rest = &file[24..];
            for (nanos, frame) in &frames {
                let kept = if snap_len == 0 { frame.len() } else { frame.len().min(snap_len as usize) };
                prop_assert_eq!(u64::from(word(rest, 0)) * 1_000_000_000 + u64::from(word(rest, 4)), *nanos);
                prop_assert_eq!((word(rest, 8) as usize, word(rest, 12) as usize), (kept, frame.len()));
                prop_assert_eq!(&rest[16..16 + kept], &frame[..kept]);
                rest = &rest[16 + kept..];
            }
            prop_assert!(rest.is_empty());
        }
    }
}
