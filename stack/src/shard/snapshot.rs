//! All tables of a shard, for people.

use super::{Shard, SocketId};
use crate::ip::Address;

/// What a shard knows at a point in time.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The addresses of the interface.
    pub addresses: Vec<Address>,
    /// Sockets that exist.
    pub sockets: Vec<SocketId>,
}

impl Shard {
    /// Looks at all tables.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            addresses: self.addresses.iter().copied().collect(),
            sockets: self.sockets.iter().map(|(id, _)| id).collect(),
        }
    }
}
