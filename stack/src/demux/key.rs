//! The 4-tuple of a flow as a key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Both ends of a flow, seen from here, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKey {
    /// Of IPv4.
    V4(FlowKeyV4),
    /// Of IPv6.
    V6(FlowKeyV6),
}

/// The key of a flow of IPv4: 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKeyV4 {
    local: u32,
    remote: u32,
    ports: u32,
}

/// The key of a flow of IPv6: 36 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKeyV6 {
    local: [u32; 4],
    remote: [u32; 4],
    ports: u32,
}

impl FlowKey {
    /// The key of a flow. `None`: the ends are of different families.
    ///
    /// The scope and the flow label of an IPv6 address do not count: a table is of one interface. An
    /// IPv4-mapped address is an IPv6 address like others; who lets an application write one makes an IPv4
    /// address of it ([`IpAddr::to_canonical`]).
    #[inline]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        Self::of_parts(local.ip(), local.port(), remote.ip(), remote.port())
    }

    /// As [`new`](Self::new), of addresses and ports as a packet has them.
    #[inline]
    pub fn of_parts(local: IpAddr, local_port: u16, remote: IpAddr, remote_port: u16) -> Option<Self> {
        let ports = (u32::from(local_port) << 16) | u32::from(remote_port);
        match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                Some(Self::V4(FlowKeyV4 { local: local.into(), remote: remote.into(), ports }))
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                Some(Self::V6(FlowKeyV6 { local: words(local), remote: words(remote), ports }))
            }
            _ => None,
        }
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        match self {
            Self::V4(key) => (Ipv4Addr::from(key.local), (key.ports >> 16) as u16).into(),
            Self::V6(key) => (address(key.local), (key.ports >> 16) as u16).into(),
        }
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::V4(key) => (Ipv4Addr::from(key.remote), key.ports as u16).into(),
            Self::V6(key) => (address(key.remote), key.ports as u16).into(),
        }
    }

    /// Both ends in 36 bytes, whichever the family: what a record keeps that has no room for the enum.
    #[inline]
    pub(crate) fn to_packed(self) -> [u32; 9] {
        match self {
            Self::V4(FlowKeyV4 { local, remote, ports }) => [local, remote, ports, 0, 0, 0, 0, 0, 0],
            Self::V6(FlowKeyV6 { local: [a, b, c, d], remote: [e, f, g, h], ports }) => {
                [a, b, c, d, e, f, g, h, ports]
            }
        }
    }

    /// What [`to_packed`](Self::to_packed) has made of a key of this family.
    #[inline]
    pub(crate) fn of_packed([a, b, c, d, e, f, g, h, i]: [u32; 9], is_v4: bool) -> Self {
        if is_v4 {
            Self::V4(FlowKeyV4 { local: a, remote: b, ports: c })
        } else {
            Self::V6(FlowKeyV6 { local: [a, b, c, d], remote: [e, f, g, h], ports: i })
        }
    }
}

impl FlowKeyV4 {
    #[inline]
    pub(super) fn words(&self) -> [u64; 2] {
        [u64::from(self.local) << 32 | u64::from(self.remote), self.ports.into()]
    }
}

impl FlowKeyV6 {
    #[inline]
    pub(super) fn words(&self) -> [u64; 5] {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let ([a, b, c, d], [e, f, g, h]) = (self.local, self.remote);
        [pair(a, b), pair(c, d), pair(e, f), pair(g, h), self.ports.into()]
    }
}

/// In words of 32 bits, so that an entry of a table has no holes.
#[inline]
pub(super) fn words(address: Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32]
}

fn address(words: [u32; 4]) -> Ipv6Addr {
    Ipv6Addr::from_bits(words.iter().fold(0, |bits, word| bits << 32 | u128::from(*word)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_both_ends(local: SocketAddr, remote: SocketAddr) {
            let plain = |end: SocketAddr| SocketAddr::new(end.ip(), end.port());
            match FlowKey::new(local, remote) {
                Some(key) => {
                    prop_assert_eq!((key.local(), key.remote()), (plain(local), plain(remote)));
                    prop_assert_eq!(FlowKey::of_packed(key.to_packed(), local.is_ipv4()), key);
                }
                None => prop_assert!(local.is_ipv4() != remote.is_ipv4()),
            }
        }
    }

    #[test]
    fn is_compact() {
        assert_eq!((size_of::<FlowKeyV4>(), size_of::<FlowKeyV6>()), (12, 36));
    }
}
