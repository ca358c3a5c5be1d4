//! A client of DHCPv4 (RFC 2131, options of RFC 2132, 3396, 3397, 3442, 4361).
//!
//! ```text
//!  INIT ─ DISCOVER ▸ SELECTING ─ OFFER, REQUEST ▸ REQUESTING ─ ACK ▸ BOUND ─ T1 ▸ RENEWING ─ T2 ▸ REBINDING
//!   ▲                                                                 ▲              │               │
//!   │  link is back:  INIT-REBOOT ─ REQUEST ▸ REBOOTING ─ ACK, or ────┴───── ACK ────┴───── ACK ─────┘
//!   │                                                    nobody answers
//!   └── NAK, the lease is over, address conflict (after 10 s)
//! ```
//!
//! The first offer that can be used is taken. The address is the host's from [`Event::Bound`] to
//! [`Event::Lost`]; in between it stays, also while the link is down, until the lease runs out.
//!
//! What it does not do: it does not probe the address (that is for the neighbours, RFC 5227;
//! [`Client::address_conflict`] is how the client hears of it), and it does not authenticate servers (nobody
//! uses RFC 3118): whoever hears a request on the link can answer it.

mod client;
mod lease;
mod message;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

pub use client::Client;
pub use lease::{LIST_LEN_MAX, Lease, Route};

/// Where the client listens, and where its messages come from.
pub const CLIENT_PORT: u16 = 68;
/// Where its messages go.
pub const SERVER_PORT: u16 = 67;

/// What a client is told by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How servers recognise the host.
    pub client_id: ClientId,
    /// The name that servers may enter into DNS: a label, 63 bytes at most; the rest is cut off.
    pub hostname: Option<String>,
    /// Ask for replies by broadcast, as a host must that takes no packet for an address that it does not have
    /// yet. On by default.
    pub is_broadcast: bool,
    /// An address that the host had in an earlier life: asked for first (INIT-REBOOT).
    pub requested: Option<Ipv4Addr>,
    /// Wait 1 to 10 seconds before the first message, for networks in which all hosts start at once. Off by
    /// default.
    pub has_startup_delay: bool,
    /// Bytes of the longest message that can be received; 576 at least. 1472 by default: an Ethernet frame.
    pub message_bytes_max: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_id: ClientId::default(),
            hostname: None,
            is_broadcast: true,
            requested: None,
            has_startup_delay: false,
            message_bytes_max: 1472,
        }
    }
}

/// The client identifier (option 61). It must not change as long as the host is to be recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientId {
    /// The hardware address, as most hosts do (RFC 2132 section 9.14).
    #[default]
    HardwareAddress,
    /// An identifier that DHCPv6 shares (RFC 4361).
    Duid {
        /// Of the interface.
        iaid: u32,
        /// Of the host, 130 bytes at most; see [`duid_ll`](super::duid_ll).
        duid: Vec<u8>,
    },
}

impl ClientId {
    fn to_bytes(&self, mac: EthernetAddress) -> Vec<u8> {
        match self {
            Self::HardwareAddress => [&[1][..], mac.as_bytes()].concat(),
            Self::Duid { iaid, duid } => [&[255][..], &iaid.to_be_bytes(), duid].concat(),
        }
    }
}

/// Where the client is (RFC 2131 figure 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing is known, or the client is stopped.
    Init,
    /// A DISCOVER is out.
    Selecting,
    /// An offer was taken, and asked for.
    Requesting,
    /// An earlier address will be asked for.
    InitReboot,
    /// An earlier address was asked for.
    Rebooting,
    /// There is a lease, and nothing to do.
    Bound,
    /// The server is asked for more time.
    Renewing,
    /// Any server is asked for more time.
    Rebinding,
}

impl State {
    /// As the RFC spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Selecting => "SELECTING",
            Self::Requesting => "REQUESTING",
            Self::InitReboot => "INIT-REBOOT",
            Self::Rebooting => "REBOOTING",
            Self::Bound => "BOUND",
            Self::Renewing => "RENEWING",
            Self::Rebinding => "REBINDING",
        }
    }
}

/// A message to be sent, from port 68 to port 67.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// `0.0.0.0`, or the address of the lease.
    pub src: Ipv4Addr,
    /// The server, or 255.255.255.255.
    pub dst: Ipv4Addr,
    /// The message.
    pub payload: Vec<u8>,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is an address: it is to be probed and used.
    Bound(Lease),
    /// The address stays, and its times or settings are new.
    Renewed(Lease),
    /// The address is to be given up at once.
    Lost {
        /// It was ours.
        address: Ipv4Addr,
        /// Why.
        reason: LostReason,
    },
    /// A server has said no.
    Nak {
        /// Which one.
        server: Ipv4Addr,
    },
    /// A server offered an address and was not heard of again: the client begins anew.
    Restarted,
}

/// Why an address was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LostReason {
    /// The lease has run out.
    Expired,
    /// The server has refused to go on.
    Nak,
    /// Another address was given.
    Replaced,
    /// Somebody else has it.
    Conflict,
    /// [`Client::release`] was called.
    Released,
}

/// What people want to see of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the client is.
    pub state: State,
    /// The lease, if there is one.
    pub lease: Option<Lease>,
    /// The transaction.
    pub xid: u32,
    /// Messages sent in this state without an answer.
    pub attempts: u32,
    /// When something is to be done.
    pub next_deadline: Option<Instant>,
}
