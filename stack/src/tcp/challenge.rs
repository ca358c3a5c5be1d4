//! How often we answer what looks like an attack: challenge ACKs and resets (RFC 5961 section 7).

use smoltcp::time::Instant;

use super::config::TcpConfig;
use crate::random::Random;

/// Throttles of all connections of a shard. Their rates vary at random, so that nobody can count by them what others
/// do (CVE-2016-5696).
#[derive(Debug)]
pub struct Throttles {}

impl Throttles {
    /// As configured.
    pub fn new(_config: &TcpConfig, _random: &mut Random) -> Self {
        todo!("helper passive")
    }

    /// Whether a challenge ACK may be sent now; it is counted.
    pub fn allow_challenge(&mut self, _now: Instant) -> bool {
        todo!("helper passive")
    }

    /// Whether a reset may be sent now for a segment that nobody wants.
    pub fn allow_reset(&mut self, _now: Instant) -> bool {
        todo!("helper passive")
    }
}
