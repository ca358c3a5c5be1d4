//! What an application does with one connection: how much it sends, when, how fast it reads, how it ends.

use smoltcp::time::{Duration, Instant};
use wirestack::shard::{Shard, SocketId};
use wirestack::tcp::{Failure, RecvError, SendError};

use super::streams::{Entry, Side};
use crate::sim::Context;

/// When what is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    /// All of it, at once.
    AtOnce,
    /// All of it, when the peer has finished: a half-open pipe.
    AfterEnd,
    /// A request, and the next one when the response is there.
    Ask {
        /// Bytes of a request.
        request: u64,
        /// Bytes of a response.
        response: u64,
    },
    /// A response for every request.
    Answer {
        /// Bytes of a request.
        request: u64,
        /// Bytes of a response.
        response: u64,
    },
    /// So many bytes at a time, so long apart.
    Trickle {
        /// Bytes.
        bytes: u64,
        /// From one to the next.
        every: Duration,
    },
}

/// How fast it reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// All that there is.
    AtOnce,
    /// So many bytes at a time, so long apart.
    Slow {
        /// Bytes.
        bytes: usize,
        /// From one to the next.
        every: Duration,
    },
    /// Nothing for so long, then all.
    Late(Duration),
}

/// By which call it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// `tcp_send`.
    Copied,
    /// `tcp_send_with`.
    InPlace,
    /// `tcp_send_owned`.
    Owned,
}

/// What is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Bytes that are sent.
    pub send_bytes: u64,
    /// When.
    pub gate: Gate,
    /// By which call.
    pub writing: Writing,
    /// Bytes of one call, at most.
    pub write_max: usize,
    /// How fast it reads.
    pub reading: Reading,
    /// Whether it finishes when it has sent everything. If not, when the peer has.
    pub finishes_first: bool,
    /// It is reset after so many bytes were received.
    pub abort_after: Option<u64>,
}

impl Default for Plan {
    /// Reads all and finishes when the peer has.
    fn default() -> Self {
        Self {
            send_bytes: 0,
            gate: Gate::AtOnce,
            writing: Writing::Copied,
            write_max: 1 << 16,
            reading: Reading::AtOnce,
            finishes_first: false,
            abort_after: None,
        }
    }
}

impl Plan {
    /// Sends so many bytes, and finishes.
    pub fn send(bytes: u64) -> Self {
        Self { send_bytes: bytes, finishes_first: true, ..Self::default() }
    }

    /// Reads all and finishes when the peer has.
    pub fn sink() -> Self {
        Self::default()
    }

    /// Asks so many times, one after the other, and finishes.
    pub fn ask(times: u64, request: u64, response: u64) -> Self {
        let gate = Gate::Ask { request, response };
        Self { send_bytes: times * request, gate, finishes_first: true, ..Self::default() }
    }

    /// Answers, until the peer finishes.
    pub fn answer(request: u64, response: u64) -> Self {
        Self { send_bytes: u64::MAX, gate: Gate::Answer { request, response }, ..Self::default() }
    }
}

/// A connection of an application.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) id: SocketId,
    pub(super) entry: Entry,
    side: Side,
    plan: Plan,
    began: Instant,
    pub(super) sent: u64,
    pub(super) received: u64,
    has_seen_end: bool,
    has_finished: bool,
    /// When a slow one reads next.
    reads_at: Instant,
}

/// What came of a look at a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    /// It goes on: when its socket has something, or then.
    Goes(Option<Instant>),
    /// It is over, and the socket is closed.
    Over(Result<(), Failure>),
}

impl Flow {
    pub(super) fn new(id: SocketId, entry: Entry, side: Side, plan: Plan, now: Instant) -> Self {
        let reads_at = match plan.reading {
            Reading::Late(wait) => now + wait,
            _ => now,
        };
        Self {
            id,
            entry,
            side,
            plan,
            began: now,
            sent: 0,
            received: 0,
            has_seen_end: false,
            has_finished: false,
            reads_at,
        }
    }

    /// Does what can be done now.
    pub(super) fn drive(&mut self, shard: &mut Shard, context: &mut Context<'_>) -> Step {
        context.touched.push(self.id);
        let mut wakes = None;
        let done = self.read(shard, context, &mut wakes).and_then(|()| {
            self.write(shard, context, &mut wakes)?;
            if self.plan.abort_after.is_some_and(|bytes| self.received >= bytes) {
                shard.tcp_abort(self.id);
                return Err(Failure::Aborted);
            }
            let is_over = self.has_seen_end && self.has_finished && shard.tcp_readiness(self.id).closed;
            match shard.tcp_failure(self.id) {
                // What has come is read first, slowly if need be.
                Some(failure) if shard.tcp_readable(self.id) == 0 => Err(failure),
                _ => Ok(is_over),
            }
        });
        let outcome = match done {
            Ok(false) => return Step::Goes(wakes),
            Ok(true) => Ok(()),
            Err(failure) => Err(failure),
        };
        shard.close(self.id);
        context.ledger.tcp.over(&self.entry, self.side, outcome);
        Step::Over(outcome)
    }

    fn read(
        &mut self,
        shard: &mut Shard,
        context: &mut Context<'_>,
        wakes: &mut Option<Instant>,
    ) -> Result<(), Failure> {
        if context.now < self.reads_at {
            *wakes = Some(self.reads_at);
            return Ok(());
        }
        let mut budget = match self.plan.reading {
            Reading::Slow { bytes, .. } => bytes,
            _ => usize::MAX,
        };
        while !self.has_seen_end && budget > 0 {
            let (ledger, entry, side) = (&mut context.ledger.tcp, &self.entry, self.side);
            let got = shard.tcp_recv_with(self.id, |bytes| {
                let taken = &bytes[..bytes.len().min(budget)];
                ledger.received(entry, side, taken);
                (taken.len(), taken.len())
            });
            match got {
                Ok(None) => break,
                Ok(Some(0)) => {
                    self.has_seen_end = true;
                    context.ledger.tcp.ended(&self.entry, self.side);
                }
                Ok(Some(len)) => {
                    self.received += len as u64;
                    budget -= len;
                }
                Err(RecvError::Failed(failure)) => return Err(failure),
                Err(other) => panic!("{:?}: {other}", self.entry),
            }
        }
        if let Reading::Slow { every, .. } = self.plan.reading
            && budget == 0
        {
            self.reads_at = context.now + every;
            *wakes = Some(self.reads_at);
        }
        Ok(())
    }

    /// Bytes that may have been sent by now.
    fn allowed(&self, now: Instant, wakes: &mut Option<Instant>) -> u64 {
        let all = self.plan.send_bytes;
        match self.plan.gate {
            Gate::AtOnce => all,
            Gate::AfterEnd if self.has_seen_end => all,
            Gate::AfterEnd => 0,
            Gate::Ask { request, response } => all.min((self.received / response + 1) * request),
            Gate::Answer { request, response } => all.min(self.received / request * response),
            Gate::Trickle { bytes, every } => {
                let count = (now - self.began).total_micros() / every.total_micros();
                let allowed = all.min((count + 1) * bytes);
                if allowed < all {
                    let next = self.began + Duration::from_micros((count + 1) * every.total_micros());
                    *wakes = Some(wakes.map_or(next, |at| at.min(next)));
                }
                allowed
            }
        }
    }

    fn write(
        &mut self,
        shard: &mut Shard,
        context: &mut Context<'_>,
        wakes: &mut Option<Instant>,
    ) -> Result<(), Failure> {
        let allowed = self.allowed(context.now, wakes);
        while self.sent < allowed {
            let len = (allowed - self.sent).min(self.plan.write_max as u64) as usize;
            let bytes = context.ledger.tcp.next_bytes(&self.entry, self.side, len);
            let taken = match self.call(shard, bytes) {
                Ok(taken) => taken,
                Err(SendError::Failed(failure)) => return Err(failure),
                Err(other) => panic!("{:?}: {other}", self.entry),
            };
            context.ledger.tcp.sent(&self.entry, self.side, taken);
            self.sent += taken as u64;
            if taken == 0 {
                return Ok(());
            }
        }
        let is_all_sent = self.sent == self.plan.send_bytes || self.has_seen_end;
        let may_finish = self.plan.finishes_first || self.has_seen_end;
        if !self.has_finished && is_all_sent && may_finish {
            self.has_finished = true;
            context.ledger.tcp.finished(&self.entry, self.side);
            shard.tcp_finish(self.id);
        }
        Ok(())
    }

    fn call(&self, shard: &mut Shard, bytes: &[u8]) -> Result<usize, SendError> {
        match self.plan.writing {
            Writing::Copied => shard.tcp_send(self.id, bytes),
            Writing::InPlace => shard.tcp_send_with(self.id, |room| {
                let len = room.len().min(bytes.len());
                room[..len].copy_from_slice(&bytes[..len]);
                len
            }),
            Writing::Owned => {
                let refused = shard.tcp_send_owned(self.id, bytes.to_vec())?;
                Ok(if refused.is_some() { 0 } else { bytes.len() })
            }
        }
    }
}
