//! Connections of a shard.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack::shard::{Shard, ShardConfig, SocketId, TcpConnect, TcpListen};
use wirestack::tcp::{
    Algorithm, ConnectError, Cookies, Failure, Keepalive, Linger, ListenError, Nagle, RecvError, SendError,
    TcpConfig, TcpInfo, TcpOptions,
};

use super::call::{CallResult, IpVersion, SocketOption};
use super::call_tcp::{InfoField, TcpCall};
use super::kernel_tcp::check_stream;
use super::packet::stream;

/// Connections and listeners by their names.
#[derive(Debug, Default)]
pub(super) struct ShardStreams {
    streams: BTreeMap<String, Stream>,
    /// Whether listeners reset what finds no room (`tcp_abort_on_overflow` of Linux).
    pub(super) resets_on_overflow: bool,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// `None`: it neither listens nor connects yet.
    id: Option<SocketId>,
    version: IpVersion,
    options: TcpOptions,
    local: Option<SocketAddr>,
    /// Bytes of the stream that were read and written.
    read: u32,
    written: u32,
}

impl ShardStreams {
    pub(super) fn has(&self, name: &str) -> bool {
        self.streams.contains_key(name)
    }

    pub(super) fn open(&mut self, name: &str, version: IpVersion, options: TcpOptions) {
        let stream = Stream { id: None, version, options, local: None, read: 0, written: 0 };
        self.streams.insert(name.to_owned(), stream);
    }

    fn get(&mut self, name: &str) -> Result<&mut Stream, String> {
        self.streams.get_mut(name).ok_or_else(|| format!("there is no connection `{name}`"))
    }

    fn id(&mut self, name: &str) -> Result<SocketId, String> {
        self.get(name)?.id.ok_or_else(|| format!("`{name}` neither listens nor connects"))
    }

    pub(super) fn bind(&mut self, name: &str, local: SocketAddr) -> Result<io::Result<()>, String> {
        self.get(name)?.local = Some(local);
        Ok(Ok(()))
    }

    pub(super) fn connect(
        &mut self,
        shard: &mut Shard,
        name: &str,
        remote: SocketAddr,
    ) -> Result<CallResult, String> {
        let stream = self.get(name)?;
        if stream.id.is_some() {
            return Ok(error("AlreadyConnected"));
        }
        let connect = TcpConnect { remote, local: stream.local, options: stream.options };
        Ok(match shard.tcp_connect(connect) {
            Ok(id) => {
                stream.id = Some(id);
                CallResult::Ok
            }
            Err(ConnectError::NoRoute { .. }) => error("NetworkUnreachable"),
            Err(ConnectError::AddressNotOurs { .. } | ConnectError::NoPort | ConnectError::InUse { .. }) => {
                error("AddrNotAvailable")
            }
            Err(_) => error("InvalidInput"),
        })
    }

    /// The connection lives on without a handle, if it has something left to do.
    pub(super) fn close(&mut self, shard: &mut Shard, name: &str) {
        if let Some(id) = self.streams.remove(name).and_then(|stream| stream.id) {
            shard.close(id);
        }
    }

    pub(super) fn call(
        &mut self,
        shard: &mut Shard,
        call: &TcpCall,
        wanted: &CallResult,
    ) -> Result<CallResult, String> {
        match call {
            TcpCall::Listen(name, backlog) => self.listen(shard, name, *backlog as usize),
            TcpCall::Accept(name, connection) => {
                let listener = *self.get(name)?;
                let Some(id) = shard.tcp_accept(self.id(name)?) else {
                    return Ok(error("WouldBlock"));
                };
                let name = connection.clone().unwrap_or_default();
                self.streams.insert(name, Stream { id: Some(id), ..listener });
                Ok(CallResult::Ok)
            }
            TcpCall::Write(name, len) => {
                let id = self.id(name)?;
                let written = self.get(name)?.written;
                let taken = match shard.tcp_send(id, &stream(written, *len)) {
                    Ok(0) => return Ok(error("WouldBlock")),
                    Ok(taken) => taken,
                    Err(SendError::ShutDown | SendError::Closed) => return Ok(error("BrokenPipe")),
                    Err(SendError::Failed(failure)) => return Ok(failed(failure)),
                    Err(_) => return Ok(error("InvalidInput")),
                };
                self.get(name)?.written = written.wrapping_add(taken as u32);
                Ok(CallResult::Number(taken as u64))
            }
            TcpCall::Read(name) => self.read(shard, name, wanted),
            TcpCall::Shutdown(name) => {
                shard.tcp_finish(self.id(name)?);
                Ok(CallResult::Ok)
            }
            TcpCall::Abort(name) => {
                let id = self.id(name)?;
                shard.tcp_abort(id);
                self.close(shard, name);
                Ok(CallResult::Ok)
            }
            TcpCall::Error(name) => Ok(shard.tcp_failure(self.id(name)?).map_or(CallResult::Ok, failed)),
            TcpCall::Info(name, field) => {
                let info = shard.tcp_info(self.id(name)?);
                info.map(|info| told(&info, *field)).ok_or_else(|| format!("`{name}` is no connection"))
            }
        }
    }

    fn listen(&mut self, shard: &mut Shard, name: &str, backlog: usize) -> Result<CallResult, String> {
        let resets_on_overflow = self.resets_on_overflow;
        let stream = self.get(name)?;
        let listen = TcpListen {
            local: stream.local.ok_or_else(|| format!("`{name}` has no address"))?,
            v6_only: stream.version == IpVersion::V6,
            backlog,
            resets_on_overflow,
            options: stream.options,
        };
        Ok(match shard.tcp_listen(listen) {
            Ok(id) => {
                stream.id = Some(id);
                CallResult::Ok
            }
            Err(ListenError::InUse { .. }) => error("AddrInUse"),
            Err(ListenError::AddressNotOurs { .. }) => error("AddrNotAvailable"),
            Err(_) => error("InvalidInput"),
        })
    }

    fn read(&mut self, shard: &mut Shard, name: &str, wanted: &CallResult) -> Result<CallResult, String> {
        let id = self.id(name)?;
        let want = match wanted {
            CallResult::Number(len) | CallResult::Range(_, len) => (*len as usize).max(1),
            _ => 1,
        };
        let mut bytes = vec![0; want];
        let mut len = 0;
        while len < want {
            match shard.tcp_recv(id, &mut bytes[len..]) {
                Ok(Some(0)) => break,
                Ok(Some(more)) => len += more,
                Ok(None) if len == 0 => return Ok(error("WouldBlock")),
                Err(RecvError::Failed(failure)) if len == 0 => return Ok(failed(failure)),
                Err(_) if len == 0 => return Ok(error("NotConnected")),
                Ok(None) | Err(_) => break,
            }
        }
        let start = self.get(name)?.read;
        check_stream(start, &bytes[..len])?;
        self.get(name)?.read = start.wrapping_add(len as u32);
        Ok(CallResult::Number(len as u64))
    }

    pub(super) fn set(
        &mut self,
        shard: &mut Shard,
        name: &str,
        option: SocketOption,
        value: u32,
    ) -> Result<io::Result<()>, String> {
        let stream = self.get(name)?;
        change(&mut stream.options, option, value)?;
        if let Some(id) = stream.id {
            shard.tcp_set_options(id, stream.options);
        }
        Ok(Ok(()))
    }
}

fn change(options: &mut TcpOptions, option: SocketOption, value: u32) -> Result<(), String> {
    let seconds = Duration::from_secs(value.into());
    match option {
        SocketOption::NoDelay => options.nagle = if value == 0 { Nagle::Minshall } else { Nagle::Off },
        SocketOption::Keepalive if value == 0 => options.keepalive = None,
        SocketOption::Keepalive => options.keepalive = Some(options.keepalive.unwrap_or_default()),
        SocketOption::KeepaliveIdle => keepalive(options).idle = seconds,
        SocketOption::KeepaliveInterval => keepalive(options).interval = seconds,
        SocketOption::KeepaliveProbes => keepalive(options).probes = value,
        SocketOption::UserTimeout => {
            options.user_timeout = (value > 0).then(|| Duration::from_millis(value.into()));
        }
        SocketOption::Linger => options.linger = Linger::For(seconds),
        SocketOption::QuickAck => {
            options.delayed_ack = if value == 0 { TcpOptions::default().delayed_ack } else { Duration::ZERO };
        }
        SocketOption::Congestion => {
            options.congestion = match value {
                0 => Algorithm::Reno,
                1 => Algorithm::Cubic,
                _ => Algorithm::Bbr,
            };
        }
        SocketOption::Pacing => options.pacing = value != 0,
        SocketOption::RecvBuffer => {
            options.recv_buffer = value;
            options.recv_buffer_max = value;
        }
        SocketOption::SendBuffer => options.send_buffer_max = value,
        SocketOption::Mss => options.mss_max = u16::try_from(value).ok(),
        SocketOption::Ttl => options.hop_limit = u8::try_from(value).ok(),
        _ => return Err(format!("{option} is no option of TCP here")),
    }
    Ok(())
}

/// Of Linux, times can be set while there are no questions: only where the script switches them on as well are there.
fn keepalive(options: &mut TcpOptions) -> &mut Keepalive {
    options.keepalive.get_or_insert_default()
}

/// Settings of Linux that a shard has too. What it does not have is the kernel's own.
pub(super) fn configure(config: &mut ShardConfig, name: &str, value: &str) {
    let Some(name) = name.strip_prefix("net.ipv4.tcp_") else {
        return;
    };
    let tcp: &mut TcpConfig = &mut config.tcp;
    let Some(number) = value.parse::<u32>().ok() else {
        if name == "congestion_control" {
            tcp.options.congestion = match value {
                "reno" => Algorithm::Reno,
                "bbr" => Algorithm::Bbr,
                _ => Algorithm::Cubic,
            };
        }
        return;
    };
    let is_on = number != 0;
    match name {
        "sack" => tcp.options.sack = is_on,
        "timestamps" => tcp.options.timestamps = is_on,
        "window_scaling" => tcp.options.window_scaling = is_on,
        "ecn" => tcp.options.ecn = number == 1,
        "syn_retries" => tcp.syn_retries = number,
        "synack_retries" => tcp.syn_ack_retries = number,
        "retries2" => tcp.data_retries = number,
        "fin_timeout" => tcp.fin_wait_2 = Duration::from_secs(number.into()),
        "max_syn_backlog" => tcp.half_open_max = number as usize,
        "max_tw_buckets" => tcp.time_wait_max = number as usize,
        "invalid_ratelimit" => tcp.challenge_interval = Duration::from_millis(number.into()),
        "challenge_ack_limit" => tcp.challenge_acks_per_second = Some(number),
        "mtu_probing" => tcp.options.mtu_probing = is_on,
        "rto_min_us" => tcp.options.rto.min = Duration::from_micros(number.into()),
        "syncookies" => {
            tcp.cookies = match number {
                0 => Cookies::Never,
                1 => Cookies::WhenFull,
                _ => Cookies::Always,
            };
        }
        _ => {}
    }
}

fn told(info: &TcpInfo, field: InfoField) -> CallResult {
    let mss = u64::from(info.mss.max(1));
    let segments = |bytes: u32| CallResult::Number(u64::from(bytes) / mss);
    match field {
        InfoField::State => CallResult::Word(info.state.to_owned()),
        InfoField::CongestionWindow => segments(info.cwnd),
        InfoField::SlowStartThreshold => segments(info.ssthresh.unwrap_or(0)),
        InfoField::Rto => CallResult::Number(info.rto.total_millis()),
        InfoField::RoundTrip => CallResult::Number(info.srtt.map_or(0, |time| time.total_millis())),
        InfoField::Mss => CallResult::Number(mss),
        InfoField::Retransmits => CallResult::Number(info.counters.retransmits.into()),
        InfoField::Backoffs => CallResult::Number(info.backoffs.into()),
    }
}

fn failed(failure: Failure) -> CallResult {
    error(match failure {
        Failure::Refused => "ConnectionRefused",
        Failure::Reset => "ConnectionReset",
        Failure::Aborted => "ConnectionAborted",
        Failure::TimedOut => "TimedOut",
        Failure::NetworkUnreachable => "NetworkUnreachable",
        Failure::ProtocolUnreachable => "ProtocolUnavailable",
        Failure::Prohibited | Failure::HostUnreachable => "HostUnreachable",
        _ => "ConnectionAborted",
    })
}

fn error(name: &str) -> CallResult {
    CallResult::Error(name.to_owned())
}
