//! The queue for sendmmsg against a kernel that is the test itself.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A kernel that takes `credit` entries in all, at most as many a call as sendmmsg is given, and has an
/// error for the first that it does not take.
struct Kernel {
    credit: usize,
    mtu: usize,
    error: i32,
    wire: Vec<Vec<u8>>,
}

impl Kernel {
    fn new() -> Self {
        Self { credit: usize::MAX, mtu: usize::MAX, error: libc::EAGAIN, wire: Vec::new() }
    }

    fn send(&mut self, entries: &mut dyn Iterator<Item = &[u8]>) -> io::Result<usize> {
        let mut taken = 0;
        for entry in entries.take(BATCH_LEN) {
            let error = if entry.len() > self.mtu {
                libc::EMSGSIZE
            } else if self.credit == 0 {
                self.error
            } else {
                self.credit -= 1;
                self.wire.push(entry.to_vec());
                taken += 1;
                continue;
            };
            return if taken == 0 { Err(io::Error::from_raw_os_error(error)) } else { Ok(taken) };
        }
        Ok(taken)
    }
}

fn flush(tx: &mut TxSend, counters: &mut Counters, kernel: &mut Kernel) -> io::Result<()> {
    tx.flush(counters, 0, |entries| kernel.send(entries))
}

fn write(tx: &mut TxSend, entry: &[u8]) {
    assert!(tx.write(entry.len(), |room| room.copy_from_slice(entry)).is_ok());
}

#[test]
fn a_call_takes_a_batch_and_a_flush_takes_all() {
    let (mut tx, mut kernel, mut counters) = (TxSend::new(1 << 20), Kernel::new(), Counters::default());
    let entries: Vec<_> = (0..200).map(|n| vec![n as u8; 60 + n]).collect();
    entries.iter().for_each(|entry| write(&mut tx, entry));
    tx.flush(&mut counters, 10, |entries| kernel.send(entries)).expect("taken");
    assert_eq!(kernel.wire, entries);
    assert_eq!((counters.tx_kicks, counters.tx_frames, tx.queued()), (4, 200, 0));
    assert_eq!(counters.tx_bytes, (0..200).map(|n| 50 + n).sum::<u64>(), "a virtio_net_hdr is no frame");
    flush(&mut tx, &mut counters, &mut kernel).expect("nothing to do");
    assert_eq!(counters.tx_kicks, 4, "no system call for nothing");
}

#[test]
fn refused_frames_are_counted_and_do_not_stall_the_others() {
    let (mut tx, mut kernel, mut counters) = (TxSend::new(1 << 20), Kernel::new(), Counters::default());
    kernel.mtu = 100;
    for len in [200, 60, 200, 200, 70, 200] {
        write(&mut tx, &vec![1; len]);
    }
    flush(&mut tx, &mut counters, &mut kernel).expect("a refused frame is no error");
    assert_eq!(kernel.wire, [vec![1; 60], vec![1; 70]]);
    assert_eq!((counters.tx_rejected, counters.tx_frames), (4, 2));
}

#[test]
fn what_the_kernel_does_not_take_stays_queued() {
    for error in [libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN] {
        let (mut tx, mut kernel, mut counters) = (TxSend::new(1 << 20), Kernel::new(), Counters::default());
        (0..5).for_each(|number| write(&mut tx, &[number; 60]));
        (kernel.credit, kernel.error) = (2, error);
        let found = flush(&mut tx, &mut counters, &mut kernel).expect_err("took two");
        assert_eq!((found.raw_os_error(), tx.queued(), counters.tx_rejected), (Some(error), 3, 0));
        tx.drop_oldest();
        kernel.credit = usize::MAX;
        flush(&mut tx, &mut counters, &mut kernel).expect("took the rest");
        assert_eq!(kernel.wire, [0, 1, 3, 4].map(|number| vec![number; 60]));
    }
}

#[test]
fn full_memory_has_no_room_until_something_left() {
    let (mut tx, mut kernel, mut counters) = (TxSend::new(4096), Kernel::new(), Counters::default());
    let mut written = 0;
    while tx.has_room(100) {
        write(&mut tx, &[written; 100]);
        written += 1;
    }
    assert_eq!(written, 32, "each begins on a cache line");
    assert!(tx.write(100, |_| ()).is_err());
    assert!(tx.write(usize::MAX, |_| ()).is_err() && tx.write(4097, |_| ()).is_err());
    kernel.credit = 20;
    assert!(flush(&mut tx, &mut counters, &mut kernel).is_err());
    assert!(tx.has_room(100), "more than half has left, so the rest moved forward");
    write(&mut tx, &[99; 100]);
    kernel.credit = usize::MAX;
    flush(&mut tx, &mut counters, &mut kernel).expect("taken");
    let expected: Vec<_> = (0..32).chain([99]).map(|number| vec![number; 100]).collect();
    assert_eq!(kernel.wire, expected);
    write(&mut tx, &[7; 4096]);
    assert!(!tx.has_room(1));
}

#[test]
fn tiny_entries_have_a_bound_too() {
    let mut tx = TxSend::new(1 << 20);
    for _ in 0..ENTRIES_MAX {
        assert!(tx.has_room(1));
        write(&mut tx, &[1]);
    }
    assert!(!tx.has_room(1));
}

proptest! {
    /// Whatever the order of writes, partial takes, refusals and losses of patience: the wire sees the good
    /// entries in their order.
    #[test]
    fn the_wire_sees_what_was_written(steps in prop::collection::vec((0..6u8, 1..700usize), 1..300)) {
        let (mut tx, mut kernel, mut counters) = (TxSend::new(8192), Kernel::new(), Counters::default());
        kernel.mtu = 600;
        let (mut oracle, mut queued) = (Vec::new(), VecDeque::new());
        let settle = |queued: &mut VecDeque<Vec<u8>>, oracle: &mut Vec<Vec<u8>>, left: usize| {
            while queued.len() > left {
                let entry = queued.pop_front().expect("longer");
                if entry.len() <= 600 { oracle.push(entry) }
            }
        };
        for (number, (step, len)) in steps.into_iter().enumerate() {
            match step {
                0..3 if tx.has_room(len) => {
                    let entry = vec![number as u8; len];
                    write(&mut tx, &entry);
                    queued.push_back(entry);
                }
                3 => kernel.credit = len % 9,
                4 if len < 100 => {
                    tx.drop_oldest();
                    queued.pop_front();
                }
                _ => {
                    let _ = flush(&mut tx, &mut counters, &mut kernel);
                    settle(&mut queued, &mut oracle, tx.queued());
                }
            }
            prop_assert_eq!(queued.len(), tx.queued());
        }
        kernel.credit = usize::MAX;
        flush(&mut tx, &mut counters, &mut kernel).expect("a kernel with credit takes all");
        settle(&mut queued, &mut oracle, 0);
        prop_assert_eq!(&kernel.wire, &oracle);
        prop_assert_eq!(counters.tx_frames, oracle.len() as u64);
        prop_assert!(tx.has_room(8192), "all of the memory is free again");
    }
}
