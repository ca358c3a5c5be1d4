//! A shard whose link goes and comes back, and one that is shouted at.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use wirestack::shard::UdpBind;
use wirestack_apps::testbed::{OURS_IPV4, OURS_IPV6, Wire};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::shard_end::End;
use crate::support::{ADDRESSES, LONG, noise};
use crate::talk::{echo_udp, wait_until};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |program, cases| require_program("tshark", require_program(program, cases));
    vec![
        with("ip", veth_test("shard_link::traffic_resumes_after_down_and_up", down_and_up)),
        with("ip", veth_test("shard_link::a_removed_interface_ends_the_loop", removed)),
        with("ip", veth_test("shard_link::packets_to_ourselves_stay_here", looped)),
        with("trafgen", veth_test("shard_link::noise_is_counted_and_harms_nobody", garbage)),
    ]
}

/// Asks until there is an answer: what was sent while the link was down is lost.
fn resumes(wire: &Wire, address: IpAddr) -> Outcome {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = wire.at_peer(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    wait_until("an answer after the link is back", || {
        let answer = socket.send_to(b"again", (address, 7)).and_then(|_| socket.recv(&mut [0; 10]));
        match answer {
            Ok(len) => Ok(len == 5),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(error),
            Err(_) => Ok(false),
        }
    })
}

fn down_and_up(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    end.echo(7)?;
    for round in 0..3 {
        note(format!("round {round}"));
        for address in ADDRESSES {
            assert_eq!(echo_udp(wire.peer().namespace(), SocketAddr::new(address, 7), b"hello")?, b"hello");
        }
        let side = if round % 2 == 0 { wire.ours() } else { wire.peer() };
        side.set_down()?;
        // Ours has something to say while nobody can hear it.
        let other = end.bind(UdpBind::new("0.0.0.0:0".parse()?))?;
        let to = SocketAddr::new(wirestack_apps::testbed::PEER_IPV4.into(), 9);
        for _ in 0..20 {
            let _ = end.call(move |shard| shard.udp_send_to(other, b"into the dark", to))?;
        }
        side.set_up()?;
        wire.ours().wait_until_up(LONG)?;
        if round % 2 == 1 {
            // The kernel forgets its IPv6 addresses when its end goes down.
            let (address, len) =
                (wirestack_apps::testbed::PEER_IPV6, wirestack_apps::testbed::IPV6_PREFIX_LEN);
            let _ = wire.peer().add_address(address.into(), len);
        }
        for address in ADDRESSES {
            resumes(wire, address)?;
        }
    }
    let record = end.finish()?;
    // What is told of ourselves when the link is back (RFC 5227 section 2.3, RFC 4861 section 7.2.6).
    assert!(
        record.sent(&format!(
            "arp.opcode == 1 && arp.src.proto_ipv4 == {OURS_IPV4} && arp.dst.proto_ipv4 == {OURS_IPV4}"
        ))? >= 2
    );
    assert!(
        record.sent(&format!(
            "icmpv6.type == 136 && ipv6.dst == ff02::1 && icmpv6.nd.na.target_address == {OURS_IPV6}"
        ))? >= 1
    );
    Ok(())
}

fn removed(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    end.echo(7)?;
    assert_eq!(echo_udp(wire.peer().namespace(), SocketAddr::new(ADDRESSES[0], 7), b"hello")?, b"hello");
    wire.ours().delete()?;
    wait_until("the loop ends", || Ok(end.has_ended()))?;
    let Err(error) = end.finish_dirty() else { return Err("it ended in good order".into()) };
    let words = error.message().unwrap_or_default();
    assert!(words.contains("the interface is gone"), "{words}");
    Ok(())
}

fn looped(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    end.echo(7)?;
    let addresses: [IpAddr; 5] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 9, 9, 9).into(),
        OURS_IPV4.into(),
        Ipv6Addr::LOCALHOST.into(),
        OURS_IPV6.into(),
    ];
    for to in addresses {
        note(format!("{to}"));
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let socket = end.bind(UdpBind::new(any))?;
        for len in [0, 1, 1473, 60_000] {
            let bytes = noise(len as u64, len);
            let sent = bytes.clone();
            end.call(move |shard| shard.udp_send_to(socket, &sent, SocketAddr::new(to, 7)))??;
            let (from, came) = end.recv(socket)?;
            assert!(came == bytes && from == SocketAddr::new(to, 7), "{} bytes from {from}", came.len());
        }
    }
    // Not even a packet that claims to be from us comes from outside.
    let record = end.finish()?;
    assert_eq!(record.finished.counters.looped, 2 * 5 * 4);
    assert_eq!(record.sent("udp || ip.addr == 127.0.0.0/8 || ipv6.addr == ::1")?, 0);
    Ok(())
}

/// Frames of all kinds with random content, from the peer.
fn garbage(wire: &Wire) -> Outcome {
    const COPIES: u64 = 3000;
    let end = End::start(wire)?;
    end.echo(7)?;
    let to = end.mac().split(':').map(|byte| format!("0x{byte}, ")).collect::<String>();
    let (v4, v6) = (bytes(&OURS_IPV4.octets()), bytes(&OURS_IPV6.octets()));
    let from = "2, 0, 0, 0, 0, 0xaa, ";
    let frames = [
        format!("{{ {to}{from} drnd(60) }}"),
        format!("{{ {to}{from} 8, 0, drnd(60) }}"),
        format!("{{ {to}{from} 8, 0, 0x45, 0, 0, 60, drnd(4), 64, drnd(3), 10, 77, 0, 1, {v4} drnd(40) }}"),
        format!("{{ {to}{from} 0x86, 0xdd, drnd(80) }}"),
        format!("{{ {to}{from} 0x86, 0xdd, 0x60, 0, 0, 0, 0, 60, drnd(1), 255, drnd(16), {v6} drnd(60) }}"),
        format!(
            "{{ {to}{from} 0x86, 0xdd, 0x60, 0, 0, 0, 0, 60, 58, 255, 0xfd, 0x77, drnd(14), {v6} drnd(60) }}"
        ),
        format!("{{ {to}{from} 8, 6, 0, 1, 8, 0, 6, 4, 0, drnd(1), drnd(20), drnd(18) }}"),
        format!("{{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, {from} 8, 6, drnd(46) }}"),
        format!(
            "{{ 0x33, 0x33, 0, 0, 0, 1, {from} 0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 58, 255, 0xfe, 0x80, drnd(14), 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, drnd(40) }}"
        ),
        format!("{{ {to}{from} 0x81, 0, drnd(60) }}"),
    ];
    let dir = tempfile::tempdir()?;
    for (number, frame) in frames.iter().enumerate() {
        let file = dir.path().join(format!("{number}.cfg"));
        fs::write(&file, format!("{frame}\n"))?;
        let before = end.call(|shard| shard.counters())?;
        let mut trafgen = Command::new("trafgen");
        trafgen.args([
            "--dev",
            wire.peer().name(),
            "--num",
            &COPIES.to_string(),
            "--cpus",
            "1",
            "--no-sock-mem",
        ]);
        trafgen.arg("--conf").arg(&file);
        wire.at_peer(|| output(&mut trafgen, LONG))?;
        // Each of them became something.
        end.until(&format!("frames of {number} are counted"), move |shard| {
            let now = shard.counters();
            (now.rx_frames >= before.rx_frames + COPIES * 9 / 10).then_some(())
        })?;
        let counters = end.call(|shard| shard.counters())?;
        let fates = counters.delivered + counters.replied + counters.held + counters.rx_dropped;
        assert_eq!(fates, counters.rx_frames, "{counters:?}");
        for address in ADDRESSES {
            resumes(wire, address)?;
        }
    }
    let record = end.finish_dirty()?;
    assert!(record.finished.drops.named().filter(|(_, count)| *count > 0).count() > 8);
    Ok(())
}

fn bytes(octets: &[u8]) -> String {
    octets.iter().map(|byte| format!("{byte}, ")).collect()
}
