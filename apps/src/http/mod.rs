//! `wirestack http`: a server of files or built-in pages, GET and HEAD: HTTP/1.1 (RFC 9112) and HTTP/2 on hyper
//! with TLS if wanted, or a small server of our own on events.
//!
//! ```text
//!   bytes ──▶ request::parse ──▶ Site::answer ──▶ Response ──▶ head, then body, into the send buffer
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | `connection`, `request`, `response`, `site` | the server on events, `--api poll`, as in the drawing |
//! | `server`, `activity` | a connection on hyper, over any stream: HTTP/1.1 and HTTP/2, its limits and its end |
//! | `linger` | the end of a connection, so that the peer gets all |
//! | `serving` | the same on the stack: how it begins, and what all connections have in common |
//! | `program`, `local` | with tasks of tokio, or on the thread of the stack |
//! | `service`, `body`, `reply` | the same site as a service of hyper |
//! | `files`, `conditions`, `index` | `--dir` there: ranges, preconditions, the page of a directory |
//! | `status` | `/status`, for people with a browser, and `/status.json` |
//! | `tls` | `--tls`, `--cert`, `--key` |

mod activity;
mod body;
mod conditions;
mod connection;
mod files;
mod index;
mod linger;
mod local;
mod program;
mod reply;
mod request;
mod response;
pub mod server;
pub mod service;
mod serving;
mod site;
pub mod status;
#[cfg(test)]
mod tests;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use wirestack::nic::claim::Protocol;

use crate::api::Api;
use crate::cli::HttpArgs;
use crate::error::AppError;
use crate::serve::{Figures, Program, Service};
use crate::setup::{self, Ports};
use crate::stream::{Handler, Listening};

pub use request::{Parsed, Request, parse};
pub use site::Site;

pub(crate) use response::pattern_byte;

use connection::HttpConnection;

/// Runs until a signal.
///
/// # Errors
/// What is wrong with the flags or the machine, in one line.
pub fn run(args: &HttpArgs) -> Result<(), AppError> {
    let ports = Ports { served: vec![args.port], protocols: &[Protocol::Tcp], sources: &[Protocol::Tcp] };
    match Api::choose(args.api, Api::Async, args.tcp.backend)? {
        Api::Poll => setup::start(&args.host, ports, on_events(args)?),
        Api::Local => setup::start(&args.host, ports, local::new(args)?),
        Api::Async | Api::Blocking => setup::start(&args.host, ports, program::new(args)?),
    }
}

/// The small server, in the turns of the stack.
fn on_events(args: &HttpArgs) -> Result<Program<Http>, AppError> {
    if tls::Tls::from_args(&args.tls)?.is_some() {
        // Never without it where it was asked for.
        let problem = "--tls: --api poll has no such thing; --api async or local is accepted";
        return Err(AppError::usage(problem));
    }
    let site = match &args.dir {
        Some(dir) => Site::directory(dir).map_err(|error| AppError::flag("--dir", dir.display(), error))?,
        None => Site::built_in(),
    };
    Program::new(Http::new(args.port, site), args.tcp.clone(), args.run.clone())
}

/// A site on a port.
#[derive(Debug, Clone)]
pub struct Http {
    port: u16,
    site: Arc<Site>,
}

impl Http {
    /// Serves the site on a TCP port.
    pub fn new(port: u16, site: Site) -> Self {
        Self { port, site: Arc::new(site) }
    }
}

impl Service for Http {
    const KIND: &'static str = "http";

    fn listeners(&self) -> Vec<Listening> {
        let site = Arc::clone(&self.site);
        let accept =
            move |_: SocketAddr| Box::new(HttpConnection::new(Arc::clone(&site))) as Box<dyn Handler>;
        vec![Listening { port: self.port, accept: Box::new(accept) }]
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn observe(&self, figures: &Figures) {
        self.site.observe(figures);
    }
}
