//! The header of IPv6 (RFC 8200).

use std::net::{IpAddr, Ipv6Addr};

use super::chain::{self, Chain};
use super::chunk;
use crate::ingress::packet::IpPacket;
use crate::observe::DropReason;

/// Looks at an IPv6 packet that begins at `start`, which lies within the frame.
#[inline(always)]
pub(super) fn classify(frame: &[u8], start: usize) -> Result<IpPacket, DropReason> {
    let header: &[u8; HEADER_LEN] = chunk(frame, start).ok_or(DropReason::IpTruncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::IpMalformed);
    }
    let transport = start + HEADER_LEN;
    let end = transport + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if end > frame.len() {
        return Err(DropReason::IpTruncated);
    }
    let [_, _, _, _, _, _, next_header, hop_limit, addresses @ ..] = header;
    let (addresses, _) = addresses.as_chunks::<16>();
    let [src, dst] = addresses else { return Err(DropReason::IpTruncated) };
    let mut chain = Chain::new(start, end, *next_header);
    if chain::is_extension(chain.protocol) {
        chain = chain.walk(frame)?;
    } else {
        chain.ports = super::ports(frame, chain.protocol, transport, end);
    }
    Ok(IpPacket {
        src: IpAddr::V6(Ipv6Addr::from(*src)),
        dst: IpAddr::V6(Ipv6Addr::from(*dst)),
        start,
        transport: chain.transport,
        end,
        protocol: chain.protocol,
        hop_limit: *hop_limit,
        traffic_class: (header[0] << 4) | (header[1] >> 4),
        fragment: chain.fragment,
        ports: chain.ports,
        dont_fragment: true,
        router_alert: chain.router_alert,
        problem: chain.problem,
    })
}

pub(super) const HEADER_LEN: usize = 40;
