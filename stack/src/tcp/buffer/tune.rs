//! How large a receive buffer should be: dynamic right-sizing, as Linux does it.
//!
//! A window that is smaller than what the path takes in a round trip holds the sender back. So it is measured what the
//! application reads in a round trip; when that has grown, the window is made twice as large as that, and more if it
//! has grown fast, for a sender in slow start sends twice as much in the next one.

use smoltcp::time::{Duration, Instant};

use crate::tcp::seq::Seq;

#[cfg(test)]
mod tests;

/// What nobody needs to read in a round trip before the first growth: ten segments, an initial window.
const FIRST_READ_BYTES: u32 = 14_600;
/// What is added to the window, so that small ones grow: sixteen segments.
const SLACK_BYTES: u64 = 16 * 1_460;
/// A time that is none.
const NEVER: Instant = Instant::from_micros_const(i64::MIN);

/// Measures how much the application reads in a round trip, and how long a round trip is for who only receives.
#[derive(Debug, Clone)]
pub struct ReceiveTuning {
    /// Eight times the round-trip time, in microseconds. 0: it is not known.
    rtt_us_x8: u32,
    /// When the window ended here that is being measured, and since when it is.
    window_end: Seq,
    window_since: Instant,
    /// The most that was read in a round trip.
    read_max: u32,
    /// Where the application was when the round trip that is being measured began, and when.
    read_from: Seq,
    read_since: Instant,
    /// Where the application is, and what has come.
    copied: Seq,
    rcv_nxt: Seq,
}

impl ReceiveTuning {
    /// Nothing is measured yet. `initial`: bytes of the window that is offered first.
    pub fn new(_now: Instant, initial: u32) -> Self {
        Self {
            rtt_us_x8: 0,
            window_end: Seq(0),
            window_since: NEVER,
            read_max: (initial / 2).clamp(1, FIRST_READ_BYTES),
            read_from: Seq(0),
            read_since: NEVER,
            copied: Seq(0),
            rcv_nxt: Seq(0),
        }
    }

    /// Data has come: `rcv_nxt` and the window that was offered, for an estimate of the round-trip time of who sends
    /// nothing; `rtt` is a sample from timestamps, if the segment has one.
    pub fn on_received(&mut self, now: Instant, rcv_nxt: Seq, window: u32, rtt: Option<Duration>) {
        if self.window_since == NEVER {
            (self.window_end, self.window_since) = (rcv_nxt + window, now);
        } else if rcv_nxt.is_after(self.window_end) {
            // What lies behind a window was allowed after the window was told, so it comes a round trip later, or more
            // if the sender has nothing or the window is shut: only less than before tells something. (Its last byte
            // may come sooner: the window can have been told long ago.)
            let sample = now - self.window_since;
            if self.rtt_us_x8 == 0 || Self::scaled(sample) < self.rtt_us_x8 {
                self.rtt_us_x8 = Self::scaled(sample);
            }
            (self.window_end, self.window_since) = (rcv_nxt + window, now);
        }
        if let Some(sample) = rtt {
            self.take_sample(sample);
        }
        self.rcv_nxt = rcv_nxt;
    }

    /// The application has read up to `copied` in all, and the buffer may have `limit` bytes. Once a round trip it
    /// tells what it should have instead, if that is more, up to `limit_max`.
    pub fn on_read(&mut self, now: Instant, copied: Seq, limit: u32, limit_max: u32) -> Option<u32> {
        self.copied = copied;
        if self.read_since == NEVER {
            (self.read_from, self.read_since) = (copied, now);
            return None;
        }
        let rtt = self.rtt()?;
        if now - self.read_since < rtt {
            return None;
        }
        // What waits to be read does not count: who reads slowly needs no more room.
        let waiting = if self.rcv_nxt.is_after(copied) { self.rcv_nxt.since(copied) } else { 0 };
        let read = copied.since(self.read_from).saturating_sub(waiting);
        (self.read_from, self.read_since) = (copied, now);
        if read <= self.read_max {
            return None;
        }
        let (read, read_max) = (u64::from(read), u64::from(self.read_max));
        let window = 2 * read + SLACK_BYTES;
        let growth = (2 * window).saturating_mul(read - read_max) / read_max;
        self.read_max = read as u32;
        let wanted = window.saturating_add(growth).min(u64::from(limit_max)) as u32;
        (wanted > limit).then_some(wanted)
    }

    /// The round-trip time of the receiver, if it is known.
    pub fn rtt(&self) -> Option<Duration> {
        (self.rtt_us_x8 != 0).then(|| Duration::from_micros(u64::from(self.rtt_us_x8 / 8)))
    }

    /// A sample of an echoed timestamp. A smaller one counts at once; a larger one a little, and only if the
    /// application was not what held things up.
    fn take_sample(&mut self, sample: Duration) {
        let sample_x8 = Self::scaled(sample);
        if self.rtt_us_x8 == 0 || sample_x8 < self.rtt_us_x8 {
            self.rtt_us_x8 = sample_x8;
        } else if self.copied == self.rcv_nxt {
            self.rtt_us_x8 = (self.rtt_us_x8 - self.rtt_us_x8 / 8).saturating_add(sample_x8 / 8);
        }
    }

    /// At least 1 µs, at most nine minutes.
    fn scaled(rtt: Duration) -> u32 {
        u32::try_from(rtt.total_micros().max(1).saturating_mul(8)).unwrap_or(u32::MAX)
    }
}
