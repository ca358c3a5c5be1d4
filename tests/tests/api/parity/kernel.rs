//! `std::net` over the kernel's loopback interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) use std::net::{TcpListener, TcpStream, UdpSocket};

#[path = "tcp.rs"]
mod tcp;
#[path = "tcp_ends.rs"]
mod tcp_ends;
#[path = "udp.rs"]
mod udp;

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// One kernel is both ends.
#[derive(Debug)]
struct World;

impl World {
    fn new() -> Self {
        Self
    }

    fn host(&self) -> Ipv4Addr {
        HOST
    }

    fn listen_at(&self, ip: IpAddr, port: u16) -> io::Result<TcpListener> {
        TcpListener::bind((ip, port))
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address)
    }

    fn connect_timeout(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&address, timeout)
    }

    fn udp_at(&self, ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
        UdpSocket::bind((ip, port))
    }

    fn udp_of_client(&self) -> UdpSocket {
        UdpSocket::bind((HOST, 0)).expect("a socket")
    }
}

/// std's is not stable yet.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a time to linger");
}
