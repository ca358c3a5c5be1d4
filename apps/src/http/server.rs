//! One connection on hyper: HTTP/1.1, and HTTP/2 where the peer begins with its preface, as it does after ALPN.
//!
//! ```text
//!   stream ──▶ Watched ──▶ hyper ──▶ Counted service ──▶ response
//!                 ╰─ marks ─▶ Activity ◀─ marks ─╯   looked at once in a tick
//! ```
//!
//! The requests of an HTTP/2 connection are futures within the future of the connection, not tasks of their own: no
//! runtime is needed, it is all the same which thread polls it, and a handler that panics ends its connection
//! and nothing else.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use super::activity::{Activity, Counted, TICK, Watched};

/// Something that waits: of tokio, or of a runtime on the thread of the stack.
pub trait Timer: Clone {
    /// Ends after the time.
    type Sleep: Future<Output = ()>;

    /// Waits so long.
    fn sleep(&self, time: Duration) -> Self::Sleep;
}

/// The timer of the tokio runtime in which it is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioTimer;

impl Timer for TokioTimer {
    type Sleep = tokio::time::Sleep;

    fn sleep(&self, time: Duration) -> Self::Sleep {
        tokio::time::sleep(time)
    }
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// In good order, by either side.
    Closed,
    /// It did nothing for too long.
    TimedOut,
    /// The stream has failed, or the peer speaks no HTTP.
    Failed,
    /// A handler has panicked.
    Panicked,
}

/// What a service, a body or hyper may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves one connection until it ends.
///
/// `stop`: once it is ready, requests in work are finished, no other is taken, and the connection closes. Whoever
/// does not want to wait for that drops the future. A connection without a request in work that sends
/// nothing for 30 seconds is closed, whatever comes on it; so is one whose peer takes nothing of a response, and sends
/// nothing, for 60. The head of a request is [`HEAD_BYTES_MAX`] long at most, and has
/// 100 fields.
///
/// The future is as `Send` as the stream, the timer and `stop` are. It needs no runtime but what those need.
pub async fn serve_connection<IO, S, B, T>(
    io: IO,
    peer: SocketAddr,
    service: S,
    timer: T,
    stop: impl Future<Output = ()>,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    T: Timer,
{
    let activity = Arc::new(Activity::default());
    let streams = Streams::default();
    let builder = builder(streams.clone());
    let io = TokioIo::new(Watched::new(io, Arc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(io, Counted::new(service, Arc::clone(&activity))));
    let mut stop = pin!(stop);
    let mut tick = pin!(timer.sleep(TICK));
    let mut requests = FuturesUnordered::new();
    let (mut is_stopping, mut is_over) = (false, false);
    let ended = std::future::poll_fn(|cx| {
        if !is_stopping && stop.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        while !is_over && tick.as_mut().poll(cx).is_ready() {
            is_over = activity.is_over();
            tick.set(timer.sleep(TICK));
        }
        if is_over {
            // What is said in good order is said in the poll that follows: the end, if nothing is under way.
            connection.as_mut().graceful_shutdown();
        }
        match caught(|| poll_all(connection.as_mut(), &streams, &mut requests, cx)) {
            Ok(Poll::Pending) if is_over => Poll::Ready(End::TimedOut),
            Ok(ended) => ended.map(|result| result.map_or_else(End::Failed, |()| End::Closed)),
            Err(what) => Poll::Ready(End::Panicked(what)),
        }
    });
    ended.await.report(peer, is_stopping || is_over)
}

/// Polls the connection, and the requests that it has begun.
fn poll_all<C: Future<Output = Result<(), BoxError>>>(
    mut connection: Pin<&mut C>,
    streams: &Streams,
    requests: &mut FuturesUnordered<Request2>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), BoxError>> {
    loop {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let begun = streams.take();
        let has_begun = !begun.is_empty();
        requests.extend(begun);
        while let Poll::Ready(Some(())) = requests.poll_next_unpin(cx) {}
        // What the new ones have to say is sent by the connection.
        if !has_begun {
            return Poll::Pending;
        }
    }
}

fn builder(streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        // Who has asked may end its side and wait for the answer.
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BYTES_MAX);
    builder
}

/// A request of an HTTP/2 connection, with the sending of its response.
type Request2 = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the requests of an HTTP/2 connection, in the place of an executor.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Vec<Request2>>>);

impl Streams {
    fn take(&self) -> Vec<Request2> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(request));
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

/// How it has ended, and why.
enum End {
    Closed,
    TimedOut,
    Failed(BoxError),
    Panicked(String),
}

impl End {
    fn report(self, peer: SocketAddr, was_told: bool) -> Ended {
        match self {
            Self::Closed => Ended::Closed,
            // A connection that was told to end before its first byte says so as an error.
            Self::Failed(_) if was_told => Ended::Closed,
            Self::Failed(error) => {
                log::debug!("{peer}: {}", Chain(&*error));
                Ended::Failed
            }
            Self::TimedOut => {
                log::debug!("{peer}: nothing happened for too long");
                Ended::TimedOut
            }
            Self::Panicked(what) => {
                log::error!(
                    "{peer}: the handler of a request has panicked; its connection is closed: {what}"
                );
                Ended::Panicked
            }
        }
    }
}

/// What is returned, or what was said by a panic. What has panicked is dropped by the caller, and not used again.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("no message").to_owned()
    })
}

/// An error with its causes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Bytes of the head of a request, at most.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at the same time on a connection of HTTP/2.
const STREAMS_MAX: u32 = 100;
/// Bytes of a response that wait for a window of HTTP/2, at most.
const SEND_BYTES_MAX: usize = 256 << 10;
