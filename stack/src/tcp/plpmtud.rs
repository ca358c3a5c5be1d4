//! Path MTU, found by probes of its own (RFC 4821, RFC 8899): for paths that swallow what is too long and say
//! nothing, or tell less than they take.

use smoltcp::time::{Duration, Instant};

use super::seq::Seq;

/// What a search wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing changes.
    Nothing,
    /// Segments of this size from now on, in bytes of the IP packet. What was sent and is longer has to be repeated if
    /// `lost` says so (a black hole).
    Mtu {
        /// Bytes of an IP packet.
        mtu: u16,
        /// What is longer has not got through.
        lost: bool,
    },
}

/// The search of one connection. Small: every connection has one.
#[derive(Debug, Clone, Copy)]
pub struct Plpmtud {}

impl Plpmtud {
    /// `mtu`: what the path takes as far as is known; `mtu_max`: what the link takes. `is_v4` for the floor (a base
    /// of 1024 bytes, and 512 / 1280 at least).
    pub fn new(_mtu: u16, _mtu_max: u16, _is_v4: bool) -> Self {
        todo!("helper wire")
    }

    /// What the path takes as far as is known.
    pub fn mtu(&self) -> u16 {
        todo!("helper wire")
    }

    /// A router has told (and it was checked), or the link or the route has changed.
    pub fn set_mtu(&mut self, _now: Instant, _mtu: u16, _mtu_max: u16) {
        todo!("helper wire")
    }

    /// The size of a packet that may be tried now, if it is time: only if there is enough data and nothing is being
    /// repaired.
    pub fn probe(&self, _now: Instant) -> Option<u16> {
        todo!("helper wire")
    }

    /// It was sent, and ends before `end`.
    pub fn on_probe_sent(&mut self, _now: Instant, _start: Seq, _end: Seq) {
        todo!("helper wire")
    }

    /// Everything before `una` is acknowledged.
    pub fn on_ack(&mut self, _now: Instant, _una: Seq) -> Found {
        todo!("helper wire")
    }

    /// Something that begins at `start` was found lost. True: it was the probe, and is no sign of congestion.
    pub fn on_lost(&mut self, _now: Instant, _start: Seq) -> bool {
        todo!("helper wire")
    }

    /// The RTO has expired for the `backoffs`-th time in a row, and what is outstanding begins with a packet of
    /// `bytes`: perhaps a black hole.
    pub fn on_timeout(&mut self, _now: Instant, _backoffs: u32, _bytes: u16) -> Found {
        todo!("helper wire")
    }

    /// How long until a search begins anew.
    pub const AGAIN: Duration = Duration::from_secs(600);
}
