//! Addresses from servers: DHCPv4 (RFC 2131), stateless DHCPv6 (RFC 8415).
