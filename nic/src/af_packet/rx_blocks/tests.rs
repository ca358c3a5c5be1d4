//! The RX ring of V3 against a kernel that is the test itself, on plain memory.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::test_frames::udp;
use super::*;
use crate::RingGeometry;
use crate::config::VlanTags;
use crate::shm::Region;

const GEOMETRY: RingGeometry =
    RingGeometry { block_size: 4096, block_count: 4, slot_size: 2048, slot_count: 8 };
/// Where the kernel puts the first frame of a block.
const FIRST: usize = abi::BLOCK_HEADER_LEN;

/// The kernel's half, in the manner of `prb_fill_curr_block`, `prb_close_block` and `prb_open_block`. It
/// writes through a ring of its own, as the owner of what is not the reader's.
struct Kernel {
    ring: BlockRing,
    vnet_hdr: bool,
    /// The block that it fills, if that one is open, with what is in it so far.
    active: usize,
    bytes: Vec<u8>,
    frames: u32,
    /// Start of the last frame's header.
    last: usize,
    drops: u64,
}

fn options(vnet_hdr: bool) -> RxOptions {
    RxOptions {
        vnet_hdr,
        verify_checksums: true,
        vlan_tags: VlanTags::PutBack,
        outgoing: false,
        frame_len_max: 1514,
    }
}

fn pair(vnet_hdr: bool) -> (Kernel, RxBlocks) {
    let region = Arc::new(Region::heap(GEOMETRY.memory()));
    let rx = RxBlocks::new(BlockRing::new(region.clone(), 0, GEOMETRY), options(vnet_hdr));
    let ring = BlockRing::new(region, 0, GEOMETRY);
    let mut kernel =
        Kernel { ring, vnet_hdr, active: 0, bytes: Vec::new(), frames: 0, last: FIRST, drops: 0 };
    kernel.open();
    (kernel, rx)
}

/// A frame on its way into a block.
#[derive(Default)]
struct Sent<'f> {
    frame: &'f [u8],
    status: u32,
    packet_type: u8,
    /// Bytes that a filter leaves of it; 0: all.
    cut: usize,
}

impl Kernel {
    fn open(&mut self) {
        self.bytes = vec![0; FIRST];
        (self.frames, self.last) = (0, FIRST);
    }

    fn mac(&self) -> usize {
        let layout = TpacketVersion::V3.layout();
        let network = (layout.len + abi::ADDRESS_LEN + 16).next_multiple_of(abi::ALIGNMENT);
        network - abi::ETHERNET_HEADER_LEN + if self.vnet_hdr { abi::VNET_HDR_LEN } else { 0 }
    }

    fn deliver(&mut self, frame: &[u8]) -> bool {
        self.send(&Sent { frame, ..Sent::default() })
    }

    /// Puts a frame into the open block, or closes that one and goes on to the next. False: that one is
    /// still the reader's, and the frame was dropped.
    fn send(&mut self, sent: &Sent<'_>) -> bool {
        if self.ring.status(self.active) & libc::TP_STATUS_USER != 0 {
            self.drops += 1;
            return false;
        }
        if self.bytes.is_empty() {
            self.open();
        }
        let room = GEOMETRY.block_size - FIRST - self.mac();
        let snaplen = sent.frame.len().min(room).min(if sent.cut == 0 { room } else { sent.cut });
        let len = (self.mac() + snaplen).next_multiple_of(8);
        if self.frames > 0 && self.bytes.len() + len >= GEOMETRY.block_size {
            self.close(0);
            return self.send(sent);
        }
        let layout = TpacketVersion::V3.layout();
        let mut record = vec![0; len];
        let mut put = |at: usize, value: &[u8]| record[at..at + value.len()].copy_from_slice(value);
        put(abi::NEXT_OFFSET, &(len as u32).to_ne_bytes());
        put(layout.frame_len, &(sent.frame.len() as u32).to_ne_bytes());
        put(layout.snaplen, &(snaplen as u32).to_ne_bytes());
        put(layout.mac, &(self.mac() as u16).to_ne_bytes());
        put(layout.status, &(libc::TP_STATUS_USER | sent.status).to_ne_bytes());
        put(layout.len + abi::PACKET_TYPE, &[sent.packet_type]);
        put(32, &5u32.to_ne_bytes());
        put(36, &0x88a8u16.to_ne_bytes());
        put(28, &0xabcdu32.to_ne_bytes());
        put(self.mac(), &sent.frame[..snaplen]);
        self.last = self.bytes.len();
        self.bytes.extend(record);
        self.frames += 1;
        true
    }

    /// Hands the open block over, as when it is full (0) or its time is over (TP_STATUS_BLK_TMO).
    fn close(&mut self, status: u32) {
        if self.bytes.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if self.frames > 0 {
            bytes[self.last..self.last + 4].fill(0);
        }
        bytes[abi::BLOCK_FRAMES..][..4].copy_from_slice(&self.frames.to_ne_bytes());
        bytes[abi::BLOCK_FIRST..][..4].copy_from_slice(&(FIRST as u32).to_ne_bytes());
        let losing = if self.drops > 0 { libc::TP_STATUS_LOSING } else { 0 };
        self.raw(&bytes, libc::TP_STATUS_USER | status | losing);
        (self.frames, self.last) = (0, FIRST);
    }

    /// Writes a block, whatever it holds, and sets its status.
    fn raw(&mut self, bytes: &[u8], status: u32) {
        let mut block = self.ring.claim_as_kernel(self.active).expect("the kernel's");
        let start = abi::BLOCK_STATUS + 4;
        let end = bytes.len().min(GEOMETRY.block_size);
        block.get_mut(start..end).expect("in the block").copy_from_slice(&bytes[start..end]);
        block.release(status);
        if status & libc::TP_STATUS_USER != 0 {
            self.active = (self.active + 1) % GEOMETRY.block_count;
        }
    }
}

fn take(rx: &mut RxBlocks, counters: &mut Counters) -> Option<Vec<u8>> {
    rx.find(counters).then(|| rx.lend(counters, |frame, _| frame.to_vec()))
}

#[test]
fn frames_are_seen_when_their_block_is_full_or_its_time_is_over() {
    for vnet_hdr in [false, true] {
        let (mut kernel, mut rx) = pair(vnet_hdr);
        let mut counters = Counters::default();
        kernel.deliver(&[1; 60]);
        assert!(!rx.has_frame() && take(&mut rx, &mut counters).is_none());
        kernel.close(libc::TP_STATUS_BLK_TMO);
        assert!(rx.has_frame());
        assert_eq!(take(&mut rx, &mut counters), Some(vec![1; 60]));
        assert!(!rx.has_frame(), "the block went back");
        let mut delivered = 0;
        while !rx.has_frame() {
            kernel.deliver(&[2; 700]);
            delivered += 1;
        }
        for _ in 1..delivered {
            assert_eq!(take(&mut rx, &mut counters), Some(vec![2; 700]));
        }
        assert_eq!(take(&mut rx, &mut counters), None, "the last one is in the block that is open");
        assert_eq!(counters.rx_malformed, 0);
    }
}

#[test]
fn an_empty_block_goes_back() {
    let (mut kernel, mut rx) = pair(false);
    let mut counters = Counters::default();
    for _ in 0..3 {
        kernel.close(libc::TP_STATUS_BLK_TMO);
        kernel.open();
    }
    assert!(rx.has_frame());
    assert_eq!(take(&mut rx, &mut counters), None);
    assert!(!rx.has_frame(), "and nobody waits for it any more");
    kernel.deliver(&[7; 60]);
    kernel.close(libc::TP_STATUS_BLK_TMO);
    assert_eq!(take(&mut rx, &mut counters), Some(vec![7; 60]));
}

#[test]
fn a_full_ring_drops_says_so_and_goes_on() {
    let (mut kernel, mut rx) = pair(false);
    let mut counters = Counters::default();
    let mut accepted = 0;
    while kernel.deliver(&[accepted as u8; 1000]) {
        accepted += 1;
    }
    for number in 0..accepted {
        assert_eq!(take(&mut rx, &mut counters), Some(vec![number as u8; 1000]));
    }
    assert_eq!(take(&mut rx, &mut counters), None);
    assert!(!rx.take_losing(), "those blocks were closed before anything was lost");
    kernel.deliver(&[99; 60]);
    kernel.close(libc::TP_STATUS_BLK_TMO);
    assert_eq!(take(&mut rx, &mut counters), Some(vec![99; 60]));
    assert!(rx.take_losing() && !rx.take_losing());
}

#[test]
fn tags_hashes_and_directions_are_told() {
    let (mut kernel, mut rx) = pair(true);
    let mut counters = Counters::default();
    let frame = udp(100);
    let status = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
    kernel.send(&Sent { frame: &frame, status, ..Sent::default() });
    kernel.send(&Sent { frame: &frame, packet_type: libc::PACKET_OUTGOING, ..Sent::default() });
    kernel.send(&Sent { frame: &frame, cut: 50, ..Sent::default() });
    kernel.deliver(&[8; 60]);
    kernel.close(0);
    let tagged = [&frame[..12], &[0x88, 0xa8, 0, 5], &frame[12..]].concat();
    assert!(rx.find(&mut counters));
    assert_eq!(rx.meta().and_then(|meta| meta.rx_hash), Some(0xabcd));
    assert_eq!(take(&mut rx, &mut counters), Some(tagged));
    assert_eq!(
        take(&mut rx, &mut counters),
        Some(vec![8; 60]),
        "our own and the one that was cut are left out"
    );
    assert_eq!((counters.rx_tagged, counters.rx_truncated, counters.rx_frames), (1, 1, 2));
}

#[test]
fn a_frame_longer_than_a_block_is_counted() {
    let (mut kernel, mut rx) = pair(false);
    let mut counters = Counters::default();
    kernel.deliver(&[1; 5000]);
    kernel.close(0);
    kernel.deliver(&[2; 60]);
    kernel.close(0);
    assert_eq!(take(&mut rx, &mut counters), Some(vec![2; 60]));
    assert_eq!(counters.rx_truncated, 1);
}

/// A chain that does not go forward within the block ends it; what is behind is lost and counted.
#[test]
fn chains_that_lead_nowhere_end_the_block() {
    for lie in [0u32, 8, 64, 100, 4096, 4000, u32::MAX, u32::MAX - 47] {
        let (mut kernel, mut rx) = pair(false);
        let mut counters = Counters::default();
        for number in 0..3 {
            kernel.deliver(&[number; 100]);
        }
        kernel.bytes[FIRST..FIRST + 4].copy_from_slice(&lie.to_ne_bytes());
        kernel.close(0);
        kernel.deliver(&[7; 60]);
        kernel.close(0);
        let mut last = None;
        while let Some(frame) = take(&mut rx, &mut counters) {
            last = Some(frame);
        }
        assert_eq!(last, Some(vec![7; 60]), "{lie}");
        assert!(counters.rx_malformed > 0, "{lie}");
        assert_eq!(counters.rx_malformed + counters.rx_frames, 4, "{lie}");
    }
}

#[test]
fn a_token_that_is_not_used_loses_nothing() {
    let (mut kernel, mut rx) = pair(false);
    let mut counters = Counters::default();
    kernel.deliver(&[1; 60]);
    kernel.deliver(&[2; 60]);
    kernel.close(0);
    assert!((0..3).all(|_| rx.find(&mut counters)));
    assert_eq!(take(&mut rx, &mut counters), Some(vec![1; 60]));
    assert_eq!(take(&mut rx, &mut counters), Some(vec![2; 60]));
    assert_eq!(counters.rx_frames, 2);
}

proptest! {
    /// The ring is a queue: whatever the order of deliveries, timeouts and takes, what comes out is what went
    /// in, in its order, and only a full ring refuses.
    #[test]
    fn it_is_a_fifo(vnet_hdr: bool, steps in prop::collection::vec((0..6u8, 1..2500usize), 1..200)) {
        let (mut kernel, mut rx) = pair(vnet_hdr);
        let mut counters = Counters::default();
        let (mut oracle, mut refused) = (VecDeque::new(), 0);
        for (number, (step, len)) in steps.into_iter().enumerate() {
            match step {
                0..3 => {
                    let frame = vec![number as u8; len];
                    if kernel.deliver(&frame) { oracle.push_back(frame) } else { refused += 1 }
                }
                3 if kernel.frames > 0 => kernel.close(libc::TP_STATUS_BLK_TMO),
                _ => if let Some(frame) = take(&mut rx, &mut counters) {
                    prop_assert_eq!(Some(frame), oracle.pop_front());
                }
            }
        }
        while let Some(frame) = take(&mut rx, &mut counters) {
            prop_assert_eq!(Some(frame), oracle.pop_front());
        }
        kernel.close(0);
        while let Some(frame) = take(&mut rx, &mut counters) {
            prop_assert_eq!(Some(frame), oracle.pop_front());
        }
        prop_assert!(oracle.is_empty());
        prop_assert_eq!(refused, kernel.drops);
        prop_assert_eq!((counters.rx_malformed, counters.rx_truncated), (0, 0));
    }

    /// Any bytes in a block: no panic, no more frames than fit, none that leaves the block, and the next good
    /// block is read.
    #[test]
    fn any_block_is_survived(
        vnet_hdr: bool,
        frames: u32,
        first in prop_oneof![Just(FIRST as u32), 0..5000u32, any::<u32>()],
        records in prop::collection::vec((0..400u32, 0..300u32, 0..300u32, 0..200u16, any::<u32>()), 0..20),
        noise in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        let (mut kernel, mut rx) = pair(vnet_hdr);
        let mut counters = Counters::default();
        let mut bytes = vec![0; FIRST];
        bytes.extend(noise);
        bytes[abi::BLOCK_FRAMES..][..4].copy_from_slice(&frames.to_ne_bytes());
        bytes[abi::BLOCK_FIRST..][..4].copy_from_slice(&first.to_ne_bytes());
        let layout = TpacketVersion::V3.layout();
        let mut at = FIRST;
        for (next, snaplen, len, mac, status) in records {
            let mut put = |offset: usize, value: &[u8]| {
                if let Some(target) = bytes.get_mut(at + offset..at + offset + value.len()) {
                    target.copy_from_slice(value);
                }
            };
            put(abi::NEXT_OFFSET, &(next & !7).to_ne_bytes());
            put(layout.snaplen, &snaplen.to_ne_bytes());
            put(layout.frame_len, &len.to_ne_bytes());
            put(layout.status, &status.to_ne_bytes());
            put(layout.mac, &mac.to_ne_bytes());
            at += (next & !7) as usize;
        }
        kernel.raw(&bytes, libc::TP_STATUS_USER);
        kernel.open();
        kernel.deliver(&[7; 60]);
        kernel.close(0);
        let (mut last, mut count) = (Vec::new(), 0);
        while let Some(frame) = take(&mut rx, &mut counters) {
            prop_assert!(frame.len() <= GEOMETRY.block_size);
            last = frame;
            count += 1;
        }
        prop_assert!(count <= GEOMETRY.block_size / layout.len + 1);
        prop_assert_eq!(last, vec![7; 60]);
        prop_assert!(!rx.has_frame());
    }
}
