//! smoltcp as it is: its interface and its sockets on a device, in tasks on one thread. Nothing of the stack's own engine
//! is in it; addresses are given, since nobody asks for them here.
//!
//! | file | what it owns |
//! |---|---|
//! | `host` | interface and sockets: a turn, listeners, what is left of closed connections |
//! | `run` | the loop, with its tasks and times |
//! | `stream` | a connection as tokio's `AsyncRead` and `AsyncWrite` |

mod host;
mod run;
mod stream;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;
use wirestack::nic::Nic;

use super::{Options, Program, Sockets, StreamInfo};
use crate::addresses::AddressArg;
use crate::cli::HostArgs;
use crate::error::AppError;
use crate::serve::{Stop, one, print_error};
use crate::setup::{self, NicProgram, Ports, Prepared};

use host::Host;
use run::Tasks;
pub use stream::Stream;

/// Runs a program on a device, on this thread.
///
/// # Errors
/// What is wrong with the flags or the device; the interface has gone. One line.
pub fn run<P: Program>(host: &HostArgs, ports: Ports, program: P) -> Result<P::Output, AppError> {
    if let Some(arg) = host.addresses.iter().find(|arg| !matches!(arg, AddressArg::Static(_))) {
        return Err(AppError::flag(
            "--address",
            arg,
            "with --backend smoltcp, an address with a prefix is accepted",
        ));
    }
    let mut output = None;
    setup::start(host, ports, OnNic { program, output: &mut output })?;
    output.ok_or_else(|| AppError::running("the program has not run"))
}

struct OnNic<'a, P: Program> {
    program: P,
    output: &'a mut Option<P::Output>,
}

impl<P: Program> NicProgram for OnNic<'_, P> {
    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let Prepared { net, stop, about, .. } = prepared;
        if let Some(about) = about {
            print_error(format_args!("wirestack: {about}"));
        }
        let mut nic = one(nics)?;
        let host = Rc::new(RefCell::new(Host::new(&mut nic, &net.host)));
        let sockets = Smoltcp { host, tasks: Tasks::default(), stop };
        let ended = run::block_on(&sockets, &mut nic, self.program.run(sockets.clone()));
        *self.output = Some(ended.map_err(AppError::running)?);
        // What was written last still leaves.
        let _ = run::block_on(&sockets, &mut nic, sockets.sleep_until(sockets.now() + LAST_WORDS));
        Ok(())
    }
}

/// Sockets of smoltcp. A handle: clones are the same ones.
#[derive(Clone)]
pub struct Smoltcp {
    host: Rc<RefCell<Host>>,
    tasks: Tasks,
    stop: Stop,
}

/// A port that connections come to. Dropping it stops listening.
pub struct Listener {
    host: Rc<RefCell<Host>>,
    number: u64,
    local: SocketAddr,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.host.borrow_mut().unlisten(self.number);
    }
}

/// A socket of UDP.
pub struct Udp {
    host: Rc<RefCell<Host>>,
    handle: SocketHandle,
    local: SocketAddr,
    remote: RefCell<Option<SocketAddr>>,
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.host.borrow_mut().sockets.remove(self.handle);
    }
}

impl Udp {
    async fn send(&self, payload: &[u8], to: SocketAddr) -> io::Result<usize> {
        poll_fn(|context| {
            let mut host = self.host.borrow_mut();
            let socket = host.sockets.get_mut::<udp::Socket<'_>>(self.handle);
            match socket.send_slice(payload, IpEndpoint::from(to)) {
                Ok(()) => Poll::Ready(Ok(payload.len())),
                Err(udp::SendError::Unaddressable) => {
                    Poll::Ready(Err(io::ErrorKind::NetworkUnreachable.into()))
                }
                Err(udp::SendError::BufferFull) if payload.len() > socket.payload_send_capacity() => {
                    Poll::Ready(Err(io::ErrorKind::InvalidInput.into()))
                }
                Err(udp::SendError::BufferFull) => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    async fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|context| {
            let mut host = self.host.borrow_mut();
            let socket = host.sockets.get_mut::<udp::Socket<'_>>(self.handle);
            while let Ok((payload, meta)) = socket.recv() {
                let from = host::socket_addr(meta.endpoint);
                if self.remote.borrow().is_none_or(|remote| remote == from) {
                    let len = payload.len().min(buffer.len());
                    buffer[..len].copy_from_slice(&payload[..len]);
                    return Poll::Ready(Ok((len, from)));
                }
            }
            socket.register_recv_waker(context.waker());
            Poll::Pending
        })
        .await
    }
}

impl Sockets for Smoltcp {
    type Stream = Stream;
    type Listener = Listener;
    type Udp = Udp;

    fn name(&self) -> &'static str {
        "smoltcp"
    }

    fn now(&self) -> Instant {
        self.host.borrow().now
    }

    async fn sleep_until(&self, deadline: Instant) {
        self.tasks.sleep_until(&self.host, deadline).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(task);
    }

    async fn stopped(&self) -> io::Result<()> {
        while !self.stop.is_set() {
            self.sleep_until(self.now() + STOP_LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let ip = host.parse::<IpAddr>().map_err(|_| {
            let problem = "with --backend smoltcp there is no resolver; an address is accepted";
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        })?;
        Ok(vec![SocketAddr::new(ip, port)])
    }

    async fn connect(&self, remote: SocketAddr, options: &Options) -> io::Result<Stream> {
        let handle = self.host.borrow_mut().connect(remote, options)?;
        // From here on, giving up closes it.
        let stream = Stream::new(&self.host, handle);
        stream.connected().await?;
        Ok(stream)
    }

    async fn listen(&self, local: SocketAddr, options: &Options) -> io::Result<Listener> {
        let (number, local) = self.host.borrow_mut().listen(local, options)?;
        Ok(Listener { host: Rc::clone(&self.host), number, local })
    }

    fn listening(&self, listener: &Listener) -> io::Result<Vec<SocketAddr>> {
        if !listener.local.ip().is_unspecified() {
            return Ok(vec![listener.local]);
        }
        let all = self.host.borrow().addresses();
        let all = all.into_iter().filter(|ip| ip.is_ipv4() || listener.local.is_ipv6());
        Ok(all.map(|ip| SocketAddr::new(ip, listener.local.port())).collect())
    }

    async fn accept(&self, listener: &Listener) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|context| match self.host.borrow_mut().accept(listener.number, context.waker()) {
            Some((handle, peer)) => Poll::Ready(Ok((handle, peer))),
            None => Poll::Pending,
        })
        .await
        .map(|(handle, peer)| (Stream::new(&self.host, handle), peer))
    }

    fn set_options(&self, stream: &Stream, options: &Options) -> io::Result<()> {
        host::set_options(self.host.borrow_mut().tcp(stream.handle()), options)
    }

    fn local_address(&self, stream: &Stream) -> io::Result<SocketAddr> {
        let local = self.host.borrow_mut().tcp(stream.handle()).local_endpoint();
        local.map(host::socket_addr).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// smoltcp does not tell.
    fn tcp_info(&self, _: &Stream) -> Option<StreamInfo> {
        None
    }

    fn abort(&self, stream: Stream) {
        self.host.borrow_mut().tcp(stream.handle()).abort();
    }

    async fn udp_bind(&self, local: SocketAddr, options: &Options) -> io::Result<Udp> {
        let (handle, local) = self.host.borrow_mut().udp_bind(local, options)?;
        Ok(Udp { host: Rc::clone(&self.host), handle, local, remote: RefCell::new(None) })
    }

    async fn udp_connect(&self, socket: &Udp, remote: SocketAddr) -> io::Result<()> {
        *socket.remote.borrow_mut() = Some(remote);
        Ok(())
    }

    fn udp_local_address(&self, socket: &Udp) -> io::Result<SocketAddr> {
        Ok(socket.local)
    }

    async fn udp_send(&self, socket: &Udp, payload: &[u8]) -> io::Result<usize> {
        let remote = *socket.remote.borrow();
        socket.send(payload, remote.ok_or(io::ErrorKind::NotConnected)?).await
    }

    async fn udp_recv(&self, socket: &Udp, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(socket.recv(buffer).await?.0)
    }

    async fn udp_send_to(&self, socket: &Udp, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        socket.send(payload, remote).await
    }

    async fn udp_recv_from(&self, socket: &Udp, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        socket.recv(buffer).await
    }
}

/// How often it is looked whether the program is to end.
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long connections get to end in an orderly way.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Runs a test on a device. A wire that goes away ends it.
#[cfg(test)]
pub(super) fn on<N: Nic>(
    mut nic: N,
    config: &wirestack::config::HostConfig<'_>,
    test: impl AsyncFnOnce(Smoltcp),
) {
    let stop = Stop::new(nic.waker());
    let host = Rc::new(RefCell::new(Host::new(&mut nic, config)));
    let sockets = Smoltcp { host, tasks: Tasks::default(), stop };
    let _ = run::block_on(&sockets, &mut nic, test(sockets.clone()));
}
