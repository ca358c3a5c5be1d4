//! ICMP between a shard and the kernel: `ping` both ways, and errors both ways.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::net::SendFlags;
use rustix::net::{AddressFamily, Protocol, SocketType, sendto, socket};
use wirestack::icmp::ErrorKind;
use wirestack::observe::DropReason;
use wirestack::shard::{PingBind, PingOptions, UdpBind};
use wirestack_apps::testbed::{OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::shard_end::{End, at_peer, try_at_peer};
use crate::support::{ADDRESSES, LONG, noise};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |program, cases| require_program("tshark", require_program(program, cases));
    vec![
        with("ping", veth_test("shard_icmp::ping_is_answered_in_all_sizes", ping_sizes)),
        with("ping", veth_test("shard_icmp::ping_to_all_is_not_answered", ping_to_all)),
        with("ping", veth_test("shard_icmp::a_flood_of_pings_is_answered", ping_flood)),
        with("ip", veth_test("shard_icmp::we_ping_the_kernel_in_all_sizes", we_ping)),
        with("ip", veth_test("shard_icmp::a_closed_port_of_ours_refuses", closed_port)),
        with("ip", veth_test("shard_icmp::an_unknown_protocol_is_refused", unknown_protocol)),
        with("ip", veth_test("shard_icmp::a_closed_port_of_the_kernel_is_told", closed_port_of_the_kernel)),
        with("ip", veth_test("shard_icmp::errors_have_a_limit", error_limit)),
    ]
}

/// What is longer than the link takes comes in fragments, and goes back so.
fn ping_sizes(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in ADDRESSES {
        let address = address.to_string();
        for size in ["0", "56", "1452", "1453", "1472", "1473", "8000", "65000"] {
            note(format!("{address}: {size} bytes"));
            // One at a time: after the first answer `ping` waits for the last one no longer than for two of them.
            let args = ["-n", "-W", "20", "-c", "1", "-s", size, &address];
            let ended = try_at_peer(wire, "ping", &args)?;
            // `ping` compares the bytes.
            assert!(ended.stdout.contains("1 received, 0% packet loss"), "{ended}");
            assert!(ended.stdout.contains("ttl=64"), "{ended}");
            assert!(!ended.stdout.contains("wrong data"), "{ended}");
        }
    }
    let (v4, v6) = (OURS_IPV4.to_string(), OURS_IPV6.to_string());
    for (address, size) in [(&v4, "1472"), (&v6, "1452")] {
        let ended =
            try_at_peer(wire, "ping", &["-n", "-c", "1", "-W", "5", "-M", "do", "-s", size, address])?;
        assert!(ended.stdout.contains("1 received"), "{ended}");
    }
    // TOS comes back, as RFC 1122 section 3.2.2.6 wants it.
    let ended = try_at_peer(wire, "ping", &["-n", "-c", "1", "-W", "5", "-Q", "0x28", &v4])?;
    assert!(ended.stdout.contains("1 received"), "{ended}");
    // A pattern in which a checksum is all ones.
    let ended = try_at_peer(wire, "ping", &["-n", "-c", "1", "-W", "20", "-p", "ff", "-s", "999", &v6])?;
    assert!(ended.stdout.contains("1 received"), "{ended}");
    let record = end.finish()?;
    assert!(record.finished.counters.reassembled >= 2 * 3);
    assert!(record.finished.counters.fragments_sent >= 2 * (2 + 6 + 44));
    assert_eq!(record.sent("icmp.type == 0 && ip.dsfield == 0x28")?, 1);
    Ok(())
}

/// RFC 1122 section 3.2.2.6 leaves it to us, and who answers makes a flood of one packet.
fn ping_to_all(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in ["10.77.0.255", "255.255.255.255"] {
        let args = ["-b", "-n", "-c", "2", "-i", "0.1", "-W", "1", "-I", wire.peer().name(), address];
        let ended = try_at_peer(wire, "ping", &args)?;
        assert!(ended.stdout.contains(" 0 received"), "{ended}");
    }
    let record = end.finish()?;
    assert!(record.received("icmp.type == 8")? >= 2);
    assert_eq!(record.sent("icmp.type == 0")?, 0);
    Ok(())
}

fn ping_flood(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in ADDRESSES {
        let args = ["-q", "-n", "-f", "-c", "5000", "-W", "5", &address.to_string()];
        let ended = try_at_peer(wire, "ping", &args)?;
        // The last answers may be late, so what it has received is not counted.
        assert!(ended.stdout.contains("5000 packets transmitted"), "{ended}");
    }
    end.until("all are answered", |shard| (shard.counters().replied == 10_000).then_some(()))?;
    let record = end.finish()?;
    assert_eq!(record.finished.counters.replied, 10_000);
    Ok(())
}

fn we_ping(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for to in [IpAddr::V4(PEER_IPV4), PEER_IPV6.into()] {
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let bind = PingBind::new(any.parse()?);
        let socket = end.call(move |shard| shard.ping_bind(bind))??;
        for (sequence, len) in (1..).zip([0, 1, 56, 1452, 1453, 1472, 1473, 8000, 60_000, 65_000]) {
            note(format!("{to}: {len} bytes"));
            let data = noise(len as u64, len);
            let sent = data.clone();
            let options =
                PingOptions { hop_limit: Some(9), traffic_class: 0x2a, ..PingOptions::new(to, sequence) };
            end.call(move |shard| shard.ping_send(socket, &options, &sent))??;
            let (meta, came) = end.until("an echo reply", move |shard| {
                shard.ping_recv_with(socket, |meta, data| (*meta, data.to_vec()))
            })?;
            assert!(came == data, "other bytes came back");
            assert_eq!((meta.src, meta.sequence, meta.hop_limit), (to, sequence, 64));
            assert!(meta.timestamp.is_some() || len > 1452, "the device tells when a frame came");
        }
        let too_long = PingOptions { dont_fragment: true, ..PingOptions::new(to, 99) };
        let error = end.call(move |shard| shard.ping_send(socket, &too_long, &[0; 1473]))?;
        assert!(error.is_err(), "it must not be fragmented");
    }
    let record = end.finish()?;
    assert_eq!(record.sent("icmp.type == 8 && ip.ttl != 9")?, 0);
    assert!(record.sent("icmp.type == 8 && ip.dsfield == 0x2a")? >= 10);
    assert!(record.sent("icmpv6.type == 128 && ipv6.tclass == 0x2a && ipv6.hlim == 9")? >= 10);
    Ok(())
}

fn closed_port(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in ADDRESSES {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = wire.at_peer(|| UdpSocket::bind(any))?;
        socket.set_read_timeout(Some(LONG))?;
        socket.connect((address, 9))?;
        for len in [1, 1400, 20_000] {
            socket.send(&noise(1, len))?;
            let error = socket.recv(&mut [0; 10]).expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}: {len} bytes");
        }
    }
    assert_eq!(end.drops(DropReason::UdpNoSocket)?, 6);
    let record = end.finish()?;
    assert_eq!(record.sent("icmp.type == 3 && icmp.code == 3")?, 3);
    assert_eq!(record.sent("icmpv6.type == 1 && icmpv6.code == 4")?, 3);
    // RFC 1812 section 4.3.2.3: 576 bytes; RFC 4443 section 2.4 (c): 1280.
    assert_eq!(record.sent("icmp.type == 3 && ip.len > 576 && !(ip.len <= 576)")?, 0);
    assert_eq!(record.sent("icmpv6.type == 1 && frame.len > 1294")?, 0);
    Ok(())
}

/// A number that RFC 3692 keeps for experiments.
const EXPERIMENTAL: u8 = 253;

fn unknown_protocol(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in ADDRESSES {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = std::num::NonZeroU32::new(EXPERIMENTAL.into()).map(Protocol::from_raw);
        let raw = wire.at_peer(|| socket(family, SocketType::RAW, protocol))?;
        sendto(&raw, b"anybody?", SendFlags::empty(), &SocketAddr::new(address, 0))?;
    }
    end.until("both are told", |shard| (shard.counters().icmp_errors_sent == 2).then_some(()))?;
    let record = end.finish()?;
    assert_eq!(record.sent("icmp.type == 3 && icmp.code == 2")?, 1);
    assert_eq!(record.sent("icmpv6.type == 4 && icmpv6.code == 1")?, 1);
    Ok(())
}

fn closed_port_of_the_kernel(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for address in [IpAddr::V4(PEER_IPV4), PEER_IPV6.into()] {
        let remote = SocketAddr::new(address, 9);
        let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let socket = end.bind(UdpBind::new(any))?;
        end.call(move |shard| shard.udp_connect(socket, Some(remote)))??;
        end.call(move |shard| shard.udp_send(socket, b"anybody?"))??;
        let error = end.until("the error is told", move |shard| shard.udp_take_error(socket))?;
        assert_eq!((error.kind, error.from, error.dst), (ErrorKind::PortUnreachable, address, remote));
        // Who is not connected does not hear of it, as with Linux.
        let other = end.bind(UdpBind::new(any))?;
        let before = end.call(|shard| shard.counters().icmp_errors_received)?;
        end.call(move |shard| shard.udp_send_to(other, b"anybody?", remote))??;
        end.until("another error", move |shard| {
            (shard.counters().icmp_errors_received > before).then_some(())
        })?;
        assert!(end.call(move |shard| shard.udp_take_error(other))?.is_none());
    }
    end.finish()?;
    Ok(())
}

/// Many datagrams to closed ports draw few errors.
fn error_limit(wire: &Wire) -> Outcome {
    const COUNT: u64 = 500;
    let end = End::start(wire)?;
    for address in ADDRESSES {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sender = wire.at_peer(|| UdpSocket::bind(any))?;
        sender.send_to(b"first", (address, 9))?;
        for _ in 1..COUNT {
            sender.send_to(b"more", (address, 9))?;
        }
    }
    end.until("all came", |shard| (shard.drops().get(DropReason::UdpNoSocket) == 2 * COUNT).then_some(()))?;
    let (sent, limited) = end
        .call(|shard| (shard.counters().icmp_errors_sent, shard.drops().get(DropReason::IcmpRateLimited)))?;
    assert_eq!(sent + limited, 2 * COUNT);
    // Six in one go to each address, and one more each second: of that, nobody waits for many.
    assert!((2..=60).contains(&sent), "{sent} errors");
    // What we say to those who ask is not limited by this.
    at_peer(wire, &format!("ping -n -c 1 -W 5 {}", OURS_IPV4))?;
    end.finish()?;
    Ok(())
}
