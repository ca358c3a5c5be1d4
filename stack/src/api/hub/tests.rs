//! Whoever waits, and whoever has given up waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use smoltcp::wire::EthernetAddress;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};

use super::*;
use crate::config::parse_cidr;
use crate::neighbor::AddressProbes;
use crate::shard::{SendOptions, ShardConfig, UdpBind};
use crate::udp::SendError;

#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn hub() -> (Hub, SocketId) {
    let config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, 1]));
    let mut hub = Hub::new(Shard::new(config, Instant::ZERO).expect("a shard"));
    let bind = UdpBind::new("0.0.0.0:7".parse().expect("an address"));
    let socket = hub.shard().udp_bind(bind).expect("a socket");
    (hub, socket)
}

fn wakers(hub: &Hub, socket: SocketId) -> usize {
    let read = &hub.waiting[socket.index() as usize].read;
    usize::from(read.first.is_some()) + read.others.len()
}

#[test]
fn one_waits_once() {
    let (mut hub, socket) = hub();
    let counter = Arc::<Counter>::default();
    for _ in 0..1_000 {
        hub.wait_for(socket, Interest::Read, &Arc::clone(&counter).into());
    }
    assert_eq!(wakers(&hub, socket), 1);
    hub.wake(socket);
    hub.take_woken().into_iter().for_each(Waker::wake);
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
}

#[test]
fn those_who_have_given_up_do_not_pile_up() {
    let (mut hub, socket) = hub();
    let waits = Arc::<Counter>::default();
    let mut woken = 0;
    for seconds in 0..1_000 {
        hub.shard().set_now(Instant::from_secs(seconds));
        // One who waits on, and ten who are gone at once.
        hub.wait_for(socket, Interest::Read, &Arc::clone(&waits).into());
        for _ in 0..10 {
            hub.wait_for(socket, Interest::Read, &Arc::<Counter>::default().into());
        }
        woken += hub.take_woken().into_iter().map(Waker::wake).count();
        assert!(wakers(&hub, socket) <= CROWD_LEN + 2);
    }
    assert!(woken > 9_000);
    assert!((1..=200).contains(&waits.0.load(Ordering::Relaxed)), "who waits is woken now and then");
}

/// As many as like may wait, and are not woken all the time because there are many.
#[test]
fn a_crowd_that_waits_is_left_in_peace() {
    let (mut hub, socket) = hub();
    let crowd: Vec<_> = (0..1_000).map(|_| Arc::<Counter>::default()).collect();
    for _ in 0..100 {
        for one in &crowd {
            hub.wait_for(socket, Interest::Read, &Arc::clone(one).into());
        }
        hub.take_woken().into_iter().for_each(Waker::wake);
    }
    // No time has gone by: once.
    assert!(crowd.iter().all(|one| one.0.load(Ordering::Relaxed) <= 1));
    assert_eq!(wakers(&hub, socket), crowd.len());
    hub.fail(io::ErrorKind::NetworkDown);
    assert_eq!(hub.take_woken().len(), crowd.len());
    assert_eq!(wakers(&hub, socket), 0);
}

/// A number that is used again is that of another socket.
#[test]
fn a_socket_is_not_its_predecessor() {
    let (mut hub, before) = hub();
    hub.wait_for(before, Interest::Read, Waker::noop());
    hub.stop_reading(before);
    assert!(!hub.tell_failure(before) && hub.tell_failure(before));
    hub.close(before);
    let bind = UdpBind::new("0.0.0.0:7".parse().expect("an address"));
    let socket = hub.shard().udp_bind(bind).expect("a socket");
    assert_eq!(socket.index(), before.index());
    assert!(!hub.has_stopped_reading(socket) && !hub.tell_failure(socket));
    hub.wait_for(socket, Interest::Write, Waker::noop());
    hub.wake(before);
    assert_eq!(wakers(&hub, socket), 0);
    assert_eq!(hub.take_woken().len(), 1, "whoever waited for the one that was closed");
}

/// Our end, and one that nobody looks at.
type Wire = (Loopback<'static>, Loopback<'static>);

/// A hub on a link on which nobody answers, where two datagrams at most wait for neighbours.
fn lonely_hub() -> (Hub, Wire, SocketId) {
    let wire = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, 1]))
        .address(parse_cidr("10.0.0.1/24").expect("an address"));
    config.neighbor.probes = AddressProbes::None;
    config.neighbor.parked_total_bytes_max = 3_000;
    // The device takes all of it.
    config.outbox_bytes_max = 20_000;
    let mut hub = Hub::new(Shard::new(config, Instant::ZERO).expect("a shard"));
    let bind = UdpBind::new("0.0.0.0:7".parse().expect("an address"));
    let socket = hub.shard().udp_bind(bind).expect("a socket");
    (hub, wire, socket)
}

fn turn(hub: &mut Hub, (nic, _): &mut Wire, now: Instant) -> usize {
    hub.receive(now, nic);
    hub.send(nic);
    hub.take_woken().len()
}

fn send(hub: &mut Hub, socket: SocketId, to: &str) -> Result<(), SendError> {
    let options = SendOptions { to: Some(to.parse().expect("an address")), ..SendOptions::default() };
    hub.shard().udp_send_with(socket, &options, 1_000, |room| room.fill(0))
}

fn fill(hub: &mut Hub, socket: SocketId, to: &str) -> SendError {
    loop {
        if let Err(error) = send(hub, socket, to) {
            return error;
        }
    }
}

/// What is sent here waits for no neighbour.
const GROUP: &str = "239.1.1.1:7";

/// There is always room on the way out, and that is of no use to him.
#[test]
fn who_waits_for_a_neighbour_is_left_in_peace_until_one_is_given_up() {
    let (mut hub, mut wire, socket) = lonely_hub();
    turn(&mut hub, &mut wire, Instant::ZERO);
    for _ in 0..2 {
        send(&mut hub, socket, "10.0.0.2:7").expect("room");
    }
    assert_eq!(send(&mut hub, socket, "10.0.0.3:7"), Err(SendError::WouldBlock));
    hub.wait_for_room(Waker::noop());
    let mut woken_at = None;
    for millis in 0..10_000 {
        match turn(&mut hub, &mut wire, Instant::from_millis(millis)) {
            0 => {}
            1 if woken_at.is_none() => woken_at = Some(millis),
            more => panic!("{more} woken after {millis} ms"),
        }
    }
    // It is asked three times, a second apart.
    assert!(woken_at.is_some_and(|millis| (3_000..3_100).contains(&millis)), "{woken_at:?}");
    send(&mut hub, socket, "10.0.0.3:7").expect("room");
}

/// The other way round: what waits for neighbours does not matter to who waits for the device.
#[test]
fn who_waits_for_the_way_out_does_not_wait_for_neighbours() {
    let (mut hub, mut wire, socket) = lonely_hub();
    turn(&mut hub, &mut wire, Instant::ZERO);
    send(&mut hub, socket, "10.0.0.2:7").expect("room");
    assert_eq!(fill(&mut hub, socket, GROUP), SendError::WouldBlock);
    hub.wait_for_room(Waker::noop());
    let woken: usize = (0..100).map(|_| turn(&mut hub, &mut wire, Instant::ZERO)).sum();
    assert_eq!(woken, 1);
    assert!(hub.shard_ref().neighbors.parked_bytes() > 0);
}

#[test]
fn a_fault_is_told_to_everybody() {
    let (mut hub, mut wire, socket) = lonely_hub();
    turn(&mut hub, &mut wire, Instant::ZERO);
    let counters: Vec<_> = (0..5).map(|_| Arc::<Counter>::default()).collect();
    let wakers: Vec<Waker> = counters.iter().map(|counter| Arc::clone(counter).into()).collect();
    hub.wait_for(socket, Interest::Read, &wakers[0]);
    hub.wait_for(socket, Interest::Write, &wakers[1]);
    hub.wait_for_sockets(&wakers[2]);
    for _ in 0..2 {
        send(&mut hub, socket, "10.0.0.2:7").expect("room");
    }
    for (to, waker) in [("10.0.0.3:7", &wakers[3]), (GROUP, &wakers[4])] {
        assert_eq!(fill(&mut hub, socket, to), SendError::WouldBlock);
        hub.wait_for_room(waker);
    }
    hub.fail(io::ErrorKind::NetworkDown);
    hub.take_woken().into_iter().for_each(Waker::wake);
    let woken: Vec<_> = counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [1; 5]);
}
