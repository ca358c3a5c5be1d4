//! A TCP/IP stack in user space for Linux. An application links it, gives it a network device, and talks
//! TCP and UDP over raw frames; the kernel's TCP/IP is not on the path.
//!
//! ```text
//!   wirestack_nic    RX ring ──▶ frame ──┐        ┌──▶ TX ring, one kick a turn
//!                                        ▼        │
//!   backend          receive a burst ▸ serve ▸ send a burst ▸ sleep until the next deadline
//!                                        ▼   ▲
//!   application      Handler::ready(&mut Conn): read, write, close
//! ```
//!
//! The modules, in the order in which a frame meets them:
//!
//! | module | what it owns |
//! |---|---|
//! | [`nic`] | the devices: the crate `wirestack-nic`, re-exported |
//! | [`backend`] | the engines that turn frames into byte streams; the page to read first is `backend/smoltcp/turn.rs` |
//! | [`config`], [`error`] | addresses and limits of a host, and what can be wrong with them |
//!
//! What this crate does not know: interfaces, rings and system calls. It reads no clock (except in
//! [`Host::run`](backend::smoltcp::Host::run), which drives a device) and draws no randomness: `now` and
//! a seed are arguments.
#![forbid(unsafe_code)]

pub mod backend;
pub mod config;
pub mod error;

pub use smoltcp::wire::{EthernetAddress, IpCidr};
pub use wirestack_nic as nic;

/// The Rust example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExample;
