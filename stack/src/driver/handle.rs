//! Handles of a stack that runs: its owner's, one that ends it, one that looks at it.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use smoltcp::time::{Duration, Instant};
use wirestack_nic::{Counters, wait};

use super::cell::{Cell, Course};
use crate::api::{Access, Shared, Stack};
use crate::observe::{Drops, ShardCounters};
use crate::shard::{Occupancy, Shard};
use crate::tcp::TcpCounters;

/// A stack that runs. Dropping it ends it at once; [`shutdown`](Self::shutdown) does it in good order.
#[derive(Debug)]
pub struct Driver {
    stack: Stack<Shared>,
    cells: Arc<[Arc<Cell>]>,
    threads: Vec<JoinHandle<()>>,
}

/// Ends a stack, from any thread; clones end the same one.
#[derive(Clone)]
pub struct Stopper(Arc<[Arc<Cell>]>);

/// Looks at a stack, from any thread; clones look at the same one. What was counted can be asked for when the stack has
/// ended, too.
#[derive(Clone)]
pub struct Watcher(Arc<[Arc<Cell>]>);

/// What a shard and its device have counted, and what it holds.
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
    /// How full its tables are.
    pub occupancy: Occupancy,
    /// Whether there is a thread that turns it.
    pub is_running: bool,
}

impl Driver {
    pub(crate) fn new(stack: Stack<Shared>, cells: Arc<[Arc<Cell>]>) -> Self {
        Self { stack, cells, threads: Vec::new() }
    }

    pub(crate) fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    /// The handle with which sockets are made.
    pub fn stack(&self) -> &Stack<Shared> {
        &self.stack
    }

    /// A handle that ends it.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.cells))
    }

    /// Somebody who looks at it, wherever the driver itself goes.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.cells))
    }

    /// Whether all shards run and none was told to end.
    pub fn is_running(&self) -> bool {
        self.stopper().is_running()
    }

    /// See [`Watcher::figures`].
    pub fn figures(&self) -> Vec<ShardFigures> {
        self.watcher().figures()
    }

    /// See [`Watcher::with_shard`].
    pub fn with_shard<R>(&self, number: usize, f: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        self.watcher().with_shard(number, f)
    }

    /// Ends it: nobody is accepted any more, what was written is still sent, and every connection is finished. What has not
    /// ended after this time is reset. Sockets say [`NetworkDown`](std::io::ErrorKind::NetworkDown) from then on. Returns
    /// when that is done, devices are closed and a lease is given back: half a second later than `time` at most.
    pub fn shutdown(self, time: Duration) {
        self.end(time);
        self.join();
    }

    /// As [`shutdown`](Self::shutdown), and what was counted can still be asked for.
    pub fn end(&self, time: Duration) {
        self.stopper().stop(time);
        self.wait();
    }

    /// Waits until it has ended by itself: its interface has gone, or a [`Stopper`] was told to end it. Not for whoever is
    /// woken on a thread of the stack, which would wait for itself.
    pub fn wait(&self) {
        self.cells.iter().for_each(|cell| cell.wait_for_end());
    }

    /// The same, and devices are closed when it returns.
    pub fn join(mut self) {
        self.join_threads();
    }

    fn join_threads(&mut self) {
        let is_ours = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        if self.threads.iter().any(is_ours) {
            // Whoever is woken may drop it, on a thread of ours, for whose end the others wait. They end by themselves.
            self.threads.clear();
        }
        for thread in self.threads.drain(..) {
            // A shard that has panicked has told so.
            let _ = thread.join();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stopper().stop(Duration::ZERO);
        self.join_threads();
    }
}

impl Stopper {
    /// Tells the stack to end, in good order within this time, as [`Driver::shutdown`] does, and returns at once. If it was
    /// told before, the earlier end counts.
    pub fn stop(&self, time: Duration) {
        let deadline = match time {
            Duration::ZERO => Instant::ZERO,
            time => wait::now() + time,
        };
        self.0.iter().for_each(|cell| cell.end_until(deadline));
    }

    /// Whether all shards run and none was told to end.
    pub fn is_running(&self) -> bool {
        self.0.iter().all(|cell| cell.course() == Course::Runs)
    }

    /// Whether no shard runs any more.
    pub fn has_ended(&self) -> bool {
        self.0.iter().all(|cell| cell.course() == Course::Ended)
    }

    /// Waits until it is so.
    pub fn wait(&self) {
        self.0.iter().for_each(|cell| cell.wait_for_end());
    }
}

impl Watcher {
    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// What each shard has counted. The thread of each is asked for the counters of its device, and has a tenth of a
    /// second to answer; else those of the last question are told. Not for an application that lives in the turns of a
    /// shard, which would wait for itself.
    pub fn figures(&self) -> Vec<ShardFigures> {
        let figures = self.0.iter().map(|cell| {
            // Before the lock: the thread of the shard answers, and needs it.
            let (nic, is_running) = (cell.nic_counters(), cell.course() != Course::Ended);
            let hub = cell.hub.lock();
            let shard = hub.shard_ref();
            ShardFigures {
                shard: shard.counters(),
                tcp: shard.tcp_counters(),
                drops: shard.drops().clone(),
                nic,
                connections: shard.tcp_connections_len(),
                occupancy: shard.occupancy(),
                is_running,
            }
        });
        figures.collect()
    }

    /// Does something with a shard, which stands still meanwhile: a [`snapshot`](Shard::snapshot), an address. `None`:
    /// there is no shard with this number.
    ///
    /// `f` must not use a handle of this stack: it would wait for itself.
    pub fn with_shard<R>(&self, number: usize, f: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        let cell = self.0.get(number)?;
        Some(Shared(Arc::clone(cell)).with(|hub| f(hub.shard())))
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").field("is_running", &self.is_running()).finish()
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("shards", &self.shards()).finish()
    }
}
