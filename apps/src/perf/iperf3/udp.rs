//! Datagrams: the greeting, the header, and what a receiver learns of loss, order and jitter.
//!
//! ```text
//! seconds u32 | microseconds u32 | number u32 or u64, from 1 on | anything
//! ```
//!
//! Numbers are big-endian; the greeting is in the byte order of whoever sends it.

use smoltcp::time::Instant;

/// The first datagram of a stream, from the client.
pub(super) const GREETING: [u8; 4] = *b"9876";
/// The answer to it.
pub(super) const ANSWER: [u8; 4] = *b"6789";

/// What versions before 3.10 said, and what they answered.
const OLD_GREETING: u32 = 123_456_789;
const OLD_ANSWER: u32 = 987_654_321;

/// Whether a datagram is the first of a stream, of any version and byte order.
pub(super) fn is_greeting(payload: &[u8]) -> bool {
    is_either(payload, u32::from_le_bytes(GREETING), OLD_GREETING)
}

/// Whether a datagram is the answer.
pub(super) fn is_answer(payload: &[u8]) -> bool {
    is_either(payload, u32::from_le_bytes(ANSWER), OLD_ANSWER)
}

fn is_either(payload: &[u8], new: u32, old: u32) -> bool {
    let Ok(bytes) = <[u8; 4]>::try_from(payload) else { return false };
    [u32::from_le_bytes(bytes), u32::from_be_bytes(bytes)].iter().any(|number| [new, old].contains(number))
}

/// What is in front of a datagram's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// When it was sent, on the sender's clock, in microseconds.
    pub(super) sent_micros: u64,
    /// From 1 on.
    pub(super) number: u64,
}

/// Bytes of a header.
pub(super) fn header_len(counters_64bit: bool) -> usize {
    if counters_64bit { 16 } else { 12 }
}

impl Header {
    /// Writes it to the beginning of a payload, which is long enough, or left alone.
    pub(super) fn write(self, counters_64bit: bool, payload: &mut [u8]) {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&((self.sent_micros / 1_000_000) as u32).to_be_bytes());
        bytes[4..8].copy_from_slice(&((self.sent_micros % 1_000_000) as u32).to_be_bytes());
        if counters_64bit {
            bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        } else {
            bytes[8..12].copy_from_slice(&(self.number as u32).to_be_bytes());
        }
        let len = header_len(counters_64bit);
        if let Some(place) = payload.get_mut(..len) {
            place.copy_from_slice(&bytes[..len]);
        }
    }

    /// Reads it. `None`: it is too short.
    pub(super) fn parse(counters_64bit: bool, payload: &[u8]) -> Option<Self> {
        let (seconds, rest) = payload.split_first_chunk()?;
        let (micros, rest) = rest.split_first_chunk()?;
        let number = if counters_64bit {
            u64::from_be_bytes(*rest.first_chunk()?)
        } else {
            u32::from_be_bytes(*rest.first_chunk()?).into()
        };
        let sent_micros =
            u64::from(u32::from_be_bytes(*seconds)) * 1_000_000 + u64::from(u32::from_be_bytes(*micros));
        Some(Self { sent_micros, number })
    }
}

/// What a receiver has counted of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Received {
    /// The highest number that came.
    pub(super) highest: u64,
    /// Numbers below it that did not come.
    pub(super) lost: u64,
    /// Datagrams that came behind one with a higher number.
    pub(super) out_of_order: u64,
    /// RFC 3550 section 6.4.1, in seconds.
    pub(super) jitter: f64,
    last_transit: Option<i64>,
}

impl Received {
    /// A datagram came.
    pub(super) fn note(&mut self, header: Header, now: Instant) {
        if header.number > self.highest {
            self.lost += header.number - self.highest - 1;
            self.highest = header.number;
        } else {
            // It was counted as lost when a later one came.
            self.out_of_order += 1;
            self.lost = self.lost.saturating_sub(1);
        }
        // The two clocks need not agree: only how the difference changes counts.
        let transit = now.total_micros().wrapping_sub(header.sent_micros.cast_signed());
        if let Some(last) = self.last_transit.replace(transit) {
            let change = transit.wrapping_sub(last).unsigned_abs() as f64 / 1e6;
            self.jitter += (change - self.jitter) / 16.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_of_all_versions_and_byte_orders_are_known() {
        for bytes in [*b"9876", *b"6789"] {
            // In the other byte order, a greeting reads as the answer does in this one.
            assert!(is_greeting(&bytes) && is_answer(&bytes));
        }
        assert!(is_greeting(&123_456_789_u32.to_le_bytes()) && is_greeting(&123_456_789_u32.to_be_bytes()));
        assert!(is_answer(&987_654_321_u32.to_le_bytes()) && is_answer(&987_654_321_u32.to_be_bytes()));
        assert!(!is_answer(&123_456_789_u32.to_le_bytes()));
        for wrong in [&b""[..], b"987", b"98765", b"9875"] {
            assert!(!is_greeting(wrong) && !is_answer(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn headers_have_their_numbers_in_network_order() {
        let header = Header { sent_micros: 3_000_004, number: 0x0102_0304_0506_0708 };
        let mut payload = [0xff; 20];
        header.write(true, &mut payload);
        assert_eq!(payload[..16], [0, 0, 0, 3, 0, 0, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Header::parse(true, &payload), Some(header));
        header.write(false, &mut payload);
        assert_eq!(Header::parse(false, &payload), Some(Header { number: 0x0506_0708, ..header }));
        for len in 0..16 {
            assert_eq!(Header::parse(true, &payload[..len]), None);
            assert_eq!(Header::parse(false, &payload[..len]).is_some(), len >= 12);
        }
        let mut short = [7; 11];
        header.write(false, &mut short);
        assert_eq!(short, [7; 11]);
    }

    #[test]
    fn loss_and_order_are_as_iperf3_counts_them() {
        // Numbers as they come; the highest, the lost ones, those out of order.
        let cases: [(&[u64], [u64; 3]); 7] = [
            (&[1, 2, 3], [3, 0, 0]),
            (&[1, 4], [4, 2, 0]),
            (&[3], [3, 2, 0]),
            (&[1, 3, 2], [3, 0, 1]),
            (&[2, 1, 1], [2, 0, 2]),
            (&[1, 2, 2], [2, 0, 1]),
            (&[0, u64::MAX, 0], [u64::MAX, u64::MAX - 2, 2]),
        ];
        for (numbers, expected) in cases {
            let mut received = Received::default();
            for number in numbers {
                received.note(Header { sent_micros: 0, number: *number }, Instant::ZERO);
            }
            assert_eq!([received.highest, received.lost, received.out_of_order], expected, "{numbers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn each_number_once_in_any_order_is_no_loss(order in proptest::sample::subsequence((1..60_u64).collect::<Vec<_>>(), 1..59)) {
            // Those that are left out come first, from the highest to the lowest: the worst order.
            let mut received = Received::default();
            let late: Vec<_> = (1..60).filter(|number| !order.contains(number)).collect();
            for number in order.iter().rev().chain(&late) {
                received.note(Header { sent_micros: 0, number: *number }, Instant::ZERO);
            }
            proptest::prop_assert_eq!((received.highest, received.lost), (59, 0));
        }

        #[test]
        fn nonsense_does_no_harm(headers in proptest::collection::vec(proptest::prelude::any::<(u64, u64, i64)>(), 0..50)) {
            let mut received = Received::default();
            for (sent_micros, number, now) in headers {
                received.note(Header { sent_micros, number }, Instant::from_micros(now));
                proptest::prop_assert!(received.lost <= received.highest && received.jitter.is_finite());
            }
        }
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        let mut received = Received::default();
        // Sent each millisecond; the clocks are 5 s apart; transit alternates by 160 us.
        let mut expected = 0.0;
        for number in 1..=40_u64 {
            let late = if number % 2 == 0 { 160 } else { 0 };
            let now = Instant::from_micros((number * 1_000 + late) as i64);
            received.note(Header { sent_micros: 5_000_000 + number * 1_000, number }, now);
            if number > 1 {
                expected += (160e-6 - expected) / 16.0;
            }
        }
        assert!((received.jitter - expected).abs() < 1e-12);
        assert!(received.jitter > 140e-6);
        // Nonsense from a stranger is no overflow.
        received.note(Header { sent_micros: u64::MAX, number: 41 }, Instant::from_micros(i64::MIN));
        received.note(Header { sent_micros: 0, number: 42 }, Instant::from_micros(i64::MAX));
        assert!(received.jitter.is_finite());
    }
}
