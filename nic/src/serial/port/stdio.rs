//! A line that is our own stdin and stdout.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::{dup2_stdin, dup2_stdout};

use super::{Opening, Port};

/// Stdin and stdout, taken away from the rest of the program: what it prints goes to stderr from then on, and it reads
/// nothing.
#[derive(Debug)]
pub struct Stdio {
    open: Option<[End; 2]>,
}

/// One direction, without blocking for us, and without making it so for others that share the descriptor: the shell,
/// for one.
#[derive(Debug)]
enum End {
    File(File),
    Socket(OwnedFd),
}

impl Stdio {
    /// Takes both.
    ///
    /// # Errors
    /// One of them is closed, or cannot be opened once more.
    pub fn take() -> io::Result<Self> {
        let ends = [End::of(io::stdin().as_fd(), false)?, End::of(io::stdout().as_fd(), true)?];
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(io::stderr().as_fd())?;
        Ok(Self { open: Some(ends) })
    }

    fn ends(&self) -> io::Result<&[End; 2]> {
        self.open.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl End {
    fn of(fd: BorrowedFd<'_>, writes: bool) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let nonblocking = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = File::options().read(!writes).write(writes).custom_flags(nonblocking.bits()).open(path);
        match opened {
            Ok(file) => Ok(Self::File(file)),
            // A socket cannot be opened, and can be asked not to block each time.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                Ok(Self::Socket(fd.try_clone_to_owned()?))
            }
            Err(error) => Err(error),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
        }
    }
}

impl Port for Stdio {
    fn open(&mut self) -> io::Result<Opening> {
        self.ends().map(|_| Opening::Done)
    }

    fn close(&mut self) {
        self.open = None;
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &self.ends()?[0] {
            End::File(file) => Ok(nix::unistd::read(file, room)?),
            End::Socket(socket) => Ok(recv(socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.ends()?[1] {
            End::File(file) => Ok(nix::unistd::write(file, bytes)?),
            End::Socket(socket) => {
                Ok(send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
            }
        }
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        match &self.open {
            Some([input, output]) => [Some(input.as_fd()), Some(output.as_fd())],
            None => [None; 2],
        }
    }

    /// Whoever had the other ends is gone.
    fn comes_back(&self) -> bool {
        false
    }
}
