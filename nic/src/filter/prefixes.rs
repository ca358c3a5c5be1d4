//! Long lists of prefixes, matched in user space.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::prefix::{ParsePrefixError, Prefix};

/// Whether a list says what may pass, or what may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// A packet passes if one of its addresses is in the list.
    Allow,
    /// A packet passes if none of its addresses is in the list.
    Deny,
}

/// Prefixes of IPv4 and IPv6, 10^5 and more, of which the longest one that an address begins with counts.
///
/// The cost of a question grows with the length of the prefixes, not with their number.
#[derive(Debug, Clone)]
pub struct PrefixSet {
    kind: ListKind,
    v4: PrefixMap<Ipv4Net, bool>,
    v6: PrefixMap<Ipv6Net, bool>,
}

/// What is wrong with a list of prefixes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixListError {
    /// A line is no prefix.
    #[error("line {line}: {source}")]
    Prefix {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        source: ParsePrefixError,
    },
    /// Two lines contradict each other.
    #[error("line {line}: {prefix} is in the list with and without an exclamation mark; keep one")]
    Contradiction {
        /// Which line, from 1.
        line: usize,
        /// Which prefix.
        prefix: Prefix,
    },
}

impl PrefixSet {
    /// An empty list: one that allows lets nothing pass, one that denies everything.
    pub fn new(kind: ListKind) -> Self {
        Self { kind, v4: PrefixMap::new(), v6: PrefixMap::new() }
    }

    /// Reads a list: one prefix a line. With `!` before it, a prefix is an exception from a shorter one.
    /// Empty lines do not count, nor what follows `#`.
    ///
    /// # Errors
    /// [`PrefixListError`], with the line.
    pub fn parse(kind: ListKind, text: &str) -> Result<Self, PrefixListError> {
        let mut set = Self::new(kind);
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let (text, listed) = match text.strip_prefix('!') {
                Some(rest) => (rest.trim(), false),
                None => (text, true),
            };
            let prefix: Prefix = text.parse().map_err(|source| PrefixListError::Prefix { line, source })?;
            if set.insert(prefix, listed).is_some_and(|before| before != listed) {
                return Err(PrefixListError::Contradiction { line, prefix });
            }
        }
        Ok(set)
    }

    /// Adds a prefix: addresses that begin with it are in the list, or not. Returns what it was before.
    pub fn insert(&mut self, prefix: Prefix, listed: bool) -> Option<bool> {
        match prefix.address() {
            IpAddr::V4(address) => self.v4.insert(Ipv4Net::new_assert(address, prefix.len()), listed),
            IpAddr::V6(address) => self.v6.insert(Ipv6Net::new_assert(address, prefix.len()), listed),
        }
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an address is in the list. IPv4-mapped addresses are IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.contains_v4(address),
            IpAddr::V6(address) => self.contains_v6(address),
        }
    }

    /// Whether an Ethernet frame passes, by both addresses of its packet. Up to two VLAN tags are looked
    /// through. Frames that are not IP pass, and so does IPv6 neighbor discovery, without which nobody
    /// is found. What is cut short within its addresses does not pass.
    pub fn decide(&self, frame: &[u8]) -> bool {
        let mut at = 12;
        for _ in 0..2 {
            match half(frame, at) {
                Some(0x8100 | 0x88a8) => at += 4,
                _ => break,
            }
        }
        let packet = frame.get(at + 2..).unwrap_or_default();
        match half(frame, at) {
            Some(0x0800) => self.decide_v4(packet).unwrap_or(false),
            Some(0x86dd) => self.decide_v6(packet).unwrap_or(false),
            _ => true,
        }
    }

    fn decide_v4(&self, packet: &[u8]) -> Option<bool> {
        let address =
            |at: usize| -> Option<Ipv4Addr> { Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)) };
        let (src, dst) = (address(12)?, address(16)?);
        Some(self.passes(self.contains_v4(src) || self.contains_v4(dst)))
    }

    fn decide_v6(&self, packet: &[u8]) -> Option<bool> {
        // RFC 4861: router solicitation to redirect.
        if packet.get(6) == Some(&58) && packet.get(40).is_some_and(|kind| (133..=137).contains(kind)) {
            return Some(true);
        }
        let address =
            |at: usize| -> Option<Ipv6Addr> { Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)) };
        let (src, dst) = (address(8)?, address(24)?);
        Some(self.passes(self.contains_v6(src) || self.contains_v6(dst)))
    }

    fn passes(&self, listed: bool) -> bool {
        listed == (self.kind == ListKind::Allow)
    }

    fn contains_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.get_lpm(&Ipv4Net::from(address)).is_some_and(|(_, listed)| *listed)
    }

    fn contains_v6(&self, address: Ipv6Addr) -> bool {
        self.v6.get_lpm(&Ipv6Net::from(address)).is_some_and(|(_, listed)| *listed)
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
