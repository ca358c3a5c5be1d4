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

/// What a wire does, the same both ways.
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
    /// Which frames are lost.
    pub loss: Loss,
    /// Probability of a second copy.
    pub duplicate: f64,
    /// Probability of being overtaken.
    pub reorder: f64,
    /// By how much an overtaken frame is late.
    pub reorder_delay: Duration,
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
            loss: Loss::None,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(2),
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
}

/// One direction of a wire.
#[derive(Debug)]
pub(super) struct Direction {
    spec: LinkSpec,
    random: Random,
    busy_until: Instant,
    /// When each waiting frame has left, and its length.
    queue: VecDeque<(Instant, usize)>,
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
            busy_until: Instant::ZERO,
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_arrival: Instant::ZERO,
            is_bad: false,
            counters: LinkCounters::default(),
        }
    }

    pub(super) fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    /// Takes a frame, and returns when what arrives.
    pub(super) fn offer(&mut self, now: Instant, mut frame: Frame) -> Vec<(Instant, Frame)> {
        self.counters.offered += 1;
        // Of a merged frame, the pieces have to fit.
        if frame.meta.gso.is_none() && frame.bytes.len() > self.spec.mtu + super::LINK_HEADER_LEN {
            self.counters.too_long += 1;
            return Vec::new();
        }
        let Some(sent) = self.enqueue(now, frame.bytes.len()) else {
            self.counters.queue_full += 1;
            return Vec::new();
        };
        if self.is_lost() {
            self.counters.lost += 1;
            return Vec::new();
        }
        let may_damage =
            !frame.is_damaged && frame.meta.is_plain() && frame.bytes.get(12..14) != Some(&[8, 6]);
        if self.chance(self.spec.corrupt) && may_damage {
            frame.is_damaged = true;
            self.counters.corrupted += 1;
            let bit = self.random.below(frame.bytes.len() as u32 * 8) as usize;
            frame.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let mut arrivals = vec![(self.arrival(sent), frame.clone())];
        if self.chance(self.spec.duplicate) {
            self.counters.duplicated += 1;
            arrivals.push((self.arrival(sent), frame));
        }
        self.counters.carried += arrivals.len() as u64;
        arrivals
    }

    /// When a frame has been sent. `None`: the queue is full.
    fn enqueue(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate) = self.spec.bits_per_second else { return Some(now) };
        while let Some(&(left, len)) = self.queue.front().filter(|(left, _)| *left <= now) {
            debug_assert!(left <= now);
            self.queue.pop_front();
            self.queue_bytes -= len;
        }
        let is_full = self.queue.len() >= self.spec.queue_frames_max
            || self.queue_bytes + len > self.spec.queue_bytes_max;
        if is_full {
            return None;
        }
        let micros = (len as u64 * 8 * 1_000_000).div_ceil(rate);
        self.busy_until = self.busy_until.max(now) + Duration::from_micros(micros);
        self.queue.push_back((self.busy_until, len));
        self.queue_bytes += len;
        Some(self.busy_until)
    }

    fn arrival(&mut self, sent: Instant) -> Instant {
        let jitter = self.spec.jitter.total_micros() as u32;
        let mut at = sent + self.spec.delay;
        if jitter > 0 {
            at += Duration::from_micros(self.random.below(jitter + 1).into());
        }
        if self.chance(self.spec.reorder) {
            self.counters.reordered += 1;
            return at + self.spec.reorder_delay;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spec: LinkSpec, frames: u64) -> (LinkCounters, Vec<Instant>) {
        let mut direction = Direction::new(spec, Random::new(3));
        let mut arrivals = Vec::new();
        for index in 0..frames {
            let frame = Frame::plain(vec![index as u8; 100]);
            let at = Instant::from_micros(index as i64 * 10);
            arrivals.extend(direction.offer(at, frame).into_iter().map(|(at, _)| at));
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
}
