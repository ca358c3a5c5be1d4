//! What people and programs read.

use serde_json::{Value, json};

use super::*;

fn info() -> TcpInfo {
    TcpInfo {
        state: "ESTABLISHED",
        snd_una: 1,
        snd_nxt: 2,
        snd_wnd: 65_535,
        rcv_nxt: 3,
        rcv_wnd: 131_072,
        mss: 1448,
        cwnd: 14_480,
        congestion: "cubic",
        rto: Duration::from_millis(200),
        recovery: "open",
        path_mtu: 1500,
        send_buffer_max: 4096,
        recv_buffer_max: 8192,
        ..TcpInfo::default()
    }
}

fn full() -> TcpInfo {
    TcpInfo {
        ssthresh: Some(7240),
        in_flight: 2896,
        srtt: Some(Duration::from_micros(1_234_567)),
        rttvar: Duration::from_micros(500),
        min_rtt: Some(Duration::from_millis(1)),
        rcv_rtt: Some(Duration::from_micros(20)),
        backoffs: 2,
        pacing_rate: Some(123_456_789),
        delivery_rate: Some(9_999),
        is_delivery_rate_app_limited: true,
        limited_by: LimitedBy::Receiver,
        limited_time: [Duration::from_millis(5), Duration::ZERO, Duration::from_micros(70)],
        window_scale: Some((7, 9)),
        sack: true,
        timestamps: true,
        ecn: true,
        reordering_window: Duration::from_micros(250),
        counters: InfoCounters { bytes_sent: 10, retransmits: 1, ..InfoCounters::default() },
        send_buffered: 100,
        recv_buffered: 200,
        recv_early: 300,
        ..info()
    }
}

#[test]
fn three_lines_say_it() {
    assert_eq!(
        info().to_string(),
        "ESTABLISHED cubic mss:1448 pmtu:1500 snd_una:1 snd_nxt:2 snd_wnd:65535 rcv_nxt:3 rcv_wnd:131072\n  \
         cwnd:14480 in_flight:0 rto:200ms recovery:open limited_by:application\n  \
         send_buffer:0/4096 recv_buffer:0+0/8192"
    );
    assert_eq!(
        full().to_string(),
        "ESTABLISHED cubic sack ts ecn wscale:7,9 mss:1448 pmtu:1500 snd_una:1 snd_nxt:2 snd_wnd:65535 \
         rcv_nxt:3 rcv_wnd:131072\n  \
         cwnd:14480 ssthresh:7240 in_flight:2896 rtt:1234.567ms/0.5ms min_rtt:1ms rcv_rtt:0.02ms rto:200ms \
         backoffs:2 reordering_window:0.25ms pacing_rate:123MB/s delivery_rate:9999B/s(app_limited) \
         recovery:open limited_by:receiver application_limited:5ms congestion_limited:0.07ms\n  \
         send_buffer:100/4096 recv_buffer:200+300/8192 bytes_sent:10 retransmits:1"
    );
}

#[test]
fn quantities_have_units() {
    for (micros, expected) in [(0, "0ms"), (1, "0.001ms"), (1_000, "1ms"), (61_000_100, "61000.1ms")] {
        assert_eq!(Millis(Duration::from_micros(micros)).to_string(), expected);
    }
    for (rate, expected) in [
        (0, "0B/s"),
        (10_000, "10kB/s"),
        (9_999_999, "9999kB/s"),
        (1_250_000_000, "1250MB/s"),
        (u64::MAX, "18446744073GB/s"),
    ] {
        assert_eq!(Rate(rate).to_string(), expected);
    }
}

#[test]
fn json_names_the_units() {
    let value = serde_json::to_value(full()).expect("JSON");
    for (key, expected) in [
        ("state", json!("ESTABLISHED")),
        ("srtt_us", json!(1_234_567)),
        ("rttvar_us", json!(500)),
        ("min_rtt_us", json!(1000)),
        ("rcv_rtt_us", json!(20)),
        ("rto_us", json!(200_000)),
        ("reordering_window_us", json!(250)),
        ("pacing_rate_bytes_per_s", json!(123_456_789)),
        ("delivery_rate_bytes_per_s", json!(9_999)),
        ("limited_by", json!("receiver")),
        ("limited_time_us", json!({"application": 5000, "receiver": 0, "congestion": 70})),
        ("window_scale", json!({"peer": 7, "ours": 9})),
        ("ssthresh", json!(7240)),
        ("path_mtu", json!(1500)),
    ] {
        assert_eq!(value.get(key), Some(&expected), "{key}");
    }
    assert_eq!(value["counters"]["retransmits"], json!(1));
    // What is not known is there, and says so.
    let value = serde_json::to_value(info()).expect("JSON");
    for key in ["ssthresh", "srtt_us", "min_rtt_us", "rcv_rtt_us", "pacing_rate_bytes_per_s", "window_scale"]
    {
        assert_eq!(value.get(key), Some(&Value::Null), "{key}");
    }
}
