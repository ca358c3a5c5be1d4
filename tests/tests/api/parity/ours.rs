//! Ours, from one stack to another.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) use wirestack::blocking::{TcpListener, TcpStream, UdpSocket};

use crate::pair::{CLIENT, Pair};

#[path = "tcp.rs"]
mod tcp;
#[path = "tcp_ends.rs"]
mod tcp_ends;
#[path = "udp.rs"]
mod udp;

/// Who listens is one stack, and who connects the other.
#[derive(Debug)]
struct World {
    pair: Pair,
}

impl World {
    fn new() -> Self {
        Self { pair: Pair::new() }
    }

    fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, 1)
    }

    fn listen_at(&self, ip: IpAddr, port: u16) -> io::Result<TcpListener> {
        TcpListener::bind_on(self.pair.server(), (ip, port))
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_on(self.pair.client(), address)
    }

    fn connect_timeout(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout_on(self.pair.client(), &address, timeout)
    }

    fn udp_at(&self, ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
        UdpSocket::bind_on(self.pair.server(), (ip, port))
    }

    fn udp_of_client(&self) -> UdpSocket {
        UdpSocket::bind_on(self.pair.client(), (CLIENT, 0)).expect("a socket")
    }
}

fn reset(stream: TcpStream) {
    stream.set_linger(Some(Duration::ZERO)).expect("a time to linger");
}
