//! A connection: tokio's `AsyncRead` and `AsyncWrite`, and what std's `TcpStream` has beside.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use smoltcp::time::Duration;

use super::listener::hop_limit_of;
use super::{Access, Hub, Interest, Stack};
use crate::shard::{SocketId, TcpConnect};
use crate::tcp::config::Linger;
use crate::tcp::{Failure, Nagle, RecvError, SendError, TcpInfo, TcpOptions};

/// A connection. Dropping it closes it as std does: what was written is still sent (but see
/// [`set_linger`](Self::set_linger)), and what has come and was not read makes it a reset.
///
/// All methods take `&self`, so that an `Arc` of it can be read and written by several tasks; reading and writing through
/// `AsyncRead` and `AsyncWrite` are cancel-safe: what was not returned was not taken.
pub struct TcpStream<A: Access> {
    handle: Arc<Handle<A>>,
}

/// A connection of a shard. It is closed when this is dropped.
pub(crate) struct Handle<A: Access> {
    access: A,
    id: SocketId,
    local: SocketAddr,
    peer: SocketAddr,
}

impl<A: Access> Drop for Handle<A> {
    fn drop(&mut self) {
        self.access.with(|hub| hub.close(self.id));
    }
}

impl<A: Access> Handle<A> {
    fn with<R>(&self, f: impl FnOnce(&mut Hub, SocketId) -> R) -> R {
        self.access.with(|hub| f(hub, self.id))
    }

    /// Lets `f` read. What std says of a failure is said once; after that, as after a FIN, there is nothing more to come.
    fn poll_read_with<R>(
        &self,
        context: &mut Context<'_>,
        end: R,
        f: impl FnOnce(&mut Hub, SocketId) -> Result<Option<R>, RecvError>,
    ) -> Poll<io::Result<R>> {
        self.with(|hub, id| match f(hub, id) {
            Ok(Some(read)) => Poll::Ready(Ok(read)),
            Ok(None) if hub.has_stopped_reading(id) => Poll::Ready(Ok(end)),
            Ok(None) => match hub.fault() {
                Some(fault) => Poll::Ready(Err(fault.into())),
                None => {
                    hub.wait_for(id, Interest::Read, context.waker());
                    Poll::Pending
                }
            },
            Err(RecvError::Failed(_)) if hub.shard_ref().tcp_readiness(id).peer_finished => {
                Poll::Ready(Ok(end))
            }
            Err(RecvError::Failed(_)) if hub.tell_failure(id) => Poll::Ready(Ok(end)),
            Err(error) => {
                // A stack that ends has reset what was left.
                let is_reset = error == RecvError::Failed(Failure::Aborted);
                let fault = hub.fault().filter(|_| is_reset).map(io::Error::from);
                Poll::Ready(Err(fault.or_else(|| hub.failure(id)).unwrap_or_else(|| error.into())))
            }
        })
    }

    fn poll_read(&self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(context, 0, |hub, id| hub.shard().tcp_recv(id, room))
    }

    /// Lets `f` write; 0 means that there was no room.
    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        f: impl FnOnce(&mut Hub, SocketId) -> Result<usize, SendError>,
    ) -> Poll<io::Result<usize>> {
        self.with(|hub, id| {
            if let Some(fault) = hub.fault() {
                return Poll::Ready(Err(fault.into()));
            }
            match f(hub, id) {
                Ok(0) => {
                    hub.wait_for(id, Interest::Write, context.waker());
                    Poll::Pending
                }
                Ok(len) => Poll::Ready(Ok(len)),
                Err(SendError::Failed(_)) if hub.tell_failure(id) => {
                    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
                }
                Err(error) => Poll::Ready(Err(hub.failure(id).unwrap_or_else(|| error.into()))),
            }
        })
    }

    fn poll_write(&self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_write_with(context, |hub, id| hub.shard().tcp_send(id, data))
    }

    fn poll_write_vectored(
        &self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_write_with(context, |hub, id| {
            let mut sent = 0;
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                match hub.shard().tcp_send(id, piece) {
                    Ok(len) => sent += len,
                    Err(error) if sent == 0 => return Err(error),
                    Err(_) => break,
                }
                if hub.shard_ref().tcp_room(id) == 0 {
                    break;
                }
            }
            Ok(sent)
        })
    }
}

impl<A: Access> TcpStream<A> {
    pub(crate) fn of(access: A, id: SocketId, local: SocketAddr, peer: SocketAddr) -> Self {
        Self { handle: Arc::new(Handle { access, id, local, peer }) }
    }

    /// Connects through one of the shards; each gets its turn.
    pub(crate) fn open(
        stack: &Stack<A>,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: Option<TcpOptions>,
    ) -> impl Future<Output = io::Result<Self>> + use<A> {
        let shard = stack.next_shard().clone();
        async move {
            let stream = shard.with(|hub| {
                if let Some(fault) = hub.fault() {
                    return Err(io::Error::from(fault));
                }
                let options = options.unwrap_or_else(|| hub.shard_ref().tcp_default_options());
                let id = hub.shard().tcp_connect(TcpConnect { remote, local, options })?;
                Ok((id, hub.shard_ref().tcp_ends(id).map_or(remote, |(local, _)| local)))
            });
            let (id, local) = stream?;
            // From here on, giving up the attempt closes it.
            let stream = Self::of(shard, id, local, remote);
            poll_fn(|context| stream.poll_connected(context)).await?;
            Ok(stream)
        }
    }

    fn poll_connected(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.with(|hub, id| {
            if let Some(failure) = hub.failure(id) {
                hub.tell_failure(id);
                return Poll::Ready(Err(failure));
            }
            if hub.shard_ref().tcp_readiness(id).connected {
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = hub.fault() {
                return Poll::Ready(Err(fault.into()));
            }
            hub.wait_for(id, Interest::Write, context.waker());
            Poll::Pending
        })
    }

    /// Our end.
    ///
    /// # Errors
    /// None; it is one for the sake of std's signature.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.handle.local)
    }

    /// The other end.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let is_closed = self.handle.with(|hub, id| hub.shard_ref().tcp_readiness(id).closed);
        if is_closed { Err(io::ErrorKind::NotConnected.into()) } else { Ok(self.handle.peer) }
    }

    /// Copies what has come and leaves it there.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_peek(&self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.handle.poll_read_with(context, 0, |hub, id| hub.shard().tcp_peek(id, room))
    }

    /// The same, waiting for something.
    ///
    /// # Errors
    /// As reading.
    pub async fn peek(&self, room: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_peek(context, room)).await
    }

    /// Copies what has come; 0: the peer has finished. As `AsyncRead`, with `&self`.
    ///
    /// # Errors
    /// Once, why the connection is no more.
    pub fn poll_recv(&self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.handle.poll_read(context, room)
    }

    /// Copies what has come into several pieces of room.
    ///
    /// # Errors
    /// As [`poll_recv`](Self::poll_recv).
    pub fn poll_recv_vectored(
        &self,
        context: &mut Context<'_>,
        rooms: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.handle.poll_read_with(context, 0, |hub, id| {
            let mut len = 0;
            for room in rooms.iter_mut().filter(|room| !room.is_empty()) {
                match hub.shard().tcp_recv(id, room) {
                    Ok(Some(more)) => {
                        len += more;
                        if more < room.len() {
                            break;
                        }
                    }
                    // What was taken is told now, and the rest the next time.
                    _ if len > 0 => break,
                    nothing => return nothing,
                }
            }
            Ok(Some(len))
        })
    }

    /// Writes what there is room for. As `AsyncWrite`, with `&self`.
    ///
    /// # Errors
    /// This end has finished, or the connection is no more.
    pub fn poll_send(&self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.handle.poll_write(context, data)
    }

    /// The same of several pieces.
    ///
    /// # Errors
    /// As [`poll_send`](Self::poll_send).
    pub fn poll_send_vectored(
        &self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.handle.poll_write_vectored(context, pieces)
    }

    /// The same for who has told that he has written something: 0 is that no more can be, and why stays to be told.
    pub(crate) fn poll_send_rest(&self, context: &mut Context<'_>, data: &[u8]) -> Poll<usize> {
        self.handle.with(|hub, id| {
            if hub.fault().is_some() || data.is_empty() {
                return Poll::Ready(0);
            }
            match hub.shard().tcp_send(id, data) {
                Ok(0) => {
                    hub.wait_for(id, Interest::Write, context.waker());
                    Poll::Pending
                }
                sent => Poll::Ready(sent.unwrap_or(0)),
            }
        })
    }

    /// Finishes sending if closing would do so, too. False: it would reset the connection, or there is none.
    pub(crate) fn finish_before_close(&self) -> bool {
        self.handle.with(|hub, id| {
            let is_to_finish =
                hub.shard_ref().tcp_readable(id) == 0 && !hub.shard_ref().tcp_readiness(id).closed;
            if is_to_finish {
                hub.finish(id);
            }
            is_to_finish
        })
    }

    /// Waits until the peer has everything, our FIN included, or the connection is no more.
    pub(crate) fn poll_all_acked(&self, context: &mut Context<'_>) -> Poll<()> {
        self.handle.with(|hub, id| {
            if hub.fault().is_some() || hub.shard_ref().is_all_acked(id) {
                return Poll::Ready(());
            }
            hub.wait_for(id, Interest::Write, context.waker());
            Poll::Pending
        })
    }

    /// Lends a piece of what has come, where it lies, to `f`, which says how much of it is done with; it is empty at the end
    /// of what the peer sends. Nothing is copied. `f` must not use a socket of the same stack.
    ///
    /// # Errors
    /// As reading.
    pub async fn recv_with<R>(&self, f: impl FnOnce(&[u8]) -> (usize, R)) -> io::Result<R> {
        let mut f = Some(f);
        poll_fn(|context| {
            let read = ready!(self.handle.poll_read_with(context, None, |hub, id| {
                if hub.shard_ref().tcp_readable(id) == 0 {
                    // There is nothing to be lent; but there may be an end, or a failure.
                    return Ok(hub.shard().tcp_recv(id, &mut [])?.map(|_| None));
                }
                let Some(f) = f.take() else { return Ok(None) };
                Ok(hub.shard().tcp_recv_with(id, f)?.map(Some))
            }))?;
            let read = read.or_else(|| f.take().map(|f| f(&[]).1));
            Poll::Ready(read.ok_or_else(|| io::ErrorKind::NotConnected.into()))
        })
        .await
    }

    /// Lends room of the send buffer to `f`, which says how much of it is written. Nothing is copied. `f` must not use a
    /// socket of the same stack.
    ///
    /// # Errors
    /// As writing.
    pub async fn send_with(&self, f: impl FnOnce(&mut [u8]) -> usize) -> io::Result<usize> {
        let mut f = Some(f);
        poll_fn(|context| {
            let mut written = None;
            let sent = self.handle.poll_write_with(context, |hub, id| {
                let result = hub.shard().tcp_send_with(id, |room| {
                    let len = f.take().map_or(0, |f| f(room).min(room.len()));
                    written = Some(len);
                    len
                });
                // Who writes nothing into the room that there is does not wait for more.
                result.map(|len| if written.is_some() { len.max(1) } else { 0 })
            });
            sent.map_ok(|_| written.unwrap_or(0))
        })
        .await
    }

    /// Ends one direction, or both, as std does.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more, be it that both ends have finished.
    pub fn shutdown_now(&self, how: Shutdown) -> io::Result<()> {
        self.handle.with(|hub, id| {
            if hub.shard_ref().tcp_readiness(id).closed {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if how != Shutdown::Read {
                hub.finish(id);
            }
            if how != Shutdown::Write {
                hub.stop_reading(id);
            }
            hub.wake(id);
            Ok(())
        })
    }

    /// Finishes sending; of a connection that is no more, there is nothing to be finished. As tokio's.
    fn finish(&self) -> io::Result<()> {
        match self.shutdown_now(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Ends the connection at once, with a reset.
    pub fn abort(&self) {
        self.handle.with(|hub, id| {
            hub.shard().tcp_abort(id);
            hub.wake(id);
        });
    }

    /// What the connection knows of itself and of its path. `None`: it is no more.
    pub fn info(&self) -> Option<TcpInfo> {
        self.handle.with(|hub, id| hub.shard_ref().tcp_info(id))
    }

    /// Its manners.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn options(&self) -> io::Result<TcpOptions> {
        let options = self.handle.with(|hub, id| hub.shard_ref().tcp_options(id));
        options.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Changes them.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn change_options(&self, change: impl FnOnce(&mut TcpOptions)) -> io::Result<()> {
        self.handle.with(|hub, id| {
            let mut options = hub.shard_ref().tcp_options(id).ok_or(io::ErrorKind::NotConnected)?;
            change(&mut options);
            hub.shard().tcp_set_options(id, options);
            Ok(())
        })
    }

    /// Whether small segments leave at once (TCP_NODELAY).
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.change_options(|options| {
            options.nagle = if nodelay { Nagle::Off } else { Nagle::default() };
        })
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.options()?.nagle == Nagle::Off)
    }

    /// What dropping does with data that is not acknowledged yet (SO_LINGER). Dropping this handle never blocks: what is
    /// left after this time is thrown away, and the peer is told by a reset. (std's close waits for that time, and so does
    /// the [blocking](super::blocking::TcpStream) form.)
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn set_linger(&self, linger: Option<std::time::Duration>) -> io::Result<()> {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let linger =
            linger.map_or(Linger::Background, |time| Linger::For(Duration::from_micros(micros(time))));
        self.change_options(|options| options.linger = linger)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn linger(&self) -> io::Result<Option<std::time::Duration>> {
        Ok(match self.options()?.linger {
            Linger::Background => None,
            Linger::For(time) => Some(time.into()),
        })
    }

    /// TTL or hop limit, 1 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value; [`NotConnected`](io::ErrorKind::NotConnected).
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let hop_limit = hop_limit_of(ttl)?;
        self.change_options(|options| options.hop_limit = Some(hop_limit))
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the connection is no more.
    pub fn ttl(&self) -> io::Result<u32> {
        self.handle.with(|hub, id| {
            let options = hub.shard_ref().tcp_options(id).ok_or(io::ErrorKind::NotConnected)?;
            Ok(options.hop_limit.unwrap_or(hub.shard_ref().hop_limit()).into())
        })
    }

    /// An error that waits, told once (SO_ERROR).
    ///
    /// # Errors
    /// None; it is one for the sake of std's signature.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.handle.with(|hub, id| match hub.failure(id) {
            Some(failure) if !hub.tell_failure(id) => Some(failure),
            Some(_) => None,
            None => hub.shard().tcp_take_soft_error(id).map(Into::into),
        }))
    }

    /// Another handle of the same connection, which is closed when the last of them is dropped.
    pub fn share(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }

    /// Two halves for two tasks. Dropping the writing one finishes sending.
    pub fn into_split(self) -> (OwnedReadHalf<A>, OwnedWriteHalf<A>) {
        let writer = self.share();
        (OwnedReadHalf { stream: self }, OwnedWriteHalf { stream: writer })
    }
}

impl<A: Access> fmt::Debug for TcpStream<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle { local, peer, .. } = &*self.handle;
        f.debug_struct("TcpStream").field("local", local).field("peer", peer).finish_non_exhaustive()
    }
}

impl<A: Access> AsyncRead for TcpStream<A> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if room.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // Piece by piece: a room that nobody has written to yet need not be filled with zeros first.
        self.handle.poll_read_with(context, (), |hub, id| {
            let mut has_read = false;
            while room.remaining() > 0 && hub.shard_ref().tcp_readable(id) > 0 {
                let read = hub.shard().tcp_recv_with(id, |piece| {
                    let len = piece.len().min(room.remaining());
                    room.put_slice(&piece[..len]);
                    (len, len)
                });
                if !matches!(read, Ok(Some(1..))) {
                    break;
                }
                has_read = true;
            }
            // There is nothing to be read; but there may be an end, or a failure.
            if has_read { Ok(Some(())) } else { Ok(hub.shard().tcp_recv(id, &mut [])?.map(drop)) }
        })
    }
}

impl<A: Access> AsyncWrite for TcpStream<A> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.handle.poll_write(context, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.handle.poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written leaves by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}

/// The reading half of a connection: [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf<A: Access> {
    stream: TcpStream<A>,
}

impl<A: Access> AsyncRead for OwnedReadHalf<A> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, room)
    }
}

impl<A: Access> AsRef<TcpStream<A>> for OwnedReadHalf<A> {
    fn as_ref(&self) -> &TcpStream<A> {
        &self.stream
    }
}

/// The writing half of a connection: [`TcpStream::into_split`]. Dropping it finishes sending.
#[derive(Debug)]
pub struct OwnedWriteHalf<A: Access> {
    stream: TcpStream<A>,
}

impl<A: Access> AsRef<TcpStream<A>> for OwnedWriteHalf<A> {
    fn as_ref(&self) -> &TcpStream<A> {
        &self.stream
    }
}

impl<A: Access> Drop for OwnedWriteHalf<A> {
    fn drop(&mut self) {
        // There is nobody to tell that the connection was lost.
        let _ = self.stream.shutdown_now(Shutdown::Write);
    }
}

impl<A: Access> AsyncWrite for OwnedWriteHalf<A> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(feature = "futures-io")]
mod futures_io_impls {
    use super::*;

    impl<A: Access> futures_io::AsyncRead for TcpStream<A> {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            room: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            if room.is_empty() {
                return Poll::Ready(Ok(0));
            }
            self.handle.poll_read(context, room)
        }
    }

    impl<A: Access> futures_io::AsyncWrite for TcpStream<A> {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.handle.poll_write(context, data)
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.handle.poll_write_vectored(context, pieces)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(self.finish())
        }
    }
}
