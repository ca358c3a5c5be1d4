use super::*;

/// The ranges that are told after segments `(start, end)` have come early, one after the other.
fn told(segments: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut ranges = EarlyRanges::default();
    for &(start, end) in segments {
        ranges.add(Seq(start), Seq(end));
        ranges.mark_recent(Seq(start));
    }
    ranges.sack_blocks().as_slice().iter().map(|&(start, end)| (start.0, end.0)).collect()
}

#[test]
fn the_range_of_the_last_segment_is_told_first_then_those_before_it() {
    type Pairs = &'static [(u32, u32)];
    let cases: [(Pairs, Pairs); 11] = [
        (&[], &[]),
        (&[(10, 20)], &[(10, 20)]),
        (&[(10, 20), (30, 40)], &[(30, 40), (10, 20)]),
        (&[(30, 40), (10, 20)], &[(10, 20), (30, 40)]),
        // It grows at the end, and at the front, and both.
        (&[(10, 20), (30, 40), (20, 25)], &[(10, 25), (30, 40)]),
        (&[(10, 20), (30, 40), (5, 10)], &[(5, 20), (30, 40)]),
        (&[(10, 20), (30, 40), (20, 30)], &[(10, 40)]),
        // A repetition counts too.
        (&[(10, 20), (30, 40), (12, 14)], &[(10, 20), (30, 40)]),
        // The fifth falls out, and comes back when two have merged.
        (&[(10, 20), (30, 40), (50, 60), (70, 80), (90, 95)], &[(90, 95), (70, 80), (50, 60), (30, 40)]),
        (
            &[(10, 20), (30, 40), (50, 60), (70, 80), (90, 95), (80, 90)],
            &[(70, 95), (50, 60), (30, 40), (10, 20)],
        ),
        // Across the end of the numbers.
        (&[(u32::MAX - 9, u32::MAX), (5, 10), (u32::MAX, 5)], &[(u32::MAX - 9, 10)]),
    ];
    for (segments, expected) in cases {
        assert_eq!(told(segments), expected, "{segments:?}");
    }
}

#[test]
fn a_range_that_grows_for_long_does_not_make_the_others_forgotten() {
    let mut segments = vec![(10, 20), (50, 60), (30, 40), (70, 80)];
    segments.extend((80..100).map(|start| (start, start + 1)));
    assert_eq!(told(&segments), [(70, 100), (30, 40), (50, 60), (10, 20)]);
}

#[test]
fn ranges_that_are_gone_are_not_told() {
    let mut ranges = EarlyRanges::default();
    for start in [10, 30, 50, 70] {
        ranges.add(Seq(start), Seq(start + 5));
        ranges.mark_recent(Seq(start));
    }
    assert_eq!(ranges.pop_last(), Some(Range { start: Seq(70), end: Seq(75) }));
    assert_eq!(ranges.absorb(Seq(30)), Seq(35));
    assert_eq!(ranges.sack_blocks().as_slice(), &[(Seq(50), Seq(55))]);
    assert_eq!((ranges.len(), ranges.bytes()), (1, 5));
    ranges.clear();
    assert!(ranges.is_empty() && ranges.sack_blocks().is_empty() && ranges.bytes() == 0);
}

#[test]
fn ranges_that_no_ack_has_told_are_counted() {
    let mut ranges = EarlyRanges::default();
    let mut come = |start: u32, end: u32| {
        ranges.add(Seq(start), Seq(end));
        ranges.mark_recent(Seq(start));
        ranges.untold()
    };
    // The third one is of the same range as the second.
    assert_eq!([(10, 20), (30, 40), (40, 50), (70, 80)].map(|(start, end)| come(start, end)), [1, 2, 2, 3]);
    ranges.mark_told();
    assert_eq!(ranges.untold(), 0);
    ranges.add(Seq(80), Seq(90));
    ranges.mark_recent(Seq(80));
    assert_eq!(ranges.untold(), 1, "it has grown since it was told");
    ranges.clear();
    assert_eq!(ranges.untold(), 0);
}
