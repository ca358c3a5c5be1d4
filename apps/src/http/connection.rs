//! One connection of the server: a request, its response, and again.

use std::rc::Rc;

use smoltcp::time::{Duration, Instant};
use wirestack::backend::smoltcp::{Conn, Handler};

use super::request::{self, HEAD_BYTES_MAX, Parsed};
use super::response::Response;
use super::site::Site;

/// The server's side of a connection.
#[derive(Debug)]
pub(super) struct HttpConnection {
    site: Rc<Site>,
    state: State,
    /// When a peer that does nothing is given up.
    deadline: Option<Instant>,
    /// Bytes that the peer had not taken when we last looked: fewer are progress.
    unacknowledged: usize,
}

#[derive(Debug)]
enum State {
    /// Waits for a request, of which these bytes have come.
    Reading(Vec<u8>),
    /// Sends a response.
    Sending(Sending),
    /// Everything is said; waits for the peer to close, so that a RST does not overtake our last bytes
    /// (RFC 9112 section 9.6).
    Closing,
}

#[derive(Debug)]
struct Sending {
    head: Vec<u8>,
    head_sent: usize,
    /// `None` after HEAD.
    response: Option<Response>,
    body_sent: u64,
    /// What came behind the request, if the connection stays open.
    rest: Option<Vec<u8>>,
}

impl HttpConnection {
    pub(super) fn new(site: Rc<Site>) -> Self {
        Self { site, state: State::Reading(Vec::new()), deadline: None, unacknowledged: 0 }
    }

    /// One step. False: there is nothing more to do until the next call.
    fn step(&mut self, conn: &mut Conn<'_, '_>) -> bool {
        match &mut self.state {
            State::Reading(head) => {
                if let Some(sending) = next_response(&self.site, head) {
                    self.state = State::Sending(sending);
                    return true;
                }
                // It is the beginning of a head, so there is room up to the bound of one: `parse` takes
                // nothing longer for a beginning.
                let room = HEAD_BYTES_MAX.saturating_sub(head.len());
                let came = conn.recv_with(|bytes| {
                    let len = bytes.len().min(room);
                    head.extend_from_slice(&bytes[..len]);
                    (len, ())
                });
                if came.is_none() && conn.peer_finished() {
                    // No more to come: the end, or half a request.
                    if head.is_empty() {
                        conn.close();
                    } else {
                        conn.abort();
                    }
                    self.state = State::Closing;
                }
                came.is_some()
            }
            State::Sending(sending) => match sending.send(conn) {
                Progress::Blocked => false,
                Progress::Failed => {
                    // The head has promised more than there is: only a broken connection says so.
                    conn.abort();
                    false
                }
                Progress::Done => {
                    self.state = match sending.rest.take() {
                        Some(rest) => State::Reading(rest),
                        None => {
                            conn.close();
                            State::Closing
                        }
                    };
                    true
                }
            },
            State::Closing => conn.recv_with(|bytes| (bytes.len(), ())).is_some(),
        }
    }
}

impl Handler for HttpConnection {
    fn ready(&mut self, conn: &mut Conn<'_, '_>) {
        if self.deadline.is_some_and(|deadline| deadline <= conn.now()) {
            conn.abort();
            return;
        }
        let before = conn.unacknowledged();
        let mut progress = self.deadline.is_none() || before < self.unacknowledged;
        while self.step(conn) {
            progress = true;
        }
        self.unacknowledged = conn.unacknowledged();
        if progress || self.unacknowledged != before {
            self.deadline = Some(conn.now() + IDLE_TIMEOUT);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// The response to what has come, once it is a whole request, or can never become one.
fn next_response(site: &Site, head: &mut Vec<u8>) -> Option<Sending> {
    let sending = |response: Response, keep_alive, wants_body, rest| Sending {
        head: response.head(keep_alive),
        head_sent: 0,
        response: Some(response).filter(|_| wants_body),
        body_sent: 0,
        rest,
    };
    match request::parse(head) {
        Parsed::Incomplete => None,
        Parsed::Refused(status) => Some(sending(Response::bare(status), false, true, None)),
        Parsed::Request(request, len) => {
            let rest = request.keep_alive.then(|| head.split_off(len));
            Some(sending(site.answer(&request.path), request.keep_alive, request.wants_body, rest))
        }
    }
}

enum Progress {
    Done,
    Blocked,
    Failed,
}

impl Sending {
    /// Puts as much as there is room for into the send buffer.
    fn send(&mut self, conn: &mut Conn<'_, '_>) -> Progress {
        while self.head_sent < self.head.len() {
            match conn.send(&self.head[self.head_sent..]) {
                0 => return Progress::Blocked,
                sent => self.head_sent += sent,
            }
        }
        let Some(response) = &mut self.response else { return Progress::Done };
        while self.body_sent < response.body.len() {
            let sent = conn.send_with(|room| match response.body.read_at(self.body_sent, room) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match sent {
                None | Some(Ok(0)) => return Progress::Blocked,
                Some(Ok(len)) => self.body_sent += len as u64,
                Some(Err(_)) => return Progress::Failed,
            }
        }
        Progress::Done
    }
}

/// How long a peer may neither send nor take anything.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
