//! Where the bytes of a line go.

mod exec;
mod pty;
mod socket;
mod stdio;
mod tty;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

pub use exec::Exec;
pub use pty::Pty;
pub use socket::Socket;
pub use stdio::Stdio;
pub use tty::Tty;

/// Something that carries bytes both ways, and never blocks. It can be lost (unplugged, the peer has ended) and opened
/// again.
pub trait Port: fmt::Debug + Send {
    /// Opens it, or goes on with that: it is called again after a while, or when its descriptors are ready.
    ///
    /// # Errors
    /// It is not to be had now.
    fn open(&mut self) -> io::Result<Opening>;

    /// Gives it back. Nothing is done to one that is not open.
    fn close(&mut self);

    /// Reads what is there. None (`Ok(0)`): the other side has ended.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): nothing is there now. Others: it is lost.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize>;

    /// Writes what finds room.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): nothing does now. Others: it is lost.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Bytes that were written and have not left, if that is known.
    fn unsent(&self) -> Option<usize> {
        None
    }

    /// What is polled for bytes to read (or, while it opens, for progress), and what for room to write.
    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2];

    /// Whether it can be opened again once it was lost.
    fn comes_back(&self) -> bool {
        true
    }
}

/// What [`Port::open`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is open.
    Done,
    /// Somebody has to answer, or to come.
    InProgress,
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn open(&mut self) -> io::Result<Opening> {
        (**self).open()
    }

    fn close(&mut self) {
        (**self).close();
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        (**self).read(room)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (**self).write(bytes)
    }

    fn unsent(&self) -> Option<usize> {
        (**self).unsent()
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        (**self).descriptors()
    }

    fn comes_back(&self) -> bool {
        (**self).comes_back()
    }
}

#[cfg(test)]
mod tests;
