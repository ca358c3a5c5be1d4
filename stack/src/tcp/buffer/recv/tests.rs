use proptest::prelude::*;

use super::*;

/// What a peer and an application do to a buffer.
#[derive(Debug, Clone)]
enum Step {
    /// Data so far behind `rcv_nxt`, or before it.
    Insert {
        offset: i32,
        len: usize,
    },
    Read(usize),
    ReadWith {
        part: usize,
    },
    DropEarly,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![3 => Just(0), 2 => -300..300_i32, 2 => -3_000..9_000_i32, 1 => 0..30_000_i32];
    let len = prop_oneof![0..4_usize, 0..300_usize, 0..3_000_usize, 0..9_000_usize];
    prop_oneof![
        12 => (offset, len).prop_map(|(offset, len)| Step::Insert { offset, len }),
        2 => (0..10_000_usize).prop_map(Step::Read),
        2 => (0..3_usize).prop_map(|part| Step::ReadWith { part }),
        1 => Just(Step::DropEarly),
        1 => Just(Step::Clear),
    ]
}

struct Case {
    buffer: RecvBuffer,
    pool: Pool,
    rcv_nxt: Seq,
    /// Bytes to be read, and behind them those that came early: place 0 is what is read next.
    oracle: Vec<Option<u8>>,
    readable: usize,
    /// Every piece of data has other bytes than what came before it for the same places.
    is_inconsistent: bool,
    steps: usize,
}

impl Case {
    fn new(pool_bytes: usize, ranges_max: usize, rcv_nxt: u32, is_inconsistent: bool) -> Self {
        let mut buffer = RecvBuffer::default();
        buffer.set_ranges_max(ranges_max);
        Self {
            buffer,
            pool: Pool::new(pool_bytes),
            rcv_nxt: Seq(rcv_nxt),
            oracle: Vec::new(),
            readable: 0,
            is_inconsistent,
            steps: 0,
        }
    }

    fn ranges(&self) -> Vec<(Seq, Seq)> {
        let Some(list) = &self.buffer.list else { return Vec::new() };
        (0..).map_while(|index| list.0.early.get(index)).map(|range| (range.start, range.end)).collect()
    }

    /// The ranges of the oracle from `from` on, as offsets from there.
    fn runs(bytes: &[Option<u8>]) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (place, _) in bytes.iter().enumerate().filter(|(_, byte)| byte.is_some()) {
            let place = place as u32;
            match runs.last_mut() {
                Some(last) if last.1 == place => last.1 += 1,
                _ => runs.push((place, place + 1)),
            }
        }
        runs
    }

    fn insert(&mut self, offset: i32, len: usize) -> Result<(), TestCaseError> {
        let seq = Seq(self.rcv_nxt.0.wrapping_add_signed(offset));
        let salt = if self.is_inconsistent { self.steps as u32 } else { 0 };
        let data: Vec<u8> = (0..len as u32)
            .map(|at| ((seq + at).0.wrapping_add(salt).wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let old_nxt = self.rcv_nxt;
        let inserted = self.buffer.insert(&mut self.pool, old_nxt, seq, &data);
        let mut expected = Inserted::default();
        let mut new_places = Vec::new();
        let had_early = Self::runs(&self.oracle[self.readable..]).last().copied();
        let mut duplicates = Vec::new();
        for (index, &byte) in data.iter().enumerate() {
            let from_nxt = i64::from(offset) + index as i64;
            if from_nxt < 0 {
                duplicates.push(index as u32);
                continue;
            }
            let place = self.readable + from_nxt as usize;
            if self.oracle.len() <= place {
                self.oracle.resize(place + 1, None);
            }
            if self.oracle[place].is_some() {
                duplicates.push(index as u32);
            } else {
                self.oracle[place] = Some(byte);
                new_places.push(place);
            }
        }
        if let Some(&first) = duplicates.first() {
            let len =
                duplicates.iter().zip(first..).take_while(|(at, expected)| **at == *expected).count() as u32;
            expected.duplicate = Some((seq + first, seq + first + len));
        }
        if let Some(&first) = new_places.first() {
            expected.fills_hole = had_early.is_some_and(|(start, _)| start as usize > first - self.readable);
        }
        expected.is_early = offset > 0 && len > 0;
        self.compare(&inserted, &expected, &new_places)?;
        self.check_blocks(seq, &inserted)
    }

    fn check_blocks(&self, seq: Seq, inserted: &Inserted) -> Result<(), TestCaseError> {
        let (ranges, blocks) = (self.ranges(), self.buffer.sack_blocks());
        let blocks = blocks.as_slice();
        prop_assert_eq!(blocks.len(), ranges.len().min(4));
        for (index, block) in blocks.iter().enumerate() {
            prop_assert!(ranges.contains(block) && !blocks[..index].contains(block));
        }
        if inserted.is_early && inserted.refused == 0 {
            let (start, end) = blocks[0];
            prop_assert!(
                seq.is_within(start, end.since(start)),
                "the first block is not that of the segment"
            );
        }
        Ok(())
    }

    /// Takes from the oracle what was refused, after it was told, and compares the rest.
    fn compare(
        &mut self,
        inserted: &Inserted,
        expected: &Inserted,
        new: &[usize],
    ) -> Result<(), TestCaseError> {
        let old_nxt = self.rcv_nxt;
        let old_readable = self.readable;
        let whole = self.oracle.iter().flatten().count();
        self.rcv_nxt += inserted.advanced;
        self.readable += inserted.advanced as usize;
        prop_assert_eq!(self.buffer.readable(), self.readable);
        let mut there = vec![false; self.oracle.len()];
        there[..self.readable].fill(true);
        for (start, end) in self.ranges() {
            prop_assert!(start.is_after(self.rcv_nxt) && end.is_after(start));
            let at = old_readable + start.since(old_nxt) as usize;
            there[at..at + end.since(start) as usize].fill(true);
        }
        for (byte, there) in self.oracle.iter_mut().zip(&there) {
            prop_assert!(byte.is_some() || !there, "something is there that never came");
            if !there {
                *byte = None;
            }
        }
        let left = self.oracle.iter().flatten().count();
        prop_assert_eq!(inserted.refused as usize, whole - left);
        prop_assert_eq!(left, self.readable + self.buffer.early());
        while self.oracle.last().is_some_and(Option::is_none) {
            self.oracle.pop();
        }
        let runs = Self::runs(&self.oracle);
        let in_order = runs.first().filter(|run| run.0 == 0).map_or(0, |run| run.1 as usize);
        prop_assert_eq!(in_order, self.readable, "rcv_nxt is not where the first hole is");
        let ranges: Vec<_> = runs[usize::from(in_order > 0)..]
            .iter()
            .map(|&(start, end)| {
                (self.rcv_nxt + start - self.readable as u32, self.rcv_nxt + end - self.readable as u32)
            })
            .collect();
        prop_assert_eq!(self.ranges(), ranges);
        if inserted.refused == 0 {
            prop_assert_eq!(Inserted { advanced: 0, ..*inserted }, Inserted { advanced: 0, ..*expected },);
        }
        prop_assert!(inserted.refused == 0 || !new.is_empty());
        Ok(())
    }

    fn expect_read(&mut self, read: &[u8]) -> Result<(), TestCaseError> {
        let expected: Vec<u8> = self.oracle.drain(..read.len()).flatten().collect();
        prop_assert!(read == expected, "other bytes were read than had come");
        self.readable -= read.len();
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.steps += 1;
        match *step {
            Step::Insert { offset, len } => self.insert(offset, len)?,
            Step::Read(len) => {
                let (mut peeked, mut room) = (vec![0; len], vec![0; len]);
                let peeked_len = self.buffer.peek(&mut peeked);
                let read = self.buffer.read(&mut self.pool, &mut room);
                prop_assert_eq!(read, len.min(self.readable));
                prop_assert!(peeked_len == read && peeked == room);
                self.expect_read(&room[..read])?;
            }
            Step::ReadWith { part } => {
                let lent = self.buffer.read_with(&mut self.pool, |piece| {
                    let len = (piece.len() * part).div_ceil(2);
                    (len, piece[..len].to_vec())
                });
                prop_assert!(!lent.is_empty() || self.readable == 0 || part == 0);
                self.expect_read(&lent)?;
            }
            Step::DropEarly => {
                let early = self.buffer.early();
                prop_assert_eq!(self.buffer.drop_early(&mut self.pool), early);
                self.oracle.truncate(self.readable);
            }
            Step::Clear => {
                self.buffer.clear(&mut self.pool);
                self.oracle.clear();
                self.readable = 0;
            }
        }
        self.check_memory()
    }

    fn check_memory(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.buffer.readable(), self.readable);
        prop_assert!(self.pool.in_use_bytes() <= self.pool.bytes_max());
        if self.oracle.is_empty() {
            prop_assert!(
                self.buffer.list.is_none() && self.pool.in_use_bytes() == 0,
                "an empty buffer has memory"
            );
        }
        if let Some(list) = &self.buffer.list {
            let chunks = list.0.chunks.iter().flatten().count();
            prop_assert_eq!(chunks * CHUNK_BYTES, self.pool.in_use_bytes());
            prop_assert!(matches!(list.0.chunks.back(), Some(Some(_))), "an absent chunk at the end");
            prop_assert!(chunks <= list.0.early.len() * 2 + self.oracle.len() / CHUNK_BYTES + 2);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn with_room_every_byte_is_there_once_and_in_its_place(
        steps in prop::collection::vec(step(), 1..50),
        rcv_nxt in prop_oneof![any::<u32>(), u32::MAX - 50_000..=u32::MAX],
    ) {
        let mut case = Case::new(1 << 24, 1_000, rcv_nxt, true);
        for step in &steps {
            let before = case.buffer.readable() + case.buffer.early();
            case.apply(step)?;
            let is_insert = matches!(step, Step::Insert { .. });
            prop_assert!(!is_insert || case.buffer.readable() + case.buffer.early() >= before, "something was refused");
        }
        case.buffer.clear(&mut case.pool);
        prop_assert_eq!(case.pool.in_use_bytes(), 0);
    }

    #[test]
    fn without_room_what_is_refused_is_told(
        steps in prop::collection::vec(step(), 1..50),
        rcv_nxt in prop_oneof![any::<u32>(), u32::MAX - 50_000..=u32::MAX],
        pool_bytes in 0..80_000_usize,
        ranges_max in 0..8_usize,
    ) {
        let mut case = Case::new(pool_bytes, ranges_max, rcv_nxt, false);
        for step in &steps {
            case.apply(step)?;
            prop_assert!(case.ranges().len() <= ranges_max);
        }
        case.buffer.clear(&mut case.pool);
        prop_assert_eq!(case.pool.in_use_bytes(), 0);
    }
}

/// Inserts bytes `offset..offset + len` of the stream that begins at `rcv_nxt`.
fn insert(buffer: &mut RecvBuffer, pool: &mut Pool, rcv_nxt: u32, seq: u32, len: usize) -> Inserted {
    buffer.insert(pool, Seq(rcv_nxt), Seq(seq), &vec![1; len])
}

fn blocks(buffer: &RecvBuffer) -> Vec<(u32, u32)> {
    buffer.sack_blocks().as_slice().iter().map(|&(start, end)| (start.0, end.0)).collect()
}

#[test]
fn an_idle_buffer_is_two_words() {
    assert!(size_of::<RecvBuffer>() <= 2 * size_of::<usize>());
}

#[test]
fn the_examples_of_rfc_2883_are_told_as_they_are_there() {
    let (mut buffer, mut pool) = (RecvBuffer::default(), Pool::new(1 << 20));
    // Section 4.1.1: a segment that was acknowledged comes again.
    insert(&mut buffer, &mut pool, 3_000, 3_000, 1_000);
    let again = insert(&mut buffer, &mut pool, 4_000, 3_000, 500);
    assert_eq!((again.duplicate, again.is_early), (Some((Seq(3_000), Seq(3_500))), false));
    assert_eq!(blocks(&buffer), []);
    // Section 4.1.3: one of several that wait behind a hole.
    for seq in [4_500, 5_000] {
        let early = insert(&mut buffer, &mut pool, 4_000, seq, 500);
        assert_eq!(early, Inserted { is_early: true, ..Inserted::default() });
    }
    let again = insert(&mut buffer, &mut pool, 4_000, 5_000, 500);
    assert_eq!((again.duplicate, again.is_early), (Some((Seq(5_000), Seq(5_500))), true));
    assert_eq!(blocks(&buffer), [(4_500, 5_500)]);
    // Section 4.2: two parts of one segment have come; the first one is told.
    buffer.clear(&mut pool);
    insert(&mut buffer, &mut pool, 1_000, 1_500, 500);
    insert(&mut buffer, &mut pool, 1_000, 2_500, 500);
    let over = insert(&mut buffer, &mut pool, 1_000, 1_000, 2_500);
    let expected = Inserted {
        advanced: 2_500,
        fills_hole: true,
        duplicate: Some((Seq(1_500), Seq(2_000))),
        ..Inserted::default()
    };
    assert_eq!(over, expected);
}

#[test]
fn segments_of_one_byte_are_packed() {
    let (mut buffer, mut pool) = (RecvBuffer::default(), Pool::new(1 << 20));
    for seq in 0..CHUNK_BYTES as u32 {
        assert_eq!(insert(&mut buffer, &mut pool, seq, seq, 1).advanced, 1);
    }
    assert_eq!(pool.in_use_bytes(), CHUNK_BYTES);
}

#[test]
fn segments_of_one_byte_far_apart_hold_a_chunk_for_each_range_and_no_more() {
    let (mut buffer, mut pool) = (RecvBuffer::default(), Pool::new(1 << 30));
    let ranges_max = usize::from(RANGES_MAX);
    for at in 1..10_000 {
        let inserted = insert(&mut buffer, &mut pool, 7, 7 + at * 5_000, 1);
        assert_eq!(inserted.refused, u32::from(at as usize > ranges_max));
    }
    assert_eq!((buffer.early(), pool.in_use_bytes()), (ranges_max, ranges_max * CHUNK_BYTES));
    // One that is nearer takes the place of the farthest one, and its chunk goes back.
    let nearer = insert(&mut buffer, &mut pool, 7, 10, 1);
    assert_eq!((nearer.is_early, nearer.refused), (true, 1));
    assert_eq!((buffer.early(), pool.in_use_bytes()), (ranges_max, ranges_max * CHUNK_BYTES));
    // What makes a range longer, or fills a hole, needs no new one.
    assert_eq!(insert(&mut buffer, &mut pool, 7, 11, 1).refused, 0);
    assert_eq!(insert(&mut buffer, &mut pool, 7, 7, 3).advanced, 5);
    buffer.clear(&mut pool);
    assert_eq!(pool.in_use_bytes(), 0);
}

#[test]
fn under_severe_pressure_early_data_gets_no_new_chunk_and_data_in_order_does() {
    let mut pool = Pool::new(16 * CHUNK_BYTES);
    let (mut buffer, mut other) = (RecvBuffer::default(), RecvBuffer::default());
    insert(&mut other, &mut pool, 0, 0, 15 * CHUNK_BYTES);
    assert_eq!(pool.pressure(), Pressure::Severe);
    let early = insert(&mut buffer, &mut pool, 0, 100, 100);
    assert_eq!(early, Inserted { refused: 100, ..Inserted::default() });
    assert_eq!(insert(&mut buffer, &mut pool, 0, 0, 100).advanced, 100);
    // It has a chunk now, in which early data is welcome.
    let early = insert(&mut buffer, &mut pool, 100, 4_000, 200);
    assert_eq!(early, Inserted { is_early: true, refused: 104, ..Inserted::default() });
    assert_eq!((buffer.readable(), buffer.early(), pool.in_use_bytes()), (100, 96, 16 * CHUNK_BYTES));
}

#[test]
fn data_in_order_takes_the_room_of_what_came_early() {
    let mut pool = Pool::new(16 * CHUNK_BYTES);
    let mut buffer = RecvBuffer::default();
    for at in 1..15 {
        insert(&mut buffer, &mut pool, 0, at * 2 * CHUNK_BYTES as u32, 10);
    }
    insert(&mut buffer, &mut pool, 0, 0, 2 * CHUNK_BYTES - 1);
    assert_eq!((buffer.early(), pool.in_use_bytes()), (140, 16 * CHUNK_BYTES));
    let rcv_nxt = 2 * CHUNK_BYTES as u32 - 1;
    let inserted = insert(&mut buffer, &mut pool, rcv_nxt, rcv_nxt, 3 * CHUNK_BYTES);
    assert_eq!((inserted.advanced as usize, inserted.refused), (3 * CHUNK_BYTES, 10));
    assert_eq!((buffer.early(), pool.in_use_bytes()), (110, 16 * CHUNK_BYTES));
    assert_eq!(buffer.drop_early(&mut pool), 110);
    assert_eq!((buffer.readable(), pool.in_use_bytes()), (5 * CHUNK_BYTES - 1, 5 * CHUNK_BYTES));
}

#[test]
fn what_is_left_behind_a_fin_harms_nothing() {
    for early_at in [5, 5_000, 50_000] {
        let (mut buffer, mut pool) = (RecvBuffer::default(), Pool::new(1 << 20));
        insert(&mut buffer, &mut pool, 0, early_at, 5_000);
        assert_eq!(insert(&mut buffer, &mut pool, 0, 0, 3).advanced, 3);
        // The FIN has a number and no byte, so places no longer go with numbers. Nothing may come after it.
        for seq in [4, 3, early_at, early_at - 1, 4] {
            insert(&mut buffer, &mut pool, 4, seq, 4_000);
            buffer.read(&mut pool, &mut [0; 1_000]);
        }
        buffer.drop_early(&mut pool);
        buffer.clear(&mut pool);
        assert_eq!(pool.in_use_bytes(), 0);
    }
}
