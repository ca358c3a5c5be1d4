//! UDP datagrams received and answered, against a loop of `recvmmsg` and `sendmmsg` in the kernel's stack.
//!
//! A generator of prepared frames on the other core, the same for both, keeps a window of questions on their
//! way and sleeps when there is nothing to do. Receiving is done in softirq on the core of whoever sends, so
//! what counts is the time of both cores: of the threads here, softirq that interrupted them included, and of
//! `ksoftirqd`. (/proc/stat tells the same on an idle machine, in steps of 10 ms.)

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use nix::time::{ClockId, clock_gettime};
use smoltcp::wire::EthernetAddress;
use wirestack::shard::UdpBind;
use wirestack_apps::testbed::{IPV4_PREFIX_LEN, OURS_IPV4, PEER_IPV4, Wire, WireOptions};
use wirestack_nic::config::{Profile, TxMode};
use wirestack_nic::meta::ChecksumState;
use wirestack_nic::{AfPacket, AfPacketConfig, FrameMeta, Nic, wait};

use crate::frames::{self, PAYLOAD_BYTES};
use crate::table::{Table, pin};
use crate::wire::{self, End};
use crate::{Outcome, median};

const REPEATS: usize = 5;
/// How long a repeat takes, after a fifth of that to warm up.
const TIME: Duration = Duration::from_millis(1000);
const TARGET: f64 = 1.5;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// The kernel's stack, in batches of 64.
    Kernel,
    /// Ours on this device; it sleeps when there is nothing to do, or never.
    Ours(Device, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    Latency,
    Bulk,
    Rings,
}

const CASES: [(&str, Server); 5] = [
    ("kernel, recvmmsg and sendmmsg", Server::Kernel),
    ("ours, bulk", Server::Ours(Device::Bulk, true)),
    ("ours, latency", Server::Ours(Device::Latency, true)),
    ("ours, latency, spinning", Server::Ours(Device::Latency, false)),
    ("ours, TX_RING too", Server::Ours(Device::Rings, true)),
];

/// What a repeat did.
struct Figures {
    replies: f64,
    seconds: f64,
    /// Of this program and of `ksoftirqd`.
    cpu: f64,
    /// Of the machine.
    machine_cpu: f64,
}

pub(crate) fn all() -> Outcome {
    let mut all: [Vec<Figures>; CASES.len()] = Default::default();
    for _ in 0..REPEATS {
        for ((_, server), figures) in CASES.into_iter().zip(&mut all) {
            figures.push(measure(server)?);
        }
    }
    let mut table = Table::default();
    for ((name, server), figures) in CASES.into_iter().zip(&all) {
        let of = |f: fn(&Figures) -> f64| median(figures.iter().map(f).collect());
        let aim = if server == Server::Kernel { String::new() } else { format!("; target x{TARGET}") };
        let remark = format!(
            "{:.3} million a second on {:.2} cores; by /proc/stat {:.3} per CPU s{aim}",
            of(|figures| figures.replies / figures.seconds / 1e6),
            of(|figures| figures.cpu / figures.seconds),
            of(|figures| figures.replies / figures.machine_cpu / 1e6),
        );
        table.line(name, of(|figures| figures.replies / figures.cpu / 1e6), "M/CPU s", &remark);
    }
    let foreign = |figures: &Figures| (figures.machine_cpu - figures.cpu) / figures.seconds;
    let foreign = median(all.iter().flatten().map(foreign).collect());
    if foreign > 0.1 {
        println!("  noisy: other programs had {foreign:.2} cores meanwhile");
    }
    Ok(())
}

fn measure(server: Server) -> Result<Figures, Box<dyn std::error::Error>> {
    // The generator is at the peer's end, whose kernel has nothing to do with it.
    let wire = Wire::with(&WireOptions { peer_addresses: Vec::new(), ..WireOptions::default() })?;
    let done = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let to = SocketAddr::new(OURS_IPV4.into(), PORT);
    let end = End::new(wire.ours(), to.ip(), IPV4_PREFIX_LEN);
    let (thread, mac) = match server {
        Server::Kernel => {
            wire.ours().add_address(to.ip(), IPV4_PREFIX_LEN)?;
            let socket = wire.at_ours(|| UdpSocket::bind(to))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            let done = done.clone();
            (std::thread::spawn(move || kernel_server(&socket, &ready, &done)), wire.ours().mac())
        }
        Server::Ours(device, sleeps) => {
            let (done, mac) = (done.clone(), end.mac);
            let serve = move || our_server(&end, device, sleeps, &ready, &done);
            (wire.ours().namespace().spawn(serve), mac)
        }
    };
    is_ready.recv()?;
    let generator = End::new(wire.peer(), PEER_IPV4.into(), IPV4_PREFIX_LEN);
    let name = wire.peer().name().to_owned();
    let figures = wire.at_peer(move || {
        pin(GENERATOR_CORE);
        let mut load = Load::new(&name, generator.mac, mac);
        load.run(TIME / 5);
        let (cpu, machine_cpu, start) = (cpu_seconds(), machine_cpu_seconds(), Instant::now());
        let replies = load.run(TIME) as f64;
        let seconds = start.elapsed().as_secs_f64();
        Figures {
            replies,
            seconds,
            cpu: cpu_seconds() - cpu,
            machine_cpu: machine_cpu_seconds() - machine_cpu,
        }
    });
    done.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| "the server panicked")?;
    Ok(figures)
}

/// Questions in flight, sent in batches.
struct Load {
    nic: AfPacket<'static>,
    frame: Vec<u8>,
    mac: EthernetAddress,
    in_flight: usize,
}

impl Load {
    fn new(name: &str, mac: EthernetAddress, server: EthernetAddress) -> Self {
        let nic = AfPacket::open(name, AfPacketConfig::default()).expect("a device");
        let peer = SocketAddrV4::new(PEER_IPV4, 5000);
        let mut frame = frames::udp(peer.into(), PORT, PAYLOAD_BYTES);
        frame[..6].copy_from_slice(&server.0);
        frame[6..12].copy_from_slice(&mac.0);
        frame[26..34].copy_from_slice([PEER_IPV4.octets(), OURS_IPV4.octets()].as_flattened());
        // The sums anew, that of the payload left to the device as the kernel's own sender does.
        frame[24..26].fill(0);
        let sum = !frames::sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let udp_len = (8 + PAYLOAD_BYTES) as u8;
        let pseudo = [&frame[26..34], &[0, 17, 0, udp_len]].concat();
        let sum = frames::sum(&pseudo);
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        Self { nic, frame, mac, in_flight: 0 }
    }

    /// Returns how many answers came.
    fn run(&mut self, time: Duration) -> u64 {
        let meta =
            FrameMeta { checksum: ChecksumState::Partial { start: 34, offset: 6 }, ..FrameMeta::default() };
        let (start, mut replies, mut last) = (Instant::now(), 0, Instant::now());
        while start.elapsed() < time {
            let now = wait::now();
            while self.in_flight + BATCH <= WINDOW {
                for _ in 0..BATCH {
                    let frame = &self.frame;
                    self.nic.transmit_with(now, frame.len(), &meta, |room| room.copy_from_slice(frame));
                }
                let _ = self.nic.flush();
                self.in_flight += BATCH;
            }
            let (mut got, mut question) = (0, None);
            while let Some(is_reply) = self.nic.receive_with(now, |frame, _| {
                let is_arp = frame.get(12..14) == Some(&[8, 6]) && frame.get(21) == Some(&1);
                question = question.take().or_else(|| is_arp.then(|| frame.to_vec()));
                frame.get(23) == Some(&17) && frame.get(12..14) == Some(&[8, 0])
            }) {
                got += usize::from(is_reply);
            }
            if let Some(question) = question {
                self.tell_mac(&question);
            }
            replies += got as u64;
            self.in_flight = self.in_flight.saturating_sub(got);
            if got > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                // They are lost: the kernel's queue between interfaces is bounded.
                (self.in_flight, last) = (0, Instant::now());
            } else if self.in_flight + BATCH > WINDOW {
                // Not a wait for a frame: that would be a change of threads for each, dearer than all else.
                std::thread::sleep(NAP);
            }
        }
        replies
    }

    /// Answers an ARP request for whoever is asked for.
    fn tell_mac(&mut self, question: &[u8]) {
        let mut answer = question.to_vec();
        answer.truncate(42);
        answer.copy_within(6..12, 0);
        answer[6..12].copy_from_slice(&self.mac.0);
        answer[21] = 2;
        answer.copy_within(22..32, 32);
        answer[22..28].copy_from_slice(&self.mac.0);
        answer[28..32].copy_from_slice(&question[38..42]);
        self.nic.transmit_with(wait::now(), 42, &FrameMeta::default(), |room| room.copy_from_slice(&answer));
        let _ = self.nic.flush();
    }
}

fn our_server(end: &End, device: Device, sleeps: bool, ready: &Sender<()>, done: &AtomicBool) {
    pin(SERVER_CORE);
    let config = match device {
        Device::Latency => AfPacketConfig::profile(Profile::Latency),
        Device::Bulk => AfPacketConfig::profile(Profile::Bulk),
        Device::Rings => AfPacketConfig { tx: TxMode::Ring, ..AfPacketConfig::default() },
    };
    let (mut shard, mut nic) = end.open(config);
    shard.udp_bind(UdpBind::new(SocketAddr::new(end.address, PORT))).expect("a port");
    ready.send(()).expect("somebody waits");
    while !done.load(Ordering::Relaxed) {
        let frames = shard.counters().rx_frames;
        let deadline = shard.turn(wait::now(), &mut nic, wire::answer);
        if sleeps && shard.counters().rx_frames == frames {
            let soon = wait::now() + smoltcp::time::Duration::from_millis(100);
            let _ = nic.wait(Some(deadline.map_or(soon, |deadline| deadline.min(soon))));
        }
    }
}

fn kernel_server(socket: &UdpSocket, ready: &Sender<()>, done: &AtomicBool) {
    pin(SERVER_CORE);
    let mut buffers = vec![[0; 2048]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut headers_out = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let (mut lens, mut addresses) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let fd = socket.as_raw_fd();
    ready.send(()).expect("somebody waits");
    while !done.load(Ordering::Relaxed) {
        lens.clear();
        addresses.clear();
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let Ok(got) = recvmmsg(fd, &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None) else {
            continue;
        };
        for message in got {
            lens.push(message.bytes);
            addresses.push(message.address);
        }
        let slices: Vec<_> =
            buffers.iter().zip(&lens).map(|(buffer, len)| [IoSlice::new(&buffer[..*len])]).collect();
        let none: [ControlMessage<'_>; 0] = [];
        let _ = sendmmsg(fd, &mut headers_out, slices.iter(), &addresses, none, MsgFlags::empty());
    }
}

/// CPU time of this program and of the kernel's threads for softirq.
fn cpu_seconds() -> f64 {
    let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_or(0.0, |time| Duration::from(time).as_secs_f64());
    let Ok(processes) = std::fs::read_dir("/proc") else { return own };
    let softirq = processes.flatten().filter_map(|process| {
        let path = process.path();
        let name =
            std::fs::read_to_string(path.join("comm")).ok().filter(|name| name.starts_with("ksoftirqd/"))?;
        let stat = std::fs::read_to_string(path.join("schedstat")).ok().filter(|_| !name.is_empty())?;
        stat.split_whitespace().next()?.parse::<f64>().ok()
    });
    own + softirq.sum::<f64>() / 1e9
}

/// CPU time of everything on this machine: user, nice, system, irq and softirq.
pub(crate) fn machine_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    let ticks: f64 = [0, 1, 2, 5, 6].into_iter().filter_map(|at| fields.get(at)).sum();
    ticks / 100.0
}

const PORT: u16 = 7;
/// Datagrams of one call.
const BATCH: usize = 64;
/// Less than the kernel's queue between interfaces holds (1000).
const WINDOW: usize = 512;
const GENERATOR_CORE: usize = 0;
const SERVER_CORE: usize = 1;
/// Shorter than the server needs for a window.
const NAP: Duration = Duration::from_micros(100);
/// How long no answer may come before all are taken for lost.
const PATIENCE: Duration = Duration::from_millis(20);
