//! Rules of iptables: the same commands, told to people and run by us.
//!
//! The table is `raw`, whose PREROUTING comes before connection tracking and routing, so that it
//! silences both a kernel that owns the address and one that forwards. What is run is `iptables` and
//! `ip6tables` as PATH finds them; rules made by the other variant (`-nft`, `-legacy`) are not seen.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use super::{SuppressError, SuppressStep, sweep, unique_id};
use crate::claim::{Claim, Scope};

/// The commands by which an administrator makes the rules that [`install`](super::install) would
/// make, one for each claim, quoted for a shell.
///
/// Their comment is `wirestack`, without the name of a process: nothing but
/// [`recipe_removal`] or the administrator removes them.
pub fn recipe(interface: &str, claims: &[Claim]) -> Vec<String> {
    let insert = |claim| shell(Rule::new(interface, claim, RECIPE_COMMENT).command(Change::Insert));
    claims.iter().map(insert).collect()
}

/// The commands that undo those of [`recipe`].
pub fn recipe_removal(interface: &str, claims: &[Claim]) -> Vec<String> {
    let delete = |claim| shell(Rule::new(interface, claim, RECIPE_COMMENT).command(Change::Delete));
    claims.iter().map(delete).collect()
}

/// Rules that were inserted, deleted on drop.
#[derive(Debug)]
pub(super) struct Rules {
    /// In the order in which they were inserted: the reverse of the claims.
    rules: Vec<Rule>,
    id: String,
    /// Bound to the name that shows others that this guard lives; unbound after the rules are gone.
    _marker: UnixDatagram,
}

impl Rules {
    pub(super) fn install(interface: &str, claims: &[Claim]) -> Result<Self, SuppressError> {
        if interface.ends_with('+') {
            let why = "iptables takes a `+` at the end of a name for a wildcard: use the method `nft`";
            let source = io::Error::new(io::ErrorKind::InvalidInput, why);
            return Err(SuppressError::new(SuppressStep::Interface, interface, source));
        }
        let id = unique_id();
        // First the marker, then the rules: no sweep of another process finds one without the other.
        let marker = sweep::mark(&id)
            .map_err(|error| SuppressError::new(SuppressStep::Marker, sweep::marker_name(&id), error))?;
        for program in Program::ALL {
            let needed = claims.iter().any(|claim| Program::of(claim.address) == program);
            match sweep::sweep_with(program) {
                Err(error) if needed => return Err(error),
                // Perhaps a kernel without IPv6; this guard does not depend on it.
                Err(error) => log::debug!("{error}"),
                Ok(_) => {}
            }
        }
        // Dropping `guard` on the way out removes what was inserted so far.
        let mut guard = Self { rules: Vec::with_capacity(claims.len()), id, _marker: marker };
        // Each rule is inserted at the top, so the last one comes first.
        for claim in claims.iter().rev() {
            let rule = Rule::new(interface, claim, &guard.comment());
            rule.run(Change::Insert)
                .map_err(|error| SuppressError::new(SuppressStep::Insert, claim, error))?;
            guard.rules.push(rule);
        }
        Ok(guard)
    }

    /// Packets dropped by each rule, in the order of the claims.
    pub(super) fn dropped(&self) -> io::Result<Vec<u64>> {
        let [mut v4, mut v6] = Program::ALL.map(|program| {
            if !self.rules.iter().any(|rule| rule.program == program) {
                return Ok(Vec::new().into_iter());
            }
            let listing = program.run(&["-S", CHAIN, "-v"])?;
            let of_this = sweep::found(&listing).into_iter().filter(|found| found.id == self.id);
            Ok::<_, io::Error>(of_this.map(|found| found.packets).collect::<Vec<_>>().into_iter())
        });
        let (v4, v6) = match (&mut v4, &mut v6) {
            (Ok(v4), Ok(v6)) => (v4, v6),
            (Err(error), _) | (_, Err(error)) => return Err(io::Error::other(error.to_string())),
        };
        let in_order = self.rules.iter().rev();
        let packets = in_order.map(|rule| match rule.program {
            Program::V4 => v4.next().flatten(),
            Program::V6 => v6.next().flatten(),
        });
        packets
            .collect::<Option<_>>()
            .ok_or_else(|| io::Error::other(format!("rules with the comment {} are gone", self.comment())))
    }

    pub(super) fn comment(&self) -> String {
        format!("{COMMENT_PREFIX}{}", self.id)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        for rule in self.rules.drain(..).rev() {
            if let Err(error) = rule.run(Change::Delete) {
                log::warn!("{}", SuppressError::new(SuppressStep::Delete, rule, error));
            }
        }
    }
}

/// One rule, without the words that insert or delete it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    program: Program,
    /// Matches and target.
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Insert,
    Delete,
}

impl Rule {
    fn new(interface: &str, claim: &Claim, comment: &str) -> Self {
        let mut words =
            vec!["-i".to_owned(), interface.to_owned(), "-d".to_owned(), claim.address.to_string()];
        if let Scope::Ports { protocol, ports } = &claim.scope {
            let ports = if ports.start() == ports.end() {
                ports.start().to_string()
            } else {
                format!("{}:{}", ports.start(), ports.end())
            };
            words.extend(["-p".to_owned(), protocol.to_string(), "--dport".to_owned(), ports]);
        }
        words.extend(["-m", "comment", "--comment", comment, "-j", "DROP"].map(str::to_owned));
        Self { program: Program::of(claim.address), words }
    }

    fn run(&self, change: Change) -> io::Result<()> {
        self.program.change(change.flag(), &self.words)
    }

    fn command(self, change: Change) -> impl Iterator<Item = String> {
        let program = [self.program.name()].into_iter().chain(COMMON).chain([change.flag(), CHAIN]);
        program.map(str::to_owned).chain(self.words)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shell([self.program.name().to_owned()].into_iter().chain(self.words.clone())))
    }
}

impl Change {
    fn flag(self) -> &'static str {
        match self {
            Self::Insert => "-I",
            Self::Delete => "-D",
        }
    }
}

/// The program of an address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    V4,
    V6,
}

impl Program {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    /// Changes PREROUTING of the table raw: `flag` is `-I` or `-D`.
    pub(super) fn change(self, flag: &str, words: &[String]) -> io::Result<()> {
        let words: Vec<_> = [flag, CHAIN].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.run(&words).map(drop)
    }

    /// Runs the program on the table raw. Gives its output, or what it complained about.
    pub(super) fn run(self, words: &[&str]) -> io::Result<String> {
        let output = Command::new(self.name())
            .args(COMMON)
            .args(words)
            // The complaints are looked into for hints.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = complaint(&String::from_utf8_lossy(&output.stderr));
        if complaint.is_empty() {
            return Err(io::Error::other(format!("{} ended with {}", self.name(), output.status)));
        }
        Err(io::Error::other(complaint))
    }
}

/// What a program complained about, on one line of bounded length.
fn complaint(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim);
    let told: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("Try `")).collect();
    told.join("; ").chars().take(COMPLAINT_CHARS_MAX).collect()
}

/// A command line of a POSIX shell.
fn shell(words: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c);
    let quoted = words.map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

pub(super) const CHAIN: &str = "PREROUTING";

/// What comes before the id of a guard in the comments of its rules.
pub(super) const COMMENT_PREFIX: &str = "wirestack:";

const RECIPE_COMMENT: &str = "wirestack";

/// Wait at most 5 s while another program changes rules.
const COMMON: [&str; 4] = ["-w", "5", "-t", "raw"];

const COMPLAINT_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Protocol;

    #[test]
    fn recipes() {
        let claims = [
            Claim::ports("10.0.0.2".parse().unwrap(), Protocol::Tcp, 80..=89),
            Claim::ports("fd00::2".parse().unwrap(), Protocol::Udp, 53..=53),
            Claim::address("10.0.0.3".parse().unwrap()),
        ];
        let tail = "-m comment --comment wirestack -j DROP";
        assert_eq!(
            recipe("eth0", &claims),
            [
                format!("iptables -w 5 -t raw -I PREROUTING -i eth0 -d 10.0.0.2 -p tcp --dport 80:89 {tail}"),
                format!("ip6tables -w 5 -t raw -I PREROUTING -i eth0 -d fd00::2 -p udp --dport 53 {tail}"),
                format!("iptables -w 5 -t raw -I PREROUTING -i eth0 -d 10.0.0.3 {tail}"),
            ]
        );
        assert_eq!(
            recipe_removal("a;b'c", &claims)[2],
            format!(r"iptables -w 5 -t raw -D PREROUTING -i 'a;b'\''c' -d 10.0.0.3 {tail}")
        );
    }

    #[test]
    fn complaints() {
        let stderr = "iptables v1.8.9 (legacy): unknown option\n\nTry `iptables -h' for more information.\n";
        assert_eq!(complaint(stderr), "iptables v1.8.9 (legacy): unknown option");
        assert_eq!(complaint(&"é".repeat(1000)).chars().count(), COMPLAINT_CHARS_MAX);
    }
}
