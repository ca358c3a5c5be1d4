//! What the thread of a shard shares with everybody else.

use parking_lot::{Condvar, Mutex};
use smoltcp::time::Instant;

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
        Self { hub, parker, inbox, course, has_ended: Condvar::new() }
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
