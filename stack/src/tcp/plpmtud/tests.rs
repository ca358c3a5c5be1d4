//! Searches over paths that say nothing.

use super::*;

/// A connection over a path that swallows what is too long.
struct Model {
    search: Plpmtud,
    now: Instant,
    seq: Seq,
    path_mtu: u16,
    probes: u32,
}

impl Model {
    fn new(search: Plpmtud, path_mtu: u16) -> Self {
        // Numbers wrap on the way.
        Self { search, now: Instant::from_secs(5), seq: Seq(u32::MAX - 3000), path_mtu, probes: 0 }
    }

    /// What has just come out of a black hole.
    fn fallen(mtu: u16, path_mtu: u16, is_v4: bool) -> Self {
        let mut model = Self::new(Plpmtud::new(mtu, mtu, is_v4), path_mtu);
        let base = if is_v4 { 1024 } else { 1280 };
        let found = model.search.on_timeout(model.now, 2, mtu);
        assert_eq!(found, Found::Mtu { mtu: base, lost: true });
        model
    }

    /// A round trip with as much data as one likes; true if there was a probe.
    fn turn(&mut self) -> bool {
        self.now += Duration::from_millis(50);
        let Some(bytes) = self.search.probe(self.now) else { return false };
        assert!(bytes > self.search.mtu(), "a probe is longer than the others");
        self.probes += 1;
        let (start, end) = (self.seq, self.seq + u32::from(bytes - 40));
        self.search.on_probe_sent(self.now, start, end);
        assert_eq!(self.search.probe(self.now), None, "one at a time");
        self.seq = end;
        self.now += Duration::from_millis(50);
        assert_eq!(self.search.on_ack(self.now, start), Found::Nothing, "what came before it");
        assert!(!self.search.on_lost(self.now, start - 1460), "what came before it");
        let before = self.search.mtu();
        if bytes <= self.path_mtu {
            assert_eq!(self.search.on_ack(self.now, end), Found::Mtu { mtu: bytes, lost: false });
        } else {
            assert!(self.search.on_lost(self.now, start));
            assert!(!self.search.on_lost(self.now, start), "once");
            // It was repeated in pieces.
            assert_eq!(self.search.on_ack(self.now, end), Found::Nothing);
            assert_eq!(self.search.mtu(), before);
        }
        assert!(self.search.mtu() <= self.path_mtu, "never more than the path takes");
        true
    }

    /// Until the search ends; returns how many probes that took.
    fn settle(&mut self) -> u32 {
        let before = self.probes;
        while self.turn() {
            assert!(self.probes < before + 100, "a search ends");
        }
        self.probes - before
    }
}

#[test]
fn it_is_small() {
    assert!(size_of::<Plpmtud>() <= 32, "{}", size_of::<Plpmtud>());
}

#[test]
fn every_hidden_mtu_is_found() {
    for (mtu, is_v4, base, probes_max) in
        [(1500, true, 1024, 8), (1500, false, 1280, 7), (9000, true, 1024, 14), (9000, false, 1280, 14)]
    {
        let mut most = 0;
        for path_mtu in base..=mtu {
            let mut model = Model::fallen(mtu, path_mtu, is_v4);
            let probes = model.settle();
            most = most.max(probes);
            let (found, gap) = (model.search.mtu(), path_mtu - model.search.mtu());
            assert!(probes <= probes_max, "{path_mtu}: {probes} probes");
            assert!(gap <= 16.max(path_mtu / 62), "{path_mtu}: found {found}");
            if path_mtu == 1500 && mtu == 9000 {
                assert_eq!((found, probes), (1500, 5), "an Ethernet behind a link of long frames");
            }
            if path_mtu == mtu {
                assert_eq!((found, probes), (mtu, 1), "the top is tried first");
            }
        }
        assert_eq!(most, probes_max, "{mtu}");
    }
}

#[test]
fn it_ends_after_three_losses_and_begins_again_later() {
    let mut model = Model::fallen(1500, 1450, true);
    model.settle();
    let (found, ended) = (model.search.mtu(), model.now);
    assert!((1434..=1450).contains(&found), "{found}");
    let early = ended + Plpmtud::AGAIN - Duration::from_millis(200);
    assert_eq!(model.search.probe(early), None);
    // The path has become better.
    model.now = ended + Plpmtud::AGAIN;
    model.path_mtu = 1500;
    assert_eq!(model.settle(), 1);
    assert_eq!(model.search.mtu(), 1500);
    // There is nothing more to find.
    assert_eq!(model.search.probe(model.now + Plpmtud::AGAIN + Plpmtud::AGAIN), None);
}

/// A probe that is lost by chance costs probes, not bytes of the MTU.
#[test]
fn losses_by_chance_do_not_stay() {
    for (path_mtu, lost_at) in (0..6).flat_map(|lost_at| [(1500, lost_at), (1450, lost_at), (1040, lost_at)])
    {
        let mut model = Model::fallen(1500, path_mtu, true);
        let mut probes = 0;
        loop {
            // What swallows everything is lost by chance.
            model.path_mtu = if model.probes == lost_at { model.search.mtu() } else { path_mtu };
            if !model.turn() {
                break;
            }
            probes += 1;
        }
        let gap = path_mtu - model.search.mtu();
        assert!(gap <= 16 && probes <= 16, "{path_mtu}, lost at {lost_at}: {gap}, {probes} probes");
    }
    // Two in a row of one size, when there is nothing left to halve.
    let mut model = Model::fallen(1500, 1499, true);
    while model.search.lost < 2 {
        assert!(model.turn());
    }
    model.path_mtu = 1500;
    assert!(model.settle() <= 2);
    assert_eq!(model.search.mtu(), 1500);
}

#[test]
fn a_path_that_takes_what_the_link_does_is_not_probed() {
    let mut model = Model::new(Plpmtud::new(1500, 1500, true), 1500);
    assert_eq!(model.search.on_ack(model.now, model.seq), Found::Nothing);
    assert_eq!(model.settle(), 0);
    assert_eq!(model.search.probe(model.now + Plpmtud::AGAIN * 2), None);
}

#[test]
fn what_a_router_has_told_before_counts_for_a_while() {
    let mut model = Model::new(Plpmtud::new(1400, 1500, true), 1500);
    assert_eq!(model.search.probe(model.now), None);
    model.search.on_ack(model.now, model.seq);
    assert_eq!(model.search.probe(model.now + Plpmtud::AGAIN - Duration::from_micros(1)), None);
    model.now += Plpmtud::AGAIN;
    assert_eq!(model.settle(), 1);
    assert_eq!(model.search.mtu(), 1500);
}

#[test]
fn a_path_that_gets_worse_is_a_black_hole() {
    let mut model = Model::fallen(1500, 1500, true);
    model.settle();
    assert_eq!(model.search.mtu(), 1500);
    model.path_mtu = 1300;
    let (search, now) = (&mut model.search, model.now);
    for (backoffs, bytes, expected) in [
        (1, 1500, Found::Nothing),
        // Short ones get lost for other reasons.
        (2, 1024, Found::Nothing),
        (2, 1025, Found::Mtu { mtu: 1024, lost: true }),
        // Sent before, or a retransmission of it.
        (3, 1500, Found::Nothing),
        (3, 1024, Found::Nothing),
    ] {
        assert_eq!(search.on_timeout(now, backoffs, bytes), expected, "{backoffs} {bytes}");
    }
    assert!(model.settle() <= 8);
    assert!((1284..=1300).contains(&model.search.mtu()));
    // Worse still: the base is swallowed too.
    model.path_mtu = 800;
    let (search, now) = (&mut model.search, model.now);
    for (backoffs, bytes, expected) in [
        (1, 1290, Found::Nothing),
        (2, 1290, Found::Mtu { mtu: 1024, lost: true }),
        (3, 1024, Found::Nothing),
        (4, 1024, Found::Mtu { mtu: 576, lost: true }),
        (5, 576, Found::Nothing),
        (99, 576, Found::Nothing),
    ] {
        assert_eq!(search.on_timeout(now, backoffs, bytes), expected, "{backoffs} {bytes}");
    }
    model.settle();
    assert!((784..=800).contains(&model.search.mtu()), "{}", model.search.mtu());
}

#[test]
fn ipv6_has_one_floor() {
    let mut search = Plpmtud::new(1500, 1500, false);
    let now = Instant::from_secs(1);
    assert_eq!(search.on_timeout(now, 2, 1500), Found::Mtu { mtu: 1280, lost: true });
    for backoffs in 3..9 {
        assert_eq!(search.on_timeout(now, backoffs, 1280), Found::Nothing);
    }
    // A link that takes no more has nothing to fall to.
    let mut search = Plpmtud::new(1280, 1280, false);
    assert_eq!(search.on_timeout(now, 9, 1280), Found::Nothing);
    let mut search = Plpmtud::new(296, 296, true);
    assert_eq!(search.on_timeout(now, 9, 296), Found::Nothing);
    assert_eq!(search.mtu(), 296);
}

#[test]
fn a_router_that_tells_ends_the_search() {
    let mut model = Model::fallen(1500, 1400, true);
    let bytes = model.search.probe(model.now).expect("a probe");
    assert_eq!(bytes, 1500);
    let (start, end) = (model.seq, model.seq + 1460);
    model.search.on_probe_sent(model.now, start, end);
    model.search.set_mtu(model.now, 1400, 1500);
    assert_eq!(model.search.mtu(), 1024, "more is tried, not believed");
    assert!(model.search.on_lost(model.now, start), "no congestion");
    assert_eq!(model.settle(), 1, "the size that it has told");
    assert_eq!(model.search.mtu(), 1400);
    // The next router.
    model.search.set_mtu(model.now, 1300, 1500);
    assert_eq!(model.search.mtu(), 1300);
    assert_eq!(model.settle(), 0);
    // A timeout meanwhile: what the routers have told still counts.
    model.path_mtu = 1300;
    assert_eq!(model.search.on_timeout(model.now, 2, 1300), Found::Mtu { mtu: 1024, lost: true });
    assert_eq!(model.settle(), 1);
    assert_eq!(model.search.mtu(), 1300);
    model.now += Plpmtud::AGAIN;
    assert_eq!(model.search.probe(model.now), Some(1500));
}

#[test]
fn a_probe_that_a_router_answers_is_forgotten() {
    let mut model = Model::fallen(1500, 1400, true);
    let (start, end) = (model.seq, model.seq + 1460);
    model.search.on_probe_sent(model.now, start, end);
    model.search.set_mtu(model.now, 1400, 1500);
    // Its data was repeated in pieces before it was found lost.
    assert_eq!(model.search.on_ack(model.now, end), Found::Nothing);
    assert_eq!(model.search.mtu(), 1024);
    assert_eq!(model.search.probe(model.now), Some(1400));
    // The router tells what we know already.
    model.search.set_mtu(model.now, 1024, 1500);
    assert_eq!(model.search.probe(model.now), None);
}

#[test]
fn another_link_is_tried_and_not_believed() {
    let mut model = Model::new(Plpmtud::new(1500, 1500, true), 9000);
    model.search.set_mtu(model.now, 9000, 9000);
    assert_eq!(model.search.mtu(), 1500);
    assert_eq!(model.settle(), 1);
    assert_eq!(model.search.mtu(), 9000);
    // The same again says nothing new, even after a black hole.
    model.path_mtu = 2000;
    model.search.on_timeout(model.now, 2, 9000);
    model.settle();
    let (found, probes) = (model.search.mtu(), model.probes);
    assert!((1960..=2000).contains(&found), "{found}");
    model.search.set_mtu(model.now, 9000, 9000);
    assert_eq!((model.settle(), model.probes), (0, probes));
    // A link that takes less.
    model.search.set_mtu(model.now, 1500, 1500);
    assert_eq!(model.search.mtu(), 1500);
    assert_eq!(model.search.probe(model.now + Plpmtud::AGAIN * 2), None);
}

/// Nobody has said that it was lost; that it was repeated says so.
#[test]
fn what_was_repeated_says_nothing_of_the_probe() {
    let size = 1460;
    for (from, len, is_among) in [
        (0, size, true),
        (-1448, 1449, true),
        (size - 1, 1448, true),
        (-1448, 4 * 1448, true),
        (-1448, 1448, false),
        (size, 1448, false),
    ] {
        let mut model = Model::fallen(1500, 1500, true);
        let (start, end) = (model.seq, model.seq + size as u32);
        model.search.on_probe_sent(model.now, start, end);
        let from = Seq(start.0.wrapping_add_signed(from));
        model.search.on_resent(model.now, from, from + len as u32);
        let found = model.search.on_ack(model.now, end);
        let expected = if is_among { Found::Nothing } else { Found::Mtu { mtu: 1500, lost: false } };
        assert_eq!(found, expected, "{from} {len}");
        // It is the next size that is tried, as after any loss.
        assert_eq!(model.search.probe(model.now), is_among.then_some(1262));
    }
}

/// A probe that ends in a timeout, though data should have followed, holds the next one back.
#[test]
fn probes_do_not_cause_timeouts_all_the_time() {
    let mut model = Model::fallen(1500, 1100, true);
    let mut timeouts = 0;
    let end = model.now + Duration::from_secs(100);
    while model.now < end {
        model.now += Duration::from_millis(50);
        if let Some(bytes) = model.search.probe(model.now) {
            let start = model.seq;
            model.search.on_probe_sent(model.now, start, start + u32::from(bytes));
            assert_eq!(model.search.on_timeout(model.now, 1, bytes), Found::Nothing);
            assert!(!model.search.on_lost(model.now, start), "it counts as congestion");
            timeouts += 1;
        }
    }
    assert_eq!(timeouts, 5);
}

#[test]
fn what_was_not_asked_for_is_no_probe() {
    let mut search = Plpmtud::new(1500, 1500, true);
    let now = Instant::from_secs(1);
    search.on_probe_sent(now, Seq(1), Seq(1461));
    assert!(!search.on_lost(now, Seq(1)));
    assert_eq!(search.on_ack(now, Seq(2000)), Found::Nothing);
    assert_eq!(search.mtu(), 1500);
}
