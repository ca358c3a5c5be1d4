use std::io;
use std::num::NonZeroU16;

use smoltcp::time::Instant;

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn meta(segment_bytes: u16) -> DatagramMeta {
    DatagramMeta {
        hop_limit: 64,
        traffic_class: 2,
        segment_bytes: NonZeroU16::new(segment_bytes),
        ..DatagramMeta::new(at("10.0.0.2:9"), at("10.0.0.1:7"), Instant::from_millis(3))
    }
}

fn socket(options: SocketOptions) -> Socket {
    Socket::new(at("10.0.0.1:7"), options)
}

#[test]
fn a_merged_run_comes_out_one_by_one_or_as_it_is() {
    let mut socket = socket(SocketOptions::default());
    assert_eq!(socket.snapshot().memory_bytes, 0);
    for _ in 0..2 {
        assert_eq!(socket.push(&meta(4), b"aaaabbbbcc"), Ok(()));
    }
    assert_eq!((socket.queued_bytes(), socket.queued_datagrams()), (20, 6));
    assert_eq!(
        socket.peek_with(|meta, data| (meta.segment_bytes, data.to_vec())),
        Some((None, b"aaaa".to_vec()))
    );
    let mut room = [0; 9];
    assert_eq!(socket.recv(&mut room), Some((4, meta(0))));
    let mut batch =
        || socket.recv_batch_with(|meta, data| (meta.segment_bytes.map(NonZeroU16::get), data.to_vec()));
    assert_eq!(batch(), Some((Some(4), b"bbbbcc".to_vec())), "what is left of the first run");
    assert_eq!(batch(), Some((Some(4), b"aaaabbbbcc".to_vec())));
    assert_eq!(batch(), None);
    assert!(!socket.readable());
    assert_eq!(socket.push(&meta(4), b"aaaab"), Ok(()));
    assert_eq!(socket.recv_with(|_, data| data.len()), Some(4));
    let last = socket.recv_batch_with(|meta, data| (meta.segment_bytes, data.len()));
    assert_eq!(last, Some((None, 1)), "the last of a run is one datagram");
    assert_eq!(socket.snapshot().received_datagrams, 8);
}

#[test]
fn what_is_cut_off_is_told() {
    let mut socket = socket(SocketOptions::default());
    for (payload, room_len, expected) in
        [(&b"data"[..], 4, (4, false)), (b"data", 3, (3, true)), (b"", 0, (0, false))]
    {
        assert_eq!(socket.push(&meta(0), payload), Ok(()));
        let mut room = vec![0; room_len];
        let found = socket.recv(&mut room).map(|(len, meta)| (len, meta.truncated));
        assert_eq!(found, Some(expected));
        assert_eq!(room, payload[..room_len]);
    }
}

#[test]
fn a_full_queue_counts_each_datagram() {
    let options = SocketOptions { recv_buffer_bytes: 10, recv_datagrams_max: 2, ..SocketOptions::default() };
    let mut socket = socket(options);
    let full = Err(DropReason::UdpQueueFull);
    assert_eq!(socket.push(&meta(0), &[0; 11]), full);
    assert_eq!(socket.push(&meta(2), &[0; 5]), full);
    assert_eq!(socket.push(&meta(3), &[0; 5]), Ok(()));
    assert_eq!(socket.push(&meta(0), b""), full);
    assert_eq!(socket.dropped_datagrams(), 1 + 3 + 1);
    socket.set_options(SocketOptions { recv_datagrams_max: 3, ..options });
    assert_eq!(socket.push(&meta(0), b""), Ok(()));
}

#[test]
fn errors_reach_whom_they_reach_on_linux() {
    use ErrorKind as Kind;
    let (peer, other) = ("10.0.0.2:9", "10.0.0.3:9");
    for (remote, recv_errors, dont_fragment, kind, dst, expected) in [
        (Some(peer), false, Fragmenting::Allow, Kind::PortUnreachable, peer, true),
        (Some(peer), false, Fragmenting::Allow, Kind::PortUnreachable, other, false),
        (None, false, Fragmenting::Allow, Kind::PortUnreachable, peer, false),
        (None, true, Fragmenting::Allow, Kind::PortUnreachable, peer, true),
        (Some(peer), false, Fragmenting::Allow, Kind::HostUnreachable, peer, false),
        (Some(peer), true, Fragmenting::Allow, Kind::HostUnreachable, peer, true),
        (Some(peer), false, Fragmenting::Allow, Kind::TooBig { mtu: 1280 }, peer, false),
        (Some(peer), false, Fragmenting::Forbid, Kind::TooBig { mtu: 1280 }, peer, true),
        (None, false, Fragmenting::Forbid, Kind::TooBig { mtu: 1280 }, peer, false),
    ] {
        let mut socket = socket(SocketOptions { recv_errors, dont_fragment, ..SocketOptions::default() });
        if let Some(remote) = remote {
            socket.connect(socket.local(), at(remote)).expect("can be connected");
        }
        let error = SocketError { kind, from: at(other).ip(), dst: at(dst) };
        assert_eq!(socket.push_error(error), expected, "{remote:?} {kind}");
        assert_eq!(socket.readable(), expected);
        assert_eq!(socket.take_error(), Some(error).filter(|_| expected));
    }
    let mut socket = socket(SocketOptions { recv_errors: true, ..SocketOptions::default() });
    let error = SocketError { kind: Kind::PortUnreachable, from: at(peer).ip(), dst: at(peer) };
    for _ in 0..20 {
        socket.push_error(error);
    }
    assert_eq!((socket.snapshot().queued_errors, socket.snapshot().dropped_errors), (8, 12));
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.to_string(), "port unreachable, says 10.0.0.2 of what was sent to 10.0.0.2:9");
}

#[test]
fn what_cannot_be_sent_is_refused_before_a_route_is_looked_for() {
    let is_broadcast = |ip: IpAddr| ip == at("10.0.0.255:0").ip();
    let default = SocketOptions::default();
    let broadcast = SocketOptions { broadcast: true, ..default };
    let v6_only = SocketOptions { v6_only: true, ..default };
    let (v4, v6) = (PAYLOAD_V4_MAX, PAYLOAD_V6_MAX);
    for (local, options, to, len, expected) in [
        ("10.0.0.1:7", default, Some("10.0.0.2:9"), 0, None),
        ("10.0.0.1:7", default, None, 0, Some(SendError::NotConnected)),
        ("10.0.0.1:7", default, Some("10.0.0.2:0"), 0, Some(SendError::BadDestination)),
        ("10.0.0.1:7", default, Some("0.0.0.0:9"), 0, Some(SendError::BadDestination)),
        ("10.0.0.1:7", default, Some("10.0.0.255:9"), 0, Some(SendError::BroadcastNotAllowed)),
        ("10.0.0.1:7", broadcast, Some("10.0.0.255:9"), 0, None),
        ("10.0.0.1:7", default, Some("10.0.0.2:9"), v4, None),
        ("10.0.0.1:7", default, Some("10.0.0.2:9"), v4 + 1, Some(SendError::TooLong { max: v4 })),
        ("[::]:7", default, Some("[fd00::2]:9"), v6, None),
        ("[::]:7", default, Some("[fd00::2]:9"), v6 + 1, Some(SendError::TooLong { max: v6 })),
        ("[::]:7", default, Some("10.0.0.2:9"), 0, None),
        ("[::]:7", v6_only, Some("10.0.0.2:9"), 0, Some(SendError::AddressFamily)),
        ("[fd00::1]:7", default, Some("10.0.0.2:9"), 0, Some(SendError::AddressFamily)),
        ("0.0.0.0:7", default, Some("[fd00::2]:9"), 0, Some(SendError::AddressFamily)),
    ] {
        let socket = Socket::new(at(local), options);
        let found = socket.prepare(to.map(at), len, is_broadcast);
        assert_eq!(found.err(), expected, "{local} to {to:?}, {len} bytes");
    }
}

#[test]
fn the_options_are_in_the_packet() {
    let options = SocketOptions {
        hop_limit: Some(5),
        multicast_hop_limit: 3,
        traffic_class: 0xb9,
        dont_fragment: Fragmenting::Probe,
        ..SocketOptions::default()
    };
    for (local, to, src, hop_limit) in [
        ("10.0.0.1:7", "10.0.0.2:9", Some("10.0.0.1:0"), 5),
        ("10.0.0.1:7", "239.1.1.1:9", Some("10.0.0.1:0"), 3),
        ("0.0.0.0:7", "10.0.0.2:9", None, 5),
        ("239.1.1.1:7", "10.0.0.2:9", None, 5),
    ] {
        let prepared =
            Socket::new(at(local), options).prepare(Some(at(to)), 1, |_| false).expect("can be sent");
        let expected = PacketSpec {
            src: src.map(|src| at(src).ip()),
            hop_limit: Some(hop_limit),
            traffic_class: 0xb9,
            dont_fragment: true,
            ..PacketSpec::new(at(to).ip(), 17)
        };
        assert_eq!((prepared.dst, prepared.spec, prepared.heeds_path_mtu), (at(to), expected, false));
    }
}

#[test]
fn a_socket_hears_of_its_two_ends_and_its_groups() {
    let v6_only = SocketOptions { v6_only: true, ..SocketOptions::default() };
    for (local, options, remote, src, dst, expected) in [
        ("10.0.0.1:7", None, None, "10.0.0.2:9", "10.0.0.1:7", true),
        ("10.0.0.1:7", None, None, "10.0.0.2:9", "10.0.0.1:8", false),
        ("10.0.0.1:7", None, None, "10.0.0.2:9", "10.0.0.3:7", false),
        ("0.0.0.0:7", None, None, "10.0.0.2:9", "10.0.0.3:7", true),
        ("0.0.0.0:7", None, None, "[fd00::1]:9", "[fd00::2]:7", false),
        ("[::]:7", None, None, "10.0.0.2:9", "10.0.0.3:7", true),
        ("[::]:7", Some(v6_only), None, "10.0.0.2:9", "10.0.0.3:7", false),
        ("10.0.0.1:7", None, Some("10.0.0.2:9"), "10.0.0.2:9", "10.0.0.1:7", true),
        ("10.0.0.1:7", None, Some("10.0.0.2:9"), "10.0.0.2:8", "10.0.0.1:7", false),
        ("0.0.0.0:7", None, None, "10.0.0.2:9", "239.1.1.1:7", true),
        ("0.0.0.0:7", None, None, "10.0.0.2:9", "239.1.1.2:7", false),
    ] {
        let mut socket = Socket::new(at(local), options.unwrap_or_default());
        socket.memberships_mut().join(at("239.1.1.1:0").ip()).expect("a group");
        if let Some(remote) = remote {
            socket.connect(at(local), at(remote)).expect("can be connected");
        }
        assert_eq!(socket.accepts(at(src), at(dst)), expected, "{local}: {src} to {dst}");
    }
    let mut socket = socket(SocketOptions::default());
    let local = socket.local();
    for remote in ["0.0.0.0:9", "10.0.0.2:0"].map(at) {
        assert_eq!(socket.connect(local, remote), Err(ConnectError::BadDestination { remote }));
    }
    let remote = at("[fd00::1]:9");
    assert_eq!(socket.connect(local, remote), Err(ConnectError::AddressFamily { remote }));
    assert_eq!(socket.remote(), None);
}

#[test]
fn errors_that_nobody_takes_are_counted() {
    let mut socket = socket(SocketOptions { recv_errors: true, ..SocketOptions::default() });
    let error =
        SocketError { kind: ErrorKind::PortUnreachable, from: at("10.0.0.9:0").ip(), dst: at("10.0.0.2:9") };
    for _ in 0..10 {
        assert!(socket.push_error(error));
    }
    assert_eq!((socket.snapshot().queued_errors, socket.snapshot().dropped_errors), (8, 2));
    assert_eq!(std::iter::from_fn(|| socket.take_error()).count(), 8);
}

#[test]
fn who_is_disconnected_hears_everybody() {
    let mut socket = socket(SocketOptions::default());
    let (local, peer, other) = (at("10.0.0.1:7"), at("10.0.0.2:9"), at("10.0.0.3:9"));
    socket.connect(local, peer).expect("possible");
    assert_eq!((socket.accepts(peer, local), socket.accepts(other, local)), (true, false));
    socket.disconnect(local);
    assert_eq!((socket.remote(), socket.accepts(other, local)), (None, true));
}
