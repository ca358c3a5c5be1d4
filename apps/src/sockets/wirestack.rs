//! The stack's own sockets, in tasks on the thread of the one shard.

use std::io;
use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};
use wirestack::api::{Access, ListenOptions};
use wirestack::local::{Spawner, Stack, TcpListener, TcpStream, UdpSocket};
use wirestack::nic::Nic;
use wirestack::tcp::{Nagle, TcpOptions};

use super::{Options, Program, Sockets, StreamInfo};
use crate::cli::{HostArgs, TcpArgs, parse_congestion};
use crate::error::AppError;
use crate::host::RunArgs;
use crate::local::LocalHost;
use crate::serve::Stop;
use crate::setup::{self, NicProgram, Ports, Prepared};

/// Runs a program on a device, on this thread.
///
/// # Errors
/// What is wrong with the flags or the device; the interface has gone. One line.
pub fn run<P: Program>(
    host: &HostArgs,
    busy_poll: bool,
    ports: Ports,
    program: P,
) -> Result<P::Output, AppError> {
    let mut output = None;
    setup::start(host, ports, OnNic { program, busy_poll, output: &mut output })?;
    output.ok_or_else(|| AppError::running("it was ended before its addresses could be used"))
}

struct OnNic<'a, P: Program> {
    program: P,
    busy_poll: bool,
    output: &'a mut Option<P::Output>,
}

impl<P: Program> NicProgram for OnNic<'_, P> {
    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let tcp = TcpArgs { connections_max: Some(CONNECTIONS_MAX), ..TcpArgs::default() };
        let run = RunArgs { busy_poll: self.busy_poll, ..RunArgs::default() };
        let mut host = LocalHost::open(nics, prepared, "perf", &tcp, &run)?;
        let own =
            Own { stack: host.stack().clone(), spawner: host.spawner().clone(), stop: host.stop().clone() };
        if host.wait_for_addresses()?.is_some() {
            // It looks itself whether it is to end: there are results to be told.
            *self.output = Some(host.run_to_end(self.program.run(own))?);
        }
        host.shutdown();
        Ok(())
    }
}

/// Sockets of the shard of this thread.
#[derive(Debug, Clone)]
pub struct Own {
    stack: Stack,
    spawner: Spawner,
    stop: Stop,
}

impl Own {
    fn default_options(&self) -> TcpOptions {
        self.stack.shards()[0].with(|hub| hub.shard_ref().tcp_default_options())
    }
}

impl Sockets for Own {
    type Stream = TcpStream;
    type Listener = TcpListener;
    type Udp = UdpSocket;

    fn name(&self) -> &'static str {
        "wirestack"
    }

    fn now(&self) -> Instant {
        self.stack.shards()[0].with(|hub| hub.shard_ref().now())
    }

    async fn sleep_until(&self, deadline: Instant) {
        self.stack.sleep_until(deadline).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawner.spawn(task);
    }

    async fn stopped(&self) -> io::Result<()> {
        while !self.stop.is_set() {
            self.stack.sleep(STOP_LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.stack.resolve((host, port)).await
    }

    async fn connect(&self, remote: SocketAddr, options: &Options) -> io::Result<TcpStream> {
        let options = changed(self.default_options(), options)?;
        self.stack.connect_with(remote, None, Some(options)).await
    }

    async fn listen(&self, local: SocketAddr, options: &Options) -> io::Result<TcpListener> {
        let tcp = Some(changed(self.default_options(), options)?);
        self.stack
            .listen_with(local, ListenOptions { tcp, backlog: Some(BACKLOG), ..ListenOptions::default() })
    }

    fn listening(&self, listener: &TcpListener) -> io::Result<Vec<SocketAddr>> {
        let local = listener.local_addr()?;
        if !local.ip().is_unspecified() {
            return Ok(vec![local]);
        }
        let all = self.stack.addresses().into_iter().filter(|ip| ip.is_ipv4() || local.is_ipv6());
        Ok(all.map(|ip| SocketAddr::new(ip, local.port())).collect())
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        listener.accept().await
    }

    fn set_options(&self, stream: &TcpStream, options: &Options) -> io::Result<()> {
        let now = changed(stream.options()?, options)?;
        stream.change_options(|options| *options = now)
    }

    fn local_address(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.local_addr()
    }

    fn tcp_info(&self, stream: &TcpStream) -> Option<StreamInfo> {
        let info = stream.info()?;
        Some(StreamInfo {
            retransmits: info.counters.retransmits.into(),
            cwnd_bytes: info.cwnd.into(),
            srtt_us: info.srtt.map_or(0, |srtt| srtt.total_micros()),
            rttvar_us: info.rttvar.total_micros(),
            pmtu_bytes: info.path_mtu.into(),
            mss_bytes: info.mss,
        })
    }

    fn abort(&self, stream: TcpStream) {
        stream.abort();
    }

    async fn udp_bind(&self, local: SocketAddr, options: &Options) -> io::Result<UdpSocket> {
        let socket = self.stack.udp_bind(local)?;
        if let Some(bytes) = options.recv_buffer_bytes {
            socket.change_options(|options| options.recv_buffer_bytes = bytes as usize)?;
        }
        Ok(socket)
    }

    async fn udp_connect(&self, socket: &UdpSocket, remote: SocketAddr) -> io::Result<()> {
        socket.connect_now(remote)
    }

    fn udp_local_address(&self, socket: &UdpSocket) -> io::Result<SocketAddr> {
        socket.local_addr()
    }

    async fn udp_send(&self, socket: &UdpSocket, payload: &[u8]) -> io::Result<usize> {
        socket.send(payload).await
    }

    async fn udp_recv(&self, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
        socket.recv(buffer).await
    }

    async fn udp_send_to(&self, socket: &UdpSocket, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        socket.send_to(payload, remote).await
    }

    async fn udp_recv_from(&self, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        socket.recv_from(buffer).await
    }
}

/// The manners of a connection with what a program asks for.
fn changed(mut tcp: TcpOptions, options: &Options) -> io::Result<TcpOptions> {
    let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    if options.nodelay {
        tcp.nagle = Nagle::Off;
    }
    if let Some(name) = &options.congestion {
        tcp.congestion = parse_congestion(name)
            .map_err(|accepted| wrong(format!("congestion control {name}: {accepted}")))?;
    }
    if let Some(mss) = options.mss {
        let mss_max = u16::try_from(mss).ok().filter(|mss| *mss > 0);
        tcp.mss_max = Some(mss_max.ok_or_else(|| wrong(format!("MSS {mss}: 1 to 65535 is accepted")))?);
    }
    if let Some(bytes) = options.send_buffer_bytes {
        tcp.send_buffer_max = bytes;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        tcp.recv_buffer_max = bytes;
        tcp.recv_buffer = tcp.recv_buffer.min(bytes);
    }
    Ok(tcp)
}

/// Connections that a program may have, at least.
const CONNECTIONS_MAX: usize = 100_000;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 4_096;
/// How often it is looked whether the program is to end.
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs a test on a device. A wire that goes away ends it.
#[cfg(test)]
pub(super) fn on<N: Nic>(nic: N, config: &wirestack::config::HostConfig<'_>, test: impl AsyncFnOnce(Own)) {
    let mut shard = wirestack::shard::ShardConfig::new(config.mac);
    shard.addresses.clone_from(&config.addresses);
    shard.neighbor.probes = wirestack::neighbor::AddressProbes::None;
    shard.seed = config.seed;
    let stop = Stop::new(nic.waker());
    let mut runtime = wirestack::local::Runtime::new(nic, shard).expect("a configuration");
    let own = Own { stack: runtime.stack().clone(), spawner: runtime.spawner().clone(), stop };
    let _ = runtime.block_on(test(own));
}
