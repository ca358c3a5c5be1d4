//! Single cases: peers that vanish, nobody at home, both at once, one connection after the other.

use smoltcp::time::Duration;
use wirestack::shard::TcpConnect;
use wirestack::tcp::config::Keepalive;
use wirestack::tcp::{Failure, TcpOptions};
use wirestack_tests::sim::tcp::{Dial, Plan, Reading, Serve};
use wirestack_tests::sim::{LinkSpec, NicConfig, SimNic};

use crate::support::*;
use crate::tcp_path::Path;
use crate::tcp_support::*;

fn wire(millis: u64) -> [LinkSpec; 2] {
    [LinkSpec { delay: Duration::from_millis(millis), ..LinkSpec::default() }; 2]
}

/// A router's next link takes only shorter packets, and it tells nobody: probing finds it. With reports, they tell.
#[test]
fn a_path_that_swallows_long_packets_is_found() {
    for (is_v4, mtu) in [(true, 1_000), (true, 1_400), (false, 1_280), (false, 1_400)] {
        for is_silent in [true, false] {
            for changes in [false, true] {
                let name = "a_path_that_swallows_long_packets_is_found";
                let mut path = Path::new(name, 1, is_v4, [NicConfig::DEFAULT; 2], wire(5));
                let router = path.routers[0];
                path.sim.router(router).set_silent(is_silent);
                if changes {
                    let at = path.sim.now() + Duration::from_millis(60);
                    path.sim.at(at, move |sim| sim.router(router).set_mtu(1, mtu));
                } else {
                    path.sim.router(router).set_mtu(1, mtu);
                }
                let options = TcpOptions { send_buffer_max: 65_536, ..TcpOptions::default() };
                let to = std::net::SocketAddr::new(path.addresses()[1], PORT);
                let began = path.sim.now();
                let dial = Dial::new(to, options, Plan::send(3_000_000));
                let serve = Serve::new(to, options, Plan::sink());
                let took = path.run(&[dial], serve, Duration::from_secs(120)) - began;
                println!("v4 {is_v4}, MTU {mtu}, silent {is_silent}, changes {changes}: {took}");
                // Without a report it takes a few timeouts to see it.
                let bound = Duration::from_secs(if is_silent { 30 } else { 6 });
                assert!(took < bound, "v4 {is_v4}, {mtu}, silent {is_silent}, {changes}: {took}");
                assert_eq!(path.sim.ledger.tcp.failures(), 0);
                let found = path.sim.shard(path.hosts[0]).tcp_counters().black_holes;
                assert_eq!(found > 0, is_silent, "black holes found: {found}");
            }
        }
    }
}

/// The peer is there no more: by repetitions, by a user timeout, or by keepalive, the connection ends.
#[test]
fn a_peer_that_vanishes_is_given_up() {
    let keepalive = Keepalive { idle: Duration::from_secs(10), interval: Duration::from_secs(2), probes: 5 };
    let user_timeout = Some(Duration::from_secs(30));
    let base = TcpOptions { keepalive: Some(keepalive), ..TcpOptions::default() };
    // (What the client has, whether it goes on sending, seconds from and to.)
    for (options, sends, from, to) in
        [(base, false, 19, 23), (TcpOptions { user_timeout, ..base }, true, 25, 45), (base, true, 500, 1_300)]
    {
        let mut pair = Pair::new("a_peer_that_vanishes_is_given_up", 1, wire(5));
        let slow = Reading::Slow { bytes: 1_000, every: Duration::from_millis(100) };
        let plan = Plan { finishes_first: sends, ..Plan::send(if sends { 1 << 30 } else { 10 }) };
        let serve = Plan { reading: if sends { slow } else { Reading::AtOnce }, ..Plan::sink() };
        let dial = Dial::new(server(true), options, plan);
        let reports = pair.start(&[dial], Serve::new(server(true), base, serve));
        pair.sim.run_for(Duration::from_secs(1));
        assert_eq!(reports[1].borrow().flows.len(), 1);
        let cut = pair.sim.now();
        pair.sim.set_link_cut(pair.link, true);
        pair.finish(Duration::from_secs(3_000), &reports);
        let flow = reports[0].borrow().flows[0];
        // With the wire cut next to it, the neighbour is the reason that is known.
        let is_told = matches!(flow.outcome, Some(Err(Failure::TimedOut | Failure::HostUnreachable)));
        assert!(is_told, "{flow:?}");
        let took = flow.ended.expect("it is over") - cut;
        let is_right = took >= Duration::from_secs(from) && took <= Duration::from_secs(to);
        assert!(is_right, "{took}, {from} to {to} s are right");
    }
}

/// Nobody listens: refused at once. Nobody is there: given up after two minutes, with the SYN sent seven times.
#[test]
fn nobody_is_at_home() {
    for is_v4 in [true, false] {
        let mut pair = Pair::new("nobody_is_at_home", 1, wire(5));
        let options = TcpOptions::default();
        let mut closed = server(is_v4);
        closed.set_port(81);
        let nobody = std::net::SocketAddr::new(host_ip(77, is_v4), PORT);
        let dials = [Dial::new(closed, options, Plan::send(10)), Dial::new(nobody, options, Plan::send(10))];
        let reports = pair.start(&dials, Serve::new(server(is_v4), options, Plan::sink()));
        pair.finish(Duration::from_secs(300), &reports);
        let report = reports[0].borrow();
        let [refused, silent] = [report.flows[0], report.flows[1]];
        assert_eq!(refused.outcome, Some(Err(Failure::Refused)));
        assert!(refused.ended.expect("over") - refused.began < Duration::from_millis(100));
        // Either the neighbour is told to be unreachable, or the SYN is given up.
        let is_right = matches!(silent.outcome, Some(Err(Failure::TimedOut | Failure::HostUnreachable)));
        assert!(is_right, "{:?}", silent.outcome);
        assert!(silent.ended.expect("over") - silent.began <= Duration::from_secs(130));
        // A host that is there, and whose wire is cut.
        let mut pair = Pair::new("nobody_is_at_home", 1, wire(5));
        let warm = Dial::new(server(is_v4), options, Plan::send(10));
        let late = Dial { after: Duration::from_secs(1), ..warm };
        let reports = pair.start(&[warm, late], Serve::new(server(is_v4), options, Plan::sink()));
        pair.sim.run_for(Duration::from_millis(500));
        pair.sim.set_link_cut(pair.link, true);
        pair.finish(Duration::from_secs(300), &reports);
        let lost = reports[0].borrow().flows[1];
        assert!(lost.outcome.is_some_and(|outcome| outcome.is_err()), "{lost:?}");
    }
}

/// Both ends connect to each other at once (RFC 9293 section 3.5, figure 7).
#[test]
fn both_open_at_once() {
    for (is_v4, delay) in [(true, 0), (true, 20), (false, 20)] {
        let mut pair = Pair::new("both_open_at_once", 1, wire(delay));
        let ends = [1, 2].map(|number| std::net::SocketAddr::new(host_ip(number, is_v4), 5_000));
        // Neighbours are found first, so that the SYNs cross.
        for (host, other) in [(0, 1), (1, 0)] {
            let to = std::net::SocketAddr::new(ends[other].ip(), 9);
            let connect = TcpConnect { remote: to, local: None, options: TcpOptions::default() };
            pair.sim.with_shard(pair.hosts[host], 0, |shard| {
                shard.tcp_connect(connect).expect("begun");
            });
        }
        pair.sim.run_for(Duration::from_secs(1));
        let ids = [0, 1].map(|host| {
            let connect = TcpConnect {
                remote: ends[1 - host],
                local: Some(ends[host]),
                options: TcpOptions::default(),
            };
            pair.sim.with_shard(pair.hosts[host], 0, |shard| shard.tcp_connect(connect).expect("begun"))
        });
        pair.sim.run_for(Duration::from_secs(3));
        for host in [0, 1] {
            let ready = pair.sim.shard(pair.hosts[host]).tcp_readiness(ids[host]);
            assert!(ready.connected, "{ready:?}");
            let text = format!("from {host}");
            pair.sim.with_shard(pair.hosts[host], 0, |shard| {
                assert_eq!(shard.tcp_send(ids[host], text.as_bytes()), Ok(text.len()));
            });
        }
        pair.sim.run_for(Duration::from_secs(1));
        // And both finish at once (figure 13).
        for host in [0, 1] {
            let got = pair.sim.with_shard(pair.hosts[host], 0, |shard| {
                let mut room = [0; 100];
                let len = shard.tcp_recv(ids[host], &mut room).expect("no failure").expect("data");
                shard.tcp_finish(ids[host]);
                room[..len].to_vec()
            });
            assert_eq!(got, format!("from {}", 1 - host).into_bytes());
        }
        pair.sim.run_for(Duration::from_secs(1));
        for host in [0, 1] {
            let ready = pair.sim.shard(pair.hosts[host]).tcp_readiness(ids[host]);
            assert!(
                ready.closed && pair.sim.shard(pair.hosts[host]).tcp_failure(ids[host]).is_none(),
                "{ready:?}"
            );
        }
    }
}

/// Many short connections, one after the other and some at a time. Where the server closes first, TIME-WAIT is there, and
/// must not be in the way of a client that has few ports (RFC 6191).
#[test]
fn ten_thousand_connections_in_turn() {
    let count = if IS_FAST { 10_000 } else { 1_000 };
    let asks = [Plan::ask(1, 100, 1_000), Plan::answer(100, 1_000)];
    let takes = [Plan::sink(), Plan::send(1_000)];
    for (ports, at_a_time, [client, served]) in
        [(32_768..=60_999_u16, 20, asks), (40_000..=40_099, 10, takes)]
    {
        let tune = |config: &mut wirestack::shard::ShardConfig| {
            config.source_ports.range = ports.clone();
        };
        let nics = [NicConfig::DEFAULT, SimNic::offloading()];
        let mut pair = Pair::with("ten_thousand_connections_in_turn", 1, wire(1), nics, tune);
        pair.sim.set_light(16);
        let options = TcpOptions::default();
        let dial = Dial::new(server(true), options, client).times(count, at_a_time);
        let serve = Serve::new(server(true), options, served);
        let reports = pair.start(&[dial], serve);
        let began = pair.sim.now();
        let took = pair.finish(Duration::from_secs(3_000), &reports) - began;
        let report = reports[0].borrow();
        println!("{count} from {} ports: {took}, refused {}", ports.len(), report.refused.len());
        assert_eq!(report.flows.len(), count, "{:?}", report.refused.first());
        assert_eq!(report.failures(), []);
        // Three round trips each, and timeouts of those who came too early.
        assert!(took < Duration::from_secs(60), "{took}");
        let reused = pair.sim.shard(pair.hosts[1]).tcp_counters().time_waits_reused;
        assert_eq!(reused > 0, ports.len() == 100, "{reused} were reused");
    }
}

/// A reader that takes its time shuts the window; what is sent is bounded by it, and nothing is lost.
#[test]
fn a_slow_reader_holds_its_sender_back() {
    for recv_buffer in [1_000, 4_000, 65_535] {
        let mut pair = Pair::new("a_slow_reader_holds_its_sender_back", 1, wire(5));
        let options = TcpOptions { recv_buffer, recv_buffer_max: recv_buffer, ..TcpOptions::default() };
        let reading = Reading::Slow { bytes: 500, every: Duration::from_millis(20) };
        let dial = Dial::new(server(true), options, Plan::send(200_000));
        let sink = Plan { reading, ..Plan::sink() };
        let reports = pair.start(&[dial], Serve::new(server(true), options, sink));
        pair.sim.run_for(Duration::from_secs(2));
        let (sent, came) = (reports[0].borrow().flows[0].sent, reports[1].borrow().received());
        assert!((40_000..=51_000).contains(&came), "{came}");
        assert!(sent > came);
        pair.finish(Duration::from_secs(60), &reports);
        assert_eq!(pair.sim.ledger.tcp.failures(), 0);
    }
}

/// A reader that does not read at all for an hour: the window is probed, and the peer answers, so that the connection
/// lives (RFC 9293 section 3.8.6.1).
#[test]
fn a_shut_window_is_probed_for_ever() {
    let mut pair = Pair::new("a_shut_window_is_probed_for_ever", 1, wire(5));
    let options = TcpOptions { recv_buffer: 5_000, recv_buffer_max: 5_000, ..TcpOptions::default() };
    let sink = Plan { reading: Reading::Late(Duration::from_secs(3_600)), ..Plan::sink() };
    let dial = Dial::new(server(true), options, Plan::send(100_000));
    let reports = pair.start(&[dial], Serve::new(server(true), options, sink));
    pair.finish(Duration::from_secs(4_000), &reports);
    assert_eq!(pair.sim.ledger.tcp.failures(), 0);
    let probes = pair.sim.shard(pair.hosts[0]).tcp_counters().window_probes;
    assert!((20..200).contains(&probes), "{probes} probes");
}
