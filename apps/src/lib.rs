//! The programs of wirestack, in one binary: `demo`, `echo`, `http`, `ping`, `perf`, `serial`, `capture`, and others.
//!
//! | module | what it owns |
//! |---|---|
//! | [`cli`] | what a person can write, and one line for everything that is wrong with it |
//! | [`accept`] | connections for tasks, not more than there are places for |
//! | `addresses` | what `--address` can be, and waiting until it can be used |
//! | `attach` | the devices for which no rule against the kernel is needed: TAP, TUN, netfilter queues |
//! | [`serial`] | serial lines, and the programs over them in one command |
//! | [`net`] | from flags to the configuration of the stack |
//! | `names` | whom the stack asks for names |
//! | [`setup`] | from flags to a device: checks, rings, claims, the guard, impairment, capture |
//! | [`device`] | `--device`: how a packet device moves frames |
//! | [`engine`] | who serves TCP: the stack's own engine or smoltcp's; the connections of a program |
//! | [`host`] | a stack on threads, for a program: launch, ready line, signals, an orderly end |
//! | [`local`] | the same on one thread, with the tasks of a program |
//! | [`policy`] | `--policy`: who may listen, connect and be accepted |
//! | [`privileges`] | what a server gives up once it serves: capabilities, system calls |
//! | [`stream`] | what a program knows of a connection, whichever engine has it |
//! | [`serve`] | the loop of a program: ready line, signals, counters at the end |
//! | [`report`], [`control`] | what a running program tells of itself, and the socket on which it does |
//! | [`sockets`] | sockets of whoever has the TCP, for programs that are the same above all of them |
//! | [`demo`], [`echo`], [`http`], [`forward`], [`ping`], [`perf`], [`capture`], [`bridge`], [`replay`], [`tune`], [`top`], [`doctor`] | the programs |
//! | [`testbed`] | two namespaces and a veth pair, for `demo` and the tests |
#![forbid(unsafe_code)]

pub mod accept;
pub mod addresses;
pub mod api;
mod attach;
pub mod bridge;
pub mod capture;
pub mod cli;
pub mod control;
pub mod demo;
pub mod device;
pub mod doctor;
pub mod echo;
pub mod engine;
pub mod error;
pub mod forward;
pub mod host;
pub mod http;
pub mod local;
mod names;
pub mod net;
pub mod perf;
pub mod ping;
pub mod policy;
pub mod privileges;
pub mod replay;
pub mod report;
mod reserve;
pub mod serial;
pub mod serve;
pub mod setup;
pub mod sockets;
pub mod stream;
pub mod testbed;
pub mod top;
pub mod tune;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program that the arguments name; they are those after the program's own name.
///
/// No thread may have been started before: `demo` makes a user namespace, which Linux allows to
/// single-threaded processes only.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = std::iter::once(OsString::from("wirestack")).chain(args);
    let result = cli::parse(args).and_then(|cli| {
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
            .format_timestamp_micros()
            .init();
        dispatch(cli.command)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.status)
        }
    }
}

/// Runs a program.
fn dispatch(command: cli::Command) -> Result<(), error::AppError> {
    match command {
        cli::Command::Demo(args) => demo::run(&args),
        cli::Command::Echo(args) => echo::run(&args),
        cli::Command::Http(args) => http::run(&args),
        cli::Command::Perf(args) => perf::run(&args),
        cli::Command::Forward(args) => forward::run(&args),
        cli::Command::Serial(args) => serial::run(&args),
        cli::Command::Ping(args) => ping::run(&args),
        cli::Command::Bridge(args) => bridge::run(&args),
        cli::Command::Capture(args) => capture::run(&args),
        cli::Command::Replay(args) => replay::run(&args),
        cli::Command::Tune(args) => tune::run(&args),
        cli::Command::Top(args) => top::run(&args),
        cli::Command::Doctor(args) => doctor::run(&args),
    }
}
