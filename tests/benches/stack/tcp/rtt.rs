//! 64 bytes there and back. Every end has a core of its own and never sleeps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use wirestack::shard::{TcpConnect, TcpListen};
use wirestack_apps::testbed::has_ipv6;
use wirestack_nic::{AfPacketConfig, wait};

use super::place::Place;
use super::{CLIENT_CORE, PORT, SERVER_CORE, Who};
use crate::frames::PAYLOAD_BYTES;
use crate::table::{Table, pin};
use crate::wire::End;
use crate::{Outcome, median};

const REPEATS: usize = 7;
/// Round trips of a repeat, after a tenth of that to warm up.
const TRIPS: usize = 10_000;

/// Client, server, and the share of the kernel's time that is the target.
const CASES: [(&str, Who, Who, f64); 3] = [
    ("kernel at both ends", Who::Kernel, Who::Kernel, 1.0),
    ("our server, the kernel's client", Who::Kernel, Who::Ours, 0.75),
    ("our stack at both ends", Who::Ours, Who::Ours, 0.55),
];

pub(crate) fn all() -> Outcome {
    for is_v6 in [false, true] {
        if is_v6 && !has_ipv6() {
            println!("  IPv6 not measured: this kernel has none");
            continue;
        }
        let mut figures: [(Vec<f64>, Vec<f64>); CASES.len()] = Default::default();
        for _ in 0..REPEATS {
            for ((_, client, server, _), (p50, p99)) in CASES.into_iter().zip(&mut figures) {
                let mut times = trips(is_v6, client, server)?;
                times.sort_unstable_by(f64::total_cmp);
                p50.push(times[times.len() / 2]);
                p99.push(times[times.len() * 99 / 100]);
            }
        }
        let (mut table, mut lowest) = (Table::default(), None);
        let family = if is_v6 { "IPv6" } else { "IPv4" };
        for ((name, .., target), (p50, p99)) in CASES.into_iter().zip(figures) {
            // Other programs only make it slower, so the fastest run is the one that they left alone.
            let low = p50.iter().copied().fold(f64::MAX, f64::min);
            let aim = if target < 1.0 { format!("; target x{target}") } else { String::new() };
            let lowest = *lowest.get_or_insert(low);
            let remark = format!(
                "p99 {:.1} us; the lowest p50 of {REPEATS} runs {low:.2}, x{:.2}{aim}",
                median(p99),
                low / lowest
            );
            table.line(&format!("{name}, {family}"), median(p50), "us p50", &remark);
        }
    }
    Ok(())
}

/// Round trips in microseconds.
fn trips(is_v6: bool, client: Who, server: Who) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let place = Place::new(is_v6, client, server)?;
    let to = place.to;
    let done = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let echo = match server {
        Who::Kernel => {
            let listener = place.wire.at_ours(|| TcpListener::bind(to))?;
            ready.send(())?;
            let done = done.clone();
            thread::spawn(move || kernel_echo(&listener, &done))
        }
        Who::Ours => {
            let (end, done) = (place.server.clone(), done.clone());
            place.wire.ours().namespace().spawn(move || our_echo(&end, &ready, &done))
        }
    };
    is_ready.recv()?;
    let times = match client {
        Who::Kernel => {
            let stream = place.wire.at_peer(|| TcpStream::connect(to))?;
            thread::spawn(move || kernel_client(stream)).join().map_err(|_| "the client panicked")?
        }
        Who::Ours => {
            let end = place.client.clone();
            place.wire.at_peer(move || our_client(&end, to))
        }
    };
    done.store(true, Ordering::Relaxed);
    echo.join().map_err(|_| "the echo panicked")?;
    Ok(times.into_iter().skip(TRIPS / 10).collect())
}

fn spinning(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
}

fn kernel_echo(listener: &TcpListener, done: &AtomicBool) {
    pin(SERVER_CORE);
    let Ok((mut stream, _)) = listener.accept() else { return };
    spinning(&stream);
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => drop(stream.write_all(&buffer[..len])),
            Err(_) => std::hint::spin_loop(),
        }
    }
}

fn kernel_client(mut stream: TcpStream) -> Vec<f64> {
    pin(CLIENT_CORE);
    spinning(&stream);
    let mut buffer = [0; 2048];
    let mut times = Vec::with_capacity(TRIPS + TRIPS / 10);
    while times.len() < TRIPS + TRIPS / 10 {
        let start = Instant::now();
        stream.write_all(&[0x55; PAYLOAD_BYTES]).expect("it is open");
        let mut got = 0;
        while got < PAYLOAD_BYTES && start.elapsed() < PATIENCE {
            match stream.read(&mut buffer) {
                Ok(len) => got += len,
                Err(_) => std::hint::spin_loop(),
            }
        }
        assert_eq!(got, PAYLOAD_BYTES, "the answer is late");
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    times
}

fn our_echo(end: &End, ready: &Sender<()>, done: &AtomicBool) {
    pin(SERVER_CORE);
    let (mut shard, mut nic) = end.open(AfPacketConfig::default());
    let listener = shard.tcp_listen(TcpListen::new((end.address, PORT).into())).expect("a port");
    ready.send(()).expect("somebody waits");
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        shard.turn(wait::now(), &mut nic, |shard| {
            while let Some(event) = shard.next_event() {
                if event.socket == listener {
                    while shard.tcp_accept(listener).is_some() {}
                } else if let Ok(Some(len @ 1..)) = shard.tcp_recv(event.socket, &mut buffer) {
                    let _ = shard.tcp_send(event.socket, &buffer[..len]);
                }
            }
        });
    }
}

fn our_client(end: &End, to: SocketAddr) -> Vec<f64> {
    pin(CLIENT_CORE);
    let (mut shard, mut nic) = end.open(AfPacketConfig::default());
    let mut times = Vec::with_capacity(TRIPS + TRIPS / 10);
    let mut buffer = [0; PAYLOAD_BYTES];
    let stream = shard.tcp_connect(TcpConnect::new(to)).expect("there is a way");
    let (mut start, mut turns, mut has_begun) = (Instant::now(), 0_u32, false);
    while times.len() < TRIPS + TRIPS / 10 {
        shard.turn(wait::now(), &mut nic, |shard| {
            turns = turns.wrapping_add(1);
            let has_event = shard.next_event().is_some();
            let is_back = has_event && matches!(shard.tcp_recv(stream, &mut buffer), Ok(Some(PAYLOAD_BYTES)));
            if is_back {
                times.push(start.elapsed().as_nanos() as f64 / 1e3);
            }
            if is_back || has_event && !has_begun && shard.tcp_readiness(stream).connected {
                // The next one leaves in the turn in which the last one came.
                (start, has_begun) = (Instant::now(), true);
                let _ = shard.tcp_send(stream, &[0x55; PAYLOAD_BYTES]);
            }
            // The clock is not read in every turn that finds nothing.
            assert!(turns % 1024 != 0 || start.elapsed() < PATIENCE, "the answer is late");
        });
    }
    times
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
