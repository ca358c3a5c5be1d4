//! Which traffic is ours: claims, and what they mean on an address that the kernel owns too.
//!
//! A stack whose address the kernel does not own claims the whole address, and every frame to it is
//! ours. On an address that the kernel owns (`Scope::Ports`), the packet socket still shows every
//! frame of the interface, those of the kernel's own connections included. A stack that saw them would
//! reset the kernel's ssh session and answer each ping a second time. So [`Claimed`], a device around
//! a device, shows its user only what [`ClaimSet`] calls ours:
//!
//! | frame | ours |
//! |---|---|
//! | ARP; NDP (router and neighbor solicitation, advertisement, redirect) | always: both hosts learn |
//! | IP to an address that is not shared, multicast and broadcast included | yes, but no echo request to a group |
//! | TCP, UDP to a shared address | if the destination port is claimed |
//! | a later fragment to a shared address | if any port of its protocol is claimed there |
//! | ICMP error to a shared address | if the packet it quotes came from a port that is claimed |
//! | echo reply to a shared address, a later fragment of ICMP | yes: the kernel stays silent on one, and so do we |
//! | anything else: other EtherTypes, other protocols, what cannot be parsed | no |
//!
//! A later fragment carries no ports, so it cannot be told whose it is. It goes to both: each side
//! reassembles only what begins with a first fragment that it was shown, and forgets the rest in
//! silence (RFC 1122 section 3.3.2, RFC 8200 section 4.5: no ICMP without the first fragment).
//!
//! The other half, the kernel that must not answer for our tuples, is [`crate::suppress`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

mod device;
mod headers;
#[cfg(test)]
mod tests;

pub use device::Claimed;

use headers::Headers;

/// One thing that is ours: an address, or some ports of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The local address, IPv4 or IPv6 (an IPv4-mapped one is not taken as IPv4).
    pub address: IpAddr,
    /// How much of it is ours.
    pub scope: Scope,
}

/// How much of an address is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything to the address: the kernel does not own it.
    Address,
    /// Some ports: the kernel owns the address as well.
    Ports {
        /// The transport protocol of the ports.
        protocol: Protocol,
        /// Local ports, both ends included. A range that ends before it starts claims nothing;
        /// [`suppress::install`](crate::suppress::install) refuses it.
        ports: RangeInclusive<u16>,
    },
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, IP protocol 6.
    Tcp,
    /// User Datagram Protocol, IP protocol 17.
    Udp,
}

impl Claim {
    /// Claims everything to `address`.
    pub fn address(address: IpAddr) -> Self {
        Self { address, scope: Scope::Address }
    }

    /// Claims `ports` (both ends included) of `protocol` on `address`.
    pub fn ports(address: IpAddr, protocol: Protocol, ports: RangeInclusive<u16>) -> Self {
        Self { address, scope: Scope::Ports { protocol, ports } }
    }
}

/// `10.0.0.2`, `10.0.0.2 tcp 80` or `10.0.0.2 udp 5000-5999`.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Address => write!(f, "{}", self.address),
            Scope::Ports { protocol, ports } if ports.start() == ports.end() => {
                write!(f, "{} {protocol} {}", self.address, ports.start())
            }
            Scope::Ports { protocol, ports } => {
                write!(f, "{} {protocol} {}-{}", self.address, ports.start(), ports.end())
            }
        }
    }
}

impl Protocol {
    /// Number in the protocol field of IPv4 and the next header field of IPv6.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => headers::TCP,
            Self::Udp => headers::UDP,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            headers::TCP => Some(Self::Tcp),
            headers::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

/// `tcp` or `udp`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Decides which frames are ours. The table at the top of this module is what it decides.
///
/// The cost of a decision is one pass over the headers and one over the claims on ports; without such
/// claims it is one comparison, and every frame is ours.
#[derive(Debug, Clone, Default)]
pub struct ClaimSet {
    /// The claims on ports of addresses that are not also claimed whole.
    pub(crate) shared: Vec<SharedPorts>,
}

/// Ports of an address that the kernel owns too.
#[derive(Debug, Clone)]
pub(crate) struct SharedPorts {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) ports: RangeInclusive<u16>,
}

impl ClaimSet {
    /// A set of these claims. An address that is claimed whole is not shared, whatever ports of it
    /// are claimed beside.
    pub fn new(claims: &[Claim]) -> Self {
        let whole = |address| claims.iter().any(|c| c.address == address && c.scope == Scope::Address);
        let shared = claims
            .iter()
            .filter(|claim| !whole(claim.address))
            .filter_map(|claim| match &claim.scope {
                Scope::Address => None,
                Scope::Ports { protocol, ports } => {
                    Some(SharedPorts { address: claim.address, protocol: *protocol, ports: ports.clone() })
                }
            })
            .collect();
        Self { shared }
    }

    /// Whether an address is shared with the kernel, so that some frames may not be ours.
    pub fn filters(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Whether an Ethernet frame is ours. Total: any bytes get an answer.
    ///
    /// Up to two VLAN tags (802.1Q, 802.1ad) are looked through.
    pub fn is_ours(&self, frame: &[u8]) -> bool {
        if !self.filters() {
            return true;
        }
        match headers::ethernet(frame) {
            Some((headers::ETHERTYPE_ARP, _)) => true,
            Some((headers::ETHERTYPE_IPV4 | headers::ETHERTYPE_IPV6, packet)) => self.is_ours_ip(packet),
            _ => false,
        }
    }

    /// Whether an IP packet (a device of `Medium::Ip`) is ours. Total, as [`is_ours`](Self::is_ours).
    pub fn is_ours_ip(&self, packet: &[u8]) -> bool {
        if !self.filters() {
            return true;
        }
        let Some(ip) = Headers::parse(packet) else {
            return false;
        };
        if !self.shared.iter().any(|shared| shared.address == ip.dst) {
            // The kernel answers an echo request to a group too, and from the same shared address.
            return !(is_group(ip.dst) && ip.icmp().is_some_and(headers::Icmp::is_echo_request));
        }
        match Protocol::from_number(ip.protocol) {
            Some(protocol) if ip.later_fragment => self.claims_any(ip.dst, protocol),
            Some(protocol) => ip.dst_port().is_some_and(|port| self.claims(ip.dst, protocol, port)),
            // Of an echo reply, perhaps.
            None if ip.later_fragment => ip.is_icmp(),
            None => ip.icmp().is_some_and(|icmp| self.is_ours_icmp(icmp)),
        }
    }

    /// Whether an ICMP message to a shared address is ours.
    fn is_ours_icmp(&self, icmp: headers::Icmp<'_>) -> bool {
        if icmp.is_neighbor_discovery() || icmp.is_echo_reply() {
            return true;
        }
        // The packet that the error is about was sent by us: its source is the claimed end.
        let Some(quoted) = icmp.quoted().and_then(Headers::parse) else {
            return false;
        };
        match (Protocol::from_number(quoted.protocol), quoted.src_port()) {
            (Some(protocol), Some(port)) => self.claims(quoted.src, protocol, port),
            _ => false,
        }
    }

    fn claims(&self, address: IpAddr, protocol: Protocol, port: u16) -> bool {
        self.shared.iter().any(|s| s.address == address && s.protocol == protocol && s.ports.contains(&port))
    }

    fn claims_any(&self, address: IpAddr, protocol: Protocol) -> bool {
        self.shared.iter().any(|s| s.address == address && s.protocol == protocol && !s.ports.is_empty())
    }
}

/// Multicast, or the limited broadcast. The broadcast address of a subnet cannot be told from a
/// host's without its prefix; nothing of ours depends on it.
fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}
