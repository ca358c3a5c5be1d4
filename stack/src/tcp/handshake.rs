//! What two ends agree on, whoever began.

use smoltcp::time::Duration;

use super::seq::Seq;

/// What a handshake has settled: a connection begins with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Our initial sequence number: that of our SYN.
    pub iss: Seq,
    /// The peer's.
    pub irs: Seq,
    /// Bytes of payload that the peer takes in a segment: its MSS option, or 536 or 1220 (RFC 9293 section 3.7.1).
    pub peer_mss: u16,
    /// Window scales: the peer's and ours. `None`: no scaling.
    pub window_scale: Option<(u8, u8)>,
    /// SACK was agreed on.
    pub sack: bool,
    /// Timestamps were: what is added to our clock (RFC 7323 section 7.1), and the peer's newest TSval.
    pub timestamps: Option<Clock>,
    /// ECN was.
    pub ecn: bool,
    /// The peer's window, in bytes, scaled if it came behind the SYN.
    pub snd_wnd: u32,
    /// SEG.SEQ and SEG.ACK of the segment that told it: SND.WL1 and SND.WL2.
    pub snd_wl: (Seq, Seq),
    /// The window that we have offered, in bytes, from IRS + 1 on.
    pub rcv_wnd: u32,
    /// The round-trip time that the handshake has shown.
    pub rtt: Option<Duration>,
    /// A SYN was repeated.
    pub is_lossy: bool,
}

/// Clocks of timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Added to the milliseconds of our clock to make a TSval.
    pub offset: u32,
    /// TS.Recent.
    pub recent: u32,
}

/// Milliseconds since the start of the clock, as a TSval without its offset.
#[inline]
pub fn milliseconds(now: smoltcp::time::Instant) -> u32 {
    now.total_millis() as u32
}

/// The least shift that lets a 16-bit window say `bytes` (RFC 7323 section 2.3), 14 at most.
pub fn window_scale_for(bytes: u32) -> u8 {
    (0..14).find(|shift| bytes >> shift <= u32::from(u16::MAX)).unwrap_or(14)
}
