use proptest::prelude::*;

use self::Expected::{Challenge, Dropped, Reopen, Restart};
use super::*;
use crate::tcp::segment::Ecn;

const NOW: Instant = Instant::from_millis_const(5_000_000);
const SND_NXT: Seq = Seq(7_000);
const RCV_NXT: Seq = Seq(3);
const RECENT: u32 = u32::MAX - 4;
const OFFSET: u32 = 123_456;

fn flow(host: u8) -> FlowKey {
    let (local, remote) = match host % 2 {
        0 => ("10.0.0.1:80".to_owned(), format!("10.0.0.{host}:1000")),
        _ => ("[fd00::1]:80".to_owned(), format!("[fd00::{host:x}]:1000")),
    };
    FlowKey::new(local.parse().expect("local"), remote.parse().expect("remote")).expect("one family")
}

fn remains(has_timestamps: bool) -> Remains {
    Remains {
        snd_nxt: SND_NXT,
        rcv_nxt: RCV_NXT,
        window: 512,
        rcv_wnd: 65_536,
        timestamps: has_timestamps.then_some(Clock { offset: OFFSET, recent: RECENT }),
    }
}

fn table(time_wait_max: usize) -> TimeWaits {
    TimeWaits::new(&TcpConfig { time_wait_max, ..TcpConfig::default() })
}

fn segment(flags: Flags, seq: Seq, ack: Seq, val: Option<u32>) -> Segment<'static> {
    let timestamps = val.map(|val| Timestamps { val, ecr: 0 });
    Segment {
        src_port: 1000,
        dst_port: 80,
        seq,
        ack,
        flags,
        window: 1_000,
        options: Options { timestamps, ..Options::default() },
        payload: &[],
        segment_bytes: None,
        ecn: Ecn::NotCapable,
    }
}

#[test]
fn a_record_has_64_bytes() {
    assert_eq!(size_of::<Record>(), 64);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Restart,
    Challenge,
    Reopen,
    Dropped(DropReason),
}

/// Flags, SEG.SEQ - RCV.NXT, SEG.ACK - SND.NXT, payload, SEG.TSval - TS.Recent; what is expected with timestamps, and
/// without (`None`: as with).
type Case = (Flags, i32, i32, &'static [u8], Option<i32>, Expected, Option<Expected>);

const MISSING: Expected = Dropped(DropReason::TcpNoTimestamp);
const OVER: Expected = Dropped(DropReason::TcpTimeWait);
const NO_ACK: Expected = Dropped(DropReason::TcpNoAck);

/// Segments of a connection that is there.
fn segments() -> [Case; 29] {
    let (ack, fin) = (Flags::ACK, Flags::FIN);
    [
        // The FIN again, with and without data.
        (ack | fin, -1, 0, b"", Some(0), Restart, None),
        (ack | fin, -1, 0, b"", Some(1_000), Restart, None),
        (ack | fin, -1, -1, b"", Some(0), Restart, None),
        (ack | fin, -5, 0, b"data", Some(0), Restart, None),
        (ack | fin | Flags::PSH | Flags::URG, -5, 0, b"data", Some(7), Restart, None),
        (ack | fin, -1, 0, b"", Some(-1), Challenge, Some(Restart)),
        (ack | fin, -1, 0, b"", None, MISSING, Some(Restart)),
        (fin, -1, 0, b"", Some(0), Challenge, None),
        // Another FIN.
        (ack | fin, 0, 0, b"", Some(0), Challenge, None),
        (ack | fin, -2, 0, b"", Some(0), Challenge, None),
        // ACKs.
        (ack, 0, 0, b"", Some(0), OVER, None),
        (ack, 0, -1, b"", Some(0), OVER, None),
        (ack, 0, 1, b"", Some(0), OVER, None),
        (ack, 0, 0, b"", Some(-1), Challenge, Some(OVER)),
        (ack, 0, 0, b"", None, MISSING, Some(OVER)),
        (ack, -1, 0, b"", Some(0), Challenge, None),
        (ack, 1, 0, b"", Some(0), Challenge, None),
        (ack, 1_000_000, 0, b"", Some(0), Challenge, None),
        (ack, i32::MIN, 0, b"", Some(0), Challenge, None),
        // Data.
        (ack, 0, 0, b"data", Some(0), Challenge, None),
        (ack, -4, 0, b"data", Some(0), Challenge, None),
        (ack, -1, 0, b"x", Some(0), Challenge, None),
        (ack, 1_000_000, 0, b"data", Some(0), Challenge, None),
        (ack, 0, 0, b"data", None, MISSING, Some(Challenge)),
        // Without ACK.
        (Flags::NONE, 0, 0, b"", Some(0), OVER, None),
        (Flags::NONE, 0, 0, b"data", Some(0), NO_ACK, None),
        (fin, 5, 0, b"", Some(0), NO_ACK, None),
        (Flags::NONE, -9, 0, b"data", Some(0), Challenge, None),
        (Flags::PSH | Flags::URG, 1_000_000, 0, b"", Some(0), Challenge, None),
    ]
}

/// What is to end a connection, or to begin one.
fn resets_and_syns() -> [Case; 21] {
    let (ack, fin, syn, rst) = (Flags::ACK, Flags::FIN, Flags::SYN, Flags::RST);
    [
        // Resets.
        (rst, 0, 0, b"", Some(0), OVER, None),
        (rst, 0, 0, b"", None, OVER, None),
        (rst | ack, 0, 0, b"", Some(-1), OVER, None),
        (rst, 5, 0, b"", None, OVER, None),
        (rst | ack, -1, 5, b"", None, OVER, None),
        (rst | syn, 1, 0, b"", Some(1), OVER, None),
        (rst | ack | fin, -1, 0, b"", Some(1), OVER, None),
        // SYNs: newer by timestamp, by number.
        (syn, 1, 0, b"", Some(1), Reopen, None),
        (syn, -1_000, 0, b"", Some(1), Reopen, Some(Challenge)),
        (syn, -1_000, 0, b"", Some(0), Challenge, None),
        (syn, 0, 0, b"", Some(0), Challenge, None),
        (syn, 1, 0, b"", Some(0), Reopen, None),
        (syn, 1, 0, b"", Some(-1), Challenge, Some(Reopen)),
        (syn, 1, 0, b"", None, Reopen, None),
        (syn, 0, 0, b"", None, Challenge, None),
        (syn, -1, 0, b"", None, Challenge, None),
        (syn | Flags::ECE | Flags::CWR, 1_000_000, 0, b"data", Some(5), Reopen, None),
        (syn | ack, 1, 0, b"", Some(1), Challenge, None),
        (syn | fin, 1, 0, b"", Some(1), Challenge, None),
        (syn | ack, -1, 0, b"", None, Challenge, None),
        (syn, i32::MAX, 0, b"", Some(i32::MAX), Reopen, None),
    ]
}

/// RFC 9293 section 3.10.7.4, RFC 6191, RFC 1337, RFC 7323.
#[test]
fn every_kind_of_segment_in_time_wait() {
    let cases = segments().into_iter().chain(resets_and_syns());
    for (flags, seq, ack, payload, age, with, without) in cases {
        for has_timestamps in [true, false] {
            let expected = if has_timestamps { with } else { without.unwrap_or(with) };
            let mut table = table(10);
            let (index, _) = table.insert(NOW, flow(8), remains(has_timestamps));
            let val = age.map(|age| RECENT.wrapping_add(age as u32));
            let sent = Segment { payload, ..segment(flags, RCV_NXT + seq as u32, SND_NXT + ack as u32, val) };
            let later = NOW + Duration::from_millis(10_000);
            let verdict = match table.on_segment(later, index, &sent) {
                TimeWaitVerdict::Reply { header, restarts_at } => {
                    assert_eq!((header.src_port, header.dst_port), (80, 1000));
                    assert_eq!((header.seq, header.ack, header.flags), (SND_NXT, RCV_NXT, Flags::ACK));
                    assert_eq!(header.window, 512);
                    let ours = header.options.timestamps;
                    assert_eq!(ours.map(|ours| ours.val), has_timestamps.then_some(OFFSET + 5_010_000));
                    let end = later + Duration::from_secs(60);
                    assert!(restarts_at.is_none_or(|at| at == end), "{restarts_at:?}");
                    if restarts_at.is_some() { Expected::Restart } else { Expected::Challenge }
                }
                TimeWaitVerdict::Reopen { iss_min } => {
                    assert_eq!(iss_min, SND_NXT);
                    Expected::Reopen
                }
                TimeWaitVerdict::Dropped(reason) => Expected::Dropped(reason),
            };
            assert_eq!(verdict, expected, "{sent:?} with timestamps: {has_timestamps}");
            let end = if verdict == Expected::Restart { later } else { NOW } + Duration::from_secs(60);
            assert_eq!((table.len(), table.next_deadline()), (1, Some(end)), "{sent:?}");
        }
    }
}

#[test]
fn the_newest_timestamp_is_echoed() {
    let mut table = table(10);
    let (index, _) = table.insert(NOW, flow(8), remains(true));
    // An ACK at RCV.NXT, data behind it, the FIN again, an old FIN.
    let fin = Flags::ACK | Flags::FIN;
    for (flags, seq, age, expected) in [
        (Flags::ACK, 0, 10, None),
        (Flags::ACK, 1, 20, Some(10)),
        (fin, -1, 30, Some(30)),
        (fin, -1, 29, Some(30)),
    ] {
        let val = Some(RECENT.wrapping_add(age));
        let sent = segment(flags, RCV_NXT + seq as u32, SND_NXT, val);
        let echoed = match table.on_segment(NOW, index, &sent) {
            TimeWaitVerdict::Reply { header, .. } => header.options.timestamps.map(|ours| ours.ecr),
            _ => None,
        };
        assert_eq!(echoed, expected.map(|age| RECENT.wrapping_add(age)), "{flags:?} {age}");
    }
}

#[test]
fn records_end_in_the_order_of_their_times() {
    let mut table = table(10);
    let seconds = |seconds| NOW + Duration::from_secs(seconds);
    let (first, _) = table.insert(seconds(0), flow(2), remains(false));
    let (second, _) = table.insert(seconds(10), flow(3), remains(false));
    table.insert(seconds(20), flow(4), remains(true));
    assert_eq!(table.next_deadline(), Some(seconds(60)));
    let fin = segment(Flags::ACK | Flags::FIN, RCV_NXT - 1, SND_NXT, None);
    let verdict = table.on_segment(seconds(30), first, &fin);
    assert!(matches!(verdict, TimeWaitVerdict::Reply { restarts_at: Some(at), .. } if at == seconds(90)));
    let all: Vec<_> = table.iter().collect();
    assert_eq!(all, [(flow(3), seconds(70)), (flow(4), seconds(80)), (flow(2), seconds(90))]);
    table.remove(second);
    table.remove(second);
    assert_eq!((table.len(), table.next_deadline()), (2, Some(seconds(80))));
    let verdict = table.on_segment(seconds(30), second, &fin);
    assert_eq!(verdict, TimeWaitVerdict::Dropped(DropReason::TcpNoSocket));
    assert_eq!(table.pop_expired(seconds(80) - Duration::from_micros(1)), None);
    assert_eq!(table.pop_expired(seconds(80)), Some(flow(4)));
    assert_eq!(table.pop_expired(seconds(80)), None);
    assert_eq!(table.pop_expired(seconds(1_000)), Some(flow(2)));
    assert_eq!((table.pop_expired(seconds(1_000)), table.next_deadline()), (None, None));
    assert!(table.is_empty());
}

#[test]
fn the_oldest_makes_room() {
    for (max, expected_max) in [(0, 1), (1, 1), (3, 3)] {
        let mut table = table(max);
        for host in 2..20 {
            let (index, evicted) = table.insert(NOW, flow(host), remains(false));
            let oldest = usize::from(host) - 2;
            let expected = (oldest >= expected_max).then(|| flow(host - expected_max as u8));
            assert_eq!(evicted, expected, "{host} of {max}");
            assert!((index as usize) < expected_max && table.len() <= expected_max);
        }
        assert_eq!((table.len(), table.records.len()), (expected_max, expected_max));
    }
}

#[test]
fn an_end_is_exact_to_the_millisecond_and_never_early() {
    for (micros, expected_millis) in [(0, 60_000), (1, 60_001), (999, 60_001), (1_000, 60_001), (-1, 60_000)]
    {
        for start in [0_i64, 1 << 32, 1 << 52] {
            let mut table = table(1);
            let now = Instant::from_micros(start * 1_000 + micros);
            table.insert(now, flow(2), remains(false));
            let expected = Instant::from_millis(start + expected_millis);
            assert_eq!(table.next_deadline(), Some(expected), "{start} {micros}");
            // Also if nobody asks for a week.
            let late = now + Duration::from_secs(7 * 24 * 3600);
            assert_eq!(table.pop_expired(late), Some(flow(2)));
        }
    }
}

/// The same as a list.
#[derive(Default)]
struct Oracle(Vec<(u32, FlowKey, Instant)>);

proptest! {
    #[test]
    fn is_a_queue_whatever_comes(
        steps in prop::collection::vec((0..5_u8, any::<u8>(), 0..20_000_u64, any::<(u8, bool, u32)>()), 0..300),
        start in prop::sample::select(vec![-100_000_i64, 0, (1 << 32) - 30_000, 1 << 40]),
    ) {
        let mut table = table(6);
        let mut oracle = Oracle::default();
        let mut now = Instant::from_millis(start);
        for (kind, which, millis, (flags, is_near, seq)) in steps {
            let index = oracle.0.get(usize::from(which) % 7).map_or(99, |(index, ..)| *index);
            let end = now + Duration::from_secs(60);
            match kind {
                0 => {
                    let (index, evicted) = table.insert(now, flow(which), remains(which > 100));
                    let expected = (oracle.0.len() == 6).then(|| oracle.0.remove(0).1);
                    prop_assert_eq!(evicted, expected);
                    oracle.0.push((index, flow(which), end));
                }
                1 => now += Duration::from_millis(millis),
                2 => {
                    let expected = oracle.0.first().filter(|(.., end)| *end <= now).map(|(_, flow, _)| *flow);
                    prop_assert_eq!(table.pop_expired(now), expected);
                    if expected.is_some() {
                        oracle.0.remove(0);
                    }
                }
                3 => {
                    table.remove(index);
                    oracle.0.retain(|(other, ..)| *other != index);
                }
                _ => {
                    let seq = if is_near { RCV_NXT - 1 + seq % 3 } else { Seq(seq) };
                    let segment = segment(Flags(flags), seq, SND_NXT, is_near.then_some(seq.0));
                    let verdict = table.on_segment(now, index, &segment);
                    if let TimeWaitVerdict::Reply { restarts_at: Some(at), .. } = verdict {
                        prop_assert_eq!(at, end);
                        let at = oracle.0.iter().position(|(other, ..)| *other == index).expect("known");
                        let (index, flow, _) = oracle.0.remove(at);
                        oracle.0.push((index, flow, end));
                    }
                }
            }
            prop_assert!(table.records.len() <= 6);
            prop_assert_eq!(table.len(), oracle.0.len());
            let expected: Vec<_> = oracle.0.iter().map(|(_, flow, end)| (*flow, *end)).collect();
            prop_assert_eq!(table.iter().collect::<Vec<_>>(), expected);
            prop_assert_eq!(table.next_deadline(), oracle.0.first().map(|(.., end)| *end));
        }
    }

    #[test]
    fn a_clock_at_its_ends_is_survived(
        steps in prop::collection::vec((any::<bool>(), prop::sample::select(vec![i64::MIN, -1, 0, i64::MAX])), 0..30),
    ) {
        let mut table = table(3);
        for (is_insert, micros) in steps {
            let now = Instant::from_micros(micros);
            if is_insert {
                table.insert(now, flow(2), remains(true));
            }
            table.on_segment(now, 0, &segment(Flags::ACK | Flags::FIN, RCV_NXT - 1, SND_NXT, Some(RECENT)));
            table.next_deadline();
            table.pop_expired(now);
        }
    }
}
