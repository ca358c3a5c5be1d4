use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::panic;
use std::time::Duration as StdDuration;

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};
use wirestack_nic::wait;

use super::*;
use crate::config::parse_cidr;
use crate::driver::Patience;
use crate::neighbor::AddressProbes;
use crate::shard::{SendOptions, Shard, ShardConfig};
use crate::tcp::Failure;

type End = Poll<Loopback<'static>>;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn config(number: u8) -> ShardConfig {
    let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, number]));
    config.seed = number.into();
    config.neighbor.probes = AddressProbes::None;
    config.address(parse_cidr(&format!("10.0.0.{number}/24")).expect("an address"))
}

fn ends_with(change: impl Fn(&mut ShardConfig)) -> [End; 2] {
    let (left, right) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    let end = |nic, number| {
        let mut config = config(number);
        change(&mut config);
        let mut poll = Poll::new(nic, config).expect("a configuration");
        poll.set_patience(Patience::Sleep);
        poll
    };
    [end(left, 1), end(right, 2)]
}

fn ends() -> [End; 2] {
    ends_with(|_| {})
}

/// Turns both, without waiting, until `is_so` of the events of each so far.
fn turn_until(ends: &mut [End; 2], is_so: impl Fn(&[Vec<Event>; 2]) -> bool) -> [Vec<Event>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    let mut events = Events::with_capacity(64);
    for _ in 0..100_000 {
        for (end, seen) in ends.iter_mut().zip(&mut seen) {
            end.poll(&mut events, Some(StdDuration::ZERO)).expect("it is there");
            seen.extend(&events);
        }
        if is_so(&seen) {
            return seen;
        }
    }
    panic!("it never came: {seen:?}");
}

/// Turns both until nothing moves.
fn settle(ends: &mut [End; 2]) -> [Vec<Event>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    let mut events = Events::with_capacity(64);
    let mut quiet = 0;
    let mut before = 0;
    while quiet < 3 {
        for (end, seen) in ends.iter_mut().zip(&mut seen) {
            end.poll(&mut events, Some(StdDuration::ZERO)).expect("it is there");
            seen.extend(&events);
        }
        let moved = |end: &mut End| {
            let counters = end.sockets().shard().counters();
            counters.rx_frames + counters.tx_frames
        };
        let moved: u64 = ends.iter_mut().map(moved).sum();
        quiet = if moved == before { quiet + 1 } else { 0 };
        before = moved;
    }
    seen
}

/// A connection: client, server, listener.
fn connected(ends: &mut [End; 2]) -> (TcpId, TcpId, ListenerId) {
    let listener = ends[1].sockets().tcp_listen(at("10.0.0.2:80"), Token(10)).expect("a listener");
    let client = ends[0].sockets().tcp_connect(at("10.0.0.2:80"), Token(20)).expect("begun");
    let seen = turn_until(ends, |[client, server]| !client.is_empty() && !server.is_empty());
    let event = seen[0].last().expect("an event");
    assert_eq!((event.token, event.tcp()), (Token(20), Some(client)));
    assert!(event.connected && event.writable && !event.readable && !event.closed, "{event:?}");
    assert_eq!((seen[1][0].token, seen[1][0].source), (Token(10), Source::Listener(listener)));
    assert!(seen[1][0].readable);
    let (server, peer) = ends[1].sockets().accept(listener).expect("it waits");
    assert_eq!(ends[0].sockets().local_addr(client).expect("it is there"), peer);
    assert_eq!(ends[1].sockets().accept(listener), None);
    assert_eq!(ends[1].sockets().token(server), Some(Token(10)), "that of the listener");
    assert!(ends[1].sockets().set_token(server, Token(30)));
    settle(ends);
    (client, server, listener)
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_question_an_answer_and_an_end() {
    let mut ends = ends();
    let (client, server, _) = connected(&mut ends);
    assert_eq!(ends[0].sockets().send(client, b"hello").expect("room"), 5);
    let seen = settle(&mut ends);
    assert_eq!(seen[1].len(), 1, "{seen:?}");
    let event = seen[1][0];
    assert!(event.token == Token(30) && event.tcp() == Some(server) && event.readable && event.writable);
    let mut sockets = ends[1].sockets();
    assert_eq!(sockets.recv_with(server, |piece| (2, piece.to_vec())).expect("there"), b"hello");
    assert_eq!(sockets.readable(server), 3);
    let mut room = [0; 9];
    assert_eq!(sockets.peek(server, &mut room).expect("there"), 3);
    assert_eq!(sockets.recv(server, &mut room).expect("there"), 3);
    assert_eq!(&room[..3], b"llo");
    assert_eq!(kind(sockets.recv(server, &mut room)), Some(ErrorKind::WouldBlock));
    assert_eq!(kind(sockets.recv_with(server, |_| (0, ()))), Some(ErrorKind::WouldBlock));
    let sent = sockets.send_with(server, |room| {
        room[..4].copy_from_slice(b"you ");
        4
    });
    assert_eq!(sent.expect("room"), 4);
    assert_eq!(sockets.send_owned(server, b"too".to_vec()).expect("room"), None);
    sockets.close(server);
    assert_eq!(kind(sockets.send(server, b"x")), Some(ErrorKind::NotConnected));
    let seen = settle(&mut ends);
    let event = seen[0].last().expect("an event");
    assert!(event.readable && event.peer_finished && !event.closed, "{event:?}");
    let mut sockets = ends[0].sockets();
    assert_eq!(sockets.recv(client, &mut room).expect("there"), 7);
    assert_eq!(&room[..7], b"you too");
    assert_eq!(sockets.recv(client, &mut room).expect("the end"), 0);
    assert!(sockets.recv_with(client, |piece| (0, piece.is_empty())).expect("the end"));
    sockets.close(client);
    assert_eq!(sockets.token(client), None);
    settle(&mut ends);
    assert_eq!(ends[0].sockets().shard().sockets_len(), 0);
}

#[test]
fn what_is_left_is_told_again_if_asked_for() {
    let mut ends = ends();
    let (client, server, _) = connected(&mut ends);
    ends[0].sockets().send(client, b"abc").expect("room");
    assert_eq!(settle(&mut ends)[1].len(), 1);
    // Nothing more happens, so nothing more is told.
    assert_eq!(settle(&mut ends)[1], []);
    ends[1].sockets().again(server);
    let seen = settle(&mut ends);
    assert!(seen[1].len() == 1 && seen[1][0].readable && seen[1][0].token == Token(30), "{seen:?}");
    assert!(ends[1].sockets().register(server, Token(31)));
    let seen = settle(&mut ends);
    assert!(seen[1].len() == 1 && seen[1][0].token == Token(31), "{seen:?}");
    // More comes: there is an event by itself.
    ends[0].sockets().send(client, b"d").expect("room");
    assert_eq!(settle(&mut ends)[1].len(), 1);
    assert_eq!(ends[1].sockets().readable(server), 4);
}

#[test]
fn a_full_buffer_is_told_of_when_there_is_room() {
    let mut ends = ends();
    let (client, server, _) = connected(&mut ends);
    let data = vec![7; 10_000];
    let mut sent = 0;
    // Until nothing fits at either end.
    loop {
        match ends[0].sockets().send(client, &data) {
            Ok(len) => sent += len,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                let before = ends[0].sockets().room(client);
                settle(&mut ends);
                if ends[0].sockets().room(client) == before {
                    break;
                }
            }
        }
    }
    let refused = ends[0].sockets().send_owned(client, data.clone()).expect("it is open");
    assert_eq!(refused, Some(data), "it comes back whole");
    assert_eq!(kind(ends[0].sockets().send_with(client, |_| 1)), Some(ErrorKind::WouldBlock));
    let mut received = 0;
    let mut room = vec![0; 1 << 20];
    let mut has_room = false;
    while received < sent {
        match ends[1].sockets().recv(server, &mut room) {
            Ok(len) => received += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let seen = turn_until(&mut ends, |_| true);
        has_room |= seen[0].iter().any(|event| event.writable && event.token == Token(20));
    }
    assert!(has_room, "an event tells of the room");
}

#[test]
fn several_pieces_at_once() {
    let mut ends = ends();
    let (client, server, _) = connected(&mut ends);
    let pieces = [&b"one"[..], b"", b"two", b"three"].map(IoSlice::new);
    assert_eq!(ends[0].sockets().send_vectored(client, &pieces).expect("room"), 11);
    settle(&mut ends);
    let (mut first, mut second) = ([0; 4], [0; 20]);
    let mut rooms = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
    assert_eq!(ends[1].sockets().recv_vectored(server, &mut rooms).expect("there"), 11);
    assert_eq!((&first[..], &second[..7]), (&b"onet"[..], &b"wothree"[..]));
    let again = ends[1].sockets().recv_vectored(server, &mut [IoSliceMut::new(&mut first)]);
    assert_eq!(kind(again), Some(ErrorKind::WouldBlock));
}

#[test]
fn ends_of_connections_as_std_says_them() {
    let mut ends = ends();
    let nobody = ends[0].sockets().tcp_connect(at("10.0.0.2:81"), Token(1)).expect("begun");
    let seen = turn_until(&mut ends, |seen| !seen[0].is_empty());
    let event = seen[0][0];
    assert!(event.closed && event.readable && event.writable && !event.connected, "{event:?}");
    assert_eq!(event.failure, Some(Failure::Refused));
    assert_eq!(kind(ends[0].sockets().recv(nobody, &mut [0])), Some(ErrorKind::ConnectionRefused));
    assert_eq!(kind(ends[0].sockets().send(nobody, b"x")), Some(ErrorKind::ConnectionRefused));
    assert_eq!(kind(ends[0].sockets().shutdown(nobody, Shutdown::Both)), Some(ErrorKind::NotConnected));

    let (client, server, listener) = connected(&mut ends);
    let taken = ends[1].sockets().tcp_listen(at("10.0.0.2:80"), Token(0));
    assert_eq!(kind(taken), Some(ErrorKind::AddrInUse));
    let not_ours = ends[1].sockets().tcp_listen(at("10.0.0.9:80"), Token(0));
    assert_eq!(kind(not_ours), Some(ErrorKind::AddrNotAvailable));
    ends[1].sockets().abort(server);
    let seen = settle(&mut ends);
    assert!(seen[0].iter().any(|event| event.closed && event.failure == Some(Failure::Reset)), "{seen:?}");
    assert_eq!(kind(ends[0].sockets().recv(client, &mut [0])), Some(ErrorKind::ConnectionReset));
    assert_eq!(kind(ends[1].sockets().recv(server, &mut [0])), Some(ErrorKind::ConnectionAborted));
    ends[1].sockets().close(listener);
    assert_eq!(ends[1].sockets().accept(listener), None);
}

#[test]
fn one_direction_is_shut_down() {
    let mut ends = ends();
    let (client, server, _) = connected(&mut ends);
    ends[0].sockets().shutdown(client, Shutdown::Write).expect("open");
    assert_eq!(kind(ends[0].sockets().send(client, b"x")), Some(ErrorKind::BrokenPipe));
    let seen = settle(&mut ends);
    assert!(seen[1][0].peer_finished && !seen[1][0].closed, "{seen:?}");
    ends[1].sockets().send(server, b"still").expect("open");
    settle(&mut ends);
    ends[0].sockets().shutdown(client, Shutdown::Read).expect("open");
    let mut room = [0; 9];
    assert_eq!(ends[0].sockets().recv(client, &mut room).expect("what has come"), 5);
    assert_eq!(ends[0].sockets().recv(client, &mut room).expect("the end"), 0);
}

#[test]
fn options_and_what_is_known_of_a_connection() {
    let mut ends = ends();
    let (client, _, listener) = connected(&mut ends);
    let mut sockets = ends[0].sockets();
    sockets.change_options(client, |options| options.hop_limit = Some(9)).expect("open");
    assert_eq!(sockets.options(client).expect("open").hop_limit, Some(9));
    assert_eq!(sockets.info(client).expect("open").state, "ESTABLISHED");
    assert_eq!(sockets.peer_addr(client).expect("open"), at("10.0.0.2:80"));
    assert_eq!(ends[1].sockets().local_addr(listener).expect("open"), at("10.0.0.2:80"));
    assert!(ends[1].sockets().options(listener).is_ok());
    sockets = ends[0].sockets();
    sockets.close(client);
    assert_eq!(kind(sockets.options(client)), Some(ErrorKind::NotConnected));
    assert_eq!(kind(sockets.peer_addr(client)), Some(ErrorKind::NotConnected));
    assert!(!sockets.set_token(client, Token(1)));
}

#[test]
fn datagrams_there_and_back() {
    let mut ends = ends();
    let server = ends[1].sockets().udp_bind(at("10.0.0.2:7"), Token(1)).expect("free");
    let client = ends[0].sockets().udp_bind(at("0.0.0.0:0"), Token(2)).expect("free");
    let mut sockets = ends[0].sockets();
    for datagram in [&b"one"[..], b"three"] {
        sockets.udp_send_to(client, datagram, at("10.0.0.2:7")).expect("sent");
    }
    let seen = settle(&mut ends);
    assert!(seen[1][0].token == Token(1) && seen[1][0].source == Source::Udp(server) && seen[1][0].readable);
    let mut sockets = ends[1].sockets();
    let (payload, src) =
        sockets.udp_recv_with(server, |meta, payload| (payload.to_vec(), meta.src)).expect("there");
    assert_eq!(payload, b"one");
    let mut room = [0; 2];
    let (len, meta) = sockets.udp_recv(server, &mut room).expect("there");
    assert!(len == 2 && meta.truncated && meta.src == src);
    assert_eq!(kind(sockets.udp_recv(server, &mut room)), Some(ErrorKind::WouldBlock));
    assert_eq!(kind(sockets.udp_recv_batch_with(server, |_, _| ())), Some(ErrorKind::WouldBlock));
    let options = SendOptions { to: Some(src), ..SendOptions::default() };
    sockets.udp_send_with(server, &options, 4, |room| room.copy_from_slice(b"back")).expect("sent");
    ends[0].sockets().udp_connect(client, Some(at("10.0.0.2:7"))).expect("a way");
    settle(&mut ends);
    assert_eq!(
        ends[0].sockets().udp_recv_batch_with(client, |_, data| data.to_vec()).expect("there"),
        b"back"
    );
    ends[1].sockets().close(server);
    ends[0].sockets().udp_send(client, b"anybody?").expect("sent");
    settle(&mut ends);
    assert_eq!(kind(ends[0].sockets().udp_recv(client, &mut room)), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn datagrams_without_room_are_told_when_there_is() {
    let mut ends = ends();
    ends[1].sockets().udp_bind(at("10.0.0.2:7"), Token(1)).expect("free");
    let client = ends[0].sockets().udp_bind(at("0.0.0.0:0"), Token(2)).expect("free");
    let fill = |end: &mut End| {
        for _ in 0..100_000 {
            if let Err(error) = end.sockets().udp_send_to(client, &[0; 1_000], at("10.0.0.2:7")) {
                return error.kind();
            }
        }
        panic!("there is always room");
    };
    ends[0].sockets().udp_send_to(client, b"where?", at("10.0.0.2:7")).expect("sent");
    settle(&mut ends);
    for _ in 0..3 {
        assert_eq!(fill(&mut ends[0]), ErrorKind::WouldBlock);
        let has_room = |event: &Event| event.token == Token(2) && event.writable;
        let seen = turn_until(&mut ends, |seen| seen[0].iter().any(has_room));
        assert!(seen[0].len() < 100, "it is not told in vain: {}", seen[0].len());
    }
}

/// Somebody who does not answer does not hold back those who wait for the device, however small its queue is.
#[test]
fn room_on_the_way_out_is_told_while_others_wait_for_neighbours() {
    for outbox_bytes_max in [4 << 20, 70_000] {
        let mut ends = ends_with(|config| config.outbox_bytes_max = outbox_bytes_max);
        let client = ends[0].sockets().udp_bind(at("0.0.0.0:0"), Token(2)).expect("free");
        let mut send = |to| ends[0].sockets().udp_send_to(client, &[0; 1_000], at(to));
        send("10.0.0.99:7").expect("room");
        let refused = (0..100_000).find_map(|_| kind(send("239.1.1.1:7")));
        assert_eq!(refused, Some(ErrorKind::WouldBlock));
        let has_room = |event: &Event| event.token == Token(2) && event.writable;
        turn_until(&mut ends, |seen| seen[0].iter().any(has_room));
        assert!(ends[0].sockets().shard().occupancy().parked_bytes > 0, "nobody is there");
    }
}

#[test]
fn room_beside_those_who_wait_for_neighbours_is_told_when_one_has_answered() {
    let mut ends = ends_with(|config| config.neighbor.parked_total_bytes_max = 3_000);
    let client = ends[0].sockets().udp_bind(at("0.0.0.0:0"), Token(2)).expect("free");
    let send = |end: &mut End, to| kind(end.sockets().udp_send_to(client, &[0; 1_000], at(to)));
    assert_eq!([(); 2].map(|()| send(&mut ends[0], "10.0.0.2:7")), [None; 2]);
    assert_eq!(send(&mut ends[0], "10.0.0.3:7"), Some(ErrorKind::WouldBlock));
    let mut events = Events::with_capacity(64);
    for _ in 0..100 {
        ends[0].poll(&mut events, Some(StdDuration::ZERO)).expect("it is there");
        assert!(events.is_empty(), "nobody has answered: {events:?}");
    }
    let has_room = |event: &Event| event.token == Token(2) && event.writable;
    turn_until(&mut ends, |seen| seen[0].iter().any(has_room));
    assert_eq!(send(&mut ends[0], "10.0.0.3:7"), None);
}

#[test]
fn timers_come_when_they_are_due_and_not_when_they_are_cancelled() {
    let [mut end, _other] = ends();
    let mut sockets = end.sockets();
    let now = sockets.now();
    let far = now + Duration::from_secs(3_600);
    sockets.set_timer(Token(1), now);
    let cancelled = sockets.set_timer(Token(2), now);
    let moved = sockets.set_timer(Token(3), far);
    sockets.set_timer(Token(4), far);
    assert!(sockets.cancel_timer(cancelled) && !sockets.cancel_timer(cancelled));
    assert!(sockets.move_timer(moved, now + Duration::from_micros(1)));
    let mut events = Events::with_capacity(1);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        end.poll(&mut events, None).expect("it is there");
        seen.extend(events.iter().map(|event| (event.token, event.source)));
    }
    assert_eq!(seen, [(Token(1), Source::Timer), (Token(3), Source::Timer)]);
    assert!(!end.sockets().move_timer(moved, far), "it was told of");
}

#[test]
fn little_room_for_events_loses_none() {
    let mut ends = ends();
    let any = at("0.0.0.0:0");
    let server: Vec<_> =
        (0..5).map(|token| ends[1].sockets().udp_bind(any, Token(token)).expect("free")).collect();
    let client = ends[0].sockets().udp_bind(any, Token(0)).expect("free");
    for &socket in &server {
        let port = ends[1].sockets().local_addr(socket).expect("bound").port();
        ends[0]
            .sockets()
            .udp_send_to(client, b"x", SocketAddr::new([10, 0, 0, 2].into(), port))
            .expect("sent");
    }
    let mut events = Events::with_capacity(2);
    let (mut nothing, mut seen) = (Events::with_capacity(1), Vec::new());
    while seen.len() < 5 {
        ends[0].poll(&mut nothing, Some(StdDuration::ZERO)).expect("it is there");
        ends[1].poll(&mut events, Some(StdDuration::ZERO)).expect("it is there");
        assert!(events.len() <= 2);
        seen.extend(events.iter().map(|event| event.token));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4].map(Token));
}

#[test]
fn another_thread_ends_a_sleep() {
    let [mut end, _other] = ends();
    let waker = end.waker(Token(99));
    let mut events = Events::with_capacity(8);
    for _ in 0..1_000 {
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        // It sleeps for ever if the wake is lost.
        end.poll(&mut events, None).expect("it is there");
        let seen: Vec<_> = events.iter().map(|event| (event.token, event.source)).collect();
        assert_eq!(seen, [(Token(99), Source::Waker)]);
        thread.join().expect("it has ended");
    }
    waker.wake();
    waker.wake();
    end.poll(&mut events, None).expect("it is there");
    assert_eq!(events.len(), 1);
    end.poll(&mut events, Some(StdDuration::ZERO)).expect("it is there");
    assert!(events.is_empty());
}

#[test]
fn an_interface_that_has_gone_ends_everything() {
    let mut ends = ends();
    let (client, _, _) = connected(&mut ends);
    let udp = ends[0].sockets().udp_bind(at("0.0.0.0:0"), Token(2)).expect("free");
    let [mut end, other] = ends;
    drop(other);
    let mut events = Events::with_capacity(8);
    let error = loop {
        if let Err(error) = end.poll(&mut events, None) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    assert_eq!(kind(end.poll(&mut events, None)), Some(ErrorKind::NetworkDown));
    assert_eq!(kind(end.run(|_, _| {})), Some(ErrorKind::NetworkDown));
    let mut sockets = end.sockets();
    for said in [
        kind(sockets.recv(client, &mut [0])),
        kind(sockets.send(client, b"x")),
        kind(sockets.send_with(client, |_| 1)),
        kind(sockets.udp_recv(udp, &mut [0])),
        kind(sockets.udp_send_to(udp, b"x", at("10.0.0.2:7"))),
        kind(sockets.udp_bind(at("0.0.0.0:0"), Token(0))),
        kind(sockets.tcp_listen(at("0.0.0.0:1"), Token(0))),
        kind(sockets.tcp_connect(at("10.0.0.2:80"), Token(0))),
    ] {
        assert_eq!(said, Some(ErrorKind::NetworkDown));
    }
    end.shutdown(StdDuration::from_secs(60));
}

/// A server in `run`: what it is sent, it sends back; `!` makes its handler panic, in the way that is given.
fn serve_until_told(
    mut end: End,
    panics: fn(&mut Sockets<'_>, TcpId),
) -> (Waker, std::thread::JoinHandle<End>) {
    let waker = end.waker(Token(0));
    end.sockets().tcp_listen(at("10.0.0.2:80"), Token(1)).expect("free");
    let serve = move || {
        end.run(|sockets, event| match event.source {
            Source::Waker => sockets.stop(),
            Source::Listener(listener) => while sockets.accept(listener).is_some() {},
            Source::Tcp(tcp) => {
                let mut room = [0; 100];
                match sockets.recv(tcp, &mut room) {
                    Ok(0) => sockets.close(tcp),
                    Ok(len) if room[..len].contains(&b'!') => panics(sockets, tcp),
                    Ok(len) => assert_eq!(sockets.send(tcp, &room[..len]).expect("room"), len),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            _ => panic!("it has no other"),
        })
        .expect("it is there");
        end
    };
    (waker, std::thread::spawn(serve))
}

/// Waits for the next event of a socket that has this.
fn wait_for(end: &mut End, tcp: TcpId, is_so: impl Fn(&Event) -> bool) {
    let mut events = Events::with_capacity(8);
    while !events.iter().any(|event| event.tcp() == Some(tcp) && is_so(event)) {
        end.poll(&mut events, None).expect("it is there");
    }
}

#[test]
fn a_handler_that_panics_loses_its_connection_and_nothing_else() {
    let ways: [fn(&mut Sockets<'_>, TcpId); 3] = [
        |_, _| panic::resume_unwind(Box::new("between")),
        |sockets, tcp| drop(sockets.send_with(tcp, |_| panic::resume_unwind(Box::new("writing")))),
        |sockets, tcp| {
            let _ = sockets.send(tcp, b"bye");
            panic::resume_unwind(Box::new("behind"));
        },
    ];
    for way in ways {
        let [mut client, server] = ends();
        let (waker, thread) = serve_until_told(server, way);
        let connect = |client: &mut End| {
            let tcp = client.sockets().tcp_connect(at("10.0.0.2:80"), Token(5)).expect("begun");
            wait_for(client, tcp, |event| event.connected);
            tcp
        };
        let (one, other) = (connect(&mut client), connect(&mut client));
        client.sockets().send(one, b"oh!").expect("room");
        wait_for(&mut client, one, |event| event.peer_finished || event.closed);
        client.sockets().send(other, b"well?").expect("room");
        wait_for(&mut client, other, |event| event.readable);
        assert_eq!(client.sockets().recv(other, &mut [0; 9]).expect("there"), 5);
        waker.wake();
        let mut server = thread.join().expect("it goes on");
        assert_eq!(server.sockets().shard().sockets_len(), 2, "the listener and the other connection");
        server.shutdown(StdDuration::ZERO);
    }
}

#[test]
fn an_orderly_end_says_everything() {
    let [mut client, server] = ends();
    let (waker, thread) = serve_until_told(server, |_, _| {});
    let tcp = client.sockets().tcp_connect(at("10.0.0.2:80"), Token(5)).expect("begun");
    client.sockets().send(tcp, b"early").expect("it waits for the handshake");
    wait_for(&mut client, tcp, |event| event.readable);
    assert_eq!(client.sockets().recv(tcp, &mut [0; 9]).expect("there"), 5);
    waker.wake();
    let mut server = thread.join().expect("it goes on");
    let last = server.sockets().shard().tcp_counters().accepted;
    assert_eq!(last, 1);
    let thread = std::thread::spawn(move || server.shutdown(StdDuration::from_secs(60)));
    wait_for(&mut client, tcp, |event| event.peer_finished && event.failure.is_none());
    client.sockets().close(tcp);
    // Its last word is acknowledged, then its end of the wire goes away.
    let mut events = Events::with_capacity(8);
    while client.poll(&mut events, None).is_ok() {}
    thread.join().expect("it has ended");
}

#[test]
fn addresses_are_waited_for() {
    let [mut end, _other] = ends_with(|config| config.neighbor.probes = AddressProbes::Quick);
    let (ours, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 77].into());
    assert_eq!(kind(end.wait_for_addresses(&[other], StdDuration::ZERO)), Some(ErrorKind::AddrNotAvailable));
    end.wait_for_addresses(&[ours], StdDuration::from_secs(60)).expect("nobody else has it");
}

/// The same in the turns of somebody else's loop.
#[test]
fn a_registry_serves_in_the_turns_of_another_loop() {
    let (left, mut nic) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    let mut client = Poll::new(left, config(1)).expect("a configuration");
    let now = wait::now();
    let mut shard = Shard::new(config(2), now).expect("a shard");
    let mut registry = Registry::new(now);
    registry.sockets(&mut shard).tcp_listen(at("10.0.0.2:80"), Token(1)).expect("free");
    registry.sockets(&mut shard).set_timer(Token(2), now);
    let stranger = shard.tcp_listen(crate::shard::TcpListen::new(at("10.0.0.2:81"))).expect("free");
    client.sockets().tcp_connect(at("10.0.0.2:81"), Token(6)).expect("begun");
    let mut strangers = 0;
    let tcp = client.sockets().tcp_connect(at("10.0.0.2:80"), Token(5)).expect("begun");
    client.sockets().send(tcp, b"hello").expect("it waits for the handshake");
    let mut events = Events::with_capacity(8);
    let mut timers = 0;
    while client.sockets().readable(tcp) < 5 {
        client.poll(&mut events, Some(StdDuration::ZERO)).expect("it is there");
        let mut due = None;
        shard.turn(wait::now(), &mut nic, |shard| {
            due = registry.serve(shard, |sockets, event| match event.source {
                Source::Listener(listener) => while sockets.accept(listener).is_some() {},
                Source::Timer => timers += 1,
                Source::Tcp(tcp) if event.readable => {
                    let data = sockets.recv_with(tcp, |piece| (piece.len(), piece.to_vec())).expect("there");
                    sockets.send(tcp, &data).expect("room");
                }
                _ => {}
            });
        });
        assert_eq!(due, None, "nothing is left");
        // What is another's is left to it.
        while let Some(event) = shard.next_event() {
            assert_eq!(event.socket, stranger);
            strangers += 1;
        }
    }
    assert_eq!((timers, strangers), (1, 1));
}
