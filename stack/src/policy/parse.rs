//! The text of rules, both ways.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::{FromStr, SplitWhitespace};

use ipnet::IpNet;

use super::{Action, AttemptKind, Protocol, RULES_MAX, Rate, Rule, Rules, Unit};

/// What is wrong with the text of rules. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {word}: {accepted}")]
pub struct RulesError {
    /// Which line, from 1.
    pub line: usize,
    /// The word that is wrong, in backquotes; or that the line ends too early.
    pub word: String,
    /// What is accepted in its place.
    pub accepted: String,
}

/// A word, or where one is missing, and what is accepted instead.
struct Wrong(Option<String>, String);

impl Wrong {
    fn new(word: &str, accepted: impl fmt::Display) -> Self {
        // A file that is none of rules may have anything in it.
        let mut shown: String = word.chars().take(WORD_SHOWN_MAX).collect();
        if shown.len() < word.len() {
            shown.push('…');
        }
        Self(Some(shown.escape_debug().to_string()), accepted.to_string())
    }
}

impl FromStr for Rules {
    type Err = RulesError;

    fn from_str(text: &str) -> Result<Self, RulesError> {
        let mut default = None;
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at = |Wrong(word, accepted)| {
                let word = word.map_or_else(|| "it ends too early".to_owned(), |word| format!("`{word}`"));
                RulesError { line: index + 1, word, accepted }
            };
            let line = line.split_once('#').map_or(line, |(rule, _)| rule);
            let mut words = line.split_whitespace();
            match words.next() {
                None => {}
                Some("default") => parse_default(&mut words, &mut default).map_err(at)?,
                Some(word) if rules.len() >= RULES_MAX => {
                    return Err(at(Wrong::new(
                        word,
                        format_args!("{RULES_MAX} rules are accepted, no more"),
                    )));
                }
                Some(word) => rules.push(parse_rule(word, &mut words).map_err(at)?),
            }
        }
        Ok(Self::new(default.unwrap_or(Action::Deny), rules))
    }
}

fn parse_default(words: &mut SplitWhitespace<'_>, default: &mut Option<Action>) -> Result<(), Wrong> {
    let action = parse_action(next(words, ACTIONS)?, ACTIONS)?;
    if default.replace(action).is_some() {
        return Err(Wrong::new("default", "one line with it is accepted"));
    }
    match words.next() {
        Some(word) => Err(Wrong::new(word, "nothing more on this line is accepted")),
        None => Ok(()),
    }
}

fn parse_rule(action: &str, words: &mut SplitWhitespace<'_>) -> Result<Rule, Wrong> {
    let action = parse_action(action, "allow, deny, reject or default is accepted")?;
    let word = next(words, KINDS)?;
    let kind = match word {
        "listen" => AttemptKind::Listen,
        "connect" => AttemptKind::Connect,
        "accept" => AttemptKind::Accept,
        _ => return Err(Wrong::new(word, KINDS)),
    };
    let mut rule = Rule::new(action, kind);
    rule.protocol = parse_protocol(next(words, PROTOCOLS)?, kind)?;
    let mut burst = None;
    let mut seen: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        let accepted = accepted_of(action, kind);
        if seen.contains(&word) {
            return Err(Wrong::new(word, "it is accepted once in a rule"));
        }
        if !accepted.contains(&word) {
            let last = accepted.last().copied().unwrap_or_default();
            let others = accepted.split_last().map_or(String::new(), |(_, others)| others.join(", "));
            return Err(Wrong::new(word, format_args!("{others} or {last} is accepted here")));
        }
        seen.push(word);
        match word {
            "from" | "to" => rule.remote = parse_prefixes(next(words, PREFIX)?)?,
            "on" => rule.local = parse_prefixes(next(words, PREFIX)?)?,
            "port" => rule.ports = parse_ports(next(words, PORTS)?)?,
            "rate" => rule.rate = Some(parse_rate(next(words, RATE)?)?),
            "burst" => burst = Some((word, parse_number(next(words, NUMBER)?)?)),
            _ => rule.per_source = Some(parse_number(next(words, NUMBER)?)?),
        }
    }
    match (&mut rule.rate, burst) {
        (Some(rate), Some((_, burst))) => rate.burst = burst,
        (None, Some((word, _))) => return Err(Wrong::new(word, "it is accepted with rate only")),
        (_, None) => {}
    }
    Ok(rule)
}

/// What may stand behind the protocol.
fn accepted_of(action: Action, kind: AttemptKind) -> Vec<&'static str> {
    let remote = match kind {
        AttemptKind::Accept => Some("from"),
        AttemptKind::Connect => Some("to"),
        AttemptKind::Listen => None,
    };
    let limits = ["rate", "burst"].into_iter().filter(|_| action == Action::Allow);
    let is_counted = action == Action::Allow && kind == AttemptKind::Accept;
    let per_source = is_counted.then_some("per-source");
    remote.into_iter().chain(["on", "port"]).chain(limits).chain(per_source).collect()
}

fn next<'a>(words: &mut SplitWhitespace<'a>, accepted: &str) -> Result<&'a str, Wrong> {
    words.next().ok_or_else(|| Wrong(None, accepted.to_owned()))
}

fn parse_action(word: &str, accepted: &str) -> Result<Action, Wrong> {
    match word {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        "reject" => Ok(Action::Reject),
        _ => Err(Wrong::new(word, accepted)),
    }
}

fn parse_protocol(word: &str, kind: AttemptKind) -> Result<Option<Protocol>, Wrong> {
    match (word, kind) {
        ("tcp", _) => Ok(Some(Protocol::Tcp)),
        ("udp", AttemptKind::Listen | AttemptKind::Connect) => Ok(Some(Protocol::Udp)),
        ("any", _) => Ok(None),
        (_, AttemptKind::Accept) => Err(Wrong::new(word, "tcp or any is accepted: UDP does not accept")),
        _ => Err(Wrong::new(word, PROTOCOLS)),
    }
}

fn parse_prefixes(word: &str) -> Result<Vec<IpNet>, Wrong> {
    if word == "any" {
        return Ok(Vec::new());
    }
    parse_list(word, |item| {
        let prefix = item.parse::<IpNet>().ok();
        let prefix = prefix.or_else(|| item.parse().ok().map(|address: std::net::IpAddr| address.into()));
        let prefix = prefix.ok_or_else(|| Wrong::new(item, PREFIX))?;
        if prefix.trunc() == prefix {
            Ok(prefix)
        } else {
            Err(Wrong::new(item, format_args!("bits behind the prefix; {} is accepted", prefix.trunc())))
        }
    })
}

fn parse_ports(word: &str) -> Result<Vec<RangeInclusive<u16>>, Wrong> {
    if word == "any" {
        return Ok(Vec::new());
    }
    parse_list(word, |item| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let port = |text: &str| parse_digits(text).and_then(|port| u16::try_from(port).ok());
        match (port(first), port(last)) {
            (Some(first), Some(last)) if 0 < first && first <= last => Ok(first..=last),
            _ => Err(Wrong::new(item, PORTS)),
        }
    })
}

fn parse_list<T>(word: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    if word.split(',').nth(LIST_MAX).is_some() {
        return Err(Wrong::new(word, format_args!("a list of {LIST_MAX} is accepted, no more")));
    }
    word.split(',').map(parse).collect()
}

fn parse_rate(word: &str) -> Result<Rate, Wrong> {
    let wrong = || Wrong::new(word, RATE);
    let (attempts, unit) = word.split_once('/').ok_or_else(wrong)?;
    let attempts = parse_number(attempts).map_err(|_| wrong())?;
    let unit = match unit {
        "s" => Unit::Second,
        "m" => Unit::Minute,
        "h" => Unit::Hour,
        _ => return Err(wrong()),
    };
    Ok(Rate { attempts, unit, burst: attempts })
}

fn parse_number(word: &str) -> Result<u32, Wrong> {
    let number = parse_digits(word).filter(|number| (1..=NUMBER_MAX).contains(number));
    number.ok_or_else(|| Wrong::new(word, NUMBER))
}

/// Digits and nothing else: no sign.
fn parse_digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "default {}", self.default_action())?;
        self.rules().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, kind, protocol, remote, local, ports, rate, per_source } = self;
        write!(f, "{action} {kind} ")?;
        match protocol {
            Some(protocol) => write!(f, "{protocol}")?,
            None => f.write_str("any")?,
        }
        let prefix = |prefix: &IpNet| match prefix.prefix_len() == prefix.max_prefix_len() {
            true => prefix.addr().to_string(),
            false => prefix.to_string(),
        };
        let remote_word = if *kind == AttemptKind::Accept { "from" } else { "to" };
        write_list(f, remote_word, remote.iter().map(prefix))?;
        write_list(f, "on", local.iter().map(prefix))?;
        let range = |ports: &RangeInclusive<u16>| match ports.start() == ports.end() {
            true => ports.start().to_string(),
            false => format!("{}-{}", ports.start(), ports.end()),
        };
        write_list(f, "port", ports.iter().map(range))?;
        if let Some(Rate { attempts, unit, burst }) = rate {
            write!(f, " rate {attempts}/{unit}")?;
            if burst != attempts {
                write!(f, " burst {burst}")?;
            }
        }
        per_source.map_or(Ok(()), |max| write!(f, " per-source {max}"))
    }
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    word: &str,
    items: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    if items.len() == 0 {
        return Ok(());
    }
    write!(f, " {word} {}", items.collect::<Vec<_>>().join(","))
}

const ACTIONS: &str = "allow, deny or reject is accepted";
const KINDS: &str = "listen, connect or accept is accepted";
const PROTOCOLS: &str = "tcp, udp or any is accepted";
const PREFIX: &str = "any, an address or a prefix such as 10.0.0.0/8 is accepted";
const PORTS: &str = "a port, or FIRST-LAST, is accepted: 1 to 65535";
const RATE: &str = "NUMBER/s, /m or /h is accepted: 1 to 1000000";
const NUMBER: &str = "1 to 1000000 is accepted";
const NUMBER_MAX: u32 = 1_000_000;
/// Items of a list.
const LIST_MAX: usize = 64;
/// Characters of a word that is wrong.
const WORD_SHOWN_MAX: usize = 40;
