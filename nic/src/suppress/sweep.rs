//! Rules of iptables that a dead process left behind.
//!
//! Each guard has an id. Its rules carry the id in their comment, and the process holds an abstract
//! Unix socket that is named after it. Such a name is gone when its process is, however that ended; it
//! belongs to the network namespace (unix(7)), as rules do; and it can be asked for across PID
//! namespaces, where a process number means nothing. So an id whose name can be bound is dead, and
//! stays so: an id is never used twice.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::iptables::{CHAIN, COMMENT_PREFIX, Program};
use super::{SuppressError, SuppressStep};

/// Removes the iptables rules of guards whose process is dead, for IPv4 and IPv6, in the network
/// namespace of the calling thread. Tells how many it removed.
///
/// Rules of a live process, of a [`recipe`](super::recipe), and of anybody else are never touched. A
/// program that is not installed has no rules to sweep.
///
/// # Errors
/// Rules could not be listed or deleted: mostly, no CAP_NET_ADMIN. Both families are tried; the
/// first error is told.
pub fn sweep() -> Result<usize, SuppressError> {
    let [v4, v6] = Program::ALL.map(|program| match sweep_with(program) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(0),
        swept => swept,
    });
    Ok(v4? + v6?)
}

/// Sweeps one family.
pub(super) fn sweep_with(program: Program) -> Result<usize, SuppressError> {
    let listing = program
        .run(&["-S", CHAIN])
        .map_err(|error| SuppressError::new(SuppressStep::List, program.name(), error))?;
    let mut ids: Vec<String> = Vec::new();
    let found = found(&listing);
    for id in found.iter().map(|found| &found.id) {
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    let mut swept = 0;
    for id in ids {
        // Held while its rules are deleted, so that no other sweep does the same.
        let _dead = match mark(&id) {
            Ok(marker) => marker,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(SuppressError::new(SuppressStep::Marker, marker_name(&id), error)),
        };
        for rule in found.iter().filter(|found| found.id == id) {
            program.change("-D", &rule.words).map_err(|error| {
                SuppressError::new(SuppressStep::Delete, format!("{COMMENT_PREFIX}{id}"), error)
            })?;
            swept += 1;
        }
    }
    if swept > 0 {
        log::info!("removed {swept} {} rules that a dead process left", program.name());
    }
    Ok(swept)
}

/// Binds the name that shows that the guard lives. AddrInUse: somebody else holds it.
pub(super) fn mark(id: &str) -> io::Result<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(marker_name(id))?;
    UnixDatagram::bind_addr(&name)
}

pub(super) fn marker_name(id: &str) -> String {
    format!("wirestack/guard/{id}")
}

/// A rule of some guard, as the program listed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    /// What follows the name of the chain: matches, target and, if they were asked for, counters.
    pub(super) words: Vec<String>,
    /// Packets that matched, if counters were asked for.
    pub(super) packets: Option<u64>,
}

/// The rules of guards in the output of `iptables -S PREROUTING`. Other rules, and lines that make no
/// sense, are passed over.
pub(super) fn found(listing: &str) -> Vec<Found> {
    listing.lines().filter_map(found_in_line).collect()
}

fn found_in_line(line: &str) -> Option<Found> {
    let words = words(line.strip_prefix("-A PREROUTING ")?)?;
    let value = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1)
    };
    let id = value("--comment")?.strip_prefix(COMMENT_PREFIX)?.to_owned();
    if !is_id(&id) || value("-j").map(String::as_str) != Some("DROP") {
        return None;
    }
    let packets = value("-c").and_then(|packets| packets.parse().ok());
    Some(Found { id, words, packets })
}

/// Whether a text can be an id of ours.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID_LEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Splits a line as iptables writes it: words between spaces, or in double quotes, where a backslash
/// stands before a character that means itself. `None`: a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(char::is_ascii_whitespace).is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut word = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        loop {
            match chars.next() {
                Some('"') if quoted => break,
                Some('\\') if quoted => word.push(chars.next()?),
                Some(c) if !quoted && c.is_ascii_whitespace() => break,
                Some(c) => word.push(c),
                None if quoted => return None,
                None => break,
            }
        }
        words.push(word);
    }
}

/// An id has a process number (at most 7 digits), a count and 16 digits; the name of an abstract
/// socket has room for more.
const ID_LEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_of_guards_are_found() {
        let listing = r#"-P PREROUTING ACCEPT
-A PREROUTING -d 10.0.0.2/32 -i eth0 -p tcp -m tcp --dport 80:89 -m comment --comment "wirestack:12_0_ab" -j DROP
-A PREROUTING -d 10.0.0.2/32 -m comment --comment wirestack -j DROP
-A PREROUTING -d 10.0.0.2/32 -m comment --comment "wirestack:12_0_ab" -j ACCEPT
-A PREROUTING -d 10.0.0.2/32 -m comment --comment "wirestack:../x" -j DROP
-A PREROUTING -d 10.0.0.2/32 -m comment --comment "say \"wirestack:1\"" -j DROP
-A OUTPUT -d 10.0.0.2/32 -m comment --comment "wirestack:12_0_ab" -j DROP
-A PREROUTING -d 10.0.0.3/32 -i eth0 -m comment --comment wirestack:12_1_cd -c 3 120 -j DROP
"#;
        let found = found(listing);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].id.as_str(), found[0].packets), ("12_0_ab", None));
        assert_eq!(
            found[0].words.join("|"),
            "-d|10.0.0.2/32|-i|eth0|-p|tcp|-m|tcp|--dport|80:89|-m|comment|--comment|wirestack:12_0_ab|-j|DROP"
        );
        assert_eq!((found[1].id.as_str(), found[1].packets), ("12_1_cd", Some(3)));
    }

    #[test]
    fn lines_are_split() {
        for (line, expected) in [
            ("", Some(vec![])),
            (" a  b ", Some(vec!["a", "b"])),
            (r#"a "b c" "" d"#, Some(vec!["a", "b c", "", "d"])),
            (r#""a\"\\b" c"#, Some(vec![r#"a"\b"#, "c"])),
            (r#"a "b"#, None),
            (r#""a\"#, None),
        ] {
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect());
            assert_eq!(words(line), expected, "{line}");
        }
    }

    #[test]
    fn a_marker_is_alive_until_it_is_dropped() {
        let id = super::super::unique_id();
        let marker = mark(&id).unwrap();
        assert_eq!(mark(&id).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(marker);
        mark(&id).unwrap();
    }

    proptest! {
        #[test]
        fn any_listing_is_read(listing in r#"(-A PREROUTING )?([-a-z:" \\\n]|--comment|wirestack:){0,40}"#) {
            let _ = found(&listing);
        }
    }
}
