//! A device that has its load in itself: a client shard that asks over kept-open connections, turned whenever the stack
//! that is measured has had its turn, on the same thread.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant as Clock;

use smoltcp::phy::{Device, DeviceCapabilities};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::demux::Steering;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{Shard, ShardConfig, SocketId, TcpConnect};
use wirestack_nic::{Counters, FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker, wait};

use crate::device::{Never, nanos};
use crate::frames::{self, PAYLOAD_BYTES};
use crate::table::thread_cpu_seconds;
use crate::tcp::Line;

/// What a client has done until now.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Answers that came.
    pub(crate) answers: AtomicU64,
    /// Time that the client itself has taken, in nanoseconds.
    pub(crate) client_nanos: AtomicU64,
    /// CPU time of the thread, the client's included, in nanoseconds.
    pub(crate) thread_nanos: AtomicU64,
    /// It is to end: the link goes.
    pub(crate) ends: AtomicBool,
    /// Nobody listens yet.
    pub(crate) waits: AtomicBool,
}

/// See the module.
pub(crate) struct Loaded {
    near: Line,
    far: Line,
    client: Shard,
    streams: Vec<SocketId>,
    /// Those that have begun.
    asked: HashSet<SocketId>,
    connections: usize,
    answer: [u8; PAYLOAD_BYTES],
    turns: u32,
    waker: Waker,
    pub(crate) done: Arc<Done>,
}

/// Where the stack that is measured is to listen.
pub(crate) fn server() -> SocketAddr {
    SocketAddr::new(frames::hosts(false).0, 7)
}

/// The stack that is measured, all else left as it is.
pub(crate) fn config() -> ShardConfig {
    let mut config = frames::config();
    config.tcp.connections_max = 1_024;
    config
}

impl Loaded {
    /// The device of this shard, with so many connections.
    pub(crate) fn new(shard: usize, steering: Steering, connections: usize) -> Self {
        let (_, ip) = frames::hosts(false);
        let mut config = ShardConfig::new(EthernetAddress(frames::PEER_MAC.0));
        config = config.address(parse_cidr(&format!("{ip}/12")).expect("an address"));
        config.neighbor.probes = AddressProbes::None;
        // The hash is symmetric: what lands here, lands there.
        (config.shard, config.steering, config.seed) = (shard, steering, 1 + shard as u64);
        let client = Shard::new(config, wait::now()).expect("a shard");
        let waker = Waker::new().expect("an eventfd");
        let (near, far) = (Line::new(), Line::new());
        let (streams, asked, answer, done) = (Vec::new(), HashSet::new(), [0; PAYLOAD_BYTES], Arc::default());
        Self { near, far, client, streams, asked, connections, answer, turns: 0, waker, done }
    }

    /// A turn of the client: whoever has got an answer asks again.
    fn turn_client(&mut self) {
        if self.done.ends.load(Ordering::Relaxed) || self.done.waits.load(Ordering::Relaxed) {
            return;
        }
        let start = Clock::now();
        self.near.carry(&mut self.far);
        let Self { client, far, streams, asked, connections, answer, .. } = self;
        while streams.len() < *connections {
            streams.push(client.tcp_connect(TcpConnect::new(server())).expect("there is a way"));
        }
        let mut answers = 0;
        client.turn(wait::now(), far, |client| {
            while let Some(event) = client.next_event() {
                let got = client.tcp_recv(event.socket, answer);
                let is_answer = matches!(got, Ok(Some(PAYLOAD_BYTES)));
                answers += u64::from(is_answer);
                if matches!(got, Ok(Some(0)) | Err(_)) {
                    // The server ends, and the measurement with it.
                    client.close(event.socket);
                    continue;
                }
                if is_answer || client.tcp_readiness(event.socket).connected && asked.insert(event.socket) {
                    let _ = client.tcp_send(event.socket, &[0x55; PAYLOAD_BYTES]);
                }
            }
        });
        self.far.carry(&mut self.near);
        let done = &self.done;
        done.answers.fetch_add(answers, Ordering::Relaxed);
        done.client_nanos.fetch_add(nanos(start) as u64, Ordering::Relaxed);
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(TURNS_PER_LOOK) {
            done.thread_nanos.store((thread_cpu_seconds() * 1e9) as u64, Ordering::Relaxed);
        }
    }
}

impl Nic for Loaded {
    fn wait(&mut self, _deadline: Option<Instant>) -> Result<Wake, LinkError> {
        if self.done.ends.load(Ordering::Relaxed) { Err(LinkError::Gone) } else { Ok(Wake::Ready) }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.turn_client();
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        LinkState::Up
    }

    fn counters(&mut self) -> Counters {
        Counters::default()
    }

    fn offloads(&self) -> OffloadCapabilities {
        self.near.offloads()
    }

    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        self.near.receive_with(now, f)
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        self.near.transmit_with(now, len, meta, f)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// The stack never asks by tokens.
impl Device for Loaded {
    type RxToken<'t> = Never;
    type TxToken<'t> = Never;

    fn receive(&mut self, _now: Instant) -> Option<(Never, Never)> {
        None
    }

    fn transmit(&mut self, _now: Instant) -> Option<Never> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.near.capabilities()
    }
}

/// How often the CPU time is looked at, which is a system call.
const TURNS_PER_LOOK: u32 = 1_024;
