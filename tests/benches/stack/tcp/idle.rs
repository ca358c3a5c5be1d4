//! What an idle connection costs in memory: what a process grows by, everything included.

use std::process::{Command, ExitCode};

use super::line::Both;
use crate::Outcome;
use crate::table::Table;

/// The hidden argument.
pub(crate) const FLAG: &str = "--idle";

const CONNECTIONS: usize = 100_000;
/// What the target allows.
const BYTES_MAX: f64 = 512.0;

pub(crate) fn all() -> Outcome {
    let output = Command::new(std::env::current_exe()?).arg(FLAG).output()?;
    let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let remark = format!("of resident memory, tables and timers included; target {BYTES_MAX} of state alone");
    Table::default().line("an idle connection, one end", bytes, "bytes", &remark);
    Ok(())
}

/// Makes connections, in a process of its own that has done nothing else, and says what an end costs.
pub(crate) fn run_idle() -> ExitCode {
    let few = Both::new(64);
    let before = resident_bytes();
    let many = Both::new(CONNECTIONS);
    let grown = resident_bytes() - before;
    println!("{}", grown / (2 * CONNECTIONS) as f64);
    drop((few, many));
    ExitCode::SUCCESS
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
    pages * 4096.0
}
