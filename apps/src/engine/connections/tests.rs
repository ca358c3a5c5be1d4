//! Handlers that break, and those beside them.

use std::io::ErrorKind;
use std::time::Duration;

use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::nic::loopback::{Loopback, LoopbackConfig};
use wirestack::nic::wait;
use wirestack::poll::{Events, Poll, TcpId, Token};
use wirestack::shard::ShardConfig;
use wirestack::smoltcp::wire::EthernetAddress;

use super::*;

/// Sends back what comes, but for what it cannot stand.
struct Fragile;

impl Handler for Fragile {
    fn ready(&mut self, stream: &mut dyn Stream) {
        let mut bytes = Vec::new();
        stream.recv_with(&mut |came| {
            bytes.extend_from_slice(came);
            came.len()
        });
        assert!(!bytes.contains(&b'!'), "that is too much");
        stream.send(&bytes);
    }
}

fn config(number: u8) -> ShardConfig {
    let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, number]));
    config.neighbor.probes = AddressProbes::None;
    config.address(parse_cidr(&format!("10.0.0.{number}/24")).expect("an address"))
}

/// A server on one end of a wire, and a client on the other.
struct Pair {
    shard: Shard,
    nic: Loopback<'static>,
    connections: Connections,
    client: Poll<Loopback<'static>>,
}

impl Pair {
    fn new(connections_max: usize) -> Self {
        let (near, nic) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
        let mut shard = Shard::new(config(2), wait::now()).expect("a configuration");
        let mut connections = Connections::new(connections_max, shard.now());
        let listening = Listening { port: 7, accept: Box::new(|_| Box::new(Fragile)) };
        connections.listen(&mut shard, listening, &TcpArgs::default()).expect("a free port");
        Self { shard, nic, connections, client: Poll::new(near, config(1)).expect("a configuration") }
    }

    fn connect(&mut self) -> TcpId {
        let at = "10.0.0.2:7".parse().expect("an address");
        self.client.sockets().tcp_connect(at, Token(0)).expect("begun")
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(16);
        self.client.poll(&mut events, Some(Duration::ZERO)).expect("it is there");
        let Self { shard, nic, connections, .. } = self;
        shard.turn(wait::now(), nic, |shard| connections.serve(shard));
    }

    /// What comes back, or why nothing does.
    fn answer(&mut self, id: TcpId, bytes: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        let (mut sent, mut back) = (0, Vec::new());
        for _ in 0..100_000 {
            self.turn();
            let mut sockets = self.client.sockets();
            if sent < bytes.len() {
                match sockets.send(id, &bytes[sent..]) {
                    Ok(len) => sent += len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.kind()),
                }
            }
            let mut room = [0; 64];
            match sockets.recv(id, &mut room) {
                Ok(len) => back.extend_from_slice(&room[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.kind()),
            }
            if back.len() == bytes.len() {
                return Ok(back);
            }
        }
        Err(ErrorKind::TimedOut)
    }
}

#[test]
fn a_handler_that_panics_ends_its_connection_and_nothing_else() {
    let mut pair = Pair::new(2);
    let (fine, fragile) = (pair.connect(), pair.connect());
    assert_eq!(pair.answer(fine, b"one"), Ok(b"one".to_vec()));
    assert_eq!(pair.answer(fragile, b"two"), Ok(b"two".to_vec()));
    assert_eq!(pair.connections.len(), 2);
    assert_eq!(pair.answer(fragile, b"three!"), Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.connections.len(), 1, "its place is free");
    assert_eq!(pair.answer(fine, b"four"), Ok(b"four".to_vec()));
    // Somebody else gets the place, and the socket.
    let next = pair.connect();
    assert_eq!(pair.answer(next, b"five"), Ok(b"five".to_vec()));
    assert_eq!(pair.answer(next, b"!"), Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.answer(fine, b"six"), Ok(b"six".to_vec()));
    assert_eq!(pair.connections.named(), [("accepted", 3), ("held_back", 0)]);
    assert_eq!(pair.shard.tcp_counters().resets_sent, 2);
}
