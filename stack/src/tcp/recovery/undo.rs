//! Whether a repair was needless: Eifel (RFC 3522, response RFC 4015) by timestamps, and DSACK (RFC 2883, RFC 3708).

use crate::tcp::sack::Position;

/// What is known of the repetitions of one repair.
#[derive(Debug, Clone, Copy)]
pub(in crate::tcp) struct Undo {
    /// `snd_una` when it began.
    marker: Position,
    /// Where the first repetition began.
    first_start: Position,
    /// TSval of the first repetition, if it had one.
    first_ts: Option<u32>,
    /// Bytes sent again for which no DSACK has come.
    unanswered: u64,
    /// Bytes sent again in it.
    resent: u32,
    /// The first ACK after the repetition has told what Eifel can tell.
    is_told: bool,
    /// It cannot be taken back any more.
    is_spent: bool,
}

/// Why a repair was needless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tcp) enum Evidence {
    /// The ACK answers the first sending.
    Timestamp,
    /// All that was sent again arrived twice.
    Duplicates,
}

impl Undo {
    /// A repair begins at `snd_una`; of an earlier one there are `resent` bytes in flight.
    pub(in crate::tcp) fn new(una: Position, resent: u32) -> Self {
        Self {
            marker: una,
            first_start: 0,
            first_ts: None,
            unanswered: u64::from(resent),
            resent: 0,
            is_told: false,
            is_spent: false,
        }
    }

    /// Something was sent again.
    pub(in crate::tcp) fn on_resent(&mut self, start: Position, bytes: u32, ts_val: Option<u32>) {
        if self.resent == 0 {
            self.first_start = start;
            self.first_ts = ts_val;
        }
        self.resent = self.resent.saturating_add(bytes);
        self.unanswered += u64::from(bytes);
    }

    /// Bytes sent again in it.
    pub(in crate::tcp) fn resent(&self) -> u32 {
        self.resent
    }

    /// A DSACK has come.
    pub(in crate::tcp) fn on_dsack(&mut self, start: Position, end: Position) {
        if start >= self.marker && self.resent > 0 {
            self.unanswered = self.unanswered.saturating_sub(end - start);
        }
    }

    /// Whether the repair was needless, when an ACK has moved `snd_una` to `una` or left it there. Tells it once.
    pub(in crate::tcp) fn evidence(&mut self, una: Position, ts_ecr: Option<u32>) -> Option<Evidence> {
        if self.is_spent || self.resent == 0 {
            return None;
        }
        if self.unanswered == 0 {
            self.is_spent = true;
            return Some(Evidence::Duplicates);
        }
        // Only the first ACK that accepts something can answer the first sending of the oldest segment: RFC 3522
        // section 3.2 step 4. The receiver echoes the timestamp of what has closed the gap (RFC 7323 section 4.3).
        if una <= self.first_start || self.is_told {
            return None;
        }
        self.is_told = true;
        let (first, echo) = (self.first_ts?, ts_ecr?);
        if (echo.wrapping_sub(first) as i32) < 0 {
            self.is_spent = true;
            return Some(Evidence::Timestamp);
        }
        None
    }

    /// Whether timestamps can tell, so that F-RTO need not.
    pub(in crate::tcp) fn has_timestamp(&self) -> bool {
        self.first_ts.is_some()
    }
}
