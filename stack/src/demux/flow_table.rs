//! Connections by their 4-tuple.
//!
//! Two open-addressing tables, one per family, so that a flow of IPv4 takes 16 bytes with a value of four.
//! A hit touches two cache lines of an IPv4 flow: a group of sixteen control bytes, which tells with seven
//! bits of the hash which entry it is, and the entry, which lies within one line. Entries of IPv6 are 40
//! bytes, so every second one lies on two lines: two or three. A miss touches the control bytes only,
//! almost always. Groups are read without alignment, so one in four lies on two lines.
//!
//! **Growth.** A table that is full takes twice the room and moves all entries at once, hashing each again;
//! what that costs is below. In a loop that must not stall, make it [`with_capacity`](FlowTable::with_capacity)
//! of twice its bound: then it never takes other room. What can still happen, when as many removed flows as
//! the bound have left a mark in a full group (most leave none), is one sweep in place, at the same cost.
//!
//! | flows of IPv4 | moved in |
//! |---|---|
//! | 1 800 | 0.02 ms |
//! | 115 000 | 1.4 ms |
//! | 1 800 000 | 57 ms |
//!
//! | flows, at random | hit, IPv4 | hit, IPv6 | miss |
//! |---|---|---|---|
//! | 1 | 12-17 ns | 17-20 ns | 11-16 ns |
//! | 1 000 | 12-19 ns | 18-21 ns | 13-16 ns |
//! | 100 000 | 25-36 ns | 79-137 ns | 14-32 ns |
//! | 1 000 000 | 153-295 ns | 343-425 ns | 28-49 ns |
//!
//! The lower figures are of look-ups that a processor can do at the same time, the higher ones of those that
//! wait for each other, on a shared virtual machine.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::hash::KeyedHash;
use super::key::{FlowKey, FlowKeyV4, FlowKeyV6};
use crate::random::Random;

/// 4-tuple → value, such as the index of a connection. See the [module](self).
#[derive(Debug, Clone)]
pub struct FlowTable<V: Copy> {
    v4: HashTable<(FlowKeyV4, V)>,
    v6: HashTable<(FlowKeyV6, V)>,
    hash: KeyedHash,
    len_max: usize,
}

/// Why a flow cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// There are as many as there may be.
    #[error("all {len_max} flows are in use")]
    Full {
        /// The bound.
        len_max: usize,
    },
    /// Somebody has this 4-tuple.
    #[error("this flow exists already")]
    Exists,
}

impl<V: Copy> FlowTable<V> {
    /// A table for at most `len_max` flows of both families together, which grows as they come.
    pub fn new(len_max: usize, random: &mut Random) -> Self {
        Self::with_capacity(0, len_max, random)
    }

    /// As [`new`](Self::new), with room for `capacity` flows of either family: 19 to 40 bytes each for IPv4
    /// with a value of four bytes, and 47 to 94 for IPv6. Memory that is not used yet is only reserved.
    pub fn with_capacity(capacity: usize, len_max: usize, random: &mut Random) -> Self {
        Self {
            v4: HashTable::with_capacity(capacity),
            v6: HashTable::with_capacity(capacity),
            hash: KeyedHash::new(random),
            len_max,
        }
    }

    /// Adds a flow.
    ///
    /// # Errors
    /// Somebody has it, or there is no room; nothing has changed then.
    pub fn insert(&mut self, key: FlowKey, value: V) -> Result<(), InsertError> {
        if self.len() >= self.len_max {
            let exists = self.get(&key).is_some();
            return Err(if exists {
                InsertError::Exists
            } else {
                InsertError::Full { len_max: self.len_max }
            });
        }
        let Self { v4, v6, hash, .. } = self;
        match key {
            FlowKey::V4(key) => insert(v4, key, value, |key| hash.words(key.words())),
            FlowKey::V6(key) => insert(v6, key, value, |key| hash.words(key.words())),
        }
    }

    /// The value of a flow.
    #[inline]
    pub fn get(&self, key: &FlowKey) -> Option<V> {
        match key {
            FlowKey::V4(key) => {
                let hash = self.hash.words(key.words());
                self.v4.find(hash, |(other, _)| other == key).map(|(_, value)| *value)
            }
            FlowKey::V6(key) => {
                let hash = self.hash.words(key.words());
                self.v6.find(hash, |(other, _)| other == key).map(|(_, value)| *value)
            }
        }
    }

    /// Takes a flow away, and says what its value was.
    pub fn remove(&mut self, key: &FlowKey) -> Option<V> {
        match key {
            FlowKey::V4(key) => {
                let hash = self.hash.words(key.words());
                let entry = self.v4.find_entry(hash, |(other, _)| other == key).ok()?;
                Some(entry.remove().0.1)
            }
            FlowKey::V6(key) => {
                let hash = self.hash.words(key.words());
                let entry = self.v6.find_entry(hash, |(other, _)| other == key).ok()?;
                Some(entry.remove().0.1)
            }
        }
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All flows, in no order: for who wants to see the table. It walks the whole room.
    pub fn iter(&self) -> impl Iterator<Item = (FlowKey, V)> {
        let v4 = self.v4.iter().map(|(key, value)| (FlowKey::V4(*key), *value));
        v4.chain(self.v6.iter().map(|(key, value)| (FlowKey::V6(*key), *value)))
    }
}

fn insert<K: Copy + Eq, V>(
    table: &mut HashTable<(K, V)>,
    key: K,
    value: V,
    hash: impl Fn(&K) -> u64,
) -> Result<(), InsertError> {
    match table.entry(hash(&key), |(other, _)| *other == key, |(other, _)| hash(other)) {
        Entry::Occupied(_) => Err(InsertError::Exists),
        Entry::Vacant(entry) => {
            entry.insert((key, value));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Few enough that they meet.
    fn keys() -> impl Strategy<Value = FlowKey> {
        let ip = |is_v4: bool, low: u8| -> IpAddr {
            if is_v4 { Ipv4Addr::new(10, 0, 0, low).into() } else { Ipv6Addr::from([low; 16]).into() }
        };
        (any::<bool>(), 0..2_u8, 0..2_u16, 0..3_u8, 0..3_u16).prop_map(move |(is_v4, a, b, c, d)| {
            FlowKey::new((ip(is_v4, a), b).into(), (ip(is_v4, c), d).into()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(
            len_max in 0_usize..30,
            capacity in 0_usize..40,
            steps in prop::collection::vec((0..4_u8, keys(), any::<u32>()), 0..300),
        ) {
            let mut table = FlowTable::with_capacity(capacity, len_max, &mut Random::new(1));
            let mut list: Vec<(FlowKey, u32)> = Vec::new();
            for (step, key, value) in steps {
                let at = list.iter().position(|(other, _)| *other == key);
                match step {
                    0 | 1 => {
                        let expected = match at {
                            Some(_) => Err(InsertError::Exists),
                            None if list.len() >= len_max => Err(InsertError::Full { len_max }),
                            None => {
                                list.push((key, value));
                                Ok(())
                            }
                        };
                        prop_assert_eq!(table.insert(key, value), expected);
                    }
                    2 => prop_assert_eq!(table.remove(&key), at.map(|at| list.swap_remove(at).1)),
                    _ => prop_assert_eq!(table.get(&key), at.map(|at| list[at].1)),
                }
                prop_assert_eq!((table.len(), table.is_empty()), (list.len(), list.is_empty()));
            }
            let mut seen: Vec<_> = table.iter().map(|entry| format!("{entry:?}")).collect();
            let mut expected: Vec<_> = list.iter().map(|entry| format!("{entry:?}")).collect();
            seen.sort();
            expected.sort();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn an_entry_of_ipv4_lies_within_a_cache_line() {
        assert_eq!(size_of::<(FlowKeyV4, u32)>(), 16);
        assert_eq!(size_of::<(FlowKeyV6, u32)>(), 40);
    }
}
