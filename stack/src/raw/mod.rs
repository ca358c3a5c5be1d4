//! Raw IP sockets (raw(7), RFC 3542 section 3): whole packets of one protocol, in and out.
//!
//! | module | what it owns |
//! |---|---|
//! | [`socket`] | one socket: what it wants to see, and what has come |
//! | [`included`] | packets to be sent whose IPv4 header the application writes (IP_HDRINCL) |
//! | [`type_filter`] | which types of ICMP a socket wants (ICMP_FILTER, ICMP6_FILTER) |
//!
//! Every raw socket that wants a packet gets a copy of it, and the protocol of the stack that it is for
//! sees it as well.

pub mod included;
pub mod socket;
pub mod type_filter;

pub use included::{HeaderIncluded, IncludedError};
pub use socket::{PacketMeta, Socket, SocketSnapshot, Version};
pub use type_filter::TypeFilter;
