//! The TX ring, in all versions, against a kernel that is the test itself, on plain memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::RingGeometry;
use crate::af_packet::abi;
use crate::shm::{Region, Side};

const GEOMETRY: RingGeometry =
    RingGeometry { block_size: 4096, block_count: 2, slot_size: 512, slot_count: 16 };

/// The kinds of ring that there are.
const KINDS: [Kind; 8] = [
    Kind { version: TpacketVersion::V2, offset: None, virtio_len: 0 },
    Kind { version: TpacketVersion::V2, offset: None, virtio_len: abi::VNET_HDR_LEN },
    Kind { version: TpacketVersion::V2, offset: Some(64), virtio_len: 0 },
    Kind { version: TpacketVersion::V2, offset: Some(54), virtio_len: abi::VNET_HDR_LEN },
    Kind { version: TpacketVersion::V3, offset: None, virtio_len: 0 },
    Kind { version: TpacketVersion::V3, offset: Some(48), virtio_len: abi::VNET_HDR_LEN },
    Kind { version: TpacketVersion::V1, offset: None, virtio_len: abi::VNET_HDR_LEN },
    Kind { version: TpacketVersion::V1, offset: Some(64), virtio_len: 0 },
];

#[derive(Debug, Clone, Copy)]
struct Kind {
    version: TpacketVersion,
    offset: Option<u16>,
    virtio_len: usize,
}

/// The kernel's half, in the manner of `tpacket_snd`: it refuses entries longer than `mtu`, takes
/// `credit` entries a call, and keeps each SENDING until `complete`.
struct Kernel {
    kind: Kind,
    ring: SlotRing,
    next: usize,
    mtu: usize,
    credit: usize,
    sending: VecDeque<usize>,
    wire: Vec<Vec<u8>>,
}

impl Kind {
    fn pair(self) -> (Kernel, TxRing) {
        let region = Arc::new(Region::heap(GEOMETRY.memory()));
        let ring = || SlotRing::new(region.clone(), 0, GEOMETRY, Side::Tx, self.version);
        let kernel = Kernel {
            kind: self,
            ring: ring(),
            next: 0,
            mtu: 400,
            credit: usize::MAX,
            sending: VecDeque::new(),
            wire: Vec::new(),
        };
        (kernel, TxRing::new(ring(), self.version, self.offset))
    }
}

/// `tpacket_parse_header`: length and place of an entry, or the error that the kernel has for it.
fn parse(kind: Kind, slot: &Slot<'_>) -> Result<Range<usize>, i32> {
    let layout = kind.version.layout();
    let word = |at: usize| slot.get(at..at + 4).expect("a header").try_into().map_or(0, u32::from_ne_bytes);
    if kind.version == TpacketVersion::V3 && word(abi::NEXT_OFFSET) != 0 {
        return Err(libc::EINVAL);
    }
    let len = word(layout.frame_len) as usize;
    let offset_min = layout.len;
    if len > GEOMETRY.slot_size - offset_min {
        return Err(libc::EMSGSIZE);
    }
    if kind.offset.is_none() {
        return Ok(offset_min..offset_min + len);
    }
    let mac = slot.get(layout.mac..layout.mac + 2).expect("a header");
    let offset = usize::from(u16::from_ne_bytes(mac.try_into().expect("two bytes")));
    let is_legal = (offset_min..=GEOMETRY.slot_size - len).contains(&offset);
    if is_legal { Ok(offset..offset + len) } else { Err(libc::EINVAL) }
}

impl Kernel {
    fn send(&mut self) -> io::Result<usize> {
        for _ in 0..self.credit {
            if self.ring.status(self.next) != libc::TP_STATUS_SEND_REQUEST {
                return Ok(0);
            }
            let slot = self.ring.claim(self.next).expect("queued");
            let range = match parse(self.kind, &slot) {
                Ok(range) if range.len() <= self.mtu => Ok(range),
                Ok(_) => Err(libc::EMSGSIZE),
                Err(error) => Err(error),
            };
            let range = match range {
                Ok(range) => range,
                Err(error) => {
                    slot.release(libc::TP_STATUS_WRONG_FORMAT);
                    return Err(io::Error::from_raw_os_error(error));
                }
            };
            self.wire.push(slot.get(range).expect("in the slot").to_vec());
            slot.release(libc::TP_STATUS_SENDING);
            self.sending.push_back(self.next);
            self.next = (self.next + 1) % GEOMETRY.slot_count;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The device is done with a frame, mostly the oldest: `tpacket_destruct_skb`.
    fn complete(&mut self, position: usize) {
        if let Some(index) = self.sending.remove(position) {
            assert!(self.ring.status(index) == libc::TP_STATUS_SENDING);
            // As some kernels do: TP_STATUS_TS_SOFTWARE beside AVAILABLE.
            self.ring.force_status(index, libc::TP_STATUS_AVAILABLE | libc::TP_STATUS_TS_SOFTWARE);
        }
    }
}

fn write(tx: &mut TxRing, entry: &[u8]) {
    assert!(tx.write(entry.len(), |buffer| buffer.copy_from_slice(entry)).is_ok());
}

fn flush(tx: &mut TxRing, counters: &mut Counters, kernel: &mut Kernel) -> io::Result<()> {
    tx.flush(counters, kernel.kind.virtio_len, || kernel.send())
}

#[test]
fn one_kick_takes_all() {
    for kind in KINDS {
        let (mut kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        let entries: Vec<_> = (1..=10).map(|n| vec![n; 60 + usize::from(n)]).collect();
        for entry in &entries {
            write(&mut tx, entry);
        }
        flush(&mut tx, &mut counters, &mut kernel).expect("taken");
        assert_eq!(kernel.wire, entries, "{kind:?}");
        assert_eq!((counters.tx_kicks, counters.tx_frames, tx.queued()), (1, 10, 0));
        assert_eq!(counters.tx_bytes, (1..=10).map(|n| 60 + n - kind.virtio_len as u64).sum::<u64>());
        flush(&mut tx, &mut counters, &mut kernel).expect("nothing to do");
        assert_eq!(counters.tx_kicks, 1, "no system call for nothing");
    }
}

#[test]
fn a_full_ring_has_no_room_and_loses_nothing() {
    for kind in KINDS {
        let (mut kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        let mut written = 0;
        while tx.has_room() {
            write(&mut tx, &[written; 60]);
            written += 1;
        }
        assert_eq!(written, 16);
        flush(&mut tx, &mut counters, &mut kernel).expect("taken");
        assert!(!tx.has_room(), "the device still has them");
        assert!(tx.write(60, |_| ()).is_err());
        kernel.complete(0);
        assert!(tx.has_room());
        write(&mut tx, &[16; 60]);
        flush(&mut tx, &mut counters, &mut kernel).expect("taken");
        assert_eq!(kernel.wire, (0..17).map(|n| vec![n; 60]).collect::<Vec<_>>());
    }
}

/// Devices with several queues end frames out of order; the kernel wants them in the order of the slots.
#[test]
fn a_slot_that_is_done_early_waits_for_its_turn() {
    let (mut kernel, mut tx) = KINDS[0].pair();
    let mut counters = Counters::default();
    (0..16).for_each(|number| write(&mut tx, &[number; 60]));
    flush(&mut tx, &mut counters, &mut kernel).expect("taken");
    kernel.complete(3);
    assert!(!tx.has_room());
    kernel.complete(0);
    write(&mut tx, &[16; 60]);
    assert!(!tx.has_room(), "slot 1 is the device's");
}

#[test]
fn refused_frames_are_counted_and_do_not_stall_the_others() {
    for kind in KINDS {
        for refused in [&[0][..], &[9], &[4, 5], &[0, 1, 9], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            let (mut kernel, mut tx) = kind.pair();
            let mut counters = Counters::default();
            let entries: Vec<_> =
                (0..10).map(|n: u8| vec![n; if refused.contains(&n) { 420 } else { 60 }]).collect();
            for entry in &entries {
                write(&mut tx, entry);
            }
            flush(&mut tx, &mut counters, &mut kernel).expect("a refused frame is no error");
            let good: Vec<_> = entries.into_iter().filter(|entry| entry.len() == 60).collect();
            assert_eq!(kernel.wire, good, "refused: {refused:?}");
            assert_eq!(counters.tx_rejected as usize, refused.len());
            write(&mut tx, b"afterwards");
            flush(&mut tx, &mut counters, &mut kernel).expect("taken");
            assert_eq!(kernel.wire.last().expect("sent"), b"afterwards");
        }
    }
}

#[test]
fn what_the_kernel_does_not_take_stays_queued() {
    for kind in KINDS {
        let (mut kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        for n in 0..5 {
            write(&mut tx, &[n; 60]);
        }
        let down = tx.flush(&mut counters, 0, || Err(io::Error::from_raw_os_error(libc::ENETDOWN)));
        assert_eq!(down.expect_err("down").raw_os_error(), Some(libc::ENETDOWN));
        assert_eq!(tx.queued(), 5);
        kernel.credit = 2;
        let error = flush(&mut tx, &mut counters, &mut kernel).expect_err("took two");
        assert_eq!((error.kind(), tx.queued()), (io::ErrorKind::WouldBlock, 3));
        kernel.credit = usize::MAX;
        flush(&mut tx, &mut counters, &mut kernel).expect("took the rest");
        assert_eq!(kernel.wire, (0..5).map(|n| vec![n; 60]).collect::<Vec<_>>());
    }
}

#[test]
fn the_oldest_can_be_given_up() {
    for kind in KINDS {
        let (mut kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        tx.drop_oldest();
        for n in 0..3 {
            write(&mut tx, &vec![n; 60 + usize::from(n)]);
        }
        tx.drop_oldest();
        assert_eq!(tx.queued(), 2);
        flush(&mut tx, &mut counters, &mut kernel).expect("taken");
        assert_eq!(kernel.wire, [vec![1; 61], vec![2; 62]]);
    }
}

#[test]
fn a_frame_that_no_slot_holds_goes_nowhere() {
    for kind in KINDS {
        let (mut kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        let offset = kind.offset.map_or(kind.version.layout().len, usize::from);
        assert_eq!(tx.entry_len_max(), GEOMETRY.slot_size - offset);
        for len in [tx.entry_len_max() + 1, 5000, usize::MAX] {
            assert!(tx.write(len, |_| ()).is_err());
        }
        flush(&mut tx, &mut counters, &mut kernel).expect("nothing queued");
        assert_eq!((tx.queued(), kernel.wire.len()), (0, 0));
        kernel.mtu = GEOMETRY.slot_size;
        let longest = vec![7; tx.entry_len_max()];
        write(&mut tx, &longest);
        flush(&mut tx, &mut counters, &mut kernel).expect("the longest is legal");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(KINDS.to_vec())
}

proptest! {
    /// Whatever the order of writes, kicks, partial takes, refusals, completions and losses of patience: the
    /// wire sees the good entries in their order, and in the end all of them.
    #[test]
    fn the_wire_sees_what_was_written(
        kind in kinds(),
        steps in prop::collection::vec((0..6u8, 20..440usize), 1..300),
    ) {
        let (mut kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        let mut oracle: Vec<Vec<u8>> = Vec::new();
        let mut queued: VecDeque<Vec<u8>> = VecDeque::new();
        let mut refused = 0;
        // What left the queue is on the wire, or was refused.
        let settle = |queued: &mut VecDeque<Vec<u8>>, oracle: &mut Vec<Vec<u8>>, left: usize, mtu: usize| {
            let mut refused = 0;
            while queued.len() > left {
                let entry = queued.pop_front().expect("longer");
                if entry.len() > mtu { refused += 1 } else { oracle.push(entry) }
            }
            refused
        };
        for (number, (step, len)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 if tx.has_room() => {
                    let entry = vec![number as u8; len];
                    write(&mut tx, &entry);
                    queued.push_back(entry);
                }
                2 => kernel.complete(len % 3 % kernel.sending.len().max(1)),
                3 => kernel.credit = len % 5,
                4 if len < 40 => {
                    tx.drop_oldest();
                    queued.pop_front();
                }
                _ => {
                    let _ = flush(&mut tx, &mut counters, &mut kernel);
                    refused += settle(&mut queued, &mut oracle, tx.queued(), kernel.mtu);
                }
            }
            prop_assert_eq!(queued.len(), tx.queued());
        }
        kernel.credit = usize::MAX;
        flush(&mut tx, &mut counters, &mut kernel).expect("a kernel with credit takes all");
        refused += settle(&mut queued, &mut oracle, 0, kernel.mtu);
        prop_assert_eq!(&kernel.wire, &oracle);
        prop_assert_eq!(counters.tx_rejected, refused);
        prop_assert_eq!(counters.tx_frames, oracle.len() as u64);
        let bytes: usize = oracle.iter().map(|entry| entry.len() - kind.virtio_len).sum();
        prop_assert_eq!(counters.tx_bytes, bytes as u64);
    }

    /// Any status words from the kernel: no panic, no endless loop, and no slot is written to that is the
    /// kernel's.
    #[test]
    fn any_status_is_survived(
        kind in kinds(),
        steps in prop::collection::vec((0..3u8, 0..16usize, any::<u32>()), 1..100),
    ) {
        let (kernel, mut tx) = kind.pair();
        let mut counters = Counters::default();
        for (step, index, status) in steps {
            match step {
                0 => kernel.ring.force_status(index, status),
                1 => {
                    let _ = tx.write(60, |entry| entry.fill(1));
                }
                _ => {
                    let mut calls = 0;
                    let _ = tx.flush(&mut counters, 0, || {
                        calls += 1;
                        kernel.ring.force_status(index, status);
                        Ok(0)
                    });
                    prop_assert!(calls <= GEOMETRY.slot_count + 1);
                }
            }
            prop_assert!(tx.queued() <= GEOMETRY.slot_count);
        }
    }
}
