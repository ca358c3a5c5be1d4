//! CSLIP against full headers.

use wirestack::nic::offload::sum;
use wirestack::nic::serial::cslip::Cslip;
use wirestack::nic::serial::framing::{Decoded, Framing};

use super::slip::{config, decode};

/// A byte for the options and one for the length of pieces, and a script: each step is a byte for its kind and a connection,
/// and a byte that says more.
///
/// The connection's header changes in some way, and the segment has to come as it was. After the script, the same bytes come
/// from the line, and then a whole header makes all good again.
pub fn cslip(bytes: &[u8]) {
    let [options, piece_len, script @ ..] = bytes else { return };
    let config = config(*options);
    let (mut ours, mut theirs) = (Cslip::new(config, 3), Cslip::new(config, 3));
    let mut connections = [Connection::new(options >> 2); 4];
    let (mut line, mut expected) = (Vec::new(), Vec::new());
    for step in script.as_chunks::<2>().0 {
        let (number, packet) = segment(&mut connections, *step);
        ours.encode(&packet, &mut line);
        expected.push((number, packet));
    }
    let mut expected = expected.iter();
    decode(&mut theirs, &line, *piece_len, |decoded| match decoded {
        Decoded::Packet(packet) => {
            assert_eq!(Some(packet), expected.next().map(|(_, packet)| &packet[..]));
        }
        Decoded::Garbage(error, _) => panic!("{error}"),
        Decoded::Nothing => {}
    });
    assert_eq!(expected.next(), None);

    decode(&mut theirs, script, *piece_len, |decoded| {
        if let Decoded::Packet(packet) = decoded {
            assert!(packet.len() <= config.packet_max);
        }
    });
    theirs.note_loss();
    let (_, packet) = segment(&mut connections, [5, 255]);
    let mut line = vec![0xc0];
    ours.encode(&packet, &mut line);
    let mut is_good = false;
    decode(&mut theirs, &line, *piece_len, |decoded| {
        if let Decoded::Packet(got) = decoded {
            is_good = got == packet;
        }
    });
    assert!(is_good, "a retransmission has a whole header");
}

/// What of a header changes.
#[derive(Clone, Copy)]
struct Connection {
    identification: u16,
    ttl: u8,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    options_len: u8,
    payload_len: u8,
}

impl Connection {
    fn new(options: u8) -> Self {
        let start = u32::MAX - u32::from(options) * 3;
        Self {
            identification: 0xfff0,
            ttl: 64,
            seq: start,
            ack: start,
            flags: 0x10,
            window: 100,
            urgent: 0,
            options_len: options % 3 * 4,
            payload_len: 0,
        }
    }
}

/// The next segment of a connection, and which it is.
fn segment(connections: &mut [Connection; 4], [kind, more]: [u8; 2]) -> (usize, Vec<u8>) {
    let number = usize::from(kind >> 6);
    let connection = &mut connections[number];
    let last_len = u32::from(connection.payload_len);
    connection.seq = connection.seq.wrapping_add(last_len);
    connection.identification = connection.identification.wrapping_add(1);
    connection.payload_len = more % 200;
    let amount = u32::from(more) * u32::from(more);
    match kind % 16 {
        0..3 => {}
        3 => connection.ack = connection.ack.wrapping_add(last_len),
        4 => (connection.ack, connection.payload_len) = (connection.ack.wrapping_add(amount), 0),
        5 => connection.seq = connection.seq.wrapping_sub(amount),
        6 => connection.window = connection.window.wrapping_add(amount as u16),
        7 => connection.flags ^= 0x20,
        8 => connection.urgent = more.into(),
        9 => connection.flags ^= 0x08,
        10 => connection.flags ^= more & 0xd3,
        11 => connection.identification = connection.identification.wrapping_sub(amount as u16),
        12 => connection.options_len = more % 11 * 4,
        13 => connection.ttl = more,
        14 => connection.seq = connection.seq.wrapping_add(more.into()),
        _ => connection.payload_len = 0,
    }
    let packet = write(connection, 1000 + number as u16);
    // A whole header is asked for by one that goes back.
    if [kind, more] == [5, 255] {
        connection.flags = 0x10;
        connection.seq = connection.seq.wrapping_sub(0x0100_0000);
        return (number, write(connection, 1000));
    }
    (number, packet)
}

fn write(connection: &Connection, port: u16) -> Vec<u8> {
    let options_len = usize::from(connection.options_len);
    let tcp_len = 20 + options_len + usize::from(connection.payload_len);
    let mut ip = vec![0x45, 0];
    ip.extend([20 + tcp_len as u16, connection.identification, 0x4000].map(u16::to_be_bytes).concat());
    ip.extend([connection.ttl, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let checksum = !sum::data(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut tcp = [port, 80].map(u16::to_be_bytes).concat();
    tcp.extend([connection.seq, connection.ack].map(u32::to_be_bytes).concat());
    tcp.extend([0x50 + (options_len as u8) * 4, connection.flags]);
    tcp.extend([connection.window, 0, connection.urgent].map(u16::to_be_bytes).concat());
    tcp.resize(tcp_len, connection.payload_len);
    let sums = [sum::data(&ip[12..]), 6, tcp_len as u16, sum::data(&tcp)];
    tcp[16..18].copy_from_slice(&(!sum::combine(&sums)).to_be_bytes());
    [ip, tcp].concat()
}

/// Bulk, echo, acknowledgments, several connections, and bytes of a line.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let head = |options: u8, piece_len: u8, steps: &[[u8; 2]]| {
        [&[options, piece_len], steps.as_flattened()].concat()
    };
    vec![
        head(0, 50, &[[0, 150]; 40]),
        head(5, 1, &[[3, 1]; 20]),
        head(14, 255, &[[4, 40]; 20]),
        head(
            3,
            9,
            &[[0, 3], [64, 4], [128, 5], [192, 6], [0, 3], [71, 9], [135, 1], [203, 4], [5, 2], [13, 7]],
        ),
        head(
            0,
            90,
            &[[0, 9], [0xc0, 0x8f], [1, 2], [3, 0xc0], [0xcb, 0], [1, 1], [0xc0, 0x70], [0xc0, 0x81]],
        ),
    ]
}
