//! Fragments on their way to become packets again, of IPv4 (RFC 791, RFC 1122 section 3.3.2) and IPv6
//! (RFC 8200 section 4.5).
//!
//! ```text
//!            ┌────────┐        ┌────┐          0: what it is made of comes with the fragments, no 64 KB
//!   pieces   0        n        m    m+k        before; a piece is looked up in O(log n)
//!                     └──hole──┘    └── total unknown until the last one comes
//! ```
//!
//! Anybody can send fragments that never become whole, so everything is bounded ([`ReassemblyConfig`]):
//!
//! * A source that is at its own limit loses its own oldest datagram, never somebody else's. A source is an
//!   address of IPv4, and 64 bits of an IPv6 address, for whoever has one address of such a prefix may have
//!   all; on the link (fe80::/10) it is the whole address.
//! * If many sources together are at the limit of the table, the oldest datagram goes, whoever sent it. A
//!   datagram in good order is whole within milliseconds, so a flood must turn over the table faster than
//!   that to hurt it; to refuse new ones instead would shut everybody out for half a minute.
//! * A datagram whose fragments overlap or contradict each other is given up, of IPv4 as well: its memory is
//!   free at once, and its key is remembered until its timeout, so that what still comes of it does not
//!   begin a new one.
//!
//! The packet that comes out is looked at again like one that has just come in. What this does not know:
//! ICMP. [`Reassembly::poll_timeout`] hands out what the error is to quote.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::keyed::Keyed;
use crate::ingress::packet::IpPacket;
use crate::observe::DropReason;
use crate::random::Random;
use crate::timer::wheel::Wheel;

mod datagram;
#[cfg(test)]
mod tests;

use datagram::{Datagram, Fit, Piece};

/// Limits of reassembly. Bytes are of payload and headers kept, and [`FRAGMENT_COST_BYTES`] more for each
/// fragment and [`DATAGRAM_COST_BYTES`] for each datagram, so that many small ones are not cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReassemblyConfig {
    /// Datagrams in total, those that were given up and are remembered included.
    pub datagrams_max: usize,
    /// Bytes in total.
    pub bytes_max: usize,
    /// Datagrams of one source.
    pub source_datagrams_max: usize,
    /// Bytes of one source. Below 128 KB, the longest datagrams may never become whole.
    pub source_bytes_max: usize,
    /// Fragments of one datagram. 64 KB over an MTU of 576 are 119.
    pub fragments_max: usize,
    /// Holes between the fragments of one datagram.
    pub holes_max: usize,
    /// How long the fragments of an IPv4 packet may take, from the first that comes. RFC 1122 section
    /// 3.3.2 says 60 to 120 s; at today's rates 16 bits of identification come round much sooner (RFC 4963),
    /// and Linux waits 30 s.
    pub ipv4_timeout: Duration,
    /// The same of IPv6.
    pub ipv6_timeout: Duration,
}

impl Default for ReassemblyConfig {
    fn default() -> Self {
        Self {
            datagrams_max: 1024,
            bytes_max: 4 << 20,
            source_datagrams_max: 64,
            source_bytes_max: 1 << 20,
            fragments_max: 256,
            holes_max: 64,
            ipv4_timeout: Duration::from_secs(30),
            ipv6_timeout: Duration::from_secs(60),
        }
    }
}

/// A packet that is whole again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The IP packet, with the headers of the first fragment made right for the whole.
    pub bytes: Vec<u8>,
    /// Bytes of the longest of its fragments, IP header included: what the path took.
    pub largest_fragment_bytes: usize,
    /// How many fragments it came in.
    pub fragments: usize,
}

/// A datagram that did not become whole in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut {
    /// Who sent it.
    pub src: IpAddr,
    /// For whom it was.
    pub dst: IpAddr,
    /// The first fragment as it came, from its IP header on: an ICMP error (Time Exceeded, code 1) quotes
    /// it. `None`: it did not come, and no error is due.
    pub first_fragment: Option<Vec<u8>>,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReassemblyCounters {
    /// Packets that became whole.
    pub completed: u64,
    /// Fragments that had come before, byte by byte.
    pub duplicates: u64,
    /// Datagrams that were given up: fragments that overlap or contradict each other, or too many of them.
    pub abandoned: u64,
    /// Datagrams that made room for others.
    pub evicted: u64,
    /// Datagrams whose time was over, not counting those that were given up.
    pub timed_out: u64,
}

/// A datagram that is being reassembled, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramSnapshot {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol of IPv4; 0 for IPv6, where it does not tell datagrams apart.
    pub protocol: u8,
    /// Fragments that are here.
    pub fragments: usize,
    /// Bytes of payload that are here.
    pub received_bytes: usize,
    /// Bytes of payload of the whole, once the last fragment is here.
    pub total_bytes: Option<usize>,
    /// Holes between what is here.
    pub holes: usize,
    /// When its time is over.
    pub expires: Instant,
    /// Set if it was given up and is only remembered.
    pub abandoned: Option<DropReason>,
}

/// What the fragments of a packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: u8,
}

/// What one source has here.
#[derive(Debug, Clone, Default)]
struct Source {
    serials: BTreeSet<u64>,
    bytes: usize,
}

/// All datagrams that are not whole yet.
#[derive(Debug, Clone)]
pub struct Reassembly {
    config: ReassemblyConfig,
    /// Strangers choose the keys.
    by_key: HashMap<Key, u64, Keyed>,
    sources: HashMap<IpAddr, Source, Keyed>,
    /// By a number that grows: the first is the oldest.
    datagrams: BTreeMap<u64, Datagram>,
    timers: Wheel<u64>,
    serial: u64,
    bytes: usize,
    counters: ReassemblyCounters,
}

impl Reassembly {
    /// Without any datagram.
    pub fn new(now: Instant, config: ReassemblyConfig, random: &mut Random) -> Self {
        Self {
            config,
            by_key: HashMap::with_hasher(Keyed::new(random)),
            sources: HashMap::with_hasher(Keyed::new(random)),
            datagrams: BTreeMap::new(),
            timers: Wheel::new(now),
            serial: 0,
            bytes: 0,
            counters: ReassemblyCounters::default(),
        }
    }

    /// Takes a fragment. `Ok(None)`: it is kept, or it was here before.
    ///
    /// # Errors
    /// [`DropReason::FragmentMalformed`]: it cannot be, or its ECN contradicts that of the others;
    /// [`DropReason::FragmentOverlap`], [`DropReason::FragmentNoRoom`]: its datagram is given up.
    pub fn push(&mut self, now: Instant, frame: &[u8], ip: &IpPacket) -> Result<Option<Whole>, DropReason> {
        let piece = Piece::of(frame, ip).ok_or(DropReason::FragmentMalformed)?;
        let protocol = if ip.src.is_ipv4() { ip.protocol } else { 0 };
        let key = Key { src: ip.src, dst: ip.dst, id: piece.id, protocol };
        let serial = match self.by_key.get(&key) {
            Some(&serial) => serial,
            None => self.open(now, key),
        };
        let Some(datagram) = self.datagrams.get(&serial) else { return Err(DropReason::FragmentNoRoom) };
        let fit = match datagram.abandoned() {
            Some(reason) => return Err(reason),
            None => datagram.fit(&piece, &self.config),
        };
        match fit {
            Fit::Duplicate => {
                self.counters.duplicates += 1;
                Ok(None)
            }
            Fit::Never(reason) => Err(self.abandon(serial, reason)),
            Fit::New { runs } => {
                if !self.make_room(serial, piece.cost()) {
                    return Err(self.abandon(serial, DropReason::FragmentNoRoom));
                }
                self.add(serial, &piece, runs)
            }
        }
    }

    /// The next datagram whose time is over at `now`; to be asked until there is none. It is gone from here.
    //= rfc8200#4.5
    //# If insufficient fragments are received to complete reassembly
    //# of a packet within 60 seconds of the reception of the first-
    //# arriving fragment of that packet, reassembly of that packet
    //# must be abandoned and all the fragments that have been received
    //# for that packet must be discarded.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<TimedOut> {
        while let Some((_, serial)) = self.timers.pop_expired(now) {
            let Some(datagram) = self.remove(serial) else { continue };
            if datagram.abandoned().is_none() {
                self.counters.timed_out += 1;
                let Key { src, dst, .. } = datagram.key;
                return Some(TimedOut { src, dst, first_fragment: datagram.first_fragment() });
            }
        }
        None
    }

    /// When the time of a datagram is over next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// What happened so far.
    pub fn counters(&self) -> ReassemblyCounters {
        self.counters
    }

    /// Datagrams that are not whole, those that are only remembered included.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether there is no datagram.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes as [`ReassemblyConfig`] counts them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All datagrams, the oldest first.
    pub fn snapshot(&self) -> impl Iterator<Item = DatagramSnapshot> {
        self.datagrams.values().map(Datagram::snapshot)
    }

    /// Begins a datagram, for which others may have to go.
    fn open(&mut self, now: Instant, key: Key) -> u64 {
        let of_source = self.sources.get(&source_of(key.src));
        if let Some(source) = of_source
            && source.serials.len() >= self.config.source_datagrams_max
            && let Some(&oldest) = source.serials.first()
        {
            self.evict(oldest);
        }
        if self.datagrams.len() >= self.config.datagrams_max
            && let Some((&oldest, _)) = self.datagrams.first_key_value()
        {
            self.evict(oldest);
        }
        self.serial += 1;
        let serial = self.serial;
        let timeout = if key.src.is_ipv4() { self.config.ipv4_timeout } else { self.config.ipv6_timeout };
        let timer = self.timers.insert(now + timeout, serial);
        self.datagrams.insert(serial, Datagram::new(key, now + timeout, timer));
        self.by_key.insert(key, serial);
        self.sources.entry(source_of(key.src)).or_default().serials.insert(serial);
        self.charge(key.src, DATAGRAM_COST_BYTES);
        serial
    }

    fn add(&mut self, serial: u64, piece: &Piece<'_>, runs: usize) -> Result<Option<Whole>, DropReason> {
        let Some(datagram) = self.datagrams.get_mut(&serial) else { return Err(DropReason::FragmentNoRoom) };
        datagram.add(piece, runs);
        let (is_whole, src) = (datagram.is_whole(), datagram.key.src);
        self.charge(src, piece.cost());
        if !is_whole {
            return Ok(None);
        }
        let whole = self.remove(serial).and_then(|datagram| datagram.assemble());
        self.counters.completed += u64::from(whole.is_some());
        // Only a first fragment with longer headers than the others had can make it too long.
        whole.map(Some).ok_or(DropReason::FragmentMalformed)
    }

    /// Evicts datagrams until there are `cost` bytes for one. `false`: even alone it has no room.
    fn make_room(&mut self, serial: u64, cost: usize) -> bool {
        let Some(datagram) = self.datagrams.get(&serial) else { return false };
        let source = source_of(datagram.key.src);
        let other = |candidate: &&u64| **candidate != serial;
        while let Some(held) = self.sources.get(&source)
            && held.bytes + cost > self.config.source_bytes_max
        {
            let Some(&oldest) = held.serials.iter().find(other) else { return false };
            self.evict(oldest);
        }
        while self.bytes + cost > self.config.bytes_max {
            let Some(&oldest) = self.datagrams.keys().find(other) else { return false };
            self.evict(oldest);
        }
        true
    }

    fn evict(&mut self, serial: u64) {
        self.counters.evicted += u64::from(self.remove(serial).is_some());
    }

    /// Gives a datagram up: its fragments go, its key stays until its time is over.
    //= rfc5722#4
    //# When reassembling an IPv6 datagram, if one or more its constituent
    //# fragments is determined to be an overlapping fragment, the entire
    //# datagram (and any constituent fragments, including those not yet
    //# received) MUST be silently discarded.
    fn abandon(&mut self, serial: u64, reason: DropReason) -> DropReason {
        if let Some(datagram) = self.datagrams.get_mut(&serial) {
            let (src, freed) = (datagram.key.src, datagram.abandon(reason));
            self.discharge(src, freed);
            self.counters.abandoned += 1;
        }
        reason
    }

    fn remove(&mut self, serial: u64) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&serial)?;
        self.by_key.remove(&datagram.key);
        // Nothing happens if the timer has fired.
        self.timers.cancel(datagram.timer);
        self.discharge(datagram.key.src, datagram.cost() + DATAGRAM_COST_BYTES);
        let source = source_of(datagram.key.src);
        if let Some(held) = self.sources.get_mut(&source) {
            held.serials.remove(&serial);
            if held.serials.is_empty() {
                self.sources.remove(&source);
            }
        }
        Some(datagram)
    }

    fn charge(&mut self, src: IpAddr, bytes: usize) {
        self.bytes += bytes;
        if let Some(source) = self.sources.get_mut(&source_of(src)) {
            source.bytes += bytes;
        }
    }

    fn discharge(&mut self, src: IpAddr, bytes: usize) {
        self.bytes -= bytes;
        if let Some(source) = self.sources.get_mut(&source_of(src)) {
            source.bytes -= bytes;
        }
    }
}

/// Who shares a limit.
fn source_of(src: IpAddr) -> IpAddr {
    match src {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        other => other,
    }
}

/// What a fragment costs beside its bytes: the allocation and its place in the tree.
pub const FRAGMENT_COST_BYTES: usize = 64;
/// What a datagram costs beside its fragments: its entries in the tables.
pub const DATAGRAM_COST_BYTES: usize = 512;
