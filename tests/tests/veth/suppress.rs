//! The kernel at our end kept silent, seen from the peer: no reset and no ICMP error leaves our end
//! while the user stack serves an address that the kernel has too, or that the kernel would forward.
//!
//! Each claim is tested against its opposite: without rules the same traffic fails, and is seen to.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::ops::RangeInclusive;
use std::process::Command;
use std::thread::{self, JoinHandle};

use wirestack::backend::smoltcp::{Conn, Host};
use wirestack::config::HostConfig;
use wirestack_apps::testbed::{
    IPV4_PREFIX_LEN, Namespace, OURS_IPV4, PEER_IPV4, PEER_IPV6, VethOptions, Wire, WireOptions,
};
use wirestack_nic::claim::{Claim, ClaimSet, Claimed, Protocol};
use wirestack_nic::suppress::{self, Method};
use wirestack_nic::{AfPacket, AfPacketConfig, Nic, wait};
use wirestack_tests::programs::{self, Child, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, root_test, veth_test, veth_test_with};

use crate::support::{ADDRESSES, LONG, counter, end, serve};
use crate::talk::{connect_error, echo_tcp, echo_udp, fetch, fetch_all, host_args, rules, shell};
use crate::testbed::address_ours;
use crate::watch::Watch;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let nft = |cases| require_program("nft", cases);
    let iptables = |cases| require_program("iptables", require_program("ip6tables", cases));
    vec![
        veth_test("suppress::nft_keeps_the_kernel_silent", |wire| keeps_silent(wire, "nft")),
        iptables(veth_test("suppress::iptables_keeps_the_kernel_silent", |wire| {
            keeps_silent(wire, "iptables")
        })),
        veth_test("suppress::without_rules_the_kernel_resets", without_rules_the_kernel_resets),
        veth_test("suppress::services_of_the_kernel_go_on", services_of_the_kernel_go_on),
        veth_test_with(
            "suppress::the_kernels_link_local_address_goes_on",
            with_link_local,
            link_local_goes_on,
        ),
        require_program(
            "iperf3",
            veth_test("suppress::bulk_of_the_kernel_goes_on", bulk_of_the_kernel_goes_on),
        ),
        require_program("ping", veth_test("suppress::a_ping_is_answered_once", a_ping_is_answered_once)),
        veth_test("suppress::nothing_is_forwarded", nothing_is_forwarded),
        veth_test("suppress::without_rules_the_kernel_forwards", without_rules_the_kernel_forwards),
        nft(iptables(veth_test("suppress::nft_leaves_nothing_after_sigkill", nft_leaves_nothing))),
        nft(iptables(veth_test("suppress::iptables_are_swept_after_sigkill", iptables_are_swept))),
        ["iptables-legacy", "ip6tables-legacy"]
            .into_iter()
            .fold(root_test("suppress::older_iptables_are_as_good", older_iptables), |cases, program| {
                require_program(program, cases)
            }),
        nft(iptables(veth_test("suppress::nothing_is_left_after_sigterm", nothing_is_left))),
        veth_test("suppress::connections_can_be_opened", |wire| connects(wire, Method::Nft)),
        iptables(veth_test("suppress::connections_can_be_opened_behind_iptables", |wire| {
            connects(wire, Method::Iptables)
        })),
        veth_test("suppress::without_rules_connections_are_reset", without_rules_connections_are_reset),
        nft(iptables(veth_test("suppress::source_ports_of_the_kernel_are_refused", refuses_source_ports))),
        nft(iptables(veth_test("suppress::the_recipe_works_as_printed", the_recipe_works))),
    ]
}

fn keeps_silent(wire: &Wire, method: &str) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let child = serve(wire, &["http", "--suppress", method])?;
    fetch_all(wire, 80)?;
    watch.take(wire)?.assert_silent();
    // All connections are closed on both sides, so the end of the program is nothing to them.
    end(child)?;
    assert_eq!(watch.take(wire)?.resets, 0);
    // The kernel is itself again.
    assert_refused(wire, 80);
    assert!(watch.take(wire)?.resets >= ADDRESSES.len());
    Ok(())
}

fn without_rules_the_kernel_resets(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let mut child = serve(wire, &["http", "--suppress", "none"])?;
    // The ready line came on another pipe, and may have been read first.
    child.wait_for_line("  iptables -w 5 -t raw -I PREROUTING", LONG)?;
    for address in ADDRESSES {
        // The answers of kernel and stack race; whichever is first decides how the attempt fails, and
        // when.
        let _ = connect_error(wire.peer().namespace(), SocketAddr::new(address, 80));
    }
    assert!(watch.take(wire)?.resets >= ADDRESSES.len());
    Ok(())
}

/// The kernel at our end answers for this port: with a reset.
fn assert_refused(wire: &Wire, port: u16) {
    for address in ADDRESSES {
        let refused = connect_error(wire.peer().namespace(), SocketAddr::new(address, port));
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{address}");
    }
}

/// A service of the kernel's TCP that says `greeting`, to `count` connections.
fn greet(
    namespace: &Namespace,
    address: SocketAddr,
    count: usize,
) -> io::Result<(SocketAddr, JoinHandle<io::Result<()>>)> {
    let listener = namespace.run(|| TcpListener::bind(address))?;
    let address = listener.local_addr()?;
    let thread = thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(LONG))?;
            stream.write_all(b"greeting")?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest)?;
        }
        Ok(())
    });
    Ok((address, thread))
}

fn services_of_the_kernel_go_on(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let _child = serve(wire, &["echo", "--port", "700"])?;
    let peer = wire.peer().namespace();
    for address in ADDRESSES {
        let (kernel, thread) = greet(wire.ours().namespace(), SocketAddr::new(address, 0), 2)?;
        for _ in 0..2 {
            assert_eq!(echo_tcp(peer, kernel, b"x")?, b"greeting");
            let stack = SocketAddr::new(address, 700);
            assert_eq!(echo_tcp(peer, stack, b"of the stack")?, b"of the stack");
            assert_eq!(echo_udp(peer, stack, b"datagram")?, b"datagram");
        }
        thread.join().expect("no panic")?;
    }
    watch.take(wire)?.assert_silent();
    // A port that nobody serves is the kernel's to refuse, and nobody else does it a second time.
    assert_refused(wire, 9);
    assert_eq!(watch.take(wire)?.resets, ADDRESSES.len());
    Ok(())
}

fn with_link_local() -> WireOptions {
    WireOptions { veth: VethOptions { link_local: true, ..VethOptions::default() }, ..WireOptions::default() }
}

/// The stack's own link-local address is made from the same hardware address as the kernel's.
fn link_local_goes_on(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let _child = serve(wire, &["http"])?;
    let mut octets = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).octets();
    octets[8..].copy_from_slice(&wire.ours().mac().as_eui_64().expect("an Ethernet address"));
    let at = |index, port| SocketAddr::from(SocketAddrV6::new(octets.into(), port, 0, index));
    let (bound, thread) = greet(wire.ours().namespace(), at(wire.ours().index(), 0), 1)?;
    let kernel = at(wire.peer().index(), bound.port());
    assert_eq!(echo_tcp(wire.peer().namespace(), kernel, b"x")?, b"greeting");
    thread.join().expect("no panic")?;
    fetch_all(wire, 80)?;
    watch.take(wire)?.assert_silent();
    Ok(())
}

/// The kernel moves bytes as fast as it can, on the address on which the stack serves a page. A reset by
/// either of them would end it.
fn bulk_of_the_kernel_goes_on(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let stack = serve(wire, &["http", "--json"])?;
    let address = ADDRESSES[0].to_string();
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--forceflush", "--bind", &address]);
    let mut server = wire.at_ours(|| Child::start(&mut server))?;
    server.wait_for_line("Server listening", LONG)?;
    let mut client = Command::new("iperf3");
    client.args(["--client", &address, "--bytes", "50M", "--json"]);
    let client = wire.at_peer(|| Child::start(&mut client))?;
    for _ in 0..10 {
        fetch(wire.peer().namespace(), SocketAddr::new(ADDRESSES[0], 80), "/bytes/100000")?;
    }
    let ended = client.wait(LONG)?;
    assert!(ended.status.success() && !ended.stdout.contains("\"error\""), "{ended}");
    server.wait(LONG)?;
    let ended = end(stack)?;
    // The socket's filter keeps tens of thousands of foreign segments away; what is let through to be
    // judged here is a few neighbours and errors.
    assert!(counter(&ended, "rx_not_ours") < 100, "{}", ended.stdout);
    assert_eq!(counter(&ended, "accepted"), 10);
    Ok(())
}

fn a_ping_is_answered_once(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let _child = serve(wire, &["http"])?;
    for address in ADDRESSES {
        // One at a time: of several, it sends another when an answer is late.
        for _ in 0..5 {
            let mut ping = Command::new("ping");
            ping.args(["-c", "1", "-W", "20", &address.to_string()]);
            let ended = wire.at_peer(|| programs::output(&mut ping, LONG))?;
            assert!(ended.stdout.contains("1 packets transmitted, 1 received, 0% packet loss"), "{ended}");
            assert!(!ended.stdout.contains("DUP!"), "{ended}");
        }
    }
    assert_eq!(watch.take(wire)?.echo_replies, 5 * ADDRESSES.len());
    Ok(())
}

/// A kernel at our end that routes, with another address in the same networks.
fn forward(wire: &Wire) -> Outcome {
    for (setting, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        (&format!("ipv6/conf/{}/disable_ipv6", wire.ours().name()), "0"),
        ("ipv6/conf/all/forwarding", "1"),
    ] {
        wire.at_ours(|| fs::write(format!("/proc/sys/net/{setting}"), value))?;
    }
    wire.ours().add_address("10.77.0.3".parse()?, IPV4_PREFIX_LEN)?;
    wire.ours().add_address("fd77::3".parse()?, 64)?;
    Ok(())
}

fn nothing_is_forwarded(wire: &Wire) -> Outcome {
    forward(wire)?;
    let watch = Watch::begin(wire)?;
    let child = serve(wire, &["http"])?;
    fetch_all(wire, 80)?;
    let tally = watch.take(wire)?;
    tally.assert_silent();
    assert_eq!(tally.forwarded, 0);
    end(child)?;
    Ok(())
}

fn without_rules_the_kernel_forwards(wire: &Wire) -> Outcome {
    forward(wire)?;
    let watch = Watch::begin(wire)?;
    let _child = serve(wire, &["http", "--suppress", "none"])?;
    // The stack answers nevertheless; what the kernel adds is noise, and costs.
    fetch(wire.peer().namespace(), (OURS_IPV4, 80).into(), "/")?;
    let tally = watch.take(wire)?;
    assert!(tally.icmp_errors + tally.forwarded > 0, "{tally:?}");
    Ok(())
}

fn nft_leaves_nothing(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let before = rules(wire)?;
    let child = serve(wire, &["http", "--suppress", "nft"])?;
    let during = rules(wire)?;
    assert!(during.contains("table netdev wirestack_") && during.contains("flags owner"), "{during}");
    fetch_all(wire, 80)?;
    child.kill_hard()?;
    assert_eq!(rules(wire)?, before);
    assert_refused(wire, 80);
    Ok(())
}

fn iptables_are_swept(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let count = |text: &str| text.matches("--comment \"wirestack:").count();
    let child = serve(wire, &["http", "--suppress", "iptables"])?;
    let wanted = count(&rules(wire)?);
    assert!(wanted > 0, "{}", rules(wire)?);
    child.kill_hard()?;
    assert_eq!(count(&rules(wire)?), wanted, "iptables does not know that the process is dead");
    let watch = Watch::begin(wire)?;
    let child = serve(wire, &["http", "--suppress", "iptables"])?;
    assert_eq!(count(&rules(wire)?), wanted, "{}", rules(wire)?);
    fetch_all(wire, 80)?;
    watch.take(wire)?.assert_silent();
    // A second guard beside a living one: both are needed, and neither sweeps the other.
    let second = serve(wire, &["http", "--suppress", "iptables", "--port", "81"])?;
    assert_eq!(count(&rules(wire)?), 2 * wanted, "{}", rules(wire)?);
    end(second)?;
    assert_eq!(count(&rules(wire)?), wanted, "{}", rules(wire)?);
    fetch_all(wire, 80)?;
    end(child)?;
    assert_eq!(count(&rules(wire)?), 0, "{}", rules(wire)?);
    Ok(())
}

/// The iptables of kernels without nftables, under the name that is looked for.
fn older_iptables() -> Outcome {
    let wire = Wire::new()?;
    address_ours(&wire)?;
    let folder = tempfile::tempdir()?;
    for name in ["iptables", "ip6tables"] {
        let older = programs::find_program(&format!("{name}-legacy")).expect("it was required");
        std::os::unix::fs::symlink(older, folder.path().join(name))?;
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let start = || -> io::Result<Child> {
        let mut command = wirestack(host_args(&wire, "http", &["--suppress", "iptables"]));
        let mut child = wire.at_ours(|| Child::start(command.env("PATH", &path)))?;
        child.wait_ready(LONG)?;
        Ok(child)
    };
    let count = || -> io::Result<usize> {
        let listing = shell(&wire, "iptables-legacy -t raw -S; ip6tables-legacy -t raw -S")?;
        Ok(listing.matches("--comment \"wirestack:").count())
    };
    let watch = Watch::begin(&wire)?;
    let child = start()?;
    fetch_all(&wire, 80)?;
    let wanted = count()?;
    assert!(wanted > 0);
    child.kill_hard()?;
    assert_eq!(count()?, wanted);
    let child = start()?;
    fetch_all(&wire, 80)?;
    watch.take(&wire)?.assert_silent();
    assert_eq!(count()?, wanted);
    end(child)?;
    assert_eq!(count()?, 0);
    Ok(())
}

fn nothing_is_left(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    // iptables makes its tables when it is first used, and they stay: that is not a rule of ours.
    for program in ["iptables", "ip6tables"] {
        shell(
            wire,
            &format!("{program} -t raw -I PREROUTING -j DROP && {program} -t raw -D PREROUTING -j DROP"),
        )?;
    }
    let before = rules(wire)?;
    for method in ["nft", "iptables"] {
        let child = serve(wire, &["http", "--suppress", method])?;
        assert_ne!(rules(wire)?, before, "{method}");
        end(child)?;
        assert_eq!(rules(wire)?, before, "{method}");
    }
    Ok(())
}

/// Opens a connection from each of our addresses to a service of the peer's kernel. Gives what was
/// received, and from which ports.
fn greeted(wire: &Wire, method: Method) -> Result<Vec<(String, u16)>, libtest_mimic::Failed> {
    let peers =
        ADDRESSES.into_iter().map(|ours| if ours.is_ipv4() { PEER_IPV4.into() } else { PEER_IPV6.into() });
    let mut services = Vec::new();
    for peer in peers.collect::<Vec<IpAddr>>() {
        services.push(greet(wire.peer().namespace(), (peer, 0).into(), 1)?);
    }
    let remotes: Vec<_> = services.iter().map(|(address, _)| *address).collect();
    let greeted = wire.at_ours(|| connect_all(wire, &remotes, method))?;
    // Without rules, the service may wait for ever for those who did not reach it.
    if method != Method::None && greeted.iter().all(|(text, _)| text == "greeting") {
        for (_, thread) in services {
            thread.join().expect("no panic")?;
        }
    }
    Ok(greeted)
}

fn connect_all(wire: &Wire, remotes: &[SocketAddr], method: Method) -> Result<Vec<(String, u16)>, String> {
    let claims: Vec<_> =
        ADDRESSES.into_iter().map(|address| Claim::ports(address, Protocol::Tcp, SOURCE_PORTS)).collect();
    let guard = suppress::install(method, wire.ours().name(), &claims).map_err(|e| e.to_string())?;
    let nic = AfPacket::open(wire.ours().name(), AfPacketConfig::default()).map_err(|e| e.to_string())?;
    let mut config = HostConfig::new(wire.ours().mac());
    for address in ADDRESSES {
        config =
            config.address(wirestack::IpCidr::new(address.into(), if address.is_ipv4() { 24 } else { 64 }));
    }
    config.source_ports = SOURCE_PORTS;
    let (tell, told) = std::sync::mpsc::channel();
    let mut host = Host::new(Claimed::new(nic, ClaimSet::new(&claims)), config).map_err(|e| e.to_string())?;
    for &remote in remotes {
        let tell = tell.clone();
        let mut text = Vec::new();
        let mut port = 0;
        let handler = move |conn: &mut Conn<'_, '_>| {
            port = conn.local().map_or(port, |local| local.port());
            let mut buffer = [0; 64];
            let len = conn.recv(&mut buffer);
            text.extend_from_slice(&buffer[..len]);
            if text.ends_with(b"greeting") {
                conn.close();
            }
            if !conn.is_open() {
                let _ = tell.send((String::from_utf8_lossy(&text).into_owned(), port));
            }
        };
        host.connect(remote, wait::now(), handler).map_err(|e| e.to_string())?;
    }
    let give_up = wait::now() + smoltcp::time::Duration::from_secs(20);
    let mut greeted = Vec::new();
    while greeted.len() < remotes.len() && wait::now() < give_up {
        let deadline = host.turn(wait::now()).map_or(give_up, |deadline| deadline.min(give_up));
        greeted.extend(told.try_iter());
        if greeted.len() < remotes.len() {
            host.nic().wait(Some(deadline)).map_err(|e| e.to_string())?;
        }
    }
    drop(guard);
    Ok(greeted)
}

/// Above those of the kernel, and few, so that all of them are seen to be chosen from.
const SOURCE_PORTS: RangeInclusive<u16> = 61_200..=61_207;

fn connects(wire: &Wire, method: Method) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let greeted = greeted(wire, method)?;
    assert_eq!(greeted.len(), ADDRESSES.len());
    for (text, port) in greeted {
        assert_eq!(text, "greeting");
        assert!(SOURCE_PORTS.contains(&port), "{port}");
    }
    watch.take(wire)?.assert_silent();
    Ok(())
}

fn without_rules_connections_are_reset(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    // The reset may come late, when the kernel has to ask for the peer's hardware address first; so what
    // was said before it does not matter.
    greeted(wire, Method::None)?;
    assert!(watch.take(wire)?.resets >= ADDRESSES.len());
    Ok(())
}

fn refuses_source_ports(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    wire.at_ours(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 62000"))?;
    let before = rules(wire)?;
    for range in ["61000-65535", "39000-40000"] {
        let args = host_args(wire, "http", &["--source-ports", range]);
        let ended = wire.at_ours(|| Child::start(&mut wirestack(args)))?.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(2), "{ended}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
        for part in ["--source-ports", range, "40000-62000", "net.ipv4.ip_local_port_range", "62001-65535"] {
            assert!(ended.stderr.contains(part), "{part} is missing: {ended}");
        }
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(rules(wire)?, before);
    serve(wire, &["http", "--source-ports", "62001-65535"])?;
    Ok(())
}

fn the_recipe_works(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let before = rules(wire)?;
    let args = host_args(wire, "http", &["--show-recipe"]);
    let ended = wire.at_ours(|| programs::output(&mut wirestack(args), LONG))?;
    assert_eq!(rules(wire)?, before, "showing changes nothing");
    let is_removal = |line: &&str| line.starts_with('#');
    let made: Vec<_> = ended.stdout.lines().take_while(|line| !is_removal(line)).collect();
    let removed: Vec<_> = ended.stdout.lines().skip_while(|line| !is_removal(line)).collect();
    // One port and one range of source ports for each address, and a comment before the removals.
    assert_eq!((made.len(), removed.len()), (2 * ADDRESSES.len(), 2 * ADDRESSES.len() + 1), "{ended}");
    for line in &made {
        shell(wire, line)?;
    }
    let watch = Watch::begin(wire)?;
    let child = serve(wire, &["http", "--suppress", "none"])?;
    fetch_all(wire, 80)?;
    watch.take(wire)?.assert_silent();
    for line in &removed {
        shell(wire, line)?;
    }
    let left = rules(wire)?;
    assert!(!left.contains("wirestack"), "{left}");
    // Alone, or the stack's answer might come first.
    drop(child);
    assert_refused(wire, 80);
    Ok(())
}
