//! A connection.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::park::{self, Manners};
use crate::api::{self, Shared, Stack, ToEndpoint, installed};

/// As `std::net::TcpStream`. The connection is closed when its last clone is dropped.
pub struct TcpStream {
    shared: Arc<Socket>,
}

struct Socket {
    stream: api::TcpStream<Shared>,
    manners: Manners,
}

impl Drop for Socket {
    /// As close(2): with a time to linger, until the peer has everything.
    fn drop(&mut self) {
        let lingers = self.stream.linger().ok().flatten().filter(|time| !time.is_zero());
        if let Some(time) = lingers
            && self.stream.finish_before_close()
        {
            park::wait(park::after(time), |context| self.stream.poll_all_acked(context));
        }
    }
}

impl TcpStream {
    /// Connects on the installed stack.
    ///
    /// # Errors
    /// Why the last address that was tried failed: [`ConnectionRefused`](io::ErrorKind::ConnectionRefused),
    /// [`TimedOut`](io::ErrorKind::TimedOut), [`HostUnreachable`](io::ErrorKind::HostUnreachable), …; why there is no
    /// address; no stack is installed ([`NotConnected`](io::ErrorKind::NotConnected)).
    pub fn connect(endpoint: impl ToEndpoint) -> io::Result<Self> {
        Self::connect_on(&installed()?, endpoint)
    }

    /// Connects on this stack.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_on(stack: &Stack<Shared>, endpoint: impl ToEndpoint) -> io::Result<Self> {
        park::block_on_for_ever(stack.connect_to(endpoint)).map(Self::from)
    }

    /// Connects on the installed stack, and gives up after `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), with [`TimedOut`](io::ErrorKind::TimedOut) after that time;
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): it is zero.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::connect_timeout_on(&installed()?, address, timeout)
    }

    /// The same on this stack.
    ///
    /// # Errors
    /// As [`connect_timeout`](Self::connect_timeout).
    pub fn connect_timeout_on(
        stack: &Stack<Shared>,
        address: &SocketAddr,
        timeout: Duration,
    ) -> io::Result<Self> {
        if timeout.is_zero() {
            let problem = "a timeout of zero: more than that is accepted";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let connected = park::block_on(park::after(timeout), stack.connect(*address));
        connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())).map(Self::from)
    }

    /// The other end.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.shared.stream.peer_addr()
    }

    /// Our end.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.stream.local_addr()
    }

    /// Ends one direction, or both.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shared.stream.shutdown_now(how)
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: Arc::clone(&self.shared) })
    }

    /// How long reading may wait. `None`: as long as it takes.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.manners.read_timeout().set(timeout)
    }

    /// How long writing may wait. `None`: as long as it takes.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.manners.write_timeout().set(timeout)
    }

    /// How long reading may wait.
    ///
    /// # Errors
    /// None.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.manners.read_timeout().get())
    }

    /// How long writing may wait.
    ///
    /// # Errors
    /// None.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.manners.write_timeout().get())
    }

    /// Copies what has come, and leaves it there.
    ///
    /// # Errors
    /// As reading.
    pub fn peek(&self, room: &mut [u8]) -> io::Result<usize> {
        let Socket { stream, manners } = &*self.shared;
        manners.wait(manners.read_deadline(), |context| stream.poll_peek(context, room))
    }

    /// What dropping the last handle does with data that is not acknowledged yet. `None`: it goes on in the background;
    /// zero: it is thrown away, with a reset; a time: dropping waits until it is acknowledged, for at most as long.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.shared.stream.set_linger(linger)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.shared.stream.linger()
    }

    /// Whether small segments leave at once (TCP_NODELAY).
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.shared.stream.set_nodelay(nodelay)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.shared.stream.nodelay()
    }

    /// TTL or hop limit, 1 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.shared.stream.set_ttl(ttl)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn ttl(&self) -> io::Result<u32> {
        self.shared.stream.ttl()
    }

    /// An error that waits, told once.
    ///
    /// # Errors
    /// None.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.shared.stream.take_error()
    }

    /// Whether reading and writing do not wait.
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.manners.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The same connection for tasks, with what std's has not.
    pub fn as_async(&self) -> &api::TcpStream<Shared> {
        &self.shared.stream
    }

    /// Writes with `first`; then, as send(2) does, `rest` goes on until all of `len` bytes are taken or it cannot.
    fn write_all_of(
        &self,
        len: usize,
        mut first: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
        mut rest: impl FnMut(&mut Context<'_>, usize) -> Poll<usize>,
    ) -> io::Result<usize> {
        let manners = &self.shared.manners;
        let deadline = manners.write_deadline();
        let mut sent = manners.wait(deadline, &mut first)?;
        while sent < len && !manners.is_nonblocking() {
            // What is wrong is told by the next call: of this one, something was taken.
            match park::wait(deadline, |context| rest(context, sent)) {
                Some(more) if more > 0 => sent += more,
                _ => break,
            }
        }
        Ok(sent)
    }
}

impl From<api::TcpStream<Shared>> for TcpStream {
    fn from(stream: api::TcpStream<Shared>) -> Self {
        Self { shared: Arc::new(Socket { stream, manners: Manners::default() }) }
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.stream.fmt(f)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        let Socket { stream, manners } = &*self.shared;
        manners.wait(manners.read_deadline(), |context| stream.poll_recv(context, room))
    }

    fn read_vectored(&mut self, rooms: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if rooms.iter().all(|room| room.is_empty()) {
            return Ok(0);
        }
        let Socket { stream, manners } = &*self.shared;
        manners.wait(manners.read_deadline(), |context| stream.poll_recv_vectored(context, rooms))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let stream = &self.shared.stream;
        self.write_all_of(
            data.len(),
            |context| stream.poll_send(context, data),
            |context, sent| stream.poll_send_rest(context, &data[sent..]),
        )
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = &self.shared.stream;
        self.write_all_of(
            pieces.iter().map(|piece| piece.len()).sum(),
            |context| stream.poll_send_vectored(context, pieces),
            |context, sent| stream.poll_send_rest(context, piece_behind(pieces, sent)),
        )
    }

    /// What was written leaves by itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is left, behind so many bytes, of the piece in which they end.
fn piece_behind<'a>(pieces: &'a [IoSlice<'_>], mut sent: usize) -> &'a [u8] {
    for piece in pieces {
        match piece.get(sent..) {
            Some(rest) if !rest.is_empty() => return rest,
            _ => sent -= piece.len(),
        }
    }
    &[]
}

impl Read for TcpStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        (&*self).read(room)
    }

    fn read_vectored(&mut self, rooms: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(rooms)
    }
}

impl Write for TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
