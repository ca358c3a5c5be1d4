//! Which shard a flow belongs to, in user space and in the kernel.
//!
//! Several sockets share the frames of an interface as a [`Fanout`] group. With the mode `flow`, the kernel
//! computes [`flow_hash`] for each frame, and the frame goes to the member [`shard_of`] that hash: both
//! directions of a flow, and the ICMP errors about it, always to the same one. [`flow_hash_of`] says
//! which one that will be, before the first frame of a connection exists.
//!
//! ```text
//!   frame ──▶ kernel: flow_program ──▶ hash mod members ──▶ socket of the shard
//!   connect(local, remote) ─▶ flow_hash_of ──▶ hash mod shards ──▶ the same shard
//! ```
//!
//! The function and the programs are equal by test, not by construction: on generated frames of all kinds
//! through the interpreter of [`crate::filter`], and through the kernel on a wire.
//!
//! Fragments have no ports, so they meet at the shard of their addresses, which for all but one flow is
//! not the shard of their ports: the flag `defrag` lets the kernel put IPv4 packets together before.

pub mod ebpf;
mod fanout;
mod hash;
mod program;
mod socket;
#[cfg(test)]
mod tests;

pub use fanout::{Fanout, FanoutError, FanoutFlags, FanoutMode, ParseFanoutError};
pub use hash::{flow_hash, flow_hash_of, flow_hash_of_packet, shard_of};
pub use program::flow_program;
pub use socket::FrameSocket;
