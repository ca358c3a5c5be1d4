//! Who serves: nginx, or our stack in one of its forms.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use smoltcp::wire::IpCidr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::api::{Access, TcpStream as Stream};
use wirestack::driver::{Launch, Patience};
use wirestack::local::{Runtime, Spawner, TcpStream as LocalStream};
use wirestack::neighbor::AddressProbes;
use wirestack::poll::{Poll, Sockets, Source, TcpId, Token};
use wirestack::shard::ShardConfig;
use wirestack_apps::testbed::{IPV4_PREFIX_LEN, OURS_IPV4, Wire};
use wirestack_nic::{AfPacket, AfPacketConfig};
use wirestack_tests::programs::{Child, output};

use super::SERVER_CORE;
use crate::table::pin;
use crate::wire::End;

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// One process. `steered`: what comes is received on its core, by receive packet steering.
    Nginx { steered: bool },
    /// Events.
    Poll,
    /// Tasks on the thread of the shard.
    Local,
    /// hyper in such tasks.
    HyperLocal,
    /// hyper in tasks of tokio, whose thread has the same core as that of the shard.
    HyperAsync,
}

/// One that serves.
pub(super) enum Running {
    Nginx { _child: Child, _dir: TempDir },
    Ours { done: Arc<AtomicBool>, thread: JoinHandle<()> },
}

impl Running {
    /// Starts it at our end, and waits until it serves.
    pub(super) fn start(server: Server, wire: &Wire) -> Result<Self, Box<dyn std::error::Error>> {
        if let Server::Nginx { steered } = server {
            return nginx(wire, steered);
        }
        let end = End::new(wire.ours(), address().ip(), IPV4_PREFIX_LEN);
        let done = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = wire.ours().namespace().spawn({
            let done = Arc::clone(&done);
            move || {
                pin(SERVER_CORE);
                match server {
                    Server::Local => {
                        local(&end, &ready, &done, |spawner, stream| spawner.spawn(serve(stream)));
                    }
                    Server::HyperLocal => {
                        local(&end, &ready, &done, |spawner, stream| spawner.spawn(serve_with_hyper(stream)));
                    }
                    Server::HyperAsync => tokio_tasks(&end, &ready, &done),
                    _ => poll(&end, &ready, &done),
                }
            }
        });
        is_ready.recv()?;
        Ok(Self::Ours { done, thread })
    }

    pub(super) fn stop(self) -> Result<(), Box<dyn std::error::Error>> {
        if let Self::Ours { done, thread } = self {
            done.store(true, Ordering::Relaxed);
            thread.join().map_err(|_| "the server panicked")?;
        }
        Ok(())
    }
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::new(OURS_IPV4.into(), 80)
}

/// The fastest that nginx can do: no log, no file.
const CONFIG: &str = "
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 2048; }
http {
    access_log off; default_type text/plain; server_tokens off;
    keepalive_timeout 600s; keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen 80 backlog=1024; location / { return 200 \"Hello, world!\"; } }
}
";

fn nginx(wire: &Wire, steered: bool) -> Result<Running, Box<dyn std::error::Error>> {
    wire.ours().add_address(address().ip(), IPV4_PREFIX_LEN)?;
    if steered {
        let mask = 1_u32 << SERVER_CORE;
        let queue = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", wire.ours().name());
        let line = format!("mount -t sysfs sysfs /sys && echo {mask:x} > {queue}");
        wire.at_ours(|| output(Command::new("unshare").args(["-m", "sh", "-c", &line]), LONG))?;
    }
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("nginx.conf"), CONFIG)?;
    let mut command = Command::new("taskset");
    command.args(["-c", &SERVER_CORE.to_string(), "nginx", "-c", "nginx.conf", "-p"]).arg(dir.path());
    let child = wire.at_ours(|| Child::start(&mut command))?;
    let begun = Instant::now();
    // From its own end: the load's has no stack of the kernel.
    while wire.at_ours(|| TcpStream::connect(address())).is_err() {
        if begun.elapsed() > LONG {
            return Err("nginx does not serve".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Running::Nginx { _child: child, _dir: dir })
}

fn config(end: &End) -> ShardConfig {
    let mut config = ShardConfig::new(end.mac).address(IpCidr::new(end.address.into(), IPV4_PREFIX_LEN));
    config.neighbor.probes = AddressProbes::None;
    config.tcp.options.nagle = wirestack::tcp::Nagle::Off;
    config
}

fn open(end: &End) -> AfPacket<'static> {
    AfPacket::open(&end.name, AfPacketConfig::default()).expect("a device")
}

/// What nginx says, in about as many bytes.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: wirestack\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 13\r\nConnection: keep-alive\r\n\r\nHello, world!";
const REQUEST_BYTES_MAX: usize = 4_096;

/// Bytes up to the end of the first head.
fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn poll(end: &End, ready: &Sender<()>, done: &AtomicBool) {
    let mut poll = Poll::new(open(end), config(end)).expect("a configuration");
    poll.sockets().tcp_listen(address(), Token(0)).expect("a port");
    // It looks whether it is to end.
    let now = poll.sockets().now();
    poll.sockets().set_timer(Token(1), now);
    ready.send(()).expect("somebody waits");
    let served = poll.run(|sockets, event| match event.source {
        Source::Listener(listener) => while sockets.accept(listener).is_some() {},
        Source::Tcp(tcp) => match answer(sockets, tcp) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => sockets.close(tcp),
        },
        _ if done.load(Ordering::Relaxed) => sockets.stop(),
        _ => drop(sockets.set_timer(Token(1), sockets.now() + LOOK)),
    });
    served.expect("the wire is there");
}

fn answer(sockets: &mut Sockets<'_>, tcp: TcpId) -> io::Result<()> {
    loop {
        let head_len =
            sockets.recv_with(tcp, |piece| (0, if piece.is_empty() { Some(0) } else { head_len(piece) }))?;
        match head_len {
            Some(0) => return Ok(()),
            Some(_) if sockets.room(tcp) < ANSWER.len() => sockets.again(tcp),
            Some(head_len) => {
                sockets.send(tcp, ANSWER)?;
                sockets.recv_with(tcp, |_| (head_len, ()))?;
                continue;
            }
            None if sockets.readable(tcp) > REQUEST_BYTES_MAX => return Ok(()),
            None => {}
        }
        return Err(io::ErrorKind::WouldBlock.into());
    }
}

fn local(end: &End, ready: &Sender<()>, done: &AtomicBool, serve: impl Fn(&Spawner, LocalStream) + 'static) {
    let mut runtime = Runtime::new(open(end), config(end)).expect("a configuration");
    runtime.set_patience(Patience::default());
    let stack = runtime.stack().clone();
    let listener = stack.listen(address()).expect("a port");
    let spawner = runtime.spawner().clone();
    runtime.spawner().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(&spawner, stream);
        }
    });
    ready.send(()).expect("somebody waits");
    let ended = runtime.block_on(async {
        while !done.load(Ordering::Relaxed) {
            stack.sleep(LOOK).await;
        }
    });
    ended.expect("the wire is there");
}

async fn serve(mut stream: LocalStream) {
    let (mut room, mut filled) = (vec![0; REQUEST_BYTES_MAX], 0);
    while let Ok(len @ 1..) = stream.read(&mut room[filled..]).await {
        filled += len;
        while let Some(head_len) = head_len(&room[..filled]) {
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
            room.copy_within(head_len..filled, 0);
            filled -= head_len;
        }
    }
}

async fn serve_with_hyper<A: Access>(stream: Stream<A>) {
    let page = async |_: hyper::Request<Incoming>| {
        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"Hello, world!"))))
    };
    // Who leaves without a word is no error of ours.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(page)).await;
}

fn tokio_tasks(end: &End, ready: &Sender<()>, done: &AtomicBool) {
    let launch = Launch::new(config(end)).cpus(vec![SERVER_CORE]);
    let driver = launch.start(vec![open(end)]).expect("a configuration");
    let listener = driver.stack().listen(address()).expect("a port");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    ready.send(()).expect("somebody waits");
    runtime.block_on(async {
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_with_hyper(stream));
            }
        });
        while !done.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK.into()).await;
        }
        accepting.abort();
    });
}

const LOOK: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(20);
/// How long anything may take that ought to be quick.
pub(super) const LONG: Duration = Duration::from_secs(60);
