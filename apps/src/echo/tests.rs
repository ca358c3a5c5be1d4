use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use wirestack::config::parse_cidr;
use wirestack::local::Runtime;
use wirestack::nic::loopback::{Loopback, LoopbackConfig};
use wirestack::shard::ShardConfig;

use super::{blocking, tasks};
use crate::accept::{Places, accept};

/// The same bodies serve the kernel's sockets.
#[test]
fn threads_echo_and_are_not_too_many() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let accepted = AtomicUsize::new(0);
    let accept = move || match accepted.fetch_add(1, Ordering::Relaxed) {
        0..3 => listener.accept().map(|(stream, _)| stream),
        _ => Err(io::ErrorKind::NetworkDown.into()),
    };
    let server = thread::spawn(move || blocking::streams(accept, 1));
    // With one place, each is served when the one before has ended.
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("it is open");
        client.shutdown(Shutdown::Write).expect("it is open");
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("it is served");
        assert_eq!(back, b"hello");
    }
    let ended = server.join().expect("no panic");
    assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::NetworkDown));
}

#[test]
fn datagrams_echo_but_not_to_another_echo() {
    let (server, client) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let (server, client) = (server.expect("a port"), client.expect("a port"));
    let address = server.local_addr().expect("it is bound");
    let own = client.local_addr().expect("it is bound").port();
    client.send_to(b"one", address).expect("sent");
    client.send_to(b"two", address).expect("sent");
    let serve = |port| {
        let received = AtomicUsize::new(0);
        let recv = |room: &mut [u8]| match received.fetch_add(1, Ordering::Relaxed) {
            0 => server.recv_from(room),
            _ => Err(io::ErrorKind::NetworkDown.into()),
        };
        assert!(blocking::datagrams(recv, |bytes, to| server.send_to(bytes, to), port).is_err());
    };
    serve(own);
    serve(7);
    let mut room = [0; 9];
    let len = client.recv(&mut room).expect("the second one");
    assert_eq!(&room[..len], b"two");
}

#[test]
fn tasks_echo_and_are_not_too_many() {
    let (nic, _other) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    let mac = wirestack::EthernetAddress([2, 0, 0, 0, 0, 1]);
    let mut config = ShardConfig::new(mac).address(parse_cidr("10.0.0.1/24").expect("an address"));
    config.neighbor.probes = wirestack::neighbor::AddressProbes::None;
    let mut runtime = Runtime::new(nic, config).expect("a configuration");
    let (stack, spawner) = (runtime.stack().clone(), runtime.spawner().clone());
    let at = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
    let listener = stack.listen(at(7)).expect("free");
    spawner.clone().spawn(async move {
        let spawn = |stream, _, place| spawner.spawn(tasks::stream(stream, place));
        let _ = accept(listener, Places::new(1), spawn).await;
    });
    let datagrams = stack.udp_bind(at(7)).expect("free");
    runtime.spawner().spawn(async move { drop(tasks::datagrams(datagrams, 7).await) });
    let talk = async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for _ in 0..3 {
            let mut stream = stack.connect(at(7)).await.expect("it listens");
            stream.write_all(b"hello").await.expect("it is open");
            stream.shutdown().await.expect("it is open");
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.expect("it is served");
            assert_eq!(back, b"hello");
        }
        let socket = stack.udp_bind(at(0)).expect("free");
        socket.send_to(b"datagram", at(7)).await.expect("sent");
        let mut room = [0; 9];
        let (len, from) = socket.recv_from(&mut room).await.expect("it comes back");
        assert_eq!((&room[..len], from), (&b"datagram"[..], at(7)));
    };
    runtime.block_on(talk).expect("the wire is there");
}
