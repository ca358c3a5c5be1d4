//! Who is behind an address of the link: ARP (RFC 826) and NDP (RFC 4861).
