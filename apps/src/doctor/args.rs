//! What a person can write after `wirestack doctor`.

use clap::Args;
use wirestack::IpCidr;
use wirestack::config::parse_cidr;

use crate::cli::{parse_interface, whole};

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Device: packet:IFNAME, an Ethernet interface of this network namespace
    #[arg(long, value_name = "KIND:NAME", value_parser = parse_interface)]
    pub nic: String,
    /// Address that the stack is to have, with prefix length, 10.0.0.2/24 or fd00::2/64; repeatable
    #[arg(long = "address", value_name = "CIDR", value_parser = parse_cidr)]
    pub addresses: Vec<IpCidr>,
    /// TCP port that is to be served
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = whole::<u16>(1..=65_535))]
    pub port: u16,
    /// Print everything as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}
