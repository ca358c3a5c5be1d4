//! The loop of one shard.

use std::io;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::MutexGuard;
use smoltcp::time::Instant;
use wirestack_nic::{Nic, wait};

use super::cell::{Cell, Course};
use super::launch::InTurn;
use super::pace::{Pace, Patience};
use super::shutdown::Ending;
use crate::api::Hub;
use crate::shard::carrier::Carrier;
use crate::shard::{Command, Mail, Shard};

/// Turns a shard until it is told to end, or its interface has gone.
pub(crate) struct Loop<N> {
    /// Goes first: whatever ends the loop, everybody hears of it.
    guard: Guard,
    nic: N,
    pace: Pace,
    course: Course,
    ending: Ending,
    carrier: Carrier,
    /// Turns without a sleep.
    turns: u32,
    woken: Vec<Waker>,
    mail: Vec<(usize, Mail)>,
    /// When the application in the turn wants to be called again.
    app_due: Option<Instant>,
    /// Mail is left that found no room in the last turn.
    has_mail: bool,
}

/// What is to be done after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another turn.
    Turn,
    /// The same, but there is nothing to do at the moment.
    Spin,
    /// Sleep until then; the parker knows.
    Sleep(Instant),
    /// The end.
    End,
}

impl<N: Nic> Loop<N> {
    pub(crate) fn new(number: usize, all: Arc<[Arc<Cell>]>, nic: N, patience: Patience) -> Self {
        Self {
            guard: Guard { number, all, is_orderly: false },
            nic,
            pace: Pace::new(patience),
            course: Course::Runs,
            ending: Ending::default(),
            carrier: Carrier::new(wait::now()),
            turns: 0,
            woken: Vec::new(),
            mail: Vec::new(),
            app_due: None,
            has_mail: false,
        }
    }

    /// Makes the application that lives in the turns, before the first of them.
    pub(crate) fn begin(&self, make: impl FnOnce(&mut Shard) -> io::Result<InTurn>) -> io::Result<InTurn> {
        make(self.guard.cell().hub.lock().shard())
    }

    /// Until the end. Whatever ends it, nobody waits for this shard in vain. Returns when all shards have ended: a device
    /// that is closed leaves its fanout group, and the flows of those that are left go elsewhere.
    pub(crate) fn run(mut self, mut in_turn: Option<InTurn>) {
        self.turn_until_end(in_turn.as_mut());
        // Before the devices are closed, and while there is somebody to say what it has counted.
        drop(in_turn);
        let counters = self.nic.counters();
        self.guard.cell().leave_counters(counters);
        let all = Arc::clone(&self.guard.all);
        let Self { guard, nic, .. } = self;
        drop(guard);
        all.iter().for_each(|cell| cell.wait_for_end());
        drop(nic);
    }

    fn turn_until_end(&mut self, mut in_turn: Option<&mut InTurn>) {
        loop {
            let next = self.turn(in_turn.as_deref_mut());
            self.deliver();
            let waited = match next {
                Next::End => {
                    self.guard.is_orderly = true;
                    return;
                }
                Next::Turn | Next::Spin => {
                    self.turns = self.turns.wrapping_add(1);
                    if !self.turns.is_multiple_of(TURNS_PER_LOOK) {
                        if next == Next::Spin {
                            breathe();
                        }
                        continue;
                    }
                    self.nic.wait(Some(Instant::ZERO)).map(drop)
                }
                Next::Sleep(until) => {
                    let nic = &mut self.nic;
                    self.guard.cell().parker.park(|| nic.wait(Some(until)).map(drop)).unwrap_or(Ok(()))
                }
            };
            let Ok(changed) = self.carrier.look(waited, wait::now(), &mut self.nic) else { return };
            if let Some(is_up) = changed {
                self.carrier.tell(is_up, self.guard.cell().hub.lock().shard());
            }
        }
    }

    /// One turn, under the lock.
    fn turn(&mut self, in_turn: Option<&mut InTurn>) -> Next {
        let Self { guard, nic, pace, course, ending, woken, mail, app_due, has_mail, carrier, .. } = self;
        let cell = guard.cell();
        let mut hub = cell.hub.lock();
        if cell.parker.take_call() || *has_mail {
            *has_mail = take_mail(cell, &mut hub);
            *course = cell.course();
            cell.answer(|| nic.counters());
        }
        let before = work(&hub);
        let more = hub.receive_with(wait::now(), nic, |shard| {
            if let Some(app) = in_turn {
                *app_due = app(shard);
            }
        });
        ending.turn(*course, cell, &guard.all, &mut hub);
        let due = hub.send(nic);
        while let Some(message) = hub.shard().next_mail() {
            mail.push(message);
        }
        let now = hub.shard_ref().now();
        if more || hub.has_woken() || work(&hub) != before {
            pace.busy(now);
        }
        hub.swap_woken(woken);
        let due = [due, *app_due, ending.next_deadline()].into_iter().flatten().min();
        let is_due = due.is_some_and(|due| due <= now);
        let next = if ending.is_over(hub.shard_ref()) {
            Next::End
        } else if more || is_due || *has_mail {
            Next::Turn
        } else if pace.spins(now, due) {
            Next::Spin
        } else {
            // Said under the lock: who does something to the shard after this sees it.
            cell.parker.prepare();
            let look_at = carrier.look_at();
            Next::Sleep(due.map_or(look_at, |due| due.min(look_at)))
        };
        // A loop that spins would have the lock again before anybody else.
        MutexGuard::unlock_fair(hub);
        next
    }

    /// What is to be done without the lock: whoever was woken may want it.
    fn deliver(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
        let mut lost = 0;
        for (to, message) in self.mail.drain(..) {
            let Some(cell) = self.guard.all.get(to) else { continue };
            if cell.inbox.push(message) {
                cell.parker.call();
            } else {
                lost += 1;
            }
        }
        if lost > 0 {
            self.guard.cell().hub.lock().shard().count_lost_mail(lost);
        }
    }
}

/// Mail becomes commands, as many as there is room for. True: some is left.
fn take_mail(cell: &Cell, hub: &mut Hub) -> bool {
    cell.inbox.drain(|mail| match hub.shard().push_command(Command::Mail(mail)) {
        Err(Command::Mail(mail)) => Err(mail),
        _ => Ok(()),
    })
}

/// Something that differs when frames came or went.
fn work(hub: &Hub) -> (u64, u64, u64) {
    let shard = hub.shard_ref();
    (shard.counters().rx_frames, shard.counters().tx_frames, shard.tcp_counters().frames_out)
}

/// A moment in which others find the lock free.
fn breathe() {
    for _ in 0..PAUSES {
        std::hint::spin_loop();
    }
}

/// Tells everybody that there is nobody to turn the shard any more.
#[derive(Debug)]
struct Guard {
    number: usize,
    /// By their number, this one included.
    all: Arc<[Arc<Cell>]>,
    /// It was told to end, and has done so.
    is_orderly: bool,
}

impl Guard {
    fn cell(&self) -> &Cell {
        &self.all[self.number]
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let woken = {
            let mut hub = self.cell().hub.lock();
            hub.fail(io::ErrorKind::NetworkDown);
            hub.take_woken()
        };
        woken.into_iter().for_each(Waker::wake);
        self.cell().end();
        if self.is_orderly {
            // The last one that is waited for may have a lease to give back.
            self.all.iter().for_each(|other| other.parker.call());
            return;
        }
        if std::thread::panicking() {
            log::error!("shard {} has panicked: the stack ends", self.number);
        }
        // A stack of which some flows get no answer is none.
        self.all.iter().for_each(|other| other.end_until(Instant::ZERO));
    }
}

/// Turns without a sleep between two looks at the link: at a microsecond each, some milliseconds.
const TURNS_PER_LOOK: u32 = 4_096;
/// Each is some tens of nanoseconds: together less than a turn.
const PAUSES: u32 = 4;
