//! HyStart++ (RFC 9406): leaves slow start when round trips become longer, before a queue overflows.
//!
//! A round whose least round-trip time is longer than that of the round before by an eighth (4 ms to 16 ms) makes slow
//! start go on at a quarter of its pace (conservative slow start, CSS). If round trips get shorter again it was
//! jitter, and slow start resumes; if not, congestion avoidance begins after five such rounds.
//!
//! # Merged ACKs
//!
//! The RFC wants eight samples before it judges a round, and thinks of an ACK for every second segment. With GRO
//! at the peer an ACK stands for up to 64 KB, and a window of 512 KB has no more than eight of them:
//!
//! - What an ACK adds to the window is not limited (L of the RFC is without bound, its value for senders that
//!   pace). With L = 8 a window of merged ACKs would grow by a fifth in a round trip instead of doubling. An ACK for
//!   64 KB means that as much came in one piece, so the path has just stood the burst that it lets out.
//! - In a round, eight samples are waited for, as the RFC says. A round that *ends* with fewer is judged by all that it
//!   had, if there were four: there is no better evidence to come. With less than four the first ACK is so large
//!   a part of the window that its own length in time grows with the window, which looks like a queue; windows
//!   that small end no ramp. So slow start can go too far by a window of three ACKs, and no more.

use smoltcp::time::Duration;

use super::AckSample;
use crate::tcp::seq::Seq;

/// A round trip has to become longer by this at least, in microseconds.
const MIN_RTT_THRESH: u32 = 4_000;
/// By this at most.
const MAX_RTT_THRESH: u32 = 16_000;
/// Between them, by this part of it.
const MIN_RTT_DIVISOR: u32 = 8;
/// Samples that are waited for before a round is judged while it lasts.
const N_RTT_SAMPLE: u8 = 8;
/// Samples of a round that has ended.
const N_RTT_SAMPLE_ENDED: u8 = N_RTT_SAMPLE / 2;
/// CSS grows slower than slow start by this.
const CSS_GROWTH_DIVISOR: u32 = 4;
/// Rounds of CSS before slow start ends; the round in which it begins is one of them.
const CSS_ROUNDS: u8 = 5;

/// Stands for no sample.
const INFINITY: u32 = u32::MAX;

/// What slow start does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The window grows by what was delivered, divided by this: 1 in slow start, 4 in CSS.
    Divided(u32),
    /// Slow start is over: the threshold becomes what the window is.
    Over,
}

/// Watches one slow start, the first of a connection.
#[derive(Debug, Clone, Copy)]
pub struct HyStart {
    /// The round ends when this is acknowledged.
    window_end: Seq,
    /// Least round-trip times in microseconds; `INFINITY`: no sample.
    last_round_min_rtt: u32,
    current_round_min_rtt: u32,
    /// Of CSS: above that of this, there is a queue. `INFINITY`: not in CSS.
    css_baseline_min_rtt: u32,
    samples: u8,
    css_rounds: u8,
    has_round: bool,
}

impl Default for HyStart {
    fn default() -> Self {
        Self::new()
    }
}

impl HyStart {
    /// Nothing was acknowledged yet.
    pub fn new() -> Self {
        Self {
            window_end: Seq(0),
            last_round_min_rtt: INFINITY,
            current_round_min_rtt: INFINITY,
            css_baseline_min_rtt: INFINITY,
            samples: 0,
            css_rounds: 0,
            has_round: false,
        }
    }

    /// Whether slow start goes on at a quarter of its pace.
    pub fn is_conservative(&self) -> bool {
        self.css_baseline_min_rtt != INFINITY
    }

    /// An ACK has come in slow start.
    pub fn on_ack(&mut self, sample: &AckSample) -> Pace {
        if !self.has_round {
            self.has_round = true;
            self.window_end = sample.snd_nxt;
        }
        if let Some(rtt) = sample.rtt {
            self.current_round_min_rtt = self.current_round_min_rtt.min(micros(rtt));
            self.samples = self.samples.saturating_add(1);
        }
        if self.samples >= N_RTT_SAMPLE {
            self.judge();
        }
        if sample.snd_una.is_at_least(self.window_end) && self.end_round(sample.snd_nxt) {
            return Pace::Over;
        }
        Pace::Divided(if self.is_conservative() { CSS_GROWTH_DIVISOR } else { 1 })
    }

    /// Compares this round with the last one, or with the one in which CSS began.
    fn judge(&mut self) {
        if self.current_round_min_rtt == INFINITY {
            return;
        }
        if self.is_conservative() {
            //= rfc9406#4.2
            //# if (currentRoundMinRTT < cssBaselineMinRtt)
            //#     cssBaselineMinRtt = infinity
            //#     resume slow start including HyStart++
            if self.current_round_min_rtt < self.css_baseline_min_rtt {
                self.css_baseline_min_rtt = INFINITY;
            }
            return;
        }
        if self.last_round_min_rtt == INFINITY {
            return;
        }
        let threshold = (self.last_round_min_rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
        if self.current_round_min_rtt >= self.last_round_min_rtt.saturating_add(threshold) {
            self.css_baseline_min_rtt = self.current_round_min_rtt;
            self.css_rounds = 0;
        }
    }

    /// True: slow start is over.
    fn end_round(&mut self, snd_nxt: Seq) -> bool {
        if (N_RTT_SAMPLE_ENDED..N_RTT_SAMPLE).contains(&self.samples) {
            self.judge();
        }
        self.window_end = snd_nxt;
        // A round without a sample tells nothing: the one before it stays what the next is compared with.
        if self.current_round_min_rtt != INFINITY {
            self.last_round_min_rtt = self.current_round_min_rtt;
        }
        self.current_round_min_rtt = INFINITY;
        self.samples = 0;
        if self.is_conservative() {
            self.css_rounds += 1;
        }
        self.css_rounds >= CSS_ROUNDS && self.is_conservative()
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.total_micros()).unwrap_or(INFINITY - 1).min(INFINITY - 1)
}
