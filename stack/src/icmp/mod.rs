//! ICMP (RFC 792, RFC 1122 section 3.2.2) and ICMPv6 (RFC 4443): what a message is, errors and echo
//! replies, how many of them are sent, and sockets that ask others for an echo.
//!
//! | module | what it owns |
//! |---|---|
//! | [`message`] | what a message is, and which packet of ours an error is about |
//! | [`kind`] | what an error says, in the words of both versions |
//! | [`chain`] | the headers of a packet, which may be cut short |
//! | [`error`] | the error that is due for a packet, if it is |
//! | [`echo`] | the answer to an echo request |
//! | [`limit`] | how many of both are sent |
//! | [`socket`] | a socket that sends echo requests |
//!
//! Neighbour discovery, router advertisements and MLD are messages of ICMPv6 as well; here they are only
//! told apart, and [`neighbor`](crate::neighbor), [`ip`](crate::ip) and [`igmp_mld`](crate::igmp_mld)
//! read them.

pub mod chain;
pub mod echo;
pub mod error;
pub mod kind;
pub mod limit;
pub mod message;
pub mod socket;

pub use error::{ErrorToSend, error_for};
pub use kind::ErrorKind;
pub use limit::{Answer, Limiter, LimiterConfig};
pub use message::{Echo, ErrorMessage, Message, Quoted, parse};
pub use socket::{EchoMeta, Socket};

/// Number of ICMP.
pub const PROTOCOL_V4: u8 = 1;
/// Number of ICMPv6.
pub const PROTOCOL_V6: u8 = 58;

/// The number for packets of `ip`'s version.
pub fn protocol_for(ip: std::net::IpAddr) -> u8 {
    if ip.is_ipv4() { PROTOCOL_V4 } else { PROTOCOL_V6 }
}
