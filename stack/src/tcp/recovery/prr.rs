//! Proportional Rate Reduction (RFC 6937, as revised by RFC 9937).
//!
//! During fast recovery the window goes down to `ssthresh` in the measure in which data arrives. It counts in bytes,
//! so an ACK that stands for many counts as all of them.

/// State of one fast recovery.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::tcp) struct Prr {
    /// Bytes that arrived in recovery.
    delivered: u64,
    /// Bytes sent in recovery.
    out: u64,
    /// RecoverFS: bytes in flight when it began.
    flight: u32,
    /// What may be in flight now.
    window: u32,
}

/// What an ACK tells PRR. In bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::tcp) struct PrrAck {
    /// DeliveredData.
    pub(in crate::tcp) delivered: u32,
    /// pipe.
    pub(in crate::tcp) in_flight: u32,
    /// Where the window goes.
    pub(in crate::tcp) ssthresh: u32,
    /// SafeACK: `snd_una` has moved, and no further loss was found.
    pub(in crate::tcp) is_safe: bool,
    /// SMSS.
    pub(in crate::tcp) mss: u32,
}

impl Prr {
    /// Recovery begins with `flight` bytes outstanding and not sacked before the ACK that begins it.
    pub(in crate::tcp) fn new(flight: u32) -> Self {
        Self { flight: flight.max(1), ..Self::default() }
    }

    /// What may be in flight.
    pub(in crate::tcp) fn window(&self) -> u32 {
        self.window
    }

    /// Something was sent.
    pub(in crate::tcp) fn on_sent(&mut self, bytes: u32) {
        self.out += u64::from(bytes);
    }

    /// An ACK has come, the one that begins recovery included.
    pub(in crate::tcp) fn on_ack(&mut self, ack: &PrrAck) {
        if ack.delivered == 0 && self.window != 0 {
            return;
        }
        self.delivered += u64::from(ack.delivered);
        let count = if ack.in_flight > ack.ssthresh {
            let share = u128::from(self.delivered) * u128::from(ack.ssthresh);
            let share = share.div_ceil(u128::from(self.flight));
            u64::try_from(share).unwrap_or(u64::MAX).saturating_sub(self.out)
        } else {
            // Conservative reduction bound; with a segment more where the repair goes well (slow-start reduction
            // bound).
            let mut count = self.delivered.saturating_sub(self.out).max(u64::from(ack.delivered));
            if ack.is_safe {
                count += u64::from(ack.mss);
            }
            count.min(u64::from(ack.ssthresh - ack.in_flight))
        };
        // The first repetition goes at once.
        let count = if self.out == 0 { count.max(u64::from(ack.mss)) } else { count };
        self.window = u32::try_from(u64::from(ack.in_flight) + count).unwrap_or(u32::MAX);
    }

    /// A timer has found losses, not an ACK: one segment may go, for there may be nothing in flight that brings an ACK.
    pub(in crate::tcp) fn on_timer(&mut self, in_flight: u32, mss: u32) {
        // What was allowed is used up or not; what was found lost is no longer in flight and lets nothing go.
        self.window = in_flight.saturating_add(mss);
    }
}
