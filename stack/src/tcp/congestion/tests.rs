use smoltcp::time::{Duration, Instant};

use super::*;

#[test]
fn a_controller_is_small() {
    assert!(size_of::<Congestion>() <= 128, "{}", size_of::<Congestion>());
    assert!(size_of::<Validation>() <= 32, "{}", size_of::<Validation>());
    assert_eq!(size_of::<Pacer>(), 8);
}

#[test]
fn the_pacer_keeps_a_rate_and_gives_credit_for_one_burst() {
    let at = Instant::from_micros;
    let mut pacer = Pacer::new();
    assert_eq!(pacer.next_send_at(at(0)), None);
    // 65 536 bytes at 10 Gbit/s take 52.4288 µs; one millisecond's worth goes at once after a pause.
    let rate = 1_250_000_000;
    let mut sent = 0;
    while pacer.next_send_at(at(5_000)).is_none() {
        pacer.on_sent(at(5_000), 65_536, rate);
        sent += 1;
    }
    assert_eq!(sent, 20, "a millisecond is 19.07 pieces");
    assert_eq!(pacer.next_send_at(at(5_000)), Some(at(5_049)));
    // A second of it, always sent when the timer says so, is exactly a second's worth.
    let mut now = at(5_000);
    let mut bytes = 0_u64;
    while let Some(next) = pacer.next_send_at(now) {
        now = next;
        if now >= at(1_005_000) {
            break;
        }
        while pacer.next_send_at(now).is_none() {
            pacer.on_sent(now, 65_536, rate);
            bytes += 65_536;
        }
    }
    assert!((1_249_800_000..=1_250_200_000).contains(&bytes), "{bytes}");
    // A slow path: one piece at a time, however long it takes.
    let mut pacer = Pacer::new();
    pacer.on_sent(at(0), 1_460, 1_460);
    assert_eq!(pacer.next_send_at(at(0)), None, "the second one is the credit");
    pacer.on_sent(at(0), 1_460, 1_460);
    assert_eq!(pacer.next_send_at(at(0)), Some(at(1_000_000)));
    // No rate is no limit, and the largest piece at the least rate does not overflow.
    pacer.on_sent(at(1_000_000), 1, 0);
    assert_eq!(pacer.next_send_at(at(1_000_000)), None);
    pacer.on_sent(at(1_000_000), u32::MAX, 1);
    pacer.on_sent(at(1_000_000), u32::MAX, 1);
    assert!(pacer.next_send_at(at(1_000_000)).is_some());
}

#[test]
fn a_quantum_is_a_millisecond_of_the_rate_in_whole_segments() {
    for (rate, mss, min_rtt_micros, quantum) in [
        (0, 1_460, None, 2 * 1_460),
        (125_000, 1_460, None, 2 * 1_460),
        (12_500_000, 1_460, None, 8 * 1_460),
        (1_250_000_000, 1_460, None, 44 * 1_460),
        // 64 KB more, halved for each 512 µs of the path.
        (125_000, 1_460, Some(100), 44 * 1_460),
        (125_000, 1_460, Some(1_100), 11 * 1_460),
        (12_500_000, 1_460, Some(10_000), 8 * 1_460),
        (u64::MAX, 536, Some(i64::MAX as u64), 122 * 536),
        (1_000_000, 0, None, 1_000),
    ] {
        let min_rtt = min_rtt_micros.map(Duration::from_micros);
        assert_eq!(Pacer::quantum(rate, mss, min_rtt), quantum, "{rate} {mss} {min_rtt:?}");
    }
}

mod closed_loop {
    use super::super::sim::{Path, Sim};
    use super::*;

    fn report(name: &str, sim: &mut Sim, seconds: u64) {
        for _ in 0..seconds {
            let rates = sim.run(Duration::from_secs(1));
            let flow = &sim.flows[0];
            eprintln!(
                "{name} {:5.1} s {:?} MB/s cwnd {} ssthresh {:?} episodes {} timeouts {} lost {} rtt {} us queue {}",
                sim.now as f64 / 1e9,
                rates.iter().map(|rate| (rate / 1e5).round() / 10.0).collect::<Vec<_>>(),
                flow.congestion.cwnd(),
                flow.congestion.ssthresh(),
                flow.episodes,
                flow.timeouts,
                flow.lost,
                flow.rtt_mean() / 1_000,
                sim.queue_max_seen,
            );
            sim.reset_statistics();
        }
    }

    #[test]
    fn look() {
        for pacing in [true, false] {
            eprintln!("pacing {pacing}");
            let mut sim = Sim::one(Path { pacing, ..Path::default() }, Algorithm::Cubic);
            report("cubic", &mut sim, 20);
        }
    }
}
