//! The receiver's side of RFC 1144 (appendix A.3), which believes nothing that the checksum of TCP does not confirm.

use super::header::{
    Header, IP_PROTOCOL, NEW_A, NEW_C, NEW_I, NEW_S, NEW_U, NEW_W, PROTOCOL_TCP, PUSH, SPECIAL_D, SPECIAL_I,
    SPECIALS_MASK,
};
use crate::offload::sum;
use crate::serial::framing::{FrameError, FramingConfig};
use crate::serial::slip::packet_len;

/// The connections of which a header has come.
#[derive(Debug, Clone)]
pub(super) struct Expander {
    /// By connection number: whatever the other side may use, since it does not tell how many it has.
    slots: Vec<Option<Box<Slot>>>,
    last_received: Option<u8>,
    /// A frame was lost: which connection the next one is of, only it can say.
    is_tossing: bool,
    /// Goes up with every error on the line. What was known before is not gone on from.
    errors: u64,
    /// The last packet that was put together.
    packet: Vec<u8>,
    packet_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    header: Header,
    /// The last segment could not be put together: one before it was lost.
    is_wrong: bool,
    /// Errors on the line when it was last as it should be.
    errors: u64,
}

/// What a frame holds.
enum Whole {
    /// A packet of so many bytes.
    AsIs(usize),
    /// One that was put together.
    Expanded,
}

impl Expander {
    pub(super) fn new(config: &FramingConfig) -> Self {
        Self {
            slots: vec![None; NUMBERS],
            last_received: None,
            is_tossing: true,
            errors: 0,
            packet: Vec::new(),
            packet_max: config.packet_max.min(65535),
        }
    }

    pub(super) fn reset(&mut self) {
        self.slots.fill(None);
        self.last_received = None;
        self.is_tossing = true;
        self.packet.clear();
    }

    pub(super) fn note_loss(&mut self) {
        self.is_tossing = true;
        self.errors += 1;
    }

    /// The packet that was framed.
    pub(super) fn expand<'a>(&'a mut self, frame: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let whole = match frame.first().map_or(0, |first| first >> 4) {
            4 | 6 => packet_len(frame).map(Whole::AsIs).ok_or(FrameError::NotIp),
            7 => self.take_uncompressed(frame),
            8.. => self.take_compressed(frame),
            _ => Err(FrameError::NotIp),
        };
        match whole {
            Ok(Whole::AsIs(len)) => frame.get(..len).ok_or(FrameError::NotIp),
            Ok(Whole::Expanded) => Ok(&self.packet),
            // Which of the connections it is, is known, and that was written down.
            Err(error @ (FrameError::Tossed | FrameError::BadSegment)) => {
                self.is_tossing = true;
                Err(error)
            }
            Err(error) => {
                self.note_loss();
                Err(error)
            }
        }
    }

    fn take_uncompressed(&mut self, frame: &[u8]) -> Result<Whole, FrameError> {
        self.packet.clear();
        self.packet.extend_from_slice(frame);
        let (Some(first), Some(number)) = (frame.first(), frame.get(IP_PROTOCOL)) else {
            return Err(FrameError::NotIp);
        };
        for (at, byte) in [(0, 0x40 | (first & 0x0f)), (IP_PROTOCOL, PROTOCOL_TCP)] {
            if let Some(place) = self.packet.get_mut(at) {
                *place = byte;
            }
        }
        self.packet.truncate(packet_len(&self.packet).ok_or(FrameError::NotIp)?);
        let slot = self.slots.get_mut(usize::from(*number)).ok_or(FrameError::BadHeader)?;
        // Whatever this is, the sender does not go on from what we had.
        *slot = None;
        let header = Header::parse(&self.packet).ok_or(FrameError::BadHeader)?;
        let payload = self.packet.get(header.len()..).unwrap_or_default();
        if !header.is_compressible() {
            return Err(FrameError::BadHeader);
        }
        if !header.is_sum_right(sum::data(payload)) {
            return Err(FrameError::BadSegment);
        }
        *slot = Some(Box::new(Slot { header, is_wrong: false, errors: self.errors }));
        self.last_received = Some(*number);
        self.is_tossing = false;
        Ok(Whole::Expanded)
    }

    fn take_compressed(&mut self, frame: &[u8]) -> Result<Whole, FrameError> {
        let mut fields = Fields(frame);
        let mask = fields.u8()?;
        let number = if mask & NEW_C != 0 {
            fields.u8()?
        } else {
            //= rfc1144#A.3
            //# this packet has an implicit state index.  If we've
            //# had a line error since the last time we got an
            //# explicit state index, we have to toss the packet.
            self.last_received.filter(|_| !self.is_tossing).ok_or(FrameError::Tossed)?
        };
        let slot =
            self.slots.get_mut(usize::from(number)).and_then(Option::as_mut).ok_or(FrameError::BadHeader)?;
        // RFC 1144 goes on where the connection is said. But the frame that was lost may be one of this connection, and what
        // it has changed may cancel out in the sum by which this one is judged. So a whole header has to come first.
        if slot.is_wrong || slot.errors != self.errors {
            return Err(FrameError::Tossed);
        }
        let checksum = fields.u16()?;
        let step = Step::read(mask, checksum, &mut fields, &slot.header)?;
        let payload = fields.0;
        let total_len = slot.header.len().saturating_add(payload.len());
        let is_short = total_len <= self.packet_max;
        let total_len = u16::try_from(total_len).ok().filter(|_| is_short).ok_or(FrameError::TooLong)?;
        slot.advance(&step, total_len, sum::data(payload))?;
        let header = slot.header;
        self.last_received = Some(number);
        self.is_tossing = false;
        self.packet.clear();
        self.packet.extend_from_slice(header.bytes());
        self.packet.extend_from_slice(payload);
        Ok(Whole::Expanded)
    }
}

impl Slot {
    /// Goes on to the next header, if the checksum is right with it. If it is not, the frame is damaged, or one before it
    /// was lost.
    ///
    /// RFC 2507 section 10.1 then tries whether the frames that are missing had the changes of this one. But a sum
    /// confirms that the changes of all fields together are right, and not each: an acknowledgment that was lost, of as many
    /// bytes as a segment has, would move the data of this one.
    fn advance(&mut self, step: &Step, total_len: u16, payload_sum: u16) -> Result<(), FrameError> {
        let mut header = self.header;
        // A pointer that counts no more is 0, in every stack that is known, and a whole header has said so, which was
        // lost: by as much as that sum is too large now, the one of the sequence number may be too small.
        let is_left = step.urgent.is_none() && header.is_urgent() && header.urgent() != 0;
        step.apply(&mut header);
        header.set_total_len(total_len);
        self.is_wrong = is_left || !header.is_sum_right(payload_sum);
        if self.is_wrong {
            return Err(FrameError::BadSegment);
        }
        header.fill_ip_checksum();
        self.header = header;
        Ok(())
    }
}

/// What a compressed header says.
struct Step {
    checksum: u16,
    is_push: bool,
    urgent: Option<u16>,
    window: u16,
    ack: u16,
    seq: u16,
    identification: u16,
}

impl Step {
    fn read(mask: u8, checksum: u16, fields: &mut Fields<'_>, old: &Header) -> Result<Self, FrameError> {
        let is_push = mask & PUSH != 0;
        let mut step = Self { checksum, is_push, urgent: None, window: 0, ack: 0, seq: 0, identification: 1 };
        match mask & SPECIALS_MASK {
            SPECIAL_I => (step.ack, step.seq) = (old.payload_len(), old.payload_len()),
            SPECIAL_D => step.seq = old.payload_len(),
            _ => {
                if mask & NEW_U != 0 {
                    step.urgent = Some(fields.change()?);
                }
                for (bit, change) in
                    [(NEW_W, &mut step.window), (NEW_A, &mut step.ack), (NEW_S, &mut step.seq)]
                {
                    if mask & bit != 0 {
                        *change = fields.change()?;
                    }
                }
            }
        }
        if mask & NEW_I != 0 {
            step.identification = fields.change()?;
        }
        Ok(step)
    }

    fn apply(&self, header: &mut Header) {
        header.set_checksum(self.checksum);
        header.set_push(self.is_push);
        header.set_urgent(self.urgent);
        header.set_window(header.window().wrapping_add(self.window));
        header.set_ack(header.ack().wrapping_add(u32::from(self.ack)));
        header.set_seq(header.seq().wrapping_add(u32::from(self.seq)));
        header.set_identification(header.identification().wrapping_add(self.identification));
    }
}

/// Reads from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u8(&mut self) -> Result<u8, FrameError> {
        let (byte, rest) = self.0.split_first().ok_or(FrameError::BadHeader)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn change(&mut self) -> Result<u16, FrameError> {
        match self.u8()? {
            0 => self.u16(),
            change => Ok(change.into()),
        }
    }
}

/// Connection numbers that a byte has.
const NUMBERS: usize = 256;
