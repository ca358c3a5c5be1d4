//! The headers of a packet up to its transport header, found in bytes that may be cut short: the packet
//! that an ICMP error quotes, or the one that is to be quoted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the headers of a packet say. Offsets are bytes from the start of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The protocol of what is at `transport`.
    pub protocol: u8,
    /// Where the field is that says so.
    pub protocol_at: usize,
    /// Where the transport header begins; perhaps beyond the end of the bytes. Of a fragment but the first,
    /// where its payload does.
    pub transport: usize,
    /// Bytes from the start of the fragmented part, if it is a fragment: 0 of a whole packet.
    pub fragment_offset: usize,
    /// Bytes of the whole packet, as its header says.
    pub packet_bytes: usize,
}

/// Reads the headers at the start of `packet`. `None`: not even the fixed header is there, or it cannot
/// be. Of IPv6, a chain that is cut short, or longer than [`EXTENSION_HEADERS_MAX`], ends where it does:
/// `protocol` is then that of an extension header.
pub fn read(packet: &[u8]) -> Option<Chain> {
    match packet.first()? >> 4 {
        4 => read_v4(packet),
        6 => read_v6(packet),
        _ => None,
    }
}

fn read_v4(packet: &[u8]) -> Option<Chain> {
    let (header, _) = packet.split_first_chunk::<20>()?;
    let transport = 4 * usize::from(header[0] & 0xf);
    if transport < header.len() {
        return None;
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    Some(Chain {
        src: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        dst: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        protocol: header[9],
        protocol_at: 9,
        transport,
        fragment_offset: 8 * usize::from(flags & 0x1fff),
        packet_bytes: u16::from_be_bytes([header[2], header[3]]).into(),
    })
}

fn read_v6(packet: &[u8]) -> Option<Chain> {
    let (header, _) = packet.split_first_chunk::<40>()?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let mut chain = Chain {
        src: address(8)?,
        dst: address(24)?,
        protocol: header[6],
        protocol_at: 6,
        transport: header.len(),
        fragment_offset: 0,
        packet_bytes: header.len() + usize::from(u16::from_be_bytes([header[4], header[5]])),
    };
    for _ in 0..EXTENSION_HEADERS_MAX {
        let Some(&[next, len, high, low]) = packet.get(chain.transport..).and_then(|rest| rest.first_chunk())
        else {
            break;
        };
        let header_bytes = match chain.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8 + 8 * usize::from(len),
            AUTHENTICATION => 8 + 4 * usize::from(len),
            FRAGMENT => 8,
            _ => break,
        };
        if chain.protocol == FRAGMENT {
            chain.fragment_offset = usize::from(u16::from_be_bytes([high, low]) & !7);
        }
        (chain.protocol, chain.protocol_at) = (next, chain.transport);
        chain.transport += header_bytes;
        if chain.fragment_offset > 0 {
            break;
        }
    }
    Some(chain)
}

/// Whether a protocol of IPv6 is one of the extension headers that are followed here.
pub(super) fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Extension headers that are followed, at most.
pub const EXTENSION_HEADERS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authentication_header_is_counted_in_words_of_four() {
        let authentication = [&[17, 4][..], &[0; 22]].concat();
        let packet = [&[0x60, 0, 0, 0, 0, 32, 51, 64][..], &[0xfd; 32], &authentication, &[0; 8]].concat();
        let chain = read(&packet).expect("headers");
        assert_eq!((chain.protocol, chain.protocol_at, chain.transport), (17, 40, 64));
    }

    #[test]
    fn a_header_length_that_cannot_be_is_no_header() {
        for (first, expected) in [(0x44, None), (0x45, Some(20)), (0x4f, Some(60)), (0x50, None)] {
            let packet = [&[first][..], &[0; 60]].concat();
            assert_eq!(read(&packet).map(|chain| chain.transport), expected, "{first:02x}");
        }
    }
}
