//! `wirestack http`: a small HTTP/1.1 server, RFC 9112: GET and HEAD, kept-open connections, files or
//! built-in pages.
//!
//! ```text
//!   bytes ──▶ request::parse ──▶ Site::answer ──▶ Response ──▶ head, then body, into the send buffer
//! ```

mod connection;
mod request;
mod response;
mod site;

use std::net::SocketAddr;
use std::sync::Arc;

use wirestack::nic::claim::Protocol;

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
    let site = match &args.dir {
        Some(dir) => Site::directory(dir).map_err(|error| AppError::flag("--dir", dir.display(), error))?,
        None => Site::built_in(),
    };
    let ports = Ports { port: args.port, protocols: &[Protocol::Tcp], sources: &[Protocol::Tcp] };
    setup::start(
        &args.host,
        ports,
        Program::new(Http::new(args.port, site), args.tcp.clone(), args.run.clone())?,
    )
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
