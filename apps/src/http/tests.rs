//! The server on hyper with clients of hyper and by hand, over pipes in memory.

mod connections;
mod files;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::service::Service;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::server::{Ended, Timer, serve_connection};
use super::service::{SiteConfig, SiteService, service};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5_000);

fn built_in() -> SiteService {
    let status = Arc::new(|| {
        serde_json::json!({
            "counters": {"rx_frames": 7},
            "connections": [{"local": "192.0.2.7:80", "remote": "192.0.2.1:5000", "state": "ESTABLISHED"}],
        })
    });
    service(&SiteConfig::default(), Some(status)).expect("there is nothing to be wrong")
}

/// A clock that a test moves.
#[derive(Debug, Clone)]
struct Clock(watch::Sender<Duration>);

impl Clock {
    fn new() -> Self {
        Self(watch::Sender::new(Duration::ZERO))
    }

    /// Moves it in steps of a second, and lets everybody do what is then to be done.
    async fn advance(&self, seconds: u64) {
        for _ in 0..seconds {
            self.0.send_modify(|now| *now += Duration::from_secs(1));
            settle().await;
        }
    }
}

impl Timer for Clock {
    type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn sleep(&self, time: Duration) -> Self::Sleep {
        let mut now = self.0.subscribe();
        let end = *now.borrow() + time;
        Box::pin(async move { drop(now.wait_for(|now| *now >= end).await) })
    }
}

/// Lets the other tasks of this thread run until they have nothing more to do; none of these tests needs as many turns.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Serves one end of a pipe, which holds so many bytes; gives the other.
fn serve<S, B>(
    service: S,
    clock: &Clock,
    stop: &watch::Sender<bool>,
    pipe_len: usize,
) -> (DuplexStream, JoinHandle<Ended>)
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<super::server::BoxError> + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<super::server::BoxError>,
{
    let (ours, theirs) = tokio::io::duplex(pipe_len);
    let (clock, mut stop) = (clock.clone(), stop.subscribe());
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    (theirs, tokio::spawn(serve_connection(ours, PEER, service, clock, stopped)))
}

/// The same with a clock that stands still and no end.
fn served(service: SiteService) -> (DuplexStream, JoinHandle<Ended>) {
    let stop = watch::Sender::new(false);
    let served = serve(service, &Clock::new(), &stop, 64 << 10);
    // Kept, because a sender that is gone is a stop.
    std::mem::forget(stop);
    served
}

/// Status, header fields and body of what is answered.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    async fn of<B>(response: Response<B>) -> Self
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
        Self { status: parts.status, headers: parts.headers, body }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let mut builder = Request::builder().method(method).uri(target).header("host", "h");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(Empty::new()).expect("a request")
}

/// Asks a site without a connection.
async fn ask(site: &SiteService, method: &str, target: &str, fields: &[(&str, &str)]) -> Got {
    let Ok(response) = site.call(request(method, target, fields)).await;
    Got::of(response).await
}
