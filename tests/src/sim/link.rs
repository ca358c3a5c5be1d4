//! A wire between two ports: how long it takes, how much it carries, what it does to frames.

use std::collections::VecDeque;

use smoltcp::time::{Duration, Instant};
use wirestack::random::Random;

use super::Frame;

/// Which frames are lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each with this probability, 0 to 1.
    Random(f64),
    /// Two states, in which frames are lost with different probabilities (Gilbert 1960, Elliott 1963).
    GilbertElliott {
        /// From good to bad, per frame.
        to_bad: f64,
        /// From bad to good, per frame.
        to_good: f64,
        /// Loss in the good state.
        in_good: f64,
        /// Loss in the bad state.
        in_bad: f64,
    },
    /// The last `burst` of every `period` frames.
    Periodic {
        /// Frames.
        period: u64,
        /// Frames, at most `period`.
        burst: u64,
    },
}

/// What a wire does in a direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkSpec {
    /// From the end of sending to the arrival.
    pub delay: Duration,
    /// Added to it by chance, up to this; frames still keep their order.
    pub jitter: Duration,
    /// Bits per second; `None`: sending takes no time.
    pub bits_per_second: Option<u64>,
    /// Frames that wait to be sent at most; only with a rate.
    pub queue_frames_max: usize,
    /// Bytes that wait to be sent at most; only with a rate.
    pub queue_bytes_max: usize,
    /// How long the newest of them may have to wait at most; only with a rate. `None`: as the others say.
    pub queue_time_max: Option<Duration>,
    /// A packet that says that it knows ECN is marked instead of being passed on as it is, if it has to wait for
    /// longer (RFC 3168 section 5); only with a rate.
    pub mark_above: Option<Duration>,
    /// Which frames are lost.
    pub loss: Loss,
    /// Only frames that are longer than this many bytes are lost by chance: 200 is data, and no ACK.
    pub loss_above: usize,
    /// Probability of a second copy.
    pub duplicate: f64,
    /// Probability of being overtaken.
    pub reorder: f64,
    /// By how much an overtaken frame is late.
    pub reorder_delay: Duration,
    /// It is late by any time up to that.
    pub reorder_varies: bool,
    /// Probability of one wrong bit. ARP is spared: it has no checksum of its own.
    pub corrupt: f64,
    /// Bytes of the longest IP packet; longer ones are lost, and counted.
    pub mtu: usize,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(100),
            jitter: Duration::ZERO,
            bits_per_second: None,
            queue_frames_max: 1000,
            queue_bytes_max: 1 << 20,
            queue_time_max: None,
            mark_above: None,
            loss: Loss::None,
            loss_above: 0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(2),
            reorder_varies: false,
            corrupt: 0.0,
            mtu: 65_535,
        }
    }
}

/// What happened to frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Offered by the sender.
    pub offered: u64,
    /// Arrived or to arrive, copies included.
    pub carried: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost for want of room in the queue.
    pub queue_full: u64,
    /// Lost because they were too long.
    pub too_long: u64,
    /// Copies.
    pub duplicated: u64,
    /// Overtaken.
    pub reordered: u64,
    /// Changed.
    pub corrupted: u64,
    /// Marked: congestion experienced.
    pub marked: u64,
    /// The longest time that a frame had to wait, in microseconds.
    pub waited_max_micros: u64,
}

/// One direction of a wire.
#[derive(Debug)]
pub(super) struct Direction {
    spec: LinkSpec,
    random: Random,
    /// In nanoseconds: a frame at 10 Gbit/s takes 1.2 microseconds.
    busy_until: u64,
    /// When each waiting frame has left, in nanoseconds, and its length.
    queue: VecDeque<(u64, usize)>,
    queue_bytes: usize,
    last_arrival: Instant,
    is_bad: bool,
    pub(super) counters: LinkCounters,
}

impl Direction {
    pub(super) fn new(spec: LinkSpec, random: Random) -> Self {
        Self {
            spec,
            random,
            busy_until: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_arrival: Instant::ZERO,
            is_bad: false,
            counters: LinkCounters::default(),
        }
    }

    pub(super) fn spec(&self) -> LinkSpec {
        self.spec
    }

    pub(super) fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    /// Takes a frame, and tells what arrives when.
    pub(super) fn offer(&mut self, now: Instant, mut frame: Frame, mut arrives: impl FnMut(Instant, Frame)) {
        self.counters.offered += 1;
        // Of a merged frame, the pieces have to fit.
        if frame.meta.gso.is_none() && frame.bytes.len() > self.spec.mtu + super::LINK_HEADER_LEN {
            self.counters.too_long += 1;
            return;
        }
        let Some((sent, waits)) = self.enqueue(now, frame.bytes.len()) else {
            self.counters.queue_full += 1;
            return;
        };
        if frame.bytes.len() > self.spec.loss_above && self.is_lost() {
            self.counters.lost += 1;
            return;
        }
        if self.spec.mark_above.is_some_and(|bound| waits > bound) && mark(&mut frame.bytes) {
            self.counters.marked += 1;
        }
        self.damage(&mut frame);
        self.counters.carried += 1;
        if self.chance(self.spec.duplicate) {
            self.counters.duplicated += 1;
            self.counters.carried += 1;
            arrives(self.arrival(sent), frame.clone());
        }
        arrives(self.arrival(sent), frame);
    }

    fn damage(&mut self, frame: &mut Frame) {
        let may_damage =
            !frame.is_damaged && frame.meta.is_plain() && frame.bytes.get(12..14) != Some(&[8, 6]);
        if self.chance(self.spec.corrupt) && may_damage {
            frame.is_damaged = true;
            self.counters.corrupted += 1;
            let bit = self.random.below(frame.bytes.len() as u32 * 8) as usize;
            frame.bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// When a frame has been sent, and how long it had to wait for that. `None`: the queue is full.
    fn enqueue(&mut self, now: Instant, len: usize) -> Option<(Instant, Duration)> {
        let Some(rate) = self.spec.bits_per_second else { return Some((now, Duration::ZERO)) };
        let now = now.total_micros() as u64 * 1_000;
        while let Some(&(_, len)) = self.queue.front().filter(|(left, _)| *left <= now) {
            self.queue.pop_front();
            self.queue_bytes -= len;
        }
        let waits = Duration::from_micros(self.busy_until.saturating_sub(now) / 1_000);
        let is_full = self.queue.len() >= self.spec.queue_frames_max
            || self.queue_bytes + len > self.spec.queue_bytes_max
            || self.spec.queue_time_max.is_some_and(|max| waits > max);
        if is_full {
            return None;
        }
        self.counters.waited_max_micros = self.counters.waited_max_micros.max(waits.total_micros());
        let nanos = (len as u64 * 8 * 1_000_000_000).div_ceil(rate.max(1));
        self.busy_until = self.busy_until.max(now) + nanos;
        self.queue.push_back((self.busy_until, len));
        self.queue_bytes += len;
        Some((Instant::from_micros(self.busy_until.div_ceil(1_000) as i64), waits))
    }

    fn arrival(&mut self, sent: Instant) -> Instant {
        let jitter = self.spec.jitter.total_micros() as u32;
        let mut at = sent + self.spec.delay;
        if jitter > 0 {
            at += Duration::from_micros(self.random.below(jitter + 1).into());
        }
        if self.chance(self.spec.reorder) {
            self.counters.reordered += 1;
            let most = self.spec.reorder_delay.total_micros() as u32;
            let late = if self.spec.reorder_varies { 1 + self.random.below(most) } else { most };
            return at + Duration::from_micros(late.into());
        }
        self.last_arrival = self.last_arrival.max(at);
        self.last_arrival
    }

    fn is_lost(&mut self) -> bool {
        match self.spec.loss {
            Loss::None => false,
            Loss::Random(p) => self.chance(p),
            Loss::GilbertElliott { to_bad, to_good, in_good, in_bad } => {
                let changes = self.chance(if self.is_bad { to_good } else { to_bad });
                self.is_bad ^= changes;
                self.chance(if self.is_bad { in_bad } else { in_good })
            }
            Loss::Periodic { period, burst } => {
                (self.counters.offered - 1) % period.max(1) >= period.saturating_sub(burst)
            }
        }
    }

    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && f64::from(self.random.u32()) < p * f64::from(u32::MAX)
    }
}

/// Marks an IP packet in its frame: congestion experienced. False: its sender does not know ECN.
fn mark(frame: &mut [u8]) -> bool {
    match (frame.get(12..14), frame.get(14..34)) {
        (Some([8, 0]), Some(header)) if header[1] & 3 != 0 => {
            frame[15] |= 3;
            let [high, low] = {
                frame[24..26].fill(0);
                super::packets::checksum(&[&frame[14..34]]).to_be_bytes()
            };
            frame[24] = high;
            frame[25] = low;
            true
        }
        // The two lowest bits of the traffic class are bits 4 and 5 of the second byte.
        (Some([0x86, 0xdd]), Some(header)) if header[1] & 0x30 != 0 => {
            frame[15] |= 0x30;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spec: LinkSpec, frames: u64) -> (LinkCounters, Vec<Instant>) {
        let mut direction = Direction::new(spec, Random::new(3));
        let mut arrivals = Vec::new();
        for index in 0..frames {
            let frame = Frame::plain(vec![index as u8; 100]);
            let at = Instant::from_micros(index as i64 * 10);
            direction.offer(at, frame, |at, _| arrivals.push(at));
        }
        (direction.counters, arrivals)
    }

    #[test]
    fn losses_are_as_many_as_said() {
        for (loss, from, to) in [
            (Loss::None, 0, 0),
            (Loss::Random(0.1), 900, 1100),
            (Loss::Periodic { period: 10, burst: 3 }, 3000, 3000),
            // In the long run 1 of 11 frames is in the bad state.
            (Loss::GilbertElliott { to_bad: 0.01, to_good: 0.1, in_good: 0.0, in_bad: 0.5 }, 350, 560),
        ] {
            let (counters, arrivals) = run(LinkSpec { loss, ..LinkSpec::default() }, 10_000);
            assert!((from..=to).contains(&counters.lost), "{loss:?}: {}", counters.lost);
            assert_eq!(arrivals.len() as u64, 10_000 - counters.lost);
            assert!(arrivals.is_sorted());
        }
    }

    #[test]
    fn a_rate_spaces_frames_and_its_queue_is_bounded() {
        // 100 bytes at 40 Mbit/s take 20 µs, and one comes every 10 µs.
        let spec =
            LinkSpec { bits_per_second: Some(40_000_000), queue_frames_max: 50, ..LinkSpec::default() };
        let (counters, arrivals) = run(spec, 1000);
        assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_micros(20)));
        assert!((440..=480).contains(&counters.queue_full), "{}", counters.queue_full);
        let spec = LinkSpec { queue_frames_max: 1000, queue_bytes_max: 5000, ..spec };
        assert_eq!(run(spec, 1000).0.queue_full, counters.queue_full);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let jitter = LinkSpec { jitter: Duration::from_millis(1), ..LinkSpec::default() };
        assert!(run(jitter, 1000).1.is_sorted());
        let (counters, arrivals) = run(LinkSpec { reorder: 0.1, ..jitter }, 1000);
        assert!(!arrivals.is_sorted() && (50..150).contains(&counters.reordered));
        let (counters, arrivals) = run(LinkSpec { duplicate: 0.5, corrupt: 0.5, ..jitter }, 1000);
        assert_eq!(arrivals.len() as u64, 1000 + counters.duplicated);
        assert!((400..600).contains(&counters.duplicated) && (400..600).contains(&counters.corrupted));
    }

    #[test]
    fn the_bits_of_ten_gigabits_are_counted() {
        // 10 000 frames of 125 bytes are 10 Mbit, a millisecond.
        let spec = LinkSpec {
            bits_per_second: Some(10_000_000_000),
            queue_frames_max: 20_000,
            queue_bytes_max: 1 << 30,
            ..LinkSpec::default()
        };
        let mut direction = Direction::new(spec, Random::new(3));
        let mut last = Instant::ZERO;
        for _ in 0..10_000 {
            direction.offer(Instant::ZERO, Frame::plain(vec![0; 125]), |at, _| last = at);
        }
        assert_eq!(last, Instant::ZERO + spec.delay + Duration::from_millis(1));
        assert_eq!(direction.counters.waited_max_micros, 999);
        // A queue that is bounded in time: what would wait for longer is lost.
        let spec = LinkSpec { queue_time_max: Some(Duration::from_micros(100)), ..spec };
        let mut direction = Direction::new(spec, Random::new(3));
        let mut count = 0;
        for _ in 0..10_000 {
            direction.offer(Instant::ZERO, Frame::plain(vec![0; 125]), |_, _| count += 1);
        }
        assert_eq!(count, 1_010);
    }

    #[test]
    fn a_full_queue_marks_who_knows_ecn() {
        let spec = LinkSpec {
            bits_per_second: Some(1_000_000),
            mark_above: Some(Duration::from_micros(1_500)),
            ..LinkSpec::default()
        };
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address"));
        let [a6, b6] = ["fd00::1", "fd00::2"].map(|ip| ip.parse().expect("an address"));
        for (src, dst, knows) in [(a, b, false), (a, b, true), (a6, b6, false), (a6, b6, true)] {
            let mut packet = super::super::packets::packet(src, dst, 6, &[0; 100]);
            if knows {
                packet[1] |= if src.is_ipv4() { 2 } else { 0x20 };
            }
            if knows && src.is_ipv4() {
                packet[10..12].fill(0);
                let sum = super::super::packets::checksum(&[&packet[..20]]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            let frame = super::super::packets::framed([2; 6], [4; 6], &packet);
            let mut direction = Direction::new(spec, Random::new(1));
            let mut came = Vec::new();
            for _ in 0..10 {
                direction
                    .offer(Instant::ZERO, Frame::plain(frame.clone()), |_, frame| came.push(frame.bytes));
            }
            // 114 or 154 bytes take about a millisecond: the first two pass.
            assert_eq!(direction.counters.marked, if knows { 8 } else { 0 }, "{src}");
            assert_eq!(came[0], frame);
            let last = &came[9][14..];
            assert_eq!(last != &packet[..], knows);
            assert!(src.is_ipv6() || super::super::packets::checksum(&[&last[..20]]) == 0);
        }
    }
}
