//! Our way of splitting a frame against the kernel's: the same super-frame, split by both.

use std::collections::HashMap;
use std::num::NonZeroU16;

use smoltcp::time::Duration;
use wirestack_apps::testbed::{VethEnd, Wire};
use wirestack_nic::meta::{Gso, GsoKind};
use wirestack_nic::offload::{Layout, Segments, checksum};
use wirestack_nic::{AfPacket, AfPacketConfig, FrameMeta, Nic, wait};
use wirestack_tests::runner::{Case, Outcome, veth_test};

use crate::support::{LONG, noise};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![veth_test("segment::pieces_are_those_of_the_kernel", pieces_are_those_of_the_kernel)]
}

/// What a super-frame is made of.
#[derive(Debug, Clone, Copy)]
struct Plan {
    kind: GsoKind,
    is_v6: bool,
    is_tagged: bool,
    tcp_flags: u8,
    payload_len: usize,
    size: u16,
}

fn plans() -> Vec<Plan> {
    let tcp_v4 = Plan {
        kind: GsoKind::TcpV4,
        is_v6: false,
        is_tagged: false,
        tcp_flags: 0x18,
        payload_len: 10_000,
        size: 1448,
    };
    let all_flags = Plan { tcp_flags: 0xf9, payload_len: 4 * 1448, ..tcp_v4 };
    let tcp_v6 = Plan { kind: GsoKind::TcpV6, is_v6: true, tcp_flags: 0x99, size: 1000, ..tcp_v4 };
    let udp_v4 = Plan { kind: GsoKind::Udp, ..tcp_v4 };
    let plain = [
        tcp_v4,
        all_flags,
        tcp_v6,
        udp_v4,
        Plan { is_v6: true, size: 1399, ..udp_v4 },
        Plan { size: 536, payload_len: 60_000, ..tcp_v4 },
        Plan { size: 1, payload_len: 100, ..tcp_v4 },
        Plan { size: 1, payload_len: 100, ..udp_v4 },
        // Not longer than one segment: nothing to split, but a checksum to fill in.
        Plan { payload_len: 1448, ..tcp_v4 },
        Plan { payload_len: 1, ..udp_v4 },
    ];
    let tagged = plain.map(|plan| Plan { is_tagged: true, ..plan });
    plain.into_iter().chain(tagged).collect()
}

/// The frame to a group of stations, so that no kernel takes it for its own; `mark` is its source port.
fn super_frame(plan: &Plan, mark: u16) -> (Vec<u8>, FrameMeta) {
    let payload = noise(mark.into(), plan.payload_len);
    let transport = if plan.kind == GsoKind::Udp {
        let len = (8 + payload.len()) as u16;
        [&mark.to_be_bytes()[..], &[0, 9], &len.to_be_bytes(), &[0, 0], &payload].concat()
    } else {
        let head = [0, 9, 0xff, 0xff, 0xf0, 0, 1, 2, 3, 4, 0x80, plan.tcp_flags, 2, 0, 0, 0, 0, 7];
        let timestamps = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        [&mark.to_be_bytes()[..], &head, &timestamps, &payload].concat()
    };
    let number = if plan.kind == GsoKind::Udp { 17 } else { 6 };
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    if plan.is_tagged {
        frame.extend([0x81, 0, 0, 7]);
    }
    if plan.is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0x0a, 0xbc, 0xde]);
        frame.extend((transport.len() as u16).to_be_bytes());
        frame.extend([number, 64]);
        for host in [1, 2] {
            frame.extend([0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
    } else {
        frame.extend([8, 0, 0x45, 2]);
        frame.extend((20 + transport.len() as u16).to_be_bytes());
        // Of the checksum of this header nobody needs to know: each piece has its own.
        frame.extend([0xff, 0xfe, 0x40, 0, 64, number, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
        let header = frame.len() - 20;
        let sum = !wirestack_nic::offload::sum::data(&frame[header..]);
        frame[header + 10..header + 12].copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend(transport);
    let layout = Layout::of_frame(&frame).expect("a whole frame");
    let absent = checksum::leave_out(&mut frame, &layout).expect("TCP or UDP");
    let gso = Gso {
        kind: plan.kind,
        size: NonZeroU16::new(plan.size).expect("not 0"),
        ecn: plan.kind != GsoKind::Udp && plan.tcp_flags & 0x80 != 0,
    };
    let is_long = plan.payload_len > plan.size.into();
    (frame, FrameMeta { checksum: absent, gso: is_long.then_some(gso), ..FrameMeta::default() })
}

fn pieces(frame: &[u8], meta: &FrameMeta) -> Vec<Vec<u8>> {
    let segments = Segments::new(frame, meta);
    let piece = |index| {
        let mut piece = vec![0; segments.frame_len(index)];
        segments.write(index, &mut piece);
        piece
    };
    (0..segments.count()).map(piece).collect()
}

fn open(end: &VethEnd) -> AfPacket<'static> {
    end.namespace().run(|| AfPacket::open(end.name(), AfPacketConfig::default())).expect("the device opens")
}

fn pieces_are_those_of_the_kernel(wire: &Wire) -> Outcome {
    let (mut sender, mut receiver) = (open(wire.ours()), open(wire.peer()));
    let mut by_mark: HashMap<u16, Vec<Vec<u8>>> = HashMap::new();
    let mut split_by_kernel = 0;
    for (mark, plan) in (5000..).zip(plans()) {
        let (frame, meta) = super_frame(&plan, mark);
        let expected = pieces(&frame, &meta);
        let sent = sender.transmit_with(wait::now(), frame.len(), &meta, |room| room.copy_from_slice(&frame));
        assert!(sent.is_some(), "room for {plan:?}");
        sender.flush()?;
        let deadline = wait::now() + Duration::from(LONG);
        let mut whole = 0;
        while by_mark.entry(mark).or_default().len() < expected.len() {
            assert!(
                wait::now() < deadline,
                "{} of {} pieces of {plan:?}",
                by_mark[&mark].len(),
                expected.len()
            );
            let received = receiver.receive_with(wait::now(), |frame, meta| (frame.to_vec(), *meta));
            let Some((frame, meta)) = received else {
                receiver.wait(Some(deadline))?;
                continue;
            };
            // The kernels at both ends talk as well.
            let Some(layout) = Layout::of_frame(&frame) else { continue };
            let source = u16::from_be_bytes([frame[layout.transport], frame[layout.transport + 1]]);
            let Some(received) = by_mark.get_mut(&source) else { continue };
            whole += usize::from(meta.gso.is_some());
            // What the kernel left to be done, of a super-frame or of one piece, is done here.
            received.extend(pieces(&frame, &meta));
        }
        let received = &by_mark[&mark];
        for (index, (received, expected)) in received.iter().zip(&expected).enumerate() {
            assert_eq!(received, expected, "piece {index} of {plan:?}");
        }
        assert_eq!(received.len(), expected.len(), "pieces of {plan:?}");
        if whole == 0 && expected.len() > 1 {
            split_by_kernel += 1;
        }
    }
    let splits_here = sender.counters().tx_segmented;
    assert_eq!(splits_here, 0, "the device left it all to the kernel");
    let expected = if wire.ours().offloads()?.is_all() { 0 } else { 16 };
    assert_eq!(split_by_kernel, expected, "frames that the kernel split");
    Ok(())
}
