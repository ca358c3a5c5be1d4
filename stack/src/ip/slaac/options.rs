//! Router advertisements, read (RFC 4861 section 4.2, RFC 4191, RFC 8106).

use std::net::Ipv6Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv6Cidr};

/// The header of an advertisement. Times are as they are there; 0: the router says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) hop_limit: u8,
    pub(super) managed: bool,
    pub(super) other: bool,
    pub(super) preference: Preference,
    pub(super) lifetime_secs: u16,
    pub(super) reachable_ms: u32,
    pub(super) retrans_ms: u32,
}

/// How much a router or a route is preferred (RFC 4191 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    High,
    Medium,
    Low,
}

impl Preference {
    /// Two bits, signed; one value is reserved.
    fn of_flags(flags: u8) -> Option<Self> {
        match flags >> 3 & 3 {
            0b00 => Some(Self::Medium),
            0b01 => Some(Self::High),
            0b11 => Some(Self::Low),
            _ => None,
        }
    }
}

/// An option that a host can make use of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advertised {
    LinkLayer(EthernetAddress),
    Prefix { prefix: Ipv6Cidr, on_link: bool, autonomous: bool, valid_secs: u32, preferred_secs: u32 },
    Mtu(u32),
    Route { prefix: Ipv6Cidr, preference: Preference, lifetime_secs: u32 },
    Servers { servers: Vec<Ipv6Addr>, lifetime_secs: u32 },
    Search { domains: Vec<String>, lifetime_secs: u32 },
}

/// Reads the header and cuts off the options; `None`: it is no advertisement, or too short.
pub(super) fn header(message: &[u8]) -> Option<(Header, &[u8])> {
    let (fixed, options) = message.split_first_chunk::<16>()?;
    let [134, 0, _, _, hop_limit, flags, l1, l0, a3, a2, a1, a0, b3, b2, b1, b0] = *fixed else {
        return None;
    };
    let lifetime_secs = u16::from_be_bytes([l1, l0]);
    let header = Header {
        hop_limit,
        managed: flags & 0x80 != 0,
        other: flags & 0x40 != 0,
        //= rfc4191#2.2
        //# If the Reserved (10) value is received, the receiver MUST treat the value as if it were (00).
        preference: Preference::of_flags(flags).unwrap_or(Preference::Medium),
        lifetime_secs,
        reachable_ms: u32::from_be_bytes([a3, a2, a1, a0]),
        retrans_ms: u32::from_be_bytes([b3, b2, b1, b0]),
    };
    Some((header, options))
}

/// The next option with its first two bytes, and what follows; `None`: its length cannot be.
pub(super) fn next(options: &[u8]) -> Option<(&[u8], &[u8])> {
    let &len = options.get(1)?;
    (len > 0).then(|| options.split_at_checked(usize::from(len) * 8))?
}

/// What an option says; `None`: nothing to a host, or what cannot be.
pub(super) fn read(option: &[u8]) -> Option<Advertised> {
    match *option {
        [1, 1, a, b, c, d, e, f] => {
            let mac = EthernetAddress([a, b, c, d, e, f]);
            (mac.is_unicast() && mac.0 != [0; 6]).then_some(Advertised::LinkLayer(mac))
        }
        [3, 4, len, flags, ref rest @ ..] => {
            let (&[v3, v2, v1, v0, p3, p2, p1, p0, _, _, _, _], prefix) = rest.split_first_chunk()?;
            Some(Advertised::Prefix {
                prefix: cidr(prefix, len)?,
                on_link: flags & 0x80 != 0,
                autonomous: flags & 0x40 != 0,
                valid_secs: u32::from_be_bytes([v3, v2, v1, v0]),
                preferred_secs: u32::from_be_bytes([p3, p2, p1, p0]),
            })
        }
        [5, 1, _, _, m3, m2, m1, m0] => Some(Advertised::Mtu(u32::from_be_bytes([m3, m2, m1, m0]))),
        [24, 1..=3, len, flags, l3, l2, l1, l0, ref prefix @ ..] => {
            // As many bytes of the prefix as its length needs: none, 8 or 16.
            let is_enough = usize::from(len).div_ceil(8) <= prefix.len();
            Some(Advertised::Route {
                prefix: cidr(prefix, len).filter(|_| is_enough)?,
                //= rfc4191#2.3
                //# If the Reserved (10) value is received, the Route Information Option MUST be ignored.
                preference: Preference::of_flags(flags)?,
                lifetime_secs: u32::from_be_bytes([l3, l2, l1, l0]),
            })
        }
        [25, 3..=u8::MAX, _, _, l3, l2, l1, l0, ref list @ ..] => {
            let (servers, []) = list.as_chunks::<16>() else { return None };
            let is_server = |server: &Ipv6Addr| {
                !server.is_multicast() && !server.is_unspecified() && !server.is_loopback()
            };
            let servers = servers.iter().copied().map(Ipv6Addr::from).filter(is_server).collect();
            Some(Advertised::Servers { servers, lifetime_secs: u32::from_be_bytes([l3, l2, l1, l0]) })
        }
        [31, 2..=u8::MAX, _, _, l3, l2, l1, l0, ref list @ ..] => Some(Advertised::Search {
            domains: domains(list)?,
            lifetime_secs: u32::from_be_bytes([l3, l2, l1, l0]),
        }),
        _ => None,
    }
}

/// When something with this lifetime ends; `None`: never.
pub(super) fn end(now: Instant, lifetime_secs: u32) -> Option<Instant> {
    (lifetime_secs != u32::MAX).then(|| now + Duration::from_secs(lifetime_secs.into()))
}

/// A prefix without the bits behind it.
fn cidr(prefix: &[u8], len: u8) -> Option<Ipv6Cidr> {
    if len > 128 {
        return None;
    }
    let mut octets = [0; 16];
    octets.iter_mut().zip(prefix).for_each(|(octet, byte)| *octet = *byte);
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    Some(Ipv6Cidr::new(Ipv6Addr::from(u128::from_be_bytes(octets) & mask), len))
}

/// Names as RFC 1035 writes them, one after the other, and zeroes.
fn domains(mut list: &[u8]) -> Option<Vec<String>> {
    let mut domains = Vec::new();
    while list.first().is_some_and(|&len| len != 0) {
        let mut name = String::new();
        loop {
            let (&len, rest) = list.split_first()?;
            if len == 0 {
                list = rest;
                break;
            }
            let (label, rest) = rest.split_at_checked(len.into()).filter(|_| len <= LABEL_LEN_MAX)?;
            // These become part of names that are looked up: letters, digits, hyphens and underscores.
            if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|&byte| char::from(byte.to_ascii_lowercase())));
            list = rest;
        }
        if name.len() > NAME_LEN_MAX {
            return None;
        }
        domains.push(name);
    }
    (!domains.is_empty()).then_some(domains)
}

const LABEL_LEN_MAX: u8 = 63;
/// Of a name in text, without the last dot (RFC 1035 section 2.3.4).
const NAME_LEN_MAX: usize = 253;
