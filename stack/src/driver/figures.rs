//! What shards and their devices have counted, for people.

use wirestack_nic::Counters;

use crate::observe::{Drops, ShardCounters};
use crate::tcp::TcpCounters;

/// What a shard and its device have counted.
#[derive(Debug, Clone, Default)]
pub struct ShardFigures {
    /// Of the shard.
    pub shard: ShardCounters,
    /// Of TCP.
    pub tcp: TcpCounters,
    /// What was dropped, by reason.
    pub drops: Drops,
    /// Of the device; as they were when its thread was asked last.
    pub nic: Counters,
    /// Connections that exist.
    pub connections: usize,
}
