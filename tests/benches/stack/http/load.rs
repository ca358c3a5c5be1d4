//! The load: connections that are kept open, each with a request under way, over our own stack.

use std::time::{Duration, Instant};

use smoltcp::wire::IpCidr;
use wirestack::neighbor::AddressProbes;
use wirestack::poll::{Event, Poll, Sockets, TcpId, Token};
use wirestack::shard::ShardConfig;
use wirestack_apps::testbed::{IPV4_PREFIX_LEN, PEER_IPV4, Wire};
use wirestack_nic::{AfPacket, AfPacketConfig};

use super::{LOAD_CORE, server};
use crate::table::pin;
use crate::wire::End;

/// As wrk asks.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n";
/// How long it is measured, after a quarter of that to warm up.
const TIME: Duration = Duration::from_millis(1_500);

/// Requests a second.
pub(super) fn run(wire: &Wire, connections: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let end = End::new(wire.peer(), PEER_IPV4.into(), IPV4_PREFIX_LEN);
    let rate = wire.at_peer(move || {
        pin(LOAD_CORE);
        let mut config = ShardConfig::new(end.mac).address(IpCidr::new(end.address.into(), IPV4_PREFIX_LEN));
        config.neighbor.probes = AddressProbes::None;
        config.tcp.options.nagle = wirestack::tcp::Nagle::Off;
        let nic = AfPacket::open(&end.name, AfPacketConfig::default()).expect("a device");
        let mut poll = Poll::new(nic, config).expect("a configuration");
        let mut load =
            Load { clients: vec![Client::default(); connections], answers: 0, answer_len: None, failures: 0 };
        for number in 0..connections {
            poll.sockets().tcp_connect(server::address(), Token(number)).expect("a way");
        }
        load.run(&mut poll, TIME / 4);
        let (before, start) = (load.answers, Instant::now());
        load.run(&mut poll, TIME);
        let rate = (load.answers - before) as f64 / start.elapsed().as_secs_f64();
        (rate, load.failures)
    });
    match rate {
        (rate, 0) if rate > 0.0 => Ok(rate),
        (rate, failures) => Err(format!("{rate} requests a second, and {failures} failures").into()),
    }
}

struct Load {
    clients: Vec<Client>,
    answers: u64,
    /// Known after the first one: all are the same.
    answer_len: Option<usize>,
    failures: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Client {
    has_asked: bool,
    /// Bytes of the answer that have come.
    received: usize,
}

impl Load {
    fn run(&mut self, poll: &mut Poll<AfPacket<'static>>, time: Duration) {
        let time = smoltcp::time::Duration::from_micros(time.as_micros() as u64);
        let end = poll.sockets().now() + time;
        poll.sockets().set_timer(STOP, end);
        let served = poll.run(|sockets, event| match event.tcp() {
            Some(_) if event.closed || event.peer_finished => self.failures += 1,
            Some(tcp) => self.serve(sockets, tcp, event),
            None => sockets.stop(),
        });
        served.expect("the wire is there");
    }

    fn serve(&mut self, sockets: &mut Sockets<'_>, tcp: TcpId, event: Event) {
        let client = &mut self.clients[event.token.0];
        if !client.has_asked && event.connected {
            client.has_asked = true;
            sockets.send(tcp, REQUEST).expect("room");
            return;
        }
        let answer_len = match self.answer_len {
            Some(len) => len,
            None => match sockets.recv_with(tcp, |piece| (0, whole_len(piece))) {
                Ok(Some(len)) => *self.answer_len.insert(len),
                _ => return,
            },
        };
        while let Ok(len) = sockets.recv_with(tcp, |piece| (piece.len(), piece.len())) {
            client.received += len;
        }
        if client.received >= answer_len {
            assert_eq!(client.received, answer_len, "one question is under way");
            client.received = 0;
            self.answers += 1;
            sockets.send(tcp, REQUEST).expect("room");
        }
    }
}

/// Bytes of a whole answer.
fn whole_len(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    (body == "Hello, world!").then_some(bytes.len())
}

const STOP: Token = Token(usize::MAX);
