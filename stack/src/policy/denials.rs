//! What was denied is logged once: a peer that knocks a million times is one line, and a million peers are some lines a
//! minute.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::{Action, Attempt, AttemptKind, Protocol};

/// Who wanted what: the other end, or our own of who listens; and the port that is served.
type Key = (IpAddr, AttemptKind, Protocol, u16);

/// What was logged, as far as it is remembered.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    known: HashSet<Key>,
    /// In the order of their coming.
    order: VecDeque<Key>,
    /// When the minute began, and lines of it.
    minute_from: Option<Instant>,
    lines: usize,
    /// What was not logged in it because there were so many.
    unsaid: u64,
}

impl Denials {
    /// Something was denied. The line to be logged, if there is one.
    pub(crate) fn on_denied(&mut self, now: Instant, attempt: &Attempt, action: Action) -> Option<String> {
        let key = key_of(attempt);
        if self.known.contains(&key) {
            return None;
        }
        let unsaid = self.may_speak(now)?;
        if self.order.len() >= KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(key);
        self.order.push_back(key);
        let word = if action == Action::Reject { "rejected" } else { "denied" };
        Some(format!("policy: {attempt}: {word}; the same again is counted and not logged{unsaid}"))
    }

    /// The policy has failed. The line to be logged, if there is one.
    pub(crate) fn on_failure(
        &mut self,
        now: Instant,
        attempt: &Attempt,
        reason: &str,
        default: Action,
    ) -> Option<String> {
        let unsaid = self.may_speak(now)?;
        let reason = reason.escape_debug();
        Some(format!("policy: {attempt}: it cannot decide ({reason}): {default}, by default{unsaid}"))
    }

    /// Whether there is a line left in this minute; what to say of those for which there was none before.
    fn may_speak(&mut self, now: Instant) -> Option<String> {
        let is_over = self.minute_from.is_none_or(|from| now >= from + MINUTE);
        if !is_over && self.lines >= LINES_PER_MINUTE {
            self.unsaid += 1;
            return None;
        }
        if is_over {
            (self.minute_from, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        match std::mem::take(&mut self.unsaid) {
            0 => Some(String::new()),
            unsaid => Some(format!(" ({unsaid} times others before, not logged)")),
        }
    }
}

fn key_of(attempt: &Attempt) -> Key {
    let Attempt { kind, protocol, local, remote } = *attempt;
    let address = remote.unwrap_or(local).ip();
    let port = match (kind, remote) {
        (AttemptKind::Connect, Some(remote)) => remote.port(),
        _ => local.port(),
    };
    (address, kind, protocol, port)
}

const MINUTE: Duration = Duration::from_secs(60);
/// Lines in the log, of different denials.
const LINES_PER_MINUTE: usize = 20;
/// Denials that are remembered: some tens of KB.
const KNOWN_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn accept(source: u32, from_port: u16, port: u16) -> Attempt {
        Attempt {
            kind: AttemptKind::Accept,
            protocol: Protocol::Tcp,
            local: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), port),
            remote: Some(SocketAddr::new(Ipv4Addr::from(source).into(), from_port)),
        }
    }

    #[test]
    fn a_source_is_logged_once_for_each_port() {
        let (mut denials, now) = (Denials::default(), Instant::from_secs(1));
        for (attempt, expected) in [
            (accept(1, 5_000, 80), true),
            (accept(1, 5_001, 80), false),
            (accept(1, 5_002, 81), true),
            (accept(2, 5_000, 80), true),
            (accept(2, 5_000, 80), false),
            (Attempt { kind: AttemptKind::Connect, ..accept(2, 5_000, 80) }, true),
            (Attempt { kind: AttemptKind::Connect, ..accept(2, 5_000, 81) }, false),
        ] {
            let line = denials.on_denied(now, &attempt, Action::Deny);
            assert_eq!(line.is_some(), expected, "{attempt}");
        }
    }

    #[test]
    fn many_sources_are_some_lines_a_minute_and_no_more_memory() {
        let mut denials = Denials::default();
        let mut lines = Vec::new();
        for minute in 0..100 {
            let now = Instant::from_secs(1 + 60 * minute);
            for source in 0..50 {
                let attempt = accept(minute as u32 * 50 + source, 1, 80);
                lines.extend(denials.on_denied(now, &attempt, Action::Reject));
            }
        }
        assert_eq!(lines.len(), 100 * LINES_PER_MINUTE);
        assert!(lines[0].contains("accept tcp from 0.0.0.0:1 on 10.0.0.2:80: rejected"), "{}", lines[0]);
        assert!(lines[LINES_PER_MINUTE].ends_with("(30 times others before, not logged)"));
        assert_eq!((denials.known.len(), denials.order.len()), (KNOWN_MAX, KNOWN_MAX));
    }

    #[test]
    fn failures_are_logged_in_one_line() {
        let mut denials = Denials::default();
        let line = denials.on_failure(Instant::ZERO, &accept(1, 1, 1), "no\nanswer", Action::Deny);
        let line = line.expect("it is the first");
        assert!(line.contains("(no\\nanswer): deny, by default") && line.lines().count() == 1, "{line}");
    }
}
