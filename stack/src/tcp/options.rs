//! Options of a segment: those that a peer has sent, and those that we send.
//!
//! What a SYN and what other segments may have is settled here, for both directions: MSS, window scale and
//! SACK-permitted are read and written on a SYN only, SACK on others only.

use super::seq::Seq;

#[cfg(test)]
mod tests;

/// Bytes of options that a header has room for.
pub const OPTIONS_LEN_MAX: usize = 40;

/// Timestamps (RFC 7323 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// TSval: the sender's clock, in its own unit.
    pub val: u32,
    /// TSecr: the last TSval of the other side.
    pub ecr: u32,
}

/// Blocks of a SACK option (RFC 2018): from a sequence number up to, not with, another. Four find room.
#[derive(Debug, Clone, Copy, Default)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); 4],
    len: u8,
}

impl SackBlocks {
    /// Adds a block at the end. A fifth one is dropped.
    pub fn push(&mut self, start: Seq, end: Seq) {
        if let Some(block) = self.blocks.get_mut(usize::from(self.len)) {
            *block = (start, end);
            self.len += 1;
        }
    }

    /// The blocks, in the order of the option.
    #[inline]
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Keeps the first `len` blocks.
    pub fn truncate(&mut self, len: usize) {
        self.len = usize::from(self.len).min(len) as u8;
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        // What was truncated is still in the array.
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

/// All options that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum Segment Size, in bytes of payload (RFC 9293 section 3.7.1). Only on a SYN.
    pub mss: Option<u16>,
    /// Window Scale, 0 to 14 (RFC 7323 section 2; more is read as 14). Only on a SYN.
    pub window_scale: Option<u8>,
    /// SACK-permitted (RFC 2018 section 2). Only on a SYN.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK.
    pub sack: SackBlocks,
}

impl Options {
    /// Reads the options of a header. Of several of one kind the last counts; blocks of SACK come together.
    ///
    /// What is malformed or unknown is passed over, an MSS of 0 too. Reading ends at an option whose length leads
    /// nowhere.
    #[inline]
    pub fn parse(bytes: &[u8], is_syn: bool) -> Self {
        // As nearly all segments have it (RFC 7323 appendix A).
        if let [NOP, NOP, TIMESTAMPS, TIMESTAMPS_LEN, v0, v1, v2, v3, e0, e1, e2, e3] = *bytes {
            let timestamps = Timestamps {
                val: u32::from_be_bytes([v0, v1, v2, v3]),
                ecr: u32::from_be_bytes([e0, e1, e2, e3]),
            };
            return Self { timestamps: Some(timestamps), ..Self::default() };
        }
        if bytes.is_empty() { Self::default() } else { Self::parse_any(bytes, is_syn) }
    }

    fn parse_any(bytes: &[u8], is_syn: bool) -> Self {
        let mut options = Self::default();
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            match *kind {
                END => break,
                NOP => rest = tail,
                //= rfc9293#3.1
                //# TCP implementations MUST be prepared to handle an illegal option length (e.g., zero); a
                //# suggested procedure is to reset the connection and log the error cause (MUST-7).
                _ => {
                    let len = tail.first().map_or(0, |len| usize::from(*len));
                    let Some((option, behind)) = rest.split_at_checked(len) else { break };
                    // The length counts itself and the kind.
                    if len < 2 {
                        break;
                    }
                    options.read(option, is_syn);
                    rest = behind;
                }
            }
        }
        options
    }

    /// One option, with its kind and length.
    fn read(&mut self, option: &[u8], is_syn: bool) {
        match *option {
            [MSS, _, high, low] if is_syn => {
                let mss = u16::from_be_bytes([high, low]);
                // Nobody can send segments of nothing.
                if mss != 0 {
                    self.mss = Some(mss);
                }
            }
            //= rfc7323#2.2
            //# A Window Scale option in a segment without a SYN bit MUST be ignored.
            //= rfc7323#2.3
            //# If a Window Scale option is received with a shift.cnt value larger than 14, the TCP
            //# SHOULD log the error but MUST use 14 instead of the specified value.
            [WINDOW_SCALE, _, shift] if is_syn => self.window_scale = Some(shift.min(WINDOW_SCALE_MAX)),
            [SACK_PERMITTED, _] if is_syn => self.sack_permitted = true,
            [TIMESTAMPS, _, v0, v1, v2, v3, e0, e1, e2, e3] => {
                self.timestamps = Some(Timestamps {
                    val: u32::from_be_bytes([v0, v1, v2, v3]),
                    ecr: u32::from_be_bytes([e0, e1, e2, e3]),
                });
            }
            [SACK, _, ref blocks @ ..] if !is_syn => {
                let (blocks, []) = blocks.as_chunks::<BLOCK_LEN>() else { return };
                for &[s0, s1, s2, s3, e0, e1, e2, e3] in blocks {
                    let start = Seq(u32::from_be_bytes([s0, s1, s2, s3]));
                    self.sack.push(start, Seq(u32::from_be_bytes([e0, e1, e2, e3])));
                }
            }
            //= rfc9293#3.1
            //# A TCP implementation MUST (MUST-6) ignore without error any TCP Option it does not implement,
            //# assuming that the option has a length field.
            _ => {}
        }
    }

    /// Bytes that they take in a header, as they are written: a multiple of 4, up to 40.
    #[inline]
    pub fn bytes(&self, is_syn: bool) -> usize {
        if is_syn {
            let mss = if self.mss.is_some() { 4 } else { 0 };
            // SACK-permitted stands where the padding of the timestamps would be.
            let middle = match (self.timestamps, self.sack_permitted) {
                (Some(_), _) => TIMESTAMPS_ROOM,
                (None, true) => 4,
                (None, false) => 0,
            };
            let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
            return mss + middle + window_scale;
        }
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_ROOM } else { 0 };
        match self.blocks().len() {
            0 => timestamps,
            blocks => timestamps + 4 + blocks * BLOCK_LEN,
        }
    }

    /// How many blocks of SACK find room beside the others, if it is no SYN: 3 or 4.
    #[inline]
    pub fn sack_blocks_max(&self) -> usize {
        let timestamps = if self.timestamps.is_some() { TIMESTAMPS_ROOM } else { 0 };
        (OPTIONS_LEN_MAX - timestamps - 4) / BLOCK_LEN
    }

    /// The blocks that find room.
    #[inline]
    fn blocks(&self) -> &[(Seq, Seq)] {
        let blocks = self.sack.as_slice();
        &blocks[..blocks.len().min(self.sack_blocks_max())]
    }

    /// Writes them into `room`, which has [`bytes`](Self::bytes) bytes; what goes beyond it is not written.
    ///
    /// All are aligned to four bytes, and nothing but NOP fills the gaps, so that readers with a short way for
    /// the common layouts find them.
    #[inline]
    pub fn write(&self, is_syn: bool, room: &mut [u8]) {
        let mut room = room;
        if is_syn {
            return self.write_syn(room);
        }
        if let Some(timestamps) = self.timestamps {
            timestamps.put(&mut room, [NOP, NOP]);
        }
        let blocks = self.blocks();
        if !blocks.is_empty() {
            put(&mut room, [NOP, NOP, SACK, (2 + blocks.len() * BLOCK_LEN) as u8]);
            for (start, end) in blocks {
                put(&mut room, start.0.to_be_bytes());
                put(&mut room, end.0.to_be_bytes());
            }
        }
    }

    fn write_syn(&self, mut room: &mut [u8]) {
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&mut room, [MSS, 4, high, low]);
        }
        match (self.timestamps, self.sack_permitted) {
            (Some(timestamps), true) => timestamps.put(&mut room, [SACK_PERMITTED, 2]),
            (Some(timestamps), false) => timestamps.put(&mut room, [NOP, NOP]),
            (None, true) => put(&mut room, [NOP, NOP, SACK_PERMITTED, 2]),
            (None, false) => {}
        }
        if let Some(shift) = self.window_scale {
            put(&mut room, [NOP, WINDOW_SCALE, 3, shift]);
        }
    }
}

impl Timestamps {
    /// Writes the option behind two bytes that align it.
    #[inline]
    fn put(self, room: &mut &mut [u8], before: [u8; 2]) {
        let [a, b] = before;
        put(room, [a, b, TIMESTAMPS, TIMESTAMPS_LEN]);
        put(room, self.val.to_be_bytes());
        put(room, self.ecr.to_be_bytes());
    }
}

/// Writes at the start of `room`, which is then what is behind.
#[inline]
fn put(room: &mut &mut [u8], word: [u8; 4]) {
    if let Some((first, behind)) = std::mem::take(room).split_first_chunk_mut() {
        *first = word;
        *room = behind;
    }
}

/// End of Option List.
const END: u8 = 0;
/// No-Operation.
const NOP: u8 = 1;
/// Maximum Segment Size.
const MSS: u8 = 2;
/// Window Scale.
const WINDOW_SCALE: u8 = 3;
/// SACK-permitted.
const SACK_PERMITTED: u8 = 4;
/// SACK.
const SACK: u8 = 5;
/// Timestamps.
const TIMESTAMPS: u8 = 8;
/// Bytes of the option.
const TIMESTAMPS_LEN: u8 = 10;
/// Bytes of it, aligned.
const TIMESTAMPS_ROOM: usize = 12;
/// Bytes of a block of SACK.
const BLOCK_LEN: usize = 8;
/// What more is read as.
const WINDOW_SCALE_MAX: u8 = 14;
