//! Receiving without a ring, from a kernel that is the test itself.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::test_frames::{tcp, udp};
use super::*;
use crate::config::VlanTags;
use crate::meta::{ChecksumState, TimestampSource};

/// The socket's queue: frames with their virtio_net_hdr, and what is told beside them.
#[derive(Default)]
struct Kernel {
    queue: VecDeque<(Vec<u8>, Received)>,
    calls: u64,
    error: Option<i32>,
}

fn receiver(vnet_hdr: bool) -> RxRecv {
    RxRecv::new(RxOptions {
        vnet_hdr,
        verify_checksums: true,
        vlan_tags: VlanTags::PutBack,
        outgoing: false,
        frame_len_max: 1514,
    })
}

impl Kernel {
    fn deliver(&mut self, vnet_hdr: bool, frame: &[u8], facts: Received) {
        let virtio = if vnet_hdr { &[0; abi::VNET_HDR_LEN][..] } else { &[] };
        let entry = [virtio, frame].concat();
        let wire_len = facts.wire_len.max(frame.len());
        let facts = Received { len: entry.len(), wire_len, ..facts };
        self.queue.push_back((entry, facts));
    }

    /// One recvmmsg.
    fn receive(&mut self, buffers: &mut [&mut [u8]], facts: &mut [Received; BATCH_LEN]) -> io::Result<usize> {
        self.calls += 1;
        if let Some(error) = self.error.take() {
            return Err(io::Error::from_raw_os_error(error));
        }
        if self.queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut count = 0;
        for (buffer, facts) in buffers.iter_mut().zip(facts) {
            let Some((entry, told)) = self.queue.pop_front() else { break };
            let fits = entry.len().min(buffer.len());
            buffer[..fits].copy_from_slice(&entry[..fits]);
            *facts = told;
            count += 1;
        }
        Ok(count)
    }
}

fn take(rx: &mut RxRecv, kernel: &mut Kernel, counters: &mut Counters) -> Option<(Vec<u8>, FrameMeta)> {
    rx.find(counters, |buffers, facts| kernel.receive(buffers, facts))
        .then(|| rx.lend(counters, |frame, meta| (frame.to_vec(), *meta)))
}

#[test]
fn a_burst_takes_one_call_a_batch() {
    for vnet_hdr in [false, true] {
        let (mut rx, mut kernel, mut counters) = (receiver(vnet_hdr), Kernel::default(), Counters::default());
        assert!(!rx.has_frame() && take(&mut rx, &mut kernel, &mut counters).is_none());
        for number in 0..150u8 {
            kernel.deliver(vnet_hdr, &[number; 60], Received::default());
        }
        for number in 0..150u8 {
            let (frame, _) = take(&mut rx, &mut kernel, &mut counters).expect("delivered");
            assert_eq!(frame, [number; 60]);
        }
        assert_eq!((counters.rx_frames, counters.rx_bytes), (150, 150 * 60));
        // One before they came, and then 4, 8, 16, 32, 64 and the rest.
        assert_eq!((counters.rx_calls, kernel.calls), (7, 7));
        assert!(take(&mut rx, &mut kernel, &mut counters).is_none());
        assert_eq!(kernel.calls, 7, "the last had less than it was asked for, so there is nothing");
        assert!(take(&mut rx, &mut kernel, &mut counters).is_none());
        assert_eq!(kernel.calls, 8);
    }
}

#[test]
fn what_is_told_beside_a_frame_is_known_of_it() {
    for vnet_hdr in [false, true] {
        let (mut rx, mut kernel, mut counters) = (receiver(vnet_hdr), Kernel::default(), Counters::default());
        let facts = Received {
            status: libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID,
            vlan_tci: 7,
            vlan_tpid: 0x88a8,
            timestamp_nanos: 99,
            ..Received::default()
        };
        let whole = tcp(1400);
        kernel.deliver(vnet_hdr, &whole, facts);
        kernel.deliver(vnet_hdr, &whole, Received { packet_type: libc::PACKET_OUTGOING, ..facts });
        let (frame, meta) = take(&mut rx, &mut kernel, &mut counters).expect("delivered");
        assert_eq!(frame, [&whole[..12], &[0x88, 0xa8, 0, 7], &whole[12..]].concat());
        assert_eq!(meta.checksum, ChecksumState::Verified);
        let stamp = meta.timestamp.expect("told");
        assert_eq!((stamp.nanos, stamp.source), (99, TimestampSource::Ring));
        assert_eq!(take(&mut rx, &mut kernel, &mut counters), None, "our own");
    }
}

#[test]
fn cut_and_wrong_frames_are_counted_and_skipped() {
    for vnet_hdr in [false, true] {
        let (mut rx, mut kernel, mut counters) = (receiver(vnet_hdr), Kernel::default(), Counters::default());
        kernel.deliver(vnet_hdr, &[1; BUFFER_LEN + 1], Received::default());
        kernel.deliver(vnet_hdr, &[2; 60], Received { wire_len: 100, ..Received::default() });
        let mut bad = udp(100);
        bad[60] ^= 1;
        kernel.deliver(vnet_hdr, &bad, Received::default());
        kernel.queue.push_back((vec![3; 4], Received { len: 4, ..Received::default() }));
        kernel.queue.push_back((vec![3; 4], Received { len: usize::MAX, ..Received::default() }));
        kernel.deliver(vnet_hdr, &[9; 60], Received::default());
        let mut last = None;
        while let Some((frame, _)) = take(&mut rx, &mut kernel, &mut counters) {
            last = Some(frame);
        }
        assert_eq!(last, Some(vec![9; 60]));
        assert_eq!((counters.rx_truncated, counters.rx_bad_checksum), (3, 1));
        assert_eq!(counters.rx_malformed, u64::from(vnet_hdr), "no room for its virtio_net_hdr");
    }
}

#[test]
fn an_error_of_the_socket_costs_no_frame() {
    let (mut rx, mut kernel, mut counters) = (receiver(true), Kernel::default(), Counters::default());
    kernel.error = Some(libc::ENETDOWN);
    kernel.deliver(true, &[9; 60], Received::default());
    assert_eq!(take(&mut rx, &mut kernel, &mut counters), None);
    assert_eq!(take(&mut rx, &mut kernel, &mut counters).map(|(frame, _)| frame), Some(vec![9; 60]));
}

#[test]
fn a_token_that_is_not_used_loses_nothing() {
    let (mut rx, mut kernel, mut counters) = (receiver(true), Kernel::default(), Counters::default());
    kernel.deliver(true, &[9; 60], Received::default());
    for _ in 0..3 {
        assert!(rx.find(&mut counters, |buffers, facts| kernel.receive(buffers, facts)));
        assert!(rx.has_frame() && rx.meta().is_some());
    }
    assert_eq!(take(&mut rx, &mut kernel, &mut counters).map(|(frame, _)| frame), Some(vec![9; 60]));
    assert!(!rx.has_frame());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The queue stays a queue, and whatever is told of a frame, nothing panics.
    #[test]
    fn it_is_a_fifo(
        vnet_hdr: bool,
        steps in prop::collection::vec((any::<bool>(), 1..300usize, any::<u32>(), 0..4u8), 1..200),
    ) {
        let (mut rx, mut kernel, mut counters) = (receiver(vnet_hdr), Kernel::default(), Counters::default());
        let mut oracle = VecDeque::new();
        for (number, (deliver, len, status, kind)) in steps.into_iter().enumerate() {
            if deliver && kind == 0 {
                let facts = Received { len, status, ..Received::default() };
                kernel.queue.push_back((vec![0xff; len / 2], facts));
            } else if deliver {
                let frame = vec![number as u8; len];
                kernel.deliver(vnet_hdr, &frame, Received::default());
                oracle.push_back(frame);
            } else if let Some((frame, _)) = take(&mut rx, &mut kernel, &mut counters)
                && oracle.front() == Some(&frame)
            {
                oracle.pop_front();
            }
        }
        // Behind a batch that was not full, it is looked for more only when asked again.
        for _ in 0..2 {
            while let Some((frame, _)) = take(&mut rx, &mut kernel, &mut counters) {
                if oracle.front() == Some(&frame) { oracle.pop_front(); }
            }
        }
        prop_assert!(oracle.is_empty());
    }
}
