//! How many queues an interface has on.

use std::io;
use std::os::fd::AsFd;

use super::Control;
use crate::sys::ethtool as sys;

/// Queues of an interface, as `ethtool -l` prints them. A combined queue is one of each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Queues for frames that come in, that are on.
    pub rx: u32,
    /// Queues for frames that go out, that are on.
    pub tx: u32,
    /// Queues for both, that are on.
    pub combined: u32,
    /// Queues for frames that come in, that could be on.
    pub rx_max: u32,
    /// Queues for frames that go out, that could be on.
    pub tx_max: u32,
    /// Queues for both, that could be on.
    pub combined_max: u32,
}

/// Asks how many queues an interface has on, and could have.
///
/// # Errors
/// EOPNOTSUPP: the driver does not tell. ENODEV: no such interface here.
pub fn channels(interface: &str) -> io::Result<Channels> {
    let control = Control::open(interface)?;
    let found = sys::channels(control.socket.as_fd(), control.interface)?;
    Ok(Channels {
        rx: found.rx,
        tx: found.tx,
        combined: found.combined,
        rx_max: found.rx_max,
        tx_max: found.tx_max,
        combined_max: found.combined_max,
    })
}
