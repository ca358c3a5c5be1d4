use std::net::SocketAddr;

use proptest::prelude::*;
use wirestack::config::parse_cidr;
use wirestack::nic::loopback::{Loopback, LoopbackConfig};
use wirestack::shard::{ShardConfig, TcpConnect, TcpListen};
use wirestack::smoltcp::time::{Duration, Instant};
use wirestack::{EthernetAddress, IpCidr};

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A connection with these: rate, bytes in, round-trip time, retransmissions, cwnd.
pub(crate) fn connection(remote: &str, figures: [u64; 5]) -> ConnectionReport {
    let [rate, bytes_in, srtt, retransmits, cwnd] = figures;
    ConnectionReport {
        shard: 0,
        local: at("10.0.0.1:80"),
        remote: at(remote),
        state: "ESTABLISHED".to_owned(),
        owner: Owner::Application,
        cwnd_bytes: cwnd,
        ssthresh_bytes: None,
        in_flight_bytes: 0,
        mss_bytes: 1_460,
        path_mtu_bytes: 1_500,
        srtt_us: (srtt > 0).then_some(srtt),
        rttvar_us: srtt / 2,
        min_rtt_us: (srtt > 0).then_some(srtt),
        rto_ms: 200,
        retransmits,
        bytes_in,
        bytes_out: 0,
        bytes_acked: 0,
        send_buffered_bytes: 0,
        recv_buffered_bytes: 0,
        delivery_rate_bits_per_second: (rate > 0).then_some(rate),
        pacing_rate_bits_per_second: None,
        congestion: "cubic".to_owned(),
        recovery: "none".to_owned(),
        limited_by: "application".to_owned(),
    }
}

#[test]
fn each_key_has_its_order() {
    let all = [
        connection("10.0.0.2:1", [10, 5, 100, 3, 7]),
        connection("10.0.0.3:1", [20, 1, 0, 9, 9]),
        connection("10.0.0.4:1", [0, 900, 300, 0, 8]),
        connection("10.0.0.1:9", [0, 7, 200, 0, 6]),
    ];
    for (sort, expected) in [
        (Sort::Rate, [3, 2, 4, 1]),
        (Sort::Rtt, [4, 1, 2, 3]),
        (Sort::Retransmits, [3, 2, 1, 4]),
        (Sort::Cwnd, [3, 4, 2, 1]),
        (Sort::Peer, [1, 2, 3, 4]),
    ] {
        let mut sorted = all.to_vec();
        super::sort(&mut sorted, Request { connections: 4, sort });
        let last_bytes: Vec<_> = sorted
            .iter()
            .map(|connection| match connection.remote.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            })
            .collect();
        assert_eq!(last_bytes, expected, "{sort}");
        assert_eq!(sort.to_string().parse(), Ok(sort));
    }
    let around = Sort::ALL.iter().fold(Sort::Rate, |sort, _| sort.next());
    assert_eq!(around, Sort::Rate);
    assert!("speed".parse::<Sort>().is_err());
}

proptest! {
    /// Whatever is thrown away on the way, those that are kept are the first of all.
    #[test]
    fn the_first_are_kept(keys in prop::collection::vec(0_u64..20, 0..200), wanted in 0_usize..30) {
        let all: Vec<_> = keys.iter().enumerate().map(|(at, key)| {
            connection(&format!("10.0.{}.{}:1", at / 200, at % 200), [*key, 0, 0, 0, 0])
        }).collect();
        let request = Request { connections: wanted, sort: Sort::Rate };
        let mut kept = Vec::new();
        for piece in all.chunks(7) {
            kept.extend_from_slice(piece);
            if kept.len() >= 2 * wanted {
                choose(&mut kept, request);
            }
        }
        sort(&mut kept, request);
        let mut expected = all;
        expected.sort_by(|one, other| Sort::Rate.order(one, other));
        expected.truncate(wanted);
        prop_assert_eq!(kept, expected);
    }
}

/// Two shards on a wire, and so many connections from the first to the second.
fn shards(connections: usize) -> [Shard; 2] {
    let mut now = Instant::from_secs(1);
    let (one, other) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    let mut nics = [one, other];
    let mut shards = [1, 2].map(|number| {
        let cidr: IpCidr = parse_cidr(&format!("10.0.0.{number}/24")).expect("an address");
        let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, number])).address(cidr);
        config.neighbor.probes = wirestack::neighbor::AddressProbes::None;
        Shard::new(config, now).expect("a shard")
    });
    shards[1].tcp_listen(TcpListen::new(at("0.0.0.0:80"))).expect("a listener");
    for _ in 0..connections {
        shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("a connection");
        for _ in 0..10 {
            for (shard, nic) in shards.iter_mut().zip(&mut nics) {
                shard.turn(now, nic, |_| {});
            }
        }
        now += Duration::from_millis(1);
    }
    shards
}

#[test]
fn a_report_of_a_shard_is_made_in_bounded_steps() {
    let shards = shards(600);
    let about = About::new("test", "packet:x");
    let figures = |shard: &Shard| Figures {
        program: vec![("accepted", 600)],
        tcp: Some(shard.tcp_counters()),
        shard: shard.counters(),
        ..Figures::default()
    };
    let mut gather = Gather::new(3, Request { connections: 10, sort: Sort::Peer });
    let mut steps = 1;
    while !gather.step(&shards[1]) {
        steps += 1;
        assert!(gather.kept.len() <= 20 + PLACES_PER_STEP as usize && steps < 100);
    }
    assert!(steps > 2, "{steps}");
    let report = gather.finish(&about, &shards[1], &figures(&shards[1]));
    assert_eq!((report.connections.len(), report.connections_len, report.shards), (10, 600, 1));
    assert_eq!((report.program.as_str(), report.nic.as_str()), ("test", "packet:x"));
    assert!(report.addresses.contains(&"10.0.0.2/24".to_owned()), "{:?}", report.addresses);
    assert_eq!(report.counters["accepted"], 600);
    assert_eq!(report.counters["tcp_passive_opens"], 600);
    assert!(report.counters["stack_rx_frames"] >= 1_200);
    let first = &report.connections[0];
    assert_eq!((first.shard, first.owner, first.state.as_str()), (3, Owner::Listener, "ESTABLISHED"));
    assert!(first.cwnd_bytes >= 10 * 1_448 && first.srtt_us.is_some(), "{first:?}");
    let [listener] = &report.listeners[..] else { panic!("{:?}", report.listeners) };
    assert_eq!((listener.local, listener.waiting, listener.shard), (at("0.0.0.0:80"), 600, 3));
    // It is the same behind the wire.
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
    // Who wants no connections costs no look at them.
    let mut gather = Gather::new(0, Request { connections: 0, sort: Sort::Rate });
    assert!(gather.step(&shards[1]));
    let none = gather.finish(&about, &shards[1], &figures(&shards[1]));
    assert_eq!((none.connections.len(), none.connections_len), (0, 600));
}

#[test]
fn reports_of_shards_are_merged() {
    let request = Request { connections: 3, sort: Sort::Retransmits };
    let report = |name: &str, retransmits: [u64; 2]| Report {
        program: "p".to_owned(),
        uptime_seconds: 1.5,
        shards: 1,
        addresses: vec!["10.0.0.1/24".to_owned()],
        counters: [("rx_frames".to_owned(), 5), (name.to_owned(), u64::MAX)].into(),
        memory: MemoryReport { pool_in_use_bytes: 7, ..MemoryReport::default() },
        connections_len: 2,
        connections: vec![
            connection("10.0.0.2:1", [0, 0, 0, retransmits[0], 0]),
            connection("10.0.0.2:2", [0, 0, 0, retransmits[1], 0]),
        ],
        ..Report::default()
    };
    let mut sum = report("tx_frames", [1, 4]);
    sum.merge(report("tx_frames", [3, 2]), request);
    sum.merge(report("drop_x", [0, 0]), request);
    assert_eq!((sum.shards, sum.connections_len, sum.memory.pool_in_use_bytes), (3, 6, 21));
    assert_eq!(sum.counters["rx_frames"], 15);
    assert_eq!((sum.counters["tx_frames"], sum.counters["drop_x"]), (u64::MAX, u64::MAX));
    let retransmits: Vec<_> = sum.connections.iter().map(|connection| connection.retransmits).collect();
    assert_eq!(retransmits, [4, 3, 2]);
    assert_eq!(sum.addresses, ["10.0.0.1/24"]);
}

/// What an older or newer program says is read as far as it goes.
#[test]
fn unknown_and_missing_fields_are_no_error() {
    let report: Report = serde_json::from_str(r#"{"program":"http","pid":7,"news":[1]}"#).expect("a report");
    assert_eq!((report.program.as_str(), report.pid, report.connections.len()), ("http", 7, 0));
}
