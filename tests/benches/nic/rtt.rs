//! One small frame there and back between two devices, each on a core of its own.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use smoltcp::time::Duration;
use wirestack_apps::testbed::{IPV4_PREFIX_LEN, OURS_IPV4, PEER_IPV4, Wire};
use wirestack_nic::config::{AfPacketConfig, RxMode, TpacketVersion, TxMode};
use wirestack_nic::{AfPacket, FrameMeta, Nic, wait};

use crate::frames::{self, SMALL};
use crate::table::{Table, pin};

/// How a device is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// It is looked at again and again.
    Spin,
    /// By `poll`.
    Sleep,
}

pub(crate) fn all() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::default();
    let mut line = |name: &str, mut times: Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        table.line(name, at(0.5), "us p50", &format!("p99 {:.1} us", at(0.99)));
    };
    line("kernel UDP, both ends spinning", kernel_udp(20_000)?);
    let ways = [
        (
            "ring V2, sendmmsg, spinning (latency)",
            RxMode::Ring,
            TxMode::Send,
            TpacketVersion::V2,
            Waiting::Spin,
            50_000,
        ),
        ("ring V2, TX_RING, spinning", RxMode::Ring, TxMode::Ring, TpacketVersion::V2, Waiting::Spin, 50_000),
        (
            "ring V1, sendmmsg, spinning",
            RxMode::Ring,
            TxMode::Send,
            TpacketVersion::V1,
            Waiting::Spin,
            50_000,
        ),
        (
            "recvmmsg, sendmmsg, spinning",
            RxMode::Recv,
            TxMode::Send,
            TpacketVersion::V2,
            Waiting::Spin,
            50_000,
        ),
        ("ring V2, sendmmsg, poll", RxMode::Ring, TxMode::Send, TpacketVersion::V2, Waiting::Sleep, 20_000),
        (
            "ring V3, sendmmsg, poll (block timeout 1 ms)",
            RxMode::Ring,
            TxMode::Send,
            TpacketVersion::V3,
            Waiting::Sleep,
            500,
        ),
    ];
    for (name, rx, tx, version, waiting, count) in ways {
        let config = || AfPacketConfig {
            rx,
            tx,
            version,
            block_timeout: Duration::from_millis(1),
            ..AfPacketConfig::default()
        };
        line(name, ping_pong(config, waiting, count)?);
    }
    Ok(())
}

/// Round trips in microseconds.
fn ping_pong(
    config: impl Fn() -> AfPacketConfig<'static>,
    waiting: Waiting,
    count: usize,
) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let wire = frames::wire()?;
    let total = count + count / 10;
    let (name, echo_config) = (wire.peer().name().to_owned(), config());
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let echo = wire.peer().namespace().spawn(move || {
        pin(1);
        let mut nic = AfPacket::open(&name, echo_config).expect("a device");
        ready.send(()).expect("somebody waits");
        let frame = frames::frame(SMALL);
        while !is_done.load(Ordering::Relaxed) {
            if take(&mut nic, waiting, PATIENCE) {
                give(&mut nic, &frame);
            }
        }
    });
    is_ready.recv()?;
    let (name, config) = (wire.ours().name().to_owned(), config());
    let times = wire.at_ours(move || {
        pin(0);
        let mut nic = AfPacket::open(&name, config).expect("a device");
        let frame = frames::frame(SMALL);
        let mut times = Vec::with_capacity(total);
        while times.len() < total {
            let start = Instant::now();
            give(&mut nic, &frame);
            // The kernel's queue for frames between interfaces is shared by all of a core, and may be full.
            if take(&mut nic, waiting, PATIENCE) {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        times.split_off(total - count)
    });
    done.store(true, Ordering::Relaxed);
    echo.join().map_err(|_| "the echo panicked")?;
    Ok(times)
}

/// The same over sockets of the kernel: what a stack is held against.
fn kernel_udp(count: usize) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let wire = Wire::new()?;
    wire.ours().add_address(OURS_IPV4.into(), IPV4_PREFIX_LEN)?;
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let server = wire.at_peer(|| UdpSocket::bind((PEER_IPV4, 7)))?;
    let client = wire.at_ours(|| UdpSocket::bind((OURS_IPV4, 0)))?;
    client.connect((PEER_IPV4, 7))?;
    server.set_nonblocking(true)?;
    client.set_nonblocking(true)?;
    let echo = std::thread::spawn(move || {
        pin(1);
        let mut buffer = [0; 64];
        while !is_done.load(Ordering::Relaxed) {
            match server.recv_from(&mut buffer) {
                Ok((len, peer)) => drop(server.send_to(&buffer[..len], peer)),
                Err(_) => std::hint::spin_loop(),
            }
        }
    });
    let times = std::thread::spawn(move || {
        pin(0);
        let mut buffer = [0; 64];
        let mut times = Vec::with_capacity(count);
        // 18 bytes of payload make a frame of 60 bytes.
        while times.len() < count {
            let start = Instant::now();
            let _ = client.send(&buffer[..18]);
            while client.recv(&mut buffer).is_err() && start.elapsed().as_millis() < 50 {
                std::hint::spin_loop();
            }
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times
    });
    let times = times.join().map_err(|_| "the client panicked")?;
    done.store(true, Ordering::Relaxed);
    echo.join().map_err(|_| "the echo panicked")?;
    Ok(times)
}

/// Waits for the frame of the other end. False: it did not come.
fn take(nic: &mut AfPacket<'_>, waiting: Waiting, patience: Duration) -> bool {
    let mut give_up = None;
    loop {
        for _ in 0..1000 {
            if nic.receive_with(smoltcp::time::Instant::ZERO, |frame, _| frame.len()) == Some(SMALL) {
                return true;
            }
            if waiting == Waiting::Sleep {
                break;
            }
            std::hint::spin_loop();
        }
        let deadline = *give_up.get_or_insert_with(|| wait::now() + patience);
        if wait::now() >= deadline {
            return false;
        }
        if waiting == Waiting::Sleep {
            let _ = nic.wait(Some(deadline));
        }
    }
}

fn give(nic: &mut AfPacket<'_>, frame: &[u8]) {
    let written = nic.transmit_with(smoltcp::time::Instant::ZERO, SMALL, &FrameMeta::default(), |room| {
        room.copy_from_slice(frame);
    });
    assert!(written.is_some(), "one frame finds room");
    nic.flush().expect("the link is up");
}

/// How long the answer to a frame may take before it is taken for lost.
const PATIENCE: Duration = Duration::from_millis(50);
