//! Which socket a packet belongs to, and which shard.
//!
//! ```text
//!   packet ─▶ FlowTable: the connection of its 4-tuple ─▶ ListenTable: who listens there   (TCP)
//!          └▶ UdpTable: connected ▸ bound to the address ▸ bound to any address            (UDP)
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`key`], [`hash`] | a flow as a key, and the keyed hash of all tables here |
//! | [`flow_table`] | connections by 4-tuple |
//! | [`bind`] | what a socket can be bound to, and why not |
//! | [`listen`] | listeners |
//! | [`udp_table`] | sockets for datagrams |
//! | [`ports`] | ports for who needs any |
//! | [`steer`] | flow → shard, as the kernel does it |
//!
//! The tables map to a value of the caller, small and `Copy`: an index. They know no socket. A look-up costs
//! the same however many entries there are (but for cache misses), and allocates nothing.

pub mod bind;
pub mod flow_table;
pub mod hash;
pub mod key;
pub mod listen;
pub mod ports;
pub mod steer;
pub mod udp_table;

pub use bind::{BindAddress, BindError, Binding};
pub use flow_table::{FlowTable, InsertError};
pub use hash::KeyedHash;
pub use key::FlowKey;
pub use listen::ListenTable;
pub use ports::{Ports, PortsConfig, PortsConfigError};
pub use steer::Steering;
pub use udp_table::{UdpBinding, UdpConnectError, UdpHandle, UdpTable};
