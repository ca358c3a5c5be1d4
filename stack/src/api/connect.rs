//! Connecting to one of several addresses, whichever answers first (RFC 8305, "happy eyeballs").

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use smoltcp::time::Duration;

use super::{Access, Stack, TcpStream, ToEndpoint};

impl<A: Access> Stack<A> {
    /// Connects to a name or an address. Of several addresses the next one is tried when the one before has failed, or has
    /// not answered within a quarter of a second; whichever answers first is taken, and the other attempts are given up.
    ///
    /// # Errors
    /// As std's `TcpStream::connect`: why the last attempt failed; or why there is no address.
    pub async fn connect_to(&self, endpoint: impl ToEndpoint) -> io::Result<TcpStream<A>> {
        let addresses = self.resolve(endpoint).await?;
        self.connect_any(&addresses).await
    }

    /// The same of addresses, best first.
    ///
    /// # Errors
    /// As [`connect_to`](Self::connect_to).
    pub async fn connect_any(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream<A>> {
        let mut left = addresses.iter().take(ADDRESSES_MAX);
        let mut attempts = FuturesUnordered::new();
        let mut error = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to connect to");
        loop {
            match left.next() {
                Some(&address) => attempts.push(self.connect(address)),
                None if attempts.is_empty() => return Err(error),
                None => {}
            }
            //= rfc8305#5
            //# A simple implementation can have a fixed delay for how long to wait before starting the next connection
            //# attempt. This delay is referred to as the "Connection Attempt Delay". One recommended value for a
            //# default delay is 250 milliseconds.
            let delay = if left.len() > 0 { CONNECTION_ATTEMPT_DELAY } else { FOR_EVER };
            let ended = match select(attempts.next(), pin!(self.sleep(delay))).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => None,
            };
            match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(failed)) => error = failed,
                None => {}
            }
        }
    }
}

/// RFC 8305 section 8.
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Attempts have an end of their own.
const FOR_EVER: Duration = Duration::from_secs(86_400);
/// A name may have many addresses; nobody waits for more.
const ADDRESSES_MAX: usize = 16;
