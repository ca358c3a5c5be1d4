//! A page for whoever asks, on one thread: `cargo run --example poll_http eth0 10.0.0.2/24`.

use std::error::Error;
use std::io;

use wirestack::config::parse_cidr;
use wirestack::nic::{AfPacket, AfPacketConfig};
use wirestack::poll::{Poll, Sockets, Source, TcpId, Token};
use wirestack::shard::ShardConfig;

const PAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, world!\n";
const REFUSAL: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// The program, with its arguments.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [interface, cidr] = args else { return Err("IFNAME and CIDR are accepted".into()) };
    let nic = AfPacket::open(interface, AfPacketConfig::default())?;
    let config = ShardConfig::new(nic.interface().mac).address(parse_cidr(cidr)?);
    let mut poll = Poll::new(nic, config)?;
    poll.sockets().tcp_listen("[::]:80".parse()?, Token(0))?;
    println!("ready http");
    poll.run(|sockets, event| match event.source {
        Source::Listener(listener) => while sockets.accept(listener).is_some() {},
        Source::Tcp(tcp) => match answer(sockets, tcp, event.peer_finished) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // an event comes when it goes on
            _ => sockets.close(tcp),
        },
        _ => {}
    })?;
    Ok(())
}

/// Answers every request that has come whole, in the turn in which it came.
fn answer(sockets: &mut Sockets<'_>, tcp: TcpId, peer_finished: bool) -> io::Result<()> {
    let mut room = [0; 4_096];
    loop {
        let len = sockets.peek(tcp, &mut room)?;
        let end = room[..len].windows(4).position(|window| window == b"\r\n\r\n");
        match end {
            // All of the answer finds room, or none of it, and then the question stays.
            Some(end) if sockets.send_owned(tcp, PAGE.to_vec())?.is_none() => {
                sockets.recv(tcp, &mut room[..end + 4])?;
            }
            None if len == room.len() => return sockets.send(tcp, REFUSAL).map(drop),
            None if len == 0 || peer_finished => return Ok(()),
            _ => return Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
