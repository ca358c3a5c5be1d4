//! Socket calls of a script, and what they give.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::print;
use super::syntax;
use super::token::Cursor;

/// Which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A datagram socket of UDP.
    Udp,
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
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResult {
    /// It was done.
    Ok,
    /// That many bytes were taken.
    Number(u64),
    /// A datagram.
    Received(Vec<u8>, Option<SocketAddr>),
    /// One of [`ERRORS`].
    Error(String),
}

/// Names of errors: those of `std::io::ErrorKind` that mean something here, and one that has no kind.
pub const ERRORS: [&str; 11] = [
    "AddrInUse",
    "AddrNotAvailable",
    "ConnectionRefused",
    "HostUnreachable",
    "InvalidInput",
    "MessageTooLong",
    "NetworkUnreachable",
    "NotConnected",
    "PermissionDenied",
    "ProtocolUnavailable",
    "WouldBlock",
];

/// Calls of TCP, whose names are kept for them.
const RESERVED: [&str; 5] = ["listen", "accept", "read", "write", "shutdown"];

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
            Self::Icmp => f.write_str("icmp"),
            Self::Raw(number) => write!(f, "raw {number}"),
        }
    }
}

impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttl => "ttl",
            Self::Broadcast => "broadcast",
            Self::MulticastTtl => "multicast-ttl",
            Self::MulticastLoop => "multicast-loop",
            Self::Errors => "errors",
            Self::PathMtu => "path-mtu",
        })
    }
}

impl CallResult {
    /// Whether this is what a script wants. Who sent a datagram may be left out.
    pub(super) fn is(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Received(came, _), Self::Received(wanted, None)) => came == wanted,
            _ => self == wanted,
        }
    }
}

impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Number(number) => write!(f, "{number}"),
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
        cursor.expect_word("socket")?;
        let (kind, version) = socket(cursor)?;
        return Ok((Call::Socket(name.to_owned(), kind, version), CallResult::Ok));
    }
    cursor.expect('(')?;
    let socket = cursor.word("the name of a socket")?.to_owned();
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
            Call::Set(socket, option, cursor.parsed("a number")?)
        }
        "join" | "leave" => {
            cursor.expect(',')?;
            let group = cursor.parsed("a group")?;
            if name == "join" { Call::Join(socket, group) } else { Call::Leave(socket, group) }
        }
        _ if RESERVED.contains(&name) => {
            return Err(format!("`{name}` is kept for TCP, which has no sockets here"));
        }
        _ => {
            let known = "bind, connect, sendto, send, recv, close, set, join or leave";
            return Err(format!("`{name}` is no call: {known} is accepted"));
        }
    };
    cursor.expect(')')?;
    let result = if cursor.eat('=') { result(cursor)? } else { usual_result(&call) };
    Ok((call, result))
}

fn socket(cursor: &mut Cursor<'_>) -> Result<(SocketKind, IpVersion), String> {
    let word = cursor.word("udp, udp6, icmp, icmp6, raw or raw6")?;
    let (kind, version) = match word.strip_suffix('6') {
        Some(kind) => (kind, IpVersion::V6),
        None => (word, IpVersion::V4),
    };
    let kind = match kind {
        "udp" => SocketKind::Udp,
        "icmp" => SocketKind::Icmp,
        "raw" => SocketKind::Raw(cursor.parsed("a protocol number")?),
        "tcp" => return Err("`tcp` has no sockets here yet: its name is kept".to_owned()),
        _ => {
            return Err(format!(
                "`{word}` is no socket: udp, udp6, icmp, icmp6, raw N or raw6 N is accepted"
            ));
        }
    };
    Ok((kind, version))
}

fn option(word: &str) -> Result<SocketOption, String> {
    match word {
        "ttl" => Ok(SocketOption::Ttl),
        "broadcast" => Ok(SocketOption::Broadcast),
        "multicast-ttl" => Ok(SocketOption::MulticastTtl),
        "multicast-loop" => Ok(SocketOption::MulticastLoop),
        "errors" => Ok(SocketOption::Errors),
        "path-mtu" => Ok(SocketOption::PathMtu),
        _ => {
            let known = "ttl, broadcast, multicast-ttl, multicast-loop, errors or path-mtu";
            Err(format!("`{word}` is no option: {known} is accepted"))
        }
    }
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
    cursor.number().map(CallResult::Number)
}
