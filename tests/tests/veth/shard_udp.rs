//! UDP between a shard and the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::{NonZeroU16, NonZeroU32};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, sendto, socket, sockopt as more};
use wirestack::observe::DropReason;
use wirestack::shard::{SendOptions, SocketId, UdpBind};
use wirestack::udp::SendError;
use wirestack_apps::testbed::{OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_nic::ethtool::Offload;
use wirestack_tests::runner::{Case, Failed, Outcome, note, require_program, stay_on_one_core, veth_test};

use crate::shard_end::End;
use crate::support::{ADDRESSES, LONG, noise};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |cases| require_program("tshark", cases);
    vec![
        with(veth_test("shard_udp::datagrams_of_all_lengths_come_back", all_lengths)),
        with(veth_test("shard_udp::a_connected_socket_hears_one_peer", connected)),
        with(veth_test("shard_udp::what_a_header_says_is_told_and_set", metadata)),
        with(veth_test("shard_udp::merged_datagrams_are_taken_apart", merged)),
        with(veth_test("shard_udp::several_in_one_arrive_as_several", several_in_one)),
        with(veth_test("shard_udp::several_in_one_arrive_as_one_where_that_is_wanted", received_merged)),
        with(veth_test("shard_udp::broadcast_goes_both_ways", broadcast)),
        with(veth_test("shard_udp::checksums_absent_right_and_wrong", checksums)),
        with(veth_test("shard_udp::many_sockets_have_a_port_each", many_sockets)),
        with(veth_test("shard_udp::a_full_queue_is_counted", full_queue)),
    ]
}

/// Both ends of one pair of addresses.
const ENDS: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(OURS_IPV4), IpAddr::V4(PEER_IPV4)), (IpAddr::V6(OURS_IPV6), IpAddr::V6(PEER_IPV6))];

fn kernel_socket(wire: &Wire, address: IpAddr) -> Result<UdpSocket, Failed> {
    let socket = wire.at_peer(|| UdpSocket::bind((address, 0)))?;
    socket.set_read_timeout(Some(LONG))?;
    Ok(socket)
}

/// A socket of the shard that has talked to the kernel's: both know their neighbour, so nothing that follows
/// has to wait for it.
fn acquainted(end: &End, ours: IpAddr, kernel: &UdpSocket) -> Result<SocketId, Failed> {
    let socket = end.bind(UdpBind::new(SocketAddr::new(ours, 0)))?;
    let (peer, local) =
        (kernel.local_addr()?, end.call(move |shard| shard.udp_socket(socket).map(|socket| socket.local()))?);
    end.call(move |shard| shard.udp_send_to(socket, b"hello", peer))??;
    let (len, from) = kernel.recv_from(&mut [0; 100])?;
    assert_eq!((len, Some(from)), (5, local));
    kernel.send_to(b"you too", from)?;
    assert_eq!(end.recv(socket)?, (peer, b"you too".to_vec()));
    Ok(socket)
}

fn all_lengths(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    end.echo(7)?;
    for (ours, theirs) in ENDS {
        let socket = kernel_socket(wire, theirs)?;
        socket.connect((ours, 7))?;
        let longest = if ours.is_ipv4() { 65_507 } else { 65_527 };
        for len in [0, 1, 2, 17, 18, 1451, 1452, 1453, 1472, 1473, 2905, 9000, 40_000, longest] {
            note(format!("{ours}: {len} bytes"));
            let sent = noise(len as u64, len);
            socket.send(&sent)?;
            let mut room = vec![0; 65_536];
            let came = socket.recv(&mut room)?;
            assert!(room[..came] == sent, "{came} bytes came back");
        }
    }
    let record = end.finish()?;
    assert!(record.finished.counters.reassembled >= 12 && record.finished.counters.fragments_sent > 170);
    // Whoever fragments sends fragments that fill the link, and no small ones before the last.
    assert_eq!(record.sent("ip.flags.mf == 1 && ip.len == 1500")?, 1 + 1 + 6 + 27 + 44);
    assert_eq!(record.sent("ip.flags.mf == 1 && ip.len < 1490")?, 0);
    assert_eq!(record.sent("ipv6.fraghdr.more == 1 && ipv6.plen < 1440")?, 0);
    Ok(())
}

fn connected(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for (ours, theirs) in ENDS {
        let (friend, stranger) = (kernel_socket(wire, theirs)?, kernel_socket(wire, theirs)?);
        let remote = friend.local_addr()?;
        let any =
            if ours.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = end.bind(UdpBind::new(SocketAddr::new(any, 0)))?;
        end.call(move |shard| shard.udp_connect(socket, Some(remote)))??;
        let local = end.call(move |shard| shard.udp_socket(socket).map(|socket| socket.local()))?;
        let local = local.ok_or("it is closed")?;
        assert_eq!(local.ip(), ours, "an address is chosen");
        end.call(move |shard| shard.udp_send(socket, b"to you"))??;
        let (len, from) = friend.recv_from(&mut [0; 100])?;
        assert_eq!((len, from), (6, local));
        stranger.send_to(b"listen to me", local)?;
        friend.send_to(b"and back", local)?;
        assert_eq!(end.recv(socket)?, (remote, b"and back".to_vec()));
        // A stranger finds the port closed.
        stranger.connect(local)?;
        stranger.send(b"listen to me")?;
        let error = stranger.recv(&mut [0; 100]).expect_err("nobody is there for a stranger");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    end.finish()?;
    Ok(())
}

fn metadata(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for (ours, theirs) in ENDS {
        let kernel = kernel_socket(wire, theirs)?;
        let socket = acquainted(&end, ours, &kernel)?;
        let local = end.call(move |shard| shard.udp_socket(socket).map(|socket| socket.local()))?;
        let local = local.ok_or("it is closed")?;
        if ours.is_ipv4() {
            more::set_ip_ttl(&kernel, 33)?;
            more::set_ip_tos(&kernel, 0xb9)?;
        } else {
            more::set_ipv6_unicast_hops(&kernel, Some(33))?;
            more::set_ipv6_tclass(&kernel, 0xb9)?;
        }
        for len in [10, 5000] {
            kernel.send_to(&noise(1, len), local)?;
            let meta = end.until("a datagram", move |shard| shard.udp_recv_with(socket, |meta, _| *meta))?;
            assert_eq!((meta.hop_limit, meta.traffic_class, meta.dst), (33, 0xb9, local), "{len} bytes");
            assert!(meta.timestamp.is_some() || len > 1472);
        }
        let to = Some(kernel.local_addr()?);
        let options =
            SendOptions { to, hop_limit: Some(77), traffic_class: Some(0x2e), ..SendOptions::default() };
        end.call(move |shard| {
            shard.udp_send_with(socket, &options, 3, |room| room.copy_from_slice(b"odd"))
        })??;
        assert_eq!(kernel.recv(&mut [0; 10])?, 3);
    }
    let record = end.finish()?;
    assert_eq!(record.sent("udp && ip.ttl == 77 && ip.dsfield == 0x2e")?, 1);
    assert_eq!(record.sent("udp && ipv6.hlim == 77 && ipv6.tclass == 0x2e")?, 1);
    Ok(())
}

/// The kernel leaves the splitting to its interface: with offloads, we get one long frame.
fn merged(wire: &Wire) -> Outcome {
    const SIZE: usize = 1000;
    let end = End::start(wire)?;
    for (ours, theirs) in ENDS {
        let kernel = kernel_socket(wire, theirs)?;
        let socket = acquainted(&end, ours, &kernel)?;
        let local = end.call(move |shard| shard.udp_socket(socket).map(|socket| socket.local()))?;
        kernel.connect(local.ok_or("it is closed")?)?;
        setsockopt(&kernel, sockopt::UdpGsoSegment, &(SIZE as i32))?;
        let bytes = noise(9, 30 * SIZE + 7);
        kernel.send(&bytes)?;
        for piece in bytes.chunks(SIZE) {
            let (_, came) = end.recv(socket)?;
            assert!(came == piece, "{ours}: {} bytes", came.len());
        }
    }
    let record = end.finish()?;
    let has_offloads = wire.peer().offloads()?.has(Offload::Tso);
    assert_eq!(record.finished.nic.rx_super_frames >= 2, has_offloads, "{:?}", record.finished.nic);
    assert_eq!(record.finished.counters.udp_received, if has_offloads { 4 } else { 2 + 2 * 31 });
    Ok(())
}

fn several_in_one(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for (ours, theirs) in ENDS {
        let kernel = kernel_socket(wire, theirs)?;
        let socket = acquainted(&end, ours, &kernel)?;
        let to = Some(kernel.local_addr()?);
        for (size, count) in [(1200, 40), (1, 3), (1452, 44), (512, 64)] {
            note(format!("{ours}: {count} of {size} bytes"));
            let bytes = noise(size as u64, size * count - size / 2);
            let sent = bytes.clone();
            let options =
                SendOptions { to, segment_bytes: NonZeroU16::new(size as u16), ..SendOptions::default() };
            end.call(move |shard| {
                shard.udp_send_with(socket, &options, sent.len(), |room| room.copy_from_slice(&sent))
            })??;
            for piece in bytes.chunks(size) {
                let mut room = [0; 2000];
                let len = kernel.recv(&mut room)?;
                assert!(room[..len] == *piece, "{len} bytes");
            }
        }
        // What is too long for the path cannot be split by the device.
        let options = SendOptions { to, segment_bytes: NonZeroU16::new(1473), ..SendOptions::default() };
        let error =
            end.call(move |shard| shard.udp_send_with(socket, &options, 9000, |room| room.fill(0)))?;
        assert!(matches!(error, Err(SendError::TooLong { .. })), "{error:?}");
    }
    let record = end.finish()?;
    assert!(record.finished.nic.tx_super_frames > 0, "{:?}", record.finished.nic);
    Ok(())
}

/// The kernel's socket takes them as they come (UDP_GRO of udp(7)).
fn received_merged(wire: &Wire) -> Outcome {
    const SIZE: usize = 1200;
    let end = End::start(wire)?;
    for (ours, theirs) in ENDS {
        let kernel = kernel_socket(wire, theirs)?;
        setsockopt(&kernel, sockopt::UdpGroSegment, &true)?;
        let socket = acquainted(&end, ours, &kernel)?;
        let options = SendOptions {
            to: Some(kernel.local_addr()?),
            segment_bytes: NonZeroU16::new(SIZE as u16),
            ..SendOptions::default()
        };
        let bytes = noise(5, 30 * SIZE);
        let sent = bytes.clone();
        end.call(move |shard| {
            shard.udp_send_with(socket, &options, sent.len(), |room| room.copy_from_slice(&sent))
        })??;
        let (mut came, mut longest, mut room) = (Vec::new(), 0, vec![0; 65_536]);
        while came.len() < bytes.len() {
            let len = kernel.recv(&mut room)?;
            came.extend_from_slice(&room[..len]);
            longest = longest.max(len);
        }
        assert!(came == bytes, "{ours}: other bytes came");
        let has_offloads = wire.ours().offloads()?.has(Offload::Tso);
        assert!(longest > SIZE || !has_offloads, "{ours}: nothing was merged");
    }
    end.finish()?;
    Ok(())
}

fn broadcast(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let socket = end.bind(UdpBind::new(any(5000)))?;
    let kernel = kernel_socket(wire, Ipv4Addr::UNSPECIFIED.into())?;
    kernel.set_broadcast(true)?;
    setsockopt(&kernel, sockopt::BindToDevice, &wire.peer().name().into())?;
    let port = kernel.local_addr()?.port();
    for to in ["10.77.0.255", "255.255.255.255"] {
        let to: IpAddr = to.parse()?;
        kernel.send_to(b"to all", (to, 5000))?;
        let (src, dst) =
            end.until("it comes", move |shard| shard.udp_recv_with(socket, |meta, _| (meta.src, meta.dst)))?;
        assert_eq!((src, dst), (SocketAddr::new(PEER_IPV4.into(), port), SocketAddr::new(to, 5000)));
        let target = SocketAddr::new(to, port);
        let refused = end.call(move |shard| shard.udp_send_to(socket, b"hello", target))?;
        assert_eq!(refused, Err(SendError::BroadcastNotAllowed));
    }
    let mut bind = UdpBind::new(any(5001));
    bind.options.broadcast = true;
    let sender = end.bind(bind)?;
    for to in ["10.77.0.255", "255.255.255.255"] {
        let target = SocketAddr::new(to.parse()?, port);
        end.call(move |shard| shard.udp_send_to(sender, b"to all", target))??;
        let (len, from) = kernel.recv_from(&mut [0; 100])?;
        assert_eq!((len, from), (6, SocketAddr::new(OURS_IPV4.into(), 5001)));
    }
    // To a port that nobody has: no answer, since it was for all.
    let before = end.drops(DropReason::UdpNoSocket)?;
    kernel.send_to(b"to all", ("10.77.0.255", 5999))?;
    end.until("it came", move |shard| (shard.drops().get(DropReason::UdpNoSocket) > before).then_some(()))?;
    let record = end.finish()?;
    assert_eq!(record.sent("icmp")?, 0);
    assert_eq!(record.sent("udp.dstport == 5999 || (udp && eth.dst == ff:ff:ff:ff:ff:ff)")?, 2);
    Ok(())
}

/// A datagram of the kernel's raw socket, with this checksum.
fn raw_datagram(wire: &Wire, checksum: u16, payload: &[u8]) -> Outcome {
    let udp = NonZeroU32::new(17).map(Protocol::from_raw);
    let raw = wire.at_peer(|| socket(AddressFamily::INET, SocketType::RAW, udp))?;
    let len = 8 + payload.len() as u16;
    let header = [9999_u16, 5000, len, checksum].map(u16::to_be_bytes).concat();
    let bytes = [&header[..], payload].concat();
    sendto(&raw, &bytes, SendFlags::empty(), &SocketAddr::new(OURS_IPV4.into(), 0))?;
    Ok(())
}

fn checksums(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    let socket = end.bind(UdpBind::new(SocketAddr::new(OURS_IPV4.into(), 5000)))?;
    raw_datagram(wire, 0, b"unsummed")?;
    let (from, came) = end.recv(socket)?;
    assert_eq!((from, &came[..]), (SocketAddr::new(PEER_IPV4.into(), 9999), &b"unsummed"[..]));
    raw_datagram(wire, 0xbad1, b"wrong")?;
    raw_datagram(wire, 0, b"the next")?;
    assert_eq!(end.recv(socket)?.1, b"the next", "the wrong one is not delivered");
    // Whose payload makes the sum zero: it is sent as all ones (RFC 768).
    let kernel = kernel_socket(wire, PEER_IPV4.into())?;
    let to = kernel.local_addr()?;
    for word in 0..=u16::MAX {
        if word % 257 != 0 {
            continue;
        }
        end.call(move |shard| shard.udp_send_to(socket, &word.to_be_bytes(), to))??;
        let mut room = [0; 8];
        assert_eq!((kernel.recv(&mut room)?, &room[..2]), (2, &word.to_be_bytes()[..]));
    }
    let drops = end.drops(DropReason::UdpChecksum)?;
    let record = end.finish()?;
    assert_eq!(drops + record.finished.nic.rx_bad_checksum, 1);
    assert_eq!(record.sent("udp.checksum == 0")?, 0);
    Ok(())
}

fn many_sockets(wire: &Wire) -> Outcome {
    const COUNT: u16 = 1000;
    // Where tshark expects no protocol.
    const FIRST_PORT: u16 = 52_000;
    let end = End::start(wire)?;
    end.call(|shard| {
        for port in 0..COUNT {
            shard.udp_bind(UdpBind::new(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                FIRST_PORT + port,
            )))?;
        }
        Ok::<_, wirestack::udp::BindError>(())
    })??;
    end.always(|shard| {
        while let Some(event) = shard.next_event() {
            while let Some((from, dst)) = shard.udp_recv_with(event.socket, |meta, _| (meta.src, meta.dst)) {
                let _ = shard.udp_send_to(event.socket, &dst.port().to_be_bytes(), from);
            }
        }
    });
    for (ours, theirs) in ENDS {
        let kernel = kernel_socket(wire, theirs)?;
        for port in FIRST_PORT..FIRST_PORT + COUNT {
            kernel.send_to(b"which?", (ours, port))?;
            let mut room = [0; 8];
            let (len, from) = kernel.recv_from(&mut room)?;
            assert_eq!((&room[..len], from), (&port.to_be_bytes()[..], SocketAddr::new(ours, port)));
        }
    }
    let record = end.finish()?;
    assert_eq!(record.finished.counters.udp_received, 2 * u64::from(COUNT));
    Ok(())
}

/// Nobody reads: what finds no room is counted, and nothing else suffers.
fn full_queue(wire: &Wire) -> Outcome {
    stay_on_one_core();
    let end = End::start(wire)?;
    end.echo(7)?;
    let mut bind = UdpBind::new(SocketAddr::new(OURS_IPV4.into(), 5000));
    bind.options.recv_datagrams_max = 100;
    let socket = end.bind(bind)?;
    let kernel = kernel_socket(wire, PEER_IPV4.into())?;
    for number in 0..300_u16 {
        kernel.send_to(&number.to_be_bytes(), (OURS_IPV4, 5000))?;
    }
    end.until("all came", |shard| (shard.drops().get(DropReason::UdpQueueFull) == 200).then_some(()))?;
    for number in 0..100_u16 {
        assert_eq!(end.recv(socket)?.1, number.to_be_bytes());
    }
    assert_eq!(
        end.call(move |shard| shard.udp_socket(socket).map(|socket| socket.dropped_datagrams()))?,
        Some(200)
    );
    for address in ADDRESSES {
        let back =
            crate::talk::echo_udp(wire.peer().namespace(), SocketAddr::new(address, 7), b"still there?")?;
        assert_eq!(back, b"still there?");
    }
    end.finish()?;
    Ok(())
}
