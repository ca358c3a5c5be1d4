//! What a network and strangers do to segments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wirestack::nic::meta::Gso;
use wirestack::tcp::options::{Options, Timestamps};
use wirestack::tcp::segment::{Flags, Header, Segment};
use wirestack::tcp::seq::Seq;

use super::Step;
use super::nic::Packet;
use crate::sim::packets;

/// A difference: small, of segments, of windows, or anything.
pub(super) fn delta(byte: u8) -> u32 {
    let small = i32::from(byte & 0x3f) - 32;
    let unit = [1, 48, 1_448, 1 << 25][usize::from(byte >> 6)];
    small.wrapping_mul(unit) as u32
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

fn add(bytes: &mut [u8], at: usize, by: u32) {
    let sum = word(bytes, at).wrapping_add(by);
    if let Some(room) = bytes.get_mut(at..at + 4) {
        room.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Where the content of an option is in a segment.
fn option_at(tcp: &[u8], kind: u8) -> Option<usize> {
    let end = (usize::from(tcp[12] >> 4) * 4).min(tcp.len());
    let mut at = 20;
    while at + 1 < end {
        match tcp[at] {
            0 => return None,
            1 => at += 1,
            found if found == kind => return Some(at + 2),
            _ => at += usize::from(tcp[at + 1]).max(2),
        }
    }
    None
}

/// Changes a field of a segment.
pub(super) fn mutate(packet: &mut Packet, &Step { a, b, c, d, .. }: &Step) {
    if a % 16 == 13 {
        if let Some(gso) = &mut packet.meta.gso {
            *gso = Gso { size: gso.size.saturating_add(u16::from(b) << (c % 8)), ..*gso };
        }
        return;
    }
    let Some(tcp) = packet.tcp_mut() else { return };
    let header = (usize::from(tcp[12] >> 4) * 4).clamp(20, tcp.len());
    match a % 16 {
        0 => add(tcp, 4, delta(b)),
        1 => add(tcp, 8, delta(b)),
        2 => tcp[13] = b,
        3 => tcp[13] ^= 1 << (b % 8),
        4 => [tcp[14], tcp[15]] = [b, c],
        5 => tcp[12] = b,
        6 => [tcp[18], tcp[19], tcp[13]] = [b, c, tcp[13] | 0x20],
        7 | 8 => {
            if let Some(at) = option_at(tcp, 8) {
                add(tcp, at + 4 * usize::from(a % 16 - 7), delta(b));
            }
        }
        9 => {
            if let Some(at) = option_at(tcp, 5) {
                add(tcp, at + 4 * usize::from(c % 8), delta(b));
            }
        }
        10 => {
            if header > 20 {
                tcp[20 + usize::from(b) % (header - 20)] = c;
            }
        }
        11 => {
            if let Some(payload) = tcp.get_mut(header..).filter(|payload| !payload.is_empty()) {
                let at = usize::from(b) % payload.len();
                payload[at] ^= c | 1;
            }
        }
        // Numbers of both, as of another connection.
        12 => {
            add(tcp, 4, delta(b));
            add(tcp, 8, delta(c));
        }
        14 => {
            if let Some(at) = option_at(tcp, 3).filter(|at| *at < tcp.len()) {
                tcp[at] = b;
            }
        }
        _ => {
            if let Some(room) = option_at(tcp, 2).and_then(|at| tcp.get_mut(at..at + 2)) {
                room.copy_from_slice(&[c, d]);
            }
        }
    }
}

/// Cuts a segment, or makes it longer.
pub(super) fn resize(packet: &mut Packet, &Step { a, b, c, .. }: &Step) {
    let len = packet.bytes.len();
    let by = usize::from(b);
    match a % 4 {
        0 => packet.bytes.truncate(len.saturating_sub(by)),
        1 => packet.bytes.truncate(by.max(1)),
        2 => packet.bytes.truncate(len / 2),
        _ if packet.meta.gso.is_none() && len < 9_000 => packet.bytes.resize(len + by, c),
        _ => {}
    }
    packet.mend();
}

/// A router was about to drop it.
pub(super) fn mark(packet: &mut Packet) {
    if packet.ip_len() == 20 {
        packet.bytes[1] |= 3;
        packet.mend();
    } else {
        packet.bytes[1] |= 0x30;
    }
}

fn ends(packet: &Packet) -> (IpAddr, IpAddr) {
    let bytes = &packet.bytes;
    let v6 = |at: usize| -> IpAddr {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen");
        Ipv6Addr::from(octets).into()
    };
    let v4 = |at: usize| IpAddr::from(Ipv4Addr::from(word(bytes, at)));
    if packet.ip_len() == 20 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

/// Segments to whoever has sent `theirs`, in the name of its peer, whose last one was `ours`.
pub(super) fn segments(theirs: &Packet, ours: Option<&Packet>, step: &Step) -> Vec<Packet> {
    let (Some(tcp), (remote, local)) = (theirs.tcp(), ends(theirs)) else { return Vec::new() };
    let Ok(theirs) = Segment::parse(tcp) else { return Vec::new() };
    let ours = ours.and_then(Packet::tcp).and_then(|tcp| Segment::parse(tcp).ok());
    let &Step { op, sel, a, b, c, d } = step;
    let payload: &[u8] = match d >> 2 & 3 {
        0 => &[],
        1 => &[0xaa],
        2 => &[0xbb; 100],
        _ => &[0xcc; 1_400],
    };
    let window = [0xffff, 0, 1, ours.map_or(500, |ours| ours.window)][usize::from(d & 3)];
    let times = theirs.options.timestamps.filter(|_| d & 0x10 == 0);
    let val = ours.and_then(|ours| ours.options.timestamps).map_or(1, |ours| ours.val);
    let timestamps = times.map(|theirs| Timestamps {
        val: val.wrapping_add(if d & 0x20 == 0 { 0 } else { delta(sel) }),
        ecr: theirs.val.wrapping_sub(u32::from(d >> 6) * 100),
    });
    let (seq, ack) = (theirs.ack + delta(b), theirs.end() + delta(c));
    let forge = |number: u32| {
        let mut options = Options { timestamps, ..Options::default() };
        if op % 24 == 23 {
            for block in 0..u32::from(1 + d / 64) {
                let start = theirs.end() - u32::from(sel) * (number + 1) - block * 3 * u32::from(b);
                options.sack.push(start, start + u32::from(b) + delta(c) / 4);
            }
        } else if a & Flags::SYN.0 != 0 {
            options.mss = Some(u16::from(c) * 8);
            options.window_scale = Some(d >> 4);
            options.sack_permitted = d & 1 != 0;
        }
        let is_bomb = op % 24 == 23;
        let header = Header {
            src_port: theirs.dst_port,
            dst_port: theirs.src_port,
            seq: if is_bomb { theirs.ack } else { seq + number * payload.len() as u32 / 2 },
            ack: if is_bomb { Seq(theirs.seq.0) } else { ack + number * (1 + u32::from(sel >> 5)) },
            flags: Flags(if is_bomb { Flags::ACK.0 } else { a }),
            window,
            options,
        };
        let mut bytes = vec![0; header.len()];
        header.write(local, remote, payload.len(), &mut bytes);
        bytes.extend_from_slice(payload);
        Packet::forged(packets::packet(local, remote, packets::TCP, &bytes))
    };
    let count = [1, 2, 8, 40][usize::from(sel >> 3 & 3)];
    (0..count).map(forge).collect()
}

/// An error about the last segment of somebody.
pub(super) fn icmp_error(quoted: &Packet, &Step { a, b, c, d, .. }: &Step) -> Option<Packet> {
    quoted.tcp()?;
    let (src, dst) = ends(quoted);
    let mut quote = quoted.bytes[..quoted.bytes.len().min(60 + usize::from(d >> 2))].to_vec();
    if d & 1 != 0 {
        add(&mut quote, quoted.ip_len() + 4, delta(d));
    }
    let rest = u32::from(b) << 8 | u32::from(c);
    let (kind, code) = match (a % 8, dst.is_ipv4()) {
        (0..=3, true) => (3, 4),
        (0..=3, false) => (2, 0),
        (4 | 5, true) => (3, b % 16),
        (4 | 5, false) => (1, b % 8),
        (6, true) => (11, b % 2),
        (6, false) => (3, b % 2),
        (_, true) => (12, 0),
        (_, false) => (4, b % 3),
    };
    let rest = if a % 8 < 4 { rest } else { 0 };
    Some(Packet::forged(packets::icmp_packet(dst, src, kind, code, rest, &quote)))
}

/// A router says that a packet is too long.
pub(super) fn too_big(quoted: &Packet, mtu: usize) -> Packet {
    let (src, dst) = ends(quoted);
    let quote = &quoted.bytes[..quoted.bytes.len().min(80)];
    let (kind, code) = if dst.is_ipv4() { (3, 4) } else { (2, 0) };
    Packet::forged(packets::icmp_packet(dst, src, kind, code, mtu as u32, quote))
}
