//! Stacks of one shard and of several on threads, opposite each other in memory.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::task::JoinSet;
use wirestack_nic::affinity;
use wirestack_nic::loopback::{Loopback, LoopbackConfig, Spread};

use super::*;
use crate::api::tokio::{Stack, TcpListener, TcpStream};
use crate::config::parse_cidr;
use crate::neighbor::AddressProbes;
use crate::shard::ShardConfig;

const SEED: u32 = 77;
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const SOON: Duration = Duration::from_secs(30);

fn config(number: u8) -> ShardConfig {
    let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, number]));
    for cidr in [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")] {
        config = config.address(parse_cidr(&cidr).expect("an address"));
    }
    config.neighbor.probes = AddressProbes::None;
    config.seed = number.into();
    config
}

fn group(shards: usize) -> (Spread, Vec<Loopback<'static>>) {
    Spread::group(&LoopbackConfig::default(), shards, SEED).expect("a group")
}

/// A server of so many shards, and a client of one.
struct Pair {
    server: Driver,
    client: Driver,
}

impl Pair {
    fn new(shards: usize) -> Self {
        Self::with(shards, |launch| launch)
    }

    fn with(shards: usize, change: impl FnOnce(Launch) -> Launch) -> Self {
        let (far, near) = group(shards);
        let server = change(Launch::new(config(1)).steering_seed(SEED));
        let server = server.start(near).expect("the server");
        Self { server, client: Launch::new(config(2)).start(vec![far]).expect("the client") }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Sends back what comes on each connection, until it ends.
async fn echo(listener: TcpListener) {
    let mut served = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        served.spawn(async move {
            let (mut room, mut len) = ([0; 4096], 1);
            while len > 0 {
                len = stream.read(&mut room).await?;
                stream.write_all(&room[..len]).await?;
            }
            stream.shutdown().await
        });
    }
}

/// Sends something there and back.
async fn ask(stack: Stack, to: SocketAddr) -> io::Result<()> {
    let mut stream = stack.connect(to).await?;
    let question: Vec<u8> = (0..5000_u32).map(|number| number as u8).collect();
    stream.write_all(&question).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert_eq!(answer, question);
    Ok(())
}

/// Flows from one stack to the other; each shard of the one with several has its share, and none gets what is another's.
fn flows(pair: &Pair, from: &Stack, to: &Stack, ip: IpAddr) {
    block_on(async {
        let echo = tokio::spawn(echo(to.listen(at(ip, 7)).expect("a port")));
        let mut asked: JoinSet<_> = (0..40).map(|_| ask(from.clone(), at(ip, 7))).collect();
        while let Some(result) = asked.join_next().await {
            result.expect("no panic").expect("an answer");
        }
        echo.abort();
        let _ = echo.await;
    });
    for figures in pair.server.figures() {
        assert!(figures.tcp.active_opens + figures.tcp.passive_opens >= 5, "{:?}", figures.tcp);
        let drops: Vec<_> = figures.drops.named().filter(|(_, count)| *count > 0).collect();
        // The second acknowledgment of a FIN that was probed for may find no connection.
        assert!(figures.tcp.resets_sent <= figures.tcp.retransmits, "{drops:?} {:?}", figures.tcp);
        assert!(figures.nic.rx_frames > 0 && figures.is_running);
    }
}

#[test]
fn flows_of_others_come_to_their_shards() {
    let pair = Pair::new(3);
    flows(&pair, pair.client.stack(), pair.server.stack(), SERVER);
    let v6 = "fd00::1".parse().expect("an address");
    flows(&pair, pair.client.stack(), pair.server.stack(), v6);
}

#[test]
fn flows_of_ours_come_back_to_their_shards() {
    let pair = Pair::new(3);
    flows(&pair, pair.server.stack(), pair.client.stack(), CLIENT);
}

#[test]
fn datagrams_come_to_the_socket_that_is_in_all_shards() {
    let pair = Pair::new(3);
    let (ours, theirs) = (pair.server.stack(), pair.client.stack());
    let socket = ours.udp_bind(at(SERVER, 9)).expect("a port");
    block_on(async {
        let mut room = [0; 64];
        for number in 0..30_u8 {
            let client = theirs.udp_bind(at(CLIENT, 0)).expect("a port");
            client.send_to(&[number], at(SERVER, 9)).await.expect("room");
            let (len, from) = socket.recv_from(&mut room).await.expect("a datagram");
            assert_eq!((&room[..len], from), (&[number][..], client.local_addr().expect("bound")));
            socket.send_to(&room[..len], from).await.expect("room");
            assert_eq!(client.recv(&mut room).await.expect("the answer"), 1);
        }
    });
    let received = pair.server.figures().into_iter().map(|figures| figures.shard.udp_received);
    assert!(received.clone().all(|received| received > 3), "{:?}", received.collect::<Vec<_>>());
}

/// Errors of the network about a flow come to its shard: a closed port is told to the sender.
#[test]
fn refusals_come_back_to_their_shards() {
    let pair = Pair::new(3);
    block_on(async {
        for _ in 0..20 {
            let refused = pair.server.stack().connect(at(CLIENT, 1)).await.expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        // Errors are limited, so these are few.
        for _ in 0..3 {
            let socket = pair.server.stack().udp_bind(at(SERVER, 0)).expect("a port");
            socket.connect_now(at(CLIENT, 1)).expect("a way");
            socket.send(b"hello").await.expect("room");
            let refused = socket.recv(&mut [0; 8]).await.expect_err("nobody is there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    });
}

/// What was written before a shutdown arrives, to the last byte and the end, also at a peer that reads slowly.
#[test]
fn a_shutdown_sends_what_was_written() {
    let pair = Pair::new(2);
    let listener = pair.server.stack().listen(at(SERVER, 80)).expect("a port");
    let written = block_on(async {
        let (to, client) = (at(SERVER, 80), pair.client.stack());
        let (accepted, connected) = tokio::join!(listener.accept(), client.connect(to));
        let ((mut served, _), mut stream) =
            (accepted.expect("a connection"), connected.expect("a connection"));
        let mut written = 0;
        // As much as there is room for, and no task that waits.
        while let Ok(Ok(len)) =
            tokio::time::timeout(std::time::Duration::ZERO, served.write(&[7; 10_000])).await
        {
            written += len;
        }
        let ended = std::thread::spawn(move || pair.server.shutdown(SOON));
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("all, and the end");
        assert_eq!(read.len(), written);
        // The peer finishes as well: nothing is left to be reset.
        drop(stream);
        ended.join().expect("no panic");
        let error = served.write(b"x").await.expect_err("there is no stack");
        assert!(matches!(error.kind(), ErrorKind::NetworkDown | ErrorKind::BrokenPipe), "{error:?}");
        assert_eq!(listener.accept().await.expect_err("the same").kind(), ErrorKind::NetworkDown);
        let counted = pair.client.figures();
        assert_eq!(counted[0].tcp.resets_received, 0);
        written
    });
    assert!(written > 50_000);
}

/// Who does not read does not hold a shutdown up for longer than was said, and is reset.
#[test]
fn a_shutdown_has_an_end() {
    let pair = Pair::new(2);
    let listener = pair.server.stack().listen(at(SERVER, 80)).expect("a port");
    block_on(async {
        let (to, client) = (at(SERVER, 80), pair.client.stack());
        let (accepted, connected) = tokio::join!(listener.accept(), client.connect(to));
        let ((mut served, _), mut stream) =
            (accepted.expect("a connection"), connected.expect("a connection"));
        // More than both buffers hold: nothing is taken any more, and not because a thread has to wait for a core.
        while tokio::time::timeout(std::time::Duration::from_millis(500), served.write(&[7; 65_536]))
            .await
            .is_ok()
        {}
        // Whoever stops a second time does no harm, nor does a later end.
        pair.server.stopper().stop(Duration::from_millis(50));
        pair.server.stopper().stop(SOON);
        pair.server.wait();
        assert!(!pair.server.is_running() && pair.server.stopper().has_ended());
        pair.server.shutdown(SOON);
        let mut read = Vec::new();
        let error = stream.read_to_end(&mut read).await.expect_err("not all of it");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// The times at which the end of a shard goes on are those that its thread sleeps until.
#[test]
fn an_end_is_slept_for() {
    use super::cell::{Cell, Course};
    use super::shutdown::Ending;
    let (far, near) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    drop(far);
    let start = smoltcp::time::Instant::from_secs(1);
    let mut shard = crate::shard::Shard::new(config(1), start).expect("a shard");
    shard.tcp_connect(crate::shard::TcpConnect::new(at(CLIENT, 80))).expect("a way");
    let waker = wirestack_nic::Nic::waker(&near);
    let inbox = super::mailbox::Inbox::new(1);
    let cell = Arc::new(Cell::new(crate::api::Hub::new(shard), Parker::new(waker), inbox));
    let (mut ending, all) = (Ending::default(), [Arc::clone(&cell)]);
    let mut hub = cell.hub.lock();
    ending.turn(Course::Runs, &cell, &all, &mut hub);
    assert_eq!(ending.next_deadline(), None);
    for seconds in [9, 5] {
        let until = smoltcp::time::Instant::from_secs(seconds);
        ending.turn(Course::Ends(until), &cell, &all, &mut hub);
        assert_eq!(ending.next_deadline(), Some(until));
    }
    let until = smoltcp::time::Instant::from_secs(5);
    hub.shard().set_now(until);
    ending.turn(Course::Ends(until), &cell, &all, &mut hub);
    assert!(cell.is_drained() && ending.next_deadline().is_some_and(|next| next > until));
    assert_eq!(hub.fault(), Some(ErrorKind::NetworkDown));
}

#[test]
fn an_interface_that_has_gone_ends_everything() {
    let (far, near) = group(2);
    let server = Launch::new(config(1)).steering_seed(SEED).start(near).expect("the server");
    let listener = server.stack().listen(at(SERVER, 80)).expect("a port");
    let accepting = std::thread::spawn(move || block_on(listener.accept()).expect_err("no link").kind());
    drop(far);
    server.wait();
    assert_eq!(accepting.join().expect("no panic"), ErrorKind::NetworkDown);
    assert!(server.figures().iter().all(|figures| !figures.is_running));
    assert_eq!(server.stack().listen(at(SERVER, 81)).expect_err("no link").kind(), ErrorKind::NetworkDown);
    server.join();
}

/// An application in the turns that panics takes the stack with it, and nobody waits for it in vain.
#[test]
fn a_shard_that_panics_ends_everything() {
    for panics_at in 0..2 {
        let bomb = Arc::new(AtomicBool::new(false));
        let fuse = Arc::clone(&bomb);
        let make: MakeInTurn = Arc::new(move |number, _| {
            let fuse = Arc::clone(&fuse);
            Ok(Box::new(move |_: &mut crate::shard::Shard| {
                assert!(number != panics_at || !fuse.load(Ordering::SeqCst), "as the test wants it");
                None
            }))
        });
        let pair = Pair::with(2, |launch| launch.in_turn(make));
        let listener = pair.server.stack().listen(at(SERVER, 80)).expect("a port");
        let (served, _kept) = block_on(async {
            let (to, client) = (at(SERVER, 80), pair.client.stack());
            tokio::join!(listener.accept(), client.connect(to))
        });
        let mut stream = served.expect("a connection").0;
        bomb.store(true, Ordering::SeqCst);
        // Each of them has a turn.
        for number in 0..2 {
            let _ = pair.server.with_shard(number, |shard| shard.resolve("localhost", crate::dns::Kind::A));
        }
        pair.server.wait();
        assert_eq!(block_on(listener.accept()).expect_err("no stack").kind(), ErrorKind::NetworkDown);
        let error = block_on(stream.read(&mut [0; 8])).expect_err("no stack");
        assert_eq!(error.kind(), ErrorKind::NetworkDown);
        pair.server.shutdown(SOON);
    }
}

/// Dropped without a word, and by a thread of its own.
#[test]
fn a_driver_may_be_dropped_anywhere() {
    let pair = Pair::new(2);
    let Pair { server, client } = pair;
    drop(client);
    struct Owner(std::sync::Mutex<Option<Driver>>, std::sync::mpsc::Sender<()>);
    impl std::task::Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("no panic").take());
            let _ = self.1.send(());
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let stack = server.stack().clone();
    let waker = Arc::new(Owner(std::sync::Mutex::new(Some(server)), tell)).into();
    let mut sleep = stack.sleep(Duration::from_millis(1));
    let mut context = std::task::Context::from_waker(&waker);
    if std::pin::Pin::new(&mut sleep).poll(&mut context).is_pending() {
        told.recv().expect("it was woken");
    }
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    let none = Launch::new(config(1)).start(Vec::<Loopback<'_>>::new());
    assert!(matches!(none, Err(LaunchError::NoDevice)));
    let cpu = Launch::new(config(1)).cpus(vec![0, 5000]).start(group(2).1).expect_err("no such CPU");
    assert!(matches!(cpu, LaunchError::Cpu { cpu: 5000, .. }), "{cpu}");
    assert!(cpu.to_string().starts_with("CPU 5000 does not exist"), "{cpu}");
    let wrong = ShardConfig { hop_limit: 64, ..config(1) }.gateway("192.0.2.1".parse().expect("an address"));
    assert!(matches!(Launch::new(wrong).start(group(2).1), Err(LaunchError::Config(_))));
    // The second of three; the first and the third are ended again.
    let made = Arc::new(AtomicUsize::new(0));
    let (far, near) = group(3);
    let make: MakeInTurn = Arc::new({
        let made = Arc::clone(&made);
        move |number, _| {
            made.fetch_add(1, Ordering::SeqCst);
            match number {
                1 => Err(io::Error::other("not today")),
                _ => Ok(Box::new(|_: &mut crate::shard::Shard| None)),
            }
        }
    });
    let failed = Launch::new(config(1)).in_turn(make).start(near).expect_err("the second fails");
    assert_eq!((failed.to_string(), made.load(Ordering::SeqCst)), ("not today".to_owned(), 3));
    let mut far = far;
    assert_eq!(wirestack_nic::Nic::link_state(&mut far), wirestack_nic::LinkState::Gone);
}

#[test]
fn threads_have_names_and_cpus() {
    let allowed = affinity::current_thread().expect("some CPUs");
    let last = allowed.iter().last().expect("one CPU");
    let (far, near) = group(2);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let make: MakeInTurn = Arc::new({
        let seen = Arc::clone(&seen);
        move |number, _| {
            let name = std::thread::current().name().map(str::to_owned);
            seen.lock().expect("no panic").push((number, name, affinity::current_thread()?));
            Ok(Box::new(|_: &mut crate::shard::Shard| None))
        }
    });
    let driver = Launch::new(config(1)).cpus(vec![last]).in_turn(make).start(near).expect("a stack");
    let mut seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    seen.sort_by_key(|(number, ..)| *number);
    let expected = |number| (number, Some(format!("shard-{number}")), std::iter::once(last).collect());
    assert_eq!(seen, [expected(0), expected(1)]);
    drop(far);
    driver.join();
}

/// Counters of the device are of now, whether the thread sleeps or spins, and stay when it has gone.
#[test]
fn figures_are_of_now() {
    for patience in [Patience::Sleep, Patience::Spin] {
        let pair = Pair::with(2, |launch| launch.patience(patience));
        flows(&pair, pair.client.stack(), pair.server.stack(), SERVER);
        let now: u64 = pair.client.figures().iter().map(|figures| figures.nic.tx_frames).sum();
        pair.server.end(Duration::ZERO);
        let received: u64 = pair.server.figures().iter().map(|figures| figures.nic.rx_frames).sum();
        assert!(received >= now && now > 40, "{received} of {now}");
        assert!(pair.server.with_shard(2, |_| ()).is_none());
        assert_eq!(pair.server.with_shard(1, |shard| shard.snapshot(1).shard), Some(1));
    }
}

/// Streams of both ends are dropped from any thread at any time while the stack ends.
#[test]
fn sockets_may_be_used_while_the_stack_ends() {
    for round in 0..5 {
        let pair = Pair::new(2);
        let listener = pair.server.stack().listen(at(SERVER, 80)).expect("a port");
        let stopper = pair.server.stopper();
        let client = pair.client.stack().clone();
        let asks = std::thread::spawn(move || {
            block_on(async {
                let mut kept: Vec<TcpStream> = Vec::new();
                for number in 0..50 {
                    match client.connect(at(SERVER, 80)).await {
                        Ok(stream) if number % 2 == 0 => kept.push(stream),
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            });
        });
        block_on(async {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"hello").await;
                kept.push(stream);
                if kept.len() == 10 + round {
                    stopper.stop(Duration::from_millis(20));
                }
            }
        });
        drop(listener);
        pair.client.shutdown(Duration::ZERO);
        pair.server.shutdown(Duration::ZERO);
        asks.join().expect("no panic");
    }
}
