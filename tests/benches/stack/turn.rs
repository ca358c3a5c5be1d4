//! What the engine spends on a datagram and its answer, in memory: all but the device.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;
use wirestack::shard::{Shard, SocketId, UdpBind};

use crate::count::{self, counted};
use crate::device::{Feed, nanos, start};
use crate::frames::{self, PAYLOAD_BYTES};
use crate::table::{Table, pin};
use crate::{Outcome, median};

/// Frames of one repeat.
const FRAMES: usize = 200_000;
const REPEATS: usize = 7;
/// Frames that are counted.
const COUNTED: usize = 20_000;

/// Name for callgrind, title, what is measured, frames a turn.
type Case = (&'static str, &'static str, fn() -> (Shard, Feed), usize);

/// The first is what the others are held against.
const CASES: [Case; 12] = [
    ("udp4", "datagram and reply, IPv4, 64 a turn", || udp(false, 1, 1), 64),
    ("udp6", "datagram and reply, IPv6, 64 a turn", || udp(true, 1, 1), 64),
    ("udp4-single", "datagram and reply, IPv4, 1 a turn", || udp(false, 1, 1), 1),
    ("udp6-single", "datagram and reply, IPv6, 1 a turn", || udp(true, 1, 1), 1),
    ("udp4-ports", "IPv4, 10 000 sockets, one after the other", || udp(false, 10_000, 1), 64),
    ("udp6-ports", "IPv6, 10 000 sockets, one after the other", || udp(true, 10_000, 1), 64),
    ("udp4-hosts", "IPv4, 100 000 neighbours, one after the other", || udp(false, 1, 100_000), 64),
    ("udp4-one-host", "IPv4, the same of whom one talks", || one_of_many(100_000), 64),
    ("udp4-unheard", "datagram without reply, IPv4, 64 a turn", unheard, 64),
    ("echo", "ICMP echo request and reply, IPv4, 64 a turn", echo, 64),
    ("fragments", "fragment (a datagram of 8 192 bytes is 6)", fragmented, 60),
    ("idle", "turn without anything to do", || udp(false, 1, 1), 0),
];

pub(crate) fn all() -> Outcome {
    pin(1);
    let counts = count::is_possible();
    let bench = |(name, title, make, burst): &Case| {
        let (shard, feed) = make();
        (*name, *title, Bench::new(shard, feed, *burst), Vec::new())
    };
    let mut cases: Vec<_> = CASES.iter().map(bench).collect();
    for _ in 0..REPEATS {
        for (_, _, bench, times) in &mut cases {
            let start = Instant::now();
            bench.run(FRAMES);
            times.push(nanos(start) / FRAMES as f64);
        }
    }
    let mut table = Table::default();
    for (name, title, bench, times) in cases {
        bench.check(title);
        let found = if counts { count::instructions(name) } else { None };
        table.line(title, median(times), "ns", &count::remark(found));
    }
    Ok(())
}

/// What callgrind counts.
pub(crate) fn count(kind: &str) -> Option<usize> {
    let (.., make, burst) = CASES.iter().find(|(name, ..)| *name == kind)?;
    let (shard, feed) = make();
    let mut bench = Bench::new(shard, feed, *burst);
    bench.run(COUNTED / 10);
    counted(&mut || bench.run(COUNTED));
    Some(COUNTED)
}

struct Bench {
    shard: Shard,
    feed: Feed,
    now: smoltcp::time::Instant,
    burst: usize,
}

impl Bench {
    fn new(shard: Shard, feed: Feed, burst: usize) -> Self {
        let now = shard.now();
        Self { shard, feed, now, burst }
    }

    /// Takes so many frames, or does so many turns without any.
    fn run(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            self.feed.left = self.burst.min(left);
            left -= self.burst.clamp(1, left);
            // As fast as a wire would bring them.
            self.now += Duration::from_micros(self.burst as u64 / 2);
            black_box(self.shard.turn(self.now, &mut self.feed, answer));
        }
    }

    /// Whether what was measured is what was meant.
    fn check(&self, title: &str) {
        let counters = self.shard.counters();
        assert!(counters.dropped == 0, "{title}: {counters:?} {:?}", self.shard.drops());
    }
}

/// An echo server as an application would write it.
fn answer(shard: &mut Shard) {
    while let Some(event) = shard.next_event() {
        answer_one(shard, event.socket);
    }
}

fn answer_one(shard: &mut Shard, socket: SocketId) {
    let mut payload = [0; PAYLOAD_BYTES];
    while let Some((len, meta)) = shard.udp_recv(socket, &mut payload) {
        if meta.src.port() != UNHEARD {
            let _ = shard.udp_send_to(socket, payload.get(..len).unwrap_or_default(), meta.src);
        }
    }
}

/// A server of datagrams at so many ports, and clients on so many hosts, all known.
fn udp(is_v6: bool, ports: u16, hosts: u32) -> (Shard, Feed) {
    let mut config = frames::config();
    config.neighbor.entries_max = 200_000;
    config.icmp.echoes_per_second = None;
    let mut shard = Shard::new(config, start()).expect("a shard");
    let (ours, _) = frames::hosts(is_v6);
    for port in 0..ports {
        shard.udp_bind(UdpBind::new(SocketAddr::new(ours, FIRST_PORT + port))).expect("a port");
    }
    let mut feed = Feed::new([]);
    for host in 2..2 + hosts {
        if let std::net::IpAddr::V4(ip) = frames::host(false, host) {
            feed.load([frames::arp(
                1,
                EthernetAddress([2, 0, 1, (host >> 16) as u8, (host >> 8) as u8, host as u8]),
                ip,
            )]);
        }
        feed.left = 1;
        shard.turn(shard.now(), &mut feed, |_| {});
    }
    let count = u32::from(ports).max(hosts).max(64);
    feed.load((0..count).map(|index| {
        // Neither in the order in which they were made, nor at random: each as often as the others.
        let (host, port) =
            (2 + index * 7919 % hosts, (u32::from(FIRST_PORT) + index * 7919 % u32::from(ports)) as u16);
        frames::udp(SocketAddr::new(frames::host(is_v6, host), 5000), port, PAYLOAD_BYTES)
    }));
    if is_v6 {
        // The answer asks for the neighbour.
        feed.left = 1;
        shard.turn(shard.now(), &mut feed, answer);
        let std::net::IpAddr::V6(ip) = frames::host(true, 2) else { unreachable!() };
        let mut other = Feed::new([frames::neighbor_advertisement(frames::PEER_MAC, ip)]);
        other.left = 1;
        shard.turn(shard.now(), &mut other, |_| {});
    }
    (shard, feed)
}

/// Many neighbours are known, and one of them talks.
fn one_of_many(hosts: u32) -> (Shard, Feed) {
    let (shard, mut feed) = udp(false, 1, hosts);
    feed.load(
        (0..64)
            .map(|_| frames::udp(SocketAddr::new(frames::host(false, 2), 5000), FIRST_PORT, PAYLOAD_BYTES)),
    );
    (shard, feed)
}

fn unheard() -> (Shard, Feed) {
    let (shard, mut feed) = udp(false, 1, 1);
    let (_, peer) = frames::hosts(false);
    feed.load((0..64).map(|_| frames::udp(SocketAddr::new(peer, UNHEARD), FIRST_PORT, PAYLOAD_BYTES)));
    (shard, feed)
}

fn echo() -> (Shard, Feed) {
    let (shard, mut feed) = udp(false, 1, 1);
    let (_, peer) = frames::hosts(false);
    feed.load((0..64).map(|_| frames::echo_request(peer)));
    (shard, feed)
}

fn fragmented() -> (Shard, Feed) {
    let (shard, mut feed) = udp(false, 1, 1);
    let (_, peer) = frames::hosts(false);
    feed.load(frames::fragments(SocketAddr::new(peer, UNHEARD), FIRST_PORT, 8192));
    (shard, feed)
}

/// Port of the server.
const FIRST_PORT: u16 = 10_000;
/// Port of a client that wants no answer.
const UNHEARD: u16 = 9;
