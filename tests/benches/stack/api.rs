//! What the ways to use a socket cost over the engine alone, and what a second shard brings: requests and responses of 64
//! bytes over TCP, in memory, the client in the device of each shard.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use smoltcp::time::Duration as Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::api::{blocking, local};
use wirestack::demux::Steering;
use wirestack::driver::{Driver, Launch, MakeInTurn, Patience};
use wirestack::shard::{Shard, TcpListen};
use wirestack_nic::wait;

use crate::frames::PAYLOAD_BYTES;
use crate::loaded::{Done, Loaded, config, server};
use crate::table::{Table, pin};
use crate::{Outcome, median};

const REPEATS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURED: Duration = Duration::from_millis(400);
const SEED: u32 = 7;

/// What a run has taken for each answer, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Spent {
    /// By the clock, without the client's time where it has the thread to itself.
    wall: f64,
    /// CPU time of the process, the client's not counted.
    cpu: f64,
    answers: u64,
}

/// Measures while the stack runs elsewhere.
fn measure(done: &[Arc<Done>]) -> Spent {
    let answers = || done.iter().map(|done| done.answers.load(Ordering::Relaxed)).sum::<u64>();
    let client = || done.iter().map(|done| done.client_nanos.load(Ordering::Relaxed)).sum::<u64>() as f64;
    thread::sleep(WARM_UP);
    let (start, cpu_before) = (Instant::now(), process_cpu_nanos());
    let (answers_before, client_before) = (answers(), client());
    thread::sleep(MEASURED);
    let (taken, cpu) = (start.elapsed().as_nanos() as f64, process_cpu_nanos() - cpu_before);
    let (answered, clients) = (answers() - answers_before, client() - client_before);
    let each = |nanos: f64| nanos / answered.max(1) as f64;
    Spent { wall: each(taken - clients / done.len() as f64), cpu: each(cpu - clients), answers: answered }
}

fn process_cpu_nanos() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0.0, |time| Duration::from(time).as_nanos() as f64)
}

/// An echo in the turns of a shard.
fn echo_in_turn() -> MakeInTurn {
    Arc::new(|_, shard| {
        let mut echo = Echo::new(shard);
        Ok(Box::new(move |shard: &mut Shard| {
            echo.turn(shard);
            None
        }))
    })
}

struct Echo {
    listener: wirestack::shard::SocketId,
    room: [u8; 2048],
}

impl Echo {
    fn new(shard: &mut Shard) -> Self {
        let listener = shard.tcp_listen(TcpListen::new(server())).expect("a port");
        Self { listener, room: [0; 2048] }
    }

    fn turn(&mut self, shard: &mut Shard) {
        while let Some(event) = shard.next_event() {
            if event.socket == self.listener {
                while shard.tcp_accept(self.listener).is_some() {}
            } else if let Ok(Some(len @ 1..)) = shard.tcp_recv(event.socket, &mut self.room) {
                let _ = shard.tcp_send(event.socket, &self.room[..len]);
            }
        }
    }
}

/// So many shards, each with a load of its own, on as many cores.
fn launch(shards: usize, connections: usize, echo: Option<MakeInTurn>) -> (Driver, Vec<Arc<Done>>) {
    let steering = Steering { seed: SEED, shards };
    let nics: Vec<_> = (0..shards).map(|shard| Loaded::new(shard, steering, connections)).collect();
    let done: Vec<_> = nics.iter().map(|nic| Arc::clone(&nic.done)).collect();
    let mut launch = Launch::new(config()).steering_seed(SEED).patience(Patience::Spin);
    launch = launch.cpus((0..shards).map(|shard| cores() - 1 - shard % cores()).collect());
    // Who asks before somebody listens is refused.
    for done in &done {
        done.waits.store(echo.is_none(), Ordering::Relaxed);
    }
    if let Some(echo) = echo {
        launch = launch.in_turn(echo);
    }
    (launch.start(nics).expect("a stack"), done)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get())
}

pub(crate) fn shards() -> Outcome {
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut by_cpu: [Vec<f64>; 2] = Default::default();
    for _ in 0..REPEATS {
        for shards in 1..=2 {
            let (driver, done) = launch(shards, CONNECTIONS, Some(echo_in_turn()));
            let cpu =
                || done.iter().map(|done| done.thread_nanos.load(Ordering::Relaxed)).sum::<u64>() as f64;
            let before = (Instant::now(), cpu(), total(&done));
            thread::sleep(WARM_UP + MEASURED);
            let answers = (total(&done) - before.2) as f64;
            rates[shards - 1].push(answers / before.0.elapsed().as_secs_f64());
            by_cpu[shards - 1].push(answers / ((cpu() - before.1) / 1e9) * shards as f64);
            driver.shutdown(Span::ZERO);
        }
    }
    let [one, two] = rates.map(median);
    let [one_by_cpu, two_by_cpu] = by_cpu.map(median);
    let mut table = Table::default();
    let remark = |by_cpu: f64| format!("thousand; by CPU time of the threads {:.0}", by_cpu / 1e3);
    table.line("1 shard", one / 1e3, "k/s", &remark(one_by_cpu));
    let ratio = two_by_cpu / one_by_cpu;
    table.line("2 shards", two / 1e3, "k/s", &format!("{}, x{ratio:.2}; target x1.6", remark(two_by_cpu)));
    Ok(())
}

fn total(done: &[Arc<Done>]) -> u64 {
    done.iter().map(|done| done.answers.load(Ordering::Relaxed)).sum()
}

/// A way to use sockets: serves until the client's link goes.
type Serve = fn(usize) -> Spent;

const WAYS: [(&str, Serve); 5] = [
    ("poll: the shard in place", poll),
    ("in the turns of a driver's shard", in_turn),
    ("local: tasks on the shard's thread", local),
    ("tokio: tasks on another thread", tokio),
    ("blocking: a thread for each connection", blocking),
];

pub(crate) fn overhead() -> Outcome {
    for connections in [1, CONNECTIONS] {
        let mut spent: [Vec<Spent>; WAYS.len()] = Default::default();
        for _ in 0..REPEATS {
            for ((_, serve), spent) in WAYS.iter().zip(&mut spent) {
                spent.push(serve(connections));
            }
        }
        let (mut table, mut base) = (Table::default(), None);
        for ((name, _), spent) in WAYS.iter().zip(spent) {
            assert!(spent.iter().all(|spent| spent.answers > 100), "{name}: {spent:?}");
            let cpu = median(spent.iter().map(|spent| spent.cpu).collect());
            let base = *base.get_or_insert(cpu);
            let remark = format!("CPU {cpu:.0} ns, x{:.2}; {connections} connections", cpu / base);
            table.line(name, median(spent.iter().map(|spent| spent.wall).collect()), "ns", &remark);
        }
    }
    Ok(())
}

/// Runs something that ends with the link, and measures it meanwhile.
fn on_a_thread(connections: usize, run: impl FnOnce(Loaded) + Send + 'static) -> Spent {
    let nic = Loaded::new(0, Steering::single(), connections);
    let done = Arc::clone(&nic.done);
    let thread = thread::spawn(move || {
        pin(cores() - 1);
        run(nic);
    });
    let spent = measure(std::slice::from_ref(&done));
    done.ends.store(true, Ordering::Relaxed);
    thread.join().expect("no panic");
    spent
}

fn poll(connections: usize) -> Spent {
    on_a_thread(connections, |mut nic| {
        let mut shard = Shard::new(config(), wait::now()).expect("a shard");
        let mut echo = Echo::new(&mut shard);
        let done = Arc::clone(&nic.done);
        while !done.ends.load(Ordering::Relaxed) {
            shard.turn(wait::now(), &mut nic, |shard| echo.turn(shard));
        }
    })
}

fn in_turn(connections: usize) -> Spent {
    let (driver, done) = launch(1, connections, Some(echo_in_turn()));
    let spent = measure(&done);
    driver.shutdown(Span::ZERO);
    spent
}

fn local(connections: usize) -> Spent {
    on_a_thread(connections, |nic| {
        let mut runtime = local::Runtime::new(nic, config()).expect("a stack");
        runtime.set_patience(Patience::Spin);
        let (stack, spawner) = (runtime.stack().clone(), runtime.spawner().clone());
        let _ = runtime.block_on(async move {
            let listener = stack.listen(server()).expect("a port");
            while let Ok((stream, _)) = listener.accept().await {
                spawner.spawn(echo(stream));
            }
        });
    })
}

/// Sends back what comes.
async fn echo(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut room = [0; 2048];
    while let Ok(len @ 1..) = stream.read(&mut room).await {
        if stream.write_all(&room[..len]).await.is_err() {
            return;
        }
    }
}

fn tokio(connections: usize) -> Spent {
    let (driver, done) = launch(1, connections, None);
    let listener = driver.stack().listen(server()).expect("a port");
    done[0].waits.store(false, Ordering::Relaxed);
    let server = thread::spawn(move || {
        pin(0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
    });
    let spent = measure(&done);
    driver.shutdown(Span::ZERO);
    server.join().expect("no panic");
    spent
}

fn blocking(connections: usize) -> Spent {
    let (driver, done) = launch(1, connections, None);
    let at: SocketAddr = server();
    let listener = blocking::TcpListener::bind_on(driver.stack(), at).expect("a port");
    done[0].waits.store(false, Ordering::Relaxed);
    let server = thread::spawn(move || {
        pin(0);
        let mut served = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            served.push(thread::spawn(move || {
                let mut room = [0; 2048];
                while let Ok(len @ 1..) = stream.read(&mut room) {
                    if stream.write_all(&room[..len]).is_err() {
                        return;
                    }
                }
            }));
        }
        served.into_iter().for_each(|served| served.join().expect("no panic"));
    });
    let spent = measure(&done);
    driver.shutdown(Span::ZERO);
    server.join().expect("no panic");
    spent
}

const CONNECTIONS: usize = 16;
const _: () = assert!(PAYLOAD_BYTES == 64);
