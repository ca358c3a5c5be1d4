use super::*;
use crate::tcp::seq::Seq;

const MSS: u32 = 1_000;
/// 10 MB/s and 100 ms: a BDP of a thousand segments.
const RATE: u64 = 10_000_000;
const RTT: u64 = 100;
const BDP: u32 = 1_000_000;

/// A connection of which each ACK ends a round trip.
struct Driver {
    bbr: Bbr,
    now: Instant,
    delivered: u64,
    /// Of the ACKs to come.
    rate: u64,
    rtt: u64,
    in_flight: u32,
    lost: u32,
    /// Lost since the newest segment was sent, and what was in flight then.
    lost_since: u64,
    tx_in_flight: u32,
    is_app_limited: bool,
    is_in_recovery: bool,
    is_cwnd_limited: bool,
}

impl Driver {
    fn new() -> Self {
        let now = Instant::from_secs(1);
        Self {
            bbr: Bbr::new(MSS, 10 * MSS, now),
            now,
            delivered: 0,
            rate: RATE,
            rtt: RTT,
            in_flight: BDP,
            lost: 0,
            lost_since: 0,
            tx_in_flight: BDP,
            is_app_limited: false,
            is_in_recovery: false,
            is_cwnd_limited: false,
        }
    }

    /// A round trip later, all that the rate makes of it is acknowledged.
    fn round(&mut self) -> Phase {
        self.ack(self.delivered)
    }

    fn ack(&mut self, prior_delivered: u64) -> Phase {
        let delivered = (self.rate * self.rtt / 1_000) as u32;
        self.now += Duration::from_millis(self.rtt);
        self.delivered += u64::from(delivered);
        let rtt = Some(Duration::from_millis(self.rtt));
        self.bbr.on_ack(&AckSample {
            now: self.now,
            delivered,
            acked: delivered,
            lost: self.lost,
            delivered_total: self.delivered,
            lost_total: 0,
            prior_in_flight: self.in_flight,
            in_flight: self.in_flight,
            snd_una: Seq(0),
            snd_nxt: Seq(0),
            rtt,
            srtt: rtt,
            min_rtt: rtt,
            rate: Some(RateSample {
                delivery_rate: self.rate,
                interval: Duration::from_millis(self.rtt),
                delivered: u64::from(delivered),
                lost: self.lost_since,
                prior_delivered,
                tx_in_flight: self.tx_in_flight,
                is_app_limited: self.is_app_limited,
            }),
            is_in_recovery: self.is_in_recovery,
            is_cwnd_limited: self.is_cwnd_limited,
        });
        self.bbr.phase
    }

    fn event(&mut self, signal: Signal) {
        let event = CongestionEvent { now: self.now, signal, in_flight: self.in_flight, snd_nxt: Seq(0) };
        self.bbr.on_congestion(&event);
    }

    fn until(phase: Phase) -> Self {
        let mut driver = Self::new();
        assert!((0..200).any(|_| driver.round() == phase), "{phase:?} is not reached");
        driver
    }

    fn is_near(&self, found: u64, expected: f64) {
        assert!((found as f64 / expected - 1.0).abs() < 0.02, "{found} and not {expected}: {:?}", self.bbr);
    }
}

#[test]
fn a_plateau_of_three_rounds_ends_startup() {
    let mut driver = Driver::new();
    assert_eq!(driver.bbr.pacing_rate(), Some(27_700_000), "ten segments in a millisecond, 2.77 times");
    driver.rate = 1_000_000;
    driver.in_flight = 2 * BDP;
    assert_eq!(driver.round(), Phase::Startup);
    driver.is_near(driver.bbr.pacing_rate, 2.77 * 0.99 * 1e6);
    for rate in [2_000_000, 4_000_000, 8_000_000, RATE] {
        driver.rate = rate;
        assert_eq!(driver.round(), Phase::Startup);
    }
    // A quarter more is growth; one in a hundred is not.
    driver.rate = RATE * 101 / 100;
    let phases = [driver.round(), driver.round(), driver.round()];
    assert_eq!(phases, [Phase::Startup, Phase::Startup, Phase::Drain]);
    driver.is_near(driver.bbr.pacing_rate, 0.5 * 0.99 * 1.01 * RATE as f64);
    // The queue goes.
    assert_eq!(driver.round(), Phase::Drain);
    driver.in_flight = BDP;
    // Down has nothing to do then.
    assert_eq!(driver.round(), Phase::Cruise);
    driver.is_near(driver.bbr.pacing_rate, 0.99 * 1.01 * RATE as f64);
}

#[test]
fn an_application_with_little_to_say_does_not_end_startup() {
    let mut driver = Driver::new();
    driver.round();
    driver.is_app_limited = true;
    driver.rate = RATE / 100;
    let pacing_rate = driver.bbr.pacing_rate;
    for _ in 0..20 {
        assert_eq!(driver.round(), Phase::Startup);
    }
    assert_eq!((driver.bbr.pacing_rate, driver.bbr.bandwidth()), (pacing_rate, RATE));
    // But if it gets more through than we knew, the path is faster.
    driver.rate = 2 * RATE;
    driver.round();
    assert_eq!(driver.bbr.bandwidth(), 2 * RATE);
}

#[test]
fn many_losses_in_a_round_of_recovery_end_startup() {
    for (events, percent, is_in_recovery, phase) in [
        (6, 3, true, Phase::Drain),
        (5, 3, true, Phase::Startup),
        (6, 2, true, Phase::Startup),
        (6, 3, false, Phase::Startup),
    ] {
        let mut driver = Driver::new();
        driver.in_flight = 100 * BDP;
        driver.round();
        driver.event(Signal::Loss);
        (driver.is_in_recovery, driver.lost) = (is_in_recovery, MSS);
        (driver.lost_since, driver.tx_in_flight) = (u64::from(BDP / 100 * percent), BDP);
        let prior = driver.delivered;
        // Of the same round; the last one ends it.
        for _ in 1..events {
            driver.rate = driver.rate * 13 / 10;
            driver.ack(prior.saturating_sub(1));
        }
        driver.rate = driver.rate * 13 / 10;
        assert_eq!(driver.round(), phase, "{events} {percent} {is_in_recovery}");
        if phase == Phase::Drain {
            assert!(driver.bbr.model.inflight_longterm < INFINITY);
            driver.bbr.on_undo(driver.now);
            assert_eq!((driver.bbr.phase, driver.bbr.model.inflight_longterm), (Phase::Startup, INFINITY));
        }
    }
}

#[test]
fn a_cycle_of_probing() {
    let mut driver = Driver::until(Phase::Cruise);
    driver.is_near(driver.bbr.pacing_rate, 0.99 * RATE as f64);
    driver.is_near(u64::from(driver.bbr.inflight(1.0)), f64::from(BDP));
    let since = driver.now;
    assert!((0..64).any(|_| driver.round() == Phase::Refill));
    let waited = (driver.now - since).total_millis();
    assert!((1_500..=3_100).contains(&waited), "{waited} ms since cruising");
    driver.is_near(driver.bbr.pacing_rate, 0.99 * RATE as f64);
    assert_eq!(driver.round(), Phase::Up);
    driver.is_near(driver.bbr.pacing_rate, 1.25 * 0.99 * RATE as f64);
    // More is to be had: it goes on. Then it is not.
    driver.rate = RATE * 13 / 10;
    assert_eq!([driver.round(), driver.round(), driver.round()], [Phase::Up; 3]);
    driver.in_flight = 2 * BDP;
    assert_eq!(driver.round(), Phase::Down);
    driver.is_near(driver.bbr.pacing_rate, 0.9 * 0.99 * 1.3 * RATE as f64);
    assert_eq!(driver.bbr.bandwidth(), RATE * 13 / 10);
    assert_eq!(driver.bbr.model.inflight_longterm, INFINITY, "nothing was too much");
}

#[test]
fn on_short_paths_a_probe_comes_within_63_rounds() {
    let mut driver = Driver::until(Phase::Cruise);
    driver.rtt = 10;
    driver.bbr.model.min_rtt = Some(Duration::from_millis(10));
    let rounds = (0..100).take_while(|_| driver.round() != Phase::Refill).count();
    assert!((55..=63).contains(&rounds), "{rounds}");
}

#[test]
fn too_many_losses_end_a_probe_and_bound_what_is_in_flight() {
    for (tx_in_flight, longterm) in [(BDP, BDP), (BDP / 10, BDP / 10 * 7)] {
        let mut driver = Driver::until(Phase::Up);
        driver.event(Signal::Loss);
        (driver.lost, driver.tx_in_flight) = (MSS, tx_in_flight);
        driver.lost_since = u64::from(tx_in_flight / 50);
        assert_eq!(driver.round(), Phase::Up, "2 % are not too many");
        driver.lost_since += u64::from(MSS);
        assert_eq!(driver.round(), Phase::Down);
        driver.is_near(u64::from(driver.bbr.model.inflight_longterm), f64::from(longterm));
        let before = driver.bbr.model.inflight_longterm;
        // Once for a probe.
        driver.lost_since *= 2;
        driver.round();
        assert!(driver.bbr.model.inflight_longterm <= before);
        driver.bbr.on_undo(driver.now);
        assert_eq!((driver.bbr.phase, driver.bbr.model.inflight_longterm), (Phase::Refill, INFINITY));
    }
}

#[test]
fn a_mark_is_a_loss_that_is_too_much() {
    let mut driver = Driver::until(Phase::Up);
    driver.event(Signal::Ecn);
    assert_eq!(driver.bbr.phase, Phase::Down);
    assert_eq!(driver.bbr.model.inflight_longterm, BDP);
}

#[test]
fn a_probe_after_one_that_was_too_much_is_cautious() {
    let mut driver = Driver::until(Phase::Up);
    (driver.lost, driver.lost_since) = (MSS, u64::from(BDP / 20));
    driver.round();
    (driver.lost, driver.lost_since) = (0, 0);
    driver.in_flight = BDP / 2;
    assert!((0..60).any(|_| driver.round() == Phase::Up));
    // As much is in flight as was too much: enough for now. A round later, when it was not, at once again.
    driver.in_flight = driver.bbr.model.inflight_longterm;
    let phases = [driver.round(), driver.round(), driver.round()];
    assert!(phases.contains(&Phase::Down) && phases.contains(&Phase::Refill), "{phases:?}");
}

#[test]
fn cruising_gives_way_to_losses_by_what_is_delivered() {
    let mut driver = Driver::until(Phase::Cruise);
    driver.event(Signal::Loss);
    (driver.lost, driver.is_in_recovery) = (MSS, true);
    driver.rate = RATE * 9 / 10;
    (0..4).for_each(|_| assert_eq!(driver.round(), Phase::Cruise));
    driver.is_near(driver.bbr.bandwidth(), 0.9 * RATE as f64);
    assert!(driver.bbr.cwnd() <= 2 * BDP);
    // No more than 0.7 of it in a round, however little is delivered.
    driver.rate = RATE / 10;
    driver.round();
    driver.round();
    assert!(driver.bbr.bandwidth() as f64 >= 0.9 * 0.7 * 0.7 * RATE as f64, "{}", driver.bbr.bandwidth());
    // A probe forgets it.
    (driver.lost, driver.is_in_recovery, driver.rate) = (0, false, RATE);
    driver.bbr.on_recovery_end(driver.now, BDP);
    assert!((0..64).any(|_| driver.round() == Phase::Refill));
    driver.is_near(driver.bbr.bandwidth(), RATE as f64);
}

#[test]
fn a_rate_is_forgotten_after_two_cycles() {
    let mut driver = Driver::until(Phase::Down);
    driver.rate = RATE / 2;
    let mut probes = 0;
    for _ in 0..200 {
        if driver.round() == Phase::Up {
            probes += 1;
        }
        driver.in_flight = BDP / 2;
        if driver.bbr.bandwidth() == RATE / 2 {
            break;
        }
    }
    assert!((3..=10).contains(&probes) && driver.bbr.bandwidth() == RATE / 2, "{probes} rounds of probing");
}

#[test]
fn after_ten_seconds_without_a_shorter_round_trip_it_looks_for_one() {
    let mut driver = Driver::until(Phase::Cruise);
    driver.rtt = RTT + 20;
    let since = driver.bbr.model.min_rtt_stamp;
    assert!((0..200).any(|_| driver.round() == Phase::ProbeRtt));
    let waited = (driver.now - since).total_millis();
    assert!((10_000..=10_200).contains(&waited), "{waited} ms");
    // Half of what was a BDP with the round trip that was known.
    driver.is_near(u64::from(driver.bbr.cwnd()), 0.5 * f64::from(BDP));
    assert_eq!(driver.bbr.model.min_rtt, Some(Duration::from_millis(RTT + 20)));
    // 200 ms and a round, counted from when little is in flight. Its rates do not count.
    assert_eq!([driver.round(), driver.round(), driver.round()], [Phase::ProbeRtt; 3]);
    driver.in_flight = BDP / 2;
    driver.rate = RATE / 4;
    assert_eq!([driver.round(), driver.ack(0), driver.ack(0), driver.ack(0)], [Phase::ProbeRtt; 4]);
    assert_eq!(driver.round(), Phase::Cruise);
    driver.is_near(driver.bbr.bandwidth(), RATE as f64);
    assert!(driver.bbr.cwnd() > BDP, "{}", driver.bbr.cwnd());
}

#[test]
fn a_silence_makes_the_search_needless() {
    let mut driver = Driver::until(Phase::Cruise);
    driver.now += Duration::from_secs(11);
    driver.bbr.on_restart(driver.now, Duration::from_secs(11));
    driver.rtt = RTT + 20;
    assert_ne!(driver.round(), Phase::ProbeRtt);
    assert_eq!(driver.bbr.model.min_rtt, Some(Duration::from_millis(RTT + 20)));
    assert_ne!(driver.round(), Phase::ProbeRtt);
}

#[test]
fn a_timeout_leaves_one_segment_and_the_repair_gives_back_the_rest() {
    let mut driver = Driver::until(Phase::Cruise);
    (0..5).for_each(|_| assert_eq!(driver.round(), Phase::Cruise));
    let before = driver.bbr.cwnd();
    driver.event(Signal::Timeout);
    assert_eq!(driver.bbr.cwnd(), MSS);
    (driver.rate, driver.rtt, driver.is_in_recovery, driver.is_app_limited) = (1_000, 1, true, true);
    driver.round();
    assert_eq!(driver.bbr.cwnd(), 4 * MSS);
    driver.bbr.on_recovery_end(driver.now, MSS);
    assert!(driver.bbr.cwnd() > 4 * MSS && driver.bbr.cwnd() <= before, "{}", driver.bbr.cwnd());
}

#[test]
fn waits_are_random_and_repeatable() {
    let waits = |now, mss| {
        let mut probing = Bbr::new(mss, MSS, now).probing;
        (0..100).map(|_| (probing.pick_wait(), probing.wait).1.total_micros()).collect::<Vec<_>>()
    };
    let some = waits(Instant::from_secs(1), MSS);
    assert!(some.iter().all(|wait| (2_000_000..3_000_000).contains(wait)));
    let mean = some.iter().sum::<u64>() / 100;
    assert!((2_400_000..2_600_000).contains(&mean), "{mean}");
    assert_eq!(some, waits(Instant::from_secs(1), MSS));
    assert_ne!(some, waits(Instant::from_micros(1_000_001), MSS));
    assert_ne!(some, waits(Instant::from_secs(1), MSS + 1));
}

#[test]
fn samples_of_anything_do_no_harm() {
    let mut driver = Driver::new();
    for step in 0..4_000_u32 {
        let odd = step.wrapping_mul(2_654_435_761);
        driver.rate = if odd & 1 == 0 { u64::MAX >> (odd >> 26) } else { 0 };
        driver.rtt = u64::from(odd >> 30);
        driver.rate = driver.rate.min(u64::MAX / 4);
        driver.in_flight = odd;
        driver.tx_in_flight = odd >> (odd & 31);
        (driver.lost, driver.lost_since) = (odd & 3, u64::from(odd) << (odd & 31));
        driver.is_cwnd_limited = odd & 4 == 0;
        driver.ack(if odd & 8 == 0 { driver.delivered } else { u64::from(odd) });
        if odd & 0x30 == 0 {
            driver.event([Signal::Loss, Signal::Ecn, Signal::Timeout][odd as usize % 3]);
        }
        if odd & 0xc0 == 0 {
            driver.bbr.on_undo(driver.now);
        }
        assert!((MSS..=CWND_MAX).contains(&driver.bbr.cwnd()));
        assert!(driver.bbr.pacing_rate > 0 && driver.bbr.send_quantum >= MSS);
    }
}
