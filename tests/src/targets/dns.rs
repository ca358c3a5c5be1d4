//! A resolver, with servers that say anything.

use std::collections::BTreeSet;

use smoltcp::time::{Duration, Instant};
use wirestack::dns::{Config, Hosts, Kind, QueryId, ResolvConf, Resolver, Transmit};
use wirestack::random::Random;

/// A resolver with two servers, and a script: each step is a byte for its kind, a byte for a length, and that
/// many bytes.
///
/// Kind 0: the text is looked up. Kind 1: a datagram as it is. Kind 2: an answer to a message: flags, the
/// numbers of answers and other records, and the records. Kind 3: time passes. Kind 4: to the next deadline.
/// Kinds 5 to 7: an ICMP error, a port that is taken, a lookup that is cancelled. Other kinds: files are read.
pub fn dns(bytes: &[u8]) {
    let Some((&options, mut rest)) = bytes.split_first() else { return };
    let mut bed = Bed::new(options);
    while let [kind, len, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        bed.step(*kind, body);
        bed.turn();
    }
    // Nobody says anything more: everything ends.
    for _ in 0..2000 {
        let Some(deadline) = bed.resolver.next_deadline() else { break };
        bed.now = deadline;
        bed.turn();
    }
    assert_eq!(bed.resolver.next_deadline(), None);
    assert!(bed.waiting.is_empty() && bed.open.is_empty());
    assert_eq!(bed.resolver.lookups_len(), 0);
}

struct Bed {
    resolver: Resolver,
    now: Instant,
    waiting: BTreeSet<QueryId>,
    open: Vec<Transmit>,
}

impl Bed {
    fn new(options: u8) -> Self {
        let conf = "nameserver 10.0.0.1\nnameserver fd00::1\nsearch a.example b\n";
        let config = Config {
            random_case: options % 2 == 1,
            rotate: options / 2 % 2 == 1,
            cache_entries_max: CACHE_ENTRIES_MAX,
            lookups_max: LOOKUPS_MAX,
            ..ResolvConf::parse(conf).to_config()
        };
        let now = Instant::from_secs(1);
        let resolver = Resolver::new(config, Random::new(1), now);
        Self { resolver, now, waiting: BTreeSet::new(), open: Vec::new() }
    }

    fn step(&mut self, kind: u8, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let kinds = [Kind::A, Kind::Aaaa, Kind::Addresses, Kind::Ptr];
        let to = self.open.get(body.len() % self.open.len().max(1)).cloned();
        match (kind % 9, to) {
            (0, _) => {
                let kind = kinds[usize::from(kind / 9) % 4];
                match self.resolver.resolve(self.now, &text, kind) {
                    Ok(id) => assert!(self.waiting.insert(id)),
                    Err(error) => assert_eq!(error.to_string().lines().count(), 1),
                }
            }
            (1, Some(to)) => {
                let _ = self.resolver.handle_datagram(self.now, to.local_port, to.server, body);
            }
            (2, Some(to)) => {
                let answer = answer(&to, body);
                let _ = self.resolver.handle_datagram(self.now, to.local_port, to.server, &answer);
            }
            (3, _) => self.now += Duration::from_millis(body.len() as u64 * 40),
            (4, _) => self.now = self.resolver.next_deadline().map_or(self.now, |at| at.max(self.now)),
            (5, Some(to)) => self.resolver.handle_unreachable(self.now, to.local_port),
            (6, Some(to)) => {
                self.open.retain(|open| open.local_port != to.local_port);
                self.resolver.handle_bind_failure(self.now, to.local_port);
            }
            (7, _) => {
                if let Some(id) = self.waiting.pop_first() {
                    self.resolver.cancel(id);
                }
            }
            (8, _) => {
                ResolvConf::parse(&text);
                self.resolver.set_hosts(Hosts::parse(&text));
            }
            _ => {}
        }
    }

    fn turn(&mut self) {
        self.resolver.handle_timeout(self.now);
        assert!(self.resolver.next_deadline().is_none_or(|deadline| deadline > self.now));
        for port in self.resolver.closed_ports() {
            let before = self.open.len();
            self.open.retain(|transmit| transmit.local_port != port);
            assert_eq!(self.open.len() + 1, before, "a port that was in use, once");
        }
        while let Some(transmit) = self.resolver.poll_transmit(self.now) {
            assert!(self.open.iter().all(|open| open.local_port != transmit.local_port));
            self.open.push(transmit);
        }
        while let Some(event) = self.resolver.poll_event() {
            assert!(self.waiting.remove(&event.id), "each lookup ends once");
        }
        assert!(self.waiting.len() <= LOOKUPS_MAX && self.open.len() <= 2 * LOOKUPS_MAX);
        assert!(self.resolver.cache_len() <= CACHE_ENTRIES_MAX);
        assert_eq!(self.resolver.lookups_len(), self.waiting.len());
    }
}

/// The identifier and question of a message, and what the script says.
fn answer(to: &Transmit, body: &[u8]) -> Vec<u8> {
    let [high, low, answers, others, records @ ..] = body else { return body.to_vec() };
    // The record of EDNS at the end is no part of the question.
    let end = to.payload.len() - if to.payload[11] == 1 { 11 } else { 0 };
    let id = &to.payload[..2];
    [id, &[high | 0x80, *low, 0, 1, 0, *answers, 0, *others, 0, 0], &to.payload[12..end], records].concat()
}

/// Answers, aliases, refusals, silence.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, body: &[u8]| [&[kind, body.len() as u8][..], body].concat();
    let head = |kind: u8, len: u8| [0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, len];
    let a = [&head(1, 4)[..], &[192, 0, 2, 1]].concat();
    let aaaa = [&head(28, 16)[..], &[0xfd; 16]].concat();
    let alias = [&head(5, 4)[..], &[1, b'z', 0xc0, 12]].concat();
    let pointer = [&head(12, 3)[..], &[1, b'p', 0]].concat();
    let soa = [&head(6, 22)[..], &[0; 18], &[0, 0, 0, 9]].concat();
    let of = |flags: [u8; 2], answers: u8, others: u8, records: &[u8]| {
        step(2, &[&[flags[0], flags[1], answers, others], records].concat())
    };
    let next = step(4, &[]);
    vec![
        [&[0][..], &step(18, b"www.example"), &of([0x81, 0x80], 1, 0, &aaaa), &of([0x81, 0x80], 1, 0, &a)]
            .concat(),
        [&[1][..], &step(0, b"host"), &of([1, 0x83], 0, 1, &soa), &of([1, 0x80], 1, 0, &alias), &next, &next]
            .concat(),
        [&[2][..], &step(27, b"192.0.2.1"), &of([1, 0x81], 0, 0, &[]), &of([1, 0x80], 1, 0, &pointer)]
            .concat(),
        [&[3][..], &step(9, b"x."), &step(5, b""), &step(6, b""), &step(1, b"guess"), &step(7, b"")].concat(),
        [&[0][..], &step(8, b"10.0.0.9 a b # c\nnameserver ::1\noptions ndots:2"), &step(0, b"a")].concat(),
    ]
}

const LOOKUPS_MAX: usize = 8;
const CACHE_ENTRIES_MAX: usize = 8;
