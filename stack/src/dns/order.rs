//! In which order addresses are tried.

use std::net::IpAddr;

/// Addresses in the order in which connections are begun (Happy Eyeballs, RFC 8305 section 4): families
/// alternate, beginning with that of the first address. `sorted` is in the order of preference (RFC 6724).
pub fn interleave(sorted: &[IpAddr]) -> Vec<IpAddr> {
    let is_first_v6 = sorted.first().is_some_and(IpAddr::is_ipv6);
    let mut first = sorted.iter().filter(|address| address.is_ipv6() == is_first_v6);
    let mut second = sorted.iter().filter(|address| address.is_ipv6() != is_first_v6);
    let mut order = Vec::with_capacity(sorted.len());
    while order.len() < sorted.len() {
        order.extend(first.next());
        order.extend(second.next());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let parse =
            |text: &str| -> Vec<IpAddr> { text.split_whitespace().map(|a| a.parse().unwrap()).collect() };
        for (sorted, expected) in [
            ("", ""),
            ("1.0.0.1", "1.0.0.1"),
            ("fd00::1 fd00::2 1.0.0.1 1.0.0.2", "fd00::1 1.0.0.1 fd00::2 1.0.0.2"),
            ("1.0.0.1 1.0.0.2 1.0.0.3 fd00::1", "1.0.0.1 fd00::1 1.0.0.2 1.0.0.3"),
            ("fd00::1 1.0.0.1 1.0.0.2", "fd00::1 1.0.0.1 1.0.0.2"),
            ("1.0.0.1 fd00::1 fd00::2 fd00::3", "1.0.0.1 fd00::1 fd00::2 fd00::3"),
        ] {
            assert_eq!(interleave(&parse(sorted)), parse(expected), "{sorted}");
        }
    }
}
