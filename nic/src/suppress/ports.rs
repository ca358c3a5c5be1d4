//! Source ports of our own on an address that the kernel owns.

use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;

/// Checks that the kernel does not give `range` to its own connections.
///
/// Outgoing connections on an address that the kernel owns take their source ports from one range
/// that is guarded once, so that no rule has to be made for each connection. The kernel must not
/// choose from the same ports: it chooses from `net.ipv4.ip_local_port_range`, for IPv6 as well,
/// except for `net.ipv4.ip_local_reserved_ports` (Documentation/networking/ip-sysctl.rst). A program
/// that binds a port explicitly is not seen here.
///
/// # Errors
/// See [`SourcePortsError`].
pub fn source_port_range_check(range: RangeInclusive<u16>) -> Result<(), SourcePortsError> {
    let local = fs::read_to_string(LOCAL_PORT_RANGE).map_err(SourcePortsError::Read)?;
    let reserved = match fs::read_to_string(LOCAL_RESERVED_PORTS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        reserved => reserved.map_err(SourcePortsError::Read)?,
    };
    check(range, &local, &reserved)
}

/// Why a range of source ports cannot be ours.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourcePortsError {
    /// The range ends before it starts, or holds port 0.
    Empty(RangeInclusive<u16>),
    /// The kernel may take a port of the range for a connection of its own.
    Overlap {
        /// What was asked for.
        wanted: RangeInclusive<u16>,
        /// From which the kernel chooses.
        kernel: RangeInclusive<u16>,
    },
    /// A sysctl could not be read.
    Read(io::Error),
    /// A sysctl does not hold port numbers: its text.
    Malformed(String),
}

impl fmt::Display for SourcePortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(wanted) => {
                write!(f, "source ports {} are no range: give FIRST-LAST, both from 1 to 65535", Span(wanted))
            }
            Self::Overlap { wanted, kernel } => {
                write!(
                    f,
                    "source ports {} overlap {}, from which the kernel chooses (net.ipv4.ip_local_port_range): ",
                    Span(wanted),
                    Span(kernel)
                )?;
                let (below, above) = free(kernel);
                match (below, above) {
                    (None, None) => f.write_str("none is free")?,
                    (Some(one), None) | (None, Some(one)) => write!(f, "{} are free", Span(&one))?,
                    (Some(below), Some(above)) => {
                        write!(f, "{} and {} are free", Span(&below), Span(&above))?;
                    }
                }
                write!(f, ", or reserve yours: sysctl net.ipv4.ip_local_reserved_ports={}", Span(wanted))
            }
            Self::Read(error) => write!(f, "cannot read net.ipv4.ip_local_port_range: {error}"),
            Self::Malformed(text) => write!(f, "the kernel's range of local ports is {text:?}: no ports"),
        }
    }
}

impl std::error::Error for SourcePortsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            _ => None,
        }
    }
}

fn check(range: RangeInclusive<u16>, local: &str, reserved: &str) -> Result<(), SourcePortsError> {
    if range.is_empty() || *range.start() == 0 {
        return Err(SourcePortsError::Empty(range));
    }
    let kernel = parse_range(local)?;
    let reserved = parse_list(reserved)?;
    let taken = *range.start().max(kernel.start())..=*range.end().min(kernel.end());
    let mut taken = taken.filter(|port| !reserved.iter().any(|span| span.contains(port)));
    match taken.next() {
        None => Ok(()),
        Some(_) => Err(SourcePortsError::Overlap { wanted: range, kernel }),
    }
}

/// `ip_local_port_range`: two numbers and white space.
fn parse_range(text: &str) -> Result<RangeInclusive<u16>, SourcePortsError> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) => Ok(first..=last),
        _ => Err(SourcePortsError::Malformed(text.to_owned())),
    }
}

/// `ip_local_reserved_ports`: `8080,9148-9150`, or nothing.
fn parse_list(text: &str) -> Result<Vec<RangeInclusive<u16>>, SourcePortsError> {
    let malformed = |_| SourcePortsError::Malformed(text.to_owned());
    let spans = text.trim().split(',').filter(|span| !span.is_empty());
    spans
        .map(|span| {
            let (first, last) = span.split_once('-').unwrap_or((span, span));
            Ok(first.parse().map_err(malformed)?..=last.parse().map_err(malformed)?)
        })
        .collect()
}

/// What is free below (without the well-known ports) and above the kernel's range.
fn free(kernel: &RangeInclusive<u16>) -> (Option<RangeInclusive<u16>>, Option<RangeInclusive<u16>>) {
    let below = FREE_MIN..=kernel.start().saturating_sub(1);
    let above = kernel.end().checked_add(1).map(|first| first..=u16::MAX);
    (Some(below).filter(|below| !below.is_empty()), above)
}

struct Span<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const LOCAL_RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The first port that is not well-known (RFC 6335 section 6).
const FREE_MIN: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn says(range: RangeInclusive<u16>, local: &str, reserved: &str) -> String {
        check(range, local, reserved).map_or_else(|error| error.to_string(), |()| "free".to_owned())
    }

    #[test]
    fn ranges() {
        let linux = "32768\t60999\n";
        assert_eq!(says(61000..=65535, linux, "\n"), "free");
        assert_eq!(says(1024..=32767, linux, ""), "free");
        let overlap = "source ports 60999-61999 overlap 32768-60999, from which the kernel chooses \
            (net.ipv4.ip_local_port_range): 1024-32767 and 61000-65535 are free, or reserve yours: \
            sysctl net.ipv4.ip_local_reserved_ports=60999-61999";
        assert_eq!(says(60999..=61999, linux, ""), overlap);
        assert_eq!(says(60999..=61999, linux, "8080,60000-60998\n"), overlap);
        assert_eq!(says(60999..=61999, linux, "8080,60999-61500\n"), "free", "the overlap is reserved");
        assert!(says(1024..=1024, "1024 65535", "").contains(": none is free, or"));
        assert!(says(1024..=1024, "1 60999", "").contains(": 61000-65535 are free"));
        #[allow(clippy::reversed_empty_ranges, reason = "it is what is refused")]
        let reversed = 9..=8;
        assert_eq!(
            says(reversed, linux, ""),
            "source ports 9-8 are no range: give FIRST-LAST, both from 1 to 65535"
        );
        assert!(says(0..=8, linux, "").contains("0-8 are no range"));
    }

    #[test]
    fn text_that_is_no_range() {
        for text in ["", "1", "1 2 3", "1 65536", "a b", "-1 5"] {
            assert!(matches!(parse_range(text), Err(SourcePortsError::Malformed(_))), "{text}");
        }
        for text in ["x", "1-", "1-2-3", "70000"] {
            assert!(matches!(parse_list(text), Err(SourcePortsError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn the_kernel_can_be_asked() {
        assert!(!matches!(source_port_range_check(1..=1), Err(SourcePortsError::Read(_))));
    }
}
