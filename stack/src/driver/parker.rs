//! Sleeping without missing a wake-up.
//!
//! The thread of a shard says that it is about to sleep, looks once more whether there is something for it, and only then
//! sleeps. Whoever has something for it leaves that first, and then looks whether it sleeps. Of the two, one sees what
//! the other has done, whatever the order; and the eventfd keeps a wake that comes before the sleep.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use wirestack_nic::Waker;

/// Of one thread.
#[derive(Debug)]
pub(crate) struct Parker {
    is_asleep: AtomicBool,
    waker: Waker,
}

impl Parker {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { is_asleep: AtomicBool::new(false), waker }
    }

    /// The thread is about to sleep: to be followed by a last look.
    pub(crate) fn prepare(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// It is awake again.
    pub(crate) fn awake(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// There is something for it, which was left before this is called.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }
}
