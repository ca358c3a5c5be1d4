//! The longest packets that paths take, as routers report them (RFC 1191, RFC 8201).
//!
//! A report is a hint of a stranger. Whoever reads the ICMP message has checked that it quotes a packet of
//! ours (RFC 5927); here it can only lower the estimate, not below a minimum, and not for longer than
//! [`PathMtuConfig::age`].
//!
//! What it does not know: routes and links. The longest packet of the first hop is an argument.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::keyed::Keyed;
use crate::observe::DropReason;
use crate::random::Random;

#[cfg(test)]
mod tests;

/// Limits of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtuConfig {
    /// Destinations. If there are more, the one that was reported longest ago is forgotten.
    pub entries_max: usize,
    /// Bytes below which no report lowers an IPv4 path. The protocol allows 68, which an attacker would use
    /// to make us send 48 bytes a packet; Linux has 552 (`net.ipv4.route.min_pmtu`). A path that takes less
    /// gets packets without DF ([`PathMtu::may_fragment`]). At least 68.
    pub min_v4_bytes: u16,
    /// How long a report counts. Then the estimate is that of the link again, and the next packet that is
    /// too long finds out. RFC 1191 and RFC 8201 recommend 10 minutes, and forbid less than 5.
    pub age: Duration,
}

impl Default for PathMtuConfig {
    fn default() -> Self {
        Self { entries_max: 4096, min_v4_bytes: 552, age: Duration::from_secs(600) }
    }
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathMtuCounters {
    /// Reports that lowered an estimate.
    pub lowered: u64,
    /// Reports that said what was known.
    pub confirmed: u64,
    /// Reports of more than the estimate, which nobody would send who means well.
    pub too_large: u64,
    /// Reports of less than the minimum of IPv6, and of IPv4 less than [`PathMtuConfig::min_v4_bytes`].
    pub too_small: u64,
    /// Reports without an MTU, of routers older than RFC 1191.
    pub without_mtu: u64,
    /// Destinations that were forgotten for others.
    pub evicted: u64,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathSnapshot {
    /// Where it leads.
    pub dst: IpAddr,
    /// The longest packet in bytes.
    pub mtu: u16,
    /// The path takes less than that, and packets go without DF.
    pub may_fragment: bool,
    /// When it is forgotten.
    pub expires: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Path {
    mtu: u16,
    may_fragment: bool,
    expires: Instant,
}

/// The table.
#[derive(Debug, Clone)]
pub struct PathMtu {
    config: PathMtuConfig,
    /// Strangers have a say in the keys.
    paths: HashMap<IpAddr, Path, Keyed>,
    /// The same, the one reported longest ago first.
    expiries: BTreeSet<(Instant, IpAddr)>,
    counters: PathMtuCounters,
    changes: u64,
}

impl PathMtu {
    /// An empty table.
    pub fn new(config: PathMtuConfig, random: &mut Random) -> Self {
        let paths = HashMap::with_hasher(Keyed::new(random));
        Self { config, paths, expiries: BTreeSet::new(), counters: PathMtuCounters::default(), changes: 0 }
    }

    /// The longest packet to `dst` in bytes. `link_mtu` is that of the first hop: of the route, or of the
    /// link.
    pub fn mtu(&self, dst: IpAddr, link_mtu: u16) -> u16 {
        // Most stacks most of the time know nothing: no hash then.
        if self.paths.is_empty() {
            return link_mtu;
        }
        self.paths.get(&dst).map_or(link_mtu, |path| path.mtu.min(link_mtu))
    }

    /// Whether packets to `dst` must go without DF, for a path takes less than we are willing to believe.
    /// Always `false` for IPv6.
    pub fn may_fragment(&self, dst: IpAddr) -> bool {
        !self.paths.is_empty() && self.paths.get(&dst).is_some_and(|path| path.may_fragment)
    }

    /// A router reports that a packet to `dst` was too long: ICMPv4 Destination Unreachable code 4 with its
    /// next-hop MTU, 0 if it tells none, or ICMPv6 Packet Too Big. Returns the new estimate in bytes.
    ///
    /// # Errors
    /// [`DropReason::IcmpIgnored`]: it says less than the minimum of IPv6, or more than is known.
    pub fn handle_too_big(
        &mut self,
        now: Instant,
        dst: IpAddr,
        mtu: u32,
        link_mtu: u16,
    ) -> Result<u16, DropReason> {
        let known = self.mtu(dst, link_mtu);
        let (reported, may_fragment) =
            if dst.is_ipv4() { self.reported_v4(mtu, known) } else { (self.reported_v6(mtu)?, false) };
        //= rfc8201#4
        //# A node must not increase its estimate of the Path MTU in response to
        //# the contents of a Packet Too Big message.
        if reported > u32::from(known) {
            self.counters.too_large += 1;
            return Err(DropReason::IcmpIgnored);
        }
        let mtu = reported as u16;
        let is_news = mtu < known;
        self.counters.lowered += u64::from(is_news);
        self.counters.confirmed += u64::from(!is_news);
        let may_fragment = may_fragment || self.may_fragment(dst);
        self.put(dst, Path { mtu, may_fragment, expires: now + self.config.age });
        Ok(mtu)
    }

    /// How often it has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(expires, dst)) = self.expiries.first()
            && expires <= now
        {
            self.expiries.pop_first();
            self.paths.remove(&dst);
            self.changes += 1;
        }
    }

    /// When a path is forgotten next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.expiries.first().map(|&(expires, _)| expires)
    }

    /// What happened so far.
    pub fn counters(&self) -> PathMtuCounters {
        self.counters
    }

    /// Paths whose MTU was reported.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none was reported.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// All of them, the one reported longest ago first.
    pub fn snapshot(&self) -> impl Iterator<Item = PathSnapshot> {
        self.expiries.iter().filter_map(|&(expires, dst)| {
            let &Path { mtu, may_fragment, .. } = self.paths.get(&dst)?;
            Some(PathSnapshot { dst, mtu, may_fragment, expires })
        })
    }

    /// The MTU that a report is taken for, and whether the path takes less.
    fn reported_v4(&mut self, mtu: u32, known: u16) -> (u32, bool) {
        let mut mtu = mtu;
        if mtu == 0 {
            self.counters.without_mtu += 1;
            // The next lower plateau; what is below the last one stays.
            let plateau = PLATEAUS.into_iter().find(|plateau| *plateau < known);
            mtu = plateau.unwrap_or(known).into();
        }
        let floor = self.config.min_v4_bytes.clamp(IPV4_MTU_MIN, known.max(IPV4_MTU_MIN));
        if mtu >= floor.into() {
            return (mtu, false);
        }
        self.counters.too_small += 1;
        (floor.into(), true)
    }

    fn reported_v6(&mut self, mtu: u32) -> Result<u32, DropReason> {
        //= rfc8201#4
        //# If a node receives a Packet Too Big message reporting a next-hop MTU
        //# that is less than the IPv6 minimum link MTU, it must discard it.
        if mtu < IPV6_MTU_MIN {
            self.counters.too_small += 1;
            return Err(DropReason::IcmpIgnored);
        }
        Ok(mtu)
    }

    fn put(&mut self, dst: IpAddr, path: Path) {
        if self.config.entries_max == 0 {
            return;
        }
        self.changes += 1;
        if let Some(before) = self.paths.insert(dst, path) {
            self.expiries.remove(&(before.expires, dst));
        } else if self.paths.len() > self.config.entries_max
            && let Some((_, oldest)) = self.expiries.pop_first()
        {
            self.paths.remove(&oldest);
            self.counters.evicted += 1;
        }
        self.expiries.insert((path.expires, dst));
    }
}

/// What paths are likely to take, where a router does not tell (RFC 1191 section 7.1).
const PLATEAUS: [u16; 11] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];
/// What every IPv4 link takes (RFC 791 section 3.2).
const IPV4_MTU_MIN: u16 = 68;
/// What every IPv6 link takes (RFC 8200 section 5).
const IPV6_MTU_MIN: u32 = 1280;
