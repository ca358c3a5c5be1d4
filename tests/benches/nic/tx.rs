//! Sending, by every way, against trafgen.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

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
        Some(rate) => table.line("trafgen, one process (TX_RING, qdisc bypass)", rate / 1e6, unit, ""),
        None => table.absent("trafgen", "it is not installed"),
    }
    for (name, tx, version, vnet_hdr) in WAYS {
        let rate = measure(tx, version, vnet_hdr, false, SMALL, true)?;
        table.line(name, rate / 1e6, unit, "");
        if !vnet_hdr {
            let rate = measure(tx, version, vnet_hdr, true, SMALL, true)?;
            table.line(&format!("{name}, qdisc bypass"), rate / 1e6, unit, "");
        }
    }
    Ok(())
}

pub(crate) fn large() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::default();
    for (name, tx, version, vnet_hdr) in WAYS {
        for (what, whole) in [("headers written", false), ("all bytes written", true)] {
            let rate = measure(tx, version, vnet_hdr, false, LARGE, whole)?;
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
    qdisc_bypass: bool,
    len: usize,
    whole: bool,
) -> Result<f64, Box<dyn std::error::Error>> {
    let wire = frames::wire()?;
    let name = wire.ours().name().to_owned();
    let rate = wire.at_ours(move || {
        pin(0);
        let mut nic = frames::sender(&name, tx, version, vnet_hdr, qdisc_bypass);
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

/// Frames a second of trafgen, by its own words; `None`: it is not installed.
fn trafgen(len: usize) -> Result<Option<f64>, Box<dyn std::error::Error>> {
    let Some(program) = find_program("trafgen") else { return Ok(None) };
    let wire = frames::wire()?;
    let bytes: Vec<String> = frames::frame(len).iter().map(|byte| format!("0x{byte:02x}")).collect();
    let mut config = tempfile::NamedTempFile::new()?;
    writeln!(config, "{{ {} }}", bytes.join(", "))?;
    let mut command = Command::new(program);
    command.args(["--dev", wire.ours().name(), "--cpus", "1", "--num", TRAFGEN_FRAMES]);
    command.arg("--conf").arg(config.path());
    let output = wire.at_ours(|| {
        pin(0);
        command.output()
    })?;
    // "           1 sec, 820620 usec on CPU0 (1000000 packets)"
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text
        .lines()
        .find(|line| line.contains(" usec on CPU"))
        .ok_or("no summary")?
        .split_whitespace()
        .collect();
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<f64>().ok());
    let (seconds, micros) = number(0).zip(number(2)).ok_or("an unknown summary")?;
    Ok(Some(TRAFGEN_FRAMES.parse::<f64>()? / (seconds + micros / 1e6)))
}

/// About as many as the other ways send.
const TRAFGEN_FRAMES: &str = "1000000";
