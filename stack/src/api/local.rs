//! Sockets for tasks that live on the thread of their shard: nothing is shared, and there is no lock.
//!
//! A [`Runtime`] has the shard, its device and the tasks, and turns all three: frames come, the tasks that have something
//! run, and what they have written leaves in the same turn. The handles are the same types as those of
//! [`tokio`](super::tokio), so whatever is written for tokio's `AsyncRead` and `AsyncWrite` works here, too, as long as it
//! does not insist on `Send` or on tokio's own timers.
//!
//! ```no_run
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use wirestack::config::parse_cidr;
//! use wirestack::local::Runtime;
//! use wirestack::nic::{AfPacket, AfPacketConfig};
//! use wirestack::shard::ShardConfig;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let nic = AfPacket::open("eth0", AfPacketConfig::default())?;
//! let config = ShardConfig::new(nic.interface().mac).address(parse_cidr("10.0.0.2/24")?);
//! let mut runtime = Runtime::new(nic, config)?;
//! let listener = runtime.stack().listen("[::]:7".parse()?)?;
//! let spawner = runtime.spawner().clone();
//! runtime.block_on(async {
//!     while let Ok((mut stream, _)) = listener.accept().await {
//!         spawner.spawn(async move {
//!             let mut room = [0; 1024];
//!             while let Ok(1..) = stream.read(&mut room).await {
//!                 // …
//!             }
//!             drop(stream.write_all(b"goodbye").await);
//!         });
//!     }
//! })?;
//! # Ok(())
//! # }
//! ```

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream as _};
use smoltcp::time::{Duration, Instant};
use wirestack_nic::{LinkError, Nic, wait};

use super::{Access, Hub, Local};
use crate::driver::{Pace, Parker, Patience};
use crate::error::ConfigError;
use crate::shard::carrier::Carrier;
use crate::shard::{Shard, ShardConfig};

/// A stack of one shard, on this thread.
pub type Stack = super::Stack<Local>;
/// A listener.
pub type TcpListener = super::TcpListener<Local>;
/// A connection.
pub type TcpStream = super::TcpStream<Local>;
/// A socket for datagrams.
pub type UdpSocket = super::UdpSocket<Local>;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Starts tasks; clones are of the same runtime.
#[derive(Clone)]
pub struct Spawner {
    new: Rc<RefCell<Vec<Task>>>,
}

impl Spawner {
    /// Runs a task until its end. One that panics ends there, is logged, and harms nobody else: what it owns, it drops, and so
    /// its connections are closed.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = AssertUnwindSafe(task).catch_unwind().map(|ended| {
            if let Err(panic) = ended {
                log::error!("a task has panicked: {}", message_of(panic.as_ref()));
            }
        });
        self.new.borrow_mut().push(Box::pin(task));
    }
}

/// What a panic says.
pub(crate) fn message_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

/// A shard, its device and tasks, on one thread.
pub struct Runtime<N> {
    nic: N,
    hub: Rc<RefCell<Hub>>,
    stack: Stack,
    tasks: FuturesUnordered<Task>,
    spawner: Spawner,
    alarm: Arc<Alarm>,
    pace: Pace,
    /// Wakers that were taken out of the hub; memory that is used again.
    woken: Vec<Waker>,
    carrier: Carrier,
}

/// Tells the loop that a task can go on. From the loop's own thread that is a store; from another one it ends its sleep.
#[derive(Debug)]
struct Alarm(Parker);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.call();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.call();
    }
}

impl<N: Nic> Runtime<N> {
    /// A shard of this configuration on a device.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its bounds.
    pub fn new(nic: N, config: ShardConfig) -> Result<Self, ConfigError> {
        let steering = config.steering;
        let hub = Rc::new(RefCell::new(Hub::new(Shard::new(config, wait::now())?)));
        let alarm = Arc::new(Alarm(Parker::new(nic.waker())));
        Ok(Self {
            nic,
            stack: Stack::new(vec![Local(Rc::clone(&hub))], steering),
            hub,
            tasks: FuturesUnordered::new(),
            spawner: Spawner { new: Rc::default() },
            alarm,
            pace: Pace::new(Patience::Sleep),
            woken: Vec::new(),
            carrier: Carrier::new(wait::now()),
        })
    }

    /// What it does while there is nothing to do.
    pub fn set_patience(&mut self, patience: Patience) {
        self.pace = Pace::new(patience);
    }

    /// The handle with which sockets are made.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Starts tasks.
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// The device, for its counters.
    pub fn nic(&mut self) -> &mut N {
        &mut self.nic
    }

    /// Turns until this future is ready. Tasks go on meanwhile, and stand still afterwards until the next call.
    ///
    /// # Errors
    /// [`LinkError::Gone`]: the interface was removed. All sockets say [`NetworkDown`](std::io::ErrorKind::NetworkDown)
    /// from then on, and tasks have heard of it.
    pub fn block_on<F: Future>(&mut self, future: F) -> Result<F::Output, LinkError> {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.alarm));
        let mut context = Context::from_waker(&waker);
        self.alarm.0.call();
        loop {
            let more = self.receive();
            if self.alarm.0.take_call() {
                self.pace.busy(self.hub.borrow().shard_ref().now());
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    self.run_tasks(&mut context);
                    self.send();
                    return Ok(output);
                }
                self.run_tasks(&mut context);
            }
            let due = self.send();
            if more || self.alarm.0.is_called() {
                continue;
            }
            if let Err(error) = self.rest(due) {
                self.fail();
                // One hears it from the other: a task from its socket, and the future from the task.
                for _ in 0..LAST_ROUNDS {
                    if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                        return Ok(output);
                    }
                    self.alarm.0.take_call();
                    self.run_tasks(&mut context);
                    if !self.alarm.0.is_called() {
                        break;
                    }
                }
                return Err(error);
            }
        }
    }

    /// Ends it, as [`Driver::shutdown`](crate::driver::Driver::shutdown) does: nobody is accepted any more, what was written
    /// is still sent, and what has not ended after `time` is reset. Tasks go on meanwhile; sockets say
    /// [`NetworkDown`](std::io::ErrorKind::NetworkDown) when it is over.
    pub fn shutdown(&mut self, time: Duration) {
        let give_up = wait::now() + time;
        let stack = self.stack.clone();
        let with = |f: &mut dyn FnMut(&mut Hub)| stack.shards()[0].with(|hub| f(hub));
        let mut left = Vec::new();
        with(&mut |hub| left = hub.shard().tcp_finish_all());
        let drained = async {
            while wait::now() < give_up {
                with(&mut |hub| {
                    while left.last().is_some_and(|&index| hub.shard_ref().is_connection_over(index)) {
                        left.pop();
                    }
                });
                if left.is_empty() {
                    return;
                }
                stack.sleep(END_LOOK_INTERVAL).await;
            }
        };
        let is_gone = self.block_on(drained).is_err();
        with(&mut |hub| {
            hub.fail(std::io::ErrorKind::NetworkDown);
            hub.shard().tcp_abort_all();
            if hub.shard_ref().dhcp_lease().is_some() {
                hub.shard().dhcp_release();
            }
        });
        let give_up = wait::now() + RELEASE_TIMEOUT;
        if is_gone {
            return;
        }
        loop {
            self.receive();
            self.send();
            let is_quiet = self.hub.borrow().shard_ref().is_quiet();
            if is_quiet || wait::now() >= give_up || self.nic.wait(Some(give_up)).is_err() {
                return;
            }
        }
    }

    /// Frames and timers. True: there is more.
    fn receive(&mut self) -> bool {
        let mut hub = self.hub.borrow_mut();
        let more = hub.receive(wait::now(), &mut self.nic);
        hub.swap_woken(&mut self.woken);
        drop(hub);
        self.woken.drain(..).for_each(Waker::wake);
        more
    }

    fn send(&mut self) -> Option<Instant> {
        let mut hub = self.hub.borrow_mut();
        let due = hub.send(&mut self.nic);
        hub.swap_woken(&mut self.woken);
        drop(hub);
        self.woken.drain(..).for_each(Waker::wake);
        due
    }

    /// Runs whoever can go on, for a while: frames are waiting, too.
    fn run_tasks(&mut self, context: &mut Context<'_>) {
        for _ in 0..TASKS_PER_TURN {
            self.tasks.extend(self.spawner.new.borrow_mut().drain(..));
            match Pin::new(&mut self.tasks).poll_next(context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if self.spawner.new.borrow().is_empty() => return,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        self.alarm.0.call();
    }

    /// Sleeps or spins until something may be there.
    fn rest(&mut self, due: Option<Instant>) -> Result<(), LinkError> {
        let now = self.hub.borrow().shard_ref().now();
        if due.is_some_and(|due| due <= now) {
            return Ok(());
        }
        let look_at = self.carrier.look_at();
        if now < look_at && self.pace.spins(now, due) {
            return Ok(());
        }
        let until = due.map_or(look_at, |due| due.min(look_at));
        self.alarm.0.prepare();
        let nic = &mut self.nic;
        // Another thread may have woken a task since.
        let waited = self.alarm.0.park(|| nic.wait(Some(until)).map(drop)).unwrap_or(Ok(()));
        if let Some(is_up) = self.carrier.look(waited, wait::now(), &mut self.nic)? {
            self.carrier.tell(is_up, self.hub.borrow_mut().shard());
        }
        Ok(())
    }

    /// Tells everybody that the interface has gone.
    fn fail(&mut self) {
        self.stack.shards()[0].with(|hub| hub.fail(std::io::ErrorKind::NetworkDown));
    }
}

impl<N> fmt::Debug for Runtime<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// How often it is looked whether connections have ended.
const END_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long resets, and a lease that is given back, may take to leave: a neighbour may have to be found.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(250);
/// Rounds in which everybody hears that the interface has gone.
const LAST_ROUNDS: usize = 64;
/// Ends of tasks, and rounds of new ones, in a turn.
const TASKS_PER_TURN: usize = 1_024;
