//! What a resolver is told, and the file in which hosts write it down.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use smoltcp::time::Duration;

use super::Name;
use super::hosts::Hosts;

/// What a resolver is told by its owner. Whatever is out of its bounds is taken as the nearest bound.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name servers, best first; 8 at most, the rest is left out.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried for short names, in this order; 8 at most.
    pub search: Vec<Name>,
    /// A name with so many dots is tried as it is before the domains are; 0 to 15, 1 by default.
    pub ndots: usize,
    /// Names that are known without asking.
    pub hosts: Hosts,
    /// How long a server is waited for in the first round; twice that in the second, and so on up to 30
    /// seconds. 10 ms to 30 s; 2 s by default.
    pub timeout: Duration,
    /// Rounds over all servers; 1 to 5, 2 by default.
    pub attempts: u32,
    /// Begin with another server each time.
    pub rotate: bool,
    /// Write names in random case, and believe only who repeats it: more to guess for a forger. Off by
    /// default, for there are servers that do not.
    pub random_case: bool,
    /// Local ports to draw from; 16384-65535 by default.
    pub ports: RangeInclusive<u16>,
    /// Bytes of a datagram that a server may send; 512 to 4096, 1232 by default. 512: without EDNS.
    pub payload_bytes_max: u16,
    /// Answers that are remembered; 1024 by default, 0: none.
    pub cache_entries_max: usize,
    /// Answers are remembered that long at least (0 by default), and
    pub ttl_min: Duration,
    /// that long at most (a day by default).
    pub ttl_max: Duration,
    /// That there is none is remembered that long at most; 15 minutes by default.
    pub negative_ttl_max: Duration,
    /// Lookups at the same time, with those whose events nobody has asked for; 256 by default.
    pub lookups_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            hosts: Hosts::default(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            rotate: false,
            random_case: false,
            ports: 16_384..=65_535,
            payload_bytes_max: 1232,
            cache_entries_max: 1024,
            ttl_min: Duration::ZERO,
            ttl_max: Duration::from_secs(24 * 3600),
            negative_ttl_max: Duration::from_secs(15 * 60),
            lookups_max: 256,
        }
    }
}

impl Config {
    /// Within the bounds that the fields name.
    pub(super) fn bounded(mut self) -> Self {
        self.servers.truncate(SERVERS_MAX);
        self.search.truncate(SEARCH_MAX);
        self.ndots = self.ndots.min(NDOTS_MAX);
        self.timeout = self.timeout.clamp(Duration::from_millis(10), TIMEOUT_MAX);
        self.attempts = self.attempts.clamp(1, ATTEMPTS_MAX);
        self.payload_bytes_max = self.payload_bytes_max.clamp(512, 4096);
        self.ttl_max = self.ttl_max.min(TTL_MAX);
        self.ttl_min = self.ttl_min.min(self.ttl_max);
        self.negative_ttl_max = self.negative_ttl_max.min(self.ttl_max);
        if self.ports.is_empty() || *self.ports.start() == 0 {
            self.ports = Self::default().ports;
        }
        self
    }
}

/// What a file in the form of resolv.conf(5) says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// `nameserver`, with port 53; 8 at most.
    pub servers: Vec<SocketAddr>,
    /// `search` or `domain`, the last of them; 8 at most.
    pub search: Vec<Name>,
    /// `options ndots:`.
    pub ndots: Option<usize>,
    /// `options timeout:`.
    pub timeout: Option<Duration>,
    /// `options attempts:`.
    pub attempts: Option<u32>,
    /// `options rotate`.
    pub rotate: bool,
    /// Lines and words that are none of these.
    pub skipped: usize,
}

impl ResolvConf {
    /// Reads the text of such a file. What is not understood is left out and counted, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                None => {}
                Some("nameserver") => conf.server(words.next().unwrap_or_default()),
                Some("search" | "domain") => {
                    conf.search.clear();
                    words.for_each(|word| conf.search(word));
                }
                Some("options") => words.for_each(|word| conf.option(word)),
                Some(_) => conf.skipped += 1,
            }
        }
        conf
    }

    /// A configuration with what the file says, and the defaults for the rest.
    pub fn to_config(&self) -> Config {
        let default = Config::default();
        Config {
            servers: self.servers.clone(),
            search: self.search.clone(),
            ndots: self.ndots.unwrap_or(default.ndots),
            timeout: self.timeout.unwrap_or(default.timeout),
            attempts: self.attempts.unwrap_or(default.attempts),
            rotate: self.rotate,
            ..default
        }
    }

    fn server(&mut self, word: &str) {
        match word.parse::<IpAddr>() {
            Ok(ip) if self.servers.len() < SERVERS_MAX => self.servers.push(SocketAddr::new(ip, PORT)),
            _ => self.skipped += 1,
        }
    }

    fn search(&mut self, word: &str) {
        match Name::parse(word) {
            Ok(domain) if self.search.len() < SEARCH_MAX => self.search.push(domain),
            // A single dot means that names are tried as they are, which they are anyway.
            _ => self.skipped += usize::from(word != "."),
        }
    }

    fn option(&mut self, word: &str) {
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        match (key, value.parse::<u32>()) {
            ("rotate", Err(_)) => self.rotate = true,
            ("ndots", Ok(ndots)) => self.ndots = Some((ndots as usize).min(NDOTS_MAX)),
            ("timeout", Ok(seconds)) => {
                let timeout = Duration::from_secs(seconds.max(1).into()).min(TIMEOUT_MAX);
                self.timeout = Some(timeout);
            }
            ("attempts", Ok(attempts)) => self.attempts = Some(attempts.clamp(1, ATTEMPTS_MAX)),
            _ => self.skipped += 1,
        }
    }
}

/// The port of name servers.
const PORT: u16 = 53;
const SERVERS_MAX: usize = 8;
const SEARCH_MAX: usize = 8;
const NDOTS_MAX: usize = 15;
const ATTEMPTS_MAX: u32 = 5;
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// A week (RFC 8767 section 4 advises a bound of that order).
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
