//! The examples of RFC 6724 section 10, as far as they are about one interface, and IPv4.

use super::super::address::Origin;
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Addresses separated by blanks; `!` before one: deprecated, `?`: tentative. Without a prefix length it
/// is 64 or 24.
fn addresses(text: &str) -> Addresses {
    let mut list = Addresses::new();
    for word in text.split_whitespace() {
        let state = match word.as_bytes()[0] {
            b'!' => AddressState::Deprecated,
            b'?' => AddressState::Tentative,
            _ => AddressState::Preferred,
        };
        let word = word.trim_start_matches(['!', '?']);
        let default_len = if word.contains(':') { 64 } else { 24 };
        let cidr = if word.contains('/') { word.to_owned() } else { format!("{word}/{default_len}") };
        let cidr = cidr.parse().expect("a prefix");
        assert!(list.insert(Address { state, ..Address::preferred(cidr, Origin::Static) }));
    }
    list
}

#[test]
fn sources_of_section_10_1() {
    for (dst, candidates, expected) in [
        ("2001:db8:1::1", "2001:db8:3::1 fe80::1", "2001:db8:3::1"),
        ("ff05::1", "2001:db8:3::1 fe80::1", "2001:db8:3::1"),
        ("2001:db8:1::1", "!2001:db8:1::1 2001:db8:2::1", "2001:db8:1::1"),
        ("fe80::1", "!fe80::2 2001:db8:1::1", "fe80::2"),
        ("2001:db8:1::1", "2001:db8:1::2 2001:db8:3::2", "2001:db8:1::2"),
        (
            "2002:c633:6401::1",
            "2002:c633:6401::d5e3:7953:13eb:22e8 2001:db8:1::2",
            "2002:c633:6401::d5e3:7953:13eb:22e8",
        ),
        // Not in the RFC.
        ("ff02::1", "2001:db8:3::1 fe80::1", "fe80::1"),
        ("2001:db8:1::1", "fe80::1", "fe80::1"),
        ("2001:db8:1::1", "!2001:db8:3::1 2001:db8:4::1", "2001:db8:4::1"),
        ("2001:db8:1::1", "?2001:db8:1::2 2001:db8:4::1", "2001:db8:4::1"),
        ("fd00::1", "2001:db8:1::2 fd01::2", "fd01::2"),
        ("2600::1", "fd01::2 2001:db8:1::2", "2001:db8:1::2"),
        ("::1", "2001:db8:1::2", "::1"),
        // Rule 2 among those that are all too small, and of a group that is not a well-known one.
        ("2001:db8:1::1", "fe80::1 fec0::1", "fec0::1"),
        ("ff12::1", "2001:db8:3::1 fe80::1", "fe80::1"),
        // Rule 6 before rule 8, and rule 8 within the prefix of the source.
        ("2003::1", "2002::1 2600::1", "2600::1"),
        ("2001:db8:1:1::1", "2001:db8:1::2/32 2001:db8:1:8000::2", "2001:db8:1:8000::2"),
    ] {
        for text in [candidates.to_owned(), candidates.rsplit(' ').collect::<Vec<_>>().join(" ")] {
            let chosen = select_source(&addresses(&text), ip(dst), ip(dst));
            assert_eq!(chosen, Some(ip(expected)), "{dst} of {text}");
        }
    }
    for (dst, candidates) in
        [("2001:db8::1", "10.0.0.1"), ("10.0.0.1", "fe80::1"), ("10.0.0.1", "?10.0.0.2"), ("ff02::1", "")]
    {
        assert_eq!(select_source(&addresses(candidates), ip(dst), ip(dst)), None, "{dst}");
    }
}

#[test]
fn sources_of_ipv4() {
    let ours = addresses("10.0.0.2 192.168.1.2 169.254.3.4/16 !172.16.0.2");
    for (dst, next_hop, expected) in [
        ("10.0.0.9", "10.0.0.9", "10.0.0.2"),
        ("192.168.1.9", "192.168.1.9", "192.168.1.2"),
        ("8.8.8.8", "192.168.1.1", "192.168.1.2"),
        ("8.8.8.8", "10.0.0.1", "10.0.0.2"),
        // The prefix of the gateway counts more than bits in common by chance.
        ("192.168.9.9", "10.0.0.1", "10.0.0.2"),
        ("169.254.9.9", "169.254.9.9", "169.254.3.4"),
        ("224.0.0.251", "224.0.0.251", "169.254.3.4"),
        ("172.16.0.2", "172.16.0.2", "172.16.0.2"),
        ("172.16.0.3", "172.16.0.3", "192.168.1.2"),
        ("127.0.0.5", "127.0.0.5", "127.0.0.1"),
    ] {
        assert_eq!(select_source(&ours, ip(dst), ip(next_hop)), Some(ip(expected)), "{dst}");
    }
}

#[test]
fn destinations_of_section_10_2() {
    for (ours, list, expected) in [
        (
            "2001:db8:1::2 fe80::1 169.254.13.78",
            "2001:db8:1::1 198.51.100.121",
            "2001:db8:1::1 198.51.100.121",
        ),
        ("fe80::1 198.51.100.117", "2001:db8:1::1 198.51.100.121", "198.51.100.121 2001:db8:1::1"),
        ("2001:db8:1::2 fe80::1 10.1.2.4", "2001:db8:1::1 10.1.2.3", "2001:db8:1::1 10.1.2.3"),
        ("2001:db8:1::2 fe80::2", "2001:db8:1::1 fe80::1", "fe80::1 2001:db8:1::1"),
        ("2001:db8:1::2 !fe80::2", "2001:db8:1::1 fe80::1", "2001:db8:1::1 fe80::1"),
        (
            "2001:db8:1::2 2001:db8:3f44::2 fe80::2",
            "2001:db8:1::1 2001:db8:3ffe::1",
            "2001:db8:1::1 2001:db8:3ffe::1",
        ),
        ("2002:c633:6401::2 fe80::2", "2002:c633:6401::1 2001:db8:1::1", "2002:c633:6401::1 2001:db8:1::1"),
        (
            "2002:c633:6401::2 2001:db8:1::2 fe80::2",
            "2002:c633:6401::1 2001:db8:1::1",
            "2001:db8:1::1 2002:c633:6401::1",
        ),
        // Not in the RFC: without a source, last; without a route (9.0.0.0/8), last.
        ("10.0.0.2", "2001:db8:1::1 8.8.8.8", "8.8.8.8 2001:db8:1::1"),
        ("10.0.0.2", "9.0.0.1 8.8.8.8", "8.8.8.8 9.0.0.1"),
    ] {
        let has_route = |dst: IpAddr| (!dst.to_string().starts_with("9.")).then_some(dst);
        let expected: Vec<_> = expected.split(' ').map(ip).collect();
        let mut list: Vec<_> = list.split(' ').map(ip).collect();
        for _ in 0..2 {
            sort_destinations(&addresses(ours), has_route, &mut list);
            assert_eq!(list, expected, "{ours}");
            list.reverse();
        }
    }
    // Rule 10: what is alike stays in order.
    let mut alike = ["192.0.2.9", "192.0.2.8", "192.0.2.7"].map(ip);
    sort_destinations(&addresses("10.0.0.2"), Some, &mut alike);
    assert_eq!(alike, ["192.0.2.9", "192.0.2.8", "192.0.2.7"].map(ip));
}

#[test]
fn the_policy_table_is_the_default_one() {
    for (address, precedence, label) in [
        ("::1", 50, 0),
        ("2600::1", 40, 1),
        ("8.8.8.8", 35, 4),
        ("2002::1", 30, 2),
        ("2001::1", 5, 5),
        ("2001:db8::1", 40, 1),
        ("fd00::1", 3, 13),
        ("::1.2.3.4", 1, 3),
        ("fec0::1", 1, 11),
        ("3ffe::1", 1, 12),
    ] {
        assert_eq!(Policy::of(ip(address)), Policy { precedence, label }, "{address}");
    }
}
