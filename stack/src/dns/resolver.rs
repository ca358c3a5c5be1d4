//! The resolver: from names to questions, from questions to servers, and back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::time::{Duration, Instant};

use super::cache::{Cache, Known};
use super::lookup::{Found, Lookup, candidates, is_of_kind};
use super::message::{self, ALIASES_MAX, Question, Reply};
use super::query::{Query, Server, Try};
use super::{
    Answer, Config, DnsError, Event, Hosts, Kind, Name, QueryId, QuerySnapshot, ResolveError, ServerSnapshot,
    SlotId, Source, Transmit,
};
use crate::observe::reason::DropReason;
use crate::random::Random;

/// A stub resolver. See the [module](super).
#[derive(Debug)]
pub struct Resolver {
    config: Config,
    random: Random,
    cache: Cache,
    servers: Vec<Server>,
    /// The server to begin with, if they rotate.
    first_server: usize,
    lookups: BTreeMap<QueryId, Lookup>,
    queries: BTreeMap<Question, Query>,
    /// Whose the ports are.
    ports: BTreeMap<u16, Question>,
    /// Of every try, with its port.
    deadlines: BTreeSet<(Instant, u16)>,
    to_send: VecDeque<u16>,
    closed: VecDeque<u16>,
    events: VecDeque<Event>,
    next_id: u64,
    next_slot: u64,
}

impl Resolver {
    /// A resolver that knows nothing but its configuration.
    pub fn new(config: Config, random: Random, _now: Instant) -> Self {
        let config = config.bounded();
        Self {
            cache: Cache::new(config.cache_entries_max),
            servers: config.servers.iter().map(|&address| Server::new(address)).collect(),
            config,
            random,
            first_server: 0,
            lookups: BTreeMap::new(),
            queries: BTreeMap::new(),
            ports: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            to_send: VecDeque::new(),
            closed: VecDeque::new(),
            events: VecDeque::new(),
            next_id: 0,
            next_slot: 0,
        }
    }

    /// Looks a name up. The end comes as an [`Event`], at once if nobody need be asked.
    ///
    /// # Errors
    /// It is no name, there are too many lookups, or there is no server.
    pub fn resolve(&mut self, now: Instant, name: &str, kind: Kind) -> Result<QueryId, ResolveError> {
        let lookups_max = self.config.lookups_max;
        if self.lookups.len() + self.events.len() >= lookups_max {
            return Err(ResolveError::TooMany { lookups_max });
        }
        let literal = name.parse::<IpAddr>().ok();
        let parsed = match literal {
            Some(address) => Name::reverse(address),
            None => {
                let wrong = |error| ResolveError::Name { name: name.to_owned(), error };
                Name::parse(name).map_err(wrong)?
            }
        };
        if let Some(result) = self.known_locally(kind, literal, &parsed) {
            let id = self.next_id();
            self.events.push_back(Event { id, result });
            return Ok(id);
        }
        if self.servers.is_empty() {
            return Err(ResolveError::NoServer);
        }
        let is_absolute = literal.is_some() || name.ends_with('.') || kind == Kind::Ptr;
        let id = self.next_id();
        let lookup = Lookup::new(kind, candidates(&self.config, &parsed, is_absolute));
        self.advance(now, id, lookup);
        Ok(id)
    }

    /// Nobody waits for the end of this lookup any more: there will be no event.
    pub fn cancel(&mut self, id: QueryId) {
        self.events.retain(|event| event.id != id);
        let Some(lookup) = self.lookups.remove(&id) else { return };
        for part in lookup.parts.iter().filter(|part| part.result.is_none()) {
            let Some(query) = self.queries.get_mut(&part.question) else { continue };
            query.waiters.retain(|waiter| *waiter != id);
            if query.waiters.is_empty()
                && let Some(query) = self.queries.remove(&part.question)
            {
                self.close(&query.sent);
            }
        }
    }

    /// Other servers, from DHCP or a router. Questions on their way stay with those that they were sent to.
    pub fn set_servers(&mut self, servers: &[SocketAddr]) {
        self.config.servers = servers.to_vec();
        self.config = self.config.clone().bounded();
        let mut old = std::mem::take(&mut self.servers);
        for &address in &self.config.servers {
            let known = old.iter().position(|server| server.address == address);
            let server = known.map_or_else(|| Server::new(address), |at| old.swap_remove(at));
            self.servers.push(server);
        }
    }

    /// Another search list, from DHCP or a router.
    pub fn set_search(&mut self, search: Vec<Name>) {
        self.config.search = search;
        self.config = self.config.clone().bounded();
    }

    /// Another hosts file.
    pub fn set_hosts(&mut self, hosts: Hosts) {
        self.config.hosts = hosts;
    }

    /// Forgets all answers, for instance because the network is another one.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    /// A datagram came for a port of ours.
    ///
    /// # Errors
    /// It answers no question of ours: [`DropReason::DnsIgnored`].
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local_port: u16,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let question = self.ports.get(&local_port).ok_or(DropReason::DnsIgnored)?.clone();
        let query = self.queries.get_mut(&question).ok_or(DropReason::DnsIgnored)?;
        let sent = &mut query.sent;
        let record_type = question.record_type;
        // The scope and flow label of an IPv6 address are not part of who it is.
        let is_answer = sent.is_sent
            && (from.ip(), from.port()) == (sent.server.ip(), sent.server.port())
            && message::matches(payload, sent.id, &sent.name, record_type, self.config.random_case);
        if !is_answer {
            sent.strangers += 1;
            if sent.strangers >= STRANGERS_MAX {
                self.renew(now, &question);
            }
            return Err(DropReason::DnsIgnored);
        }
        let reply = message::read(payload, &query.asked, record_type);
        self.handle_reply(now, &question, reply);
        Ok(())
    }

    /// The server's host says that nobody is there (ICMP port unreachable, or another error about what was
    /// sent from this port): the next one is asked at once.
    pub fn handle_unreachable(&mut self, now: Instant, local_port: u16) {
        let Some(question) = self.ports.get(&local_port).cloned() else { return };
        if let Some(server) = self.server_of(&question) {
            server.note_failure(now);
        }
        self.next_try(now, &question);
    }

    /// The port of a [`Transmit`] cannot be bound: the message will come again with another one.
    pub fn handle_bind_failure(&mut self, now: Instant, local_port: u16) {
        let Some(question) = self.ports.get(&local_port).cloned() else { return };
        if let Some(query) = self.queries.get_mut(&question) {
            // There is nothing to be let go.
            query.sent.is_sent = false;
        }
        self.renew(now, &question);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        // A try that begins here ends later than now, so this ends.
        while let Some(&(deadline, port)) = self.deadlines.first()
            && deadline <= now
        {
            let Some(question) = self.ports.get(&port).cloned() else {
                self.deadlines.pop_first();
                continue;
            };
            if let Some(server) = self.server_of(&question) {
                server.note_timeout(now);
            }
            self.next_try(now, &question);
        }
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Transmit> {
        while let Some(port) = self.to_send.pop_front() {
            let query = self.ports.get(&port).and_then(|question| self.queries.get_mut(question));
            // A try may be over before it was sent.
            let Some(query) = query.filter(|query| query.sent.port == port && !query.sent.is_sent) else {
                continue;
            };
            query.sent.is_sent = true;
            let sent = &query.sent;
            let bytes_max = sent.has_edns.then_some(self.config.payload_bytes_max);
            return Some(Transmit {
                query: sent.slot,
                local_port: port,
                server: sent.server,
                payload: message::write(sent.id, &sent.name, query.question.record_type, bytes_max),
            });
        }
        None
    }

    /// The next end of a lookup.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Resolver::poll_event`] has something.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Ports of messages that were sent and are not waited for any more: to be let go. Each is named once.
    pub fn closed_ports(&mut self) -> impl Iterator<Item = u16> + '_ {
        self.closed.drain(..)
    }

    /// When [`Resolver::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Lookups that have no end yet.
    pub fn lookups_len(&self) -> usize {
        self.lookups.len()
    }

    /// Answers that are remembered; some may be too old by now.
    pub fn cache_len(&self) -> usize {
        self.cache.len()
    }

    /// The questions on their way.
    pub fn queries(&self) -> impl Iterator<Item = QuerySnapshot> + '_ {
        self.queries.values().map(|query| QuerySnapshot {
            name: query.asked.to_string(),
            record_type: query.question.record_type,
            server: query.sent.server,
            local_port: query.sent.port,
            attempts: query.attempts + 1,
            deadline: query.sent.deadline,
        })
    }

    /// The servers, best first.
    pub fn servers(&self) -> impl Iterator<Item = ServerSnapshot> + '_ {
        self.servers.iter().map(Server::snapshot)
    }

    fn next_id(&mut self) -> QueryId {
        self.next_id += 1;
        QueryId(self.next_id)
    }

    /// What is known without asking: literals, the hosts file, names that mean the same everywhere.
    fn known_locally(
        &self,
        kind: Kind,
        literal: Option<IpAddr>,
        name: &Name,
    ) -> Option<Result<Answer, DnsError>> {
        let hosts = &self.config.hosts;
        if let (Kind::Ptr, Some(address)) = (kind, literal) {
            let names: Vec<_> = hosts.names(address).iter().map(Name::to_string).collect();
            return match names.is_empty() {
                false => Some(Ok(local(name, Vec::new(), names, Source::Hosts))),
                true if address.is_loopback() => {
                    Some(Ok(local(name, Vec::new(), vec!["localhost".to_owned()], Source::Special)))
                }
                true => None,
            };
        }
        let of_kind = |addresses: &[IpAddr], source, name: String| {
            let addresses: Vec<_> = addresses.iter().copied().filter(|a| is_of_kind(kind, *a)).collect();
            let answer = || Answer { name, ..local_answer(addresses.clone(), Vec::new(), source) };
            if addresses.is_empty() { Err(DnsError::NoData) } else { Ok(answer()) }
        };
        if let Some(address) = literal {
            return Some(of_kind(&[address], Source::Literal, address.to_string()));
        }
        let in_file = of_kind(hosts.addresses(name), Source::Hosts, name.to_string());
        if in_file.is_ok() {
            return Some(in_file);
        }
        //= rfc6761#6.3
        //# Name resolution APIs and libraries SHOULD recognize localhost names as
        //# special and SHOULD always return the IP loopback address for address
        //# queries and negative responses for all other query types.
        if name.is_below("localhost") {
            let loopback = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            return Some(of_kind(&loopback, Source::Special, name.to_string()));
        }
        //= rfc6761#6.4
        //# Name resolution APIs and libraries SHOULD recognize "invalid" names as
        //# special and SHOULD always return immediate negative responses.
        name.is_below("invalid").then_some(Err(DnsError::NotFound))
    }

    /// Goes on with a lookup until it waits for servers, or has its end.
    fn advance(&mut self, now: Instant, id: QueryId, mut lookup: Lookup) {
        while lookup.next() {
            for part in &mut lookup.parts {
                part.result = self.ask(now, &part.question, id);
            }
            if let Some(result) = lookup.conclude() {
                self.events.push_back(Event { id, result });
                return;
            }
            if lookup.is_waiting() {
                self.lookups.insert(id, lookup);
                return;
            }
        }
        self.events.push_back(Event { id, result: Err(lookup.last_word()) });
    }

    /// The answer of the cache; `None`: a question is on its way, and the lookup will hear of its end.
    fn ask(&mut self, now: Instant, question: &Question, id: QueryId) -> Option<Result<Found, DnsError>> {
        if let Some((known, expires)) = self.cache.get(now, question) {
            return Some(match known {
                Known::Records { name, data } => {
                    Ok(Found { name: name.clone(), data: data.clone(), expires, is_truncated: false })
                }
                Known::Nothing { is_name_error: true } => Err(DnsError::NotFound),
                Known::Nothing { is_name_error: false } => Err(DnsError::NoData),
            });
        }
        if let Some(query) = self.queries.get_mut(question) {
            query.waiters.push(id);
            return None;
        }
        let servers = self.server_order(now);
        let Some(&server) = servers.first() else { return Some(Err(DnsError::NoServer)) };
        let mut query = Query {
            question: question.clone(),
            waiters: vec![id],
            asked: question.name.clone(),
            aliases: 0,
            ttl_max: u32::MAX,
            servers,
            attempts: 0,
            last_error: DnsError::TimedOut,
            sent: Try::nothing(server, now),
        };
        let deadline = now + query.timeout(&self.config);
        if !self.send(now, &mut query, deadline) {
            return Some(Err(DnsError::NoServer));
        }
        self.queries.insert(question.clone(), query);
        None
    }

    /// The servers as they are to be asked: those in trouble last.
    fn server_order(&mut self, now: Instant) -> Vec<SocketAddr> {
        let count = self.servers.len();
        if self.config.rotate && count > 0 {
            self.first_server = (self.first_server + 1) % count;
        }
        let mut order: Vec<_> = self.servers.iter().collect();
        order.rotate_left(self.first_server.min(count));
        order.sort_by_key(|server| server.is_avoided(now));
        order.into_iter().map(|server| server.address).collect()
    }

    fn server_of(&mut self, question: &Question) -> Option<&mut Server> {
        let address = self.queries.get(question)?.sent.server;
        self.servers.iter_mut().find(|server| server.address == address)
    }

    /// Makes a message to the server whose turn it is, from a new port and with a new identifier. `false`:
    /// there is no free port.
    fn send(&mut self, now: Instant, query: &mut Query, deadline: Instant) -> bool {
        let (Some(server), Some(port)) = (query.server(), self.free_port()) else { return false };
        let known = self.servers.iter().find(|known| known.address == server);
        let has_edns = known.is_none_or(|known| known.has_edns(now)) && self.config.payload_bytes_max > 512;
        let name = match self.config.random_case {
            true => message::random_case(&query.asked, &mut self.random),
            false => query.asked.as_bytes().to_vec(),
        };
        self.next_slot += 1;
        query.sent = Try {
            slot: SlotId(self.next_slot),
            server,
            //= rfc5452#9.2
            //# Use an unpredictable query ID for outgoing queries, utilizing the
            //# full range available (0-65535).
            id: self.random.u16(),
            port,
            deadline,
            name,
            has_edns,
            is_sent: false,
            strangers: 0,
        };
        self.ports.insert(port, query.question.clone());
        self.deadlines.insert((deadline, port));
        self.to_send.push_back(port);
        true
    }

    /// A port that no question has.
    fn free_port(&mut self) -> Option<u16> {
        let (first, last) = (*self.config.ports.start(), *self.config.ports.end());
        let count = u32::from(last - first) + 1;
        let is_free = |port: &u16| !self.ports.contains_key(port) && !self.closed.contains(port);
        for _ in 0..RANDOM_PORTS_MAX {
            // Below `count`, so within the range.
            let port = first + self.random.below(count) as u16;
            if is_free(&port) {
                return Some(port);
            }
        }
        // The range is nearly full.
        (first..=last).find(is_free)
    }

    /// A try is over.
    fn close(&mut self, sent: &Try) {
        self.ports.remove(&sent.port);
        self.deadlines.remove(&(sent.deadline, sent.port));
        if sent.is_sent {
            self.closed.push_back(sent.port);
        } else {
            self.to_send.retain(|port| *port != sent.port);
        }
    }

    /// The same server again, from another port: within the time that it has left.
    fn renew(&mut self, now: Instant, question: &Question) {
        let Some(deadline) = self.queries.get(question).map(|query| query.sent.deadline) else { return };
        self.send_again(now, question, |_| deadline);
    }

    /// The next server, or the end.
    fn next_try(&mut self, now: Instant, question: &Question) {
        let Some(query) = self.queries.get_mut(question) else { return };
        query.attempts += 1;
        if query.is_exhausted(&self.config) {
            let error = query.last_error;
            self.finish(now, question, Err(error));
            return;
        }
        let timeout = query.timeout(&self.config);
        self.send_again(now, question, |_| now + timeout);
    }

    fn send_again(&mut self, now: Instant, question: &Question, deadline: impl Fn(&Query) -> Instant) {
        let Some(mut query) = self.queries.remove(question) else { return };
        self.close(&query.sent);
        let deadline = deadline(&query);
        let is_sent = self.send(now, &mut query, deadline);
        self.queries.insert(question.clone(), query);
        if !is_sent {
            self.finish(now, question, Err(DnsError::NoServer));
        }
    }

    fn handle_reply(&mut self, now: Instant, question: &Question, reply: Reply) {
        if let Reply::Failure { rcode } = reply {
            self.handle_failure(now, question, rcode);
            return;
        }
        if reply == Reply::Malformed {
            self.handle_failure(now, question, SERVFAIL);
            return;
        }
        if let Some(server) = self.server_of(question) {
            server.note_answer();
        }
        let Some(query) = self.queries.get_mut(question) else { return };
        let ttl_max = query.ttl_max;
        match reply {
            Reply::Records { name, data, ttl, is_truncated } => {
                let expires = self.expires(now, ttl.min(ttl_max), self.config.ttl_max);
                if !is_truncated && expires > now {
                    let known = Known::Records { name: name.clone(), data: data.clone() };
                    self.cache.insert(question.clone(), known, expires);
                }
                self.finish(now, question, Ok(Found { name, data, expires, is_truncated }));
            }
            Reply::Negative { is_truncated: true, .. } | Reply::Alias { is_truncated: true, .. } => {
                self.finish(now, question, Err(DnsError::Truncated));
            }
            Reply::Negative { is_name_error, ttl, .. } => {
                //= rfc2308#5
                //# Negative responses without SOA records SHOULD NOT be cached as there
                //# is no way to prevent the negative responses looping forever between a
                //# pair of servers even with a short TTL.
                if let Some(ttl) = ttl {
                    let expires = self.expires(now, ttl.min(ttl_max), self.config.negative_ttl_max);
                    if expires > now {
                        self.cache.insert(question.clone(), Known::Nothing { is_name_error }, expires);
                    }
                }
                let error = if is_name_error { DnsError::NotFound } else { DnsError::NoData };
                self.finish(now, question, Err(error));
            }
            Reply::Alias { name, aliases, ttl, .. } => {
                query.aliases += aliases;
                query.ttl_max = ttl_max.min(ttl);
                query.asked = name;
                if query.aliases > ALIASES_MAX {
                    self.finish(now, question, Err(DnsError::AliasLoop));
                } else {
                    let timeout = query.timeout(&self.config);
                    self.send_again(now, question, |_| now + timeout);
                }
            }
            _ => self.finish(now, question, Err(DnsError::AliasLoop)),
        }
    }

    /// The server cannot or will not.
    fn handle_failure(&mut self, now: Instant, question: &Question, rcode: u8) {
        let Some(query) = self.queries.get_mut(question) else { return };
        let may_be_edns = query.sent.has_edns && matches!(rcode, FORMERR | NOTIMP);
        query.last_error = DnsError::ServerFailure { rcode };
        if let Some(server) = self.server_of(question) {
            if may_be_edns {
                server.note_no_edns(now);
                self.renew(now, question);
                return;
            }
            server.note_failure(now);
        }
        self.next_try(now, question);
    }

    fn expires(&self, now: Instant, ttl: u32, ttl_max: Duration) -> Instant {
        let ttl = Duration::from_secs(ttl.into()).max(self.config.ttl_min).min(ttl_max);
        now + ttl
    }

    /// The end of a question: everybody who waits for it hears of it.
    fn finish(&mut self, now: Instant, question: &Question, result: Result<Found, DnsError>) {
        let Some(query) = self.queries.remove(question) else { return };
        self.close(&query.sent);
        for id in query.waiters {
            let Some(mut lookup) = self.lookups.remove(&id) else { continue };
            lookup.take(question, &result);
            if lookup.is_waiting() {
                self.lookups.insert(id, lookup);
            } else if let Some(result) = lookup.conclude() {
                self.events.push_back(Event { id, result });
            } else {
                self.advance(now, id, lookup);
            }
        }
    }
}

impl Try {
    /// Before the first.
    fn nothing(server: SocketAddr, now: Instant) -> Self {
        Self {
            slot: SlotId(0),
            server,
            id: 0,
            port: 0,
            deadline: now,
            name: Vec::new(),
            has_edns: false,
            is_sent: false,
            strangers: 0,
        }
    }
}

fn local(name: &Name, addresses: Vec<IpAddr>, names: Vec<String>, source: Source) -> Answer {
    Answer { name: name.to_string(), ..local_answer(addresses, names, source) }
}

fn local_answer(addresses: Vec<IpAddr>, names: Vec<String>, source: Source) -> Answer {
    Answer {
        name: String::new(),
        addresses,
        names,
        is_truncated: false,
        missing: None,
        source,
        expires: None,
    }
}

const FORMERR: u8 = 1;
const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
/// So many wrong datagrams for a port, and the question moves to another one: somebody is guessing.
const STRANGERS_MAX: u32 = 32;
/// Ports that are drawn before the range is searched.
const RANDOM_PORTS_MAX: usize = 16;
