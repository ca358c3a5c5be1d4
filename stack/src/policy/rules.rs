//! Rules by address and port, with limits: the first one that matches decides.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use smoltcp::time::Instant;

use super::limits::{Bucket, SOURCES_MAX, Sources};
use super::{Action, Attempt, AttemptKind, Policy, PolicyError, Protocol, Rate};

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of what it matches.
    pub action: Action,
    /// What it matches.
    pub kind: AttemptKind,
    /// By which protocol; `None`: by any.
    pub protocol: Option<Protocol>,
    /// Where the peer is; empty: anywhere. Nowhere, of who listens.
    pub remote: Vec<IpNet>,
    /// On which addresses of ours; empty: on any. Who listens at all addresses is at the unspecified one.
    pub local: Vec<IpNet>,
    /// The port that is served: ours, or the peer's if we connect. Empty: any.
    pub ports: Vec<RangeInclusive<u16>>,
    /// How often it allows; what comes too often is denied.
    pub rate: Option<Rate>,
    /// How many connections a source may have by this rule (an IPv4 address, 64 bits of an IPv6 address); others are
    /// denied. Of [`AttemptKind::Accept`] only.
    pub per_source: Option<u32>,
}

impl Rule {
    /// A rule for everything of a kind.
    pub fn new(action: Action, kind: AttemptKind) -> Self {
        let (protocol, rate, per_source) = (None, None, None);
        Self { action, kind, protocol, remote: vec![], local: vec![], ports: vec![], rate, per_source }
    }

    /// Whether it is about this attempt.
    pub fn matches(&self, attempt: &Attempt) -> bool {
        self.kind == attempt.kind
            && self.protocol.is_none_or(|protocol| protocol == attempt.protocol)
            && matches_any(&self.ports, |ports| ports.contains(&port_of(attempt)))
            && matches_any(&self.remote, |prefix| {
                attempt.remote.is_some_and(|remote| prefix.contains(&remote.ip()))
            })
            && matches_any(&self.local, |prefix| prefix.contains(&attempt.local.ip()))
    }
}

/// An empty list matches everything.
fn matches_any<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

/// The port that is served.
fn port_of(attempt: &Attempt) -> u16 {
    match (attempt.kind, attempt.remote) {
        (AttemptKind::Connect, Some(remote)) => remote.port(),
        _ => attempt.local.port(),
    }
}

/// A rule and how much of its rate is left.
#[derive(Debug)]
struct Limited {
    rule: Rule,
    bucket: Bucket,
}

/// Rules, and what their limits have counted. They are written as text, one rule a line, and read by [`str::parse`]:
///
/// ```text
/// # What no rule matches, and what is done while nobody can decide; deny, if this is not said.
/// default deny
/// allow  accept  tcp from 10.0.0.0/8,fd00::/8 port 80,443,8000-8100
/// reject accept  tcp from any port 22
/// allow  accept  tcp from any port 80 rate 100/s burst 200 per-source 64
/// allow  listen  any on 10.0.0.2 port 80
/// allow  connect tcp to 192.0.2.0/24 port 443 rate 10/m
/// ```
///
/// `allow`, `deny` or `reject`; `listen`, `connect` or `accept`; `tcp`, `udp` or `any`; and then, in any order: `from`
/// (of accept) or `to` (of connect) the peer's address, `on` ours, `port`, and of what is allowed `rate` (a number
/// for each `s`, `m` or `h`), `burst` and `per-source`. The first rule that matches decides: who is over its limits is
/// denied, and later rules are not asked.
///
/// To decide takes as many steps as there are rules, [`RULES_MAX`] at most.
///
/// ```
/// use wirestack::policy::{Action, Rules};
///
/// let rules: Rules = "default deny\nallow accept tcp port 80 per-source 8".parse()?;
/// assert_eq!((rules.default_action(), rules.rules().count()), (Action::Deny, 1));
/// let wrong = "allow accept tcp port http".parse::<Rules>().expect_err("no name");
/// assert_eq!(wrong.to_string(), "line 1: `http`: a port, or FIRST-LAST, is accepted: 1 to 65535");
/// # Ok::<(), wirestack::policy::RulesError>(())
/// ```
#[derive(Debug)]
pub struct Rules {
    default: Action,
    rules: Vec<Limited>,
    sources: Sources,
}

impl Rules {
    /// These rules; those behind the first [`RULES_MAX`] are left out.
    pub fn new(default: Action, rules: impl IntoIterator<Item = Rule>) -> Self {
        let limited = |rule| Limited { rule, bucket: Bucket::new() };
        let rules = rules.into_iter().take(RULES_MAX).map(limited).collect();
        Self { default, rules, sources: Sources::new(SOURCES_MAX) }
    }

    /// What becomes of what no rule matches.
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// The rules, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|limited| &limited.rule)
    }

    /// For people: the sources of rules with `per-source`, each with the number of its rule (from 0) and how many
    /// connections it has. It walks the table.
    pub fn sources(&self) -> impl Iterator<Item = (usize, IpNet, u32)> {
        self.sources.iter()
    }

    /// Sources that have connections, of which there are [`SOURCES_MAX`] at most.
    pub fn sources_len(&self) -> usize {
        self.sources.len()
    }

    /// The rule that decides.
    fn position(&self, attempt: &Attempt) -> Option<usize> {
        self.rules.iter().position(|limited| limited.rule.matches(attempt))
    }
}

impl Policy for Rules {
    fn decide(&mut self, now: Instant, attempt: &Attempt) -> Result<Action, PolicyError> {
        let position = self.position(attempt);
        let found = position.and_then(|position| Some((position, self.rules.get_mut(position)?)));
        let Some((position, Limited { rule, bucket })) = found else { return Ok(self.default) };
        if rule.action != Action::Allow {
            return Ok(rule.action);
        }
        let source = counted_source(rule, attempt);
        if let Some((source, max)) = source
            && !self.sources.begin(position, source, max)
        {
            // It takes nothing of the rate: others have that.
            return Ok(Action::Deny);
        }
        if rule.rate.is_none_or(|rate| bucket.take(&rate, now)) {
            return Ok(Action::Allow);
        }
        if let Some((source, _)) = source {
            self.sources.end(position, source);
        }
        Ok(Action::Deny)
    }

    fn ended(&mut self, _now: Instant, attempt: &Attempt) {
        // The rules are the same, so it is by the same one.
        let Some(position) = self.position(attempt) else { return };
        let Some(limited) = self.rules.get(position) else { return };
        if let Some((source, _)) = counted_source(&limited.rule, attempt) {
            self.sources.end(position, source);
        }
    }
}

/// Whose connections are counted, and how many there may be.
fn counted_source(rule: &Rule, attempt: &Attempt) -> Option<(IpAddr, u32)> {
    let source = attempt.remote.map(|remote: SocketAddr| remote.ip());
    source.zip(rule.per_source).filter(|_| attempt.kind == AttemptKind::Accept)
}

/// Rules of several shards: rates and numbers hold over all of them. A lock, which is held for the time of one decision.
///
/// A shard that ends with connections left tells of their ends if it is told to forget the policy
/// ([`Shard::clear_policy`](crate::shard::Shard::clear_policy)); if it is just dropped, they stay counted.
#[derive(Debug, Clone)]
pub struct SharedRules(Arc<Mutex<Rules>>);

impl SharedRules {
    /// These rules, to be cloned for each shard.
    pub fn new(rules: Rules) -> Self {
        Self(Arc::new(Mutex::new(rules)))
    }

    /// Looks at the rules and what they have counted. No shard can decide meanwhile.
    pub fn look<R>(&self, look: impl FnOnce(&Rules) -> R) -> R {
        look(&self.0.lock())
    }
}

impl Policy for SharedRules {
    fn decide(&mut self, now: Instant, attempt: &Attempt) -> Result<Action, PolicyError> {
        self.0.lock().decide(now, attempt)
    }

    fn ended(&mut self, now: Instant, attempt: &Attempt) {
        self.0.lock().ended(now, attempt);
    }
}

/// Rules of one policy: each attempt may look at all of them.
pub const RULES_MAX: usize = 1_000;

#[cfg(test)]
mod tests;
