//! Controllers in a toy network: do they fill it, do they share it, do they leave room in its queues?

use super::super::sim::{Path, Sim};
use super::*;

/// Jain's index of fairness.
fn jain(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    sum * sum / (rates.len() as f64 * rates.iter().map(|rate| rate * rate).sum::<f64>())
}

/// Megabytes per second of one flow, in so many seconds from its beginning on.
fn goodput(path: Path, algorithm: Algorithm, seconds: u64) -> f64 {
    Sim::one(path, algorithm).run(Duration::from_secs(seconds))[0] / 1e6
}

/// 10 Gbit/s and 10 ms, with losses by chance.
fn lossy(lost_per_million: u32, seed: u64) -> Path {
    Path { rate: 1_250_000_000, queue: 12_500_000, lost_per_million, seed, ..Path::default() }
}

#[test]
fn cubic_fills_a_path_with_a_short_queue() {
    for (pacing, seconds) in [(true, 10), (false, 20)] {
        let found = goodput(Path { pacing, ..Path::default() }, Algorithm::Cubic, seconds);
        assert!(found >= 88.0, "{found} MB/s, pacing {pacing}");
    }
}

#[test]
fn cubic_under_loss_is_near_the_ideal_sender() {
    // MB/s of an ideal sender with SACK and RACK at 10 Gbit/s and 10 ms; nine tenths are asked for.
    for (lost_per_million, ideal) in [(1_000, 7.3), (10_000, 2.07), (30_000, 1.20), (50_000, 0.91)] {
        let sum: f64 = (0..5).map(|seed| goodput(lossy(lost_per_million, seed), Algorithm::Cubic, 12)).sum();
        assert!(sum / 5.0 >= 0.9 * ideal, "{} MB/s at {lost_per_million}, not {ideal}", sum / 5.0);
    }
}

#[test]
fn bbr_does_not_mind_losses_of_one_percent() {
    let cubic = goodput(lossy(10_000, 1), Algorithm::Cubic, 10);
    let bbr = goodput(Path { buffer: 1 << 20, ..lossy(10_000, 1) }, Algorithm::Bbr, 4);
    assert!(bbr >= 20.0 * cubic, "{bbr} and {cubic} MB/s");
    let path = Path { lost_per_million: 10_000, ..Path::default() };
    let bbr = goodput(path, Algorithm::Bbr, 5);
    assert!(bbr >= 0.75 * 125.0, "{bbr} MB/s of 125");
}

#[test]
fn bbr_keeps_queues_short() {
    let path = Path { rate: 25_000_000, buffer: 64 << 20, ..Path::default() };
    let bdp = path.bdp();
    for queue in [bdp / 10, bdp, 10 * bdp] {
        let mut sim = Sim::one(Path { queue, ..path }, Algorithm::Bbr);
        sim.run(Duration::from_secs(1));
        sim.reset_statistics();
        let rate = sim.run(Duration::from_secs(11))[0] / 1e6;
        assert!(rate >= 0.9 * 25.0, "{rate} MB/s with a queue of {queue}");
        assert!(sim.queue_max_seen <= bdp * 3 / 2, "{} of {queue} bytes", sim.queue_max_seen);
        let mean = sim.flows[0].rtt_mean() / 1_000;
        assert!(mean <= 11_500, "a round trip of {mean} µs");
    }
}

#[test]
fn reno_is_a_sawtooth() {
    // 100 Mbit/s, 10 ms, a queue of a BDP: from half of 2 BDP back to it, one segment in a round trip.
    let path = Path { rate: 12_500_000, queue: 125_000, ..Path::default() };
    let mut sim = Sim::one(path, Algorithm::Reno);
    sim.run(Duration::from_secs(5));
    let episodes = sim.flows[0].episodes;
    assert!(sim.run_until(|sim| sim.flows[0].episodes > episodes));
    let after = sim.flows[0].congestion.cwnd();
    assert!((120_000..=140_000).contains(&after), "{after} bytes after a loss");
    let (lost, since) = (sim.flows[0].lost, sim.now);
    assert!(sim.run_until(|sim| sim.flows[0].episodes > episodes + 1));
    assert_eq!(sim.flows[0].lost - lost, 1_460, "one segment in a tooth");
    // 86 segments, in round trips of 10 ms to 20 ms.
    let tooth = (sim.now - since) / 1_000_000;
    assert!((1_100..=1_600).contains(&tooth), "{tooth} ms");
    let rate = sim.run(Duration::from_secs(10))[0];
    assert!(rate >= 0.98 * 12_500_000.0, "{rate}");
}

#[test]
fn slow_start_ends_before_a_deep_queue_overflows() {
    let bdp = Path::default().bdp();
    for merged in [1, 2, 44] {
        for pacing in [true, false] {
            let path = Path { queue: 12 * bdp, merged, pacing, buffer: 64 << 20, ..Path::default() };
            let ends = |algorithm| {
                let mut sim = Sim::one(path, algorithm);
                assert!(sim.run_until(|sim| sim.flows[0].congestion.ssthresh().is_some()));
                (sim.flows[0].lost, u64::from(sim.flows[0].congestion.cwnd()))
            };
            let (lost, cwnd) = ends(Algorithm::Cubic);
            assert!(lost == 0 && cwnd >= bdp, "{lost} lost, {cwnd}: merged {merged} pacing {pacing}");
            // Without HyStart++ it does.
            let (lost, _) = ends(Algorithm::Reno);
            assert!(lost > 0);
        }
    }
}

#[test]
fn merged_acks_do_not_slow_the_ramp() {
    // 100 MB at 10 Gbit/s and 10 ms, ideally with an ACK for each segment: slow start doubles, then the line is full.
    let ramp = |merged, pacing| {
        let path = Path { merged, pacing, buffer: 64 << 20, ..lossy(0, 0) };
        let mut sim = Sim::one(path, Algorithm::Cubic);
        assert!(sim.run_until(|sim| sim.flows[0].delivered >= 100_000_000));
        sim.now as f64 / 1e6
    };
    let ideal = ramp(1, false);
    assert!((160.0..=190.0).contains(&ideal), "{ideal} ms");
    for (merged, pacing) in [(2, false), (44, false), (44, true)] {
        let found = ramp(merged, pacing);
        assert!(found <= 1.15 * ideal, "{found} ms and not {ideal}: merged {merged} pacing {pacing}");
    }
}

#[test]
fn flows_share_a_path() {
    let path = Path { rate: 25_000_000, queue: 25_000, ..Path::default() };
    for (algorithm, least) in [(Algorithm::Reno, 0.95), (Algorithm::Cubic, 0.95), (Algorithm::Bbr, 0.8)] {
        let two = [(algorithm, Duration::ZERO), (algorithm, Duration::from_secs(5))];
        let mut sim = Sim::new(path, &two);
        sim.run(Duration::from_secs(15));
        let rates = sim.run(Duration::from_secs(15));
        assert!(jain(&rates) >= least, "{algorithm:?}, two: {rates:?}");
        let eight: Vec<_> = (0..8).map(|index| (algorithm, Duration::from_millis(137 * index))).collect();
        let mut sim = Sim::new(path, &eight);
        sim.run(Duration::from_secs(10));
        let rates = sim.run(Duration::from_secs(20));
        assert!(jain(&rates) >= least, "{algorithm:?}, eight: {rates:?}");
        let total: f64 = rates.iter().sum();
        assert!(total >= 0.85 * 25e6, "{algorithm:?}: {total}");
    }
}
