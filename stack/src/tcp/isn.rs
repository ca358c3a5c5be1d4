//! Initial sequence numbers, and offsets of timestamps (RFC 6528, RFC 7323 section 7.1).
//!
//! Both are a clock and a keyed hash: whoever sees the numbers of one flow learns nothing of those of another,
//! and the numbers of one flow go on where they were, so that a new connection does not take segments of an
//! old one for its own.

use smoltcp::time::Instant;

use super::seq::Seq;
use crate::demux::{FlowKey, KeyedHash};
use crate::random::Random;

/// Makes them. See the [module](self).
#[derive(Debug, Clone)]
pub struct Isn {
    numbers: KeyedHash,
    timestamps: KeyedHash,
}

impl Isn {
    /// With secrets from `random`.
    pub fn new(random: &mut Random) -> Self {
        Self { numbers: KeyedHash::new(random), timestamps: KeyedHash::new(random) }
    }

    /// M + F(addresses, ports, secret), where M counts 4 µs.
    #[inline]
    pub fn choose(&self, now: Instant, flow: &FlowKey) -> Seq {
        //= rfc6528#3
        //# ISN = M + F(localip, localport, remoteip, remoteport, secretkey)
        Seq((now.total_micros() >> 2) as u32) + self.numbers.words(flow_words(flow)) as u32
    }

    /// The same for a flow of which an old connection has used numbers up to `iss_min`, which is behind them all:
    /// beyond it, also if the old connection was faster than the clock. "Beyond" is within half of all numbers.
    #[inline]
    pub fn choose_beyond(&self, now: Instant, flow: &FlowKey, iss_min: Seq) -> Seq {
        let chosen = self.choose(now, flow);
        // The distance is as hard to know as the number was.
        if chosen.is_after(iss_min) { chosen } else { iss_min + 1 + (chosen.0 & LEAP_MASK) }
    }

    /// What is added to the clock for the timestamps of a flow: of addresses only, so that a new connection
    /// between the same hosts goes on where the old one was (RFC 6191 needs it).
    #[inline]
    pub fn timestamp_offset(&self, flow: &FlowKey) -> u32 {
        let mut words = flow_words(flow);
        words[4] &= !PORTS_MASK;
        self.timestamps.words(words) as u32
    }
}

/// A flow in words for a [`KeyedHash`]: addresses, family and ports.
#[inline]
pub(super) fn flow_words(flow: &FlowKey) -> [u64; 5] {
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    match (flow, flow.to_packed()) {
        (FlowKey::V4(_), [local, remote, ports, ..]) => [pair(local, remote), 0, 0, 0, pair(4, ports)],
        (FlowKey::V6(_), [a, b, c, d, e, f, g, h, ports]) => {
            [pair(a, b), pair(c, d), pair(e, f), pair(g, h), pair(6, ports)]
        }
    }
}

/// The ports in the last of the [`flow_words`].
const PORTS_MASK: u64 = u32::MAX as u64;
/// How far beyond an old connection a new one begins at most: 2^24 numbers, 67 s of the clock.
const LEAP_MASK: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use smoltcp::time::Duration;

    use super::*;

    fn flow(local: &str, remote: &str) -> FlowKey {
        FlowKey::new(local.parse().expect("local"), remote.parse().expect("remote")).expect("one family")
    }

    #[test]
    fn numbers_of_a_flow_go_with_a_clock_of_4_microseconds() {
        let isn = Isn::new(&mut Random::new(1));
        let flow = flow("10.0.0.1:80", "10.0.0.2:1000");
        let start = isn.choose(Instant::from_secs(5), &flow);
        for (micros, expected) in
            [(0, 0), (3, 0), (4, 1), (4_000_000, 1_000_000), (4 << 32, 0), ((4 << 32) + 8, 2)]
        {
            let now = Instant::from_secs(5) + Duration::from_micros(micros);
            assert_eq!(isn.choose(now, &flow).since(start), expected, "{micros}");
        }
    }

    #[test]
    fn every_part_of_a_flow_and_the_secret_count() {
        let flows = [
            ("10.0.0.1:80", "10.0.0.2:1000"),
            ("10.0.0.1:81", "10.0.0.2:1000"),
            ("10.0.0.3:80", "10.0.0.2:1000"),
            ("10.0.0.1:80", "10.0.0.2:1001"),
            ("10.0.0.1:80", "10.0.0.3:1000"),
            ("10.0.0.2:1000", "10.0.0.1:80"),
            ("[::10.0.0.1]:80", "[::10.0.0.2]:1000"),
            ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.2]:1000"),
            ("[fd00::1]:80", "[fd00::2]:1000"),
            ("[fd00::1]:80", "[fd00:0:1::2]:1000"),
            ("[fd00:0:1::1]:80", "[fd00::2]:1000"),
        ];
        let mut numbers = HashSet::new();
        for seed in 0..3 {
            let isn = Isn::new(&mut Random::new(seed));
            for (local, remote) in flows {
                assert!(numbers.insert(isn.choose(Instant::ZERO, &flow(local, remote))), "{local} {remote}");
            }
        }
    }

    #[test]
    fn offsets_of_timestamps_are_of_addresses_only() {
        let isn = Isn::new(&mut Random::new(1));
        for (local, other, remote) in
            [("10.0.0.1", "10.0.0.3", "10.0.0.2"), ("[fd00::1]", "[fd00::3]", "[fd00::2]")]
        {
            let offset = |local: &str, port: u16, remote_port: u16| {
                isn.timestamp_offset(&flow(&format!("{local}:{port}"), &format!("{remote}:{remote_port}")))
            };
            assert_eq!(offset(local, 1, 2), offset(local, 3, 4));
            assert_ne!(offset(local, 1, 2), offset(other, 1, 2));
        }
    }

    #[test]
    fn a_new_connection_begins_beyond_the_old_one() {
        let isn = Isn::new(&mut Random::new(1));
        let flow = flow("10.0.0.1:80", "10.0.0.2:1000");
        let chosen = isn.choose(Instant::ZERO, &flow);
        for used in [0, 1, 1 << 20, (1 << 31) - 1] {
            let iss = isn.choose_beyond(Instant::ZERO, &flow, chosen + used);
            assert!(iss.is_after(chosen + used) && iss.since(chosen + used) <= LEAP_MASK + 1, "{used}");
        }
        assert_eq!(isn.choose_beyond(Instant::ZERO, &flow, chosen - 1), chosen);
    }
}
