//! The table against the tables of the RFCs, and against strangers.

mod arp;
mod model;
mod ndp;
mod nud;
mod own;
mod room;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};
use wirestack_nic::FrameMeta;

use super::{Lookup, NeighborConfig, Output, State, Table};
use crate::ingress::{IpPacket, Link};
use crate::ip::address::{Address, AddressState, Addresses, Origin, solicited_node};
use crate::observe::DropReason;
use crate::random::Random;

const ME: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const NOBODY: EthernetAddress = EthernetAddress([0; 6]);
const MY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const MY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const START: Instant = Instant::from_micros_const(1_000_000_000);

/// The hardware address of a neighbour.
fn mac(n: u16) -> EthernetAddress {
    let [high, low] = n.to_be_bytes();
    EthernetAddress([2, 0, 0, 1, high, low])
}

fn v4(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low)
}

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n)
}

fn table(config: NeighborConfig) -> Table {
    Table::new(config, ME, Random::new(7), START)
}

fn default_table() -> Table {
    table(NeighborConfig::default())
}

fn addresses() -> Addresses {
    let mut addresses = Addresses::new();
    for cidr in [IpCidr::new(MY_V4.into(), 16), IpCidr::new(MY_V6.into(), 64)] {
        assert!(addresses.insert(Address::preferred(cidr, Origin::Static)));
    }
    addresses
}

fn link(src: EthernetAddress, dst: EthernetAddress) -> Link {
    Link { src, dst, vlans: [None; 2], len: 14 }
}

fn after(ms: u64) -> Instant {
    START + Duration::from_millis(ms)
}

/// An ARP message between neighbours and us.
fn arp(operation: u16, sender: (EthernetAddress, Ipv4Addr), target: Ipv4Addr) -> [u8; 28] {
    super::arp::build(operation, sender.0, sender.1, NOBODY, target)
}

/// A message of NDP: type, flags, target, options. Its checksum is not looked at.
fn ndp(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, flags, 0, 0, 0], &target.octets()[..], options].concat()
}

fn lladdr(kind: u8, mac: EthernetAddress) -> Vec<u8> {
    [&[kind, 1], &mac.0[..]].concat()
}

fn ip(src: Ipv6Addr, dst: Ipv6Addr) -> IpPacket {
    IpPacket {
        src: src.into(),
        dst: dst.into(),
        start: 14,
        transport: 54,
        end: 86,
        protocol: 58,
        hop_limit: 255,
        traffic_class: 0,
        fragment: None,
        ports: None,
        dont_fragment: true,
        router_alert: false,
        problem: None,
    }
}

/// An answer of a neighbour to a request of ours, in its family.
fn answer(
    table: &mut Table,
    now: Instant,
    neighbor: IpAddr,
    from: EthernetAddress,
) -> Result<(), DropReason> {
    let link = link(from, ME);
    match neighbor {
        IpAddr::V4(neighbor) => table.handle_arp(now, &link, &arp(2, (from, neighbor), MY_V4), &addresses()),
        IpAddr::V6(neighbor) => {
            let message = ndp(136, 0x60, neighbor, &lladdr(2, from));
            table.handle_ndp(now, Some(&link), &ip(neighbor, MY_V6), &message, &addresses())
        }
    }
}

fn source(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { MY_V4.into() } else { MY_V6.into() }
}

/// A frame to a neighbour that is known by its number.
fn frame(number: u64, len: usize) -> Vec<u8> {
    let mut frame = vec![0; 14];
    frame.extend(number.to_be_bytes());
    frame.resize(len.max(22), 0);
    frame
}

fn number(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().expect("8 bytes"))
}

fn park(table: &mut Table, now: Instant, neighbor: IpAddr, number: u64) -> Result<(), DropReason> {
    table.park(now, neighbor, source(neighbor), &frame(number, 60), &FrameMeta::default())
}

fn drain(table: &mut Table) -> Vec<Output> {
    std::iter::from_fn(|| table.poll_output()).collect()
}

/// Fires everything up to `until`, at the times that the table asks for, and returns when what came out.
fn run(table: &mut Table, until: Instant) -> Vec<(Instant, Output)> {
    let mut seen = Vec::new();
    while let Some(deadline) = table.next_deadline().filter(|deadline| *deadline <= until) {
        table.handle_timeout(deadline);
        seen.extend(drain(table).into_iter().map(|output| (deadline, output)));
    }
    seen
}

fn state(table: &Table, ip: IpAddr) -> Option<State> {
    table.get(ip).map(|info| info.state)
}

/// A table in which a neighbour of this state and hardware address is the only one.
fn table_with(ip: IpAddr, wanted: State, known: EthernetAddress) -> Table {
    let mut table = default_table();
    let begin = after(0) - Duration::from_secs(100);
    let earlier = begin - Duration::from_secs(100);
    match wanted {
        State::Incomplete => park(&mut table, START, ip, 1).expect("room"),
        State::Permanent => table.insert_static(begin, ip, known).expect("room"),
        State::Failed => {
            park(&mut table, begin, ip, 1).expect("room");
            run(&mut table, after(0) - Duration::from_secs(97));
        }
        State::Stale => table.learn(earlier, ip, known).expect("room"),
        State::Reachable => {
            table.learn(earlier, ip, known).expect("room");
            table.confirm(START, ip);
        }
        State::Delay | State::Probe => {
            table.note_source(source(ip));
            table.learn(earlier, ip, known).expect("room");
            let used = if wanted == State::Probe { after(0) - Duration::from_secs(5) } else { START };
            assert_eq!(table.lookup(used, ip), Lookup::Known(known));
            table.handle_timeout(START);
        }
    }
    if wanted != State::Failed {
        assert_eq!(state(&table, ip), Some(wanted));
    }
    drain(&mut table);
    table
}
