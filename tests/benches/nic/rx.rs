//! Receiving, by every way, while a thread on the other core sends as fast as it can.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wirestack_apps::testbed::Wire;
use wirestack_nic::config::{AfPacketConfig, Profile, RxMode, SUPER_FRAME_LEN_MAX, TpacketVersion, TxMode};
use wirestack_nic::{AfPacket, Nic, RingGeometry, wait};
use wirestack_tests::programs::find_program;

use crate::frames::{self, LARGE, SMALL};
use crate::table::{Table, children_cpu_seconds, pin, thread_cpu_seconds};

/// Frames that each way is sent.
const SMALL_COUNT: u64 = 1_500_000;
const LARGE_COUNT: u64 = 150_000;
/// How long nothing must come before a receiver is done.
const QUIET: Duration = Duration::from_millis(100);

/// What one way did.
struct Outcome {
    /// Frames a second that were sent meanwhile.
    sent_rate: f64,
    received: u64,
    dropped: u64,
    /// CPU time of the receiver.
    cpu_seconds: f64,
}

impl Outcome {
    fn remark(&self) -> String {
        let per_million = self.cpu_seconds / self.received as f64 * 1e6;
        let share = self.dropped as f64 / (self.dropped + self.received) as f64 * 100.0;
        format!("{} dropped ({share:.2} %), {per_million:.3} CPU s per million received", self.dropped)
    }
}

pub(crate) fn small() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::default();
    for (name, config, waiting) in both(false) {
        let outcome = receive(config, waiting, SMALL, SMALL_COUNT)?;
        table.line(&name, outcome.sent_rate / 1e6, "Mpps", &outcome.remark());
    }
    for (program, args) in [
        (
            "netsniff-ng",
            &["--in", "IF", "--out", "/dev/null", "--silent", "--bind-cpu", "1", "--ring-size", "64MiB"][..],
        ),
        ("tcpdump", &["-i", "IF", "-w", "/dev/null", "-Q", "in"][..]),
    ] {
        match other(program, args)? {
            Some(outcome) => {
                table.line(program, outcome.sent_rate / 1e6, "Mpps", &outcome.remark());
            }
            None => table.absent(program, "it is not installed"),
        }
    }
    Ok(())
}

pub(crate) fn large() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::default();
    for (name, config, waiting) in both(true) {
        let outcome = receive(config, waiting, LARGE, LARGE_COUNT)?;
        let received = outcome.received as f64 / LARGE_COUNT as f64;
        let rate = outcome.sent_rate * received * LARGE as f64 * 8.0 / 1e9;
        table.line(&name, rate, "Gbit/s", &outcome.remark());
    }
    Ok(())
}

/// How a receiver waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Sleep,
    Spin,
}

/// Every way, asleep between frames and spinning.
fn both(super_frames: bool) -> impl Iterator<Item = (String, AfPacketConfig<'static>, Waiting)> {
    let spinning = ways(super_frames).into_iter();
    let spinning = spinning.map(|(name, config)| (format!("{name}, spinning"), config, Waiting::Spin));
    ways(super_frames).into_iter().map(|(name, config)| (name, config, Waiting::Sleep)).chain(spinning)
}

/// Every way to receive; the first is what the others are held against.
fn ways(super_frames: bool) -> Vec<(String, AfPacketConfig<'static>)> {
    let base = || AfPacketConfig {
        tx: TxMode::None,
        vnet_hdr: super_frames,
        verify_checksums: super_frames,
        ..AfPacketConfig::default()
    };
    let slots = |slots: usize| vec![RingGeometry::for_frames(SUPER_FRAME_LEN_MAX, slots)].into();
    let mut ways = vec![
        (
            "recvmmsg (bulk)".to_owned(),
            AfPacketConfig { rx: RxMode::Recv, rx_queue_bytes: 64 << 20, ..base() },
        ),
        ("ring V1, slots of 2 KB".to_owned(), AfPacketConfig { version: TpacketVersion::V1, ..base() }),
        ("ring V2, slots of 2 KB (latency)".to_owned(), base()),
        ("ring V2, 256 slots of 64 KB".to_owned(), AfPacketConfig { rx_rings: slots(256), ..base() }),
        ("ring V2, 1024 slots of 64 KB".to_owned(), AfPacketConfig { rx_rings: slots(1024), ..base() }),
        ("ring V3, 64 MiB (capture)".to_owned(), AfPacketConfig { version: TpacketVersion::V3, ..base() }),
    ];
    if !super_frames {
        let config = AfPacketConfig::profile(Profile::Capture);
        ways.push(("profile capture as it is".to_owned(), AfPacketConfig { outgoing: false, ..config }));
    }
    ways
}

fn receive(
    config: AfPacketConfig<'static>,
    waiting: Waiting,
    len: usize,
    count: u64,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let wire = frames::wire()?;
    let done = Arc::new(AtomicBool::new(false));
    let (is_done, name) = (done.clone(), wire.ours().name().to_owned());
    let (ready, is_ready) = std::sync::mpsc::channel();
    let receiver = wire.ours().namespace().spawn(move || {
        pin(1);
        let mut nic = AfPacket::open(&name, config).expect("a device that receives");
        ready.send(()).expect("somebody waits");
        let mut received: u64 = 0;
        let mut last = Instant::now();
        let cpu_before = thread_cpu_seconds();
        while !is_done.load(Ordering::Relaxed) || last.elapsed() < QUIET {
            let before = received;
            let now = wait::now();
            while nic.receive_with(now, |frame, _| frame.len()).is_some_and(|got| got == len) {
                received += 1;
            }
            if received > before {
                last = Instant::now();
            }
            match waiting {
                Waiting::Sleep => {
                    let _ = nic.wait(Some(wait::now() + smoltcp::time::Duration::from_millis(10)));
                }
                Waiting::Spin => std::hint::spin_loop(),
            }
        }
        let cpu_seconds = thread_cpu_seconds() - cpu_before;
        (received, nic.counters().rx_ring_full + nic.counters().rx_truncated, cpu_seconds)
    });
    is_ready.recv()?;
    let sent_rate = load(&wire, len, count);
    done.store(true, Ordering::Relaxed);
    let (received, dropped, cpu_seconds) = receiver.join().map_err(|_| "the receiver panicked")?;
    Ok(Outcome { sent_rate, received, dropped, cpu_seconds })
}

/// Sends frames from the peer's end on core 0. Returns the rate.
fn load(wire: &Wire, len: usize, count: u64) -> f64 {
    let name = wire.peer().name().to_owned();
    wire.at_peer(move || {
        pin(0);
        let mut nic = frames::sender(&name, TxMode::Send, TpacketVersion::V2, true, false);
        let frame = frames::frame(len);
        let start = Instant::now();
        frames::send(&mut nic, &frame, false, count);
        count as f64 / start.elapsed().as_secs_f64()
    })
}

/// The same with a program of others. `None`: it is not installed.
fn other(program: &str, args: &[&str]) -> Result<Option<Outcome>, Box<dyn std::error::Error>> {
    let Some(path) = find_program(program) else { return Ok(None) };
    let wire = frames::wire()?;
    let mut command = Command::new(path);
    command.args(args.iter().map(|&arg| if arg == "IF" { wire.ours().name() } else { arg }));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let cpu_before = children_cpu_seconds();
    let child = wire.at_ours(|| {
        pin(1);
        command.spawn()
    })?;
    // Neither says when it listens, so it is given the time.
    thread::sleep(Duration::from_secs(1));
    let sent_rate = load(&wire, SMALL, SMALL_COUNT);
    thread::sleep(Duration::from_millis(500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    let cpu_seconds = children_cpu_seconds() - cpu_before;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // "1500000 packets captured" of tcpdump; "1500000 packets passed filter" of netsniff-ng.
    let number = |words: &[&str]| -> Option<u64> {
        let line = text.lines().find(|line| words.iter().any(|word| line.contains(word)))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let received = number(&["packets captured", "packets passed filter"]).ok_or("no count in its words")?;
    let dropped = SMALL_COUNT.saturating_sub(received);
    Ok(Some(Outcome { sent_rate, received, dropped, cpu_seconds }))
}
