//! A line that is a socket: of a terminal server, an emulator, another program on this host.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{SocketError, TcpNoDelay};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, connect,
    getsockopt, recv, send, setsockopt, socket,
};

use super::{Opening, Port};

/// A stream socket to somebody, or from somebody.
#[derive(Debug)]
pub struct Socket {
    place: Place,
    /// Waits for somebody instead of asking.
    listens: bool,
    listener: Option<Listener>,
    stream: Option<OwnedFd>,
    is_connecting: bool,
    /// Which of several addresses is next; as many as there are: all were asked.
    turn: usize,
}

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    Tcp { name: String, addresses: Vec<SocketAddr> },
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Socket {
    /// A Unix socket of this name: asked, or, with `listens`, made.
    pub fn unix(path: &Path, listens: bool) -> Self {
        Self::at(Place::Unix(path.to_owned()), listens)
    }

    /// TCP to HOST:PORT of the kernel's, or from anybody to an address of this host. The name is looked up here.
    ///
    /// # Errors
    /// The name is not known.
    pub fn tcp(name: &str, listens: bool) -> io::Result<Self> {
        let addresses: Vec<_> = name
            .to_socket_addrs()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("tcp:{name}: {error}; HOST:PORT is accepted"))
            })?
            .collect();
        Ok(Self::at(Place::Tcp { name: name.to_owned(), addresses }, listens))
    }

    fn at(place: Place, listens: bool) -> Self {
        Self { place, listens, listener: None, stream: None, is_connecting: false, turn: 0 }
    }

    fn stream(&self) -> io::Result<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn said(&self, error: &io::Error) -> io::Error {
        let text = match &self.place {
            Place::Unix(path) => format!("unix:{}: {error}", path.display()),
            Place::Tcp { name, .. } => format!("tcp:{name}: {error}"),
        };
        io::Error::new(error.kind(), text)
    }

    /// Asks one address after the other, until one does not say no.
    fn ask_each(&mut self) -> io::Result<Opening> {
        let addresses_len = match &self.place {
            Place::Unix(_) => 1,
            Place::Tcp { addresses, .. } => addresses.len(),
        };
        if !self.is_connecting {
            self.turn = 0;
        } else {
            match self.look() {
                Err(_) if self.turn < addresses_len => {}
                looked => return looked,
            }
        }
        loop {
            match self.ask() {
                Err(_) if self.turn < addresses_len => {}
                asked => return asked,
            }
        }
    }

    /// Asks the next address, without waiting for the answer.
    fn ask(&mut self) -> io::Result<Opening> {
        let turn = self.turn;
        self.turn += 1;
        let (family, address): (_, Box<dyn SockaddrLike>) = match &self.place {
            Place::Unix(path) => (AddressFamily::Unix, Box::new(UnixAddr::new(path)?)),
            Place::Tcp { addresses, .. } => {
                let address = addresses.get(turn).ok_or(ErrorKind::AddrNotAvailable)?;
                let address = SockaddrStorage::from(*address);
                (address.family().unwrap_or(AddressFamily::Inet), Box::new(address))
            }
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = socket(family, SockType::Stream, flags, None)?;
        match connect(stream.as_raw_fd(), &*address) {
            Ok(()) => {
                self.stream = Some(stream);
                Ok(self.opened())
            }
            Err(Errno::EINPROGRESS) => {
                self.stream = Some(stream);
                self.is_connecting = true;
                Ok(Opening::InProgress)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody has answered.
    fn look(&mut self) -> io::Result<Opening> {
        let stream = self.stream.as_ref().ok_or(ErrorKind::NotConnected)?;
        let error = getsockopt(stream, SocketError)?;
        if error != 0 {
            self.close_stream();
            return Err(io::Error::from_raw_os_error(error));
        }
        if nix::sys::socket::getpeername::<SockaddrStorage>(stream.as_raw_fd()).is_err() {
            return Ok(Opening::InProgress);
        }
        self.is_connecting = false;
        Ok(self.opened())
    }

    /// A packet leaves when it is written: what a key stroke waits for would be the delay of somebody's ACK.
    fn opened(&self) -> Opening {
        if let (Place::Tcp { .. }, Some(stream)) = (&self.place, &self.stream) {
            let _ = setsockopt(stream, TcpNoDelay, &true);
        }
        Opening::Done
    }

    /// Whether somebody has come.
    fn await_somebody(&mut self) -> io::Result<Opening> {
        let listener = match &self.listener {
            Some(listener) => listener,
            None => self.listener.insert(listen(&self.place)?),
        };
        match listener.accept() {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(self.opened())
            }
            Err(error) if is_nobody(&error) => Ok(Opening::InProgress),
            Err(error) => Err(error),
        }
    }

    fn close_stream(&mut self) {
        self.stream = None;
        self.is_connecting = false;
    }
}

impl Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
        }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
}

fn listen(place: &Place) -> io::Result<Listener> {
    match place {
        Place::Unix(path) => {
            // A socket without anybody behind it is what a program leaves that was killed.
            let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
            let is_refused =
                || UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            // At a plain file, the answer is the same.
            if is_socket && is_refused() {
                fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Unix(listener))
        }
        Place::Tcp { addresses, .. } => {
            let listener = TcpListener::bind(addresses.as_slice())?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(listener))
        }
    }
}

impl Port for Socket {
    fn open(&mut self) -> io::Result<Opening> {
        let opened = if self.listens { self.await_somebody() } else { self.ask_each() };
        opened.map_err(|error| self.said(&error))
    }

    fn close(&mut self) {
        self.close_stream();
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.stream()?.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.stream()?.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        match (&self.stream, &self.listener) {
            (Some(stream), _) => [Some(stream.as_fd()); 2],
            (None, Some(listener)) => [Some(listener.as_fd()), None],
            (None, None) => [None; 2],
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Place::Unix(path), Some(_)) = (&self.place, &self.listener) {
            let _ = fs::remove_file(path);
        }
    }
}
