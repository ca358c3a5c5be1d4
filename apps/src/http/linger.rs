//! The end of a connection, so that the peer gets all of the last response.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::select;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wirestack::api::{Access, TcpStream};

use super::server::Timer;

/// A connection for hyper, which drops it when it is done with it, and for us, who are not.
pub(super) struct Kept<A: Access>(Arc<TcpStream<A>>);

impl<A: Access> Kept<A> {
    pub(super) fn new(stream: TcpStream<A>) -> Self {
        Self(Arc::new(stream))
    }

    pub(super) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Closes in stages, as RFC 9112 section 9.6 has it: we have finished, and what still comes is read and thrown away until
    /// the peer has finished as well, for a moment. If it were dropped now, what comes would be answered by a reset, and the
    /// peer might lose what it has not read.
    pub(super) async fn linger(self, timer: &impl Timer) {
        if self.0.shutdown_now(Shutdown::Write).is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let drained = std::future::poll_fn(|context| {
            let mut room = [0; 4_096];
            loop {
                match ready!(self.0.poll_recv(context, &mut room)) {
                    Ok(len) if len > 0 && len < left => left -= len,
                    _ => return Poll::Ready(()),
                }
            }
        });
        select(pin!(drained), pin!(timer.sleep(LINGER))).await;
    }
}

impl<A: Access> AsyncRead for Kept<A> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if room.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let len = ready!(self.0.poll_recv(context, room.initialize_unfilled()))?;
        room.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<A: Access> AsyncWrite for Kept<A> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(context, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who has gone already needs not be told.
        let _ = self.0.shutdown_now(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// How long a peer may take to finish after we have.
const LINGER: Duration = Duration::from_secs(2);
/// What it may send meanwhile.
const LINGER_BYTES_MAX: usize = 1 << 20;
