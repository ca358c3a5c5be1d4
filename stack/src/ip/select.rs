//! Which address a packet comes from, and in which order to try the addresses of a name (RFC 6724).
//!
//! The rules are about hosts with several interfaces, home agents and temporary addresses; on one interface
//! these remain. Source: 1 same address, 2 appropriate scope, 3 avoid deprecated, 6 matching label, 8
//! longest matching prefix. Rules 4 (home addresses), 5 (outgoing interface) and 7 (temporary addresses,
//! which we do not make) compare nothing here; nor does 5.5, for an address does not remember which router
//! advertised its prefix. Destination: 1, 2, 3, 5, 6, 8, 9, 10; rules 4 and 7 (native transport) compare
//! nothing.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{Address, AddressState, Addresses};

#[cfg(test)]
mod tests;

/// How far an address is good, as the scope field of an IPv6 group says it (RFC 4291 section 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(u8);

impl Scope {
    /// On one link.
    pub const LINK_LOCAL: Self = Self(2);
    /// In one site: fec0::/10, which nobody should have any more.
    pub const SITE_LOCAL: Self = Self(5);
    /// Everywhere. ULA and the private addresses of IPv4 are of this scope (RFC 6724 section 3.1, 3.2).
    pub const GLOBAL: Self = Self(14);

    /// The scope of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let is_local_group = v4.octets().starts_with(&[224, 0, 0]);
                if v4.is_loopback() || v4.is_link_local() || is_local_group {
                    Self::LINK_LOCAL
                } else {
                    Self::GLOBAL
                }
            }
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let [first, second, ..] = ip.octets();
        match (first, second) {
            (0xff, flags_and_scope) => Self(flags_and_scope & 0xf),
            _ if ip.is_unicast_link_local() || ip.is_loopback() => Self::LINK_LOCAL,
            (0xfe, 0xc0..) => Self::SITE_LOCAL,
            _ => Self::GLOBAL,
        }
    }
}

/// A line of the policy table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The destinations with the highest are tried first.
    pub precedence: u8,
    /// A source goes with the destinations of its own label.
    pub label: u8,
}

impl Policy {
    /// What the default table says of an address (RFC 6724 section 2.1). An address of IPv4 is looked up
    /// as ::ffff:0:0/96.
    pub fn of(ip: IpAddr) -> Self {
        let ip = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bits = ip.to_bits();
        let is_of = |&(prefix, len, ..): &(Ipv6Addr, u32, u8, u8)| {
            len == 0 || (bits ^ prefix.to_bits()) >> (128 - len) == 0
        };
        // The table is in the order of prefix lengths and ends with ::/0.
        let found = POLICIES.iter().find(|line| is_of(line));
        found.map_or(Self { precedence: 40, label: 1 }, |&(.., precedence, label)| Self { precedence, label })
    }
}

/// The address of ours from which to send to `dst`; `None` if there is none of its family that may be used.
///
/// `next_hop` is the gateway, or `dst` if that is on the link. RFC 6724 has no rule for what IPv4 hosts with
/// several prefixes need, to send from the prefix of their gateway (RFC 1122 section 3.3.4.3): for IPv4 it
/// stands before rule 8.
pub fn select_source(addresses: &Addresses, dst: IpAddr, next_hop: IpAddr) -> Option<IpAddr> {
    match dst {
        IpAddr::V4(v4) if v4.is_loopback() => return Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(v6) if v6.is_loopback() => return Some(dst),
        _ => {}
    }
    best_source(addresses, dst, next_hop).map(Address::ip)
}

/// Sorts the addresses of a name into the order in which to try them (RFC 6724 section 6). `next_hop` says
/// where a packet to an address would go; `None`: there is no route.
pub fn sort_destinations(
    addresses: &Addresses,
    next_hop: impl Fn(IpAddr) -> Option<IpAddr>,
    destinations: &mut [IpAddr],
) {
    destinations.sort_by_cached_key(|&dst| {
        let policy = Policy::of(dst);
        let scope = Scope::of(dst);
        let source = next_hop(dst).and_then(|next_hop| best_source(addresses, dst, next_hop));
        let of_source = source.map(|source| {
            (
                Scope::of(source.ip()) != scope,
                source.state == AddressState::Deprecated,
                Policy::of(source.ip()).label != policy.label,
            )
        });
        // Rule 9 compares addresses of one family only. No two families share a precedence, so those that
        // are equal so far are of one. Rule 10 is that the sort is stable.
        let common = source.map_or(0, |source| common_prefix_len(source, dst));
        (of_source.is_none(), of_source, Reverse(policy.precedence), scope, Reverse(common))
    });
}

fn best_source(addresses: &Addresses, dst: IpAddr, next_hop: IpAddr) -> Option<&Address> {
    let scope = Scope::of(dst);
    let label = Policy::of(dst).label;
    let candidates =
        addresses.iter().filter(|address| address.is_usable() && address.ip().is_ipv4() == dst.is_ipv4());
    // The first of the best: `min_by_key` keeps it.
    candidates.min_by_key(|source| {
        let of_source = Scope::of(source.ip());
        let is_near_next_hop = next_hop.is_ipv4() && source.cidr.contains_addr(&next_hop.into());
        (
            source.ip() != dst,
            scope_rank(of_source, scope),
            source.state == AddressState::Deprecated,
            Policy::of(source.ip()).label != label,
            !is_near_next_hop,
            Reverse(common_prefix_len(source, dst)),
        )
    })
}

/// Rule 2 as a number, the lowest the best: the smallest scope that reaches as far as the destination's,
/// and if there is none, the largest.
fn scope_rank(source: Scope, dst: Scope) -> (bool, u8) {
    if source >= dst { (false, source.0) } else { (true, u8::MAX - source.0) }
}

/// Equal leading bits, not counting those behind the prefix of the source (RFC 6724 section 2.2).
fn common_prefix_len(source: &Address, dst: IpAddr) -> u32 {
    let common = match (source.ip(), dst) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    common.min(source.cidr.prefix_len().into())
}

/// Prefix, length, precedence, label.
const POLICIES: [(Ipv6Addr, u32, u8, u8); 9] = [
    (Ipv6Addr::LOCALHOST, 128, 50, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 35, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 1, 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5, 5),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 30, 2),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 1, 12),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 1, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 3, 13),
    (Ipv6Addr::UNSPECIFIED, 0, 40, 1),
];
