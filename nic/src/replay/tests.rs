//! Files made here, in every form; times of a virtual clock; and what no file may do.

use std::io::Cursor;

use smoltcp::time::Duration;

use super::*;
use crate::loopback::{Loopback, LoopbackConfig};

/// A file, and its records as (nanoseconds, frame).
type Made = (Vec<u8>, Vec<(u64, Vec<u8>)>);

const START: u64 = 1_700_000_000;

fn records() -> Vec<(u64, Vec<u8>)> {
    let times = [0, 1_000_000, 1_000_000, 2_500_000_000, 2_400_000_000];
    times
        .iter()
        .enumerate()
        .map(|(number, &nanos)| (START * 1_000_000_000 + nanos, vec![number as u8; 20 + number * 7]))
        .collect()
}

fn word(value: u32, big: bool) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn half(value: u16, big: bool) -> [u8; 2] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn pcap(big: bool, nanos: bool, link_type: u32) -> Made {
    let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = word(magic, big).to_vec();
    file.extend([half(2, big), half(4, big)].concat());
    file.extend([word(0, big), word(0, big), word(262_144, big), word(link_type, big)].concat());
    for (time, frame) in records() {
        let fraction = time % 1_000_000_000 / if nanos { 1 } else { 1000 };
        let len = frame.len() as u32;
        for value in [(time / 1_000_000_000) as u32, fraction as u32, len, len] {
            file.extend(word(value, big));
        }
        file.extend(frame);
    }
    (file, records())
}

fn block(kind: u32, body: &[u8], big: bool) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = word(12 + body.len() as u32, big);
    [&word(kind, big)[..], &len, &body, &len].concat()
}

fn section(big: bool) -> Vec<u8> {
    block(0x0a0d_0d0a, &[&word(0x1a2b_3c4d, big)[..], &half(1, big), &half(0, big), &[0xff; 8]].concat(), big)
}

fn interface(link_type: u16, resolution: u8, big: bool) -> Vec<u8> {
    let option = [&half(9, big)[..], &half(1, big), &[resolution, 0, 0, 0], &[0; 4]].concat();
    block(1, &[&half(link_type, big)[..], &[0; 2], &word(0, big), &option].concat(), big)
}

fn enhanced(interface: u32, ticks: u64, frame: &[u8], big: bool) -> Vec<u8> {
    let len = frame.len() as u32;
    let head = [interface, (ticks >> 32) as u32, ticks as u32, len, len].map(|value| word(value, big));
    block(6, &[&head.concat()[..], frame].concat(), big)
}

fn pcapng(big: bool, resolution: u8) -> Made {
    let ticks = |nanos: u64| match resolution {
        6 => nanos / 1000,
        9 => nanos,
        // Of 2^-32 seconds.
        _ => (u128::from(nanos) << 32).div_ceil(1_000_000_000) as u64,
    };
    let mut file = [section(big), interface(1, resolution, big), block(5, b"statistics", big)].concat();
    // Of another kind: passed over.
    file.extend(interface(113, 6, big));
    for (time, frame) in records() {
        file.extend(enhanced(0, ticks(time), &frame, big));
        file.extend(enhanced(1, 0, b"cooked", big));
    }
    (file, records())
}

fn read(file: &[u8]) -> (Vec<(u64, Vec<u8>)>, FileStats) {
    let mut file = CaptureFile::new(Cursor::new(file)).expect("a capture");
    let mut records = Vec::new();
    while file.advance().expect("readable") {
        records.push((file.record().nanos, file.record().frame.to_vec()));
    }
    (records, file.stats())
}

#[test]
fn both_formats_in_both_orders_and_all_resolutions() {
    for big in [false, true] {
        for nanos in [false, true] {
            let (file, expected) = pcap(big, nanos, 1);
            assert_eq!(read(&file), (expected, FileStats::default()), "{big} {nanos}");
        }
        for resolution in [6, 9, 0x80 | 32] {
            let (file, expected) = pcapng(big, resolution);
            let (found, stats) = read(&file);
            assert_eq!(found, expected, "{big} {resolution}");
            assert_eq!(stats, FileStats { skipped: 5, ..FileStats::default() });
        }
    }
}

#[test]
fn sections_follow_each_other_and_simple_blocks_have_no_time() {
    let (mut file, expected) = pcapng(false, 6);
    let (second, _) = pcapng(true, 9);
    file.extend(second);
    file.extend(block(3, &[&word(3, true)[..], b"abc"].concat(), true));
    let (found, _) = read(&file);
    assert_eq!(found.len(), 2 * expected.len() + 1);
    assert_eq!(found[5..10], expected[..]);
    assert_eq!(found[10], (expected[4].0, b"abc".to_vec()));
}

#[test]
fn a_cut_file_is_played_to_where_it_is_cut() {
    for file in [pcap(false, false, 1).0, pcapng(true, 6).0] {
        let whole = read(&file).0;
        for len in 100..file.len() {
            let (found, stats) = read(&file[..len]);
            assert!(stats.truncated <= 1 && found.len() <= whole.len());
            assert_eq!(found[..], whole[..found.len()]);
        }
    }
    let (file, _) = pcap(false, false, 1);
    assert_eq!(read(&file[..file.len() - 1]).1.truncated, 1);
}

#[test]
fn what_is_wrong_is_one_line_with_the_place() {
    let mut lengths = pcapng(false, 6).0;
    let at = lengths.len() - 4;
    lengths[at] ^= 4;
    let mut huge = pcap(false, false, 1).0;
    huge[24 + 8 + 2] = 0xff;
    for (file, words) in [
        (b"hello, world".to_vec(), "neither pcap nor pcapng"),
        (Vec::new(), "neither pcap nor pcapng"),
        (vec![0x1f, 0x8b, 8, 0, 0], "gunzip"),
        (pcap(false, false, 113).0, "link type 113; Ethernet (1)"),
        (section(false), "before it describes an interface"),
        (lengths, "two lengths differ"),
        (huge, "at byte 24: a record of more than 256 KiB"),
    ] {
        let run = || -> Result<(), ReplayError> {
            let mut file = CaptureFile::new(Cursor::new(&file[..]))?;
            while file.advance()? {}
            Ok(())
        };
        let error = run().expect_err(words).to_string();
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    }
}

/// Microseconds after the start at which each frame comes, with a clock that jumps to what is due.
fn times(speed: Speed, loops: u32) -> Vec<u64> {
    let (file, _) = pcap(false, false, 1);
    let mut player = Player::new(CaptureFile::new(Cursor::new(file)).expect("a capture"), speed, loops);
    let start = Instant::from_secs(77);
    let mut now = start;
    let mut times = Vec::new();
    while let Some(due) = player.due(now) {
        if due > now {
            assert_eq!(player.peek(due - Duration::from_micros(1)), None);
        }
        now = now.max(due);
        assert!(player.peek(now).is_some());
        times.push((now - start).total_micros());
        player.advance();
    }
    assert!(player.error().is_none());
    times
}

#[test]
fn frames_come_in_their_time() {
    assert_eq!(times(Speed::Original, 1), [0, 1000, 1000, 2_500_000, 2_500_000]);
    assert_eq!(times(Speed::Scaled(2.0), 1), [0, 500, 500, 1_250_000, 1_250_000]);
    assert_eq!(times(Speed::Fast, 1), [0; 5]);
    assert_eq!(times(Speed::Original, 2)[5..], [2_500_000, 2_501_000, 2_501_000, 5_000_000, 5_000_000]);
    assert!(times(Speed::Original, 0).is_empty());
}

#[test]
fn a_loop_begins_when_the_one_before_was_due_and_not_when_it_was_late() {
    let (file, _) = pcap(false, false, 1);
    let file = CaptureFile::new(Cursor::new(file)).expect("a capture");
    let mut player = Player::new(file, Speed::Original, 2);
    let (start, late) = (Instant::from_secs(77), Instant::from_secs(1000));
    // The first call tells when it begins; all others come much too late.
    let mut now = start;
    let due: Vec<_> = std::iter::from_fn(|| {
        let due = player.due(now)?;
        now = late;
        player.advance();
        Some((due - start).total_micros())
    })
    .collect();
    assert_eq!(due[..5], [0, 1000, 1000, 2_500_000, 2_500_000]);
    assert_eq!(due[5..], [2_500_000, 2_501_000, 2_501_000, 5_000_000, 5_000_000]);
}

#[test]
fn a_replay_is_a_device_until_the_file_ends() {
    let (file, expected) = pcap(true, true, 101);
    let player = Player::new(CaptureFile::new(Cursor::new(file)).expect("a capture"), Speed::Fast, 2);
    let mut replay = Replay::new(player).expect("a descriptor");
    assert_eq!(replay.capabilities().medium, Medium::Ip);
    let now = Instant::from_secs(1);
    let mut found = Vec::new();
    for turn in 0..5 {
        let (rx, tx) = replay.receive(now).expect("a frame");
        found.push(rx.consume(<[u8]>::to_vec));
        tx.consume(10 + turn, |_| ());
    }
    while replay.receive_with(now, |frame, _| found.push(frame.to_vec())).is_some() {}
    let once = expected.into_iter().map(|(_, frame)| frame);
    assert_eq!(found, once.clone().chain(once).collect::<Vec<_>>());
    assert_eq!(replay.wait(None), Err(LinkError::Gone));
    let counters = replay.counters();
    assert_eq!((counters.rx_frames, counters.tx_frames, counters.tx_bytes), (10, 5, 60));
}

/// Fast frames of a file, and a wire for the answers to them.
fn around_a_wire() -> (Replay<Cursor<Vec<u8>>, Loopback<'static>>, Loopback<'static>) {
    let config = LoopbackConfig {
        queue_len: 1,
        checksum: smoltcp::phy::ChecksumCapabilities::ignored(),
        ..LoopbackConfig::default()
    };
    let (near, far) = Loopback::pair(&config).expect("a pair");
    let file = CaptureFile::new(Cursor::new(pcap(false, false, 1).0)).expect("a capture");
    (Replay::around(Player::new(file, Speed::Fast, 1), near), far)
}

#[test]
fn checksums_of_a_file_are_verified_whatever_the_other_device_does() {
    let (replay, _far) = around_a_wire();
    let tcp = replay.capabilities().checksum.tcp;
    assert!(!replay.offloads().checksum_rx && tcp.rx() && !tcp.tx());
}

/// The other device is asked to wait, not only to flush: it knows whether it has to sleep.
#[test]
fn a_wait_with_a_frame_at_hand_is_one_of_the_other_device() {
    let (mut replay, _far) = around_a_wire();
    assert_eq!(replay.wait(None), Ok(Wake::Ready));
    replay.waker().wake();
    assert_eq!(replay.wait(None), Ok(Wake::Woken), "a wake is told, though a frame is due");
    assert_eq!(replay.wait(None), Ok(Wake::Ready));
}

#[test]
fn speeds_are_read() {
    for (text, speed) in [("original", Speed::Original), ("fast", Speed::Fast), ("2.5", Speed::Scaled(2.5))] {
        assert_eq!(text.parse(), Ok(speed));
        assert_eq!(speed.to_string(), text);
    }
    for text in ["", "0", "-1", "inf", "NaN", "quick"] {
        assert_eq!(text.parse::<Speed>(), Err(SpeedError), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(
        change in proptest::collection::vec((0..400usize, proptest::num::u8::ANY), 0..8),
        kind in 0..3usize,
    ) {
        let mut file = [pcap(false, false, 1).0, pcapng(false, 6).0, pcapng(true, 9).0][kind].clone();
        for (at, byte) in change {
            if let Some(target) = file.get_mut(at) {
                *target = byte;
            }
        }
        let Ok(capture) = CaptureFile::new(Cursor::new(&file[..])) else { return Ok(()) };
        let mut player = Player::new(capture, Speed::Scaled(0.001), 3);
        let mut now = Instant::from_secs(1);
        let mut frames = 0;
        while let Some(due) = player.due(now) {
            now = now.max(due);
            assert!(player.peek(now).is_some_and(|frame| frame.len() <= file.len()));
            player.advance();
            frames += 1;
        }
        assert!(frames <= 3 * file.len() / 12);
    }
}
