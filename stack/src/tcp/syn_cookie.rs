//! SYN cookies (RFC 4987 section 3.6): a SYN is answered without a record of it, and the acknowledgment of the
//! answer has all that the record would have had.
//!
//! ```text
//!   ISS of the SYN-ACK:   ┌──────────────── 29 ────────────────┬─ 3 ─┐
//!                         │ hash of flow, IRS, minute, the rest │ MSS │
//!                         └─────────────────────────────────────┴─────┘
//!   TSval, without its    ┌──────────── 26 ────────────┬─ 1 ─┬── 1 ─┬──────── 4 ────────┐
//!   offset:               │ clock, in 64 milliseconds  │ ECN │ SACK │ scale of the peer │
//!                         └────────────────────────────┴─────┴──────┴───────────────────┘
//! ```
//!
//! A peer echoes the TSval; one without timestamps has neither window scaling nor SACK nor ECN then. The TSval is
//! never ahead of the clock, and at most 127 ms behind it, so those of the connection that follows are beyond it.
//!
//! **How hard it is to forge one.** Who does not see the SYN-ACK has to guess the 29 bits of a SipHash. "Minute" is a
//! counter of 64 seconds, and this and the last one are believed; so one of 2^28 guesses is right, whatever MSS it
//! says and whatever number it claims to begin with; with a TSecr, it has to be one of the last two minutes as well,
//! one of 2^15. At a million packets a second that is one connection in four minutes, from which the forger gets no
//! answer, and only while cookies are needed: when none was sent for two minutes, none is believed.
//!
//! **What is lost.** A SYN-ACK is not sent again. What the peer says of its MSS is rounded down to one of eight. The
//! numbers of a flow do not go on from connection to connection, as those of [`Isn`](super::isn::Isn) do. If the
//! first acknowledgment is lost, what follows it answers no cookie, for it does not begin behind the SYN.

use smoltcp::time::{Duration, Instant};

use super::isn::flow_words;
use super::seq::Seq;
use crate::demux::{FlowKey, KeyedHash};
use crate::random::Random;

/// Bakes cookies, and knows its own. See the [module](self).
#[derive(Debug, Clone)]
pub struct SynCookies {
    hash: KeyedHash,
    baked_at: Option<Instant>,
}

/// What a TSval keeps of what was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The peer's window scale, 0 to 14. `None`: no scaling.
    pub window_scale: Option<u8>,
    /// SACK.
    pub sack: bool,
    /// ECN.
    pub ecn: bool,
}

impl SynCookies {
    /// With a secret from `random`.
    pub fn new(random: &mut Random) -> Self {
        Self { hash: KeyedHash::new(random), baked_at: None }
    }

    /// An ISS that says that `flow` has begun with `irs` and an MSS of at least [`MSS_MIN`], of which the nearest
    /// one below is kept. `kept`: what is in the TSval; `None`: there is none.
    pub fn bake(&mut self, now: Instant, flow: &FlowKey, irs: Seq, peer_mss: u16, kept: Option<Kept>) -> Seq {
        self.baked_at = Some(now);
        let index = MSS_CLASSES.iter().rposition(|&mss| mss <= peer_mss).unwrap_or(0) as u32;
        self.cookie(minute(now), flow, irs, index, kept)
    }

    /// The MSS of a cookie. `None`: it is none of ours, or too old.
    pub fn check(&self, now: Instant, flow: &FlowKey, irs: Seq, iss: Seq, kept: Option<Kept>) -> Option<u16> {
        let index = iss.0 & INDEX_MASK;
        let minute = minute(now);
        let is_ours = |minute| self.cookie(minute, flow, irs, index, kept) == iss;
        let is_believed = is_ours(minute) || is_ours(minute.wrapping_sub(1));
        MSS_CLASSES.get(index as usize).filter(|_| is_believed).copied()
    }

    /// Whether one was baked so lately that it may come back.
    pub fn is_recent(&self, now: Instant) -> bool {
        self.baked_at.is_some_and(|at| {
            now.total_micros().saturating_sub(at.total_micros()) < AGE_MAX.total_micros() as i64
        })
    }

    fn cookie(&self, minute: u32, flow: &FlowKey, irs: Seq, index: u32, kept: Option<Kept>) -> Seq {
        let [a, b, c, d, e] = flow_words(flow);
        let bits = kept.map_or(NOTHING_KEPT, Kept::bits);
        let begin = u64::from(irs.0) << 32 | u64::from(minute);
        let hash = self.hash.words([a, b, c, d, e, begin, u64::from(index) << 32 | u64::from(bits)]);
        Seq(hash as u32 & !INDEX_MASK | index)
    }
}

impl Kept {
    /// A time of our clock in milliseconds that says this too, a little before `milliseconds`.
    pub fn within(self, milliseconds: u32) -> u32 {
        let stamp = milliseconds & !KEPT_MASK | self.bits();
        // Compared modulo 2^32, like any timestamp.
        if stamp.wrapping_sub(milliseconds) as i32 > 0 { stamp.wrapping_sub(KEPT_MASK + 1) } else { stamp }
    }

    /// What such a time says. `None`: it is older than a cookie may be, or of the future.
    pub fn of(stamp: u32, milliseconds: u32) -> Option<Self> {
        let age = milliseconds.wrapping_sub(stamp);
        if u64::from(age) >= AGE_MAX.total_millis() + 2 * u64::from(KEPT_MASK + 1) {
            return None;
        }
        let window_scale = match (stamp & SCALE_MASK) as u8 {
            15 => None,
            scale => Some(scale),
        };
        Some(Self { window_scale, sack: stamp & SACK_BIT != 0, ecn: stamp & ECN_BIT != 0 })
    }

    fn bits(self) -> u32 {
        let scale = self.window_scale.map_or(SCALE_MASK, |scale| u32::from(scale.min(14)));
        scale | if self.sack { SACK_BIT } else { 0 } | if self.ecn { ECN_BIT } else { 0 }
    }
}

fn minute(now: Instant) -> u32 {
    // The low bits: it may wrap.
    now.total_micros().div_euclid(MINUTE.total_micros() as i64) as u32
}

/// MSS that are kept: the least that a peer can have; those of PPP and SLIP, of RFC 9293 for IPv4 and for IPv6, of
/// tunnels, of Ethernet with IPv6 and with IPv4, and of jumbo frames.
const MSS_CLASSES: [u16; 8] = [MSS_MIN, 256, 536, 1220, 1360, 1440, 1460, 8940];
/// The least MSS of a cookie.
pub const MSS_MIN: u16 = super::handshake::PEER_MSS_MIN;
const INDEX_MASK: u32 = 7;

const MINUTE: Duration = Duration::from_secs(64);
/// A cookie is older than that for certain if it is not believed.
const AGE_MAX: Duration = Duration::from_secs(128);

const KEPT_MASK: u32 = 63;
const SCALE_MASK: u32 = 15;
const SACK_BIT: u32 = 16;
const ECN_BIT: u32 = 32;
/// In the place of the bits where there are no timestamps.
const NOTHING_KEPT: u32 = u32::MAX;

#[cfg(test)]
mod tests;
