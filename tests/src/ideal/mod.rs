//! An ideal TCP sender, to hold the real one against: what a controller of congestion can reach on a path when all
//! else is perfect.
//!
//! The model counts segments, not bytes, in virtual time:
//!
//! - **Path**: one direction of data with a rate, a bound of its queue, and loss by chance; it keeps the order. A
//!   segment takes [`WIRE_BYTES`] on the wire for [`MSS`] bytes of data. ACKs take half the round-trip time, are never
//!   lost, and take no room.
//! - **Receiver**: acknowledges every segment, and tells exactly which ones it has (SACK without a bound of blocks).
//!   Its window is the buffer; data is read at once, but what comes early is kept, so that the window counts from the
//!   oldest segment that is missing.
//! - **Sender**: always has data. It finds a loss when something that it sent later has arrived, which on a path that
//!   keeps the order is never wrong (RACK with a reordering window of nothing); so also for what was repeated. When
//!   everything that is in flight is lost, a round-trip time and a half later a probe would have found it (TLP), and it
//!   is taken as lost then: there is no RTO. What is lost is repeated before anything new goes. There is no pacing:
//!   whatever the window allows goes at once.
//! - **Controllers**: [`Control::Window`], the peer's window alone; [`Control::Reno`] (RFC 5681, byte counting);
//!   [`Control::Cubic`] (RFC 9438, with the Reno-friendly region and fast convergence). Initial window of ten segments.
//!   One reduction for all losses of a window. In two things it is kinder than RFCs are, which is what makes it an upper
//!   bound: the reduction is of the window and not of what is in flight, and the window goes on growing while
//!   something is repaired. Without these it reaches 6.4 / 1.63 / 0.81 / 0.57 MB/s instead of 6.9 / 2.09 / 1.18 / 0.87
//!   with CUBIC at 0.1 / 1 / 3 / 5 % loss and 10 ms.
//!
//! `tests/tests/sim/tcp_ideal.rs` holds it against the figures that the targets were taken from.

mod control;

use std::collections::{BTreeSet, VecDeque};

use wirestack::random::Random;

pub use control::Control;
use control::Window;

/// Bytes of data of a segment.
pub const MSS: u64 = 1460;
/// Bytes of a segment with its headers of TCP, IPv4 and Ethernet.
pub const WIRE_BYTES: u64 = MSS + 54;
const NANOS: u64 = 1_000_000_000;

/// A path, a sender and a receiver.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Bits per second of the path.
    pub bits_per_second: u64,
    /// Round-trip time without a queue, in microseconds.
    pub rtt_micros: u64,
    /// Time that a segment may have to wait before the path, in microseconds. `None`: without a bound.
    pub queue_micros: Option<u64>,
    /// Probability that a segment is lost.
    pub loss: f64,
    /// Bytes of the buffer.
    pub window_bytes: u64,
    /// The controller.
    pub control: Control,
    /// Of the losses.
    pub seed: u64,
}

impl Default for Model {
    /// The path of the targets: 10 Gbit/s, 10 ms, 4 MB, CUBIC.
    fn default() -> Self {
        Self {
            bits_per_second: 10_000_000_000,
            rtt_micros: 10_000,
            queue_micros: None,
            loss: 0.0,
            window_bytes: 4 << 20,
            control: Control::Cubic,
            seed: 0,
        }
    }
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// Bytes that the receiver has in order.
    pub delivered_bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Segments sent, repeated ones included.
    pub sent: u64,
    /// Segments lost.
    pub lost: u64,
}

impl Outcome {
    /// Megabytes (10^6) per second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.delivered_bytes as f64 / self.seconds / 1e6
    }
}

impl Model {
    /// Sends for so long.
    pub fn run_for(self, seconds: f64) -> Outcome {
        Run::new(self).run((seconds * NANOS as f64) as u64, u64::MAX)
    }

    /// The mean of as many runs, in megabytes per second.
    pub fn goodput(self, seconds: f64, runs: u64) -> f64 {
        let each = (0..runs).map(|seed| Model { seed, ..self }.run_for(seconds).megabytes_per_second());
        each.sum::<f64>() / runs as f64
    }

    /// Sends so many bytes, and returns how many seconds that takes, a handshake of one round trip included: until the
    /// last byte has arrived.
    pub fn transfer(self, bytes: u64) -> f64 {
        let outcome = Run::new(self).run(u64::MAX, bytes.div_ceil(MSS));
        outcome.seconds + self.rtt_micros as f64 / 1e6
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    InFlight,
    Lost,
    Arrived,
}

/// One transmission of a segment, in the order in which they left.
#[derive(Debug, Clone, Copy)]
struct Transmission {
    segment: u64,
    arrives: bool,
}

struct Run {
    model: Model,
    random: Random,
    window: Window,
    now: u64,
    /// When the path has sent what was given to it.
    busy_until: u64,
    /// ACKs under way: when they come, and of which transmission.
    acks: VecDeque<(u64, u64)>,
    /// Transmissions that are neither acknowledged nor known to be lost, oldest first; the number of the first one.
    transmissions: VecDeque<Transmission>,
    first: u64,
    /// What is not done from the oldest on, with the number of its last transmission.
    board: VecDeque<(State, u64)>,
    una: u64,
    to_repeat: BTreeSet<u64>,
    in_flight: u64,
    outcome: Outcome,
}

impl Run {
    fn new(model: Model) -> Self {
        Self {
            random: Random::new(model.seed),
            window: Window::new(model.control),
            now: 0,
            busy_until: 0,
            acks: VecDeque::new(),
            transmissions: VecDeque::new(),
            first: 0,
            board: VecDeque::new(),
            una: 0,
            to_repeat: BTreeSet::new(),
            in_flight: 0,
            outcome: Outcome::default(),
            model,
        }
    }

    fn run(mut self, nanos: u64, segments: u64) -> Outcome {
        loop {
            self.send(segments);
            let next = match self.acks.front() {
                Some((at, _)) => *at,
                // Everything is lost: a probe finds it.
                None => self.now + self.model.rtt_micros * 1_500,
            };
            if next > nanos {
                self.now = nanos;
                break;
            }
            self.now = next;
            match self.acks.pop_front() {
                Some((_, number)) => self.acknowledge(number),
                None => self.find_lost(u64::MAX),
            }
            if self.una >= segments {
                // The last byte had arrived before its ACK came.
                self.now -= self.model.rtt_micros * 500;
                break;
            }
        }
        self.outcome.delivered_bytes = self.una.min(segments) * MSS;
        self.outcome.seconds = self.now as f64 / NANOS as f64;
        self.outcome
    }

    fn nxt(&self) -> u64 {
        self.una + self.board.len() as u64
    }

    fn send(&mut self, segments: u64) {
        let window = self.model.window_bytes / MSS;
        while self.in_flight < self.window.segments() {
            let segment = match self.to_repeat.pop_first() {
                Some(segment) => segment,
                None if self.nxt() < segments && self.nxt() < self.una + window => {
                    self.board.push_back((State::InFlight, 0));
                    self.nxt() - 1
                }
                None => return,
            };
            self.transmit(segment);
        }
    }

    fn transmit(&mut self, segment: u64) {
        let number = self.first + self.transmissions.len() as u64;
        self.board[(segment - self.una) as usize] = (State::InFlight, number);
        self.in_flight += 1;
        self.outcome.sent += 1;
        let waits = self.busy_until.saturating_sub(self.now);
        let is_full = self.model.queue_micros.is_some_and(|max| waits > max * 1_000);
        let is_lost =
            self.model.loss > 0.0 && f64::from(self.random.u32()) < self.model.loss * 4_294_967_295.0;
        let arrives = !is_full && !is_lost;
        if !is_full {
            self.busy_until =
                self.busy_until.max(self.now) + WIRE_BYTES * 8 * NANOS / self.model.bits_per_second;
        }
        if arrives {
            self.acks.push_back((self.busy_until + self.model.rtt_micros * 1_000, number));
        } else {
            self.outcome.lost += 1;
        }
        self.transmissions.push_back(Transmission { segment, arrives });
    }

    fn acknowledge(&mut self, number: u64) {
        let sent = self.transmissions[(number - self.first) as usize];
        debug_assert!(sent.arrives);
        let at = (sent.segment - self.una) as usize;
        self.board[at].0 = State::Arrived;
        self.in_flight -= 1;
        while self.board.front().is_some_and(|(state, _)| *state == State::Arrived) {
            self.board.pop_front();
            self.una += 1;
        }
        let srtt = self.model.rtt_micros as f64 / 1e6;
        let is_limited = self.in_flight + 1 + 1 >= self.window.segments();
        self.window.acknowledged(self.now as f64 / NANOS as f64, srtt, self.una, is_limited);
        self.find_lost(number);
    }

    /// What was sent before transmission `number`, and has not arrived, is lost.
    fn find_lost(&mut self, number: u64) {
        while self.first <= number {
            let Some(sent) = self.transmissions.pop_front() else { return };
            let own = self.first;
            self.first += 1;
            if sent.segment < self.una {
                continue;
            }
            let at = (sent.segment - self.una) as usize;
            if self.board[at] != (State::InFlight, own) {
                continue;
            }
            self.board[at].0 = State::Lost;
            self.to_repeat.insert(sent.segment);
            self.in_flight -= 1;
            self.window.lost(sent.segment, self.nxt());
        }
    }
}
