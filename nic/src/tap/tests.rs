//! What needs no interface: judging what was read, describing what is written, names.

use std::os::unix::net::UnixDatagram;

use super::*;
use crate::offload::virtio::VIRTIO_NET_HDR_LEN;

fn inbox() -> Inbox<'static> {
    Inbox::new(ManagedSlice::Owned(vec![0; 2000]), VIRTIO_NET_HDR_LEN, TapKind::Tun)
}

/// A datagram of UDP to port 9 whose checksum is right.
fn packet(payload: &[u8]) -> Vec<u8> {
    let total = (28 + payload.len()) as u16;
    let udp_len = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend([0, 9, 0, 9]);
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let layout = Layout::on(Medium::Ip, &packet).expect("a datagram");
    assert!(checksum::fill(&mut packet, &layout));
    packet
}

fn put(inbox: &mut Inbox<'_>, header: &[u8], packet: &[u8]) -> Counters {
    let mut counters = Counters::default();
    let len = header.len() + packet.len();
    inbox.current = None;
    inbox.buffer[..len].copy_from_slice(&[header, packet].concat());
    inbox.take(len, &mut counters);
    counters
}

#[test]
fn what_nobody_has_verified_is_verified() {
    let mut inbox = inbox();
    let good = packet(b"datagram");
    put(&mut inbox, &[0; 10], &good);
    assert_eq!(inbox.current.map(|arrived| arrived.meta.checksum), Some(ChecksumState::Verified));
    let mut wrong = good.clone();
    *wrong.last_mut().expect("not empty") ^= 1;
    let counters = put(&mut inbox, &[0; 10], &wrong);
    assert!(inbox.current.is_none());
    assert_eq!(counters.rx_bad_checksum, 1);
    // Somebody has: the kernel says so, and we do not look again.
    put(&mut inbox, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &wrong);
    assert_eq!(inbox.current.map(|arrived| arrived.meta.checksum), Some(ChecksumState::Verified));
}

#[test]
fn headers_that_lie_and_frames_that_do_not_fit_are_counted() {
    let mut inbox = inbox();
    assert_eq!(put(&mut inbox, &[1, 0, 0, 0, 0, 0, 200, 0, 200, 0], &packet(b"x")).rx_malformed, 1);
    assert_eq!(put(&mut inbox, &[0; 9], &[]).rx_malformed, 1);
    assert_eq!(put(&mut inbox, &[0; 10], &[0; 1990]).rx_truncated, 1);
    assert!(inbox.current.is_none());
}

#[test]
fn an_absent_checksum_of_a_datagram_is_filled_in_for_smoltcp() {
    let mut inbox = inbox();
    let whole = packet(b"datagram");
    let mut absent = whole.clone();
    let layout = Layout::on(Medium::Ip, &absent).expect("a datagram");
    let Some(ChecksumState::Partial { start, offset }) = checksum::leave_out(&mut absent, &layout) else {
        panic!("a datagram has a checksum");
    };
    assert_ne!(absent, whole);
    let meta = FrameMeta { checksum: ChecksumState::Partial { start, offset }, ..FrameMeta::default() };
    put(&mut inbox, &virtio::encode(&meta, Some(&layout)), &absent);
    let mut counters = Counters::default();
    inbox.lend(&mut counters, |frame| assert_eq!(frame, whole));
    assert_eq!((counters.rx_frames, counters.rx_checksum_filled), (1, 1));
    assert!(inbox.current.is_none());
}

/// A device on one end of a pair of sockets, which has room for a few frames, and the other end.
fn on_a_pair() -> (Tap<'static>, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    ours.set_nonblocking(true).expect("an open socket");
    theirs.set_nonblocking(true).expect("an open socket");
    let interface = Interface::by_name("lo").expect("every namespace has it");
    let control = UnixDatagram::unbound().expect("a descriptor");
    let link = Link {
        tun: File::from(OwnedFd::from(ours)),
        control: control.into(),
        index: interface.index,
        waker: Waker::new().expect("a descriptor"),
        starved: false,
        down: false,
        gone: false,
    };
    let tap = Tap {
        inbox: inbox(),
        outbox: Outbox::new(ManagedSlice::Owned(vec![0; 2000]), VIRTIO_NET_HDR_LEN, TapKind::Tun),
        link,
        rx_counters: Counters::default(),
        tx_counters: Counters::default(),
        kind: TapKind::Tun,
        splits_udp: true,
        interface,
    };
    (tap, theirs)
}

#[test]
fn frames_that_the_kernel_does_not_take_now_are_neither_lost_nor_reordered() {
    let (mut tap, theirs) = on_a_pair();
    let mut received = Vec::new();
    let mut buffer = [0; 2000];
    let mut refused = 0;
    let mut number = 0u32;
    while number < 500 {
        match tap.transmit(Instant::ZERO) {
            Some(token) => {
                token.consume(20 + number as usize % 50, |room| {
                    room[..4].copy_from_slice(&number.to_be_bytes());
                });
                number += 1;
            }
            None => {
                refused += 1;
                // As many as it takes to find out that order is kept across a refusal.
                for _ in 0..1 + number % 3 {
                    received.extend(theirs.recv(&mut buffer).map(|len| buffer[..len].to_vec()));
                }
            }
        }
    }
    while received.len() < 500 {
        assert_eq!(tap.flush(), Ok(()));
        received.extend(theirs.recv(&mut buffer).map(|len| buffer[..len].to_vec()));
    }
    for (number, frame) in received.iter().enumerate() {
        assert_eq!(frame.len(), VIRTIO_NET_HDR_LEN + 20 + number % 50);
        assert_eq!(frame[VIRTIO_NET_HDR_LEN..][..4], (number as u32).to_be_bytes());
    }
    let counters = tap.counters();
    assert_eq!((counters.tx_frames, counters.tx_ring_full), (500, refused));
    assert!(refused > 0, "the pair has room for a few only");
    // The loop is not told to look at frames while it could not answer them.
    assert_eq!(tap.wait(Some(Instant::ZERO)), Ok(Wake::Deadline));
}

fn split(size: u16) -> FrameMeta {
    let size = std::num::NonZeroU16::new(size).expect("not 0");
    let gso = Some(Gso { kind: GsoKind::Udp, size, ecn: false });
    FrameMeta { gso, ..FrameMeta::default() }
}

#[test]
fn pieces_for_which_the_kernel_has_no_room_are_counted() {
    let (mut tap, theirs) = on_a_pair();
    tap.splits_udp = false;
    let whole = packet(&[7; 1500]);
    let fill = |room: &mut [u8]| room.copy_from_slice(&whole);
    tap.transmit_with(Instant::ZERO, whole.len(), &split(1), fill).expect("room");
    let mut came = 0;
    while tap.counters().tx_frames > came {
        came += u64::from(theirs.recv(&mut [0; 2000]).is_ok());
        assert_eq!(tap.flush(), Ok(()));
    }
    let counters = tap.counters();
    assert_eq!((counters.tx_segmented, counters.tx_frames + counters.tx_segments_lost), (1, 1500));
    assert!(counters.tx_segments_lost > 0, "the pair has room for a few only");
}

#[test]
fn a_frame_of_which_pieces_were_lent_is_not_lent_whole() {
    let (mut tap, _theirs) = on_a_pair();
    let whole = packet(b"0123456789");
    let layout = Layout::on(Medium::Ip, &whole).expect("a datagram");
    put(&mut tap.inbox, &virtio::encode(&split(4), Some(&layout)), &whole);
    let (token, _) = tap.receive(Instant::ZERO).expect("a frame");
    assert_eq!(token.consume(|piece| piece[28..].to_vec()), b"0123");
    let lent = tap.receive_with(Instant::ZERO, |piece, meta| (piece[28..].to_vec(), *meta));
    assert_eq!(lent, Some((b"4567".to_vec(), FrameMeta::default())));
    let (token, _) = tap.receive(Instant::ZERO).expect("a frame");
    assert_eq!(token.consume(|piece| piece[28..].to_vec()), b"89");
    assert_eq!((tap.inbox.current.is_none(), tap.counters().rx_frames), (true, 3));
}

#[test]
fn a_frame_that_cannot_be_written_is_counted() {
    let (mut tap, _theirs) = on_a_pair();
    tap.transmit(Instant::ZERO).expect("room").consume(1991, |room| assert_eq!(room.len(), 1991));
    tap.transmit(Instant::ZERO).expect("room").consume(1990, |_| ());
    let counters = tap.counters();
    assert_eq!((counters.tx_oversize, counters.tx_frames, counters.tx_bytes), (1, 1, 1990));
}

#[test]
fn our_hardware_address_is_another_one() {
    for peer in [[0x00, 0x11, 0x22, 0x33, 0x44, 0x55], [0xfe, 0, 0, 0, 0, 0xff], [2, 0, 0, 0, 0, 1]] {
        let peer = EthernetAddress(peer);
        let ours = suggested_mac(peer);
        assert!(ours != peer && ours.is_unicast() && ours.0[0] & LOCAL_BIT != 0, "{ours}");
        assert_eq!(suggested_mac(peer), ours);
    }
}

#[test]
fn names_that_cannot_be_are_refused_in_one_line() {
    for name in ["", "sixteen-bytes-xx", "tap%d", "a\0b"] {
        let error = Tap::open(name, TapConfig::new(TapKind::Tap)).expect_err(name);
        assert_eq!(error.step, TapStep::Name);
        assert_eq!(error.to_string().lines().count(), 1);
    }
}
