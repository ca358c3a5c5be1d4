//! Super-frames on an impaired wire: what is dropped, flipped and delivered are packets of MTU size.

use std::num::NonZeroUsize;

use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::tests::{at, spec};
use super::*;
use crate::loopback::{Loopback, LoopbackConfig};
use crate::offload::segment::tests::super_frame;

/// An impaired end and a plain one of a wire of IP packets that takes and gives everything.
fn pair(rx: &str, tx: &str) -> (Impair<'static, Loopback<'static>>, Loopback<'static>) {
    let frame_len_max = 65_600;
    let gso = NonZeroUsize::new(frame_len_max);
    let config = LoopbackConfig {
        medium: Medium::Ip,
        mtu: 1500,
        frame_len_max,
        queue_len: 1000,
        offloads: OffloadCapabilities {
            checksum_tx: true,
            checksum_rx: true,
            gso_tcpv4: gso,
            gso_tcpv6: gso,
            gso_udp: gso,
        },
        ..LoopbackConfig::default()
    };
    let (a, b) = Loopback::pair(&config).expect("a pair");
    (Impair::new(a, ImpairConfig { rx: spec(rx), tx: spec(tx), seed: 3 }), b)
}

fn send(device: &mut impl Nic, frame: &[u8], meta: &FrameMeta) {
    device.transmit_with(at(0), frame.len(), meta, |room| room.copy_from_slice(frame)).expect("room");
}

fn receive(device: &mut impl Nic) -> Option<(Vec<u8>, FrameMeta)> {
    device.receive_with(at(0), |frame, meta| (frame.to_vec(), *meta))
}

/// Whether a packet passes what a host does with it. A flip that makes it no TCP over IPv4 is found too.
fn is_right(packet: &[u8]) -> bool {
    let Ok(ip) = Ipv4Packet::new_checked(packet) else { return false };
    let (src, dst) = (ip.src_addr().into(), ip.dst_addr().into());
    let is_tcp = ip.verify_checksum() && ip.next_header() == smoltcp::wire::IpProtocol::Tcp;
    is_tcp && TcpPacket::new_checked(ip.payload()).is_ok_and(|tcp| tcp.verify_checksum(&src, &dst))
}

#[test]
fn loss_is_that_of_packets_in_both_directions() {
    let (frame, meta) = super_frame(Medium::Ip, 44 * 1448);
    for (rx, tx) in [("loss=1%", "queue=9"), ("queue=9", "loss=1%")] {
        let (mut impaired, mut plain) = pair(rx, tx);
        let (mut packets, mut frames) = (0u64, 0);
        for _ in 0..500 {
            let packets_before = packets;
            let mut count = |(packet, meta): (Vec<u8>, FrameMeta)| {
                assert!(is_right(&packet) && packet.len() == 1500 && meta.gso.is_none());
                packets += 1;
            };
            if tx == "loss=1%" {
                send(&mut impaired, &frame, &meta);
                while let Some(received) = receive(&mut plain) {
                    count(received);
                }
            } else {
                send(&mut plain, &frame, &meta);
                while let Some(received) = receive(&mut impaired) {
                    assert_eq!(received.1.checksum, ChecksumState::Verified, "it was not on a wire before");
                    count(received);
                }
            }
            frames += u64::from(packets > packets_before);
        }
        let lost = 500 * 44 - packets;
        assert!((150..300).contains(&lost), "{lost} of 22000 packets");
        assert_eq!(frames, 500, "no frame is lost as a whole");
        let counters = impaired.counters();
        assert_eq!((counters.impaired_dropped, counters.impaired_segmented), (lost, 500));
    }
}

#[test]
fn flipped_bits_are_found_by_the_receiver() {
    let (frame, meta) = super_frame(Medium::Ip, 44 * 1448);
    let (mut impaired, mut plain) = pair("corrupt=50%", "corrupt=50%");
    assert!(!impaired.offloads().checksum_rx && !impaired.offloads().checksum_tx);
    for _ in 0..20 {
        send(&mut plain, &frame, &meta);
        send(&mut impaired, &frame, &meta);
    }
    let mut wrong = 0;
    while let Some((packet, meta)) = receive(&mut impaired) {
        assert_eq!(meta.checksum, ChecksumState::Complete, "nobody vouches for it");
        wrong += u64::from(!is_right(&packet));
    }
    assert_eq!(impaired.rx_line().counters().corrupted, wrong);
    assert!(wrong > 300, "{wrong} of 880");
    let mut passed = 0;
    while let Some((packet, _)) = receive(&mut plain) {
        // A flip in the IP header alone gets this far: that one is for a host to find.
        passed += u64::from(is_right(&packet));
    }
    let tx = impaired.tx_line().counters();
    assert_eq!(passed, tx.released - tx.corrupted);
    assert!(plain.counters().rx_bad_checksum > 300, "{}", plain.counters());
}

#[test]
fn a_frame_longer_than_the_mtu_is_split_though_nobody_says_how() {
    let (frame, meta) = super_frame(Medium::Ip, 10 * 1448);
    let (mut impaired, mut plain) = pair("loss=0%,delay=1us", "loss=0%,delay=1us");
    send(&mut plain, &frame, &FrameMeta { gso: None, ..meta });
    assert_eq!(receive(&mut impaired), None);
    let mut packets = 0;
    while let Some((token, _)) = impaired.receive(at(1)) {
        assert_eq!(token.meta(), PacketMeta::default());
        token.consume(|packet| assert!(is_right(packet) && packet.len() <= 1500));
        packets += 1;
    }
    assert_eq!((packets, impaired.counters().rx_frames), (10, 10));
    let token = impaired.transmit(at(0)).expect("room");
    token.consume(frame.len(), |room| room.copy_from_slice(&frame));
    assert_eq!(impaired.tx_line().len(), 10);
}

#[test]
fn pieces_beyond_the_queue_are_dropped() {
    let (frame, meta) = super_frame(Medium::Ip, 10 * 1448);
    let (mut impaired, _plain) = pair("queue=9", "delay=1ms,queue=7");
    send(&mut impaired, &frame, &meta);
    let counters = impaired.tx_line().counters();
    assert_eq!((counters.sent, counters.queue_full, impaired.tx_line().len()), (10, 3, 7));
}

#[test]
fn a_perfect_wire_passes_everything_as_it_is() {
    let (frame, meta) = super_frame(Medium::Ip, 20_000);
    let (mut impaired, mut plain) = pair("queue=1", "queue=1");
    assert_eq!(impaired.offloads(), plain.offloads());
    send(&mut impaired, &frame, &meta);
    send(&mut plain, &frame, &meta);
    assert_eq!(receive(&mut plain), Some((frame.clone(), meta)));
    assert_eq!(receive(&mut impaired), Some((frame.clone(), meta)));
    let Counters { rx_frames, rx_bytes, tx_frames, impaired_segmented, .. } = impaired.counters();
    assert_eq!((rx_frames, rx_bytes, tx_frames, impaired_segmented), (1, frame.len() as u64, 1, 0));
    // Who receives by tokens is not told of absent checksums, so there are none.
    send(&mut plain, &frame, &meta);
    let (token, _) = impaired.receive(at(0)).expect("a frame");
    assert_eq!(token.meta(), meta.to_smoltcp());
    token.consume(|frame| assert!(is_right(frame)));
}
