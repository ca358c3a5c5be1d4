use proptest::prelude::*;

use super::*;

/// What a wheel must do: a list in the order of deadlines, and of setting among equal ones.
#[derive(Default)]
struct Oracle(Vec<(i64, TimerId, u32)>);

impl Oracle {
    fn insert(&mut self, deadline: i64, id: TimerId, value: u32) {
        let at = self.0.partition_point(|(other, ..)| *other <= deadline);
        self.0.insert(at, (deadline, id, value));
    }

    fn cancel(&mut self, id: TimerId) -> Option<(i64, u32)> {
        let at = self.0.iter().position(|(_, other, _)| *other == id)?;
        let (deadline, _, value) = self.0.remove(at);
        Some((deadline, value))
    }

    fn reschedule(&mut self, id: TimerId, deadline: i64) -> bool {
        let Some(&(old, _, value)) = self.0.iter().find(|(_, other, _)| *other == id) else { return false };
        if old != deadline {
            self.cancel(id);
            self.insert(deadline, id, value);
        }
        true
    }

    fn pop_expired(&mut self, now: i64) -> Option<(i64, u32)> {
        let (deadline, _, value) = *self.0.first()?;
        (deadline <= now).then(|| {
            self.0.remove(0);
            (deadline, value)
        })
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(i64),
    Cancel(usize),
    Reschedule(usize, i64),
    CancelFirst,
    Advance(i64),
    PopOne,
}

/// From now: near, by all powers of two, in the past, at the end of time, and one point for pile-ups.
fn delays() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0_i64..200,
        4 => 0_i64..2_000_000,
        3 => (0_u32..62, 0_i64..64).prop_map(|(shift, low)| (1_i64 << shift).saturating_add(low)),
        2 => Just(4096),
        1 => -1_000_000_i64..0,
        1 => Just(i64::MAX),
        1 => (0_i64..40).prop_map(|low| i64::MAX - low),
        1 => Just(i64::MIN),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => delays().prop_map(Step::Insert),
        3 => any::<usize>().prop_map(Step::Cancel),
        3 => (any::<usize>(), delays()).prop_map(|(at, delay)| Step::Reschedule(at, delay)),
        1 => Just(Step::CancelFirst),
        1 => prop_oneof![0_i64..5000, Just(1 << 45)].prop_map(Step::Advance),
        1 => Just(Step::PopOne),
    ]
}

fn micros(deadline: i64) -> Instant {
    Instant::from_micros(deadline)
}

/// Every list is where it belongs, and no wheel is empty, lost or left over.
fn check_structure(wheel: &Wheel<u32>) {
    let mut timers = 0;
    let mut nodes = 0;
    let mut todo = vec![(ROOT, NONE)];
    while let Some((at, parent)) = todo.pop() {
        let node = &wheel.nodes[at as usize];
        nodes += 1;
        assert!(at == ROOT || (node.occupied != 0 && node.parent == parent));
        for slot in (0..SLOTS).filter(|slot| node.occupied & (1 << slot) != 0) {
            let held = node.slots[slot];
            if held & CHILD != 0 {
                let child = &wheel.nodes[(held & !CHILD) as usize];
                assert!(child.level < node.level);
                assert_eq!(usize::from(child.parent_slot), slot);
                assert_eq!(digit(child.key, node.level), slot);
                todo.push((held & !CHILD, at));
                continue;
            }
            let (mut timer, mut len) = (held, 0_usize);
            loop {
                let entry = &wheel.timers[timer as usize];
                assert_eq!((entry.node, usize::from(entry.slot)), (at, slot));
                let key = key_of(entry.deadline);
                assert_eq!(digit(key, node.level), slot);
                assert!(at == ROOT || level_of(key ^ node.key) <= node.level);
                len += 1;
                timer = entry.next;
                if timer == held {
                    break;
                }
            }
            assert!(
                node.level == 0 || (len == usize::from(node.lens[slot]) && len <= usize::from(LIST_LEN_MAX))
            );
            timers += len;
        }
    }
    assert_eq!(timers, wheel.len());
    let mut free = wheel.nodes_free;
    while free != NONE {
        nodes += 1;
        free = wheel.nodes[free as usize].parent;
    }
    assert_eq!(nodes, wheel.nodes.len());
}

/// `now` does not go back, as on a clock; it is near the end of time in some runs.
fn run(start: i64, steps: Vec<Step>) {
    let mut now = start;
    let mut wheel = Wheel::new(micros(now));
    let mut oracle = Oracle::default();
    let mut ids = Vec::new();
    for (value, step) in (0..).zip(steps) {
        match step {
            Step::Insert(delay) => {
                let deadline = now.saturating_add(delay);
                let id = wheel.insert(micros(deadline), value);
                oracle.insert(deadline, id, value);
                ids.push(id);
            }
            Step::Cancel(_) | Step::Reschedule(..) if ids.is_empty() => {}
            Step::Cancel(at) => {
                let id = ids[at % ids.len()];
                let expected = oracle.cancel(id);
                assert_eq!(wheel.deadline_of(id), expected.map(|(deadline, _)| micros(deadline)));
                assert_eq!(wheel.cancel(id), expected.map(|(_, value)| value));
                assert_eq!(wheel.deadline_of(id), None);
            }
            Step::Reschedule(at, delay) => {
                let (id, deadline) = (ids[at % ids.len()], now.saturating_add(delay));
                assert_eq!(wheel.reschedule(id, micros(deadline)), oracle.reschedule(id, deadline));
            }
            Step::CancelFirst => {
                if let Some(&(_, id, value)) = oracle.0.first() {
                    oracle.cancel(id);
                    assert_eq!(wheel.cancel(id), Some(value));
                }
            }
            Step::Advance(by) => {
                now = now.saturating_add(by);
                while let Some((deadline, value)) = oracle.pop_expired(now) {
                    assert_eq!(wheel.pop_expired(micros(now)), Some((micros(deadline), value)));
                }
                assert_eq!(wheel.pop_expired(micros(now)), None);
            }
            Step::PopOne => {
                let expected = oracle.pop_expired(now).map(|(deadline, value)| (micros(deadline), value));
                assert_eq!(wheel.pop_expired(micros(now)), expected);
            }
        }
        assert_eq!(wheel.next_deadline(), oracle.0.first().map(|(deadline, ..)| micros(*deadline)));
        assert_eq!((wheel.len(), wheel.is_empty()), (oracle.0.len(), oracle.0.is_empty()));
    }
    check_structure(&wheel);
    while let Some((deadline, value)) = oracle.pop_expired(i64::MAX) {
        assert_eq!(wheel.pop_expired(micros(i64::MAX)), Some((micros(deadline), value)));
    }
    assert_eq!(wheel.next_deadline(), None);
    check_structure(&wheel);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_a_sorted_list(
        start in prop_oneof![Just(0), 0_i64..1 << 50, Just(i64::MAX - 100)],
        steps in prop::collection::vec(steps(), 0..400),
    ) {
        run(start, steps);
    }
}

#[test]
fn an_id_of_the_past_names_nobody() {
    let mut wheel = Wheel::new(micros(0));
    let old = wheel.insert(micros(5), 1);
    assert_eq!(wheel.cancel(old), Some(1));
    let new = wheel.insert(micros(7), 2);
    assert_eq!(wheel.cancel(old), None);
    assert!(!wheel.reschedule(old, micros(1)));
    assert_eq!(wheel.deadline_of(old), None);
    assert_eq!(wheel.deadline_of(new), Some(micros(7)));
}

#[test]
fn never_before_the_deadline_and_at_it() {
    for deadline in [0, 1, 63, 64, 4095, 4096, 1 << 36, i64::MAX] {
        let mut wheel = Wheel::new(micros(0));
        wheel.insert(micros(deadline), ());
        assert_eq!(wheel.next_deadline(), Some(micros(deadline)));
        if deadline > 0 {
            assert_eq!(wheel.pop_expired(micros(deadline - 1)), None);
        }
        assert_eq!(wheel.pop_expired(micros(deadline)), Some((micros(deadline), ())));
    }
}

#[test]
fn a_million_come_in_order_and_their_room_is_used_again() {
    let mut wheel = Wheel::new(micros(0));
    let mut sizes = Vec::new();
    for round in 0..2 {
        let mut state = 1_u64;
        for value in 0..1_000_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Half of them within a second, a quarter at one point in time, a quarter far away.
            let delay = match value % 4 {
                0 | 1 => (state >> 44).cast_signed(),
                2 => 500_000,
                _ => (state >> 8).cast_signed(),
            };
            wheel.insert(micros(delay + round), value);
        }
        let mut last = micros(0);
        while let Some((deadline, _)) = wheel.pop_expired(micros(i64::MAX)) {
            assert!(deadline >= last);
            last = deadline;
        }
        sizes.push((wheel.timers.len(), wheel.nodes.len()));
    }
    assert_eq!((sizes[0].0, sizes[1].0), (1_000_000, 1_000_000));
    assert!(sizes[1].1 < 200_000, "{sizes:?}");
    assert!(sizes[1].1 <= sizes[0].1 * 11 / 10, "{sizes:?}");
}
