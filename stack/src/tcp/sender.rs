//! What becomes of data that was sent: acknowledged, lost, to be repeated; and how much more may go.
//!
//! The one place where the scoreboard ([`sack`](super::sack)), the detector of losses ([`rack`](super::rack)), the
//! repair ([`recovery`](super::recovery)), the clock of the path ([`rtt`](super::rtt)) and the controller
//! ([`congestion`](super::congestion)) meet. It knows no header, no window of the peer and no buffer: the
//! connection tells it what was sent and what an ACK said, and asks it what to repeat and how much may go.
//!
//! A FIN takes a sequence number and is recorded like a byte of data. A SYN is not of its business: the handshake
//! is over when this begins.

use smoltcp::time::{Duration, Instant};

use super::congestion::Algorithm;
use super::rtt::{RtoBounds, Rtt};
use super::seq::Seq;

/// What a sender begins with.
#[derive(Debug, Clone, Copy)]
pub struct SenderConfig {
    /// The number of the first byte: ISS + 1.
    pub start: Seq,
    /// Bytes of payload of a full segment.
    pub mss: u32,
    /// Bounds of the RTO.
    pub rto: RtoBounds,
    /// The controller.
    pub algorithm: Algorithm,
    /// Bytes of the initial window. `None`: as RFC 6928 says, ten segments.
    pub initial_window: Option<u32>,
    /// Both ends have SACK (RFC 2018). If not, duplicate ACKs are counted (RFC 5681, RFC 6582).
    pub sack: bool,
    /// Both ends have timestamps.
    pub timestamps: bool,
    /// The round-trip time of the handshake, unless a SYN was repeated.
    pub handshake_rtt: Option<Duration>,
    /// A SYN or SYN-ACK was lost, as far as we know (RFC 5681 section 3.1: one segment to begin with).
    pub handshake_lost: bool,
    /// Whether what is sent is spread over a round trip (pacing); a controller with a model always does.
    pub pacing: bool,
}

/// Something that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The first number.
    pub seq: Seq,
    /// Numbers: bytes of data, and one for a FIN. Up to 64 KB: several segments that left in one frame.
    pub len: u32,
    /// TSval of its option, if it had one.
    pub ts_val: Option<u32>,
    /// The application had nothing more to send behind it (and the window had room).
    pub is_app_limited: bool,
}

/// An ACK. It is acceptable: `snd_una <= ack <= snd_nxt`.
#[derive(Debug, Clone, Copy)]
pub struct Ack<'a> {
    /// SEG.ACK.
    pub ack: Seq,
    /// Blocks of SACK as they came; nothing is known of them yet, not even that their ends are in order.
    pub sack: &'a [(Seq, Seq)],
    /// Whether it may count as a duplicate ACK by RFC 5681 section 2 as far as the segment tells: no data, no SYN, no
    /// FIN, the window is the same as before. (That something is outstanding and nothing new is acknowledged is for
    /// the sender to see.)
    pub may_be_duplicate: bool,
    /// How many ACKs of the peer this stands for, if the device has merged some: 1 or more.
    pub count: u32,
    /// TSecr, if the segment has timestamps.
    pub ts_ecr: Option<u32>,
    /// The round-trip time that TSecr tells.
    pub ts_rtt: Option<Duration>,
    /// ECE is set, and ECN was agreed on.
    pub ece: bool,
}

/// What an ACK has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckOutcome {
    /// Bytes by which `snd_una` has moved: what the send buffer gives up (a FIN counts as one).
    pub acked: u32,
    /// Bytes acknowledged for the first time, by number or SACK.
    pub delivered: u32,
    /// Bytes found lost.
    pub lost: u32,
    /// The newest sample.
    pub rtt: Option<Duration>,
    /// The blocks had one that the peer had received before (RFC 2883).
    pub dsack: bool,
    /// Blocks that no honest peer sends: of what was never sent.
    pub bad_blocks: u32,
}

/// What an expired timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing was due after all.
    Nothing,
    /// Segments were found lost by their age (RACK): [`next_lost`](Sender::next_lost) has them.
    Lost,
    /// A loss probe (TLP) is to be sent: new data if there is some and the peer's window takes it, or else the last
    /// segment that was sent, which begins at this number and has so many.
    Probe(Seq, u32),
    /// The RTO has expired: everything counts as lost, the window is one segment.
    Retransmit,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Sender {}

impl Sender {
    /// Nothing was sent yet.
    pub fn new(_config: &SenderConfig, _now: Instant) -> Self {
        todo!("helper sender")
    }

    /// SND.UNA: the oldest number that is not acknowledged.
    pub fn snd_una(&self) -> Seq {
        todo!("helper sender")
    }

    /// SND.NXT: the number that comes next. It never goes back: what is lost is repeated, not sent anew.
    pub fn snd_nxt(&self) -> Seq {
        todo!("helper sender")
    }

    /// Bytes of a full segment.
    pub fn mss(&self) -> u32 {
        todo!("helper sender")
    }

    /// Full segments are of another size from now on. What was sent and was longer may be marked as lost, for it did
    /// not get through (`lost_above`: RFC 1191 section 6.1 wants it repeated, not taken for congestion).
    pub fn set_mss(&mut self, _now: Instant, _mss: u32, _marks_lost: bool) {
        todo!("helper sender")
    }

    /// Data was sent for the first time, from `snd_nxt` on.
    pub fn on_sent(&mut self, _now: Instant, _sent: &Sent) {
        todo!("helper sender")
    }

    /// Data was sent again: what [`next_lost`](Self::next_lost) has told, or its first part; or the probe.
    pub fn on_resent(&mut self, _now: Instant, _sent: &Sent, _is_probe: bool) {
        todo!("helper sender")
    }

    /// An ACK has come.
    pub fn on_ack(&mut self, _now: Instant, _ack: &Ack<'_>) -> AckOutcome {
        todo!("helper sender")
    }

    /// What to repeat first: a number, and how many from there. All of it left in one piece.
    pub fn next_lost(&self) -> Option<(Seq, u32)> {
        todo!("helper sender")
    }

    /// How many bytes may go now as far as congestion is concerned: window or PRR, less what is in flight. Not 0 when
    /// the first segment of a recovery or of an RTO is to be repeated. Limited transmit (RFC 3042) is in it.
    pub fn allowance(&self) -> u32 {
        todo!("helper sender")
    }

    /// When pacing lets the next piece go. `None`: now.
    pub fn next_send_at(&self, _now: Instant) -> Option<Instant> {
        todo!("helper sender")
    }

    /// How many bytes one frame should have at most, so that pacing is not in vain: at least one segment.
    pub fn quantum(&self) -> u32 {
        todo!("helper sender")
    }

    /// Bytes in flight, as far as is known (pipe of RFC 6675).
    pub fn in_flight(&self) -> u32 {
        todo!("helper sender")
    }

    /// When a timer of the sender is due: RTO, probe, or the age of a segment. `None` if nothing is in flight.
    pub fn deadline(&self) -> Option<Instant> {
        todo!("helper sender")
    }

    /// That time has come.
    pub fn on_timeout(&mut self, _now: Instant) -> Timeout {
        todo!("helper sender")
    }

    /// The peer's window is what holds us back, or the application has nothing: for `limited-by` and the rate.
    pub fn set_limited_by(&mut self, _now: Instant, _by: LimitedBy) {
        todo!("helper sender")
    }

    /// Whether the next new data is to have CWR set (RFC 3168 section 6.1.2), asked once.
    pub fn take_cwr(&mut self) -> bool {
        todo!("helper sender")
    }

    /// Estimates of the path.
    pub fn rtt(&self) -> &Rtt {
        todo!("helper sender")
    }

    /// Another controller from now on. It begins with the window that there is.
    pub fn set_algorithm(&mut self, _now: Instant, _algorithm: Algorithm) {
        todo!("helper sender")
    }

    /// Fills in what it knows.
    pub fn fill_info(&self, _now: Instant, _info: &mut super::info::TcpInfo) {
        todo!("helper sender")
    }
}

/// What keeps a connection from sending more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitedBy {
    /// The application has written no more.
    #[default]
    Application,
    /// The window of the peer.
    Receiver,
    /// Congestion control.
    Congestion,
}
