//! CSLIP: SLIP with the headers of TCP compressed (RFC 1144), forty bytes to about five.
//!
//! ```text
//!   0x4_, 0x6_  a packet as it is: not TCP over IPv4, fragments, SYN, FIN, RST
//!   0x7_        a packet with a connection number in place of the protocol; the receiver keeps its header
//!   0x8_ .. 0xf_  change mask, [connection number], checksum of TCP, what has changed since; payload
//! ```
//!
//! Each compressed header is a difference to the one before, so one that is lost makes those behind it wrong. What is
//! done about that, beyond RFC 1144, whose receiver leaves it to TCP's checksum at the very end:
//!
//! * The receiver verifies that checksum itself. What is wrong does not go up and changes nothing.
//! * After an error on the line it wants a whole header of each connection before it goes on with that. A sum confirms the
//!   changes of all fields together, and what a lost frame has changed in one may cancel out with another.
//! * The sender says the connection number more often than it must, and sends a whole header every 4000 bytes of a
//!   connection, beside those that RFC 1144 wants: on a retransmission, and when something else has changed. Those are
//!   followed by two more, lest one that is lost goes unnoticed.
//!
//! What that checksum does not cover may be that of an older packet after a loss that nobody has noticed, until the next
//! whole header: identification, type of service and time to live of IP. And a sum does not see a lost acknowledgment by
//! whose number the window has become smaller: for so long, the acknowledgments are older, with the right end of the
//! window.
//!
//! All of it is within RFC 1144: either side works with one that does nothing of this. On a line that damages frames,
//! CSLIP should have the CRC: two wrong bits in a mask can move a change to another field, and no sum sees it.
//!
//! A stack that gives a connection's packets consecutive identifications saves three bytes in each of them.

mod compress;
mod expand;
mod header;

use self::compress::Compressor;
use self::expand::Expander;
use super::framing::{Decoded, Framing, FramingConfig};
use super::slip::is_ip;
use super::slip::stuff::{Stuffer, Unstuffed, Unstuffer};

/// How many connections both sides keep if nothing else is agreed upon (RFC 1144 appendix A.1).
pub const CONNECTIONS_DEFAULT: u8 = 16;

/// The framing of RFC 1144 on that of RFC 1055.
#[derive(Debug)]
pub struct Cslip {
    stuffer: Stuffer,
    unstuffer: Unstuffer,
    compressor: Compressor,
    expander: Expander,
}

impl Cslip {
    /// For a line that begins now. `connections_max` is how many connections are sent compressed at a time, 3 to 254
    /// (what is less or more counts as these), and no more than the other side keeps: 16 as a rule. We keep as many as
    /// it likes.
    pub fn new(config: FramingConfig, connections_max: u8) -> Self {
        Self {
            stuffer: Stuffer::new(&config),
            unstuffer: Unstuffer::new(&config),
            compressor: Compressor::new(connections_max.clamp(3, 254)),
            expander: Expander::new(&config),
        }
    }
}

impl Framing for Cslip {
    fn encode(&mut self, packet: &[u8], out: &mut Vec<u8>) {
        if !is_ip(packet) {
            return;
        }
        let head = self.compressor.compress(packet);
        let rest = packet.get(head.replaced_bytes..).unwrap_or_default();
        self.stuffer.frame(&[head.bytes(), rest], out);
    }

    fn decode<'a>(&'a mut self, input: &'a [u8]) -> (usize, Decoded<'a>) {
        let (taken, unstuffed) = self.unstuffer.decode(input);
        let decoded = match unstuffed {
            Unstuffed::Nothing => Decoded::Nothing,
            Unstuffed::Garbage(error, line_bytes) => {
                self.expander.note_loss();
                Decoded::Garbage(error, line_bytes)
            }
            Unstuffed::Frame(frame, line_bytes) => match self.expander.expand(frame) {
                Ok(packet) => Decoded::Packet(packet),
                Err(error) => Decoded::Garbage(error, line_bytes),
            },
        };
        (taken, decoded)
    }

    fn note_loss(&mut self) {
        self.unstuffer.note_loss();
        self.expander.note_loss();
    }

    fn reset(&mut self) {
        self.unstuffer.reset();
        self.compressor.reset();
        self.expander.reset();
    }
}

#[cfg(test)]
mod tests;
