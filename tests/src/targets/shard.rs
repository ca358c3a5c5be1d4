//! A whole shard under any order of frames, commands and time.
//!
//! The input is a script. Its first byte says how the shard is configured; then each operation is a byte for its
//! kind and a few for what it needs. Frames are written from templates, so that most of them get past the first
//! look, and then a byte says whether and where one is changed. After each turn, everything of [`Core`] holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::dhcp::v4;
use wirestack::dns::Kind;
use wirestack::egress::Outbox;
use wirestack::icmp::LimiterConfig;
use wirestack::ip::slaac::SlaacConfig;
use wirestack::ip::stable_address::InterfaceIdentifier;
use wirestack::neighbor::{AddressDefence, AddressProbes};
use wirestack::shard::{
    Command, Mail, PingBind, PingOptions, SendOptions, Shard, ShardConfig, SocketId, UdpBind,
};
use wirestack::udp::Fragmenting;

use crate::sim::core::Core;
use crate::sim::packets::{self, BROADCAST, FRAGMENT, ICMPV6, Mac, UDP, V4};
use crate::sim::{Frame, NicConfig};

/// Turns that one operation may want at once.
const TURNS_MAX: usize = 2_000;
/// Frames of a script at most: what is behind them says nothing new.
const STEPS_MAX: usize = 400;

/// See the module.
///
/// # Panics
/// If something does not hold.
pub fn shard(bytes: &[u8]) {
    let Some((&kind, script)) = bytes.split_first() else { return };
    let mut play = Play::new(kind, script);
    for _ in 0..STEPS_MAX {
        let Some(operation) = play.byte() else { break };
        play.step(operation);
        play.turn();
    }
    // All that was begun ends, and no timer runs wild.
    for _ in 0..50 {
        play.now += Duration::from_secs(7);
        play.turn();
    }
}

struct Play<'a> {
    script: &'a [u8],
    core: Core,
    now: Instant,
    sockets: Vec<SocketId>,
    pings: Vec<SocketId>,
    /// The last frame that the shard sent with a datagram: to be quoted, or sent back.
    last_sent: Vec<u8>,
    up: bool,
}

fn config(kind: u8) -> ShardConfig {
    let mut config = ShardConfig::new(EthernetAddress(OURS_MAC));
    for address in ["10.0.0.1/24", "fd00::1/64"] {
        config = config.address(parse_cidr(address).expect("an address"));
    }
    config = config.gateway(ROUTER.into()).gateway(ROUTER6.into());
    config.dns.servers = vec![SocketAddr::new(ROUTER.into(), 53)];
    config.seed = kind.into();
    config.neighbor.probes =
        [AddressProbes::None, AddressProbes::Quick, AddressProbes::Full][usize::from(kind) % 3];
    config.neighbor.defence =
        [AddressDefence::Once, AddressDefence::GiveUp, AddressDefence::Always][usize::from(kind / 3) % 3];
    if kind & 0x10 != 0 {
        config.slaac = Some(SlaacConfig::new(InterfaceIdentifier::Eui64));
        config.dhcp = Some(v4::Config::default());
    }
    if kind & 0x20 != 0 {
        // Small tables are full soon.
        config.neighbor.entries_max = 8;
        config.neighbor.incomplete_max = 4;
        config.neighbor.parked_total_bytes_max = 8_000;
        config.neighbor.requests_queued_max = 2;
        config.neighbor.timeouts_per_call_max = 2;
        config.reassembly.datagrams_max = 4;
        config.reassembly.bytes_max = 20_000;
        config.outbox_bytes_max = 8_000;
        config.outbox_frames_max = 8;
        config.looped_bytes_max = 8_000;
        config.mail_len_max = 4;
        config.sockets_max = 4;
        config.path_mtu.entries_max = 2;
        config.budgets.egress_frames = 3;
        config.budgets.ingress_frames = 2;
        config.budgets.commands = 2;
    }
    if kind & 0x40 != 0 {
        config.steering.shards = 3;
        config.shard = 1;
    }
    if kind & 0x80 != 0 {
        config.icmp =
            LimiterConfig { errors_per_second: None, destination_interval: Duration::ZERO, ..config.icmp };
    }
    config
}

impl<'a> Play<'a> {
    fn new(kind: u8, script: &'a [u8]) -> Self {
        let now = Instant::from_secs(1);
        let tx_frames_max = if kind & 0x08 != 0 { 2 } else { 64 };
        let nic = NicConfig { tx_frames_max, ..NicConfig::default() };
        let core = Core::new(config(kind), nic, now);
        Self { script, core, now, sockets: Vec::new(), pings: Vec::new(), last_sent: Vec::new(), up: true }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.script.split_first()?;
        self.script = rest;
        Some(first)
    }

    fn next(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.next(), self.next()])
    }

    fn take(&mut self) -> &'a [u8] {
        let len = usize::from(self.next()).min(self.script.len());
        let (taken, rest) = self.script.split_at(len);
        self.script = rest;
        taken
    }

    /// Turns until nothing is wanted at once.
    fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            let turned = match self.core.turn(self.now, drain) {
                Ok(turned) => turned,
                Err(wrong) => panic!("at {}: {wrong}", self.now),
            };
            if let Some(last) = turned.sent.last() {
                self.last_sent = last.bytes.clone();
            }
            if turned.next.is_none_or(|next| next > self.now) && !turned.is_refused {
                return;
            }
        }
        panic!("{TURNS_MAX} turns at {}, and another is wanted", self.now);
    }

    fn step(&mut self, operation: u8) {
        match operation % 16 {
            0..=8 => self.frame(operation % 16),
            9 => self.bind(),
            10 => self.send(),
            11 => self.group(),
            12 => self.command(),
            13 => {
                let units = u64::from(self.next());
                let unit = [1, 100, 10_000, 1_000_000][usize::from(self.next()) % 4];
                self.now += Duration::from_millis(units * unit / 10);
            }
            14 => self.ping(),
            _ => self.service(),
        }
    }

    fn frame(&mut self, kind: u8) {
        let frame = match kind {
            0 => self.take().to_vec(),
            1 => self.arp(),
            2 => self.ndp(),
            3 => self.datagram(),
            4 => self.fragment(),
            5 => self.icmp_error(),
            6 => self.echo(),
            7 => self.control(),
            _ => self.extended(),
        };
        let frame = self.mutated(frame);
        let times = 1 + usize::from(self.next() % 3);
        for _ in 0..times {
            self.core.nic.push(Frame::plain(frame.clone()));
        }
    }

    /// Changes a byte, or the length; mostly nothing.
    fn mutated(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let (how, at) = (self.next(), usize::from(self.next()));
        let value = self.next();
        match how % 8 {
            1 => frame.truncate(at),
            2 => frame.extend(vec![value; at % 64]),
            3 | 4 => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= value;
                }
            }
            _ => {}
        }
        frame
    }

    fn peer(&mut self) -> (IpAddr, IpAddr, Mac) {
        let who = self.next();
        let mac = [2, 0, 0, 0, 1, who];
        let (src, dst): (IpAddr, IpAddr) = if who & 1 == 0 {
            (Ipv4Addr::new(10, 0, who >> 6, who & 0x3f).into(), self.dst_v4().into())
        } else {
            (
                Ipv6Addr::new(0xfd00, 0, 0, (who >> 6).into(), 0, 0, 0, (who & 0x3f).into()).into(),
                self.dst_v6().into(),
            )
        };
        (src, dst, mac)
    }

    fn dst_v4(&mut self) -> Ipv4Addr {
        match self.next() % 8 {
            0 => Ipv4Addr::new(10, 0, 0, 255),
            1 => Ipv4Addr::BROADCAST,
            2 => Ipv4Addr::new(224, 0, 0, 1),
            3 => GROUP,
            _ => OURS,
        }
    }

    fn dst_v6(&mut self) -> Ipv6Addr {
        match self.next() % 8 {
            0 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            1 => packets::solicited_node(OURS6),
            2 => GROUP6,
            3 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1),
            _ => OURS6,
        }
    }

    fn framed(&mut self, dst: IpAddr, src: Mac, packet: &[u8]) -> Vec<u8> {
        let to = match self.next() % 8 {
            0 => BROADCAST,
            1 => [2, 9, 9, 9, 9, 9],
            _ if dst.is_multicast() => packets::group_mac(dst),
            _ => OURS_MAC,
        };
        packets::framed(to, src, packet)
    }

    fn arp(&mut self) -> Vec<u8> {
        let (operation, who, target) = (self.next(), self.next(), self.next());
        let mac = [2, 0, 0, 0, 1, who];
        let sender = if operation & 4 != 0 { OURS } else { Ipv4Addr::new(10, 0, 0, who) };
        let sender = if operation & 8 != 0 { Ipv4Addr::UNSPECIFIED } else { sender };
        let target = if target & 3 == 0 { OURS } else { Ipv4Addr::new(10, 0, 0, target) };
        let to = if operation & 2 != 0 { OURS_MAC } else { BROADCAST };
        let message = packets::arp(1 + u16::from(operation & 1), (mac, sender), (OURS_MAC, target));
        packets::ethernet(to, mac, 0x0806, &message)
    }

    fn ndp(&mut self) -> Vec<u8> {
        let (kind, who) = (self.next(), self.next());
        let mac = [2, 0, 0, 0, 1, who];
        let peer = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, who.into());
        let target = if kind & 0x10 != 0 { OURS6 } else { peer };
        let packet = match kind % 5 {
            0 => packets::solicitation(peer, mac, packets::solicited_node(OURS6), OURS6),
            1 => packets::solicitation(Ipv6Addr::UNSPECIFIED, mac, packets::solicited_node(OURS6), OURS6),
            2 => packets::advertisement(peer, OURS6, kind & 0xe0, target, mac),
            3 => self.router_advertisement(),
            _ => {
                let body = [target.octets(), OURS6.octets()].concat();
                let message = packets::icmp_v6(ROUTER6_LL, OURS6, 137, 0, 0, &body);
                packets::ipv6(ROUTER6_LL, OURS6, ICMPV6, 255, &message)
            }
        };
        let dst = if kind % 5 < 2 { packets::solicited_node(OURS6) } else { OURS6 };
        self.framed(dst.into(), mac, &packet)
    }

    fn router_advertisement(&mut self) -> Vec<u8> {
        let (flags, life, bits) = (self.next(), self.word(), self.next());
        let mut body = vec![0; 8];
        if bits & 1 != 0 {
            body.extend([3, 4, 64, 0xc0]);
            for _ in 0..2 {
                body.extend((u32::from(self.word()) << (bits & 8)).to_be_bytes());
            }
            body.extend([0; 4]);
            body.extend(Ipv6Addr::new(0xfd01, 0, 0, (bits >> 6).into(), 0, 0, 0, 0).octets());
        }
        if bits & 2 != 0 {
            body.extend([5, 1, 0, 0, 0, 0]);
            body.extend(self.word().to_be_bytes());
        }
        if bits & 4 != 0 {
            body.extend([25, 3, 0, 0]);
            body.extend(u32::from(life).to_be_bytes());
            body.extend(ROUTER6.octets());
        }
        let all: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let rest = 64 << 24 | u32::from(flags) << 16 | u32::from(life);
        let message = packets::icmp_v6(ROUTER6_LL, all, 134, 0, rest, &body);
        packets::ipv6(ROUTER6_LL, all, ICMPV6, 255, &message)
    }

    fn datagram(&mut self) -> Vec<u8> {
        let (src, dst, mac) = self.peer();
        let ports = self.next();
        let (from, to) = match ports % 8 {
            0 => (67, 68),
            1 => (53, self.word()),
            2 => (547, 546),
            // What we have sent comes back.
            3 | 4 => return self.reflected(),
            _ => (9, 7 + u16::from(ports >> 5)),
        };
        let payload = self.take();
        let packet = packets::udp_packet(SocketAddr::new(src, from), SocketAddr::new(dst, to), payload);
        self.framed(dst, mac, &packet)
    }

    /// The last frame of ours, its ends exchanged: an answer to a query or to a datagram.
    fn reflected(&mut self) -> Vec<u8> {
        let mut frame = self.last_sent.clone();
        let (at, len) = if frame.get(12) == Some(&8) { (26, 4) } else { (22, 16) };
        if frame.len() < at + 2 * len + 8 {
            return frame;
        }
        let swap = |frame: &mut Vec<u8>, at: usize, len: usize| {
            (0..len).for_each(|index| frame.swap(at + index, at + len + index));
        };
        swap(&mut frame, 0, 6);
        swap(&mut frame, at, len);
        // Of a datagram the sum stays right, of ICMP it does not matter.
        if frame[if len == 4 { 23 } else { 20 }] == UDP {
            swap(&mut frame, at + 2 * len, 2);
        }
        frame
    }

    fn fragment(&mut self) -> Vec<u8> {
        let (src, dst, mac) = self.peer();
        let (id, place, len) = (self.next() % 4, self.next(), usize::from(self.next()) * 8);
        let offset = (u16::from(place >> 2) * 64) >> ((place & 1) * 2);
        let more = place & 2 != 0;
        let whole = packets::udp(SocketAddr::new(src, 9), SocketAddr::new(dst, 7), &[id; 1024]);
        let from = usize::from(offset).min(whole.len());
        let piece = &whole[from..whole.len().min(from + len)];
        let packet = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let fragment = (offset / 8) | (u16::from(more) << 13);
                V4 { id: id.into(), fragment, ..V4::new(src, dst, UDP) }.packet(piece)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let body = packets::fragment_v6(UDP, id.into(), offset, more, piece);
                packets::ipv6(src, dst, FRAGMENT, 64, &body)
            }
            _ => Vec::new(),
        };
        self.framed(dst, mac, &packet)
    }

    /// An error about the last packet of ours, or about one that we never sent.
    fn icmp_error(&mut self) -> Vec<u8> {
        let (src, dst, mac) = self.peer();
        let (kind, code, rest) = (self.next(), self.next() % 8, u32::from(self.word()));
        let quoted = match self.last_sent.get(14..) {
            Some(sent) if kind & 0x80 == 0 => sent.to_vec(),
            _ => packets::udp_packet(SocketAddr::new(dst, 7), SocketAddr::new(src, 9), b"quoted"),
        };
        let kinds = if src.is_ipv4() { [3, 11, 12, 5] } else { [1, 2, 3, 4] };
        let packet = packets::icmp_packet(src, dst, kinds[usize::from(kind) % 4], code, rest, &quoted);
        self.framed(dst, mac, &packet)
    }

    fn echo(&mut self) -> Vec<u8> {
        let (src, dst, mac) = self.peer();
        let id = u16::from(self.next());
        let data = self.take();
        let packet = packets::echo_request(src, dst, id, 1, data);
        self.framed(dst, mac, &packet)
    }

    /// Queries and reports about groups.
    fn control(&mut self) -> Vec<u8> {
        let (kind, delay) = (self.next(), self.next());
        let mac = [2, 0, 0, 0, 1, 9];
        if kind & 1 == 0 {
            let group = if kind & 2 == 0 { Ipv4Addr::UNSPECIFIED } else { GROUP };
            let types = [0x11, 0x11, 0x16, 0x22];
            let tail: &[u8] = if kind & 0x10 != 0 { &[2, 0, 0, 1, 10, 0, 0, 9] } else { &[] };
            let rest = u32::from(group);
            let message = packets::icmp_v4(types[usize::from(kind >> 2) % 4], delay, rest, tail);
            let dst = if kind & 2 == 0 { Ipv4Addr::new(224, 0, 0, 1) } else { GROUP };
            let v4 = V4 { ttl: 1, ..V4::new(ROUTER, dst, 2) };
            return packets::framed(packets::group_mac(dst.into()), mac, &v4.packet(&message));
        }
        let group = if kind & 2 == 0 { Ipv6Addr::UNSPECIFIED } else { GROUP6 };
        let dst = if kind & 2 == 0 { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) } else { GROUP6 };
        let types = [130, 130, 131, 143];
        let mut body = group.octets().to_vec();
        body.extend(if kind & 0x10 != 0 { vec![2, 0, 0, 0] } else { Vec::new() });
        let rest = u32::from(delay) << 16;
        let message = packets::icmp_v6(ROUTER6_LL, dst, types[usize::from(kind >> 2) % 4], 0, rest, &body);
        let behind = [&[ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &message].concat();
        packets::framed(packets::group_mac(dst.into()), mac, &packets::ipv6(ROUTER6_LL, dst, 0, 1, &behind))
    }

    /// A chain of extension headers as the script says.
    fn extended(&mut self) -> Vec<u8> {
        let (_, _, mac) = self.peer();
        let dst = self.dst_v6();
        let count = usize::from(self.next() % 12);
        let first = [0, 43, 44, 60][usize::from(self.next()) % 4];
        let mut body = Vec::new();
        for _ in 0..count {
            let next = [0, 43, 44, 60, 59, 58, 17, 200][usize::from(self.next()) % 8];
            let options = self.word().to_be_bytes();
            body.extend([next, 0, options[0], options[1] % 5, 0, 0, 0, 0]);
        }
        body.extend(self.take());
        let peer = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
        let packet = packets::ipv6(peer, dst, first, 64, &body);
        self.framed(dst.into(), mac, &packet)
    }

    fn bind(&mut self) {
        let what = self.next();
        let port = 7 + u16::from(what >> 6);
        let local = match what % 4 {
            0 => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            1 => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            2 => SocketAddr::new(OURS.into(), 0),
            _ => SocketAddr::new(OURS6.into(), 0),
        };
        let mut bind = UdpBind { reuse: what & 0x20 != 0, ..UdpBind::new(local) };
        bind.options.recv_errors = what & 0x10 != 0;
        bind.options.broadcast = true;
        bind.options.recv_datagrams_max = 4;
        bind.options.dont_fragment =
            [Fragmenting::Allow, Fragmenting::Forbid, Fragmenting::Probe][usize::from(what >> 2) % 3];
        if let Ok(socket) = self.core.shard.udp_bind(bind) {
            self.sockets.push(socket);
        }
    }

    fn socket(&mut self) -> Option<SocketId> {
        let index = usize::from(self.next());
        (!self.sockets.is_empty()).then(|| self.sockets[index % self.sockets.len()])
    }

    fn target(&mut self) -> SocketAddr {
        let who = self.next();
        let ip: IpAddr = match who % 8 {
            0 => Ipv4Addr::new(10, 0, 0, who).into(),
            1 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, who.into()).into(),
            2 => Ipv4Addr::new(192, 0, 2, who).into(),
            3 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, who.into()).into(),
            4 => GROUP.into(),
            5 => GROUP6.into(),
            6 => OURS.into(),
            _ => [
                IpAddr::from(Ipv4Addr::BROADCAST),
                Ipv4Addr::LOCALHOST.into(),
                OURS6.into(),
                Ipv6Addr::LOCALHOST.into(),
            ][usize::from(who >> 3) % 4],
        };
        SocketAddr::new(ip, 7 + u16::from(who >> 6))
    }

    fn send(&mut self) {
        let (Some(socket), to) = (self.socket(), self.target()) else { return };
        let (how, len) = (self.next(), usize::from(self.word()));
        let len = if how & 1 == 0 { len % 2_000 } else { len };
        self.core.shard.set_now(self.now);
        let shard = &mut self.core.shard;
        match how >> 1 & 3 {
            0 => {
                let _ = shard.udp_connect(socket, (how & 0x10 == 0).then_some(to));
            }
            1 => {
                let segment_bytes = std::num::NonZeroU16::new(100 + u16::from(how));
                let options = SendOptions { to: Some(to), segment_bytes, ..SendOptions::default() };
                let _ = shard.udp_send_with(socket, &options, len, |room| room.fill(how));
            }
            2 => {
                let _ = shard.udp_send(socket, &vec![how; len]);
            }
            _ => {
                let _ = shard.udp_send_to(socket, &vec![how; len], to);
            }
        }
    }

    fn group(&mut self) {
        let Some(socket) = self.socket() else { return };
        let what = self.next();
        let group: IpAddr = if what & 1 == 0 { GROUP.into() } else { GROUP6.into() };
        let source: IpAddr = if what & 1 == 0 { ROUTER.into() } else { ROUTER6.into() };
        self.core.shard.set_now(self.now);
        let shard = &mut self.core.shard;
        match what >> 1 & 7 {
            0 => drop(shard.udp_leave(socket, group)),
            1 => drop(shard.udp_join_source(socket, group, source)),
            2 => drop(shard.udp_leave_source(socket, group, source)),
            3 => shard.close(socket),
            _ => drop(shard.udp_join(socket, group)),
        }
    }

    fn command(&mut self) {
        let what = self.next();
        let command = match what % 6 {
            0 => {
                self.up = !self.up;
                self.core.nic.set_up(self.up);
                Command::LinkChanged(self.up)
            }
            1 => Command::RemoveAddress(if what & 0x80 == 0 { OURS.into() } else { OURS6.into() }),
            2 => {
                let text = if what & 0x80 == 0 { "10.0.0.1/24" } else { "fd00::1/64" };
                Command::AddAddress(parse_cidr(text).expect("an address"))
            }
            3 => Command::AddNeighbor(
                Ipv4Addr::new(10, 0, 0, what).into(),
                EthernetAddress([2, 0, 0, 0, 1, what]),
            ),
            4 => {
                let frame = if what & 0x80 == 0 { self.arp() } else { self.ndp() };
                Command::Mail(Mail::Control(self.mutated(frame)))
            }
            _ => {
                let frame = self.datagram();
                let frame = self.mutated(frame);
                Command::Mail(Mail::Packet(frame.get(14..).unwrap_or_default().to_vec()))
            }
        };
        // That there is no room is an answer as well.
        let _ = self.core.shard.push_command(command);
    }

    fn ping(&mut self) {
        let what = self.next();
        self.core.shard.set_now(self.now);
        if what & 3 == 0 || self.pings.is_empty() {
            let any: IpAddr =
                if what & 4 == 0 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            self.pings.extend(self.core.shard.ping_bind(PingBind::new(any)));
            return;
        }
        let socket = self.pings[usize::from(what >> 3) % self.pings.len()];
        if what & 3 == 1 {
            self.core.shard.close(socket);
            return;
        }
        let to = self.target().ip();
        let len = usize::from(self.word()) % 4_000;
        let _ = self.core.shard.ping_send(socket, &PingOptions::new(to, what.into()), &vec![what; len]);
    }

    fn service(&mut self) {
        let what = self.next();
        self.core.shard.set_now(self.now);
        match what % 4 {
            0 => self.core.shard.dhcp_release(),
            1 => self.core.shard.take_tcp(2_000),
            _ => drop(
                self.core
                    .shard
                    .resolve("name.example", if what & 4 == 0 { Kind::Addresses } else { Kind::Ptr }),
            ),
        }
    }
}

/// The application takes what there is.
fn drain(shard: &mut Shard) {
    while let Some(event) = shard.next_event() {
        let id = event.socket;
        while shard.udp_recv_with(id, |_, _| {}).is_some() {}
        while shard.udp_take_error(id).is_some() {}
        while shard.ping_recv_with(id, |_, _| {}).is_some() {}
        while shard.ping_take_error(id).is_some() {}
    }
    while shard.next_answer().is_some() {}
    // As many bytes as it was taken with.
    shard.swap_tcp(&mut Outbox::new(2_000, 64));
}

/// Inputs from which to begin.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let request = [1, 0, 9, 0, 0, 0, 0, 0];
    vec![
        // A datagram waits for its neighbour, and its source goes meanwhile.
        [
            &[0x2a, 0x19, 0xd8, 0xbf, 0xff, 0x6a, 0, 0, 0x6a, 0, 0, 0x2c, 0x55, 0, 0, 0, 0x20, 0][..],
            &[0x37; 8],
            &[0x21, 0, 0, 0, 0x37, 0x37, 0x2c, 0x55],
        ]
        .concat(),
        // ARP, a socket, a datagram to it and back.
        [&[0][..], &request, &[9, 0, 3, 8, 4, 5, 2, 104, 105, 7, 0, 0, 0, 0, 10, 0, 8, 6, 0, 50]].concat(),
        // Fragments of both versions, and time.
        [
            &[0x20][..],
            &[4, 8, 4, 1, 2, 64, 7, 0, 0, 0, 0],
            &[4, 8, 4, 1, 32, 66, 7, 0, 0, 0, 0],
            &[4, 9, 4, 1, 2, 64, 7, 0, 0, 0, 0],
            &[13, 200, 2, 13, 200, 3],
        ]
        .concat(),
        // Solicitations, advertisements, a router.
        [
            &[0x11][..],
            &[2, 0, 9, 7, 0, 0, 0, 0],
            &[2, 2, 9, 7, 0, 0, 0, 0],
            &[2, 3, 9, 0, 7, 8, 7, 255, 255, 255, 255, 5, 220, 7, 0, 0, 0, 0],
            &[13, 100, 1, 13, 50, 2],
        ]
        .concat(),
        // A connected socket that is told of an error; mail and addresses.
        [
            &[0x40][..],
            &[9, 16, 10, 0, 8, 0, 0, 9, 10, 0, 8, 4, 0, 99],
            &[5, 8, 4, 0, 3, 0, 0, 7, 0, 0, 0, 0],
            &[12, 4, 0, 9, 0, 0, 0, 0, 12, 1, 13, 9, 2, 12, 2, 13, 9, 2],
        ]
        .concat(),
        // Groups and queries; echo; names; the link.
        [
            &[0x30][..],
            &[9, 32, 11, 0, 8, 11, 0, 9, 7, 0, 10, 0, 0, 0, 0, 7, 1, 10, 0, 0, 0, 0],
            &[6, 8, 4, 1, 3, 1, 2, 3, 7, 0, 0, 0, 0, 14, 0, 14, 2, 8, 0, 99],
            &[
                15, 2, 13, 90, 1, 12, 0, 13, 90, 1, 12, 0, 8, 9, 4, 7, 3, 3, 0, 1, 1, 0, 1, 2, 1, 1, 1, 7, 0,
                0, 0,
            ],
        ]
        .concat(),
    ]
}

const OURS_MAC: Mac = [2, 0, 0, 0, 0, 1];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OURS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe);
const ROUTER6_LL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 5);
