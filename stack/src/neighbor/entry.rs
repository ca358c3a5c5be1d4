//! One neighbour.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use wirestack_nic::FrameMeta;

use super::entries::{Class, NONE};
use crate::timer::wheel::TimerId;

/// What is known of a neighbour (RFC 4861 section 7.3.2), with two states that the RFC does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its hardware address is being asked for.
    Incomplete,
    /// It was there a short time ago.
    Reachable,
    /// It was there; whether it still is, nobody has asked.
    Stale,
    /// It is being used, and upper layers may tell that it is there.
    Delay,
    /// It is being asked whether it is there.
    Probe,
    /// It did not answer: it is not asked again for a while.
    Failed,
    /// From the configuration: never asked, never changed by the wire.
    Permanent,
}

impl State {
    /// Whether frames can be sent to it.
    pub fn has_address(self) -> bool {
        !matches!(self, Self::Incomplete | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "INCOMPLETE",
            Self::Reachable => "REACHABLE",
            Self::Stale => "STALE",
            Self::Delay => "DELAY",
            Self::Probe => "PROBE",
            Self::Failed => "FAILED",
            Self::Permanent => "PERMANENT",
        })
    }
}

/// What can be seen of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighborInfo {
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address, if it is known.
    pub mac: Option<EthernetAddress>,
    /// What is known of it.
    pub state: State,
    /// IsRouter of RFC 4861 section 5.1.
    pub is_router: bool,
    /// When it was last looked up.
    pub used_at: Instant,
    /// When its hardware address was last learned or changed.
    pub updated_at: Instant,
    /// Requests that were sent in this state.
    pub probes_sent: u8,
    /// Frames that wait for it.
    pub parked_frames: usize,
    /// What they take, in bytes, with what it costs to keep them.
    pub parked_bytes: usize,
}

/// One neighbour as the table keeps it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ip: IpAddr,
    pub(super) mac: EthernetAddress,
    pub(super) state: State,
    pub(super) is_router: bool,
    /// Whether we ever sent to it; if not, it is known only because it spoke.
    pub(super) is_used: bool,
    pub(super) probes_sent: u8,
    pub(super) used_at: Instant,
    pub(super) updated_at: Instant,
    /// When REACHABLE or FAILED ends. The timer may be earlier: it is not moved for each sign of life.
    pub(super) until: Instant,
    pub(super) timer: Option<TimerId>,
    /// Our address in requests to it.
    pub(super) src: Option<IpAddr>,
    pub(super) parked: VecDeque<Parked>,
    pub(super) parked_bytes: usize,
    pub(super) place: Place,
}

/// Where an entry is in the list of its class.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) class: Option<Class>,
    pub(super) since: Instant,
    pub(super) prev: u32,
    pub(super) next: u32,
}

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) frame: Vec<u8>,
    pub(super) meta: FrameMeta,
}

impl Parked {
    /// What a frame of this length takes: the bytes, and the rest of a queue's element.
    pub(super) fn cost(frame_len: usize) -> usize {
        frame_len.saturating_add(size_of::<super::Output>())
    }
}

impl Entry {
    /// A neighbour of which nothing is known.
    pub(super) fn new(now: Instant, ip: IpAddr) -> Self {
        Self {
            ip,
            mac: EthernetAddress([0; 6]),
            state: State::Incomplete,
            is_router: false,
            is_used: false,
            probes_sent: 0,
            used_at: now,
            updated_at: now,
            until: now,
            timer: None,
            src: None,
            parked: VecDeque::new(),
            parked_bytes: 0,
            place: Place { class: None, since: now, prev: NONE, next: NONE },
        }
    }

    pub(super) fn info(&self) -> NeighborInfo {
        NeighborInfo {
            ip: self.ip,
            mac: self.state.has_address().then_some(self.mac),
            state: self.state,
            is_router: self.is_router,
            used_at: self.used_at,
            updated_at: self.updated_at,
            probes_sent: self.probes_sent,
            parked_frames: self.parked.len(),
            parked_bytes: self.parked_bytes,
        }
    }

    /// Whom a newcomer may displace: entries that work is going on for, and static ones, are in no class.
    pub(super) fn class(&self) -> Option<Class> {
        match self.state {
            State::Failed => Some(Class::Failed),
            State::Stale if !self.is_used => Some(Class::Unused),
            State::Stale => Some(Class::Stale),
            State::Reachable | State::Delay | State::Probe => Some(Class::Live),
            State::Incomplete | State::Permanent => None,
        }
    }
}
