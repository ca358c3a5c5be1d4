//! The lower half of an IPv6 address that we make for ourselves: from the hardware address, or one that
//! stays the same on a network and tells nothing on another (RFC 7217).

use std::fmt;
use std::hash::Hasher;
use std::net::Ipv6Addr;

use siphasher::sip::SipHasher24;
use smoltcp::wire::EthernetAddress;

/// How interface identifiers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterfaceIdentifier {
    /// From the hardware address: modified EUI-64 (RFC 4291 appendix A, RFC 2464 section 4).
    Eui64,
    /// From a secret, the prefix and the interface.
    Stable {
        /// Known to nobody else, and the same after a restart.
        secret: Secret,
    },
}

/// The secret key of RFC 7217. It is not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl InterfaceIdentifier {
    /// The address with this prefix, of 64 bits, for an interface. `dad_counter` says how many before it
    /// turned out to be taken, and is moved past identifiers that are reserved. `None`: there is no (other)
    /// one.
    pub fn address(
        &self,
        prefix: Ipv6Addr,
        mac: EthernetAddress,
        interface: &str,
        dad_counter: &mut u8,
    ) -> Option<Ipv6Addr> {
        match self {
            Self::Eui64 => (*dad_counter == 0).then(|| join(prefix, eui64(mac))),
            Self::Stable { secret } => loop {
                let identifier = stable(secret, prefix, interface, *dad_counter);
                //= rfc7217#5
                //# The resulting Interface Identifier SHOULD be compared against the reserved IPv6 Interface
                //# Identifiers
                // One of them is met by chance in 2^40 tries or so.
                if !is_reserved(identifier) {
                    return Some(join(prefix, identifier));
                }
                *dad_counter = dad_counter.checked_add(1)?;
            },
        }
    }
}

/// The modified EUI-64 of a hardware address.
pub fn eui64(mac: EthernetAddress) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether an interface identifier is set aside (RFC 5453 and its registry): of the subnet's routers, of
/// IANA's Ethernet block, of anycast.
pub fn is_reserved(identifier: u64) -> bool {
    matches!(
        identifier,
        0 | 0x0200_5eff_fe00_0000..=0x0200_5eff_feff_ffff | 0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff
    )
}

/// F of RFC 7217 section 5: a keyed pseudo-random function, SipHash-2-4, over the upper half of the prefix,
/// the DAD_Counter and the name of the interface, which comes last since only its length varies. There is
/// no Network_ID.
fn stable(secret: &Secret, prefix: Ipv6Addr, interface: &str, dad_counter: u8) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&secret.0);
    hasher.write(&prefix.octets()[..8]);
    hasher.write(&[dad_counter]);
    hasher.write(interface.as_bytes());
    hasher.finish()
}

fn join(prefix: Ipv6Addr, identifier: u64) -> Ipv6Addr {
    let upper = u128::from(prefix) >> 64 << 64;
    Ipv6Addr::from(upper | u128::from(identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([0x02, 0x00, 0x5e, 0x10, 0x20, 0x30]);

    fn stable_of(secret: u8, prefix: &str, interface: &str, mut counter: u8) -> Ipv6Addr {
        let identifier = InterfaceIdentifier::Stable { secret: Secret([secret; 16]) };
        identifier.address(prefix.parse().unwrap(), MAC, interface, &mut counter).unwrap()
    }

    #[test]
    fn eui64_is_of_the_hardware_address_and_there_is_one() {
        let address = |mut counter| {
            InterfaceIdentifier::Eui64.address("2001:db8::1:2:3:4".parse().unwrap(), MAC, "a", &mut counter)
        };
        assert_eq!(address(0), Some("2001:db8::5eff:fe10:2030".parse().unwrap()));
        assert_eq!(address(1), None);
    }

    #[test]
    fn everything_counts_and_nothing_else() {
        let one = stable_of(1, "2001:db8::", "eth0", 0);
        assert_eq!(one, stable_of(1, "2001:db8::1", "eth0", 0));
        assert_eq!(one.segments()[..4], [0x2001, 0xdb8, 0, 0]);
        let others = [
            stable_of(2, "2001:db8::", "eth0", 0),
            stable_of(1, "2001:db8:0:1::", "eth0", 0),
            stable_of(1, "2001:db8::", "eth1", 0),
            stable_of(1, "2001:db8::", "eth0", 1),
        ];
        for other in others {
            assert_ne!(other.octets()[8..], one.octets()[8..], "{other}");
        }
    }

    #[test]
    fn reserved_identifiers_are_known() {
        for (identifier, reserved) in [
            (0, true),
            (1, false),
            (0x0200_5eff_fdff_ffff, false),
            (0x0200_5eff_fe00_0000, true),
            (0x0200_5eff_fe00_5213, true),
            (0x0200_5eff_feff_ffff, true),
            (0x0200_5eff_ff00_0000, false),
            (0xfdff_ffff_ffff_ff7f, false),
            (0xfdff_ffff_ffff_ff80, true),
            (0xfdff_ffff_ffff_ffff, true),
            (0xfe00_0000_0000_0000, false),
        ] {
            assert_eq!(is_reserved(identifier), reserved, "{identifier:#x}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let identifier = InterfaceIdentifier::Stable { secret: Secret([7; 16]) };
        assert_eq!(format!("{identifier:?}"), "Stable { secret: Secret(..) }");
    }
}
