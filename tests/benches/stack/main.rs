//! How fast the stack is: its tables and turns in memory, and UDP and TCP over a veth pair against the kernel's,
//! both sides in one run.
//!
//! ```text
//! cargo bench -p wirestack-tests --bench stack              # everything
//! cargo bench -p wirestack-tests --bench stack -- lookup    # only the groups whose name has this in it
//! ```
//!
//! Needs no root (it makes a user namespace) and, for groups over a veth pair, two cores. Times are
//! medians of repeats in which both sides take turns. Instructions are counted by valgrind's callgrind, on
//! this program itself, where it is installed; a line says if not.

mod api;
mod count;
mod device;
mod frames;
mod http;
mod loaded;
mod lookup;
mod neighbors;
mod pps;
mod rtt;
#[path = "../nic/table.rs"]
#[allow(dead_code, reason = "the other benchmark measures children as well")]
mod table;
mod tcp;
mod turn;
mod wire;

use std::process::ExitCode;

use table::{Group, Outcome};

const GROUPS: [Group; 13] = [
    ("lookup: a frame classified and its socket found", lookup::all),
    ("turn: what the engine spends, in memory", turn::all),
    ("neighbors: 10 000 hosts that were not known, on a link of 1 ms", neighbors::all),
    ("udp-rtt: 64 bytes there and back, both ends spinning", rtt::all),
    ("udp-pps: 64 bytes received and answered, by CPU time of the whole machine", pps::all),
    ("tcp-memory: a request and its response, and a stream, in memory", tcp::memory),
    ("tcp-idle: memory of connections that are silent", tcp::idle),
    ("tcp-rtt: 64 bytes there and back, both ends spinning", tcp::rtt),
    ("tcp-bulk: one stream, offloads on", tcp::bulk),
    ("tcp-connects: connections made, accepted and closed", tcp::connects),
    ("http: 13 bytes asked for over kept-open connections", http::all),
    ("shards: requests and responses of 64 bytes, by 1 shard and by 2, in memory", api::shards),
    (
        "api-overhead: a request and its response of 64 bytes by each way to use a socket, in memory",
        api::overhead,
    ),
];

fn main() -> ExitCode {
    let words = table::words();
    // Memory is measured where nothing else has been.
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [count::FLAG, kind] => count::run_counted(kind),
        [tcp::IDLE_FLAG] => tcp::run_idle(),
        _ => table::run(&GROUPS, &words),
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
