//! A small IP router: it forwards, counts the hop limit down, fragments where it may, and tells senders why a
//! packet went no further. It shares no code with the stack.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wirestack::IpCidr;

use super::Frame;
use super::packets::{self, Mac, V4};

/// Packets that wait for one neighbour.
const WAITING_MAX: usize = 64;

/// One interface of a router.
#[derive(Debug, Clone)]
pub struct RouterPort {
    /// Hardware address.
    pub mac: Mac,
    /// Addresses, whose prefixes are on the link.
    pub addresses: Vec<IpCidr>,
    /// Bytes of an IP packet.
    pub mtu: usize,
}

/// What a router has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Packets sent on, fragments included.
    pub forwarded: u64,
    /// Packets that were too long for the next link and must not be fragmented.
    pub too_big: u64,
    /// Packets whose hop limit came to 0.
    pub expired: u64,
    /// Packets without a route.
    pub unreachable: u64,
}

/// A router.
#[derive(Debug, Default)]
pub struct Router {
    ports: Vec<RouterPort>,
    /// Prefix, port, next hop.
    routes: Vec<(IpCidr, usize, IpAddr)>,
    neighbors: BTreeMap<(usize, IpAddr), Mac>,
    waiting: BTreeMap<(usize, IpAddr), Vec<Vec<u8>>>,
    counters: RouterCounters,
    /// It tells nobody why a packet went no further.
    is_silent: bool,
    out: Vec<(usize, Frame)>,
}

impl Router {
    /// A router with these interfaces, the ports of its node.
    pub fn new(ports: Vec<RouterPort>) -> Self {
        Self { ports, ..Self::default() }
    }

    /// Adds a route through another router.
    pub fn route(&mut self, prefix: IpCidr, port: usize, next_hop: IpAddr) {
        self.routes.push((prefix, port, next_hop));
    }

    /// Changes the MTU of an interface.
    pub fn set_mtu(&mut self, port: usize, mtu: usize) {
        self.ports[port].mtu = mtu;
    }

    /// It tells nobody any more why a packet went no further: what is too long falls into a black hole.
    pub fn set_silent(&mut self, is_silent: bool) {
        self.is_silent = is_silent;
    }

    /// What it has done.
    pub fn counters(&self) -> RouterCounters {
        self.counters
    }

    pub(super) fn receive(&mut self, port: usize, frame: &Frame) -> Vec<(usize, Frame)> {
        for bytes in frame.on_wire() {
            let Some((header, body)) = bytes.split_at_checked(14) else { continue };
            if header[0] & 1 == 0 && header[..6] != self.ports[port].mac {
                continue;
            }
            let _ = match (header[12], header[13]) {
                (8, 6) => self.arp(port, body),
                (8, 0) => self.ipv4(port, body),
                (0x86, 0xdd) => self.ipv6(port, body),
                _ => None,
            };
        }
        std::mem::take(&mut self.out)
    }

    fn is_own(&self, port: usize, ip: IpAddr) -> bool {
        self.ports[port].addresses.iter().any(|cidr| IpAddr::from(cidr.address()) == ip)
    }

    fn is_any_own(&self, ip: IpAddr) -> bool {
        (0..self.ports.len()).any(|port| self.is_own(port, ip))
    }

    /// The address from which it speaks on a port: of the family of `to`.
    fn own(&self, port: usize, to: IpAddr) -> Option<IpAddr> {
        let mut own = self.ports[port].addresses.iter().map(|cidr| IpAddr::from(cidr.address()));
        own.find(|ip| ip.is_ipv4() == to.is_ipv4())
    }

    fn arp(&mut self, port: usize, body: &[u8]) -> Option<()> {
        let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?));
        let mac = <[u8; 6]>::try_from(body.get(8..14)?).ok()?;
        let (sender, target) = (ip(14)?, ip(24)?);
        if !sender.is_unspecified() {
            self.learn(port, sender, mac);
        }
        if body[7] == 1 && self.is_own(port, target) {
            let own = self.ports[port].mac;
            let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else { return None };
            let message = packets::arp(2, (own, target), (mac, sender));
            self.out.push((port, Frame::plain(packets::ethernet(mac, own, 0x0806, &message))));
        }
        Some(())
    }

    fn learn(&mut self, port: usize, ip: IpAddr, mac: Mac) {
        self.neighbors.insert((port, ip), mac);
        for packet in self.waiting.remove(&(port, ip)).unwrap_or_default() {
            self.send_to(port, mac, &packet);
        }
    }

    fn send_to(&mut self, port: usize, mac: Mac, packet: &[u8]) {
        let own = self.ports[port].mac;
        self.out.push((port, Frame::plain(packets::framed(mac, own, packet))));
    }

    fn ipv4(&mut self, port: usize, packet: &[u8]) -> Option<()> {
        let total_len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let packet = packet.get(..total_len)?;
        if packet.len() < 20 || packets::checksum(&[&packet[..20]]) != 0 {
            return None;
        }
        let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let (src, dst) = (ip(12)?, ip(16)?);
        if dst.is_multicast() || src.is_unspecified() {
            return None;
        }
        if self.is_any_own(dst) {
            return self.echo(port, packet, 20, src, dst);
        }
        if packet[8] <= 1 {
            self.counters.expired += 1;
            return self.error(port, src, 11, 0, 0, packet);
        }
        let mut packet = packet.to_vec();
        packet[8] -= 1;
        set_header_checksum(&mut packet);
        self.forward(port, src, dst, packet)
    }

    fn ipv6(&mut self, port: usize, packet: &[u8]) -> Option<()> {
        let total_len = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
        let packet = packet.get(..total_len)?;
        let ip = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
        let (src, dst) = (ip(8)?, ip(24)?);
        if packet[6] == 58 && matches!(packet.get(40), Some(135 | 136)) {
            return self.ndp(port, packet, src);
        }
        if dst.is_multicast() || src.is_unspecified() {
            return None;
        }
        if self.is_any_own(dst) {
            return self.echo(port, packet, 40, src, dst);
        }
        if packet[7] <= 1 {
            self.counters.expired += 1;
            return self.error(port, src, 3, 0, 0, packet);
        }
        let mut packet = packet.to_vec();
        packet[7] -= 1;
        self.forward(port, src, dst, packet)
    }

    fn ndp(&mut self, port: usize, packet: &[u8], src: IpAddr) -> Option<()> {
        let dst = IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?);
        // A wire that damages frames would make it learn a hardware address that nobody has.
        packets::is_sum_right(src, dst, packets::ICMPV6, packet.get(40..)?).then_some(())?;
        let target = IpAddr::from(<[u8; 16]>::try_from(packet.get(48..64)?).ok()?);
        let mac = packet.get(66..72).and_then(|mac| <[u8; 6]>::try_from(mac).ok());
        let IpAddr::V6(to) = src else { return None };
        if packet[40] == 136 {
            self.learn(port, target, mac?);
            return Some(());
        }
        if self.is_own(port, target)
            && let Some(mac) = mac
        {
            self.learn(port, src, mac);
            let IpAddr::V6(own) = target else { return None };
            let answer = packets::advertisement(own, to, 0xe0, own, self.ports[port].mac);
            self.send_to(port, mac, &answer);
        }
        Some(())
    }

    fn echo(&mut self, port: usize, packet: &[u8], at: usize, src: IpAddr, dst: IpAddr) -> Option<()> {
        let (request, reply) = if src.is_ipv4() { (8, 0) } else { (128, 129) };
        let message = packet.get(at..)?;
        let is_icmp = packet[if src.is_ipv4() { 9 } else { 6 }] == if src.is_ipv4() { 1 } else { 58 };
        if !is_icmp || *message.first()? != request {
            return None;
        }
        let rest = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
        let answer = packets::icmp_packet(dst, src, reply, 0, rest, message.get(8..)?);
        self.route_out(port, src, answer)
    }

    fn forward(&mut self, from: usize, src: IpAddr, dst: IpAddr, packet: Vec<u8>) -> Option<()> {
        let Some((port, _)) = self.lookup(dst) else {
            self.counters.unreachable += 1;
            let kind = if src.is_ipv4() { 3 } else { 1 };
            return self.error(from, src, kind, 0, 0, &packet);
        };
        let mtu = self.ports[port].mtu;
        if packet.len() <= mtu {
            self.counters.forwarded += 1;
            return self.route_out(port, dst, packet);
        }
        let may_fragment = src.is_ipv4() && packet[6] & 0x40 == 0;
        if !may_fragment {
            self.counters.too_big += 1;
            let (kind, code) = if src.is_ipv4() { (3, 4) } else { (2, 0) };
            return self.error(from, src, kind, code, mtu as u32, &packet);
        }
        for piece in fragments(&packet, mtu) {
            self.counters.forwarded += 1;
            self.route_out(port, dst, piece);
        }
        Some(())
    }

    fn lookup(&self, dst: IpAddr) -> Option<(usize, IpAddr)> {
        let direct = self.ports.iter().enumerate().flat_map(|(port, config)| {
            config.addresses.iter().map(move |cidr| (cidr.prefix_len(), *cidr, port, dst))
        });
        let routed = self.routes.iter().map(|&(cidr, port, hop)| (cidr.prefix_len(), cidr, port, hop));
        direct
            .chain(routed)
            .filter(|(_, cidr, ..)| cidr.contains_addr(&dst.into()))
            .max_by_key(|(len, ..)| *len)
            .map(|(_, _, port, hop)| (port, hop))
    }

    /// Sends a packet of its own, or one that fits, towards `dst`.
    fn route_out(&mut self, _from: usize, dst: IpAddr, packet: Vec<u8>) -> Option<()> {
        let (port, hop) = self.lookup(dst)?;
        if let Some(&mac) = self.neighbors.get(&(port, hop)) {
            self.send_to(port, mac, &packet);
            return Some(());
        }
        let waiting = self.waiting.entry((port, hop)).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push(packet);
        }
        self.ask(port, hop)
    }

    fn ask(&mut self, port: usize, hop: IpAddr) -> Option<()> {
        let mac = self.ports[port].mac;
        match (self.own(port, hop)?, hop) {
            (IpAddr::V4(own), IpAddr::V4(hop)) => {
                let message = packets::arp(1, (mac, own), ([0; 6], hop));
                let frame = packets::ethernet(packets::BROADCAST, mac, 0x0806, &message);
                self.out.push((port, Frame::plain(frame)));
            }
            (IpAddr::V6(own), IpAddr::V6(hop)) => {
                let group = packets::solicited_node(hop);
                let packet = packets::solicitation(own, mac, group, hop);
                self.send_to(port, packets::group_mac(group.into()), &packet);
            }
            _ => {}
        }
        Some(())
    }

    /// Tells the sender of `packet`, through the port on which it came.
    fn error(&mut self, port: usize, to: IpAddr, kind: u8, code: u8, rest: u32, packet: &[u8]) -> Option<()> {
        if self.is_silent {
            return None;
        }
        let own = self.own(port, to)?;
        let quote = &packet[..packet.len().min(if to.is_ipv4() { 548 } else { 1232 })];
        self.route_out(port, to, packets::icmp_packet(own, to, kind, code, rest, quote))
    }
}

fn set_header_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = packets::checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The fragments of an IPv4 packet without options, which may be a fragment itself.
fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let ip = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]].into();
    let word = u16::from_be_bytes([header[6], header[7]]);
    let share = (mtu - 20) & !7;
    let count = payload.len().div_ceil(share);
    (0..count)
        .map(|index| {
            let at = index * share;
            let more = if index + 1 < count { 0x2000 } else { word & 0x2000 };
            let v4 = V4 {
                src: ip(12),
                dst: ip(16),
                protocol: header[9],
                ttl: header[8],
                id: u16::from_be_bytes([header[4], header[5]]),
                fragment: ((word & 0x1fff) + (at / 8) as u16) | more,
            };
            v4.packet(&payload[at..payload.len().min(at + share)])
        })
        .collect()
}
