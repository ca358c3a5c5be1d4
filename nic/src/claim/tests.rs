use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::headers::{self, EXTENSION_HEADERS_MAX};
use super::{Claim, ClaimSet, Claimed, Protocol};
use crate::{Counters, FrameMeta, LinkError, LinkState, Nic, Wake, Waker};

const SHARED_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const WHOLE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SHARED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

/// TCP 80-89 on both shared addresses, UDP 5000 on the one of IPv4, and one whole address.
fn claims() -> Vec<Claim> {
    vec![
        Claim::ports(SHARED_V4, Protocol::Tcp, 80..=89),
        Claim::ports(SHARED_V4, Protocol::Udp, 5000..=5000),
        Claim::ports(SHARED_V6, Protocol::Tcp, 80..=89),
        Claim::address(WHOLE_V4),
        Claim::ports(WHOLE_V4, Protocol::Tcp, 22..=22),
    ]
}

/// A packet as its fields, from which both its bytes and the right answer are made.
#[derive(Debug, Clone)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    /// In units of 8 bytes. `None`: not a fragment.
    fragment_offset: Option<u16>,
    /// IPv4: 32-bit words of options, 0..=10. IPv6: extension headers, each with its length field.
    v4_options: u8,
    v6_extensions: Vec<(u8, u8)>,
    body: Vec<u8>,
}

impl Packet {
    fn new(src: IpAddr, dst: IpAddr, protocol: u8, body: Vec<u8>) -> Self {
        Self { src, dst, protocol, fragment_offset: None, v4_options: 0, v6_extensions: vec![], body }
    }

    fn tcp(src: IpAddr, src_port: u16, dst: IpAddr, dst_port: u16) -> Self {
        Self::new(src, dst, headers::TCP, ports(src_port, dst_port))
    }

    fn bytes(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.bytes_v4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.bytes_v6(src, dst),
            _ => panic!("one family"),
        }
    }

    fn bytes_v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let header_len = 20 + usize::from(self.v4_options) * 4;
        let mut bytes = vec![0x40 | (5 + self.v4_options), 0];
        bytes.extend(u16::try_from(header_len + self.body.len()).unwrap().to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(self.fragment_offset.map_or(0x4000, |offset| 0x2000 | offset).to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.resize(header_len, 1);
        bytes.extend(&self.body);
        bytes
    }

    fn bytes_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = vec![];
        for &(kind, length) in &self.v6_extensions {
            let unit = if kind == headers::AUTHENTICATION { 4 } else { 8 };
            let extra = if kind == headers::AUTHENTICATION { 2 } else { 1 };
            let mut header = vec![0; (usize::from(length) + extra) * unit];
            header[1] = length;
            chain.push((kind, header));
        }
        if let Some(offset) = self.fragment_offset {
            let [high, low] = (offset << 3 | 1).to_be_bytes();
            chain.push((headers::FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 9]));
        }
        let mut next = self.protocol;
        let mut body = self.body.clone();
        for (kind, mut header) in chain.into_iter().rev() {
            header[0] = next;
            next = kind;
            header.extend(body);
            body = header;
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(body);
        bytes
    }

    fn frame(&self) -> Vec<u8> {
        let ethertype = if self.dst.is_ipv4() { headers::ETHERTYPE_IPV4 } else { headers::ETHERTYPE_IPV6 };
        frame(ethertype, &self.bytes())
    }

    /// The right answer for TCP and UDP, from the fields and the list of claims above.
    fn is_ours(&self) -> bool {
        let extensions = self.v6_extensions.len() + usize::from(self.fragment_offset.is_some());
        if self.dst.is_ipv6() && extensions > EXTENSION_HEADERS_MAX {
            return false;
        }
        let ports = match (self.dst, self.protocol) {
            (SHARED_V4 | SHARED_V6, headers::TCP) => 80..=89,
            (SHARED_V4, headers::UDP) => 5000..=5000,
            (SHARED_V4 | SHARED_V6, _) => return false,
            _ => return true,
        };
        let port = self.body.get(2..4).map(|port| u16::from(port[0]) << 8 | u16::from(port[1]));
        self.fragment_offset.is_some_and(|offset| offset > 0)
            || port.is_some_and(|port| ports.contains(&port))
    }
}

fn ports(src: u16, dst: u16) -> Vec<u8> {
    let mut body = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    body.resize(20, 0);
    body
}

fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ICMP message of type `kind` about a packet.
fn icmp(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    message
}

#[track_caller]
fn check(what: &str, packet: &Packet, ours: bool) {
    let set = ClaimSet::new(&claims());
    assert_eq!(set.is_ours(&packet.frame()), ours, "{what}");
    assert_eq!(set.is_ours_ip(&packet.bytes()), ours, "{what}, without Ethernet");
    assert!(ClaimSet::default().is_ours(&packet.frame()), "{what}, nothing shared");
}

#[test]
fn transport() {
    check("claimed port", &Packet::tcp(OTHER_V4, 9, SHARED_V4, 80), true);
    check("last claimed port", &Packet::tcp(OTHER_V4, 9, SHARED_V4, 89), true);
    check("ssh of the kernel", &Packet::tcp(OTHER_V4, 9, SHARED_V4, 22), false);
    check("the source port does not count", &Packet::tcp(OTHER_V4, 80, SHARED_V4, 90), false);
    check("whole address", &Packet::tcp(OTHER_V4, 9, WHOLE_V4, 443), true);
    check("an address of nobody", &Packet::tcp(WHOLE_V4, 9, OTHER_V4, 22), true);
    check("IPv6", &Packet::tcp(OTHER_V6, 9, SHARED_V6, 80), true);
    check("IPv6, ssh of the kernel", &Packet::tcp(OTHER_V6, 9, SHARED_V6, 22), false);
    let udp = |port| Packet::new(OTHER_V4, SHARED_V4, headers::UDP, ports(9, port));
    check("claimed UDP port", &udp(5000), true);
    check("port of the other protocol", &udp(80), false);
    check("a protocol without claims", &Packet::new(OTHER_V4, SHARED_V4, 47, ports(80, 80)), false);
    check("no room for ports", &Packet::new(OTHER_V4, SHARED_V4, headers::TCP, vec![0, 80, 0]), false);
}

#[test]
fn control() {
    let from_ours = Packet::tcp(SHARED_V4, 80, OTHER_V4, 9).bytes();
    let from_ssh = Packet::tcp(SHARED_V4, 22, OTHER_V4, 9).bytes();
    let to = |dst, kind, quoted: &[u8]| Packet::new(OTHER_V4, dst, headers::ICMP, icmp(kind, quoted));
    for kind in [3, 4, 5, 11, 12] {
        check("error about ours", &to(SHARED_V4, kind, &from_ours), true);
        check("error about ssh", &to(SHARED_V4, kind, &from_ssh), false);
        check("quoted to the port", &to(SHARED_V4, kind, &from_ours[..22]), true);
        check("quoted too short", &to(SHARED_V4, kind, &from_ours[..21]), false);
    }
    check("ping to a shared address", &to(SHARED_V4, 8, &[]), false);
    check("ping to our address", &to(WHOLE_V4, 8, &[]), true);
    check("echo reply", &to(SHARED_V4, 0, &[]), true);
    for (offset, kind, ours) in [(0, 0, true), (0, 8, false), (185, 0, true), (185, 8, true)] {
        let mut fragment = to(SHARED_V4, kind, &[]);
        fragment.fragment_offset = Some(offset);
        check("fragment of ICMP", &fragment, ours);
    }
    check("ping to all", &to(IpAddr::V4(Ipv4Addr::BROADCAST), 8, &[]), false);
    let mdns = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251));
    check("ping to a group", &to(mdns, 8, &[]), false);
    check("UDP to a group", &Packet::new(OTHER_V4, mdns, headers::UDP, ports(5353, 5353)), true);

    let from_ours = Packet::tcp(SHARED_V6, 80, OTHER_V6, 9).bytes();
    let to = |kind, quoted: &[u8]| Packet::new(OTHER_V6, SHARED_V6, headers::ICMPV6, icmp(kind, quoted));
    check("packet too big about ours", &to(2, &from_ours), true);
    check(
        "packet too big about ours, options",
        &to(2, &{
            let mut quoted = Packet::tcp(SHARED_V6, 80, OTHER_V6, 9);
            quoted.v6_extensions = vec![(headers::DESTINATION_OPTIONS, 0)];
            quoted.bytes()
        }),
        true,
    );
    check("ping over IPv6", &to(128, &[]), false);
    let mut fragment = to(128, &[]);
    fragment.fragment_offset = Some(1);
    check("later fragment of ICMPv6", &fragment, true);
    check("echo reply over IPv6", &to(129, &[]), true);
    for kind in 133..=137 {
        check("neighbor discovery", &to(kind, &[]), true);
    }
    check("ICMPv4 inside IPv6", &Packet::new(OTHER_V6, SHARED_V6, headers::ICMP, icmp(0, &[])), false);
}

#[test]
fn link_layer() {
    let set = ClaimSet::new(&claims());
    assert!(set.is_ours(&frame(headers::ETHERTYPE_ARP, &[])), "ARP");
    assert!(!set.is_ours(&frame(0x88cc, &[0; 46])), "LLDP");
    assert!(!set.is_ours(&frame(headers::ETHERTYPE_IPV4, &[])), "no packet");
    assert!(!set.is_ours(&[0; 13]), "no EtherType");
    for (port, ours) in [(80, true), (22, false)] {
        let packet = Packet::tcp(OTHER_V4, 9, SHARED_V4, port);
        let tagged = [&[0, 7], &packet.frame()[12..]].concat();
        let twice = [&[0, 9, 0x81, 0], &tagged[..]].concat();
        assert_eq!(set.is_ours(&frame(headers::ETHERTYPE_VLAN, &tagged)), ours, "802.1Q");
        assert_eq!(set.is_ours(&frame(headers::ETHERTYPE_QINQ, &twice)), ours, "802.1ad");
    }
}

#[test]
fn words() {
    let text: Vec<_> = claims().iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        ["10.0.0.2 tcp 80-89", "10.0.0.2 udp 5000", "fd00::2 tcp 80-89", "10.0.0.3", "10.0.0.3 tcp 22"]
    );
    assert!(!ClaimSet::new(&[Claim::address(WHOLE_V4)]).filters());
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let port = || prop_oneof![Just(80), Just(89), Just(90), Just(79), Just(5000), any::<u16>()];
    let addresses = prop_oneof![
        Just((OTHER_V4, SHARED_V4)),
        Just((OTHER_V4, WHOLE_V4)),
        Just((OTHER_V4, OTHER_V4)),
        Just((OTHER_V6, SHARED_V6)),
        Just((OTHER_V6, OTHER_V6)),
    ];
    let extension = (
        prop_oneof![
            Just(headers::HOP_BY_HOP),
            Just(headers::ROUTING),
            Just(headers::DESTINATION_OPTIONS),
            Just(headers::AUTHENTICATION)
        ],
        0..5_u8,
    );
    (
        addresses,
        prop_oneof![Just(headers::TCP), Just(headers::UDP), Just(132_u8)],
        proptest::option::of(prop_oneof![Just(0_u16), 0..0x2000_u16]),
        0..=10_u8,
        proptest::collection::vec(extension, 0..10),
        (port(), port()),
        0..=20_usize,
    )
        .prop_map(
            |((src, dst), protocol, fragment_offset, v4_options, v6_extensions, (from, to), len)| {
                let body = ports(from, to)[..len].to_vec();
                Packet { src, dst, protocol, fragment_offset, v4_options, v6_extensions, body }
            },
        )
}

proptest! {
    #[test]
    fn agrees_with_the_model(packet in any_packet()) {
        let set = ClaimSet::new(&claims());
        prop_assert_eq!(set.is_ours(&packet.frame()), packet.is_ours());
        prop_assert_eq!(set.is_ours_ip(&packet.bytes()), packet.is_ours());
    }

    /// A good packet of which bytes were changed and the end was lost.
    #[test]
    fn damaged_packets_get_an_answer(
        packet in any_packet(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        keep in any::<prop::sample::Index>(),
        in_error in any::<bool>(),
    ) {
        let mut packet = packet;
        if in_error {
            let (kind, protocol) = if packet.dst.is_ipv4() { (3, headers::ICMP) } else { (1, headers::ICMPV6) };
            packet = Packet::new(packet.src, packet.dst, protocol, icmp(kind, &packet.bytes()));
        }
        let mut frame = packet.frame();
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(keep.index(frame.len() + 1));
        let _ = ClaimSet::new(&claims()).is_ours(&frame);
        prop_assert!(ClaimSet::default().is_ours(&frame));
    }

    #[test]
    fn arbitrary_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let set = ClaimSet::new(&claims());
        let _ = set.is_ours(&bytes);
        let _ = set.is_ours_ip(&bytes);
    }
}

/// A device of frames in memory, which may have no room to send.
struct Queue {
    frames: VecDeque<Vec<u8>>,
    room: bool,
    waits: Vec<Option<Instant>>,
    lent: Counters,
    waker: Waker,
}

struct Frame(Vec<u8>);
struct Sink;

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sink {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        f(&mut vec![0; len])
    }
}

impl Device for Queue {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Sink;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Sink)> {
        let frame = self.frames.pop_front()?;
        self.lent.rx_frames += 1;
        self.lent.rx_bytes += frame.len() as u64;
        Some((Frame(frame), Sink))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sink> {
        self.room.then_some(Sink)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

impl Nic for Queue {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        self.waits.push(deadline);
        Ok(Wake::Deadline)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        LinkState::Up
    }

    fn counters(&mut self) -> Counters {
        self.lent
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

fn queue(dst_ports: impl IntoIterator<Item = u16>) -> Queue {
    let frame = |port| Packet::tcp(OTHER_V4, 9, SHARED_V4, port).frame();
    Queue {
        frames: dst_ports.into_iter().map(frame).collect(),
        room: true,
        waits: vec![],
        lent: Counters::default(),
        waker: Waker::new().unwrap(),
    }
}

fn receive(device: &mut Claimed<Queue>) -> Option<Vec<u8>> {
    let (rx, _tx) = device.receive(Instant::ZERO)?;
    Some(rx.consume(<[u8]>::to_vec))
}

#[test]
fn a_device_shows_only_ours() {
    let mut device = Claimed::new(queue([22, 80, 22, 22, 81]), ClaimSet::new(&claims()));
    for port in [80, 81] {
        assert_eq!(receive(&mut device), Some(Packet::tcp(OTHER_V4, 9, SHARED_V4, port).frame()));
    }
    assert_eq!(receive(&mut device), None);
    assert_eq!(device.wait(None), Ok(Wake::Deadline));
    assert_eq!(device.inner().waits, [None], "nothing left: the inner device sleeps");
    let counters = device.counters();
    assert_eq!((counters.rx_frames, counters.rx_not_ours), (2, 3));
    assert_eq!(counters.rx_bytes, 2 * 54);

    device.set_claims(ClaimSet::default());
    device.inner_mut().frames = queue([22]).frames;
    assert!(receive(&mut device).is_some(), "nothing shared: all frames pass");
}

#[test]
fn a_flood_of_others_neither_holds_the_loop_nor_lets_it_sleep() {
    let others = std::iter::repeat_n(22, 100);
    let mut device = Claimed::new(queue(others.chain([80])), ClaimSet::new(&claims()));
    assert_eq!(receive(&mut device), None);
    assert_eq!(device.inner().frames.len(), 37, "64 were skipped");
    assert_eq!(device.wait(None), Ok(Wake::Ready));
    assert_eq!(device.inner().waits, [Some(Instant::ZERO)]);
    assert!(receive(&mut device).is_some());
    assert_eq!(device.wait(None), Ok(Wake::Deadline));
}

#[test]
fn a_frame_waits_for_room_to_answer() {
    let mut device = Claimed::new(queue([80]), ClaimSet::new(&claims()));
    device.inner_mut().room = false;
    assert_eq!(receive(&mut device), None);
    let before = crate::wait::now();
    assert_eq!(device.wait(None), Ok(Wake::Ready));
    let deadline = device.inner().waits[0].expect("a held frame is looked at again");
    assert!(deadline >= before && deadline <= crate::wait::now() + super::device::HELD_RETRY);
    device.inner_mut().room = true;
    assert!(receive(&mut device).is_some());
    assert_eq!(receive(&mut device), None);
}

#[test]
fn a_frame_is_judged_where_it_is() {
    let frame = |device: &mut Claimed<Queue>| {
        device.receive_with(Instant::ZERO, |frame, meta| (frame.to_vec(), *meta))
    };
    let expected = |port| Some((Packet::tcp(OTHER_V4, 9, SHARED_V4, port).frame(), FrameMeta::default()));
    let others = std::iter::repeat_n(22, 100);
    let ports = [22, 80, 22, 81, 82].into_iter().chain(others).chain([83]);
    let mut device = Claimed::new(queue(ports), ClaimSet::new(&claims()));
    assert_eq!(frame(&mut device), expected(80));
    // One that a token left behind comes before those that follow it.
    device.inner_mut().room = false;
    assert_eq!(receive(&mut device), None);
    assert_eq!(frame(&mut device), expected(81));
    device.inner_mut().room = true;
    assert_eq!(frame(&mut device), expected(82));
    assert_eq!(frame(&mut device), None, "a bound of one call");
    assert_eq!(device.wait(None), Ok(Wake::Ready));
    assert_eq!(frame(&mut device), expected(83));
    let counters = device.counters();
    assert_eq!((counters.rx_frames, counters.rx_not_ours), (4, 102));
}
