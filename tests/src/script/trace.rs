//! What happened in a run: told when it fails, and kept as pcap where it is asked for.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use smoltcp::phy::Medium;
use smoltcp::time::Instant;
use wirestack_nic::capture::pcap::PcapWriter;

use super::packet::Layer;
use super::print;

/// The folder for pcap files, if there is to be one for each run.
const PCAP_VARIABLE: &str = "PCAP";

/// Everything on the wire and all calls, in their order.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: Vec<(Instant, String)>,
    frames: Vec<(Instant, Vec<u8>)>,
}

impl Trace {
    pub(super) fn injected(&mut self, at: Instant, frame: &[u8], layers: &[Layer], remark: &str) {
        self.frames.push((at, frame.to_vec()));
        self.lines.push((at, format!("< {}{remark}", print::packet(layers))));
    }

    pub(super) fn came(&mut self, at: Instant, frame: &[u8], layers: &[Layer], remark: &str) {
        self.frames.push((at, frame.to_vec()));
        self.lines.push((at, format!("> {}{remark}", print::packet(layers))));
    }

    pub(super) fn called(&mut self, at: Instant, text: String) {
        self.lines.push((at, text));
    }

    /// One line each, with the time.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (at, line) in &self.lines {
            let micros = at.total_micros();
            let _ = writeln!(text, "    {:>3}.{:06}s {line}", micros / 1_000_000, micros % 1_000_000);
        }
        text
    }

    /// Writes the frames to a file of the folder that `PCAP` names, if it does.
    pub(super) fn write_pcap(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let Some(folder) = env::var_os(PCAP_VARIABLE) else {
            return Ok(None);
        };
        fs::create_dir_all(&folder)?;
        let path = Path::new(&folder).join(format!("{name}.pcap"));
        let mut writer = PcapWriter::new(BufWriter::new(File::create(&path)?), Medium::Ethernet, 0)?;
        for (at, frame) in &self.frames {
            writer.write_frame(at.total_micros().unsigned_abs() * 1000, frame)?;
        }
        writer.flush()?;
        Ok(Some(path))
    }
}
