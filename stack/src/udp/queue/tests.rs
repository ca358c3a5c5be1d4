use proptest::prelude::*;

use super::*;

/// What the queue is held against: datagrams one by one, in no clever form.
#[derive(Default)]
struct Model {
    runs: VecDeque<(u32, VecDeque<Vec<u8>>)>,
}

impl Model {
    fn bytes(&self) -> usize {
        self.runs.iter().flat_map(|(_, run)| run).map(Vec::len).sum()
    }

    fn datagrams(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len()).sum()
    }

    fn push(
        &mut self,
        meta: u32,
        payload: &[u8],
        segment_bytes: Option<NonZeroU16>,
        limits: QueueLimits,
    ) -> bool {
        let size = segment_bytes.map_or(payload.len().max(1), |bytes| bytes.get().into());
        let mut run: VecDeque<Vec<u8>> = payload.chunks(size).map(<[u8]>::to_vec).collect();
        if payload.is_empty() {
            run.push_back(Vec::new());
        }
        let fits = self.bytes() + payload.len() <= limits.bytes_max
            && self.datagrams() + run.len() <= limits.datagrams_max;
        if fits {
            self.runs.push_back((meta, run));
        }
        fits
    }

    fn pop(&mut self) -> Option<(u32, Vec<u8>)> {
        let (meta, run) = self.runs.front_mut()?;
        let popped = (*meta, run.pop_front()?);
        if run.is_empty() {
            self.runs.pop_front();
        }
        Some(popped)
    }

    fn pop_run(&mut self) -> Option<(u32, Vec<Vec<u8>>)> {
        self.runs.pop_front().map(|(meta, run)| (meta, run.into()))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize, Option<u16>),
    Pop,
    PopRun,
    Peek,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0..40usize, 0..1000usize, 2000..6000usize];
    let segment = prop_oneof![Just(None), (1..1500u16).prop_map(Some)];
    let step = prop_oneof![
        4 => (size, segment).prop_map(|(size, segment)| Step::Push(size, segment)),
        3 => Just(Step::Pop),
        1 => Just(Step::PopRun),
        1 => Just(Step::Peek),
    ];
    proptest::collection::vec(step, 1..200)
}

fn split(payload: &[u8], segment_bytes: Option<NonZeroU16>) -> Vec<Vec<u8>> {
    match segment_bytes {
        Some(bytes) => payload.chunks(bytes.get().into()).map(<[u8]>::to_vec).collect(),
        None => vec![payload.to_vec()],
    }
}

proptest! {
    #[test]
    fn it_is_a_list_of_datagrams(steps in steps(), bytes_max in 0..12_000usize, datagrams_max in 0..40usize) {
        let limits = QueueLimits { bytes_max, datagrams_max };
        let (mut queue, mut model) = (Queue::new(limits), Model::default());
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Push(size, segment) => {
                    let payload: Vec<u8> = (0..size).map(|at| (at as u32 * 7 + number) as u8).collect();
                    let segment = segment.and_then(NonZeroU16::new);
                    let fits = model.push(number, &payload, segment, limits);
                    prop_assert_eq!(queue.push(number, &payload, segment).is_ok(), fits);
                }
                Step::Pop => {
                    let found = queue.pop_with(|&meta, bytes| (meta, bytes.to_vec()));
                    prop_assert_eq!(found, model.pop());
                }
                Step::PopRun => {
                    let found = queue.pop_run_with(|&meta, bytes, segment| (meta, split(bytes, segment)));
                    prop_assert_eq!(found, model.pop_run());
                }
                Step::Peek => {
                    let first = model.runs.front().map(|(meta, run)| (*meta, run[0].clone()));
                    prop_assert_eq!(queue.peek_with(|&meta, bytes| (meta, bytes.to_vec())), first);
                }
            }
            prop_assert_eq!(queue.queued_bytes(), model.bytes());
            prop_assert_eq!(queue.queued_datagrams(), model.datagrams());
            prop_assert!(queue.bytes.len() <= (2 * bytes_max).max(RING_BYTES_MIN));
        }
    }
}

#[test]
fn a_warm_queue_does_not_allocate_and_a_new_one_has_nothing() {
    let limits = QueueLimits { bytes_max: 64 * 100, datagrams_max: 100 };
    let mut queue = Queue::new(limits);
    assert_eq!(queue.memory_bytes(), 0);
    let fill = |queue: &mut Queue<u8>| while queue.push(0, &[1; 64], None).is_ok() {};
    fill(&mut queue);
    assert_eq!(queue.queued_datagrams(), 100);
    for _ in 0..300 {
        queue.pop_with(|_, _| ());
        fill(&mut queue);
    }
    let warm = queue.memory_bytes();
    assert!(warm <= 2 * limits.bytes_max + 128 * size_of::<Record<u8>>(), "{warm}");
    for _ in 0..1000 {
        queue.pop_with(|_, _| ());
        fill(&mut queue);
    }
    assert_eq!(queue.memory_bytes(), warm);
    queue.clear();
    assert_eq!((queue.memory_bytes(), queue.queued_bytes(), queue.is_empty()), (0, 0, true));
}

#[test]
fn bounds_that_are_lowered_keep_what_is_there() {
    let mut queue = Queue::new(QueueLimits { bytes_max: 5000, datagrams_max: 10 });
    for number in 0..5u8 {
        queue.push(number, &[number; 1000], None).expect("room");
    }
    queue.set_limits(QueueLimits { bytes_max: 2000, datagrams_max: 10 });
    assert_eq!(queue.push(9, &[9], None), Err(QueueFull));
    for number in 0..5u8 {
        let found = queue.pop_with(|&meta, bytes| (meta, bytes[0], bytes.len()));
        assert_eq!(found, Some((number, number, 1000)));
    }
    assert_eq!(queue.push(9, &[9; 2000], None), Ok(()));
}

#[test]
fn a_ring_that_is_full_to_the_last_byte_is_not_taken_for_an_empty_one() {
    let mut queue = Queue::new(QueueLimits { bytes_max: 4 * RING_BYTES_MIN, datagrams_max: 100 });
    let quarter = RING_BYTES_MIN / 4;
    for number in 0..4u8 {
        queue.push(number, &vec![number; quarter], None).expect("room");
    }
    queue.pop_with(|_, _| ());
    // It goes to where the first one was, and ends where the second begins.
    queue.push(4, &vec![4; quarter], None).expect("room");
    assert_eq!((queue.bytes.len(), queue.tail), (RING_BYTES_MIN, quarter));
    queue.push(5, &vec![5; quarter], None).expect("room, in a longer ring");
    for number in 1..=5u8 {
        let is_its_own = queue.pop_with(|&meta, bytes| meta == number && bytes == vec![number; quarter]);
        assert_eq!(is_its_own, Some(true), "{number}");
    }
}

#[test]
fn a_queue_that_is_emptied_stays_small() {
    let mut queue = Queue::new(QueueLimits::default());
    queue.push((), &[1; 1000], None).expect("room");
    queue.pop_with(|(), _| ()).expect("one");
    let before = queue.memory_bytes();
    for _ in 0..1000 {
        queue.push((), &[1; 1000], None).expect("room");
        queue.pop_with(|(), _| ()).expect("one");
    }
    assert_eq!(queue.memory_bytes(), before);
}

#[test]
fn limits_have_a_limit() {
    let wish = QueueLimits { bytes_max: usize::MAX, datagrams_max: 7 };
    let expected = QueueLimits { bytes_max: QUEUE_BYTES_MAX, datagrams_max: 7 };
    let mut queue = Queue::<()>::new(wish);
    assert_eq!(queue.limits(), expected);
    queue.set_limits(wish);
    assert_eq!(queue.limits(), expected);
}
