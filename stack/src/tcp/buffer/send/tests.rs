use proptest::prelude::*;

use super::*;

/// What an application and an ACK do to a buffer.
#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    WriteWith(usize),
    Owned { len: usize, spare: usize },
    CopyOut { offset: usize, len: usize },
    Consume(usize),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![0..20_usize, 0..600_usize, 0..20_000_usize];
    prop_oneof![
        4 => len().prop_map(Step::Write),
        2 => len().prop_map(Step::WriteWith),
        2 => (len(), 0..2_000_usize).prop_map(|(len, spare)| Step::Owned { len, spare }),
        6 => (0..100_000_usize, len()).prop_map(|(offset, len)| Step::CopyOut { offset, len }),
        4 => len().prop_map(Step::Consume),
        1 => Just(Step::Clear),
    ]
}

/// Bytes that differ from place to place.
fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

struct Case {
    buffer: SendBuffer,
    pool: Pool,
    bytes_max: usize,
    /// The same bytes, one by one.
    oracle: Vec<u8>,
    written: usize,
}

impl Case {
    fn new(pool_bytes: usize, bytes_max: usize, start: u32) -> Self {
        let mut pool = Pool::new(pool_bytes);
        // The positions of a list go on where its last owner left them, so they wrap sooner or later.
        let mut list = List::default();
        list.0.start = start;
        pool.give_send(list);
        Self { buffer: SendBuffer::default(), pool, bytes_max, oracle: Vec::new(), written: 0 }
    }

    fn append(&mut self, data: &[u8]) {
        self.oracle.extend_from_slice(data);
        self.written += data.len();
    }

    fn write_with(&mut self, len: usize, room: usize) -> Result<(), TestCaseError> {
        let data = bytes(self.written, len);
        let mut lent = 0;
        let written = self.buffer.write_with(&mut self.pool, self.bytes_max, |room| {
            lent = room.len();
            let now = lent.min(data.len());
            room[..now].copy_from_slice(&data[..now]);
            len
        });
        prop_assert!(lent <= room.min(CHUNK_BYTES));
        prop_assert_eq!(written, lent.min(len));
        prop_assert!(lent > 0 || room == 0 || self.pool.bytes_max() - self.pool.in_use_bytes() < CHUNK_BYTES);
        self.append(&data[..written]);
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let room = self.bytes_max.saturating_sub(self.oracle.len());
        match *step {
            Step::Write(len) => {
                let data = bytes(self.written, len);
                let used = self.pool.in_use_bytes();
                let written = self.buffer.write(&mut self.pool, &data, self.bytes_max);
                prop_assert!(written <= len.min(room));
                let had_memory = self.pool.bytes_max() - used >= len + CHUNK_BYTES;
                prop_assert!(written == len.min(room) || !had_memory, "{written} of {len} were written");
                self.append(&data[..written]);
            }
            Step::WriteWith(len) => self.write_with(len, room)?,
            Step::Owned { len, spare } => {
                let data = bytes(self.written, len);
                let mut owned = Vec::with_capacity(len + spare);
                owned.extend_from_slice(&data);
                let used = self.pool.in_use_bytes();
                match self.buffer.push_owned(&mut self.pool, owned, self.bytes_max) {
                    Ok(()) => {
                        prop_assert!(len <= room || len == 0);
                        self.append(&data);
                    }
                    Err(owned) => {
                        prop_assert_eq!(&owned, &data);
                        let had_memory = self.pool.bytes_max() - used >= owned.capacity().max(CHUNK_BYTES);
                        prop_assert!(len > room || !had_memory);
                        prop_assert_eq!(used, self.pool.in_use_bytes());
                    }
                }
            }
            Step::CopyOut { offset, len } => {
                let offset = offset.min(self.oracle.len());
                let len = len.min(self.oracle.len() - offset);
                let mut room = vec![0; len];
                self.buffer.copy_out(offset, &mut room);
                prop_assert!(room == self.oracle[offset..offset + len]);
            }
            Step::Consume(len) => {
                let len = len.min(self.oracle.len());
                self.buffer.consume(&mut self.pool, len);
                self.oracle.drain(..len);
            }
            Step::Clear => {
                self.buffer.clear(&mut self.pool);
                self.oracle.clear();
            }
        }
        prop_assert_eq!(self.buffer.len(), self.oracle.len());
        prop_assert!(self.pool.in_use_bytes() <= self.pool.bytes_max());
        if self.oracle.is_empty() {
            prop_assert!(
                self.buffer.list.is_none() && self.pool.in_use_bytes() == 0,
                "an empty buffer has memory"
            );
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_buffer_holds_what_was_written_and_not_acknowledged(
        steps in prop::collection::vec(step(), 1..100),
        pool_bytes in prop_oneof![0..60_000_usize, Just(1 << 24)],
        bytes_max in prop_oneof![0..50_000_usize, Just(1 << 22)],
        start in prop_oneof![any::<u32>(), u32::MAX - 50_000..=u32::MAX],
    ) {
        let mut case = Case::new(pool_bytes, bytes_max, start);
        for step in &steps {
            case.apply(step)?;
        }
        case.buffer.clear(&mut case.pool);
        prop_assert_eq!(case.pool.in_use_bytes(), 0);
    }
}

#[test]
fn small_writes_share_a_chunk() {
    let (mut buffer, mut pool) = (SendBuffer::default(), Pool::new(1 << 20));
    for place in 0..CHUNK_BYTES {
        assert_eq!(buffer.write(&mut pool, &bytes(place, 1), usize::MAX), 1);
    }
    assert_eq!(pool.in_use_bytes(), CHUNK_BYTES);
    assert_eq!(buffer.write_with(&mut pool, usize::MAX, |_| 0), 0);
    assert_eq!(pool.in_use_bytes(), CHUNK_BYTES);
}

#[test]
fn a_chunk_goes_back_with_its_last_byte() {
    let (mut buffer, mut pool) = (SendBuffer::default(), Pool::new(1 << 20));
    buffer.write(&mut pool, &bytes(0, 2 * CHUNK_BYTES), usize::MAX);
    for (len, chunks) in [(CHUNK_BYTES - 1, 2), (1, 1), (CHUNK_BYTES - 1, 1), (1, 0)] {
        buffer.consume(&mut pool, len);
        assert_eq!(pool.in_use_bytes(), chunks * CHUNK_BYTES);
    }
}

#[test]
fn an_owned_piece_is_not_copied_and_counts_with_its_capacity() {
    let (mut buffer, mut pool) = (SendBuffer::default(), Pool::new(1 << 20));
    let mut data = Vec::with_capacity(10_000);
    data.resize(5_000, 7);
    buffer.push_owned(&mut pool, data, usize::MAX).unwrap();
    assert_eq!(pool.in_use_bytes(), 10_000);
    buffer.consume(&mut pool, 4_999);
    assert_eq!((buffer.len(), pool.in_use_bytes()), (1, 10_000));
    buffer.consume(&mut pool, 1);
    assert_eq!((buffer.len(), pool.in_use_bytes()), (0, 0));
}

#[test]
fn an_idle_buffer_is_one_word() {
    assert_eq!(size_of::<SendBuffer>(), size_of::<usize>());
    assert_eq!(size_of::<Piece>(), 32);
}

#[test]
#[should_panic(expected = "not in the buffer")]
fn what_was_not_written_cannot_be_sent() {
    let (mut buffer, mut pool) = (SendBuffer::default(), Pool::new(1 << 20));
    buffer.write(&mut pool, &[1, 2, 3], usize::MAX);
    buffer.copy_out(2, &mut [0; 2]);
}
