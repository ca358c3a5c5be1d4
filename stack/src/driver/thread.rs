//! The loop of one shard.

use std::io;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::MutexGuard;
use smoltcp::time::{Duration, Instant};
use wirestack_nic::{LinkError, LinkState, Nic, wait};

use super::cell::Cell;
use super::launch::{InTurn, Patience};
use super::shutdown::Ending;
use crate::shard::{Command, Mail, Shard};

/// Turns a shard until it is told to end, or its interface has gone.
pub(crate) struct Loop<N> {
    cell: Arc<Cell>,
    /// By their number, this one included.
    all: Arc<[Arc<Cell>]>,
    nic: N,
    patience: Patience,
    ending: Ending,
    woken: Vec<Waker>,
    mail: Vec<(usize, Mail)>,
    /// When the application in the turn wants to be called again.
    app_due: Option<Instant>,
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
        let cell = Arc::clone(&all[number]);
        Self {
            cell,
            all,
            nic,
            patience,
            ending: Ending::default(),
            woken: Vec::new(),
            mail: Vec::new(),
            app_due: None,
        }
    }

    /// Makes the application that lives in the turns, before the first of them.
    pub(crate) fn begin(&self, make: impl FnOnce(&mut Shard) -> io::Result<InTurn>) -> io::Result<InTurn> {
        make(self.cell.hub.lock().shard())
    }

    /// Instead of [`run`](Self::run): everybody hears that there is no such shard.
    pub(crate) fn give_up(self) {
        drop(Guard(self.cell));
    }

    /// Until the end. Whatever ends it, nobody waits for this shard in vain.
    pub(crate) fn run(mut self, in_turn: Option<InTurn>) {
        let guard = Guard(Arc::clone(&self.cell));
        self.turn_until_end(in_turn);
        guard.0.last_answer(self.nic.counters());
    }

    fn turn_until_end(&mut self, mut in_turn: Option<InTurn>) {
        let (mut is_up, mut spins) = (true, 0_u32);
        let mut look_at = wait::now() + LINK_LOOK_INTERVAL;
        let mut busy_at = wait::now();
        loop {
            let (next, now) = self.turn(&mut busy_at, look_at, in_turn.as_mut());
            self.deliver();
            self.cell.answer(|| self.nic.counters());
            let waited = match next {
                Next::End => return,
                Next::Turn => continue,
                Next::Spin => {
                    spins = spins.wrapping_add(1);
                    if !spins.is_multiple_of(SPINS_PER_LOOK) {
                        std::hint::spin_loop();
                        continue;
                    }
                    self.nic.wait(Some(Instant::ZERO)).map(drop)
                }
                Next::Sleep(until) => self.sleep(until),
            };
            let up = match waited {
                Err(LinkError::Gone) => return,
                Err(LinkError::Down) => false,
                // That a cable was pulled out is no error of a device: it is to be asked.
                Ok(()) if !is_up || now >= look_at => {
                    look_at = now + LINK_LOOK_INTERVAL;
                    self.nic.link_state() == LinkState::Up
                }
                Ok(()) => is_up,
            };
            if up != is_up && self.cell.hub.lock().shard().push_command(Command::LinkChanged(up)).is_ok() {
                is_up = up;
            }
        }
    }

    /// One turn, under the lock.
    fn turn(
        &mut self,
        busy_at: &mut Instant,
        look_at: Instant,
        in_turn: Option<&mut InTurn>,
    ) -> (Next, Instant) {
        let Self { cell, nic, patience, ending, woken, mail, app_due, .. } = self;
        let mut hub = cell.hub.lock();
        while let Some(message) = cell.inbox.pop() {
            // There is room: nobody else leaves more than one.
            let _ = hub.shard().push_command(Command::Mail(message));
        }
        let before = hub.shard_ref().counters().rx_frames;
        let more = hub.receive_with(wait::now(), nic, |shard| {
            if let Some(app) = in_turn {
                *app_due = app(shard);
            }
        });
        let is_over = ending.turn(cell, hub.shard());
        let due = hub.send(nic);
        let due = [due, *app_due].into_iter().flatten().min();
        while let Some(message) = hub.shard().next_mail() {
            mail.push(message);
        }
        let now = hub.shard_ref().now();
        if more || hub.has_woken() || hub.shard_ref().counters().rx_frames != before {
            *busy_at = now;
        }
        hub.swap_woken(woken);
        let next = match due {
            _ if is_over => Next::End,
            Some(due) if more || due <= now => Next::Turn,
            None if more => Next::Turn,
            _ if patience.spins(now - *busy_at) => Next::Spin,
            due => {
                // Said under the lock: who has something for the shard after this sees it.
                cell.parker.prepare();
                Next::Sleep(due.map_or(look_at, |due| due.min(look_at)))
            }
        };
        // A loop that spins would have the lock again before anybody else.
        MutexGuard::unlock_fair(hub);
        (next, now)
    }

    /// What is to be done without the lock: whoever was woken may want it.
    fn deliver(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
        let mut lost = 0;
        for (to, message) in self.mail.drain(..) {
            let Some(cell) = self.all.get(to) else { continue };
            if cell.inbox.push(message) {
                cell.parker.notify();
            } else {
                lost += 1;
            }
        }
        if lost > 0 {
            self.cell.hub.lock().shard().count_lost_mail(lost);
        }
    }

    fn sleep(&mut self, until: Instant) -> Result<(), LinkError> {
        // The last look: mail comes without the lock.
        let waited = if self.cell.inbox.is_empty() { self.nic.wait(Some(until)).map(drop) } else { Ok(()) };
        self.cell.parker.awake();
        waited
    }
}

/// Tells everybody that there is nobody to turn the shard any more.
struct Guard(Arc<Cell>);

impl Drop for Guard {
    fn drop(&mut self) {
        let woken = {
            let mut hub = self.0.hub.lock();
            hub.fail(io::ErrorKind::NetworkDown);
            hub.take_woken()
        };
        woken.into_iter().for_each(Waker::wake);
        self.0.end();
    }
}

/// How often a device is asked whether it has a carrier: whoever plugs a cable takes longer.
const LINK_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Turns of a spinning loop between two looks at the link: at a microsecond each, some milliseconds.
const SPINS_PER_LOOK: u32 = 4_096;
