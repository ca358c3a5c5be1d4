//! Connections that have begun and are not accepted by both ends: SYN-RECEIVED of whoever listens.
//!
//! A record, not a connection: at most 128 bytes. What comes for it is a [`Segment`]; what is to be done is a value.

use smoltcp::time::Instant;

use super::config::{TcpConfig, TcpOptions};
use super::handshake::Negotiated;
use super::isn::Isn;
use super::segment::{Header, Segment};
use super::seq::Seq;
use crate::demux::FlowKey;
use crate::observe::DropReason;
use crate::random::Random;

/// What becomes of a SYN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SynVerdict {
    /// There is a record of it: answer with this, and come again at the time.
    Recorded {
        /// Which record, for [`HalfOpens::on_segment`] and [`HalfOpens::on_timeout`].
        index: u32,
        /// The SYN-ACK.
        reply: Header,
        /// When to send it again.
        resend_at: Instant,
    },
    /// Answer with this, a cookie, and forget it.
    Cookie(Header),
    /// Nothing.
    Dropped(DropReason),
}

/// What becomes of a segment for a half-open connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HalfOpenVerdict {
    /// Both ends agree. If there is room at the listener, [`HalfOpens::remove`] it and make a connection of it, which
    /// then sees the segment (it may have data, or a FIN); if not, leave it (as Linux does: the ACK is dropped, the
    /// SYN-ACK is sent again).
    Established(Negotiated),
    /// Send this: the SYN-ACK again, or a challenge ACK.
    Reply(Header),
    /// Send this reset: the segment acknowledges something else (RFC 9293 section 3.10.7.4, fifth).
    Refuse(Header),
    /// The peer has given up: [`HalfOpens::remove`] it.
    Closed,
    /// Nothing.
    Dropped(DropReason),
}

/// What is to be done when a record's time has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HalfOpenTimeout {
    /// Send the SYN-ACK again, and come again at the time.
    Resend(Header, Instant),
    /// Nobody answers: it is removed.
    GaveUp,
}

/// What a listener says of connections.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Which listener, for [`HalfOpens::listener`].
    pub listener: u32,
    /// Its options.
    pub options: &'a TcpOptions,
    /// MSS that we take on this path: the MTU of the link less the headers.
    pub local_mss: u16,
    /// Its accept queue is full: SYNs are dropped (backlog of Linux).
    pub is_full: bool,
    /// Its own bound of half-open connections is reached.
    pub is_half_open_full: bool,
    /// Our ISS is to be beyond this: the flow was in TIME-WAIT until now.
    pub iss_min: Option<Seq>,
}

/// All half-open connections of a shard.
#[derive(Debug)]
pub struct HalfOpens {}

impl HalfOpens {
    /// None.
    pub fn new(_config: &TcpConfig, _random: &mut Random) -> Self {
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

    /// A SYN (without ACK and RST) for a listener, of a flow of which nothing is known.
    pub fn on_syn(
        &mut self,
        _now: Instant,
        _flow: &FlowKey,
        _offer: &Offer<'_>,
        _isn: &Isn,
        _segment: &Segment<'_>,
    ) -> SynVerdict {
        todo!("helper passive")
    }

    /// A segment for a record.
    pub fn on_segment(&mut self, _now: Instant, _index: u32, _segment: &Segment<'_>) -> HalfOpenVerdict {
        todo!("helper passive")
    }

    /// An ACK for a listener, of a flow of which nothing is known: it may answer a cookie. `None`: it does not.
    pub fn on_cookie(
        &mut self,
        _now: Instant,
        _flow: &FlowKey,
        _offer: &Offer<'_>,
        _isn: &Isn,
        _segment: &Segment<'_>,
    ) -> Option<Negotiated> {
        todo!("helper passive")
    }

    /// The time has come that was told.
    pub fn on_timeout(&mut self, _now: Instant, _index: u32) -> HalfOpenTimeout {
        todo!("helper passive")
    }

    /// Whose it is, and its listener.
    pub fn get(&self, _index: u32) -> Option<(FlowKey, u32)> {
        todo!("helper passive")
    }

    /// Takes a record away.
    pub fn remove(&mut self, _index: u32) {
        todo!("helper passive")
    }
}
