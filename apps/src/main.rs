//! The binary; see the library of this package.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wirestack_apps::run(std::env::args_os().skip(1))
}
