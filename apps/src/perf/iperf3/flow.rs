//! The streams of a test, and the tasks that move their bytes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use smoltcp::time::{Duration, Instant};

use super::pacing::Pacer;
use super::params::Params;
use super::results::{Results, StreamResult};
use super::udp::{Header, Received, header_len};
use crate::error::AppError;
use crate::perf::figures::Cpu;
use crate::perf::group::Group;
use crate::perf::io::{CHUNK_BYTES, Shared, Sink, Source, Turns, write_some};
use crate::perf::server::Count;
use crate::sockets::{Sockets, StreamInfo};

/// A stream in one direction.
pub(super) struct Flow<S: Sockets> {
    /// As both ends name it.
    pub(super) id: u32,
    /// Whether we send.
    pub(super) is_sender: bool,
    /// Our end.
    pub(super) local: SocketAddr,
    /// The other end.
    pub(super) remote: SocketAddr,
    path: Path<S>,
    bytes: Cell<u64>,
    /// Datagrams sent.
    packets: Cell<u64>,
    received: Cell<Received>,
    /// What does not count, since it was at the beginning.
    omitted: Cell<Figures>,
}

/// What the bytes of a flow move on.
pub(super) enum Path<S: Sockets> {
    /// A connection.
    Tcp(Shared<S::Stream>),
    /// A socket for this flow alone.
    Connected(Rc<S::Udp>),
    /// One socket for all flows.
    Common(Rc<S::Udp>),
}

/// What was counted of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Figures {
    /// Sent or received.
    pub(super) bytes: u64,
    /// Datagrams sent, or the highest number that came.
    pub(super) packets: u64,
    /// Datagrams lost.
    pub(super) lost: u64,
    /// Datagrams behind one with a higher number.
    pub(super) out_of_order: u64,
    /// Seconds.
    pub(super) jitter: f64,
    /// Segments sent again, if that can be told.
    pub(super) retransmits: Option<u64>,
    /// How the connection does.
    pub(super) info: Option<StreamInfo>,
}

impl Figures {
    /// What was counted after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            packets: self.packets.saturating_sub(earlier.packets),
            lost: self.lost.saturating_sub(earlier.lost),
            out_of_order: self.out_of_order.saturating_sub(earlier.out_of_order),
            retransmits: self.retransmits.map(|count| count.saturating_sub(earlier.retransmits.unwrap_or(0))),
            ..*self
        }
    }
}

/// A test that is under way. Clones are the same.
pub(super) struct Test<S: Sockets> {
    pub(super) sockets: S,
    pub(super) params: Rc<Params>,
    pub(super) group: Group,
    flows: Rc<RefCell<Vec<Rc<Flow<S>>>>>,
    sink: Sink,
    source: Source,
    /// All bytes, sent and received, and all writes: for tests that end with a number of them.
    moved: Rc<[Cell<u64>; 3]>,
    cpu: Cpu,
}

impl<S: Sockets> Clone for Test<S> {
    fn clone(&self) -> Self {
        Self {
            sockets: self.sockets.clone(),
            params: Rc::clone(&self.params),
            group: self.group.clone(),
            flows: Rc::clone(&self.flows),
            sink: self.sink.clone(),
            source: self.source.clone(),
            moved: Rc::clone(&self.moved),
            cpu: self.cpu,
        }
    }
}

impl<S: Sockets> Test<S> {
    /// No flows yet.
    pub(super) fn new(sockets: S, params: Params) -> Self {
        Self {
            sockets,
            group: Group::default(),
            flows: Rc::default(),
            sink: Sink::new(),
            source: Source::new(params.len as usize),
            params: Rc::new(params),
            moved: Rc::default(),
            cpu: Cpu::now(),
        }
    }

    /// One more.
    pub(super) fn add(&self, path: Path<S>, is_sender: bool, ends: (SocketAddr, SocketAddr)) {
        let mut flows = self.flows.borrow_mut();
        // 1, 3, 4, 5: so iperf3 counts.
        let id = if flows.is_empty() { 1 } else { flows.len() as u32 + 2 };
        let flow = Flow {
            id,
            is_sender,
            local: ends.0,
            remote: ends.1,
            path,
            bytes: Cell::new(0),
            packets: Cell::new(0),
            received: Cell::default(),
            omitted: Cell::default(),
        };
        flows.push(Rc::new(flow));
    }

    /// All of them.
    pub(super) fn flows(&self) -> Vec<Rc<Flow<S>>> {
        self.flows.borrow().clone()
    }

    /// Lets the bytes flow. `has_limits`: bytes and writes are counted here, and end the test.
    pub(super) fn start(&self, has_limits: bool) {
        let mut common = None;
        for flow in self.flows() {
            let test = self.clone();
            match (&flow.path, flow.is_sender) {
                (Path::Tcp(stream), true) => {
                    let stream = stream.clone();
                    self.spawn(&flow.clone(), async move { test.send(&flow, stream, has_limits).await });
                }
                (Path::Tcp(stream), false) => {
                    let stream = stream.clone();
                    self.spawn(&flow.clone(), async move { test.receive(&flow, stream, has_limits).await });
                }
                (Path::Connected(_) | Path::Common(_), true) => {
                    self.spawn(&flow.clone(), async move { test.send_datagrams(&flow, has_limits).await });
                }
                (Path::Connected(socket), false) => {
                    let socket = Rc::clone(socket);
                    self.spawn(&flow.clone(), async move {
                        test.receive_datagrams(&flow, &socket, has_limits).await
                    });
                }
                (Path::Common(socket), false) => common = Some((Rc::clone(socket), flow)),
            }
        }
        if let Some((socket, flow)) = common {
            let test = self.clone();
            self.spawn(&flow, async move { test.receive_common(&socket, has_limits).await });
        }
    }

    fn spawn(&self, flow: &Flow<S>, task: impl Future<Output = io::Result<()>> + 'static) {
        let (id, remote) = (flow.id, flow.remote);
        let group = self.group.clone();
        self.group.spawn(&self.sockets, async move {
            match task.await {
                // Whoever was told of the end first may close first.
                Err(error) if !group.is_stopped() => {
                    Err(AppError::running(format_args!("stream {id} with {remote}: {error}")))
                }
                _ => Ok(()),
            }
        });
    }

    /// So much was moved; it may be all that was wanted.
    fn moved(&self, flow: &Flow<S>, bytes: usize, has_limits: bool) {
        flow.bytes.add(bytes as u64);
        let [received, sent, writes] = &*self.moved;
        let of_direction = if flow.is_sender { sent } else { received };
        of_direction.add(bytes as u64);
        if flow.is_sender {
            writes.add(1);
        }
        let Params { bytes, blocks, len, .. } = *self.params;
        // What comes is in pieces of its own: its writes are counted by their length.
        let enough = if bytes > 0 { bytes } else { blocks.saturating_mul(len.into()) };
        if has_limits && enough > 0 && of_direction.get() >= enough {
            self.group.stop();
        }
    }

    async fn send(&self, flow: &Flow<S>, mut stream: Shared<S::Stream>, has_limits: bool) -> io::Result<()> {
        let group = &self.group;
        let mut pacer = Pacer::new(self.params.bandwidth, self.sockets.now());
        let mut turns = Turns::default();
        while !group.is_stopped() {
            if self.pause(&pacer).await {
                continue;
            }
            let writing = pin!(write_some(&mut stream, self.source.bytes()));
            if let Either::Left((count, _)) = select(writing, pin!(group.stopped())).await {
                let count = count?;
                self.moved(flow, count, has_limits);
                pacer.wrote(count, self.sockets.now());
            }
            turns.take().await;
        }
        Ok(())
    }

    /// Waits until a write is due. False: it is due now.
    async fn pause(&self, pacer: &Pacer) -> bool {
        if self.params.bandwidth == 0 {
            return false;
        }
        let Some(next) = pacer.wait(self.sockets.now()) else { return false };
        select(pin!(self.sockets.sleep_until(next)), pin!(self.group.stopped())).await;
        true
    }

    async fn receive(
        &self,
        flow: &Flow<S>,
        mut stream: Shared<S::Stream>,
        has_limits: bool,
    ) -> io::Result<()> {
        let mut turns = Turns::default();
        loop {
            turns.take().await;
            let count = self.sink.read(&mut stream, CHUNK_BYTES, |_| {}).await?;
            if count == 0 {
                return Ok(());
            }
            // What comes when the time is over is read, lest the sender should wait, but is not of it.
            if !self.group.is_stopped() {
                self.moved(flow, count, has_limits);
            }
        }
    }

    async fn send_datagrams(&self, flow: &Flow<S>, has_limits: bool) -> io::Result<()> {
        let group = &self.group;
        let mut payload = self.source.bytes().to_vec();
        let mut pacer = Pacer::new(self.params.bandwidth, self.sockets.now());
        let mut number = 0_u64;
        let mut turns = Turns::default();
        while !group.is_stopped() {
            if self.pause(&pacer).await {
                continue;
            }
            let now = self.sockets.now();
            let sent_micros = u64::try_from(now.total_micros()).unwrap_or(0);
            let header = Header { sent_micros, number: number + 1 };
            header.write(self.params.counters_64bit, &mut payload);
            let sending = pin!(self.send_datagram(flow, &payload));
            let Either::Left((result, _)) = select(sending, pin!(group.stopped())).await else { break };
            match result {
                Ok(()) => {
                    number += 1;
                    flow.packets.add(1);
                    self.moved(flow, payload.len(), has_limits);
                    pacer.wrote(payload.len(), now);
                }
                // No memory for it now.
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory || is_no_buffers(&error) => {
                    self.sockets.sleep_until(now + RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
            turns.take().await;
        }
        Ok(())
    }

    async fn send_datagram(&self, flow: &Flow<S>, payload: &[u8]) -> io::Result<()> {
        match &flow.path {
            Path::Connected(socket) => self.sockets.udp_send(socket, payload).await.map(drop),
            Path::Common(socket) => self.sockets.udp_send_to(socket, payload, flow.remote).await.map(drop),
            Path::Tcp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn receive_datagrams(&self, flow: &Flow<S>, socket: &S::Udp, has_limits: bool) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut turns = Turns::default();
        loop {
            turns.take().await;
            let len = self.sockets.udp_recv(socket, &mut buffer).await?;
            self.note(flow, &buffer[..len], has_limits);
        }
    }

    /// Datagrams of all flows; those of strangers are nobody's.
    async fn receive_common(&self, socket: &S::Udp, has_limits: bool) -> io::Result<()> {
        let mut flows = self.flows();
        flows.retain(|flow| !flow.is_sender);
        let flows: HashMap<_, _> = flows.into_iter().map(|flow| (flow.remote, flow)).collect();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut turns = Turns::default();
        loop {
            turns.take().await;
            let (len, peer) = self.sockets.udp_recv_from(socket, &mut buffer).await?;
            if let Some(flow) = flows.get(&peer) {
                self.note(flow, &buffer[..len], has_limits);
            }
        }
    }

    /// A datagram came; it may be a late greeting.
    fn note(&self, flow: &Flow<S>, payload: &[u8], has_limits: bool) {
        if self.group.is_stopped() || payload.len() < header_len(self.params.counters_64bit) {
            return;
        }
        let Some(header) = Header::parse(self.params.counters_64bit, payload) else { return };
        let mut received = flow.received.get();
        received.note(header, self.sockets.now());
        flow.received.set(received);
        self.moved(flow, payload.len(), has_limits);
    }

    /// What was counted of a flow since the beginning that counts.
    pub(super) fn figures(&self, flow: &Flow<S>) -> Figures {
        self.all_figures(flow).since(&flow.omitted.get())
    }

    fn all_figures(&self, flow: &Flow<S>) -> Figures {
        let received = flow.received.get();
        let info = match &flow.path {
            Path::Tcp(stream) if flow.is_sender => stream.with(|stream| self.sockets.tcp_info(stream)),
            _ => None,
        };
        Figures {
            bytes: flow.bytes.get(),
            packets: if flow.is_sender { flow.packets.get() } else { received.highest },
            lost: received.lost,
            out_of_order: received.out_of_order,
            jitter: received.jitter,
            retransmits: info.map(|info| info.retransmits),
            info,
        }
    }

    /// The beginning is over: from now on it counts.
    pub(super) fn end_omitted(&self) {
        for flow in self.flows() {
            flow.omitted.set(self.all_figures(&flow));
            let mut received = flow.received.get();
            received.jitter = 0.0;
            flow.received.set(received);
        }
        // A number of bytes is one of bytes that count.
        for moved in &*self.moved {
            moved.set(0);
        }
    }

    /// What we tell the other end.
    pub(super) fn results(&self, seconds: f64) -> Results {
        let cpu = Cpu::now().since(self.cpu);
        let percent = |used: f64| if seconds > 0.0 { used / seconds * 100.0 } else { 0.0 };
        let flows = self.flows();
        let stream = |flow: &Rc<Flow<S>>| {
            let (all, omitted) = (self.all_figures(flow), flow.omitted.get());
            let counted = all.since(&omitted);
            StreamResult {
                id: flow.id,
                bytes: counted.bytes,
                retransmits: counted.retransmits,
                jitter: all.jitter,
                errors: all.lost,
                omitted_errors: omitted.lost,
                packets: all.packets,
                omitted_packets: omitted.packets,
                end_time: seconds,
            }
        };
        let streams: Vec<_> = flows.iter().map(stream).collect();
        let is_sender = flows.iter().any(|flow| flow.is_sender) && !self.params.udp;
        Results {
            cpu_percent: [percent(cpu.total()), percent(cpu.user), percent(cpu.system)],
            has_retransmits: is_sender.then(|| streams.iter().any(|stream| stream.retransmits.is_some())),
            congestion: self.params.congestion.clone(),
            streams,
        }
    }

    /// CPU time of this process since the beginning.
    pub(super) fn cpu(&self) -> Cpu {
        Cpu::now().since(self.cpu)
    }

    /// Whether the beginning that does not count lasts until after `now`.
    pub(super) fn omits_until(&self, begin: Instant) -> Instant {
        begin + Duration::from_secs(self.params.omit.into())
    }
}

/// The queue of the interface is full (ENOBUFS), which std has no kind for.
fn is_no_buffers(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32)
}

/// After the queue of the interface was full.
const RETRY_PAUSE: Duration = Duration::from_millis(1);
/// The longest that can come.
const DATAGRAM_BYTES_MAX: usize = 65_536;
