//! Our own addresses: probes, announcements, defence.

use super::*;
use crate::neighbor::{AddressDefence, AddressProbes};

const THEIRS: EthernetAddress = EthernetAddress([2, 0, 0, 1, 0, 9]);

fn tentative(ip: IpAddr) -> Addresses {
    let mut addresses = addresses();
    addresses.get_mut(ip).expect("it is there").state = AddressState::Tentative;
    addresses
}

fn with(probes: AddressProbes, defence: AddressDefence) -> Table {
    table(NeighborConfig { probes, defence, ..NeighborConfig::default() })
}

fn announcement() -> Output {
    let message = super::super::arp::build(1, ME, MY_V4, NOBODY, MY_V4);
    Output::Arp { dst: EthernetAddress::BROADCAST, message }
}

#[test]
fn an_ipv4_address_is_probed_and_announced() {
    let mut table = default_table();
    assert!(table.probe(START, MY_V4.into()));
    assert_eq!(drain(&mut table), []);
    let seen = run(&mut table, after(20_000));
    let probe = super::super::arp::build(1, ME, Ipv4Addr::UNSPECIFIED, NOBODY, MY_V4);
    let probe = Output::Arp { dst: EthernetAddress::BROADCAST, message: probe };
    let outputs: Vec<_> = seen.iter().map(|(_, output)| output.clone()).collect();
    let ready = Output::AddressReady(MY_V4.into());
    assert_eq!(
        outputs,
        [&[probe.clone(), probe.clone(), probe, ready][..], &[announcement(), announcement()]].concat()
    );
    let gaps: Vec<_> = seen.windows(2).map(|pair| (pair[1].0 - pair[0].0).total_millis()).collect();
    assert!((seen[0].0 - START).total_millis() <= 1000);
    assert!((1000..=2000).contains(&gaps[0]) && (1000..=2000).contains(&gaps[1]), "{gaps:?}");
    assert!(gaps[0] > 1000 && gaps[1] > 1000 && gaps[0] != gaps[1], "at random times: {gaps:?}");
    assert_eq!(gaps[2..], [2000, 0, 2000]);
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn an_ipv6_address_is_probed_from_nowhere() {
    let mut table = default_table();
    assert!(table.probe(START, MY_V6.into()));
    let seen = run(&mut table, after(20_000));
    assert_eq!(seen.len(), 2);
    assert!((seen[0].0 - START).total_millis() <= 1000);
    assert_eq!(seen[1], (seen[0].0 + Duration::from_secs(1), Output::AddressReady(MY_V6.into())));
    let Output::Ndp { src, dst, ref message, .. } = seen[0].1 else { panic!("{seen:?}") };
    assert_eq!((src, dst), (Ipv6Addr::UNSPECIFIED.into(), solicited_node(MY_V6).into()));
    assert_eq!((message[0], message[24], message[25]), (135, 14, 1));
}

#[test]
fn probes_can_be_few_or_none() {
    for ip in [IpAddr::V4(MY_V4), IpAddr::V6(MY_V6)] {
        let mut table = with(AddressProbes::None, AddressDefence::Once);
        assert!(table.probe(START, ip));
        assert_eq!(drain(&mut table), [Output::AddressReady(ip)]);
        assert_eq!(table.next_deadline(), None);
        let mut table = with(AddressProbes::Quick, AddressDefence::Once);
        assert!(table.probe(START, ip));
        let seen = run(&mut table, after(10_000));
        assert_eq!((seen[0].0, &seen[1]), (START, &(after(200), Output::AddressReady(ip))));
    }
    let mut table = table(NeighborConfig { dup_addr_detect_transmits: 0, ..NeighborConfig::default() });
    assert!(table.probe(START, MY_V6.into()));
    assert_eq!(drain(&mut table), [Output::AddressReady(MY_V6.into())]);
}

#[test]
fn who_has_or_wants_an_address_that_we_probe_gets_it() {
    let arp_rows = [
        (arp(1, (THEIRS, MY_V4), v4(3)), true),
        (arp(2, (THEIRS, MY_V4), v4(3)), true),
        // So Linux answers a probe.
        (arp(2, (THEIRS, MY_V4), Ipv4Addr::UNSPECIFIED), true),
        (arp(1, (THEIRS, Ipv4Addr::UNSPECIFIED), MY_V4), true),
        (arp(1, (THEIRS, v4(9)), MY_V4), false),
        (arp(1, (ME, Ipv4Addr::UNSPECIFIED), MY_V4), false),
    ];
    for (message, is_conflict) in arp_rows {
        let mut table = default_table();
        assert!(table.probe(START, MY_V4.into()));
        let link = link(THEIRS, EthernetAddress::BROADCAST);
        let verdict = table.handle_arp(after(1), &link, &message, &tentative(MY_V4.into()));
        check_conflict(&mut table, MY_V4.into(), is_conflict, verdict == Err(DropReason::ArpConflict));
    }
    let to_group = solicited_node(MY_V6);
    let ndp_rows = [
        (Ipv6Addr::UNSPECIFIED, to_group, ndp(135, 0, MY_V6, &[]), true),
        (Ipv6Addr::UNSPECIFIED, to_group, ndp(135, 0, MY_V6, &[14, 1, 9, 9, 9, 9, 9, 9]), true),
        (v6(9), to_group, ndp(135, 0, MY_V6, &lladdr(1, THEIRS)), false),
        (v6(9), v6(1), ndp(136, 0x20, MY_V6, &lladdr(2, THEIRS)), true),
    ];
    for (src, dst, message, is_conflict) in ndp_rows {
        let mut table = default_table();
        assert!(table.probe(START, MY_V6.into()));
        let link = link(THEIRS, ME);
        let ours = tentative(MY_V6.into());
        let verdict = table.handle_ndp(after(1), Some(&link), &ip(src, dst), &message, &ours);
        check_conflict(&mut table, MY_V6.into(), is_conflict, verdict == Err(DropReason::NdpConflict));
    }
}

fn check_conflict(table: &mut Table, address: IpAddr, is_conflict: bool, is_said: bool) {
    assert_eq!(is_said, is_conflict);
    let mut outputs = drain(table);
    outputs.extend(run(table, after(60_000)).into_iter().map(|(_, output)| output));
    let conflict = Output::AddressConflict { address, mac: THEIRS };
    assert_eq!(outputs.contains(&conflict), is_conflict);
    assert_eq!(outputs.contains(&Output::AddressReady(address)), !is_conflict);
    if is_conflict {
        assert_eq!(outputs, [conflict]);
        assert!(!table.announce(START, address), "it is not ours to announce");
    }
}

#[test]
fn our_own_probe_that_comes_back_is_no_conflict() {
    let mut table = default_table();
    assert!(table.probe(START, MY_V6.into()));
    let seen = run(&mut table, after(1000));
    let Output::Ndp { ref message, .. } = seen[0].1 else { panic!("{seen:?}") };
    let header = ip(Ipv6Addr::UNSPECIFIED, solicited_node(MY_V6));
    let ours = tentative(MY_V6.into());
    let bridge = link(mac(77), EthernetAddress([0x33, 0x33, 0xff, 0, 0, 1]));
    let verdict = table.handle_ndp(after(1000), Some(&bridge), &header, message, &ours);
    assert_eq!(verdict, Err(DropReason::IpFromOurselves));
    let seen = run(&mut table, after(5000));
    assert!(matches!(seen[..], [(_, Output::AddressReady(_))]), "{seen:?}");
}

#[test]
fn an_address_in_use_is_defended_as_told() {
    let conflict: &[Output] = &[Output::AddressConflict { address: MY_V4.into(), mac: THEIRS }];
    let nothing: &[Output] = &[];
    let rows: [(AddressDefence, [&[Output]; 4]); 3] = [
        (AddressDefence::GiveUp, [conflict, nothing, nothing, nothing]),
        (AddressDefence::Once, [&[announcement()], conflict, nothing, nothing]),
        (AddressDefence::Always, [&[announcement()], nothing, nothing, &[announcement()]]),
    ];
    for (defence, expected) in rows {
        let mut table = with(AddressProbes::None, defence);
        assert!(table.probe(START, MY_V4.into()));
        drain(&mut table);
        for (ms, expected) in [0, 1, 9_999, 10_000].into_iter().zip(expected) {
            let gratuitous = arp(1, (THEIRS, MY_V4), MY_V4);
            let link = link(THEIRS, EthernetAddress::BROADCAST);
            let verdict = table.handle_arp(after(ms), &link, &gratuitous, &addresses());
            assert_eq!(verdict, Err(DropReason::ArpConflict));
            assert_eq!(drain(&mut table), expected, "{defence:?} after {ms} ms");
            assert_eq!(run(&mut table, after(ms)), []);
        }
        assert!(table.is_empty());
    }
    // Ten seconds later it is a new one.
    let mut table = with(AddressProbes::None, AddressDefence::Once);
    for second in [0, 10, 20] {
        let message = arp(1, (THEIRS, MY_V4), v4(3));
        let link = link(THEIRS, EthernetAddress::BROADCAST);
        let _ = table.handle_arp(after(second * 1000), &link, &message, &addresses());
        assert_eq!(drain(&mut table), [announcement()]);
    }
}

#[test]
fn announcements_of_both_families() {
    let mut table = default_table();
    assert!(table.announce(START, MY_V4.into()));
    assert_eq!(drain(&mut table), [announcement()]);
    assert_eq!(run(&mut table, after(9000)), [(after(2000), announcement())]);
    assert!(table.announce(START, MY_V6.into()));
    let first = drain(&mut table);
    let [Output::Ndp { dst_mac, message, .. }] = &first[..] else { panic!("{first:?}") };
    assert_eq!((dst_mac.0, message[0], message[4]), ([0x33, 0x33, 0, 0, 0, 1], 136, 0x20));
    let times: Vec<_> = run(&mut table, after(9000)).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [after(1000), after(2000)]);
}

#[test]
fn after_ten_conflicts_addresses_are_tried_slowly() {
    let mut table = default_table();
    for n in 0..10 {
        let address = IpAddr::V4(v4(100 + n));
        assert!(table.probe(START, address));
        assert!(table.next_deadline().is_some_and(|deadline| deadline <= after(1000)));
        let message = arp(1, (THEIRS, v4(100 + n)), v4(3));
        let link = link(THEIRS, EthernetAddress::BROADCAST);
        assert!(table.handle_arp(START, &link, &message, &addresses()).is_err());
    }
    assert!(table.probe(START, v4(200).into()));
    assert_eq!(table.next_deadline(), Some(after(60_000)));
    table.forget_address(v4(200).into());
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn there_is_room_for_some_addresses() {
    let mut table = default_table();
    for n in 0..64 {
        assert!(table.probe(START, v4(100 + n).into()));
    }
    assert!(!table.probe(START, v4(99).into()));
    assert!(table.probe(START, v4(100).into()), "the same again");
    let message = arp(1, (THEIRS, v4(130)), v4(3));
    let link = link(THEIRS, EthernetAddress::BROADCAST);
    assert!(table.handle_arp(START, &link, &message, &addresses()).is_err());
    assert!(table.probe(START, v4(99).into()), "one is lost, so there is room");
}

#[test]
fn an_address_that_was_won_ends_the_count_of_conflicts() {
    let mut table = default_table();
    let lose = |table: &mut Table, now, n| {
        assert!(table.probe(now, v4(n).into()));
        let link = link(THEIRS, EthernetAddress::BROADCAST);
        assert!(table.handle_arp(now, &link, &arp(1, (THEIRS, v4(n)), v4(3)), &addresses()).is_err());
    };
    (100..109).for_each(|n| lose(&mut table, START, n));
    assert!(table.probe(START, v4(200).into()));
    run(&mut table, after(20_000));
    (110..112).for_each(|n| lose(&mut table, after(20_000), n));
    assert!(table.probe(after(20_000), v4(201).into()));
    assert!(table.next_deadline().is_some_and(|deadline| deadline <= after(21_000)));
}

#[test]
fn nobody_is_asked_from_an_address_that_is_forgotten() {
    let mut table = default_table();
    park(&mut table, START, v4(9).into(), 1).expect("room");
    table.learn(START, v4(8).into(), mac(8)).expect("room");
    drain(&mut table);
    table.forget_address(MY_V4.into());
    assert_eq!(table.lookup(START, v4(8).into()), Lookup::Known(mac(8)));
    let seen = run(&mut table, after(20_000));
    assert!(!seen.iter().any(|(_, output)| matches!(output, Output::Arp { .. })), "{seen:?}");
}

#[test]
fn what_is_still_probed_is_not_announced() {
    for ip in [IpAddr::V4(MY_V4), IpAddr::V6(MY_V6)] {
        let mut table = default_table();
        assert!(table.probe(START, ip));
        assert!(!table.announce(START, ip));
        assert_eq!(drain(&mut table), []);
    }
}

#[test]
fn a_probe_with_an_empty_nonce_is_that_of_another() {
    let mut table = default_table();
    assert!(table.announce(START, MY_V6.into()));
    drain(&mut table);
    let message = ndp(135, 0, MY_V6, &[14, 1, 0, 0, 0, 0, 0, 0]);
    let header = ip(Ipv6Addr::UNSPECIFIED, solicited_node(MY_V6));
    let verdict = table.handle_ndp(START, Some(&link(THEIRS, ME)), &header, &message, &addresses());
    assert_eq!((verdict, drain(&mut table).len()), (Ok(()), 1));
}

#[test]
fn announcements_wait_for_room() {
    let mut table = table(NeighborConfig { requests_queued_max: 1, ..NeighborConfig::default() });
    assert!(table.announce(START, MY_V4.into()));
    assert!(table.announce(START, MY_V6.into()));
    // What could not be asked now is due when there is room, and not all the time until then.
    assert_eq!(table.next_deadline(), None);
    assert_eq!(drain(&mut table), [announcement()]);
    assert!(table.next_deadline().is_some_and(|at| at <= START));
    table.handle_timeout(START);
    assert!(matches!(drain(&mut table)[..], [Output::Ndp { .. }]));
}
