//! How fast the stack is: its tables and turns in memory, and UDP over a veth pair against the kernel's, both
//! sides in one run.
//!
//! ```text
//! cargo bench -p wirestack-tests --bench stack              # everything
//! cargo bench -p wirestack-tests --bench stack -- lookup    # only the groups whose name has this in it
//! ```
//!
//! Needs no root (it makes a user namespace) and, for groups that begin with `udp`, two cores. Times are
//! medians of repeats in which both sides take turns. Instructions are counted by valgrind's callgrind, on
//! this program itself, where it is installed; a line says if not.

mod count;
mod device;
mod frames;
mod lookup;
mod neighbors;
mod pps;
mod rtt;
#[path = "../nic/table.rs"]
#[allow(dead_code, reason = "the other benchmark measures children as well")]
mod table;
mod turn;
mod wire;

use std::process::ExitCode;

use wirestack_apps::testbed::enter_user_namespace;

/// What a group may fail with.
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Its name and what it does.
type Group = (&'static str, fn() -> Outcome);

const GROUPS: [Group; 5] = [
    ("lookup: a frame classified and its socket found", lookup::all),
    ("turn: what the engine spends, in memory", turn::all),
    ("neighbors: 10 000 hosts that were not known, on a link of 1 ms", neighbors::all),
    ("udp-rtt: 64 bytes there and back, both ends spinning", rtt::all),
    ("udp-pps: 64 bytes received and answered, by CPU time of the whole machine", pps::all),
];

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [count::FLAG, kind] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return count::run_counted(kind);
    }
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

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
