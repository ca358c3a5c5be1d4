//! The neighbours by address, and the order in which they may be displaced.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use siphasher::sip::SipHasher13;
use smoltcp::time::Instant;

use super::entry::Entry;
use crate::random::Random;

/// How much is lost with an entry: the first class is displaced first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Somebody who did not answer.
    Failed,
    /// Somebody who spoke, and to whom we never sent.
    Unused,
    /// Somebody to whom we have not sent for a while.
    Stale,
    /// Somebody whom we know to be there, or who is being asked.
    Live,
}

impl Class {
    /// Whom an entry that we need may displace.
    pub(super) const ALL: &[Self] = &[Self::Failed, Self::Unused, Self::Stale, Self::Live];
    /// Whom an entry that a stranger offers may displace.
    pub(super) const CHEAP: &[Self] = &[Self::Failed, Self::Unused];
}

/// The neighbours. Found by a hash that strangers cannot foresee; the entries of a class are in a list, in
/// the order in which they came into the class. A lookup does not move the entry it finds: whoever
/// looks for one to displace gives those that were used since a second chance.
#[derive(Debug)]
pub(super) struct Entries {
    index: HashMap<Key, u32, KeyedHash>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    lists: [List; 4],
}

impl Entries {
    pub(super) fn new(random: &mut Random) -> Self {
        let hash = KeyedHash { key: [random.u64(), random.u64()] };
        Self {
            index: HashMap::with_hasher(hash),
            slots: Vec::new(),
            free: Vec::new(),
            lists: [List::default(); 4],
        }
    }

    /// Adds an entry whose address is not there yet.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        let ip = entry.ip;
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.slots.push(None);
                // The configuration bounds the number of entries far below.
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(slot) = self.slots.get_mut(at as usize) {
            *slot = Some(entry);
        }
        self.index.insert(Key(ip), at);
        at
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<Entry> {
        self.unlink(at);
        let entry = self.slots.get_mut(at as usize)?.take()?;
        self.index.remove(&Key(entry.ip));
        self.free.push(at);
        Some(entry)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Entry> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// Puts an entry at the end of the list of its class, after its state has changed.
    pub(super) fn file(&mut self, now: Instant, at: u32) {
        self.unlink(at);
        let Some(entry) = self.get_mut(at) else { return };
        let Some(class) = entry.class() else { return };
        let tail = self.lists[class as usize].tail;
        if let Some(entry) = self.get_mut(at) {
            entry.place.class = Some(class);
            entry.place.since = now;
            entry.place.prev = tail;
        }
        match self.get_mut(tail) {
            Some(last) => last.place.next = at,
            None => self.lists[class as usize].head = at,
        }
        self.lists[class as usize].tail = at;
    }

    /// The entry of these classes that is missed least.
    pub(super) fn victim(&mut self, classes: &[Class]) -> Option<u32> {
        let class = classes.iter().find(|class| self.lists[**class as usize].head != NONE)?;
        for _ in 0..SECOND_CHANCES_MAX {
            let head = self.lists[*class as usize].head;
            let entry = self.get_mut(head)?;
            let used_at = entry.used_at;
            if used_at <= entry.place.since {
                return Some(head);
            }
            self.file(used_at, head);
        }
        Some(self.lists[*class as usize].head)
    }

    pub(super) fn find(&self, ip: IpAddr) -> Option<u32> {
        self.index.get(&Key(ip)).copied()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Entry> {
        self.slots.get(at as usize)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    }

    fn unlink(&mut self, at: u32) {
        let Some(entry) = self.get_mut(at) else { return };
        let Some(class) = entry.place.class.take() else { return };
        let (prev, next) = (entry.place.prev, entry.place.next);
        (entry.place.prev, entry.place.next) = (NONE, NONE);
        match self.get_mut(prev) {
            Some(before) => before.place.next = next,
            None => self.lists[class as usize].head = next,
        }
        match self.get_mut(next) {
            Some(after) => after.place.prev = prev,
            None => self.lists[class as usize].tail = prev,
        }
    }
}

/// First and last entry of a class.
#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

/// An address that is hashed in one piece: in the parts of which std makes it, that is most of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key(IpAddr);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            IpAddr::V4(ip) => state.write_u32(ip.to_bits()),
            IpAddr::V6(ip) => state.write_u128(ip.to_bits()),
        }
    }
}

/// SipHash with a key of our own: who chooses addresses cannot choose collisions.
#[derive(Debug, Clone)]
struct KeyedHash {
    key: [u64; 2],
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.key[0], self.key[1])
    }
}

/// No entry.
pub(super) const NONE: u32 = u32::MAX;
/// Entries that are passed over before one is displaced though it was used: a bound for the time it takes.
const SECOND_CHANCES_MAX: usize = 8;
