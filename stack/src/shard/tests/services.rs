//! DHCP and DNS within a shard.

use smoltcp::time::Duration;

use super::super::*;
use super::lone::*;
use crate::dns::Kind;

/// A table of sockets that is full leaves room for the stack's own, and no port that cannot be had is asked for
/// without end.
#[test]
fn a_full_table_of_sockets_does_not_stop_queries() {
    let mut lone = Lone::quiet(|config| {
        config.sockets_max = 1;
        config.dns.servers = vec!["10.0.0.2:53".parse().expect("an address")];
    });
    lone.shard.udp_bind(UdpBind::new("0.0.0.0:7".parse().expect("an address"))).expect("a port");
    lone.shard.resolve("example.org.", Kind::A).expect("a name");
    assert_eq!(destinations(&lone.settle()), [(ip("10.0.0.2"), 17)]);
}

/// All ports of the resolver are taken: the lookup fails, and the shard lives.
#[test]
fn a_query_without_a_port_fails() {
    let mut lone = Lone::quiet(|config| {
        config.dns.ports = 20_000..=20_000;
        config.dns.servers = vec!["10.0.0.2:53".parse().expect("an address")];
    });
    lone.shard.udp_bind(UdpBind::new("0.0.0.0:20000".parse().expect("an address"))).expect("the port");
    lone.shard.resolve("example.org.", Kind::A).expect("a name");
    lone.advance(Duration::from_secs(60));
    let answer = lone.shard.next_answer().expect("an end");
    assert!(answer.result.is_err(), "{answer:?}");
}

/// A datagram for an address that DHCP is about to give is verified like any other.
#[test]
fn a_dhcp_answer_with_a_wrong_checksum_is_dropped() {
    let mut lone = Lone::quiet(|config| config.dhcp = Some(crate::dhcp::v4::Config::default()));
    let mut offer = udp(("10.0.0.2", 67), ("10.0.0.50", 68), &[2; 300]);
    let before = lone.drops(DropReason::DhcpIgnored);
    lone.put(&framed(&offer));
    assert_eq!(lone.drops(DropReason::DhcpIgnored), before + 1, "the client has seen it");
    let last = offer.len() - 1;
    offer[last] ^= 1;
    lone.put(&framed(&offer));
    assert_eq!(lone.drops(DropReason::UdpChecksum), 1);
    assert_eq!(lone.drops(DropReason::DhcpIgnored), before + 1);
}

/// Servers of the configuration come first, then what DHCP says, then what routers say; who falls silent takes
/// nothing from the others (RFC 8106 section 5.3.1).
#[test]
fn name_servers_of_several_sources_live_together() {
    use super::super::services::DnsSource;
    let configured: std::net::SocketAddr = "10.0.0.2:53".parse().expect("an address");
    let mut lone = Lone::quiet(|config| config.dns.servers = vec![configured]);
    let servers =
        |lone: &Lone| lone.shard.dns.servers().map(|server| server.address.ip()).collect::<Vec<_>>();
    lone.shard.set_dns(DnsSource::Router, &[ip("fd00::53")], &["router.example".into()]);
    assert_eq!(servers(&lone), [ip("10.0.0.2"), ip("fd00::53")]);
    lone.shard.set_dns(DnsSource::Dhcp, &[ip("10.0.0.53"), ip("10.0.0.2")], &[]);
    assert_eq!(servers(&lone), [ip("10.0.0.2"), ip("10.0.0.53"), ip("fd00::53")]);
    lone.shard.set_dns(DnsSource::Router, &[], &[]);
    assert_eq!(servers(&lone), [ip("10.0.0.2"), ip("10.0.0.53")]);
    lone.shard.set_dns(DnsSource::Dhcp, &[], &[]);
    assert_eq!(servers(&lone), [ip("10.0.0.2")]);
}

/// An ICMP error stops a query if it is about the server that was asked (RFC 5927 section 4).
#[test]
fn an_error_about_another_server_does_not_stop_a_query() {
    let mut lone = Lone::quiet(|config| {
        config.dns.servers = vec!["10.0.0.2:53".parse().expect("an address")];
        config.dns.attempts = 1;
    });
    lone.shard.resolve("example.org.", Kind::A).expect("a name");
    lone.settle();
    let port = lone.shard.dns.queries().next().expect("a query").local_port;
    let error = |server: &str| {
        let quoted = udp(("10.0.0.1", port), (server, 53), b"x");
        framed(&icmp("10.0.0.2", "10.0.0.1", 64, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat()))
    };
    lone.put(&error("10.0.0.3"));
    assert_eq!((lone.shard.next_answer(), lone.drops(DropReason::IcmpSpoofed)), (None, 1));
    lone.put(&error("10.0.0.2"));
    assert!(lone.shard.next_answer().is_some_and(|answer| answer.result.is_err()));
}

/// Nobody hears of a query that was taken back, and its port is free again.
#[test]
fn a_query_that_is_taken_back_ends_in_silence() {
    let mut lone = Lone::quiet(|config| {
        config.dns.ports = 20_000..=20_000;
        config.dns.servers = vec!["10.0.0.2:53".parse().expect("an address")];
    });
    let id = lone.shard.resolve("example.org.", Kind::A).expect("a name");
    lone.settle();
    let bind = UdpBind::new("0.0.0.0:20000".parse().expect("an address"));
    assert!(lone.shard.udp_bind(bind).is_err(), "the query has it");
    lone.shard.cancel_query(id);
    lone.shard.udp_bind(bind).expect("it is free");
    lone.advance(Duration::from_secs(60));
    assert_eq!(lone.shard.next_answer(), None);
}
