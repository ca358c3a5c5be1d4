//! Merging segments that came, by the rules of Linux's `tcp_gro_receive`: a receiver that sees only segments of the
//! wire is not what a controller of congestion has to do with.
//!
//! A segment joins the one before it of its flow if both have data, the number follows, acknowledgment, options and
//! IP header are the same, the first one is full, nothing was pushed, and all of it stays below 64 KB. Pure ACKs are
//! not merged. What was merged has no checksum, as on Linux: it was verified.

use std::net::IpAddr;
use std::num::NonZeroU16;

use wirestack::nic::meta::{ChecksumState, Gso, GsoKind};

use super::packets::{self, TCP, TcpView};
use super::{Frame, LINK_HEADER_LEN};

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;
/// Bytes of a merged IP packet at most.
const PACKET_BYTES_MAX: usize = 65_535;

/// Where the parts of a TCP segment are in its frame.
#[derive(Debug, Clone, Copy)]
struct Parts {
    is_v4: bool,
    /// Of the TCP header.
    tcp: usize,
    /// Of the data.
    data: usize,
}

impl Parts {
    fn of(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(LINK_HEADER_LEN..)?;
        let (is_v4, header_len, total) = match frame.get(12..14)? {
            // No options, no fragment.
            [8, 0] if ip.len() >= 40 && ip[0] == 0x45 && ip[9] == TCP && ip[6] & 0x3f == 0 && ip[7] == 0 => {
                (true, 20, usize::from(u16::from_be_bytes([ip[2], ip[3]])))
            }
            [0x86, 0xdd] if ip.len() >= 60 && ip[0] >> 4 == 6 && ip[6] == TCP => {
                (false, 40, 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])))
            }
            _ => return None,
        };
        let tcp = LINK_HEADER_LEN + header_len;
        // Padding would come between the pieces.
        (ip.len() == total).then_some(())?;
        let data = tcp + TcpView::new(&frame[tcp..])?.header_len();
        Some(Self { is_v4, tcp, data })
    }

    fn ends(&self, frame: &[u8]) -> (IpAddr, IpAddr) {
        let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four bytes"));
        let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("sixteen bytes"));
        if self.is_v4 { (v4(26), v4(30)) } else { (v6(22), v6(38)) }
    }

    fn is_sum_right(&self, frame: &[u8]) -> bool {
        let (src, dst) = self.ends(frame);
        let is_header_right = !self.is_v4 || packets::checksum(&[&frame[14..34]]) == 0;
        is_header_right && packets::is_sum_right(src, dst, TCP, &frame[self.tcp..])
    }
}

/// Whether two frames are of the same flow, so that nothing of it may pass between them.
pub(super) fn is_same_flow(a: &Frame, b: &Frame) -> bool {
    let key = |frame: &Frame| {
        let parts = Parts::of(&frame.bytes)?;
        let ports = <[u8; 4]>::try_from(&frame.bytes[parts.tcp..parts.tcp + 4]).expect("four bytes");
        Some((parts.ends(&frame.bytes), ports))
    };
    key(a).is_some_and(|flow| key(b) == Some(flow))
}

/// Appends a frame to the last one of its flow. False: it stays by itself.
pub(super) fn merge(last: &mut Frame, next: &Frame) -> bool {
    try_merge(last, next).is_some()
}

fn try_merge(last: &mut Frame, next: &Frame) -> Option<()> {
    if !next.meta.is_plain() {
        return None;
    }
    let (parts, added) = (Parts::of(&last.bytes)?, Parts::of(&next.bytes)?);
    let (old, new) = (TcpView::new(&last.bytes[parts.tcp..])?, TcpView::new(&next.bytes[added.tcp..])?);
    let (len, added_len) = (old.payload().len(), new.payload().len());
    let size = last.meta.gso.map_or(len, |gso| usize::from(gso.size.get()));
    let fits = (1..=size).contains(&added_len)
        && len.is_multiple_of(size)
        && last.bytes.len() - LINK_HEADER_LEN + added_len <= PACKET_BYTES_MAX;
    let follows = new.seq() == old.seq().wrapping_add(len as u32)
        && new.ack() == old.ack()
        && new.options() == old.options()
        && old.flags() & !CWR == ACK
        && new.flags() & !(FIN | PSH) == ACK;
    if !fits || !follows || !is_header_same(&last.bytes, &next.bytes, parts) {
        return None;
    }
    let is_verified = last.meta.gso.is_some() || parts.is_sum_right(&last.bytes);
    if !is_verified || !added.is_sum_right(&next.bytes) {
        return None;
    }
    let (flags, size) = (new.flags(), NonZeroU16::new(size as u16)?);
    last.bytes[parts.tcp + 13] |= flags;
    last.bytes.extend_from_slice(&next.bytes[added.data..]);
    let kind = if parts.is_v4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    last.meta.gso = Some(Gso { kind, size, ecn: false });
    last.meta.checksum = ChecksumState::Partial { start: parts.tcp as u16, offset: 16 };
    finish(&mut last.bytes, parts);
    Some(())
}

/// Whether everything before TCP is the same but for lengths, identification and checksum.
fn is_header_same(a: &[u8], b: &[u8], parts: Parts) -> bool {
    let same = |from: usize, to: usize| a[from..to] == b[from..to];
    if parts.is_v4 { same(0, 16) && same(20, 24) && same(26, 34) } else { same(0, 18) && same(20, 54) }
}

/// Lengths, and what stands in for checksums.
fn finish(frame: &mut [u8], parts: Parts) {
    let total = frame.len() - LINK_HEADER_LEN;
    if parts.is_v4 {
        frame[16..18].copy_from_slice(&(total as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = packets::checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&((total - 40) as u16).to_be_bytes());
    }
    let (src, dst) = parts.ends(frame);
    let sum = packets::pseudo_sum(src, dst, TCP, frame.len() - parts.tcp);
    frame[parts.tcp + 16..parts.tcp + 18].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u32, ack: u32, flags: u8, data: &[u8], is_v4: bool) -> Frame {
        let [a, b]: [IpAddr; 2] = (if is_v4 { ["10.0.0.1", "10.0.0.2"] } else { ["fd00::1", "fd00::2"] })
            .map(|ip| ip.parse().expect("an address"));
        let tcp = packets::tcp((a, 1).into(), (b, 2).into(), seq, ack, flags, data);
        Frame::plain(packets::framed([2; 6], [4; 6], &packets::packet(a, b, TCP, &tcp)))
    }

    #[test]
    fn what_is_merged_is_split_into_the_same_again() {
        for is_v4 in [true, false] {
            let pieces: Vec<Frame> = [(0_u32, ACK, 100), (100, ACK, 100), (200, ACK | PSH, 60)]
                .iter()
                .map(|&(seq, flags, len)| segment(1000 + seq, 7, flags, &vec![seq as u8; len], is_v4))
                .collect();
            let mut merged = pieces[0].clone();
            assert!(merge(&mut merged, &pieces[1]) && merge(&mut merged, &pieces[2]));
            assert!(!merge(&mut merged, &segment(1260, 7, ACK, &[1; 10], is_v4)), "it was pushed");
            let split = merged.on_wire();
            assert_eq!(split.len(), 3);
            for (index, (piece, frame)) in split.iter().zip(&pieces).enumerate() {
                // The identification of IPv4 counts up when a frame is split.
                let mut frame = frame.bytes.clone();
                if is_v4 {
                    frame[18..20].copy_from_slice(&(1 + index as u16).to_be_bytes());
                    frame[24..26].fill(0);
                    let sum = packets::checksum(&[&frame[14..34]]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
                assert_eq!(*piece, frame);
            }
        }
    }

    #[test]
    fn what_does_not_follow_is_not_merged() {
        let first = segment(1000, 7, ACK, &[1; 100], true);
        let mut bent = segment(1100, 7, ACK, &[1; 100], true);
        *bent.bytes.last_mut().expect("not empty") ^= 1;
        for (what, next) in [
            ("a gap", segment(1101, 7, ACK, &[1; 100], true)),
            ("another ACK", segment(1100, 8, ACK, &[1; 100], true)),
            ("no data", segment(1100, 7, ACK, &[], true)),
            ("longer", segment(1100, 7, ACK, &[1; 101], true)),
            ("a reset", segment(1100, 7, ACK | 4, &[1; 100], true)),
            ("a wrong sum", bent),
            ("IPv6", segment(1100, 7, ACK, &[1; 100], false)),
        ] {
            assert!(!merge(&mut first.clone(), &next), "{what}");
        }
        assert!(merge(&mut first.clone(), &segment(1100, 7, ACK | FIN, &[1; 99], true)));
    }
}
