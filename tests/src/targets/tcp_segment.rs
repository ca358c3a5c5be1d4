//! Segments: the reader of headers and options, and the writer.

use std::net::IpAddr;

use wirestack::tcp::segment::{Flags, HEADER_LEN, HEADER_LEN_MAX, Header, Segment};

/// A segment as it follows an IP header. What is read lies within, and can be written and read again; what
/// follows it does not change the header.
pub fn tcp_segment(bytes: &[u8]) {
    let Ok(read) = Segment::parse(bytes) else {
        let declared = bytes.get(12).map_or(HEADER_LEN_MAX, |offset| usize::from(offset >> 4) * 4);
        assert!(bytes.len() < HEADER_LEN || !(HEADER_LEN..=bytes.len()).contains(&declared));
        return;
    };
    assert!(read.payload.len() + HEADER_LEN <= bytes.len());
    let controls = [Flags::SYN, Flags::FIN].into_iter().filter(|flag| read.flags.has(*flag)).count();
    assert_eq!(read.end().since(read.seq), (read.payload.len() + controls) as u32);
    assert!(read.options.window_scale.is_none_or(|shift| shift <= 14));
    assert_ne!(read.options.mss, Some(0));
    let (with_sack, with_syn) = (!read.options.sack.is_empty(), read.flags.has(Flags::SYN));
    assert!(!(with_sack && with_syn), "SACK is not for a SYN");

    let header = Header {
        src_port: read.src_port,
        dst_port: read.dst_port,
        seq: read.seq,
        ack: read.ack,
        flags: read.flags,
        window: read.window,
        options: read.options,
    };
    let len = header.len();
    assert!((HEADER_LEN..=HEADER_LEN_MAX).contains(&len) && len.is_multiple_of(4));
    let [src, dst] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
    let mut again = vec![0xee; len];
    header.write(src, dst, read.payload.len(), &mut again);
    again.extend_from_slice(read.payload);
    assert_eq!(Segment::parse(&again), Ok(read));

    let without_payload = &bytes[..bytes.len() - read.payload.len()];
    assert_eq!(Segment::parse(without_payload), Ok(Segment { payload: &[], ..read }));
}

/// A SYN with all options, an ACK with timestamps and data, one with blocks, and options that cannot be.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let segment = |flags: u8, options: &[u8], payload: &[u8]| {
        let words = (5 + options.len() / 4) as u8;
        let fixed = [4, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0x20, 0, 0, 0, 0, 0];
        [&fixed[..], options, payload].concat()
    };
    let timestamps = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let syn = [&[2, 4, 5, 180, 4, 2][..], &timestamps, &[1, 3, 3, 7]].concat();
    let stamped = [&[1, 1][..], &timestamps].concat();
    let blocks = [&stamped[..], &[1, 1, 5, 18], &[9; 16]].concat();
    vec![
        segment(2, &syn, b""),
        segment(0x18, &stamped, b"data"),
        segment(0x10, &blocks, b""),
        segment(0x11, b"", b"last"),
        segment(0xc2, &[3, 3, 99, 0, 2, 0, 0, 0], b""),
        segment(0x10, &[5, 34, 1, 1], b""),
    ]
}
