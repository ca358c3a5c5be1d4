//! From a frame to the socket it is for: `classify` and the tables of `demux`, at 1 flow and at a million.
//!
//! Each look-up waits for the one before it, as in a loop that handles one frame after the other; a second
//! column lets the processor overlap them. The frame itself is in the cache, where the kernel has put it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use smoltcp::phy::Medium;
use wirestack::demux::{Binding, FlowKey, FlowTable, UdpTable};
use wirestack::ingress::{Body, IpPacket, classify};
use wirestack::random::Random;

use crate::count::{self, counted};
use crate::device::nanos;
use crate::table::{Table, pin};
use crate::{Outcome, frames, median};

/// Flows of the large tables.
const MANY: usize = 1_000_000;
/// Look-ups of one repeat.
const LOOKUPS: usize = 1 << 20;
const REPEATS: usize = 7;
/// Look-ups that are counted.
const COUNTED: usize = 100_000;

/// What the tables say of cache lines: derived from their layout, which `demux::flow_table` describes.
const LINES: &str = "\
  lines touched besides the frame's two (classify keeps nothing): FlowTable IPv4 2 to 3 (16 control bytes \
at any
  offset: 1.23 on average; the entry of 16 bytes, aligned to 4: 1.19), IPv6 2 to 4 (1.23; the entry of 40 \
bytes: 1.56).
  UdpTable, connected: the same. Bound: 2 to 4 (its entry of 64 bytes), the same few whoever sends.";

/// Which table.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Flow,
    Udp,
}

const CASES: [(&str, Kind, bool); 4] = [
    ("FlowTable IPv4", Kind::Flow, false),
    ("FlowTable IPv6", Kind::Flow, true),
    ("UdpTable IPv4", Kind::Udp, false),
    ("UdpTable IPv6", Kind::Udp, true),
];

pub(crate) fn all() -> Outcome {
    pin(1);
    println!("{LINES}");
    let counts = count::is_possible();
    for (name, kind, is_v6) in CASES {
        let mut table = Table::default();
        let mut benches = [1, MANY].map(|flows| Bench::new(kind, is_v6, flows));
        let mut times = [[vec![], vec![]], [vec![], vec![]]];
        for _ in 0..REPEATS {
            for (bench, times) in benches.iter_mut().zip(&mut times) {
                for (is_free, times) in times.iter_mut().enumerate() {
                    let start = Instant::now();
                    black_box(bench.run(LOOKUPS, is_free == 1));
                    times.push(nanos(start) / LOOKUPS as f64);
                }
            }
        }
        drop(benches);
        let mut first = None;
        for (flows, [waiting, free]) in [1, MANY].into_iter().zip(times) {
            let found = if counts { count::instructions(&format!("{kind:?}-{is_v6}-{flows}")) } else { None };
            let base = *first.get_or_insert(found);
            let ratio = found
                .zip(base)
                .map_or(String::new(), |(found, base)| format!(", x{:.3} of those at 1 flow", found / base));
            let remark = format!("{:.0} ns overlapped, {}{ratio}", median(free), count::remark(found));
            table.line(&format!("{name}, {flows} flows"), median(waiting), "ns", &remark);
        }
    }
    Ok(())
}

/// What callgrind counts.
pub(crate) fn count(kind: &str) -> Option<usize> {
    let mut words = kind.split('-');
    let table = match words.next()? {
        "Flow" => Kind::Flow,
        "Udp" => Kind::Udp,
        _ => return None,
    };
    let (is_v6, flows) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mut bench = Bench::new(table, is_v6, flows);
    bench.run(1000, false);
    counted(&mut || {
        black_box(bench.run(COUNTED, false));
    });
    Some(COUNTED)
}

enum Tables {
    Flow(FlowTable<u32>),
    Udp(UdpTable<u32>),
}

struct Bench {
    tables: Tables,
    frame: Vec<u8>,
    /// Where its ports are.
    ports_at: usize,
    /// Ports of the next frames, in the order in which they come: random ones of all flows.
    order: Vec<[u8; 4]>,
}

impl Bench {
    fn new(kind: Kind, is_v6: bool, flows: usize) -> Self {
        let mut random = Random::new(1);
        let (local, remote) = frames::hosts(is_v6);
        let ends = |flow: usize| {
            let local = SocketAddr::new(local, 1 + (flow % LOCAL_PORTS) as u16);
            (local, SocketAddr::new(remote, 1 + (flow / LOCAL_PORTS) as u16))
        };
        let tables = match kind {
            Kind::Flow => {
                let mut table = FlowTable::with_capacity(flows, flows, &mut random);
                for flow in 0..flows {
                    let (local, remote) = ends(flow);
                    let key = FlowKey::new(local, remote).expect("of one family");
                    table.insert(key, flow as u32).expect("there is room");
                }
                Tables::Flow(table)
            }
            Kind::Udp => {
                let mut table = UdpTable::new(flows, &mut random);
                for flow in 0..flows {
                    let (local, remote) = ends(flow);
                    let binding = Binding::new(local.ip(), local.port(), false);
                    let handle = table.bind(binding, true, flow as u32).expect("there is room");
                    table.connect(handle, local.ip(), remote).expect("nobody else is");
                }
                Tables::Udp(table)
            }
        };
        let order = (0..LOOKUPS).map(|_| {
            let (local, remote) = ends(random.below(flows as u32) as usize);
            let [[a, b], [c, d]] = [remote, local].map(|end| end.port().to_be_bytes());
            [a, b, c, d]
        });
        let frame = frames::udp(SocketAddr::new(remote, 1), 1, frames::PAYLOAD_BYTES);
        Self { tables, order: order.collect(), frame, ports_at: if is_v6 { 54 } else { 34 } }
    }

    fn run(&mut self, count: usize, is_free: bool) -> u32 {
        let Self { tables, frame, ports_at, order } = self;
        match (tables, is_free) {
            (Tables::Flow(table), false) => run::<false>(count, frame, *ports_at, order, flow_in(table)),
            (Tables::Flow(table), true) => run::<true>(count, frame, *ports_at, order, flow_in(table)),
            (Tables::Udp(table), false) => run::<false>(count, frame, *ports_at, order, socket_in(table)),
            (Tables::Udp(table), true) => run::<true>(count, frame, *ports_at, order, socket_in(table)),
        }
    }
}

fn flow_in(table: &FlowTable<u32>) -> impl Fn(&IpPacket) -> Option<u32> {
    |ip| {
        let (remote_port, local_port) = ip.ports?;
        table.get(&FlowKey::of_parts(ip.dst, local_port, ip.src, remote_port)?)
    }
}

fn socket_in(table: &UdpTable<u32>) -> impl Fn(&IpPacket) -> Option<u32> {
    |ip| {
        let (remote_port, local_port) = ip.ports?;
        table.lookup(SocketAddr::new(ip.dst, local_port), SocketAddr::new(ip.src, remote_port))
    }
}

/// Classifies frames and looks their flows up.
#[inline(never)]
fn run<const IS_FREE: bool>(
    count: usize,
    frame: &mut [u8],
    ports_at: usize,
    order: &[[u8; 4]],
    lookup: impl Fn(&IpPacket) -> Option<u32>,
) -> u32 {
    let (mut at, mut sum) = (0, 0_u32);
    for _ in 0..count {
        frame[ports_at..ports_at + 4].copy_from_slice(&order[at % LOOKUPS]);
        let packet = classify(Medium::Ethernet, black_box(frame)).expect("it is well-formed");
        let Body::Ip(ip) = &packet.body else { panic!("it is an IP packet") };
        let value = lookup(ip).expect("it is in the table");
        sum = sum.wrapping_add(value);
        // Values are below 2^31: that the next frame depends on this one is known to the compiler only.
        at += 1 + if IS_FREE { 0 } else { (value >> 31) as usize };
    }
    sum
}

/// The rest are ports of the other end.
const LOCAL_PORTS: usize = 1000;
