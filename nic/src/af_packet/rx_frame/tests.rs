//! What becomes of one received frame, whatever way it came.

use std::num::NonZeroU16;

use proptest::prelude::*;

use super::super::test_frames::{TCP_HEADERS_LEN, tcp, tcp_over_ipv6, udp};
use super::*;
use crate::config::TpacketVersion;
use crate::meta::{Gso, GsoKind};
use crate::offload::checksum::Verdict;

const OPTIONS: RxOptions = RxOptions {
    vnet_hdr: false,
    verify_checksums: true,
    vlan_tags: VlanTags::PutBack,
    outgoing: false,
    frame_len_max: 1514,
};
const TAGGED: u32 = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;

/// What is lent of a frame that has `headroom` bytes before it (and before its virtio_net_hdr).
fn prepare(
    options: &RxOptions,
    header: Header,
    headroom: usize,
    virtio: [u8; abi::VNET_HDR_LEN],
    frame: &[u8],
) -> (Option<(Vec<u8>, FrameMeta)>, Counters) {
    let virtio = if options.vnet_hdr { &virtio[..] } else { &[] };
    let mut area = [&vec![0xaa; headroom][..], virtio, frame].concat();
    let at = headroom + virtio.len();
    let mut counters = Counters::default();
    let ready = options.prepare(&mut counters, &header, &mut area, at);
    (ready.map(|(start, meta)| (area[start..].to_vec(), meta)), counters)
}

fn header(status: u32) -> Header {
    Header { status, vlan_tci: 0x6005, vlan_tpid: 0x88a8, ..Header::default() }
}

fn with_tag(frame: &[u8], tag: [u8; 4]) -> Vec<u8> {
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// TP_STATUS_GSO_TCP tells that a frame was merged, and not of what.
#[test]
fn a_merged_frame_of_unknown_parts_is_split_into_frames_of_the_mtu() {
    let meta = |status, frame: &[u8]| {
        let (ready, _) = prepare(&OPTIONS, header(status), 60, [0; 10], frame);
        ready.expect("it is lent").1
    };
    let size = |frame: &[u8]| meta(TP_STATUS_GSO_TCP | libc::TP_STATUS_CSUMNOTREADY, frame).gso;
    let gso = size(&tcp(5000)).expect("merged");
    assert_eq!((gso.kind, usize::from(gso.size.get())), (GsoKind::TcpV4, 1514 - TCP_HEADERS_LEN));
    let gso = size(&tcp_over_ipv6(5000)).expect("merged");
    assert_eq!((gso.kind, usize::from(gso.size.get())), (GsoKind::TcpV6, 1514 - TCP_HEADERS_LEN - 20));
    assert_eq!(meta(libc::TP_STATUS_CSUMNOTREADY, &tcp(5000)).gso, None);
}

#[test]
fn a_tag_is_put_back_where_it_was() {
    let frame = udp(30);
    for vnet_hdr in [false, true] {
        let options = RxOptions { vnet_hdr, ..OPTIONS };
        let lent = |status, headroom| {
            let (ready, counters) = prepare(&options, header(status), headroom, [0; 10], &frame);
            (ready.map(|(bytes, _)| bytes), counters.rx_tagged, counters.rx_malformed)
        };
        // With a virtio_net_hdr its room is enough, and without one four bytes are.
        let smallest = if vnet_hdr { 0 } else { 4 };
        let service = with_tag(&frame, [0x88, 0xa8, 0x60, 0x05]);
        assert_eq!(lent(TAGGED, smallest), (Some(service), 1, 0));
        // A kernel that does not tell the EtherType means that of 802.1Q.
        let customer = with_tag(&frame, [0x81, 0, 0x60, 0x05]);
        assert_eq!(lent(libc::TP_STATUS_VLAN_VALID, 60), (Some(customer), 1, 0));
        assert_eq!(lent(0, 0), (Some(frame.clone()), 0, 0));
    }
    let (ready, counters) = prepare(&OPTIONS, header(TAGGED), 3, [0; 10], &frame);
    assert!(ready.is_none() && counters.rx_malformed == 1, "no room is no panic");
    let (ready, counters) = prepare(&OPTIONS, header(TAGGED), 10, [0; 10], &[1; 11]);
    assert!(ready.is_none() && counters.rx_malformed == 1, "a frame without addresses has no place for it");
}

#[test]
fn a_priority_is_no_vlan_unless_all_tags_are_wanted() {
    let frame = udp(30);
    let header = Header { vlan_tci: 0xe000, ..header(TAGGED) };
    let (ready, counters) = prepare(&OPTIONS, header, 8, [0; 10], &frame);
    assert_eq!((ready.expect("lent").0, counters.rx_tagged), (frame.clone(), 0));
    let all = RxOptions { vlan_tags: VlanTags::PutBackAll, ..OPTIONS };
    let (ready, counters) = prepare(&all, header, 8, [0; 10], &frame);
    assert_eq!(ready.expect("lent").0, with_tag(&frame, [0x88, 0xa8, 0xe0, 0]));
    assert_eq!(counters.rx_tagged, 1);
}

#[test]
fn a_tag_moves_the_place_of_an_absent_checksum() {
    let mut frame = tcp(3000);
    let layout = Layout::of_frame(&frame).expect("TCP");
    let checksum = checksum::leave_out(&mut frame, &layout).expect("TCP");
    let gso = Gso { kind: GsoKind::TcpV4, size: NonZeroU16::new(1448).expect("not 0"), ecn: false };
    let sent = FrameMeta { checksum, gso: Some(gso), ..FrameMeta::default() };
    let options = RxOptions { vnet_hdr: true, ..OPTIONS };
    let virtio = virtio::encode(&sent, Some(&layout));
    for (status, start) in [(0, 34), (TAGGED, 38)] {
        let (ready, _) = prepare(&options, header(status), 0, virtio, &frame);
        let (mut bytes, meta) = ready.expect("lent");
        assert_eq!(meta.checksum, ChecksumState::Partial { start, offset: 16 });
        assert_eq!(meta.gso, Some(gso));
        assert!(checksum::complete(&mut bytes, start, 16));
        let layout = Layout::of_frame(&bytes).expect("TCP behind a tag");
        assert_eq!(checksum::verify(&bytes, &layout), Verdict::Right);
    }
}

#[test]
fn wrong_checksums_are_dropped_and_counted() {
    for good in [udp(100), tcp(100), tcp_over_ipv6(100)] {
        let (ready, _) = prepare(&OPTIONS, header(0), 8, [0; 10], &good);
        let (bytes, meta) = ready.expect("lent");
        assert_eq!((bytes, meta.checksum), (good.clone(), ChecksumState::Verified));
        let mut bad = good.clone();
        *bad.last_mut().expect("a payload") ^= 1;
        for (status, verify_checksums, lent) in [
            (0, true, None),
            (TAGGED, true, None),
            (0, false, Some(ChecksumState::Complete)),
            // Somebody has verified it: not our business any more.
            (libc::TP_STATUS_CSUM_VALID, true, Some(ChecksumState::Verified)),
        ] {
            let options = RxOptions { verify_checksums, ..OPTIONS };
            let (ready, counters) = prepare(&options, header(status), 8, [0; 10], &bad);
            assert_eq!(ready.map(|(_, meta)| meta.checksum), lent);
            assert_eq!(counters.rx_bad_checksum, u64::from(lent.is_none()));
        }
    }
}

/// Without a virtio_net_hdr the kernel says of an absent checksum only that it is absent.
#[test]
fn absent_checksums_are_filled_in_or_told() {
    for whole in [udp(100), tcp(100), tcp_over_ipv6(100), tcp(5000)] {
        let layout = Layout::of_frame(&whole).expect("known");
        let mut frame = whole.clone();
        let partial = checksum::leave_out(&mut frame, &layout).expect("known");
        let not_ready = header(libc::TP_STATUS_CSUMNOTREADY);
        let (ready, counters) = prepare(&OPTIONS, not_ready, 8, [0; 10], &frame);
        let (bytes, meta) = ready.expect("lent");
        assert_eq!((bytes, meta.checksum), (whole, ChecksumState::Verified));
        assert_eq!((counters.rx_checksum_filled, counters.rx_bad_checksum), (1, 0));
        let told = RxOptions { verify_checksums: false, ..OPTIONS };
        let (ready, counters) = prepare(&told, not_ready, 8, [0; 10], &frame);
        let (bytes, meta) = ready.expect("lent");
        assert_eq!((bytes, meta.checksum, counters.rx_checksum_filled), (frame, partial, 0));
    }
}

/// What is absent is known only to a virtio_net_hdr where there is one; the status does not matter then.
#[test]
fn a_virtio_header_has_the_last_word() {
    let options = RxOptions { vnet_hdr: true, ..OPTIONS };
    let good = tcp(100);
    let valid = virtio_valid();
    for (status, virtio, state) in [
        (libc::TP_STATUS_CSUMNOTREADY, [0; 10], ChecksumState::Verified),
        (libc::TP_STATUS_CSUM_VALID, valid, ChecksumState::Verified),
    ] {
        let (ready, counters) = prepare(&options, header(status), 0, virtio, &good);
        assert_eq!(ready.expect("lent").1.checksum, state);
        assert_eq!(counters, Counters::default());
    }
    let mut lies = [0; 10];
    lies[1] = 0x7f;
    let (ready, counters) = prepare(&options, header(0), 0, lies, &good);
    assert!(ready.is_none() && counters.rx_malformed == 1);
}

fn virtio_valid() -> [u8; 10] {
    let mut header = [0; 10];
    header[0] = 2; // VIRTIO_NET_HDR_F_DATA_VALID
    header
}

#[test]
fn merged_datagrams_of_unknown_size_are_dropped_and_counted() {
    let long = udp(5000);
    let (ready, counters) = prepare(&OPTIONS, header(libc::TP_STATUS_CSUMNOTREADY), 8, [0; 10], &long);
    assert!(ready.is_none() && counters.rx_unsegmented == 1);
    let (ready, _) = prepare(&OPTIONS, header(0), 8, [0; 10], &long);
    assert!(ready.is_some(), "complete: a datagram of a large MTU");
}

#[test]
fn the_source_of_a_timestamp_is_told() {
    for (status, source) in [
        (0, TimestampSource::Ring),
        (libc::TP_STATUS_TS_SOFTWARE, TimestampSource::Software),
        (libc::TP_STATUS_TS_RAW_HARDWARE, TimestampSource::Hardware),
    ] {
        let header = Header { timestamp_nanos: 1_700_000_000_000_000_001, ..header(status) };
        let (ready, _) = prepare(&OPTIONS, header, 8, [0; 10], &udp(9));
        let stamp = ready.expect("lent").1.timestamp;
        assert_eq!(stamp, Some(Timestamp { nanos: 1_700_000_000_000_000_001, source }));
    }
}

#[test]
fn own_frames_are_wanted_only_if_asked_for() {
    let own = Header { packet_type: libc::PACKET_OUTGOING, ..Header::default() };
    assert!(!OPTIONS.wants(&own) && OPTIONS.wants(&Header::default()));
    let all = RxOptions { outgoing: true, ..OPTIONS };
    assert!(all.wants(&own));
    let (ready, _) = prepare(&all, own, 8, [0; 10], &udp(9));
    assert!(ready.expect("lent").1.outgoing);
}

#[test]
fn headers_are_read_in_every_version() {
    for version in [TpacketVersion::V1, TpacketVersion::V2, TpacketVersion::V3] {
        let layout = version.layout();
        let mut bytes = vec![0; layout.len + abi::ADDRESS_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(layout.frame_len, &1500u32.to_ne_bytes());
        put(layout.snaplen, &1400u32.to_ne_bytes());
        put(layout.mac, &82u16.to_ne_bytes());
        put(layout.seconds, &7u32.to_ne_bytes());
        put(layout.seconds + 4, &9u32.to_ne_bytes());
        put(layout.len + abi::PACKET_TYPE, &[4]);
        let has_vlan = layout.vlan.is_some();
        if let Some(vlan) = &layout.vlan {
            put(vlan.tci, &5u16.to_ne_bytes());
            put(vlan.tpid, &0x88a8u16.to_ne_bytes());
        }
        if let Some(hash) = layout.hash {
            put(hash, &77u32.to_ne_bytes());
        }
        let skipped = layout.status_bytes().end;
        // A ring of slots cannot read past its status word; blocks can.
        let skipped = if version == TpacketVersion::V3 { 0 } else { skipped };
        let header = Header::read(layout, 1, &bytes[skipped..], skipped);
        assert_eq!((header.len, header.snaplen, header.mac, header.packet_type), (1500, 1400, 82, 4));
        let fraction = if version == TpacketVersion::V1 { 9000 } else { 9 };
        assert_eq!(header.timestamp_nanos, 7_000_000_000 + fraction, "{version}");
        assert_eq!((header.vlan_tci, header.vlan_tpid), if has_vlan { (5, 0x88a8) } else { (0, 0) });
        assert_eq!(header.hash, if layout.hash.is_some() { 77 } else { 0 });
    }
}

#[test]
fn what_cannot_lie_in_a_slot_is_seen() {
    let layout = TpacketVersion::V2.layout();
    let header = Header { len: 100, snaplen: 100, mac: 66, ..Header::default() };
    assert!(header.is_within(layout, false, 166) && !header.is_within(layout, false, 165));
    assert!(!header.is_within(layout, true, 2000) || header.mac >= 62, "there is room for a virtio_net_hdr");
    assert!(!Header { mac: 61, ..header }.is_within(layout, true, 2000));
    assert!(Header { mac: 52, ..header }.is_within(layout, false, 2000));
    assert!(!Header { mac: 51, ..header }.is_within(layout, false, 2000));
    assert!(!Header { snaplen: 101, ..header }.is_within(layout, false, 2000));
    // On a machine of 32 bits this must not wrap around.
    assert!(!Header { len: usize::MAX, snaplen: usize::MAX, ..header }.is_within(layout, false, 2000));
    assert!(Header { len: 0, snaplen: 0, ..header }.is_within(layout, false, 66));
}

proptest! {
    /// Whatever a header says and whatever lies around a frame: no panic, nothing but the frame and its tag is
    /// lent, and what is not lent is counted.
    #[test]
    fn any_header_is_survived(
        status: u32, vlan_tci: u16, vlan_tpid: u16, virtio: [u8; 10], vnet_hdr: bool, verify_checksums: bool,
        headroom in 0..20usize, kind in 0..4usize, len in 0..80usize, cut in 0..200usize,
    ) {
        let mut frame = match kind { 0 => udp(len), 1 => tcp(len), 2 => tcp_over_ipv6(len), _ => vec![9; len] };
        frame.truncate(frame.len().saturating_sub(cut / 3));
        let options = RxOptions { vnet_hdr, verify_checksums, ..OPTIONS };
        let header = Header { status, vlan_tci, vlan_tpid, ..Header::default() };
        let (ready, counters) = prepare(&options, header, headroom, virtio, &frame);
        match ready {
            None => prop_assert_eq!(
                counters.rx_malformed + counters.rx_bad_checksum + counters.rx_unsegmented, 1
            ),
            Some((bytes, meta)) => {
                prop_assert_eq!(bytes.len(), frame.len() + 4 * counters.rx_tagged as usize);
                if let ChecksumState::Partial { start, offset } = meta.checksum {
                    prop_assert!(usize::from(start) + usize::from(offset) + 2 <= bytes.len());
                }
                if frame.len() > TCP_HEADERS_LEN {
                    prop_assert!(bytes.starts_with(&frame[..12]));
                }
            }
        }
    }
}

#[test]
fn a_checksum_at_the_end_of_the_field_survives_a_tag() {
    let options = RxOptions { vnet_hdr: true, ..OPTIONS };
    let [low, high] = 65_533u16.to_ne_bytes();
    let virtio = [1, 0, 0, 0, 0, 0, low, high, 0, 0];
    let (ready, counters) = prepare(&options, header(TAGGED), 4, virtio, &vec![0; 65_540]);
    assert!(ready.is_none());
    assert_eq!((counters.rx_malformed, counters.rx_tagged), (1, 0));
}
