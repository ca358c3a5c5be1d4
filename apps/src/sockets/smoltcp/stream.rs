//! A connection as tokio's `AsyncRead` and `AsyncWrite`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::host::Host;

/// A connection. Dropped, it is closed as std does it.
pub struct Stream {
    host: Rc<RefCell<Host>>,
    handle: SocketHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.host.borrow_mut().close(self.handle);
    }
}

impl Stream {
    pub(super) fn new(host: &Rc<RefCell<Host>>, handle: SocketHandle) -> Self {
        Self { host: Rc::clone(host), handle }
    }

    pub(super) fn handle(&self) -> SocketHandle {
        self.handle
    }

    fn with<R>(&self, f: impl FnOnce(&mut tcp::Socket<'static>) -> R) -> R {
        f(self.host.borrow_mut().tcp(self.handle))
    }

    /// Waits for the end of the handshake.
    pub(super) async fn connected(&self) -> io::Result<()> {
        poll_fn(|context| {
            self.with(|socket| match socket.state() {
                State::SynSent | State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                // smoltcp does not tell a refusal from a silence that was too long.
                State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
                _ => Poll::Ready(Ok(())),
            })
        })
        .await
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if socket.can_recv() {
                // As far as it lies in one piece.
                let _ = socket.recv(|bytes| {
                    let len = bytes.len().min(room.remaining());
                    room.put_slice(&bytes[..len]);
                    (len, ())
                });
                return Poll::Ready(Ok(()));
            }
            if socket.may_recv() {
                socket.register_recv_waker(context.waker());
                return Poll::Pending;
            }
            match socket.peek(1) {
                Err(tcp::RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ => Poll::Ready(Ok(())),
            }
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|socket| match socket.send_slice(data) {
            Ok(0) if !data.is_empty() => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(len) => Poll::Ready(Ok(len)),
            Err(tcp::SendError::InvalidState) if socket.state() == State::Closed => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Err(tcp::SendError::InvalidState) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        })
    }

    /// What was written leaves by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.close());
        Poll::Ready(Ok(()))
    }
}
