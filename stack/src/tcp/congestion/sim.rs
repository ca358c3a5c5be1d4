//! A toy network for the tests of controllers: flows with a lot of data, one bottleneck, packets, virtual time.
//!
//! The sender is perfect: packets keep their order, so it knows at once which of them were lost, and what it sends
//! again is a packet like any other. What is left is the controller.

use std::collections::VecDeque;

use smoltcp::time::{Duration, Instant};

use super::{AckSample, Algorithm, Congestion, CongestionEvent, Controller, Pacer, RateSample, Signal};
use crate::tcp::seq::Seq;

pub(super) const MSS: u32 = 1_460;

/// The path, and how its ends behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    /// Bytes per second of the bottleneck.
    pub rate: u64,
    pub rtt: Duration,
    /// Bytes that wait before it, at most.
    pub queue: u64,
    /// Packets of a million that get lost behind the bottleneck.
    pub lost_per_million: u32,
    /// Whether flows that have no rate of their own are paced.
    pub pacing: bool,
    /// An ACK stands for so many packets, with no more than 100 µs between them.
    pub merged: u32,
    /// Bytes in flight are no more than this: the send buffer.
    pub buffer: u32,
    /// Of what is random.
    pub seed: u64,
}

impl Default for Path {
    /// 1 Gbit/s, 10 ms, 1 ms of queue.
    fn default() -> Self {
        Self {
            rate: 125_000_000,
            rtt: Duration::from_millis(10),
            queue: 125_000,
            lost_per_million: 0,
            pacing: true,
            merged: 1,
            buffer: 4 << 20,
            seed: 1,
        }
    }
}

impl Path {
    pub(super) fn bdp(&self) -> u64 {
        self.rate * self.rtt.total_micros() / 1_000_000
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    number: u64,
    sent_at: u64,
    /// The state of the rate sampler when it was sent.
    delivered: u64,
    delivered_at: u64,
    first_sent_at: u64,
    lost: u64,
    in_flight: u32,
    has_arrived: bool,
}

/// One connection.
pub(super) struct Flow {
    pub congestion: Congestion,
    pub delivered: u64,
    pub lost: u64,
    /// Fast recoveries.
    pub episodes: u32,
    pub timeouts: u32,
    pub cwnd_max: u32,
    pub srtt: u64,
    /// Sum and number of round-trip times since `reset_statistics`.
    rtt_sum: u64,
    rtt_count: u64,
    starts_at: u64,
    pacer: Pacer,
    in_flight: u32,
    next_number: u64,
    /// What was sent and not heard of, in order.
    outstanding: VecDeque<Packet>,
    /// ACKs on their way: when they come, the newest packet that they acknowledge, and how many they stand for.
    acks: VecDeque<(u64, Packet, u32)>,
    delivered_at: u64,
    first_sent_at: u64,
    min_rtt: u64,
    /// Recovery lasts until this number is acknowledged.
    recovery_end: Option<u64>,
    was_cwnd_limited: bool,
    round_end: u64,
    round_cwnd_limited: bool,
    rto_at: u64,
}

pub(super) struct Sim {
    pub path: Path,
    pub flows: Vec<Flow>,
    /// In nanoseconds.
    pub now: u64,
    busy_until: u64,
    random: u64,
    pub queue_max_seen: u64,
}

impl Sim {
    /// Flows, each with the time when it begins.
    pub(super) fn new(path: Path, flows: &[(Algorithm, Duration)]) -> Self {
        let flows =
            flows.iter().map(|&(algorithm, start)| Flow::new(algorithm, start.total_micros() * 1_000));
        Self {
            path,
            flows: flows.collect(),
            now: 0,
            busy_until: 0,
            random: 0x9e37_79b9_7f4a_7c15 ^ path.seed << 1,
            queue_max_seen: 0,
        }
    }

    pub(super) fn one(path: Path, algorithm: Algorithm) -> Self {
        Self::new(path, &[(algorithm, Duration::ZERO)])
    }

    /// Runs for so long, and returns the bytes per second that each flow has delivered in that time.
    pub(super) fn run(&mut self, time: Duration) -> Vec<f64> {
        let end = self.now + time.total_micros() * 1_000;
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.delivered).collect();
        while self.step(end) {}
        self.now = end;
        let seconds = time.total_micros() as f64 / 1e6;
        self.flows
            .iter()
            .zip(before)
            .map(|(flow, before)| (flow.delivered - before) as f64 / seconds)
            .collect()
    }

    /// Runs until a condition holds, for a minute at most. True: it does.
    pub(super) fn run_until(&mut self, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + 60_000_000_000;
        while !condition(self) {
            if !self.step(end) {
                return false;
            }
        }
        true
    }

    pub(super) fn reset_statistics(&mut self) {
        self.queue_max_seen = 0;
        for flow in &mut self.flows {
            (flow.rtt_sum, flow.rtt_count) = (0, 0);
        }
    }

    /// What happens next, unless it is later than `end`.
    fn step(&mut self, end: u64) -> bool {
        let next =
            self.flows.iter().enumerate().map(|(index, flow)| (flow.next_at(self.path.buffer), index)).min();
        let Some((at, index)) = next.filter(|&(at, _)| at <= end) else { return false };
        self.now = self.now.max(at);
        let now = self.now;
        let flow = &mut self.flows[index];
        if flow.acks.front().is_some_and(|&(at, ..)| at <= now) {
            flow.handle_ack(now);
        } else if flow.rto_at <= now {
            flow.handle_timeout(now);
        } else {
            self.send(index);
        }
        true
    }

    fn send(&mut self, index: usize) {
        let now = self.now;
        let pacing = self.path.pacing;
        let packet = self.flows[index].send(now, pacing);
        let backlog = self.busy_until.saturating_sub(now) * self.path.rate / 1_000_000_000;
        if backlog + u64::from(MSS) > self.path.queue {
            return;
        }
        self.queue_max_seen = self.queue_max_seen.max(backlog);
        self.busy_until = self.busy_until.max(now) + u64::from(MSS) * 1_000_000_000 / self.path.rate;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if (self.random >> 32) % 1_000_000 < u64::from(self.path.lost_per_million) {
            return;
        }
        let at = self.busy_until + self.path.rtt.total_micros() * 1_000;
        self.flows[index].arrive(packet, at, self.path.merged);
    }
}

fn instant(nanos: u64) -> Instant {
    Instant::from_micros((nanos / 1_000) as i64)
}

impl Flow {
    fn new(algorithm: Algorithm, starts_at: u64) -> Self {
        Self {
            congestion: Congestion::new(algorithm, MSS, 10 * MSS, instant(starts_at)),
            delivered: 0,
            lost: 0,
            episodes: 0,
            timeouts: 0,
            cwnd_max: 0,
            srtt: 0,
            rtt_sum: 0,
            rtt_count: 0,
            starts_at,
            pacer: Pacer::new(),
            in_flight: 0,
            next_number: 0,
            outstanding: VecDeque::new(),
            acks: VecDeque::new(),
            delivered_at: starts_at,
            first_sent_at: starts_at,
            min_rtt: u64::MAX,
            recovery_end: None,
            was_cwnd_limited: false,
            round_end: 0,
            round_cwnd_limited: false,
            rto_at: u64::MAX,
        }
    }

    /// Mean round-trip time since the statistics were reset, in nanoseconds.
    pub(super) fn rtt_mean(&self) -> u64 {
        self.rtt_sum / self.rtt_count.max(1)
    }

    fn next_at(&self, buffer: u32) -> u64 {
        let ack = self.acks.front().map_or(u64::MAX, |&(at, ..)| at);
        let has_room = self.in_flight + MSS <= self.congestion.cwnd().max(MSS).min(buffer);
        let paced =
            self.pacer.next_send_at(instant(self.starts_at)).map_or(0, |at| at.total_micros() as u64 * 1_000);
        let send = if has_room { paced.max(self.starts_at) } else { u64::MAX };
        ack.min(send).min(self.rto_at)
    }

    fn send(&mut self, now: u64, pacing: bool) -> Packet {
        if self.in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.in_flight += MSS;
        let packet = Packet {
            number: self.next_number,
            sent_at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            lost: self.lost,
            in_flight: self.in_flight,
            has_arrived: false,
        };
        self.next_number += 1;
        self.outstanding.push_back(packet);
        self.round_cwnd_limited |= self.in_flight + MSS > self.congestion.cwnd();
        let window_rate = || {
            let is_slow_start =
                self.congestion.ssthresh().is_none_or(|ssthresh| self.congestion.cwnd() < ssthresh);
            let gain = if is_slow_start { 20 } else { 12 };
            let per_rtt = u64::from(self.congestion.cwnd()) * gain / 10;
            if pacing && self.srtt > 0 { per_rtt * 1_000_000_000 / self.srtt } else { 0 }
        };
        let rate = self.congestion.pacing_rate().unwrap_or_else(window_rate);
        self.pacer.on_sent(instant(now), MSS, rate);
        self.rto_at = now + 3 * self.srtt + 200_000_000;
        packet
    }

    fn handle_timeout(&mut self, now: u64) {
        self.rto_at = u64::MAX;
        if self.in_flight == 0 {
            return;
        }
        self.timeouts += 1;
        self.lost += u64::from(self.in_flight);
        let event = self.event(now, Signal::Timeout, self.in_flight);
        self.outstanding.clear();
        self.in_flight = 0;
        self.recovery_end = Some(self.next_number);
        self.congestion.on_congestion(&event);
    }

    fn event(&self, now: u64, signal: Signal, in_flight: u32) -> CongestionEvent {
        CongestionEvent { now: instant(now), signal, in_flight, snd_nxt: seq(self.next_number) }
    }

    /// A packet arrives, and will be acknowledged at `at`, with others that come soon after it.
    fn arrive(&mut self, packet: Packet, at: u64, merged: u32) {
        let front = self.outstanding.front().map_or(packet.number, |packet| packet.number);
        self.outstanding[(packet.number - front) as usize].has_arrived = true;
        match self.acks.back_mut() {
            Some((last, newest, count)) if *count < merged && at - *last <= 100_000 => {
                (*last, *newest, *count) = (at, packet, *count + 1);
            }
            _ => self.acks.push_back((at, packet, 1)),
        }
    }

    fn handle_ack(&mut self, now: u64) {
        let front = self.outstanding.front().map_or(u64::MAX, |packet| packet.number);
        if let Some((_, newest, _)) = self.acks.pop_front()
            && newest.number >= front
        {
            self.take_ack(now, newest);
        }
    }

    /// The newest packet has arrived; what is older has arrived before, or was lost.
    fn take_ack(&mut self, now: u64, newest: Packet) {
        let prior_in_flight = self.in_flight;
        let (delivered, lost) = self.settle(newest.number);
        if delivered == 0 {
            return;
        }
        self.delivered += u64::from(delivered);
        self.lost += u64::from(lost);
        self.delivered_at = now;
        self.first_sent_at = newest.sent_at;
        let rtt = now - newest.sent_at;
        (self.rtt_sum, self.rtt_count) = (self.rtt_sum + rtt, self.rtt_count + 1);
        self.min_rtt = self.min_rtt.min(rtt);
        self.srtt = if self.srtt == 0 { rtt } else { (7 * self.srtt + rtt) / 8 };
        self.rto_at = now + 3 * self.srtt + 200_000_000;
        if lost > 0 && self.recovery_end.is_none() {
            self.episodes += 1;
            self.recovery_end = Some(self.next_number);
            let event = self.event(now, Signal::Loss, prior_in_flight);
            self.congestion.on_congestion(&event);
        }
        self.end_rounds(newest.number);
        let sample = self.sample(now, &newest, (delivered, lost), prior_in_flight, rtt);
        self.congestion.on_ack(&sample);
        if self.recovery_end.is_some_and(|end| newest.number + 1 >= end) {
            self.recovery_end = None;
            self.congestion.on_recovery_end(instant(now), self.in_flight);
        }
        self.cwnd_max = self.cwnd_max.max(self.congestion.cwnd());
    }

    fn end_rounds(&mut self, number: u64) {
        if number >= self.round_end {
            self.round_end = self.next_number;
            self.was_cwnd_limited = std::mem::take(&mut self.round_cwnd_limited);
        }
    }

    /// Takes what is settled by the arrival of a packet from what is outstanding: bytes delivered, bytes lost.
    fn settle(&mut self, number: u64) -> (u32, u32) {
        let (mut delivered, mut lost) = (0, 0);
        while let Some(&packet) = self.outstanding.front()
            && packet.number <= number
        {
            self.outstanding.pop_front();
            self.in_flight -= MSS;
            if packet.has_arrived {
                delivered += MSS;
            } else {
                lost += MSS;
            }
        }
        (delivered, lost)
    }

    fn sample(
        &self,
        now: u64,
        newest: &Packet,
        (delivered, lost): (u32, u32),
        prior_in_flight: u32,
        rtt: u64,
    ) -> AckSample {
        let interval = (newest.sent_at - newest.first_sent_at).max(now - newest.delivered_at).max(1_000);
        let bytes = self.delivered - newest.delivered;
        let rate = (interval >= self.min_rtt).then(|| RateSample {
            delivery_rate: bytes * 1_000_000_000 / interval,
            interval: Duration::from_micros(interval / 1_000),
            delivered: bytes,
            lost: self.lost - newest.lost,
            prior_delivered: newest.delivered,
            tx_in_flight: newest.in_flight,
            is_app_limited: false,
        });
        let slow_start = self.congestion.ssthresh().is_none_or(|ssthresh| self.congestion.cwnd() < ssthresh);
        let used = slow_start && u64::from(self.congestion.cwnd()) < 2 * u64::from(prior_in_flight);
        AckSample {
            now: instant(now),
            delivered,
            acked: delivered,
            lost,
            delivered_total: self.delivered,
            lost_total: self.lost,
            prior_in_flight,
            in_flight: self.in_flight,
            snd_una: seq(newest.number + 1),
            snd_nxt: seq(self.next_number),
            rtt: Some(Duration::from_micros(rtt / 1_000)),
            srtt: Some(Duration::from_micros(self.srtt / 1_000)),
            min_rtt: Some(Duration::from_micros(self.min_rtt / 1_000)),
            rate,
            is_in_recovery: self.recovery_end.is_some(),
            is_cwnd_limited: self.was_cwnd_limited || self.round_cwnd_limited || used,
        }
    }
}

fn seq(number: u64) -> Seq {
    Seq((number as u32).wrapping_mul(MSS))
}
