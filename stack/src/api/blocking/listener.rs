//! Listening.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::TcpStream;
use super::park::{Manners, block_on_for_ever};
use crate::api::installed::first;
use crate::api::{self, ListenOptions, Shared, Stack, ToEndpoint, installed};

/// As `std::net::TcpListener`. Dropping the last clone stops listening, and resets what was not accepted.
pub struct TcpListener {
    shared: Arc<Socket>,
}

struct Socket {
    listener: api::TcpListener<Shared>,
    manners: Manners,
}

impl TcpListener {
    /// Listens on the installed stack.
    ///
    /// # Errors
    /// The address is not ours ([`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable)), the port is in use
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)); no stack is installed
    /// ([`NotConnected`](io::ErrorKind::NotConnected)).
    pub fn bind(endpoint: impl ToEndpoint) -> io::Result<Self> {
        Self::bind_on(&installed()?, endpoint)
    }

    /// Listens on this stack.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_on(stack: &Stack<Shared>, endpoint: impl ToEndpoint) -> io::Result<Self> {
        Self::bind_with(stack, endpoint, ListenOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_with(
        stack: &Stack<Shared>,
        endpoint: impl ToEndpoint,
        options: ListenOptions,
    ) -> io::Result<Self> {
        let addresses = block_on_for_ever(stack.resolve(endpoint))?;
        first(addresses, |address| stack.listen_with(address, options)).map(Self::from)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.listener.local_addr()
    }

    /// Another handle of the same listener: each connection is accepted by one of them.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: Arc::clone(&self.shared) })
    }

    /// The next connection, and who it is from.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): none waits, and it is not to be waited for;
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface has gone, or the stack has ended.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let Socket { listener, manners } = &*self.shared;
        let (stream, peer) = manners.wait(None, |context| listener.poll_accept(context))?;
        Ok((stream.into(), peer))
    }

    /// Connections as they come. It never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// TTL or hop limit of what is accepted from now on, 1 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.shared.listener.set_ttl(ttl)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// None.
    pub fn ttl(&self) -> io::Result<u32> {
        self.shared.listener.ttl()
    }

    /// An error that waits: a listener has none.
    ///
    /// # Errors
    /// None.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }

    /// Whether [`accept`](Self::accept) does not wait. What is accepted does, in any case.
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.manners.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The same listener for tasks, with what std's has not.
    pub fn as_async(&self) -> &api::TcpListener<Shared> {
        &self.shared.listener
    }
}

impl From<api::TcpListener<Shared>> for TcpListener {
    fn from(listener: api::TcpListener<Shared>) -> Self {
        Self { shared: Arc::new(Socket { listener, manners: Manners::default() }) }
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.listener.fmt(f)
    }
}

/// What [`TcpListener::incoming`] returns.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl std::iter::FusedIterator for Incoming<'_> {}
