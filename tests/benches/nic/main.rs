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

use wirestack_apps::testbed::enter_user_namespace;

/// A group of measurements with a heading.
type Group = (&'static str, fn() -> Result<(), Box<dyn std::error::Error>>);

const GROUPS: [Group; 5] = [
    ("tx-60: frames of 60 bytes sent, one core", tx::small),
    ("tx-gso: super-frames of 60 KB sent, one core", tx::large),
    ("rx-60: frames of 60 bytes received while one core sends them", rx::small),
    ("rx-gso: super-frames of 60 KB received while one core sends them", rx::large),
    ("rtt: 60 bytes there and back, no stack", rtt::all),
];

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Err(error) = enter_user_namespace() {
        eprintln!("the benchmark needs network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    table::machine();
    for (title, run) in GROUPS {
        if !words.is_empty() && !words.iter().any(|word| title.contains(word.as_str())) {
            continue;
        }
        println!("\n{title}");
        if let Err(error) = run() {
            eprintln!("{title}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
