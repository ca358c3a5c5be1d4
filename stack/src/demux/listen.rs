//! Listeners of TCP, by local address and port.
//!
//! A connection attempt is for the listener of its address, or else for that of any address of its family.
//! By the rules of [`bind`](super::bind) there are never both, so each attempt has at most one listener. A
//! look-up is one or two probes of one table.

use std::net::IpAddr;

use hashbrown::HashTable;

use super::bind::{BindError, Binding, Family, Occupancy, Place};
use super::hash::KeyedHash;
use crate::random::Random;

/// Local address and port → value of a listener. See the [module](self).
#[derive(Debug, Clone)]
pub struct ListenTable<V: Copy> {
    /// Twice, if bound to any address of both families.
    places: HashTable<Listener<V>>,
    /// How many of them are for one address.
    exact_len: usize,
    occupancy: Occupancy,
    hash: KeyedHash,
    len: usize,
    len_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Listener<V> {
    place: Place,
    binding: Binding,
    value: V,
}

impl<V: Copy> ListenTable<V> {
    /// A table for at most `len_max` listeners.
    pub fn new(len_max: usize, random: &mut Random) -> Self {
        Self {
            places: HashTable::new(),
            exact_len: 0,
            occupancy: Occupancy::new(random),
            hash: KeyedHash::new(random),
            len: 0,
            len_max,
        }
    }

    /// Adds a listener. Whether the address is one of ours is not asked.
    ///
    /// # Errors
    /// Another one is in the way, there is no room, or the port is 0; nothing has changed then.
    pub fn bind(&mut self, binding: Binding, value: V) -> Result<(), BindError> {
        let binding = binding.normal();
        if binding.port == 0 {
            return Err(BindError::PortZero);
        }
        if !self.occupancy.is_free(binding, false) {
            return Err(BindError::InUse { binding });
        }
        if self.len >= self.len_max {
            return Err(BindError::Full { len_max: self.len_max });
        }
        self.occupancy.add(binding, false);
        let hash = &self.hash;
        for place in binding.places() {
            self.exact_len += usize::from(!place.is_any());
            let rehash = |other: &Listener<V>| hash.words(other.place.words());
            self.places.insert_unique(hash.words(place.words()), Listener { place, binding, value }, rehash);
        }
        self.len += 1;
        Ok(())
    }

    /// Takes a listener away, and says what its value was. `None`: nobody is bound to just that.
    pub fn unbind(&mut self, binding: Binding) -> Option<V> {
        let binding = binding.normal();
        let mut removed = None;
        for place in binding.places() {
            let is_it = |other: &Listener<V>| other.place == place && other.binding == binding;
            let entry = self.places.find_entry(self.hash.words(place.words()), is_it).ok()?;
            removed = Some(entry.remove().0.value);
            self.exact_len -= usize::from(!place.is_any());
        }
        self.occupancy.remove(binding, false);
        self.len -= 1;
        removed
    }

    /// Who listens for connections to `local`.
    #[inline]
    pub fn lookup(&self, local: IpAddr, port: u16) -> Option<V> {
        let exact = (self.exact_len > 0).then(|| self.at(&Place::of(local, port))).flatten();
        exact.or_else(|| self.at(&Place::any(Family::of(local), port)))
    }

    /// Whether nobody would be in the way of this binding.
    pub fn is_free(&self, binding: Binding) -> bool {
        self.occupancy.is_free(binding.normal(), false)
    }

    /// How many listeners there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All listeners, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Binding, V)> {
        // The first of two places stands for both.
        let is_first = |listener: &&Listener<V>| listener.binding.places().next() == Some(listener.place);
        self.places.iter().filter(is_first).map(|listener| (listener.binding, listener.value))
    }

    #[inline]
    fn at(&self, place: &Place) -> Option<V> {
        let found = self.places.find(self.hash.words(place.words()), |other| other.place == *place);
        found.map(|listener| listener.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bind::BindAddress;
    use super::*;

    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"])
            .prop_map(|text| text.parse().unwrap())
    }

    fn bindings() -> impl Strategy<Value = Binding> {
        let address = prop_oneof![
            3 => addresses().prop_map(BindAddress::Address),
            1 => Just(BindAddress::AnyV4),
            1 => Just(BindAddress::AnyV6),
            1 => Just(BindAddress::Any),
        ];
        (address, 0_u16..3).prop_map(|(address, port)| Binding { address, port })
    }

    /// By trying all addresses, which are these four.
    fn overlap(a: Binding, b: Binding) -> bool {
        let all = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        a.port == b.port && all.iter().any(|ip| a.address.covers(*ip) && b.address.covers(*ip))
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(
            len_max in 1_usize..12,
            steps in prop::collection::vec((0..4_u8, bindings(), addresses()), 0..200),
        ) {
            let mut table = ListenTable::new(len_max, &mut Random::new(1));
            let mut list: Vec<(Binding, u32)> = Vec::new();
            for (value, (step, binding, local)) in (0..).zip(steps) {
                let is_free = list.iter().all(|(other, _)| !overlap(binding, *other));
                prop_assert_eq!(table.is_free(binding), is_free);
                match step {
                    0 | 1 => {
                        let expected = if binding.port == 0 {
                            Err(BindError::PortZero)
                        } else if !is_free {
                            Err(BindError::InUse { binding })
                        } else if list.len() >= len_max {
                            Err(BindError::Full { len_max })
                        } else {
                            list.push((binding, value));
                            Ok(())
                        };
                        prop_assert_eq!(table.bind(binding, value), expected);
                    }
                    2 => {
                        let at = list.iter().position(|(other, _)| *other == binding);
                        prop_assert_eq!(table.unbind(binding), at.map(|at| list.remove(at).1));
                    }
                    _ => {
                        let is_for = |(other, _): &&(Binding, u32)| {
                            other.port == binding.port && other.address.covers(local)
                        };
                        let expected = list.iter().find(is_for).map(|(_, value)| *value);
                        prop_assert_eq!(table.lookup(local, binding.port), expected);
                    }
                }
                prop_assert_eq!((table.len(), table.is_empty()), (list.len(), list.is_empty()));
            }
            let mut seen: Vec<_> = table.iter().collect();
            seen.sort_by_key(|(_, value)| *value);
            prop_assert_eq!(seen, list);
        }
    }

    #[test]
    fn families_are_apart_unless_bound_to_both() {
        let mut table = ListenTable::new(9, &mut Random::new(1));
        let at = |address| Binding { address, port: 80 };
        assert_eq!(table.bind(at(BindAddress::AnyV6), 6), Ok(()));
        assert_eq!(table.bind(at(BindAddress::AnyV4), 4), Ok(()));
        let in_use = |address| Err(BindError::InUse { binding: at(address) });
        assert_eq!(table.bind(at(BindAddress::Any), 0), in_use(BindAddress::Any));
        assert_eq!(table.lookup([10, 0, 0, 1].into(), 80), Some(4));
        assert_eq!(table.unbind(at(BindAddress::Any)), None);
        assert_eq!(table.unbind(at(BindAddress::AnyV4)), Some(4));
        assert_eq!(table.lookup([10, 0, 0, 1].into(), 80), None);
        // An unspecified address is any.
        let unspecified = BindAddress::Address([0, 0, 0, 0].into());
        assert_eq!(table.bind(at(unspecified), 4), Ok(()));
        assert_eq!(table.bind(at(BindAddress::AnyV4), 4), in_use(BindAddress::AnyV4));
    }
}
