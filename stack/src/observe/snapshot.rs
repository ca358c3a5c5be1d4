//! All tables of a shard at a point in time: plain data that prints as tables for people, in the words of `ip`, `ss`
//! and the RFCs, and that serde writes as JSON.
//!
//! Times are milliseconds from the time of the snapshot; those that are over are 0. What comes from smoltcp's
//! types (hardware addresses, prefixes) is text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Serialize, Serializer};

use super::table::{Row, Table, flag, or_none, time, until};

/// What a shard knows at a point in time. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The clock of the shard, in microseconds.
    pub now_micros: i64,
    /// Its number.
    pub shard: usize,
    /// The link.
    pub link: Link,
    /// Addresses of ours.
    pub addresses: Table<Address>,
    /// Where packets go next.
    pub routes: Table<Route>,
    /// Who is behind an address of the link.
    pub neighbors: Table<Neighbor>,
    /// Paths that take less than the link.
    pub path_mtu: Table<Path>,
    /// Datagrams of which not all fragments have come.
    pub reassembly: Table<Datagram>,
    /// Groups that we are in.
    pub groups: Table<Group>,
    /// What is known of the routers of groups.
    pub queriers: Table<Querier>,
    /// Sockets of the application.
    pub sockets: Table<Socket>,
    /// Ports of UDP, the stack's own included.
    pub ports: Table<Port>,
    /// The DHCP client, if there is one.
    pub dhcp: Option<Dhcp>,
    /// The DHCPv6 client, if there is one.
    pub dhcp6: Option<Dhcp6>,
    /// Prefixes that routers have advertised, and the addresses that were made of them.
    pub prefixes: Table<Prefix>,
    /// The resolver.
    pub dns: Dns,
    /// What waits, and for how much there is room.
    pub queues: Table<Queue>,
    /// What was counted.
    pub counters: Counts,
    /// What was dropped, by reason.
    pub drops: Counts,
    /// What was spent in each stage of a turn, in units of the caller's clock; all 0 without one.
    pub stages: Counts,
}

/// The link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Our hardware address.
    pub mac: String,
    /// Bytes of a packet at most.
    pub mtu_bytes: usize,
    /// The same of IPv6, of which routers may have told less.
    pub ipv6_mtu_bytes: usize,
    /// Hop limit of packets that do not say.
    pub hop_limit: u8,
}

/// An address of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// With its prefix length.
    pub address: String,
    /// `tentative`, `preferred`, `deprecated`, `duplicate` (RFC 4862 section 2).
    pub state: &'static str,
    /// Where it comes from.
    pub origin: &'static str,
    /// How long it is preferred; `None`: for ever.
    pub preferred_ms: Option<u64>,
    /// How long it is valid; `None`: for ever.
    pub valid_ms: Option<u64>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destinations.
    pub prefix: String,
    /// Who takes the packet; `None`: the destination itself.
    pub gateway: Option<IpAddr>,
    /// The gateway did not answer: others are tried before it.
    pub is_dead: bool,
    /// The lowest wins.
    pub metric: u32,
    /// Where it comes from.
    pub origin: &'static str,
    /// Source of packets that do not say.
    pub source: Option<IpAddr>,
    /// Bytes of a packet, if less than the link takes.
    pub mtu_bytes: Option<u16>,
    /// How long it is good; `None`: for ever.
    pub expires_ms: Option<u64>,
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbor {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if it is known.
    pub mac: Option<String>,
    /// As RFC 4861 section 7.3.2 spells it; and FAILED, PERMANENT.
    pub state: String,
    /// Whether it is a router.
    pub is_router: bool,
    /// When it was last looked up, so long ago.
    pub used_ms: u64,
    /// When its hardware address was last learned, so long ago.
    pub updated_ms: u64,
    /// Requests in this state.
    pub probes: u8,
    /// Frames that wait for it.
    pub parked_frames: usize,
    /// What they take.
    pub parked_bytes: usize,
}

/// A path that takes less than the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Path {
    /// Where it leads.
    pub destination: IpAddr,
    /// The longest packet.
    pub mtu_bytes: u16,
    /// Packets go without DF, for it takes even less.
    pub may_fragment: bool,
    /// When it is forgotten.
    pub expires_ms: u64,
}

/// A datagram of which not all fragments have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Datagram {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol of IPv4; 0 for IPv6.
    pub protocol: u8,
    /// Fragments that are here.
    pub fragments: usize,
    /// Bytes that are here.
    pub received_bytes: usize,
    /// Bytes of the whole, if that is known.
    pub total_bytes: Option<usize>,
    /// Holes between what is here.
    pub holes: usize,
    /// When it is given up.
    pub expires_ms: u64,
    /// Why it was given up already.
    pub abandoned: Option<&'static str>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its address.
    pub group: IpAddr,
    /// `include` or `exclude` (RFC 3376 section 2).
    pub mode: &'static str,
    /// Sources that the mode is about.
    pub sources: Vec<IpAddr>,
    /// Members here; all addresses of ours are one.
    pub members: usize,
    /// How often routers are still told of a change.
    pub reports_left: u8,
    /// When something is sent about it.
    pub next_report_ms: Option<u64>,
}

/// What is known of the routers of groups of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Querier {
    /// The version that is spoken with them.
    pub version: &'static str,
    /// How long, if it is not the newest.
    pub version_ms: Option<u64>,
    /// How often a change is told.
    pub robustness: u8,
    /// Query Interval.
    pub query_interval_ms: u64,
    /// Query Response Interval.
    pub response_interval_ms: u64,
}

/// A socket of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// Its number: unique among those that exist.
    pub id: u32,
    /// `udp`, `icmp`, `icmp6`, or `raw4:` and `raw6:` with a protocol.
    pub kind: String,
    /// Address and port, or identifier.
    pub local: String,
    /// The same of the other end, if it is connected.
    pub remote: Option<String>,
    /// Bytes that wait to be received.
    pub queued_bytes: usize,
    /// Datagrams, replies or packets that wait to be received.
    pub queued: usize,
    /// Those that were queued since it was opened; `None`: not counted.
    pub received: Option<u64>,
    /// Those that found no room.
    pub dropped: u64,
    /// Errors that found no room.
    pub dropped_errors: u64,
}

/// A port of UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Address and port.
    pub local: String,
    /// The other end, if it is connected.
    pub remote: Option<SocketAddr>,
    /// Whose it is: the number of a socket, or a part of the stack.
    pub owner: String,
    /// Whether it may be shared.
    pub reuse: bool,
}

/// The DHCP client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dhcp {
    /// As RFC 2131 figure 5 spells it.
    pub state: &'static str,
    /// Messages in this state without an answer.
    pub attempts: u32,
    /// When something is done.
    pub next_ms: Option<u64>,
    /// What a server has given.
    pub lease: Option<Lease>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// The address with its prefix length.
    pub address: String,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// Default routers.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain of this host.
    pub domain: Option<String>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Bytes of a packet.
    pub mtu_bytes: Option<u16>,
    /// T1; `None`: the lease is for ever.
    pub renews_ms: Option<u64>,
    /// T2.
    pub rebinds_ms: Option<u64>,
    /// When the address goes.
    pub expires_ms: Option<u64>,
}

/// The DHCPv6 client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dhcp6 {
    /// `delayed`, `requesting`, `configured`.
    pub state: &'static str,
    /// Messages without an answer.
    pub attempts: u32,
    /// When something is done.
    pub next_ms: Option<u64>,
}

/// A prefix that a router has advertised, or that of link-local addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prefix {
    /// The prefix.
    pub prefix: String,
    /// The address that was made of it; `None`: it could not be made, or is a duplicate.
    pub address: Option<IpAddr>,
    /// DAD_Counter of RFC 7217.
    pub dad_counter: u8,
    /// How long its address is preferred; `None`: for ever.
    pub preferred_ms: Option<u64>,
    /// How long its address is valid; `None`: for ever.
    pub valid_ms: Option<u64>,
}

/// The resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Name servers, best first.
    pub servers: Table<Server>,
    /// Questions on their way.
    pub queries: Table<Query>,
    /// Lookups that have no end yet.
    pub lookups: usize,
    /// Answers that are remembered.
    pub cache_entries: usize,
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// Answers.
    pub answers: u64,
    /// Tries without an answer.
    pub timeouts: u64,
    /// Refusals, failures, ICMP errors.
    pub failures: u64,
    /// It is asked last for so long.
    pub avoided_ms: Option<u64>,
}

/// A question on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Query {
    /// QNAME.
    pub name: String,
    /// QTYPE.
    pub record_type: &'static str,
    /// Who was asked last.
    pub server: SocketAddr,
    /// From where.
    pub local_port: u16,
    /// Tries.
    pub attempts: u32,
    /// When the next server is asked.
    pub deadline_ms: u64,
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// `outbox`: for the device; `looped`: to ourselves; `tcp`: for whoever serves it; `mailbox`: for other
    /// shards; `commands`: from other threads; `events`: for the application; `parked`: for neighbours.
    pub name: &'static str,
    /// How many; of `parked`, the neighbours being asked for are not counted.
    pub entries: usize,
    /// How many at most; `None`: bounded by bytes, or by the number of sockets.
    pub entries_max: Option<usize>,
    /// Bytes, where these are counted.
    pub bytes: Option<usize>,
    /// Bytes at most.
    pub bytes_max: Option<usize>,
}

/// Names and counts: in JSON an object, for people the ones that are not 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(&'static str, u64)>);

impl Counts {
    /// The count of this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == name).map(|&(_, count)| count)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.0
            .iter()
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(name, count)| writeln!(f, "  {name:<width$}  {count}"))
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Link { mac, mtu_bytes, ipv6_mtu_bytes, hop_limit } = &self.link;
        writeln!(f, "shard {} at {}", self.shard, time(self.now_micros.max(0) as u64 / 1_000))?;
        writeln!(f, "link {mac} mtu {mtu_bytes} mtu6 {ipv6_mtu_bytes} hoplimit {hop_limit}")?;
        write!(f, "{}{}{}", self.addresses, self.routes, self.neighbors)?;
        write!(f, "{}{}{}{}", self.path_mtu, self.reassembly, self.groups, self.queriers)?;
        write!(f, "{}{}{}", self.sockets, self.ports, self.prefixes)?;
        if let Some(dhcp) = &self.dhcp {
            write!(f, "{dhcp}")?;
        }
        if let Some(Dhcp6 { state, attempts, next_ms }) = &self.dhcp6 {
            writeln!(f, "dhcpv6 {state} attempts {attempts} next {}", until(*next_ms))?;
        }
        let Dns { servers, queries, lookups, cache_entries } = &self.dns;
        writeln!(f, "dns lookups {lookups} cache {cache_entries}")?;
        write!(f, "{servers}{queries}{}", self.queues)?;
        for (name, counts) in
            [("counters", &self.counters), ("drops", &self.drops), ("stage times", &self.stages)]
        {
            if counts.0.iter().any(|(_, count)| *count > 0) {
                write!(f, "{name}\n{counts}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Dhcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "dhcp {} attempts {} next {}", self.state, self.attempts, until(self.next_ms))?;
        let Some(lease) = &self.lease else { return Ok(()) };
        let words = |words: &[Ipv4Addr]| words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        writeln!(
            f,
            "  {} from {} renew {} rebind {} expire {}",
            lease.address,
            lease.server,
            until(lease.renews_ms),
            until(lease.rebinds_ms),
            until(lease.expires_ms)
        )?;
        for (name, text) in [
            ("routers", words(&lease.routers)),
            ("dns", words(&lease.dns)),
            ("domain", or_none(lease.domain.as_ref())),
            ("search", lease.search.join(" ")),
            ("mtu", or_none(lease.mtu_bytes)),
        ] {
            if !text.is_empty() {
                writeln!(f, "  {name} {text}")?;
            }
        }
        Ok(())
    }
}

macro_rules! rows {
    ($($row:ident, $title:literal, |$self:ident| { $($column:literal: $cell:expr,)* })*) => {
        $(impl Row for $row {
            const TITLE: &'static str = $title;
            const COLUMNS: &'static [&'static str] = &[$($column),*];

            fn cells(&self) -> Vec<String> {
                let $self = self;
                vec![$($cell),*]
            }
        })*
    };
}

rows! {
    Address, "addresses", |a| {
        "ADDRESS": a.address.clone(),
        "STATE": a.state.into(),
        "ORIGIN": a.origin.into(),
        "PREFERRED": until(a.preferred_ms),
        "VALID": until(a.valid_ms),
    }
    Route, "routes", |r| {
        "PREFIX": r.prefix.clone(),
        "VIA": or_none(r.gateway),
        "METRIC": r.metric.to_string(),
        "PROTO": r.origin.into(),
        "SRC": or_none(r.source),
        "MTU": or_none(r.mtu_bytes),
        "EXPIRES": until(r.expires_ms),
        "FLAGS": flag(r.is_dead, "dead"),
    }
    Neighbor, "neighbours", |n| {
        "ADDRESS": n.address.to_string(),
        "LLADDR": or_none(n.mac.as_ref()),
        "STATE": n.state.clone(),
        "USED": time(n.used_ms),
        "UPDATED": time(n.updated_ms),
        "PROBES": n.probes.to_string(),
        "WAITING": n.parked_frames.to_string(),
        "FLAGS": flag(n.is_router, "router"),
    }
    Path, "path mtu", |p| {
        "DESTINATION": p.destination.to_string(),
        "MTU": p.mtu_bytes.to_string(),
        "EXPIRES": time(p.expires_ms),
        "FLAGS": flag(p.may_fragment, "nodf"),
    }
    Datagram, "reassembly", |d| {
        "SOURCE": d.source.to_string(),
        "DESTINATION": d.destination.to_string(),
        "ID": d.id.to_string(),
        "PROTO": d.protocol.to_string(),
        "FRAGMENTS": d.fragments.to_string(),
        "BYTES": format!("{}/{}", d.received_bytes, d.total_bytes.map_or("?".into(), |all| all.to_string())),
        "HOLES": d.holes.to_string(),
        "EXPIRES": time(d.expires_ms),
        "ABANDONED": or_none(d.abandoned),
    }
    Group, "groups", |g| {
        "GROUP": g.group.to_string(),
        "MODE": g.mode.into(),
        "SOURCES": g.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "MEMBERS": g.members.to_string(),
        "REPORTS": g.reports_left.to_string(),
        "NEXT": or_none(g.next_report_ms.map(time)),
    }
    Querier, "queriers", |q| {
        "VERSION": q.version.into(),
        "FOR": until(q.version_ms),
        "ROBUSTNESS": q.robustness.to_string(),
        "QUERY": time(q.query_interval_ms),
        "RESPONSE": time(q.response_interval_ms),
    }
    Socket, "sockets", |s| {
        "ID": s.id.to_string(),
        "NETID": s.kind.clone(),
        "LOCAL": s.local.clone(),
        "PEER": s.remote.clone().unwrap_or_else(|| "*".into()),
        "RECV-Q": s.queued_bytes.to_string(),
        "QUEUED": s.queued.to_string(),
        "RECEIVED": or_none(s.received),
        "DROPS": s.dropped.to_string(),
        "ERR-DROPS": s.dropped_errors.to_string(),
    }
    Port, "udp ports", |p| {
        "LOCAL": p.local.clone(),
        "PEER": p.remote.map_or("*".into(), |remote| remote.to_string()),
        "OWNER": p.owner.clone(),
        "FLAGS": flag(p.reuse, "reuse"),
    }
    Prefix, "prefixes", |p| {
        "PREFIX": p.prefix.clone(),
        "ADDRESS": or_none(p.address),
        "DAD": p.dad_counter.to_string(),
        "PREFERRED": until(p.preferred_ms),
        "VALID": until(p.valid_ms),
    }
    Server, "name servers", |s| {
        "ADDRESS": s.address.to_string(),
        "ANSWERS": s.answers.to_string(),
        "TIMEOUTS": s.timeouts.to_string(),
        "FAILURES": s.failures.to_string(),
        "AVOIDED": or_none(s.avoided_ms.map(time)),
    }
    Query, "queries", |q| {
        "NAME": q.name.clone(),
        "TYPE": q.record_type.into(),
        "SERVER": q.server.to_string(),
        "PORT": q.local_port.to_string(),
        "TRIES": q.attempts.to_string(),
        "NEXT": time(q.deadline_ms),
    }
    Queue, "queues", |q| {
        "NAME": q.name.into(),
        "ENTRIES": q.entries.to_string(),
        "MAX": or_none(q.entries_max),
        "BYTES": or_none(q.bytes),
        "MAX": or_none(q.bytes_max),
    }
}
