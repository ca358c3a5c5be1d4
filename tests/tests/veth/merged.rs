//! Merged frames at the seams: datagrams that are lent one by one, checksums that were filled in, and a ring
//! of blocks that is full.

use std::num::NonZeroU16;

use smoltcp::phy::{Device, RxToken};
use smoltcp::time::Duration;
use wirestack_apps::testbed::Wire;
use wirestack_nic::geometry::RingGeometry;
use wirestack_nic::meta::{ChecksumState, Gso, GsoKind};
use wirestack_nic::offload::{Layout, Segments, fill_checksum};
use wirestack_nic::{AfPacket, AfPacketConfig, FrameMeta, Nic, TpacketVersion, Wake, wait};
use wirestack_tests::runner::{Case, Outcome, veth_test};

use crate::modes::{frame, open, receive, send, super_frame};
use crate::support::LONG;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("merged::datagrams_are_lent_one_by_one", one_by_one),
        veth_test("merged::a_whole_checksum_is_left_out_for_the_device", whole_checksum),
        veth_test("merged::a_full_ring_of_blocks_is_counted", full_blocks),
    ]
}

/// Three datagrams of UDP in one frame, to port 9.
fn datagrams() -> (Vec<u8>, FrameMeta) {
    let mut frame = vec![7; 42 + 3000];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let total = (frame.len() - 14) as u16;
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[34..42].copy_from_slice(&[0x12, 0x34, 0, 9, 0, 0, 0, 0]);
    frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    let layout = Layout::of_frame(&frame).expect("UDP");
    let checksum = wirestack_nic::offload::checksum::leave_out(&mut frame, &layout).expect("UDP");
    let size = NonZeroU16::new(1000).expect("not 0");
    (
        frame,
        FrameMeta {
            checksum,
            gso: Some(Gso { kind: GsoKind::Udp, size, ecn: false }),
            ..FrameMeta::default()
        },
    )
}

fn is_datagram(frame: &[u8]) -> bool {
    frame.get(23) == Some(&17) && frame.get(36..38) == Some(&[0, 9])
}

/// The first datagram by a token: the others neither let a loop sleep, nor get lost to a caller who asks in
/// another way.
fn one_by_one(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), AfPacketConfig::default());
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let (frame, meta) = datagrams();
    send(&mut peer, &frame, &meta)?;
    peer.flush()?;
    let deadline = wait::now() + Duration::from(LONG);
    let mut lens = Vec::new();
    while lens.is_empty() {
        assert!(ours.wait(Some(deadline))? != Wake::Deadline, "nothing came");
        while lens.is_empty()
            && let Some((token, _)) = ours.receive(wait::now())
        {
            token.consume(|frame| lens.extend(is_datagram(frame).then_some(frame.len())));
        }
    }
    while lens.len() < 3 {
        assert_eq!(ours.wait(Some(deadline))?, Wake::Ready, "{lens:?}: there is more");
        let len = ours.receive_with(wait::now(), |frame, _| is_datagram(frame).then_some(frame.len()));
        lens.extend(len.flatten());
    }
    assert_eq!(lens, [1042; 3]);
    Ok(())
}

/// The kernel splits only what has no checksum yet, and a sender may not know that.
fn whole_checksum(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), AfPacketConfig::default());
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for state in [ChecksumState::Complete, ChecksumState::Verified] {
        let (mut frame, meta) = super_frame(2000, 9000);
        assert!(fill_checksum(&mut frame));
        send(&mut peer, &frame, &FrameMeta { checksum: state, ..meta })?;
        peer.flush()?;
        let mut payload_len = 0;
        while payload_len < 9000 {
            let is_it = |frame: &[u8]| frame.get(34..36) == Some(&2000u16.to_be_bytes());
            let (got, meta) = receive(&mut ours, is_it).expect("it comes, whole or in pieces");
            assert!(meta.checksum != ChecksumState::Complete, "{state:?}: verified, or absent");
            assert_eq!(Segments::new(&got, &meta).count(), got.len().div_ceil(1454).max(1), "{meta:?}");
            payload_len += got.len() - 54;
        }
        assert_eq!((payload_len, ours.counters().rx_bad_checksum), (9000, 0), "{state:?}");
    }
    Ok(())
}

fn full_blocks(wire: &Wire) -> Outcome {
    let ring = RingGeometry { block_size: 4096, block_count: 2, slot_size: 2048, slot_count: 4 };
    let config = AfPacketConfig {
        version: TpacketVersion::V3,
        rx_rings: vec![ring].into(),
        ..AfPacketConfig::default()
    };
    let mut ours = open(wire.ours(), config);
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let count = |nic: &mut AfPacket<'_>| (nic.counters().rx_freezes, nic.counters().rx_ring_full);
    assert_eq!(count(&mut ours), (0, 0));
    for number in 0..50 {
        send(&mut peer, &frame(number, 1400), &FrameMeta::default())?;
    }
    peer.flush()?;
    // Nobody reads, so the blocks stay full.
    let deadline = wait::now() + Duration::from(LONG);
    while count(&mut ours).0 == 0 {
        assert!(wait::now() < deadline, "{}", ours.counters());
        std::thread::yield_now();
    }
    assert!(count(&mut ours).1 > 0, "{}", ours.counters());
    Ok(())
}
