//! Reading pcap and pcapng, one record at a time.
//!
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Both byte orders; pcap with microseconds
//! and nanoseconds; of pcapng the blocks with frames (enhanced, simple and the old packet block), several
//! interfaces and sections, and every resolution of timestamps. Other blocks are passed over.
//!
//! A file may be anything: lengths are checked before they are believed, no more is kept than one block,
//! and every step consumes bytes of the input.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use smoltcp::phy::Medium;

/// Why a file cannot be replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The first bytes are those of no capture.
    #[error("it begins with {magic:02x?} and is neither pcap nor pcapng{hint}")]
    NotACapture {
        /// The first four bytes, or as many as there are.
        magic: Vec<u8>,
        /// What it may be instead.
        hint: &'static str,
    },
    /// Its frames are of another kind.
    #[error(
        "its frames are of link type {link_type}; Ethernet (1) and raw IP (12, 101, 228, 229) are accepted"
    )]
    LinkType {
        /// The number of the first interface, as in tcpdump.org/linktypes.html.
        link_type: u32,
    },
    /// It contradicts itself.
    #[error("at byte {offset}: {problem}")]
    Corrupt {
        /// Where the record or block begins.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame of a file, in the buffer of its [`CaptureFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'f> {
    /// Nanoseconds since 1 January 1970. A simple packet block has the time of the record before.
    pub nanos: u64,
    /// The bytes that were captured.
    pub frame: &'f [u8],
    /// Bytes that the frame had on the wire; more than were captured, if it was cut.
    pub len: usize,
}

/// What was met beside whole frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Records of which the capture kept the beginning only.
    pub cut: u64,
    /// Records of interfaces with another kind of frame than the first, or of none.
    pub skipped: u64,
    /// Files that end within a record: 1 for each time that the file was read.
    pub truncated: u64,
}

/// A capture that is read.
#[derive(Debug)]
pub struct CaptureFile<R> {
    input: R,
    format: Format,
    big_endian: bool,
    /// Where the next record or block begins.
    offset: u64,
    interfaces: Vec<Interface>,
    medium: Medium,
    /// The last record or block.
    buffer: Vec<u8>,
    /// Where its frame is.
    frame: Range<usize>,
    len: usize,
    nanos: u64,
    stats: FileStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Pcap { nanos_per_tick: u64 },
    Pcapng,
}

/// An interface of a pcapng section.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: u32,
    snap_len: usize,
    /// `if_tsresol` as it is in the file.
    resolution: u8,
    offset_seconds: i64,
}

impl<R: Read> CaptureFile<R> {
    /// Reads the beginning of a capture, from the start of `input`, as far as is needed to know the kind of
    /// its frames. `input` should be buffered.
    ///
    /// # Errors
    /// It is no capture, or one of other frames.
    pub fn new(input: R) -> Result<Self, ReplayError> {
        let mut file = Self {
            input,
            format: Format::Pcapng,
            big_endian: false,
            offset: 0,
            interfaces: Vec::new(),
            medium: Medium::Ethernet,
            buffer: Vec::new(),
            frame: 0..0,
            len: 0,
            nanos: 0,
            stats: FileStats::default(),
        };
        file.begin()?;
        Ok(file)
    }

    /// Kind of the frames.
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// What was met so far.
    pub fn stats(&self) -> FileStats {
        self.stats
    }

    /// The frame that [`advance`](Self::advance) went on to.
    pub fn record(&self) -> Record<'_> {
        let frame = self.buffer.get(self.frame.clone()).unwrap_or_default();
        Record { nanos: self.nanos, frame, len: self.len }
    }

    /// Goes on to the next frame. False: the file has ended.
    ///
    /// # Errors
    /// The file is corrupt from here on, or cannot be read.
    pub fn advance(&mut self) -> Result<bool, ReplayError> {
        loop {
            let is_frame = match self.format {
                Format::Pcap { nanos_per_tick } => self.pcap_record(nanos_per_tick)?,
                Format::Pcapng => self.block()?,
            };
            match is_frame {
                None => return Ok(false),
                Some(true) => {
                    self.stats.cut += u64::from(self.frame.len() < self.len);
                    return Ok(true);
                }
                Some(false) => {}
            }
        }
    }

    fn begin(&mut self) -> Result<(), ReplayError> {
        self.offset = 0;
        self.interfaces.clear();
        self.buffer.clear();
        self.fill(4)?;
        let magic = self.buffer.first_chunk().copied().map_or(0, u32::from_le_bytes);
        (self.format, self.big_endian) = match (magic, magic.swap_bytes()) {
            (MAGIC_MICROS, _) => (Format::Pcap { nanos_per_tick: 1000 }, false),
            (_, MAGIC_MICROS) => (Format::Pcap { nanos_per_tick: 1000 }, true),
            (MAGIC_NANOS, _) => (Format::Pcap { nanos_per_tick: 1 }, false),
            (_, MAGIC_NANOS) => (Format::Pcap { nanos_per_tick: 1 }, true),
            (SECTION_HEADER, _) => (Format::Pcapng, false),
            _ => {
                let hint = match self.buffer[..] {
                    [0x1f, 0x8b, ..] => "; it is compressed: gunzip it first",
                    [0x28, 0xb5, ..] => "; it is compressed: unzstd it first",
                    _ => "",
                };
                return Err(ReplayError::NotACapture { magic: self.buffer.clone(), hint });
            }
        };
        match self.format {
            Format::Pcap { .. } => self.pcap_header(),
            Format::Pcapng => self.first_interface(),
        }
    }

    fn pcap_header(&mut self) -> Result<(), ReplayError> {
        if !self.fill(PCAP_HEADER_LEN)? {
            return Err(self.corrupt("the file ends within its header"));
        }
        // The upper bits say whether a frame check sequence follows each frame, which nobody writes.
        let link_type = self.word(20) & 0xffff;
        self.medium = medium_of(link_type).ok_or(ReplayError::LinkType { link_type })?;
        self.offset = PCAP_HEADER_LEN as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Reads blocks up to the first interface.
    fn first_interface(&mut self) -> Result<(), ReplayError> {
        while self.interfaces.is_empty() {
            if self.block()?.is_none() {
                return Err(self.corrupt("the file ends before it describes an interface"));
            }
        }
        let link_type = self.interfaces.first().map_or(0, |interface| interface.link_type);
        self.medium = medium_of(link_type).ok_or(ReplayError::LinkType { link_type })?;
        Ok(())
    }

    fn pcap_record(&mut self, nanos_per_tick: u64) -> Result<Option<bool>, ReplayError> {
        self.buffer.clear();
        if !self.fill(RECORD_HEADER_LEN)? {
            return Ok(None);
        }
        let frame_len = self.word(8) as usize;
        if frame_len > FRAME_LEN_MAX {
            return Err(self.corrupt("a record of more than 256 KiB"));
        }
        if !self.fill(RECORD_HEADER_LEN + frame_len)? {
            return Ok(None);
        }
        self.nanos = u64::from(self.word(0)) * 1_000_000_000 + u64::from(self.word(4)) * nanos_per_tick;
        self.frame = RECORD_HEADER_LEN..RECORD_HEADER_LEN + frame_len;
        self.len = self.word(12) as usize;
        self.offset += (RECORD_HEADER_LEN + frame_len) as u64;
        Ok(Some(true))
    }

    /// Reads a block. `Some(true)`: it has a frame for us.
    fn block(&mut self) -> Result<Option<bool>, ReplayError> {
        // The first four bytes of the file are there already.
        if self.offset > 0 {
            self.buffer.clear();
        }
        if !self.fill(BLOCK_LEN_MIN)? {
            return Ok(None);
        }
        let is_section = self.word(0) == SECTION_HEADER;
        if is_section {
            self.big_endian = match self.buffer.get(8..12).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) if u32::from_le_bytes(bytes) == BYTE_ORDER => false,
                Some(bytes) if u32::from_be_bytes(bytes) == BYTE_ORDER => true,
                _ => return Err(self.corrupt("a section header without a byte order")),
            };
            self.interfaces.clear();
        }
        let len = self.word(4) as usize;
        if len < BLOCK_LEN_MIN || !len.is_multiple_of(4) {
            return Err(self.corrupt("a block whose length is no multiple of 4 from 12 on"));
        }
        if len > BLOCK_LEN_MAX {
            return Err(self.corrupt("a block of more than 16 MiB"));
        }
        if !self.fill(len)? {
            return Ok(None);
        }
        if self.word(len - 4) as usize != len {
            return Err(self.corrupt("a block whose two lengths differ"));
        }
        let is_frame = match self.word(0) {
            INTERFACE_DESCRIPTION => self.interface(len - 4).map(|()| false)?,
            ENHANCED_PACKET => self.packet(self.word(8), 28, len - 4)?,
            OLD_PACKET => self.packet(u32::from(self.half(8)), 28, len - 4)?,
            SIMPLE_PACKET => self.simple_packet(len - 4)?,
            _ => false,
        };
        self.offset += len as u64;
        Ok(Some(is_frame))
    }

    fn interface(&mut self, end: usize) -> Result<(), ReplayError> {
        if end < 16 {
            return Err(self.corrupt("an interface block that is too short"));
        }
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(self.corrupt("more than 4096 interfaces"));
        }
        let mut interface = Interface {
            link_type: u32::from(self.half(8)),
            snap_len: self.word(12) as usize,
            resolution: 6,
            offset_seconds: 0,
        };
        let mut at = 16;
        while at + 4 <= end {
            let (code, len) = (self.half(at), usize::from(self.half(at + 2)));
            let Some(value) = self.buffer.get(at + 4..(at + 4 + len).min(end)) else { break };
            match (code, value) {
                (0, _) => break,
                (OPTION_RESOLUTION, &[resolution, ..]) => interface.resolution = resolution,
                (OPTION_OFFSET, value) if value.len() >= 8 => {
                    let (high, low) = (self.word(at + 4), self.word(at + 8));
                    let (high, low) = if self.big_endian { (high, low) } else { (low, high) };
                    interface.offset_seconds = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
                _ => {}
            }
            at += 4 + len.next_multiple_of(4);
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// An enhanced or old packet block: both have time, lengths and frame at the same places.
    fn packet(&mut self, interface: u32, start: usize, end: usize) -> Result<bool, ReplayError> {
        let frame_len = self.word(20) as usize;
        if start > end || frame_len > end - start {
            return Err(self.corrupt("a packet block that is shorter than its frame"));
        }
        let Some(interface) = self.ours(interface) else { return Ok(false) };
        let ticks = u64::from(self.word(12)) << 32 | u64::from(self.word(16));
        self.nanos = nanos(ticks, interface.resolution, interface.offset_seconds);
        self.len = self.word(24) as usize;
        self.frame = start..start + frame_len;
        Ok(true)
    }

    fn simple_packet(&mut self, end: usize) -> Result<bool, ReplayError> {
        let Some(room) = end.checked_sub(12) else {
            return Err(self.corrupt("a packet block that is too short"));
        };
        let Some(interface) = self.ours(0) else { return Ok(false) };
        self.len = self.word(8) as usize;
        let snap_len = if interface.snap_len == 0 { usize::MAX } else { interface.snap_len };
        self.frame = 12..12 + self.len.min(snap_len).min(room);
        Ok(true)
    }

    /// An interface whose frames are of the kind of the first one's.
    fn ours(&mut self, interface: u32) -> Option<Interface> {
        let found = self.interfaces.get(interface as usize).copied();
        let ours = found.filter(|interface| medium_of(interface.link_type) == Some(self.medium));
        self.stats.skipped += u64::from(ours.is_none());
        ours
    }

    /// Reads until the buffer holds `len` bytes. False: the input ends before, which is counted unless it
    /// ends between records.
    fn fill(&mut self, len: usize) -> Result<bool, ReplayError> {
        let missing = len.saturating_sub(self.buffer.len()) as u64;
        // Grows with what there is, not with what was promised.
        self.input.by_ref().take(missing).read_to_end(&mut self.buffer)?;
        let is_whole = self.buffer.len() >= len;
        self.stats.truncated += u64::from(!is_whole && !self.buffer.is_empty());
        Ok(is_whole)
    }

    fn corrupt(&self, problem: &'static str) -> ReplayError {
        ReplayError::Corrupt { offset: self.offset, problem }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.buffer.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn half(&self, at: usize) -> u16 {
        let bytes = self.buffer.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }
}

impl<R: Read + Seek> CaptureFile<R> {
    /// Goes back to the first record.
    ///
    /// # Errors
    /// The input cannot be sought or read (a pipe).
    pub fn rewind(&mut self) -> Result<(), ReplayError> {
        self.input.seek(SeekFrom::Start(0))?;
        self.begin()
    }
}

fn medium_of(link_type: u32) -> Option<Medium> {
    match link_type {
        1 => Some(Medium::Ethernet),
        // DLT_RAW of most systems, LINKTYPE_RAW, _IPV4, _IPV6.
        12 | 101 | 228 | 229 => Some(Medium::Ip),
        _ => None,
    }
}

/// Nanoseconds of a timestamp in ticks of `if_tsresol`: a power of 10, or with the highest bit, of 2.
fn nanos(ticks: u64, resolution: u8, offset_seconds: i64) -> u64 {
    let wide = u128::from(ticks) * 1_000_000_000;
    let exponent = u32::from(resolution & 0x7f);
    let nanos = if resolution & 0x80 == 0 {
        10u128.checked_pow(exponent).map_or(0, |ticks_per_second| wide / ticks_per_second)
    } else {
        wide >> exponent
    };
    let offset = i128::from(offset_seconds) * 1_000_000_000;
    let sum = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset);
    u64::try_from(sum.max(0)).unwrap_or(u64::MAX)
}

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;
const PCAP_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
const BLOCK_LEN_MIN: usize = 12;
/// The longest frame that tcpdump keeps (MAXIMUM_SNAPLEN).
const FRAME_LEN_MAX: usize = 262_144;
const BLOCK_LEN_MAX: usize = 16 << 20;
const INTERFACES_MAX: usize = 4096;
