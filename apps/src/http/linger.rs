//! The end of a connection, so that the peer gets all of the last response.

use std::net::Shutdown;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::future::select;
use wirestack::api::{Access, TcpStream};

use super::server::Timer;

/// Closes in stages, as RFC 9112 section 9.6 has it: we have finished, and what still comes is read and thrown away until
/// the peer has finished as well, for a moment. If it were dropped now, what comes would be answered by a reset, and the
/// peer might lose what it has not read.
pub(super) async fn linger<A: Access>(stream: TcpStream<A>, timer: &impl Timer) {
    if stream.shutdown_now(Shutdown::Write).is_err() {
        return;
    }
    let mut left = LINGER_BYTES_MAX;
    let drained = std::future::poll_fn(|context| {
        let mut room = [0; 4_096];
        loop {
            match ready!(stream.poll_recv(context, &mut room)) {
                Ok(len) if len > 0 && len < left => left -= len,
                _ => return Poll::Ready(()),
            }
        }
    });
    select(pin!(drained), pin!(timer.sleep(LINGER))).await;
}

/// How long a peer may take to finish after we have.
const LINGER: Duration = Duration::from_secs(2);
/// What it may send meanwhile.
const LINGER_BYTES_MAX: usize = 1 << 20;
