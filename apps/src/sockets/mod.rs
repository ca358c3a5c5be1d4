//! Sockets of whoever has the TCP: one trait, so that a program above it is the same for the stack's own engine, for
//! the kernel and for smoltcp, and figures of the three can be compared.
//!
//! | file | what it owns |
//! |---|---|
//! | [`wirestack`] | the stack's own sockets, in tasks on the thread of their shard |
//! | [`kernel`] | tokio on one thread, and the kernel's sockets |
//! | [`smoltcp`] | smoltcp's interface and sockets on a device, in tasks on one thread |
//!
//! Everything runs on one thread: no future needs to be `Send`, and what tasks share is in cells.

#[cfg(test)]
mod exchange;
pub mod kernel;
pub mod smoltcp;
pub mod wirestack;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use ::smoltcp::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cli::HostArgs;
use crate::error::AppError;
use crate::setup::Ports;

/// TCP and UDP, a clock and tasks. A handle: clones are the same sockets.
#[expect(async_fn_in_trait, reason = "all tasks are on the thread of their sockets; none has to be Send")]
pub trait Sockets: Clone + 'static {
    /// A connection. Dropped, it is closed as std does it: what was written is still sent, and unless something
    /// that came was not read, a FIN follows.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;
    /// A port that connections come to.
    type Listener: 'static;
    /// A socket of UDP.
    type Udp: 'static;

    /// Whose sockets, as `--backend` names them.
    fn name(&self) -> &'static str;

    /// Now, on the clock of the deadlines. It may be as old as the turn that the caller runs in.
    fn now(&self) -> Instant;

    /// Comes back at `deadline`, not before.
    async fn sleep_until(&self, deadline: Instant);

    /// Runs a task beside this one, on the same thread, until it ends or the sockets do.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Comes back when somebody asked the program to end: SIGINT or SIGTERM.
    ///
    /// # Errors
    /// Signals cannot be waited for.
    async fn stopped(&self) -> io::Result<()>;

    /// The addresses of a host, by name or as written.
    ///
    /// # Errors
    /// What the resolver said; no address is one, too.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// Opens a connection.
    ///
    /// # Errors
    /// As `std::net::TcpStream::connect`, and an option that is not known here.
    async fn connect(&self, remote: SocketAddr, options: &Options) -> io::Result<Self::Stream>;

    /// Listens. The unspecified address of IPv6 stands for all addresses of both versions, port 0 for a free one.
    ///
    /// # Errors
    /// As `std::net::TcpListener::bind`, and an option that is not known here.
    async fn listen(&self, local: SocketAddr, options: &Options) -> io::Result<Self::Listener>;

    /// Where others connect to: one or more addresses, for the ready line.
    ///
    /// # Errors
    /// The listener is broken.
    fn listening(&self, listener: &Self::Listener) -> io::Result<Vec<SocketAddr>>;

    /// The next connection, and its other end. Cancel-safe.
    ///
    /// # Errors
    /// Out of memory or descriptors, or the interface is gone.
    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Sets what can be set on an open connection; the rest of the options is left alone.
    ///
    /// # Errors
    /// A value that is not known here.
    fn set_options(&self, stream: &Self::Stream, options: &Options) -> io::Result<()>;

    /// Our end.
    ///
    /// # Errors
    /// The connection is broken.
    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// How the connection does, if the backend can tell.
    fn tcp_info(&self, stream: &Self::Stream) -> Option<StreamInfo>;

    /// Ends the connection with a RST.
    fn abort(&self, stream: Self::Stream);

    /// A socket of UDP; addresses as for [`listen`](Self::listen).
    ///
    /// # Errors
    /// As `std::net::UdpSocket::bind`.
    async fn udp_bind(&self, local: SocketAddr, options: &Options) -> io::Result<Self::Udp>;

    /// From now on for datagrams from and to `remote` only.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::connect`.
    async fn udp_connect(&self, socket: &Self::Udp, remote: SocketAddr) -> io::Result<()>;

    /// Our end.
    ///
    /// # Errors
    /// The socket is broken.
    fn udp_local_address(&self, socket: &Self::Udp) -> io::Result<SocketAddr>;

    /// Sends a datagram to the connected peer, when there is room for it.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::send`.
    async fn udp_send(&self, socket: &Self::Udp, payload: &[u8]) -> io::Result<usize>;

    /// The next datagram of the connected peer. Cancel-safe.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::recv`.
    async fn udp_recv(&self, socket: &Self::Udp, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends a datagram, when there is room for it.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::send_to`.
    async fn udp_send_to(&self, socket: &Self::Udp, payload: &[u8], remote: SocketAddr) -> io::Result<usize>;

    /// The next datagram, and where it came from. Cancel-safe.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::recv_from`.
    async fn udp_recv_from(&self, socket: &Self::Udp, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

/// How a connection is to behave. What is `None` is the backend's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Small segments are sent at once (TCP_NODELAY).
    pub nodelay: bool,
    /// Congestion control by name.
    pub congestion: Option<String>,
    /// Bytes of payload in a segment, at most.
    pub mss: Option<u32>,
    /// Bytes of the send buffer.
    pub send_buffer_bytes: Option<u32>,
    /// Bytes of the receive buffer.
    pub recv_buffer_bytes: Option<u32>,
}

/// How a connection does. What a backend cannot tell is 0, or `None` where 0 says something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamInfo {
    /// Segments that were sent again, since the beginning.
    pub retransmits: u64,
    /// Congestion window in bytes.
    pub cwnd_bytes: u64,
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: u64,
    /// Its variation in microseconds.
    pub rttvar_us: u64,
    /// Path MTU in bytes.
    pub pmtu_bytes: u32,
    /// Bytes of payload in a segment to the peer.
    pub mss_bytes: u32,
}

/// Something that runs on sockets, whoever they are of.
#[expect(async_fn_in_trait, reason = "all tasks are on the thread of their sockets; none has to be Send")]
pub trait Program {
    /// What it has at the end.
    type Output;

    /// Runs to the end; tasks that it spawned and left end then, too.
    async fn run<S: Sockets>(self, sockets: S) -> Self::Output;
}

/// Whose sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The stack's own.
    #[default]
    Wirestack,
    /// The kernel's.
    Kernel,
    /// smoltcp's.
    Smoltcp,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wirestack => "wirestack",
            Self::Kernel => "kernel",
            Self::Smoltcp => "smoltcp",
        })
    }
}

impl FromStr for Backend {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wirestack" => Ok(Self::Wirestack),
            "kernel" => Ok(Self::Kernel),
            "smoltcp" => Ok(Self::Smoltcp),
            _ => Err("wirestack, kernel or smoltcp is accepted"),
        }
    }
}

/// Runs a program on the sockets that the flags ask for. `host` is what they say about a device; `ports` is what the
/// program claims on addresses that the kernel has too.
///
/// # Errors
/// Flags that do not go together, and what is wrong with the device. One line.
pub fn run<P: Program>(
    backend: Backend,
    host: Option<&HostArgs>,
    ports: Ports,
    program: P,
) -> Result<P::Output, AppError> {
    match (backend, host) {
        (Backend::Kernel, None) => kernel::run(program)
            .map_err(|error| AppError::running(format_args!("the kernel's sockets: {error}"))),
        (Backend::Kernel, Some(host)) => {
            Err(AppError::flag("--nic", &host.nic, "--backend kernel has no device of its own; leave it out"))
        }
        (Backend::Wirestack, Some(host)) => wirestack::run(host, ports, program),
        (Backend::Smoltcp, Some(host)) => smoltcp::run(host, ports, program),
        (Backend::Wirestack | Backend::Smoltcp, None) => Err(AppError::usage(format_args!(
            "--nic and --address are missing: --backend {backend} needs them, as in --nic packet:eth0 --address \
             10.0.0.2/24; --backend kernel does not"
        ))),
    }
}
