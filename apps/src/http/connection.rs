//! One connection of the server: a request, its response, and again.

use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::request::{self, HEAD_BYTES_MAX, Parsed};
use super::response::Response;
use super::site::Site;
use crate::stream::{Handler, Stream};

/// The server's side of a connection.
#[derive(Debug)]
pub(super) struct HttpConnection {
    site: Arc<Site>,
    state: State,
    /// When a peer that does nothing is given up.
    deadline: Option<Instant>,
    /// Bytes that were written.
    written: u64,
    /// Of these, acknowledged when we last looked.
    acknowledged: u64,
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
    pub(super) fn new(site: Arc<Site>) -> Self {
        Self { site, state: State::Reading(Vec::new()), deadline: None, written: 0, acknowledged: 0 }
    }

    /// One step. False: there is nothing more to do until the next call.
    fn step(&mut self, stream: &mut dyn Stream) -> bool {
        match &mut self.state {
            State::Reading(head) => {
                if let Some(sending) = next_response(&self.site, head) {
                    self.state = State::Sending(sending);
                    return true;
                }
                // It is the beginning of a head, so there is room up to the bound of one: `parse` takes
                // nothing longer for a beginning.
                let room = HEAD_BYTES_MAX.saturating_sub(head.len());
                let came = stream.recv_with(&mut |bytes| {
                    let len = bytes.len().min(room);
                    head.extend_from_slice(&bytes[..len]);
                    len
                });
                if came.is_none() && stream.peer_finished() {
                    // No more to come: the end, or half a request.
                    if head.is_empty() {
                        stream.finish();
                    } else {
                        stream.abort();
                    }
                    self.state = State::Closing;
                }
                came.is_some()
            }
            State::Sending(sending) => match sending.send(stream, &mut self.written) {
                Progress::Blocked => false,
                Progress::Failed => {
                    // The head has promised more than there is: only a broken connection says so.
                    stream.abort();
                    false
                }
                Progress::Done => {
                    self.state = match sending.rest.take() {
                        Some(rest) => State::Reading(rest),
                        None => {
                            stream.finish();
                            State::Closing
                        }
                    };
                    true
                }
            },
            State::Closing => stream.recv_with(&mut |bytes| bytes.len()).is_some(),
        }
    }

    /// Whether the peer has taken something of what we have said since this was asked last. It is asked at the
    /// deadline only, so a peer that stops to take is given up after one to two of them.
    fn has_taken(&mut self, stream: &dyn Stream) -> bool {
        let unacknowledged = stream.unacknowledged() as u64;
        let before = std::mem::replace(&mut self.acknowledged, self.written.saturating_sub(unacknowledged));
        unacknowledged > 0 && self.acknowledged > before
    }
}

impl Handler for HttpConnection {
    fn ready(&mut self, stream: &mut dyn Stream) {
        let is_due = self.deadline.is_some_and(|deadline| deadline <= stream.now());
        let mut progress = self.deadline.is_none() || is_due && self.has_taken(stream);
        let written = self.written;
        while self.step(stream) {
            progress = true;
        }
        if progress || self.written != written {
            self.deadline = Some(stream.now() + IDLE_TIMEOUT);
        } else if is_due {
            stream.abort();
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
    fn send(&mut self, stream: &mut dyn Stream, written: &mut u64) -> Progress {
        while self.head_sent < self.head.len() {
            match stream.send(&self.head[self.head_sent..]) {
                0 => return Progress::Blocked,
                sent => {
                    self.head_sent += sent;
                    *written += sent as u64;
                }
            }
        }
        let Some(response) = &mut self.response else { return Progress::Done };
        while self.body_sent < response.body.len() {
            let mut failed = false;
            let sent = stream.send_with(&mut |room| {
                let read = response.body.read_at(self.body_sent, room);
                failed = read.is_err();
                read.unwrap_or(0)
            });
            match sent {
                _ if failed => return Progress::Failed,
                None | Some(0) => return Progress::Blocked,
                Some(len) => {
                    self.body_sent += len as u64;
                    *written += len as u64;
                }
            }
        }
        Progress::Done
    }
}

/// How long a peer may neither send nor take anything.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
