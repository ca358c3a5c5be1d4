//! Without SACK: duplicate ACKs are counted (RFC 5681 section 3.2, RFC 6582).

use crate::tcp::rack::DUP_THRESH;
use crate::tcp::sack::Position;

/// What duplicate ACKs tell.
#[derive(Debug, Clone, Copy)]
pub(in crate::tcp) struct NewReno {
    /// Duplicate ACKs in a row.
    duplicates: u32,
    /// Bytes that have arrived behind the gap, by their number: each duplicate stands for a segment.
    arrived: u32,
    /// `recover` of RFC 6582: duplicates up to here do not begin another recovery.
    recover: Position,
}

impl NewReno {
    pub(in crate::tcp) fn new(start: Position) -> Self {
        Self { duplicates: 0, arrived: 0, recover: start - 1 }
    }

    /// Bytes that have arrived behind the gap.
    pub(in crate::tcp) fn arrived(&self) -> u32 {
        self.arrived
    }

    /// `count` duplicates have come; at most `room` bytes can have arrived. Returns how many bytes these stand for. That
    /// much leaves the pipe, which is what RFC 3042 (limited transmit) and the inflation of RFC 5681 amount to.
    pub(in crate::tcp) fn on_duplicate(&mut self, count: u32, mss: u32, room: u32) -> u32 {
        self.duplicates = self.duplicates.saturating_add(count);
        let bytes = count.saturating_mul(mss).min(room.saturating_sub(self.arrived));
        self.arrived += bytes;
        bytes
    }

    /// `acked` bytes were acknowledged by number. Returns how many of them had not been told of by duplicates. The
    /// first segment of them is what filled the gap.
    pub(in crate::tcp) fn on_advance(
        &mut self,
        acked: u32,
        mss: u32,
        is_recovering: bool,
        outstanding: u32,
    ) -> u32 {
        let told = self.arrived.min(acked.saturating_sub(mss));
        self.duplicates = 0;
        self.arrived =
            if is_recovering { (self.arrived - told).min(outstanding.saturating_sub(mss)) } else { 0 };
        acked - told
    }

    /// Whether fast retransmit is due.
    pub(in crate::tcp) fn is_due(&self, una: Position) -> bool {
        // RFC 6582 section 3.2 step 2: duplicates of what the last recovery has sent begin no other one.
        self.duplicates >= DUP_THRESH && una > self.recover
    }

    /// A recovery has begun.
    pub(in crate::tcp) fn on_recovery(&mut self, nxt: Position) {
        self.recover = nxt;
    }

    /// All that is outstanding counts as lost.
    pub(in crate::tcp) fn on_timeout(&mut self, nxt: Position) {
        *self = Self { duplicates: 0, arrived: 0, recover: nxt };
    }
}
