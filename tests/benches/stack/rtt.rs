//! UDP there and back over a veth pair: our stack at both ends, at one, at none. Every end has a core of its
//! own and never sleeps.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wirestack::shard::{Shard, SocketId, UdpBind};
use wirestack_apps::testbed::{
    IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, Wire, WireOptions, has_ipv6,
};
use wirestack_nic::{AfPacket, AfPacketConfig, FrameMeta, Nic, wait};

use crate::frames::PAYLOAD_BYTES;
use crate::table::{Table, pin};
use crate::wire::{self, End};
use crate::{Outcome, median};

const REPEATS: usize = 9;
/// Round trips of a repeat, after as many again by a tenth to warm up.
const TRIPS: usize = 10_000;

/// Who is at an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kernel,
    Ours,
    /// Nobody: frames are turned around as they are.
    Device,
}

/// Client, server, and the share of the kernel's time that is the target.
const CASES: [(&str, Who, Who, f64); 4] = [
    ("kernel at both ends", Who::Kernel, Who::Kernel, 1.0),
    ("our server, the kernel's client", Who::Kernel, Who::Ours, 0.75),
    ("our stack at both ends", Who::Ours, Who::Ours, 0.6),
    // What no stack on these devices can be faster than.
    ("our devices at both ends, no stack", Who::Device, Who::Device, 1.0),
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
            let (low, high) =
                (p50.iter().copied().fold(f64::MAX, f64::min), p50.iter().copied().fold(0.0, f64::max));
            let aim = if target < 1.0 { format!("; target x{target}") } else { String::new() };
            let lowest = *lowest.get_or_insert(low);
            let remark = format!(
                "p99 {:.1} us; p50 of {REPEATS} runs {low:.1} to {high:.1}, the lowest x{:.2}{aim}",
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
    let (ours, peer, prefix_len): (IpAddr, IpAddr, u8) = if is_v6 {
        (OURS_IPV6.into(), PEER_IPV6.into(), IPV6_PREFIX_LEN)
    } else {
        (OURS_IPV4.into(), PEER_IPV4.into(), IPV4_PREFIX_LEN)
    };
    // The client is at the peer's end. Its kernel has an address only if it is the client.
    let peer_addresses =
        if client == Who::Kernel { WireOptions::default().peer_addresses } else { Vec::new() };
    let wire = Wire::with(&WireOptions { peer_addresses, ..WireOptions::default() })?;
    if server == Who::Kernel {
        wire.at_ours(wire::allow_ipv6)?;
        wire.ours().add_address(ours, prefix_len)?;
    }
    let to = SocketAddr::new(ours, PORT);
    let done = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let echo = match server {
        Who::Kernel => {
            let socket = wire.at_ours(|| wire::bind(to))?;
            ready.send(())?;
            kernel_echo(socket, done.clone())
        }
        Who::Ours | Who::Device => {
            let end = End::new(wire.ours(), ours, prefix_len);
            wire.ours().namespace().spawn({
                let done = done.clone();
                move || our_echo(&end, server, &ready, &done)
            })
        }
    };
    is_ready.recv()?;
    let times = match client {
        Who::Kernel => {
            let socket = wire.at_peer(|| wire::bind(SocketAddr::new(peer, 0)))?;
            socket.connect(to)?;
            thread::spawn(move || kernel_client(&socket)).join().map_err(|_| "the client panicked")?
        }
        Who::Ours | Who::Device => {
            let end = End::new(wire.peer(), peer, prefix_len);
            wire.at_peer(move || our_client(&end, client, to))
        }
    };
    done.store(true, Ordering::Relaxed);
    echo.join().map_err(|_| "the echo panicked")?;
    Ok(times.into_iter().skip(TRIPS / 10).collect())
}

fn kernel_echo(socket: UdpSocket, done: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        pin(SERVER_CORE);
        let mut buffer = [0; 2048];
        while !done.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((len, peer)) => drop(socket.send_to(&buffer[..len], peer)),
                Err(_) => std::hint::spin_loop(),
            }
        }
    })
}

fn kernel_client(socket: &UdpSocket) -> Vec<f64> {
    pin(CLIENT_CORE);
    let mut buffer = [0; 2048];
    let mut times = Vec::with_capacity(TRIPS + TRIPS / 10);
    while times.len() < TRIPS + TRIPS / 10 {
        let start = Instant::now();
        let _ = socket.send(&[0x55; PAYLOAD_BYTES]);
        while socket.recv(&mut buffer).is_err() && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    times
}

fn our_echo(end: &End, who: Who, ready: &Sender<()>, done: &AtomicBool) {
    pin(SERVER_CORE);
    let (mut shard, mut nic, _) = open(end, PORT);
    ready.send(()).expect("somebody waits");
    while !done.load(Ordering::Relaxed) {
        if who == Who::Ours {
            shard.turn(wait::now(), &mut nic, wire::answer);
        } else if take(&mut nic) {
            give(&mut nic);
        }
    }
}

/// Whether there was a frame of the other end.
fn take(nic: &mut AfPacket<'_>) -> bool {
    let is_its = |frame: &[u8], _: &FrameMeta| frame.len() == DEVICE_FRAME.len();
    nic.receive_with(wait::now(), is_its) == Some(true)
}

fn give(nic: &mut AfPacket<'_>) {
    let frame = &DEVICE_FRAME;
    nic.transmit_with(wait::now(), frame.len(), &FrameMeta::default(), |room| room.copy_from_slice(frame));
    let _ = nic.flush();
}

fn our_client(end: &End, who: Who, to: SocketAddr) -> Vec<f64> {
    pin(CLIENT_CORE);
    let (mut shard, mut nic, socket) = open(end, 0);
    let mut times = Vec::with_capacity(TRIPS + TRIPS / 10);
    if who == Who::Device {
        while times.len() < TRIPS + TRIPS / 10 {
            let start = Instant::now();
            give(&mut nic);
            while !take(&mut nic) && start.elapsed() < PATIENCE {}
            times.push(start.elapsed().as_nanos() as f64 / 1e3);
        }
        return times;
    }
    let mut buffer = [0; PAYLOAD_BYTES];
    shard.udp_connect(socket, Some(to)).expect("there is a way");
    let (mut start, mut turns) = (Instant::now(), 0_u32);
    shard.udp_send(socket, &[0x55; PAYLOAD_BYTES]).expect("sent");
    while times.len() < TRIPS + TRIPS / 10 {
        shard.turn(wait::now(), &mut nic, |shard| {
            let is_back = shard.next_event().is_some() && shard.udp_recv(socket, &mut buffer).is_some();
            turns = turns.wrapping_add(1);
            // The clock is not read in every turn that finds nothing.
            if is_back || turns % 1024 == 0 && start.elapsed() > PATIENCE {
                times.push(start.elapsed().as_nanos() as f64 / 1e3);
                // Both ends: the next one leaves in the turn in which the last one came.
                start = Instant::now();
                let _ = shard.udp_send(socket, &[0x55; PAYLOAD_BYTES]);
            }
        });
    }
    times
}

fn open(end: &End, port: u16) -> (Shard, AfPacket<'static>, SocketId) {
    let (mut shard, nic) = end.open(AfPacketConfig::default());
    let socket = shard.udp_bind(UdpBind::new(SocketAddr::new(end.address, port))).expect("a port");
    (shard, nic, socket)
}

const PORT: u16 = 7;
/// As long as one with a datagram of 64 bytes over IPv4, of a type that no kernel knows, for everybody.
const DEVICE_FRAME: [u8; 106] = {
    let mut frame = [0xff; 106];
    (frame[12], frame[13]) = (0x88, 0xb5);
    frame
};
const CLIENT_CORE: usize = 0;
const SERVER_CORE: usize = 1;
/// How long an answer may take before it is taken for lost.
const PATIENCE: Duration = Duration::from_millis(50);
