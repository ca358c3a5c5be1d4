//! Stacks on threads of the driver, with several shards in one fanout group, and the kernel as the peer.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use smoltcp::time::Duration;
use wirestack::dhcp::v4;
use wirestack::driver::{Driver, Launch, open_group};
use wirestack::ip::slaac::SlaacConfig;
use wirestack::ip::stable_address::{InterfaceIdentifier, Secret};
use wirestack::ip::{AddressState, Origin};
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{PingBind, PingOptions, ShardConfig};
use wirestack_apps::testbed::{OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, Wire};
use wirestack_nic::AfPacketConfig;
use wirestack_tests::runner::{Case, Failed, Outcome, require_program, veth_test, veth_test_with};

use crate::shard_end::{at_peer, usual};
use crate::shard_services::{dnsmasq, radvd, wait_for_log, with_link_local};
use crate::support::noise;
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("driver::flows_of_the_kernel_come_to_their_shards", served),
        veth_test("driver::flows_of_ours_come_back_to_their_shards", connected),
        require_program("ping", veth_test("driver::echo_and_errors_find_their_shard", echo_and_errors)),
        require_program("curl", veth_test("driver::files_come_from_all_shards", downloads)),
        require_program("dnsmasq", veth_test("driver::a_lease_is_that_of_all_shards", lease)),
        require_program(
            "radvd",
            veth_test_with(
                "driver::an_advertised_address_is_that_of_all_shards",
                with_link_local,
                advertised,
            ),
        ),
        veth_test("driver::an_interface_that_goes_ends_all_shards", gone),
    ]
}

const SHARDS: usize = 2;
const SEED: u32 = 0x5eed;
const SECOND: Duration = Duration::from_secs(1);

/// A stack at our end of the wire, with so many shards.
fn start(wire: &Wire, config: ShardConfig) -> Result<Driver, Failed> {
    let name = wire.ours().name();
    let configs = (0..SHARDS).map(|_| AfPacketConfig::default()).collect();
    let nics = wire.at_ours(|| open_group(name, configs, SEED))?;
    Ok(Launch::new(config).steering_seed(SEED).start(nics)?)
}

/// The same with both addresses of our end, which can be used.
fn addressed(wire: &Wire) -> Result<Driver, Failed> {
    let mut config = usual(wire.ours().mac());
    config.neighbor.probes = AddressProbes::Quick;
    let driver = start(wire, config)?;
    wait_until("all addresses are in use", || Ok(driver.stack().addresses().len() >= 2))?;
    Ok(driver)
}

/// Waits in all shards.
fn in_all<T>(
    driver: &Driver,
    what: &str,
    mut look: impl FnMut(&mut wirestack::shard::Shard) -> Option<T>,
) -> Result<Vec<T>, Failed> {
    let mut found = Vec::new();
    for number in 0..SHARDS {
        let mut seen = None;
        wait_until(what, || {
            seen = driver.with_shard(number, &mut look).flatten();
            Ok(seen.is_some())
        })?;
        found.extend(seen);
    }
    Ok(found)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// Each shard has had some of the flows, and the wire has lost nothing.
fn check_shares(driver: &Driver, at_least: u64) {
    for figures in driver.figures() {
        let flows = figures.tcp.active_opens + figures.tcp.passive_opens;
        assert!(flows >= at_least, "{flows} flows: {:?}", figures.tcp);
        assert_eq!(figures.nic.rx_ring_full, 0);
    }
}

/// Sends back what comes, on all connections.
fn echo(driver: &Driver, ip: IpAddr) -> Result<thread::JoinHandle<()>, Failed> {
    let listener = driver.stack().listen(SocketAddr::new(ip, 7))?;
    Ok(thread::spawn(move || {
        block_on(async {
            let mut served = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(async move {
                    let (mut reader, mut writer) = stream.into_split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
                });
            }
        });
    }))
}

fn served(wire: &Wire) -> Outcome {
    let driver = addressed(wire)?;
    for ip in [IpAddr::V4(OURS_IPV4), IpAddr::V6(OURS_IPV6)] {
        let _echo = echo(&driver, ip)?;
        wire.at_peer(|| -> Outcome {
            // All at once, and then what each gets back.
            let mut streams = Vec::new();
            for number in 0..60 {
                let mut stream = TcpStream::connect((ip, 7))?;
                stream.write_all(&noise(number, 3000))?;
                stream.shutdown(Shutdown::Write)?;
                streams.push(stream);
            }
            for (number, stream) in (0..).zip(&mut streams) {
                let mut back = Vec::new();
                stream.read_to_end(&mut back)?;
                assert_eq!(back, noise(number, 3000));
            }
            Ok(())
        })?;
    }
    check_shares(&driver, 20);
    let resets: u64 = driver.figures().iter().map(|figures| figures.tcp.resets_received).sum();
    assert_eq!(resets, 0);
    driver.shutdown(SECOND);
    Ok(())
}

fn connected(wire: &Wire) -> Outcome {
    let driver = addressed(wire)?;
    for ip in [IpAddr::V4(PEER_IPV4), IpAddr::V6(PEER_IPV6)] {
        let listener = wire.at_peer(|| TcpListener::bind((ip, 0)))?;
        let to = listener.local_addr()?;
        let server = thread::spawn(move || -> std::io::Result<usize> {
            let mut sum = 0;
            for _ in 0..40 {
                let (mut stream, _) = listener.accept()?;
                let mut all = Vec::new();
                stream.read_to_end(&mut all)?;
                sum += all.len();
                stream.write_all(b"thanks")?;
            }
            Ok(sum)
        });
        block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            for number in 0..40 {
                let mut stream = driver.stack().connect(to).await.expect("a connection");
                stream.write_all(&noise(number, 2000)).await.expect("room");
                stream.shutdown().await.expect("it is open");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.expect("an answer");
                assert_eq!(answer, b"thanks");
            }
        });
        assert_eq!(server.join().expect("no panic")?, 40 * 2000);
    }
    check_shares(&driver, 30);
    driver.shutdown(SECOND);
    Ok(())
}

/// What is for no flow of TCP: echo requests, those of ours, a name server's port, and errors about datagrams.
fn echo_and_errors(wire: &Wire) -> Outcome {
    let driver = addressed(wire)?;
    at_peer(wire, &format!("ping -n -c 3 -i 0.2 -W 5 -s 3000 {OURS_IPV4}"))?;
    at_peer(wire, &format!("ping -n -c 3 -i 0.2 -W 5 -s 3000 {OURS_IPV6}"))?;
    // Of ours, the shard is the one to which the answer comes.
    for (ours, peer, protocol) in [
        (IpAddr::V4(OURS_IPV4), IpAddr::V4(PEER_IPV4), 1),
        (IpAddr::V6(OURS_IPV6), IpAddr::V6(PEER_IPV6), 58),
    ] {
        let ends = (SocketAddr::new(ours, 0), SocketAddr::new(peer, 0));
        let home = driver.stack().steering().shard_of_flow(ends.0, ends.1, protocol);
        let sent = driver.with_shard(home, |shard| {
            let socket = shard.ping_bind(PingBind::new(ours)).ok()?;
            shard.ping_send(socket, &PingOptions::new(peer, 1), b"hello").ok()?;
            Some(socket)
        });
        let socket = sent.flatten().ok_or("no ping")?;
        wait_until("an answer", || {
            Ok(driver.with_shard(home, |shard| shard.ping_recv_with(socket, |_, _| ()).is_some())
                == Some(true))
        })?;
    }
    block_on(async {
        for _ in 0..4 {
            let socket = driver.stack().udp_bind(SocketAddr::new(OURS_IPV4.into(), 0)).expect("a port");
            socket.connect_now(SocketAddr::new(PEER_IPV4.into(), 1)).expect("a way");
            socket.send(b"anybody?").await.expect("room");
            let refused = socket.recv(&mut [0; 8]).await.expect_err("nobody");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
    // Datagrams in fragments meet at one shard, and go on to that of their flow.
    let socket = driver.stack().udp_bind(SocketAddr::new(OURS_IPV4.into(), 9))?;
    let sockets =
        wire.at_peer(|| (0..8).map(|_| UdpSocket::bind((PEER_IPV4, 0))).collect::<Result<Vec<_>, _>>())?;
    for peer in &sockets {
        peer.send_to(&noise(1, 5000), (OURS_IPV4, 9))?;
        let mut room = vec![0; 8000];
        let (len, from) = block_on(socket.recv_from(&mut room))?;
        assert_eq!((&room[..len], from), (&noise(1, 5000)[..], peer.local_addr()?));
        block_on(socket.send_to(&room[..len], from))?;
        assert_eq!(peer.recv(&mut room)?, 5000);
    }
    driver.shutdown(SECOND);
    Ok(())
}

/// Many flows of another program at once, and a shutdown while the last of them are under way.
fn downloads(wire: &Wire) -> Outcome {
    let driver = addressed(wire)?;
    let listener = driver.stack().listen(SocketAddr::new(OURS_IPV4.into(), 80))?;
    let stopper = driver.stopper();
    let server = thread::spawn(move || {
        block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut served = tokio::task::JoinSet::new();
            for _ in 0..24 {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                served.spawn(async move {
                    let _ = stream.read(&mut [0; 1000]).await;
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nConnection: close\r\n\r\n";
                    stream.write_all(&[&head[..], &noise(3, 300_000)].concat()).await.expect("room");
                    stream.shutdown().await.expect("open");
                    // The peer closes first.
                    let _ = stream.read(&mut [0; 8]).await;
                });
            }
            while served.join_next().await.is_some() {}
        });
        stopper.stop(SECOND);
    });
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do \
         curl -s --max-time 50 http://{OURS_IPV4}/ | sha256sum & done; wait"
    );
    let sums = at_peer(wire, &script)?;
    let first = sums.lines().next().unwrap_or_default().to_owned();
    assert_eq!(sums.lines().filter(|line| **line == first).count(), 24, "{sums}");
    server.join().expect("no panic");
    driver.wait();
    check_shares(&driver, 3);
    Ok(())
}

fn lease(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let range = "--dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,120";
    let router = "--dhcp-option=option:router,10.77.0.1";
    let dns = "--dhcp-option=option:dns-server,10.77.0.1";
    let server = dnsmasq(wire, dir.path(), &[range, router, dns, "--address=/name.lab/10.77.0.1"])?;
    let mut config = ShardConfig::new(wire.ours().mac());
    (config.seed, config.dhcp) = (7, Some(v4::Config::default()));
    let driver = start(wire, config)?;
    let address = in_all(&driver, "a lease", |shard| {
        let is_leased = |known: &&wirestack::ip::Address| known.origin == Origin::Dhcp && known.is_usable();
        shard.addresses().find(is_leased).map(|known| known.ip())
    })?;
    assert_eq!(address, [address[0]; SHARDS]);
    // It works in all of them: there and back, by names that each shard asks for itself.
    let listener = wire.at_peer(|| TcpListener::bind((PEER_IPV4, 0)))?;
    let port = listener.local_addr()?.port();
    let accepts = thread::spawn(move || (0..16).try_for_each(|_| listener.accept().map(drop)));
    block_on(async {
        for _ in 0..16 {
            let stream = driver.stack().connect_to(("name.lab", port)).await;
            drop(stream.expect("a connection"));
        }
    });
    accepts.join().expect("no panic")?;
    check_shares(&driver, 8);
    driver.shutdown(SECOND);
    wait_for_log(&server, "DHCPRELEASE(")?;
    Ok(())
}

fn advertised(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    at_peer(wire, &format!("ip -6 addr add fd99::1/64 dev {} nodad", wire.peer().name()))?;
    let mut config = ShardConfig::new(wire.ours().mac());
    config.slaac = Some(SlaacConfig::new(InterfaceIdentifier::Stable { secret: Secret([5; 16]) }));
    let driver = start(wire, config)?;
    let _router = radvd(wire, dir.path(), "AdvDefaultLifetime 1800; prefix fd99::/64 { };")?;
    let addresses = in_all(&driver, "an address of the prefix", |shard| {
        let is_formed = |known: &&wirestack::ip::Address| {
            known.origin == Origin::Slaac && known.state == AddressState::Preferred
        };
        shard.addresses().find(is_formed).map(|known| known.ip())
    })?;
    assert_eq!(addresses, [addresses[0]; SHARDS]);
    let ip = addresses[0];
    let _echo = echo(&driver, ip)?;
    wire.at_peer(|| -> Outcome {
        // So many that each shard has three, whatever the ports are.
        for _ in 0..40 {
            let mut stream = TcpStream::connect((ip, 7))?;
            stream.write_all(b"hello")?;
            stream.read_exact(&mut [0; 5])?;
        }
        Ok(())
    })?;
    check_shares(&driver, 3);
    // No shard took the probes of the other for those of a stranger.
    for figures in driver.figures() {
        let conflicts = figures.drops.named().filter(|(name, _)| name.ends_with("_conflict"));
        assert_eq!(conflicts.map(|(_, count)| count).sum::<u64>(), 0);
    }
    driver.shutdown(SECOND);
    Ok(())
}

fn gone(wire: &Wire) -> Outcome {
    let driver = addressed(wire)?;
    let listener = driver.stack().listen(SocketAddr::new(OURS_IPV4.into(), 80))?;
    wire.ours().delete()?;
    let error = block_on(listener.accept()).err().ok_or("there is no link")?;
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkDown);
    driver.wait();
    driver.join();
    Ok(())
}
