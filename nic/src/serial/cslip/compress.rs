//! The sender's side of RFC 1144 (appendix A.2).

use super::header::{
    Header, IP_PROTOCOL, NEW_A, NEW_C, NEW_I, NEW_S, NEW_U, NEW_W, PUSH, SPECIAL_D, SPECIAL_I,
    TYPE_COMPRESSED, TYPE_UNCOMPRESSED,
};
use crate::offload::sum;
use crate::serial::slip::packet_len;

/// What is sent in place of the first bytes of a packet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
    /// So many bytes of the packet it stands for.
    pub(super) replaced_bytes: usize,
}

impl Head {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn extend(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// A change: a byte, or behind a 0 two bytes.
    fn extend_change(&mut self, change: u16) {
        match change.to_be_bytes() {
            [0, low] if low != 0 => self.extend(&[low]),
            [high, low] => self.extend(&[0, high, low]),
        }
    }
}

/// The connections of which the other side knows a header.
#[derive(Debug, Clone)]
pub(super) struct Compressor {
    /// By connection number.
    slots: Vec<Option<Slot>>,
    /// Connection numbers, that of the last segment first. A search from the front ends early, as a rule, and after
    /// 254 at the latest; a frame takes longer on the fastest line.
    order: Vec<u8>,
    last_sent: Option<u8>,
    /// Compressed headers in a row that did not say their connection.
    implicit_len: u8,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    header: Header,
    /// Bytes in frames since the last uncompressed header.
    since_full_bytes: usize,
    /// So many more are sent as they are. Were the last one lost, a change that goes on from it would be taken for one from
    /// the header before, and what a retransmission has set back may cancel out in the sum: of several, one arrives.
    full_left: u8,
}

impl Compressor {
    pub(super) fn new(connections_max: u8) -> Self {
        Self {
            slots: vec![None; connections_max.into()],
            order: (0..connections_max).rev().collect(),
            last_sent: None,
            implicit_len: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.slots.fill(None);
        self.last_sent = None;
        self.implicit_len = 0;
    }

    /// What is to be sent in place of the headers of an IP packet: with nothing in place of nothing, as it is.
    pub(super) fn compress(&mut self, packet: &[u8]) -> Head {
        let Some(header) = whole_segment(packet) else { return Head::default() };
        let Some(number) = self.find(&header) else { return Head::default() };
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return Head::default() };
        let known = slot.filter(|slot| slot.header.is_same_connection(&header));
        let changes = known
            .filter(|slot| slot.since_full_bytes < REFRESH_BYTES && slot.full_left == 0)
            .and_then(|slot| Changes::between(&slot.header, &header));
        let Some(changes) = changes else {
            let goes_on = known.is_some_and(|slot| Changes::between(&slot.header, &header).is_some());
            let full_left = match known {
                // What goes on from the header of another connection has another sum.
                None => 0,
                Some(slot) if goes_on => slot.full_left.saturating_sub(1),
                Some(_) => FULL_MORE,
            };
            *slot = Some(Slot { header, since_full_bytes: 0, full_left });
            self.last_sent = Some(number);
            self.implicit_len = 0;
            return uncompressed(packet, number);
        };
        if let Some(slot) = slot {
            slot.header = header;
            slot.since_full_bytes += packet.len().max(FRAME_BYTES_MIN);
        }
        // RFC 1144 leaves the number out while it stays the same. After an error on the line the receiver has to drop
        // what does not say it, so we do say it where a byte is no more than a hundredth, and from time to time.
        let is_explicit = self.last_sent.replace(number) != Some(number)
            || usize::from(header.payload_len()) >= EXPLICIT_PAYLOAD_BYTES
            || self.implicit_len >= IMPLICIT_LEN_MAX;
        self.implicit_len = if is_explicit { 0 } else { self.implicit_len + 1 };
        changes.head(&header, is_explicit.then_some(number))
    }

    /// The number of this connection, or that of the one which was silent for longest.
    fn find(&mut self, header: &Header) -> Option<u8> {
        let is_it = |number: &u8| {
            let slot = self.slots.get(usize::from(*number));
            slot.and_then(Option::as_ref).is_some_and(|slot| slot.header.is_same_connection(header))
        };
        //= rfc1144#A.2
        //# If we don't find a state
        //# for the datagram, the oldest state is (re-)used.
        let at = self.order.iter().position(is_it).or(self.order.len().checked_sub(1))?;
        self.order.get_mut(..=at)?.rotate_right(1);
        self.order.first().copied()
    }
}

/// The headers of a packet that is a whole segment of TCP over IPv4, all checksums right, and may be compressed.
///
/// What has a wrong checksum goes as it is: the other side makes checksums of IP anew and judges by those of TCP.
fn whole_segment(packet: &[u8]) -> Option<Header> {
    let header = Header::parse(packet)?;
    let len = packet_len(packet)?;
    let payload = packet.get(header.len()..)?;
    let is_right = len == packet.len() && header.is_compressible() && header.is_sum_right(sum::data(payload));
    is_right.then_some(header)
}

/// A packet as it is, but for its type and a connection number.
fn uncompressed(packet: &[u8], number: u8) -> Head {
    let mut head = Head { replaced_bytes: IP_PROTOCOL + 1, ..Head::default() };
    head.extend(packet.get(..IP_PROTOCOL).unwrap_or_default());
    head.extend(&[number]);
    head.bytes[0] |= TYPE_UNCOMPRESSED;
    head
}

/// What is different in a header, all of which the other side can apply.
#[derive(Debug)]
struct Changes {
    mask: u8,
    /// Urgent pointer, window, acknowledgment, sequence, identification: those that the mask names.
    values: Head,
}

impl Changes {
    /// `None`: the header has to be sent as it is.
    fn between(old: &Header, new: &Header) -> Option<Self> {
        if !old.is_alike(new) {
            return None;
        }
        let (mut mask, mut values) = (0, Head::default());
        if new.is_urgent() {
            values.extend_change(new.urgent());
            mask |= NEW_U;
        } else if new.urgent() != old.urgent() || (old.is_urgent() && old.urgent() != 0) {
            // Were this lost, what the pointer is less the sequence number could be more, and no sum would see it.
            return None;
        }
        let window = new.window().wrapping_sub(old.window());
        // A number that goes back is a retransmission: the other side may have missed the last header.
        let ack = u16::try_from(new.ack().wrapping_sub(old.ack())).ok()?;
        let seq = u16::try_from(new.seq().wrapping_sub(old.seq())).ok()?;
        for (change, bit) in [(window, NEW_W), (ack, NEW_A), (seq, NEW_S)] {
            if change != 0 {
                values.extend_change(change);
                mask |= bit;
            }
        }
        let special = match mask {
            //= rfc1144#A.2
            //# Otherwise it's probably a retransmit,
            //# retransmitted ack or window probe.  Send it uncompressed
            //# in case the other side missed the compressed version.
            0 if old.payload_len() != 0 || new.payload_len() == 0 => return None,
            //= rfc1144#A.2
            //# actual changes match one of our special case encodings --
            //# send packet uncompressed.
            SPECIAL_I | SPECIAL_D => return None,
            // The code of RFC 1144 lets URG stay as it was in the special cases.
            _ if old.is_urgent() || seq != old.payload_len() => None,
            mask if mask == NEW_S | NEW_A && ack == seq => Some(SPECIAL_I),
            NEW_S => Some(SPECIAL_D),
            _ => None,
        };
        if let Some(special) = special {
            (mask, values) = (special, Head::default());
        }
        let identification = new.identification().wrapping_sub(old.identification());
        if identification != 1 {
            values.extend_change(identification);
            mask |= NEW_I;
        }
        if new.is_push() {
            mask |= PUSH;
        }
        Some(Self { mask, values })
    }

    fn head(&self, header: &Header, number: Option<u8>) -> Head {
        let mut head = Head { replaced_bytes: header.len(), ..Head::default() };
        match number {
            Some(number) => head.extend(&[TYPE_COMPRESSED | NEW_C | self.mask, number]),
            None => head.extend(&[TYPE_COMPRESSED | self.mask]),
        }
        head.extend(&header.checksum().to_be_bytes());
        head.extend(self.values.bytes());
        head
    }
}

/// A compressed header: mask, connection number, checksum, five changes of three bytes.
const HEAD_MAX: usize = 1 + 1 + 2 + 5 * 3;

/// A connection has an uncompressed header after so many bytes, since the one before may have been lost, or a compressed
/// one behind it. That is 36 bytes more than a compressed one: a percent.
const REFRESH_BYTES: usize = 4000;

/// Uncompressed headers that follow one with which a connection has not simply gone on.
const FULL_MORE: u8 = 2;

/// What a frame counts for that, at least, so that a row of acknowledgments is refreshed too.
const FRAME_BYTES_MIN: usize = 256;

/// With so much payload, a segment always says its connection.
const EXPLICIT_PAYLOAD_BYTES: usize = 100;

/// Compressed headers in a row that may leave out their connection.
const IMPLICIT_LEN_MAX: u8 = 3;
