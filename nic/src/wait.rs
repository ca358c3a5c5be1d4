//! The clock of the loop, sleeping, and being woken.
//!
//! This is the one place of the crate that reads a clock. Everything else gets `now` as an argument.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use smoltcp::time::{Duration, Instant};

/// Now, on the clock that all devices and deadlines share: CLOCK_MONOTONIC in microseconds.
pub fn now() -> Instant {
    // CLOCK_MONOTONIC exists on every Linux, so this cannot fail; a clock that stands still would at
    // least not panic.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
    Instant::from_micros(time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000)
}

/// How far the calendar (UNIX epoch) is ahead of [`now`]: what a capture adds to its timestamps.
pub fn epoch_offset() -> Duration {
    // The calendar is read first. A thread that loses its core between the two reads gets an offset that is
    // too small by that time: of a few, the largest is right.
    let offsets = (0..OFFSET_READS).map(|_| {
        let epoch = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(TimeSpec::new(0, 0));
        let epoch_micros = epoch.tv_sec() * 1_000_000 + epoch.tv_nsec() / 1_000;
        epoch_micros - now().total_micros()
    });
    let offset = offsets.max().unwrap_or(0);
    Duration::from_micros(u64::try_from(offset).unwrap_or(0))
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The device may have frames, or room for some.
    Ready,
    /// The deadline has come.
    Deadline,
    /// A [`Waker`] was called, or a signal was handled by this thread.
    Woken,
}

/// Ends the `wait` of the device that it came from, from any thread; clones wake the same device.
///
/// A wake that comes while the device does not wait ends its next wait at once: none is lost.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<EventFd>,
}

impl Waker {
    /// Makes a waker, and with it the event that a device waits for.
    ///
    /// # Errors
    /// What `eventfd(2)` says: no file descriptor left (EMFILE, ENFILE) or no memory.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Ends the current wait of the device, or its next one.
    pub fn wake(&self) {
        // The one failure is EAGAIN, at a count of 2^64 - 2 wakes: the event is set then as well.
        let _ = self.event.write(1);
    }

    /// Forgets the wakes so far. Says whether there was one.
    pub(crate) fn drain(&self) -> bool {
        self.event.read().is_ok()
    }
}

/// Sleeps until `socket` has one of `interest` (or an error), `waker` was called, or `deadline`.
///
/// Returns what the socket had, and why the sleep ended.
pub(crate) fn sleep(
    socket: Option<(BorrowedFd<'_>, PollFlags)>,
    waker: &Waker,
    deadline: Option<Instant>,
) -> (PollFlags, Wake) {
    let mut fds = [
        PollFd::new(waker.event.as_fd(), PollFlags::POLLIN),
        PollFd::new(waker.event.as_fd(), PollFlags::empty()),
    ];
    let fds = match socket {
        Some((socket, interest)) => {
            fds[1] = PollFd::new(socket, interest);
            &mut fds[..]
        }
        None => &mut fds[..1],
    };
    match ppoll(fds, timeout(deadline), None) {
        Ok(0) => (PollFlags::empty(), Wake::Deadline),
        // EINTR: a signal was handled; the caller looks at whatever the handler changed.
        Err(Errno::EINTR) => (PollFlags::empty(), Wake::Woken),
        // EFAULT, EINVAL and ENOMEM are left; none depends on the device. Look again.
        Err(_) => (PollFlags::empty(), Wake::Ready),
        Ok(_) => {
            let woken = fds[0].any().unwrap_or(false);
            let ready = fds.get(1).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
            if woken {
                waker.drain();
            }
            (ready, if woken { Wake::Woken } else { Wake::Ready })
        }
    }
}

/// As [`sleep`], for two sockets.
pub(crate) fn sleep_on_two(
    sockets: [(BorrowedFd<'_>, PollFlags); 2],
    waker: &Waker,
    deadline: Option<Instant>,
) -> ([PollFlags; 2], Wake) {
    let [a, b] = sockets.map(|(socket, interest)| PollFd::new(socket, interest));
    let mut fds = [a, b, PollFd::new(waker.event.as_fd(), PollFlags::POLLIN)];
    let wake = match ppoll(&mut fds, timeout(deadline), None) {
        Ok(0) => return ([PollFlags::empty(); 2], Wake::Deadline),
        // As above.
        Err(Errno::EINTR) => return ([PollFlags::empty(); 2], Wake::Woken),
        Err(_) => return ([PollFlags::empty(); 2], Wake::Ready),
        Ok(_) if fds[2].any().unwrap_or(false) => {
            waker.drain();
            Wake::Woken
        }
        Ok(_) => Wake::Ready,
    };
    let [a, b, _] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    ([a, b], wake)
}

/// How long it is until then.
fn timeout(deadline: Option<Instant>) -> Option<TimeSpec> {
    deadline.map(|deadline| {
        let left = if deadline > now() { deadline - now() } else { Duration::ZERO };
        TimeSpec::from_duration(left.into())
    })
}

/// How often the two clocks are read for their distance.
const OFFSET_READS: usize = 5;
