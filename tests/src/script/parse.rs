//! Scripts from text: header lines, and then events.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use super::build::End;
use super::call::{self, Call, CallResult};
use super::packet::{Kind, Layer, Packet, Value};
use super::prelude::Prelude;
use super::subject::SubjectKind;
use super::syntax;
use super::token::{Cursor, number, tokens};

/// A script, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The file, as it was named.
    pub name: String,
    /// What the subject is to be like.
    pub setup: Setup,
    /// Subjects that the script is not for, with the reason.
    pub skips: Vec<(SubjectKind, String)>,
    pub(super) events: Vec<Event>,
}

/// What a subject is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The subject.
    pub host: End,
    /// Who the script is.
    pub peer: End,
    /// Routers for everything else; the script answers for their hardware address, which is the peer's.
    pub gateways: Vec<IpAddr>,
    /// Bytes of the longest packet.
    pub mtu: u16,
    /// Settings of the kernel: name with dots, value.
    pub sysctls: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        let end = |last| End { mac: EthernetAddress([2, 0, 0, 0, 0, last]), ipv4: None, ipv6: None };
        Self { host: end(2), peer: end(1), gateways: Vec::new(), mtu: 1500, sysctls: Vec::new() }
    }
}

/// A line that something happens in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) when: When,
    /// The subject that it is for; `None`: all.
    pub(super) only: Option<SubjectKind>,
    pub(super) action: Action,
}

/// The time of an event, or the first and the last time at which it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// As soon as may be.
    Unsaid,
    /// After the event before.
    After(Duration, Duration),
    /// After the begin of the script.
    At(Duration, Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Inject(Vec<Packet>),
    Expect(Wanted),
    /// If it does not come, that is right too.
    ExpectMaybe(Wanted),
    /// Others may come before it.
    ExpectLast(Wanted),
    ExpectAll(Vec<Wanted>),
    ExpectNone(Duration),
    /// Whatever comes until then is taken.
    ExpectAny(Duration),
    Call(Call, CallResult),
    Wait,
}

/// A packet that is to come, or one of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) packets: Vec<Packet>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// The file.
    pub name: String,
    /// The number of the line, from 1; 0: of none.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong, and what is accepted.
    pub message: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n  {}", self.name, self.line, self.message, self.text)
    }
}

impl std::error::Error for ScriptError {}

impl Script {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or a line of it.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let name = path.display().to_string();
        let error = |error: std::io::Error| ScriptError {
            name: name.clone(),
            line: 0,
            text: String::new(),
            message: error.to_string(),
        };
        Self::parse(&name, &fs::read_to_string(path).map_err(error)?)
    }

    /// Reads a text; `name` is for errors.
    ///
    /// # Errors
    /// A line cannot be read.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        let script =
            Self { name: name.to_owned(), setup: Setup::default(), skips: Vec::new(), events: Vec::new() };
        let mut parser = Parser {
            script,
            group: None,
            reason: None,
            ports: None,
            window: u16::MAX,
            is_v6: false,
            count: 1,
        };
        let mut last = (0, "");
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            parser.line(number, line).map_err(|message| ScriptError {
                name: name.to_owned(),
                line: number,
                text: line.to_owned(),
                message,
            })?;
            last = (number, line);
        }
        match parser.group {
            None => Ok(parser.script),
            Some(group) => Err(ScriptError {
                name: name.to_owned(),
                line: last.0,
                text: last.1.to_owned(),
                message: format!("the group of line {} has no `}}`", group.line),
            }),
        }
    }

    /// Why the script is not for a subject.
    pub fn skip_reason(&self, subject: SubjectKind) -> Option<&str> {
        self.skips.iter().find(|(skipped, _)| *skipped == subject).map(|(_, reason)| reason.as_str())
    }
}

struct Parser {
    script: Script,
    /// An `any-order` that is open.
    group: Option<Event>,
    /// Of the last `differs`, as long as lines for one subject follow.
    reason: Option<String>,
    /// Of the host and of the peer, where a segment has none.
    ports: Option<(u16, u16)>,
    /// Of the peer, where a segment does not say it.
    window: u16,
    /// TCP without an IP header is over IPv6.
    is_v6: bool,
    /// Of the last expectation: how often it is to come, each time further on in the stream.
    count: u32,
}

impl Parser {
    fn line(&mut self, number: usize, text: &str) -> Result<(), String> {
        let tokens = tokens(text)?;
        let mut cursor = Cursor::new(&tokens);
        if cursor.is_at_end() {
            return Ok(());
        }
        if self.group.is_some() {
            return self.group_line(number, text, &mut cursor);
        }
        if self.script.events.is_empty() && self.header(&mut cursor)? {
            return cursor.end();
        }
        if cursor.eat_word("use") {
            return self.prelude(number, text, &mut cursor);
        }
        if cursor.eat_word("differs") {
            let reason = cursor.text("the reason, with the section of the RFC, between quotes")?;
            self.reason = Some(String::from_utf8_lossy(reason).into_owned());
            return cursor.end();
        }
        let only = self.only(&mut cursor)?;
        self.event(number, text, only, &mut cursor)
    }

    fn event(
        &mut self,
        number: usize,
        text: &str,
        only: Option<SubjectKind>,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), String> {
        let mut event = self.one_event(number, text, only, cursor)?;
        cursor.end()?;
        match &mut event.action {
            Action::ExpectAll(_) => self.group = Some(event),
            Action::Expect(wanted) if wanted.packets.len() == 1 => {
                // `> 10 x` are ten lines.
                for packet in repeated(&wanted.packets[0].clone(), self.count) {
                    let wanted = Wanted { line: number, text: text.to_owned(), packets: vec![packet] };
                    self.script.events.push(Event { action: Action::Expect(wanted), ..event.clone() });
                    event.when = When::Unsaid;
                }
            }
            _ => self.script.events.push(event),
        }
        Ok(())
    }

    /// The lines that `use` stands for.
    fn prelude(&mut self, number: usize, text: &str, cursor: &mut Cursor<'_>) -> Result<(), String> {
        let prelude = Prelude::parse(cursor)?;
        let setup = &mut self.script.setup;
        if setup.host.ipv4.is_none() && setup.host.ipv6.is_none() {
            if prelude.is_v6 {
                setup.host.ipv6 = Some((Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2), 64));
                setup.peer.ipv6 = Some((Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), 64));
            } else {
                setup.host.ipv4 = Some((Ipv4Addr::new(10, 0, 0, 2), 24));
                setup.peer.ipv4 = Some((Ipv4Addr::new(10, 0, 0, 1), 24));
            }
        }
        self.ports = Some((prelude.host_port, prelude.peer_port));
        self.is_v6 = prelude.is_v6;
        self.window = prelude.window;
        for line in prelude.lines() {
            let tokens = tokens(&line)?;
            self.event(number, &format!("{text}: {line}"), None, &mut Cursor::new(&tokens))?;
        }
        Ok(())
    }

    /// `kernel:` or `shard:`, which need a reason.
    fn only(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<SubjectKind>, String> {
        for subject in SubjectKind::ALL {
            if cursor.eat_word(&format!("{subject}:")) {
                if self.reason.is_some() {
                    return Ok(Some(subject));
                }
                return Err(format!("a line for `{subject}` only needs `differs \"why\"` before it"));
            }
        }
        self.reason = None;
        Ok(None)
    }

    fn group_line(&mut self, number: usize, text: &str, cursor: &mut Cursor<'_>) -> Result<(), String> {
        if cursor.eat('}') {
            self.script.events.extend(self.group.take());
            return cursor.end();
        }
        cursor.expect('>')?;
        let packets = self.alternatives(cursor)?;
        if let Some(Event { action: Action::ExpectAll(wanted), .. }) = &mut self.group {
            wanted.push(Wanted { line: number, text: text.to_owned(), packets });
        }
        cursor.end()
    }

    /// A header line; `false`: it is none.
    fn header(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, String> {
        let setup = &mut self.script.setup;
        if cursor.eat_word("host") {
            end(cursor, &mut setup.host, true)?;
        } else if cursor.eat_word("peer") {
            let lens = (setup.host.ipv4.map(|(_, len)| len), setup.host.ipv6.map(|(_, len)| len));
            end(cursor, &mut setup.peer, false)?;
            setup.peer.ipv4 = setup.peer.ipv4.map(|(address, _)| (address, lens.0.unwrap_or(24)));
            setup.peer.ipv6 = setup.peer.ipv6.map(|(address, _)| (address, lens.1.unwrap_or(64)));
        } else if cursor.eat_word("gateway") {
            while !cursor.is_at_end() {
                setup.gateways.push(cursor.parsed("an address")?);
            }
        } else if cursor.eat_word("mtu") {
            setup.mtu = cursor.parsed("a number of bytes")?;
        } else if cursor.eat_word("sysctl") {
            let name = cursor.word("the name of a setting")?.to_owned();
            cursor.expect('=')?;
            setup.sysctls.push((name, cursor.word("its value")?.to_owned()));
        } else if cursor.eat_word("option") {
            self.option(cursor)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn option(&mut self, cursor: &mut Cursor<'_>) -> Result<(), String> {
        let word = cursor.word("kernel: or shard:")?;
        let subject = SubjectKind::ALL.into_iter().find(|subject| format!("{subject}:") == word);
        let subject = subject.ok_or_else(|| format!("`{word}`: kernel: or shard: is accepted"))?;
        cursor.expect_word("skip")?;
        let reason = cursor.text("the reason between quotes")?;
        self.script.skips.push((subject, String::from_utf8_lossy(reason).into_owned()));
        Ok(())
    }
}

/// Addresses of the host (with the length of their prefixes) or the peer (without), and `mac`.
fn end(cursor: &mut Cursor<'_>, end: &mut End, has_prefix: bool) -> Result<(), String> {
    while !cursor.is_at_end() {
        if cursor.eat_word("mac") {
            end.mac = syntax::mac(cursor.word("a hardware address")?)?;
            continue;
        }
        let word = cursor.word("an address")?;
        let without = || word.parse().ok().map(|address| (address, 0));
        let parsed = if has_prefix { syntax::address_with_prefix(word) } else { without() };
        let form = if has_prefix { "ADDRESS/LENGTH" } else { "an address" };
        match parsed.ok_or_else(|| format!("`{word}`: {form} or mac ADDRESS is accepted"))? {
            (IpAddr::V4(address), len) => end.ipv4 = Some((address, len)),
            (IpAddr::V6(address), len) => end.ipv6 = Some((address, len)),
        }
    }
    Ok(())
}

impl Parser {
    fn one_event(
        &mut self,
        number: usize,
        text: &str,
        only: Option<SubjectKind>,
        cursor: &mut Cursor<'_>,
    ) -> Result<Event, String> {
        let mut when = when(cursor)?;
        let action = if cursor.eat('<') {
            if let When::After(first, last) | When::At(first, last) = when
                && first != last
            {
                return Err("what is injected has one time, not a range".to_owned());
            }
            let count = count(cursor)?;
            let packet = self.packet(cursor, true)?;
            Action::Inject(repeated(&packet, count))
        } else if cursor.eat('>') {
            self.expectation(number, text, cursor)?
        } else if cursor.eat_word("wait") {
            let time = duration_word(cursor)?;
            when = When::After(time, time);
            Action::Wait
        } else if call::is_call(cursor) {
            let (call, result) = call::call(cursor)?;
            Action::Call(call, result)
        } else {
            return Err(cursor.complaint(
                "`<`, `>`, `wait`, `differs`, `use`, a socket call or (at the top) a header line",
            ));
        };
        Ok(Event { line: number, text: text.to_owned(), when, only, action })
    }

    fn expectation(&mut self, number: usize, text: &str, cursor: &mut Cursor<'_>) -> Result<Action, String> {
        if cursor.eat_word("none") {
            let time = if cursor.eat_word("for") { duration_word(cursor)? } else { Duration::ZERO };
            return Ok(Action::ExpectNone(time));
        }
        if cursor.eat_word("any") {
            cursor.expect_word("for")?;
            return duration_word(cursor).map(Action::ExpectAny);
        }
        if cursor.eat_word("any-order") {
            cursor.expect('{')?;
            return Ok(Action::ExpectAll(Vec::new()));
        }
        self.count = 1;
        let kind = if cursor.eat_word("?") {
            Action::ExpectMaybe
        } else if cursor.eat_word("until") {
            Action::ExpectLast
        } else {
            self.count = count(cursor)?;
            Action::Expect
        };
        let packets = self.alternatives(cursor)?;
        if self.count != 1 && packets.len() > 1 {
            return Err("`N x` and `or` do not go together".to_owned());
        }
        Ok(kind(Wanted { line: number, text: text.to_owned(), packets }))
    }

    /// `PACKET or PACKET`.
    fn alternatives(&self, cursor: &mut Cursor<'_>) -> Result<Vec<Packet>, String> {
        let mut packets = vec![self.packet(cursor, false)?];
        while cursor.eat_word("or") {
            packets.push(self.packet(cursor, false)?);
        }
        Ok(packets)
    }

    /// A packet, with the ports of the connection where a segment has none.
    fn packet(&self, cursor: &mut Cursor<'_>, is_injected: bool) -> Result<Packet, String> {
        let mut packet = syntax::packet(cursor)?;
        if let Packet::Layers(layers, _) = &mut packet {
            if is_injected && layers.iter().any(has_range) {
                return Err("what is injected has numbers, not ranges".to_owned());
            }
            if self.is_v6
                && let [first, second, ..] = &mut layers[..]
                && (first.kind, second.kind) == (Kind::Ipv4, Kind::Tcp)
                && first.fields.is_empty()
            {
                first.kind = Kind::Ipv6;
            }
            for segment in layers.iter_mut().filter(|layer| layer.kind == Kind::Tcp && is_injected) {
                if segment.get("win").is_none() {
                    segment.fields.push(("win", Value::Number(self.window.into())));
                }
            }
            if let Some((host, peer)) = self.ports {
                complete(layers, if is_injected { (peer, host) } else { (host, peer) });
            }
        }
        Ok(packet)
    }
}

fn has_range(layer: &Layer) -> bool {
    layer.fields.iter().any(|(_, value)| matches!(value, Value::Range(..)))
}

/// Fills in the ports that are not written; what an error quotes has gone the other way.
fn complete(layers: &mut [Layer], (from, to): (u16, u16)) {
    for layer in layers {
        for (_, value) in &mut layer.fields {
            if let Value::Packet(quoted) = value {
                complete(quoted, (to, from));
            }
        }
        if layer.kind == Kind::Tcp {
            for (name, port) in [("from", from), ("to", to)] {
                if layer.get(name).is_none() {
                    layer.fields.push((name, Value::Number(port.into())));
                }
            }
        }
    }
}

/// `10 x`.
fn count(cursor: &mut Cursor<'_>) -> Result<u32, String> {
    let Some(count) = cursor.peek_word().and_then(number) else {
        return Ok(1);
    };
    cursor.next();
    cursor.expect_word("x")?;
    u32::try_from(count)
        .ok()
        .filter(|count| (1..=1_000).contains(count))
        .ok_or_else(|| format!("{count} x: 1 to 1000 are accepted"))
}

/// The packet, and those that follow it in the stream.
fn repeated(packet: &Packet, count: u32) -> Vec<Packet> {
    let mut packets = vec![packet.clone()];
    for _ in 1..count {
        let mut next = packets[packets.len() - 1].clone();
        if let Packet::Layers(layers, _) = &mut next {
            syntax::advance(layers);
        }
        packets.push(next);
    }
    packets
}

fn duration_word(cursor: &mut Cursor<'_>) -> Result<Duration, String> {
    let word = cursor.word("a duration")?;
    duration(word).ok_or_else(|| format!("`{word}`: {DURATIONS}"))
}

/// `+10ms`, `+0..1s`, `@1.5s`.
fn when(cursor: &mut Cursor<'_>) -> Result<When, String> {
    let Some(word) = cursor.peek_word().filter(|word| word.starts_with(['+', '@'])) else {
        return Ok(When::Unsaid);
    };
    cursor.next();
    let (first, last) = word[1..].split_once("..").unwrap_or((&word[1..], &word[1..]));
    let times = duration(first).zip(duration(last)).filter(|(first, last)| first <= last);
    let (first, last) = times.ok_or_else(|| format!("`{word}`: {DURATIONS}"))?;
    Ok(if word.starts_with('+') { When::After(first, last) } else { When::At(first, last) })
}

const DURATIONS: &str =
    "a time is accepted (0, 200us, 10ms, 1.5s), or for an expectation a range of two (0..1s)";

/// `0`, `200us`, `10ms`, `1.5s`.
fn duration(word: &str) -> Option<Duration> {
    if word == "0" {
        return Some(Duration::ZERO);
    }
    let (number, micros) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .iter()
        .find_map(|(unit, micros)| word.strip_suffix(unit).map(|number| (number, micros)))?;
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    // A script of a year is a mistake.
    Some(number * micros).filter(|time| *time < 3e13).map(|time| Duration::from_micros(time.round() as u64))
}
