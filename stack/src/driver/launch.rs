//! From a configuration and devices to a running stack.

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use smoltcp::time::{Duration, Instant};
use wirestack_nic::{Nic, wait};

use super::cell::Cell;
use super::figures::{ShardFigures, Watcher};
use super::mailbox::Inbox;
use super::parker::Parker;
use super::thread::Loop;
use crate::api::{Hub, Shared, Stack};
use crate::demux::Steering;
use crate::error::ConfigError;
use crate::shard::{Shard, ShardConfig};

/// What a thread does while there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It sleeps at once.
    Sleep,
    /// It looks again and again for so long after there was something, and sleeps then.
    SpinThenSleep(Duration),
    /// It never sleeps: the shortest way for a frame, at the price of a core.
    Spin,
}

impl Default for Patience {
    /// 20 µs: about what it takes to fall asleep and to be woken.
    fn default() -> Self {
        Self::SpinThenSleep(Duration::from_micros(20))
    }
}

impl Patience {
    /// Whether it spins on when there was nothing for so long.
    pub(crate) fn spins(self, idle: Duration) -> bool {
        match self {
            Self::Sleep => false,
            Self::SpinThenSleep(time) => idle < time,
            Self::Spin => true,
        }
    }
}

/// An application that lives in the turns of a shard, on its thread: called in each, between what came and what goes. It
/// returns when it wants to be called again even if nothing comes.
pub type InTurn = Box<dyn FnMut(&mut Shard) -> Option<Instant>>;

/// Makes one for each shard, on the thread of the shard, told its number.
pub type MakeInTurn = Arc<dyn Fn(usize, &mut Shard) -> io::Result<InTurn> + Send + Sync>;

/// Why a stack does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// There is no device.
    #[error("there is no device to run on; one for each shard is accepted")]
    NoDevice,
    /// A field of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(#[source] io::Error),
    /// The application in the turns of a shard cannot begin.
    #[error(transparent)]
    Application(io::Error),
}

/// What a stack is told before it runs.
#[derive(Clone)]
pub struct Launch {
    config: ShardConfig,
    steering_seed: u32,
    patience: Patience,
    cpus: Vec<usize>,
    in_turn: Option<MakeInTurn>,
}

impl Launch {
    /// A stack with this configuration; its `shard` and `steering` are overwritten.
    pub fn new(config: ShardConfig) -> Self {
        Self { config, steering_seed: 0, patience: Patience::default(), cpus: Vec::new(), in_turn: None }
    }

    /// The seed with which the devices were opened as one fanout group.
    #[must_use]
    pub fn steering_seed(self, steering_seed: u32) -> Self {
        Self { steering_seed, ..self }
    }

    /// What threads do while there is nothing to do.
    #[must_use]
    pub fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// On which CPUs the threads run, one after the other. Empty: anywhere.
    #[must_use]
    pub fn cpus(self, cpus: Vec<usize>) -> Self {
        Self { cpus, ..self }
    }

    /// An application in the turns of each shard.
    #[must_use]
    pub fn in_turn(self, make: MakeInTurn) -> Self {
        Self { in_turn: Some(make), ..self }
    }

    /// Runs: one shard and one thread for each device. Several devices are to be one fanout group, in the order of its
    /// members, with the symmetric flow hash.
    ///
    /// # Errors
    /// A field of the configuration, or no thread.
    pub fn start<N: Nic + Send + 'static>(self, nics: Vec<N>) -> Result<Driver, LaunchError> {
        if nics.is_empty() {
            return Err(LaunchError::NoDevice);
        }
        let steering = Steering { seed: self.steering_seed, shards: nics.len() };
        let cells = nics.iter().enumerate().map(|(number, nic)| {
            let mut config = self.config.clone();
            (config.shard, config.steering) = (number, steering);
            config.seed = config.seed.wrapping_add((number as u64).wrapping_mul(SEED_STEP));
            let inbox = Inbox::new(config.mail_len_max);
            let shard = Shard::new(config, wait::now())?;
            Ok(Arc::new(Cell::new(Hub::new(shard), Parker::new(nic.waker()), inbox)))
        });
        let cells: Arc<[Arc<Cell>]> = cells.collect::<Result<Vec<_>, ConfigError>>()?.into();
        let stack = Stack::new(cells.iter().cloned().map(Shared).collect(), steering);
        let mut driver = Driver { stack, cells: Arc::clone(&cells), threads: Vec::new() };
        let (begun, has_begun) = mpsc::channel();
        for (number, nic) in nics.into_iter().enumerate() {
            let shard_loop = Loop::new(number, Arc::clone(&cells), nic, self.patience);
            let cpu = self.cpus.get(number % self.cpus.len().max(1)).copied();
            let (make, begun) = (self.in_turn.clone(), begun.clone());
            let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
                if let Some(cpu) = cpu {
                    pin(cpu);
                }
                let in_turn = make.map(|make| shard_loop.begin(|shard| make(number, shard))).transpose();
                // Who launches waits for it.
                match in_turn {
                    Ok(in_turn) => {
                        let _ = begun.send(Ok(()));
                        shard_loop.run(in_turn);
                    }
                    Err(error) => {
                        let _ = begun.send(Err(error));
                        shard_loop.give_up();
                    }
                }
            });
            driver.threads.push(thread.map_err(LaunchError::Thread)?);
        }
        drop(begun);
        has_begun.into_iter().collect::<io::Result<()>>().map_err(LaunchError::Application)?;
        Ok(driver)
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// A thread that may not run where it was told runs elsewhere.
fn pin(_cpu: usize) {
    todo!("helper driver")
}

/// A stack that runs. Dropping it ends it at once; [`shutdown`](Self::shutdown) does it in good order.
#[derive(Debug)]
pub struct Driver {
    stack: Stack<Shared>,
    cells: Arc<[Arc<Cell>]>,
    threads: Vec<JoinHandle<()>>,
}

impl Driver {
    /// The handle with which sockets are made.
    pub fn stack(&self) -> &Stack<Shared> {
        &self.stack
    }

    /// Somebody who looks at it, wherever the driver itself goes.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.cells))
    }

    /// What was counted, by shard.
    pub fn figures(&self) -> Vec<ShardFigures> {
        self.watcher().figures()
    }

    /// As [`shutdown`](Self::shutdown), and what was counted can still be asked for.
    pub fn end(&self, time: Duration) {
        let deadline = wait::now() + time;
        self.cells.iter().for_each(|cell| cell.end_until(deadline));
        self.cells.iter().for_each(|cell| cell.wait_for_end());
    }

    /// Ends it: nobody is accepted any more, what was written is still sent, and every connection is finished. What has not
    /// ended after this time is reset. Sockets say [`NetworkDown`](io::ErrorKind::NetworkDown) from then on.
    pub fn shutdown(self, time: Duration) {
        self.end(time);
    }

    /// Waits until it has ended by itself: its interface has gone, or a clone of its handle was told to end it.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            // A shard that has panicked has told so.
            let _ = thread.join();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.cells.iter().for_each(|cell| cell.end_until(wait::now()));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// An odd number: seeds of shards differ in many bits.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
