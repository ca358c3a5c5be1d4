//! Tests over veth pairs, with Linux as the peer.
//!
//! One binary for all of them, with a `main` of its own: it enters a user namespace while it has only
//! one thread, and it is the program under test when started with a mark as its first argument.

mod bad_input;
mod demo;
mod talk;
mod suppress;
mod testbed;
mod watch;

use std::process::ExitCode;

use wirestack_apps::testbed::enter_user_namespace;
use wirestack_tests::{programs, runner};

fn main() -> ExitCode {
    if let Some(code) = programs::dispatch_program() {
        return code;
    }
    if let Err(error) = enter_user_namespace() {
        eprintln!("these tests need network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    // One line for each module of tests.
    runner::run(
        [testbed::cases(), suppress::cases(), bad_input::cases(), demo::cases()].into_iter().flatten(),
    )
}
