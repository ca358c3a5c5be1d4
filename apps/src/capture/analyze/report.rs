//! The statistics of an [`Analyzer`] as JSON, and as a table for people.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::burst::{Bursts, Spread};
use super::mpeg_ts::{StreamCounts, TransportStream};
use super::{Analyzer, Flow, Tally};

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// All frames together.
    pub all: BurstReport,
    /// Frames that are not IP, or cut short within the IP header.
    pub not_ip: Tally,
    /// Frames of flows for which there was no room in the table.
    pub untracked: Tally,
    /// Each flow; the one with the most bytes first.
    pub flows: Vec<FlowReport>,
}

/// One direction of a flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowReport {
    /// Who sent it.
    pub src: IpAddr,
    /// 0: no TCP or UDP, or fragments.
    pub src_port: u16,
    /// Who gets it.
    pub dst: IpAddr,
    /// As `src_port`.
    pub dst_port: u16,
    /// tcp, udp, icmp, icmpv6, or the number.
    pub protocol: String,
    /// How much, and how bursty.
    #[serde(flatten)]
    pub bursts: BurstReport,
    /// Of flows that carry a transport stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mpeg_ts: Option<TransportStreamReport>,
}

/// How much, and how bursty.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BurstReport {
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
    /// From the first frame to the last.
    pub duration_seconds: f64,
    /// Time from one frame to the next.
    pub inter_arrival_us: Option<Spread<f64>>,
    /// How often it was below each power of two of nanoseconds, and not below the one before.
    pub inter_arrival_histogram: Vec<Bucket>,
    /// Packets in each millisecond that has any.
    pub packets_per_ms: Option<Spread<u64>>,
    /// Bytes likewise.
    pub bytes_per_ms: Option<Spread<u64>>,
    /// In the busiest millisecond.
    pub peak_bits_per_second: u64,
}

/// A part of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// All values are below this.
    pub below_us: f64,
    /// How many.
    pub count: u64,
}

/// What was found in a transport stream. See [`TransportStream`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct TransportStreamReport {
    pub datagrams: u64,
    pub datagrams_other: u64,
    pub datagrams_rtp: u64,
    pub packets: u64,
    pub null_packets: u64,
    pub transport_errors: u64,
    pub packets_untracked: u64,
    pub continuity_errors: u64,
    pub packets_lost_min: u64,
    pub pids: Vec<PidReport>,
}

/// What was found in the packets of one PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PidReport {
    /// The number.
    pub pid: u16,
    /// All figures.
    #[serde(flatten)]
    pub counts: StreamCounts,
}

impl Analyzer {
    /// Ends the statistics.
    pub fn into_report(mut self) -> Report {
        let mut flows: Vec<_> = self.flows.drain(..).map(Flow::into_report).collect();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.bursts.tally.bytes));
        let all = BurstReport::new(self.total, self.all);
        Report { all, not_ip: self.not_ip, untracked: self.untracked, flows }
    }
}

impl Flow {
    fn into_report(self) -> FlowReport {
        let Self { key, tally, bursts, transport_stream } = self;
        FlowReport {
            src: key.src,
            src_port: key.src_port,
            dst: key.dst,
            dst_port: key.dst_port,
            protocol: key.protocol_name(),
            bursts: BurstReport::new(tally, bursts),
            mpeg_ts: transport_stream.map(|stream| TransportStreamReport::new(*stream)),
        }
    }
}

impl BurstReport {
    fn new(tally: Tally, mut bursts: Bursts) -> Self {
        bursts.close_window();
        let histogram = bursts.gap_histogram(2.0).into_iter();
        Self {
            tally,
            duration_seconds: bursts.duration_nanos() as f64 / 1e9,
            inter_arrival_us: bursts.gaps_us(),
            inter_arrival_histogram: histogram
                .map(|(below_nanos, count)| Bucket { below_us: below_nanos / 1000.0, count })
                .collect(),
            packets_per_ms: bursts.packets_per_ms(),
            bytes_per_ms: bursts.bytes_per_ms(),
            peak_bits_per_second: bursts.peak_bits_per_second(),
        }
    }
}

impl TransportStreamReport {
    fn new(stream: TransportStream) -> Self {
        let mut pids: Vec<_> =
            stream.streams.iter().map(|(&pid, stream)| PidReport { pid, counts: stream.counts }).collect();
        pids.sort_by_key(|report| report.pid);
        Self {
            datagrams: stream.datagrams,
            datagrams_other: stream.datagrams_other,
            datagrams_rtp: stream.rtp,
            packets: stream.packets,
            null_packets: stream.null_packets,
            transport_errors: stream.transport_errors,
            packets_untracked: stream.packets_untracked,
            continuity_errors: pids.iter().map(|report| report.counts.continuity_errors).sum(),
            packets_lost_min: pids.iter().map(|report| report.counts.packets_lost_min).sum(),
            pids,
        }
    }
}

/// The flows with the most bytes, and all of them together.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<50} {:>10} {:>9} {:>27} {:>21} {:>10}",
            "flow", "frames", "MB", "gap us min/p50/p99/max", "packets/ms p50/p99/max", "peak Mb/s"
        )?;
        for flow in self.flows.iter().take(ROWS_MAX) {
            let src = SocketAddr::new(flow.src, flow.src_port);
            let dst = SocketAddr::new(flow.dst, flow.dst_port);
            flow.bursts.row(f, &format!("{} {src} > {dst}", flow.protocol))?;
            if let Some(stream) = &flow.mpeg_ts {
                stream.rows(f)?;
            }
        }
        if let Some(more) = self.flows.len().checked_sub(ROWS_MAX).filter(|&more| more > 0) {
            writeln!(f, "… and {more} flows more; --json has all of them")?;
        }
        for (name, tally) in [("not IP", self.not_ip), ("flows without room", self.untracked)] {
            if tally.frames > 0 {
                writeln!(f, "{name:<50} {:>10} {:>9.1}", tally.frames, tally.bytes as f64 / 1e6)?;
            }
        }
        self.all.row(f, "all")?;
        writeln!(f, "gaps:{}", self.all.histogram_line())
    }
}

impl BurstReport {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let gaps = self.inter_arrival_us.map_or("-".to_owned(), |gaps| {
            let Spread { min, p50, p99, max, .. } = gaps;
            [min, p50, p99, max].map(brief).join("/")
        });
        let packets = self
            .packets_per_ms
            .map_or("-".to_owned(), |packets| format!("{}/{}/{}", packets.p50, packets.p99, packets.max));
        let Tally { frames, bytes, .. } = self.tally;
        let (mega_bytes, peak) = (bytes as f64 / 1e6, self.peak_bits_per_second as f64 / 1e6);
        writeln!(f, "{name:<50} {frames:>10} {mega_bytes:>9.1} {gaps:>27} {packets:>21} {peak:>10.1}")
    }

    /// The histogram by powers of ten.
    fn histogram_line(&self) -> String {
        let mut decades: Vec<(f64, u64)> = Vec::new();
        for &Bucket { below_us, count } in &self.inter_arrival_histogram {
            // A power of two and the next power of ten: at most one step of the finer one is misplaced.
            let decade = 10f64.powf(below_us.log10().ceil());
            match decades.last_mut() {
                Some((last, sum)) if *last == decade => *sum += count,
                _ => decades.push((decade, count)),
            }
        }
        decades.iter().fold(String::new(), |mut line, (below_us, count)| {
            // Writing to a string does not fail.
            let _ = write!(line, "  <{below_us} us {count}");
            line
        })
    }
}

impl TransportStreamReport {
    fn rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  MPEG-TS: {} packets, {} null, {} PIDs, {} continuity errors, at least {} packets lost",
            self.packets,
            self.null_packets,
            self.pids.len(),
            self.continuity_errors,
            self.packets_lost_min
        )?;
        for (name, count) in [
            ("marked as damaged", self.transport_errors),
            ("of PIDs without room", self.packets_untracked),
            ("datagrams of something else", self.datagrams_other),
        ] {
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        writeln!(f)?;
        let wrong = self.pids.iter().filter(|report| report.counts.continuity_errors > 0);
        for PidReport { pid, counts } in wrong.take(ROWS_MAX) {
            let StreamCounts { packets, continuity_errors, packets_lost_min, .. } = counts;
            writeln!(
                f,
                "    PID {pid:#06x}: {packets} packets, {continuity_errors} continuity errors, \
                 at least {packets_lost_min} lost"
            )?;
        }
        Ok(())
    }
}

/// Three digits.
fn brief(us: f64) -> String {
    match us {
        us if us >= 100.0 => format!("{us:.0}"),
        us if us >= 10.0 => format!("{us:.1}"),
        us => format!("{us:.2}"),
    }
}

/// Flows in the table, and PIDs of one flow.
const ROWS_MAX: usize = 20;
