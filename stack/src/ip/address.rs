//! The addresses of an interface and what they are good for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::Instant;
use smoltcp::wire::IpCidr;

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the configuration.
    Static,
    /// Made from the hardware address or by RFC 7217: fe80::/10.
    LinkLocal,
    /// From a router advertisement (RFC 4862).
    Slaac,
    /// From a DHCP server.
    Dhcp,
}

/// What an address is good for (RFC 4862 section 2, RFC 5227).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressState {
    /// Being probed: nothing is received for it or sent from it but the probes.
    Tentative,
    /// In use.
    Preferred,
    /// Good for what has begun with it; not chosen for anything new if there is another.
    Deprecated,
    /// Somebody else has it: not ours.
    Duplicate,
}

/// One address of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address with the length of its prefix.
    pub cidr: IpCidr,
    /// What it is good for.
    pub state: AddressState,
    /// Where it comes from.
    pub origin: Origin,
    /// When it becomes deprecated; `None`: never.
    pub preferred_until: Option<Instant>,
    /// When it goes; `None`: never.
    pub valid_until: Option<Instant>,
}

impl Address {
    /// An address for ever, in use at once.
    pub fn preferred(cidr: IpCidr, origin: Origin) -> Self {
        Self { cidr, state: AddressState::Preferred, origin, preferred_until: None, valid_until: None }
    }

    /// Without the prefix length.
    pub fn ip(&self) -> IpAddr {
        self.cidr.address().into()
    }

    /// Whether packets to it are ours.
    pub fn is_usable(&self) -> bool {
        matches!(self.state, AddressState::Preferred | AddressState::Deprecated)
    }
}

/// The addresses of an interface: few, so a list.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    list: Vec<Address>,
    changes: u64,
}

impl Addresses {
    /// No address.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.list.iter()
    }

    /// Adds an address, or replaces what is known of it. `false`: there is no room for another
    /// ([`ADDRESSES_MAX`]).
    pub fn insert(&mut self, address: Address) -> bool {
        if let Some(known) = self.get_mut(address.ip()) {
            *known = address;
            return true;
        }
        let has_room = self.list.len() < ADDRESSES_MAX;
        if has_room {
            self.changes += 1;
            self.list.push(address);
        }
        has_room
    }

    /// Takes an address away.
    pub fn remove(&mut self, ip: IpAddr) -> Option<Address> {
        let position = self.list.iter().position(|address| address.ip() == ip)?;
        self.changes += 1;
        Some(self.list.remove(position))
    }

    /// How often they may have changed: whoever keeps what follows from them knows by this that it still does.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What is known of an address.
    pub fn get(&self, ip: IpAddr) -> Option<&Address> {
        self.list.iter().find(|address| address.ip() == ip)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, ip: IpAddr) -> Option<&mut Address> {
        self.changes += 1;
        self.list.iter_mut().find(|address| address.ip() == ip)
    }

    /// Whether packets to `ip` are for us: an address in use. Groups, broadcast and 127/8 are not asked
    /// here.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.get(ip).is_some_and(Address::is_usable)
    }

    /// Whether `ip` is the broadcast address of a prefix of ours, or 255.255.255.255 (RFC 919, 922).
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        let of_prefix = |address: &Address| match address.cidr {
            IpCidr::Ipv4(cidr) => cidr.broadcast() == Some(ip),
            IpCidr::Ipv6(_) => false,
        };
        ip.is_broadcast() || self.list.iter().any(of_prefix)
    }

    /// Whether `ip` is on a prefix of ours.
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        self.list.iter().any(|address| address.is_usable() && address.cidr.contains_addr(&ip.into()))
    }
}

/// The group in which neighbours ask for an IPv6 address (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// Whether nothing may come from `ip` (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7): groups, broadcast,
/// 0/8 but the unspecified address, 240/4.
pub fn is_martian_source(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            (first == 0 && v4 != Ipv4Addr::UNSPECIFIED) || first >= 224
        }
        IpAddr::V6(v6) => v6.is_multicast() || v6.to_ipv4_mapped().is_some(),
    }
}

/// Addresses of an interface at most.
pub const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_usable_addresses_are_ours() {
        for (state, is_ours) in [
            (AddressState::Tentative, false),
            (AddressState::Preferred, true),
            (AddressState::Deprecated, true),
            (AddressState::Duplicate, false),
        ] {
            let mut addresses = Addresses::new();
            let cidr = "10.0.0.1/24".parse().expect("a prefix");
            assert!(addresses.insert(Address { state, ..Address::preferred(cidr, Origin::Static) }));
            assert_eq!(addresses.is_local(ip("10.0.0.1")), is_ours, "{state:?}");
            assert_eq!(addresses.is_on_link(ip("10.0.0.9")), is_ours, "{state:?}");
            assert!(!addresses.is_local(ip("10.0.0.9")) && !addresses.is_on_link(ip("10.0.1.9")));
            // Whatever is known of the prefix, its broadcast address is no host.
            assert!(
                addresses.is_broadcast(ip("10.0.0.255")) && addresses.is_broadcast(ip("255.255.255.255"))
            );
            assert!(!addresses.is_broadcast(ip("10.0.0.254")) && !addresses.is_broadcast(ip("ff02::1")));
        }
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut addresses = Addresses::new();
        let address =
            |n: u8| Address::preferred(IpCidr::new(Ipv4Addr::new(10, 0, 0, n).into(), 24), Origin::Static);
        for n in 0..ADDRESSES_MAX as u8 {
            assert!(addresses.insert(address(n)));
        }
        assert!(!addresses.insert(address(99)));
        assert!(addresses.insert(address(0)), "again");
        assert!(addresses.remove(ip("10.0.0.0")).is_some() && addresses.insert(address(99)));
        assert_eq!(addresses.iter().count(), ADDRESSES_MAX);
    }

    #[test]
    fn some_addresses_send_nothing() {
        for (address, is_martian) in [
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("0.0.0.1", true),
            ("223.255.255.255", false),
            ("224.0.0.1", true),
            ("240.0.0.1", true),
            ("255.255.255.255", true),
            ("2001:db8::1", false),
            ("::", false),
            ("ff02::1", true),
            ("::ffff:10.0.0.1", true),
        ] {
            assert_eq!(is_martian_source(ip(address)), is_martian, "{address}");
        }
    }
}
