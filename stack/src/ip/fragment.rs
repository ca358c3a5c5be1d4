//! Fragments of a packet that is longer than its path takes.
//!
//! ```text
//!   IPv4   header+options │ payload                ▸  header+options │ 0..n    header+copied options │ n..2n   …
//!   IPv6   header, hop-by-hop, routing │ the rest  ▸  …, fragment header │ 0..n    …, fragment header │ n..2n   …
//! ```
//!
//! Each fragment is written where it goes, from the packet: nothing is copied twice, nothing allocated.

use super::header::{HOP_BY_HOP, IPV4_HEADER_LEN, IPV6_HEADER_LEN, fill_ipv4_checksum};
use crate::observe::DropReason;

#[cfg(test)]
mod tests;

/// The fragments of one packet (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    mtu: usize,
    /// Bytes of payload in every fragment but the last, a multiple of 8.
    chunk: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// It fits: one piece, as it is.
    Whole,
    V4 {
        header_len: usize,
        id: u16,
        /// Of the packet, if that is a fragment itself.
        offset: usize,
        more: bool,
    },
    V6 {
        /// Where the fragment header goes, and the fragmentable part begins.
        split: usize,
        /// Where the Next Header field is that will name the fragment header.
        next_header_at: usize,
        id: u32,
    },
}

impl<'a> Fragments<'a> {
    /// Plans the fragments of a complete packet. `mtu` is the length of the longest packet that the path
    /// takes; of `id`, IPv4 uses the low half ([`IdGenerator`](super::header::IdGenerator)).
    ///
    /// # Errors
    /// [`DropReason::TooLong`]: DF is set, or the MTU leaves no room for a payload, or the packet has a
    /// fragment header already. [`DropReason::IpMalformed`], [`DropReason::IpTruncated`],
    /// [`DropReason::IpOptions`]: it is no IP packet of this length. [`DropReason::FragmentHeaders`]: the
    /// first fragment would not hold all headers (RFC 7112).
    pub fn new(packet: &'a [u8], mtu: usize, id: u32) -> Result<Self, DropReason> {
        let first = packet.first().ok_or(DropReason::IpTruncated)?;
        match first >> 4 {
            4 => Self::new_v4(packet, mtu, id as u16),
            6 => Self::new_v6(packet, mtu, id),
            _ => Err(DropReason::IpMalformed),
        }
    }

    fn new_v4(packet: &'a [u8], mtu: usize, id: u16) -> Result<Self, DropReason> {
        let header: &[u8; IPV4_HEADER_LEN] = packet.first_chunk().ok_or(DropReason::IpTruncated)?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let packet = packet.get(..be16(header[2], header[3])).ok_or(DropReason::IpTruncated)?;
        if header_len < IPV4_HEADER_LEN || header_len > packet.len() {
            return Err(DropReason::IpMalformed);
        }
        if packet.len() <= mtu {
            return Ok(Self { packet, mtu, chunk: packet.len(), kind: Kind::Whole });
        }
        let flags = be16(header[6], header[7]);
        if flags & 0x4000 != 0 {
            return Err(DropReason::TooLong);
        }
        copied_options(
            packet.get(IPV4_HEADER_LEN..header_len).unwrap_or_default(),
            &mut [0; OPTIONS_LEN_MAX],
        )?;
        let offset = (flags & 0x1fff) * 8;
        let more = flags & 0x2000 != 0;
        if offset + packet.len() > usize::from(u16::MAX) {
            return Err(DropReason::IpMalformed);
        }
        // What has been sent as a fragment keeps its identification.
        let id = if offset > 0 || more { be16(header[4], header[5]) as u16 } else { id };
        let chunk = chunk(mtu, header_len)?;
        Ok(Self { packet, mtu, chunk, kind: Kind::V4 { header_len, id, offset, more } })
    }

    fn new_v6(packet: &'a [u8], mtu: usize, id: u32) -> Result<Self, DropReason> {
        let header: &[u8; IPV6_HEADER_LEN] = packet.first_chunk().ok_or(DropReason::IpTruncated)?;
        let len = IPV6_HEADER_LEN + be16(header[4], header[5]);
        let packet = packet.get(..len).ok_or(DropReason::IpTruncated)?;
        if len <= mtu {
            return Ok(Self { packet, mtu, chunk: len, kind: Kind::Whole });
        }
        let Chain { split, next_header_at, end } = Chain::of(packet)?;
        let chunk = chunk(mtu, split + FRAGMENT_HEADER_LEN)?;
        //= rfc8200#4.5
        //# Extension headers, if any, and the Upper-Layer header.  These
        //# headers must be in the first fragment.
        if end > split + chunk {
            return Err(DropReason::FragmentHeaders);
        }
        Ok(Self { packet, mtu, chunk, kind: Kind::V6 { split, next_header_at, id } })
    }

    /// How many there are; 1 if the packet fits as it is.
    pub fn count(&self) -> usize {
        self.payload().len().div_ceil(self.chunk.max(1)).max(1)
    }

    /// Bytes that any of them has at most.
    pub fn len_max(&self) -> usize {
        self.mtu.min(self.packet.len() + FRAGMENT_HEADER_LEN)
    }

    /// Writes the fragment at `index` to the start of `room`, and returns its length: 0 if there is none, or
    /// not enough room ([`len_max`](Self::len_max) always is).
    pub fn write(&self, index: usize, room: &mut [u8]) -> usize {
        self.try_write(index, room).unwrap_or(0)
    }

    fn try_write(&self, index: usize, room: &mut [u8]) -> Option<usize> {
        if index >= self.count() {
            return None;
        }
        let payload = self.payload();
        let from = index * self.chunk;
        let to = payload.len().min(from + self.chunk);
        let is_last = to == payload.len();
        let body = payload.get(from..to)?;
        let header_len = match &self.kind {
            Kind::Whole => 0,
            &Kind::V4 { header_len, id, offset, more } => {
                let header = self.packet.get(..header_len)?;
                let more = if more || !is_last { 0x2000 } else { 0 };
                let field = ((offset + from) / 8) | more;
                write_v4(header, index == 0, id, field, body.len(), room)?
            }
            &Kind::V6 { split, next_header_at, id } => {
                let len = split + FRAGMENT_HEADER_LEN;
                let headers = room.get_mut(..len)?;
                let (unfragmentable, fragment) = headers.split_at_mut_checked(split)?;
                unfragmentable.copy_from_slice(self.packet.get(..split)?);
                let next = unfragmentable.get_mut(next_header_at)?;
                let next_header = std::mem::replace(next, FRAGMENT);
                let payload_len = u16::try_from(len - IPV6_HEADER_LEN + body.len()).ok()?;
                unfragmentable.get_mut(4..6)?.copy_from_slice(&payload_len.to_be_bytes());
                let [high, low] = (from as u16 | u16::from(!is_last)).to_be_bytes();
                let [a, b, c, d] = id.to_be_bytes();
                fragment.copy_from_slice(&[next_header, 0, high, low, a, b, c, d]);
                len
            }
        };
        let len = header_len + body.len();
        room.get_mut(header_len..len)?.copy_from_slice(body);
        Some(len)
    }

    /// What is cut into pieces.
    fn payload(&self) -> &'a [u8] {
        let start = match self.kind {
            Kind::Whole => 0,
            Kind::V4 { header_len, .. } => header_len,
            Kind::V6 { split, .. } => split,
        };
        self.packet.get(start..).unwrap_or_default()
    }
}

/// Writes the header of a fragment. `field` is that of flags and offset. `None`: no room.
fn write_v4(
    header: &[u8],
    is_first: bool,
    id: u16,
    field: usize,
    body_len: usize,
    room: &mut [u8],
) -> Option<usize> {
    let (fixed, options) = header.split_first_chunk::<IPV4_HEADER_LEN>()?;
    let mut copied = [0; OPTIONS_LEN_MAX];
    let options = if is_first {
        options
    } else {
        let len = copied_options(options, &mut copied).ok()?;
        copied.get(..len)?
    };
    let len = IPV4_HEADER_LEN + options.len();
    let out = room.get_mut(..len)?;
    let (start, rest) = out.split_first_chunk_mut::<IPV4_HEADER_LEN>()?;
    *start = *fixed;
    rest.copy_from_slice(options);
    start[0] = 0x40 | (len / 4) as u8;
    start[2..4].copy_from_slice(&u16::try_from(len + body_len).ok()?.to_be_bytes());
    start[4..6].copy_from_slice(&id.to_be_bytes());
    start[6..8].copy_from_slice(&u16::try_from(field).ok()?.to_be_bytes());
    fill_ipv4_checksum(out);
    Some(len)
}

/// Copies the options that every fragment has to `copied`, filled up to a multiple of 4 with zeros, which
/// end the list, and returns their length.
fn copied_options(mut options: &[u8], copied: &mut [u8; OPTIONS_LEN_MAX]) -> Result<usize, DropReason> {
    let mut len: usize = 0;
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            // End of the list, and no operation.
            0 => break,
            1 => options = rest,
            _ => {
                let option_len = usize::from(*rest.first().ok_or(DropReason::IpOptions)?);
                let (option, rest) =
                    options.split_at_checked(option_len.max(2)).ok_or(DropReason::IpOptions)?;
                if option_len < 2 {
                    return Err(DropReason::IpOptions);
                }
                //= rfc791#3.1
                //# The copied flag indicates that this option is copied into all
                //# fragments on fragmentation.
                if kind & 0x80 != 0 {
                    let room = copied.get_mut(len..len + option_len).ok_or(DropReason::IpOptions)?;
                    room.copy_from_slice(option);
                    len += option_len;
                }
                options = rest;
            }
        }
    }
    Ok(len.next_multiple_of(4))
}

/// The header chain of an IPv6 packet.
struct Chain {
    /// Where what may be fragmented begins: behind the hop-by-hop header, or the routing header if there is
    /// one.
    split: usize,
    /// The Next Header field of the header before that.
    next_header_at: usize,
    /// Where the upper-layer header ends.
    end: usize,
}

impl Chain {
    fn of(packet: &[u8]) -> Result<Self, DropReason> {
        let (mut split, mut split_field) = (IPV6_HEADER_LEN, 6);
        let (mut at, mut field) = (IPV6_HEADER_LEN, 6);
        // Each header has 8 bytes at least, so the packet bounds the loop.
        loop {
            let next_header = *packet.get(field).ok_or(DropReason::IpTruncated)?;
            let len = match next_header {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                    8 + 8 * usize::from(*packet.get(at + 1).ok_or(DropReason::IpTruncated)?)
                }
                AUTHENTICATION => 8 + 4 * usize::from(*packet.get(at + 1).ok_or(DropReason::IpTruncated)?),
                // A fragment is not to be fragmented again: only its first sender does that.
                FRAGMENT => return Err(DropReason::TooLong),
                upper => {
                    let end = packet.len().min(at + upper_header_len(upper));
                    return Ok(Self { split, next_header_at: split_field, end });
                }
            };
            (at, field) = (at + len, at);
            if at > packet.len() {
                return Err(DropReason::IpTruncated);
            }
            if matches!(next_header, HOP_BY_HOP | ROUTING) {
                (split, split_field) = (at, field);
            }
        }
    }
}

/// Bytes of the shortest header of a protocol.
fn upper_header_len(protocol: u8) -> usize {
    match protocol {
        6 => 20,
        17 | 58 => 8,
        _ => 0,
    }
}

/// Bytes of payload that go with a header of this length, a multiple of 8.
fn chunk(mtu: usize, header_len: usize) -> Result<usize, DropReason> {
    let chunk = mtu.saturating_sub(header_len) / 8 * 8;
    if chunk > 0 { Ok(chunk) } else { Err(DropReason::TooLong) }
}

fn be16(high: u8, low: u8) -> usize {
    u16::from_be_bytes([high, low]).into()
}

const FRAGMENT_HEADER_LEN: usize = 8;
const OPTIONS_LEN_MAX: usize = 40;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;
