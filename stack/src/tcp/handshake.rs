//! What two ends agree on, whoever began.

use smoltcp::time::{Duration, Instant};

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
pub fn milliseconds(now: Instant) -> u32 {
    now.total_millis() as u32
}

/// The least shift that lets a 16-bit window say `bytes` (RFC 7323 section 2.3), 14 at most.
pub fn window_scale_for(bytes: u32) -> u8 {
    (0..14).find(|shift| bytes >> shift <= u32::from(u16::MAX)).unwrap_or(14)
}

/// Whether a segment has anything in the window (RFC 9293 section 3.10.7.4, table 6).
#[inline]
pub fn is_acceptable(seq: Seq, len: u32, rcv_nxt: Seq, rcv_wnd: u32) -> bool {
    match (len, rcv_wnd) {
        (0, 0) => seq == rcv_nxt,
        (0, _) => seq.is_within(rcv_nxt, rcv_wnd),
        _ => seq.is_within(rcv_nxt, rcv_wnd) || (seq + (len - 1)).is_within(rcv_nxt, rcv_wnd),
    }
}

/// Bytes of payload that a peer takes in a segment, by the MSS option of its SYN: 48 at least, as on Linux, lest a
/// peer makes us send a header for every byte.
pub fn peer_mss(option: Option<u16>, is_v4: bool) -> u16 {
    //= rfc9293#3.7.1
    //# If an MSS Option is not received at connection setup, TCP implementations MUST assume a
    //# default send MSS of 536 (576 - 40) for IPv4 or 1220 (1280 - 60) for IPv6 (MUST-15).
    let default = if is_v4 { 536 } else { 1220 };
    option.filter(|&mss| mss > 0).unwrap_or(default).max(PEER_MSS_MIN)
}

/// Less than that nobody is taken to mean (TCP_MIN_SND_MSS of Linux).
pub const PEER_MSS_MIN: u16 = 48;

/// Whether a timestamp is before another, which is less than 2^31 away (RFC 7323 section 5.2).
#[inline]
pub fn is_older(timestamp: u32, than: u32) -> bool {
    (timestamp.wrapping_sub(than) as i32) < 0
}

/// `now` and a time, however late it is.
#[inline]
pub(super) fn later(now: Instant, time: Duration) -> Instant {
    let micros = i64::try_from(time.total_micros()).unwrap_or(i64::MAX);
    Instant::from_micros(now.total_micros().saturating_add(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_acceptable_if_a_part_of_it_is_in_the_window() {
        let nxt = Seq(u32::MAX - 1);
        for (offset, len, wnd, expected) in [
            (0_i32, 0, 0, true),
            (1, 0, 0, false),
            (-1, 0, 0, false),
            (0, 1, 0, false),
            (0, 0, 10, true),
            (9, 0, 10, true),
            (10, 0, 10, false),
            (-1, 0, 10, false),
            (-1, 1, 10, false),
            (-1, 2, 10, true),
            (9, 100, 10, true),
            (10, 100, 10, false),
        ] {
            let seq = nxt + offset as u32;
            assert_eq!(is_acceptable(seq, len, nxt, wnd), expected, "{offset} {len} {wnd}");
        }
    }

    #[test]
    fn an_mss_is_never_too_small_to_be_of_use() {
        for (option, is_v4, expected) in [
            (None, true, 536),
            (None, false, 1220),
            (Some(0), true, 536),
            (Some(0), false, 1220),
            (Some(1), true, 48),
            (Some(1460), true, 1460),
            (Some(u16::MAX), false, u16::MAX),
        ] {
            assert_eq!(peer_mss(option, is_v4), expected, "{option:?}");
        }
    }

    #[test]
    fn a_window_scale_is_the_least_that_does() {
        for (bytes, expected) in
            [(0, 0), (65_535, 0), (65_536, 1), (6 << 20, 7), (1 << 30, 14), (u32::MAX, 14)]
        {
            assert_eq!(window_scale_for(bytes), expected, "{bytes}");
        }
    }
}
