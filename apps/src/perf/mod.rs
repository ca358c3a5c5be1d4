//! `wirestack perf`: measuring, with a protocol of our own or with iperf3's.
//!
//! | file | what it owns |
//! |---|---|
//! | `args` | what a person can write |
//! | `wire` | what our client and our server say to each other |
//! | `server` | serves all modes |
//! | `client` | connections first, then the clock, then the figures; what all modes have in common |
//! | `stream`, `requests`, `http` | the modes |
//! | `response` | reading the answers of HTTP servers |
//! | `group` | the tasks of a run |
//! | `io` | reading and writing without a buffer for each connection |
//! | `figures` | CPU time, memory, latencies, rates |
//! | `iperf3` | iperf3's protocol, both roles |
//!
//! All of it is written against [`Sockets`](crate::sockets::Sockets), so it is the same for every backend, and
//! figures of them can be compared.

pub mod args;
mod client;
mod figures;
mod group;
mod http;
mod io;
mod iperf3;
mod requests;
mod response;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use wirestack::nic::claim::Protocol;

use self::args::{PerfArgs, PerfCommand, PlaceArgs};
use crate::error::AppError;
use crate::setup::Ports;
use crate::sockets::{self, Program};

/// Runs to the end of the measurement, or until a signal.
///
/// # Errors
/// What is wrong with the flags or the machine, and what ended a test before its time. One line.
pub fn run(args: &PerfArgs) -> Result<(), AppError> {
    let tcp = &[Protocol::Tcp][..];
    let both = &[Protocol::Tcp, Protocol::Udp][..];
    match &args.command {
        PerfCommand::Server(args) => start(&args.place, (args.port, tcp, tcp), server::Server { args }),
        PerfCommand::Client(args) => {
            args.check()?;
            start(&args.place, (args.port, &[], tcp), client::Client { args })
        }
        PerfCommand::Iperf3Server(args) => {
            start(&args.place, (args.port, both, both), iperf3::server::Server { args })
        }
        PerfCommand::Iperf3Client(args) => {
            args.check()?;
            start(&args.place, (args.port, &[], both), iperf3::client::Client { args })
        }
    }
}

/// Runs a program where its flags say; `ports` are the port, with which protocols it is served, and in which the
/// program asks others.
fn start(
    place: &PlaceArgs,
    (port, protocols, sources): (u16, &'static [Protocol], &'static [Protocol]),
    program: impl Program<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    sockets::run(
        place.backend,
        place.host.host.as_ref(),
        Ports { served: vec![port], protocols, sources },
        program,
    )?
}
