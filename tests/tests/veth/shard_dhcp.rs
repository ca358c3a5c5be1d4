//! The DHCP clients of a shard, and dnsmasq as the server.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use wirestack::dhcp::v4::{self, Lease};
use wirestack::ip::Origin;
use wirestack::ip::slaac::SlaacConfig;
use wirestack::ip::stable_address::InterfaceIdentifier;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{Shard, ShardConfig};
use wirestack_apps::testbed::{PEER_IPV4, Wire};
use wirestack_tests::programs::Child;
use wirestack_tests::runner::{Case, Failed, Outcome, require_program, veth_test, veth_test_with};

use crate::shard_end::{End, at_peer};
use crate::shard_neighbor::ping_from;
use crate::shard_services::{dnsmasq, logged, wait_for_log, wait_for_logs, with_link_local};
use crate::support::LONG;
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |cases| require_program("tshark", require_program("dnsmasq", require_program("ping", cases)));
    vec![
        with(veth_test("shard_dhcp::a_lease_is_taken_with_all_that_it_says", lease)),
        with(veth_test("shard_dhcp::routes_without_classes_are_the_only_ones", routes)),
        with(veth_test("shard_dhcp::a_lease_is_renewed_and_given_back", renewed)),
        with(veth_test("shard_dhcp::after_the_link_was_away_the_address_is_verified", verified)),
        with(veth_test("shard_dhcp::an_address_of_another_network_is_given_up", refused)),
        with(veth_test("shard_dhcp::a_taken_address_is_declined", declined)),
        with(veth_test_with("shard_dhcp::settings_come_by_version_6", with_link_local, stateless)),
    ]
}

const RANGE: &str = "--dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,120";

/// A shard that has no IPv4 address but the one that it asks for.
fn start(wire: &Wire, change: impl FnOnce(&mut ShardConfig)) -> Result<End, Failed> {
    let mut config = ShardConfig::new(wire.ours().mac());
    config.seed = 0xd4c9;
    config.dhcp = Some(v4::Config { hostname: Some("shard".to_owned()), ..v4::Config::default() });
    change(&mut config);
    End::start_at_once(wire, config)
}

/// The lease, once its address is in use.
fn bound(shard: &mut Shard) -> Option<Lease> {
    let lease = shard.dhcp_lease()?.clone();
    shard.is_local(lease.address.address().into()).then_some(lease)
}

fn lease(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = dnsmasq(
        wire,
        dir.path(),
        &[
            "--port=0",
            RANGE,
            "--dhcp-option=option:router,10.77.0.1",
            "--dhcp-option=option:dns-server,10.77.0.1,10.77.0.3",
            "--dhcp-option=option:domain-name,lab.example",
            "--dhcp-option=option:domain-search,a.example,b.a.example",
            "--dhcp-option=option:mtu,1400",
        ],
    )?;
    let end = start(wire, |_| {})?;
    let lease = end.until("a lease", bound)?;
    let address = lease.address.address();
    assert!((50..100).contains(&address.octets()[3]) && lease.address.prefix_len() == 24, "{lease:?}");
    assert_eq!((lease.server, &lease.routers[..]), (PEER_IPV4, &[PEER_IPV4][..]));
    assert_eq!(lease.dns, [PEER_IPV4, Ipv4Addr::new(10, 77, 0, 3)]);
    assert_eq!(lease.domain.as_deref(), Some("lab.example"));
    assert_eq!(lease.search, ["a.example", "b.a.example"]);
    assert_eq!((lease.mtu, lease.broadcast), (Some(1400), Some(Ipv4Addr::new(10, 77, 0, 255))));
    let seconds = lease.expires.map(|expires| (expires - lease.obtained).secs());
    assert_eq!(seconds, Some(120));
    let servers = end.events().into_iter().find(|event| event.starts_with("DnsServers"));
    assert_eq!(servers.as_deref(), Some("DnsServers([10.77.0.1, 10.77.0.3])"));
    // The address works, and the default route: the kernel has an address behind itself.
    ping_from(&end, PEER_IPV4.into(), 1)?;
    at_peer(wire, "ip addr add 10.99.0.1/32 dev lo")?;
    ping_from(&end, "10.99.0.1".parse()?, 1)?;
    at_peer(wire, &format!("ping -n -c 1 -W 5 -s 3000 {address}"))?;
    let leases = fs::read_to_string(dir.path().join("leases"))?;
    assert!(leases.contains(&format!("{} {address} shard 01:{}", end.mac(), end.mac())), "{leases}");
    drop(server);
    let record = end.finish()?;
    assert_eq!(
        record.sent("dhcp.option.dhcp == 1 && ip.src == 0.0.0.0 && udp.srcport == 68")?,
        1,
        "DISCOVER"
    );
    assert_eq!(record.sent("dhcp.option.dhcp == 3 && dhcp.option.requested_ip_address")?, 1, "REQUEST");
    // It was looked whether somebody else has it.
    assert!(record.sent(&format!("arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == {address}"))? >= 1);
    // The MTU of the lease counts.
    assert_eq!(record.sent("ip && !(ip.len <= 1400)")?, 0);
    Ok(())
}

/// RFC 3442: with classless routes, the router option is not looked at.
fn routes(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let _server = dnsmasq(
        wire,
        dir.path(),
        &[
            "--port=0",
            RANGE,
            "--dhcp-option=option:router,10.77.0.77",
            "--dhcp-option=option:classless-static-route,10.88.0.0/16,10.77.0.9,0.0.0.0/0,10.77.0.1,10.88.7.0/24,10.77.0.1",
        ],
    )?;
    let end = start(wire, |_| {})?;
    let lease = end.until("a lease", bound)?;
    assert_eq!((lease.routes.len(), lease.routers.len()), (3, 0), "{lease:?}");
    at_peer(
        wire,
        "ip addr add 10.99.0.1/32 dev lo; ip addr add 10.88.7.1/32 dev lo; ip addr add 10.88.8.1/32 dev lo",
    )?;
    // The default route, and the longer prefix.
    ping_from(&end, "10.99.0.1".parse()?, 1)?;
    ping_from(&end, "10.88.7.1".parse()?, 1)?;
    let silent =
        end.call(|shard| shard.ping_bind(wirestack::shard::PingBind::new(Ipv4Addr::UNSPECIFIED.into())))??;
    let to = "10.88.8.1".parse::<IpAddr>()?;
    end.call(move |shard| shard.ping_send(silent, &wirestack::shard::PingOptions::new(to, 1), b"hello"))??;
    let error = end.until("10.77.0.9 does not answer", move |shard| shard.ping_take_error(silent))?;
    assert_eq!(error.error.kind, wirestack::icmp::ErrorKind::HostUnreachable);
    let record = end.finish()?;
    assert!(record.sent("arp.opcode == 1 && arp.dst.proto_ipv4 == 10.77.0.9")? >= 1);
    assert_eq!(record.sent("arp.dst.proto_ipv4 == 10.77.0.77")?, 0);
    Ok(())
}

fn renewed(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = dnsmasq(
        wire,
        dir.path(),
        &["--port=0", RANGE, "--dhcp-option=option:T1,2", "--dhcp-option=option:T2,100"],
    )?;
    let end = start(wire, |_| {})?;
    let first = end.until("a lease", bound)?;
    let obtained = first.obtained;
    let second = end.until("it is renewed", move |shard| {
        shard.dhcp_lease().filter(|lease| lease.obtained > obtained).cloned()
    })?;
    assert_eq!(second.address, first.address);
    assert!(second.expires > first.expires);
    end.call(|shard| shard.dhcp_release())?;
    wait_for_log(&server, "DHCPRELEASE(")?;
    let address = IpAddr::V4(first.address.address());
    assert!(!end.call(move |shard| shard.is_local(address))?, "it is not ours any more");
    let leases = || fs::read_to_string(dir.path().join("leases"));
    wait_until("the server has forgotten the lease", || Ok(!leases()?.contains("10.77.0.")))?;
    let record = end.finish()?;
    let renewal = format!(
        "dhcp.option.dhcp == 3 && ip.src == {address} && ip.dst == {PEER_IPV4} && dhcp.ip.client == {address}"
    );
    assert!(record.sent(&renewal)? >= 1);
    assert_eq!(record.sent("dhcp.option.dhcp == 1")?, 1, "one DISCOVER");
    Ok(())
}

/// Takes the cable out, and puts it back.
fn flap(wire: &Wire) -> Outcome {
    wire.peer().set_down()?;
    // The loop asks for the carrier twice a second; on a busy machine it may not.
    std::thread::sleep(std::time::Duration::from_secs(4));
    wire.peer().set_up()?;
    wire.ours().wait_until_up(LONG)?;
    Ok(())
}

fn verified(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = dnsmasq(wire, dir.path(), &["--port=0", RANGE])?;
    let end = start(wire, |_| {})?;
    let first = end.until("a lease", bound)?;
    flap(wire)?;
    let obtained = first.obtained;
    let second = end.until("it is verified", move |shard| {
        shard.dhcp_lease().filter(|lease| lease.obtained > obtained).cloned()
    })?;
    assert_eq!(second.address, first.address);
    wait_for_logs(&server, "DHCPACK(", 2)?;
    assert_eq!(
        (logged(&server, "DHCPDISCOVER("), logged(&server, "DHCPACK(")),
        (1, 2),
        "{}",
        server.stderr()
    );
    assert!(!end.events().iter().any(|event| event.starts_with("AddressRemoved")), "{:?}", end.events());
    let seconds = (second.obtained - first.obtained).secs();
    assert!(seconds < 50, "after {seconds} seconds it would have been renewed anyway");
    let record = end.finish()?;
    // INIT-REBOOT: the address asked for is an option, and no server is named (RFC 2131 table 5).
    let reboot = "dhcp.option.dhcp == 3 && dhcp.ip.client == 0.0.0.0 && dhcp.option.requested_ip_address && !dhcp.option.dhcp_server_id";
    assert!(record.sent(reboot)? >= 1);
    Ok(())
}

/// While the link was away, it became another network.
fn refused(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = dnsmasq(wire, dir.path(), &["--port=0", RANGE])?;
    let end = start(wire, |_| {})?;
    let first = end.until("a lease", bound)?;
    ended(server)?;
    fs::remove_file(dir.path().join("leases"))?;
    let range = "--dhcp-range=10.77.0.150,10.77.0.199,255.255.255.0,120";
    let server = dnsmasq(wire, dir.path(), &["--port=0", range, "--dhcp-authoritative"])?;
    flap(wire)?;
    let old = first.address;
    let second =
        end.until("another lease", move |shard| bound(shard).filter(|lease| lease.address != old))?;
    assert!((150..200).contains(&second.address.address().octets()[3]), "{second:?}");
    wait_for_log(&server, "DHCPNAK(")?;
    let old = IpAddr::V4(old.address());
    assert!(!end.call(move |shard| shard.is_local(old))?);
    ping_from(&end, PEER_IPV4.into(), 1)?;
    let record = end.finish()?;
    assert_eq!(record.received("dhcp.option.dhcp == 6")?, 1);
    Ok(())
}

fn ended(server: Child) -> Outcome {
    server.terminate()?;
    server.wait(LONG)?;
    Ok(())
}

/// The server gives an address that somebody has without its knowledge.
fn declined(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let host = format!("--dhcp-host={},10.77.0.60", wire.ours().mac().to_string().replace('-', ":"));
    at_peer(wire, "ip addr add 10.77.0.60/32 dev lo")?;
    let server = dnsmasq(wire, dir.path(), &["--port=0", RANGE, &host])?;
    let end = start(wire, |config| config.neighbor.probes = AddressProbes::Quick)?;
    wait_for_log(&server, "DHCPDECLINE(")?;
    let lease = end.until("a lease that can be used", bound)?;
    assert_ne!(lease.address.address(), Ipv4Addr::new(10, 77, 0, 60));
    wait_for_logs(&server, "DHCPACK(", 2)?;
    let origin = end
        .call(move |shard| shard.addresses().find(|known| known.ip().is_ipv4()).map(|known| known.origin))?;
    assert_eq!(origin, Some(Origin::Dhcp));
    let record = end.finish()?;
    assert_eq!(record.sent("dhcp.option.dhcp == 4 && ip.src == 0.0.0.0")?, 1);
    assert_eq!(record.sent("arp.src.proto_ipv4 == 10.77.0.60")?, 0);
    Ok(())
}

/// A router says that others know more (RFC 4861, O flag); that is DHCPv6 without addresses.
fn stateless(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let _server = dnsmasq(
        wire,
        dir.path(),
        &[
            "--port=0",
            "--enable-ra",
            "--dhcp-range=fd77::,ra-stateless,64",
            "--dhcp-option=option6:dns-server,[fd77::53],[fd77::54]",
            "--dhcp-option=option6:domain-search,six.example",
        ],
    )?;
    let end = start(wire, |config| {
        config.dhcp = None;
        config.slaac = Some(SlaacConfig::new(InterfaceIdentifier::Eui64));
        config.dhcp6 = Some(wirestack::dhcp::v6::Config::default());
    })?;
    end.until("an address of the prefix", |shard| {
        shard.addresses().any(|known| known.origin == Origin::Slaac && known.is_usable()).then_some(())
    })?;
    wait_until("the servers are known", || {
        Ok(end.events().iter().any(|event| event == "DnsServers([fd77::53, fd77::54])"))
    })?;
    let record = end.finish()?;
    assert!(record.sent("dhcpv6.msgtype == 11 && ipv6.dst == ff02::1:2 && udp.srcport == 546")? >= 1);
    Ok(())
}
