//! Reports, good and absurd.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn table(config: PathMtuConfig) -> PathMtu {
    PathMtu::new(config, &mut Random::new(1))
}

const IGNORED: Result<u16, DropReason> = Err(DropReason::IcmpIgnored);

#[test]
fn reports_lower_the_estimate_and_nothing_else() {
    for (dst, link_mtu, reports) in [
        ("192.0.2.1", 1500, &[(1400, Ok(1400)), (1400, Ok(1400)), (1450, IGNORED), (600, Ok(600))][..]),
        ("192.0.2.1", 1500, &[(1501, IGNORED), (u32::MAX, IGNORED), (1500, Ok(1500))]),
        // Absurd: as low as we go, and then without DF.
        ("192.0.2.1", 1500, &[(68, Ok(552)), (1, Ok(552)), (552, Ok(552))]),
        // Without an MTU: from plateau to plateau.
        (
            "192.0.2.1",
            9000,
            &[(0, Ok(8166)), (0, Ok(4352)), (0, Ok(2002)), (0, Ok(1492)), (0, Ok(1006)), (0, Ok(552))],
        ),
        // A link that takes less than our minimum.
        ("192.0.2.1", 300, &[(200, Ok(300)), (301, IGNORED)]),
        ("2001:db8::1", 1500, &[(1280, Ok(1280)), (1279, IGNORED), (0, IGNORED), (1400, IGNORED)]),
        ("2001:db8::1", 9000, &[(65_536 + 1400, IGNORED), (9000, Ok(9000)), (8000, Ok(8000))]),
    ] {
        let mut paths = table(PathMtuConfig::default());
        let (dst, now) = (ip(dst), Instant::ZERO);
        let mut last = link_mtu;
        for &(mtu, expected) in reports {
            assert_eq!(paths.handle_too_big(now, dst, mtu, link_mtu), expected, "{dst} {link_mtu} {mtu}");
            last = expected.unwrap_or(last);
            assert_eq!(paths.mtu(dst, link_mtu), last);
        }
        assert_eq!(paths.mtu(ip("198.51.100.1"), link_mtu), link_mtu);
    }
}

#[test]
fn a_path_below_our_minimum_goes_without_df() {
    let mut paths = table(PathMtuConfig::default());
    let (dst, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
    paths.handle_too_big(Instant::ZERO, dst, 1000, 1500).expect("lower");
    assert!(!paths.may_fragment(dst));
    paths.handle_too_big(Instant::ZERO, dst, 300, 1500).expect("lower");
    paths.handle_too_big(Instant::ZERO, v6, 1280, 1500).expect("lower");
    assert!(paths.may_fragment(dst) && !paths.may_fragment(v6));
    assert_eq!(paths.counters().too_small, 1);
    let believing = PathMtuConfig { min_v4_bytes: 68, ..PathMtuConfig::default() };
    let mut paths = table(believing);
    assert_eq!(paths.handle_too_big(Instant::ZERO, dst, 300, 1500), Ok(300));
    assert_eq!(paths.handle_too_big(Instant::ZERO, dst, 1, 1500), Ok(68));
    assert_eq!(paths.handle_too_big(Instant::ZERO, dst, 0, 1500), Ok(68));
}

#[test]
fn after_ten_minutes_the_link_counts_again() {
    let (mut paths, dst, start) = (table(PathMtuConfig::default()), ip("192.0.2.1"), Instant::from_secs(7));
    paths.handle_too_big(start, dst, 1400, 1500).expect("lower");
    // A report that says the same begins the time anew.
    paths.handle_too_big(start + Duration::from_secs(60), dst, 1400, 1500).expect("the same");
    let end = start + Duration::from_secs(660);
    assert_eq!(paths.next_deadline(), Some(end));
    paths.handle_timeout(end - Duration::from_micros(1));
    assert_eq!(paths.mtu(dst, 1500), 1400);
    paths.handle_timeout(end);
    assert_eq!((paths.mtu(dst, 1500), paths.next_deadline()), (1500, None));
}

proptest! {
    #[test]
    fn the_table_is_a_bounded_map(
        reports in prop::collection::vec((0u16..12, 500u32..1600, 0i64..300), 1..200),
    ) {
        let mut paths = table(PathMtuConfig { entries_max: 8, ..PathMtuConfig::default() });
        // By destination: MTU and when it was reported, of two reports at once the larger address.
        let mut model: BTreeMap<IpAddr, (u16, Instant)> = BTreeMap::new();
        let mut now = Instant::ZERO;
        for (host, mtu, pause) in reports {
            now += Duration::from_secs(pause as u64);
            paths.handle_timeout(now);
            model.retain(|_, (_, at)| *at + Duration::from_secs(600) > now);
            let dst = IpAddr::V4([10, 0, 0, host as u8].into());
            let known = model.get(&dst).map_or(1500, |(mtu, _)| *mtu);
            let mtu = mtu.max(552);
            let result = paths.handle_too_big(now, dst, mtu, 1500);
            prop_assert_eq!(result.is_ok(), mtu <= u32::from(known));
            if result.is_ok() {
                model.insert(dst, (mtu as u16, now));
                if model.len() > 8 {
                    let oldest = model.iter().filter(|(other, _)| **other != dst);
                    let oldest = oldest.min_by_key(|(dst, (_, at))| (*at, **dst)).map(|(dst, _)| *dst);
                    model.remove(&oldest.expect("several"));
                }
            }
            prop_assert_eq!(paths.len(), model.len());
            for path in paths.snapshot() {
                prop_assert_eq!(Some(&(path.mtu, path.expires - Duration::from_secs(600))), model.get(&path.dst));
                prop_assert_eq!(paths.mtu(path.dst, 1500), path.mtu);
            }
        }
    }
}

#[test]
fn bounds_to_the_byte_and_what_is_counted() {
    let (dst, now) = (ip("192.0.2.1"), Instant::ZERO);
    let mut paths = table(PathMtuConfig { entries_max: 2, ..PathMtuConfig::default() });
    // Our minimum itself is nothing absurd.
    assert_eq!(paths.handle_too_big(now, dst, 552, 1500), Ok(552));
    assert!(!paths.may_fragment(dst));
    assert_eq!(paths.handle_too_big(now, dst, 551, 1500), Ok(552));
    assert!(paths.may_fragment(dst));
    assert_eq!(paths.handle_too_big(now, dst, 552, 1500), Ok(552));
    assert!(paths.may_fragment(dst), "it was said once that the path takes less");
    // A link that takes less by now.
    assert_eq!((paths.mtu(dst, 1500), paths.mtu(dst, 300)), (552, 300));
    let seconds = |n| now + Duration::from_secs(n);
    assert_eq!(paths.handle_too_big(seconds(1), ip("192.0.2.2"), 1400, 1500), Ok(1400));
    assert_eq!((paths.len(), paths.counters().evicted), (2, 0));
    assert_eq!(paths.handle_too_big(seconds(2), ip("192.0.2.3"), 1400, 1500), Ok(1400));
    assert_eq!((paths.len(), paths.mtu(dst, 1500)), (2, 1500), "the oldest goes");
    assert_eq!(paths.handle_too_big(seconds(2), ip("192.0.2.3"), 1401, 1500), IGNORED);
    assert_eq!(paths.handle_too_big(seconds(2), ip("192.0.2.9"), 0, 1500), Ok(1492));
    let expected =
        PathMtuCounters { lowered: 4, confirmed: 2, too_large: 1, too_small: 1, without_mtu: 1, evicted: 2 };
    assert_eq!(paths.counters(), expected);
}
