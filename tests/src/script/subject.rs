//! Who is tested.

use std::fmt;

use smoltcp::time::{Duration, Instant};

use super::call::{Call, CallResult};

/// The kinds of subjects that a script can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// Linux, in real time.
    Kernel,
    /// A shard of wirestack, in virtual time.
    Shard,
}

impl SubjectKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Shard];
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Shard => "shard",
        })
    }
}

/// A TCP/IP stack with one interface, made for the [`Setup`](super::Setup) of a script. Its clock is 0 when
/// the script begins. A failure that is not an answer to the script is a line of text.
pub trait Subject {
    /// Which one it is.
    fn kind(&self) -> SubjectKind;

    /// The time now.
    fn now(&self) -> Instant;

    /// Hands a frame over, now.
    ///
    /// # Errors
    /// The frame could not be handed over.
    fn inject(&mut self, frame: &[u8]) -> Result<(), String>;

    /// Lets time pass until the subject has sent a frame, or it is `deadline`. `None`: it is.
    ///
    /// # Errors
    /// The wire is broken.
    fn poll_frame(&mut self, deadline: Instant) -> Result<Option<(Instant, Vec<u8>)>, String>;

    /// Does a socket call. `recv` waits up to [`patience`](Subject::patience) if a datagram is `wanted`.
    ///
    /// # Errors
    /// The call cannot be made: an unknown socket, or one that does not know the option.
    fn call(&mut self, call: &Call, wanted: &CallResult) -> Result<CallResult, String>;

    /// How long an answer without a time may take. In virtual time there is no need to wait: 0.
    fn patience(&self) -> Duration;

    /// How long after its time a frame may come; before it, a fifth of that. In virtual time: 0.
    fn tolerance(&self) -> Duration;

    /// For how long at least it is watched where nothing may come.
    fn quiet(&self) -> Duration;
}
