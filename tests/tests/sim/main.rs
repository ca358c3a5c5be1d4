//! Hosts with whole shards on networks in virtual time, many seeds each. `SIM_SEEDS=1000` runs more of them,
//! `SIM_SEED=5` that one, and `PCAP=directory` leaves what was on the wires.

mod addresses;
mod datagrams;
mod differential;
mod flood;
mod fragments;
mod groups;
mod hostile;
mod neighbors;
mod paths;
mod scripts;
mod serial;
mod serial_support;
mod shards;
mod support;
mod tcp_cases;
mod tcp_goodput;
mod tcp_ideal;
mod tcp_path;
mod tcp_seeds;
mod tcp_support;
mod tcp_targets;
