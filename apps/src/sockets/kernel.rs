//! The kernel's sockets, through tokio on one thread.
//!
//! TCP_INFO comes through nix's `sockopt_impl!`, which is how that crate lets others name an option it does not know.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::{getsockopt_impl, libc, sockopt_impl};
use signal_hook::consts::{SIGINT, SIGTERM};
use smoltcp::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixStream};
use tokio::task::LocalSet;
use wirestack::nic::wait;

use super::{Options, Program, Sockets, StreamInfo};

sockopt_impl!(
    /// How a connection does (tcp(7)): the beginning of `struct tcp_info`, which every Linux has, as words.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u32; 26]
);

/// Runs a program on the kernel's sockets, on this thread.
///
/// # Errors
/// The runtime found no descriptors for its own needs.
pub fn run<P: Program>(program: P) -> io::Result<P::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    Ok(LocalSet::new().block_on(&runtime, program.run(Kernel)))
}

/// The kernel's sockets. To be used within [`run`].
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl Sockets for Kernel {
    type Stream = TcpStream;
    type Listener = TcpListener;
    type Udp = UdpSocket;

    fn name(&self) -> &'static str {
        "kernel"
    }

    fn now(&self) -> Instant {
        wait::now()
    }

    async fn sleep_until(&self, deadline: Instant) {
        loop {
            let now = wait::now();
            if now >= deadline {
                return;
            }
            // tokio's timer has a grain of a millisecond, and rounds up.
            tokio::time::sleep((deadline - now).into()).await;
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    async fn stopped(&self) -> io::Result<()> {
        let (mut reader, writer) = UnixStream::pair()?;
        let writer: StdUnixStream = writer.into_std()?;
        signal_hook::low_level::pipe::register(SIGINT, writer.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGTERM, writer)?;
        reader.read_u8().await.map(drop)
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        }
        Ok(addresses)
    }

    async fn connect(&self, remote: SocketAddr, options: &Options) -> io::Result<TcpStream> {
        let socket = new_socket(remote)?;
        set_before(&socket, options)?;
        let stream = socket.connect(remote).await?;
        Ok(stream)
    }

    async fn listen(&self, local: SocketAddr, options: &Options) -> io::Result<TcpListener> {
        let socket = match new_socket(local) {
            // A kernel without IPv6 still has all addresses of IPv4.
            Err(_) if local.is_ipv6() && local.ip().is_unspecified() => {
                let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port());
                let socket = new_socket(all)?;
                socket.set_reuseaddr(true)?;
                socket.bind(all)?;
                socket
            }
            socket => {
                let socket = socket?;
                socket.set_reuseaddr(true)?;
                socket.bind(local)?;
                socket
            }
        };
        set_before(&socket, options)?;
        socket.listen(BACKLOG)
    }

    fn listening(&self, listener: &TcpListener) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![listener.local_addr()?])
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        Ok((stream, canonical(peer)))
    }

    fn set_options(&self, stream: &TcpStream, options: &Options) -> io::Result<()> {
        set_before(stream, options)
    }

    fn local_address(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.local_addr().map(canonical)
    }

    fn tcp_info(&self, stream: &TcpStream) -> Option<StreamInfo> {
        let info = getsockopt(stream, TcpInfo).ok()?;
        // Eight bytes of states and options come first.
        let [_, _, _, _, snd_mss, _, _, _, _, _, _, _, _, _, _, pmtu, _, rtt, rttvar, _, snd_cwnd, .., total] =
            info;
        Some(StreamInfo {
            retransmits: total.into(),
            cwnd_bytes: u64::from(snd_cwnd) * u64::from(snd_mss),
            srtt_us: rtt.into(),
            rttvar_us: rttvar.into(),
            pmtu_bytes: pmtu,
            mss_bytes: snd_mss,
        })
    }

    fn abort(&self, stream: TcpStream) {
        // A connection that is gone already needs no RST.
        let _ = stream.set_zero_linger();
    }

    async fn udp_bind(&self, local: SocketAddr, options: &Options) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(local).await?;
        set_buffers(&socket, options)?;
        Ok(socket)
    }

    async fn udp_connect(&self, socket: &UdpSocket, remote: SocketAddr) -> io::Result<()> {
        socket.connect(remote).await
    }

    fn udp_local_address(&self, socket: &UdpSocket) -> io::Result<SocketAddr> {
        socket.local_addr().map(canonical)
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

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// An address of IPv4 that came through a socket of IPv6 is shown as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// What counts from the first segment on; a connection inherits it from its listener.
fn set_before(socket: &impl AsFd, options: &Options) -> io::Result<()> {
    set_buffers(socket, options)?;
    set_any(socket, options)
}

fn set_buffers(socket: &impl AsFd, options: &Options) -> io::Result<()> {
    if let Some(bytes) = options.send_buffer_bytes {
        setsockopt(socket, sockopt::SndBuf, &(bytes as usize))?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        setsockopt(socket, sockopt::RcvBuf, &(bytes as usize))?;
    }
    Ok(())
}

fn set_any(socket: &impl AsFd, options: &Options) -> io::Result<()> {
    if options.nodelay {
        setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    }
    if let Some(name) = &options.congestion {
        setsockopt(socket, sockopt::TcpCongestion, &OsString::from(name)).map_err(|error| {
            let text = format!("congestion control {name}: {}", io::Error::from(error));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
    }
    if let Some(mss) = options.mss {
        setsockopt(socket, sockopt::TcpMaxSeg, &mss).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("MSS {mss}: {}", io::Error::from(error)))
        })?;
    }
    Ok(())
}

/// Connections that may wait to be accepted; the kernel has a limit of its own (net.core.somaxconn).
const BACKLOG: u32 = 4_096;
