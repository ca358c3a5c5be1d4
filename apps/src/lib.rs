//! The programs.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

pub mod testbed;

/// Runs the program that `args` name (without the name of the binary) and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let program = args.into_iter().next().unwrap_or_default();
    eprintln!("wirestack: no program {program:?}");
    ExitCode::from(2)
}
