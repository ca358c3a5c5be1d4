//! What a server has given, and until when.

use std::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::Ipv4Cidr;

use super::message::{Options, kind};
use crate::dns::name;
use crate::random::Random;

/// An address and what else a server told. Every list is bounded by [`LIST_LEN_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address, with the prefix length of the subnet mask; without a mask, that of its class.
    pub address: Ipv4Cidr,
    /// Broadcast address, if the server names one.
    pub broadcast: Option<Ipv4Addr>,
    /// Default routers, best first. Empty if there are `routes`: those replace them (RFC 3442).
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// The domain of this host, as text.
    pub domain: Option<String>,
    /// Domains to search (RFC 3397).
    pub search: Vec<String>,
    /// Bytes that a packet may have; 68 at least.
    pub mtu: Option<u16>,
    /// The server that gave all this.
    pub server: Ipv4Addr,
    /// Classless static routes (RFC 3442).
    pub routes: Vec<Route>,
    /// When the request was sent that this lease answers: all times count from here.
    pub obtained: Instant,
    /// When to ask the server for more time; `None`: the lease is for ever.
    pub t1: Option<Instant>,
    /// When to ask any server; `None`: the lease is for ever.
    pub t2: Option<Instant>,
    /// When the address is no longer ours; `None`: the lease is for ever.
    pub expires: Option<Instant>,
}

/// A classless static route (RFC 3442).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Cidr,
    /// By whom; `0.0.0.0`: the destination is on this link.
    pub router: Ipv4Addr,
}

impl Lease {
    /// What an acknowledgement gives. `None`: it lacks what RFC 2131 demands (table 3), or gives an address
    /// that no host can have.
    pub(super) fn new(
        address: Ipv4Addr,
        options: &Options,
        obtained: Instant,
        random: &mut Random,
    ) -> Option<Self> {
        let server = options.address(kind::SERVER_ID)?;
        let seconds = options.u32(kind::LEASE_TIME).filter(|&seconds| seconds > 0)?;
        if !is_host(address) {
            return None;
        }
        let routes = options.get(kind::CLASSLESS_ROUTES).and_then(parse_routes);
        // RFC 3442, "DHCP Client Behavior": the Router option counts only if there is no list of routes.
        let routers = match routes {
            Some(_) => Vec::new(),
            None => options.addresses(kind::ROUTER),
        };
        let (t1, t2, expires) = times(options, seconds, obtained, random);
        Some(Self {
            address: Ipv4Cidr::new(address, prefix_len(address, options)),
            broadcast: options.address(kind::BROADCAST),
            routers,
            dns: options.addresses(kind::DNS),
            domain: options.get(kind::DOMAIN).and_then(domain),
            search: options.get(kind::SEARCH).map(name::parse_list).unwrap_or_default(),
            mtu: options.u16(kind::MTU).filter(|&mtu| mtu >= MTU_MIN),
            server,
            routes: routes.unwrap_or_default(),
            obtained,
            t1,
            t2,
            expires,
        })
    }

    /// Whether it has run out.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Whether a host can have this address: no group, no broadcast, not 0/8 or 127/8.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

/// The prefix length of a mask that is one; else that of the class of the address, as hosts did before there
/// were masks.
fn prefix_len(address: Ipv4Addr, options: &Options) -> u8 {
    let mask = options.address(kind::SUBNET_MASK).map(u32::from);
    match mask.filter(|mask| mask.leading_ones() + mask.trailing_zeros() == 32 && *mask != 0) {
        // At most 32.
        Some(mask) => mask.leading_ones() as u8,
        None => match address.octets() {
            [0..128, ..] => 8,
            [128..192, ..] => 16,
            _ => 24,
        },
    }
}

/// T1, T2 and the end of the lease.
fn times(
    options: &Options,
    seconds: u32,
    obtained: Instant,
    random: &mut Random,
) -> (Option<Instant>, Option<Instant>, Option<Instant>) {
    //= rfc2131#3.3
    //# The time value of 0xffffffff is reserved to represent "infinity".
    if seconds == u32::MAX {
        return (None, None, None);
    }
    let lease = u64::from(seconds) * MICROS;
    let told = |kind| options.u32(kind).map(|seconds| u64::from(seconds) * MICROS);
    // What the server says counts if it is in order, for each of the two alone.
    let t2 = told(kind::T2).filter(|&t2| t2 > 0 && t2 < lease).unwrap_or(lease / 8 * 7);
    let half = if lease / 2 < t2 { lease / 2 } else { t2 / 2 };
    let t1 = told(kind::T1).filter(|&t1| t1 > 0 && t1 < t2).unwrap_or(half);
    //= rfc2131#4.4.5
    //# Times T1 and T2 SHOULD be chosen with some random "fuzz" around a fixed
    //# value, to avoid synchronization of client reacquisition.
    let t2 = t2 - below(random, (t2 - t1) / FUZZ_PART);
    let t1 = t1 - below(random, t1 / FUZZ_PART);
    let at = |micros| Some(obtained + Duration::from_micros(micros));
    (at(t1), at(t2), at(lease))
}

fn below(random: &mut Random, bound: u64) -> u64 {
    // Leases of more than an hour have a bound of more than 32 bits: they are drawn in milliseconds.
    match u32::try_from(bound) {
        Ok(bound) => random.below(bound).into(),
        Err(_) => u64::from(random.below(u32::try_from(bound / 1000).unwrap_or(u32::MAX))) * 1000,
    }
}

/// A text of printable ASCII without a zero byte at its end.
fn domain(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let is_domain = !text.is_empty() && text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_domain.then(|| text.to_owned())
}

/// `None` if any route cannot be: then nothing of the option is believed.
fn parse_routes(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix_len, rest)) = bytes.split_first() {
        // Only the octets of the destination that the prefix covers are there.
        let significant = usize::from(prefix_len).div_ceil(8);
        let (destination, rest) = rest.split_at_checked(significant)?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets.get_mut(..significant)?.copy_from_slice(destination);
        if prefix_len > 32 {
            return None;
        }
        if routes.len() < LIST_LEN_MAX {
            // RFC 3442: bits of the destination that the mask does not cover are cleared, not refused.
            let destination = Ipv4Cidr::new(octets.into(), prefix_len).network();
            routes.push(Route { destination, router: Ipv4Addr::from(*router) });
        }
        bytes = rest;
    }
    (!routes.is_empty()).then_some(routes)
}

/// Entries of a list of a lease; more are ignored.
pub const LIST_LEN_MAX: usize = 32;
/// Every host takes packets of this length (RFC 791).
const MTU_MIN: u16 = 68;
const MICROS: u64 = 1_000_000;
/// T1 and T2 come earlier by up to this part of their length.
const FUZZ_PART: u64 = 16;
