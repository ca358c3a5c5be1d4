//! Connections made, accepted and closed, one after the other, by the same clients of both servers.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use wirestack::shard::{TcpConnect, TcpListen, Waiting};
use wirestack_nic::{AfPacketConfig, wait};

use super::place::Place;
use super::{CLIENT_CORE, PORT, SERVER_CORE, Who};
use crate::table::{Table, pin};
use crate::wire::End;
use crate::{Outcome, median};

const REPEATS: usize = 5;
const TIME: Duration = Duration::from_millis(700);
const TARGET: f64 = 1.5;

/// Client and server.
const CASES: [(&str, Who, Who); 4] = [
    ("our client, the kernel's server", Who::Ours, Who::Kernel),
    ("our client, our server", Who::Ours, Who::Ours),
    ("the kernel's client, the kernel's server", Who::Kernel, Who::Kernel),
    ("the kernel's client, our server", Who::Kernel, Who::Ours),
];

pub(crate) fn all() -> Outcome {
    let mut all: [Vec<f64>; CASES.len()] = Default::default();
    for _ in 0..REPEATS {
        for ((_, client, server), figures) in CASES.into_iter().zip(&mut all) {
            figures.push(measure(client, server)?);
        }
    }
    for (cases, figures) in CASES.chunks(2).zip(all.chunks(2)) {
        let mut table = Table::default();
        for ((name, _, server), figures) in cases.iter().zip(figures) {
            let aim = if *server == Who::Ours { format!("target x{TARGET}") } else { String::new() };
            table.line(name, median(figures.clone()) / 1e3, "k/s", &aim);
        }
    }
    Ok(())
}

/// Connections a second.
fn measure(client: Who, server: Who) -> Result<f64, Box<dyn std::error::Error>> {
    let place = Place::new(false, client, server)?;
    let to = place.to;
    let done = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let serving = match server {
        Who::Kernel => {
            let listener = place.wire.at_ours(|| TcpListener::bind(to))?;
            ready.send(())?;
            let done = done.clone();
            thread::spawn(move || kernel_server(&listener, &done))
        }
        Who::Ours => {
            let (end, done) = (place.server.clone(), done.clone());
            place.wire.ours().namespace().spawn(move || our_server(&end, &ready, &done))
        }
    };
    is_ready.recv()?;
    let rate = match client {
        Who::Kernel => place.wire.at_peer(move || kernel_client(to)),
        Who::Ours => {
            let end = place.client.clone();
            place.wire.at_peer(move || our_client(&end, to))
        }
    };
    done.store(true, Ordering::Relaxed);
    if server == Who::Kernel {
        // It waits for one more.
        let _ = place.wire.at_ours(|| TcpStream::connect(to));
    }
    serving.join().map_err(|_| "the server panicked")?;
    Ok(rate)
}

fn kernel_server(listener: &TcpListener, done: &AtomicBool) {
    pin(SERVER_CORE);
    while !done.load(Ordering::Relaxed) {
        drop(listener.accept());
    }
}

fn our_server(end: &End, ready: &Sender<()>, done: &AtomicBool) {
    pin(SERVER_CORE);
    let (mut shard, mut nic) = end.open(AfPacketConfig::default());
    let listener = shard.tcp_listen(TcpListen::new((end.address, PORT).into())).expect("a port");
    ready.send(()).expect("somebody waits");
    let _ = shard.run(&mut nic, Waiting::Sleep, |shard| {
        while let Some(stream) = shard.tcp_accept(listener) {
            shard.close(stream);
        }
        done.load(Ordering::Relaxed)
    });
}

/// A thread that connects, and reads to the end, as long as there is time.
fn kernel_client(to: SocketAddr) -> f64 {
    pin(CLIENT_CORE);
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < TIME {
        let mut stream = TcpStream::connect(to).expect("it listens");
        let _ = stream.read(&mut [0]);
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Some at a time, by one thread.
fn our_client(end: &End, to: SocketAddr) -> f64 {
    pin(CLIENT_CORE);
    let (mut shard, mut nic) = end.open(AfPacketConfig::default());
    let (start, mut count, mut open) = (Instant::now(), 0_u32, 0);
    while start.elapsed() < TIME {
        shard.turn(wait::now(), &mut nic, |shard| {
            while let Some(event) = shard.next_event() {
                if shard.tcp_readiness(event.socket).peer_finished {
                    shard.close(event.socket);
                    (count, open) = (count + 1, open - 1);
                }
            }
            while open < AT_A_TIME && shard.tcp_connect(TcpConnect::new(to)).is_ok() {
                open += 1;
            }
        });
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Connections that our client has open.
const AT_A_TIME: u32 = 64;
