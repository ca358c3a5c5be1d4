//! The chain of extension headers of IPv6 (RFC 8200 section 4), and their options.

use super::ipv6::HEADER_LEN;
use super::{TCP, UDP, chunk, ports};
use crate::ingress::packet::{FragmentInfo, Problem};
use crate::observe::DropReason;

/// A walk through the headers behind the IPv6 header, and what it has found.
pub(super) struct Chain {
    /// Where the packet begins and ends in the frame.
    start: usize,
    end: usize,
    /// Where the walk is: at a header of this number, which begins here.
    pub(super) protocol: u8,
    pub(super) transport: usize,
    /// Where that number was found.
    next_header_at: usize,
    pub(super) fragment: Option<FragmentInfo>,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) router_alert: bool,
    pub(super) problem: Option<Problem>,
}

impl Chain {
    /// At the header behind the IPv6 header, which begins at `start`.
    #[inline(always)]
    pub(super) fn new(start: usize, end: usize, next_header: u8) -> Self {
        Self {
            start,
            end,
            protocol: next_header,
            transport: start + HEADER_LEN,
            next_header_at: start + NEXT_HEADER_AT,
            fragment: None,
            ports: None,
            router_alert: false,
            problem: None,
        }
    }

    /// Walks to the upper layer, to the payload of a fragment, or to the first header with a [`Problem`],
    /// whichever comes first. There is a header that is to be walked.
    #[cold]
    pub(super) fn walk(mut self, frame: &[u8]) -> Result<Self, DropReason> {
        let packet = frame.get(..self.end).ok_or(DropReason::IpTruncated)?;
        // With a length of 0, this stands for a jumbogram (RFC 2675).
        if self.protocol == HOP_BY_HOP && self.transport == self.end {
            return Err(DropReason::IpMalformed);
        }
        let mut has_fragment_header = false;
        for _ in 0..HEADERS_MAX {
            if self.protocol == HOP_BY_HOP && self.transport != self.start + HEADER_LEN {
                self.problem = Some(self.misplaced());
                return Ok(self);
            }
            let header = header_at(packet, self.protocol, self.transport).ok_or(DropReason::IpTruncated)?;
            match self.protocol {
                HOP_BY_HOP | DESTINATION => self.look_at_options(header)?,
                ROUTING => self.look_at_route(header),
                FRAGMENT if has_fragment_header => return Err(DropReason::IpOptions),
                FRAGMENT => {
                    has_fragment_header = true;
                    self.fragment = self.fragment_of(header)?;
                }
                AUTHENTICATION if header.len() < AUTHENTICATION_LEN => return Err(DropReason::IpOptions),
                _ => {}
            }
            if self.problem.is_some() {
                return Ok(self);
            }
            self.step(header);
            if let Some(fragment) = self.fragment {
                self.look_into_fragment(packet, &fragment)?;
                return Ok(self);
            }
            if !is_extension(self.protocol) {
                self.ports = ports(packet, self.protocol, self.transport, self.end);
                return Ok(self);
            }
        }
        // Too many.
        Err(DropReason::IpOptions)
    }

    /// Goes behind this header.
    fn step(&mut self, header: &[u8]) {
        self.protocol = header.first().copied().unwrap_or(NO_NEXT_HEADER);
        self.next_header_at = self.transport;
        self.transport += header.len();
    }

    /// What is to be said of a hop-by-hop options header that is not the first.
    fn misplaced(&self) -> Problem {
        //= rfc8200#4
        //# The same action should be taken if a node encounters a Next Header value of zero in any header
        //# other than an IPv6 header.
        Problem::NextHeader { at: (self.next_header_at - self.start) as u32, code: UNRECOGNIZED_NEXT_HEADER }
    }

    /// Walks the options of a hop-by-hop or destination options header, where the walk is.
    ///
    /// The limits are those that RFC 8504 section 5.3 suggests: eight options, and no more padding in a row
    /// than alignment can need. They bound the work: eight options of each header, with seven Pad1 around
    /// each.
    fn look_at_options(&mut self, header: &[u8]) -> Result<(), DropReason> {
        let mut at = 2;
        let mut options_len = 0;
        let mut padding_len = 0;
        while let Some(&kind) = header.get(at) {
            let len = match header.get(at + 1) {
                _ if kind == OPTION_PAD1 => 1,
                Some(&len) => usize::from(len) + 2,
                None => return Err(DropReason::IpOptions),
            };
            if at + len > header.len() {
                return Err(DropReason::IpOptions);
            }
            if matches!(kind, OPTION_PAD1 | OPTION_PADN) {
                padding_len += len;
            } else {
                padding_len = 0;
                options_len += 1;
            }
            if padding_len > PADDING_MAX || options_len > OPTIONS_MAX {
                return Err(DropReason::IpOptions);
            }
            match kind {
                OPTION_PAD1 | OPTION_PADN => {}
                // RFC 2711 section 2.1: of two octets, in a hop-by-hop header.
                OPTION_ROUTER_ALERT if self.protocol == HOP_BY_HOP && len == ROUTER_ALERT_LEN => {
                    self.router_alert = true;
                }
                OPTION_ROUTER_ALERT if self.protocol == HOP_BY_HOP => return Err(DropReason::IpOptions),
                _ => self.problem = unknown_option(kind, self.transport - self.start + at),
            }
            if self.problem.is_some() {
                break;
            }
            at += len;
        }
        Ok(())
    }

    /// All types of routing headers are unknown here, type 0 too (RFC 5095 section 3).
    fn look_at_route(&mut self, header: &[u8]) {
        //= rfc8200#4.4
        //# If Segments Left is zero, the node must ignore the Routing header and proceed to process the next
        //# header in the packet, whose type is identified by the Next Header field in the Routing header.
        let has_segments_left = header.get(SEGMENTS_LEFT_AT).is_some_and(|&segments_left| segments_left != 0);
        //= rfc8200#4.4
        //# If Segments Left is non-zero, the node must discard the packet and send an ICMP Parameter Problem,
        //# Code 0, message to the packet's Source Address, pointing to the unrecognized Routing Type.
        if has_segments_left {
            let at = (self.transport - self.start + ROUTING_TYPE_AT) as u32;
            self.problem = Some(Problem::NextHeader { at, code: ERRONEOUS_FIELD });
        }
    }

    /// What a fragment says of the whole; `None` if it is the whole. The walk is at the fragment
    /// header.
    fn fragment_of(&mut self, header: &[u8]) -> Result<Option<FragmentInfo>, DropReason> {
        let [next_header, _, o0, o1, id @ ..] = header.first_chunk::<8>().ok_or(DropReason::IpTruncated)?;
        let flags = u16::from_be_bytes([*o0, *o1]);
        let offset = usize::from(flags & FRAGMENT_OFFSET);
        let more = flags & MORE_FRAGMENTS != 0;
        //= rfc6946#4
        //# A host that receives an IPv6 packet that includes a Fragment Header with the "Fragment Offset"
        //# equal to 0 and the "M" flag equal to 0 MUST process that packet in isolation from any other
        //# packets/fragments, even if such packets/fragments contain the same set {IPv6 Source Address, IPv6
        //# Destination Address, Fragment Identification}.
        if offset == 0 && !more {
            return Ok(None);
        }
        let payload = self.transport + FRAGMENT_LEN;
        let len = self.end - payload;
        let before_len = self.transport - self.start - HEADER_LEN;
        //= rfc8200#4.5
        //# If the length of a fragment, as derived from the fragment packet's Payload Length field, is not a
        //# multiple of 8 octets and the M flag of that fragment is 1, then that fragment must be discarded
        //# and an ICMP Parameter Problem, Code 0, message should be sent to the source of the fragment,
        //# pointing to the Payload Length field of the fragment packet.
        let is_uneven = more && !len.is_multiple_of(8);
        //= rfc8200#4.5
        //# If the length and offset of a fragment are such that the Payload Length of the packet reassembled
        //# from that fragment would exceed 65,535 octets, then that fragment must be discarded and an ICMP
        //# Parameter Problem, Code 0, message should be sent to the source of the fragment, pointing to the
        //# Fragment Offset field of the fragment packet.
        let is_too_long = before_len + offset + len > PAYLOAD_LEN_MAX;
        if is_uneven || is_too_long {
            let offset_at = (self.transport - self.start + FRAGMENT_OFFSET_AT) as u32;
            let at = if is_uneven { PAYLOAD_LENGTH_AT } else { offset_at };
            self.problem = Some(Problem::NextHeader { at, code: ERRONEOUS_FIELD });
            return Ok(None);
        }
        Ok(Some(FragmentInfo {
            id: u32::from_be_bytes(*id),
            offset,
            more,
            payload,
            next_header_at: self.next_header_at,
            header_at: self.transport,
            next_header: *next_header,
        }))
    }

    /// Of a first fragment, looks whether all headers are there, and for the ports. What is wrong in these
    /// headers is found when it is whole, except for what would be in another place then. The walk itself
    /// stays at the payload.
    fn look_into_fragment(&mut self, packet: &[u8], fragment: &FragmentInfo) -> Result<(), DropReason> {
        if fragment.offset != 0 {
            let is_empty = fragment.payload == self.end;
            return if is_empty { Err(DropReason::FragmentMalformed) } else { Ok(()) };
        }
        let mut inner = Self::new(self.start, self.end, self.protocol);
        (inner.transport, inner.next_header_at) = (self.transport, self.next_header_at);
        let mut headers_len = 0;
        while is_extension(inner.protocol) {
            headers_len += 1;
            match inner.protocol {
                HOP_BY_HOP => {
                    self.problem = Some(inner.misplaced());
                    return Ok(());
                }
                //= rfc8200#4.1
                //= type=exception
                //= reason=a fragment of a fragment hides what it carries, and no sender makes one
                //# IPv6 nodes must accept and attempt to process extension headers in any order and occurring
                //# any number of times in the same packet, except for the Hop-by-Hop Options header, which is
                //# restricted to appear immediately after an IPv6 header only.
                FRAGMENT => return Err(DropReason::IpOptions),
                _ if headers_len > HEADERS_MAX => return Err(DropReason::IpOptions),
                _ => {}
            }
            let header = header_at(packet, inner.protocol, inner.transport);
            inner.step(header.ok_or(DropReason::FragmentHeaders)?);
        }
        //= rfc8200#4.5
        //= type=exception
        //= reason=it is dropped and counted; who makes such fragments does so to hide something
        //# If the first fragment does not include all headers through an Upper-Layer header, then that
        //# fragment should be discarded and an ICMP Parameter Problem, Code 3, message should be sent to the
        //# source of the fragment, with the Pointer field set to zero.
        if self.end - inner.transport < upper_layer_len_min(inner.protocol) {
            return Err(DropReason::FragmentHeaders);
        }
        self.ports = ports(packet, inner.protocol, inner.transport, self.end);
        Ok(())
    }
}

/// The extension header of this kind that begins at `at`, if it is all there.
fn header_at(frame: &[u8], kind: u8, at: usize) -> Option<&[u8]> {
    let [_, len] = *chunk(frame, at)?;
    let len = match kind {
        FRAGMENT => FRAGMENT_LEN,
        // Units of 4 octets, minus 2 (RFC 4302 section 2.2).
        AUTHENTICATION => (usize::from(len) + 2) * 4,
        // Units of 8 octets, not counting the first 8.
        _ => (usize::from(len) + 1) * 8,
    };
    frame.get(at..at + len)
}

/// What the two highest bits of an unknown option say. `at` is its offset in the packet.
fn unknown_option(kind: u8, at: usize) -> Option<Problem> {
    let at = at as u32;
    match kind >> 6 {
        //= rfc8200#4.2
        //# 00 - skip over this option and continue processing the header.
        0b00 => None,
        //= rfc8200#4.2
        //# 01 - discard the packet.
        0b01 => Some(Problem::Option { at, answer: false, even_multicast: false }),
        //= rfc8200#4.2
        //# 10 - discard the packet and, regardless of whether or not the packet's Destination Address was a
        //# multicast address, send an ICMP Parameter Problem, Code 2, message to the packet's Source Address,
        //# pointing to the unrecognized Option Type.
        0b10 => Some(Problem::Option { at, answer: true, even_multicast: true }),
        //= rfc8200#4.2
        //# 11 - discard the packet and, only if the packet's Destination Address was not a multicast address,
        //# send an ICMP Parameter Problem, Code 2, message to the packet's Source Address, pointing to the
        //# unrecognized Option Type.
        _ => Some(Problem::Option { at, answer: true, even_multicast: false }),
    }
}

/// Bytes of the upper-layer header that a first fragment must have.
fn upper_layer_len_min(protocol: u8) -> usize {
    match protocol {
        TCP => 20,
        UDP => 8,
        ICMPV6 => 4,
        // The shortest of a protocol that is not known here.
        _ => 1,
    }
}

/// Whether this is a header that can be walked. An encrypted payload (ESP) cannot.
#[inline]
pub(super) fn is_extension(kind: u8) -> bool {
    matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// Bytes from the start of the IPv6 header to its Next Header field.
const NEXT_HEADER_AT: usize = 6;
const PAYLOAD_LEN_MAX: usize = 65_535;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;

/// Extension headers of a packet at most, and behind the fragment header as many again. RFC 8200
/// section 4.1 lists six, one of which may come twice.
const HEADERS_MAX: usize = 8;
/// Options of a header at most, padding not counted.
const OPTIONS_MAX: usize = 8;
/// Bytes of padding in a row at most: alignment to 8 needs no more.
const PADDING_MAX: usize = 7;

const FRAGMENT_LEN: usize = 8;
const FRAGMENT_OFFSET: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 0x0001;
/// The fields up to the sequence number.
const AUTHENTICATION_LEN: usize = 12;
/// Where the Payload Length field is in an IPv6 header, and the Fragment Offset field in a fragment header.
const PAYLOAD_LENGTH_AT: u32 = 4;
const FRAGMENT_OFFSET_AT: usize = 2;
const ROUTING_TYPE_AT: usize = 2;
const SEGMENTS_LEFT_AT: usize = 3;

const OPTION_PAD1: u8 = 0;
const OPTION_PADN: u8 = 1;
const OPTION_ROUTER_ALERT: u8 = 5;
/// With type and length.
const ROUTER_ALERT_LEN: usize = 4;

/// Codes of Parameter Problem (RFC 4443 section 3.4).
const ERRONEOUS_FIELD: u8 = 0;
const UNRECOGNIZED_NEXT_HEADER: u8 = 1;
