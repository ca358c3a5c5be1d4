//! What the first bytes of an input say: of the shards, and of the manners of connections.

use smoltcp::time::Duration;
use smoltcp::wire::IpCidr;
use wirestack::EthernetAddress;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::ShardConfig;
use wirestack::tcp::{Algorithm, Cookies, Keepalive, Linger, Nagle, RtoBounds, TcpOptions};

use super::end::address;

/// The first two bytes, a bit or two for each thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind(pub(super) u8, pub(super) u8);

impl Kind {
    pub(super) fn is_v6(self) -> bool {
        self.0 & 1 != 0
    }

    pub(super) fn splits(self) -> bool {
        self.0 & 2 != 0
    }

    /// The input begins with a connection.
    pub(super) fn begins_connected(self) -> bool {
        self.0 & 4 != 0
    }

    /// Applications read and accept what there is at once.
    pub(super) fn is_eager(self) -> bool {
        self.0 & 8 != 0
    }

    pub(super) fn mtu(self) -> usize {
        let least = if self.is_v6() { 1_280 } else { 576 };
        [1_500, least, 9_000, 65_535][usize::from(self.1 & 3)]
    }

    /// Local ports may be those of connections that were.
    pub(super) fn reuses_ports(self) -> bool {
        self.1 & 0x40 != 0
    }

    pub(super) fn tx_max(self) -> usize {
        if self.1 & 0x80 != 0 { 2 } else { 4_096 }
    }

    pub(super) fn shard(self, end: usize) -> ShardConfig {
        let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, end as u8 + 1]));
        config.addresses =
            vec![IpCidr::new(address(end, self.is_v6()).into(), if self.is_v6() { 64 } else { 24 })];
        config.link_local = None;
        config.neighbor.probes = AddressProbes::None;
        config.seed = u64::from(self.0) << 16 | u64::from(self.1) << 8 | end as u64;
        let tcp = &mut config.tcp;
        tcp.cookies =
            [Cookies::WhenFull, Cookies::Always, Cookies::Never, Cookies::WhenFull][usize::from(self.0 >> 6)];
        if self.0 & 0x10 != 0 {
            tcp.pool_bytes_max = 64 << 10;
        }
        if self.0 & 0x20 != 0 {
            (tcp.half_open_max, tcp.time_wait_max, tcp.connections_max) = (1, 1, 2);
        }
        if self.1 & 4 != 0 {
            (tcp.data_retries, tcp.syn_retries, tcp.syn_ack_retries) = (3, 2, 2);
        }
        if self.1 & 8 != 0 {
            (tcp.time_wait, tcp.fin_wait_2) = (Duration::from_secs(1), Duration::from_millis(10));
        }
        if self.1 & 0x10 != 0 {
            config.budgets.egress_frames = 3;
            config.budgets.ingress_frames = 2;
            config.outbox_frames_max = 4;
        }
        if self.1 & 0x20 != 0 {
            (tcp.resets_per_second, tcp.challenge_acks_per_second) = (None, None);
            tcp.challenge_interval = Duration::from_millis(20);
        }
        config
    }
}

fn of<T: Copy>(choices: [T; 4], byte: u8, shift: u8) -> T {
    choices[usize::from(byte >> shift & 3)]
}

/// Manners; four zeros are those of who says nothing.
pub(super) fn options([first, second, third, fourth]: [u8; 4]) -> TcpOptions {
    let plain = TcpOptions::default();
    let secs = |secs: u64| Duration::from_secs(secs);
    let millis = Duration::from_millis;
    let keepalive = |idle, interval, probes| Some(Keepalive { idle, interval, probes });
    let rto = |initial, min, max| RtoBounds { initial, min, max };
    let recv_buffer = of([65_535, 1, 700, 10_000], second, 4);
    let mut options = TcpOptions {
        nagle: of([Nagle::Minshall, Nagle::Nagle, Nagle::Off, Nagle::Off], first, 0),
        congestion: of([Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr, Algorithm::Cubic], first, 2),
        pacing: first & 0x10 == 0,
        ecn: first & 0x20 != 0,
        sack: first & 0x40 == 0,
        timestamps: first & 0x80 == 0,
        window_scaling: second & 1 == 0,
        mtu_probing: second & 2 == 0,
        send_buffer_max: of([4 << 20, 1, 500, 20_000], second, 2),
        recv_buffer,
        recv_buffer_max: of([6 << 20, recv_buffer, 100_000, 1 << 30], second, 6),
        linger: of(
            [Linger::Background, Linger::For(secs(0)), Linger::For(secs(1)), Linger::For(secs(100))],
            third,
            0,
        ),
        user_timeout: of([None, Some(secs(1)), Some(secs(0)), Some(secs(100))], third, 2),
        keepalive: of(
            [
                None,
                keepalive(secs(1), secs(1), 3),
                keepalive(secs(10), millis(900), 2),
                keepalive(millis(100), secs(1), 5),
            ],
            third,
            4,
        ),
        mss_max: of([None, Some(1), Some(100), Some(9_000)], third, 6),
        delayed_ack: of([plain.delayed_ack, secs(0), millis(499), secs(10)], fourth, 0),
        initial_window: of([None, Some(1), Some(0), Some(1 << 20)], fourth, 2),
        rto: of(
            [
                plain.rto,
                rto(millis(1), millis(1), secs(1)),
                rto(secs(60), secs(10), secs(120)),
                rto(millis(0), millis(0), millis(300)),
            ],
            fourth,
            4,
        ),
        ..plain
    };
    if fourth >> 6 == 3 {
        let ever = Duration::from_micros(u64::MAX);
        options.rto.max = ever;
        options.linger = Linger::For(ever);
        options.keepalive = keepalive(secs(0), ever, u32::MAX);
        options.user_timeout = Some(ever);
        options.delayed_ack = ever;
        (options.send_buffer_max, options.recv_buffer, options.recv_buffer_max) =
            (u32::MAX, u32::MAX, u32::MAX);
        (options.mss_max, options.initial_window) = (Some(0), Some(u32::MAX));
    }
    options
}

/// Times so long that a connection need not end.
pub(super) fn is_endless(bytes: [u8; 4]) -> bool {
    bytes[3] >> 6 == 3
}

/// Windows or segments of so few bytes that much data takes long.
pub(super) fn is_tiny([_, second, third, fourth]: [u8; 4]) -> bool {
    let has_tiny_buffer = [2, 4].iter().any(|shift| matches!(second >> shift & 3, 1 | 2));
    has_tiny_buffer || matches!(third >> 6, 1 | 2) || fourth >> 6 == 3
}
