//! Connections while all is well.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::{TcpListener, TcpStream, World};
use crate::pair::{LONG, noise};

const SHORT: Duration = Duration::from_millis(20);

fn listen(world: &World) -> (TcpListener, SocketAddr) {
    let listener = world.listen_at(world.host().into(), 0).expect("a listener");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Both ends of a connection: who connected, and who accepted.
fn connection(world: &World) -> (TcpStream, TcpStream) {
    let (listener, address) = listen(world);
    let client = world.connect(address).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    for end in [&client, &server] {
        end.set_read_timeout(Some(LONG)).expect("a timeout");
    }
    (client, server)
}

#[test]
fn addresses_are_those_of_both_ends() {
    let world = World::new();
    let (listener, address) = listen(&world);
    assert_ne!(address.port(), 0);
    let client = world.connect(address).expect("a connection");
    let (server, peer) = listener.accept().expect("a connection");
    assert_eq!(client.peer_addr().unwrap(), address);
    assert_eq!(server.local_addr().unwrap(), address);
    assert_eq!(client.local_addr().unwrap(), peer);
    assert_eq!(server.peer_addr().unwrap(), peer);
}

#[test]
fn much_goes_both_ways() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    let data = noise(4 << 20);
    let echo = thread::spawn(move || std::io::copy(&mut server.try_clone().unwrap(), &mut server).unwrap());
    let mut back = Vec::new();
    thread::scope(|scope| {
        let (data, writer) = (&data, &client);
        scope.spawn(move || {
            let mut writer: &TcpStream = writer;
            writer.write_all(data).expect("it is written");
            writer.shutdown(Shutdown::Write).expect("the end");
        });
        let mut reader = &client;
        reader.read_to_end(&mut back).expect("it comes back");
    });
    assert!(back == data);
    assert_eq!(echo.join().unwrap(), data.len() as u64);
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "the end stays the end");
}

#[test]
fn a_write_takes_all_that_it_is_given() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    let data = noise(9 << 20);
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).map(|_| got)
    });
    // More than any buffer has room for.
    assert_eq!(client.write(&data).unwrap(), data.len());
    let (half, rest) = data.split_at(5 << 20);
    let pieces = [IoSlice::new(half), IoSlice::new(&[]), IoSlice::new(rest)];
    assert_eq!(client.write_vectored(&pieces).unwrap(), data.len());
    drop(client);
    let got = reader.join().unwrap().unwrap();
    assert!(got.len() == 2 * data.len() && got[..data.len()] == data && got[data.len()..] == data);
}

#[test]
fn pieces_are_written_and_read() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    let written = client.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")]);
    assert_eq!(written.unwrap(), 5);
    let mut got = [0; 5];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcde");
    server.write_all(b"fghij").unwrap();
    while client.peek(&mut [0; 9]).unwrap() < 5 {}
    let (mut one, mut two) = ([0; 2], [0; 9]);
    let rooms = &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
    assert_eq!(client.read_vectored(rooms).unwrap(), 5);
    assert_eq!((&one, &two[..3]), (b"fg", &b"hij"[..]));
}

#[test]
fn peek_leaves_everything() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    client.write_all(b"hello").unwrap();
    let mut room = [0; 9];
    while server.peek(&mut room).unwrap() < 5 {}
    assert_eq!(server.peek(&mut room[..2]).unwrap(), 2);
    assert_eq!(server.read(&mut room).unwrap(), 5);
    assert_eq!(&room[..5], b"hello");
    drop(client);
    assert_eq!(server.peek(&mut room).unwrap(), 0);
    assert_eq!(server.read(&mut room).unwrap(), 0);
}

#[test]
fn nothing_is_read_and_written_as_nothing() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    assert_eq!(client.write(&[]).unwrap(), 0);
    client.write_all(b"x").unwrap();
    server.peek(&mut [0]).unwrap();
    assert_eq!(server.read(&mut []).unwrap(), 0);
    assert_eq!(server.read(&mut [0; 9]).unwrap(), 1);
    client.flush().unwrap();
}

#[test]
fn a_timeout_is_that_it_would_block() {
    let world = World::new();
    let (mut client, server) = connection(&world);
    assert_eq!(client.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(client.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(client.write_timeout().unwrap(), None);
    // A clone is the same socket.
    let clone = client.try_clone().unwrap();
    clone.set_read_timeout(Some(SHORT)).unwrap();
    clone.set_write_timeout(Some(SHORT)).unwrap();
    assert_eq!(client.read_timeout().unwrap(), Some(SHORT));
    let begun = Instant::now();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(client.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let data = vec![0; 1 << 20];
    let error = loop {
        match client.write(&data) {
            Ok(len) => assert!(len > 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    clone.set_read_timeout(None).unwrap();
    assert_eq!(client.read_timeout().unwrap(), None);
    drop(server);
}

#[test]
fn what_does_not_block_says_so() {
    let world = World::new();
    let (listener, address) = listen(&world);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(listener.incoming().next().unwrap().unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut client = world.connect(address).expect("a connection");
    let server = loop {
        match listener.accept() {
            Ok((server, _)) => break server,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        thread::yield_now();
    };
    // Of a clone it is set, too.
    client.try_clone().unwrap().set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(client.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let data = vec![0; 1 << 20];
    let error = loop {
        match client.write(&data) {
            Ok(len) => assert!(len > 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    drop(server);
}

#[test]
fn addresses_are_taken_and_given_back() {
    let world = World::new();
    let (listener, address) = listen(&world);
    let again = world.listen_at(address.ip(), address.port());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    let any = world.listen_at(Ipv4Addr::UNSPECIFIED.into(), address.port());
    assert_eq!(any.unwrap_err().kind(), ErrorKind::AddrInUse);
    let foreign: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    assert_eq!(world.listen_at(foreign, 0).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let clone = listener.try_clone().unwrap();
    drop(listener);
    assert_eq!(
        world.listen_at(address.ip(), address.port()).unwrap_err().kind(),
        ErrorKind::AddrInUse,
        "a clone is left"
    );
    drop(clone);
    world.listen_at(address.ip(), address.port()).expect("it is free again");
}

#[test]
fn a_port_can_be_listened_at_again_while_connections_of_it_are_left() {
    let world = World::new();
    let (listener, address) = listen(&world);
    let client = world.connect(address).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    drop(listener);
    let again = world.listen_at(address.ip(), address.port());
    // The kernel does not let anybody in while the connection is open, and does after that.
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop((server, again));
    world.listen_at(address.ip(), address.port()).expect("only what is left of a connection has it");
}

#[test]
fn settings_are_kept() {
    let world = World::new();
    let (listener, address) = listen(&world);
    listener.set_ttl(77).unwrap();
    assert_eq!(listener.ttl().unwrap(), 77);
    let client = world.connect(address).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    assert_eq!((client.ttl().unwrap(), server.ttl().unwrap()), (64, 77));
    client.set_ttl(255).unwrap();
    assert_eq!(client.try_clone().unwrap().ttl().unwrap(), 255);
    for wrong in [0, 256] {
        assert_eq!(client.set_ttl(wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(!client.nodelay().unwrap());
    client.set_nodelay(true).unwrap();
    assert!(client.nodelay().unwrap());
    client.set_nodelay(false).unwrap();
    assert!(!client.nodelay().unwrap());
    assert!(client.take_error().unwrap().is_none());
    assert!(listener.take_error().unwrap().is_none());
}

#[test]
fn a_clone_keeps_the_connection() {
    let world = World::new();
    let (client, mut server) = connection(&world);
    let mut clone = client.try_clone().unwrap();
    drop(client);
    clone.write_all(b"still here").unwrap();
    let mut room = [0; 10];
    server.read_exact(&mut room).unwrap();
    server.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(server.read(&mut room).unwrap_err().kind(), ErrorKind::WouldBlock, "it is open");
    drop(clone);
    server.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(server.read(&mut room).unwrap(), 0);
}

#[test]
fn many_clones_wait_for_the_same() {
    let world = World::new();
    let (listener, address) = listen(&world);
    thread::scope(|scope| {
        for _ in 0..100 {
            let listener = listener.try_clone().unwrap();
            scope.spawn(move || listener.accept().expect("a connection"));
        }
        let clients: Vec<_> = (0..100).map(|_| world.connect(address).expect("a connection")).collect();
        drop(clients);
    });
}

#[test]
fn an_unpark_of_the_application_is_not_lost() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    thread::current().unpark();
    let writer = thread::spawn(move || {
        server.write_all(b"x").unwrap();
        server
    });
    assert_eq!(client.read(&mut [0]).unwrap(), 1);
    // If the token were gone, this would wait for ever.
    thread::park();
    drop(writer.join());
}
