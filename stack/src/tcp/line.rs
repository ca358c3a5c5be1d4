//! TCP on a serial line: what is right for a path that is slow, loses frames without being congested, and whose bytes
//! can be counted.
//!
//! All follows from how long a packet is on the line. With `r` bytes per second, `d` as [`LineProfile::delay`], and a
//! packet of the MTU, which costs `F = (mtu + mtu / 64 + 2) / r` (two bytes of 256 are escaped by SLIP, and two end a
//! frame):
//!
//! | option | value | why |
//! |---|---|---|
//! | `recv_buffer` | 8 segments, or twice `r * (F + 2 d)` | bandwidth × delay is little more than one segment; three more tell of a loss, and one that is repeated comes behind those that wait. More would only wait at the other end, which may be a queue without order, before a key stroke |
//! | `rto.min` | `4 F + 2 d + 200 ms` | two packets wait in the device and one is on the line; before its ACK, the other end finishes a packet; and it may delay the ACK |
//! | `rto.initial` | `2 F + window / r + 2 d`, `rto.min` at least | a packet on the line each way, and what a queue without order holds |
//! | `rto.max` | `8 rto.initial`, 4 to 16 s | a frame now and then is nothing; a line whose other end was unplugged goes on so soon |
//! | `initial_window` | 4 segments (RFC 3390) | what the queue of a device holds, and what tells of a loss |
//! | `send_buffer_max` | two seconds, 16 to 256 KB | an application that is told of room has time to come |
//! | `delayed_ack` | `F / 4`, 5 to 40 ms | the next segment is `F` away, so nearly each is acknowledged; what an application answers at once goes with it |
//! | `timestamps` | off | 12 bytes, and other ones each time: RFC 1144 compresses no segment that has them |
//! | `window_scaling` | off | no window is larger than 64 KB |
//! | `pacing` | off | the line is the pace, and the device takes two packets at a time |
//! | `mtu_probing` | off | there is one link, whose MTU is known; lost frames are no sign of a smaller one |
//! | `keepalive` | after 60 s, each 15 s | somebody else may be at the other end |
//! | `user_timeout` | 15 minutes | a line may be unplugged for a while; how often something was repeated says nothing |
//! | `congestion` | BBR | a lost frame is no sign of congestion here. On the simulated line it is two percent below the others at worst, and half as much again where CSLIP loses several frames for one (`tests/tests/sim/serial_table.txt`); without a loss all are the same, for the device takes no more than two packets |
//!
//! A line without a rate (a pseudo-terminal, a socket) takes what a local network takes, without scaling.

use smoltcp::time::Duration;

use super::config::{Keepalive, TcpOptions};
use super::congestion::Algorithm;
use super::rtt::RtoBounds;

/// What is known of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineProfile {
    /// Bytes per second, start and stop bits not counted. `None`: as many as there are.
    pub bytes_per_second: Option<u32>,
    /// Bytes of an IP packet at most, of both ends.
    pub mtu: u16,
    /// What it takes from one end to the other beside the bytes themselves: adapters on USB tell of bytes up to 16 ms
    /// late.
    pub delay: Duration,
}

impl LineProfile {
    /// A line of so many bytes per second whose adapters are on USB.
    pub fn new(bytes_per_second: Option<u32>, mtu: u16) -> Self {
        Self { bytes_per_second, mtu, delay: DELAY }
    }

    /// The time of so many bytes on the line. A line without a rate takes none.
    pub fn time_for(&self, bytes: u32) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        Duration::from_micros((u64::from(bytes) * 1_000_000).div_ceil(u64::from(rate.max(1))))
    }

    /// The time of a packet of the MTU, framed.
    pub fn frame_time(&self) -> Duration {
        let mtu = u32::from(self.mtu);
        self.time_for(mtu + mtu / 64 + 2)
    }

    /// Bytes of payload of a segment of the MTU (IPv4, without options).
    fn segment(&self) -> u32 {
        u32::from(self.mtu).saturating_sub(40).max(48)
    }

    /// The receive window: see the [module](self).
    pub fn window(&self) -> u32 {
        let Some(rate) = self.bytes_per_second else { return u16::MAX.into() };
        let path = (self.frame_time() + self.delay * 2).total_micros();
        let path_bytes = u64::from(rate) * path / 1_000_000;
        let window = (2 * path_bytes).max(u64::from(WINDOW_SEGMENTS * self.segment()));
        window.min(u16::MAX.into()) as u32
    }

    fn rto(&self) -> RtoBounds {
        let (frame, there_and_back) = (self.frame_time(), self.delay * 2);
        let min = frame * 4 + there_and_back + PEER_DELAYED_ACK;
        let queued = self.time_for(self.window());
        let initial = (frame * 2 + queued + there_and_back).max(min);
        let initial = if self.bytes_per_second.is_some() { initial } else { Duration::from_secs(1) };
        let max = (initial * 8).clamp(RTO_MAX_MIN, RTO_MAX_MAX).max(initial);
        RtoBounds { initial, min, max }
    }

    /// How TCP behaves on this line.
    pub fn options(&self) -> TcpOptions {
        let segment = self.segment();
        let (window, rto) = (self.window(), self.rto());
        let send_buffer = self.bytes_per_second.map_or(SEND_BUFFER_MAX, |rate| rate.saturating_mul(2));
        TcpOptions {
            congestion: if self.bytes_per_second.is_some() { Algorithm::Bbr } else { Algorithm::default() },
            pacing: false,
            timestamps: false,
            window_scaling: false,
            rto,
            initial_window: self.bytes_per_second.map(|_| INITIAL_SEGMENTS * segment),
            send_buffer_max: send_buffer.clamp(SEND_BUFFER_MIN, SEND_BUFFER_MAX),
            recv_buffer: window,
            recv_buffer_max: window,
            delayed_ack: (self.frame_time() / 4).clamp(DELAYED_ACK_MIN, DELAYED_ACK_MAX),
            keepalive: Some(Keepalive { idle: KEEPALIVE_IDLE, interval: KEEPALIVE_INTERVAL, probes: 60 }),
            user_timeout: Some(USER_TIMEOUT),
            mtu_probing: false,
            ..TcpOptions::default()
        }
    }
}

/// The latency timer of usual adapters, and a little.
const DELAY: Duration = Duration::from_millis(20);
const WINDOW_SEGMENTS: u32 = 8;
const INITIAL_SEGMENTS: u32 = 4;
const SEND_BUFFER_MIN: u32 = 16 << 10;
const SEND_BUFFER_MAX: u32 = 256 << 10;
/// What other stacks delay an ACK.
const PEER_DELAYED_ACK: Duration = Duration::from_millis(200);
const DELAYED_ACK_MIN: Duration = Duration::from_millis(5);
const DELAYED_ACK_MAX: Duration = Duration::from_millis(40);
const RTO_MAX_MIN: Duration = Duration::from_secs(4);
const RTO_MAX_MAX: Duration = Duration::from_secs(16);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const USER_TIMEOUT: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_is_that_of_the_line() {
        // Baud / 10, MTU; milliseconds of a frame, bytes of the window, and milliseconds of the RTO: initial, least, most.
        let cases = [
            (Some(11_520), 1_006, 88, 7_728, [888, 595, 7_107]),
            (Some(11_520), 296, 26, 2_048, [344, 344, 4_000]),
            (Some(960), 296, 314, 2_048, [2_802, 1_498, 16_000]),
            (Some(300_000), 1_500, 5, 27_050, [260, 260, 4_000]),
            (None, 1_500, 0, 65_535, [1_000, 240, 8_000]),
        ];
        for (rate, mtu, frame, window, rto) in cases {
            let line = LineProfile::new(rate, mtu);
            let options = line.options();
            assert_eq!((line.frame_time().total_millis(), line.window()), (frame, window), "{rate:?} {mtu}");
            let bounds = [options.rto.initial, options.rto.min, options.rto.max];
            assert_eq!(bounds.map(|time| time.total_millis()), rto, "{rate:?} {mtu}");
            assert_eq!(options, options.within_bounds(), "{rate:?} {mtu}");
        }
    }

    #[test]
    fn lines_that_nobody_has_are_no_overflow() {
        for rate in [Some(0), Some(1), Some(u32::MAX), None] {
            for mtu in [0, 68, u16::MAX] {
                let options = LineProfile::new(rate, mtu).options();
                assert!(options.rto.min <= options.rto.initial && options.rto.initial <= options.rto.max);
                assert!(options.recv_buffer > 0 && options.recv_buffer <= u16::MAX.into());
            }
        }
    }
}
