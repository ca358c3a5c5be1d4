//! A client and scripted servers, in virtual time.

use std::net::SocketAddrV4;

use proptest::prelude::*;
use smoltcp::time::Duration;

use super::*;
use crate::observe::reason::DropReason;
use crate::random::Random;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OFFERED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

/// A client, and what time it is.
struct Bed {
    client: Client,
    now: Instant,
}

impl Bed {
    fn new(config: Config) -> Self {
        let now = Instant::from_secs(1000);
        Self { client: Client::new(config, MAC, Random::new(7), now), now }
    }

    /// A client that has a lease of this many seconds.
    fn bound(seconds: u32) -> Self {
        let mut bed = Self::new(Config::default());
        let discover = bed.next_message();
        bed.offer_and_ack(&discover, seconds);
        assert!(matches!(bed.client.poll_event(), Some(Event::Bound(_))));
        bed
    }

    fn offer_and_ack(&mut self, discover: &Transmit, seconds: u32) {
        self.handle(&reply(discover, OFFER, OFFERED, &lease_options(SERVER, seconds))).unwrap();
        let request = self.next_message();
        self.handle(&reply(&request, ACK, OFFERED, &lease_options(SERVER, seconds))).unwrap();
        assert_eq!(self.client.state(), State::Bound);
    }

    fn handle(&mut self, payload: &[u8]) -> Result<(), DropReason> {
        self.client.handle_datagram(self.now, SocketAddrV4::new(SERVER, SERVER_PORT), payload)
    }

    /// The next message; time goes on until there is one.
    fn next_message(&mut self) -> Transmit {
        for _ in 0..20 {
            if let Some(transmit) = self.client.poll_transmit(self.now) {
                return transmit;
            }
            self.now = self.client.next_deadline().expect("there is something to do").max(self.now);
            self.client.handle_timeout(self.now);
        }
        panic!("no message: {:?}", self.client.snapshot());
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.client.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.client.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }
}

fn lease_options(server: Ipv4Addr, seconds: u32) -> Vec<(u8, Vec<u8>)> {
    vec![
        (54, server.octets().to_vec()),
        (51, seconds.to_be_bytes().to_vec()),
        (1, vec![255, 255, 255, 0]),
        (3, server.octets().to_vec()),
    ]
}

fn encode(options: &[(u8, Vec<u8>)]) -> Vec<u8> {
    options.iter().flat_map(|(kind, data)| [&[*kind, data.len() as u8][..], data].concat()).collect()
}

/// What a server says to a message.
fn reply(to: &Transmit, message_type: u8, your: Ipv4Addr, options: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = to.payload[..240].to_vec();
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&your.octets());
    bytes.extend([53, 1, message_type]);
    bytes.extend(encode(options));
    bytes.push(255);
    bytes
}

fn option(message: &Transmit, kind: u8) -> Option<Vec<u8>> {
    let mut rest = &message.payload[240..];
    while let [code, tail @ ..] = rest {
        match code {
            0 => rest = tail,
            255 => return None,
            _ => {
                let (data, tail) = tail[1..].split_at(tail[0].into());
                if *code == kind {
                    return Some(data.to_vec());
                }
                rest = tail;
            }
        }
    }
    None
}

fn message_type(message: &Transmit) -> u8 {
    option(message, 53).unwrap()[0]
}

fn secs(message: &Transmit) -> u16 {
    u16::from_be_bytes([message.payload[8], message.payload[9]])
}

#[test]
fn a_lease_is_got_in_four_messages() {
    let mut bed = Bed::new(Config { hostname: Some("host".into()), ..Config::default() });
    assert_eq!(bed.client.state(), State::Init);
    let discover = bed.next_message();
    assert_eq!(bed.now, Instant::from_secs(1000), "at once");
    assert_eq!((discover.src, discover.dst), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    assert_eq!(message_type(&discover), DISCOVER);
    assert!(discover.payload.len() >= 300);
    assert_eq!(discover.payload[10], 0x80, "the broadcast flag");
    assert_eq!(option(&discover, 61), Some(vec![1, 2, 0, 0, 0, 0, 7]));
    assert_eq!(option(&discover, 12), Some(b"host".to_vec()));
    assert_eq!(option(&discover, 55), Some(vec![1, 121, 3, 6, 15, 119, 26, 28, 51, 58, 59]));
    assert_eq!(bed.client.state(), State::Selecting);
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    let request = bed.next_message();
    assert_eq!(message_type(&request), REQUEST);
    assert_eq!(option(&request, 50), Some(OFFERED.octets().to_vec()));
    assert_eq!(option(&request, 54), Some(SERVER.octets().to_vec()));
    assert_eq!(request.payload[4..10], discover.payload[4..10], "the same xid and secs");
    assert_eq!(request.payload[12..16], [0; 4], "no ciaddr");
    let mut options = lease_options(SERVER, 3600);
    options.extend([(6, vec![10, 0, 0, 3, 0, 0, 0, 0, 10, 0, 0, 4]), (15, b"example.org\0".to_vec())]);
    options.extend([(119, b"\x01a\x07example\x00\x01b\xc0\x02".to_vec()), (26, vec![5, 0xdc])]);
    bed.handle(&reply(&request, ACK, OFFERED, &options)).unwrap();
    let lease = bed.client.lease().unwrap().clone();
    assert_eq!(bed.events(), [Event::Bound(lease.clone())]);
    assert_eq!(lease.address.to_string(), "10.0.0.50/24");
    assert_eq!(lease.routers, [SERVER]);
    assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(10, 0, 0, 4)]);
    assert_eq!(lease.domain.as_deref(), Some("example.org"));
    assert_eq!(lease.search, ["a.example", "b.example"]);
    assert_eq!(lease.mtu, Some(1500));
    assert_eq!(lease.expires, Some(bed.now + Duration::from_secs(3600)));
    let (t1, t2) = (lease.t1.unwrap() - bed.now, lease.t2.unwrap() - bed.now);
    assert!((1680..=1800).contains(&t1.secs()), "{t1}");
    assert!((3060..=3150).contains(&t2.secs()), "{t2}");
}

#[test]
fn a_request_has_the_secs_of_its_discover_however_late_the_offer_is() {
    let mut bed = Bed::new(Config::default());
    bed.next_message();
    let discover = bed.next_message();
    assert!((3..=5).contains(&secs(&discover)));
    bed.wait(2);
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    for attempt in 0..2 {
        let request = bed.next_message();
        assert_eq!(message_type(&request), REQUEST);
        assert_eq!(secs(&request), secs(&discover), "{attempt}");
    }
}

#[test]
fn discover_backs_off_up_to_64_seconds() {
    let mut bed = Bed::new(Config::default());
    let mut last = bed.now;
    let first = bed.next_message();
    for expected in [4, 8, 16, 32, 64, 64, 64] {
        let message = bed.next_message();
        let delay = (bed.now - last).total_micros();
        assert!((expected - 1) * 1_000_000 <= delay && delay <= (expected + 1) * 1_000_000, "{delay}");
        assert_eq!(message.payload[4..8], first.payload[4..8]);
        assert_eq!(u64::from(secs(&message)), (bed.now - Instant::from_secs(1000)).secs());
        last = bed.now;
    }
}

#[test]
fn only_answers_to_the_question_count() {
    let good = lease_options(SERVER, 3600);
    let without = |kind: u8| good.iter().filter(|(k, _)| *k != kind).cloned().collect::<Vec<_>>();
    let discover = Bed::new(Config::default()).next_message();
    let offer = reply(&discover, OFFER, OFFERED, &good);
    let changed = |at: usize, byte: u8| {
        let mut bytes = offer.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("xid", changed(4, !offer[4])),
        ("chaddr", changed(30, 9)),
        ("op", changed(0, 1)),
        ("hlen", changed(2, 7)),
        ("magic", changed(236, 0)),
        ("cut", offer[..offer.len() - 5].to_vec()),
        ("empty", Vec::new()),
        ("no server", reply(&discover, OFFER, OFFERED, &without(54))),
        ("no lease time", reply(&discover, OFFER, OFFERED, &without(51))),
        ("lease of nothing", reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 0))),
        ("no address", reply(&discover, OFFER, Ipv4Addr::UNSPECIFIED, &good)),
        ("a group", reply(&discover, OFFER, Ipv4Addr::new(224, 0, 0, 1), &good)),
        ("loopback", reply(&discover, OFFER, Ipv4Addr::LOCALHOST, &good)),
        ("not an offer", reply(&discover, ACK, OFFERED, &good)),
        ("not for this state", reply(&discover, NAK, OFFERED, &good)),
    ];
    for (what, payload) in cases {
        let mut bed = Bed::new(Config::default());
        assert_eq!(bed.next_message(), discover);
        assert_eq!(bed.handle(&payload), Err(DropReason::DhcpIgnored), "{what}");
        assert_eq!(bed.client.state(), State::Selecting, "{what}");
        bed.handle(&offer).unwrap();
        assert_eq!(bed.client.state(), State::Requesting, "{what}");
    }
}

#[test]
fn with_two_servers_the_first_is_asked_and_the_other_is_not_heard() {
    let mut bed = Bed::new(Config::default());
    let discover = bed.next_message();
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    let request = bed.next_message();
    let late = reply(&discover, OFFER, Ipv4Addr::new(10, 0, 0, 99), &lease_options(OTHER, 60));
    assert!(bed.handle(&late).is_err());
    assert!(bed.handle(&reply(&request, ACK, OFFERED, &lease_options(OTHER, 60))).is_err());
    let no = vec![(54, OTHER.octets().to_vec())];
    assert!(bed.handle(&reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no)).is_err());
    assert_eq!(bed.client.state(), State::Requesting);
    bed.handle(&reply(&request, ACK, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    assert_eq!(bed.client.lease().unwrap().server, SERVER);
}

#[test]
fn a_server_that_vanishes_after_its_offer_is_given_up_after_a_minute() {
    let mut bed = Bed::new(Config::default());
    let discover = bed.next_message();
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    for _ in 0..4 {
        assert_eq!(message_type(&bed.next_message()), REQUEST);
    }
    let again = bed.next_message();
    assert_eq!(message_type(&again), DISCOVER);
    assert_ne!(again.payload[4..8], discover.payload[4..8], "a new transaction");
    assert!((56..=64).contains(&(bed.now - Instant::from_secs(1000)).secs()));
    assert_eq!(bed.events(), [Event::Restarted]);
}

#[test]
fn refusals_one_after_the_other_slow_the_client_down() {
    let mut bed = Bed::new(Config::default());
    let mut times = Vec::new();
    for _ in 0..4 {
        let discover = bed.next_message();
        times.push(bed.now);
        bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
        let request = bed.next_message();
        let no = vec![(54, SERVER.octets().to_vec())];
        bed.handle(&reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no)).unwrap();
        assert_eq!(bed.events(), [Event::Nak { server: SERVER }]);
        assert_eq!(bed.client.state(), State::Init);
    }
    let pauses: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).secs()).collect();
    assert_eq!(pauses[0], 0);
    assert!((3..=5).contains(&pauses[1]) && (7..=9).contains(&pauses[2]), "{pauses:?}");
}

#[test]
fn a_lease_is_renewed_for_days() {
    let mut bed = Bed::bound(3600);
    for round in 0..100 {
        let request = bed.next_message();
        assert_eq!(bed.client.state(), State::Renewing);
        assert_eq!((request.src, request.dst), (OFFERED, SERVER));
        assert_eq!(request.payload[12..16], OFFERED.octets(), "ciaddr");
        assert_eq!(request.payload[10], 0, "no broadcast flag: the address is in use");
        assert_eq!((option(&request, 50), option(&request, 54)), (None, None));
        if round % 3 == 0 {
            // The first answer is lost.
            let again = bed.next_message();
            assert_ne!(again.payload[4..8], request.payload[4..8]);
            let stale = reply(&request, ACK, OFFERED, &lease_options(SERVER, 3600));
            assert!(bed.handle(&stale).is_err());
            bed.handle(&reply(&again, ACK, OFFERED, &lease_options(SERVER, 3600))).unwrap();
        } else {
            bed.handle(&reply(&request, ACK, OFFERED, &lease_options(SERVER, 3600))).unwrap();
        }
        assert!(matches!(bed.events()[..], [Event::Renewed(_)]));
        assert_eq!(bed.client.lease().unwrap().expires, Some(bed.now + Duration::from_secs(3600)));
    }
    assert!(bed.now > Instant::from_secs(1000 + 2 * 24 * 3600));
}

#[test]
fn a_silent_server_leads_to_rebinding_and_then_to_the_end() {
    let mut bed = Bed::bound(3600);
    let lease = bed.client.lease().unwrap().clone();
    let mut sent = Vec::new();
    while bed.client.lease().is_some() {
        let message = bed.next_message();
        sent.push((bed.now, bed.client.state(), message.dst));
    }
    let renewing: Vec<_> = sent.iter().filter(|(_, state, _)| *state == State::Renewing).collect();
    let rebinding: Vec<_> = sent.iter().filter(|(_, state, _)| *state == State::Rebinding).collect();
    assert_eq!(Some(renewing[0].0), lease.t1);
    assert_eq!(Some(rebinding[0].0), lease.t2);
    assert!(renewing.iter().all(|(_, _, dst)| *dst == SERVER) && renewing.len() >= 4);
    assert!(rebinding.iter().all(|(_, _, dst)| *dst == Ipv4Addr::BROADCAST) && rebinding.len() >= 3);
    for list in [&renewing, &rebinding] {
        assert!(list.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_secs(60)));
    }
    let half = lease.t2.unwrap() - renewing[0].0;
    assert_eq!((renewing[1].0 - renewing[0].0).total_micros(), half.total_micros() / 2);
    assert_eq!(bed.events(), [Event::Lost { address: OFFERED, reason: LostReason::Expired }]);
    assert_eq!(Some(bed.now), lease.expires, "to the microsecond");
    assert_eq!(bed.client.state(), State::Selecting);
}

#[test]
fn any_server_may_rebind_and_no_may_end_it() {
    let mut bed = Bed::bound(3600);
    let message = loop {
        let message = bed.next_message();
        if bed.client.state() == State::Rebinding {
            break message;
        }
    };
    let mut yes = Bed { client: bed.client, now: bed.now };
    yes.handle(&reply(&message, ACK, OFFERED, &lease_options(OTHER, 60))).unwrap();
    assert_eq!(yes.client.lease().unwrap().server, OTHER);
    let request = yes.next_message();
    assert_eq!(request.dst, OTHER);
    let no = vec![(54, OTHER.octets().to_vec())];
    yes.handle(&reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no)).unwrap();
    let lost = Event::Lost { address: OFFERED, reason: LostReason::Nak };
    assert_eq!(yes.events()[1..], [Event::Nak { server: OTHER }, lost]);
    assert_eq!(message_type(&yes.next_message()), DISCOVER);
}

#[test]
fn another_address_replaces_the_first() {
    let mut bed = Bed::bound(3600);
    let request = bed.next_message();
    let other = Ipv4Addr::new(10, 0, 0, 51);
    bed.handle(&reply(&request, ACK, other, &lease_options(SERVER, 3600))).unwrap();
    let events = bed.events();
    assert_eq!(events[0], Event::Lost { address: OFFERED, reason: LostReason::Replaced });
    assert!(matches!(&events[1], Event::Bound(lease) if lease.address.address() == other));
}

#[test]
fn the_lease_survives_a_flap_of_the_link() {
    let mut bed = Bed::bound(3600);
    bed.client.link_changed(bed.now, false);
    bed.wait(100);
    assert!(bed.client.lease().is_some());
    assert_eq!(bed.client.poll_transmit(bed.now), None);
    bed.client.link_changed(bed.now, true);
    assert_eq!(bed.client.state(), State::InitReboot);
    let request = bed.next_message();
    assert_eq!(bed.client.state(), State::Rebooting);
    assert_eq!((message_type(&request), request.dst), (REQUEST, Ipv4Addr::BROADCAST));
    assert_eq!(option(&request, 50), Some(OFFERED.octets().to_vec()));
    assert_eq!(option(&request, 54), None);
    assert!(bed.client.lease().is_some(), "the address stays meanwhile");
    bed.handle(&reply(&request, ACK, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    assert!(matches!(bed.events()[..], [Event::Renewed(_)]));
    // Nobody answers: the rest of the lease is used.
    bed.client.link_changed(bed.now, false);
    bed.client.link_changed(bed.now, true);
    bed.wait(70);
    assert_eq!(bed.client.state(), State::Bound);
    assert_eq!(bed.events(), []);
    // Too long down.
    bed.client.link_changed(bed.now, false);
    bed.wait(4000);
    assert_eq!(bed.events(), [Event::Lost { address: OFFERED, reason: LostReason::Expired }]);
    assert_eq!(bed.client.next_deadline(), None);
    // Somewhere else.
    bed.client.link_changed(bed.now, true);
    let request = bed.next_message();
    let no = vec![(54, SERVER.octets().to_vec())];
    bed.handle(&reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no)).unwrap();
    let discover = bed.next_message();
    assert_eq!((message_type(&discover), option(&discover, 50)), (DISCOVER, None));
}

#[test]
fn an_earlier_address_is_asked_for_first() {
    let mut bed = Bed::new(Config { requested: Some(OFFERED), ..Config::default() });
    assert_eq!(bed.client.state(), State::InitReboot);
    let request = bed.next_message();
    assert_eq!(option(&request, 50), Some(OFFERED.octets().to_vec()));
    for _ in 0..3 {
        assert_eq!(message_type(&bed.next_message()), REQUEST);
    }
    let discover = bed.next_message();
    assert_eq!(message_type(&discover), DISCOVER);
    assert_eq!(option(&discover, 50), Some(OFFERED.octets().to_vec()), "a wish");
    bed.offer_and_ack(&discover, 60);
}

#[test]
fn a_conflict_is_declined_and_the_client_waits() {
    let mut bed = Bed::bound(3600);
    bed.client.address_conflict(bed.now);
    let decline = bed.client.poll_transmit(bed.now).unwrap();
    assert_eq!(message_type(&decline), DECLINE);
    assert_eq!((decline.src, decline.dst), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    assert_eq!(option(&decline, 50), Some(OFFERED.octets().to_vec()));
    assert_eq!(option(&decline, 54), Some(SERVER.octets().to_vec()));
    assert_eq!(option(&decline, 55), None);
    assert_eq!(bed.events(), [Event::Lost { address: OFFERED, reason: LostReason::Conflict }]);
    let before = bed.now;
    let discover = bed.next_message();
    assert_eq!(bed.now - before, Duration::from_secs(10));
    assert_eq!((message_type(&discover), option(&discover, 50)), (DISCOVER, None));
}

#[test]
fn release_tells_the_server_and_stops() {
    let mut bed = Bed::bound(3600);
    bed.client.release();
    let release = bed.client.poll_transmit(bed.now).unwrap();
    assert_eq!(message_type(&release), RELEASE);
    assert_eq!((release.src, release.dst), (OFFERED, SERVER));
    assert_eq!(release.payload[12..16], OFFERED.octets());
    assert_eq!(bed.events(), [Event::Lost { address: OFFERED, reason: LostReason::Released }]);
    assert_eq!((bed.client.state(), bed.client.next_deadline()), (State::Init, None));
    bed.client.link_changed(bed.now, false);
    bed.client.link_changed(bed.now, true);
    assert_eq!(bed.client.next_deadline(), None, "stopped");
    bed.client.start(bed.now);
    assert_eq!(message_type(&bed.next_message()), REQUEST, "the old address first");
}

#[test]
fn a_lease_for_ever_has_no_end() {
    let bed = Bed::bound(u32::MAX);
    assert_eq!(bed.client.next_deadline(), None);
    let lease = bed.client.lease().unwrap();
    assert_eq!((lease.t1, lease.t2, lease.expires), (None, None, None));
}

#[test]
fn options_overflow_into_other_fields_and_come_in_pieces() {
    let mut bed = Bed::new(Config::default());
    let discover = bed.next_message();
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    let request = bed.next_message();
    let mut options = lease_options(SERVER, 3600);
    // The search list is in three pieces, in three fields; the last is in `sname`.
    options.extend([(52, vec![3]), (119, b"\x01a\x07exa".to_vec())]);
    let mut ack = reply(&request, ACK, OFFERED, &options);
    let file = encode(&[(119, b"mple\x00".to_vec()), (255, Vec::new())]);
    let server_name = encode(&[(119, b"\x01b\xc0\x02".to_vec()), (255, Vec::new())]);
    ack[108..108 + file.len()].copy_from_slice(&file);
    ack[44..44 + server_name.len()].copy_from_slice(&server_name);
    bed.handle(&ack).unwrap();
    assert_eq!(bed.client.lease().unwrap().search, ["a.example", "b.example"]);
}

#[test]
fn classless_routes_replace_the_router() {
    let mut routes = vec![0, 10, 0, 0, 1];
    routes.extend([9, 10, 255, 10, 0, 0, 2, 32, 192, 0, 2, 1, 0, 0, 0, 0]);
    for (routes, expected) in [
        (routes, vec!["0.0.0.0/0 10.0.0.1", "10.128.0.0/9 10.0.0.2", "192.0.2.1/32 0.0.0.0"]),
        (vec![33, 10, 0, 0, 0, 10, 0, 0, 1], vec![]),
        (vec![24, 10, 0, 0, 10, 0, 0], vec![]),
        (vec![], vec![]),
    ] {
        let mut bed = Bed::new(Config::default());
        let discover = bed.next_message();
        bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
        let request = bed.next_message();
        let mut options = lease_options(SERVER, 3600);
        options.push((121, routes));
        bed.handle(&reply(&request, ACK, OFFERED, &options)).unwrap();
        let lease = bed.client.lease().unwrap();
        let told: Vec<_> = lease.routes.iter().map(|r| format!("{} {}", r.destination, r.router)).collect();
        assert_eq!(told, expected);
        assert_eq!(lease.routers.is_empty(), !expected.is_empty());
    }
}

#[test]
fn times_that_cannot_be_are_replaced() {
    // T1, T2, and the bounds for T1 and T2.
    for (t1, t2, t1_bounds, t2_bounds) in [
        (100, 200, 93..=100, 193..=200),
        (0, 0, 468..=500, 844..=875),
        (300, 200, 93..=101, 193..=200),
        (5000, 6000, 400..=500, 800..=875),
        (100, 1000, 93..=100, 820..=875),
        (200, 200, 93..=100, 187..=200),
        (800, 900, 750..=800, 890..=900),
    ] {
        let mut bed = Bed::new(Config::default());
        let discover = bed.next_message();
        bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 1000))).unwrap();
        let request = bed.next_message();
        let mut options = lease_options(SERVER, 1000);
        options.extend([(58, u32::to_be_bytes(t1).to_vec()), (59, u32::to_be_bytes(t2).to_vec())]);
        bed.handle(&reply(&request, ACK, OFFERED, &options)).unwrap();
        let lease = bed.client.lease().unwrap();
        let after = |at: Option<Instant>| (at.unwrap() - bed.now).secs();
        assert!(t1_bounds.contains(&after(lease.t1)), "{t1} {t2}: {}", after(lease.t1));
        assert!(t2_bounds.contains(&after(lease.t2)), "{t1} {t2}: {}", after(lease.t2));
    }
}

#[test]
fn the_client_identifier_can_be_that_of_dhcpv6() {
    let duid = crate::dhcp::duid_ll(MAC).to_vec();
    let client_id = ClientId::Duid { iaid: 5, duid };
    let mut bed = Bed::new(Config { client_id, ..Config::default() });
    let sent = option(&bed.next_message(), 61).unwrap();
    assert_eq!(sent, [255, 0, 0, 0, 5, 0, 3, 0, 1, 2, 0, 0, 0, 0, 7]);
}

proptest! {
    /// Whatever servers say, in whatever order: no panic, deadlines ahead, few messages, and an address only
    /// as long as its lease.
    #[test]
    fn whatever_servers_say(seed: u64, steps in prop::collection::vec((0..8u8, 0..400u16, any::<[u8; 12]>()), 0..80)) {
        let mut now = Instant::from_secs(1);
        let mut client = Client::new(Config::default(), MAC, Random::new(seed), now);
        let mut last = None;
        for (step, pause, noise) in steps {
            now += Duration::from_secs(pause.into());
            client.handle_timeout(now);
            prop_assert!(client.next_deadline().is_none_or(|deadline| deadline > now));
            prop_assert!(client.lease().is_none_or(|lease| !lease.is_expired(now)));
            let mut count = 0;
            while let Some(transmit) = client.poll_transmit(now) {
                last = Some(transmit);
                count += 1;
            }
            prop_assert!(count <= 4);
            let Some(last) = &last else { continue };
            let kind = [OFFER, ACK, NAK, noise[0]][usize::from(step) % 4];
            let mut options = lease_options(SERVER, u32::from(noise[1]) * 10);
            options.extend([(noise[2], noise[3..6].to_vec()), (58, vec![0, 0, 0, noise[6]])]);
            let mut payload = reply(last, kind, OFFERED, &options);
            if step >= 6 {
                let at = usize::from(noise[7]) * payload.len() / 256;
                payload[at] ^= noise[8];
            }
            let src = SocketAddrV4::new(SERVER, SERVER_PORT);
            let _ = client.handle_datagram(now, src, &payload);
            match noise[9] {
                0..8 => client.link_changed(now, noise[10] % 2 == 0),
                8..12 => client.address_conflict(now),
                12..14 => client.release(),
                14..20 => client.start(now),
                _ => {}
            }
        }
    }
}

#[test]
fn a_lease_begins_when_it_is_asked_for() {
    let mut bed = Bed::new(Config::default());
    let discover = bed.next_message();
    bed.wait(2);
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 10))).unwrap();
    let request = bed.next_message();
    let asked = bed.now;
    bed.wait(1);
    // A lease that was over on its way.
    assert!(bed.handle(&reply(&request, ACK, OFFERED, &lease_options(SERVER, 1))).is_err());
    bed.handle(&reply(&request, ACK, OFFERED, &lease_options(SERVER, 10))).unwrap();
    assert_eq!(bed.client.lease().unwrap().expires, Some(asked + Duration::from_secs(10)));
}

#[test]
fn secs_are_those_of_the_discovery_and_begin_again_with_a_renewal() {
    let mut bed = Bed::new(Config::default());
    let first = bed.next_message();
    let discover = bed.next_message();
    assert_eq!((secs(&first), u64::from(secs(&discover))), (0, (bed.now - Instant::from_secs(1000)).secs()));
    bed.wait(1);
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    let asked = [bed.next_message(), bed.next_message(), bed.next_message()];
    // However late the offer came.
    assert_eq!(asked.each_ref().map(secs), [secs(&discover); 3]);
    bed.handle(&reply(&asked[2], ACK, OFFERED, &lease_options(SERVER, 3600))).unwrap();
    let renewal = bed.next_message();
    assert_eq!((bed.client.state(), secs(&renewal)), (State::Renewing, 0));
    let begun = bed.now;
    let again = bed.next_message();
    assert_eq!(u64::from(secs(&again)), (bed.now - begun).secs());
}

#[test]
fn a_renewal_is_for_the_server_of_the_lease_to_answer() {
    let mut bed = Bed::bound(3600);
    let request = bed.next_message();
    let no = vec![(54, OTHER.octets().to_vec())];
    for payload in [
        reply(&request, ACK, OFFERED, &lease_options(OTHER, 60)),
        reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no),
    ] {
        assert_eq!(bed.handle(&payload), Err(DropReason::DhcpIgnored));
        assert_eq!((bed.client.state(), bed.events()), (State::Renewing, vec![]));
    }
}

#[test]
fn nobody_is_heard_while_the_link_is_down() {
    let mut bed = Bed::bound(3600);
    let request = bed.next_message();
    bed.client.link_changed(bed.now, false);
    let ack = reply(&request, ACK, OFFERED, &lease_options(SERVER, 7200));
    assert_eq!(bed.handle(&ack), Err(DropReason::DhcpIgnored));
    assert_eq!(bed.events(), []);
}

#[test]
fn a_delay_at_the_start_is_one_to_ten_seconds() {
    let begin = Instant::from_secs(1000);
    let config = || Config { has_startup_delay: true, ..Config::default() };
    let mut delays: Vec<_> = (0..50)
        .map(|seed| Client::new(config(), MAC, Random::new(seed), begin).next_deadline().unwrap() - begin)
        .collect();
    delays.sort_unstable();
    assert!(delays[0] >= Duration::from_secs(1) && delays[0] < Duration::from_secs(3), "{delays:?}");
    assert!(delays[49] < Duration::from_secs(10) && delays[49] > Duration::from_secs(8), "{delays:?}");
}

#[test]
fn what_is_still_to_be_sent_is_forgotten_at_the_end() {
    for is_conflict in [true, false] {
        let mut bed = Bed::bound(3600);
        bed.now = bed.client.next_deadline().unwrap();
        bed.client.handle_timeout(bed.now);
        if is_conflict {
            bed.client.address_conflict(bed.now);
        } else {
            bed.client.release();
        }
        let sent: Vec<_> = std::iter::from_fn(|| bed.client.poll_transmit(bed.now)).collect();
        let types: Vec<_> = sent.iter().map(message_type).collect();
        assert_eq!(types, [if is_conflict { DECLINE } else { RELEASE }]);
    }
}

#[test]
fn without_an_answer_after_a_flap_the_lease_is_renewed_at_its_time() {
    let mut bed = Bed::bound(3600);
    let t1 = bed.client.lease().unwrap().t1;
    bed.client.link_changed(bed.now, false);
    bed.client.link_changed(bed.now, true);
    bed.wait(70);
    assert_eq!((bed.client.state(), bed.client.next_deadline()), (State::Bound, t1));
}

#[test]
fn a_lease_in_between_forgives_refusals() {
    let mut bed = Bed::new(Config::default());
    let no = vec![(54, SERVER.octets().to_vec())];
    for _ in 0..3 {
        let before = bed.now;
        let discover = bed.next_message();
        assert_eq!(bed.now, before, "at once");
        bed.offer_and_ack(&discover, 3600);
        let request = bed.next_message();
        bed.handle(&reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no)).unwrap();
    }
}

#[test]
fn pauses_are_random() {
    let mut fractions = std::collections::HashSet::new();
    let mut bed = Bed::new(Config::default());
    for _ in 0..6 {
        bed.next_message();
        fractions.insert(bed.now.total_micros() % 1_000_000);
    }
    assert!(fractions.len() >= 5, "{fractions:?}");
}

#[test]
fn bounds_of_a_configuration_and_of_queues() {
    let mut bed = Bed::new(Config { message_bytes_max: 100, ..Config::default() });
    assert_eq!(option(&bed.next_message(), 57), Some(vec![2, 64]), "no less than RFC 2131 section 2 wants");
    // No host's address is no wish.
    for wrong in [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
        let bed = Bed::new(Config { requested: Some(wrong), ..Config::default() });
        assert_eq!(bed.client.state(), State::Init, "{wrong}");
    }
    // Nobody takes messages and events.
    let mut bed = Bed::bound(3600);
    for _ in 0..10 {
        bed.wait(4000);
    }
    assert_eq!(std::iter::from_fn(|| bed.client.poll_transmit(bed.now)).count(), 4);
    let mut bed = Bed::new(Config::default());
    for _ in 0..40 {
        let discover = bed.next_message();
        bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
        let request = bed.next_message();
        let no = vec![(54, SERVER.octets().to_vec())];
        bed.handle(&reply(&request, NAK, Ipv4Addr::UNSPECIFIED, &no)).unwrap();
    }
    assert_eq!(bed.events(), vec![Event::Nak { server: SERVER }; 16]);
}

/// A lease of 1000 s with these options besides.
fn lease_with(seed: u64, options: &[(u8, Vec<u8>)]) -> (Lease, Instant) {
    let now = Instant::from_secs(1000);
    let mut bed = Bed { client: Client::new(Config::default(), MAC, Random::new(seed), now), now };
    let discover = bed.next_message();
    bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 1000))).unwrap();
    let request = bed.next_message();
    let others = lease_options(SERVER, 1000);
    let others = others.into_iter().filter(|(kind, _)| options.iter().all(|(other, _)| other != kind));
    let all: Vec<_> = others.chain(options.iter().cloned()).collect();
    bed.handle(&reply(&request, ACK, OFFERED, &all)).unwrap();
    (bed.client.lease().unwrap().clone(), now)
}

#[test]
fn clients_of_one_time_do_not_renew_together() {
    let leases: Vec<_> = (0..20).map(|seed| lease_with(seed, &[]).0).collect();
    for time in [|lease: &Lease| lease.t1, |lease: &Lease| lease.t2] {
        let times: std::collections::BTreeSet<_> = leases.iter().map(time).collect();
        assert!(times.len() > 15, "{times:?}");
    }
}

#[test]
fn values_that_cannot_be_are_not_used() {
    for (mask, expected) in [
        (vec![255, 255, 255, 128], 25),
        (vec![255, 255, 255, 255], 32),
        (vec![255, 0, 255, 0], 8),
        (vec![0, 255, 255, 0], 8),
        (vec![0, 0, 0, 0], 8),
        (vec![255, 255], 8),
    ] {
        let (lease, _) = lease_with(1, &[(1, mask.clone())]);
        assert_eq!(lease.address.prefix_len(), expected, "{mask:?}");
    }
    for (mtu, expected) in [(67_u16, None), (68, Some(68)), (9000, Some(9000))] {
        assert_eq!(lease_with(1, &[(26, mtu.to_be_bytes().to_vec())]).0.mtu, expected);
    }
}

#[test]
fn lists_have_an_end() {
    let hosts: Vec<_> = (1..=40_u8).flat_map(|last| [10, 0, 1, last]).collect();
    let routes: Vec<_> = (1..=40_u8).flat_map(|second| [16, 10, second, 10, 0, 0, 1]).collect();
    // Too long for one option, which is what RFC 3396 is for.
    let (lease, _) =
        lease_with(1, &[(6, hosts), (121, routes[..140].to_vec()), (121, routes[140..].to_vec())]);
    assert_eq!((lease.dns.len(), lease.routes.len()), (LIST_LEN_MAX, LIST_LEN_MAX));
}

#[test]
fn only_the_fields_that_overload_names_are_read() {
    for (overload, expected) in [
        (None, Some((false, false))),
        (Some(1), Some((true, false))),
        (Some(2), Some((false, true))),
        (Some(3), Some((true, true))),
        (Some(0), None),
        (Some(4), None),
    ] {
        let mut bed = Bed::new(Config::default());
        let discover = bed.next_message();
        bed.handle(&reply(&discover, OFFER, OFFERED, &lease_options(SERVER, 3600))).unwrap();
        let request = bed.next_message();
        let mut options = lease_options(SERVER, 3600);
        options.extend(overload.map(|overload| (52, vec![overload])));
        let mut ack = reply(&request, ACK, OFFERED, &options);
        let file = encode(&[(15, b"file".to_vec()), (255, Vec::new())]);
        let server_name = encode(&[(26, vec![5, 0]), (255, Vec::new())]);
        ack[108..108 + file.len()].copy_from_slice(&file);
        ack[44..44 + server_name.len()].copy_from_slice(&server_name);
        let found = bed.handle(&ack).ok().and(bed.client.lease());
        let found = found.map(|lease| (lease.domain.is_some(), lease.mtu.is_some()));
        assert_eq!(found, expected, "{overload:?}");
    }
}
