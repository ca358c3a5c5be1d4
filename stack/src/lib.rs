//! A TCP/IP stack in user space for Linux. An application links it, gives it a network device, and talks
//! TCP and UDP over raw frames; the kernel's TCP/IP is not on the path.
//!
//! ```text
//!   wirestack_nic    RX ring ──▶ frame ──┐        ┌──▶ TX ring, one kick a turn
//!                                        ▼        │
//!   shard            receive a burst ▸ fire timers ▸ the application ▸ send what is ready ▸ next deadline
//!                                        ▼   ▲
//!   application      sockets: read, write, close
//! ```
//!
//! The page to read first is `shard/turn.rs`. The modules, in the order in which a frame meets them:
//!
//! | module | what it owns |
//! |---|---|
//! | [`nic`] | the devices: the crate `wirestack-nic`, re-exported |
//! | [`shard`] | all state of one core; one turn of its loop |
//! | [`ingress`] | what a frame is ([`ingress::classify()`]), and what became of it |
//! | [`demux`] | which socket a packet belongs to, and which shard |
//! | [`neighbor`] | ARP and NDP: who is behind an address of the link; whether an address is ours alone |
//! | [`ip`] | addresses, routes, reassembly, fragments, path MTU, SLAAC |
//! | [`icmp`], [`igmp_mld`] | errors and echo, ping sockets; membership in groups |
//! | [`tcp`] | connections: buffers, recovery, congestion control |
//! | [`udp`], [`raw`] | sockets for datagrams, and for packets of any protocol |
//! | [`dhcp`], [`dns`] | addresses and names from servers |
//! | [`policy`] | who may listen, connect and be accepted |
//! | [`timer`] | the wheel of deadlines |
//! | [`egress`] | frames on their way out |
//! | [`api`], [`driver`] | sockets for applications, in several ways; the threads that turn shards for them |
//! | [`observe`] | drop reasons, counters, snapshots, events |
//! | [`random`] | all randomness, from one seed |
//! | [`backend`] | smoltcp's engine, for comparison |
//! | [`config`], [`error`] | addresses and limits of a host, and what can be wrong with them |
//!
//! What this crate does not know: interfaces, rings and system calls. It reads no clock (except in
//! [`Shard::run`](shard::Shard::run) and [`Host::run`](backend::smoltcp::Host::run), which drive a device) and
//! draws no randomness: `now` and a seed are arguments.
//!
//! Addresses with a prefix, times and the medium of a device are types of smoltcp, which is re-exported for them.
#![forbid(unsafe_code)]

pub mod api;
pub mod backend;
pub mod config;
pub mod demux;
pub mod dhcp;
pub mod dns;
pub mod driver;
pub mod egress;
pub mod error;
pub mod icmp;
pub mod igmp_mld;
pub mod ingress;
pub mod ip;
pub mod neighbor;
pub mod observe;
pub mod policy;
pub mod random;
pub mod raw;
pub mod shard;
pub mod tcp;
pub mod timer;
pub mod udp;

pub use api::{blocking, install, installed, local, poll, tokio};
pub use smoltcp;
pub use smoltcp::wire::{EthernetAddress, IpCidr};
pub use wirestack_nic as nic;

/// The Rust example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExample;
