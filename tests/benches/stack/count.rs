//! Instructions, counted by callgrind: this program is run again under valgrind with a hidden argument, does
//! one kind of work, and callgrind counts what happens in [`counted`]. It needs no counters of the processor,
//! which virtual machines often do not have, and its figures repeat to the instruction.

use std::env;
use std::process::{Command, ExitCode};

use wirestack_tests::programs::find_program;

use crate::{lookup, tcp, turn};

/// The hidden argument; what is counted follows.
pub(crate) const FLAG: &str = "--count";

/// Runs what callgrind counts.
#[inline(never)]
pub(crate) fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Does one kind of work, and says how many packets it was.
pub(crate) fn run_counted(kind: &str) -> ExitCode {
    let packets = lookup::count(kind).or_else(|| turn::count(kind)).or_else(|| tcp::count(kind));
    let Some(packets) = packets else { return ExitCode::FAILURE };
    println!("{packets}");
    ExitCode::SUCCESS
}

/// Instructions per packet of a kind of work. `None`: valgrind is not installed, or does not work here.
pub(crate) fn instructions(kind: &str) -> Option<f64> {
    let valgrind = find_program("valgrind")?;
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*::counted*"])
        .arg(env::current_exe().ok()?)
        .args([FLAG, kind])
        .output()
        .ok()?;
    let packets: f64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected :"))?.1;
    let collected: f64 = collected.trim().parse().ok()?;
    (collected > 0.0).then_some(collected / packets)
}

/// Says so if nothing can be counted.
pub(crate) fn is_possible() -> bool {
    let is_possible = find_program("valgrind").is_some();
    if !is_possible {
        println!("  instructions are not counted: valgrind is not installed");
    }
    is_possible
}

/// As text for a remark.
pub(crate) fn remark(instructions: Option<f64>) -> String {
    instructions.map_or(String::new(), |count| format!("{count:.0} instructions"))
}
