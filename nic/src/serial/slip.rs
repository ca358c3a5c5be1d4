//! SLIP (RFC 1055): IP packets between END bytes, and nothing else.
//!
//! ```text
//!   END  packet, in it  END as ESC ESC_END, ESC as ESC ESC_ESC  [CRC]  END
//! ```
//!
//! SLIP has no checksum, no length and no type. So what comes between two END counts as a packet only if it looks
//! like one: see [`FrameError::NotIp`]. The CRC and the escapes of XON and XOFF are our own, for lines with us at
//! both ends.

pub(super) mod stuff;

use self::stuff::{Stuffer, Unstuffed, Unstuffer};
use super::framing::{Decoded, FrameError, Framing, FramingConfig};
use crate::offload::sum;

/// The framing of RFC 1055.
#[derive(Debug)]
pub struct Slip {
    stuffer: Stuffer,
    unstuffer: Unstuffer,
}

impl Slip {
    /// For a line that begins now.
    pub fn new(config: FramingConfig) -> Self {
        Self { stuffer: Stuffer::new(&config), unstuffer: Unstuffer::new(&config) }
    }
}

impl Framing for Slip {
    fn encode(&mut self, packet: &[u8], out: &mut Vec<u8>) {
        if is_ip(packet) {
            self.stuffer.frame(&[packet], out);
        }
    }

    fn decode<'a>(&'a mut self, input: &'a [u8]) -> (usize, Decoded<'a>) {
        let (taken, unstuffed) = self.unstuffer.decode(input);
        let decoded = match unstuffed {
            Unstuffed::Nothing => Decoded::Nothing,
            Unstuffed::Garbage(error, line_bytes) => Decoded::Garbage(error, line_bytes),
            Unstuffed::Frame(frame, line_bytes) => match packet_len(frame).and_then(|len| frame.get(..len)) {
                Some(packet) => Decoded::Packet(packet),
                None => Decoded::Garbage(FrameError::NotIp, line_bytes),
            },
        };
        (taken, decoded)
    }

    fn note_loss(&mut self) {
        self.unstuffer.note_loss();
    }

    fn reset(&mut self) {
        self.unstuffer.reset();
    }
}

/// Whether the version is one of IP.
pub(super) fn is_ip(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| matches!(first >> 4, 4 | 6))
}

/// Bytes of the IP packet at the beginning of a frame, if there is one.
///
/// An IPv4 packet may be followed by something: a sender may have padded it, or an END was lost and this is two
/// frames of which the first is whole; its header has a checksum of its own that says where it ends. The header of
/// IPv6 has none, so there the length has to be that of the frame: the best proof that this is no garbage.
pub(super) fn packet_len(frame: &[u8]) -> Option<usize> {
    let (header, _) = frame.split_first_chunk::<20>()?;
    match header[0] >> 4 {
        4 => {
            let header_len = usize::from(header[0] & 0x0f) * 4;
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let is_right = header_len >= 20
                && len >= header_len
                && len <= frame.len()
                && sum::data(frame.get(..header_len)?) == 0xffff;
            is_right.then_some(len)
        }
        6 => {
            let len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
            (len == frame.len()).then_some(len)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
