//! What solicitations and advertisements do.

use smoltcp::wire::Icmpv6Packet;

use super::*;
use crate::ingress::packet::FragmentInfo;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// RFC 6980: not even an atomic one.
const FRAGMENT: FragmentInfo = FragmentInfo {
    id: 1,
    offset: 0,
    more: true,
    payload: 62,
    next_header_at: 20,
    header_at: 54,
    next_header: 58,
};

fn hear(table: &mut Table, ip: &IpPacket, message: &[u8]) -> Result<(), DropReason> {
    let link = link(mac(9), ME);
    table.handle_ndp(START, Some(&link), ip, message, &addresses())
}

/// Fields of an NDP output that tests look at: hardware destination, source, destination, type, flags.
fn shown(output: &Output) -> (EthernetAddress, IpAddr, IpAddr, u8, u8) {
    let Output::Ndp { dst_mac, src, dst, message } = output else { panic!("{output:?}") };
    let (IpAddr::V6(from), IpAddr::V6(to)) = (*src, *dst) else { panic!("{output:?}") };
    assert!(Icmpv6Packet::new_unchecked(&message[..]).verify_checksum(&from, &to));
    (*dst_mac, *src, *dst, message[0], message[4])
}

#[test]
fn a_solicitation_is_answered() {
    let mut table = default_table();
    let message = ndp(135, 0, MY_V6, &lladdr(1, mac(8)));
    assert_eq!(hear(&mut table, &ip(v6(9), solicited_node(MY_V6)), &message), Ok(()));
    let outputs = drain(&mut table);
    assert_eq!(outputs.len(), 1);
    assert_eq!(shown(&outputs[0]), (mac(8), MY_V6.into(), v6(9).into(), 136, 0x60));
    assert!(matches!(&outputs[0], Output::Ndp { message, .. } if message[24..] == lladdr(2, ME)));
    let info = table.get(v6(9).into()).expect("it is known");
    assert_eq!((info.state, info.mac, info.is_router), (State::Stale, Some(mac(8)), false));
}

#[test]
fn without_option_the_answer_goes_back_and_nothing_is_kept() {
    let mut table = default_table();
    let message = ndp(135, 0, MY_V6, &[]);
    assert_eq!(hear(&mut table, &ip(v6(9), MY_V6), &message), Ok(()));
    assert_eq!(shown(&drain(&mut table)[0]).0, mac(9));
    assert!(table.is_empty());
    // Whom we know is answered where we know it to be.
    table.learn(START, v6(9).into(), mac(5)).expect("room");
    assert_eq!(hear(&mut table, &ip(v6(9), MY_V6), &message), Ok(()));
    assert_eq!(shown(&drain(&mut table)[0]).0, mac(5));
}

#[test]
fn a_probe_for_our_address_is_answered_to_all() {
    let mut table = default_table();
    let message = ndp(135, 0, MY_V6, &[]);
    let header = ip(Ipv6Addr::UNSPECIFIED, solicited_node(MY_V6));
    assert_eq!(hear(&mut table, &header, &message), Ok(()));
    let all = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(shown(&drain(&mut table)[0]), (all, MY_V6.into(), ALL_NODES.into(), 136, 0x20));
    assert!(table.is_empty());
}

#[test]
fn what_the_rfc_discards_is_discarded() {
    use DropReason::*;
    let good = || ip(v6(9), solicited_node(MY_V6));
    let from_nobody = |dst| ip(Ipv6Addr::UNSPECIFIED, dst);
    let option = lladdr(1, mac(9));
    let rows = [
        ("hop limit", IpPacket { hop_limit: 254, ..good() }, ndp(135, 0, MY_V6, &option), NdpMalformed),
        (
            "in a fragment",
            IpPacket { fragment: Some(FRAGMENT), ..good() },
            ndp(135, 0, MY_V6, &option),
            NdpMalformed,
        ),
        ("group as target", good(), ndp(135, 0, ALL_NODES, &option), NdpMalformed),
        ("unspecified target", good(), ndp(135, 0, Ipv6Addr::UNSPECIFIED, &option), NdpMalformed),
        ("option of length 0", good(), ndp(135, 0, MY_V6, &[9, 0, 0, 0, 0, 0, 0, 0]), NdpMalformed),
        ("option cut off", good(), ndp(135, 0, MY_V6, &[1, 1, 2, 0, 0]), NdpMalformed),
        (
            "option longer than ours",
            good(),
            ndp(135, 0, MY_V6, &[&[1, 2], &[2; 14][..]].concat()),
            NdpMalformed,
        ),
        ("half an option", good(), ndp(135, 0, MY_V6, &[1]), NdpMalformed),
        (
            "hardware address of a group",
            good(),
            ndp(135, 0, MY_V6, &lladdr(1, EthernetAddress::BROADCAST)),
            NdpMalformed,
        ),
        ("option of a probe", from_nobody(solicited_node(MY_V6)), ndp(135, 0, MY_V6, &option), NdpMalformed),
        ("probe to one", from_nobody(MY_V6), ndp(135, 0, MY_V6, &[]), NdpMalformed),
        ("probe to all", from_nobody(ALL_NODES), ndp(135, 0, MY_V6, &[]), NdpMalformed),
        ("group as source", ip(ALL_NODES, MY_V6), ndp(135, 0, MY_V6, &option), NdpMalformed),
        ("our own source", ip(MY_V6, MY_V6), ndp(135, 0, MY_V6, &option), IpFromOurselves),
        ("our own option", good(), ndp(135, 0, MY_V6, &lladdr(1, ME)), IpFromOurselves),
        ("not our address", good(), ndp(135, 0, v6(77), &option), NdpNotForUs),
        ("short", good(), ndp(135, 0, MY_V6, &[])[..23].to_vec(), NdpMalformed),
        ("solicited to all", ip(v6(9), ALL_NODES), ndp(136, 0x60, v6(9), &lladdr(2, mac(9))), NdpMalformed),
        ("nobody asked", ip(v6(9), MY_V6), ndp(136, 0x60, v6(9), &lladdr(2, mac(9))), NdpUnsolicited),
        ("our address", ip(v6(9), ALL_NODES), ndp(136, 0x20, MY_V6, &lladdr(2, mac(9))), NdpConflict),
        ("redirect", good(), ndp(137, 0, v6(3), &[]), RedirectIgnored),
        ("router solicitation", good(), ndp(133, 0, v6(3), &[]), IcmpIgnored),
        ("nothing", good(), Vec::new(), IcmpIgnored),
    ];
    for (what, header, message, reason) in rows {
        let mut table = default_table();
        assert_eq!(hear(&mut table, &header, &message), Err(reason), "{what}");
        assert!(table.is_empty(), "{what}");
        assert_eq!(drain(&mut table), [], "{what}");
    }
    let mut code = ndp(135, 0, MY_V6, &option);
    code[1] = 1;
    assert_eq!(hear(&mut default_table(), &good(), &code), Err(NdpMalformed));
    // What is unknown is passed over.
    let unknown = ndp(135, 0, MY_V6, &[&[99, 2][..], &[0; 14], &option].concat());
    assert_eq!(hear(&mut default_table(), &good(), &unknown), Ok(()));
}

#[test]
fn a_router_that_is_none_any_more_is_told() {
    let mut table = default_table();
    table.learn_router(START, v6(9).into(), Some(mac(9))).expect("room");
    let said = |flags| ndp(136, flags, v6(9), &lladdr(2, mac(9)));
    let header = ip(v6(9), MY_V6);
    assert_eq!(hear(&mut table, &header, &said(0xe0)), Ok(()));
    assert_eq!((table.get(v6(9).into()).map(|info| info.is_router), drain(&mut table)), (Some(true), vec![]));
    assert_eq!(hear(&mut table, &header, &said(0x60)), Ok(()));
    assert_eq!(table.get(v6(9).into()).map(|info| info.is_router), Some(false));
    assert_eq!(drain(&mut table), [Output::RouterGone(v6(9).into())]);
    // Whoever says so again and again is not kept in memory for it.
    let mut refused = 0;
    for _ in 0..10_000 {
        let _ = hear(&mut table, &header, &said(0xe0));
        refused += usize::from(hear(&mut table, &header, &said(0x60)) == Err(DropReason::OutboxFull));
    }
    assert!(refused > 9000);
    assert!(drain(&mut table).len() <= 256);
}

#[test]
fn what_routers_say_of_hardware_addresses_is_checked() {
    let mut table = default_table();
    for wrong in [ME, NOBODY, EthernetAddress::BROADCAST] {
        assert_eq!(table.learn(START, v6(9).into(), wrong), Err(DropReason::NdpMalformed));
        assert_eq!(table.learn_router(START, v6(9).into(), Some(wrong)), Err(DropReason::NdpMalformed));
    }
    assert_eq!(table.learn(START, ALL_NODES.into(), mac(9)), Err(DropReason::NdpMalformed));
    assert!(table.is_empty());
}

#[test]
fn of_two_options_the_first_counts() {
    let mut table = default_table();
    let message = ndp(135, 0, MY_V6, &[lladdr(1, mac(8)), lladdr(1, mac(7))].concat());
    assert_eq!(hear(&mut table, &ip(v6(9), solicited_node(MY_V6)), &message), Ok(()));
    assert_eq!(table.get(v6(9).into()).and_then(|info| info.mac), Some(mac(8)));
}

#[test]
fn a_known_neighbor_is_asked_from_the_address_that_it_asked_for() {
    let mut table = default_table();
    table.learn(START, v6(9).into(), mac(9)).expect("room");
    let message = ndp(135, 0, MY_V6, &lladdr(1, mac(9)));
    assert_eq!(hear(&mut table, &ip(v6(9), MY_V6), &message), Ok(()));
    drain(&mut table);
    assert_eq!(table.lookup(START, v6(9).into()), Lookup::Known(mac(9)));
    let seen = run(&mut table, after(5000));
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(shown(&seen[0].1), (mac(9), MY_V6.into(), v6(9).into(), 135, 0));
}
