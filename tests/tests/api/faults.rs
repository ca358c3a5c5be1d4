//! The interface goes while everybody waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::blocking::{TcpListener, TcpStream, UdpSocket};
use wirestack::driver::Driver;
use wirestack::local::Runtime;
use wirestack::smoltcp::time::Duration as StackDuration;

use crate::pair::{CLIENT, LONG, NOBODY, Pair, at_server, config, devices, launch, noise};

/// A stack, and a peer that accepts so many connections, waits to be told, and is gone with its device: it sends nothing
/// any more, as if a cable were cut and the card pulled out.
fn doomed(connections: usize) -> (Driver, mpsc::Sender<()>, thread::JoinHandle<()>) {
    let (one, other) = devices();
    let (tell, told) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut runtime = Runtime::new(one, config(1)).expect("a runtime");
        let listener = runtime.stack().listen(at_server(7)).unwrap();
        let stack = runtime.stack().clone();
        ready.send(()).unwrap();
        let held = runtime.block_on(async {
            let mut held = Vec::new();
            for _ in 0..connections {
                held.push(listener.accept().await.unwrap());
            }
            while told.try_recv().is_err() {
                stack.sleep(StackDuration::from_millis(1)).await;
            }
            held
        });
        // The device first.
        drop(runtime);
        drop(held);
    });
    is_ready.recv().unwrap();
    let mut config = config(2);
    config.dns.servers = vec![SocketAddr::new(NOBODY, 53)];
    (launch(config, other), tell, thread)
}

#[test]
fn blocked_threads_hear_of_it() {
    let (driver, tell, peer) = doomed(3);
    let stack = driver.stack();
    let streams = [(); 3].map(|()| TcpStream::connect_on(stack, at_server(7)).unwrap());
    let listener = TcpListener::bind_on(stack, (CLIENT, 9)).unwrap();
    let socket = UdpSocket::bind_on(stack, (CLIENT, 9)).unwrap();
    let kinds: Vec<(&str, ErrorKind)> = thread::scope(|scope| {
        let [mut reading, mut writing, peeking] = [&streams[0], &streams[1], &streams[2]];
        let (listener, socket) = (&listener, &socket);
        let waiting = [
            ("read", scope.spawn(move || reading.read(&mut [0]).map(drop))),
            ("write", scope.spawn(move || writing.write_all(&noise(20 << 20)))),
            ("peek", scope.spawn(move || peeking.peek(&mut [0]).map(drop))),
            ("accept", scope.spawn(move || listener.accept().map(drop))),
            ("recv", scope.spawn(move || socket.recv(&mut [0]).map(drop))),
            ("connect", scope.spawn(move || TcpStream::connect_on(stack, (NOBODY, 7)).map(drop))),
            ("connect by name", scope.spawn(move || TcpStream::connect_on(stack, "example.org:7").map(drop))),
        ];
        tell.send(()).unwrap();
        let kind = |result: io::Result<()>| result.expect_err("nothing works").kind();
        waiting.map(|(what, thread)| (what, kind(thread.join().unwrap()))).into()
    });
    peer.join().unwrap();
    for (what, kind) in kinds {
        assert_eq!(kind, ErrorKind::NetworkDown, "{what}");
    }
    // And so does whoever comes later.
    assert_eq!((&streams[0]).read(&mut [0]).unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!((&streams[0]).write(b"x").unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(socket.send_to(b"x", at_server(7)).unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(TcpListener::bind_on(stack, (CLIENT, 10)).unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(UdpSocket::bind_on(stack, (CLIENT, 10)).unwrap_err().kind(), ErrorKind::NetworkDown);
}

#[test]
fn tasks_hear_of_it() {
    let (driver, tell, peer) = doomed(2);
    let stack = driver.stack().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut reading = stack.connect(at_server(7)).await.unwrap();
        let mut writing = stack.connect(at_server(7)).await.unwrap();
        let listener = stack.listen(SocketAddr::new(CLIENT, 9)).unwrap();
        let socket = stack.udp_bind(SocketAddr::new(CLIENT, 9)).unwrap();
        let data = noise(20 << 20);
        let (mut one, mut two) = ([0], [0]);
        let (read, written, accepted, received, connected, found) = tokio::join!(
            reading.read(&mut one),
            writing.write_all(&data),
            listener.accept(),
            socket.recv(&mut two),
            stack.connect(SocketAddr::new(NOBODY, 7)),
            async {
                tell.send(()).unwrap();
                stack.lookup("example.org").await
            },
        );
        let kinds = [
            read.map(drop),
            written,
            accepted.map(drop),
            received.map(drop),
            connected.map(drop),
            found.map(drop),
        ]
        .map(|result| result.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::NetworkDown; 6]);
        // Nobody sleeps for ever, either.
        stack.sleep(StackDuration::from_secs(86_400)).await;
        let wanted = [NOBODY];
        let waited = stack.wait_for_addresses(&wanted, StackDuration::from_secs(86_400)).await;
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::NetworkDown);
    });
    peer.join().unwrap();
}

#[test]
fn a_stack_that_is_shut_down_says_so() {
    let pair = Pair::new();
    let listener = TcpListener::bind_on(pair.server(), at_server(7)).unwrap();
    let mut client = TcpStream::connect_on(pair.client(), at_server(7)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"the last words").unwrap();
    let accepting = thread::spawn(move || listener.accept().map(drop));
    let Pair { server: driver, client: _client } = pair;
    let reading = thread::spawn(move || {
        let mut words = String::new();
        client.read_to_string(&mut words).map(|_| words)
    });
    driver.shutdown(StackDuration::from_secs(10));
    assert_eq!(reading.join().unwrap().unwrap(), "the last words");
    assert_eq!(accepting.join().unwrap().unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(server.write(b"more").unwrap_err().kind(), ErrorKind::NetworkDown);
}

#[test]
fn nobody_answers_in_time() {
    let pair = Pair::new();
    let nobody = SocketAddr::new(NOBODY, 7);
    let timed_out = TcpStream::connect_timeout_on(pair.client(), &nobody, Duration::from_millis(20));
    assert_eq!(timed_out.unwrap_err().kind(), ErrorKind::TimedOut);
    let unreachable = TcpStream::connect_on(pair.client(), nobody);
    assert_eq!(unreachable.unwrap_err().kind(), ErrorKind::HostUnreachable);
    let no_way = TcpStream::connect_on(pair.client(), "192.0.2.1:7");
    assert_eq!(no_way.unwrap_err().kind(), ErrorKind::NetworkUnreachable);
}

/// std's close(2) waits, and so do we.
#[test]
fn closing_lingers() {
    let pair = Pair::new();
    let listener = TcpListener::bind_on(pair.server(), at_server(7)).unwrap();
    let mut client = TcpStream::connect_on(pair.client(), at_server(7)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    // Everything is acknowledged when this returns, long before the time is over.
    client.set_linger(Some(LONG)).unwrap();
    assert_eq!(client.linger().unwrap(), Some(LONG));
    let data = noise(10_000);
    client.write_all(&data).unwrap();
    drop(client);
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    assert!(got == data);
    // Nobody reads: the time is over, and it goes on without us.
    let client = TcpStream::connect_on(pair.client(), at_server(7)).unwrap();
    let (_server, _) = listener.accept().unwrap();
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while (&client).write(&data).is_ok() {}
    let time = Duration::from_millis(30);
    client.set_linger(Some(time)).unwrap();
    let begun = std::time::Instant::now();
    drop(client);
    assert!(begun.elapsed() >= time);
}

#[test]
fn no_stack_is_installed() {
    assert_eq!(TcpListener::bind("10.0.0.1:7").unwrap_err().kind(), ErrorKind::NotConnected);
    let pair = Pair::new();
    assert!(wirestack::install(Some(pair.server().clone())).is_none());
    let listener = TcpListener::bind(at_server(7)).unwrap();
    let socket = UdpSocket::bind("10.0.0.1:7").unwrap();
    assert_eq!(socket.local_addr().unwrap(), at_server(7));
    assert_eq!(TcpListener::bind("10.0.0.1").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(wirestack::install(None).is_some());
    assert_eq!(TcpStream::connect(at_server(7)).unwrap_err().kind(), ErrorKind::NotConnected);
    TcpStream::connect_on(pair.client(), at_server(7)).unwrap();
    listener.accept().expect("what was made before is as it was");
}
