//! Sockets for tasks of tokio, and of whatever else polls futures: hyper, rustls, tonic. The shards run on threads of
//! the [`driver`](crate::driver); no runtime of tokio is needed for the sockets themselves.
//!
//! Types that name no stack use the [installed](install) one, so that porting a program is a change of `use` lines.

use std::io;
use std::net::SocketAddr;

use parking_lot::RwLock;

use super::{Shared, ToEndpoint};

/// A stack whose shards run on threads of the driver.
pub type Stack = super::Stack<Shared>;
/// A listener.
pub type TcpListener = super::TcpListener<Shared>;
/// A connection.
pub type TcpStream = super::TcpStream<Shared>;
/// Its reading half.
pub type OwnedReadHalf = super::OwnedReadHalf<Shared>;
/// Its writing half.
pub type OwnedWriteHalf = super::OwnedWriteHalf<Shared>;
/// A socket for datagrams.
pub type UdpSocket = super::UdpSocket<Shared>;

static INSTALLED: RwLock<Option<Stack>> = RwLock::new(None);

/// Makes a stack the one of all sockets that name none, here and in [`blocking`](super::blocking); `None`: there is none
/// any more. Returns the one before.
pub fn install(stack: Option<Stack>) -> Option<Stack> {
    std::mem::replace(&mut *INSTALLED.write(), stack)
}

/// The stack that is installed.
///
/// # Errors
/// [`NotConnected`](io::ErrorKind::NotConnected): none is.
pub fn installed() -> io::Result<Stack> {
    let stack = INSTALLED.read().clone();
    stack.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotConnected, "no stack is installed; `tokio::install` does")
    })
}

impl TcpListener {
    /// Listens on the installed stack.
    ///
    /// # Errors
    /// As std's; [`NotConnected`](io::ErrorKind::NotConnected): no stack is installed.
    pub async fn bind(endpoint: impl ToEndpoint) -> io::Result<Self> {
        let stack = installed()?;
        first(stack.resolve(endpoint).await?, |address| stack.listen(address))
    }
}

impl TcpStream {
    /// Connects on the installed stack, to the first address that answers (RFC 8305).
    ///
    /// # Errors
    /// As std's; [`NotConnected`](io::ErrorKind::NotConnected): no stack is installed.
    pub async fn connect(endpoint: impl ToEndpoint) -> io::Result<Self> {
        installed()?.connect_to(endpoint).await
    }
}

impl UdpSocket {
    /// Binds on the installed stack.
    ///
    /// # Errors
    /// As std's; [`NotConnected`](io::ErrorKind::NotConnected): no stack is installed.
    pub async fn bind(endpoint: impl ToEndpoint) -> io::Result<Self> {
        let stack = installed()?;
        first(stack.resolve(endpoint).await?, |address| stack.udp_bind(address))
    }

    /// Fixes whom it talks to: the first address to which there is a way.
    ///
    /// # Errors
    /// As std's.
    pub async fn connect(&self, endpoint: impl ToEndpoint) -> io::Result<()> {
        let addresses = match endpoint.to_endpoint()? {
            super::Endpoint::Addresses(addresses) => addresses,
            name @ super::Endpoint::Name(..) => installed()?.resolve(name).await?,
        };
        first(addresses, |address| self.connect_now(address))
    }
}

/// The first address that can be had.
pub(crate) fn first<T>(addresses: Vec<SocketAddr>, f: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut error = io::Error::new(io::ErrorKind::InvalidInput, "there is no address");
    for address in addresses {
        match f(address) {
            Ok(result) => return Ok(result),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}
