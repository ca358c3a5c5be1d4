//! SLIP: any bytes of a line, and any packets.

use wirestack::nic::serial::framing::{Decoded, Framing, FramingConfig};
use wirestack::nic::serial::slip::Slip;

/// A byte for the options and one for the length of pieces; the rest comes from a line, and then is the payload of packets,
/// a byte for the length of each.
pub fn slip(bytes: &[u8]) {
    let [options, piece_len, rest @ ..] = bytes else { return };
    let config = config(*options);
    let mut framing = Slip::new(config);
    let mut garbage_bytes = 0;
    decode(&mut framing, rest, *piece_len, |decoded| match decoded {
        Decoded::Packet(packet) => assert!(packet.len() <= config.packet_max),
        Decoded::Garbage(_, line_bytes) => garbage_bytes += line_bytes,
        Decoded::Nothing => {}
    });
    assert!(garbage_bytes <= rest.len());

    let mut packets = Vec::new();
    let mut left = rest;
    while let [len, tail @ ..] = left {
        let (payload, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        left = tail;
        // The header of an IPv6 packet needs no checksum.
        packets.push([&[0x60, 0, 0, 0, 0, payload.len() as u8, 59, 64], &[*len; 32][..], payload].concat());
    }
    // What was before may be half a frame, and the first END ends that.
    let mut line = Vec::new();
    packets.iter().for_each(|packet| framing.encode(packet, &mut line));
    let mut expected = packets.iter();
    let mut is_first = true;
    decode(&mut framing, &line, *piece_len, |decoded| match decoded {
        Decoded::Packet(packet) if Some(packet) == expected.as_slice().first().map(Vec::as_slice) => {
            expected.next();
            is_first = false;
        }
        Decoded::Packet(_) | Decoded::Garbage(..) => {
            assert!(is_first, "only what was before");
            is_first = false;
        }
        Decoded::Nothing => {}
    });
    assert_eq!(expected.next(), None);
}

/// Packets of up to 300 bytes, and the options of a line.
pub(super) fn config(options: u8) -> FramingConfig {
    FramingConfig { packet_max: 300, crc: options & 1 != 0, escapes_flow_control: options & 2 != 0 }
}

/// Gives a line to a framing in pieces.
pub(super) fn decode(
    framing: &mut impl Framing,
    line: &[u8],
    piece_len: u8,
    mut handle: impl FnMut(Decoded<'_>),
) {
    for mut piece in line.chunks(usize::from(piece_len).max(1)) {
        while !piece.is_empty() {
            let (taken, decoded) = framing.decode(piece);
            assert!(taken > 0 && taken <= piece.len());
            handle(decoded);
            piece = &piece[taken..];
        }
    }
}

/// Packets, frames, what is none.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        [&[0, 7, 4][..], b"data", &[3, 0xc0, 0xdb, 0x11]].concat(),
        [&[3, 200, 0xc0][..], &[0xdb, 0xdc, 0xdb, 0xdd, 0xdb, 0xdf, 0x13], b"text", &[0xc0, 2, 0x11, 0x13]]
            .concat(),
        [&[2, 1, 0xc0, 0x60, 0, 0, 0, 0, 1, 59, 64], &[9; 33][..], &[0xc0, 0xdb]].concat(),
        [&[1, 255], &[b'x'; 900][..], &[0xc0]].concat(),
    ]
}
