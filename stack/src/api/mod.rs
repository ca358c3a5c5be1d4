//! Sockets: what an application links. Several ways in, one engine.
//!
//! | module | for whom | where the shard runs |
//! |---|---|---|
//! | [`poll`] | run to completion: events, buffers seen in place; the fastest way | on the caller's thread |
//! | [`local`] | tasks without locks | on the caller's thread, with the tasks |
//! | [`tokio`] | tasks of tokio, hyper, rustls; [`futures-io`](crate#features) with the feature of that name | on threads of the [`driver`](crate::driver) |
//! | [`blocking`] | programs for `std::net`: a change of `use` lines | the same |
//!
//! ```text
//!   blocking ──▶ poll_* of a handle, and the thread parks ─┐
//!   tokio    ──▶ poll_* of a handle ───────────────────────┤ Access::with ──▶ Hub { shard, who waits, sleeps }
//!   local    ──▶ poll_* of a handle ───────────────────────┘                      │
//!   poll     ──▶ the shard itself                                                 ▼ receive ▸ wake ▸ send
//! ```
//!
//! The handles of `tokio` and `local` are the same types, [`TcpStream`], [`TcpListener`] and [`UdpSocket`], which differ by how
//! they reach their shard: [`Shared`], behind one lock, or [`Local`], without.
//!
//! | file | what it owns |
//! |---|---|
//! | `access` | how a handle reaches its shard |
//! | `hub` | a shard and whoever waits for its sockets |
//! | `stack` | all shards of a stack, and the things that are asked of it |
//! | `listener`, `stream`, `udp` | the handles |
//! | `installed` | the stack of sockets that name none |
//! | `lookup`, `connect`, `sleep` | names, connecting to one of several addresses (RFC 8305), time |
//! | `error` | what went wrong, as `std::io` says it |

mod access;
pub mod blocking;
mod connect;
mod error;
mod hub;
mod installed;
mod listener;
pub mod local;
mod lookup;
pub mod poll;
mod sleep;
mod stack;
mod stream;
pub mod tokio;
mod udp;

pub use access::{Access, Local, Shared};
pub use hub::{Hub, Interest};
pub use installed::{install, installed};
pub use listener::{Accept, TcpListener};
pub use lookup::{Endpoint, ToEndpoint};
pub use sleep::Sleep;
pub use stack::{ListenOptions, Stack};
pub use stream::{OwnedReadHalf, OwnedWriteHalf, TcpStream};
pub use udp::UdpSocket;
