//! Names to addresses and back: a stub resolver (RFC 1034 section 5.3.1, RFC 1035, and what came later).
//!
//! ```text
//!  resolve(name) ─▸ literal? ─▸ hosts file? ─▸ localhost? ─▸ search list ─▸ cache? ─▸ question in flight? ─▸ servers
//!                      └────────────┴──────────────┴────────────────────────┴── answered at once            │
//!  poll_event ◂──────────────────────────────────────────────────────────────────────── answer, or none ◂──┘
//! ```
//!
//! [`Resolver`] is a machine over payloads of UDP datagrams: it knows nothing of sockets. Each question goes
//! out with a random identifier from a random port, which the driver binds when it sends
//! ([`Transmit::local_port`]) and lets go when [`Resolver::closed_ports`] says so.
//!
//! What it does not do: it asks over UDP only, so an answer that did not fit is flagged
//! ([`Answer::is_truncated`]) and holds what there was (asking again over TCP is for later); it does not
//! validate DNSSEC; it does not encode international names (IDNA): those are written in their `xn--` form.
//!
//! Messages are read and written by smoltcp's `wire::DnsPacket`: a kept crate that the stack has anyway
//! (0BSD), small, without unsafe code. It reads lazily, so a stranger's message costs no allocation before
//! it was matched with a question, and its names follow pointers backwards only, so that they end. Others
//! (`hickory-proto`, `domain`, `simple-dns`) are larger than what a stub needs. What it cannot read, the
//! record of EDNS, is written here and not read.

mod cache;
mod config;
mod hosts;
mod lookup;
mod message;
pub mod name;
pub mod order;
mod query;
mod resolver;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;

pub use config::{Config, ResolvConf};
pub use hosts::Hosts;
pub use message::RecordType;
pub use name::{Name, NameError};
pub use resolver::Resolver;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Both, asked for at the same time.
    Addresses,
    /// The names of an address, which is written as a literal (`192.0.2.1`, `2001:db8::1`) or as its name in
    /// `in-addr.arpa` or `ip6.arpa`.
    Ptr,
}

/// A call of [`Resolver::resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(u64);

/// A message on its way to a server: one of the tries of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(u64);

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Which try it is.
    pub query: SlotId,
    /// To be bound before it is sent, and to be let go when [`Resolver::closed_ports`] names it. If it cannot
    /// be bound, [`Resolver::handle_bind_failure`] makes the resolver take another one.
    pub local_port: u16,
    /// Where to.
    pub server: SocketAddr,
    /// The message.
    pub payload: Vec<u8>,
}

/// The end of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What [`Resolver::resolve`] returned.
    pub id: QueryId,
    /// What was found.
    pub result: Result<Answer, DnsError>,
}

/// What was found. At least one of the lists is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name that has the records: with the domain of the search list, and behind all aliases.
    pub name: String,
    /// Addresses, IPv6 before IPv4, each in the order of the server; 64 of each at most.
    pub addresses: Vec<IpAddr>,
    /// Names of an address, 64 at most. They are what the owner of the address claims.
    pub names: Vec<String>,
    /// The server had more than fits into a datagram.
    pub is_truncated: bool,
    /// One family of addresses could not be asked for, and the other one could.
    pub missing: Option<DnsError>,
    /// Who said so.
    pub source: Source,
    /// When it is to be asked for anew; `None`: it does not change.
    pub expires: Option<Instant>,
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The name was an address.
    Literal,
    /// The hosts file.
    Hosts,
    /// `localhost` is known to everybody (RFC 6761).
    Special,
    /// Servers, now or some time ago.
    Dns,
}

/// Why nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// There is no such name (NXDOMAIN).
    #[error("there is no such name")]
    NotFound,
    /// The name has no records of this kind.
    #[error("the name has no address or name of this kind")]
    NoData,
    /// No server has answered in time.
    #[error("no name server has answered")]
    TimedOut,
    /// All servers that answered could not, or would not.
    #[error("the name servers refuse or fail: response code {rcode}")]
    ServerFailure {
        /// RCODE of the last answer.
        rcode: u8,
    },
    /// The answer is too long for a datagram, and none of it came.
    #[error("the answer does not fit into a datagram")]
    Truncated,
    /// An alias of an alias, and so on, too often.
    #[error("the name is an alias of too many others")]
    AliasLoop,
    /// The servers were taken away, or there was no free port.
    #[error("there is no name server to ask")]
    NoServer,
}

/// Why a lookup cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No name.
    #[error("{name:?}: {error}")]
    Name {
        /// As asked for.
        name: String,
        /// What is wrong.
        error: NameError,
    },
    /// A name that only a server can know, and there is none.
    #[error("no name server is configured")]
    NoServer,
    /// [`Config::lookups_max`] is reached.
    #[error("{lookups_max} names are being looked up; that is the limit")]
    TooMany {
        /// The limit.
        lookups_max: usize,
    },
}

/// What people want to see of a question on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySnapshot {
    /// QNAME.
    pub name: String,
    /// QTYPE.
    pub record_type: RecordType,
    /// Who was asked last.
    pub server: SocketAddr,
    /// From where.
    pub local_port: u16,
    /// Tries until now.
    pub attempts: u32,
    /// When the next server is asked.
    pub deadline: Instant,
}

/// What people want to see of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSnapshot {
    /// Where it is.
    pub address: SocketAddr,
    /// Answers.
    pub answers: u64,
    /// Tries without an answer.
    pub timeouts: u64,
    /// Answers that were refusals or failures, and ICMP errors.
    pub failures: u64,
    /// It is asked last until then, for it has failed several times.
    pub avoided_until: Option<Instant>,
    /// It takes EDNS.
    pub has_edns: bool,
}
