//! What a person can write after `wirestack top`.

use clap::Args;

use crate::cli::{parse_seconds, whole};
use crate::report::{CONNECTIONS_MAX, Sort};

/// Flags of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Process, or path of a control socket (with a /) [default: the only program that runs]
    #[arg(value_name = "PID|PATH")]
    pub target: Option<String>,
    /// Print once, over one interval, and end; needs no terminal
    #[arg(long)]
    pub once: bool,
    /// With --once: print one JSON object on stdout
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Seconds between two looks, over which rates are computed
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_seconds)]
    pub interval: f64,
    /// Which connections come first: rate, rtt, retransmits, cwnd or peer
    #[arg(long, value_name = "KEY", default_value_t)]
    pub sort: Sort,
    /// Connections that are shown, at most [default: all of 1000]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..=CONNECTIONS_MAX as u64))]
    pub count: Option<usize>,
}
