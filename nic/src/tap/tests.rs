//! What needs no interface: judging what was read, describing what is written, names.

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
    let layout = received::layout(Medium::Ip, &packet).expect("a datagram");
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
    let layout = received::layout(Medium::Ip, &absent).expect("a datagram");
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
