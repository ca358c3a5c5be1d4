//! A shard and the kernel find each other: ARP, neighbour discovery, and addresses that somebody else has.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wirestack::ip::AddressState;
use wirestack::shard::{Command, PingBind, PingOptions};
use wirestack_apps::testbed::{OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_tests::runner::{Case, Failed, Outcome, require_program, veth_test, veth_test_with};

use crate::shard_end::{End, at_peer, set_peer, try_at_peer, usual};
use crate::shard_services::with_link_local;
use crate::support::ADDRESSES;
use crate::talk::{echo_udp, wait_until};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with_ping = |cases| require_program("tshark", require_program("ping", require_program("ip", cases)));
    let with_arping =
        |cases| require_program("tshark", require_program("arping", require_program("ip", cases)));
    vec![
        with_ping(veth_test("shard_neighbor::the_kernel_resolves_us", the_kernel_resolves_us)),
        with_ping(veth_test("shard_neighbor::we_resolve_the_kernel", we_resolve_the_kernel)),
        with_ping(veth_test("shard_neighbor::an_announcement_corrects_the_kernel", announcement)),
        with_ping(veth_test("shard_neighbor::a_taken_address_is_not_used", a_taken_address)),
        with_ping(veth_test("shard_neighbor::the_kernel_does_not_take_our_address", ours_is_taken)),
        with_arping(veth_test("shard_neighbor::arping_finds_our_address", arping_finds_us)),
        with_arping(veth_test("shard_neighbor::an_address_is_defended_once", defended_once)),
        with_ping(veth_test_with(
            "shard_neighbor::the_kernel_s_probes_are_answered",
            with_link_local,
            probes_are_answered,
        )),
        with_ping(veth_test("shard_neighbor::we_probe_the_kernel", we_probe)),
    ]
}

/// What the peer's kernel knows of an address.
fn entry(wire: &Wire, address: IpAddr) -> std::io::Result<String> {
    at_peer(wire, &format!("ip neigh show {address} dev {}", wire.peer().name()))
}

fn ping(wire: &Wire, address: IpAddr, args: &[&str]) -> Outcome {
    let address = address.to_string();
    let ended = try_at_peer(wire, "ping", &[&["-n", "-W", "20"], args, &[&address]].concat())?;
    assert!(ended.status.success() && ended.stdout.contains(" 0% packet loss"), "{ended}");
    Ok(())
}

/// Pings from our end, and waits for each answer.
pub(crate) fn ping_from(end: &End, to: IpAddr, count: u16) -> Result<(), Failed> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let bind = PingBind::new(any.parse().expect("an address"));
    let socket = end.call(move |shard| shard.ping_bind(bind))??;
    for sequence in 0..count {
        end.call(move |shard| shard.ping_send(socket, &PingOptions::new(to, sequence), b"hello"))??;
        end.until("an echo reply", move |shard| {
            shard.ping_recv_with(socket, |meta, _| meta.sequence).filter(|came| *came == sequence)
        })?;
    }
    end.call(move |shard| shard.close(socket))
}

fn the_kernel_resolves_us(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    at_peer(wire, &format!("ip neigh flush dev {}", wire.peer().name()))?;
    for address in ADDRESSES {
        ping(wire, address, &["-c", "1"])?;
        let entry = entry(wire, address)?;
        assert!(entry.contains(&end.mac()) && entry.contains("REACHABLE"), "{entry}");
    }
    let record = end.finish()?;
    assert_eq!(record.sent(&format!("arp.opcode == 2 && arp.src.proto_ipv4 == {OURS_IPV4}"))?, 1);
    let solicited = format!(
        "icmpv6.type == 136 && icmpv6.nd.na.target_address == {OURS_IPV6} && icmpv6.nd.na.flag.s == 1"
    );
    assert_eq!(record.sent(&solicited)?, 1);
    Ok(())
}

fn we_resolve_the_kernel(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in [IpAddr::V4(PEER_IPV4), PEER_IPV6.into()] {
        ping_from(&end, address, 3)?;
    }
    let record = end.finish()?;
    assert_eq!(record.finished.counters.neighbor_released, 2);
    let request =
        format!("arp.opcode == 1 && eth.dst == ff:ff:ff:ff:ff:ff && arp.dst.proto_ipv4 == {PEER_IPV4}");
    assert_eq!(record.sent(&request)?, 1);
    let solicitation = format!("icmpv6.type == 135 && icmpv6.nd.ns.target_address == {PEER_IPV6}");
    assert_eq!(
        record
            .sent(&format!("{solicitation} && eth.dst == 33:33:ff:00:00:01 && ipv6.dst == ff02::1:ff00:1"))?,
        1
    );
    assert_eq!(record.sent(&solicitation)?, 1);
    Ok(())
}

/// The kernel believes in another hardware address until it hears from us.
fn announcement(wire: &Wire) -> Outcome {
    let device = wire.peer().name();
    let wrong = |address: IpAddr| {
        format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 nud stale dev {device}")
    };
    set_peer(wire, &[("ipv4/neigh/%/locktime", "0")])?;
    at_peer(wire, &wrong(OURS_IPV4.into()))?;
    let end = End::start(wire)?;
    let mac = end.mac();
    wait_until("the kernel has heard the ARP announcement", || {
        Ok(entry(wire, OURS_IPV4.into())?.contains(&mac))
    })?;
    for address in ADDRESSES {
        at_peer(wire, &wrong(address))?;
    }
    // As after a cable was plugged in.
    end.call(|shard| shard.push_command(Command::LinkChanged(true)).is_ok())?;
    for address in ADDRESSES {
        wait_until("the kernel has heard of us anew", || Ok(entry(wire, address)?.contains(&mac)))?;
    }
    let record = end.finish()?;
    let unsolicited =
        "icmpv6.type == 136 && ipv6.dst == ff02::1 && icmpv6.nd.na.flag.s == 0 && icmpv6.nd.na.flag.o == 1";
    assert!(record.sent(&format!("{unsolicited} && icmpv6.nd.na.target_address == {OURS_IPV6}"))? >= 1);
    Ok(())
}

fn a_taken_address(wire: &Wire) -> Outcome {
    let device = wire.peer().name();
    at_peer(
        wire,
        &format!("ip addr add {OURS_IPV4}/24 dev {device}; ip addr add {OURS_IPV6}/64 dev {device} nodad"),
    )?;
    let end = End::start_at_once(wire, usual(wire.ours().mac()))?;
    end.until("both addresses are known to be taken", |shard| {
        let is_taken =
            |ip| shard.addresses().any(|known| known.ip() == ip && known.state == AddressState::Duplicate);
        ADDRESSES.into_iter().all(is_taken).then_some(())
    })?;
    assert_eq!(
        end.events().iter().filter(|event| event.contains("AddressConflict")).count(),
        2,
        "{:?}",
        end.events()
    );
    for address in ADDRESSES {
        assert!(!end.call(move |shard| shard.is_local(address))?, "{address}");
    }
    // The kernel keeps its addresses.
    let addresses = at_peer(wire, &format!("ip addr show dev {device}"))?;
    assert!(!addresses.contains("dadfailed"), "{addresses}");
    let record = end.finish()?;
    let arp = format!("arp && arp.src.proto_ipv4 == {OURS_IPV4}");
    assert_eq!(record.sent(&arp)?, 0, "the address was announced");
    assert!(
        record.sent(&format!("arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == {OURS_IPV4}"))? >= 1
    );
    assert_eq!(record.sent(&format!("ipv6.src == {OURS_IPV6}"))?, 0);
    assert_eq!(
        record.sent(&format!(
            "icmpv6.type == 135 && ipv6.src == :: && icmpv6.nd.ns.target_address == {OURS_IPV6}"
        ))?,
        1
    );
    Ok(())
}

/// Duplicate address detection of the kernel, for an address that is ours.
fn ours_is_taken(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    let device = wire.peer().name();
    set_peer(wire, &[("ipv6/conf/%/accept_dad", "1"), ("ipv6/conf/%/dad_transmits", "1")])?;
    at_peer(wire, &format!("ip addr add {OURS_IPV6}/64 dev {device}"))?;
    wait_until("the kernel has found the address taken", || {
        Ok(at_peer(wire, &format!("ip addr show dev {device}"))?.contains("dadfailed"))
    })?;
    assert!(end.call(|shard| shard.is_local(OURS_IPV6.into()))?, "we keep it");
    let record = end.finish()?;
    let defence =
        format!("icmpv6.type == 136 && ipv6.dst == ff02::1 && icmpv6.nd.na.target_address == {OURS_IPV6}");
    assert!(record.sent(&defence)? >= 1);
    Ok(())
}

/// What other hosts do before they take an IPv4 address (RFC 5227).
fn arping_finds_us(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    let (device, address) = (wire.peer().name(), OURS_IPV4.to_string());
    let ended = try_at_peer(wire, "arping", &["-D", "-c", "2", "-w", "30", "-I", device, &address])?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stdout.to_lowercase().contains(&end.mac()), "{ended}");
    let ended = try_at_peer(wire, "arping", &["-D", "-c", "1", "-w", "1", "-I", device, "10.77.0.77"])?;
    assert_eq!(ended.status.code(), Some(0), "the address of nobody: {ended}");
    assert!(end.call(|shard| shard.is_local(OURS_IPV4.into()))?, "a probe is no conflict");
    end.finish()?;
    Ok(())
}

/// Somebody announces our address: we say whose it is; when they do so again at once, we give it up.
fn defended_once(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    let device = wire.peer().name();
    at_peer(wire, &format!("ip addr add {OURS_IPV4}/32 dev {device}"))?;
    let before = end.call(|shard| shard.counters().tx_frames)?;
    let announce = format!("arping -U -c 1 -I {device} -s {OURS_IPV4} {OURS_IPV4} || true");
    at_peer(wire, &announce)?;
    end.until("the address is defended", move |shard| (shard.counters().tx_frames > before).then_some(()))?;
    assert!(end.call(|shard| shard.is_local(OURS_IPV4.into()))?);
    at_peer(wire, &announce)?;
    end.until("the address is given up", |shard| (!shard.is_local(OURS_IPV4.into())).then_some(()))?;
    assert!(end.events().iter().any(|event| event.contains("AddressConflict")), "{:?}", end.events());
    end.finish()?;
    Ok(())
}

/// The kernel makes sure again and again that we are still there. Over IPv6 it asks from a link-local address
/// only.
fn probes_are_answered(wire: &Wire) -> Outcome {
    for version in ["ipv4", "ipv6"] {
        let name = |setting: &str| format!("{version}/neigh/%/{setting}");
        let (reachable, delay) = (name("base_reachable_time_ms"), name("delay_first_probe_time"));
        set_peer(wire, &[(&reachable, "300"), (&delay, "1")])?;
    }
    let end = End::start(wire)?;
    end.echo(7)?;
    for address in ADDRESSES {
        // Not `ping`, which tells the kernel itself that we are there. The delay before the first probe is a
        // second.
        for _ in 0..20 {
            assert_eq!(echo_udp(wire.peer().namespace(), SocketAddr::new(address, 7), b"hello")?, b"hello");
            std::thread::sleep(Duration::from_millis(100));
        }
        let entry = entry(wire, address)?;
        assert!(entry.contains(&end.mac()) && !entry.contains("FAILED"), "{entry}");
    }
    let mac = end.mac();
    let record = end.finish()?;
    let probe = format!("arp.opcode == 1 && eth.dst == {mac} && arp.dst.proto_ipv4 == {OURS_IPV4}");
    let probes = record.received(&probe)?;
    assert!(probes >= 1, "the kernel has not probed");
    assert!(record.sent("arp.opcode == 2")? > probes);
    let probes = record.received(&format!("icmpv6.type == 135 && eth.dst == {mac}"))?;
    assert!(probes >= 1, "the kernel has not probed");
    assert!(record.sent("icmpv6.type == 136 && icmpv6.nd.na.flag.s == 1")? > probes);
    Ok(())
}

/// The other way round.
fn we_probe(wire: &Wire) -> Outcome {
    let end = End::start_with(wire, |config| {
        config.neighbor.base_reachable_time = smoltcp::time::Duration::from_millis(200);
        config.neighbor.delay_first_probe_time = smoltcp::time::Duration::from_millis(200);
    })?;
    for address in [IpAddr::V4(PEER_IPV4), PEER_IPV6.into()] {
        for _ in 0..12 {
            ping_from(&end, address, 1)?;
            // Long enough for an entry to become old, as the configuration has it.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    // The last probe is answered, too.
    std::thread::sleep(Duration::from_secs(1));
    let record = end.finish()?;
    let mac = wire.peer().mac().to_string().replace('-', ":");
    for (probe, answer) in [
        (format!("arp.opcode == 1 && eth.dst == {mac}"), "arp.opcode == 2"),
        (format!("icmpv6.type == 135 && eth.dst == {mac}"), "icmpv6.type == 136"),
    ] {
        let probes = record.sent(&probe)?;
        assert!(probes >= 1, "{probe}");
        assert!(record.received(answer)? > probes, "{answer}");
    }
    assert_eq!(record.finished.counters.neighbor_released, 2, "nothing waited but the first of each");
    Ok(())
}
