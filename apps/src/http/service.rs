//! The site as a service of hyper: which path is answered with what.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Body;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::body::SiteBody;
use super::files::{Asked, Files};
use super::reply;
use super::site::{BYTES_MAX, PLAIN, WELCOME};
use super::status::{Status, StatusSource};
use crate::error::AppError;

/// What is to be served.
#[derive(Debug, Clone, Default)]
pub struct SiteConfig {
    /// The files below this directory; none: the built-in pages.
    pub dir: Option<PathBuf>,
}

/// A site for all connections of a server, on all its threads.
///
/// It reads files on the pool of the tokio runtime that the thread has [entered](Handle::enter), and on the thread
/// itself if there is none; nothing else of it needs a runtime.
#[derive(Debug, Clone)]
pub struct SiteService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Option<Files>,
    status: Option<Status>,
}

/// The site of this configuration. With a source of figures it has `/status` and `/status.json`; files of these
/// names come first.
///
/// # Errors
/// The directory is missing, none, or cannot be read. One line.
pub fn service(config: &SiteConfig, status: Option<StatusSource>) -> Result<SiteService, AppError> {
    let below = |dir: &PathBuf| {
        Files::below(dir).map_err(|error| {
            let problem = format_args!("{error}; a directory that can be read is accepted");
            AppError::flag("--dir", dir.display(), problem)
        })
    };
    let files = config.dir.as_ref().map(below).transpose()?;
    Ok(SiteService(Arc::new(Inner { files, status: status.map(Status::new) })))
}

impl<B: Body> hyper::service::Service<Request<B>> for SiteService {
    type Response = Response<SiteBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<B>) -> Answer {
        let (parts, _) = request.into_parts();
        if let Some(refused) = refuse(&parts) {
            return Answer::ready(refused);
        }
        let is_head = parts.method == Method::HEAD;
        if self.0.files.is_none() {
            let path = percent_encoding::percent_decode_str(parts.uri.path()).collect::<Vec<_>>();
            return Answer::ready(finish(self.0.built_in(&path), is_head));
        }
        let inner = Arc::clone(&self.0);
        let answer = move || finish(inner.answer_files(&parts), is_head);
        match Handle::try_current() {
            Ok(pool) => Answer(State::Pool(pool.spawn_blocking(answer))),
            Err(_) => Answer::ready(answer()),
        }
    }
}

impl Inner {
    fn answer_files(&self, parts: &Parts) -> Response<SiteBody> {
        let written = parts.uri.path();
        let path: Vec<u8> = percent_encoding::percent_decode_str(written).collect();
        let Some(files) = &self.files else { return self.built_in(&path) };
        let is_get = parts.method == Method::GET;
        let response = files.answer(Asked { path: &path, written, headers: &parts.headers, is_get });
        if response.status() != StatusCode::NOT_FOUND {
            return response;
        }
        self.status.as_ref().and_then(|status| status.answer(&path)).unwrap_or(response)
    }

    fn built_in(&self, path: &[u8]) -> Response<SiteBody> {
        match path {
            b"/plain" => reply::typed(reply::TEXT, SiteBody::bytes(PLAIN)),
            b"/" if self.status.is_some() => {
                reply::typed(reply::TEXT, SiteBody::bytes(format!("{WELCOME}{WELCOME_STATUS}")))
            }
            b"/" => reply::typed(reply::TEXT, SiteBody::bytes(WELCOME)),
            b"/counters" => match &self.status {
                Some(status) => status.counters(),
                None => reply::typed(reply::JSON, SiteBody::bytes("{}\n")),
            },
            _ => {
                let status = self.status.as_ref().and_then(|status| status.answer(path));
                status.or_else(|| pattern(path)).unwrap_or_else(|| reply::bare(StatusCode::NOT_FOUND))
            }
        }
    }
}

fn pattern(path: &[u8]) -> Option<Response<SiteBody>> {
    let digits = std::str::from_utf8(path.strip_prefix(b"/bytes/")?).ok()?;
    let len = digits.parse().ok().filter(|len| *len <= BYTES_MAX)?;
    Some(reply::typed("application/octet-stream", SiteBody::pattern(len)))
}

/// What is answered without looking at the path.
fn refuse(parts: &Parts) -> Option<Response<SiteBody>> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Some(reply::bare(StatusCode::METHOD_NOT_ALLOWED));
    }
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    //= rfc9112#3.2
    //# A server MUST respond with a 400 (Bad Request) status code to any
    //# HTTP/1.1 request message that lacks a Host header field and to any
    //# request message that contains more than one Host header field line or
    //# a Host header field with an invalid field value.
    let is_bad = match (hosts, parts.headers.get(header::HOST)) {
        (0, _) => parts.version == Version::HTTP_11,
        (1, Some(host)) => !is_host(host),
        _ => true,
    };
    let is_bad = is_bad || !parts.uri.path().starts_with('/');
    is_bad.then(|| reply::bare(StatusCode::BAD_REQUEST))
}

/// A host with or without a port, or nothing: who asks for a target without a host has none to name.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

/// HEAD is answered as GET is, but for the body.
fn finish(mut response: Response<SiteBody>, is_head: bool) -> Response<SiteBody> {
    if is_head {
        if !response.headers().contains_key(header::CONTENT_LENGTH) {
            let len = HeaderValue::from(response.body().left());
            response.headers_mut().insert(header::CONTENT_LENGTH, len);
        }
        *response.body_mut() = SiteBody::empty();
    }
    response
}

/// The response of a site, at once or when a thread of the pool has it.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Answer(State);

#[derive(Debug)]
enum State {
    Ready(Option<Response<SiteBody>>),
    Pool(JoinHandle<Response<SiteBody>>),
}

impl Answer {
    fn ready(response: Response<SiteBody>) -> Self {
        Self(State::Ready(Some(response)))
    }
}

impl Future for Answer {
    type Output = Result<Response<SiteBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let pool = match &mut self.0 {
            State::Ready(response) => {
                return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
            }
            State::Pool(pool) => pool,
        };
        Pin::new(pool).poll(cx).map(|answer| match answer {
            Ok(response) => Ok(response),
            // It panicked there; it is this connection that ends of it.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(reply::bare(StatusCode::SERVICE_UNAVAILABLE)),
            },
        })
    }
}

const WELCOME_STATUS: &str = "  /status     the same live, with a table of the connections, for a browser\n";
