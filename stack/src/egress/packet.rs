//! What a part of the stack asks to be sent: a packet before routing.

use std::net::IpAddr;

/// The header of a packet to be sent, as far as its sender cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketSpec {
    /// Source address. `None`: chosen (RFC 6724). The unspecified address stays as it is.
    pub src: Option<IpAddr>,
    /// Destination.
    pub dst: IpAddr,
    /// Number of the protocol of the payload.
    pub protocol: u8,
    /// TTL of IPv4, hop limit of IPv6. `None`: the interface's, or 1 for a multicast destination.
    pub hop_limit: Option<u8>,
    /// DSCP and ECN: the TOS octet, or the traffic class.
    pub traffic_class: u8,
    /// DF of IPv4. If the packet is longer than the path takes: `true` fails the send, `false` fragments,
    /// of IPv6 likewise.
    pub dont_fragment: bool,
    /// DF of IPv4 on what is sent whole, so that the path tells its MTU (RFC 1191 section 3); what is too long for it
    /// goes in fragments all the same.
    pub discovers_path_mtu: bool,
    /// With the Router Alert option (RFC 2113, RFC 2711 as a hop-by-hop header): IGMP and MLD.
    pub router_alert: bool,
}

impl PacketSpec {
    /// A packet to `dst` of this protocol, everything else left to the stack.
    pub fn new(dst: IpAddr, protocol: u8) -> Self {
        Self {
            src: None,
            dst,
            protocol,
            hop_limit: None,
            traffic_class: 0,
            dont_fragment: false,
            discovers_path_mtu: false,
            router_alert: false,
        }
    }
}

/// A packet of the control plane with its payload, the checksum of the payload filled in if its
/// `spec.src` is set and 0 otherwise: then whoever chooses the source fills it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The header.
    pub spec: PacketSpec,
    /// What follows the IP header: an ICMP, IGMP or MLD message, a UDP datagram with its header.
    pub payload: Vec<u8>,
}
