//! A rate, and how many connections a source has: the limits of a rule.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use slab::Slab;
use smoltcp::time::Instant;

/// What a rate is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `/s`.
    Second,
    /// `/m`.
    Minute,
    /// `/h`.
    Hour,
}

/// So many attempts in a unit of time, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Attempts in a unit; 1 to 1 000 000.
    pub attempts: u32,
    /// The unit.
    pub unit: Unit,
    /// Attempts at once; 1 to 1 000 000.
    pub burst: u32,
}

impl Unit {
    fn micros(self) -> u64 {
        match self {
            Self::Second => 1_000_000,
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        })
    }
}

/// A token bucket. It counts in parts of a token so small that a microsecond brings a whole number of them: nothing is
/// ever rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// A token is as many parts as its unit has microseconds; a microsecond brings as many as attempts are allowed in
    /// the unit.
    parts: u64,
    /// When it was looked at last. `None`: never; it is full.
    at: Option<Instant>,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self { parts: 0, at: None }
    }

    /// Takes a token, if there is one. A clock that goes backwards (that of another shard may be behind) brings none.
    pub(super) fn take(&mut self, rate: &Rate, now: Instant) -> bool {
        let token = rate.unit.micros();
        // At most 3.6e15.
        let full = token * u64::from(rate.burst.max(1));
        self.parts = match self.at {
            None => full,
            Some(at) => {
                let elapsed = now.total_micros().saturating_sub(at.total_micros()).max(0) as u64;
                let brought = elapsed.saturating_mul(rate.attempts.into());
                self.parts.saturating_add(brought).min(full)
            }
        };
        self.at = self.at.max(Some(now));
        let has_token = self.parts >= token;
        if has_token {
            self.parts -= token;
        }
        has_token
    }
}

/// Who is counted as one: an address of IPv4, or 64 bits of IPv6, which one host has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6(u64),
}

/// A source, by a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    rule: usize,
    source: Source,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    connections: u32,
}

/// How many connections each source has, by rule. A source without any takes no room.
///
/// The table is bounded. If it is full, one of the sources with the fewest connections makes room: it is forgotten, so
/// it may have more than it should. Nobody is ever locked out because others are many, and whoever has many connections,
/// for whom the limit is made, stays known.
#[derive(Debug)]
pub(super) struct Sources {
    entries: Slab<Entry>,
    places: HashMap<Key, usize>,
    /// Where to look next for one that makes room.
    hand: usize,
    len_max: usize,
}

impl Sources {
    pub(super) fn new(len_max: usize) -> Self {
        Self { entries: Slab::new(), places: HashMap::new(), hand: 0, len_max: len_max.max(1) }
    }

    /// One more connection of a source. False: it has `max` already.
    pub(super) fn begin(&mut self, rule: usize, source: IpAddr, max: u32) -> bool {
        let key = Key { rule, source: Source::of(source) };
        if let Some(entry) = self.places.get(&key).and_then(|&place| self.entries.get_mut(place)) {
            let has_room = entry.connections < max;
            entry.connections += u32::from(has_room);
            return has_room;
        }
        if self.entries.len() >= self.len_max {
            self.make_room();
        }
        let place = self.entries.insert(Entry { key, connections: 1 });
        self.places.insert(key, place);
        true
    }

    /// One less. Of a source that was forgotten it may be one too few, or none at all.
    pub(super) fn end(&mut self, rule: usize, source: IpAddr) {
        let key = Key { rule, source: Source::of(source) };
        let Some(&place) = self.places.get(&key) else { return };
        let Some(entry) = self.entries.get_mut(place) else { return };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections == 0 {
            self.entries.remove(place);
            self.places.remove(&key);
        }
    }

    /// Rule, source and connections of all, for people.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, IpNet, u32)> {
        self.entries.iter().map(|(_, entry)| (entry.key.rule, entry.key.source.prefix(), entry.connections))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets the one with the fewest connections of some. The table is full, so places are numbered without holes.
    fn make_room(&mut self) {
        let len = self.entries.len();
        let looked_at = (0..LOOKED_AT.min(len)).map(|step| (self.hand + step) % len);
        let connections =
            |place: &usize| self.entries.get(*place).map_or(u32::MAX, |entry| entry.connections);
        let fewest = looked_at.min_by_key(connections);
        self.hand = (self.hand + LOOKED_AT) % len;
        if let Some(entry) = fewest.and_then(|place| self.entries.try_remove(place)) {
            self.places.remove(&entry.key);
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }

    fn prefix(self) -> IpNet {
        match self {
            Self::V4(address) => Ipv4Net::from(address).into(),
            Self::V6(bits) => {
                let address = Ipv6Addr::from_bits(u128::from(bits) << 64);
                Ipv6Net::new(address, 64).unwrap_or_default().into()
            }
        }
    }
}

/// Sources with connections that are known, of all rules together: some megabytes.
pub const SOURCES_MAX: usize = 65_536;
/// Sources of which one makes room.
const LOOKED_AT: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_exact() {
        // Three in a second cannot be had in whole microseconds: a third of a second is 333 333⅓ of them.
        let rate = Rate { attempts: 3, unit: Unit::Second, burst: 1 };
        let mut bucket = Bucket::new();
        let taken: Vec<i64> =
            (0..=3_000_000).filter(|&micros| bucket.take(&rate, Instant::from_micros(micros))).collect();
        assert_eq!(
            taken,
            [0, 333_334, 666_668, 1_000_002, 1_333_336, 1_666_670, 2_000_004, 2_333_338, 2_666_672]
        );
        // Somebody who looks seldom loses nothing either.
        let rate = Rate { attempts: 3, unit: Unit::Second, burst: 2 };
        let mut bucket = Bucket::new();
        let taken = (0..=30_000_i64).filter(|step| bucket.take(&rate, Instant::from_micros(step * 333_000)));
        assert_eq!(taken.count(), 2 + 9_990 * 3);
    }

    #[test]
    fn a_burst_comes_after_a_pause_and_a_clock_that_goes_back_brings_nothing() {
        let rate = Rate { attempts: 1, unit: Unit::Hour, burst: 3 };
        let mut bucket = Bucket::new();
        for (second, expected) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (3_599, false),
            (3_600, true),
            (3_599, false),
            (0, false),
            (3_600, false),
            (100 * 3_600, true),
            (100 * 3_600, true),
            (100 * 3_600, true),
            (100 * 3_600, false),
        ] {
            assert_eq!(bucket.take(&rate, Instant::from_secs(second)), expected, "{second}");
        }
        assert!(bucket.take(&rate, Instant::from_micros(i64::MAX)), "no overflow");
        assert!(Bucket::new().take(&rate, Instant::from_micros(i64::MIN)));
    }

    proptest! {
        #[test]
        fn a_bucket_is_that_of_the_definition(
            attempts in 1..50_u32, burst in 1..6_u32, steps in prop::collection::vec(0..200_000_u64, 1..100)
        ) {
            let rate = Rate { attempts, unit: Unit::Second, burst };
            let mut bucket = Bucket::new();
            // In millionths of a token, as fractions: the same in other words.
            let (mut tokens, mut now) = (u128::from(burst) * 1_000_000, 0_u64);
            for step in steps {
                now += step;
                tokens = (tokens + u128::from(step) * u128::from(attempts)).min(u128::from(burst) * 1_000_000);
                let expected = tokens >= 1_000_000;
                tokens -= if expected { 1_000_000 } else { 0 };
                prop_assert_eq!(bucket.take(&rate, Instant::from_micros(now as i64)), expected);
            }
        }

        #[test]
        fn sources_are_counted(steps in prop::collection::vec((0..2_usize, 0..6_u8, any::<bool>()), 0..300)) {
            let mut sources = Sources::new(100);
            let mut oracle = std::collections::BTreeMap::<(usize, u8), u32>::new();
            for (rule, host, begins) in steps {
                let address = IpAddr::from([10, 0, 0, host]);
                let count = oracle.entry((rule, host)).or_default();
                if begins {
                    prop_assert_eq!(sources.begin(rule, address, 4), *count < 4);
                    *count = (*count + 1).min(4);
                } else {
                    sources.end(rule, address);
                    *count = count.saturating_sub(1);
                }
            }
            oracle.retain(|_, count| *count > 0);
            prop_assert_eq!((sources.len(), sources.places.len()), (oracle.len(), oracle.len()));
        }
    }

    #[test]
    fn who_has_many_addresses_neither_locks_others_out_nor_grows_the_table() {
        let mut sources = Sources::new(100);
        let busy = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..5 {
            assert!(sources.begin(0, busy, 5));
        }
        assert!(!sources.begin(0, busy, 5));
        for number in 0..100_000_u32 {
            assert!(sources.begin(0, Ipv4Addr::from(0x0a00_0000 + number).into(), 5));
            assert!(sources.len() <= 100 && sources.places.len() <= 100);
            // Whoever has most is not forgotten for it.
            assert!(!sources.begin(0, busy, 5));
        }
        // Nor is anybody locked out who comes after all of them, or who was forgotten.
        assert!(sources.begin(0, IpAddr::from([198, 51, 100, 7]), 1));
        assert!(sources.begin(0, IpAddr::from([10, 0, 0, 0]), 1));
        sources.end(0, IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn an_ipv6_host_is_its_64_bits() {
        let mut sources = Sources::new(100);
        assert!(sources.begin(0, "2001:db8::1".parse().expect("one"), 1));
        assert!(!sources.begin(0, "2001:db8::2".parse().expect("one"), 1));
        assert!(sources.begin(0, "2001:db8:0:1::1".parse().expect("one"), 1));
        let shown: Vec<_> = sources.iter().map(|(_, source, count)| format!("{source} {count}")).collect();
        assert_eq!(shown, ["2001:db8::/64 1", "2001:db8:0:1::/64 1"]);
    }
}
