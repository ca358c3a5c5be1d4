use super::*;

const SEGMENT: u32 = MSS;

fn window(cwnd: u32, ssthresh: u32) -> Used {
    Used {
        cwnd: cwnd * SEGMENT,
        ssthresh: Some(ssthresh * SEGMENT),
        initial_window: 10 * SEGMENT,
        srtt: Some(Duration::from_millis(100)),
    }
}

/// A flow that has so many segments acknowledged each 100 ms, in a span of time in seconds. What it was told, with the
/// time.
fn flow(
    validation: &mut Validation,
    (from, until): (i64, i64),
    segments: u32,
    used: &Used,
) -> Vec<(i64, (u32, u32))> {
    let mut told = Vec::new();
    for tick in from * 10..until * 10 {
        let now = millis(tick * 100);
        let sent = validation.on_sent(now, used);
        let acked = validation.on_ack(now + Duration::from_millis(50), segments * SEGMENT, used);
        told.extend(sent.or(acked).map(|reduction| (tick / 10, reduction)));
    }
    told
}

#[test]
fn pipe_ack_is_the_most_of_a_round_trip_in_the_last_second() {
    let mut validation = Validation::new(millis(0));
    let used = window(100, 50);
    assert_eq!(validation.pipe_ack(), None);
    assert!(validation.is_validated(&used), "undefined is validated");
    flow(&mut validation, (0, 3), 60, &used);
    let pipe_ack = validation.pipe_ack().expect("defined");
    assert!((59 * SEGMENT..=61 * SEGMENT).contains(&pipe_ack), "{pipe_ack}");
    assert!(validation.is_validated(&used) && !validation.is_validated(&window(130, 50)));
    // In slow start a window is twice as large as what is acknowledged, and that is of the round before.
    assert!(validation.is_validated(&window(130, 200)));
    // After a sampling period it has forgotten.
    flow(&mut validation, (3, 5), 1, &used);
    assert!(validation.pipe_ack().expect("defined") <= 2 * SEGMENT);
}

#[test]
fn a_window_that_is_used_stays() {
    let mut validation = Validation::new(millis(0));
    assert_eq!(flow(&mut validation, (0, 1_000), 60, &window(100, 50)), []);
}

#[test]
fn a_trickle_keeps_the_window_for_five_minutes() {
    let mut validation = Validation::new(millis(0));
    flow(&mut validation, (0, 10), 60, &window(100, 50));
    let told = flow(&mut validation, (10, 700), 1, &window(100, 50));
    // cwnd / 2, and a threshold of three quarters of it. It would have to be told again until it is small.
    let (times, reductions): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    assert_eq!(reductions, [(50 * SEGMENT, 75 * SEGMENT); 2]);
    assert!((310..=312).contains(&times[0]) && times[1] - times[0] == 300, "{times:?}");
    // Never below the initial window; never a threshold that is less than before.
    for (cwnd, ssthresh, expected) in
        [(12, 100, Some((10, 100))), (10, 2, None), (40, 2, Some((20, 30))), (1_000, 500, Some((500, 750)))]
    {
        let mut validation = Validation::new(millis(0));
        let told = flow(&mut validation, (0, 305), 1, &window(cwnd, ssthresh));
        let expected = expected.map(|(cwnd, ssthresh): (u32, u32)| (cwnd * SEGMENT, ssthresh * SEGMENT));
        assert_eq!(told.first().map(|&(_, reduction)| reduction), expected, "{cwnd} {ssthresh}");
    }
}

#[test]
fn a_silence_counts_as_a_trickle_does() {
    let mut validation = Validation::new(millis(0));
    let used = window(100, 50);
    flow(&mut validation, (0, 10), 60, &used);
    assert_eq!(validation.on_sent(millis(309_000), &used), None);
    assert_eq!(validation.on_sent(millis(320_000), &used), Some((50 * SEGMENT, 75 * SEGMENT)));
    assert_eq!(validation.on_sent(millis(320_001), &used), None);
    // Nothing was lost yet: slow start is as open as it was.
    let used = Used { ssthresh: None, ..used };
    assert_eq!(validation.on_sent(millis(700_000), &used), Some((50 * SEGMENT, u32::MAX)));
}

#[test]
fn a_loss_counts_what_was_in_flight() {
    let used = window(100, 50);
    for (segments, flight, retransmitted, expected) in [
        // In use: the controller's own reduction is right.
        (60, 100, 3, None),
        // pipeACK of 20, more than was in flight; then the other way round.
        (20, 12, 2, Some(9)),
        (20, 30, 4, Some(13)),
        (1, 1, 5, Some(0)),
    ] {
        let mut validation = Validation::new(millis(0));
        flow(&mut validation, (0, 5), segments, &used);
        validation.on_congestion(flight * SEGMENT, &used);
        let end = validation.on_recovery_end(millis(5_200), retransmitted * SEGMENT, &used);
        let found = end.map(|(cwnd, ssthresh)| ((cwnd + SEGMENT / 4) / SEGMENT, ssthresh));
        assert_eq!(found, expected.map(|cwnd| (cwnd, 50 * SEGMENT)), "{segments} {flight} {retransmitted}");
        assert_eq!(validation.pipe_ack(), None, "undefined directly after a loss");
        // It was told once.
        assert_eq!(validation.on_recovery_end(millis(5_300), 0, &used), None);
    }
    let mut validation = Validation::new(millis(0));
    flow(&mut validation, (0, 5), 1, &used);
    validation.on_congestion(SEGMENT, &used);
    validation.on_undo();
    assert_eq!(validation.on_recovery_end(millis(5_200), 0, &used), None);
}
