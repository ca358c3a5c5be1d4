//! What a running program tells about itself: `top` prints it, and a status page can.
//!
//! It is put together in the turns of the loop, a bounded piece in each ([`Gather`]), so that nobody who looks makes a
//! connection wait. Reports of several shards are [merged](Report::merge).

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wirestack::shard::{Shard, TcpConnection};
use wirestack::smoltcp::time::Duration;

use crate::serve::Figures;

#[cfg(test)]
pub(crate) mod tests;

/// What is asked of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Connections that are listed, at most; 0..=[`CONNECTIONS_MAX`].
    pub connections: usize,
    /// Which ones, and in which order.
    pub sort: Sort,
}

impl Default for Request {
    fn default() -> Self {
        Self { connections: CONNECTIONS_MAX, sort: Sort::default() }
    }
}

/// Which connections come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// The fastest: by the rates between two reports where they are known, otherwise by what was delivered lately, then
    /// by all bytes.
    #[default]
    Rate,
    /// Those with the longest round-trip time.
    Rtt,
    /// Those that have repeated most.
    Retransmits,
    /// Those with the largest congestion window.
    Cwnd,
    /// By the peer's address and port.
    Peer,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rate, Self::Rtt, Self::Retransmits, Self::Cwnd, Self::Peer];

    /// The next one, around.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// Which of two connections comes first.
    pub fn order(self, one: &ConnectionReport, other: &ConnectionReport) -> Ordering {
        let ends = |connection: &ConnectionReport| (connection.remote, connection.local);
        let by = |key: fn(&ConnectionReport) -> u64| Reverse(key(one)).cmp(&Reverse(key(other)));
        let first = match self {
            Self::Rate => by(|c| c.delivery_rate_bits_per_second.unwrap_or(0))
                .then_with(|| by(|c| c.bytes_in.saturating_add(c.bytes_out))),
            Self::Rtt => by(|c| c.srtt_us.unwrap_or(0)),
            Self::Retransmits => by(|c| c.retransmits),
            Self::Cwnd => by(|c| c.cwnd_bytes),
            Self::Peer => Ordering::Equal,
        };
        // What is left is by address, so that equals do not change places from one report to the next.
        first.then_with(|| ends(one).cmp(&ends(other)))
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "rate",
            Self::Rtt => "rtt",
            Self::Retransmits => "retransmits",
            Self::Cwnd => "cwnd",
            Self::Peer => "peer",
        })
    }
}

impl FromStr for Sort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|sort| sort.to_string() == text);
        named.ok_or("rate, rtt, retransmits, cwnd or peer is accepted")
    }
}

/// What a program says of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Its name: `http`.
    pub program: String,
    /// Its process.
    pub pid: u32,
    /// Of wirestack.
    pub version: String,
    /// Since its start, to the microsecond: rates are differences by this clock.
    pub uptime_seconds: f64,
    /// The device, as `--nic` names it.
    pub nic: String,
    /// Addresses of the stack that can be used, with their prefixes.
    pub addresses: Vec<String>,
    /// Shards that it runs on.
    pub shards: u32,
    /// Everything that is counted, by the names that `--json` has at the end of a program.
    pub counters: BTreeMap<String, u64>,
    /// How full the memory of the stack is.
    pub memory: MemoryReport,
    /// Where it listens.
    pub listeners: Vec<ListenerReport>,
    /// Connections that exist, listed or not.
    pub connections_len: u64,
    /// Some of them.
    pub connections: Vec<ConnectionReport>,
}

/// How much memory a stack uses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryReport {
    /// Send and receive buffers of TCP.
    pub pool_in_use_bytes: u64,
    /// How much they may be.
    pub pool_bytes_max: u64,
    /// Fragments.
    pub reassembly_bytes: u64,
    /// Packets that wait for neighbours.
    pub parked_bytes: u64,
    /// Frames that wait for the device.
    pub outbox_bytes: u64,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// Which shard it is on.
    pub shard: u32,
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections that wait to be accepted.
    pub waiting: u64,
    /// How many may.
    pub backlog: u64,
    /// Handshakes under way.
    pub half_open: u64,
}

/// A connection; what is in bytes, and is not named so, is a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Which shard it is on.
    pub shard: u32,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// State of RFC 9293 section 3.3.2.
    pub state: String,
    /// Whose it is: of the application, of a listener (it waits to be accepted), or of nobody (the application has
    /// closed it).
    pub owner: Owner,
    /// Congestion window.
    pub cwnd_bytes: u64,
    /// Slow-start threshold; none before the first loss.
    pub ssthresh_bytes: Option<u64>,
    /// Sent and not acknowledged.
    pub in_flight_bytes: u64,
    /// Payload of a full segment.
    pub mss_bytes: u64,
    /// An IP packet that the path takes, as far as is known.
    pub path_mtu_bytes: u64,
    /// Smoothed round-trip time; none before the first sample.
    pub srtt_us: Option<u64>,
    /// Its variation.
    pub rttvar_us: u64,
    /// The least round-trip time.
    pub min_rtt_us: Option<u64>,
    /// Retransmission timeout.
    pub rto_ms: u64,
    /// Frames sent again.
    pub retransmits: u64,
    /// Data received in order.
    pub bytes_in: u64,
    /// Data sent, repetitions included.
    pub bytes_out: u64,
    /// Data that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Written, and not acknowledged.
    pub send_buffered_bytes: u64,
    /// Received, and not read.
    pub recv_buffered_bytes: u64,
    /// What was delivered lately.
    pub delivery_rate_bits_per_second: Option<u64>,
    /// What pacing lets go.
    pub pacing_rate_bits_per_second: Option<u64>,
    /// Name of the congestion control.
    pub congestion: String,
    /// What recovery is under way.
    pub recovery: String,
    /// What holds it back: application, receiver or congestion.
    pub limited_by: String,
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The application's.
    Application,
    /// It waits at a listener.
    Listener,
    /// The application has closed it.
    Nobody,
}

/// What a program knows of itself from its start on.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name: `http`.
    pub program: String,
    /// The device, as `--nic` names it.
    pub nic: String,
    /// When it was started.
    pub started: Instant,
}

impl About {
    /// A program that starts now.
    pub fn new(program: impl Into<String>, nic: impl fmt::Display) -> Self {
        Self { program: program.into(), nic: nic.to_string(), started: Instant::now() }
    }
}

/// Looks at the connections of a shard, some in each turn, and keeps those that were asked for.
#[derive(Debug)]
pub struct Gather {
    request: Request,
    /// Number of the shard.
    number: u32,
    next: Option<u32>,
    kept: Vec<ConnectionReport>,
}

impl Gather {
    /// Begins.
    pub fn new(number: u32, request: Request) -> Self {
        let request = Request { connections: request.connections.min(CONNECTIONS_MAX), ..request };
        // Who wants none need not look.
        let next = (request.connections > 0).then_some(0);
        Self { request, number, next, kept: Vec::new() }
    }

    /// Looks at some more, a bounded number. True: that was all.
    pub fn step(&mut self, shard: &Shard) -> bool {
        let Some(first) = self.next else { return true };
        let piece = shard.tcp_connections(first, PLACES_PER_STEP);
        let reported =
            piece.connections.iter().map(|connection| ConnectionReport::of(self.number, connection));
        self.kept.extend(reported);
        self.next = piece.next;
        // Now and then, so that each of them costs the same.
        if self.kept.len() >= 2 * self.request.connections {
            choose(&mut self.kept, self.request);
        }
        self.next.is_none()
    }

    /// The report of a program with this one shard. `figures`: what it has counted.
    pub fn finish(mut self, about: &About, shard: &Shard, figures: &Figures) -> Report {
        sort(&mut self.kept, self.request);
        Report { connections: self.kept, ..Report::of_shard(about, self.number, shard, figures) }
    }
}

/// The first ones, in any order.
fn choose(connections: &mut Vec<ConnectionReport>, request: Request) {
    if let Some(last) = request.connections.checked_sub(1)
        && last < connections.len()
    {
        connections.select_nth_unstable_by(last, |one, other| request.sort.order(one, other));
    }
    connections.truncate(request.connections);
}

/// The first ones, in their order.
fn sort(connections: &mut Vec<ConnectionReport>, request: Request) {
    choose(connections, request);
    connections.sort_unstable_by(|one, other| request.sort.order(one, other));
}

impl Report {
    /// All of a shard but its connections.
    pub fn of_shard(about: &About, number: u32, shard: &Shard, figures: &Figures) -> Self {
        let usable = shard.addresses().filter(|address| address.is_usable());
        let occupancy = shard.occupancy();
        let (pool_in_use, pool_max) = shard.tcp_pool_bytes();
        let listeners = shard.tcp_listeners(LISTENERS_MAX).into_iter().map(|listener| ListenerReport {
            shard: number,
            local: listener.local,
            waiting: listener.waiting as u64,
            backlog: listener.backlog as u64,
            half_open: listener.half_open as u64,
        });
        Self {
            program: about.program.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: about.started.elapsed().as_micros() as f64 / 1e6,
            nic: about.nic.clone(),
            addresses: usable.map(|address| address.cidr.to_string()).collect(),
            shards: 1,
            counters: figures.named().collect(),
            memory: MemoryReport {
                pool_in_use_bytes: pool_in_use as u64,
                pool_bytes_max: pool_max as u64,
                reassembly_bytes: occupancy.reassembly_bytes as u64,
                parked_bytes: occupancy.parked_bytes as u64,
                outbox_bytes: occupancy.outbox_bytes as u64,
            },
            listeners: listeners.collect(),
            // Those of another TCP than the stack's own are known to the program only.
            connections_len: figures.connections.max(shard.tcp_connections_len()) as u64,
            connections: Vec::new(),
        }
    }

    /// Adds what another shard of the same program says: counters are summed up, connections put in their order and cut
    /// to what was asked for.
    pub fn merge(&mut self, other: Self, request: Request) {
        self.uptime_seconds = self.uptime_seconds.max(other.uptime_seconds);
        self.shards += other.shards;
        self.connections_len += other.connections_len;
        for address in other.addresses {
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        for (name, value) in other.counters {
            let sum = self.counters.entry(name).or_default();
            *sum = sum.saturating_add(value);
        }
        let MemoryReport { pool_in_use_bytes, pool_bytes_max, reassembly_bytes, parked_bytes, outbox_bytes } =
            other.memory;
        self.memory.pool_in_use_bytes += pool_in_use_bytes;
        self.memory.pool_bytes_max += pool_bytes_max;
        self.memory.reassembly_bytes += reassembly_bytes;
        self.memory.parked_bytes += parked_bytes;
        self.memory.outbox_bytes += outbox_bytes;
        self.listeners.extend(other.listeners);
        self.listeners.truncate(LISTENERS_MAX);
        self.connections.extend(other.connections);
        sort(&mut self.connections, request);
    }
}

impl ConnectionReport {
    /// What people see of a connection of this shard.
    pub fn of(shard: u32, connection: &TcpConnection) -> Self {
        let TcpConnection { socket, local, remote, is_waiting, info } = connection;
        let micros = |time: Duration| time.total_micros();
        Self {
            shard,
            local: *local,
            remote: *remote,
            state: info.state.to_owned(),
            owner: match (socket, is_waiting) {
                (Some(_), _) => Owner::Application,
                (None, true) => Owner::Listener,
                (None, false) => Owner::Nobody,
            },
            cwnd_bytes: info.cwnd.into(),
            ssthresh_bytes: info.ssthresh.map(u64::from),
            in_flight_bytes: info.in_flight.into(),
            mss_bytes: info.mss.into(),
            path_mtu_bytes: info.path_mtu.into(),
            srtt_us: info.srtt.map(micros),
            rttvar_us: micros(info.rttvar),
            min_rtt_us: info.min_rtt.map(micros),
            rto_ms: info.rto.total_millis(),
            retransmits: info.counters.retransmits.into(),
            bytes_in: info.counters.bytes_received,
            bytes_out: info.counters.bytes_sent,
            bytes_acked: info.counters.bytes_acked,
            send_buffered_bytes: info.send_buffered.into(),
            recv_buffered_bytes: info.recv_buffered.into(),
            delivery_rate_bits_per_second: info.delivery_rate.map(|bytes| bytes.saturating_mul(8)),
            pacing_rate_bits_per_second: info.pacing_rate.map(|bytes| bytes.saturating_mul(8)),
            congestion: info.congestion.to_owned(),
            recovery: info.recovery.to_owned(),
            limited_by: info.limited_by.name().to_owned(),
        }
    }
}

/// Connections that a report lists, at most: half a megabyte of JSON.
pub const CONNECTIONS_MAX: usize = 1_000;
/// Listeners that a report lists, at most.
const LISTENERS_MAX: usize = 1_000;
/// Places of the table of connections that a turn looks at: some tens of microseconds.
const PLACES_PER_STEP: u32 = 256;
