//! A shard, and whoever waits for its sockets.

use std::collections::HashMap;
use std::io;
use std::task::Waker;

use smoltcp::time::{Duration, Instant};
use wirestack_nic::Nic;

use crate::dns::{Answer, DnsError, Kind, QueryId, ResolveError};
use crate::shard::room::Shortage;
use crate::shard::{Shard, SocketId};
use crate::tcp::Failure;
use crate::timer::{TimerId, Wheel};

/// What somebody waits for at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data, the end of it, a connection to accept, a failure.
    Read,
    /// Room, the end of a handshake, a failure.
    Write,
}

#[cfg(test)]
mod tests;

/// A shard, and whoever waits for its sockets, for a name or for a time. Handles reach it through an
/// [`Access`](super::Access).
#[derive(Debug)]
pub struct Hub {
    shard: Shard,
    /// By the number of a socket.
    waiting: Vec<Waiting>,
    /// Whoever waits for room for a datagram on the way out.
    waiting_for_outbox: Wakers,
    /// The same beside what waits for neighbours, and what the first of them was refused for.
    waiting_for_neighbors: (Wakers, Shortage),
    /// Whoever would accept a connection, and there are as many sockets as there may be.
    waiting_for_sockets: Wakers,
    lookups: HashMap<QueryId, Lookup>,
    sleeps: Wheel<u32>,
    sleepers: slab::Slab<Option<Waker>>,
    /// To be woken when nobody holds the hub any more: they may come back at once.
    woken: Vec<Waker>,
    /// Until when the loop has said it would sleep; `None`: for ever.
    planned: Option<Instant>,
    /// Why nothing works any more.
    fault: Option<io::ErrorKind>,
}

/// Who waits for a socket.
#[derive(Debug, Default)]
struct Waiting {
    /// Which one: numbers are used again.
    socket: Option<SocketId>,
    read: Wakers,
    write: Wakers,
    /// The failure of the connection was told; what is asked after that is told of the end.
    is_told: bool,
    /// The application has finished sending.
    has_finished: bool,
    /// The application has shut down reading: what has come can still be read, and then it is the end.
    has_stopped_reading: bool,
}

/// Mostly none or one.
#[derive(Debug, Default)]
struct Wakers {
    first: Option<Waker>,
    others: Vec<Waker>,
    /// When a crowd was last sent away.
    sent_away: Option<Instant>,
}

#[derive(Debug)]
enum Lookup {
    Waits(Option<Waker>),
    Done(Result<Answer, DnsError>),
}

impl Wakers {
    fn add(&mut self, waker: &Waker, now: Instant, woken: &mut Vec<Waker>) {
        let is_known = self.first.iter().chain(&self.others).any(|known| known.will_wake(waker));
        if is_known {
            return;
        }
        // Whoever has given up waiting leaves his waker here until something happens. At a socket at which nothing ever
        // does, they would be more and more: from time to time all are woken, and who still waits comes again.
        let is_calm = self.sent_away.is_none_or(|at| now >= at + CROWD_INTERVAL);
        if self.others.len() >= CROWD_LEN && is_calm {
            self.sent_away = Some(now);
            self.wake(woken);
        }
        match self.first {
            None => self.first = Some(waker.clone()),
            Some(_) => self.others.push(waker.clone()),
        }
    }

    fn wake(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.first.take());
        woken.append(&mut self.others);
    }
}

impl Hub {
    /// A shard for which nobody waits yet.
    pub fn new(shard: Shard) -> Self {
        let sleeps = Wheel::new(shard.now());
        Self {
            shard,
            waiting: Vec::new(),
            waiting_for_outbox: Wakers::default(),
            waiting_for_neighbors: (Wakers::default(), Shortage::Outbox),
            waiting_for_sockets: Wakers::default(),
            lookups: HashMap::new(),
            sleeps,
            sleepers: slab::Slab::new(),
            woken: Vec::new(),
            planned: None,
            fault: None,
        }
    }

    /// The shard. What is begun here leaves with the next turn.
    pub fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// The same, to look at.
    pub fn shard_ref(&self) -> &Shard {
        &self.shard
    }

    /// The first half of a turn. True: the next one is to come at once.
    pub fn receive<N: Nic>(&mut self, now: Instant, nic: &mut N) -> bool {
        self.receive_with(now, nic, |_| {})
    }

    /// The same, with an application that lives in the turn. It sees the events of the shard first; those that it leaves are
    /// for the handles.
    pub fn receive_with<N: Nic>(&mut self, now: Instant, nic: &mut N, app: impl FnOnce(&mut Shard)) -> bool {
        let more = self.shard.receive(now, nic);
        app(&mut self.shard);
        self.dispatch();
        more
    }

    /// The second half of a turn. When to come again; it is remembered until then.
    pub fn send<N: Nic>(&mut self, nic: &mut N) -> Option<Instant> {
        let due = self.shard.send(nic);
        self.tell_room();
        // What has come up while sending, such as a full receive buffer of ourselves that was emptied.
        self.dispatch();
        self.planned = match (due, self.sleeps.next_deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.planned
    }

    /// Whether the loop is to come before the time that it has said.
    pub fn is_due_earlier(&self) -> bool {
        let is_sooner = |at: Option<Instant>| match (at, self.planned) {
            (Some(at), Some(planned)) => at < planned,
            (at, None) => at.is_some(),
            (None, Some(_)) => false,
        };
        self.shard.has_work()
            || is_sooner(self.sleeps.next_deadline())
            || is_sooner(self.shard.next_deadline())
    }

    /// Wakes those who wait for room for datagrams, if there may be some.
    fn tell_room(&mut self) {
        let Self { shard, waiting_for_outbox, waiting_for_neighbors, woken, .. } = self;
        let (waiting_for_neighbors, refused_for) = waiting_for_neighbors;
        for (waiting, shortage) in
            [(waiting_for_outbox, Shortage::Outbox), (waiting_for_neighbors, *refused_for)]
        {
            if waiting.first.is_some() && shard.may_be_over(shortage) {
                waiting.wake(woken);
            }
        }
    }

    /// Finds whom the events of the shard are for.
    fn dispatch(&mut self) {
        while let Some(event) = self.shard.next_event() {
            let id = event.socket;
            if let Some(waiting) = self.waiting.get_mut(id.index() as usize)
                && waiting.socket == Some(id)
            {
                waiting.read.wake(&mut self.woken);
                waiting.write.wake(&mut self.woken);
            }
        }
        while let Some(answer) = self.shard.next_answer() {
            // Nobody: it was given up.
            if let Some(lookup) = self.lookups.get_mut(&answer.id) {
                let before = std::mem::replace(lookup, Lookup::Done(answer.result));
                if let Lookup::Waits(waker) = before {
                    self.woken.extend(waker);
                }
            }
        }
        while let Some((_, sleeper)) = self.sleeps.pop_expired(self.shard.now()) {
            if let Some(waker) = self.sleepers.get_mut(sleeper as usize) {
                self.woken.extend(waker.take());
            }
        }
    }

    /// Those who are to be woken once the hub is let go.
    pub fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    /// The same, without an allocation.
    pub fn swap_woken(&mut self, empty: &mut Vec<Waker>) {
        std::mem::swap(&mut self.woken, empty);
    }

    /// Whether there is anybody to be woken.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Wakes this one at the next event of the socket. To be asked for again after each.
    pub(crate) fn wait_for(&mut self, socket: SocketId, interest: Interest, waker: &Waker) {
        let now = self.shard.now();
        let (waiting, woken) = self.waiting_and_woken(socket);
        match interest {
            Interest::Read => waiting.read.add(waker, now, woken),
            Interest::Write => waiting.write.add(waker, now, woken),
        }
    }

    fn waiting_of(&mut self, socket: SocketId) -> &mut Waiting {
        self.waiting_and_woken(socket).0
    }

    fn waiting_and_woken(&mut self, socket: SocketId) -> (&mut Waiting, &mut Vec<Waker>) {
        let Self { waiting, woken, .. } = self;
        let index = socket.index() as usize;
        if waiting.len() <= index {
            waiting.resize_with(index + 1, Waiting::default);
        }
        let waiting = &mut waiting[index];
        if waiting.socket != Some(socket) {
            waiting.read.wake(woken);
            waiting.write.wake(woken);
            *waiting = Waiting { socket: Some(socket), ..Waiting::default() };
        }
        (waiting, woken)
    }

    /// Wakes this one when there may be room for the datagram that was refused last.
    pub(crate) fn wait_for_room(&mut self, waker: &Waker) {
        let (now, shortage) = (self.shard.now(), self.shard.shortage());
        let waiting = match shortage {
            Shortage::Outbox => &mut self.waiting_for_outbox,
            Shortage::Neighbors { .. } => {
                let (waiting, refused_for) = &mut self.waiting_for_neighbors;
                // What has come free since the first one was refused is for all.
                if waiting.first.is_none() {
                    *refused_for = shortage;
                }
                waiting
            }
        };
        waiting.add(waker, now, &mut self.woken);
    }

    /// Whether the failure of a connection was told already; from now on it was.
    pub(crate) fn tell_failure(&mut self, socket: SocketId) -> bool {
        std::mem::replace(&mut self.waiting_of(socket).is_told, true)
    }

    /// From now on, the application sends nothing any more.
    pub(crate) fn finish(&mut self, socket: SocketId) {
        self.waiting_of(socket).has_finished = true;
        self.shard.tcp_finish(socket);
    }

    /// Why a connection is no more, as std says it.
    pub(crate) fn failure(&self, socket: SocketId) -> Option<io::Error> {
        let failure = self.shard.tcp_failure(socket)?;
        let waiting = self.waiting.get(socket.index() as usize);
        let has_finished =
            waiting.is_some_and(|waiting| waiting.socket == Some(socket) && waiting.has_finished);
        // As Linux (tcp_reset): of a peer that had finished sending before, there is nothing to be read any more, and what
        // is written to it finds nobody.
        let is_half_closed = self.shard.tcp_readiness(socket).peer_finished && !has_finished;
        Some(match failure {
            Failure::Reset if is_half_closed => io::Error::new(io::ErrorKind::BrokenPipe, failure),
            failure => failure.into(),
        })
    }

    /// From now on, what would wait for data finds the end.
    pub(crate) fn stop_reading(&mut self, socket: SocketId) {
        self.waiting_of(socket).has_stopped_reading = true;
    }

    /// Whether [`stop_reading`](Self::stop_reading) was called.
    pub(crate) fn has_stopped_reading(&self, socket: SocketId) -> bool {
        let waiting = self.waiting.get(socket.index() as usize);
        waiting.is_some_and(|waiting| waiting.socket == Some(socket) && waiting.has_stopped_reading)
    }

    /// Wakes all who wait for a socket: something was done to it from here.
    pub(crate) fn wake(&mut self, socket: SocketId) {
        let Self { waiting, woken, .. } = self;
        if let Some(waiting) = waiting.get_mut(socket.index() as usize)
            && waiting.socket == Some(socket)
        {
            waiting.read.wake(woken);
            waiting.write.wake(woken);
        }
    }

    /// Closes a socket.
    pub(crate) fn close(&mut self, socket: SocketId) {
        self.wake(socket);
        self.shard.close(socket);
        self.waiting_for_sockets.wake(&mut self.woken);
    }

    /// Wakes this one when a socket is closed: a connection waits, and there is no room for its socket.
    pub(crate) fn wait_for_sockets(&mut self, waker: &Waker) {
        let now = self.shard.now();
        self.waiting_for_sockets.add(waker, now, &mut self.woken);
    }

    /// Why nothing works any more: the interface has gone, or the stack was shut down.
    pub fn fault(&self) -> Option<io::ErrorKind> {
        self.fault
    }

    /// Nothing works from now on, and everybody hears of it.
    pub fn fail(&mut self, fault: io::ErrorKind) {
        self.fault.get_or_insert(fault);
        let Self { waiting, woken, lookups, sleepers, .. } = self;
        for waiting in waiting {
            waiting.read.wake(woken);
            waiting.write.wake(woken);
        }
        let others =
            [&mut self.waiting_for_outbox, &mut self.waiting_for_neighbors.0, &mut self.waiting_for_sockets];
        others.into_iter().for_each(|waiting| waiting.wake(woken));
        for lookup in lookups.values_mut() {
            let before = std::mem::replace(lookup, Lookup::Done(Err(DnsError::NoServer)));
            if let Lookup::Waits(waker) = before {
                woken.extend(waker);
            }
        }
        woken.extend(sleepers.iter_mut().filter_map(|(_, waker)| waker.take()));
    }

    /// Begins to look a name up.
    pub(crate) fn resolve(&mut self, name: &str, kind: Kind) -> Result<QueryId, ResolveError> {
        let id = self.shard.resolve(name, kind)?;
        self.lookups.insert(id, Lookup::Waits(None));
        // It may have been answered out of the cache.
        self.dispatch();
        Ok(id)
    }

    /// What was found. `None`: nothing yet, and the waker is called when there is.
    pub(crate) fn take_answer(&mut self, id: QueryId, waker: &Waker) -> Option<Result<Answer, DnsError>> {
        match self.lookups.remove(&id)? {
            Lookup::Done(result) => Some(result),
            Lookup::Waits(before) => {
                // It is not dropped here: with it a task might go, and its sockets, which want the hub.
                self.woken.extend(before.filter(|before| !before.will_wake(waker)));
                self.lookups.insert(id, Lookup::Waits(Some(waker.clone())));
                None
            }
        }
    }

    /// Nobody wants to know any more.
    pub(crate) fn cancel_lookup(&mut self, id: QueryId) {
        if let Some(Lookup::Waits(waker)) = self.lookups.remove(&id) {
            self.woken.extend(waker);
            self.shard.cancel_query(id);
        }
    }

    /// A place for somebody who sleeps.
    pub(crate) fn sleep(&mut self, until: Instant) -> (u32, TimerId) {
        let sleeper = self.sleepers.insert(None) as u32;
        (sleeper, self.sleeps.insert(until, sleeper))
    }

    /// Whether the time has come. If not, the waker is called when it has.
    pub(crate) fn poll_sleep(&mut self, (sleeper, timer): (u32, TimerId), waker: &Waker) -> bool {
        // Expired timers are no more.
        if self.fault.is_some() || self.sleeps.deadline_of(timer).is_none() {
            return true;
        }
        if let Some(place) = self.sleepers.get_mut(sleeper as usize) {
            let before = place.replace(waker.clone());
            self.woken.extend(before.filter(|before| !before.will_wake(waker)));
        }
        false
    }

    /// Nobody sleeps there any more.
    pub(crate) fn cancel_sleep(&mut self, (sleeper, timer): (u32, TimerId)) {
        self.sleeps.cancel(timer);
        if let Some(waker) = self.sleepers.try_remove(sleeper as usize) {
            self.woken.extend(waker);
        }
    }
}

/// So many wait at one socket, beside the first, before those that have given up are sorted out.
const CROWD_LEN: usize = 64;
/// How often that is done at most: a crowd that does wait is woken in vain.
const CROWD_INTERVAL: Duration = Duration::from_secs(1);
