//! How connections end, and what is told of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use super::{TcpListener, TcpStream, World, reset};
use crate::pair::LONG;

fn listen(world: &World) -> (TcpListener, SocketAddr) {
    let listener = world.listen_at(world.host().into(), 0).expect("a listener");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn connection(world: &World) -> (TcpStream, TcpStream) {
    let (listener, address) = listen(world);
    let client = world.connect(address).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    for end in [&client, &server] {
        end.set_read_timeout(Some(LONG)).expect("a timeout");
    }
    (client, server)
}

fn read(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    stream.read(&mut [0; 100]).map_err(|error| error.kind())
}

fn write(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    stream.write(b"some").map_err(|error| error.kind())
}

/// Writes until that fails: when the peer has gone is not known from here.
fn write_until_it_fails(mut stream: &TcpStream) -> ErrorKind {
    let data = vec![0; 100_000];
    loop {
        if let Err(error) = stream.write(&data) {
            return error.kind();
        }
    }
}

#[test]
fn nobody_listens() {
    let world = World::new();
    let (listener, address) = listen(&world);
    drop(listener);
    assert_eq!(world.connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(world.connect_timeout(address, LONG).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let no_port = SocketAddr::new(address.ip(), 0);
    assert_eq!(world.connect(no_port).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let zero = world.connect_timeout(address, Duration::ZERO);
    assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
    let group = SocketAddr::new(Ipv4Addr::new(224, 0, 0, 1).into(), 80);
    assert_eq!(world.connect(group).unwrap_err().kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn half_of_it_is_closed() {
    let world = World::new();
    let (mut client, mut server) = connection(&world);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
    let mut question = Vec::new();
    server.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    // Both have finished: there is no connection any more.
    assert_eq!(client.shutdown(Shutdown::Write).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(client.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(client.local_addr().is_ok());
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
    assert_eq!(read(&client), Ok(0));
    assert!(client.take_error().unwrap().is_none());
}

#[test]
fn reading_is_shut_down() {
    let world = World::new();
    let (client, server) = connection(&world);
    assert_eq!(write(&server), Ok(4));
    client.peek(&mut [0]).unwrap();
    client.shutdown(Shutdown::Read).unwrap();
    assert_eq!(read(&client), Ok(4), "what has come is there");
    assert_eq!(read(&client), Ok(0));
    assert_eq!(write(&client), Ok(4), "the other direction is open");
    assert_eq!(read(&server), Ok(4));
}

#[test]
fn shutting_down_wakes_who_reads() {
    let world = World::new();
    for how in [Shutdown::Read, Shutdown::Both] {
        let (client, server) = connection(&world);
        let clone = client.try_clone().unwrap();
        let reader = thread::spawn(move || read(&clone));
        client.shutdown(how).unwrap();
        assert_eq!(reader.join().unwrap(), Ok(0));
        if how == Shutdown::Both {
            assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
            assert_eq!(read(&server), Ok(0));
        }
    }
}

#[test]
fn a_reset_ends_a_read() {
    let world = World::new();
    let (client, server) = connection(&world);
    let clone = client.try_clone().unwrap();
    let reader = thread::spawn(move || read(&clone));
    reset(server);
    assert_eq!(reader.join().unwrap(), Err(ErrorKind::ConnectionReset));
    // It is told once.
    assert_eq!(read(&client), Ok(0));
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
    assert!(client.take_error().unwrap().is_none());
    assert_eq!(client.shutdown(Shutdown::Both).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(client.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_reset_ends_a_write() {
    let world = World::new();
    let (client, server) = connection(&world);
    let clone = client.try_clone().unwrap();
    let writer = thread::spawn(move || write_until_it_fails(&clone));
    server.peek(&mut [0]).unwrap();
    reset(server);
    assert_eq!(writer.join().unwrap(), ErrorKind::ConnectionReset);
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
    assert_eq!(read(&client), Ok(0));
}

#[test]
fn a_reset_behind_data() {
    let world = World::new();
    let (client, server) = connection(&world);
    assert_eq!(write(&server), Ok(4));
    client.peek(&mut [0]).unwrap();
    reset(server);
    let error = loop {
        match client.take_error().unwrap() {
            Some(error) => break error,
            None => thread::yield_now(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(client.take_error().unwrap().is_none());
    assert_eq!(read(&client), Ok(4), "what has come before is there");
    assert_eq!(read(&client), Ok(0), "it was told");
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
}

#[test]
fn a_reset_after_our_end() {
    let world = World::new();
    let (client, server) = connection(&world);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(&server), Ok(0));
    reset(server);
    assert_eq!(read(&client), Err(ErrorKind::ConnectionReset));
    assert_eq!(read(&client), Ok(0));
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
}

#[test]
fn a_reset_after_the_peers_end() {
    let world = World::new();
    let (client, server) = connection(&world);
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(&client), Ok(0));
    reset(server);
    let error = loop {
        match client.take_error().unwrap() {
            Some(error) => break error,
            None => thread::yield_now(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(read(&client), Ok(0), "the end came before");
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
}

#[test]
fn a_reset_while_it_waits_to_be_accepted() {
    let world = World::new();
    let (listener, address) = listen(&world);
    let client = world.connect(address).expect("a connection");
    let local = client.local_addr().unwrap();
    reset(client);
    let (server, peer) = listener.accept().expect("it is accepted in any case");
    assert_eq!(peer, local);
    assert_eq!(read(&server), Err(ErrorKind::ConnectionReset));
}

#[test]
fn who_waits_has_gone_in_good_order() {
    let world = World::new();
    let (listener, address) = listen(&world);
    let client = world.connect(address).expect("a connection");
    assert_eq!(write(&client), Ok(4));
    drop(client);
    let (server, _) = listener.accept().expect("a connection");
    assert_eq!(read(&server), Ok(4));
    assert_eq!(read(&server), Ok(0));
}

#[test]
fn writing_to_who_has_gone() {
    let world = World::new();
    for has_read in [true, false] {
        let (client, server) = connection(&world);
        drop(server);
        if has_read {
            assert_eq!(read(&client), Ok(0));
        } else {
            // The FIN is there, and stays to be read.
            client.peek(&mut [0]).unwrap();
        }
        assert_eq!(write(&client), Ok(4), "nobody knows yet");
        assert_eq!(write_until_it_fails(&client), ErrorKind::BrokenPipe);
        assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
        assert_eq!(read(&client), Ok(0));
    }
}

#[test]
fn what_nobody_reads_makes_a_reset() {
    let world = World::new();
    let (client, server) = connection(&world);
    assert_eq!(write(&client), Ok(4));
    server.peek(&mut [0]).unwrap();
    drop(server);
    assert_eq!(read(&client), Err(ErrorKind::ConnectionReset));
    assert_eq!(write(&client), Err(ErrorKind::BrokenPipe));
}

#[test]
fn who_was_not_accepted_is_reset() {
    let world = World::new();
    let (listener, address) = listen(&world);
    let clients: Vec<_> = (0..3).map(|_| world.connect(address).expect("a connection")).collect();
    // The last step of a handshake may be on its way still.
    clients.iter().for_each(|client| assert_eq!(write(client), Ok(4)));
    drop(listener);
    for client in clients {
        assert_eq!(read(&client), Err(ErrorKind::ConnectionReset));
    }
}
