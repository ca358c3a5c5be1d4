//! Filters by protocol, address and port, written as rules.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::assemble::{Assembler, Label};
use super::packet::{
    AUTHENTICATION, DESTINATION_OPTIONS, ETHERTYPE_ARP, FRAGMENT, Fragments, HOP_BY_HOP, ICMPV6, Network,
    Origin, ROUTING, TCP, UDP, V4_LATER_FRAGMENT, WalkEnds, find_network, walk_v6,
};
use super::prefix::{ParsePrefixError, Prefix};
use super::program::{Program, ProgramError, Size};

/// A list of rules, and what happens to a frame that one of them describes.
///
/// What cannot be told passes, as far as it can: a fragment that is not the first has no ports, so a list
/// that accepts takes it if its addresses and protocol match a rule, and a list that denies leaves it
/// alone if the rule has ports. The same goes for IPv6 with more than four extension headers, of which the
/// protocol is not known. A packet that ends before its ports does not pass. VLAN tags, at most two, are
/// looked through; of the tag that the kernel strips nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilterSpec {
    /// What happens to a frame that a rule describes; the opposite happens to others.
    pub sense: ListSense,
    /// The rules.
    pub rules: Vec<Rule>,
    /// ARP and IPv6 neighbor discovery pass in any case, without which a stack finds nobody.
    pub neighbors: bool,
}

/// What a list of rules does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListSense {
    /// Only frames that a rule describes pass.
    #[default]
    Accept,
    /// Only frames that no rule describes pass.
    Deny,
}

/// Describes IP packets. What is not given matches all.
///
/// In text, in this order and each word as wanted: a protocol (`tcp`, `udp`, `icmp`, `icmp6`, `sctp` or a number
/// 0-255), `src` or `dst`, a prefix, `port` and a number or a range: `tcp dst 10.0.0.0/8 port 80-89`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The number of the transport protocol.
    pub protocol: Option<u8>,
    /// Which end `prefix` and `ports` are about.
    pub side: Side,
    /// The address of that end.
    pub prefix: Option<Prefix>,
    /// The port of that end, of TCP, UDP or SCTP; both ends of the range included.
    pub ports: Option<RangeInclusive<u16>>,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// Where it comes from.
    Src,
    /// Where it goes to.
    Dst,
    /// One of the two: address and port of the same end.
    #[default]
    Either,
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseRuleError {
    /// There is nothing in it.
    #[error("an empty rule; write for example `tcp dst 10.0.0.0/8 port 80-89`")]
    Empty,
    /// A word that is not known, or at a place where it is not.
    #[error("{0:?} in a rule; it is [PROTOCOL] [src|dst] [PREFIX] [port N[-M]], in this order")]
    Word(String),
    /// The ports.
    #[error("{0:?} is no port or range of ports; write 80 or 80-89, 0 to 65535")]
    Ports(String),
    /// The prefix.
    #[error(transparent)]
    Prefix(#[from] ParsePrefixError),
}

impl FilterSpec {
    /// A program for a socket: offset 0 is the link header. It returns all of the bytes, or 0.
    ///
    /// # Errors
    /// [`ProgramError::TooLong`]: too many rules for the kernel, which is at some hundreds. Long lists of
    /// addresses are for [`PrefixSet`](super::PrefixSet).
    pub fn compile(&self) -> Result<Program, ProgramError> {
        let mut asm = Assembler::default();
        let (pass, drop, other) = (asm.label(), asm.label(), asm.label());
        let (matched, unmatched) = match self.sense {
            ListSense::Accept => (pass, drop),
            ListSense::Deny => (drop, pass),
        };
        let (rules_v4, rules_v6) = (asm.label(), asm.label());
        for found in find_network(&mut asm, Origin::Link, other) {
            asm.place(found.v4);
            read_v4(&mut asm, found.network, rules_v4);
            asm.place(found.v6);
            read_v6(&mut asm, found.network, rules_v6, self.neighbors.then_some(pass));
        }
        for (label, is_v4) in [(rules_v4, true), (rules_v6, false)] {
            asm.place(label);
            for rule in &self.rules {
                rule.write(&mut asm, is_v4, self.sense == ListSense::Accept, matched);
            }
            asm.goto(unmatched);
        }
        asm.place(other);
        if self.neighbors {
            asm.if_equal(ETHERTYPE_ARP, pass);
        }
        asm.goto(unmatched);
        asm.place(pass);
        asm.ret(u32::MAX);
        asm.place(drop);
        asm.ret(0);
        asm.finish()
    }
}

impl Rule {
    /// Goes on at `matched`, or behind. `doubt`: whether what is not known matches.
    fn write(&self, asm: &mut Assembler, is_v4: bool, doubt: bool, matched: Label) {
        if self.prefix.is_some_and(|prefix| prefix.address().is_ipv4() != is_v4) {
            return;
        }
        let next = asm.label();
        if let Some(protocol) = self.protocol {
            let is_it = asm.label();
            asm.recall(PROTOCOL);
            if doubt {
                asm.if_equal(UNKNOWN, is_it);
            }
            asm.unless_equal(protocol.into(), next);
            asm.place(is_it);
        }
        let ends: &[(u32, u32)] = match self.side {
            _ if self.prefix.is_none() && self.ports.is_none() => &[],
            Side::Src => &[(SRC, SRC_PORT)],
            Side::Dst => &[(DST, DST_PORT)],
            Side::Either => &[(SRC, SRC_PORT), (DST, DST_PORT)],
        };
        if ends.is_empty() {
            asm.goto(matched);
        }
        for (address, port) in ends {
            let fail = asm.label();
            self.write_end(asm, *address, *port, doubt, fail);
            asm.goto(matched);
            asm.place(fail);
        }
        asm.place(next);
    }

    fn write_end(&self, asm: &mut Assembler, address: u32, port: u32, doubt: bool, fail: Label) {
        if let Some(prefix) = self.prefix {
            for (word, (bits, mask)) in (address..).zip(words(prefix)).filter(|(_, (_, mask))| *mask != 0) {
                asm.recall(word);
                if mask != u32::MAX {
                    asm.and(mask);
                }
                asm.unless_equal(bits, fail);
            }
        }
        if let Some(ports) = &self.ports {
            let is_it = asm.label();
            asm.recall(port);
            if doubt {
                asm.if_equal(UNKNOWN, is_it);
            }
            asm.if_less((*ports.start()).into(), fail);
            asm.if_greater((*ports.end()).into(), fail);
            asm.place(is_it);
        }
    }
}

/// The words of a prefix, and which of their bits count.
fn words(prefix: Prefix) -> Vec<(u32, u32)> {
    let octets = match prefix.address() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (chunks, _) = octets.as_chunks::<4>();
    let masks = (0..4).map(|index| {
        let bits = u32::from(prefix.len()).saturating_sub(32 * index).min(32);
        u32::MAX.checked_shl(32 - bits).unwrap_or(0)
    });
    chunks.iter().map(|chunk| u32::from_be_bytes(*chunk)).zip(masks).collect()
}

/// Puts addresses, protocol and ports of an IPv4 packet into scratch memory.
fn read_v4(asm: &mut Assembler, network: Network, rules: Label) {
    for (offset, word) in [(12, SRC), (16, DST)] {
        network.load(asm, Size::Word, offset);
        asm.keep(word);
    }
    network.load(asm, Size::Byte, 9);
    asm.keep(PROTOCOL);
    let later = asm.label();
    network.load(asm, Size::Half, 6);
    asm.if_any_bit(V4_LATER_FRAGMENT, later);
    network.v4_payload_to_x(asm);
    read_ports(asm, network, later, rules);
}

/// Puts addresses, protocol and ports of an IPv6 packet into scratch memory.
fn read_v6(asm: &mut Assembler, network: Network, rules: Label, neighbors: Option<Label>) {
    for word in 0..8 {
        network.load(asm, Size::Word, 8 + 4 * word);
        asm.keep(SRC + word);
    }
    network.load(asm, Size::Byte, 6);
    asm.keep(PROTOCOL);
    network.v6_next_to_x(asm);
    let (done, fragment, exceeded, later) = (asm.label(), asm.label(), asm.label(), asm.label());
    walk_v6(asm, network, PROTOCOL, Fragments::Later, WalkEnds { done, fragment, exceeded });

    asm.place(fragment);
    network.load_at_x(asm, Size::Byte, 0);
    asm.keep(PROTOCOL);
    for extension in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION, FRAGMENT] {
        asm.if_equal(extension, exceeded);
    }
    asm.goto(later);
    asm.place(exceeded);
    asm.set(UNKNOWN);
    asm.keep(PROTOCOL);
    asm.keep(SRC_PORT);
    asm.keep(DST_PORT);
    asm.goto(rules);

    asm.place(done);
    if let Some(pass) = neighbors {
        let go_on = asm.label();
        asm.recall(PROTOCOL);
        asm.unless_equal(ICMPV6, go_on);
        // RFC 4861: router solicitation to redirect.
        network.load_at_x(asm, Size::Byte, 0);
        asm.if_less(133, go_on);
        asm.if_greater(137, go_on);
        asm.goto(pass);
        asm.place(go_on);
    }
    read_ports(asm, network, later, rules);
}

/// Puts the ports at X into scratch memory. At `later`, there are none in the packet.
fn read_ports(asm: &mut Assembler, network: Network, later: Label, rules: Label) {
    let (ports, unknown, none) = (asm.label(), asm.label(), asm.label());
    asm.recall(PROTOCOL);
    for protocol in [TCP, UDP, SCTP] {
        asm.if_equal(protocol, ports);
    }
    asm.goto(none);
    asm.place(later);
    asm.recall(PROTOCOL);
    for protocol in [TCP, UDP, SCTP] {
        asm.if_equal(protocol, unknown);
    }
    asm.place(none);
    asm.set(NONE);
    asm.keep(SRC_PORT);
    asm.keep(DST_PORT);
    asm.goto(rules);
    asm.place(unknown);
    asm.set(UNKNOWN);
    asm.keep(SRC_PORT);
    asm.keep(DST_PORT);
    asm.goto(rules);
    asm.place(ports);
    network.load_at_x(asm, Size::Half, 0);
    asm.keep(SRC_PORT);
    network.load_at_x(asm, Size::Half, 2);
    asm.keep(DST_PORT);
    asm.goto(rules);
}

/// As [`FromStr`] takes it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if let Some(protocol) = self.protocol {
            let name = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
            words.push(name.map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned()));
        }
        match self.side {
            Side::Src => words.push("src".to_owned()),
            Side::Dst => words.push("dst".to_owned()),
            Side::Either => {}
        }
        words.extend(self.prefix.map(|prefix| prefix.to_string()));
        if let Some(ports) = &self.ports {
            words.push(match (ports.start(), ports.end()) {
                (start, end) if start == end => format!("port {start}"),
                (start, end) => format!("port {start}-{end}"),
            });
        }
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_ascii_whitespace().peekable();
        if words.peek().is_none() {
            return Err(ParseRuleError::Empty);
        }
        let mut rule = Self::default();
        if let Some(protocol) = words.peek().and_then(|word| parse_protocol(word)) {
            rule.protocol = Some(protocol);
            words.next();
        }
        if let Some(side) = words.peek().and_then(|word| parse_side(word)) {
            rule.side = side;
            words.next();
        }
        if let Some(word) = words.next_if(|word| word.contains(['.', ':'])) {
            rule.prefix = Some(word.parse()?);
        }
        if words.next_if_eq(&"port").is_some() {
            rule.ports = Some(parse_ports(words.next().unwrap_or_default())?);
        }
        match words.next() {
            None => Ok(rule),
            Some(word) => Err(ParseRuleError::Word(word.to_owned())),
        }
    }
}

fn parse_protocol(word: &str) -> Option<u8> {
    let name = PROTOCOLS.iter().find(|(name, _)| *name == word);
    name.map(|(_, number)| *number).or_else(|| word.parse().ok())
}

fn parse_side(word: &str) -> Option<Side> {
    match word {
        "src" => Some(Side::Src),
        "dst" => Some(Side::Dst),
        _ => None,
    }
}

fn parse_ports(word: &str) -> Result<RangeInclusive<u16>, ParseRuleError> {
    let wrong = || ParseRuleError::Ports(word.to_owned());
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (start, end) = match word.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(word)?, number(word)?),
    };
    if start <= end { Ok(start..=end) } else { Err(wrong()) }
}

const PROTOCOLS: [(&str, u8); 5] = [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmp6", 58), ("sctp", 132)];

const SCTP: u32 = 132;

// Words of scratch memory; an address of IPv6 takes four.
const SRC: u32 = 0;
const DST: u32 = 4;
const PROTOCOL: u32 = 8;
const SRC_PORT: u32 = 9;
const DST_PORT: u32 = 10;

/// In place of a port or a protocol that the packet does not tell.
const UNKNOWN: u32 = 0x1_0000;
/// In place of the port of a packet whose protocol has none.
const NONE: u32 = 0x2_0000;
