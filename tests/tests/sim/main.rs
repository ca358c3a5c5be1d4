//! Hosts with whole shards on networks in virtual time, many seeds each. `SIM_SEEDS=1000` runs more of them,
//! `SIM_SEED=5` that one, and `PCAP=directory` leaves what was on the wires.

mod addresses;
mod datagrams;
mod flood;
mod fragments;
mod groups;
mod hostile;
mod neighbors;
mod paths;
mod scripts;
mod shards;
mod support;
