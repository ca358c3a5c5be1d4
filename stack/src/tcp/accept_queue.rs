//! What a listener holds: connections that wait to be accepted.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::config::TcpOptions;

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Where.
    pub local: SocketAddr,
    /// Manners of what it accepts.
    pub options: TcpOptions,
    /// Connections that wait, at most (as on Linux, one more fits).
    pub backlog: usize,
    /// What finds no room is reset, not left to be tried again (tcp_abort_on_overflow of Linux).
    pub resets_on_overflow: bool,
    /// Half-open connections of this listener.
    pub half_open: usize,
    waiting: VecDeque<u32>,
}

impl Listener {
    /// Nobody waits.
    pub fn new(local: SocketAddr, options: TcpOptions, backlog: usize, resets_on_overflow: bool) -> Self {
        Self { local, options, backlog, resets_on_overflow, half_open: 0, waiting: VecDeque::new() }
    }

    /// Whether as many wait as may: one more than the backlog, as on Linux.
    pub fn is_full(&self) -> bool {
        self.waiting.len() > self.backlog
    }

    /// Whether it has as many half-open connections as it may: as many as its backlog, at least 8, as a listener
    /// whose accept queue is that long could take at once.
    pub fn is_half_open_full(&self) -> bool {
        self.half_open > self.backlog.max(8)
    }

    /// A connection waits.
    pub fn push(&mut self, connection: u32) {
        self.waiting.push_back(connection);
    }

    /// The one that has waited longest.
    pub fn pop(&mut self) -> Option<u32> {
        self.waiting.pop_front()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// One that waited is no more.
    pub fn forget(&mut self, connection: u32) {
        self.waiting.retain(|&waiting| waiting != connection);
    }
}
