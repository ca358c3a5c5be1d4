//! Two stacks in memory, and the line between them: what one has sent in a turn, the other takes in the next.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{Shard, ShardConfig, SocketId, TcpConnect, TcpListen};
use wirestack_nic::{Counters, FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker};

use crate::device::Never;
use crate::frames;

/// Frames one behind the other.
#[derive(Debug)]
struct Frames {
    memory: Vec<u8>,
    /// Where each ends.
    ends: Vec<(usize, FrameMeta)>,
    taken: usize,
}

impl Frames {
    fn new() -> Self {
        Self { memory: vec![0; MEMORY_BYTES], ends: Vec::with_capacity(4_096), taken: 0 }
    }

    fn end_of(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.ends[last].0)
    }
}

/// A device that leaves splitting and checksums to the other end, as veth does.
pub(crate) struct Line {
    incoming: Frames,
    outgoing: Frames,
    waker: Waker,
    pub(super) sent: u64,
}

impl Line {
    pub(crate) fn new() -> Self {
        let waker = Waker::new().expect("an eventfd");
        Self { incoming: Frames::new(), outgoing: Frames::new(), waker, sent: 0 }
    }

    /// Carries what was sent to the other end, which has taken what it got before.
    pub(crate) fn carry(&mut self, to: &mut Self) {
        if to.incoming.taken < to.incoming.ends.len() {
            return;
        }
        to.incoming.ends.clear();
        to.incoming.taken = 0;
        std::mem::swap(&mut self.outgoing, &mut to.incoming);
    }
}

impl Nic for Line {
    fn wait(&mut self, _deadline: Option<Instant>) -> Result<Wake, LinkError> {
        Ok(Wake::Ready)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        LinkState::Up
    }

    fn counters(&mut self) -> Counters {
        Counters::default()
    }

    fn offloads(&self) -> OffloadCapabilities {
        let gso = NonZeroUsize::new(65_550);
        OffloadCapabilities {
            checksum_tx: true,
            checksum_rx: true,
            gso_tcpv4: gso,
            gso_tcpv6: gso,
            ..OffloadCapabilities::default()
        }
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let frames = &mut self.incoming;
        let (end, meta) = frames.ends.get(frames.taken)?;
        let start = frames.end_of(frames.taken);
        frames.taken += 1;
        Some(f(&frames.memory[start..*end], meta))
    }

    fn transmit_with<R>(
        &mut self,
        _now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        let frames = &mut self.outgoing;
        let start = frames.end_of(frames.ends.len());
        let room = frames.memory.get_mut(start..start + len)?;
        frames.ends.push((start + len, *meta));
        self.sent += 1;
        Some(f(room))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// The stack never asks by tokens.
impl Device for Line {
    type RxToken<'t> = Never;
    type TxToken<'t> = Never;

    fn receive(&mut self, _now: Instant) -> Option<(Never, Never)> {
        None
    }

    fn transmit(&mut self, _now: Instant) -> Option<Never> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A client and a server with connections between them.
pub(super) struct Both {
    pub(super) client: Shard,
    pub(super) server: Shard,
    lines: (Line, Line),
    pub(super) now: Instant,
    /// Of the client, in the order in which they were made.
    pub(super) streams: Vec<SocketId>,
    /// What comes at the server: a listener for each so many connections.
    listeners: Vec<SocketId>,
    /// What is left of a turn's time that is no whole microsecond.
    nanos: u64,
}

impl Both {
    /// So many connections, whose application is told of nothing yet.
    pub(super) fn new(connections: usize) -> Self {
        let now = crate::device::start();
        let shard = |mac, ip: IpAddr| {
            let mut config = ShardConfig::new(mac);
            config = config.address(parse_cidr(&format!("{ip}/12")).expect("an address"));
            config.neighbor.probes = AddressProbes::None;
            config.seed = 1;
            config.sockets_max = 2 * connections + 64;
            config.tcp.connections_max = connections + 64;
            Shard::new(config, now).expect("a shard")
        };
        let (server_ip, client_ip) = frames::hosts(false);
        let server = shard(frames::OUR_MAC, server_ip);
        let client = shard(EthernetAddress(frames::PEER_MAC.0), client_ip);
        let (lines, listeners) = ((Line::new(), Line::new()), Vec::new());
        let mut both = Self { client, server, lines, now, streams: Vec::new(), listeners, nanos: 0 };
        for port in 0..connections.div_ceil(PER_PORT) {
            let at = SocketAddr::new(server_ip, FIRST_PORT + port as u16);
            both.listeners.push(both.server.tcp_listen(TcpListen::new(at)).expect("a port"));
        }
        while both.streams.len() < connections {
            for _ in 0..64.min(connections - both.streams.len()) {
                let port = FIRST_PORT + (both.streams.len() / PER_PORT) as u16;
                let to = TcpConnect::new(SocketAddr::new(server_ip, port));
                both.streams.push(both.client.tcp_connect(to).expect("there is a way"));
            }
            both.settle();
        }
        both
    }

    /// Turns until there is nothing more to be said.
    pub(super) fn settle(&mut self) {
        for _ in 0..8 {
            self.turn(&mut |_| {}, &mut |_| {});
        }
        self.accept();
        while self.client.next_event().is_some() {}
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            while self.server.tcp_accept(*listener).is_some() {}
        }
        while self.server.next_event().is_some() {}
    }

    /// A turn of the client, then one of the server.
    pub(super) fn turn(&mut self, client: &mut dyn FnMut(&mut Shard), server: &mut dyn FnMut(&mut Shard)) {
        // Everybody's turn comes as often however many there are, or some would wait so long that timers fire.
        self.nanos += (ROUND_NANOS / self.streams.len().max(1) as u64).min(TURN_NANOS);
        self.now += Duration::from_micros(self.nanos / 1_000);
        self.nanos %= 1_000;
        self.client.turn(self.now, &mut self.lines.0, client);
        self.lines.0.carry(&mut self.lines.1);
        self.server.turn(self.now, &mut self.lines.1, server);
        self.lines.1.carry(&mut self.lines.0);
    }

    /// Frames that both have sent.
    pub(super) fn frames(&self) -> u64 {
        self.lines.0.sent + self.lines.1.sent
    }
}

const FIRST_PORT: u16 = 1_000;
/// Connections for each port of the server: a client has some 28 000 ports, which are searched at random.
const PER_PORT: usize = 10_000;
/// Between two turns, and until everybody has had one.
const TURN_NANOS: u64 = 5_000;
const ROUND_NANOS: u64 = 10_000_000;
const MEMORY_BYTES: usize = 8 << 20;
