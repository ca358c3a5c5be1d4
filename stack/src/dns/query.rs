//! Questions on their way to servers, and what is known of the servers.

use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};

use super::config::TIMEOUT_MAX;
use super::message::Question;
use super::{Config, DnsError, Name, QueryId, ServerSnapshot, SlotId};

/// A question in flight, with everybody who waits for its end.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) question: Question,
    pub(super) waiters: Vec<QueryId>,
    /// The name that is asked for now: behind aliases it is another one.
    pub(super) asked: Name,
    pub(super) aliases: usize,
    /// The shortest of the aliases.
    pub(super) ttl_max: u32,
    /// The servers in the order in which they are asked.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) attempts: u32,
    pub(super) last_error: DnsError,
    pub(super) sent: Try,
}

/// A message to a server.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) slot: SlotId,
    pub(super) server: SocketAddr,
    pub(super) id: u16,
    pub(super) port: u16,
    pub(super) deadline: Instant,
    /// As in the message: with random case, if it is on.
    pub(super) name: Vec<u8>,
    pub(super) has_edns: bool,
    /// Whether the driver has got the message, and so the port.
    pub(super) is_sent: bool,
    /// Datagrams for the port that were no answer.
    pub(super) strangers: u32,
}

impl Query {
    /// The server whose turn it is.
    pub(super) fn server(&self) -> Option<SocketAddr> {
        // There are at most 8.
        let count = self.servers.len() as u32;
        self.servers.get(self.attempts.checked_rem(count)? as usize).copied()
    }

    /// Whether every server was asked as often as it may be.
    pub(super) fn is_exhausted(&self, config: &Config) -> bool {
        self.attempts >= config.attempts.saturating_mul(self.servers.len() as u32)
    }

    /// How long the server whose turn it is may take.
    pub(super) fn timeout(&self, config: &Config) -> Duration {
        let round = self.attempts.checked_div(self.servers.len() as u32).unwrap_or(0);
        // At most 30 s times 2^5.
        (config.timeout * (1 << round.min(5))).min(TIMEOUT_MAX)
    }
}

/// A name server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    answers: u64,
    timeouts: u64,
    failures: u64,
    /// Tries without a useful answer, one after the other.
    in_a_row: u32,
    avoided_until: Option<Instant>,
    plain_until: Option<Instant>,
}

impl Server {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            answers: 0,
            timeouts: 0,
            failures: 0,
            in_a_row: 0,
            avoided_until: None,
            plain_until: None,
        }
    }

    pub(super) fn note_answer(&mut self) {
        self.answers += 1;
        self.in_a_row = 0;
        self.avoided_until = None;
    }

    pub(super) fn note_timeout(&mut self, now: Instant) {
        self.timeouts += 1;
        self.note_trouble(now);
    }

    pub(super) fn note_failure(&mut self, now: Instant) {
        self.failures += 1;
        self.note_trouble(now);
    }

    /// The server does not know EDNS. It may be replaced by one that does, so this is not for ever.
    pub(super) fn note_no_edns(&mut self, now: Instant) {
        self.plain_until = Some(now + PLAIN_TIME);
    }

    pub(super) fn has_edns(&self, now: Instant) -> bool {
        self.plain_until.is_none_or(|until| until <= now)
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| until > now)
    }

    pub(super) fn snapshot(&self) -> ServerSnapshot {
        ServerSnapshot {
            address: self.address,
            answers: self.answers,
            timeouts: self.timeouts,
            failures: self.failures,
            avoided_until: self.avoided_until,
            has_edns: self.plain_until.is_none(),
        }
    }

    fn note_trouble(&mut self, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row >= TROUBLES_MAX {
            self.avoided_until = Some(now + AVOIDED_TIME);
        }
    }
}

/// So many tries in vain, one after the other, and the others are asked first.
const TROUBLES_MAX: u32 = 3;
const AVOIDED_TIME: Duration = Duration::from_secs(30);
const PLAIN_TIME: Duration = Duration::from_secs(15 * 60);
