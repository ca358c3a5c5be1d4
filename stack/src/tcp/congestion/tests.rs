use smoltcp::time::{Duration, Instant};

use super::*;

mod closed_loop;
mod cubic;
mod hystart;
mod reno;
mod validation;

const MSS: u32 = 1_000;

fn millis(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

/// An ACK of a sender that uses its window, at a time, for so many bytes, after a round trip of 100 ms.
fn ack(now: Instant, delivered: u32) -> AckSample {
    let rtt = Some(Duration::from_millis(100));
    AckSample {
        now,
        delivered,
        acked: delivered,
        lost: 0,
        delivered_total: 1 << 40,
        lost_total: 0,
        prior_in_flight: delivered,
        in_flight: 0,
        snd_una: Seq(0),
        snd_nxt: Seq(0),
        rtt,
        srtt: rtt,
        min_rtt: rtt,
        rate: None,
        is_in_recovery: false,
        is_cwnd_limited: true,
    }
}

fn event(signal: Signal, in_flight: u32) -> CongestionEvent {
    CongestionEvent { now: Instant::ZERO, signal, in_flight, snd_nxt: Seq(0) }
}

/// What a controller is told in a test.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many segments were delivered.
    Ack(u32),
    /// In recovery.
    AckInRecovery(u32),
    /// The window was not used.
    AckUnused(u32),
    /// With so many segments in flight.
    Event(Signal, u32),
    End,
    Undo,
    /// Segments.
    ReduceTo(u32, u32),
    /// Bytes.
    Mss(u32),
}

/// Tells it.
fn take<C: Controller>(controller: &mut C, step: Step) {
    let now = Instant::ZERO;
    match step {
        Step::Ack(segments) => controller.on_ack(&ack(now, segments * MSS)),
        Step::AckInRecovery(segments) => {
            controller.on_ack(&AckSample { is_in_recovery: true, ..ack(now, segments * MSS) });
        }
        Step::AckUnused(segments) => {
            controller.on_ack(&AckSample { is_cwnd_limited: false, ..ack(now, segments * MSS) });
        }
        Step::Event(signal, segments) => controller.on_congestion(&event(signal, segments * MSS)),
        Step::End => controller.on_recovery_end(now, 0),
        Step::Undo => controller.on_undo(now),
        Step::ReduceTo(cwnd, ssthresh) => controller.reduce_to(cwnd * MSS, ssthresh * MSS),
        Step::Mss(mss) => controller.set_mss(mss),
    }
}

#[test]
fn each_algorithm_has_its_controller() {
    for (algorithm, name) in [(Algorithm::Reno, "reno"), (Algorithm::Cubic, "cubic"), (Algorithm::Bbr, "bbr")]
    {
        let congestion = Congestion::new(algorithm, MSS, 10 * MSS, Instant::ZERO);
        assert_eq!((congestion.algorithm(), congestion.name()), (algorithm, name));
        assert_eq!((congestion.cwnd(), congestion.ssthresh()), (10 * MSS, None));
        assert_eq!(congestion.uses_prr(), algorithm != Algorithm::Bbr);
        assert_eq!(congestion.pacing_rate().is_some(), algorithm == Algorithm::Bbr);
        assert_eq!(congestion.send_quantum().is_some(), algorithm == Algorithm::Bbr);
    }
    // A window is a segment at least, and nothing divides by a segment of no bytes.
    for algorithm in [Algorithm::Reno, Algorithm::Cubic, Algorithm::Bbr] {
        let mut congestion = Congestion::new(algorithm, 0, 0, Instant::ZERO);
        for step in [Step::Ack(1), Step::Event(Signal::Timeout, 0), Step::Mss(0), Step::Ack(u32::MAX / MSS)] {
            take(&mut congestion, step);
            assert!((1..=1 << 30).contains(&congestion.cwnd()), "{algorithm:?} {step:?}");
        }
    }
}

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
