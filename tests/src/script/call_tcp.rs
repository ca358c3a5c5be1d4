//! Calls that only TCP has.

use std::fmt;

use super::call::CallResult;
use super::token::Cursor;

/// A call on a connection or a listener; the first field is its name in the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpCall {
    /// `listen(NAME, BACKLOG)`.
    Listen(String, u32),
    /// `CONNECTION = accept(NAME)`, or `accept(NAME)` where it is to fail.
    Accept(String, Option<String>),
    /// `write(NAME, LENGTH)`: so much of the stream, from where the last call has ended.
    Write(String, usize),
    /// `read(NAME) = LENGTH`: so much of the stream; 0 is its end.
    Read(String),
    /// `shutdown(NAME)`: nothing more is sent.
    Shutdown(String),
    /// `abort(NAME)`: ends it with a reset.
    Abort(String),
    /// `error(NAME)`: why the connection is no more; ok if it is well.
    Error(String),
    /// `info(NAME, FIELD)`: what the connection knows of itself.
    Info(String, InfoField),
}

/// What `info` can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InfoField {
    /// The state, in the words of RFC 9293.
    State,
    /// Congestion window, in full segments.
    CongestionWindow,
    /// Slow-start threshold, in full segments; 0 if there is none.
    SlowStartThreshold,
    /// Milliseconds of the retransmission timeout.
    Rto,
    /// Milliseconds of the smoothed round-trip time.
    RoundTrip,
    /// Bytes of a full segment.
    Mss,
    /// Segments sent again, since the connection began.
    Retransmits,
    /// How often the timeout was doubled without progress.
    Backoffs,
}

const FIELDS: [(&str, InfoField); 8] = [
    ("state", InfoField::State),
    ("cwnd", InfoField::CongestionWindow),
    ("ssthresh", InfoField::SlowStartThreshold),
    ("rto", InfoField::Rto),
    ("rtt", InfoField::RoundTrip),
    ("mss", InfoField::Mss),
    ("retransmits", InfoField::Retransmits),
    ("backoffs", InfoField::Backoffs),
];

impl fmt::Display for InfoField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FIELDS.iter().find(|(_, field)| field == self).map_or("", |(word, _)| word))
    }
}

impl fmt::Display for TcpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(name, backlog) => write!(f, "listen({name}, {backlog})"),
            Self::Accept(name, Some(connection)) => write!(f, "{connection} = accept({name})"),
            Self::Accept(name, None) => write!(f, "accept({name})"),
            Self::Write(name, len) => write!(f, "write({name}, {len})"),
            Self::Read(name) => write!(f, "read({name})"),
            Self::Shutdown(name) => write!(f, "shutdown({name})"),
            Self::Abort(name) => write!(f, "abort({name})"),
            Self::Error(name) => write!(f, "error({name})"),
            Self::Info(name, field) => write!(f, "info({name}, {field})"),
        }
    }
}

impl TcpCall {
    /// What it gives if the script does not say it.
    pub(super) fn usual_result(&self) -> CallResult {
        match self {
            Self::Write(_, len) => CallResult::Number(*len as u64),
            _ => CallResult::Ok,
        }
    }
}

/// `(NAME)` behind `CONNECTION = accept`.
pub(super) fn accept(connection: &str, cursor: &mut Cursor<'_>) -> Result<TcpCall, String> {
    cursor.expect('(')?;
    let listener = cursor.word("the name of a listener")?.to_owned();
    cursor.expect(')')?;
    Ok(TcpCall::Accept(listener, Some(connection.to_owned())))
}

/// A call of TCP up to its closing bracket; `None`: it is none.
pub(super) fn call(word: &str, name: &str, cursor: &mut Cursor<'_>) -> Result<Option<TcpCall>, String> {
    let name = name.to_owned();
    Ok(Some(match word {
        "listen" => {
            cursor.expect(',')?;
            TcpCall::Listen(name, cursor.parsed("how many may wait")?)
        }
        "accept" => TcpCall::Accept(name, None),
        "write" => {
            cursor.expect(',')?;
            TcpCall::Write(name, cursor.parsed("a number of bytes")?)
        }
        "read" => TcpCall::Read(name),
        "shutdown" => TcpCall::Shutdown(name),
        "abort" => TcpCall::Abort(name),
        "error" => TcpCall::Error(name),
        "info" => {
            cursor.expect(',')?;
            let word = cursor.word("what to tell")?;
            let known = FIELDS.iter().find(|(known, _)| *known == word);
            let names = || FIELDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            let field = known.ok_or_else(|| format!("`{word}` is not told: {} is accepted", names()))?;
            TcpCall::Info(name, field.1)
        }
        _ => return Ok(None),
    }))
}
