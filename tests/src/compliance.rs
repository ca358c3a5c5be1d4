//! The marks that tie code to sentences of RFCs, collected from the sources of the stack and its devices.
//!
//! A mark is a block of line comments directly above the code that it is about:
//!
//! ```text
//! //= rfc8200#4.2
//! //# 01 - discard the packet.
//! ```
//!
//! Where we differ on purpose, `//= type=exception` and `//= reason=...` stand between. The quotation is
//! the RFC's own words, wrapped as the line length wants. To see which sections are marked, and where:
//! `cargo test -p wirestack-tests --lib compliance -- --nocapture`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::tidy::Source;

/// Whose sources have marks.
const MARKED_FOLDERS: [&str; 2] = ["stack/src/", "nic/src/"];

/// Characters that a quotation may have: a few sentences, not a section.
const QUOTE_LEN_MAX: usize = 1000;

/// A sentence of an RFC at a place of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// From the root of the repository, with slashes.
    pub path: String,
    /// Of the line with the section; the first is 1.
    pub line: usize,
    /// Number of the RFC.
    pub rfc: u16,
    /// Its section: `3.2.1`, or `A.2` of an appendix.
    pub section: String,
    /// Why we do not do what it says; `None`: we do.
    pub exception: Option<String>,
    /// What it says, in one line.
    pub quote: String,
}

/// The marks of all marked sources, and what is wrong with others: a line each.
pub fn collect(sources: &[Source]) -> (Vec<Mark>, Vec<String>) {
    let is_marked = |source: &&Source| {
        source.path.ends_with(".rs") && MARKED_FOLDERS.iter().any(|folder| source.path.starts_with(folder))
    };
    let (mut marks, mut findings) = (Vec::new(), Vec::new());
    for source in sources.iter().filter(is_marked) {
        let (found, wrong) = read(&source.path, &source.text);
        marks.extend(found);
        findings.extend(wrong);
    }
    (marks, findings)
}

/// The same for one file.
pub fn read(path: &str, text: &str) -> (Vec<Mark>, Vec<String>) {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let (mut marks, mut findings) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let mut finding = |at: usize, right: &str| {
            let line = lines.get(at).unwrap_or(&"");
            findings.push(format!("{path}:{}: {line:?}: {right}", at + 1));
        };
        if !line.starts_with("//=") {
            if line.contains("//=") {
                finding(at, "a mark has a line of its own");
            } else if line.contains("//#") {
                finding(at, "a quotation follows `//= rfcN#section`");
            }
            at += 1;
            continue;
        }
        let block = Block::read(&lines[at..]);
        match block.mark(path, at + 1) {
            Ok(mark) => marks.push(mark),
            Err((line, right)) => finding(at + line, right),
        }
        at += block.len;
    }
    (marks, findings)
}

/// RFC by RFC the marked sections, and under each the places.
pub fn table(marks: &[Mark]) -> String {
    let mut rfcs: BTreeMap<u16, BTreeMap<Vec<SectionPart>, Vec<&Mark>>> = BTreeMap::new();
    for mark in marks {
        rfcs.entry(mark.rfc).or_default().entry(section_parts(&mark.section)).or_default().push(mark);
    }
    let mut text = String::new();
    for (rfc, sections) in rfcs {
        let _ = writeln!(text, "RFC {rfc}: {}", title(rfc).unwrap_or("?"));
        for mark in sections.into_values().flatten() {
            let _ = write!(text, "  {:10} {}:{}", mark.section, mark.path, mark.line);
            let _ = match &mark.exception {
                Some(reason) => writeln!(text, "  not done: {reason}"),
                None => writeln!(text),
            };
        }
    }
    text
}

/// The lines of a mark: what follows `//=` and `//#`, and the first line behind.
struct Block<'a> {
    heads: Vec<&'a str>,
    quotes: Vec<&'a str>,
    next: Option<&'a str>,
    len: usize,
}

impl<'a> Block<'a> {
    /// From a first line that begins with `//=`.
    fn read(lines: &[&'a str]) -> Self {
        let after = |prefix: &'static str| move |line: &&'a str| line.strip_prefix(prefix);
        let heads: Vec<_> = lines.iter().map_while(after("//=")).collect();
        let quotes: Vec<_> = lines[heads.len()..].iter().map_while(after("//#")).collect();
        let len = heads.len() + quotes.len();
        Self { heads, quotes, next: lines.get(len).copied(), len }
    }

    /// What it says, or which of its lines is wrong and what would be right.
    fn mark(&self, path: &str, line: usize) -> Result<Mark, (usize, &'static str)> {
        let (rfc, section) =
            self.heads.first().and_then(|head| target(head)).ok_or((0, "`//= rfcN#section` is right"))?;
        if title(rfc).is_none() {
            return Err((0, "an RFC that is not in the list of `tests/src/compliance.rs`"));
        }
        let exception = match self.heads.get(1..).unwrap_or_default() {
            [] => None,
            [kind, reason] if *kind == " type=exception" => {
                let reason = reason.strip_prefix(" reason=").filter(|reason| !reason.trim().is_empty());
                Some(reason.ok_or((2, "`//= reason=...` is right"))?.to_owned())
            }
            _ => return Err((1, "`//= type=exception` and `//= reason=...` are right, or nothing")),
        };
        for (at, quote) in self.quotes.iter().enumerate() {
            if !quote.starts_with(' ') || quote.trim().is_empty() {
                return Err((self.heads.len() + at, "`//# ` and words of the RFC are right"));
            }
        }
        let quote = self.quotes.iter().map(|quote| quote.trim()).collect::<Vec<_>>().join(" ");
        if quote.is_empty() {
            return Err((self.len - 1, "`//# ` and words of the RFC follow"));
        }
        if quote.len() > QUOTE_LEN_MAX {
            return Err((self.heads.len(), "a few sentences are right"));
        }
        // Whole lines of blanks and closing braces are no code that does what the RFC says.
        if self.next.is_none_or(|next| next.is_empty() || next.starts_with('}')) {
            return Err((self.len - 1, "code follows directly"));
        }
        Ok(Mark { path: path.to_owned(), line, rfc, section: section.to_owned(), exception, quote })
    }
}

/// RFC and section of ` rfcN#section`.
fn target(head: &str) -> Option<(u16, &str)> {
    let (number, section) = head.strip_prefix(" rfc")?.split_once('#')?;
    let is_number = |text: &str| {
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_appendix = |text: &str| matches!(text.as_bytes(), [b'A'..=b'Z']);
    let (first, rest) = section.split_once('.').unwrap_or((section, "1"));
    let is_section = (is_number(first) || is_appendix(first)) && rest.split('.').all(is_number);
    (is_number(number) && is_section).then_some(())?;
    Some((number.parse().ok()?, section))
}

/// Numbers are in the order of their values, and appendices behind them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SectionPart {
    Number(u32),
    Appendix(String),
}

fn section_parts(section: &str) -> Vec<SectionPart> {
    let part = |part: &str| match part.parse() {
        Ok(number) => SectionPart::Number(number),
        Err(_) => SectionPart::Appendix(part.to_owned()),
    };
    section.split('.').map(part).collect()
}

/// The title of an RFC of the list.
fn title(rfc: u16) -> Option<&'static str> {
    RFCS.iter().find(|(number, _)| *number == rfc).map(|(_, title)| *title)
}

/// What may be marked. One that is missing is added with its title.
const RFCS: &[(u16, &str)] = &[
    (768, "User Datagram Protocol"),
    (791, "Internet Protocol"),
    (792, "Internet Control Message Protocol"),
    (815, "IP Datagram Reassembly Algorithms"),
    (826, "An Ethernet Address Resolution Protocol"),
    (894, "A Standard for the Transmission of IP Datagrams over Ethernet Networks"),
    (919, "Broadcasting Internet Datagrams"),
    (922, "Broadcasting Internet Datagrams in the Presence of Subnets"),
    (1034, "Domain Names: Concepts and Facilities"),
    (1035, "Domain Names: Implementation and Specification"),
    (1071, "Computing the Internet Checksum"),
    (1112, "Host Extensions for IP Multicasting"),
    (1122, "Requirements for Internet Hosts: Communication Layers"),
    (1123, "Requirements for Internet Hosts: Application and Support"),
    (1144, "Compressing TCP/IP Headers for Low-Speed Serial Links"),
    (1191, "Path MTU Discovery"),
    (1337, "TIME-WAIT Assassination Hazards in TCP"),
    (1624, "Computation of the Internet Checksum via Incremental Update"),
    (1812, "Requirements for IP Version 4 Routers"),
    (1858, "Security Considerations for IP Fragment Filtering"),
    (2018, "TCP Selective Acknowledgment Options"),
    (2113, "IP Router Alert Option"),
    (2131, "Dynamic Host Configuration Protocol"),
    (2132, "DHCP Options and BOOTP Vendor Extensions"),
    (2236, "Internet Group Management Protocol, Version 2"),
    (2308, "Negative Caching of DNS Queries"),
    (2464, "Transmission of IPv6 Packets over Ethernet Networks"),
    (2675, "IPv6 Jumbograms"),
    (2710, "Multicast Listener Discovery for IPv6"),
    (2711, "IPv6 Router Alert Option"),
    (2883, "An Extension to the Selective Acknowledgement Option for TCP"),
    (3021, "Using 31-Bit Prefixes on IPv4 Point-to-Point Links"),
    (3168, "The Addition of Explicit Congestion Notification to IP"),
    (3376, "Internet Group Management Protocol, Version 3"),
    (3396, "Encoding Long Options in DHCPv4"),
    (3397, "DHCP Domain Search Option"),
    (3442, "The Classless Static Route Option for DHCPv4"),
    (3596, "DNS Extensions to Support IP Version 6"),
    (3646, "DNS Configuration Options for DHCPv6"),
    (3810, "Multicast Listener Discovery Version 2 for IPv6"),
    (3927, "Dynamic Configuration of IPv4 Link-Local Addresses"),
    (4191, "Default Router Preferences and More-Specific Routes"),
    (4291, "IP Version 6 Addressing Architecture"),
    (4302, "IP Authentication Header"),
    (4303, "IP Encapsulating Security Payload"),
    (4361, "Node-specific Client Identifiers for DHCPv4"),
    (4443, "Internet Control Message Protocol for IPv6"),
    (4604, "Using IGMPv3 and MLDv2 for Source-Specific Multicast"),
    (4607, "Source-Specific Multicast for IP"),
    (4821, "Packetization Layer Path MTU Discovery"),
    (4861, "Neighbor Discovery for IP version 6"),
    (4862, "IPv6 Stateless Address Autoconfiguration"),
    (4884, "Extended ICMP to Support Multi-Part Messages"),
    (4963, "IPv4 Reassembly Errors at High Data Rates"),
    (5095, "Deprecation of Type 0 Routing Headers in IPv6"),
    (5227, "IPv4 Address Conflict Detection"),
    (5452, "Measures for Making DNS More Resilient against Forged Answers"),
    (5681, "TCP Congestion Control"),
    (5722, "Handling of Overlapping IPv6 Fragments"),
    (5927, "ICMP Attacks against TCP"),
    (5961, "Improving TCP's Robustness to Blind In-Window Attacks"),
    (6056, "Recommendations for Transport-Protocol Port Randomization"),
    (6191, "Reducing the TIME-WAIT State Using TCP Timestamps"),
    (6298, "Computing TCP's Retransmission Timer"),
    (6437, "IPv6 Flow Label Specification"),
    (6528, "Defending against Sequence Number Attacks"),
    (6582, "The NewReno Modification to TCP's Fast Recovery Algorithm"),
    (6633, "Deprecation of ICMP Source Quench Messages"),
    (6675, "A Conservative Loss Recovery Algorithm Based on SACK for TCP"),
    (6691, "TCP Options and Maximum Segment Size"),
    (6724, "Default Address Selection for IPv6"),
    (6761, "Special-Use Domain Names"),
    (6864, "Updated Specification of the IPv4 ID Field"),
    (6891, "Extension Mechanisms for DNS"),
    (6918, "Formally Deprecating Some ICMPv4 Message Types"),
    (6928, "Increasing TCP's Initial Window"),
    (6935, "IPv6 and UDP Checksums for Tunneled Packets"),
    (6946, "Processing of IPv6 Atomic Fragments"),
    (6980, "Security Implications of IPv6 Fragmentation with IPv6 Neighbor Discovery"),
    (7045, "Transmission and Processing of IPv6 Extension Headers"),
    (7048, "Neighbor Unreachability Detection Is Too Impatient"),
    (7112, "Implications of Oversized IPv6 Header Chains"),
    (7126, "Recommendations on Filtering of IPv4 Packets Containing IPv4 Options"),
    (7217, "Semantically Opaque Interface Identifiers with IPv6 SLAAC"),
    (7323, "TCP Extensions for High Performance"),
    (7527, "Enhanced Duplicate Address Detection"),
    (7559, "Packet-Loss Resiliency for Router Solicitations"),
    (7739, "Security Implications of Predictable Fragment Identification Values"),
    (7766, "DNS Transport over TCP: Implementation Requirements"),
    (8085, "UDP Usage Guidelines"),
    (8106, "IPv6 Router Advertisement Options for DNS Configuration"),
    (8200, "Internet Protocol, Version 6"),
    (8201, "Path MTU Discovery for IP version 6"),
    (8305, "Happy Eyeballs Version 2"),
    (8415, "Dynamic Host Configuration Protocol for IPv6"),
    (8504, "IPv6 Node Requirements"),
    (8899, "Packetization Layer Path MTU Discovery for Datagram Transports"),
    (8900, "IP Fragmentation Considered Fragile"),
    (8981, "Temporary Address Extensions for SLAAC in IPv6"),
    (8985, "The RACK-TLP Loss Detection Algorithm for TCP"),
    (9131, "Gratuitous Neighbor Discovery"),
    (9293, "Transmission Control Protocol"),
    (9406, "HyStart++: Modified Slow Start for TCP"),
    (9438, "CUBIC for Fast and Long-Distance Networks"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy;

    #[test]
    fn the_marks_of_this_repository() {
        let sources = tidy::sources(&tidy::repository()).expect("all files can be read");
        let (marks, findings) = collect(&sources);
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
        assert!(!marks.is_empty(), "there are marks");
        println!("{}", table(&marks));
    }

    #[test]
    fn what_is_right_is_read() {
        let text = "fn a() {\n    //= rfc8200#4.2\n    //# 01 - discard\n    //# the packet.\n    b();\n}\n\
                    //= rfc6724#A.1\n//= type=exception\n//= reason=no need\n//# MUST.\n//= rfc791#3\n//# x\nfn c() {}\n\
                    // Plain, /// # Errors, http://x\n";
        let mark = |line, rfc, section: &str, exception: Option<&str>, quote: &str| Mark {
            path: "a.rs".to_owned(),
            line,
            rfc,
            section: section.to_owned(),
            exception: exception.map(str::to_owned),
            quote: quote.to_owned(),
        };
        let expected = vec![
            mark(2, 8200, "4.2", None, "01 - discard the packet."),
            mark(7, 6724, "A.1", Some("no need"), "MUST."),
            mark(11, 791, "3", None, "x"),
        ];
        assert_eq!(read("a.rs", text), (expected, vec![]));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let long = format!("//= rfc791#3\n//# {}\na();", "x".repeat(QUOTE_LEN_MAX + 1));
        for (text, line) in [
            ("//# An orphan.\na();", 1),
            ("a(); //# An orphan.", 1),
            ("a(); //= rfc791#3\n", 1),
            ("//= rfc791#3\na();", 1),
            ("//= rfc791#3\n//#\na();", 2),
            ("//= rfc791#3\n//# x\n//#y\na();", 3),
            ("//= rfc791#3\n//# x\n//# \na();", 3),
            ("//= rfc791#3\n\n//# x\na();", 1), // and an orphan
            ("//= rfc791#3\n//# x\n\na();", 2),
            ("//= rfc791#3\n//# x\n}", 2),
            ("//= rfc791#3\n//# x", 2),
            ("//=rfc791#3\n//# x\na();", 1),
            ("//= RFC791#3\n//# x\na();", 1),
            ("//= rfc791\n//# x\na();", 1),
            ("//= rfc791#\n//# x\na();", 1),
            ("//= rfc791#3.\n//# x\na();", 1),
            ("//= rfc791#3.a\n//# x\na();", 1),
            ("//= rfc791#AB\n//# x\na();", 1),
            ("//= rfc791#03\n//# x\na();", 1),
            ("//= rfc791#section-3\n//# x\na();", 1),
            ("//= rfc70000#3\n//# x\na();", 1),
            ("//= rfc1149#3\n//# x\na();", 1),
            ("//= rfc791#3\n//= type=exception\n//# x\na();", 2),
            ("//= rfc791#3\n//= type=exception\n//= reason= \n//# x\na();", 3),
            ("//= rfc791#3\n//= reason=x\n//# x\na();", 2),
            ("//= rfc791#3\n//= type=todo\n//= reason=x\n//# x\na();", 2),
            (&long, 2),
        ] {
            let (marks, findings) = read("a.rs", text);
            assert!(marks.is_empty(), "{text:?}");
            let place = format!("a.rs:{line}: ");
            assert!(
                findings.first().is_some_and(|finding| finding.starts_with(&place)),
                "{text:?}: {findings:?}"
            );
        }
    }

    #[test]
    fn only_marked_sources_are_read() {
        let source = |path: &str| Source { path: path.to_owned(), text: "//= rfc791#3".to_owned() };
        let found = |path| collect(&[source(path)]).1.len();
        let paths = ["stack/src/a.rs", "nic/src/b/c.rs", "tests/src/a.rs", "stack/README.md"];
        assert_eq!(paths.map(found), [1, 1, 0, 0]);
    }

    #[test]
    fn a_table_is_in_order() {
        let text = ["8200#10", "8200#4.10", "8200#A", "8200#4.2", "791#3"]
            .map(|target| format!("//= rfc{target}\n//# x\na();\n"))
            .concat();
        let except = "//= rfc791#4\n//= type=exception\n//= reason=y\n//# x\na();\n";
        let expected = "RFC 791: Internet Protocol\n  \
                        3          a.rs:13\n  \
                        4          a.rs:16  not done: y\n\
                        RFC 8200: Internet Protocol, Version 6\n  \
                        4.2        a.rs:10\n  \
                        4.10       a.rs:4\n  \
                        10         a.rs:1\n  \
                        A          a.rs:7\n";
        assert_eq!(table(&read("a.rs", &(text + except)).0), expected);
        assert!(RFCS.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
