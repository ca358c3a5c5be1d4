//! What became of a frame. What comes from the wire is a verdict, never an error.

use crate::observe::DropReason;

/// What became of a received frame or packet. It is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It reached a socket, or a protocol of the stack that used it.
    Delivered,
    /// It was answered, and nobody else needed to see it.
    Replied,
    /// It is kept until more of it comes: a fragment.
    Held,
    /// It went to the mailbox of another shard.
    Forwarded,
    /// It was thrown away.
    Dropped(DropReason),
}

impl From<Result<(), DropReason>> for Verdict {
    fn from(result: Result<(), DropReason>) -> Self {
        result.map_or_else(Self::Dropped, |()| Self::Delivered)
    }
}
