//! The RX ring of V1 and V2 against a kernel that is the test itself, on plain memory.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::test_frames::{tcp, udp};
use super::*;
use crate::RingGeometry;
use crate::config::VlanTags;
use crate::shm::{Region, Side};

const GEOMETRY: RingGeometry =
    RingGeometry { block_size: 4096, block_count: 2, slot_size: 512, slot_count: 16 };

/// The kinds of ring that there are.
const KINDS: [Kind; 4] = [
    Kind { version: TpacketVersion::V2, vnet_hdr: false },
    Kind { version: TpacketVersion::V2, vnet_hdr: true },
    Kind { version: TpacketVersion::V1, vnet_hdr: false },
    Kind { version: TpacketVersion::V1, vnet_hdr: true },
];

#[derive(Debug, Clone, Copy)]
struct Kind {
    version: TpacketVersion,
    vnet_hdr: bool,
}

impl Kind {
    /// `tp_mac` of an untagged frame (`tpacket_rcv`).
    fn mac(self) -> usize {
        let network = (self.version.layout().len + abi::ADDRESS_LEN + 16).next_multiple_of(abi::ALIGNMENT);
        network - abi::ETHERNET_HEADER_LEN + self.virtio_len()
    }

    fn virtio_len(self) -> usize {
        if self.vnet_hdr { abi::VNET_HDR_LEN } else { 0 }
    }

    /// Bytes of the longest frame that a slot holds.
    fn room(self) -> usize {
        GEOMETRY.slot_size - self.mac()
    }

    fn options(self) -> RxOptions {
        RxOptions {
            vnet_hdr: self.vnet_hdr,
            verify_checksums: true,
            vlan_tags: VlanTags::PutBack,
            outgoing: false,
            frame_len_max: 1514,
        }
    }

    fn pair(self, oversize_len: usize) -> (Kernel, RxFrames<'static>) {
        let region = Arc::new(Region::heap(GEOMETRY.memory()));
        let rx = SlotRing::new(region.clone(), 0, GEOMETRY, Side::Rx, self.version);
        // Side::Tx counts every slot that is not SENDING as its own, so the test can write any slot.
        let ring = SlotRing::new(region, 0, GEOMETRY, Side::Tx, self.version);
        let oversize = ManagedSlice::Owned(vec![0; oversize_len + oversize_start(&self.options())]);
        let kernel = Kernel { kind: self, ring, next: 0, queue: VecDeque::new(), virtio: [0; 10] };
        (kernel, RxFrames::new(rx, self.version, self.options(), oversize))
    }
}

/// The kernel's half: it owns what the RX side does not, so it is a ring of the other side's rule.
struct Kernel {
    kind: Kind,
    ring: SlotRing,
    next: usize,
    queue: VecDeque<Vec<u8>>,
    /// The virtio_net_hdr of the next frames.
    virtio: [u8; abi::VNET_HDR_LEN],
}

impl Kernel {
    /// Puts a frame into the next slot as `tpacket_rcv` does. False: the ring is full.
    fn deliver(&mut self, frame: &[u8], flags: u32) -> bool {
        let snaplen = frame.len().min(self.kind.room());
        let mut flags = flags;
        if snaplen < frame.len() {
            flags |= libc::TP_STATUS_COPY;
            let virtio = &self.virtio[..self.kind.virtio_len()];
            self.queue.push_back([virtio, frame].concat());
        }
        let mac = self.kind.mac() as u16;
        self.raw(frame.len() as u32, snaplen as u32, mac, &frame[..snaplen], flags)
    }

    fn raw(&mut self, len: u32, snaplen: u32, mac: u16, bytes: &[u8], flags: u32) -> bool {
        if self.ring.status(self.next) & libc::TP_STATUS_USER != 0 {
            return false;
        }
        let layout = self.kind.version.layout();
        let mut slot = self.ring.claim(self.next).expect("the kernel's");
        slot.get_mut(layout.status_bytes().end..GEOMETRY.slot_size).expect("a slot").fill(0);
        let mut put = |at: usize, value: &[u8]| {
            if let Some(target) = slot.get_mut(at..at + value.len()) {
                target.copy_from_slice(value);
            }
        };
        put(layout.frame_len, &len.to_ne_bytes());
        put(layout.snaplen, &snaplen.to_ne_bytes());
        put(layout.mac, &mac.to_ne_bytes());
        if let Some(vlan) = &layout.vlan
            && flags & libc::TP_STATUS_VLAN_VALID != 0
        {
            put(vlan.tci, &5u16.to_ne_bytes());
        }
        let at = usize::from(mac);
        put(at, bytes);
        if self.kind.vnet_hdr && at >= layout.len + abi::ADDRESS_LEN + abi::VNET_HDR_LEN {
            put(at - abi::VNET_HDR_LEN, &self.virtio);
        }
        slot.release(libc::TP_STATUS_USER | flags);
        self.next = (self.next + 1) % GEOMETRY.slot_count;
        true
    }
}

fn take(rx: &mut RxFrames<'_>, kernel: &mut Kernel, counters: &mut Counters) -> Option<Vec<u8>> {
    let queue = &mut kernel.queue;
    rx.find(counters, |buffer| recv(queue, buffer)).then(|| rx.lend(counters, |frame, _| frame.to_vec()))
}

fn recv(queue: &mut VecDeque<Vec<u8>>, buffer: &mut [u8]) -> io::Result<usize> {
    let frame = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
    let fits = frame.len().min(buffer.len());
    buffer[..fits].copy_from_slice(&frame[..fits]);
    Ok(frame.len())
}

/// A frame with the tag that this kernel tells.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat()
}

#[test]
fn frames_larger_than_a_slot_come_whole_and_in_order() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(2000);
        let mut counters = Counters::default();
        let room = kind.room();
        let frames = [vec![1; 60], vec![2; 1500], vec![3; room], vec![4; 2000], vec![5; room + 1]];
        for frame in &frames {
            assert!(kernel.deliver(frame, 0));
        }
        for frame in &frames {
            assert_eq!(take(&mut rx, &mut kernel, &mut counters).as_ref(), Some(frame), "{kind:?}");
        }
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
        assert_eq!((counters.rx_frames, counters.rx_oversize, counters.rx_truncated), (5, 3, 0));
    }
}

#[test]
fn a_frame_of_which_no_whole_copy_exists_is_counted_and_skipped() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(1000);
        let mut counters = Counters::default();
        let mac = kind.mac() as u16;
        kernel.deliver(&[1; 1001], 0); // does not fit into our buffer
        kernel.raw(900, 400, mac, &[2; 400], 0); // the kernel made no copy, or a filter cut it
        kernel.deliver(&[3; 1000], 0);
        kernel.raw(900, 400, mac, &[2; 400], libc::TP_STATUS_COPY); // it says so, but there is none
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![3; 1000]));
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
        assert_eq!((counters.rx_frames, counters.rx_truncated), (1, 3));
    }
}

/// A copy that nobody fetches keeps the socket readable, and whoever waits for it awake.
#[test]
fn copies_leave_the_queue_even_without_a_buffer_for_them() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(0);
        rx.oversize = ManagedSlice::Owned(Vec::new());
        let mut counters = Counters::default();
        kernel.deliver(&[1; 1000], 0);
        kernel.deliver(&[2; 60], 0);
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![2; 60]));
        assert_eq!((counters.rx_truncated, kernel.queue.len()), (1, 0));
    }
}

#[test]
fn numbers_that_leave_the_slot_are_counted_and_skipped() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(1000);
        let mut counters = Counters::default();
        let mac = kind.mac() as u16;
        kernel.raw(60, 60, 500, &[], 0);
        kernel.raw(60, 60, 10, &[], 0);
        kernel.raw(u32::MAX, u32::MAX, mac, &[], 0);
        kernel.raw(60, 61, mac, &[], 0);
        kernel.deliver(&[7; 60], 0);
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![7; 60]));
        assert_eq!((counters.rx_frames, counters.rx_malformed), (1, 4));
    }
}

#[test]
fn a_frame_of_a_vlan_is_not_taken_for_an_untagged_one() {
    for kind in KINDS.into_iter().filter(|kind| kind.version == TpacketVersion::V2) {
        let (mut kernel, mut rx) = kind.pair(1000);
        let mut counters = Counters::default();
        kernel.deliver(&[1; 60], libc::TP_STATUS_VLAN_VALID);
        kernel.deliver(&[1; 600], libc::TP_STATUS_VLAN_VALID); // the tag of a copy is in the slot
        kernel.deliver(&[2; 600], 0);
        for expected in [tagged(&[1; 60]), tagged(&[1; 600]), vec![2; 600]] {
            assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(expected));
        }
        assert_eq!((counters.rx_tagged, counters.rx_frames), (2, 3));
    }
}

/// A frame with long headers may lie right behind the address, which may be written over then.
#[test]
fn a_tag_is_put_back_at_the_smallest_headroom() {
    for kind in KINDS.into_iter().filter(|kind| kind.version == TpacketVersion::V2) {
        let (mut kernel, mut rx) = kind.pair(1000);
        let mut counters = Counters::default();
        let mac = (kind.version.layout().len + abi::ADDRESS_LEN + kind.virtio_len()) as u16;
        kernel.raw(60, 60, mac, &[7; 60], libc::TP_STATUS_VLAN_VALID);
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(tagged(&[7; 60])));
    }
}

/// Where PACKET_IGNORE_OUTGOING does not exist, the ring shows what we send.
#[test]
fn own_frames_are_skipped() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(2000);
        let mut counters = Counters::default();
        kernel.deliver(&[1; 60], 0);
        let mut slot = kernel.ring.claim(0).expect("just filled");
        let at = kind.version.layout().len + abi::PACKET_TYPE;
        slot.get_mut(at..at + 1).expect("in the slot")[0] = libc::PACKET_OUTGOING;
        kernel.deliver(&[2; 60], 0);
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![2; 60]));
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
    }
}

/// An error of the socket comes instead of a copy, and leaves the copy in the queue.
#[test]
fn an_error_of_the_socket_costs_no_frame() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(2000);
        let mut counters = Counters::default();
        for number in 1..=3 {
            kernel.deliver(&[number; 1000], 0);
        }
        let mut errors = vec![libc::ENETDOWN];
        for number in 1..=3 {
            let found = rx.find(&mut counters, |buffer| match errors.pop() {
                Some(error) => Err(io::Error::from_raw_os_error(error)),
                None => recv(&mut kernel.queue, buffer),
            });
            assert!(found);
            assert_eq!(rx.lend(&mut counters, |frame, _| frame.to_vec()), vec![number; 1000]);
        }
        assert_eq!(counters.rx_truncated, 0);
    }
}

/// Copies whose slots are gone do not go to other slots for ever.
#[test]
fn stray_copies_are_thrown_away() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(2000);
        let mut counters = Counters::default();
        kernel.queue.extend([vec![9; 700], vec![9; 800]]);
        kernel.deliver(&[1; 900], 0);
        kernel.deliver(&[2; 1000], 0);
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![1; 900]));
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), Some(vec![2; 1000]));
        assert!(kernel.queue.is_empty());
    }
}

/// A datagram of a sender that leaves segmentation to the device (UDP_SEGMENT) is several in one; without a
/// virtio_net_hdr it is not told where they end. One of TCP is as good as its segments.
#[test]
fn merged_datagrams_are_not_taken_for_one() {
    for kind in KINDS.into_iter().filter(|kind| !kind.vnet_hdr) {
        let (mut kernel, mut rx) = kind.pair(10_000);
        let mut counters = Counters::default();
        kernel.deliver(&udp(5000), libc::TP_STATUS_CSUMNOTREADY);
        kernel.deliver(&udp(5000), 0); // complete: a datagram of a large MTU, perhaps
        kernel.deliver(&udp(1472), libc::TP_STATUS_CSUMNOTREADY);
        kernel.deliver(&tcp(4988), libc::TP_STATUS_CSUMNOTREADY);
        let mut lens = Vec::new();
        while let Some(frame) = take(&mut rx, &mut kernel, &mut counters) {
            lens.push((frame[23], frame.len()));
        }
        assert_eq!(lens, [(17, 5042), (17, 1514), (6, 5042)]);
        assert_eq!(counters.rx_unsegmented, 1);
    }
}

/// With one, they are lent as they are, with what it says: whether they lie in a slot or beside the ring.
#[test]
fn what_a_virtio_header_says_is_lent_with_the_frame() {
    for kind in KINDS.into_iter().filter(|kind| kind.vnet_hdr) {
        let (mut kernel, mut rx) = kind.pair(10_000);
        let mut counters = Counters::default();
        kernel.virtio[1] = 5; // VIRTIO_NET_HDR_GSO_UDP_L4
        kernel.virtio[4..6].copy_from_slice(&100u16.to_ne_bytes());
        for payload_len in [300, 5000] {
            kernel.deliver(&udp(payload_len), 0);
            assert!(rx.find(&mut counters, |buffer| recv(&mut kernel.queue, buffer)));
            let size = rx.meta().and_then(|meta| meta.gso).map(|gso| gso.size.get());
            assert_eq!(size, Some(100));
            assert_eq!(rx.lend(&mut counters, |frame, _| frame.to_vec()), udp(payload_len));
        }
    }
}

#[test]
fn a_token_that_is_not_used_loses_nothing() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(1000);
        let mut counters = Counters::default();
        kernel.deliver(&[9; 700], 0);
        for _ in 0..3 {
            assert!(rx.find(&mut counters, |buffer| {
                assert!(!kernel.queue.is_empty(), "asked for once");
                recv(&mut kernel.queue, buffer)
            }));
        }
        assert_eq!(rx.lend(&mut counters, |frame, _| frame.to_vec()), vec![9; 700]);
        assert_eq!(counters.rx_frames, 1);
    }
}

#[test]
fn a_kernel_that_loses_frames_is_heard_once() {
    for kind in KINDS {
        let (mut kernel, mut rx) = kind.pair(1000);
        let mut counters = Counters::default();
        kernel.deliver(&[1; 60], libc::TP_STATUS_LOSING);
        assert!(!rx.take_losing());
        assert!(take(&mut rx, &mut kernel, &mut counters).is_some());
        assert!(rx.take_losing() && !rx.take_losing());
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(KINDS.to_vec())
}

proptest! {
    /// The ring is a queue: whatever the order of deliveries and takes, what comes out is what went
    /// in, and only a full ring refuses.
    #[test]
    fn it_is_a_fifo(kind in kinds(), steps in prop::collection::vec((any::<bool>(), 1..1200usize), 1..200)) {
        let (mut kernel, mut rx) = kind.pair(1200);
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
                prop_assert_eq!(rx.has_frame(), !oracle.is_empty());
                prop_assert_eq!(take(&mut rx, &mut kernel, &mut counters), oracle.pop_front());
            }
        }
    }

    /// Any header: no panic, no frame that leaves the slot, and the next good frame is still found.
    #[test]
    fn any_header_is_survived(
        kind in kinds(), len: u32, snaplen: u32, mac: u16, flags: u32, virtio: [u8; 10], bytes: [u8; 64],
    ) {
        let (mut kernel, mut rx) = kind.pair(1200);
        let mut counters = Counters::default();
        kernel.virtio = virtio;
        kernel.raw(len, snaplen, mac, &bytes, flags & !libc::TP_STATUS_USER);
        kernel.virtio = [0; 10];
        kernel.deliver(&[1; 60], 0);
        let mut last = Vec::new();
        while let Some(frame) = take(&mut rx, &mut kernel, &mut counters) {
            prop_assert!(frame.len() <= GEOMETRY.slot_size);
            last = frame;
        }
        prop_assert_eq!(last, vec![1; 60]);
        prop_assert!(!rx.has_frame());
    }
}
