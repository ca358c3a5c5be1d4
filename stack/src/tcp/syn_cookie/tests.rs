use super::*;

fn flow(local: &str, remote: &str) -> FlowKey {
    FlowKey::new(local.parse().expect("local"), remote.parse().expect("remote")).expect("one family")
}

fn all_kept() -> Vec<Option<Kept>> {
    let mut all = vec![None];
    for window_scale in (0..15).map(Some).chain([None]) {
        for (sack, ecn) in [(false, false), (true, false), (false, true), (true, true)] {
            all.push(Some(Kept { window_scale, sack, ecn }));
        }
    }
    all
}

#[test]
fn every_mss_comes_back_as_the_nearest_class_below() {
    let mut cookies = SynCookies::new(&mut Random::new(1));
    let flow = flow("10.0.0.1:80", "10.0.0.2:1000");
    let now = Instant::from_secs(1_000);
    let mut classes = std::collections::BTreeSet::new();
    for mss in (48..10_000).step_by(7).chain([48, 255, 256, 535, 536, 1219, 1220, 1460, 8940, u16::MAX]) {
        let irs = Seq(u32::from(mss) << 16);
        let iss = cookies.bake(now, &flow, irs, mss, None);
        let class = cookies.check(now, &flow, irs, iss, None).expect("ours");
        let expected = MSS_CLASSES.iter().filter(|&&class| class <= mss).max();
        assert_eq!(Some(&class), expected, "{mss}");
        classes.insert(class);
    }
    assert_eq!(classes.len(), MSS_CLASSES.len());
    assert!(MSS_CLASSES.is_sorted());
}

#[test]
fn a_cookie_is_of_its_flow_its_irs_its_options_and_its_baker() {
    let mut cookies = SynCookies::new(&mut Random::new(1));
    let other_baker = SynCookies::new(&mut Random::new(2));
    let now = Instant::from_secs(1_000);
    let flows = [
        ("10.0.0.1:80", "10.0.0.2:1000"),
        ("10.0.0.1:81", "10.0.0.2:1000"),
        ("10.0.0.1:80", "10.0.0.2:1001"),
        ("10.0.0.1:80", "10.0.0.3:1000"),
        ("10.0.0.4:80", "10.0.0.2:1000"),
        ("[fd00::1]:80", "[fd00::2]:1000"),
        ("[fd00::1]:80", "[fd00::3]:1000"),
    ]
    .map(|(local, remote)| flow(local, remote));
    for (at, flow) in flows.iter().enumerate() {
        for kept in all_kept() {
            let irs = Seq(77);
            let iss = cookies.bake(now, flow, irs, 1460, kept);
            for (other, flow) in flows.iter().enumerate() {
                let mss = cookies.check(now, flow, irs, iss, kept);
                assert_eq!(mss.is_some(), at == other, "{flow:?}");
            }
            for kept_other in all_kept() {
                let mss = cookies.check(now, flow, irs, iss, kept_other);
                assert_eq!(mss.is_some(), kept == kept_other, "{kept:?} {kept_other:?}");
            }
            assert_eq!(cookies.check(now, flow, irs + 1, iss, kept), None);
            assert_eq!(other_baker.check(now, flow, irs, iss, kept), None);
            for bit in 0..32 {
                assert_eq!(cookies.check(now, flow, irs, Seq(iss.0 ^ (1 << bit)), kept), None, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_cookie_is_believed_for_a_minute_or_two() {
    let flow = flow("10.0.0.1:80", "10.0.0.2:1000");
    for (baked, asked, expected) in [
        (0_i64, 0_i64, true),
        (0, 64, true),
        (0, 127, true),
        (0, 128, false),
        (63, 127, true),
        (63, 128, false),
        (64, 64, true),
        (64, 63, false),
        (64, 191, true),
        (64, 192, false),
        // The counter comes again after 8716 years only.
        (0, 64 << 31, false),
        (-1, 0, true),
        (-64, 63, true),
        (-65, 63, false),
    ] {
        let mut cookies = SynCookies::new(&mut Random::new(1));
        let iss = cookies.bake(Instant::from_secs(baked), &flow, Seq(5), 1460, None);
        let mss = cookies.check(Instant::from_secs(asked), &flow, Seq(5), iss, None);
        assert_eq!(mss.is_some(), expected, "baked at {baked}, asked at {asked}");
    }
}

#[test]
fn cookies_are_recent_for_two_minutes() {
    let flow = flow("10.0.0.1:80", "10.0.0.2:1000");
    let mut cookies = SynCookies::new(&mut Random::new(1));
    assert!(!cookies.is_recent(Instant::ZERO));
    cookies.bake(Instant::from_secs(10), &flow, Seq(5), 1460, None);
    for (at, expected) in [(10, true), (137, true), (138, false), (1_000, false)] {
        assert_eq!(cookies.is_recent(Instant::from_secs(at)), expected, "{at}");
    }
}

#[test]
fn guesses_are_right_as_seldom_as_they_should() {
    let flow = flow("10.0.0.1:80", "10.0.0.2:1000");
    let mut random = Random::new(3);
    let mut cookies = SynCookies::new(&mut random);
    let now = Instant::from_secs(1_000);
    cookies.bake(now, &flow, Seq(5), 1460, None);
    // One of 2^28 is right: of a million, 0.004.
    let guess = |random: &mut Random| (Seq(random.u32()), Seq(random.u32()));
    let right = (0..1_000_000)
        .filter(|_| {
            let (irs, iss) = guess(&mut random);
            cookies.check(now, &flow, irs, iss, None).is_some()
        })
        .count();
    assert_eq!(right, 0);
    // That it is one of 2^28 and not less often: with 20 bits known, one of 2^12.
    let irs = Seq(5);
    let iss = cookies.bake(now, &flow, irs, 1460, None);
    let known = 20;
    let right = (0..100_000)
        .filter(|_| {
            let guess = Seq(iss.0 & !(u32::MAX << known) | random.u32() << known);
            cookies.check(now, &flow, irs, guess, None).is_some()
        })
        .count();
    let expected = 100_000 >> (32 - known);
    assert!((expected / 2..=expected * 2).contains(&right), "{right}");
}

#[test]
fn a_timestamp_keeps_what_was_agreed_on_and_is_hardly_behind_the_clock() {
    for milliseconds in [0, 1, 63, 64, 1_000_000, u32::MAX - 63, u32::MAX] {
        for kept in all_kept().into_iter().flatten() {
            let stamp = kept.within(milliseconds);
            let behind = milliseconds.wrapping_sub(stamp);
            assert!(behind < 128, "{behind} ms behind");
            for age in [0, 1, 127_999] {
                assert_eq!(
                    Kept::of(stamp, milliseconds.wrapping_add(age)),
                    Some(kept),
                    "{milliseconds} {age}"
                );
            }
            assert_eq!(Kept::of(stamp, milliseconds.wrapping_add(128_128)), None);
            assert_eq!(Kept::of(stamp, stamp.wrapping_sub(1)), None, "it has not come yet");
        }
    }
}
