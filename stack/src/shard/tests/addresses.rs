//! Addresses of ours: from tentative to gone.

use smoltcp::time::Duration;

use super::super::*;
use super::lone::*;
use crate::config::parse_cidr;
use crate::ip::AddressState;

fn cidr(text: &str) -> smoltcp::wire::IpCidr {
    parse_cidr(text).expect("an address")
}

fn state(lone: &Lone, address: &str) -> Option<AddressState> {
    lone.shard.addresses.get(ip(address)).map(|address| address.state)
}

/// To ask for an address that is being probed, or that somebody else has, is no way around the probe.
#[test]
fn an_address_is_not_used_before_it_is_probed() {
    let mut lone = Lone::quiet(|config| config.neighbor.probes = crate::neighbor::AddressProbes::Full);
    for again in 0..2 {
        lone.shard.push_command(Command::AddAddress(cidr("10.0.0.5/24"))).expect("room");
        lone.settle();
        assert_eq!(state(&lone, "10.0.0.5"), Some(AddressState::Tentative), "{again}");
    }
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &PEER.0, &[10, 0, 0, 5], &[0; 6], &[10, 0, 0, 5]].concat();
    lone.put(&ether(EthernetAddress::BROADCAST, PEER, 0x0806, &body));
    assert_eq!(state(&lone, "10.0.0.5"), Some(AddressState::Duplicate));
    // It is asked for once more: so it is probed once more.
    lone.shard.push_command(Command::AddAddress(cidr("10.0.0.5/24"))).expect("room");
    lone.settle();
    assert_eq!(state(&lone, "10.0.0.5"), Some(AddressState::Tentative));
    lone.advance(Duration::from_secs(10));
    assert_eq!(state(&lone, "10.0.0.5"), Some(AddressState::Preferred));
}

/// The route to a prefix lives as long as an address with just that prefix.
#[test]
fn a_prefix_is_on_the_link_as_long_as_an_address_has_it() {
    let mut lone = Lone::quiet(|_| {});
    let routes = |lone: &Lone| {
        let routes = lone.shard.routes.iter().map(|route| route.prefix.to_string());
        routes.filter(|prefix| prefix.contains('.')).collect::<Vec<_>>()
    };
    for address in ["10.0.0.5/16", "10.0.0.6/24"] {
        lone.shard.push_command(Command::AddAddress(cidr(address))).expect("room");
    }
    lone.settle();
    assert_eq!(routes(&lone), ["10.0.0.0/16", "10.0.0.0/24"]);
    lone.shard.remove_address(ip("10.0.0.1"));
    assert_eq!(routes(&lone), ["10.0.0.0/16", "10.0.0.0/24"]);
    lone.shard.remove_address(ip("10.0.0.5"));
    assert_eq!(routes(&lone), ["10.0.0.0/24"]);
    // With another prefix length, the old prefix goes.
    lone.shard.push_command(Command::AddAddress(cidr("10.0.0.6/20"))).expect("room");
    lone.settle();
    assert_eq!(routes(&lone), ["10.0.0.0/20"]);
    lone.shard.remove_address(ip("10.0.0.6"));
    assert_eq!(routes(&lone), Vec::<String>::new());
}

/// Addresses with the same last bytes share a solicited-node group until the last one goes.
#[test]
fn a_solicited_node_group_lives_as_long_as_its_addresses() {
    let mut lone = Lone::quiet(|config| config.link_local = None);
    let group = ip("ff02::1:ff00:1");
    for address in ["fd01::1/64", "7d01::1/64"] {
        lone.shard.push_command(Command::AddAddress(cidr(address))).expect("room");
    }
    lone.settle();
    for address in ["fd00::1", "fd01::1"] {
        lone.shard.remove_address(ip(address));
        assert!(lone.shard.membership.is_member(group), "{address}");
    }
    lone.shard.remove_address(ip("7d01::1"));
    assert!(!lone.shard.membership.is_member(group));
}

/// RFC 3590 section 4: reports about groups go out before there is an address, from the unspecified one, and else
/// from a link-local one.
#[test]
fn mld_reports_come_from_a_link_local_address_or_from_none() {
    let sources = |frames: &[Vec<u8>]| {
        let reports = frames
            .iter()
            .filter(|frame| frame[12..14] == [0x86, 0xdd] && frame[20] == 0 && frame.get(62) == Some(&143));
        reports.map(|frame| frame[22..24].to_vec()).collect::<Vec<_>>()
    };
    let mut lone = Lone::with(|config| config.neighbor.probes = crate::neighbor::AddressProbes::Full);
    let frames = lone.settle();
    assert_eq!(lone.drops(DropReason::NoSource), 0);
    assert!(!sources(&frames).is_empty(), "{frames:?}");
    assert!(sources(&frames).iter().all(|src| src == &[0, 0]), "{:?}", sources(&frames));
    for frame in frames.iter().filter(|frame| frame[12..14] == [0x86, 0xdd]) {
        let mut other = Lone::quiet(|_| {});
        let before = other.drops(DropReason::IcmpChecksum);
        other.put(frame);
        assert_eq!(other.drops(DropReason::IcmpChecksum), before, "its checksum is right");
    }
    lone.advance(Duration::from_secs(20));
    let socket = lone.shard.udp_bind(UdpBind::new("[::]:5000".parse().expect("an address"))).expect("a port");
    lone.shard.udp_join(socket, ip("ff05::5")).expect("joined");
    let reports = sources(&lone.settle());
    assert!(!reports.is_empty());
    assert!(reports.iter().all(|src| src == &[0xfe, 0x80]), "{reports:?}");
    // Without a link-local address, one of another scope will not do.
    let mut global = Lone::quiet(|config| config.link_local = None);
    let socket =
        global.shard.udp_bind(UdpBind::new("[::]:5000".parse().expect("an address"))).expect("a port");
    global.shard.udp_join(socket, ip("ff05::5")).expect("joined");
    let reports = sources(&global.settle());
    assert!(!reports.is_empty() && reports.iter().all(|src| src == &[0, 0]), "{reports:?}");
}

/// Who advertises the prefix of an address of the configuration, or gives it as a lease, does not get to say how long
/// it lasts.
#[test]
fn an_address_of_the_configuration_stays() {
    use crate::ip::slaac::SlaacEvent;
    let mut lone = Lone::quiet(|config| config.dhcp = Some(crate::dhcp::v4::Config::default()));
    let before: Vec<_> = lone.shard.addresses().copied().collect();
    for (address, origin) in [("10.0.0.1/24", Origin::Dhcp), ("fd00::1/64", Origin::Slaac)] {
        lone.shard.add_address(Address {
            valid_until: Some(lone.now + Duration::from_secs(5)),
            ..Address::preferred(cidr(address), origin)
        });
    }
    lone.advance(Duration::from_secs(10));
    let IpAddr::V6(v6) = ip("fd00::1") else { panic!("IPv6") };
    lone.shard.apply_slaac(SlaacEvent::RemoveAddress(v6));
    lone.shard.lose_lease([10, 0, 0, 1].into(), crate::dhcp::v4::LostReason::Expired);
    assert_eq!(lone.shard.addresses().copied().collect::<Vec<_>>(), before);
}

/// A link that was down may be another one: neighbours are asked for again, but those of the configuration.
#[test]
fn neighbours_do_not_outlive_the_link() {
    let mut lone = Lone::quiet(|_| {});
    let mac = EthernetAddress([2, 0, 0, 0, 0, 9]);
    lone.shard.neighbors.learn(lone.now, ip("10.0.0.9"), mac).expect("room");
    lone.shard.push_command(Command::LinkChanged(false)).expect("room");
    lone.settle();
    assert_eq!(lone.shard.neighbors.get(ip("10.0.0.9")), None);
    assert!(lone.shard.neighbors.get(ip("10.0.0.2")).is_some());
}
