//! How much may be in flight: the controllers, behind one small trait.
//!
//! The [`Sender`](super::sender::Sender) finds out what was delivered and what was lost; a controller hears of it
//! and says how many bytes may be in flight, and how fast they may go. It knows no sequence numbers but as rounds,
//! no timers and no segments.

pub mod bbr;
pub mod cubic;
pub mod hystart;
pub mod pacing;
pub mod reno;
pub mod validation;
mod window;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use smoltcp::time::{Duration, Instant};

use super::seq::Seq;

pub use bbr::Bbr;
pub use cubic::Cubic;
pub use pacing::Pacer;
pub use reno::Reno;
pub use validation::{Used, Validation};

/// Which controller a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// NewReno (RFC 5681, RFC 6582), with byte counting (RFC 3465).
    Reno,
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// A model of the path, BBR version 3 (draft-ietf-ccwg-bbr).
    Bbr,
}

/// What the delivery of the newest segment that was acknowledged tells of the path
/// (draft-ietf-ccwg-bbr section 4.1, "delivery rate samples").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateSample {
    /// Bytes per second, over `interval`.
    pub delivery_rate: u64,
    /// Over which it was measured: the longer of the times of sending and of acknowledging.
    pub interval: Duration,
    /// Bytes delivered in that time.
    pub delivered: u64,
    /// Bytes found lost between the sending of the segment and now.
    pub lost: u64,
    /// The total of delivered bytes when the segment was sent: a round trip ends when it has passed the total of
    /// the last round's end.
    pub prior_delivered: u64,
    /// Bytes in flight when the segment was sent, itself included.
    pub tx_in_flight: u32,
    /// The application had nothing more to send then.
    pub is_app_limited: bool,
}

/// What one ACK has told. It may stand for many segments, or for many ACKs that came in one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AckSample {
    /// When it came.
    pub now: Instant,
    /// Bytes that it acknowledges for the first time, by its number or by SACK.
    pub delivered: u32,
    /// Bytes by which `snd_una` has moved.
    pub acked: u32,
    /// Bytes found lost at it.
    pub lost: u32,
    /// All bytes that were ever delivered, these included.
    pub delivered_total: u64,
    /// All bytes that were ever found lost, these included.
    pub lost_total: u64,
    /// Bytes in flight before it.
    pub prior_in_flight: u32,
    /// Bytes in flight now.
    pub in_flight: u32,
    /// SND.UNA now.
    pub snd_una: Seq,
    /// SND.NXT: a round that begins now ends when this is acknowledged.
    pub snd_nxt: Seq,
    /// Round-trip time of the newest segment, unless all were repeated.
    pub rtt: Option<Duration>,
    /// Smoothed.
    pub srtt: Option<Duration>,
    /// The least that was seen lately.
    pub min_rtt: Option<Duration>,
    /// The delivery rate, if it can be told.
    pub rate: Option<RateSample>,
    /// The sender is repairing a loss (fast recovery, or after an RTO).
    pub is_in_recovery: bool,
    /// The window was what held the sender back lately. A window that is not used must not grow.
    pub is_cwnd_limited: bool,
}

/// The network is too full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CongestionEvent {
    /// When this was seen.
    pub now: Instant,
    /// How.
    pub signal: Signal,
    /// Bytes in flight then, what is lost included (FlightSize of RFC 5681, pipe before marks of loss).
    pub in_flight: u32,
    /// SND.NXT.
    pub snd_nxt: Seq,
}

/// How congestion shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Segments are missing; fast recovery begins.
    Loss,
    /// A router has marked (RFC 3168): once per window.
    Ecn,
    /// The retransmission timer has expired for the first time of this episode.
    Timeout,
}

/// A congestion controller. Windows and thresholds are in bytes.
pub trait Controller {
    /// For people.
    fn name(&self) -> &'static str;

    /// How many bytes may be in flight.
    fn cwnd(&self) -> u32;

    /// Up to where slow start goes. `None`: nothing was lost yet.
    fn ssthresh(&self) -> Option<u32>;

    /// Bytes per second that may leave, for who has a model of the path. `None`: the sender paces by window and
    /// round-trip time.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// How many bytes are best sent at once. `None`: as pacing says.
    fn send_quantum(&self) -> Option<u32> {
        None
    }

    /// Whether the sender keeps to PRR (RFC 6937) while it repairs a loss, and the window is set to `ssthresh` at
    /// the end. If not, [`cwnd`](Self::cwnd) counts at all times.
    fn uses_prr(&self) -> bool {
        true
    }

    /// Something was acknowledged. In recovery too; who uses PRR leaves the window alone then.
    fn on_ack(&mut self, sample: &AckSample);

    /// The network is too full. Told once per episode.
    fn on_congestion(&mut self, event: &CongestionEvent);

    /// The loss is repaired.
    fn on_recovery_end(&mut self, now: Instant, in_flight: u32);

    /// What was taken for congestion was none: the last [`on_congestion`](Self::on_congestion) is undone.
    fn on_undo(&mut self, now: Instant);

    /// Data goes after nothing was in flight for a time.
    fn on_restart(&mut self, _now: Instant, _idle: Duration) {}

    /// The window was not used, and is to be no more than this (RFC 7661).
    fn reduce_to(&mut self, cwnd: u32, ssthresh: u32);

    /// Bytes of a full segment are others now.
    fn set_mss(&mut self, mss: u32);
}

/// The controller of a connection. Rare, large ones are apart.
#[derive(Debug, Clone)]
pub enum Congestion {
    /// NewReno.
    Reno(Reno),
    /// CUBIC.
    Cubic(Cubic),
    /// BBR.
    Bbr(Box<Bbr>),
}

impl Congestion {
    /// A controller in slow start, with a window of `initial_window` bytes. `mss`: bytes of payload of a full segment.
    ///
    /// A connection that changes its controller gives the window that there is, and then tells
    /// [`reduce_to`](Controller::reduce_to) the threshold, if one is known.
    pub fn new(algorithm: Algorithm, mss: u32, initial_window: u32, now: Instant) -> Self {
        match algorithm {
            Algorithm::Reno => Self::Reno(Reno::new(mss, initial_window)),
            Algorithm::Cubic => Self::Cubic(Cubic::new(mss, initial_window)),
            Algorithm::Bbr => Self::Bbr(Box::new(Bbr::new(mss, initial_window, now))),
        }
    }

    /// Which one it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Reno(_) => Algorithm::Reno,
            Self::Cubic(_) => Algorithm::Cubic,
            Self::Bbr(_) => Algorithm::Bbr,
        }
    }
}

/// Asks or tells whichever there is.
macro_rules! each {
    ($congestion:expr, $controller:ident => $call:expr) => {
        match $congestion {
            Congestion::Reno($controller) => $call,
            Congestion::Cubic($controller) => $call,
            Congestion::Bbr($controller) => $call,
        }
    };
}

impl Controller for Congestion {
    fn name(&self) -> &'static str {
        each!(self, controller => controller.name())
    }

    #[inline]
    fn cwnd(&self) -> u32 {
        each!(self, controller => controller.cwnd())
    }

    #[inline]
    fn ssthresh(&self) -> Option<u32> {
        each!(self, controller => controller.ssthresh())
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        each!(self, controller => controller.pacing_rate())
    }

    #[inline]
    fn send_quantum(&self) -> Option<u32> {
        each!(self, controller => controller.send_quantum())
    }

    #[inline]
    fn uses_prr(&self) -> bool {
        each!(self, controller => controller.uses_prr())
    }

    #[inline]
    fn on_ack(&mut self, sample: &AckSample) {
        each!(self, controller => controller.on_ack(sample));
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        each!(self, controller => controller.on_congestion(event));
    }

    fn on_recovery_end(&mut self, now: Instant, in_flight: u32) {
        each!(self, controller => controller.on_recovery_end(now, in_flight));
    }

    fn on_undo(&mut self, now: Instant) {
        each!(self, controller => controller.on_undo(now));
    }

    fn on_restart(&mut self, now: Instant, idle: Duration) {
        each!(self, controller => controller.on_restart(now, idle));
    }

    fn reduce_to(&mut self, cwnd: u32, ssthresh: u32) {
        each!(self, controller => controller.reduce_to(cwnd, ssthresh));
    }

    fn set_mss(&mut self, mss: u32) {
        each!(self, controller => controller.set_mss(mss));
    }
}
