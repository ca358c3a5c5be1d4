//! What the thread of a shard shares with everybody else.

use std::time;

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
    told: Mutex<Told>,
    has_changed: Condvar,
}

/// What others tell the thread, and it them. Whoever changes it calls the parker, but the thread itself.
#[derive(Debug)]
struct Told {
    course: Course,
    /// Its connections have nothing left to say.
    is_drained: bool,
    /// How often somebody has asked for the counters of the device.
    asked: u64,
    /// Up to which question they are answered.
    answered: u64,
    nic: Counters,
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
        let told =
            Told { course: Course::Runs, is_drained: false, asked: 0, answered: 0, nic: Counters::default() };
        Self { hub: Mutex::new(hub), parker, inbox, told: Mutex::new(told), has_changed: Condvar::new() }
    }

    pub(crate) fn course(&self) -> Course {
        self.told.lock().course
    }

    /// Connections get until then to end; an earlier time than one that was said counts.
    pub(crate) fn end_until(&self, deadline: Instant) {
        let mut told = self.told.lock();
        told.course = match told.course {
            Course::Runs => Course::Ends(deadline),
            Course::Ends(before) => Course::Ends(before.min(deadline)),
            Course::Ended => Course::Ended,
        };
        drop(told);
        self.parker.call();
    }

    /// Its connections have nothing left to say.
    pub(crate) fn set_drained(&self) {
        self.told.lock().is_drained = true;
    }

    pub(crate) fn is_drained(&self) -> bool {
        let told = self.told.lock();
        told.is_drained || told.course == Course::Ended
    }

    /// The thread is gone.
    pub(crate) fn end(&self) {
        self.told.lock().course = Course::Ended;
        self.has_changed.notify_all();
    }

    /// Waits until it is.
    pub(crate) fn wait_for_end(&self) {
        let mut told = self.told.lock();
        while told.course != Course::Ended {
            self.has_changed.wait(&mut told);
        }
    }

    /// What the device has counted, as of now; as of the last time that somebody asked, if the thread is too busy to
    /// answer, or gone.
    pub(crate) fn nic_counters(&self) -> Counters {
        let mut told = self.told.lock();
        told.asked += 1;
        let question = told.asked;
        drop(told);
        self.parker.call();
        let mut told = self.told.lock();
        while told.answered < question && told.course != Course::Ended {
            if self.has_changed.wait_for(&mut told, ANSWER_TIMEOUT).timed_out() {
                break;
            }
        }
        told.nic
    }

    /// Answers whoever has asked for the counters of the device.
    pub(crate) fn answer(&self, counters: impl FnOnce() -> Counters) {
        let question = {
            let told = self.told.lock();
            if told.asked == told.answered {
                return;
            }
            told.asked
        };
        self.publish(question, counters());
    }

    /// The last that the device has counted.
    pub(crate) fn leave_counters(&self, counters: Counters) {
        let asked = self.told.lock().asked;
        self.publish(asked, counters);
    }

    fn publish(&self, question: u64, counters: Counters) {
        let mut told = self.told.lock();
        (told.answered, told.nic) = (question, counters);
        drop(told);
        self.has_changed.notify_all();
    }
}

/// How long somebody waits for the counters of a device: a turn takes some microseconds.
const ANSWER_TIMEOUT: time::Duration = time::Duration::from_millis(100);
