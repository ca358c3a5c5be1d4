//! Sleeping without missing a wake-up.
//!
//! ```text
//!   who has something                     who sleeps
//!     leaves it                             prepare: "I sleep"
//!     ── fence ──                           ── fence ──
//!     asleep? ▸ wake (eventfd)              called? no ▸ wait (eventfd, device, deadline)
//! ```
//!
//! Of the two, one sees what the other has done, whatever the order; and the eventfd keeps a wake that comes before the
//! wait. What is done under the lock of a [`Hub`](crate::api::Hub) needs no more than [`notify`](Parker::notify), since the
//! thread says under that lock that it is about to sleep. All else is left first, and then told by
//! [`call`](Parker::call). `model` tries all orders of the steps with this very code.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use wirestack_nic::Waker;

/// What the protocol stands on: a flag, and a fence between what a thread writes and what it reads next.
pub(crate) trait Flag {
    /// It is not set.
    fn cleared() -> Self;
    fn is_set(&self) -> bool;
    fn set(&self);
    /// Clears it. True: it was set, and what was done before that is seen.
    fn take(&self) -> bool;
    fn fence();
}

/// What ends a sleep, now or the next one.
pub(crate) trait Wakes {
    fn wake(&self);
}

impl Flag for AtomicBool {
    fn cleared() -> Self {
        Self::new(false)
    }

    fn is_set(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    fn set(&self) {
        // Not a store: whoever sets it after another has is ordered after that one, and who takes it sees what both have done.
        self.swap(true, Ordering::AcqRel);
    }

    fn take(&self) -> bool {
        // Mostly it is not set, and looking costs nothing.
        self.load(Ordering::Relaxed) && self.swap(false, Ordering::AcqRel)
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl Wakes for Waker {
    fn wake(&self) {
        Waker::wake(self);
    }
}

/// Of one thread.
#[derive(Debug)]
pub(crate) struct Parker<F = AtomicBool, W = Waker> {
    is_asleep: F,
    is_called: F,
    waker: W,
}

impl<F: Flag, W: Wakes> Parker<F, W> {
    pub(crate) fn new(waker: W) -> Self {
        Self { is_asleep: F::cleared(), is_called: F::cleared(), waker }
    }

    /// The thread is about to sleep: to be followed by [`park`](Self::park).
    pub(crate) fn prepare(&self) {
        self.is_asleep.set();
        F::fence();
    }

    /// Waits, unless there was a [`call`](Self::call) since [`take_call`](Self::take_call). `None`: there was.
    pub(crate) fn park<R>(&self, wait: impl FnOnce() -> R) -> Option<R> {
        let waited = if self.is_called.is_set() { None } else { Some(wait()) };
        self.is_asleep.take();
        waited
    }

    /// Whether there was a call since this was asked last: what was left before it is there.
    pub(crate) fn take_call(&self) -> bool {
        self.is_called.take()
    }

    /// The same, and it stays so.
    pub(crate) fn is_called(&self) -> bool {
        self.is_called.is_set()
    }

    /// Something was left for the thread, not under its lock.
    pub(crate) fn call(&self) {
        self.is_called.set();
        self.notify();
    }

    /// Something was done under its lock, which was let go.
    pub(crate) fn notify(&self) {
        F::fence();
        if self.is_asleep.take() {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod model;
