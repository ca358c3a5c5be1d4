//! States of RFC 4861: the tables of section 7.2.5 and appendix C, and what happens over time.

use super::*;

const OLD: u16 = 5;
const NEW: u16 = 6;
const S: u8 = 0x40;
const O: u8 = 0x20;

/// What an advertisement has: flags, and the target link-layer address option.
fn advertise(table: &mut Table, flags: u8, option: Option<u16>) -> Result<(), DropReason> {
    let option = option.map_or(Vec::new(), |n| lladdr(2, mac(n)));
    let message = ndp(136, flags, v6(9), &option);
    table.handle_ndp(START, Some(&link(mac(NEW), ME)), &ip(v6(9), MY_V6), &message, &addresses())
}

#[test]
fn advertisements_as_in_appendix_c() {
    use State::*;
    let (same, other) = (Some(OLD), Some(NEW));
    // State, flags, option; new state, hardware address afterwards.
    let rows: &[(State, u8, Option<u16>, State, u16)] = &[
        // INCOMPLETE: "NA, Solicited=0" records and is STALE, which becomes DELAY as a frame waits.
        (Incomplete, 0, other, Delay, NEW),
        (Incomplete, O, other, Delay, NEW),
        (Incomplete, S, other, Reachable, NEW),
        (Incomplete, S | O, other, Reachable, NEW),
        (Incomplete, S | O, None, Incomplete, 0),
        // "!INCOMPLETE: NA, Solicited=1, Override=0, same link-layer address as cached": REACHABLE.
        (Stale, S, same, Reachable, OLD),
        (Reachable, S, same, Reachable, OLD),
        (Delay, S, same, Reachable, OLD),
        (Probe, S, same, Reachable, OLD),
        // "NA, Solicited=any, Override=any, no link-layer address": solicited is reachable, other is nothing.
        (Probe, S, None, Reachable, OLD),
        (Stale, S | O, None, Reachable, OLD),
        (Reachable, 0, None, Reachable, OLD),
        (Probe, O, None, Probe, OLD),
        // "REACHABLE: NA, Override=0, different": STALE, address unchanged.
        (Reachable, S, other, Stale, OLD),
        (Reachable, 0, other, Stale, OLD),
        // "STALE, PROBE, or DELAY: the same": unchanged.
        (Stale, S, other, Stale, OLD),
        (Probe, S, other, Probe, OLD),
        (Delay, 0, other, Delay, OLD),
        // "!INCOMPLETE: NA, Solicited=1, Override=1": recorded, REACHABLE.
        (Stale, S | O, other, Reachable, NEW),
        (Reachable, S | O, other, Reachable, NEW),
        (Delay, S | O, same, Reachable, OLD),
        (Probe, S | O, other, Reachable, NEW),
        // "NA, Solicited=0, Override=1, different": recorded, STALE.
        (Stale, O, other, Stale, NEW),
        (Reachable, O, other, Stale, NEW),
        (Delay, O, other, Stale, NEW),
        (Probe, O, other, Stale, NEW),
        // "NA, Solicited=0, Override=1, same" and "Override=0, same": unchanged.
        (Reachable, O, same, Reachable, OLD),
        (Stale, O, same, Stale, OLD),
        (Delay, 0, same, Delay, OLD),
        (Probe, 0, same, Probe, OLD),
        // Ours: static entries stay; one that did not answer and speaks now is known again.
        (Permanent, S | O, other, Permanent, OLD),
        (Failed, S | O, other, Reachable, NEW),
        (Failed, O, other, Stale, NEW),
    ];
    for row @ &(from, flags, option, to, expected) in rows {
        let neighbor = IpAddr::V6(v6(9));
        let mut table = table_with(neighbor, from, mac(OLD));
        if from == Failed {
            assert_eq!(state(&table, neighbor), Some(Failed));
        }
        let _ = advertise(&mut table, flags, option);
        let info = table.get(neighbor).expect("it is there");
        assert_eq!(info.state, to, "{row:?}");
        assert_eq!(info.mac, to.has_address().then_some(mac(expected)), "{row:?}");
    }
}

#[test]
fn solicitations_as_in_appendix_c() {
    use State::*;
    let rows = [
        (Incomplete, NEW, Delay, NEW),
        (Reachable, NEW, Stale, NEW),
        (Stale, NEW, Stale, NEW),
        (Delay, NEW, Stale, NEW),
        (Probe, NEW, Stale, NEW),
        (Reachable, OLD, Reachable, OLD),
        (Stale, OLD, Stale, OLD),
        (Delay, OLD, Delay, OLD),
        (Probe, OLD, Probe, OLD),
        (Permanent, NEW, Permanent, OLD),
        (Failed, NEW, Stale, NEW),
    ];
    for row @ (from, speaker, to, expected) in rows {
        let neighbor = IpAddr::V6(v6(9));
        let mut table = table_with(neighbor, from, mac(OLD));
        let message = ndp(135, 0, MY_V6, &lladdr(1, mac(speaker)));
        let link = link(mac(speaker), ME);
        let verdict = table.handle_ndp(START, Some(&link), &ip(v6(9), MY_V6), &message, &addresses());
        assert_eq!(verdict, Ok(()));
        let info = table.get(neighbor).expect("it is there");
        assert_eq!((info.state, info.mac), (to, Some(mac(expected))), "{row:?}");
        // The router advertisement of an unknown neighbour does the same.
        let mut table = table_with(neighbor, from, mac(OLD));
        assert_eq!(table.learn_router(START, neighbor, Some(mac(speaker))), Ok(()));
        let info = table.get(neighbor).expect("it is there");
        assert_eq!((info.state, info.is_router), (to, true), "{row:?}");
    }
}

#[test]
fn upper_layers_confirm_who_has_an_address() {
    use State::*;
    for from in [Incomplete, Reachable, Stale, Delay, Probe, Failed, Permanent] {
        let neighbor = IpAddr::V4(v4(9));
        let mut table = table_with(neighbor, from, mac(OLD));
        table.confirm(START, neighbor);
        let expected = if [Incomplete, Failed, Permanent].contains(&from) { from } else { Reachable };
        assert_eq!(state(&table, neighbor), Some(expected), "{from}");
    }
}

#[test]
fn a_confirmation_keeps_a_neighbor_reachable() {
    let neighbor = IpAddr::V4(v4(9));
    let mut table = table_with(neighbor, State::Reachable, mac(OLD));
    for second in 1..200 {
        run(&mut table, after(second * 1000));
        table.confirm(after(second * 1000), neighbor);
        assert_eq!(state(&table, neighbor), Some(State::Reachable), "after {second} s");
    }
    // 0.5 to 1.5 of 30 s.
    run(&mut table, after(199_000 + 14_999));
    assert_eq!(state(&table, neighbor), Some(State::Reachable));
    run(&mut table, after(199_000 + 45_000));
    assert_eq!(state(&table, neighbor), Some(State::Stale));
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn who_does_not_answer_is_asked_three_times() {
    for neighbor in [IpAddr::V4(v4(9)), IpAddr::V6(v6(9))] {
        let mut table = default_table();
        assert_eq!(table.lookup(START, neighbor), Lookup::Pending);
        assert!(table.is_empty());
        assert_eq!(park(&mut table, START, neighbor, 1), Ok(()));
        assert_eq!(park(&mut table, after(500), neighbor, 2), Ok(()));
        assert_eq!(drain(&mut table).len(), 1);
        let seen = run(&mut table, after(3000));
        let times: Vec<_> = seen.iter().map(|(at, _)| (*at - START).total_millis()).collect();
        assert_eq!(times, [1000, 2000, 3000, 3000]);
        for (at, (_, output)) in seen.iter().enumerate() {
            match output {
                Output::Arp { dst, .. } => assert_eq!((at < 2, *dst), (true, EthernetAddress::BROADCAST)),
                Output::Ndp { dst, dst_mac, src, .. } => {
                    assert_eq!(*dst, IpAddr::V6(solicited_node(v6(9))));
                    assert_eq!((at < 2, dst_mac.0[0], *src), (true, 0x33, MY_V6.into()));
                }
                Output::Unreachable { next_hop, frame } => {
                    assert_eq!((at >= 2, *next_hop, number(frame)), (true, neighbor, at as u64 - 1));
                }
                _ => panic!("{output:?}"),
            }
        }
        assert_eq!(table.lookup(after(3001), neighbor), Lookup::Unreachable);
        assert_eq!(park(&mut table, after(3001), neighbor, 3), Err(DropReason::NeighborUnreachable));
        // To the microsecond, should its timer be late.
        let end = after(6000);
        assert_eq!(table.lookup(end - Duration::from_micros(1), neighbor), Lookup::Unreachable);
        if neighbor.is_ipv4() {
            assert_eq!(table.lookup(end, neighbor), Lookup::Pending);
        }
        assert_eq!(run(&mut table, after(6000)), []);
        assert_eq!(table.lookup(after(6000), neighbor), Lookup::Pending);
        assert!(table.is_empty());
        assert_eq!(table.parked_bytes(), 0);
    }
}

#[test]
fn a_stale_neighbor_that_is_used_is_asked_itself() {
    for neighbor in [IpAddr::V4(v4(9)), IpAddr::V6(v6(9))] {
        let mut table = default_table();
        table.note_source(source(neighbor));
        table.learn(START, neighbor, mac(OLD)).expect("room");
        assert_eq!(table.next_deadline(), None);
        assert_eq!(table.lookup(START, neighbor), Lookup::Known(mac(OLD)));
        assert_eq!(state(&table, neighbor), Some(State::Delay));
        let seen = run(&mut table, after(7999));
        let times: Vec<_> = seen.iter().map(|(at, _)| (*at - START).total_millis()).collect();
        assert_eq!(times, [5000, 6000, 7000]);
        for (_, output) in seen {
            match output {
                Output::Arp { dst, .. } => assert_eq!(dst, mac(OLD)),
                Output::Ndp { dst_mac, dst, .. } => assert_eq!((dst_mac, dst), (mac(OLD), neighbor)),
                _ => panic!("{output:?}"),
            }
        }
        assert_eq!(table.lookup(after(7999), neighbor), Lookup::Known(mac(OLD)));
        assert_eq!(run(&mut table, after(8000)), []);
        assert!(table.is_empty());
    }
}

#[test]
fn an_answer_releases_what_waits_in_order() {
    for neighbor in [IpAddr::V4(v4(9)), IpAddr::V6(v6(9))] {
        let mut table = default_table();
        (1..=3).for_each(|n| park(&mut table, START, neighbor, n).expect("room"));
        drain(&mut table);
        assert_eq!(answer(&mut table, after(1), neighbor, mac(OLD)), Ok(()));
        let released: Vec<_> = drain(&mut table)
            .into_iter()
            .map(|output| match output {
                Output::Release { mac: to, frame, .. } => {
                    assert_eq!((to, &frame[..6]), (mac(OLD), &mac(OLD).0[..]));
                    number(&frame)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(released, [1, 2, 3]);
        assert_eq!((state(&table, neighbor), table.parked_bytes()), (Some(State::Reachable), 0));
        assert_eq!(table.lookup(after(2), neighbor), Lookup::Known(mac(OLD)));
        // Parked though it is known by now: it goes at once.
        assert_eq!(park(&mut table, after(2), neighbor, 4), Ok(()));
        assert!(matches!(&drain(&mut table)[..], [Output::Release { .. }]));
    }
}

#[test]
fn a_late_timer_does_not_keep_a_neighbor_reachable() {
    let neighbor = IpAddr::V4(v4(9));
    let mut table = table_with(neighbor, State::Reachable, mac(OLD));
    let until = table.next_deadline().expect("REACHABLE ends");
    table.lookup(until - Duration::from_micros(1), neighbor);
    assert_eq!(state(&table, neighbor), Some(State::Reachable));
    assert_eq!(table.lookup(until, neighbor), Lookup::Known(mac(OLD)));
    assert_eq!(state(&table, neighbor), Some(State::Delay));
    assert_eq!(table.next_deadline(), Some(until + Duration::from_secs(5)));
}

#[test]
fn times_of_a_router_are_used_within_reason() {
    let mut table = default_table();
    table.set_times(START, Some(Duration::ZERO), Some(Duration::from_secs(3601)));
    assert_eq!(table.config, NeighborConfig::default());
    table.set_times(START, Some(Duration::from_secs(10)), Some(Duration::from_millis(100)));
    assert!((5_000..=15_000).contains(&table.reachable_time.total_millis()));
    park(&mut table, START, v6(9).into(), 1).expect("room");
    assert_eq!(table.next_deadline(), Some(after(100)));
    // Said again in each advertisement, it is not drawn again.
    let drawn = table.reachable_time;
    table.set_times(START, Some(Duration::from_secs(10)), None);
    assert_eq!(table.reachable_time, drawn);
}

#[test]
fn a_confirmation_counts_though_the_timer_is_older() {
    let neighbor = IpAddr::V4(v4(9));
    let mut table = table_with(neighbor, State::Reachable, mac(OLD));
    let until = table.next_deadline().expect("REACHABLE ends");
    table.confirm(after(5000), neighbor);
    // The old deadline comes, and the neighbour stays for the five seconds more.
    table.handle_timeout(until);
    assert_eq!(table.next_deadline(), Some(until + Duration::from_secs(5)));
    assert_eq!(table.lookup(until + Duration::from_millis(4999), neighbor), Lookup::Known(mac(OLD)));
    assert_eq!(state(&table, neighbor), Some(State::Reachable));
}

#[test]
fn the_time_of_reachable_is_drawn_anew_every_two_hours() {
    let neighbor = IpAddr::V4(v4(9));
    let mut drawn = std::collections::BTreeSet::new();
    let mut table = default_table();
    for hours in 0..100 {
        let now = START + Duration::from_secs(3600 * hours);
        table.learn(now, neighbor, mac(OLD)).expect("room");
        table.confirm(now, neighbor);
        let time = table.next_deadline().expect("REACHABLE ends") - now;
        assert!((15_000..=45_000).contains(&time.total_millis()), "{time}");
        drawn.insert(time);
        assert!(table.remove(neighbor));
    }
    assert!((45..=50).contains(&drawn.len()), "{drawn:?}");
    // From half to one and a half of it.
    let ends = [drawn.first(), drawn.last()].map(|time| time.map_or(0, |time| time.secs()));
    assert!(ends[0] < 18 && ends[1] > 42, "{ends:?}");
}

#[test]
fn requests_of_another_time_do_not_count() {
    let neighbor = IpAddr::V4(v4(9));
    let mut table = default_table();
    park(&mut table, START, neighbor, 1).expect("room");
    assert_eq!(run(&mut table, after(2500)).len(), 3);
    assert_eq!(answer(&mut table, after(2500), neighbor, mac(OLD)), Ok(()));
    run(&mut table, after(60_000));
    assert_eq!(table.lookup(after(60_000), neighbor), Lookup::Known(mac(OLD)));
    let asked = run(&mut table, after(80_000));
    assert_eq!(asked.len(), 3, "{asked:?}");
}
