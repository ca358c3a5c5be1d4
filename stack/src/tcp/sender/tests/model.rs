//! A sender, a path and a peer, in virtual time.
//!
//! The path loses, delays and doubles segments of data, and ACKs, by a seed. The peer has every range it got, answers
//! each segment (or each group of them) with up to three blocks of SACK, the newest first, and tells of duplicates by
//! DSACK. The driver does what a connection does: it repeats what is lost, sends what is new, and obeys the timer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::random::Random;
use crate::tcp::sender::{LimitedBy, Timeout};

/// A path, in both directions. Chances are in millionths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) rtt: Duration,
    /// Bytes per second; 0: without a limit.
    pub(super) rate: u64,
    /// Bytes that wait before the slowest link at most; what is more is lost.
    pub(super) queue: u32,
    pub(super) data_loss: u32,
    pub(super) ack_loss: u32,
    pub(super) duplication: u32,
    pub(super) reordering: u32,
    /// A reordered segment comes later by up to this.
    pub(super) delay_max: Duration,
    /// Segments that a peer gets at once and answers with one ACK.
    pub(super) group: u32,
}

pub(super) const CLEAN: Path = Path {
    rtt: Duration::from_millis(10),
    rate: 1_250_000_000,
    queue: u32::MAX,
    data_loss: 0,
    ack_loss: 0,
    duplication: 0,
    reordering: 0,
    delay_max: Duration::ZERO,
    group: 1,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Segment { start: u64, end: u64, ts_val: u32 },
    Ack(usize),
    Wake,
}

#[derive(Debug, Clone)]
struct SentAck {
    ack: u64,
    blocks: Vec<(u64, u64)>,
    ts_ecr: u32,
    count: u32,
    window_changed: bool,
}

/// Everything.
pub(super) struct Model {
    pub(super) sender: Sender,
    pub(super) now: Instant,
    path: Path,
    random: Random,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    order: u64,
    acks: Vec<SentAck>,
    /// Positions are 64 bits wide here: the number of the first byte is `start`.
    start: u64,
    to_send: u64,
    sent: u64,
    window: u64,
    timestamps: bool,
    link_free_nanos: i64,
    /// The peer.
    received: Vec<(u64, u64)>,
    newest: Vec<u64>,
    rcv_nxt: u64,
    ts_recent: u32,
    waiting: u32,
    pub(super) resent_bytes: u64,
    pub(super) dropped_bytes: u64,
    pub(super) timeouts: u32,
    pub(super) probes: u32,
    seen_una: u64,
    /// Whether the scoreboard is counted anew after each event, which takes time.
    pub(super) is_checked: bool,
}

impl Model {
    pub(super) fn new(config: &SenderConfig, path: Path, to_send: u64, window: u64, seed: u64) -> Self {
        let start = (1 << 32) + u64::from(config.start.0);
        Self {
            sender: Sender::new(config, Instant::ZERO),
            now: Instant::ZERO,
            path,
            random: Random::new(seed),
            events: BinaryHeap::new(),
            order: 0,
            acks: Vec::new(),
            start,
            to_send,
            sent: 0,
            window,
            timestamps: config.timestamps,
            link_free_nanos: 0,
            received: Vec::new(),
            newest: Vec::new(),
            rcv_nxt: start,
            ts_recent: 0,
            waiting: 0,
            resent_bytes: 0,
            dropped_bytes: 0,
            timeouts: 0,
            probes: 0,
            seen_una: start,
            is_checked: true,
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.rcv_nxt - self.start
    }

    pub(super) fn is_done(&self) -> bool {
        self.sent == self.to_send && self.sender.snd_una() == Seq((self.start + self.to_send) as u32)
    }

    /// Runs until all is acknowledged, or until `end`.
    pub(super) fn run(&mut self, end: Instant) {
        self.pump();
        while !self.is_done() && self.now < end {
            let due = self.sender.deadline();
            assert!(
                due.is_some() || self.sender.snd_una() == self.sender.snd_nxt(),
                "a timer is lost at {}",
                self.now
            );
            let event = self.events.peek().map(|Reverse((time, ..))| at(*time));
            let Some(next) = event.into_iter().chain(due).min() else {
                panic!("nothing will ever happen again")
            };
            self.now = self.now.max(next);
            if event == Some(next) {
                let Some(Reverse((.., event))) = self.events.pop() else { unreachable!() };
                self.handle(event);
            } else {
                self.on_timeout();
            }
            self.pump();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Segment { start, end, ts_val } => self.receive(start, end, ts_val),
            Event::Ack(index) => {
                let ack = self.acks[index].clone();
                self.take_ack(&ack);
            }
            Event::Wake => {}
        }
    }

    fn take_ack(&mut self, ack: &SentAck) {
        if ack.ack < self.seen_una {
            return;
        }
        self.seen_una = ack.ack;
        let blocks: Vec<_> =
            ack.blocks.iter().map(|(start, end)| (Seq(*start as u32), Seq(*end as u32))).collect();
        let ts_rtt = Duration::from_millis((self.clock().wrapping_sub(ack.ts_ecr)).into());
        let outcome = self.sender.on_ack(
            self.now,
            &Ack {
                ack: Seq(ack.ack as u32),
                sack: &blocks,
                may_be_duplicate: !ack.window_changed,
                count: ack.count,
                ts_ecr: self.timestamps.then_some(ack.ts_ecr),
                ts_rtt: self.timestamps.then_some(ts_rtt),
                ece: false,
            },
        );
        assert_eq!(outcome.bad_blocks, 0);
        if self.is_checked {
            self.sender.board.check();
        }
    }

    fn on_timeout(&mut self) {
        match self.sender.on_timeout(self.now) {
            Timeout::Nothing | Timeout::Lost => {}
            Timeout::Retransmit => {
                self.timeouts += 1;
                assert!(self.sender.allowance() >= self.sender.mss());
            }
            Timeout::Probe(seq, len) => {
                self.probes += 1;
                let room = self.window.saturating_sub(u64::from(self.sender.board.outstanding()));
                let len_new = (self.to_send - self.sent).min(room).min(u64::from(self.sender.mss()));
                if len_new > 0 {
                    self.send_new(len_new as u32);
                } else {
                    let sent = Sent { seq, len, ts_val: self.ts_val(), is_app_limited: false };
                    self.sender.on_resent(self.now, &sent, true);
                    self.put(self.sender.board.position(seq), len);
                    self.resent_bytes += u64::from(len);
                }
            }
        }
        if self.is_checked {
            self.sender.board.check();
        }
    }

    /// Sends what may go.
    fn pump(&mut self) {
        loop {
            let mss = self.sender.mss();
            if let Some(at) = self.sender.next_send_at(self.now) {
                self.push(at.total_micros(), Event::Wake);
                return;
            }
            let allowance = self.sender.allowance();
            if let Some((seq, len)) = self.sender.next_lost() {
                let len = len.min(whole(allowance, mss, len)).min(self.sender.quantum());
                if len == 0 {
                    return;
                }
                let sent = Sent { seq, len, ts_val: self.ts_val(), is_app_limited: false };
                self.sender.on_resent(self.now, &sent, false);
                self.resent_bytes += u64::from(len);
                self.put(self.sender.board.position(seq), len);
                continue;
            }
            let left = self.to_send - self.sent;
            let room = self.window.saturating_sub(u64::from(self.sender.board.outstanding()));
            let by = if left == 0 {
                LimitedBy::Application
            } else if room < u64::from(mss) && room < left {
                LimitedBy::Receiver
            } else {
                LimitedBy::Congestion
            };
            let want = left.min(room).min(u64::from(self.sender.quantum())) as u32;
            let len = if by == LimitedBy::Congestion { want.min(whole(allowance, mss, want)) } else { 0 };
            if len == 0 {
                let held_back = self.sender.next_lost().is_some();
                self.sender.set_limited_by(self.now, by);
                // F-RTO may have waited for this.
                if !held_back && self.sender.next_lost().is_some() {
                    continue;
                }
                return;
            }
            self.send_new(len);
        }
    }

    fn send_new(&mut self, len: u32) {
        let seq = self.sender.snd_nxt();
        self.sent += u64::from(len);
        let is_app_limited = self.sent == self.to_send;
        self.sender.on_sent(self.now, &Sent { seq, len, ts_val: self.ts_val(), is_app_limited });
        self.put(self.start + self.sent - u64::from(len), len);
    }

    fn clock(&self) -> u32 {
        self.now.total_millis() as u32
    }

    fn ts_val(&self) -> Option<u32> {
        self.timestamps.then(|| self.clock())
    }

    /// A frame leaves: its segments take the link one after the other.
    fn put(&mut self, start: u64, len: u32) {
        let mss = u64::from(self.sender.mss());
        let end = start + u64::from(len);
        let mut at = start;
        while at < end {
            let segment = Event::Segment { start: at, end: (at + mss).min(end), ts_val: self.clock() };
            let bytes = (at + mss).min(end) - at;
            at += mss;
            let now = self.now.total_micros() * 1_000;
            let time = if self.path.rate == 0 {
                now
            } else {
                let nanos = ((bytes + 78) * 1_000_000_000).div_ceil(self.path.rate) as i64;
                let waiting = (self.link_free_nanos - now).max(0) as u64;
                if waiting * self.path.rate / 1_000_000_000 > u64::from(self.path.queue) {
                    self.dropped_bytes += bytes;
                    continue;
                }
                self.link_free_nanos = self.link_free_nanos.max(now) + nanos;
                self.link_free_nanos
            };
            if self.chance(self.path.data_loss) {
                self.dropped_bytes += bytes;
                continue;
            }
            let arrival = time / 1_000 + self.path.rtt.total_micros() as i64 / 2;
            let late = if self.chance(self.path.reordering) { self.late() } else { 0 };
            self.push(arrival + late, segment);
            if self.chance(self.path.duplication) {
                let late = self.late();
                self.push(arrival + late, segment);
            }
        }
    }

    fn chance(&mut self, millionths: u32) -> bool {
        millionths > 0 && self.random.below(1_000_000) < millionths
    }

    fn late(&mut self) -> i64 {
        i64::from(self.random.below(self.path.delay_max.total_micros() as u32 + 1))
    }

    fn push(&mut self, micros: i64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((micros, self.order, event)));
    }

    /// The peer gets a segment.
    fn receive(&mut self, start: u64, end: u64, ts_val: u32) {
        if start <= self.rcv_nxt && ts_val.wrapping_sub(self.ts_recent) as i32 >= 0 {
            self.ts_recent = ts_val;
        }
        let held = self.received.iter().find(|(from, to)| *from <= start && end <= *to).copied();
        let is_old = end <= self.rcv_nxt;
        let dsack = if is_old || held.is_some() { Some((start, end)) } else { None };
        let is_in_order = start <= self.rcv_nxt && !is_old;
        if !is_old {
            self.insert(start, end);
        }
        self.waiting += 1;
        let is_quiet = is_in_order && self.received.is_empty() && dsack.is_none();
        if is_quiet && self.waiting < self.path.group && self.rcv_nxt < self.start + self.to_send {
            // The rest of the group comes, or the sender's probe asks.
            return;
        }
        let mut blocks: Vec<_> = dsack.into_iter().collect();
        for at in self.newest.iter().rev() {
            if let Some(range) = self.received.iter().find(|(from, to)| from <= at && at < to)
                && !blocks.iter().skip(usize::from(dsack.is_some())).any(|block| block == range)
                && blocks.len() < 3
            {
                blocks.push(*range);
            }
        }
        let ack =
            SentAck { ack: self.rcv_nxt, blocks, ts_ecr: self.ts_recent, count: 1, window_changed: false };
        self.waiting = 0;
        if self.chance(self.path.ack_loss) {
            return;
        }
        self.acks.push(ack);
        let arrival = self.now.total_micros() + (self.path.rtt.total_micros() as i64).div_euclid(2);
        self.push(arrival, Event::Ack(self.acks.len() - 1));
    }

    fn insert(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start.max(self.rcv_nxt), end);
        self.newest.push(start);
        self.received.retain(|&(from, to)| {
            let apart = to < start || end < from;
            if !apart {
                (start, end) = (start.min(from), end.max(to));
            }
            apart
        });
        if start <= self.rcv_nxt {
            self.rcv_nxt = self.rcv_nxt.max(end);
        } else {
            self.received.push((start, end));
        }
        let rcv_nxt = self.rcv_nxt;
        self.newest.retain(|at| *at >= rcv_nxt);
        if self.newest.len() > 64 {
            self.newest.remove(0);
        }
    }
}

/// As many bytes of `want` as may go in whole segments, or all of it.
fn whole(allowance: u32, mss: u32, want: u32) -> u32 {
    if allowance >= want { want } else { allowance / mss * mss }
}

fn random_path(random: &mut Random) -> Path {
    let pick = |random: &mut Random, values: &[u32]| values[random.below(values.len() as u32) as usize];
    Path {
        rtt: Duration::from_micros(pick(random, &[100, 1_000, 10_000, 100_000]).into()),
        rate: pick(random, &[0, 1_000_000, 125_000_000, 1_250_000_000]).into(),
        queue: pick(random, &[u32::MAX, 20_000, 200_000]),
        data_loss: pick(random, &[0, 0, 1_000, 20_000, 100_000, 300_000]),
        ack_loss: pick(random, &[0, 0, 20_000, 300_000]),
        duplication: pick(random, &[0, 0, 10_000, 200_000]),
        reordering: pick(random, &[0, 0, 10_000, 500_000]),
        delay_max: Duration::from_micros(pick(random, &[100, 2_000, 30_000]).into()),
        group: 1,
    }
}

#[test]
fn everything_arrives_over_bad_paths() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let path = random_path(&mut random);
        let config = SenderConfig {
            start: Seq(random.u32()),
            mss: [1_460, 536, 8_960][random.below(3) as usize],
            algorithm: [Algorithm::Reno, Algorithm::Cubic][random.below(2) as usize],
            sack: random.below(4) != 0,
            timestamps: random.below(3) != 0,
            handshake_rtt: (random.below(2) == 0).then_some(path.rtt),
            handshake_lost: random.below(10) == 0,
            pacing: random.below(3) == 0,
            ..config()
        };
        let to_send = u64::from(random.below(300_000)) + 1;
        let window = [20_000, 65_535, 1 << 20][random.below(3) as usize];
        let mut model = Model::new(&config, path, to_send, window, seed);
        if !config.sack {
            // Such a peer tells no blocks; the sender would not look at them.
            model.path.duplication = 0;
        }
        model.run(Instant::from_secs(4 * 3_600));
        assert!(
            model.is_done(),
            "seed {seed}: {} of {to_send} at {}\n{config:?}\n{path:?}",
            model.received(),
            model.now
        );
        assert!(model.sender.deadline().is_none(), "seed {seed}: a timer without data");
        assert_eq!(model.sender.in_flight(), 0, "seed {seed}");
    }
}

/// Megabytes per second over some seeds, 10 Gbit/s and 10 ms, in a peer's window of 1 MB.
fn goodput(path: Path, algorithm: Algorithm) -> f64 {
    let received = (0..2).map(|seed| {
        let config = SenderConfig { mss: 1_460, algorithm, ..config() };
        let mut model = Model::new(&config, path, 1 << 40, 1 << 20, seed);
        model.is_checked = false;
        model.run(Instant::from_secs(10));
        let needless = model.resent_bytes as f64 / (model.dropped_bytes as f64).max(14_600.0);
        assert!(needless < 1.1, "{needless} times what was lost was sent again");
        model.received()
    });
    received.sum::<u64>() as f64 / 20e6
}

#[test]
fn loss_costs_as_much_as_the_controller_says_and_little_more() {
    // Loss in millionths; what an ideal scoreboard with the same controller comes to.
    let cases = [
        (Algorithm::Reno, 1_000, 6.6),
        (Algorithm::Reno, 10_000, 1.86),
        (Algorithm::Reno, 50_000, 0.75),
        (Algorithm::Cubic, 1_000, 7.3),
        (Algorithm::Cubic, 10_000, 2.07),
        (Algorithm::Cubic, 30_000, 1.20),
        (Algorithm::Cubic, 50_000, 0.91),
    ];
    for (algorithm, data_loss, ideal) in cases {
        let measured = goodput(Path { data_loss, ..CLEAN }, algorithm);
        assert!(measured > 0.85 * ideal, "{algorithm:?} at {data_loss}: {measured:.2} MB/s of {ideal}");
    }
}

#[test]
fn reordering_within_100_microseconds_costs_almost_nothing() {
    let run = |reordering| {
        let path = Path { reordering, delay_max: Duration::from_micros(100), ..CLEAN };
        let config = SenderConfig { mss: 1_460, algorithm: Algorithm::Cubic, ..config() };
        let mut model = Model::new(&config, path, 1 << 40, 1 << 20, 1);
        model.is_checked = false;
        model.run(Instant::from_secs(1));
        (model.received() as f64, model.resent_bytes, model.timeouts)
    };
    let (clean, ..) = run(0);
    let (reordered, resent, timeouts) = run(10_000);
    assert!(reordered > 0.97 * clean, "{reordered} of {clean}");
    assert!(resent < 100_000 && timeouts == 0, "{resent} bytes were sent again");
}
