//! Ports for whoever needs any: so that they cannot be guessed, and are not used again soon.
//!
//! For connections, algorithm 4 of RFC 6056 (double-hash port selection): a keyed hash of addresses and
//! remote port tells where in the range the ports of this destination begin, and a counter, one of
//! [`COUNTERS`] that another keyed hash tells, how far they have come. So ports to one destination follow each
//! other, which leaves the longest time until one is used again; from outside, one destination tells
//! nothing of another. A counter moves on by a small random number, so that nobody who asks twice can count what
//! happened between, to destinations of the same counter.
//!
//! For datagrams, a port at random (algorithm 2): RFC 5452 wants the ports of DNS queries unpredictable,
//! and what is open on a port for one exchange only need not be kept from being used again.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::bind::Place;
use super::hash::KeyedHash;
use super::key::FlowKey;
use crate::random::Random;

/// Which ports are given, and how long one is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortsConfig {
    /// The ports. Not empty, and from 1 up. By default 49152-65535, the dynamic ports of RFC 6335 section
    /// 6; RFC 6056 section 3.2 wants 1024-65535, without those that this host may serve.
    pub range: RangeInclusive<u16>,
    /// How many ports are tried for one request at most: 1 to 65535. By default as many as there can be, so
    /// that a port is found if one is free.
    pub probes_max: u16,
}

impl Default for PortsConfig {
    fn default() -> Self {
        //= rfc6056#3.2
        //= type=exception
        //= reason=Below 49152 there may be servers of this host that do not run yet; the range is configurable.
        //# However, ephemeral port selection algorithms should use the whole range 1024-65535.
        Self { range: 49152..=65535, probes_max: u16::MAX }
    }
}

/// What is wrong with a [`PortsConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortsConfigError {
    /// Empty, or with port 0.
    #[error("source ports {}-{} are no range within 1-65535", range.start(), range.end())]
    Range {
        /// As configured.
        range: RangeInclusive<u16>,
    },
    /// None would ever be found.
    #[error("probes_max is 0; 1 to 65535 are accepted")]
    Probes,
}

/// Chooses ports. See the [module](self).
#[derive(Debug, Clone)]
pub struct Ports {
    start: u16,
    /// How many ports: 1 to 65535.
    count: u16,
    probes_max: u16,
    /// Where the ports of a destination begin: `F` of RFC 6056.
    offset: KeyedHash,
    /// Which counter it has: `G`.
    counter: KeyedHash,
    counters: Box<[u32]>,
}

impl Ports {
    /// A chooser with random keys and counters.
    ///
    /// # Errors
    /// The configuration is out of its bounds.
    pub fn new(config: PortsConfig, random: &mut Random) -> Result<Self, PortsConfigError> {
        let PortsConfig { range, probes_max } = config;
        if range.is_empty() || *range.start() == 0 {
            return Err(PortsConfigError::Range { range });
        }
        if probes_max == 0 {
            return Err(PortsConfigError::Probes);
        }
        Ok(Self {
            start: *range.start(),
            // No overflow: the range does not begin with 0.
            count: range.end() - range.start() + 1,
            probes_max,
            offset: KeyedHash::new(random),
            counter: KeyedHash::new(random),
            counters: (0..COUNTERS).map(|_| random.u32()).collect(),
        })
    }

    /// A port for a connection from `local` to `remote`: one for which `lands_here` says that the packets of
    /// the flow come to this shard, and `is_free` that nobody has it. `None`: there is none, or none was found
    /// in [`probes_max`](PortsConfig::probes_max) probes.
    pub fn for_flow(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        random: &mut Random,
        mut is_free: impl FnMut(u16) -> bool,
        mut lands_here: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let (offset, counter) = self.hashes(local, remote);
        let count = u32::from(self.count);
        let first = offset.wrapping_add(self.counters[counter]);
        let probes = count.min(self.probes_max.into());
        let found = (0..probes).find_map(|probe| {
            let port = self.port(first.wrapping_add(probe) % count);
            // The cheaper question first: with many shards, most ports are another one's.
            (lands_here(port) && is_free(port)).then_some((probe, port))
        });
        let used = found.map_or(0, |(probe, _)| probe);
        let step = used + 1 + random.below(STEP_MAX);
        self.counters[counter] = self.counters[counter].wrapping_add(step);
        found.map(|(_, port)| port)
    }

    /// A port at random, for which `is_free`. `None`: there is none, or none was found in 64 draws and
    /// [`probes_max`](PortsConfig::probes_max) probes.
    pub fn at_random(&mut self, random: &mut Random, mut is_free: impl FnMut(u16) -> bool) -> Option<u16> {
        let count = u32::from(self.count);
        let drawn = (0..DRAWS_MAX).map(|_| self.port(random.below(count))).find(|port| is_free(*port));
        drawn.or_else(|| {
            // Few are free: all of them in turn, from anywhere.
            let (first, probes) = (random.below(count), count.min(self.probes_max.into()));
            (0..probes).map(|probe| self.port((first + probe) % count)).find(|port| is_free(*port))
        })
    }

    /// The ports that are given.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.start..=self.port(u32::from(self.count) - 1)
    }

    /// The port at an index below `count`.
    fn port(&self, index: u32) -> u16 {
        self.start + index as u16
    }

    /// Where the ports of a destination begin, and which counter it has.
    fn hashes(&self, local: IpAddr, remote: SocketAddr) -> (u32, usize) {
        let hash = |hash: &KeyedHash| match FlowKey::new((local, 0).into(), remote) {
            Some(FlowKey::V4(key)) => hash.words(key.words()),
            Some(FlowKey::V6(key)) => hash.words(key.words()),
            // No packet can go this way; the answer does not matter.
            None => hash.words(Place::of(remote.ip(), remote.port()).words()),
        };
        (hash(&self.offset) as u32, hash(&self.counter) as usize % COUNTERS)
    }
}

/// Counters, 4 KB. RFC 6056 speaks of ten and more; with few, strangers' destinations share one, and the
/// number of connections to one can be seen at another.
pub const COUNTERS: usize = 1024;

/// A counter moves on by 1 to this many ports.
const STEP_MAX: u32 = 8;

/// Ports drawn at random before all are tried in turn: with half of the ports in use, one draw in 2^64 of
/// these fails.
const DRAWS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn ports(range: RangeInclusive<u16>, seed: u64) -> (Ports, Random) {
        let mut random = Random::new(seed);
        (Ports::new(PortsConfig { range, ..PortsConfig::default() }, &mut random).unwrap(), random)
    }

    fn local() -> IpAddr {
        [10, 0, 0, 1].into()
    }

    fn server(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(0x0a00_0100 + n), 80).into()
    }

    proptest! {
        #[test]
        fn a_port_is_found_if_there_is_one(
            seed: u64,
            start in 1_u16..,
            len in 1_u16..300,
            remote: SocketAddr,
            taken in prop::collection::hash_set(any::<u16>(), 0..300),
            shards in 1_u16..5,
        ) {
            let range = start..=start.saturating_add(len - 1);
            let (mut ports, mut random) = ports(range.clone(), seed);
            prop_assert_eq!(ports.range(), range.clone());
            let mut taken: HashSet<u16> = taken.into_iter().map(|low| start.saturating_add(low % len)).collect();
            let all = |taken: &HashSet<u16>, shards: u16| {
                range.clone().filter(|port| !taken.contains(port) && port % shards == 0).count()
            };
            // All of this shard, then all of the others.
            for shards in [shards, 1] {
                for _ in 0..all(&taken, shards) {
                    let port = ports.for_flow(
                        local(), remote, &mut random, |port| !taken.contains(&port), |port| port % shards == 0,
                    ).unwrap();
                    prop_assert!(range.contains(&port) && port % shards == 0 && taken.insert(port));
                }
                let none = ports.for_flow(
                    local(), remote, &mut random, |port| !taken.contains(&port), |port| port % shards == 0,
                );
                prop_assert_eq!(none, None);
                if let Some(&port) = taken.iter().next() {
                    prop_assert_eq!(ports.at_random(&mut random, |other| other == port), Some(port));
                }
            }
            prop_assert_eq!(ports.at_random(&mut random, |port| !taken.contains(&port)), None);
        }

        #[test]
        fn the_last_free_port_is_found_at_random(seed: u64, only in 49152_u16..) {
            let (mut ports, mut random) = ports(49152..=65535, seed);
            prop_assert_eq!(ports.at_random(&mut random, |port| port == only), Some(only));
        }
    }

    #[test]
    fn ports_to_one_destination_are_not_used_again_soon() {
        let (mut ports, mut random) = ports(49152..=65535, 1);
        let mut seen = HashSet::new();
        for _ in 0..16384 / STEP_MAX {
            let port = ports.for_flow(local(), server(0), &mut random, |_| true, |_| true).unwrap();
            assert!(seen.insert(port), "{port} came twice");
        }
    }

    #[test]
    fn ports_are_spread_evenly() {
        let (mut ports, mut random) = ports(49152..=65535, 1);
        let destinations: Vec<u16> = (0..1600)
            .filter_map(|n| ports.for_flow(local(), server(n), &mut random, |_| true, |_| true))
            .collect();
        let at_random: Vec<u16> = (0..1600).filter_map(|_| ports.at_random(&mut random, |_| true)).collect();
        for (name, chosen) in [("first ports of destinations", destinations), ("at random", at_random)] {
            let mut counts = [0_f64; 16];
            chosen.iter().for_each(|port| counts[usize::from(port - 49152) / 1024] += 1.0);
            // Chi-square of 15 degrees is below 45 but once in 10 000 seeds, and the seed is fixed.
            let unevenness: f64 = counts.iter().map(|count| (count - 100.0).powi(2) / 100.0).sum();
            assert!(chosen.len() == 1600 && unevenness < 45.0, "{name}: {counts:?}");
        }
    }

    #[test]
    fn probes_are_bounded() {
        let mut random = Random::new(1);
        let config = PortsConfig { probes_max: 100, ..PortsConfig::default() };
        let mut ports = Ports::new(config, &mut random).unwrap();
        let mut probes = 0;
        let mut refuse = |_| {
            probes += 1;
            false
        };
        assert_eq!(ports.for_flow(local(), server(0), &mut random, &mut refuse, |_| true), None);
        assert_eq!(ports.at_random(&mut random, &mut refuse), None);
        assert_eq!(probes, 100 + DRAWS_MAX + 100);
    }

    #[test]
    fn bounds_are_checked() {
        let check = |range: RangeInclusive<u16>, probes_max, expected: &str| {
            let error = Ports::new(PortsConfig { range, probes_max }, &mut Random::new(1)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(0..=9, 1, "source ports 0-9 are no range within 1-65535");
        #[expect(clippy::reversed_empty_ranges, reason = "as a person may write it")]
        check(9..=8, 1, "source ports 9-8 are no range within 1-65535");
        check(1..=65535, 0, "probes_max is 0; 1 to 65535 are accepted");
    }

    #[test]
    fn both_ends_decide_where_ports_begin_and_where_they_are_counted() {
        let (ports, _) = ports(49152..=65535, 1);
        let other_ip: IpAddr = [10, 0, 0, 2].into();
        let other_port = SocketAddr::new(server(0).ip(), 81);
        let pairs =
            [(local(), server(0)), (local(), server(1)), (local(), other_port), (other_ip, server(0))];
        let offsets: HashSet<u32> =
            pairs.iter().map(|&(local, remote)| ports.hashes(local, remote).0).collect();
        assert_eq!(offsets.len(), pairs.len());
        let counters: HashSet<usize> =
            (0..2 * COUNTERS as u32).map(|n| ports.hashes(local(), server(n)).1).collect();
        // At random, 1 - e^-2 of all are used, which is 885.
        assert!(counters.len() > 800, "{}", counters.len());
    }

    #[test]
    fn ports_in_use_are_not_tried_again_for_the_next_flow() {
        let (mut ports, mut random) = ports(1000..=1999, 1);
        let mut probes = 0;
        for n in 0..20 {
            for _ in 0..20 {
                let is_free = |port| {
                    probes += 1;
                    port >= 1500
                };
                ports.for_flow(local(), server(n), &mut random, is_free, |_| true).unwrap();
            }
        }
        // At worst, those in use once for each destination.
        assert!(probes < 20 * (20 + 500), "{probes}");
    }
}
