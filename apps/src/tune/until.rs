//! The end of what is set for a while: a signal, or that of another process.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::poll::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use wirestack::nic::{Interface, LinkError};

use crate::error::AppError;

/// What to wait for.
#[derive(Debug)]
pub(super) struct Until {
    /// Gets a byte with each signal.
    signals: UnixStream,
    /// Readable once the process has ended.
    process: Option<OwnedFd>,
}

impl Until {
    /// From here on SIGINT and SIGTERM do not end this process any more, but [`wait`](Until::wait).
    pub(super) fn new(pid: Option<u32>) -> Result<Self, AppError> {
        let process = pid.map(|pid| open(pid).map_err(|error| AppError::flag("--for", pid, error)));
        let process = process.transpose()?;
        let (signals, writer) = UnixStream::pair().map_err(AppError::usage)?;
        for signal in [SIGINT, SIGTERM] {
            let writer = writer.try_clone().map_err(AppError::usage)?;
            pipe::register(signal, writer).map_err(AppError::usage)?;
        }
        Ok(Self { signals, process })
    }

    /// Sleeps until then, or until the interface is gone, which is an error.
    pub(super) fn wait(mut self, interface: &Interface) -> Result<(), AppError> {
        let descriptors = [Some(self.signals.as_fd()), self.process.as_ref().map(AsFd::as_fd)];
        let mut polled: Vec<_> = descriptors
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        loop {
            match poll(&mut polled, GONE_CHECK_MILLIS) {
                Ok(0) if is_gone(interface) => {
                    return Err(AppError::running(format_args!("{}: {}", interface.name, LinkError::Gone)));
                }
                Ok(0) => {}
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(AppError::running(errno)),
            }
        }
        if polled[0].any() == Some(true) {
            // The byte has done its work.
            let _ = self.signals.read(&mut [0; 8]);
        }
        Ok(())
    }
}

/// A descriptor of a process, which its number is not: that may be given to another one.
fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(Errno::ESRCH))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Looks for it by its number, since it may get another name.
fn is_gone(interface: &Interface) -> bool {
    // nix takes the null pointer of if_indextoname(3) for a success, and the name is empty then.
    if_indextoname(interface.index.unsigned_abs()).map_or(true, |name| name.is_empty())
}

/// How often the interface is looked for: no descriptor here tells that it is gone.
const GONE_CHECK_MILLIS: u16 = 500;
