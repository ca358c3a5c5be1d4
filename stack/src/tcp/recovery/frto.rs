//! F-RTO: was a retransmission timeout spurious (RFC 5682)?
//!
//! After the timeout one segment is sent again. If the ACK for it does not cover all, the next thing sent is new data,
//! and the ACK after that tells: does it cover what was never sent again, then the first sending arrived. It is for
//! connections without timestamps, which can tell at once.

use crate::tcp::sack::Position;

/// Where the algorithm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tcp) enum Frto {
    /// It is not at work.
    Off,
    /// Step 1 is done: the first segment was sent again, its ACK has not come.
    First,
    /// Step 2b: new data is to go, up to this number.
    NewData(Position),
    /// New data has gone; the next ACK decides.
    Second,
}

/// What an ACK has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tcp) enum FrtoVerdict {
    /// Nothing.
    Open,
    /// The timeout was spurious.
    Spurious,
}

impl Frto {
    /// An ACK has come. `advanced`: `snd_una` has moved; `covers_all`: up to where data was sent when the timer expired;
    /// `original`: it tells of data that was sent once and before the timeout; `nxt` and `mss`: for new data.
    pub(in crate::tcp) fn on_ack(
        &mut self,
        advanced: bool,
        covers_all: bool,
        original: bool,
        nxt: Position,
        mss: u32,
    ) -> FrtoVerdict {
        match *self {
            Self::Off => {}
            Self::First if advanced && !covers_all => *self = Self::NewData(nxt + 2 * u64::from(mss)),
            // Duplicates and SACK alone decide nothing while the first segment is under way.
            Self::First if !advanced => {}
            Self::First => *self = Self::Off,
            // Step 3b of RFC 5682 section 3.1: what was sent once, and before the timeout, has arrived.
            Self::NewData(_) | Self::Second if original => {
                *self = Self::Off;
                return FrtoVerdict::Spurious;
            }
            Self::NewData(_) | Self::Second => *self = Self::Off,
        }
        FrtoVerdict::Open
    }

    /// New data was sent, up to here.
    pub(in crate::tcp) fn on_sent(&mut self, nxt: Position) {
        if let Self::NewData(until) = *self
            && nxt >= until
        {
            *self = Self::Second;
        }
    }

    /// There is no new data, or the peer takes none: what is lost is repeated.
    pub(in crate::tcp) fn on_no_new_data(&mut self) {
        if let Self::NewData(_) = self {
            *self = Self::Off;
        }
    }

    /// Whether nothing is to be repeated now.
    pub(in crate::tcp) fn holds_back(&self) -> bool {
        matches!(self, Self::NewData(_) | Self::Second)
    }
}
