//! All orders of the steps of a thread that sleeps and of those that have something for it, with the code that runs: loom
//! tries them, with all that the memory model permits. A wake-up that is lost leaves a thread that waits for ever, which
//! loom finds. Steps in a wrong order, and a fence that is missing, are given here too, and must be found out: otherwise
//! the model proves nothing.

use std::collections::VecDeque;
use std::marker::PhantomData;

use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::super::mailbox::{Inbox, Lock};
use super::{Flag, Parker, Wakes};
use crate::shard::Mail;

/// Whether the fence is where it belongs.
trait Fenced {
    const FENCED: bool;
}
struct With;
struct Without;
impl Fenced for With {
    const FENCED: bool = true;
}
impl Fenced for Without {
    const FENCED: bool = false;
}

struct LoomFlag<K>(AtomicBool, PhantomData<fn() -> K>);

impl<K: Fenced> Flag for LoomFlag<K> {
    fn cleared() -> Self {
        Self(AtomicBool::new(false), PhantomData)
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    fn fence() {
        if K::FENCED {
            fence(Ordering::SeqCst);
        }
    }
}

/// An eventfd, and a device that waits for nothing else.
#[derive(Default)]
struct Bell {
    is_rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn wait(&self) {
        let mut is_rung = self.is_rung.lock().expect("nobody panics");
        while !*is_rung {
            is_rung = self.rings.wait(is_rung).expect("nobody panics");
        }
        *is_rung = false;
    }
}

impl Wakes for Arc<Bell> {
    fn wake(&self) {
        *self.is_rung.lock().expect("nobody panics") = true;
        self.rings.notify_one();
    }
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock().expect("nobody panics"))
    }
}

/// What a thread of the driver shares, as in `cell`.
struct Seat<K> {
    parker: Parker<LoomFlag<K>, Arc<Bell>>,
    bell: Arc<Bell>,
    inbox: Inbox<Mutex<VecDeque<Mail>>>,
    /// Work that applications have left under the lock.
    hub: Mutex<u32>,
    is_ended: Mutex<bool>,
}

impl<K: Fenced + 'static> Seat<K> {
    fn new() -> Arc<Self> {
        let bell = Arc::new(Bell::default());
        Arc::new(Self {
            parker: Parker::new(Arc::clone(&bell)),
            bell,
            inbox: Inbox::new(8),
            hub: Mutex::new(0),
            is_ended: Mutex::new(false),
        })
    }

    /// The loop of a shard, until it was told to end and has got so much.
    fn run(&self, work: u32, mail: usize) {
        let (mut done, mut taken, mut is_ended) = (0, 0, false);
        loop {
            let mut hub = self.hub.lock().expect("nobody panics");
            if self.parker.take_call() {
                self.inbox.drain(|_| {
                    taken += 1;
                    Ok(())
                });
                is_ended = *self.is_ended.lock().expect("nobody panics");
            }
            done += std::mem::take(&mut *hub);
            if is_ended && done == work && taken == mail {
                return;
            }
            self.parker.prepare();
            drop(hub);
            self.parker.park(|| self.bell.wait());
        }
    }

    /// An application, through `Access::with`.
    fn work(&self) {
        *self.hub.lock().expect("nobody panics") += 1;
        self.parker.notify();
    }

    /// Another shard.
    fn send(&self) {
        assert!(self.inbox.push(Mail::Packet(Vec::new())));
        self.parker.call();
    }

    /// Whoever ends the stack.
    fn end(&self) {
        *self.is_ended.lock().expect("nobody panics") = true;
        self.parker.call();
    }
}

/// Runs a loop that gets this from others, each on a thread of its own.
fn model<K: Fenced + 'static>(work: u32, mail: usize, others: &'static [fn(&Seat<K>)]) {
    let mut builder = loom::model::Builder::new();
    // More do not find more, and take long.
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let seat = Seat::<K>::new();
        let others: Vec<_> = others
            .iter()
            .map(|other| {
                let seat = Arc::clone(&seat);
                thread::spawn(move || other(&seat))
            })
            .collect();
        seat.run(work, mail);
        others.into_iter().for_each(|other| other.join().expect("it does not panic"));
    });
}

#[test]
fn mail_and_the_end_are_never_missed() {
    model::<With>(
        0,
        1,
        &[|seat| {
            seat.send();
            seat.end();
        }],
    );
    model::<With>(0, 1, &[Seat::send, Seat::end]);
}

#[test]
fn work_under_the_lock_is_never_missed() {
    model::<With>(
        2,
        0,
        &[|seat| {
            seat.work();
            seat.work();
            seat.end();
        }],
    );
    model::<With>(1, 0, &[Seat::work, Seat::end]);
}

#[test]
fn all_at_once_are_never_missed() {
    model::<With>(
        1,
        1,
        &[Seat::work, |seat| {
            seat.send();
            seat.end();
        }],
    );
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_missing_fence_is_found_out() {
    model::<Without>(0, 0, &[Seat::end]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn telling_before_leaving_is_found_out() {
    model::<With>(
        0,
        1,
        &[|seat| {
            seat.end();
            seat.parker.call();
            assert!(seat.inbox.push(Mail::Packet(Vec::new())));
        }],
    );
}
