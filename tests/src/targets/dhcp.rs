//! Clients of DHCPv4 and DHCPv6, with servers that say anything.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::dhcp::{duid_ll, v4, v6};
use wirestack::random::Random;

/// A client of each, and a script: each step is a byte for its kind, a byte for a length, and that many bytes.
///
/// Kinds 0 and 1: a datagram as it is, for DHCPv4 and DHCPv6. Kinds 2 and 3: an answer to the last message,
/// with the type in the first byte and options in the rest. Kind 4: time passes. Kind 5: to the next deadline.
/// Kinds 6 and 7: the owner does something.
pub fn dhcp(bytes: &[u8]) {
    let mut now = Instant::from_secs(1);
    let mut clients = Clients::new(now);
    let mut rest = bytes;
    while let [kind, len, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        match kind % 8 {
            0 => clients.handle_v4(now, body),
            1 => clients.handle_v6(now, body),
            2 => clients.handle_v4(now, &clients.answer_v4(body)),
            3 => clients.handle_v6(now, &clients.answer_v6(body)),
            4 => now += Duration::from_secs(u64::from(*len) * u64::from(*len)),
            5 => now = clients.next_deadline().map_or(now, |deadline| deadline.max(now)),
            6 => {
                clients.v4.link_changed(now, len % 2 == 0);
                clients.v6.link_changed(now, len % 2 == 0);
            }
            _ => match len % 4 {
                0 => clients.v4.address_conflict(now),
                1 => clients.v4.release(),
                2 => clients.v4.start(now),
                _ => clients.v6.restart(now),
            },
        }
        clients.turn(now);
    }
}

struct Clients {
    v4: v4::Client,
    v6: v6::Client,
    sent_v4: Vec<u8>,
    sent_v6: Vec<u8>,
}

impl Clients {
    fn new(now: Instant) -> Self {
        Self {
            v4: v4::Client::new(v4::Config::default(), MAC, Random::new(1), now),
            v6: v6::Client::new(v6::Config::default(), MAC, Random::new(1), now),
            sent_v4: vec![0; 240],
            sent_v6: vec![0; 4],
        }
    }

    fn handle_v4(&mut self, now: Instant, payload: &[u8]) {
        let _ = self.v4.handle_datagram(now, SocketAddrV4::new(SERVER, v4::SERVER_PORT), payload);
    }

    fn handle_v6(&mut self, now: Instant, payload: &[u8]) {
        let from = SocketAddrV6::new(Ipv6Addr::LOCALHOST, v6::SERVER_PORT, 0, 0);
        let _ = self.v6.handle_datagram(now, from, payload);
    }

    /// The header of the last message as of an answer, the type, and the identifier of the server.
    fn answer_v4(&self, body: &[u8]) -> Vec<u8> {
        let (&message_type, options) = body.split_first().unwrap_or((&0, &[]));
        let mut answer = self.sent_v4[..240].to_vec();
        answer[0] = 2;
        answer[16..20].copy_from_slice(&OFFERED.octets());
        answer.extend([53, 1, message_type, 54, 4]);
        answer.extend(SERVER.octets());
        answer.extend(options);
        answer
    }

    /// The last transaction, and the identifiers of both.
    fn answer_v6(&self, body: &[u8]) -> Vec<u8> {
        let id = duid_ll(MAC);
        let (&message_type, options) = body.split_first().unwrap_or((&0, &[]));
        [&[message_type], &self.sent_v6[1..4], &[0, 1, 0, 10], &id, &[0, 2, 0, 1, 9], options].concat()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.v4.next_deadline().into_iter().chain(self.v6.next_deadline()).min()
    }

    fn turn(&mut self, now: Instant) {
        self.v4.handle_timeout(now);
        self.v6.handle_timeout(now);
        assert!(self.next_deadline().is_none_or(|deadline| deadline > now), "what is due was done");
        for _ in 0..=TRANSMITS_MAX {
            let Some(transmit) = self.v4.poll_transmit(now) else { break };
            assert!((300..=548).contains(&transmit.payload.len()));
            assert_eq!(transmit.payload[0], 1, "a request");
            self.sent_v4 = transmit.payload;
        }
        assert_eq!(self.v4.poll_transmit(now), None, "few messages");
        if let Some(transmit) = self.v6.poll_transmit(now) {
            self.sent_v6 = transmit.payload;
        }
        assert!(self.v4.lease().is_none_or(|lease| !lease.is_expired(now)));
        // Sometimes nobody asks for events: then they are few.
        if now.total_micros() % 2 == 0 {
            assert!(std::iter::from_fn(|| self.v4.poll_event()).count() <= EVENTS_MAX);
            assert!(std::iter::from_fn(|| self.v6.poll_event()).count() <= EVENTS_MAX);
        }
    }
}

/// A lease that is got, renewed and lost; settings that are got.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, body: &[u8]| [&[kind, body.len() as u8][..], body].concat();
    let options = [
        &[51, 4, 0, 0, 1, 0][..],
        &[1, 4, 255, 255, 255, 0],
        &[3, 4, 10, 0, 0, 1],
        &[121, 8, 24, 10, 1, 2, 10, 0, 0, 2],
        &[119, 8, 1, b'a', 1, b'b', 0, 1, b'c', 0],
        &[58, 4, 0, 0, 0, 99, 59, 4, 0, 0, 0, 199, 52, 1, 3, 255],
    ]
    .concat();
    let offer = step(2, &[&[2][..], &options].concat());
    let ack = step(2, &[&[5][..], &options].concat());
    let nak = step(2, &[6, 255]);
    let next = step(5, &[]);
    let settings = [
        &[7, 0, 23, 0, 16][..],
        &[0xfd; 16],
        &[0, 24, 0, 3, 1, b'a', 0, 0, 32, 0, 4, 0, 0, 9, 0, 0, 83, 0, 4, 0, 0, 0, 99],
    ]
    .concat();
    vec![
        [&next[..], &offer, &next, &ack, &next, &ack, &next, &next, &next, &nak, &next, &next].concat(),
        [&next[..], &offer, &ack, &step(6, &[0]), &step(6, &[]), &next, &ack, &step(7, &[]), &next].concat(),
        [&next[..], &next, &step(3, &settings), &step(4, &[0; 255]), &next, &next].concat(),
        [&next[..], &step(7, &[0; 3]), &step(0, &[2; 250]), &step(1, &[7; 40])].concat(),
    ]
}

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OFFERED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const TRANSMITS_MAX: usize = 4;
const EVENTS_MAX: usize = 16;
