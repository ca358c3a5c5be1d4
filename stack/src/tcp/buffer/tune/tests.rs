use std::collections::VecDeque;

use super::*;

/// A path between a sender in slow start, whose window of congestion is never too small for long, and a receiver that
/// tunes its buffer. Time goes in ticks of a hundredth of a round trip.
struct Path {
    bytes_per_second: u64,
    rtt: Duration,
    has_timestamps: bool,
    /// What the application reads at most, per second.
    read_per_second: u64,
    limit_max: u32,
}

/// How a transfer went.
struct Outcome {
    /// The limit at the end.
    limit: u32,
    /// Bytes that the application has read.
    read: u64,
    /// Round trips until the limit was twice what the path takes in one; `None`: it never was.
    wide_after: Option<u64>,
    tuned_rtt: Option<Duration>,
}

const TICKS_PER_RTT: u64 = 100;
const INITIAL: u32 = 65_535;

impl Path {
    fn bytes_per_rtt(&self) -> u64 {
        self.bytes_per_second * self.rtt.total_micros() / 1_000_000
    }

    fn run(&self, round_trips: u64) -> Outcome {
        let start = Instant::from_secs(1_000);
        let mut tuning = ReceiveTuning::new(start, INITIAL);
        let per_tick = self.bytes_per_rtt() / TICKS_PER_RTT;
        let read_per_tick = self.read_per_second * self.rtt.total_micros() / 1_000_000 / TICKS_PER_RTT;
        let half = TICKS_PER_RTT / 2;
        let (mut cwnd, mut sent, mut acked, mut right_edge) = (14_600_u64, 0_u64, 0_u64, u64::from(INITIAL));
        let (mut received, mut read, mut limit) = (0_u64, 0_u64, INITIAL);
        let mut on_the_way: VecDeque<(u64, u64, u64)> = VecDeque::new();
        let mut acks: VecDeque<(u64, u64, u64)> = VecDeque::new();
        let mut wide_after = None;
        // The first number is near the end, so that all of them wrap.
        let isn = Seq(u32::MAX - 1_000_000);
        for tick in 0..round_trips * TICKS_PER_RTT {
            let now = start + Duration::from_micros(tick * self.rtt.total_micros() / TICKS_PER_RTT);
            while let Some((_, ack, edge)) = acks.pop_front_if_due(tick) {
                cwnd += ack - acked;
                (acked, right_edge) = (ack, edge);
            }
            let now_sent = (acked + cwnd).min(right_edge).saturating_sub(sent).min(per_tick);
            if now_sent > 0 {
                sent += now_sent;
                on_the_way.push_back((tick + half, sent, tick));
            }
            let before = received;
            while let Some((_, end, sent_at)) = on_the_way.pop_front_if_due(tick) {
                received = end;
                let echoed =
                    Duration::from_micros((tick - sent_at + half) * self.rtt.total_micros() / TICKS_PER_RTT);
                let window = (read + u64::from(limit)).saturating_sub(received) as u32;
                tuning.on_received(now, isn + received as u32, window, self.has_timestamps.then_some(echoed));
            }
            let now_read = (received - read).min(read_per_tick);
            if now_read > 0 {
                read += now_read;
                if let Some(more) = tuning.on_read(now, isn + read as u32, limit, self.limit_max) {
                    assert!(
                        more > limit && more <= self.limit_max,
                        "it never shrinks, and never passes the limit"
                    );
                    limit = more;
                }
            }
            if received > before || now_read > 0 {
                acks.push_back((tick + half, received, read + u64::from(limit)));
            }
            if wide_after.is_none() && u64::from(limit) >= 2 * self.bytes_per_rtt() {
                wide_after = Some(tick / TICKS_PER_RTT);
            }
        }
        Outcome { limit, read, wide_after, tuned_rtt: tuning.rtt() }
    }
}

trait PopDue {
    fn pop_front_if_due(&mut self, tick: u64) -> Option<(u64, u64, u64)>;
}

impl PopDue for VecDeque<(u64, u64, u64)> {
    fn pop_front_if_due(&mut self, tick: u64) -> Option<(u64, u64, u64)> {
        if self.front()?.0 <= tick { self.pop_front() } else { None }
    }
}

/// 10 Gbit/s, 10 ms: the path takes 12.5 MB in a round trip.
fn fast_path(has_timestamps: bool) -> Path {
    Path {
        bytes_per_second: 1_250_000_000,
        rtt: Duration::from_millis(10),
        has_timestamps,
        read_per_second: u64::MAX / 20_000,
        limit_max: 64 << 20,
    }
}

#[test]
fn a_long_fast_path_gets_the_window_that_it_needs_as_soon_as_slow_start_does() {
    // Slow start alone needs ten round trips from ten segments to 12.5 MB.
    for (has_timestamps, round_trips_max) in [(true, 11), (false, 12)] {
        let path = fast_path(has_timestamps);
        let outcome = path.run(60);
        assert!(outcome.wide_after.is_some_and(|after| after <= round_trips_max), "{:?}", outcome.wide_after);
        // Beside a window that was large from the start.
        let mut ideal = 0;
        let mut cwnd = 14_600;
        for _ in 0..59 {
            ideal += cwnd;
            cwnd = (2 * cwnd).min(path.bytes_per_rtt());
        }
        assert!(outcome.read * 100 >= ideal * 95, "{} of {ideal} bytes", outcome.read);
    }
}

#[test]
fn an_application_that_reads_slowly_makes_it_no_larger_than_it_needs() {
    for has_timestamps in [true, false] {
        for read_per_second in [1_000_000, 5_000_000, 50_000_000, 200_000_000_u64] {
            let outcome = Path { read_per_second, ..fast_path(has_timestamps) }.run(200);
            let read_per_rtt = read_per_second / 100;
            // Twice what is read, and as much again twice if it had doubled: six times, and what timing makes of it.
            let limit_max = u64::from(INITIAL).max(8 * read_per_rtt);
            assert!(u64::from(outcome.limit) <= limit_max, "{} bytes for {read_per_rtt}", outcome.limit);
            assert_eq!(outcome.tuned_rtt, Some(Duration::from_millis(10)));
            assert!(outcome.read * 100 >= read_per_rtt * 190 * 95, "{} bytes", outcome.read);
        }
    }
}

#[test]
fn the_round_trip_time_is_the_shortest_window_or_what_timestamps_say() {
    let at = |ms| Instant::from_millis(5_000 + ms);
    let ms = Duration::from_millis;
    let mut tuning = ReceiveTuning::new(at(0), INITIAL);
    assert_eq!(tuning.rtt(), None);
    // The byte behind a window of 1 000 comes after 20 ms, then 10 ms, then the sender has nothing for a while.
    let mut rcv_nxt = Seq(u32::MAX - 1_500);
    tuning.on_received(at(0), rcv_nxt, 1_000, None);
    assert_eq!(tuning.rtt(), None);
    for (time, expected) in [(20, 20), (30, 10), (900, 10)] {
        rcv_nxt += 1_000;
        tuning.on_received(at(time - 5), rcv_nxt, 0, None);
        rcv_nxt += 1;
        tuning.on_received(at(time), rcv_nxt, 1_000, None);
        assert_eq!(tuning.rtt(), Some(ms(expected)), "at {time} ms");
    }
    // A shorter sample counts at once; a longer one not while data waits to be read, and slowly when none does.
    tuning.on_received(at(901), rcv_nxt, 1_000, Some(ms(4)));
    assert_eq!(tuning.rtt(), Some(ms(4)));
    tuning.on_received(at(902), rcv_nxt, 1_000, Some(ms(12)));
    assert_eq!(tuning.rtt(), Some(ms(4)));
    tuning.on_read(at(903), rcv_nxt, INITIAL, INITIAL);
    tuning.on_received(at(903), rcv_nxt, 1_000, Some(ms(12)));
    assert_eq!(tuning.rtt(), Some(ms(5)));
}

#[test]
fn what_no_window_can_have_does_not_overflow() {
    let mut tuning = ReceiveTuning::new(Instant::from_secs(1), 0);
    let mut limit = 1;
    let mut copied = Seq(0);
    for step in 0..10 {
        let now = Instant::from_secs(2 + step);
        copied += u32::MAX / 2;
        tuning.on_received(now, copied, u32::MAX, Some(Duration::from_micros(u64::MAX / 2)));
        tuning.on_received(now, copied, 0, Some(Duration::from_micros(0)));
        limit = tuning.on_read(now, copied, limit, u32::MAX).unwrap_or(limit);
    }
    assert_eq!(limit, u32::MAX);
}
