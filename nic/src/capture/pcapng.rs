//! A writer of pcapng files with one interface: what Wireshark and tcpdump read.
//!
//! ```text
//!   Section Header Block          byte order, program
//!   Interface Description Block   link type, snap length, name, unit of the timestamps
//!   Enhanced Packet Block …       time, direction, lengths, frame
//! ```
//!
//! The format is draft-ietf-opsawg-pcapng. All numbers are little-endian, so that a file does not depend
//! on the machine that wrote it; timestamps count microseconds, as the clock of the devices does.

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
    snap_len: u32,
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

/// Which way a frame went, as its interface sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

impl<W: io::Write> PcapngWriter<W> {
    /// Starts a file: writes the section and the interface.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(writer: W, interface: PcapngInterface<'_>) -> io::Result<Self> {
        let snap_len = match interface.snap_len {
            0 => SNAP_LEN_MAX,
            snap_len => snap_len.min(SNAP_LEN_MAX),
        };
        let mut this = Self { writer, block: Vec::new(), snap_len };
        this.put_section();
        this.put_interface(&interface);
        this.writer.write_all(&this.block)?;
        Ok(this)
    }

    /// Writes one frame, of which at most the snap length is kept. `since_epoch` is its time: how long
    /// after 1 January 1970, UTC.
    ///
    /// # Errors
    /// What the writer says. It may have taken a part of the block: more frames would not be readable.
    pub fn write_frame(
        &mut self,
        since_epoch: Duration,
        direction: Direction,
        frame: &[u8],
    ) -> io::Result<()> {
        let original_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let captured_len = original_len.min(self.snap_len);
        let captured = frame.get(..captured_len as usize).unwrap_or(frame);
        let micros = since_epoch.total_micros();
        self.block.clear();
        self.put_block(ENHANCED_PACKET, |block| {
            put_u32(block, INTERFACE_ID);
            // The high half first, whatever the byte order.
            put_u32(block, (micros >> 32) as u32);
            put_u32(block, micros as u32);
            put_u32(block, captured_len);
            put_u32(block, original_len);
            put_padded(block, captured);
            let flags: u32 = match direction {
                Direction::Inbound => 1,
                Direction::Outbound => 2,
            };
            put_option(block, EPB_FLAGS, &flags.to_le_bytes());
            put_option(block, END_OF_OPTIONS, &[]);
        });
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

    fn put_section(&mut self) {
        self.put_block(SECTION_HEADER, |block| {
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

    fn put_interface(&mut self, interface: &PcapngInterface<'_>) {
        let link_type: u16 = match interface.medium {
            Medium::Ethernet => LINKTYPE_ETHERNET,
            Medium::Ip => LINKTYPE_RAW,
        };
        let snap_len = self.snap_len;
        self.put_block(INTERFACE_DESCRIPTION, |block| {
            block.extend_from_slice(&link_type.to_le_bytes());
            block.extend_from_slice(&0u16.to_le_bytes());
            put_u32(block, snap_len);
            put_option(block, IF_NAME, cut(interface.name, usize::from(u16::MAX)).as_bytes());
            put_option(block, IF_TSRESOL, &[TIMESTAMP_DECIMALS]);
            put_option(block, END_OF_OPTIONS, &[]);
        });
    }

    /// Appends a block: its type, its length on both sides, and the body that `put_body` appends.
    fn put_block(&mut self, kind: u32, put_body: impl FnOnce(&mut Vec<u8>)) {
        let block = &mut self.block;
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

// Types of blocks.
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
// Options; the same code means different things in different blocks.
const END_OF_OPTIONS: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
/// Tells a reader the byte order.
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
/// Timestamps count units of 10^-6 s.
const TIMESTAMP_DECIMALS: u8 = 6;
/// The first and only interface.
const INTERFACE_ID: u32 = 0;
const LINKTYPE_ETHERNET: u16 = 1;
const LINKTYPE_RAW: u16 = 101;
