//! Echo (RFC 862) over TCP and UDP, on one thread: `cargo run --example poll_echo eth0 10.0.0.2/24`.

use std::error::Error;
use std::io;

use wirestack::config::parse_cidr;
use wirestack::nic::{AfPacket, AfPacketConfig};
use wirestack::poll::{Poll, Sockets, Source, TcpId, Token, UdpId};
use wirestack::shard::ShardConfig;

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// The program, with its arguments.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [interface, cidr] = args else { return Err("IFNAME and CIDR are accepted".into()) };
    let nic = AfPacket::open(interface, AfPacketConfig::default())?;
    let config = ShardConfig::new(nic.interface().mac).address(parse_cidr(cidr)?);
    let mut poll = Poll::new(nic, config)?;
    poll.sockets().tcp_listen("[::]:7".parse()?, Token(0))?;
    poll.sockets().udp_bind("[::]:7".parse()?, Token(1))?;
    println!("ready echo");
    poll.run(|sockets, event| match event.source {
        Source::Listener(listener) => while sockets.accept(listener).is_some() {},
        Source::Udp(udp) => while datagram(sockets, udp).is_ok() {},
        Source::Tcp(tcp) => match stream(sockets, tcp) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // an event comes when it goes on
            _ => sockets.close(tcp),
        },
        Source::Timer | Source::Waker => {}
    })?;
    Ok(())
}

/// Sends back what comes, until the peer has finished.
fn stream(sockets: &mut Sockets<'_>, tcp: TcpId) -> io::Result<()> {
    let mut room = [0; 16_384];
    loop {
        let len = sockets.peek(tcp, &mut room)?;
        if len == 0 {
            return Ok(());
        }
        // What finds no room stays where it is, and closes the peer's window.
        let sent = sockets.send(tcp, &room[..len])?;
        sockets.recv(tcp, &mut room[..sent])?;
    }
}

fn datagram(sockets: &mut Sockets<'_>, udp: UdpId) -> io::Result<()> {
    let (payload, from) = sockets.udp_recv_with(udp, |meta, payload| (payload.to_vec(), meta.src))?;
    sockets.udp_send_to(udp, &payload, from)
}
