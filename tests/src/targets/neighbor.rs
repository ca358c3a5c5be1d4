//! The neighbour table under any order of messages, lookups, frames and time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};
use wirestack::ingress::{IpPacket, Link};
use wirestack::ip::address::{Address, Addresses, Origin, solicited_node};
use wirestack::neighbor::{AddressDefence, AddressProbes, Lookup, NeighborConfig, Output, State, Table};
use wirestack::nic::FrameMeta;
use wirestack::observe::DropReason;
use wirestack::random::Random;

/// A byte for the configuration, and steps: a byte that says which, and what it needs. Bounds hold after each
/// step; in the end time passes, and every frame that was taken has come back once.
pub fn neighbor(bytes: &[u8]) {
    let Some((config, steps)) = bytes.split_first() else { return };
    let mut play = Play::new(*config, steps);
    while let Some(kind) = play.byte() {
        play.step(kind);
        play.check();
    }
    play.settle();
}

/// Inputs from which to begin.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let request =
        [&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0][..], &OUR_V4.octets()]
            .concat();
    let solicitation =
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &OUR_V6.octets(), &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    let raw = |kind: u8, message: &[u8]| [&[kind, message.len() as u8][..], message].concat();
    vec![
        // Park, be answered, fetch; be used until it is asked.
        vec![0, 1, 4, 60, 8, 2, 4, 0, 1, 9, 200, 0, 4, 10, 40, 10, 200, 10, 200, 9, 9],
        // The same over IPv6; park for one that is silent.
        vec![9, 1, 5, 60, 1, 5, 60, 7, 0x60, 5, 5, 1, 9, 3, 1, 6, 60, 10, 255, 10, 255, 9, 200, 0, 6],
        [&[2][..], &raw(5, &request), &[0, 9], &raw(6, &solicitation), &[9, 9]].concat(),
        // Addresses of our own, and somebody who has one.
        vec![4, 11, 0, 10, 255, 8, 1, 0, 9, 2, 11, 1, 10, 100, 7, 0x20, 1, 1, 2, 12, 0, 9, 50],
        // More neighbours than there is room for.
        (2..40).flat_map(|n| [1, n, 30, 3, n, 2]).chain([4, 3, 2, 3, 13, 4, 14, 10, 99]).collect(),
    ]
}

struct Play<'a> {
    steps: &'a [u8],
    table: Table,
    config: NeighborConfig,
    addresses: Addresses,
    now: Instant,
    parked: u64,
    returned: u64,
}

impl<'a> Play<'a> {
    fn new(config: u8, steps: &'a [u8]) -> Self {
        let size = usize::from(config % 8);
        let config = NeighborConfig {
            entries_max: 4 + size,
            incomplete_max: 3 + size / 2,
            parked_frames_max: 3,
            parked_bytes_max: 600,
            parked_total_bytes_max: 1500,
            requests_queued_max: 1 + size,
            answers_queued_max: size,
            timeouts_per_call_max: 2,
            probes: [AddressProbes::Full, AddressProbes::Quick, AddressProbes::None]
                [usize::from(config / 8) % 3],
            defence: [AddressDefence::GiveUp, AddressDefence::Once, AddressDefence::Always]
                [usize::from(config / 24) % 3],
            ..NeighborConfig::default()
        };
        let mut addresses = Addresses::new();
        for cidr in [IpCidr::new(OUR_V4.into(), 24), IpCidr::new(OUR_V6.into(), 64)] {
            addresses.insert(Address::preferred(cidr, Origin::Static));
        }
        let now = Instant::from_secs(1);
        let table = Table::new(config.clone(), OUR_MAC, Random::new(1), now);
        Self { steps, table, config, addresses, now, parked: 0, returned: 0 }
    }

    fn step(&mut self, kind: u8) {
        let who = self.byte().unwrap_or_default();
        let ip = address(who);
        match kind % 15 {
            0 => {
                let found = self.table.lookup(self.now, ip);
                let known = self.table.get(ip).and_then(|info| info.mac);
                assert_eq!(known.is_some(), matches!(found, Lookup::Known(mac) if Some(mac) == known));
            }
            1 => self.park(ip),
            2 => self.table.confirm(self.now, ip),
            3 => {
                let mac = self.mac();
                let _ = self.table.learn_router(self.now, ip, Some(mac));
            }
            4 => {
                let mac = self.mac();
                let _ = self.table.insert_static(self.now, ip, mac);
            }
            5 => {
                let message = self.bytes(who);
                self.hear_arp(message, OUR_MAC);
            }
            6 => {
                let message = self.bytes(who);
                self.hear_ndp(message, six(9), who);
            }
            7 => {
                let (target, src) = (self.byte().unwrap_or_default(), self.byte().unwrap_or_default());
                let mac = self.mac();
                let option = 1 + who % 2;
                let head = [135 + who % 2, 0, 0, 0, who, 0, 0, 0];
                let message = [&head[..], &six(target).octets(), &[option, 1], &mac.0].concat();
                self.hear_ndp(&message, six(src), who / 2);
            }
            8 => {
                let (sender, target) = (self.byte().unwrap_or_default(), self.byte().unwrap_or_default());
                let mac = self.mac();
                let head = [0, 1, 8, 0, 6, 4, 0, who];
                let message =
                    [&head[..], &mac.0, &four(sender).octets(), &[0; 6], &four(target).octets()].concat();
                self.hear_arp(
                    &message,
                    if who.is_multiple_of(2) { OUR_MAC } else { EthernetAddress::BROADCAST },
                );
            }
            9 => self.fetch(who.into()),
            10 => {
                self.now += Duration::from_millis(u64::from(who) * 20);
                self.table.handle_timeout(self.now);
            }
            11 => drop(self.table.probe(self.now, ip)),
            12 => drop(self.table.announce(self.now, ip)),
            13 => drop(self.table.remove(ip)),
            _ if who < 8 => self.table.flush(),
            _ => self.table.forget_address(ip),
        }
    }

    fn park(&mut self, next_hop: IpAddr) {
        let len = self.byte().unwrap_or_default();
        let src = if next_hop.is_ipv4() { OUR_V4.into() } else { OUR_V6.into() };
        let frame = vec![0; len.into()];
        let taken = self.table.park(self.now, next_hop, src, &frame, &FrameMeta::default());
        self.parked += u64::from(taken.is_ok());
    }

    fn hear_arp(&mut self, message: &[u8], dst: EthernetAddress) {
        let link = Link { src: EthernetAddress([2, 0, 0, 0, 0, 77]), dst, vlans: [None; 2], len: 14 };
        let _ = self.table.handle_arp(self.now, &link, message, &self.addresses);
    }

    fn hear_ndp(&mut self, message: &[u8], src: Ipv6Addr, how: u8) {
        let link =
            Link { src: EthernetAddress([2, 0, 0, 0, 0, 77]), dst: OUR_MAC, vlans: [None; 2], len: 14 };
        let dst = if how.is_multiple_of(2) { OUR_V6 } else { solicited_node(OUR_V6) };
        let ip = IpPacket {
            src: src.into(),
            dst: dst.into(),
            start: 14,
            transport: 54,
            end: 54 + message.len(),
            protocol: 58,
            hop_limit: 255,
            traffic_class: 0,
            fragment: None,
            ports: None,
            dont_fragment: true,
            router_alert: false,
            problem: None,
        };
        let link = (how != 250).then_some(&link);
        let _ = self.table.handle_ndp(self.now, link, &ip, message, &self.addresses);
    }

    fn fetch(&mut self, count: usize) {
        for output in (0..count).map_while(|_| self.table.poll_output()) {
            match output {
                Output::Release { mac, frame, .. } => {
                    assert!(frame.len() < 6 || frame[..6] == mac.0);
                    self.returned += 1;
                }
                Output::Unreachable { frame, .. } => {
                    assert!(frame.iter().all(|byte| *byte == 0));
                    self.returned += 1;
                }
                Output::Dropped(DropReason::NeighborQueueFull | DropReason::NeighborUnreachable) => {
                    self.returned += 1;
                }
                _ => {}
            }
        }
    }

    fn check(&self) {
        assert!(self.returned <= self.parked);
        assert!(self.table.len() <= self.config.entries_max);
        assert!(self.table.parked_bytes() <= self.config.parked_total_bytes_max);
        let incomplete = self.table.snapshot().filter(|info| info.state == State::Incomplete).count();
        assert!(incomplete <= self.config.incomplete_max);
    }

    /// Time passes, and everything is fetched, until nothing is left to be done.
    fn settle(&mut self) {
        for _ in 0..STEPS_TO_SETTLE {
            self.fetch(usize::MAX);
            match self.table.next_deadline() {
                Some(deadline) => self.now = self.now.max(deadline),
                None => break,
            }
            self.table.handle_timeout(self.now);
        }
        assert_eq!(self.table.next_deadline(), None, "timers go on for ever");
        assert_eq!((self.returned, self.table.parked_bytes()), (self.parked, 0));
        assert_eq!(self.table.poll_output(), None);
    }

    /// As many bytes as there are, `len` at most.
    fn bytes(&mut self, len: u8) -> &'a [u8] {
        let (taken, rest) = self.steps.split_at(usize::from(len).min(self.steps.len()));
        self.steps = rest;
        taken
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.steps.split_first()?;
        self.steps = rest;
        Some(*first)
    }

    /// Few hardware addresses, so that they meet; ours among them.
    fn mac(&mut self) -> EthernetAddress {
        EthernetAddress([2, 0, 0, 0, 0, self.byte().unwrap_or_default() % 8])
    }
}

fn address(n: u8) -> IpAddr {
    if n.is_multiple_of(2) { four(n).into() } else { six(n).into() }
}

/// Ours is 0; 255 is unspecified.
fn four(n: u8) -> Ipv4Addr {
    match n {
        0 => OUR_V4,
        255 => Ipv4Addr::UNSPECIFIED,
        n => Ipv4Addr::new(10, 0, 0, n),
    }
}

/// Ours is 1; 255 is unspecified.
fn six(n: u8) -> Ipv6Addr {
    match n {
        1 => OUR_V6,
        255 => Ipv6Addr::UNSPECIFIED,
        n => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n.into()),
    }
}

/// More than all timers of all entries and addresses can take.
const STEPS_TO_SETTLE: usize = 10_000;
const OUR_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const OUR_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OUR_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
