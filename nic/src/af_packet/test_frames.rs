//! Frames for the tests of this folder.

use crate::offload;

/// Bytes of all headers of [`tcp`] over IPv4.
pub(crate) const TCP_HEADERS_LEN: usize = 14 + 20 + 20;

/// A datagram over IPv4 with a right checksum.
pub(crate) fn udp(payload_len: usize) -> Vec<u8> {
    let len = (8 + payload_len) as u16;
    let header = [&[0x10, 0, 0x20, 0][..], &len.to_be_bytes(), &[0, 0]].concat();
    ipv4(17, &[header, payload(payload_len)].concat())
}

/// A TCP segment over IPv4 with a right checksum.
pub(crate) fn tcp(payload_len: usize) -> Vec<u8> {
    ipv4(6, &tcp_segment(payload_len))
}

/// A TCP segment over IPv6 with a right checksum.
pub(crate) fn tcp_over_ipv6(payload_len: usize) -> Vec<u8> {
    let segment = tcp_segment(payload_len);
    let len = (segment.len() as u16).to_be_bytes();
    let addresses = [[0xfd; 16], [0xfe; 16]].concat();
    let mut frame =
        [&ADDRESSES[..], &[0x86, 0xdd, 0x60, 0, 0, 0], &len, &[6, 64], &addresses, &segment].concat();
    assert!(offload::fill_checksum(&mut frame));
    frame
}

fn tcp_segment(payload_len: usize) -> Vec<u8> {
    let header = [0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    [header.to_vec(), payload(payload_len)].concat()
}

fn ipv4(protocol: u8, packet: &[u8]) -> Vec<u8> {
    let len = (20 + packet.len()) as u16;
    let [high, low] = len.to_be_bytes();
    let header = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    let mut frame = [&ADDRESSES[..], &[8, 0], &header, packet].concat();
    assert!(offload::fill_checksum(&mut frame));
    frame
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
