//! The stack of sockets that name none.

use std::io;
use std::net::SocketAddr;

use parking_lot::RwLock;

use super::{Shared, Stack};

static INSTALLED: RwLock<Option<Stack<Shared>>> = RwLock::new(None);

/// Makes a stack the one of all sockets that name none, in [`tokio`](super::tokio) and in [`blocking`](super::blocking);
/// `None`: there is none any more. Returns the one before. Sockets that exist stay where they are.
pub fn install(stack: Option<Stack<Shared>>) -> Option<Stack<Shared>> {
    std::mem::replace(&mut *INSTALLED.write(), stack)
}

/// The stack that is installed.
///
/// # Errors
/// [`NotConnected`](io::ErrorKind::NotConnected): none is.
pub fn installed() -> io::Result<Stack<Shared>> {
    let stack = INSTALLED.read().clone();
    stack.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotConnected, "no stack is installed; `wirestack::install` does")
    })
}

/// The first address that can be had; std tries them in this way, too.
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
