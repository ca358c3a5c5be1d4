//! Routers' advertisements: a shard follows radvd.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nix::sys::signal::Signal;
use wirestack::ip::slaac::SlaacConfig;
use wirestack::ip::stable_address::{InterfaceIdentifier, Secret};
use wirestack::ip::{Address, AddressState, Origin};
use wirestack::shard::{Shard, ShardConfig, UdpBind};
use wirestack::udp::{Fragmenting, SendError};
use wirestack_apps::testbed::{PEER_IPV6, Wire};
use wirestack_tests::runner::{Case, Failed, Outcome, require_program, veth_test_with};

use crate::shard_end::{End, at_peer};
use crate::shard_neighbor::ping_from;
use crate::shard_services::{radvd, with_link_local, write_radvd};
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |name: &str, body| {
        let cases = veth_test_with(name, with_link_local, body);
        require_program("tshark", require_program("radvd", require_program("ping", cases)))
    };
    vec![
        with("shard_slaac::an_advertisement_is_followed", followed),
        with("shard_slaac::prefixes_grow_old_and_routers_go", old_prefixes),
        with("shard_slaac::a_taken_address_is_replaced", taken),
    ]
}

const PREFIX: &str = "fd99:";

fn start(wire: &Wire, identifier: InterfaceIdentifier) -> Result<End, Failed> {
    let mut config = ShardConfig::new(wire.ours().mac());
    config.seed = 0x51aa;
    config.slaac = Some(SlaacConfig::new(identifier));
    End::start_at_once(wire, config)
}

/// The address that was made of the advertised prefix, in this state.
fn formed(shard: &Shard, state: AddressState) -> Option<Address> {
    let is_it = |known: &&Address| known.origin == Origin::Slaac && known.state == state;
    shard.addresses().find(is_it).copied()
}

fn followed(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let _router = radvd(
        wire,
        dir.path(),
        "AdvLinkMTU 1400; AdvCurHopLimit 55; AdvDefaultLifetime 1800; AdvReachableTime 20000; \
         prefix fd99::/64 { AdvOnLink on; AdvAutonomous on; AdvValidLifetime 600; AdvPreferredLifetime 300; }; \
         RDNSS fd77::53 fd77::54 { }; DNSSL lab.example { };",
    )?;
    let end = start(wire, InterfaceIdentifier::Eui64)?;
    let address = end.until("an address of the prefix", |shard| formed(shard, AddressState::Preferred))?;
    // Modified EUI-64 (RFC 4291 appendix A).
    let [a, b, c, d, e, f] = wire.ours().mac().0;
    let group = |high, low| u16::from_be_bytes([high, low]);
    let expected =
        Ipv6Addr::new(0xfd99, 0, 0, 0, group(a ^ 2, b), group(c, 0xff), group(0xfe, d), group(e, f));
    assert_eq!(address.ip(), expected);
    let now = end.call(|shard| shard.now())?;
    let left = |until: Option<smoltcp::time::Instant>| until.map(|until| (until - now).secs());
    let (preferred, valid) = (left(address.preferred_until), left(address.valid_until));
    assert!(preferred.is_some_and(|left| (200..=300).contains(&left)), "{address:?}");
    assert!(valid.is_some_and(|left| (500..=600).contains(&left)), "{address:?}");
    wait_until("the servers are known", || {
        Ok(end.events().iter().any(|event| event == "DnsServers([fd77::53, fd77::54])"))
    })?;
    // Behind the router.
    at_peer(wire, "ip -6 addr add fd55::1/128 dev lo")?;
    ping_from(&end, "fd55::1".parse()?, 2)?;
    // On the link, by the prefix: without the router.
    at_peer(wire, &format!("ip -6 addr add fd99::1/64 dev {} nodad", wire.peer().name()))?;
    ping_from(&end, "fd99::1".parse()?, 1)?;
    at_peer(wire, &format!("ping -n -c 1 -W 5 -s 3000 {expected}"))?;
    let mut bind = UdpBind::new("[::]:0".parse()?);
    bind.options.dont_fragment = Fragmenting::Forbid;
    let socket = end.bind(bind)?;
    let to = SocketAddr::new("fd55::1".parse()?, 9);
    let refused = end.call(move |shard| shard.udp_send_to(socket, &[0; 1400], to))?;
    assert_eq!(refused, Err(SendError::TooLong { max: 1400 - 48 }), "the MTU that the router told");
    let record = end.finish()?;
    assert!(record.sent("icmpv6.type == 133 && ipv6.dst == ff02::2 && ipv6.hlim == 255")? >= 1);
    assert!(record.sent("icmpv6.type == 128 && ipv6.hlim == 55")? >= 3, "the hop limit that the router told");
    assert_eq!(record.sent("ipv6 && frame.len > 1414")?, 0);
    let probe = format!("icmpv6.type == 135 && ipv6.src == :: && icmpv6.nd.ns.target_address == {expected}");
    assert_eq!(record.sent(&probe)?, 1);
    Ok(())
}

fn old_prefixes(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let prefix = |preferred: u32| {
        format!(
            "AdvDefaultLifetime 1800; prefix {PREFIX}:/64 {{ AdvValidLifetime 9000; AdvPreferredLifetime {preferred}; }};"
        )
    };
    let router = radvd(wire, dir.path(), &prefix(300))?;
    let end = start(wire, InterfaceIdentifier::Stable { secret: Secret([7; 16]) })?;
    let address = end.until("an address of the prefix", |shard| formed(shard, AddressState::Preferred))?;
    at_peer(wire, "ip -6 addr add fd55::1/128 dev lo")?;
    ping_from(&end, "fd55::1".parse()?, 1)?;
    // The router takes it back.
    write_radvd(wire, dir.path(), &prefix(0))?;
    router.signal(Signal::SIGHUP)?;
    let old = end.until("the address is deprecated", |shard| formed(shard, AddressState::Deprecated))?;
    assert_eq!(old.cidr, address.cidr);
    // What has begun goes on.
    at_peer(wire, &format!("ping -n -c 1 -W 5 {}", address.ip()))?;
    write_radvd(wire, dir.path(), &prefix(300))?;
    router.signal(Signal::SIGHUP)?;
    end.until("the address is preferred again", |shard| formed(shard, AddressState::Preferred))?;
    // Before it ends, it says that it is no router any more.
    router.terminate()?;
    let socket = end.bind(UdpBind::new("[::]:0".parse()?))?;
    let to = SocketAddr::new("fd55::1".parse()?, 9);
    end.until("the default route is gone", move |shard| {
        // Each turn asks; a router that goes on to speak would fail the test by the time limit.
        (shard.udp_send_to(socket, b"hello", to) == Err(SendError::NoRoute)).then_some(())
    })?;
    assert!(formed_now(&end)?.is_some(), "the address does not hang on the router");
    end.finish()?;
    Ok(())
}

fn formed_now(end: &End) -> Result<Option<Address>, Failed> {
    end.call(|shard| formed(shard, AddressState::Preferred))
}

/// Somebody has the address that would be the first: with RFC 7217 there is another one.
fn taken(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let secret = InterfaceIdentifier::Stable { secret: Secret([9; 16]) };
    let prefix = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0);
    let first = secret.address(prefix, wire.ours().mac(), "", &mut 0).ok_or("an address")?;
    let first = IpAddr::V6(first);
    at_peer(wire, &format!("ip -6 addr add {first}/64 dev {} nodad", wire.peer().name()))?;
    let _router = radvd(wire, dir.path(), "prefix fd99::/64 { };")?;
    let end = start(wire, secret)?;
    let address = end.until("an address that is free", |shard| formed(shard, AddressState::Preferred))?;
    assert_ne!(address.ip(), first);
    assert!(end.events().iter().any(|event| event.starts_with("AddressConflict")), "{:?}", end.events());
    at_peer(wire, &format!("ping -n -c 1 -W 5 {}", address.ip()))?;
    ping_from(&end, PEER_IPV6.into(), 1)?;
    let record = end.finish()?;
    assert_eq!(record.sent(&format!("ipv6.src == {first}"))?, 0);
    Ok(())
}
