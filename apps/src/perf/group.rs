//! The tasks of a run: ended together, waited for together, and the first failure of one is that of the run. And the
//! person who wants them to end.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::future::{Either, select};
use smoltcp::time::Instant;
use tokio::sync::Notify;

use crate::error::AppError;
use crate::sockets::Sockets;

/// A handle: clones are the same group. Being told to stop costs a task a look at a cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// No more work is to be begun.
    is_stopped: Cell<bool>,
    stopped: Notify,
    /// What has not ended yet is thrown away.
    is_cancelled: Cell<bool>,
    /// Of the tasks, by their numbers.
    wakers: RefCell<Vec<Option<Waker>>>,
    alive: Cell<usize>,
    changed: Notify,
    failure: RefCell<Option<AppError>>,
}

impl Group {
    /// Runs a task of this group.
    pub(super) fn spawn<S: Sockets>(
        &self,
        sockets: &S,
        task: impl Future<Output = Result<(), AppError>> + 'static,
    ) {
        let index = self.shared.wakers.borrow().len();
        self.shared.wakers.borrow_mut().push(None);
        self.shared.alive.set(self.shared.alive.get() + 1);
        sockets.spawn(Member { task: Box::pin(task), index, shared: Rc::clone(&self.shared) });
    }

    /// Tells the tasks to come to their end.
    pub(super) fn stop(&self) {
        self.shared.is_stopped.set(true);
        self.shared.stopped.notify_waiters();
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(super) fn is_stopped(&self) -> bool {
        self.shared.is_stopped.get()
    }

    /// Waits for [`stop`](Self::stop).
    pub(super) async fn stopped(&self) {
        while !self.is_stopped() {
            self.shared.stopped.notified().await;
        }
    }

    /// Throws away what has not ended; connections are closed.
    pub(super) fn cancel(&self) {
        self.stop();
        self.shared.is_cancelled.set(true);
        for waker in self.shared.wakers.borrow_mut().iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// Tasks that have not ended.
    pub(super) fn alive(&self) -> usize {
        self.shared.alive.get()
    }

    /// Waits until all tasks have ended, or one has failed.
    pub(super) async fn join(&self) {
        while self.alive() > 0 && self.shared.failure.borrow().is_none() {
            self.shared.changed.notified().await;
        }
    }

    /// As [`join`](Self::join), and says whether that was before `deadline`.
    pub(super) async fn join_until<S: Sockets>(&self, sockets: &S, deadline: Instant) -> bool {
        let sleep = sockets.sleep_until(deadline);
        matches!(select(pin!(self.join()), pin!(sleep)).await, Either::Left(_))
    }

    /// Stops, gives the tasks until `deadline` to end, throws the others away, and says how many those were.
    ///
    /// # Errors
    /// The first failure of a task.
    pub(super) async fn finish<S: Sockets>(&self, sockets: &S, deadline: Instant) -> Result<usize, AppError> {
        self.stop();
        self.join_until(sockets, deadline).await;
        let unfinished = self.alive();
        self.cancel();
        self.failure().map(|()| unfinished)
    }

    /// The first failure of a task.
    ///
    /// # Errors
    /// That.
    pub(super) fn failure(&self) -> Result<(), AppError> {
        self.shared.failure.borrow().clone().map_or(Ok(()), Err)
    }
}

/// Throws away the tasks of a group when it goes itself.
#[derive(Debug)]
pub(super) struct Leash(pub(super) Group);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Set when somebody asked the program to end. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt {
    is_set: Rc<Cell<bool>>,
    set: Rc<Notify>,
}

impl Interrupt {
    /// Is set by a signal.
    pub(super) fn watch<S: Sockets>(sockets: &S) -> Self {
        let interrupt = Self::default();
        let (its, sockets_of_task) = (interrupt.clone(), sockets.clone());
        sockets.spawn(async move {
            match sockets_of_task.stopped().await {
                Ok(()) => {
                    its.is_set.set(true);
                    its.set.notify_waiters();
                }
                Err(error) => log::warn!("waiting for signals: {error}"),
            }
        });
        interrupt
    }

    /// Waits for it.
    pub(super) async fn wait(&self) {
        while !self.is_set.get() {
            self.set.notified().await;
        }
    }
}

/// A task that can be thrown away from outside.
struct Member<F> {
    task: Pin<Box<F>>,
    index: usize,
    shared: Rc<Shared>,
}

impl<F: Future<Output = Result<(), AppError>>> Future for Member<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.is_cancelled.get() {
            return Poll::Ready(());
        }
        if let Some(slot) = self.shared.wakers.borrow_mut().get_mut(self.index)
            && !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *slot = Some(context.waker().clone());
        }
        let result = std::task::ready!(self.task.as_mut().poll(context));
        if let Err(error) = result {
            self.shared.failure.borrow_mut().get_or_insert(error);
        }
        Poll::Ready(())
    }
}

impl<F> Drop for Member<F> {
    fn drop(&mut self) {
        self.shared.alive.set(self.shared.alive.get() - 1);
        self.shared.changed.notify_one();
    }
}
