//! The table: what the stack calls, and the timers.

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use wirestack_nic::FrameMeta;

use super::config::NeighborConfig;
use super::entries::{Class, Entries};
use super::entry::{Entry, NeighborInfo, Parked, State};
use super::outbox::{Outbox, Output};
use super::own::Own;
use crate::observe::DropReason;
use crate::random::Random;
use crate::timer::wheel::{TimerId, Wheel};

/// All neighbours of an interface, of both families, and our own addresses as far as neighbours matter.
///
/// Memory is bounded by [`NeighborConfig`]. A lookup costs a hash and touches one entry, however many there
/// are. What comes from the wire is a verdict for the caller to count.
#[derive(Debug)]
pub struct Table {
    pub(super) config: NeighborConfig,
    pub(super) mac: EthernetAddress,
    pub(super) random: Random,
    pub(super) entries: Entries,
    pub(super) wheel: Wheel<Due>,
    pub(super) outbox: Outbox,
    /// Our own addresses that are probed, announced or defended.
    pub(super) own: Vec<Own>,
    /// Probes for IPv4 addresses that somebody else had, one after the other.
    pub(super) conflicts: u32,
    /// Addresses of ours from which neighbours are asked of whom we do not know who used them: IPv4, IPv6.
    pub(super) sources: [Option<IpAddr>; 2],
    /// Entries in INCOMPLETE.
    pub(super) incomplete: usize,
    pub(super) reachable_time: Duration,
    reachable_drawn_at: Instant,
    evictions: u64,
}

/// What [`Table::lookup`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The hardware address to send to.
    Known(EthernetAddress),
    /// It is not known yet: [`Table::park`] the frame.
    Pending,
    /// It was asked and did not answer, a short time ago.
    Unreachable,
}

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Neighbor(u32),
    Own(IpAddr),
}

/// Because of whom there is a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Ourselves,
    Stranger,
}

impl Table {
    /// An empty table of the interface with this hardware address.
    pub fn new(config: NeighborConfig, mac: EthernetAddress, mut random: Random, now: Instant) -> Self {
        let entries = Entries::new(&mut random);
        let mut table = Self {
            reachable_time: config.base_reachable_time,
            config,
            mac,
            random,
            entries,
            wheel: Wheel::new(now),
            outbox: Outbox::default(),
            own: Vec::new(),
            conflicts: 0,
            sources: [None; 2],
            incomplete: 0,
            reachable_drawn_at: now,
            evictions: 0,
        };
        table.draw_reachable_time(now);
        table
    }

    /// Where frames for `next_hop` go. Constant time; nothing is created.
    pub fn lookup(&mut self, now: Instant, next_hop: IpAddr) -> Lookup {
        let Some(at) = self.entries.find(next_hop) else { return Lookup::Pending };
        let Some(entry) = self.entries.get_mut(at) else { return Lookup::Pending };
        entry.used_at = now;
        let mac = entry.mac;
        match entry.state {
            State::Permanent | State::Delay | State::Probe => Lookup::Known(mac),
            State::Reachable if now < entry.until => Lookup::Known(mac),
            State::Reachable | State::Stale => {
                self.use_stale(now, at);
                Lookup::Known(mac)
            }
            State::Incomplete => Lookup::Pending,
            State::Failed if now < entry.until => Lookup::Unreachable,
            State::Failed => {
                self.discard(at);
                Lookup::Pending
            }
        }
    }

    /// Keeps a frame until `next_hop` is known, and asks for it if nobody has yet. `src` is our address in
    /// the request: the source of the packet if it is ours. The destination of the frame is filled in when it
    /// comes back as [`Output::Release`]; each frame taken here comes back in exactly one output.
    ///
    /// # Errors
    /// [`DropReason::NeighborUnreachable`]: it did not answer a short time ago, or cannot be a neighbour.
    /// [`DropReason::NeighborNoRoom`]: all room for neighbours is taken by others that are in use.
    /// [`DropReason::NeighborQueueFull`]: the frame is longer than may wait, or too much waits for others.
    /// [`DropReason::NoSource`]: `src` cannot be an address of ours, or is of the other family.
    pub fn park(
        &mut self,
        now: Instant,
        next_hop: IpAddr,
        src: IpAddr,
        frame: &[u8],
        meta: &FrameMeta,
    ) -> Result<(), DropReason> {
        if !is_unicast(next_hop) {
            return Err(DropReason::NeighborUnreachable);
        }
        if !is_unicast(src) || src.is_ipv4() != next_hop.is_ipv4() {
            return Err(DropReason::NoSource);
        }
        self.note_source(src);
        let known = self.lookup(now, next_hop);
        if known == Lookup::Unreachable {
            return Err(DropReason::NeighborUnreachable);
        }
        let at = match self.entries.find(next_hop) {
            Some(at) => at,
            None => self.begin(now, next_hop, src)?,
        };
        self.make_room(at, Parked::cost(frame.len()))?;
        let parked = Parked { frame: frame.to_vec(), meta: *meta };
        self.outbox.park(Parked::cost(frame.len()));
        match known {
            Lookup::Known(mac) => self.outbox.release(mac, parked),
            _ => self.store(at, parked),
        }
        Ok(())
    }

    /// Upper layers have a sign that `ip` received what was sent to it lately: RFC 4861 section 7.3.1.
    pub fn confirm(&mut self, now: Instant, ip: IpAddr) {
        let Some(at) = self.entries.find(ip) else { return };
        let until = now + self.reachable_time;
        let Some(entry) = self.entries.get_mut(at) else { return };
        match entry.state {
            // The timer stays where it is: a confirmation may come with every segment.
            State::Reachable => entry.until = until,
            State::Stale | State::Delay | State::Probe => self.enter_reachable(now, at),
            State::Incomplete | State::Failed | State::Permanent => {}
        }
    }

    /// A neighbour said its hardware address in a message that asked nothing of us: the source link-layer
    /// address option of a router solicitation or advertisement (RFC 4861 sections 6.2.6 and 6.3.4).
    ///
    /// # Errors
    /// [`DropReason::NeighborNoRoom`], or an address that no neighbour has.
    pub fn learn(&mut self, now: Instant, ip: IpAddr, mac: EthernetAddress) -> Result<(), DropReason> {
        if !is_unicast(ip) || !is_station(mac) || mac == self.mac {
            return Err(DropReason::NdpMalformed);
        }
        self.update_from_source(now, ip, mac, None).map(|_| ())
    }

    /// The same of whoever sent a router advertisement, which need not have the option.
    ///
    /// # Errors
    /// As [`Table::learn`].
    pub fn learn_router(
        &mut self,
        now: Instant,
        ip: IpAddr,
        mac: Option<EthernetAddress>,
    ) -> Result<(), DropReason> {
        if let Some(mac) = mac {
            self.learn(now, ip, mac)?;
        }
        let at = self.entries.find(ip);
        //= rfc4861#6.3.4
        //# If a Neighbor Cache entry is created
        //# for the router, its reachability state MUST be set to STALE as
        //# specified in Section 7.3.3.
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            entry.is_router = true;
        }
        Ok(())
    }

    /// Adds a neighbour that the wire does not change, or makes a known one that.
    ///
    /// # Errors
    /// [`DropReason::NeighborNoRoom`]: all entries are in use.
    pub fn insert_static(
        &mut self,
        now: Instant,
        ip: IpAddr,
        mac: EthernetAddress,
    ) -> Result<(), DropReason> {
        let at = match self.entries.find(ip) {
            Some(at) => at,
            None => self.make(now, ip, Asker::Ourselves)?,
        };
        if let Some(entry) = self.entries.get_mut(at) {
            entry.mac = mac;
            entry.updated_at = now;
        }
        self.enter(now, at, State::Permanent, None);
        self.release_parked(at);
        Ok(())
    }

    /// Forgets a neighbour, a static one as well; frames that wait for it are dropped. `false`: it was not
    /// known.
    pub fn remove(&mut self, ip: IpAddr) -> bool {
        let at = self.entries.find(ip);
        at.inspect(|at| self.discard(*at)).is_some()
    }

    /// Forgets all neighbours but the static ones, for instance because the link was down.
    pub fn flush(&mut self) {
        let entries = self.entries.iter().filter(|(_, entry)| entry.state != State::Permanent);
        let forgotten: Vec<_> = entries.map(|(at, _)| at).collect();
        forgotten.into_iter().for_each(|at| self.discard(at));
    }

    /// What a router advertises for all hosts of the link: Reachable Time and Retrans Timer, if they are not
    /// unspecified (RFC 4861 section 6.3.4). Out of 1 ms to 1 h they are ignored.
    pub fn set_times(&mut self, now: Instant, reachable: Option<Duration>, retrans: Option<Duration>) {
        let possible = |time: &Duration| (TIME_MIN..=TIME_MAX).contains(time);
        if let Some(retrans) = retrans.filter(possible) {
            self.config.retrans_timer = retrans;
        }
        if let Some(base) = reachable.filter(possible)
            && base != self.config.base_reachable_time
        {
            self.config.base_reachable_time = base;
            self.draw_reachable_time(now);
        }
    }

    /// The next thing to be done; `None`: nothing is left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll()
    }

    /// Whether [`Table::poll_output`] has something to be done (drops that are only to be counted aside).
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Fires what is due, a bounded number of timers. What is left stays due: [`Table::next_deadline`] does not
    /// move past `now`. While requests are not fetched, nothing more fires.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..self.config.timeouts_per_call_max.max(1) {
            if !self.has_room_for_request() {
                return;
            }
            match self.wheel.pop_expired(now) {
                Some((_, Due::Neighbor(at))) => self.fire(now, at),
                Some((_, Due::Own(ip))) => self.expire_own(now, ip),
                None => return,
            }
        }
    }

    /// When [`Table::handle_timeout`] has something to do. `None`: not until something else happens, such as
    /// that requests are fetched for which there was no more room.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline().filter(|_| self.has_room_for_request())
    }

    /// What is known of a neighbour.
    pub fn get(&self, ip: IpAddr) -> Option<NeighborInfo> {
        self.entries.get(self.entries.find(ip)?).map(Entry::info)
    }

    /// All neighbours, in no order.
    pub fn snapshot(&self) -> impl Iterator<Item = NeighborInfo> {
        self.entries.iter().map(|(_, entry)| entry.info())
    }

    /// How many neighbours are known, those that did not answer included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no neighbour is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all frames take that wait or were released and not yet fetched, in bytes.
    pub fn parked_bytes(&self) -> usize {
        self.outbox.parked_bytes()
    }

    /// How often room came free: a frame that waited has left, or a neighbour is not looked for any more. For whoever was
    /// refused with [`DropReason::NeighborNoRoom`] or [`DropReason::NeighborQueueFull`], and would try again.
    pub fn room_freed(&self) -> u64 {
        self.outbox.room_freed()
    }

    /// How often a neighbour was displaced by another one.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// A new entry, in the room of a cheaper one if there is none left. It is in no list yet.
    pub(super) fn make(&mut self, now: Instant, ip: IpAddr, asker: Asker) -> Result<u32, DropReason> {
        if self.entries.len() >= self.config.entries_max {
            let classes = match asker {
                Asker::Ourselves => Class::ALL,
                Asker::Stranger => Class::CHEAP,
            };
            let victim = self.entries.victim(classes).ok_or(DropReason::NeighborNoRoom)?;
            self.discard(victim);
            self.evictions += 1;
        }
        let at = self.entries.insert(Entry::new(now, ip));
        self.incomplete += 1;
        Ok(at)
    }

    /// Takes an entry away, its timer, and what waits for it.
    pub(super) fn discard(&mut self, at: u32) {
        let Some(entry) = self.entries.remove(at) else { return };
        if let Some(timer) = entry.timer {
            self.wheel.cancel(timer);
        }
        if entry.state == State::Incomplete {
            self.incomplete -= 1;
            self.outbox.note_room();
        }
        for parked in &entry.parked {
            self.outbox.discard(parked, DropReason::NeighborUnreachable);
        }
    }

    /// Changes the state of an entry and sets its timer.
    pub(super) fn enter(&mut self, now: Instant, at: u32, state: State, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let was_incomplete = std::mem::replace(&mut entry.state, state) == State::Incomplete;
        self.incomplete -= usize::from(was_incomplete);
        self.incomplete += usize::from(state == State::Incomplete);
        if was_incomplete && state != State::Incomplete {
            self.outbox.note_room();
        }
        entry.probes_sent = 0;
        self.entries.file(now, at);
        self.arm(at, deadline);
    }

    /// Sets or clears the timer of an entry.
    pub(super) fn arm(&mut self, at: u32, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        set_timer(&mut self.wheel, &mut entry.timer, Due::Neighbor(at), deadline);
    }

    /// Draws the time that a neighbour is thought to be there, if it was drawn long ago.
    pub(super) fn refresh_reachable_time(&mut self, now: Instant) {
        if now >= self.reachable_drawn_at + REACHABLE_TIME_KEPT {
            self.draw_reachable_time(now);
        }
    }

    pub(super) fn has_room_for_request(&self) -> bool {
        self.outbox.requests() < self.config.requests_queued_max.max(1)
    }

    /// An address of ours, to ask from.
    pub(super) fn note_source(&mut self, ip: IpAddr) {
        self.sources[usize::from(ip.is_ipv6())] = Some(ip);
    }

    //= rfc4861#6.3.2
    //# uniformly distributed random value between
    //# MIN_RANDOM_FACTOR and MAX_RANDOM_FACTOR times
    //# BaseReachableTime milliseconds.
    fn draw_reachable_time(&mut self, now: Instant) {
        self.reachable_drawn_at = now;
        let base = self.config.base_reachable_time.total_micros();
        let permille = u64::from(500 + self.random.below(1001));
        self.reachable_time = Duration::from_micros(base.saturating_mul(permille) / 1000);
    }

    /// Makes room for a frame of this cost: the oldest ones of the same neighbour go.
    fn make_room(&mut self, at: u32, cost: usize) -> Result<(), DropReason> {
        if cost > self.config.parked_bytes_max || self.config.parked_frames_max == 0 {
            return Err(DropReason::NeighborQueueFull);
        }
        loop {
            let Some(entry) = self.entries.get_mut(at) else { return Err(DropReason::NeighborNoRoom) };
            let total = self.outbox.parked_bytes().saturating_add(cost);
            if entry.parked.len() < self.config.parked_frames_max
                && entry.parked_bytes.saturating_add(cost) <= self.config.parked_bytes_max
                && total <= self.config.parked_total_bytes_max
            {
                return Ok(());
            }
            //= rfc4861#7.2.2
            //# When a queue
            //# overflows, the new arrival SHOULD replace the oldest entry.
            let Some(oldest) = entry.parked.pop_front() else { return Err(DropReason::NeighborQueueFull) };
            entry.parked_bytes = entry.parked_bytes.saturating_sub(Parked::cost(oldest.frame.len()));
            self.outbox.discard(&oldest, DropReason::NeighborQueueFull);
        }
    }

    fn store(&mut self, at: u32, parked: Parked) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.parked_bytes += Parked::cost(parked.frame.len());
        entry.parked.push_back(parked);
    }
}

/// Sets, moves or clears a timer.
pub(super) fn set_timer(
    wheel: &mut Wheel<Due>,
    timer: &mut Option<TimerId>,
    due: Due,
    deadline: Option<Instant>,
) {
    match (*timer, deadline) {
        (Some(id), Some(deadline)) if wheel.reschedule(id, deadline) => {}
        (_, Some(deadline)) => *timer = Some(wheel.insert(deadline, due)),
        (Some(id), None) => {
            wheel.cancel(id);
            *timer = None;
        }
        (None, None) => {}
    }
}

/// Whether a neighbour can have this address.
pub(super) fn is_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
    !(is_broadcast || ip.is_multicast() || ip.is_unspecified() || ip.is_loopback())
}

/// Whether one card can have this hardware address.
pub(super) fn is_station(mac: EthernetAddress) -> bool {
    mac.is_unicast() && mac.0 != [0; 6]
}

/// How long a drawn reachable time is used. RFC 4861 section 6.3.2: "at least every few hours".
const REACHABLE_TIME_KEPT: Duration = Duration::from_secs(2 * 3600);
/// The shortest time that is believed of a router.
const TIME_MIN: Duration = Duration::from_millis(1);
/// The longest one: MAX value of AdvReachableTime, RFC 4861 section 6.2.1.
const TIME_MAX: Duration = Duration::from_secs(3600);
