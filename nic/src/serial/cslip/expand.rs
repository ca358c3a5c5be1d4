//! The receiver's side of RFC 1144 (appendix A.3), which believes nothing that the checksum of TCP does not confirm.

use super::header::{
    Header, IP_PROTOCOL, NEW_A, NEW_C, NEW_I, NEW_S, NEW_U, NEW_W, PROTOCOL_TCP, PUSH, SPECIAL_D, SPECIAL_I,
    SPECIALS_MASK,
};
use crate::offload::sum;
use crate::serial::framing::{FrameError, FramingConfig};
use crate::serial::slip::packet_len;

/// The connections of which a header has come.
#[derive(Debug)]
pub(super) struct Expander {
    /// By connection number: whatever the other side may use, since it does not tell how many it has.
    slots: Vec<Option<Box<Slot>>>,
    last_received: Option<u8>,
    /// A frame was lost: which connection the next one is of, only it can say.
    is_tossing: bool,
    /// The last packet that was put together.
    packet: Vec<u8>,
    packet_max: usize,
    has_crc: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    header: Header,
    /// What alone has moved in the last segments, and in how many.
    mover: Option<Mover>,
    streak_len: u8,
}

/// A field that moves while the others stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    /// Data in one direction.
    Seq,
    /// Acknowledgments of data in the other.
    Ack,
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
            packet: Vec::new(),
            packet_max: config.packet_max.min(65535),
            has_crc: config.crc,
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
        let old = slot.take();
        let header = Header::parse(&self.packet).ok_or(FrameError::BadHeader)?;
        let payload = self.packet.get(header.len()..).unwrap_or_default();
        if !header.is_compressible() {
            return Err(FrameError::BadHeader);
        }
        if !header.is_sum_right(sum::data(payload)) {
            return Err(FrameError::BadSegment);
        }
        *slot = Some(match old {
            Some(mut old) if old.header.is_same_connection(&header) => {
                old.follow(header);
                old
            }
            _ => Box::new(Slot { header, mover: None, streak_len: 0 }),
        });
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
        let checksum = fields.u16()?;
        let step = Step::read(mask, checksum, &mut fields, &slot.header)?;
        let payload = fields.0;
        let total_len = slot.header.len().saturating_add(payload.len());
        let is_short = total_len <= self.packet_max;
        let total_len = u16::try_from(total_len).ok().filter(|_| is_short).ok_or(FrameError::TooLong)?;
        let header = slot.advance(&step, total_len, sum::data(payload), self.has_crc)?;
        slot.follow(header);
        self.last_received = Some(number);
        self.is_tossing = false;
        self.packet.clear();
        self.packet.extend_from_slice(header.bytes());
        self.packet.extend_from_slice(payload);
        Ok(Whole::Expanded)
    }
}

impl Slot {
    /// The next header, if there is one with which the checksum is right.
    ///
    /// If it is not, the frame is damaged, or one before it was lost, and its changes are missing. Then they were
    /// probably those of this frame: RFC 2507 section 10.1 applies them twice, and here three times as well. The
    /// checksum is a sum, and confirms that the changes of all fields together are right. So this is done only in bulk, where
    /// a single field has moved for a while, since otherwise another field may have moved by as much.
    ///
    /// The identification of IP may be wrong afterwards: no checksum covers it.
    fn advance(
        &self,
        step: &Step,
        total_len: u16,
        payload_sum: u16,
        has_crc: bool,
    ) -> Result<Header, FrameError> {
        if step.urgent.is_none() && self.header.is_urgent() && self.header.urgent() != 0 {
            // A pointer that counts no more is 0, in every stack that is known, and a whole header has said so, which was
            // lost: by as much as that sum is too large now, the one of the sequence number may be too small.
            return Err(FrameError::BadSegment);
        }
        for times in 1..=1 + LOST_MAX {
            if times > 1 && !self.may_repeat(step, times - 1, has_crc) {
                break;
            }
            let mut header = self.header;
            step.apply(&mut header, times);
            header.set_total_len(total_len);
            if header.is_sum_right(payload_sum) {
                header.fill_ip_checksum();
                return Ok(header);
            }
        }
        Err(FrameError::BadSegment)
    }

    /// Whether the changes may be applied so many times more than they were sent.
    fn may_repeat(&self, step: &Step, more: u16, has_crc: bool) -> bool {
        let change = match self.mover {
            Some(Mover::Seq) if step.ack == 0 => step.seq,
            Some(Mover::Ack) if step.seq == 0 => step.ack,
            _ => return false,
        };
        let is_alone = change >= REPEATED_CHANGE_MIN
            && step.window == 0
            && step.urgent.is_none()
            && !self.header.is_urgent();
        // Without a CRC the frame may as well be damaged, and a segment size of 256 is what one wrong bit looks like.
        let is_unlike_damage = has_crc || wrong_bits(u32::from(change) * u32::from(more)) > DAMAGED_BITS_MAX;
        is_alone && self.streak_len >= STREAK_LEN_MIN && is_unlike_damage
    }

    /// Goes on from another header of the connection.
    fn follow(&mut self, header: Header) {
        let old = &self.header;
        let has_moved =
            (old.seq() != header.seq(), old.ack() != header.ack(), old.window() != header.window());
        self.header = header;
        let mover = match has_moved {
            (false, false, false) => return,
            (true, false, false) => Some(Mover::Seq),
            (false, true, false) => Some(Mover::Ack),
            _ => None,
        };
        self.streak_len = if mover == self.mover { self.streak_len.saturating_add(1) } else { 1 };
        self.mover = mover;
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

    fn apply(&self, header: &mut Header, times: u16) {
        header.set_checksum(self.checksum);
        header.set_push(self.is_push);
        header.set_urgent(self.urgent);
        header.set_window(header.window().wrapping_add(self.window));
        header.set_ack(header.ack().wrapping_add(u32::from(self.ack) * u32::from(times)));
        header.set_seq(header.seq().wrapping_add(u32::from(self.seq) * u32::from(times)));
        let identification = self.identification.wrapping_mul(times);
        header.set_identification(header.identification().wrapping_add(identification));
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

/// How many wrong bits, at least, change a ones' complement sum of 16 bits by so much: the digits of the
/// shortest sum of powers of two, added and subtracted, which is that or differs from it by 65535.
fn wrong_bits(change: u32) -> u32 {
    let digits = |number: u32| (u64::from(number) ^ (3 * u64::from(number))).count_ones();
    let change = change % 0xffff;
    digits(change).min(digits(0xffff - change)).min(digits(0xffff + change))
}

/// Connection numbers that a byte has.
const NUMBERS: usize = 256;

/// Frames that may be missing before one whose changes are applied once for each.
const LOST_MAX: u16 = 2;

/// Segments in which a single field has moved before it is believed that this was so in lost ones too.
const STREAK_LEN_MIN: u8 = 8;

/// The least change that may be repeated: small ones are easily the sum of others.
const REPEATED_CHANGE_MIN: u16 = 128;

/// Wrong bits in a frame that must not look like a lost frame.
const DAMAGED_BITS_MAX: u32 = 2;
