use super::super::hystart::{HyStart, Pace};
use super::*;

/// One round of ACKs, with these round-trip times in microseconds; the last of them ends it. What each has returned.
fn round(hystart: &mut HyStart, number: u32, rtts: &[u64]) -> Vec<Pace> {
    let end = Seq(number * 1_000);
    let each = rtts.iter().enumerate().map(|(index, &rtt)| {
        let is_last = index + 1 == rtts.len();
        let snd_una = if is_last { end } else { end - 1 };
        let rtt = (rtt > 0).then(|| Duration::from_micros(rtt));
        let snd_nxt = if is_last { end + 1_000 } else { end };
        hystart.on_ack(&AckSample { rtt, snd_una, snd_nxt, ..ack(Instant::ZERO, MSS) })
    });
    each.collect()
}

/// Rounds: how many samples, all of a length in milliseconds; and the divisor at the end of each, 0: over.
fn check(rounds: &[(usize, u64, u32)]) {
    let mut hystart = HyStart::new();
    for (index, &(samples, rtt, divisor)) in rounds.iter().enumerate() {
        let pace =
            *round(&mut hystart, index as u32 + 1, &vec![rtt * 1_000; samples]).last().expect("an ACK");
        let expected = if divisor == 0 { Pace::Over } else { Pace::Divided(divisor) };
        assert_eq!(pace, expected, "in round {index} of {rounds:?}");
    }
}

#[test]
fn round_trips_that_do_not_get_longer_are_slow_start() {
    check(&[(10, 10, 1), (20, 10, 1), (40, 13, 1), (80, 16, 1), (160, 19, 1), (320, 15, 1)]);
}

#[test]
fn the_threshold_is_an_eighth_between_4_and_16_ms() {
    for (last, enough, not_enough) in
        [(1, 5, 4), (10, 14, 13), (80, 90, 89), (128, 144, 143), (400, 416, 415)]
    {
        check(&[(8, last, 1), (8, enough, 4)]);
        check(&[(8, last, 1), (8, not_enough, 1)]);
    }
}

#[test]
fn five_conservative_rounds_end_it() {
    check(&[(8, 10, 1), (8, 14, 4), (8, 14, 4), (8, 20, 4), (8, 30, 4), (8, 40, 0)]);
}

#[test]
fn a_shorter_round_resumes_it() {
    check(&[(8, 10, 1), (8, 14, 4), (8, 14, 4), (8, 13, 1), (8, 13, 1), (8, 17, 4), (8, 18, 4)]);
}

#[test]
fn eight_samples_are_waited_for() {
    let mut hystart = HyStart::new();
    round(&mut hystart, 1, &[10_000; 8]);
    let paces = round(&mut hystart, 2, &[15_000; 20]);
    assert_eq!(paces.iter().filter(|&&pace| pace == Pace::Divided(1)).count(), 7);
    // One short round trip among them is enough to show that there is no queue.
    let mut hystart = HyStart::new();
    round(&mut hystart, 1, &[10_000; 8]);
    let rtts = [15_000, 15_000, 15_000, 10_500, 15_000, 15_000, 15_000, 15_000, 15_000];
    assert!(round(&mut hystart, 2, &rtts).iter().all(|&pace| pace == Pace::Divided(1)));
}

#[test]
fn rounds_of_few_merged_acks_are_judged_at_their_end() {
    // Four are enough, three are not.
    check(&[(4, 10, 1), (4, 20, 4)]);
    check(&[(4, 10, 1), (3, 20, 1), (3, 30, 1)]);
    // They can resume slow start, too.
    check(&[(8, 10, 1), (8, 20, 4), (4, 15, 1)]);
    // And they are compared with, however few they were.
    check(&[(2, 10, 1), (8, 20, 4)]);
}

#[test]
fn acks_without_a_sample_tell_nothing() {
    check(&[(8, 10, 1), (100, 0, 1), (8, 14, 4)]);
}
