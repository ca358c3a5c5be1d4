//! Whoever waits, and whoever has given up waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use smoltcp::wire::EthernetAddress;

use super::*;
use crate::shard::{ShardConfig, UdpBind};

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
