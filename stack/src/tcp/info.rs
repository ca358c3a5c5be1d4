//! What a connection knows of itself and of its path: TCP_INFO.

use smoltcp::time::Duration;

use super::sender::LimitedBy;

/// See the [module](self). Bytes, unless a name says otherwise.
#[derive(Debug, Clone, Default)]
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
    pub srtt: Option<Duration>,
    /// Its variation.
    pub rttvar: Duration,
    /// Least round-trip time.
    pub min_rtt: Option<Duration>,
    /// Round-trip time as seen by who receives.
    pub rcv_rtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// How often it has expired without progress.
    pub backoffs: u32,
    /// Bytes per second that pacing lets go. `None`: no pacing.
    pub pacing_rate: Option<u64>,
    /// Bytes per second that were delivered lately.
    pub delivery_rate: Option<u64>,
    /// That was while the application had nothing more.
    pub is_delivery_rate_app_limited: bool,
    /// What holds it back now.
    pub limited_by: LimitedBy,
    /// For how long which of them did: application, receiver, congestion.
    pub limited_time: [Duration; 3],
    /// Recovering from loss: nothing, fast recovery, after an RTO.
    pub recovery: &'static str,
    /// Window scale of the peer, and ours; `None`: not agreed on.
    pub window_scale: Option<(u8, u8)>,
    /// SACK was agreed on.
    pub sack: bool,
    /// Timestamps were agreed on.
    pub timestamps: bool,
    /// ECN was agreed on.
    pub ecn: bool,
    /// Reordering that was seen, as the part of a round trip that RACK waits.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
