//! Sockets for tasks that live on the thread of their shard: nothing is shared, and there is no lock.
//!
//! A [`Runtime`] has the shard, its device and the tasks, and turns all three: frames come, the tasks that have something
//! run, and what they have written leaves in the same turn. The handles are the same types as those of
//! [`tokio`](super::tokio), so whatever is written for tokio's `AsyncRead` and `AsyncWrite` works here, too, as long as it
//! does not insist on `Send` or on tokio's own timers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream as _};
use smoltcp::time::{Duration, Instant};
use wirestack_nic::{LinkError, LinkState, Nic, wait};

use super::{Access, Hub, Local};
use crate::driver::Patience;
use crate::error::ConfigError;
use crate::shard::{Command, Shard, ShardConfig};

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
    patience: Patience,
    /// Wakers that were taken out of the hub; memory that is used again.
    woken: Vec<Waker>,
    is_up: Cell<bool>,
    look_at: Instant,
    busy_at: Instant,
}

/// Tells the loop that a task can go on. From the loop's own thread that is a store; from another one it ends its sleep.
#[derive(Debug)]
struct Alarm {
    is_set: AtomicBool,
    is_asleep: AtomicBool,
    waker: wirestack_nic::Waker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_set.store(true, Ordering::SeqCst);
        if self.is_asleep.load(Ordering::SeqCst) {
            self.waker.wake();
        }
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
        let alarm = Arc::new(Alarm {
            is_set: AtomicBool::new(true),
            is_asleep: AtomicBool::new(false),
            waker: nic.waker(),
        });
        Ok(Self {
            nic,
            stack: Stack::new(vec![Local(Rc::clone(&hub))], steering),
            hub,
            tasks: FuturesUnordered::new(),
            spawner: Spawner { new: Rc::default() },
            alarm,
            patience: Patience::Sleep,
            woken: Vec::new(),
            is_up: Cell::new(true),
            look_at: wait::now() + LINK_LOOK_INTERVAL,
            busy_at: wait::now(),
        })
    }

    /// What it does while there is nothing to do.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
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
        self.alarm.is_set.store(true, Ordering::Relaxed);
        loop {
            let more = self.receive();
            if self.alarm.is_set.swap(false, Ordering::SeqCst) {
                self.busy_at = self.hub.borrow().shard_ref().now();
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    self.run_tasks(&mut context);
                    self.send();
                    return Ok(output);
                }
                self.run_tasks(&mut context);
            }
            let due = self.send();
            if more || self.alarm.is_set.load(Ordering::SeqCst) {
                continue;
            }
            if let Err(error) = self.rest(due) {
                self.fail();
                // One hears it from the other: a task from its socket, and the future from the task.
                for _ in 0..LAST_ROUNDS {
                    if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                        return Ok(output);
                    }
                    self.alarm.is_set.store(false, Ordering::SeqCst);
                    self.run_tasks(&mut context);
                    if !self.alarm.is_set.load(Ordering::SeqCst) {
                        break;
                    }
                }
                return Err(error);
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
        self.alarm.is_set.store(true, Ordering::Relaxed);
    }

    /// Sleeps or spins until something may be there.
    fn rest(&mut self, due: Option<Instant>) -> Result<(), LinkError> {
        let now = self.hub.borrow().shard_ref().now();
        if due.is_some_and(|due| due <= now) {
            return Ok(());
        }
        if self.patience.spins(now - self.busy_at) && now < self.look_at {
            return Ok(());
        }
        let until = due.map_or(self.look_at, |due| due.min(self.look_at));
        self.alarm.is_asleep.store(true, Ordering::SeqCst);
        // The last look: another thread may have woken a task since.
        let is_set = self.alarm.is_set.load(Ordering::SeqCst);
        let waited = if is_set { Ok(()) } else { self.nic.wait(Some(until)).map(drop) };
        self.alarm.is_asleep.store(false, Ordering::SeqCst);
        self.look_at_link(waited, now)
    }

    fn look_at_link(&mut self, waited: Result<(), LinkError>, now: Instant) -> Result<(), LinkError> {
        let up = match waited {
            Err(LinkError::Gone) => return Err(LinkError::Gone),
            Err(LinkError::Down) => false,
            Ok(()) if !self.is_up.get() || now >= self.look_at => {
                self.look_at = now + LINK_LOOK_INTERVAL;
                self.nic.link_state() == LinkState::Up
            }
            Ok(()) => self.is_up.get(),
        };
        if up != self.is_up.get()
            && self.hub.borrow_mut().shard().push_command(Command::LinkChanged(up)).is_ok()
        {
            self.is_up.set(up);
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

/// Rounds in which everybody hears that the interface has gone.
const LAST_ROUNDS: usize = 64;
/// Ends of tasks, and rounds of new ones, in a turn.
const TASKS_PER_TURN: usize = 1_024;
/// How often a device is asked whether it has a carrier: whoever plugs a cable takes longer.
const LINK_LOOK_INTERVAL: Duration = Duration::from_millis(500);
