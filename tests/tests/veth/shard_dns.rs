//! The resolver of a shard, and dnsmasq as its server.

use std::net::{IpAddr, SocketAddr};

use wirestack::dns::{self, Answer, DnsError, Kind, Name};
use wirestack_apps::testbed::{PEER_IPV4, PEER_IPV6, Wire};
use wirestack_tests::programs::Child;
use wirestack_tests::runner::{Case, Failed, Outcome, note, require_program, veth_test};

use crate::shard_end::{End, at_peer};
use crate::shard_services::{dnsmasq, logged, wait_for_log};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |cases| require_program("tshark", require_program("dnsmasq", cases));
    vec![
        with(veth_test("shard_dns::names_have_addresses", names)),
        with(veth_test("shard_dns::a_server_that_is_not_there_costs_no_time", next_server)),
        with(veth_test("shard_dns::a_silent_server_is_passed_over", silent_server)),
        with(veth_test("shard_dns::what_is_known_is_not_asked_again", remembered)),
    ]
}

const PORT: u16 = 53;

fn serve(wire: &Wire, dir: &std::path::Path) -> Result<Child, Failed> {
    let mut args = vec![
        "--log-queries".to_owned(),
        "--local=/example/".to_owned(),
        "--local=/in-addr.arpa/".to_owned(),
        "--local-ttl=3600".to_owned(),
        "--host-record=one.lab.example,10.1.2.3".to_owned(),
        "--host-record=six.lab.example,fd01::6".to_owned(),
        "--host-record=both.lab.example,10.1.2.4,fd01::4".to_owned(),
        "--cname=alias.lab.example,both.lab.example".to_owned(),
        "--cname=alias2.lab.example,alias.lab.example".to_owned(),
        "--txt-record=text.lab.example,nothing else".to_owned(),
    ];
    // More than a datagram of 1232 bytes takes.
    args.extend((0..120).map(|number| format!("--host-record=many.lab.example,10.2.0.{number}")));
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    Ok(dnsmasq(wire, dir, &args)?)
}

fn resolve(end: &End, name: &'static str, kind: Kind) -> Result<Result<Answer, DnsError>, Failed> {
    note(format!("{name} {kind:?}"));
    let id = end.call(move |shard| shard.resolve(name, kind))??;
    end.until(name, move |shard| {
        let event = shard.next_answer()?;
        assert_eq!(event.id, id);
        Some(event.result)
    })
}

fn start(wire: &Wire, servers: &[SocketAddr]) -> Result<End, Failed> {
    let servers = servers.to_vec();
    End::start_with(wire, |config| {
        config.dns = dns::Config {
            servers,
            search: ["sub.example", "lab.example"]
                .into_iter()
                .filter_map(|name| Name::parse(name).ok())
                .collect(),
            // The longest that there is: who waits for it fails the test.
            timeout: smoltcp::time::Duration::from_secs(30),
            ..dns::Config::default()
        };
    })
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn names(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let _server = serve(wire, dir.path())?;
    for server in [IpAddr::V4(PEER_IPV4), PEER_IPV6.into()] {
        note(format!("server {server}"));
        let end = start(wire, &[SocketAddr::new(server, PORT)])?;
        let found: [(&str, Kind, &str, &[&str]); 7] = [
            ("one.lab.example", Kind::A, "one.lab.example", &["10.1.2.3"]),
            ("six.lab.example.", Kind::Aaaa, "six.lab.example", &["fd01::6"]),
            ("both.lab.example", Kind::Addresses, "both.lab.example", &["fd01::4", "10.1.2.4"]),
            ("one.lab.example", Kind::Addresses, "one.lab.example", &["10.1.2.3"]),
            ("alias2.lab.example", Kind::Addresses, "both.lab.example", &["fd01::4", "10.1.2.4"]),
            // By the search list: the first domain has no such name.
            ("one", Kind::A, "one.lab.example", &["10.1.2.3"]),
            ("alias", Kind::Aaaa, "both.lab.example", &["fd01::4"]),
        ];
        for (name, kind, canonical, addresses) in found {
            let answer = resolve(&end, name, kind)??;
            assert_eq!((answer.name.trim_end_matches('.'), answer.addresses), (canonical, ips(addresses)));
            assert!(!answer.is_truncated);
        }
        for (address, name) in [("10.1.2.3", "one.lab.example"), ("fd01::6", "six.lab.example")] {
            let answer = resolve(&end, address, Kind::Ptr)??;
            assert_eq!(
                answer.names.iter().map(|name| name.trim_end_matches('.')).collect::<Vec<_>>(),
                [name]
            );
        }
        assert_eq!(resolve(&end, "nobody.lab.example", Kind::Addresses)?, Err(DnsError::NotFound));
        assert_eq!(resolve(&end, "10.9.9.9", Kind::Ptr)?, Err(DnsError::NotFound));
        assert_eq!(resolve(&end, "one.lab.example", Kind::Aaaa)?, Err(DnsError::NoData));
        assert_eq!(resolve(&end, "text.lab.example", Kind::A)?, Err(DnsError::NoData));
        match resolve(&end, "many.lab.example", Kind::A)? {
            Ok(answer) => assert!(answer.is_truncated && answer.addresses.len() > 10, "{answer:?}"),
            Err(error) => assert_eq!(error, DnsError::Truncated),
        }
        let record = end.finish()?;
        assert!(record.received("dns.flags.truncated == 1")? >= 1);
        assert_eq!(record.sent("dns && (_ws.malformed || _ws.expert.severity == error)")?, 0);
        // Nobody can guess a port by the last one.
        let ports = record.frames("dns.flags.response == 0", &["udp.srcport"])?;
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert!(distinct.len() * 10 > ports.len() * 9, "{} of {} ports", distinct.len(), ports.len());
    }
    Ok(())
}

/// The first two are told to be closed by ICMP, and the third one answers: nobody waits.
fn next_server(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = serve(wire, dir.path())?;
    let closed = [SocketAddr::new(PEER_IPV4.into(), 5353), SocketAddr::new(PEER_IPV6.into(), 5353)];
    let end = start(wire, &[closed[0], closed[1], SocketAddr::new(PEER_IPV4.into(), PORT)])?;
    let before = end.call(|shard| shard.now())?;
    let answer = resolve(&end, "one.lab.example", Kind::A)??;
    assert_eq!(answer.addresses, ips(&["10.1.2.3"]));
    let after = end.call(|shard| shard.now())?;
    assert!(after < before + smoltcp::time::Duration::from_secs(30), "no server was waited for");
    wait_for_log(&server, "query[A] one.lab.example")?;
    let record = end.finish()?;
    assert_eq!(record.sent("udp.dstport == 5353")?, 2);
    assert_eq!(record.received("icmp.type == 3 || icmpv6.type == 1")?, 2);
    Ok(())
}

fn silent_server(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let _server = serve(wire, dir.path())?;
    // A host that is there and says nothing: packets to it are thrown away.
    at_peer(wire, "ip addr add 10.77.0.53/32 dev lo; ip route add blackhole 10.77.0.54/32 || true")?;
    let silent = wire.at_peer(|| std::net::UdpSocket::bind("10.77.0.53:53"))?;
    let servers = [silent.local_addr()?, SocketAddr::new(PEER_IPV4.into(), PORT)];
    let end = End::start_with(wire, |config| {
        let timeout = smoltcp::time::Duration::from_millis(200);
        config.dns = dns::Config { servers: servers.to_vec(), timeout, ..dns::Config::default() };
    })?;
    let answer = resolve(&end, "both.lab.example", Kind::Addresses)??;
    assert_eq!(answer.addresses, ips(&["fd01::4", "10.1.2.4"]));
    let mut room = [0; 1500];
    silent.set_read_timeout(Some(crate::support::LONG))?;
    assert!(silent.recv(&mut room)? > 12, "the first server was asked");
    end.finish()?;
    Ok(())
}

fn remembered(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let server = serve(wire, dir.path())?;
    let end = start(wire, &[SocketAddr::new(PEER_IPV4.into(), PORT)])?;
    for _ in 0..5 {
        assert_eq!(resolve(&end, "one.lab.example", Kind::A)??.addresses, ips(&["10.1.2.3"]));
        // The case of letters is no difference.
        assert_eq!(resolve(&end, "ONE.Lab.Example", Kind::A)??.addresses, ips(&["10.1.2.3"]));
    }
    // Many at a time, each with its own answer.
    let names: Vec<_> = ["one", "both", "alias", "alias2", "nobody"].into_iter().cycle().take(100).collect();
    let asked = end.call(move |shard| {
        names
            .into_iter()
            .map(|name| Ok((shard.resolve(&format!("{name}.lab.example"), Kind::A)?, name)))
            .collect::<Result<Vec<_>, dns::ResolveError>>()
    })??;
    for _ in 0..asked.len() {
        let event = end.until("an answer", |shard| shard.next_answer())?;
        let name =
            asked.iter().find(|(id, _)| *id == event.id).map(|(_, name)| *name).ok_or("nobody asked")?;
        match event.result {
            Ok(answer) if name == "one" => assert_eq!(answer.addresses, ips(&["10.1.2.3"])),
            Ok(answer) => {
                let is_right = name != "nobody" && answer.addresses == ips(&["10.1.2.4"]);
                assert!(is_right, "{name}: {answer:?}");
            }
            Err(error) => assert_eq!((name, error), ("nobody", DnsError::NotFound)),
        }
    }
    wait_for_log(&server, "query[A] nobody.lab.example")?;
    assert_eq!(logged(&server, "query[A] one.lab.example"), 1, "{}", server.stderr());
    end.finish()?;
    Ok(())
}
