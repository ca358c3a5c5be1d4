//! The time of frames: when each of a file is due. Reads no clock; `now` is an argument.

use std::fmt;
use std::io::{Read, Seek};
use std::str::FromStr;

use smoltcp::phy::Medium;
use smoltcp::time::Instant;

use super::file::{CaptureFile, FileStats, ReplayError};

/// How fast a file is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// With the pauses that it has.
    Original,
    /// With pauses that are this many times shorter; above 0.
    Scaled(f64),
    /// Without pauses.
    Fast,
}

/// A text that is no [`Speed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("original, fast, or a factor above 0 is accepted, as in 0.5 or 10")]
pub struct SpeedError;

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        match text {
            "original" => Ok(Self::Original),
            "fast" => Ok(Self::Fast),
            _ => {
                let factor: f64 = text.parse().map_err(|_| SpeedError)?;
                if factor.is_finite() && factor > 0.0 { Ok(Self::Scaled(factor)) } else { Err(SpeedError) }
            }
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original => f.write_str("original"),
            Self::Scaled(factor) => write!(f, "{factor}"),
            Self::Fast => f.write_str("fast"),
        }
    }
}

/// A file that is played. It begins with the first call that has a `now`.
#[derive(Debug)]
pub struct Player<R> {
    file: CaptureFile<R>,
    speed: Speed,
    loops_left: u32,
    /// When the current loop began, and the time in the file of its first frame.
    origin: Option<(Instant, u64)>,
    /// When the last frame was due.
    last_due: Instant,
    state: State,
    error: Option<ReplayError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The file is to be advanced.
    Between,
    /// The file's record waits until it is due.
    Waiting(Instant),
    /// There is none left.
    Ended,
}

impl<R: Read + Seek> Player<R> {
    /// Plays a file `loops` times; one loop begins when the last frame of the one before was due.
    pub fn new(file: CaptureFile<R>, speed: Speed, loops: u32) -> Self {
        let state = if loops == 0 { State::Ended } else { State::Between };
        Self { file, speed, loops_left: loops, origin: None, last_due: Instant::ZERO, state, error: None }
    }

    /// Kind of the frames.
    pub fn medium(&self) -> Medium {
        self.file.medium()
    }

    /// What was met in the file so far.
    pub fn stats(&self) -> FileStats {
        self.file.stats()
    }

    /// What ended the replay early, if anything did.
    pub fn error(&self) -> Option<&ReplayError> {
        self.error.as_ref()
    }

    /// When the next frame is due, which may have passed. `None`: there is none left.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        if self.state == State::Between {
            self.state = match self.find() {
                Ok(true) => State::Waiting(self.schedule(now)),
                Ok(false) => State::Ended,
                Err(error) => {
                    self.error = Some(error);
                    State::Ended
                }
            };
        }
        match self.state {
            State::Waiting(due) => Some(due),
            State::Between | State::Ended => None,
        }
    }

    /// The next frame, if it is due.
    pub fn peek(&mut self, now: Instant) -> Option<&[u8]> {
        if self.due(now)? > now { None } else { Some(self.file.record().frame) }
    }

    /// Goes past the frame that [`peek`](Self::peek) gave.
    pub fn advance(&mut self) {
        if let State::Waiting(due) = self.state {
            self.last_due = due;
            self.state = State::Between;
        }
    }

    /// Finds the next record, in the next loop if need be. A file without frames ends at once.
    fn find(&mut self) -> Result<bool, ReplayError> {
        if self.file.advance()? {
            return Ok(true);
        }
        self.loops_left = self.loops_left.saturating_sub(1);
        if self.loops_left == 0 || self.origin.is_none() {
            return Ok(false);
        }
        self.file.rewind()?;
        self.origin = None;
        self.file.advance()
    }

    fn schedule(&mut self, now: Instant) -> Instant {
        let nanos = self.file.record().nanos;
        let begin = if self.last_due == Instant::ZERO { now } else { self.last_due };
        let (begin, first) = *self.origin.get_or_insert((begin, nanos));
        // A file may have frames in another order than that of their times.
        let elapsed = nanos.saturating_sub(first) / 1000;
        let elapsed = match self.speed {
            Speed::Original => elapsed,
            // Saturates.
            Speed::Scaled(factor) => (elapsed as f64 / factor) as u64,
            Speed::Fast => 0,
        };
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let due = begin.total_micros().saturating_add(elapsed).min(FOREVER_MICROS);
        Instant::from_micros(due).max(self.last_due)
    }
}

/// A time that does not come, and to which something can be added.
const FOREVER_MICROS: i64 = i64::MAX / 2;
