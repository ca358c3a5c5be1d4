//! The ledger of connections: what was sent, what came, and how each end ended.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use wirestack::tcp::Failure;

use super::pattern;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who has begun it.
    Client,
    /// Who was there.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A connection of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Who has begun it.
    pub client: SocketAddr,
    /// Who was there.
    pub server: SocketAddr,
    /// How many were there before between the same ends.
    pub number: usize,
}

impl Entry {
    fn key(&self, side: Side) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self, side).hash(&mut hasher);
        hasher.finish()
    }
}

/// One end.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    sent: u64,
    has_finished: bool,
    received: u64,
    has_seen_end: bool,
    exists: bool,
    outcome: Option<Result<(), Failure>>,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Streams {
    connections: HashMap<(SocketAddr, SocketAddr), Vec<[End; 2]>>,
    /// Bytes that applications have received.
    pub received_bytes: u64,
}

fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

impl Streams {
    fn end(&mut self, entry: &Entry, side: Side) -> &mut End {
        let ends = self.connections.get_mut(&(entry.client, entry.server)).expect("it was begun");
        &mut ends[entry.number][side as usize]
    }

    /// A connection is begun.
    pub fn begin(&mut self, client: SocketAddr, server: SocketAddr) -> Entry {
        let (client, server) = (plain(client), plain(server));
        let all = self.connections.entry((client, server)).or_default();
        all.push([End { exists: true, ..End::default() }, End::default()]);
        Entry { client, server, number: all.len() - 1 }
    }

    /// A connection is accepted.
    ///
    /// # Panics
    /// If nobody has begun it, or it was accepted before.
    pub fn accept(&mut self, server: SocketAddr, client: SocketAddr) -> Entry {
        let (client, server) = (plain(client), plain(server));
        let all = self.connections.get_mut(&(client, server));
        let all = all.unwrap_or_else(|| panic!("{client} has not connected to {server}"));
        let number = all.len() - 1;
        let end = &mut all[number][Side::Server as usize];
        assert!(!end.exists, "{client} to {server} is accepted twice");
        end.exists = true;
        Entry { client, server, number }
    }

    /// Bytes that come next in what an end sends.
    pub fn next_bytes(&mut self, entry: &Entry, side: Side, len: usize) -> &'static [u8] {
        pattern::piece(entry.key(side), self.end(entry, side).sent, len)
    }

    /// So many of these were taken.
    pub fn sent(&mut self, entry: &Entry, side: Side, len: usize) {
        let end = self.end(entry, side);
        assert!(!end.has_finished, "{entry:?} {side:?}: sent after the end");
        end.sent += len as u64;
    }

    /// An end has finished sending.
    pub fn finished(&mut self, entry: &Entry, side: Side) {
        self.end(entry, side).has_finished = true;
    }

    /// Bytes have come to an end.
    ///
    /// # Panics
    /// If they are not those that come next in what the other end has sent.
    pub fn received(&mut self, entry: &Entry, side: Side, bytes: &[u8]) {
        let sent = self.end(entry, side.other()).sent;
        let end = self.end(entry, side);
        let from = end.received;
        end.received += bytes.len() as u64;
        let so_far = end.received;
        assert!(so_far <= sent, "{entry:?} {side:?}: {so_far} bytes came, {sent} were sent");
        if let Err(at) = pattern::check(entry.key(side.other()), from, bytes) {
            panic!("{entry:?} {side:?}: byte {at} is wrong, in a piece of {} from {from} on", bytes.len());
        }
        self.received_bytes += bytes.len() as u64;
    }

    /// An end has read to the end.
    ///
    /// # Panics
    /// If the other end has not finished there.
    pub fn ended(&mut self, entry: &Entry, side: Side) {
        let other = *self.end(entry, side.other());
        let end = self.end(entry, side);
        end.has_seen_end = true;
        let received = end.received;
        assert!(
            other.has_finished && other.sent == received,
            "{entry:?} {side:?}: the end came after {received} bytes, and the other end: {other:?}"
        );
    }

    /// An end is over.
    pub fn over(&mut self, entry: &Entry, side: Side, outcome: Result<(), Failure>) {
        let end = self.end(entry, side);
        assert!(end.outcome.is_none(), "{entry:?} {side:?} is over twice");
        end.outcome = Some(outcome);
    }

    /// Connections that were begun.
    pub fn len(&self) -> usize {
        self.connections.values().map(Vec::len).sum()
    }

    /// None was.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether both ends of every connection are over, as far as they exist.
    pub fn are_over(&self) -> bool {
        let is_over = |end: &End| !end.exists || end.outcome.is_some();
        self.connections.values().flatten().all(|ends| ends.iter().all(is_over))
    }

    /// What must hold at the end: all has arrived, or both ends hold an error (one that never existed holds any).
    ///
    /// # Errors
    /// The first connection of which that is not so.
    pub fn check_end(&self) -> Result<(), String> {
        for ((client, server), all) in &self.connections {
            for ends in all {
                check_pair(ends).map_err(|wrong| format!("{client} to {server}: {wrong}: {ends:?}"))?;
            }
        }
        Ok(())
    }

    /// Connections one of whose ends holds an error, in words.
    pub fn failed(&self) -> Vec<String> {
        let mut told = Vec::new();
        for ((client, server), all) in &self.connections {
            let failed = |ends: &&[End; 2]| ends.iter().any(|end| matches!(end.outcome, Some(Err(_))));
            told.extend(all.iter().filter(failed).map(|ends| format!("{client} to {server}: {ends:?}")));
        }
        told.sort_unstable();
        told
    }

    /// How many these are.
    pub fn failures(&self) -> usize {
        self.failed().len()
    }
}

fn check_pair(ends: &[End; 2]) -> Result<(), &'static str> {
    let outcomes = ends.map(|end| if end.exists { end.outcome } else { Some(Err(Failure::TimedOut)) });
    match outcomes {
        [None, _] | [_, None] => Err("an end is not over"),
        [Some(Ok(())), Some(Ok(()))] => {
            let is_whole =
                |from: &End, to: &End| from.has_finished && to.has_seen_end && from.sent == to.received;
            let [a, b] = ends;
            if is_whole(a, b) && is_whole(b, a) { Ok(()) } else { Err("not everything has arrived") }
        }
        [Some(Err(_)), Some(Err(_))] => Ok(()),
        // Who has everything and was told that the other end has everything cannot know more (the two armies).
        [Some(Ok(())), Some(Err(_))] if ends[0].received == ends[1].sent && ends[0].has_seen_end => Ok(()),
        [Some(Err(_)), Some(Ok(()))] if ends[1].received == ends[0].sent && ends[1].has_seen_end => Ok(()),
        _ => Err("one end holds an error, and the other one does not know"),
    }
}
