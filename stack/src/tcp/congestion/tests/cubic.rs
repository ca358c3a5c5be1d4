use super::*;

const RTT: f64 = 0.1;

/// RFC 9438, segment by segment, in segments and seconds.
#[derive(Debug)]
struct Oracle {
    cwnd: f64,
    w_max: f64,
    cwnd_prior: f64,
    w_est: f64,
    k: f64,
    start: f64,
}

impl Oracle {
    fn new(w_max: f64, cwnd: f64, cwnd_prior: f64, start: f64) -> Self {
        Self { cwnd, w_max, cwnd_prior, w_est: cwnd, k: ((w_max - cwnd) / 0.4).cbrt(), start }
    }

    fn curve(&self, t: f64) -> f64 {
        0.4 * (t - self.k).powi(3) + self.w_max
    }

    fn ack_one(&mut self, now: f64, rtt: f64) {
        let t = now - self.start;
        let alpha = if self.w_est >= self.cwnd_prior { 1.0 } else { 3.0 * 0.3 / 1.7 };
        self.w_est += alpha / self.cwnd;
        if self.curve(t) < self.w_est {
            self.cwnd = self.cwnd.max(self.w_est);
        } else {
            let target = self.curve(t + rtt).clamp(self.cwnd, 1.5 * self.cwnd);
            self.cwnd += (target - self.cwnd) / self.cwnd;
        }
    }
}

/// A controller with 100 segments, at a loss.
fn after_loss() -> Cubic {
    let mut cubic = Cubic::new(MSS, 100 * MSS);
    cubic.on_ack(&ack(Instant::ZERO, 0));
    cubic.on_congestion(&event(Signal::Loss, 100 * MSS));
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (70 * MSS, Some(70 * MSS)));
    cubic.on_recovery_end(Instant::ZERO, 0);
    cubic
}

fn at(seconds: f64) -> Instant {
    Instant::from_micros((seconds * 1e6) as i64)
}

/// Windows of ACKs, `per_ack` segments in each, from a time until another. Calls back after each window.
fn drive(
    cubic: &mut Cubic,
    (from, until): (f64, f64),
    rtt: f64,
    per_ack: u32,
    mut each_round: impl FnMut(f64, u32, &Cubic),
) {
    let mut now = from;
    while now < until {
        let segments = cubic.cwnd() / MSS;
        let mut left = segments;
        while left > 0 {
            let some = left.min(per_ack);
            left -= some;
            let sample = AckSample {
                srtt: Some(Duration::from_micros((rtt * 1e6) as u64)),
                ..ack(at(now), some * MSS)
            };
            cubic.on_ack(&sample);
        }
        each_round(now, segments, cubic);
        now += rtt;
    }
}

#[test]
fn the_window_follows_the_curve_of_the_rfc() {
    for (rtt, per_ack) in [(0.1, 1), (0.1, 2), (0.1, 44), (0.01, 1), (0.01, 44), (0.001, 1), (0.001, 44)] {
        let mut cubic = after_loss();
        let mut oracle = Oracle::new(100.0, 70.0, 100.0, 0.0);
        drive(&mut cubic, (0.0, 8.0), rtt, per_ack, |now, segments, cubic| {
            for _ in 0..segments {
                oracle.ack_one(now, rtt);
            }
            let found = f64::from(cubic.cwnd()) / f64::from(MSS);
            let (least, most) = (oracle.cwnd * 0.98, oracle.cwnd * 1.02 + 1.0);
            assert!((least..=most).contains(&found), "{rtt} s, {per_ack}: {found} at {now}, not {oracle:?}");
        });
    }
}

#[test]
fn figures_by_hand() {
    // K = cbrt((100 - 70) / 0.4) = 4.217 s: there the window is W_max again. With round trips of 300 ms Reno is far
    // below. The window is between what the curve says now and what it says a round trip later.
    let mut cubic = after_loss();
    let mut seen = Vec::new();
    drive(&mut cubic, (0.0, 7.5), 0.3, 1, |now, _, cubic| seen.push((now, cubic.cwnd() / MSS)));
    for (time, least, most) in
        [(0.0, 70, 76), (1.2, 89, 92), (2.1, 96, 98), (4.2, 99, 101), (6.0, 102, 104), (7.2, 110, 115)]
    {
        let found =
            seen.iter().find(|&&(now, _)| now >= time - 1e-6).map(|&(_, cwnd)| cwnd).expect("a round");
        assert!((least..=most).contains(&found), "{found} segments at {time} s, not {least} to {most}");
    }
}

#[test]
fn on_short_paths_it_grows_as_reno_would() {
    // 1 ms: the curve is flat. 0.529 segments in a round trip, from 70 to 100 in 57; from there on, one.
    let mut cubic = after_loss();
    let mut seen = Vec::new();
    drive(&mut cubic, (0.0, 0.08), 0.001, 1, |_, _, cubic| seen.push(cubic.cwnd() / MSS));
    assert!((80..=82).contains(&seen[19]), "{}", seen[19]);
    assert!((99..=102).contains(&seen[56]), "{}", seen[56]);
    assert!((119..=124).contains(&seen[78]), "{}", seen[78]);
}

#[test]
fn a_flow_that_has_less_than_before_gives_way() {
    let mut cubic = after_loss();
    // At 70 segments, below W_max of 100: W_max becomes 70 * 0.85 = 59.5, and the window 49.
    cubic.on_ack(&ack(Instant::ZERO, 0));
    cubic.on_congestion(&event(Signal::Loss, 70 * MSS));
    cubic.on_recovery_end(Instant::ZERO, 0);
    assert_eq!(cubic.cwnd(), 49 * MSS);
    let mut oracle = Oracle::new(59.5, 49.0, 70.0, 0.0);
    drive(&mut cubic, (0.0, 6.0), RTT, 1, |now, segments, cubic| {
        (0..segments).for_each(|_| oracle.ack_one(now, RTT));
        assert!((f64::from(cubic.cwnd()) / f64::from(MSS) - oracle.cwnd).abs() < 2.0, "{now}: {oracle:?}");
    });
}

#[test]
fn time_in_which_the_window_is_not_used_does_not_count() {
    let mut cubic = after_loss();
    drive(&mut cubic, (0.0, 1.0), RTT, 1, |_, _, _| {});
    let (before, mut busy) = (cubic.cwnd(), cubic.clone());
    // A minute of little: the curve would be at 100 + 0.4 * 56^3.
    for second in 2..60 {
        cubic.on_ack(&AckSample { is_cwnd_limited: false, ..ack(at(f64::from(second)), MSS) });
    }
    assert_eq!(cubic.cwnd(), before);
    // And a minute of nothing. Then it goes on as if there had been no pause.
    cubic.on_restart(at(120.0), Duration::from_secs(60));
    drive(&mut cubic, (120.0, 122.0), RTT, 1, |_, _, _| {});
    drive(&mut busy, (1.0, 3.0), RTT, 1, |_, _, _| {});
    assert!(cubic.cwnd().abs_diff(busy.cwnd()) <= 2 * MSS, "{} {}", cubic.cwnd(), busy.cwnd());
}

#[test]
fn a_round_trip_makes_half_as_much_again_at_most() {
    let mut cubic = after_loss();
    cubic.on_ack(&ack(at(0.1), MSS));
    let before = cubic.cwnd();
    // An hour between two ACKs, and the second one for more than there is.
    cubic.on_ack(&ack(at(3_600.0), u32::MAX));
    assert!(cubic.cwnd() <= before + before / 2 + MSS, "{} {before}", cubic.cwnd());
}

#[test]
fn after_a_timeout_the_curve_begins_at_its_turning_point() {
    let mut cubic = after_loss();
    cubic.on_ack(&ack(Instant::ZERO, 0));
    cubic.on_congestion(&event(Signal::Timeout, 70 * MSS));
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (MSS, Some(49 * MSS)));
    cubic.on_ack(&AckSample { is_in_recovery: true, ..ack(Instant::ZERO, 48 * MSS) });
    cubic.on_recovery_end(Instant::ZERO, 0);
    assert_eq!(cubic.cwnd(), 49 * MSS);
    let mut oracle = Oracle::new(49.0, 49.0, 70.0, 0.0);
    drive(&mut cubic, (0.0, 6.0), RTT, 1, |now, segments, cubic| {
        (0..segments).for_each(|_| oracle.ack_one(now, RTT));
        assert!((f64::from(cubic.cwnd()) / f64::from(MSS) - oracle.cwnd).abs() < 2.0, "{now}: {oracle:?}");
    });
}

#[test]
fn what_was_no_loss_leaves_no_trace() {
    let mut cubic = after_loss();
    let mut undone = cubic.clone();
    drive(&mut cubic, (0.0, 3.0), RTT, 1, |_, _, _| {});
    drive(&mut undone, (0.0, 3.0), RTT, 1, |_, _, _| {});
    undone.on_congestion(&event(Signal::Loss, undone.cwnd()));
    assert!(undone.cwnd() < cubic.cwnd());
    undone.on_undo(at(3.0));
    assert_eq!((undone.cwnd(), undone.ssthresh()), (cubic.cwnd(), cubic.ssthresh()));
    drive(&mut cubic, (3.0, 8.0), RTT, 1, |_, _, _| {});
    drive(&mut undone, (3.0, 8.0), RTT, 1, |_, _, _| {});
    assert!(undone.cwnd().abs_diff(cubic.cwnd()) <= 2 * MSS, "{} {}", undone.cwnd(), cubic.cwnd());
}

#[test]
fn what_is_in_flight_is_reduced_unless_the_window_limits_it() {
    for (is_cwnd_limited, in_flight, ssthresh) in
        [(true, 96, 70), (false, 96, 67), (false, 10, 7), (false, 1, 2)]
    {
        let mut cubic = Cubic::new(MSS, 100 * MSS);
        cubic.on_ack(&AckSample { is_cwnd_limited, ..ack(Instant::ZERO, 0) });
        cubic.on_congestion(&event(Signal::Loss, in_flight * MSS));
        assert_eq!(
            cubic.ssthresh().map(|bytes| bytes / MSS),
            Some(ssthresh),
            "{is_cwnd_limited} {in_flight}"
        );
    }
    // A part of a segment may go: the window is whole segments.
    let mut cubic = Cubic::new(MSS, 5 * MSS);
    cubic.on_ack(&ack(Instant::ZERO, 0));
    cubic.on_congestion(&event(Signal::Loss, 5 * MSS));
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (4 * MSS, Some(3_500)));
}
