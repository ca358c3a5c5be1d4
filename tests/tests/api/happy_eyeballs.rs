//! Connecting to one of several addresses, and names.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use wirestack::blocking::{TcpListener, TcpStream, UdpSocket};

use crate::pair::{NOBODY, Pair, SERVER, at_server, sockets_len};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn who_does_not_answer_is_passed_over() {
    let pair = Pair::new();
    let listener = TcpListener::bind_on(pair.server(), at_server(7)).unwrap();
    let addresses = [SocketAddr::new(NOBODY, 7), at_server(7), SocketAddr::new(NOBODY, 8)];
    let begun = Instant::now();
    let stream = block_on(pair.client().connect_any(&addresses)).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(250), "the first one has its time");
    assert_eq!(stream.peer_addr().unwrap(), at_server(7));
    assert_eq!(sockets_len(pair.client()), 1, "the others are closed");
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer, stream.local_addr().unwrap());
    drop(stream);
}

#[test]
fn who_refuses_costs_no_time() {
    let pair = Pair::new();
    let _listener = TcpListener::bind_on(pair.server(), at_server(7)).unwrap();
    let mut addresses: Vec<_> = (100..114).map(at_server).collect();
    addresses.push(at_server(7));
    let stream = block_on(pair.client().connect_any(&addresses)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), at_server(7));
}

#[test]
fn the_last_failure_is_told() {
    let pair = Pair::new();
    let group: SocketAddr = "224.0.0.1:7".parse().unwrap();
    let failed =
        |addresses: &[SocketAddr]| block_on(pair.client().connect_any(addresses)).unwrap_err().kind();
    assert_eq!(failed(&[at_server(7), group]), ErrorKind::NetworkUnreachable);
    assert_eq!(failed(&[group, at_server(7)]), ErrorKind::ConnectionRefused);
    assert_eq!(failed(&[]), ErrorKind::InvalidInput);
    assert_eq!(sockets_len(pair.client()), 0);
}

/// A name server: one name has a dead IPv6 address and a living IPv4 one, others do not exist.
fn serve_names(socket: &UdpSocket) {
    let mut room = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut room) {
        let query = &room[..len];
        // The name ends with an empty label; type and class follow.
        let labels = query[12..].iter().position(|&byte| byte == 0).unwrap() + 13;
        let is_known = query[12..].starts_with(b"\x04both\x07example");
        let data: &[u8] = match query[labels + 1] {
            1 => &[10, 0, 0, 1],
            _ => &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77],
        };
        let mut answer = query[..labels + 4].to_vec();
        (answer[2], answer[3]) = (0x84, if is_known { 0 } else { 3 });
        (answer[7], answer[9], answer[11]) = (u8::from(is_known), 0, 0);
        if is_known {
            answer.extend_from_slice(&[0xc0, 12]);
            answer.extend_from_slice(&query[labels..labels + 4]);
            answer.extend_from_slice(&[0, 0, 0, 60, 0, data.len() as u8]);
            answer.extend_from_slice(data);
        }
        if socket.send_to(&answer, from).is_err() {
            return;
        }
    }
}

#[test]
fn names_are_connected_to() {
    let pair = Pair::with(|config| {
        config.dns.servers = vec![SocketAddr::new(SERVER, 53)];
        // One that is tried before IPv4 (RFC 6724), unlike those of private networks.
        let global = format!("2001:db8::{}/64", config.seed);
        config.addresses.push(global.parse().expect("an address"));
    });
    let socket = UdpSocket::bind_on(pair.server(), (SERVER, 53)).unwrap();
    let names = thread::spawn(move || serve_names(&socket));
    let listener = TcpListener::bind_on(pair.server(), at_server(7)).unwrap();
    let found = block_on(pair.client().lookup("both.example")).unwrap();
    let dead: IpAddr = "2001:db8::77".parse().unwrap();
    assert_eq!(found, [dead, SERVER]);
    let stream = TcpStream::connect_on(pair.client(), "both.example:7").unwrap();
    assert_eq!(stream.peer_addr().unwrap(), at_server(7));
    listener.accept().unwrap();
    let nobody = TcpStream::connect_on(pair.client(), ("nobody.example", 7));
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::NotFound);
    for wrong in ["both.example", "both.example:x", ":7", "fd00::1:7:7:zz"] {
        let error = TcpStream::connect_on(pair.client(), wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
    }
    // The end of its stack ends the server.
    drop(pair);
    names.join().unwrap();
}
