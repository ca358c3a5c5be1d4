//! TIME-WAIT: what is left of a connection that this end has closed first. A record of 64 bytes.

use smoltcp::time::Instant;

use super::config::TcpConfig;
use super::seq::Seq;
use super::segment::{Header, Segment};
use crate::demux::FlowKey;
use crate::observe::DropReason;

/// What a connection leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// SND.NXT: behind our FIN.
    pub snd_nxt: Seq,
    /// RCV.NXT: behind the peer's.
    pub rcv_nxt: Seq,
    /// The window that we offer, as on the wire.
    pub window: u16,
    /// The window in bytes.
    pub rcv_wnd: u32,
    /// Offset and TS.Recent, if timestamps were agreed on.
    pub timestamps: Option<super::handshake::Clock>,
}

/// What becomes of a segment for a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TimeWaitVerdict {
    /// Send this ACK; the time begins anew if `restarts_at` says until when.
    Reply {
        /// The ACK.
        header: Header,
        /// The end of the record, if it is later than before.
        restarts_at: Option<Instant>,
    },
    /// A SYN that opens the same flow anew, safely (RFC 6191, RFC 9293 section 3.10.7.4): [`TimeWaits::remove`] the
    /// record and treat the segment as one for the listener, if there is one. Our ISS is to be beyond this.
    Reopen {
        /// Behind all that the old connection has used.
        iss_min: Seq,
    },
    /// Nothing; a reset among others (RFC 1337).
    Dropped(DropReason),
}

/// All records of a shard.
#[derive(Debug)]
pub struct TimeWaits {}

impl TimeWaits {
    /// None.
    pub fn new(_config: &TcpConfig) -> Self {
        todo!("helper passive")
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        todo!("helper passive")
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a record. If there are too many, the oldest one goes: its flow and index are returned, for the table of
    /// flows. The end is `now` + `time_wait`; records are in the order of their ends.
    pub fn insert(&mut self, _now: Instant, _flow: FlowKey, _remains: Remains) -> (u32, Option<FlowKey>) {
        todo!("helper passive")
    }

    /// A segment for a record.
    pub fn on_segment(&mut self, _now: Instant, _index: u32, _segment: &Segment<'_>) -> TimeWaitVerdict {
        todo!("helper passive")
    }

    /// When the first record ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!("helper passive")
    }

    /// Takes a record away that has ended, and tells its flow.
    pub fn pop_expired(&mut self, _now: Instant) -> Option<FlowKey> {
        todo!("helper passive")
    }

    /// Takes a record away.
    pub fn remove(&mut self, _index: u32) {
        todo!("helper passive")
    }

    /// All of them, for people.
    pub fn iter(&self) -> impl Iterator<Item = (FlowKey, Instant)> {
        std::iter::empty()
    }
}
