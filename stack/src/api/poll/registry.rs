//! Which socket has which token, timers, and what is told when.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smoltcp::time::{Duration, Instant};

use super::event::{Event, ListenerId, Source, TcpId, Token, UdpId};
use crate::api::local::message_of;
use crate::shard::room::Shortage;
use crate::shard::{Shard, SocketId};
use crate::timer::{TimerId, Wheel};

/// The sockets of a shard that somebody polls, and timers.
#[derive(Debug)]
pub struct Registry {
    /// By the number of a socket.
    places: Vec<Option<Place>>,
    timers: Wheel<Token>,
    /// Sockets that have something to send as soon as there is room for datagrams on the way out.
    wants_outbox: Vec<SocketId>,
    /// The same beside what waits for neighbours, and what the first of them was refused for.
    wants_neighbors: (Vec<SocketId>, Shortage),
    /// Events of sockets that are not ours, while ours are served.
    strangers: Vec<SocketId>,
    /// What was accepted last in the call of a handler.
    accepted: Option<TcpId>,
    /// [`Sockets::stop`] was called.
    is_stopped: bool,
    /// Why nothing works any more.
    pub(super) fault: Option<io::ErrorKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    id: SocketId,
    token: Token,
    kind: Kind,
    /// The application has shut down reading: what has come can still be read, and then it is the end.
    has_stopped_reading: bool,
    /// It is in `wants_outbox`.
    wants_outbox: bool,
    /// It is in `wants_neighbors`.
    wants_neighbors: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Listener,
    Tcp,
    Udp,
}

/// The sockets of a shard, lent for a call.
#[derive(Debug)]
pub struct Sockets<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) registry: &'a mut Registry,
}

impl Registry {
    /// Without sockets. `now` is a time of the shard's clock.
    pub fn new(now: Instant) -> Self {
        Self {
            places: Vec::new(),
            timers: Wheel::new(now),
            wants_outbox: Vec::new(),
            wants_neighbors: (Vec::new(), Shortage::Outbox),
            strangers: Vec::new(),
            accepted: None,
            is_stopped: false,
            fault: None,
        }
    }

    /// The sockets of this registry, which are all of one shard.
    pub fn sockets<'a>(&'a mut self, shard: &'a mut Shard) -> Sockets<'a> {
        Sockets { shard, registry: self }
    }

    /// Calls `handler` for everything that has happened, as far as a turn may take. To be called once in each turn, between what
    /// comes and what goes. Returns when to be called again even if nothing comes. Events of sockets that are not of
    /// this registry are left for others.
    ///
    /// A handler that panics ends there, which is logged, and its connection is closed: what the closure itself
    /// has borrowed is to be fit for that.
    pub fn serve(
        &mut self,
        shard: &mut Shard,
        mut handler: impl FnMut(&mut Sockets<'_>, Event),
    ) -> Option<Instant> {
        self.tell_room(shard);
        let has_left = self.serve_all(shard, &mut handler);
        for id in self.strangers.drain(..) {
            shard.sockets.give_back(id);
        }
        if has_left {
            return Some(shard.now());
        }
        // Frames leave behind this, and with them there may be room.
        let wants_room = !self.wants_outbox.is_empty() || !self.wants_neighbors.0.is_empty();
        let look = wants_room.then(|| shard.now() + ROOM_LOOK_INTERVAL);
        [look, self.next_deadline()].into_iter().flatten().min()
    }

    /// Calls the handler for what has happened. True: there may be more than a turn takes.
    pub(super) fn serve_all(
        &mut self,
        shard: &mut Shard,
        handler: &mut impl FnMut(&mut Sockets<'_>, Event),
    ) -> bool {
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.next(shard) else { return false };
            self.call(shard, event, handler);
        }
        true
    }

    /// Nobody else is there to take their events.
    pub(super) fn forget_strangers(&mut self) {
        self.strangers.clear();
    }

    /// Calls the handler of an event. If it panics, its connection ends and nothing else.
    pub(super) fn call(
        &mut self,
        shard: &mut Shard,
        event: Event,
        handler: &mut impl FnMut(&mut Sockets<'_>, Event),
    ) {
        self.accepted = None;
        let mut sockets = Sockets { shard, registry: self };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler(&mut sockets, event))) {
            log::error!("a handler has panicked: {}", message_of(panic.as_ref()));
            sockets.forgive(event.source);
        }
    }

    /// The next thing that has happened.
    pub(super) fn next(&mut self, shard: &mut Shard) -> Option<Event> {
        while let Some(event) = shard.next_event() {
            let id = event.socket;
            if let Some(&Some(place)) = self.places.get(id.index() as usize)
                && place.id == id
            {
                return Some(event_of(shard, &place));
            }
            self.strangers.push(id);
        }
        let (_, token) = self.timers.pop_expired(shard.now())?;
        Some(Event::new(token, Source::Timer))
    }

    /// When the first timer is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Tells those who wait for room that there is some. To be called when frames have left, or in each turn.
    pub(super) fn tell_room(&mut self, shard: &mut Shard) {
        if !self.wants_outbox.is_empty() && shard.may_be_over(Shortage::Outbox) {
            for id in std::mem::take(&mut self.wants_outbox) {
                if let Some(place) = self.place_mut(id) {
                    place.wants_outbox = false;
                    shard.sockets.mark_ready(id);
                }
            }
        }
        let (wants, refused_for) = &mut self.wants_neighbors;
        if !wants.is_empty() && shard.may_be_over(*refused_for) {
            for id in std::mem::take(wants) {
                if let Some(place) = self.place_mut(id) {
                    place.wants_neighbors = false;
                    shard.sockets.mark_ready(id);
                }
            }
        }
    }

    /// Takes back [`Sockets::stop`].
    pub(super) fn take_stop(&mut self) -> bool {
        std::mem::take(&mut self.is_stopped)
    }

    fn place_mut(&mut self, id: SocketId) -> Option<&mut Place> {
        self.places.get_mut(id.index() as usize)?.as_mut().filter(|place| place.id == id)
    }

    fn place(&self, id: SocketId) -> Option<&Place> {
        self.places.get(id.index() as usize)?.as_ref().filter(|place| place.id == id)
    }
}

/// What can be done with a socket now.
fn event_of(shard: &Shard, place: &Place) -> Event {
    let id = place.id;
    match place.kind {
        Kind::Udp => {
            let readable = shard.udp_socket(id).is_some_and(|socket| socket.readable());
            let writable = shard.has_room_for_datagrams();
            Event { readable, writable, ..Event::new(place.token, Source::Udp(UdpId(id))) }
        }
        Kind::Listener => {
            let readable = shard.tcp_readiness(id).readable;
            Event { readable, ..Event::new(place.token, Source::Listener(ListenerId(id))) }
        }
        Kind::Tcp => {
            let readiness = shard.tcp_readiness(id);
            Event {
                token: place.token,
                source: Source::Tcp(TcpId(id)),
                readable: readiness.readable,
                writable: readiness.writable,
                connected: readiness.connected,
                peer_finished: readiness.peer_finished,
                closed: readiness.closed,
                failure: if readiness.closed { shard.tcp_failure(id) } else { None },
            }
        }
    }
}

impl Sockets<'_> {
    /// Time of this turn, on the clock by which timers are set.
    pub fn now(&self) -> Instant {
        self.shard.now()
    }

    /// The shard below, for what has no name here.
    pub fn shard(&mut self) -> &mut Shard {
        self.shard
    }

    /// Another token from now on. `false`: there is no such socket.
    pub fn set_token(&mut self, socket: impl Into<SocketId>, token: Token) -> bool {
        let place = self.registry.place_mut(socket.into());
        place.map(|place| place.token = token).is_some()
    }

    /// The token of a socket.
    pub fn token(&self, socket: impl Into<SocketId>) -> Option<Token> {
        self.registry.place(socket.into()).map(|place| place.token)
    }

    /// Tells of this socket once more, in the next turn, with what can be done then: for who has left something in it. It is
    /// not waited for that; who says it each time without doing anything keeps the loop busy.
    pub fn again(&mut self, socket: impl Into<SocketId>) {
        let id = socket.into();
        if self.registry.place(id).is_some() {
            self.shard.sockets.mark_ready(id);
        }
    }

    /// [`set_token`](Self::set_token) and [`again`](Self::again): an event comes with what can be done.
    pub fn register(&mut self, socket: impl Into<SocketId>, token: Token) -> bool {
        let id = socket.into();
        self.again(id);
        self.set_token(id, token)
    }

    /// Closes a socket of any kind, as dropping a handle of std does: what was written is still sent (but see
    /// [`Linger`](crate::tcp::config::Linger)), and what has come to a connection and was not read makes it a reset. What waits at
    /// a listener is reset.
    pub fn close(&mut self, socket: impl Into<SocketId>) {
        let id = socket.into();
        if self.registry.place(id).is_some() {
            self.registry.places[id.index() as usize] = None;
        }
        self.shard.close(id);
    }

    /// Sets a timer: an event with this token comes then. A time that has passed is due at once.
    pub fn set_timer(&mut self, token: Token, at: Instant) -> TimerId {
        self.registry.timers.insert(at, token)
    }

    /// Moves a timer. `false`: it has been told of or cancelled.
    pub fn move_timer(&mut self, timer: TimerId, at: Instant) -> bool {
        self.registry.timers.reschedule(timer, at)
    }

    /// Takes a timer back. `false`: it has been told of or cancelled.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.registry.timers.cancel(timer).is_some()
    }

    /// Ends [`Poll::run`](super::Poll::run); what was sent in this turn still leaves.
    pub fn stop(&mut self) {
        self.registry.is_stopped = true;
    }

    pub(super) fn put(&mut self, id: SocketId, kind: Kind, token: Token) {
        let places = &mut self.registry.places;
        let index = id.index() as usize;
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        places[index] = Some(Place {
            id,
            token,
            kind,
            has_stopped_reading: false,
            wants_outbox: false,
            wants_neighbors: false,
        });
    }

    /// What all calls say when the interface has gone.
    pub(super) fn check(&self) -> io::Result<()> {
        self.registry.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    pub(super) fn remember_accepted(&mut self, id: TcpId) {
        self.registry.accepted = Some(id);
    }

    pub(super) fn stop_reading(&mut self, id: SocketId) {
        if let Some(place) = self.registry.place_mut(id) {
            place.has_stopped_reading = true;
        }
    }

    pub(super) fn has_stopped_reading(&self, id: SocketId) -> bool {
        self.registry.place(id).is_some_and(|place| place.has_stopped_reading)
    }

    /// There was no room for a datagram: an event comes when there is.
    pub(super) fn want_room(&mut self, id: SocketId) {
        let shortage = self.shard.shortage();
        let registry = &mut *self.registry;
        let place = registry.places.get_mut(id.index() as usize).and_then(Option::as_mut);
        let Some(place) = place.filter(|place| place.id == id) else { return };
        match shortage {
            Shortage::Outbox => {
                if !std::mem::replace(&mut place.wants_outbox, true) {
                    registry.wants_outbox.push(id);
                }
            }
            Shortage::Neighbors { .. } => {
                let (wants, refused_for) = &mut registry.wants_neighbors;
                // What has come free since the first one was refused is for all.
                if wants.is_empty() {
                    *refused_for = shortage;
                }
                if !std::mem::replace(&mut place.wants_neighbors, true) {
                    wants.push(id);
                }
            }
        }
    }

    /// Closes what a handler has left behind when it panicked: its connection, or the one that it had just accepted.
    fn forgive(&mut self, source: Source) {
        match (source, self.registry.accepted.take()) {
            (Source::Tcp(id), _) => self.close(id),
            (Source::Listener(listener), Some(id)) => {
                self.close(id);
                // Others may wait behind it.
                self.again(listener);
            }
            _ => {}
        }
    }
}

/// How often it is looked whether there is room for datagrams, if there was none.
const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Events that one turn takes; what is left comes first in the next one.
const EVENTS_PER_TURN: usize = 1_024;
