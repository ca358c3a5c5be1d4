//! What a socket can be bound to, and who is in whose way.
//!
//! The rules are those of Linux. Two sockets are in each other's way if they have one port, and one
//! address in common: the same one, or one of them is bound to any address of the other's family. A socket bound
//! to any address of both families is in the way of either. With the option `reuse` at both of them
//! (SO_REUSEADDR of UDP), they are not. For listeners of TCP there is no such option here: Linux lets a
//! second one listen on an overlapping address in no case either, but with SO_REUSEPORT.

use std::fmt;
use std::net::IpAddr;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::hash::KeyedHash;
use super::key::words;
use crate::random::Random;

/// Local addresses that a socket takes packets for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// This one: unicast, or a group or broadcast address to have datagrams for it only.
    Address(IpAddr),
    /// All of IPv4: `0.0.0.0`.
    AnyV4,
    /// All of IPv6 and none of IPv4: `::` with IPV6_V6ONLY.
    AnyV6,
    /// All of both: `::` without IPV6_V6ONLY.
    Any,
}

impl BindAddress {
    /// What an application means by an address: unspecified ones are any, `v6_only` says what `::` is, and an
    /// IPv4-mapped one is of IPv4.
    pub fn new(ip: IpAddr, v6_only: bool) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => Self::AnyV4,
            IpAddr::V6(ip) if ip.is_unspecified() && v6_only => Self::AnyV6,
            IpAddr::V6(ip) if ip.is_unspecified() => Self::Any,
            ip => Self::Address(ip),
        }
    }

    /// Whether packets to `local` are meant.
    pub fn covers(&self, local: IpAddr) -> bool {
        match self {
            Self::Address(address) => *address == local,
            Self::AnyV4 => local.is_ipv4(),
            Self::AnyV6 => local.is_ipv6(),
            Self::Any => true,
        }
    }

    /// The same address, with [`new`](Self::new)'s reading of an unspecified or mapped one.
    fn normal(self) -> Self {
        match self {
            Self::Address(ip) => Self::new(ip, false),
            any => any,
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::AnyV4 => f.write_str("0.0.0.0"),
            Self::AnyV6 => f.write_str("[::]"),
            // As `ss` has it.
            Self::Any => f.write_str("*"),
        }
    }
}

/// Local addresses and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    /// Which addresses.
    pub address: BindAddress,
    /// Which port; 0 is none.
    pub port: u16,
}

impl Binding {
    /// To an address and port as an application writes it: see [`BindAddress::new`].
    pub fn new(ip: IpAddr, port: u16, v6_only: bool) -> Self {
        Self { address: BindAddress::new(ip, v6_only), port }
    }

    pub(super) fn normal(self) -> Self {
        Self { address: self.address.normal(), ..self }
    }

    /// Under which keys its packets are looked for: two for any address of both families.
    pub(super) fn places(self) -> impl Iterator<Item = Place> {
        let port = self.port;
        let (first, second) = match self.address {
            BindAddress::Address(ip) => (Place::of(ip, port), None),
            BindAddress::AnyV4 => (Place::any(Family::V4, port), None),
            BindAddress::AnyV6 => (Place::any(Family::V6, port), None),
            BindAddress::Any => (Place::any(Family::V4, port), Some(Place::any(Family::V6, port))),
        };
        [Some(first), second].into_iter().flatten()
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

/// Why a socket cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket is in the way.
    #[error("{binding} is in use")]
    InUse {
        /// As asked for.
        binding: Binding,
    },
    /// Port 0 means "none"; whoever wants any port chooses one first.
    #[error("port 0 cannot be bound; 1 to 65535 are accepted")]
    PortZero,
    /// There are as many as there may be.
    #[error("all {len_max} bindings are in use")]
    Full {
        /// The bound.
        len_max: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One address of a family, or all of a family, and a port, as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    address: [u32; 4],
    port: u16,
    family: Family,
    is_any: bool,
}

impl Place {
    #[inline]
    pub(super) fn of(ip: IpAddr, port: u16) -> Self {
        let address = match ip {
            IpAddr::V4(ip) => [ip.into(), 0, 0, 0],
            IpAddr::V6(ip) => words(ip),
        };
        Self { address, port, family: Family::of(ip), is_any: false }
    }

    #[inline]
    pub(super) fn any(family: Family, port: u16) -> Self {
        Self { address: [0; 4], port, family, is_any: true }
    }

    pub(super) fn is_any(&self) -> bool {
        self.is_any
    }

    pub(super) fn is_of(&self, family: Family) -> bool {
        self.family == family
    }

    #[inline]
    pub(super) fn words(&self) -> [u64; 3] {
        let [a, b, c, d] = self.address.map(u64::from);
        let kind = u64::from(self.port) | (self.family as u64) << 16 | u64::from(self.is_any) << 17;
        [a << 32 | b, c << 32 | d, kind]
    }
}

/// How many sockets are where, to know whether another one fits, in a constant number of steps.
#[derive(Debug, Clone)]
pub(super) struct Occupancy {
    places: HashTable<(Place, Uses)>,
    /// Of each port, sockets bound to one address: of IPv4, of IPv6.
    ports: HashTable<(u16, [Uses; 2])>,
    hash: KeyedHash,
}

#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    sockets: u32,
    /// Those of them that do not share.
    exclusive: u32,
}

impl Uses {
    fn is_in_the_way(self, reuse: bool) -> bool {
        if reuse { self.exclusive > 0 } else { self.sockets > 0 }
    }

    fn add(&mut self, reuse: bool) {
        self.sockets += 1;
        self.exclusive += u32::from(!reuse);
    }

    fn remove(&mut self, reuse: bool) {
        self.sockets -= 1;
        self.exclusive -= u32::from(!reuse);
    }
}

impl Occupancy {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { places: HashTable::new(), ports: HashTable::new(), hash: KeyedHash::new(random) }
    }

    /// Whether nobody is in the way of another socket there.
    pub(super) fn is_free(&self, binding: Binding, reuse: bool) -> bool {
        let of_port =
            self.ports.find(self.hash.words([binding.port.into()]), |(port, _)| *port == binding.port);
        let [v4, v6] = of_port.map(|(_, uses)| *uses).unwrap_or_default();
        binding.places().all(|place| {
            let of_family = if place.family == Family::V4 { v4 } else { v6 };
            let others =
                if place.is_any { of_family } else { self.uses(&Place::any(place.family, place.port)) };
            !others.is_in_the_way(reuse) && !self.uses(&place).is_in_the_way(reuse)
        })
    }

    pub(super) fn add(&mut self, binding: Binding, reuse: bool) {
        let hash = &self.hash;
        for place in binding.places() {
            let rehash = |(place, _): &(Place, Uses)| hash.words(place.words());
            self.places
                .entry(hash.words(place.words()), |(other, _)| *other == place, rehash)
                .or_insert((place, Uses::default()))
                .into_mut()
                .1
                .add(reuse);
            if place.is_any {
                continue;
            }
            let rehash = |(port, _): &(u16, [Uses; 2])| hash.words([(*port).into()]);
            self.ports
                .entry(hash.words([place.port.into()]), |(port, _)| *port == place.port, rehash)
                .or_insert((place.port, Default::default()))
                .into_mut()
                .1[place.family as usize]
                .add(reuse);
        }
    }

    /// What [`add`](Self::add) was told before.
    pub(super) fn remove(&mut self, binding: Binding, reuse: bool) {
        let hash = &self.hash;
        for place in binding.places() {
            let rehash = |(place, _): &(Place, Uses)| hash.words(place.words());
            let entry = self.places.entry(hash.words(place.words()), |(other, _)| *other == place, rehash);
            if let Entry::Occupied(mut entry) = entry {
                entry.get_mut().1.remove(reuse);
                if entry.get().1.sockets == 0 {
                    entry.remove();
                }
            }
            if place.is_any {
                continue;
            }
            let rehash = |(port, _): &(u16, [Uses; 2])| hash.words([(*port).into()]);
            let entry =
                self.ports.entry(hash.words([place.port.into()]), |(port, _)| *port == place.port, rehash);
            if let Entry::Occupied(mut entry) = entry {
                entry.get_mut().1[place.family as usize].remove(reuse);
                if entry.get().1.iter().all(|uses| uses.sockets == 0) {
                    entry.remove();
                }
            }
        }
    }

    fn uses(&self, place: &Place) -> Uses {
        let found = self.places.find(self.hash.words(place.words()), |(other, _)| other == place);
        found.map(|(_, uses)| *uses).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_applications_mean_it() {
        let check = |ip: &str, v6_only, expected: &str| {
            let binding = Binding::new(ip.parse().unwrap(), 80, v6_only);
            assert_eq!((binding.to_string(), binding.normal()), (expected.into(), binding), "{ip}");
        };
        check("10.0.0.1", false, "10.0.0.1:80");
        check("0.0.0.0", true, "0.0.0.0:80");
        check("::", true, "[::]:80");
        check("::", false, "*:80");
        check("::ffff:10.0.0.1", false, "10.0.0.1:80");
        check("::ffff:0.0.0.0", false, "0.0.0.0:80");
        check("fe80::1", false, "[fe80::1]:80");
        check("ff02::1", true, "[ff02::1]:80");
    }
}
