//! Names to addresses, with the stack's own resolver.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Access, Stack};
use crate::dns::{Kind, QueryId};

/// Where to connect to: addresses, or a name that is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// In the order in which they are tried.
    Addresses(Vec<SocketAddr>),
    /// A name and a port.
    Name(String, u16),
}

/// What std's `ToSocketAddrs` takes, without asking the resolver of the kernel's side.
pub trait ToEndpoint {
    /// What it means.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): it is neither an address with a port nor a name with one.
    fn to_endpoint(&self) -> io::Result<Endpoint>;
}

impl ToEndpoint for SocketAddr {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(vec![*self]))
    }
}

impl ToEndpoint for SocketAddrV4 {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(vec![(*self).into()]))
    }
}

impl ToEndpoint for SocketAddrV6 {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(vec![(*self).into()]))
    }
}

impl ToEndpoint for (IpAddr, u16) {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(vec![(*self).into()]))
    }
}

impl ToEndpoint for (Ipv4Addr, u16) {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(vec![(*self).into()]))
    }
}

impl ToEndpoint for (Ipv6Addr, u16) {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(vec![(*self).into()]))
    }
}

impl ToEndpoint for [SocketAddr] {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(self.to_vec()))
    }
}

impl ToEndpoint for Vec<SocketAddr> {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Addresses(self.clone()))
    }
}

impl ToEndpoint for (&str, u16) {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        let (name, port) = *self;
        Ok(match name.parse::<IpAddr>() {
            Ok(ip) => Endpoint::Addresses(vec![(ip, port).into()]),
            Err(_) => Endpoint::Name(name.to_owned(), port),
        })
    }
}

impl ToEndpoint for (String, u16) {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        (self.0.as_str(), self.1).to_endpoint()
    }
}

impl ToEndpoint for str {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        if let Ok(address) = self.parse::<SocketAddr>() {
            return Ok(Endpoint::Addresses(vec![address]));
        }
        let parts = self.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
        match parts.filter(|(name, _)| !name.is_empty() && !name.contains(':')) {
            Some((name, port)) => (name, port).to_endpoint(),
            None => {
                let problem = format!("{self:?} is no HOST:PORT, as in example.org:80 or [2001:db8::1]:80");
                Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
            }
        }
    }
}

impl ToEndpoint for String {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        self.as_str().to_endpoint()
    }
}

impl ToEndpoint for Endpoint {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        Ok(self.clone())
    }
}

impl<T: ToEndpoint + ?Sized> ToEndpoint for &T {
    fn to_endpoint(&self) -> io::Result<Endpoint> {
        (**self).to_endpoint()
    }
}

impl<A: Access> Stack<A> {
    /// The addresses of a name, in the order in which they are best tried (RFC 6724, families taking turns).
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound): there is no such name, or no name server to ask;
    /// [`TimedOut`](io::ErrorKind::TimedOut): none has answered.
    pub async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let shard = self.next_shard().clone();
        let id = shard.with(|hub| match hub.fault() {
            Some(fault) => Err(io::Error::from(fault)),
            None => Ok(hub.resolve(name, Kind::Addresses)?),
        })?;
        Lookup { access: shard, id }.await
    }

    /// All addresses that are meant, in the order in which they are best tried.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup); and [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub async fn resolve(&self, endpoint: impl ToEndpoint) -> io::Result<Vec<SocketAddr>> {
        match endpoint.to_endpoint()? {
            Endpoint::Addresses(addresses) => Ok(addresses),
            Endpoint::Name(name, port) => {
                let found = self.lookup(&name).await?;
                Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
            }
        }
    }
}

/// An answer that is waited for.
struct Lookup<A: Access> {
    access: A,
    id: QueryId,
}

impl<A: Access> Future for Lookup<A> {
    type Output = io::Result<Vec<IpAddr>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.access.with(|hub| match hub.take_answer(self.id, context.waker()) {
            None => Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(hub.fault().map_or_else(|| error.into(), io::Error::from))),
            Some(Ok(answer)) => Poll::Ready(Ok(hub.shard_ref().in_order(&answer))),
        })
    }
}

impl<A: Access> Drop for Lookup<A> {
    fn drop(&mut self) {
        self.access.with(|hub| hub.cancel_lookup(self.id));
    }
}
