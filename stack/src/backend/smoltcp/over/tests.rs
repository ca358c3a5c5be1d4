//! Two hosts over two shards, on one wire in memory.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};

use super::*;
use crate::backend::smoltcp::Conn;
use crate::config::parse_cidr;
use crate::neighbor::AddressProbes;
use crate::shard::ShardConfig;

type OverHost = Host<'static, Over<'static, Loopback<'static>>>;

fn host(nic: Loopback<'static>, number: u8) -> OverHost {
    let mac = EthernetAddress([2, 0, 0, 0, 0, number]);
    let mut config = ShardConfig::new(mac);
    config.seed = number.into();
    for cidr in [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")] {
        config = config.address(parse_cidr(&cidr).expect("an address"));
    }
    config.neighbor.probes = AddressProbes::None;
    let shard = Shard::new(config, Instant::ZERO).expect("a shard");
    Host::over(Over::new(nic, shard, Box::new(|_| {})), HostConfig::new(mac)).expect("a host")
}

fn pair() -> [OverHost; 2] {
    let (left, right) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
    let mut hosts = [host(left, 1), host(right, 2)];
    let echo = || {
        |conn: &mut Conn<'_, '_>| {
            let mut buffer = [0; 4096];
            let len = conn.readable().min(conn.room()).min(buffer.len());
            let len = conn.recv(&mut buffer[..len]);
            conn.send(&buffer[..len]);
        }
    };
    hosts[1].listen(7, move |_| echo()).expect("port 7");
    hosts
}

/// Turns both for so long.
fn advance(hosts: &mut [OverHost; 2], now: &mut Instant, duration: Duration) {
    let end = *now + duration;
    while *now < end {
        for host in hosts.iter_mut() {
            host.turn(*now);
            host.follow_addresses();
        }
        *now += Duration::from_millis(1);
    }
}

#[test]
fn connections_go_over_shards() {
    for to in ["10.0.0.2:7", "[fd00::2]:7", "10.0.0.1:9"] {
        let mut hosts = pair();
        let mut now = Instant::from_millis(1_000);
        advance(&mut hosts, &mut now, Duration::from_millis(5));
        let to: SocketAddr = to.parse().expect("an address");
        if to.port() == 9 {
            // To ourselves: these segments never see the device.
            let greet = |conn: &mut Conn<'_, '_>| {
                let len = conn.recv_with(|bytes| (bytes.len(), bytes.len())).unwrap_or(0);
                conn.send(&vec![7; len]);
            };
            hosts[0].listen(9, move |_| greet).expect("port 9");
        }
        let received = Rc::new(RefCell::new(0));
        let (count, mut left) = (Rc::clone(&received), 20_000);
        let handler = move |conn: &mut Conn<'_, '_>| {
            left -= conn.send(&[7; 20_000][..left]);
            while let Some(len) = conn.recv_with(|bytes| (bytes.len(), bytes.len())) {
                *count.borrow_mut() += len;
            }
        };
        hosts[0].connect(to, now, handler).expect("a way");
        advance(&mut hosts, &mut now, Duration::from_secs(2));
        assert_eq!(*received.borrow(), 20_000, "{to}");
    }
}

#[test]
fn a_connection_ends_with_its_address() {
    let mut hosts = pair();
    let mut now = Instant::from_millis(1_000);
    advance(&mut hosts, &mut now, Duration::from_millis(5));
    let open = Rc::new(RefCell::new(None));
    let seen = Rc::clone(&open);
    let handler = move |conn: &mut Conn<'_, '_>| *seen.borrow_mut() = Some(conn.is_open());
    hosts[0].connect("10.0.0.2:7".parse().expect("an address"), now, handler).expect("a way");
    advance(&mut hosts, &mut now, Duration::from_millis(100));
    assert_eq!(*open.borrow(), Some(true));
    let gone = "10.0.0.1".parse().expect("an address");
    hosts[0].nic().shard().push_command(Command::RemoveAddress(gone)).expect("room");
    hosts[0].turn(now);
    assert!(hosts[0].follow_addresses() && !hosts[0].follow_addresses());
    advance(&mut hosts, &mut now, Duration::from_millis(100));
    assert_eq!(*open.borrow(), Some(false));
}
