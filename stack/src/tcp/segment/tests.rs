//! Headers there and back, and as smoltcp reads and writes them.

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use super::*;
use crate::tcp::options::{SackBlocks, Timestamps};

fn addresses(is_v6: bool) -> (IpAddr, IpAddr) {
    let (src, dst) = if is_v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
    (src.parse().expect("an address"), dst.parse().expect("an address"))
}

prop_compose! {
    fn any_options()(
        mss in proptest::option::of(1..=u16::MAX),
        window_scale in proptest::option::of(0..=14_u8),
        sack_permitted: bool,
        timestamps in proptest::option::of(any::<(u32, u32)>()),
        blocks in proptest::collection::vec(any::<(u32, u32)>(), 0..6),
    ) -> Options {
        let mut sack = SackBlocks::default();
        blocks.into_iter().for_each(|(start, end)| sack.push(Seq(start), Seq(end)));
        let timestamps = timestamps.map(|(val, ecr)| Timestamps { val, ecr });
        Options { mss, window_scale, sack_permitted, timestamps, sack }
    }
}

prop_compose! {
    fn any_header()(
        (src_port, dst_port) in any::<(u16, u16)>(),
        (seq, ack) in any::<(u32, u32)>(),
        flags: u8,
        window: u16,
        options in any_options(),
    ) -> Header {
        Header { src_port, dst_port, seq: Seq(seq), ack: Seq(ack), flags: Flags(flags), window, options }
    }
}

/// What of them can be on a segment with these flags, and finds room.
fn that_go(options: Options, flags: Flags) -> Options {
    let mut that_go = options;
    if flags.has(Flags::SYN) {
        that_go.sack = SackBlocks::default();
        return that_go;
    }
    that_go.sack.truncate(if options.timestamps.is_some() { 3 } else { 4 });
    Options { mss: None, window_scale: None, sack_permitted: false, ..that_go }
}

fn written(header: &Header, payload: &[u8], is_v6: bool) -> Vec<u8> {
    let (src, dst) = addresses(is_v6);
    let mut room = vec![0xee; header.len()];
    header.write(src, dst, payload.len(), &mut room);
    room.extend_from_slice(payload);
    room
}

fn ranges(options: &Options) -> Vec<(u32, u32)> {
    options.sack.as_slice().iter().map(|(start, end)| (start.0, end.0)).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        header in any_header(),
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        is_v6: bool,
    ) {
        let bytes = written(&header, &payload, is_v6);
        prop_assert!(header.len().is_multiple_of(4) && (HEADER_LEN..=HEADER_LEN_MAX).contains(&header.len()));
        let Header { src_port, dst_port, seq, ack, flags, window, options } = header;
        let expected = Segment {
            src_port,
            dst_port,
            seq,
            ack,
            flags,
            window,
            options: that_go(options, flags),
            payload: &payload,
            segment_bytes: None,
            ecn: Ecn::NotCapable,
        };
        prop_assert_eq!(Segment::parse(&bytes), Ok(expected));
    }

    #[test]
    fn smoltcp_reads_it_the_same(
        header in any_header(),
        kind in 0..5_usize,
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        is_v6: bool,
    ) {
        // Its reader takes no port 0 and few of the combinations of flags, and has room for three blocks.
        let (flags, control) = [
            (Flags::NONE, TcpControl::None),
            (Flags::PSH, TcpControl::Psh),
            (Flags::SYN, TcpControl::Syn),
            (Flags::FIN, TcpControl::Fin),
            (Flags::RST, TcpControl::Rst),
        ][kind];
        let (src_port, dst_port) = (header.src_port.max(1), header.dst_port.max(1));
        let mut header = Header { src_port, dst_port, flags: flags | Flags::ACK, ..header };
        header.options.sack.truncate(3);
        let mut bytes = written(&header, &payload, is_v6);
        prop_assert!(wirestack_nic::offload::checksum::complete(&mut bytes, 0, CHECKSUM_OFFSET));
        let (src, dst) = addresses(is_v6);
        let packet = TcpPacket::new_checked(&bytes[..]).expect("whole");
        let read = TcpRepr::parse(&packet, &src.into(), &dst.into(), &ChecksumCapabilities::default())
            .expect("right, and its checksum too");
        let options = that_go(header.options, header.flags);
        prop_assert_eq!(
            (read.src_port, read.dst_port, read.seq_number.0 as u32, read.window_len),
            (src_port, dst_port, header.seq.0, header.window)
        );
        prop_assert_eq!(read.ack_number.map(|ack| ack.0 as u32), Some(header.ack.0));
        prop_assert_eq!(read.control, control);
        prop_assert_eq!(
            (read.max_seg_size, read.window_scale, read.sack_permitted),
            (options.mss, options.window_scale, options.sack_permitted)
        );
        prop_assert_eq!(read.sack_ranges.into_iter().flatten().collect::<Vec<_>>(), ranges(&options));
        let timestamps = read.timestamp.map(|read| Timestamps { val: read.tsval, ecr: read.tsecr });
        prop_assert_eq!(timestamps, options.timestamps);
        prop_assert_eq!(read.payload, &payload[..]);
        prop_assert_eq!((packet.urgent_at(), packet.ns()), (0, false));
    }

    #[test]
    fn what_smoltcp_writes_is_read(
        header in any_header(),
        is_syn: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut options = that_go(header.options, Flags::NONE.with_if(Flags::SYN, is_syn));
        options.sack.truncate(3);
        let mut sack_ranges = [None; 3];
        sack_ranges.iter_mut().zip(ranges(&options)).for_each(|(range, block)| *range = Some(block));
        let repr = TcpRepr {
            src_port: header.src_port,
            dst_port: header.dst_port,
            control: if is_syn { TcpControl::Syn } else { TcpControl::Psh },
            seq_number: TcpSeqNumber(header.seq.0 as i32),
            ack_number: Some(TcpSeqNumber(header.ack.0 as i32)),
            window_len: header.window,
            window_scale: options.window_scale,
            max_seg_size: options.mss,
            sack_permitted: options.sack_permitted,
            sack_ranges,
            timestamp: options.timestamps.map(|ours| TcpTimestampRepr::new(ours.val, ours.ecr)),
            payload: &payload,
        };
        let (src, dst) = addresses(false);
        let mut bytes = vec![0xee; repr.buffer_len()];
        let caps = ChecksumCapabilities::default();
        repr.emit(&mut TcpPacket::new_unchecked(&mut bytes[..]), &src.into(), &dst.into(), &caps);
        let read = Segment::parse(&bytes).expect("whole");
        let flags = Flags::ACK | if is_syn { Flags::SYN } else { Flags::PSH };
        prop_assert_eq!(
            (read.src_port, read.dst_port, read.seq, read.ack, read.flags, read.window),
            (header.src_port, header.dst_port, header.seq, header.ack, flags, header.window)
        );
        prop_assert_eq!(read.options, options);
        prop_assert_eq!(read.payload, &payload[..]);
    }

    /// Headers of a stranger: read or refused, and what was read can be written and read again.
    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..90),
        words in 5..16_u8,
        kinds in proptest::collection::vec((0..40_usize, 0..9_u8), 0..12),
    ) {
        let _ = Segment::parse(&bytes);
        let mut bytes = bytes;
        bytes.resize(HEADER_LEN_MAX, 1);
        bytes[12] = words << 4 | bytes[12] & 0xf;
        kinds.iter().for_each(|(at, kind)| bytes[HEADER_LEN + at] = *kind);
        let read = Segment::parse(&bytes).expect("long enough");
        prop_assert_eq!(read.payload.len(), HEADER_LEN_MAX - usize::from(words) * 4);
        let Segment { src_port, dst_port, seq, ack, flags, window, options, payload, .. } = read;
        let header = Header { src_port, dst_port, seq, ack, flags, window, options };
        prop_assert!(header.len() <= HEADER_LEN_MAX);
        // 40 bytes have no room for four blocks and timestamps.
        prop_assert_eq!(that_go(options, flags), options);
        let again = written(&header, payload, true);
        prop_assert_eq!(Segment::parse(&again), Ok(read));
    }
}

#[test]
fn what_is_shorter_than_it_says_is_refused() {
    let with_offset = |words: u8, len: usize| {
        let mut bytes = vec![0; len];
        if let Some(byte) = bytes.get_mut(12) {
            *byte = words << 4;
        }
        bytes
    };
    for (words, len, expected) in [
        (5, 0, None),
        (5, 19, None),
        (5, 20, Some(0)),
        (5, 29, Some(9)),
        (0, 40, None),
        (4, 40, None),
        (6, 23, None),
        (6, 24, Some(0)),
        (15, 59, None),
        (15, 60, Some(0)),
        (8, 70_000, Some(69_968)),
    ] {
        let bytes = with_offset(words, len);
        let found = Segment::parse(&bytes).map(|segment| segment.payload.len());
        assert_eq!(found, expected.ok_or(DropReason::TcpMalformed), "{words} words, {len} bytes");
    }
}

/// The device sums up what follows, as it is split or whole.
#[test]
fn the_checksum_is_that_of_the_pseudo_header() {
    let header = Header {
        src_port: 80,
        dst_port: 1024,
        seq: Seq(1),
        ack: Seq(2),
        flags: Flags::ACK,
        window: 100,
        options: Options::default(),
    };
    // 10.0.0.1 and 10.0.0.2 are 0x0a00 + 0x0001 + 0x0a00 + 0x0002, and the protocol is 6: 0x1409.
    for (payload_len, expected) in [(0, 0x141d), (1, 0x141e), (65_495, 0x13f5)] {
        let (src, dst) = addresses(false);
        let mut room = [0; HEADER_LEN];
        header.write(src, dst, payload_len, &mut room);
        assert_eq!(u16::from_be_bytes([room[16], room[17]]), expected, "{payload_len}");
    }
}

#[test]
fn what_finds_no_room_is_not_written() {
    let (src, dst) = addresses(true);
    let timestamps = Some(Timestamps::default());
    let options = Options { timestamps, ..Options::default() };
    let [seq, ack] = [Seq(1), Seq(2)];
    let header = Header { src_port: 1, dst_port: 2, seq, ack, flags: Flags::ACK, window: 1, options };
    for len in 0..header.len() {
        header.write(src, dst, 0, &mut vec![0; len]);
    }
}
