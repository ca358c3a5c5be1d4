//! Two engines that serve TCP at one port, as what drives both sees them.

use std::num::NonZeroUsize;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{Shard, ShardConfig, SocketId, TcpListen};
use wirestack::tcp::TcpOptions;
use wirestack_nic::OffloadCapabilities;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};

/// Where both engines listen.
pub(crate) const SERVER: &str = "10.0.0.1:80";
/// Their address: every 10.x.x.x is on their link.
const CIDR: &str = "10.0.0.1/8";
/// Frames that a wire holds.
const QUEUE_LEN: usize = 4_096;
/// Bytes of the longest frame of a device that merges.
const MERGED_LEN_MAX: usize = 65_535;

/// What an engine is told at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Sockets that listen at the port. Of ours one is enough; one of smoltcp's is one connection.
    pub(crate) listeners: usize,
    /// Bytes of the receive buffer.
    pub(crate) recv_buffer: usize,
    /// Timestamps are agreed to.
    pub(crate) timestamps: bool,
}

impl Setup {
    /// One socket, 64 KB, no timestamps.
    pub(crate) const PLAIN: Self = Self { listeners: 1, recv_buffer: 65_535, timestamps: false };
}

/// A TCP with a listener and the connection that was accepted last.
pub(crate) trait Engine {
    /// Does what is to be done, and says when it wants to come again.
    fn turn(&mut self, now: Instant) -> Option<Instant>;
    /// Takes the next connection: the others are about that one from now on. False: there is none.
    fn accept(&mut self) -> bool;
    fn write(&mut self, data: &[u8]) -> usize;
    /// Everything that has come.
    fn read(&mut self) -> Vec<u8>;
    /// Finishes sending.
    fn finish(&mut self);
    fn is_open(&self) -> bool;
    /// The peer has finished sending, and the application can know it.
    fn has_peer_finished(&self) -> bool;
}

/// A wire of IP packets: the engine's end and that of its peer.
pub(crate) fn wire() -> [Loopback<'static>; 2] {
    let gso = NonZeroUsize::new(MERGED_LEN_MAX);
    let offloads =
        OffloadCapabilities { checksum_tx: true, gso_tcpv4: gso, ..OffloadCapabilities::default() };
    let config = LoopbackConfig {
        medium: Medium::Ip,
        mtu: 1_500,
        frame_len_max: MERGED_LEN_MAX,
        queue_len: QUEUE_LEN,
        offloads,
        ..LoopbackConfig::default()
    };
    let (one, other) = Loopback::pair(&config).expect("a wire");
    [one, other]
}

/// A shard.
pub(crate) struct Ours {
    shard: Shard,
    nic: Loopback<'static>,
    listener: SocketId,
    socket: Option<SocketId>,
}

impl Ours {
    pub(crate) fn new(setup: Setup, nic: Loopback<'static>, now: Instant) -> Self {
        let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, 1]));
        config.seed = 1;
        config.link_local = None;
        config.neighbor.probes = AddressProbes::None;
        config = config.address(parse_cidr(CIDR).expect("an address"));
        let mut shard = Shard::new(config, now).expect("a shard");
        let recv_buffer = setup.recv_buffer as u32;
        let options = TcpOptions {
            recv_buffer,
            recv_buffer_max: recv_buffer,
            timestamps: setup.timestamps,
            ..TcpOptions::default()
        };
        let listen = TcpListen { options, ..TcpListen::new(SERVER.parse().expect("an address")) };
        let listener = shard.tcp_listen(listen).expect("the port is free");
        Self { shard, nic, listener, socket: None }
    }

    fn socket(&self) -> SocketId {
        self.socket.expect("a connection was accepted")
    }
}

impl Engine for Ours {
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        self.shard.turn(now, &mut self.nic, |_| {})
    }

    fn accept(&mut self) -> bool {
        let accepted = self.shard.tcp_accept(self.listener);
        self.socket = accepted.or(self.socket);
        accepted.is_some()
    }

    fn write(&mut self, data: &[u8]) -> usize {
        self.shard.tcp_send(self.socket(), data).unwrap_or(0)
    }

    fn read(&mut self) -> Vec<u8> {
        let (mut all, mut room) = (Vec::new(), [0; 4_096]);
        while let Ok(Some(len @ 1..)) = self.shard.tcp_recv(self.socket(), &mut room) {
            all.extend_from_slice(&room[..len]);
        }
        all
    }

    fn finish(&mut self) {
        self.shard.tcp_finish(self.socket());
    }

    fn is_open(&self) -> bool {
        let readiness = self.shard.tcp_readiness(self.socket());
        readiness.connected && !readiness.closed
    }

    fn has_peer_finished(&self) -> bool {
        self.shard.tcp_readiness(self.socket()).peer_finished
    }
}

/// smoltcp.
pub(crate) struct Small {
    interface: Interface,
    nic: Loopback<'static>,
    sockets: SocketSet<'static>,
    /// Which of them nobody has accepted yet.
    listening: Vec<SocketHandle>,
    handle: Option<SocketHandle>,
}

impl Small {
    pub(crate) fn new(setup: Setup, mut nic: Loopback<'static>, now: Instant) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 0x5eed;
        let mut interface = Interface::new(config, &mut nic, now);
        interface.update_ip_addrs(|list| {
            list.push(parse_cidr(CIDR).expect("an address")).expect("there is room");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let local = SERVER.parse::<std::net::SocketAddr>().expect("an address");
        let listening = (0..setup.listeners)
            .map(|_| {
                let buffer = |len| SocketBuffer::new(vec![0; len]);
                let mut socket = Socket::new(buffer(setup.recv_buffer), buffer(65_536));
                if setup.timestamps {
                    socket.set_tsval_generator(Some(|| 1_000));
                }
                socket.listen(local.port()).expect("a port");
                sockets.add(socket)
            })
            .collect();
        Self { interface, nic, sockets, listening, handle: None }
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle.expect("a connection was accepted"))
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle.expect("a connection was accepted"))
    }
}

impl Engine for Small {
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
        self.interface.poll_at(now, &self.sockets)
    }

    fn accept(&mut self) -> bool {
        let is_there = |handle: &SocketHandle| {
            let state = self.sockets.get::<Socket<'static>>(*handle).state();
            matches!(state, State::Established | State::CloseWait)
        };
        let Some(place) = self.listening.iter().position(is_there) else { return false };
        self.handle = Some(self.listening.remove(place));
        true
    }

    fn write(&mut self, data: &[u8]) -> usize {
        self.socket_mut().send_slice(data).unwrap_or(0)
    }

    fn read(&mut self) -> Vec<u8> {
        let (mut all, mut room) = (Vec::new(), [0; 4_096]);
        while let Ok(len @ 1..) = self.socket_mut().recv_slice(&mut room) {
            all.extend_from_slice(&room[..len]);
        }
        all
    }

    fn finish(&mut self) {
        self.socket_mut().close();
    }

    fn is_open(&self) -> bool {
        self.socket().is_open()
    }

    fn has_peer_finished(&self) -> bool {
        matches!(self.socket().state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
    }
}
