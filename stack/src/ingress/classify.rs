//! What a frame is: one walk over its headers, from the link to the ports.
//!
//! [`classify`] is a total function: any bytes are a [`Packet`] or a [`DropReason`]. It keeps nothing,
//! allocates nothing and looks at no more than a bounded number of headers and options. What it says of a
//! packet holds: everything between the offsets lies within the frame, and of IPv4 the header's checksum is
//! right.
//!
//! ```text
//!   | Ethernet | tag | tag | IPv4 | options            | upper layer      | padding
//!   |          |     |     | IPv6 | extension headers  | upper layer      |
//!   0                      start                       transport          end
//! ```
//!
//! What it does not know: our addresses, and which of them may be a source. Nor does it look behind the
//! upper-layer header but for the ports, nor at checksums of the upper layer.

mod chain;
mod ipv4;
mod ipv6;
#[cfg(test)]
mod tests;

use smoltcp::phy::Medium;
use smoltcp::wire::EthernetAddress;

use super::packet::{Body, Link, Packet};
use crate::observe::DropReason;

/// Looks at a frame of a device of this medium.
///
/// Frames may be longer than the wire carries: what a card or a kernel has merged is one packet of up to
/// 64 KB. A total length of 0, which stands for more than that (BIG TCP), is refused, and so are
/// jumbograms (RFC 2675).
///
/// # Errors
///
/// Why it is to be dropped: `Link*`, `Ip*`, `Fragment*`, [`DropReason::ArpMalformed`].
#[inline]
pub fn classify(medium: Medium, frame: &[u8]) -> Result<Packet, DropReason> {
    match medium {
        Medium::Ethernet => classify_ethernet(frame),
        Medium::Ip => classify_ip(frame),
        #[allow(unreachable_patterns, reason = "smoltcp has more media with other features")]
        _ => Err(DropReason::LinkUnknownType),
    }
}

#[inline]
fn classify_ethernet(frame: &[u8]) -> Result<Packet, DropReason> {
    let header: &[u8; ETHERNET_LEN] = frame.first_chunk().ok_or(DropReason::LinkTruncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = *header;
    let mut link = Link {
        src: EthernetAddress([s0, s1, s2, s3, s4, s5]),
        dst: EthernetAddress([d0, d1, d2, d3, d4, d5]),
        vlans: [None; 2],
        len: ETHERNET_LEN as u16,
    };
    let mut ethertype = u16::from_be_bytes([e0, e1]);
    if matches!(ethertype, ETHERTYPE_CUSTOMER_TAG | ETHERTYPE_SERVICE_TAG) {
        ethertype = walk_tags(frame, ethertype, &mut link)?;
    }
    let start = usize::from(link.len);
    let body = match ethertype {
        ETHERTYPE_IPV4 => Body::Ip(ipv4::classify(frame, start)?),
        ETHERTYPE_IPV6 => Body::Ip(ipv6::classify(frame, start)?),
        ETHERTYPE_ARP if frame.len() - start >= ARP_LEN => Body::Arp(start),
        ETHERTYPE_ARP => return Err(DropReason::ArpMalformed),
        _ => return Err(DropReason::LinkUnknownType),
    };
    Ok(Packet { link: Some(link), body })
}

/// Walks one or two VLAN tags (IEEE 802.1Q; a service tag of 802.1ad only outside), and returns the
/// EtherType behind them.
#[cold]
fn walk_tags(frame: &[u8], mut ethertype: u16, link: &mut Link) -> Result<u16, DropReason> {
    let mut at = ETHERNET_LEN;
    for vlan in &mut link.vlans {
        let [t0, t1, e0, e1] = *chunk(frame, at).ok_or(DropReason::LinkTruncated)?;
        // Priority and drop eligibility are above.
        *vlan = Some(u16::from_be_bytes([t0, t1]) & 0x0fff);
        ethertype = u16::from_be_bytes([e0, e1]);
        at += TAG_LEN;
        if ethertype != ETHERTYPE_CUSTOMER_TAG {
            break;
        }
    }
    link.len = at as u16;
    match ethertype {
        // A third tag, or a service tag inside of another.
        ETHERTYPE_CUSTOMER_TAG | ETHERTYPE_SERVICE_TAG => Err(DropReason::LinkVlan),
        _ => Ok(ethertype),
    }
}

/// A packet without a link header: its first four bits say the version.
fn classify_ip(frame: &[u8]) -> Result<Packet, DropReason> {
    let body = match frame.first().ok_or(DropReason::IpTruncated)? >> 4 {
        4 => ipv4::classify(frame, 0)?,
        6 => ipv6::classify(frame, 0)?,
        _ => return Err(DropReason::IpMalformed),
    };
    Ok(Packet { link: None, body: Body::Ip(body) })
}

/// The ports of an upper-layer header that begins at `transport`, if it has any and they lie before `end`,
/// which lies within the frame.
#[inline]
fn ports(frame: &[u8], protocol: u8, transport: usize, end: usize) -> Option<(u16, u16)> {
    if !matches!(protocol, TCP | UDP) {
        return None;
    }
    let [s0, s1, d0, d1] = *chunk(frame.get(..end)?, transport)?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// The `N` bytes at an offset, if they are there.
#[inline]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

const ETHERNET_LEN: usize = wirestack_nic::offload::ETHERNET_HEADER_LEN;
const TAG_LEN: usize = wirestack_nic::offload::VLAN_TAG_LEN;
/// ARP for Ethernet and IPv4 (RFC 826).
const ARP_LEN: usize = 28;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_CUSTOMER_TAG: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_SERVICE_TAG: u16 = 0x88a8;

const TCP: u8 = 6;
const UDP: u8 = 17;
