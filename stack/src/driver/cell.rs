//! What the thread of a shard shares with everybody else.

use parking_lot::{Condvar, Mutex};
use smoltcp::time::Instant;
use wirestack_nic::Counters;

use super::mailbox::Inbox;
use super::parker::Parker;
use crate::api::Hub;

/// A shard behind its lock, and how to wake its thread.
#[derive(Debug)]
pub struct Cell {
    pub(crate) hub: Mutex<Hub>,
    pub(crate) parker: Parker,
    pub(crate) inbox: Inbox,
    course: Mutex<Course>,
    has_ended: Condvar,
    /// What the device has counted, and how often its thread was asked and has answered.
    counted: Mutex<Counted>,
    has_counted: Condvar,
}

#[derive(Debug, Default)]
struct Counted {
    counters: Counters,
    asked: u64,
    answered: u64,
}

/// Whether the shard is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// It is.
    Runs,
    /// Connections get until then to end.
    Ends(Instant),
    /// There is no thread any more.
    Ended,
}

impl Cell {
    pub(crate) fn new(hub: Hub, parker: Parker, inbox: Inbox) -> Self {
        let (hub, course) = (Mutex::new(hub), Mutex::new(Course::Runs));
        Self {
            hub,
            parker,
            inbox,
            course,
            has_ended: Condvar::new(),
            counted: Mutex::default(),
            has_counted: Condvar::new(),
        }
    }

    pub(crate) fn course(&self) -> Course {
        *self.course.lock()
    }

    /// Connections get until then to end; an earlier time than one that was said counts.
    pub(crate) fn end_until(&self, deadline: Instant) {
        let mut course = self.course.lock();
        *course = match *course {
            Course::Runs => Course::Ends(deadline),
            Course::Ends(before) => Course::Ends(before.min(deadline)),
            Course::Ended => Course::Ended,
        };
        drop(course);
        // A turn that has begun has not seen it, and the parker is to be awake: under the lock it is one or the other.
        drop(self.hub.lock());
        self.parker.notify();
    }

    /// What the device has counted until now; until the last answer of its thread, if that does not answer at once.
    pub(crate) fn nic_counters(&self) -> Counters {
        let mut counted = self.counted.lock();
        if self.course() == Course::Ended {
            return counted.counters;
        }
        counted.asked += 1;
        let asked = counted.asked;
        // The thread sees it in its next turn, which this makes come.
        parking_lot::MutexGuard::unlocked(&mut counted, || {
            drop(self.hub.lock());
            self.parker.notify();
        });
        let give_up = std::time::Instant::now() + ANSWER_TIMEOUT;
        while counted.answered < asked {
            if self.has_counted.wait_until(&mut counted, give_up).timed_out() {
                break;
            }
        }
        counted.counters
    }

    /// The thread answers, if it was asked.
    pub(crate) fn answer(&self, count: impl FnOnce() -> Counters) {
        let mut counted = self.counted.lock();
        if counted.answered < counted.asked {
            counted.answered = counted.asked;
            counted.counters = count();
            self.has_counted.notify_all();
        }
    }

    /// The thread tells a last time.
    pub(crate) fn last_answer(&self, counters: Counters) {
        let mut counted = self.counted.lock();
        (counted.counters, counted.answered) = (counters, u64::MAX);
        self.has_counted.notify_all();
    }

    /// The thread is gone.
    pub(crate) fn end(&self) {
        *self.course.lock() = Course::Ended;
        self.has_ended.notify_all();
    }

    /// Waits until it is.
    pub(crate) fn wait_for_end(&self) {
        let mut course = self.course.lock();
        while *course != Course::Ended {
            self.has_ended.wait(&mut course);
        }
    }
}

/// A turn takes much less.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);
