//! All tables of a shard, for people.

use super::Shard;
use crate::ip::Address;

/// What a shard knows at a point in time.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The addresses of the interface.
    pub addresses: Vec<Address>,
}

impl Shard {
    /// Looks at all tables.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { addresses: self.addresses.iter().copied().collect() }
    }
}
