//! What a terminal still has to send: ioctl_tty(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// Bytes in the output queue of a terminal (TIOCOUTQ).
///
/// # Errors
/// ENOTTY: it is none. EIO: it has hung up.
pub(crate) fn unsent(tty: BorrowedFd<'_>) -> io::Result<usize> {
    let mut len: libc::c_int = 0;
    // SAFETY: the descriptor is open, for it is borrowed; TIOCOUTQ writes one int through the pointer, which is to a
    // local variable of that type and lives longer than the call.
    checked(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCOUTQ, &raw mut len) })?;
    Ok(usize::try_from(len).unwrap_or(0))
}
