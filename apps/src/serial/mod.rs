//! Serial lines: `--nic serial:...` of every program, and `wirestack serial`, which needs few flags.
//!
//! ```text
//!   wirestack serial --nic /dev/ttyUSB0@115200 forward 8080:10.0.2.2:80
//!   wirestack forward -L 8080:10.0.2.2:80 --nic serial:/dev/ttyUSB0@115200 --address 10.0.2.15/32 --progress
//! ```

pub mod args;
mod progress;

use std::net::IpAddr;

use wirestack::EthernetAddress;
use wirestack::nic::serial::SerialSpec;
use wirestack::nic::{Nic as _, wait};
use wirestack::tcp::line::LineProfile;

use crate::cli::{self, HostArgs};
use crate::control::Control;
use crate::error::AppError;
use crate::net::{self, Link, Net};
use crate::privileges::Keep;
use crate::serve::{Stop, print};
use crate::setup::{NicProgram, Prepared, Wrap, open_pcap};

use args::SerialArgs;
use progress::Progress;

/// Runs the program that is meant.
///
/// # Errors
/// As the program; what is wrong with the flags, in one line.
pub fn run(args: &SerialArgs) -> Result<(), AppError> {
    args.check()?;
    let parse = |with_peer| {
        let name = std::iter::once("wirestack".into());
        cli::parse(name.chain(args.command_line(with_peer)))
    };
    // Whoever names a destination is not given another one.
    let parsed = match args.takes_peer().then(|| parse(true)) {
        Some(Ok(cli)) => Ok(cli),
        _ => parse(false),
    };
    crate::dispatch(parsed?.command)
}

/// Prepares a program on a serial line, and runs it.
pub(crate) fn start(args: &HostArgs, spec: &SerialSpec, program: impl NicProgram) -> Result<(), AppError> {
    let mut config = net::host_config(args, ANY_MAC);
    net::check(args, &config)?;
    config.takes_link_local = false;
    net::no_rings(args)?;
    net::one_shard(args, program.shards())?;
    check_mtu(args, spec)?;
    let seed = config.seed;
    let mut net = Net::new(args, config, Link::Ip)?;
    net.shard.tcp.options = profile(spec).options();
    if args.show_recipe {
        print("# the kernel has no part in a serial line: no rule is needed");
        return Ok(());
    }
    let pcap = args.pcap.as_deref().map(open_pcap).transpose()?;
    let control = Control::open(args.control.as_deref())?;
    // The last of what can be wrong: opening it may reset whoever is at its other end.
    let nic =
        spec.open(wait::now()).map_err(|error| AppError::usage(format_args!("--nic serial:{error}")))?;
    let stop = Stop::on_signals(nic.waker())?;
    let name = args.nic.to_string();
    let socket = control.as_ref().map(|control| control.path().to_owned());
    let _progress = Progress::begin(nic.figures(), args.progress, socket).map_err(AppError::running)?;
    let prepared =
        Prepared { net, stop, json: args.json, about: None, control, name: name.clone(), keep: Keep::Port };
    Wrap { impair: args.impair, pcap, name: &name, seed }.run(vec![nic], prepared, program)
}

/// What TCP is told of the line.
fn profile(spec: &SerialSpec) -> LineProfile {
    LineProfile::new(spec.bytes_per_second(), spec.mtu)
}

/// RFC 8200 section 5.
fn check_mtu(args: &HostArgs, spec: &SerialSpec) -> Result<(), AppError> {
    let has_v6 = args.static_addresses().iter().any(|cidr| IpAddr::from(cidr.address()).is_ipv6());
    if has_v6 && spec.mtu < MTU_V6_MIN {
        let problem = format_args!("IPv6 needs mtu={MTU_V6_MIN}");
        return Err(AppError::flag("--nic", &args.nic, problem));
    }
    Ok(())
}

/// In the place of one that does not matter.
const ANY_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const MTU_V6_MIN: u16 = 1_280;
