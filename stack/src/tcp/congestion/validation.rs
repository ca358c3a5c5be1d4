//! Congestion window validation (RFC 7661): a window that was not used for long says nothing of the path.

use smoltcp::time::{Duration, Instant};

/// Follows how much of the window is used.
#[derive(Debug, Clone, Copy)]
pub struct Validation {}

impl Validation {
    /// Nothing was sent yet.
    pub fn new(_now: Instant) -> Self {
        todo!("helper congestion")
    }
}

/// helper congestion
pub fn _unused(_: Duration) {}
