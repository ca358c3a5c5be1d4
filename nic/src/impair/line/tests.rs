//! The line in virtual time: rates of chance, times of release, and that every frame is accounted for.

use proptest::prelude::*;

use super::*;

/// A frame of `len` bytes that carries its number.
fn send(line: &mut Line<'_>, now: Instant, number: u32, len: usize) {
    line.send(now, len.max(4), FrameMeta::default(), |room| {
        room.fill(0);
        room[..4].copy_from_slice(&number.to_be_bytes());
    });
}

/// The number of the next frame that is due.
fn release(line: &mut Line<'_>, now: Instant) -> Option<u32> {
    let peeked = line.peek(now).map(|(frame, _)| frame.to_vec());
    let number = line.release(now, |frame, _| {
        assert_eq!(peeked.as_deref(), Some(frame), "what was peeked is what is released");
        u32::from_be_bytes(frame[..4].try_into().expect("four bytes"))
    });
    assert_eq!(number.is_some(), peeked.is_some());
    number
}

/// Releases all frames, each at its time: pairs of time in microseconds and number.
fn drain(line: &mut Line<'_>) -> Vec<(i64, u32)> {
    let mut released = Vec::new();
    while let Some(due) = line.next_release() {
        assert_eq!(release(line, due - Duration::from_micros(1)), None, "not before it is due");
        released.push((due.total_micros(), release(line, due).expect("due")));
    }
    released
}

fn line(spec: &str, seed: u64) -> Line<'static> {
    Line::new(spec.parse().expect(spec), seed)
}

fn at(micros: i64) -> Instant {
    Instant::from_micros(micros)
}

fn assert_accounted(line: &Line<'_>) {
    let LineCounters { sent, duplicated, released, .. } = line.counters();
    let held = walk(line);
    assert_eq!(sent + duplicated, released + line.counters().dropped() + held, "{:?}", line.counters());
    assert_eq!(line.len() as u64, held);
    assert_eq!(line.is_empty(), held == 0);
    assert_eq!(line.is_empty(), line.next_release().is_none());
}

/// Counts the frames in the lists, apart from the counters; checks that no slot is on two of them.
fn walk(line: &Line<'_>) -> u64 {
    let mut seen = vec![false; line.slots.len()];
    let mut mark = |index: usize| assert!(!std::mem::replace(&mut seen[index], true), "slot {index} twice");
    let mut held = 0;
    let mut next = line.ends.map(|(first, _)| first);
    let mut last_due = at(i64::MIN);
    while let Some(index) = next {
        mark(index);
        held += 1;
        assert!(line.slots[index].due >= last_due, "the list is in the order of release");
        last_due = line.slots[index].due;
        next = line.slots[index].next;
        assert_eq!(next.is_none(), line.ends.is_some_and(|(_, last)| last == index));
    }
    for held_back in line.held_back.iter().flatten() {
        mark(held_back.slot);
        held += 1;
    }
    let mut free = line.free;
    let mut free_len = 0;
    while let Some(index) = free {
        mark(index);
        free_len += 1;
        free = line.slots[index].next;
    }
    assert_eq!(held + free_len, line.slots.len().min(line.spec.queue) as u64, "no slot was forgotten");
    held
}

#[test]
fn a_perfect_line_passes_frames_at_once_and_in_order() {
    let mut line = line("loss=0%", 1);
    for number in 0..100 {
        send(&mut line, at(7), number, 60);
    }
    assert_eq!(drain(&mut line), (0..100).map(|number| (7, number)).collect::<Vec<_>>());
    assert_accounted(&line);
}

#[test]
fn shares_are_met_over_many_frames() {
    // Five standard deviations: of a binomial, sqrt(n p (1 - p)).
    const FRAMES: u32 = 100_000;
    let near = |count: u64, share: f64| {
        let (mean, deviation) =
            (f64::from(FRAMES) * share, (f64::from(FRAMES) * share * (1.0 - share)).sqrt());
        assert!((count as f64 - mean).abs() <= 5.0 * deviation, "{count} of {FRAMES}, expected {mean}");
        assert!(count > 0);
    };
    for seed in [1, 2, 3] {
        for (spec, share, count) in [
            ("loss=1%", 0.01, (|c| c.lost) as fn(LineCounters) -> u64),
            ("loss=0.1%", 0.001, |c| c.lost),
            ("loss=50%", 0.5, |c| c.lost),
            ("duplicate=0.5%", 0.005, |c| c.duplicated),
            ("corrupt=2%", 0.02, |c| c.corrupted),
            ("reorder=1%", 0.01, |c| c.reordered),
        ] {
            let mut line = line(spec, seed);
            for number in 0..FRAMES {
                send(&mut line, at(0), number, 60);
                while release(&mut line, at(0)).is_some() {}
            }
            drain(&mut line);
            near(count(line.counters()), share);
            assert_accounted(&line);
        }
    }
}

#[test]
fn certain_events_are_certain() {
    let run = |spec: &str| {
        let mut line = line(spec, 5);
        (0..50).for_each(|number| send(&mut line, at(0), number, 60));
        let released = drain(&mut line).len();
        (released, line.counters())
    };
    assert_eq!(run("loss=100%").0, 0);
    let (released, counters) = run("duplicate=100%");
    assert_eq!((released, counters.duplicated), (100, 50), "a copy is not copied");
    assert_eq!(run("corrupt=100%,duplicate=100%").1.corrupted, 100, "a copy is corrupted for itself");
    assert_eq!(run("loss=100%,duplicate=100%").1.duplicated, 0, "what is lost is not copied");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let run = |seed| {
        let mut line = line(
            "loss=5%,duplicate=5%,reorder=5%,corrupt=5%,delay=3ms,jitter=2ms,rate=10mbit,queue=20",
            seed,
        );
        let mut frames = Vec::new();
        for number in 0..2000 {
            let now = at(i64::from(number) * 900);
            send(&mut line, now, number, 1000);
            while let Some(frame) = line.release(now, |frame, _| frame.to_vec()) {
                frames.push((now, frame));
            }
        }
        (frames, line.counters())
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn delay_is_exact() {
    let mut line = line("delay=10ms", 1);
    send(&mut line, at(100), 0, 60);
    send(&mut line, at(250), 1, 60);
    assert_eq!(line.next_release(), Some(at(10_100)));
    assert_eq!(drain(&mut line), [(10_100, 0), (10_250, 1)]);
}

#[test]
fn jitter_spreads_the_delay_and_keeps_the_order() {
    let mut line = line("delay=10ms,jitter=2ms", 1);
    // Far apart, so that none waits for the one before it.
    (0..1000).for_each(|number| send(&mut line, at(i64::from(number) * 10_000), number, 60));
    let delays: Vec<i64> =
        drain(&mut line).into_iter().map(|(due, number)| due - i64::from(number) * 10_000).collect();
    let (low, high) = (*delays.iter().min().expect("some"), *delays.iter().max().expect("some"));
    assert!((8_000..8_050).contains(&low) && (11_950..=12_000).contains(&high), "{low} to {high}");

    let mut line = self::line("jitter=2ms", 1);
    (0..1000).for_each(|number| send(&mut line, at(i64::from(number)), number, 60));
    let released = drain(&mut line);
    assert!(released.is_sorted() && released.iter().map(|&(_, number)| number).eq(0..1000));
    assert!(released.iter().all(|&(due, number)| due <= i64::from(number) + 2_000));
}

#[test]
fn a_rate_serialises_frames() {
    // 1250 bytes at 10 Mbit/s take 1 ms.
    let mut line = line("rate=10mbit,delay=5ms", 1);
    (0..3).for_each(|number| send(&mut line, at(0), number, 1250));
    // The wire was idle from 3 ms on.
    send(&mut line, at(10_000), 3, 125);
    assert_eq!(drain(&mut line), [(6_000, 0), (7_000, 1), (8_000, 2), (15_100, 3)]);
}

#[test]
fn a_rate_is_met_in_the_long_run_even_where_a_frame_takes_less_than_a_microsecond() {
    for (spec, rate) in [("rate=40gbit", 40e9), ("rate=7gbit", 7e9), ("rate=1.234567gbit", 1.234567e9)] {
        let mut line = line(spec, 1);
        let mut last = at(0);
        for number in 0..100_000 {
            send(&mut line, at(0), number, 1514);
            last = line.next_release().expect("held");
            release(&mut line, last);
        }
        let expected_us = 100_000.0 * 1514.0 * 8.0 / rate * 1e6;
        let error_us = last.total_micros() as f64 - expected_us;
        assert!((-0.01..=1.01).contains(&error_us), "{spec}: {error_us} us late");
    }
}

#[test]
fn a_full_queue_drops_the_newest() {
    let mut line = line("delay=1ms,queue=3", 1);
    (0..5).for_each(|number| send(&mut line, at(0), number, 60));
    assert_eq!((line.len(), line.counters().queue_full), (3, 2));
    assert_eq!(release(&mut line, at(1000)), Some(0));
    send(&mut line, at(1000), 5, 60);
    assert_eq!(drain(&mut line), [(1000, 1), (1000, 2), (2000, 5)]);
    assert_accounted(&line);
}

#[test]
fn without_delay_a_reordered_frame_is_overtaken_by_one_to_three() {
    let mut depths = [0; 4];
    for seed in 0..300 {
        let mut line = line("reorder=100%", seed);
        send(&mut line, at(0), 0, 60);
        line.spec.reorder = Probability::NEVER;
        (1..=5).for_each(|number| send(&mut line, at(0), number, 60));
        let released = drain(&mut line);
        assert!(released.iter().all(|&(due, _)| due == 0), "it does not wait for the bound in time");
        let depth = released.iter().position(|&(_, number)| number == 0).expect("released");
        depths[depth] += 1;
        assert_eq!(line.counters().reordered, 1);
    }
    assert_eq!(depths[0], 0);
    assert!(depths[1..].iter().all(|&count| (60..140).contains(&count)), "{depths:?}");
}

#[test]
fn a_frame_that_nobody_overtakes_is_released_in_time_and_not_counted() {
    let mut line = line("reorder=100%,delay=4ms", 1);
    send(&mut line, at(0), 0, 60);
    assert_eq!(drain(&mut line), [(4_000 + HOLD_BACK_MAX.total_micros() as i64, 0)]);
    assert_eq!(line.counters().reordered, 0);
    assert_accounted(&line);
}

#[test]
fn an_overtaker_that_takes_too_long_does_not_hold_a_frame_back() {
    // The second frame needs half a second on the wire.
    let mut line = line("reorder=100%,rate=1mbit", 1);
    send(&mut line, at(0), 0, 60);
    line.spec.reorder = Probability::NEVER;
    (1..=3).for_each(|number| send(&mut line, at(0), number, 65_000));
    let released = drain(&mut line);
    assert_eq!(released.iter().map(|&(_, number)| number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(released[0].0 < 50_000 && released[1].0 > 500_000, "{released:?}");
    assert_eq!(line.counters().reordered, 0);
}

#[test]
fn a_slow_rate_leaves_time_to_be_overtaken() {
    // A frame takes 87 ms: more than the bound that holds without a rate.
    let mut line = line("reorder=100%,rate=115200", 1);
    send(&mut line, at(0), 0, 1006);
    line.spec.reorder = Probability::NEVER;
    (1..=3).for_each(|number| send(&mut line, at(0), number, 1006));
    assert_ne!(drain(&mut line).first().map(|&(_, number)| number), Some(0));
    assert_eq!(line.counters().reordered, 1);
}

#[test]
fn reordering_every_frame_reorders_and_ends() {
    let mut line = line("reorder=100%", 9);
    (0..100).for_each(|number| send(&mut line, at(0), number, 60));
    let released = drain(&mut line);
    let numbers: Vec<u32> = released.iter().map(|&(_, number)| number).collect();
    assert!(!numbers.is_sorted() && line.counters().reordered > 50, "{numbers:?}");
    assert_eq!(released.len(), 100);
}

#[test]
fn corruption_flips_one_bit_anywhere() {
    let mut line = line("corrupt=100%", 3);
    let mut flips = [0u32; 64 * 8];
    for _ in 0..20_000 {
        line.send(at(0), 64, FrameMeta::default(), |room| room.fill(0));
        let frame = line.release(at(0), |frame, _| frame.to_vec()).expect("due");
        assert_eq!(frame.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        let byte = frame.iter().position(|&byte| byte != 0).expect("one bit");
        flips[byte * 8 + frame[byte].trailing_zeros() as usize] += 1;
    }
    // 39 expected for each of the 512 bits.
    assert!(flips.iter().all(|&count| (10..80).contains(&count)), "{flips:?}");

    line.send(at(0), 0, FrameMeta::default(), |_| ());
    assert_eq!(line.release(at(0), |frame, _| frame.len()), Some(0), "an empty frame passes");
}

#[test]
fn metadata_stays_with_its_frame_and_its_copy() {
    let mut line = line("duplicate=100%", 1);
    for size in [100, 200] {
        let meta = FrameMeta { rx_hash: Some(size), ..FrameMeta::default() };
        line.send(at(0), 60, meta, |_| ());
    }
    let mut sizes = Vec::new();
    while line.release(at(0), |_, meta| sizes.push(meta.rx_hash)).is_some() {}
    assert_eq!(sizes, [Some(100), Some(100), Some(200), Some(200)]);
}

#[test]
fn borrowed_slots_bound_the_line() {
    let mut buffers = [[0; 100]; 2];
    let mut slots = buffers.each_mut().map(|buffer| Slot::new(&mut buffer[..]));
    let spec = "delay=1ms,queue=10,duplicate=100%".parse().expect("a spec");
    let mut line = Line::with_slots(spec, 1, &mut slots[..]);
    send(&mut line, at(0), 0, 100);
    send(&mut line, at(0), 1, 100);
    assert_eq!((line.len(), line.counters().queue_full), (2, 2), "two slots, whatever the spec says");
    assert_eq!(drain(&mut line), [(1000, 0), (1000, 0)]);
    // The buffers went round; a frame that fits into none is lost, in one way or the other.
    for number in 2..5 {
        send(&mut line, at(2000), number, 1000);
        drain(&mut line);
    }
    assert!(line.counters().oversize >= 3, "{:?}", line.counters());
    assert_accounted(&line);
}

#[test]
fn frames_beyond_the_longest_are_written_dropped_and_counted() {
    let mut line = line("loss=0%", 1);
    let max = crate::slot::FRAME_LEN_MAX;
    assert_eq!(line.send(at(0), max + 1, FrameMeta::default(), |room| room.len()), max + 1);
    assert_eq!((line.counters().oversize, line.len()), (1, 0));
    send(&mut line, at(0), 7, max);
    assert_eq!(release(&mut line, at(0)), Some(7));
    assert_accounted(&line);
}

#[test]
fn a_line_without_slots_drops_everything() {
    let mut line = Line::with_slots(ImpairSpec::default(), 1, Vec::new());
    send(&mut line, at(0), 0, 60);
    assert_eq!((line.counters().queue_full, line.next_release()), (1, None));
}

#[test]
fn values_beyond_their_bounds_are_bounded() {
    let spec = ImpairSpec {
        rate: Some(0),
        queue: 0,
        delay: Duration::from_secs(u64::MAX / 2_000_000),
        jitter: Duration::from_secs(1_000_000),
        ..ImpairSpec::default()
    };
    let mut line = Line::new(spec, 1);
    assert_eq!((line.spec().rate, line.spec().queue), (Some(1), 1));
    assert_eq!((line.spec().delay, line.spec().jitter), (DELAY_MAX, DELAY_MAX));
    for now in [at(i64::MAX / 4), at(i64::MIN / 4), at(-1), at(0)] {
        send(&mut line, now, 0, crate::slot::FRAME_LEN_MAX);
        drain(&mut line);
    }
}

prop_compose! {
    fn any_spec()(
        shares in proptest::array::uniform4(prop_oneof![Just(0), 0u32..=1_000_000, Just(1_000_000)]),
        delay in prop_oneof![Just(0u64), 0u64..20_000],
        jitter in prop_oneof![Just(0u64), 0u64..20_000],
        rate in proptest::option::of(10_000u64..1_000_000_000),
        queue in 1usize..30,
    ) -> ImpairSpec {
        let [loss, duplicate, reorder, corrupt] =
            shares.map(|share| Probability::from_per_million(share).expect("a share"));
        let [delay, jitter] = [delay, jitter].map(Duration::from_micros);
        ImpairSpec { loss, duplicate, reorder, corrupt, delay, jitter, rate, queue }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the spec and the calls: every frame is accounted for, memory is bounded, and each frame
    /// comes out within the time that its stages allow.
    #[test]
    fn frames_are_accounted_for_and_come_out_in_time(
        spec in any_spec(),
        seed: u64,
        steps in proptest::collection::vec((0u32..3_000, 4usize..3_000, any::<bool>()), 1..120),
    ) {
        let mut line = Line::new(spec, seed);
        let mut now = at(0);
        let mut last_due = at(0);
        for (number, (pause, len, poll)) in steps.into_iter().enumerate() {
            now += Duration::from_micros(u64::from(pause));
            send(&mut line, now, number as u32, len);
            prop_assert!(line.len() <= spec.queue);
            assert_accounted(&line);
            while poll && line.release(now, |_, _| ()).is_some() {
                assert_accounted(&line);
            }
        }
        // A frame of 3000 bytes takes this long; a duplicate as well, and those before it in the queue.
        let serialisation = spec.rate.map_or(0, |rate| 3_000 * 8 * 1_000_000 / rate + 1);
        let bound = spec.delay + spec.jitter + HOLD_BACK_MAX
            + Duration::from_micros(serialisation * (spec.queue as u64 + 1 + OVERTAKERS_MAX) * 2);
        while let Some(due) = line.next_release() {
            prop_assert!(due >= last_due || last_due <= now, "time runs forward");
            prop_assert!(due <= now + bound, "{due} is later than {now} + {bound}");
            last_due = due;
            line.release(due, |_, _| ());
            assert_accounted(&line);
        }
    }

    /// Without reordering, frames come out in the order in which they went in, whatever else happens.
    #[test]
    fn only_reordering_reorders(spec in any_spec(), seed: u64, pauses in proptest::collection::vec(0u64..3_000, 1..120)) {
        let spec = ImpairSpec { reorder: Probability::NEVER, corrupt: Probability::NEVER, ..spec };
        let mut line = Line::new(spec, seed);
        let mut now = at(0);
        for (number, pause) in pauses.into_iter().enumerate() {
            now += Duration::from_micros(pause);
            send(&mut line, now, number as u32, 60);
        }
        let released = drain(&mut line);
        prop_assert!(released.is_sorted(), "{released:?}");
    }
}
