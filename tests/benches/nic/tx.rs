//! Sending, by every way, against trafgen.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wirestack_apps::testbed::Wire;
use wirestack_nic::Nic;
use wirestack_nic::config::{TpacketVersion, TxMode};
use wirestack_tests::programs::find_program;

use crate::frames::{self, LARGE, SMALL};
use crate::table::{Table, pin};

/// How long each way sends.
const TIME: Duration = Duration::from_secs(1);

pub(crate) fn small() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::default();
    let unit = "Mpps";
    match trafgen(SMALL)? {
        Some(rate) => table.line("trafgen, one process (TX_RING)", rate / 1e6, unit, ""),
        None => table.absent("trafgen", "it is not installed"),
    }
    for (name, tx, version, vnet_hdr) in WAYS {
        let rate = measure(tx, version, vnet_hdr, SMALL, true)?;
        table.line(name, rate / 1e6, unit, "");
    }
    Ok(())
}

pub(crate) fn large() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::default();
    for (name, tx, version, vnet_hdr) in WAYS {
        for (what, whole) in [("headers written", false), ("all bytes written", true)] {
            let rate = measure(tx, version, vnet_hdr, LARGE, whole)?;
            let remark = if vnet_hdr { what } else { "split into segments here" };
            table.line(name, rate * LARGE as f64 * 8.0 / 1e9, "Gbit/s", remark);
            if !vnet_hdr {
                break;
            }
        }
    }
    Ok(())
}

const WAYS: [(&str, TxMode, TpacketVersion, bool); 6] = [
    ("sendmmsg, virtio_net_hdr", TxMode::Send, TpacketVersion::V2, true),
    ("sendmmsg, plain frames", TxMode::Send, TpacketVersion::V2, false),
    ("TX_RING V2, virtio_net_hdr", TxMode::Ring, TpacketVersion::V2, true),
    ("TX_RING V2, plain frames", TxMode::Ring, TpacketVersion::V2, false),
    ("TX_RING V3, virtio_net_hdr", TxMode::Ring, TpacketVersion::V3, true),
    ("TX_RING V3, plain frames", TxMode::Ring, TpacketVersion::V3, false),
];

/// Frames a second, super-frames counted as one.
fn measure(
    tx: TxMode,
    version: TpacketVersion,
    vnet_hdr: bool,
    len: usize,
    whole: bool,
) -> Result<f64, Box<dyn std::error::Error>> {
    let wire = frames::wire()?;
    let name = wire.ours().name().to_owned();
    let rate = wire.at_ours(move || {
        pin(0);
        let mut nic = frames::sender(&name, tx, version, vnet_hdr);
        let frame = frames::frame(len);
        frames::send(&mut nic, &frame, whole, 2000);
        let before = nic.counters();
        let start = Instant::now();
        while start.elapsed() < TIME {
            frames::send(&mut nic, &frame, whole, 256);
        }
        let seconds = start.elapsed().as_secs_f64();
        let after = nic.counters();
        // Frames that were split here count by their bytes.
        if vnet_hdr || len <= 1514 {
            (after.tx_frames - before.tx_frames) as f64 / seconds
        } else {
            (after.tx_segmented - before.tx_segmented) as f64 / seconds
        }
    });
    Ok(rate)
}

/// Frames a second of trafgen, by the counters of the interface; `None`: it is not installed.
fn trafgen(len: usize) -> Result<Option<f64>, Box<dyn std::error::Error>> {
    let Some(program) = find_program("trafgen") else { return Ok(None) };
    let wire = frames::wire()?;
    let mut child = generate(&wire, &program, len, None)?;
    // It prepares for a while; measured is the time in which it sends.
    let name = wire.ours().name();
    let start = Instant::now();
    while sent_frames(&wire, name) < 100_000 && start.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    let (first, start) = (sent_frames(&wire, name), Instant::now());
    std::thread::sleep(TIME);
    let rate = (sent_frames(&wire, name) - first) as f64 / start.elapsed().as_secs_f64();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
    child.wait()?;
    Ok(Some(rate))
}

/// Starts trafgen with one process on core 0.
fn generate(
    wire: &Wire,
    program: &std::path::Path,
    len: usize,
    count: Option<u64>,
) -> std::io::Result<std::process::Child> {
    let bytes: Vec<String> = frames::frame(len).iter().map(|byte| format!("0x{byte:02x}")).collect();
    let mut command = Command::new(program);
    command.args(["--dev", wire.ours().name(), "--conf", "-", "--cpus", "1", "--bind-cpus", "0"]);
    if let Some(count) = count {
        command.args(["--num", &count.to_string()]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = wire.at_ours(|| command.spawn())?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "{{ {} }}", bytes.join(", "))?;
    }
    Ok(child)
}

/// Frames that an interface of our end has sent, by its own counter.
fn sent_frames(wire: &Wire, name: &str) -> u64 {
    let text = wire.at_ours(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default());
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let fields = line.unwrap_or_default().split_whitespace();
    fields.skip(9).find_map(|field| field.parse().ok()).unwrap_or(0)
}
