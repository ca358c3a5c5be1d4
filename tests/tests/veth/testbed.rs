//! The testbed itself: two kernels, a wire between them, and nothing left afterwards.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use smoltcp::wire::EthernetAddress;
use wirestack_apps::testbed::{
    IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, NAME_PREFIX, Namespace, OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6,
    PeerKernel, TestbedError, VethOptions, VethPair, Wire, WireOptions,
};
use wirestack_nic::ethtool::{self, Offload, OffloadGuard};
use wirestack_tests::programs::{self, Child, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, test, veth_test};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("testbed::tcp_flows_both_ways", tcp_flows_both_ways),
        veth_test("testbed::frames_cross_the_wire_in_one_piece_or_many", frames_are_as_long_as_offloads_say),
        require_program("ping", veth_test("testbed::programs_start_where_they_are_told", ping)),
        test("testbed::our_end_is_silent", our_end_is_silent),
        test("testbed::namespaces_start_the_same_everywhere", namespaces_start_the_same_everywhere),
        test("testbed::offloads_obey", offloads_obey),
        test("testbed::a_guard_puts_offloads_back", a_guard_puts_offloads_back),
        test("testbed::nothing_is_left_after_drop", nothing_is_left_after_drop),
        test("testbed::ends_can_be_changed", ends_can_be_changed),
        test("testbed::options_are_taken", options_are_taken),
        test("testbed::the_peer_can_be_the_kernel_that_we_are_in", the_peer_can_be_current),
        test("testbed::errors_name_the_interface", errors_name_the_interface),
        test("testbed::the_program_under_test_is_this_binary", the_program_under_test_is_this_binary),
    ]
}

const LEN: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(20);

/// Gives the kernel at our end the addresses that tests usually leave to the user stack.
pub(crate) fn address_ours(wire: &Wire) -> Result<(), TestbedError> {
    let namespace = wire.ours().namespace();
    for setting in ["all", wire.ours().name()] {
        let path = format!("/proc/sys/net/ipv6/conf/{setting}/disable_ipv6");
        namespace.run(|| fs::write(&path, "0")).expect("IPv6 can be enabled");
    }
    wire.ours().add_address(OURS_IPV4.into(), IPV4_PREFIX_LEN)?;
    wire.ours().add_address(OURS_IPV6.into(), IPV6_PREFIX_LEN)
}

/// Sends a megabyte to `to`, which listens in the other namespace, and reads another one back.
fn exchange(from: &Namespace, to: &Namespace, address: IpAddr) -> io::Result<()> {
    let listener = to.run(|| TcpListener::bind((address, 0)))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> io::Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LONG))?;
        let mut received = vec![0; LEN];
        stream.read_exact(&mut received)?;
        stream.write_all(&received)?;
        Ok(received)
    });
    let sent: Vec<u8> = (0..LEN).map(|at| (at * 7 % 251) as u8).collect();
    let mut stream = from.run(|| TcpStream::connect_timeout(&address, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(&sent)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    let received = server.join().expect("the server does not panic")?;
    assert!(received == sent, "what arrived is not what was sent");
    assert!(back == sent, "what came back is not what was sent");
    Ok(())
}

fn tcp_flows_both_ways(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let (peer, ours) = (wire.peer().namespace(), wire.ours().namespace());
    exchange(ours, peer, PEER_IPV4.into())?;
    exchange(peer, ours, OURS_IPV4.into())?;
    exchange(ours, peer, PEER_IPV6.into())?;
    exchange(peer, ours, OURS_IPV6.into())?;
    Ok(())
}

/// Packets that an interface has sent: a frame of 64 KB counts once.
fn sent_packets(wire: &Wire) -> io::Result<(u64, u64)> {
    let table = wire.at_ours(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(wire.ours().name()));
    let fields: Vec<u64> = line
        .ok_or_else(|| io::Error::other(format!("no interface in {table}")))?
        .split([':', ' '])
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok((fields[8], fields[9]))
}

fn frames_are_as_long_as_offloads_say(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let on = wire.ours().offloads()?.has(Offload::Tso);
    let (bytes_before, packets_before) = sent_packets(wire)?;
    exchange(wire.ours().namespace(), wire.peer().namespace(), PEER_IPV4.into())?;
    let (bytes, packets) = sent_packets(wire)?;
    let mean = (bytes - bytes_before) / (packets - packets_before);
    // Acknowledgments pull the mean down, so it says nothing about the longest frame when offloads are
    // on, except that there were some longer than the wire allows.
    let smallest_count = LEN as u64 / 1460;
    if on {
        assert!(packets - packets_before < smallest_count, "all frames are short: {mean} bytes on average");
    } else {
        assert!(packets - packets_before >= smallest_count, "long frames: {mean} bytes on average");
    }
    Ok(())
}

fn ping(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    for address in [PEER_IPV4.to_string(), PEER_IPV6.to_string()] {
        let mut command = Command::new("ping");
        command.args(["-c", "1", "-W", "5", &address]);
        wire.at_ours(|| programs::output(&mut command, LONG))?;
    }
    // The peer's address is nowhere else, so this shows that the program was at our end.
    let mut command = Command::new("ping");
    command.args(["-c", "1", "-W", "1", "10.77.0.77"]);
    assert!(wire.at_ours(|| programs::output(&mut command, LONG)).is_err());
    Ok(())
}

/// Nobody answers for the address of the user stack while there is none.
fn our_end_is_silent() -> Outcome {
    let wire = Wire::new()?;
    let received = |wire: &Wire| sent_packets(wire).map(|(_, packets)| packets);
    wire.at_peer(|| -> io::Result<()> {
        for address in [SocketAddr::from((OURS_IPV4, 9)), SocketAddr::from((OURS_IPV6, 9))] {
            let socket = UdpSocket::bind(match address {
                SocketAddr::V4(_) => "0.0.0.0:0",
                SocketAddr::V6(_) => "[::]:0",
            })?;
            socket.send_to(b"anybody?", address)?;
            // Sent to a broadcast address, so that it needs no neighbour, and reaches the kernel.
            if address.is_ipv4() {
                socket.set_broadcast(true)?;
                socket.send_to(b"anybody?", "10.77.0.255:9")?;
            }
        }
        let error = TcpStream::connect_timeout(&(OURS_IPV4, 80).into(), Duration::from_millis(200));
        assert!(error.is_err(), "somebody accepts");
        Ok(())
    })?;
    assert_eq!(received(&wire)?, 0, "the kernel at our end has sent frames");
    Ok(())
}

fn namespaces_start_the_same_everywhere() -> Outcome {
    let namespace = Namespace::new()?;
    let read = |path: &str| namespace.run(|| fs::read_to_string(path)).map(|text| text.trim().to_owned());
    assert_eq!(read("/proc/sys/net/ipv4/ip_forward")?, "0");
    assert_eq!(read("/proc/sys/net/ipv4/conf/default/forwarding")?, "0");
    assert_eq!(read("/proc/sys/net/ipv6/conf/all/forwarding")?, "0");
    // Loopback is up.
    exchange(&namespace, &namespace, "127.0.0.1".parse()?)?;
    exchange(&namespace, &namespace, "::1".parse()?)?;
    // The calling thread stays where it was, and a thread that was asked to move has moved.
    let here = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let there = namespace.run(|| fs::metadata("/proc/thread-self/ns/net"))?.ino();
    let spawned = namespace.spawn(|| fs::metadata("/proc/thread-self/ns/net")).join();
    assert_eq!(spawned.expect("no panic")?.ino(), there);
    assert_ne!(here, there);
    // A child belongs to the namespace of the thread that started it.
    let mut command = Command::new("readlink");
    let ended = namespace.run(|| programs::output(command.arg("/proc/self/ns/net"), LONG))?;
    assert_eq!(ended.stdout.trim(), format!("net:[{there}]"));
    Ok(())
}

fn offloads_obey() -> Outcome {
    let wire = Wire::new()?;
    for end in [wire.peer(), wire.ours()] {
        for on in [true, false, true] {
            end.set_offloads(on)?;
            let offloads = end.offloads()?;
            assert_eq!((offloads.is_all(), offloads.is_empty()), (on, !on), "{offloads}");
        }
    }
    // The ends are switched one by one.
    wire.peer().set_offloads(false)?;
    assert!(wire.ours().offloads()?.is_all());
    Ok(())
}

fn a_guard_puts_offloads_back() -> Outcome {
    let wire = Wire::new()?;
    wire.pair().set_offloads(true)?;
    let end = wire.ours();
    end.namespace().run(|| ethtool::set(end.name(), Offload::Gro, false))?;
    let before = end.offloads()?;
    let guard = end.namespace().run(|| -> io::Result<OffloadGuard> {
        let mut guard = OffloadGuard::new(end.name())?;
        for offload in Offload::ALL {
            guard.set(offload, false)?;
        }
        Ok(guard)
    })?;
    assert!(end.offloads()?.is_empty());
    // Dropped by a thread in another namespace, in which there is no such interface.
    drop(guard);
    assert_eq!(end.offloads()?, before);
    // An interface that goes away first is no trouble.
    let mut guard = end.namespace().run(|| OffloadGuard::new(end.name()))?;
    guard.set(Offload::Tso, false)?;
    drop(wire);
    drop(guard);
    Ok(())
}

fn nothing_is_left_after_drop() -> Outcome {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    // The file of an interface that is there, and of one that is not.
    let interfaces = |namespace: &Namespace| {
        namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev")).expect("/proc is mounted")
    };
    let pair = VethPair::between(&a, &b, &VethOptions::default())?;
    assert!(pair.a().exists()? && pair.b().exists()?);
    assert!(interfaces(&a).contains(NAME_PREFIX) && interfaces(&b).contains(NAME_PREFIX));
    drop(pair);
    assert!(!interfaces(&a).contains(NAME_PREFIX), "{}", interfaces(&a));
    assert!(!interfaces(&b).contains(NAME_PREFIX), "{}", interfaces(&b));
    // One that the test has removed itself.
    let pair = VethPair::between(&a, &b, &VethOptions::default())?;
    pair.b().delete()?;
    assert!(!pair.a().exists()?);
    drop(pair);
    // While it lives its number is nobody else's: one descriptor is open, and no thread is inside.
    let inode = a.run(|| fs::metadata("/proc/thread-self/ns/net"))?.ino();
    let deadline = Instant::now() + LONG;
    // A thread leaves its namespace some time after it could be joined.
    while users(inode)? != (1, 0) {
        assert!(Instant::now() < deadline, "descriptors and threads that are left: {:?}", users(inode)?);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How many descriptors and threads of this process hold a network namespace.
fn users(inode: u64) -> io::Result<(usize, usize)> {
    let name = PathBuf::from(format!("net:[{inode}]"));
    // Descriptors and threads of other tests may go away between the list and the look.
    let descriptors = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| *target == name);
    let threads = fs::read_dir("/proc/self/task")?
        .filter_map(|entry| fs::read_link(entry.ok()?.path().join("ns/net")).ok())
        .filter(|target| *target == name);
    Ok((descriptors.count(), threads.count()))
}

fn ends_can_be_changed() -> Outcome {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    let options = VethOptions { link_local: true, ..VethOptions::default() };
    let mut pair = VethPair::between(&a, &b, &options)?;
    pair.up()?;
    let show = |namespace: &Namespace| {
        let mut command = Command::new("cat");
        namespace.run(|| programs::output(command.arg("/proc/thread-self/net/if_inet6"), LONG))
    };
    assert!(show(&a)?.stdout.contains("fe80"), "no link-local address was made");
    // Down at one end takes the carrier from the other.
    pair.b().set_down()?;
    let error = pair.a().wait_until_up(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, TestbedError::NoCarrier { .. }), "{error}");
    pair.b().set_up()?;
    pair.a().wait_until_up(LONG)?;
    pair.a().set_mtu(9000)?;
    assert!(pair.a().set_mtu(1).is_err());
    pair.a().add_address(PEER_IPV4.into(), IPV4_PREFIX_LEN)?;
    assert!(pair.a().add_address(PEER_IPV4.into(), IPV4_PREFIX_LEN).is_err());
    pair.a().remove_address(PEER_IPV4.into(), IPV4_PREFIX_LEN)?;
    pair.a().add_address(PEER_IPV4.into(), IPV4_PREFIX_LEN)?;
    assert_eq!((pair.a().mtu()?, pair.b().mtu()?), (9000, 1500));
    let mac = EthernetAddress([2, 0, 0, 0, 0, 7]);
    pair.a_mut().set_mac(mac)?;
    assert_eq!(pair.a().mac(), mac);
    let group = EthernetAddress([1, 0, 0, 0, 0, 7]);
    assert!(pair.a_mut().set_mac(group).is_err());
    Ok(())
}

fn options_are_taken() -> Outcome {
    let mut options = WireOptions::with_mtu(576);
    options.veth.queues = 3;
    options.veth.names = Some(["left".to_owned(), "right".to_owned()]);
    let macs = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].map(EthernetAddress);
    options.veth.macs = Some(macs);
    let wire = Wire::with(&options)?;
    assert_eq!((wire.peer().name(), wire.ours().name()), ("left", "right"));
    assert_eq!([wire.peer().mac(), wire.ours().mac()], macs);
    assert_eq!((wire.peer().mtu()?, wire.ours().mtu()?), (576, 576));
    Ok(())
}

/// As `demo --host` has it, with a namespace that is ours to play the host.
fn the_peer_can_be_current() -> Outcome {
    let host = Namespace::new()?;
    let wire = host.run(|| {
        let options = WireOptions { peer: PeerKernel::Current, ..WireOptions::default() };
        Wire::with(&options)
    })?;
    address_ours(&wire)?;
    exchange(&host, wire.ours().namespace(), OURS_IPV4.into())?;
    exchange(&host, wire.ours().namespace(), OURS_IPV6.into())?;
    drop(wire);
    let left = host.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    assert!(!left.contains(NAME_PREFIX), "{left}");
    Ok(())
}

fn errors_name_the_interface() -> Outcome {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    let options =
        VethOptions { names: Some(["same".to_owned(), "same".to_owned()]), ..VethOptions::default() };
    let _pair = VethPair::between(&a, &b, &options)?;
    let error = VethPair::between(&a, &b, &options).unwrap_err();
    assert_eq!(error.to_string(), "cannot make the pair with interface \"same\": File exists (os error 17)");
    Ok(())
}

fn the_program_under_test_is_this_binary() -> Outcome {
    let wire = Wire::new()?;
    let ended = wire.at_ours(|| Child::start(&mut wirestack(["no-such-program"])))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("no-such-program"), "{ended}");
    Ok(())
}
