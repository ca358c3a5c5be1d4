//! Who may listen, connect and be accepted: the application decides, by a function or by [`Rules`] of a file.
//!
//! | file | what it is |
//! |---|---|
//! | `rules` | rules by address and port, with limits; first match wins |
//! | `parse` | the file of them |
//! | `limits` | a rate, and how many connections one source has |
//! | `denials` | what was denied is logged once |
//!
//! [`Shard::set_policy`](crate::shard::Shard::set_policy) installs a [`Policy`]. It is asked
//!
//! - when somebody wants to listen: `tcp_listen`, `udp_bind`;
//! - when somebody wants to connect: `tcp_connect`, `udp_connect`, `udp_dial`;
//! - when a SYN comes for a listener, before there is any state of it; and once more when a SYN cookie comes back, since
//!   nothing was kept of the SYN. While cookies are sent, a connection is two attempts therefore.
//!
//! It is not asked for each datagram: `udp_send_to` of a socket that may be bound sends to anybody. Nor is it for ping and
//! raw sockets, and for what the stack does for itself (DHCP, DNS).
//!
//! Whatever it has allowed it is told the end of, exactly once ([`Policy::ended`]): so it can count.

mod denials;
mod limits;
mod parse;
mod rules;

use std::fmt;
use std::net::SocketAddr;

use smoltcp::time::Instant;
pub use wirestack_nic::claim::Protocol;

pub(crate) use denials::Denials;
pub use limits::{Rate, SOURCES_MAX, Unit};
pub use parse::RulesError;
pub use rules::{RULES_MAX, Rule, Rules, SharedRules};

/// What is attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptKind {
    /// To listen with TCP, or to bind a socket of UDP.
    Listen,
    /// To connect from here.
    Connect,
    /// A peer wants a connection to a listener; TCP only.
    Accept,
}

/// Something that a policy decides on. Addresses are as the stack has them: no IPv4-mapped ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// What.
    pub kind: AttemptKind,
    /// By which protocol.
    pub protocol: Protocol,
    /// Our end. A port that was left to the stack is chosen already; of who listens at all addresses, the address
    /// is unspecified.
    pub local: SocketAddr,
    /// The peer; `None` of who listens.
    pub remote: Option<SocketAddr>,
}

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It may go on.
    Allow,
    /// Not, and a peer gets no answer. Our own application gets an error.
    Deny,
    /// Not, and a peer is told: a reset, as far as the limits of resets go. Our own application gets an error.
    Reject,
}

/// Why a policy cannot decide. The default action applies then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PolicyError {
    /// One line, for the log.
    pub reason: String,
}

impl PolicyError {
    /// An error for this reason.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// Decides who may listen, connect and be accepted. A closure that decides is one, too.
///
/// A shard asks it in the middle of its turn, for each SYN that finds a listener among others: it must be quick, and it
/// must not block.
pub trait Policy: Send {
    /// Decides.
    ///
    /// # Errors
    /// It cannot: the default action applies, and [`ended`](Self::ended) will not be called for this attempt. A panic
    /// counts as an error, where panics unwind.
    fn decide(&mut self, now: Instant, attempt: &Attempt) -> Result<Action, PolicyError>;

    /// Something that was allowed by [`decide`](Self::decide) is over, or has not come to be: called exactly once for
    /// each [`Action::Allow`].
    ///
    /// A connection is over when its state ends, in TIME-WAIT among others, which needs no memory to speak of;
    /// whether the application has closed its handle does not matter. A SYN that was answered with a cookie is
    /// over at once.
    fn ended(&mut self, now: Instant, attempt: &Attempt) {
        let _ = (now, attempt);
    }
}

impl<F> Policy for F
where
    F: FnMut(Instant, &Attempt) -> Result<Action, PolicyError> + Send,
{
    fn decide(&mut self, now: Instant, attempt: &Attempt) -> Result<Action, PolicyError> {
        self(now, attempt)
    }
}

impl fmt::Display for AttemptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Accept => "accept",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        })
    }
}

/// In the words of a rule: `accept tcp from 192.0.2.1:5000 on 10.0.0.2:80`.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, protocol, local, remote } = self;
        write!(f, "{kind} {protocol}")?;
        if let Some(remote) = remote {
            let word = if *kind == AttemptKind::Accept { "from" } else { "to" };
            write!(f, " {word} {remote}")?;
        }
        write!(f, " on {local}")
    }
}
