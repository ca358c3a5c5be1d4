//! What ARP messages do.

use super::*;

/// A message from a neighbour to everybody, or to us alone.
fn hear(table: &mut Table, ms: u64, to: EthernetAddress, message: &[u8]) -> Result<(), DropReason> {
    table.handle_arp(after(ms), &link(mac(9), to), message, &addresses())
}

const ALL: EthernetAddress = EthernetAddress::BROADCAST;

#[test]
fn a_request_for_us_is_answered_and_its_sender_known() {
    let mut table = default_table();
    assert_eq!(hear(&mut table, 0, ALL, &arp(1, (mac(9), v4(9)), MY_V4)), Ok(()));
    let message = super::super::arp::build(2, ME, MY_V4, mac(9), v4(9));
    assert_eq!(drain(&mut table), [Output::Arp { dst: mac(9), message }]);
    assert_eq!(state(&table, v4(9).into()), Some(State::Stale));
    assert_eq!(table.lookup(START, v4(9).into()), Lookup::Known(mac(9)));
    // Its probe goes out from the address that was asked for.
    let seen = run(&mut table, after(5000));
    let message = super::super::arp::build(1, ME, MY_V4, NOBODY, v4(9));
    assert_eq!(seen, [(after(5000), Output::Arp { dst: mac(9), message })]);
}

#[test]
fn a_probe_for_our_address_is_answered_and_nothing_learned() {
    let mut table = default_table();
    let probe = arp(1, (mac(9), Ipv4Addr::UNSPECIFIED), MY_V4);
    assert_eq!(hear(&mut table, 0, ALL, &probe), Ok(()));
    assert!(matches!(&drain(&mut table)[..], [Output::Arp { .. }]));
    assert!(table.is_empty());
}

#[test]
fn what_is_not_about_us_teaches_nothing_new() {
    let rows = [
        (arp(1, (mac(9), v4(9)), v4(10)), DropReason::ArpNotForUs),
        (arp(1, (mac(9), v4(9)), v4(9)), DropReason::ArpNotForUs),
        (arp(2, (mac(9), v4(9)), v4(9)), DropReason::ArpUnsolicited),
        (arp(2, (mac(9), v4(9)), MY_V4), DropReason::ArpUnsolicited),
        (arp(1, (mac(9), Ipv4Addr::UNSPECIFIED), v4(10)), DropReason::ArpNotForUs),
        (arp(2, (mac(9), Ipv4Addr::UNSPECIFIED), MY_V4), DropReason::ArpMalformed),
        (arp(1, (mac(9), v4(9)), Ipv4Addr::UNSPECIFIED), DropReason::ArpMalformed),
        (arp(2, (mac(9), v4(9)), Ipv4Addr::UNSPECIFIED), DropReason::ArpUnsolicited),
        (arp(3, (mac(9), v4(9)), MY_V4), DropReason::ArpMalformed),
        (arp(1, (ALL, v4(9)), MY_V4), DropReason::ArpMalformed),
        (arp(1, (NOBODY, v4(9)), MY_V4), DropReason::ArpMalformed),
        (arp(1, (EthernetAddress([1, 0, 0x5e, 0, 0, 1]), v4(9)), MY_V4), DropReason::ArpMalformed),
        (arp(1, (mac(9), Ipv4Addr::BROADCAST), MY_V4), DropReason::ArpMalformed),
        (arp(1, (mac(9), Ipv4Addr::new(10, 0, 255, 255)), MY_V4), DropReason::ArpMalformed),
        (arp(1, (mac(9), Ipv4Addr::LOCALHOST), MY_V4), DropReason::ArpMalformed),
        (arp(1, (mac(9), Ipv4Addr::new(224, 0, 0, 1)), MY_V4), DropReason::ArpMalformed),
        (arp(1, (mac(9), v4(9)), Ipv4Addr::LOCALHOST), DropReason::ArpMalformed),
        (arp(1, (ME, v4(9)), MY_V4), DropReason::LinkFromOurselves),
        (arp(1, (mac(9), MY_V4), v4(10)), DropReason::ArpConflict),
    ];
    for (message, reason) in rows {
        let mut table = default_table();
        assert_eq!(hear(&mut table, 0, ALL, &message), Err(reason), "{message:?}");
        assert!(table.is_empty());
        if reason != DropReason::ArpConflict {
            assert_eq!(drain(&mut table), []);
        }
    }
    // Other hardware and protocols, and what is cut off.
    let good = arp(1, (mac(9), v4(9)), MY_V4);
    for at in 0..6 {
        let mut bad = good;
        bad[at] ^= 1;
        assert_eq!(hear(&mut default_table(), 0, ALL, &bad), Err(DropReason::ArpMalformed));
    }
    for len in 0..28 {
        assert_eq!(hear(&mut default_table(), 0, ALL, &good[..len]), Err(DropReason::ArpMalformed));
    }
    assert_eq!(hear(&mut default_table(), 0, ALL, &[&good[..], &[0; 18]].concat()), Ok(()));
}

#[test]
fn messages_change_known_neighbors_under_rules() {
    use State::*;
    let gratuitous = |n| arp(1, (mac(n), v4(9)), v4(9));
    let reply = |n| arp(2, (mac(n), v4(9)), MY_V4);
    // State, hardware address 5 known; to whom, message; state and hardware address afterwards.
    let rows = [
        (Incomplete, ME, reply(6), Reachable, 6),
        (Incomplete, ALL, reply(6), Delay, 6),
        (Incomplete, ALL, gratuitous(6), Delay, 6),
        (Probe, ME, reply(5), Reachable, 5),
        (Probe, ME, reply(6), Reachable, 6),
        (Probe, ALL, reply(5), Probe, 5),
        (Probe, ME, gratuitous(5), Probe, 5),
        // Nobody asked: it may be said, and it is not believed more than that.
        (Reachable, ME, reply(6), Stale, 6),
        (Reachable, ALL, gratuitous(6), Stale, 6),
        (Reachable, ALL, gratuitous(5), Reachable, 5),
        (Stale, ME, reply(5), Stale, 5),
        (Stale, ALL, gratuitous(6), Stale, 6),
        (Delay, ALL, gratuitous(5), Delay, 5),
        (Failed, ALL, gratuitous(6), Stale, 6),
        (Permanent, ME, reply(6), Permanent, 5),
        (Permanent, ALL, gratuitous(6), Permanent, 5),
        // RFC 826: the pair is in the table, so it is updated, whoever is asked for.
        (Stale, ALL, arp(1, (mac(6), v4(9)), v4(77)), Stale, 6),
    ];
    for row @ (from, to, message, then, expected) in rows {
        let mut table = table_with(v4(9).into(), from, mac(5));
        assert_eq!(hear(&mut table, 0, to, &message), Ok(()), "{row:?}");
        let info = table.get(v4(9).into()).expect("it is there");
        assert_eq!((info.state, info.mac), (then, Some(mac(expected))), "{row:?}");
    }
}

#[test]
fn of_two_answers_the_first_counts() {
    let mut table = default_table();
    park(&mut table, START, v4(9).into(), 1).expect("room");
    assert_eq!(answer(&mut table, START, v4(9).into(), mac(5)), Ok(()));
    let liar = arp(2, (mac(6), v4(9)), MY_V4);
    assert_eq!(hear(&mut table, 999, ME, &liar), Err(DropReason::ArpUnsolicited));
    assert_eq!(table.lookup(after(999), v4(9).into()), Lookup::Known(mac(5)));
    // Later it may be true: the entry is to be asked.
    assert_eq!(hear(&mut table, 1000, ME, &liar), Ok(()));
    assert_eq!(table.get(v4(9).into()).and_then(|info| info.mac), Some(mac(6)));
    assert_eq!(state(&table, v4(9).into()), Some(State::Stale));
    let other_liar = arp(2, (mac(7), v4(9)), MY_V4);
    assert_eq!(hear(&mut table, 1999, ME, &other_liar), Err(DropReason::ArpUnsolicited));
    assert_eq!(hear(&mut table, 2000, ME, &other_liar), Ok(()));
}

#[test]
fn nothing_is_answered_for_a_tentative_address() {
    let mut addresses = addresses();
    addresses.get_mut(MY_V4.into()).expect("it is there").state = AddressState::Tentative;
    let mut table = default_table();
    let request = arp(1, (mac(9), v4(9)), MY_V4);
    let verdict = table.handle_arp(START, &link(mac(9), ALL), &request, &addresses);
    assert_eq!(verdict, Err(DropReason::ArpNotForUs));
    assert_eq!(drain(&mut table), []);
}

#[test]
fn an_answer_for_another_address_proves_nothing() {
    let mut table = table_with(v4(9).into(), State::Incomplete, mac(5));
    assert_eq!(hear(&mut table, 0, ME, &arp(2, (mac(5), v4(9)), v4(77))), Ok(()));
    assert_eq!(state(&table, v4(9).into()), Some(State::Delay), "known, and to be asked");
}

#[test]
fn a_static_entry_has_just_been_made_and_stays() {
    let mut table = default_table();
    table.insert_static(START, v4(9).into(), mac(5)).expect("room");
    assert_eq!(hear(&mut table, 1, ALL, &arp(1, (mac(6), v4(9)), v4(9))), Ok(()), "nothing to be counted");
    assert_eq!(table.lookup(START, v4(9).into()), Lookup::Known(mac(5)));
}
