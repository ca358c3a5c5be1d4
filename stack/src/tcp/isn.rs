//! Initial sequence numbers, and offsets of timestamps (RFC 6528, RFC 7323 section 7.1).

use smoltcp::time::Instant;

use super::seq::Seq;
use crate::demux::FlowKey;
use crate::random::Random;

/// Makes them. See the [module](self).
#[derive(Debug, Clone)]
pub struct Isn {}

impl Isn {
    /// With secrets from `random`.
    pub fn new(_random: &mut Random) -> Self {
        todo!("helper passive")
    }

    /// M + F(addresses, ports, secret), where M counts 4 µs.
    pub fn choose(&self, _now: Instant, _flow: &FlowKey) -> Seq {
        todo!("helper passive")
    }

    /// What is added to the clock for the timestamps of a flow: of addresses only, so that a new connection
    /// between the same hosts goes on where the old one was (RFC 6191 needs it).
    pub fn timestamp_offset(&self, _flow: &FlowKey) -> u32 {
        todo!("helper passive")
    }
}
