//! UDP (RFC 768, RFC 8085): sockets, their queues, and the header.
//!
//! | module | what it owns |
//! |---|---|
//! | [`header`] | the eight bytes before the payload, read and written, with the checksum |
//! | [`queue`] | the receive queue of a socket: bounded, one copy per datagram, no allocation once warm |
//! | [`meta`] | what is known of a datagram beside its payload |
//! | [`socket`] | one socket: addresses, options, queue, errors |
//! | [`membership`] | which groups a socket has joined, and from whom it wants their datagrams |
//! | [`error`] | what ICMP tells a socket, and what can fail in an operation |
//!
//! What this module does not know: which socket a datagram belongs to ([`demux`](crate::demux)), routes,
//! fragments, devices.

pub mod error;
pub mod header;
pub mod membership;
pub mod meta;
pub mod queue;
pub mod socket;

pub use error::{BindError, ConnectError, SendError, SocketError};
pub use membership::{FilterMode, Membership, MembershipError};
pub use meta::DatagramMeta;
pub use socket::{Fragmenting, Socket, SocketOptions, SocketSnapshot};

/// Number of the protocol.
pub const PROTOCOL: u8 = 17;
