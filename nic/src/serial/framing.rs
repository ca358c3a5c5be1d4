//! How packets become bytes on a line, and bytes packets again.

use std::fmt;

/// A way to put packets on a line of bytes. SLIP and CSLIP are two; PPP would be a third: what it has to say of its own
/// (negotiation, echo) leaves through [`poll_control`](Framing::poll_control).
///
/// A framing is a machine without I/O and without a clock. Bytes may come in pieces of any size and may be anything;
/// what it keeps is bounded by its configuration.
pub trait Framing: fmt::Debug + Send {
    /// Appends the frame of an IP packet to `out`, and nothing if the packet cannot be framed.
    ///
    /// Frames have to leave in the order in which they were made, each of them: what a framing says of a packet may
    /// depend on those before.
    fn encode(&mut self, packet: &[u8], out: &mut Vec<u8>);

    /// Takes bytes from the front of `input`, up to the end of a packet at most. Returns how many it took (not none, if
    /// there were some), and what they were. The packet lies in `input` or in a buffer of the framing.
    fn decode<'a>(&'a mut self, input: &'a [u8]) -> (usize, Decoded<'a>);

    /// Bytes were lost on the way to us, as many as nobody knows: what comes next may be the middle of a frame.
    fn note_loss(&mut self);

    /// The line has begun anew, with somebody at its other end who knows nothing.
    fn reset(&mut self);

    /// Appends a frame that is the framing's own business, if there is one to be sent.
    fn poll_control(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Whether packets can be sent; a framing that negotiates says no until it has.
    fn is_open(&self) -> bool {
        true
    }
}

/// What bytes of a line were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Nothing yet, or nothing that matters (an empty frame).
    Nothing,
    /// An IP packet.
    Packet(&'a [u8]),
    /// The end of something that was no packet, or a part of something that does not end; so many bytes of the line,
    /// escapes counted, END bytes not.
    Garbage(FrameError, usize),
}

/// Why bytes were no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It is longer than may be, and was not kept.
    #[error("the frame is too long")]
    TooLong,
    /// An escape byte stands before something that is not escaped.
    #[error("a wrong byte follows an escape")]
    BadEscape,
    /// Bytes were lost in it or before it, as [`Framing::note_loss`] said.
    #[error("bytes were lost")]
    Lost,
    /// Much more than a frame has come without an end of one.
    #[error("no end of a frame")]
    NoEnd,
    /// The CRC is another, or there is no room for one.
    #[error("the checksum of the frame is wrong")]
    BadCrc,
    /// It does not begin like a packet, or is shorter than it says.
    #[error("not an IP packet")]
    NotIp,
    /// A compressed header that belongs to no known connection, or says impossible things.
    #[error("a compressed header that makes no sense")]
    BadHeader,
    /// A compressed header after a loss, before a whole one has come (RFC 1144 section 4.1).
    #[error("a compressed header after a loss")]
    Tossed,
    /// The checksum of TCP is wrong behind a compressed header: something before it was lost.
    #[error("the checksum of a compressed segment is wrong")]
    BadSegment,
}

/// What both ends of a line agree upon, by their flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramingConfig {
    /// Bytes of the longest packet that is taken from the line; a longer one is [`FrameError::TooLong`]. Not more than
    /// 65535.
    pub packet_max: usize,
    /// A CRC-16 (that of HDLC, RFC 1662 appendix C) at the end of every frame. Both ends have it or none.
    pub crc: bool,
    /// XON and XOFF are escaped too, for a line on which they stop the sender. Both ends have it or none.
    pub escapes_flow_control: bool,
}
