//! A client and scripted servers, in virtual time.

use super::*;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);
const DNS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 53);

fn new() -> (Client, Instant) {
    let now = Instant::from_secs(1000);
    (Client::new(Config::default(), MAC, Random::new(3), now), now)
}

fn next_message(client: &mut Client, now: &mut Instant) -> Vec<u8> {
    for _ in 0..4 {
        *now = (*now).max(client.next_deadline().unwrap());
        client.handle_timeout(*now);
        if let Some(transmit) = client.poll_transmit(*now) {
            assert_eq!(transmit.dst.to_string(), "ff02::1:2");
            return transmit.payload;
        }
    }
    panic!("no message: {:?}", client.snapshot());
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

/// An answer with the identifiers of both, and more.
fn reply(request: &[u8], options: &[Vec<u8>]) -> Vec<u8> {
    let ids = [option(1, &super::super::duid_ll(MAC)), option(2, b"server")].concat();
    [&[7], &request[1..4], &ids, &options.concat()].concat()
}

fn handle(client: &mut Client, now: Instant, payload: &[u8]) -> Result<(), DropReason> {
    client.handle_datagram(now, SocketAddrV6::new(DNS, SERVER_PORT, 0, 0), payload)
}

fn settings() -> Vec<Vec<u8>> {
    vec![option(23, &DNS.octets()), option(24, b"\x07example\x03org\x00\x01b\x00")]
}

#[test]
fn settings_are_asked_for_and_refreshed() {
    let (mut client, mut now) = new();
    let request = next_message(&mut client, &mut now);
    assert!(now - Instant::from_secs(1000) <= Duration::from_secs(1));
    assert_eq!(request[0], 11);
    let expected = [
        option(1, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 7]),
        option(6, &[0, 23, 0, 24, 0, 32, 0, 83]),
        option(8, &[0, 0]),
    ];
    assert_eq!(request[4..], expected.concat());
    handle(&mut client, now, &reply(&request, &settings())).unwrap();
    let refresh = Duration::from_secs(86_400);
    let search = vec!["example.org".to_owned(), "b".to_owned()];
    let event = Event::Configured { dns: vec![DNS], search, refresh };
    assert_eq!(client.poll_event(), Some(event));
    assert_eq!((client.state(), client.next_deadline()), (State::Configured, Some(now + refresh)));
    let before = now;
    let again = next_message(&mut client, &mut now);
    assert!(now - before >= refresh && now - before <= refresh + Duration::from_secs(1));
    assert_ne!(again[1..4], request[1..4]);
}

#[test]
fn the_time_of_refresh_has_bounds() {
    for (told, expected) in [(1, 600), (700, 700), (u32::MAX, 86_400)] {
        let (mut client, mut now) = new();
        let request = next_message(&mut client, &mut now);
        handle(&mut client, now, &reply(&request, &[option(32, &u32::to_be_bytes(told))])).unwrap();
        assert_eq!(client.next_deadline(), Some(now + Duration::from_secs(expected)), "{told}");
    }
}

#[test]
fn messages_are_repeated_up_to_the_longest_time() {
    for (inf_max_rt, longest) in [(None, 3600), (Some(60_u32), 60), (Some(59), 3600), (Some(86_401), 3600)] {
        let (mut client, mut now) = new();
        let request = next_message(&mut client, &mut now);
        let began = now;
        if let Some(seconds) = inf_max_rt {
            // A server that cannot answer now may still set the pace.
            let options = [option(83, &seconds.to_be_bytes()), option(13, &[0, 1])];
            handle(&mut client, now, &reply(&request, &options)).unwrap();
            assert_eq!((client.state(), client.poll_event()), (State::Requesting, None));
        }
        let mut expected = (900_000, 1_100_000);
        for _ in 0..20 {
            let before = now;
            let message = next_message(&mut client, &mut now);
            let rt = (now - before).total_micros();
            assert!(expected.0 <= rt && rt <= expected.1, "{expected:?} {rt}");
            let elapsed = (now - began).total_millis() / 10;
            assert_eq!(
                message[message.len() - 2..],
                u16::try_from(elapsed).unwrap_or(u16::MAX).to_be_bytes()
            );
            assert_eq!(message[1..4], request[1..4]);
            let mrt = longest * 1_000_000;
            expected = match rt * 21 / 10 {
                sure if sure <= mrt => (rt * 19 / 10, sure),
                // Near the bound both rules can hold.
                sure => ((rt * 19 / 10).min(mrt * 9 / 10), sure.min(mrt * 11 / 10)),
            };
        }
        assert!(now - began > Duration::from_secs(longest * 9));
    }
}

#[test]
fn only_answers_to_the_question_count() {
    let (mut client, mut now) = new();
    let request = next_message(&mut client, &mut now);
    let good = reply(&request, &settings());
    let no_server = [&good[..18], &settings().concat()].concat();
    let no_client = [&good[..4], &good[18..]].concat();
    let mut cases = vec![no_server, no_client];
    for at in [0, 3, 10] {
        let mut wrong = good.clone();
        wrong[at] ^= 1;
        cases.push(wrong);
    }
    cases.extend((0..good.len()).map(|len| good[..len].to_vec()).filter(|cut| {
        // Cut between options, it is a shorter message.
        ![28, 48].contains(&cut.len())
    }));
    for wrong in cases {
        assert_eq!(handle(&mut client, now, &wrong), Err(DropReason::DhcpIgnored), "{wrong:?}");
    }
    handle(&mut client, now, &good).unwrap();
    assert!(handle(&mut client, now, &good).is_err(), "once is enough");
}

#[test]
fn after_a_flap_of_the_link_settings_are_asked_for_anew() {
    let (mut client, mut now) = new();
    let request = next_message(&mut client, &mut now);
    handle(&mut client, now, &reply(&request, &settings())).unwrap();
    client.link_changed(now, false);
    assert_eq!(client.next_deadline(), None);
    client.link_changed(now, true);
    let again = next_message(&mut client, &mut now);
    handle(&mut client, now, &reply(&again, &settings())).unwrap();
    assert_eq!(std::iter::from_fn(|| client.poll_event()).count(), 2);
}

#[test]
fn bounds_of_a_configuration_and_of_queues() {
    let now = Instant::from_secs(1000);
    let config = Config { refresh_max: Duration::from_secs(10), ..Config::default() };
    let (mut client, mut at) = (Client::new(config, MAC, Random::new(3), now), now);
    let request = next_message(&mut client, &mut at);
    handle(&mut client, at, &reply(&request, &settings())).unwrap();
    assert_eq!(client.next_deadline(), Some(at + Duration::from_secs(600)), "IRT_MINIMUM");
    // Nobody takes the events.
    for _ in 0..10 {
        let request = next_message(&mut client, &mut at);
        handle(&mut client, at, &reply(&request, &settings())).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| client.poll_event()).count(), 4);
    // The delay before the first message.
    let first =
        |seed| Client::new(Config::default(), MAC, Random::new(seed), now).next_deadline().unwrap() - now;
    let mut delays: Vec<_> = (0..50).map(first).collect();
    delays.sort_unstable();
    assert!(delays[0] < Duration::from_millis(200), "{delays:?}");
    assert!(delays[49] > Duration::from_millis(800) && delays[49] <= Duration::from_secs(1), "{delays:?}");
}

#[test]
fn what_is_still_to_be_sent_is_forgotten_at_the_end() {
    let (mut client, mut now) = new();
    let request = next_message(&mut client, &mut now);
    // A second one waits, and the answer to the first comes.
    now = client.next_deadline().unwrap();
    client.handle_timeout(now);
    assert_eq!(client.snapshot().attempts, 2);
    handle(&mut client, now, &reply(&request, &settings())).unwrap();
    assert_eq!((client.poll_transmit(now), client.snapshot().attempts), (None, 0));
    // One waits, and the link goes down.
    client.link_changed(now, false);
    client.link_changed(now, true);
    for _ in 0..2 {
        now = client.next_deadline().unwrap();
        client.handle_timeout(now);
    }
    assert_eq!(client.snapshot().attempts, 2);
    client.link_changed(now, false);
    assert_eq!((client.poll_transmit(now), client.snapshot().attempts), (None, 0));
}

#[test]
fn a_link_that_is_up_already_changes_nothing() {
    let (mut client, mut now) = new();
    let request = next_message(&mut client, &mut now);
    let before = client.snapshot();
    client.link_changed(now, true);
    assert_eq!(client.snapshot(), before);
    handle(&mut client, now, &reply(&request, &settings())).unwrap();
}

#[test]
fn servers_are_hosts_and_the_first_list_counts() {
    let (mut client, mut now) = new();
    let request = next_message(&mut client, &mut now);
    let other = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 54);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let list = [group, DNS, Ipv6Addr::UNSPECIFIED].map(|ip| ip.octets()).concat();
    let options = [option(23, &list), option(23, &other.octets())];
    handle(&mut client, now, &reply(&request, &options)).unwrap();
    let Some(Event::Configured { dns, .. }) = client.poll_event() else { panic!("no event") };
    assert_eq!(dns, [DNS]);
}
