//! Waiting on a thread: whatever can be polled is polled, and the thread sleeps in between.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use smoltcp::time::Instant;
use wirestack_nic::wait::now;

/// Wakes one thread. The token of `std::thread::park` is not used: it may be the application's.
#[derive(Debug, Default)]
struct Park {
    is_woken: Mutex<bool>,
    condvar: Condvar,
}

impl Wake for Park {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let was_woken = std::mem::replace(&mut *self.is_woken.lock(), true);
        if !was_woken {
            self.condvar.notify_one();
        }
    }
}

impl Park {
    /// Sleeps until it is woken, or was since the last sleep. False: it is not, and the deadline has come.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let mut is_woken = self.is_woken.lock();
        while !*is_woken {
            let Some(deadline) = deadline else {
                self.condvar.wait(&mut is_woken);
                continue;
            };
            let now = now();
            if deadline <= now {
                return false;
            }
            self.condvar.wait_for(&mut is_woken, (deadline - now).into());
        }
        *is_woken = false;
        true
    }
}

thread_local! {
    static PARK: Arc<Park> = Arc::default();
}

/// Polls until it is ready. `None`: the deadline has come before.
pub(super) fn wait<T>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    // A thread that ends has none any more, and may still drop a socket.
    let park = PARK.try_with(Arc::clone).unwrap_or_default();
    let waker = Waker::from(Arc::clone(&park));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(ready) = poll(&mut context) {
            return Some(ready);
        }
        if !park.sleep(deadline) {
            return None;
        }
    }
}

/// Runs a future to its end. `None`: the deadline has come before, and it was dropped.
pub(super) fn block_on<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    wait(deadline, |context| future.as_mut().poll(context))
}

/// Runs a future to its end.
pub(super) fn block_on_for_ever<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        // Without a deadline there is one round.
        if let Some(output) = wait(None, |context| future.as_mut().poll(context)) {
            return output;
        }
    }
}

/// When so much time is over. `None`: never, as far as can be told.
pub(super) fn after(time: Duration) -> Option<Instant> {
    let micros = i64::try_from(time.as_nanos().div_ceil(1_000)).ok()?;
    now().total_micros().checked_add(micros).map(Instant::from_micros)
}

/// How the clones of a socket wait: what is kept with an open file in the kernel.
#[derive(Debug, Default)]
pub(super) struct Manners {
    is_nonblocking: AtomicBool,
    read: Timeout,
    write: Timeout,
}

impl Manners {
    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.is_nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        self.is_nonblocking.load(Ordering::Relaxed)
    }

    pub(super) fn read_timeout(&self) -> &Timeout {
        &self.read
    }

    pub(super) fn write_timeout(&self) -> &Timeout {
        &self.write
    }

    /// Until when a read may take.
    pub(super) fn read_deadline(&self) -> Option<Instant> {
        self.read.get().and_then(after)
    }

    /// The same of a write.
    pub(super) fn write_deadline(&self) -> Option<Instant> {
        self.write.get().and_then(after)
    }

    /// Waits, or does not, as it was set.
    pub(super) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let done = if self.is_nonblocking() {
            match poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            }
        } else {
            wait(deadline, poll)
        };
        // What Linux says of a timeout, too.
        done.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }
}

/// A time in nanoseconds; 0: there is none.
#[derive(Debug, Default)]
pub(super) struct Timeout(AtomicU64);

impl Timeout {
    pub(super) fn set(&self, time: Option<Duration>) -> io::Result<()> {
        let nanos = match time {
            None => 0,
            Some(Duration::ZERO) => {
                let problem = "a timeout of zero: more than that, or `None`, is accepted";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
            Some(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        };
        self.0.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn get(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }
}
