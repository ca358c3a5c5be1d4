//! One stream, as fast as it goes: ours sleep where they have nothing to do, as the kernel's callers do.
//!
//! Each end has a core, and what counts is what the core that has more to do gets done in a second of its time: other
//! programs take time away, and do not change that.
//!
//! For whoever looks for the reason of a figure: `WIRESTACK_BULK` names the only line to be measured (for a profiler), and
//! `WIRESTACK_BENCH_INFO=1` prints what our connections know of themselves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};
use wirestack::shard::{Shard, SocketId, TcpConnect, TcpListen, Waiting};
use wirestack_nic::AfPacketConfig;
use wirestack_nic::config::{Profile, TxMode};

use super::place::Place;
use super::{CLIENT_CORE, SERVER_CORE, Who};
use crate::table::{Table, pin};
use crate::wire::End;
use crate::{Outcome, median};

const REPEATS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const TIME: Duration = Duration::from_millis(700);

/// Client, which sends, server, how ours do it, and what is to be reached.
const CASES: [(&str, Who, Who, Calls, f64); 9] = [
    ("kernel to kernel", Who::Kernel, Who::Kernel, COPYING, 1.0),
    ("kernel to us", Who::Kernel, Who::Ours, COPYING, 1.0),
    ("kernel to us, lent buffers", Who::Kernel, Who::Ours, LENDING, 1.0),
    ("us to kernel", Who::Ours, Who::Kernel, COPYING, 1.0),
    ("us to kernel, lent buffers", Who::Ours, Who::Kernel, LENDING, 1.0),
    ("us to kernel, TX_RING", Who::Ours, Who::Kernel, RING, 1.0),
    ("us to us", Who::Ours, Who::Ours, COPYING, 1.5),
    ("us to us, lent buffers", Who::Ours, Who::Ours, LENDING, 1.5),
    ("us to us, TX_RING", Who::Ours, Who::Ours, RING, 1.5),
];

/// What a repeat did: by the clock, and by the core of either end.
#[derive(Debug, Clone, Copy)]
struct Figures {
    gbits: f64,
    seconds: f64,
    /// CPU time of client and server, in seconds: what the kernel does for them in softirq is in it.
    cpu: [f64; 2],
}

impl Figures {
    /// Gbit/s if each end has a core for itself: by the end that has more to do.
    fn per_core(&self) -> f64 {
        self.gbits / self.cpu[0].max(self.cpu[1])
    }
}

/// How an application writes and reads, and how its device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls {
    /// In the memory of the stack, of which the sender writes one byte a piece, and the receiver looks at one; not as
    /// with `write` and `read`.
    is_lent: bool,
    /// By a TX ring, whose memory the kernel sends from; not by `sendmmsg`, which copies.
    has_ring: bool,
}

const COPYING: Calls = Calls { is_lent: false, has_ring: false };
const LENDING: Calls = Calls { is_lent: true, ..COPYING };
const RING: Calls = Calls { has_ring: true, ..COPYING };

pub(crate) fn all() -> Outcome {
    let only = std::env::var("WIRESTACK_BULK").unwrap_or_default();
    let is_wanted = |name: &str| only.is_empty() || name == only;
    let mut all: [Vec<Figures>; CASES.len()] = Default::default();
    for _ in 0..REPEATS {
        for ((name, client, server, calls, _), figures) in CASES.into_iter().zip(&mut all) {
            if is_wanted(name) {
                figures.push(measure(client, server, calls)?);
            }
        }
    }
    let mut table = Table::default();
    for ((name, client, server, _, target), figures) in CASES.into_iter().zip(all) {
        if figures.is_empty() {
            continue;
        }
        let of = |f: fn(&Figures) -> f64| median(figures.iter().map(f).collect());
        let has_target = (client, server) != (Who::Kernel, Who::Kernel);
        let aim = if has_target { format!("; target x{target}") } else { String::new() };
        let remark = format!(
            "by the busier core; by the clock {:.2}; the cores' shares {:.2}, {:.2}{aim}",
            of(|figures| figures.gbits / figures.seconds),
            of(|figures| figures.cpu[0] / figures.seconds),
            of(|figures| figures.cpu[1] / figures.seconds),
        );
        table.line(name, of(Figures::per_core), "Gbit/s", &remark);
    }
    Ok(())
}

fn measure(client: Who, server: Who, calls: Calls) -> Result<Figures, Box<dyn std::error::Error>> {
    let place = Place::new(false, client, server)?;
    let (done, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let to = place.to;
    let sink = match server {
        Who::Kernel => {
            let listener = place.wire.at_ours(|| TcpListener::bind(to))?;
            let (bytes, ready) = (bytes.clone(), ready.clone());
            thread::spawn(move || kernel_sink(&listener, &ready, &bytes))
        }
        Who::Ours => {
            let (end, done, bytes, ready) =
                (place.server.clone(), done.clone(), bytes.clone(), ready.clone());
            let serve = move || our_sink(&end, calls, &ready, &done, &bytes);
            place.wire.ours().namespace().spawn(serve)
        }
    };
    let server_thread = is_ready.recv()?;
    let source: JoinHandle<()> = match client {
        Who::Kernel => {
            let stream = place.wire.at_peer(|| TcpStream::connect(to))?;
            let done = done.clone();
            thread::spawn(move || kernel_source(stream, &ready, &done))
        }
        Who::Ours => {
            let (end, done) = (place.client.clone(), done.clone());
            place.wire.peer().namespace().spawn(move || our_source(&end, to, calls, &ready, &done))
        }
    };
    let threads = [is_ready.recv()?, server_thread];
    thread::sleep(WARM_UP);
    let (cpu, before, start) = (threads.map(cpu_seconds), bytes.load(Ordering::Relaxed), Instant::now());
    thread::sleep(TIME);
    let (after, seconds) = (bytes.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    let cpu = [0, 1].map(|at| cpu_seconds(threads[at]) - cpu[at]);
    done.store(true, Ordering::Relaxed);
    source.join().map_err(|_| "the source panicked")?;
    sink.join().map_err(|_| "the sink panicked")?;
    Ok(Figures { gbits: (after - before) as f64 * 8.0 / 1e9, seconds, cpu })
}

/// CPU time of a thread of this program.
fn cpu_seconds(thread: Pid) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    stat.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

fn kernel_sink(listener: &TcpListener, ready: &Sender<Pid>, bytes: &AtomicU64) {
    pin(SERVER_CORE);
    ready.send(gettid()).expect("somebody waits");
    let Ok((mut stream, _)) = listener.accept() else { return };
    // A client that is gone without a word is not waited for.
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let mut room = vec![0; BLOCK_BYTES];
    while let Ok(len @ 1..) = stream.read(&mut room) {
        bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
}

fn kernel_source(mut stream: TcpStream, ready: &Sender<Pid>, done: &AtomicBool) {
    pin(CLIENT_CORE);
    ready.send(gettid()).expect("somebody waits");
    let block = vec![0x55; BLOCK_BYTES];
    let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
    while !done.load(Ordering::Relaxed) && stream.write_all(&block).is_ok() {}
}

fn our_sink(end: &End, calls: Calls, ready: &Sender<Pid>, done: &AtomicBool, bytes: &AtomicU64) {
    pin(SERVER_CORE);
    let (mut shard, mut nic) = end.open(device(calls));
    let listener = shard.tcp_listen(TcpListen::new((end.address, super::PORT).into())).expect("a port");
    ready.send(gettid()).expect("somebody waits");
    let mut room = vec![0; BLOCK_BYTES];
    let mut stream = None;
    let _ = shard.run(&mut nic, Waiting::Sleep, |shard| {
        stream = stream.or_else(|| shard.tcp_accept(listener));
        if let Some(stream) = stream {
            let len = drain(shard, stream, calls, &mut room);
            bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        done.load(Ordering::Relaxed)
    });
    told(&shard, stream);
}

fn drain(shard: &mut Shard, stream: SocketId, calls: Calls, room: &mut [u8]) -> usize {
    let mut sum = 0;
    loop {
        let len = match calls.is_lent {
            false => shard.tcp_recv(stream, room),
            true => shard.tcp_recv_with(stream, |piece| {
                std::hint::black_box(piece.first());
                (piece.len(), piece.len())
            }),
        };
        match len {
            Ok(Some(len @ 1..)) => sum += len,
            _ => return sum,
        }
    }
}

fn our_source(end: &End, to: SocketAddr, calls: Calls, ready: &Sender<Pid>, done: &AtomicBool) {
    pin(CLIENT_CORE);
    ready.send(gettid()).expect("somebody waits");
    let (mut shard, mut nic) = end.open(device(calls));
    let stream = shard.tcp_connect(TcpConnect::new(to)).expect("there is a way");
    let block = vec![0x55; BLOCK_BYTES];
    let _ = shard.run(&mut nic, Waiting::Sleep, |shard| {
        if shard.tcp_readiness(stream).connected {
            fill(shard, stream, calls, &block);
        }
        done.load(Ordering::Relaxed)
    });
    told(&shard, Some(stream));
}

fn fill(shard: &mut Shard, stream: SocketId, calls: Calls, block: &[u8]) {
    loop {
        let len = match calls.is_lent {
            false => shard.tcp_send(stream, block),
            true => shard.tcp_send_with(stream, |room| {
                if let Some(first) = room.first_mut() {
                    *first = 0x55;
                }
                room.len()
            }),
        };
        if !matches!(len, Ok(1..)) {
            return;
        }
    }
}

fn device(calls: Calls) -> AfPacketConfig<'static> {
    let bulk = AfPacketConfig::profile(Profile::Bulk);
    if calls.has_ring { AfPacketConfig { tx: TxMode::Ring, ..bulk } } else { bulk }
}

/// What the connection knows of itself, for who wants to know why.
fn told(shard: &Shard, stream: Option<SocketId>) {
    if std::env::var_os("WIRESTACK_BENCH_INFO").is_some() {
        eprintln!("{:?}", stream.and_then(|stream| shard.tcp_info(stream)));
        eprintln!("{:?} {:?}", shard.counters(), shard.tcp_counters());
    }
}

/// Bytes of a call, as iperf3 has it.
const BLOCK_BYTES: usize = 128 << 10;
