//! What a connection knows of itself and of its path: TCP_INFO.
//!
//! Printed, it is three lines in the manner of `ss -ti`: what was agreed on, the state of the path, and what is in the
//! buffers with what was counted. As JSON it has all fields; durations are whole microseconds and rates are bytes per
//! second, and their names say so.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use smoltcp::time::Duration;

use super::sender::LimitedBy;

#[cfg(test)]
mod tests;

/// See the [module](self). Bytes, unless a name says otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TcpInfo {
    /// State of RFC 9293 section 3.3.2.
    pub state: &'static str,
    /// SND.UNA, behind ISS.
    pub snd_una: u32,
    /// SND.NXT, behind ISS.
    pub snd_nxt: u32,
    /// The peer's window.
    pub snd_wnd: u32,
    /// RCV.NXT, behind IRS.
    pub rcv_nxt: u32,
    /// Our window.
    pub rcv_wnd: u32,
    /// Bytes of payload of a full segment that we send.
    pub mss: u32,
    /// Congestion window.
    pub cwnd: u32,
    /// Slow-start threshold. `None`: nothing was lost yet.
    pub ssthresh: Option<u32>,
    /// Name of the controller.
    pub congestion: &'static str,
    /// In flight.
    pub in_flight: u32,
    /// Smoothed round-trip time.
    #[serde(rename = "srtt_us", serialize_with = "optional_micros")]
    pub srtt: Option<Duration>,
    /// Its variation.
    #[serde(rename = "rttvar_us", serialize_with = "micros")]
    pub rttvar: Duration,
    /// Least round-trip time.
    #[serde(rename = "min_rtt_us", serialize_with = "optional_micros")]
    pub min_rtt: Option<Duration>,
    /// Round-trip time as seen by who receives.
    #[serde(rename = "rcv_rtt_us", serialize_with = "optional_micros")]
    pub rcv_rtt: Option<Duration>,
    /// Retransmission timeout.
    #[serde(rename = "rto_us", serialize_with = "micros")]
    pub rto: Duration,
    /// How often it has expired without progress.
    pub backoffs: u32,
    /// Bytes per second that pacing lets go. `None`: no pacing.
    #[serde(rename = "pacing_rate_bytes_per_s")]
    pub pacing_rate: Option<u64>,
    /// Bytes per second that were delivered lately.
    #[serde(rename = "delivery_rate_bytes_per_s")]
    pub delivery_rate: Option<u64>,
    /// That was while the application had nothing more.
    pub is_delivery_rate_app_limited: bool,
    /// What holds it back now.
    #[serde(serialize_with = "limit")]
    pub limited_by: LimitedBy,
    /// For how long which of them did: application, receiver, congestion.
    #[serde(rename = "limited_time_us", serialize_with = "limited_times")]
    pub limited_time: [Duration; 3],
    /// Recovering from loss: nothing, fast recovery, after an RTO.
    pub recovery: &'static str,
    /// Window scale of the peer, and ours; `None`: not agreed on.
    #[serde(serialize_with = "window_scales")]
    pub window_scale: Option<(u8, u8)>,
    /// SACK was agreed on.
    pub sack: bool,
    /// Timestamps were agreed on.
    pub timestamps: bool,
    /// ECN was agreed on.
    pub ecn: bool,
    /// Reordering that was seen, as the part of a round trip that RACK waits.
    #[serde(rename = "reordering_window_us", serialize_with = "micros")]
    pub reordering_window: Duration,
    /// Counters.
    pub counters: InfoCounters,
    /// Bytes written and not acknowledged.
    pub send_buffered: u32,
    /// How many there may be.
    pub send_buffer_max: u32,
    /// Bytes to be read.
    pub recv_buffered: u32,
    /// Bytes that came early.
    pub recv_early: u32,
    /// How many there may be.
    pub recv_buffer_max: u32,
    /// Bytes of an IP packet that the path takes, as far as is known.
    pub path_mtu: u16,
}

/// What one connection has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InfoCounters {
    /// Bytes of data acknowledged by the peer.
    pub bytes_acked: u64,
    /// Bytes of data received in order.
    pub bytes_received: u64,
    /// Bytes of data sent, repetitions included.
    pub bytes_sent: u64,
    /// Bytes sent again.
    pub bytes_retransmitted: u64,
    /// Segments sent (as on the wire, not frames).
    pub segments_out: u32,
    /// Segments received (as the device gave them).
    pub segments_in: u32,
    /// Frames sent again.
    pub retransmits: u32,
    /// Times the RTO has expired.
    pub timeouts: u32,
    /// Loss probes.
    pub probes: u32,
    /// Fast recoveries.
    pub recoveries: u32,
    /// Recoveries that were undone.
    pub undone: u32,
    /// Duplicate SACKs received.
    pub dsacks: u32,
    /// Reductions for ECN.
    pub ecn_reductions: u32,
    /// Segments that came out of order.
    pub early_segments: u32,
    /// Bytes that came again.
    pub duplicate_bytes: u64,
}

impl fmt::Display for TcpInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_agreed(f)?;
        writeln!(f)?;
        self.fmt_path(f)?;
        writeln!(f)?;
        self.fmt_buffers(f)?;
        self.counters.fmt_counted(f)
    }
}

impl TcpInfo {
    /// What was agreed on, and the sizes that follow from it.
    fn fmt_agreed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.state, self.congestion)?;
        for (name, is_set) in [("sack", self.sack), ("ts", self.timestamps), ("ecn", self.ecn)] {
            if is_set {
                write!(f, " {name}")?;
            }
        }
        if let Some((peer, ours)) = self.window_scale {
            write!(f, " wscale:{peer},{ours}")?;
        }
        write!(f, " mss:{} pmtu:{}", self.mss, self.path_mtu)?;
        let Self { snd_una, snd_nxt, snd_wnd, rcv_nxt, rcv_wnd, .. } = self;
        write!(
            f,
            " snd_una:{snd_una} snd_nxt:{snd_nxt} snd_wnd:{snd_wnd} rcv_nxt:{rcv_nxt} rcv_wnd:{rcv_wnd}"
        )
    }

    /// What is known of the path, and how fast data may go.
    fn fmt_path(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  cwnd:{}", self.cwnd)?;
        if let Some(ssthresh) = self.ssthresh {
            write!(f, " ssthresh:{ssthresh}")?;
        }
        write!(f, " in_flight:{}", self.in_flight)?;
        if let Some(srtt) = self.srtt {
            write!(f, " rtt:{}/{}", Millis(srtt), Millis(self.rttvar))?;
        }
        for (name, rtt) in [("min_rtt", self.min_rtt), ("rcv_rtt", self.rcv_rtt)] {
            if let Some(rtt) = rtt {
                write!(f, " {name}:{}", Millis(rtt))?;
            }
        }
        write!(f, " rto:{}", Millis(self.rto))?;
        if self.backoffs > 0 {
            write!(f, " backoffs:{}", self.backoffs)?;
        }
        if self.reordering_window > Duration::ZERO {
            write!(f, " reordering_window:{}", Millis(self.reordering_window))?;
        }
        if let Some(rate) = self.pacing_rate {
            write!(f, " pacing_rate:{}", Rate(rate))?;
        }
        if let Some(rate) = self.delivery_rate {
            let app_limited = if self.is_delivery_rate_app_limited { "(app_limited)" } else { "" };
            write!(f, " delivery_rate:{}{app_limited}", Rate(rate))?;
        }
        write!(f, " recovery:{} limited_by:{}", self.recovery, self.limited_by.name())?;
        for (name, time) in LIMITS.into_iter().zip(self.limited_time) {
            if time > Duration::ZERO {
                write!(f, " {name}_limited:{}", Millis(time))?;
            }
        }
        Ok(())
    }

    fn fmt_buffers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { send_buffered, send_buffer_max, recv_buffered, recv_early, recv_buffer_max, .. } = self;
        write!(f, "  send_buffer:{send_buffered}/{send_buffer_max}")?;
        write!(f, " recv_buffer:{recv_buffered}+{recv_early}/{recv_buffer_max}")
    }
}

impl InfoCounters {
    /// Those that have counted something.
    fn fmt_counted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = [
            ("bytes_sent", self.bytes_sent),
            ("bytes_retransmitted", self.bytes_retransmitted),
            ("bytes_acked", self.bytes_acked),
            ("bytes_received", self.bytes_received),
            ("duplicate_bytes", self.duplicate_bytes),
            ("segments_out", self.segments_out.into()),
            ("segments_in", self.segments_in.into()),
            ("early_segments", self.early_segments.into()),
            ("retransmits", self.retransmits.into()),
            ("timeouts", self.timeouts.into()),
            ("probes", self.probes.into()),
            ("recoveries", self.recoveries.into()),
            ("undone", self.undone.into()),
            ("dsacks", self.dsacks.into()),
            ("ecn_reductions", self.ecn_reductions.into()),
        ];
        counted
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(name, count)| write!(f, " {name}:{count}"))
    }
}

/// Milliseconds with as many digits behind the point as are needed, three at most.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.total_micros();
        let (millis, rest) = (micros / 1000, micros % 1000);
        if rest == 0 {
            return write!(f, "{millis}ms");
        }
        let digits = format!("{rest:03}");
        write!(f, "{millis}.{}ms", digits.trim_end_matches('0'))
    }
}

/// Bytes per second with a prefix: at least three digits of it mean something.
struct Rate(u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.0;
        match rate {
            0..10_000 => write!(f, "{rate}B/s"),
            10_000..10_000_000 => write!(f, "{}kB/s", rate / 1000),
            10_000_000..10_000_000_000 => write!(f, "{}MB/s", rate / 1_000_000),
            _ => write!(f, "{}GB/s", rate / 1_000_000_000),
        }
    }
}

/// Names of what limits, in the order of [`TcpInfo::limited_time`].
const LIMITS: [&str; 3] = ["application", "receiver", "congestion"];

impl LimitedBy {
    /// As it is printed: `application`, `receiver` or `congestion`.
    pub fn name(self) -> &'static str {
        let [application, receiver, congestion] = LIMITS;
        match self {
            Self::Application => application,
            Self::Receiver => receiver,
            Self::Congestion => congestion,
        }
    }
}

fn micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.total_micros())
}

fn optional_micros<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.total_micros()).serialize(serializer)
}

fn limit<S: Serializer>(limit: &LimitedBy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(limit.name())
}

fn limited_times<S: Serializer>(times: &[Duration; 3], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(times.len()))?;
    for (name, time) in LIMITS.iter().zip(times) {
        map.serialize_entry(name, &time.total_micros())?;
    }
    map.end()
}

fn window_scales<S: Serializer>(scales: &Option<(u8, u8)>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some((peer, ours)) = scales else { return serializer.serialize_none() };
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("peer", peer)?;
    map.serialize_entry("ours", ours)?;
    map.end()
}
