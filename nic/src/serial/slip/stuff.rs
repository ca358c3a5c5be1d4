//! Frames between END bytes: what SLIP and CSLIP have in common.

use crate::serial::crc::{self, CRC_LEN, Fcs16};
use crate::serial::framing::{FrameError, FramingConfig};

/// Between frames (RFC 1055).
pub(in crate::serial) const END: u8 = 0xc0;
/// Before a byte that stands for another.
pub(in crate::serial) const ESC: u8 = 0xdb;
pub(super) const ESC_END: u8 = 0xdc;
pub(super) const ESC_ESC: u8 = 0xdd;
/// Not in RFC 1055: how XON and XOFF are sent where the line takes them for itself.
pub(super) const ESC_XON: u8 = 0xde;
pub(super) const ESC_XOFF: u8 = 0xdf;
pub(super) const XON: u8 = 0x11;
pub(super) const XOFF: u8 = 0x13;

/// Writes frames.
#[derive(Debug, Clone, Copy)]
pub(in crate::serial) struct Stuffer {
    crc: bool,
    escapes_flow_control: bool,
}

impl Stuffer {
    pub(in crate::serial) fn new(config: &FramingConfig) -> Self {
        Self { crc: config.crc, escapes_flow_control: config.escapes_flow_control }
    }

    /// Appends a frame of these parts.
    ///
    /// Each has an END of its own at both sides, between frames as well: a byte more, and a lost END costs no frame.
    pub(in crate::serial) fn frame(&self, parts: &[&[u8]], out: &mut Vec<u8>) {
        // RFC 1055, "Protocol": an END before a packet flushes the noise of an idle line.
        out.push(END);
        let mut crc = Fcs16::new();
        for part in parts {
            if self.crc {
                crc.update(part);
            }
            self.escape(part, out);
        }
        if self.crc {
            self.escape(&crc.finish(), out);
        }
        out.push(END);
    }

    fn escape(&self, mut rest: &[u8], out: &mut Vec<u8>) {
        out.reserve(rest.len());
        while let Some((plain, special, tail)) = self.next_special(rest).and_then(|at| split_around(rest, at))
        {
            out.extend_from_slice(plain);
            out.extend_from_slice(&[ESC, code_of(special)]);
            rest = tail;
        }
        out.extend_from_slice(rest);
    }

    fn next_special(&self, bytes: &[u8]) -> Option<usize> {
        if self.escapes_flow_control {
            return bytes.iter().position(|byte| matches!(*byte, END | ESC | XON | XOFF));
        }
        memchr::memchr2(END, ESC, bytes)
    }
}

/// What [`Unstuffer::decode`] found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::serial) enum Unstuffed<'a> {
    Nothing,
    /// What was framed, without its CRC, and how many bytes of the line that was.
    Frame(&'a [u8], usize),
    Garbage(FrameError, usize),
}

/// Reads frames. It keeps one at most, and of that no more bytes than a frame may have.
#[derive(Debug)]
pub(in crate::serial) struct Unstuffer {
    crc: bool,
    drops_flow_control: bool,
    frame_max: usize,
    /// The frame so far, or the one that was lent by the last call.
    buffer: Vec<u8>,
    is_lent: bool,
    is_escaped: bool,
    /// Why the bytes up to the next END are no frame.
    failure: Option<FrameError>,
    /// Bytes since the last END, or since the last that were told of.
    line_bytes: usize,
}

impl Unstuffer {
    pub(in crate::serial) fn new(config: &FramingConfig) -> Self {
        let crc_len = if config.crc { CRC_LEN } else { 0 };
        Self {
            crc: config.crc,
            drops_flow_control: config.escapes_flow_control,
            frame_max: config.packet_max.min(PACKET_MAX) + crc_len,
            buffer: Vec::new(),
            is_lent: false,
            is_escaped: false,
            failure: None,
            line_bytes: 0,
        }
    }

    pub(in crate::serial) fn decode<'a>(&'a mut self, input: &'a [u8]) -> (usize, Unstuffed<'a>) {
        if std::mem::take(&mut self.is_lent) {
            self.buffer.clear();
        }
        let is_between = self.line_bytes == 0 && self.failure.is_none();
        // The frame of somebody who begins with an END, in one call.
        let ends = if is_between { input.iter().take_while(|byte| **byte == END).count() } else { 0 };
        let (_, rest) = input.split_at(ends);
        let Some((body, _, tail)) = memchr::memchr(END, rest).and_then(|at| split_around(rest, at)) else {
            self.absorb(rest);
            return (input.len(), self.endless());
        };
        let taken = input.len() - tail.len();
        if is_between && body.len() <= self.frame_max && self.is_plain(body) {
            // All of it lies in the input as it was framed: nothing is copied.
            return (taken, self.judge(body, body.len()));
        }
        self.absorb(body);
        (taken, self.end())
    }

    pub(in crate::serial) fn note_loss(&mut self) {
        self.fail(FrameError::Lost);
        self.is_lent = false;
    }

    pub(in crate::serial) fn reset(&mut self) {
        self.buffer.clear();
        self.is_lent = false;
        self.is_escaped = false;
        self.failure = None;
        self.line_bytes = 0;
    }

    /// Whether a frame is on the line as it is.
    fn is_plain(&self, body: &[u8]) -> bool {
        let special = if self.drops_flow_control {
            memchr::memchr3(ESC, XON, XOFF, body)
        } else {
            memchr::memchr(ESC, body)
        };
        special.is_none()
    }

    /// Takes bytes between two END.
    fn absorb(&mut self, mut rest: &[u8]) {
        self.line_bytes = self.line_bytes.saturating_add(rest.len());
        while self.failure.is_none() && !rest.is_empty() {
            if self.is_escaped {
                rest = self.unescape(rest);
                continue;
            }
            let special = if self.drops_flow_control {
                memchr::memchr3(ESC, XON, XOFF, rest)
            } else {
                memchr::memchr(ESC, rest)
            };
            let Some((plain, special, tail)) = special.and_then(|at| split_around(rest, at)) else {
                return self.keep(rest);
            };
            self.keep(plain);
            // XON and XOFF that nobody has escaped are from the equipment on the way, not from our peer.
            self.is_escaped = special == ESC;
            rest = tail;
        }
    }

    /// Takes the byte behind an ESC.
    fn unescape<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some((code, tail)) = rest.split_first() else { return rest };
        match meaning_of(*code, self.drops_flow_control) {
            Some(byte) => self.keep(&[byte]),
            None if self.drops_flow_control && matches!(*code, XON | XOFF) => return tail,
            // The code of RFC 1055 leaves such a byte in. But it is what an error on the line makes, or a lost byte, and there
            // is no checksum behind us that everything has: a packet that is known to be damaged is none.
            None => self.fail(FrameError::BadEscape),
        }
        self.is_escaped = false;
        tail
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.buffer.len().saturating_add(bytes.len()) > self.frame_max {
            return self.fail(FrameError::TooLong);
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn fail(&mut self, failure: FrameError) {
        self.failure = Some(failure);
        self.is_escaped = false;
        self.buffer.clear();
    }

    /// What an END ends.
    fn end(&mut self) -> Unstuffed<'_> {
        let line_bytes = std::mem::take(&mut self.line_bytes);
        let failure = self.failure.take();
        if std::mem::take(&mut self.is_escaped) {
            self.buffer.clear();
            return Unstuffed::Garbage(FrameError::BadEscape, line_bytes);
        }
        match failure {
            Some(_) if line_bytes == 0 => Unstuffed::Nothing,
            Some(failure) => Unstuffed::Garbage(failure, line_bytes),
            None => {
                self.is_lent = true;
                self.judge(&self.buffer, line_bytes)
            }
        }
    }

    /// Tells of garbage that does not end, from time to time.
    fn endless(&mut self) -> Unstuffed<'_> {
        if self.failure.is_none()
            || self.line_bytes < self.frame_max.saturating_mul(2).saturating_add(ENDLESS_BYTES)
        {
            return Unstuffed::Nothing;
        }
        self.failure = Some(FrameError::NoEnd);
        Unstuffed::Garbage(FrameError::NoEnd, std::mem::take(&mut self.line_bytes))
    }

    fn judge<'a>(&self, frame: &'a [u8], line_bytes: usize) -> Unstuffed<'a> {
        match frame {
            [] => Unstuffed::Nothing,
            _ if !self.crc => Unstuffed::Frame(frame, line_bytes),
            _ => match crc::checked(frame) {
                Some(body) => Unstuffed::Frame(body, line_bytes),
                None => Unstuffed::Garbage(FrameError::BadCrc, line_bytes),
            },
        }
    }
}

/// The bytes before, at and behind a place.
fn split_around(bytes: &[u8], at: usize) -> Option<(&[u8], u8, &[u8])> {
    let (before, rest) = bytes.split_at_checked(at)?;
    let (byte, behind) = rest.split_first()?;
    Some((before, *byte, behind))
}

fn code_of(special: u8) -> u8 {
    match special {
        END => ESC_END,
        XON => ESC_XON,
        XOFF => ESC_XOFF,
        _ => ESC_ESC,
    }
}

fn meaning_of(code: u8, has_flow_control: bool) -> Option<u8> {
    match code {
        ESC_END => Some(END),
        ESC_ESC => Some(ESC),
        ESC_XON if has_flow_control => Some(XON),
        ESC_XOFF if has_flow_control => Some(XOFF),
        _ => None,
    }
}

/// What an IP packet may have.
const PACKET_MAX: usize = 65535;

/// Bytes without an END, beyond the longest frame with every byte escaped, that are told of at once: a peer that
/// speaks something else may never send one.
const ENDLESS_BYTES: usize = 1024;
