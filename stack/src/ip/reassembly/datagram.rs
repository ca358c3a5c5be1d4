//! The fragments of one packet.

use std::collections::BTreeMap;

use smoltcp::time::Instant;

use super::super::header::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, fill_ipv4_checksum};
use super::{DatagramSnapshot, FRAGMENT_COST_BYTES, Key, ReassemblyConfig, Whole};
use crate::ingress::packet::IpPacket;
use crate::observe::DropReason;
use crate::timer::wheel::TimerId;

/// A fragment that can be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) id: u32,
    offset: usize,
    more: bool,
    payload: &'a [u8],
    headers: Headers<'a>,
    ecn: u8,
    packet_len: usize,
}

/// What is before the payload; offsets are from the start of the IP header.
#[derive(Debug, Clone, Copy)]
struct Headers<'a> {
    /// The fragment header of IPv6 included.
    bytes: &'a [u8],
    /// Where that begins; of IPv4, the length of `bytes`.
    kept_len: usize,
    next_header_at: usize,
    next_header: u8,
}

impl<'a> Piece<'a> {
    /// `None`: it is no fragment, or one that cannot be.
    pub(super) fn of(frame: &'a [u8], ip: &IpPacket) -> Option<Self> {
        let info = ip.fragment?;
        let headers = Headers {
            bytes: frame.get(ip.start..info.payload)?,
            kept_len: info.header_at.checked_sub(ip.start)?,
            next_header_at: info.next_header_at.wrapping_sub(ip.start),
            next_header: info.next_header,
        };
        let payload = frame.get(info.payload..ip.end)?;
        let piece = Self {
            id: info.id,
            offset: info.offset,
            more: info.more,
            payload,
            headers: if ip.src.is_ipv4() { headers.of_ipv4() } else { headers },
            ecn: ip.traffic_class & 0b11,
            packet_len: ip.end.checked_sub(ip.start)?,
        };
        piece.can_be(ip.src.is_ipv4()).then_some(piece)
    }

    fn can_be(&self, is_ipv4: bool) -> bool {
        let Headers { bytes, kept_len, next_header_at, .. } = self.headers;
        let has_headers = if is_ipv4 {
            bytes.len() >= IPV4_HEADER_LEN
        } else {
            (IPV6_HEADER_LEN..bytes.len()).contains(&kept_len) && next_header_at < kept_len
        };
        let not_counted = if is_ipv4 { 0 } else { IPV6_HEADER_LEN };
        let end = self.offset.checked_add(self.payload.len());
        let len = end.and_then(|end| end.checked_add(kept_len));
        //= rfc8200#4.5
        //# If the length of a fragment, as derived from the fragment
        //# packet's Payload Length field, is not a multiple of 8 octets
        //# and the M flag of that fragment is 1, then that fragment must
        //# be discarded
        let is_in_units =
            self.offset.is_multiple_of(8) && (!self.more || self.payload.len().is_multiple_of(8));
        //= rfc8200#4.5
        //# If the length and offset of a fragment are such that the
        //# Payload Length of the packet reassembled from that fragment
        //# would exceed 65,535 octets, then that fragment must be
        //# discarded
        let is_short = len.is_some_and(|len| len - not_counted.min(len) <= LEN_MAX);
        has_headers && is_in_units && is_short && !self.payload.is_empty()
    }

    fn end(&self) -> usize {
        self.offset + self.payload.len()
    }

    fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// What it costs to keep it.
    pub(super) fn cost(&self) -> usize {
        let headers = if self.is_first() { self.headers.bytes.len() } else { 0 };
        self.payload.len() + headers + FRAGMENT_COST_BYTES
    }
}

impl Headers<'_> {
    /// All of them stay, and no field is patched.
    fn of_ipv4(self) -> Self {
        Self { kept_len: self.bytes.len(), next_header_at: 0, ..self }
    }
}

/// How a fragment goes with those that are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is here, byte by byte.
    Duplicate,
    /// It cannot go with them: the datagram is lost.
    Never(DropReason),
    /// It is new; so many runs without a hole in them there are with it.
    New { runs: usize },
}

/// A packet that is not whole.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    pub(super) key: Key,
    pub(super) timer: TimerId,
    expires: Instant,
    /// Payloads by offset. They do not overlap.
    pieces: BTreeMap<usize, Box<[u8]>>,
    runs: usize,
    received: usize,
    /// Where the last fragment ends.
    total: Option<usize>,
    first: Option<First>,
    /// The set of ECN codepoints: bit n is codepoint n.
    ecn: u8,
    largest_fragment: usize,
    cost: usize,
    abandoned: Option<DropReason>,
}

/// The headers of the first fragment.
#[derive(Debug, Clone)]
struct First {
    bytes: Box<[u8]>,
    kept_len: usize,
    next_header_at: usize,
    next_header: u8,
}

impl Datagram {
    pub(super) fn new(key: Key, expires: Instant, timer: TimerId) -> Self {
        Self {
            key,
            timer,
            expires,
            pieces: BTreeMap::new(),
            runs: 0,
            received: 0,
            total: None,
            first: None,
            ecn: 0,
            largest_fragment: 0,
            cost: 0,
            abandoned: None,
        }
    }

    /// How a fragment would go with those that are here.
    pub(super) fn fit(&self, piece: &Piece<'_>, config: &ReassemblyConfig) -> Fit {
        let before = self.pieces.range(..piece.offset).next_back();
        let behind = self.pieces.range(piece.offset..).next();
        if let Some((&offset, known)) = behind
            && (offset, &known[..]) == (piece.offset, piece.payload)
            && self.is_last(piece) != piece.more
        {
            //= rfc8200#4.5
            //# an implementation may choose to detect this case
            //# and drop exact duplicate fragments while keeping the other
            //# fragments belonging to the same packet.
            return Fit::Duplicate;
        }
        let end_before = before.map(|(&offset, known)| offset + known.len());
        let start_behind = behind.map(|(&offset, _)| offset);
        //= rfc8200#4.5
        //# If any of the fragments being reassembled overlap with any
        //# other fragments being reassembled for the same packet,
        //# reassembly of that packet must be abandoned and all the
        //# fragments that have been received for that packet must be
        //# discarded, and no ICMP error messages should be sent.
        let overlaps = end_before.is_some_and(|end| end > piece.offset)
            || start_behind.is_some_and(|start| start < piece.end());
        if overlaps || self.contradicts_end(piece) {
            return Fit::Never(DropReason::FragmentOverlap);
        }
        if is_ce_with_not_ect(self.ecn | 1 << piece.ecn) {
            return Fit::Never(DropReason::FragmentMalformed);
        }
        let joins =
            usize::from(end_before == Some(piece.offset)) + usize::from(start_behind == Some(piece.end()));
        let runs = self.runs + 1 - joins;
        if self.pieces.len() >= config.fragments_max || runs > config.holes_max + 1 {
            return Fit::Never(DropReason::FragmentNoRoom);
        }
        Fit::New { runs }
    }

    fn is_last(&self, piece: &Piece<'_>) -> bool {
        self.total == Some(piece.end())
    }

    /// Whether two fragments would be the last one, or something would be behind it.
    fn contradicts_end(&self, piece: &Piece<'_>) -> bool {
        match (self.total, piece.more) {
            (Some(total), true) => piece.end() >= total,
            (Some(_), false) => true,
            (None, true) => false,
            (None, false) => self.pieces.last_key_value().is_some_and(|(&offset, _)| offset > piece.offset),
        }
    }

    /// Keeps a fragment that is new.
    pub(super) fn add(&mut self, piece: &Piece<'_>, runs: usize) {
        self.pieces.insert(piece.offset, piece.payload.into());
        self.runs = runs;
        self.received += piece.payload.len();
        self.ecn |= 1 << piece.ecn;
        self.largest_fragment = self.largest_fragment.max(piece.packet_len);
        self.cost += piece.cost();
        if !piece.more {
            self.total = Some(piece.end());
        }
        if piece.is_first() {
            let Headers { bytes, kept_len, next_header_at, next_header } = piece.headers;
            self.first = Some(First { bytes: bytes.into(), kept_len, next_header_at, next_header });
        }
    }

    /// Whether nothing is missing: nothing overlaps, so it is enough to count.
    pub(super) fn is_whole(&self) -> bool {
        self.total == Some(self.received)
    }

    /// The packet. `None`: it would be longer than an IP packet can be.
    pub(super) fn assemble(self) -> Option<Whole> {
        let first = self.first?;
        let mut bytes = Vec::with_capacity(first.kept_len + self.received);
        bytes.extend_from_slice(first.bytes.get(..first.kept_len)?);
        for piece in self.pieces.values() {
            bytes.extend_from_slice(piece);
        }
        if self.key.src.is_ipv4() {
            let total = u16::try_from(bytes.len()).ok()?;
            let header = bytes.get_mut(..first.kept_len)?;
            header[1] = ecn_of_whole(header[1], self.ecn);
            header[2..4].copy_from_slice(&total.to_be_bytes());
            // Neither more to follow nor an offset; DF stays.
            header[6] &= 0x40;
            header[7] = 0;
            fill_ipv4_checksum(header);
        } else {
            let payload = u16::try_from(bytes.len().checked_sub(IPV6_HEADER_LEN)?).ok()?;
            let header = bytes.get_mut(..first.kept_len)?;
            *header.get_mut(first.next_header_at)? = first.next_header;
            header[4..6].copy_from_slice(&payload.to_be_bytes());
            // The traffic class is four bits of the first byte and four of the second.
            let class = ecn_of_whole(header[0] << 4 | header[1] >> 4, self.ecn);
            header[1] = class << 4 | header[1] & 0xf;
        }
        let (largest_fragment_bytes, fragments) = (self.largest_fragment, self.pieces.len());
        Some(Whole { bytes, largest_fragment_bytes, fragments })
    }

    /// The first fragment as it came.
    pub(super) fn first_fragment(&self) -> Option<Vec<u8>> {
        Some([&self.first.as_ref()?.bytes[..], self.pieces.get(&0)?].concat())
    }

    /// Lets all fragments go, and returns what they cost.
    pub(super) fn abandon(&mut self, reason: DropReason) -> usize {
        let cost = self.cost;
        *self = Self { abandoned: Some(reason), ..Self::new(self.key, self.expires, self.timer) };
        cost
    }

    pub(super) fn abandoned(&self) -> Option<DropReason> {
        self.abandoned
    }

    /// What its fragments cost.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn snapshot(&self) -> DatagramSnapshot {
        let Key { src, dst, id, protocol } = self.key;
        let begins = usize::from(self.pieces.contains_key(&0));
        let is_last_here = self.total.is_some();
        DatagramSnapshot {
            src,
            dst,
            id,
            protocol,
            fragments: self.pieces.len(),
            received_bytes: self.received,
            total_bytes: self.total,
            // One before each run but one that begins, and one behind the last unless that ends.
            holes: self.runs + usize::from(!is_last_here) - begins,
            expires: self.expires,
            abandoned: self.abandoned,
        }
    }
}

/// Whether some fragments were marked on a path of a sender that knows no ECN.
fn is_ce_with_not_ect(ecn: u8) -> bool {
    ecn & (1 << CE) != 0 && ecn & (1 << NOT_ECT) != 0
}

/// The octet of DSCP and ECN of the whole, from that of the first fragment and the set of codepoints.
//= rfc3168#5.3
//# if any fragment of an IP packet to be reassembled has the
//# CE codepoint set, then one of two actions MUST be taken
//= rfc3168#5.3
//# Reassembly of a fragmented packet MUST NOT change the ECN codepoint
//# when all of the fragments carry the same codepoint.
fn ecn_of_whole(octet: u8, ecn: u8) -> u8 {
    let codepoint = if ecn & (1 << CE) != 0 {
        CE
    } else if ecn & (1 << NOT_ECT) != 0 {
        // Some fragments cannot be marked: nor can the whole.
        NOT_ECT
    } else {
        octet & 0b11
    };
    octet & !0b11 | codepoint
}

/// Total Length of IPv4, Payload Length of IPv6.
const LEN_MAX: usize = 65_535;
/// Codepoints of ECN (RFC 3168 section 5).
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;
