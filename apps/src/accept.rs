//! Takes connections for tasks, not more than there are places for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wirestack::api::{Access, TcpListener, TcpStream};

/// Places for so many connections, one at least; clones are the same ones.
#[derive(Debug, Clone)]
pub struct Places(Arc<Semaphore>);

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many, all free.
    pub fn new(len: usize) -> Self {
        Self(Arc::new(Semaphore::new(len.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Waits for a free one.
    pub async fn take(&self) -> Place {
        match Arc::clone(&self.0).acquire_owned().await {
            Ok(permit) => Place { _permit: permit },
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Accepts connections until the stack has ended, and hands each to `spawn`, with its peer and its place. While all places are
/// taken, others wait at the listener.
///
/// # Errors
/// [`NetworkDown`](io::ErrorKind::NetworkDown): the stack has ended.
pub async fn accept<A: Access>(
    listener: TcpListener<A>,
    places: Places,
    spawn: impl Fn(TcpStream<A>, SocketAddr, Place),
) -> io::Result<()> {
    loop {
        let place = places.take().await;
        let (stream, peer) = listener.accept().await?;
        spawn(stream, peer, place);
    }
}
