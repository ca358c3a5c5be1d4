//! TCP on a serial line: what it is to reach, in simulated time, so that a figure is the same on every machine. The devices
//! are those of the programs, only the ports are simulated; payload is random, TCP is as its profile of the line says.

use std::fmt::Write as _;

use smoltcp::time::{Duration, Instant};
use wirestack::shard::UdpBind;
use wirestack::tcp::{Algorithm, TcpOptions};
use wirestack_tests::sim::serial::SerialSim;
use wirestack_tests::sim::tcp::{Dial, Gate, Plan, Serve, TcpApp, stuck};
use wirestack_tests::sim::{App, seeds};

use crate::serial_support::*;
use crate::support::*;
use crate::tcp_support::IS_FAST;

const BAUD: u32 = 115_200;
const SEEDS: u64 = if IS_FAST { 3 } else { 1 };
const TIME: Duration = Duration::from_secs(if IS_FAST { 200 } else { 60 });

/// The part of the line's bytes that can be payload: two bytes of 256 are escaped by SLIP, one END is at the end of a
/// frame, and headers of IP and TCP are 40 bytes, or with RFC 1144 the mask of changes, the checksum of TCP and no change
/// at all (its special case of data in one direction): `p / (p * 258 / 256 + headers + 1)`.
fn headers_allow(mtu: u16, is_cslip: bool) -> f64 {
    let payload = f64::from(mtu) - 40.0;
    let headers = if is_cslip { 3.0 } else { 40.0 };
    payload / (payload * 258.0 / 256.0 + headers + 1.0)
}

/// The parts of the line that one connection gets, by the chance that a frame is lost, either way.
#[test]
fn bulk_gets_most_of_the_line() {
    let mut missed = String::new();
    for (is_cslip, loss, wanted) in [
        (false, 0.0, 0.90),
        (true, 0.0, 0.95),
        (false, 0.01, 0.75),
        (true, 0.01, 0.75),
        (false, 0.05, 0.40),
        (true, 0.05, 0.40),
    ] {
        let setup = Setup::new(BAUD, 1_006).cslip(is_cslip).loss(loss);
        let got = goodput(&setup, SEEDS, TIME) / setup.rate();
        println!("cslip {is_cslip}, {loss} lost: {got:.3} of the line");
        // What is lost arrives nowhere else, nor do with RFC 1144 those behind it up to a whole header; what TCP adds to that
        // is a tenth of the line at the very most.
        let gone = loss * if is_cslip { 5.0 } else { 3.0 };
        let wanted = f64::max(wanted, (headers_allow(1_006, is_cslip) - gone) * 0.9);
        if got < wanted {
            missed += &format!("cslip {is_cslip}, {loss} lost: {got:.3} of {wanted:.3}\n");
        }
    }
    for is_cslip in [false, true] {
        let setup = Setup::new(BAUD, 296).cslip(is_cslip);
        let got = goodput(&setup, SEEDS, TIME) / setup.rate() / headers_allow(296, is_cslip);
        println!("cslip {is_cslip}, MTU 296: {got:.3} of what headers allow");
        if got < 0.95 {
            missed += &format!("cslip {is_cslip}, MTU 296: {got:.3} of what headers allow\n");
        }
    }
    assert!(missed.is_empty(), "{missed}");
}

#[test]
fn other_rates_are_filled_too() {
    for (baud, mtu) in [(1_200, 296), (9_600, 296), (9_600, 1_006), (3_000_000, 1_500)] {
        for is_cslip in [false, true] {
            let setup = Setup::new(baud, mtu).cslip(is_cslip);
            let time = if baud > 1_000_000 { Duration::from_secs(10) } else { Duration::from_secs(300) };
            let got = goodput(&setup, 1, time) / setup.rate() / headers_allow(mtu, is_cslip);
            println!("{baud} baud, MTU {mtu}, cslip {is_cslip}: {got:.3} of what headers allow");
            // Of the slowest line, opening the connection and whole headers take a part that can be seen.
            let wanted = if baud < 9_600 { 0.90 } else { 0.95 };
            assert!(
                got >= wanted,
                "{baud} baud, MTU {mtu}, cslip {is_cslip}: {got:.3} of what headers allow"
            );
        }
    }
    // A line without a rate is as fast as its ends are.
    let setup = Setup::new(0, 1_500);
    let mut sim = setup.sim(1);
    let dial = Dial::new(second(80), setup.options, Plan::send(20_000_000));
    let (app, report) = TcpApp::new().dial(dial).start();
    sim.add_app(0, app);
    sim.add_app(1, TcpApp::new().serve(Serve::new(second(80), setup.options, Plan::sink())).start().0);
    assert!(sim.run_while(Duration::from_secs(5), |_| report.borrow().is_done()), "{report:?}");
}

/// The 99th percentile of an echo of one byte, with bulk connections from the first host (who types) to the second one
/// and back, in times of `2 * frame + round trip of the idle line`.
fn echo_in_bulk(setup: &Setup, seed: u64, bulks: [usize; 2]) -> f64 {
    let mut times = [[0, 0], bulks].map(|bulks| {
        let mut sim = setup.sim(seed);
        let typed = typist(&mut sim, 0, second(7), setup.options);
        echo(&mut sim, 1, 7, setup.options);
        for (from, count) in bulks.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            bulk(&mut sim, setup, from, count);
        }
        sim.run_for(Duration::from_secs(300));
        let typed = typed.borrow().clone();
        assert!(typed.len() > 200, "{bulks:?}: {} keys in 300 s", typed.len());
        typed
    });
    let idle = percentile(&times[0], 0.5);
    times[1].drain(..10);
    percentile(&times[1], 0.99) / (2.0 * setup.frame_seconds() + idle)
}

#[test]
fn a_key_stroke_passes_bulk() {
    let mut missed = String::new();
    for is_cslip in [false, true] {
        let setup = Setup::new(BAUD, 1_006).cslip(is_cslip);
        for bulks in [[0, 1], [1, 0], [1, 1], [0, 6], [30, 0], [6, 6]] {
            let got = (0..SEEDS.min(2)).map(|seed| echo_in_bulk(&setup, seed, bulks)).fold(0.0, f64::max);
            println!("cslip {is_cslip}, {bulks:?}: p99 {got:.3}");
            if got > 1.2 {
                missed += &format!("cslip {is_cslip}, {bulks:?}: p99 {got:.3} times, not 1.2\n");
            }
        }
    }
    assert!(missed.is_empty(), "{missed}");
}

#[test]
fn bulk_connections_share_the_line() {
    for count in [2, 8, 24] {
        let setup = Setup::new(BAUD, 1_006);
        let mut sim = setup.sim(1);
        let served = bulk(&mut sim, &setup, 0, count);
        sim.run_for(TIME * 3);
        let shares: Vec<f64> = served.borrow().flows.iter().map(|flow| flow.received as f64).collect();
        let (sum, squares): (f64, f64) =
            (shares.iter().sum(), shares.iter().map(|share| share * share).sum());
        let (index, used) =
            (sum * sum / (count as f64 * squares), sum / (TIME * 3).total_millis() as f64 * 1e3);
        println!("{count} connections: {index:.4}, {:.3} of the line", used / setup.rate());
        assert_eq!(shares.len(), count);
        assert!(index > 0.98, "{count} connections: {shares:.0?}");
        assert!(used > 0.90 * setup.rate(), "{count} connections: {:.3} of the line", used / setup.rate());
    }
}

/// The first host sends datagrams as fast as they are taken, for ever. Returns how many bytes of them arrive.
fn flood(sim: &mut SerialSim, len: usize) -> Shared<u64> {
    let count = shared(0);
    let counted = count.clone();
    let (mut sender, mut receiver) = (None, None);
    let payload = vec![7; len];
    let app: App = Box::new(move |shard, context| {
        let id = *sender.get_or_insert_with(|| shard.udp_bind(UdpBind::new(any(true))).expect("a port"));
        while shard.udp_send_to(id, &payload, second(9)).is_ok() {}
        Some(context.now + Duration::from_millis(5))
    });
    sim.add_app(0, app);
    let app: App = Box::new(move |shard, _| {
        let bind = UdpBind::new(second(9));
        let id = *receiver.get_or_insert_with(|| shard.udp_bind(bind).expect("the port is free"));
        while let Some(len) = shard.udp_recv_with(id, |_, payload| payload.len()) {
            *counted.borrow_mut() += len as u64;
        }
        None
    });
    sim.add_app(1, app);
    count
}

#[test]
fn a_flood_of_datagrams_starves_nobody() {
    let setup = Setup::new(BAUD, 1_006);
    let mut sim = setup.sim(1);
    let flooded = flood(&mut sim, 900);
    let served = bulk(&mut sim, &setup, 0, 2);
    let typed = typist(&mut sim, 0, second(7), setup.options);
    echo(&mut sim, 1, 7, setup.options);
    sim.run_for(TIME);
    let seconds = TIME.total_millis() as f64 / 1e3;
    let tcp = served.borrow().received() as f64 / seconds / setup.rate();
    let datagrams = *flooded.borrow() as f64 / seconds / setup.rate();
    let worst = percentile(&typed.borrow(), 0.99);
    println!("TCP {tcp:.3}, UDP {datagrams:.3} of the line; a key takes {worst:.3} s");
    assert!(tcp > 0.42 && datagrams > 0.25, "TCP {tcp:.3}, UDP {datagrams:.3} of the line");
    assert!(worst < 1.2 * 2.0 * setup.frame_seconds() + 0.02, "{worst:.3} s");
}

/// Transfers both ways at a time, until all has arrived. Returns how long it took.
fn exchange(setup: &Setup, seed: u64, bytes: u64, limit: Duration) -> f64 {
    let mut sim = setup.sim(seed);
    let began = sim.now();
    let serve = |port| Serve::new(port, setup.options, Plan { send_bytes: bytes, ..Plan::sink() });
    let dial = |port| Dial::new(port, setup.options, Plan { finishes_first: true, ..Plan::send(bytes) });
    let (app, one) = TcpApp::new().dial(dial(second(80))).serve(serve(first(81))).start();
    sim.add_app(0, app);
    let (app, other) = TcpApp::new().dial(dial(first(81))).serve(serve(second(80))).start();
    sim.add_app(1, app);
    let reports = [one.clone(), other.clone()];
    let is_done = sim.run_while(limit, |_| reports.iter().all(|report| report.borrow().is_done()));
    if !is_done {
        panic!("not done: {}\n{}", stuck(sim.shard(0), &one), stuck(sim.shard(1), &other));
    }
    sim.ledger.tcp.check_end().expect("all has arrived");
    assert_eq!(sim.ledger.tcp.failures(), 0, "{:?}", sim.ledger.tcp.failed());
    (sim.now() - began).total_millis() as f64 / 1e3
}

/// SLIP has no checksum, and that of TCP does not see two wrong bits in a column: where there are many, both ends have
/// the CRC.
#[test]
fn wrong_and_lost_bytes_are_repaired() {
    let bytes = 300_000;
    for (bit_errors, dropped_bytes, has_crc) in [
        (1e-5, 0.0, false),
        (0.0, 1e-5, false),
        (1e-5, 1e-5, true),
        (1e-4, 0.0, true),
        (0.0, 1e-4, true),
        (1e-4, 1e-4, true),
    ] {
        for is_cslip in [false, true] {
            for seed in seeds(SEEDS) {
                let mut setup = Setup { has_crc, ..Setup::new(BAUD, 296).cslip(is_cslip) };
                (setup.spec.bit_errors, setup.spec.dropped_bytes) = (bit_errors, dropped_bytes);
                let took = exchange(&setup, seed, bytes, Duration::from_secs(600));
                if seed == 0 {
                    println!("{bit_errors} wrong, {dropped_bytes} lost, cslip {is_cslip}: {took:.1} s");
                }
            }
        }
    }
}

#[test]
fn one_end_at_a_time_can_be_enough() {
    for (turn_around, baud) in [(1, BAUD), (5, BAUD), (20, 9_600)] {
        let mut setup = Setup::new(baud, 296);
        setup.spec.turn_around = Some(Duration::from_millis(turn_around));
        let one_way = goodput(&setup, 1, TIME) / setup.rate();
        let took = exchange(&setup, 1, 100_000, Duration::from_secs(3_000));
        let both_ways = 400_000.0 / took / setup.rate();
        println!("{baud} baud, {turn_around} ms: {one_way:.3} one way, {both_ways:.3} both ways");
        assert!(one_way > 0.45, "{baud} baud, {turn_around} ms: {one_way:.3} of the line");
        assert!(both_ways > 0.35, "{baud} baud, {turn_around} ms: {both_ways:.3} of the line both ways");
    }
}

/// A day on which adapters are pulled out and plugged in again. Whatever is sent, arrives.
#[test]
fn a_day_of_unplugging_loses_no_byte() {
    let hours = if IS_FAST { 24 } else { 2 };
    for (seed, is_cslip) in [(1, false), (2, true)] {
        let setup = Setup::new(BAUD, 1_006).cslip(is_cslip).loss(0.001);
        let mut sim = setup.sim(seed);
        let day = Duration::from_secs(hours * 3_600);
        let unplugged = unplug_now_and_then(&mut sim, day);
        // One that says something now and then all day, and one after the other that have much to say, both ways.
        let every = Duration::from_secs(20);
        let talk = Plan { gate: Gate::Trickle { bytes: 100, every }, ..Plan::send(100 * (hours * 180)) };
        let talks = Dial::new(second(80), setup.options, talk);
        let transfers = Dial {
            every: Duration::from_secs(120),
            ..Dial::new(second(81), setup.options, Plan::send(40_000)).times(hours as usize * 20, 8)
        };
        let both = Plan { send_bytes: 40_000, ..Plan::sink() };
        let (app, report) = TcpApp::new().dial(talks).dial(transfers).start();
        sim.add_app(0, app);
        let talks = Serve::new(second(80), setup.options, talk);
        let app = TcpApp::new().serve(talks).serve(Serve::new(second(81), setup.options, both)).start().0;
        sim.add_app(1, app);
        let is_done = sim.run_while(day + Duration::from_secs(7_200), |_| report.borrow().is_done());
        assert!(is_done, "{}", stuck(sim.shard(0), &report));
        sim.run_for(Duration::from_secs(600));
        sim.ledger.tcp.check_end().expect("all has arrived");
        assert_eq!(sim.ledger.tcp.failures(), 0, "{:?}", sim.ledger.tcp.failed());
        let losses = sim.counters(0).line_losses + sim.counters(1).line_losses;
        println!("unplugged {unplugged} times, {losses} of them noticed; {} turns", sim.turns);
        assert!(unplugged > hours * 4 && losses == unplugged, "{unplugged} {losses}");
    }
}

/// About every six minutes, for up to three minutes, at either end or at both.
fn unplug_now_and_then(sim: &mut SerialSim, time: Duration) -> u64 {
    let (mut at, end) = (sim.now(), sim.now() + time);
    let mut count = 0;
    loop {
        let wait = Duration::from_millis(u64::from(sim.random().below(720_000)));
        let away = Duration::from_millis(1 + u64::from(sim.random().below(180_000)));
        let hosts = sim.random().below(3);
        at += wait;
        if at + away > end {
            return count;
        }
        for host in [0, 1].into_iter().filter(|host| hosts != 1 - *host as u32) {
            sim.at(at, move |sim| sim.set_plugged(host, false));
            sim.at(at + away, move |sim| sim.set_plugged(host, true));
            count += 1;
        }
        at += away + Duration::from_secs(1);
    }
}

/// When data comes again after a plug was out for `away`, and that it does.
fn comes_back_after(host: usize, away: Duration, options: impl Fn(&mut TcpOptions)) -> f64 {
    let mut setup = Setup::new(BAUD, 1_006);
    options(&mut setup.options);
    let mut sim = setup.sim(1);
    let served = bulk(&mut sim, &setup, 0, 2);
    sim.run_for(Duration::from_secs(10));
    sim.set_plugged(host, false);
    sim.run_for(away);
    sim.set_plugged(host, true);
    let (back, before) = (sim.now(), served.borrow().received());
    let comes = served.clone();
    let is_done = sim.run_while(Duration::from_secs(60), |_| comes.borrow().received() > before + 20_000);
    assert!(is_done, "host {host} was away for {away}: nothing comes in a minute");
    (sim.now() - back).total_millis() as f64 / 1e3
}

#[test]
fn a_line_that_comes_back_is_used_at_once() {
    // 20 KB take 1.8 s, and a port is looked for twice a second. The other host's port is seen by nobody here.
    for (host, away, wanted) in [(0, 5, 3.0), (0, 100, 3.0), (0, 800, 3.0), (1, 100, 12.0), (1, 600, 12.0)] {
        let got = comes_back_after(host, Duration::from_secs(away), |_| {});
        println!("host {host}, away for {away} s: {got:.2} s");
        assert!(got < wanted, "host {host}, away for {away} s: {got:.2} s");
    }
}

/// Who has repeated into the void until his timer is slow, and learns that the line has come back, waits for no timer.
#[test]
fn a_timer_that_has_backed_off_is_not_waited_for() {
    let mut slowest = 0.0;
    for more in 0..8 {
        let setup = Setup::new(BAUD, 1_006);
        let mut sim = setup.sim(1);
        let served = bulk(&mut sim, &setup, 0, 2);
        sim.run_for(Duration::from_secs(10));
        sim.set_plugged(1, false);
        sim.run_for(Duration::from_secs(100 + more));
        sim.set_plugged(0, false);
        sim.run_for(Duration::from_millis(300));
        [0, 1].into_iter().for_each(|host| sim.set_plugged(host, true));
        let (back, before) = (sim.now(), served.borrow().received());
        let comes = served.clone();
        let is_done = sim.run_while(Duration::from_secs(60), |_| comes.borrow().received() > before + 5_000);
        assert!(is_done, "after {more} s more, nothing comes in a minute");
        slowest = f64::max(slowest, (sim.now() - back).total_millis() as f64 / 1e3);
    }
    println!("{slowest:.2} s");
    assert!(slowest < 2.0, "{slowest:.2} s");
}

/// Without a user timeout a connection is given up after so many repetitions; what was never sent is none.
#[test]
fn what_cannot_be_sent_is_not_counted() {
    let got = comes_back_after(0, Duration::from_secs(7_200), |options| {
        // Whose port is there would find the peer silent.
        (options.user_timeout, options.keepalive) = (None, None);
    });
    assert!(got < 3.0, "{got}");
}

/// Goodput in percent of the line, with what headers allow beside it.
fn table() -> String {
    let mut table = String::from(
        "Bytes of payload in percent of the line's, one connection, random payload\n\
         \x20                          headers |  no frame lost   |    1 % lost     |    5 % lost\n\
         \x20  baud   mtu  framing     allow | reno cubic  bbr | reno cubic  bbr | reno cubic  bbr\n",
    );
    for (baud, mtu) in [(9_600, 296), (BAUD, 296), (BAUD, 1_006), (3_000_000, 1_500)] {
        for is_cslip in [false, true] {
            let name = if is_cslip { "cslip" } else { "slip" };
            let allowed = 100.0 * headers_allow(mtu, is_cslip);
            let _ = write!(table, "{baud:>8} {mtu:>5}  {name:<8} {allowed:>7.1}");
            for loss in [0.0, 0.01, 0.05] {
                table += " |";
                for congestion in [Algorithm::Reno, Algorithm::Cubic, Algorithm::Bbr] {
                    let mut setup = Setup::new(baud, mtu).cslip(is_cslip).loss(loss);
                    setup.options.congestion = congestion;
                    // As many frames at each rate.
                    let time = Duration::from_millis((setup.frame_seconds() * 1_500.0 * 1e3) as u64);
                    let got = goodput(&setup, 1, time) / setup.rate();
                    let _ = write!(table, " {:>4.0}", 100.0 * got);
                }
            }
            table += "\n";
        }
    }
    table
}

/// The table of goodput is what it was when somebody looked at it. `SERIAL_TABLE=write` writes it anew.
#[test]
fn the_table_of_goodput() {
    if !IS_FAST {
        return;
    }
    let table = table();
    println!("{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/serial_table.txt");
    if std::env::var_os("SERIAL_TABLE").is_some() {
        std::fs::write(path, &table).expect("the table can be written");
    }
    let known = std::fs::read_to_string(path).expect("there is a table");
    assert!(known == table, "it was:\n{known}\nit is:\n{table}\nSERIAL_TABLE=write takes it as it is");
}

/// The same seed is the same run.
#[test]
fn a_seed_repeats_a_run() {
    let run = || {
        let setup = Setup::new(BAUD, 576).cslip(true).loss(0.02);
        let mut sim = setup.sim(5);
        let served = bulk(&mut sim, &setup, 0, 3);
        sim.run_until(Instant::from_secs(60));
        let received: Vec<u64> = served.borrow().flows.iter().map(|flow| flow.received).collect();
        (received, sim.turns, sim.line().losses(0), sim.line().losses(1))
    };
    assert_eq!(run(), run());
}
