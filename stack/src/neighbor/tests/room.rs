//! Bounds: of entries, of frames, of outputs; and many neighbours at once.

use super::*;
use std::collections::VecDeque;

fn small() -> NeighborConfig {
    NeighborConfig { entries_max: 8, incomplete_max: 6, ..NeighborConfig::default() }
}

#[test]
fn strangers_displace_only_what_we_never_used() {
    let mut table = table(small());
    table.insert_static(START, v4(1).into(), mac(1)).expect("room");
    for n in 2..=4 {
        park(&mut table, START, v4(n).into(), n.into()).expect("room");
        answer(&mut table, START, v4(n).into(), mac(n)).expect("asked");
    }
    park(&mut table, START, v4(5).into(), 5).expect("room");
    drain(&mut table);
    for n in 100..10_000 {
        let request = arp(1, (mac(n), v4(n)), MY_V4);
        let link = link(mac(n), EthernetAddress::BROADCAST);
        assert_eq!(table.handle_arp(START, &link, &request, &addresses()), Ok(()));
        assert!(table.len() <= 8);
    }
    let states = (1..=5).map(|n| state(&table, v4(n).into())).collect::<Vec<_>>();
    let live = Some(State::Reachable);
    assert_eq!(states, [Some(State::Permanent), live, live, live, Some(State::Incomplete)]);
    let outputs = drain(&mut table);
    let dropped = outputs.iter().filter(|output| **output == Output::Dropped(DropReason::OutboxFull)).count();
    assert_eq!((outputs.len() - dropped, outputs.len()), (256, 9_900));
    assert_eq!(table.evictions(), 9_900 - 3);
    // Full of those in use: who asks is answered, and not kept.
    for n in [9_997, 9_998, 9_999] {
        assert!(matches!(table.lookup(START, v4(n).into()), Lookup::Known(_)));
    }
    let request = arp(1, (mac(10_001), v4(10_001)), MY_V4);
    assert_eq!(table.handle_arp(START, &link(mac(10_001), ME), &request, &addresses()), Ok(()));
    let outputs = drain(&mut table);
    assert!(matches!(outputs[..], [Output::Arp { .. }, Output::Dropped(DropReason::NeighborNoRoom)]));
    assert_eq!(state(&table, v4(10_001).into()), None);
}

#[test]
fn our_own_neighbors_displace_the_cheapest() {
    let mut table = table(NeighborConfig { incomplete_max: 2, ..small() });
    let ip = |n| IpAddr::V4(v4(n));
    park(&mut table, START, ip(1), 1).expect("room");
    run(&mut table, after(3000));
    assert_eq!(state(&table, ip(1)), Some(State::Failed));
    let now = after(3001);
    table.insert_static(now, ip(2), mac(2)).expect("room");
    // Used and stale by then: 3. Never used: 4. Live: 5, 6, of which 5 was used last. Static: 2, 7, 8.
    for n in [3, 5, 6] {
        table.learn(now, ip(n), mac(n)).expect("room");
        table.lookup(now, ip(n));
    }
    let moved = arp(1, (mac(33), v4(3)), v4(3));
    let later = now + Duration::from_millis(1000);
    table.handle_arp(later, &link(mac(33), ME), &moved, &addresses()).expect("known");
    table.learn(now, ip(4), mac(4)).expect("room");
    for n in [7, 8] {
        table.insert_static(now, ip(n), mac(n)).expect("room");
    }
    assert_eq!(table.lookup(later, ip(5)), Lookup::Known(mac(5)));
    assert_eq!(table.len(), 8);
    for (newcomer, displaced) in [(20, 1), (21, 4), (22, 3), (23, 6), (24, 5)] {
        park(&mut table, later, ip(newcomer), 0).expect("room");
        assert_eq!(state(&table, ip(displaced)), None, "for {newcomer}");
        assert_eq!(table.len(), 8);
        answer(&mut table, later, ip(newcomer), mac(newcomer)).expect("asked");
        // A static one keeps its place and frees nothing.
        table.insert_static(later, ip(newcomer), mac(newcomer)).expect("known");
    }
    assert_eq!(park(&mut table, later, ip(25), 0), Err(DropReason::NeighborNoRoom));
}

#[test]
fn a_scan_leaves_room() {
    let mut table = table(small());
    for n in 0..6 {
        park(&mut table, START, v4(n + 10).into(), n.into()).expect("room");
    }
    assert_eq!(park(&mut table, START, v4(99).into(), 0), Err(DropReason::NeighborNoRoom));
    table.learn(START, v4(98).into(), mac(9)).expect("room");
    assert!(table.remove(v4(10).into()) && !table.remove(v4(10).into()));
    assert_eq!(park(&mut table, START, v4(99).into(), 0), Ok(()));
    table.insert_static(START, v4(97).into(), mac(9)).expect("room");
    table.flush();
    assert_eq!(state(&table, v4(97).into()), Some(State::Permanent), "a person wants it");
    assert!(table.remove(v4(97).into()));
    assert_eq!((table.len(), table.parked_bytes()), (0, 0));
    let dropped = Output::Dropped(DropReason::NeighborUnreachable);
    assert_eq!(drain(&mut table).into_iter().filter(|output| *output == dropped).count(), 7);
}

#[test]
fn of_frames_that_wait_the_oldest_go() {
    let cost = 60 + size_of::<Output>();
    let rows = [
        (NeighborConfig { parked_frames_max: 3, ..NeighborConfig::default() }, 3),
        (NeighborConfig { parked_bytes_max: 2 * cost + 1, ..NeighborConfig::default() }, 2),
        (NeighborConfig { parked_total_bytes_max: 4 * cost, ..NeighborConfig::default() }, 4),
    ];
    for (config, kept) in rows {
        let mut table = table(config);
        (0..10).for_each(|n| park(&mut table, START, v4(9).into(), n).expect("room"));
        answer(&mut table, START, v4(9).into(), mac(9)).expect("asked");
        let outputs = drain(&mut table);
        let frames = outputs.iter().filter_map(|output| match output {
            Output::Release { frame, .. } => Some(number(frame)),
            _ => None,
        });
        assert_eq!(frames.collect::<Vec<_>>(), (10 - kept..10).collect::<Vec<_>>());
        let dropped = Output::Dropped(DropReason::NeighborQueueFull);
        assert_eq!(outputs.iter().filter(|output| **output == dropped).count() as u64, 10 - kept);
    }
    // What waits for others is not thrown away for a newcomer.
    let mut table = table(NeighborConfig { parked_total_bytes_max: 4 * cost, ..NeighborConfig::default() });
    (0..4).for_each(|n| park(&mut table, START, v4(9).into(), n).expect("room"));
    assert_eq!(park(&mut table, START, v4(8).into(), 4), Err(DropReason::NeighborQueueFull));
    assert_eq!(table.get(v4(9).into()).map(|info| info.parked_frames), Some(4));
}

#[test]
fn what_cannot_be_a_neighbor_is_not_asked() {
    let mut table = default_table();
    let ips: [IpAddr; 6] = [
        Ipv4Addr::new(0, 1, 2, 3).into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
        solicited_node(v6(1)).into(),
    ];
    for ip in ips {
        assert_eq!(park(&mut table, START, ip, 0), Err(DropReason::NeighborUnreachable), "{ip}");
    }
    for src in [IpAddr::V6(MY_V6), Ipv4Addr::UNSPECIFIED.into()] {
        let verdict = table.park(START, v4(9).into(), src, &frame(0, 60), &FrameMeta::default());
        assert_eq!(verdict, Err(DropReason::NoSource));
    }
    assert!(table.is_empty() && table.parked_bytes() == 0);
}

/// Turns of 100 µs, each of which fetches everything; answers come after 1 ms each way.
#[test]
fn ten_thousand_neighbors_within_a_second() {
    let config = NeighborConfig { parked_total_bytes_max: 16 << 20, ..NeighborConfig::default() };
    let mut table = table(config);
    let neighbors: Vec<IpAddr> =
        (0..5000).flat_map(|n| [IpAddr::V4(v4(n + 256)), IpAddr::V6(v6(n))]).collect();
    for (number, neighbor) in (0..).zip(&neighbors) {
        park(&mut table, START, *neighbor, number).expect("room");
    }
    let mut answers = VecDeque::new();
    let (mut now, mut released, mut requests) = (START, 0, 0);
    while released < neighbors.len() {
        assert!(now <= after(1000), "{released} of 10 000 after a second");
        while answers.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, neighbor)) = answers.pop_front() else { break };
            assert_eq!(answer(&mut table, now, neighbor, mac(5)), Ok(()));
        }
        table.handle_timeout(now);
        for output in drain(&mut table) {
            match output {
                Output::Arp { message, .. } => {
                    let [a, b, c, d] = [24, 25, 26, 27].map(|at: usize| message[at]);
                    answers.push_back((now + Duration::from_millis(2), IpAddr::from([a, b, c, d])));
                    requests += 1;
                }
                Output::Ndp { message, .. } => {
                    let target: [u8; 16] = message[8..24].try_into().expect("16 bytes");
                    answers.push_back((now + Duration::from_millis(2), IpAddr::from(target)));
                    requests += 1;
                }
                Output::Release { .. } => released += 1,
                other => panic!("{other:?}"),
            }
        }
        now += Duration::from_micros(100);
    }
    assert_eq!((requests, table.len(), table.parked_bytes()), (10_000, 10_000, 0));
    assert!((now - START).total_millis() <= 10, "{}", now - START);
}

#[test]
fn a_frame_that_is_too_long_displaces_none() {
    let cost = 60 + size_of::<Output>();
    let mut table = table(NeighborConfig { parked_bytes_max: 2 * cost, ..NeighborConfig::default() });
    park(&mut table, START, v4(9).into(), 1).expect("room");
    let long = frame(2, 61 + cost);
    let verdict = table.park(START, v4(9).into(), MY_V4.into(), &long, &FrameMeta::default());
    assert_eq!(verdict, Err(DropReason::NeighborQueueFull));
    assert_eq!(table.get(v4(9).into()).map(|info| info.parked_frames), Some(1));
}

#[test]
fn a_call_fires_no_more_timers_than_it_may() {
    let mut table = table(NeighborConfig { timeouts_per_call_max: 2, ..NeighborConfig::default() });
    (0..5).for_each(|n| park(&mut table, START, v4(n + 10).into(), 0).expect("room"));
    drain(&mut table);
    for expected in [2, 2, 1, 0] {
        table.handle_timeout(after(1000));
        assert_eq!(drain(&mut table).len(), expected);
    }
}

#[test]
fn who_asks_when_there_is_no_room_is_answered_over_ipv6_too() {
    let mut table = table(small());
    (0..8).for_each(|n| table.insert_static(START, v4(n + 10).into(), mac(n)).expect("room"));
    let message = ndp(135, 0, MY_V6, &lladdr(1, mac(9)));
    let header = ip(v6(9), solicited_node(MY_V6));
    assert_eq!(table.handle_ndp(START, Some(&link(mac(9), ME)), &header, &message, &addresses()), Ok(()));
    let outputs = drain(&mut table);
    assert!(matches!(outputs[..], [Output::Ndp { .. }, Output::Dropped(DropReason::NeighborNoRoom)]));
}

#[test]
fn answers_that_were_fetched_leave_room() {
    let mut table = default_table();
    let request = arp(1, (mac(9), v4(9)), MY_V4);
    for _ in 0..1000 {
        table.handle_arp(START, &link(mac(9), ME), &request, &addresses()).expect("for us");
        assert!(matches!(drain(&mut table)[..], [Output::Arp { .. }]));
    }
}
