//! Listening: on all shards at once.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::{Access, Interest, ListenOptions, Stack, TcpStream};
use crate::shard::{SocketId, TcpListen};
use crate::tcp::{ListenError, TcpOptions};

/// Takes connections. Dropping it stops listening, and resets what was not accepted.
///
/// All methods take `&self`: several tasks may accept from one listener.
pub struct TcpListener<A: Access> {
    /// In each shard.
    places: Vec<(A, SocketId)>,
    local: SocketAddr,
    /// Who is asked first next time: all shards get their turn.
    next: AtomicUsize,
}

impl<A: Access> TcpListener<A> {
    /// Listens on all shards of a stack.
    ///
    /// # Errors
    /// The address is not ours ([`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable)), the port is in use
    /// ([`AddrInUse`](io::ErrorKind::AddrInUse)), or there is no room.
    pub fn open(stack: &Stack<A>, local: SocketAddr, options: ListenOptions) -> io::Result<Self> {
        // Of a port that is chosen in the first shard, another one may be in use in the next; then there is another try.
        for attempt in 1.. {
            match Self::try_open(stack, local, options) {
                Err(error)
                    if local.port() == 0
                        && attempt < ATTEMPTS_MAX
                        && error.kind() == io::ErrorKind::AddrInUse => {}
                opened => return opened,
            }
        }
        Err(ListenError::NoPort.into())
    }

    fn try_open(stack: &Stack<A>, mut local: SocketAddr, options: ListenOptions) -> io::Result<Self> {
        let mut listener = Self { places: Vec::new(), local, next: AtomicUsize::new(0) };
        for shard in stack.shards() {
            let (id, bound) = shard.with(|hub| {
                if let Some(fault) = hub.fault() {
                    return Err(fault.into());
                }
                let default = hub.shard_ref().tcp_default_options();
                let listen = TcpListen {
                    v6_only: options.v6_only,
                    options: options.tcp.unwrap_or(default),
                    ..TcpListen::new(local)
                };
                let listen = TcpListen { backlog: options.backlog.unwrap_or(listen.backlog), ..listen };
                let id = hub.shard().tcp_listen(listen).map_err(io::Error::from)?;
                let bound = hub.shard_ref().tcp_ends(id).map_or(local, |(local, _)| local);
                Ok::<_, io::Error>((id, bound))
            })?;
            listener.places.push((shard.clone(), id));
            local = bound;
        }
        listener.local = local;
        Ok(listener)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// The next connection, and who it is from. Cancel-safe: a connection that is not returned waits on.
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface has gone, or the stack has ended.
    pub fn accept(&self) -> Accept<'_, A> {
        Accept { listener: self }
    }

    /// The same by polling: as many tasks as like may wait.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream<A>, SocketAddr)>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for position in 0..self.places.len() {
            let (shard, listener) = &self.places[(first + position) % self.places.len()];
            let accepted = shard.with(|hub| {
                while let Some(id) = hub.shard().tcp_accept(*listener) {
                    match hub.shard_ref().tcp_ends(id) {
                        Some((local, Some(peer))) => return Some(Ok((id, local, peer))),
                        // It has ended before it was accepted.
                        _ => hub.close(id),
                    }
                }
                if let Some(fault) = hub.fault() {
                    return Some(Err(fault.into()));
                }
                if hub.shard_ref().tcp_readiness(*listener).readable {
                    hub.wait_for_sockets(context.waker());
                }
                hub.wait_for(*listener, Interest::Read, context.waker());
                None
            });
            if let Some(accepted) = accepted {
                return Poll::Ready(
                    accepted.map(|(id, local, peer)| (TcpStream::of(shard.clone(), id, local, peer), peer)),
                );
            }
        }
        Poll::Pending
    }

    /// TTL or hop limit of what is accepted from now on, 1 to 255.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): another value; [`NotConnected`](io::ErrorKind::NotConnected): the
    /// stack has ended.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let hop_limit = hop_limit_of(ttl)?;
        let options = self.options().ok_or(io::ErrorKind::NotConnected)?;
        self.set_options(TcpOptions { hop_limit: Some(hop_limit), ..options });
        Ok(())
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected): the stack has ended.
    pub fn ttl(&self) -> io::Result<u32> {
        let (shard, id) = self.places.first().ok_or(io::ErrorKind::NotConnected)?;
        shard.with(|hub| {
            let options = hub.shard_ref().tcp_options(*id).ok_or(io::ErrorKind::NotConnected)?;
            Ok(options.hop_limit.unwrap_or(hub.shard_ref().hop_limit()).into())
        })
    }

    /// Manners of what is accepted from now on.
    pub fn set_options(&self, options: TcpOptions) {
        for (shard, id) in &self.places {
            shard.with(|hub| hub.shard().tcp_set_options(*id, options));
        }
    }

    /// The same, as they are.
    pub fn options(&self) -> Option<TcpOptions> {
        let (shard, id) = self.places.first()?;
        shard.with(|hub| hub.shard_ref().tcp_options(*id))
    }
}

impl<A: Access> Drop for TcpListener<A> {
    fn drop(&mut self) {
        for (shard, id) in &self.places {
            shard.with(|hub| hub.close(*id));
        }
    }
}

impl<A: Access> fmt::Debug for TcpListener<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.local).finish_non_exhaustive()
    }
}

/// What [`TcpListener::accept`] returns.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Accept<'a, A: Access> {
    listener: &'a TcpListener<A>,
}

impl<A: Access> Future for Accept<'_, A> {
    type Output = io::Result<(TcpStream<A>, SocketAddr)>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.listener.poll_accept(context)
    }
}

/// A TTL as std takes it.
pub(crate) fn hop_limit_of(ttl: u32) -> io::Result<u8> {
    let hop_limit = u8::try_from(ttl).ok().filter(|limit| *limit > 0);
    hop_limit.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a TTL of {ttl}: 1 to 255 are accepted"))
    })
}

/// Ports that are tried.
const ATTEMPTS_MAX: usize = 16;
