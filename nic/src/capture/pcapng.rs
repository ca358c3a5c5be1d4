//! A writer of pcapng files: what Wireshark and tcpdump read.
//!
//! ```text
//!   Section Header Block          byte order, program
//!   Interface Description Block   link type, snap length, name, unit of the timestamps; one or more
//!   Enhanced Packet Block …       interface, time, direction, lengths, frame
//!   Interface Statistics Block    at the end, if asked for: what the kernel has seen and dropped
//! ```
//!
//! The format is draft-ietf-opsawg-pcapng. All numbers are little-endian, so that a file does not depend
//! on the machine that wrote it. The timestamps of an interface count microseconds, as the clock of the
//! devices does, or nanoseconds, as the kernel's timestamps of frames do: see [`TimeUnit`].

use std::io;

use smoltcp::phy::Medium;
use smoltcp::time::Duration;

/// Writes frames as pcapng.
///
/// A block is assembled in memory and handed to the writer with one `write_all`, so a file ends with a
/// whole block unless the writer itself took half of one. The writer should buffer; see
/// [`flush`](Self::flush).
#[derive(Debug)]
pub struct PcapngWriter<W> {
    writer: W,
    /// The block that is assembled; reused, and as large as the largest so far.
    block: Vec<u8>,
    /// At least one.
    interfaces: Vec<Described>,
}

/// What later blocks need of an interface.
#[derive(Debug, Clone, Copy)]
struct Described {
    snap_len: u32,
    unit: TimeUnit,
}

/// What a capture file says about the interface.
#[derive(Debug, Clone, Copy)]
pub struct PcapngInterface<'a> {
    /// Name, as `ip link` shows it. Cut at 65 535 bytes, on a whole character.
    pub name: &'a str,
    /// What a frame starts with: an Ethernet header, or an IP header.
    pub medium: Medium,
    /// Bytes kept of each frame, from 1 to [`SNAP_LEN_MAX`]; 0 means that limit.
    pub snap_len: u32,
}

/// What the timestamps of an interface count (if_tsresol).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// 10^-6 s, which every reader knows.
    #[default]
    Micros,
    /// 10^-9 s.
    Nanos,
}

/// Number of an interface in a file, in the order in which they were described.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceId(u32);

impl InterfaceId {
    /// The first interface, which every file has.
    pub const FIRST: Self = Self(0);
}

/// What a capture file says at its end about what an interface has received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// When the capture began, in nanoseconds since 1 January 1970, UTC.
    pub start_nanos: u64,
    /// When it ended.
    pub end_nanos: u64,
    /// Frames that the interface has received and the filter has passed (isb_ifrecv).
    pub received: u64,
    /// Of these, frames for which there was no room (isb_ifdrop, where dumpcap puts them).
    pub dropped: u64,
}

/// Which way a frame went, as its interface sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

impl<W: io::Write> PcapngWriter<W> {
    /// Starts a file: writes the section and the interface, whose timestamps count microseconds.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(writer: W, interface: PcapngInterface<'_>) -> io::Result<Self> {
        Self::with_unit(writer, interface, TimeUnit::Micros)
    }

    /// As [`new`](Self::new), with a choice of what timestamps count.
    ///
    /// # Errors
    /// What the writer says.
    pub fn with_unit(writer: W, interface: PcapngInterface<'_>, unit: TimeUnit) -> io::Result<Self> {
        let mut this = Self { writer, block: Vec::new(), interfaces: Vec::new() };
        put_section(&mut this.block);
        this.describe(interface, unit)?;
        Ok(this)
    }

    /// Adds an interface, to whose frames [`write_frame_of`](Self::write_frame_of) gives its number.
    ///
    /// # Errors
    /// What the writer says.
    pub fn add_interface(
        &mut self,
        interface: PcapngInterface<'_>,
        unit: TimeUnit,
    ) -> io::Result<InterfaceId> {
        self.block.clear();
        self.describe(interface, unit)
    }

    /// Writes one frame of the first interface, of which at most the snap length is kept. `since_epoch`
    /// is its time: how long after 1 January 1970, UTC.
    ///
    /// # Errors
    /// What the writer says. It may have taken a part of the block: more frames would not be readable.
    pub fn write_frame(
        &mut self,
        since_epoch: Duration,
        direction: Direction,
        frame: &[u8],
    ) -> io::Result<()> {
        let Some(&Described { snap_len, unit }) = self.interfaces.first() else { return Ok(()) };
        let time = match unit {
            TimeUnit::Micros => since_epoch.total_micros(),
            TimeUnit::Nanos => since_epoch.total_micros().saturating_mul(1000),
        };
        self.block.clear();
        put_frame(&mut self.block, InterfaceId::FIRST, time, snap_len, direction, frame);
        self.writer.write_all(&self.block)
    }

    /// Writes one frame of any interface; `nanos` after 1 January 1970, UTC.
    ///
    /// # Errors
    /// As [`write_frame`](Self::write_frame); InvalidInput if this file has no such interface, and nothing
    /// was written.
    pub fn write_frame_of(
        &mut self,
        interface: InterfaceId,
        nanos: u64,
        direction: Direction,
        frame: &[u8],
    ) -> io::Result<()> {
        let Described { snap_len, unit } = self.described(interface)?;
        self.block.clear();
        put_frame(&mut self.block, interface, unit.of_nanos(nanos), snap_len, direction, frame);
        self.writer.write_all(&self.block)
    }

    /// Writes what an interface has received, at the end of a capture.
    ///
    /// # Errors
    /// As [`write_frame_of`](Self::write_frame_of).
    pub fn write_statistics(
        &mut self,
        interface: InterfaceId,
        statistics: &InterfaceStatistics,
    ) -> io::Result<()> {
        let unit = self.described(interface)?.unit;
        self.block.clear();
        put_statistics(&mut self.block, interface, unit, statistics);
        self.writer.write_all(&self.block)
    }

    /// Hands what the writer buffers to the file.
    ///
    /// # Errors
    /// What the writer says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// The writer.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// Ends the file. What the writer buffers is not flushed.
    pub fn into_inner(self) -> W {
        self.writer
    }

    fn describe(&mut self, interface: PcapngInterface<'_>, unit: TimeUnit) -> io::Result<InterfaceId> {
        let id = u32::try_from(self.interfaces.len()).map_err(|_| no_such_interface())?;
        put_interface(&mut self.block, &interface, unit);
        self.writer.write_all(&self.block)?;
        self.interfaces.push(Described { snap_len: effective_snap_len(interface.snap_len), unit });
        Ok(InterfaceId(id))
    }

    fn described(&self, interface: InterfaceId) -> io::Result<Described> {
        self.interfaces.get(interface.0 as usize).copied().ok_or_else(no_such_interface)
    }
}

impl TimeUnit {
    /// Nanoseconds as a count of this unit.
    fn of_nanos(self, nanos: u64) -> u64 {
        match self {
            Self::Micros => nanos / 1000,
            Self::Nanos => nanos,
        }
    }

    /// The negative power of ten, as if_tsresol has it.
    fn decimals(self) -> u8 {
        match self {
            Self::Micros => 6,
            Self::Nanos => 9,
        }
    }
}

fn no_such_interface() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "this file has no such interface")
}

/// The bytes that are kept of a frame, for a snap length that a user gave: 0 and more than
/// [`SNAP_LEN_MAX`] mean that limit.
pub(super) fn effective_snap_len(snap_len: u32) -> u32 {
    match snap_len {
        0 => SNAP_LEN_MAX,
        snap_len => snap_len.min(SNAP_LEN_MAX),
    }
}

/// Appends a Section Header Block.
pub(super) fn put_section(block: &mut Vec<u8>) {
    put_block(block, SECTION_HEADER, |block| {
        put_u32(block, BYTE_ORDER_MAGIC);
        // Version 1.0.
        block.extend_from_slice(&1u16.to_le_bytes());
        block.extend_from_slice(&0u16.to_le_bytes());
        // Length of the section: not known, read to the end.
        block.extend_from_slice(&u64::MAX.to_le_bytes());
        put_option(block, SHB_USERAPPL, b"wirestack");
        put_option(block, END_OF_OPTIONS, &[]);
    });
}

/// Appends an Interface Description Block.
pub(super) fn put_interface(block: &mut Vec<u8>, interface: &PcapngInterface<'_>, unit: TimeUnit) {
    let snap_len = effective_snap_len(interface.snap_len);
    put_block(block, INTERFACE_DESCRIPTION, |block| {
        block.extend_from_slice(&(link_type(interface.medium) as u16).to_le_bytes());
        block.extend_from_slice(&0u16.to_le_bytes());
        put_u32(block, snap_len);
        put_option(block, IF_NAME, cut(interface.name, usize::from(u16::MAX)).as_bytes());
        put_option(block, IF_TSRESOL, &[unit.decimals()]);
        put_option(block, END_OF_OPTIONS, &[]);
    });
}

/// Appends an Enhanced Packet Block: its time in the unit of its interface, and at most `snap_len` bytes
/// of the frame.
#[inline]
pub(super) fn put_frame(
    block: &mut Vec<u8>,
    interface: InterfaceId,
    time: u64,
    snap_len: u32,
    direction: Direction,
    frame: &[u8],
) {
    let original_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let captured_len = original_len.min(snap_len);
    let captured = frame.get(..captured_len as usize).unwrap_or(frame);
    let flags: u32 = match direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    };
    // Snap lengths are bounded, so the sum fits.
    let block_len = (FRAME_HEAD_LEN + captured.len().next_multiple_of(4) + FRAME_TAIL_LEN) as u32;
    // The high half of the time first, whatever the byte order.
    let head = [
        ENHANCED_PACKET,
        block_len,
        interface.0,
        (time >> 32) as u32,
        time as u32,
        captured_len,
        original_len,
    ];
    let tail = [u32::from(EPB_FLAGS) | 4 << 16, flags, u32::from(END_OF_OPTIONS), block_len];
    // This is the one block that comes by the million: two small arrays and the frame, not field by field.
    block.reserve(block_len as usize);
    block.extend_from_slice(head.map(u32::to_le_bytes).as_flattened());
    put_padded(block, captured);
    block.extend_from_slice(tail.map(u32::to_le_bytes).as_flattened());
}

/// Appends an Interface Statistics Block.
pub(super) fn put_statistics(
    block: &mut Vec<u8>,
    interface: InterfaceId,
    unit: TimeUnit,
    statistics: &InterfaceStatistics,
) {
    let InterfaceStatistics { start_nanos, end_nanos, received, dropped } = *statistics;
    let (start, end) = (unit.of_nanos(start_nanos), unit.of_nanos(end_nanos));
    let put_time = |block: &mut Vec<u8>, time: u64| {
        put_u32(block, (time >> 32) as u32);
        put_u32(block, time as u32);
    };
    put_block(block, INTERFACE_STATISTICS, |block| {
        put_u32(block, interface.0);
        put_time(block, end);
        for (code, time) in [(ISB_STARTTIME, start), (ISB_ENDTIME, end)] {
            put_u32(block, u32::from(code) | 8 << 16);
            put_time(block, time);
        }
        put_option(block, ISB_IFRECV, &received.to_le_bytes());
        put_option(block, ISB_IFDROP, &dropped.to_le_bytes());
        put_option(block, END_OF_OPTIONS, &[]);
    });
}

/// Appends a block: its type, its length on both sides, and the body that `put_body` appends.
fn put_block(block: &mut Vec<u8>, kind: u32, put_body: impl FnOnce(&mut Vec<u8>)) {
    let start = block.len();
    put_u32(block, kind);
    put_u32(block, 0);
    put_body(block);
    // A body is below the snap length and some options, so the length fits.
    let block_len = (block.len() - start + 4) as u32;
    put_u32(block, block_len);
    if let Some(field) = block.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&block_len.to_le_bytes());
    }
}

/// Number of the link type in capture files (tcpdump.org, "Link-layer header types").
pub(super) fn link_type(medium: Medium) -> u32 {
    match medium {
        Medium::Ethernet => LINKTYPE_ETHERNET,
        Medium::Ip => LINKTYPE_RAW,
    }
}

fn put_u32(block: &mut Vec<u8>, value: u32) {
    block.extend_from_slice(&value.to_le_bytes());
}

/// Appends bytes, and zeros up to a multiple of four.
fn put_padded(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(bytes);
    block.resize(block.len() + bytes.len().wrapping_neg() % 4, 0);
}

fn put_option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Values are constants of a few bytes, or were cut to fit.
    let value_len = value.len() as u16;
    block.extend_from_slice(&code.to_le_bytes());
    block.extend_from_slice(&value_len.to_le_bytes());
    put_padded(block, value);
}

/// The start of a text, at most `len_max` bytes.
fn cut(text: &str, len_max: usize) -> &str {
    let end = (0..=len_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// The largest snap length in bytes: that of tcpdump. Wireshark refuses files with a larger one.
pub const SNAP_LEN_MAX: u32 = 262_144;

/// Bytes of an Enhanced Packet Block in front of its frame.
const FRAME_HEAD_LEN: usize = 28;
/// Bytes behind it: the flags, the end of the options, the length of the block.
const FRAME_TAIL_LEN: usize = 16;

// Types of blocks.
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
pub(super) const ENHANCED_PACKET: u32 = 6;
// Options; the same code means different things in different blocks.
const END_OF_OPTIONS: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
/// Tells a reader the byte order.
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
const LINKTYPE_ETHERNET: u32 = 1;
const LINKTYPE_RAW: u32 = 101;
