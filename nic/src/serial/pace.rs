//! How many bytes a line takes now, so that what waits does so here, where it can be put in order.

use std::num::NonZeroU32;

use smoltcp::time::{Duration, Instant};

/// Keeps what was handed to a port and has not left yet short: a driver's buffer of 4 KB is a third of a second at
/// 115200 baud, and no packet passes another one in it.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// `None`: as fast as the port takes them.
    bytes_per_second: Option<NonZeroU32>,
    /// When the line will have sent all that was handed over, if it is as fast as it says.
    busy_until: Instant,
    /// The port had more to send than that: somebody stops it.
    is_held: bool,
}

impl Pace {
    /// Of a line of so many baud: with start and stop bit, a byte is ten bits.
    pub(super) fn new(baud: Option<NonZeroU32>) -> Self {
        let rate = baud.map(|baud| NonZeroU32::new(baud.get() / BITS_PER_BYTE).unwrap_or(NonZeroU32::MIN));
        Self { bytes_per_second: rate, busy_until: Instant::ZERO, is_held: false }
    }

    /// Whether there is a rate at all.
    pub(super) fn is_limited(&self) -> bool {
        self.bytes_per_second.is_some()
    }

    /// Bytes that may be handed over. `unsent`: what the port says of those before, if it can tell.
    pub(super) fn room(&mut self, now: Instant, unsent: Option<usize>) -> usize {
        let Some(rate) = self.bytes_per_second else { return usize::MAX };
        let left = if self.busy_until > now { self.busy_until - now } else { Duration::ZERO };
        let by_clock = bytes_in(rate, left);
        let waiting = unsent.unwrap_or(0).max(by_clock);
        let ahead = ahead(rate);
        self.is_held = waiting > by_clock && waiting >= ahead;
        ahead.saturating_sub(waiting)
    }

    /// So many bytes were handed over.
    pub(super) fn sent(&mut self, now: Instant, len: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        self.busy_until = self.busy_until.max(now) + time_for(rate, len);
    }

    /// When half of what may be ahead will have left: so there is time for the next half.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let half = time_for(rate, ahead(rate) / 2);
        let due = if self.is_held {
            now + half
        } else {
            self.busy_until - half.min(self.busy_until - Instant::ZERO)
        };
        Some(due.max(now + Duration::from_micros(1)))
    }
}

/// Bytes that may be handed over before they can leave.
fn ahead(rate: NonZeroU32) -> usize {
    bytes_in(rate, AHEAD).max(AHEAD_BYTES_MIN)
}

fn bytes_in(rate: NonZeroU32, time: Duration) -> usize {
    (u64::from(rate.get()) * time.total_micros()).div_ceil(1_000_000) as usize
}

fn time_for(rate: NonZeroU32, len: usize) -> Duration {
    Duration::from_micros((len as u64 * 1_000_000).div_ceil(rate.get().into()))
}

/// Start bit, eight bits, stop bit.
pub(super) const BITS_PER_BYTE: u32 = 10;
/// How long a thread may be late before the line stands still.
const AHEAD: Duration = Duration::from_millis(20);
/// On very slow lines: the FIFO of a UART.
const AHEAD_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_given_more_than_it_sends_in_the_time_ahead() {
        let mut pace = Pace::new(NonZeroU32::new(115_200));
        let mut now = Instant::from_secs(5);
        let start = now;
        let mut handed = 0;
        for _ in 0..1_000 {
            let room = pace.room(now, None);
            assert!(room <= 231, "{room}");
            pace.sent(now, room);
            handed += room;
            let sent = 11_520 * (now - start).total_micros() / 1_000_000;
            assert!(handed as u64 <= sent + 231, "{handed} {sent}");
            // Nor does it stand still.
            assert!(handed as u64 >= sent);
            now = pace.next(now).expect("a rate");
        }
        assert!((now - start).total_millis() > 9_000);
    }

    #[test]
    fn a_driver_that_cannot_send_gets_no_more() {
        let mut pace = Pace::new(NonZeroU32::new(9_600));
        let now = Instant::from_secs(5);
        assert_eq!(pace.room(now, Some(1_000)), 0);
        let again = pace.next(now).expect("a rate");
        assert!(again > now && again <= now + AHEAD, "it asks again soon");
        assert!(pace.room(again, Some(3)) > 0);
        assert!(!Pace::new(None).is_limited());
        assert_eq!(Pace::new(None).room(now, Some(1_000)), usize::MAX);
    }
}
