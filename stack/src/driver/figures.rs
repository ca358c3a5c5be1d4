//! What shards and their devices have counted, for people.

use std::sync::Arc;

use wirestack_nic::Counters;

use super::cell::Cell;
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

/// Looks at a running stack, from any thread. Clones look at the same one.
#[derive(Debug, Clone)]
pub struct Watcher(pub(crate) Arc<[Arc<Cell>]>);

impl Watcher {
    /// What was counted, by shard.
    pub fn figures(&self) -> Vec<ShardFigures> {
        let figures = self.0.iter().map(|cell| {
            // Before the lock: the thread of the shard answers, and needs it.
            let nic = cell.nic_counters();
            let hub = cell.hub.lock();
            let shard = hub.shard_ref();
            let (tcp, drops) = (shard.tcp_counters(), shard.drops().clone());
            ShardFigures {
                shard: shard.counters(),
                tcp,
                drops,
                nic,
                connections: shard.tcp_connections_len(),
            }
        });
        figures.collect()
    }
}
