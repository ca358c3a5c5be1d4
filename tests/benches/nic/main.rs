//! How fast frames move: the ways of `AfPacket` against each other and against programs of others, over a
//! veth pair, all in one run.
//!
//! ```text
//! cargo bench -p wirestack-tests --bench nic            # everything
//! cargo bench -p wirestack-tests --bench nic -- rx      # only the groups whose name has this in it
//! ```
//!
//! Needs no root (it makes a user namespace) and two cores. `trafgen`, `netsniff-ng` and `tcpdump` are
//! compared with where they are installed; a line says if not.

mod frames;
mod rtt;
mod rx;
mod table;
mod tx;

use std::process::ExitCode;

use table::Group;

const GROUPS: [Group; 5] = [
    ("tx-60: frames of 60 bytes sent, one core", tx::small),
    ("tx-gso: super-frames of 60 KB sent, one core", tx::large),
    ("rx-60: frames of 60 bytes received while one core sends them", rx::small),
    ("rx-gso: super-frames of 60 KB received while one core sends them", rx::large),
    ("rtt: 60 bytes there and back, no stack", rtt::all),
];

fn main() -> ExitCode {
    table::run(&GROUPS, &table::words())
}
