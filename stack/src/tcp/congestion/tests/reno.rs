use proptest::prelude::*;

use super::Step::*;
use super::*;

/// Steps, and the window and the threshold in segments after each; 0: no threshold.
fn check(steps: &[(Step, u32, u32)]) {
    let mut reno = Reno::new(MSS, 10 * MSS);
    for (index, &(step, cwnd, ssthresh)) in steps.iter().enumerate() {
        take(&mut reno, step);
        let found = (reno.cwnd(), reno.ssthresh().unwrap_or(0));
        assert_eq!(found, (cwnd * MSS, ssthresh * MSS), "after step {index}, {step:?}");
    }
}

#[test]
fn slow_start_grows_by_what_is_delivered_however_it_is_acknowledged() {
    check(&[(Ack(10), 20, 0), (Ack(1), 21, 0), (Ack(43), 64, 0)]);
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    check(&[(AckUnused(10), 10, 0), (Event(Signal::Loss, 10), 5, 5), (End, 5, 5), (AckUnused(50), 5, 5)]);
}

#[test]
fn a_loss_halves_what_was_in_flight() {
    check(&[
        (Ack(10), 20, 0),
        (Event(Signal::Loss, 16), 8, 8),
        (AckInRecovery(16), 8, 8),
        (End, 8, 8),
        // One segment in a window.
        (Ack(7), 8, 8),
        (Ack(1), 9, 8),
        (Ack(9 + 10), 11, 8),
    ]);
    // Two segments at least; and what limited transmit sends beyond the window is not counted.
    check(&[(Event(Signal::Loss, 1), 2, 2)]);
    check(&[(Event(Signal::Loss, 12), 5, 5)]);
}

#[test]
fn slow_start_ends_at_the_threshold() {
    check(&[
        (Event(Signal::Timeout, 10), 1, 5),
        (AckInRecovery(1), 2, 5),
        (AckInRecovery(2), 4, 5),
        (End, 4, 5),
        // One for slow start, the other five for congestion avoidance.
        (Ack(6), 6, 5),
    ]);
}

#[test]
fn a_timeout_in_fast_recovery_is_no_second_loss() {
    check(&[
        (Ack(10), 20, 0),
        (Event(Signal::Loss, 20), 10, 10),
        (Event(Signal::Timeout, 20), 1, 10),
        (End, 1, 10),
        (Ack(9), 10, 10),
    ]);
    check(&[(Ack(10), 20, 0), (Event(Signal::Loss, 20), 10, 10), (Event(Signal::Timeout, 30), 1, 10)]);
    // But no more than half of what is in flight (RFC 5681, equation 4).
    check(&[(Ack(10), 20, 0), (Event(Signal::Loss, 20), 10, 10), (Event(Signal::Timeout, 12), 1, 6)]);
}

#[test]
fn a_mark_halves_at_once_and_repairs_nothing() {
    check(&[(Ack(10), 20, 0), (Event(Signal::Ecn, 20), 10, 10), (Ack(10), 11, 10)]);
    // The window does not grow by it.
    check(&[(Event(Signal::Timeout, 10), 1, 5), (Event(Signal::Ecn, 1), 1, 2)]);
}

#[test]
fn what_was_no_loss_is_undone_once() {
    check(&[
        (Ack(10), 20, 0),
        (Event(Signal::Loss, 20), 10, 10),
        (Undo, 20, 0),
        // No repair is going on any more.
        (End, 20, 0),
        (Ack(5), 25, 0),
    ]);
    check(&[
        (Event(Signal::Loss, 10), 5, 5),
        (End, 5, 5),
        (Event(Signal::Timeout, 4), 1, 2),
        (AckInRecovery(1), 2, 2),
        (Undo, 5, 5),
        (ReduceTo(3, 4), 3, 4),
        (Undo, 3, 4),
    ]);
    check(&[(Undo, 10, 0)]);
}

#[test]
fn a_window_that_was_not_used_is_reduced() {
    check(&[(Ack(10), 20, 0), (ReduceTo(10, 15), 10, 15), (ReduceTo(30, 15), 10, 15), (Ack(5), 15, 15)]);
}

#[test]
fn a_segment_of_another_size_leaves_the_bytes() {
    check(&[(Mss(500), 10, 0), (Event(Signal::Loss, 10), 5, 5), (Mss(8 * MSS), 8, 16)]);
    let mut reno = Reno::new(MSS, 10 * MSS);
    reno.set_mss(500);
    reno.on_congestion(&event(Signal::Loss, 10 * MSS));
    reno.on_recovery_end(Instant::ZERO, 0);
    reno.on_ack(&ack(Instant::ZERO, 5 * MSS));
    assert_eq!(reno.cwnd(), 5 * MSS + 500);
}

proptest! {
    /// Congestion avoidance, one segment at a time, as RFC 5681 says it with bytes: when a window of bytes has been
    /// acknowledged, the window grows by one segment. ACKs of any size make the same of it.
    #[test]
    fn congestion_avoidance_is_one_segment_per_window(acks in prop::collection::vec(1_u32..44, 1..200)) {
        let mut reno = Reno::new(MSS, 10 * MSS);
        reno.on_congestion(&event(Signal::Loss, 10 * MSS));
        reno.on_recovery_end(Instant::ZERO, 0);
        let (mut cwnd, mut acked) = (5_u32, 0_u32);
        for segments in acks {
            reno.on_ack(&ack(Instant::ZERO, segments * MSS));
            for _ in 0..segments {
                acked += 1;
                if acked >= cwnd {
                    acked -= cwnd;
                    cwnd += 1;
                }
            }
            // An ACK for more than a window is divided by the window before it: a little more than one by one.
            let found = reno.cwnd() / MSS;
            prop_assert!(found.abs_diff(cwnd) <= 1 + cwnd / 5, "{found} and not {cwnd}");
        }
    }
}
