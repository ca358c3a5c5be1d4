//! Socket calls of a script, and what they give.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::call_tcp::{self, TcpCall};
use super::print;
use super::syntax;
use super::token::{Cursor, number, range};

/// Which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A datagram socket of UDP.
    Udp,
    /// A connection of TCP, or a listener.
    Tcp,
    /// A socket for ICMP echoes (a "ping socket").
    Icmp,
    /// A raw socket for a protocol number.
    Raw(u8),
}

/// A call on a socket; the first field is the socket's name in the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `NAME = socket udp`, `udp6`, `icmp`, `icmp6`, `raw N` or `raw6 N`.
    Socket(String, SocketKind, IpVersion),
    /// `bind(NAME, ADDRESS)`.
    Bind(String, SocketAddr),
    /// `connect(NAME, ADDRESS)`.
    Connect(String, SocketAddr),
    /// `sendto(NAME, DATA, ADDRESS)`.
    SendTo(String, Vec<u8>, SocketAddr),
    /// `send(NAME, DATA)`.
    Send(String, Vec<u8>),
    /// `recv(NAME)`.
    Recv(String),
    /// `close(NAME)`.
    Close(String),
    /// `set(NAME, OPTION, NUMBER)`.
    Set(String, SocketOption, u32),
    /// `join(NAME, GROUP)`.
    Join(String, IpAddr),
    /// `leave(NAME, GROUP)`.
    Leave(String, IpAddr),
    /// What only TCP knows.
    Tcp(TcpCall),
}

/// Which IP version a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// What `set` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOption {
    /// TTL or hop limit of what is sent to one host.
    Ttl,
    /// Whether it may send to broadcast addresses.
    Broadcast,
    /// TTL or hop limit of what is sent to groups.
    MulticastTtl,
    /// Whether the host hears its own packets to groups.
    MulticastLoop,
    /// Whether all ICMP errors are told, those too that may pass (IP_RECVERR).
    Errors,
    /// As IP_MTU_DISCOVER of ip(7): 0 fragments and leaves DF off, 2 sets DF and refuses what is too long,
    /// 3 sets DF and believes no ICMP message. 1, which Linux starts with, is for the kernel only.
    PathMtu,
    /// TCP: small segments do not wait.
    NoDelay,
    /// TCP: nothing but full segments is sent.
    Cork,
    /// TCP: a silent peer is asked whether it is there.
    Keepalive,
    /// TCP: seconds of silence before that.
    KeepaliveIdle,
    /// TCP: seconds between the questions.
    KeepaliveInterval,
    /// TCP: questions without an answer before the connection is given up.
    KeepaliveProbes,
    /// TCP: milliseconds that data may go unacknowledged.
    UserTimeout,
    /// TCP: seconds that closing waits; 0 resets.
    Linger,
    /// TCP: every segment is acknowledged at once.
    QuickAck,
    /// TCP: 0 is `reno`, 1 `cubic`, 2 `bbr`.
    Congestion,
    /// TCP: what is sent is spread over a round trip. Not for the kernel, which leaves that to its controllers.
    Pacing,
    /// TCP: bytes of the receive buffer.
    RecvBuffer,
    /// TCP: bytes of the send buffer.
    SendBuffer,
    /// TCP: bytes of the longest segment.
    Mss,
}

/// Options by their words.
const OPTIONS: [(&str, SocketOption); 20] = [
    ("ttl", SocketOption::Ttl),
    ("broadcast", SocketOption::Broadcast),
    ("multicast-ttl", SocketOption::MulticastTtl),
    ("multicast-loop", SocketOption::MulticastLoop),
    ("errors", SocketOption::Errors),
    ("path-mtu", SocketOption::PathMtu),
    ("nodelay", SocketOption::NoDelay),
    ("cork", SocketOption::Cork),
    ("keepalive", SocketOption::Keepalive),
    ("keepalive-idle", SocketOption::KeepaliveIdle),
    ("keepalive-interval", SocketOption::KeepaliveInterval),
    ("keepalive-probes", SocketOption::KeepaliveProbes),
    ("user-timeout", SocketOption::UserTimeout),
    ("linger", SocketOption::Linger),
    ("quickack", SocketOption::QuickAck),
    ("congestion", SocketOption::Congestion),
    ("pacing", SocketOption::Pacing),
    ("rcvbuf", SocketOption::RecvBuffer),
    ("sndbuf", SocketOption::SendBuffer),
    ("max-segment", SocketOption::Mss),
];

/// Congestion controls, in the order of their numbers.
pub(super) const CONGESTION: [&str; 3] = ["reno", "cubic", "bbr"];

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResult {
    /// It was done.
    Ok,
    /// That many bytes were taken, or read, or whatever was asked for.
    Number(u64),
    /// Only wanted: a number from the first to the second.
    Range(u64, u64),
    /// A state, or a name.
    Word(String),
    /// A datagram.
    Received(Vec<u8>, Option<SocketAddr>),
    /// One of [`ERRORS`].
    Error(String),
}

/// Names of errors: those of `std::io::ErrorKind` that mean something here, and one that has no kind.
pub const ERRORS: [&str; 16] = [
    "AddrInUse",
    "AddrNotAvailable",
    "AlreadyConnected",
    "BrokenPipe",
    "ConnectionAborted",
    "ConnectionRefused",
    "ConnectionReset",
    "HostUnreachable",
    "InvalidInput",
    "MessageTooLong",
    "NetworkUnreachable",
    "NotConnected",
    "PermissionDenied",
    "ProtocolUnavailable",
    "TimedOut",
    "WouldBlock",
];

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(name, kind, version) => match (kind, version) {
                (_, IpVersion::V4) => write!(f, "{name} = socket {kind}"),
                (SocketKind::Raw(number), IpVersion::V6) => write!(f, "{name} = socket raw6 {number}"),
                (_, IpVersion::V6) => write!(f, "{name} = socket {kind}6"),
            },
            Self::Bind(name, address) => write!(f, "bind({name}, {address})"),
            Self::Connect(name, address) => write!(f, "connect({name}, {address})"),
            Self::SendTo(name, data, address) => write!(f, "sendto({name}, {}, {address})", shown(data)),
            Self::Send(name, data) => write!(f, "send({name}, {})", shown(data)),
            Self::Recv(name) => write!(f, "recv({name})"),
            Self::Close(name) => write!(f, "close({name})"),
            Self::Set(name, option, value) => write!(f, "set({name}, {option}, {value})"),
            Self::Join(name, group) => write!(f, "join({name}, {group})"),
            Self::Leave(name, group) => write!(f, "leave({name}, {group})"),
            Self::Tcp(call) => call.fmt(f),
        }
    }
}

/// Data as scripts have it, also if there is none.
fn shown(data: &[u8]) -> String {
    if data.is_empty() { "\"\"".to_owned() } else { print::data(data) }
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp => f.write_str("udp"),
            Self::Tcp => f.write_str("tcp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Raw(number) => write!(f, "raw {number}"),
        }
    }
}

impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OPTIONS.iter().find(|(_, option)| option == self).map_or("", |(word, _)| word))
    }
}

impl CallResult {
    /// Whether this is what a script wants. Who sent a datagram may be left out.
    pub(super) fn is(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Received(came, _), Self::Received(wanted, None)) => came == wanted,
            (Self::Number(came), Self::Range(first, last)) => (*first..=*last).contains(came),
            _ => self == wanted,
        }
    }
}

impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Range(first, last) => write!(f, "{first}..{last}"),
            Self::Word(word) => f.write_str(word),
            Self::Received(bytes, from) => {
                f.write_str(&shown(bytes))?;
                from.map_or(Ok(()), |from| write!(f, " from {from}"))
            }
            Self::Error(name) => write!(f, "error {name}"),
        }
    }
}

/// Whether a line is a call: `word(` or `word = socket`.
pub(super) fn is_call(cursor: &Cursor<'_>) -> bool {
    cursor.peek_word().is_some() && (cursor.is_followed_by('(') || cursor.is_followed_by('='))
}

/// A call and its result, up to the end of the line.
pub(super) fn call(cursor: &mut Cursor<'_>) -> Result<(Call, CallResult), String> {
    let name = cursor.word("a call")?;
    if cursor.eat('=') {
        if cursor.eat_word("accept") {
            let call = call_tcp::accept(name, cursor)?;
            return Ok((Call::Tcp(call), CallResult::Ok));
        }
        cursor.expect_word("socket")?;
        let (kind, version) = socket(cursor)?;
        return Ok((Call::Socket(name.to_owned(), kind, version), CallResult::Ok));
    }
    cursor.expect('(')?;
    let socket = cursor.word("the name of a socket")?.to_owned();
    if let Some(call) = call_tcp::call(name, &socket, cursor)? {
        cursor.expect(')')?;
        let result = if cursor.eat('=') { result(cursor)? } else { call.usual_result() };
        return Ok((Call::Tcp(call), result));
    }
    let call = match name {
        "bind" => Call::Bind(socket, comma_address(cursor)?),
        "connect" => Call::Connect(socket, comma_address(cursor)?),
        "sendto" => {
            let data = comma_data(cursor)?;
            Call::SendTo(socket, data, comma_address(cursor)?)
        }
        "send" => Call::Send(socket, comma_data(cursor)?),
        "recv" => Call::Recv(socket),
        "close" => Call::Close(socket),
        "set" => {
            cursor.expect(',')?;
            let option = option(cursor.word("an option")?)?;
            cursor.expect(',')?;
            Call::Set(socket, option, option_value(option, cursor.word("a value")?)?)
        }
        "join" | "leave" => {
            cursor.expect(',')?;
            let group = cursor.parsed("a group")?;
            if name == "join" { Call::Join(socket, group) } else { Call::Leave(socket, group) }
        }
        _ => {
            let known = "bind, connect, sendto, send, recv, close, set, join, leave, listen, accept, write, read, shutdown, abort, error or info";
            return Err(format!("`{name}` is no call: {known} is accepted"));
        }
    };
    cursor.expect(')')?;
    let result = if cursor.eat('=') { result(cursor)? } else { usual_result(&call) };
    Ok((call, result))
}

fn socket(cursor: &mut Cursor<'_>) -> Result<(SocketKind, IpVersion), String> {
    let word = cursor.word("tcp, tcp6, udp, udp6, icmp, icmp6, raw or raw6")?;
    let (kind, version) = match word.strip_suffix('6') {
        Some(kind) => (kind, IpVersion::V6),
        None => (word, IpVersion::V4),
    };
    let kind = match kind {
        "udp" => SocketKind::Udp,
        "icmp" => SocketKind::Icmp,
        "raw" => SocketKind::Raw(cursor.parsed("a protocol number")?),
        "tcp" => SocketKind::Tcp,
        _ => {
            return Err(format!(
                "`{word}` is no socket: tcp, tcp6, udp, udp6, icmp, icmp6, raw N or raw6 N is accepted"
            ));
        }
    };
    Ok((kind, version))
}

pub(super) fn option(word: &str) -> Result<SocketOption, String> {
    let known = OPTIONS.iter().find(|(known, _)| *known == word);
    known.map(|(_, option)| *option).ok_or_else(|| {
        let known: Vec<&str> = OPTIONS.iter().map(|(word, _)| *word).collect();
        format!("`{word}` is no option: {} is accepted", known.join(", "))
    })
}

/// A number, or the name of a congestion control.
fn option_value(option: SocketOption, word: &str) -> Result<u32, String> {
    let named = CONGESTION.iter().position(|known| *known == word && option == SocketOption::Congestion);
    let number = named.map(|at| at as u32).or_else(|| word.parse().ok());
    number.ok_or_else(|| format!("`{word}`: a number is accepted here"))
}

fn comma_address(cursor: &mut Cursor<'_>) -> Result<SocketAddr, String> {
    cursor.expect(',')?;
    address(cursor)
}

/// `10.0.0.1:7`, `[fd00::1]:7`, or without a port where there are none.
fn address(cursor: &mut Cursor<'_>) -> Result<SocketAddr, String> {
    let word = cursor.word("an address")?;
    let without_port = || word.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0));
    let parsed = word.parse().ok().or_else(without_port);
    parsed.ok_or_else(|| format!("`{word}`: an address is accepted (10.0.0.1:7, [fd00::1]:7)"))
}

fn comma_data(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, String> {
    cursor.expect(',')?;
    syntax::data(cursor)?.ok_or_else(|| cursor.complaint("\"text\" or data=LENGTH"))
}

/// What a call gives if the script does not say it.
fn usual_result(call: &Call) -> CallResult {
    match call {
        Call::SendTo(_, data, _) | Call::Send(_, data) => CallResult::Number(data.len() as u64),
        _ => CallResult::Ok,
    }
}

fn result(cursor: &mut Cursor<'_>) -> Result<CallResult, String> {
    if let Some(bytes) = syntax::data(cursor)? {
        let from = if cursor.eat_word("from") { Some(address(cursor)?) } else { None };
        return Ok(CallResult::Received(bytes, from));
    }
    if cursor.eat_word("ok") {
        return Ok(CallResult::Ok);
    }
    if cursor.eat_word("error") {
        let name = cursor.word("the name of an error")?;
        let is_known = ERRORS.contains(&name);
        let wrong = || format!("`{name}` is no error: one of {} is accepted", ERRORS.join(", "));
        return is_known.then(|| CallResult::Error(name.to_owned())).ok_or_else(wrong);
    }
    let word = cursor.word("a number, a range of two or a state")?;
    if let Some(number) = number(word) {
        return Ok(CallResult::Number(number));
    }
    if let Some((first, last)) = range(word) {
        return Ok(CallResult::Range(first, last));
    }
    Ok(CallResult::Word(word.to_owned()))
}
