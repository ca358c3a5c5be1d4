//! What a person can write behind `wirestack capture`.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use wirestack::nic::affinity::CpuSet;
use wirestack::nic::capture::pcapng::SNAP_LEN_MAX;

use crate::cli::{parse_cpus, parse_interface, parse_seconds, whole};

/// Flags of `capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Interface: packet:IFNAME
    #[arg(long, value_name = "KIND:NAME", value_parser = parse_interface)]
    pub nic: String,
    /// How frames are received: recv (system calls), ring (memory shared with the kernel), and both with
    /// -fanout, where the kernel spreads flows over the threads. Without fanout every thread gets every
    /// frame [default: ring, or ring-fanout with several threads]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// Threads that receive, each with a socket of its own [default: 1, or one for each CPU with fanout]
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=256))]
    pub threads: Option<u16>,
    /// End after so many seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub seconds: Option<f64>,
    /// End after so many frames
    #[arg(short, long, value_name = "N", value_parser = whole::<u64>(1..=u64::MAX))]
    pub count: Option<u64>,
    /// Write the frames to this file: as pcap if its name ends with .pcap or .cap, else as pcapng. Frames of
    /// several threads are not in the order of their times (`reordercap` sorts)
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Begin the next file before one is larger than this, as in 100MB or 64MiB; files are numbered:
    /// x_00001.pcapng, x_00002.pcapng
    #[arg(long, value_name = "SIZE", requires = "write", value_parser = parse_size)]
    pub rotate_size: Option<NonZeroU64>,
    /// Begin the next file after so many seconds
    #[arg(long, value_name = "S", requires = "write", value_parser = parse_seconds)]
    pub rotate_seconds: Option<f64>,
    /// Keep so many files: the oldest is removed
    #[arg(long, value_name = "N", requires = "write", value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    pub rotate_files: Option<u32>,
    /// Bytes kept of each frame in the file [default: 262144]
    #[arg(long, value_name = "BYTES", value_parser = whole::<u32>(1..=u64::from(SNAP_LEN_MAX)))]
    pub snap_len: Option<u32>,
    /// Only packets to or from the prefixes in this file: one a line, as in 192.0.2.0/24; `!` before it makes
    /// an exception, and what follows `#` does not count. Frames without IP and IPv6 neighbor discovery
    /// pass all the same. A list has room for 100 000 prefixes and more
    #[arg(long, value_name = "FILE")]
    pub allow: Option<PathBuf>,
    /// No packets to or from the prefixes in this file
    #[arg(long, value_name = "FILE")]
    pub deny: Option<PathBuf>,
    /// Leave frames for other stations to the card's filter
    #[arg(long)]
    pub no_promiscuous: bool,
    /// Memory of each thread's ring (ring modes) or socket (recv modes)
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub ring_size: NonZeroU64,
    /// CPUs for the threads, one after the other, as in 0,2,4-7
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub pin: Option<CpuSet>,
    /// Show what the flows are, how bursty they are, and whether MPEG transport streams in them are whole
    #[arg(long)]
    pub analyze: bool,
    /// Flows that --analyze tells apart; each takes up to 8 KB
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = whole::<u32>(1..=1 << 20))]
    pub max_flows: u32,
    /// Print the figures as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// Only frames that match: an expression of pcap-filter(7), as in udp port 53
    #[arg(value_name = "EXPRESSION")]
    pub expression: Vec<String>,
}

/// By which way frames are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// System calls.
    Recv,
    /// System calls; the kernel spreads flows over the threads.
    RecvFanout,
    /// A ring.
    Ring,
    /// A ring for each thread; the kernel spreads flows over them.
    RingFanout,
}

impl Mode {
    /// Whether each frame goes to one thread only.
    pub fn is_fanout(self) -> bool {
        matches!(self, Self::RecvFanout | Self::RingFanout)
    }

    /// Whether frames come through a ring.
    pub fn is_ring(self) -> bool {
        matches!(self, Self::Ring | Self::RingFanout)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recv => "recv",
            Self::RecvFanout => "recv-fanout",
            Self::Ring => "ring",
            Self::RingFanout => "ring-fanout",
        }
    }
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let modes = [Self::Recv, Self::RecvFanout, Self::Ring, Self::RingFanout];
        let mode = modes.into_iter().find(|mode| mode.name() == text);
        mode.ok_or("recv, recv-fanout, ring or ring-fanout is accepted")
    }
}

fn parse_size(text: &str) -> Result<NonZeroU64, String> {
    let accepted = "a number of bytes is accepted, with kB, MB, GB, KiB, MiB or GiB, as in 100MB";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(accepted.to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.and_then(NonZeroU64::new).ok_or_else(|| accepted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let size = |text| parse_size(text).map(NonZeroU64::get).ok();
        assert_eq!(
            ["1", "10B", "3kB", "100MB", "64MiB"].map(size),
            [1, 10, 3000, 100_000_000, 64 << 20].map(Some)
        );
        for wrong in ["", "0", "MB", "-1", "1.5MB", "5 MB", "5mb", "99999999999GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn modes_have_names() {
        for mode in [Mode::Recv, Mode::RecvFanout, Mode::Ring, Mode::RingFanout] {
            assert_eq!(mode.name().parse(), Ok(mode));
            assert_eq!(
                (mode.is_ring(), mode.is_fanout()),
                (mode.name().starts_with("ring"), mode.name().ends_with("out"))
            );
        }
        assert!("Ring".parse::<Mode>().is_err());
    }
}
