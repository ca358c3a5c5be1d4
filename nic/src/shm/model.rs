//! The hand-over of a slot in every order of the two sides' steps that the memory model permits, with the
//! orderings of this module: loom runs them all, and finds accesses that nothing keeps apart.
//!
//! `stress` runs the real code on this machine, whose processor forgives much; this is the model for the
//! others. Weakened orderings are given here too, and must be found out: otherwise the model proves nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use super::{HAND_OVER, LOOK};

/// Frames through the one slot: with the second one the kernel writes where we have written.
const ROUNDS: u32 = 2;
/// How often each side looks for one frame before it gives up, so that there is an end to the orders.
const POLLS_MAX: usize = 3;

/// A slot: the status word, and the rest of it in one word.
struct Slot {
    status: AtomicU32,
    data: UnsafeCell<u32>,
}

// SAFETY: threads share `data` by the rules of `status`, and loom ends the run in which they do not.
unsafe impl Sync for Slot {}

impl Slot {
    /// Waits for the status; false if it did not come.
    fn wait_for(&self, status: u32, look: Ordering) -> bool {
        (0..POLLS_MAX).any(|_| {
            let is_there = self.status.load(look) == status;
            if !is_there {
                thread::yield_now();
            }
            is_there
        })
    }

    fn read(&self) -> u32 {
        // SAFETY: valid and initialised: loom lends the address of the word; not written meanwhile: loom
        // has checked that before it calls.
        self.data.with(|data| unsafe { *data })
    }

    fn write(&self, value: u32) {
        // SAFETY: valid: loom lends the address of the word; not accessed meanwhile: loom has checked that
        // before it calls.
        self.data.with_mut(|data| unsafe { *data = value });
    }

    /// The kernel's half. It has barriers of its own: `smp_mb` in `tpacket_rcv` before the status is set, and
    /// its writes depend on the status that it saw.
    fn kernel(&self) {
        for number in 1..=ROUNDS {
            if !self.wait_for(libc::TP_STATUS_KERNEL, Ordering::Acquire) {
                return;
            }
            self.write(number);
            self.status.store(libc::TP_STATUS_USER, Ordering::Release);
        }
    }

    /// Our half: frames that went through.
    fn ours(&self, look: Ordering, hand_over: Ordering) -> u32 {
        for number in 1..=ROUNDS {
            if !self.wait_for(libc::TP_STATUS_USER, look) {
                return number - 1;
            }
            assert_eq!(self.read(), number, "what the kernel wrote last");
            // A checksum that is filled in.
            self.write(u32::MAX);
            self.status.store(libc::TP_STATUS_KERNEL, hand_over);
        }
        ROUNDS
    }
}

/// Runs all orders; returns how many there are, and in how many of them every frame went through.
fn run(look: Ordering, hand_over: Ordering) -> (usize, usize) {
    let (orders, complete) =
        (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
    let counts = (orders.clone(), complete.clone());
    loom::model(move || {
        let status = AtomicU32::new(libc::TP_STATUS_KERNEL);
        let slot = Arc::new(Slot { status, data: UnsafeCell::new(0) });
        let kernels = slot.clone();
        let kernel = thread::spawn(move || kernels.kernel());
        let passed = slot.ours(look, hand_over);
        kernel.join().expect("the kernel does not panic");
        counts.0.fetch_add(1, Ordering::Relaxed);
        counts.1.fetch_add(usize::from(passed == ROUNDS), Ordering::Relaxed);
    });
    (orders.load(Ordering::Relaxed), complete.load(Ordering::Relaxed))
}

#[test]
fn no_order_lets_both_sides_at_a_slot() {
    let (orders, complete) = run(LOOK, HAND_OVER);
    // With one order the two sides never met, and nothing was tried.
    assert!(orders > 10 && complete > 10, "{complete} of {orders} orders passed all frames");
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_weaker_look_is_found_out() {
    run(Ordering::Relaxed, HAND_OVER);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_weaker_hand_over_is_found_out() {
    run(LOOK, Ordering::Relaxed);
}
