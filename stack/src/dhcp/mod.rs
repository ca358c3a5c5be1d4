//! Addresses and settings from servers: DHCPv4 (RFC 2131), stateless DHCPv6 (RFC 8415).
//!
//! Both clients are machines over payloads of UDP datagrams. They know nothing of sockets, routes or
//! neighbours: whoever drives them sends what [`poll_transmit`](v4::Client::poll_transmit) gives, hands in
//! what came for their port, and does what the events say. The order of a turn is `handle_*` for what has
//! happened, then `poll_transmit` and `poll_event` until both are empty, then `next_deadline`.
//!
//! The fixed header of DHCPv4 is read and written by smoltcp's `wire::DhcpPacket`, names in options by its
//! `wire::DnsPacket`: a kept crate that the stack has anyway (0BSD), small, without unsafe code, and lazy, so
//! that a stranger's message costs no allocation before it was matched with a request. `dhcproto` was the
//! other candidate; it brings all of `hickory-proto` along. The list of options is read here, for options that
//! are split (RFC 3396) or overflow into other fields (option 52) must be put together before they mean
//! anything, and no library does both.

pub mod v4;
pub mod v6;

use smoltcp::wire::EthernetAddress;

/// The unique identifier of a host that has no stable storage: DUID-LL (RFC 8415 section 11.4).
pub fn duid_ll(mac: EthernetAddress) -> [u8; 10] {
    let [a, b, c, d, e, f] = mac.0;
    // Type 3, hardware type 1 (Ethernet).
    [0, 3, 0, 1, a, b, c, d, e, f]
}
