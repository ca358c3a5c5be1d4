//! Datagrams.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use super::{UdpSocket, World};
use crate::pair::LONG;

const SHORT: Duration = Duration::from_millis(20);
const EDESTADDRREQ: i32 = 89;
const EMSGSIZE: i32 = 90;

fn sockets(world: &World) -> (UdpSocket, UdpSocket) {
    let server = world.udp_at(world.host().into(), 0).expect("a socket");
    let client = world.udp_of_client();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(LONG)).unwrap();
    }
    (server, client)
}

#[test]
fn datagrams_go_both_ways() {
    let world = World::new();
    let (server, client) = sockets(&world);
    let (to, from) = (server.local_addr().unwrap(), client.local_addr().unwrap());
    assert_eq!(client.send_to(b"question", to).unwrap(), 8);
    let mut room = [0; 100];
    assert_eq!(server.peek_from(&mut room).unwrap(), (8, from));
    assert_eq!(server.peek(&mut room[..3]).unwrap(), 3);
    assert_eq!(server.recv_from(&mut room).unwrap(), (8, from));
    assert_eq!(server.send_to(&[], from).unwrap(), 0);
    assert_eq!(client.recv_from(&mut room).unwrap(), (0, to), "nothing is something");
}

#[test]
fn what_does_not_fit_is_lost() {
    let world = World::new();
    let (server, client) = sockets(&world);
    let to = server.local_addr().unwrap();
    client.send_to(b"much", to).unwrap();
    client.send_to(b"more", to).unwrap();
    let mut room = [0; 2];
    assert_eq!(server.recv(&mut room).unwrap(), 2);
    assert_eq!(&room, b"mu");
    assert_eq!(server.recv(&mut room).unwrap(), 2);
    assert_eq!(&room, b"mo");
    let long = vec![7; 20_000];
    client.send_to(&long, to).unwrap();
    let mut room = vec![0; 65_536];
    assert_eq!(server.recv(&mut room).unwrap(), long.len());
    assert!(room[..long.len()] == long);
}

#[test]
fn who_is_connected_hears_of_one_only() {
    let world = World::new();
    let (server, client) = sockets(&world);
    let (other, to) = (world.udp_of_client(), server.local_addr().unwrap());
    assert_eq!(server.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    server.connect(client.local_addr().unwrap()).unwrap();
    client.connect(to).unwrap();
    assert_eq!(client.peer_addr().unwrap(), to);
    other.send_to(b"other", to).unwrap();
    client.send(b"mine").unwrap();
    let mut room = [0; 9];
    assert_eq!(server.recv(&mut room).unwrap(), 4);
    assert_eq!(&room[..4], b"mine");
    server.send(b"back").unwrap();
    assert_eq!(client.recv(&mut room).unwrap(), 4);
}

#[test]
fn a_closed_port_refuses() {
    let world = World::new();
    let (server, client) = sockets(&world);
    let to = server.local_addr().unwrap();
    drop(server);
    client.connect(to).unwrap();
    // By receiving, and once.
    client.send(b"x").unwrap();
    assert_eq!(client.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    client.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(client.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // By sending.
    let error = loop {
        if let Err(error) = client.send(b"x") {
            break error;
        }
        thread::yield_now();
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // By asking, with time for the answer to come: the next datagram would be told of it, and not we.
    let error = 'asked: loop {
        let _ = client.send(b"x");
        for _ in 0..100 {
            if let Some(error) = client.take_error().unwrap() {
                break 'asked error;
            }
            thread::sleep(Duration::from_millis(1));
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_cannot_be_sent() {
    let world = World::new();
    let (server, client) = sockets(&world);
    assert_eq!(client.send(b"x").unwrap_err().raw_os_error(), Some(EDESTADDRREQ));
    let to = server.local_addr().unwrap();
    let too_long = client.send_to(&vec![0; 65_508], to);
    assert_eq!(too_long.unwrap_err().raw_os_error(), Some(EMSGSIZE));
    let no_port = client.send_to(b"x", (to.ip(), 0));
    assert_eq!(no_port.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_timeout_and_not_blocking() {
    let world = World::new();
    let (_, client) = sockets(&world);
    assert_eq!(client.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(client.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let clone = client.try_clone().unwrap();
    clone.set_read_timeout(Some(SHORT)).unwrap();
    clone.set_write_timeout(Some(SHORT)).unwrap();
    assert_eq!(client.read_timeout().unwrap(), Some(SHORT));
    assert_eq!(client.write_timeout().unwrap(), Some(SHORT));
    assert_eq!(client.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(client.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    clone.set_read_timeout(None).unwrap();
    clone.set_nonblocking(true).unwrap();
    assert_eq!(client.recv_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(client.peek_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn addresses_are_taken_and_given_back() {
    let world = World::new();
    let (server, _) = sockets(&world);
    let address = server.local_addr().unwrap();
    let again = world.udp_at(address.ip(), address.port());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    let foreign: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    assert_eq!(world.udp_at(foreign, 0).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let clone = server.try_clone().unwrap();
    drop(server);
    let again = world.udp_at(address.ip(), address.port());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse, "a clone is left");
    drop(clone);
    world.udp_at(address.ip(), address.port()).expect("it is free again");
}

#[test]
fn settings_are_kept() {
    let world = World::new();
    let (socket, _) = sockets(&world);
    assert_eq!((socket.ttl().unwrap(), socket.multicast_ttl_v4().unwrap()), (64, 1));
    socket.set_ttl(200).unwrap();
    socket.set_multicast_ttl_v4(0).unwrap();
    assert_eq!((socket.ttl().unwrap(), socket.multicast_ttl_v4().unwrap()), (200, 0));
    for wrong in [0, 256] {
        assert_eq!(socket.set_ttl(wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(socket.set_multicast_ttl_v4(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(socket.multicast_loop_v4().unwrap());
    socket.set_multicast_loop_v4(false).unwrap();
    assert!(!socket.multicast_loop_v4().unwrap());
    assert!(!socket.broadcast().unwrap());
    socket.set_broadcast(true).unwrap();
    assert!(socket.broadcast().unwrap());
    assert!(socket.take_error().unwrap().is_none());
}

#[test]
fn groups_are_joined_and_left() {
    let world = World::new();
    let (socket, _) = sockets(&world);
    let (group, here) = (Ipv4Addr::new(239, 1, 2, 3), world.host());
    socket.join_multicast_v4(&group, &here).unwrap();
    assert_eq!(socket.join_multicast_v4(&group, &here).unwrap_err().kind(), ErrorKind::AddrInUse);
    socket.leave_multicast_v4(&group, &here).unwrap();
    assert_eq!(socket.leave_multicast_v4(&group, &here).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let no_group = Ipv4Addr::new(10, 9, 9, 9);
    assert_eq!(socket.join_multicast_v4(&no_group, &here).unwrap_err().kind(), ErrorKind::InvalidInput);
}
