//! From a configuration and devices to a running stack.

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};

use smoltcp::time::Instant;
use wirestack_nic::affinity::{self, CpuSet};
use wirestack_nic::{Nic, wait};

use super::cell::Cell;
use super::handle::Driver;
use super::mailbox::Inbox;
use super::pace::Patience;
use super::parker::Parker;
use super::thread::Loop;
use crate::api::{Hub, Shared, Stack};
use crate::demux::Steering;
use crate::error::ConfigError;
use crate::shard::{Shard, ShardConfig};

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
    /// A thread cannot be put where it was told to run.
    #[error("CPU {cpu} does not exist, or this process may not run there; {allowed} are accepted")]
    Cpu {
        /// Its number.
        cpu: usize,
        /// Where the process may run.
        allowed: CpuSet,
    },
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
    /// members, with the symmetric flow hash, as [`open_group`](super::open_group) opens it.
    ///
    /// DHCP is a matter of the first shard; the others hear from it what it has learned. Addresses are probed by each.
    ///
    /// # Errors
    /// A field of the configuration, a CPU that cannot be had, no thread, or what an application in the turns says. Nothing
    /// runs then.
    pub fn start<N: Nic + Send + 'static>(self, nics: Vec<N>) -> Result<Driver, LaunchError> {
        if nics.is_empty() {
            return Err(LaunchError::NoDevice);
        }
        self.check_cpus()?;
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
        let mut driver = Driver::new(stack, Arc::clone(&cells));
        // All of them before the first thread: those that do not come to run tell the others when they are dropped.
        let loops = nics.into_iter().enumerate();
        let loops = loops.map(|(number, nic)| Loop::new(number, Arc::clone(&cells), nic, self.patience));
        let (begun, has_begun) = mpsc::channel();
        for (number, shard_loop) in loops.collect::<Vec<_>>().into_iter().enumerate() {
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
                        drop(begun);
                        shard_loop.run(in_turn);
                    }
                    Err(error) => {
                        let _ = begun.send(Err(error));
                    }
                }
            });
            driver.add(thread.map_err(LaunchError::Thread)?);
        }
        drop(begun);
        let begun =
            has_begun.into_iter().collect::<io::Result<Vec<()>>>().map_err(LaunchError::Application)?;
        if begun.len() < cells.len() {
            return Err(LaunchError::Application(io::Error::other("it has panicked")));
        }
        Ok(driver)
    }

    /// Whether this process may run on all of them.
    fn check_cpus(&self) -> Result<(), LaunchError> {
        if self.cpus.is_empty() {
            return Ok(());
        }
        let allowed = affinity::current_thread().map_err(LaunchError::Thread)?;
        match self.cpus.iter().find(|cpu| !allowed.contains(**cpu)) {
            Some(&cpu) => Err(LaunchError::Cpu { cpu, allowed }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// It was looked whether this is possible; a CPU that has gone since leaves the thread where it is.
fn pin(cpu: usize) {
    let cpus = std::iter::once(cpu).collect();
    if let Err(error) = affinity::pin_current_thread(&cpus) {
        log::warn!("CPU {cpu} has gone, the thread runs anywhere: {error}");
    }
}

/// An odd number: seeds of shards differ in many bits.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
