//! Frames made by hand, and what is said of them.

use std::num::NonZeroU16;

use wirestack::nic::meta::{Gso, GsoKind};

use super::report::Report;
use super::*;

/// An Ethernet frame with UDP over IPv4; checksums are not looked at.
fn udp(src_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let total_len = (28 + payload.len()) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total_len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(src_port.to_be_bytes());
    frame.extend(9u16.to_be_bytes());
    frame.extend((total_len - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat()
}

fn report(flows_max: usize, frames: &[(u64, Vec<u8>)], meta: &FrameMeta) -> Report {
    let mut analyzer = Analyzer::new(flows_max);
    for (nanos, frame) in frames {
        analyzer.add(*nanos, frame, meta);
    }
    analyzer.into_report()
}

const PLAIN: FrameMeta = FrameMeta {
    checksum: wirestack::nic::meta::ChecksumState::Complete,
    gso: None,
    timestamp: None,
    rx_hash: None,
    outgoing: false,
};

#[test]
fn flows_are_told_apart_and_the_largest_is_first() {
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 46]].concat();
    let mut fragment = udp(1, &[0; 40]);
    fragment[20] = 0x20;
    let frames = [
        (0, udp(1, b"a")),
        (1_000, udp(2, &[0; 100])),
        (2_000, tagged(&udp(1, b"b"))),
        (3_000, arp),
        (4_000, fragment),
        (5_000, vec![]),
        (6_000, udp(1, b"a")[..30].to_vec()),
    ];
    let report = report(10, &frames, &PLAIN);
    let flows: Vec<_> = report.flows.iter().map(|flow| (flow.src_port, flow.bursts.tally.frames)).collect();
    assert_eq!(flows, [(2, 1), (1, 2), (0, 1)]);
    assert_eq!((report.not_ip.frames, report.untracked.frames), (3, 0));
    assert_eq!(report.all.tally.frames, 7);
    let flow = &report.flows[1];
    assert_eq!((flow.src.to_string(), flow.dst.to_string()), ("10.0.0.1".to_owned(), "10.0.0.2".to_owned()));
    assert_eq!((flow.protocol.as_str(), flow.dst_port), ("udp", 9));
    assert_eq!(flow.bursts.inter_arrival_us.expect("a gap").max, 2.0);
    assert_eq!(report.flows[2].protocol, "udp", "a fragment has a protocol and no ports");
}

#[test]
fn the_table_is_bounded() {
    let frames: Vec<_> = (0..100).map(|n| (n, udp(n as u16, b"x"))).collect();
    let report = report(10, &frames, &PLAIN);
    assert_eq!((report.flows.len(), report.untracked.frames, report.all.tally.frames), (10, 90, 100));
    assert!(report.to_string().contains("flows without room"));
}

#[test]
fn super_frames_are_one_frame_and_many_packets() {
    let size = NonZeroU16::new(1000).expect("not 0");
    let gso = |kind| FrameMeta { gso: Some(Gso { kind, size, ecn: false }), ..PLAIN };
    let found = report(10, &[(0, udp(1, &[0; 4500]))], &gso(GsoKind::Udp));
    assert_eq!(found.all.tally, Tally { frames: 1, packets: 5, bytes: 4542 });
    assert_eq!(found.flows[0].bursts.packets_per_ms.expect("one").max, 5);
}

/// Seven packets of a transport stream with the counters that follow `first`.
fn stream_datagram(first: u8) -> Vec<u8> {
    (0..7).flat_map(|n| [&[0x47, 1, 0, 0x10 | (first + n) & 15][..], &[n; 184]].concat()).collect()
}

#[test]
fn transport_streams_are_looked_into() {
    let frames = [
        (0, udp(1, &stream_datagram(0))),
        (1, udp(1, &stream_datagram(7))),
        (2, udp(1, b"something else")),
        // Seven are missing.
        (3, udp(1, &stream_datagram(21 % 16))),
        (4, udp(2, b"no stream at all")),
    ];
    let found = report(10, &frames, &PLAIN);
    let stream = found.flows[0].mpeg_ts.as_ref().expect("a stream");
    assert_eq!((stream.datagrams, stream.datagrams_other, stream.packets), (3, 1, 21));
    assert_eq!((stream.continuity_errors, stream.packets_lost_min), (1, 7));
    assert_eq!((stream.pids.len(), stream.pids[0].pid), (1, 0x100));
    assert_eq!(found.flows[1].mpeg_ts, None);
    let text = found.to_string();
    assert!(text.contains("1 continuity errors, at least 7 packets lost"), "{text}");
    assert!(text.contains("PID 0x0100"), "{text}");
    // A super-frame of two datagrams is two datagrams.
    let size = NonZeroU16::new(7 * 188).expect("not 0");
    let meta = FrameMeta { gso: Some(Gso { kind: GsoKind::Udp, size, ecn: false }), ..PLAIN };
    let both = [stream_datagram(0), stream_datagram(7)].concat();
    let found = report(10, &[(0, udp(1, &both))], &meta);
    let stream = found.flows[0].mpeg_ts.as_ref().expect("a stream");
    assert_eq!((stream.datagrams, stream.continuity_errors), (2, 0));
}

#[test]
fn json_has_units_in_its_names() {
    let found = report(10, &[(0, udp(1, b"a")), (1_500_000, udp(1, b"b"))], &PLAIN);
    let json = serde_json::to_value(&found).expect("plain data");
    let flow = &json["flows"][0];
    assert_eq!(flow["inter_arrival_us"]["p50"], 1500.0);
    assert_eq!(flow["duration_seconds"], 0.0015);
    assert_eq!((&flow["frames"], &flow["packets"], &flow["src"]), (&2.into(), &2.into(), &"10.0.0.1".into()));
    assert_eq!(flow["packets_per_ms"]["max"], 1);
    assert!(flow.get("mpeg_ts").is_none());
    assert_eq!(flow["inter_arrival_histogram"][0]["count"], 1);
}
