//! The RX ring against a kernel that is the test itself, on plain memory.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::RingGeometry;
use crate::shm::{Region, Side};

const GEOMETRY: RingGeometry =
    RingGeometry { block_size: 4096, block_count: 2, slot_size: 512, slot_count: 16 };

/// The kernel's half: it owns what the RX side does not, so it is a ring of the other side's rule.
struct Kernel {
    ring: SlotRing,
    next: usize,
    queue: VecDeque<Vec<u8>>,
}

fn pair(oversize_len: usize) -> (Kernel, RxFrames<'static>) {
    let region = Arc::new(Region::heap(GEOMETRY.memory()));
    let rx = SlotRing::new(region.clone(), 0, GEOMETRY, Side::Rx);
    // Side::Tx counts every slot that is not SENDING as its own, so the test can write any slot.
    let ring = SlotRing::new(region, 0, GEOMETRY, Side::Tx);
    let oversize = ManagedSlice::Owned(vec![0; oversize_len]);
    (Kernel { ring, next: 0, queue: VecDeque::new() }, RxFrames::new(rx, oversize, 1514))
}

impl Kernel {
    /// Puts a frame into the next slot as `tpacket_rcv` does. False: the ring is full.
    fn deliver(&mut self, frame: &[u8], flags: u32) -> bool {
        let room = GEOMETRY.slot_size - 66;
        let snaplen = frame.len().min(room);
        let mut flags = flags;
        if snaplen < frame.len() {
            flags |= libc::TP_STATUS_COPY;
            self.queue.push_back(frame.to_vec());
        }
        self.raw(frame.len() as u32, snaplen as u32, 66, &frame[..snaplen], flags)
    }

    fn raw(&mut self, len: u32, snaplen: u32, mac: u16, bytes: &[u8], flags: u32) -> bool {
        if self.ring.status(self.next) & libc::TP_STATUS_USER != 0 {
            return false;
        }
        let mut slot = self.ring.claim(self.next).expect("the kernel's");
        slot.get_mut(4..GEOMETRY.slot_size).expect("a slot").fill(0);
        slot.get_mut(abi::LEN..abi::LEN + 4).expect("len").copy_from_slice(&len.to_ne_bytes());
        slot.get_mut(abi::SNAPLEN..abi::SNAPLEN + 4)
            .expect("snaplen")
            .copy_from_slice(&snaplen.to_ne_bytes());
        slot.get_mut(abi::MAC..abi::MAC + 2).expect("mac").copy_from_slice(&mac.to_ne_bytes());
        if flags & libc::TP_STATUS_VLAN_VALID != 0 {
            slot.get_mut(abi::VLAN_TCI..abi::VLAN_TCI + 2).expect("tci").copy_from_slice(&5u16.to_ne_bytes());
        }
        let at = usize::from(mac);
        if let Some(target) = slot.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
        slot.release(libc::TP_STATUS_USER | flags);
        self.next = (self.next + 1) % GEOMETRY.slot_count;
        true
    }
}

fn take(rx: &mut RxFrames<'_>, kernel: &mut Kernel, counters: &mut Counters) -> Option<Vec<u8>> {
    let queue = &mut kernel.queue;
    let recv = |buffer: &mut [u8]| {
        let frame = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let fits = frame.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&frame[..fits]);
        Ok(frame.len())
    };
    rx.find(counters, recv).then(|| rx.lend(counters, <[u8]>::to_vec))
}

#[test]
fn frames_larger_than_a_slot_come_whole_and_in_order() {
    let (mut kernel, mut rx) = pair(2000);
    let mut counters = Counters::default();
    let frames = [vec![1; 60], vec![2; 1500], vec![3; 446], vec![4; 2000], vec![5; 447]];
    for frame in &frames {
        assert!(kernel.deliver(frame, 0));
    }
    for frame in &frames {
        assert_eq!(take(&mut rx, &mut kernel, &mut counters).as_ref(), Some(frame));
    }
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
    assert_eq!((counters.rx_frames, counters.rx_oversize, counters.rx_truncated), (5, 3, 0));
}

#[test]
fn a_frame_of_which_no_whole_copy_exists_is_counted_and_skipped() {
    let (mut kernel, mut rx) = pair(1000);
    let mut counters = Counters::default();
    kernel.deliver(&[1; 1001], 0); // does not fit into our buffer
    kernel.raw(900, 400, 66, &[2; 400], 0); // the kernel made no copy
    kernel.deliver(&[3; 1000], 0);
    kernel.raw(900, 400, 66, &[2; 400], libc::TP_STATUS_COPY); // it says so, but there is none
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![3; 1000]));
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
    assert_eq!((counters.rx_frames, counters.rx_truncated), (1, 3));
}

#[test]
fn numbers_that_leave_the_slot_are_counted_and_skipped() {
    let (mut kernel, mut rx) = pair(1000);
    let mut counters = Counters::default();
    kernel.raw(60, 60, 500, &[], 0);
    kernel.raw(60, 60, 10, &[], 0);
    kernel.raw(u32::MAX, u32::MAX, 66, &[], 0);
    kernel.raw(60, 61, 66, &[], 0);
    kernel.deliver(&[7; 60], 0);
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![7; 60]));
    assert_eq!((counters.rx_frames, counters.rx_malformed), (1, 4));
}

#[test]
fn a_frame_of_a_vlan_is_not_taken_for_an_untagged_one() {
    let (mut kernel, mut rx) = pair(1000);
    let mut counters = Counters::default();
    kernel.deliver(&[1; 60], libc::TP_STATUS_VLAN_VALID);
    kernel.deliver(&[1; 600], libc::TP_STATUS_VLAN_VALID); // its copy must leave the queue too
    kernel.deliver(&[2; 600], 0);
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![2; 600]));
    assert_eq!(counters.rx_tagged, 2);
}

/// Where PACKET_IGNORE_OUTGOING does not exist, the ring shows what we send.
#[test]
fn own_frames_are_skipped() {
    let (mut kernel, mut rx) = pair(2000);
    let mut counters = Counters::default();
    kernel.deliver(&[1; 60], 0);
    let mut slot = kernel.ring.claim(0).expect("just filled");
    slot.get_mut(abi::PACKET_TYPE..abi::PACKET_TYPE + 1).expect("in the slot")[0] = libc::PACKET_OUTGOING;
    kernel.deliver(&[2; 60], 0);
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![2; 60]));
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
}

/// An error of the socket comes instead of a copy, and leaves the copy in the queue.
#[test]
fn an_error_of_the_socket_costs_no_frame() {
    let (mut kernel, mut rx) = pair(2000);
    let mut counters = Counters::default();
    for number in 1..=3 {
        kernel.deliver(&[number; 1000], 0);
    }
    let mut errors = vec![libc::ENETDOWN];
    for number in 1..=3 {
        let found = rx.find(&mut counters, |buffer| {
            if let Some(error) = errors.pop() {
                return Err(io::Error::from_raw_os_error(error));
            }
            let frame = kernel.queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            buffer[..frame.len()].copy_from_slice(&frame);
            Ok(frame.len())
        });
        assert!(found);
        assert_eq!(rx.lend(&mut counters, <[u8]>::to_vec), vec![number; 1000]);
    }
    assert_eq!(counters.rx_truncated, 0);
}

/// Copies whose slots are gone do not go to other slots for ever.
#[test]
fn stray_copies_are_thrown_away() {
    let (mut kernel, mut rx) = pair(2000);
    let mut counters = Counters::default();
    kernel.queue.extend([vec![9; 700], vec![9; 800]]);
    kernel.deliver(&[1; 900], 0);
    kernel.deliver(&[2; 1000], 0);
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![1; 900]));
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![2; 1000]));
    assert!(kernel.queue.is_empty());
}

/// A datagram of a sender that leaves segmentation to the device (UDP_SEGMENT) is several in one; where
/// they end is not told. One of TCP is as good as its segments.
#[test]
fn merged_datagrams_are_not_taken_for_one() {
    let (mut kernel, mut rx) = pair(10_000);
    let mut counters = Counters::default();
    let frame = |protocol: u8, len: usize| {
        let mut frame = vec![0; len];
        frame[12..14].copy_from_slice(&[8, 0]);
        let total = (len - 14) as u16;
        frame[14..24].copy_from_slice(&[
            0x45,
            0,
            (total >> 8) as u8,
            total as u8,
            0,
            0,
            0x40,
            0,
            64,
            protocol,
        ]);
        frame
    };
    kernel.deliver(&frame(17, 5042), libc::TP_STATUS_CSUMNOTREADY);
    kernel.deliver(&frame(17, 5042), 0); // complete: a datagram of a large MTU, perhaps
    kernel.deliver(&frame(17, 1514), libc::TP_STATUS_CSUMNOTREADY);
    kernel.deliver(&frame(6, 5042), libc::TP_STATUS_CSUMNOTREADY);
    let mut lens = Vec::new();
    while let Some(frame) = take(&mut rx, &mut kernel, &mut counters) {
        lens.push((frame[23], frame.len()));
    }
    assert_eq!(lens, [(17, 5042), (17, 1514), (6, 5042)]);
    assert_eq!(counters.rx_unsegmented, 1);
}

#[test]
fn a_token_that_is_not_used_loses_nothing() {
    let (mut kernel, mut rx) = pair(1000);
    let mut counters = Counters::default();
    kernel.deliver(&[9; 700], 0);
    for _ in 0..3 {
        assert!(rx.find(&mut counters, |buffer| {
            let frame = kernel.queue.pop_front().expect("asked for once");
            buffer[..frame.len()].copy_from_slice(&frame);
            Ok(frame.len())
        }));
    }
    assert_eq!(rx.lend(&mut counters, <[u8]>::to_vec), vec![9; 700]);
    assert_eq!(counters.rx_frames, 1);
}

proptest! {
    /// The ring is a queue: whatever the order of deliveries and takes, what comes out is what went
    /// in, and only a full ring refuses.
    #[test]
    fn it_is_a_fifo(steps in prop::collection::vec((any::<bool>(), 1..1200usize), 1..200)) {
        let (mut kernel, mut rx) = pair(1200);
        let mut counters = Counters::default();
        let mut oracle = VecDeque::new();
        for (number, (deliver, len)) in steps.into_iter().enumerate() {
            if deliver {
                let frame = vec![number as u8; len];
                let accepted = oracle.len() < GEOMETRY.slot_count;
                if accepted {
                    prop_assert!(kernel.deliver(&frame, 0));
                    oracle.push_back(frame);
                }
            } else {
                prop_assert_eq!(rx.has_filled_slot(), !oracle.is_empty());
                prop_assert_eq!(take(&mut rx, &mut kernel, &mut counters), oracle.pop_front());
            }
        }
    }

    /// Any header: no panic, no frame that leaves the slot, and the next good frame is still found.
    #[test]
    fn any_header_is_survived(len: u32, snaplen: u32, mac: u16, flags: u32) {
        let (mut kernel, mut rx) = pair(1200);
        let mut counters = Counters::default();
        kernel.raw(len, snaplen, mac, &[], flags & !libc::TP_STATUS_USER);
        kernel.deliver(&[1; 60], 0);
        while let Some(frame) = take(&mut rx, &mut kernel, &mut counters) {
            prop_assert!(frame.len() <= GEOMETRY.slot_size);
        }
        prop_assert!(!rx.has_filled_slot());
        prop_assert!(counters.rx_frames >= 1);
    }
}
