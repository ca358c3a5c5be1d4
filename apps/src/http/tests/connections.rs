use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::server::{Ended, TokioTimer, serve_connection};
use super::super::service::{SiteConfig, service};
use super::{Clock, Got, PEER, built_in, request, serve, served, settle};
use crate::http::response::pattern_byte;

async fn http2(stream: DuplexStream) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    sender
}

async fn http1(stream: DuplexStream) -> hyper::client::conn::http1::SendRequest<Empty<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

/// Sends this, finishes our side, and gives everything that comes back.
async fn say(stream: &mut DuplexStream, bytes: &[u8]) -> String {
    // It may be answered, and closed, before it has said everything.
    if stream.write_all(bytes).await.is_ok() {
        stream.shutdown().await.expect("finished");
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_queue_and_who_has_finished_is_answered() {
    let (mut stream, ended) = served(built_in());
    for piece in ["GET /bytes/3 HTTP/1.1\r\nHo", "st: h\r\n\r\nHEAD /bytes/5 HTTP/1.1\r\nHost: h\r\n\r\nGET "]
    {
        stream.write_all(piece.as_bytes()).await.expect("sent");
        settle().await;
    }
    let text = say(&mut stream, b"/plain HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{text}");
    assert!(text.contains("content-length: 3\r\n") && text.contains("\r\n\r\n\u{0}\u{1}\u{2}HTTP"), "{text}");
    assert!(text.contains("content-length: 5\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nHello, world\n"), "{text}");
    assert_eq!(ended.await.expect("no panic"), Ended::Closed);
    // Very many at once are answered as they are read.
    let (mut stream, _) = served(built_in());
    let requests = "GET /bytes/1 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5_000);
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let mut answer = Vec::new();
    let write = async {
        writer.write_all(requests.as_bytes()).await?;
        writer.shutdown().await
    };
    let (wrote, read) = tokio::join!(write, reader.read_to_end(&mut answer));
    wrote.and(read).expect("both");
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200 OK\r\n").count(), 5_000);
}

#[tokio::test]
async fn strangers_are_answered_or_closed() {
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (request, answer) in [
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 "),
        ("GET /none HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 "),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 "),
        ("GET http://h/plain HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 "),
        ("GET /plain HTTP/1.0\r\n\r\n", "HTTP/1.0 200 "),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nHost: [fd00::7]:80\r\n\r\n", "HTTP/1.1 200 "),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "HTTP/1.1 200 "),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405 "),
        ("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405 "),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}", "HTTP/1.1 400 "),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "HTTP/1.1 "),
        (&long, "HTTP/1.1 431 "),
        (&many, "HTTP/1.1 431 "),
        ("GET / HT", ""),
        ("PRI * HT", ""),
        ("", ""),
    ] {
        let (mut stream, ended) = served(built_in());
        let got = say(&mut stream, request.as_bytes()).await;
        assert!(got.starts_with(answer), "{request:.60?}: {got}");
        assert_eq!(got.is_empty(), answer.is_empty(), "{request:.60?}: {got}");
        assert_ne!(ended.await.expect("no panic"), Ended::Panicked);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let (stream, ended) = served(built_in());
    let mut sender = http2(stream).await;
    let requests: Vec<_> = [0_u64, 1, 13, 300_000, 3_000_000]
        .map(|len| (len, sender.send_request(request("GET", &format!("http://h/bytes/{len}"), &[]))))
        .into_iter()
        .collect();
    let head = sender.send_request(request("HEAD", "http://h/bytes/77", &[]));
    for (len, response) in requests {
        let got = Got::of(response.await.expect("a response")).await;
        assert!(got.body.iter().copied().eq((0..len).map(pattern_byte)), "{len}: {}", got.body.len());
    }
    let got = Got::of(head.await.expect("a response")).await;
    assert_eq!((got.header("content-length"), got.body.len()), ("77", 0));
    drop(sender);
    assert_eq!(ended.await.expect("no panic"), Ended::Closed);
}

#[tokio::test]
async fn over_sockets_of_the_kernel() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client =
        tokio::net::TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    let (server, peer) = listener.accept().await.expect("accepted");
    tokio::spawn(serve_connection(server, peer, built_in(), TokioTimer, std::future::pending()));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("a connection");
    tokio::spawn(connection);
    let response = sender.send_request(request("GET", "/bytes/5000000", &[])).await.expect("a response");
    let got = Got::of(response).await;
    assert!(got.body.iter().copied().eq((0..5_000_000).map(pattern_byte)));
}

/// A body that panics at its second frame.
struct Panics(bool);

impl Body for Panics {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        assert!(!self.0, "a body that panics on purpose");
        self.0 = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

async fn panics_if_asked(request: http::Request<Incoming>) -> io::Result<http::Response<BoxBody>> {
    assert_ne!(request.uri().path(), "/panic", "a handler that panics on purpose");
    let body = match request.uri().path() {
        "/body" => Panics(false).boxed_unsync(),
        "/wait" => return std::future::pending().await,
        _ => Full::from("fine").map_err(|never| match never {}).boxed_unsync(),
    };
    Ok(http::Response::new(body))
}

fn serve_panics() -> (DuplexStream, JoinHandle<Ended>) {
    let stop = watch::Sender::new(false);
    let served = serve(service_fn(panics_if_asked), &Clock::new(), &stop, 64 << 10);
    std::mem::forget(stop);
    served
}

#[tokio::test]
async fn a_panic_closes_its_connection_and_nothing_else() {
    let (other, _) = serve_panics();
    let mut other = http1(other).await;
    for path in ["/panic", "/body"] {
        let (stream, ended) = serve_panics();
        let mut sender = http1(stream).await;
        assert!(sender.send_request(request("GET", "/", &[])).await.is_ok());
        let response = sender.send_request(request("GET", path, &[])).await;
        assert!(match response {
            Err(_) => true,
            Ok(response) => response.collect().await.is_err(),
        });
        assert_eq!(ended.await.expect("caught"), Ended::Panicked, "{path}");

        let (stream, ended) = serve_panics();
        let mut sender = http2(stream).await;
        let waiting = sender.send_request(request("GET", "http://h/wait", &[]));
        let response = sender.send_request(request("GET", &format!("http://h{path}"), &[])).await;
        assert!(match response {
            Err(_) => true,
            Ok(response) => response.collect().await.is_err(),
        });
        assert_eq!(ended.await.expect("caught"), Ended::Panicked, "{path}");
        assert!(waiting.await.is_err(), "it was on the same connection");

        let response = other.send_request(request("GET", "/", &[])).await.expect("another connection");
        assert_eq!(Got::of(response).await.text(), "fine");
    }
}

#[tokio::test]
async fn who_asks_for_nothing_is_closed_after_30_seconds() {
    for (first, drip) in [
        ("", ""),
        ("", "P"),
        ("GET / HTTP/1.1\r\nHost: h\r\n", "x: y\r\n"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ] {
        let (clock, stop) = (Clock::new(), watch::Sender::new(false));
        let (mut stream, ended) = serve(built_in(), &clock, &stop, 1 << 20);
        stream.write_all(first.as_bytes()).await.expect("sent");
        settle().await;
        for second in 0..29 {
            assert!(!ended.is_finished(), "{first:?} at {second}");
            stream.write_all(drip.as_bytes()).await.expect("still open");
            clock.advance(1).await;
        }
        assert!(!ended.is_finished(), "{first:?}");
        // What we have said to it counts, but once.
        clock.advance(11).await;
        assert!(ended.is_finished(), "{first:?} {drip:?}");
        assert_ne!(ended.await.expect("no panic"), Ended::Panicked);
    }
}

#[tokio::test]
async fn one_that_is_kept_open_is_closed_in_good_order() {
    let (clock, stop) = (Clock::new(), watch::Sender::new(false));
    for is_http2 in [false, true] {
        let (stream, ended) = serve(built_in(), &clock, &stop, 64 << 10);
        let response = if is_http2 {
            let mut sender = http2(stream).await;
            sender.send_request(request("GET", "http://h/plain", &[])).await
        } else {
            http1(stream).await.send_request(request("GET", "/plain", &[])).await
        };
        assert_eq!(Got::of(response.expect("a response")).await.body.len(), 13);
        clock.advance(45).await;
        assert!(ended.is_finished(), "HTTP/2: {is_http2}");
        assert_eq!(ended.await.expect("no panic"), Ended::Closed);
    }
}

#[tokio::test]
async fn who_takes_nothing_is_closed_after_a_minute_and_who_takes_a_little_is_not() {
    for takes in [false, true] {
        let (clock, stop) = (Clock::new(), watch::Sender::new(false));
        let (mut stream, ended) = serve(built_in(), &clock, &stop, 1_000);
        stream.write_all(b"GET /bytes/100000000 HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
        settle().await;
        for _ in 0..59 {
            clock.advance(1).await;
            if takes {
                let mut bytes = [0; 10];
                stream.read_exact(&mut bytes).await.expect("some of it");
            }
        }
        assert!(!ended.is_finished());
        clock.advance(11).await;
        assert_eq!(ended.is_finished(), !takes);
        if !takes {
            assert_eq!(ended.await.expect("no panic"), Ended::TimedOut);
        }
    }
}

#[tokio::test]
async fn a_stop_lets_requests_end() {
    for is_http2 in [false, true] {
        let (clock, stop) = (Clock::new(), watch::Sender::new(false));
        let (idle, idle_ended) = serve(built_in(), &clock, &stop, 64 << 10);
        let (stream, ended) = serve(built_in(), &clock, &stop, 1_000);
        let response = if is_http2 {
            http2(stream).await.send_request(request("GET", "http://h/bytes/100000", &[])).await
        } else {
            http1(stream).await.send_request(request("GET", "/bytes/100000", &[])).await
        };
        let response = response.expect("a head");
        settle().await;
        stop.send_replace(true);
        settle().await;
        assert_eq!(idle_ended.await.expect("no panic"), Ended::Closed);
        drop(idle);
        assert_eq!(Got::of(response).await.body.len(), 100_000);
        assert_eq!(ended.await.expect("no panic"), Ended::Closed, "HTTP/2: {is_http2}");
    }
}

/// A stream that may not leave its thread.
struct Local(DuplexStream, PhantomData<Rc<()>>);

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Local {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least of all runtimes.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn no_runtime_is_needed_and_no_other_thread() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes: Vec<u8> = (0..500_000).map(pattern_byte).collect();
    std::fs::write(dir.path().join("file"), &bytes).expect("written");
    let site = service(&SiteConfig { dir: Some(dir.path().to_owned()) }, None).expect("a directory");
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let io = Local(ours, PhantomData);
    let served = serve_connection(io, PEER, site, Clock::new(), std::future::pending());
    let answer = Cell::new(String::new());
    let client = async {
        theirs.write_all(b"GET /file HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
        theirs.shutdown().await.expect("finished");
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.expect("an end");
        assert!(got.ends_with(&bytes), "{} bytes", got.len());
        answer.set(String::from_utf8_lossy(&got[..15]).into_owned());
    };
    let (ended, ()) = block_on(futures_util::future::join(served, client));
    assert_eq!((ended, answer.take().as_str()), (Ended::Closed, "HTTP/1.1 200 OK"));
}
