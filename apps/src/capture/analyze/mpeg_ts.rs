//! MPEG transport streams in datagrams, bare or in RTP: are there packets missing?
//!
//! ISO/IEC 13818-1 section 2.4.3: packets of 188 bytes, each with a stream number (PID) and a counter of
//! four bits that goes up by one with each packet of its PID that has a payload. A packet may come twice,
//! a sender may announce that the counter jumps, and the counter of the null packets means nothing.
//!
//! ```text
//!   byte 0      1                                 3                                   4
//!   0x47   error │ start │ priority │ PID (13 bits)   scrambling │ adaptation, payload │ counter (4 bits)
//! ```

use std::collections::HashMap;

/// What was found in one flow.
#[derive(Debug, Default)]
pub struct TransportStream {
    /// Datagrams that were whole packets.
    pub datagrams: u64,
    /// Datagrams that were not, once there had been one that was.
    pub datagrams_other: u64,
    /// Of the first, those with an RTP header.
    pub rtp: u64,
    /// Packets, null packets included.
    pub packets: u64,
    /// Packets of PID 0x1fff, which fill a constant rate.
    pub null_packets: u64,
    /// Packets that somebody on the way has marked as damaged; nothing else in them is looked at.
    pub transport_errors: u64,
    /// Packets of streams for which there was no room in the table.
    pub packets_untracked: u64,
    /// By PID.
    pub streams: HashMap<u16, Stream>,
}

/// What was found in the packets of one PID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    last: [u8; PACKET_LEN],
    has_come_twice: bool,
    /// All figures.
    pub counts: StreamCounts,
}

/// Figures of one PID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct StreamCounts {
    /// Packets.
    pub packets: u64,
    /// Times that the counter was not the expected one.
    pub continuity_errors: u64,
    /// Packets that are missing for certain; as many times 16 more cannot be told from the counter.
    pub packets_lost_min: u64,
    /// Packets that came twice, as they may.
    pub duplicates: u64,
    /// Announced jumps of the counter.
    pub discontinuities: u64,
}

/// The packets in the payload of a datagram, and whether they were behind an RTP header. `None`: it is
/// not a transport stream.
pub fn packets_of(payload: &[u8]) -> Option<(&[[u8; PACKET_LEN]], bool)> {
    if let Some(packets) = bare(payload) {
        return Some((packets, false));
    }
    Some((bare(payload.get(rtp_header_len(payload)?..)?)?, true))
}

/// Packets and nothing else.
fn bare(payload: &[u8]) -> Option<&[[u8; PACKET_LEN]]> {
    let (packets, rest) = payload.as_chunks::<PACKET_LEN>();
    let is_stream = rest.is_empty() && !packets.is_empty();
    (is_stream && packets.iter().all(|[sync, ..]| *sync == SYNC)).then_some(packets)
}

/// RFC 3550 section 5.1: twelve bytes, four for each contributing source, and an extension.
fn rtp_header_len(payload: &[u8]) -> Option<usize> {
    let first = *payload.first()?;
    if first >> 6 != RTP_VERSION {
        return None;
    }
    let mut len = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words: [u8; 2] = payload.get(len + 2..len + 4)?.try_into().ok()?;
        len += 4 + 4 * usize::from(u16::from_be_bytes(words));
    }
    Some(len)
}

impl TransportStream {
    /// Counts the packets of a datagram. A PID that is new takes one of `streams_left`, if there is one.
    pub fn add(&mut self, packets: &[[u8; PACKET_LEN]], is_rtp: bool, streams_left: &mut usize) {
        self.datagrams += 1;
        self.rtp += u64::from(is_rtp);
        for packet in packets {
            self.add_packet(packet, streams_left);
        }
    }

    fn add_packet(&mut self, packet: &[u8; PACKET_LEN], streams_left: &mut usize) {
        self.packets += 1;
        let [_, high, low, ..] = *packet;
        if high & 0x80 != 0 {
            self.transport_errors += 1;
            return;
        }
        let pid = u16::from_be_bytes([high & 0x1f, low]);
        if pid == NULL_PID {
            self.null_packets += 1;
            return;
        }
        if let Some(stream) = self.streams.get_mut(&pid) {
            stream.add(packet);
        } else if *streams_left > 0 {
            *streams_left -= 1;
            let counts = StreamCounts { packets: 1, ..StreamCounts::default() };
            self.streams.insert(pid, Stream { last: *packet, has_come_twice: false, counts });
        } else {
            self.packets_untracked += 1;
        }
    }
}

impl Stream {
    fn add(&mut self, packet: &[u8; PACKET_LEN]) {
        let counts = &mut self.counts;
        counts.packets += 1;
        let step = counter(packet).wrapping_sub(counter(&self.last)) & 0x0f;
        // A packet without a payload has the counter of the one before it.
        let expected = u8::from(has_payload(packet));
        let mut has_come_twice = false;
        if step == expected {
            // In order.
        } else if is_discontinuity(packet) {
            counts.discontinuities += 1;
        } else if step == 0 && is_same(packet, &self.last) {
            // Twice is allowed, three times is not; nothing is missing in either case.
            has_come_twice = true;
            counts.duplicates += u64::from(!self.has_come_twice);
            counts.continuity_errors += u64::from(self.has_come_twice);
        } else {
            counts.continuity_errors += 1;
            counts.packets_lost_min += u64::from(step.wrapping_sub(expected) & 0x0f);
        }
        self.has_come_twice = has_come_twice;
        self.last = *packet;
    }
}

fn counter(packet: &[u8; PACKET_LEN]) -> u8 {
    packet[3] & 0x0f
}

fn has_payload(packet: &[u8; PACKET_LEN]) -> bool {
    packet[3] & 0x10 != 0
}

/// The flags of the adaptation field, if it has any.
fn adaptation_flags(packet: &[u8; PACKET_LEN]) -> Option<u8> {
    let [_, _, _, control, len, flags, ..] = *packet;
    (control & 0x20 != 0 && len > 0).then_some(flags)
}

fn is_discontinuity(packet: &[u8; PACKET_LEN]) -> bool {
    adaptation_flags(packet).is_some_and(|flags| flags & 0x80 != 0)
}

/// Whether one packet is a copy of the other, but for the clock reference, which may differ.
fn is_same(a: &[u8; PACKET_LEN], b: &[u8; PACKET_LEN]) -> bool {
    let has_clock = adaptation_flags(a).is_some_and(|flags| flags & 0x10 != 0);
    let clock = if has_clock { 6..12 } else { 0..0 };
    a[..clock.start] == b[..clock.start] && a[clock.end..] == b[clock.end..]
}

/// Bytes of a packet.
pub const PACKET_LEN: usize = 188;
const SYNC: u8 = 0x47;
const NULL_PID: u16 = 0x1fff;
const RTP_VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAYLOAD: u8 = 1;
    const ADAPTATION: u8 = 2;

    /// A packet; `content` makes it differ from others.
    fn packet(pid: u16, counter: u8, control: u8, content: u64) -> [u8; PACKET_LEN] {
        let [high, low] = pid.to_be_bytes();
        let mut packet = [0xff; PACKET_LEN];
        packet[..4].copy_from_slice(&[SYNC, high, low, control << 4 | counter & 0x0f]);
        if control & ADAPTATION != 0 {
            packet[4..6].copy_from_slice(&[if control & PAYLOAD != 0 { 7 } else { 183 }, 0]);
        }
        packet[180..].copy_from_slice(&content.to_be_bytes());
        packet
    }

    fn counts_of(packets: &[[u8; PACKET_LEN]]) -> StreamCounts {
        let mut found = TransportStream::default();
        found.add(packets, false, &mut 1);
        found.streams.values().next().map(|stream| stream.counts).unwrap_or_default()
    }

    /// Errors, packets lost, duplicates, discontinuities.
    fn check(packets: &[[u8; PACKET_LEN]], expected: [u64; 4]) {
        let StreamCounts { packets: seen, continuity_errors, packets_lost_min, duplicates, discontinuities } =
            counts_of(packets);
        assert_eq!(seen, packets.len() as u64);
        assert_eq!([continuity_errors, packets_lost_min, duplicates, discontinuities], expected);
    }

    #[test]
    fn the_counter_is_followed() {
        let p = |counter: u8| packet(7, counter, PAYLOAD, u64::from(counter));
        let all: Vec<_> = (0..40).map(p).collect();
        check(&all, [0, 0, 0, 0]);
        check(&[p(14), p(15), p(0), p(1)], [0, 0, 0, 0]);
        check(&[p(1), p(3)], [1, 1, 0, 0]);
        check(&[p(3), p(1)], [1, 13, 0, 0]);
    }

    #[test]
    fn a_packet_may_come_twice_and_not_three_times() {
        let p = |counter: u8| packet(7, counter, PAYLOAD, u64::from(counter));
        check(&[p(1), p(1), p(2), p(2), p(3)], [0, 0, 2, 0]);
        check(&[p(1), p(1), p(1), p(2)], [1, 0, 1, 0]);
        // Sixteen are missing but one: the same counter on something else.
        check(&[p(1), packet(7, 1, PAYLOAD, 99)], [1, 15, 0, 0]);
        // The clock of a copy may differ, and nothing else.
        let with_clock = |clock: u8, content| {
            let mut packet = packet(7, 5, PAYLOAD | ADAPTATION, content);
            packet[5] = 0x10;
            packet[6..12].fill(clock);
            packet
        };
        check(&[with_clock(1, 1), with_clock(2, 1)], [0, 0, 1, 0]);
        check(&[with_clock(1, 1), with_clock(2, 2)], [1, 15, 0, 0]);
    }

    #[test]
    fn packets_without_payload_do_not_count() {
        let (p, a) = (|c| packet(7, c, PAYLOAD, 0), |c| packet(7, c, ADAPTATION, 1));
        check(&[p(1), a(1), a(1), p(2)], [0, 0, 0, 0]);
        check(&[p(1), a(2), p(3)], [1, 1, 0, 0]);
        // A copy must follow its packet at once.
        check(&[p(1), a(1), p(1)], [1, 15, 0, 0]);
    }

    #[test]
    fn announced_jumps_are_no_errors() {
        let mut jump = packet(7, 9, PAYLOAD | ADAPTATION, 0);
        jump[5] = 0x80;
        check(&[packet(7, 1, PAYLOAD, 0), jump, packet(7, 10, PAYLOAD, 0)], [0, 0, 0, 1]);
        // An adaptation field of length 0 has no flags, though the byte behind it is set.
        jump[4] = 0;
        check(&[packet(7, 1, PAYLOAD, 0), jump], [1, 7, 0, 0]);
    }

    #[test]
    fn null_and_damaged_packets_are_counted_apart() {
        let mut damaged = packet(7, 9, PAYLOAD, 0);
        damaged[1] |= 0x80;
        let nulls = [packet(NULL_PID, 3, PAYLOAD, 0), packet(NULL_PID, 9, PAYLOAD, 0)];
        let mut found = TransportStream::default();
        let mut streams_left = 1;
        found.add(&nulls, false, &mut streams_left);
        found.add(&[damaged, packet(7, 1, PAYLOAD, 0), packet(8, 1, PAYLOAD, 0)], true, &mut streams_left);
        assert_eq!((found.packets, found.null_packets, found.transport_errors), (5, 2, 1));
        assert_eq!((found.streams.len(), found.packets_untracked), (1, 1));
        assert_eq!((found.datagrams, found.rtp), (2, 1));
    }

    #[test]
    fn streams_are_recognised_bare_and_in_rtp() {
        let packets: Vec<u8> = (0..7).flat_map(|n| packet(7, n, PAYLOAD, 0)).collect();
        let count = |payload: &[u8]| packets_of(payload).map(|(packets, is_rtp)| (packets.len(), is_rtp));
        let with = |head: &[u8]| [head, &packets].concat();
        assert_eq!(count(&packets), Some((7, false)));
        assert_eq!(count(&with(&[0x80, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])), Some((7, true)));
        let contributing = with(&[&[0x81, 33][..], &[0; 10], &[1, 2, 3, 4]].concat());
        assert_eq!(count(&contributing), Some((7, true)));
        let extended = with(&[&[0x90, 33][..], &[0; 10], &[0xbe, 0xde, 0, 1, 1, 2, 3, 4]].concat());
        assert_eq!(count(&extended), Some((7, true)));
        // Version 1, half a packet more, another first byte, nothing.
        assert_eq!(count(&with(&[0x40; 12])), None);
        assert_eq!(count(&packets[..190]), None);
        assert_eq!(count(&[&[0; 188], &packets[..]].concat()), None);
        for len in 0..32 {
            assert_eq!(count(&vec![0x9f; len]), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// A stream of two PIDs from which packets were taken out. The oracle knows which ones.
        #[test]
        fn what_was_taken_out_is_missing(
            sent in proptest::collection::vec((any::<bool>(), 0u8..4, 0u8..5), 0..200),
        ) {
            let mut counters = [0u8; 2];
            // By PID: the packets with payload that were taken out since the last one that was not.
            let mut missing: [Option<u64>; 2] = [None; 2];
            let mut expected = [StreamCounts::default(); 2];
            let mut received = Vec::new();
            for (number, &(pid, kind, fate)) in sent.iter().enumerate() {
                let at = usize::from(pid);
                let has_payload = kind != 0;
                counters[at] = counters[at].wrapping_add(u8::from(has_payload));
                if fate == 0 {
                    missing[at] = missing[at].map(|missing| missing + u64::from(has_payload));
                    continue;
                }
                let control = if has_payload { PAYLOAD } else { ADAPTATION };
                received.push(packet(100 + u16::from(pid), counters[at], control, number as u64));
                expected[at].packets += 1;
                let lost = missing[at].replace(0).unwrap_or(0) % 16;
                expected[at].continuity_errors += u64::from(lost > 0);
                expected[at].packets_lost_min += lost;
            }
            let mut found = TransportStream::default();
            found.add(&received, false, &mut 2);
            for (pid, expected) in (100..).zip(expected) {
                prop_assert_eq!(found.streams.get(&pid).map(|stream| stream.counts).unwrap_or_default(), expected);
            }
        }
    }
}
