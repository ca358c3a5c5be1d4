//! What the programs know of a connection, whichever engine has it: bytes in, bytes out, and the end.
//!
//! A program's part of a connection is a [`Handler`]. It is called when there may be something to do, does what it
//! can with the [`Stream`] that it is lent, and returns; it never waits. That is all that `echo` and `http` are
//! written against, so they are the same on both engines.

use std::net::SocketAddr;

use smoltcp::time::Instant;
use wirestack::backend::smoltcp::Conn;

/// A connection, lent to its [`Handler`] for a call.
pub trait Stream {
    /// Now, on the clock of the engine.
    fn now(&self) -> Instant;

    /// Bytes that can be written now.
    fn room(&self) -> usize;

    /// Bytes that were written and that the peer has not acknowledged. It may cost something; not for every call.
    fn unacknowledged(&self) -> usize;

    /// Lends a piece of what has come, in order, to `read`, which says how much of it is done with; the rest is
    /// lent again. Returns what `read` did. `None`: nothing has come, and `read` was not called.
    fn recv_with(&mut self, read: &mut dyn FnMut(&[u8]) -> usize) -> Option<usize>;

    /// Lends room of the send buffer to `write`, which says how much of it is written. Returns what `write` did.
    /// `None`: there is no room, and `write` was not called; the handler is called again when there is.
    fn send_with(&mut self, write: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize>;

    /// Writes as much of `bytes` as there is room for, and returns how much. If that is not all, the handler is
    /// called again when there is room.
    fn send(&mut self, bytes: &[u8]) -> usize;

    /// Whether nothing more will come: the peer has finished and everything was read, or the connection was lost.
    fn peer_finished(&self) -> bool;

    /// Finishes our side: what was written is still sent, then a FIN. Reading goes on.
    fn finish(&mut self);

    /// Ends the connection with a RST.
    fn abort(&mut self);
}

/// A program's part of one connection.
pub trait Handler {
    /// Called when the connection is there, and then whenever there may be something to do: bytes came, there is
    /// room after there was none, the peer has finished or was lost, the deadline has come.
    fn ready(&mut self, stream: &mut dyn Stream);

    /// When the handler wants to be called even if nothing happens; asked after every call of
    /// [`ready`](Self::ready).
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// A port, and who serves the connections to it.
pub struct Listening {
    /// On all addresses of the stack.
    pub port: u16,
    /// Makes the handler of a connection, told the peer's end.
    pub accept: Box<dyn FnMut(SocketAddr) -> Box<dyn Handler>>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Stream for Conn<'_, '_> {
    fn now(&self) -> Instant {
        Conn::now(self)
    }

    fn room(&self) -> usize {
        Conn::room(self)
    }

    fn unacknowledged(&self) -> usize {
        Conn::unacknowledged(self)
    }

    fn recv_with(&mut self, read: &mut dyn FnMut(&[u8]) -> usize) -> Option<usize> {
        Conn::recv_with(self, |bytes| {
            let len = read(bytes).min(bytes.len());
            (len, len)
        })
    }

    fn send_with(&mut self, write: &mut dyn FnMut(&mut [u8]) -> usize) -> Option<usize> {
        Conn::send_with(self, |room| {
            let len = write(room).min(room.len());
            (len, len)
        })
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        Conn::send(self, bytes)
    }

    fn peer_finished(&self) -> bool {
        Conn::peer_finished(self)
    }

    fn finish(&mut self) {
        Conn::close(self);
    }

    fn abort(&mut self) {
        Conn::abort(self);
    }
}

/// A [`Handler`] as one of smoltcp's host.
#[derive(Debug)]
pub struct OnSmoltcp<H>(pub H);

impl<H: Handler> wirestack::backend::smoltcp::Handler for OnSmoltcp<H> {
    fn ready(&mut self, conn: &mut Conn<'_, '_>) {
        self.0.ready(conn);
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }
}

impl<H: Handler + ?Sized> Handler for Box<H> {
    fn ready(&mut self, stream: &mut dyn Stream) {
        (**self).ready(stream);
    }

    fn deadline(&self) -> Option<Instant> {
        (**self).deadline()
    }
}
