//! Pieces read by smoltcp's parsers and by the verifier of this crate, against what the frame said.

use std::num::NonZeroU16;

use proptest::prelude::*;
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use super::*;
use crate::offload::checksum::{Verdict, leave_out, verify};

/// What a frame is made of.
#[derive(Debug, Clone)]
struct Plan {
    kind: GsoKind,
    is_v6: bool,
    tags: usize,
    has_link: bool,
    /// Bytes of IPv4 options, of a hop-by-hop header of IPv6, and of TCP options; multiples of 8.
    ip_options: usize,
    tcp_options: usize,
    flags: u8,
    id: u16,
    sequence: u32,
    size: u16,
    ecn: bool,
    /// Bytes behind the packet, as a short Ethernet frame has.
    padding: usize,
    payload: Vec<u8>,
}

impl Plan {
    fn is_tcp(&self) -> bool {
        self.kind != GsoKind::Udp
    }

    fn medium(&self) -> Medium {
        if self.has_link { Medium::Ethernet } else { Medium::Ip }
    }

    fn transport_header(&self) -> Vec<u8> {
        if !self.is_tcp() {
            let len = u16::try_from(8 + self.payload.len()).unwrap_or(0);
            return [&[4, 1, 4, 2][..], &len.to_be_bytes(), &[0, 0]].concat();
        }
        let words = (20 + self.tcp_options) as u8 / 4;
        let mut header = [&[4, 1, 0, 80][..], &self.sequence.to_be_bytes(), &[0, 0, 0, 77]].concat();
        header.extend([words << 4, self.flags, 2, 0, 0, 0, 0, 0]);
        header.extend(std::iter::repeat_n(1, self.tcp_options)); // NOP
        header
    }

    fn link_header(&self) -> Vec<u8> {
        if !self.has_link {
            return Vec::new();
        }
        let mut header = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            header.extend([0x81, 0x00, 0, 7 + tag as u8]);
        }
        header.extend(if self.is_v6 { [0x86, 0xdd] } else { [8, 0] });
        header
    }

    /// The frame, with the sum of the pseudo header in place of the checksum.
    fn frame(&self) -> (Vec<u8>, FrameMeta) {
        let transport = [self.transport_header(), self.payload.clone()].concat();
        let number = if self.is_tcp() { 6 } else { 17 };
        let mut frame = self.link_header();
        if self.is_v6 {
            let len = u16::try_from(self.ip_options + transport.len()).unwrap_or(0);
            frame.extend([0x60, 0x0a, 0xbc, 0xde]);
            frame.extend(len.to_be_bytes());
            frame.extend([if self.ip_options > 0 { 0 } else { number }, 64]);
            for host in [1, 2] {
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
            if self.ip_options > 0 {
                // Filled up with PadN.
                frame.extend([number, (self.ip_options / 8 - 1) as u8, 1, (self.ip_options - 4) as u8]);
                frame.extend(std::iter::repeat_n(0, self.ip_options - 4));
            }
        } else {
            let start = frame.len();
            let header_len = 20 + self.ip_options;
            let len = u16::try_from(header_len + transport.len()).unwrap_or(0);
            frame.extend([0x40 | (header_len / 4) as u8, 2]);
            frame.extend(len.to_be_bytes());
            frame.extend(self.id.to_be_bytes());
            frame.extend([0x40, 0, 64, number, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend(std::iter::repeat_n(1, self.ip_options)); // NOP
            let sum = !sum::data(&frame[start..]);
            put(&mut frame[start..], 10, sum);
        }
        frame.extend(transport);
        let gso = Gso { kind: self.kind, size: NonZeroU16::new(self.size).expect("from 1"), ecn: self.ecn };
        let layout = self.layout(&frame);
        let checksum = leave_out(&mut frame, &layout).expect("TCP or UDP");
        frame.extend(std::iter::repeat_n(0, self.padding));
        (frame, FrameMeta { checksum, gso: Some(gso), ..FrameMeta::default() })
    }

    fn layout(&self, frame: &[u8]) -> Layout {
        let layout = if self.has_link { Layout::of_frame(frame) } else { Layout::of_packet(frame) };
        layout.expect("a whole frame")
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let kind = prop_oneof![
        Just((GsoKind::TcpV4, false)),
        Just((GsoKind::TcpV6, true)),
        Just((GsoKind::Udp, false)),
        Just((GsoKind::Udp, true)),
    ];
    let headers = (kind, 0..3usize, any::<bool>(), 0..3usize, 0..6usize);
    let fields = (any::<u8>(), any::<u16>(), any::<u32>(), 1..3000u16, any::<bool>(), 0..7usize);
    let payload = proptest::collection::vec(any::<u8>(), 0..6000);
    (headers, fields, payload).prop_map(|(headers, fields, payload)| {
        let ((kind, is_v6), tags, has_link, ip_options, tcp_options) = headers;
        let (flags, id, sequence, size, ecn, padding) = fields;
        let (ip_options, tcp_options) = (8 * ip_options, 8 * tcp_options);
        Plan {
            kind,
            is_v6,
            tags,
            has_link,
            ip_options,
            tcp_options,
            flags,
            id,
            sequence,
            size,
            ecn,
            padding,
            payload,
        }
    })
}

fn pieces(segments: &Segments<'_>) -> Vec<Vec<u8>> {
    (0..segments.count())
        .map(|index| {
            let mut piece = vec![0xaa; segments.frame_len(index)];
            segments.write(index, &mut piece);
            piece
        })
        .collect()
}

/// What smoltcp reads in a packet: addresses, the IP identification (IPv4) or flow label, what is in it.
fn read_ip(packet: &[u8]) -> (IpAddress, IpAddress, u32) {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(packet).expect("whole");
        assert!(ip.verify_checksum());
        assert_eq!(usize::from(ip.total_len()), packet.len());
        (ip.src_addr().into(), ip.dst_addr().into(), ip.ident().into())
    } else {
        let ip = Ipv6Packet::new_checked(packet).expect("whole");
        assert_eq!(ip.total_len(), packet.len());
        (ip.src_addr().into(), ip.dst_addr().into(), ip.flow_label())
    }
}

/// Checks a piece against the plan; returns its payload.
fn check_piece<'a>(plan: &Plan, piece: &'a [u8], index: usize, count: usize) -> &'a [u8] {
    let layout = plan.layout(piece);
    assert_eq!(verify(piece, &layout), Verdict::Right);
    assert_eq!(layout.end, piece.len(), "no padding");
    assert_eq!(piece[..layout.network], plan.link_header());
    let (src, dst, id) = read_ip(&piece[layout.network..]);
    assert_eq!(id, if plan.is_v6 { 0xabcde } else { plan.id.wrapping_add(index as u16).into() });
    let transport = &piece[layout.transport..];
    if !plan.is_tcp() {
        let datagram = UdpPacket::new_checked(transport).expect("whole");
        assert!(datagram.verify_checksum(&src, &dst) && datagram.checksum() != 0);
        assert_eq!((datagram.src_port(), datagram.dst_port()), (0x401, 0x402));
        return &piece[layout.payload..];
    }
    let segment = TcpPacket::new_checked(transport).expect("whole");
    assert!(segment.verify_checksum(&src, &dst));
    let sequence = plan.sequence.wrapping_add((index * usize::from(plan.size)) as u32);
    assert_eq!(segment.seq_number().0.cast_unsigned(), sequence);
    let mut flags = plan.flags;
    if index + 1 < count {
        flags &= !0x09;
    }
    if index > 0 && plan.ecn {
        flags &= !0x80;
    }
    assert_eq!(transport[13], flags);
    assert!(segment.options().iter().all(|&option| option == 1));
    &piece[layout.payload..]
}

proptest! {
    #[test]
    fn pieces_are_the_frame(plan in plans()) {
        let (frame, meta) = plan.frame();
        let segments = Segments::of(plan.medium(), &frame, &meta, None);
        let size = usize::from(plan.size);
        let count = plan.payload.len().div_ceil(size).max(1);
        prop_assert_eq!(segments.count(), count);
        prop_assert_eq!(segments.frame_len(count), 0);
        let pieces = pieces(&segments);
        if count == 1 {
            prop_assert_eq!(verify(&pieces[0], &plan.layout(&pieces[0])), Verdict::Right);
            prop_assert_eq!(pieces[0].len(), frame.len());
            return Ok(());
        }
        let payloads: Vec<&[u8]> =
            pieces.iter().enumerate().map(|(index, piece)| check_piece(&plan, piece, index, count)).collect();
        prop_assert!(payloads[..count - 1].iter().all(|payload| payload.len() == size));
        prop_assert_eq!(payloads.concat(), plan.payload);
    }

    #[test]
    fn a_frame_of_unknown_size_is_split_at_the_mtu(mut plan in plans(), mtu in 0..4000usize) {
        (plan.ecn, plan.has_link) = (true, true);
        let (frame, meta) = plan.frame();
        let meta = FrameMeta { gso: None, ..meta };
        let segments = Segments::with_mtu(&frame, &meta, mtu);
        let layout = plan.layout(&frame);
        let headers_len = layout.payload - layout.network;
        if !plan.is_tcp() || layout.end - layout.network <= mtu || mtu <= headers_len {
            prop_assert_eq!(segments.count(), 1);
            return Ok(());
        }
        plan.size = (mtu - headers_len) as u16;
        let (pieces, count) = (pieces(&segments), segments.count());
        let mut payload = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            payload.extend_from_slice(check_piece(&plan, piece, index, count));
            let len = piece.len() - layout.network;
            prop_assert!(len == mtu || index + 1 == count && len < mtu);
        }
        prop_assert_eq!(payload, plan.payload);
    }

    #[test]
    fn any_bytes_and_any_metadata_are_survived(
        plan in plans(),
        changes in proptest::collection::vec((0..100usize, any::<u8>()), 0..4),
        cut in 0..200usize,
        (start, offset) in (any::<u16>(), any::<u16>()),
        kind in prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::Udp)],
        state in 0..3,
        mtu in proptest::option::of(0..2000usize),
    ) {
        let (mut frame, mut meta) = plan.frame();
        frame.truncate(frame.len().saturating_sub(cut));
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        match state {
            0 => meta.checksum = ChecksumState::Complete,
            1 => meta.checksum = ChecksumState::Partial { start, offset },
            _ => meta.gso = meta.gso.map(|gso| Gso { kind, ..gso }),
        }
        for medium in [Medium::Ethernet, Medium::Ip] {
            let segments = Segments::of(medium, &frame, &meta, mtu);
            prop_assert!(segments.count() <= frame.len().max(1));
            for index in 0..segments.count() {
                let mut room = vec![0; segments.frame_len(index) + 1];
                segments.write(index, &mut room);
                segments.write(index, &mut []);
            }
        }
    }
}

fn plan(kind: GsoKind, is_v6: bool, payload_len: usize) -> Plan {
    Plan {
        kind,
        is_v6,
        tags: 0,
        has_link: true,
        ip_options: 0,
        tcp_options: 8,
        flags: 0x99,
        id: 0xffff,
        sequence: u32::MAX - 2000,
        size: 1448,
        ecn: true,
        padding: 0,
        payload: (0..payload_len).map(|index| (index * 7 % 251) as u8).collect(),
    }
}

fn reassemble(plan: &Plan, frame: &[u8], meta: &FrameMeta) -> usize {
    let segments = Segments::new(frame, meta);
    let (pieces, count) = (pieces(&segments), segments.count());
    let payload: Vec<u8> = pieces
        .iter()
        .enumerate()
        .flat_map(|(index, piece)| check_piece(plan, piece, index, count).to_vec())
        .collect();
    assert!(payload == plan.payload);
    count
}

#[test]
fn frames_of_more_than_64_kib_are_split() {
    for (kind, is_v6) in [(GsoKind::TcpV4, false), (GsoKind::TcpV6, true)] {
        let plan = plan(kind, is_v6, 120_000);
        let (frame, meta) = plan.frame();
        assert_eq!(half(&frame, if is_v6 { 18 } else { 16 }), Some(0), "no length");
        assert_eq!(reassemble(&plan, &frame, &meta), 83);
    }
}

#[test]
fn the_jumbo_payload_option_of_a_kernel_is_left_out() {
    let plan = plan(GsoKind::TcpV6, true, 100_000);
    let (frame, meta) = plan.frame();
    let len = (8 + frame.len() - 54) as u32;
    let jumbo = [&[6, 0, 0xc2, 4][..], &len.to_be_bytes()].concat();
    let mut with_jumbo = [&frame[..54], &jumbo, &frame[54..]].concat();
    with_jumbo[20] = 0; // the next header is hop-by-hop
    let meta = FrameMeta { checksum: ChecksumState::Partial { start: 62, offset: 16 }, ..meta };
    assert_eq!(reassemble(&plan, &with_jumbo, &meta), 70);
    let of_mtu = Segments::with_mtu(&with_jumbo, &FrameMeta { gso: None, ..meta }, 1500);
    assert_eq!(of_mtu.frame_len(0), 1514);
}

#[test]
fn a_datagram_without_a_checksum_stays_without_one() {
    let plan = plan(GsoKind::Udp, false, 3000);
    let (mut frame, meta) = plan.frame();
    frame[40..42].fill(0);
    let meta = FrameMeta { checksum: ChecksumState::Complete, ..meta };
    for piece in pieces(&Segments::new(&frame, &meta)) {
        assert_eq!(piece[40..42], [0, 0]);
    }
    // Over IPv6 there is no such thing (RFC 8200 section 8.1).
    let plan = Plan { is_v6: true, ..plan };
    let (mut frame, meta) = plan.frame();
    frame[60..62].fill(0);
    reassemble(&plan, &frame, &FrameMeta { checksum: ChecksumState::Complete, ..meta });
}

#[test]
fn without_ecn_every_piece_keeps_its_cwr() {
    let plan = Plan { ecn: false, ..plan(GsoKind::TcpV4, false, 4000) };
    let (frame, meta) = plan.frame();
    assert_eq!(reassemble(&plan, &frame, &meta), 3);
}

#[test]
fn what_contradicts_itself_is_one_piece_with_its_checksum() {
    let plan = plan(GsoKind::TcpV4, false, 4000);
    let (frame, meta) = plan.frame();
    let gso = meta.gso.expect("set");
    for kind in [GsoKind::TcpV6, GsoKind::Udp] {
        let segments = Segments::new(&frame, &FrameMeta { gso: Some(Gso { kind, ..gso }), ..meta });
        assert_eq!(segments.count(), 1);
        let pieces = pieces(&segments);
        assert_eq!(verify(&pieces[0], &plan.layout(&pieces[0])), Verdict::Right);
    }
    // Pieces that no length field can tell.
    let big = Plan { size: u16::MAX, ..self::plan(GsoKind::TcpV4, false, 100_000) };
    let (frame, meta) = big.frame();
    assert_eq!(Segments::new(&frame, &meta).count(), 1);
    // A datagram whose length is not that of the packet.
    let (mut frame, meta) = self::plan(GsoKind::Udp, false, 4000).frame();
    frame[39] ^= 1;
    assert_eq!(Segments::new(&frame, &meta).count(), 1);
}

/// A frame of TCP over IPv4 to be split into segments of 1448 bytes, for tests of devices.
pub(crate) fn super_frame(medium: Medium, payload_len: usize) -> (Vec<u8>, FrameMeta) {
    Plan { has_link: medium == Medium::Ethernet, tcp_options: 12, ..plan(GsoKind::TcpV4, false, payload_len) }
        .frame()
}
