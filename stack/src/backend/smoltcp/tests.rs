//! Hosts against each other, over memory and in virtual time.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use smoltcp::iface::SocketStorage;
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
    UdpRepr,
};
use wirestack_nic::Nic;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};

use super::{Conn, Datagrams, Host};
use crate::config::{HostConfig, parse_cidr};
use crate::error::{ConnectError, ListenError};

const SERVER: &str = "10.0.0.1";
const CLIENT: &str = "10.0.0.2";

fn config<'a>(address: &str, seed: u64) -> HostConfig<'a> {
    let last = address.rsplit('.').next().and_then(|byte| byte.parse().ok()).expect("a test's address");
    let mut config = HostConfig::new(EthernetAddress([2, 0, 0, 0, 0, last]));
    config.seed = seed;
    config.address(parse_cidr(&format!("{address}/24")).expect("a test's address"))
}

fn remote(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.parse().expect("a test's address"), port)
}

/// Two hosts and a clock that jumps from deadline to deadline.
struct Pair<'a> {
    server: Host<'a, Loopback<'static>>,
    client: Host<'a, Loopback<'static>>,
    now: Instant,
}

impl<'a> Pair<'a> {
    fn new(server: HostConfig<'a>, client: HostConfig<'a>) -> Self {
        let (at_server, at_client) = Loopback::pair(&LoopbackConfig::default()).expect("a good pair");
        Self {
            server: Host::new(at_server, server).expect("a good host"),
            client: Host::new(at_client, client).expect("a good host"),
            now: Instant::from_secs(1),
        }
    }

    /// Turns both hosts until `done`, or fails after a number of turns or of virtual seconds.
    fn drive(&mut self, seconds: u64, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + Duration::from_secs(seconds);
        for _ in 0..1_000_000 {
            let next = [self.server.turn(self.now), self.client.turn(self.now)].into_iter().flatten().min();
            if done(self) {
                return;
            }
            assert!(
                self.now < end,
                "not done after {seconds} s: server {:?}, client {:?}",
                states(&self.server),
                states(&self.client)
            );
            // A frame on the wire arrives a microsecond later.
            let soon = self.now + Duration::from_micros(1);
            let on_the_wire = |host: &mut Host<'a, Loopback<'static>>| host.nic().receive(self.now).is_some();
            let busy = on_the_wire(&mut self.server) || on_the_wire(&mut self.client);
            self.now = if busy { soon } else { next.unwrap_or(end).max(soon).min(end) };
        }
        panic!("not done after a million turns");
    }
}

fn states(host: &Host<'_, Loopback<'static>>) -> Vec<State> {
    let state = |handle| host.sockets.get::<tcp::Socket<'_>>(handle).state();
    host.connections.iter().map(|connection| state(connection.socket)).collect()
}

type Log = Rc<RefCell<Vec<u8>>>;

/// A handler that sends `bytes`, closes, collects what comes, and notes when it has ended.
fn sender(bytes: Vec<u8>, log: Log, ended: Rc<RefCell<bool>>) -> impl FnMut(&mut Conn<'_, '_>) {
    let mut sent = 0;
    move |conn: &mut Conn<'_, '_>| {
        if !conn.is_open() {
            *ended.borrow_mut() = true;
        }
        while sent < bytes.len() {
            match conn.send(&bytes[sent..]) {
                0 => break,
                len => sent += len,
            }
        }
        while conn.recv_with(|came| (came.len(), log.borrow_mut().extend_from_slice(came))).is_some() {}
        if sent == bytes.len() {
            conn.close();
        }
    }
}

/// A handler that sends back what comes.
fn echo(conn: &mut Conn<'_, '_>) {
    let mut buffer = [0; 1000];
    loop {
        let len = conn.readable().min(conn.room()).min(buffer.len());
        if len == 0 {
            break;
        }
        let len = conn.recv(&mut buffer[..len]);
        conn.send(&buffer[..len]);
    }
    if conn.peer_finished() {
        conn.close();
    }
}

#[test]
fn bytes_go_there_and_come_back() {
    let mut pair = Pair::new(config(SERVER, 1), config(CLIENT, 2));
    pair.server.listen(7, |_| echo).expect("free");
    let (log, ended) = (Log::default(), Rc::default());
    let bytes: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
    let local = pair
        .client
        .connect(remote(7), pair.now, sender(bytes.clone(), log.clone(), Rc::clone(&ended)))
        .expect("reachable");
    assert!((61_000..=65_535).contains(&local.port()));
    pair.drive(60, |pair| *ended.borrow() && pair.server.connections_len() == 0);
    assert!(*log.borrow() == bytes, "{} bytes came back", log.borrow().len());
    assert_eq!((pair.server.stats().accepted, pair.client.stats().connected), (1, 1));
    // The side that closed first is in TIME-WAIT, and leaves it.
    pair.drive(60, |pair| pair.client.connections_len() == 0);
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let mut pair = Pair::new(config(SERVER, seed), config(CLIENT, seed + 100));
        pair.server.listen(7, |_| echo).expect("free");
        let ended = Rc::default();
        let local = pair
            .client
            .connect(remote(7), pair.now, sender(vec![7; 5000], Log::default(), Rc::clone(&ended)))
            .expect("reachable");
        pair.drive(60, |_| *ended.borrow());
        (local, pair.now, pair.server.nic().counters(), pair.client.stats())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}

#[test]
fn a_closed_port_and_a_silent_address_end_the_handler() {
    let mut pair = Pair::new(config(SERVER, 1), config(CLIENT, 2));
    let refused = Rc::default();
    pair.client
        .connect(remote(9), pair.now, sender(Vec::new(), Log::default(), Rc::clone(&refused)))
        .expect("sent");
    pair.drive(1, |_| *refused.borrow());

    let silent = Rc::default();
    let nobody = "10.0.0.99:7".parse().expect("an address");
    let begun = pair.now;
    pair.client.connect(nobody, begun, sender(Vec::new(), Log::default(), Rc::clone(&silent))).expect("sent");
    pair.drive(30, |_| *silent.borrow());
    assert_eq!((pair.now - begun).secs(), 10, "the handshake timeout");
    assert_eq!(pair.client.stats().handshakes_timed_out, 1);
    pair.drive(5, |pair| pair.client.connections_len() == 0);
    assert_eq!(pair.client.stats().resets_unsent, 1, "nobody has told the hardware address");
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let mut pair = Pair::new(config(SERVER, 1), HostConfig { source_ports: 70..=71, ..config(CLIENT, 2) });
    let now = pair.now;
    let mut connect = |to: &str| {
        let to = to.parse().expect("an address");
        pair.client.connect(to, now, |_: &mut Conn<'_, '_>| ()).map(|local| local.port())
    };
    for to in ["10.0.0.1:0", "224.0.0.1:7", "[fd00::1]:7", "0.0.0.0:7", "255.255.255.255:7"] {
        assert!(matches!(connect(to), Err(ConnectError::Unaddressable { .. })), "{to}");
    }
    let mut ports = [connect("10.0.0.1:7"), connect("10.0.0.1:7")].map(|port| port.expect("two are free"));
    ports.sort_unstable();
    assert_eq!(ports, [70, 71]);
    assert_eq!(connect("10.0.0.1:7"), Err(ConnectError::NoPort { ports: 70..=71 }));

    pair.server.listen(80, |_| echo).expect("free");
    assert_eq!(pair.server.listen(80, |_| echo), Err(ListenError::InUse { port: 80 }));
    assert_eq!(pair.server.listen(0, |_| echo), Err(ListenError::PortZero));
    pair.server.bind_udp(80, |_| ()).expect("another protocol");
    assert_eq!(pair.server.bind_udp(80, |_| ()), Err(ListenError::InUse { port: 80 }));
    assert_eq!(pair.server.bind_udp(0, |_| ()), Err(ListenError::PortZero));
}

#[test]
fn borrowed_storage_is_the_limit_and_sockets_are_used_again() {
    let mut storage = [const { SocketStorage::EMPTY }; 3];
    let server = HostConfig { sockets: (&mut storage[..]).into(), sockets_max: 3, ..config(SERVER, 1) };
    let mut pair = Pair::new(server, config(CLIENT, 2));
    pair.server.listen(7, |_| echo).expect("free");
    for round in 0..10 {
        let ended = Rc::default();
        let handler = sender(vec![round; 2000], Log::default(), Rc::clone(&ended));
        pair.client.connect(remote(7), pair.now, handler).expect("reachable");
        pair.drive(60, |pair| *ended.borrow() && pair.server.connections_len() == 0);
    }
    assert_eq!(pair.server.stats().accepted, 10);

    // Three connections take all sockets; the fourth is refused.
    let hold = |_: &mut Conn<'_, '_>| ();
    for _ in 0..3 {
        pair.client.connect(remote(7), pair.now, hold).expect("reachable");
    }
    pair.drive(5, |pair| pair.client.stats().connected == 13);
    let refused = Rc::default();
    pair.client
        .connect(remote(7), pair.now, sender(Vec::new(), Log::default(), Rc::clone(&refused)))
        .expect("sent");
    pair.drive(5, |_| *refused.borrow());
    assert_eq!(pair.server.connections_len(), 3);
    let nowhere = pair.server.listen(8, |_| echo);
    assert_eq!(nowhere, Err(ListenError::NoSocket { sockets_max: 3 }));
}

/// The server closes first, so it is the one in TIME-WAIT, for ten seconds; there are ten connections
/// in much less, and three sockets.
#[test]
fn connections_in_time_wait_make_room() {
    let mut pair = Pair::new(HostConfig { sockets_max: 3, ..config(SERVER, 1) }, config(CLIENT, 2));
    pair.server.listen(7, |_| |conn: &mut Conn<'_, '_>| conn.close()).expect("free");
    let begun = pair.now;
    for _ in 0..10 {
        let ended = Rc::new(RefCell::new(false));
        let note = Rc::clone(&ended);
        let handler = move |conn: &mut Conn<'_, '_>| {
            *note.borrow_mut() |= !conn.is_open();
            if conn.peer_finished() {
                conn.close();
            }
        };
        pair.client.connect(remote(7), pair.now, handler).expect("reachable");
        pair.drive(5, |_| *ended.borrow());
    }
    let taken = pair.now - begun;
    assert!(taken < Duration::from_secs(5), "{taken}: {:?}", pair.server.stats());
    assert_eq!((pair.server.stats().accepted, pair.server.stats().recycled), (10, 8));
}

/// The other end of a host's wire, with frames made by hand.
struct Stranger(Loopback<'static>);

impl Stranger {
    fn send(&mut self, frame: &[u8]) -> bool {
        let Some(token) = self.0.transmit(Instant::ZERO) else { return false };
        token.consume(frame.len(), |buffer| buffer.copy_from_slice(frame));
        true
    }

    /// Frames that wait at this end, thrown away; returns how many.
    fn discard(&mut self) -> usize {
        let mut count = 0;
        while let Some((token, _)) = self.0.receive(Instant::ZERO) {
            token.consume(|_| ());
            count += 1;
        }
        count
    }
}

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xee]);
const STRANGER: Ipv4Address = Ipv4Address::new(10, 0, 0, 99);

fn frame(ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = EthernetRepr { src_addr: MAC, dst_addr: EthernetAddress([2, 0, 0, 0, 0, 1]), ethertype };
    let mut frame = vec![0; 14];
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    frame.extend_from_slice(payload);
    frame
}

/// Makes the host know the stranger's hardware address.
fn arp() -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MAC,
        source_protocol_addr: STRANGER,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: Ipv4Address::new(10, 0, 0, 1),
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut packet[..]));
    frame(EthernetProtocol::Arp, &packet)
}

fn segment(src_port: u16, control: TcpControl, seq: i32) -> Vec<u8> {
    segment_from(STRANGER, src_port, control, seq)
}

fn segment_from(src: Ipv4Address, src_port: u16, control: TcpControl, seq: i32) -> Vec<u8> {
    let dst = Ipv4Address::new(10, 0, 0, 1);
    let tcp = TcpRepr {
        src_port,
        dst_port: 7,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; ip.buffer_len() + tcp.buffer_len()];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &Default::default());
    let mut segment = TcpPacket::new_unchecked(&mut packet[20..]);
    tcp.emit(&mut segment, &src.into(), &dst.into(), &Default::default());
    frame(EthernetProtocol::Ipv4, &packet)
}

fn host_and_stranger<'a>(config: HostConfig<'a>) -> (Host<'a, Loopback<'static>>, Stranger) {
    let wire = LoopbackConfig { queue_len: 1024, ..LoopbackConfig::default() };
    let (ours, theirs) = Loopback::pair(&wire).expect("a good pair");
    let mut stranger = Stranger(theirs);
    assert!(stranger.send(&arp()));
    (Host::new(ours, config).expect("a good host"), stranger)
}

#[test]
fn half_open_connections_end_after_the_timeout_and_make_room() {
    let (mut host, mut stranger) = host_and_stranger(HostConfig { sockets_max: 8, ..config(SERVER, 1) });
    host.listen(7, |_| echo).expect("free");
    let mut now = Instant::from_secs(1);
    for port in 1000..1100 {
        stranger.send(&segment(port, TcpControl::Syn, 5));
    }
    host.turn(now);
    assert_eq!(host.connections_len(), 8, "the limit");
    while now < Instant::from_secs(20) && host.stats().handshakes_timed_out < 8 {
        let deadline = host.turn(now).expect("timers run");
        stranger.discard();
        now = deadline.max(now + Duration::from_millis(1));
    }
    assert_eq!(now.secs(), 11, "ten seconds after the SYN");
    host.turn(now);
    assert_eq!(host.connections_len(), 0);
    // There is a listener again.
    stranger.discard();
    stranger.send(&segment(2000, TcpControl::Syn, 5));
    host.turn(now);
    assert_eq!(host.connections_len(), 1);
}

#[test]
fn a_handshake_that_the_peer_resets_leaves_nothing() {
    let (mut host, mut stranger) = host_and_stranger(config(SERVER, 1));
    host.listen(7, |_| echo).expect("free");
    let now = Instant::from_secs(1);
    for port in 1000..1050 {
        stranger.send(&segment(port, TcpControl::Syn, 5));
        stranger.send(&segment(port, TcpControl::Rst, 6));
        host.turn(now);
        stranger.discard();
    }
    host.turn(now);
    assert_eq!((host.connections_len(), host.stats().accepted), (0, 0));
    // Their sockets are used again: the listener's, and one that was taken while it was replaced.
    assert!(host.sockets_made <= 2, "{} sockets", host.sockets_made);
}

/// A SYN whose sender cannot be answered: on no prefix of ours without a gateway, on our prefix but
/// silent, our own address.
#[test]
fn peers_that_cannot_be_answered_are_forgotten_and_keep_nobody_busy() {
    for sender in
        [Ipv4Address::new(192, 0, 2, 1), Ipv4Address::new(10, 0, 0, 50), Ipv4Address::new(10, 0, 0, 1)]
    {
        let (mut host, mut stranger) = host_and_stranger(config(SERVER, 1));
        host.listen(7, |_| echo).expect("free");
        let mut now = Instant::from_secs(1);
        stranger.send(&segment_from(sender, 1000, TcpControl::Syn, 5));
        let mut turns = 0;
        while now < Instant::from_secs(20) {
            let deadline = host.turn(now).unwrap_or(Instant::from_secs(20));
            stranger.discard();
            turns += 1;
            assert!(deadline > now, "{sender}: a turn that comes again at once, at {now}");
            now = deadline;
        }
        assert_eq!(host.connections_len(), 0, "{sender}");
        assert!(turns < 15_000, "{sender}: {turns} turns in 19 seconds");
    }
}

fn datagram_from(src: Ipv4Address, payload: &[u8]) -> Vec<u8> {
    let dst = Ipv4Address::new(10, 0, 0, 1);
    let udp = UdpRepr { src_port: 9, dst_port: 7 };
    let len = udp.header_len() + payload.len();
    let ip = Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: IpProtocol::Udp,
        payload_len: len,
        hop_limit: 64,
    };
    let mut packet = vec![0; ip.buffer_len() + len];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &Default::default());
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut packet[20..]),
        &src.into(),
        &dst.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &Default::default(),
    );
    frame(EthernetProtocol::Ipv4, &packet)
}

/// The wire takes nothing more: what is due cannot be sent, and "now" would be the answer for ever.
#[test]
fn a_full_device_keeps_nobody_busy() {
    let wire = LoopbackConfig { queue_len: 1, ..LoopbackConfig::default() };
    let (ours, theirs) = Loopback::pair(&wire).expect("a good pair");
    let mut host = Host::new(ours, config(SERVER, 1)).expect("a good host");
    let mut stranger = Stranger(theirs);
    host.listen(7, |_| echo).expect("free");
    let now = Instant::from_secs(1);
    assert!(stranger.send(&arp()));
    host.turn(now);
    stranger.discard();
    for port in [1000, 1001] {
        assert!(stranger.send(&segment(port, TcpControl::Syn, 5)));
        // The first SYN-ACK fills the wire.
        let deadline = host.turn(now).expect("a SYN-ACK waits, or its timer runs");
        assert!(deadline > now, "{deadline}");
    }
    assert_eq!(stranger.discard(), 1);
    host.turn(now);
    host.turn(now);
    assert_eq!(stranger.discard(), 1, "the second one");
}

#[test]
fn a_datagram_that_cannot_be_answered_does_not_stop_the_others() {
    for sender in [Ipv4Address::new(192, 0, 2, 1), Ipv4Address::new(10, 0, 0, 50)] {
        let (mut host, mut stranger) = host_and_stranger(config(SERVER, 1));
        let serve = |datagrams: &mut Datagrams<'_, '_>| {
            let mut buffer = [0; 100];
            while let Some((len, peer)) = datagrams.recv(&mut buffer) {
                datagrams.send(peer, &buffer[..len]);
            }
        };
        host.bind_udp(7, serve).expect("free");
        let mut now = Instant::from_secs(1);
        for _ in 0..300 {
            stranger.send(&datagram_from(sender, b"answer me"));
        }
        while now < Instant::from_secs(10) {
            now = host.turn(now).unwrap_or(Instant::from_secs(10)).max(now + Duration::from_micros(1));
            stranger.discard();
        }
        assert!(host.stats().datagrams_unsent > 0, "{sender}");
        assert!(stranger.send(&datagram_from(STRANGER, b"and me")));
        host.turn(now);
        assert_eq!(stranger.discard(), 1, "{sender}: the answer");
    }
}

#[test]
fn a_turn_is_bounded_under_a_flood() {
    let (mut host, mut stranger) = host_and_stranger(config(SERVER, 1));
    let mut flood = 0;
    while stranger.send(&segment(1000, TcpControl::Rst, 5)) {
        flood += 1;
    }
    assert!(flood > 1000);
    let now = Instant::from_secs(1);
    assert_eq!(host.turn(now), Some(now), "there is more: come again at once");
    assert_eq!(host.nic().counters().rx_frames, 256);
    let mut turns = 1;
    while host.turn(now) == Some(now) {
        turns += 1;
    }
    assert_eq!(turns, (flood + 1) / 256);
}

#[test]
fn closing_a_host_closes_its_connections_in_good_order() {
    let mut pair = Pair::new(config(SERVER, 1), config(CLIENT, 2));
    pair.server.listen(7, |_| echo).expect("free");
    let seen = Rc::new(RefCell::new(false));
    let note = Rc::clone(&seen);
    let handler = move |conn: &mut Conn<'_, '_>| {
        if conn.peer_finished() && conn.is_open() {
            *note.borrow_mut() = true;
            conn.close();
        }
    };
    pair.client.connect(remote(7), pair.now, handler).expect("reachable");
    pair.drive(5, |pair| pair.server.stats().accepted == 1 && pair.client.stats().connected == 1);
    assert!(!pair.server.is_quiet());
    pair.server.close();
    pair.drive(5, |pair| pair.server.is_quiet() && *seen.borrow());
    // Nobody listens any more.
    let refused = Rc::default();
    let handler = sender(Vec::new(), Log::default(), Rc::clone(&refused));
    pair.client.connect(remote(7), pair.now, handler).expect("sent");
    pair.drive(5, |_| *refused.borrow());
}
