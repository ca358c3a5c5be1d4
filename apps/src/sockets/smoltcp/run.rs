//! The loop: frames come, the tasks that have something run, and what they have written leaves in the same turn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream};
use smoltcp::time::Instant;
use wirestack::nic::{LinkError, Nic, wait};

use super::Smoltcp;
use super::host::Host;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks of the loop, and those that sleep. Clones are of the same ones.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    new: Rc<RefCell<Vec<Task>>>,
    running: Rc<RefCell<FuturesUnordered<Task>>>,
    sleepers: Rc<RefCell<Sleepers>>,
}

/// By time, and by a number of their own.
#[derive(Default)]
struct Sleepers {
    wakers: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

/// Takes the place of a sleeper away, be it that it is given up.
struct Place {
    sleepers: Rc<RefCell<Sleepers>>,
    key: (Instant, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sleepers.borrow_mut().wakers.remove(&self.key);
    }
}

impl Tasks {
    /// Runs a task until its end; one that panics ends there.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = AssertUnwindSafe(task).catch_unwind().map(|ended| {
            if ended.is_err() {
                log::error!("a task has panicked");
            }
        });
        self.new.borrow_mut().push(Box::pin(task));
    }

    pub(super) async fn sleep_until(&self, host: &RefCell<Host>, deadline: Instant) {
        let number = self.sleepers.borrow().next;
        self.sleepers.borrow_mut().next += 1;
        let place = Place { sleepers: Rc::clone(&self.sleepers), key: (deadline, number) };
        poll_fn(|context| {
            if host.borrow().now >= deadline {
                return Poll::Ready(());
            }
            self.sleepers.borrow_mut().wakers.insert(place.key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes those whose time has come. When the next one's has.
    fn wake_sleepers(&self, now: Instant) -> Option<Instant> {
        let mut sleepers = self.sleepers.borrow_mut();
        while let Some(first) = sleepers.wakers.first_entry() {
            if first.key().0 > now {
                return Some(first.key().0);
            }
            first.remove().wake();
        }
        None
    }

    fn run(&self, context: &mut Context<'_>) {
        // A task may start others, so the list of new ones is not held while one runs.
        for _ in 0..TASKS_PER_TURN {
            let new = std::mem::take(&mut *self.new.borrow_mut());
            let mut running = self.running.borrow_mut();
            running.extend(new);
            match Pin::new(&mut *running).poll_next(context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if self.new.borrow().is_empty() => return,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        context.waker().wake_by_ref();
    }
}

/// A task can go on. Everything is on one thread, so a look at it is all that is needed.
#[derive(Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Turns until this future is ready. Tasks go on meanwhile.
///
/// # Errors
/// [`LinkError::Gone`]: the interface was removed.
pub(super) fn block_on<N: Nic, F: Future>(
    sockets: &Smoltcp,
    nic: &mut N,
    future: F,
) -> Result<F::Output, LinkError> {
    let Smoltcp { host, tasks, .. } = sockets;
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let mut context = Context::from_waker(&waker);
    waker.wake_by_ref();
    loop {
        let more = host.borrow_mut().receive(wait::now(), nic);
        let now = host.borrow().now;
        tasks.wake_sleepers(now);
        if alarm.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                tasks.run(&mut context);
                host.borrow_mut().send(nic);
                return Ok(output);
            }
            tasks.run(&mut context);
        }
        let due = host.borrow_mut().send(nic);
        if more || alarm.0.load(Ordering::Relaxed) {
            continue;
        }
        let due = [due, tasks.wake_sleepers(now)].into_iter().flatten().min();
        match nic.wait(due) {
            Ok(_) | Err(LinkError::Down) => {}
            Err(LinkError::Gone) => return Err(LinkError::Gone),
        }
    }
}

/// Ends of tasks, and rounds of new ones, in a turn.
const TASKS_PER_TURN: usize = 1_024;
