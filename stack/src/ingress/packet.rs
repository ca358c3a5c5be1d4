//! What a frame is, found by looking at it once: numbers and offsets, no slices.

use std::net::IpAddr;

use smoltcp::wire::EthernetAddress;

/// A frame that is well-formed up to its transport header. Offsets are bytes from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The link header; `None` where the device carries IP packets without one.
    pub link: Option<Link>,
    /// What it carries.
    pub body: Body,
}

/// An Ethernet header, VLAN tags included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Who sent it.
    pub src: EthernetAddress,
    /// Whom it is for: us, a group, everybody, or somebody else.
    pub dst: EthernetAddress,
    /// VLAN identifiers, outer (802.1ad or 802.1Q) and inner; 0 is a priority tag. `None`: no such tag.
    pub vlans: [Option<u16>; 2],
    /// Bytes of the header with its tags.
    pub len: u16,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// ARP; the message begins at this offset and is long enough for Ethernet and IPv4.
    Arp(usize),
    /// IPv4 or IPv6.
    Ip(IpPacket),
}

/// An IP packet whose header is right: version, lengths, options or extension headers, and the checksum of
/// an IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket {
    /// Source address; of the same family as `dst`.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Where the IP header begins.
    pub start: usize,
    /// Where the upper-layer header begins: after all options and extension headers. Of a fragment: where
    /// its payload begins. With a `problem`: where the header begins in which it is, unless it is a fragment.
    pub transport: usize,
    /// Where the packet ends: after its last byte; what follows in the frame is padding.
    pub end: usize,
    /// Number of what begins at `transport`. The upper-layer protocol: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6,
    /// 2 IGMP, 59 no next header. Of a fragment, what the fragment header (IPv6) or the header (IPv4) says.
    pub protocol: u8,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// TOS octet or traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Set if it is not whole. An atomic fragment (RFC 6946, 8200: offset 0 and no more) is whole: `None`.
    pub fragment: Option<FragmentInfo>,
    /// Source and destination port of TCP and UDP, of whole packets and of first fragments; `None` also if a
    /// whole packet ends before them.
    pub ports: Option<(u16, u16)>,
    /// Whether DF is set; `true` for IPv6.
    pub dont_fragment: bool,
    /// Whether it has the Router Alert option.
    pub router_alert: bool,
    /// The first extension header or option for which the packet must be dropped, and perhaps answered with
    /// an error. What is behind it has not been looked at.
    pub problem: Option<Problem>,
}

/// What a fragment says of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Identification: 16 bits of IPv4, 32 bits of IPv6.
    pub id: u32,
    /// Where its payload belongs, in bytes from the start of the fragmentable part.
    pub offset: usize,
    /// Whether more follows.
    pub more: bool,
    /// Where its payload begins in the frame: after the IPv4 header, or after the fragment header.
    pub payload: usize,
    /// IPv6: where the Next Header field that names the fragment header is, and where that header begins.
    /// The reassembled packet has everything before the latter, and in the former the number of the
    /// fragment's own next header, which is `next_header`.
    pub next_header_at: usize,
    /// Where the fragment header begins (IPv6); `payload` for IPv4.
    pub header_at: usize,
    /// The first header of the fragmentable part.
    pub next_header: u8,
}

/// Something in the headers of a well-formed packet for which its sender is to be told (RFC 8200 section
/// 4.2, RFC 4443 section 3.4), and which is not to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// An option whose type says to drop the packet, and whether an ICMPv6 Parameter Problem (code 2) is
    /// due.
    Option {
        /// Bytes from the start of the IPv6 header.
        at: u32,
        /// Whether a Parameter Problem is sent.
        answer: bool,
        /// Also if the destination is a group.
        even_multicast: bool,
    },
    /// A hop-by-hop options header that is not the first, or a routing header with segments left:
    /// Parameter Problem code 1 or 0.
    NextHeader {
        /// Bytes from the start of the IPv6 header.
        at: u32,
        /// ICMPv6 code.
        code: u8,
    },
}
