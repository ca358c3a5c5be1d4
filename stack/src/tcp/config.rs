//! Limits of TCP, and the manners of a connection. Every limit has a name and a unit.

use smoltcp::time::Duration;

use super::congestion::Algorithm;
use super::rtt::RtoBounds;
use crate::error::ConfigError;

/// Limits of all TCP of a shard.
#[derive(Debug, Clone)]
pub struct TcpConfig {
    /// Connections that exist at a time, those that their application has closed and that are not done yet
    /// included.
    pub connections_max: usize,
    /// Listeners.
    pub listeners_max: usize,
    /// Connections that have begun and are not accepted by both ends, of all listeners: beyond that, SYN cookies
    /// (RFC 4987 section 3.6).
    pub half_open_max: usize,
    /// When to answer a SYN with a cookie.
    pub cookies: Cookies,
    /// Records of connections in TIME-WAIT; the oldest one goes if there are more.
    pub time_wait_max: usize,
    /// How long such a record stays: 60 s, as on Linux (RFC 9293 says 4 minutes).
    pub time_wait: Duration,
    /// How long an orphan waits in FIN-WAIT-2: 60 s, as on Linux.
    pub fin_wait_2: Duration,
    /// Bytes of all send and receive buffers.
    pub pool_bytes_max: usize,
    /// Resets for segments that nobody wants, per second; `None`: as many as there are.
    pub resets_per_second: Option<u32>,
    /// Challenge ACKs per second, of all connections together (RFC 5961 section 7).
    pub challenge_acks_per_second: Option<u32>,
    /// At most one challenge ACK, or answer to a segment out of the window, in this time for each connection
    /// (Linux: tcp_invalid_ratelimit).
    pub challenge_interval: Duration,
    /// How often a SYN is sent again. 6: gives up after 127 s.
    pub syn_retries: u32,
    /// How often a SYN-ACK is sent again. 5: gives up after 63 s.
    pub syn_ack_retries: u32,
    /// How often data is sent again before the connection is given up (RFC 9293 section 3.8.3, R2): 15, which takes
    /// about 15 minutes. A user timeout overrides it.
    pub data_retries: u32,
    /// How a connection behaves whose application says nothing else: what
    /// [`Shard::tcp_default_options`](crate::shard::Shard::tcp_default_options) tells.
    pub options: TcpOptions,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            listeners_max: 1_024,
            half_open_max: 4_096,
            cookies: Cookies::WhenFull,
            time_wait_max: 65_536,
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            pool_bytes_max: 256 << 20,
            resets_per_second: Some(1_000),
            challenge_acks_per_second: Some(1_000),
            challenge_interval: Duration::from_millis(500),
            syn_retries: 6,
            syn_ack_retries: 5,
            data_retries: 15,
            options: TcpOptions::default(),
        }
    }
}

impl TcpConfig {
    /// Checks everything that would otherwise be found out later.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let flows =
            self.connections_max.saturating_add(self.half_open_max).saturating_add(self.time_wait_max);
        let millis = |time: Duration| time.total_millis();
        let rto = self.options.rto;
        let checks = [
            (
                "tcp.connections_max",
                self.connections_max as u64,
                flows < FLOWS_MAX,
                "together less than 2^30",
            ),
            (
                "tcp.pool_bytes_max",
                self.pool_bytes_max as u64,
                self.pool_bytes_max >= POOL_MIN,
                "65536 or more",
            ),
            (
                "tcp.options.rto.min",
                millis(rto.min),
                rto.min >= RTO_MIN && rto.min <= rto.max,
                "1 ms to `max`",
            ),
            ("tcp.options.rto.initial", millis(rto.initial), rto.initial >= rto.min, "`min` or more"),
        ];
        match checks.into_iter().find(|(.., is_right, _)| !is_right) {
            Some((field, value, _, accepted)) => Err(ConfigError::Tcp { field, value, accepted }),
            None => Ok(()),
        }
    }
}

/// What a 32-bit value of the table of flows can tell.
const FLOWS_MAX: usize = 1 << 30;
/// Bytes with which a connection gets on.
const POOL_MIN: usize = 64 << 10;
/// Less is the noise of a scheduler.
const RTO_MIN: Duration = Duration::from_millis(1);
/// RFC 9293 section 3.8.6.3, MUST-40.
const DELAYED_ACK_MAX: Duration = Duration::from_millis(500);
/// A day: backed off it is still a time that can be told.
const RTO_MAX: Duration = Duration::from_secs(86_400);
/// A hundred years: a deadline that is later could not be told.
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The largest window that can be told (RFC 7323 section 2.3).
const WINDOW_MAX: u32 = 1 << 30;

/// When a SYN is answered without a record (SYN cookies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cookies {
    /// When there are as many half-open connections as there may be.
    #[default]
    WhenFull,
    /// Every SYN.
    Always,
    /// No SYN: what finds no room is dropped.
    Never,
}

/// Whether small segments wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nagle {
    /// While a small segment is not acknowledged, the next small one waits (Minshall's variant: full segments that
    /// are outstanding do not make it wait).
    #[default]
    Minshall,
    /// While anything is not acknowledged, a small segment waits (RFC 9293 section 3.7.4).
    Nagle,
    /// Nothing waits: TCP_NODELAY.
    Off,
}

/// What closing does with data that is not acknowledged yet (SO_LINGER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Linger {
    /// It is sent, without the application.
    #[default]
    Background,
    /// It is sent, for as long; then the connection is reset. Zero: reset at once.
    For(Duration),
}

/// Asking a silent peer whether it is there (RFC 9293 section 3.8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub probes: u32,
}

impl Default for Keepalive {
    /// As on Linux: after two hours, nine probes, 75 s apart.
    fn default() -> Self {
        Self { idle: Duration::from_secs(7_200), interval: Duration::from_secs(75), probes: 9 }
    }
}

/// How a connection behaves. A listener hands its own on to what it accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TcpOptions {
    /// Small segments.
    pub nagle: Nagle,
    /// Congestion control.
    pub congestion: Algorithm,
    /// Whether what is sent is spread over a round trip, if that takes a millisecond or more. BBR always paces.
    pub pacing: bool,
    /// Whether ECN is asked for and agreed to (RFC 3168).
    pub ecn: bool,
    /// Whether SACK is (RFC 2018).
    pub sack: bool,
    /// Whether timestamps are (RFC 7323).
    pub timestamps: bool,
    /// Whether window scaling is (RFC 7323).
    pub window_scaling: bool,
    /// Bounds of the RTO.
    pub rto: RtoBounds,
    /// Bytes of the initial congestion window. `None`: ten segments (RFC 6928).
    pub initial_window: Option<u32>,
    /// Segments that are bigger than this are not sent and not asked for, in bytes of payload. `None`: as the path.
    pub mss_max: Option<u16>,
    /// Bytes that wait to be sent or acknowledged, at most. It grows to this from 64 KB, with the window.
    pub send_buffer_max: u32,
    /// Bytes of the receive buffer to begin with: the first window.
    pub recv_buffer: u32,
    /// Bytes that it grows to if the application reads and the path is long; `recv_buffer`: it does not grow.
    pub recv_buffer_max: u32,
    /// How long an ACK waits for company, at most (RFC 1122 section 4.2.3.2: less than 0.5 s). Zero: not at all.
    pub delayed_ack: Duration,
    /// Asking a silent peer. `None`: it may be silent for ever.
    pub keepalive: Option<Keepalive>,
    /// How long data may go unacknowledged, or a peer keep its window shut without an answer, before the connection is
    /// given up (RFC 5482). `None`: by the number of repetitions.
    pub user_timeout: Option<Duration>,
    /// Closing.
    pub linger: Linger,
    /// TTL or hop limit. `None`: that of the shard.
    pub hop_limit: Option<u8>,
    /// DSCP, in the upper six bits.
    pub traffic_class: u8,
    /// Whether a path that swallows large segments is searched for (RFC 4821), beside what ICMP tells.
    pub mtu_probing: bool,
}

impl TcpOptions {
    /// The same with what a SYN offers as in `others`.
    pub(crate) fn offering_as(self, others: &Self) -> Self {
        Self {
            ecn: others.ecn,
            sack: others.sack,
            timestamps: others.timestamps,
            window_scaling: others.window_scaling,
            mss_max: others.mss_max,
            recv_buffer: others.recv_buffer,
            recv_buffer_max: others.recv_buffer_max,
            ..self
        }
    }

    /// The same within bounds: what cannot be becomes the nearest that can.
    pub(crate) fn within_bounds(mut self) -> Self {
        self.rto.min = self.rto.min.clamp(RTO_MIN, RTO_MAX);
        self.rto.max = self.rto.max.clamp(self.rto.min, RTO_MAX);
        self.rto.initial = self.rto.initial.max(self.rto.min).min(self.rto.max);
        //= rfc9293#3.8.6.3
        //# the delay MUST be less than 0.5 seconds (MUST-40)
        self.delayed_ack = self.delayed_ack.min(DELAYED_ACK_MAX - RTO_MIN);
        self.recv_buffer = self.recv_buffer.clamp(1, WINDOW_MAX);
        // Windows are told in units that grow with the largest one: a unit has to fit into the first one, or it stays
        // shut.
        let tellable = (u64::from(u16::MAX) << self.recv_buffer.ilog2()).min(WINDOW_MAX.into()) as u32;
        self.recv_buffer_max = self.recv_buffer_max.clamp(self.recv_buffer, tellable.max(self.recv_buffer));
        self.send_buffer_max = self.send_buffer_max.clamp(1, WINDOW_MAX);
        self.hop_limit = self.hop_limit.map(|hops| hops.max(1));
        self.user_timeout = self.user_timeout.map(|timeout| timeout.min(TIME_MAX));
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.idle = keepalive.idle.min(TIME_MAX);
            keepalive.interval = keepalive.interval.clamp(RTO_MIN, TIME_MAX);
        }
        if let Linger::For(time) = &mut self.linger {
            *time = (*time).min(TIME_MAX);
        }
        self
    }
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nagle: Nagle::default(),
            congestion: Algorithm::default(),
            pacing: true,
            ecn: false,
            sack: true,
            timestamps: true,
            window_scaling: true,
            rto: RtoBounds {
                initial: Duration::from_secs(1),
                min: Duration::from_millis(200),
                max: Duration::from_secs(120),
            },
            initial_window: None,
            mss_max: None,
            send_buffer_max: 4 << 20,
            recv_buffer: 65_535,
            recv_buffer_max: 6 << 20,
            delayed_ack: Duration::from_millis(40),
            keepalive: None,
            user_timeout: None,
            linger: Linger::default(),
            hop_limit: None,
            traffic_class: 0,
            mtu_probing: true,
        }
    }
}
