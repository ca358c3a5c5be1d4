//! Where the headers of a frame are: the one walk from the link header to the transport's payload.

use smoltcp::phy::Medium;

use super::{ETHERNET_HEADER_LEN, VLAN_TAG_LEN};

/// Offsets, in bytes from the start of the frame, of a TCP segment or UDP datagram that is whole as far
/// as its headers go. All lie within the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// IPv4 or IPv6.
    pub version: IpVersion,
    /// Start of the IP header.
    pub network: usize,
    /// TCP or UDP.
    pub protocol: Transport,
    /// Start of the TCP or UDP header.
    pub transport: usize,
    /// Start of the payload.
    pub payload: usize,
    /// End of the payload by the length field of IP, or of the frame where that field is 0 (a frame of
    /// more than 64 KiB). What follows is padding.
    pub end: usize,
}

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Protocols whose checksum and splitting can be left to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// Bytes from the start of the header to the checksum.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl Layout {
    /// Walks an Ethernet frame, past two VLAN tags at most. `None`: no TCP or UDP, a fragment, or cut
    /// short within the headers; or with a routing header of IPv6 that has not been followed to its end.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let mut network = ETHERNET_HEADER_LEN;
        let mut ethertype = half(frame, network - 2)?;
        for _ in 0..VLAN_TAGS_MAX {
            let (ETHERTYPE_VLAN | ETHERTYPE_QINQ) = ethertype else { break };
            network += VLAN_TAG_LEN;
            ethertype = half(frame, network - 2)?;
        }
        match ethertype {
            ETHERTYPE_IPV4 => Self::of_ipv4(frame, network),
            ETHERTYPE_IPV6 => Self::of_ipv6(frame, network),
            _ => None,
        }
    }

    /// Walks an IP packet without a link header.
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_ipv4(packet, 0),
            6 => Self::of_ipv6(packet, 0),
            _ => None,
        }
    }

    /// Walks a frame of a device of this medium. Other media than Ethernet and IP: `None`.
    pub fn on(medium: Medium, frame: &[u8]) -> Option<Self> {
        match medium {
            Medium::Ethernet => Self::of_frame(frame),
            Medium::Ip => Self::of_packet(frame),
            #[allow(unreachable_patterns, reason = "smoltcp has more media with other features")]
            _ => None,
        }
    }

    fn of_ipv4(frame: &[u8], network: usize) -> Option<Self> {
        let first = *frame.get(network)?;
        let header_len = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_len < IPV4_HEADER_LEN {
            return None;
        }
        // More fragments, or an offset that is not 0.
        if half(frame, network + 6)? & 0x3fff != 0 {
            return None;
        }
        let total_len = usize::from(half(frame, network + 2)?);
        let end = if total_len == 0 { frame.len() } else { network + total_len };
        let protocol = *frame.get(network + 9)?;
        Self::of_transport(frame, IpVersion::V4, network, protocol, network + header_len, end)
    }

    fn of_ipv6(frame: &[u8], network: usize) -> Option<Self> {
        if frame.get(network)? >> 4 != 6 {
            return None;
        }
        let payload_len = usize::from(half(frame, network + 4)?);
        let mut transport = network + IPV6_HEADER_LEN;
        let end = if payload_len == 0 { frame.len() } else { transport + payload_len };
        let mut next_header = *frame.get(network + 6)?;
        for _ in 0..IPV6_EXTENSIONS_MAX {
            let (HOP_BY_HOP | ROUTING | DESTINATION) = next_header else { break };
            // With addresses still to be visited, the checksum is not over the destination that is there.
            if next_header == ROUTING && *frame.get(transport + 3)? != 0 {
                return None;
            }
            next_header = *frame.get(transport)?;
            // Units of 8 octets, not counting the first 8: RFC 8200 section 4.
            transport += 8 * (usize::from(*frame.get(transport + 1)?) + 1);
        }
        Self::of_transport(frame, IpVersion::V6, network, next_header, transport, end)
    }

    fn of_transport(
        frame: &[u8],
        version: IpVersion,
        network: usize,
        protocol: u8,
        transport: usize,
        end: usize,
    ) -> Option<Self> {
        let (protocol, header_len) = match protocol {
            6 => (Transport::Tcp, usize::from(*frame.get(transport + 12)? >> 4) * 4),
            17 => (Transport::Udp, UDP_HEADER_LEN),
            _ => return None,
        };
        let len_min = if protocol == Transport::Tcp { TCP_HEADER_LEN } else { UDP_HEADER_LEN };
        let payload = transport + header_len;
        if header_len < len_min || payload > end || end > frame.len() {
            return None;
        }
        Some(Self { version, network, protocol, transport, payload, end })
    }
}

/// A number of 16 bits in network order.
pub(crate) fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_be_bytes)
}

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(crate) const ETHERTYPE_QINQ: u16 = 0x88a8;
pub(crate) const IPV4_HEADER_LEN: usize = 20;
pub(crate) const IPV6_HEADER_LEN: usize = 40;
pub(crate) const TCP_HEADER_LEN: usize = 20;
pub(crate) const UDP_HEADER_LEN: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
/// A service tag and a customer tag (IEEE 802.1Q).
const VLAN_TAGS_MAX: usize = 2;
/// Bound of the walk through extension headers; real packets have one or two.
const IPV6_EXTENSIONS_MAX: usize = 8;
