//! What a person can write behind `wirestack serial`, and the program with flags that it stands for.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use wirestack::nic::serial::SerialSpec;

use crate::addresses::AddressArg;
use crate::cli::parse_gateway;
use crate::error::AppError;
use crate::forward::args::Forward;

/// Flags of `serial`.
#[derive(Debug, Args)]
pub struct SerialArgs {
    /// The line: /dev/ttyUSB0@115200, a serial port; pty:LINK, a terminal that is made; unix:PATH or tcp:HOST:PORT, a
    /// socket (,listen=on: somebody comes); exec:COMMAND, a program; or -, stdin and stdout. Behind it, at both ends the
    /// same: ,mtu=BYTES (1006) ,framing=slip|cslip ,crc=on ,flow=rtscts|xonxoff
    #[arg(long, value_name = "LINE", value_parser = parse_line, allow_hyphen_values = true)]
    pub nic: SerialSpec,
    /// Our address; nobody else sees it, so it may be one that the network of this host has too
    #[arg(long, value_name = "ADDR", default_value = "10.0.2.15", value_parser = parse_gateway)]
    pub address: IpAddr,
    /// The address at the other end, for programs that are given none
    #[arg(long, value_name = "ADDR", default_value = "10.0.2.2", value_parser = parse_gateway)]
    pub peer: IpAddr,
    /// No figures of the line while the program runs
    #[arg(short, long)]
    pub quiet: bool,
    /// What runs over the line.
    #[command(subcommand)]
    pub program: SerialProgram,
}

/// Programs over a line. Their other flags are those that they have elsewhere.
#[derive(Debug, Subcommand)]
pub enum SerialProgram {
    /// Listen on this host's own side, and connect to HOST:PORT over the line: `forward 8080:10.0.2.2:80`
    Forward(Forwarding),
    /// Listen on the line's side, and connect to HOST:PORT by this host's kernel: `reverse 80:127.0.0.1:8080`
    Reverse(Forwarding),
    /// Serve files, or a page about itself, to the other end
    Http(Rest),
    /// Echo TCP and UDP
    Echo(Rest),
    /// Ping the other end
    Ping(Rest),
    /// Measure the line: server, client, iperf3-server or iperf3-client
    Perf(Rest),
}

/// Flags of `forward` and `reverse`.
#[derive(Debug, Args)]
pub struct Forwarding {
    /// Where to listen and where to connect to, as `ssh -L` has it; several are accepted
    #[arg(value_name = "[BIND:]PORT:HOST:PORT", required = true)]
    pub forwards: Vec<Forward>,
    /// Flags of `wirestack forward`
    #[arg(value_name = "FLAGS", last = true)]
    pub rest: Vec<OsString>,
}

/// The flags of a program, as they are.
#[derive(Debug, Args)]
pub struct Rest {
    /// Flags of the program of this name
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<OsString>,
}

impl SerialArgs {
    /// The command line of the program that is meant, without the name of the binary; the address of the other end stands
    /// at its end, if it takes one, `with_peer`.
    pub fn command_line(&self, with_peer: bool) -> Vec<OsString> {
        let mut words = self.program_words();
        words.extend(["--nic".into(), format!("serial:{}", self.nic).into()]);
        words.extend(["--address".into(), AddressArg::whole(self.address).to_string().into()]);
        if !self.quiet {
            words.push("--progress".into());
        }
        let rest = match &self.program {
            SerialProgram::Forward(forwarding) | SerialProgram::Reverse(forwarding) => &forwarding.rest[..],
            SerialProgram::Perf(Rest { rest }) => rest.get(1..).unwrap_or_default(),
            SerialProgram::Http(Rest { rest })
            | SerialProgram::Echo(Rest { rest })
            | SerialProgram::Ping(Rest { rest }) => rest,
        };
        words.extend(rest.iter().cloned());
        if with_peer {
            words.push(self.peer.to_string().into());
        }
        words
    }

    /// Whether the program asks somebody.
    pub fn takes_peer(&self) -> bool {
        match &self.program {
            SerialProgram::Ping(_) => true,
            SerialProgram::Perf(Rest { rest }) => {
                rest.first().is_some_and(|side| side == "client" || side == "iperf3-client")
            }
            _ => false,
        }
    }

    fn program_words(&self) -> Vec<OsString> {
        let forwards = |flag: &str, forwarding: &Forwarding| {
            let flags =
                forwarding.forwards.iter().flat_map(|forward| [flag.into(), forward.to_string().into()]);
            std::iter::once("forward".into()).chain(flags).collect()
        };
        match &self.program {
            SerialProgram::Forward(forwarding) => forwards("-L", forwarding),
            SerialProgram::Reverse(forwarding) => forwards("-R", forwarding),
            SerialProgram::Http(_) => vec!["http".into()],
            SerialProgram::Echo(_) => vec!["echo".into()],
            SerialProgram::Ping(_) => vec!["ping".into()],
            SerialProgram::Perf(Rest { rest }) => {
                std::iter::once("perf".into()).chain(rest.first().cloned()).collect()
            }
        }
    }

    /// Checks what does not go together.
    ///
    /// # Errors
    /// Both ends have one address. One line.
    pub fn check(&self) -> Result<(), AppError> {
        if self.address == self.peer {
            let problem = "it is that of --address; the other end has another one";
            return Err(AppError::flag("--peer", self.peer, problem));
        }
        Ok(())
    }
}

/// A line, as `--nic` has it elsewhere or without the kind.
fn parse_line(text: &str) -> Result<SerialSpec, String> {
    text.strip_prefix("serial:").unwrap_or(text).parse()
}
