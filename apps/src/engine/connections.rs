//! The connections of a program on our own engine.
//!
//! They are served by events only: a connection costs something when it has something, and nothing otherwise, so the
//! cost of an event is the same with ten connections and with ten thousand. What does not fit is not forgotten: a
//! handler that finds no room is called again when there is, and a listener that finds no place for a connection
//! leaves it in the queue of the stack, and takes it when another one has ended.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use smoltcp::time::Instant;
use wirestack::shard::{Shard, SocketId, TcpListen};
use wirestack::tcp::ListenError;
use wirestack::timer::{TimerId, Wheel};

use crate::cli::TcpArgs;
use crate::stream::{Handler, Listening, Stream};

#[cfg(test)]
mod tests;

/// All connections of a program.
#[derive(Debug)]
pub(crate) struct Connections {
    /// By the number of the socket.
    places: Vec<Option<Place>>,
    listeners: Vec<SocketId>,
    /// When handlers want to be called.
    deadlines: Wheel<SocketId>,
    len: usize,
    len_max: usize,
    /// A listener has a connection for which there was no place.
    holds_back: bool,
    /// There was more to do than a turn may take.
    is_behind: bool,
    counters: Counters,
}

/// What is counted here and not by the stack.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    accepted: u64,
    held_back: u64,
}

/// Who has a socket.
#[derive(Debug)]
enum Place {
    Listener(Listening),
    Connection(Connection),
}

struct Connection {
    peer: SocketAddr,
    handler: Box<dyn Handler>,
    timer: Option<TimerId>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet, and so many at most.
    pub(crate) fn new(len_max: usize, now: Instant) -> Self {
        Self {
            places: Vec::new(),
            listeners: Vec::new(),
            deadlines: Wheel::new(now),
            len: 0,
            len_max,
            holds_back: false,
            is_behind: false,
            counters: Counters::default(),
        }
    }

    /// Listens on a port, on all addresses of both IP versions.
    ///
    /// # Errors
    /// The port is in use, or there is no room.
    pub(crate) fn listen(
        &mut self,
        shard: &mut Shard,
        listening: Listening,
        tcp: &TcpArgs,
    ) -> Result<(), ListenError> {
        let options = super::options(&shard.tcp_default_options(), tcp.congestion);
        let id = shard.tcp_listen(TcpListen {
            backlog: tcp.backlog().into(),
            options,
            ..TcpListen::new(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listening.port))
        })?;
        self.put(id, Place::Listener(listening));
        self.listeners.push(id);
        Ok(())
    }

    /// Serves all connections that have something. To be called in each turn.
    pub(crate) fn serve(&mut self, shard: &mut Shard) {
        self.is_behind = !self.take_events(shard);
        for _ in 0..EVENTS_PER_TURN {
            let Some((_, id)) = self.deadlines.pop_expired(shard.now()) else { break };
            if let Some(Some(Place::Connection(connection))) = self.places.get_mut(id.index() as usize) {
                connection.timer = None;
            }
            self.ready(shard, id);
        }
        if self.holds_back && self.len < self.len_max {
            self.holds_back = false;
            for position in 0..self.listeners.len() {
                self.accept(shard, self.listeners[position]);
            }
        }
    }

    /// False: there are more than a turn may take.
    fn take_events(&mut self, shard: &mut Shard) -> bool {
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = shard.next_event() else { return true };
            match self.places.get(event.socket.index() as usize) {
                Some(Some(Place::Listener(_))) => self.accept(shard, event.socket),
                Some(Some(Place::Connection(_))) => self.ready(shard, event.socket),
                // Of datagrams, for example, whose owner looks in each turn.
                _ => {}
            }
        }
        false
    }

    /// When to be called again even if nothing comes.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_behind { Some(now) } else { self.deadlines.next_deadline() }
    }

    /// Takes what waits at a listener, as far as there are places.
    fn accept(&mut self, shard: &mut Shard, listener: SocketId) {
        loop {
            if self.len >= self.len_max {
                let waits = shard.tcp_readiness(listener).readable;
                self.counters.held_back += u64::from(waits && !self.holds_back);
                self.holds_back |= waits;
                return;
            }
            let Some(id) = shard.tcp_accept(listener) else { return };
            let Some(Some(Place::Listener(listening))) = self.places.get_mut(listener.index() as usize)
            else {
                return;
            };
            let Some((_, Some(peer))) = shard.tcp_ends(id) else {
                // It has ended before it was accepted.
                shard.close(id);
                continue;
            };
            let handler = (listening.accept)(peer);
            self.counters.accepted += 1;
            self.len += 1;
            self.put(id, Place::Connection(Connection { peer, handler, timer: None }));
            self.ready(shard, id);
        }
    }

    /// Lets the handler of a connection do what it can, and forgets the connection if that was the end of it.
    fn ready(&mut self, shard: &mut Shard, id: SocketId) {
        let Some(Some(Place::Connection(connection))) = self.places.get_mut(id.index() as usize) else {
            return;
        };
        let handler = &mut connection.handler;
        let called = catch_unwind(AssertUnwindSafe(|| handler.ready(&mut Lent { shard, id })));
        if called.is_err() {
            // What it has said on stderr is all that is known. Its connection ends, and nothing else.
            log::error!("{}: the handler of this connection has panicked", connection.peer);
            shard.tcp_abort(id);
        }
        if shard.tcp_readiness(id).closed {
            self.forget(shard, id);
            return;
        }
        let deadline = connection.handler.deadline();
        match (deadline, connection.timer) {
            (Some(deadline), Some(timer)) => {
                self.deadlines.reschedule(timer, deadline);
            }
            (Some(deadline), None) => connection.timer = Some(self.deadlines.insert(deadline, id)),
            (None, Some(timer)) => {
                self.deadlines.cancel(timer);
                connection.timer = None;
            }
            (None, None) => {}
        }
    }

    fn forget(&mut self, shard: &mut Shard, id: SocketId) {
        let place = self.places.get_mut(id.index() as usize).and_then(Option::take);
        let Some(Place::Connection(connection)) = place else { return };
        self.len -= 1;
        if let Some(timer) = connection.timer {
            self.deadlines.cancel(timer);
        }
        if log::log_enabled!(log::Level::Debug) {
            let end = shard.tcp_failure(id).map_or("closed".to_owned(), |failure| failure.to_string());
            let info = shard.tcp_info(id).map(|info| info.to_string()).unwrap_or_default();
            log::debug!("{}: {end}\n{info}", connection.peer);
        }
        shard.close(id);
    }

    fn put(&mut self, id: SocketId, place: Place) {
        let index = id.index() as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, || None);
        }
        self.places[index] = Some(place);
    }

    /// Connections that are served now.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Name and value of every count.
    pub(crate) fn named(&self) -> [(&'static str, u64); 2] {
        let Counters { accepted, held_back } = self.counters;
        [("accepted", accepted), ("held_back", held_back)]
    }
}

/// A connection of a shard, lent to its handler.
struct Lent<'a> {
    shard: &'a mut Shard,
    id: SocketId,
}

impl Stream for Lent<'_> {
    fn now(&self) -> Instant {
        self.shard.now()
    }

    fn room(&self) -> usize {
        self.shard.tcp_room(self.id)
    }

    fn unacknowledged(&self) -> usize {
        self.shard.tcp_info(self.id).map_or(0, |info| info.send_buffered as usize)
    }

    fn recv_with(&mut self, read: &mut dyn FnMut(&[u8]) -> usize) -> Option<usize> {
        let received = self.shard.tcp_recv_with(self.id, |bytes| {
            // Empty: the end of what the peer sends.
            let read = (!bytes.is_empty()).then(|| read(bytes).min(bytes.len()));
            (read.unwrap_or(0), read)
        });
        received.ok().flatten().flatten()
    }

    fn send_with(&mut self, write: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize> {
        let mut written = None;
        // Who has no connection any more has no room.
        let _ = self.shard.tcp_send_with(self.id, |room| {
            let len = write(room).min(room.len());
            written = Some(len);
            len
        });
        written
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.shard.tcp_send(self.id, bytes).unwrap_or(0)
    }

    fn peer_finished(&self) -> bool {
        let readiness = self.shard.tcp_readiness(self.id);
        readiness.closed || readiness.peer_finished && self.shard.tcp_readable(self.id) == 0
    }

    fn finish(&mut self) {
        self.shard.tcp_finish(self.id);
    }

    fn abort(&mut self) {
        self.shard.tcp_abort(self.id);
    }
}

/// Events that one turn takes; what is left comes first in the next one.
const EVENTS_PER_TURN: usize = 1_024;
