//! Serial lines: IP packets over bytes, to a device at the other end of a cable, as an ordinary user.
//!
//! ```text
//!   stack ──▶ TxQueue (fair, bounded) ──▶ Framing ──▶ pace ──▶ Port: tty, pty, socket, program, stdin/stdout
//!   stack ◀── Framing ◀── bytes ◀────────────────────────────────┘
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `spec` | what a person writes: `/dev/ttyUSB0@115200,framing=cslip` |
//! | `framing` | packets as bytes: the trait; `slip`, `cslip` are two, `crc` a check that SLIP has not |
//! | `queue` | what waits for the line, the small before the bulk |
//! | `pace` | how far the port may be ahead of the line |
//! | `port` | where bytes go, and how it is opened again |
//! | `figures`, `watch` | what a person sees of it |
//!
//! A port that is lost (an adapter that was pulled out, a peer that has ended) makes the link go down, and is opened
//! again as soon as it is there; connections live on meanwhile. What waited for the line then is thrown away: TCP knows
//! better what to send.

mod crc;
pub mod cslip;
mod figures;
pub mod framing;
mod pace;
pub mod port;
mod queue;
pub mod slip;
pub mod spec;
mod watch;

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::poll::PollFlags;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};

use crate::meta::{ChecksumState, FrameMeta, OffloadCapabilities};
use crate::offload::checksum;
use crate::offload::segment::Segments;
use crate::received;
use crate::wait::{self, Wake, Waker};
use crate::{Counters, LinkError, LinkState, Nic};

pub use figures::{LineFigures, LineSnapshot};
pub use queue::{QueueConfig, TxQueue};
pub use spec::SerialSpec;

use figures::add;
use framing::{Decoded, FrameError, Framing};
use pace::Pace;
use port::{Opening, Port};
use watch::Watch;

/// How a [`Serial`] device is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialConfig {
    /// How the device is called in messages.
    pub name: String,
    /// Bytes of an IP packet that is sent, at most; 68 to 65535.
    pub mtu: u16,
    /// The rate of the line, with ten bits for a byte. `None`: as fast as the port takes bytes.
    pub baud: Option<NonZeroU32>,
}

impl SerialConfig {
    /// Bytes of a packet that is taken from the line: of a peer with a larger MTU, packets come and are told of.
    pub fn packet_max(&self) -> usize {
        usize::from(self.mtu).max(PACKET_MAX_MIN)
    }

    /// Bounds of the queue: two packets of bulk, so that the line never waits for the stack; more on a line without a
    /// rate, so that a turn has something to do.
    pub fn queue(&self) -> QueueConfig {
        let mtu = usize::from(self.mtu);
        let bulk_bytes_max = match self.baud {
            Some(_) => 2 * mtu,
            None => (2 * mtu).max(FAST_QUEUE_BYTES),
        };
        QueueConfig {
            bulk_bytes_max,
            bytes_max: bulk_bytes_max + SMALL_BYTES,
            small_max: SMALL_MAX.min(mtu / 2),
            quantum: mtu,
        }
    }
}

/// A device of IP packets over a line of bytes.
pub struct Serial<P: Port> {
    port: P,
    state: State,
    inbox: Inbox,
    queue: TxQueue,
    framing: Box<dyn Framing>,
    /// Frames on their way to the port, and how much of them is there.
    wire: Vec<u8>,
    written: usize,
    pace: Pace,
    /// The port had no room at the last try.
    is_blocked: bool,
    /// A packet was refused for want of room.
    is_starved: bool,
    /// The port has come back, and nobody has been told yet.
    is_back: bool,
    config: SerialConfig,
    watch: Watch,
    figures: Arc<LineFigures>,
    rx_counters: Counters,
    tx_counters: Counters,
    waker: Waker,
    now: Instant,
    opened_at: Instant,
    /// How long a port is left alone after it was lost.
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Somebody has to answer; it is asked again then, and at this time.
    Opening(Instant),
    /// Not there; it is looked for at this time.
    Lost(Instant),
    /// It ended, and does not come back.
    Ended,
}

/// What was read and not decoded yet, and a packet that is lent by a token.
#[derive(Debug)]
struct Inbox {
    bytes: Box<[u8]>,
    range: Range<usize>,
    packet: Vec<u8>,
}

impl<P: Port> fmt::Debug for Serial<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, state, config, framing, queue, .. } = self;
        f.debug_struct("Serial")
            .field("port", port)
            .field("state", state)
            .field("config", config)
            .field("framing", framing)
            .field("queued", &queue.bytes())
            .finish_non_exhaustive()
    }
}

impl<P: Port> Serial<P> {
    /// A device on a port that is opened here, and again whenever it was lost.
    ///
    /// # Errors
    /// The port is not to be had: a person should be told. No file descriptor is left.
    pub fn new(config: SerialConfig, port: P, framing: Box<dyn Framing>, now: Instant) -> io::Result<Self> {
        let mut serial = Self {
            state: State::Lost(now),
            inbox: Inbox { bytes: vec![0; READ_BYTES].into(), range: 0..0, packet: Vec::new() },
            queue: TxQueue::new(config.queue()),
            framing,
            wire: Vec::new(),
            written: 0,
            pace: Pace::new(config.baud),
            is_blocked: false,
            is_starved: false,
            is_back: false,
            watch: Watch::new(&config.name, config.mtu.into(), config.packet_max()),
            figures: Arc::default(),
            rx_counters: Counters::default(),
            tx_counters: Counters::default(),
            waker: Waker::new()?,
            now,
            opened_at: now,
            pause: RETRY_INTERVAL,
            port,
            config,
        };
        serial.begin(now)?;
        Ok(serial)
    }

    /// What the line has done, to be watched from another thread.
    pub fn figures(&self) -> Arc<LineFigures> {
        Arc::clone(&self.figures)
    }

    /// How it is set.
    pub fn config(&self) -> &SerialConfig {
        &self.config
    }

    /// When the device itself wants to do something: send on, look for a port that was lost. [`Nic::wait`] sees to it;
    /// who does not wait (a simulator) calls [`Nic::flush`] then, after a turn.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Open if self.has_output() && !self.is_blocked => self.pace.next(self.now),
            State::Open | State::Ended => None,
            State::Opening(at) | State::Lost(at) => Some(at),
        }
    }

    /// Whether a packet was refused and there is room now: a turn of the stack is worth while. Told once; it ends a
    /// [`Nic::wait`].
    pub fn wants_turn(&mut self) -> bool {
        let is_open = self.state == State::Open && self.framing.is_open();
        let has_room = self.is_starved && is_open && self.queue.has_room_for_any();
        self.is_starved &= !has_room;
        has_room
    }

    fn has_output(&self) -> bool {
        self.written < self.wire.len() || !self.queue.is_empty()
    }

    /// Tries to open the port.
    fn begin(&mut self, now: Instant) -> io::Result<()> {
        let opened = self.port.open();
        self.state = match opened {
            Ok(Opening::Done) => State::Open,
            Ok(Opening::InProgress) => State::Opening(now + RETRY_INTERVAL),
            Err(_) => State::Lost(now + RETRY_INTERVAL),
        };
        self.figures.is_up.store(self.state == State::Open, Ordering::Relaxed);
        if self.state == State::Open {
            self.pace = Pace::new(self.config.baud);
            self.framing.reset();
            self.opened_at = now;
        }
        opened.map(drop)
    }

    /// Waits for the answer of whoever was asked when this was made, so that a person who has got it wrong is told at once.
    ///
    /// # Errors
    /// The answer is no. Without any in that time it goes on to ask.
    pub fn wait_for_answer(&mut self, time: Duration) -> io::Result<()> {
        let until = wait::now() + time;
        while matches!(self.state, State::Opening(_)) && wait::now() < until {
            self.sleep(Some(until));
            self.begin(wait::now())?;
        }
        Ok(())
    }

    /// Looks for a port that is not open, if it is time.
    fn look_for_port(&mut self, now: Instant) {
        match self.state {
            State::Open | State::Ended => return,
            State::Lost(at) if now < at => return,
            // Its descriptors may be ready before the time: asking costs little.
            State::Opening(_) | State::Lost(_) => {}
        }
        match self.begin(now) {
            Ok(()) if self.state == State::Open => {
                self.is_back = true;
                self.watch.reset();
                self.watch.tell(now, &"the port is there");
            }
            Ok(()) => {}
            Err(error) => self.watch.tell(now, &format_args!("{error}; it is tried again")),
        }
    }

    /// The port is not there any more.
    fn lose(&mut self, why: &io::Error) {
        self.port.close();
        self.inbox.range = 0..0;
        self.inbox.packet.clear();
        self.wire.clear();
        self.written = 0;
        self.queue.clear();
        self.is_blocked = false;
        self.is_back = false;
        self.rx_counters.line_losses += 1;
        add(&self.figures.losses, 1);
        self.figures.is_up.store(false, Ordering::Relaxed);
        self.figures.queue_bytes.store(0, Ordering::Relaxed);
        if self.port.comes_back() {
            // A program that ends as soon as it is started is not started for ever as fast as that goes.
            let is_stable = self.now >= self.opened_at + STABLE_TIME;
            self.pause = if is_stable { RETRY_INTERVAL } else { (self.pause * 2).min(RETRY_INTERVAL_MAX) };
            self.watch.tell(self.now, &format_args!("the port is lost: {why}; it is looked for"));
            self.state = State::Lost(self.now + self.pause);
        } else {
            log::info!("{}: {why}", self.config.name);
            self.state = State::Ended;
        }
    }

    /// Reads once if nothing is left. Says whether there are bytes.
    fn refill(&mut self) -> bool {
        if !self.inbox.range.is_empty() {
            return true;
        }
        if self.state != State::Open {
            return false;
        }
        match self.port.read(&mut self.inbox.bytes) {
            Ok(0) => {
                self.lose(&io::Error::other("the other side has ended"));
                false
            }
            Ok(len) => {
                self.inbox.range = 0..len.min(self.inbox.bytes.len());
                add(&self.figures.rx_bytes, len);
                true
            }
            Err(error) if is_transient(&error) => false,
            Err(error) => {
                self.lose(&error);
                false
            }
        }
    }

    /// Decodes on to the next packet and lends it. `None`: there is none.
    fn receive_packet<R>(&mut self, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        for _ in 0..READS_MAX {
            while !self.inbox.range.is_empty() {
                let input = &self.inbox.bytes[self.inbox.range.clone()];
                let (taken, decoded) = self.framing.decode(input);
                // A framing that took nothing would be asked for ever.
                self.inbox.range.start += taken.clamp(1, input.len());
                match decoded {
                    Decoded::Nothing => {}
                    Decoded::Garbage(error, len) => {
                        note_garbage(&mut self.rx_counters, error);
                        add(&self.figures.rx_errors, 1);
                        add(&self.figures.rx_garbage_bytes, len);
                        self.watch.garbage(error, len);
                    }
                    Decoded::Packet(packet) => {
                        self.watch.packet(packet.len());
                        add(&self.figures.rx_packets, 1);
                        add(&self.figures.rx_packet_bytes, packet.len());
                        let mut meta = FrameMeta::default();
                        if received::verify(Medium::Ip, packet, &mut meta, &mut self.rx_counters) {
                            self.rx_counters.rx_frames += 1;
                            self.rx_counters.rx_bytes += packet.len() as u64;
                            return Some(f(packet, &meta));
                        }
                    }
                }
            }
            if !self.refill() {
                return None;
            }
        }
        None
    }

    /// Whether a packet of `len` bytes can be queued now.
    fn make_room(&mut self, len: usize) -> bool {
        let is_open = self.state == State::Open && self.framing.is_open();
        let has_room = is_open && self.queue.has_room(len);
        if !has_room {
            self.tx_counters.tx_ring_full += 1;
            self.is_starved = true;
        }
        has_room
    }

    fn push<R>(&mut self, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        if len > usize::from(self.config.mtu) {
            self.tx_counters.tx_oversize += 1;
            return f(&mut vec![0; len]);
        }
        self.tx_counters.tx_frames += 1;
        self.tx_counters.tx_bytes += len as u64;
        self.queue.push(len, f)
    }

    /// Hands the port what it and the line take.
    fn pump(&mut self) {
        if self.state != State::Open {
            return;
        }
        self.is_blocked = false;
        while self.fill_wire() {
            let room = self.pace.room(self.now, self.port.unsent());
            let left = &self.wire[self.written..];
            let piece = &left[..room.min(left.len())];
            if piece.is_empty() {
                break;
            }
            match self.port.write(piece) {
                Ok(len) => {
                    self.written += len.min(piece.len());
                    self.pace.sent(self.now, len);
                    self.tx_counters.tx_kicks += 1;
                    add(&self.figures.tx_bytes, len);
                    // A port that takes nothing is asked when it says that it would.
                    self.is_blocked = len == 0;
                }
                Err(error) if is_transient(&error) => self.is_blocked = true,
                Err(error) => return self.lose(&error),
            }
            if self.is_blocked {
                break;
            }
        }
        self.figures.queue_bytes.store(self.queue.bytes() as u64, Ordering::Relaxed);
    }

    /// Frames what is next, if nothing is on its way. On a line with a rate that is one packet: what comes before it
    /// begins may still pass. Says whether there are bytes.
    fn fill_wire(&mut self) -> bool {
        if self.written < self.wire.len() {
            return true;
        }
        self.wire.clear();
        self.written = 0;
        self.framing.poll_control(&mut self.wire);
        while self.wire.is_empty() || !self.pace.is_limited() && self.wire.len() < WRITE_BYTES {
            let Self { queue, framing, wire, figures, .. } = self;
            let framed = queue.pop(|packet| {
                framing.encode(packet, wire);
                add(&figures.tx_packets, 1);
                add(&figures.tx_packet_bytes, packet.len());
            });
            if framed.is_none() {
                break;
            }
        }
        !self.wire.is_empty()
    }

    /// Sleeps until the port, the clock or somebody else has something for us.
    fn sleep(&self, until: Option<Instant>) -> Wake {
        let [input, output] = self.port.descriptors();
        let mut sockets = [None, None];
        let is_same = matches!((&input, &output), (Some(a), Some(b)) if std::os::fd::AsRawFd::as_raw_fd(a) == std::os::fd::AsRawFd::as_raw_fd(b));
        let wants_room = self.is_blocked || matches!(self.state, State::Opening(_));
        let room = if wants_room { PollFlags::POLLOUT } else { PollFlags::empty() };
        if let Some(input) = input {
            let both = if is_same { PollFlags::POLLIN | room } else { PollFlags::POLLIN };
            sockets[0] = Some((input, both));
        }
        if let Some(output) = output.filter(|_| wants_room && !is_same) {
            sockets[1] = Some((output, room));
        }
        match sockets {
            [Some(a), Some(b)] => wait::sleep_on_two([a, b], &self.waker, until).1,
            [one, other] => wait::sleep(one.or(other), &self.waker, until).1,
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn note_garbage(counters: &mut Counters, error: FrameError) {
    match error {
        FrameError::Tossed => counters.line_tossed += 1,
        _ => counters.line_errors += 1,
    }
}

impl<P: Port> Device for Serial<P> {
    type RxToken<'t>
        = PacketIn<'t>
    where
        Self: 't;
    type TxToken<'t>
        = PacketOut<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(PacketIn<'_>, PacketOut<'_>)> {
        self.now = self.now.max(now);
        if !self.make_room(self.config.mtu.into()) {
            return None;
        }
        let mut packet = std::mem::take(&mut self.inbox.packet);
        let found = self.receive_packet(|bytes, _| {
            packet.clear();
            packet.extend_from_slice(bytes);
        });
        self.inbox.packet = packet;
        found?;
        let mtu = usize::from(self.config.mtu);
        let out = PacketOut { queue: &mut self.queue, counters: &mut self.tx_counters, mtu };
        Some((PacketIn(&self.inbox.packet), out))
    }

    fn transmit(&mut self, now: Instant) -> Option<PacketOut<'_>> {
        self.now = self.now.max(now);
        let mtu = usize::from(self.config.mtu);
        let has_room = self.make_room(mtu);
        has_room.then_some(PacketOut { queue: &mut self.queue, counters: &mut self.tx_counters, mtu })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.config.mtu.into();
        capabilities.checksum = received::checksums(false);
        capabilities
    }
}

/// One received packet.
#[derive(Debug)]
pub struct PacketIn<'t>(&'t [u8]);

impl RxToken for PacketIn<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for one packet.
#[derive(Debug)]
pub struct PacketOut<'t> {
    queue: &'t mut TxQueue,
    counters: &'t mut Counters,
    mtu: usize,
}

impl TxToken for PacketOut<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        if len > self.mtu {
            self.counters.tx_oversize += 1;
            return f(&mut vec![0; len]);
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
        self.queue.push(len, f)
    }
}

impl<P: Port> Nic for Serial<P> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        self.now = self.now.max(wait::now());
        self.look_for_port(self.now);
        self.pump();
        match self.state {
            State::Ended => return Err(LinkError::Gone),
            State::Opening(at) | State::Lost(at) => {
                self.sleep(Some(at.min(self.now + DOWN_NAP)));
                return Err(LinkError::Down);
            }
            State::Open => {}
        }
        // Who has heard that the link is down has something to send now, and does not know.
        if std::mem::take(&mut self.is_back) || self.wants_turn() || !self.inbox.range.is_empty() {
            return Ok(Wake::Ready);
        }
        // What is due and was refused is due until there is room.
        let deadline = deadline.map(|at| if self.is_starved { at.max(self.now + STARVED_NAP) } else { at });
        let until = [deadline, self.next_deadline()].into_iter().flatten().min();
        let wake = self.sleep(until);
        self.now = self.now.max(wait::now());
        self.pump();
        Ok(wake)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.look_for_port(self.now);
        self.pump();
        match self.state {
            State::Open => Ok(()),
            State::Opening(_) | State::Lost(_) => Err(LinkError::Down),
            State::Ended => Err(LinkError::Gone),
        }
    }

    fn link_state(&mut self) -> LinkState {
        match self.state {
            State::Open => LinkState::Up,
            State::Opening(_) | State::Lost(_) => LinkState::Down,
            State::Ended => LinkState::Gone,
        }
    }

    fn counters(&mut self) -> Counters {
        let line = self.figures.snapshot();
        Counters {
            line_rx_bytes: line.rx_bytes,
            line_tx_bytes: line.tx_bytes,
            line_garbage_bytes: line.rx_garbage_bytes,
            ..self.rx_counters + self.tx_counters
        }
    }

    fn offloads(&self) -> OffloadCapabilities {
        OffloadCapabilities { checksum_rx: true, ..OffloadCapabilities::default() }
    }

    fn express_len(&self) -> usize {
        self.queue.small_max()
    }

    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        self.now = self.now.max(now);
        self.receive_packet(f)
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        self.now = self.now.max(now);
        if !self.make_room(len.min(self.config.mtu.into())) {
            return None;
        }
        if meta.gso.is_some() {
            return Some(self.push_segments(len, meta, f));
        }
        let checksum = meta.checksum;
        Some(self.push(len, |room| {
            let result = f(room);
            if let ChecksumState::Partial { start, offset } = checksum {
                checksum::complete(room, start, offset);
            }
            result
        }))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl<P: Port> Serial<P> {
    /// Splits what another device would have split. What finds no room behind the first piece is lost, as in a full
    /// queue.
    fn push_segments<R>(&mut self, len: usize, meta: &FrameMeta, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        let segments = Segments::of(Medium::Ip, &packet, meta, None);
        self.tx_counters.tx_segmented += u64::from(segments.count() > 1);
        for index in 0..segments.count() {
            let len = segments.frame_len(index);
            if !self.make_room(len) {
                self.tx_counters.tx_segments_lost += (segments.count() - index) as u64;
                break;
            }
            self.push(len, |room| segments.write(index, room));
        }
        result
    }
}

/// Packets up to this are taken from the line whatever the MTU is.
const PACKET_MAX_MIN: usize = 2_048;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes that are written at once on a line without a rate.
const WRITE_BYTES: usize = 16 << 10;
/// Reads for one packet: who gets garbage only has other things to do as well.
const READS_MAX: usize = 4;
/// What waits for a line without a rate.
const FAST_QUEUE_BYTES: usize = 64 << 10;
/// Bytes of a packet that passes others: headers, and what fits on a line of a terminal.
const SMALL_MAX: usize = 256;
/// Bytes of such packets that wait: a hundred ACKs.
const SMALL_BYTES: usize = 4 << 10;
/// How often a port that was lost is looked for.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The same of one that comes and goes.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(8);
/// A port that was there for so long does not come and go.
const STABLE_TIME: Duration = Duration::from_secs(10);
/// A wait on a link that is down.
const DOWN_NAP: Duration = Duration::from_millis(50);
/// A wait with something due that finds no room.
const STARVED_NAP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
