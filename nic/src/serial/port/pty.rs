//! A terminal of our own making, for a program that wants one at its end.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::{Opening, Port};

/// The upper end of a pseudo-terminal; a link with a name of the user's choice leads to the lower one.
#[derive(Debug)]
pub struct Pty {
    link: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    upper: PtyMaster,
    /// Kept open: while nobody has the lower end, reading the upper one is an error.
    _lower: File,
    /// Where the link leads.
    name: String,
}

impl Pty {
    /// A terminal that is not there yet, and the name that its link will have.
    pub fn new(link: &Path) -> Self {
        Self { link: link.to_owned(), open: None }
    }

    /// Makes the link. What is there is replaced if it leads to a terminal, as that of a program that was killed.
    fn link_to(&self, name: &str) -> io::Result<()> {
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.link.display()));
        match fs::read_link(&self.link) {
            Ok(target) if target.starts_with("/dev/pts") => fs::remove_file(&self.link).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) | Err(_) => {
                let text = format!(
                    "{}: there is something else; a name that is free is accepted",
                    self.link.display()
                );
                return Err(io::Error::new(ErrorKind::AlreadyExists, text));
            }
        }
        symlink(name, &self.link).map_err(failed)
    }

    fn upper(&self) -> io::Result<&PtyMaster> {
        self.open.as_ref().map(|open| &open.upper).ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl Port for Pty {
    fn open(&mut self) -> io::Result<Opening> {
        let upper = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        grantpt(&upper)?;
        unlockpt(&upper)?;
        let name = ptsname_r(&upper)?;
        let noctty = OFlag::O_NOCTTY.bits();
        let lower = File::options().read(true).write(true).custom_flags(noctty).open(&name)?;
        let mut termios = tcgetattr(&lower)?;
        termios.make_raw();
        tcsetattr(&lower, OptionalActions::Now, &termios)?;
        self.link_to(&name)?;
        self.open = Some(Open { upper, _lower: lower, name });
        Ok(Opening::Done)
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Somebody else's link is left alone.
        if fs::read_link(&self.link).is_ok_and(|target| target == Path::new(&open.name)) {
            let _ = fs::remove_file(&self.link);
        }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(self.upper()?, room)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.upper()?, bytes)?)
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let fd = || self.upper().ok().map(AsFd::as_fd);
        [fd(), fd()]
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.close();
    }
}
