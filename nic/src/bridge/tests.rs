use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroUsize};

use proptest::prelude::*;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use super::*;
use crate::loopback::{Loopback, LoopbackConfig};
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind};
use crate::offload::Layout;
use crate::offload::checksum::{self, Verdict, fill_checksum};

const START: Instant = Instant::from_micros_const(1_000_000);
const SRC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DST: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A bridge between two wires in memory, and the far ends of these.
struct Net {
    left: Loopback<'static>,
    right: Loopback<'static>,
    bridge: Bridge<Loopback<'static>, Loopback<'static>>,
}

impl Net {
    /// Wires that carry super-frames, with these MTUs.
    fn new([left, right]: [usize; 2], config: BridgeConfig) -> Self {
        let (far_left, near_left) = wire(left, 1024);
        let (near_right, far_right) = wire(right, 1024);
        Self { left: far_left, right: far_right, bridge: Bridge::new(near_left, near_right, config) }
    }

    fn send(&mut self, frame: &[u8], meta: &FrameMeta) {
        let sent = self.left.transmit_with(START, frame.len(), meta, |room| room.copy_from_slice(frame));
        assert!(sent.is_some(), "the wire is full");
    }

    fn turns(&mut self, now: Instant) -> Option<Instant> {
        loop {
            match self.bridge.turn(now).expect("both exist") {
                Some(deadline) if deadline <= now => {}
                deadline => return deadline,
            }
        }
    }
}

fn wire(mtu: usize, queue_len: usize) -> (Loopback<'static>, Loopback<'static>) {
    let config = LoopbackConfig {
        mtu: mtu + 14,
        frame_len_max: 65_536 + 22,
        queue_len,
        offloads: crate::OffloadCapabilities {
            checksum_tx: true,
            checksum_rx: false,
            gso_tcpv4: NonZeroUsize::new(65_536 + 22),
            gso_tcpv6: NonZeroUsize::new(65_536 + 22),
            gso_udp: NonZeroUsize::new(65_536 + 22),
        },
        ..LoopbackConfig::default()
    };
    Loopback::pair(&config).expect("a legal configuration")
}

/// All frames that have come to an end, with their metadata.
fn received(nic: &mut Loopback<'_>) -> Vec<(Vec<u8>, FrameMeta)> {
    std::iter::from_fn(|| nic.receive_with(START, |frame, meta| (frame.to_vec(), *meta))).collect()
}

fn link(tags: &[u8], ethertype: u16) -> Vec<u8> {
    [&DST[..], &SRC, tags, &ethertype.to_be_bytes()].concat()
}

/// A packet of UDP, whole, with its checksums.
fn v4(tags: &[u8], payload_len: usize, dont_frag: bool) -> Vec<u8> {
    let mut frame = link(tags, 0x0800);
    let network = frame.len();
    frame.resize(network + 28 + payload_len, 0x5a);
    frame[network..network + 20].fill(0);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[network..]);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.set_total_len((28 + payload_len) as u16);
    packet.set_ident(77);
    packet.set_dont_frag(dont_frag);
    packet.set_hop_limit(64);
    packet.set_next_header(IpProtocol::Udp);
    packet.set_src_addr(Ipv4Addr::new(10, 0, 0, 1));
    packet.set_dst_addr(Ipv4Addr::new(10, 0, 0, 2));
    packet.fill_checksum();
    frame[network + 24..network + 26].copy_from_slice(&((8 + payload_len) as u16).to_be_bytes());
    fill_checksum(&mut frame);
    frame
}

fn v6(payload_len: usize) -> Vec<u8> {
    let mut frame = link(&[], 0x86dd);
    frame.resize(54 + 8 + payload_len, 0x5a);
    let mut packet = Ipv6Packet::new_unchecked(&mut frame[14..]);
    packet.set_version(6);
    packet.set_traffic_class(0);
    packet.set_flow_label(0);
    packet.set_payload_len((8 + payload_len) as u16);
    packet.set_next_header(IpProtocol::Udp);
    packet.set_hop_limit(64);
    packet.set_src_addr(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    packet.set_dst_addr(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    frame[58..60].copy_from_slice(&((8 + payload_len) as u16).to_be_bytes());
    fill_checksum(&mut frame);
    frame
}

/// A super-frame of TCP whose checksum is absent, with segments of `size` bytes.
fn tcp(payload_len: usize, size: u16) -> (Vec<u8>, FrameMeta) {
    let mut frame = v4(&[], payload_len + 12, true);
    frame[23] = 6;
    frame[34..54].copy_from_slice(&[0, 80, 0, 90, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    let layout = Layout::of_frame(&frame).expect("TCP");
    let checksum = checksum::leave_out(&mut frame, &layout).expect("TCP has one");
    let size = NonZeroU16::new(size).expect("some");
    let gso = Some(Gso { kind: GsoKind::TcpV4, size, ecn: false });
    (frame, FrameMeta { checksum, gso, ..FrameMeta::default() })
}

#[test]
fn every_frame_passes_unchanged_both_ways() {
    let mut net = Net::new([1500, 1500], BridgeConfig::default());
    let lldp = [&[1, 0x80, 0xc2, 0, 0, 0xe][..], &SRC, &[0x88, 0xcc], &[7; 46]].concat();
    let frames = [
        v4(&[], 1472, true),
        v4(&[0x81, 0, 0, 5], 1472, true),
        v4(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], 100, true),
        v6(1452),
        lldp,
        vec![0; 14],
        vec![1],
    ];
    for frame in &frames {
        net.send(frame, &FrameMeta::default());
    }
    assert_eq!(net.turns(START), None);
    let there = received(&mut net.right);
    assert_eq!(there.iter().map(|(frame, _)| frame.clone()).collect::<Vec<_>>(), frames);
    for (frame, _) in &there {
        net.right
            .transmit_with(START, frame.len(), &FrameMeta::default(), |room| room.copy_from_slice(frame));
    }
    net.turns(START);
    assert_eq!(received(&mut net.left), there);
    let counters = net.bridge.counters();
    assert_eq!((counters.a_to_b.frames, counters.b_to_a.frames), (7, 7));
    assert_eq!((counters.a_to_b.super_frames, counters.a_to_b.too_big), (0, 0));
}

#[test]
fn super_frames_pass_whole_and_are_split_for_an_impairment() {
    let (frame, meta) = tcp(30_000, 1460);
    let mut net = Net::new([1500, 1500], BridgeConfig::default());
    net.send(&frame, &meta);
    net.turns(START);
    assert_eq!(received(&mut net.right), [(frame.clone(), meta)]);
    assert_eq!(net.bridge.counters().a_to_b.super_frames, 1);

    let config = BridgeConfig { a_to_b: Some(ImpairSpec::default()), ..BridgeConfig::default() };
    let mut net = Net::new([1500, 1500], config);
    net.send(&frame, &meta);
    net.turns(START);
    let pieces = received(&mut net.right);
    assert_eq!(pieces.len(), 21);
    for (piece, meta) in pieces {
        assert!(piece.len() <= 1514 && meta.is_plain());
        let layout = Layout::of_frame(&piece).expect("TCP");
        assert_eq!(checksum::verify(&piece, &layout), Verdict::Right);
    }
    assert_eq!(net.bridge.counters().a_to_b.impaired.sent, 21);
}

/// A verified checksum says nothing to a device that splits: it is taken out.
#[test]
fn a_verified_super_frame_loses_its_checksum() {
    let (mut frame, mut meta) = tcp(30_000, 1460);
    fill_checksum(&mut frame);
    meta.checksum = ChecksumState::Verified;
    let mut net = Net::new([1500, 1500], BridgeConfig::default());
    net.send(&frame, &meta);
    net.turns(START);
    let there = received(&mut net.right);
    assert_eq!(there[0].1.checksum, ChecksumState::Complete);
}

#[test]
fn what_is_too_long_is_answered() {
    let mut net = Net::new([9000, 1500], BridgeConfig::default());
    let (long, meta) = tcp(30_000, 8960);
    let tagged = v4(&[0x81, 0, 0, 5], 3000, true);
    for (frame, meta) in [(&v4(&[], 1473, true), FrameMeta::default()), (&long, meta), (&tagged, meta_none())]
    {
        net.send(frame, &meta);
        net.turns(START);
        assert!(received(&mut net.right).is_empty());
        let (answer, meta) = received(&mut net.left).pop().expect("an answer");
        assert!(meta.is_plain());
        assert_eq!((&answer[..6], &answer[6..12]), (&SRC[..], &DST[..]));
        let network = if frame.len() == tagged.len() { 18 } else { 14 };
        assert_eq!(answer[12..network], frame[12..network], "tags and EtherType");
        let packet = Ipv4Packet::new_checked(&answer[network..]).expect("IPv4");
        assert!(packet.verify_checksum() && packet.total_len() == 576 && packet.dont_frag());
        assert_eq!(packet.src_addr(), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(packet.dst_addr(), Ipv4Addr::new(10, 0, 0, 1));
        let icmp = Icmpv4Packet::new_checked(packet.payload()).expect("ICMP");
        assert!(icmp.verify_checksum());
        assert_eq!((icmp.msg_type(), icmp.msg_code()), (Icmpv4Message::DstUnreachable, 4));
        assert_eq!(packet.payload()[4..8], [0, 0, 5, 220], "the MTU");
        // The quotation is of what would have been on the wire: a segment's length, not the super-frame's.
        let quote = &packet.payload()[8..];
        assert_eq!(
            quote[4..20],
            [&frame[network + 4..network + 10], &quote[10..12], &frame[network + 12..network + 20]].concat()
                [..]
        );
        assert!(usize::from(u16::from_be_bytes([quote[2], quote[3]])) <= 9000);
    }
    net.send(&v6(1453), &FrameMeta::default());
    net.turns(START);
    let (answer, _) = received(&mut net.left).pop().expect("an answer");
    let packet = Ipv6Packet::new_checked(&answer[14..]).expect("IPv6");
    assert_eq!(packet.total_len(), 1280);
    let icmp = Icmpv6Packet::new_checked(packet.payload()).expect("ICMPv6");
    assert!(icmp.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    assert_eq!((icmp.msg_type(), icmp.pkt_too_big_mtu()), (Icmpv6Message::PktTooBig, 1500));
    assert_eq!(packet.payload()[8..], v6(1453)[14..][..1232]);
    let counters = net.bridge.counters().a_to_b;
    assert_eq!((counters.too_big, counters.too_big_answered, counters.frames), (4, 4, 0));
}

fn meta_none() -> FrameMeta {
    FrameMeta::default()
}

#[test]
fn an_mtu_can_change() {
    let mut net = Net::new([9000, 9000], BridgeConfig::default());
    net.bridge.set_mtu(Side::B, 1500);
    net.send(&v4(&[], 3000, true), &FrameMeta::default());
    net.turns(START);
    assert_eq!(received(&mut net.left).len(), 1);
    assert!(received(&mut net.right).is_empty());
}

#[test]
fn without_df_it_is_fragmented() {
    let mut net = Net::new([9000, 1500], BridgeConfig::default());
    net.send(&v4(&[], 4000, false), &FrameMeta::default());
    net.turns(START);
    let fragments = received(&mut net.right);
    assert_eq!(fragments.len(), 3);
    assert!(fragments.iter().all(|(frame, _)| frame.len() <= 1514));
    assert!(received(&mut net.left).is_empty());
    assert_eq!(net.bridge.counters().a_to_b.too_big_fragmented, 1);
}

/// Whom not to tell: RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e).
#[test]
fn nobody_is_told_who_may_not_be() {
    let mut net = Net::new([9000, 1500], BridgeConfig::default());
    let base = v4(&[], 3000, true);
    let change = |frame: &[u8], changes: &[(usize, &[u8])]| {
        let mut frame = frame.to_vec();
        for (offset, bytes) in changes {
            frame[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        frame
    };
    let mut v6_error = change(&v6(3000), &[(20, &[58]), (54, &[1])]);
    let cases = [
        ("to a group of stations", change(&base, &[(0, &[1])])),
        ("from no station", change(&base, &[(6, &[1])])),
        ("to a group", change(&base, &[(30, &[224])])),
        ("to everybody", change(&base, &[(30, &[255; 4])])),
        ("from nobody", change(&base, &[(26, &[0; 4])])),
        ("from a group", change(&base, &[(26, &[239])])),
        ("from itself", change(&base, &[(26, &[127])])),
        ("an ICMP error", change(&base, &[(23, &[1]), (34, &[3])])),
        ("a later fragment", change(&base, &[(20, &[0x40, 9])])),
        ("ARP", change(&base, &[(12, &[8, 6])])),
        ("not IPv4", change(&base, &[(14, &[0x65])])),
        ("longer than its frame", change(&base, &[(16, &[0xff, 0xff])])),
        ("to a group of IPv6", change(&v6(3000), &[(38, &[0xff])])),
        ("from nobody of IPv6", change(&v6(3000), &[(22, &[0; 16])])),
        ("from a group of IPv6", change(&v6(3000), &[(22, &[0xff])])),
        ("an ICMPv6 redirect", change(&v6_error, &[(54, &[137])])),
        ("an ICMPv6 error", v6_error.clone()),
        ("not IPv6", change(&v6(3000), &[(14, &[0x40])])),
    ];
    for (number, (name, frame)) in cases.iter().enumerate() {
        net.send(frame, &FrameMeta::default());
        net.turns(START);
        assert!(received(&mut net.left).is_empty(), "{name} is answered");
        assert!(received(&mut net.right).is_empty(), "{name} passes");
        assert_eq!(net.bridge.counters().a_to_b.too_big_unanswered, number as u64 + 1, "{name}");
    }
    // An echo request is no error.
    v6_error[54] = 128;
    for frame in [&v6_error, &change(&base, &[(23, &[1]), (34, &[8])])] {
        net.send(frame, &FrameMeta::default());
        net.turns(START);
        assert_eq!(received(&mut net.left).len(), 1);
    }
}

#[test]
fn answers_are_limited() {
    let mut net = Net::new([9000, 1500], BridgeConfig::default());
    let told = |net: &mut Net, now: Instant| {
        for _ in 0..100 {
            net.send(&v4(&[], 3000, true), &FrameMeta::default());
        }
        net.turns(now);
        received(&mut net.left).len()
    };
    assert_eq!(told(&mut net, START), 50);
    assert_eq!(told(&mut net, START + Duration::from_millis(7)), 7);
    assert_eq!(told(&mut net, START + Duration::from_secs(9)), 50);
    assert_eq!(net.bridge.counters().a_to_b.too_big_unanswered, 193);
}

#[test]
fn super_frames_that_cannot_be_told_apart_are_dropped() {
    let mut net = Net::new([1500, 1500], BridgeConfig::default());
    let (frame, meta) = tcp(30_000, 1460);
    let mut tunnel = frame.clone();
    tunnel[23] = 17;
    net.send(&tunnel, &meta);
    net.turns(START);
    assert!(received(&mut net.right).is_empty() && received(&mut net.left).is_empty());
    assert_eq!(net.bridge.counters().a_to_b.unsplittable, 1);
}

#[test]
fn a_full_device_holds_and_then_drops() {
    let (mut far_left, near_left) = wire(1500, 1024);
    let (near_right, mut far_right) = wire(1500, 4);
    let mut bridge = Bridge::new(near_left, near_right, BridgeConfig::default());
    for number in 0..10 {
        far_left.transmit_with(START, 60, &FrameMeta::default(), |room| room.fill(number));
    }
    let deadline = bridge.turn(START).expect("both exist").expect("something is held");
    assert!(deadline > START, "it does not spin");
    assert_eq!(bridge.counters().a_to_b.frames, 4);
    // Nothing is lost if it moves in time.
    let first: Vec<_> = received(&mut far_right).iter().map(|(frame, _)| frame[0]).collect();
    assert_eq!(first, [0, 1, 2, 3]);
    bridge.turn(START + Duration::from_millis(1)).expect("both exist");
    let second: Vec<_> = received(&mut far_right).iter().map(|(frame, _)| frame[0]).collect();
    assert_eq!(second, [4, 5, 6, 7]);
    for number in 10..20 {
        far_left.transmit_with(START, 60, &FrameMeta::default(), |room| room.fill(number));
    }
    // 8 and 9 have filled it together with two more; the rest is held, and dropped after a while.
    bridge.turn(START + Duration::from_millis(2)).expect("both exist");
    assert_eq!(bridge.counters().a_to_b.egress_full, 0);
    let rest = bridge.turn(START + Duration::from_millis(30)).expect("both exist");
    assert_eq!(rest, None, "nothing is held any more");
    let counters = bridge.counters().a_to_b;
    assert_eq!((counters.frames, counters.egress_full), (12, 8));
}

#[test]
fn one_direction_does_not_starve_the_other() {
    let (mut far_left, near_left) = wire(1500, 1024);
    let (near_right, mut far_right) = wire(1500, 1024);
    let mut bridge = Bridge::new(near_left, near_right, BridgeConfig::default());
    for _ in 0..1000 {
        far_left.transmit_with(START, 60, &FrameMeta::default(), |_| ());
    }
    far_right.transmit_with(START, 60, &FrameMeta::default(), |_| ());
    assert_eq!(bridge.turn(START), Ok(Some(START)), "there is more to do");
    assert_eq!(bridge.counters().b_to_a.frames, 1);
    assert!(bridge.counters().a_to_b.frames < 1000);
}

#[test]
fn delay_and_rate_are_kept_in_virtual_time() {
    let spec = "delay=10ms,rate=12mbit,queue=20".parse().expect("a spec");
    let mut net = Net::new([1500, 1500], BridgeConfig { a_to_b: Some(spec), ..BridgeConfig::default() });
    // Each takes a millisecond: 12 000 bits.
    for number in 0..30u8 {
        let mut frame = v4(&[], 1458, true);
        frame[60] = number;
        net.send(&frame, &FrameMeta::default());
    }
    let mut seen = Vec::new();
    let mut now = START;
    while let Some(next) = net.turns(now) {
        now = next;
        net.turns(now);
        for (frame, _) in received(&mut net.right) {
            seen.push((frame[60], (now - START).total_micros()));
        }
    }
    let expected: Vec<_> = (0..20u8).map(|number| (number, 11_000 + 1000 * u64::from(number))).collect();
    assert_eq!(seen, expected, "in order, the tail dropped");
    assert_eq!(net.bridge.counters().a_to_b.impaired.queue_full, 10);
}

#[test]
fn the_end_of_a_device_is_told() {
    let mut net = Net::new([1500, 1500], BridgeConfig::default());
    assert_eq!(net.bridge.turn(START), Ok(None));
    drop(net.right);
    assert_eq!(net.bridge.turn(START), Err(Gone(Side::B)));
}

#[test]
fn waiting_ends_with_a_frame_a_waker_and_a_deadline() {
    let mut net = Net::new([1500, 1500], BridgeConfig::default());
    net.bridge.waker().wake();
    assert_eq!(net.bridge.wait(None), Ok(Wake::Woken));
    let soon = wait::now() + Duration::from_micros(100);
    assert_eq!(net.bridge.wait(Some(soon)), Ok(Wake::Deadline));
    net.send(&[0; 60], &FrameMeta::default());
    assert_eq!(net.bridge.wait(None), Ok(Wake::Ready));
}

proptest! {
    /// Nothing that comes can do harm, whatever it claims to be.
    #[test]
    fn any_frame_is_survived(
        start in proptest::sample::select(vec![v4(&[], 0, true), v4(&[0x81, 0, 0, 1], 0, false), v6(0)]),
        noise in proptest::collection::vec(any::<u8>(), 0..4000),
        keep in 12..60usize,
        size in 1..u16::MAX,
        kind in proptest::sample::select(vec![None, Some(GsoKind::TcpV4), Some(GsoKind::TcpV6), Some(GsoKind::Udp)]),
        checksum in proptest::option::of((0..4000u16, 0..100u16)),
        is_impaired: bool,
    ) {
        let frame = [&start[..keep.min(start.len())], &noise].concat();
        let gso = kind.map(|kind| Gso { kind, size: NonZeroU16::new(size).expect("from 1"), ecn: false });
        let checksum = match checksum {
            Some((start, offset)) => ChecksumState::Partial { start, offset },
            None => ChecksumState::Complete,
        };
        let spec = is_impaired.then(ImpairSpec::default);
        let mut net = Net::new([9000, 600], BridgeConfig { a_to_b: spec, b_to_a: spec, seed: 1 });
        net.send(&frame, &FrameMeta { checksum, gso, ..FrameMeta::default() });
        net.turns(START);
        for (frame, meta) in received(&mut net.right) {
            prop_assert!(meta.gso.is_some() || frame.len() <= 600 + 14 + 4);
        }
        for (answer, _) in received(&mut net.left) {
            prop_assert!(answer.len() <= 1280 + 22);
        }
    }
}

/// A lie of the wire: the last fragment ends beyond what an offset can say.
#[test]
fn what_cannot_be_fragmented_is_not_counted_as_fragmented() {
    let mut net = Net::new([1500, 600], BridgeConfig::default());
    let mut frame = v4(&[], 1400, false);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    packet.set_frag_offset(0xfff8);
    packet.fill_checksum();
    net.send(&frame, &FrameMeta::default());
    net.turns(START);
    assert!(received(&mut net.right).is_empty());
    let counters = net.bridge.counters().a_to_b;
    assert_eq!(
        (counters.too_big, counters.too_big_fragmented, counters.too_big_unanswered, counters.frames),
        (1, 0, 1, 0)
    );
}
