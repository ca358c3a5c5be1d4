//! What a connection has done of late: the measure by which one that does nothing is given up.
//!
//! Nothing here reads a clock: marks are set as things happen, and looked at once in a [`TICK`]. A connection with no
//! request in work is quiet while nothing is sent on it, whatever comes: so a request whose header fields drip in,
//! a handshake that does not end and a connection that is only held all count the same. One with a request in work
//! is quiet while bytes move in neither direction.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The marks. All are set and read by the tasks of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose responses are not given to the connection as a whole.
    in_work: AtomicU32,
    /// Since the last look: something was received.
    received: AtomicBool,
    /// Since the last look: something was sent, or a request has begun.
    moved: AtomicBool,
    /// Looks in a row at which nothing had happened.
    quiet: AtomicU32,
}

impl Activity {
    /// Called once in a [`TICK`]: whether the connection is to be given up.
    pub(super) fn is_over(&self) -> bool {
        let is_in_work = self.in_work.load(Ordering::Relaxed) > 0;
        let received = self.received.swap(false, Ordering::Relaxed);
        let moved = self.moved.swap(false, Ordering::Relaxed);
        if moved || (received && is_in_work) {
            self.quiet.store(0, Ordering::Relaxed);
            return false;
        }
        let limit = if is_in_work { QUIET_IN_WORK_MAX } else { QUIET_MAX };
        self.quiet.fetch_add(1, Ordering::Relaxed) + 1 >= limit
    }
}

/// A stream that leaves marks.
#[derive(Debug)]
pub(super) struct Watched<IO> {
    io: IO,
    activity: Arc<Activity>,
}

impl<IO> Watched<IO> {
    pub(super) fn new(io: IO, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }

    fn sent(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(sent, Poll::Ready(Ok(len)) if len > 0) {
            self.activity.moved.store(true, Ordering::Relaxed);
        }
        sent
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// A service whose requests are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> Counted<S> {
    pub(super) fn new(service: S, activity: Arc<Activity>) -> Self {
        Self { service, activity }
    }
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let work = Work::begin(&self.activity);
        CountedFuture { future: self.service.call(request), work: Some(work) }
    }
}

/// A request in work, until this is dropped.
#[derive(Debug)]
struct Work(Arc<Activity>);

impl Work {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.in_work.fetch_add(1, Ordering::Relaxed);
        activity.moved.store(true, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// The future of a [`Counted`] service.
    #[derive(Debug)]
    pub(super) struct CountedFuture<F> {
        #[pin]
        future: F,
        work: Option<Work>,
    }
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        let work = this.work.take();
        Poll::Ready(answer.map(|response| response.map(|body| CountedBody { body, _work: work })))
    }
}

pin_project! {
    /// The body of a response of a [`Counted`] service.
    #[derive(Debug)]
    pub(super) struct CountedBody<B> {
        #[pin]
        body: B,
        _work: Option<Work>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How often a connection is looked at.
pub(super) const TICK: Duration = Duration::from_secs(10);
/// Quiet looks after which one without a request is given up: 30 seconds, up to a tick more if it did something.
const QUIET_MAX: u32 = 3;
/// The same with a request in work: a minute, in which the peer takes nothing of its response.
const QUIET_IN_WORK_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_nothing_is_given_up() {
        let looks = |activity: &Activity| (1..).find(|_| activity.is_over()).expect("some time");
        let activity = Arc::new(Activity::default());
        assert_eq!(looks(&activity), QUIET_MAX);
        let activity = Arc::new(Activity::default());
        let work = Work::begin(&activity);
        assert_eq!(looks(&activity), QUIET_IN_WORK_MAX + 1, "the request itself was something");
        drop(work);
        assert!(activity.is_over(), "so long was nothing sent");
    }

    #[test]
    fn what_is_received_counts_while_a_request_is_in_work() {
        let activity = Arc::new(Activity::default());
        let over_after = |looks: u32| {
            (0..looks).any(|_| {
                activity.received.store(true, Ordering::Relaxed);
                activity.is_over()
            })
        };
        assert!(over_after(QUIET_MAX), "header fields that drip in");
        let _work = Work::begin(&activity);
        assert!(!over_after(100));
    }
}
