//! A shard as the subject: in virtual time, on a wire in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;

use smoltcp::phy::{Device as _, TxToken as _};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpCidr;
use wirestack::icmp::{ErrorKind, LimiterConfig};
use wirestack::raw::Version;
use wirestack::shard::{PingBind, PingOptions, RawBind, Shard, ShardConfig, SocketId, UdpBind};
use wirestack::tcp::{Algorithm, TcpOptions};
use wirestack::udp::{Fragmenting, SendError, SocketOptions};
use wirestack_nic::loopback::{Loopback, LoopbackConfig};
use wirestack_nic::offload::Segments;
use wirestack_nic::{FrameMeta, Nic as _, OffloadCapabilities};

use super::call::{Call, CallResult, IpVersion, SocketKind, SocketOption};
use super::parse::Setup;
use super::shard_tcp::{self, ShardStreams};
use super::subject::{Subject, SubjectKind};

/// How long a shard is left alone before a script begins, so that it has announced its addresses and
/// joined its groups.
const SETTLE_TIME: Duration = Duration::from_secs(60);

/// Turns at one time, after which a shard is taken to be turning in circles.
const TURNS_MAX: usize = 10_000;

/// Bytes of the longest frame that a device with offloads splits: a packet of 64 KB.
const OFFLOADED_LEN_MAX: usize = 65_535 + ETHERNET_HEADER_LEN;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER_LEN: usize = 14;

/// A shard that is made for one script.
#[derive(Debug)]
pub struct ShardSubject {
    shard: Shard,
    nic: Loopback<'static>,
    wire: Loopback<'static>,
    sockets: BTreeMap<String, ShardSocket>,
    streams: ShardStreams,
    /// What connections begin with.
    tcp_options: TcpOptions,
    now: Instant,
    begin: Instant,
    /// When the last turn wanted to come again.
    next: Option<Instant>,
    /// Frames as a wire carries them: pieces of what the shard has left to the device.
    pieces: VecDeque<Vec<u8>>,
}

/// A socket, which exists in the shard as soon as it has an address.
#[derive(Debug, Clone, Copy)]
enum ShardSocket {
    Unbound(SocketKind, IpVersion, SocketOptions),
    Udp(SocketId),
    /// With the number of the next request.
    Icmp(SocketId, u16),
    Raw(SocketId),
}

impl ShardSubject {
    /// A shard that is as a script wants it, with this seed.
    ///
    /// # Errors
    /// What a shard does not accept.
    pub fn new(setup: &Setup, seed: u64) -> Result<Self, String> {
        Self::on_device(setup, seed, OffloadCapabilities::default())
    }

    /// The same, on a device that makes checksums and splits long frames.
    ///
    /// # Errors
    /// What a shard does not accept.
    pub fn with_offloads(setup: &Setup, seed: u64) -> Result<Self, String> {
        let gso = NonZeroUsize::new(OFFLOADED_LEN_MAX);
        let offloads = OffloadCapabilities {
            checksum_tx: true,
            checksum_rx: false,
            gso_tcpv4: gso,
            gso_tcpv6: gso,
            gso_udp: gso,
        };
        Self::on_device(setup, seed, offloads)
    }

    fn on_device(setup: &Setup, seed: u64, offloads: OffloadCapabilities) -> Result<Self, String> {
        let config = Self::configuration(setup, seed);
        let resets_on_overflow = setup
            .sysctls
            .iter()
            .any(|(name, value)| name == "net.ipv4.tcp_abort_on_overflow" && value != "0");
        let mut streams = ShardStreams::default();
        streams.resets_on_overflow = resets_on_overflow;
        let mtu = usize::from(setup.mtu) + ETHERNET_HEADER_LEN;
        let frame_len_max = if offloads.checksum_tx { OFFLOADED_LEN_MAX } else { mtu.max(1514) };
        let wire_config = LoopbackConfig { mtu, frame_len_max, offloads, ..LoopbackConfig::default() };
        let (nic, wire) = Loopback::pair(&wire_config).map_err(|error| error.to_string())?;
        let now = Instant::ZERO;
        let tcp_options = config.tcp.options;
        let shard = Shard::new(config, now).map_err(|error| error.to_string())?;
        let mut subject = Self {
            shard,
            nic,
            wire,
            sockets: BTreeMap::new(),
            streams,
            tcp_options,
            now,
            begin: Instant::ZERO,
            next: Some(now),
            pieces: VecDeque::new(),
        };
        while subject.poll_frame(Instant::ZERO + SETTLE_TIME)?.is_some() {}
        subject.begin = subject.now;
        Ok(subject)
    }

    fn configuration(setup: &Setup, seed: u64) -> ShardConfig {
        let mut config = ShardConfig::new(setup.host.mac);
        config.seed = seed;
        config.gateways = setup.gateways.clone();
        let v4 = setup.host.ipv4.map(|(address, len)| IpCidr::new(address.into(), len));
        let v6 = setup.host.ipv6.map(|(address, len)| IpCidr::new(address.into(), len));
        config.addresses = v4.into_iter().chain(v6).collect();
        if v6.is_none() {
            config.link_local = None;
        }
        // As for the kernel: no script waits for duplicate addresses, or meets a limit that it is not about.
        config.neighbor.dup_addr_detect_transmits = 0;
        config.icmp =
            LimiterConfig { errors_per_second: None, destination_interval: Duration::ZERO, ..config.icmp };
        // The plainest one, which a kernel lets everybody use.
        config.tcp.options.congestion = Algorithm::Reno;
        // As of that controller in a kernel.
        config.tcp.options.pacing = false;
        for (name, value) in &setup.sysctls {
            shard_tcp::configure(&mut config, name, value);
            let seconds = value.parse().map(Duration::from_secs);
            match (name.as_str(), seconds) {
                ("net.ipv4.ipfrag_time", Ok(time)) => config.reassembly.ipv4_timeout = time,
                ("net.ipv6.ip6frag_time", Ok(time)) => config.reassembly.ipv6_timeout = time,
                // Of the kernel's own.
                _ => {}
            }
        }
        config
    }

    fn turn(&mut self) {
        self.next = self.shard.turn(self.now, &mut self.nic, |_| {});
    }

    fn socket(&self, name: &str) -> Result<ShardSocket, String> {
        self.sockets.get(name).copied().ok_or_else(|| format!("there is no socket `{name}`"))
    }

    /// The socket, made at any address if it has none.
    fn bound(&mut self, name: &str) -> Result<ShardSocket, String> {
        let socket = self.socket(name)?;
        let ShardSocket::Unbound(_, version, _) = socket else {
            return Ok(socket);
        };
        let any = match version {
            IpVersion::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpVersion::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        self.bind(name, SocketAddr::new(any, 0))?
            .map_err(|error| format!("`{name}` cannot be bound: {error}"))?;
        self.socket(name)
    }

    fn bind(&mut self, name: &str, local: SocketAddr) -> Result<io::Result<()>, String> {
        let ShardSocket::Unbound(kind, version, options) = self.socket(name)? else {
            return Ok(Err(io::ErrorKind::InvalidInput.into()));
        };
        let made = match kind {
            SocketKind::Udp => {
                let bind = UdpBind { options, ..UdpBind::new(local) };
                self.shard.udp_bind(bind).map(ShardSocket::Udp)
            }
            SocketKind::Icmp => {
                let bind = PingBind { identifier: local.port(), ..PingBind::new(local.ip()) };
                self.shard.ping_bind(bind).map(|id| ShardSocket::Icmp(id, 1))
            }
            SocketKind::Raw(protocol) => {
                let version = if version == IpVersion::V4 { Version::V4 } else { Version::V6 };
                self.shard.raw_open(RawBind::new(version, protocol)).map(ShardSocket::Raw)
            }
            SocketKind::Tcp => return Err(format!("`{name}` is a connection")),
        };
        Ok(made.map_err(io::Error::from).map(|socket| {
            self.sockets.insert(name.to_owned(), socket);
        }))
    }

    fn send(&mut self, name: &str, data: &[u8], to: Option<SocketAddr>) -> Result<CallResult, String> {
        let result = match (self.bound(name)?, to) {
            (ShardSocket::Udp(id), Some(to)) => self.shard.udp_send_to(id, data, to),
            (ShardSocket::Udp(id), None) => self.shard.udp_send(id, data),
            (ShardSocket::Icmp(id, sequence), Some(to)) => {
                self.sockets.insert(name.to_owned(), ShardSocket::Icmp(id, sequence.wrapping_add(1)));
                self.shard.ping_send(id, &PingOptions::new(to.ip(), sequence), data)
            }
            (ShardSocket::Raw(id), Some(to)) => self.shard.raw_send(id, to.ip(), data),
            _ => return Err(format!("`{name}` cannot be connected: it needs sendto")),
        };
        Ok(match result {
            Ok(()) => CallResult::Number(data.len() as u64),
            Err(SendError::TooLong { .. }) => CallResult::Error("MessageTooLong".to_owned()),
            Err(SendError::Socket(error)) => error_result(error.kind),
            Err(error) => io_result(&error.into()),
        })
    }

    /// Errors come before datagrams, as from a socket of the kernel.
    fn receive(&mut self, name: &str) -> Result<CallResult, String> {
        let received = match self.bound(name)? {
            ShardSocket::Udp(id) => match self.shard.udp_take_error(id) {
                Some(error) => return Ok(error_result(error.kind)),
                None => self.shard.udp_recv_with(id, |meta, data| (data.to_vec(), Some(meta.src))),
            },
            ShardSocket::Icmp(id, _) => match self.shard.ping_take_error(id) {
                Some(error) => return Ok(error_result(error.error.kind)),
                None => self.shard.ping_recv_with(id, |_, data| (data.to_vec(), None)),
            },
            ShardSocket::Raw(id) => self.shard.raw_recv_with(id, |_, data| (data.to_vec(), None)),
            ShardSocket::Unbound(..) => None,
        };
        let nothing = || CallResult::Error("WouldBlock".to_owned());
        Ok(received.map_or_else(nothing, |(data, from)| CallResult::Received(data, from)))
    }

    fn set(&mut self, name: &str, option: SocketOption, value: u32) -> Result<io::Result<()>, String> {
        let fragmenting = match value {
            0 => Fragmenting::Allow,
            1 => Fragmenting::Discover,
            2 => Fragmenting::Forbid,
            3 => Fragmenting::Probe,
            _ if option == SocketOption::PathMtu => {
                return Err("path-mtu is 0, 1, 2 or 3".to_owned());
            }
            _ => Fragmenting::default(),
        };
        let change = |options: &mut SocketOptions| match option {
            SocketOption::Ttl => options.hop_limit = Some(value as u8),
            SocketOption::Broadcast => options.broadcast = value != 0,
            SocketOption::MulticastTtl => options.multicast_hop_limit = value as u8,
            SocketOption::MulticastLoop => options.multicast_loop = value != 0,
            SocketOption::Errors => options.recv_errors = value != 0,
            SocketOption::PathMtu => options.dont_fragment = fragmenting,
            // Of TCP.
            _ => {}
        };
        match self.socket(name)? {
            ShardSocket::Unbound(kind, version, mut options) => {
                change(&mut options);
                self.sockets.insert(name.to_owned(), ShardSocket::Unbound(kind, version, options));
            }
            ShardSocket::Udp(id) => {
                let mut options =
                    self.shard.udp_socket(id).map(|socket| *socket.options()).unwrap_or_default();
                change(&mut options);
                if !self.shard.udp_set_options(id, options) {
                    return Ok(Err(io::ErrorKind::InvalidInput.into()));
                }
            }
            _ => return Err(format!("`{name}` has no such option here")),
        }
        Ok(Ok(()))
    }

    fn group(&mut self, name: &str, group: IpAddr, joins: bool) -> Result<io::Result<()>, String> {
        let ShardSocket::Udp(id) = self.bound(name)? else {
            return Err(format!("`{name}` is no UDP socket"));
        };
        let result = if joins { self.shard.udp_join(id, group) } else { self.shard.udp_leave(id, group) };
        Ok(result.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error)))
    }

    fn try_call(&mut self, call: &Call, wanted: &CallResult) -> Result<CallResult, String> {
        let done = |result: io::Result<()>| match result {
            Ok(()) => CallResult::Ok,
            Err(error) => io_result(&error),
        };
        Ok(match call {
            Call::Socket(name, SocketKind::Tcp, version) => {
                self.streams.open(name, *version, self.tcp_options);
                CallResult::Ok
            }
            Call::Bind(name, address) if self.streams.has(name) => done(self.streams.bind(name, *address)?),
            Call::Connect(name, address) if self.streams.has(name) => {
                self.streams.connect(&mut self.shard, name, *address)?
            }
            Call::Set(name, option, value) if self.streams.has(name) => {
                done(self.streams.set(&mut self.shard, name, *option, *value)?)
            }
            Call::Close(name) if self.streams.has(name) => {
                self.streams.close(&mut self.shard, name);
                CallResult::Ok
            }
            Call::Tcp(call) => self.streams.call(&mut self.shard, call, wanted)?,
            Call::Socket(name, kind, version) => {
                let options =
                    SocketOptions { v6_only: *version == IpVersion::V6, ..SocketOptions::default() };
                self.sockets.insert(name.clone(), ShardSocket::Unbound(*kind, *version, options));
                // A raw socket has no address to wait for.
                if let SocketKind::Raw(_) = kind {
                    self.bound(name)?;
                }
                CallResult::Ok
            }
            Call::Bind(name, address) => done(self.bind(name, *address)?),
            Call::Connect(name, address) => match self.bound(name)? {
                ShardSocket::Udp(id) => {
                    done(self.shard.udp_connect(id, Some(*address)).map_err(io::Error::from))
                }
                _ => return Err(format!("`{name}` cannot be connected")),
            },
            Call::SendTo(name, data, address) => self.send(name, data, Some(*address))?,
            Call::Send(name, data) => self.send(name, data, None)?,
            Call::Recv(name) => self.receive(name)?,
            Call::Close(name) => {
                match self.socket(name)? {
                    ShardSocket::Udp(id) | ShardSocket::Icmp(id, _) | ShardSocket::Raw(id) => {
                        self.shard.close(id);
                    }
                    ShardSocket::Unbound(..) => {}
                }
                self.sockets.remove(name);
                CallResult::Ok
            }
            Call::Set(name, option, value) => done(self.set(name, *option, *value)?),
            Call::Join(name, group) => done(self.group(name, *group, true)?),
            Call::Leave(name, group) => done(self.group(name, *group, false)?),
        })
    }
}

impl Subject for ShardSubject {
    fn kind(&self) -> SubjectKind {
        SubjectKind::Shard
    }

    fn now(&self) -> Instant {
        Instant::ZERO + (self.now - self.begin)
    }

    fn inject(&mut self, frame: &[u8]) -> Result<(), String> {
        let token = self.wire.transmit(self.now).ok_or("the wire takes no frame")?;
        token.consume(frame.len(), |room| room.copy_from_slice(frame));
        self.turn();
        Ok(())
    }

    fn poll_frame(&mut self, deadline: Instant) -> Result<Option<(Instant, Vec<u8>)>, String> {
        let until = self.begin + (deadline - Instant::ZERO);
        for _ in 0..TURNS_MAX {
            let pieces = &mut self.pieces;
            if pieces.is_empty() {
                self.wire.receive_with(self.now, |frame, meta| split(frame, meta, pieces));
            }
            if let Some(frame) = self.pieces.pop_front() {
                return Ok(Some((self.now(), frame)));
            }
            match self.next.filter(|next| *next <= until) {
                Some(next) => self.now = self.now.max(next),
                None => {
                    self.now = self.now.max(until);
                    return Ok(None);
                }
            }
            self.turn();
        }
        Err(format!("{TURNS_MAX} turns without a frame"))
    }

    fn call(&mut self, call: &Call, wanted: &CallResult) -> Result<CallResult, String> {
        let result = self.try_call(call, wanted);
        self.turn();
        result
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn tolerance(&self) -> Duration {
        Duration::ZERO
    }

    fn quiet(&self) -> Duration {
        Duration::ZERO
    }
}

/// The frames that a wire carries for one that was handed to a device.
fn split(frame: &[u8], meta: &FrameMeta, pieces: &mut VecDeque<Vec<u8>>) {
    let segments = Segments::new(frame, meta);
    for index in 0..segments.count() {
        let mut piece = vec![0; segments.frame_len(index)];
        segments.write(index, &mut piece);
        pieces.push_back(piece);
    }
}

fn io_result(error: &io::Error) -> CallResult {
    CallResult::Error(format!("{:?}", error.kind()))
}

fn error_result(kind: ErrorKind) -> CallResult {
    match kind {
        ErrorKind::TooBig { .. } => CallResult::Error("MessageTooLong".to_owned()),
        kind => io_result(&kind.io_kind().into()),
    }
}
