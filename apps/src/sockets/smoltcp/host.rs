//! Interface and sockets: a turn, listeners, what is left of closed connections.
//!
//! In smoltcp a listening socket turns into its connection. So a listener keeps one spare socket in LISTEN, and after
//! every frame that may have taken it the next one is put in its place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp::{self, State};
use smoltcp::socket::udp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpEndpoint, IpListenEndpoint};
use wirestack::config::HostConfig;
use wirestack::nic::{Nic, wait};

use super::Options;

/// See the [module](self).
pub(super) struct Host {
    iface: Interface,
    pub(super) sockets: SocketSet<'static>,
    /// Of this turn.
    pub(super) now: Instant,
    listeners: BTreeMap<u64, Listening>,
    next_listener: u64,
    /// Closed by their program, and not done yet.
    orphans: Vec<SocketHandle>,
    first_port: u16,
    ports: u16,
    next_port: u16,
    recv_buffer_bytes: usize,
    send_buffer_bytes: usize,
}

struct Listening {
    local: IpListenEndpoint,
    options: Options,
    /// In LISTEN, or just taken by a SYN.
    spare: SocketHandle,
    half_open: Vec<SocketHandle>,
    ready: VecDeque<SocketHandle>,
    wakers: Vec<Waker>,
}

impl Host {
    pub(super) fn new<N: Nic>(nic: &mut N, config: &HostConfig<'_>) -> Self {
        let hardware = match nic.capabilities().medium {
            Medium::Ethernet => HardwareAddress::Ethernet(config.mac),
            Medium::Ip => HardwareAddress::Ip,
        };
        let mut iface_config = Config::new(hardware);
        iface_config.random_seed = config.seed;
        let now = wait::now();
        let mut iface = Interface::new(iface_config, nic, now);
        iface.update_ip_addrs(|addresses| {
            // Setup has seen to their number.
            for &address in config.addresses.iter().chain(&config.link_local()) {
                let _ = addresses.push(address);
            }
        });
        for &gateway in &config.gateways {
            let _ = match gateway {
                IpAddr::V4(gateway) => iface.routes_mut().add_default_ipv4_route(gateway),
                IpAddr::V6(gateway) => iface.routes_mut().add_default_ipv6_route(gateway),
            };
        }
        let (first_port, last_port) = (*config.source_ports.start(), *config.source_ports.end());
        let ports = (last_port - first_port).saturating_add(1);
        Self {
            iface,
            sockets: SocketSet::new(Vec::new()),
            now,
            listeners: BTreeMap::new(),
            next_listener: 0,
            orphans: Vec::new(),
            first_port,
            ports,
            next_port: (config.seed % u64::from(ports)) as u16,
            recv_buffer_bytes: config.recv_buffer_bytes,
            send_buffer_bytes: config.send_buffer_bytes,
        }
    }

    /// The first half of a turn. True: there are more frames than it takes.
    pub(super) fn receive<N: Nic>(&mut self, now: Instant, nic: &mut N) -> bool {
        self.now = self.now.max(now);
        self.iface.poll_maintenance(self.now);
        let mut left = INGRESS_FRAMES_MAX;
        while left > 0 {
            match self.iface.poll_ingress_single(self.now, nic, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                // It may have been a SYN that took a listener's spare socket: the next SYN needs one.
                PollIngressSingleResult::SocketStateChanged => self.replenish(),
            }
            left -= 1;
        }
        self.promote();
        left == 0
    }

    /// The second half. When to come again.
    pub(super) fn send<N: Nic>(&mut self, nic: &mut N) -> Option<Instant> {
        let has_more = (0..EGRESS_ROUNDS_MAX)
            .all(|_| self.iface.poll_egress(self.now, nic, &mut self.sockets) != PollResult::None);
        self.reap();
        // If the link is down the frames stay queued; `wait` tells the loop.
        let _ = nic.flush();
        if has_more {
            return Some(self.now);
        }
        // What is due now could not be sent: the device has no room. smoltcp says "now" until it has.
        let due = self.iface.poll_at(self.now, &self.sockets);
        due.map(|due| due.max(self.now + RETRY_INTERVAL))
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.iface.ip_addrs().iter().map(|cidr| cidr.address().into()).collect()
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// A closed socket with the manners that are asked for.
    fn tcp_socket(&mut self, options: &Options) -> io::Result<SocketHandle> {
        let bytes = |asked: Option<u32>, default| asked.map_or(default, |bytes| bytes.max(1) as usize);
        let recv = vec![0; bytes(options.recv_buffer_bytes, self.recv_buffer_bytes)];
        let send = vec![0; bytes(options.send_buffer_bytes, self.send_buffer_bytes)];
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(recv), tcp::SocketBuffer::new(send));
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(USER_TIMEOUT));
        set_options(&mut socket, options)?;
        Ok(self.sockets.add(socket))
    }

    fn port(&mut self) -> u16 {
        self.next_port = (self.next_port + 1) % self.ports;
        self.first_port + self.next_port
    }

    pub(super) fn connect(&mut self, remote: SocketAddr, options: &Options) -> io::Result<SocketHandle> {
        let handle = self.tcp_socket(options)?;
        for _ in 0..PORT_TRIES {
            let port = self.port();
            let ends = (Some(IpEndpoint::from(remote)), port);
            let is_taken = self.sockets.iter().any(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(socket) => {
                    let local = socket.local_endpoint().map(|local| local.port);
                    socket.listen_endpoint().port == port
                        || (socket.remote_endpoint(), local) == (ends.0, Some(port))
                }
                _ => false,
            });
            if is_taken {
                continue;
            }
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            return match socket.connect(self.iface.context(), remote, port) {
                Ok(()) => Ok(handle),
                Err(_) => {
                    self.sockets.remove(handle);
                    Err(io::ErrorKind::NetworkUnreachable.into())
                }
            };
        }
        self.sockets.remove(handle);
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    pub(super) fn listen(&mut self, local: SocketAddr, options: &Options) -> io::Result<(u64, SocketAddr)> {
        let mut local = local;
        if local.port() == 0 {
            local.set_port(self.port());
        }
        let endpoint = listen_endpoint(local);
        if self.listeners.values().any(|listening| listening.local.port == endpoint.port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let spare = self.spare(endpoint, options)?;
        let number = self.next_listener;
        self.next_listener += 1;
        let (half_open, ready, wakers) = Default::default();
        let options = options.clone();
        let listening = Listening { local: endpoint, options, spare, half_open, ready, wakers };
        self.listeners.insert(number, listening);
        Ok((number, local))
    }

    fn spare(&mut self, local: IpListenEndpoint, options: &Options) -> io::Result<SocketHandle> {
        let handle = self.tcp_socket(options)?;
        // It is closed, and the port is not 0.
        self.tcp(handle).listen(local).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(handle)
    }

    pub(super) fn unlisten(&mut self, number: u64) {
        let Some(listening) = self.listeners.remove(&number) else { return };
        for handle in listening.half_open.into_iter().chain(listening.ready).chain([listening.spare]) {
            self.tcp(handle).abort();
            self.orphans.push(handle);
        }
    }

    /// The next connection; the waker is called when there is one.
    pub(super) fn accept(&mut self, number: u64, waker: &Waker) -> Option<(SocketHandle, SocketAddr)> {
        loop {
            let listening = self.listeners.get_mut(&number)?;
            let Some(handle) = listening.ready.pop_front() else {
                if !listening.wakers.iter().any(|known| known.will_wake(waker)) {
                    listening.wakers.push(waker.clone());
                }
                return None;
            };
            match self.tcp(handle).remote_endpoint() {
                Some(peer) => return Some((handle, socket_addr(peer))),
                // It has ended before it was accepted.
                None => drop(self.sockets.remove(handle)),
            }
        }
    }

    /// Puts new sockets in the place of those that a SYN has taken.
    fn replenish(&mut self) {
        for number in self.listeners.keys().copied().collect::<Vec<_>>() {
            let Some(listening) = self.listeners.get_mut(&number) else { continue };
            let (spare, local) = (listening.spare, listening.local);
            if self.sockets.get::<tcp::Socket<'_>>(spare).state() == State::Listen {
                continue;
            }
            let options = listening.options.clone();
            // Another one was like it.
            let Ok(next) = self.spare(local, &options) else { continue };
            if let Some(listening) = self.listeners.get_mut(&number) {
                listening.half_open.push(std::mem::replace(&mut listening.spare, next));
            }
        }
    }

    /// Hands connections on whose handshake is done.
    fn promote(&mut self) {
        let Self { listeners, sockets, .. } = self;
        for listening in listeners.values_mut() {
            listening.half_open.retain(|&handle| {
                match sockets.get::<tcp::Socket<'_>>(handle).state() {
                    State::SynReceived | State::Listen => return true,
                    State::Closed => drop(sockets.remove(handle)),
                    _ => listening.ready.push_back(handle),
                }
                false
            });
            if !listening.ready.is_empty() {
                listening.wakers.drain(..).for_each(Waker::wake);
            }
        }
    }

    /// A program has dropped a connection: what was written is still sent, and then it is forgotten.
    pub(super) fn close(&mut self, handle: SocketHandle) {
        let socket = self.tcp(handle);
        // RFC 2525 section 2.17: data that nobody has read is told to be lost.
        if socket.recv_queue() > 0 {
            socket.abort();
        } else {
            socket.close();
        }
        // A peer that never finishes its side is found out if it is gone.
        socket.set_keep_alive(Some(USER_TIMEOUT / 4));
        self.orphans.push(handle);
    }

    fn reap(&mut self) {
        let Self { orphans, sockets, .. } = self;
        orphans.retain(|&handle| {
            let socket = sockets.get::<tcp::Socket<'_>>(handle);
            // A reset that waits to be sent has an end still.
            let is_over = match socket.state() {
                State::Closed => socket.remote_endpoint().is_none(),
                State::TimeWait => true,
                _ => false,
            };
            if is_over {
                sockets.remove(handle);
            }
            !is_over
        });
    }

    pub(super) fn udp_bind(
        &mut self,
        local: SocketAddr,
        options: &Options,
    ) -> io::Result<(SocketHandle, SocketAddr)> {
        let queue = |bytes: Option<u32>| {
            let bytes = bytes.map_or(UDP_QUEUE_BYTES, |bytes| bytes.max(1) as usize);
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; UDP_DATAGRAMS], vec![0; bytes])
        };
        let mut local = local;
        if local.port() == 0 {
            local.set_port(self.port());
        }
        let is_taken = self.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Udp(socket) => socket.endpoint().port == local.port(),
            _ => false,
        });
        if is_taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let mut socket = udp::Socket::new(queue(options.recv_buffer_bytes), queue(options.send_buffer_bytes));
        // It is closed, and the port is not 0.
        socket.bind(listen_endpoint(local)).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok((self.sockets.add(socket), local))
    }
}

/// Sets what can be set at any time, and refuses what smoltcp does not know.
pub(super) fn set_options(socket: &mut tcp::Socket<'static>, options: &Options) -> io::Result<()> {
    let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    if options.nodelay {
        socket.set_nagle_enabled(false);
    }
    match options.congestion.as_deref() {
        None => {}
        Some("cubic") => socket.set_congestion_control(tcp::CongestionControl::Cubic),
        Some("reno") => socket.set_congestion_control(tcp::CongestionControl::Reno),
        Some(name) => {
            return Err(wrong(format!("congestion control {name}: with smoltcp, cubic or reno is accepted")));
        }
    }
    match options.mss {
        Some(mss) => Err(wrong(format!("MSS {mss}: smoltcp takes that of the interface"))),
        None => Ok(()),
    }
}

fn listen_endpoint(local: SocketAddr) -> IpListenEndpoint {
    let addr = Some(local.ip().into()).filter(|_| !local.ip().is_unspecified());
    IpListenEndpoint { addr, port: local.port() }
}

pub(super) fn socket_addr(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}

/// Frames taken from the device in one turn: about a millisecond's work.
const INGRESS_FRAMES_MAX: usize = 256;
/// Rounds of egress in one turn; each sends one segment of each socket.
const EGRESS_ROUNDS_MAX: usize = 256;
/// How soon what could not be sent is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// How long a peer may leave a handshake, data or a FIN without an answer.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// Source ports that are tried.
const PORT_TRIES: usize = 1_024;
/// Datagrams that wait in each direction, and their bytes.
const UDP_DATAGRAMS: usize = 1_024;
const UDP_QUEUE_BYTES: usize = 1 << 20;
