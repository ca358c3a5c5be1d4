//! The TX ring against a kernel that is the test itself, on plain memory.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::RingGeometry;
use crate::shm::{Region, Side};

const GEOMETRY: RingGeometry =
    RingGeometry { block_size: 4096, block_count: 2, slot_size: 512, slot_count: 16 };

/// The kernel's half, in the manner of `tpacket_snd`: it refuses frames longer than `mtu`, takes
/// `credit` frames a call, and keeps each SENDING until `complete`.
struct Kernel {
    ring: SlotRing,
    next: usize,
    mtu: usize,
    credit: usize,
    sending: VecDeque<usize>,
    wire: Vec<Vec<u8>>,
}

fn pair() -> (Kernel, TxRing) {
    let region = Arc::new(Region::heap(GEOMETRY.memory()));
    let ring = SlotRing::new(region.clone(), 0, GEOMETRY, Side::Tx);
    let kernel =
        Kernel { ring, next: 0, mtu: 400, credit: usize::MAX, sending: VecDeque::new(), wire: Vec::new() };
    (kernel, TxRing::new(SlotRing::new(region, 0, GEOMETRY, Side::Tx)))
}

impl Kernel {
    fn send(&mut self) -> io::Result<usize> {
        for _ in 0..self.credit {
            if self.ring.status(self.next) != libc::TP_STATUS_SEND_REQUEST {
                return Ok(0);
            }
            let slot = self.ring.claim(self.next).expect("queued");
            let len = len(&slot);
            if len > self.mtu {
                slot.release(libc::TP_STATUS_WRONG_FORMAT);
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            self.wire.push(slot.get(32..32 + len).expect("in the slot").to_vec());
            slot.release(libc::TP_STATUS_SENDING);
            self.sending.push_back(self.next);
            self.next = (self.next + 1) % GEOMETRY.slot_count;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The device is done with the oldest frame: `tpacket_destruct_skb`.
    fn complete(&mut self, region: &TxRing) {
        if let Some(index) = self.sending.pop_front() {
            assert!(region.ring.status(index) == libc::TP_STATUS_SENDING);
            // As some kernels do: TP_STATUS_TS_SOFTWARE beside AVAILABLE.
            self.ring.force_status(index, libc::TP_STATUS_AVAILABLE | 1 << 29);
        }
    }
}

fn write(tx: &mut TxRing, counters: &mut Counters, frame: &[u8]) {
    tx.write(counters, frame.len(), |buffer| buffer.copy_from_slice(frame));
}

#[test]
fn one_kick_takes_all() {
    let (mut kernel, mut tx) = pair();
    let mut counters = Counters::default();
    let frames: Vec<_> = (1..=10).map(|n| vec![n; 60 + usize::from(n)]).collect();
    for frame in &frames {
        write(&mut tx, &mut counters, frame);
    }
    tx.flush(&mut counters, || kernel.send()).expect("taken");
    assert_eq!(kernel.wire, frames);
    assert_eq!((counters.tx_kicks, counters.tx_frames, tx.queued()), (1, 10, 0));
    tx.flush(&mut counters, || kernel.send()).expect("nothing to do");
    assert_eq!(counters.tx_kicks, 1, "no system call for nothing");
}

#[test]
fn a_full_ring_has_no_room_and_loses_nothing() {
    let (mut kernel, mut tx) = pair();
    let mut counters = Counters::default();
    let mut written = 0;
    while tx.has_room() {
        write(&mut tx, &mut counters, &[written; 60]);
        written += 1;
    }
    assert_eq!(written, 16);
    tx.flush(&mut counters, || kernel.send()).expect("taken");
    assert!(!tx.has_room(), "the device still has them");
    kernel.complete(&tx);
    assert!(tx.has_room());
    write(&mut tx, &mut counters, &[16; 60]);
    tx.flush(&mut counters, || kernel.send()).expect("taken");
    assert_eq!(kernel.wire, (0..17).map(|n| vec![n; 60]).collect::<Vec<_>>());
}

#[test]
fn refused_frames_are_counted_and_do_not_stall_the_others() {
    for refused in [&[0][..], &[9], &[4, 5], &[0, 1, 9], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        let (mut kernel, mut tx) = pair();
        let mut counters = Counters::default();
        let frames: Vec<_> =
            (0..10).map(|n: u8| vec![n; if refused.contains(&n) { 450 } else { 60 }]).collect();
        for frame in &frames {
            write(&mut tx, &mut counters, frame);
        }
        tx.flush(&mut counters, || kernel.send()).expect("a refused frame is no error");
        let good: Vec<_> = frames.into_iter().filter(|frame| frame.len() == 60).collect();
        assert_eq!(kernel.wire, good, "refused: {refused:?}");
        assert_eq!(counters.tx_rejected as usize, refused.len());
        write(&mut tx, &mut counters, b"afterwards");
        tx.flush(&mut counters, || kernel.send()).expect("taken");
        assert_eq!(kernel.wire.last().expect("sent"), b"afterwards");
    }
}

#[test]
fn what_the_kernel_does_not_take_stays_queued() {
    let (mut kernel, mut tx) = pair();
    let mut counters = Counters::default();
    for n in 0..5 {
        write(&mut tx, &mut counters, &[n; 60]);
    }
    let down = tx.flush(&mut counters, || Err(io::Error::from_raw_os_error(libc::ENETDOWN)));
    assert_eq!(down.expect_err("down").raw_os_error(), Some(libc::ENETDOWN));
    assert_eq!(tx.queued(), 5);
    kernel.credit = 2;
    let error = tx.flush(&mut counters, || kernel.send()).expect_err("took two");
    assert_eq!((error.kind(), tx.queued()), (io::ErrorKind::WouldBlock, 3));
    kernel.credit = usize::MAX;
    tx.flush(&mut counters, || kernel.send()).expect("took the rest");
    assert_eq!(kernel.wire, (0..5).map(|n| vec![n; 60]).collect::<Vec<_>>());
}

#[test]
fn a_frame_that_no_slot_holds_goes_nowhere() {
    let (mut kernel, mut tx) = pair();
    let mut counters = Counters::default();
    let written = tx.write(&mut counters, 5000, |buffer| buffer.len());
    tx.flush(&mut counters, || kernel.send()).expect("nothing queued");
    assert_eq!((written, counters.tx_oversize, kernel.wire.len()), (5000, 1, 0));
}

proptest! {
    /// Whatever the order of writes, kicks, partial takes, refusals and completions: the wire sees
    /// the good frames in their order, and in the end all of them.
    #[test]
    fn the_wire_sees_what_was_written(steps in prop::collection::vec((0..5u8, 20..440usize), 1..300)) {
        let (mut kernel, mut tx) = pair();
        let mut counters = Counters::default();
        let mut oracle = Vec::new();
        let mut refused = 0;
        for (number, (step, len)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 if tx.has_room() => {
                    let frame = vec![number as u8; len];
                    write(&mut tx, &mut counters, &frame);
                    if len > kernel.mtu { refused += 1 } else { oracle.push(frame) }
                }
                2 => kernel.complete(&tx),
                3 => kernel.credit = len % 5,
                _ => { let _ = tx.flush(&mut counters, || kernel.send()); }
            }
        }
        kernel.credit = usize::MAX;
        tx.flush(&mut counters, || kernel.send()).expect("a kernel with credit takes all");
        prop_assert_eq!(&kernel.wire, &oracle);
        prop_assert_eq!(counters.tx_rejected, refused);
        prop_assert_eq!(counters.tx_frames, oracle.len() as u64);
        prop_assert_eq!(counters.tx_bytes, oracle.iter().map(|frame| frame.len() as u64).sum::<u64>());
    }
}
