//! Connections between two shards.

use super::*;
use crate::tcp::{Failure, Linger, RecvError, SendError, TcpOptions};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|byte| (byte % 251) as u8 ^ (byte / 251 % 256) as u8).collect()
}

/// A connection: its ends at the two shards, and the listener.
fn connected(pair: &mut Pair, to: &str) -> (SocketId, SocketId, SocketId) {
    let listener = pair.shards[1].tcp_listen(TcpListen::new(at(to))).expect("a listener");
    let client = pair.shards[0].tcp_connect(TcpConnect::new(at(to))).expect("a connection");
    pair.settle();
    assert!(pair.shards[0].tcp_readiness(client).connected, "{:?}", pair.shards[0].tcp_info(client));
    let server = pair.shards[1].tcp_accept(listener).expect("it waits");
    (client, server, listener)
}

fn read_all(shard: &mut Shard, id: SocketId) -> Vec<u8> {
    let mut all = Vec::new();
    let mut room = [0; 10_000];
    while let Ok(Some(len)) = shard.tcp_recv(id, &mut room) {
        if len == 0 {
            break;
        }
        all.extend_from_slice(&room[..len]);
    }
    all
}

#[test]
fn a_question_and_an_answer() {
    for to in ["10.0.0.2:80", "[fd00::2]:80"] {
        let mut pair = Pair::new();
        let (client, server, _) = connected(&mut pair, to);
        assert_eq!(pair.shards[0].tcp_send(client, b"hello"), Ok(5));
        pair.settle();
        assert_eq!(read_all(&mut pair.shards[1], server), b"hello");
        assert_eq!(pair.shards[1].tcp_send(server, b"you too"), Ok(7));
        pair.settle();
        assert_eq!(read_all(&mut pair.shards[0], client), b"you too");
        pair.shards[0].close(client);
        pair.settle();
        assert_eq!(pair.shards[1].tcp_recv(server, &mut [0; 4]), Ok(Some(0)));
        pair.shards[1].close(server);
        pair.settle();
        assert_eq!(pair.shards[0].tcp.time_waits.len(), 1, "who closes first waits");
        assert_eq!((pair.shards[0].tcp.connections.len(), pair.shards[1].tcp.connections.len()), (0, 0));
        assert_eq!(pair.shards[1].tcp.flows.len(), 0);
        pair.advance(Duration::from_secs(61));
        assert_eq!((pair.shards[0].tcp.time_waits.len(), pair.shards[0].tcp.flows.len()), (0, 0));
        assert_eq!(pair.shards[0].tcp.pool.in_use_bytes(), 0);
    }
}

#[test]
fn megabytes_both_ways_at_once() {
    for to in ["10.0.0.2:80", "[fd00::2]:80"] {
        let mut pair = Pair::new();
        let (client, server, _) = connected(&mut pair, to);
        let data = pattern(3 << 20);
        let (mut sent, mut received) = ([0, 0], [Vec::new(), Vec::new()]);
        let ids = [client, server];
        for _ in 0..20_000 {
            for end in 0..2 {
                sent[end] += pair.shards[end].tcp_send(ids[end], &data[sent[end]..]).expect("open");
                let read = read_all(&mut pair.shards[end], ids[end]);
                received[end].extend(read);
            }
            pair.settle();
            if received.iter().all(|received| received.len() == data.len()) {
                break;
            }
            pair.advance(Duration::from_millis(1));
        }
        assert!(received[0] == data && received[1] == data, "{:?}", [received[0].len(), received[1].len()]);
        let info = pair.shards[0].tcp_info(client).expect("open");
        assert_eq!(info.counters.retransmits, 0, "{info:?}");
        pair.advance(Duration::from_millis(100));
        assert_eq!([&pair.shards[0], &pair.shards[1]].map(|shard| shard.tcp.pool.in_use_bytes()), [0, 0]);
    }
}

#[test]
fn options_that_are_set_behind_a_syn_do_not_change_what_it_has_offered() {
    let mut pair = Pair::new();
    let listener = pair.shards[1].tcp_listen(TcpListen::new(at("10.0.0.2:80"))).expect("a listener");
    let client = pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("a connection");
    pair.shards[0].turn(pair.now, &mut pair.nics[0], |_| {});
    let before = pair.shards[0].tcp_options(client).expect("a connection");
    let larger = TcpOptions {
        recv_buffer: 1 << 20,
        recv_buffer_max: 1 << 30,
        linger: Linger::For(Duration::ZERO),
        ..before
    };
    pair.shards[0].tcp_set_options(client, larger);
    pair.settle();
    let server = pair.shards[1].tcp_accept(listener).expect("it waits");
    let scales = |shard: &Shard, id| shard.tcp_info(id).and_then(|info| info.window_scale).expect("scales");
    let (theirs, ours) = scales(&pair.shards[0], client);
    assert_eq!(scales(&pair.shards[1], server), (ours, theirs));
    assert_eq!(pair.shards[0].tcp_options(client).map(|options| options.linger), Some(larger.linger));
}

#[test]
fn nobody_listens() {
    let mut pair = Pair::new();
    let client = pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
    pair.settle();
    assert_eq!(pair.shards[0].tcp_failure(client), Some(Failure::Refused));
    assert_eq!(pair.shards[0].next_event(), Some(SocketEvent { socket: client }));
    assert_eq!(pair.shards[0].tcp_recv(client, &mut [0; 1]), Err(RecvError::Failed(Failure::Refused)));
    assert_eq!(pair.shards[0].tcp_send(client, b"x"), Err(SendError::Failed(Failure::Refused)));
    pair.shards[0].close(client);
    assert_eq!(pair.shards[0].tcp.connections.len(), 0);
    assert_eq!(pair.shards[0].tcp_send(client, b"x"), Err(SendError::Closed));
}

#[test]
fn nobody_is_there() {
    let mut pair = Pair::new();
    let client = pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.9:80"))).expect("begun");
    pair.advance(Duration::from_secs(10));
    assert_eq!(pair.shards[0].tcp_failure(client), Some(Failure::HostUnreachable));
}

#[test]
fn an_abort_is_a_reset() {
    let mut pair = Pair::new();
    let (client, server, _) = connected(&mut pair, "10.0.0.2:80");
    pair.shards[0].tcp_send(client, b"before").expect("sent");
    pair.settle();
    pair.shards[0].tcp_abort(client);
    pair.settle();
    assert_eq!(pair.shards[1].tcp_failure(server), Some(Failure::Reset));
    // What had come before can be read first.
    assert_eq!(read_all(&mut pair.shards[1], server), b"before");
    assert_eq!(pair.shards[1].tcp_recv(server, &mut [0; 4]), Err(RecvError::Failed(Failure::Reset)));
    assert_eq!(pair.shards[0].tcp.time_waits.len(), 0);
}

#[test]
fn half_a_close_leaves_the_other_half() {
    let mut pair = Pair::new();
    let (client, server, _) = connected(&mut pair, "10.0.0.2:80");
    pair.shards[0].tcp_finish(client);
    pair.settle();
    assert_eq!(pair.shards[0].tcp_send(client, b"x"), Err(SendError::ShutDown));
    assert_eq!(pair.shards[1].tcp_recv(server, &mut [0; 4]), Ok(Some(0)));
    assert_eq!(pair.shards[1].tcp_send(server, b"still here"), Ok(10));
    pair.settle();
    assert_eq!(read_all(&mut pair.shards[0], client), b"still here");
}

#[test]
fn to_ourselves() {
    let mut pair = Pair::new();
    let shard = &mut pair.shards[0];
    let listener = shard.tcp_listen(TcpListen::new(at("127.0.0.1:80"))).expect("a listener");
    let client = shard.tcp_connect(TcpConnect::new(at("127.0.0.1:80"))).expect("begun");
    pair.advance(Duration::from_millis(1));
    let server = pair.shards[0].tcp_accept(listener).expect("it waits");
    let data = pattern(100_000);
    let (mut sent, mut received) = (0, Vec::new());
    for _ in 0..1_000 {
        sent += pair.shards[0].tcp_send(client, &data[sent..]).expect("open");
        pair.advance(Duration::from_millis(1));
        received.extend(read_all(&mut pair.shards[0], server));
        if received.len() == data.len() {
            break;
        }
    }
    assert!(received == data, "{}", received.len());
}

#[test]
fn an_idle_connection_is_small() {
    use crate::shard::tcp::Connection;
    assert!(size_of::<Connection>() <= 1_024, "{}", size_of::<Connection>());
}

#[test]
fn who_found_no_memory_is_told_when_there_is_some() {
    let mut pair = Pair::with(|config| config.tcp.pool_bytes_max = 64 << 10);
    let (greedy, server, listener) = connected(&mut pair, "10.0.0.2:80");
    let modest = pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
    pair.settle();
    pair.shards[1].tcp_accept(listener).expect("it waits");
    while pair.shards[0].next_event().is_some() {}
    // One takes all memory there is, so the other gets nothing.
    assert_eq!(pair.shards[0].tcp_send(greedy, &pattern(64 << 10)), Ok(64 << 10));
    assert_eq!(pair.shards[0].tcp_send(modest, b"hello"), Ok(0));
    // At a standing clock: no timer is due that could help.
    let mut received = 0;
    for _ in 0..100 {
        pair.settle();
        received += read_all(&mut pair.shards[1], server).len();
    }
    assert_eq!(received, 64 << 10);
    let told: Vec<_> = std::iter::from_fn(|| pair.shards[0].next_event()).map(|event| event.socket).collect();
    assert!(told.contains(&modest), "{told:?}");
    assert_eq!(pair.shards[0].tcp_send(modest, b"hello"), Ok(5));
}

#[test]
fn a_piece_that_finds_no_memory_is_no_reason_to_come_again_at_once() {
    let mut pair = Pair::with(|config| config.tcp.pool_bytes_max = 64 << 10);
    let (greedy, server, listener) = connected(&mut pair, "10.0.0.2:80");
    let owner = pair.shards[0].tcp_connect(TcpConnect::new(at("10.0.0.2:80"))).expect("begun");
    pair.settle();
    pair.shards[1].tcp_accept(listener).expect("it waits");
    while pair.shards[0].next_event().is_some() {}
    // Half of the memory is in use, and the piece is more than the other half.
    assert_eq!(pair.shards[0].tcp_send(greedy, &pattern(32 << 10)), Ok(32 << 10));
    let piece = pair.shards[0].tcp_send_owned(owner, pattern(40 << 10)).expect("open").expect("no memory");
    let (shard, nic) = (&mut pair.shards[0], &mut pair.nics[0]);
    shard.turn(pair.now, nic, |_| {});
    assert!(shard.turn(pair.now, nic, |_| {}).is_none_or(|next| next > pair.now));
    assert_eq!(shard.next_event(), None);
    // When it has come back, the owner hears of it.
    for _ in 0..100 {
        pair.settle();
        read_all(&mut pair.shards[1], server);
    }
    let told: Vec<_> = std::iter::from_fn(|| pair.shards[0].next_event()).map(|event| event.socket).collect();
    assert!(told.contains(&owner), "{told:?}");
    assert_eq!(pair.shards[0].tcp_send_owned(owner, piece), Ok(None));
}

#[test]
fn pieces_of_the_list_are_bounded_and_have_each_connection_once() {
    let mut pair = Pair::new();
    let to = "10.0.0.2:80";
    pair.shards[1].tcp_listen(TcpListen::new(at(to))).expect("a listener");
    let ids: Vec<_> = (0..23)
        .map(|_| {
            let id = pair.shards[0].tcp_connect(TcpConnect::new(at(to))).expect("a connection");
            pair.settle();
            id
        })
        .collect();
    // There are gaps in the table.
    for id in ids.iter().step_by(3) {
        pair.shards[0].tcp_abort(*id);
        pair.shards[0].close(*id);
        pair.settle();
    }
    let left: Vec<_> = ids.iter().enumerate().filter(|(at, _)| at % 3 != 0).map(|(_, id)| *id).collect();
    for places_max in [0, 1, 4, 1_000_000, u32::MAX] {
        let (mut next, mut listed, mut calls) = (Some(0), Vec::new(), 0);
        while let Some(first) = next {
            let piece = pair.shards[0].tcp_connections(first, places_max);
            assert!(piece.connections.len() <= places_max.max(1) as usize);
            listed.extend(piece.connections);
            next = piece.next;
            calls += 1;
            assert!(calls < 100);
        }
        let found: Vec<_> = listed.iter().filter_map(|connection| connection.socket).collect();
        assert_eq!(found, left, "{places_max}");
        assert!(listed.iter().all(|connection| connection.remote == at(to) && !connection.is_waiting));
        assert!(listed.iter().all(|connection| connection.info.state == "ESTABLISHED"));
    }
    assert_eq!(pair.shards[0].tcp_connections_len(), left.len());
    // At the other end all wait to be accepted, those too that were reset meanwhile.
    let theirs = pair.shards[1].tcp_connections(0, 1_000);
    let is_waiting = |connection: &TcpConnection| connection.is_waiting && connection.socket.is_none();
    assert_eq!(theirs.connections.iter().filter(|connection| is_waiting(connection)).count(), ids.len());
    let is_open = |connection: &&TcpConnection| connection.info.state == "ESTABLISHED";
    assert_eq!(theirs.connections.iter().filter(is_open).count(), left.len());
    let listeners = pair.shards[1].tcp_listeners(10);
    let seen: Vec<_> = listeners.iter().map(|l| (l.local, l.waiting, l.half_open)).collect();
    assert_eq!(seen, [(at(to), ids.len(), 0)]);
    assert!(pair.shards[1].tcp_listeners(0).is_empty());
}
