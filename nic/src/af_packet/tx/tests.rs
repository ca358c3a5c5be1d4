//! What is handed on of a frame, and what is done here.

use std::sync::Arc;

use super::super::test_frames::{TCP_HEADERS_LEN, tcp, tcp_over_ipv6, udp};
use super::*;
use crate::RingGeometry;
use crate::config::TpacketVersion;
use crate::offload;
use crate::shm::{Region, Side, SlotRing};

const FRAME_LEN_MAX: usize = 1514;

fn send_queue() -> Queue {
    Queue::Send(TxSend::new(1 << 20))
}

/// A ring of this many slots for frames of the MTU, and the kernel's view of it.
fn ring_queue(slots: usize) -> (Queue, SlotRing) {
    let geometry =
        RingGeometry { block_size: 2048 * slots, block_count: 1, slot_size: 2048, slot_count: slots };
    let region = Arc::new(Region::heap(geometry.memory()));
    let ring = || SlotRing::new(region.clone(), 0, geometry, Side::Tx, TpacketVersion::V2);
    (Queue::Ring(TxRing::new(ring(), TpacketVersion::V2, None)), ring())
}

/// The entries that were queued, without the kernel's help: as it would take them.
fn drain(tx: &mut Tx, counters: &mut Counters) -> Vec<Vec<u8>> {
    let Queue::Send(send) = &mut tx.queue else { panic!("a queue of entries in memory") };
    let mut wire = Vec::new();
    send.flush(counters, 0, |entries| {
        let before = wire.len();
        wire.extend(entries.map(<[u8]>::to_vec));
        Ok(wire.len() - before)
    })
    .expect("all is taken");
    wire
}

/// The one entry that a frame becomes.
fn entry(vnet_hdr: bool, frame: &[u8], work: Work) -> Vec<u8> {
    let (mut tx, mut counters) = (Tx::new(send_queue(), vnet_hdr, FRAME_LEN_MAX), Counters::default());
    tx.write(&mut counters, frame.len(), work, |room| room.copy_from_slice(frame));
    let mut wire = drain(&mut tx, &mut counters);
    assert_eq!(wire.len(), 1);
    wire.remove(0)
}

fn size(size: u16) -> Option<NonZeroU16> {
    NonZeroU16::new(size)
}

fn without_checksum(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let layout = Layout::of_frame(&frame).expect("known");
    let field = layout.transport + layout.protocol.checksum_offset();
    frame[field..field + 2].fill(0);
    frame
}

/// What a receiver reads of an entry, with its checksum completed as a device would.
fn received(entry: &[u8]) -> (FrameMeta, Vec<u8>) {
    let (header, frame) = entry.split_at(VNET_HDR_LEN);
    let meta = virtio::decode(header, frame.len()).expect("a header of our own");
    let mut frame = frame.to_vec();
    if let ChecksumState::Partial { start, offset } = meta.checksum {
        assert!(checksum::complete(&mut frame, start, offset));
    }
    (meta, frame)
}

#[test]
fn checksums_of_tcp_are_left_to_the_device() {
    for (whole, start) in [(tcp(100), 34), (tcp_over_ipv6(100), 54)] {
        let (meta, frame) = received(&entry(true, &without_checksum(&whole), Work::Stack(None)));
        assert_eq!(meta.checksum, ChecksumState::Partial { start, offset: 16 });
        assert_eq!((meta.gso, frame), (None, whole));
    }
    // The stack fills in those of UDP, and knows no others.
    for whole in [udp(100), vec![7; 60]] {
        let entry = entry(true, &whole, Work::Stack(None));
        assert_eq!(entry, [&[0; 10][..], &whole].concat());
    }
}

#[test]
fn splitting_is_left_to_the_device() {
    for (whole, kind, header_len) in [
        (tcp(5000), GsoKind::TcpV4, TCP_HEADERS_LEN),
        (tcp_over_ipv6(5000), GsoKind::TcpV6, TCP_HEADERS_LEN + 20),
    ] {
        let entry = entry(true, &without_checksum(&whole), Work::Stack(size(1400)));
        assert_eq!(entry[2..4], (header_len as u16).to_ne_bytes(), "the headers are all of the linear part");
        let (meta, frame) = received(&entry);
        assert_eq!(meta.gso, size(1400).map(|size| Gso { kind, size, ecn: false }));
        assert_eq!(frame, whole);
    }
}

#[test]
fn what_is_told_is_handed_on() {
    let gso = |kind| Some(Gso { kind, size: size(1000).expect("not 0"), ecn: false });
    for (whole, gso) in [
        (udp(100), None),
        (udp(5000), gso(GsoKind::Udp)),
        (tcp(5000), gso(GsoKind::TcpV4)),
        (tcp_over_ipv6(5000), gso(GsoKind::TcpV6)),
    ] {
        let layout = Layout::of_frame(&whole).expect("known");
        let mut partial = whole.clone();
        let checksum = checksum::leave_out(&mut partial, &layout).expect("known");
        let told = FrameMeta { checksum, gso, ..FrameMeta::default() };
        let (meta, frame) = received(&entry(true, &partial, Work::Told(told)));
        assert_eq!((meta, frame), (told, whole.clone()));
        // What has its checksum already keeps it, unless it is to be split.
        for checksum in [ChecksumState::Complete, ChecksumState::Verified] {
            let told = FrameMeta { checksum, gso, ..FrameMeta::default() };
            let entry = entry(true, &whole, Work::Told(told));
            let (meta, frame) = received(&entry);
            assert_eq!((meta.gso, frame), (gso, whole.clone()), "{checksum:?}");
            assert!(gso.is_some() || entry[..10] == [0; 10]);
        }
    }
}

#[test]
fn without_a_virtio_header_checksums_are_filled_in_here() {
    for whole in [tcp(100), tcp_over_ipv6(100)] {
        assert_eq!(entry(false, &without_checksum(&whole), Work::Stack(None)), whole);
        // One that is to be split and needs it not.
        assert_eq!(entry(false, &without_checksum(&whole), Work::Stack(size(1400))), whole);
    }
    for whole in [udp(100), tcp(100)] {
        let layout = Layout::of_frame(&whole).expect("known");
        let mut partial = whole.clone();
        let checksum = checksum::leave_out(&mut partial, &layout).expect("known");
        let told = FrameMeta { checksum, ..FrameMeta::default() };
        assert_eq!(entry(false, &partial, Work::Told(told)), whole);
        assert_eq!(entry(false, &whole, Work::Told(FrameMeta::default())), whole);
    }
}

/// Pieces that verify, and whose payloads are the frame's.
fn check_pieces(pieces: &[Vec<u8>], whole: &[u8], len_max: usize) {
    let headers = Layout::of_frame(whole).expect("known").payload;
    let mut payload = Vec::new();
    for piece in pieces {
        assert!(piece.len() <= len_max);
        let layout = Layout::of_frame(piece).expect("known");
        assert_eq!(checksum::verify(piece, &layout), checksum::Verdict::Right);
        payload.extend_from_slice(&piece[layout.payload..layout.end]);
    }
    assert_eq!(payload, &whole[headers..]);
}

#[test]
fn without_a_virtio_header_frames_are_split_here() {
    for (whole, work) in [
        (tcp(60_000), Work::Stack(size(1400))),
        (tcp_over_ipv6(60_000), Work::Stack(size(1400))),
        (udp(60_000), Work::Told(FrameMeta { gso: udp_gso(1400), ..FrameMeta::default() })),
    ] {
        let (mut tx, mut counters) = (Tx::new(send_queue(), false, FRAME_LEN_MAX), Counters::default());
        assert!(tx.gso_len_max().is_some() && tx.has_room());
        tx.write(&mut counters, whole.len(), work, |room| room.copy_from_slice(&whole));
        let pieces = drain(&mut tx, &mut counters);
        assert_eq!(pieces.len(), 60_000usize.div_ceil(1400));
        check_pieces(&pieces, &whole, FRAME_LEN_MAX);
        assert_eq!((counters.tx_segmented, counters.tx_oversize), (1, 0));
    }
}

fn udp_gso(len: u16) -> Option<Gso> {
    size(len).map(|size| Gso { kind: GsoKind::Udp, size, ecn: false })
}

/// However small a ring and however many pieces: those for which there is no room wait.
#[test]
fn pieces_without_room_wait_for_it() {
    let (ring, mut kernel) = ring_queue(4);
    for queue in [ring, Queue::Send(TxSend::new(8192))] {
        let (mut tx, mut counters) = (Tx::new(queue, false, FRAME_LEN_MAX), Counters::default());
        let whole = tcp(30_000);
        let work = Work::Stack(size(536));
        tx.write(&mut counters, whole.len(), work, |room| room.copy_from_slice(&whole));
        assert!(!tx.has_room(), "nothing may overtake what is left");
        let mut pieces = Vec::new();
        let mut rounds = 0;
        while tx.queued() > 0 {
            take(&mut tx.queue, &mut kernel, &mut pieces, &mut counters);
            assert_eq!(tx.has_room(), tx.rest.is_none(), "a free slot is for what is left");
            assert!(tx.queue_rest(&mut counters) || tx.rest.is_none());
            rounds += 1;
            assert!(rounds < 100);
        }
        assert!(tx.has_room());
        assert_eq!(pieces.len(), 30_000usize.div_ceil(536));
        check_pieces(&pieces, &whole, 600);
        assert_eq!((counters.tx_oversize, counters.tx_segmented), (0, 1));
    }
}

/// A kernel that takes all that is queued.
fn take(queue: &mut Queue, kernel: &mut SlotRing, wire: &mut Vec<Vec<u8>>, counters: &mut Counters) {
    match queue {
        Queue::None => {}
        Queue::Send(send) => {
            let result = send.flush(counters, 0, |entries| {
                let before = wire.len();
                wire.extend(entries.map(<[u8]>::to_vec));
                Ok(wire.len() - before)
            });
            result.expect("taken");
        }
        Queue::Ring(ring) => {
            let result = ring.flush(counters, 0, || {
                take_slots(kernel, wire);
                Ok(0)
            });
            result.expect("taken");
        }
    }
}

fn take_slots(kernel: &mut SlotRing, wire: &mut Vec<Vec<u8>>) {
    let count = kernel.len();
    // The oldest is behind the one that was taken last.
    let first = wire.len() % count;
    for index in (first..count).chain(0..first) {
        let Some(slot) = kernel.claim(index) else { continue };
        if slot.status() == libc::TP_STATUS_SEND_REQUEST {
            let len = slot.get(4..8).expect("tp_len").try_into().map_or(0, u32::from_ne_bytes) as usize;
            wire.push(slot.get(32..32 + len).expect("an entry").to_vec());
            slot.release(libc::TP_STATUS_AVAILABLE);
        }
    }
}

#[test]
fn what_nothing_can_hold_is_counted() {
    for vnet_hdr in [false, true] {
        let (mut tx, mut counters) = (Tx::new(ring_queue(4).0, vnet_hdr, FRAME_LEN_MAX), Counters::default());
        let len = tx.write(&mut counters, 5000, Work::Stack(None), |room| room.len());
        assert_eq!((len, counters.tx_oversize, tx.queued()), (5000, 1, 0));
    }
    let (mut tx, mut counters) = (Tx::new(Queue::None, true, FRAME_LEN_MAX), Counters::default());
    assert!(!tx.has_room() && tx.gso_len_max().is_none());
    assert_eq!(tx.write(&mut counters, 60, Work::Stack(None), |room| room.len()), 60);
    tx.drop_oldest(&mut counters);
    assert_eq!((tx.queued(), counters.tx_rejected), (0, 0));
    // Pieces that are longer than a slot.
    let (mut tx, mut counters) = (Tx::new(ring_queue(4).0, false, FRAME_LEN_MAX), Counters::default());
    let whole = tcp(9500);
    tx.write(&mut counters, whole.len(), Work::Stack(size(4000)), |room| room.copy_from_slice(&whole));
    assert_eq!((counters.tx_oversize, tx.queued()), (2, 1), "two of 4 000 bytes, one of 1 500 that fits");
}

#[test]
fn headers_are_never_read_past_a_short_frame() {
    for len in 0..60 {
        let whole = &tcp(10)[..len.min(60)];
        for work in [
            Work::Stack(None),
            Work::Stack(size(1)),
            Work::Told(FrameMeta { gso: udp_gso(1), ..FrameMeta::default() }),
            Work::Told(FrameMeta {
                checksum: ChecksumState::Partial { start: 60, offset: 60 },
                ..FrameMeta::default()
            }),
        ] {
            assert_eq!(entry(true, whole, work).len(), VNET_HDR_LEN + len);
            assert_eq!(entry(false, whole, work).len(), len);
        }
    }
    assert!(!offload::fill_checksum(&mut [0; 10]));
}

/// Room is promised without a word on the length: a tagged frame of the MTU must find it too.
#[test]
fn room_is_room_for_a_tagged_frame() {
    let queue = Queue::Send(TxSend::new(1536 + FRAME_LEN_MAX + 2));
    let (mut tx, mut counters) = (Tx::new(queue, false, FRAME_LEN_MAX), Counters::default());
    let plain = Work::Told(FrameMeta::default());
    let mut sent = 0;
    while tx.has_room() {
        tx.write(&mut counters, FRAME_LEN_MAX + VLAN_TAG_LEN, plain, |_| ());
        sent += 1;
    }
    assert_eq!((sent, tx.queued(), counters.tx_oversize), (1, 1, 0));
}
