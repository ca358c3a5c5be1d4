//! Both ends on one thread, and on two.

use std::collections::VecDeque;
use std::thread;

use proptest::prelude::*;
use smoltcp::phy::{RxToken as _, TxToken as _};
use smoltcp::time::Duration;

use super::*;
use crate::offload::segment::tests::super_frame;

const NOW: Instant = Instant::ZERO;

fn pair(queue_len: usize) -> (Loopback<'static>, Loopback<'static>) {
    Loopback::pair(&LoopbackConfig { queue_len, ..LoopbackConfig::default() }).expect("a pair")
}

fn send(end: &mut Loopback<'_>, frame: &[u8]) -> bool {
    end.transmit(NOW).map(|token| token.consume(frame.len(), |room| room.copy_from_slice(frame))).is_some()
}

fn receive(end: &mut Loopback<'_>) -> Option<Vec<u8>> {
    end.receive(NOW).map(|(token, _)| token.consume(<[u8]>::to_vec))
}

/// Receives a frame and answers with one. `None`: there was none.
fn answer(end: &mut Loopback<'_>, frame: &[u8]) -> Option<Vec<u8>> {
    end.receive(NOW).map(|(rx, tx)| {
        rx.consume(|received| {
            tx.consume(frame.len(), |room| {
                room.copy_from_slice(frame);
                received.to_vec()
            })
        })
    })
}

fn soon() -> Option<Instant> {
    Some(wait::now() + Duration::from_secs(10))
}

#[test]
fn what_one_sends_the_other_receives_in_order() {
    let (mut a, mut b) = pair(4);
    assert!(send(&mut a, b"one") && send(&mut a, b"two") && send(&mut b, b"back"));
    assert_eq!(receive(&mut b).as_deref(), Some(&b"one"[..]));
    assert_eq!(receive(&mut b).as_deref(), Some(&b"two"[..]));
    assert_eq!(receive(&mut b), None);
    assert_eq!(receive(&mut a).as_deref(), Some(&b"back"[..]));
    let (sent, received) = (a.counters(), b.counters());
    assert_eq!((sent.tx_frames, sent.tx_bytes, sent.rx_frames, sent.rx_bytes), (2, 6, 1, 4));
    assert_eq!((received.tx_frames, received.tx_bytes, received.rx_frames, received.rx_bytes), (1, 4, 2, 6));
}

#[test]
fn a_token_that_is_dropped_leaves_the_frame() {
    let (mut a, mut b) = pair(4);
    send(&mut a, b"one");
    assert!(b.receive(NOW).is_some());
    assert!(b.transmit(NOW).is_some());
    assert_eq!(receive(&mut b).as_deref(), Some(&b"one"[..]));
    assert_eq!(receive(&mut a), None);
    assert_eq!((b.counters().rx_frames, b.counters().tx_frames), (1, 0));
}

#[test]
fn metadata_arrives_with_its_frame() {
    let (mut a, mut b) = pair(4);
    for size in [1000, 2000] {
        let mut meta = PacketMeta::default();
        meta.segmentation_offload_size = std::num::NonZeroU16::new(size);
        let mut token = a.transmit(NOW).expect("room");
        token.set_meta(meta);
        token.consume(60, |_| ());
    }
    for size in [1000, 2000] {
        let (token, _) = b.receive(NOW).expect("a frame");
        assert_eq!(token.meta().segmentation_offload_size.map(u16::from), Some(size));
        token.consume(|_| ());
    }
}

#[test]
fn a_full_pipe_is_back_pressure_and_not_loss() {
    let (mut a, mut b) = pair(2);
    assert!(send(&mut a, b"1") && send(&mut a, b"2") && !send(&mut a, b"3"));
    assert_eq!((a.counters().tx_ring_full, a.counters().tx_frames), (1, 2));
    // An answer would have no room: the frame waits.
    send(&mut b, b"x");
    assert_eq!(receive(&mut a), None);
    assert_eq!(receive(&mut b).as_deref(), Some(&b"1"[..]));
    assert_eq!(answer(&mut a, b"3").as_deref(), Some(&b"x"[..]));
    assert_eq!([receive(&mut b), receive(&mut b)].map(Option::unwrap), [b"2", b"3"]);
    assert_eq!((a.counters().tx_rejected, b.counters().tx_rejected), (0, 0));
}

#[test]
fn two_full_pipes_do_not_block_each_other_for_ever() {
    let (mut a, mut b) = pair(1);
    assert!(send(&mut a, b"a") && send(&mut b, b"b"));
    assert_eq!(answer(&mut a, b"lost").as_deref(), Some(&b"b"[..]));
    assert_eq!((a.counters().tx_rejected, a.counters().tx_frames), (1, 1), "the answer was dropped");
    assert_eq!(answer(&mut b, b"kept").as_deref(), Some(&b"a"[..]));
    assert_eq!(receive(&mut a).as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_frame_beyond_the_longest_is_counted() {
    let (mut a, mut b) = pair(2);
    let written = a.transmit(NOW).expect("room").consume(1515, |room| room.len());
    assert_eq!((written, a.counters().tx_oversize, a.counters().tx_frames), (1515, 1, 0));
    assert_eq!(receive(&mut b), None);
    assert!(send(&mut a, &[1; 1514]));
}

#[test]
fn super_frames_are_offered_and_pass() {
    let checksum = ChecksumCapabilities::ignored();
    let config = LoopbackConfig { frame_len_max: 65_550, checksum, ..LoopbackConfig::default() };
    let (mut a, mut b) = Loopback::pair(&config).expect("a pair");
    assert_eq!(a.capabilities().segmentation.tcpv4.map(usize::from), Some(65_550));
    assert_eq!(a.capabilities().max_transmission_unit, 1514);
    assert!(send(&mut a, &[7; 65_550]));
    assert_eq!(receive(&mut b), Some(vec![7; 65_550]));
    let (plain, _) = pair(1);
    assert!(plain.capabilities().segmentation.tcpv4.is_none());
    let checksum = ChecksumCapabilities::default();
    let (a, _) = Loopback::pair(&LoopbackConfig { checksum, ..config }).expect("a pair");
    assert!(a.capabilities().segmentation.tcpv4.is_none(), "a checksum of the whole is that of no segment");
}

#[test]
fn slots_of_the_user_are_used() {
    let mut buffers = [[0u8; 100]; 2];
    let [there, back] = &mut buffers;
    let config =
        LoopbackConfig { mtu: 100, frame_len_max: 100, medium: Medium::Ip, ..LoopbackConfig::default() };
    let mut there = [Slot::new(&mut there[..])];
    let mut back = [Slot::new(&mut back[..])];
    {
        let (mut a, mut b) =
            Loopback::pair_with_slots(&config, &mut there[..], &mut back[..]).expect("a pair");
        assert_eq!(a.capabilities().medium, Medium::Ip);
        for number in 0..10 {
            assert!(send(&mut a, &[number; 100]) && !send(&mut a, &[number; 100]), "one slot, one frame");
            assert_eq!(answer(&mut b, &[number]), Some(vec![number; 100]));
            assert_eq!(receive(&mut a), Some(vec![number]));
        }
    }
    let config = LoopbackConfig { frame_len_max: 101, ..config };
    let mut short = [0; 100];
    let error = Loopback::pair_with_slots(
        &config,
        vec![Slot::default()],
        vec![Slot::new(vec![]), Slot::new(&mut short[..])],
    );
    assert_eq!(
        error.expect_err("short").to_string(),
        "loopback slot of 100 bytes: expected 101, the longest frame"
    );
}

#[test]
fn bad_configurations_are_refused() {
    let base = LoopbackConfig::default();
    for (config, expected) in [
        (
            LoopbackConfig { mtu: 81, ..base.clone() },
            "loopback MTU of 81 bytes: expected 82 to 1514, the longest frame",
        ),
        (
            LoopbackConfig { mtu: 1515, ..base.clone() },
            "loopback MTU of 1515 bytes: expected 82 to 1514, the longest frame",
        ),
        (
            LoopbackConfig { frame_len_max: 131_073, ..base.clone() },
            "loopback frames of 131073 bytes: expected at most 131072",
        ),
        (LoopbackConfig { queue_len: 0, ..base.clone() }, "loopback queue of 0 frames: expected 1 to 65536"),
        (
            LoopbackConfig { queue_len: usize::MAX, ..base },
            &format!("loopback queue of {} frames: expected 1 to 65536", usize::MAX),
        ),
    ] {
        assert_eq!(Loopback::pair(&config).expect_err(expected).to_string(), expected);
    }
}

#[test]
fn wait_says_why_it_ended() {
    let (mut a, mut b) = pair(2);
    assert_eq!(a.wait(Some(wait::now() + Duration::from_millis(2))), Ok(Wake::Deadline));
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Deadline));
    a.waker().wake();
    assert_eq!(a.wait(soon()), Ok(Wake::Woken));
    send(&mut b, b"x");
    assert_eq!(a.wait(None), Ok(Wake::Ready), "a frame is there, flushed or not");
    a.waker().wake();
    assert_eq!(a.wait(None), Ok(Wake::Woken), "a wake is not hidden by frames");
    receive(&mut a);
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Deadline), "all is done");
}

#[test]
fn wait_tells_of_room_after_a_refusal() {
    let (mut a, mut b) = pair(1);
    assert!(send(&mut a, b"1") && !send(&mut a, b"2"));
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Deadline));
    receive(&mut b);
    // The other end has not flushed, but this one looks for itself.
    assert_eq!(a.wait(soon()), Ok(Wake::Ready));
    assert!(send(&mut a, b"2"));
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Deadline));
}

#[test]
fn an_end_that_was_dropped_is_gone_once_its_frames_are_received() {
    let (mut a, mut b) = pair(2);
    assert_eq!((a.link_state(), a.flush()), (LinkState::Up, Ok(())));
    send(&mut b, b"last");
    drop(b);
    assert_eq!(a.link_state(), LinkState::Gone);
    assert_eq!((a.flush(), a.wait(None)), (Ok(()), Ok(Wake::Ready)));
    assert!(!send(&mut a, b"x"));
    assert_eq!(answer(&mut a, b"nobody").as_deref(), Some(&b"last"[..]));
    assert_eq!(a.counters().tx_rejected, 1);
    assert_eq!((a.flush(), a.wait(None)), (Err(LinkError::Gone), Err(LinkError::Gone)));
}

#[test]
fn a_sleeping_end_is_woken_by_a_flush_by_room_and_by_a_drop() {
    let (mut a, mut b) = pair(1);
    let sleeper = thread::spawn(move || {
        let woken = a.wait(soon());
        let frame = receive(&mut a);
        assert!(send(&mut a, b"1") && !send(&mut a, b"2"));
        a.flush().expect("up");
        let room = a.wait(soon());
        let sent = send(&mut a, b"2");
        // The other end may have this frame already, and be gone.
        let _ = a.flush();
        (woken, frame, room, sent, a.wait(soon()))
    });
    // No sleep here: if the other thread does not wait yet, it will find the frame.
    send(&mut b, b"x");
    b.flush().expect("up");
    for expected in [b"1", b"2"] {
        let frame = loop {
            match receive(&mut b) {
                Some(frame) => break frame,
                None => assert_ne!(b.wait(soon()), Ok(Wake::Deadline)),
            }
        };
        assert_eq!(frame, expected);
        let _ = b.flush();
    }
    drop(b);
    let (woken, frame, room, sent, gone) = sleeper.join().expect("no panic");
    assert_eq!(
        (woken, frame.as_deref(), room, sent),
        (Ok(Wake::Ready), Some(&b"x"[..]), Ok(Wake::Ready), true)
    );
    // The drop rang, or the wait found the end gone already.
    assert!(matches!(gone, Ok(Wake::Ready) | Err(LinkError::Gone)), "{gone:?}");
}

/// Sends and receives numbered frames as fast as may be, and sleeps when there is nothing to do. A lost
/// wake-up shows as a deadline; a lost, doubled or reordered frame as a wrong number.
fn exchange(mut end: Loopback<'_>, to_send: u32, to_receive: u32, burst: usize) {
    let (mut sent, mut received) = (0u32, 0u32);
    loop {
        for _ in 0..burst {
            let Some((token, _)) = end.receive(NOW) else { break };
            token.consume(|frame| assert_eq!(frame, received.to_be_bytes()));
            received += 1;
        }
        for _ in 0..burst {
            if sent == to_send || !send(&mut end, &sent.to_be_bytes()) {
                break;
            }
            sent += 1;
        }
        // The other end leaves once it has everything.
        assert!(end.flush().is_ok() || received == to_receive);
        if sent == to_send && received == to_receive {
            return;
        }
        // As a stack does, sleep without a deadline of its own if nothing can be done.
        let idle = sent == to_send || end.tx.refused > 0;
        let wake = end.wait(if idle { soon() } else { Some(Instant::ZERO) });
        assert!(!idle || wake != Ok(Wake::Deadline), "nobody woke us: {sent} sent, {received} received");
    }
}

#[test]
fn two_threads_exchange_frames_without_losing_one_or_a_wakeup() {
    const FRAMES: u32 = 20_000;
    for (there, back, queue_len) in [(FRAMES, FRAMES, 8), (FRAMES, 0, 8), (FRAMES, 0, 1), (FRAMES, FRAMES, 1)]
    {
        let (a, b) = pair(queue_len);
        let other = thread::spawn(move || exchange(a, there, back, 3));
        exchange(b, back, there, 16);
        other.join().expect("no panic");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model: two queues of bytes with the same bounds.
    #[test]
    fn the_pair_is_two_bounded_queues(
        queue_len in 1usize..5,
        steps in proptest::collection::vec((any::<bool>(), 0u8..3, any::<u8>(), 0usize..80), 0..200),
    ) {
        let (mut a, mut b) = pair(queue_len);
        let mut models = [VecDeque::new(), VecDeque::new()];
        for (from_a, operation, byte, len) in steps {
            let (end, own) = if from_a { (&mut a, 0) } else { (&mut b, 1) };
            let frame = vec![byte; len];
            let full = [own, 1 - own].map(|index| models[index].len() == queue_len);
            match operation {
                0 => {
                    prop_assert_eq!(send(end, &frame), !full[0]);
                    if !full[0] {
                        models[own].push_back(frame);
                    }
                }
                _ => {
                    let blocked = full[0] && !full[1];
                    let expected = if blocked { None } else { models[1 - own].pop_front() };
                    if operation == 1 {
                        prop_assert_eq!(receive(end), expected);
                    } else {
                        if expected.is_some() && !full[0] {
                            models[own].push_back(frame.clone());
                        }
                        prop_assert_eq!(answer(end, &frame), expected);
                    }
                }
            }
        }
    }
}

/// Everything that can be left undone, of frames up to this length.
fn all_offloads(len: usize) -> OffloadCapabilities {
    let gso = NonZeroUsize::new(len);
    OffloadCapabilities { checksum_tx: true, checksum_rx: true, gso_tcpv4: gso, gso_tcpv6: gso, gso_udp: gso }
}

fn send_with(device: &mut Loopback<'_>, frame: &[u8], meta: &FrameMeta) -> Option<()> {
    device.transmit_with(Instant::ZERO, frame.len(), meta, |room| room.copy_from_slice(frame))
}

fn receive_with(device: &mut Loopback<'_>) -> Option<(Vec<u8>, FrameMeta)> {
    device.receive_with(Instant::ZERO, |frame, meta| (frame.to_vec(), *meta))
}

#[test]
fn what_is_offered_is_left_undone() {
    let (frame, meta) = super_frame(Medium::Ethernet, 30_000);
    let config =
        LoopbackConfig { frame_len_max: 65_550, offloads: all_offloads(1_000_000), ..Default::default() };
    let (mut a, mut b) = Loopback::pair(&config).expect("a pair");
    assert_eq!(a.offloads(), all_offloads(65_550), "no more than fits");
    let hashed = FrameMeta { rx_hash: Some(9), ..meta };
    send_with(&mut a, &frame, &hashed).expect("room");
    assert_eq!(receive_with(&mut b), Some((frame.clone(), hashed)));
    send_with(&mut a, &frame, &meta).expect("room");
    let (token, _) = b.receive(Instant::ZERO).expect("a frame");
    let (len, verdict) = token.consume(|frame| (frame.len(), verdict(frame)));
    assert_eq!((len, verdict), (frame.len(), Verdict::Right), "filled in for who is not told");
    assert_eq!((b.counters().rx_checksum_filled, b.counters().rx_frames), (1, 2));
}

fn verdict(frame: &[u8]) -> Verdict {
    checksum::verify(frame, &Layout::of_frame(frame).expect("TCP"))
}

#[test]
fn what_is_not_offered_is_done_here_and_no_piece_is_lost() {
    let (frame, meta) = super_frame(Medium::Ethernet, 10 * 1448);
    let config = LoopbackConfig { queue_len: 12, ..LoopbackConfig::default() };
    let (mut a, mut b) = Loopback::pair(&config).expect("a pair");
    assert_eq!(a.offloads(), OffloadCapabilities::default());
    send_with(&mut a, &frame, &meta).expect("room");
    assert_eq!(send_with(&mut a, &frame, &meta), None, "there is room for two, but not for all");
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Deadline), "that is not enough to look again");
    for _ in 0..10 {
        let (piece, meta) = receive_with(&mut b).expect("a piece");
        assert_eq!((piece.len(), verdict(&piece), meta), (1514, Verdict::Right, FrameMeta::default()));
    }
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Ready));
    send_with(&mut a, &frame, &meta).expect("room again");
    assert_eq!((a.counters().tx_frames, a.counters().tx_segments_lost), (20, 0));
}

#[test]
fn a_frame_of_more_pieces_than_the_queue_loses_the_last() {
    let (frame, meta) = super_frame(Medium::Ethernet, 10 * 1448);
    let config = LoopbackConfig { queue_len: 8, ..LoopbackConfig::default() };
    let (mut a, _b) = Loopback::pair(&config).expect("a pair");
    send_with(&mut a, &frame, &meta).expect("an empty queue");
    assert_eq!((a.counters().tx_frames, a.counters().tx_segments_lost), (8, 2));
}

#[test]
fn wrong_checksums_are_dropped_where_they_are_verified() {
    let (frame, meta) = super_frame(Medium::Ethernet, 1000);
    let config = LoopbackConfig { offloads: all_offloads(1514), ..LoopbackConfig::default() };
    let (mut a, mut b) = Loopback::pair(&config).expect("a pair");
    let complete = FrameMeta::default();
    for _ in 0..WRONG_MAX {
        // Absent, but nobody says so.
        send_with(&mut a, &frame, &complete).expect("room");
    }
    let mut right = frame.clone();
    assert!(checksum::fill(&mut right, &Layout::of_frame(&frame).expect("TCP")));
    send_with(&mut a, &right, &complete).expect("room");
    send_with(&mut a, b"no IP at all: a frame of some other protocol", &complete).expect("room");
    send_with(&mut a, &frame, &FrameMeta { gso: None, ..meta }).expect("room");
    assert_eq!(receive_with(&mut b), None, "a bound of one call");
    assert_eq!(b.wait(None), Ok(Wake::Ready));
    let mut next = || receive_with(&mut b).map(|(_, meta)| meta.checksum);
    assert_eq!(next(), Some(ChecksumState::Verified));
    assert_eq!(next(), Some(ChecksumState::Complete));
    assert_eq!(next(), Some(meta.checksum));
    assert_eq!((b.counters().rx_bad_checksum, b.counters().rx_frames), (WRONG_MAX.into(), 3));
}

#[test]
fn who_receives_without_room_to_answer_is_woken_without_it() {
    let config = LoopbackConfig { queue_len: 2, ..LoopbackConfig::default() };
    let (mut a, mut b) = Loopback::pair(&config).expect("a pair");
    let plain = FrameMeta::default();
    for _ in 0..2 {
        send_with(&mut a, &[1; 60], &plain).expect("room");
    }
    assert_eq!(receive_with(&mut a), None);
    send_with(&mut b, &[2; 60], &plain).expect("room");
    assert_eq!(a.wait(None), Ok(Wake::Ready), "there is a frame, though no room to send");
    assert!(a.receive(Instant::ZERO).is_none());
    assert_eq!(a.wait(Some(Instant::ZERO)), Ok(Wake::Deadline));
    assert!(receive_with(&mut a).is_some());
}

/// Several datagrams in one frame of UDP over IPv4, each but the last with 1000 bytes.
fn datagrams(payload_len: usize) -> (Vec<u8>, FrameMeta) {
    let payload: Vec<u8> = (0..payload_len).map(|at| (at % 251) as u8).collect();
    let [high, low] = ((28 + payload_len) as u16).to_be_bytes();
    let ip = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let len = ((8 + payload_len) as u16).to_be_bytes();
    let mut frame = [&[2; 12][..], &[8, 0], &ip, &[0, 7, 0, 9], &len, &[0, 0], &payload].concat();
    let layout = Layout::of_frame(&frame).expect("UDP");
    let checksum = checksum::leave_out(&mut frame, &layout).expect("UDP");
    let size = std::num::NonZeroU16::new(1000).expect("not 0");
    let gso = Some(crate::meta::Gso { kind: GsoKind::Udp, size, ecn: false });
    (frame, FrameMeta { checksum, gso, ..FrameMeta::default() })
}

/// A token cannot tell where several datagrams in one frame are to be split.
#[test]
fn merged_datagrams_come_one_by_one_by_tokens() {
    let (frame, meta) = datagrams(2500);
    let config = LoopbackConfig {
        frame_len_max: 65_550,
        queue_len: 1,
        offloads: all_offloads(65_550),
        ..LoopbackConfig::default()
    };
    let (mut a, mut b) = Loopback::pair(&config).expect("a pair");
    send_with(&mut a, &frame, &meta).expect("room");
    assert!(b.receive(NOW).expect("a frame").0.meta().segmentation_offload_size.is_none());
    let piece = |piece: &[u8]| {
        assert_eq!(verdict(piece), Verdict::Right);
        piece[42..].to_vec()
    };
    let mut payload = b.receive(NOW).map(|(token, _)| token.consume(piece)).expect("the first");
    drop(a);
    assert_eq!(b.flush(), Ok(()), "what is left of a frame is one more");
    assert_eq!(b.wait(None), Ok(Wake::Ready));
    // However the rest is received, nothing comes twice.
    let second = b.receive_with(NOW, |frame, meta| (piece(frame), *meta)).expect("the second");
    assert_eq!(second.1, FrameMeta::default());
    payload.extend(second.0);
    payload.extend(b.receive(NOW).map(|(token, _)| token.consume(piece)).expect("the third"));
    assert_eq!(payload, &frame[42..]);
    assert!(b.receive(NOW).is_none());
    assert_eq!(b.wait(None), Err(LinkError::Gone));
    assert_eq!(b.counters().rx_frames, 3);
}
