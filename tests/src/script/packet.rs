//! What a packet is to a script: layers with named fields, some of them left out.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

/// A header, or the bytes behind the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ethernet,
    Arp,
    Ipv4,
    Ipv6,
    HopByHop,
    Destination,
    Routing,
    Fragment,
    Udp,
    Tcp,
    Icmpv4,
    Icmpv6,
    Igmp,
    Data,
}

/// Kinds by the word that begins them. [`Kind::Data`] has none.
const WORDS: [(&str, Kind); 13] = [
    ("eth", Kind::Ethernet),
    ("arp", Kind::Arp),
    ("ip", Kind::Ipv4),
    ("ip6", Kind::Ipv6),
    ("hop-by-hop", Kind::HopByHop),
    ("destination", Kind::Destination),
    ("routing", Kind::Routing),
    ("frag", Kind::Fragment),
    ("udp", Kind::Udp),
    ("tcp", Kind::Tcp),
    ("icmp", Kind::Icmpv4),
    ("icmp6", Kind::Icmpv6),
    ("igmp", Kind::Igmp),
];

impl Kind {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind)
    }

    pub(super) fn word(self) -> &'static str {
        WORDS.iter().find(|(_, kind)| *kind == self).map_or("data", |(word, _)| word)
    }

    /// The fields that a layer can have, in the order in which they are printed.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Self::Ethernet => &ETHERNET,
            Self::Arp => &ARP,
            Self::Ipv4 => &IPV4,
            Self::Ipv6 => &IPV6,
            Self::HopByHop | Self::Destination => &OPTIONS,
            Self::Routing => &ROUTING,
            Self::Fragment => &FRAGMENT,
            Self::Udp => &UDP,
            Self::Tcp => &TCP,
            Self::Icmpv4 => &ICMPV4,
            Self::Icmpv6 => &ICMPV6,
            Self::Igmp => &IGMP,
            Self::Data => &[],
        }
    }

    pub(super) fn field(self, name: &str) -> Option<&'static Field> {
        self.fields().iter().find(|field| field.name == name)
    }
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    /// Only expected: from the first to the second.
    Range(u64, u64),
    Mac(EthernetAddress),
    Ip(IpAddr),
    Bytes(Vec<u8>),
    /// Letters of TCP flags, or TCP options.
    Text(String),
    Prefix(Ipv6Addr, u8),
    /// What an ICMP error quotes.
    Packet(Vec<Layer>),
}

/// How a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Number,
    /// `df`, or `!df`.
    Flag,
    Mac,
    Ip,
    /// In hexadecimal.
    Bytes,
    Text,
    Prefix,
    /// `quoting(...)`.
    Packet,
}

/// A field that a layer can have.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// What it is if it is not written. A trace leaves it out then.
    pub(super) usual: Option<u64>,
}

const fn field(name: &'static str, form: Form) -> Field {
    Field { name, form, usual: None }
}

const fn number(name: &'static str, usual: u64) -> Field {
    Field { name, form: Form::Number, usual: Some(usual) }
}

const fn flag(name: &'static str) -> Field {
    Field { name, form: Form::Flag, usual: Some(0) }
}

const ETHERNET: [Field; 3] = [field("from", Form::Mac), field("to", Form::Mac), field("type", Form::Number)];
const ARP: [Field; 5] = [
    field("op", Form::Number),
    field("sender-mac", Form::Mac),
    field("sender", Form::Ip),
    field("target-mac", Form::Mac),
    field("target", Form::Ip),
];
const IPV4: [Field; 11] = [
    field("from", Form::Ip),
    field("to", Form::Ip),
    number("version", 4),
    number("ttl", 64),
    number("tos", 0),
    field("id", Form::Number),
    flag("df"),
    field("options", Form::Bytes),
    field("proto", Form::Number),
    field("len", Form::Number),
    flag("bad-checksum"),
];
const IPV6: [Field; 8] = [
    field("from", Form::Ip),
    field("to", Form::Ip),
    number("version", 6),
    number("hop", 64),
    number("class", 0),
    field("flow", Form::Number),
    field("next", Form::Number),
    field("len", Form::Number),
];
const OPTIONS: [Field; 2] = [field("option", Form::Number), field("next", Form::Number)];
const ROUTING: [Field; 4] = [
    field("type", Form::Number),
    field("left", Form::Number),
    field("address", Form::Ip),
    field("next", Form::Number),
];
const FRAGMENT: [Field; 6] = [
    field("id", Form::Number),
    field("start", Form::Number),
    field("end", Form::Number),
    // Instead of where the piece was cut out.
    field("offset", Form::Number),
    flag("more"),
    field("next", Form::Number),
];
const UDP: [Field; 5] = [
    field("from", Form::Number),
    field("to", Form::Number),
    field("len", Form::Number),
    field("checksum", Form::Number),
    flag("bad-checksum"),
];
const TCP: [Field; 9] = [
    field("from", Form::Number),
    field("to", Form::Number),
    field("flags", Form::Text),
    number("seq", 0),
    number("ack", 0),
    field("win", Form::Number),
    number("urgent", 0),
    field("options", Form::Text),
    flag("bad-checksum"),
];
const ICMPV4: [Field; 9] = [
    field("type", Form::Number),
    number("code", 0),
    field("id", Form::Number),
    field("seq", Form::Number),
    field("mtu", Form::Number),
    field("pointer", Form::Number),
    field("gateway", Form::Ip),
    flag("bad-checksum"),
    field("quoting", Form::Packet),
];
const ICMPV6: [Field; 23] = [
    field("type", Form::Number),
    number("code", 0),
    field("id", Form::Number),
    field("seq", Form::Number),
    field("mtu", Form::Number),
    field("pointer", Form::Number),
    field("target", Form::Ip),
    field("destination", Form::Ip),
    flag("router"),
    flag("solicited"),
    flag("override"),
    field("hop-limit", Form::Number),
    flag("managed"),
    flag("other"),
    field("lifetime", Form::Number),
    field("source-mac", Form::Mac),
    field("target-mac", Form::Mac),
    field("prefix", Form::Prefix),
    flag("on-link"),
    flag("autonomous"),
    field("valid", Form::Number),
    flag("bad-checksum"),
    field("quoting", Form::Packet),
];
const IGMP: [Field; 2] = [field("type", Form::Number), field("group", Form::Ip)];

/// One layer: the fields that are written, or, of a frame that came, all of them. A field can be there
/// more than once (`option=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) kind: Kind,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Layer {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, fields: Vec::new() }
    }

    pub(super) fn data(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Kind::Data).with("bytes", Value::Bytes(bytes.into()))
    }

    pub(super) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(super) fn with_number(self, name: &'static str, value: impl Into<u64>) -> Self {
        self.with(name, Value::Number(value.into()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.all(name).next()
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.fields.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A number as it is written, or as it usually is, or 0; cut to what the header has room for.
    pub(super) fn number_or_usual(&self, name: &str) -> u64 {
        let usual = || self.kind.field(name).and_then(|field| field.usual);
        self.number(name).or_else(usual).unwrap_or(0)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.number(name).is_some_and(|number| number != 0)
    }

    pub(super) fn ip(&self, name: &str) -> Option<IpAddr> {
        match self.get(name) {
            Some(Value::Ip(ip)) => Some(*ip),
            _ => None,
        }
    }

    pub(super) fn mac(&self, name: &str) -> Option<EthernetAddress> {
        match self.get(name) {
            Some(Value::Mac(mac)) => Some(*mac),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, name: &str) -> &[u8] {
        match self.get(name) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }
}

/// Changes to a frame that is otherwise ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mutation {
    /// Bytes that are left of the frame.
    pub(super) truncate: Option<usize>,
    /// Zeroes behind the frame.
    pub(super) pad: usize,
}

/// A packet as a line of a script has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    Layers(Vec<Layer>, Mutation),
    /// The bytes of a frame.
    Raw(Vec<u8>),
}

/// The content of `data=LEN`: every byte tells where it is, and pages of 256 bytes differ.
pub(super) fn generated(len: usize) -> Vec<u8> {
    stream(0, len)
}

/// The same of a stream of TCP, from a position on.
pub(super) fn stream(start: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| start.wrapping_add(at)).map(|at| (at as u8) ^ (at >> 8) as u8).collect()
}

/// Where in the stream the data of a segment is.
pub(super) fn stream_position(tcp: &Layer) -> u32 {
    let is_syn = tcp.text("flags").contains('S');
    (tcp.number_or_usual("seq") as u32).wrapping_sub(u32::from(!is_syn))
}
