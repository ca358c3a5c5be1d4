//! IPv4 (RFC 791): header, options, and what a fragment says of itself.

use std::net::{IpAddr, Ipv4Addr};

use wirestack_nic::offload::sum;

use super::{TCP, UDP, chunk};
use crate::ingress::packet::{FragmentInfo, IpPacket};
use crate::observe::DropReason;

/// Looks at an IPv4 packet that begins at `start`, which lies within the frame.
#[inline(always)]
pub(super) fn classify(frame: &[u8], start: usize) -> Result<IpPacket, DropReason> {
    let header: &[u8; HEADER_LEN] = chunk(frame, start).ok_or(DropReason::IpTruncated)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    //= rfc1122#3.2.1.1
    //# A datagram whose version number is not 4 MUST be silently discarded.
    if header[0] >> 4 != 4 || header_len < HEADER_LEN {
        return Err(DropReason::IpMalformed);
    }
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_len < header_len {
        return Err(DropReason::IpMalformed);
    }
    let end = start + total_len;
    if end > frame.len() {
        return Err(DropReason::IpTruncated);
    }
    let transport = start + header_len;
    let mut router_alert = false;
    //= rfc1122#3.2.1.2
    //# A host MUST verify the IP header checksum on every received datagram and silently discard every
    //# datagram that has a bad checksum.
    if header_len == HEADER_LEN {
        if !is_sum_right(header) {
            return Err(DropReason::IpChecksum);
        }
    } else {
        let header = frame.get(start..transport).ok_or(DropReason::IpTruncated)?;
        router_alert = walk_options(header)?;
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let protocol = header[9];
    let mut fragment = None;
    let mut ports = None;
    if flags & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0 {
        ports = super::ports(frame, protocol, transport, end);
    } else {
        let found = fragment_of(header, start, transport, end)?;
        if found.offset == 0 {
            ports = super::ports(frame, protocol, transport, end);
        }
        fragment = Some(found);
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    Ok(IpPacket {
        src: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        dst: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        start,
        transport,
        end,
        protocol,
        hop_limit: header[8],
        traffic_class: header[1],
        fragment,
        ports,
        dont_fragment: flags & DONT_FRAGMENT != 0,
        router_alert,
        problem: None,
    })
}

/// Whether the ones' complement sum of a header without options is all ones. The sum of RFC 1071 does not
/// depend on the width or the byte order of its words.
#[inline]
fn is_sum_right(header: &[u8; HEADER_LEN]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let mut sum = 0;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    // Of five words, so the first step leaves 34 bits and less than 2^19 above 16 bits.
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    (sum >> 16) + (sum & 0xffff) == 0xffff
}

/// Verifies a header with options, and walks them. Says whether Router Alert is among them.
#[cold]
fn walk_options(header: &[u8]) -> Result<bool, DropReason> {
    if sum::data(header) != 0xffff {
        return Err(DropReason::IpChecksum);
    }
    let mut router_alert = false;
    let mut options = header.get(HEADER_LEN..).unwrap_or_default();
    // Each step takes a byte at least, of 40 at most.
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest.first()) {
            (OPTION_END, _) => break,
            (OPTION_NOP, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return Err(DropReason::IpOptions),
        };
        options = options.get(len..).ok_or(DropReason::IpOptions)?;
        match *kind {
            //= rfc1122#3.2.1.8
            //= type=exception
            //= reason=routers drop source routes (RFC 7126); they serve to get around filters
            //# A host MUST support originating a source route and MUST be able to act as the final
            //# destination of a source route.
            OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE => return Err(DropReason::IpSourceRoute),
            OPTION_ROUTER_ALERT if len == ROUTER_ALERT_LEN => router_alert = true,
            OPTION_ROUTER_ALERT => return Err(DropReason::IpOptions),
            //= rfc1122#3.2.1.8
            //# The IP and transport layer MUST each interpret those IP options that they understand and
            //# silently ignore the others.
            _ => {}
        }
    }
    Ok(router_alert)
}

/// What a fragment says of the whole, whose header is taken to be as long as this one's.
#[cold]
fn fragment_of(
    header: &[u8; HEADER_LEN],
    start: usize,
    transport: usize,
    end: usize,
) -> Result<FragmentInfo, DropReason> {
    let [_, _, _, _, i0, i1, f0, f1, _, protocol, ..] = *header;
    let flags = u16::from_be_bytes([f0, f1]);
    let len = end - transport;
    let offset = usize::from(flags & FRAGMENT_OFFSET) * 8;
    let more = flags & MORE_FRAGMENTS != 0;
    // RFC 791 section 3.2: fragments are cut between units of 8 octets; a datagram has 65 535 octets at most.
    if (more && !len.is_multiple_of(8)) || transport - start + offset + len > LEN_MAX {
        return Err(DropReason::FragmentMalformed);
    }
    // What RFC 1858 warns of: a first fragment in which one cannot see what it is. A unit of 8 octets has
    // the ports.
    if offset == 0 && len == 0 && matches!(protocol, TCP | UDP) {
        return Err(DropReason::FragmentHeaders);
    }
    // Nothing at all, to be kept and counted.
    if len == 0 {
        return Err(DropReason::FragmentMalformed);
    }
    Ok(FragmentInfo {
        id: u16::from_be_bytes([i0, i1]).into(),
        offset,
        more,
        payload: transport,
        next_header_at: start + PROTOCOL_AT,
        header_at: transport,
        next_header: protocol,
    })
}

const HEADER_LEN: usize = 20;
/// Bytes from the start of the header to the protocol.
const PROTOCOL_AT: usize = 9;
const LEN_MAX: usize = 65_535;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;
/// RFC 2113.
const OPTION_ROUTER_ALERT: u8 = 148;
const ROUTER_ALERT_LEN: usize = 4;
